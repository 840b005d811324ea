/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file space: where in one map the contents of a tree's files lie, and
 * trees in the store.
 *
 *     offset 0        4096            12288
 *     | etc/hostname  | usr/bin/true   | ...
 *     | 5 bytes, zero | 7000, zero     |
 *
 * The layout follows from the tree alone (entry order, equal content once), so
 * the canonical text need not say it and equal trees have equal maps.
 */
#include "store/tree-space.h"

#include "base/error.h"
#include "base/interrupt.h"

#include <string.h>

#define TREE_TEXT_MAX ((size_t)1 << 30)
#define CHECK_PIECE (1u << 20)

bool tree_space_lay_out(Tree *tree, GArray **ret_files, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(digest_hash, digest_equal_gfunc); /* sha256 -> first entry */
    g_autoptr(GArray) files = g_array_new(FALSE, FALSE, sizeof(TreeSpaceFile));
    uint64_t end = 0;

    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *nth = tree_nth(tree, i);
        TreeEntry *entry, *same;
        TreeSpaceFile file;

        if (nth->type != 'f')
            continue;
        entry = tree_find_mutable(tree, nth->path);
        if (entry->size > TREE_FILE_MAX || end > (uint64_t)1 << 60)
            return fail(error, "the file '%s' is too large to keep", entry->path);
        same = g_hash_table_lookup(seen, &entry->sha256);
        if (same && same->size == entry->size) {
            entry->data_offset = same->data_offset;
            continue;
        }
        file = (TreeSpaceFile){.from = entry->data_offset, .to = end, .size = entry->size, .entry = entry};
        entry->data_offset = end;
        end += tree_space_round(entry->size);
        g_hash_table_insert(seen, &entry->sha256, entry);
        g_array_append_val(files, file);
    }
    if (ret_files)
        *ret_files = g_steal_pointer(&files);
    return true;
}

uint64_t tree_space_size(const GArray *files)
{
    const TreeSpaceFile *last = files->len ? &g_array_index(files, TreeSpaceFile, files->len - 1) : NULL;

    return last ? last->to + tree_space_round(last->size) : 0;
}

/* Takes files over into @space, neighbours in one reference. */
static bool space_take_over(MapWriter *space, const GArray *files, StoreMap *from, GError **error)
{
    for (guint i = 0; i < files->len;) {
        const TreeSpaceFile *first = &g_array_index(files, TreeSpaceFile, i);
        uint64_t len = tree_space_round(first->size);

        for (i++; i < files->len; i++) {
            const TreeSpaceFile *next = &g_array_index(files, TreeSpaceFile, i);

            if (next->from != first->from + len)
                break;
            len += tree_space_round(next->size);
        }
        if (first->from + len > tree_space_round(store_map_size(from)))
            return fail(error, "the content of '%s' lies outside the tree's file space", first->entry->path);
        if (len && !map_writer_ref(space, first->to, from, first->from, len, error))
            return false;
    }
    return true;
}

bool tree_store(Store *store, StoreWriter *writer, Tree *tree, StoreMap *files, MapWriter **ret_space, GError **error)
{
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(GArray) layout = NULL;

    (void)store;
    if (!tree_space_lay_out(tree, &layout, error))
        return false;
    if (!map_writer_new(writer, tree_space_size(layout), NULL, &space, error) ||
        !space_take_over(space, layout, files, error) || !map_writer_finish(space, error))
        return fail_prefix(error, "keep the tree's files");
    *ret_space = g_steal_pointer(&space);
    return true;
}

bool tree_stored_result(Store *store, Tree *tree, const MapWriter *space, TreeStored *ret, GError **error)
{
    size_t size;
    g_autofree char *text = tree_to_text(tree, &size);
    TreeStored stored;
    MapResult result;

    if (!store_blob_put(store, text, size, &stored.tree, error))
        return false;
    map_writer_result(space, &result);
    stored.files = result.digest;
    *ret = stored;
    return true;
}

bool tree_load(Store *store, const TreeStored *stored, Tree **ret_tree, StoreMap **ret_files, GError **error)
{
    g_autoptr(GBytes) text = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    char hex[DIGEST_HEX_SIZE];
    const char *data;
    size_t size;

    if (!store_blob_get(store, &stored->tree, TREE_TEXT_MAX, &text, error))
        return false;
    data = g_bytes_get_data(text, &size);
    if (!tree_from_text(data, size, &tree, error))
        return fail_prefix(error, "tree %s", digest_to_hex(&stored->tree, hex));
    if (!digest_is_none(&stored->files) && !store_map_open(store, &stored->files, &files, error))
        return false;
    *ret_tree = g_steal_pointer(&tree);
    *ret_files = g_steal_pointer(&files);
    return true;
}

static bool check_file(StoreMap *files, const TreeEntry *entry, uint8_t *buf, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    Digest have;

    if (entry->size > store_map_size(files) || entry->data_offset > store_map_size(files) - entry->size)
        return fail(error, "file '%s' lies beyond the end of its tree's file space", entry->path);
    for (uint64_t at = 0; at < entry->size; at += CHECK_PIECE) {
        size_t n = (size_t)MIN(CHECK_PIECE, entry->size - at);

        if (!interrupt_check(error) || !store_map_pread_once(files, buf, n, entry->data_offset + at, error))
            return false;
        digest_stream_update(stream, buf, n);
    }
    digest_stream_final(stream, &have);
    return digest_equal(&have, &entry->sha256) || fail(error, "file '%s' has other bytes than its tree says", entry->path);
}

/* A tree that was loaded is laid out anew, so only files of equal size and SHA-256 start at the same place. */
bool tree_check_files(Store *store, const TreeStored *stored, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_int64_hash, g_int64_equal);
    g_autofree uint8_t *buf = g_malloc(CHECK_PIECE);
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;

    if (!tree_load(store, stored, &tree, &files, error))
        return false;
    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *entry = tree_nth(tree, i);

        if (entry->type == 'f' && entry->size > 0 && g_hash_table_add(seen, (gpointer)&entry->data_offset) && !check_file(files, entry, buf, error))
            return false;
    }
    return true;
}

bool tree_read_file(const Tree *tree, StoreMap *files, const char *path, size_t max, GBytes **ret, GError **error)
{
    const TreeEntry *entry = tree_find(tree, path);
    g_autofree char *data = NULL;

    if (entry)
        entry = tree_content_entry(tree, entry);
    if (!entry)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "there is no file '/%s'", path);
    if (entry->type != 'f')
        return fail(error, "'/%s' is not a regular file", path);
    if (entry->size > max)
        return fail(error, "the file '/%s' is larger than the %zu bytes that it may have", path, max);
    data = g_malloc(entry->size + 1);
    if (entry->size && !store_map_pread(files, data, entry->size, entry->data_offset, error))
        return fail_prefix(error, "read '/%s'", path);
    data[entry->size] = '\0';
    *ret = g_bytes_new_take(data, entry->size);
    data = NULL;
    return true;
}
