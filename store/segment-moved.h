/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the blocks of a segment went when gc repacked it.
 *
 * Maps name segments, and nothing that was published is ever rewritten: image IDs, maps, recipes and digests in somebody's memory stay
 * good. So the name of a repacked segment stays, and stands for a table: segments/ab/<sha256>.moved says for each position that was still
 * needed in which segment it is now. The table is a map whose blocks are positions (frame * 32 + block) of the old segment.
 *
 *   +-----------------------------------------------------------------------------------------+
 *   | "KILNMOV1" | version 4 | frames 4 | digest of the old segment 32 | map, see format.h     |
 *   | SHA-256 of all before 32                                                                |
 *   +-----------------------------------------------------------------------------------------+
 *
 * A segment's own file goes before its table, so a table that was written too early misleads nobody.
 */
#ifndef KILN_STORE_SEGMENT_MOVED_H
#define KILN_STORE_SEGMENT_MOVED_H

#include "store/map-private.h"

#define MOVED_MAX (64u << 20) /* bytes of a table */
#define MOVED_SUFFIX ".moved"

typedef struct SegmentMoved {
    uint32_t frames; /* of the old segment */
    MapBody *body;
} SegmentMoved;
void segment_moved_free(SegmentMoved *moved);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SegmentMoved, segment_moved_free)

/* Takes @body. */
SegmentMoved *segment_moved_new(uint32_t frames, MapBody *body);

/* *ret NULL when there is no table; still true. */
bool segment_moved_load(Store *store, const Digest *digest, SegmentMoved **ret, GError **error);

/* Whole and durable, in place of an earlier one. With the catalog's write lock. */
bool segment_moved_write(Store *store, const Digest *digest, const SegmentMoved *moved, GError **error);
bool segment_moved_remove(Store *store, const Digest *digest, GError **error);

/* Its bytes, as a file or as an object elsewhere; decoding is bounded, @digest the segment that it has to be of. Free with g_byte_array_unref. */
GByteArray *segment_moved_encode(const Digest *digest, const SegmentMoved *moved);
bool segment_moved_decode(const Digest *digest, const void *bytes, size_t size, SegmentMoved **ret, GError **error);

/* What @own, which may be NULL, says, and what @theirs says of other positions. Both have as many frames. */
SegmentMoved *segment_moved_join(const SegmentMoved *own, const SegmentMoved *theirs);

/* False: the position was not needed any more. */
bool segment_moved_find(const SegmentMoved *moved, uint32_t position, Digest *ret_segment, uint32_t *ret_position);

#endif
