/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image rows, for the files of store/ that publish, resolve and remove.
 */
#ifndef KILN_STORE_IMAGE_PRIVATE_H
#define KILN_STORE_IMAGE_PRIVATE_H

#include "store/catalog.h"
#include "store/image.h"

#define IMAGE_COLUMNS "number, bake, kind, id, name, manifest, map, tree, files, size, new_bytes, created, parent, bytes_gone"

/* Reads the row a query over IMAGE_COLUMNS stands on, with its layers. */
bool image_from_row(Database *db, Query *query, StoreImage **ret, GError **error);

/* All images a query over IMAGE_COLUMNS finds. */
bool images_from_query(Database *db, Query *query, GPtrArray **ret, GError **error);

/* The newest record of image @id, one with bytes if there is any, under @name when that is given and exists. *ret NULL when there is none. */
bool image_by_id(Database *db, const Digest *id, const char *name, StoreImage **ret, GError **error);

/* image.c: false with a sentence when only the record of @image is left. */
bool image_check_bytes(const StoreImage *image, GError **error);

/* package-index.c: enters the packages of the image's row; see package-index.h. */
bool package_index_put(Database *db, int64_t image, const json_t *list, GError **error);

/* state.c: the least key behind all that start with @prefix. */
char *memo_prefix_end(const char *prefix);

/* channel.c: where a channel points; none when it was never promoted to. */
bool channel_image(Database *db, const char *name, const char *kind, const char *channel, Digest *ret, GError **error);

#endif
