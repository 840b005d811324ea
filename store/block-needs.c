/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Needs as a bit for each position.
 */
#include "store/block-needs.h"

#include "base/error.h"

SegmentNeeds *segment_needs_copy(const SegmentNeeds *needs)
{
    SegmentNeeds *copy = g_memdup2(needs, sizeof(*needs));

    copy->bits = g_memdup2(needs->bits, (needs->positions + 7) / 8);
    return copy;
}

void segment_needs_free(SegmentNeeds *needs)
{
    if (!needs)
        return;
    g_free(needs->bits);
    g_free(needs);
}

BlockNeeds *block_needs_new(void)
{
    BlockNeeds *needs = g_new0(BlockNeeds, 1);

    needs->list = g_ptr_array_new_with_free_func((GDestroyNotify)segment_needs_free);
    needs->by = g_hash_table_new(digest_hash, digest_equal_gfunc);
    return needs;
}

void block_needs_free(BlockNeeds *needs)
{
    if (!needs)
        return;
    g_hash_table_unref(needs->by);
    g_ptr_array_unref(needs->list);
    g_free(needs);
}

static SegmentNeeds *needs_of(BlockNeeds *needs, const Digest *segment)
{
    SegmentNeeds *one = g_hash_table_lookup(needs->by, segment);

    if (!one) {
        one = g_new0(SegmentNeeds, 1);
        one->segment = *segment;
        g_ptr_array_add(needs->list, one);
        g_hash_table_insert(needs->by, &one->segment, one);
    }
    return one;
}

static void make_room(SegmentNeeds *one, uint32_t positions)
{
    uint32_t before = (one->positions + 7) / 8, room = (MAX(positions, one->positions) + 7) / 8;

    if (room > before) {
        one->bits = g_realloc(one->bits, room);
        memset(one->bits + before, 0, room - before);
    }
    one->positions = MAX(one->positions, positions);
}

void segment_needs_set(SegmentNeeds *one, uint32_t position)
{
    make_room(one, position + 1);
    if (!segment_needs(one, position))
        one->count++;
    one->bits[position / 8] |= (uint8_t)(1 << position % 8);
}

void segment_needs_clear(SegmentNeeds *one, uint32_t position)
{
    if (!segment_needs(one, position))
        return;
    one->bits[position / 8] &= (uint8_t)~(1 << position % 8);
    one->count--;
}

bool segment_needs_subtract(SegmentNeeds *needs, const SegmentMoved *moved)
{
    uint32_t before = needs->count;

    for (guint i = 0; i < moved->body->runs->len; i++) {
        const MapRun *run = &g_array_index(moved->body->runs, MapRun, i);

        for (uint64_t at = run->block; at < run->block + run->count && at < needs->positions; at++)
            segment_needs_clear(needs, (uint32_t)at);
    }
    return needs->count < before;
}

bool block_needs_add(BlockNeeds *needs, const MapBody *body, GError **error)
{
    for (guint i = 0; i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        SegmentNeeds *one = needs_of(needs, &g_array_index(body->segments, Digest, run->segment));
        uint64_t end = (uint64_t)run->position + run->count;

        if (end > (uint64_t)SEGMENT_MAX_FRAMES * FRAME_MAX_BLOCKS)
            return fail(error, "a map names blocks that no segment has");
        make_room(one, (uint32_t)end);
        for (uint32_t j = 0; j < run->count; j++)
            segment_needs_set(one, run->position + j);
    }
    return true;
}
