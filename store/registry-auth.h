/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who we are to a registry: passwords from the files of docker and podman, in this order:
 *
 *   $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, $XDG_CONFIG_HOME/containers/auth.json, $DOCKER_CONFIG/config.json
 *
 * In each: credHelpers of the host, auths (most exact first: HOST/PATH, HOST, or a URL of it), credsStore. Helpers are programs
 * docker-credential-NAME, asked on their standard input.
 */
#ifndef KILN_STORE_REGISTRY_AUTH_H
#define KILN_STORE_REGISTRY_AUTH_H

#include "base/json.h"

#include <glib.h>
#include <stdbool.h>

typedef struct RegistryLogin {
    char *user, *password; /* both NULL: nobody in particular */
    char *identity;        /* a token to get tokens by, instead */
} RegistryLogin;
void registry_login_clear(RegistryLogin *login);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(RegistryLogin, registry_login_clear)
bool registry_login_find(const char *host, const char *repository, RegistryLogin *ret, GError **error);

/* Of one file's text. *ret_helper: the program to ask instead, or NULL; to free. False: nothing in there fits. No I/O. */
bool registry_login_in(const json_t *config, const char *host, const char *repository, RegistryLogin *ret, char **ret_helper);

/* A WWW-Authenticate header. */
typedef struct RegistryChallenge {
    bool bearer, basic;
    char *realm, *service, *scope; /* of the bearer's; may be NULL */
} RegistryChallenge;
void registry_challenge_clear(RegistryChallenge *challenge);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(RegistryChallenge, registry_challenge_clear)
void registry_challenge_parse(const char *header, RegistryChallenge *ret);

/* "Basic ..."; free with g_free. */
char *registry_basic(const RegistryLogin *login);

#endif
