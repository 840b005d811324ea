/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a step misses: the first of its inputs that differs from the last bake's.
 *
 * For each step a bake keeps a *record*: the parts of its key, each by itself. Values are kept as digests only, since any of
 * them may be a secret; names of arguments, files, variables and packages are kept as they are.
 *
 *     { "type", "label", "engine", "profile", "content", "network",
 *       "args": { NAME: DIGEST }, "env": { NAME: DIGEST }, "files": { NAME: { "digest", "mode" } },
 *       "packages": { NAME: VERSION }, "ran": seconds }
 */
#ifndef KILN_BAKER_BAKE_WHY_H
#define KILN_BAKER_BAKE_WHY_H

#include "base/json.h"

/* The record of a step from the JSON its key is made of, and its transaction (may be NULL). New reference. */
json_t *bake_why_record(const json_t *key, const char *type, const char *label, const json_t *transaction);

/*
 * The record in @before (a list, may be NULL) that step @index of @now was made as the last time; NULL: it is new. @now may end with
 * that step; @count is how many steps there are.
 */
const json_t *bake_why_match(const json_t *before, const json_t *now, size_t index, size_t count);

/* "file app.conf: content"; NULL when nothing differs. Free with g_free. */
char *bake_why_differs(const json_t *before, const json_t *now);

#endif
