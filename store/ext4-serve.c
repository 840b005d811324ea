/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of the confined reader, and its short answers.
 */
#include "store/ext4-serve.h"

#include "store/ext4-serve-parts.h"

#define NAMES_MAX 65536u
#define JOURNAL_BLOCKS_MAX ((e2_blkcnt_t)1 << 20)

bool serve_step(Ext4Served *s)
{
    if (++s->steps > SERVE_STEPS_MAX)
        return ext4_say_failed(s->port, "the ext4 file system is damaged: its structures never end");
    return !ext4_has_failed(s->port);
}

static bool serve_open(Ext4Served *s, const Ext4Command *command)
{
    Ext4Info info = {0};

    if (s->fs)
        return ext4_say_failed(s->port, "the ext4 file system is open already");
    if (!ext4_open(s->port, command->size, command->arg, &s->fs))
        return false;
    info.blocks = ext2fs_blocks_count(s->fs->super);
    info.first_block = s->fs->super->s_first_data_block;
    info.inodes = s->fs->super->s_inodes_count;
    info.block_size = s->fs->blocksize;
    info.first_inode = EXT2_FIRST_INODE(s->fs->super);
    return ext4_say(s->port, EXT4_INFO, &info, sizeof info, NULL, 0);
}

/* *ret is 0 for a path that leads nowhere, also by links in circles. */
static bool find(Ext4Served *s, const char *path, ext2_ino_t *ret)
{
    errcode_t code = ext2fs_namei_follow(s->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, ret);

    if (code == EXT2_ET_FILE_NOT_FOUND || code == EXT2_ET_NO_DIRECTORY || code == EXT2_ET_SYMLINK_LOOP) {
        *ret = 0;
        return true;
    }
    return code == 0 || ext4_say_code(s->port, code, "find '%s'", path);
}

static bool serve_find(Ext4Served *s, const char *path)
{
    bool folder, linked;
    ext2_ino_t ino;

    if (!find(s, path, &ino))
        return false;
    return ino == 0 || !serve_inode_is_possible(s, ino) || serve_inode(s, ino, "", *path == '/' ? path + 1 : path, &folder, &linked);
}

/* Names of a folder, or blocks of the journal. */
typedef struct Listing {
    Ext4Served *served;
    uint32_t count; /* that were told */
} Listing;

static int take_name(struct ext2_dir_entry *entry, int offset, int block_size, char *block, void *arg)
{
    Listing *names = arg;
    size_t size = (size_t)ext2fs_dirent_name_len(entry);

    (void)offset, (void)block_size, (void)block;
    if (!serve_step(names->served))
        return DIRENT_ABORT;
    if (!entry->inode || size == 0 || (size == 1 && entry->name[0] == '.') || (size == 2 && entry->name[0] == '.' && entry->name[1] == '.'))
        return 0;
    if (!ext4_say(names->served->port, EXT4_NAME, entry->name, size, NULL, 0) || ++names->count >= NAMES_MAX)
        return DIRENT_ABORT;
    return 0;
}

static bool serve_list(Ext4Served *s, const char *path)
{
    Listing names = {s, 0};
    struct ext2_inode inode;
    ext2_ino_t ino;
    errcode_t code;

    if (!find(s, path, &ino))
        return false;
    if (ino == 0)
        return true;
    code = ext2fs_read_inode(s->fs, ino, &inode);
    if (code == 0 && LINUX_S_ISDIR(inode.i_mode))
        code = ext2fs_dir_iterate(s->fs, ino, 0, NULL, take_name, &names);
    return code == 0 || ext4_say_code(s->port, code, "list '%s'", path);
}

static int journal_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t logical, blk64_t ref_block, int ref_offset, void *arg)
{
    Listing *blocks = arg;
    uint64_t value = *block;

    (void)ref_block, (void)ref_offset;
    if (logical != blocks->count++ || logical >= JOURNAL_BLOCKS_MAX || value >= ext2fs_blocks_count(fs->super) || !serve_step(blocks->served))
        return BLOCK_ABORT;
    return ext4_say(blocks->served->port, EXT4_NUMBERS, &value, sizeof value, NULL, 0) ? 0 : BLOCK_ABORT;
}

static bool serve_journal(Ext4Served *s)
{
    Listing blocks = {s, 0};
    ext2_ino_t ino = s->fs->super->s_journal_inum;
    errcode_t code;

    if (ino == 0)
        return ext4_say_failed(s->port, "the ext4 file system keeps its journal elsewhere");
    if (ino > s->fs->super->s_inodes_count)
        return ext4_say_failed(s->port, "the ext4 file system's journal is damaged");
    code = ext2fs_block_iterate3(s->fs, ino, BLOCK_FLAG_DATA_ONLY | BLOCK_FLAG_READ_ONLY, NULL, journal_block, &blocks);
    return code == 0 || ext4_say_code(s->port, code, "find the journal");
}

static bool answer(Ext4Served *s, const Ext4Command *command, const char *path)
{
    s->steps = 0;
    if (command->op == EXT4_OPEN)
        return serve_open(s, command);
    if (!s->fs)
        return ext4_say_failed(s->port, "the ext4 file system is not open");
    switch (command->op) {
    case EXT4_WALK:
        return serve_walk(s);
    case EXT4_FIND:
        return serve_find(s, path);
    case EXT4_LIST:
        return serve_list(s, path);
    case EXT4_JOURNAL:
        return serve_journal(s);
    case EXT4_CLEAN:
        return serve_clean(s);
    default:
        return ext4_say_failed(s->port, "the reader of ext4 does not know the command %u", command->op);
    }
}

void ext4_serve(int in, int out)
{
    Ext4Served s = {.port = ext4_port_new(in, out)};
    Ext4Command command;
    const char *path;

    while (ext4_port_command(s.port, &command, &path))
        if (answer(&s, &command, path) && !ext4_has_failed(s.port))
            (void)ext4_say(s.port, EXT4_DONE, NULL, 0, NULL, 0);
    ext4_close(s.fs);
    ext4_port_free(s.port);
}
