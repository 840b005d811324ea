/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool: opening, blobs, the bytes of segments seen by other programs, killed writers, full disks.
 */
#include "tests/unit/store-support.h"

#include "store/store.h"

#include "store/io.h"

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define B STORE_BLOCK_SIZE
#define MIB (1024 * 1024)

typedef struct Fixture {
    char *dir, *path;
} Fixture;

static void set_up(Fixture *f, gconstpointer data)
{
    f->dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    f->path = g_build_filename(f->dir, "store", NULL);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
    g_free(f->path);
}

/* Stores @size bytes of noise in one map and commits. */
static bool store_noise(Store *store, size_t size, uint64_t seed, Digest *ret, GError **error)
{
    g_autofree uint8_t *bytes = g_malloc(size);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    MapResult result;

    test_noise(bytes, size, seed);
    if (!store_writer_open(store, BLOCK_PUBLIC, &writer, error) || !map_writer_new(writer, size, NULL, &map, error) ||
        !map_writer_write(map, 0, bytes, size, error) || !map_writer_finish(map, error) || !store_writer_commit(writer, error))
        return false;
    map_writer_result(map, &result);
    *ret = result.digest;
    return true;
}

static void assert_clean(Store *store)
{
    g_autoptr(GPtrArray) problems = NULL;
    g_autoptr(GError) error = NULL;

    store_fsck(store, true, &problems, &error);
    g_assert_no_error(error);
    for (guint i = 0; i < problems->len; i++)
        g_test_message("%s", (char *)problems->pdata[i]);
    g_assert_cmpuint(problems->len, ==, 0);
}

static guint count_tmp(const char *path)
{
    g_autofree char *tmp = g_build_filename(path, "tmp", NULL);
    GDir *dir = g_dir_open(tmp, 0, NULL);
    guint n = 0;

    while (g_dir_read_name(dir))
        n++;
    g_dir_close(dir);
    return n;
}

/* --- opening --- */

static void test_create(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *format = g_build_filename(f->path, "format", NULL), *text = NULL;
    Store *store;

    g_assert_false(store_open(f->path, 0, &store, &error));
    g_assert_nonnull(strstr(error->message, f->path));
    store_close(test_store_open(f->path, STORE_OPEN_CREATE));
    store_close(test_store_open(f->path, 0));
    g_assert_true(g_file_get_contents(format, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "kiln-store 1\n");
}

static void test_half_made(Fixture *f, gconstpointer data)
{
    g_autofree char *format = g_build_filename(f->path, "format", NULL);

    store_close(test_store_open(f->path, STORE_OPEN_CREATE));
    g_assert_cmpint(g_unlink(format), ==, 0); /* as if the creation had been killed before its last step */
    store_close(test_store_open(f->path, STORE_OPEN_CREATE));
}

static void test_foreign_folder(Fixture *f, gconstpointer data)
{
    g_autofree char *file = g_build_filename(f->path, "letter.txt", NULL);
    g_autoptr(GError) error = NULL;
    Store *store;

    g_assert_cmpint(g_mkdir(f->path, 0755), ==, 0);
    g_assert_true(g_file_set_contents(file, "dear", -1, NULL));
    g_assert_false(store_open(f->path, STORE_OPEN_CREATE, &store, &error));
    g_assert_nonnull(strstr(error->message, "no kiln store"));
}

static void test_newer(Fixture *f, gconstpointer data)
{
    g_autofree char *format = g_build_filename(f->path, "format", NULL);
    g_autoptr(GError) error = NULL;
    Store *store;

    store_close(test_store_open(f->path, STORE_OPEN_CREATE));
    g_assert_true(g_file_set_contents(format, "kiln-store 2\n", -1, NULL));
    g_assert_false(store_open(f->path, STORE_OPEN_CREATE, &store, &error));
    g_assert_nonnull(strstr(error->message, "newer kiln (format 2, this one reads 1): upgrade kiln"));
}

static void test_readonly(Fixture *f, gconstpointer data)
{
    Store *store = test_store_open(f->path, STORE_OPEN_CREATE), *reader;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GPtrArray) images = NULL;
    Digest digest;

    g_assert_true(store_blob_put(store, "hello", 5, &digest, NULL));
    reader = test_store_open(f->path, STORE_OPEN_READONLY); /* beside the writer */
    g_assert_true(store_blob_get(reader, &digest, 100, &bytes, NULL));
    g_assert_true(store_list_images(reader, true, &images, NULL));
    g_assert_false(store_writer_open(reader, BLOCK_PUBLIC, &writer, NULL));
    store_close(reader);
    store_close(store);
}

static void test_readonly_media(Fixture *f, gconstpointer data)
{
    Store *store = test_store_open(f->path, STORE_OPEN_CREATE);
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(GError) error = NULL;
    Digest digest;

    g_assert_true(store_noise(store, MIB, 1, &digest, NULL));
    store_close(store);
    if (mount(f->path, f->path, NULL, MS_BIND, NULL) < 0 || mount(NULL, f->path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0) {
        (void)umount(f->path);
        g_test_skip("cannot mount here");
        return;
    }
    store = test_store_open(f->path, STORE_OPEN_READONLY);
    g_assert_true(store_list_images(store, true, &images, &error));
    g_assert_no_error(error);
    assert_clean(store);
    store_close(store);
    g_assert_cmpint(umount(f->path), ==, 0);
}

/* --- blobs --- */

static void test_blob(Fixture *f, gconstpointer data)
{
    Store *store = test_store_open(f->path, STORE_OPEN_CREATE);
    g_autofree char *text = g_strnfill(100000, 'x');
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GError) error = NULL;
    Digest digest, wanted;
    uint64_t size;

    digest_of(text, 100000, &wanted);
    g_assert_true(store_blob_put(store, text, 100000, &digest, NULL));
    g_assert_true(digest_equal(&digest, &wanted));
    g_assert_true(store_blob_put(store, text, 100000, &digest, NULL));
    g_assert_true(store_blob_size(store, &digest, &size, NULL));
    g_assert_cmpuint(size, ==, 100000);
    g_assert_false(store_blob_get(store, &digest, 99999, &bytes, NULL));
    g_assert_true(store_blob_get(store, &digest, 100000, &bytes, NULL));
    g_assert_cmpint(memcmp(g_bytes_get_data(bytes, NULL), text, 100000), ==, 0);
    g_assert_true(store_blob_has(store, &digest));
    digest.bytes[0] ^= 1;
    g_assert_false(store_blob_has(store, &digest));
    g_assert_false(store_blob_copy(store, &digest, 1, &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_NOT_FOUND);
    store_close(store);
}

static void test_blob_file(Fixture *f, gconstpointer data)
{
    Store *store = test_store_open(f->path, STORE_OPEN_CREATE);
    g_autofree char *in = g_build_filename(f->dir, "in", NULL), *out = g_build_filename(f->dir, "out", NULL);
    g_autofree char *got = NULL;
    g_autofree uint8_t *bytes = g_malloc(3 * MIB);
    int fd = g_open(in, O_RDWR | O_CREAT, 0600), to = g_open(out, O_RDWR | O_CREAT, 0600);
    gsize got_size;
    uint64_t size;
    Digest digest, wanted;

    test_noise(bytes, 3 * MIB, 2);
    g_assert_cmpint(write(fd, bytes, 3 * MIB), ==, 3 * MIB);
    digest_of(bytes, 3 * MIB, &wanted);
    g_assert_true(store_blob_put_file(store, fd, &digest, &size, NULL)); /* all of it, although the offset is at the end */
    g_assert_true(digest_equal(&digest, &wanted));
    g_assert_cmpuint(size, ==, 3 * MIB);
    g_assert_true(store_blob_copy(store, &digest, to, NULL));
    g_assert_true(g_file_get_contents(out, &got, &got_size, NULL));
    g_assert_cmpuint(got_size, ==, 3 * MIB);
    g_assert_cmpint(memcmp(got, bytes, got_size), ==, 0);
    close(fd);
    close(to);
    assert_clean(store);
    store_close(store);
}

static void test_damaged_blob(Fixture *f, gconstpointer data)
{
    Store *store = test_store_open(f->path, STORE_OPEN_CREATE);
    g_autoptr(GBytes) bytes = NULL;
    g_autofree char *file = NULL;
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    g_assert_true(store_blob_put(store, "abc", 3, &digest, NULL));
    digest_to_hex(&digest, hex);
    file = g_strdup_printf("%s/blobs/%.2s/%s", f->path, hex, hex);
    g_assert_true(g_file_set_contents(file, "abd", 3, NULL));
    g_assert_false(store_blob_get(store, &digest, 10, &bytes, NULL));
    store_close(store);
}

/* --- segments seen from outside --- */

static void test_zstd_reads_segments(Fixture *f, gconstpointer data)
{
    Store *store = test_store_open(f->path, STORE_OPEN_CREATE);
    g_autofree uint8_t *bytes = g_malloc(2 * MIB);
    g_autofree char *command = NULL, *got = NULL, *out = g_build_filename(f->dir, "plain", NULL);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    gsize size;

    if (!process_have("zstd")) {
        g_test_skip("no zstd program");
        store_close(store);
        return;
    }
    test_noise(bytes, MIB, 3); /* half of it does not compress, half does */
    for (size_t i = MIB; i < 2 * MIB; i += 8)
        memcpy(bytes + i, &(uint64_t){ i / 64 }, 8);
    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &writer, NULL) && map_writer_new(writer, 2 * MIB, NULL, &map, NULL) &&
                  map_writer_write(map, 0, bytes, 2 * MIB, NULL) && map_writer_finish(map, NULL) && store_writer_commit(writer, NULL));
    command = g_strdup_printf("set -e; cd '%s/segments'; for f in */*; do echo \"$(basename $f)  $f\" | sha256sum -c --quiet; done;"
                              " zstd -qdcf */* > '%s'",
                              f->path, out);
    g_assert_cmpint(system(command), ==, 0);
    g_assert_true(g_file_get_contents(out, &got, &size, NULL));
    g_assert_cmpuint(size, ==, 2 * MIB);
    g_assert_cmpint(memcmp(got, bytes, size), ==, 0);
    store_close(store);
}

/* --- tmp, killed processes --- */

static void test_uncommitted(Fixture *f, gconstpointer data)
{
    Store *store = test_store_open(f->path, STORE_OPEN_CREATE);
    StoreWriter *writer;
    MapWriter *map;
    g_autofree uint8_t *bytes = g_malloc(MIB);
    g_autoptr(json_t) stats = NULL;

    test_noise(bytes, MIB, 4);
    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &writer, NULL) && map_writer_new(writer, MIB, NULL, &map, NULL) &&
                  map_writer_write(map, 0, bytes, MIB, NULL));
    store_writer_free(writer); /* in this order on purpose */
    map_writer_free(map);
    g_assert_true(store_stats(store, &stats, NULL));
    g_assert_cmpint(json_integer_value(json_object_get(stats, "segments")), ==, 0);
    assert_clean(store);
    store_close(store);
    g_assert_cmpuint(count_tmp(f->path), ==, 0);
}

static void test_tmpdir(Fixture *f, gconstpointer data)
{
    Store *store = test_store_open(f->path, STORE_OPEN_CREATE), *other;
    g_autofree char *dir = NULL;
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        other = test_store_open(f->path, 0);
        g_assert_true(store_make_tmpdir(other, &dir, NULL));
        raise(SIGKILL);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(store_make_tmpdir(store, &dir, NULL));
    g_assert_cmpuint(count_tmp(f->path), ==, 2);
    other = test_store_open(f->path, 0); /* clears the dead one, not ours */
    g_assert_cmpuint(count_tmp(f->path), ==, 1);
    g_assert_cmpint(access(dir, F_OK), ==, 0);
    store_close(other);
    store_close(store);
    g_assert_cmpuint(count_tmp(f->path), ==, 0);
}

static void write_for_ever(const char *path, int round)
{
    Store *store = test_store_open(path, 0);
    Digest digest;

    for (int i = 0;; i++) {
        g_assert_true(store_noise(store, 40 * B, (uint64_t)round * 1000 + (uint64_t)i, &digest, NULL));
        g_assert_true(store_blob_put(store, &digest, sizeof(digest), &digest, NULL));
    }
}

static void test_killed(Fixture *f, gconstpointer data)
{
    store_close(test_store_open(f->path, STORE_OPEN_CREATE));
    for (int round = 0; round < 12; round++) {
        pid_t pid = fork();
        int status;
        Store *store;
        Digest digest;

        if (pid == 0)
            write_for_ever(f->path, round);
        g_usleep(5000 + (gulong)g_test_rand_int_range(0, 60000));
        g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_assert_true(WIFSIGNALED(status)); /* it did not end by itself, on a failed assertion */
        store = test_store_open(f->path, 0);
        g_assert_cmpuint(count_tmp(f->path), ==, 0);
        assert_clean(store);
        g_assert_true(store_noise(store, 8 * B, 999999, &digest, NULL));
        store_close(store);
    }
}

/* Every place where a call of a kind may be the last one. */
static void kill_at(const char *path, const char *call, int n, uint64_t seed, int *ret_status)
{
    g_autofree char *fault = g_strdup_printf("%s:%d:KILL", call, n);
    pid_t pid = fork();

    if (pid == 0) {
        Store *store;
        Digest digest;

        g_setenv("KILN_TEST_FAIL", fault, TRUE);
        io_fault_reload();
        store = test_store_open(path, 0);
        g_assert_true(store_noise(store, 40 * B, seed, &digest, NULL));
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, ret_status, 0), ==, pid);
}

static void test_crash_points(Fixture *f, gconstpointer data)
{
    static const char *const calls[] = { "pwrite", "fdatasync", "fsync", "rename", "mkdir" };
    uint64_t seed = 5000;

    store_close(test_store_open(f->path, STORE_OPEN_CREATE));
    for (size_t c = 0; c < G_N_ELEMENTS(calls); c++) {
        for (int n = 1; n < 20; n++) {
            Store *store;
            int status;

            kill_at(f->path, calls[c], n, seed++, &status);
            store = test_store_open(f->path, 0);
            assert_clean(store);
            store_close(store);
            g_assert_cmpuint(count_tmp(f->path), ==, 0);
            if (WIFEXITED(status)) {
                g_assert_cmpint(WEXITSTATUS(status), ==, 0);
                g_assert_true(n > 1 || !strcmp(calls[c], "mkdir"));
                break;
            }
        }
    }
}

static void test_faults(Fixture *f, gconstpointer data)
{
    static const char *const faults[] = { "pwrite:1:ENOSPC", "pwrite:4:ENOSPC", "fdatasync:1:EIO", "fdatasync:2:EIO", "rename:1:ENOSPC",
                                          "rename:2:EIO",    "fsync:1:EIO",     "fsync:3:EIO",     "open:6:EMFILE",   "mkdir:1:ENOSPC" };

    store_close(test_store_open(f->path, STORE_OPEN_CREATE));
    for (size_t i = 0; i < G_N_ELEMENTS(faults); i++) {
        pid_t pid = fork();
        int status;
        Store *store;

        if (pid == 0) {
            g_autoptr(GError) error = NULL;
            Digest digest;

            g_setenv("KILN_TEST_FAIL", faults[i], TRUE);
            io_fault_reload();
            if (!store_open(f->path, 0, &store, &error) || !store_noise(store, 40 * B, 7000 + i, &digest, &error))
                _exit(error && strstr(error->message, f->path) ? 10 : 11);
            _exit(0);
        }
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_assert_true(WIFEXITED(status));
        g_assert_cmpint(WEXITSTATUS(status), ==, 10);
        store = test_store_open(f->path, 0);
        assert_clean(store);
        store_close(store);
    }
}

static void test_full_disk(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) bytes = NULL;
    Store *store;
    Digest digest, kept;

    g_assert_cmpint(g_mkdir(f->path, 0755), ==, 0);
    if (mount("tmpfs", f->path, "tmpfs", 0, "size=6m") < 0) {
        g_test_skip("cannot mount here");
        return;
    }
    store = test_store_open(f->path, STORE_OPEN_CREATE);
    g_assert_true(store_noise(store, MIB, 1, &kept, &error));
    g_assert_false(store_noise(store, 8 * MIB, 2, &digest, &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_NO_SPACE);
    g_assert_nonnull(strstr(error->message, f->path));
    g_assert_null(strchr(error->message, '\n'));
    assert_clean(store);
    g_assert_true(store_noise(store, MIB / 2, 3, &digest, NULL)); /* the room of the failed one is free again */
    store_close(store);
    store = test_store_open(f->path, 0);
    g_assert_true(store_blob_get(store, &kept, MIB, &bytes, NULL));
    assert_clean(store);
    store_close(store);
    g_assert_cmpint(umount(f->path), ==, 0);
}

/* --- several writers --- */

static void test_two_writers(Fixture *f, gconstpointer data)
{
    Store *store = test_store_open(f->path, STORE_OPEN_CREATE);
    g_autofree uint8_t *bytes = g_malloc(MIB);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(json_t) stats = NULL;
    Digest digest;
    int status;

    for (int i = 0; i < 3; i++) {
        if (fork() == 0) {
            Store *own = test_store_open(f->path, 0);

            for (int j = 0; j < 6; j++)
                g_assert_true(store_noise(own, MIB, 100 + (uint64_t)(i * 10 + j), &digest, NULL));
            store_close(own);
            _exit(0);
        }
    }
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(wait(&status), >, 0);
        g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_clean(store);
    /* Everything they wrote is known to the index. */
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 6; j++)
            g_assert_true(store_noise(store, MIB, 100 + (uint64_t)(i * 10 + j), &digest, NULL));
    g_assert_true(store_stats(store, &stats, NULL));
    g_assert_cmpint(json_integer_value(json_object_get(stats, "blocks")), ==, 18 * 256);
    store_close(store);
}

static void test_index_lost(Fixture *f, gconstpointer data)
{
    Store *store = test_store_open(f->path, STORE_OPEN_CREATE);
    g_autofree char *index = g_build_filename(f->path, "index/blocks", NULL);
    g_autofree char *garbage = g_strnfill(4 * MIB, 'g');
    g_autoptr(json_t) stats = NULL;
    Digest digest;

    g_assert_true(store_noise(store, MIB, 1, &digest, NULL));
    store_close(store);
    g_assert_cmpint(g_unlink(index), ==, 0);
    store = test_store_open(f->path, 0);
    g_assert_true(store_noise(store, MIB, 1, &digest, NULL));
    store_close(store);
    g_assert_true(g_file_set_contents(index, garbage, 4 * MIB, NULL));
    store = test_store_open(f->path, 0);
    g_assert_true(store_noise(store, MIB, 1, &digest, NULL));
    g_assert_true(store_rebuild_index(store, NULL));
    g_assert_true(store_noise(store, MIB, 1, &digest, NULL));
    g_assert_true(store_stats(store, &stats, NULL));
    g_assert_cmpint(json_integer_value(json_object_get(stats, "blocks")), ==, 256);
    store_close(store);
}

int main(int argc, char **argv)
{
    /* Hundreds of syncs: in memory they cost nothing. */
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/pool/" name, Fixture, NULL, set_up, fn, tear_down)
    ADD("is-made-and-opened", test_create);
    ADD("half-made-store-is-made-again", test_half_made);
    ADD("folder-with-other-files-is-left-alone", test_foreign_folder);
    ADD("newer-format-is-refused", test_newer);
    ADD("readonly-writes-nothing", test_readonly);
    ADD("readonly-media-can-be-read", test_readonly_media);
    ADD("blob-comes-back", test_blob);
    ADD("file-blob-comes-back", test_blob_file);
    ADD("damaged-blob-is-told", test_damaged_blob);
    ADD("zstd-program-reads-segments", test_zstd_reads_segments);
    ADD("uncommitted-writer-leaves-nothing", test_uncommitted);
    ADD("dead-tmp-folders-are-cleared", test_tmpdir);
    ADD("killed-writer-leaves-a-clean-store", test_killed);
    ADD("every-crash-point-recovers", test_crash_points);
    ADD("faults-name-the-store", test_faults);
    ADD("full-disk-is-one-sentence", test_full_disk);
    ADD("writers-run-side-by-side", test_two_writers);
    ADD("lost-index-is-made-again", test_index_lost);
    return g_test_run();
}
