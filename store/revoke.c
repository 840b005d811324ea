/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Revocation, and the lineage over which it reaches.
 *
 * Who was baked from whom stands in two places: state.db's `lineage`, which every publishing adds to and nothing takes from, and the
 * catalog's sets, which know the parents of what older versions published. Both are asked, one generation at a time. An image that was
 * removed still links its children to its parents.
 */
#include "base/error.h"
#include "store/channel-private.h"
#include "store/image-private.h"
#include "store/ledger.h"
#include "store/store-private.h"

/* --- lineage --- */

typedef struct Walk {
    Database *state, *catalog;
    bool down;
    GHashTable *seen; /* Digest* */
    GArray *list;     /* of Digest, nearest generation first, the start left out */
} Walk;

static void walk_add(Walk *walk, const Digest *digest)
{
    if (digest_is_none(digest) || g_hash_table_contains(walk->seen, digest))
        return;
    g_hash_table_add(walk->seen, g_memdup2(digest, sizeof(*digest)));
    g_array_append_val(walk->list, *digest);
}

static bool walk_query(Walk *walk, Query *query, GError **error)
{
    int rc = query ? 0 : -1;
    Digest digest;

    while (query && (rc = query_step(query, error)) > 0) {
        query_digest(query, 0, &digest);
        walk_add(walk, &digest);
    }
    return rc >= 0;
}

static bool walk_step(Walk *walk, const Digest *image, GError **error)
{
    g_autoptr(Query) state = database_query(
        walk->state, error, walk->down ? "SELECT image FROM lineage WHERE parent = ?1" : "SELECT parent FROM lineage WHERE image = ?1", "d", image);
    g_autoptr(Query) catalog =
        !state ? NULL
               : database_query(walk->catalog, error,
                                walk->down ? "SELECT image.id FROM image JOIN bake ON bake.number = image.bake WHERE bake.parent = ?1"
                                           : "SELECT bake.parent FROM image JOIN bake ON bake.number = image.bake WHERE image.id = ?1",
                                "d", image);

    return walk_query(walk, state, error) && walk_query(walk, catalog, error);
}

/* *ret: ancestors of @image, or with @down descendants. */
static bool lineage(Store *store, const Digest *image, bool down, GArray **ret, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(Digest));
    Walk walk = {.down = down, .seen = seen, .list = list};

    if (!store_state_db(store, &walk.state, error) || !store_catalog(store, &walk.catalog, error))
        return false;
    g_hash_table_add(seen, g_memdup2(image, sizeof(*image)));
    if (!walk_step(&walk, image, error))
        return false;
    for (guint i = 0; i < list->len; i++) {
        Digest one = g_array_index(list, Digest, i); /* a copy: the list grows */

        if (!walk_step(&walk, &one, error))
            return false;
    }
    *ret = g_steal_pointer(&list);
    return true;
}

static int newest_first(gconstpointer a, gconstpointer b)
{
    const StoreImage *one = *(StoreImage *const *)a, *other = *(StoreImage *const *)b;

    return one->set != other->set ? (one->set < other->set ? 1 : -1) : strcmp(one->kind, other->kind);
}

bool store_descendants(Store *store, const Digest *image, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    g_autoptr(GArray) list = NULL;
    Database *catalog;

    if (!store_catalog(store, &catalog, error) || !lineage(store, image, true, &list, error))
        return false;
    for (guint i = 0; i < list->len; i++) {
        StoreImage *one;

        if (!image_by_id(catalog, &g_array_index(list, Digest, i), NULL, &one, error))
            return false;
        if (one)
            g_ptr_array_add(images, one);
    }
    g_ptr_array_sort(images, newest_first);
    *ret = g_steal_pointer(&images);
    return true;
}

/* --- revoking --- */

static bool revoke_all(Database *db, GPtrArray *images, const StoreWhy *why, bool stop, GError **error)
{
    g_autoptr(json_t) extra = stop ? json_pack("{s:b}", "stop", 1) : NULL;
    int64_t at = g_get_real_time() / G_USEC_PER_SEC;

    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        ChannelAddition addition = {.at = at,
                                    .action = "revoke",
                                    .name = image->name,
                                    .kind = image->kind,
                                    .channel = "",
                                    .image = &image->id,
                                    .why = why,
                                    .extra = extra};

        if (!channel_append(db, &addition, error))
            return false;
    }
    return true;
}

bool store_revoke(Store *store, GPtrArray *images, const StoreWhy *why, bool stop, GError **error)
{
    Database *db;

    if (!why->reason)
        return fail_code(error, KILN_ERROR_USAGE, "a revocation needs a reason: give --reason");
    if (!store_why_check(why, error) || !store_writable(store, error) || !store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!revoke_all(db, images, why, stop, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error) && store_ledger_follow(store);
}

/* --- asking --- */

void store_revocation_clear(StoreRevocation *revocation)
{
    g_clear_pointer(&revocation->reason, g_free);
    *revocation = (StoreRevocation){.revoked = false};
}

/* The last entry gives the reason; one with stop is not weakened by a later one without. */
static bool look_at(Database *db, const Digest *image, StoreRevocation *ret, GError **error)
{
    g_autoptr(GPtrArray) entries = NULL;
    g_autoptr(Query) query =
        database_query(db, error, "SELECT " ENTRY_COLUMNS " FROM channel_log WHERE action = 'revoke' AND image = ?1 ORDER BY number", "d", image);

    if (!channel_entries(query, &entries, error))
        return false;
    for (guint i = 0; i < entries->len; i++) {
        const StoreChannelEntry *entry = entries->pdata[i];

        if (ret->stop && !entry->stop)
            continue;
        g_free(ret->reason);
        *ret = (StoreRevocation){.revoked = true,
                                 .stop = entry->stop,
                                 .reason = g_strdup(entry->note && *entry->note ? entry->note : "no reason was given"),
                                 .because = *image};
    }
    return true;
}

bool store_revocation(Store *store, const Digest *image, StoreRevocation *ret, GError **error)
{
    g_auto(StoreRevocation) found = {.revoked = false};
    g_autoptr(GArray) ancestors = NULL;
    Database *db;

    *ret = (StoreRevocation){.revoked = false};
    if (!store_state_db(store, &db, error) || !look_at(db, image, &found, error) || !lineage(store, image, false, &ancestors, error))
        return false;
    for (guint i = 0; i < ancestors->len && !found.stop; i++) {
        g_auto(StoreRevocation) one = {.revoked = false};

        if (!look_at(db, &g_array_index(ancestors, Digest, i), &one, error))
            return false;
        if (one.revoked && (!found.revoked || one.stop)) {
            store_revocation_clear(&found);
            found = one;
            one = (StoreRevocation){.revoked = false};
        }
    }
    *ret = found;
    found = (StoreRevocation){.revoked = false};
    return true;
}

bool store_revoked(Store *store, const Digest *image, char **ret_why, GError **error)
{
    g_auto(StoreRevocation) revocation = {.revoked = false};
    char oci[DIGEST_OCI_SIZE];

    *ret_why = NULL;
    if (!store_revocation(store, image, &revocation, error))
        return false;
    if (revocation.revoked && digest_equal(&revocation.because, image))
        *ret_why = g_strdup(revocation.reason);
    else if (revocation.revoked)
        *ret_why = g_strdup_printf("it was baked from %s, which was revoked: %s", digest_to_oci(&revocation.because, oci), revocation.reason);
    return true;
}
