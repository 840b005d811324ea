/* SPDX-License-Identifier: Apache-2.0 */
/*
 * from = "image:REF", shared by disk and oci sources; the calls have the order of baker/source.h.
 *
 * The identity is { "type": "image", "ref", "images": { KIND: ID }, "size" }. The state's info holds the same "images", and
 * "oci_parent" where layers are kept.
 */
#ifndef KILN_BAKER_SOURCE_IMAGE_H
#define KILN_BAKER_SOURCE_IMAGE_H

#include "baker/source.h"

/* What stands behind "image:", or NULL for other sources. */
const char *source_image_ref(const json_t *args);
/* The name in it when it means that name's newest image (which a build of the same batch may make), else NULL. */
char *source_image_name(const json_t *args);

/* A set whose kinds have different roots (steps were for one of them only) is no one source: each kind is baked from its own. @ref as above. */
bool source_image_is_split(Store *store, const char *ref);

bool source_image_check(const json_t *args, const char **ret_argument, GError **error);
bool source_image_identify(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error);
bool source_image_prepare(const SourceContext *context, const json_t *identity, SourceState *ret, GError **error);

/* The parent of that kind; *ret is NULL when the set has none. */
bool source_image_load(Store *store, const json_t *identity, const char *kind, StoreImage **ret, GError **error);

#endif
