/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln appliance build: makes the bake appliance ahead of the first bake that needs it.
 */
#include "baker/cli/cli.h"

#include "baker/appliance.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>

static int report(CliContext *cli, const Appliance *appliance)
{
    g_autofree char *took = units_format_duration(appliance->seconds), *size = units_format_size(appliance->size);

    if (cli->json)
        return cli_print_json(json_pack("{s:o, s:b, s:f, s:I}", "path", cli_text(appliance->path), "built", appliance->built, "seconds",
                                        appliance->seconds, "bytes", (json_int_t)appliance->size));
    if (appliance->built)
        log_info("made in %s, %s", took, size);
    else
        log_info("it is there already and up to date, %s", size);
    printf("%s\n", appliance->path);
    return 0;
}

int verb_appliance(CliContext *cli, int argc, char **argv)
{
    bool force = false;
    const CliOption options[] = {{"force", CLI_FLAG, &force}, {NULL, CLI_FLAG, NULL}};
    g_auto(Appliance) appliance = {0};
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "appliance build [--force]", argc, argv, 1, 1, &arguments, &error))
        return cli_fail(cli, error);
    if (strcmp(arguments[0], "build") != 0) {
        fail_code(&error, KILN_ERROR_USAGE, "kiln appliance can 'build', not '%s'", arguments[0]);
        return cli_fail(cli, error);
    }
    if (!appliance_get(force, &appliance, &error))
        return cli_fail(cli, error);
    return report(cli, &appliance);
}
