/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln sync: a store copied into another folder.
 */
#include "baker/cli/cli.h"

#include "base/units.h"

#include <stdio.h>

static int report_sync(CliContext *cli, const char *to, const StoreSyncReport *report)
{
    g_autofree char *bytes = units_format_size(report->bytes);

    if (cli->json)
        return cli_print_json(json_pack("{s:s, s:I, s:I, s:I, s:I}", "path", to, "segments", (json_int_t)report->segments, "blobs",
                                        (json_int_t)report->blobs, "bytes", (json_int_t)report->bytes, "present", (json_int_t)report->present));
    printf("%s: %" G_GUINT64_FORMAT " segments and %" G_GUINT64_FORMAT " blobs copied, %s; %" G_GUINT64_FORMAT " files were there already\n", to,
           report->segments, report->blobs, bytes, report->present);
    return 0;
}

/* A copy on read-only media can be copied back, too. */
static bool open_source(CliContext *cli, Store **ret, GError **error)
{
    return cli_open_store(cli, STORE_OPEN_ANYWAY, ret, error);
}

int verb_sync(CliContext *cli, int argc, char **argv)
{
    bool all = false;
    const CliOption options[] = {{"all", CLI_FLAG, &all}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;
    StoreSyncReport report;

    if (!cli_parse(options, "sync --all DIR", argc, argv, 1, 1, &arguments, &error))
        return cli_fail(cli, error);
    if (!all) {
        fail_code(&error, KILN_ERROR_USAGE, "sync copies a whole store: give --all");
        return cli_fail(cli, error);
    }
    if (!open_source(cli, &store, &error) || !store_sync_all(store, arguments[0], &report, &error))
        return cli_fail(cli, error);
    return report_sync(cli, arguments[0], &report);
}
