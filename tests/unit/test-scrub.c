/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every byte of a store is read, every flipped bit is found and named, and what can be made good is made good.
 *
 * KILN_TEST_FLIPS=N flips N bits, one after the other (default: what fits into a unit test).
 */
#include "tests/unit/scrub-support.h"
#include "tests/unit/store-support.h"
#include "tests/unit/tree-support.h"

#include "base/error.h"
#include "base/file.h"
#include "store/io.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Fixture {
    char *dir, *path, *work, *other;
} Fixture;

static void set_up(Fixture *f, gconstpointer data)
{
    g_autoptr(Store) store = NULL;

    f->dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    f->path = g_build_filename(f->dir, "store", NULL);
    f->work = g_build_filename(f->dir, "work", NULL);
    f->other = g_build_filename(f->dir, "other", NULL);
    store = test_store_open(f->path, STORE_OPEN_CREATE);
    scrub_publish(store, "web", 1);
    scrub_publish(store, "db", 2);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
    g_free(f->path);
    g_free(f->work);
    g_free(f->other);
}

static void fsck(const char *path, unsigned flags, StoreFsckOptions options, StoreFsckReport *ret)
{
    g_autoptr(Store) store = test_store_open(path, flags);
    g_autoptr(GError) error = NULL;

    store_fsck_with(store, &options, ret, &error);
    g_assert_no_error(error);
    for (guint i = 0; i < ret->problems->len; i++)
        g_test_message("%s", (char *)ret->problems->pdata[i]);
    for (guint i = 0; i < ret->repairs->len; i++)
        g_test_message("repaired: %s", (char *)ret->repairs->pdata[i]);
}

static void assert_clean(const char *path)
{
    g_auto(StoreFsckReport) report = {0};

    fsck(path, 0, (StoreFsckOptions){.read_data = true}, &report);
    g_assert_cmpuint(report.problems->len, ==, 0);
}

static const char *file_like(const GPtrArray *files, const char *start, guint skip)
{
    for (guint i = 0; i < files->len; i++)
        if (g_str_has_prefix(files->pdata[i], start) && skip-- == 0)
            return files->pdata[i];
    return NULL;
}

/* --- reading --- */

static void test_reads_everything(Fixture *f, gconstpointer data)
{
    g_auto(StoreFsckReport) first = {0}, second = {0};
    g_autoptr(GPtrArray) files = scrub_files(f->path);
    uint64_t count = 0, bytes = 0;

    for (guint i = 0; i < files->len; i++)
        if (g_str_has_prefix(files->pdata[i], "segments/") || g_str_has_prefix(files->pdata[i], "blobs/")) {
            count++;
            bytes += scrub_size(f->path, files->pdata[i]);
        }
    fsck(f->path, 0, (StoreFsckOptions){.read_data = true}, &first);
    g_assert_cmpuint(first.problems->len, ==, 0);
    g_assert_cmpuint(first.files, ==, count);
    g_assert_cmpuint(first.bytes, ==, bytes);
    g_assert_true(first.noted && first.begun == 0);
    g_assert_cmpint(first.oldest, >, 0);
    fsck(f->path, 0, (StoreFsckOptions){.read_data = true}, &second);
    g_assert_cmpuint(second.files, ==, count); /* a run that came to its end is not gone on with */
}

static void test_subsets_are_all(Fixture *f, gconstpointer data)
{
    g_auto(StoreFsckReport) all = {0};
    uint64_t files = 0;

    fsck(f->path, 0, (StoreFsckOptions){.read_data = true}, &all);
    for (unsigned i = 1; i <= 3; i++) {
        g_auto(StoreFsckReport) part = {0}, again = {0};

        fsck(f->path, 0, (StoreFsckOptions){.read_data = true, .part = i, .parts = 3}, &part);
        fsck(f->path, STORE_OPEN_READONLY, (StoreFsckOptions){.read_data = true, .part = i, .parts = 3}, &again);
        g_assert_cmpuint(part.files, ==, again.files);
        g_assert_false(again.noted);
        files += part.files;
    }
    g_assert_cmpuint(files, ==, all.files);
}

static void test_rate(Fixture *f, gconstpointer data)
{
    g_auto(StoreFsckReport) report = {0};
    int64_t start = g_get_monotonic_time();

    fsck(f->path, 0, (StoreFsckOptions){.read_data = true, .rate = 8 << 20}, &report);
    g_assert_cmpfloat((double)(g_get_monotonic_time() - start) / 1e6, >=, (double)report.bytes / (8 << 20) * 0.99);
}

/* A child reads at a low rate and is killed after @usec. */
static void begin_and_kill(Fixture *f, gulong usec)
{
    pid_t child = fork();

    if (child == 0) {
        g_auto(StoreFsckReport) report = {0};

        fsck(f->path, 0, (StoreFsckOptions){.read_data = true, .rate = 1 << 20}, &report);
        _exit(0);
    }
    g_usleep(usec);
    g_assert_cmpint(kill(child, SIGKILL), ==, 0);
    g_assert_true(waitpid(child, NULL, 0) == child);
}

/* What was killed in the middle is gone on with, and the run after that starts anew. A machine that is busy gets more time to come to the middle. */
static void test_goes_on(Fixture *f, gconstpointer data)
{
    g_auto(StoreFsckReport) all = {0}, rest = {0}, again = {0};

    fsck(f->path, 0, (StoreFsckOptions){.read_data = true}, &all);
    for (gulong usec = 1600000; rest.earlier_files == 0 && usec < 30000000; usec *= 2) {
        store_fsck_report_clear(&rest);
        begin_and_kill(f, usec);
        fsck(f->path, 0, (StoreFsckOptions){.read_data = true}, &rest);
    }
    g_assert_cmpint(rest.begun, >, 0);
    g_assert_cmpuint(rest.earlier_files, >, 0);
    g_assert_cmpuint(rest.earlier_files + rest.files, ==, all.files);
    fsck(f->path, 0, (StoreFsckOptions){.read_data = true}, &again);
    g_assert_cmpuint(again.earlier_files, ==, 0);
    g_assert_cmpuint(again.files, ==, all.files);
}

/* --- flips --- */

/* What the sentence must have in it: the hash that the file is named by, or the file. */
static char *name_of(const char *file)
{
    g_autofree char *base = g_path_get_basename(file);

    return strlen(base) >= 64 ? g_strndup(base, 64) : g_strdup(strstr(base, ".db") || !strcmp(base, "format") ? base : file);
}

static bool is_named(const char *path, const char *file, char **ret_said)
{
    g_auto(StoreFsckReport) report = {0};
    StoreFsckOptions options = {.read_data = true};
    g_autofree char *name = name_of(file);
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) store = NULL;

    if (!store_open(path, 0, &store, &error)) {
        *ret_said = g_strdup(error->message);
        return strstr(error->message, name) != NULL;
    }
    if (!store_fsck_with(store, &options, &report, &error)) {
        *ret_said = g_strdup_printf("fails: %s", error->message);
        return false;
    }
    *ret_said = g_strdup(report.problems->len ? report.problems->pdata[0] : "clean");
    return scrub_says(report.problems, name) || scrub_says(report.repairs, name);
}

static void test_flips(Fixture *f, gconstpointer data)
{
    static const char *const kinds[] = {"segments/", "blobs/", "catalog.db", "state.db", "segments/", "blobs/", "ledger/", "format"};
    int flips = g_getenv("KILN_TEST_FLIPS") ? atoi(g_getenv("KILN_TEST_FLIPS")) : 40, missed = 0;
    g_autoptr(GRand) rand = g_rand_new_with_seed(20261127);
    g_autoptr(GPtrArray) files = NULL;

    assert_clean(f->path); /* and notes how blobs are stored */
    files = scrub_files(f->path);
    for (int i = 0; i < flips; i++) {
        const char *kind = kinds[i % (int)G_N_ELEMENTS(kinds)], *file = NULL;
        g_autofree char *said = NULL;
        uint64_t bit;

        while (!file || !g_str_has_prefix(file, kind))
            file = files->pdata[g_rand_int_range(rand, 0, (gint32)files->len)];
        bit = (uint64_t)(g_rand_double(rand) * (double)scrub_size(f->path, file) * 8);
        scrub_copy(f->path, f->work);
        scrub_flip(f->work, file, bit);
        if (is_named(f->work, file, &said))
            continue;
        missed++;
        g_printerr("# bit %" G_GUINT64_FORMAT " of %s: %s\n", bit, file, said);
    }
    g_test_message("%d flips", flips);
    g_assert_cmpint(missed, ==, 0);
}

/* Frame, blocks, image and file are the right ones. */
static void test_damage_is_mapped(Fixture *f, gconstpointer data)
{
    g_auto(StoreFsckReport) report = {0};
    g_autoptr(Store) store = test_store_open(f->path, 0);
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GPtrArray) files = scrub_files(f->path);
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) space = NULL;
    g_autofree uint8_t *bytes = g_malloc(16 << 10);
    char id[DIGEST_OCI_SIZE];
    json_t *damage, *one;
    bool found = false;

    g_assert_true(store_resolve(store, "db", "disk", &image, NULL) && tree_load(store, &image->tree, &tree, &space, NULL));
    test_noise(bytes, 16 << 10, 22);
    store_close(g_steal_pointer(&store));
    for (guint i = 0; !found && i < files->len; i++) { /* the bytes of /etc/one stand as they are in a raw frame */
        g_autofree char *path = g_build_filename(f->path, files->pdata[i], NULL), *text = NULL;
        const char *at;
        gsize size;

        if (!g_str_has_prefix(files->pdata[i], "segments/"))
            continue;
        g_assert_true(g_file_get_contents(path, &text, &size, NULL));
        at = memmem(text, size, bytes, 4096);
        if (at) {
            scrub_flip(f->path, files->pdata[i], (uint64_t)(at - text) * 8 + 7);
            found = true;
        }
    }
    g_assert_true(found);
    fsck(f->path, 0, (StoreFsckOptions){.read_data = true}, &report);
    g_assert_cmpuint(json_array_size(report.damage), ==, 1);
    damage = json_array_get(report.damage, 0);
    g_assert_cmpstr(json_string_value(json_object_get(damage, "kind")), ==, "segment");
    g_assert_cmpuint(json_array_size(json_object_get(damage, "frames")), ==, 1);
    one = json_array_get(json_object_get(damage, "frames"), 0);
    g_assert_cmpuint(json_array_size(json_object_get(one, "blocks")), ==, 1); /* the others of the raw frame are good */
    g_assert_cmpuint(json_array_size(json_object_get(damage, "images")), ==, 1);
    one = json_array_get(json_object_get(damage, "images"), 0);
    g_assert_cmpstr(json_string_value(json_object_get(one, "id")), ==, digest_to_oci(&image->id, id));
    g_assert_cmpstr(json_string_value(json_array_get(json_object_get(one, "names"), 0)), ==, "db/disk");
    g_assert_true(scrub_says(report.problems, "/etc/one") && scrub_says(report.problems, "/etc/two") && scrub_says(report.problems, id));
    g_assert_false(scrub_says(report.problems, "web/disk"));
}

static void test_missing_files_are_mapped(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) files = scrub_files(f->path);
    g_auto(StoreFsckReport) report = {0};
    guint segments = 0, blobs = 0;

    for (guint i = 0; i < files->len; i++)
        if (g_str_has_prefix(files->pdata[i], "segments/") || g_str_has_prefix(files->pdata[i], "blobs/")) {
            g_autofree char *path = g_build_filename(f->path, files->pdata[i], NULL);

            segments += g_str_has_prefix(files->pdata[i], "segments/");
            blobs += g_str_has_prefix(files->pdata[i], "blobs/");
            g_assert_cmpint(unlink(path), ==, 0);
        }
    fsck(f->path, 0, (StoreFsckOptions){0}, &report);
    g_assert_cmpuint(json_array_size(report.damage), ==, segments + blobs);
    g_assert_true(scrub_says(report.problems, "web/disk") && scrub_says(report.problems, "db-box/oci"));
    g_assert_true(scrub_says(report.repairs, "ledger/head")); /* which named blobs that are gone */
}

/* Tables and rows as they are, in a file as SQLite makes it by itself. */
static void make_old(const char *store, const char *file)
{
    g_autofree char *path = g_build_filename(store, file, NULL), *old = g_strconcat(path, ".old", NULL);

    g_assert_cmpint(rename(path, old), ==, 0);
    scrub_copy_tables(old, path);
    g_assert_cmpint(unlink(old), ==, 0);
}

static void test_old_databases(Fixture *f, gconstpointer data)
{
    g_autofree char *path = g_build_filename(f->path, "catalog.db", NULL), *bytes = NULL;
    g_auto(StoreFsckReport) report = {0};

    make_old(f->path, "catalog.db");
    make_old(f->path, "state.db");
    assert_clean(f->path); /* and writes them anew */
    g_assert_true(g_file_get_contents(path, &bytes, NULL, NULL));
    g_assert_cmpint(bytes[20], ==, 8);
    assert_clean(f->path);
    scrub_flip(f->path, "catalog.db", scrub_size(f->path, "catalog.db") * 4 + 3);
    fsck(f->path, 0, (StoreFsckOptions){.read_data = true}, &report);
    g_assert_true(scrub_says(report.problems, "catalog.db is damaged: page"));
}

/* --- repair --- */

static void spoil(const char *store, GPtrArray *files, uint64_t seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed((guint32)seed);

    for (guint i = 0; i < files->len; i++) {
        const char *file = files->pdata[i];
        g_autofree char *path = g_build_filename(store, file, NULL);

        if (!g_str_has_prefix(file, "segments/") && !g_str_has_prefix(file, "blobs/"))
            continue;
        if (i % 3 == 0)
            g_assert_cmpint(unlink(path), ==, 0);
        else
            for (int j = 0; j < 3; j++)
                scrub_flip(store, file, (uint64_t)(g_rand_double(rand) * (double)scrub_size(store, file) * 8));
    }
}

static void repair(const char *path, const char *from, StoreFsckReport *ret)
{
    g_autoptr(Store) other = from ? test_store_open(from, STORE_OPEN_READONLY) : NULL;

    fsck(path, 0, (StoreFsckOptions){.read_data = true, .repair = true, .from = other}, ret);
}

static void assert_readable(const char *path, const char *name)
{
    g_autoptr(Store) store = test_store_open(path, 0);
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree uint8_t *bytes = NULL;

    g_assert_true(store_resolve(store, name, "disk", &image, NULL) && store_map_open(store, &image->map, &map, NULL));
    bytes = g_malloc(store_map_size(map));
    store_map_pread(map, bytes, store_map_size(map), 0, &error);
    g_assert_no_error(error);
}

/* A copy has every file under its own name. */
static void test_repair_from_copy(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) files = scrub_files(f->path);
    g_auto(StoreFsckReport) report = {0};

    scrub_copy(f->path, f->other);
    spoil(f->path, files, 1);
    repair(f->path, f->other, &report);
    g_assert_cmpuint(report.problems->len, ==, 0);
    g_assert_cmpuint(report.repairs->len, >, 10);
    assert_clean(f->path);
    assert_readable(f->path, "web");
    assert_readable(f->path, "db");
}

/* Another store with the same blocks in other segments: what is left is put together with what it has. */
static void test_repair_from_blocks(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) files = scrub_files(f->path);
    g_auto(StoreFsckReport) report = {0};
    g_autoptr(Store) other = test_store_open(f->other, STORE_OPEN_CREATE);
    unsigned flipped = 0;

    scrub_publish(other, "different", 7);
    scrub_publish(other, "db", 2);
    scrub_publish(other, "web", 1);
    store_close(g_steal_pointer(&other));
    for (guint i = 0; i < files->len; i++)
        if (g_str_has_prefix(files->pdata[i], "segments/"))
            for (uint64_t at = 3000, size = scrub_size(f->path, files->pdata[i]); at + 3000 < size; at += size / 3, flipped++)
                scrub_flip(f->path, files->pdata[i], at * 8 + 1);
    g_assert_cmpuint(flipped, >, 4);
    repair(f->path, f->other, &report);
    g_assert_cmpuint(report.problems->len, ==, 0);
    assert_clean(f->path);
    assert_readable(f->path, "web");
    assert_readable(f->path, "db");
}

/* The blocks of a disk, one further on, so that they come to lie in other frames. */
static void store_shifted(Store *from, const char *name, Store *to)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) copy = NULL;
    g_autofree uint8_t *bytes = NULL;
    size_t size;

    g_assert_true(store_resolve(from, name, "disk", &image, NULL) && store_map_open(from, &image->map, &map, NULL));
    size = store_map_size(map) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;
    bytes = g_malloc(size + STORE_BLOCK_SIZE);
    test_noise(bytes, STORE_BLOCK_SIZE, 4711);
    g_assert_true(store_map_pread(map, bytes + STORE_BLOCK_SIZE, size, 0, NULL) && store_writer_open(to, BLOCK_PUBLIC, &writer, NULL) &&
                  map_writer_new(writer, size + STORE_BLOCK_SIZE, NULL, &copy, NULL) &&
                  map_writer_write(copy, 0, bytes, size + STORE_BLOCK_SIZE, NULL) && map_writer_finish(copy, NULL) && store_writer_commit(writer, NULL));
}

/* Segments that are gone, and their hashes with them: the other store has the same images in other segments. */
static void test_repair_by_images(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) files = scrub_files(f->path);
    g_auto(StoreFsckReport) report = {0};
    g_autoptr(Store) other = test_store_open(f->other, STORE_OPEN_CREATE), own = test_store_open(f->path, 0);

    store_shifted(own, "web", other);
    store_shifted(own, "db", other);
    scrub_publish(other, "db", 2);
    scrub_publish(other, "web", 1);
    store_close(g_steal_pointer(&other));
    store_close(g_steal_pointer(&own));
    for (guint i = 0; i < files->len; i++) {
        g_autofree char *path = g_build_filename(f->path, files->pdata[i], NULL);

        if (!g_str_has_prefix(files->pdata[i], "segments/") || scrub_size(f->path, files->pdata[i]) < 50000)
            continue;
        g_assert_cmpint(unlink(path), ==, 0);
    }
    repair(f->path, f->other, &report);
    assert_readable(f->path, "web");
    assert_readable(f->path, "db");
    g_assert_false(scrub_says(report.problems, "/disk"));
}

/* Nobody else has the blocks. What is damaged stays where it is; headers and lists come back out of the rest. */
static void test_repair_alone(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) files = scrub_files(f->path);
    g_auto(StoreFsckReport) report = {0}, lost = {0};
    const char *segment = file_like(files, "segments/", 0);
    uint64_t size = scrub_size(f->path, segment);
    g_autofree char *path = g_build_filename(f->path, segment, NULL);

    scrub_flip(f->path, segment, 9 * 8);             /* its header */
    scrub_flip(f->path, segment, (size - 10) * 8);   /* its end */
    scrub_flip(f->path, segment, (24 + 30) * 8 + 3); /* a hash in the head of its first frame */
    repair(f->path, NULL, &report);
    g_assert_cmpuint(report.problems->len, ==, 0);
    g_assert_true(scrub_says(report.repairs, segment));
    assert_clean(f->path);
    assert_readable(f->path, "web");
    scrub_flip(f->path, segment, (24 + 24 + 32 * 32 + 5000) * 8);
    repair(f->path, NULL, &lost);
    g_assert_true(scrub_says(lost.problems, "--from"));
    g_assert_true(g_file_test(path, G_FILE_TEST_IS_REGULAR));
}

/* A truncated segment cannot be opened at all: what is whole of it is moved to a new one. */
static void test_repair_half_a_segment(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) files = scrub_files(f->path);
    g_auto(StoreFsckReport) report = {0}, again = {0}, whole = {0};
    const char *largest = NULL;
    g_autofree char *path = NULL, *kept = NULL, *base = NULL;

    for (guint i = 0; i < files->len; i++)
        if (g_str_has_prefix(files->pdata[i], "segments/") && (!largest || scrub_size(f->path, files->pdata[i]) > scrub_size(f->path, largest)))
            largest = files->pdata[i];
    path = g_build_filename(f->path, largest, NULL);
    base = g_strconcat("damaged/", strrchr(largest, '/') + 1, ".1", NULL);
    kept = g_build_filename(f->path, base, NULL);
    scrub_copy(f->path, f->other);
    g_assert_cmpint(truncate(path, (off_t)scrub_size(f->path, largest) / 2), ==, 0);
    repair(f->path, NULL, &report);
    g_assert_cmpuint(report.problems->len, >, 0);
    g_assert_true(scrub_says(report.repairs, "what is left of it"));
    g_assert_true(g_file_test(kept, G_FILE_TEST_IS_REGULAR));
    repair(f->path, NULL, &again); /* which changes nothing */
    g_assert_cmpuint(again.repairs->len, ==, 0);
    g_assert_true(scrub_says(again.problems, "blocks that are needed are not in it") && scrub_says(again.problems, "needs it: 128 blocks"));
    repair(f->path, f->other, &whole);
    g_assert_cmpuint(whole.problems->len, ==, 0);
    assert_clean(f->path);
    assert_readable(f->path, "web");
    assert_readable(f->path, "db");
}

/* Killed or failed at any call: nothing is worse than before, and the next repair does it. */
static void test_repair_that_fails(Fixture *f, gconstpointer data)
{
    static const char *const calls[] = {"open", "pwrite", "fdatasync", "fsync", "rename", "link", "unlink", "mkdir"};
    static const char *const errors[] = {"ENOSPC", "EIO", "KILL"};
    int step = g_getenv("KILN_TEST_FLIPS") ? 1 : 41;
    g_autoptr(GPtrArray) files = scrub_files(f->path);
    g_autofree char *bad = g_build_filename(f->dir, "bad", NULL);

    scrub_copy(f->path, f->other);
    scrub_copy(f->path, bad);
    spoil(bad, files, 2);
    for (size_t i = 0; i < G_N_ELEMENTS(calls) * G_N_ELEMENTS(errors); i += step > 1 ? 5 : 1)
        for (int n = 1; n < 3000; n += n < 40 ? step : step * 37) {
            g_autofree char *fault = g_strdup_printf("%s:%d:%s:once", calls[i / 3], n, errors[i % 3]);
            g_auto(StoreFsckReport) report = {0};
            int status;
            pid_t child;

            scrub_copy(bad, f->work);
            if ((child = fork()) == 0) {
                g_auto(StoreFsckReport) own = {0};
                StoreFsckOptions options = {.read_data = true, .repair = true};
                g_autoptr(Store) store = NULL;

                (void)store_open(f->other, STORE_OPEN_READONLY, &options.from, NULL);
                g_setenv("KILN_TEST_FAIL", fault, TRUE);
                io_fault_reload();
                if (!store_open(f->work, 0, &store, NULL))
                    _exit(1);
                status = store_fsck_with(store, &options, &own, NULL) && own.problems->len == 0 ? 0 : 1;
                store_close(g_steal_pointer(&store));
                _exit(status);
            }
            g_assert_true(waitpid(child, &status, 0) == child);
            repair(f->work, f->other, &report);
            if (report.problems->len)
                g_printerr("# %s: %s\n", fault, (char *)report.problems->pdata[0]);
            g_assert_cmpuint(report.problems->len, ==, 0);
            assert_clean(f->work);
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && n > 200)
                break;
        }
}

int main(int argc, char **argv)
{
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/scrub/" name, Fixture, NULL, set_up, fn, tear_down)
    ADD("reads-everything", test_reads_everything);
    ADD("subsets-are-all", test_subsets_are_all);
    ADD("rate-is-kept", test_rate);
    ADD("goes-on-behind-what-it-verified", test_goes_on);
    ADD("flipped-bits-are-named", test_flips);
    ADD("damage-is-mapped", test_damage_is_mapped);
    ADD("missing-files-are-mapped", test_missing_files_are_mapped);
    ADD("databases-from-before-get-checks", test_old_databases);
    ADD("repair-from-a-copy", test_repair_from_copy);
    ADD("repair-from-blocks-of-another-store", test_repair_from_blocks);
    ADD("repair-by-images-of-another-store", test_repair_by_images);
    ADD("repair-alone", test_repair_alone);
    ADD("repair-of-half-a-segment", test_repair_half_a_segment);
    ADD("repair-that-fails", test_repair_that_fails);
    return g_test_run();
}
