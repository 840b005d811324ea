/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seal: from the last working disk to artifacts.
 *
 * The root is read back as a tree, normalised, and its contents copied from private to public
 * segments where they are not public yet. Both outputs come from that one tree: a rendered disk is laid out anew, so
 * nothing that the bake deleted can be in it; an in-place disk keeps its layout, its free space and journal zeroed.
 */
#include "baker/bake-walk.h"

#include "baker/disk-config.h"
#include "baker/layers.h"
#include "baker/render.h"
#include "base/error.h"
#include "base/log.h"

#include <string.h>

#define LAYERS_RECIPE 2 /* raised by hand when equal trees give other layers; that starts no appliance */

typedef struct Seal {
    BakeChain *chain;
    StoreMap *disk;        /* the last working disk */
    Tree *tree;            /* normalised root */
    StoreMap *files;       /* public file space of @tree */
    TreeStored stored;
    uint64_t tree_bytes;   /* what making the tree public added */
    StoreWriter *writer;   /* of the outputs */
    MapWriter *disk_map;
    LayersResult *layers;
    uint64_t disk_bytes, oci_bytes;
} Seal;

static void seal_clear(Seal *seal)
{
    g_clear_pointer(&seal->layers, layers_result_free);
    g_clear_pointer(&seal->disk_map, map_writer_free);
    g_clear_pointer(&seal->writer, store_writer_free);
    g_clear_pointer(&seal->files, store_map_unref);
    g_clear_pointer(&seal->tree, tree_free);
    g_clear_pointer(&seal->disk, store_map_unref);
}

static bool open_space(Store *store, const MapWriter *space, StoreMap **ret, GError **error)
{
    MapResult result;

    map_writer_result(space, &result);
    return store_map_open(store, &result.digest, ret, error);
}

/* The root as it is, its contents referred to where they are: private, nothing copied. */
static bool read_root(Seal *seal, uint64_t offset, uint64_t size, StoreMap **ret_files, GError **error)
{
    Store *store = seal->chain->store;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    TreeKnown *known = NULL;

    return bake_known(seal->chain, &known, error) && store_writer_open(store, BLOCK_PRIVATE, &writer, error) &&
           tree_read_ext4(store, seal->disk, offset, size, writer, known, &seal->tree, &space, error) &&
           store_writer_commit(writer, error) && open_space(store, space, ret_files, error);
}

static bool make_public(Seal *seal, StoreMap *private_files, GError **error)
{
    Store *store = seal->chain->store;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;

    if (!store_writer_open(store, BLOCK_PUBLIC, &writer, error) ||
        !tree_store(store, writer, seal->tree, private_files, &space, error) ||
        !store_writer_commit(writer, error) || !open_space(store, space, &seal->files, error))
        return false;
    seal->tree_bytes = store_writer_new_bytes(writer);
    return tree_stored_result(store, seal->tree, space, &seal->stored, error);
}

static bool walk_root(Seal *seal, StoreMap **ret_files, GError **error)
{
    TreeStored stored;

    seal->chain->is_walked = true;
    return bake_walk_get(seal->chain, &stored, error) && tree_load(seal->chain->store, &stored, &seal->tree, ret_files, error);
}

/* What disk_publishable() does not know how to clean. */
static bool warn_of_remains(StoreMap *disk, GError **error)
{
    static const char *const known[] = {"ext4", "vfat", "swap", "", NULL};
    g_autoptr(GArray) partitions = NULL;

    if (!disk_partitions(disk, &partitions, error))
        return false;
    for (guint i = 0; i < partitions->len; i++) {
        const char *fs = g_array_index(partitions, DiskPartition, i).fs;

        if (g_strv_contains(known, fs))
            continue;
        log_warning("partition %u (%s) is published as the guest left it, trimmed: names and small contents that were deleted may remain in its "
                    "own structures", g_array_index(partitions, DiskPartition, i).number, fs);
    }
    return true;
}

static bool seal_tree(Seal *seal, GError **error)
{
    BakeChain *chain = seal->chain;
    g_autoptr(StoreMap) private_files = NULL;
    uint64_t offset, size;
    bool found, walk;

    if (!store_map_open(chain->store, bake_map_before(chain, chain->steps->len), &seal->disk, error) ||
        !bake_find_root(chain, seal->disk, &offset, &size, &found, error) || !bake_walk_wanted(chain, seal->disk, &walk, NULL, error))
        return false;
    if (chain->state.layout == LAYOUT_INPLACE && !warn_of_remains(seal->disk, error))
        return false;
    if (walk) {
        if (!walk_root(seal, &private_files, error))
            return false;
    } else if (!read_root(seal, offset, size, &private_files, error)) {
        return fail_prefix(error, "read the sealed root");
    }
    bake_normalise(chain, seal->tree);
    return make_public(seal, private_files, error);
}

/* No size was given, and there is no parent whose size it is: the disk is as large as its content needs. */
static bool size_is_free(const BakeChain *chain)
{
    const json_t *parent = bake_parent_images(chain);

    return chain->state.layout == LAYOUT_RENDERED && !json_object_get(chain->build->source->args, "size") && !json_object_get(parent, "disk");
}

static uint64_t least_size(const BakeChain *chain)
{
    if (!size_is_free(chain))
        return chain->state.size;
    return g_str_equal(chain->source->type, "bootstrap") ? SOURCE_BOOTSTRAP_SIZE : 0;
}

static bool make_disk(Seal *seal, GError **error)
{
    BakeChain *chain = seal->chain;
    RenderSpec spec = {.name = chain->build->name, .size = least_size(chain), .epoch = chain->epoch, .bootable = true};

    if (size_is_free(chain))
        spec.size = MAX(spec.size, render_size_for(seal->tree));

    if (chain->state.layout == LAYOUT_INPLACE)
        return disk_publishable(chain->store, seal->writer, seal->disk, &seal->disk_map, error);
    return render_disk(chain->store, seal->writer, seal->tree, seal->files, &spec, &seal->disk_map, error);
}

static bool make_layers(Seal *seal, const TemplateBlock *block, GError **error)
{
    BakeChain *chain = seal->chain;
    g_autoptr(json_t) args = bake_output_args(chain, block);
    g_autoptr(Tree) base = NULL;
    g_autoptr(StoreMap) base_files = NULL;
    LayersSpec spec = {.tree = seal->tree,
                       .files = seal->files,
                       .epoch = chain->epoch,
                       .args = args,
                       .parent = chain->state.info ? json_object_get(chain->state.info, "oci_parent") : NULL};

    if (!digest_is_none(&chain->state.tree.tree)) {
        if (!tree_load(chain->store, &chain->state.tree, &base, &base_files, error))
            return false;
        spec.base = base;
        spec.base_files = base_files;
    }
    return layers_build(chain->store, seal->writer, &spec, &seal->layers, error);
}

static bool disk_image(Seal *seal, StoreImage **ret, GError **error)
{
    BakeChain *chain = seal->chain;
    g_autoptr(StoreImage) image = store_image_new("disk", chain->build->name);
    MapResult map;

    map_writer_result(seal->disk_map, &map);
    if (!disk_config_put(chain->store, image, &map, chain->state.layout == LAYOUT_INPLACE ? "in-place" : "rendered", &seal->stored, error))
        return false;
    image->new_bytes = seal->disk_bytes;
    image->parent = json_canonical(chain->identity);
    *ret = g_steal_pointer(&image);
    return true;
}

static bool oci_image(Seal *seal, StoreImage **ret, GError **error)
{
    BakeChain *chain = seal->chain;
    g_autoptr(StoreImage) image = store_image_new("oci", chain->build->name);

    if (!layers_finish(chain->store, seal->layers, image, error))
        return false;
    image->new_bytes = seal->oci_bytes;
    image->tree = seal->stored;
    image->parent = json_canonical(chain->identity);
    *ret = g_steal_pointer(&image);
    return true;
}

static bool make_outputs(Seal *seal, bool disk, bool oci, const TemplateBlock *oci_block, GError **error)
{
    if (!store_writer_open(seal->chain->store, BLOCK_PUBLIC, &seal->writer, error))
        return false;
    if (disk && !make_disk(seal, error))
        return fail_prefix(error, "output 'disk'");
    seal->disk_bytes = store_writer_new_bytes(seal->writer);
    if (oci && !make_layers(seal, oci_block, error))
        return fail_prefix(error, "output 'oci'");
    if (!store_writer_commit(seal->writer, error))
        return false;
    seal->oci_bytes = store_writer_new_bytes(seal->writer) - seal->disk_bytes;
    /* The tree serves both; it is told with the first. */
    *(disk ? &seal->disk_bytes : &seal->oci_bytes) += seal->tree_bytes;
    return true;
}

static bool seal_all(Seal *seal, GPtrArray *images, GError **error)
{
    const TemplateBlock *disk_block, *oci_block;
    bool disk = bake_wants_output(seal->chain, "disk", &disk_block);
    bool oci = bake_wants_output(seal->chain, "oci", &oci_block);
    StoreImage *image = NULL;

    if (!seal_tree(seal, error) || !make_outputs(seal, disk, oci, oci_block, error))
        return false;
    if (disk) {
        if (!disk_image(seal, &image, error))
            return false;
        g_ptr_array_add(images, image);
    }
    if (oci) {
        if (!oci_image(seal, &image, error))
            return false;
        g_ptr_array_add(images, image);
    }
    return true;
}

bool bake_seal(BakeChain *chain, GPtrArray *images, GError **error)
{
    Seal seal = {.chain = chain};
    bool ok;

    log_info("==> %s: sealing", chain->build->name);
    ok = seal_all(&seal, images, error);
    seal_clear(&seal);
    return ok ? true : fail_prefix(error, "%s", chain->build->name);
}

void bake_final_key(const BakeChain *chain, Digest *ret)
{
    g_autoptr(json_t) key = json_object(), boot = NULL;
    const TemplateBlock *block;
    char hex[DIGEST_HEX_SIZE];

    json_object_set_new(key, "engine", json_integer(BAKE_ENGINE));
    json_object_set_new(key, "name", json_string(chain->build->name));
    json_object_set_new(key, "epoch", json_integer(chain->epoch));
    json_object_set_new(key, "size", json_integer((json_int_t)least_size(chain)));
    json_object_set_new(key, "layout", json_integer(chain->state.layout));
    json_object_set_new(
        key, "content", json_string(digest_to_hex(bake_content_before(chain, chain->steps->len), hex)));
    /* An in-place disk is more than its tree: partitions and boot areas count. */
    if (chain->state.layout == LAYOUT_INPLACE)
        json_object_set_new(key, "map",
                            json_string(digest_to_hex(bake_map_before(chain, chain->steps->len), hex)));
    json_object_set_new(key, "base", json_string(digest_to_hex(&chain->state.content, hex)));
    bake_boot_tests(chain, &boot);
    if (json_array_size(boot) > 0)
        json_object_set(key, "boot", boot);
    if (bake_wants_output(chain, "disk", &block))
        json_object_set_new(key, "disk", block ? json_incref(block->args) : json_object());
    if (bake_wants_output(chain, "oci", &block)) {
        json_object_set_new(key, "layers", json_integer(LAYERS_RECIPE));
        json_object_set_new(key, "oci", bake_output_args(chain, block));
    }
    bake_add_volatile_paths(chain, key);
    json_digest(key, ret);
}
