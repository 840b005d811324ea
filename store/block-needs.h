/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which blocks of which segments some maps need, under the names that the maps use: for pushing to remotes and fetching from them.
 */
#ifndef KILN_STORE_BLOCK_NEEDS_H
#define KILN_STORE_BLOCK_NEEDS_H

#include "store/map-private.h"
#include "store/segment-moved.h"

typedef struct SegmentNeeds {
    Digest segment;
    uint32_t positions; /* how many @bits there are */
    uint32_t count;     /* how many are set */
    uint8_t *bits;
} SegmentNeeds;
SegmentNeeds *segment_needs_copy(const SegmentNeeds *needs);
void segment_needs_free(SegmentNeeds *needs);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SegmentNeeds, segment_needs_free)

typedef struct BlockNeeds {
    GPtrArray *list; /* of SegmentNeeds*, in the order of the maps */
    GHashTable *by;  /* Digest* -> SegmentNeeds* */
} BlockNeeds;
BlockNeeds *block_needs_new(void);
void block_needs_free(BlockNeeds *needs);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlockNeeds, block_needs_free)

/* Refused: positions that no segment can have. */
bool block_needs_add(BlockNeeds *needs, const MapBody *body, GError **error);

static inline bool segment_needs(const SegmentNeeds *needs, uint32_t position)
{
    return position < needs->positions && needs->bits[position / 8] & 1 << position % 8;
}
void segment_needs_set(SegmentNeeds *needs, uint32_t position);
void segment_needs_clear(SegmentNeeds *needs, uint32_t position);
/* Takes away what the table leads to; true: that was something. */
bool segment_needs_subtract(SegmentNeeds *needs, const SegmentMoved *moved);

#endif
