/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the seed. Places are looked at in this order, and the first that has a user-data or meta-data is the seed:
 *
 *   cd_content, cd_files           the CD that Packer makes, when its label is cidata
 *   qemuargs -drive, -cdrom        an ISO image with that label
 *   http_content, http_directory   what is served, below the path that -smbios names
 *   floppy_content, floppy_files, floppy_dirs
 *
 * A file that was read is an input of the step; texts of the template are its arguments.
 */
#include "baker/source-seed.h"

#include "baker/source-common.h"
#include "baker/source-packer.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/printable.h"

#include <fcntl.h>
#include <glob.h>
#include <string.h>
#include <sys/stat.h>

#define SEED_TEXT_MAX ((size_t)4 << 20)

static const char *const names[] = {"user-data", "meta-data", "vendor-data", "network-config", NULL};
enum { USER_DATA, META_DATA, VENDOR_DATA, NETWORK_CONFIG, NAMES };

typedef struct Finding {
    const SourceContext *context;
    const json_t *args;
    char *texts[NAMES];
    json_t *files; /* where they were read; a list */
} Finding;

static bool is_found(const Finding *finding)
{
    return finding->texts[USER_DATA] || finding->texts[META_DATA];
}

static void forget(Finding *finding)
{
    for (int i = 0; i < NAMES; i++)
        g_clear_pointer(&finding->texts[i], g_free);
    json_array_clear(finding->files);
}

static int name_of(const char *path)
{
    while (g_str_has_prefix(path, "./") || *path == '/')
        path += *path == '/' ? 1 : 2;
    for (int i = 0; i < NAMES; i++)
        if (strcmp(path, names[i]) == 0)
            return i;
    return -1;
}

static bool take_file(Finding *finding, int index, const char *name, const char *path, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autofree char *text = NULL;

    if (!g_utf8_validate(name, -1, NULL)) {
        g_autofree char *shown = printable_line(name);

        return fail(error, "the seed: the name '%s' is no UTF-8", shown);
    }
    if (!file_load(AT_FDCWD, path, SEED_TEXT_MAX, &bytes, error))
        return fail_prefix(error, "the seed");
    text = g_strndup(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
    if (!g_utf8_validate(text, -1, NULL) || strlen(text) != g_bytes_get_size(bytes))
        return fail(error, "the seed: '%s' is no text", name);
    g_free(finding->texts[index]);
    finding->texts[index] = g_steal_pointer(&text);
    json_array_add_new(finding->files, json_string_nocheck(name));
    return true;
}

/* The files of a folder that is the seed's top. */
static bool take_folder(Finding *finding, const char *name, const char *path, GError **error)
{
    for (int i = 0; i < NAMES; i++) {
        g_autofree char *file = g_build_filename(path, names[i], NULL), *shown = g_build_filename(name, names[i], NULL);

        if (g_file_test(file, G_FILE_TEST_IS_REGULAR) && !take_file(finding, i, shown, file, error))
            return false;
    }
    return true;
}

/* One entry of cd_files: a file, a folder, or a glob of those. */
static bool take_entry(Finding *finding, const char *text, GError **error)
{
    g_autofree char *expanded = NULL, *path = NULL;
    glob_t found = {0};
    bool ok = true;

    if (!packer_expand(finding->context, text, &expanded, error))
        return false;
    path = source_find_file(finding->context, expanded);
    if (glob(path, GLOB_BRACE | GLOB_NOSORT, NULL, &found) != 0) {
        globfree(&found);
        return fail(error, "'%s' is not there", expanded);
    }
    for (size_t i = 0; i < found.gl_pathc && ok; i++) {
        const char *one = found.gl_pathv[i];
        g_autofree char *base = g_path_get_basename(one);
        int index = name_of(base);

        if (g_file_test(one, G_FILE_TEST_IS_DIR))
            ok = take_folder(finding, one, one, error);
        else if (index >= 0)
            ok = take_file(finding, index, found.gl_pathc == 1 && !strpbrk(expanded, "*?[{") ? expanded : one, one, error);
    }
    globfree(&found);
    return ok;
}

static bool take_entries(Finding *finding, const char *argument, GError **error)
{
    const json_t *one;
    size_t i;

    json_array_foreach (json_object_get(finding->args, argument), i, one)
        if (json_is_string(one) && !take_entry(finding, json_string_value(one), error))
            return fail_prefix(error, "'%s'", argument);
    return true;
}

static void take_content(Finding *finding, const char *argument, const char *below)
{
    const char *key;
    json_t *text;

    json_object_foreach (json_object_get(finding->args, argument), key, text) {
        const char *path = key + strspn(key, "/");
        int index;

        if (!g_str_has_prefix(path, below))
            continue;
        index = name_of(path + strlen(below));
        if (index < 0 || !json_is_string(text))
            continue;
        g_free(finding->texts[index]);
        finding->texts[index] = g_strdup(json_string_value(text));
    }
}

/* --- places --- */

static bool look_on_cd(Finding *finding, GError **error)
{
    g_autofree char *label = NULL;

    if (!packer_text(finding->context, finding->args, "cd_label", "cidata", &label, error) || !take_entries(finding, "cd_files", error))
        return false;
    take_content(finding, "cd_content", "");
    if (is_found(finding) && g_ascii_strcasecmp(label, "cidata") != 0) {
        log_info("    %s: the CD's label is '%s', and cloud-init reads one called cidata: it is no seed", finding->context->name, label);
        forget(finding);
    }
    return true;
}

/* "file=PATH" among an option's parts; free with g_free. */
static char *file_of_drive(const char *option, const char *value)
{
    g_auto(GStrv) parts = NULL;

    if (strcmp(option, "-cdrom") == 0 || strcmp(option, "--cdrom") == 0)
        return g_strdup(value);
    if (strcmp(option, "-drive") != 0 && strcmp(option, "--drive") != 0)
        return NULL;
    parts = g_strsplit(value, ",", -1);
    for (char **part = parts; *part; part++)
        if (g_str_has_prefix(*part, "file="))
            return g_strdup(*part + strlen("file="));
    return NULL;
}

/* An option of qemuargs with what belongs to it; false where it is none. */
static bool qemu_option(const json_t *list, const char **ret_option, char **ret_value)
{
    g_autoptr(GString) value = g_string_new(NULL);
    const json_t *part;
    size_t i;

    if (!json_is_string(json_array_get(list, 0)))
        return false;
    json_array_foreach ((json_t *)list, i, part)
        if (i > 0 && json_is_string(part))
            g_string_append(value, json_string_value(part));
    *ret_option = json_string_value(json_array_get(list, 0));
    *ret_value = g_string_free(g_steal_pointer(&value), FALSE);
    return true;
}

static bool look_on_drive(Finding *finding, const char *file, GError **error)
{
    g_autofree char *expanded = NULL, *path = NULL, *label = NULL;

    if (!packer_expand(finding->context, file, &expanded, NULL))
        return true; /* Packer's own disk, which it names by what only it knows */
    path = source_find_file(finding->context, expanded);
    if (!g_file_test(path, G_FILE_TEST_EXISTS))
        return !g_str_has_suffix(path, ".iso") || fail(error, "'qemuargs': '%s' is not there", expanded);
    label = source_iso_label(path);
    if (g_ascii_strcasecmp(label, "cidata") != 0)
        return true;
    json_array_add_new(finding->files, json_string_nocheck(expanded));
    return source_iso_read(path, names, SEED_TEXT_MAX, finding->texts, error);
}

static bool look_on_drives(Finding *finding, GError **error)
{
    const json_t *one;
    size_t i;

    json_array_foreach (json_object_get(finding->args, "qemuargs"), i, one) {
        g_autofree char *value = NULL, *file = NULL;
        const char *option;

        if (is_found(finding) || !qemu_option(one, &option, &value))
            continue;
        if (strstr(value, "com.coreos/config"))
            log_info("    %s: Ignition's configuration in qemuargs is not applied", finding->context->name);
        file = file_of_drive(option, value);
        if (file && !look_on_drive(finding, file, error))
            return false;
    }
    return true;
}

/* "s=http://{{ .HTTPIP }}:{{ .HTTPPort }}/PATH/" of -smbios: the PATH, "" where none is said. */
static char *served_path(const Finding *finding)
{
    const json_t *one;
    size_t i;

    json_array_foreach (json_object_get(finding->args, "qemuargs"), i, one) {
        g_autofree char *value = NULL, *expanded = NULL;
        const char *option, *url;

        if (!qemu_option(one, &option, &value) || !strstr(option, "smbios") || !strstr(value, "ds=nocloud") ||
            !packer_expand(finding->context, value, &expanded, NULL))
            continue;
        url = strstr(expanded, "://");
        url = url ? strchr(url + 3, '/') : NULL;
        return url ? g_strndup(url + strspn(url, "/"), strcspn(url + strspn(url, "/"), ";,'\" ")) : g_strdup("");
    }
    return g_strdup("");
}

static bool look_at_served(Finding *finding, GError **error)
{
    g_autofree char *below = served_path(finding), *folder = NULL, *base = NULL, *path = NULL;

    take_content(finding, "http_content", below);
    if (!packer_text(finding->context, finding->args, "http_directory", NULL, &folder, error))
        return false;
    if (!folder)
        return true;
    base = source_find_file(finding->context, folder);
    path = g_build_filename(base, below, NULL);
    if (strstr(below, "..") || !g_file_test(path, G_FILE_TEST_IS_DIR))
        return true;
    g_free(base);
    base = g_build_filename(folder, below, NULL);
    return take_folder(finding, base, path, error);
}

static bool look_on_floppy(Finding *finding, GError **error)
{
    g_autofree char *label = NULL;

    if (!packer_text(finding->context, finding->args, "floppy_label", "packer", &label, error))
        return false;
    if (g_ascii_strcasecmp(label, "cidata") != 0)
        return true;
    if (!take_entries(finding, "floppy_files", error) || !take_entries(finding, "floppy_dirs", error))
        return false;
    take_content(finding, "floppy_content", "");
    return true;
}

static json_t *step_arguments(const Finding *finding)
{
    static const char *const arguments[] = {"user_data", "meta_data", "vendor_data"};
    json_t *args = json_object();

    for (size_t i = 0; i < G_N_ELEMENTS(arguments); i++)
        if (finding->texts[i])
            json_object_set_new(args, arguments[i], json_string_nocheck(finding->texts[i]));
    if (finding->texts[NETWORK_CONFIG])
        json_object_set_new(args, "network_config", json_true());
    if (json_array_size(finding->files) > 0)
        json_object_set(args, "files", finding->files);
    return args;
}

bool source_seed(const SourceContext *context, const json_t *args, json_t **ret, GError **error)
{
    static bool (*const places[])(Finding *, GError **) = {look_on_cd, look_on_drives, look_at_served, look_on_floppy};
    Finding finding = {.context = context, .args = args, .files = json_array()};
    bool ok = true;

    *ret = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(places) && ok && !is_found(&finding); i++)
        ok = places[i](&finding, error);
    if (ok && is_found(&finding))
        *ret = step_arguments(&finding);
    for (int i = 0; i < NAMES; i++)
        g_free(finding.texts[i]);
    json_decref(finding.files);
    return ok;
}
