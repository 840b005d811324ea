/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading maps: runs in memory, blocks through the store's frame cache. A patched map has no runs of its own: its patch answers, and
 * asks the map below.
 */
#include "store/map-private.h"

#include "base/error.h"
#include "store/bytes.h"
#include "store/map-patch.h"
#include "store/shared-cache.h"
#include "store/shared-private.h"
#include "store/store-private.h"

struct StoreMap {
    gint refs;
    Store *store;
    MapBody *body;
    Segment **segments; /* opened when first needed; set atomically, all threads find the same */
    MapPatch *patch;    /* a patched map has this and @base, and no body */
    StoreMap *base;
    SourceBytes *source; /* may be NULL */
    Digest digest;
    gint promised; /* its blocks are fetched when the first is needed */
};

bool store_map_open(Store *store, const Digest *digest, StoreMap **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    MapBody *body;
    char hex[DIGEST_HEX_SIZE];
    StoreMap *map;
    bool promised;

    if (store->shared && !shared_map_bytes(store, digest, &bytes, error))
        return false;
    promised = bytes != NULL;
    if (!bytes && !store_blob_get(store, digest, MAP_MAX_BLOB, &bytes, error))
        return fail_prefix(error, "map %.12s", digest_to_hex(digest, hex));
    if (!map_body_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &body, error))
        return fail_prefix(error, "store '%s', blob %s", store->path, digest_to_hex(digest, hex));
    map = g_new0(StoreMap, 1);
    map->refs = 1;
    map->store = store;
    map->body = body;
    map->digest = *digest;
    map->promised = promised;
    map->segments = g_new0(Segment *, MAX(body->segments->len, 1));
    *ret = map;
    return true;
}

StoreMap *store_map_patched(StoreMap *base, MapPatch *patch)
{
    StoreMap *map = g_new0(StoreMap, 1);

    map->refs = 1;
    map->store = base->store;
    map->base = store_map_ref(base);
    map->patch = patch;
    return map;
}

StoreMap *store_map_ref(StoreMap *map)
{
    g_atomic_int_inc(&map->refs);
    return map;
}

void store_map_unref(StoreMap *map)
{
    if (!map || !g_atomic_int_dec_and_test(&map->refs))
        return;
    map_body_free(map->body);
    map_patch_free(map->patch);
    store_map_unref(map->base);
    source_bytes_unref(map->source);
    g_free(map->segments);
    g_free(map);
}

void store_map_set_source(StoreMap *map, SourceBytes *bytes)
{
    source_bytes_unref(map->source);
    map->source = source_bytes_ref(bytes);
}

uint64_t store_map_size(const StoreMap *map)
{
    return map->patch ? map_patch_size(map->patch) : map->body->size;
}

const MapBody *store_map_body(const StoreMap *map)
{
    g_assert(map->body);
    return map->body;
}

bool store_map_segment(StoreMap *map, uint32_t index, Segment **ret, GError **error)
{
    Segment *segment = g_atomic_pointer_get(&map->segments[index]);

    if (!segment) {
        if (g_atomic_int_get(&map->promised)) {
            if (!store_provide_map(map->store, &map->digest, error))
                return false;
            g_atomic_int_set(&map->promised, 0);
        }
        if (!segment_get(map->store, &g_array_index(map->body->segments, Digest, index), &segment, error))
            return false;
        if (map->body->class == BLOCK_PUBLIC && segment_class(segment) != BLOCK_PUBLIC)
            return fail(error, "store '%s': a public map refers to a private segment; run kiln fsck", map->store->path);
        g_atomic_pointer_set(&map->segments[index], segment);
    }
    *ret = segment;
    return true;
}

typedef bool ReadFrameFn(Segment *segment, uint32_t frame, uint32_t from, uint32_t size, void *to, GError **error);

/* Reads bytes [skip, skip+size) of what the run holds; a run may go on over several full frames. */
static bool read_run(StoreMap *map, const MapRun *run, uint64_t skip, uint8_t *to, size_t size, ReadFrameFn *read, GError **error)
{
    Segment *segment;

    if (!store_map_segment(map, run->segment, &segment, error))
        return false;
    while (size > 0) {
        uint32_t position = run->position + (uint32_t)(skip / STORE_BLOCK_SIZE);
        uint32_t from = position_block(position) * STORE_BLOCK_SIZE + (uint32_t)(skip % STORE_BLOCK_SIZE);
        uint32_t part = (uint32_t)MIN(size, (size_t)(FRAME_MAX_BYTES - from));

        if (!read(segment, position_frame(position), from, part, to, error))
            return false;
        to += part;
        skip += part;
        size -= part;
    }
    return true;
}

static bool pread_by(StoreMap *map, void *buf, size_t size, uint64_t offset, ReadFrameFn *read, GError **error)
{
    const MapBody *body = map->body;
    uint8_t *to = buf;

    if (map->patch)
        return map_patch_pread(map->patch, map->base, buf, size, offset, error);
    if (offset > body->size || size > body->size - offset)
        return fail(error, "a read of %zu bytes at %" G_GUINT64_FORMAT " goes beyond the end of a map of %" G_GUINT64_FORMAT, size,
                    offset, body->size);
    for (guint i = map_body_find(body, offset / STORE_BLOCK_SIZE); size > 0; i++) {
        const MapRun *run = i < body->runs->len ? &g_array_index(body->runs, MapRun, i) : NULL;
        uint64_t start = run ? run->block * STORE_BLOCK_SIZE : body->size;
        uint64_t end = run ? start + (uint64_t)run->count * STORE_BLOCK_SIZE : body->size;
        size_t part;

        if (offset < start) {
            part = (size_t)MIN(size, start - offset);
            memset(to, 0, part);
            to += part;
            offset += part;
            size -= part;
        }
        if (size == 0)
            break;
        part = (size_t)MIN(size, end - offset);
        if (!(map->source && source_bytes_read(map->source, to, part, offset)) && !read_run(map, run, offset - start, to, part, read, error))
            return false;
        to += part;
        offset += part;
        size -= part;
    }
    return true;
}

bool store_map_pread(StoreMap *map, void *buf, size_t size, uint64_t offset, GError **error)
{
    return pread_by(map, buf, size, offset, segment_read, error);
}

bool store_map_pread_once(StoreMap *map, void *buf, size_t size, uint64_t offset, GError **error)
{
    return pread_by(map, buf, size, offset, segment_read_once, error);
}

/* The 32 blocks of a frame that gc moved: are they one frame again? */
static bool moved_whole(Segment *moved, uint32_t position, Segment **ret, uint32_t *ret_position)
{
    if (!segment_locate(moved, position, ret, ret_position, NULL))
        return false;
    for (uint32_t i = 1; i < FRAME_MAX_BLOCKS; i++) {
        Segment *segment;
        uint32_t at;

        if (!segment_locate(moved, position + i, &segment, &at, NULL) || segment != *ret || at != *ret_position + i)
            return false;
    }
    return position_block(*ret_position) == 0;
}

bool store_map_whole_frame(StoreMap *map, uint64_t block, Segment **ret_segment, uint32_t *ret_frame)
{
    const MapBody *body = map->body;
    const MapRun *run;
    uint32_t position;
    guint i;

    if (!body)
        return false;
    i = map_body_find(body, block);
    run = i < body->runs->len ? &g_array_index(body->runs, MapRun, i) : NULL;
    if (!run || run->block > block || run->block + run->count < block + FRAME_MAX_BLOCKS)
        return false;
    position = run->position + (uint32_t)(block - run->block);
    if (position_block(position) != 0 || !store_map_segment(map, run->segment, ret_segment, NULL) ||
        (segment_is_moved(*ret_segment) && !moved_whole(*ret_segment, position, ret_segment, &position)))
        return false;
    *ret_frame = position_frame(position);
    return *ret_frame < segment_frames(*ret_segment) && segment_entry(*ret_segment, *ret_frame)->blocks == FRAME_MAX_BLOCKS;
}

void store_map_extent(const StoreMap *map, uint64_t offset, uint64_t *ret_end, bool *ret_zero)
{
    const MapBody *body = map->body;
    const MapRun *run;
    uint64_t start;
    guint i;

    if (map->patch) {
        map_patch_extent(map->patch, map->base, offset, ret_end, ret_zero);
        return;
    }
    i = map_body_find(body, offset / STORE_BLOCK_SIZE);
    run = i < body->runs->len ? &g_array_index(body->runs, MapRun, i) : NULL;
    start = run ? run->block * STORE_BLOCK_SIZE : body->size;
    *ret_zero = offset < start;
    *ret_end = MIN(body->size, *ret_zero ? start : start + (uint64_t)run->count * STORE_BLOCK_SIZE);
}

uint64_t store_map_data_size(const StoreMap *map)
{
    uint64_t size = store_map_size(map), total = 0, end;
    bool zero;

    for (uint64_t at = 0; at < size; at = end) {
        store_map_extent(map, at, &end, &zero);
        end = MIN(end, size);
        total += zero ? 0 : end - at;
    }
    return total;
}

/* Hashes of @count blocks of a run from its @skip-th on. */
static bool run_hashes(StoreMap *map, const MapRun *run, uint32_t skip, size_t count, Digest *ret, GError **error)
{
    Segment *segment;

    if (!store_map_segment(map, run->segment, &segment, error))
        return false;
    while (count > 0) {
        Digest hashes[FRAME_MAX_BLOCKS];
        uint32_t position = run->position + skip;
        unsigned first = position_block(position), blocks;
        size_t part = MIN(count, (size_t)(FRAME_MAX_BLOCKS - first));

        if (!segment_hashes(segment, position_frame(position), hashes, &blocks, error))
            return false;
        if (first + part > blocks)
            return fail(error, "store '%s': a map names blocks that frame %u does not have; run kiln fsck", map->store->path,
                        position_frame(position));
        memcpy(ret, hashes + first, part * sizeof(Digest));
        ret += part;
        skip += (uint32_t)part;
        count -= part;
    }
    return true;
}

bool store_map_hashes(StoreMap *map, uint64_t first, size_t count, Digest *ret, GError **error)
{
    const MapBody *body = map->body;
    uint64_t blocks = (store_map_size(map) + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;

    if (map->patch)
        return map_patch_hashes(map->patch, map->base, first, count, ret, error);
    if (first > blocks || count > blocks - first)
        return fail(error, "block %" G_GUINT64_FORMAT " is beyond the end of a map", first + count);
    memset(ret, 0, count * sizeof(Digest));
    for (guint i = map_body_find(body, first); i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        uint64_t from = MAX(run->block, first), to = MIN(run->block + run->count, first + count);

        if (run->block >= first + count)
            break;
        if (!run_hashes(map, run, (uint32_t)(from - run->block), (size_t)(to - from), ret + (from - first), error))
            return false;
    }
    return true;
}

bool store_map_hashes_beyond(StoreMap *map, uint64_t first, size_t count, Digest *ret, GError **error)
{
    uint64_t blocks = (store_map_size(map) + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;
    size_t have = first >= blocks ? 0 : (size_t)MIN((uint64_t)count, blocks - first);

    memset(ret + have, 0, (count - have) * sizeof *ret);
    return have == 0 || store_map_hashes(map, first, have, ret, error);
}

#define CONTENT_STEP 1024

static bool hash_run(StoreMap *map, const MapRun *run, DigestStream *stream, GError **error)
{
    g_autofree Digest *hashes = g_new(Digest, CONTENT_STEP);
    g_autofree uint8_t *text = g_malloc(CONTENT_STEP * (8 + DIGEST_SIZE));

    for (uint32_t done = 0; done < run->count;) {
        uint32_t part = MIN(run->count - done, CONTENT_STEP);

        if (!run_hashes(map, run, done, part, hashes, error))
            return false;
        for (uint32_t i = 0; i < part; i++) {
            put_le64(text + (size_t)i * (8 + DIGEST_SIZE), run->block + done + i);
            memcpy(text + (size_t)i * (8 + DIGEST_SIZE) + 8, hashes[i].bytes, DIGEST_SIZE);
        }
        digest_stream_update(stream, text, (size_t)part * (8 + DIGEST_SIZE));
        done += part;
    }
    return true;
}

bool store_map_content(StoreMap *map, Digest *ret, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    const MapBody *body = store_map_body(map);

    for (guint i = 0; i < body->runs->len; i++)
        if (!hash_run(map, &g_array_index(body->runs, MapRun, i), stream, error))
            return false;
    digest_stream_final(stream, ret);
    return true;
}
