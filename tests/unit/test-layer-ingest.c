/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tars of other people: each comes back bit for bit, whatever it is; large members share what they have in common with their older
 * form behind an insertion, and with disks where they lie as on those.
 */
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/chunker.h"
#include "store/deflate.h"
#include "store/gear.h"
#include "store/layer-recipe.h"
#include "store/store.h"
#include "store/tar-header.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

typedef StoreFixture Fixture;

#define MIB (1u << 20)

/* --- taking in ------------------------------------------------------------------ */

static int open_bytes(const Fixture *f, const void *data, size_t size)
{
    g_autofree char *path = g_build_filename(f->dir, "bytes", NULL);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    g_assert_true(file_write_full(fd, data, size, "test", NULL));
    return fd;
}

static void ingest(const Fixture *f, const void *data, size_t size, LayerResult *ret)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(LayerIngest) in = NULL;
    g_autoptr(GError) error = NULL;
    LayerBytes bytes = {.size = size, .tar_size = size};
    auto_fd int fd = open_bytes(f, data, size);

    digest_of(data, size, &bytes.blob);
    bytes.diff_id = bytes.blob;
    (void)(store_writer_open(f->store, BLOCK_PUBLIC, &writer, &error) &&
           layer_ingest_new(f->store, writer, fd, &bytes, &in, &error) && store_writer_commit(writer, &error) &&
           layer_ingest_result(in, ret, &error));
    g_assert_no_error(error);
}

static void assert_comes_back(const Fixture *f, const LayerResult *layer, const void *data, size_t size)
{
    auto_fd int fd = open_bytes(f, "", 0);
    g_autofree uint8_t *made = g_malloc(size + 1);
    g_autoptr(GError) error = NULL;
    struct stat st;

    (void)layer_write_out(f->store, &layer->recipe, false, fd, &error);
    g_assert_no_error(error);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpuint(st.st_size, ==, size);
    g_assert_true(file_pread_full(fd, made, size, 0, "test", NULL));
    g_assert_true(memcmp(made, data, size) == 0);
}

static void round_trip(const Fixture *f, const void *data, size_t size)
{
    LayerResult layer;

    ingest(f, data, size, &layer);
    assert_comes_back(f, &layer, data, size);
}

static uint64_t payload_of(const Fixture *f, const LayerResult *layer, guint *ret_segments)
{
    g_autoptr(GBytes) blob = NULL;
    g_autoptr(LayerRecipe) recipe = NULL;
    uint64_t sum = 0;

    g_assert_true(store_blob_get(f->store, &layer->recipe, RECIPE_MAX, &blob, NULL) && layer_recipe_decode(blob, &recipe, NULL));
    for (guint i = 0; i < recipe->segments->len; i++)
        sum += g_array_index(recipe->segments, RecipeSegment, i).payload;
    if (ret_segments)
        *ret_segments = recipe->segments->len;
    return sum;
}

/* --- tars ------------------------------------------------------------------------- */

static void write_file(const Fixture *f, const char *name, const void *data, size_t size)
{
    g_autofree char *path = g_build_filename(f->dir, "t", name, NULL);

    g_assert_true(g_file_set_contents(path, data, (gssize)size, NULL));
}

/* A folder with what tars find hard: holes, long names, odd sizes, links. */
static void make_folder(const Fixture *f)
{
    g_autofree char *folder = g_build_filename(f->dir, "t", NULL), *name = g_strnfill(200, 'n'), *path = NULL;
    g_autofree uint8_t *noise = g_malloc(300000);
    auto_fd int fd = -1;

    g_assert_cmpint(mkdir(folder, 0755), ==, 0);
    test_noise(noise, 300000, 1);
    write_file(f, "empty", "", 0);
    write_file(f, "one", "x", 1);
    write_file(f, "block", noise, 512);
    write_file(f, "page", noise, 4096);
    write_file(f, "odd", noise, 123457);
    write_file(f, name, noise, 5000);
    path = g_build_filename(folder, "sparse", NULL);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    for (int i = 0; i < 40; i++) /* more pieces than one GNU header lists */
        g_assert_cmpint(pwrite(fd, noise + i * 4096, 4096, (off_t)i * 65536), ==, 4096);
    g_assert_cmpint(ftruncate(fd, 4 * MIB), ==, 0);
    g_free(g_steal_pointer(&path));
    path = g_build_filename(folder, "link", NULL);
    g_assert_cmpint(symlink(name, path), ==, 0);
}

static void run_tar(const Fixture *f, const char *option, char **ret, gsize *ret_size)
{
    g_autofree char *out = g_build_filename(f->dir, "made.tar", NULL);
    const char *argv[] = {"tar", "-C", f->dir, "--sort=name", option, "-S", "-cf", out, "t", NULL};
    g_autofree char *said = NULL;
    g_autoptr(GError) error = NULL;

    (void)process_capture(argv, 1 << 16, &said, &error);
    g_assert_no_error(error);
    g_assert_true(g_file_get_contents(out, ret, ret_size, NULL));
}

/* Contents were found: nearly all is payload, not literal. */
static void assert_understood(const Fixture *f, const void *data, size_t size)
{
    LayerResult layer;

    ingest(f, data, size, &layer);
    assert_comes_back(f, &layer, data, size);
    g_assert_cmpuint(payload_of(f, &layer, NULL), >=, 1 + 512 + 4096 + 123457 + 5000 + 40 * 4096);
    g_assert_cmpuint(payload_of(f, &layer, NULL), <, size - 7 * 512);
}

static void test_formats(Fixture *f, gconstpointer data)
{
    static const char *const formats[] = {"--format=gnu", "--format=oldgnu", "--format=pax", "--format=posix"};

    make_folder(f);
    for (size_t i = 0; i < G_N_ELEMENTS(formats); i++) {
        g_autofree char *tar = NULL, *twice = NULL;
        gsize size;

        run_tar(f, formats[i], &tar, &size);
        assert_understood(f, tar, size);
        twice = g_malloc(2 * size + 700);
        memcpy(twice, tar, size);
        memcpy(twice + size, tar, size);
        memset(twice + 2 * size, 0xa5, 700);
        assert_understood(f, twice, 2 * size);       /* one behind the other */
        round_trip(f, twice, 2 * size + 700);        /* and garbage */
        round_trip(f, twice, 2 * size + 3);
        assert_understood(f, tar, size - 10240 > 512 * 400 ? size - 1024 : size); /* without its end */
    }
}

static void test_damage(Fixture *f, gconstpointer data)
{
    g_autofree char *tar = NULL;
    gsize size;
    uint64_t seed = 7;

    make_folder(f);
    run_tar(f, "--format=gnu", &tar, &size);
    for (gsize cut = 0; cut < size; cut += cut < 3000 ? 311 : 40009)
        round_trip(f, tar, cut);
    for (int i = 0; i < 60; i++) { /* sizes, types and checksums of headers, and contents */
        gsize at;

        test_noise((uint8_t *)&seed, 8, seed);
        at = (gsize)(seed % (i % 2 ? 4096 : size));
        tar[at] = (char)(tar[at] ^ (char)(seed >> 40));
        round_trip(f, tar, size);
    }
}

static void test_no_tar(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *noise = g_malloc0(3 * MIB);

    round_trip(f, noise, 0);
    round_trip(f, noise, 511);
    round_trip(f, noise, 3 * MIB);
    test_noise(noise, 3 * MIB, 3);
    round_trip(f, noise, 100);
    round_trip(f, noise, 3 * MIB - 5);
}

/* --- large members ------------------------------------------------------------------- */

static GByteArray *tar_of(const char *name, const uint8_t *data, size_t size)
{
    TreeEntry entry = {.path = (char *)name, .type = 'f', .mode = 0644, .size = size};
    static const uint8_t zeroes[2 * TAR_BLOCK];
    GByteArray *tar = g_byte_array_new();

    g_assert_true(tar_header_append(tar, &entry, NULL));
    g_byte_array_append(tar, data, (guint)size);
    g_byte_array_append(tar, zeroes, (guint)tar_padding(size));
    g_byte_array_append(tar, zeroes, sizeof zeroes);
    return tar;
}

static uint64_t new_bytes(const Fixture *f, const uint8_t *data, size_t size, guint *ret_segments)
{
    g_autoptr(GByteArray) tar = tar_of("big.db", data, size);
    LayerResult layer;

    ingest(f, tar->data, tar->len, &layer);
    assert_comes_back(f, &layer, tar->data, tar->len);
    (void)payload_of(f, &layer, ret_segments);
    return layer.new_bytes;
}

static void test_insertion(Fixture *f, gconstpointer data)
{
    const size_t size = 8 * MIB;
    g_autofree uint8_t *old = g_malloc(size), *new = g_malloc(size + 100);
    guint segments;

    test_noise(old, size, 5);
    g_assert_cmpuint(new_bytes(f, old, size, &segments), >, size);
    g_assert_cmpuint(segments, >, 200);
    memcpy(new, old, 20000);
    memset(new + 20000, 'x', 100);
    memcpy(new + 20100, old + 20000, size - 20000);
    g_assert_cmpuint(new_bytes(f, new, size + 100, NULL), <, 200000); /* not eight million */
}

static void test_grid(Fixture *f, gconstpointer data)
{
    const size_t size = 4 * MIB;
    g_autofree uint8_t *bytes = g_malloc(2 * size);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    guint segments;

    test_noise(bytes, 2 * size, 9);
    g_assert_true(store_writer_open(f->store, BLOCK_PUBLIC, &writer, NULL) && map_writer_new(writer, size, NULL, &map, NULL) &&
                  map_writer_write(map, 0, bytes, size, NULL) && map_writer_finish(map, NULL) && store_writer_commit(writer, NULL));
    g_assert_cmpuint(new_bytes(f, bytes, size, &segments), <, 4096); /* the recipe */
    g_assert_cmpuint(segments, <, 5);
    /* The first half is known, the second is not: each is treated as what it is. */
    g_assert_cmpuint(new_bytes(f, bytes, 2 * size, &segments), <, size + size / 4);
    g_assert_cmpuint(segments, >, 100);
    memcpy(bytes + size, "\x7f" "ELF", 4);
    g_assert_cmpuint(new_bytes(f, bytes + size, size, &segments), >, 0);
    g_assert_cmpuint(segments, <, 5); /* a program stays on the grid, known or not */
}

/* --- cuts ------------------------------------------------------------------------------ */

static void test_gear(void)
{
    for (unsigned i = 0; i < 256; i++) {
        g_autofree char *text = g_strdup_printf("kiln gear %u", i);
        Digest digest;
        uint64_t value;

        digest_of_string(text, &digest);
        memcpy(&value, digest.bytes, sizeof value);
        g_assert_cmphex(gear_table[i], ==, GUINT64_FROM_LE(value));
    }
}

/* Equal bytes are cut alike for ever: the sum over this noise's cuts never changes. */
static void test_cuts_are_frozen(void)
{
    const size_t size = 4 * MIB;
    g_autofree uint8_t *bytes = g_malloc(size);
    g_autoptr(DigestStream) stream = digest_stream_new();
    char hex[DIGEST_HEX_SIZE];
    Digest digest;
    size_t count = 0;

    test_noise(bytes, size, 11);
    for (size_t at = 0; at < size; count++) {
        size_t length = chunker_cut(bytes + at, size - at);
        uint32_t wire = GUINT32_TO_LE((uint32_t)length);

        g_assert_cmpuint(length, <=, CHUNK_MAX);
        g_assert_true(length > CHUNK_MIN || at + length == size);
        digest_stream_update(stream, &wire, sizeof wire);
        at += length;
    }
    digest_stream_final(stream, &digest);
    g_assert_cmpuint(count, >, size / 24576);
    g_assert_cmpstr(digest_to_hex(&digest, hex), ==, "e78b5235bcc80c973a377f65aa3b130d589a1b06aa18cc02a4287f1b350cf532");
}

static void test_zeroes_are_cut_at_the_most(void)
{
    static const uint8_t zeroes[CHUNK_MAX + 5];

    g_assert_cmpuint(chunker_cut(zeroes, sizeof zeroes), ==, CHUNK_MAX);
    g_assert_cmpuint(chunker_cut(zeroes, 5), ==, 5);
    g_assert_cmpuint(chunker_cut(zeroes, CHUNK_MIN), ==, CHUNK_MIN);
    g_assert_cmpuint(chunker_cut(zeroes, CHUNK_MIN + 1), ==, CHUNK_MIN + 1);
}

/* --- whose encoder ------------------------------------------------------------------------ */

static bool collect(const void *data, size_t size, void *arg, GError **error)
{
    return file_write_full(*(int *)arg, data, size, "test", error);
}

static bool is_ours(int gz, const uint8_t *bytes, size_t size)
{
    g_autoptr(LayerProbe) probe = layer_probe_new(gz);

    for (size_t at = 0; at < size; at += 50000)
        if (!layer_probe_push(probe, bytes + at, MIN(50000, size - at)))
            return false;
    return layer_probe_is_ours(probe);
}

static void test_encoder(Fixture *f, gconstpointer data)
{
    const size_t size = 700000;
    g_autofree uint8_t *bytes = g_malloc(size);
    g_autofree char *path = g_build_filename(f->dir, "gz", NULL);
    auto_fd int gz = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_autoptr(GzipWriter) gzip = gzip_writer_new(collect, &gz);

    test_noise(bytes, size, 13);
    g_assert_true(gzip_writer_push(gzip, bytes, size, NULL) && gzip_writer_finish(gzip, NULL));
    g_assert_true(is_ours(gz, bytes, size));
    g_assert_cmpint(pwrite(gz, "x", 1, 400000), ==, 1);
    g_assert_true(!is_ours(gz, bytes, size));
    g_assert_cmpint(ftruncate(gz, 300000), ==, 0);
    g_assert_true(!is_ours(gz, bytes, size));
}

#define ADD(name, fn) g_test_add("/layer-ingest/" name, Fixture, NULL, store_fixture_setup, fn, store_fixture_teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("every-format-comes-back", test_formats);
    ADD("damaged-tars-come-back", test_damage);
    ADD("what-is-no-tar-comes-back", test_no_tar);
    ADD("an-insertion-costs-what-it-is", test_insertion);
    ADD("what-disks-have-stays-on-the-grid", test_grid);
    ADD("our-encoder-is-told-from-others", test_encoder);
    g_test_add_func("/chunker/gear-table-is-what-the-manual-says", test_gear);
    g_test_add_func("/chunker/cuts-are-frozen", test_cuts_are_frozen);
    g_test_add_func("/chunker/zeroes-are-cut-at-the-most", test_zeroes_are_cut_at_the_most);
    return g_test_run();
}
