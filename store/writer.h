/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a StoreWriter: how a block gets its place. For the map and layer writers of this folder.
 *
 * Where a block will be is a BlockRef of this writer: zero, "as the parent has it" (map writers), in a frame of ours
 * (numbered by the writer; segment and digest are known at commit), or in a segment that exists.
 */
#ifndef KILN_STORE_WRITER_H
#define KILN_STORE_WRITER_H

#include "store/blob.h"

typedef struct BlockRef {
    uint32_t segment; /* one of the names below, or an index into the writer's foreign segments */
    uint32_t position;
} BlockRef;
#define REF_ZERO UINT32_MAX
#define REF_PARENT (UINT32_MAX - 1)
#define REF_OWN (UINT32_MAX - 2) /* position counts the writer's own frames */

BlockClass store_writer_class(const StoreWriter *writer);
Store *store_writer_store(const StoreWriter *writer);

/* Hashes of neighbouring blocks, digest_none for zero blocks. Any thread. */
void store_hash_blocks(const uint8_t *data, size_t count, Digest *ret);

/* Up to 32 neighbours with their hashes: deduplicated or appended. Thirty-two that are all new become one frame of their own. */
bool store_writer_put_hashed(StoreWriter *writer, const uint8_t *data, const Digest *hashes, unsigned count, BlockRef *ret, GError **error);

/* Would it be found? */
bool store_writer_knows_block(StoreWriter *writer, const uint8_t data[STORE_BLOCK_SIZE]);

/* A reference to a block in a segment that exists and whose class this writer may refer to. */
bool store_writer_may_refer(const StoreWriter *writer, const Segment *segment);
uint32_t store_writer_foreign(StoreWriter *writer, Segment *segment);

/* From the commit on: the segment and position that @ref (not REF_ZERO, not REF_PARENT) became. */
void store_writer_resolve(const StoreWriter *writer, const BlockRef *ref, Digest *ret_segment, uint32_t *ret_position);

uint64_t store_writer_fresh_blocks(const StoreWriter *writer); /* blocks appended so far */

/*
 * Called in the commit, in the order of adding. @stage: when all segments are synced and their digests known, before anything is
 * published: a map stages its blob here. @place: inside the one catalog transaction. @done: after it; may put blobs. Each may be NULL.
 */
typedef struct WriterHook {
    bool (*stage)(void *arg, GError **error);
    bool (*place)(void *arg, Database *db, int64_t created, GError **error);
    bool (*done)(void *arg, GError **error);
    void (*orphaned)(void *arg); /* the writer is freed before its member */
    void *arg;
} WriterHook;
void store_writer_add_hook(StoreWriter *writer, const WriterHook *hook);
void store_writer_drop_hooks(StoreWriter *writer, const void *arg);

#endif
