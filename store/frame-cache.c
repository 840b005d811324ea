/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame cache: a hash table and a queue in order of use, most recent first.
 */
#include "store/frame-cache.h"

#include "base/scope.h"

struct FrameCache {
    GMutex lock;
    GHashTable *table; /* CachedFrame* as its own key */
    GQueue order;
    size_t bytes, max_bytes;
};

static guint frame_hash(gconstpointer key)
{
    const CachedFrame *frame = key;

    return (guint)(frame->segment * 0x9E3779B1u) ^ (frame->frame * 0x85EBCA6Bu);
}

static gboolean frame_same(gconstpointer a, gconstpointer b)
{
    const CachedFrame *one = a, *other = b;

    return one->segment == other->segment && one->frame == other->frame;
}

FrameCache *frame_cache_new(size_t max_bytes)
{
    FrameCache *cache = g_new0(FrameCache, 1);

    g_mutex_init(&cache->lock);
    g_queue_init(&cache->order);
    cache->table = g_hash_table_new(frame_hash, frame_same);
    cache->max_bytes = max_bytes;
    return cache;
}

static void drop_last(FrameCache *cache)
{
    GList *link = g_queue_pop_tail_link(&cache->order);
    CachedFrame *frame = link->data;

    (void)g_hash_table_remove(cache->table, frame);
    cache->bytes -= sizeof(*frame) + frame->size;
    cached_frame_unref(frame);
}

void frame_cache_free(FrameCache *cache)
{
    if (!cache)
        return;
    while (cache->order.length > 0)
        drop_last(cache);
    g_hash_table_destroy(cache->table);
    g_mutex_clear(&cache->lock);
    g_free(cache);
}

CachedFrame *cached_frame_new(uint64_t segment, uint32_t frame, uint32_t size)
{
    CachedFrame *cached = g_malloc(sizeof(*cached) + size);

    memset(cached, 0, sizeof(*cached));
    cached->refs = 1;
    cached->segment = segment;
    cached->frame = frame;
    cached->size = size;
    cached->link.data = cached;
    return cached;
}

void cached_frame_unref(CachedFrame *frame)
{
    if (frame && g_atomic_int_dec_and_test(&frame->refs))
        g_free(frame);
}

CachedFrame *frame_cache_get(FrameCache *cache, uint64_t segment, uint32_t frame)
{
    CachedFrame wanted = { .segment = segment, .frame = frame };
    CachedFrame *found;

    AUTO_LOCK(&cache->lock);
    found = g_hash_table_lookup(cache->table, &wanted);
    if (!found)
        return NULL;
    g_queue_unlink(&cache->order, &found->link);
    g_queue_push_head_link(&cache->order, &found->link);
    g_atomic_int_inc(&found->refs);
    return found;
}

void frame_cache_put(FrameCache *cache, CachedFrame *frame)
{
    AUTO_LOCK(&cache->lock);
    if (g_hash_table_contains(cache->table, frame))
        return; /* another thread was quicker */
    g_atomic_int_inc(&frame->refs);
    g_hash_table_add(cache->table, frame);
    g_queue_push_head_link(&cache->order, &frame->link);
    cache->bytes += sizeof(*frame) + frame->size;
    while (cache->bytes > cache->max_bytes && cache->order.length > 1)
        drop_last(cache);
}
