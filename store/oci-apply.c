/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Applies an image's layers to one tree, in order, without unpacking anything.
 *
 * Each layer is read into a tree and a file space of its own, because a whiteout hides what lower layers have
 * and never what stands in its own layer, before or after it. The spaces are thought of as lying one behind
 * the other: an entry's data_offset is its place in that row until the final space is laid out, which takes
 * over blocks of what survived and nothing else.
 */
#include "store/oci-private.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/scope.h"
#include "store/tree-space.h"

#include <fcntl.h>
#include <string.h>

#define ENTRIES_MAX 10000000u
#define LINKS_MAX 40u /* as in Linux */

/* One layer, read. */
typedef struct Layer {
    Tree *tree;
    MapWriter *space;
    StoreMap *files;    /* opened after the commit */
    uint64_t base;      /* where its space starts in the row */
    GHashTable *listed; /* paths the tar names; other folders were made up by the reader */
    GHashTable *gone;   /* paths deleted, with all below */
    GHashTable *opaque; /* folders of which all below is deleted */
} Layer;

static void layer_free(Layer *layer)
{
    if (!layer)
        return;
    tree_free(layer->tree);
    map_writer_free(layer->space);
    store_map_unref(layer->files);
    g_hash_table_unref(layer->listed);
    g_hash_table_unref(layer->gone);
    g_hash_table_unref(layer->opaque);
    g_free(layer);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Layer, layer_free)

/* --- reading ---------------------------------------------------------------------------- */

static void note_whiteout(const char *path, bool opaque, void *arg)
{
    Layer *layer = arg;

    g_hash_table_add(opaque ? layer->opaque : layer->gone, g_strdup(path));
}

static bool note_path(const char *path, void *arg)
{
    g_hash_table_add(((Layer *)arg)->listed, g_strdup(path));
    return false; /* nothing is left out */
}

/* The layer's compressed bytes in an unnamed file. */
bool oci_open_layer(Store *store, const StoreLayerRef *ref, int *ret_fd, GError **error)
{
    auto_fd int fd = -1;
    bool ok = store_open_unnamed(store, &fd, error) &&
              (digest_is_none(&ref->recipe) ? store_blob_copy(store, &ref->blob, fd, error)
                                            : layer_write_out(store, &ref->recipe, true, fd, error));

    if (ok && lseek(fd, 0, SEEK_SET) < 0)
        ok = fail_errno(error, "read a layer's temporary file");
    if (ok)
        *ret_fd = g_steal_fd(&fd);
    return ok;
}

bool oci_layer_size(Store *store, const StoreLayerRef *layer, uint64_t *ret, GError **error)
{
    LayerResult info;

    if (digest_is_none(&layer->recipe))
        return store_blob_size(store, &layer->blob, ret, error);
    if (!layer_recipe_info(store, &layer->recipe, &info, error))
        return false;
    *ret = info.size;
    return true;
}

static bool read_layer(Store *store, StoreWriter *writer, const StoreLayerRef *ref, Layer **ret,
                       GError **error)
{
    g_autoptr(Layer) layer = g_new0(Layer, 1);
    g_autoptr(TreeBuilder) builder = NULL;
    auto_fd int fd = -1;

    layer->listed = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    layer->gone = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    layer->opaque = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    if (!interrupt_check(error) || !oci_open_layer(store, ref, &fd, error) ||
        !tree_builder_new(writer, &builder, error) ||
        !tree_read_tar(builder, fd, note_path, note_whiteout, layer, error) ||
        !tree_builder_finish(builder, &layer->tree, &layer->space, error))
        return false;
    *ret = g_steal_pointer(&layer);
    return true;
}

/* @contents false: trees only, nothing is stored. */
static bool read_layers(Store *store, const OciParent *parent, bool contents, GPtrArray *layers, GError **error)
{
    g_autoptr(StoreWriter) writer = NULL;
    uint64_t base = 0;

    if (contents && !store_writer_open(store, BLOCK_PUBLIC, &writer, error))
        return false;
    for (guint i = 0; i < parent->layers->len; i++) {
        Layer *layer;

        if (!read_layer(store, writer, g_ptr_array_index(parent->layers, i), &layer, error))
            return fail_prefix(error, "layer %u", i + 1);
        g_ptr_array_add(layers, layer);
    }
    if (writer && !store_writer_commit(writer, error))
        return false;
    for (guint i = 0; writer && i < layers->len; i++) {
        Layer *layer = g_ptr_array_index(layers, i);
        MapResult result;

        map_writer_result(layer->space, &result);
        if (!store_map_open(store, &result.digest, &layer->files, error))
            return false;
        layer->base = base;
        base += tree_space_round(store_map_size(layer->files));
    }
    return true;
}

/* --- paths that lead through links of lower layers ------------------------------------------ */

typedef struct Through {
    const Tree *below;
    const Layer *layer;
    GHashTable *folders; /* path in the layer -> where it is */
} Through;

static bool lies_below(GHashTable *paths, const char *path);

/* A link of a lower layer that this one leaves as it is. */
static const TreeEntry *link_at(const Through *through, const char *path)
{
    const TreeEntry *entry = tree_find(through->below, path);
    const Layer *layer = through->layer;

    return entry && entry->type == 'l' && !g_hash_table_contains(layer->listed, path) && !g_hash_table_contains(layer->gone, path) &&
                   !lies_below(layer->gone, path) && !lies_below(layer->opaque, path)
               ? entry
               : NULL;
}

static void go_up(GString *at)
{
    const char *slash = strrchr(at->str, '/');

    g_string_truncate(at, slash ? (gsize)(slash - at->str) : 0);
}

/* Where the folder @path is once links are followed, inside of the root; NULL where they lead round in circles. */
static char *walk(const Through *through, const char *path)
{
    g_autoptr(GString) at = g_string_new(NULL), rest = g_string_new(path);
    unsigned links = 0;

    while (rest->len) {
        size_t size = strcspn(rest->str, "/");
        g_autofree char *part = g_strndup(rest->str, size);
        const TreeEntry *link;

        g_string_erase(rest, 0, (gssize)(size + strspn(rest->str + size, "/")));
        if (strcmp(part, "..") == 0)
            go_up(at);
        if (!*part || strcmp(part, ".") == 0 || strcmp(part, "..") == 0)
            continue;
        g_string_append_printf(at, "%s%s", at->len ? "/" : "", part);
        link = link_at(through, at->str);
        if (!link)
            continue;
        if (++links > LINKS_MAX)
            return NULL;
        g_string_prepend_c(rest, '/');
        g_string_prepend(rest, link->target);
        if (*link->target == '/')
            g_string_truncate(at, 0);
        else
            go_up(at);
    }
    return tree_path_is_sound(at->str) || !at->len ? g_string_free(g_steal_pointer(&at), FALSE) : NULL;
}

static const char *real_folder(const Through *through, const char *path)
{
    char *real = g_hash_table_lookup(through->folders, path);

    if (!real) {
        real = walk(through, path);
        g_hash_table_insert(through->folders, g_strdup(path), real ? real : (real = g_strdup(path)));
    }
    return real;
}

/* The last part is the entry itself, which takes the place of a link. */
static char *real_path(const Through *through, const char *path)
{
    const char *slash = strrchr(path, '/'), *real;
    g_autofree char *folder = slash ? g_strndup(path, (gsize)(slash - path)) : NULL;

    if (!folder)
        return g_strdup(path);
    real = real_folder(through, folder);
    return *real ? g_strconcat(real, slash, NULL) : g_strdup(slash + 1);
}

static bool is_made_up(const Layer *layer, const TreeEntry *entry)
{
    return entry->type == 'd' && *entry->path && !g_hash_table_contains(layer->listed, entry->path);
}

static GHashTable *real_paths(const Through *through, GHashTable *paths, bool folders)
{
    GHashTable *real = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    GHashTableIter iter;
    gpointer path;

    g_hash_table_iter_init(&iter, paths);
    while (g_hash_table_iter_next(&iter, &path, NULL))
        g_hash_table_add(real, folders ? g_strdup(real_folder(through, path)) : real_path(through, path));
    g_hash_table_unref(paths);
    return real;
}

static void add_folders(Tree *tree, const char *path)
{
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        g_autofree char *folder = g_strndup(path, (gsize)(slash - path));
        TreeEntry *entry = tree_find(tree, folder) ? NULL : tree_entry_new(folder, 'd');

        if (!entry)
            continue;
        entry->mode = 0755;
        tree_put(tree, entry);
    }
}

/* Entries that @moved says something of: those that went elsewhere, or those that did not and win over them. */
static void take_entries(const Through *through, Tree *from, bool moved, Tree *to)
{
    for (size_t i = 0; i < tree_count(from); i++) {
        const TreeEntry *entry = tree_nth(from, i);
        g_autofree char *path = real_path(through, entry->path);
        TreeEntry *copy;

        if (is_made_up(through->layer, entry) || (strcmp(path, entry->path) != 0) != moved)
            continue;
        copy = tree_entry_copy(entry);
        g_free(copy->path);
        copy->path = g_steal_pointer(&path);
        if (copy->type == 'h') {
            g_free(copy->target);
            copy->target = real_path(through, entry->target);
        }
        add_folders(to, copy->path);
        tree_put(to, copy);
    }
}

static bool leads_through(const Through *through, const TreeEntry *entry)
{
    g_autofree char *target = entry->type == 'h' ? real_path(through, entry->target) : NULL;

    return target ? strcmp(target, entry->target) != 0 : is_made_up(through->layer, entry) && strcmp(real_folder(through, entry->path), entry->path) != 0;
}

/*
 * A layer that names bin/x without naming bin, over one where bin is a link to usr/bin, has usr/bin/x: so it is unpacked by everybody, one
 * layer over the other. What a layer itself says of bin stands.
 */
static void go_through_links(const Tree *below, Layer *layer)
{
    g_autoptr(GHashTable) folders = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    const Through through = {below, layer, folders};
    Tree *tree;
    bool any = false;

    for (size_t i = 0; i < tree_count(layer->tree) && !any; i++)
        any = leads_through(&through, tree_nth(layer->tree, i));
    if (any) {
        tree = tree_new();
        take_entries(&through, layer->tree, true, tree);
        take_entries(&through, layer->tree, false, tree);
    }
    layer->gone = real_paths(&through, layer->gone, false);
    layer->opaque = real_paths(&through, layer->opaque, true);
    if (!any)
        return;
    layer->listed = real_paths(&through, layer->listed, false);
    tree_free(layer->tree);
    layer->tree = tree;
}

/* --- applying --------------------------------------------------------------------------- */

/* Does one of the folders above @path stand in @paths? */
static bool lies_below(GHashTable *paths, const char *path)
{
    g_autofree char *up = g_strdup(path);
    char *slash;

    if (g_hash_table_size(paths) == 0)
        return false;
    while ((slash = strrchr(up, '/'))) {
        *slash = 0;
        if (g_hash_table_contains(paths, up))
            return true;
    }
    return *path && g_hash_table_contains(paths, "");
}

/* What is hidden or replaced from below; folders that stay folders are not gone for what they hold. */
static bool is_gone(const Layer *layer, GHashTable *files, const TreeEntry *entry)
{
    return g_hash_table_contains(layer->gone, entry->path) || lies_below(layer->gone, entry->path) ||
           lies_below(layer->opaque, entry->path) || tree_find(layer->tree, entry->path) ||
           lies_below(files, entry->path);
}

/* Entries of @below that @layer leaves, as a new tree; leaders that go hand over to their next name. */
static Tree *surviving(Tree *below, const Layer *layer)
{
    g_autoptr(GHashTable) files =
        g_hash_table_new(g_str_hash, g_str_equal); /* of the layer: nothing can be below them */
    g_autoptr(GHashTable) heirs =
        g_hash_table_new(g_str_hash, g_str_equal); /* old leader's path -> new leader's */
    Tree *left = tree_new();

    for (size_t i = 0; i < tree_count(layer->tree); i++)
        if (tree_nth(layer->tree, i)->type != 'd')
            g_hash_table_add(files, tree_nth(layer->tree, i)->path);
    for (size_t i = 0; i < tree_count(below); i++) {
        const TreeEntry *entry = tree_nth(below, i), *leader;
        const char *heir;
        TreeEntry *copy;

        if (is_gone(layer, files, entry))
            continue;
        if (entry->type != 'h' || tree_find(left, entry->target)) {
            tree_put(left, tree_entry_copy(entry));
            continue;
        }
        heir = g_hash_table_lookup(heirs, entry->target);
        leader = tree_find(below, entry->target);
        if (!leader)
            continue;
        copy = tree_entry_copy(heir ? entry : leader);
        g_free(heir ? copy->target : copy->path);
        if (heir)
            copy->target = g_strdup(heir);
        else
            copy->path = g_strdup(entry->path);
        tree_put(left, copy);
        if (!heir)
            g_hash_table_insert(heirs, entry->target, copy->path);
    }
    return left;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp((*(TreeEntry *const *)a)->path, (*(TreeEntry *const *)b)->path);
}

/* @below with @layer on top. Entries are put in path order, which is what a tree takes fastest. */
static Tree *apply(Tree *below, const Layer *layer)
{
    g_autoptr(Tree) left = surviving(below, layer);
    g_autoptr(GPtrArray) entries = g_ptr_array_new();
    Tree *result = tree_new();

    for (size_t i = 0; i < tree_count(left); i++)
        g_ptr_array_add(entries, tree_entry_copy(tree_nth(left, i)));
    for (size_t i = 0; i < tree_count(layer->tree); i++) {
        const TreeEntry *entry = tree_nth(layer->tree, i), *old = tree_find(below, entry->path);
        bool made_up = !g_hash_table_contains(layer->listed, entry->path);
        TreeEntry *copy = tree_entry_copy(old && old->type == 'd' && made_up ? old : entry);

        if (copy->type == 'f')
            copy->data_offset += layer->base;
        g_ptr_array_add(entries, copy);
    }
    g_ptr_array_sort(entries, compare_paths);
    for (guint i = 0; i < entries->len; i++)
        tree_put(result, g_ptr_array_index(entries, i));
    tree_normalise_links(result); /* a link may name a file of a lower layer */
    return result;
}

/* --- the common space --------------------------------------------------------------------- */

static const Layer *layer_at(const GPtrArray *layers, uint64_t offset)
{
    guint i = layers->len - 1;

    while (i > 0 && ((const Layer *)g_ptr_array_index(layers, i))->base > offset)
        i--;
    return g_ptr_array_index(layers, i);
}

static bool lay_out(StoreWriter *writer, Tree *tree, const GPtrArray *layers, MapWriter **ret, GError **error)
{
    g_autoptr(GArray) files = NULL;
    g_autoptr(MapWriter) space = NULL;

    if (!tree_space_lay_out(tree, &files, error) ||
        !map_writer_new(writer, tree_space_size(files), NULL, &space, error))
        return false;
    for (guint i = 0; i < files->len; i++) {
        const TreeSpaceFile *file = &g_array_index(files, TreeSpaceFile, i);
        const Layer *layer = file->size ? layer_at(layers, file->from) : NULL;

        if (layer && !map_writer_ref(space, file->to, layer->files, file->from - layer->base,
                                     tree_space_round(file->size), error))
            return false;
    }
    if (!map_writer_finish(space, error))
        return false;
    *ret = g_steal_pointer(&space);
    return true;
}

bool oci_parent_tree(Store *store, StoreWriter *writer, const OciParent *parent, Tree **ret,
                     MapWriter **ret_space, GError **error)
{
    g_autoptr(GPtrArray) layers = g_ptr_array_new_with_free_func((GDestroyNotify)layer_free);
    g_autoptr(Tree) tree = tree_new();

    if (!read_layers(store, parent, writer != NULL, layers, error))
        return false;
    for (guint i = 0; i < layers->len; i++) {
        Tree *next;

        go_through_links(tree, g_ptr_array_index(layers, i));
        next = apply(tree, g_ptr_array_index(layers, i));

        tree_free(tree);
        tree = next;
        if (tree_count(tree) > ENTRIES_MAX)
            return fail(error, "the image holds more than %u files", ENTRIES_MAX);
    }
    if (!tree_find(tree, "")) {
        TreeEntry *root = tree_entry_new("", 'd');

        root->mode = 0755;
        tree_put(tree, root);
    }
    if (!tree_check(tree, error) || (writer && !lay_out(writer, tree, layers, ret_space, error)))
        return false;
    *ret = g_steal_pointer(&tree);
    return true;
}
