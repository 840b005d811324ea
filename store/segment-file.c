/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment being written: frames one after the other, hashed as they go, footer at the end.
 *
 * The file lives in the process's tmp folder and has no name that counts
 * until the writer's commit renames it to its digest.
 */
#include "store/segment.h"

#include "base/error.h"
#include "store/bytes.h"
#include "store/io.h"

#include <fcntl.h>
#include <unistd.h>

static bool append(SegmentFile *file, const uint8_t *bytes, size_t size, GError **error)
{
    if (!io_pwrite_full(file->fd, bytes, size, file->size))
        return fail_errno(error, "write a segment");
    digest_stream_update(file->stream, bytes, size);
    file->size += size;
    return true;
}

static bool write_header(SegmentFile *file, GError **error)
{
    uint8_t head[SEGMENT_HEADER_SIZE];

    put_le32(head, ZSTD_SKIP_SEGMENT);
    put_le32(head + 4, SEGMENT_HEADER_SIZE - 8);
    memcpy(head + 8, SEGMENT_MAGIC, 8);
    put_le32(head + 16, SEGMENT_VERSION);
    put_le32(head + 20, (uint32_t)file->class);
    return append(file, head, sizeof(head), error);
}

bool segment_file_new(int dirfd, char *name, BlockClass class, SegmentFile **ret, GError **error)
{
    SegmentFile *file = g_new0(SegmentFile, 1);

    file->dirfd = dirfd;
    file->name = name;
    file->class = class;
    file->entries = g_array_new(FALSE, FALSE, sizeof(SegmentEntry));
    file->stream = digest_stream_new();
    file->fd = io_open(dirfd, name, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (file->fd < 0) {
        (void)fail_errno(error, "create a segment");
        segment_file_free(file);
        return false;
    }
    if (!write_header(file, error)) {
        segment_file_free(file);
        return false;
    }
    *ret = file;
    return true;
}

bool segment_file_append(SegmentFile *file, const uint8_t *frame, uint32_t size, unsigned blocks, uint8_t encoding, GError **error)
{
    SegmentEntry entry = { (uint32_t)file->size, size, (uint8_t)blocks, encoding };

    if (!append(file, frame, size, error))
        return false;
    g_array_append_val(file->entries, entry);
    return true;
}

static void put_entry(uint8_t *to, const SegmentEntry *entry)
{
    put_le64(to, entry->offset);
    put_le32(to + 8, entry->size);
    to[12] = entry->blocks;
    to[13] = entry->encoding;
    to[14] = to[15] = 0;
}

bool segment_file_finish(SegmentFile *file, GError **error)
{
    size_t list = (size_t)file->entries->len * SEGMENT_ENTRY_SIZE, size = 8 + list + SEGMENT_TAIL_SIZE;
    g_autofree uint8_t *footer = g_malloc(size);
    uint8_t *tail = footer + 8 + list;
    Digest check;

    put_le32(footer, ZSTD_SKIP_FOOTER);
    put_le32(footer + 4, (uint32_t)(size - 8));
    for (guint i = 0; i < file->entries->len; i++)
        put_entry(footer + 8 + (size_t)i * SEGMENT_ENTRY_SIZE, &g_array_index(file->entries, SegmentEntry, i));
    digest_of(footer + 8, list, &check);
    put_le32(tail, file->entries->len);
    put_le32(tail + 4, (uint32_t)size);
    memcpy(tail + 8, check.bytes, 8);
    memcpy(tail + 16, SEGMENT_END_MAGIC, 8);
    if (!append(file, footer, size, error))
        return false;
    digest_stream_final(file->stream, &file->digest);
    file->finished = true;
    /* Only a hint: the disk starts now, so the sync at the commit has less to wait for. */
    (void)sync_file_range(file->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    return true;
}

bool segment_file_sync(SegmentFile *file, GError **error)
{
    return io_fdatasync(file->fd) == 0 || fail_errno(error, "sync a segment");
}

void segment_file_free(SegmentFile *file)
{
    if (!file)
        return;
    if (file->fd >= 0)
        (void)close(file->fd);
    if (file->name)
        (void)io_unlink(file->dirfd, file->name, 0); /* recovery does it otherwise */
    g_free(file->name);
    g_array_unref(file->entries);
    digest_stream_free(file->stream);
    g_free(file);
}
