/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of store/ know about an open Store. Nobody outside includes this.
 *
 * Locks: @lock guards the segment table and what is made lazily; the caches, the
 * databases and the index have their own. No lock is taken while @lock is held but the caches'.
 */
#ifndef KILN_STORE_STORE_PRIVATE_H
#define KILN_STORE_STORE_PRIVATE_H

#include "base/json.h"
#include "store/pool.h"

typedef struct FrameCache FrameCache;
typedef struct Database Database;
typedef struct BlockIndex BlockIndex;

struct Store {
    char *path;
    unsigned flags;
    int dirfd, segments_fd, blobs_fd, lock_fd;
    GMutex lock;
    GHashTable *segments; /* Digest* -> Segment* */
    GPtrArray *forgotten; /* segments whose file is gone, kept for who still reads */
    unsigned open_files;
    FrameCache *plain, *heads;

    GMutex database_lock; /* making the two below */
    Database *catalog, *state;

    GMutex tmp_lock;
    char *owner;          /* name of our folder in tmp/, NULL before the first need */
    int owner_dirfd, owner_fd;
    unsigned next_name;
    StoreLease *lease;    /* taken with the first writer, kept to the end: what we committed may not be published yet */

    struct SharedCache *shared; /* attached; NULL: none. See shared-cache.h */

    int64_t ledger_at; /* monotonic time of the last writing of the ledger: see ledger.h */

    uint64_t layer_cache; /* bytes that STORE/cache may take */

    GMutex index_lock;
    BlockIndex *index;
};

/* True or an error that says the store is open for reading only. */
bool store_writable(const Store *store, GError **error);

/* "<path>: what went wrong" with the store's name, ENOSPC told as such. Returns false. */
bool store_fail_errno(const Store *store, GError **error, const char *doing);

/* A row's text for a hash: NULL is null, and what is no text, which only a changed row has, is false. */
json_t *store_text_json(const char *text);
/* channel.c: numbers of a log are dense, since a transaction that is rolled back takes its numbers back; a gap is a problem. */
void store_note_gap(GPtrArray *problems, const char *log, int64_t last, int64_t next);

/* tmp.c: our own folder in tmp/, made on first use; a fresh name in it. */
bool store_owner_dir(Store *store, int *ret_dirfd, GError **error);
char *store_fresh_name(Store *store, const char *kind);
void store_owner_close(Store *store);
/* Removes the folders of dead processes. @ret_found may be NULL. Safe at any time. */
bool store_clear_dead_owners(Store *store, bool *ret_found, GError **error);

/* recovery.c: with the exclusive lock held. Adopts whole files that no database knows, removes half ones. */
bool store_recover(Store *store, GError **error);

/* lease.c: the lowest generation a live lease started at; G_MAXINT64 when there is none. */
bool store_oldest_lease(Store *store, int64_t *ret_generation, GError **error);
bool store_hold_lease(Store *store, GError **error);

#endif
