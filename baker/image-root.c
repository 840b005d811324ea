/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths in a stored tree. The tree was written by a guest: its links may point out of it or at each other.
 */
#include "baker/image-root.h"

#include "baker/layers.h"
#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"

#include <string.h>

#define LINKS_MAX 40u      /* as in Linux */
#define COPY_PIECE ((size_t)1 << 20)
#define PATH_BYTES_MAX ((size_t)1 << 16)

void image_root_free(ImageRoot *root)
{
    if (!root)
        return;
    store_map_unref(root->files);
    tree_free(root->tree);
    store_image_free(root->image);
    g_free(root);
}

static bool load_root(Store *store, StoreImage *image /* taken */, ImageRoot **ret, GError **error)
{
    g_autoptr(ImageRoot) root = g_new0(ImageRoot, 1);

    root->image = image;
    if (digest_is_none(&image->tree.tree))
        return fail(error, "kiln has no list of the files in '%s': its root is no ext4 that can be read on the host, or was not unmounted cleanly", image->name);
    if (!oci_image_load(store, image, &root->tree, &root->files, error))
        return fail_prefix(error, "the root of '%s'", image->name);
    if (strcmp(image->kind, "oci") == 0) {
        Tree *whole = root->tree;

        root->tree = layers_container_tree(whole);
        tree_free(whole);
    }
    *ret = g_steal_pointer(&root);
    return true;
}

bool image_root_open(Store *store, const char *ref, ImageRoot **ret, GError **error)
{
    StoreImage *image = NULL;

    return (store_resolve(store, ref, "disk", &image, NULL) || store_resolve(store, ref, NULL, &image, error)) &&
           load_root(store, image, ret, error);
}

bool image_root_of(Store *store, const StoreImage *image, ImageRoot **ret, GError **error)
{
    StoreImage *copy = store_image_new(image->kind, image->name);

    copy->id = image->id;
    copy->tree = image->tree;
    for (guint i = 0; image->layers && i < image->layers->len; i++) {
        const StoreLayerRef *layer = g_ptr_array_index(image->layers, i);

        store_image_add_layer(copy, &layer->blob, &layer->recipe);
    }
    return load_root(store, copy, ret, error);
}

/* --- paths ------------------------------------------------------------------------------- */

/* Takes the last part off. */
static void go_up(GString *at)
{
    const char *slash = strrchr(at->str, '/');

    g_string_truncate(at, slash ? (gsize)(slash - at->str) : 0);
}

static void go_down(GString *at, const char *part, size_t length)
{
    if (at->len)
        g_string_append_c(at, '/');
    g_string_append_len(at, part, (gssize)length);
}

/* A link was met at @at: what is left to walk is its target and then @rest. */
static bool follow_link(GString *at, const TreeEntry *link, GString *rest, unsigned *links, GError **error)
{
    if (++*links > LINKS_MAX)
        return fail(error, "too many symbolic links at '/%s'", link->path);
    g_string_prepend_c(rest, '/');
    g_string_prepend(rest, link->target);
    if (rest->len > PATH_BYTES_MAX)
        return fail(error, "the symbolic links at '/%s' make a path that is too long", link->path);
    go_up(at);
    if (*link->target == '/')
        g_string_truncate(at, 0);
    return true;
}

/* Walks the first part of @rest. */
static bool walk_part(const ImageRoot *root, GString *at, GString *rest, bool follow, unsigned *links, GError **error)
{
    size_t length = strcspn(rest->str, "/");
    g_autofree char *part = g_strndup(rest->str, length);
    const TreeEntry *entry;

    g_string_erase(rest, 0, (gssize)(length + strspn(rest->str + length, "/")));
    if (strcmp(part, ".") == 0 || !*part)
        return true;
    if (strcmp(part, "..") == 0) {
        go_up(at);
        return true;
    }
    go_down(at, part, length);
    entry = tree_find(root->tree, at->str);
    return !entry || entry->type != 'l' || (!rest->len && !follow) || follow_link(at, entry, rest, links, error);
}

bool image_root_find(const ImageRoot *root, const char *path, bool follow, const TreeEntry **ret, GError **error)
{
    g_autoptr(GString) at = g_string_new(NULL), rest = g_string_new(path + strspn(path, "/"));
    const TreeEntry *entry;
    unsigned links = 0;

    while (rest->len)
        if (!walk_part(root, at, rest, follow, &links, error))
            return false;
    entry = tree_find(root->tree, at->str);
    if (!entry)
        return fail(error, "there is no '%s' in '%s'", path, root->image->name);
    *ret = entry;
    return true;
}

/* --- parts --------------------------------------------------------------------------------- */

/* @entry as it is called below @top; a name of a file whose first name is elsewhere becomes that file. */
static TreeEntry *entry_below(const ImageRoot *root, const TreeEntry *entry, const TreeEntry *top)
{
    size_t skip = *top->path ? strlen(top->path) + 1 : 0;
    const TreeEntry *content = entry->type == 'h' ? tree_content_entry(root->tree, entry) : NULL;
    TreeEntry *copy = tree_entry_copy(content && !tree_path_is_below(entry->target, top->path) ? content : entry);

    g_free(copy->path);
    copy->path = g_strdup(entry->path + skip);
    if (copy->type == 'h') {
        char *target = g_strdup(copy->target + skip);

        g_free(copy->target);
        copy->target = target;
    }
    return copy;
}

static Tree *file_alone(const ImageRoot *root, const TreeEntry *file)
{
    const TreeEntry *content = file->type == 'h' ? tree_content_entry(root->tree, file) : file;
    const char *slash = strrchr(file->path, '/');
    Tree *tree = tree_new();
    TreeEntry *copy = tree_entry_copy(content ? content : file), *folder = tree_entry_new("", 'd');

    folder->mode = 0755;
    g_free(copy->path);
    copy->path = g_strdup(slash ? slash + 1 : file->path);
    tree_put(tree, folder);
    tree_put(tree, copy);
    return tree;
}

Tree *image_root_below(const ImageRoot *root, const TreeEntry *top)
{
    Tree *tree;
    TreeEntry *folder;

    if (top->type != 'd')
        return file_alone(root, top);
    tree = tree_new();
    folder = tree_entry_copy(top);
    g_free(folder->path);
    folder->path = g_strdup("");
    tree_put(tree, folder);
    for (size_t i = 0; i < tree_count(root->tree); i++) {
        const TreeEntry *entry = tree_nth(root->tree, i);

        if (tree_path_is_below(entry->path, top->path))
            tree_put(tree, entry_below(root, entry, top));
    }
    tree_normalise_links(tree);
    return tree;
}

bool image_root_copy(const ImageRoot *root, const TreeEntry *file, int fd, GError **error)
{
    const TreeEntry *content = tree_content_entry(root->tree, file);
    g_autofree char *buffer = g_malloc(COPY_PIECE);

    if (!content || content->type != 'f')
        return fail(error, "'/%s' is not a regular file", file->path);
    for (uint64_t done = 0; done < content->size;) {
        size_t piece = (size_t)MIN((uint64_t)COPY_PIECE, content->size - done);

        if (!interrupt_check(error) || !store_map_pread(root->files, buffer, piece, content->data_offset + done, error) ||
            !file_write_full(fd, buffer, piece, "the file", error))
            return fail_prefix(error, "'/%s'", file->path);
        done += piece;
    }
    return true;
}
