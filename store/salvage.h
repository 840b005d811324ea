/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can still be had of a damaged segment, frame by frame and block by block.
 *
 * Readers of a segment are strict: a frame counts when its head fits its check and every block has its hash. Here each
 * block is judged alone, so that of a frame with one bad byte the other blocks come back, and of a segment without a list of frames
 * all of them: where frames start is in the catalog, too. A block counts when its bytes have the hash that stands in the frame's head, or when
 * the hashes of all blocks together have the head's check: then it is the list of hashes that is damaged.
 *
 *     salvage_open -> salvage_frame for each frame -> salvage_free
 */
#ifndef KILN_STORE_SALVAGE_H
#define KILN_STORE_SALVAGE_H

#include "store/catalog.h"

typedef struct Salvage {
    Store *store;
    Digest digest;
    BlockClass class;
    int fd;          /* -1: there is no file */
    uint64_t size;
    bool opens;      /* readers can open it */
    GArray *entries; /* of SegmentEntry, out of the segment's list or else the catalog */
    uint8_t *stored; /* the last frame as it is in the file */
} Salvage;

/* A missing file is no error. */
bool salvage_open(Store *store, const Digest *digest, Salvage **ret, GError **error);
void salvage_free(Salvage *salvage);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Salvage, salvage_free)

typedef struct SalvagedFrame {
    unsigned blocks;
    uint32_t good;                     /* a bit per block: it is in @plain */
    bool readable;                     /* readers can read it */
    bool hashes_known;                 /* those of bad blocks as well; else these may be damaged */
    Digest hashes[FRAME_MAX_BLOCKS];
    uint8_t plain[FRAME_MAX_BYTES];
} SalvagedFrame;
void salvage_frame(Salvage *salvage, uint32_t frame, SalvagedFrame *ret);

static inline uint32_t salvage_all(unsigned blocks)
{
    return blocks >= 32 ? UINT32_MAX : (1u << blocks) - 1;
}

#endif
