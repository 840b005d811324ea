/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln template inputs: everything a template depends on, so that CI can decide whether to run. And what the verbs that
 * look at templates share: standard input as a template, machine-readable lines, diagnostics as JSON.
 */
#include "baker/cli/cli.h"

#include "templates/templates.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_MAX = 11 * 1024 * 1024 }; /* a little over what the language takes, so that it can tell */

bool cli_read_stdin(GBytes **ret, GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    guint8 buffer[65536];
    ssize_t n;

    while ((n = TEMP_FAILURE_RETRY(read(STDIN_FILENO, buffer, sizeof(buffer)))) > 0) {
        g_byte_array_append(bytes, buffer, (guint)n);
        if (bytes->len > INPUT_MAX)
            return fail_code(error, KILN_ERROR_USAGE, "standard input has more than %d bytes", INPUT_MAX);
    }
    if (n < 0)
        return fail_errno(error, "read standard input");
    *ret = g_byte_array_free_to_bytes(g_steal_pointer(&bytes));
    return true;
}

const char *cli_stdin_name(GBytes *text)
{
    gsize size;
    const char *data = g_bytes_get_data(text, &size);

    for (gsize i = size >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0; i < size; i++)
        if (!g_ascii_isspace(data[i]))
            return data[i] == '{' || data[i] == '[' ? "<stdin>.json" : "<stdin>";
    return "<stdin>";
}

/* UNIXTIME,TARGET,TYPE,DATA...: commas and line ends in data are written out, as Packer does. */
void cli_machine_line(const char *type, const char *kind, const char *text)
{
    printf("%" G_GINT64_FORMAT ",,%s,%s,", g_get_real_time() / G_USEC_PER_SEC, type, kind);
    for (; *text; text++)
        if (*text == ',')
            fputs("%!(PACKER_COMMA)", stdout);
        else if (*text == '\n')
            fputs("\\n", stdout);
        else if (*text == '\r')
            fputs("\\r", stdout);
        else
            putchar(*text);
    putchar('\n');
}

int cli_fail_template(CliContext *cli, bool machine, json_t *diagnostics, const GError *error)
{
    int status = error_exit_status(error);

    if (machine)
        cli_machine_line("ui", "error", error->message);
    if (!cli->json)
        return machine ? status : cli_fail(cli, error);
    cli_tell_error(error);
    if (json_array_size(diagnostics) == 0) /* not about a place in the text */
        (void)json_array_append_new(diagnostics, json_pack("{s:s, s:s, s:s}", "severity", "error", "summary", error->message, "detail", ""));
    (void)cli_print_json(json_pack("{s:b, s:i, s:i, s:O}", "valid", false, "error_count", (int)json_array_size(diagnostics),
                                   "warning_count", 0, "diagnostics", diagnostics));
    return status;
}

/* --- inputs --- */

typedef struct Inputs {
    json_t *files, *urls;
    GHashTable *seen;
} Inputs;

static const char *const url_schemes[] = { "http://", "https://", "ftp://", "docker://", "oci:", "oci-archive:", "image:", NULL };

/* Arguments of sources and components that name files of this machine. */
static const char *const path_arguments[] = {
    "script", "scripts", "source", "sources", "from", "iso_url", "iso_urls", "cd_files", "floppy_files", "http_directory",
    "playbook_file", "playbook_files", "playbook_dir", "playbook_paths", "role_paths", "roles_path", "collections_path", "galaxy_file",
    "inventory_file", "group_vars", "host_vars", "manifest_file", "manifest_dir", "module_paths", "hiera_config_path", "cookbook_paths",
    "path", "keyring", "user_data", NULL };

static bool is_url(const char *text)
{
    for (size_t i = 0; url_schemes[i]; i++)
        if (g_str_has_prefix(text, url_schemes[i]))
            return true;
    return false;
}

static void add_file(Inputs *inputs, const char *path, const char *by)
{
    g_autofree char *full = g_path_is_absolute(path) ? g_strdup(path) : g_canonicalize_filename(path, NULL);
    const char *type = g_file_test(full, G_FILE_TEST_IS_DIR) ? "folder" : g_file_test(full, G_FILE_TEST_EXISTS) ? "file" : "missing";

    if (g_hash_table_contains(inputs->seen, full))
        return;
    (void)json_array_append_new(inputs->files, json_pack("{s:o, s:s, s:s}", "path", cli_text(full), "type", type, "by", by));
    g_hash_table_add(inputs->seen, g_steal_pointer(&full));
}

static void add_url(Inputs *inputs, const char *url, const char *by)
{
    if (g_hash_table_contains(inputs->seen, url))
        return;
    (void)json_array_append_new(inputs->urls, json_pack("{s:s, s:s}", "url", url, "by", by));
    g_hash_table_add(inputs->seen, g_strdup(url));
}

static void walk(Inputs *inputs, const char *argument, const json_t *value, const char *by)
{
    const char *key;
    json_t *item;
    size_t i;

    json_object_foreach((json_t *)value, key, item)
        walk(inputs, key, item, by);
    json_array_foreach((json_t *)value, i, item)
        walk(inputs, argument, item, by);
    if (!json_is_string(value) || strcmp(json_string_value(value), "<unknown>") == 0)
        return;
    if (is_url(json_string_value(value)))
        add_url(inputs, json_string_value(value), by);
    else if (argument && g_strv_contains(path_arguments, argument) && !strchr(json_string_value(value), '\n') &&
             strcmp(json_string_value(value), "scratch") != 0)
        add_file(inputs, json_string_value(value), by);
}

static void walk_block(Inputs *inputs, const TemplateBlock *block, const char *kind)
{
    g_autofree char *by = g_strdup_printf("%s %s", kind, block->type);
    const char *direction = json_string_value(json_object_get(block->args, "direction"));

    if (g_strcmp0(direction, "download") != 0)
        walk(inputs, NULL, block->args, by);
    for (size_t i = 0; block->inputs && block->inputs[i]; i++)
        add_file(inputs, block->inputs[i], by);
}

/* Most of the paths that a post-processor has are of files that it makes: what it reads is named here. */
static void walk_post_processor(Inputs *inputs, const TemplateBlock *block)
{
    static const char *const read[] = { "script", "scripts", "inputs" };
    g_autofree char *by = g_strdup_printf("post-processor %s", block->type);

    for (size_t i = 0; i < G_N_ELEMENTS(read); i++) {
        g_auto(GStrv) paths = NULL;

        if (!json_get_strings(block->args, read[i], &paths, NULL))
            continue;
        for (char **path = paths; *path; path++)
            if (strcmp(*path, "<unknown>") != 0)
                add_file(inputs, *path, by);
    }
}

static void walk_build(Inputs *inputs, const TemplateBuild *build)
{
    walk_block(inputs, build->source, "source");
    for (guint i = 0; i < build->provisioners->len; i++)
        walk_block(inputs, build->provisioners->pdata[i], "provisioner");
    if (build->error_cleanup)
        walk_block(inputs, build->error_cleanup, "error-cleanup-provisioner");
    for (guint i = 0; i < build->post_processors->len; i++) {
        const GPtrArray *chain = build->post_processors->pdata[i];

        for (guint j = 0; j < chain->len; j++)
            walk_post_processor(inputs, chain->pdata[j]);
    }
    for (guint i = 0; i < build->secrets->len; i++)
        if (((TemplateSecret *)build->secrets->pdata[i])->file)
            add_file(inputs, ((TemplateSecret *)build->secrets->pdata[i])->file, "secret");
}

static json_t *inputs_json(Template *template)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(json_t) about = template_describe(template);
    GPtrArray *builds = template_builds(template);
    Inputs inputs = { json_array(), json_array(), seen };
    json_t *file;
    size_t i;

    json_array_foreach(json_object_get(about, "files"), i, file)
        add_file(&inputs, json_string_value(json_object_get(file, "path")), "template");
    json_array_foreach(json_object_get(about, "data"), i, file)
        if (json_object_get(file, "url"))
            add_url(&inputs, json_string_value(json_object_get(file, "url")), "data http");
    for (guint j = 0; j < builds->len; j++)
        walk_build(&inputs, builds->pdata[j]);
    return json_pack("{s:o, s:o, s:O}", "files", inputs.files, "urls", inputs.urls, "variables", json_object_get(about, "variables"));
}

int verb_template(CliContext *cli, int argc, char **argv)
{
    g_autoptr(GPtrArray) vars = g_ptr_array_new(), files = g_ptr_array_new();
    const CliOption options[] = {{"var", CLI_LIST, vars}, {"var-file", CLI_LIST, files}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(json_t) diagnostics = json_array();
    g_autoptr(Template) template = NULL;
    g_autoptr(GError) error = NULL;
    TemplateOptions how = { .allow_unset = true, .look_only = true, .diagnostics = diagnostics };

    if (!cli_parse(options, "template inputs [-var K=V] [-var-file F] TEMPLATE", argc, argv, 2, 2, &arguments, &error))
        return cli_fail(cli, error);
    if (strcmp(arguments[0], "inputs") != 0) {
        fail_code(&error, KILN_ERROR_USAGE, "there is no 'template %s'; it is written kiln template inputs TEMPLATE", arguments[0]);
        return cli_fail(cli, error);
    }
    how.vars = cli_strings(vars);
    how.var_files = cli_strings(files);
    if (!template_load(arguments[1], &how, &template, &error))
        return cli_fail_template(cli, false, diagnostics, error);
    return cli_print_json(inputs_json(template));
}
