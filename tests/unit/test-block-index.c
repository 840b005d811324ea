/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block index: small whatever its size, whole after growing and shrinking, harmless when damaged.
 */
#include "tests/unit/store-support.h"

#include "base/file.h"
#include "store/block-index.h"
#include "store/upkeep.h"

#include <fcntl.h>

#define ENTRY 11
#define PIECE 3000u

static void hash_of(uint64_t number, Digest *ret)
{
    uint64_t block[STORE_BLOCK_SIZE / 8] = {number + 1};

    digest_of(block, sizeof(block), ret);
}

/* @count blocks that are all different, in a segment of their own. */
static void add_blocks(Store *store, uint64_t first, uint64_t count)
{
    g_autofree uint64_t *bytes = g_malloc0(count * STORE_BLOCK_SIZE);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    g_autoptr(GError) error = NULL;

    for (uint64_t i = 0; i < count; i++)
        bytes[i * STORE_BLOCK_SIZE / 8] = first + i + 1;
    (void)(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) && map_writer_new(writer, count * STORE_BLOCK_SIZE, NULL, &map, &error) &&
           map_writer_write(map, 0, bytes, count * STORE_BLOCK_SIZE, &error) && map_writer_finish(map, &error) && store_writer_commit(writer, &error));
    g_assert_no_error(error);
}

static uint64_t count_found(Store *store, uint64_t first, uint64_t end)
{
    uint64_t found = 0;

    for (uint64_t i = first; i < end; i++) {
        Segment *segment;
        uint32_t position;
        Digest hash;

        hash_of(i, &hash);
        found += block_index_find(store, &hash, BLOCK_PUBLIC, &segment, &position);
    }
    return found;
}

static void assert_small(Store *store, uint64_t blocks)
{
    uint64_t entries, capacity;

    block_index_counts(store, &entries, &capacity);
    g_assert_cmpuint(entries, ==, blocks);
    g_assert_cmpuint(capacity * ENTRY, <=, MAX(entries * 16, 4096 * ENTRY));
}

static void test_grows_by_little(StoreFixture *f, gconstpointer data)
{
    for (unsigned i = 0; i < 6; i++) {
        add_blocks(f->store, i * PIECE, PIECE);
        assert_small(f->store, (i + 1) * PIECE);
    }
    g_assert_cmpuint(count_found(f->store, 0, 6 * PIECE), ==, 6 * PIECE);
    g_assert_cmpuint(count_found(f->store, 6 * PIECE, 7 * PIECE), ==, 0);
    g_assert_true(block_index_rebuild(f->store, NULL));
    assert_small(f->store, 6 * PIECE);
    g_assert_cmpuint(count_found(f->store, 0, 6 * PIECE), ==, 6 * PIECE);
}

/* Nothing was published, so gc takes it all; what comes next finds a table of the smallest size. */
static void test_shrinks(StoreFixture *f, gconstpointer data)
{
    StoreGcOptions options = {.grace = 0};
    g_autoptr(GError) error = NULL;
    StoreGcReport report;

    add_blocks(f->store, 0, 4 * PIECE);
    store_gc(f->store, &options, &report, &error);
    g_assert_no_error(error);
    add_blocks(f->store, 4 * PIECE, PIECE);
    assert_small(f->store, PIECE);
    g_assert_cmpuint(count_found(f->store, 4 * PIECE, 5 * PIECE), ==, PIECE);
    g_assert_cmpuint(count_found(f->store, 0, PIECE), ==, 0);
}

/* No free place, and every place leads nowhere: looking and adding still end, and a rebuild cures it. */
static void test_full_of_rubbish(StoreFixture *f, gconstpointer data)
{
    g_autofree char *name = g_build_filename(store_path(f->store), "index", "blocks", NULL), *path = g_strdup(store_path(f->store));
    g_autoptr(GBytes) bytes = NULL;
    g_autofree uint8_t *rubbish = NULL;
    gsize size;
    int fd;

    add_blocks(f->store, 0, PIECE);
    store_close(f->store);
    g_assert_true(file_load(AT_FDCWD, name, 1u << 20, &bytes, NULL));
    size = g_bytes_get_size(bytes) - 4096;
    rubbish = g_malloc(size);
    memset(rubbish, 0xee, size);
    fd = open(name, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(pwrite(fd, rubbish, size, 4096), ==, (gssize)size);
    (void)close(fd);
    f->store = test_store_open(path, 0);
    add_blocks(f->store, PIECE, 100);
    g_assert_cmpuint(count_found(f->store, 0, PIECE), ==, 0);
    g_assert_true(block_index_rebuild(f->store, NULL));
    g_assert_cmpuint(count_found(f->store, 0, PIECE + 100), ==, PIECE + 100);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add("/block-index/never-more-than-16-bytes-a-block", StoreFixture, NULL, store_fixture_setup, test_grows_by_little, store_fixture_teardown);
    g_test_add("/block-index/leaves-out-what-gc-removed", StoreFixture, NULL, store_fixture_setup, test_shrinks, store_fixture_teardown);
    g_test_add("/block-index/a-table-full-of-rubbish-ends", StoreFixture, NULL, store_fixture_setup, test_full_of_rubbish, store_fixture_teardown);
    return g_test_run();
}
