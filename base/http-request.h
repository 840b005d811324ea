/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single HTTP requests, for who speaks an API: any method, headers, a body out of memory or a file, an answer into memory or to a
 * function. The second file of the door to libcurl; whole files by URL are http.h's.
 *
 * A client keeps its connections and may be used by several threads at once: each gets a connection of its own (HTTP/2 where
 * the server offers it). Redirects are followed for GET and HEAD only, at most ten, never from https to http; headers that say who we are
 * do not go to another host.
 *
 * A request is tried once. What came of it is in the answer, so that the caller knows whether and from where to go on:
 *
 *     HttpPatience patience = {0};
 *     for (;;) {
 *         if (!http_request(client, &request, &answer, &why)) return fatal;     // our own fault, or the user's interrupt
 *         if (!http_answer_is_transient(&answer)) break;
 *         if (!http_patience_wait(&patience, gained, &answer, error)) return false;
 *     }
 */
#ifndef KILN_BASE_HTTP_REQUEST_H
#define KILN_BASE_HTTP_REQUEST_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct HttpClient HttpClient;

/* Files of PEM; each may be NULL. @ca_file is trusted beside what the system trusts, or @ca_alone instead of it. */
typedef struct HttpTls {
    const char *ca_file, *cert_file, *key_file;
    bool ca_alone;
} HttpTls;

HttpClient *http_client_new(const HttpTls *tls /* copied; may be NULL */);
void http_client_free(HttpClient *client);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HttpClient, http_client_free)

/*
 * Signs requests to S3 (AWS Signature Version 4, by libcurl). The query of the URL has to be sorted and encoded as signing wants it: it is signed as it
 * stands. Such requests follow no redirect.
 */
typedef struct HttpSigner {
    const char *access_key, *secret_key, *region;
} HttpSigner;

/* Bytes of the answer's body, of a 2xx one only. False with an error ends the request. */
typedef bool HttpBodyFn(const void *data, size_t size, void *arg, GError **error);
/* Headers are there; before the first byte of the body. False with an error ends the request. */
struct HttpAnswer;
typedef bool HttpBeginFn(struct HttpAnswer *answer, void *arg, GError **error);

typedef struct HttpRequest {
    const char *method, *url;
    const char *const *headers; /* "Name: value", NULL-terminated; may be NULL */
    const HttpSigner *signer;   /* may be NULL */
    const void *body;           /* @body_size bytes, or NULL: from @body_fd at @body_offset */
    int body_fd;
    uint64_t body_offset, body_size;
    bool has_body; /* an empty one counts */
    void (*on_sent)(uint64_t more, void *arg); /* of the body; may be NULL */
    HttpBeginFn *on_begin; /* may be NULL */
    HttpBodyFn *on_body; /* NULL: into the answer */
    void *arg;
    size_t max_body; /* of what goes into the answer; more is an error. 0: 64 KiB. What is not a 2xx is cut there */
    double timeout;  /* for all of it, seconds; 0: as long as something moves */
} HttpRequest;

typedef struct HttpAnswer {
    int status; /* 0: none came, or it was cut: see @trouble */
    GHashTable *headers; /* lower-case name -> value; several of one name joined by ", " */
    GBytes *body; /* never NULL; followed by a NUL */
    char *trouble; /* NULL, or how the connection failed */
    bool early;    /* before anything was sent */
    bool known;    /* the client had an answer before, which was no refusal: the server is there, or was */
    bool hopeless; /* trying again is of no use: a certificate, a redirect in a circle */
    double retry_after; /* seconds */
    char *url; /* that answered */
} HttpAnswer;
void http_answer_clear(HttpAnswer *answer);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(HttpAnswer, http_answer_clear)
const char *http_answer_header(const HttpAnswer *answer, const char *name); /* lower-case; or NULL */

/* Clears @ret first. False: an interrupt, an error of a callback, an answer over its bound. */
bool http_request(HttpClient *client, const HttpRequest *request, HttpAnswer *ret, GError **error);

/* 408, 425, 429, most of 5xx, and connections that failed. */
bool http_answer_is_transient(const HttpAnswer *answer);
/* "server answered 503" or what the trouble is. Free with g_free. */
char *http_answer_words(const HttpAnswer *answer);

/*
 * How long to go on. A server that never answered is given up soon: its name may be wrong. One that did and is gone, busy (429, 502, 503, 504)
 * or breaks off in the middle is tried for at least $KILN_PATIENCE seconds (60) in which nothing was gained, and several times in any case. Where only
 * the answer broke, the next try comes within a second: small answers can't be continued, and each is all or nothing.
 */
typedef struct HttpPatience {
    unsigned all, in_a_row;
    int64_t since; /* the first failure of those in a row, in monotonic us */
} HttpPatience;
/* Waits: longer each time, and as long as the server asks. @gained: bytes were won since the last time. False when it has been enough. */
bool http_patience_wait(HttpPatience *patience, bool gained, const HttpAnswer *answer, const char *what, GError **error);
/* The same without waiting, at the time @now. *ret_seconds: to wait. */
bool http_patience_judge(HttpPatience *patience, bool gained, const HttpAnswer *answer, int64_t now, double *ret_seconds);

/* Is the host, or the URL's, this machine's loopback? By its name alone; 127.example.org is somebody else. */
bool http_host_is_loopback(const char *host);
bool http_url_is_loopback(const char *url);

#endif
