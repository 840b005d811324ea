/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contents of an imported container image, laid out on demand.
 *
 * An import keeps layers, and nothing else needs a second copy of what is in them before somebody bakes from the image. What is laid out
 * is a memo under the tree's digest: images with the same files share it, and gc forgets it when it was not asked for in a long time.
 */
#include "store/oci.h"

#include "base/error.h"

static OciParent *as_parent(const StoreImage *image)
{
    OciParent *parent = g_new0(OciParent, 1);

    parent->layers = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; image->layers && i < image->layers->len; i++)
        g_ptr_array_add(parent->layers, g_memdup2(g_ptr_array_index(image->layers, i), sizeof(StoreLayerRef)));
    return parent;
}

static bool lay_out(Store *store, const StoreImage *image, TreeStored *ret, GError **error)
{
    g_autoptr(OciParent) parent = as_parent(image);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(Tree) tree = NULL;

    if (!store_writer_open(store, BLOCK_PUBLIC, &writer, error) || !oci_parent_tree(store, writer, parent, &tree, &space, error) ||
        !store_writer_commit(writer, error) || !tree_stored_result(store, tree, space, ret, error))
        return false;
    return digest_equal(&ret->tree, &image->tree.tree) || fail(error, "the layers no longer hold the files that were imported");
}

static bool remember(Store *store, const char *key, const TreeStored *tree, GError **error)
{
    char hex[DIGEST_HEX_SIZE];

    return store_memo_put(store, key, digest_to_hex(&tree->files, hex), &tree->tree, &tree->files, error);
}

bool oci_image_tree(Store *store, const StoreImage *image, bool keep, TreeStored *ret, GError **error)
{
    g_autofree char *key = NULL, *value = NULL;
    char hex[DIGEST_HEX_SIZE];
    TreeStored tree = image->tree;

    if (digest_is_none(&tree.tree) || !digest_is_none(&tree.files)) {
        *ret = tree;
        return true;
    }
    key = g_strdup_printf("oci-files:%s", digest_to_hex(&tree.tree, hex));
    if (!store_memo_get(store, key, &value, error))
        return false;
    if ((!value || !digest_parse(value, &tree.files)) &&
        (!lay_out(store, image, &tree, error) || (keep && !remember(store, key, &tree, error))))
        return fail_prefix(error, "image '%s'", image->name);
    *ret = tree;
    return true;
}

bool oci_image_load(Store *store, const StoreImage *image, Tree **ret_tree, StoreMap **ret_files, GError **error)
{
    TreeStored tree;

    return oci_image_tree(store, image, true, &tree, error) && tree_load(store, &tree, ret_tree, ret_files, error);
}
