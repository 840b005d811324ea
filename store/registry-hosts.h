/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an administrator says of registries: certificates in certs.d folders, other places in registries.conf.
 */
#ifndef KILN_STORE_REGISTRY_HOSTS_H
#define KILN_STORE_REGISTRY_HOSTS_H

#include <glib.h>
#include <stdbool.h>

/*
 * HOST[:PORT]/ in $KILN_CERTS_D, or in /etc/containers/certs.d and /etc/docker/certs.d: the first *.crt is a CA, the first *.cert with a *.key of
 * the same name is ours. Each NULL where there is none; to free.
 */
void registry_certificates(const char *host, char **ret_ca, char **ret_cert, char **ret_key);

/*
 * Where HOST/REPOSITORY is to be asked for reading, best first: the mirrors of containers-registries.conf(5), then its location.
 * Of that file are read: [[registry]] with prefix, location and blocked, [[registry.mirror]] with location.
 */
bool registry_places(const char *host, const char *repository, GPtrArray **ret /* of char *, HOST/REPOSITORY */, GError **error);

/* The same of a file's text; no I/O. *ret_blocked: it is not to be asked. */
void registry_places_in(const char *text, const char *whole, GPtrArray *places, bool *ret_blocked);

#endif
