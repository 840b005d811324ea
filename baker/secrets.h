/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secrets of a build: read once, shown to steps on a tmpfs only, masked in every line that is printed, looked for
 * in every block before it is kept.
 *
 * Two kinds: `secret "NAME" { env or file }` blocks (steps find the value in the file /run/secrets/NAME), and values of variables
 * marked sensitive (only masked). Neither is part of a key, a log, a layer or the catalog.
 */
#ifndef KILN_BAKER_SECRETS_H
#define KILN_BAKER_SECRETS_H

#include "templates/templates.h"

typedef struct Secrets Secrets;

/* Reads the values. An unset variable or unreadable file is an error that names the block. */
bool secrets_load(Template *template, const TemplateBuild *build, Secrets **ret, GError **error);
void secrets_free(Secrets *secrets);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Secrets, secrets_free)

size_t secrets_count(const Secrets *secrets); /* of secret blocks */
const char *secrets_name(const Secrets *secrets, size_t index);
GBytes *secrets_value(const Secrets *secrets, size_t index); /* borrowed */

/* @text with every form of every value (plain, base64 at each offset, hex, URL- and shell- and JSON-escaped) replaced; new string. */
char *secrets_mask(const Secrets *secrets, const char *text);

/* Looks for secret blocks' values (plain and base64; 8 bytes or longer) in @data; the name of the one found, or NULL. */
const char *secrets_find(const Secrets *secrets, const void *data, size_t size);
/* The longest pattern that secrets_find looks for: how many bytes of the block before must be looked at with the next. */
size_t secrets_longest(const Secrets *secrets);

#endif
