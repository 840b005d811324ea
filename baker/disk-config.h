/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The config of a disk image, whose digest is its image ID: {arch, size, layout, tree, content}, canonical JSON (kiln-store(5)).
 */
#ifndef KILN_BAKER_DISK_CONFIG_H
#define KILN_BAKER_DISK_CONFIG_H

#include "store/store.h"

/* Sets @id, @map, @size and @tree of @image. @layout: "rendered" or "in-place"; @tree: none where the root could not be read. */
bool disk_config_put(Store *store, StoreImage *image, const MapResult *map, const char *layout, const TreeStored *tree, GError **error);

#endif
