/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gc takes what nothing reaches and nothing else; fsck finds what is wrong.
 */
#include "tests/unit/store-support.h"

#include "store/store.h"

#include "base/file.h"

#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define B STORE_BLOCK_SIZE
#define MIB (1024 * 1024)

typedef struct Fixture {
    char *dir, *path;
    Store *store;
} Fixture;

static void set_up(Fixture *f, gconstpointer data)
{
    f->dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    f->path = g_build_filename(f->dir, "store", NULL);
    f->store = test_store_open(f->path, STORE_OPEN_CREATE);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    store_close(f->store);
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
    g_free(f->path);
}

static void make_map(Store *store, BlockClass class, uint64_t seed, Digest *ret)
{
    g_autofree uint8_t *bytes = g_malloc(MIB);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    MapResult result;

    test_noise(bytes, MIB, seed);
    g_assert_true(store_writer_open(store, class, &writer, NULL) && map_writer_new(writer, MIB, NULL, &map, NULL) &&
                  map_writer_write(map, 0, bytes, MIB, NULL) && map_writer_finish(map, NULL) && store_writer_commit(writer, NULL));
    map_writer_result(map, &result);
    *ret = result.digest;
}

static void publish(Store *store, const char *name, const Digest *map)
{
    g_autoptr(StoreImage) image = store_image_new("disk", name);
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    StoreSet set = { .name = name, .images = images };

    g_assert_true(store_blob_put(store, name, strlen(name), &image->id, NULL));
    image->map = *map;
    g_ptr_array_add(images, image);
    store_publish(store, &set, &error);
    g_assert_no_error(error);
}

static void put_state(Store *store, const char *key, uint64_t seed)
{
    g_autoptr(StoreState) state = store_state_new();

    digest_of_string(key, &state->key);
    make_map(store, BLOCK_PRIVATE, seed, &state->map);
    g_assert_true(store_state_put(store, state, NULL));
}

static bool has_state(Store *store, const char *key)
{
    g_autoptr(StoreState) state = NULL;
    Digest digest;

    digest_of_string(key, &digest);
    g_assert_true(store_state_get(store, &digest, &state, NULL));
    return state != NULL;
}

static StoreGcReport collect(Store *store, StoreGcOptions options)
{
    g_autoptr(GError) error = NULL;
    StoreGcReport report = { 0 };

    store_gc(store, &options, &report, &error);
    g_assert_no_error(error);
    return report;
}

static guint count_problems(Store *store, bool read_data)
{
    g_autoptr(GPtrArray) problems = NULL;
    g_autoptr(GError) error = NULL;

    store_fsck(store, read_data, &problems, &error);
    g_assert_no_error(error);
    for (guint i = 0; i < problems->len; i++)
        g_test_message("%s", (char *)problems->pdata[i]);
    return problems->len;
}

static int64_t stat_of(Store *store, const char *key)
{
    g_autoptr(json_t) stats = NULL;

    g_assert_true(store_stats(store, &stats, NULL));
    return json_integer_value(json_object_get(stats, key));
}

static void remove_named(Store *store, const char *name)
{
    g_autoptr(StoreImage) image = NULL;

    g_assert_true(store_resolve(store, name, NULL, &image, NULL) && store_remove_image(store, image, NULL));
}

static void assert_readable(Store *store, const Digest *digest, uint64_t seed)
{
    g_autofree uint8_t *wanted = g_malloc(MIB), *got = g_malloc(MIB);
    g_autoptr(StoreMap) map = NULL;

    test_noise(wanted, MIB, seed);
    g_assert_true(store_map_open(store, digest, &map, NULL) && store_map_pread(map, got, MIB, 0, NULL));
    g_assert_cmpint(memcmp(wanted, got, MIB), ==, 0);
}

static void test_removed_image(Fixture *f, gconstpointer data)
{
    StoreGcReport report;
    Digest one, two, config;

    make_map(f->store, BLOCK_PUBLIC, 1, &one);
    make_map(f->store, BLOCK_PUBLIC, 2, &two);
    publish(f->store, "one", &one);
    publish(f->store, "two", &two);
    (void)collect(f->store, (StoreGcOptions){ .grace = 0 }); /* blobs of the ledger that a later one has taken in */
    report = collect(f->store, (StoreGcOptions){ .grace = 0 });
    g_assert_cmpuint(report.segments_removed + report.blobs_removed, ==, 0);
    remove_named(f->store, "one");
    report = collect(f->store, (StoreGcOptions){ .grace = 0, .dry_run = true });
    g_assert_cmpuint(report.segments_removed, ==, 1);
    g_assert_cmpint(stat_of(f->store, "segments"), ==, 2);
    report = collect(f->store, (StoreGcOptions){ .grace = 0 });
    g_assert_cmpuint(report.segments_removed, ==, 1);
    digest_of_string("one", &config);
    g_assert_false(store_blob_has(f->store, &one) || store_blob_has(f->store, &config));
    g_assert_cmpuint(report.blobs_removed, >=, 2); /* and what the ledger took in */
    g_assert_cmpuint(report.bytes_freed, >, MIB);
    assert_readable(f->store, &two, 2);
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
    /* Gone bytes are stored anew, not found in a stale index. */
    make_map(f->store, BLOCK_PUBLIC, 1, &one);
    assert_readable(f->store, &one, 1);
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
}

static void test_grace(Fixture *f, gconstpointer data)
{
    StoreGcReport report;
    Digest map;

    make_map(f->store, BLOCK_PUBLIC, 1, &map);
    report = collect(f->store, (StoreGcOptions){ .grace = -1 });
    g_assert_cmpuint(report.segments_removed, ==, 0);
    assert_readable(f->store, &map, 1);
    /* Marked by that run, it is not offered any more: the same bytes come again, and are kept by what refers to them. */
    make_map(f->store, BLOCK_PUBLIC, 1, &map);
    publish(f->store, "one", &map);
    report = collect(f->store, (StoreGcOptions){ .grace = 0 });
    assert_readable(f->store, &map, 1);
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
}

/* What another process has committed under a lease stays until that process has published it or is gone. */
static void test_lease(Fixture *f, gconstpointer data)
{
    int to_child[2], to_parent[2];
    StoreGcReport report;
    char byte;
    pid_t pid;
    int status;
    Digest map;

    g_assert_true(pipe(to_child) == 0 && pipe(to_parent) == 0);
    pid = fork();
    if (pid == 0) {
        Store *own = test_store_open(f->path, 0);

        make_map(own, BLOCK_PUBLIC, 5, &map);
        g_assert_cmpint(write(to_parent[1], &map, sizeof(map)), ==, sizeof(map));
        g_assert_cmpint(read(to_child[0], &byte, 1), ==, 1);
        raise(SIGKILL);
    }
    g_assert_cmpint(read(to_parent[0], &map, sizeof(map)), ==, sizeof(map));
    report = collect(f->store, (StoreGcOptions){ .grace = 0 });
    g_assert_cmpuint(report.segments_removed + report.blobs_removed, ==, 0);
    assert_readable(f->store, &map, 5);
    g_assert_cmpint(write(to_child[1], "x", 1), ==, 1);
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    report = collect(f->store, (StoreGcOptions){ .grace = 0 });
    g_assert_cmpuint(report.segments_removed, ==, 1);
}

static void test_states(Fixture *f, gconstpointer data)
{
    StoreGcReport report;

    put_state(f->store, "a", 1);
    put_state(f->store, "b", 2);
    put_state(f->store, "c", 3);
    report = collect(f->store, (StoreGcOptions){ .grace = 0 });
    g_assert_cmpuint(report.segments_removed, ==, 0);
    report = collect(f->store, (StoreGcOptions){ .grace = 0, .state_quota = 2 * MIB + MIB / 2 });
    g_assert_cmpuint(report.segments_removed, ==, 1);
    g_assert_cmpint(has_state(f->store, "a") + has_state(f->store, "b") + has_state(f->store, "c"), ==, 2);
    report = collect(f->store, (StoreGcOptions){ .grace = 0, .drop_states = true });
    g_assert_cmpuint(report.segments_removed, ==, 2);
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
}

/* A memo that keeps a blob of 1 MiB which does not compress. */
static void put_memo(Store *store, const char *key, uint64_t seed, Digest *ret_blob)
{
    g_autofree uint8_t *bytes = g_malloc(MIB);

    test_noise(bytes, MIB, seed);
    g_assert_true(store_blob_put(store, bytes, MIB, ret_blob, NULL) && store_memo_put(store, key, "value", ret_blob, NULL, NULL));
}

static bool has_memo(Store *store, const char *key)
{
    g_autofree char *value = NULL;

    g_assert_true(store_memo_get(store, key, &value, NULL));
    return value != NULL;
}

/* As if the memo had last been asked for @seconds ago. */
static void age_memo(Fixture *f, const char *key, int64_t seconds)
{
    g_autofree char *path = g_build_filename(f->path, "catalog.db", NULL), *sql = NULL;
    sqlite3 *handle = NULL;

    sql = g_strdup_printf("UPDATE memo SET used = used - %" G_GINT64_FORMAT " WHERE key = '%s'", seconds, key);
    g_assert_cmpint(sqlite3_open(path, &handle), ==, SQLITE_OK);
    g_assert_cmpint(sqlite3_exec(handle, sql, NULL, NULL, NULL), ==, SQLITE_OK);
    g_assert_cmpint(sqlite3_changes(handle), ==, 1);
    sqlite3_close(handle);
}

static StoreGcReport collect_memos(Fixture *f, StoreMemoRule rule)
{
    return collect(f->store, (StoreGcOptions){ .grace = 0, .memo_rules = &rule, .memo_rule_count = 1 });
}

static void test_memo_quota(Fixture *f, gconstpointer data)
{
    StoreGcReport report;
    uint64_t count, bytes;
    Digest blob;

    put_memo(f->store, "package:a", 1, &blob);
    put_memo(f->store, "package:b", 2, &blob);
    put_memo(f->store, "package:c", 3, &blob);
    put_memo(f->store, "other:d", 4, &blob);
    age_memo(f, "package:a", 3 * 86400);
    age_memo(f, "package:b", 2 * 86400);
    age_memo(f, "package:c", 1 * 86400);
    g_assert_true(store_memo_usage(f->store, "package:", &count, &bytes, NULL));
    g_assert_cmpuint(count, ==, 3);
    g_assert_cmpuint(bytes, ==, 3 * MIB);
    report = collect_memos(f, (StoreMemoRule){ .prefix = "package:", .quota = 3 * MIB });
    g_assert_cmpuint(report.memos_removed, ==, 0);
    g_assert_true(has_memo(f->store, "package:a")); /* which makes it the one that was needed last */
    report = collect_memos(f, (StoreMemoRule){ .prefix = "package:", .quota = 2 * MIB + MIB / 2 });
    g_assert_cmpuint(report.memos_removed, ==, 1);
    g_assert_cmpuint(report.blobs_removed, ==, 1);
    g_assert_cmpuint(report.bytes_freed, ==, MIB);
    g_assert_false(has_memo(f->store, "package:b"));
    g_assert_true(has_memo(f->store, "package:a") && has_memo(f->store, "package:c") && has_memo(f->store, "other:d"));
    report = collect_memos(f, (StoreMemoRule){ .prefix = "package:", .quota = 1 });
    g_assert_cmpuint(report.blobs_removed, ==, 2);
    g_assert_true(has_memo(f->store, "other:d"));
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
}

static void test_memo_of_a_set(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) image = store_image_new("disk", "one");
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    g_autoptr(GHashTable) inputs = g_hash_table_new(g_str_hash, g_str_equal);
    StoreSet set = { .name = "one", .images = images, .inputs = inputs };
    StoreGcReport report;
    Digest blob;

    put_memo(f->store, "package:a", 1, &blob);
    g_assert_true(store_blob_put(f->store, "one", 3, &image->id, NULL));
    make_map(f->store, BLOCK_PUBLIC, 1, &image->map);
    g_ptr_array_add(images, image);
    g_hash_table_insert(inputs, (char *)"a.deb", &blob);
    g_assert_true(store_publish(f->store, &set, NULL));
    report = collect_memos(f, (StoreMemoRule){ .prefix = "package:", .quota = 1 });
    g_assert_cmpuint(report.memos_removed, ==, 1);
    g_assert_cmpuint(report.blobs_removed, ==, 0);
    g_assert_true(store_blob_has(f->store, &blob));
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
}

static void test_memo_age(Fixture *f, gconstpointer data)
{
    const StoreMemoRule rule = { .prefix = "", .max_age = 90 * 86400.0 };
    StoreGcReport report;
    Digest blob;

    put_memo(f->store, "release:old", 1, &blob);
    put_memo(f->store, "release:asked", 2, &blob);
    put_memo(f->store, "resolve:young", 3, &blob);
    age_memo(f, "release:old", 91 * 86400);
    age_memo(f, "release:asked", 91 * 86400);
    age_memo(f, "resolve:young", 89 * 86400);
    g_assert_true(has_memo(f->store, "release:asked"));
    report = collect(f->store, (StoreGcOptions){ .grace = 0, .dry_run = true, .memo_rules = &rule, .memo_rule_count = 1 });
    g_assert_cmpuint(report.memos_removed, ==, 1);
    g_assert_cmpint(stat_of(f->store, "memos"), ==, 3);
    report = collect_memos(f, rule);
    g_assert_cmpuint(report.memos_removed, ==, 1);
    g_assert_false(has_memo(f->store, "release:old"));
    g_assert_cmpint(stat_of(f->store, "memos"), ==, 2);
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
}

/* The store is $S. */
static void shell(Fixture *f, const char *command)
{
    g_setenv("S", f->path, TRUE);
    g_assert_cmpint(system(command), ==, 0);
}

static void reopen(Fixture *f)
{
    store_close(f->store);
    f->store = test_store_open(f->path, 0);
}

static void test_fsck_finds(Fixture *f, gconstpointer data)
{
    Digest map;

    make_map(f->store, BLOCK_PUBLIC, 1, &map);
    publish(f->store, "one", &map);
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
    shell(f, "cd \"$S\"/segments; for f in */*; do mv $f $f.away; mv $f.away ../away; done");
    g_assert_cmpuint(count_problems(f->store, false), >, 0);
    shell(f, "cd \"$S\"/segments; for d in *; do mv ../away $d/$(sha256sum < ../away | cut -d' ' -f1); break; done");
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
    shell(f, "cd \"$S\"/segments; for f in */*; do truncate -s -1 $f; done");
    reopen(f);
    g_assert_cmpuint(count_problems(f->store, false), >, 0);
}

static char *only_segment(Fixture *f)
{
    g_autofree char *pattern = g_build_filename(f->path, "segments/*/*", NULL);
    glob_t found;
    char *path;

    g_assert_cmpint(glob(pattern, 0, NULL, &found), ==, 0);
    g_assert_cmpuint(found.gl_pathc, ==, 1);
    path = g_strdup(found.gl_pathv[0]);
    globfree(&found);
    return path;
}

/* Turns one bit over, @part/@whole into the file; twice is as before. */
static void flip(const char *path, int part, int whole)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    off_t size = lseek(fd, 0, SEEK_END), at = MIN(size - 1, size * part / whole);
    uint8_t byte;

    g_assert_cmpint(pread(fd, &byte, 1, at), ==, 1);
    byte ^= (uint8_t)(1 << part % 8);
    g_assert_cmpint(pwrite(fd, &byte, 1, at), ==, 1);
    close(fd);
}

/* Any single changed bit of a segment is found. */
static void test_bit_flips(Fixture *f, gconstpointer data)
{
    g_autofree char *path = NULL;
    Digest map;
    int misses = 0;

    make_map(f->store, BLOCK_PUBLIC, 1, &map);
    reopen(f);
    path = only_segment(f);
    for (int i = 0; i <= 20; i++) {
        flip(path, i, 20);
        reopen(f);
        misses += count_problems(f->store, true) == 0;
        flip(path, i, 20);
    }
    g_assert_cmpint(misses, ==, 0);
    reopen(f);
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
}

/* A catalog that lost its newest rows: the files are whole, so they come back. */
static void test_adopt(Fixture *f, gconstpointer data)
{
    Digest one, two;

    make_map(f->store, BLOCK_PUBLIC, 1, &one);
    store_close(f->store);
    shell(f, "cd \"$S\" && cp catalog.db old.db");
    f->store = test_store_open(f->path, 0);
    make_map(f->store, BLOCK_PUBLIC, 2, &two);
    store_close(f->store);
    shell(f, "cd \"$S\" && mv old.db catalog.db");
    f->store = test_store_open(f->path, 0);
    g_assert_cmpint(stat_of(f->store, "segments"), ==, 1);
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
    g_assert_cmpint(stat_of(f->store, "segments"), ==, 2);
    publish(f->store, "two", &two);
    assert_readable(f->store, &two, 2);
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
}

/* Bytes that are what their name says are nobody's half-written file, whatever this kiln makes of them. */
static void test_later_segment(Fixture *f, gconstpointer data)
{
    shell(f, "cd \"$S\"/segments; echo later >x; s=$(sha256sum <x | cut -d' ' -f1); mkdir -p ${s%${s#??}}; mv x ${s%${s#??}}/$s");
    shell(f, "cd \"$S\"/segments; mkdir -p 00; echo half >00/$(printf %064d 0)");
    g_assert_cmpuint(count_problems(f->store, true), ==, 0);
    shell(f, "cd \"$S\"/segments; grep -q later */* && ! grep -q half */*");
}

int main(int argc, char **argv)
{
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/upkeep/" name, Fixture, NULL, set_up, fn, tear_down)
    ADD("gc-takes-a-removed-image", test_removed_image);
    ADD("grace-keeps-young-bytes", test_grace);
    ADD("lease-keeps-until-its-process-ends", test_lease);
    ADD("states-obey-their-quota", test_states);
    ADD("memos-obey-the-quota-of-their-class", test_memo_quota);
    ADD("what-a-set-refers-to-outlives-its-memo", test_memo_of_a_set);
    ADD("memos-that-nobody-asks-for-go", test_memo_age);
    ADD("fsck-finds-missing-and-cut-segments", test_fsck_finds);
    ADD("fsck-finds-every-changed-bit", test_bit_flips);
    ADD("files-without-rows-are-adopted", test_adopt);
    ADD("segments-of-a-later-kiln-are-left-alone", test_later_segment);
    return g_test_run();
}
