/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frozen gzip encoder: the same bytes in give the same bytes out, on every
 * machine, for ever. Layer digests are signed, and layers are stored as recipes
 * that are compressed anew when somebody asks, so its output is part of the store's
 * format. tests/unit/test-deflate.c holds golden digests.
 *
 *     GzipWriter *z = gzip_writer_new(out, arg);
 *     gzip_writer_push(z, data, size, error);    any number of times, cut in any way
 *     gzip_writer_finish(z, error);
 *
 * One member (RFC 1952) without name, mtime 0, OS 255. Chunks of 256 KiB are encoded by all processors; the bytes are the same whatever their
 * number. Memory is bounded: 1.1 MiB for each processor and two more. @out is called from the thread that pushes.
 */
#ifndef KILN_STORE_DEFLATE_H
#define KILN_STORE_DEFLATE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct GzipWriter GzipWriter;

/* Gets the compressed bytes in order; false with @error set ends the work. */
typedef bool GzipOutFn(const void *data, size_t size, void *arg, GError **error);

GzipWriter *gzip_writer_new(GzipOutFn *out, void *arg);
/* With so many threads, 1 to 16: for tests, and for who has work beside it. */
GzipWriter *gzip_writer_new_with(unsigned threads, GzipOutFn *out, void *arg);
bool gzip_writer_push(GzipWriter *z, const void *data, size_t size, GError **error);
bool gzip_writer_finish(GzipWriter *z, GError **error); /* once */
void gzip_writer_free(GzipWriter *z);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GzipWriter, gzip_writer_free)

#endif
