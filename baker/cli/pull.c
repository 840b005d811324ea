/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln pull: an image out of a registry. kiln tags: what there is in a repository.
 */
#include "baker/cli/cli.h"

#include "baker/transfer.h"
#include "base/units.h"

#include <stdio.h>

static int report_pull(CliContext *cli, const GPtrArray *images, const TransferReport *report)
{
    g_autofree char *bytes = units_format_size(report->bytes);
    char text[DIGEST_OCI_SIZE];
    json_t *list = json_array();

    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];

        json_array_append_new(list, cli_image_json(image));
        if (!cli->json)
            printf("%s %s %s\n", image->name, image->kind, digest_to_oci(&image->id, text));
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:i}", "images", list, "manifest", digest_to_oci(&report->manifest, text), "bytes",
                                        (json_int_t)report->bytes, "blobs", (json_int_t)report->blobs, "present", (json_int_t)report->present, "requests",
                                        (json_int_t)report->requests, "referrers", (int)report->referrers));
    json_decref(list);
    log_info("%s fetched", bytes);
    return 0;
}

int verb_pull(CliContext *cli, int argc, char **argv)
{
    PullOptions how = {0};
    const CliOption options[] = {{"arch", CLI_STRING, &how.architecture}, {"plain-http", CLI_FLAG, &how.plain_http}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(StoreLease) lease = NULL;
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(GError) error = NULL;
    TransferReport report;

    if (!cli_parse(options, "pull docker://HOST/REPOSITORY[:TAG|@DIGEST] [NAME] [--arch=ARCH] [--plain-http]", argc, argv, 1, 2, &arguments, &error) ||
        !cli_open_store(cli, STORE_OPEN_CREATE, &store, &error) || !store_lease_take(store, "pull", &lease, &error) ||
        !transfer_pull(store, arguments[0], arguments[1], &how, &images, &report, &error))
        return cli_fail(cli, error);
    return report_pull(cli, images, &report);
}

static bool list_tags(const char *from, bool plain_http, GPtrArray **ret, GError **error)
{
    g_auto(RegistryRef) ref = {0};
    g_autoptr(Registry) registry = NULL;

    return registry_ref_parse(from, &ref, error) && registry_open(&ref, &(RegistryOptions){.plain_http = plain_http}, &registry, error) &&
           registry_tags(registry, ret, error);
}

int verb_tags(CliContext *cli, int argc, char **argv)
{
    bool plain_http = false;
    const CliOption options[] = {{"plain-http", CLI_FLAG, &plain_http}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(GPtrArray) tags = NULL;
    g_autoptr(GError) error = NULL;
    json_t *list;

    if (!cli_parse(options, "tags docker://HOST/REPOSITORY [--plain-http]", argc, argv, 1, 1, &arguments, &error) ||
        !list_tags(arguments[0], plain_http, &tags, &error))
        return cli_fail(cli, error);
    list = json_array();
    for (guint i = 0; i < tags->len; i++) {
        json_array_append_new(list, json_string(tags->pdata[i]));
        if (!cli->json)
            puts(tags->pdata[i]);
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:o}", "tags", list));
    json_decref(list);
    return 0;
}
