/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of TreeKnown (store/tree.h), for readers of file systems: key_begin, key_add for each run of blocks, digest_stream_final,
 * find or put.
 */
#ifndef KILN_STORE_TREE_KNOWN_H
#define KILN_STORE_TREE_KNOWN_H

#include "store/map.h"
#include "store/tree.h"

DigestStream *tree_known_key_begin(uint64_t size);
/* Blocks [first, first + count) of @map are blocks of the file from @logical on; in ascending order. */
bool tree_known_key_add(const TreeKnown *known, DigestStream *key, uint64_t logical, StoreMap *map, uint64_t first, uint64_t count,
                        GError **error);
/* *@ret_padded: zeroes follow the end of such a file in its last block. */
const Digest *tree_known_find(const TreeKnown *known, const Digest *key, bool *ret_padded);
void tree_known_put(TreeKnown *known, const Digest *key, const Digest *content, bool padded);

#endif
