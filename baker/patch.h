/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patches: a published set as the source of a build that upgrades its packages, with its tests, under the same name.
 *
 * The build is a template like any other, written as JSON here instead of by a user; so a patched image has a template, steps, keys and
 * a provenance of its own.
 */
#ifndef KILN_BAKER_PATCH_H
#define KILN_BAKER_PATCH_H

#include "baker/bake.h"

typedef struct PatchSpec {
    const char *name;      /* of the result */
    const char *ref;       /* of the set to patch, for "image:" */
    const char *kind;      /* "disk" or "oci": the source's type */
    const json_t *packages;/* arguments of the packages step */
    const json_t *tests;   /* array of arguments of test steps; may be NULL */
} PatchSpec;

/* A template with one build. @dir: what relative paths in it mean. */
bool patch_template(const PatchSpec *spec, const char *dir, Template **ret, GError **error);

/*
 * The transaction that upgrading everything in the set behind @ref would be; *ret is NULL where that cannot be told without running
 * the guest. @options: offline and fresh_since count.
 */
bool patch_pending(Store *store, const char *name, const char *ref, const char *kind, const BakeOptions *options, json_t **ret,
                   GError **error);

#endif
