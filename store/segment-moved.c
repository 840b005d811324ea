/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of repacked segments: their bytes, and looking things up in them.
 */
#include "store/segment-moved.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/bytes.h"
#include "store/format.h"
#include "store/io.h"
#include "store/store-private.h"

#include <fcntl.h>

#define MOVED_MAGIC "KILNMOV1"
#define MOVED_VERSION 1
#define MOVED_HEAD (16 + DIGEST_SIZE)

SegmentMoved *segment_moved_new(uint32_t frames, MapBody *body)
{
    SegmentMoved *moved = g_new0(SegmentMoved, 1);

    moved->frames = frames;
    moved->body = body;
    return moved;
}

void segment_moved_free(SegmentMoved *moved)
{
    if (!moved)
        return;
    map_body_free(moved->body);
    g_free(moved);
}

bool segment_moved_find(const SegmentMoved *moved, uint32_t position, Digest *ret_segment, uint32_t *ret_position)
{
    guint i = map_body_find(moved->body, position);
    const MapRun *run = i < moved->body->runs->len ? &g_array_index(moved->body->runs, MapRun, i) : NULL;

    if (!run || run->block > position)
        return false;
    *ret_segment = g_array_index(moved->body->segments, Digest, run->segment);
    *ret_position = run->position + (uint32_t)(position - run->block);
    return true;
}

/* --- bytes --- */

static bool damaged(const Digest *digest, const char *what, GError **error)
{
    char hex[DIGEST_HEX_SIZE];

    return fail(error, "the table of moved segment %s is damaged: %s; run kiln fsck", digest_to_hex(digest, hex), what);
}

static bool check_head(const Digest *digest, const uint8_t *bytes, size_t size, GError **error)
{
    Digest check;

    if (size < MOVED_HEAD + DIGEST_SIZE || memcmp(bytes, MOVED_MAGIC, 8))
        return damaged(digest, "it is no such table", error);
    digest_of(bytes, size - DIGEST_SIZE, &check);
    if (memcmp(check.bytes, bytes + size - DIGEST_SIZE, DIGEST_SIZE))
        return damaged(digest, "its bytes do not match its check", error);
    if (get_le32(bytes + 8) != MOVED_VERSION)
        return fail(error, "a table of a moved segment has format %u, this kiln reads %d: upgrade kiln", get_le32(bytes + 8), MOVED_VERSION);
    if (get_le32(bytes + 12) > SEGMENT_MAX_FRAMES || memcmp(bytes + 16, digest->bytes, DIGEST_SIZE))
        return damaged(digest, "it is another segment's", error);
    return true;
}

bool segment_moved_decode(const Digest *digest, const void *data, size_t size, SegmentMoved **ret, GError **error)
{
    g_autoptr(MapBody) body = NULL;
    const uint8_t *bytes = data;
    uint32_t frames;

    if (!check_head(digest, bytes, size, error) ||
        !map_body_decode(bytes + MOVED_HEAD, size - MOVED_HEAD - DIGEST_SIZE, &body, error))
        return false;
    frames = get_le32(bytes + 12);
    if (body->size != (uint64_t)frames * FRAME_MAX_BYTES)
        return damaged(digest, "its size does not fit its frames", error);
    *ret = segment_moved_new(frames, g_steal_pointer(&body));
    return true;
}

GByteArray *segment_moved_encode(const Digest *digest, const SegmentMoved *moved)
{
    g_autoptr(GByteArray) body = map_body_encode(moved->body);
    GByteArray *bytes = g_byte_array_new();
    uint8_t head[16];
    Digest check;

    memcpy(head, MOVED_MAGIC, 8);
    put_le32(head + 8, MOVED_VERSION);
    put_le32(head + 12, moved->frames);
    g_byte_array_append(bytes, head, sizeof(head));
    g_byte_array_append(bytes, digest->bytes, DIGEST_SIZE);
    g_byte_array_append(bytes, body->data, body->len);
    digest_of(bytes->data, bytes->len, &check);
    g_byte_array_append(bytes, check.bytes, DIGEST_SIZE);
    return bytes;
}

SegmentMoved *segment_moved_join(const SegmentMoved *own, const SegmentMoved *theirs)
{
    g_autoptr(MapBody) body = map_body_new((uint64_t)theirs->frames * FRAME_MAX_BYTES, theirs->body->class);
    g_autoptr(GHashTable) indexes = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);

    for (uint32_t position = 0; position < theirs->frames * FRAME_MAX_BLOCKS; position++) {
        uint32_t place;
        Digest segment;

        if ((own && segment_moved_find(own, position, &segment, &place)) || segment_moved_find(theirs, position, &segment, &place))
            map_body_append(body, position, map_body_segment(body, indexes, &segment), place);
    }
    return segment_moved_new(theirs->frames, g_steal_pointer(&body));
}

/* --- files --- */

static int open_folder(Store *store, const Digest *digest, bool create, char name[IO_NAME_SIZE])
{
    int dir = io_open_fanout(store->segments_fd, digest, create, name);

    (void)g_strlcat(name, MOVED_SUFFIX, IO_NAME_SIZE);
    return dir;
}

bool segment_moved_load(Store *store, const Digest *digest, SegmentMoved **ret, GError **error)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = open_folder(store, digest, false, name);
    g_autoptr(GBytes) bytes = NULL;

    *ret = NULL;
    if (dir < 0 || faccessat(dir, name, F_OK, 0) < 0)
        return errno == ENOENT || store_fail_errno(store, error, "look for a moved segment of");
    return file_load(dir, name, MOVED_MAX, &bytes, error) && segment_moved_decode(digest, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), ret, error);
}

static bool write_file(Store *store, int tmp, const char *name, const GByteArray *bytes, GError **error)
{
    auto_fd int fd = io_open(tmp, name, O_RDWR | O_CREAT | O_EXCL, 0644);

    return (fd >= 0 && io_pwrite_full(fd, bytes->data, bytes->len, 0) && io_fdatasync(fd) == 0) ||
           store_fail_errno(store, error, "write the table of a moved segment in");
}

bool segment_moved_write(Store *store, const Digest *digest, const SegmentMoved *moved, GError **error)
{
    g_autoptr(GByteArray) bytes = segment_moved_encode(digest, moved);
    g_autofree char *fresh = store_fresh_name(store, "moved");
    char name[IO_NAME_SIZE];
    auto_fd int dir = open_folder(store, digest, true, name);
    int tmp;

    if (dir < 0)
        return store_fail_errno(store, error, "open a folder of");
    if (!store_owner_dir(store, &tmp, error) || !write_file(store, tmp, fresh, bytes, error))
        return false;
    return (io_rename(tmp, fresh, dir, name) == 0 && io_fsync(dir) == 0) ||
           store_fail_errno(store, error, "publish the table of a moved segment in");
}

bool segment_moved_remove(Store *store, const Digest *digest, GError **error)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = open_folder(store, digest, false, name);

    return dir < 0 || io_unlink(dir, name, 0) == 0 || errno == ENOENT ||
           store_fail_errno(store, error, "remove the table of a moved segment from");
}
