/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln promote, channels, tag, revoke: which image a name, a channel and a reader shall mean.
 */
#include "baker/cli/cli.h"

#include <stdio.h>
#include <string.h>

static json_t *entry_json(const StoreChannelEntry *entry)
{
    char image[DIGEST_OCI_SIZE], hash[DIGEST_OCI_SIZE];
    json_t *one = json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:I, s:s}", "number", (json_int_t)entry->number, "action", entry->action, "name",
                            entry->name, "kind", entry->kind, "channel", entry->channel, "image", digest_to_oci(&entry->image, image), "at",
                            (json_int_t)entry->at, "hash", digest_to_oci(&entry->hash, hash));

    if (entry->who)
        json_object_set_new(one, "who", json_string_nocheck(entry->who));
    if (entry->note)
        json_object_set_new(one, "note", json_string_nocheck(entry->note));
    return one;
}

static void print_entries(GPtrArray *entries, bool history)
{
    printf("%-24s %-5s %-16s %-71s %-17s%s\n", "NAME", "KIND", "CHANNEL", "IMAGE ID", "SINCE", history ? "WHO" : "");
    for (guint i = 0; i < entries->len; i++) {
        const StoreChannelEntry *entry = entries->pdata[i];
        g_autofree char *when = cli_time(entry->at);
        char id[DIGEST_OCI_SIZE];

        printf("%-24s %-5s %-16s %-71s %-17s%s%s%s\n", entry->name, entry->kind, *entry->channel ? entry->channel : "(revoked)",
               digest_to_oci(&entry->image, id), when, history && entry->who ? entry->who : "", entry->note && history ? " " : "",
               entry->note && history ? entry->note : "");
    }
}

int verb_channels(CliContext *cli, int argc, char **argv)
{
    bool history = false;
    const CliOption options[] = {{"history", CLI_FLAG, &history}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(GPtrArray) entries = NULL;
    g_autofree char **names = NULL;
    g_autoptr(GError) error = NULL;
    json_t *list;

    if (!cli_parse(options, "channels [--history] [NAME]", argc, argv, 0, 1, &names, &error) ||
        !cli_open_store(cli, STORE_OPEN_CREATE, &store, &error) || !store_channels(store, names[0], history, &entries, &error))
        return cli_fail(cli, error);
    if (!cli->json) {
        print_entries(entries, history);
        return 0;
    }
    list = json_array();
    for (guint i = 0; i < entries->len; i++)
        json_array_append_new(list, entry_json(entries->pdata[i]));
    return cli_print_json(json_pack("{s:o}", "channels", list));
}

static int tell_images(CliContext *cli, GPtrArray *images, const char *name, const char *channel, bool moved)
{
    json_t *list = json_array();

    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        char id[DIGEST_OCI_SIZE];

        json_array_append_new(list, cli_image_json(image));
        if (!cli->json)
            printf("%s%s%s %s %s\n", name, channel ? ":" : "", channel ? channel : "", image->kind, digest_to_oci(&image->id, id));
    }
    if (!moved)
        log_info("it pointed there already");
    if (cli->json)
        return cli_print_json(json_pack("{s:b, s:o}", "moved", moved, "images", list));
    json_decref(list);
    return 0;
}


int verb_promote(CliContext *cli, int argc, char **argv)
{
    const char *note = NULL;
    const CliOption options[] = {{"note", CLI_STRING, &note}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(GPtrArray) images = NULL;
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;
    const char *name;
    bool moved = false;

    if (!cli_parse(options, "promote [--note TEXT] REF CHANNEL", argc, argv, 2, 2, &arguments, &error) ||
        !cli_open_store(cli, 0, &store, &error) || !store_resolve_set(store, arguments[0], &images, &error))
        return cli_fail(cli, error);
    name = ((StoreImage *)images->pdata[0])->name;
    if (!store_promote(store, name, images, arguments[1], note, &moved, &error))
        return cli_fail(cli, error);
    return tell_images(cli, images, name, arguments[1], moved);
}

/* The same images under one more name. */
int verb_tag(CliContext *cli, int argc, char **argv)
{
    const CliOption options[] = {{NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(json_t) provenance = NULL;
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;
    StoreSet set = {0};

    if (!cli_parse(options, "tag REF NAME", argc, argv, 2, 2, &arguments, &error) || !cli_open_store(cli, 0, &store, &error) ||
        !store_name_check(arguments[1], &error) || !store_resolve_set(store, arguments[0], &images, &error))
        return cli_fail(cli, error);
    (void)store_image_provenance(store, images->pdata[0], &provenance, NULL); /* an image without one can be tagged too */
    for (guint i = 0; i < images->len; i++) {
        StoreImage *image = images->pdata[i];

        g_free(image->name);
        image->name = g_strdup(arguments[1]);
        image->new_bytes = 0;
    }
    set = (StoreSet){.name = arguments[1], .images = images, .provenance = provenance};
    if (!store_publish(store, &set, &error))
        return cli_fail(cli, error);
    return tell_images(cli, images, arguments[1], NULL, true);
}

int verb_revoke(CliContext *cli, int argc, char **argv)
{
    const char *why = NULL;
    const CliOption options[] = {{"reason", CLI_STRING, &why}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(GPtrArray) images = NULL;
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "revoke [--reason TEXT] REF", argc, argv, 1, 1, &arguments, &error) || !cli_open_store(cli, 0, &store, &error) ||
        !store_resolve_set(store, arguments[0], &images, &error))
        return cli_fail(cli, error);
    for (guint i = 0; i < images->len; i++)
        if (!store_revoke(store, images->pdata[i], why, &error))
            return cli_fail(cli, error);
    return tell_images(cli, images, ((StoreImage *)images->pdata[0])->name, NULL, true);
}
