/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recipes: how a layer's tar is put together from literal bytes and stored blocks.
 *
 * A recipe is a blob, so the store names it by its plain bytes and compresses it as it likes:
 *
 *   "KILNLYR1" | encoder 4 | 0 4 | diff_id 32 | gzip digest 32 | gzip size 8 | tar size 8 | payload map 32 |
 *   segments 8 | literal bytes 8
 *   segments * (varint literal length | varint payload length | if payload: varint first block in the payload
 * map) literal bytes: headers, padding and end of the tar, in order
 *
 * Numbers are little-endian. A segment stands for its literal bytes and then its payload, which starts on a
 * block of the payload map. A member may have several segments: one for each piece of it that was cut by its content (store/layer-ingest.c).
 * "encoder" says how the layer's bytes come from the tar: 1 is the gzip of store/deflate.c, 0 is the tar as it is, whose digest and size then
 * stand twice. The payload map is all zero when no member has content.
 */
#ifndef KILN_STORE_LAYER_RECIPE_H
#define KILN_STORE_LAYER_RECIPE_H

#include "store/layer.h"

#define RECIPE_MAGIC "KILNLYR1"
#define RECIPE_PLAIN 0
#define RECIPE_GZIP 1
#define RECIPE_HEADER_SIZE 144
#define RECIPE_MAX (1u << 30)
#define RECIPE_LITERALS_MAX (RECIPE_MAX - (64u << 20)) /* leaves room for the segments */

typedef struct RecipeSegment {
    uint64_t literal, payload, block;
} RecipeSegment;

typedef struct LayerRecipe {
    LayerResult info; /* recipe and new_bytes are not set */
    uint32_t encoder;
    Digest map;
    GArray *segments; /* of RecipeSegment */
    GBytes *blob;     /* keeps @literals alive */
    const uint8_t *literals;
    uint64_t literal_size;
} LayerRecipe;

GByteArray *layer_recipe_encode(const LayerRecipe *recipe);
/* Stores it: @map (NULL: no member has content) is committed and becomes the recipe's. *ret: the recipe's info, all of it. */
bool layer_recipe_put(Store *store, LayerRecipe *recipe, const MapWriter *map, LayerResult *ret, GError **error);
/* Every length is checked against the others; blocks are checked when the map is opened. */
bool layer_recipe_decode(GBytes *blob, LayerRecipe **ret, GError **error);
void layer_recipe_free(LayerRecipe *recipe);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LayerRecipe, layer_recipe_free)

#endif
