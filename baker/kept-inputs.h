/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a set keeps of the files that it was made from, as blobs that gc leaves alone for as long as the set is there:
 *
 *   PATH           a file that the template was read from (template, variables, file())
 *   NAME           a file that a step read (scripts, uploads), as the template names it
 *   kiln.inputs    all of them: [ { "name", "mode", "digest", "step" (position, absent: the template), "path" (where it was, with step), "blob" (absent: not kept),
 *                  "masked" (true: it held a secret) } ]
 *   kiln.given     which template it was and what its variables were: template_given()
 *   kiln.template  the template's text where kiln made it itself (a patch night)
 *   kiln.lock      what the packages steps did
 *
 * Small files are kept, up to a total; an upload of gigabytes is not copied, its names, modes and digests are what remains of it. A
 * secret is never kept: in text it is masked ("digest" is then that of what is kept), a binary file that holds one is left out.
 */
#ifndef KILN_BAKER_KEPT_INPUTS_H
#define KILN_BAKER_KEPT_INPUTS_H

#include "baker/bake-internal.h"

#define KEPT_LIST "kiln.inputs"
#define KEPT_TEMPLATE "kiln.template"
#define KEPT_LOCK "kiln.lock"
#define KEPT_GIVEN "kiln.given"

#define KEPT_FILE_MAX ((uint64_t)64 << 20)
#define KEPT_TOTAL_MAX ((uint64_t)256 << 20)
#define KEPT_COUNT_MAX 4096u

/* *ret: name -> Digest* of the blob, as store_publish takes it. */
bool kept_inputs(Store *store, Template *template, GPtrArray *chains /* of BakeChain* */, GHashTable **ret, GError **error);

/* For tests: the same with other limits. */
typedef struct KeptLimits {
    uint64_t file, total;
    unsigned count;
} KeptLimits;
bool kept_inputs_within(const KeptLimits *limits, Store *store, Template *template, GPtrArray *chains, GHashTable **ret, GError **error);

#endif
