/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading ahead of somebody who reads a stored disk one request after the other, as a booting machine does.
 *
 * A read that goes on where an earlier one ended belongs to a *stream*; what follows it is decompressed into the store's frame cache by
 * threads of ours, at first a little, with each read that keeps the promise twice as far. A read waits for a piece that is being
 * decompressed rather than doing the same work beside it.
 */
#ifndef KILN_STORE_READ_AHEAD_H
#define KILN_STORE_READ_AHEAD_H

#include "store/map.h"

#define READ_AHEAD_CACHE (32u << 20) /* a store whose frame cache is this big keeps what was read ahead until it is wanted */

typedef struct ReadAhead ReadAhead; /* thread-safe */

/* Starts its threads: not before a fork. */
ReadAhead *read_ahead_new(StoreMap *map);
void read_ahead_free(ReadAhead *ahead);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ReadAhead, read_ahead_free)

/* As store_map_pread. */
bool read_ahead_pread(ReadAhead *ahead, void *buf, size_t size, uint64_t offset, GError **error);

/* Bytes that were read ahead so far. */
uint64_t read_ahead_bytes(ReadAhead *ahead);

#endif
