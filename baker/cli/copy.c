/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln copy: an image from one place to another, byte for byte, without becoming an image of the store.
 */
#include "baker/cli/cli.h"

#include <stdio.h>

#define USAGE "copy SRC DST [--arch=ARCH] [--plain-http] [--no-referrers]"

typedef struct CopyOptions {
    const char *arch;
    bool plain_http, no_referrers;
} CopyOptions;

/* SRC may be an image of the store as well. @image is held as long as the end. */
static bool open_source(Store *store, const char *text, const CopyOptions *how, StoreImage **image, OciEnd **ret, GError **error)
{
    if (oci_end_is_name(text))
        return oci_end_open(store, text, &(OciEndOptions){.plain_http = how->plain_http}, ret, error);
    return store_resolve(store, text, "oci", image, error) && oci_end_image(store, *image, ret, error);
}

static bool copy(Store *store, char **arguments, const CopyOptions *how, OciCopyReport *ret, GError **error)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(OciEnd) from = NULL, to = NULL;
    bool one = how->arch || g_str_has_prefix(arguments[1], "docker-archive:");

    return open_source(store, arguments[0], how, &image, &from, error) &&
           oci_end_open(store, arguments[1], &(OciEndOptions){.write = true, .plain_http = how->plain_http}, &to, error) &&
           oci_copy(store, from, to, &(OciCopy){.whole_index = !one, .architecture = how->arch, .referrers = !how->no_referrers && !one}, ret, error);
}

int verb_copy(CliContext *cli, int argc, char **argv)
{
    CopyOptions how = {0};
    const CliOption options[] = {{"arch", CLI_STRING, &how.arch}, {"plain-http", CLI_FLAG, &how.plain_http}, {"no-referrers", CLI_FLAG, &how.no_referrers}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(StoreLease) lease = NULL;
    g_autoptr(GError) error = NULL;
    char manifest[DIGEST_OCI_SIZE];
    OciCopyReport report;

    if (!cli_parse(options, USAGE, argc, argv, 2, 2, &arguments, &error) || !cli_open_store(cli, STORE_OPEN_CREATE, &store, &error) ||
        !store_lease_take(store, "copy", &lease, &error) || !copy(store, arguments, &how, &report, &error))
        return cli_fail(cli, error);
    (void)digest_to_oci(&report.manifest, manifest);
    if (cli->json)
        return cli_print_json(json_pack("{s:o, s:s, s:I, s:I, s:I, s:i}", "to", cli_text(arguments[1]), "manifest", manifest, "blobs", (json_int_t)report.blobs, "present",
                                        (json_int_t)report.present, "bytes", (json_int_t)report.bytes_sent, "referrers", (int)report.referrers));
    printf("%s %s\n", arguments[1], manifest);
    return 0;
}
