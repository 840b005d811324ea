/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts a disk together from its parts (drawing in render-parts.h). A copy of the tree gets what belongs to the
 * disk and not to the root: lost+found and grub.cfg.
 */
#include "baker/render.h"

#include "baker/render-parts.h"

#include "base/error.h"
#include "base/log.h"

#include <string.h>

#define GRUB_CFG "boot/grub/grub.cfg"

/* The table's grid is 1 MiB; a disk of another size is treated as if it ended at the last whole one. */
void render_root_extent(uint64_t size, uint64_t *ret_offset, uint64_t *ret_size)
{
    uint64_t whole = size / MIB * MIB;

    *ret_offset = ROOT_OFFSET;
    *ret_size = whole > ROOT_OFFSET + MIB ? whole - MIB - ROOT_OFFSET : 0;
}

static Tree *copy_tree(Tree *tree)
{
    Tree *copy = tree_new();

    for (size_t i = 0; i < tree_count(tree); i++)
        tree_put(copy, tree_entry_copy(tree_nth(tree, i)));
    return copy;
}

static bool ensure_folder(Tree *tree, const char *path, uint16_t mode, int64_t epoch, GError **error)
{
    const TreeEntry *have = tree_find(tree, path);
    TreeEntry *folder;

    if (have && have->type != 'd')
        return fail(error, "'/%s' is not a folder, so no bootable disk can be made", path);
    if (have)
        return true;
    folder = tree_entry_new(path, 'd');
    folder->mode = mode;
    folder->mtime = epoch;
    tree_put(tree, folder);
    return true;
}

static bool add_grub_config(Tree *tree, GBytes *config, int64_t epoch, GError **error)
{
    TreeEntry *file;
    size_t size;
    const void *data = g_bytes_get_data(config, &size);

    if (!ensure_folder(tree, "boot", 0755, epoch, error) || !ensure_folder(tree, "boot/grub", 0755, epoch, error))
        return false;
    tree_remove(tree, GRUB_CFG);
    file = tree_entry_new(GRUB_CFG, 'f');
    file->mode = 0644;
    file->mtime = epoch;
    file->size = size;
    digest_of(data, size, &file->sha256);
    tree_put(tree, file);
    return true;
}

/* Room to work in: a quarter more than the content and 256 MiB, in steps of 64 MiB. */
uint64_t render_size_for(Tree *tree)
{
    uint64_t needs = render_ext4_needs(tree);

    return (ROOT_OFFSET + MIB + needs + needs / 4 + 256 * MIB + 64 * MIB - 1) / (64 * MIB) * (64 * MIB);
}

static bool write_boot_loader(Store *store, MapWriter *out, const uint8_t root_uuid[16], const RenderSpec *spec,
                              uint64_t size, GError **error)
{
    RenderGrub grub = {0};
    size_t core_size = 0;
    const void *core;
    bool ok;

    if (spec->bootable && !render_grub_make(store, root_uuid, &grub, error))
        return false;
    core = grub.core ? g_bytes_get_data(grub.core, &core_size) : NULL;
    ok = (!core || map_writer_write(out, BIOS_BOOT_OFFSET, core, core_size, error)) &&
         render_gpt(out, size, spec->name, core ? grub.mbr_code : NULL, error) &&
         render_esp(out, spec->name, spec->epoch, grub.efi, error);
    render_grub_clear(&grub);
    return ok;
}

/* @tree is the disk's own copy. */
static bool write_disk(Store *store, MapWriter *out, Tree *tree, StoreMap *files, const RenderSpec *spec, uint64_t size, GError **error)
{
    RenderFs fs = {.epoch = spec->epoch};
    uint8_t partition[16];
    g_autofree char *config = NULL;
    g_autoptr(GBytes) config_bytes = NULL;

    digest_uuid5(spec->name, "root", fs.uuid);
    digest_uuid5(spec->name, spec->other_order ? "other-hash-seed" : "root-hash-seed", fs.hash_seed);
    render_root_extent(size, &fs.offset, &fs.size);
    if (spec->bootable) {
        digest_uuid5(spec->name, ROOT_PARTITION_ROLE, partition);
        if (!render_grub_config(tree, files, fs.uuid, partition, spec->cmdline, &config, error))
            return false;
        config_bytes = g_bytes_new(config, strlen(config));
        if (!add_grub_config(tree, config_bytes, spec->epoch, error))
            return false;
        fs.extra_path = GRUB_CFG;
        fs.extra = config_bytes;
    }
    return ensure_folder(tree, "lost+found", 0700, spec->epoch, error) &&
           write_boot_loader(store, out, fs.uuid, spec, size, error) && render_ext4(out, tree, files, &fs, error);
}

bool render_disk(Store *store, StoreWriter *writer, Tree *tree, StoreMap *files, const RenderSpec *spec, MapWriter **ret, GError **error)
{
    g_autoptr(Tree) copy = NULL;
    g_autoptr(MapWriter) out = NULL;
    uint64_t size = spec->size ? spec->size : render_size_for(tree);

    if (size < RENDER_SIZE_MIN || size % MIB)
        return fail(error, "a disk of %" G_GUINT64_FORMAT " bytes cannot be made: the size must be a multiple of 1M and at least 80M", size);
    if (!tree_check(tree, error))
        return false;
    copy = copy_tree(tree);
    trace("baker.render", "%s: %zu entries, %" G_GUINT64_FORMAT " bytes", spec->name, tree_count(tree), size);
    if (!map_writer_new(writer, size, NULL, &out, error) || !write_disk(store, out, copy, files, spec, size, error) ||
        !map_writer_finish(out, error))
        return fail_prefix(error, "render the disk '%s'", spec->name);
    *ret = g_steal_pointer(&out);
    return true;
}
