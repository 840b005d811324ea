/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block index: from a block's hash to a place where it is stored. Derived: it may forget, be stale or
 * be damaged, never mislead, because every hit is confirmed against the frame's full hashes.
 */
#ifndef KILN_STORE_BLOCK_INDEX_H
#define KILN_STORE_BLOCK_INDEX_H

#include "store/catalog.h"

typedef struct BlockIndex BlockIndex;

/* Opens it (made when missing or unusable), reads the list of living segments, and adds the ones it lacks. */
bool block_index_refresh(Store *store, GError **error);

/* True when a segment that writers of @class may refer to holds the block. No errors: what cannot be read is a miss. */
bool block_index_find(Store *store, const Digest *hash, BlockClass class, Segment **ret_segment, uint32_t *ret_position);

/* Forgets all and adds every living segment again. */
bool block_index_rebuild(Store *store, GError **error);
void block_index_counts(Store *store, uint64_t *ret_entries, uint64_t *ret_capacity);
void block_index_close(BlockIndex *index);

#endif
