/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Downloads: resumable, bounded, checked. The door to libcurl.
 *
 * A URL is first held against the --url-map list: "PREFIX=DIR" answers every
 * URL that starts with PREFIX from the file DIR/REST; checksums still apply.
 * file:// URLs are read as files. Redirects stay within http and https.
 */
#ifndef KILN_BASE_HTTP_H
#define KILN_BASE_HTTP_H

#include "base/digest.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* Adds one PREFIX=DIR; wrong syntax is KILN_ERROR_USAGE. Also reads KILN_URL_MAP (space-separated) once. */
bool http_url_map_add(const char *prefix_and_dir, GError **error);

/* Where the list says that @url is, whatever its scheme; *ret (to be freed) is NULL where it does not. */
bool http_url_mapped(const char *url, char **ret, GError **error);

typedef struct HttpDownload {
    const char *url;
    uint64_t max_size; /* refuse more; 0 is no limit */
    const char *title; /* progress bar; NULL for none */
    const char *etag; /* *ret_etag of an earlier answer: not fetched when unchanged; needs ret_unchanged; may be NULL */
    bool *ret_unchanged; /* set to whether the server says so; the file is then not touched; may be NULL */
    char **ret_etag;     /* the answer's ETag, else its Last-Modified where that was a minute ago, or NULL; to be freed; may be NULL */
} HttpDownload;

/*
 * Fetches into (dirfd, name). If the file exists it is a partial earlier
 * download and is continued with a Range request when the server allows it
 * (and its validator still holds, kept beside it as NAME.validator until the end), else started again.
 * Retries transient failures a few times with backoff. The file is complete when this returns true. Two
 * processes may fetch the same name: the second one waits.
 */
bool http_download(const HttpDownload *request, int dirfd, const char *name, GError **error);

/*
 * Asks once, within @timeout seconds, and follows no redirect: to see whether somebody answers. Any status is
 * an answer. At most @max_body bytes are kept in *ret_body (may be NULL). Not held against the --url-map
 * list.
 */
bool http_get(const char *url, size_t max_body, double timeout, int *ret_status, GBytes **ret_body,
              GError **error);

/*
 * Many such questions at once, from one thread: health checks. Each has a connection of its own, no proxy, and no more than 16 KiB of its answer
 * are read. With @connect_only a TCP connection is all that is asked for.
 */
typedef struct HttpProbes HttpProbes;
/* @status: 0 where none came; @problem: NULL, or a few words ("connection refused"). */
typedef void HttpProbeFn(void *tag, int status, const char *problem, void *arg);
HttpProbes *http_probes_new(void);
void http_probes_abandon(HttpProbes *probes, HttpProbeFn *fn, void *arg); /* what is under way is given up: "given up" */
void http_probes_free(HttpProbes *probes); /* as abandon, without a call */
void http_probes_add(HttpProbes *probes, const char *url, bool connect_only, double timeout, void *tag);
/* Works for at most @seconds, less when a probe ends or somebody wakes it; calls @fn for each that has ended. */
void http_probes_run(HttpProbes *probes, double seconds, HttpProbeFn *fn, void *arg);
void http_probes_wake(HttpProbes *probes); /* from any thread */

#endif
