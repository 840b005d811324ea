/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking in: a disk becomes a map, with the tree of its root where that is an ext4 that can be read; a container image keeps its layers
 * byte for byte.
 */
#include "baker/import.h"

#include "baker/disk-config.h"
#include "baker/origins.h"
#include "base/error.h"
#include "base/log.h"

#include <unistd.h>

/* --- disks --- */

static bool has_etc(StoreMap *disk, const DiskPartition *partition)
{
    g_autoptr(Ext4Root) root = NULL;
    g_auto(GStrv) names = NULL;

    return ext4_root_open(disk, partition->offset, partition->size, &root, NULL) && ext4_root_list(root, "/etc", &names, NULL) && names && *names;
}

/*
 * The root, as far as a disk tells without a guest: the ext4 with an /etc, else the largest one. One whose journal waits to be replayed may be
 * it, too: then there is none, and not the /boot beside it. *ret_found stays false where there is none to be read.
 */
static bool find_root(StoreMap *disk, uint64_t *ret_offset, uint64_t *ret_size, bool *ret_found, GError **error)
{
    g_autoptr(GArray) partitions = NULL;
    const DiskPartition *best = NULL;
    bool sure = false;

    *ret_found = false;
    if (!disk_partitions(disk, &partitions, error))
        return false;
    for (guint i = 0; i < partitions->len && !sure; i++) {
        const DiskPartition *partition = &g_array_index(partitions, DiskPartition, i);

        if (strcmp(partition->fs, "ext4") != 0)
            continue;
        sure = !partition->unclean && has_etc(disk, partition);
        if (sure || !best || partition->size > best->size)
            best = partition;
    }
    if (!best)
        log_info("the disk has no ext4 that can be read on this machine: it is kept without a list of its files");
    else if (best->unclean)
        log_warning("the ext4 file system of partition %u was not unmounted cleanly, so the disk is kept without a list of its files: shut its machine down, or run "
                    "e2fsck on a copy, and take that in", best->number);
    if (!best || best->unclean)
        return true;
    *ret_offset = best->offset;
    *ret_size = best->size;
    *ret_found = true;
    return true;
}

/* Files that are as the parent has them are not read again. */
static bool know_parent(Store *store, const StoreImage *parent, TreeKnown *known, GError **error)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;

    if (!parent || digest_is_none(&parent->tree.tree))
        return true;
    return tree_load(store, &parent->tree, &tree, &files, error) && tree_known_add(known, tree, files, error);
}

/* @bytes: where the disk came from, which is faster to read than what was stored. */
static bool read_tree(Store *store, const Digest *map, SourceBytes *bytes, const StoreImage *parent, TreeStored *ret, Tree **ret_tree,
                      GError **error)
{
    g_autoptr(StoreMap) disk = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(TreeKnown) known = tree_known_new();
    uint64_t offset = 0, size = 0;
    bool found;

    *ret = (TreeStored){.tree = digest_none, .files = digest_none};
    if (!store_map_open(store, map, &disk, error))
        return false;
    store_map_set_source(disk, bytes);
    if (!find_root(disk, &offset, &size, &found, error))
        return false;
    if (!found)
        return true;
    if (!know_parent(store, parent, known, error) || !store_writer_open(store, BLOCK_PUBLIC, &writer, error) ||
        !tree_read_ext4(store, disk, offset, size, writer, known, &tree, &space, error) || !store_writer_commit(writer, error) ||
        !tree_stored_result(store, tree, space, ret, error))
        return false;
    *ret_tree = g_steal_pointer(&tree);
    return true;
}

/* Nothing is wrong with a name that has no disk yet. */
static bool find_parent(Store *store, const ImportFrom *from, const char *name, StoreImage **ret, StoreMap **ret_map, GError **error)
{
    if (from->alone)
        return true;
    if (from->parent) {
        if (!store_resolve(store, from->parent, "disk", ret, error))
            return false;
    } else if (!store_resolve(store, name, "disk", ret, NULL)) {
        return true;
    }
    return store_map_open(store, &(*ret)->map, ret_map, error);
}

/* A bake's list of files is normalised; only what an import read is what another one would read. */
static bool tree_is_read(Store *store, const StoreImage *parent, const MapResult *map)
{
    g_autoptr(json_t) provenance = NULL;

    return parent && digest_equal(&parent->map, &map->digest) && store_image_provenance(store, parent, &provenance, NULL) &&
           json_object_get(provenance, "imported");
}

/* *ret_tree stays NULL where there is no tree, or the parent's is taken over. */
static bool import_disk(Store *store, const ImportFrom *from, const char *name, StoreImage **ret, Tree **ret_tree, GError **error)
{
    g_autoptr(StoreImage) image = store_image_new("disk", name), parent = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) written = NULL;
    g_autoptr(StoreMap) parent_map = NULL;
    g_autoptr(SourceBytes) bytes = NULL;
    TreeStored tree;
    MapResult map;

    if (!find_parent(store, from, name, &parent, &parent_map, error) || !store_writer_open(store, BLOCK_PUBLIC, &writer, error) ||
        !disk_import_over(store, writer, from->path, from->what ? from->what : from->path, parent_map, from->base, &written, error) ||
        !store_writer_commit(writer, error))
        return false;
    map_writer_result(written, &map);
    image->new_bytes = store_writer_new_bytes(writer);
    bytes = source_bytes_ref(map_writer_source(written));
    g_clear_pointer(&written, map_writer_free); /* they know a hash of every block: room that the tree can use */
    g_clear_pointer(&writer, store_writer_free);
    if (tree_is_read(store, parent, &map))
        tree = parent->tree;
    else if (!read_tree(store, &map.digest, bytes, parent, &tree, ret_tree, error))
        return false;
    if (!disk_config_put(store, image, &map, "in-place", &tree, error))
        return false;
    *ret = g_steal_pointer(&image);
    return true;
}

bool import_pulled_disk(Store *store, const char *path, const char *what, const char *name, StoreImage **ret, Tree **ret_tree, GError **error)
{
    return import_disk(store, &(ImportFrom){.path = path, .what = what, .alone = true}, name, ret, ret_tree, error);
}

/* --- container images --- */

/* The list of files only: their contents are in the layers, and are laid out when they are needed (oci_image_tree). */
static bool parent_tree(Store *store, const OciParent *parent, TreeStored *ret, GError **error)
{
    g_autoptr(Tree) tree = NULL;
    g_autofree char *text = NULL;
    size_t size;

    if (!oci_parent_tree(store, NULL, parent, &tree, NULL, error))
        return false;
    text = tree_to_text(tree, &size);
    return store_blob_put(store, text, size, &ret->tree, error);
}

static bool image_of_parent(Store *store, const OciParent *parent, const char *name, StoreImage **ret, GError **error)
{
    g_autoptr(StoreImage) image = store_image_new("oci", name);

    if (!parent_tree(store, parent, &image->tree, error))
        return false;
    image->id = parent->config_digest;
    image->manifest = parent->manifest;
    for (guint i = 0; i < parent->layers->len; i++) {
        const StoreLayerRef *layer = parent->layers->pdata[i];
        uint64_t size = 0;

        store_image_add_layer(image, &layer->blob, &layer->recipe);
        if (!oci_layer_size(store, layer, &size, error))
            return false;
        image->size += size;
    }
    *ret = g_steal_pointer(&image);
    return true;
}

static bool import_oci(Store *store, OciForm form, const char *path, const char *name, StoreImage **ret, GError **error)
{
    g_autoptr(OciParent) parent = NULL;

    return oci_import(store, form, path, NULL, &parent, error) && image_of_parent(store, parent, name, ret, error);
}

bool import_pulled(Store *store, const char *folder, const char *what, const char *name, StoreImage **ret, GError **error)
{
    g_autoptr(OciParent) parent = NULL;

    return oci_import_over(store, folder, what, &parent, error) && image_of_parent(store, parent, name, ret, error);
}

/* A tar file has "ustar" at 257; everything else is left to the disk reader, which knows what it knows. */
static bool is_tar(const char *path)
{
    char head[262] = "";
    FILE *file = fopen(path, "re");
    size_t size = file ? fread(head, 1, sizeof head, file) : 0;

    if (file)
        (void)fclose(file);
    return size == sizeof head && memcmp(head + 257, "ustar", 5) == 0;
}

bool import_file(Store *store, const ImportFrom *from, const char *name, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    g_autoptr(json_t) provenance = json_pack("{s:s}", "imported", from->path);
    g_autoptr(GHashTable) inputs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    StoreSet set = {.name = name, .images = images, .provenance = provenance, .inputs = inputs};
    const char *path = from->path;
    g_autoptr(Tree) tree = NULL;
    StoreImage *image = NULL;
    bool disk, ok;

    if (!store_name_check(name, error))
        return false;
    if (access(path, R_OK) < 0)
        return fail_errno(error, "read '%s'", path);
    disk = !g_file_test(path, G_FILE_TEST_IS_DIR) && !is_tar(path);
    if (!disk && (from->parent || from->base))
        return fail(error, "'%s' is a container image: only a disk has a parent", path);
    if (disk)
        ok = import_disk(store, from, name, &image, &tree, error);
    else
        ok = import_oci(store, is_tar(path) ? OCI_ARCHIVE : OCI_DIR, path, name, &image, error);
    if (!ok)
        return fail_prefix(error, "import");
    g_ptr_array_add(images, image);
    if (!origins_keep_packages(store, images, tree, inputs, error) || !store_publish(store, &set, error))
        return false;
    *ret = g_steal_pointer(&images);
    return true;
}
