/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing maps: a two-level table of block references on top of the parent's runs.
 *
 * A leaf covers 512 blocks (2 MiB) and exists where something was written, so memory follows the data and not
 * the disk's size; a leaf that is zero throughout is one shared leaf. What no leaf says is the parent's.
 * At the commit, when the segments' digests are known, table and parent become runs and the map's blob.
 */
#include "store/map-private.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/store-private.h"
#include "store/writer.h"

#define LEAF_BLOCKS 512u

typedef struct Leaf {
    BlockRef refs[LEAF_BLOCKS];
} Leaf;

struct MapWriter {
    StoreWriter *writer; /* NULL once it is freed */
    Store *store;
    StoreMap *parent;
    SourceBytes *source; /* may be NULL */
    uint64_t size, blocks;
    Leaf **leaves;
    size_t leaf_count;
    uint64_t fresh; /* blocks that nobody had before us */
    bool finished;
    StagedBlob staged;
    MapBody *body; /* from the commit's first step to its last */
    bool committed;
    MapResult result;
};

/* Marks 2 MiB of zeroes; never written to and never freed. */
static Leaf zero_leaf;

static bool map_stage(void *arg, GError **error);
static bool map_place(void *arg, Database *db, int64_t created, GError **error);
static bool map_done(void *arg, GError **error);

static void map_orphaned(void *arg)
{
    ((MapWriter *)arg)->writer = NULL;
}

bool map_writer_new(StoreWriter *writer, uint64_t size, StoreMap *parent, MapWriter **ret, GError **error)
{
    MapWriter *map;
    WriterHook hook = { map_stage, map_place, map_done, map_orphaned, NULL };

    if (size > MAP_MAX_SIZE)
        return fail(error, "a map of %" G_GUINT64_FORMAT " bytes is larger than the store allows", size);
    map = g_new0(MapWriter, 1);
    map->writer = writer;
    map->store = store_writer_store(writer);
    map->parent = parent ? store_map_ref(parent) : NULL;
    map->size = size;
    map->blocks = (size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;
    map->leaf_count = (size_t)((map->blocks + LEAF_BLOCKS - 1) / LEAF_BLOCKS);
    map->leaves = g_new0(Leaf *, MAX(map->leaf_count, 1));
    map->staged.dirfd = -1;
    hook.arg = map;
    store_writer_add_hook(writer, &hook);
    *ret = map;
    return true;
}

void map_writer_free(MapWriter *map)
{
    if (!map)
        return;
    if (map->writer)
        store_writer_drop_hooks(map->writer, map);
    blob_unstage(&map->staged);
    for (size_t i = 0; i < map->leaf_count; i++)
        if (map->leaves[i] != &zero_leaf)
            g_free(map->leaves[i]);
    g_free(map->leaves);
    map_body_free(map->body);
    store_map_unref(map->parent);
    source_bytes_unref(map->source);
    g_free(map);
}

/* --- the table --- */

static Leaf *leaf_for_write(MapWriter *map, uint64_t block)
{
    Leaf **slot = &map->leaves[block / LEAF_BLOCKS];
    uint32_t fill = *slot == &zero_leaf ? REF_ZERO : REF_PARENT;

    if (*slot && *slot != &zero_leaf)
        return *slot;
    *slot = g_new(Leaf, 1);
    for (unsigned i = 0; i < LEAF_BLOCKS; i++)
        (*slot)->refs[i] = (BlockRef){ fill, 0 };
    return *slot;
}

static void set_ref(MapWriter *map, uint64_t block, BlockRef ref)
{
    if (ref.segment == REF_ZERO && map->leaves[block / LEAF_BLOCKS] == &zero_leaf)
        return;
    leaf_for_write(map, block)->refs[block % LEAF_BLOCKS] = ref;
}

static BlockRef get_ref(const MapWriter *map, uint64_t block)
{
    const Leaf *leaf = map->leaves[block / LEAF_BLOCKS];

    if (!leaf)
        return (BlockRef){ REF_PARENT, 0 };
    return leaf == &zero_leaf ? (BlockRef){ REF_ZERO, 0 } : leaf->refs[block % LEAF_BLOCKS];
}

static bool check_range(const MapWriter *map, uint64_t offset, uint64_t len, GError **error)
{
    g_assert(!map->finished && map->writer);
    if (offset > map->size || len > map->size - offset)
        return fail(error, "a write of %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT " goes beyond the end of a map of %" G_GUINT64_FORMAT,
                    len, offset, map->size);
    if (offset % STORE_BLOCK_SIZE || (len % STORE_BLOCK_SIZE && offset + len != map->size))
        return fail(error, "a write of %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT " is not on the 4096-byte grid", len, offset);
    return true;
}

/* --- writing --- */

uint64_t map_writer_size(const MapWriter *map)
{
    return map->size;
}

StoreMap *map_writer_parent(const MapWriter *map)
{
    return map->parent;
}

void map_writer_set_source(MapWriter *map, SourceBytes *bytes)
{
    source_bytes_unref(map->source);
    map->source = source_bytes_ref(bytes);
}

SourceBytes *map_writer_source(const MapWriter *map)
{
    return map->source;
}

/* Blocks that are the parent's in the same place are left to it: to the writer they look like zeroes. */
static void leave_to_parent(const Digest *hashes, const bool *same, unsigned count, Digest *ret)
{
    for (unsigned i = 0; i < count; i++)
        ret[i] = same[i] ? digest_none : hashes[i];
}

bool map_writer_put(MapWriter *map, uint64_t block, const uint8_t *data, const Digest *hashes, const bool *same, unsigned count,
                    GError **error)
{
    BlockRef refs[FRAME_MAX_BLOCKS];
    Digest others[FRAME_MAX_BLOCKS];
    uint64_t before = store_writer_fresh_blocks(map->writer);

    g_assert(!map->finished && count <= FRAME_MAX_BLOCKS && block + count <= map->blocks);
    if (same)
        leave_to_parent(hashes, same, count, others);
    if (!store_writer_put_hashed(map->writer, data, same ? others : hashes, count, refs, error))
        return false;
    map->fresh += store_writer_fresh_blocks(map->writer) - before;
    for (unsigned i = 0; i < count; i++)
        set_ref(map, block + i, same && same[i] ? (BlockRef){ REF_PARENT, 0 } : refs[i]);
    return true;
}

/* At most to the next multiple of 32 blocks, so that whole windows stay whole. */
static bool write_window(MapWriter *map, uint64_t block, const uint8_t *data, unsigned count, GError **error)
{
    Digest hashes[FRAME_MAX_BLOCKS];

    store_hash_blocks(data, count, hashes);
    return map_writer_put(map, block, data, hashes, NULL, count, error);
}

static bool write_tail(MapWriter *map, uint64_t block, const uint8_t *data, size_t len, GError **error)
{
    uint8_t padded[STORE_BLOCK_SIZE] = { 0 };

    memcpy(padded, data, len);
    return write_window(map, block, padded, 1, error);
}

bool map_writer_write(MapWriter *map, uint64_t offset, const void *data, size_t len, GError **error)
{
    const uint8_t *from = data;
    uint64_t block = offset / STORE_BLOCK_SIZE;

    if (!check_range(map, offset, len, error))
        return false;
    while (len >= STORE_BLOCK_SIZE) {
        unsigned count = (unsigned)MIN(len / STORE_BLOCK_SIZE, FRAME_MAX_BLOCKS - block % FRAME_MAX_BLOCKS);

        if (!write_window(map, block, from, count, error))
            return false;
        block += count;
        from += (size_t)count * STORE_BLOCK_SIZE;
        len -= (size_t)count * STORE_BLOCK_SIZE;
    }
    return len == 0 || write_tail(map, block, from, len, error);
}

static void zero_blocks(MapWriter *map, uint64_t block, uint64_t end)
{
    while (block < end) {
        Leaf **slot = &map->leaves[block / LEAF_BLOCKS];

        if (block % LEAF_BLOCKS == 0 && (end - block >= LEAF_BLOCKS || end == map->blocks)) {
            if (*slot != &zero_leaf)
                g_free(*slot);
            /* Without a parent "nothing said" is zero already. */
            *slot = map->parent ? &zero_leaf : NULL;
            block += LEAF_BLOCKS;
        } else {
            set_ref(map, block++, (BlockRef){ REF_ZERO, 0 });
        }
    }
}

bool map_writer_zero(MapWriter *map, uint64_t offset, uint64_t len, GError **error)
{
    if (!check_range(map, offset, len, error))
        return false;
    zero_blocks(map, offset / STORE_BLOCK_SIZE, (offset + len + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE);
    return true;
}

/* --- taking over from another map --- */

static bool copy_run(MapWriter *map, uint64_t block, StoreMap *from, uint64_t from_block, uint64_t count, GError **error)
{
    g_autofree uint8_t *buf = g_malloc(FRAME_MAX_BYTES);

    while (count > 0) {
        unsigned part = (unsigned)MIN(count, FRAME_MAX_BLOCKS - block % FRAME_MAX_BLOCKS);
        size_t bytes = (size_t)part * STORE_BLOCK_SIZE;
        uint64_t at = from_block * STORE_BLOCK_SIZE, rest = store_map_size(from) - at;

        memset(buf, 0, bytes);
        if (!store_map_pread(from, buf, (size_t)MIN(bytes, rest), at, error) || !write_window(map, block, buf, part, error))
            return false;
        block += part;
        from_block += part;
        count -= part;
    }
    return true;
}

static bool ref_run(MapWriter *map, uint64_t block, StoreMap *from, const MapRun *run, uint32_t skip, uint64_t count, GError **error)
{
    Segment *segment;
    BlockRef ref;

    if (!store_map_segment(from, run->segment, &segment, error))
        return false;
    if (!store_writer_may_refer(map->writer, segment))
        return copy_run(map, block, from, run->block + skip, count, error);
    ref.segment = store_writer_foreign(map->writer, segment);
    for (uint64_t i = 0; i < count; i++) {
        ref.position = run->position + skip + (uint32_t)i;
        set_ref(map, block + i, ref);
    }
    return true;
}

bool map_writer_ref(MapWriter *map, uint64_t offset, StoreMap *from, uint64_t from_offset, uint64_t len, GError **error)
{
    const MapBody *body = store_map_body(from);
    uint64_t from_blocks = (body->size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;
    uint64_t first = from_offset / STORE_BLOCK_SIZE, count = (len + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;
    uint64_t block = offset / STORE_BLOCK_SIZE;

    if (!check_range(map, offset, len, error))
        return false;
    if (from_offset % STORE_BLOCK_SIZE || first > from_blocks || count > from_blocks - first)
        return fail(error, "blocks at %" G_GUINT64_FORMAT " to take over are beyond the end of a map or off the grid", from_offset);
    zero_blocks(map, block, block + count);
    for (guint i = map_body_find(body, first); i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        uint64_t low = MAX(run->block, first), high = MIN(run->block + run->count, first + count);

        if (run->block >= first + count)
            break;
        if (!ref_run(map, block + (low - first), from, run, (uint32_t)(low - run->block), high - low, error))
            return false;
    }
    return true;
}

/* --- finishing and the commit --- */

/* Blocks of the parent's run that are still the parent's, in pieces: called for each piece. */
typedef bool PieceFn(MapWriter *map, const MapRun *run, uint64_t from, uint64_t to, void *arg, GError **error);

static bool each_kept_piece(MapWriter *map, const MapRun *run, PieceFn *fn, void *arg, GError **error)
{
    uint64_t end = MIN(run->block + run->count, map->blocks), from = run->block;

    while (from < end) {
        uint64_t to = from;

        while (to < end && get_ref(map, to).segment == REF_PARENT)
            to += map->leaves[to / LEAF_BLOCKS] ? 1 : MIN(LEAF_BLOCKS - to % LEAF_BLOCKS, end - to);
        if (to > from && !fn(map, run, from, to, arg, error))
            return false;
        from = MAX(to, from + 1);
    }
    return true;
}

static bool copy_piece(MapWriter *map, const MapRun *run, uint64_t from, uint64_t to, void *arg, GError **error)
{
    return copy_run(map, from, map->parent, from, to - from, error);
}

/* A public map may keep nothing of a private segment: what remains of the parent there is put again. */
static bool copy_forbidden(MapWriter *map, GError **error)
{
    const MapBody *body = store_map_body(map->parent);

    for (guint i = 0; i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        Segment *segment;

        if (!store_map_segment(map->parent, run->segment, &segment, error))
            return false;
        if (!store_writer_may_refer(map->writer, segment) && !each_kept_piece(map, run, copy_piece, NULL, error))
            return false;
    }
    return true;
}

/* A parent may have had bytes behind the new, smaller size in its last block. */
static bool trim_last_block(MapWriter *map, GError **error)
{
    uint64_t last = map->blocks - 1;
    size_t keep = map->size % STORE_BLOCK_SIZE;
    uint8_t bytes[STORE_BLOCK_SIZE];

    if (!keep || map->size >= store_map_size(map->parent) || get_ref(map, last).segment != REF_PARENT)
        return true;
    return store_map_pread(map->parent, bytes, keep, last * STORE_BLOCK_SIZE, error) && write_tail(map, last, bytes, keep, error);
}

bool map_writer_finish(MapWriter *map, GError **error)
{
    g_assert(map->writer && !map->finished);
    if (map->parent && (!trim_last_block(map, error) || !copy_forbidden(map, error)))
        return false;
    map->finished = true;
    return true;
}

typedef struct Building {
    MapBody *body;
    GHashTable *table; /* Digest* -> number + 1 */
    Digest last;       /* most blocks come from the segment of the one before */
    uint32_t last_number;
} Building;

static uint32_t number_of(Building *b, const Digest *segment)
{
    gpointer found;
    Digest *key;

    if (b->body->segments->len && digest_equal(segment, &b->last))
        return b->last_number;
    found = g_hash_table_lookup(b->table, segment);
    if (!found) {
        g_array_append_val(b->body->segments, *segment);
        key = g_memdup2(segment, sizeof(*segment));
        found = GUINT_TO_POINTER(b->body->segments->len);
        g_hash_table_insert(b->table, key, found);
    }
    b->last = *segment;
    b->last_number = GPOINTER_TO_UINT(found) - 1;
    return b->last_number;
}

static void add_parent_block(MapWriter *map, Building *b, uint64_t block)
{
    const MapBody *body = map->parent ? store_map_body(map->parent) : NULL;
    guint i = body ? map_body_find(body, block) : 0;
    const MapRun *run = body && i < body->runs->len ? &g_array_index(body->runs, MapRun, i) : NULL;

    if (run && run->block <= block)
        map_body_append(b->body, block, number_of(b, &g_array_index(body->segments, Digest, run->segment)),
                        run->position + (uint32_t)(block - run->block));
}

static void add_leaf(MapWriter *map, Building *b, size_t index)
{
    const Leaf *leaf = map->leaves[index];
    uint64_t first = (uint64_t)index * LEAF_BLOCKS, end = MIN(first + LEAF_BLOCKS, map->blocks);

    for (uint64_t block = first; leaf != &zero_leaf && block < end; block++) {
        const BlockRef *ref = &leaf->refs[block - first];
        Digest segment;
        uint32_t position;

        if (ref->segment == REF_PARENT)
            add_parent_block(map, b, block);
        if (ref->segment >= REF_PARENT)
            continue;
        store_writer_resolve(map->writer, ref, &segment, &position);
        map_body_append(b->body, block, number_of(b, &segment), position);
    }
}

/* Leaves that do not exist: the parent's runs as they are. */
static void add_untouched(MapWriter *map, Building *b, uint64_t from, uint64_t to)
{
    const MapBody *body = store_map_body(map->parent);

    for (guint i = map_body_find(body, from); i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        uint32_t number;

        if (run->block >= to)
            return;
        number = number_of(b, &g_array_index(body->segments, Digest, run->segment));
        for (uint64_t block = MAX(run->block, from); block < MIN(run->block + run->count, to); block++)
            map_body_append(b->body, block, number, run->position + (uint32_t)(block - run->block));
    }
}

static MapBody *build_body(MapWriter *map)
{
    Building b = { .body = map_body_new(map->size, store_writer_class(map->writer)) };

    b.table = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    for (size_t i = 0; i < map->leaf_count; i++) {
        if (map->leaves[i])
            add_leaf(map, &b, i);
        else if (map->parent)
            add_untouched(map, &b, (uint64_t)i * LEAF_BLOCKS, MIN((uint64_t)(i + 1) * LEAF_BLOCKS, map->blocks));
    }
    g_hash_table_destroy(b.table);
    return b.body;
}

static uint64_t count_data(const MapBody *body)
{
    uint64_t blocks = 0;

    for (guint i = 0; i < body->runs->len; i++)
        blocks += g_array_index(body->runs, MapRun, i).count;
    return blocks * STORE_BLOCK_SIZE;
}

static bool map_stage(void *arg, GError **error)
{
    MapWriter *map = arg;
    g_autoptr(GByteArray) bytes = NULL;

    if (!map->finished)
        return true; /* given up by its owner: it has no part in the commit */
    map->body = build_body(map);
    if (map->body->segments->len > MAP_MAX_SEGMENTS)
        return fail(error, "store '%s': a map would refer to %u segments, more than %d", map->store->path, map->body->segments->len,
                    MAP_MAX_SEGMENTS);
    bytes = map_body_encode(map->body);
    return blob_stage(map->store, bytes->data, bytes->len, &map->staged, error);
}

static bool map_place(void *arg, Database *db, int64_t created, GError **error)
{
    MapWriter *map = arg;
    const MapBody *body = map->body;

    if (!body)
        return true;
    return blob_place(map->store, db, &map->staged, created, error) &&
           catalog_add_map(db, &map->staged.digest, body->class, body->size, count_data(body), (const Digest *)body->segments->data,
                           body->segments->len, error);
}

static bool map_done(void *arg, GError **error)
{
    MapWriter *map = arg;
    g_autoptr(StoreMap) reader = NULL;

    if (!map->body)
        return true;
    map->result.digest = map->staged.digest;
    map->result.size = map->size;
    map->result.data_bytes = count_data(map->body);
    map->result.new_bytes = map->fresh * STORE_BLOCK_SIZE;
    g_clear_pointer(&map->body, map_body_free);
    if (!store_map_open(map->store, &map->result.digest, &reader, error) || !store_map_content(reader, &map->result.content, error))
        return false;
    map->committed = true;
    return true;
}

void map_writer_result(const MapWriter *map, MapResult *ret)
{
    g_assert(map->committed);
    *ret = map->result;
}
