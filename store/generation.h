/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generation: what was written to a working disk since its last seal.
 *
 * Two files in one folder, made by the process that serves the disk and
 * read by the one that captures it:
 *
 *   generation-N.bitmap   a bit per 4 KiB block (64-bit words, host order), 1: it is in this generation
 *   generation-N.delta    sparse; block b at b * 4096. A dirty block that is a hole here is all zero
 *
 * Neither is a format: both die with the bake. Calls on different blocks may
 * run in parallel; a bit is set only after the block's bytes are in the
 * delta, so whoever sees the bit sees the bytes.
 */
#ifndef KILN_STORE_GENERATION_H
#define KILN_STORE_GENERATION_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GENERATION_BLOCK 4096
#define GENERATION_SIZE_MAX (UINT64_C(16) << 40) /* the bitmap of 16 TiB is 512 MiB */

typedef struct Generation Generation;

/* Makes both files for a disk of @size bytes; the bitmap is allocated at once, so that a full disk can't kill
 * us later. */
bool generation_create(const char *dir, unsigned number, uint64_t size, Generation **ret, GError **error);

/* Opens what another process made, for reading. */
bool generation_open(const char *dir, unsigned number, uint64_t size, Generation **ret, GError **error);

void generation_close(Generation *generation);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Generation, generation_close)
void generation_unlink(Generation *generation); /* removes both files; an open generation can still be read */

unsigned generation_number(const Generation *generation);
bool generation_is_dirty(const Generation *generation, uint64_t block);
uint64_t generation_dirty_blocks(const Generation *generation);

/* Length in blocks of the run of equal bits at @block, ending before @limit; *ret_dirty is their value. */
uint64_t generation_run(const Generation *generation, uint64_t block, uint64_t limit, bool *ret_dirty);

/* Bytes of dirty blocks; clean ones read as zero. */
bool generation_pread(const Generation *generation, void *buf, size_t size, uint64_t offset, GError **error);

/* Whole blocks, or bytes inside a block that is dirty already. Marks every touched block. */
bool generation_pwrite(Generation *generation, const void *buf, size_t size, uint64_t offset, GError **error);

/* Whole blocks: they become holes and are marked. */
bool generation_zero(Generation *generation, uint64_t first, uint64_t count, GError **error);

/*
 * Whether the delta at @offset is a hole, and where that stops being so (at most @end). Meant for dirty
 * ranges; a file system that knows no holes says data everywhere, which is also true.
 */
void generation_extent(const Generation *generation, uint64_t offset, uint64_t end, uint64_t *ret_end,
                       bool *ret_zero);

#endif
