/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that come from elsewhere: staged, kept, named.
 */
#include "store/arrival.h"

#include "base/error.h"
#include "base/scope.h"
#include "store/io.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <unistd.h>

/* --- segments --- */

bool segment_stage(Store *store, const Digest *digest, StagedSegment *ret, GError **error)
{
    int owner;

    *ret = (StagedSegment){.digest = *digest, .fd = -1};
    if (!store_owner_dir(store, &owner, error))
        return false;
    ret->name = store_fresh_name(store, "segment");
    ret->fd = io_open(owner, ret->name, O_RDWR | O_CREAT | O_EXCL, 0644);
    return ret->fd >= 0 || store_fail_errno(store, error, "write a segment to");
}

bool segment_stage_sync(Store *store, StagedSegment *staged, GError **error)
{
    return io_fdatasync(staged->fd) == 0 || store_fail_errno(store, error, "write a segment to");
}

void segment_unstage(Store *store, StagedSegment *staged)
{
    scope_close_fd(&staged->fd);
    staged->fd = -1;
    if (staged->name && store->owner_dirfd >= 0)
        (void)io_unlink(store->owner_dirfd, staged->name, 0); /* else it goes with the folder */
    g_clear_pointer(&staged->name, g_free);
}

static bool give_name(Store *store, int dirfd, const char *file, const Digest *digest, GError **error)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(store->segments_fd, digest, true, name);

    if (dir < 0 || io_rename(dirfd, file, dir, name) < 0 || io_fsync(dir) < 0)
        return store_fail_errno(store, error, "name a segment in");
    segment_forget(store, digest); /* it may have been the name of a repacked one */
    return true;
}

bool segment_place_file(Store *store, Database *catalog, int dirfd, const char *file, const Digest *digest, GError **error)
{
    Segment *segment;

    return give_name(store, dirfd, file, digest, error) && segment_get(store, digest, &segment, error) &&
           catalog_add_segment(catalog, segment, g_get_real_time(), error);
}

bool segment_place_own(Store *store, Database *catalog, SegmentFile *file, int64_t created, GError **error)
{
    if (!give_name(store, file->dirfd, file->name, &file->digest, error))
        return false;
    g_clear_pointer(&file->name, g_free);
    return catalog_add_segment_file(catalog, file, created, error);
}

bool segment_place(Store *store, Database *catalog, StagedSegment *staged, GError **error)
{
    int owner;

    if (!store_owner_dir(store, &owner, error) || !segment_place_file(store, catalog, owner, staged->name, &staged->digest, error))
        return false;
    g_clear_pointer(&staged->name, g_free);
    return true;
}

/* A row may be left of a segment whose file a killed repacking took away. */
static bool take_mark_away(Store *store, Database *catalog, const Digest *digest, bool *ret_there, GError **error)
{
    int64_t leaving;
    Segment *segment;

    if (!database_int(catalog, 0, &leaving, error, "SELECT leaving FROM segment WHERE digest = ?1", "d", digest))
        return false;
    if (!leaving)
        return true;
    segment_forget(store, digest);
    *ret_there = segment_get(store, digest, &segment, NULL) && !segment_is_moved(segment);
    return !*ret_there || database_run(catalog, error, "UPDATE segment SET leaving = 0 WHERE digest = ?1", "d", digest);
}

bool segment_keep(Store *store, Database *catalog, const Digest *digest, bool *ret_there, GError **error)
{
    if (!database_run(catalog, error, "UPDATE segment SET created = ?1, dead = 0 WHERE digest = ?2", "id", g_get_real_time(), digest))
        return false;
    *ret_there = database_changes(catalog) > 0;
    return !*ret_there || take_mark_away(store, catalog, digest, ret_there, error);
}

bool segment_place_table(Store *store, Database *catalog, const Digest *name, const SegmentMoved *theirs, GError **error)
{
    g_autoptr(SegmentMoved) own = NULL, joined = NULL;

    if (!segment_moved_load(store, name, &own, error))
        return false;
    if (own && own->frames != theirs->frames)
        return fail(error, "two tables of one segment do not fit each other; run kiln fsck on both stores");
    joined = segment_moved_join(own, theirs);
    segment_forget(store, name);
    return segment_moved_write(store, name, joined, error) && catalog_add_moved(catalog, name, joined->body->segments, error);
}

/* --- blobs --- */

typedef struct Hashing {
    DigestStream *stream;
    uint64_t size;
} Hashing;

static bool hash_piece(const void *data, size_t size, void *arg, GError **error)
{
    Hashing *hashing = arg;

    digest_stream_update(hashing->stream, data, size);
    hashing->size += size;
    return true;
}

static bool check_bytes(int fd, const Digest *digest, bool packed, StagedBlob *ret, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    Hashing hashing = {.stream = stream};
    char hex[DIGEST_HEX_SIZE];
    Digest have;

    if (!packed) {
        ret->size = ret->stored;
        if (!digest_of_fd(fd, &have, error))
            return false;
    } else {
        if (lseek(fd, 0, SEEK_SET) < 0)
            return fail_errno(error, "read a blob that arrived");
        if (!decompress_fd(fd, hash_piece, &hashing, "a blob that arrived", error))
            return false;
        digest_stream_final(stream, &have);
        ret->size = hashing.size;
    }
    return digest_equal(&have, digest) || fail(error, "blob %s arrived with other bytes; nothing of it was taken over", digest_to_hex(digest, hex));
}

bool blob_stage_filled(Store *store, const Digest *digest, bool packed, BlobFillFn *fill, void *arg, StagedBlob *ret, GError **error)
{
    auto_fd int fd = -1;

    *ret = (StagedBlob){.digest = *digest, .packed = packed};
    if (!store_owner_dir(store, &ret->dirfd, error))
        return false;
    ret->name = store_fresh_name(store, "blob");
    fd = io_open(ret->dirfd, ret->name, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (fd < 0)
        return store_fail_errno(store, error, "write a blob to");
    if (!fill(fd, &ret->stored, arg, error) || !check_bytes(fd, digest, packed, ret, error))
        return false;
    return io_fdatasync(fd) == 0 || store_fail_errno(store, error, "write a blob to");
}
