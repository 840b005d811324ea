/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings layers back: the recipe's literal bytes and the payload's blocks become the tar,
 * the frozen encoder makes the gzip bytes, and both digests are held against the recipe. Gzip bytes are kept in a
 * bounded cache (store/layer-cache.h).
 */
#include "store/layer.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/deflate.h"
#include "store/layer-cache.h"
#include "store/layer-recipe.h"

#include <string.h>

#define PIECE (512u * 1024u)

typedef struct Output {
    int fd;
    DigestStream *digest;
    uint64_t size;
    LayerCacheEntry *keep; /* may be NULL */
} Output;

static bool load(Store *store, const Digest *digest, LayerRecipe **ret, GError **error)
{
    g_autoptr(GBytes) blob = NULL;
    char hex[DIGEST_HEX_SIZE];

    if (!store_blob_get(store, digest, RECIPE_MAX, &blob, error) || !layer_recipe_decode(blob, ret, error))
        return fail_prefix(error, "layer recipe %.12s", digest_to_hex(digest, hex));
    return true;
}

static bool output_put(const void *data, size_t size, void *arg, GError **error)
{
    Output *output = arg;

    digest_stream_update(output->digest, data, size);
    output->size += size;
    layer_cache_put(output->keep, data, size);
    return file_write_full(output->fd, data, size, "layer", error);
}

/* One piece of the tar, to the encoder or straight out. */
static bool tar_put(Output *output, GzipWriter *gzip, const void *data, size_t size, GError **error)
{
    return gzip ? gzip_writer_push(gzip, data, size, error) : output_put(data, size, output, error);
}

static bool put_payload(StoreMap *map, const RecipeSegment *segment, uint8_t *buffer, Output *output,
                        GzipWriter *gzip, GError **error)
{
    uint64_t offset = segment->block * STORE_BLOCK_SIZE;

    if (!map || offset > store_map_size(map) || segment->payload > store_map_size(map) - offset)
        return fail(error, "the layer recipe points outside its payload");
    for (uint64_t done = 0; done < segment->payload;) {
        size_t n = (size_t)MIN(segment->payload - done, PIECE);

        if (!interrupt_check(error) || !store_map_pread(map, buffer, n, offset + done, error) ||
            !tar_put(output, gzip, buffer, n, error))
            return false;
        done += n;
    }
    return true;
}

static bool put_segments(const LayerRecipe *recipe, StoreMap *map, Output *output, GzipWriter *gzip,
                         Progress *progress, GError **error)
{
    g_autofree uint8_t *buffer = g_malloc(PIECE);
    const uint8_t *literals = recipe->literals;

    for (guint i = 0; i < recipe->segments->len; i++) {
        const RecipeSegment *segment = &g_array_index(recipe->segments, RecipeSegment, i);

        if (!tar_put(output, gzip, literals, segment->literal, error))
            return false;
        literals += segment->literal;
        if (segment->payload && !put_payload(map, segment, buffer, output, gzip, error))
            return false;
        progress_add(progress, segment->literal + segment->payload);
    }
    return !gzip || gzip_writer_finish(gzip, error);
}

static bool make(Store *store, const LayerRecipe *recipe, bool tar, Output *output, Progress *progress, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    g_autoptr(GzipWriter) gzip = tar ? NULL : gzip_writer_new(output_put, output);
    g_autoptr(StoreMap) map = NULL;
    Digest made;
    char hex[DIGEST_HEX_SIZE];

    output->digest = stream;
    if (!digest_is_none(&recipe->map) && !store_map_open(store, &recipe->map, &map, error))
        return false;
    if (!put_segments(recipe, map, output, gzip, progress, error))
        return false;
    digest_stream_final(stream, &made);
    return digest_equal(&made, tar ? &recipe->info.diff_id : &recipe->info.blob) ||
           fail(error, "layer %.12s does not come back as it was made: the store is damaged (kiln fsck tells where)",
                digest_to_hex(&recipe->info.blob, hex));
}

static bool copy_cached(int from, int to, const LayerRecipe *recipe, Progress *progress, GError **error)
{
    if (!file_copy_stream(from, to, recipe->info.size, "layer", error))
        return false;
    progress_add(progress, recipe->info.tar_size);
    return true;
}

/* Compressing is what costs: what was made for one is kept for the next. */
static bool write_gzip(Store *store, const LayerRecipe *recipe, int fd, Progress *progress, GError **error)
{
    g_autoptr(LayerCacheEntry) keep = NULL;
    auto_fd int cached = -1;
    Output output = {.fd = fd};

    if (layer_cache_find(store, &recipe->info.blob, recipe->info.size, &cached))
        return copy_cached(cached, fd, recipe, progress, error);
    output.keep = keep = layer_cache_begin(store, &recipe->info.blob, recipe->info.size);
    if (!make(store, recipe, false, &output, progress, error))
        return false;
    layer_cache_keep(keep);
    return true;
}

bool layer_write_out_watched(Store *store, const Digest *digest, bool tar, int fd, Progress *progress, GError **error)
{
    g_autoptr(LayerRecipe) recipe = NULL;
    Output output = {.fd = fd};

    if (!load(store, digest, &recipe, error))
        return false;
    if (tar || recipe->encoder == RECIPE_PLAIN)
        return make(store, recipe, true, &output, progress, error);
    return write_gzip(store, recipe, fd, progress, error);
}

bool layer_write_out(Store *store, const Digest *digest, bool tar, int fd, GError **error)
{
    return layer_write_out_watched(store, digest, tar, fd, NULL, error);
}

bool layer_recipe_map(Store *store, const Digest *digest, Digest *ret_map, GError **error)
{
    g_autoptr(LayerRecipe) recipe = NULL;

    if (!load(store, digest, &recipe, error))
        return false;
    *ret_map = recipe->map;
    return true;
}

bool layer_recipe_info(Store *store, const Digest *digest, LayerResult *ret, GError **error)
{
    g_autoptr(LayerRecipe) recipe = NULL;

    if (!load(store, digest, &recipe, error))
        return false;
    *ret = recipe->info;
    ret->recipe = *digest;
    return true;
}
