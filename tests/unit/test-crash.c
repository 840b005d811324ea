/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crashes: a recorded life of a store is cut off after each of its writes, and what a disk may hold then is opened again.
 *
 * Everything that was acknowledged before the cut must be whole: fsck reads every byte and is content, images and names resolve,
 * channel log and journals have all entries, what was removed stays away, and the store takes new images at once.
 * Nobody repairs anything by hand. What was under way may be there or not.
 *
 * KILN_TEST_POINTS=N checks about N points of each recording (default: what fits into a unit test), KILN_TEST_ROUNDS=N
 * kills N real processes at random times; with KILN_TEST_STOP the first wrong point ends it. A point that failed is made again by its numbers, which are printed.
 */
#include "tests/unit/store-support.h"
#include "tests/unit/crash-model-support.h"
#include "tests/unit/oci-image-support.h"

#include "base/error.h"
#include "base/file.h"
#include "store/store.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DISK_SIZE (96u << 10)
#define REOPEN_LIMIT_US G_USEC_PER_SEC

typedef struct Fixture {
    char *dir, *base, *store, *log, *out;
} Fixture;

static void set_up(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;

    g_assert_true(file_make_short_tmpdir(&f->dir, &error));
    f->base = g_build_filename(f->dir, "base", NULL);
    f->store = g_build_filename(f->base, "store", NULL);
    f->log = g_build_filename(f->dir, "log", NULL);
    f->out = g_build_filename(f->dir, "out", NULL);
    g_assert_cmpint(mkdir(f->base, 0755), ==, 0);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
    g_free(f->base);
    g_free(f->store);
    g_free(f->log);
    g_free(f->out);
}

static int number_from(const char *variable, int otherwise)
{
    const char *text = g_getenv(variable);

    return text ? MAX(1, atoi(text)) : otherwise;
}

/* --- what is acknowledged --- */

static GString *gone; /* lines of what was removed, in this process */

static bool add_images(Store *store, const char *without, GString *to)
{
    g_autoptr(GPtrArray) images = NULL, newest = NULL;
    char id[DIGEST_HEX_SIZE];

    if (!store_list_images(store, true, &images, NULL) || !store_list_images(store, false, &newest, NULL))
        return false;
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];

        digest_to_hex(&image->id, id);
        if (image->bytes_gone)
            g_string_append_printf(to, "pruned %s\n", id);
        else if (!without || !strstr(without, id))
            g_string_append_printf(to, "image %s %" G_GUINT64_FORMAT "\n", id, image->size);
    }
    for (guint i = 0; i < newest->len; i++) {
        const StoreImage *image = newest->pdata[i];

        digest_to_hex(&image->id, id);
        if (!without || !strstr(without, id))
            g_string_append_printf(to, "name %s/%s %s\n", image->name, image->kind, id);
    }
    return true;
}

static bool add_logs(Store *store, GString *to)
{
    g_autoptr(GPtrArray) entries = NULL, records = NULL;
    char hash[DIGEST_HEX_SIZE];

    if (!store_channels(store, NULL, true, &entries, NULL) || !store_journal_read(store, NULL, 0, &records, NULL))
        return false;
    for (guint i = 0; i < entries->len; i++) {
        const StoreChannelEntry *entry = entries->pdata[i];

        g_string_append_printf(to, "entry %" G_GINT64_FORMAT " %s\n", entry->number, digest_to_hex(&entry->hash, hash));
    }
    for (guint i = 0; i < records->len; i++) {
        const StoreJournalRecord *record = records->pdata[i];

        g_string_append_printf(to, "record %" G_GINT64_FORMAT " %s\n", record->number, digest_to_hex(&record->hash, hash));
    }
    return true;
}

/* All that the store holds now is acknowledged. @without: IDs of images that are about to go, or NULL. */
static void mark(Store *store, const char *without)
{
    g_autoptr(GString) text = g_string_new("store\n");

    if (!add_images(store, without, text) || !add_logs(store, text))
        return; /* a disk that fails: what was acknowledged before stands */
    if (gone)
        g_string_append(text, gone->str);
    crash_record_mark(text->str);
}

/* --- a life --- */

/* A third noise of its own, a third noise that all versions share, a third nothing. */
static uint8_t *make_disk(unsigned version)
{
    uint8_t *disk = g_malloc0(DISK_SIZE);

    test_noise(disk, DISK_SIZE / 3, 1);
    test_noise(disk + DISK_SIZE / 3 * 2, DISK_SIZE / 3, 100 + version);
    memset(disk + 446, 0, 64); /* a partition table */
    disk[446 + 4] = 0x83;
    disk[510] = 0x55;
    disk[511] = 0xaa;
    return disk;
}

static bool write_disk(Store *store, BlockClass class, const uint8_t *disk, Digest *ret, GError **error)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    MapResult result;

    if (!store_writer_open(store, class, &writer, error) || !map_writer_new(writer, DISK_SIZE, NULL, &map, error) ||
        !map_writer_write(map, 0, disk, DISK_SIZE, error) || !map_writer_finish(map, error) || !store_writer_commit(writer, error))
        return false;
    map_writer_result(map, &result);
    *ret = result.digest;
    return true;
}

static bool write_map(Store *store, BlockClass class, unsigned version, Digest *ret, GError **error)
{
    g_autofree uint8_t *disk = make_disk(version);

    return write_disk(store, class, disk, ret, error);
}

static bool import_map(Store *store, const char *path, Digest *ret, GError **error)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    MapResult result;

    if (!store_writer_open(store, BLOCK_PUBLIC, &writer, error) || !disk_import_file(store, writer, path, path, &map, error) ||
        !store_writer_commit(writer, error))
        return false;
    map_writer_result(map, &result);
    *ret = result.digest;
    return true;
}

static bool publish_map(Store *store, const char *name, unsigned version, const Digest *map, GError **error)
{
    g_autofree char *config = g_strdup_printf("{\"name\":\"%s\",\"version\":%u}", name, version), *input = g_strdup_printf("input %u", version);
    g_autoptr(GHashTable) inputs = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(StoreImage) image = store_image_new("disk", name);
    g_autoptr(json_t) provenance = json_pack("{s:i}", "version", (int)version);
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    StoreSet set = {.name = name, .images = images, .inputs = inputs, .provenance = provenance};
    Digest blob;

    if (!store_blob_put(store, config, strlen(config), &image->id, error) || !store_blob_put(store, input, strlen(input), &blob, error))
        return false;
    image->map = *map;
    image->size = DISK_SIZE;
    g_ptr_array_add(images, image);
    g_hash_table_insert(inputs, (char *)"template", &blob);
    return store_publish(store, &set, error);
}

static bool publish(Store *store, const char *name, unsigned version, GError **error)
{
    Digest map;

    return write_map(store, BLOCK_PUBLIC, version, &map, error) && publish_map(store, name, version, &map, error);
}

static bool promote(Store *store, const char *name, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;
    StorePromotion promotion = {.name = name, .channel = "prod"};

    if (!store_resolve_set(store, name, &images, error))
        return false;
    promotion.images = images;
    return store_promote(store, &promotion, NULL, error);
}

static bool append(Store *store, const char *group, const char *holds, GError **error)
{
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    g_autoptr(GArray) held = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(StoreJournal) journal = NULL;
    g_autoptr(StoreImage) image = NULL;

    if (!store_resolve(store, holds, "disk", &image, error) || !store_journal_open(store, group, false, &journal, error))
        return false;
    g_array_append_val(held, image->id);
    for (int i = 0; i < 2; i++)
        g_ptr_array_add(records, json_pack("{s:s, s:i}", "do", "step", "n", i));
    return store_journal_append(journal, records, held, error);
}

/* Noise of its own but for the first @shared blocks, which all such disks have. */
static bool publish_sharing(Store *store, const char *name, unsigned version, unsigned shared, GError **error)
{
    g_autofree uint8_t *disk = g_malloc(DISK_SIZE);
    size_t common = (size_t)shared * STORE_BLOCK_SIZE;
    Digest map;

    test_noise(disk, DISK_SIZE, 200 + version);
    if (common)
        test_noise(disk, common, 199);
    return write_disk(store, BLOCK_PUBLIC, disk, &map, error) && publish_map(store, name, version, &map, error);
}

static bool put_state(Store *store, unsigned version, GError **error)
{
    StoreState state = {0};

    digest_of(&version, sizeof(version), &state.key);
    state.content = state.key;
    return write_map(store, BLOCK_PRIVATE, version, &state.map, error) && store_state_put(store, &state, error) &&
           store_memo_put(store, "memo:map", "value", NULL, &state.map, error);
}

static bool remove_image(Store *store, const char *name, GError **error)
{
    g_autoptr(StoreImage) image = NULL;
    char id[DIGEST_HEX_SIZE];

    if (!store_resolve(store, name, "disk", &image, error))
        return false;
    mark(store, digest_to_hex(&image->id, id));
    if (!store_remove_image(store, image, error))
        return false;
    gone = gone ? gone : g_string_new("");
    g_string_append_printf(gone, "gone %s\n", id);
    return true;
}

/* All sets of @name but the newest; after a kill there may be several. */
static bool prune(Store *store, const char *name, GError **error)
{
    const StoreRetention last_one = {1, -1, -1, -1};
    g_autoptr(GPtrArray) verdicts = NULL, done = NULL;
    g_autoptr(GString) going = g_string_new("");
    char id[DIGEST_HEX_SIZE];

    if (!store_prune(store, name, &last_one, true, &verdicts, error))
        return false;
    for (guint i = 0; i < verdicts->len; i++) {
        const StorePruneVerdict *verdict = verdicts->pdata[i];

        if (!verdict->stays)
            g_string_append_printf(going, "%s ", digest_to_hex(&verdict->image->id, id));
    }
    mark(store, going->str);
    return store_prune(store, name, &last_one, false, &done, error);
}

static bool collect(Store *store, GError **error)
{
    StoreGcOptions options = {.grace = 0, .drop_states = true};
    StoreGcReport report;

    return store_gc(store, &options, &report, error) && (!report.repack_failed || fail(error, "gc could not repack"));
}

typedef struct Life {
    Store *store;
    char *raw;    /* a disk image file */
    bool layers;  /* also what asserts when it fails */
    unsigned version; /* added to those of images: a name never goes back to an older one by itself */
    int failures; /* of steps; the life goes on without them */
} Life;

/* Whatever the step said: what the store shows afterwards is what its users know. A step that failed acknowledged nothing new. */
static void done(Life *life, bool ok, GError *error)
{
    if (ok)
        mark(life->store, NULL);
    else
        life->failures++;
    if (!ok && g_getenv("KILN_TEST_VERBOSE"))
        g_printerr("# %s\n", error->message);
    g_clear_error(&error);
}
#define STEP(life, call)            \
    do {                            \
        GError *error = NULL;       \
        bool ok = (call);           \
                                    \
        done((life), ok, error);    \
    } while (0)

static bool import_and_publish(Store *store, const char *raw, GError **error)
{
    Digest map;

    return import_map(store, raw, &map, error) && publish_map(store, "imported", 7, &map, error);
}

static void live_first_half(Life *life)
{
    STEP(life, publish(life->store, "web", life->version + 1, &error));
    STEP(life, promote(life->store, "web", &error));
    STEP(life, publish(life->store, "db", life->version + 2, &error));
    STEP(life, import_and_publish(life->store, life->raw, &error));
    STEP(life, put_state(life->store, life->version + 3, &error));
    STEP(life, publish(life->store, "web", life->version + 4, &error));
    STEP(life, append(life->store, "app", "web", &error));
    STEP(life, promote(life->store, "web", &error));
    if (life->layers)
        store_image_free(oci_image_make(life->store, "box", NULL, "seed", NULL));
    STEP(life, true);
}

/* What was removed is about to be published again. */
static void expect_back(Life *life)
{
    if (gone)
        g_string_truncate(gone, 0);
    STEP(life, true);
}

static void live_second_half(Life *life)
{
    STEP(life, publish(life->store, "web", life->version + 4, &error)); /* the same set again: the older rows go */
    STEP(life, remove_image(life->store, "db", &error));
    STEP(life, collect(life->store, &error));
    STEP(life, store_rebuild_index(life->store, &error));
    expect_back(life);
    STEP(life, publish(life->store, "db", life->version + 2, &error));
    STEP(life, append(life->store, "app", "db", &error));
    STEP(life, append(life->store, "other", "web", &error));
}

/* Segments of which half is needed: the table that the first repacking leaves is written anew by the second. */
static void live_repacking_first(Life *life)
{
    STEP(life, publish_sharing(life->store, "chain", life->version + 1, 24, &error));
    STEP(life, publish_sharing(life->store, "chain", life->version + 2, 12, &error));
    STEP(life, publish_sharing(life->store, "side", life->version + 3, 6, &error));
    STEP(life, promote(life->store, "side", &error));
    STEP(life, prune(life->store, "chain", &error));
    STEP(life, collect(life->store, &error));
    STEP(life, publish_sharing(life->store, "chain", life->version + 4, 0, &error));
    STEP(life, prune(life->store, "chain", &error));
    STEP(life, collect(life->store, &error));
}

/* And in the end its name is no map's any more. */
static void live_repacking_second(Life *life)
{
    STEP(life, publish_sharing(life->store, "late", life->version + 5, 24, &error));
    STEP(life, publish_sharing(life->store, "side", life->version + 6, 12, &error));
    STEP(life, promote(life->store, "side", &error));
    STEP(life, publish_sharing(life->store, "side", life->version + 7, 10, &error));
    STEP(life, promote(life->store, "side", &error));
    STEP(life, prune(life->store, "side", &error));
    STEP(life, collect(life->store, &error));
    STEP(life, remove_image(life->store, "late", &error));
    STEP(life, collect(life->store, &error));
    STEP(life, collect(life->store, &error));
    expect_back(life);
    STEP(life, publish_sharing(life->store, "late", life->version + 5, 24, &error));
}

typedef struct Halves {
    void (*first)(Life *life), (*second)(Life *life);
} Halves;
static const Halves everything = {live_first_half, live_second_half}, repacking = {live_repacking_first, live_repacking_second};

/* In a child: all of a life. Returns the number of steps that failed. */
static int live(const Fixture *f, const Halves *halves, const char *raw, bool layers, unsigned version)
{
    Life life = {.raw = (char *)raw, .layers = layers, .version = version};
    GError *error = NULL;

    crash_record_start(f->log, f->base);
    if (!store_open(f->store, STORE_OPEN_CREATE, &life.store, &error))
        return 1;
    halves->first(&life);
    store_close(life.store);
    if (!store_open(f->store, 0, &life.store, &error))
        return life.failures + 1;
    halves->second(&life);
    store_close(life.store);
    return life.failures;
}

static char *write_raw(const Fixture *f)
{
    char *path = g_build_filename(f->dir, "disk.raw", NULL);
    g_autofree uint8_t *disk = make_disk(7);

    g_assert_true(g_file_set_contents(path, (const char *)disk, DISK_SIZE, NULL));
    return path;
}

/* --- checking --- */

typedef struct Check {
    Store *store;
    const char *text; /* what was acknowledged */
    GString *wrong;
} Check;

static void check_image(Check *c, const char *id)
{
    g_autofree char *ref = g_strdup_printf("sha256:%s", id);
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(json_t) provenance = NULL;
    Digest content;

    if (!store_resolve(c->store, ref, NULL, &image, &error) || !store_image_provenance(c->store, image, &provenance, &error))
        g_string_append_printf(c->wrong, "; an image is lost: %s", error->message);
    else if (!digest_is_none(&image->map) &&
             (!store_map_open(c->store, &image->map, &map, &error) || !store_map_content(map, &content, &error)))
        g_string_append_printf(c->wrong, "; an image's map: %s", error->message);
}

/* A name may have gone on to an image that was under way, not back to an older one. */
static void check_name(Check *c, const char *name, const char *id)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *line = NULL;
    char hex[DIGEST_HEX_SIZE];

    if (!store_resolve(c->store, name, NULL, &image, &error)) {
        g_string_append_printf(c->wrong, "; a name is lost: %s", error->message);
        return;
    }
    line = g_strdup_printf("image %s ", digest_to_hex(&image->id, hex));
    if (strcmp(hex, id) && strstr(c->text, line))
        g_string_append_printf(c->wrong, "; '%s' went back to %s", name, hex);
}

static void check_gone(Check *c, const char *id)
{
    g_autofree char *ref = g_strdup_printf("sha256:%s", id), *line = g_strdup_printf("image %s ", id);
    g_autoptr(StoreImage) image = NULL;

    if (!strstr(c->text, line) && store_resolve(c->store, ref, NULL, &image, NULL))
        g_string_append_printf(c->wrong, "; %s is back", id);
}

static void check_log(Check *c, bool channels)
{
    g_autoptr(GString) now = g_string_new("\n");
    g_auto(GStrv) lines = g_strsplit(c->text, "\n", -1);

    if (!add_logs(c->store, now))
        g_string_append(c->wrong, "; the logs cannot be read");
    for (guint i = 0; lines[i]; i++) {
        g_autofree char *whole = g_strdup_printf("\n%s\n", lines[i]);

        if (g_str_has_prefix(lines[i], channels ? "entry " : "record ") && !strstr(now->str, whole))
            g_string_append_printf(c->wrong, "; lost: %s", lines[i]);
    }
}

/* A record stays, and does not become an image again by itself. */
static void check_pruned(Check *c, const char *id)
{
    g_autofree char *ref = g_strdup_printf("sha256:%s", id), *line = g_strdup_printf("image %s ", id);
    g_autoptr(json_t) provenance = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;

    if (!store_resolve_record(c->store, ref, NULL, &image, &error) || !store_image_provenance(c->store, image, &provenance, &error))
        g_string_append_printf(c->wrong, "; a record is lost: %s", error->message);
    else if (!image->bytes_gone && !strstr(c->text, line))
        g_string_append_printf(c->wrong, "; pruned %s is back", id);
}

static void check_lines(Check *c)
{
    g_auto(GStrv) lines = g_strsplit(c->text, "\n", -1);

    for (guint i = 0; lines[i]; i++) {
        g_auto(GStrv) words = g_strsplit(lines[i], " ", 3);

        if (!g_strcmp0(words[0], "image"))
            check_image(c, words[1]);
        else if (!g_strcmp0(words[0], "name"))
            check_name(c, words[1], words[2]);
        else if (!g_strcmp0(words[0], "gone"))
            check_gone(c, words[1]);
        else if (!g_strcmp0(words[0], "pruned"))
            check_pruned(c, words[1]);
    }
    check_log(c, true);
    check_log(c, false);
}

static void check_fsck(Check *c, const char *when)
{
    g_autoptr(GPtrArray) problems = NULL;
    g_autoptr(GError) error = NULL;

    if (!store_fsck(c->store, true, &problems, &error))
        g_string_append_printf(c->wrong, "; fsck %s: %s", when, error->message);
    for (guint i = 0; problems && i < problems->len; i++)
        g_string_append_printf(c->wrong, "; fsck %s: %s", when, (char *)problems->pdata[i]);
}

/* The next night: a new image that shares blocks with the old ones, gc, and all is still well. */
static void check_going_on(Check *c)
{
    g_autoptr(GError) error = NULL;

    if (!publish(c->store, "next", 900, &error) || !promote(c->store, "next", &error) || !append(c->store, "app", "next", &error) ||
        !collect(c->store, &error))
        g_string_append_printf(c->wrong, "; cannot go on: %s", error->message);
    check_fsck(c, "later");
    check_lines(c);
}

static int64_t slowest;

/* NULL when all is well. */
static char *check_store(const char *path, const char *text, bool go_on)
{
    Check c = {.text = text, .wrong = g_string_new("")};
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(GError) error = NULL;
    int64_t start = g_get_monotonic_time();

    if (!store_open(path, *text ? 0 : STORE_OPEN_CREATE, &c.store, &error) || !store_list_images(c.store, true, &images, &error)) {
        g_string_append_printf(c.wrong, "; cannot open: %s", error->message);
    } else {
        slowest = MAX(slowest, g_get_monotonic_time() - start);
        check_fsck(&c, "first");
        check_lines(&c);
        if (go_on)
            check_going_on(&c);
    }
    store_close(c.store);
    return g_string_free(c.wrong, c.wrong->len == 0);
}

/* The machine has started again since: the block index is from before, so its bytes may be anything. */
static void spoil_index(const Fixture *f, uint32_t seed)
{
    g_autofree char *path = g_build_filename(f->out, "store/index/blocks", NULL);
    uint8_t noise[64];
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    test_noise(noise, sizeof(noise), seed);
    g_assert_cmpint(pwrite(fd, noise, 40, 40), ==, 40);
    close(fd);
}

static char *check_point(const Fixture *f, const CrashLog *log, guint prefix, CrashMode mode, uint32_t seed, bool go_on)
{
    g_autofree char *store = g_build_filename(f->out, "store", NULL);
    char *wrong;

    g_assert_cmpint(mkdir(f->out, 0755), ==, 0);
    crash_log_replay(log, prefix, mode, seed, f->out);
    if (mode != CRASH_KEEP)
        spoil_index(f, seed);
    wrong = check_store(store, crash_log_mark(log, prefix), go_on);
    if (wrong && g_getenv("KILN_TEST_KEEP"))
        g_error("kept %s: %s", f->out, wrong);
    g_assert_true(file_remove_tree(AT_FDCWD, f->out, NULL));
    return wrong;
}

static void tell(guint prefix, CrashMode mode, uint32_t seed, const char *wrong)
{
    g_printerr("# after %u operations, %s, seed %u: %s\n", prefix, crash_mode_name(mode), seed, wrong + 2);
}

/* About @points of the operations @from on, spread evenly, modes in turn. Returns how many are wrong; with @tell_at_most 0 one is enough. */
static guint check_points(const Fixture *f, const CrashLog *log, guint from, guint points, uint32_t seed, guint tell_at_most, guint *ret_done)
{
    uint64_t all = (uint64_t)(log->ops->len + 1 - from) * CRASH_MODES;
    guint wrong = 0;

    points = (guint)MIN(points, all);
    for (guint i = 0; i < points; i++) {
        uint64_t at = all * i / points + (points < all ? (i * 7 + seed) % CRASH_MODES : 0);
        guint prefix = MIN(from + (guint)(at / CRASH_MODES), log->ops->len);
        CrashMode mode = (CrashMode)(at % CRASH_MODES);
        g_autofree char *why = check_point(f, log, prefix, mode, seed, i % 4 == 0);

        (*ret_done)++;
        if (why && wrong++ < tell_at_most)
            tell(prefix, mode, seed, why);
        if (why && (tell_at_most == 0 || g_getenv("KILN_TEST_STOP")))
            break;
    }
    return wrong;
}

/* --- recording in children --- */

static int wait_for(pid_t child)
{
    int status;

    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    return status;
}

static void record_life(const Fixture *f, const Halves *halves, bool layers)
{
    g_autofree char *raw = write_raw(f);
    pid_t child = fork();
    int status;

    g_assert_cmpint(child, >=, 0);
    if (child == 0)
        _exit(live(f, halves, raw, layers, 0));
    status = wait_for(child);
    g_assert_cmpint(status, ==, 0);
}

static guint count_names(const CrashLog *log, CrashKind kind, const char *pattern)
{
    guint count = 0;

    for (guint i = 0; i < log->ops->len; i++) {
        const CrashOp *op = &g_array_index(log->ops, CrashOp, i);

        count += op->kind == kind && g_pattern_match_simple(pattern, kind == CRASH_RENAME ? op->to_name : op->name);
    }
    return count;
}

/* @data: the life that is cut off. */
static void test_power_cuts(Fixture *f, gconstpointer data)
{
    const Halves *halves = data;
    guint points = (guint)number_from("KILN_TEST_POINTS", 25), done_points = 0, wrong = 0;
    g_autoptr(CrashLog) log = NULL;

    record_life(f, halves, halves == &everything);
    log = crash_log_load(f->log);
    g_assert_cmpuint(log->ops->len, >, 300);
    g_test_message("%u tables written, %u removed", count_names(log, CRASH_RENAME, "*.moved"), count_names(log, CRASH_UNLINK, "*.moved"));
    g_assert_true(halves == &everything || (count_names(log, CRASH_RENAME, "*.moved") >= 3 && count_names(log, CRASH_UNLINK, "*.moved") >= 1));
    for (uint32_t seed = 1; done_points < points && !(wrong && g_getenv("KILN_TEST_STOP")); seed++)
        wrong += check_points(f, log, 0, points - done_points, seed, 10, &done_points);
    g_test_message("%u operations, %u points, slowest reopening %" G_GINT64_FORMAT " us", log->ops->len, done_points, slowest);
    g_assert_cmpuint(wrong, ==, 0);
    g_assert_cmpint(slowest, <, REOPEN_LIMIT_US);
}

/* Killed, recovered by the next process, which does the same again, and then the power goes. */
static int live_again(const Fixture *f, unsigned version)
{
    Life life = {0};
    GError *error = NULL;

    crash_record_start(f->log, f->base);
    if (!store_open(f->store, STORE_OPEN_CREATE, &life.store, &error))
        return 1;
    mark(life.store, NULL);
    STEP(&life, publish(life.store, "web", version, &error));
    STEP(&life, promote(life.store, "web", &error));
    return life.failures; /* and not closed */
}

static int live_until_killed(const Fixture *f, const char *raw, const char *fail)
{
    g_setenv("KILN_TEST_FAIL", fail, TRUE);
    return live(f, &everything, raw, false, 0);
}

static void clean(const Fixture *f)
{
    g_assert_true(file_remove_tree(AT_FDCWD, f->base, NULL));
    g_assert_cmpint(mkdir(f->base, 0755), ==, 0);
    (void)unlink(f->log);
}

/* False when the life ended before the kill. */
static bool record_killed_twice(const Fixture *f, const char *raw, const char *fail)
{
    pid_t child;
    int status;

    clean(f);
    if ((child = fork()) == 0)
        _exit(live_until_killed(f, raw, fail));
    status = wait_for(child);
    if (!WIFSIGNALED(status))
        return false;
    if ((child = fork()) == 0)
        _exit(live_again(f, 1));
    status = wait_for(child);
    g_assert_cmpint(status, ==, 0);
    return true;
}

static void test_kill_then_power_cut(Fixture *f, gconstpointer data)
{
    static const char *const calls[] = {"mkdir", "rename", "fsync", "fdatasync", "unlink", "pwrite"};
    int step = g_getenv("KILN_TEST_POINTS") ? 1 : 120;
    g_autofree char *raw = write_raw(f);
    guint points = 0, wrong = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(calls); i++)
        for (int n = 1; n < 400; n += step) {
            g_autofree char *fail = g_strdup_printf("%s:%d:KILL", calls[i], n);
            g_autoptr(CrashLog) log = NULL;
            guint before = wrong;

            if (!record_killed_twice(f, raw, fail))
                break;
            log = crash_log_load(f->log);
            wrong += check_points(f, log, log->ops->len, CRASH_MODES, (uint32_t)n, 3, &points);
            if (wrong > before)
                g_printerr("# ... first process killed by %s\n", fail);
            g_assert_true(!wrong || !g_getenv("KILN_TEST_STOP"));
        }
    g_test_message("%u points", points);
    g_assert_cmpuint(wrong, ==, 0);
}

/* A crash, and another one while what is left is opened and used again. */
static void test_power_cut_after_power_cut(Fixture *f, gconstpointer data)
{
    guint rounds = (guint)number_from("KILN_TEST_POINTS", 0) / 100 + 1, points = 0, wrong = 0;
    g_autofree char *first = g_strconcat(f->log, ".first", NULL);
    g_autoptr(CrashLog) log = NULL;

    record_life(f, &everything, false);
    log = crash_log_load(f->log);
    g_assert_cmpint(rename(f->log, first), ==, 0);
    for (guint i = 0; i < rounds; i++) {
        guint prefix = (guint)((uint64_t)log->ops->len * (i + 1) / (rounds + 1));
        g_autoptr(CrashLog) second = NULL;
        pid_t child;
        int status;

        clean(f);
        crash_log_replay(log, prefix, (CrashMode)(i * 5 % CRASH_MODES), i, f->base);
        if ((child = fork()) == 0)
            _exit(live_again(f, 500));
        status = wait_for(child);
        g_assert_cmpint(status, ==, 0);
        second = crash_log_load(f->log);
        wrong += check_points(f, second, crash_log_first(second), 20, i, 3, &points);
    }
    g_test_message("%u points", points);
    g_assert_cmpuint(wrong, ==, 0);
}

/* --- SIGKILL --- */

static void test_killed_at_random(Fixture *f, gconstpointer data)
{
    int rounds = number_from("KILN_TEST_ROUNDS", 3), wrong = 0;
    g_autofree char *raw = write_raw(f);
    g_autoptr(GRand) rand = g_rand_new_with_seed(4711);

    for (int i = 0; i < rounds; i++) {
        g_autoptr(CrashLog) log = NULL;
        g_autofree char *why = NULL;
        pid_t child;

        if (i % 4 == 0)
            clean(f); /* else the next life goes on with what the killed one left */
        g_assert_true(g_file_set_contents(f->log, "", 0, NULL));
        if ((child = fork()) == 0)
            for (unsigned version = (unsigned)i * 1000;; version += 10)
                if (live(f, i % 2 ? &repacking : &everything, raw, false, version) > 0)
                    _exit(1);
        g_usleep((gulong)g_rand_int_range(rand, 500, 60000));
        g_assert_cmpint(kill(child, SIGKILL), ==, 0);
        g_assert_true(WIFSIGNALED(wait_for(child)));
        log = crash_log_load(f->log);
        why = check_store(f->store, crash_log_mark(log, log->ops->len), i % 4 == 3);
        wrong += why != NULL;
        if (why)
            g_printerr("# round %d: %s\n", i, why + 2);
        (void)unlink(f->log);
    }
    g_assert_cmpint(wrong, ==, 0);
}

/* --- how long it takes to open what is left --- */

#define WINDOW (32 * STORE_BLOCK_SIZE)
#define COMMIT_FRAMES 4000u

/* Frames of blocks that differ in a number and are otherwise alike. */
static bool write_frames(Store *store, uint64_t first, unsigned frames, bool commit, GError **error)
{
    g_autofree uint8_t *window = g_malloc0(WINDOW);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;

    if (!store_writer_open(store, BLOCK_PUBLIC, &writer, error) || !map_writer_new(writer, (uint64_t)frames * WINDOW, NULL, &map, error))
        return false;
    for (uint64_t i = 0; i < frames; i++) {
        for (uint64_t block = 0; block < 32; block++) {
            uint64_t number = (first + i) * 32 + block + 1;

            memcpy(window + block * STORE_BLOCK_SIZE, &number, sizeof(number));
        }
        if (!map_writer_write(map, i * WINDOW, window, WINDOW, error))
            return false;
    }
    if (!commit)
        (void)kill(getpid(), SIGKILL);
    return map_writer_finish(map, error) && store_writer_commit(writer, error);
}

static int fill_until_killed(const Fixture *f, unsigned frames)
{
    Store *store;

    if (!store_open(f->store, STORE_OPEN_CREATE, &store, NULL) || !publish(store, "web", 1, NULL))
        return 1;
    for (unsigned i = 0; i < frames; i += COMMIT_FRAMES)
        if (!write_frames(store, i, MIN(COMMIT_FRAMES, frames - i), true, NULL))
            return 1;
    (void)write_frames(store, frames, 100, false, NULL);
    return 1;
}

static int64_t own_time_us(void)
{
    struct timespec now;

    g_assert_cmpint(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), ==, 0);
    return now.tv_sec * G_USEC_PER_SEC + now.tv_nsec / 1000;
}

/* Judged by this process's own time, as others may be busy beside it. Opened, and ready to write: the block index was made again, as after a power cut. */
static void test_reopening_is_quick(Fixture *f, gconstpointer data)
{
    unsigned frames = g_getenv("KILN_TEST_POINTS") ? 100000 : 1000;
    g_autofree char *away = g_build_filename(f->out, "store", NULL);
    g_autoptr(Store) store = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(GError) error = NULL;
    int64_t start, opened, ready, own;
    pid_t child;

    if ((child = fork()) == 0)
        _exit(fill_until_killed(f, frames));
    g_assert_true(WIFSIGNALED(wait_for(child)));
    g_assert_cmpint(mkdir(f->out, 0755) || rename(f->store, away), ==, 0);
    spoil_index(f, 1);
    own = own_time_us();
    start = g_get_monotonic_time();
    (void)(store_open(away, 0, &store, &error) && store_list_images(store, true, &images, &error));
    g_assert_no_error(error);
    opened = g_get_monotonic_time();
    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &writer, &error));
    ready = g_get_monotonic_time();
    own = own_time_us() - own;
    g_test_message("%u frames: opened in %.3f s, ready to write after %.3f s (%.3f s of the processor)", frames, (double)(opened - start) / 1e6,
                   (double)(ready - start) / 1e6, (double)own / 1e6);
    g_assert_cmpuint(images->len, ==, 1);
    g_assert_cmpint(own, <, MAX((int64_t)frames * 10, REOPEN_LIMIT_US / 2));
}

/* --- disks that fail --- */

typedef struct FaultKind {
    const char *call, *error; /* of the store's own files; NULL: of SQLite's */
    const char *database;
    int rc;
} FaultKind;

static const FaultKind fault_kinds[] = {
    {"pwrite", "ENOSPC", NULL, 0},        {"pwrite", "EIO", NULL, 0},          {"open", "ENOSPC", NULL, 0},
    {"fdatasync", "EIO", NULL, 0},        {"fsync", "EIO", NULL, 0},           {"rename", "ENOSPC", NULL, 0},
    {"mkdir", "ENOSPC", NULL, 0},         {"unlink", "EIO", NULL, 0},          {"truncate", "EIO", NULL, 0},
    {"pread", "EIO", NULL, 0},            {NULL, NULL, "write", SQLITE_FULL},  {NULL, NULL, "write", SQLITE_IOERR_WRITE},
    {NULL, NULL, "write", 0},             {NULL, NULL, "sync", SQLITE_IOERR_FSYNC}, {NULL, NULL, "truncate", SQLITE_IOERR_TRUNCATE},
    {NULL, NULL, "open", SQLITE_CANTOPEN},
};

static int live_with_fault(const Fixture *f, const Halves *halves, const char *raw, const FaultKind *kind, int n, bool once)
{
    g_autofree char *fail = g_strdup_printf("%s:%d:%s%s", kind->call ? kind->call : "none", n, kind->error ? kind->error : "EIO", once ? ":once" : "");
    int failures;

    g_setenv("KILN_TEST_FAIL", fail, TRUE);
    if (kind->database)
        crash_record_fail_database(kind->database, n, kind->rc, once);
    failures = live(f, halves, raw, false, 0);
    return MIN(failures, 90);
}

/* The next process finds a good disk again. False when the fault was never met. */
static bool check_fault(const Fixture *f, const Halves *halves, const char *raw, const FaultKind *kind, int n, bool once, int *wrong)
{
    g_autoptr(CrashLog) log = NULL;
    g_autofree char *why = NULL;
    pid_t child;
    int status;

    clean(f);
    if ((child = fork()) == 0)
        _exit(live_with_fault(f, halves, raw, kind, n, once));
    status = wait_for(child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) > 90) {
        g_printerr("# %s %d: a child ended with status %x\n", kind->call ? kind->call : kind->database, n, status);
        (*wrong)++;
        return true;
    }
    log = crash_log_load(f->log);
    why = check_store(f->store, crash_log_mark(log, log->ops->len), true);
    *wrong += why != NULL;
    if (why)
        g_printerr("# %s %s %d%s: %s\n", kind->call ? kind->call : kind->database, kind->error ? kind->error : "", n, once ? " once" : "", why + 2);
    return WEXITSTATUS(status) != 0;
}

static void test_faults(Fixture *f, gconstpointer data)
{
    const Halves *halves = data;
    int step = g_getenv("KILN_TEST_POINTS") ? 1 : 997, wrong = 0, runs = 0;
    g_autofree char *raw = write_raw(f);

    for (size_t i = 0; i < G_N_ELEMENTS(fault_kinds) * 2; i += step > 1 ? 3 : 1) {
        const FaultKind *kind = &fault_kinds[i / 2];
        int n = 1 + (step > 1 ? (int)i : 0);

        /* A fault that did no harm (in an unlink, of a file that would be grown) does not mean that there are no more calls. */
        for (int harmless = 0; n < 2000 && harmless < 12; n += n < 100 ? step : step * 7, runs++)
            harmless = check_fault(f, halves, raw, kind, n, i % 2, &wrong) ? 0 : harmless + step;
    }
    g_test_message("%d lives with a fault", runs);
    g_assert_cmpint(wrong, ==, 0);
}

/* Transfers that stop halfway are gone on with. */
static void test_short_transfers(Fixture *f, gconstpointer data)
{
    static const FaultKind kinds[] = {{"pwrite", "SHORT", NULL, 0}, {"pread", "SHORT", NULL, 0}};
    g_autofree char *raw = write_raw(f);
    int wrong = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++)
        for (int n = 1; n < 60; n += g_getenv("KILN_TEST_POINTS") ? 2 : 40)
            g_assert_false(check_fault(f, &everything, raw, &kinds[i], n, false, &wrong));
    g_assert_cmpint(wrong, ==, 0);
}

/* --- the test itself --- */

typedef struct Mutant {
    const char *what;
    CrashKind kind;      /* of the operations that are lost or moved */
    const char *node;    /* pattern of the name its file or folder was made with */
    int move;            /* 0: left out; 1: done just before the next mark; -1: two marks earlier */
} Mutant;

/* What a store would do that forgets a sync or does things in another order. */
static const Mutant mutants[] = {
    {"segments are not synced", CRASH_SYNC, "segment-*", 0},
    {"blobs are not synced", CRASH_SYNC, "blob-*", 0},
    {"segments are synced after the commits that need them", CRASH_SYNC, "segment-*", 1},
    {"the folder of a new file is not synced", CRASH_SYNC_DIR, "??", 0},
    {"the folder of a new folder is not synced", CRASH_SYNC_DIR, "segments", 0},
    {"files get their names after the commits that need them", CRASH_RENAME, "blob-*", 1},
    {"the catalog is not synced before the state", CRASH_SYNC, "catalog.db-wal", 0},
    {"the state is not synced", CRASH_SYNC, "state.db-wal", 0},
    {"checkpoints are not synced", CRASH_SYNC, "catalog.db", 0},
    {"the store's folder is not synced", CRASH_SYNC_DIR, "store", 0},
    {"the folder above the store is not synced", CRASH_SYNC_DIR, NULL, 0},
    {"gc removes files before the records that need them", CRASH_UNLINK, NULL, -1},
};

static bool mutant_wants(const CrashLog *log, const Mutant *m, const CrashOp *op)
{
    const char *name;

    if (op->kind != m->kind)
        return false;
    if (op->kind == CRASH_UNLINK)
        return strlen(op->name) >= 64;
    if (op->kind == CRASH_RENAME)
        return g_pattern_match_simple(m->node, op->name);
    name = log->names->pdata[op->kind == CRASH_SYNC_DIR ? op->folder : op->node];
    return name && m->node ? g_pattern_match_simple(m->node, name) : name == m->node;
}

/* Behind the mark before the last one in @ops. */
static guint two_marks_back(const GArray *ops)
{
    guint at = ops->len, marks = 0;

    while (at > 0 && marks < 2)
        marks += g_array_index(ops, CrashOp, --at).kind == CRASH_MARK;
    return at > 0 ? at + 1 : 0;
}

static guint mutate(CrashLog *log, const Mutant *m)
{
    GArray *ops = g_array_new(FALSE, FALSE, sizeof(CrashOp));
    g_autoptr(GArray) held = g_array_new(FALSE, FALSE, sizeof(CrashOp));
    guint found = 0;

    for (guint i = 0; i < log->ops->len; i++) {
        CrashOp op = g_array_index(log->ops, CrashOp, i);
        bool wanted = mutant_wants(log, m, &op);

        found += wanted;
        if (op.kind == CRASH_MARK) {
            g_array_append_vals(ops, held->data, held->len);
            g_array_set_size(held, 0);
        }
        if (!wanted)
            g_array_append_val(ops, op);
        else if (m->move > 0)
            g_array_append_val(held, op);
        else if (m->move < 0)
            g_array_insert_val(ops, two_marks_back(ops), op);
    }
    g_array_unref(log->ops);
    log->ops = ops;
    return found;
}

/* From coarse to fine, until a point is wrong. */
static bool is_caught(const Fixture *f, const CrashLog *log, guint *points)
{
    for (guint seed = 1; seed <= 12; seed++)
        if (check_points(f, log, 0, 97 * seed, seed, 0, points) > 0)
            return true;
    return false;
}

static void test_mutants(Fixture *f, gconstpointer data)
{
    int step = g_getenv("KILN_TEST_POINTS") ? 1 : 99, missed = 0;

    record_life(f, &everything, false);
    for (size_t i = 0; i < G_N_ELEMENTS(mutants); i += (size_t)step) {
        g_autoptr(CrashLog) log = crash_log_load(f->log);
        guint points = 0;

        g_assert_cmpuint(mutate(log, &mutants[i]), >, 0);
        if (is_caught(f, log, &points)) {
            g_test_message("caught after %u points: %s", points, mutants[i].what);
            continue;
        }
        g_printerr("# missed: %s\n", mutants[i].what);
        missed++;
    }
    g_assert_cmpint(missed, ==, 0);
}

int main(int argc, char **argv)
{
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_test_init(&argc, &argv, NULL);
#define ADD_OF(name, life, fn) g_test_add("/crash/" name, Fixture, life, set_up, fn, tear_down)
#define ADD(name, fn) ADD_OF(name, NULL, fn)
    ADD_OF("power-cuts", &everything, test_power_cuts);
    ADD_OF("power-cuts-of-repacking", &repacking, test_power_cuts);
    ADD("power-cut-after-a-recovery", test_kill_then_power_cut);
    ADD("power-cut-after-a-power-cut", test_power_cut_after_power_cut);
    ADD("killed-at-random", test_killed_at_random);
    ADD("reopening-is-quick", test_reopening_is_quick);
    ADD_OF("disks-that-fail", &everything, test_faults);
    ADD_OF("disks-that-fail-repacking", &repacking, test_faults);
    ADD("short-transfers", test_short_transfers);
    ADD("a-store-that-forgets-is-caught", test_mutants);
    return g_test_run();
}
