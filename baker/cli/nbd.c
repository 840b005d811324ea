/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln nbd: a stored disk over NBD until Ctrl-C, so that a machine boots from the store before anything is copied.
 */
#include "baker/cli/cli.h"

#include <stdio.h>

#define USAGE "nbd REF --socket PATH|--port N"

typedef struct NbdCall {
    const CliContext *cli;
    const StoreImage *image;
} NbdCall;

/* Flushed, because who reads this waits for it to connect. */
static void say_ready(const char *uri, void *arg)
{
    const NbdCall *call = arg;

    if (call->cli->json)
        (void)cli_print_json(json_pack("{s:s, s:o}", "uri", uri, "image", cli_image_json(call->image)));
    else
        printf("%s\n", uri);
    (void)fflush(stdout);
    log_info("==> serving %s read-only; Ctrl-C ends it", call->image->name);
}

static bool parse_address(const char *port, DiskAddress *address, GError **error)
{
    guint64 number = 0;

    if (!port == !address->socket)
        return fail_code(error, KILN_ERROR_USAGE, "usage: kiln " USAGE);
    if (port && !g_ascii_string_to_unsigned(port, 10, 1, 65535, &number, NULL))
        return fail_code(error, KILN_ERROR_USAGE, "--port wants a number from 1 to 65535, not '%s'", port);
    address->port = (unsigned)number;
    return true;
}

int verb_nbd(CliContext *cli, int argc, char **argv)
{
    DiskAddress address = {0};
    const char *port = NULL;
    const CliOption options[] = {{"socket", CLI_STRING, &address.socket}, {"port", CLI_STRING, &port}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(StoreLease) lease = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;
    NbdCall call = {.cli = cli};

    /* The lease comes first: an image that is found after it keeps its blocks, also when somebody removes it now. */
    if (!cli_parse(options, USAGE, argc, argv, 1, 1, &arguments, &error) || !parse_address(port, &address, &error) ||
        !cli_open_store(cli, STORE_OPEN_ANYWAY, &store, &error) || (!store_is_readonly(store) && !store_lease_take(store, "nbd", &lease, &error)) ||
        !store_resolve(store, arguments[0], "disk", &image, &error))
        return cli_fail(cli, error);
    call.image = image;
    return disk_serve(store, &image->map, &address, say_ready, &call, &error) ? 0 : cli_fail(cli, error);
}
