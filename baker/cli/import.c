/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln import: an image that was made elsewhere, into the store as it is.
 */
#include "baker/cli/cli.h"

#include "baker/import.h"

#include <stdio.h>

int verb_import(CliContext *cli, int argc, char **argv)
{
    ImportFrom from = {0};
    const CliOption options[] = {{"parent", CLI_STRING, &from.parent}, {"full-read", CLI_STRING, &from.base}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(StoreLease) lease = NULL;
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(GError) error = NULL;
    json_t *list;

    if (!cli_parse(options, "import FILE|FOLDER NAME [--parent REF [--full-read RAW]]", argc, argv, 2, 2, &arguments, &error) ||
        !cli_open_store(cli, STORE_OPEN_CREATE, &store, &error) || !store_lease_take(store, "import", &lease, &error))
        return cli_fail(cli, error);
    from.path = arguments[0];
    if (!import_file(store, &from, arguments[1], &images, &error))
        return cli_fail(cli, error);
    list = json_array();
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        char id[DIGEST_OCI_SIZE];

        json_array_append_new(list, cli_image_json(image));
        if (!cli->json)
            printf("%s %s %s\n", image->name, image->kind, digest_to_oci(&image->id, id));
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:o}", "images", list));
    json_decref(list);
    return 0;
}
