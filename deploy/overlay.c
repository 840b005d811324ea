/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocks that an instance changed, as names that a person knows.
 *
 * Where partitions are is taken from the image, never from the overlay: what a guest did to its partition table is told as a change of
 * the table, and only the length of a partition that grew in place is believed, as its file system may have grown with it. Inside an ext4,
 * blocks become paths by comparing the file system with itself (tree_diff_ext4). Blocks of an ext4 that lead to no path, such as counters
 * of mounts, times of access or free space, are no change.
 */
#include "deploy/overlay.h"

#include "base/error.h"
#include "base/log.h"
#include "base/printable.h"

#include <string.h>

#define ENTRIES_MAX 100000
#define BLOCK ((uint64_t)STORE_BLOCK_SIZE)

typedef struct Look {
    StoreMap *base;
    const DiskOverlay *overlay;
    GArray *parts;     /* of the image, by place */
    GArray *parts_now; /* of the overlay; NULL: its table cannot be read */
    guint root;        /* index into parts; parts->len: none */
    char *prefix;      /* of paths, while an ext4 is compared */
    GPtrArray *entries;
    uint64_t more;
} Look;

static void look_clear(Look *look)
{
    if (look->parts)
        g_array_unref(look->parts);
    if (look->parts_now)
        g_array_unref(look->parts_now);
    g_free(look->prefix);
    if (look->entries)
        g_ptr_array_unref(look->entries);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Look, look_clear)

/* Takes @path. */
static void append(GPtrArray *entries, char *path, const char *what)
{
    DriftEntry *entry = g_new0(DriftEntry, 1);

    entry->path = path;
    entry->what = g_strdup(what);
    g_ptr_array_add(entries, entry);
}

/* Takes @path. */
static void look_add(Look *look, char *path, const char *what)
{
    if (look->entries->len < ENTRIES_MAX) {
        append(look->entries, path, what);
        return;
    }
    look->more++;
    g_free(path);
}

static void add_more(Look *look)
{
    if (look->more)
        append(look->entries, g_strdup_printf("(and %" G_GUINT64_FORMAT " more)", look->more), "changed");
}

/* Names are the guest's: they must not drive a terminal, break a line or spoil JSON. */
static char *escape_path(const char *prefix, const char *path)
{
    GString *text = g_string_new(prefix);

    g_string_append_c(text, '/');
    while (*path) {
        gunichar c = g_utf8_get_char_validated(path, -1);
        bool valid = c != (gunichar)-1 && c != (gunichar)-2, plain = valid && g_unichar_isprint(c) && c != '\\';
        size_t size = valid ? (size_t)(g_utf8_next_char(path) - path) : 1;

        for (size_t i = 0; i < size; i++)
            plain ? g_string_append_c(text, path[i]) : (void)g_string_append_printf(text, "\\x%02x", (uint8_t)path[i]);
        path += size;
    }
    return g_string_free(text, FALSE);
}

/* --- inside an ext4 --- */

/* tree_diff_ext4() tells of no pair that is equal. */
static char *what_changed(const TreeEntry *a, const TreeEntry *b)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new();

    if (a->type != b->type)
        return g_strdup("type changed");
    if (a->size != b->size || !digest_equal(&a->sha256, &b->sha256) || g_strcmp0(a->target, b->target) != 0 || a->major != b->major ||
        a->minor != b->minor)
        return g_strdup("changed");
    if (a->mode != b->mode)
        g_ptr_array_add(words, (char *)"mode changed");
    if (a->uid != b->uid || a->gid != b->gid)
        g_ptr_array_add(words, (char *)"owner changed");
    if (!tree_xattrs_equal(a->xattrs, b->xattrs))
        g_ptr_array_add(words, (char *)"attributes changed");
    g_ptr_array_add(words, NULL);
    return g_strjoinv(", ", (char **)words->pdata);
}

static bool file_differs(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    Look *look = arg;
    g_autofree char *word = what == '+' ? g_strdup("added") : what == '-' ? g_strdup("removed") : what_changed(a, b);

    look_add(look, escape_path(look->prefix, (b ? b : a)->path), word);
    return true;
}

/* --- partitions --- */

/* The partition as the guest sees it now, when it still begins where it did. */
static uint64_t size_now(const Look *look, const DiskPartition *part)
{
    for (guint i = 0; look->parts_now && i < look->parts_now->len; i++) {
        const DiskPartition *now = &g_array_index(look->parts_now, DiskPartition, i);

        if (now->number == part->number && now->offset == part->offset)
            return now->size;
    }
    return part->size;
}

static void add_blocks(Look *look, const char *name, uint64_t count)
{
    if (count)
        look_add(look, g_strdup_printf("(%s, %" G_GUINT64_FORMAT " block%s)", name, count, count == 1 ? "" : "s"), "changed");
}

/* A Linux that mounts a vfat sets a bit in its first sector until it unmounts it. */
static uint64_t vfat_blocks(Look *look, const DiskPartition *part, uint64_t count)
{
    uint8_t before[BLOCK], now[BLOCK];
    size_t at;

    if (part->size < BLOCK || disk_overlay_changed(look->overlay, part->offset, part->offset + 1) == 0 ||
        !store_map_pread(look->base, before, BLOCK, part->offset, NULL) ||
        !store_map_pread(disk_overlay_map(look->overlay), now, BLOCK, part->offset, NULL))
        return count;
    at = memcmp(before + 82, "FAT32", 5) == 0 ? 65 : 37;
    before[at] &= (uint8_t)~1;
    now[at] &= (uint8_t)~1;
    return memcmp(before, now, BLOCK) == 0 && part->offset % BLOCK == 0 ? count - 1 : count;
}

/* @why may quote names that the guest chose. */
static void add_root(Look *look, uint64_t count, const char *why)
{
    g_autofree char *plain = why ? printable_line(why) : NULL, *valid = plain ? g_utf8_make_valid(plain, -1) : NULL;
    g_autofree char *what = valid ? g_strdup_printf("unreadable: %s", valid) : g_strdup("unreadable");

    look_add(look, g_strdup_printf("(root, %" G_GUINT64_FORMAT " block%s of 4 KiB changed)", count, count == 1 ? "" : "s"), what);
}

static void add_opaque(Look *look, guint index, uint64_t count, const char *why)
{
    const DiskPartition *part = &g_array_index(look->parts, DiskPartition, index);
    g_autofree char *name = g_strdup_printf("%spartition %u", strcmp(part->fs, "swap") == 0 ? "swap on " : "", part->number);

    if (index == look->root) {
        add_root(look, count, why);
        return;
    }
    if (strcmp(part->fs, "vfat") == 0)
        count = vfat_blocks(look, part, count);
    add_blocks(look, name, count);
}

/* Entries of a comparison that fails half-way are no use. */
static bool look_into_ext4(Look *look, guint index, uint64_t count, GError **error)
{
    const DiskPartition *part = &g_array_index(look->parts, DiskPartition, index);
    g_autoptr(GError) problem = NULL;
    guint before = look->entries->len;
    uint64_t left = 0, more = look->more;

    g_free(look->prefix);
    look->prefix = index == look->root ? g_strdup("") : g_strdup_printf("(partition %u) ", part->number);
    if (tree_diff_ext4(look->base, part->offset, part->size, disk_overlay_map(look->overlay), part->offset, size_now(look, part), file_differs,
                       look, &left, &problem)) {
        if (left)
            look_add(look, g_strdup_printf("(the journal holds %" G_GUINT64_FORMAT " block%s of fast commits)", left, left == 1 ? "" : "s"),
                     "unreadable");
        return true;
    }
    if (g_error_matches(problem, KILN_ERROR, KILN_ERROR_INTERRUPTED)) {
        g_propagate_error(error, g_steal_pointer(&problem));
        return false;
    }
    g_ptr_array_set_size(look->entries, (gint)before);
    look->more = more;
    add_opaque(look, index, count, problem->message);
    return true;
}

static bool look_into(Look *look, guint index, GError **error)
{
    const DiskPartition *part = &g_array_index(look->parts, DiskPartition, index);
    uint64_t count = disk_overlay_changed(look->overlay, part->offset, part->offset + size_now(look, part));

    if (count == 0)
        return true;
    if (strcmp(part->fs, "ext4") == 0)
        return look_into_ext4(look, index, count, error);
    add_opaque(look, index, count, NULL);
    return true;
}

/* A disk without partitions that we know: its root is somewhere on it. */
static void look_at_whole(Look *look, const char *why)
{
    uint64_t count = disk_overlay_changed(look->overlay, 0, store_map_size(disk_overlay_map(look->overlay)));

    if (count)
        add_root(look, count, why);
}

/* Blocks of no partition: before the first one and behind the last one is where tables are. */
static void look_between(Look *look)
{
    uint64_t size = store_map_size(look->base), end = store_map_size(disk_overlay_map(look->overlay)), done = 0, table = 0, gaps = 0;

    for (guint i = 0; i < look->parts->len; i++) {
        const DiskPartition *part = &g_array_index(look->parts, DiskPartition, i);

        if (part->offset / BLOCK > done / BLOCK)
            *(i == 0 ? &table : &gaps) += disk_overlay_changed(look->overlay, done, part->offset / BLOCK * BLOCK);
        done = MAX(done, (part->offset + size_now(look, part) + BLOCK - 1) / BLOCK * BLOCK);
    }
    table += disk_overlay_changed(look->overlay, done, MAX(size, done));
    add_blocks(look, "partition table", table);
    add_blocks(look, "outside of partitions", gaps);
    add_blocks(look, "beyond the image's end", disk_overlay_changed(look->overlay, MAX(size, done), end));
}

static gint compare_offsets(gconstpointer a, gconstpointer b)
{
    const DiskPartition *pa = a, *pb = b;

    return pa->offset < pb->offset ? -1 : pa->offset > pb->offset;
}

static bool holds_root(StoreMap *base, const DiskPartition *part)
{
    g_autoptr(Ext4Root) root = NULL;
    g_auto(GStrv) names = NULL;

    return strcmp(part->fs, "ext4") == 0 && ext4_root_open(base, part->offset, part->size, &root, NULL) &&
           ext4_root_list(root, "/etc", &names, NULL) && names && *names;
}

static bool may_be_root(const DiskPartition *part)
{
    return strcmp(part->fs, "vfat") != 0 && strcmp(part->fs, "swap") != 0;
}

/* The ext4 with an /etc; where no ext4 has one, the largest partition that may hold a root which cannot be read. */
static void find_root(Look *look)
{
    uint64_t largest = 0;

    look->root = look->parts->len;
    for (guint i = 0; i < look->parts->len; i++) {
        const DiskPartition *part = &g_array_index(look->parts, DiskPartition, i);

        if (holds_root(look->base, part)) {
            look->root = i;
            return;
        }
        if (may_be_root(part) && part->size > largest) {
            largest = part->size;
            look->root = i;
        }
    }
}

static bool look_at_partitions(Look *look, GError **error)
{
    g_array_sort(look->parts, compare_offsets);
    if (!disk_partitions(disk_overlay_map(look->overlay), &look->parts_now, NULL))
        look->parts_now = NULL;
    find_root(look);
    look_between(look);
    for (guint i = 0; i < look->parts->len; i++)
        if (!look_into(look, i, error))
            return false;
    add_more(look);
    return true;
}

bool overlay_changes(Store *store, const char *overlay_path, const char *base_path, const StoreImage *image, GPtrArray **ret, GError **error)
{
    g_autoptr(StoreMap) base = NULL;
    g_autoptr(DiskOverlay) overlay = NULL;
    g_autoptr(GError) no_table = NULL;
    g_auto(Look) look = {.entries = g_ptr_array_new_with_free_func((GDestroyNotify)drift_entry_free)};

    if (strcmp(image->kind, "disk") != 0)
        return fail(error, "only instances of disk images have an overlay");
    if (!store_map_open(store, &image->map, &base, error) || !disk_overlay_open(base, overlay_path, base_path, &overlay, error))
        return false;
    look.base = base;
    look.overlay = overlay;
    if (!disk_partitions(base, &look.parts, &no_table) || look.parts->len == 0)
        look_at_whole(&look, no_table ? no_table->message : NULL);
    else if (!look_at_partitions(&look, error))
        return false;
    *ret = g_steal_pointer(&look.entries);
    return true;
}
