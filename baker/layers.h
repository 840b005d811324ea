/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers: a sealed tree becomes a container image.
 *
 * From disk and bootstrap sources layers are cut by rule (baker/layer-cuts.h). On a parent image its layers stay byte for byte and one layer
 * with the difference is added; of an image of the store, night after night, the layers of changes are merged so that they stay few.
 *
 *   layers_check_output_args (plan time) -> layers_build -> commit of the StoreWriter -> layers_finish
 */
#ifndef KILN_BAKER_LAYERS_H
#define KILN_BAKER_LAYERS_H

#include "base/json.h"
#include "store/store.h"

/* Arguments of `output "oci"`: entrypoint, cmd, env, expose, workdir, user, labels, volumes, stop_signal, compression. */
bool layers_check_output_args(const json_t *args, const char **ret_argument, GError **error);
/* No argument of templates: lines for docker_changes_apply(), over what the parent says and below the other arguments. */
#define LAYERS_CHANGES "docker changes"

typedef struct LayersSpec {
    Tree *tree;      /* final, normalised */
    StoreMap *files; /* its file space, public */
    Tree *base;      /* the source's first tree; NULL for vendor disks */
    StoreMap *base_files;
    const json_t *parent; /* {"config": {...}, "layers": [{"blob", "recipe"}], "manifest"} of an oci source, with "own": true where layers
                             of changes may be merged; else NULL */
    const json_t *args;   /* of the output block */
    int64_t epoch;
} LayersSpec;

typedef struct LayersResult LayersResult;

/* A copy of @tree without what a container has no use for (kernel, its modules and boot loader, devices, what a machine makes at its start); for tree_free(). */
Tree *layers_container_tree(Tree *tree);

/* Writes the layers into @writer. */
bool layers_build(Store *store, StoreWriter *writer, const LayersSpec *spec, LayersResult **ret,
                  GError **error);

/* After the writer's commit: config and manifest as blobs; fills @image's id, manifest, size and layers. */
bool layers_finish(Store *store, LayersResult *result, StoreImage *image, GError **error);
void layers_result_free(LayersResult *result);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LayersResult, layers_result_free)

#endif
