/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request asks for: the texts of strangers that `kiln serve` reads before it knows who asks. No I/O, nothing of HTTP's library.
 */
#ifndef KILN_STORE_SERVE_TARGET_H
#define KILN_STORE_SERVE_TARGET_H

#include "base/digest.h"

#define SERVE_NAME_MAX 255
#define SERVE_TAG_MAX 128
#define SERVE_QUERY_MAX 128

typedef enum ServeEndpoint {
    SERVE_NOWHERE,   /* no such path */
    SERVE_BASE,      /* /v2/ */
    SERVE_CATALOG,   /* /v2/_catalog */
    SERVE_BLOB,      /* /v2/NAME/blobs/DIGEST */
    SERVE_UPLOADS,   /* /v2/NAME/blobs/uploads/ */
    SERVE_UPLOAD,    /* /v2/NAME/blobs/uploads/SESSION */
    SERVE_MANIFEST,  /* /v2/NAME/manifests/TAG-OR-DIGEST */
    SERVE_TAGS,      /* /v2/NAME/tags/list */
    SERVE_REFERRERS, /* /v2/NAME/referrers/DIGEST */
    SERVE_METRICS,
    SERVE_HEALTH,
    SERVE_READY,
} ServeEndpoint;

typedef struct ServeTarget {
    ServeEndpoint endpoint;
    char *name;       /* repository, valid; NULL where the endpoint has none */
    char *reference;  /* digest, tag or session as it was written */
    GPtrArray *query; /* char *: key, value, key, value... */
    const char *code; /* not NULL: it is refused with this error code and... */
    const char *why;  /* ...this sentence */
} ServeTarget;

/* @raw: the request line's target, escapes and all. What is wrong with it is in @code; @ret is filled in any case. */
void serve_target_parse(const char *raw, ServeTarget *ret);
void serve_target_clear(ServeTarget *target);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ServeTarget, serve_target_clear)

/* The first value of a key, or NULL. */
const char *serve_target_query(const ServeTarget *target, const char *key);

bool serve_name_is_valid(const char *name); /* of a repository, as the distribution specification has it */
bool serve_tag_is_valid(const char *tag);

/* "sha256:" and 64, or "sha512:" and 128 lower-case hex digits. */
#define SERVE_DIGEST_SIZE 136
typedef struct ServeDigest {
    char text[SERVE_DIGEST_SIZE];
    bool wide;     /* sha512 */
    Digest narrow; /* none when it is wide */
} ServeDigest;
bool serve_digest_parse(const char *text, ServeDigest *ret);

typedef enum ServeRangeKind { SERVE_RANGE_ALL, SERVE_RANGE_PART, SERVE_RANGE_BAD } ServeRangeKind;
/*
 * The header "Range" for something of @size bytes: *ret_first and *ret_last (inclusive) for a part, which is never empty. What no server has to
 * understand (another unit, several ranges) asks for all of it; what lies outside is bad.
 */
ServeRangeKind serve_range_parse(const char *text, uint64_t size, uint64_t *ret_first, uint64_t *ret_last);

/* "Content-Range" of an upload's chunk: "FIRST-LAST", also "bytes FIRST-LAST/SIZE" as some clients have it. */
bool serve_chunk_range_parse(const char *text, uint64_t *ret_first, uint64_t *ret_last);

/* "Authorization: Basic ...": false for another scheme or what is malformed. Both are UTF-8 without control characters. */
bool serve_basic_parse(const char *text, char **ret_user, char **ret_password);

/* A media type without its parameters, lower-case; NULL when it is none. */
char *serve_media_type(const char *text);

/* For logs and Link headers: everything but unreserved characters escaped. */
char *serve_escape(const char *text);

#endif
