/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats: how much there is and how much room it takes.
 */
#include "store/upkeep.h"

#include "store/catalog.h"
#include "store/layer-cache.h"
#include "store/store-private.h"

#include <sys/stat.h>

static int64_t file_bytes(Store *store, const char *name)
{
    struct stat st;

    return fstatat(store->dirfd, name, &st, 0) == 0 ? (int64_t)st.st_size : 0;
}

static int64_t database_bytes(Store *store)
{
    static const char *const names[] = { "state.db", "state.db-wal", "catalog.db", "catalog.db-wal", "index/blocks" };
    int64_t sum = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        sum += file_bytes(store, names[i]);
    return sum;
}

typedef struct Figure {
    const char *key, *sql;
} Figure;

static bool add_figures(json_t *to, Database *db, const Figure *figures, size_t count, GError **error)
{
    for (size_t i = 0; i < count; i++) {
        int64_t value;

        if (!database_int(db, 0, &value, error, figures[i].sql, ""))
            return false;
        json_object_set_new(to, figures[i].key, json_integer(value));
    }
    return true;
}

static bool add_bytes(Store *store, Database *db, json_t *to, GError **error)
{
    static const Figure figures[] = {
        { "segments", "SELECT sum(size) FROM segment" },
        { "private_segments", "SELECT sum(size) FROM segment WHERE class = 0" },
        { "blobs", "SELECT sum(stored) FROM blob" },
    };
    json_t *bytes = json_object();
    int64_t databases = database_bytes(store), layers = (int64_t)layer_cache_bytes(store);

    json_object_set_new(to, "bytes", bytes);
    if (!add_figures(bytes, db, figures, G_N_ELEMENTS(figures), error))
        return false;
    json_object_set_new(bytes, "databases", json_integer(databases));
    json_object_set_new(bytes, "layer_cache", json_integer(layers));
    json_object_set_new(bytes, "total",
                        json_integer(databases + layers + json_integer_value(json_object_get(bytes, "segments")) +
                                     json_integer_value(json_object_get(bytes, "blobs"))));
    return true;
}

bool store_stats(Store *store, json_t **ret, GError **error)
{
    static const Figure figures[] = {
        { "segments", "SELECT count(*) FROM segment" },
        { "frames", "SELECT sum(frames) FROM segment" },
        { "blocks", "SELECT sum(blocks) FROM segment" },
        { "blobs", "SELECT count(*) FROM blob" },
        { "maps", "SELECT count(*) FROM map" },
        { "images", "SELECT count(DISTINCT id) FROM image WHERE bytes_gone = 0" },
        { "records_without_bytes", "SELECT count(*) FROM image WHERE bytes_gone != 0" },
        { "sets", "SELECT count(*) FROM bake" },
        { "logical_bytes", "SELECT sum(size) FROM image WHERE number IN (SELECT max(number) FROM image WHERE bytes_gone = 0 GROUP BY id)" },
        { "states", "SELECT count(*) FROM state" },
        { "memos", "SELECT count(*) FROM memo" },
        { "unreachable_segments", "SELECT count(*) FROM segment WHERE dead != 0" },
    };
    g_autoptr(json_t) stats = json_object();
    Database *db;

    if (!store_catalog(store, &db, error))
        return false;
    json_object_set_new(stats, "path", json_string(store->path));
    json_object_set_new(stats, "format", json_integer(1));
    if (!add_bytes(store, db, stats, error) || !add_figures(stats, db, figures, G_N_ELEMENTS(figures), error))
        return false;
    *ret = g_steal_pointer(&stats);
    return true;
}
