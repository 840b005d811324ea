/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock files: the package transactions of bakes, to be replayed exactly.
 *
 *     { "kiln_lock": 1, "builds": { "web": { "1": {transaction}, "4": {transaction} } } }
 *
 * A transaction stands under the number of its provisioner in the build, counted from 1. Where branches of a build differ in what they already
 * have, so that one transaction does not do for all, those of later ones stand under NUMBER.OUTPUT: "4.oci".
 */
#ifndef KILN_BAKER_BAKE_LOCK_H
#define KILN_BAKER_BAKE_LOCK_H

#include "base/json.h"

/* Reads the transactions of one build. A file that is none, or knows nothing of @build, is an error. */
bool bake_lock_load(const char *path, const char *build, json_t **ret, GError **error);

/* The same of a file's bytes; @name is what errors call it. */
bool bake_lock_parse(const void *text, size_t size, const char *name, const char *build, json_t **ret, GError **error);

/* One transaction of a build: into @transactions, and out of them, borrowed, NULL when there is none. @output: the branch, or NULL. */
void bake_lock_add(json_t *transactions, unsigned position, const char *output, json_t *transaction);
json_t *bake_lock_find(const json_t *transactions, unsigned position, const char *output);

/* Puts those of @build into the file, beside what it says of other builds; written atomically. */
bool bake_lock_save(const char *path, const char *build, json_t *transactions, GError **error);

#endif
