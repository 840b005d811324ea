/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collects holds: one pass over each place that can name an image, all of them in state.db.
 *
 * Leases are not among them. They name no image; gc looks at them when it comes to the bytes.
 */
#include "store/hold.h"

#include "store/catalog.h"
#include "store/channel-private.h"

static void hold_free(gpointer data)
{
    Hold *hold = data;

    g_free(hold->name);
    g_free(hold->phrase);
    g_free(hold);
}

static void add_hold(GHashTable *holds, const Digest *image, HoldKind kind, const char *name, char *phrase /* taken */)
{
    GPtrArray *list = g_hash_table_lookup(holds, image);
    Hold *hold = g_new0(Hold, 1);

    if (!list) {
        list = g_ptr_array_new_with_free_func(hold_free);
        g_hash_table_insert(holds, g_memdup2(image, sizeof(*image)), list);
    }
    *hold = (Hold){.kind = kind, .name = g_strdup(name), .phrase = phrase};
    g_ptr_array_add(list, hold);
}

static bool add_names(Database *db, GHashTable *holds, GError **error)
{
    g_autoptr(Query) query = database_query(db, error, "SELECT name, kind, image FROM name", "");
    int rc = query ? 0 : -1;
    Digest image;

    while (query && (rc = query_step(query, error)) > 0) {
        query_digest(query, 2, &image);
        add_hold(holds, &image, HOLD_NAME, query_text(query, 0),
                 g_strdup_printf("the name %s/%s", query_text(query, 0), query_text(query, 1)));
    }
    return rc >= 0;
}

/* The last promotion says where a channel points, the one before where it goes back to. @place 1: the last; 2: the one before. */
static bool add_channels(Database *db, GHashTable *holds, int64_t place, GError **error)
{
    g_autoptr(Query) query = database_query(db, error,
                                            "SELECT name, kind, channel, image FROM (SELECT name, kind, channel, image, row_number() OVER"
                                            " (PARTITION BY name, kind, channel ORDER BY number DESC) AS place FROM channel_log"
                                            " WHERE action = 'promote') WHERE place = ?1",
                                            "i", place);
    int rc = query ? 0 : -1;
    Digest image;

    while (query && (rc = query_step(query, error)) > 0) {
        query_digest(query, 3, &image);
        add_hold(holds, &image, place == 1 ? HOLD_CHANNEL : HOLD_BACK, NULL,
                 g_strdup_printf("the channel %s/%s:%s%s", query_text(query, 0), query_text(query, 1), query_text(query, 2),
                                 place == 1 ? "" : ", which goes back to it"));
    }
    return rc >= 0;
}

static bool add_groups(Database *db, GHashTable *holds, GError **error)
{
    g_autoptr(Query) query = database_query(db, error, "SELECT grp, image FROM hold ORDER BY grp", "");
    int rc = query ? 0 : -1;
    Digest image;

    while (query && (rc = query_step(query, error)) > 0) {
        query_digest(query, 1, &image);
        add_hold(holds, &image, HOLD_GROUP, NULL, g_strdup_printf("group '%s', which runs it or may go back to it", query_text(query, 0)));
    }
    return rc >= 0;
}

/* The image is published under the repository's name: see serve-publish.c. */
static bool add_tags(Database *db, GHashTable *holds, GError **error)
{
    g_autoptr(Query) query =
        database_query(db, error, "SELECT repository, tag, image FROM repository_tag WHERE image IS NOT NULL ORDER BY repository, tag", "");
    int rc = query ? 0 : -1;
    Digest image;

    while (query && (rc = query_step(query, error)) > 0) {
        query_digest(query, 2, &image);
        add_hold(holds, &image, HOLD_TAG, query_text(query, 0), g_strdup_printf("the tag %s:%s", query_text(query, 0), query_text(query, 1)));
    }
    return rc >= 0;
}

static bool add_keeps(Database *db, GHashTable *holds, GError **error)
{
    g_autoptr(GPtrArray) entries = NULL;

    if (!channel_keeps(db, &entries, error))
        return false;
    for (guint i = 0; i < entries->len; i++) {
        const StoreChannelEntry *entry = entries->pdata[i];

        add_hold(holds, &entry->image, HOLD_KEEP, NULL,
                 g_strdup_printf("kiln keep, by %s%s%s", entry->who ? entry->who : "somebody", entry->note ? ": " : "",
                                 entry->note ? entry->note : ""));
    }
    return true;
}

bool holds_load(Store *store, GHashTable **ret, GError **error)
{
    g_autoptr(GHashTable) holds = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, (GDestroyNotify)g_ptr_array_unref);
    Database *db;

    if (!store_state_db(store, &db, error) || !add_names(db, holds, error) || !add_channels(db, holds, 1, error) ||
        !add_channels(db, holds, 2, error) || !add_groups(db, holds, error) || !add_tags(db, holds, error) || !add_keeps(db, holds, error))
        return false;
    *ret = g_steal_pointer(&holds);
    return true;
}
