/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far the blocks of a map lie apart: an image that shares most of its blocks with a hundred older ones has them in a hundred places.
 */
#ifndef KILN_STORE_FRAGMENTS_H
#define KILN_STORE_FRAGMENTS_H

#include "store/catalog.h"

/*
 * Frames that are unpacked when the map is read from its beginning to its end, and frames that its blocks would fill. What is unpacked
 * twice because a cache of usual size forgot it counts twice.
 */
bool fragments_of_map(Store *store, const Digest *map, uint64_t *ret_touched, uint64_t *ret_needed, GError **error);

/*
 * Looks at maps of the newest images that were not looked at yet, and marks segments to be repacked where one touches more than twice the
 * frames that it needs, or is spread over many small segments: the worst ones first, of no more than @budget bytes. Segments created at or
 * after @young are left alone. The marks are those of repack.c, which writes what is newest in a row.
 */
bool fragments_mark(Store *store, Database *db, int64_t young, uint64_t budget, GError **error);

#endif
