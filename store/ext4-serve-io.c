/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libext2fs reads a file system through an "io manager"; this one asks kiln for the bytes.
 *
 * Asking costs two switches between processes, so it is done for 64 KiB at a time, which also keeps what stands near by at hand: inode
 * tables would be fetched 16 times per block else. open() of an io manager is given a name and nothing else, so the port is handed over in a
 * thread-local variable that lives for the length of ext2fs_open2().
 */
#include "store/ext4-serve-io.h"

#include "store/bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#define WINDOW ((size_t)64 << 10)
#define WINDOWS 256u
#define OUT_SIZE ((size_t)64 << 10)

#define EXT4_BLOCKS_MAX ((uint64_t)1 << 36) /* 256 TiB in blocks of 4 KiB */
#define EXT4_INODES_MAX ((uint64_t)1 << 28)

struct Ext4Port {
    int in, out;
    bool gone, failed;
    uint64_t size;              /* of the file system's place */
    uint64_t windows[WINDOWS];  /* number + 1 */
    uint8_t *bytes[WINDOWS];    /* made when used */
    uint8_t buffer[OUT_SIZE];
    size_t used;
    char path[EXT4_PATH_MAX + 1];
};

static _Thread_local Ext4Port *port_to_open;

Ext4Port *ext4_port_new(int in, int out)
{
    Ext4Port *port = g_new0(Ext4Port, 1);

    port->in = in;
    port->out = out;
    return port;
}

void ext4_port_free(Ext4Port *port)
{
    for (size_t i = 0; i < WINDOWS; i++)
        g_free(port->bytes[i]);
    g_free(port);
}

/* --- to and from kiln --- */

static bool receive(Ext4Port *port, void *to, size_t size)
{
    for (uint8_t *p = to; size && !port->gone;) {
        ssize_t got = read(port->in, p, size);

        if (got > 0) {
            p += got;
            size -= (size_t)got;
        } else if (got == 0 || errno != EINTR) {
            port->gone = true;
        }
    }
    return !port->gone;
}

static bool emit(Ext4Port *port, const void *from, size_t size)
{
    for (const uint8_t *p = from; size && !port->gone;) {
        ssize_t put = write(port->out, p, size);

        if (put > 0) {
            p += put;
            size -= (size_t)put;
        } else if (put == 0 || errno != EINTR) {
            port->gone = true;
        }
    }
    return !port->gone;
}

bool ext4_flush(Ext4Port *port)
{
    size_t used = port->used;

    port->used = 0;
    return emit(port, port->buffer, used);
}

static bool put(Ext4Port *port, const void *from, size_t size)
{
    if (size > OUT_SIZE - port->used && !ext4_flush(port))
        return false;
    if (size > OUT_SIZE)
        return emit(port, from, size);
    if (size)
        memcpy(port->buffer + port->used, from, size);
    port->used += size;
    return true;
}

bool ext4_say(Ext4Port *port, enum Ext4Word word, const void *head, size_t head_size, const void *body, size_t body_size)
{
    Ext4Head first = {word, (uint32_t)(head_size + body_size)};

    if (head_size > EXT4_WIRE_MAX || body_size > EXT4_WIRE_MAX - head_size)
        return ext4_say_failed(port, "the ext4 file system is damaged: a part of it is larger than may be");
    return put(port, &first, sizeof first) && put(port, head, head_size) && put(port, body, body_size);
}

bool ext4_has_failed(const Ext4Port *port)
{
    return port->failed || port->gone;
}

static bool say_sentence(Ext4Port *port, const char *text)
{
    if (!port->failed) {
        port->failed = true;
        (void)ext4_say(port, EXT4_FAILED, text, strlen(text), NULL, 0);
    }
    return false;
}

bool ext4_say_failed(Ext4Port *port, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    return say_sentence(port, text);
}

bool ext4_say_code(Ext4Port *port, errcode_t code, const char *format, ...)
{
    g_autofree char *what = NULL, *text = NULL;
    va_list args;

    va_start(args, format);
    what = g_strdup_vprintf(format, args);
    va_end(args);
    text = g_strdup_printf("cannot %s: %s", what, error_message(code));
    return say_sentence(port, text);
}

bool ext4_port_command(Ext4Port *port, Ext4Command *ret, const char **ret_path)
{
    port->path[0] = '\0';
    *ret_path = port->path;
    port->failed = false;
    if (!ext4_flush(port) || !receive(port, ret, sizeof *ret))
        return false;
    if (ret->op == EXT4_OPEN || ret->size == 0)
        return true;
    if (ret->size > EXT4_PATH_MAX || !receive(port, port->path, ret->size))
        return false;
    port->path[ret->size] = '\0';
    return true;
}

/* --- the disk --- */

static bool ask(Ext4Port *port, void *to, size_t size, uint64_t at)
{
    while (size) {
        Ext4Read request = {at, MIN(size, EXT4_READ_MAX)};
        uint32_t ok = 0;

        if (!ext4_say(port, EXT4_READ, &request, sizeof request, NULL, 0) || !ext4_flush(port) || !receive(port, &ok, sizeof ok) || !ok ||
            !receive(port, to, request.size))
            return false;
        to = (uint8_t *)to + request.size;
        at += request.size;
        size -= request.size;
    }
    return true;
}

static const uint8_t *window(Ext4Port *port, uint64_t number)
{
    size_t slot = number % WINDOWS;
    uint64_t start = number * WINDOW;

    if (port->windows[slot] == number + 1)
        return port->bytes[slot];
    port->windows[slot] = 0;
    if (!port->bytes[slot])
        port->bytes[slot] = g_malloc(WINDOW);
    if (!ask(port, port->bytes[slot], MIN(WINDOW, port->size - start), start))
        return NULL;
    port->windows[slot] = number + 1;
    return port->bytes[slot];
}

bool ext4_port_read(Ext4Port *port, void *to, size_t size, uint64_t at)
{
    if (at > port->size || size > port->size - at)
        return false;
    if (size > WINDOW)
        return ask(port, to, size, at);
    for (uint8_t *p = to; size;) {
        size_t skip = at % WINDOW, part = MIN(size, WINDOW - skip);
        const uint8_t *bytes = window(port, at / WINDOW);

        if (!bytes)
            return false;
        memcpy(p, bytes + skip, part);
        p += part;
        at += part;
        size -= part;
    }
    return true;
}

static errcode_t port_io_close(io_channel io)
{
    if (--io->refcount > 0)
        return 0;
    g_free(io->name);
    g_free(io);
    return 0;
}

static errcode_t port_io_set_blksize(io_channel io, int size)
{
    io->block_size = size;
    return 0;
}

static errcode_t port_io_read64(io_channel io, unsigned long long block, int count, void *data)
{
    uint64_t size = count < 0 ? (uint64_t)-(int64_t)count : (uint64_t)count * (uint64_t)io->block_size, at;

    if (__builtin_mul_overflow(block, (uint64_t)io->block_size, &at) || !ext4_port_read(io->private_data, data, size, at))
        return EXT2_ET_SHORT_READ;
    return 0;
}

static errcode_t port_io_read(io_channel io, unsigned long block, int count, void *data)
{
    return port_io_read64(io, block, count, data);
}

static errcode_t port_io_write64(io_channel io, unsigned long long block, int count, const void *data)
{
    (void)io, (void)block, (void)count, (void)data;
    return EXT2_ET_RO_FILSYS;
}

static errcode_t port_io_write(io_channel io, unsigned long block, int count, const void *data)
{
    return port_io_write64(io, block, count, data);
}

static errcode_t port_io_flush(io_channel io)
{
    (void)io;
    return 0;
}

static errcode_t port_io_open(const char *name, int flags, io_channel *ret);

static struct struct_io_manager port_io_manager = {
    .magic = EXT2_ET_MAGIC_IO_MANAGER,
    .name = "kiln",
    .open = port_io_open,
    .close = port_io_close,
    .set_blksize = port_io_set_blksize,
    .read_blk = port_io_read,
    .write_blk = port_io_write,
    .flush = port_io_flush,
    .read_blk64 = port_io_read64,
    .write_blk64 = port_io_write64,
};

static errcode_t port_io_open(const char *name, int flags, io_channel *ret)
{
    io_channel io = g_new0(struct struct_io_channel, 1);

    (void)flags;
    io->magic = EXT2_ET_MAGIC_IO_CHANNEL;
    io->manager = &port_io_manager;
    io->name = g_strdup(name);
    io->block_size = 1024;
    io->refcount = 1;
    io->private_data = port_to_open;
    *ret = io;
    return 0;
}

static bool read_super(Ext4Port *port, struct ext2_super_block *ret)
{
    G_STATIC_ASSERT(sizeof *ret == 1024);
    if (port->size < 8192)
        return ext4_say_failed(port, "there is no ext4 file system");
    if (!ext4_port_read(port, ret, sizeof *ret, 1024))
        return ext4_say_failed(port, "cannot read the ext4 file system's superblock");
    if (ext2fs_le16_to_cpu(ret->s_magic) != EXT2_SUPER_MAGIC)
        return ext4_say_failed(port, "there is no ext4 file system");
    return true;
}

/* What we would read wrongly, by name. */
static bool check_features(const struct ext2_super_block *super, bool unsettled, Ext4Port *port)
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
            return ext4_say_failed(port, "the ext4 file system uses a feature that kiln does not read: %s", refused[i].name);
    if ((incompat & EXT3_FEATURE_INCOMPAT_RECOVER) && !unsettled)
        return ext4_say_failed(port, "the ext4 file system was not unmounted cleanly: run e2fsck on the image, or boot and shut it down once");
    return true;
}

/* libext2fs allocates by these numbers, so they must fit the place first. */
static bool check_sizes(const struct ext2_super_block *super, uint64_t size, Ext4Port *port)
{
    uint32_t log_size = ext2fs_le32_to_cpu(super->s_log_block_size);
    uint64_t blocks = ext2fs_le32_to_cpu(super->s_blocks_count), inodes = ext2fs_le32_to_cpu(super->s_inodes_count);
    uint64_t per_group = ext2fs_le32_to_cpu(super->s_blocks_per_group);

    if (ext2fs_le32_to_cpu(super->s_feature_incompat) & EXT4_FEATURE_INCOMPAT_64BIT)
        blocks |= (uint64_t)ext2fs_le32_to_cpu(super->s_blocks_count_hi) << 32;
    if (log_size > 6 || blocks == 0 || blocks > EXT4_BLOCKS_MAX || inodes > EXT4_INODES_MAX || per_group < 256 ||
        inodes > blocks << (log_size + 3) || ext2fs_le16_to_cpu(super->s_inode_size) > 4096)
        return ext4_say_failed(port, "the ext4 file system's superblock is damaged");
    if (blocks << (10 + log_size) > size)
        return ext4_say_failed(port, "the ext4 file system is larger than its partition");
    return true;
}

bool ext4_open(Ext4Port *port, uint64_t size, bool unsettled, ext2_filsys *ret)
{
    struct ext2_super_block super;
    errcode_t rc;

    port->size = size;
    if (!read_super(port, &super) || !check_features(&super, unsettled, port) || !check_sizes(&super, size, port))
        return false;
    initialize_ext2_error_table();
    port_to_open = port;
    rc = ext2fs_open2("kiln", NULL, EXT2_FLAG_64BITS, 0, 0, &port_io_manager, ret);
    port_to_open = NULL;
    return rc == 0 || ext4_say_failed(port, "cannot open the ext4 file system: %s", error_message(rc));
}

void ext4_close(ext2_filsys fs)
{
    if (fs)
        ext2fs_free(fs); /* not _close: that would want to write */
}
