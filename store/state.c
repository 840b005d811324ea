/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bake cache (states by key) and memos. Both may vanish at any time: a row whose bytes are gone is as good as none.
 */
#include "base/error.h"
#include "store/blob.h"
#include "store/image-private.h"
#include "store/shared-private.h"
#include "store/store-private.h"
#include "store/upkeep.h"

#define USED_STEP 3600 /* seconds: how exact "last used" needs to be, to keep reading free of writing */

StoreState *store_state_new(void)
{
    return g_new0(StoreState, 1);
}

void store_state_free(StoreState *state)
{
    if (!state)
        return;
    g_free(state->info);
    g_free(state);
}

static int64_t now_seconds(void)
{
    return g_get_real_time() / G_USEC_PER_SEC;
}

/* Not worth an error: the mark only orders what gc drops first. */
static void note_use(Store *store, Database *db, int64_t used, const char *sql, const char *types, const void *key)
{
    if (!(store->flags & STORE_OPEN_READONLY) && used + USED_STEP < now_seconds())
        (void)database_run(db, NULL, sql, types, now_seconds(), key);
}

/* The map's blob and every segment of it. */
static bool map_is_there(Store *store, Database *db, const Digest *map, bool *ret, GError **error)
{
    int64_t lacking, known;

    *ret = false;
    if (!blob_file_exists(store, map))
        return true;
    if (!database_int(db, 0, &known, error, "SELECT count(*) FROM map WHERE digest = ?1", "d", map) ||
        !database_int(db, 0, &lacking, error,
                      "SELECT count(*) FROM map_segment WHERE map = ?1 AND segment NOT IN (SELECT digest FROM segment)"
                      " AND segment NOT IN (SELECT segment FROM moved)", "d", map))
        return false;
    *ret = known > 0 && lacking == 0;
    return true;
}

static bool all_there(Store *store, Database *db, const Digest *blob, const Digest *map, const Digest *files, bool *ret, GError **error)
{
    *ret = digest_is_none(blob) || blob_file_exists(store, blob);
    if (*ret && !digest_is_none(map) && !map_is_there(store, db, map, ret, error))
        return false;
    return !*ret || digest_is_none(files) || map_is_there(store, db, files, ret, error);
}

bool store_state_put(Store *store, const StoreState *state, GError **error)
{
    int64_t created = state->created ? state->created : now_seconds();
    Database *db;

    if (!store_writable(store, error) || !store_catalog(store, &db, error) || !database_begin(db, false, error))
        return false;
    if (!database_run(db, error, "INSERT OR REPLACE INTO state VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)", "dddddtiii", &state->key,
                      &state->content, &state->map, &state->tree.tree, &state->tree.files, state->info, created, state->expires,
                      now_seconds())) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

static void state_from_row(Query *query, const Digest *key, StoreState *ret)
{
    ret->key = *key;
    query_digest(query, 0, &ret->content);
    query_digest(query, 1, &ret->map);
    query_digest(query, 2, &ret->tree.tree);
    query_digest(query, 3, &ret->tree.files);
    ret->info = g_strdup(query_text(query, 4));
    ret->created = query_int(query, 5);
    ret->expires = query_int(query, 6);
}

bool store_state_get_own(Store *store, const Digest *key, StoreState **ret, GError **error)
{
    g_autoptr(StoreState) state = store_state_new();
    g_autoptr(Query) query = NULL;
    Database *db;
    int64_t used;
    bool there;
    int rc;

    *ret = NULL;
    if (!store_catalog(store, &db, error) ||
        !(query = database_query(db, error, "SELECT content, map, tree, files, info, created, expires, used FROM state WHERE key = ?1", "d", key)))
        return false;
    rc = query_step(query, error);
    if (rc <= 0)
        return rc == 0;
    state_from_row(query, key, state);
    used = query_int(query, 7);
    g_clear_pointer(&query, query_free);
    if (state->expires && state->expires <= now_seconds())
        return true;
    if (!all_there(store, db, &state->tree.tree, &state->map, &state->tree.files, &there, error))
        return false;
    if (!there)
        return true;
    note_use(store, db, used, "UPDATE state SET used = ?1 WHERE key = ?2", "id", key);
    *ret = g_steal_pointer(&state);
    return true;
}

bool store_state_get(Store *store, const Digest *key, StoreState **ret, GError **error)
{
    return store_state_get_own(store, key, ret, error) && (*ret || !store->shared || shared_find_state(store, key, ret, error));
}

bool store_memo_put(Store *store, const char *key, const char *value, const Digest *keeps_blob, const Digest *keeps_map, GError **error)
{
    Database *db;

    if (!store_writable(store, error) || !store_catalog(store, &db, error) || !database_begin(db, false, error))
        return false;
    if (!database_run(db, error, "INSERT OR REPLACE INTO memo VALUES (?1,?2,?3,?4,?5)", "ttddi", key, value, keeps_blob, keeps_map,
                      now_seconds())) {
        database_rollback(db);
        return false;
    }
    if (!database_commit(db, error))
        return false;
    if (store->shared)
        shared_note_memo(store, key);
    return true;
}

bool store_memo_get_own(Store *store, const char *key, char **ret_value, Digest *ret_blob, Digest *ret_map, GError **error)
{
    g_autoptr(Query) query = NULL;
    g_autofree char *value = NULL;
    Digest blob, map;
    Database *db;
    int64_t used;
    bool there;
    int rc;

    *ret_value = NULL;
    if (!store_catalog(store, &db, error) ||
        !(query = database_query(db, error, "SELECT value, blob, map, used FROM memo WHERE key = ?1", "t", key)))
        return false;
    rc = query_step(query, error);
    if (rc <= 0)
        return rc == 0;
    value = g_strdup(query_text(query, 0));
    query_digest(query, 1, &blob);
    query_digest(query, 2, &map);
    used = query_int(query, 3);
    g_clear_pointer(&query, query_free);
    if (!all_there(store, db, &blob, &map, &digest_none, &there, error))
        return false;
    if (!there)
        return true;
    note_use(store, db, used, "UPDATE memo SET used = ?1 WHERE key = ?2", "it", key);
    *ret_value = g_steal_pointer(&value);
    *ret_blob = blob;
    *ret_map = map;
    return true;
}

bool store_memo_get(Store *store, const char *key, char **ret_value, GError **error)
{
    Digest blob, map;

    if (!store_memo_get_own(store, key, ret_value, &blob, &map, error) ||
        (!*ret_value && store->shared && !shared_find_memo(store, key, ret_value, error)))
        return false;
    if (*ret_value && store->shared)
        shared_note_memo(store, key);
    return true;
}

char *memo_prefix_end(const char *prefix)
{
    char *end = g_strdup(*prefix ? prefix : "\x7f"); /* keys are ASCII */

    if (*prefix)
        end[strlen(end) - 1]++;
    return end;
}

bool store_memo_usage(Store *store, const char *prefix, uint64_t *ret_count, uint64_t *ret_bytes, GError **error)
{
    g_autofree char *end = memo_prefix_end(prefix);
    int64_t count, bytes;
    Database *db;

    if (!store_catalog(store, &db, error) ||
        !database_int(db, 0, &count, error, "SELECT count(*) FROM memo WHERE key >= ?1 AND key < ?2", "tt", prefix, end) ||
        !database_int(db, 0, &bytes, error,
                      "SELECT sum(stored) FROM blob WHERE digest IN (SELECT blob FROM memo WHERE key >= ?1 AND key < ?2)", "tt", prefix, end))
        return false;
    *ret_count = (uint64_t)count;
    *ret_bytes = (uint64_t)bytes;
    return true;
}
