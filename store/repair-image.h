/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of a lost segment by way of the images that need them.
 *
 * When a segment is gone with its frames' heads, nobody knows the hashes of its blocks, and another store that baked the same image has them in segments of
 * other names. But our map says which block of the disk was at which position, and the other store's map of the same image ID has that block. An image
 * ID covers the content: the other map's blocks are held against it before one of them counts. Files of equal trees lie in file spaces that are laid
 * out equally, which does the same for what only trees refer to.
 */
#ifndef KILN_STORE_REPAIR_IMAGE_H
#define KILN_STORE_REPAIR_IMAGE_H

#include "store/catalog.h"
#include "store/map.h"

typedef struct ImageBlocks ImageBlocks;

/* Of what @store needs of @segment, what @from has. Only what the catalogs cannot tell is an error. */
bool image_blocks_open(Store *store, Store *from, const Digest *segment, ImageBlocks **ret, GError **error);
void image_blocks_free(ImageBlocks *blocks);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageBlocks, image_blocks_free)

/* One more than the highest position that is known. */
uint32_t image_blocks_end(const ImageBlocks *blocks);
bool image_blocks_read(const ImageBlocks *blocks, uint32_t position, uint8_t to[STORE_BLOCK_SIZE]);

#endif
