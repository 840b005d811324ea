/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-processor "manifest": Packer's packer-manifest.json with digests added.
 */
#ifndef KILN_BAKER_POST_MANIFEST_H
#define KILN_BAKER_POST_MANIFEST_H

#include "base/json.h"
#include "store/store.h"

extern const char *const post_manifest_arguments[]; /* output, strip_path, strip_time, custom_data */
bool post_manifest_check(const json_t *args, const char **ret_argument, GError **error);

/* @images: of StoreImage*, one set. Appends one build to the file, under a lock, atomically. */
bool post_manifest_run(const json_t *args, const char *set_name, const char *build_name, const char *builder_type,
                       GPtrArray *images, GError **error);

#endif
