/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool: one folder that holds blocks in segments, whole files in blobs/, and
 * two databases (format: store/format.h and kiln-store(5)).
 *
 * Call order: store_open -> store_writer_open -> map, tree and layer writers ->
 * store_writer_commit -> store_publish (image.h) -> store_close.
 * Nothing a writer made is visible or durable before its commit; a writer
 * freed without commit, or killed, leaves nothing that counts.
 *
 * Threads: a Store may be used from several threads; a StoreWriter and what is
 * made from it belongs to one thread at a time.
 */
#ifndef KILN_STORE_POOL_H
#define KILN_STORE_POOL_H

#include "base/digest.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define STORE_BLOCK_SIZE 4096

typedef struct Store Store;

typedef enum StoreOpenFlags {
    STORE_OPEN_CREATE = 1 << 0,   /* make it when the folder is absent or empty */
    STORE_OPEN_READONLY = 1 << 1, /* nothing is written, also no lock files on read-only media */
    STORE_OPEN_NO_CATALOG = 1 << 2, /* blocks, maps and blobs only, no SQLite: for the nbd plugin */
    STORE_OPEN_ANYWAY = 1 << 3,     /* to look: for reading only where it cannot be written to */
    STORE_OPEN_UPKEEP = 1 << 4,     /* to make room or to repair: may use the reserve of a full disk, see reserve.h */
} StoreOpenFlags;

/* A newer format version, a folder that is no store, and a store in recovery elsewhere are errors that say what to do. */
bool store_open(const char *dir, unsigned flags, Store **ret, GError **error);
void store_close(Store *store);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Store, store_close)
const char *store_path(const Store *store);
bool store_is_readonly(const Store *store);
/* How many bytes of plain frames to keep in memory; 16 MiB otherwise. Before the first read. */
void store_set_cache(Store *store, size_t bytes);
/* How many bytes of compressed layers STORE/cache may hold for the next export; 2 GiB otherwise, 0 keeps none. */
void store_set_layer_cache(Store *store, uint64_t bytes);

/* The Unix user we are, as logs and journals name him; never NULL, free with g_free. */
char *store_user(void);

/*
 * A new private folder STORE/tmp/<unique>; everything in it is removed when
 * its owner process is gone (recovery at the next open) or by file_remove_tree.
 */
bool store_make_tmpdir(Store *store, char **ret_path, GError **error);

/* An empty file in STORE/tmp that has no name: it is gone with its descriptor. */
bool store_open_unnamed(Store *store, int *ret_fd, GError **error);

/* private: working disks and bake states, may hold freed data and keys. public: what artifacts refer to. */
typedef enum BlockClass { BLOCK_PRIVATE, BLOCK_PUBLIC } BlockClass;

/* Frames and segments of one class being written; shared by any number of map and layer writers. */
typedef struct StoreWriter StoreWriter;
bool store_writer_open(Store *store, BlockClass class, StoreWriter **ret, GError **error);

/* Makes everything durable: segment, fdatasync, rename, fsync folder, catalog. Then digests of maps and layers are known. */
bool store_writer_commit(StoreWriter *writer, GError **error);
uint64_t store_writer_new_bytes(const StoreWriter *writer); /* compressed bytes this writer added */
void store_writer_free(StoreWriter *writer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(StoreWriter, store_writer_free)

/* Whole small files (manifests, configs, trees, recipes, templates), named by the SHA-256 of their bytes. Durable on return.
   Stored compressed where that pays; the digest is always that of the plain bytes. */
bool store_blob_put(Store *store, const void *data, size_t size, Digest *ret, GError **error);
bool store_blob_put_file(Store *store, int fd, Digest *ret, uint64_t *ret_size, GError **error); /* any size, verbatim */
bool store_blob_get(Store *store, const Digest *digest, size_t max, GBytes **ret, GError **error); /* verified */
bool store_blob_has(Store *store, const Digest *digest);
/* Writes the blob's plain bytes to @fd, verified while streaming; layers kept as recipes come out as their compressed bytes too. */
bool store_blob_copy(Store *store, const Digest *digest, int fd, GError **error);
bool store_blob_size(Store *store, const Digest *digest, uint64_t *ret_size, GError **error);

/*
 * A lease keeps everything committed since its start from gc until it is
 * released or its process is gone.
 */
typedef struct StoreLease StoreLease;
bool store_lease_take(Store *store, const char *why, StoreLease **ret, GError **error);
void store_lease_release(StoreLease *lease);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(StoreLease, store_lease_release)

#endif
