/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln init: the plugins a template asks for, and what stands in for each. Nothing is fetched and nothing is written.
 */
#include "baker/cli/cli.h"

#include "baker/plugin-names.h"
#include "templates/templates.h"

#include <stdio.h>

static json_t *plugins_json(const json_t *plugins)
{
    json_t *list = json_array(), *plugin;
    size_t i;

    json_array_foreach((json_t *)plugins, i, plugin) {
        json_t *one = json_deep_copy(plugin);
        bool usable;
        const char *instead = plugin_stand_in(json_string_value(json_object_get(plugin, "source")), &usable);

        (void)json_object_set_new(one, "available", json_boolean(usable));
        (void)json_object_set_new(one, "stand_in", json_string(instead));
        (void)json_array_append_new(list, one);
    }
    return list;
}

static void print_plugins(const json_t *plugins, bool machine)
{
    json_t *plugin;
    size_t i;

    json_array_foreach((json_t *)plugins, i, plugin) {
        g_autofree char *line = g_strdup_printf("%s %s (%s): %s\n", json_string_value(json_object_get(plugin, "name")),
                                                json_string_value(json_object_get(plugin, "version")),
                                                json_string_value(json_object_get(plugin, "source")),
                                                json_string_value(json_object_get(plugin, "stand_in")));

        if (machine)
            cli_machine_line("ui", "say", g_strchomp(line));
        else
            fputs(line, stdout);
    }
    if (json_array_size(plugins) == 0 && !machine)
        puts("This template asks for no plugins.");
}

int verb_init(CliContext *cli, int argc, char **argv)
{
    bool machine = false, ignored;
    g_autoptr(GPtrArray) vars = g_ptr_array_new(), files = g_ptr_array_new();
    const CliOption options[] = {{"machine-readable", CLI_FLAG, &machine}, {"upgrade", CLI_FLAG, &ignored}, {"force", CLI_FLAG, &ignored},
                                 {"var", CLI_LIST, vars}, {"var-file", CLI_LIST, files}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(json_t) diagnostics = json_array(), plugins = NULL;
    TemplateOptions how = { .diagnostics = diagnostics };
    g_autofree char **paths = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "init TEMPLATE", argc, argv, 1, 1, &paths, &error))
        return cli_fail(cli, error);
    if (!template_plugins(paths[0], &how, &plugins, &error))
        return cli_fail_template(cli, machine, diagnostics, error);
    if (cli->json)
        return cli_print_json(json_pack("{s:o}", "required_plugins", plugins_json(plugins)));
    {
        g_autoptr(json_t) list = plugins_json(plugins);

        print_plugins(list, machine);
    }
    return 0;
}
