/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln init: the plugins a template asks for, and what stands in for each. Nothing is fetched and nothing is written.
 */
#include "baker/cli/cli.h"

#include "templates/templates.h"

#include <stdio.h>
#include <string.h>

/* By the plugin's repository, "OWNER/NAME" at the end of its source. */
static const struct {
    const char *name;
    bool usable;
    const char *instead;
} stand_ins[] = {
    { "hashicorp/qemu", true, "kiln's own qemu source, for disk_image = true; an installer's ISO would have to boot" },
    { "hashicorp/docker", true, "kiln's own docker source; no daemon is needed" },
    { "hashicorp/ansible", true, "kiln's own ansible and ansible-local; ansible takes the ansible-playbook of this machine" },
    { "hashicorp/puppet", true, "kiln's own puppet-masterless, with the guest's puppet; puppet-server is refused" },
    { "hashicorp/chef", true, "kiln's own chef-solo, with the guest's Chef; chef-client is refused" },
    { "hashicorp/salt", false, "install salt by a packages step and run salt-call --local in a shell step" },
    { "hashicorp/amazon", false, "bake a disk and export it as raw for an import to EC2" },
    { "hashicorp/googlecompute", false, "bake a disk and export it with --format=gce" },
    { "hashicorp/azure", false, "bake a disk and export it as raw" },
    { "hashicorp/vsphere", false, "bake a disk and export it for the host" },
    { "hashicorp/vmware", false, "bake a disk and export it for the host" },
    { "hashicorp/virtualbox", false, "bake a disk and export it for the host" },
    { "hashicorp/vagrant", false, "bake a disk and wrap it outside of kiln" },
    { "ethanmdavidson/git", false, "pass the commit as a variable" },
};

const char *cli_plugin_stand_in(const char *source, bool *ret_usable)
{
    for (size_t i = 0; i < G_N_ELEMENTS(stand_ins); i++)
        if (g_str_has_suffix(source, stand_ins[i].name)) {
            *ret_usable = stand_ins[i].usable;
            return stand_ins[i].instead;
        }
    *ret_usable = false;
    return "nothing stands in for it; its blocks are refused by validate";
}

static json_t *plugins_json(const json_t *plugins)
{
    json_t *list = json_array(), *plugin;
    size_t i;

    json_array_foreach((json_t *)plugins, i, plugin) {
        json_t *one = json_deep_copy(plugin);
        bool usable;
        const char *instead = cli_plugin_stand_in(json_string_value(json_object_get(plugin, "source")), &usable);

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
