/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of an ext4 file system a publisher must make zero: free blocks, inodes no longer used, the journal's old contents, blocks that were
 * preallocated and never written. The confined reader finds the places; disk-publishable.c writes.
 */
#include "store/ext4-serve-parts.h"

#include <string.h>

#define JOURNAL_BLOCKS_MAX (1 << 24)

typedef struct Cleaner {
    Ext4Served *s;
    Ext4Range last; /* not sent yet: the next one may touch it */
} Cleaner;

static void cleaner_flush(Cleaner *c)
{
    if (c->last.from < c->last.to)
        (void)ext4_say(c->s->port, EXT4_RANGES, &c->last, sizeof c->last, NULL, 0); /* a failure is asked for at the end */
    c->last = (Ext4Range){0, 0};
}

static void cleaner_add(Cleaner *c, uint64_t from, uint64_t to)
{
    if (c->last.from < c->last.to && c->last.to == from) {
        c->last.to = to;
        return;
    }
    cleaner_flush(c);
    c->last = (Ext4Range){from, to};
}

static void cleaner_add_blocks(Cleaner *c, uint64_t first, uint64_t count)
{
    uint64_t end = ext2fs_blocks_count(c->s->fs->super);

    if (first < end && count <= end - first)
        cleaner_add(c, first * c->s->fs->blocksize, (first + count) * c->s->fs->blocksize);
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
    uint64_t end = ext2fs_blocks_count(c->s->fs->super);
    blk64_t first = c->s->fs->super->s_first_data_block, used;

    while (first < end && ext2fs_find_first_zero_block_bitmap2(c->s->fs->block_map, first, end - 1, &first) == 0) {
        if (ext2fs_find_first_set_block_bitmap2(c->s->fs->block_map, first, end - 1, &used) != 0)
            used = end;
        cleaner_add_blocks(c, first, used - first);
        first = used;
    }
}

static bool add_free_inodes(Cleaner *c)
{
    struct ext2_super_block *super = c->s->fs->super;
    uint32_t per_group = super->s_inodes_per_group;
    size_t inode_size = EXT2_INODE_SIZE(super);

    for (dgrp_t group = 0; group < c->s->fs->group_desc_count; group++) {
        uint64_t table = ext2fs_inode_table_loc(c->s->fs, group);

        if (table >= ext2fs_blocks_count(super) || c->s->fs->inode_blocks_per_group > ext2fs_blocks_count(super) - table)
            return ext4_say_failed(c->s->port, "the ext4 file system is damaged: an inode table lies outside it");
        for (uint32_t i = 0; i < per_group; i++) {
            uint64_t ino = (uint64_t)group * per_group + i + 1, at = table * c->s->fs->blocksize + i * inode_size;

            if (ino >= EXT2_FIRST_INODE(super) && ino <= super->s_inodes_count &&
                !ext2fs_test_inode_bitmap2(c->s->fs->inode_map, (ext2_ino_t)ino))
                cleaner_add(c, at, at + inode_size);
        }
        if (!serve_step(c->s))
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
static bool add_journal(Cleaner *c)
{
    ext2_ino_t ino = c->s->fs->super->s_journal_inum;
    uint8_t head[32];
    blk64_t first;
    errcode_t rc;

    if (!ext2fs_has_feature_journal(c->s->fs->super) || ino == 0)
        return true;
    rc = ext2fs_bmap2(c->s->fs, ino, NULL, NULL, 0, 0, NULL, &first);
    if (rc)
        return ext4_say_code(c->s->port, rc, "find the journal");
    if (!ext4_port_read(c->s->port, head, sizeof head, first * c->s->fs->blocksize))
        return ext4_say_failed(c->s->port, "cannot read the ext4 file system's journal");
    if (memcmp(head + 28, "\0\0\0\0", 4) != 0) /* s_start */
        return ext4_say_failed(c->s->port, "the ext4 file system's journal is not empty: it was not unmounted cleanly");
    rc = ext2fs_block_iterate3(c->s->fs, ino, BLOCK_FLAG_DATA_ONLY | BLOCK_FLAG_READ_ONLY, NULL, journal_block, c);
    return rc == 0 || ext4_say_code(c->s->port, rc, "read the journal");
}

static bool add_unwritten_of(Cleaner *c, ext2_ino_t ino, struct ext2_inode *inode)
{
    ext2_extent_handle_t handle;
    struct ext2fs_extent extent;
    errcode_t rc = ext2fs_extent_open2(c->s->fs, ino, inode, &handle);
    int op = EXT2_EXTENT_ROOT;

    if (rc)
        return ext4_say_code(c->s->port, rc, "read the extents of inode %u", ino);
    while ((rc = ext2fs_extent_get(handle, op, &extent)) == 0 && serve_step(c->s)) {
        op = EXT2_EXTENT_NEXT;
        if ((extent.e_flags & EXT2_EXTENT_FLAGS_LEAF) && (extent.e_flags & EXT2_EXTENT_FLAGS_UNINIT))
            cleaner_add_blocks(c, extent.e_pblk, extent.e_len);
    }
    ext2fs_extent_free(handle);
    return rc == EXT2_ET_EXTENT_NO_NEXT || ext4_say_code(c->s->port, rc, "read the extents of inode %u", ino);
}

/* Preallocated blocks read as zero through a mount, but hold what was there before. */
static bool add_unwritten(Cleaner *c)
{
    ext2_inode_scan scan;
    struct ext2_inode inode;
    ext2_ino_t ino = 0;
    errcode_t rc = ext2fs_open_inode_scan(c->s->fs, 0, &scan);
    bool ok = true;

    if (rc)
        return ext4_say_code(c->s->port, rc, "read the inodes");
    while (ok && (rc = ext2fs_get_next_inode(scan, &ino, &inode)) == 0 && ino != 0)
        if (inode.i_links_count && (inode.i_flags & EXT4_EXTENTS_FL) && ext2fs_test_inode_bitmap2(c->s->fs->inode_map, ino))
            ok = add_unwritten_of(c, ino, &inode) && serve_step(c->s);
    ext2fs_close_inode_scan(scan);
    return ok && (rc == 0 || ext4_say_code(c->s->port, rc, "read the inodes"));
}

bool serve_clean(Ext4Served *s)
{
    Cleaner c = {.s = s};
    errcode_t rc = ext2fs_read_bitmaps(s->fs);

    if (rc)
        return ext4_say_code(s->port, rc, "read the bitmaps");
    mark_structures(s->fs);
    add_free_blocks(&c);
    if (!add_free_inodes(&c) || !add_journal(&c) || !add_unwritten(&c))
        return false;
    cleaner_flush(&c);
    return !ext4_has_failed(s->port);
}
