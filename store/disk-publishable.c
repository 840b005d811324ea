/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An in-place disk, made fit to publish. The guest's kernel changed it, so it
 * still holds what was deleted: in free blocks, in the journal, in inodes no
 * longer used, in blocks that were preallocated and never written. All of that
 * becomes zero in a public copy of the map; everything a mounted file system
 * can see stays as it is.
 *
 * The ranges are collected first and applied in ascending order, because file
 * systems with 1 KiB blocks and lone inodes share 4 KiB blocks of the map.
 */
#include "store/disk-file.h"
#include "store/ext4-map-io.h"

#include "base/error.h"
#include "base/interrupt.h"

#include <string.h>

#define JOURNAL_BLOCKS_MAX (1 << 24)
#define EXTENTS_MAX ((uint64_t)1 << 28)

/* Bytes [from, to) of the disk that become zero. */
typedef struct Range {
    uint64_t from, to;
} Range;

typedef struct Cleaner {
    StoreMap *disk;
    uint64_t offset; /* of the file system */
    ext2_filsys fs;
    GArray *ranges;
    uint64_t extents; /* seen, to have an end */
} Cleaner;

static void cleaner_add(Cleaner *c, uint64_t from, uint64_t to)
{
    Range *last = c->ranges->len ? &g_array_index(c->ranges, Range, c->ranges->len - 1) : NULL;
    Range range = {c->offset + from, c->offset + to};

    if (last && last->to == range.from)
        last->to = range.to;
    else if (range.from < range.to)
        g_array_append_val(c->ranges, range);
}

static void cleaner_add_blocks(Cleaner *c, uint64_t first, uint64_t count)
{
    uint64_t end = ext2fs_blocks_count(c->fs->super);

    if (first < end && count <= end - first)
        cleaner_add(c, first * c->fs->blocksize, (first + count) * c->fs->blocksize);
}

/* A damaged bitmap must not make us clear the file system's own structures. */
static void mark_structures(ext2_filsys fs)
{
    for (dgrp_t group = 0; group < fs->group_desc_count; group++) {
        (void)ext2fs_reserve_super_and_bgd(fs, group, fs->block_map); /* gives a count, no error */
        ext2fs_mark_block_bitmap2(fs->block_map, ext2fs_block_bitmap_loc(fs, group));
        ext2fs_mark_block_bitmap2(fs->block_map, ext2fs_inode_bitmap_loc(fs, group));
        ext2fs_mark_block_bitmap_range2(fs->block_map, ext2fs_inode_table_loc(fs, group), fs->inode_blocks_per_group);
    }
}

static void add_free_blocks(Cleaner *c)
{
    uint64_t end = ext2fs_blocks_count(c->fs->super);
    blk64_t first = c->fs->super->s_first_data_block, used;

    while (first < end && ext2fs_find_first_zero_block_bitmap2(c->fs->block_map, first, end - 1, &first) == 0) {
        if (ext2fs_find_first_set_block_bitmap2(c->fs->block_map, first, end - 1, &used) != 0)
            used = end;
        cleaner_add_blocks(c, first, used - first);
        first = used;
    }
}

static bool add_free_inodes(Cleaner *c, GError **error)
{
    struct ext2_super_block *super = c->fs->super;
    uint32_t per_group = super->s_inodes_per_group;
    size_t inode_size = EXT2_INODE_SIZE(super);

    for (dgrp_t group = 0; group < c->fs->group_desc_count; group++) {
        uint64_t table = ext2fs_inode_table_loc(c->fs, group);

        if (table >= ext2fs_blocks_count(super) || c->fs->inode_blocks_per_group > ext2fs_blocks_count(super) - table)
            return fail(error, "the ext4 file system is damaged: an inode table lies outside it");
        for (uint32_t i = 0; i < per_group; i++) {
            uint64_t ino = (uint64_t)group * per_group + i + 1, at = table * c->fs->blocksize + i * inode_size;

            if (ino >= EXT2_FIRST_INODE(super) && ino <= super->s_inodes_count &&
                !ext2fs_test_inode_bitmap2(c->fs->inode_map, (ext2_ino_t)ino))
                cleaner_add(c, at, at + inode_size);
        }
        if (!interrupt_check(error))
            return false;
    }
    return true;
}

static int journal_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t logical, blk64_t ref_block, int ref_offset, void *arg)
{
    (void)fs, (void)ref_block, (void)ref_offset;
    if (logical > JOURNAL_BLOCKS_MAX)
        return BLOCK_ABORT;
    if (logical > 0)
        cleaner_add_blocks(arg, *block, 1);
    return 0;
}

/* All but the journal's own superblock, which must say that there is nothing to replay. */
static bool add_journal(Cleaner *c, GError **error)
{
    ext2_ino_t ino = c->fs->super->s_journal_inum;
    uint8_t head[32];
    blk64_t first;
    errcode_t rc;

    if (!ext2fs_has_feature_journal(c->fs->super) || ino == 0)
        return true;
    rc = ext2fs_bmap2(c->fs, ino, NULL, NULL, 0, 0, NULL, &first);
    if (rc)
        return ext4_fail(c->fs, rc, error, "find the journal");
    if (!store_map_pread(c->disk, head, sizeof head, c->offset + first * c->fs->blocksize, error))
        return false;
    if (memcmp(head + 28, "\0\0\0\0", 4) != 0) /* s_start */
        return fail(error, "the ext4 file system's journal is not empty: it was not unmounted cleanly");
    rc = ext2fs_block_iterate3(c->fs, ino, BLOCK_FLAG_DATA_ONLY | BLOCK_FLAG_READ_ONLY, NULL, journal_block, c);
    return rc == 0 || ext4_fail(c->fs, rc, error, "read the journal");
}

static bool add_unwritten_of(Cleaner *c, ext2_ino_t ino, struct ext2_inode *inode, GError **error)
{
    ext2_extent_handle_t handle;
    struct ext2fs_extent extent;
    errcode_t rc = ext2fs_extent_open2(c->fs, ino, inode, &handle);
    int op = EXT2_EXTENT_ROOT;

    if (rc)
        return ext4_fail(c->fs, rc, error, "read the extents of inode %u", ino);
    while ((rc = ext2fs_extent_get(handle, op, &extent)) == 0 && c->extents++ < EXTENTS_MAX) {
        op = EXT2_EXTENT_NEXT;
        if ((extent.e_flags & EXT2_EXTENT_FLAGS_LEAF) && (extent.e_flags & EXT2_EXTENT_FLAGS_UNINIT))
            cleaner_add_blocks(c, extent.e_pblk, extent.e_len);
    }
    ext2fs_extent_free(handle);
    return rc == EXT2_ET_EXTENT_NO_NEXT || ext4_fail(c->fs, rc, error, "read the extents of inode %u", ino);
}

/* Preallocated blocks read as zero through a mount, but hold what was there before. */
static bool add_unwritten(Cleaner *c, GError **error)
{
    ext2_inode_scan scan;
    struct ext2_inode inode;
    ext2_ino_t ino = 0;
    errcode_t rc = ext2fs_open_inode_scan(c->fs, 0, &scan);
    bool ok = true;

    if (rc)
        return ext4_fail(c->fs, rc, error, "read the inodes");
    while (ok && (rc = ext2fs_get_next_inode(scan, &ino, &inode)) == 0 && ino != 0)
        if (inode.i_links_count && (inode.i_flags & EXT4_EXTENTS_FL) && ext2fs_test_inode_bitmap2(c->fs->inode_map, ino))
            ok = add_unwritten_of(c, ino, &inode, error) && interrupt_check(error);
    ext2fs_close_inode_scan(scan);
    return ok && (rc == 0 || ext4_fail(c->fs, rc, error, "read the inodes"));
}

static int compare_ranges(const void *a, const void *b)
{
    const Range *ra = a, *rb = b;

    return ra->from < rb->from ? -1 : ra->from > rb->from;
}

/* One block of the map of which only parts become zero; parts of it may come in several ranges. */
typedef struct PartialBlock {
    uint64_t at; /* UINT64_MAX: none */
    uint8_t bytes[STORE_BLOCK_SIZE];
} PartialBlock;

static size_t block_size_at(StoreMap *disk, uint64_t at)
{
    return (size_t)MIN((uint64_t)STORE_BLOCK_SIZE, store_map_size(disk) - at);
}

static bool partial_flush(Cleaner *c, PartialBlock *partial, MapWriter *out, GError **error)
{
    uint64_t at = partial->at;

    partial->at = UINT64_MAX;
    return at == UINT64_MAX || map_writer_write(out, at, partial->bytes, block_size_at(c->disk, at), error);
}

static bool partial_zero(Cleaner *c, PartialBlock *partial, MapWriter *out, uint64_t from, uint64_t to, GError **error)
{
    uint64_t at = from / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;

    if (partial->at != at) {
        if (!partial_flush(c, partial, out, error) ||
            !store_map_pread(c->disk, partial->bytes, block_size_at(c->disk, at), at, error))
            return false;
        partial->at = at;
    }
    memset(partial->bytes + (from - at), 0, to - from);
    return true;
}

static bool cleaner_apply(Cleaner *c, MapWriter *out, GError **error)
{
    PartialBlock partial = {.at = UINT64_MAX};

    g_array_sort(c->ranges, compare_ranges);
    for (guint i = 0; i < c->ranges->len; i++) {
        Range r = g_array_index(c->ranges, Range, i);

        while (r.from < r.to) {
            uint64_t end = (r.from / STORE_BLOCK_SIZE + 1) * STORE_BLOCK_SIZE;

            if (r.from % STORE_BLOCK_SIZE == 0 && r.to >= end) {
                end = r.to / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;
                if (!partial_flush(c, &partial, out, error) || !map_writer_zero(out, r.from, end - r.from, error))
                    return false;
            } else {
                end = MIN(end, r.to);
                if (!partial_zero(c, &partial, out, r.from, end, error))
                    return false;
            }
            r.from = end;
        }
    }
    return partial_flush(c, &partial, out, error);
}

static bool clean_ext4(StoreMap *disk, const DiskPartition *part, MapWriter *out, GError **error)
{
    Cleaner c = {.disk = disk, .offset = part->offset};
    errcode_t rc;
    bool ok;

    if (!ext4_open(disk, part->offset, part->size, &c.fs, error))
        return false;
    c.ranges = g_array_new(FALSE, FALSE, sizeof(Range));
    rc = ext2fs_read_bitmaps(c.fs);
    ok = rc == 0 || ext4_fail(c.fs, rc, error, "read the bitmaps");
    if (ok) {
        mark_structures(c.fs);
        add_free_blocks(&c);
        ok = add_free_inodes(&c, error) && add_journal(&c, error) && add_unwritten(&c, error) &&
             cleaner_apply(&c, out, error);
    }
    g_array_unref(c.ranges);
    ext4_close(c.fs);
    return ok;
}

bool disk_publishable(Store *store, StoreWriter *writer, StoreMap *disk, MapWriter **ret, GError **error)
{
    g_autoptr(MapWriter) out = NULL;
    g_autoptr(GArray) parts = NULL;

    (void)store;
    if (!disk_partitions(disk, &parts, error) || !map_writer_new(writer, store_map_size(disk), disk, &out, error))
        return false;
    for (guint i = 0; i < parts->len; i++) {
        const DiskPartition *part = &g_array_index(parts, DiskPartition, i);

        if (strcmp(part->fs, "ext4") == 0 && !clean_ext4(disk, part, out, error))
            return fail_prefix(error, "partition %u", part->number);
    }
    if (!map_writer_finish(out, error))
        return false;
    *ret = g_steal_pointer(&out);
    return true;
}
