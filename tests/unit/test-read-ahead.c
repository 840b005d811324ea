/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading ahead changes how fast bytes come, never which: readers in order, at random and side by side.
 */
#include "base/error.h"
#include "store/read-ahead.h"
#include "tests/unit/store-support.h"

#include <string.h>

#define SIZE ((20u << 20) + 1000)

typedef StoreFixture Fixture;

/* Text with a number in each block, and a hole in the middle. */
static uint8_t *make_bytes(void)
{
    uint8_t *bytes = g_malloc0(SIZE);

    for (size_t i = 0; i < SIZE; i += 64)
        if (i < 7 << 20 || i >= 9 << 20)
            g_snprintf((char *)bytes + i, MIN(64, SIZE - i), "line %zu", i * 2654435761u);
    return bytes;
}

static void make_map(const Fixture *f, const uint8_t *bytes, StoreMap **ret)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    g_autoptr(GError) error = NULL;
    MapResult result;

    (void)(store_writer_open(f->store, BLOCK_PUBLIC, &writer, &error) && map_writer_new(writer, SIZE, NULL, &map, &error) &&
           map_writer_write(map, 0, bytes, SIZE, &error) && map_writer_finish(map, &error) && store_writer_commit(writer, &error));
    g_assert_no_error(error);
    map_writer_result(map, &result);
    g_assert_true(store_map_open(f->store, &result.digest, ret, NULL));
}

typedef struct Reader {
    ReadAhead *ahead;
    const uint8_t *bytes;
    guint32 seed; /* 0: in order */
} Reader;

static gpointer read_all(gpointer arg)
{
    const Reader *reader = arg;
    g_autoptr(GRand) rand = g_rand_new_with_seed(reader->seed);
    g_autofree uint8_t *got = g_malloc(1 << 20);
    uint64_t at = 0;

    for (unsigned i = 0; reader->seed ? i < 150 : at < SIZE; i++) {
        size_t size = reader->seed ? (size_t)g_rand_int_range(rand, 1, 200000) : 65536;

        if (reader->seed)
            at = (uint64_t)g_rand_int_range(rand, 0, SIZE);
        size = (size_t)MIN((uint64_t)size, SIZE - at);
        g_assert_true(read_ahead_pread(reader->ahead, got, size, at, NULL));
        g_assert_cmpint(memcmp(got, reader->bytes + at, size), ==, 0);
        at += size;
    }
    return NULL;
}

static void test_in_order(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = make_bytes();
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(ReadAhead) ahead = NULL;

    make_map(f, bytes, &map);
    ahead = read_ahead_new(map);
    (void)read_all(&(Reader){ahead, bytes, 0});
    g_assert_cmpuint(read_ahead_bytes(ahead), >, 1 << 20);
}

static void test_at_random(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = make_bytes();
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(ReadAhead) ahead = NULL;
    Reader readers[5];
    GThread *threads[5];

    make_map(f, bytes, &map);
    ahead = read_ahead_new(map);
    for (guint32 i = 0; i < G_N_ELEMENTS(readers); i++) {
        readers[i] = (Reader){ahead, bytes, i};
        threads[i] = g_thread_new("reader", read_all, &readers[i]);
    }
    for (guint32 i = 0; i < G_N_ELEMENTS(readers); i++)
        (void)g_thread_join(threads[i]);
}

/* Jumps are no promise of more: nothing is unpacked that nobody wants. */
static void test_jumps(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = make_bytes();
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(ReadAhead) ahead = NULL;
    uint8_t got[4096];

    make_map(f, bytes, &map);
    ahead = read_ahead_new(map);
    for (uint64_t i = 0; i < 19; i++)
        g_assert_true(read_ahead_pread(ahead, got, sizeof got, i * 7 % 19 << 20, NULL));
    g_usleep(20000);
    g_assert_cmpuint(read_ahead_bytes(ahead), ==, 0);
}

static void test_beyond_the_end(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = make_bytes();
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(ReadAhead) ahead = NULL;
    g_autoptr(GError) error = NULL;
    uint8_t got[4096];

    make_map(f, bytes, &map);
    ahead = read_ahead_new(map);
    g_assert_true(read_ahead_pread(ahead, got, 100, SIZE - 100, NULL));
    g_assert_false(read_ahead_pread(ahead, got, 200, SIZE - 100, &error));
    g_assert_nonnull(error);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(path, fn) g_test_add(path, Fixture, NULL, store_fixture_setup, fn, store_fixture_teardown)
    CASE("/read-ahead/a-reader-in-order-is-read-ahead-of", test_in_order);
    CASE("/read-ahead/readers-side-by-side-get-their-bytes", test_at_random);
    CASE("/read-ahead/jumps-are-not-read-ahead-of", test_jumps);
    CASE("/read-ahead/a-read-beyond-the-end-fails", test_beyond_the_end);
    return g_test_run();
}
