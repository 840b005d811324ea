/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repositories as rows: what was pushed into a store by an OCI client.
 *
 * A manifest that was pushed is a set without images, named like its repository, so that gc, sync, fsck and a rebuild know it as they know any
 * set. Its references (image 0) are
 *
 *     pushed-manifest  name: its digest; a second one where it was pushed by sha512    digest: the manifest's blob
 *     pushed-subject   name: the digest that it refers to                              digest: the manifest's blob
 *     pushed           name: a blob's digest as the manifest has it                    digest: the blob
 *     pushed-recipe    the same                                                        digest: the recipe that makes it
 *     pushed-map       the same                                                        digest: the recipe's payload map
 *
 * A tag is a row of state.db's repository_tag. A blob that no manifest of its repository names yet hangs on a memo, "repository:NAME@DIGEST",
 * which gc forgets after a day.
 */
#ifndef KILN_STORE_SERVE_ROWS_H
#define KILN_STORE_SERVE_ROWS_H

#include "store/catalog.h"
#include "store/pool.h"
#include "store/serve-target.h"

#define SERVE_LINK_PREFIX "repository:"
#define SERVE_LINK_END "repository;"
#define SERVE_LINK_AGE (24 * 3600)
/* The store's own disks, as they were made to be served (serve-disk.c): how long, and how many bytes of them, gc leaves. */
#define SERVE_DISK_PREFIX "served-disk:"
#define SERVE_DISK_AGE (30 * 86400)
#define SERVE_DISK_QUOTA (20ull << 30)

/* Where the bytes of a blob are. */
typedef struct ServeLink {
    Digest blob;   /* SHA-256 of the bytes that are served */
    Digest recipe; /* none: stored as they are */
    Digest map;    /* the recipe's payload; none: it has none */
    bool segment;  /* a file in segments/, or made of such */
    Digest pieces; /* says of which; none: it is one (serve-pieces.c) */
    uint64_t size;
} ServeLink;

/* The blob in this repository; *ret_found false (still true): it has none. */
bool serve_link_find(Store *store, const char *repository, const char *digest, ServeLink *ret, bool *ret_found, GError **error);
/* In whichever repository it was pushed into. */
bool serve_link_find_anywhere(Store *store, const char *digest, ServeLink *ret, bool *ret_found, GError **error);
/* In a catalog transaction. */
bool serve_link_put(Database *catalog, const char *repository, const char *digest, const ServeLink *link, GError **error);
bool serve_link_remove(Store *store, const char *repository, const char *digest, bool *ret_found, GError **error);
/* Does a manifest of the repository name it? */
bool serve_link_is_needed(Store *store, const char *repository, const char *digest, bool *ret, GError **error);

typedef struct ServeNamedLink {
    char digest[SERVE_DIGEST_SIZE];
    ServeLink link;
} ServeNamedLink;

typedef struct ServePush {
    const char *repository;
    Digest manifest;         /* its blob is in the store */
    const char *wide;        /* "sha512:..." when it is named so too; or NULL */
    const char *subject;     /* or NULL */
    const GArray *links;     /* of ServeNamedLink: what it names and the store has */
    const char *const *tags; /* NULL-terminated */
    Digest image;            /* the container image that was published of it; none */
} ServePush;

/* Durable on return; the tags move last. */
bool serve_manifest_put(Store *store, const ServePush *push, GError **error);
/* *ret_manifest: its blob; none when the repository has no such manifest. */
bool serve_manifest_find(Store *store, const char *repository, const ServeDigest *digest, Digest *ret_manifest, GError **error);
/* With the tags that point at it; its blobs stay a day. */
bool serve_manifest_remove(Store *store, const char *repository, const ServeDigest *digest, bool *ret_found, GError **error);

/* In a catalog transaction: what was pushed as the image with this manifest goes with the image. None: nothing is done. */
bool serve_manifest_forget(Database *catalog, const char *repository, const Digest *manifest, GError **error);

typedef struct ServeTag {
    Digest manifest; /* none: there is no such tag */
    char wide[SERVE_DIGEST_SIZE]; /* what its client calls it, where that is no SHA-256; else empty */
    int64_t at;      /* microseconds since 1970 */
} ServeTag;
bool serve_tag_find(Store *store, const char *repository, const char *tag, ServeTag *ret, GError **error);
bool serve_tag_remove(Store *store, const char *repository, const char *tag, bool *ret_found, GError **error);

/* Adds char * keys. */
bool serve_tags_list(Store *store, const char *repository, GHashTable *to, GError **error);
bool serve_repositories_list(Store *store, GHashTable *to, GError **error);
/* Is anything pushed there? */
bool serve_repository_exists(Store *store, const char *repository, bool *ret, GError **error);

/* Manifests with this subject, by their digest, of those after @after; at most @limit. Array of Digest. */
bool serve_referrers(Store *store, const char *repository, const char *subject, const char *after, unsigned limit, GArray **ret, GError **error);

#endif
