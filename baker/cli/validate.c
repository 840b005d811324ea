/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln validate: everything that can be said about templates without baking, and about group files without rolling out.
 *
 * With -syntax-only no more than the syntax is read: no schema, no variables, no environment.
 */
#include "baker/cli/builds.h"
#include "baker/cli/cli.h"

#include "base/file.h"
#include "baker/bake.h"
#include "baker/plugin-names.h"
#include "deploy/deploy.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_MAX = 11 * 1024 * 1024 };

typedef struct ValidateCall {
    TemplateOptions options;
    bool syntax_only, machine;
} ValidateCall;

static const char *const usage = "validate [-syntax-only] [-evaluate-datasources] [-var K=V] [-var-file F] [-only G] [-except G] [-rebase TYPE.NAME=BASE] TEMPLATE|GROUP-FILE|FOLDER|-...";

static bool check_syntax(const ValidateCall *call, const char *path, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    bool ok = true;

    if (!template_list(path, true, names, error))
        return false;
    for (guint i = 0; i < names->len; i++) {
        g_autoptr(GBytes) text = NULL;
        g_autoptr(GError) problem = NULL;

        if (file_load(AT_FDCWD, names->pdata[i], TEXT_MAX, &text, &problem) &&
            template_check_syntax(names->pdata[i], text, call->options.diagnostics, &problem))
            continue;
        if (ok)
            g_propagate_error(error, g_steal_pointer(&problem));
        else if (error)
            (void)fail_prefix(error, "%s\n%s", problem->message, "also"); /* several files: all are told */
        ok = false;
    }
    return ok;
}

static bool check_groups(const ValidateCall *call, const char *path, GError **error)
{
    g_autoptr(GPtrArray) groups = NULL;

    return group_load_with(path, &call->options, &groups, error);
}

/* A folder may hold both kinds of files; then both are looked at. */
static bool holds_templates(const char *path)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);

    return !g_str_has_suffix(path, GROUP_SUFFIX) && template_list(path, false, names, NULL);
}

/* kiln runs no plugins: those that a template asks for and that nothing stands in for are named, once. What they are needed for is refused where it stands. */
static void name_plugins(Template *template)
{
    g_autoptr(json_t) about = template_describe(template);
    const json_t *plugin;
    size_t i;

    json_array_foreach (json_object_get(about, "required_plugins"), i, plugin) {
        bool usable;
        const char *instead = plugin_stand_in(json_string_value(json_object_get(plugin, "source")), &usable);

        if (!usable)
            log_info("the plugin '%s' (%s) is not here: %s", json_string_value(json_object_get(plugin, "name")), json_string_value(json_object_get(plugin, "source")), instead);
    }
}

static bool check_whole(const ValidateCall *call, const char *path, GError **error)
{
    g_autoptr(Template) template = NULL;

    if (!call->options.input && group_file_is(path)) {
        if (!check_groups(call, path, error))
            return false;
        if (!holds_templates(path))
            return true;
    }
    if (!template_load(path, &call->options, &template, error))
        return false;
    if (!bake_check_all(template_builds(template), error))
        return false;
    name_plugins(template);
    return true;
}

static bool validate_one(ValidateCall *call, const char *path, GError **error)
{
    g_autoptr(GBytes) text = NULL;
    bool ok;

    if (strcmp(path, "-") != 0)
        return call->syntax_only ? check_syntax(call, path, error) : check_whole(call, path, error);
    if (!cli_read_stdin(&text, error))
        return false;
    if (call->syntax_only)
        return template_check_syntax(cli_stdin_name(text), text, call->options.diagnostics, error);
    call->options.input = text;
    ok = check_whole(call, cli_stdin_name(text), error);
    call->options.input = NULL;
    return ok;
}

/* A mistake in one does not keep those in the next from being told. */
static bool validate_each(ValidateCall *call, char **paths, GError **error)
{
    g_autoptr(GPtrArray) said = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *text = NULL;
    int code = 0;

    for (char **path = paths; *path; path++) {
        size_t before = json_array_size(call->options.diagnostics);
        g_autoptr(GError) problem = NULL;

        if (validate_one(call, *path, &problem))
            continue;
        code = said->len == 0 ? problem->code : code;
        g_ptr_array_add(said, g_strdup(problem->message));
        if (json_array_size(call->options.diagnostics) == before) /* not about a place in the text */
            (void)json_array_append_new(call->options.diagnostics,
                                        json_pack("{s:s, s:s, s:s}", "severity", "error", "summary", problem->message, "detail", ""));
    }
    if (said->len == 0)
        return true;
    g_ptr_array_add(said, NULL);
    text = g_strjoinv("\n", (char **)said->pdata);
    g_set_error_literal(error, KILN_ERROR, code, text);
    return false;
}

static int tell_valid(const CliContext *cli, const ValidateCall *call)
{
    if (cli->json)
        return cli_print_json(json_pack("{s:b, s:i, s:i, s:[]}", "valid", true, "error_count", 0, "warning_count", 0, "diagnostics"));
    if (call->machine)
        cli_machine_line("ui", "say", "The configuration is valid.");
    else
        puts("The configuration is valid.");
    return 0;
}

int verb_validate(CliContext *cli, int argc, char **argv)
{
    g_autoptr(GPtrArray) vars = g_ptr_array_new(), files = g_ptr_array_new();
    g_autoptr(GPtrArray) only = g_ptr_array_new(), except = g_ptr_array_new(), rebase = g_ptr_array_new();
    g_autoptr(json_t) diagnostics = json_array();
    ValidateCall call = { .options.diagnostics = diagnostics, .options.look_only = true };
    bool ask_data = false;
    bool ignored = false; /* flags of Packer that change nothing here */
    const char *config_type;
    const CliOption options[] = {{"var", CLI_LIST, vars},
                                 {"var-file", CLI_LIST, files},
                                 {"only", CLI_LIST, only},
                                 {"except", CLI_LIST, except},
                                 {"rebase", CLI_LIST, rebase},
                                 {"syntax-only", CLI_FLAG, &call.syntax_only},
                                 {"machine-readable", CLI_FLAG, &call.machine},
                                 {"config-type", CLI_STRING, &config_type},
                                 {"color", CLI_FLAG, &ignored},
                                 {"no-warn-undeclared-var", CLI_FLAG, &ignored},
                                 {"evaluate-datasources", CLI_FLAG, &ask_data},
                                 {"ignore-prerelease-plugins", CLI_FLAG, &ignored},
                                 {"use-sequential-evaluation", CLI_FLAG, &ignored},
                                 {NULL, CLI_FLAG, NULL}};
    g_autofree char **paths = NULL;
    g_autoptr(GPtrArray) only_names = NULL, except_names = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, usage, argc, argv, 1, -1, &paths, &error))
        return cli_fail(cli, error);
    call.options.ask_data = ask_data;
    call.options.vars = cli_strings(vars);
    call.options.var_files = cli_strings(files);
    only_names = builds_split_commas(only);
    except_names = builds_split_commas(except);
    call.options.only = cli_strings(only_names);
    call.options.except = cli_strings(except_names);
    call.options.rebase = cli_strings(rebase);
    if (!validate_each(&call, paths, &error))
        return cli_fail_template(cli, call.machine, diagnostics, error);
    return tell_valid(cli, &call);
}
