/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking a disk in, by all processors. Whoever has ranges of a source hands them over; what comes of them is one map.
 *
 *     caller        threads               caller           threads      caller
 *     ranges ->  read, zero test, hash -> dedup, refs ->   compress ->  append to the segment
 *            ring of pieces (here)               ring of frames (store/writer.c)
 *
 * Both rings are short, so memory does not follow the source. Frames, segments and maps do not depend on the number of threads.
 *
 *   ingest = ingest_new(map, read, arg); ingest_range(...)...; ingest_finish(ingest, error); ingest_free(ingest);
 *
 * Where the map has a parent, blocks that have the parent's hash in the same place stay the parent's: nothing is looked up for them.
 */
#ifndef KILN_STORE_INGEST_H
#define KILN_STORE_INGEST_H

#include "store/map.h"

typedef struct Ingest Ingest;

/* Fills @buf with [@offset, +@size) of the source. Called from several threads at a time. */
typedef bool IngestReadFn(void *buf, size_t size, uint64_t offset, void *arg, GError **error);
/* Is shown the bytes, in order, by the caller's thread, before they enter a segment. @offset is the map's. */
typedef bool IngestSeenFn(const void *data, size_t size, uint64_t offset, void *arg, GError **error);

/* @map and @arg are borrowed until ingest_free(). */
Ingest *ingest_new(MapWriter *map, IngestReadFn *read, void *arg);
void ingest_set_seen(Ingest *ingest, IngestSeenFn *seen, void *arg);
void ingest_set_progress(Ingest *ingest, struct Progress *progress);

/*
 * [@from, +@size) of the source belongs at @offset of the map, a multiple of 4096; an odd end is filled up with zeroes. Ranges of one ingest
 * do not overlap. Nothing is to be read back from the map before ingest_finish().
 */
bool ingest_range(Ingest *ingest, uint64_t offset, uint64_t size, uint64_t from, GError **error);
/* The same for what is said to be as the map's parent has it: read, hashed, and an error naming the first block that differs. */
bool ingest_check(Ingest *ingest, uint64_t offset, uint64_t size, uint64_t from, GError **error);
bool ingest_finish(Ingest *ingest, GError **error);
void ingest_free(Ingest *ingest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Ingest, ingest_free)

#endif
