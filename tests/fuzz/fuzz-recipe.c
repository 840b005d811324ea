/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: a layer's recipe as a damaged or hostile store may hold it. What is accepted adds up, and is written out as it was.
 */
#include "store/layer-recipe.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_sums(const LayerRecipe *recipe)
{
    uint64_t literal = 0, total = 0;

    for (guint i = 0; i < recipe->segments->len; i++) {
        const RecipeSegment *segment = &g_array_index(recipe->segments, RecipeSegment, i);

        literal += segment->literal;
        total += segment->literal + segment->payload;
    }
    if (literal != recipe->literal_size || total != recipe->info.tar_size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GBytes) bytes = g_bytes_new(data, size), second = NULL;
    g_autoptr(LayerRecipe) recipe = NULL, again = NULL;
    g_autoptr(GByteArray) out = NULL, once_more = NULL;

    if (!layer_recipe_decode(bytes, &recipe, NULL))
        return 0;
    check_sums(recipe);
    out = layer_recipe_encode(recipe);
    second = g_bytes_new(out->data, out->len); /* a varint may have been longer than it had to be: the second time it is not */
    if (!layer_recipe_decode(second, &again, NULL))
        abort();
    once_more = layer_recipe_encode(again);
    if (once_more->len != out->len || memcmp(once_more->data, out->data, out->len) != 0)
        abort();
    return 0;
}
