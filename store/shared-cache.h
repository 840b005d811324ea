/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bake cache that machines share through a remote: states of steps, memos (what packages were resolved to), and sets by the key of their bake.
 *
 *     cache/state/ab/KEY   cache/memo/ab/H(key)   cache/result/ab/H(key, name)      entries, each an index (remote-index.h)
 *     cache/segments/ cache/moved/ cache/blobs/                                     private bytes; sets' are where those of sync are
 *
 * Whoever can write an entry decides what others bake, so each is signed, and one that the given key did not sign is none.
 *
 * Entries are small and say digests only. What a state consists of is *promised*: a map is opened without its blocks, and these are fetched with
 * the first of them that is read; so a bake that finds all its steps fetches none, and the set that it made before.
 *
 * A store uses a cache while it is attached: store_state_get(), store_memo_get() and store_find_set_by_key() then look there for what the store
 * lacks. Nothing else does: what is verified, audited or published is the store's own. Private states stay private: they are
 * segments of that class here, too, and no artifact can refer to them.
 */
#ifndef KILN_STORE_SHARED_CACHE_H
#define KILN_STORE_SHARED_CACHE_H

#include "store/image.h"
#include "store/remote-push.h"

typedef struct SharedCacheOptions {
    const char *from, *to;            /* remotes; NULL: none */
    const char *key;                  /* file: a private key for @to, either half for @from alone */
    const char *const *memo_prefixes; /* of memos that mean the same on every machine; NULL-terminated, kept by the caller */
    bool plain_http;
} SharedCacheOptions;

typedef struct SharedCache SharedCache; /* any thread */
bool shared_cache_open(const SharedCacheOptions *options, SharedCache **ret, GError **error);
void shared_cache_close(SharedCache *cache);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SharedCache, shared_cache_close)

/* NULL: none any more. The cache outlives what is attached. */
void store_attach_cache(Store *store, SharedCache *cache);

/* Every block of a map is here afterwards, before somebody without us reads it. One that was not promised is fine. */
bool store_provide_map(Store *store, const Digest *map, GError **error);

/* Something that was promised could not be had. Nothing is looked for any more; whoever began with it begins again. */
bool shared_cache_failed(SharedCache *cache);

/*
 * Brings what the store has of its own to the remote that is written to: @states (Digest), @images (may be NULL), and the memos that were
 * used or made while it was attached. What is there already is not sent again.
 */
bool shared_cache_push(SharedCache *cache, Store *store, const GArray *states, const GPtrArray *images, GError **error);
bool shared_cache_writes(const SharedCache *cache);

typedef struct SharedCacheReport {
    RemoteReport fetched, pushed;
    uint64_t hits; /* entries that were found */
} SharedCacheReport;
void shared_cache_report(SharedCache *cache, SharedCacheReport *ret);

#endif
