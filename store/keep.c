/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps: images whose bytes stay until somebody says otherwise, with who said so and why.
 *
 * They are entries of the channel log, so they are chained, signed and audited like everything else that decides what stays: an image is
 * kept when the last `keep` or `release` entry that names it is a `keep`.
 */
#include "base/error.h"
#include "store/channel-private.h"
#include "store/image-private.h"
#include "store/ledger.h"
#include "store/store-private.h"

bool channel_keeps(Database *db, GPtrArray **ret, GError **error)
{
    g_autoptr(Query) query = database_query(db, error,
                                            "SELECT " ENTRY_COLUMNS " FROM channel_log WHERE action = 'keep' AND number IN"
                                            " (SELECT max(number) FROM channel_log WHERE action IN ('keep', 'release') GROUP BY image)"
                                            " ORDER BY number",
                                            "");

    return channel_entries(query, ret, error);
}

bool store_keeps(Store *store, GPtrArray **ret, GError **error)
{
    Database *db;

    return store_state_db(store, &db, error) && channel_keeps(db, ret, error);
}

static bool is_kept(Database *db, const Digest *image, bool *ret, GError **error)
{
    int64_t found;

    if (!database_int(db, 0, &found, error,
                      "SELECT action = 'keep' FROM channel_log WHERE action IN ('keep', 'release') AND image = ?1 ORDER BY number DESC LIMIT 1", "d",
                      image))
        return false;
    *ret = found != 0;
    return true;
}

/* Looked up again: prune, which needs the lock that we have, may have been here since the caller looked. */
static bool still_has_bytes(Store *store, const StoreImage *image, GError **error)
{
    g_autoptr(StoreImage) now = NULL;
    Database *catalog;

    if (!store_catalog(store, &catalog, error) || !image_by_id(catalog, &image->id, image->name, &now, error))
        return false;
    return now ? image_check_bytes(now, error) : fail(error, "image '%s' was removed meanwhile", image->name);
}

/* With the state's write lock. */
static bool keep_all(Store *store, Database *db, GPtrArray *images, const StoreWhy *why, bool release, GError **error)
{
    ChannelAddition addition = {
        .at = g_get_real_time() / G_USEC_PER_SEC, .action = release ? "release" : "keep", .channel = "", .why = why};

    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        bool kept;

        if (!is_kept(db, &image->id, &kept, error) || (!release && !still_has_bytes(store, image, error)))
            return false;
        if (release && !kept)
            return fail(error, "image '%s/%s' is not kept: kiln keep lists those that are", image->name, image->kind);
        addition.name = image->name;
        addition.kind = image->kind;
        addition.image = &image->id;
        if (!channel_append(db, &addition, error))
            return false;
    }
    return true;
}

bool store_keep(Store *store, GPtrArray *images, const StoreWhy *why, bool release, GError **error)
{
    Database *db;

    if (!store_why_check(why, error) || !store_writable(store, error) || !store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!keep_all(store, db, images, why, release, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error) && store_ledger_follow(store);
}
