/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps as runs and as bytes (drawing in format.h). No files here.
 */
#include "store/map-private.h"

#include "base/error.h"
#include "store/bytes.h"
#include "store/format.h"

MapBody *map_body_new(uint64_t size, BlockClass class)
{
    MapBody *body = g_new0(MapBody, 1);

    body->size = size;
    body->class = class;
    body->segments = g_array_new(FALSE, FALSE, sizeof(Digest));
    body->runs = g_array_new(FALSE, FALSE, sizeof(MapRun));
    return body;
}

void map_body_free(MapBody *body)
{
    if (!body)
        return;
    g_array_unref(body->segments);
    g_array_unref(body->runs);
    g_free(body);
}

void map_body_append(MapBody *body, uint64_t block, uint32_t segment, uint32_t position)
{
    MapRun run = { block, 1, segment, position };
    MapRun *last = body->runs->len ? &g_array_index(body->runs, MapRun, body->runs->len - 1) : NULL;

    if (last && last->segment == segment && last->block + last->count == block && last->position + last->count == position &&
        last->count < UINT32_MAX)
        last->count++;
    else
        g_array_append_val(body->runs, run);
}

guint map_body_find(const MapBody *body, uint64_t block)
{
    guint low = 0, high = body->runs->len;

    while (low < high) {
        guint middle = low + (high - low) / 2;
        const MapRun *run = &g_array_index(body->runs, MapRun, middle);

        if (run->block + run->count <= block)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void append_le(GByteArray *to, uint64_t value, guint size)
{
    uint8_t bytes[8];

    put_le64(bytes, value);
    g_byte_array_append(to, bytes, size);
}

uint32_t map_body_segment(MapBody *body, GHashTable *indexes, const Digest *segment)
{
    gpointer found = g_hash_table_lookup(indexes, segment);

    if (found)
        return GPOINTER_TO_UINT(found) - 1;
    g_array_append_val(body->segments, *segment);
    g_hash_table_insert(indexes, g_memdup2(segment, sizeof(*segment)), GUINT_TO_POINTER(body->segments->len));
    return body->segments->len - 1;
}

GByteArray *map_body_encode(const MapBody *body)
{
    GByteArray *to = g_byte_array_new();
    uint64_t block = 0;
    uint32_t position = 0;

    g_byte_array_append(to, (const uint8_t *)MAP_MAGIC, 8);
    append_le(to, MAP_VERSION, 4);
    append_le(to, (uint64_t)body->class, 4);
    append_le(to, body->size, 8);
    append_le(to, body->segments->len, 4);
    append_le(to, 0, 4);
    append_le(to, body->runs->len, 8);
    if (body->segments->len)
        g_byte_array_append(to, (const uint8_t *)body->segments->data, body->segments->len * DIGEST_SIZE);
    for (guint i = 0; i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);

        append_varint(to, run->block - block);
        append_varint(to, run->count);
        append_varint(to, run->segment);
        append_varint(to, zigzag((int64_t)run->position - (int64_t)position));
        block = run->block + run->count;
        position = run->position + run->count;
    }
    return to;
}

bool map_bytes_are_map(const void *bytes, size_t size)
{
    return size >= MAP_HEADER_SIZE && !memcmp(bytes, MAP_MAGIC, 8);
}

static bool decode_run(const uint8_t **at, const uint8_t *end, const MapBody *body, uint64_t *block, uint32_t *position, MapRun *ret)
{
    uint64_t blocks = (body->size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE, gap, count, segment, step;
    int64_t place;

    if (!read_varint(at, end, &gap) || !read_varint(at, end, &count) || !read_varint(at, end, &segment) || !read_varint(at, end, &step))
        return false;
    place = (int64_t)*position;
    if (step > (1ull << 33) || count < 1 || count > UINT32_MAX || segment >= body->segments->len || gap > blocks - *block ||
        count > blocks - *block - gap)
        return false;
    place += unzigzag(step);
    if (place < 0 || place + (int64_t)count > (int64_t)SEGMENT_MAX_FRAMES * FRAME_MAX_BLOCKS)
        return false;
    *ret = (MapRun){ *block + gap, (uint32_t)count, (uint32_t)segment, (uint32_t)place };
    *block = ret->block + count;
    *position = ret->position + ret->count;
    return true;
}

static bool decode_runs(const uint8_t *at, const uint8_t *end, uint64_t count, MapBody *body, GError **error)
{
    uint64_t block = 0;
    uint32_t position = 0;

    if (count > (uint64_t)(end - at) / 4)
        return fail(error, "a map is damaged: it is shorter than its number of runs");
    for (uint64_t i = 0; i < count; i++) {
        MapRun run;

        if (!decode_run(&at, end, body, &block, &position, &run))
            return fail(error, "a map is damaged: run %" G_GUINT64_FORMAT " makes no sense", i);
        g_array_append_val(body->runs, run);
    }
    return at == end || fail(error, "a map is damaged: it has bytes behind its last run");
}

bool map_body_decode(const uint8_t *bytes, size_t size, MapBody **ret, GError **error)
{
    g_autoptr(MapBody) body = NULL;
    uint32_t class, segments;

    if (!map_bytes_are_map(bytes, size))
        return fail(error, "this blob is no map");
    if (get_le32(bytes + 8) != MAP_VERSION)
        return fail(error, "a map has format %u, this kiln reads %d: upgrade kiln", get_le32(bytes + 8), MAP_VERSION);
    class = get_le32(bytes + 12);
    segments = get_le32(bytes + 24);
    if (class > BLOCK_PUBLIC || get_le64(bytes + 16) > MAP_MAX_SIZE || segments > MAP_MAX_SEGMENTS ||
        size - MAP_HEADER_SIZE < (size_t)segments * DIGEST_SIZE)
        return fail(error, "a map is damaged: its header makes no sense");
    body = map_body_new(get_le64(bytes + 16), (BlockClass)class);
    g_array_append_vals(body->segments, bytes + MAP_HEADER_SIZE, segments);
    if (!decode_runs(bytes + MAP_HEADER_SIZE + (size_t)segments * DIGEST_SIZE, bytes + size, get_le64(bytes + 32), body, error))
        return false;
    *ret = g_steal_pointer(&body);
    return true;
}
