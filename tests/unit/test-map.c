/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps: what is written comes back, holes cost nothing, blocks are shared, private bytes do not leak into public maps.
 */
#include "store/store.h"

#include "base/file.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define B STORE_BLOCK_SIZE
#define MIB (1024 * 1024)

typedef struct Fixture {
    char *dir;
    Store *store;
} Fixture;

static void set_up(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = NULL;

    f->dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    path = g_build_filename(f->dir, "store", NULL);
    store_open(path, STORE_OPEN_CREATE, &f->store, &error);
    g_assert_no_error(error);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    store_close(f->store);
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
}

/* Bytes that do not compress and depend on @seed. */
static uint8_t *noise(size_t size, uint32_t seed)
{
    uint8_t *bytes = g_malloc(size);
    uint64_t x = 88172645463325252ull + seed * 7919u;

    for (size_t i = 0; i < size; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes[i] = (uint8_t)(x >> 32);
    }
    return bytes;
}

typedef struct Write {
    uint64_t offset, len; /* data NULL: zero */
    const void *data;
} Write;

static void make_map(Store *store, BlockClass class, uint64_t size, StoreMap *parent, const Write *writes, size_t count, MapResult *ret,
                     uint64_t *ret_stored)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;

    store_writer_open(store, class, &writer, &error);
    g_assert_no_error(error);
    map_writer_new(writer, size, parent, &map, &error);
    g_assert_no_error(error);
    for (size_t i = 0; i < count; i++) {
        if (writes[i].data)
            map_writer_write(map, writes[i].offset, writes[i].data, writes[i].len, &error);
        else
            map_writer_zero(map, writes[i].offset, writes[i].len, &error);
        g_assert_no_error(error);
    }
    map_writer_finish(map, &error);
    g_assert_no_error(error);
    store_writer_commit(writer, &error);
    g_assert_no_error(error);
    map_writer_result(map, ret);
    if (ret_stored)
        *ret_stored = store_writer_new_bytes(writer);
}

static StoreMap *open_map(Store *store, const Digest *digest)
{
    g_autoptr(GError) error = NULL;
    StoreMap *map;

    store_map_open(store, digest, &map, &error);
    g_assert_no_error(error);
    return map;
}

static void assert_bytes(StoreMap *map, uint64_t offset, const void *data, size_t len)
{
    g_autofree uint8_t *got = g_malloc(len);
    g_autoptr(GError) error = NULL;

    store_map_pread(map, got, len, offset, &error);
    g_assert_no_error(error);
    g_assert_cmpint(memcmp(got, data, len), ==, 0);
}

static void test_round_trip(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = noise(3 * MIB + 1234, 1);
    Write write = { 0, 3 * MIB + 1234, bytes };
    g_autoptr(StoreMap) map = NULL;
    MapResult result;

    make_map(f->store, BLOCK_PUBLIC, write.len, NULL, &write, 1, &result, NULL);
    map = open_map(f->store, &result.digest);
    g_assert_cmpuint(store_map_size(map), ==, write.len);
    assert_bytes(map, 0, bytes, write.len);
    assert_bytes(map, 4095, bytes + 4095, 2);
    assert_bytes(map, 3 * MIB + 1000, bytes + 3 * MIB + 1000, 234);
    g_assert_false(store_map_pread(map, bytes, 2, write.len - 1, NULL));
    g_assert_cmpuint(result.data_bytes, ==, 769 * B);
}

static void test_hole(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = noise(B, 2), *zero = g_malloc0(64 * 1024);
    uint64_t size = 40ull << 30, end;
    Write write = { 20ull << 30, B, bytes };
    g_autoptr(StoreMap) map = NULL;
    MapResult result;
    bool hole;

    make_map(f->store, BLOCK_PRIVATE, size, NULL, &write, 1, &result, NULL);
    map = open_map(f->store, &result.digest);
    assert_bytes(map, 0, zero, 64 * 1024);
    assert_bytes(map, size - 4096, zero, 4096);
    assert_bytes(map, 20ull << 30, bytes, B);
    store_map_extent(map, 5, &end, &hole);
    g_assert_true(hole);
    g_assert_cmpuint(end, ==, 20ull << 30);
    store_map_extent(map, end, &end, &hole);
    g_assert_false(hole);
    g_assert_cmpuint(end, ==, (20ull << 30) + B);
    store_map_extent(map, end, &end, &hole);
    g_assert_true(hole);
    g_assert_cmpuint(end, ==, size);
    g_assert_cmpuint(result.data_bytes, ==, B);
}

static void test_zero_data_is_hole(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = g_malloc0(MIB);
    Write write = { 0, MIB, bytes };
    MapResult result;
    uint64_t stored;

    make_map(f->store, BLOCK_PUBLIC, MIB, NULL, &write, 1, &result, &stored);
    g_assert_cmpuint(result.data_bytes, ==, 0);
    g_assert_cmpuint(stored, ==, 0);
}

static void test_parent(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *a = noise(4 * MIB, 3), *b = noise(10 * B, 4), *zero = g_malloc0(2 * MIB);
    Write first = { 0, 4 * MIB, a };
    Write second[] = { { 7 * B, 10 * B, b }, { 2 * MIB, 2 * MIB, NULL } };
    g_autoptr(StoreMap) parent = NULL, child = NULL;
    MapResult result;
    uint64_t stored;

    make_map(f->store, BLOCK_PRIVATE, 4 * MIB, NULL, &first, 1, &result, NULL);
    parent = open_map(f->store, &result.digest);
    make_map(f->store, BLOCK_PRIVATE, 5 * MIB, parent, second, 2, &result, &stored);
    child = open_map(f->store, &result.digest);
    assert_bytes(child, 0, a, 7 * B);
    assert_bytes(child, 7 * B, b, 10 * B);
    assert_bytes(child, 17 * B, a + 17 * B, 2 * MIB - 17 * B);
    assert_bytes(child, 2 * MIB, zero, 2 * MIB);
    assert_bytes(child, 4 * MIB, zero, MIB);
    assert_bytes(parent, 0, a, 4 * MIB);
    g_assert_cmpuint(stored, <, 12 * B);
}

static void test_shrink(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *a = noise(MIB, 5);
    g_autofree uint8_t *grown = g_malloc0(MIB);
    Write first = { 0, MIB, a };
    g_autoptr(StoreMap) parent = NULL, small = NULL, large = NULL;
    MapResult result;

    make_map(f->store, BLOCK_PRIVATE, MIB, NULL, &first, 1, &result, NULL);
    parent = open_map(f->store, &result.digest);
    make_map(f->store, BLOCK_PRIVATE, 10 * B + 100, parent, NULL, 0, &result, NULL);
    small = open_map(f->store, &result.digest);
    assert_bytes(small, 0, a, 10 * B + 100);
    make_map(f->store, BLOCK_PRIVATE, MIB, small, NULL, 0, &result, NULL);
    large = open_map(f->store, &result.digest);
    memcpy(grown, a, 10 * B + 100);
    assert_bytes(large, 0, grown, MIB); /* what the smaller map cut off must not come back */
}

static void test_dedup(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *a = noise(2 * MIB, 6), *twice = g_malloc(3 * MIB);
    Write first = { 0, 2 * MIB, a }, second = { 0, 3 * MIB, twice };
    g_autoptr(StoreMap) map = NULL;
    MapResult one, two;
    uint64_t stored;

    make_map(f->store, BLOCK_PUBLIC, 2 * MIB, NULL, &first, 1, &one, NULL);
    make_map(f->store, BLOCK_PRIVATE, 2 * MIB, NULL, &first, 1, &two, &stored);
    g_assert_cmpuint(stored, ==, 0);
    g_assert_true(digest_equal(&one.content, &two.content));
    /* Shifted by a block, and each block of the second half a second time. */
    memcpy(twice, a + B, 2 * MIB - B);
    memset(twice + 2 * MIB - B, 0, B);
    memcpy(twice + 2 * MIB, a + MIB, MIB);
    make_map(f->store, BLOCK_PUBLIC, 3 * MIB, NULL, &second, 1, &two, &stored);
    g_assert_cmpuint(stored, ==, 0);
    map = open_map(f->store, &two.digest);
    assert_bytes(map, 0, twice, 3 * MIB);
}

static void test_public_copies_private(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *a = noise(MIB, 7), *wanted = g_malloc(MIB);
    Write first = { 0, MIB, a }, second = { 3 * B, 2 * B, NULL };
    g_autoptr(StoreMap) parent = NULL, sealed = NULL;
    g_autoptr(GPtrArray) problems = NULL;
    MapResult result;
    uint64_t stored;

    make_map(f->store, BLOCK_PRIVATE, MIB, NULL, &first, 1, &result, NULL);
    parent = open_map(f->store, &result.digest);
    make_map(f->store, BLOCK_PUBLIC, MIB, parent, &second, 1, &result, &stored);
    g_assert_cmpuint(stored, >, MIB - 3 * B); /* every byte again, none shared with the private segment */
    sealed = open_map(f->store, &result.digest);
    memcpy(wanted, a, MIB);
    memset(wanted + 3 * B, 0, 2 * B);
    assert_bytes(sealed, 0, wanted, MIB);
    g_assert_true(store_fsck(f->store, true, &problems, NULL));
    g_assert_cmpuint(problems->len, ==, 0); /* among others: no public map on private segments */
    make_map(f->store, BLOCK_PRIVATE, MIB, NULL, &first, 1, &result, &stored);
    g_assert_cmpuint(stored, ==, 0);
}

static void test_ref(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *a = noise(MIB, 8), *zero = g_malloc0(B);
    Write first[] = { { 0, MIB, a }, { 10 * B, B, NULL } };
    g_autoptr(StoreMap) from = NULL, map = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) to = NULL;
    g_autoptr(GError) error = NULL;
    MapResult result;

    make_map(f->store, BLOCK_PUBLIC, MIB, NULL, first, 2, &result, NULL);
    from = open_map(f->store, &result.digest);
    store_writer_open(f->store, BLOCK_PUBLIC, &writer, &error);
    map_writer_new(writer, 8 * MIB, NULL, &to, &error);
    g_assert_true(map_writer_write(to, 4 * MIB, a, MIB, &error)); /* gets overwritten by the reference */
    g_assert_true(map_writer_ref(to, 4 * MIB + B, from, 5 * B, 100 * B, &error));
    g_assert_false(map_writer_ref(to, 0, from, 0, 2 * MIB, NULL));
    g_assert_true(map_writer_finish(to, &error) && store_writer_commit(writer, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(store_writer_new_bytes(writer), ==, 0);
    map_writer_result(to, &result);
    map = open_map(f->store, &result.digest);
    assert_bytes(map, 4 * MIB, a, B);
    assert_bytes(map, 4 * MIB + B, a + 5 * B, 5 * B);
    assert_bytes(map, 4 * MIB + 6 * B, zero, B);
    assert_bytes(map, 4 * MIB + 7 * B, a + 11 * B, 94 * B);
    assert_bytes(map, 4 * MIB + 101 * B, a + 101 * B, B);
}

static void test_off_grid(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    uint8_t bytes[B] = { 1 };

    g_assert_true(store_writer_open(f->store, BLOCK_PUBLIC, &writer, NULL));
    g_assert_true(map_writer_new(writer, 3 * B + 5, NULL, &map, NULL));
    g_assert_false(map_writer_write(map, 1, bytes, B, NULL));
    g_assert_false(map_writer_write(map, 0, bytes, 5, NULL));
    g_assert_false(map_writer_write(map, 3 * B, bytes, 6, NULL));
    g_assert_true(map_writer_write(map, 3 * B, bytes, 5, NULL));
}

/* The definition of design's `content`, written a second time. */
static void test_content(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *a = noise(3 * B, 9);
    Write writes[] = { { 5 * B, B, a }, { 900 * B, 2 * B, a + B } };
    static const uint64_t numbers[] = { 5, 900, 901 };
    GChecksum *sum = g_checksum_new(G_CHECKSUM_SHA256);
    char hex[DIGEST_HEX_SIZE];
    MapResult result;

    make_map(f->store, BLOCK_PRIVATE, 1000 * B, NULL, writes, 2, &result, NULL);
    for (int i = 0; i < 3; i++) {
        uint64_t number = GUINT64_TO_LE(numbers[i]);
        uint8_t hash[32];
        gsize size = sizeof(hash);
        GChecksum *block = g_checksum_new(G_CHECKSUM_SHA256);

        g_checksum_update(block, a + i * B, B);
        g_checksum_get_digest(block, hash, &size);
        g_checksum_free(block);
        g_checksum_update(sum, (const guchar *)&number, 8);
        g_checksum_update(sum, hash, 32);
    }
    g_assert_cmpstr(digest_to_hex(&result.content, hex), ==, g_checksum_get_string(sum));
    g_checksum_free(sum);
}

static void test_file(Fixture *f, gconstpointer data)
{
    g_autofree char *path = g_build_filename(f->dir, "disk", NULL);
    g_autofree uint8_t *a = noise(2 * MIB + 77, 10), *wanted = g_malloc0(9 * MIB);
    int fd = g_open(path, O_RDWR | O_CREAT, 0600);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) to = NULL;
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;
    MapResult result;

    g_assert_cmpint(pwrite(fd, a, 2 * MIB + 77, 5 * MIB), ==, 2 * MIB + 77);
    g_assert_true(store_writer_open(f->store, BLOCK_PUBLIC, &writer, &error));
    g_assert_true(map_writer_new(writer, 9 * MIB, NULL, &to, &error));
    map_writer_write_file(to, MIB, fd, 7 * MIB + 77, NULL, &error);
    g_assert_no_error(error);
    g_assert_true(map_writer_finish(to, &error) && store_writer_commit(writer, &error));
    map_writer_result(to, &result);
    memcpy(wanted + 6 * MIB, a, 2 * MIB + 77);
    map = open_map(f->store, &result.digest);
    assert_bytes(map, 0, wanted, 9 * MIB);
    g_assert_cmpuint(result.data_bytes, ==, 2 * MIB + B);
    close(fd);
}

static void test_no_catalog(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *a = noise(MIB, 11);
    g_autofree char *catalog = g_build_filename(store_path(f->store), "catalog.db", NULL);
    g_autofree char *path = g_strdup(store_path(f->store));
    Write write = { 0, MIB, a };
    g_autoptr(StoreMap) map = NULL;
    MapResult result;

    make_map(f->store, BLOCK_PRIVATE, MIB, NULL, &write, 1, &result, NULL);
    store_close(f->store);
    g_assert_cmpint(g_unlink(catalog), ==, 0);
    g_assert_true(store_open(path, STORE_OPEN_READONLY | STORE_OPEN_NO_CATALOG, &f->store, NULL));
    map = open_map(f->store, &result.digest);
    assert_bytes(map, 0, a, MIB);
}

/* Thousands of small writes against a plain array. */
static void test_random(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *model = g_malloc0(4 * MIB), *pool = noise(64 * B, 12);
    g_autoptr(StoreMap) parent = NULL;
    GRand *rand = g_rand_new_with_seed(4711);

    for (int round = 0; round < 4; round++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(StoreWriter) writer = NULL;
        g_autoptr(MapWriter) map = NULL;
        MapResult result;

        store_writer_open(f->store, round % 2 ? BLOCK_PUBLIC : BLOCK_PRIVATE, &writer, &error);
        map_writer_new(writer, 4 * MIB, parent, &map, &error);
        for (int i = 0; i < 400; i++) {
            uint64_t at = (uint64_t)g_rand_int_range(rand, 0, 1024), n = (uint64_t)g_rand_int_range(rand, 1, 50);
            uint64_t from = (uint64_t)g_rand_int_range(rand, 0, 64);

            n = MIN(MIN(n, 1024 - at), 64 - from);
            if (g_rand_int_range(rand, 0, 4) == 0) {
                map_writer_zero(map, at * B, n * B, &error);
                memset(model + at * B, 0, n * B);
            } else {
                map_writer_write(map, at * B, pool + from * B, n * B, &error);
                memcpy(model + at * B, pool + from * B, n * B);
            }
            g_assert_no_error(error);
        }
        g_assert_true(map_writer_finish(map, &error) && store_writer_commit(writer, &error));
        map_writer_result(map, &result);
        store_map_unref(parent);
        parent = open_map(f->store, &result.digest);
        assert_bytes(parent, 0, model, 4 * MIB);
    }
    g_rand_free(rand);
}

static void test_damage(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *a = noise(MIB, 13), *got = g_malloc(MIB);
    Write write = { 0, MIB, a };
    g_autofree char *path = g_strdup(store_path(f->store));
    g_autofree char *command = NULL;
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) problems = NULL;
    MapResult result;

    make_map(f->store, BLOCK_PUBLIC, MIB, NULL, &write, 1, &result, NULL);
    store_close(f->store);
    command = g_strdup_printf("for f in '%s'/segments/*/*; do printf X | dd of=\"$f\" bs=1 seek=200000 conv=notrunc 2>/dev/null; done", path);
    g_assert_cmpint(system(command), ==, 0);
    g_assert_true(store_open(path, 0, &f->store, NULL));
    map = open_map(f->store, &result.digest);
    g_assert_false(store_map_pread(map, got, MIB, 0, &error));
    g_assert_nonnull(strstr(error->message, "segment"));
    g_assert_nonnull(strstr(error->message, "frame"));
    g_assert_true(store_fsck(f->store, false, &problems, NULL));
    g_assert_cmpuint(problems->len, ==, 0);
    g_ptr_array_unref(g_steal_pointer(&problems));
    g_assert_true(store_fsck(f->store, true, &problems, NULL));
    g_assert_cmpuint(problems->len, >=, 1);
}

static void *read_all(void *arg)
{
    StoreMap *map = arg;
    g_autofree uint8_t *buf = g_malloc(12345);

    for (uint64_t at = 0; at + 12345 < store_map_size(map); at += 9999)
        if (!store_map_pread(map, buf, 12345, at, NULL))
            return map;
    return NULL;
}

static void test_threads(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *a = noise(24 * MIB, 14);
    Write write = { 0, 24 * MIB, a };
    g_autoptr(StoreMap) map = NULL;
    GThread *threads[4];
    MapResult result;

    make_map(f->store, BLOCK_PUBLIC, 24 * MIB, NULL, &write, 1, &result, NULL);
    map = open_map(f->store, &result.digest);
    for (int i = 0; i < 4; i++)
        threads[i] = g_thread_new("reader", read_all, map);
    for (int i = 0; i < 4; i++)
        g_assert_null(g_thread_join(threads[i]));
}

int main(int argc, char **argv)
{
    /* Hundreds of syncs: in memory they cost nothing. */
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/map/" name, Fixture, NULL, set_up, fn, tear_down)
    ADD("what-is-written-comes-back", test_round_trip);
    ADD("hole-reads-as-zero", test_hole);
    ADD("zero-data-is-a-hole", test_zero_data_is_hole);
    ADD("child-keeps-what-it-does-not-write", test_parent);
    ADD("cut-off-bytes-stay-away", test_shrink);
    ADD("known-blocks-are-not-stored-again", test_dedup);
    ADD("public-map-copies-private-blocks", test_public_copies_private);
    ADD("reference-costs-nothing", test_ref);
    ADD("off-grid-is-refused", test_off_grid);
    ADD("content-is-as-defined", test_content);
    ADD("sparse-file-is-ingested", test_file);
    ADD("reading-needs-no-database", test_no_catalog);
    ADD("random-writes-match-a-model", test_random);
    ADD("damage-is-told", test_damage);
    ADD("threads-read-together", test_threads);
    return g_test_run();
}
