/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ext4 into a tree, without a mount: libext2fs walks the file system where it
 * lies in a map.
 *
 * Two passes. The first walks folders, reads inodes and hashes contents; then
 * the file space can be laid out (equal content once); the second refers the
 * space to the very blocks of the disk. Between the passes a file's data_offset
 * holds its inode number. Contents are hashed by all processors (store/ordered.h) while the walk, which alone may call libext2fs, goes on.
 *
 * The file system comes out of a guest, so nothing in it is believed: every
 * count below has a bound, extents must ascend and lie inside, a folder may
 * have one name, and blocks are only taken over up to the end of the file:
 * beyond it a guest could hide what it deleted.
 */
#include "store/ext4-read.h"

#include "store/ext4-map-io.h"
#include "store/ordered.h"
#include "store/tree-acl.h"
#include "store/tree-known.h"
#include "store/tree-space.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"

#include <string.h>

#define READ_ENTRIES_MAX 10000000
#define READ_STEPS_MAX ((uint64_t)1 << 28)   /* directory slots and extents looked at */
#define READ_NAMES_MAX ((uint64_t)2 << 30)   /* bytes of all paths */
#define READ_XATTRS_MAX ((uint64_t)1 << 30)  /* bytes of all xattrs */
#define READ_CHUNK ((size_t)256 << 10)
#define HASH_CHUNK ((size_t)128 << 10) /* on a thread's stack */

/* An outline is held against another one: both are in memory at once, and one of them may be a guest's joke. */
#define OUTLINE_ENTRIES_MAX 1000000
#define OUTLINE_NAMES_MAX ((uint64_t)256 << 20)
#define OUTLINE_XATTRS_MAX ((uint64_t)64 << 20)

/* Blocks [logical, logical + count) of a file lie at @physical; ascending, clipped to the file's end. */
typedef struct Run {
    uint64_t logical, physical, count;
} Run;

typedef struct Folder {
    ext2_ino_t ino;
    char *path;
} Folder;

/* A content on its way to be hashed. */
typedef struct HashJob {
    TreeEntry *entry; /* the tree's */
    ext2_ino_t ino;
    GArray *runs;
    bool keyed;
    Digest key;
    Digest content;
    bool padded; /* zeroes follow the end of the file in its last block */
} HashJob;

typedef struct Ext4Reader {
    StoreMap *disk;
    uint64_t offset, size; /* of the file system on @disk */
    ext2_filsys fs;
    Tree *tree;
    GQueue folders;        /* to be read, of Folder* */
    GHashTable *names;     /* inode with several names -> path of the first one seen */
    ext2fs_inode_bitmap seen; /* folders that have a name */
    uint64_t steps, name_bytes, xattr_bytes;
    uint64_t content_left; /* apparent bytes that may still be hashed */
    uint64_t entries_max, names_max, xattrs_max;
    bool outline;          /* keys stand for contents, which are not read */
    uint8_t *chunk;
    Ordered *ring;
    HashJob *jobs;
    unsigned job_count;
    ext2fs_inode_bitmap padded; /* files whose last block needs no look */
    MapWriter *space;
    TreeKnown *known; /* may be NULL */
    GError **error; /* of the walk under way, for libext2fs's callbacks */
    const char *at; /* folder being read */
    bool failed;
} Reader;

static void folder_free(void *p)
{
    Folder *folder = p;

    g_free(folder->path);
    g_free(folder);
}

static bool reader_step(Reader *r, GError **error)
{
    if (++r->steps > READ_STEPS_MAX)
        return fail(error, "the ext4 file system is damaged: its structures never end");
    return r->steps % 4096 != 0 || interrupt_check(error);
}

static bool damaged(GError **error, const char *path, const char *what)
{
    return fail(error, "the ext4 file system is damaged: %s at '/%s'", what, path);
}

/* --- where a file's blocks are --- */

static bool add_run(Reader *r, GArray *runs, Run run, uint64_t blocks, GError **error)
{
    Run *last = runs->len ? &g_array_index(runs, Run, runs->len - 1) : NULL;
    uint64_t end = ext2fs_blocks_count(r->fs->super);

    if (last && run.logical < last->logical + last->count)
        return fail(error, "extents overlap");
    if (run.physical < r->fs->super->s_first_data_block || run.physical >= end || run.count > end - run.physical)
        return fail(error, "an extent lies outside the file system");
    if (run.logical >= blocks)
        return true; /* preallocated beyond the end of the file */
    run.count = MIN(run.count, blocks - run.logical);
    if (last && last->logical + last->count == run.logical && last->physical + last->count == run.physical)
        last->count += run.count;
    else
        g_array_append_val(runs, run);
    return true;
}

static bool runs_of_extents(Reader *r, ext2_ino_t ino, struct ext2_inode *inode, uint64_t blocks, GArray *runs,
                            GError **error)
{
    ext2_extent_handle_t handle;
    struct ext2fs_extent extent;
    errcode_t rc = ext2fs_extent_open2(r->fs, ino, inode, &handle);
    int op = EXT2_EXTENT_ROOT;
    bool ok = true;

    if (rc)
        return ext4_fail(r->fs, rc, error, "read extents");
    while (ok && (rc = ext2fs_extent_get(handle, op, &extent)) == 0) {
        op = EXT2_EXTENT_NEXT;
        ok = reader_step(r, error);
        if (!ok || !(extent.e_flags & EXT2_EXTENT_FLAGS_LEAF) || (extent.e_flags & EXT2_EXTENT_FLAGS_UNINIT))
            continue;
        ok = add_run(r, runs, (Run){extent.e_lblk, extent.e_pblk, extent.e_len}, blocks, error);
    }
    ext2fs_extent_free(handle);
    if (ok && rc != EXT2_ET_EXTENT_NO_NEXT)
        return ext4_fail(r->fs, rc, error, "read extents");
    return ok;
}

typedef struct BlockWalk {
    Reader *reader;
    GArray *runs;
    uint64_t blocks;
    GError **error;
    bool failed;
} BlockWalk;

static int block_seen(ext2_filsys fs, blk64_t *block, e2_blkcnt_t logical, blk64_t ref_block, int ref_offset, void *arg)
{
    BlockWalk *walk = arg;

    (void)fs, (void)ref_block, (void)ref_offset;
    if (logical < 0 || (uint64_t)logical >= walk->blocks)
        return BLOCK_ABORT;
    walk->failed = !reader_step(walk->reader, walk->error) ||
                   !add_run(walk->reader, walk->runs, (Run){(uint64_t)logical, *block, 1}, walk->blocks, walk->error);
    return walk->failed ? BLOCK_ABORT : 0;
}

static bool runs_of_file(Reader *r, ext2_ino_t ino, struct ext2_inode *inode, uint64_t size, GArray *runs, GError **error)
{
    BlockWalk walk = {r, runs, (size + r->fs->blocksize - 1) / r->fs->blocksize, error, false};
    errcode_t rc;

    if (inode->i_flags & EXT4_EXTENTS_FL)
        return runs_of_extents(r, ino, inode, walk.blocks, runs, error);
    /* ext2 and ext3 files: lists of blocks */
    rc = ext2fs_block_iterate3(r->fs, ino, BLOCK_FLAG_DATA_ONLY | BLOCK_FLAG_READ_ONLY, NULL, block_seen, &walk);
    if (walk.failed)
        return false;
    return rc == 0 || ext4_fail(r->fs, rc, error, "read the block list");
}

/* --- contents --- */

typedef bool ContentFn(const Reader *r, const uint8_t *data, size_t size, void *arg, GError **error);

static bool send_zeroes(const Reader *r, uint8_t *chunk, size_t chunk_size, uint64_t size, ContentFn *fn, void *arg, GError **error)
{
    if (size)
        memset(chunk, 0, MIN(size, chunk_size));
    while (size) {
        size_t part = MIN(size, chunk_size);

        if (!fn(r, chunk, part, arg, error) || !interrupt_check(error))
            return false;
        size -= part;
    }
    return true;
}

/* Streams the bytes of a file of @size that lies in @runs, by way of @chunk. Any thread. */
static bool send_runs(const Reader *r, uint8_t *chunk, size_t chunk_size, const GArray *runs, uint64_t size, ContentFn *fn, void *arg,
                      GError **error)
{
    uint64_t block = r->fs->blocksize, done = 0;

    for (guint i = 0; i < runs->len; i++) {
        const Run *run = &g_array_index(runs, Run, i);
        uint64_t from = r->offset + run->physical * block, end = MIN((run->logical + run->count) * block, size);

        if (!send_zeroes(r, chunk, chunk_size, run->logical * block - done, fn, arg, error))
            return false;
        for (done = run->logical * block; done < end;) {
            size_t part = MIN(chunk_size, end - done);

            if (!store_map_pread(r->disk, chunk, part, from, error) || !fn(r, chunk, part, arg, error))
                return false;
            done += part;
            from += part;
        }
        if (!interrupt_check(error))
            return false;
    }
    return send_zeroes(r, chunk, chunk_size, size - done, fn, arg, error);
}

static bool inline_content(Reader *r, ext2_ino_t ino, uint64_t size, GByteArray **ret, GError **error)
{
    g_autoptr(GByteArray) data = NULL;
    size_t have;
    errcode_t rc = ext2fs_inline_data_size(r->fs, ino, &have);

    if (rc)
        return ext4_fail(r->fs, rc, error, "read inline data");
    if (have > 65536 || size > have)
        return fail(error, "inline data is shorter than the file");
    data = g_byte_array_sized_new((guint)have + 128);
    g_byte_array_set_size(data, (guint)have + 128);
    rc = ext2fs_inline_data_get(r->fs, ino, NULL, data->data, &have);
    if (rc)
        return ext4_fail(r->fs, rc, error, "read inline data");
    g_byte_array_set_size(data, (guint)size);
    *ret = g_steal_pointer(&data);
    return true;
}

static bool send_content(Reader *r, ext2_ino_t ino, struct ext2_inode *inode, uint64_t size, ContentFn *fn, void *arg,
                         GError **error)
{
    g_autoptr(GArray) runs = NULL;
    g_autoptr(GByteArray) data = NULL;

    if (size == 0)
        return true;
    if (inode->i_flags & EXT4_INLINE_DATA_FL)
        return inline_content(r, ino, size, &data, error) && fn(r, data->data, data->len, arg, error);
    runs = g_array_new(FALSE, FALSE, sizeof(Run));
    return runs_of_file(r, ino, inode, size, runs, error) && send_runs(r, r->chunk, READ_CHUNK, runs, size, fn, arg, error);
}

static bool content_hash(const Reader *r, const uint8_t *data, size_t size, void *arg, GError **error)
{
    (void)r, (void)error;
    digest_stream_update(arg, data, size);
    return true;
}

static bool content_collect(const Reader *r, const uint8_t *data, size_t size, void *arg, GError **error)
{
    (void)r, (void)error;
    g_byte_array_append(arg, data, (guint)size);
    return true;
}

/* --- inodes --- */

static int64_t inode_mtime(const struct ext2_inode_large *inode, size_t inode_size)
{
    int64_t time = (int32_t)inode->i_mtime;

    if (inode_size > EXT2_GOOD_OLD_INODE_SIZE && inode->i_extra_isize >= 12)
        time += (int64_t)(inode->i_mtime_extra & 3) << 32;
    return time;
}

/* Only whole blocks on the store's grid have hashes. */
static bool has_key(const Reader *r, const struct ext2_inode *inode, uint64_t size)
{
    return r->known && size > 0 && !(inode->i_flags & EXT4_INLINE_DATA_FL) && r->fs->blocksize == STORE_BLOCK_SIZE &&
           r->offset % STORE_BLOCK_SIZE == 0;
}

static bool content_key(const Reader *r, const GArray *runs, uint64_t size, Digest *ret, GError **error)
{
    g_autoptr(DigestStream) key = tree_known_key_begin(size);

    for (guint i = 0; i < runs->len; i++) {
        const Run *run = &g_array_index(runs, Run, i);

        if (!tree_known_key_add(r->known, key, run->logical, r->disk, r->offset / STORE_BLOCK_SIZE + run->physical, run->count, error))
            return false;
    }
    digest_stream_final(key, ret);
    return true;
}

/* The block that was read last, so it is at hand. One that is a hole has nothing behind the end either. */
static bool see_padding(const Reader *r, HashJob *job, GError **error)
{
    uint64_t size = job->entry->size, last = size / STORE_BLOCK_SIZE;
    size_t used = (size_t)(size % STORE_BLOCK_SIZE);
    const Run *run = job->runs->len ? &g_array_index(job->runs, Run, job->runs->len - 1) : NULL;
    uint8_t rest[STORE_BLOCK_SIZE];

    job->padded = true;
    if (!used || r->fs->blocksize != STORE_BLOCK_SIZE || !run || last < run->logical || last >= run->logical + run->count)
        return true;
    if (!store_map_pread(r->disk, rest, STORE_BLOCK_SIZE - used, r->offset + (run->physical + last - run->logical) * STORE_BLOCK_SIZE + used,
                         error))
        return false;
    job->padded = bytes_are_zero(rest, STORE_BLOCK_SIZE - used);
    return true;
}

static bool job_hash(void *slot, void *arg, GError **error)
{
    const Reader *r = arg;
    HashJob *job = slot;
    g_autoptr(DigestStream) digest = digest_stream_new();
    uint8_t chunk[HASH_CHUNK];

    if (!send_runs(r, chunk, sizeof chunk, job->runs, job->entry->size, content_hash, digest, error) || !see_padding(r, job, error))
        return fail_prefix(error, "'/%s'", job->entry->path);
    digest_stream_final(digest, &job->content);
    return true;
}

static void mark_padded(Reader *r, ext2_ino_t ino, bool padded)
{
    if (padded)
        ext2fs_mark_inode_bitmap2(r->padded, ino);
}

static bool job_done(void *slot, void *arg, GError **error)
{
    Reader *r = arg;
    HashJob *job = slot;

    job->entry->sha256 = job->content;
    if (job->keyed)
        tree_known_put(r->known, &job->key, &job->content, job->padded);
    mark_padded(r, job->ino, job->padded);
    return true;
}

static void start_ring(Reader *r)
{
    static const OrderedOps ops = {NULL, job_hash, job_done};

    r->job_count = 64 * ordered_threads();
    r->jobs = g_new0(HashJob, r->job_count);
    for (unsigned i = 0; i < r->job_count; i++) {
        r->jobs[i].runs = g_array_new(FALSE, FALSE, sizeof(Run));
    }
    r->ring = ordered_new(&ops, r->jobs, sizeof *r->jobs, r->job_count, r);
}

/* Also in the middle of the work, before an entry goes that is being hashed. */
static void end_ring(Reader *r)
{
    g_clear_pointer(&r->ring, ordered_free);
    for (unsigned i = 0; i < r->job_count; i++) {
        g_array_unref(r->jobs[i].runs);
    }
    r->job_count = 0;
    g_clear_pointer(&r->jobs, g_free);
}

static bool hash_later(Reader *r, ext2_ino_t ino, TreeEntry *entry, const GArray *runs, const Digest *key, GError **error)
{
    HashJob *job;
    void *slot;

    if (!r->ring)
        start_ring(r);
    if (!ordered_slot(r->ring, &slot, error))
        return false;
    job = slot;
    job->entry = entry;
    job->ino = ino;
    g_array_set_size(job->runs, 0);
    g_array_append_vals(job->runs, runs->data, runs->len);
    job->keyed = key != NULL;
    job->key = key ? *key : digest_none;
    ordered_push(r->ring);
    return true;
}

static bool hash_now(Reader *r, ext2_ino_t ino, struct ext2_inode *inode, TreeEntry *entry, GError **error)
{
    g_autoptr(DigestStream) digest = digest_stream_new();

    if (!send_content(r, ino, inode, entry->size, content_hash, digest, error))
        return fail_prefix(error, "'/%s'", entry->path);
    digest_stream_final(digest, &entry->sha256);
    return true;
}

static bool get_content(Reader *r, ext2_ino_t ino, struct ext2_inode *inode, TreeEntry *entry, GError **error)
{
    g_autoptr(GArray) runs = NULL;
    bool keyed = has_key(r, inode, entry->size), padded = false;
    const Digest *content;
    Digest key;

    if (entry->size == 0 || (inode->i_flags & EXT4_INLINE_DATA_FL))
        return hash_now(r, ino, inode, entry, error);
    runs = g_array_new(FALSE, FALSE, sizeof(Run));
    if (!runs_of_file(r, ino, inode, entry->size, runs, error) || (keyed && !content_key(r, runs, entry->size, &key, error)))
        return fail_prefix(error, "'/%s'", entry->path);
    if (keyed && r->outline) {
        entry->sha256 = key;
        return true;
    }
    content = keyed ? tree_known_find(r->known, &key, &padded) : NULL;
    if (!content)
        return hash_later(r, ino, entry, runs, keyed ? &key : NULL, error);
    entry->sha256 = *content;
    mark_padded(r, ino, padded);
    return true;
}

/* Holes cost nothing in an outline: a file of any size may be one. */
static bool may_read(Reader *r, const struct ext2_inode *inode, uint64_t size)
{
    if (r->outline && has_key(r, inode, size))
        return true;
    if (size > TREE_FILE_MAX || size > r->content_left)
        return false;
    r->content_left -= size;
    return true;
}

static bool get_file(Reader *r, ext2_ino_t ino, struct ext2_inode *inode, TreeEntry *entry, GError **error)
{
    entry->size = EXT2_I_SIZE(inode);
    entry->data_offset = ino;
    if (!may_read(r, inode, entry->size))
        return fail(error, "the file '/%s' claims more bytes than a disk of this size should hold", entry->path);
    return get_content(r, ino, inode, entry, error);
}

static bool get_symlink(Reader *r, ext2_ino_t ino, struct ext2_inode *inode, TreeEntry *entry, GError **error)
{
    uint64_t size = EXT2_I_SIZE(inode);
    g_autoptr(GByteArray) text = g_byte_array_new();

    if (size == 0 || size > 4095)
        return damaged(error, entry->path, "a symbolic link of impossible length");
    if (size < sizeof inode->i_block && !(inode->i_flags & (EXT4_EXTENTS_FL | EXT4_INLINE_DATA_FL)))
        g_byte_array_append(text, (const uint8_t *)inode->i_block, (guint)size);
    else if (!send_content(r, ino, inode, size, content_collect, text, error))
        return fail_prefix(error, "'/%s'", entry->path);
    if (memchr(text->data, '\0', text->len))
        return damaged(error, entry->path, "a symbolic link with a NUL byte");
    entry->target = g_strndup((const char *)text->data, text->len);
    return true;
}

static void get_device(const struct ext2_inode *inode, TreeEntry *entry)
{
    uint32_t old = inode->i_block[0], new = inode->i_block[1];

    entry->major = old ? (old >> 8) & 0xff : (new & 0xfff00) >> 8;
    entry->minor = old ? old & 0xff : (new & 0xff) | ((new >> 12) & 0xfff00);
}

typedef struct XattrWalk {
    Reader *reader;
    TreeEntry *entry;
    bool failed;
} XattrWalk;

static int xattr_seen(char *name, char *value, size_t size, void *arg)
{
    XattrWalk *walk = arg;
    g_autoptr(GByteArray) acl = NULL;

    walk->reader->xattr_bytes += size + strlen(name);
    if (walk->reader->xattr_bytes > walk->reader->xattrs_max) {
        walk->failed = true;
        return XATTR_ABORT;
    }
    if (strcmp(name, "system.data") == 0)
        return 0; /* inline data: content, read elsewhere */
    if (!tree_acl_is_name(name)) {
        tree_entry_set_xattr(walk->entry, name, value, size);
        return 0;
    }
    acl = tree_acl_from_ext4(value, size);
    walk->failed = !acl;
    if (acl)
        tree_entry_set_xattr(walk->entry, name, acl->data, acl->len);
    return walk->failed ? XATTR_ABORT : 0;
}

/* Most inodes have none: told from the inode without another read. */
static bool inode_may_have_xattrs(Reader *r, const struct ext2_inode_large *inode)
{
    size_t have = EXT2_INODE_SIZE(r->fs->super), at;

    if (ext2fs_file_acl_block(r->fs, (const struct ext2_inode *)inode))
        return true;
    at = EXT2_GOOD_OLD_INODE_SIZE + (have > EXT2_GOOD_OLD_INODE_SIZE ? inode->i_extra_isize : 0u);
    if (have <= EXT2_GOOD_OLD_INODE_SIZE || at + 4 > have)
        return false;
    return !bytes_are_zero((const uint8_t *)inode + at, 4);
}

static bool get_xattrs(Reader *r, ext2_ino_t ino, struct ext2_inode_large *inode, TreeEntry *entry, GError **error)
{
    struct ext2_xattr_handle *handle;
    unsigned raw = XATTR_HANDLE_FLAG_RAW;
    XattrWalk walk = {r, entry, false};
    errcode_t rc;

    if (!inode_may_have_xattrs(r, inode))
        return true;
    rc = ext2fs_xattrs_open(r->fs, ino, &handle);
    if (rc)
        return ext4_fail(r->fs, rc, error, "read the extended attributes of '/%s'", entry->path);
    (void)ext2fs_xattrs_flags(handle, &raw, NULL); /* fails for a bad handle only */
    rc = ext2fs_xattrs_read_inode(handle, inode);
    if (rc == 0)
        rc = ext2fs_xattrs_iterate(handle, xattr_seen, &walk);
    (void)ext2fs_xattrs_close(&handle);
    if (walk.failed)
        return damaged(error, entry->path, "an impossible extended attribute");
    return rc == 0 || ext4_fail(r->fs, rc, error, "read the extended attributes of '/%s'", entry->path);
}

static char inode_type(uint16_t mode)
{
    switch (mode & LINUX_S_IFMT) {
    case LINUX_S_IFREG:
        return 'f';
    case LINUX_S_IFDIR:
        return 'd';
    case LINUX_S_IFLNK:
        return 'l';
    case LINUX_S_IFBLK:
        return 'b';
    case LINUX_S_IFCHR:
        return 'c';
    case LINUX_S_IFIFO:
        return 'p';
    case LINUX_S_IFSOCK:
        return 's';
    default:
        return 0;
    }
}

static bool get_typed(Reader *r, ext2_ino_t ino, struct ext2_inode *inode, TreeEntry *entry, GError **error)
{
    switch (entry->type) {
    case 'f':
        return get_file(r, ino, inode, entry, error);
    case 'l':
        return get_symlink(r, ino, inode, entry, error);
    case 'b':
    case 'c':
        get_device(inode, entry);
        return true;
    default:
        return true;
    }
}

static bool add_folder(Reader *r, ext2_ino_t ino, const char *path, GError **error)
{
    Folder *folder;

    if (ext2fs_test_inode_bitmap2(r->seen, ino))
        return damaged(error, path, "a folder with two names");
    ext2fs_mark_inode_bitmap2(r->seen, ino);
    folder = g_new0(Folder, 1);
    folder->ino = ino;
    folder->path = g_strdup(path);
    g_queue_push_head(&r->folders, folder); /* what is deep comes first: file systems keep it near by, so frames are unpacked once */
    return true;
}

/* A further name of an inode that was read already. */
static bool add_link(Reader *r, ext2_ino_t ino, const char *path)
{
    const char *first = g_hash_table_lookup(r->names, GUINT_TO_POINTER(ino));
    TreeEntry *entry;

    if (!first)
        return false;
    entry = tree_entry_new(path, 'h');
    entry->target = g_strdup(first);
    tree_put(r->tree, entry);
    return true;
}

static bool add_inode(Reader *r, ext2_ino_t ino, const char *path, GError **error)
{
    union {
        struct ext2_inode_large large;
        uint8_t bytes[4096]; /* inodes may be as large as a block */
    } inode;
    struct ext2_inode *small = (struct ext2_inode *)&inode;
    size_t size = MIN((size_t)EXT2_INODE_SIZE(r->fs->super), sizeof inode);
    TreeEntry *entry;
    errcode_t rc;

    if (ino != EXT2_ROOT_INO && (ino < EXT2_FIRST_INODE(r->fs->super) || ino > r->fs->super->s_inodes_count))
        return damaged(error, path, "a name without an inode");
    if (add_link(r, ino, path))
        return true;
    memset(&inode, 0, sizeof inode);
    rc = ext2fs_read_inode_full(r->fs, ino, small, (int)size);
    if (rc)
        return ext4_fail(r->fs, rc, error, "read the inode of '/%s'", path);
    if (inode_type(small->i_mode) == 0 || small->i_links_count == 0)
        return damaged(error, path, "an unused inode");
    if (small->i_flags & EXT4_ENCRYPT_FL)
        return fail(error, "'/%s' is encrypted, which kiln does not read", path);
    entry = tree_entry_new(path, inode_type(small->i_mode));
    entry->mode = small->i_mode & 07777;
    entry->uid = inode_uid(*small);
    entry->gid = inode_gid(*small);
    entry->mtime = inode_mtime(&inode.large, size);
    if (!get_typed(r, ino, small, entry, error) || !get_xattrs(r, ino, &inode.large, entry, error)) {
        end_ring(r);
        tree_entry_free(entry);
        return false;
    }
    if (entry->type != 'd' && small->i_links_count > 1)
        g_hash_table_insert(r->names, GUINT_TO_POINTER(ino), g_strdup(path));
    tree_put(r->tree, entry);
    return entry->type != 'd' || add_folder(r, ino, path, error);
}

/* --- folders --- */

static bool add_name(Reader *r, ext2_ino_t ino, const char *name, size_t size, GError **error)
{
    g_autofree char *base = g_strndup(name, size);
    g_autofree char *path = *r->at ? g_strconcat(r->at, "/", base, NULL) : g_strdup(base);

    if (size == 0 || strlen(base) != size || strchr(base, '/'))
        return damaged(error, r->at, "an impossible name");
    if (*r->at == '\0' && strcmp(base, "lost+found") == 0)
        return true; /* belongs to the file system, not to the tree */
    r->name_bytes += strlen(path);
    if (strlen(path) > 4095 || r->name_bytes > r->names_max || tree_count(r->tree) >= r->entries_max)
        return fail(error, "the ext4 file system has more or deeper folders than kiln reads, at '/%s'", r->at);
    if (tree_find(r->tree, path))
        return damaged(error, path, "two equal names");
    return add_inode(r, ino, path, error);
}

static int name_seen(ext2_ino_t dir, int kind, struct ext2_dir_entry *dirent, int offset, int blocksize, char *buf,
                     void *arg)
{
    Reader *r = arg;
    size_t size = (size_t)ext2fs_dirent_name_len(dirent);

    (void)dir, (void)kind, (void)offset, (void)blocksize, (void)buf;
    if (!reader_step(r, r->error)) {
        r->failed = true;
        return DIRENT_ABORT;
    }
    if (dirent->inode == 0 || (size == 1 && dirent->name[0] == '.') ||
        (size == 2 && dirent->name[0] == '.' && dirent->name[1] == '.'))
        return 0;
    r->failed = !add_name(r, dirent->inode, dirent->name, size, r->error);
    return r->failed ? DIRENT_ABORT : 0;
}

static bool read_folder(Reader *r, const Folder *folder, GError **error)
{
    errcode_t rc;

    r->error = error;
    r->at = folder->path;
    r->failed = false;
    rc = ext2fs_dir_iterate2(r->fs, folder->ino, DIRENT_FLAG_INCLUDE_EMPTY, NULL, name_seen, r);
    if (r->failed)
        return false;
    return rc == 0 || ext4_fail(r->fs, rc, error, "read the folder '/%s'", folder->path);
}

static bool read_folders(Reader *r, GError **error)
{
    if (!add_inode(r, EXT2_ROOT_INO, "", error))
        return false;
    while (!g_queue_is_empty(&r->folders)) {
        Folder *folder = g_queue_pop_head(&r->folders);
        bool ok = read_folder(r, folder, error);

        folder_free(folder);
        if (!ok)
            return false;
    }
    if (r->ring && !ordered_drain(r->ring, error))
        return false;
    end_ring(r);
    return true;
}

/* --- the file space --- */

typedef struct SpaceWrite {
    uint64_t at;          /* in the space */
    size_t held;          /* bytes that do not fill a block yet */
    uint8_t block[STORE_BLOCK_SIZE];
} SpaceWrite;

/* Copies content that does not lie on the grid: whole blocks at once, the rest waits. */
static bool content_copy(const Reader *r, const uint8_t *data, size_t size, void *arg, GError **error)
{
    SpaceWrite *w = arg;

    while (size) {
        size_t whole = size & ~(size_t)(STORE_BLOCK_SIZE - 1), part;

        if (w->held == 0 && whole) {
            if (!map_writer_write(r->space, w->at, data, whole, error))
                return false;
            w->at += whole;
            data += whole;
            size -= whole;
            continue;
        }
        part = MIN(size, STORE_BLOCK_SIZE - w->held);
        memcpy(w->block + w->held, data, part);
        w->held += part;
        data += part;
        size -= part;
        if (w->held == STORE_BLOCK_SIZE) {
            if (!map_writer_write(r->space, w->at, w->block, STORE_BLOCK_SIZE, error))
                return false;
            w->at += STORE_BLOCK_SIZE;
            w->held = 0;
        }
    }
    return true;
}

static bool space_copy(Reader *r, ext2_ino_t ino, struct ext2_inode *inode, const TreeSpaceFile *file, GError **error)
{
    SpaceWrite w = {.at = file->to};

    if (!send_content(r, ino, inode, file->size, content_copy, &w, error))
        return false;
    if (w.held == 0)
        return true;
    memset(w.block + w.held, 0, STORE_BLOCK_SIZE - w.held);
    return map_writer_write(r->space, w.at, w.block, STORE_BLOCK_SIZE, error);
}

/* The last block when the file ends inside it: as it is if zeroes follow, else a copy with zeroes. */
static bool space_take_tail(Reader *r, uint64_t from, uint64_t to, size_t used, GError **error)
{
    uint8_t block[STORE_BLOCK_SIZE];

    if (!store_map_pread(r->disk, block, sizeof block, from, error))
        return false;
    if (bytes_are_zero(block + used, sizeof block - used))
        return map_writer_ref(r->space, to, r->disk, from, sizeof block, error);
    memset(block + used, 0, sizeof block - used);
    return map_writer_write(r->space, to, block, sizeof block, error);
}

static bool space_take_runs(Reader *r, ext2_ino_t ino, const GArray *runs, const TreeSpaceFile *file, GError **error)
{
    bool padded = ext2fs_test_inode_bitmap2(r->padded, ino);

    for (guint i = 0; i < runs->len; i++) {
        const Run *run = &g_array_index(runs, Run, i);
        uint64_t logical = run->logical * STORE_BLOCK_SIZE, len = run->count * STORE_BLOCK_SIZE;
        uint64_t from = r->offset + run->physical * STORE_BLOCK_SIZE, to = file->to + logical;
        uint64_t whole = padded ? len : MIN(len, (file->size - logical) & ~(uint64_t)(STORE_BLOCK_SIZE - 1));

        if (whole && !map_writer_ref(r->space, to, r->disk, from, whole, error))
            return false;
        if (whole < len && !space_take_tail(r, from + whole, to + whole, file->size % STORE_BLOCK_SIZE, error))
            return false;
    }
    return true;
}

static bool space_take_file(Reader *r, const TreeSpaceFile *file, GError **error)
{
    ext2_ino_t ino = (ext2_ino_t)file->from;
    g_autoptr(GArray) runs = g_array_new(FALSE, FALSE, sizeof(Run));
    struct ext2_inode inode;
    errcode_t rc;

    if (file->size == 0)
        return true;
    rc = ext2fs_read_inode(r->fs, ino, &inode);
    if (rc)
        return ext4_fail(r->fs, rc, error, "read an inode again");
    if (r->fs->blocksize != STORE_BLOCK_SIZE || r->offset % STORE_BLOCK_SIZE || (inode.i_flags & EXT4_INLINE_DATA_FL))
        return space_copy(r, ino, &inode, file, error);
    return runs_of_file(r, ino, &inode, file->size, runs, error) && space_take_runs(r, ino, runs, file, error);
}

static bool space_take_all(Reader *r, StoreWriter *writer, GError **error)
{
    g_autoptr(GArray) layout = NULL;

    if (!tree_space_lay_out(r->tree, &layout, error) ||
        !map_writer_new(writer, tree_space_size(layout), NULL, &r->space, error))
        return false;
    r->steps = 0;
    for (guint i = 0; i < layout->len; i++) {
        const TreeSpaceFile *file = &g_array_index(layout, TreeSpaceFile, i);

        if (!space_take_file(r, file, error))
            return fail_prefix(error, "keep the content of '/%s'", file->entry->path);
    }
    return map_writer_finish(r->space, error);
}

static bool reader_open(Reader *r, GError **error)
{
    errcode_t rc;

    if (!ext4_open(r->disk, r->offset, r->size, &r->fs, error))
        return false;
    rc = ext2fs_allocate_inode_bitmap(r->fs, "folders", &r->seen);
    if (rc == 0)
        rc = ext2fs_allocate_inode_bitmap(r->fs, "padded", &r->padded);
    if (rc)
        return ext4_fail(r->fs, rc, error, "read the ext4 file system");
    g_queue_init(&r->folders);
    r->tree = tree_new();
    r->names = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    r->chunk = g_malloc(READ_CHUNK);
    /* Sparse files may claim more than the disk has (lastlog does), but not without end. */
    r->content_left = 16 * r->size + ((uint64_t)64 << 30);
    r->entries_max = READ_ENTRIES_MAX;
    r->names_max = READ_NAMES_MAX;
    r->xattrs_max = READ_XATTRS_MAX;
    return true;
}

static void reader_clear(Reader *r)
{
    end_ring(r);
    if (r->seen)
        ext2fs_free_inode_bitmap(r->seen);
    if (r->padded)
        ext2fs_free_inode_bitmap(r->padded);
    ext4_close(r->fs);
    g_queue_clear_full(&r->folders, folder_free);
    g_clear_pointer(&r->names, g_hash_table_unref);
    tree_free(r->tree);
    map_writer_free(r->space);
    g_free(r->chunk);
}

bool tree_read_ext4(Store *store, StoreMap *disk, uint64_t offset, uint64_t size, StoreWriter *writer, TreeKnown *known,
                    Tree **ret_tree, MapWriter **ret_space, GError **error)
{
    Reader r = {.disk = disk, .offset = offset, .size = size, .known = known};
    bool ok = reader_open(&r, error) && read_folders(&r, error);

    (void)store;
    if (ok) {
        tree_normalise_links(r.tree);
        ok = tree_check(r.tree, error) &&
             (writer ? space_take_all(&r, writer, error) : tree_space_lay_out(r.tree, NULL, error));
    }
    if (ok) {
        *ret_tree = g_steal_pointer(&r.tree);
        if (writer)
            *ret_space = g_steal_pointer(&r.space);
    }
    reader_clear(&r);
    return ok;
}

/* --- outlines --- */

bool ext4_outline(StoreMap *disk, uint64_t offset, uint64_t size, Ext4Reader **ret, GError **error)
{
    g_autoptr(Ext4Reader) r = g_new0(Reader, 1);

    r->disk = store_map_ref(disk);
    r->offset = offset;
    r->size = size;
    r->outline = true;
    r->known = tree_known_new(); /* stays empty: it makes the keys */
    if (!reader_open(r, error))
        return false;
    r->entries_max = OUTLINE_ENTRIES_MAX;
    r->names_max = OUTLINE_NAMES_MAX;
    r->xattrs_max = OUTLINE_XATTRS_MAX;
    if (!read_folders(r, error))
        return false;
    tree_normalise_links(r->tree);
    if (!tree_check(r->tree, error))
        return false;
    *ret = g_steal_pointer(&r);
    return true;
}

Tree *ext4_outline_tree(Ext4Reader *r)
{
    return r->tree;
}

bool ext4_outline_content(Ext4Reader *r, const TreeEntry *entry, Digest *ret, GError **error)
{
    g_autoptr(DigestStream) digest = digest_stream_new();
    ext2_ino_t ino = (ext2_ino_t)entry->data_offset;
    struct ext2_inode inode;
    errcode_t rc = ext2fs_read_inode(r->fs, ino, &inode);

    if (rc)
        return ext4_fail(r->fs, rc, error, "read an inode again");
    if (entry->size > r->content_left)
        return fail(error, "'/%s' and what was read before it is more than a disk of this size should hold", entry->path);
    r->content_left -= entry->size;
    if (!send_content(r, ino, &inode, entry->size, content_hash, digest, error))
        return fail_prefix(error, "'/%s'", entry->path);
    digest_stream_final(digest, ret);
    return true;
}

void ext4_outline_free(Ext4Reader *r)
{
    if (!r)
        return;
    reader_clear(r);
    tree_known_free(r->known);
    store_map_unref(r->disk);
    g_free(r);
}
