/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that lie over a map: in another file, in memory, or elsewhere in the same map. A patched map reads like any other, so whoever
 * reads disks reads one that differs from a stored disk in a few places, and nothing is written to the store.
 *
 *   patch = map_patch_new(size, fd); map_patch_add(...) ascending; map_patch_put(...), map_patch_redirect(...) in any order;
 *   view = store_map_patched(base, patch);
 *
 * A patched map has no runs: it can be read and hashed (store_map_pread, _extent, _hashes), never taken over into a MapWriter.
 */
#ifndef KILN_STORE_MAP_PATCH_H
#define KILN_STORE_MAP_PATCH_H

#include "store/map.h"

#define MAP_PATCH_ZERO UINT64_MAX /* an offset that stands for zeroes */

typedef struct MapPatch MapPatch;

/* A patch for a disk of @size bytes; @fd is taken (-1: none) and may be shorter than what is read of it: zeroes follow. */
MapPatch *map_patch_new(uint64_t size, int fd);
void map_patch_free(MapPatch *patch);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MapPatch, map_patch_free)

/* @count blocks from @block on are those at @offset of the file. Ascending, not touching those before. */
void map_patch_add(MapPatch *patch, uint64_t block, uint64_t count, uint64_t offset);
/* One block, wherever it was before; the last call wins. @from: a block of the map below. */
void map_patch_put(MapPatch *patch, uint64_t block, const uint8_t bytes[STORE_BLOCK_SIZE]);
void map_patch_redirect(MapPatch *patch, uint64_t block, uint64_t from);

/* Runs kept: what the patch costs in memory, 24 bytes each. */
guint map_patch_runs(const MapPatch *patch);
/* How many blocks in [@first, @end) were given by map_patch_add(). */
uint64_t map_patch_count(const MapPatch *patch, uint64_t first, uint64_t end);

/* Takes @patch, refers to @base. Where @base ends before the patch's size, zeroes follow. */
StoreMap *store_map_patched(StoreMap *base, MapPatch *patch);

/* For map.c. */
uint64_t map_patch_size(const MapPatch *patch);
bool map_patch_pread(const MapPatch *patch, StoreMap *base, void *buf, size_t size, uint64_t offset, GError **error);
void map_patch_extent(const MapPatch *patch, const StoreMap *base, uint64_t offset, uint64_t *ret_end, bool *ret_zero);
bool map_patch_hashes(const MapPatch *patch, StoreMap *base, uint64_t first, size_t count, Digest *ret, GError **error);

#endif
