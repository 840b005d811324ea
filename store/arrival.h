/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that come from elsewhere under their names: from another store (sync.c), from a remote (remote-fetch.c), from a registry (disk-pull.c).
 * Segments that are made here get theirs in the same way.
 *
 * They are staged in tmp, verified and synced there, and get their names in a catalog transaction. All but staging is for inside of one.
 */
#ifndef KILN_STORE_ARRIVAL_H
#define KILN_STORE_ARRIVAL_H

#include "store/blob.h"
#include "store/segment-moved.h"

typedef struct StagedSegment {
    char *name; /* in our tmp folder; NULL once placed */
    Digest digest;
    int fd; /* to be written to; not owned by what is placed */
} StagedSegment;

/* Makes the empty file; who fills it verifies it, and syncs it by segment_stage_sync(). */
bool segment_stage(Store *store, const Digest *digest, StagedSegment *ret, GError **error);
bool segment_stage_sync(Store *store, StagedSegment *staged, GError **error);
void segment_unstage(Store *store, StagedSegment *staged);
bool segment_place(Store *store, Database *catalog, StagedSegment *staged, GError **error);
/* The same of a file that was not staged here: whole, verified and synced. */
bool segment_place_file(Store *store, Database *catalog, int dirfd, const char *file, const Digest *digest, GError **error);

/* One that this process wrote, finished and synced: nobody doubts it. */
bool segment_place_own(Store *store, Database *catalog, SegmentFile *file, int64_t created, GError **error);

/* Is the segment's file there? One that is becomes young again, so that no gc takes it before what needs it has come. */
bool segment_keep(Store *store, Database *catalog, const Digest *digest, bool *ret_there, GError **error);

/* Joins @theirs with the table that the store may have of the segment. What it leads to is there. */
bool segment_place_table(Store *store, Database *catalog, const Digest *name, const SegmentMoved *theirs, GError **error);

/* A file of a blob as it is kept, plain or packed: written by who is asked, then verified here. */
typedef bool BlobFillFn(int fd, uint64_t *ret_size, void *arg, GError **error);
bool blob_stage_filled(Store *store, const Digest *digest, bool packed, BlobFillFn *fill, void *arg, StagedBlob *ret, GError **error);

#endif
