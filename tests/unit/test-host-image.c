/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images as files of this host: everything that can have happened to one between two creates.
 */
#include "base/error.h"
#include "base/file.h"
#include "deploy/host-image.h"
#include "tests/unit/disk-image-support.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE ((2u << 20) + 512)

typedef struct Fixture {
    StoreFixture store;
    StoreImage *image;
    HostImageWant want;
    char *folder, *file, *stamp;
} Fixture;

static void setup(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    char hex[DIGEST_HEX_SIZE];

    store_fixture_setup(&f->store, NULL);
    f->image = disk_image_bootable(f->store.store, "web", 1, SIZE);
    f->folder = g_build_filename(f->store.dir, "images", NULL);
    f->file = host_image_path(f->folder, &f->image->id);
    f->stamp = g_strdup_printf("%s/%s.stamp", f->folder, digest_to_hex(&f->image->id, hex));
    (void)host_image_want(f->store.store, &f->image->id, &f->want, &error);
    g_assert_no_error(error);
    (void)host_image_prepare(f->folder, f->store.store, f->image, &error);
    g_assert_no_error(error);
}

static void teardown(Fixture *f, gconstpointer data)
{
    store_image_free(f->image);
    store_fixture_teardown(&f->store, NULL);
    g_free(f->folder);
    g_free(f->file);
    g_free(f->stamp);
}

static void assert_good(Fixture *f)
{
    g_autoptr(GError) error = NULL;

    (void)host_image_check(f->folder, &f->want, NULL, NULL, &error);
    g_assert_no_error(error);
}

static void assert_bad(Fixture *f, const char *sentence)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(host_image_check(f->folder, &f->want, NULL, NULL, &error));
    if (!strstr(error->message, sentence))
        g_error("'%s' does not say '%s'", error->message, sentence);
}

/* The next prepare puts a good one there. */
static void assert_cured(Fixture *f)
{
    g_autoptr(GError) error = NULL;
    struct stat st;

    (void)host_image_prepare(f->folder, f->store.store, f->image, &error);
    g_assert_no_error(error);
    g_assert_cmpint(lstat(f->file, &st), ==, 0);
    g_assert_true(S_ISREG(st.st_mode));
    g_assert_cmpuint(st.st_mode & 07777, ==, 0444);
    assert_good(f);
}

static unsigned files_in(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    unsigned count = 0;

    while (dir && g_dir_read_name(dir))
        count++;
    return count;
}

static void test_written(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_autofree uint8_t *disk = g_malloc(SIZE);
    struct stat st, again;

    g_assert_true(store_map_open(f->store.store, &f->image->map, &map, NULL) && store_map_pread(map, disk, SIZE, 0, NULL));
    g_assert_true(file_load(AT_FDCWD, f->file, SIZE, &bytes, NULL));
    g_assert_cmpmem(disk, SIZE, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
    g_assert_cmpint(stat(f->file, &st), ==, 0);
    g_assert_cmpuint(st.st_mode & 07777, ==, 0444);
    g_assert_cmpint(st.st_blocks * 512, <, SIZE / 2); /* holes */
    g_assert_cmpuint(files_in(f->folder), ==, 2);
    assert_good(f);
    g_assert_true(host_image_prepare(f->folder, f->store.store, f->image, NULL));
    g_assert_cmpint(stat(f->file, &again), ==, 0);
    g_assert_cmpuint(st.st_ino, ==, again.st_ino);
}

/* One bit, and the clock put back: ctime tells. */
static void test_flipped(Fixture *f, gconstpointer data)
{
    struct stat st;
    struct timespec times[2];
    int fd;

    g_assert_cmpint(stat(f->file, &st), ==, 0);
    g_assert_cmpint(chmod(f->file, 0644), ==, 0);
    fd = open(f->file, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(pwrite(fd, "\x01", 1, 1 << 20), ==, 1);
    times[0] = st.st_atim;
    times[1] = st.st_mtim;
    g_assert_cmpint(futimens(fd, times), ==, 0);
    (void)close(fd);
    g_assert_cmpint(chmod(f->file, 0444), ==, 0);
    g_assert_false(host_image_stamp_fits(f->folder, &f->want));
    assert_bad(f, "not the image's");
    assert_cured(f);
}

/* Touched, and still the same bytes: hashed once more, then good. */
static void test_touched(Fixture *f, gconstpointer data)
{
    g_assert_cmpint(utimensat(AT_FDCWD, f->file, NULL, 0), ==, 0);
    g_assert_false(host_image_stamp_fits(f->folder, &f->want));
    assert_good(f);
    g_assert_true(host_image_stamp_fits(f->folder, &f->want));
}

static void test_without_stamp(Fixture *f, gconstpointer data)
{
    g_assert_cmpint(unlink(f->stamp), ==, 0);
    assert_good(f);
    g_assert_true(g_file_set_contents(f->stamp, "{\"content\":1}", -1, NULL));
    assert_good(f);
    g_assert_true(host_image_stamp_fits(f->folder, &f->want));
}

static void test_swapped(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) other = disk_image_bootable(f->store.store, "web", 2, SIZE);
    g_autofree char *other_file = host_image_path(f->folder, &other->id);

    g_assert_true(host_image_prepare(f->folder, f->store.store, other, NULL));
    g_assert_cmpint(rename(other_file, f->file), ==, 0);
    assert_bad(f, "not the image's");
    assert_cured(f);
}

static void test_link(Fixture *f, gconstpointer data)
{
    g_autofree char *aside = g_strdup_printf("%s.aside", f->file);

    g_assert_cmpint(rename(f->file, aside), ==, 0);
    g_assert_cmpint(symlink(aside, f->file), ==, 0);
    assert_bad(f, "is a link");
    assert_cured(f);
}

static void test_folder_in_place(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(unlink(f->file), ==, 0);
    g_assert_cmpint(mkdir(f->file, 0755), ==, 0);
    assert_bad(f, "not a regular file");
    g_assert_false(host_image_prepare(f->folder, f->store.store, f->image, &error)); /* not ours to remove */
    g_assert_nonnull(error);
    g_assert_cmpuint(files_in(f->folder), ==, 2);
}

static void test_writable(Fixture *f, gconstpointer data)
{
    g_assert_cmpint(chmod(f->file, 0464), ==, 0);
    assert_bad(f, "is writable");
    assert_cured(f);
}

static void test_foreign(Fixture *f, gconstpointer data)
{
    if (geteuid() != 0) {
        g_test_skip("only root can give files away");
        return;
    }
    g_assert_cmpint(chown(f->file, 64055, 107), ==, 0);
    assert_bad(f, "belongs to user 64055");
    assert_cured(f);
}

static void test_truncated(Fixture *f, gconstpointer data)
{
    g_assert_cmpint(truncate(f->file, SIZE - 512), ==, 0);
    assert_bad(f, "bytes instead of");
    assert_cured(f);
}

static void test_absent(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(unlink(f->file), ==, 0);
    g_assert_false(host_image_check(f->folder, &f->want, NULL, NULL, &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_NOT_FOUND);
    assert_cured(f);
}

/* A store whose map is not what the config says: nothing is left behind. */
static void test_wrong_map(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) other = disk_image_bootable(f->store.store, "web", 2, SIZE);
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(unlink(f->file), ==, 0);
    f->image->map = other->map;
    g_assert_false(host_image_prepare(f->folder, f->store.store, f->image, &error));
    g_assert_nonnull(strstr(error->message, "fsck"));
    g_assert_cmpuint(files_in(f->folder), ==, 1); /* the stamp */
}

/* As when the disk is full: no file can become that long. */
static void test_no_room(Fixture *f, gconstpointer data)
{
    struct rlimit before, small;
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(unlink(f->file), ==, 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &before), ==, 0);
    small = (struct rlimit){.rlim_cur = SIZE / 2, .rlim_max = before.rlim_max};
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &small), ==, 0);
    g_assert_false(host_image_prepare(f->folder, f->store.store, f->image, &error));
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &before), ==, 0);
    g_assert_nonnull(error);
    g_assert_cmpuint(files_in(f->folder), ==, 1); /* the stamp */
    assert_cured(f);
}

/* A part file of somebody who was killed is written over. */
static void test_left_over(Fixture *f, gconstpointer data)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *part = g_strdup_printf("%s/%s.part", f->folder, digest_to_hex(&f->image->id, hex));

    g_assert_cmpint(unlink(f->file), ==, 0);
    g_assert_true(g_file_set_contents(part, "half", 4, NULL));
    assert_cured(f);
    g_assert_cmpuint(files_in(f->folder), ==, 2);
}

static gpointer prepare(gpointer arg)
{
    Fixture *f = arg;

    return GINT_TO_POINTER(host_image_prepare(f->folder, f->store.store, f->image, NULL));
}

static void test_together(Fixture *f, gconstpointer data)
{
    GThread *threads[4];

    g_assert_cmpint(unlink(f->file), ==, 0);
    for (int i = 0; i < 4; i++)
        threads[i] = g_thread_new("prepare", prepare, f);
    for (int i = 0; i < 4; i++)
        g_assert_true(GPOINTER_TO_INT(g_thread_join(threads[i])));
    assert_good(f);
    g_assert_cmpuint(files_in(f->folder), ==, 2);
}

static void test_forget(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) kept = disk_image_bootable(f->store.store, "web", 2, SIZE), used = disk_image_bootable(f->store.store, "web", 3, SIZE);
    g_autoptr(GHashTable) files = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GArray) keep = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autofree char *somebody = g_build_filename(f->folder, "vm.raw", NULL), *kept_file = host_image_path(f->folder, &kept->id),
                    *used_file = host_image_path(f->folder, &used->id);

    g_assert_true(host_image_prepare(f->folder, f->store.store, kept, NULL) && host_image_prepare(f->folder, f->store.store, used, NULL));
    g_assert_true(g_file_set_contents(somebody, "x", 1, NULL));
    g_array_append_val(keep, kept->id);
    g_hash_table_add(files, g_strdup(used_file));
    g_assert_true(host_image_forget(f->folder, keep, files, NULL));
    g_assert_cmpint(access(f->file, F_OK), !=, 0);
    g_assert_cmpint(access(f->stamp, F_OK), !=, 0);
    g_assert_cmpint(access(kept_file, F_OK), ==, 0);
    g_assert_cmpint(access(used_file, F_OK), ==, 0);
    g_assert_cmpint(access(somebody, F_OK), ==, 0);
    g_assert_cmpuint(files_in(f->folder), ==, 5);
}

/* In any pieces, with or without holes told: one digest, and the store's. */
static void test_content(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreMap) map = NULL;
    g_autofree uint8_t *disk = g_malloc(SIZE);
    Digest stored;

    g_assert_true(store_map_open(f->store.store, &f->image->map, &map, NULL) && store_map_pread(map, disk, SIZE, 0, NULL) &&
                  store_map_content(map, &stored, NULL));
    g_assert_true(digest_equal(&stored, &f->want.content));
    for (size_t piece = 1000; piece < 100000; piece = piece * 3 + 7) {
        g_autoptr(ContentHash) hash = content_hash_new();
        Digest content;
        uint64_t size;

        for (size_t at = 0; at < SIZE; at += piece) {
            size_t n = MIN(piece, SIZE - at);

            if (bytes_are_zero(disk + at, n))
                content_hash_hole(hash, n);
            else
                content_hash_data(hash, disk + at, n);
        }
        content_hash_final(hash, &content, &size);
        g_assert_cmpuint(size, ==, SIZE);
        g_assert_true(digest_equal(&content, &stored));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(name, fn) g_test_add("/host-image/" name, Fixture, NULL, setup, fn, teardown)
    CASE("is-written-sparse-and-read-only", test_written);
    CASE("content-as-the-store-has-it", test_content);
    CASE("flipped-bit-with-the-time-put-back", test_flipped);
    CASE("touched-is-hashed-again", test_touched);
    CASE("without-a-stamp-is-hashed-again", test_without_stamp);
    CASE("swapped", test_swapped);
    CASE("link", test_link);
    CASE("folder", test_folder_in_place);
    CASE("writable", test_writable);
    CASE("somebody-elses", test_foreign);
    CASE("truncated", test_truncated);
    CASE("absent", test_absent);
    CASE("wrong-map-leaves-nothing", test_wrong_map);
    CASE("no-room-leaves-nothing", test_no_room);
    CASE("left-over-part", test_left_over);
    CASE("four-at-once", test_together);
    CASE("forget", test_forget);
    return g_test_run();
}
