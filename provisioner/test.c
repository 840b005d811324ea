/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioner "test": what must be true of the guest, checked before anything is published.
 *
 *     provisioner "test" {
 *       packages = ["nginx-light"]             installed, by the guest's package database
 *       enabled  = ["nginx"]                   a unit that starts at boot, or an init script's link
 *       files    = ["/etc/nginx/nginx.conf"]   there
 *       command  = "nginx -t"                  exits 0; also a list
 *       output {                               what a command prints
 *         command  = "nginx -v"
 *         contains = "nginx/1.22"              or equals, or matches (a regular expression)
 *       }
 *       boot {                                 see baker/boot-test.h: kiln boots the sealed disk before it is published
 *         http = "/"
 *       }
 *     }
 *
 * Packages and units are read from their files, not by running the guest's tools: that works in guests
 * without them, and costs a command less. All that fails is told before the step fails, one line each: a test
 * that stops at its first finding is run many times.
 */
#include "base/error.h"
#include "base/units.h"
#include "provisioner/arguments.h"
#include "provisioner/guest-file.h"
#include "provisioner/guest-units.h"
#include "provisioner/members.h"

#include <string.h>

#define DATABASE_MAX (256u << 20)

#define TEST_TYPED(X) X(packages, TEXTS) X(enabled, TEXTS) X(files, TEXTS) X(command, TEXTS)
static const ArgumentSpec argument_specs[] = {TEST_TYPED(ARGUMENT_SPEC_){0}};
static const char *const argument_names[] = {TEST_TYPED(ARGUMENT_NAME_) "output", "boot", NULL};

#define OUTPUT_MAX (4u << 20)
#define OUTPUT_PATH "/run/kiln-test-output"

/* ---- nested blocks ---- */

static bool check_nested(const json_t *args, const char *type, const char *const *known, bool (*check)(const json_t *, GError **),
                         const char **ret_argument, GError **error)
{
    const json_t *list = json_object_get(args, type), *one;
    const char *bad;
    size_t i;

    *ret_argument = type;
    if (list && !json_is_array(list))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is a block, written %s { ... }", type, type);
    json_array_foreach (list, i, one) {
        if (!json_is_object(one))
            return fail_code(error, KILN_ERROR_USAGE, "'%s' is a block, written %s { ... }", type, type);
        if (!json_only_keys(one, known, &bad))
            return fail_code(error, KILN_ERROR_USAGE, "the block '%s' has no argument '%s'", type, bad);
        if (!check(one, error))
            return false;
    }
    *ret_argument = NULL;
    return true;
}

static bool check_output(const json_t *block, GError **error)
{
    static const char *const texts[] = {"command", "contains", "equals", "matches"};
    const char *text;
    unsigned wanted = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        if (!json_get_string(block, texts[i], NULL, &text, error))
            return false;
        wanted += i > 0 && text;
    }
    if (!json_get_string(block, "command", NULL, &text, error) || !text || !*text || wanted == 0)
        return fail_code(error, KILN_ERROR_USAGE, "the block 'output' needs a command, and one of contains, equals and matches");
    if (!json_get_string(block, "matches", NULL, &text, error))
        return false;
    if (text) {
        g_autoptr(GRegex) regex = g_regex_new(text, 0, 0, error);

        return regex || (g_prefix_error(error, "'matches': "), (*error)->domain = KILN_ERROR, (*error)->code = KILN_ERROR_USAGE, false);
    }
    return true;
}

static bool check_boot(const json_t *block, GError **error)
{
    const char *http, *console, *timeout, *memory, *firmware;
    double seconds;
    uint64_t size;
    int64_t port;

    if (!json_get_string(block, "http", NULL, &http, error) || !json_get_string(block, "console", NULL, &console, error) ||
        !json_get_string(block, "timeout", NULL, &timeout, error) || !json_get_string(block, "memory", NULL, &memory, error) ||
        !json_get_string(block, "firmware", "bios", &firmware, error) || !json_get_int(block, "port", 80, &port, error))
        return false;
    if (strcmp(firmware, "bios") != 0 && strcmp(firmware, "uefi") != 0)
        return fail_code(error, KILN_ERROR_USAGE, "'firmware' is \"bios\" or \"uefi\"");
    if (port < 1 || port > 65535)
        return fail_code(error, KILN_ERROR_USAGE, "'port' is a number from 1 to 65535");
    if (console && (http || !*console))
        return fail_code(error, KILN_ERROR_USAGE, "the block 'boot' takes http, or a console text that is not empty");
    return (!timeout || units_parse_duration(timeout, &seconds, error)) && (!memory || units_parse_size(memory, &size, error));
}

static bool test_check(const json_t *args, const char **ret_argument, GError **error)
{
    g_auto(GStrv) files = argument_texts(args, "files");
    bool any = false;

    static const char *const output_known[] = {"command", "contains", "equals", "matches", NULL};
    static const char *const boot_known[] = {"http", "port", "console", "timeout", "memory", "firmware", NULL};

    if (!arguments_check(args, argument_specs, ret_argument, error) ||
        !check_nested(args, "output", output_known, check_output, ret_argument, error) ||
        !check_nested(args, "boot", boot_known, check_boot, ret_argument, error))
        return false;
    for (const char *const *name = argument_names; *name; name++)
        any = any || argument_given(args, *name);
    if (!any)
        return fail_code(error, KILN_ERROR_USAGE, "one of packages, enabled, files, command, output and boot is needed");
    for (char **file = files; *file; file++)
        if (**file != '/') {
            *ret_argument = "files";
            return fail_code(error, KILN_ERROR_USAGE, "'files': \"%s\" is no absolute path", *file);
        }
    return true;
}

typedef struct Findings {
    const ProvisionerHost *host;
    Guest *guest;
    unsigned count;
    char *first;
} Findings;

static void G_GNUC_PRINTF(2, 3) finding(Findings *f, const char *format, ...)
{
    g_autofree char *text = NULL, *line = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    line = g_strconcat("test: ", text, NULL);
    f->host->say(line, true, f->host->arg);
    if (f->count++ == 0)
        f->first = g_steal_pointer(&text);
}

/* ---- packages ---- */

/* Names (and name:arch) of dpkg's packages whose state is "install ok installed" or hold. */
static void read_dpkg(const char *text, GHashTable *names)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    const char *name = NULL, *arch = NULL;
    bool installed = false;

    for (char **line = lines;; line++) {
        if (!*line || !**line) {
            if (name && installed) {
                g_hash_table_add(names, g_strdup(name));
                g_hash_table_add(names, g_strconcat(name, ":", arch ? arch : "", NULL));
            }
            name = arch = NULL;
            installed = false;
            if (!*line)
                return;
        } else if (g_str_has_prefix(*line, "Package: ")) {
            name = *line + strlen("Package: ");
        } else if (g_str_has_prefix(*line, "Architecture: ")) {
            arch = *line + strlen("Architecture: ");
        } else if (g_str_has_prefix(*line, "Status: ")) {
            installed = g_str_has_suffix(*line, " ok installed");
        }
    }
}

static void read_apk(const char *text, GHashTable *names)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++)
        if (g_str_has_prefix(*line, "P:"))
            g_hash_table_add(names, g_strdup(*line + 2));
}

/* *ret is NULL for guests whose database only rpm can read. */
static bool installed_packages(Guest *guest, GHashTable **ret, GError **error)
{
    g_autoptr(GHashTable) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GBytes) dpkg = NULL, apk = NULL;

    if (!guest_get_bytes(guest, "/var/lib/dpkg/status", DATABASE_MAX, &dpkg, error) ||
        (!dpkg && !guest_get_bytes(guest, "/lib/apk/db/installed", DATABASE_MAX, &apk, error)))
        return false;
    if (dpkg)
        read_dpkg(g_bytes_get_data(dpkg, NULL), names);
    if (apk)
        read_apk(g_bytes_get_data(apk, NULL), names);
    *ret = dpkg || apk ? g_steal_pointer(&names) : NULL;
    return true;
}

static bool rpm_has(Findings *f, const char *name, bool *ret, GError **error)
{
    const char *const args[] = {name, NULL};
    int code = 0;

    if (!guest_sh(f->guest, f->host, "rpm -q -- \"$1\" >/dev/null 2>&1", args, NULL, &code, error))
        return false;
    *ret = code == 0;
    return true;
}

static bool test_packages(const json_t *args, Findings *f, GError **error)
{
    g_auto(GStrv) wanted = argument_texts(args, "packages");
    g_autoptr(GHashTable) names = NULL;

    if (!*wanted)
        return true;
    if (!installed_packages(f->guest, &names, error))
        return false;
    for (char **name = wanted; *name; name++) {
        bool there = names && g_hash_table_contains(names, *name);
        if (!names && !rpm_has(f, *name, &there, error))
            return false;
        if (!there)
            finding(f, "package '%s' is not installed", *name);
    }
    return true;
}

/* ---- units ---- */

static bool test_enabled(const json_t *args, Findings *f, GError **error)
{
    g_auto(GStrv) wanted = argument_texts(args, "enabled");
    g_autoptr(GHashTable) units = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    if (!*wanted)
        return true;
    if (!guest_enabled_units(f->guest, units, error))
        return false;
    for (char **name = wanted; *name; name++)
        if (!guest_unit_is_enabled(units, *name))
            finding(f, "service '%s' is not enabled", *name);
    return true;
}

/* ---- files and commands ---- */

static bool test_files(const json_t *args, Findings *f, GError **error)
{
    g_auto(GStrv) wanted = argument_texts(args, "files");
    char type;

    for (char **file = wanted; *file; file++) {
        if (!guest_type(f->guest, *file, &type, error))
            return false;
        if (!type)
            finding(f, "'%s' does not exist", *file);
    }
    return true;
}

static bool test_commands(const json_t *args, Findings *f, GError **error)
{
    g_auto(GStrv) commands = argument_texts(args, "command");
    int code = 0;

    for (char **command = commands; *command; command++) {
        g_autofree char *expanded = NULL;
        if (!argument_expand(*command, f->host, NULL, &expanded, error) ||
            !guest_sh(f->guest, f->host, expanded, NULL, NULL, &code, error))
            return false;
        if (code)
            finding(f, "command \"%s\" exited with %d", *command, code);
    }
    return true;
}

static void judge_output(const json_t *block, const char *command, const char *text, Findings *f)
{
    const char *contains = json_string_value(json_object_get(block, "contains")),
               *equals = json_string_value(json_object_get(block, "equals")),
               *matches = json_string_value(json_object_get(block, "matches"));
    g_autofree char *stripped = g_strchomp(g_strdup(text)), *shown = g_utf8_substring(stripped, 0, MIN(g_utf8_strlen(stripped, -1), 200));

    if (contains && !strstr(text, contains))
        finding(f, "the output of \"%s\" does not contain \"%s\": %s", command, contains, shown);
    if (equals && strcmp(stripped, equals) != 0 && strcmp(text, equals) != 0)
        finding(f, "the output of \"%s\" is not \"%s\": %s", command, equals, shown);
    if (matches && !g_regex_match_simple(matches, text, G_REGEX_MULTILINE, 0))
        finding(f, "the output of \"%s\" does not match \"%s\": %s", command, matches, shown);
}

/* stdout and stderr, by way of a file on the step's tmpfs: what a program prints may be no text, and of any length. */
static bool test_outputs(const json_t *args, Findings *f, GError **error)
{
    const json_t *block;
    size_t i;

    json_array_foreach (json_object_get(args, "output"), i, block) {
        const char *command = json_string_value(json_object_get(block, "command"));
        const char *const arguments[] = {command, NULL};
        g_autoptr(GBytes) bytes = NULL;
        g_autofree char *plain = NULL, *text = NULL;
        int code = 0;

        if (!guest_sh(f->guest, f->host, "sh -c \"$1\" 2>&1 | head -c 1048576 > " OUTPUT_PATH, arguments, NULL, &code, error) ||
            !guest_get_bytes(f->guest, OUTPUT_PATH, OUTPUT_MAX, &bytes, error))
            return false;
        plain = bytes ? g_strndup(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes)) : g_strdup("");
        text = g_utf8_make_valid(plain, -1);
        judge_output(block, command, text, f);
    }
    return true;
}

static bool test_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    Findings f = {.host = host, .guest = guest};
    bool ok = test_packages(args, &f, error) && test_enabled(args, &f, error) &&
              test_files(args, &f, error) && test_commands(args, &f, error) && test_outputs(args, &f, error);
    g_autofree char *first = f.first;

    if (!ok)
        return false;
    if (f.count == 1)
        return fail(error, "test failed: %s", first);
    return f.count ? fail(error, "test failed: %s, and %u more", first, f.count - 1) : true;
}

const ProvisionerOps provisioner_test = {
    .type = "test",
    .arguments = argument_names,
    .needs_guest = true,
    .check = test_check,
    .run = test_run,
};
