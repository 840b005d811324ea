/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Published sets in a remote: pushed from one store, listed, pulled into another.
 *
 *     index/NAME/ID[-ID]      an index (remote-index.h) for each set: its record, and where its bytes are
 *     segments/ moved/ blobs/ bytes
 *
 * The index is written last, so a push that was cut short shows nothing, and the next one goes on. Nobody changes another's object.
 *
 * A pull takes what the store lacks, publishes the set there under its name, and so makes it the name's newest. What is pulled is held against
 * its image IDs: a disk's blocks, a layer's bytes, each file of a root. With a trusted key the index has to be signed by it, which covers all that.
 */
#ifndef KILN_STORE_REMOTE_SYNC_H
#define KILN_STORE_REMOTE_SYNC_H

#include "store/image.h"
#include "store/remote-push.h"

typedef struct RemoteSet {
    char *key, *name;
    int64_t created; /* seconds since 1970, by the clock of who published it */
    json_t *payload;
} RemoteSet;
void remote_set_free(RemoteSet *set);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RemoteSet, remote_set_free)

/* @images: a whole set (store_resolve_set()). @signer may be NULL. Refused: sets whose bytes are gone, and revoked images. */
bool remote_sync_push(RemotePush *push, const GPtrArray *images, const SignatureKey *signer, GError **error);

/* An index of any kind, for shared-cache.c: first the bytes that it names, then @payload, which gets its unit. */
bool remote_sync_put_unit(RemotePush *push, const char *key, json_t *payload, const GArray *blobs, const GArray *maps, const SignatureKey *signer,
                          GError **error);
/* The same with all that a set needs, by its record. */
bool remote_sync_record(Store *store, int64_t set, json_t **ret, GError **error);
bool remote_sync_put(RemotePush *push, const char *key, json_t *payload, const json_t *record, const SignatureKey *signer, GError **error);

/* Sets, oldest first; only @name's unless that is NULL. Those that @trusted (may be NULL) did not sign are left out, and warned of. */
bool remote_sync_list(Remote *remote, const char *name, const SignatureKey *trusted, GPtrArray **ret, GError **error);
/* @ref: NAME (its newest set), an image ID, or 12 or more of its digits. */
bool remote_sync_find(Remote *remote, const char *ref, const SignatureKey *trusted, RemoteSet **ret, GError **error);

/* *ret_new: it was not published here under this name yet. */
bool remote_sync_pull(Store *store, Remote *remote, const RemoteSet *set, bool trusted, bool *ret_new, RemoteReport *report, GError **error);

#endif
