/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store costs as it grows: 10, 100, 1,000 images with 10,000 blocks of their own each, over 200,000 that all of them share: 10 million different
 * blocks at the end. `make bench-growth` runs it and prints a table.
 *
 * A block is a number and zeroes, so that ten million of them are hashed, framed and looked up as any others and still take half a gigabyte of
 * disk. Each figure is taken by a process of its own (this program again, or kiln), so that none warms a cache for the next, and its memory is its own.
 *
 *     growth KILN FOLDER [IMAGES...]      the store is FOLDER/store; FOLDER must not exist, and is left for a look
 */
#include "base/file.h"
#include "store/block-index.h"
#include "store/segment.h"
#include "store/store-private.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHARED 200000u
#define OWN 10000u
#define NAMES 10u
#define RUNS 9u
#define MEASURED 3u /* of the images of a row: the last ones, which are written with everything read */

static const char *self, *kiln;

typedef struct Stores {
    char *grown, *single;
    uint64_t last, single_last; /* numbers of their newest images */
} Stores;

static void must(bool ok, GError *error)
{
    if (ok)
        return;
    fprintf(stderr, "growth: %s\n", error ? error->message : "failed");
    exit(1);
}

static double now(void)
{
    return (double)g_get_monotonic_time() / G_USEC_PER_SEC;
}

static Store *open_store(const char *path, unsigned flags)
{
    GError *error = NULL;
    Store *store = NULL;

    must(store_open(path, flags, &store, &error), error);
    return store;
}

/* --- images --- */

/* Blocks @first to @first + 31 of the numbers that make @image's; 0 are the shared ones. */
static void fill_window(uint8_t *window, uint64_t image, uint64_t first)
{
    memset(window, 0, 32 * STORE_BLOCK_SIZE);
    for (uint64_t i = 0; i < 32; i++) {
        uint64_t number[2] = {first + i + 1, image};

        memcpy(window + i * STORE_BLOCK_SIZE, number, sizeof(number));
    }
}

static void write_blocks(MapWriter *map, uint64_t at, uint64_t image, uint64_t count)
{
    g_autofree uint8_t *window = g_malloc(32 * STORE_BLOCK_SIZE);
    GError *error = NULL;

    for (uint64_t done = 0; done < count; done += 32) {
        fill_window(window, image, done);
        must(map_writer_write(map, (at + done) * STORE_BLOCK_SIZE, window, (size_t)MIN(32, count - done) * STORE_BLOCK_SIZE, &error), error);
    }
}

/* What every set brings along: config, provenance, inputs. */
static void publish(Store *store, uint64_t number, const MapResult *result)
{
    g_autofree char *name = g_strdup_printf("grown%u", (unsigned)(number % NAMES));
    g_autofree char *text = g_strdup_printf("{\"n\":%" G_GUINT64_FORMAT "}", number), *template = g_strdup_printf("# template %" G_GUINT64_FORMAT "\n", number / 30);
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    g_autoptr(GHashTable) inputs = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(json_t) provenance = json_pack("{s:I}", "number", (json_int_t)number);
    StoreImage *image = store_image_new("disk", name);
    StoreSet set = {.name = name, .images = images, .provenance = provenance, .inputs = inputs};
    Digest input;
    GError *error = NULL;

    g_ptr_array_add(images, image);
    image->map = result->digest;
    image->size = result->size;
    must(store_blob_put(store, text, strlen(text), &image->id, &error) && store_blob_put(store, template, strlen(template), &input, &error), error);
    set.key = image->id;
    g_hash_table_insert(inputs, (gpointer) "template", &input);
    must(store_publish(store, &set, &error), error);
}

/* @from: the map of the shared blocks, taken over without reading them; NULL: everything is hashed and looked up. Seconds of the storing alone. */
static double add_image(Store *store, uint64_t number, StoreMap *from, Digest *ret)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    GError *error = NULL;
    MapResult result;
    double start = now();

    must(store_writer_open(store, BLOCK_PUBLIC, &writer, &error), error);
    must(map_writer_new(writer, (uint64_t)(SHARED + OWN) * STORE_BLOCK_SIZE, from, &map, &error), error);
    if (!from)
        write_blocks(map, 0, 0, SHARED);
    write_blocks(map, SHARED, number, OWN);
    must(map_writer_finish(map, &error) && store_writer_commit(writer, &error), error);
    map_writer_result(map, &result);
    start = now() - start;
    publish(store, number, &result);
    if (ret)
        *ret = result.digest;
    return start;
}

/* --- figures, each in a process of its own --- */

static int do_fill(const char *path, uint64_t from, uint64_t to)
{
    Store *store = open_store(path, STORE_OPEN_CREATE);
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(StoreMap) shared = NULL;
    GError *error = NULL;
    Digest digest;

    if (from == 1)
        (void)add_image(store, from++, NULL, &digest);
    else {
        must(store_list_images(store, true, &images, &error), error);
        digest = ((StoreImage *)images->pdata[images->len - 1])->map;
    }
    must(store_map_open(store, &digest, &shared, &error), error);
    for (uint64_t number = from; number <= to; number++)
        (void)add_image(store, number, shared, NULL);
    g_clear_pointer(&shared, store_map_unref);
    store_close(store);
    return 0;
}

static int do_ingest(const char *path, uint64_t number)
{
    Store *store = open_store(path, 0);

    printf("%.6f\n", add_image(store, number, NULL, NULL));
    store_close(store);
    return 0;
}

static int do_open(const char *path)
{
    double start = now();
    Store *store = open_store(path, 0);
    Database *db;
    GError *error = NULL;

    must(store_catalog(store, &db, &error) && store_state_db(store, &db, &error), error);
    store_close(store);
    printf("%.6f\n", now() - start);
    return 0;
}

static int do_gc(const char *path)
{
    Store *store = open_store(path, 0);
    StoreGcOptions options = {.grace = 0};
    StoreGcReport report;
    GError *error = NULL;
    double start = now();

    must(store_gc(store, &options, &report, &error), error);
    printf("%.6f %" G_GUINT64_FORMAT "\n", now() - start, report.segments_removed);
    store_close(store);
    return 0;
}

/* The @count oldest but the first, whose blocks all others share. */
static int do_drop(const char *path, uint64_t count)
{
    Store *store = open_store(path, 0);
    g_autoptr(GPtrArray) images = NULL;
    GError *error = NULL;

    must(store_list_images(store, true, &images, &error), error);
    for (uint64_t i = 0; i < count && i + 2 <= images->len; i++)
        must(store_remove_image(store, images->pdata[images->len - 2 - i], &error), error);
    store_close(store);
    return 0;
}

static int do_rebuild_index(const char *path)
{
    Store *store = open_store(path, 0);
    GError *error = NULL;
    double start = now();

    must(store_rebuild_index(store, &error), error);
    printf("%.6f\n", now() - start);
    store_close(store);
    return 0;
}

/* Blocks that the index finds: all of them, or it has lost some. */
static int do_count(const char *path)
{
    Store *store = open_store(path, 0);
    uint64_t entries, capacity;
    GError *error = NULL;

    must(block_index_refresh(store, &error), error);
    block_index_counts(store, &entries, &capacity);
    printf("%" G_GUINT64_FORMAT "\n", entries);
    store_close(store);
    return 0;
}

static int do_one(int argc, char **argv)
{
    const char *what = argv[2], *path = argv[3];
    uint64_t a = argc > 4 ? strtoull(argv[4], NULL, 10) : 0, b = argc > 5 ? strtoull(argv[5], NULL, 10) : 0;

    return strcmp(what, "fill") == 0     ? do_fill(path, a, b)
           : strcmp(what, "ingest") == 0 ? do_ingest(path, a)
           : strcmp(what, "open") == 0   ? do_open(path)
           : strcmp(what, "gc") == 0     ? do_gc(path)
           : strcmp(what, "drop") == 0   ? do_drop(path, a)
           : strcmp(what, "index") == 0  ? do_rebuild_index(path)
                                         : do_count(path);
}

/* --- running them --- */

typedef struct Run {
    double wall, said; /* seconds by the clock; the number that it printed first */
    long rss;          /* KiB */
} Run;

static Run run(const char *const *argv)
{
    double start = now();
    struct rusage usage;
    char text[64] = "";
    int ends[2], status;
    pid_t child;
    Run result;

    must(pipe(ends) == 0, NULL);
    child = fork();
    if (child == 0) {
        (void)dup2(ends[1], 1);
        (void)close(ends[0]);
        (void)close(ends[1]);
        (void)execv(argv[0], (char **)argv);
        _exit(127);
    }
    (void)close(ends[1]);
    for (size_t used = 0;;) {
        char rest[4096];
        ssize_t n = used + 1 < sizeof(text) ? read(ends[0], text + used, sizeof(text) - 1 - used) : read(ends[0], rest, sizeof(rest));

        if (n <= 0)
            break;
        used += used + 1 < sizeof(text) ? (size_t)n : 0;
    }
    (void)close(ends[0]);
    must(wait4(child, &status, 0, &usage) == child && status == 0, NULL);
    result = (Run){now() - start, g_ascii_strtod(text, NULL), usage.ru_maxrss};
    return result;
}

static Run run_self(const char *what, const char *path, uint64_t a, uint64_t b)
{
    g_autofree char *one = g_strdup_printf("%" G_GUINT64_FORMAT, a), *other = g_strdup_printf("%" G_GUINT64_FORMAT, b);
    const char *const argv[] = {self, "--one", what, path, one, other, NULL};

    return run(argv);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return values[count / 2];
}

/* A figure of the grown store, and of one with a single image, taken in turns: a busy machine is busy for both. */
typedef struct Pair {
    double grown, single; /* milliseconds */
    long rss;             /* KiB, of the grown one */
} Pair;

static Pair in_turns(const char *const *grown, const char *const *single, size_t runs, bool said)
{
    double ours[RUNS], others[RUNS]; /* no @runs is more */
    Pair pair = {.rss = 0};

    for (size_t i = 0; i < runs; i++) {
        Run one = run(grown), other = run(single);

        ours[i] = (said ? one.said : one.wall) * 1e3;
        others[i] = (said ? other.said : other.wall) * 1e3;
        pair.rss = MAX(pair.rss, one.rss);
    }
    pair.grown = median(ours, runs);
    pair.single = median(others, runs);
    return pair;
}

/* A verb, process and all. */
static Pair verb(const Stores *stores, const char *word, const char *more)
{
    const char *const grown[] = {kiln, "--store", stores->grown, word, more, NULL};
    const char *const single[] = {kiln, "--store", stores->single, word, more, NULL};

    return in_turns(grown, single, RUNS, false);
}

static Pair inner(const Stores *stores, const char *what, size_t runs)
{
    const char *const grown[] = {self, "--one", what, stores->grown, NULL}, *const single[] = {self, "--one", what, stores->single, NULL};

    return in_turns(grown, single, runs, true);
}

/* The next images of both. */
static Pair ingest(Stores *stores)
{
    double ours[MEASURED], others[MEASURED];
    Pair pair = {.rss = 0};

    for (size_t i = 0; i < MEASURED; i++) {
        Run other = run_self("ingest", stores->single, ++stores->single_last, 0), one = run_self("ingest", stores->grown, ++stores->last, 0);

        ours[i] = one.said * 1e3;
        others[i] = other.said * 1e3;
        pair.rss = MAX(pair.rss, one.rss);
    }
    pair.grown = median(ours, MEASURED);
    pair.single = median(others, MEASURED);
    return pair;
}

static double file_size(const char *store, const char *name)
{
    g_autofree char *path = g_build_filename(store, name, NULL);
    struct stat st;

    return stat(path, &st) == 0 ? (double)st.st_size : 0;
}

/* --- the table --- */

static void print_head(void)
{
    printf("Beside each time: how many times that of a store with few images, measured in turns.\n");
    printf("%7s %13s %7s %13s %13s %13s %7s %7s %8s %7s %4s %4s %4s\n", "images", "images", "--all", "show", "opening", "ingest", "gc", "gc 1/10", "catalog",
           "index", "RSS", "ing.", "gc");
    printf("%7s %13s %7s %13s %13s %13s %7s %7s %8s %7s %4s %4s %4s\n", "", "ms", "ms", "ms", "ms", "ms", "ms", "ms", "MB", "B/block", "MB", "MB", "MB");
}

static void print_pair(Pair pair)
{
    printf(" %7.1f %4.2fx", pair.grown, pair.grown / pair.single);
}

static void print_row(Stores *stores, uint64_t images, Pair stored)
{
    Pair list = verb(stores, "images", NULL), all = verb(stores, "images", "--all"), show = verb(stores, "show", "grown1"), open = inner(stores, "open", RUNS);
    Pair quiet = inner(stores, "gc", 3), gc;
    double blocks = run_self("count", stores->grown, 0, 0).said;

    (void)run_self("drop", stores->grown, images / 10, 0);
    gc = inner(stores, "gc", 1);
    printf("%7" G_GUINT64_FORMAT, images);
    print_pair(list);
    printf(" %7.1f", all.grown);
    print_pair(show);
    print_pair(open);
    print_pair(stored);
    printf(" %7.1f %7.1f %8.1f %7.2f %4ld %4ld %4ld\n", quiet.grown, gc.grown, file_size(stores->grown, "catalog.db") / 1e6,
           file_size(stores->grown, "index/blocks") / blocks, MAX(list.rss, show.rss) / 1024, stored.rss / 1024, MAX(quiet.rss, gc.rss) / 1024);
    fflush(stdout);
}

/* Returns how many are left. The last ones are written with everything read. */
static uint64_t grow_to(Stores *stores, uint64_t have, uint64_t images)
{
    (void)run_self("fill", stores->grown, stores->last + 1, stores->last + images - have - MEASURED);
    stores->last += images - have - MEASURED;
    print_row(stores, images, ingest(stores));
    return images - images / 10;
}

/* All derived things lost at once. */
static void lose_everything(const char *store)
{
    const char *const rebuild[] = {kiln, "--store", store, "fsck", "--rebuild", NULL}, *const list[] = {kiln, "--store", store, "images", "--all", NULL};
    g_autofree char *catalog = g_build_filename(store, "catalog.db", NULL), *wal = g_strconcat(catalog, "-wal", NULL), *index = g_build_filename(store, "index/blocks", NULL);
    Run one = run_self("index", store, 0, 0);
    double blocks = run_self("count", store, 0, 0).said, again;

    printf("block index made again from %.0f blocks: %.2f s\n", blocks, one.said);
    (void)run(list);
    must(unlink(catalog) == 0 && unlink(index) == 0, NULL);
    (void)unlink(wal);
    one = run(rebuild);
    again = run_self("count", store, 0, 0).said;
    printf("catalog and index lost, kiln fsck --rebuild (with a check of all rows): %.2f s, %ld MB; blocks found again: %.0f of %.0f\n", one.wall, one.rss / 1024, again,
           blocks);
    must(again == blocks, NULL);
}

static void measure(const char *folder, char **counts, int count)
{
    g_autofree char *grown = g_build_filename(folder, "store", NULL), *single = g_build_filename(folder, "single", NULL);
    Stores stores = {grown, single, 0, 2};
    uint64_t have = 0;

    must(file_make_dirs(folder, 0755, NULL), NULL);
    (void)run_self("fill", single, 1, 2);
    print_head();
    for (int i = 0; i < count; i++)
        have = grow_to(&stores, have, strtoull(counts[i], NULL, 10));
    lose_everything(grown);
}

int main(int argc, char **argv)
{
    static char *const usual[] = {(char *)"10", (char *)"100", (char *)"1000"};

    if (argc > 3 && strcmp(argv[1], "--one") == 0)
        return do_one(argc, argv);
    if (argc < 3) {
        fprintf(stderr, "growth KILN FOLDER [IMAGES...]\n");
        return 2;
    }
    self = "/proc/self/exe";
    kiln = argv[1];
    measure(argv[2], argc > 3 ? argv + 3 : (char **)usual, argc > 3 ? argc - 3 : 3);
    return 0;
}
