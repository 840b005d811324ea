/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded, thread-safe cache of frames: one for plain bytes, one for hash lists.
 * Entries are reference counted, so that a reader copies without holding the lock.
 */
#ifndef KILN_STORE_FRAME_CACHE_H
#define KILN_STORE_FRAME_CACHE_H

#include "store/frame.h"

typedef struct CachedFrame {
    gint refs;
    uint64_t segment; /* serial number of the Segment, unique in the process */
    uint32_t frame;
    uint32_t size;
    GList link;
    uint8_t data[];
} CachedFrame;

typedef struct FrameCache FrameCache;
FrameCache *frame_cache_new(size_t max_bytes);
void frame_cache_free(FrameCache *cache);

CachedFrame *cached_frame_new(uint64_t segment, uint32_t frame, uint32_t size);
void cached_frame_unref(CachedFrame *frame);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CachedFrame, cached_frame_unref)

/* A new reference or NULL. */
CachedFrame *frame_cache_get(FrameCache *cache, uint64_t segment, uint32_t frame);
void frame_cache_put(FrameCache *cache, CachedFrame *frame); /* takes its own reference */

#endif
