/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libext2fs reads a file system through an "io manager"; this one reads a map.
 *
 * open() of an io manager is given a name and nothing else, so the place to read is handed over in a thread-local
 * variable that lives for the length of ext2fs_open2(). A small direct-mapped
 * cache keeps inode tables from being fetched 16 times per block.
 */
#include "store/ext4-map-io.h"

#include "base/error.h"

#include <stdarg.h>
#include <string.h>

#define CACHE_SLOTS 1024
#define CACHE_BLOCK 4096

#define EXT4_BLOCKS_MAX ((uint64_t)1 << 36) /* 256 TiB in blocks of 4 KiB */
#define EXT4_INODES_MAX ((uint64_t)1 << 28)

typedef struct MapChannel {
    StoreMap *map;
    uint64_t offset, size;
    GError *error; /* the first thing that went wrong below */
    uint64_t cached[CACHE_SLOTS]; /* block number + 1 */
    uint8_t (*cache)[CACHE_BLOCK];
} MapChannel;

static _Thread_local MapChannel *channel_to_open;

static void map_channel_free(MapChannel *channel)
{
    g_clear_error(&channel->error);
    g_free(channel->cache);
    g_free(channel);
}

static errcode_t map_io_close(io_channel io)
{
    if (--io->refcount > 0)
        return 0;
    g_free(io->name);
    g_free(io);
    return 0;
}

static errcode_t map_io_set_blksize(io_channel io, int size)
{
    io->block_size = size;
    return 0;
}

static bool channel_read_cached(MapChannel *channel, uint8_t *to, uint64_t at, size_t size)
{
    while (size) {
        uint64_t block = at / CACHE_BLOCK;
        size_t slot = block % CACHE_SLOTS, skip = at % CACHE_BLOCK, part = MIN(size, CACHE_BLOCK - skip);
        uint64_t start = block * CACHE_BLOCK, len = MIN((uint64_t)CACHE_BLOCK, channel->size - start);

        if (channel->cached[slot] != block + 1) {
            channel->cached[slot] = 0;
            memset(channel->cache[slot], 0, CACHE_BLOCK);
            if (!store_map_pread(channel->map, channel->cache[slot], len, channel->offset + start,
                                 channel->error ? NULL : &channel->error))
                return false;
            channel->cached[slot] = block + 1;
        }
        memcpy(to, channel->cache[slot] + skip, part);
        to += part;
        at += part;
        size -= part;
    }
    return true;
}

static errcode_t map_io_read64(io_channel io, unsigned long long block, int count, void *data)
{
    MapChannel *channel = io->private_data;
    uint64_t size = count < 0 ? (uint64_t)-(int64_t)count : (uint64_t)count * (uint64_t)io->block_size;
    uint64_t at;

    if (__builtin_mul_overflow(block, (uint64_t)io->block_size, &at) || at > channel->size ||
        size > channel->size - at)
        return EXT2_ET_SHORT_READ;
    if (size <= 16 * CACHE_BLOCK)
        return channel_read_cached(channel, data, at, size) ? 0 : EXT2_ET_SHORT_READ;
    return store_map_pread(channel->map, data, size, channel->offset + at, channel->error ? NULL : &channel->error)
               ? 0
               : EXT2_ET_SHORT_READ;
}

static errcode_t map_io_read(io_channel io, unsigned long block, int count, void *data)
{
    return map_io_read64(io, block, count, data);
}

static errcode_t map_io_write64(io_channel io, unsigned long long block, int count, const void *data)
{
    (void)io, (void)block, (void)count, (void)data;
    return EXT2_ET_RO_FILSYS;
}

static errcode_t map_io_write(io_channel io, unsigned long block, int count, const void *data)
{
    return map_io_write64(io, block, count, data);
}

static errcode_t map_io_flush(io_channel io)
{
    (void)io;
    return 0;
}

static errcode_t map_io_open(const char *name, int flags, io_channel *ret);

static struct struct_io_manager map_io_manager = {
    .magic = EXT2_ET_MAGIC_IO_MANAGER,
    .name = "kiln map",
    .open = map_io_open,
    .close = map_io_close,
    .set_blksize = map_io_set_blksize,
    .read_blk = map_io_read,
    .write_blk = map_io_write,
    .flush = map_io_flush,
    .read_blk64 = map_io_read64,
    .write_blk64 = map_io_write64,
};

static errcode_t map_io_open(const char *name, int flags, io_channel *ret)
{
    io_channel io = g_new0(struct struct_io_channel, 1);

    (void)flags;
    io->magic = EXT2_ET_MAGIC_IO_CHANNEL;
    io->manager = &map_io_manager;
    io->name = g_strdup(name);
    io->block_size = 1024;
    io->refcount = 1;
    io->private_data = channel_to_open;
    *ret = io;
    return 0;
}

bool ext4_fail(ext2_filsys fs, errcode_t code, GError **error, const char *format, ...)
{
    const MapChannel *channel = fs && fs->io ? fs->io->private_data : NULL;
    g_autofree char *what = NULL;
    va_list args;

    va_start(args, format);
    what = g_strdup_vprintf(format, args);
    va_end(args);
    if (channel && channel->error) {
        g_clear_error(error);
        if (error)
            *error = g_error_copy(channel->error);
        return fail_prefix(error, "cannot %s", what);
    }
    return fail(error, "cannot %s: %s", what, error_message(code));
}

static bool read_super(StoreMap *map, uint64_t offset, uint64_t size, struct ext2_super_block *ret, GError **error)
{
    G_STATIC_ASSERT(sizeof *ret == 1024);
    if (size < 8192 || offset > store_map_size(map) || size > store_map_size(map) - offset)
        return fail(error, "there is no ext4 file system");
    if (!store_map_pread(map, ret, sizeof *ret, offset + 1024, error))
        return false;
    if (ext2fs_le16_to_cpu(ret->s_magic) != EXT2_SUPER_MAGIC)
        return fail(error, "there is no ext4 file system");
    return true;
}

bool ext4_is_there(StoreMap *map, uint64_t offset, uint64_t size)
{
    struct ext2_super_block super;
    g_autoptr(GError) ignored = NULL;

    return read_super(map, offset, size, &super, &ignored);
}

/* What we would read wrongly, by name. */
static bool check_features(const struct ext2_super_block *super, bool unsettled, GError **error)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } refused[] = {
        {EXT2_FEATURE_INCOMPAT_COMPRESSION, "compression"},
        {EXT3_FEATURE_INCOMPAT_JOURNAL_DEV, "being only a journal"},
        {EXT4_FEATURE_INCOMPAT_MMP, "multiple mount protection"},
        {EXT4_FEATURE_INCOMPAT_DIRDATA, "dirdata"},
        {EXT4_FEATURE_INCOMPAT_ENCRYPT, "encryption"},
        {EXT4_FEATURE_INCOMPAT_CASEFOLD, "case folding"},
    };
    uint32_t incompat = ext2fs_le32_to_cpu(super->s_feature_incompat);

    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++)
        if (incompat & refused[i].bit)
            return fail(error, "the ext4 file system uses a feature that kiln does not read: %s", refused[i].name);
    if ((incompat & EXT3_FEATURE_INCOMPAT_RECOVER) && !unsettled)
        return fail(error, "the ext4 file system was not unmounted cleanly: run e2fsck on the image, or boot and shut it down once");
    if (ext2fs_le32_to_cpu(super->s_feature_ro_compat) & EXT4_FEATURE_RO_COMPAT_VERITY)
        return fail(error, "the ext4 file system uses a feature that kiln does not read: verity");
    return true;
}

/* libext2fs allocates by these numbers, so they must fit the place first. */
static bool check_sizes(const struct ext2_super_block *super, uint64_t size, GError **error)
{
    uint32_t log_size = ext2fs_le32_to_cpu(super->s_log_block_size);
    uint64_t blocks = ext2fs_le32_to_cpu(super->s_blocks_count), inodes = ext2fs_le32_to_cpu(super->s_inodes_count);
    uint64_t per_group = ext2fs_le32_to_cpu(super->s_blocks_per_group);

    if (ext2fs_le32_to_cpu(super->s_feature_incompat) & EXT4_FEATURE_INCOMPAT_64BIT)
        blocks |= (uint64_t)ext2fs_le32_to_cpu(super->s_blocks_count_hi) << 32;
    if (log_size > 6 || blocks == 0 || blocks > EXT4_BLOCKS_MAX || inodes > EXT4_INODES_MAX || per_group < 256 ||
        inodes > blocks << (log_size + 3) || ext2fs_le16_to_cpu(super->s_inode_size) > 4096)
        return fail(error, "the ext4 file system's superblock is damaged");
    if (blocks << (10 + log_size) > size)
        return fail(error, "the ext4 file system is larger than its partition");
    return true;
}

static bool open_fs(StoreMap *map, uint64_t offset, uint64_t size, bool unsettled, ext2_filsys *ret, GError **error)
{
    struct ext2_super_block super;
    MapChannel *channel;
    ext2_filsys fs = NULL;
    errcode_t rc;

    if (!read_super(map, offset, size, &super, error) || !check_features(&super, unsettled, error) ||
        !check_sizes(&super, size, error))
        return false;
    initialize_ext2_error_table();
    channel = g_new0(MapChannel, 1);
    channel->map = map;
    channel->offset = offset;
    channel->size = size;
    channel->cache = g_malloc(sizeof *channel->cache * CACHE_SLOTS);
    channel_to_open = channel;
    rc = ext2fs_open2("kiln", NULL, EXT2_FLAG_64BITS, 0, 0, &map_io_manager, &fs);
    channel_to_open = NULL;
    if (rc) {
        if (channel->error) {
            g_propagate_prefixed_error(error, g_steal_pointer(&channel->error), "cannot open the ext4 file system: ");
        } else {
            (void)fail(error, "cannot open the ext4 file system: %s", error_message(rc));
        }
        map_channel_free(channel);
        return false;
    }
    *ret = fs;
    return true;
}

bool ext4_open(StoreMap *map, uint64_t offset, uint64_t size, ext2_filsys *ret, GError **error)
{
    return open_fs(map, offset, size, false, ret, error);
}

bool ext4_open_unsettled(StoreMap *map, uint64_t offset, uint64_t size, ext2_filsys *ret, GError **error)
{
    return open_fs(map, offset, size, true, ret, error);
}

void ext4_close(ext2_filsys fs)
{
    MapChannel *channel;

    if (!fs)
        return;
    channel = fs->io->private_data;
    ext2fs_free(fs); /* not _close: that would want to write */
    map_channel_free(channel);
}
