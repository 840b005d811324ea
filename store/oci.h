/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OCI image layouts and archives (image-spec 1.1), in and out.
 */
#ifndef KILN_STORE_OCI_H
#define KILN_STORE_OCI_H

#include "store/image.h"
#include "store/layer.h"

typedef enum OciForm { OCI_DIR, OCI_ARCHIVE } OciForm;

/* Writes the image as a layout at @path (a folder, or a tar file; "-" is stdout), atomically. @ref: the
 * ref.name annotation, may be NULL. */
bool oci_export(Store *store, const StoreImage *image, OciForm form, const char *path, const char *ref,
                GError **error);

/* The image as `docker load` takes it, by path: the config as it is, layers uncompressed. @tags: "repository:tag", NULL-terminated; NULL: the
 * image's name with "latest". */
bool docker_export(Store *store, const StoreImage *image, const char *const *tags, const char *path, GError **error);

/* A parent read from "oci:DIR[:TAG]" or "oci-archive:FILE[:TAG]": layers in the store, as recipes where those bring back the very bytes. */
typedef struct OciParent {
    Digest manifest;
    json_t *config; /* parsed config */
    Digest config_digest;
    GPtrArray *layers; /* of StoreLayerRef* */
} OciParent;
/* A media type of tars, plain or compressed by what we read. */
bool oci_layer_type_is_known(const char *type);
/* One of those that their makers keep out of registries: they may be anywhere, or, with URLs, nowhere. */
bool oci_layer_type_is_foreign(const char *type);
/* Compressed, as the manifest says it. */
bool oci_layer_size(Store *store, const StoreLayerRef *layer, uint64_t *ret, GError **error);

/* Every layer's uncompressed bytes are held against the config's diff_ids: the image ID covers them, and nothing else. */
bool oci_import(Store *store, OciForm form, const char *path, const char *tag, OciParent **ret,
                GError **error);
/* The same of a layout folder that lacks blobs which the store has. @what: that errors call it. */
bool oci_import_over(Store *store, const char *path, const char *what, OciParent **ret, GError **error);
void oci_parent_free(OciParent *parent);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(OciParent, oci_parent_free)

/* Applies the parent's layers in order to one tree (whiteouts, opaque folders, hard links). File space in
 * @writer; without one there is none, and nothing is stored. */
bool oci_parent_tree(Store *store, StoreWriter *writer, const OciParent *parent, Tree **ret,
                     MapWriter **ret_space, GError **error);

/*
 * The image's tree with its files' contents, of any image. An imported container image has them in its layers only: they are laid out when
 * somebody first asks, and with @keep remembered until nobody asked for a long time; else they are the next gc's.
 */
bool oci_image_tree(Store *store, const StoreImage *image, bool keep, TreeStored *ret, GError **error);
bool oci_image_load(Store *store, const StoreImage *image, Tree **ret_tree, StoreMap **ret_files, GError **error); /* the same, opened; kept */

#endif
