/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The confined reader's walk: folders, inodes, extents, attributes, all told to kiln as they come.
 *
 * The file system comes out of a guest, so nothing in it is believed: extents must ascend and lie inside, a folder may
 * have one name, and the work has an end. kiln holds what it is told against the same rules.
 */
#include "store/ext4-serve-parts.h"

#include <string.h>

#define RUNS_AT_ONCE 1024u
#define FILE_MAX ((uint64_t)1 << 60) /* what may be read of it kiln says; this is where sums end */
#define INLINE_MAX ((size_t)65536)

typedef struct Folder {
    ext2_ino_t ino;
    uint32_t number;
    char *path;
} Folder;

typedef struct Walk {
    Ext4Served *s;
    GQueue folders;               /* to be read, of Folder* */
    uint32_t count;               /* folders that were told */
    ext2fs_inode_bitmap seen;     /* folders that have a name */
    ext2fs_inode_bitmap linked;   /* inodes with several names that were told */
    const Folder *at;
    bool failed;
} Walk;

static void folder_free(void *p)
{
    Folder *folder = p;

    g_free(folder->path);
    g_free(folder);
}

static bool damaged(Ext4Served *s, const char *path, const char *what)
{
    return ext4_say_failed(s->port, "the ext4 file system is damaged: %s at '/%s'", what, path);
}

/* --- where a file's blocks are --- */

/* The runs of one file: sent in pieces, or kept where the reader itself wants the bytes. */
typedef struct Runs {
    Ext4Served *s;
    const char *path;
    bool keep;
    uint64_t blocks; /* of the file: what lies beyond is not its content */
    Ext4Run run[RUNS_AT_ONCE];
    size_t count;
    bool failed;
} Runs;

static bool runs_send(Runs *runs)
{
    size_t count = runs->count;

    runs->count = 0;
    return count == 0 || ext4_say(runs->s->port, EXT4_RUNS, runs->run, count * sizeof *runs->run, NULL, 0);
}

static bool runs_make_room(Runs *runs)
{
    Ext4Run last;

    if (runs->count < RUNS_AT_ONCE)
        return true;
    if (runs->keep)
        return damaged(runs->s, runs->path, "too many extents");
    last = runs->run[--runs->count]; /* the next one may be its continuation */
    if (!runs_send(runs))
        return false;
    runs->run[runs->count++] = last;
    return true;
}

static bool add_run(Runs *runs, Ext4Run run)
{
    Ext4Run *last = runs->count ? &runs->run[runs->count - 1] : NULL;
    uint64_t end = ext2fs_blocks_count(runs->s->fs->super);

    if (last && run.logical < last->logical + last->count)
        return damaged(runs->s, runs->path, "extents overlap");
    if (run.physical < runs->s->fs->super->s_first_data_block || run.physical >= end || run.count > end - run.physical)
        return damaged(runs->s, runs->path, "an extent lies outside the file system");
    if (run.logical >= runs->blocks)
        return true; /* preallocated beyond the end of the file */
    run.count = MIN(run.count, runs->blocks - run.logical);
    if (last && last->logical + last->count == run.logical && last->physical + last->count == run.physical) {
        last->count += run.count;
        return true;
    }
    if (!runs_make_room(runs))
        return false;
    runs->run[runs->count++] = run;
    return true;
}

static bool runs_of_extents(Runs *runs, ext2_ino_t ino, struct ext2_inode *inode)
{
    ext2_extent_handle_t handle;
    struct ext2fs_extent extent;
    errcode_t rc = ext2fs_extent_open2(runs->s->fs, ino, inode, &handle);
    int op = EXT2_EXTENT_ROOT;
    bool ok = true;

    if (rc)
        return ext4_say_code(runs->s->port, rc, "read the extents of '/%s'", runs->path);
    while (ok && (rc = ext2fs_extent_get(handle, op, &extent)) == 0) {
        op = EXT2_EXTENT_NEXT;
        ok = serve_step(runs->s);
        if (!ok || !(extent.e_flags & EXT2_EXTENT_FLAGS_LEAF) || (extent.e_flags & EXT2_EXTENT_FLAGS_UNINIT))
            continue;
        ok = add_run(runs, (Ext4Run){extent.e_lblk, extent.e_pblk, extent.e_len});
    }
    ext2fs_extent_free(handle);
    if (ok && rc != EXT2_ET_EXTENT_NO_NEXT)
        return ext4_say_code(runs->s->port, rc, "read the extents of '/%s'", runs->path);
    return ok;
}

static int block_seen(ext2_filsys fs, blk64_t *block, e2_blkcnt_t logical, blk64_t ref_block, int ref_offset, void *arg)
{
    Runs *runs = arg;

    (void)fs, (void)ref_block, (void)ref_offset;
    if (logical < 0 || (uint64_t)logical >= runs->blocks)
        return BLOCK_ABORT;
    runs->failed = !serve_step(runs->s) || !add_run(runs, (Ext4Run){(uint64_t)logical, *block, 1});
    return runs->failed ? BLOCK_ABORT : 0;
}

static bool find_runs(Runs *runs, ext2_ino_t ino, struct ext2_inode *inode, uint64_t size)
{
    errcode_t rc;

    runs->blocks = (size + runs->s->fs->blocksize - 1) / runs->s->fs->blocksize;
    if (inode->i_flags & EXT4_EXTENTS_FL)
        return runs_of_extents(runs, ino, inode);
    /* ext2 and ext3 files: lists of blocks */
    rc = ext2fs_block_iterate3(runs->s->fs, ino, BLOCK_FLAG_DATA_ONLY | BLOCK_FLAG_READ_ONLY, NULL, block_seen, runs);
    if (runs->failed)
        return false;
    return rc == 0 || ext4_say_code(runs->s->port, rc, "read the block list of '/%s'", runs->path);
}

static bool get_inline(Ext4Served *s, ext2_ino_t ino, const char *path, uint64_t size, uint8_t **ret)
{
    g_autofree uint8_t *data = NULL;
    size_t have;
    errcode_t rc = ext2fs_inline_data_size(s->fs, ino, &have);

    if (rc)
        return ext4_say_code(s->port, rc, "read the inline data of '/%s'", path);
    if (have > INLINE_MAX || size > have)
        return damaged(s, path, "inline data that is shorter than the file");
    data = g_malloc0(have + 128);
    rc = ext2fs_inline_data_get(s->fs, ino, NULL, data, &have);
    if (rc)
        return ext4_say_code(s->port, rc, "read the inline data of '/%s'", path);
    *ret = g_steal_pointer(&data);
    return true;
}

/* --- inodes --- */

static bool send_content(Ext4Served *s, ext2_ino_t ino, struct ext2_inode *inode, const char *path, Ext4Entry *entry)
{
    Runs runs = {.s = s, .path = path};
    g_autofree uint8_t *data = NULL;

    if (entry->size > FILE_MAX)
        return ext4_say_failed(s->port, "the file '/%s' claims more bytes than a disk of this size should hold", path);
    if (entry->size == 0)
        return true;
    if (!(inode->i_flags & EXT4_INLINE_DATA_FL))
        return find_runs(&runs, ino, inode, entry->size) && runs_send(&runs);
    entry->is_inline = 1;
    return get_inline(s, ino, path, entry->size, &data) && ext4_say(s->port, EXT4_INLINE, data, entry->size, NULL, 0);
}

/* A link's text that is too long for the inode lies in a block, or in the inode's attributes. */
static bool get_long_target(Ext4Served *s, ext2_ino_t ino, struct ext2_inode *inode, const char *path, size_t size, char *to)
{
    Runs runs = {.s = s, .path = path, .keep = true};
    g_autofree uint8_t *data = NULL;
    uint64_t block = s->fs->blocksize;

    memset(to, 0, size);
    if (inode->i_flags & EXT4_INLINE_DATA_FL) {
        if (!get_inline(s, ino, path, size, &data))
            return false;
        memcpy(to, data, size);
        return true;
    }
    if (!find_runs(&runs, ino, inode, size))
        return false;
    for (size_t i = 0; i < runs.count; i++) {
        uint64_t from = runs.run[i].logical * block, end = MIN(from + runs.run[i].count * block, (uint64_t)size);

        if (!ext4_port_read(s->port, to + from, end - from, runs.run[i].physical * block))
            return ext4_say_failed(s->port, "cannot read the link '/%s'", path);
    }
    return true;
}

static bool get_target(Ext4Served *s, ext2_ino_t ino, struct ext2_inode *inode, const char *path, char *to, uint16_t *ret_size)
{
    uint64_t size = EXT2_I_SIZE(inode);

    if (size == 0 || size > EXT4_PATH_MAX)
        return damaged(s, path, "a symbolic link of impossible length");
    *ret_size = (uint16_t)size;
    if (size < sizeof inode->i_block && !(inode->i_flags & (EXT4_EXTENTS_FL | EXT4_INLINE_DATA_FL)))
        memcpy(to, inode->i_block, size);
    else if (!get_long_target(s, ino, inode, path, (size_t)size, to))
        return false;
    return !memchr(to, '\0', size) || damaged(s, path, "a symbolic link with a NUL byte");
}

static void get_device(const struct ext2_inode *inode, Ext4Entry *entry)
{
    uint32_t old = inode->i_block[0], new = inode->i_block[1];

    entry->major = old ? (old >> 8) & 0xff : (new & 0xfff00) >> 8;
    entry->minor = old ? old & 0xff : (new & 0xff) | ((new >> 12) & 0xfff00);
}

static int64_t inode_mtime(const struct ext2_inode_large *inode, size_t inode_size)
{
    int64_t time = (int32_t)inode->i_mtime;

    if (inode_size > EXT2_GOOD_OLD_INODE_SIZE && inode->i_extra_isize >= 12)
        time += (int64_t)(inode->i_mtime_extra & 3) << 32;
    return time;
}

static int xattr_seen(char *name, char *value, size_t size, void *arg)
{
    Ext4Served *s = arg;

    if (strcmp(name, "system.data") == 0)
        return 0; /* inline data: content, read elsewhere */
    return serve_step(s) && ext4_say(s->port, EXT4_XATTR, name, strlen(name) + 1, value, size) ? 0 : XATTR_ABORT;
}

/* Most inodes have none: told from the inode without another read. */
static bool inode_may_have_xattrs(const Ext4Served *s, const struct ext2_inode_large *inode)
{
    size_t have = EXT2_INODE_SIZE(s->fs->super), at;

    if (ext2fs_file_acl_block(s->fs, (const struct ext2_inode *)inode))
        return true;
    at = EXT2_GOOD_OLD_INODE_SIZE + (have > EXT2_GOOD_OLD_INODE_SIZE ? inode->i_extra_isize : 0u);
    if (have <= EXT2_GOOD_OLD_INODE_SIZE || at + 4 > have)
        return false;
    return memcmp((const uint8_t *)inode + at, "\0\0\0\0", 4) != 0;
}

static bool send_xattrs(Ext4Served *s, ext2_ino_t ino, struct ext2_inode_large *inode, const char *path)
{
    struct ext2_xattr_handle *handle;
    unsigned raw = XATTR_HANDLE_FLAG_RAW;
    errcode_t rc;

    if (!inode_may_have_xattrs(s, inode))
        return true;
    rc = ext2fs_xattrs_open(s->fs, ino, &handle);
    if (rc)
        return ext4_say_code(s->port, rc, "read the extended attributes of '/%s'", path);
    (void)ext2fs_xattrs_flags(handle, &raw, NULL); /* fails for a bad handle only */
    rc = ext2fs_xattrs_read_inode(handle, inode);
    if (rc == 0)
        rc = ext2fs_xattrs_iterate(handle, xattr_seen, s);
    (void)ext2fs_xattrs_close(&handle);
    if (rc)
        return ext4_say_code(s->port, rc, "read the extended attributes of '/%s'", path);
    return !ext4_has_failed(s->port);
}

bool serve_inode_is_possible(const Ext4Served *s, ext2_ino_t ino)
{
    return ino == EXT2_ROOT_INO || (ino >= EXT2_FIRST_INODE(s->fs->super) && ino <= s->fs->super->s_inodes_count);
}

static bool send_typed(Ext4Served *s, ext2_ino_t ino, struct ext2_inode *inode, const char *path, Ext4Entry *entry, char *target)
{
    switch (inode->i_mode & LINUX_S_IFMT) {
    case LINUX_S_IFREG:
        entry->size = EXT2_I_SIZE(inode);
        return send_content(s, ino, inode, path, entry);
    case LINUX_S_IFLNK:
        return get_target(s, ino, inode, path, target, &entry->target_size);
    case LINUX_S_IFBLK:
    case LINUX_S_IFCHR:
        get_device(inode, entry);
        return true;
    case LINUX_S_IFDIR:
    case LINUX_S_IFIFO:
    case LINUX_S_IFSOCK:
        return true;
    default:
        return damaged(s, path, "an unused inode");
    }
}

static bool send_entry(Ext4Served *s, const Ext4Entry *entry, const char *name, const char *target)
{
    char tail[256 + EXT4_PATH_MAX];

    memcpy(tail, name, entry->name_size);
    memcpy(tail + entry->name_size, target, entry->target_size);
    return ext4_say(s->port, EXT4_ENTRY, entry, sizeof *entry, tail, (size_t)entry->name_size + entry->target_size);
}

bool serve_inode(Ext4Served *s, ext2_ino_t ino, const char *name, const char *path, bool *ret_folder, bool *ret_linked)
{
    union {
        struct ext2_inode_large large;
        uint8_t bytes[4096]; /* inodes may be as large as a block */
    } inode;
    struct ext2_inode *small = (struct ext2_inode *)&inode;
    size_t size = MIN((size_t)EXT2_INODE_SIZE(s->fs->super), sizeof inode);
    Ext4Entry entry = {.ino = ino, .name_size = (uint16_t)MIN(strlen(name), (size_t)255)};
    char target[EXT4_PATH_MAX];
    errcode_t rc;

    memset(&inode, 0, sizeof inode);
    rc = ext2fs_read_inode_full(s->fs, ino, small, (int)size);
    if (rc)
        return ext4_say_code(s->port, rc, "read the inode of '/%s'", path);
    if (small->i_links_count == 0)
        return damaged(s, path, "an unused inode");
    if (small->i_flags & EXT4_ENCRYPT_FL)
        return ext4_say_failed(s->port, "'/%s' is encrypted, which kiln does not read", path);
    entry.mode = small->i_mode;
    entry.links = small->i_links_count;
    entry.uid = inode_uid(*small);
    entry.gid = inode_gid(*small);
    entry.mtime = inode_mtime(&inode.large, size);
    *ret_folder = LINUX_S_ISDIR(small->i_mode);
    *ret_linked = !*ret_folder && entry.links > 1;
    return send_typed(s, ino, small, path, &entry, target) && send_xattrs(s, ino, &inode.large, path) && send_entry(s, &entry, name, target);
}

/* --- folders --- */

static bool add_folder(Walk *w, ext2_ino_t ino, char *path)
{
    Folder *folder;

    if (ext2fs_test_inode_bitmap2(w->seen, ino))
        return damaged(w->s, path, "a folder with two names");
    ext2fs_mark_inode_bitmap2(w->seen, ino);
    folder = g_new0(Folder, 1);
    folder->ino = ino;
    folder->number = w->count++;
    folder->path = g_strdup(path);
    g_queue_push_head(&w->folders, folder); /* what is deep comes first: file systems keep it near by */
    return true;
}

static bool add_inode(Walk *w, ext2_ino_t ino, const char *name, char *path)
{
    bool folder, linked;

    if (!serve_inode_is_possible(w->s, ino))
        return damaged(w->s, path, "a name without an inode");
    if (ext2fs_test_inode_bitmap2(w->linked, ino))
        return ext4_say(w->s->port, EXT4_LINK, &ino, sizeof ino, name, strlen(name));
    if (!serve_inode(w->s, ino, name, path, &folder, &linked))
        return false;
    if (linked)
        ext2fs_mark_inode_bitmap2(w->linked, ino);
    return !folder || add_folder(w, ino, path);
}

static bool add_name(Walk *w, ext2_ino_t ino, const char *name, size_t size)
{
    g_autofree char *base = g_strndup(name, size);
    g_autofree char *path = *w->at->path ? g_strconcat(w->at->path, "/", base, NULL) : g_strdup(base);

    if (size == 0 || strlen(base) != size || strchr(base, '/'))
        return damaged(w->s, w->at->path, "an impossible name");
    if (w->at->number == 0 && strcmp(base, "lost+found") == 0)
        return true; /* belongs to the file system, not to the tree */
    if (strlen(path) > EXT4_PATH_MAX)
        return ext4_say_failed(w->s->port, "the ext4 file system has more or deeper folders than kiln reads, at '/%.100s...'", w->at->path);
    return add_inode(w, ino, base, path);
}

static int name_seen(ext2_ino_t dir, int kind, struct ext2_dir_entry *dirent, int offset, int blocksize, char *buf, void *arg)
{
    Walk *w = arg;
    size_t size = (size_t)ext2fs_dirent_name_len(dirent);

    (void)dir, (void)kind, (void)offset, (void)blocksize, (void)buf;
    w->failed = !serve_step(w->s);
    if (w->failed)
        return DIRENT_ABORT;
    if (dirent->inode == 0 || (size == 1 && dirent->name[0] == '.') || (size == 2 && dirent->name[0] == '.' && dirent->name[1] == '.'))
        return 0;
    w->failed = !add_name(w, dirent->inode, dirent->name, size);
    return w->failed ? DIRENT_ABORT : 0;
}

static bool read_folder(Walk *w, const Folder *folder)
{
    errcode_t rc;

    w->at = folder;
    if (!ext4_say(w->s->port, EXT4_FOLDER, &folder->number, sizeof folder->number, NULL, 0))
        return false;
    rc = ext2fs_dir_iterate2(w->s->fs, folder->ino, DIRENT_FLAG_INCLUDE_EMPTY, NULL, name_seen, w);
    if (w->failed)
        return false;
    return rc == 0 || ext4_say_code(w->s->port, rc, "read the folder '/%s'", folder->path);
}

static bool walk_all(Walk *w)
{
    char root[1] = "";
    struct ext2_inode inode;
    bool ok;

    if (ext2fs_read_inode(w->s->fs, EXT2_ROOT_INO, &inode) || !LINUX_S_ISDIR(inode.i_mode))
        return damaged(w->s, root, "a root that is no folder");
    ok = add_inode(w, EXT2_ROOT_INO, "", root);
    while (ok && !g_queue_is_empty(&w->folders)) {
        Folder *folder = g_queue_pop_head(&w->folders);

        ok = read_folder(w, folder);
        folder_free(folder);
    }
    return ok;
}

bool serve_walk(Ext4Served *s)
{
    Walk w = {.s = s};
    errcode_t rc = ext2fs_allocate_inode_bitmap(s->fs, "folders", &w.seen);
    bool ok;

    g_queue_init(&w.folders);
    if (rc == 0)
        rc = ext2fs_allocate_inode_bitmap(s->fs, "links", &w.linked);
    ok = rc == 0 ? walk_all(&w) : ext4_say_code(s->port, rc, "read the ext4 file system");
    if (w.seen)
        ext2fs_free_inode_bitmap(w.seen);
    if (w.linked)
        ext2fs_free_inode_bitmap(w.linked);
    g_queue_clear_full(&w.folders, folder_free);
    return ok;
}
