/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln images: what the store holds, newest first.
 */
#include "baker/cli/cli.h"

#include "baker/outdated.h"
#include "base/interrupt.h"
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

        printf("%-24s %-5s %-71s %10s %10s  %s%s\n", image->name, image->kind, digest_to_oci(&image->id, id), size, fresh, created,
               image->bytes_gone ? "  record only" : "");
    }
}

static json_t *images_json(GPtrArray *images)
{
    json_t *list = json_array();

    for (guint i = 0; i < images->len; i++)
        json_array_append_new(list, cli_image_json(images->pdata[i]));
    return json_pack("{s:o}", "images", list);
}

static void leave_records_out(GPtrArray *images)
{
    for (guint i = images->len; i-- > 0;)
        if (((StoreImage *)images->pdata[i])->bytes_gone)
            g_ptr_array_remove_index(images, i);
}

static void keep_name(GPtrArray *images, const char *name)
{
    for (guint i = images->len; i-- > 0;)
        if (strcmp(((StoreImage *)images->pdata[i])->name, name) != 0)
            g_ptr_array_remove_index(images, i);
}

/* Leaves the outdated ones, with the reason of each. One that cannot be told about is told as that. */
static bool keep_outdated(Store *store, GPtrArray *images, GPtrArray *reasons, const BakeOptions *asking, GError **error)
{
    for (guint i = 0; i < images->len;) {
        g_autoptr(GError) problem = NULL;
        char *why = NULL;

        if (!interrupt_check(error))
            return false;
        if (!outdated_why(store, images->pdata[i], asking, &why, &problem))
            why = g_strdup_printf("cannot be told: %s", problem->message);
        if (!why) {
            g_ptr_array_remove_index(images, i);
            continue;
        }
        g_ptr_array_add(reasons, why);
        i++;
    }
    return true;
}

static int tell_outdated(CliContext *cli, GPtrArray *images, GPtrArray *reasons)
{
    json_t *list = json_array();

    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        json_t *one = cli_image_json(image);
        char id[DIGEST_OCI_SIZE];

        json_object_set_new(one, "outdated", json_string_nocheck(reasons->pdata[i]));
        json_array_append_new(list, one);
        if (!cli->json)
            printf("%-24s %-5s %s  %s\n", image->name, image->kind, digest_to_oci(&image->id, id), (char *)reasons->pdata[i]);
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:o}", "images", list));
    json_decref(list);
    return 0;
}

int verb_images(CliContext *cli, int argc, char **argv)
{
    bool all = false, outdated = false;
    BakeOptions asking = {.fresh_since = g_get_real_time() / G_USEC_PER_SEC};
    const CliOption options[] = {{"all", CLI_FLAG, &all},
                                 {"outdated", CLI_FLAG, &outdated},
                                 {"offline", CLI_FLAG, &asking.offline},
                                 {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(GPtrArray) images = NULL;
    g_autofree char **names = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "images [--all] [--outdated [--offline]] [NAME]", argc, argv, 0, 1, &names, &error) ||
        !cli_open_store(cli, STORE_OPEN_CREATE | STORE_OPEN_ANYWAY, &store, &error) ||
        !store_list_images(store, all || names[0], &images, &error))
        return cli_fail(cli, error);
    if (names[0])
        keep_name(images, names[0]);
    if (!all || outdated)
        leave_records_out(images);
    if (outdated) {
        g_autoptr(GPtrArray) reasons = g_ptr_array_new_with_free_func(g_free);

        return keep_outdated(store, images, reasons, &asking, &error) ? tell_outdated(cli, images, reasons) : cli_fail(cli, error);
    }
    if (cli->json)
        return cli_print_json(images_json(images));
    print_table(images);
    return 0;
}
