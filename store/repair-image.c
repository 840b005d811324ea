/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Positions of a lost segment -> blocks of another store's maps, by images that both stores have.
 */
#include "store/repair-image.h"

#include "base/error.h"
#include "store/image.h"
#include "store/map-private.h"
#include "store/store-private.h"

#define CONFIG_MAX (4u << 20)

/* Positions [position, position + count) are the blocks [block, ...) of @map. */
typedef struct Piece {
    uint32_t position, count;
    StoreMap *map; /* of the other store */
    uint64_t block;
} Piece;

struct ImageBlocks {
    Store *store, *from;
    Digest segment;
    GArray *pieces; /* of Piece; few enough to be looked through */
};

static void piece_clear(gpointer piece)
{
    store_map_unref(((Piece *)piece)->map);
}

void image_blocks_free(ImageBlocks *b)
{
    if (!b)
        return;
    g_array_unref(b->pieces);
    g_free(b);
}

/* Is @map the disk whose config is @id? */
static bool is_content_of(ImageBlocks *b, const Digest *id, StoreMap *map)
{
    g_autoptr(json_t) config = NULL;
    const char *text;
    Digest wanted, have;

    if (!store_image_config(b->from, id, CONFIG_MAX, NULL, &config, NULL))
        return false;
    text = json_string_value(json_object_get(config, "content"));
    return text && digest_parse(text, &wanted) && store_map_content(map, &have, NULL) && digest_equal(&wanted, &have);
}

static bool is_lost(const ImageBlocks *b, const MapBody *body, const MapRun *run)
{
    return digest_equal(&g_array_index(body->segments, Digest, run->segment), &b->segment);
}

static void take_runs(ImageBlocks *b, const MapBody *ours, StoreMap *theirs)
{
    for (guint i = 0; i < ours->runs->len; i++) {
        const MapRun *run = &g_array_index(ours->runs, MapRun, i);
        Piece piece = {run->position, run->count, theirs, run->block};

        if (!is_lost(b, ours, run))
            continue;
        store_map_ref(theirs);
        g_array_append_val(b->pieces, piece);
    }
}

/* Our map and the other store's of one image or tree. */
static void take_pair(ImageBlocks *b, const Digest *ours, const Digest *theirs, const Digest *id)
{
    g_autoptr(StoreMap) own = NULL, other = NULL;

    if (digest_is_none(theirs) || !store_map_open(b->store, ours, &own, NULL) || !store_map_open(b->from, theirs, &other, NULL) ||
        store_map_size(own) != store_map_size(other) || (id && !is_content_of(b, id, other)))
        return;
    take_runs(b, store_map_body(own), other);
}

/* The other store's map for what our image or tree @key has; @sql gives it. */
static bool find_pair(ImageBlocks *b, const char *sql, const Digest *key, const Digest *ours, bool disk, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;
    Digest theirs = digest_none;
    int rc;

    if (!store_catalog(b->from, &db, error) || !(query = database_query(db, error, sql, "d", key)))
        return false;
    rc = query_step(query, error);
    if (rc > 0)
        query_digest(query, 0, &theirs);
    if (rc >= 0)
        take_pair(b, ours, &theirs, disk ? key : NULL);
    return rc >= 0;
}

static bool find_pairs(ImageBlocks *b, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    if (!store_catalog(b->store, &db, error) ||
        !(query = database_query(db, error,
                                 "SELECT DISTINCT i.id, i.tree, r.digest, r.role = 'map' FROM map_segment m JOIN reference r ON r.digest = m.map"
                                 " JOIN image i ON i.number = r.image WHERE m.segment = ?1 AND r.role IN ('map', 'files')", "d", &b->segment)))
        return false;
    while ((rc = query_step(query, error)) > 0) {
        bool disk = query_int(query, 3) != 0;
        Digest key, ours;

        query_digest(query, disk ? 0 : 1, &key);
        query_digest(query, 2, &ours);
        if (!find_pair(b, disk ? "SELECT map FROM image WHERE id = ?1 AND bytes_gone = 0 ORDER BY number DESC"
                               : "SELECT files FROM image WHERE tree = ?1 AND bytes_gone = 0 ORDER BY number DESC",
                       &key, &ours, disk, error))
            return false;
    }
    return rc == 0;
}

bool image_blocks_open(Store *store, Store *from, const Digest *segment, ImageBlocks **ret, GError **error)
{
    g_autoptr(ImageBlocks) b = g_new0(ImageBlocks, 1);

    b->store = store;
    b->from = from;
    b->segment = *segment;
    b->pieces = g_array_new(FALSE, FALSE, sizeof(Piece));
    g_array_set_clear_func(b->pieces, piece_clear);
    if (!find_pairs(b, error))
        return false;
    *ret = g_steal_pointer(&b);
    return true;
}

uint32_t image_blocks_end(const ImageBlocks *b)
{
    uint32_t end = 0;

    for (guint i = 0; i < b->pieces->len; i++) {
        const Piece *piece = &g_array_index(b->pieces, Piece, i);

        end = MAX(end, piece->position + piece->count);
    }
    return end;
}

static bool read_piece(const Piece *piece, uint32_t position, uint8_t *to)
{
    uint64_t offset = (piece->block + (position - piece->position)) * STORE_BLOCK_SIZE, size = store_map_size(piece->map), end;
    size_t part = (size_t)MIN(STORE_BLOCK_SIZE, size - offset);
    bool zero;

    store_map_extent(piece->map, offset, &end, &zero);
    memset(to, 0, STORE_BLOCK_SIZE);
    return !zero && store_map_pread(piece->map, to, part, offset, NULL); /* where the other has a hole it is another disk */
}

bool image_blocks_read(const ImageBlocks *b, uint32_t position, uint8_t to[STORE_BLOCK_SIZE])
{
    for (guint i = 0; i < b->pieces->len; i++) {
        const Piece *piece = &g_array_index(b->pieces, Piece, i);

        if (position >= piece->position && position - piece->position < piece->count && read_piece(piece, position, to))
            return true;
    }
    return false;
}
