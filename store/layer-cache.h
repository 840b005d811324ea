/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers that were made again from their recipes, kept for the next who asks: STORE/cache/<hex>, the compressed bytes as they are.
 *
 *     if (layer_cache_find(store, blob, size, &fd))  copy from fd
 *     else  entry = layer_cache_begin(...); layer_cache_put(entry, ...)*; layer_cache_keep(entry) when the digest was right; _free
 *
 * Nothing here is precious and nothing here fails: what cannot be kept is not kept. Together the entries never take more than the
 * quota (store_set_layer_cache), however many processes export.
 */
#ifndef KILN_STORE_LAYER_CACHE_H
#define KILN_STORE_LAYER_CACHE_H

#include "store/pool.h"

#define LAYER_CACHE_QUOTA (2ull << 30)  /* unless somebody says otherwise */
#define LAYER_CACHE_LEAST (256u * 1024u) /* what is smaller is made faster than looked for */

/* Its bytes, verified just now, read from the start; false: make them. Who gets it last goes last. */
bool layer_cache_find(Store *store, const Digest *blob, uint64_t size, int *ret_fd);

typedef struct LayerCacheEntry LayerCacheEntry;

/* Room for @size bytes, for which the least recently used make way. NULL: go without. All functions below take NULL. */
LayerCacheEntry *layer_cache_begin(Store *store, const Digest *blob, uint64_t size);
void layer_cache_put(LayerCacheEntry *entry, const void *data, size_t size);
void layer_cache_keep(LayerCacheEntry *entry);       /* after the last byte, and when the digest was right */
void layer_cache_entry_free(LayerCacheEntry *entry); /* without layer_cache_keep: nothing stays */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LayerCacheEntry, layer_cache_entry_free)

/* Removes entries for which @wanted is false, and what is over the quota. Returns the bytes that went. */
typedef bool LayerWantedFn(const Digest *blob, void *arg);
uint64_t layer_cache_trim(Store *store, LayerWantedFn *wanted, void *arg);

uint64_t layer_cache_bytes(Store *store);

#endif
