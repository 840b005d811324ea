/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gc gets dead blocks out of segments that are still needed, and nobody who reads notices.
 */
#include "store/store.h"

#include "base/error.h"
#include "store/fragments.h"
#include "store/io.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define B STORE_BLOCK_SIZE
#define BLOCKS 256
#define MIB (1u << 20)

typedef struct Disk {
    uint32_t seeds[2048]; /* of each block */
    unsigned blocks;
    Digest map;
    char name[32];
} Disk;

static void fill_block(uint8_t *to, uint32_t seed)
{
    test_noise(to, B, (uint64_t)seed + 1);
}

static void write_map(Store *store, Disk *disk, BlockClass class)
{
    g_autofree uint8_t *bytes = g_malloc((size_t)disk->blocks * B);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    g_autoptr(GError) error = NULL;
    MapResult result;

    for (unsigned i = 0; i < disk->blocks; i++)
        fill_block(bytes + (size_t)i * B, disk->seeds[i]);
    (void)(store_writer_open(store, class, &writer, &error) && map_writer_new(writer, (uint64_t)disk->blocks * B, NULL, &map, &error) &&
           map_writer_write(map, 0, bytes, (size_t)disk->blocks * B, &error) && map_writer_finish(map, &error) &&
           store_writer_commit(writer, &error));
    g_assert_no_error(error);
    map_writer_result(map, &result);
    disk->map = result.digest;
}

static void publish(Store *store, Disk *disk, const char *name)
{
    g_autoptr(StoreImage) image = store_image_new("disk", name);
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    StoreSet set = {.name = name, .images = images};

    g_strlcpy(disk->name, name, sizeof(disk->name));
    write_map(store, disk, BLOCK_PUBLIC);
    g_assert_true(store_blob_put(store, &disk->map, sizeof(disk->map), &image->id, NULL));
    image->map = disk->map;
    g_ptr_array_add(images, image);
    (void)store_publish(store, &set, &error);
    g_assert_no_error(error);
}

/* Blocks [first, first + count) as @from has them, the others its own. */
static void make_disk(Disk *disk, uint32_t seed, const Disk *from, unsigned first, unsigned count)
{
    *disk = (Disk){.blocks = BLOCKS};
    for (unsigned i = 0; i < BLOCKS; i++)
        disk->seeds[i] = from && i >= first && i < first + count ? from->seeds[i] : seed * 10000 + i;
}

static void check_map(StoreMap *map, const Disk *disk)
{
    g_autofree uint8_t *got = g_malloc((size_t)disk->blocks * B);
    g_autoptr(GError) error = NULL;
    uint8_t want[B];

    (void)store_map_pread(map, got, (size_t)disk->blocks * B, 0, &error);
    g_assert_no_error(error);
    for (unsigned i = 0; i < disk->blocks; i++) {
        fill_block(want, disk->seeds[i]);
        g_assert_cmpint(memcmp(want, got + (size_t)i * B, B), ==, 0);
    }
}

static void check_disk(Store *store, const Disk *disk)
{
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;

    (void)store_map_open(store, &disk->map, &map, &error);
    g_assert_no_error(error);
    check_map(map, disk);
}

static void remove_disk(Store *store, const Disk *disk)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;

    (void)(store_resolve(store, disk->name, NULL, &image, &error) && store_remove_image(store, image, &error));
    g_assert_no_error(error);
}

static StoreGcReport collect(Store *store)
{
    g_autoptr(GError) error = NULL;
    StoreGcReport report = {0};

    (void)store_gc(store, &(StoreGcOptions){.grace = 0}, &report, &error);
    g_assert_no_error(error);
    return report;
}

static void assert_clean(Store *store)
{
    g_autoptr(GPtrArray) problems = NULL;

    g_assert_true(store_fsck(store, true, &problems, NULL));
    for (guint i = 0; i < problems->len; i++)
        g_test_message("%s", (char *)problems->pdata[i]);
    g_assert_cmpuint(problems->len, ==, 0);
}

static int64_t segment_bytes(Store *store)
{
    g_autoptr(json_t) stats = NULL;

    g_assert_true(store_stats(store, &stats, NULL));
    return json_integer_value(json_object_get(json_object_get(stats, "bytes"), "segments"));
}

static void reopen(StoreFixture *f)
{
    g_autofree char *path = g_strdup(store_path(f->store));
    g_autoptr(GError) error = NULL;

    store_close(g_steal_pointer(&f->store));
    (void)store_open(path, 0, &f->store, &error);
    g_assert_no_error(error);
}

static void test_shared(StoreFixture *f, gconstpointer data)
{
    Disk a, b, again;
    StoreGcReport report;
    int64_t before;

    make_disk(&a, 1, NULL, 0, 0);
    make_disk(&b, 2, &a, 10, 64);
    publish(f->store, &a, "a");
    publish(f->store, &b, "b");
    before = segment_bytes(f->store);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 0);
    remove_disk(f->store, &a);
    report = collect(f->store);
    g_assert_cmpuint(report.segments_repacked, ==, 1);
    g_assert_cmpint(before - segment_bytes(f->store), >, (BLOCKS - 64) * B);
    g_assert_cmpuint(report.bytes_freed, >=, (uint64_t)(before - segment_bytes(f->store)));
    check_disk(f->store, &b);
    assert_clean(f->store);
    reopen(f);
    check_disk(f->store, &b);
    /* What went comes anew, what stayed is found where it is now. */
    before = segment_bytes(f->store);
    make_disk(&again, 1, NULL, 0, 0);
    publish(f->store, &again, "again");
    g_assert_cmpint(segment_bytes(f->store) - before, <, (BLOCKS - 64) * B + 100000);
    check_disk(f->store, &again);
    check_disk(f->store, &b);
    assert_clean(f->store);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 0);
}

/* What was repacked is repacked again: the first name leads to the last place. */
static void test_twice(StoreFixture *f, gconstpointer data)
{
    Disk a, b, c;

    make_disk(&a, 1, NULL, 0, 0);
    make_disk(&b, 2, &a, 0, 100);
    make_disk(&c, 3, &a, 50, 20);
    publish(f->store, &a, "a");
    publish(f->store, &b, "b");
    publish(f->store, &c, "c");
    remove_disk(f->store, &a);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 1);
    check_disk(f->store, &b);
    check_disk(f->store, &c);
    remove_disk(f->store, &b);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 1);
    check_disk(f->store, &c);
    assert_clean(f->store);
    reopen(f);
    check_disk(f->store, &c);
    remove_disk(f->store, &c);
    (void)collect(f->store);
    g_assert_cmpint(segment_bytes(f->store), ==, 0);
    assert_clean(f->store);
}

/* Maps that were opened before, with and without their segments, in this and in another store object. */
static void test_readers(StoreFixture *f, gconstpointer data)
{
    g_autoptr(StoreMap) cold = NULL, warm = NULL, other_cold = NULL, other_warm = NULL;
    g_autoptr(Store) other = NULL;
    Disk a, b, c;

    make_disk(&a, 1, NULL, 0, 0);
    make_disk(&b, 2, &a, 0, 100);
    make_disk(&c, 3, &b, 0, 10);
    publish(f->store, &a, "a");
    publish(f->store, &b, "b");
    g_assert_true(store_open(store_path(f->store), STORE_OPEN_READONLY | STORE_OPEN_NO_CATALOG, &other, NULL));
    g_assert_true(store_map_open(f->store, &b.map, &cold, NULL) && store_map_open(f->store, &b.map, &warm, NULL) &&
                  store_map_open(other, &b.map, &other_cold, NULL) && store_map_open(other, &b.map, &other_warm, NULL));
    check_map(warm, &b);
    check_map(other_warm, &b);
    remove_disk(f->store, &a);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 1);
    check_map(warm, &b);
    check_map(other_warm, &b);
    check_map(other_cold, &b);
    /* And once more, after the first table was read. */
    publish(f->store, &c, "c");
    remove_disk(f->store, &b);
    g_assert_cmpuint(collect(f->store).segments_repacked, >=, 1);
    check_disk(other, &c);
    check_disk(f->store, &c);
    assert_clean(f->store);
}

static void run(StoreFixture *f, const char *command)
{
    g_setenv("S", store_path(f->store), TRUE);
    g_assert_cmpint(system(command), ==, 0);
}

/* The file of a repacked segment comes again, as a copy from another store would bring it. */
static void test_comes_back(StoreFixture *f, gconstpointer data)
{
    g_autoptr(StoreMap) before = NULL;
    Disk a, b, c;

    make_disk(&a, 1, NULL, 0, 0);
    make_disk(&b, 2, &a, 0, 100);
    publish(f->store, &a, "a");
    run(f, "cd \"$S\"/segments && for f in */*; do cp $f ../../first; echo $f >../../name; done");
    publish(f->store, &b, "b");
    remove_disk(f->store, &a);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 1);
    g_assert_true(store_map_open(f->store, &b.map, &before, NULL));
    check_map(before, &b);
    run(f, "cd \"$S\"/segments && cp ../../first $(cat ../../name)");
    assert_clean(f->store); /* which adopts it */
    check_map(before, &b);
    /* Used again, and repacked again. */
    make_disk(&c, 3, &a, 150, 50);
    publish(f->store, &c, "c");
    for (int i = 0; i < 3; i++) {
        (void)collect(f->store);
        check_map(before, &b);
        check_disk(f->store, &b);
        check_disk(f->store, &c);
        assert_clean(f->store);
    }
    reopen(f);
    check_disk(f->store, &b);
    check_disk(f->store, &c);
    g_assert_cmpint(segment_bytes(f->store), <, (2 * BLOCKS + 20) * B);
}

/* A damaged table is a sentence, not other bytes; and such a store is collected all the same. */
static void test_damaged_table(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) problems = NULL;
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;
    uint8_t block[B];
    Disk a, b;

    make_disk(&a, 1, NULL, 0, 0);
    make_disk(&b, 2, &a, 0, 100);
    publish(f->store, &a, "a");
    publish(f->store, &b, "b");
    remove_disk(f->store, &a);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 1);
    run(f, "cd \"$S\"/segments && for f in */*.moved; do printf X | dd of=$f bs=1 seek=70 conv=notrunc status=none; done");
    reopen(f);
    g_assert_true(store_map_open(f->store, &b.map, &map, NULL));
    g_assert_false(store_map_pread(map, block, B, 0, &error));
    g_assert_nonnull(strstr(error->message, "damaged"));
    g_assert_true(store_fsck(f->store, false, &problems, NULL));
    g_assert_cmpuint(problems->len, >, 0);
    remove_disk(f->store, &b);
    (void)collect(f->store);
    g_assert_cmpint(segment_bytes(f->store), ==, 0);
    assert_clean(f->store);
}

static void write_when_told(StoreFixture *f, Disk *disk, int from, int to)
{
    g_autofree uint8_t *bytes = g_malloc((size_t)disk->blocks * B);
    MapResult result;
    StoreWriter *writer;
    MapWriter *map;
    Store *own;
    char byte;

    (void)alarm(60); /* it does not outlive a test that failed */
    g_assert_true(store_open(store_path(f->store), 0, &own, NULL) && store_writer_open(own, BLOCK_PUBLIC, &writer, NULL));
    g_assert_cmpint(write(to, "x", 1), ==, 1);
    g_assert_cmpint(read(from, &byte, 1), ==, 1);
    for (unsigned i = 0; i < disk->blocks; i++)
        fill_block(bytes + (size_t)i * B, disk->seeds[i]);
    g_assert_true(map_writer_new(writer, (uint64_t)disk->blocks * B, NULL, &map, NULL) &&
                  map_writer_write(map, 0, bytes, (size_t)disk->blocks * B, NULL) && map_writer_finish(map, NULL) &&
                  store_writer_commit(writer, NULL));
    map_writer_result(map, &result);
    g_assert_cmpint(write(to, &result.digest, sizeof(Digest)), ==, sizeof(Digest));
    (void)!read(from, &byte, 1);
    _exit(0);
}

/* b and c keep some of a's blocks; a and b are published. */
static void make_three(Store *store, Disk *a, Disk *b, Disk *c)
{
    make_disk(a, 1, NULL, 0, 0);
    make_disk(b, 2, a, 0, 64);
    make_disk(c, 3, a, 100, 100);
    publish(store, a, "a");
    publish(store, b, "b");
}

/* A writer that began when dead blocks were still offered may go on and refer to them. */
static void test_writer(StoreFixture *f, gconstpointer data)
{
    int to_child[2], to_parent[2], status;
    Disk a, b, c;
    char byte;
    pid_t pid;

    make_three(f->store, &a, &b, &c);
    remove_disk(f->store, &a);
    /* The map of a goes; its segment is as if too young to be measured. */
    test_catalog_sql(f->store, "UPDATE segment SET created = created + 1000000000000000");
    (void)store_gc(f->store, &(StoreGcOptions){.grace = 1e-6}, &(StoreGcReport){0}, NULL);
    test_catalog_sql(f->store, "UPDATE segment SET created = created - 1000000000000000");
    g_assert_true(pipe(to_child) == 0 && pipe(to_parent) == 0);
    pid = fork();
    if (pid == 0)
        write_when_told(f, &c, to_child[0], to_parent[1]);
    g_assert_cmpint(read(to_parent[0], &byte, 1), ==, 1);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 0);
    g_assert_cmpint(write(to_child[1], "x", 1), ==, 1);
    g_assert_cmpint(read(to_parent[0], &c.map, sizeof(Digest)), ==, sizeof(Digest));
    check_disk(f->store, &c);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 0);
    check_disk(f->store, &c);
    g_assert_true(store_memo_put(f->store, "c", "c", NULL, &c.map, NULL));
    g_assert_cmpint(write(to_child[1], "x", 1), ==, 1);
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 1);
    check_disk(f->store, &b);
    check_disk(f->store, &c);
    assert_clean(f->store);
}

/* What another process may still need is waited for. */
static void test_lease(StoreFixture *f, gconstpointer data)
{
    int to_child[2], to_parent[2], status;
    Disk a, b, c;
    char byte;
    pid_t pid;

    make_three(f->store, &a, &b, &c);
    g_assert_true(pipe(to_child) == 0 && pipe(to_parent) == 0);
    pid = fork();
    if (pid == 0) {
        Store *own = NULL;
        StoreLease *lease = NULL;

        (void)alarm(60);
        g_assert_true(store_open(store_path(f->store), 0, &own, NULL) && store_lease_take(own, "test", &lease, NULL));
        g_assert_cmpint(write(to_parent[1], "x", 1), ==, 1);
        g_assert_cmpint(read(to_child[0], &byte, 1), ==, 1);
        _exit(0);
    }
    g_assert_cmpint(read(to_parent[0], &byte, 1), ==, 1);
    remove_disk(f->store, &a);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 0);
    /* Under a lease: nothing of a has gone; but it is not offered any more. */
    publish(f->store, &c, "c");
    g_assert_cmpint(write(to_child[1], "x", 1), ==, 1);
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    for (int i = 0; i < 3; i++)
        (void)collect(f->store);
    check_disk(f->store, &b);
    check_disk(f->store, &c);
    g_assert_cmpint(segment_bytes(f->store), <, (2 * BLOCKS + 20) * B);
    assert_clean(f->store);
}

static void run_killed(const char *path, const char *fault)
{
    Store *own = NULL;
    StoreGcReport report;

    g_setenv("KILN_TEST_FAIL", fault, TRUE);
    if (!store_open(path, 0, &own, NULL))
        _exit(2);
    io_fault_reload();
    (void)store_gc(own, &(StoreGcOptions){.grace = 0}, &report, NULL);
    _exit(0);
}

/* A gc that ends at the @n-th call of a kind. True when it came that far. */
static bool gc_killed(StoreFixture *f, const char *call, unsigned n)
{
    g_autofree char *fault = g_strdup_printf("%s:%u:KILL", call, n), *path = g_strdup(store_path(f->store));
    int status;
    pid_t pid;

    store_close(g_steal_pointer(&f->store));
    pid = fork();
    if (pid == 0)
        run_killed(path, fault);
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(store_open(path, 0, &f->store, NULL));
    return !WIFEXITED(status);
}

/* An image whose only segment name stands for a table, which is to be written anew. */
static void make_chain(Store *store, const Disk *shared, uint32_t *fresh, Disk *ret)
{
    Disk a, b;

    make_disk(&a, ++*fresh, shared, 0, 50);
    make_disk(&b, ++*fresh, &a, 60, 100);
    make_disk(ret, ++*fresh, &b, 80, 30);
    publish(store, &a, "a");
    publish(store, &b, "b");
    remove_disk(store, &a);
    g_assert_cmpuint(collect(store).segments_repacked, ==, 1);
    publish(store, ret, "c");
    remove_disk(store, &b);
}

/* From one place to the next where gc is killed: an odd number here, so that somebody else is there at every second one. */
static unsigned kill_step(bool often)
{
    bool all = g_getenv("KILN_TEST_POINTS") != NULL; /* tests/long/92-store-crash.sh */

    return often ? (all ? 4 : 13) : all ? 1 : 3;
}

static void kill_everywhere(StoreFixture *f, const char *call, const Disk *kept, const Disk *shared, uint32_t *fresh, unsigned *points)
{
    for (unsigned n = 1, killed = 1; killed; n += kill_step(strcmp(call, "pwrite") == 0)) {
        g_autoptr(Store) other = NULL;
        Disk b;

        make_chain(f->store, shared, fresh, &b);
        /* With somebody else there nobody recovers. */
        g_assert_true(n % 2 || store_open(store_path(f->store), STORE_OPEN_READONLY | STORE_OPEN_NO_CATALOG, &other, NULL));
        killed = gc_killed(f, call, n);
        *points += killed;
        check_disk(f->store, &b);
        check_disk(f->store, kept);
        check_disk(f->store, shared);
        assert_clean(f->store);
        (void)collect(f->store);
        (void)collect(f->store);
        check_disk(f->store, &b);
        check_disk(f->store, kept);
        check_disk(f->store, shared);
        assert_clean(f->store);
        g_assert_cmpint(segment_bytes(f->store), <, (3 * BLOCKS + 100) * B);
        remove_disk(f->store, &b);
        g_assert_cmpuint(n, <, 100);
    }
}

static void test_killed(StoreFixture *f, gconstpointer data)
{
    static const char *const calls[] = {"rename", "unlink", "fsync", "fdatasync", "pwrite", NULL};
    Disk first, kept, shared;
    unsigned points = 0;
    uint32_t fresh = 10;

    make_disk(&first, 1, NULL, 0, 0);
    make_disk(&shared, 2, &first, 0, 100);
    make_disk(&kept, 3, &shared, 20, 60);
    publish(f->store, &first, "first");
    publish(f->store, &shared, "shared");
    publish(f->store, &kept, "kept");
    remove_disk(f->store, &first);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 1); /* so there are tables that are written again */
    for (const char *const *call = calls; *call; call++) {
        kill_everywhere(f, *call, &kept, &shared, &fresh, &points);
        g_test_message("killed at %u places, %s the last", points, *call);
    }
    g_assert_cmpuint(points, >, g_getenv("KILN_TEST_POINTS") ? 15 : 7);
}

/* Killed when the file of one of two segments has gone, and nobody recovers: what was copied is held until its table says so. */
static void test_killed_between(StoreFixture *f, gconstpointer data)
{
    uint32_t fresh = 10;
    unsigned points = 0;

    for (unsigned n = 1, killed = 1; killed; n += kill_step(false)) {
        g_autoptr(Store) other = NULL;
        Disk a, b, c;

        make_disk(&a, ++fresh, NULL, 0, 0);
        make_disk(&b, ++fresh, NULL, 0, 0);
        make_disk(&c, ++fresh, &a, 0, 90);
        for (unsigned i = 100; i < 200; i++)
            c.seeds[i] = b.seeds[i];
        publish(f->store, &a, "a");
        publish(f->store, &b, "b");
        publish(f->store, &c, "c");
        remove_disk(f->store, &a);
        remove_disk(f->store, &b);
        g_assert_true(store_open(store_path(f->store), STORE_OPEN_READONLY | STORE_OPEN_NO_CATALOG, &other, NULL));
        killed = gc_killed(f, "unlink", n);
        points += killed;
        for (int i = 0; i < 2; i++) {
            (void)collect(f->store);
            check_disk(f->store, &c);
        }
        assert_clean(f->store);
        remove_disk(f->store, &c);
        g_assert_cmpuint(n, <, 100);
    }
    g_assert_cmpuint(points, >, g_getenv("KILN_TEST_POINTS") ? 5 : 1);
}

/* --- lost catalogs, and files that a power cut brings back --- */

static StoreImage *resolve_record(Store *store, const Disk *disk)
{
    StoreImage *image = NULL;
    char oci[DIGEST_OCI_SIZE];
    Digest id;

    digest_of(&disk->map, sizeof(disk->map), &id);
    g_assert_true(store_resolve_record(store, digest_to_oci(&id, oci), NULL, &image, NULL));
    return image;
}

/* Two disks under one name; of the second one's blocks some are in the first one's segment, which is repacked when the first is let go. */
static void prune_and_repack(Store *store, Disk *gone, Disk *left)
{
    g_autoptr(GPtrArray) verdicts = NULL;

    make_disk(gone, 1, NULL, 0, 0);
    make_disk(left, 2, gone, 10, 64);
    publish(store, gone, "web");
    publish(store, left, "web");
    g_assert_true(store_prune(store, "web", &(StoreRetention){1, -1, -1, -1}, false, &verdicts, NULL));
    g_assert_cmpuint(collect(store).segments_repacked, ==, 1);
}

static void test_lost_catalog(StoreFixture *f, gconstpointer data)
{
    g_autofree char *path = g_strdup(store_path(f->store));
    g_autoptr(GPtrArray) notes = NULL;
    g_autoptr(StoreImage) image = NULL, record = NULL;
    g_autoptr(GError) error = NULL;
    int64_t went;
    Disk a, b;

    prune_and_repack(f->store, &a, &b);
    image = resolve_record(f->store, &a);
    went = image->bytes_gone;
    g_assert_cmpint(went, >, 0);
    run(f, "rm \"$S\"/catalog.db*");
    store_close(g_steal_pointer(&f->store));
    store_rebuild(path, &notes, &error);
    g_assert_no_error(error);
    g_assert_true(store_open(path, 0, &f->store, NULL));
    check_disk(f->store, &b);
    assert_clean(f->store);
    record = resolve_record(f->store, &a);
    g_assert_cmpint(record->bytes_gone, ==, went);
    /* What the table points at is needed by a name that no segment has: gc knows. */
    (void)collect(f->store);
    check_disk(f->store, &b);
    assert_clean(f->store);
}

static bool is_dead(Store *store, const Digest *blob)
{
    g_autofree char *path = g_build_filename(store_path(store), "catalog.db", NULL);
    g_autofree char *sql = NULL;
    char hex[DIGEST_HEX_SIZE];
    sqlite3_stmt *query = NULL;
    sqlite3 *handle = NULL;
    bool dead;

    sql = g_strdup_printf("SELECT dead FROM blob WHERE digest = x'%s'", digest_to_hex(blob, hex));
    g_assert_cmpint(sqlite3_open(path, &handle), ==, SQLITE_OK);
    g_assert_cmpint(sqlite3_prepare_v2(handle, sql, -1, &query, NULL), ==, SQLITE_OK);
    g_assert_cmpint(sqlite3_step(query), ==, SQLITE_ROW);
    dead = sqlite3_column_int64(query, 0) != 0;
    sqlite3_finalize(query);
    sqlite3_close(handle);
    return dead;
}

/* A power cut brings back the file of a map, after its segment was repacked without what it needs. */
static void test_map_comes_back(StoreFixture *f, gconstpointer data)
{
    Disk a, b;

    make_disk(&a, 1, NULL, 0, 0);
    make_disk(&b, 2, &a, 10, 64);
    publish(f->store, &a, "a");
    run(f, "cp -r \"$S\"/blobs \"$S\"/../blobs-before");
    publish(f->store, &b, "b");
    remove_disk(f->store, &a);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 1);
    run(f, "cp -rn \"$S\"/../blobs-before/. \"$S\"/blobs");
    assert_clean(f->store); /* which adopts it */
    g_assert_true(is_dead(f->store, &a.map));
    check_disk(f->store, &b);
    (void)collect(f->store);
    g_assert_false(store_blob_has(f->store, &a.map));
    check_disk(f->store, &b);
    assert_clean(f->store);
}

/* The rows of a repacking that was not committed are lost, its tables are there: maps that come back with them are whole. */
static void test_rows_are_lost(StoreFixture *f, gconstpointer data)
{
    g_autofree char *sql = NULL;
    char hex[DIGEST_HEX_SIZE];
    Disk a, b;

    make_disk(&a, 1, NULL, 0, 0);
    make_disk(&b, 2, &a, 10, 64);
    publish(f->store, &a, "a");
    publish(f->store, &b, "b");
    remove_disk(f->store, &a);
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 1);
    digest_to_hex(&b.map, hex);
    sql = g_strdup_printf("DELETE FROM moved; DELETE FROM blob WHERE digest = x'%s'; DELETE FROM map_segment WHERE map = x'%s'", hex, hex);
    test_catalog_sql(f->store, sql);
    assert_clean(f->store); /* which adopts tables before maps */
    g_assert_false(is_dead(f->store, &b.map));
    (void)collect(f->store);
    check_disk(f->store, &b);
    assert_clean(f->store);
}

/* --- copies --- */

static StoreSyncReport sync_to(StoreFixture *f, const char *to)
{
    g_autofree char *path = g_build_filename(f->dir, to, NULL);
    g_autoptr(GError) error = NULL;
    StoreSyncReport report = {0};

    (void)store_sync_all(f->store, path, &report, &error);
    g_assert_no_error(error);
    return report;
}

static Store *open_copy(StoreFixture *f, const char *name)
{
    g_autofree char *path = g_build_filename(f->dir, name, NULL);
    g_autoptr(GError) error = NULL;
    Store *store = NULL;

    (void)store_open(path, 0, &store, &error);
    g_assert_no_error(error);
    return store;
}

static void test_copy(StoreFixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(Store) copy = NULL;
    StoreSyncReport report;
    Disk a, b;

    prune_and_repack(f->store, &a, &b);
    report = sync_to(f, "copy");
    g_assert_cmpuint(report.segments, >, 0);
    copy = open_copy(f, "copy");
    check_disk(copy, &b);
    assert_clean(copy);
    image = resolve_record(copy, &a);
    g_assert_cmpint(image->bytes_gone, >, 0);
    g_assert_cmpint(segment_bytes(copy), ==, segment_bytes(f->store));
    report = sync_to(f, "copy");
    g_assert_cmpuint(report.segments + report.blobs, ==, 0);
    (void)collect(copy);
    check_disk(copy, &b);
    assert_clean(copy);
}

/* The copy repacked the segment when there was less to keep; @data: and then the source did, for more. */
static void test_copy_repacked_twice(StoreFixture *f, gconstpointer data)
{
    bool source_too = GPOINTER_TO_INT(data);
    g_autoptr(Store) copy = NULL;
    Disk a, b, d;

    make_disk(&a, 1, NULL, 0, 0);
    make_disk(&b, 2, &a, 10, 64);
    d = (Disk){.blocks = 80}; /* all of it is in the segment of a */
    memcpy(d.seeds, a.seeds + 150, 80 * sizeof(d.seeds[0]));
    publish(f->store, &a, "a");
    publish(f->store, &b, "b");
    (void)sync_to(f, "copy");
    remove_disk(f->store, &a);
    (void)sync_to(f, "copy");
    copy = open_copy(f, "copy");
    g_assert_cmpuint(collect(copy).segments_repacked, ==, 1);
    check_disk(copy, &b);
    publish(f->store, &d, "d");
    g_assert_true(!source_too || collect(f->store).segments_repacked == 1);
    (void)sync_to(f, "copy");
    for (int i = 0; i < 3; i++) {
        check_disk(copy, &b);
        check_disk(copy, &d);
        assert_clean(copy);
        (void)collect(copy);
    }
    g_assert_cmpuint(sync_to(f, "copy").segments, ==, 0);
    store_close(g_steal_pointer(&copy));
    copy = open_copy(f, "copy");
    check_disk(copy, &b);
    check_disk(copy, &d);
    g_assert_cmpint(segment_bytes(copy), <, (2 * BLOCKS + 20) * B);
}

static const char *collected_meanwhile; /* the store, until it was */

static int open_and_collect(int dirfd, const char *name, int flags, mode_t mode)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", dirfd), *folder = g_file_read_link(link, NULL);
    const char *path = collected_meanwhile;
    int status;
    pid_t pid;

    if (path && strlen(name) == 64 && !(flags & O_CREAT) && folder && strstr(folder, "/segments/")) {
        collected_meanwhile = NULL;
        pid = fork();
        if (pid == 0) {
            StoreGcReport report;
            Store *own;

            _exit(store_open(path, 0, &own, NULL) && store_gc(own, &(StoreGcOptions){.grace = 0}, &report, NULL) &&
                  report.segments_repacked == 1 ? 0 : 1);
        }
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    return store_io_real()->open(dirfd, name, flags, mode);
}

/* Its segment is going to be repacked, which somebody's lease delays. */
static void leave_marked(StoreFixture *f, const Disk *gone)
{
    g_autoptr(Store) other = test_store_open(store_path(f->store), 0);
    StoreLease *lease = NULL;

    remove_disk(f->store, gone);
    test_catalog_sql(f->store, "UPDATE segment SET created = created + 1000000000000000");
    (void)store_gc(f->store, &(StoreGcOptions){.grace = 1e-6}, &(StoreGcReport){0}, NULL);
    test_catalog_sql(f->store, "UPDATE segment SET created = created - 1000000000000000");
    g_assert_true(store_lease_take(other, "test", &lease, NULL));
    g_assert_cmpuint(collect(f->store).segments_repacked, ==, 0);
    store_lease_release(lease);
}

/* A repacking that was decided before the copy began ends in its midst. */
static void test_copy_beside_repacking(StoreFixture *f, gconstpointer data)
{
    g_autofree char *path = g_strdup(store_path(f->store));
    StoreIo io = *store_io_real();
    g_autoptr(Store) copy = NULL;
    Disk a, b;

    make_disk(&a, 1, NULL, 0, 0);
    make_disk(&b, 2, &a, 10, 64);
    publish(f->store, &a, "a");
    publish(f->store, &b, "b");
    leave_marked(f, &a);
    reopen(f);
    collected_meanwhile = path;
    io.open = open_and_collect;
    store_io_set(&io);
    (void)sync_to(f, "copy");
    store_io_set(NULL);
    g_assert_null(collected_meanwhile);
    copy = open_copy(f, "copy");
    check_disk(copy, &b);
    check_disk(f->store, &b);
    assert_clean(copy);
    assert_clean(f->store);
}

/* --- nights --- */

#define NIGHTS 100
#define KEPT 10
#define DISK 512

static void next_night(Disk *disk, unsigned night)
{
    for (unsigned i = 0; i < DISK / 20; i++)
        disk->seeds[(night * 7919u + i * (i + night) * 31u) % DISK] = night * 10000 + i;
}

static void publish_nights(Store *store, Disk *disks)
{
    for (unsigned n = 0; n < NIGHTS; n++) {
        if (n)
            disks[n] = disks[n - 1];
        disks[n].blocks = DISK;
        for (unsigned i = 0; n == 0 && i < DISK; i++)
            disks[n].seeds[i] = i;
        next_night(&disks[n], n + 1);
        publish(store, &disks[n], "web");
    }
}

static void test_nights(StoreFixture *f, gconstpointer data)
{
    g_autofree Disk *disks = g_new0(Disk, NIGHTS);
    g_autofree char *path = g_build_filename(f->dir, "ideal", NULL);
    g_autoptr(GPtrArray) verdicts = NULL;
    g_autoptr(Store) ideal = NULL;
    StoreGcReport report;
    int64_t before, after, least;

    publish_nights(f->store, disks);
    /* What a store has that never held more than the nights that stay. */
    g_assert_true(store_open(path, STORE_OPEN_CREATE, &ideal, NULL));
    for (unsigned n = NIGHTS - KEPT; n < NIGHTS; n++) {
        Disk copy = disks[n];

        write_map(ideal, &copy, BLOCK_PUBLIC);
    }
    least = segment_bytes(ideal);
    before = segment_bytes(f->store);
    g_assert_true(store_prune(f->store, "web", &(StoreRetention){KEPT, -1, -1, -1}, false, &verdicts, NULL));
    report = collect(f->store);
    after = segment_bytes(f->store);
    g_test_message("%" G_GINT64_FORMAT " bytes before, %" G_GINT64_FORMAT " after, %" G_GINT64_FORMAT " needed: %.1f %% of what is dead came back; "
                   "%" G_GUINT64_FORMAT " segments went, %" G_GUINT64_FORMAT " were repacked", before, after, least,
                   100.0 * (double)(before - after) / (double)(before - least), report.segments_removed, report.segments_repacked);
    g_assert_cmpint((before - after) * 100, >=, (before - least) * 95);
    for (unsigned n = NIGHTS - KEPT; n < NIGHTS; n++)
        check_disk(f->store, &disks[n]);
    assert_clean(f->store);
}

/* --- order --- */

static uint64_t touched_per_hundred(Store *store, const Disk *disk)
{
    uint64_t touched, needed;

    g_assert_true(fragments_of_map(store, &disk->map, &touched, &needed, NULL));
    return touched * 100 / needed;
}

static uint64_t repack_within(Store *store, uint64_t budget)
{
    StoreGcReport report;

    g_assert_true(store_gc(store, &(StoreGcOptions){.grace = 0, .rewrite_budget = budget}, &report, NULL));
    g_assert_false(report.repack_failed);
    return report.segments_repacked;
}

/* All nights stay, so that every segment is needed whole; the newest image has blocks of each of them. */
static void test_order(StoreFixture *f, gconstpointer data)
{
    g_autofree Disk *disks = g_new0(Disk, NIGHTS);
    uint64_t before, after;
    int64_t bytes;

    publish_nights(f->store, disks);
    before = touched_per_hundred(f->store, &disks[NIGHTS - 1]);
    g_assert_cmpuint(before, >, 300);
    g_assert_cmpuint(repack_within(f->store, 1), ==, 0);
    bytes = segment_bytes(f->store);
    g_assert_cmpuint(repack_within(f->store, 2 * MIB), >, 0); /* some of it */
    after = touched_per_hundred(f->store, &disks[NIGHTS - 1]);
    g_assert_cmpuint(after, <, before);
    g_assert_cmpuint(repack_within(f->store, 0), >, 0);
    after = touched_per_hundred(f->store, &disks[NIGHTS - 1]);
    g_test_message("frames per hundred that are needed: %" G_GUINT64_FORMAT " before, %" G_GUINT64_FORMAT " after", before, after);
    g_assert_cmpuint(after, <=, 200);
    g_assert_cmpint(segment_bytes(f->store), <=, bytes + bytes / 50);
    for (unsigned n = 0; n < NIGHTS; n += 9)
        check_disk(f->store, &disks[n]);
    assert_clean(f->store);
    /* It had its turn. */
    g_assert_cmpuint(repack_within(f->store, 0), ==, 0);
}

int main(int argc, char **argv)
{
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_test_init(&argc, &argv, NULL);
#define ADD_WITH(name, with, fn) g_test_add("/repack/" name, StoreFixture, with, store_fixture_setup, fn, store_fixture_teardown)
#define ADD(name, fn) ADD_WITH(name, NULL, fn)
    ADD("dead-blocks-of-a-needed-segment-go", test_shared);
    ADD("tables-stay-one-hop-long", test_twice);
    ADD("readers-go-on", test_readers);
    ADD("files-may-come-back", test_comes_back);
    ADD("damaged-tables-are-told", test_damaged_table);
    ADD("older-writers-lose-nothing", test_writer);
    ADD("older-leases-are-waited-for", test_lease);
    ADD("killed-anywhere", test_killed);
    ADD("killed-between-two-files", test_killed_between);
    ADD("lost-catalogs-know-tables-again", test_lost_catalog);
    ADD("maps-that-come-back-are-buried", test_map_comes_back);
    ADD("maps-that-tables-serve-are-not", test_rows_are_lost);
    ADD("copies-have-the-tables", test_copy);
    ADD_WITH("copies-that-repacked-themselves", GINT_TO_POINTER(0), test_copy_repacked_twice);
    ADD_WITH("copies-that-repacked-as-well", GINT_TO_POINTER(1), test_copy_repacked_twice);
    ADD("copies-beside-a-repacking", test_copy_beside_repacking);
    ADD("ninety-of-a-hundred-nights", test_nights);
    ADD("newest-images-lie-in-a-row", test_order);
    return g_test_run();
}
