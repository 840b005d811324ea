/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second bake runs in a thread of its own, because mask, host name and the like can be a thread's own on Linux: its children
 * inherit them, and the rest of kiln keeps what it has.
 */
#include "baker/verify.h"

#include "baker/image-diff.h"
#include "baker/origins.h"
#include "baker/rebuild.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLOCK_AHEAD (27 * 3600 + 61) /* over midnight, and still within what signed release files allow */
#define SHOWN_BYTES 16u
#define PIECE ((size_t)1 << 20)

/* --- two bakes ------------------------------------------------------------------------------- */

typedef struct Bake {
    Store *store;
    Template *template;
    const TemplateBuild *build;
    BakeOptions options;
    BakeResult result;
    GError *error;
    bool ok, other;
} Bake;

/* One processor is busy with something else: what finishes first is then another one. */
static gpointer be_busy(gpointer stop)
{
    while (!g_atomic_int_get((gint *)stop))
        ;
    return NULL;
}

/* Only what this thread may have for itself; what the kernel refuses stays as it was. */
static void change_around(void)
{
    if (unshare(CLONE_FS) == 0)
        (void)umask(0077);
    if (unshare(CLONE_NEWUTS) == 0)
        (void)sethostname("elsewhere", strlen("elsewhere"));
}

static gpointer run_bake(gpointer arg)
{
    Bake *bake = arg;
    gint stop = 0;
    g_autoptr(GThread) load = NULL;

    if (bake->other) {
        change_around();
        load = g_thread_new("load", be_busy, &stop);
    }
    bake->ok = bake_build(bake->store, bake->template, bake->build, &bake->options, &bake->result, &bake->error);
    g_atomic_int_set(&stop, 1);
    if (load)
        g_thread_join(g_steal_pointer(&load));
    return NULL;
}

static bool run(Bake *bake, GError **error)
{
    GThread *thread = g_thread_new("bake", run_bake, bake);

    g_thread_join(thread);
    if (!bake->ok)
        g_propagate_error(error, g_steal_pointer(&bake->error));
    return bake->ok;
}

static bool bake_both(Bake *a, Bake *b, GError **error)
{
    g_autofree char *dir = NULL, *lock = NULL;
    bool ok;

    if (!file_make_short_tmpdir(&dir, error))
        return false;
    lock = g_build_filename(dir, "lock", NULL);
    a->options.lock = a->options.locked ? NULL : lock;
    b->options.locked = a->options.locked ? a->options.locked : lock;
    b->options.lock = NULL;
    log_info("==> %s: the first bake, from nothing", a->build->name);
    ok = run(a, error);
    if (ok) {
        log_info("==> %s: the second bake, under other circumstances", b->build->name);
        ok = run(b, error);
    }
    (void)file_remove_tree(AT_FDCWD, dir, NULL); /* a temporary folder */
    return ok;
}

/* --- what differs ------------------------------------------------------------------------------ */

static void difference_free(gpointer data)
{
    VerifyDifference *difference = data;

    g_free(difference->path);
    g_free(difference->what);
    g_free(difference->step);
    g_free(difference->bytes);
    g_free(difference);
}

static void verify_image_free(gpointer data)
{
    VerifyImage *image = data;

    g_free(image->kind);
    g_ptr_array_unref(image->differences);
    g_free(image);
}

static void add_difference(VerifyImage *image, char *path, char *what, char *step, char *bytes)
{
    VerifyDifference *difference = g_new0(VerifyDifference, 1);

    *difference = (VerifyDifference){path, what, step, bytes};
    image->count++;
    if (image->differences->len < VERIFY_LISTED)
        g_ptr_array_add(image->differences, difference);
    else
        difference_free(difference);
}

static char *hex(const uint8_t *bytes, size_t size)
{
    GString *text = g_string_new(NULL);

    for (size_t i = 0; i < size; i++)
        g_string_append_printf(text, "%s%02x", i ? " " : "", bytes[i]);
    return g_string_free(text, FALSE);
}

/* "at 1234: 61 62 63 | 61 62 64" of two pieces of equal size that start at @offset; NULL when they are equal. */
static char *first_difference(const uint8_t *a, const uint8_t *b, size_t size, uint64_t offset)
{
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i]) {
            size_t n = MIN(size - i, SHOWN_BYTES);
            g_autofree char *left = hex(a + i, n), *right = hex(b + i, n);

            return g_strdup_printf("at %" G_GUINT64_FORMAT ": %s | %s", offset + i, left, right);
        }
    return NULL;
}

/* Of two stretches of maps; *ret NULL when they are equal. */
static bool compare_bytes(StoreMap *a, uint64_t a_from, StoreMap *b, uint64_t b_from, uint64_t size, char **ret, GError **error)
{
    g_autofree uint8_t *left = g_malloc(PIECE), *right = g_malloc(PIECE);

    *ret = NULL;
    for (uint64_t done = 0; done < size && !*ret; done += PIECE) {
        size_t piece = (size_t)MIN((uint64_t)PIECE, size - done);

        if (!store_map_pread(a, left, piece, a_from + done, error) || !store_map_pread(b, right, piece, b_from + done, error))
            return false;
        *ret = first_difference(left, right, piece, done);
    }
    return true;
}

typedef struct Pair {
    Store *store;
    const Bake *a, *b;
    const StoreImage *image_a, *image_b;
    VerifyImage *verdict;
} Pair;

static bool content_bytes(const ImageRoot *a, const ImageRoot *b, const FileChange *change, char **ret, GError **error)
{
    const TreeEntry *left = change->a ? tree_content_entry(a->tree, change->a) : NULL;
    const TreeEntry *right = change->b ? tree_content_entry(b->tree, change->b) : NULL;

    *ret = NULL;
    if (!left || !right || left->type != 'f' || right->type != 'f')
        return true;
    if (!compare_bytes(a->files, left->data_offset, b->files, right->data_offset, MIN(left->size, right->size), ret, error))
        return false;
    if (!*ret && left->size != right->size)
        *ret = g_strdup_printf("%" G_GUINT64_FORMAT " and %" G_GUINT64_FORMAT " bytes long, the same as far as both go", left->size, right->size);
    return true;
}

static bool note_file(Pair *pair, const ImageRoot *a, const ImageRoot *b, const FileChange *change, GError **error)
{
    const char *path = (change->b ? change->b : change->a)->path;
    g_autoptr(GString) what = g_string_new(!change->a ? "only in the second" : !change->b ? "only in the first" : "");
    g_autofree char *step = NULL, *bytes = NULL;

    for (size_t i = 0; i < FILE_PARTS; i++)
        if (change->parts & (1u << i))
            g_string_append_printf(what, "%s%s", what->len ? ", " : "", file_part_names[i]);
    if (!origins_kept_step(pair->store, (change->b ? pair->b : pair->a)->result.kept, pair->image_a->kind, path, &step, error) ||
        (change->parts & FILE_PART_CONTENT && !content_bytes(a, b, change, &bytes, error)))
        return false;
    add_difference(pair->verdict, g_strconcat("/", path, NULL), g_string_free(g_steal_pointer(&what), FALSE),
                   step ? g_steal_pointer(&step) : g_strdup("the source"), g_steal_pointer(&bytes));
    return true;
}

static bool compare_trees(Pair *pair, GError **error)
{
    g_autoptr(ImageRoot) a = NULL, b = NULL;
    g_autoptr(ImageDiff) diff = NULL;

    if (!image_root_of(pair->store, pair->image_a, &a, error) || !image_root_of(pair->store, pair->image_b, &b, error) ||
        !image_diff(a, b, &diff, error))
        return false;
    for (guint i = 0; i < diff->files->len; i++)
        if (!note_file(pair, a, b, &g_array_index(diff->files, FileChange, i), error))
            return false;
    return true;
}

/* --- disks that stay as they are ----------------------------------------------------------------- */

static bool note_stretch(Pair *pair, StoreMap *a, StoreMap *b, uint64_t from, uint64_t to, const char *what, GError **error)
{
    g_autofree char *bytes = NULL;

    if (from >= to)
        return true;
    if (!compare_bytes(a, from, b, from, to - from, &bytes, error))
        return false;
    if (bytes)
        add_difference(pair->verdict, g_strdup_printf("bytes %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " of the disk", from, to - 1),
                       g_strdup(what), NULL, g_steal_pointer(&bytes));
    return true;
}

static gint by_offset(gconstpointer a, gconstpointer b)
{
    const DiskPartition *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Tables, gaps and partitions that no file system we know is in: boot loaders live there. */
static bool compare_areas(Pair *pair, GError **error)
{
    g_autoptr(StoreMap) a = NULL, b = NULL;
    g_autoptr(GArray) partitions = NULL;
    uint64_t done = 0;

    if (!store_map_open(pair->store, &pair->image_a->map, &a, error) || !store_map_open(pair->store, &pair->image_b->map, &b, error) ||
        !disk_partitions(a, &partitions, error))
        return false;
    if (store_map_size(a) != store_map_size(b)) {
        add_difference(pair->verdict, g_strdup("the disk"), g_strdup("size"), NULL, NULL);
        return true;
    }
    g_array_sort(partitions, by_offset);
    for (guint i = 0; i < partitions->len; i++) {
        const DiskPartition *part = &g_array_index(partitions, DiskPartition, i);

        if (!*part->fs || part->offset < done)
            continue;
        if (!note_stretch(pair, a, b, done, part->offset, "partition table or boot area", error))
            return false;
        done = part->offset + part->size;
    }
    return note_stretch(pair, a, b, done, store_map_size(a), "partition table or boot area", error);
}

static bool is_in_place(Store *store, const StoreImage *image, bool *ret, GError **error)
{
    g_autoptr(json_t) config = NULL;

    *ret = false;
    if (strcmp(image->kind, "disk") != 0)
        return true;
    if (!store_image_config(store, &image->id, 1 << 20, NULL, &config, error))
        return false;
    *ret = g_strcmp0(json_string_value(json_object_get(config, "layout")), "in-place") == 0;
    return true;
}

/* --- the verdict ------------------------------------------------------------------------------------ */

static bool judge(Pair *pair, GError **error)
{
    bool in_place;

    if (digest_equal(&pair->image_a->id, &pair->image_b->id)) {
        pair->verdict->verdict = VERIFY_EQUAL;
        return true;
    }
    pair->verdict->verdict = VERIFY_DIFFERENT;
    if (!is_in_place(pair->store, pair->image_a, &in_place, error))
        return false;
    if (!digest_is_none(&pair->image_a->tree.tree) && !compare_trees(pair, error))
        return false;
    if (in_place && !compare_areas(pair, error))
        return false;
    if (in_place && pair->verdict->count == 0 && !digest_is_none(&pair->image_a->tree.tree))
        pair->verdict->verdict = VERIFY_EQUAL_TREE;
    else if (pair->verdict->count == 0)
        add_difference(pair->verdict, g_strdup("the image"), g_strdup(in_place ? "blocks, of a file system that kiln cannot read" : "metadata"), NULL, NULL);
    return true;
}

static bool compare(Store *store, const Bake *a, const Bake *b, GPtrArray *verdicts, GError **error)
{
    for (guint i = 0; i < a->result.images->len; i++) {
        const StoreImage *image = a->result.images->pdata[i], *other = store_images_find(b->result.images, image->kind);
        VerifyImage *verdict = g_new0(VerifyImage, 1);
        Pair pair = {store, a, b, image, other, verdict};

        verdict->kind = g_strdup(image->kind);
        verdict->differences = g_ptr_array_new_with_free_func(difference_free);
        g_ptr_array_add(verdicts, verdict);
        if (!other)
            return fail(error, "the second bake made no %s", image->kind);
        verdict->a = image->id;
        verdict->b = other->id;
        if (!judge(&pair, error))
            return false;
    }
    return true;
}

bool verify_build(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) verdicts = g_ptr_array_new_with_free_func(verify_image_free);
    Bake a = {.store = store, .template = template, .build = build, .options = *options}, b;
    bool ok;

    a.options.no_cache = a.options.unpublished = true;
    a.options.fresh_since = a.options.fresh_since ? a.options.fresh_since : g_get_real_time() / G_USEC_PER_SEC;
    b = a;
    b.other = true;
    b.options.around = (BakeAround){.clock_ahead = CLOCK_AHEAD, .other_order = true};
    ok = bake_both(&a, &b, error) && compare(store, &a, &b, verdicts, error);
    bake_result_clear(&a.result);
    bake_result_clear(&b.result);
    if (ok)
        *ret = g_steal_pointer(&verdicts);
    return ok;
}

static bool run_rebuild(Store *store, Rebuild *rebuild, const BakeOptions *options, GPtrArray *verdicts, GError **error)
{
    Bake stored = {.store = store, .build = rebuild->build}, again = {.store = store, .template = rebuild->template, .build = rebuild->build, .options = *options};
    bool ok;

    stored.result.images = g_ptr_array_ref(rebuild->images);
    stored.result.kept = g_hash_table_ref(rebuild->kept);
    again.options.no_cache = again.options.unpublished = true;
    again.options.rebuild = &rebuild->recorded;
    again.options.locked = rebuild->lock;
    log_info("==> %s: rebuilt from its recorded inputs", rebuild->build->name);
    ok = run(&again, error) && compare(store, &stored, &again, verdicts, error);
    bake_result_clear(&stored.result);
    bake_result_clear(&again.result);
    return ok;
}

bool verify_image(Store *store, const char *ref, const char *const *vars, const BakeOptions *options, char **ret_name, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) verdicts = g_ptr_array_new_with_free_func(verify_image_free);
    g_autoptr(Rebuild) rebuild = NULL;
    g_autoptr(StoreLease) lease = NULL;

    if (!store_lease_take(store, "a rebuild of a stored image", &lease, error) || !rebuild_open(store, ref, vars, &rebuild, error) ||
        !run_rebuild(store, rebuild, options, verdicts, error))
        return false;
    *ret_name = g_strdup(rebuild->build->name);
    *ret = g_steal_pointer(&verdicts);
    return true;
}
