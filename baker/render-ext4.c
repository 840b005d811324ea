/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a tree as an ext4 file system, in user space, the same bytes every time.
 *
 * libext2fs makes superblock, groups, bitmaps, journal, checksums and
 * attributes; inodes, folders and extents are laid out here, because here the
 * whole tree is known: inodes are numbered in path order, each folder's blocks
 * are written once, and file data get the longest free runs in path order.
 * Since the file space has the same order, most of the disk becomes a few long
 * references to blocks that the store has already; data are never read.
 *
 * What libext2fs writes goes into memory (a few MiB of metadata) and from there
 * into the map in ascending order. Blocks never written are holes.
 *
 * The feature list is what Debian 12's mke2fs gives and GRUB 2.06 reads; naming
 * it here keeps a library's update from changing disks.
 */
#include "baker/render-parts.h"

#include "base/error.h"
#include "base/interrupt.h"

#include <assert.h>
#include <ext2fs/ext2fs.h>
#include <string.h>

#define BLOCK STORE_BLOCK_SIZE
#define INODE_SIZE 256
#define BYTES_PER_INODE 16384
#define LINKS_MAX 65000
#define EXTENT_BLOCKS_MAX 32768
#define EXTENTS_IN_INODE 4

/* --- memory that libext2fs writes to --- */

typedef struct Sink {
    GHashTable *blocks; /* number -> 4 KiB, owned */
    uint64_t size;
} Sink;

static _Thread_local Sink *sink_to_open; /* open() of an io manager is given a name only */

static uint8_t *sink_block(Sink *sink, uint64_t number, bool make)
{
    uint8_t *block = g_hash_table_lookup(sink->blocks, (gpointer)(uintptr_t)number);

    if (!block && make) {
        block = g_malloc0(BLOCK);
        g_hash_table_insert(sink->blocks, (gpointer)(uintptr_t)number, block);
    }
    return block;
}

static errcode_t sink_set_blksize(io_channel io, int size)
{
    io->block_size = size;
    return 0;
}

/* Moves bytes between @data and the sink; @write says which way. */
static errcode_t sink_transfer(io_channel io, uint64_t block, int count, void *data, bool write)
{
    Sink *sink = io->private_data;
    uint64_t at = block * (uint64_t)io->block_size;
    uint64_t size = count < 0 ? (uint64_t)-(int64_t)count : (uint64_t)count * (uint64_t)io->block_size;
    uint8_t *bytes = data;

    if (at > sink->size || size > sink->size - at)
        return write ? EXT2_ET_SHORT_WRITE : EXT2_ET_SHORT_READ;
    while (size) {
        size_t skip = at % BLOCK, part = MIN(size, BLOCK - skip);
        uint8_t *have = sink_block(sink, at / BLOCK, write);

        if (write)
            memcpy(have + skip, bytes, part);
        else if (have)
            memcpy(bytes, have + skip, part);
        else
            memset(bytes, 0, part);
        at += part;
        bytes += part;
        size -= part;
    }
    return 0;
}

static errcode_t sink_read64(io_channel io, unsigned long long block, int count, void *data)
{
    return sink_transfer(io, block, count, data, false);
}

static errcode_t sink_read(io_channel io, unsigned long block, int count, void *data)
{
    return sink_transfer(io, block, count, data, false);
}

static errcode_t sink_write64(io_channel io, unsigned long long block, int count, const void *data)
{
    return sink_transfer(io, block, count, (void *)data, true);
}

static errcode_t sink_write(io_channel io, unsigned long block, int count, const void *data)
{
    return sink_transfer(io, block, count, (void *)data, true);
}

static errcode_t sink_zeroout(io_channel io, unsigned long long block, unsigned long long count)
{
    Sink *sink = io->private_data;

    if (io->block_size != BLOCK)
        return EXT2_ET_UNIMPLEMENTED;
    for (uint64_t i = 0; i < count; i++)
        g_hash_table_remove(sink->blocks, (gpointer)(uintptr_t)(block + i));
    return 0;
}

static errcode_t sink_flush(io_channel io)
{
    (void)io;
    return 0;
}

static errcode_t sink_close(io_channel io)
{
    if (--io->refcount > 0)
        return 0;
    g_free(io->name);
    g_free(io);
    return 0;
}

static errcode_t sink_open(const char *name, int flags, io_channel *ret);

static struct struct_io_manager sink_manager = {
    .magic = EXT2_ET_MAGIC_IO_MANAGER,
    .name = "kiln memory",
    .open = sink_open,
    .close = sink_close,
    .set_blksize = sink_set_blksize,
    .read_blk = sink_read,
    .write_blk = sink_write,
    .flush = sink_flush,
    .read_blk64 = sink_read64,
    .write_blk64 = sink_write64,
    .zeroout = sink_zeroout,
    .discard = sink_zeroout,
};

static errcode_t sink_open(const char *name, int flags, io_channel *ret)
{
    io_channel io = g_new0(struct struct_io_channel, 1);

    (void)flags;
    io->magic = EXT2_ET_MAGIC_IO_CHANNEL;
    io->manager = &sink_manager;
    io->name = g_strdup(name);
    io->block_size = 1024;
    io->refcount = 1;
    io->private_data = sink_to_open;
    *ret = io;
    return 0;
}

static int compare_numbers(const void *a, const void *b)
{
    uintptr_t na = (uintptr_t) * (void *const *)a, nb = (uintptr_t) * (void *const *)b;

    return na < nb ? -1 : na > nb;
}

/* Hands everything to the map, neighbours in one write. */
static bool sink_drain(Sink *sink, MapWriter *out, uint64_t offset, GError **error)
{
    guint count;
    g_autofree gpointer *numbers = g_hash_table_get_keys_as_array(sink->blocks, &count);
    g_autofree uint8_t *run = g_malloc(256 * BLOCK);

    qsort(numbers, count, sizeof *numbers, compare_numbers);
    for (guint i = 0; i < count;) {
        uint64_t first = (uintptr_t)numbers[i];
        size_t n = 0;

        while (i < count && n < 256 && (uintptr_t)numbers[i] == first + n)
            memcpy(run + n++ * BLOCK, sink_block(sink, (uintptr_t)numbers[i++], false), BLOCK);
        if (!map_writer_write(out, offset + first * BLOCK, run, n * BLOCK, error))
            return false;
    }
    return true;
}

/* --- the file system under construction --- */

typedef struct Node {
    const TreeEntry *entry;
    ext2_ino_t ino;
    unsigned links;
    GPtrArray *children; /* of folders: entries, in path order */
} Node;

typedef struct Extent {
    uint64_t logical, physical;
    uint32_t count;
} Extent;

typedef struct Writer {
    MapWriter *out;
    StoreMap *files;
    const RenderFs *spec;
    Tree *tree;
    Sink sink;
    ext2_filsys fs;
    GHashTable *nodes; /* path -> Node, owned; hard-link names are not in it */
    uint64_t cursor;   /* no free block lies before it */
    /* neighbouring references not handed out yet */
    uint64_t ref_to, ref_from, ref_len;
} Writer;

static bool ext_fail(errcode_t code, GError **error, const char *what)
{
    return fail(error, "cannot %s: %s", what, error_message(code));
}

static void node_free(void *p)
{
    Node *node = p;

    g_clear_pointer(&node->children, g_ptr_array_unref);
    g_free(node);
}

static size_t dirent_size(size_t name)
{
    return (8 + name + 3) & ~(size_t)3;
}

static const char *base_name(const TreeEntry *entry)
{
    const char *slash = strrchr(entry->path, '/');

    return slash ? slash + 1 : entry->path;
}

/* Blocks that a folder's names fill. Each block keeps 12 bytes for its checksum. */
static uint64_t folder_blocks(const GPtrArray *children)
{
    size_t room = BLOCK - 12, used = 2 * dirent_size(1);
    uint64_t blocks = 1;

    for (guint i = 0; i < children->len; i++) {
        size_t size = dirent_size(strlen(base_name(children->pdata[i])));

        if (used + size > room) {
            blocks++;
            used = 0;
        }
        used += size;
    }
    return blocks;
}

static uint64_t file_blocks(uint64_t size)
{
    return (size + BLOCK - 1) / BLOCK;
}

/* --- making nodes --- */

static Node *writer_parent(Writer *w, const char *path)
{
    const char *slash = strrchr(path, '/');
    g_autofree char *parent = slash ? g_strndup(path, (gsize)(slash - path)) : g_strdup("");

    return g_hash_table_lookup(w->nodes, parent);
}

static void writer_add_node(Writer *w, const TreeEntry *entry, ext2_ino_t ino)
{
    Node *node = g_new0(Node, 1);

    node->entry = entry;
    node->ino = ino;
    node->links = entry->type == 'd' ? 2 : 1;
    if (entry->type == 'd')
        node->children = g_ptr_array_new();
    g_hash_table_insert(w->nodes, entry->path, node);
}

static bool writer_number_inodes(Writer *w, GError **error)
{
    ext2_ino_t next = EXT2_FIRST_INODE(w->fs->super) + 1; /* the first is lost+found */

    for (size_t i = 0; i < tree_count(w->tree); i++) {
        const TreeEntry *entry = tree_nth(w->tree, i);
        Node *parent, *leader;

        if (*entry->path == '\0') {
            writer_add_node(w, entry, EXT2_ROOT_INO);
            continue;
        }
        parent = writer_parent(w, entry->path);
        assert(parent && parent->children); /* tree_check has seen it */
        g_ptr_array_add(parent->children, (gpointer)entry);
        if (entry->type == 'h') {
            leader = g_hash_table_lookup(w->nodes, entry->target);
            if (++leader->links > LINKS_MAX)
                return fail(error, "'/%s' has more hard links than ext4 can keep", entry->target);
            continue;
        }
        if (entry->type == 'd')
            parent->links++;
        writer_add_node(w, entry, strcmp(entry->path, "lost+found") == 0 ? EXT2_FIRST_INODE(w->fs->super) : next++);
    }
    return true;
}

/* --- blocks --- */

/* The next free run of at most @want blocks. */
static bool writer_take_blocks(Writer *w, uint64_t want, uint64_t *ret_first, uint32_t *ret_count, GError **error)
{
    uint64_t last = ext2fs_blocks_count(w->fs->super) - 1;
    blk64_t first, end;

    if (ext2fs_find_first_zero_block_bitmap2(w->fs->block_map, w->cursor, last, &first) != 0)
        return fail(error, "the file system is full");
    want = MIN(want, MIN((uint64_t)EXTENT_BLOCKS_MAX, last - first + 1));
    if (want > 1 && ext2fs_find_first_set_block_bitmap2(w->fs->block_map, first, first + want - 1, &end) == 0)
        want = end - first;
    ext2fs_block_alloc_stats_range(w->fs, first, (blk_t)want, +1);
    w->cursor = first + want;
    *ret_first = first;
    *ret_count = (uint32_t)want;
    return true;
}

static bool writer_take_extents(Writer *w, GArray *extents, uint64_t logical, uint64_t count, GError **error)
{
    while (count) {
        Extent e = {.logical = logical}, *last;

        if (!writer_take_blocks(w, count, &e.physical, &e.count, error))
            return false;
        logical += e.count;
        count -= e.count;
        last = extents->len ? &g_array_index(extents, Extent, extents->len - 1) : NULL;
        if (last && last->physical + last->count == e.physical && last->logical + last->count == e.logical &&
            last->count + e.count <= EXTENT_BLOCKS_MAX)
            last->count += e.count;
        else
            g_array_append_val(extents, e);
    }
    return true;
}

static bool writer_flush_ref(Writer *w, GError **error)
{
    uint64_t len = w->ref_len;

    w->ref_len = 0;
    return len == 0 || map_writer_ref(w->out, w->ref_to, w->files, w->ref_from, len, error);
}

static bool writer_ref(Writer *w, uint64_t to, uint64_t from, uint64_t len, GError **error)
{
    if (w->ref_len && w->ref_to + w->ref_len == to && w->ref_from + w->ref_len == from) {
        w->ref_len += len;
        return true;
    }
    if (!writer_flush_ref(w, error))
        return false;
    w->ref_to = to;
    w->ref_from = from;
    w->ref_len = len;
    return true;
}

/* --- inodes --- */

static void inode_set_time(uint32_t *time, uint32_t *extra, int64_t seconds)
{
    int64_t value = CLAMP(seconds, (int64_t)INT32_MIN, ((int64_t)3 << 32) + INT32_MAX);

    *time = (uint32_t)value;
    *extra = (uint32_t)(((value - (int32_t)(uint32_t)value) >> 32) & 3);
}

static void inode_init(struct ext2_inode_large *inode, const TreeEntry *entry, unsigned links)
{
    static const struct {
        char type;
        uint16_t mode;
    } types[] = {{'f', LINUX_S_IFREG}, {'d', LINUX_S_IFDIR}, {'l', LINUX_S_IFLNK}, {'b', LINUX_S_IFBLK},
                 {'c', LINUX_S_IFCHR}, {'p', LINUX_S_IFIFO}, {'s', LINUX_S_IFSOCK}};

    memset(inode, 0, sizeof *inode);
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++)
        if (types[i].type == entry->type)
            inode->i_mode = types[i].mode | entry->mode;
    inode->i_uid = (uint16_t)entry->uid;
    inode->i_uid_high = (uint16_t)(entry->uid >> 16);
    inode->i_gid = (uint16_t)entry->gid;
    inode->i_gid_high = (uint16_t)(entry->gid >> 16);
    inode->i_links_count = (uint16_t)(links > LINKS_MAX ? 1 : links); /* 1: "many", for folders (dir_nlink) */
    inode->i_extra_isize = sizeof *inode - EXT2_GOOD_OLD_INODE_SIZE;
    inode_set_time(&inode->i_mtime, &inode->i_mtime_extra, entry->mtime);
    inode->i_atime = inode->i_ctime = inode->i_crtime = inode->i_mtime;
    inode->i_atime_extra = inode->i_ctime_extra = inode->i_crtime_extra = inode->i_mtime_extra;
}

static void inode_set_size(struct ext2_inode_large *inode, uint64_t size)
{
    inode->i_size = (uint32_t)size;
    inode->i_size_high = (uint32_t)(size >> 32);
}

static void inode_set_extents(struct ext2_inode_large *inode, const GArray *extents)
{
    struct ext3_extent_header *head = (struct ext3_extent_header *)inode->i_block;
    struct ext3_extent *out = (struct ext3_extent *)(head + 1);

    inode->i_flags |= EXT4_EXTENTS_FL;
    head->eh_magic = ext2fs_cpu_to_le16(EXT3_EXT_MAGIC);
    head->eh_max = ext2fs_cpu_to_le16(EXTENTS_IN_INODE);
    if (extents->len > EXTENTS_IN_INODE)
        return; /* libext2fs grows the tree afterwards */
    head->eh_entries = ext2fs_cpu_to_le16((uint16_t)extents->len);
    for (guint i = 0; i < extents->len; i++) {
        const Extent *e = &g_array_index(extents, Extent, i);

        out[i].ee_block = ext2fs_cpu_to_le32((uint32_t)e->logical);
        out[i].ee_len = ext2fs_cpu_to_le16((uint16_t)e->count);
        out[i].ee_start = ext2fs_cpu_to_le32((uint32_t)e->physical);
        out[i].ee_start_hi = ext2fs_cpu_to_le16((uint16_t)(e->physical >> 32));
    }
}

static bool writer_grow_extent_tree(Writer *w, ext2_ino_t ino, const GArray *extents, GError **error)
{
    ext2_extent_handle_t handle;
    errcode_t rc = ext2fs_extent_open(w->fs, ino, &handle);

    if (rc)
        return ext_fail(rc, error, "write extents");
    for (guint i = 0; i < extents->len && rc == 0; i++) {
        const Extent *e = &g_array_index(extents, Extent, i);
        struct ext2fs_extent extent = {e->physical, e->logical, e->count, 0};

        rc = ext2fs_extent_insert(handle, i ? EXT2_EXTENT_INSERT_AFTER : 0, &extent);
    }
    ext2fs_extent_free(handle);
    return rc == 0 || ext_fail(rc, error, "write extents");
}

static errcode_t writer_set_xattr(struct ext2_xattr_handle *handle, const TreeXattr *xattr)
{
    size_t size;
    const void *data = g_bytes_get_data(xattr->value, &size);
    g_autoptr(GByteArray) acl = NULL;

    if (!tree_acl_is_name(xattr->name))
        return ext2fs_xattr_set(handle, xattr->name, data ? data : "", size);
    acl = tree_acl_to_ext4(data, size);
    return acl ? ext2fs_xattr_set(handle, xattr->name, acl->data, acl->len) : EXT2_ET_INVALID_ARGUMENT;
}

static bool writer_write_xattrs(Writer *w, const Node *node, GError **error)
{
    const GPtrArray *xattrs = node->entry->xattrs;
    struct ext2_xattr_handle *handle;
    unsigned raw = XATTR_HANDLE_FLAG_RAW; /* ACLs are translated here, by the code that reading uses */
    errcode_t rc;

    if (!xattrs || xattrs->len == 0)
        return true;
    rc = ext2fs_xattrs_open(w->fs, node->ino, &handle);
    if (rc)
        return ext_fail(rc, error, "write extended attributes");
    (void)ext2fs_xattrs_flags(handle, &raw, NULL);
    rc = ext2fs_xattrs_read(handle);
    for (guint i = 0; i < xattrs->len && rc == 0; i++)
        rc = writer_set_xattr(handle, xattrs->pdata[i]);
    if (rc == 0)
        rc = ext2fs_xattrs_write(handle);
    (void)ext2fs_xattrs_close(&handle);
    if (rc)
        return fail(error, "the extended attributes of '/%s' do not fit into ext4: %s", node->entry->path, error_message(rc));
    return true;
}

/* @extents may be NULL for inodes without blocks. */
static bool writer_write_inode(Writer *w, const Node *node, struct ext2_inode_large *inode, const GArray *extents,
                               GError **error)
{
    uint64_t blocks = 0;
    uint8_t bytes[INODE_SIZE] = {0};
    errcode_t rc;

    for (guint i = 0; extents && i < extents->len; i++)
        blocks += g_array_index(extents, Extent, i).count;
    if (extents)
        inode_set_extents(inode, extents);
    rc = ext2fs_iblk_set(w->fs, (struct ext2_inode *)inode, blocks);
    memcpy(bytes, inode, sizeof *inode);
    if (rc == 0)
        rc = ext2fs_write_inode_full(w->fs, node->ino, (struct ext2_inode *)bytes, INODE_SIZE);
    if (rc)
        return ext_fail(rc, error, "write an inode");
    ext2fs_inode_alloc_stats2(w->fs, node->ino, +1, node->entry->type == 'd');
    if (extents && extents->len > EXTENTS_IN_INODE && !writer_grow_extent_tree(w, node->ino, extents, error))
        return false;
    return writer_write_xattrs(w, node, error);
}

/* --- folders --- */

static uint8_t dirent_type(char type)
{
    switch (type) {
    case 'f':
        return EXT2_FT_REG_FILE;
    case 'd':
        return EXT2_FT_DIR;
    case 'l':
        return EXT2_FT_SYMLINK;
    case 'b':
        return EXT2_FT_BLKDEV;
    case 'c':
        return EXT2_FT_CHRDEV;
    case 'p':
        return EXT2_FT_FIFO;
    default:
        return EXT2_FT_SOCK;
    }
}

/* One folder block being filled; the last name in it reaches to the checksum. */
typedef struct FolderBlock {
    uint8_t bytes[BLOCK] __attribute__((aligned(8)));
    size_t used, last;
} FolderBlock;

static void folder_block_init(Writer *w, FolderBlock *block)
{
    memset(block, 0, sizeof *block);
    ext2fs_initialize_dirent_tail(w->fs, EXT2_DIRENT_TAIL(block->bytes, BLOCK));
}

static bool folder_block_add(Writer *w, FolderBlock *block, const char *name, ext2_ino_t ino, uint8_t type)
{
    size_t len = strlen(name), size = dirent_size(len), room = BLOCK - sizeof(struct ext2_dir_entry_tail);
    struct ext2_dir_entry *dirent = (struct ext2_dir_entry *)(block->bytes + block->used);

    if (block->used + size > room)
        return false;
    dirent->inode = ino;
    ext2fs_dirent_set_name_len(dirent, (int)len);
    ext2fs_dirent_set_file_type(dirent, type);
    memcpy(dirent->name, name, len);
    (void)ext2fs_set_rec_len(w->fs, (unsigned)size, dirent); /* fails for sizes over a block only */
    block->last = block->used;
    block->used += size;
    return true;
}

static bool folder_block_write(Writer *w, FolderBlock *block, uint64_t physical, ext2_ino_t ino, GError **error)
{
    size_t room = BLOCK - sizeof(struct ext2_dir_entry_tail);
    struct ext2_dir_entry *last = (struct ext2_dir_entry *)(block->bytes + block->last);
    errcode_t rc;

    (void)ext2fs_set_rec_len(w->fs, (unsigned)(room - block->last), last);
    rc = ext2fs_write_dir_block4(w->fs, physical, block->bytes, 0, ino);
    return rc == 0 || ext_fail(rc, error, "write a folder");
}

static uint64_t extents_physical(const GArray *extents, uint64_t logical)
{
    for (guint i = 0; i < extents->len; i++) {
        const Extent *e = &g_array_index(extents, Extent, i);

        if (logical >= e->logical && logical < e->logical + e->count)
            return e->physical + (logical - e->logical);
    }
    g_assert_not_reached();
}

static ext2_ino_t writer_ino(Writer *w, const TreeEntry *entry, uint8_t *ret_type)
{
    const TreeEntry *content = tree_content_entry(w->tree, entry);
    const Node *node = g_hash_table_lookup(w->nodes, content->path);

    *ret_type = dirent_type(content->type);
    return node->ino;
}

static bool writer_write_names(Writer *w, const Node *node, const GArray *extents, GError **error)
{
    const Node *parent = *node->entry->path ? writer_parent(w, node->entry->path) : node;
    FolderBlock block;
    uint64_t logical = 0;

    folder_block_init(w, &block);
    (void)folder_block_add(w, &block, ".", node->ino, EXT2_FT_DIR);
    (void)folder_block_add(w, &block, "..", parent->ino, EXT2_FT_DIR);
    for (guint i = 0; i < node->children->len; i++) {
        const TreeEntry *child = node->children->pdata[i];
        uint8_t type;
        ext2_ino_t ino = writer_ino(w, child, &type);

        if (folder_block_add(w, &block, base_name(child), ino, type))
            continue;
        if (!folder_block_write(w, &block, extents_physical(extents, logical++), node->ino, error))
            return false;
        folder_block_init(w, &block);
        (void)folder_block_add(w, &block, base_name(child), ino, type);
    }
    return folder_block_write(w, &block, extents_physical(extents, logical), node->ino, error);
}

static bool writer_write_folder(Writer *w, const Node *node, GError **error)
{
    g_autoptr(GArray) extents = g_array_new(FALSE, FALSE, sizeof(Extent));
    uint64_t blocks = folder_blocks(node->children);
    struct ext2_inode_large inode;

    if (!writer_take_extents(w, extents, 0, blocks, error))
        return false;
    inode_init(&inode, node->entry, node->links);
    inode_set_size(&inode, blocks * BLOCK);
    return writer_write_inode(w, node, &inode, extents, error) && writer_write_names(w, node, extents, error);
}

/* --- files --- */

/* Blocks of the file space that are zero become holes here as well. */
static bool writer_place_data(Writer *w, const TreeEntry *entry, GArray *extents, GError **error)
{
    uint64_t at = entry->data_offset, end = entry->data_offset + file_blocks(entry->size) * BLOCK;

    if (end > store_map_size(w->files))
        return fail(error, "the content of '/%s' lies outside the tree's file space", entry->path);
    while (at < end) {
        uint64_t part_end;
        bool zero;

        store_map_extent(w->files, at, &part_end, &zero);
        part_end = MIN((part_end + BLOCK - 1) / BLOCK * BLOCK, end);
        if (!zero && !writer_take_extents(w, extents, (at - entry->data_offset) / BLOCK, (part_end - at) / BLOCK, error))
            return false;
        at = part_end;
    }
    for (guint i = 0; i < extents->len; i++) {
        const Extent *e = &g_array_index(extents, Extent, i);

        if (!writer_ref(w, w->spec->offset + e->physical * BLOCK, entry->data_offset + e->logical * BLOCK,
                        (uint64_t)e->count * BLOCK, error))
            return false;
    }
    return true;
}

/* Bytes that are in no map: grub.cfg and long symbolic links. */
static bool writer_place_bytes(Writer *w, const void *data, size_t size, GArray *extents, GError **error)
{
    if (!writer_take_extents(w, extents, 0, file_blocks(size), error))
        return false;
    for (size_t at = 0; at < size; at += BLOCK)
        memcpy(sink_block(&w->sink, extents_physical(extents, at / BLOCK), true), (const uint8_t *)data + at,
               MIN((size_t)BLOCK, size - at));
    return true;
}

static bool writer_write_file(Writer *w, const Node *node, GError **error)
{
    g_autoptr(GArray) extents = g_array_new(FALSE, FALSE, sizeof(Extent));
    const TreeEntry *entry = node->entry;
    struct ext2_inode_large inode;
    bool ok;

    if (w->spec->extra_path && strcmp(entry->path, w->spec->extra_path) == 0) {
        size_t size;
        const void *data = g_bytes_get_data(w->spec->extra, &size);

        ok = writer_place_bytes(w, data, size, extents, error);
    } else {
        ok = writer_place_data(w, entry, extents, error);
    }
    if (!ok)
        return false;
    inode_init(&inode, entry, node->links);
    inode_set_size(&inode, entry->size);
    return writer_write_inode(w, node, &inode, extents, error);
}

static bool writer_write_symlink(Writer *w, const Node *node, GError **error)
{
    g_autoptr(GArray) extents = NULL;
    size_t size = strlen(node->entry->target);
    struct ext2_inode_large inode;

    inode_init(&inode, node->entry, node->links);
    inode_set_size(&inode, size);
    if (size < sizeof inode.i_block) {
        memcpy(inode.i_block, node->entry->target, size);
    } else {
        extents = g_array_new(FALSE, FALSE, sizeof(Extent));
        if (!writer_place_bytes(w, node->entry->target, size, extents, error))
            return false;
    }
    return writer_write_inode(w, node, &inode, extents, error);
}

static bool writer_write_special(Writer *w, const Node *node, GError **error)
{
    const TreeEntry *e = node->entry;
    struct ext2_inode_large inode;

    inode_init(&inode, e, node->links);
    if (e->type == 'b' || e->type == 'c') {
        if (e->major > 0xfff || e->minor > 0xfffff)
            return fail(error, "the device '/%s' has a number that Linux does not know", e->path);
        if (e->major < 256 && e->minor < 256)
            inode.i_block[0] = e->major << 8 | e->minor;
        else
            inode.i_block[1] = (e->minor & 0xff) | e->major << 8 | (e->minor & ~0xffu) << 12;
    }
    return writer_write_inode(w, node, &inode, NULL, error);
}

static bool writer_write_node(Writer *w, const Node *node, GError **error)
{
    switch (node->entry->type) {
    case 'f':
        return writer_write_file(w, node, error);
    case 'l':
        return writer_write_symlink(w, node, error);
    default:
        return writer_write_special(w, node, error);
    }
}

/* Folders first: their blocks lie together, near the inodes, and file data stay in one piece. */
static bool writer_write_nodes(Writer *w, GError **error)
{
    for (int pass = 0; pass < 2; pass++) {
        bool folders = pass == 0;

        for (size_t i = 0; i < tree_count(w->tree); i++) {
            const TreeEntry *entry = tree_nth(w->tree, i);
            const Node *node;

            if (entry->type == 'h' || (entry->type == 'd') != folders)
                continue;
            node = g_hash_table_lookup(w->nodes, entry->path);
            if (folders ? !writer_write_folder(w, node, error) : !writer_write_node(w, node, error))
                return fail_prefix(error, "'/%s'", entry->path);
            if (i % 1024 == 0 && !interrupt_check(error))
                return false;
        }
    }
    return writer_flush_ref(w, error);
}

/* --- the empty file system --- */

static uint64_t tree_blocks(Tree *tree)
{
    uint64_t blocks = 0;

    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *entry = tree_nth(tree, i);

        if (entry->type == 'f')
            blocks += file_blocks(entry->size) + entry->size / BLOCK / EXTENT_BLOCKS_MAX;
        else if (entry->type == 'd' || (entry->type == 'l' && strlen(entry->target) >= 60))
            blocks++;
        blocks += entry->xattrs != NULL;
    }
    return blocks + tree_count(tree) * 48 / BLOCK; /* names beyond each folder's first block */
}

static uint32_t fs_inodes(uint64_t size, size_t entries)
{
    uint64_t inodes = MAX(size / BYTES_PER_INODE, (uint64_t)entries + entries / 4 + 1024);

    return (uint32_t)MIN(inodes, (uint64_t)1 << 31);
}

uint64_t render_ext4_needs(Tree *tree)
{
    uint64_t data = tree_blocks(tree) * BLOCK, inodes;

    data += data / 50 + 16 * MIB; /* bitmaps, descriptors and the room that root keeps for itself */
    inodes = fs_inodes(data, tree_count(tree));
    return data + inodes * INODE_SIZE + 128 * MIB / (data < 4096 * MIB ? 2 : 1);
}

static errcode_t writer_initialize(Writer *w)
{
    const RenderFs *spec = w->spec;
    uint64_t blocks = spec->size / BLOCK;
    struct ext2_super_block param = {
        .s_rev_level = EXT2_DYNAMIC_REV,
        .s_log_block_size = 2,
        .s_log_cluster_size = 2,
        .s_inode_size = INODE_SIZE,
        .s_inodes_count = fs_inodes(spec->size, tree_count(w->tree)),
        .s_log_groups_per_flex = 4,
        .s_desc_size = EXT2_MIN_DESC_SIZE_64BIT,
        .s_feature_compat = EXT2_FEATURE_COMPAT_RESIZE_INODE | EXT2_FEATURE_COMPAT_DIR_INDEX |
                            EXT2_FEATURE_COMPAT_EXT_ATTR,
        .s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
                              EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_FLEX_BG,
        .s_feature_ro_compat = EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE |
                               EXT4_FEATURE_RO_COMPAT_HUGE_FILE | EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
                               EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE | EXT4_FEATURE_RO_COMPAT_METADATA_CSUM,
    };
    errcode_t rc;

    ext2fs_blocks_count_set(&param, blocks);
    ext2fs_r_blocks_count_set(&param, blocks / 100);
    sink_to_open = &w->sink;
    rc = ext2fs_initialize("kiln", EXT2_FLAG_64BITS, &param, &sink_manager, &w->fs);
    sink_to_open = NULL;
    return rc;
}

/* Times, identities and defaults that ext2fs_initialize takes from the clock, from chance or not at all. */
static void writer_set_super(Writer *w)
{
    struct ext2_super_block *super = w->fs->super;
    time_t now = (time_t)CLAMP(w->spec->epoch, 1, (int64_t)UINT32_MAX); /* 0 would mean "ask the clock" */

    w->fs->now = now;
    super->s_mkfs_time = super->s_lastcheck = super->s_wtime = (uint32_t)now;
    super->s_checkinterval = 0;
    super->s_max_mnt_count = -1;
    super->s_errors = EXT2_ERRORS_CONTINUE;
    super->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
    super->s_def_hash_version = EXT2_HASH_HALF_MD4;
    super->s_flags |= EXT2_FLAGS_SIGNED_HASH;
    super->s_checksum_type = EXT2_CRC32C_CHKSUM;
    memcpy(super->s_uuid, w->spec->uuid, sizeof super->s_uuid);
    memcpy(super->s_hash_seed, w->spec->hash_seed, sizeof super->s_hash_seed);
    ext2fs_init_csum_seed(w->fs);
}

static errcode_t writer_make_tables(Writer *w)
{
    ext2_filsys fs = w->fs;
    errcode_t rc = ext2fs_allocate_tables(fs);

    if (rc)
        return rc;
    for (dgrp_t group = 0; group < fs->group_desc_count; group++)
        ext2fs_bg_flags_set(fs, group, EXT2_BG_INODE_ZEROED); /* holes are zeroes: the kernel need not do it again */
    ext2fs_inode_alloc_stats2(fs, EXT2_BAD_INO, +1, 0);
    for (ext2_ino_t ino = EXT2_ROOT_INO + 1; ino < EXT2_FIRST_INODE(fs->super); ino++)
        ext2fs_inode_alloc_stats2(fs, ino, +1, 0);
    rc = ext2fs_create_resize_inode(fs);
    if (rc)
        return rc;
    rc = ext2fs_add_journal_inode2(fs, (blk_t)ext2fs_default_journal_size(ext2fs_blocks_count(fs->super)),
                                   fs->super->s_first_data_block, 0);
    return rc;
}

static bool writer_check_room(Writer *w, GError **error)
{
    uint64_t needs = tree_blocks(w->tree), have = ext2fs_free_blocks_count(w->fs->super);
    uint64_t enough = (ROOT_OFFSET + MIB + render_ext4_needs(w->tree) + 64 * MIB - 1) / (64 * MIB) * 64;

    if (needs <= have)
        return true;
    return fail(error, "the root has %" G_GUINT64_FORMAT " MiB and does not fit the disk; a size of %" G_GUINT64_FORMAT "M would be enough",
                needs * BLOCK / MIB + 1, enough);
}

static bool writer_open(Writer *w, GError **error)
{
    errcode_t rc;

    initialize_ext2_error_table();
    w->sink.size = w->spec->size;
    w->sink.blocks = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    w->nodes = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, node_free);
    rc = writer_initialize(w);
    if (rc)
        return ext_fail(rc, error, "lay out the ext4 file system");
    writer_set_super(w);
    rc = writer_make_tables(w);
    if (rc)
        return ext_fail(rc, error, "lay out the ext4 file system");
    return writer_check_room(w, error);
}

static bool writer_close(Writer *w, GError **error)
{
    errcode_t rc;

    for (dgrp_t group = 0; group < w->fs->group_desc_count; group++)
        ext2fs_group_desc_csum_set(w->fs, group);
    ext2fs_mark_super_dirty(w->fs);
    ext2fs_mark_bb_dirty(w->fs);
    ext2fs_mark_ib_dirty(w->fs);
    rc = ext2fs_flush(w->fs);
    if (rc)
        return ext_fail(rc, error, "write the ext4 file system");
    return sink_drain(&w->sink, w->out, w->spec->offset, error);
}

static void writer_clear(Writer *w)
{
    if (w->fs)
        ext2fs_free(w->fs); /* flushed before, or given up */
    g_clear_pointer(&w->nodes, g_hash_table_unref);
    g_clear_pointer(&w->sink.blocks, g_hash_table_unref);
}

bool render_ext4(MapWriter *out, Tree *tree, StoreMap *files, const RenderFs *spec, GError **error)
{
    Writer w = {.out = out, .files = files, .spec = spec, .tree = tree};
    bool ok = writer_open(&w, error) && writer_number_inodes(&w, error) && writer_write_nodes(&w, error) &&
              writer_close(&w, error);

    writer_clear(&w);
    return ok;
}
