/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zstd for the rest of the store: this is its only door.
 */
#ifndef KILN_STORE_COMPRESS_H
#define KILN_STORE_COMPRESS_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COMPRESS_LEVEL 3

/* Reusable state, for one thread at a time. */
typedef struct Compressor Compressor;
Compressor *compressor_new(int level);
void compressor_free(Compressor *compressor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Compressor, compressor_free)

/* The calling thread's own, at COMPRESS_LEVEL; it goes with the thread. */
Compressor *compressor_of_thread(void);

/* A number for the bytes that compressing gives: with the same one the same input gives the same output. Never 0. */
uint16_t compress_engine(void);

size_t compress_bound(size_t size);
/* Returns the compressed size, 0 when it does not fit into @room. */
size_t compressor_run(Compressor *compressor, void *to, size_t room, const void *from, size_t size);

/* Fills exactly @size bytes or returns false. Thread-safe. */
bool decompress_exact(void *to, size_t size, const void *from, size_t from_size);

/* Whole buffers at level 3. decompress refuses what would grow over @max or is no single zstd frame. */
GBytes *compress_bytes(const void *data, size_t size);
bool decompress_bytes(const void *data, size_t size, size_t max, GBytes **ret, GError **error);

/* What the frame that starts here unpacks to, from its first 18 bytes. */
bool compress_plain_size(const void *data, size_t size, uint64_t *ret);

/* Streaming: one zstd frame in pieces. @fn gets plain bytes; false from it stops. */
typedef bool DecompressFn(const void *data, size_t size, void *arg, GError **error);
bool decompress_fd(int fd, DecompressFn *fn, void *arg, const char *what, GError **error);

/* The other way: one frame with a checksum, by all processors; their number does not change the bytes, another libzstd may. */
typedef struct ZstdWriter ZstdWriter;
ZstdWriter *zstd_writer_new(uint64_t plain_size, DecompressFn *out, void *arg);
bool zstd_writer_push(ZstdWriter *z, const void *data, size_t size, GError **error);
bool zstd_writer_finish(ZstdWriter *z, GError **error); /* once, after exactly @plain_size bytes */
void zstd_writer_free(ZstdWriter *z);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ZstdWriter, zstd_writer_free)

#endif
