/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln push: an image into a registry.
 */
#include "baker/cli/cli.h"

#include "baker/transfer.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>

#define USAGE "push REF docker://HOST/REPOSITORY:TAG [--format=oci|docker|disk|raw.zst|qcow2] [--plain-http]"

static const struct {
    const char *name, *kind;
    PushForm form;
} formats[] = {{"oci", "oci", PUSH_KILN},
               {"docker", "oci", PUSH_DOCKER},
               {"disk", "disk", PUSH_KILN},
               {"raw.zst", "disk", PUSH_RAW_ZST},
               {"qcow2", "disk", PUSH_QCOW2}};

static bool find_format(const char *name, const char **ret_kind, PushForm *ret, GError **error)
{
    *ret_kind = NULL;
    *ret = PUSH_KILN;
    if (!name)
        return true;
    for (size_t i = 0; i < G_N_ELEMENTS(formats); i++)
        if (strcmp(formats[i].name, name) == 0) {
            *ret_kind = formats[i].kind;
            *ret = formats[i].form;
            return true;
        }
    return fail_code(error, KILN_ERROR_USAGE, "unknown format '%s'; there are oci and docker for containers, disk, raw.zst and qcow2 for disks", name);
}

static int report_push(CliContext *cli, const StoreImage *image, const char *to, const TransferReport *report)
{
    g_autofree char *bytes = units_format_size(report->bytes);
    char manifest[DIGEST_OCI_SIZE], id[DIGEST_OCI_SIZE];

    (void)digest_to_oci(&report->manifest, manifest);
    if (cli->json)
        return cli_print_json(json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:i}", "id", digest_to_oci(&image->id, id), "kind", image->kind, "to", to,
                                        "manifest", manifest, "bytes", (json_int_t)report->bytes, "blobs", (json_int_t)report->blobs, "present",
                                        (json_int_t)report->present, "requests", (json_int_t)report->requests, "referrers", (int)report->referrers));
    log_info("%s sent", bytes);
    printf("%s %s\n", to, manifest);
    return 0;
}

int verb_push(CliContext *cli, int argc, char **argv)
{
    const char *format = NULL, *kind = NULL;
    bool plain_http = false;
    const CliOption options[] = {{"format", CLI_STRING, &format}, {"plain-http", CLI_FLAG, &plain_http}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(StoreLease) lease = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;
    TransferReport report;
    PushForm form;

    if (!cli_parse(options, USAGE, argc, argv, 2, 2, &arguments, &error) || !find_format(format, &kind, &form, &error) || !cli_open_store(cli, 0, &store, &error) ||
        !store_lease_take(store, "push", &lease, &error) || !store_resolve(store, arguments[0], kind, &image, &error) ||
        !transfer_push(store, image, arguments[1], form, plain_http, &report, &error))
        return cli_fail(cli, error);
    return report_push(cli, image, arguments[1], &report);
}
