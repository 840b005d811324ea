/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-processor "manifest": a JSON file that tells what a build made, in Packer's keys, for the programs
 * that come after.
 *
 *     { "builds": [ { "name", "builder_type", "build_time", "files", "packer_run_uuid",
 *                     "artifact_id": "disk:sha256:..,oci:sha256:..", "custom_data",
 *                     "kiln": { "name", "disk": { "image_id", "manifest", "tree", "size" }, "oci", "tags" } } ],
 *       "last_run_uuid" }
 *
 * Every run appends to the file (packer-manifest.json where `output` names no other); it is replaced
 * atomically under a lock (OUTPUT.lock), so parallel bakes may share one. `files` are the artifact's that are there, [{name, size, sha256}];
 * images stand in the store.
 */
#ifndef KILN_BAKER_POST_MANIFEST_H
#define KILN_BAKER_POST_MANIFEST_H

#include "base/json.h"
#include "store/store.h"

/* What one build is called, and what it made. */
typedef struct ManifestBuild {
    const char *set_name, *build_name, *builder_type;
    GPtrArray *images; /* of StoreImage*, one set */
    json_t *files;     /* NULL: none */
    const GPtrArray *tags; /* of char*: "repository:tag"; NULL: none */
} ManifestBuild;

/* Appends one build to the file, under a lock, atomically. */
bool post_manifest_run(const json_t *args, const ManifestBuild *build, GError **error);

#endif
