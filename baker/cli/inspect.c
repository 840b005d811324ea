/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln inspect: what a template declares, without baking and without values it does not have.
 */
#include "baker/cli/cli.h"

#include "templates/templates.h"

#include <stdio.h>
#include <string.h>

/* --- text, in Packer's layout --- */

char *cli_value_text(const json_t *value)
{
    if (json_is_string(value))
        return g_strdup_printf("\"%s\"", json_string_value(value));
    return json_is_object(value) || json_is_array(value) ? json_pretty(value) : json_canonical(value);
}

void cli_values_text(GString *out, const json_t *list, const char *prefix)
{
    json_t *item;
    size_t i;

    json_array_foreach((json_t *)list, i, item) {
        g_autofree char *text = cli_value_text(json_object_get(item, "value"));

        g_string_append_printf(out, "%s.%s: %s\n", prefix, json_string_value(json_object_get(item, "name")), g_strchomp(text));
    }
    g_string_append(out, "\n");
}

static void blocks_text(GString *out, const GPtrArray *blocks)
{
    for (guint i = 0; i < blocks->len; i++)
        g_string_append_printf(out, "      %s\n", ((TemplateBlock *)blocks->pdata[i])->type);
    if (blocks->len == 0)
        g_string_append(out, "      <no provisioner>\n");
}

static void build_text(GString *out, const TemplateBuild *build)
{
    g_string_append_printf(out, "  > %s:\n\n    sources:\n\n      %s.%s\n\n    provisioners:\n\n", build->name, build->source->type,
                           build->source->name);
    blocks_text(out, build->provisioners);
    if (build->outputs->len > 0) {
        g_string_append(out, "\n    outputs:\n\n");
        blocks_text(out, build->outputs);
    }
    g_string_append(out, "\n    post-processors:\n\n");
    for (guint i = 0; i < build->post_processors->len; i++) {
        const GPtrArray *chain = build->post_processors->pdata[i];

        g_string_append_printf(out, "      %u:\n", i);
        for (guint j = 0; j < chain->len; j++)
            g_string_append_printf(out, "        %s\n", ((TemplateBlock *)chain->pdata[j])->type);
    }
    if (build->post_processors->len == 0)
        g_string_append(out, "      <no post-processor>\n");
    g_string_append(out, "\n");
}

static char *template_text(Template *template, const json_t *about)
{
    GPtrArray *builds = template_builds(template);
    GString *out = g_string_new("Packer Inspect: HCL2 mode\n\n> input-variables:\n\n");

    cli_values_text(out, json_object_get(about, "variables"), "var");
    g_string_append(out, "> local-variables:\n\n");
    cli_values_text(out, json_object_get(about, "locals"), "local");
    g_string_append(out, "> builds:\n\n");
    for (guint i = 0; i < builds->len; i++)
        build_text(out, builds->pdata[i]);
    return g_string_free(out, FALSE);
}

/* --- JSON --- */

static json_t *types_json(const GPtrArray *blocks)
{
    json_t *list = json_array();

    for (guint i = 0; i < blocks->len; i++) {
        const TemplateBlock *block = blocks->pdata[i];
        json_t *json = json_pack("{s:s}", "type", block->type);

        if (block->name)
            (void)json_object_set_new(json, "name", json_string(block->name));
        (void)json_array_append_new(list, json);
    }
    return list;
}

static json_t *build_json(const TemplateBuild *build)
{
    json_t *chains = json_array();

    for (guint i = 0; i < build->post_processors->len; i++)
        (void)json_array_append_new(chains, types_json(build->post_processors->pdata[i]));
    return json_pack("{s:s, s:{s:s, s:s}, s:o, s:o, s:o}", "name", build->name, "source", "type", build->source->type, "name",
                     build->source->name, "provisioners", types_json(build->provisioners), "outputs", types_json(build->outputs),
                     "post_processors", chains);
}

static json_t *builds_json(Template *template)
{
    GPtrArray *builds = template_builds(template);
    json_t *list = json_array();

    for (guint i = 0; i < builds->len; i++)
        (void)json_array_append_new(list, build_json(builds->pdata[i]));
    return list;
}

int verb_inspect(CliContext *cli, int argc, char **argv)
{
    g_autoptr(GPtrArray) vars = g_ptr_array_new(), files = g_ptr_array_new();
    bool machine = false, ignored;
    const char *config_type;
    const CliOption options[] = {{"var", CLI_LIST, vars},          {"var-file", CLI_LIST, files},
                                 {"machine-readable", CLI_FLAG, &machine}, {"use-sequential-evaluation", CLI_FLAG, &ignored},
                                 {"config-type", CLI_STRING, &config_type}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(json_t) diagnostics = json_array(), about = NULL;
    TemplateOptions how = { .allow_unset = true, .look_only = true, .diagnostics = diagnostics };
    g_autofree char **paths = NULL, *text = NULL;
    g_autoptr(Template) template = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "inspect [-var K=V] [-var-file F] TEMPLATE", argc, argv, 1, 1, &paths, &error))
        return cli_fail(cli, error);
    how.vars = cli_strings(vars);
    how.var_files = cli_strings(files);
    if (!template_load(paths[0], &how, &template, &error))
        return cli_fail_template(cli, machine, diagnostics, error);
    about = template_describe(template);
    (void)json_object_set_new(about, "builds", builds_json(template));
    if (cli->json)
        return cli_print_json(g_steal_pointer(&about));
    text = template_text(template, about);
    if (machine)
        cli_machine_line("ui", "say", text);
    else
        fputs(text, stdout);
    return 0;
}
