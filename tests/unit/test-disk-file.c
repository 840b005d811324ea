/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk files: raw and qcow2 come back as they went, qemu-img agrees with our qcow2, and nothing that reaches
 * outside its own bytes is opened.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/qcow2.h"
#include "store/store.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define DISK_SIZE ((12u << 20) + 512 * 3)

typedef StoreFixture Fixture;

static char *path_in(const Fixture *f, const char *name)
{
    return g_build_filename(f->dir, name, NULL);
}

static void write_file(const Fixture *f, const char *name, const void *data, size_t size)
{
    g_autofree char *path = path_in(f, name);

    g_assert_true(g_file_set_contents(path, data, (gssize)size, NULL));
}

/* A disk with a partition table, text, noise, long holes and an odd end. */
static uint8_t *make_disk(void)
{
    uint8_t *disk = g_malloc0(DISK_SIZE);
    uint32_t state = 12345;

    disk[446 + 4] = 0x83;
    disk[510] = 0x55;
    disk[511] = 0xaa;
    for (size_t i = 1 << 20; i < 3 << 20; i++)
        disk[i] = (uint8_t)("the quick brown fox "[i % 20] + (i >> 14));
    for (size_t i = 5 << 20; i < (6 << 20) + 4096; i++) {
        state = state * 1664525u + 1013904223u;
        disk[i] = (uint8_t)(state >> 24);
    }
    for (size_t i = 6 << 20; i < 10 << 20; i += 65536)
        disk[i + 777] = (uint8_t)(i >> 16);
    disk[DISK_SIZE - 1] = 0x7e;
    return disk;
}

static bool import(const Fixture *f, const char *name, StoreMap **ret, GError **error)
{
    g_autofree char *path = path_in(f, name);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    MapResult result;

    if (!store_writer_open(f->store, BLOCK_PUBLIC, &writer, error) ||
        !disk_import_file(f->store, writer, path, path, &map, error) || !store_writer_commit(writer, error))
        return false;
    map_writer_result(map, &result);
    return store_map_open(f->store, &result.digest, ret, error);
}

static void assert_holds(StoreMap *map, const uint8_t *disk, size_t size)
{
    g_autofree uint8_t *back = g_malloc(size);

    g_assert_cmpuint(store_map_size(map), >=, size);
    g_assert_true(store_map_pread(map, back, size, 0, NULL));
    g_assert_cmpint(memcmp(back, disk, size), ==, 0);
}

static void import_disk(const Fixture *f, uint8_t **ret_disk, StoreMap **ret)
{
    g_autoptr(GError) error = NULL;

    *ret_disk = make_disk();
    write_file(f, "disk.raw", *ret_disk, DISK_SIZE);
    (void)import(f, "disk.raw", ret, &error);
    g_assert_no_error(error);
}

static int create(const Fixture *f, const char *name)
{
    g_autofree char *path = path_in(f, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

static void test_raw(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = NULL;
    g_autofree char *back = NULL, *path = path_in(f, "back.raw");
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;
    auto_fd int fd = create(f, "back.raw");
    struct stat st;
    gsize size;

    import_disk(f, &disk, &map);
    g_assert_cmpuint(store_map_size(map), ==, DISK_SIZE);
    assert_holds(map, disk, DISK_SIZE);
    (void)disk_export_raw(map, fd, &error);
    g_assert_no_error(error);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpint(st.st_blocks * 512, <, 8 << 20); /* holes stay holes */
    g_assert_true(g_file_get_contents(path, &back, &size, NULL));
    g_assert_cmpmem(back, size, disk, DISK_SIZE);
}

static gpointer drain(gpointer arg)
{
    int fd = GPOINTER_TO_INT(arg);
    DigestStream *stream = digest_stream_new();
    Digest *digest = g_new(Digest, 1);
    uint8_t buf[65536];
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf))) > 0)
        digest_stream_update(stream, buf, (size_t)n);
    digest_stream_final(stream, digest);
    digest_stream_free(stream);
    (void)close(fd);
    return digest;
}

static void test_raw_pipe(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = NULL;
    g_autofree Digest *got = NULL;
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;
    Digest want;
    GThread *thread;
    int fds[2];

    import_disk(f, &disk, &map);
    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    thread = g_thread_new("drain", drain, GINT_TO_POINTER(fds[0]));
    (void)disk_export_raw(map, fds[1], &error);
    (void)close(fds[1]);
    got = g_thread_join(thread);
    g_assert_no_error(error);
    digest_of(disk, DISK_SIZE, &want);
    g_assert_true(digest_equal(got, &want));
}

static void run(const char *const *argv)
{
    g_autofree char *out = NULL;
    g_autoptr(GError) error = NULL;

    (void)process_capture(argv, 1 << 20, &out, &error);
    g_assert_no_error(error);
}

static void test_qcow2(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = NULL;
    g_autofree char *path = path_in(f, "d.qcow2"), *raw = path_in(f, "disk.raw");
    g_autoptr(StoreMap) map = NULL, again = NULL;
    g_autoptr(GError) error = NULL;
    auto_fd int fd = create(f, "d.qcow2"), second = create(f, "e.qcow2");
    Digest one, two;
    struct stat st;

    import_disk(f, &disk, &map);
    (void)(disk_export_qcow2(map, fd, &error) && disk_export_qcow2(map, second, &error));
    g_assert_no_error(error);
    g_assert_true(digest_of_fd(fd, &one, NULL) && digest_of_fd(second, &two, NULL));
    g_assert_true(digest_equal(&one, &two));
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpint(st.st_size, <, 4 << 20);
    if (!process_have("qemu-img")) {
        g_test_skip("qemu-img is not installed");
        return;
    }
    run((const char *const[]){"qemu-img", "check", "-f", "qcow2", path, NULL});
    run((const char *const[]){"qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, path, NULL});
    (void)import(f, "d.qcow2", &again, &error);
    g_assert_no_error(error);
    assert_holds(again, disk, DISK_SIZE);
}

static void assert_refused(const Fixture *f, const char *name, const char *words)
{
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_false(import(f, name, &map, &error));
    g_assert_nonnull(error);
    if (!strstr(error->message, words))
        g_test_message("%s: %s", name, error->message);
    g_assert_nonnull(strstr(error->message, words));
}

/* What qemu-img makes in its many ways comes in; what it makes on a backing file does not. */
static void test_qcow2_of_others(Fixture *f, gconstpointer data)
{
    static const char *const options[] = {"compat=0.10", "extended_l2=on", "cluster_size=512",
                                          "compression_type=zstd"};
    g_autofree uint8_t *disk = make_disk();
    g_autofree char *raw = path_in(f, "disk.raw"), *path = path_in(f, "q.qcow2"),
                    *over = path_in(f, "over.qcow2"),
                    *outside = g_strdup_printf("data_file=%s/outside.raw", f->dir);

    if (!process_have("qemu-img")) {
        g_test_skip("qemu-img is not installed");
        return;
    }
    write_file(f, "disk.raw", disk, DISK_SIZE);
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        bool compress = i == G_N_ELEMENTS(options) - 1;
        g_autoptr(StoreMap) map = NULL;
        g_autoptr(GError) error = NULL;

        run((const char *const[]){"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options[i], raw,
                                  path, compress ? "-c" : NULL, NULL});
        (void)import(f, "q.qcow2", &map, &error);
        g_assert_no_error(error);
        assert_holds(map, disk, DISK_SIZE);
    }
    run((const char *const[]){"qemu-img", "create", "-q", "-f", "qcow2", "-b", path, "-F", "qcow2", over,
                              NULL});
    assert_refused(f, "over.qcow2", "backing file");
    run((const char *const[]){"qemu-img", "create", "-q", "-f", "qcow2", "-o", outside, over, "1M", NULL});
    assert_refused(f, "over.qcow2", "another file");
}

/* Edges of the layout: nothing at all, more than one L2 table, tables with holes between. */
static void test_qcow2_large(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) to = NULL;
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *path = path_in(f, "l.qcow2"), *raw = path_in(f, "l.raw");
    auto_fd int fd = create(f, "l.qcow2"), raw_fd = create(f, "l.raw");
    uint8_t block[4096];
    MapResult result;

    memset(block, 0x5a, sizeof(block));
    (void)(store_writer_open(f->store, BLOCK_PUBLIC, &writer, &error) &&
           map_writer_new(writer, 3ull << 40, NULL, &to, &error) &&
           map_writer_write(to, 0, block, 4096, &error) &&
           map_writer_write(to, (512u << 20) - 4096, block, 4096, &error) &&
           map_writer_write(to, 512u << 20, block, 4096, &error) &&
           map_writer_write(to, (3ull << 40) - 4096, block, 4096, &error) && map_writer_finish(to, &error) &&
           store_writer_commit(writer, &error));
    g_assert_no_error(error);
    map_writer_result(to, &result);
    (void)(store_map_open(f->store, &result.digest, &map, &error) && disk_export_qcow2(map, fd, &error) &&
           disk_export_raw(map, raw_fd, &error));
    g_assert_no_error(error);
    if (!process_have("qemu-img")) {
        g_test_skip("qemu-img is not installed");
        return;
    }
    run((const char *const[]){"qemu-img", "check", "-f", "qcow2", path, NULL});
    run((const char *const[]){"qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, path, NULL});
}

static void test_qcow2_empty(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) to = NULL;
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *path = path_in(f, "z.qcow2");
    auto_fd int fd = create(f, "z.qcow2");
    MapResult result;

    (void)(store_writer_open(f->store, BLOCK_PUBLIC, &writer, &error) &&
           map_writer_new(writer, 1 << 30, NULL, &to, &error) && map_writer_finish(to, &error) &&
           store_writer_commit(writer, &error));
    g_assert_no_error(error);
    map_writer_result(to, &result);
    (void)(store_map_open(f->store, &result.digest, &map, &error) && disk_export_qcow2(map, fd, &error));
    g_assert_no_error(error);
    if (process_have("qemu-img"))
        run((const char *const[]){"qemu-img", "check", "-f", "qcow2", path, NULL});
    else
        g_test_skip("qemu-img is not installed");
}

static void put_be(uint8_t *p, uint64_t value, size_t size)
{
    for (size_t i = size; i-- > 0; value >>= 8)
        p[i] = (uint8_t)value;
}

/* A header that would pass but for what is written at @offset. */
static void write_header(const Fixture *f, const char *name, size_t offset, uint64_t value, size_t size)
{
    uint8_t head[65536] = {0};

    memcpy(head, "QFI\xfb", 4);
    put_be(head + 4, 3, 4);
    put_be(head + 20, 16, 4);
    put_be(head + 24, 1 << 20, 8);
    put_be(head + 36, 1, 4);
    put_be(head + 40, 4096, 8);
    put_be(head + 48, 8192, 8);
    put_be(head + 56, 1, 4);
    put_be(head + 96, 4, 4);
    put_be(head + 100, 104, 4);
    put_be(head + offset, value, size);
    write_file(f, name, head, sizeof(head));
}

static void test_qcow2_refused(Fixture *f, gconstpointer data)
{
    static const struct {
        size_t offset, size;
        uint64_t value;
        const char *words;
    } cases[] = {
        {8, 8, 512, "backing file"},
        {16, 4, 5, "backing file"},
        {32, 4, 1, "encrypted"},
        {32, 4, 2, "encrypted"},
        {72, 8, 4, "another file"},
        {72, 8, 2, "corrupt"},
        {72, 8, 1ull << 40, "not know"},
        {104, 4, 0x44415441, "another file"},
        {104, 4, 0x0537be77, "encrypted"},
        {24, 8, 1ull << 60, "claims"},
        {24, 8, 0, "claims"},
        {20, 4, 40, "damaged"},
        {36, 4, 0xffffffff, "damaged"},
        {40, 8, 1ull << 50, "damaged"},
        {100, 4, 7, "damaged"},
        {4, 4, 1, "version"},
        {60, 4, 0xffffffff, "damaged"},
    };
    g_autofree char *path = path_in(f, "q");
    auto_fd int fd = -1;
    uint64_t size;

    write_header(f, "q", 0, 0x514649fb, 4);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    g_assert_true(qcow2_check_header(fd, "q", &size, NULL)); /* the rest of the header is sound */
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        write_header(f, "bad", cases[i].offset, cases[i].value, cases[i].size);
        assert_refused(f, "bad", cases[i].words);
    }
    write_file(f, "short", "QFI\xfb\0\0\0\3", 8);
    assert_refused(f, "short", "damaged");
}

static void test_others_refused(Fixture *f, gconstpointer data)
{
    g_autofree char *noise = g_strnfill(200000, 'x');

    write_file(f, "noise", noise, 200000);
    assert_refused(f, "noise", "is no disk image");
    write_file(f, "empty", "", 0);
    assert_refused(f, "empty", "is no disk image");
    write_file(f, "vmdk", "KDMV\1\0\0\0", 8);
    assert_refused(f, "vmdk", "VMDK");
    memcpy(noise,
           "\xfd"
           "7zXZ",
           5);
    write_file(f, "xz", noise, 200000);
    assert_refused(f, "xz", "decompress");
    assert_refused(f, ".", "no regular file");
    assert_refused(f, "absent", "open");
}

/* The format is what the bytes say, whatever the name: a raw disk called .qcow2 is raw. */
static void test_name_does_not_count(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = make_disk();
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;

    write_file(f, "json:{}.qcow2", disk, DISK_SIZE);
    (void)import(f, "json:{}.qcow2", &map, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(store_map_size(map), ==, DISK_SIZE);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(path, fn) g_test_add(path, Fixture, NULL, store_fixture_setup, fn, store_fixture_teardown)
    CASE("/disk-file/raw-comes-back-sparse", test_raw);
    CASE("/disk-file/raw-to-a-pipe-has-every-byte", test_raw_pipe);
    CASE("/disk-file/qcow2-is-sound-and-repeats", test_qcow2);
    CASE("/disk-file/qcow2-of-others-comes-in", test_qcow2_of_others);
    CASE("/disk-file/qcow2-of-a-huge-sparse-disk", test_qcow2_large);
    CASE("/disk-file/qcow2-of-nothing", test_qcow2_empty);
    CASE("/disk-file/hostile-qcow2-is-refused", test_qcow2_refused);
    CASE("/disk-file/what-is-no-disk-is-refused", test_others_refused);
    CASE("/disk-file/names-do-not-tell-formats", test_name_does_not_count);
    return g_test_run();
}
