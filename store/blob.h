/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blobs in two steps, for commits that place several files in one transaction. The face is in pool.h.
 */
#ifndef KILN_STORE_BLOB_H
#define KILN_STORE_BLOB_H

#include "store/catalog.h"

#define BLOB_PACKED_SUFFIX ".zst"

typedef struct StagedBlob {
    int dirfd;
    char *name; /* in our tmp folder; NULL once placed */
    Digest digest;
    uint64_t size, stored;
    bool packed;
} StagedBlob;

/* Writes and syncs the file in tmp. */
bool blob_stage(Store *store, const void *data, size_t size, StagedBlob *ret, GError **error);
/* The file of another store as it is, read back and verified. */
bool blob_stage_copy(Store *store, Store *from, const Digest *digest, StagedBlob *ret, GError **error);
/* In a catalog transaction: final name, folder synced, row. */
bool blob_place(Store *store, Database *db, StagedBlob *staged, int64_t created, GError **error);
void blob_unstage(StagedBlob *staged);

/* Its file for reading, -1 with errno; @ret_packed: it is compressed. */
int blob_file_open(Store *store, const Digest *digest, bool *ret_packed);
/* What a file of @stored bytes unpacks to: that is in the first of them. False when it is not. */
bool blob_file_plain_size(int fd, bool packed, uint64_t stored, uint64_t *ret);
/* In a catalog transaction: is it there? It is young again then, so that no gc takes it before what needs it has come. */
bool blob_keep(Store *store, Database *db, const Digest *digest, bool *ret_there, GError **error);
/* A file, not a recipe. */
bool blob_file_exists(Store *store, const Digest *digest);
bool blob_file_remove(Store *store, const Digest *digest, GError **error);
/* Reads all of it and compares the digest. */
bool blob_file_verify(Store *store, const Digest *digest, uint64_t *ret_size, uint64_t *ret_stored, GError **error);

#endif
