/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request of the S3 protocol, signed by libcurl (AWS Signature Version 4). What requests mean, and when to ask again, is store/remote-s3.c's.
 *
 * The query of the URL has to be sorted and encoded as signing wants it: libcurl signs it as it stands.
 */
#ifndef KILN_BASE_HTTP_S3_H
#define KILN_BASE_HTTP_S3_H

#include "base/digest.h"

typedef struct HttpS3Signer {
    const char *access_key, *secret_key;
    const char *session_token; /* NULL: none */
    const char *region;
    const char *ca_file; /* NULL: the system's */
} HttpS3Signer;

/* Bytes of a good answer, as they come. */
typedef bool HttpS3SinkFn(const void *data, size_t size, void *arg, GError **error);

typedef struct HttpS3Request {
    const char *method; /* GET PUT POST HEAD DELETE */
    const char *url;
    const char *const *headers; /* "Name: value", NULL-terminated; may be NULL */
    int body_fd;                /* PUT: the body is this file's from body_offset on; negative: it is @body */
    uint64_t body_offset, body_size;
    const void *body;
    const Digest *body_digest; /* NULL: is computed, of @body only */
    HttpS3SinkFn *sink;        /* for the body of a 2xx answer; NULL: it is kept, as that of others is */
    void *arg;
} HttpS3Request;

#define HTTP_S3_BODY_MAX ((size_t)8 << 20) /* of answers that are kept */

typedef struct HttpS3Answer {
    int status;          /* 0: none came */
    bool may_try_again;  /* without an answer: such things pass */
    char *problem;       /* without an answer: what curl says */
    char *etag;          /* quotes included */
    uint64_t length;     /* Content-Length; 0 unknown */
    double retry_after;  /* seconds; 0: nothing said */
    GByteArray *body;    /* what was kept; never NULL */
} HttpS3Answer;
void http_s3_answer_clear(HttpS3Answer *answer);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(HttpS3Answer, http_s3_answer_clear)

/* Keeps connections. One thread at a time. */
typedef struct HttpS3 HttpS3;
HttpS3 *http_s3_new(void);
void http_s3_free(HttpS3 *s3);

/*
 * True: *ret tells how it went, be that well or not. False: what the sink said, an interruption, or an endless answer. @ret is to be
 * cleared in any case.
 */
bool http_s3_perform(HttpS3 *s3, const HttpS3Signer *signer, const HttpS3Request *request, HttpS3Answer *ret, GError **error);

#endif
