/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln sync: a store copied into another folder; sets pushed to a remote and pulled from it.
 */
#include "baker/cli/cli.h"

#include "base/units.h"

#include <stdio.h>
#include <string.h>

typedef struct SyncOptions {
    bool all, plain_http;
    const char *sign; /* private key */
    const char *key;  /* public key that a pull wants to see */
} SyncOptions;

/* --- the whole store --- */

static int report_copy(CliContext *cli, const char *to, const StoreSyncReport *report)
{
    g_autofree char *bytes = units_format_size(report->bytes);

    if (cli->json)
        return cli_print_json(json_pack("{s:o, s:I, s:I, s:I, s:I}", "path", cli_text(to), "segments", (json_int_t)report->segments, "blobs",
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

static int copy_store(CliContext *cli, const char *to, GError **error)
{
    g_autoptr(Store) store = NULL;
    StoreSyncReport report;

    if (!open_source(cli, &store, error) || !store_sync_all(store, to, &report, error))
        return cli_fail(cli, *error);
    return report_copy(cli, to, &report);
}

/* --- sets and remotes --- */

static int report_sets(CliContext *cli, const char *remote, json_t *sets /* taken */, const RemoteReport *report, const char *did)
{
    g_autofree char *bytes = units_format_size(report->bytes);

    if (cli->json)
        return cli_print_json(json_pack("{s:o, s:o, s:I, s:I, s:I, s:I}", "remote", cli_text(remote), "sets", sets, "segments", (json_int_t)report->segments,
                                        "blobs", (json_int_t)report->blobs, "bytes", (json_int_t)report->bytes, "present",
                                        (json_int_t)report->present));
    printf("%s: %zu sets %s: %" G_GUINT64_FORMAT " segments and %" G_GUINT64_FORMAT " blobs, %s; %" G_GUINT64_FORMAT " were there already\n", remote,
           json_array_size(sets), did, report->segments, report->blobs, bytes, report->present);
    json_decref(sets);
    return 0;
}

static bool add_set(Store *store, const char *ref, GHashTable *seen, GPtrArray *to, GError **error)
{
    g_autoptr(GPtrArray) set = NULL;
    int64_t number;

    if (!store_resolve_set(store, ref, &set, error))
        return false;
    number = ((StoreImage *)set->pdata[0])->set;
    if (g_hash_table_add(seen, g_memdup2(&number, sizeof(number))))
        g_ptr_array_add(to, g_steal_pointer(&set));
    return true;
}

static bool add_all_sets(Store *store, GHashTable *seen, GPtrArray *to, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;
    char hex[DIGEST_HEX_SIZE];

    if (!store_list_images(store, false, &images, error))
        return false;
    for (guint i = images->len; i > 0; i--) {
        const StoreImage *image = images->pdata[i - 1];

        if (!image->bytes_gone && !add_set(store, digest_to_hex(&image->id, hex), seen, to, error))
            return false;
    }
    return true;
}

/* Whole sets, each once; all of them oldest first. */
static bool collect_sets(Store *store, char **refs, bool all, GPtrArray *to, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);

    if (all)
        return add_all_sets(store, seen, to, error);
    for (; *refs; refs++)
        if (!add_set(store, *refs, seen, to, error))
            return false;
    return true;
}

static json_t *set_json(const GPtrArray *images)
{
    json_t *list = json_array();

    for (guint i = 0; i < images->len; i++)
        json_array_append_new(list, cli_image_json(images->pdata[i]));
    return list;
}

static bool push_sets(Store *store, Remote *remote, const GPtrArray *sets, const SignatureKey *signer, json_t *ret, RemoteReport *report, GError **error)
{
    g_autoptr(RemotePush) push = NULL;

    if (!remote_push_new(store, remote, false, &push, error))
        return false;
    for (guint i = 0; i < sets->len; i++) {
        const GPtrArray *images = sets->pdata[i];

        log_info("==> %s", ((StoreImage *)images->pdata[0])->name);
        if (!remote_sync_push(push, images, signer, error))
            return false;
        json_array_append_new(ret, set_json(images));
    }
    *report = *remote_push_report(push);
    return true;
}

static int sync_push(CliContext *cli, char **arguments, const SyncOptions *o, GError **error)
{
    RemoteOptions options = {.plain_http = o->plain_http, .create = true};
    g_autoptr(GPtrArray) sets = g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref);
    g_autoptr(SignatureKey) signer = NULL;
    g_autoptr(Remote) remote = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(json_t) pushed = json_array();
    RemoteReport report;

    if ((o->sign && !signature_load(o->sign, &signer, error)) || !open_source(cli, &store, error) ||
        !collect_sets(store, arguments + 1, o->all, sets, error) || !remote_open(arguments[0], &options, &remote, error) ||
        !push_sets(store, remote, sets, signer, pushed, &report, error))
        return cli_fail(cli, *error);
    return report_sets(cli, arguments[0], g_steal_pointer(&pushed), &report, "pushed");
}

/* --- pulling --- */

static json_t *remote_set_json(const RemoteSet *set)
{
    json_t *images = json_array(), *one;
    size_t i;

    json_array_foreach(json_object_get(json_object_get(set->payload, "record"), "images"), i, one)
        json_array_append_new(images, json_pack("{s:O?, s:O?, s:O?}", "kind", json_object_get(one, "kind"), "id", json_object_get(one, "id"), "size",
                                                json_object_get(one, "size")));
    return json_pack("{s:s, s:I, s:o}", "name", set->name, "created", (json_int_t)set->created, "images", images);
}

/* With --all nobody said that an older set is to become its name's newest. */
static bool is_outdated(Store *store, const RemoteSet *set)
{
    g_autoptr(GPtrArray) newest = NULL;

    return store_resolve_set_record(store, set->name, &newest, NULL) && ((StoreImage *)newest->pdata[0])->created > set->created;
}

static bool find_sets(Store *store, Remote *remote, char **refs, bool all, const SignatureKey *trusted, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) sets = NULL;

    if (all) {
        if (!remote_sync_list(remote, NULL, trusted, &sets, error))
            return false;
        for (guint i = sets->len; i > 0; i--)
            if (is_outdated(store, sets->pdata[i - 1])) {
                log_verbose("%s: the store has a newer one of '%s'", ((RemoteSet *)sets->pdata[i - 1])->key, ((RemoteSet *)sets->pdata[i - 1])->name);
                g_ptr_array_remove_index(sets, i - 1);
            }
    } else {
        sets = g_ptr_array_new_with_free_func((GDestroyNotify)remote_set_free);
        for (char **ref = refs; *ref; ref++) {
            RemoteSet *set = NULL;

            if (!remote_sync_find(remote, *ref, trusted, &set, error))
                return false;
            g_ptr_array_add(sets, set);
        }
    }
    *ret = g_steal_pointer(&sets);
    return true;
}

static bool pull_sets(Store *store, Remote *remote, const GPtrArray *sets, bool trusted, json_t *ret, RemoteReport *report, GError **error)
{
    for (guint i = 0; i < sets->len; i++) {
        const RemoteSet *set = sets->pdata[i];
        json_t *json = remote_set_json(set);
        bool added;

        json_array_append_new(ret, json);
        log_info("==> %s", set->name);
        if (!remote_sync_pull(store, remote, set, trusted, &added, report, error))
            return false;
        json_object_set_new(json, "new", json_boolean(added));
    }
    return true;
}

static int sync_pull(CliContext *cli, char **arguments, const SyncOptions *o, GError **error)
{
    RemoteOptions options = {.plain_http = o->plain_http};
    g_autoptr(SignatureKey) trusted = NULL;
    g_autoptr(GPtrArray) sets = NULL;
    g_autoptr(Remote) remote = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(json_t) pulled = json_array();
    RemoteReport report = {0};

    if ((o->key && !signature_load_public(o->key, &trusted, error)) || !remote_open(arguments[0], &options, &remote, error) ||
        !cli_open_store(cli, STORE_OPEN_CREATE, &store, error) ||
        !find_sets(store, remote, arguments + 1, o->all, trusted, &sets, error) ||
        !pull_sets(store, remote, sets, trusted != NULL, pulled, &report, error))
        return cli_fail(cli, *error);
    return report_sets(cli, arguments[0], g_steal_pointer(&pulled), &report, "pulled");
}

/* --- listing --- */

static void print_set(const json_t *set)
{
    g_autofree char *time = cli_time(json_integer_value(json_object_get(set, "created")));
    json_t *one;
    size_t i;

    json_array_foreach(json_object_get(set, "images"), i, one)
        printf("%s %s %s %s\n", json_string_value(json_object_get(set, "name")), json_string_value(json_object_get(one, "kind")),
               json_string_value(json_object_get(one, "id")), time);
}

static int sync_list(CliContext *cli, char **arguments, const SyncOptions *o, GError **error)
{
    RemoteOptions options = {.plain_http = o->plain_http};
    g_autoptr(SignatureKey) trusted = NULL;
    g_autoptr(GPtrArray) sets = NULL;
    g_autoptr(Remote) remote = NULL;
    g_autoptr(json_t) list = json_array();

    if ((o->key && !signature_load_public(o->key, &trusted, error)) || !remote_open(arguments[0], &options, &remote, error) ||
        !remote_sync_list(remote, arguments[1], trusted, &sets, error))
        return cli_fail(cli, *error);
    for (guint i = 0; i < sets->len; i++) {
        json_t *json = remote_set_json(sets->pdata[i]);

        if (!cli->json)
            print_set(json);
        json_array_append_new(list, json);
    }
    return cli->json ? cli_print_json(g_steal_pointer(&list)) : 0;
}

/* --- the verb --- */

static bool check_usage(char **arguments, const SyncOptions *o, GError **error)
{
    const char *what = arguments[0];
    bool list = strcmp(what, "list") == 0, known = list || strcmp(what, "push") == 0 || strcmp(what, "pull") == 0;

    if (!known && (arguments[1] || remote_is_location(what)))
        return fail_code(error, KILN_ERROR_USAGE, "sync '%s': it is sync --all DIR, or sync push, pull or list REMOTE", what);
    if (!known && !o->all)
        return fail_code(error, KILN_ERROR_USAGE, "sync copies a whole store: give --all");
    if (known && !arguments[1])
        return fail_code(error, KILN_ERROR_USAGE, "sync %s wants a remote: file:DIR, s3://BUCKET/PREFIX or docker://HOST/REPOSITORY", what);
    if (known && !list && o->all == (arguments[2] != NULL))
        return fail_code(error, KILN_ERROR_USAGE, "sync %s wants images or names, or --all", what);
    return true;
}

int verb_sync(CliContext *cli, int argc, char **argv)
{
    SyncOptions o = {0};
    const CliOption options[] = {{"all", CLI_FLAG, &o.all},   {"plain-http", CLI_FLAG, &o.plain_http}, {"sign", CLI_STRING, &o.sign},
                                 {"key", CLI_STRING, &o.key}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "sync --all DIR, sync push|pull REMOTE REF...|--all, sync list REMOTE [NAME]", argc, argv, 1, -1, &arguments, &error) ||
        !check_usage(arguments, &o, &error))
        return cli_fail(cli, error);
    if (strcmp(arguments[0], "push") == 0)
        return sync_push(cli, arguments + 1, &o, &error);
    if (strcmp(arguments[0], "pull") == 0)
        return sync_pull(cli, arguments + 1, &o, &error);
    if (strcmp(arguments[0], "list") == 0)
        return sync_list(cli, arguments + 1, &o, &error);
    return copy_store(cli, arguments[0], &error);
}
