/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secrets of a build: read once, shown to steps on a tmpfs only, masked in all that is printed (base/mask.h), left out of keys, and
 * looked for in every block before it is kept.
 *
 * Two kinds: `secret "NAME" { env or file }` blocks, whose value steps find in the file /run/secrets/NAME, and values of
 * variables and locals marked sensitive, which steps get where the template puts them.
 */
#ifndef KILN_BAKER_SECRETS_H
#define KILN_BAKER_SECRETS_H

#include "templates/templates.h"

#define SECRETS_FOLDER "/run/secrets"
/* Shorter values are not looked for in blocks: they stand there by chance. */
#define SECRETS_SCAN_MIN 8

typedef struct Secrets Secrets;

/* Reads the values and has them masked from now on. An unset variable or unreadable file is an error that names the secret. */
bool secrets_load(Template *template, const TemplateBuild *build, Secrets **ret, GError **error);
void secrets_free(Secrets *secrets);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Secrets, secrets_free)

bool secrets_any(const Secrets *secrets);     /* of either kind */
size_t secrets_count(const Secrets *secrets); /* of secret blocks */
const char *secrets_name(const Secrets *secrets, size_t index);
GBytes *secrets_value(const Secrets *secrets, size_t index); /* borrowed */

/* A copy of @value with each value in its strings as "<sensitive>": what a key may hold. */
json_t *secrets_mask_json(const Secrets *secrets, const json_t *value);

/* Looks for values (plain and base64) in @data; what stands for the one found ("secret 'NAME'", "a sensitive value"), or NULL. */
const char *secrets_find(const Secrets *secrets, const void *data, size_t size);

#endif
