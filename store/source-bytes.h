/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file that a disk was just ingested from, as a place to read the disk's bytes: what was packed a moment ago need not be unpacked.
 *
 *   bytes = source_bytes_new(fd, size); map_writer_set_source(map, bytes);   the ingest notes a tag of every block that it reads
 *   store_map_set_source(disk, bytes);                                       after the commit: reads of the map try the file first
 *
 * A block counts only when it has the tag that was noted: a file that was changed since is not believed, and its blocks are read from the
 * store instead. Tags are keyed and never leave the process. Offsets of file and map are the same.
 */
#ifndef KILN_STORE_SOURCE_BYTES_H
#define KILN_STORE_SOURCE_BYTES_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct SourceBytes SourceBytes; /* reference counted; NULL may be given to both */

/* Has its own descriptor of the file. NULL where that can't be had: then the store is read. */
SourceBytes *source_bytes_new(int fd, uint64_t size);
SourceBytes *source_bytes_ref(SourceBytes *bytes);
void source_bytes_unref(SourceBytes *bytes);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SourceBytes, source_bytes_unref)

/* Blocks of 4096 bytes from the @first-th on, which lie at @data. Any thread, each block once; before the first read. */
void source_bytes_note(SourceBytes *bytes, uint64_t first, const uint8_t *data, size_t count);
/* False where the file no longer has what was noted, or nothing was. Any thread. */
bool source_bytes_read(SourceBytes *bytes, void *buf, size_t size, uint64_t offset);

#endif
