/* SPDX-License-Identifier: Apache-2.0 */
/* A file is believed as far as it has what was noted. */
#include "store/pool.h"
#include "store/source-bytes.h"

#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#define BLOCKS 300
#define SIZE (BLOCKS * (size_t)STORE_BLOCK_SIZE - 100)

typedef struct Fixture {
    int fd;
    uint8_t data[BLOCKS * STORE_BLOCK_SIZE]; /* padded with zeroes, as an ingest pads it */
    SourceBytes *bytes;
} Fixture;

static Fixture *fixture_new(void)
{
    Fixture *f = g_new0(Fixture, 1);
    g_autofree char *path = NULL;

    f->fd = g_file_open_tmp("kiln-source-XXXXXX", &path, NULL);
    g_assert_cmpint(f->fd, >=, 0);
    (void)unlink(path);
    for (size_t i = 0; i < SIZE; i++)
        f->data[i] = (uint8_t)g_test_rand_int();
    g_assert_cmpint(pwrite(f->fd, f->data, SIZE, 0), ==, SIZE);
    f->bytes = source_bytes_new(f->fd, SIZE);
    g_assert_nonnull(f->bytes);
    return f;
}

static void fixture_free(Fixture *f)
{
    source_bytes_unref(f->bytes);
    (void)close(f->fd);
    g_free(f);
}

static void test_reads(void)
{
    Fixture *f = fixture_new();
    g_autofree uint8_t *buf = g_malloc(sizeof f->data);

    source_bytes_note(f->bytes, 0, f->data, BLOCKS);
    g_assert_true(source_bytes_read(f->bytes, buf, SIZE, 0));
    g_assert_cmpmem(buf, SIZE, f->data, SIZE);
    for (int i = 0; i < 1000; i++) {
        size_t at = (size_t)g_test_rand_int_range(0, SIZE), size = (size_t)g_test_rand_int_range(0, (gint32)MIN(SIZE - at, 20000) + 1);

        g_assert_true(source_bytes_read(f->bytes, buf, size, at));
        g_assert_cmpmem(buf, size, f->data + at, size);
    }
    fixture_free(f);
}

static void test_nothing_noted(void)
{
    Fixture *f = fixture_new();
    uint8_t buf[2 * STORE_BLOCK_SIZE];

    g_assert_false(source_bytes_read(f->bytes, buf, sizeof buf, 0));
    source_bytes_note(f->bytes, 7, f->data + 7 * STORE_BLOCK_SIZE, 1);
    g_assert_true(source_bytes_read(f->bytes, buf, 100, 7 * STORE_BLOCK_SIZE + 5));
    g_assert_false(source_bytes_read(f->bytes, buf, STORE_BLOCK_SIZE, 7 * STORE_BLOCK_SIZE + 5));
    g_assert_false(source_bytes_read(f->bytes, buf, 1, (uint64_t)BLOCKS * STORE_BLOCK_SIZE));
    fixture_free(f);
}

/* Every single bit counts. */
static void test_changed(void)
{
    Fixture *f = fixture_new();
    uint8_t buf[STORE_BLOCK_SIZE];

    source_bytes_note(f->bytes, 0, f->data, BLOCKS);
    for (int i = 0; i < 2000; i++) {
        size_t at = (size_t)g_test_rand_int_range(0, SIZE);
        uint8_t other = f->data[at] ^ (uint8_t)(1 << g_test_rand_int_range(0, 8));

        g_assert_cmpint(pwrite(f->fd, &other, 1, (off_t)at), ==, 1);
        g_assert_false(source_bytes_read(f->bytes, buf, 1, at));
        g_assert_cmpint(pwrite(f->fd, f->data + at, 1, (off_t)at), ==, 1);
        g_assert_true(source_bytes_read(f->bytes, buf, 1, at));
    }
    g_assert_cmpint(ftruncate(f->fd, SIZE / 2), ==, 0);
    g_assert_false(source_bytes_read(f->bytes, buf, 10, SIZE - 10));
    fixture_free(f);
}

/* Blocks that hold the same words in another order, or were moved, are other blocks. */
static void test_moved(void)
{
    Fixture *f = fixture_new();
    uint8_t buf[STORE_BLOCK_SIZE];

    source_bytes_note(f->bytes, 0, f->data, BLOCKS);
    g_assert_cmpint(pwrite(f->fd, f->data + STORE_BLOCK_SIZE, STORE_BLOCK_SIZE, 0), ==, STORE_BLOCK_SIZE);
    g_assert_false(source_bytes_read(f->bytes, buf, sizeof buf, 0));
    memcpy(buf, f->data + 4, sizeof buf - 4);
    memcpy(buf + sizeof buf - 4, f->data, 4);
    g_assert_cmpint(pwrite(f->fd, buf, sizeof buf, 0), ==, sizeof buf);
    g_assert_false(source_bytes_read(f->bytes, buf, sizeof buf, 0));
    fixture_free(f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/source-bytes/reads", test_reads);
    g_test_add_func("/source-bytes/nothing-noted", test_nothing_noted);
    g_test_add_func("/source-bytes/changed", test_changed);
    g_test_add_func("/source-bytes/moved", test_moved);
    return g_test_run();
}
