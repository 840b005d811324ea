/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What differs between equal bakes and is worth knowing: wall clock, host, user, versions, steps and their
 * times. Kept beside the set, never part of an image ID.
 */
#ifndef KILN_BAKER_PROVENANCE_H
#define KILN_BAKER_PROVENANCE_H

#include "base/json.h"
#include "store/store.h"
#include "templates/templates.h"

json_t *provenance_make(const TemplateBuild *build, const json_t *identity, int64_t epoch, const json_t *steps, const json_t *tests);

#endif
