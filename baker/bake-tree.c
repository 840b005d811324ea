/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root of a working disk as a tree: the content that keys are made of,
 * and the normalised form that outputs are made of.
 */
#include "baker/bake-internal.h"

#include "baker/memos.h"
#include "baker/render.h"
#include "base/error.h"
#include "base/log.h"

#include <string.h>

/* What the renderer adds to a root: made again at each render, so no part of the tree. */
static const char *const rendered_paths[] = {"boot/grub/grub.cfg", "lost+found", NULL};

static bool looks_like_root(Tree *tree)
{
    return (tree_find(tree, "etc/os-release") || tree_find(tree, "etc/fstab") || tree_find(tree, "usr/lib/os-release")) &&
           tree_find(tree, "etc");
}

bool bake_known(BakeChain *chain, TreeKnown **ret, GError **error)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;

    if (!chain->known) {
        chain->known = tree_known_new();
        if (!digest_is_none(&chain->state.tree.tree) && (!tree_load(chain->store, &chain->state.tree, &tree, &files, error) ||
                                                         !tree_known_add(chain->known, tree, files, error)))
            return false;
    }
    *ret = chain->known;
    return true;
}

static bool try_root(BakeChain *chain, StoreMap *disk, const DiskPartition *partition)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(GError) ignored = NULL;
    TreeKnown *known = NULL;

    return bake_known(chain, &known, &ignored) && tree_read_ext4(chain->store, disk, partition->offset, partition->size, NULL, known, &tree, NULL, &ignored) &&
           looks_like_root(tree);
}

/* Looking needs the disk, which may be another machine's so far (shared-cache.h). */
static bool recall_root(BakeChain *chain, GError **error)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *key = g_strconcat(MEMO_DISK_ROOT, digest_to_hex(&chain->state.map, hex), NULL), *value = NULL;

    if (!store_memo_get(chain->store, key, &value, error))
        return false;
    if (!value)
        return true;
    chain->root_found = sscanf(value, "%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT, &chain->root_offset, &chain->root_size) == 2;
    chain->root_known = chain->root_found || strcmp(value, "none") == 0;
    return true;
}

static bool remember_root(BakeChain *chain, GError **error)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *key = g_strconcat(MEMO_DISK_ROOT, digest_to_hex(&chain->state.map, hex), NULL);
    g_autofree char *value = chain->root_found ? g_strdup_printf("%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT, chain->root_offset, chain->root_size)
                                               : g_strdup("none");

    return !chain->root_known || chain->options->unpublished || store_memo_put(chain->store, key, value, NULL, NULL, error);
}

/* A root with a journal to replay is found later, when the guest has mounted it. */
static bool look_for_root(BakeChain *chain, StoreMap *disk, GError **error)
{
    g_autoptr(GArray) partitions = NULL;

    if (!disk_partitions(disk, &partitions, error))
        return false;
    chain->root_known = true;
    for (guint i = 0; i < partitions->len && !chain->root_found; i++) {
        const DiskPartition *partition = &g_array_index(partitions, DiskPartition, i);

        chain->root_known = chain->root_known && !partition->unclean;
        if (!g_str_equal(partition->fs, "ext4") || partition->unclean || !try_root(chain, disk, partition))
            continue;
        chain->root_offset = partition->offset;
        chain->root_size = partition->size;
        chain->root_found = chain->root_known = true;
    }
    return true;
}

bool bake_find_root(BakeChain *chain, StoreMap *disk, uint64_t *ret_offset, uint64_t *ret_size, bool *ret_found,
                    GError **error)
{
    if (!chain->root_known) {
        if (chain->state.layout == LAYOUT_RENDERED) {
            render_root_extent(chain->state.size, &chain->root_offset, &chain->root_size);
            chain->root_found = true;
            chain->root_known = true;
        } else if (!recall_root(chain, error) ||
                   (!chain->root_known && (!look_for_root(chain, disk, error) || !remember_root(chain, error)))) {
            return false;
        }
    }
    *ret_offset = chain->root_offset;
    *ret_size = chain->root_size;
    *ret_found = chain->root_found;
    return true;
}

static void drop_paths(Tree *tree, const char *const *paths)
{
    for (; *paths; paths++)
        tree_remove(tree, *paths);
}

static void empty_file(Tree *tree, const char *path)
{
    TreeEntry *entry = tree_find_mutable(tree, path);

    if (entry->type == 'h')
        return;
    entry->size = 0;
    digest_of("", 0, &entry->sha256);
}

/* Verdicts are collected first: removing while walking would move what is walked. */
static void clean(BakeChain *chain, Tree *tree)
{
    g_autoptr(GPtrArray) drop = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) empty = g_ptr_array_new_with_free_func(g_free);
    const char *inside = NULL; /* folder whose contents go */

    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *entry = tree_nth(tree, i);
        SysprepVerdict verdict = provisioner_sysprep_verdict(entry->path, entry->type, bake_volatile_paths(chain));

        if (inside && g_str_has_prefix(entry->path, inside) && entry->path[strlen(inside)] == '/') {
            g_ptr_array_add(drop, g_strdup(entry->path));
            continue;
        }
        inside = verdict == SYSPREP_EMPTY_DIR ? entry->path : NULL;
        if (verdict == SYSPREP_DROP)
            g_ptr_array_add(drop, g_strdup(entry->path));
        else if (verdict == SYSPREP_EMPTY && entry->type == 'f')
            g_ptr_array_add(empty, g_strdup(entry->path));
    }
    for (guint i = 0; i < empty->len; i++)
        empty_file(tree, empty->pdata[i]);
    for (guint i = 0; i < drop->len; i++)
        tree_remove(tree, drop->pdata[i]);
}

/* Times later than the bake's own are the host's or the guest's clock showing through. */
static void clamp_times(Tree *tree, int64_t epoch)
{
    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *entry = tree_nth(tree, i);

        if (entry->mtime > epoch)
            tree_find_mutable(tree, entry->path)->mtime = epoch;
    }
}

/* A step's own scripts come and go in these: a step that changes nothing else has changed nothing. */
static void steady_folders(Tree *tree)
{
    static const char *const folders[] = {"tmp", "var/tmp", "run"};

    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++) {
        TreeEntry *entry = tree_find_mutable(tree, folders[i]);

        if (entry && entry->type == 'd')
            entry->mtime = 0;
    }
}

void bake_normalise(BakeChain *chain, Tree *tree)
{
    drop_paths(tree, rendered_paths);
    clean(chain, tree);
    clamp_times(tree, chain->epoch);
}

static void steady_digest(BakeChain *chain, Tree *tree, Digest *ret)
{
    tree_remove(tree, "lost+found");
    clamp_times(tree, chain->epoch);
    steady_folders(tree);
    tree_digest(tree, ret);
}

#define HASHES_AT_ONCE 4096

/* The blocks that touch [@from, @to) and are not zero, with their numbers. */
static bool add_blocks(StoreMap *disk, uint64_t from, uint64_t to, DigestStream *stream, GError **error)
{
    g_autofree Digest *hashes = g_new(Digest, HASHES_AT_ONCE);
    uint64_t end;
    bool zero;

    for (from -= from % STORE_BLOCK_SIZE; from < to; from = end) {
        uint64_t first = from / STORE_BLOCK_SIZE;
        size_t count;

        store_map_extent(disk, from, &end, &zero);
        if (zero)
            continue;
        end = MIN(MIN(end, to), from + (uint64_t)HASHES_AT_ONCE * STORE_BLOCK_SIZE);
        count = (size_t)((end - from + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE);
        end = (first + count) * STORE_BLOCK_SIZE;
        if (!store_map_hashes(disk, first, count, hashes, error))
            return false;
        for (size_t i = 0; i < count; i++) {
            uint64_t block = GUINT64_TO_LE(first + i);

            digest_stream_update(stream, &block, sizeof block);
            digest_stream_update(stream, hashes[i].bytes, sizeof hashes[i].bytes);
        }
    }
    return true;
}

static gint compare_offsets(gconstpointer a, gconstpointer b)
{
    const DiskPartition *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/*
 * A disk that stays as it is is more than its root: equal roots on disks with another layout, boot loader or /boot are not
 * one state. Each ext4 counts by its tree, since mounting alone changes its blocks, and all else by its blocks.
 */
static bool inplace_content(BakeChain *chain, StoreMap *disk, Digest *ret, GError **error)
{
    g_autoptr(GArray) partitions = NULL;
    g_autoptr(DigestStream) stream = digest_stream_new();
    uint64_t done = 0, size = GUINT64_TO_LE(store_map_size(disk));
    TreeKnown *known = NULL;

    if (!disk_partitions(disk, &partitions, error) || !bake_known(chain, &known, error))
        return false;
    g_array_sort(partitions, compare_offsets);
    digest_stream_update(stream, &size, sizeof size);
    for (guint i = 0; i < partitions->len; i++) {
        const DiskPartition *part = &g_array_index(partitions, DiskPartition, i);
        g_autoptr(Tree) tree = NULL;
        Digest digest;

        if (!g_str_equal(part->fs, "ext4") || part->unclean || part->offset < done ||
            !tree_read_ext4(chain->store, disk, part->offset, part->size, NULL, known, &tree, NULL, NULL))
            continue;
        steady_digest(chain, tree, &digest);
        digest_stream_update(stream, digest.bytes, sizeof digest.bytes);
        if (!add_blocks(disk, done, part->offset, stream, error))
            return false;
        done = part->offset + part->size;
    }
    if (!add_blocks(disk, done, store_map_size(disk), stream, error))
        return false;
    digest_stream_final(stream, ret);
    return true;
}

bool bake_tree_content(BakeChain *chain, const TreeStored *stored, Digest *ret, GError **error)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;

    if (!tree_load(chain->store, stored, &tree, &files, error))
        return false;
    drop_paths(tree, rendered_paths);
    steady_digest(chain, tree, ret);
    return true;
}

bool bake_content(BakeChain *chain, const Digest *map, Digest *ret, GError **error)
{
    g_autoptr(StoreMap) disk = NULL;
    g_autoptr(Tree) tree = NULL;
    uint64_t offset, size;
    TreeKnown *known = NULL;
    bool found;

    if (!store_map_open(chain->store, map, &disk, error))
        return false;
    if (chain->state.layout == LAYOUT_INPLACE)
        return inplace_content(chain, disk, ret, error);
    if (!bake_find_root(chain, disk, &offset, &size, &found, error) || !bake_known(chain, &known, error) ||
        !tree_read_ext4(chain->store, disk, offset, size, NULL, known, &tree, NULL, error))
        return false;
    drop_paths(tree, rendered_paths);
    steady_digest(chain, tree, ret);
    return true;
}
