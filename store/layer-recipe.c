/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a recipe (drawing in the header). Recipes come from pulls too, so nothing in them is believed.
 */
#include "store/layer-recipe.h"

#include "base/error.h"
#include "store/bytes.h"

#define PAYLOAD_MAX (1ull << 46) /* as large as the largest map */

GByteArray *layer_recipe_encode(const LayerRecipe *recipe)
{
    GByteArray *out = g_byte_array_new();
    uint8_t head[RECIPE_HEADER_SIZE] = {0};

    memcpy(head, RECIPE_MAGIC, 8);
    put_le32(head + 8, recipe->encoder);
    memcpy(head + 16, recipe->info.diff_id.bytes, DIGEST_SIZE);
    memcpy(head + 48, recipe->info.blob.bytes, DIGEST_SIZE);
    put_le64(head + 80, recipe->info.size);
    put_le64(head + 88, recipe->info.tar_size);
    memcpy(head + 96, recipe->map.bytes, DIGEST_SIZE);
    put_le64(head + 128, recipe->segments->len);
    put_le64(head + 136, recipe->literal_size);
    g_byte_array_append(out, head, sizeof(head));
    for (guint i = 0; i < recipe->segments->len; i++) {
        const RecipeSegment *segment = &g_array_index(recipe->segments, RecipeSegment, i);

        append_varint(out, segment->literal);
        append_varint(out, segment->payload);
        if (segment->payload)
            append_varint(out, segment->block);
    }
    g_byte_array_append(out, recipe->literals, (guint)recipe->literal_size);
    return out;
}

bool layer_recipe_put(Store *store, LayerRecipe *recipe, const MapWriter *map, LayerResult *ret, GError **error)
{
    LayerResult result = recipe->info;
    MapResult payload = {.new_bytes = 0};
    g_autoptr(GByteArray) blob = NULL;

    if (map)
        map_writer_result(map, &payload);
    recipe->map = payload.digest;
    blob = layer_recipe_encode(recipe);
    if (!store_blob_put(store, blob->data, blob->len, &result.recipe, error))
        return fail_prefix(error, "layer");
    result.new_bytes = payload.new_bytes + blob->len;
    *ret = result;
    return true;
}

static bool read_segment(const uint8_t **at, const uint8_t *end, RecipeSegment *ret)
{
    RecipeSegment s = {0, 0, 0};

    if (!read_varint(at, end, &s.literal) || !read_varint(at, end, &s.payload))
        return false;
    if (s.payload && !read_varint(at, end, &s.block))
        return false;
    if (s.payload > PAYLOAD_MAX || s.block > PAYLOAD_MAX / STORE_BLOCK_SIZE)
        return false;
    *ret = s;
    return true;
}

static bool read_segments(LayerRecipe *recipe, const uint8_t *at, const uint8_t *end, uint64_t count)
{
    uint64_t literals = 0, total = 0;

    if (count > (uint64_t)(end - at) / 2) /* two bytes at least each */
        return false;
    for (uint64_t i = 0; i < count; i++) {
        RecipeSegment s;

        if (!read_segment(&at, end, &s) || s.literal > recipe->literal_size - literals)
            return false;
        literals += s.literal;
        total += s.literal + s.payload;
        if (total > PAYLOAD_MAX)
            return false;
        g_array_append_val(recipe->segments, s);
    }
    recipe->literals = at;
    return literals == recipe->literal_size && (uint64_t)(end - at) == literals &&
           total == recipe->info.tar_size;
}

/* A plain tar is its own blob. */
static bool fits_encoder(const LayerRecipe *recipe)
{
    return recipe->encoder != RECIPE_PLAIN ||
           (digest_equal(&recipe->info.blob, &recipe->info.diff_id) && recipe->info.size == recipe->info.tar_size);
}

bool layer_recipe_decode(GBytes *blob, LayerRecipe **ret, GError **error)
{
    g_autoptr(LayerRecipe) recipe = g_new0(LayerRecipe, 1);
    gsize size;
    const uint8_t *head = g_bytes_get_data(blob, &size);

    if (size < RECIPE_HEADER_SIZE || memcmp(head, RECIPE_MAGIC, 8) != 0)
        return fail(error, "the blob is no layer recipe");
    recipe->encoder = get_le32(head + 8);
    if (recipe->encoder > RECIPE_GZIP)
        return fail(error, "the layer's encoder %u is not known: it was made by a newer kiln", recipe->encoder);
    recipe->blob = g_bytes_ref(blob);
    recipe->segments = g_array_new(FALSE, FALSE, sizeof(RecipeSegment));
    memcpy(recipe->info.diff_id.bytes, head + 16, DIGEST_SIZE);
    memcpy(recipe->info.blob.bytes, head + 48, DIGEST_SIZE);
    recipe->info.size = get_le64(head + 80);
    recipe->info.tar_size = get_le64(head + 88);
    memcpy(recipe->map.bytes, head + 96, DIGEST_SIZE);
    recipe->literal_size = get_le64(head + 136);
    if (!read_segments(recipe, head + RECIPE_HEADER_SIZE, head + size, get_le64(head + 128)) || !fits_encoder(recipe))
        return fail(error, "the layer recipe is damaged");
    *ret = g_steal_pointer(&recipe);
    return true;
}

void layer_recipe_free(LayerRecipe *recipe)
{
    if (!recipe)
        return;
    if (recipe->segments)
        g_array_unref(recipe->segments);
    g_clear_pointer(&recipe->blob, g_bytes_unref);
    g_free(recipe);
}
