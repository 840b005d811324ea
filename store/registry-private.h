/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the registry client share: a request with our name on it. Nobody else includes this.
 */
#ifndef KILN_STORE_REGISTRY_PRIVATE_H
#define KILN_STORE_REGISTRY_PRIVATE_H

#include "base/http-request.h"
#include "store/registry.h"

/*
 * One request to the registry, @request->url being a path that starts with /v2/, or a whole URL that it told us. Our name goes with it where
 * the host is the registry's own; a token that is refused is asked for again once. @also: one more repository that we need to read, or NULL.
 */
bool registry_request(Registry *registry, const HttpRequest *request, const char *also, HttpAnswer *ret, GError **error);

/* The same until it is no transient failure, for what may be asked twice and is not streamed. */
bool registry_ask(Registry *registry, const HttpRequest *request, const char *also, HttpAnswer *ret, GError **error);

/* /v2/REPOSITORY/<rest>; free with g_free. */
char *registry_path(const Registry *registry, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* A sentence about an answer that is not the wanted one, with what the registry itself says. Returns false. */
bool registry_fail(const Registry *registry, const HttpAnswer *answer, const char *what, GError **error);

void registry_count_sent(Registry *registry, uint64_t bytes);

#endif
