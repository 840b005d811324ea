/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers from elsewhere as recipes.
 *
 * The tar is planned first, then written: a payload map has its size from the beginning. Each member starts on a block of its own. Up to 1 MiB it is
 * cut into 4 KiB from its start on, as a disk's file system would lay it out. A larger one is looked at by stretches of 1 MiB:
 *
 *     of 16 blocks of the stretch at least half are in the store    the grid, as above
 *     else                                                          cuts by content, from the stretch before on when that was cut too
 *
 * so that a file with bytes inserted somewhere shares what is in front of them with disks, and what is behind them with its own older
 * form. Each piece starts on a block and its last block is filled up with zeroes; the recipe has every piece's length.
 * Programs and compressed streams stay on the grid: in those an insertion changes everything behind it anyway, and disks have them too.
 */
#include "store/layer.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/scope.h"
#include "store/chunker.h"
#include "store/deflate.h"
#include "store/layer-recipe.h"
#include "store/tar-walk.h"
#include "store/writer.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define STRETCH (1u << 20) /* members up to this length are never cut by content */
#define SAMPLES 16u
#define STAGE (1u << 20)
#define COMPARE 65536u

struct LayerIngest {
    Store *store;
    StoreWriter *writer;
    LayerBytes bytes;
    const uint8_t *data; /* the tar, mapped while it is taken in */
    uint64_t at;         /* how far the plan is */

    GByteArray *literals;
    GArray *segments; /* of RecipeSegment */
    GArray *offsets;  /* uint64_t: where a segment's payload is in the tar */
    uint64_t block_count;

    MapWriter *map; /* NULL when nothing has content */
    uint8_t *stage; /* blocks that are to be written at @stage_block */
    uint64_t stage_block;
    size_t staged;
};

void layer_ingest_free(LayerIngest *in)
{
    if (!in)
        return;
    g_byte_array_unref(in->literals);
    g_array_unref(in->segments);
    g_array_unref(in->offsets);
    map_writer_free(in->map);
    g_free(in->stage);
    g_free(in);
}

/* --- the plan ------------------------------------------------------------------- */

static void add_segment(LayerIngest *in, uint64_t literal, uint64_t payload, uint64_t offset)
{
    RecipeSegment segment = {literal, payload, payload ? in->block_count : 0};

    g_array_append_val(in->segments, segment);
    g_array_append_val(in->offsets, offset);
    in->block_count += (payload + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;
}

/* ELF, gzip, xz, zstd, bzip2. */
static bool stays_on_grid(const uint8_t *data, uint64_t size)
{
    static const char *const starts[] = {"\x7f" "ELF", "\x1f\x8b", "\xfd" "7zXZ", "\x28\xb5\x2f\xfd", "BZh"};

    for (size_t i = 0; i < G_N_ELEMENTS(starts); i++)
        if (size > strlen(starts[i]) && memcmp(data, starts[i], strlen(starts[i])) == 0)
            return true;
    return false;
}

/* Zeroes say nothing; a stretch of nothing else needs no blocks on the grid. */
static bool stretch_is_known(LayerIngest *in, const uint8_t *data, uint64_t size)
{
    uint64_t blocks = size / STORE_BLOCK_SIZE, step = MAX(blocks / SAMPLES, 1);
    unsigned looked = 0, known = 0;

    for (uint64_t i = step / 2; i < blocks; i += step) {
        const uint8_t *block = data + i * STORE_BLOCK_SIZE;

        if (bytes_are_zero(block, STORE_BLOCK_SIZE))
            continue;
        looked++;
        known += store_writer_knows_block(in->writer, block);
    }
    return known * 2 >= looked;
}

/* Cuts [@from, @to) of the member at @offset by content. */
static void add_cuts(LayerIngest *in, uint64_t offset, uint64_t from, uint64_t to)
{
    while (from < to) {
        size_t length = chunker_cut(in->data + offset + from, (size_t)(to - from));

        add_segment(in, 0, length, offset + from);
        from += length;
    }
}

static bool add_large(LayerIngest *in, uint64_t offset, uint64_t size, GError **error)
{
    uint64_t start = 0; /* of the stretches of one kind that are not planned yet */
    bool grid = true;

    for (uint64_t at = 0; at < size; at += STRETCH) {
        bool known = stretch_is_known(in, in->data + offset + at, MIN(size - at, STRETCH));

        if (!interrupt_check(error))
            return false;
        if (known == grid)
            continue;
        if (grid && at > start)
            add_segment(in, 0, at - start, offset + start);
        else if (!grid)
            add_cuts(in, offset, start, at);
        start = at;
        grid = known;
    }
    if (grid)
        add_segment(in, 0, size - start, offset + start);
    else
        add_cuts(in, offset, start, size);
    return true;
}

static bool add_span(uint64_t literal, uint64_t content, void *arg, GError **error)
{
    LayerIngest *in = arg;
    const uint8_t *data = in->data + in->at;

    if (literal > RECIPE_LITERALS_MAX - in->literals->len)
        return fail(error, "the layer has too many files");
    g_byte_array_append(in->literals, data, (guint)literal);
    in->at += literal;
    data += literal;
    if (content > STRETCH && !stays_on_grid(data, content)) {
        add_segment(in, literal, 0, 0);
        if (!add_large(in, in->at, content, error))
            return false;
    } else {
        add_segment(in, literal, content, in->at);
    }
    in->at += content;
    return interrupt_check(error);
}

/* --- writing -------------------------------------------------------------------- */

static bool flush_stage(LayerIngest *in, GError **error)
{
    size_t size = in->staged;

    in->staged = 0;
    if (size == 0)
        return true;
    if (!map_writer_write(in->map, in->stage_block * STORE_BLOCK_SIZE, in->stage, size, error))
        return false;
    in->stage_block += size / STORE_BLOCK_SIZE;
    return true;
}

static bool stage_payload(LayerIngest *in, const uint8_t *data, uint64_t size, GError **error)
{
    while (size) {
        size_t part = (size_t)MIN(size, STAGE - in->staged), padded = (part + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;

        memcpy(in->stage + in->staged, data, part);
        memset(in->stage + in->staged + part, 0, padded - part);
        in->staged += padded;
        data += part;
        size -= part;
        if (in->staged == STAGE && !flush_stage(in, error))
            return false;
    }
    return true;
}

static bool write_payloads(LayerIngest *in, GError **error)
{
    if (in->block_count == 0)
        return true;
    if (!map_writer_new(in->writer, in->block_count * STORE_BLOCK_SIZE, NULL, &in->map, error))
        return false;
    in->stage = g_malloc(STAGE);
    for (guint i = 0; i < in->segments->len; i++) {
        const RecipeSegment *segment = &g_array_index(in->segments, RecipeSegment, i);

        if (!interrupt_check(error) ||
            !stage_payload(in, in->data + g_array_index(in->offsets, uint64_t, i), segment->payload, error))
            return false;
    }
    return flush_stage(in, error) && map_writer_finish(in->map, error);
}

static bool take_in(LayerIngest *in, int tar_fd, GError **error)
{
    uint64_t size = in->bytes.tar_size;
    void *mapped = NULL;
    struct stat st;
    bool ok;

    if (fstat(tar_fd, &st) < 0)
        return fail_errno(error, "read a layer's temporary file");
    if ((uint64_t)st.st_size != size)
        return fail(error, "a layer's temporary file is not as long as it was");
    if (size) {
        mapped = mmap(NULL, size, PROT_READ, MAP_SHARED, tar_fd, 0);
        if (mapped == MAP_FAILED)
            return fail_errno(error, "map a layer's temporary file");
    }
    in->data = mapped;
    ok = tar_walk(mapped, size, add_span, in, error) && write_payloads(in, error);
    in->data = NULL;
    if (mapped)
        (void)munmap(mapped, size);
    return ok;
}

bool layer_ingest_new(Store *store, StoreWriter *writer, int tar_fd, const LayerBytes *bytes, LayerIngest **ret, GError **error)
{
    g_autoptr(LayerIngest) in = g_new0(LayerIngest, 1);

    in->store = store;
    in->writer = writer;
    in->bytes = *bytes;
    in->literals = g_byte_array_new();
    in->segments = g_array_new(FALSE, FALSE, sizeof(RecipeSegment));
    in->offsets = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    if (!take_in(in, tar_fd, error))
        return false;
    g_clear_pointer(&in->stage, g_free);
    *ret = g_steal_pointer(&in);
    return true;
}

/* --- the recipe ------------------------------------------------------------------ */

static bool makes_the_tar(const LayerIngest *in, const Digest *recipe, GError **error)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    bool ok;

    if (null < 0)
        return fail_errno(error, "open '/dev/null'");
    ok = layer_write_out(in->store, recipe, true, null, error);
    (void)close(null);
    return ok;
}

bool layer_ingest_result(LayerIngest *in, LayerResult *ret, GError **error)
{
    LayerResult result;
    LayerRecipe recipe = {
        .info = {.diff_id = in->bytes.diff_id, .blob = in->bytes.blob, .size = in->bytes.size, .tar_size = in->bytes.tar_size},
        .encoder = in->bytes.gzip ? RECIPE_GZIP : RECIPE_PLAIN,
        .segments = in->segments,
        .literals = in->literals->data,
        .literal_size = in->literals->len,
    };

    if (!layer_recipe_put(in->store, &recipe, in->map, &result, error))
        return false;
    if (!makes_the_tar(in, &result.recipe, error))
        return fail_prefix(error, "layer");
    *ret = result;
    return true;
}

/* --- whose encoder ----------------------------------------------------------------- */

struct LayerProbe {
    int fd;
    uint64_t at;
    bool differs;
    GzipWriter *gzip;
};

/* A difference ends the encoder's work as an error would. */
static bool compare_piece(const void *data, size_t size, void *arg, GError **error)
{
    LayerProbe *probe = arg;
    uint8_t buffer[COMPARE];
    const uint8_t *made = data;

    while (size && !probe->differs) {
        size_t part = MIN(size, sizeof buffer);
        ssize_t n = pread(probe->fd, buffer, part, (off_t)probe->at);

        probe->differs = n != (ssize_t)part || memcmp(buffer, made, part) != 0;
        probe->at += part;
        made += part;
        size -= part;
    }
    return !probe->differs;
}

LayerProbe *layer_probe_new(int gzip_fd)
{
    LayerProbe *probe = g_new0(LayerProbe, 1);

    probe->fd = gzip_fd;
    probe->gzip = gzip_writer_new(compare_piece, probe);
    return probe;
}

bool layer_probe_push(LayerProbe *probe, const void *data, size_t size)
{
    return !probe->differs && gzip_writer_push(probe->gzip, data, size, NULL);
}

bool layer_probe_is_ours(LayerProbe *probe)
{
    struct stat st;

    return !probe->differs && gzip_writer_finish(probe->gzip, NULL) && fstat(probe->fd, &st) == 0 && probe->at == (uint64_t)st.st_size;
}

void layer_probe_free(LayerProbe *probe)
{
    if (!probe)
        return;
    gzip_writer_free(probe->gzip);
    g_free(probe);
}

bool layer_starts_as_ours(const uint8_t head[LAYER_GZIP_HEAD])
{
    return memcmp(head, "\x1f\x8b\x08\0\0\0\0\0\0\xff", LAYER_GZIP_HEAD) == 0;
}

typedef struct Unpacking {
    int fd;
    uint64_t size, max;
    DigestStream *digest;
    LayerProbe *probe;
    bool foreign;
} Unpacking;

/* Zeroes become holes: a small layer may unpack to very many. */
static bool take_tar(const void *data, size_t size, void *arg, GError **error)
{
    Unpacking *to = arg;
    uint64_t at = to->size;

    to->size += size;
    to->foreign = to->size > to->max || !layer_probe_push(to->probe, data, size);
    digest_stream_update(to->digest, data, size);
    return !to->foreign && (bytes_are_zero(data, size) || file_pwrite_full(to->fd, data, size, at, "a layer's temporary file", error));
}

bool layer_unpack_ours(Store *store, int gzip_fd, uint64_t max, LayerBytes *bytes, int *ret_tar_fd, GError **error)
{
    g_autoptr(LayerProbe) probe = layer_probe_new(gzip_fd);
    g_autoptr(DigestStream) digest = digest_stream_new();
    auto_fd int tar = -1;
    Unpacking to = {.max = max, .digest = digest, .probe = probe};

    if (lseek(gzip_fd, 0, SEEK_SET) < 0)
        return fail_errno(error, "read a layer's temporary file");
    if (!store_open_unnamed(store, &tar, error))
        return false;
    to.fd = tar;
    if (!tree_tar_unpack(gzip_fd, take_tar, &to, error))
        return to.foreign;
    if (ftruncate(tar, (off_t)to.size) < 0)
        return fail_errno(error, "write a layer's temporary file");
    if (!layer_probe_is_ours(probe))
        return true;
    digest_stream_final(digest, &bytes->diff_id);
    bytes->tar_size = to.size;
    *ret_tar_fd = g_steal_fd(&tar);
    return true;
}
