/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln images: what the store holds, newest first.
 */
#include "baker/cli/cli.h"

#include "base/units.h"

#include <stdio.h>
#include <string.h>

static void print_table(GPtrArray *images)
{
    printf("%-24s %-5s %-71s %10s %10s  %s\n", "NAME", "KIND", "IMAGE ID", "SIZE", "NEW", "CREATED");
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        g_autofree char *size = units_format_size(image->size), *fresh = units_format_size(image->new_bytes),
                        *created = cli_time(image->created);
        char id[DIGEST_OCI_SIZE];

        printf("%-24s %-5s %-71s %10s %10s  %s\n", image->name, image->kind, digest_to_oci(&image->id, id), size,
               fresh, created);
    }
}

static json_t *images_json(GPtrArray *images)
{
    json_t *list = json_array();

    for (guint i = 0; i < images->len; i++)
        json_array_append_new(list, cli_image_json(images->pdata[i]));
    return json_pack("{s:o}", "images", list);
}

static void keep_name(GPtrArray *images, const char *name)
{
    for (guint i = images->len; i-- > 0;)
        if (strcmp(((StoreImage *)images->pdata[i])->name, name) != 0)
            g_ptr_array_remove_index(images, i);
}

int verb_images(CliContext *cli, int argc, char **argv)
{
    bool all = false;
    const CliOption options[] = {{"all", CLI_FLAG, &all}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(GPtrArray) images = NULL;
    g_autofree char **names = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "images [--all] [NAME]", argc, argv, 0, 1, &names, &error) ||
        !cli_open_store(cli, STORE_OPEN_CREATE, &store, &error) ||
        !store_list_images(store, all || names[0], &images, &error))
        return cli_fail(cli, error);
    if (names[0])
        keep_name(images, names[0]);
    if (cli->json)
        return cli_print_json(images_json(images));
    print_table(images);
    return 0;
}
