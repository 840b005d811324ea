/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in a segment, apart from it: where its frames are and which blocks. Who has not got the segment sees by it what of it is worth
 * fetching.
 *
 *   +-----------------------------------------------------------------------------------+
 *   | "KILNSIX1" | version 4 | frames 4 | size of the segment 8 | digest of the segment 32 |
 *   | frames * (offset 8 | stored length 4 | blocks 1 | encoding 1 | 0 0)   as in its footer |
 *   | SHA-256 of each block, in the order of frames                                       |
 *   +-----------------------------------------------------------------------------------+
 */
#ifndef KILN_STORE_SEGMENT_INDEX_H
#define KILN_STORE_SEGMENT_INDEX_H

#include "store/segment.h"

#define SEGMENT_INDEX_MAX (96u << 20)

typedef struct SegmentIndex {
    Digest segment;
    uint64_t size;
    GArray *entries; /* of SegmentEntry */
    GArray *first;   /* of uint32_t: each frame's first block among @hashes */
    GArray *hashes;  /* of Digest */
} SegmentIndex;
SegmentIndex *segment_index_new(void);
void segment_index_free(SegmentIndex *index);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SegmentIndex, segment_index_free)
void segment_index_add(SegmentIndex *index, const SegmentEntry *entry, const Digest *hashes);
/* Of a segment of the store that is where its name says. */
bool segment_index_of(Segment *segment, SegmentIndex **ret, GError **error);

GBytes *segment_index_encode(const SegmentIndex *index);
bool segment_index_decode(const uint8_t *bytes, size_t size, SegmentIndex **ret, GError **error);

/* NULL: there is no such block. */
const Digest *segment_index_hash(const SegmentIndex *index, uint32_t position);

/*
 * Reads a whole public segment from end to end: every frame is unpacked, every block compared with its hash, the footer with the frames.
 */
bool segment_verify_file(int fd, uint64_t size, const char *what, GError **error);

#endif
