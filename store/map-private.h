/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps as runs, for the files of store/ that look inside: map writers, fsck, gc.
 */
#ifndef KILN_STORE_MAP_PRIVATE_H
#define KILN_STORE_MAP_PRIVATE_H

#include "store/map.h"
#include "store/segment.h"

/* Blocks [block, block+count) of the map are at @position.. of one segment. */
typedef struct MapRun {
    uint64_t block;
    uint32_t count;
    uint32_t segment; /* index into the map's table */
    uint32_t position;
} MapRun;

typedef struct MapBody {
    uint64_t size;
    BlockClass class;
    GArray *segments; /* of Digest */
    GArray *runs;     /* of MapRun, ordered, not touching each other's blocks */
} MapBody;
MapBody *map_body_new(uint64_t size, BlockClass class);
void map_body_free(MapBody *body);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MapBody, map_body_free)
/* Appends one block, joining it to the last run where that goes on. */
void map_body_append(MapBody *body, uint64_t block, uint32_t segment, uint32_t position);
/* The segment's place in the map's table, added when it is new; @indexes belongs to the caller, who frees its keys: Digest* -> place + 1. */
uint32_t map_body_segment(MapBody *body, GHashTable *indexes, const Digest *segment);

GByteArray *map_body_encode(const MapBody *body);
/* Bounded; every number is checked but what only the segments can tell. */
bool map_body_decode(const uint8_t *bytes, size_t size, MapBody **ret, GError **error);
bool map_bytes_are_map(const void *bytes, size_t size);

/* For ingest.c. At most to the next multiple of 32 blocks; @same (may be NULL): these are as the parent has them. */
bool map_writer_put(MapWriter *map, uint64_t block, const uint8_t *data, const Digest *hashes, const bool *same, unsigned count,
                    GError **error);
uint64_t map_writer_size(const MapWriter *map);
StoreMap *map_writer_parent(const MapWriter *map); /* borrowed; NULL: none */

const MapBody *store_map_body(const StoreMap *map);
bool store_map_segment(StoreMap *map, uint32_t index, Segment **ret, GError **error);
/* Whether the 32 blocks from @block on are the blocks of one frame, in its order: then which one. */
bool store_map_whole_frame(StoreMap *map, uint64_t block, Segment **ret_segment, uint32_t *ret_frame);
/* The first run that ends after @block; runs->len when there is none. */
guint map_body_find(const MapBody *body, uint64_t block);

#endif
