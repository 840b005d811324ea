/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kiln serve`: the store as an OCI registry (distribution-spec 1.1), for pulls and pushes of any client.
 *
 * Without users it listens on this machine only and takes nothing. Repositories are what was pushed, and the store's own names: NAME, NAME/oci and
 * NAME/disk, with the tags "latest", the channels' names and image IDs.
 */
#ifndef KILN_STORE_SERVE_H
#define KILN_STORE_SERVE_H

#include "store/pool.h"

typedef struct ServeOptions {
    const char *const *listen; /* "HOST:PORT", "[V6]:PORT" or ":PORT"; NULL: 127.0.0.1:5000, or the sockets that systemd hands over */
    const char *certificate, *key;  /* PEM files: TLS; or both NULL */
    bool plain_http;                /* without TLS on other addresses than this machine's own */
    const char *htpasswd;           /* users; NULL: nobody is asked, nobody writes */
    const char *const *writers;     /* who of them may write; "*": all */
    bool anonymous_read;
    const char *access_log;         /* file; NULL: stderr; "-": none */

    uint64_t blob_max;              /* of one blob */
    uint64_t uploads_max;           /* of all that is being uploaded */
    uint64_t uploads_per_user;
    unsigned upload_idle;           /* seconds after which nobody goes on with it */
    unsigned connections, connections_per_address;
    unsigned idle;                  /* seconds in which a client must have said or taken something */
    unsigned stop;                  /* seconds that running requests have to end */
} ServeOptions;
void serve_options_default(ServeOptions *ret);

/* Called when it listens: the addresses, as URLs. */
typedef void ServeReadyFn(const char *const *urls, void *arg);

/* Until SIGTERM or SIGINT; SIGHUP opens the access log anew. Takes their handling over. */
bool serve_run(Store *store, const ServeOptions *options, ServeReadyFn *ready, void *arg, GError **error);

#endif
