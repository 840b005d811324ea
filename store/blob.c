/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole files, named by the SHA-256 of their plain bytes; NAME.zst when stored compressed.
 *
 * Reading needs the folder alone. A layer that exists as a recipe has no file: its bytes are made when asked for.
 */
#include "store/blob.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/io.h"
#include "store/layer.h"
#include "store/oci-private.h"
#include "store/shared-private.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/stat.h>

static bool missing(Store *store, const Digest *digest, GError **error)
{
    char hex[DIGEST_HEX_SIZE];

    return fail_code(error, KILN_ERROR_NOT_FOUND, "blob %s is missing from store '%s'", digest_to_hex(digest, hex), store->path);
}

static bool bad_blob(Store *store, const Digest *digest, GError **error)
{
    char hex[DIGEST_HEX_SIZE];

    return fail(error, "blob %s in store '%s' is damaged; run kiln fsck --read-data", digest_to_hex(digest, hex), store->path);
}

int blob_file_open(Store *store, const Digest *digest, bool *ret_packed)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(store->blobs_fd, digest, false, name);
    int fd;

    if (dir < 0)
        return -1;
    *ret_packed = false;
    fd = io_open(dir, name, O_RDONLY, 0);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    (void)g_strlcat(name, BLOB_PACKED_SUFFIX, sizeof(name));
    *ret_packed = true;
    return io_open(dir, name, O_RDONLY, 0);
}

static bool open_needed(Store *store, const Digest *digest, int *ret_fd, bool *ret_packed, GError **error)
{
    int fd = blob_file_open(store, digest, ret_packed);
    bool came = false;

    if (fd < 0 && errno == ENOENT && store->shared) {
        if (!shared_provide_blob(store, digest, &came, error))
            return false;
        errno = ENOENT;
        fd = came ? blob_file_open(store, digest, ret_packed) : -1;
    }
    if (fd < 0 && errno == ENOENT)
        return missing(store, digest, error);
    if (fd < 0)
        return store_fail_errno(store, error, "open a blob of");
    *ret_fd = fd;
    return true;
}

/* --- writing --- */

void blob_unstage(StagedBlob *staged)
{
    if (staged->name)
        (void)io_unlink(staged->dirfd, staged->name, 0);
    g_clear_pointer(&staged->name, g_free);
}

static bool stage_new(Store *store, StagedBlob *ret, int *ret_fd, GError **error)
{
    memset(ret, 0, sizeof(*ret));
    if (!store_owner_dir(store, &ret->dirfd, error))
        return false;
    ret->name = store_fresh_name(store, "blob");
    *ret_fd = io_open(ret->dirfd, ret->name, O_RDWR | O_CREAT | O_EXCL, 0644);
    return *ret_fd >= 0 || store_fail_errno(store, error, "write a blob to");
}

bool blob_stage(Store *store, const void *data, size_t size, StagedBlob *ret, GError **error)
{
    g_autoptr(GBytes) packed = size > 512 ? compress_bytes(data, size) : NULL;
    auto_fd int fd = -1;

    if (!stage_new(store, ret, &fd, error))
        return false;
    digest_of(data, size, &ret->digest);
    ret->size = ret->stored = size;
    if (packed && g_bytes_get_size(packed) < size - size / 20) {
        ret->packed = true;
        data = g_bytes_get_data(packed, NULL);
        ret->stored = g_bytes_get_size(packed);
    }
    if (io_pwrite_full(fd, data, ret->stored, 0) && io_fdatasync(fd) == 0)
        return true;
    (void)store_fail_errno(store, error, "write a blob to");
    blob_unstage(ret);
    return false;
}

bool blob_place(Store *store, Database *db, StagedBlob *staged, int64_t created, GError **error)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(store->blobs_fd, &staged->digest, true, name);

    if (dir < 0)
        return store_fail_errno(store, error, "write a blob to");
    if (staged->packed)
        (void)g_strlcat(name, BLOB_PACKED_SUFFIX, sizeof(name));
    if (io_rename(staged->dirfd, staged->name, dir, name) < 0)
        return store_fail_errno(store, error, "write a blob to");
    g_clear_pointer(&staged->name, g_free);
    if (io_fsync(dir) < 0)
        return store_fail_errno(store, error, "sync");
    return catalog_add_blob(db, &staged->digest, staged->size, staged->stored, created, error);
}

bool blob_keep(Store *store, Database *db, const Digest *digest, bool *ret_there, GError **error)
{
    *ret_there = false;
    if (!blob_file_exists(store, digest))
        return true;
    if (!database_run(db, error, "UPDATE blob SET created = ?1, dead = 0 WHERE digest = ?2", "id", g_get_real_time(), digest))
        return false;
    *ret_there = database_changes(db) > 0;
    return true;
}

static bool keep_alone(Store *store, const Digest *digest, bool *ret_done, GError **error)
{
    Database *db;

    *ret_done = false;
    if (!blob_file_exists(store, digest))
        return true;
    if (!store_catalog(store, &db, error) || !database_begin(db, false, error))
        return false;
    if (!blob_keep(store, db, digest, ret_done, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

static bool place_alone(Store *store, StagedBlob *staged, GError **error)
{
    Database *db;

    if (!store_catalog(store, &db, error) || !database_begin(db, false, error))
        return false;
    if (!blob_place(store, db, staged, g_get_real_time(), error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

bool store_blob_put(Store *store, const void *data, size_t size, Digest *ret, GError **error)
{
    StagedBlob staged;
    Digest digest;
    bool done, ok;

    digest_of(data, size, &digest);
    if (!store_writable(store, error) || !store_hold_lease(store, error) || !keep_alone(store, &digest, &done, error))
        return false;
    if (!done) {
        ok = blob_stage(store, data, size, &staged, error) && place_alone(store, &staged, error);
        blob_unstage(&staged);
        if (!ok)
            return false;
    }
    *ret = digest;
    return true;
}

/* From the file's start when it has one, else from where the stream stands. */
static ssize_t read_piece(int fd, void *buf, size_t size, uint64_t at, bool seekable)
{
    ssize_t n;

    do
        n = seekable ? pread(fd, buf, size, (off_t)at) : read(fd, buf, size);
    while (n < 0 && errno == EINTR);
    return n;
}

static bool copy_in(Store *store, int from, int to, StagedBlob *staged, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    g_autofree uint8_t *buf = g_malloc(1 << 20);
    bool seekable = lseek(from, 0, SEEK_CUR) >= 0;
    ssize_t n;

    while ((n = read_piece(from, buf, 1 << 20, staged->size, seekable)) > 0) {
        digest_stream_update(stream, buf, (size_t)n);
        if (!io_pwrite_full(to, buf, (size_t)n, staged->size))
            return store_fail_errno(store, error, "write a blob to");
        staged->size += (uint64_t)n;
    }
    if (n < 0)
        return fail_errno(error, "read a file for store '%s'", store->path);
    digest_stream_final(stream, &staged->digest);
    staged->stored = staged->size;
    return io_fdatasync(to) == 0 || store_fail_errno(store, error, "write a blob to");
}

bool store_blob_put_file(Store *store, int fd, Digest *ret, uint64_t *ret_size, GError **error)
{
    StagedBlob staged = { .dirfd = -1 };
    auto_fd int to = -1;
    bool done = false, ok;

    ok = store_writable(store, error) && store_hold_lease(store, error) && stage_new(store, &staged, &to, error) &&
         copy_in(store, fd, to, &staged, error) && keep_alone(store, &staged.digest, &done, error) &&
         (done || place_alone(store, &staged, error));
    blob_unstage(&staged);
    if (!ok)
        return false;
    *ret = staged.digest;
    if (ret_size)
        *ret_size = staged.size;
    return true;
}

/* --- reading --- */

static bool load_plain(Store *store, const Digest *digest, int fd, bool packed, size_t max, GBytes **ret, GError **error)
{
    g_autofree uint8_t *bytes = NULL;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return store_fail_errno(store, error, "read a blob of");
    if ((uint64_t)st.st_size > (packed ? compress_bound(max) : max))
        return fail(error, "a blob is larger than the %zu bytes allowed here", max);
    bytes = g_malloc((size_t)st.st_size + 1);
    if (!io_pread_full(fd, bytes, (size_t)st.st_size, 0))
        return store_fail_errno(store, error, "read a blob of");
    if (packed)
        return decompress_bytes(bytes, (size_t)st.st_size, max, ret, error) || fail_prefix(error, "a blob of store '%s'", store->path);
    bytes[st.st_size] = '\0';
    *ret = g_bytes_new_take(g_steal_pointer(&bytes), (size_t)st.st_size);
    return true;
}

bool store_blob_get(Store *store, const Digest *digest, size_t max, GBytes **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    auto_fd int fd = -1;
    bool packed;
    Digest have;

    if (!open_needed(store, digest, &fd, &packed, error) || !load_plain(store, digest, fd, packed, max, &bytes, error))
        return false;
    digest_of(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &have);
    if (!digest_equal(&have, digest))
        return bad_blob(store, digest, error);
    *ret = g_steal_pointer(&bytes);
    return true;
}

bool blob_file_exists(Store *store, const Digest *digest)
{
    bool packed;
    auto_fd int fd = blob_file_open(store, digest, &packed);

    return fd >= 0;
}

/* *ret is digest_none when no recipe makes it. */
static bool find_recipe(Store *store, const Digest *digest, Digest *ret, int64_t *ret_size, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    *ret = digest_none;
    if (store->flags & STORE_OPEN_NO_CATALOG)
        return true;
    if (!store_catalog(store, &db, error) ||
        !(query = database_query(db, error, "SELECT recipe, size FROM recipe WHERE layer = ?1", "d", digest)))
        return false;
    rc = query_step(query, error);
    if (rc > 0) {
        query_digest(query, 0, ret);
        *ret_size = query_int(query, 1);
    }
    return rc >= 0;
}

bool store_layer_recipe(Store *store, const Digest *layer, Digest *ret, GError **error)
{
    int64_t size;

    return find_recipe(store, layer, ret, &size, error);
}

bool store_blob_has(Store *store, const Digest *digest)
{
    int64_t size;
    Digest recipe;

    if (blob_file_exists(store, digest))
        return true;
    return find_recipe(store, digest, &recipe, &size, NULL) && !digest_is_none(&recipe);
}

bool blob_file_plain_size(int fd, bool packed, uint64_t stored, uint64_t *ret)
{
    uint8_t head[18];
    size_t part = MIN(sizeof(head), stored);

    *ret = stored;
    return !packed || (io_pread_full(fd, head, part, 0) && compress_plain_size(head, part, ret));
}

bool store_blob_size(Store *store, const Digest *digest, uint64_t *ret_size, GError **error)
{
    bool packed;
    auto_fd int fd = blob_file_open(store, digest, &packed);
    struct stat st;
    int64_t size = 0;
    Digest recipe;

    if (fd < 0) {
        if (!find_recipe(store, digest, &recipe, &size, error))
            return false;
        *ret_size = (uint64_t)size;
        return !digest_is_none(&recipe) || missing(store, digest, error);
    }
    if (fstat(fd, &st) < 0)
        return store_fail_errno(store, error, "read a blob of");
    return blob_file_plain_size(fd, packed, (uint64_t)st.st_size, ret_size) || bad_blob(store, digest, error);
}

typedef struct CopyOut {
    int fd; /* -1: only hash */
    DigestStream *stream;
    uint64_t size;
} CopyOut;

static bool copy_piece(const void *data, size_t size, void *arg, GError **error)
{
    CopyOut *copy = arg;

    digest_stream_update(copy->stream, data, size);
    copy->size += size;
    return copy->fd < 0 || file_write_full(copy->fd, data, size, "a blob", error);
}

static bool copy_plain(int fd, CopyOut *copy, GError **error)
{
    g_autofree uint8_t *buf = g_malloc(1 << 20);
    size_t n;

    do {
        if (!file_read_upto(fd, buf, 1 << 20, &n, "a blob", error) || (n > 0 && !copy_piece(buf, n, copy, error)))
            return false;
    } while (n > 0);
    return true;
}

static bool stream_blob(Store *store, const Digest *digest, int from, bool packed, CopyOut *copy, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    Digest have;

    copy->stream = stream;
    if (!(packed ? decompress_fd(from, copy_piece, copy, "a blob", error) : copy_plain(from, copy, error)))
        return fail_prefix(error, "store '%s'", store->path);
    digest_stream_final(stream, &have);
    return digest_equal(&have, digest) || bad_blob(store, digest, error);
}

bool store_blob_copy(Store *store, const Digest *digest, int fd, GError **error)
{
    CopyOut copy = { .fd = fd };
    bool packed;
    auto_fd int from = blob_file_open(store, digest, &packed);
    int64_t size;
    Digest recipe;

    if (from >= 0)
        return stream_blob(store, digest, from, packed, &copy, error);
    if (!find_recipe(store, digest, &recipe, &size, error))
        return false;
    if (digest_is_none(&recipe))
        return missing(store, digest, error);
    return layer_write_out(store, &recipe, false, fd, error);
}

static bool copy_file(Store *store, int from, int to, StagedBlob *staged, GError **error)
{
    g_autofree uint8_t *buf = g_malloc(1 << 20);
    size_t n;

    for (;; staged->stored += n) {
        if (!file_read_upto(from, buf, 1 << 20, &n, "a blob", error))
            return false;
        if (n == 0)
            break;
        if (!io_pwrite_full(to, buf, n, staged->stored))
            return store_fail_errno(store, error, "write a blob to");
    }
    return io_fdatasync(to) == 0 || store_fail_errno(store, error, "write a blob to");
}

bool blob_stage_copy(Store *store, Store *from, const Digest *digest, StagedBlob *ret, GError **error)
{
    auto_fd int source = -1;
    auto_fd int to = -1;
    CopyOut copy = { .fd = -1 };
    bool packed;

    if (!open_needed(from, digest, &source, &packed, error) || !stage_new(store, ret, &to, error))
        return false;
    ret->digest = *digest;
    ret->packed = packed;
    if (!copy_file(store, source, to, ret, error) || lseek(to, 0, SEEK_SET) < 0 || !stream_blob(from, digest, to, packed, &copy, error))
        return false;
    ret->size = copy.size;
    return true;
}

bool blob_file_verify(Store *store, const Digest *digest, uint64_t *ret_size, uint64_t *ret_stored, GError **error)
{
    CopyOut copy = { .fd = -1 };
    auto_fd int from = -1;
    bool packed;
    struct stat st;

    if (!open_needed(store, digest, &from, &packed, error) || !stream_blob(store, digest, from, packed, &copy, error))
        return false;
    if (fstat(from, &st) < 0)
        return store_fail_errno(store, error, "read a blob of");
    *ret_size = copy.size;
    *ret_stored = (uint64_t)st.st_size;
    return true;
}

bool blob_file_remove(Store *store, const Digest *digest, GError **error)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(store->blobs_fd, digest, false, name);

    if (dir < 0)
        return errno == ENOENT || store_fail_errno(store, error, "remove a blob of");
    if (io_unlink(dir, name, 0) < 0 && errno != ENOENT)
        return store_fail_errno(store, error, "remove a blob of");
    (void)g_strlcat(name, BLOB_PACKED_SUFFIX, sizeof(name));
    if (io_unlink(dir, name, 0) < 0 && errno != ENOENT)
        return store_fail_errno(store, error, "remove a blob of");
    return true;
}
