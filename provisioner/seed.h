/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a seed for cloud-init says, read and not applied: user-data over vendor-data, and meta-data.
 *
 * Read are #cloud-config, #cloud-config-archive, #! scripts, #cloud-boothook, MIME parts of those (merged as their merge_how says), and Jinja that asks for
 * nothing but meta-data. What stands in a seed and cannot be read, or is nothing
 * that a bake could do, is named in @ignored. Only YAML that is none is an error.
 */
#ifndef KILN_PROVISIONER_SEED_H
#define KILN_PROVISIONER_SEED_H

#include "base/json.h"

#include <glib.h>
#include <stdbool.h>

typedef struct Seed {
    json_t *config;       /* object: the merged cloud-config */
    json_t *meta;         /* object: meta-data */
    GPtrArray *boothooks; /* char *: scripts to run first ... */
    GPtrArray *scripts;   /* ... and last */
    GPtrArray *ignored;   /* char *: for people, in order */
} Seed;

/* Each may be NULL. */
bool seed_parse(const char *user_data, const char *vendor_data, const char *meta_data, Seed **ret, GError **error);
void seed_free(Seed *seed);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Seed, seed_free)

void seed_ignore(Seed *seed, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* @over's values into @under, both objects: objects in them are merged, everything else is replaced. */
void seed_merge(json_t *under, const json_t *over);

/* Does something of it run programs that may want the network: packages, runcmd, scripts? */
bool seed_wants_network(const Seed *seed);
/* Of one of apt's sources: is its key on a key server? */
bool seed_fetches_key(const json_t *source);

/* bootcmd's and runcmd's lists as a script of the shell; NULL when there is nothing to run. Free with g_free. */
char *seed_script(const json_t *commands);

/* A value as text: strings, numbers, booleans; NULL for others. Free with g_free. */
char *seed_text(const json_t *value);
/* A list of texts: an array, the values of an object, or one text cut at any of @separators. Never NULL. */
char **seed_texts(const json_t *value, const char *separators);

/* A hash as /etc/shadow takes it; @salt_of makes the salt, so that equal seeds give equal bytes. Free with g_free; NULL: this machine's libcrypt cannot. */
char *seed_hash_password(const char *password, const char *salt_of);
/* Is that such a hash already? */
bool seed_is_hash(const char *password);

#endif
