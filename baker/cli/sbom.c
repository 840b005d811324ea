/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln sbom: the bill of materials of an image.
 */
#include "baker/cli/cli.h"

#include "baker/origins.h"
#include "baker/sbom.h"
#include "base/error.h"

#include <string.h>

static bool find_format(const char *name, SbomFn **ret, GError **error)
{
    if (!name || strcmp(name, "spdx") == 0)
        *ret = sbom_spdx;
    else if (strcmp(name, "cyclonedx") == 0)
        *ret = sbom_cyclonedx;
    else
        return fail_code(error, KILN_ERROR_USAGE, "unknown format '%s'; there are spdx (SPDX 2.3) and cyclonedx (CycloneDX 1.5)", name);
    return true;
}

int verb_sbom(CliContext *cli, int argc, char **argv)
{
    const char *format = NULL;
    const CliOption options[] = {{"format", CLI_STRING, &format}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(PackageList) list = NULL;
    g_autofree char **refs = NULL;
    g_autoptr(GError) error = NULL;
    SbomFn *make = NULL;

    if (!cli_parse(options, "sbom REF [--format=spdx|cyclonedx]", argc, argv, 1, 1, &refs, &error) || !find_format(format, &make, &error) ||
        !cli_open_store(cli, STORE_OPEN_ANYWAY, &store, &error) ||
        (!store_resolve_record(store, refs[0], "disk", &image, NULL) && !store_resolve_record(store, refs[0], NULL, &image, &error)) ||
        !origins_packages(store, image, &list, &error))
        return cli_fail(cli, error);
    return cli_print_json(make(image, list));
}
