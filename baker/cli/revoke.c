/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln revoke: forbids to promote an image, to bake from it and to roll it out, with everything that was baked from it.
 */
#include "baker/cli/cli.h"

#include <stdio.h>

/* Who is touched: the images themselves, and what holds them or their descendants. */
typedef struct Touched {
    GPtrArray *images; /* of StoreImage*, borrowed: what is revoked, then its descendants */
    guint own;         /* how many of them are revoked themselves */
    json_t *channels, *groups;
} Touched;

static bool add_groups(Store *store, const StoreImage *image, json_t *list, GError **error)
{
    g_autoptr(GPtrArray) groups = NULL;
    char oci[DIGEST_OCI_SIZE];

    if (!store_journal_holders(store, &image->id, &groups, error))
        return false;
    for (guint i = 0; i < groups->len; i++)
        json_array_append_new(list, json_pack("{s:s, s:s}", "group", groups->pdata[i], "image", digest_to_oci(&image->id, oci)));
    return true;
}

static void add_channels(GPtrArray *entries, const StoreImage *image, json_t *list)
{
    char oci[DIGEST_OCI_SIZE];

    for (guint i = 0; i < entries->len; i++) {
        const StoreChannelEntry *entry = entries->pdata[i];

        if (digest_equal(&entry->image, &image->id))
            json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", entry->name, "kind", entry->kind, "channel", entry->channel,
                                                  "image", digest_to_oci(&image->id, oci)));
    }
}

static bool find_touched(Store *store, Touched *touched, GError **error)
{
    g_autoptr(GPtrArray) entries = NULL;

    if (!store_channels(store, NULL, false, &entries, error))
        return false;
    for (guint i = 0; i < touched->images->len; i++) {
        add_channels(entries, touched->images->pdata[i], touched->channels);
        if (!add_groups(store, touched->images->pdata[i], touched->groups, error))
            return false;
    }
    return true;
}

static bool is_listed(GPtrArray *images, const StoreImage *image)
{
    for (guint i = 0; i < images->len; i++)
        if (digest_equal(&((StoreImage *)images->pdata[i])->id, &image->id))
            return true;
    return false;
}

/* @kept owns what it adds to @images. */
static bool add_descendants(Store *store, GPtrArray *images, guint own, GPtrArray *kept, GError **error)
{
    for (guint i = 0; i < own; i++) {
        GPtrArray *list = NULL;

        if (!store_descendants(store, &((StoreImage *)images->pdata[i])->id, &list, error))
            return false;
        g_ptr_array_add(kept, list);
        for (guint j = 0; j < list->len; j++)
            if (!is_listed(images, list->pdata[j]))
                g_ptr_array_add(images, list->pdata[j]);
    }
    return true;
}

static void print_images(const Touched *touched)
{
    for (guint i = 0; i < touched->images->len; i++) {
        const StoreImage *image = touched->images->pdata[i];
        char oci[DIGEST_OCI_SIZE];

        printf("%s %s %s%s\n", image->name, image->kind, digest_to_oci(&image->id, oci), i < touched->own ? "" : " (baked from it)");
    }
}

static void print_holders(const Touched *touched)
{
    json_t *one;
    size_t i;

    json_array_foreach (touched->channels, i, one)
        printf("channel %s/%s:%s points at %s\n", json_string_value(json_object_get(one, "name")), json_string_value(json_object_get(one, "kind")),
               json_string_value(json_object_get(one, "channel")), json_string_value(json_object_get(one, "image")));
    json_array_foreach (touched->groups, i, one)
        printf("group %s needs %s\n", json_string_value(json_object_get(one, "group")), json_string_value(json_object_get(one, "image")));
}

static int tell(CliContext *cli, const Touched *touched, bool dry_run)
{
    json_t *images, *descendants;

    if (!cli->json) {
        print_images(touched);
        print_holders(touched);
        if (dry_run)
            log_info("nothing was revoked: this was a rehearsal");
        return 0;
    }
    images = json_array();
    descendants = json_array();
    for (guint i = 0; i < touched->images->len; i++)
        json_array_append_new(i < touched->own ? images : descendants, cli_image_json(touched->images->pdata[i]));
    return cli_print_json(json_pack("{s:b, s:o, s:o, s:O, s:O}", "revoked", !dry_run, "images", images, "descendants", descendants, "channels",
                                    touched->channels, "groups", touched->groups));
}

typedef struct RevokeCall {
    StoreWhy why;
    bool stop, dry_run;
} RevokeCall;

static bool run(CliContext *cli, const RevokeCall *call, const char *ref, int *ret_status, GError **error)
{
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(GPtrArray) own = NULL, images = g_ptr_array_new(), kept = g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref);
    g_autoptr(json_t) channels = json_array(), groups = json_array();
    Touched touched = {.images = images, .channels = channels, .groups = groups};

    if (!call->why.reason && !call->dry_run)
        return fail_code(error, KILN_ERROR_USAGE, "a revocation needs a reason: give --reason");
    if (!cli_signing_key(NULL, &key, error) || !cli_open_store(cli, 0, &store, error) || !store_resolve_set_record(store, ref, &own, error))
        return false;
    for (guint i = 0; i < own->len; i++)
        g_ptr_array_add(images, own->pdata[i]);
    touched.own = own->len;
    if (!add_descendants(store, images, touched.own, kept, error) || !find_touched(store, &touched, error))
        return false;
    if (!call->dry_run && (!store_revoke(store, own, &call->why, call->stop, error) || !cli_sign_heads(store, key, error)))
        return false;
    *ret_status = tell(cli, &touched, call->dry_run);
    return true;
}

int verb_revoke(CliContext *cli, int argc, char **argv)
{
    RevokeCall call = {.stop = false};
    const CliOption options[] = {{"reason", CLI_STRING, &call.why.reason},
                                 {"on-behalf-of", CLI_STRING, &call.why.on_behalf_of},
                                 {"stop", CLI_FLAG, &call.stop},
                                 {"dry-run", CLI_FLAG, &call.dry_run},
                                 {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;
    int status = 0;

    if (!cli_parse(options, "revoke --reason TEXT [--stop] [--on-behalf-of WHO] [--dry-run] REF", argc, argv, 1, 1, &arguments, &error) ||
        !run(cli, &call, arguments[0], &status, &error))
        return cli_fail(cli, error);
    return status;
}
