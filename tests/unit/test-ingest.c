/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks taken in by many threads, over parents and as overlays: the result is the same as without any of it. And what comes out of a store
 * is the same bytes, whatever came in before.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/ingest.h"
#include "store/map-private.h"
#include "store/store.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK ((size_t)STORE_BLOCK_SIZE)
#define DISK_BLOCKS 3000u
#define DISK_SIZE (DISK_BLOCKS * BLOCK + 512 * 3)

typedef StoreFixture Fixture;

/* Text that compresses, noise that does not, zero blocks, blocks that are there twice, an odd end. */
static uint8_t *make_disk(uint64_t seed)
{
    uint8_t *disk = g_malloc0(DISK_SIZE);

    for (size_t block = 0; block < DISK_BLOCKS; block++) {
        uint8_t *at = disk + block * BLOCK;

        if (block % 97 < 9 || (block > 1000 && block < 1300))
            continue;
        if (block % 50 == 49)
            memcpy(at, at - 20 * BLOCK, BLOCK);
        else if (block > 2000)
            test_noise(at, BLOCK, seed * 1000003 + block);
        else
            for (size_t i = 0; i < BLOCK; i++)
                at[i] = (uint8_t)("the quick brown fox "[i % 20] + (i >> 9) + block * 7 + seed);
    }
    memset(disk + 440, 0, 72);
    disk[446 + 4] = 0x83;
    disk[510] = 0x55;
    disk[511] = 0xaa;
    disk[DISK_SIZE - 1] = 0x7e;
    return disk;
}

/* A night: every 40th block is another one, some moved, some gone. */
static uint8_t *make_night(const uint8_t *before)
{
    uint8_t *disk = g_memdup2(before, DISK_SIZE);

    for (size_t block = 7; block < DISK_BLOCKS; block += 40)
        test_noise(disk + block * BLOCK, BLOCK, block);
    memcpy(disk + 1100 * BLOCK, before + 300 * BLOCK, 100 * BLOCK);
    memset(disk + 500 * BLOCK, 0, 37 * BLOCK);
    return disk;
}

static char *file_of(const Fixture *f, const char *name, const void *data, size_t size)
{
    char *path = g_build_filename(f->dir, name, NULL);

    g_assert_true(g_file_set_contents(path, data, (gssize)size, NULL));
    return path;
}

static bool import(Store *store, const char *path, StoreMap *parent, const char *base, MapResult *ret, uint64_t *ret_new, GError **error)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;

    if (!store_writer_open(store, BLOCK_PUBLIC, &writer, error) || !disk_import_over(store, writer, path, path, parent, base, &map, error) ||
        !store_writer_commit(writer, error))
        return false;
    map_writer_result(map, ret);
    *ret_new = store_writer_new_bytes(writer);
    return true;
}

static StoreMap *import_bytes(const Fixture *f, const uint8_t *disk, StoreMap *parent, MapResult *ret)
{
    g_autofree char *path = file_of(f, "disk.raw", disk, DISK_SIZE);
    g_autoptr(GError) error = NULL;
    StoreMap *map = NULL;
    uint64_t added;

    (void)import(f->store, path, parent, NULL, ret, &added, &error);
    g_assert_no_error(error);
    g_assert_true(store_map_open(f->store, &ret->digest, &map, NULL));
    return map;
}

static GBytes *export(const Fixture *f, StoreMap *map, DiskForm form)
{
    g_autofree char *path = g_build_filename(f->dir, "out", NULL);
    g_autoptr(GError) error = NULL;
    GBytes *bytes = NULL;

    (void)disk_export(map, form, path, &error);
    g_assert_no_error(error);
    g_assert_true(file_load(AT_FDCWD, path, 64u << 20, &bytes, NULL));
    return bytes;
}

static void assert_holds(StoreMap *map, const uint8_t *disk)
{
    g_autofree uint8_t *back = g_malloc(DISK_SIZE);

    g_assert_cmpuint(store_map_size(map), ==, DISK_SIZE);
    g_assert_true(store_map_pread(map, back, DISK_SIZE, 0, NULL));
    g_assert_cmpmem(back, DISK_SIZE, disk, DISK_SIZE);
    memset(back, 0xaa, DISK_SIZE);
    g_assert_true(store_map_pread_once(map, back, DISK_SIZE, 0, NULL));
    g_assert_cmpmem(back, DISK_SIZE, disk, DISK_SIZE);
}

/* --- threads --- */

static void test_threads(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = make_disk(1);
    g_autoptr(StoreMap) many = NULL, one = NULL;
    Fixture other = {0};
    cpu_set_t before, single;
    MapResult a, b;

    many = import_bytes(f, disk, NULL, &a);
    assert_holds(many, disk);
    g_assert_cmpint(sched_getaffinity(0, sizeof before, &before), ==, 0);
    CPU_ZERO(&single);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&single) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &single);
    g_assert_cmpint(sched_setaffinity(0, sizeof single, &single), ==, 0);
    store_fixture_setup(&other, NULL);
    one = import_bytes(&other, disk, NULL, &b);
    g_assert_cmpint(sched_setaffinity(0, sizeof before, &before), ==, 0);
    assert_holds(one, disk);
    /* The map names its segments by the digests of their bytes. */
    g_assert_true(digest_equal(&a.digest, &b.digest));
    g_clear_pointer(&one, store_map_unref);
    store_fixture_teardown(&other, NULL);
}

/* --- parents --- */

static void test_parent(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = make_disk(2), *night = make_night(disk);
    g_autoptr(StoreMap) first = NULL, over = NULL, alone = NULL;
    Fixture other = {0};
    MapResult result, with, without;

    first = import_bytes(f, disk, NULL, &result);
    over = import_bytes(f, night, first, &with);
    assert_holds(first, disk);
    assert_holds(over, night);
    store_fixture_setup(&other, NULL);
    alone = import_bytes(&other, night, NULL, &without);
    g_assert_true(digest_equal(&with.content, &without.content));
    g_assert_cmpuint(with.data_bytes, ==, without.data_bytes);
    g_clear_pointer(&alone, store_map_unref);
    store_fixture_teardown(&other, NULL);
}

static void test_unchanged(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = make_disk(3);
    g_autofree char *path = file_of(f, "again.raw", disk, DISK_SIZE);
    g_autoptr(StoreMap) first = NULL;
    MapResult before, after;
    uint64_t added;

    first = import_bytes(f, disk, NULL, &before);
    g_assert_true(import(f->store, path, first, NULL, &after, &added, NULL));
    g_assert_true(digest_equal(&before.digest, &after.digest));
    g_assert_cmpuint(added, ==, 0);
    g_assert_true(import(f->store, path, NULL, NULL, &after, &added, NULL));
    g_assert_true(digest_equal(&before.content, &after.content));
    g_assert_cmpuint(added, ==, 0);
}

/* --- ranges --- */

typedef struct Source {
    const uint8_t *bytes;
    uint64_t bad; /* reads that touch this byte fail */
    GString *seen;
} Source;

static bool read_source(void *buf, size_t size, uint64_t offset, void *arg, GError **error)
{
    const Source *source = arg;

    if (source->bad >= offset && source->bad < offset + size)
        return fail(error, "the source has a bad place");
    memcpy(buf, source->bytes + offset, size);
    return true;
}

static bool see(const void *data, size_t size, uint64_t offset, void *arg, GError **error)
{
    Source *source = arg;

    g_assert_cmpmem(data, size, source->bytes + offset, size);
    g_string_append_printf(source->seen, "%s%" G_GUINT64_FORMAT, source->seen->len ? " " : "", offset / BLOCK);
    return offset < 2800 * BLOCK || fail(error, "that is not to be seen");
}

typedef struct Taking {
    StoreWriter *writer;
    MapWriter *map;
    Ingest *ingest;
} Taking;

static void taking_clear(Taking *t)
{
    ingest_free(t->ingest);
    map_writer_free(t->map);
    store_writer_free(t->writer);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Taking, taking_clear)

static void taking_init(Taking *t, const Fixture *f, StoreMap *parent, Source *source)
{
    g_assert_true(store_writer_open(f->store, BLOCK_PUBLIC, &t->writer, NULL));
    g_assert_true(map_writer_new(t->writer, DISK_SIZE, parent, &t->map, NULL));
    t->ingest = ingest_new(t->map, read_source, source);
}

static void test_order(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = make_disk(4);
    g_autoptr(GString) seen = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    Source source = {disk, UINT64_MAX, seen};
    g_auto(Taking) t = {0};

    taking_init(&t, f, NULL, &source);
    ingest_set_seen(t.ingest, see, &source);
    g_assert_true(ingest_range(t.ingest, 32 * BLOCK, 200 * BLOCK, 32 * BLOCK, NULL));
    g_assert_true(ingest_range(t.ingest, 700 * BLOCK, BLOCK, 700 * BLOCK, NULL));
    g_assert_true(ingest_finish(t.ingest, NULL));
    g_assert_cmpstr(seen->str, ==, "32 64 128 192 700");
    g_assert_false(ingest_range(t.ingest, 2700 * BLOCK, 300 * BLOCK, 2700 * BLOCK, &error) && ingest_finish(t.ingest, &error));
    g_assert_cmpstr(error->message, ==, "that is not to be seen");
}

static void test_bad_source(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = make_disk(5);
    g_autoptr(GError) error = NULL;
    Source source = {disk, 1999 * BLOCK, NULL};
    g_auto(Taking) t = {0};

    taking_init(&t, f, NULL, &source);
    g_assert_false(ingest_range(t.ingest, 0, DISK_SIZE, 0, &error) && ingest_finish(t.ingest, &error));
    g_assert_cmpstr(error->message, ==, "the source has a bad place");
}

static void test_check(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = make_disk(6);
    g_autoptr(StoreMap) parent = NULL;
    g_autoptr(GError) error = NULL;
    Source source = {disk, UINT64_MAX, NULL};
    g_auto(Taking) good = {0}, bad = {0};
    MapResult before, after;

    parent = import_bytes(f, disk, NULL, &before);
    taking_init(&good, f, parent, &source);
    g_assert_true(ingest_check(good.ingest, 0, DISK_SIZE, 0, NULL) && ingest_finish(good.ingest, NULL));
    g_assert_true(map_writer_finish(good.map, NULL) && store_writer_commit(good.writer, NULL));
    map_writer_result(good.map, &after);
    g_assert_true(digest_equal(&before.digest, &after.digest));
    disk[2222 * BLOCK + 5] ^= 1;
    taking_init(&bad, f, parent, &source);
    g_assert_false(ingest_check(bad.ingest, 0, DISK_SIZE, 0, &error) && ingest_finish(bad.ingest, &error));
    g_assert_nonnull(strstr(error->message, "the block at 9101312 is not what the parent has there"));
}

/* --- overlays --- */

static void run(const char *const *argv)
{
    ProcessSpec spec = {.argv = argv};
    g_autoptr(GError) error = NULL;
    int code = -1;

    (void)process_run(&spec, &code, &error);
    g_assert_no_error(error);
    g_assert_cmpint(code, ==, 0);
}

/* @night as a qcow2 over @base, with the clusters of 4 KiB that differ. */
static char *make_overlay(const Fixture *f, const char *base, const uint8_t *night)
{
    g_autofree char *full = file_of(f, "night.raw", night, DISK_SIZE);
    char *overlay = g_build_filename(f->dir, "night.qcow2", NULL);
    const char *create[] = {"qemu-img", "create", "-q", "-f", "qcow2", "-b", full, "-F", "raw", "-o", "cluster_size=4k", overlay, NULL};
    const char *rebase[] = {"qemu-img", "rebase", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay, NULL};

    run(create);
    run(rebase);
    return overlay;
}

static void test_overlay(Fixture *f, gconstpointer data)
{
    g_autofree char *qemu = g_find_program_in_path("qemu-img"), *base = NULL, *overlay = NULL, *wrong = NULL;
    g_autofree uint8_t *disk = make_disk(7), *night = make_night(disk);
    g_autoptr(StoreMap) parent = NULL, back = NULL;
    g_autoptr(GError) error = NULL;
    MapResult first, over, whole;
    uint64_t added;

    if (!qemu) {
        g_test_skip("no qemu-img");
        return;
    }
    base = file_of(f, "base.raw", disk, DISK_SIZE);
    parent = import_bytes(f, disk, NULL, &first);
    overlay = make_overlay(f, base, night);
    g_assert_true(import(f->store, overlay, parent, NULL, &over, &added, &error));
    g_assert_no_error(error);
    g_assert_true(store_map_open(f->store, &over.digest, &back, NULL));
    assert_holds(back, night);
    g_assert_true(import(f->store, overlay, parent, base, &whole, &added, NULL));
    g_assert_true(digest_equal(&over.digest, &whole.digest));

    g_assert_false(import(f->store, overlay, NULL, NULL, &whole, &added, &error));
    g_assert_nonnull(strstr(error->message, "backing file"));
    g_clear_error(&error);
    disk[900 * BLOCK] ^= 1;
    wrong = file_of(f, "wrong.raw", disk, DISK_SIZE);
    g_assert_false(import(f->store, overlay, parent, wrong, &whole, &added, &error));
    g_assert_nonnull(strstr(error->message, "the block at 3686400 is not what the parent has there"));
    g_clear_error(&error);
    g_assert_false(import(f->store, base, parent, base, &whole, &added, &error));
    g_assert_nonnull(strstr(error->message, "is no overlay"));
}

/* --- histories --- */

static void assert_same_files(const Fixture *a, StoreMap *one, const Fixture *b, StoreMap *other, DiskForm last)
{
    for (DiskForm form = DISK_RAW; form <= last; form++) {
        g_autoptr(GBytes) left = export(a, one, form), right = export(b, other, form);

        g_assert_cmpuint(g_bytes_get_size(left), ==, g_bytes_get_size(right));
        g_assert_true(g_bytes_equal(left, right));
    }
}

/* The same disk alone; after another one; block by block, backwards. */
static void test_histories(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = make_disk(8), *night = make_night(disk);
    g_autoptr(StoreMap) alone = NULL, day = NULL, after = NULL, pieces = NULL;
    Fixture second = {0}, third = {0};
    Source source = {night, UINT64_MAX, NULL};
    MapResult result;

    alone = import_bytes(f, night, NULL, &result);
    store_fixture_setup(&second, NULL);
    day = import_bytes(&second, disk, NULL, &result);
    after = import_bytes(&second, night, day, &result);
    assert_same_files(f, alone, &second, after, DISK_GCE);
    store_fixture_setup(&third, NULL);
    {
        g_auto(Taking) t = {0};

        taking_init(&t, &third, NULL, &source);
        for (size_t block = DISK_BLOCKS + 1; block-- > 0;)
            g_assert_true(ingest_range(t.ingest, block * BLOCK, MIN(BLOCK, DISK_SIZE - block * BLOCK), block * BLOCK, NULL));
        g_assert_true(ingest_finish(t.ingest, NULL) && map_writer_finish(t.map, NULL) && store_writer_commit(t.writer, NULL));
        map_writer_result(t.map, &result);
    }
    g_assert_true(store_map_open(third.store, &result.digest, &pieces, NULL));
    assert_same_files(f, alone, &third, pieces, DISK_QCOW2);
    g_clear_pointer(&pieces, store_map_unref);
    g_clear_pointer(&after, store_map_unref);
    g_clear_pointer(&day, store_map_unref);
    store_fixture_teardown(&third, NULL);
    store_fixture_teardown(&second, NULL);
}

/* Does something to the head of each frame that the map uses, in the file. */
static unsigned each_frame(const Fixture *f, StoreMap *map, void (*change)(uint8_t *frame, uint32_t size))
{
    unsigned count = 0;

    for (guint i = 0; i < store_map_body(map)->segments->len; i++) {
        const Digest *digest = &g_array_index(store_map_body(map)->segments, Digest, i);
        char hex[DIGEST_HEX_SIZE];
        g_autofree char *path = NULL;
        auto_fd int fd = -1;
        Segment *segment;

        g_assert_true(store_map_segment(map, i, &segment, NULL));
        (void)digest_to_hex(digest, hex);
        path = g_strdup_printf("%s/segments/%.2s/%s", store_path(f->store), hex, hex);
        fd = open(path, O_RDWR | O_CLOEXEC);
        g_assert_cmpint(fd, >=, 0);
        for (uint32_t frame = 0; frame < segment_frames(segment); frame++, count++) {
            const SegmentEntry *entry = segment_entry(segment, frame);
            g_autofree uint8_t *bytes = g_malloc(entry->size);

            g_assert_true(file_pread_full(fd, bytes, entry->size, entry->offset, "segment", NULL));
            change(bytes, entry->size);
            g_assert_true(file_pwrite_full(fd, bytes, entry->size, entry->offset, "segment", NULL));
        }
    }
    return count;
}

static void other_engine(uint8_t *frame, uint32_t size)
{
    g_assert_true(frame[14] || frame[15]);
    frame[14] = frame[15] = 0;
}

static void flip_payload(uint8_t *frame, uint32_t size)
{
    frame[size - 9] ^= 4;
}

/* Frames of another libzstd are not taken over; here they are the same bytes, so the file is, too. */
static void test_engine(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *disk = make_disk(9);
    g_autoptr(GBytes) taken = NULL, made = NULL;
    g_autoptr(StoreMap) map = NULL;
    MapResult result;

    map = import_bytes(f, disk, NULL, &result);
    taken = export(f, map, DISK_QCOW2);
    g_assert_cmpuint(each_frame(f, map, other_engine), >, 30);
    made = export(f, map, DISK_QCOW2);
    g_assert_true(g_bytes_equal(taken, made));
}

static void test_damage(Fixture *f, gconstpointer data)
{
    g_autofree char *path = g_build_filename(f->dir, "out", NULL);
    g_autofree uint8_t *disk = make_disk(10);
    g_autoptr(StoreMap) map = NULL;
    MapResult result;

    map = import_bytes(f, disk, NULL, &result);
    (void)each_frame(f, map, flip_payload);
    for (DiskForm form = DISK_RAW; form <= DISK_GCE; form++) {
        g_autoptr(GError) error = NULL;

        g_assert_false(disk_export(map, form, path, &error));
        g_assert_nonnull(strstr(error->message, "is damaged"));
        g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    }
}

static void test_qemu_agrees(Fixture *f, gconstpointer data)
{
    g_autofree char *qemu = g_find_program_in_path("qemu-img"), *raw = NULL, *out = g_build_filename(f->dir, "x.qcow2", NULL);
    g_autofree uint8_t *disk = make_disk(11), *night = make_night(disk);
    g_autoptr(StoreMap) first = NULL, second = NULL;
    g_autoptr(GError) error = NULL;
    MapResult result;

    if (!qemu) {
        g_test_skip("no qemu-img");
        return;
    }
    first = import_bytes(f, disk, NULL, &result);
    second = import_bytes(f, night, first, &result);
    raw = file_of(f, "night.raw", night, DISK_SIZE);
    g_assert_true(disk_export(second, DISK_QCOW2, out, &error));
    run((const char *[]){"qemu-img", "check", "-q", out, NULL});
    run((const char *[]){"qemu-img", "compare", "-q", raw, out, NULL});
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*fn)(Fixture *, gconstpointer);
    } tests[] = {
        {"/ingest/segments-do-not-depend-on-threads", test_threads},
        {"/ingest/over-a-parent-is-as-alone", test_parent},
        {"/ingest/an-unchanged-disk-adds-nothing", test_unchanged},
        {"/ingest/bytes-are-seen-in-order", test_order},
        {"/ingest/a-bad-source-ends-it", test_bad_source},
        {"/ingest/what-should-be-unchanged-is-checked", test_check},
        {"/ingest/an-overlay-is-as-the-whole-disk", test_overlay},
        {"/export/history-does-not-show", test_histories},
        {"/export/frames-of-another-libzstd-give-the-same", test_engine},
        {"/export/damage-is-an-error", test_damage},
        {"/export/qemu-reads-what-was-taken-over", test_qemu_agrees},
    };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].name, Fixture, NULL, store_fixture_setup, tests[i].fn, store_fixture_teardown);
    return g_test_run();
}
