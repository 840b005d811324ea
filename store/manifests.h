/* SPDX-License-Identifier: Apache-2.0 */
/*
 * By which manifests registries know an image: each one that was pushed or pulled for it is recorded, with the repository, and is accepted after '@'.
 *
 * They are rows of `reference`: role "manifest" with the repository (HOST/REPOSITORY) as name, and role "transport" for blobs that say how the
 * image lies in that repository (disk-artifact.h).
 */
#ifndef KILN_STORE_MANIFESTS_H
#define KILN_STORE_MANIFESTS_H

#include "store/image.h"

typedef struct StoreManifest {
    char *place; /* HOST/REPOSITORY */
    Digest digest, image;
} StoreManifest;
void store_manifest_free(StoreManifest *manifest);

/* @manifest and @kept (of Digest; may be NULL) are blobs of the store. Recording the same again is harmless. */
bool store_image_add_manifest(Store *store, const StoreImage *image, const char *place, const Digest *manifest, const GArray *kept, GError **error);

/* Of an image, or (NULL) of every image of @kind; at @place, or (NULL) anywhere. The newest image's first; array of StoreManifest*. */
bool store_manifests(Store *store, const Digest *image, const char *kind, const char *place, GPtrArray **ret, GError **error);

#endif
