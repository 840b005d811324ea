/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The port of remotes: places elsewhere that keep objects, byte strings under a key. What is in them is not their business (remote-sync.h and
 * shared-cache.h know); they only promise that
 *
 *   - a put is whole or not at all: nobody ever sees half an object, whoever is killed when;
 *   - what was put is there for everybody afterwards, and lists;
 *   - bytes come in their order, once each, across retries. Whether they are the right ones is for the caller, who gives a digest.
 *
 * Keys are segments of [A-Za-z0-9._-] with slashes between, none of them empty or with a dot in front, KEY_MAX bytes in all: fit for a folder,
 * a bucket, a path of a URL.
 *
 * A member is remote-NAME.c and a line in remote-table.c. tests/unit/test-conform-remote.c holds all of them to these promises.
 */
#ifndef KILN_STORE_REMOTE_H
#define KILN_STORE_REMOTE_H

#include "base/digest.h"

#define REMOTE_KEY_MAX 512
#define REMOTE_PAGE 1000 /* keys of a list at once */
#define REMOTE_SIZE_UNKNOWN UINT64_MAX /* in a list */

typedef struct RemoteOptions {
    bool plain_http; /* not only to this machine */
    bool create;     /* made where it is absent, as far as a member makes such things */
} RemoteOptions;

/* Gets the bytes of an object, in order. */
typedef bool RemoteSinkFn(const void *data, size_t size, void *arg, GError **error);

typedef struct RemoteEntry {
    char *key;
    uint64_t size;   /* or REMOTE_SIZE_UNKNOWN */
    int64_t changed; /* seconds since 1970; 0: not known */
} RemoteEntry;
void remote_entry_free(RemoteEntry *entry);
RemoteEntry *remote_entry_new(const char *key, uint64_t size, int64_t changed);

/* What is to be put: bytes of a file, or of memory where @fd is negative. */
typedef struct RemoteBody {
    int fd;
    const void *data;
    uint64_t size;
    Digest digest; /* of all of them: a member may have the other side check it */
} RemoteBody;

typedef struct RemoteOps {
    const char *scheme;  /* "s3": all that begins with "s3:" */
    const char *example; /* for messages */
    /* @location is the whole text. */
    bool (*open)(const char *location, const RemoteOptions *options, void **ret, GError **error);
    void (*close)(void *self); /* also of a half-open one */
    /* Bytes from @offset on, @size of them or (UINT64_MAX) all. KILN_ERROR_NOT_FOUND when there is none. */
    bool (*get)(void *self, const char *key, uint64_t offset, uint64_t size, RemoteSinkFn *sink, void *arg, GError **error);
    /* @if_absent: one that is there stays as it is, which is no error. *ret_new: it was not there. */
    bool (*put)(void *self, const char *key, const RemoteBody *body, bool if_absent, bool *ret_new, GError **error);
    bool (*head)(void *self, const char *key, bool *ret_there, uint64_t *ret_size, GError **error);
    /* Keys that begin with @prefix and sort behind @after (bytewise; NULL: from the first), at most REMOTE_PAGE: RemoteEntry* into @to. */
    bool (*list)(void *self, const char *prefix, const char *after, GPtrArray *to, bool *ret_more, GError **error);
    bool (*remove)(void *self, const char *key, GError **error); /* none is no problem */
} RemoteOps;

/* remote-table.c: NULL-terminated. */
extern const RemoteOps *const remote_table[];

typedef struct Remote Remote; /* any thread; one call at a time */

/* "s3://BUCKET/PREFIX", "docker://HOST/REPOSITORY", "file:DIR"; else KILN_ERROR_USAGE that says what there is. */
bool remote_open(const char *location, const RemoteOptions *options, Remote **ret, GError **error);
void remote_close(Remote *remote);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Remote, remote_close)
const char *remote_location(const Remote *remote);
bool remote_is_location(const char *text);

typedef struct RemoteTraffic {
    uint64_t fetched, sent; /* bytes of objects */
    uint64_t requests;
} RemoteTraffic;
void remote_traffic(Remote *remote, RemoteTraffic *ret);

/* A whole object of at most @max bytes into memory; @expected may be NULL. */
bool remote_get(Remote *remote, const char *key, const Digest *expected, size_t max, GBytes **ret, GError **error);
/* The same into the file @fd from its start; refused as soon as it has more than @max bytes; other bytes than @expected are an error. */
bool remote_get_file(Remote *remote, const char *key, const Digest *expected, uint64_t max, int fd, uint64_t *ret_size, GError **error);
/* Part of one. */
bool remote_get_range(Remote *remote, const char *key, uint64_t offset, size_t size, GBytes **ret, GError **error);

bool remote_put(Remote *remote, const char *key, const void *data, size_t size, bool if_absent, bool *ret_new, GError **error);
/* All of the file @fd, whose digest is @digest. */
bool remote_put_file(Remote *remote, const char *key, int fd, const Digest *digest, bool if_absent, bool *ret_new, GError **error);

bool remote_head(Remote *remote, const char *key, bool *ret_there, uint64_t *ret_size, GError **error);
/* Every key under @prefix, sorted, however many pages that takes; refused over @max. Of RemoteEntry*. */
bool remote_list(Remote *remote, const char *prefix, size_t max, GPtrArray **ret, GError **error);
bool remote_remove(Remote *remote, const char *key, GError **error);

/* PREFIX/ab/<64 hex digits>: objects under the name of their bytes. Free with g_free. */
char *remote_digest_key(const char *prefix, const Digest *digest);

#endif
