/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where `kiln serve` listens: addresses, sockets that systemd hands over, and what it tells systemd.
 */
#ifndef KILN_STORE_SERVE_LISTEN_H
#define KILN_STORE_SERVE_LISTEN_H

#include "store/serve.h"

typedef struct ServeSocket {
    int fd;
    char *url;
} ServeSocket;

/*
 * Listening sockets. Refused: an address beyond this machine without users, or with users and neither TLS nor plain_http. Array of ServeSocket*.
 */
bool serve_listen(const ServeOptions *options, GPtrArray **ret, GError **error);

/* sd_notify: nothing where nobody wants to know. */
void serve_notify(const char *state);

#endif
