/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps: a disk (or any long byte string on a 4 KiB grid) as extents of stored blocks and zeroes.
 *
 * Reading: store_map_open, then pread from any thread. Reading needs the map's blob
 * and its segments only, no database.
 *
 * Writing: map_writer_new on a StoreWriter, with or without a parent whose
 * blocks are kept where nothing is written; write, zero, ref in any order (the last one
 * wins); map_writer_finish; after store_writer_commit the digest is known.
 *
 *     StoreWriter *w; MapWriter *m;
 *     store_writer_open(store, BLOCK_PRIVATE, &w, error);
 *     map_writer_new(w, size, parent, &m, error);
 *     map_writer_write(m, offset, buf, len, error);
 *     map_writer_finish(m, error);
 *     store_writer_commit(w, error);
 *     map_writer_result(m, &result);
 */
#ifndef KILN_STORE_MAP_H
#define KILN_STORE_MAP_H

#include "store/pool.h"
#include "store/source-bytes.h"

typedef struct StoreMap StoreMap; /* immutable, reference counted, thread-safe */

bool store_map_open(Store *store, const Digest *digest, StoreMap **ret, GError **error);
StoreMap *store_map_ref(StoreMap *map);
void store_map_unref(StoreMap *map);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(StoreMap, store_map_unref)

uint64_t store_map_size(const StoreMap *map); /* bytes; need not be a multiple of 4096 */

/* Any offset and length inside the size. Every frame read is checked against its block hashes; damage is an error naming segment and frame. */
bool store_map_pread(StoreMap *map, void *buf, size_t size, uint64_t offset, GError **error);

/* The same for who reads every byte once: whole frames go past the cache. */
bool store_map_pread_once(StoreMap *map, void *buf, size_t size, uint64_t offset, GError **error);

/* From now on store_map_pread takes what it can from @bytes (NULL: nothing). Set before other threads read. */
void store_map_set_source(StoreMap *map, SourceBytes *bytes);

/* The extent that holds @offset: its end (exclusive, bytes) and whether it is zeroes. Adjacent data extents may come separately. */
void store_map_extent(const StoreMap *map, uint64_t offset, uint64_t *ret_end, bool *ret_zero);
/* Bytes in extents that are not zeroes: what copying the disk without its holes moves. */
uint64_t store_map_data_size(const StoreMap *map);

/* Hashes of @count blocks from block number @first; digest_none for zero blocks. */
bool store_map_hashes(StoreMap *map, uint64_t first, size_t count, Digest *ret, GError **error);
/* The same for blocks that may lie beyond the end, where zeroes are. */
bool store_map_hashes_beyond(StoreMap *map, uint64_t first, size_t count, Digest *ret, GError **error);

/* SHA-256 over (64-bit little-endian block number, block hash) of all non-zero blocks: the disk config's `content`. */
bool store_map_content(StoreMap *map, Digest *ret, GError **error);

typedef struct MapWriter MapWriter;
typedef struct MapResult {
    Digest digest;       /* of the map's blob */
    Digest content;      /* as store_map_content */
    uint64_t size;
    uint64_t data_bytes; /* of non-zero blocks */
    uint64_t new_bytes;  /* uncompressed bytes of blocks that were not known before */
} MapResult;

/* @size may differ from the parent's (growth reads as zeroes). @parent may be NULL. A public writer copies what of a private parent remains. */
bool map_writer_new(StoreWriter *writer, uint64_t size, StoreMap *parent, MapWriter **ret, GError **error);

/* @offset and @len multiples of 4096, but for a tail that ends at the map's size. Zero blocks become holes. */
bool map_writer_write(MapWriter *map, uint64_t offset, const void *data, size_t len, GError **error);
bool map_writer_zero(MapWriter *map, uint64_t offset, uint64_t len, GError **error);
/* Takes blocks over from @from without reading them where the class allows, else copies. All values multiples of 4096. */
bool map_writer_ref(MapWriter *map, uint64_t offset, StoreMap *from, uint64_t from_offset, uint64_t len, GError **error);
/* Ingests [0,size) of an open file at @offset, holes by SEEK_HOLE; progress may be NULL. */
struct Progress;
bool map_writer_write_file(MapWriter *map, uint64_t offset, int fd, uint64_t size, struct Progress *progress, GError **error);
/* What is ingested into the map, offset by offset, is noted in @bytes; NULL: nothing is. */
void map_writer_set_source(MapWriter *map, SourceBytes *bytes);
SourceBytes *map_writer_source(const MapWriter *map); /* borrowed, or NULL */
bool map_writer_finish(MapWriter *map, GError **error);
/* Only after the StoreWriter's commit. */
void map_writer_result(const MapWriter *map, MapResult *ret);
void map_writer_free(MapWriter *map);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MapWriter, map_writer_free)

#endif
