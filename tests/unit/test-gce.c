/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The archive for Google Compute Engine: GNU tar finds the disk in it, equal disks give equal bytes, and where files go.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/export-path.h"
#include "store/store.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define GIB (1ull << 30)

typedef StoreFixture Fixture;

static char *path_in(const Fixture *f, const char *name)
{
    return g_build_filename(f->dir, name, NULL);
}

/* Blocks of text, each @step bytes from the one before. */
static void make_map(const Fixture *f, uint64_t size, uint64_t step, StoreMap **ret)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    g_autoptr(GError) error = NULL;
    char block[STORE_BLOCK_SIZE];
    MapResult result;

    (void)(store_writer_open(f->store, BLOCK_PUBLIC, &writer, &error) && map_writer_new(writer, size, NULL, &map, &error));
    g_assert_no_error(error);
    for (uint64_t at = step; at + sizeof block <= size; at += step) {
        memset(block, 'a' + (int)(at / step % 26), sizeof block);
        g_snprintf(block, 32, "%" G_GUINT64_FORMAT, at);
        g_assert_true(map_writer_write(map, at, block, sizeof block, NULL));
    }
    if (size % STORE_BLOCK_SIZE) /* an odd end that is not zero */
        g_assert_true(map_writer_write(map, size / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE, block, size % STORE_BLOCK_SIZE, NULL));
    (void)(map_writer_finish(map, &error) && store_writer_commit(writer, &error));
    g_assert_no_error(error);
    map_writer_result(map, &result);
    g_assert_true(store_map_open(f->store, &result.digest, ret, NULL));
}

static void assert_same(int fd, StoreMap *map, uint64_t at, uint64_t end)
{
    g_autofree uint8_t *got = g_malloc(1 << 20), *want = g_malloc0(1 << 20);

    for (; at < end; at += 1 << 20) {
        size_t n = (size_t)MIN(end - at, 1ull << 20), have = (size_t)MIN((uint64_t)n, store_map_size(map) - MIN(at, store_map_size(map)));

        memset(want + have, 0, n - have);
        g_assert_true(have == 0 || store_map_pread(map, want, have, at, NULL));
        g_assert_true(file_pread_full(fd, got, n, at, "file", NULL));
        g_assert_cmpint(memcmp(got, want, n), ==, 0);
    }
}

/* Where the map has data, and where the file has. */
static void assert_file_is(const char *path, StoreMap *map, uint64_t size)
{
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t end;
    off_t data, hole;
    struct stat st;
    bool zero;

    g_assert_true(fd >= 0 && fstat(fd, &st) == 0);
    g_assert_cmpuint((uint64_t)st.st_size, ==, size);
    for (uint64_t at = 0; at < store_map_size(map); at = end) {
        store_map_extent(map, at, &end, &zero);
        if (!zero)
            assert_same(fd, map, at, MIN(end, store_map_size(map)));
    }
    for (hole = 0; (data = lseek(fd, hole, SEEK_DATA)) >= 0;) {
        hole = lseek(fd, data, SEEK_HOLE);
        assert_same(fd, map, (uint64_t)data, (uint64_t)hole);
    }
}

static void unpack(const Fixture *f, const char *archive)
{
    const char *argv[] = {"tar", "-C", f->dir, "-xzf", archive, NULL};
    g_autofree char *out = NULL;
    g_autoptr(GError) error = NULL;

    (void)process_capture(argv, 1 << 16, &out, &error);
    g_assert_no_error(error);
}

static void check(Fixture *f, uint64_t size, uint64_t step, uint64_t want)
{
    g_autofree char *archive = path_in(f, "a.tar.gz"), *again = path_in(f, "b.tar.gz"), *disk = path_in(f, "disk.raw");
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;
    Digest one, two;

    make_map(f, size, step, &map);
    (void)(disk_export(map, DISK_GCE, archive, &error) && disk_export(map, DISK_GCE, again, &error));
    g_assert_no_error(error);
    g_assert_true(digest_of_file(AT_FDCWD, archive, &one, NULL, NULL) && digest_of_file(AT_FDCWD, again, &two, NULL, NULL));
    g_assert_true(digest_equal(&one, &two));
    unpack(f, archive);
    assert_file_is(disk, map, want);
}

/* Few entries and many (the header holds four, each further block 21), gaps that are kept and gaps that are not. */
static void test_shapes(Fixture *f, gconstpointer data)
{
    check(f, 3 << 20, 1 << 20, GIB);
    check(f, 64 << 20, 1 << 20, GIB);
    check(f, (8 << 20) + 512, 128 << 10, GIB);
    check(f, 4096, 1 << 20, GIB); /* empty */
    check(f, GIB, 100 << 20, GIB);
    check(f, GIB + 512, 100 << 20, 2 * GIB);
}

/* From 8 GiB on numbers are written in base 256; holes are not unpacked, so this is quick. */
static void test_large(Fixture *f, gconstpointer data)
{
    check(f, 9 * GIB + 4096 * 5, GIB, 10 * GIB);
}

static bool write_word(int fd, void *arg, GError **error)
{
    return file_write_full(fd, "word", 4, "file", error) && (!arg || fail(error, "no more"));
}

static void test_places(Fixture *f, gconstpointer data)
{
    g_autofree char *file = path_in(f, "out"), *text = NULL, *fifo = path_in(f, "fifo");
    g_autoptr(GError) error = NULL;
    auto_fd int reader = -1;
    g_autoptr(GDir) dir = NULL;
    const char *name;
    char got[5] = "";

    g_assert_true(g_file_set_contents(file, "old", 3, NULL));
    g_assert_false(export_to_path(file, write_word, file, NULL)); /* fails half-way */
    g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "old");
    g_clear_pointer(&text, g_free);
    (void)export_to_path(file, write_word, NULL, &error);
    g_assert_no_error(error);
    g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "word");

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    reader = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    g_assert_true(export_to_path(fifo, write_word, NULL, NULL));
    g_assert_cmpint(read(reader, got, 4), ==, 4);
    g_assert_cmpstr(got, ==, "word");

    g_assert_false(export_to_path(f->dir, write_word, NULL, &error));
    g_assert_nonnull(strstr(error->message, "is a folder"));
    dir = g_dir_open(f->dir, 0, NULL);
    while ((name = g_dir_read_name(dir)))
        g_assert_null(strstr(name, ".kiln-"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(path, fn) g_test_add(path, Fixture, NULL, store_fixture_setup, fn, store_fixture_teardown)
    CASE("/gce/tar-finds-the-disk", test_shapes);
    CASE("/gce/large-disks-have-large-numbers", test_large);
    CASE("/export-path/files-are-replaced-whole-and-pipes-written-to", test_places);
    return g_test_run();
}
