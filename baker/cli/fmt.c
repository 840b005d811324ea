/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln fmt: templates in HCL's canonical layout. Lines are never added or removed, so a difference is shown line by line.
 */
#include "baker/cli/cli.h"

#include "base/file.h"
#include "templates/templates.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { CONTEXT_LINES = 3, TEXT_MAX = 11 * 1024 * 1024, DEPTH_MAX = 64 };

typedef struct FmtCall {
    bool check, diff, write, recursive, machine;
    json_t *changed, *diagnostics;
    unsigned mistakes;
} FmtCall;

static const char *const usage = "fmt [-check] [-diff] [-write=false] [-recursive] [TEMPLATE|FOLDER|-]...";

/* --- differences --- */

static void print_hunk(GString *out, char **before, char **after, size_t from, size_t to)
{
    g_string_append_printf(out, "@@ -%zu,%zu +%zu,%zu @@\n", from + 1, to - from, from + 1, to - from);
    for (size_t i = from; i < to;) {
        size_t end = i;

        while (end < to && strcmp(before[end], after[end]) != 0)
            end++;
        for (size_t j = i; j < end; j++)
            g_string_append_printf(out, "-%s\n", before[j]);
        for (size_t j = i; j < end; j++)
            g_string_append_printf(out, "+%s\n", after[j]);
        if (end == i)
            g_string_append_printf(out, " %s\n", before[end++]);
        i = end;
    }
}

static char *difference(const char *name, const char *old, const char *new)
{
    g_auto(GStrv) before = g_strsplit(old, "\n", -1);
    g_auto(GStrv) after = g_strsplit(new, "\n", -1);
    size_t n = MIN(g_strv_length(before), g_strv_length(after));
    GString *out = g_string_new(NULL);

    g_string_append_printf(out, "--- old/%s\n+++ new/%s\n", name, name);
    if (n > 0 && !*before[n - 1] && !*after[n - 1])
        n--; /* what follows the last line end is no line */
    for (size_t i = 0; i < n;) {
        size_t last = i;

        if (strcmp(before[i], after[i]) == 0) {
            i++;
            continue;
        }
        for (size_t j = i; j < n && j <= last + 2 * CONTEXT_LINES; j++)
            if (strcmp(before[j], after[j]) != 0)
                last = j;
        print_hunk(out, before, after, i > CONTEXT_LINES ? i - CONTEXT_LINES : 0, MIN(n, last + 1 + CONTEXT_LINES));
        i = last + 1 + CONTEXT_LINES;
    }
    return g_string_free(out, FALSE);
}

/* --- one text --- */

static void say(const FmtCall *call, const CliContext *cli, const char *text)
{
    if (call->machine)
        cli_machine_line("ui", "say", text);
    else if (!cli->json)
        fputs(text, stdout);
}

static bool write_file(const char *path, const char *text, GError **error)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return fail_errno(error, "look at '%s'", path);
    return file_replace(AT_FDCWD, path, text, strlen(text), st.st_mode & 07777, FILE_SYNC_YES, error);
}

static bool format_one(FmtCall *call, const CliContext *cli, const char *path, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autofree char *text = NULL, *line = NULL, *diff = NULL;
    gsize size;
    const char *old;

    if (!file_load(AT_FDCWD, path, TEXT_MAX, &bytes, error))
        return false;
    old = g_bytes_get_data(bytes, &size);
    if (!template_format(path, bytes, call->diagnostics, &text, error))
        return false;
    if (strlen(text) == size && (size == 0 || memcmp(old, text, size) == 0))
        return true;
    line = g_strconcat(path, "\n", NULL);
    say(call, cli, line);
    (void)json_array_append_new(call->changed, cli_text(path));
    if (call->diff) {
        g_autofree char *copy = g_strndup(old, size);

        diff = difference(path, copy, text);
        say(call, cli, diff);
    }
    return !call->write || write_file(path, text, error);
}

static bool format_stdin(FmtCall *call, const CliContext *cli, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autofree char *text = NULL, *old = NULL, *diff = NULL;
    gsize size;
    const char *data;

    if (!cli_read_stdin(&bytes, error) || !template_format("<stdin>", bytes, call->diagnostics, &text, error))
        return false;
    data = g_bytes_get_data(bytes, &size);
    old = size ? g_strndup(data, size) : g_strdup("");
    if (strcmp(old, text) != 0) {
        (void)json_array_append_new(call->changed, json_string("<stdin>"));
        if (call->diff)
            say(call, cli, diff = difference("<stdin>", old, text));
    }
    if (!call->check && !call->diff && !cli->json)
        fputs(text, stdout);
    return true;
}

/* --- folders --- */

static bool is_formatted(const char *name)
{
    return g_str_has_suffix(name, ".pkr.hcl") || g_str_has_suffix(name, ".pkrvars.hcl") || g_str_has_suffix(name, ".group.hcl");
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A mistake in one file is told and the others are formatted still. */
static void format_told(FmtCall *call, const CliContext *cli, const char *path)
{
    g_autoptr(GError) error = NULL;

    if (format_one(call, cli, path, &error))
        return;
    call->mistakes = MAX(call->mistakes, (unsigned)error_exit_status(error));
    if (call->machine)
        cli_machine_line("ui", "error", error->message);
    else
        cli_tell_error(error);
}

static bool format_folder(FmtCall *call, const CliContext *cli, const char *folder, unsigned depth, GError **error)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    const char *name;

    if (!dir)
        return fail_errno(error, "read folder '%s'", folder);
    while ((name = g_dir_read_name(dir)))
        if (name[0] != '.')
            g_ptr_array_add(names, g_build_filename(folder, name, NULL));
    g_ptr_array_sort(names, compare_names);
    for (guint i = 0; i < names->len; i++) {
        const char *path = names->pdata[i];
        bool is_folder = g_file_test(path, G_FILE_TEST_IS_DIR);

        if (!is_folder && is_formatted(path))
            format_told(call, cli, path);
        if (is_folder && call->recursive && depth < DEPTH_MAX && !g_file_test(path, G_FILE_TEST_IS_SYMLINK) &&
            !format_folder(call, cli, path, depth + 1, error))
            return false;
    }
    return true;
}

static bool format_argument(FmtCall *call, const CliContext *cli, const char *path, GError **error)
{
    if (strcmp(path, "-") == 0)
        return format_stdin(call, cli, error);
    if (g_file_test(path, G_FILE_TEST_IS_DIR))
        return format_folder(call, cli, path, 0, error);
    if (!g_file_test(path, G_FILE_TEST_EXISTS))
        return fail_code(error, KILN_ERROR_USAGE, "there is no file '%s'", path);
    if (!g_str_has_suffix(path, ".hcl"))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is not HCL: only names that end in .hcl are formatted", path);
    format_told(call, cli, path);
    return true;
}

int verb_fmt(CliContext *cli, int argc, char **argv)
{
    g_autoptr(json_t) diagnostics = json_array(), changed = json_array();
    FmtCall call = { .write = true, .changed = changed, .diagnostics = diagnostics };
    bool color = false;
    const CliOption options[] = {{"check", CLI_FLAG, &call.check},         {"diff", CLI_FLAG, &call.diff},
                                 {"write", CLI_FLAG, &call.write},         {"recursive", CLI_FLAG, &call.recursive},
                                 {"color", CLI_FLAG, &color},              {"machine-readable", CLI_FLAG, &call.machine},
                                 {NULL, CLI_FLAG, NULL}};
    g_autofree char **paths = NULL;
    g_autoptr(GError) error = NULL;
    int status;

    if (!cli_parse(options, usage, argc, argv, 0, -1, &paths, &error))
        return cli_fail(cli, error);
    call.write = call.write && !call.check;
    for (size_t i = 0; i == 0 || paths[i]; i++)
        if (!format_argument(&call, cli, paths[i] ? paths[i] : ".", &error))
            return cli_fail_template(cli, call.machine, diagnostics, error);
        else if (!paths[i])
            break;
    status = call.mistakes ? (int)call.mistakes : call.check && json_array_size(changed) > 0 ? 3 : 0;
    if (cli->json)
        (void)cli_print_json(json_pack("{s:O, s:O, s:i}", "changed", changed, "diagnostics", diagnostics, "exit", status));
    return status;
}
