/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln validate: everything that can be said about templates without baking.
 */
#include "baker/cli/cli.h"

#include "baker/bake.h"

#include <stdio.h>

static bool validate_one(const char *path, const TemplateOptions *options, bool syntax_only, GError **error)
{
    g_autoptr(Template) template = NULL;
    GPtrArray *builds;

    if (!template_load(path, options, &template, error))
        return false;
    builds = template_builds(template);
    for (guint i = 0; i < builds->len && !syntax_only; i++)
        if (!bake_check(builds->pdata[i], error))
            return false;
    return true;
}

int verb_validate(CliContext *cli, int argc, char **argv)
{
    g_autoptr(GPtrArray) vars = g_ptr_array_new(), files = g_ptr_array_new();
    bool syntax_only = false;
    const CliOption options[] = {{"var", CLI_LIST, vars},
                                 {"var-file", CLI_LIST, files},
                                 {"syntax-only", CLI_FLAG, &syntax_only},
                                 {NULL, CLI_FLAG, NULL}};
    TemplateOptions template_options = {0};
    g_autofree char **paths = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "validate [OPTIONS] TEMPLATE...", argc, argv, 1, -1, &paths, &error))
        return cli_fail(cli, error);
    template_options.vars = cli_strings(vars);
    template_options.var_files = cli_strings(files);
    template_options.allow_unset = syntax_only;
    for (char **path = paths; *path; path++)
        if (!validate_one(*path, &template_options, syntax_only, &error))
            return cli_fail(cli, error);
    if (cli->json)
        return cli_print_json(json_pack("{s:b}", "valid", true));
    puts("The configuration is valid.");
    return 0;
}
