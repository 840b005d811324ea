/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a bake would do, as a document: nothing is made, nothing runs.
 *
 *   { "name", "work": bool, "why": TEXT,
 *     "chains": [ { "output": "disk" | "oci" | absent,
 *                   "steps": [ { "number", "step", "type", "state": "hit" | "miss" | "unknown", "why", "note" } ] } ] }
 *
 * "why" of a step: the first of its inputs that differs from the last bake's; of the build: why there is work although every step is
 * a hit (the source has to be made, the set was never published).
 */
#ifndef KILN_BAKER_PLAN_H
#define KILN_BAKER_PLAN_H

#include "baker/bake.h"

/* *ret: new reference. @build must have passed bake_check(). */
bool bake_plan_describe(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options, json_t **ret,
                        GError **error);

/* The document for a build that waits for something else of its batch. New reference. */
json_t *bake_plan_unknown(const TemplateBuild *build, const char *why);

#endif
