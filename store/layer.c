/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes layers: a deterministic tar that is never written down as such. Headers are
 * collected; contents are named by where they lie in a file space and become references
 * in the layer's own payload map, one block run per distinct file.
 *
 * The two digests are computed in layer_writer_finish by streaming the tar that the recipe describes.
 * Compressing is what costs, so the gzip digest of a tar that was compressed before is remembered by its
 * diff_id.
 */
#include "store/layer.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/compress.h"
#include "store/deflate.h"
#include "store/image.h"
#include "store/layer-recipe.h"
#include "store/tar-header.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PIECE (512u * 1024u)
#define WHITEOUT ".wh."

/* Where the payload of a segment is read from until the recipe's own map can be opened. */
typedef struct Payload {
    StoreMap *from;
    uint64_t offset;
} Payload;

struct LayerWriter {
    Store *store;
    StoreWriter *writer;
    GByteArray *literals;
    uint64_t literal_start; /* literals from here on belong to the next segment */
    GArray *segments;       /* of RecipeSegment */
    GArray *payloads;       /* of Payload, one per segment */
    GHashTable *blocks;     /* Digest of a content -> its first block in the payload map, plus 1 */
    GHashTable *maps;       /* StoreMaps held */
    uint64_t block_count;
    MapWriter *map; /* NULL when nothing has content, and with zstd */
    bool zstd;
    int zstd_fd; /* the compressed layer, until the blob is written */
    bool finished;
    LayerResult result;
};

typedef struct Compressed {
    DigestStream *digest;
    uint64_t size;
    int fd; /* -1: only counted */
} Compressed;

/* Where the tar's bytes go; NULL for what is not wanted. */
typedef struct Sinks {
    DigestStream *digest;
    GzipWriter *gzip;
    ZstdWriter *zstd;
} Sinks;

bool layer_writer_new(Store *store, StoreWriter *writer, LayerWriter **ret, GError **error)
{
    LayerWriter *layer = g_new0(LayerWriter, 1);

    layer->store = store;
    layer->writer = writer;
    layer->zstd_fd = -1;
    layer->literals = g_byte_array_new();
    layer->segments = g_array_new(FALSE, FALSE, sizeof(RecipeSegment));
    layer->payloads = g_array_new(FALSE, FALSE, sizeof(Payload));
    layer->blocks = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, g_free);
    layer->maps = g_hash_table_new_full(NULL, NULL, (GDestroyNotify)store_map_unref, NULL);
    *ret = layer;
    return true;
}

void layer_writer_free(LayerWriter *layer)
{
    if (!layer)
        return;
    g_byte_array_unref(layer->literals);
    g_array_unref(layer->segments);
    g_array_unref(layer->payloads);
    g_hash_table_unref(layer->blocks);
    g_hash_table_unref(layer->maps);
    map_writer_free(layer->map);
    scope_close_fd(&layer->zstd_fd);
    g_free(layer);
}

void layer_writer_use_zstd(LayerWriter *layer)
{
    assert(!layer->finished);
    layer->zstd = true;
}

bool layer_writer_empty(const LayerWriter *layer)
{
    return layer->literals->len == 0;
}

/* --- collecting ---------------------------------------------------------------- */

static void append_zeroes(LayerWriter *layer, uint64_t size)
{
    static const guint8 zeroes[TAR_END_SIZE];

    g_byte_array_append(layer->literals, zeroes, (guint)size);
}

/* The literals so far and @size bytes of content at @offset of @files end a segment. */
static void add_segment(LayerWriter *layer, uint64_t size, uint64_t block, StoreMap *files, uint64_t offset)
{
    RecipeSegment segment = {layer->literals->len - layer->literal_start, size, block};
    Payload payload = {files, offset};

    g_array_append_val(layer->segments, segment);
    g_array_append_val(layer->payloads, payload);
    layer->literal_start = layer->literals->len;
}

/* Equal contents share their blocks in the payload map. */
static uint64_t place_content(LayerWriter *layer, const TreeEntry *entry)
{
    uint64_t *known = g_hash_table_lookup(layer->blocks, &entry->sha256);

    if (known)
        return *known - 1;
    known = g_new(uint64_t, 1);
    *known = layer->block_count + 1;
    g_hash_table_insert(layer->blocks, g_memdup2(&entry->sha256, sizeof(Digest)), known);
    layer->block_count += (entry->size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;
    return *known - 1;
}

static bool check_name(const char *path, GError **error)
{
    g_autofree char *base = g_path_get_basename(path);

    if (g_str_has_prefix(base, WHITEOUT))
        return fail(error,
                    "'%s' cannot be in a container layer: names that start with '.wh.' mean deletion there",
                    path);
    return true;
}

static bool check_room(const LayerWriter *layer, GError **error)
{
    return layer->literals->len < RECIPE_LITERALS_MAX || fail(error, "the layer has too many files");
}

bool layer_writer_add(LayerWriter *layer, const Tree *tree, StoreMap *files, const TreeEntry *entry,
                      GError **error)
{
    TreeEntry named = tar_header_entry(tree, entry);

    assert(!layer->finished);
    if (entry->type == 's')
        return true;
    if (!check_name(entry->path, error) || !check_room(layer, error) ||
        !tar_header_append(layer->literals, &named, error))
        return false;
    if (entry->type != 'f' || entry->size == 0)
        return true;
    if (!files || entry->data_offset % STORE_BLOCK_SIZE || entry->data_offset > store_map_size(files) ||
        entry->size > store_map_size(files) - entry->data_offset)
        return fail(error, "the content of '%s' is not in the tree's file space", entry->path);
    if (!g_hash_table_contains(layer->maps, files))
        g_hash_table_add(layer->maps, store_map_ref(files));
    add_segment(layer, entry->size, place_content(layer, entry), files, entry->data_offset);
    append_zeroes(layer, tar_padding(entry->size));
    return true;
}

bool layer_writer_whiteout(LayerWriter *layer, const char *path, GError **error)
{
    g_autofree char *base = g_path_get_basename(path), *folder = g_path_get_dirname(path);
    TreeEntry entry = {.type = 'f', .mode = 0600};
    g_autofree char *name = NULL;

    assert(!layer->finished);
    if (!check_name(path, error) || !check_room(layer, error))
        return false;
    name = strcmp(folder, ".") == 0 ? g_strconcat(WHITEOUT, base, NULL)
                                    : g_strconcat(folder, "/" WHITEOUT, base, NULL);
    entry.path = name;

    return tar_header_append(layer->literals, &entry, error);
}

/* --- finishing ----------------------------------------------------------------- */

/* Every distinct content once, in order of first use; file space and payload lie on the same grid. */
static bool make_map(LayerWriter *layer, GError **error)
{
    uint64_t next = 0;

    if (layer->block_count == 0)
        return true;
    if (!map_writer_new(layer->writer, layer->block_count * STORE_BLOCK_SIZE, NULL, &layer->map, error))
        return false;
    for (guint i = 0; i < layer->segments->len; i++) {
        const RecipeSegment *segment = &g_array_index(layer->segments, RecipeSegment, i);
        const Payload *payload = &g_array_index(layer->payloads, Payload, i);
        uint64_t blocks = (segment->payload + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;

        if (segment->payload == 0 || segment->block < next)
            continue;
        if (!map_writer_ref(layer->map, segment->block * STORE_BLOCK_SIZE, payload->from, payload->offset,
                            blocks * STORE_BLOCK_SIZE, error))
            return false;
        next = segment->block + blocks;
    }
    return map_writer_finish(layer->map, error);
}

static bool put_tar(const Sinks *sinks, const void *data, size_t size, GError **error)
{
    if (sinks->digest)
        digest_stream_update(sinks->digest, data, size);
    return (!sinks->gzip || gzip_writer_push(sinks->gzip, data, size, error)) &&
           (!sinks->zstd || zstd_writer_push(sinks->zstd, data, size, error));
}

static bool stream_tar(const LayerWriter *layer, const Sinks *sinks, Progress *progress, GError **error)
{
    g_autofree uint8_t *buffer = g_malloc(PIECE);
    const uint8_t *literals = layer->literals->data;

    for (guint i = 0; i < layer->segments->len; i++) {
        const RecipeSegment *segment = &g_array_index(layer->segments, RecipeSegment, i);
        const Payload *payload = &g_array_index(layer->payloads, Payload, i);

        if (!put_tar(sinks, literals, segment->literal, error))
            return false;
        literals += segment->literal;
        for (uint64_t done = 0; done < segment->payload;) {
            size_t n = (size_t)MIN(segment->payload - done, PIECE);

            if (!interrupt_check(error) || !store_map_pread(payload->from, buffer, n, payload->offset + done, error) ||
                !put_tar(sinks, buffer, n, error))
                return false;
            done += n;
        }
        progress_add(progress, segment->literal + segment->payload);
    }
    return true;
}

static bool count_compressed(const void *data, size_t size, void *arg, GError **error)
{
    Compressed *compressed = arg;

    digest_stream_update(compressed->digest, data, size);
    compressed->size += size;
    return compressed->fd < 0 || file_write_full(compressed->fd, data, size, "a layer's temporary file", error);
}

static char *memo_key(const Digest *diff_id)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strdup_printf("layer-gzip:%d:%s", RECIPE_GZIP, digest_to_hex(diff_id, hex));
}

/* The gzip digest and size of a tar with this diff_id, when some layer had it before. */
static bool remembered(LayerWriter *layer)
{
    g_autofree char *key = memo_key(&layer->result.diff_id), *value = NULL;
    g_autoptr(GError) ignored = NULL; /* a memory only: without it we compress */
    char hex[65] = "";
    uint64_t size = 0;

    if (!store_memo_get(layer->store, key, &value, &ignored) || !value)
        return false;
    if (sscanf(value, "%64s %" SCNu64, hex, &size) != 2 || !digest_parse(hex, &layer->result.blob))
        return false;
    layer->result.size = size;
    return true;
}

static void remember(const LayerWriter *layer)
{
    g_autofree char *key = memo_key(&layer->result.diff_id), *value = NULL;
    g_autoptr(GError) ignored = NULL; /* costs the next bake some seconds, nothing else */
    char hex[DIGEST_HEX_SIZE];

    value = g_strdup_printf("%s %" PRIu64, digest_to_hex(&layer->result.blob, hex), layer->result.size);
    if (!store_memo_put(layer->store, key, value, NULL, NULL, &ignored))
        trace("store.layer", "not remembered: %s", ignored->message);
}

static bool compress(LayerWriter *layer, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    Compressed compressed = {stream, 0, -1};
    g_autoptr(GzipWriter) gzip = gzip_writer_new(count_compressed, &compressed);
    g_autoptr(Progress) progress = progress_new("layer", layer->result.tar_size, true);

    if (!stream_tar(layer, &(Sinks){.gzip = gzip}, progress, error) || !gzip_writer_finish(gzip, error))
        return false;
    digest_stream_final(stream, &layer->result.blob);
    layer->result.size = compressed.size;
    progress_done(progress);
    remember(layer);
    return true;
}

/* Both digests in one go. */
static bool compress_zstd(LayerWriter *layer, GError **error)
{
    g_autoptr(DigestStream) plain = digest_stream_new(), packed = digest_stream_new();
    Compressed compressed = {packed, 0, -1};
    g_autoptr(ZstdWriter) zstd = zstd_writer_new(layer->result.tar_size, count_compressed, &compressed);
    g_autoptr(Progress) progress = progress_new("layer", layer->result.tar_size, true);

    if (!store_open_unnamed(layer->store, &layer->zstd_fd, error))
        return false;
    compressed.fd = layer->zstd_fd;
    if (!stream_tar(layer, &(Sinks){.digest = plain, .zstd = zstd}, progress, error) || !zstd_writer_finish(zstd, error))
        return false;
    digest_stream_final(plain, &layer->result.diff_id);
    digest_stream_final(packed, &layer->result.blob);
    layer->result.size = compressed.size;
    progress_done(progress);
    return true;
}

static bool compress_gzip(LayerWriter *layer, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();

    if (!make_map(layer, error) || !stream_tar(layer, &(Sinks){.digest = stream}, NULL, error))
        return false;
    digest_stream_final(stream, &layer->result.diff_id);
    return remembered(layer) || compress(layer, error);
}

bool layer_writer_finish(LayerWriter *layer, GError **error)
{
    assert(!layer->finished);
    append_zeroes(layer, TAR_END_SIZE);
    add_segment(layer, 0, 0, NULL, 0);
    for (guint i = 0; i < layer->segments->len; i++)
        layer->result.tar_size += g_array_index(layer->segments, RecipeSegment, i).literal +
                                  g_array_index(layer->segments, RecipeSegment, i).payload;
    if (!(layer->zstd ? compress_zstd : compress_gzip)(layer, error))
        return false;
    layer->finished = true;
    return true;
}

static bool zstd_result(LayerWriter *layer, LayerResult *ret, GError **error)
{
    Digest blob;

    if (!store_blob_put_file(layer->store, layer->zstd_fd, &blob, NULL, error))
        return fail_prefix(error, "layer");
    if (!digest_equal(&blob, &layer->result.blob))
        return fail(error, "a layer's temporary file changed while it was read");
    layer->result.new_bytes = layer->result.size;
    *ret = layer->result;
    return true;
}

bool layer_writer_result(LayerWriter *layer, LayerResult *ret, GError **error)
{
    LayerRecipe recipe = {
        .info = layer->result,
        .encoder = RECIPE_GZIP,
        .segments = layer->segments,
        .literals = layer->literals->data,
        .literal_size = layer->literals->len,
    };

    assert(layer->finished);
    return layer->zstd ? zstd_result(layer, ret, error) : layer_recipe_put(layer->store, &recipe, layer->map, ret, error);
}
