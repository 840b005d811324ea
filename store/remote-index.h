/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands in a remote's index objects: a JSON text, who signed it, and places of bytes.
 *
 *     {"kiln": "remote 1", "payload": TEXT, "signature": {"key", "signature"}}      signature: where the writer has a key
 *
 * The signature is Ed25519's over "kiln remote 1\n", the object's key, "\n" and TEXT: an object that is moved to another key is not signed any more.
 * An index never changes what it says: it is written when all that it names is there.
 *
 * A *unit* is what belongs together and came at once, a set of images or a state: its blobs and maps, and where the blocks of its maps are:
 *
 *     {"blobs": [[DIGEST, stored bytes, packed, cache], ...], "maps": [DIGEST, ...],
 *      "segments": [[DIGEST, cache], or [DIGEST, [[TABLE, cache], ...]], ...]}
 *
 * Segments and tables are as in a store (segment-moved.h), digests hex, cache true where the object is one of the bake cache.
 */
#ifndef KILN_STORE_REMOTE_INDEX_H
#define KILN_STORE_REMOTE_INDEX_H

#include "base/json.h"
#include "base/signature.h"
#include "store/remote.h"

#define REMOTE_INDEX_MAX ((size_t)64 << 20)

/* @signer may be NULL. */
bool remote_index_put(Remote *remote, const char *key, const json_t *payload, const SignatureKey *signer, GError **error);
/* @trusted: has to be signed by it; NULL: need not be signed. KILN_ERROR_NOT_FOUND when there is none. */
bool remote_index_get(Remote *remote, const char *key, const SignatureKey *trusted, json_t **ret, GError **error);

/* The digest that stands there; none where there is no good one. */
Digest remote_index_digest(const json_t *object, const char *key);

typedef struct RemoteBlobPlace {
    Digest digest;
    uint64_t stored;
    bool packed, cache;
} RemoteBlobPlace;

typedef struct RemoteTablePlace {
    Digest table;
    bool cache;
} RemoteTablePlace;

typedef struct RemoteSegmentPlace {
    Digest segment;
    bool cache;
    GArray *tables; /* of RemoteTablePlace; NULL: the whole segment is there */
} RemoteSegmentPlace;

typedef struct RemoteUnit {
    GHashTable *blobs;    /* Digest* -> RemoteBlobPlace* */
    GHashTable *maps;     /* Digest* */
    GHashTable *segments; /* Digest* -> RemoteSegmentPlace* */
} RemoteUnit;
void remote_unit_free(RemoteUnit *unit);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RemoteUnit, remote_unit_free)
bool remote_unit_parse(const json_t *json, RemoteUnit **ret, GError **error);

/* Keys of objects; free with g_free. */
char *remote_segment_key(const Digest *segment, bool cache);
char *remote_table_key(const Digest *segment, const Digest *table, bool cache);
char *remote_blob_key(const Digest *blob, bool packed, bool cache);

#endif
