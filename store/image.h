/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What bakes publish: artifacts in sets, their names, and the step states a bake can start from.
 *
 * An image ID is the SHA-256 of the artifact's OCI config blob. Publishing is one
 * transaction: catalog first, names (state.db) last; after a crash the set is there whole or not at all.
 */
#ifndef KILN_STORE_IMAGE_H
#define KILN_STORE_IMAGE_H

#include "base/json.h"
#include "store/tree.h"

typedef struct StoreImage {
    Digest id;          /* config blob */
    char *kind;         /* "disk" or "oci" */
    char *name;         /* name of the set it was published under */
    Digest manifest;    /* blob; none for a disk that has no manifest yet */
    Digest map;         /* disk: its map */
    TreeStored tree;    /* final tree of the set (digest_none when the root could not be read) */
    uint64_t size;      /* disk: virtual size; oci: sum of compressed layers */
    uint64_t new_bytes; /* what publishing it added to the store, compressed */
    int64_t created;    /* wall clock of publishing, seconds since 1970; not part of any identity */
    int64_t set;        /* number of the set */
    char *parent;       /* text of the source's identity, for show */
    int64_t bytes_gone; /* when prune let the bytes go, seconds since 1970: only the record is left. 0: they are here */
    json_t *packages;   /* to be entered when it is published, see package-index.h; NULL: later. Never set by reading */
    GPtrArray *layers;  /* oci: of StoreLayerRef*, bottom first */
} StoreImage;

typedef struct StoreLayerRef {
    Digest blob;   /* compressed digest as in the manifest */
    Digest recipe; /* digest_none: kept verbatim as a blob */
} StoreLayerRef;

StoreImage *store_image_new(const char *kind, const char *name);
void store_image_free(StoreImage *image);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(StoreImage, store_image_free)
void store_image_add_layer(StoreImage *image, const Digest *blob, const Digest *recipe);
/* That of @kind in a set, borrowed; NULL when there is none. */
const StoreImage *store_images_find(const GPtrArray *images, const char *kind);

typedef struct StoreSet {
    const char *name;
    GPtrArray *images;      /* of StoreImage*, at most one per kind */
    Digest parent;          /* image ID it was baked from, or digest_none */
    const GArray *parents;  /* of Digest: all image IDs of the set it was baked from; NULL: @parent alone */
    Digest key;             /* the bake's final key: a later bake with it is a hit; digest_none: never */
    json_t *provenance;     /* borrowed; stored as a blob: inputs, wall clock, host, steps */
    GHashTable *inputs;     /* name -> Digest* of blobs kept with it (template, files, lock); may be NULL */
} StoreSet;

/* Names allowed: [a-z0-9][a-z0-9._-]*, at most 128, not 12 or more hex digits. */
bool store_name_check(const char *name, GError **error);

/* Publishes; sets @set of each image. Publishing the same image IDs under the same name again is harmless and makes them the newest. */
bool store_publish(Store *store, const StoreSet *set, GError **error);

/* The set published under @key, newest first; *ret is NULL when there is none (still true). Array of StoreImage*. */
bool store_find_set_by_key(Store *store, const Digest *key, const char *name, GPtrArray **ret, GError **error);

/*
 * REF: image ID ("sha256:..."), a unique prefix of 12 or more hex digits, or NAME[/KIND][:CHANNEL|@MANIFEST-DIGEST] (bare: newest).
 * @kind: "disk", "oci" or NULL when the verb can use either (ambiguity is then an error that asks for /disk or /oci).
 */
bool store_resolve(Store *store, const char *ref, const char *kind, StoreImage **ret, GError **error);

/* The same for who only reads what is written about an image: store_resolve() refuses one whose bytes are gone, this does not. */
bool store_resolve_record(Store *store, const char *ref, const char *kind, StoreImage **ret, GError **error);

/* The whole set that REF's image belongs to, by kind; only that image where REF names a kind. Array of StoreImage*. */
bool store_resolve_set(Store *store, const char *ref, GPtrArray **ret, GError **error);
bool store_resolve_set_record(Store *store, const char *ref, GPtrArray **ret, GError **error);

/* All images, newest first; array of StoreImage*. @all: also those no name refers to as newest, and records whose bytes are gone. */
bool store_list_images(Store *store, bool all, GPtrArray **ret, GError **error);
/* The config whose digest is @id, parsed; refused over @max bytes. @ret_bytes as they are hashed, may be NULL. */
bool store_image_config(Store *store, const Digest *id, size_t max, GBytes **ret_bytes, json_t **ret, GError **error);
/* The blobs that its set was published with, name -> Digest*. */
bool store_image_inputs(Store *store, const StoreImage *image, GHashTable **ret, GError **error);
bool store_image_provenance(Store *store, const StoreImage *image, json_t **ret, GError **error);

/* `tests` of the provenance of every set that has the image, one list; empty when no test was recorded. */
bool store_image_tests(Store *store, const Digest *image, json_t **ret, GError **error);

/* Removes the record too (bytes go with the next gc). Refused while a name other than its own, a channel, a group or a keep holds it. */
bool store_remove_image(Store *store, const StoreImage *image, GError **error);

/* A step's state in the bake cache: private, may be dropped at any time by gc. */
typedef struct StoreState {
    Digest key;
    Digest content;    /* tree digest, or block content digest where the root cannot be read */
    Digest map;        /* private map of the working disk; digest_none for states without a disk */
    TreeStored tree;   /* set for states that start a bake (bootstrap, oci); else digest_none */
    char *info;        /* canonical JSON of the owner (baker), opaque here; may be NULL */
    int64_t created;   /* seconds since 1970; 0: now */
    int64_t expires;   /* the same; 0: never */
} StoreState;
StoreState *store_state_new(void);
void store_state_free(StoreState *state);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(StoreState, store_state_free)
bool store_state_put(Store *store, const StoreState *state, GError **error);
/* *ret NULL when absent or expired (still true). Also checks that map and tree are there. */
bool store_state_get(Store *store, const Digest *key, StoreState **ret, GError **error);

/* Files downloaded or imported (vendor images, OCI layers), remembered by what they were asked as: key text -> map or blob. */
bool store_memo_put(Store *store, const char *key, const char *value, const Digest *keeps_blob, const Digest *keeps_map, GError **error);
bool store_memo_get(Store *store, const char *key, char **ret_value, GError **error); /* NULL when absent */

#endif
