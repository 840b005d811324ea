/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-processor "manifest": a JSON file that tells what a build made, in Packer's keys, for the programs
 * that come after.
 *
 *     { "builds": [ { "name", "builder_type", "build_time", "files": [], "packer_run_uuid",
 *                     "artifact_id": "disk:sha256:..,oci:sha256:..", "custom_data",
 *                     "kiln": { "name", "disk": { "image_id", "manifest", "tree", "size" }, "oci" } } ],
 *       "last_run_uuid" }
 *
 * Every run appends to the file (packer-manifest.json where `output` names no other); it is replaced
 * atomically under a lock (OUTPUT.lock), so parallel bakes may share one. `files` is empty: artifacts stand
 * in the store until somebody exports them.
 */
#ifndef KILN_BAKER_POST_MANIFEST_H
#define KILN_BAKER_POST_MANIFEST_H

#include "base/json.h"
#include "store/store.h"

/* output, strip_path, strip_time, custom_data, keep_input_artifact */
extern const char *const post_manifest_arguments[];
bool post_manifest_check(const json_t *args, const char **ret_argument, GError **error);

/* @images: of StoreImage*, one set. Appends one build to the file, under a lock, atomically. */
bool post_manifest_run(const json_t *args, const char *set_name, const char *build_name,
                       const char *builder_type, GPtrArray *images, GError **error);

#endif
