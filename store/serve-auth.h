/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may do what at `kiln serve`: users and their hashes from a file as htpasswd writes it, read again when it changes.
 */
#ifndef KILN_STORE_SERVE_AUTH_H
#define KILN_STORE_SERVE_AUTH_H

#include <glib.h>
#include <stdbool.h>

#define SERVE_HTPASSWD_MAX (1u << 20)

typedef struct ServeAuth ServeAuth;

/*
 * @file NULL: everybody may read, nobody may write. @writers: users who may write, "*" for all; those need not be in the file yet. @anonymous: who
 * says no name may read.
 */
bool serve_auth_new(const char *file, const char *const *writers, bool anonymous, ServeAuth **ret, GError **error);
void serve_auth_free(ServeAuth *auth);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ServeAuth, serve_auth_free)

typedef enum ServeVerdict {
    SERVE_ALLOWED,
    SERVE_UNKNOWN, /* 401: who are you? */
    SERVE_DENIED,  /* 403: you may not */
} ServeVerdict;

/* @authorization: the header or NULL. *ret_user: the proved name, or NULL; free with g_free. Any thread. */
ServeVerdict serve_auth_check(ServeAuth *auth, const char *authorization, bool write, char **ret_user);

/* Is anybody asked for a name at all? */
bool serve_auth_asks(const ServeAuth *auth);

/* Lines "user:hash", '#' and empty lines aside, as a table user -> hash. Hashes that libcrypt can't check, or that are weak, are refused. */
bool serve_htpasswd_parse(const char *text, const char *what, GHashTable **ret, GError **error);

#endif
