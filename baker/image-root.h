/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root file system of a stored image, to look into: no mount, no guest.
 *
 *   image_root_open -> image_root_find / image_root_below -> image_root_copy -> image_root_free
 */
#ifndef KILN_BAKER_IMAGE_ROOT_H
#define KILN_BAKER_IMAGE_ROOT_H

#include "store/store.h"

typedef struct ImageRoot {
    StoreImage *image;
    Tree *tree;      /* a container's: without what only a machine needs */
    StoreMap *files; /* contents of the tree's files */
} ImageRoot;

/* A name with both kinds means the disk, whose root is the whole one. An image whose root kiln could not read is refused. */
bool image_root_open(Store *store, const char *ref, ImageRoot **ret, GError **error);
/* The same of an image at hand, which need not be published; it is copied as far as it is needed. */
bool image_root_of(Store *store, const StoreImage *image, ImageRoot **ret, GError **error);
void image_root_free(ImageRoot *root);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageRoot, image_root_free)

/* @path as people write it: from the root, with or without its first slash, "." and "..". Links on the way are followed inside the root,
 * a link at the end with @follow only. */
bool image_root_find(const ImageRoot *root, const char *path, bool follow, const TreeEntry **ret, GError **error);

/* The entry and what is below it, as a tree of its own with @entry as its root (a file: a root that holds it alone). */
Tree *image_root_below(const ImageRoot *root, const TreeEntry *entry);

/* Writes the content of a regular file to @fd, which may be a pipe. */
bool image_root_copy(const ImageRoot *root, const TreeEntry *file, int fd, GError **error);

#endif
