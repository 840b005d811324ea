/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON, the neutral shape of data that crosses rooms: evaluated template
 * arguments, OCI documents, --json output. The door to jansson (ours to
 * include it for everybody; json_t is used directly).
 *
 * Canonical text: sorted keys, no spaces, UTF-8 as it is. Equal data give equal bytes.
 */
#ifndef KILN_BASE_JSON_H
#define KILN_BASE_JSON_H

#include "base/digest.h"

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(json_t, json_decref)

/* Refuses more than @max bytes, depth over jansson's limit, duplicate keys and trailing text. @what names the document in errors. */
bool json_parse(const char *text, size_t size, size_t max, const char *what, json_t **ret, GError **error);

char *json_canonical(const json_t *value); /* free with g_free */
void json_digest(const json_t *value, Digest *ret);
char *json_pretty(const json_t *value);    /* two-space indent, insertion order, final newline */

/* Typed look-ups in an object. Absent keys give the default; a wrong type is an error naming @key. */
bool json_get_string(const json_t *object, const char *key, const char *otherwise, const char **ret, GError **error);
bool json_get_int(const json_t *object, const char *key, int64_t otherwise, int64_t *ret, GError **error);
bool json_get_bool(const json_t *object, const char *key, bool otherwise, bool *ret, GError **error);
/* List of strings (a lone string counts as a list of one) as a NULL-terminated vector. Absent: empty. */
bool json_get_strings(const json_t *object, const char *key, char ***ret, GError **error);

/* The text at @key, or "" where there is none; NULL is no object and has none. */
const char *json_text(const json_t *object, const char *key);

/* Appends @value, which it takes, unless @list has an equal one. */
void json_array_add_new(json_t *list, json_t *value);

/* Sets @key to "sha256:..."; digest_none is left out. */
void json_set_digest(json_t *object, const char *key, const Digest *digest);

/* Every key of @object must be in @allowed (NULL-terminated); else *ret_bad is the first that is not (borrowed). */
bool json_only_keys(const json_t *object, const char *const *allowed, const char **ret_bad);

#endif
