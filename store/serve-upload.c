/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uploads that go on: a file each in our folder of STORE/tmp, hashed as it grows. They live as long as this process does; one that was killed
 * leaves a folder that the next who opens the store takes away, and its clients begin again.
 *
 *              POST            PATCH, PUT            PUT with the right digest
 *     (none) --------> IDLE <------------> HELD ---------------------------------> stored, and gone
 *                       |  ^                 |
 *             too long  |  |  rewound: the   |  DELETE, or its digest was wrong
 *                       v  |  request failed v
 *                      gone +--------------- gone
 *
 * A held one belongs to one request; a second that comes meanwhile is told to wait. Each has a lease from its beginning.
 */
#include "store/serve-private.h"

#include "base/checksum.h"
#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/io.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define SESSIONS_MAX 4096
#define SESSIONS_PER_USER 512
#define AGE_MAX (24 * 3600)

/* What goes on by one user, or by all who said no name. */
typedef struct Usage {
    unsigned sessions; /* also one that is just being made */
    uint64_t bytes;
} Usage;

struct ServeUpload {
    ServeUploads *all;
    Usage *usage; /* its user's */
    char id[33];
    char *repository, *user;
    ServeTaken file;
    uint64_t before; /* size when it was held last */
    DigestStream *narrow;
    ChecksumStream *wide; /* sha512; NULL: hashed at the end, if at all */
    bool hashed;            /* the streams have all of it */
    bool held, dropped;
    int64_t began, touched; /* monotonic seconds */
    StoreLease *lease;
};

struct ServeUploads {
    Server *server;
    GMutex lock;
    GHashTable *sessions; /* id -> ServeUpload*: borrowed while it is held */
    GHashTable *users;    /* user, "" for no name -> Usage*; they stay, there are no more than may write */
    Usage total;
};

static int64_t now_seconds(void)
{
    return g_get_monotonic_time() / G_USEC_PER_SEC;
}

static void upload_free(gpointer data)
{
    ServeUpload *upload = data;

    if (!upload)
        return;
    if (upload->file.name)
        (void)io_unlink(upload->file.dirfd, upload->file.name, 0);
    scope_close_fd(&upload->file.fd);
    g_free(upload->file.name);
    digest_stream_free(upload->narrow);
    checksum_stream_free(upload->wide);
    store_lease_release(upload->lease);
    g_free(upload->repository);
    g_free(upload->user);
    g_free(upload);
}

ServeUploads *serve_uploads_new(Server *server)
{
    ServeUploads *all = g_new0(ServeUploads, 1);

    all->server = server;
    g_mutex_init(&all->lock);
    all->sessions = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, upload_free);
    all->users = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    return all;
}

void serve_uploads_free(ServeUploads *all)
{
    if (!all)
        return;
    g_hash_table_unref(all->sessions);
    g_hash_table_unref(all->users);
    g_mutex_clear(&all->lock);
    g_free(all);
}

void serve_uploads_gauge(ServeUploads *all, ServeGauges *ret)
{
    AUTO_LOCK(&all->lock);
    ret->uploads = g_hash_table_size(all->sessions);
    ret->upload_bytes = all->total.bytes;
}

/* The rest is under the lock. Walks over all sessions would be made for each piece of a body. */
static Usage *usage_of(ServeUploads *all, const char *user)
{
    const char *name = user ? user : "";
    Usage *usage = g_hash_table_lookup(all->users, name);

    if (!usage) {
        usage = g_new0(Usage, 1);
        g_hash_table_insert(all->users, g_strdup(name), usage);
    }
    return usage;
}

static void leave_place(ServeUploads *all, Usage *usage)
{
    all->total.sessions--;
    usage->sessions--;
}

static void resize(ServeUpload *upload, uint64_t size)
{
    upload->all->total.bytes += size - upload->file.size;
    upload->usage->bytes += size - upload->file.size;
    upload->file.size = size;
}

/* Before it is removed from the sessions, which frees it. */
static void uncount(ServeUpload *upload)
{
    resize(upload, 0);
    leave_place(upload->all, upload->usage);
}

static void forget(ServeUpload *upload)
{
    uncount(upload);
    (void)g_hash_table_remove(upload->all->sessions, upload->id);
}

static bool is_stale(const ServeUpload *upload, int64_t now, unsigned idle)
{
    return !upload->held && (now - upload->touched > (int64_t)idle || now - upload->began > AGE_MAX);
}

void serve_uploads_tidy(ServeUploads *all)
{
    int64_t now = now_seconds();
    GHashTableIter iter;
    gpointer value;

    AUTO_LOCK(&all->lock);
    g_hash_table_iter_init(&iter, all->sessions);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ServeUpload *upload = value;

        if (!is_stale(upload, now, all->server->options->upload_idle))
            continue;
        uncount(upload);
        serve_metrics_count(all->server->metrics, SERVE_COUNT_UPLOADS_DROPPED);
        g_hash_table_iter_remove(&iter);
    }
}

/* --- beginning --------------------------------------------------------------------------- */

/* NULL: there are too many. Counted before it is made, so that no two take the last one's place. */
static Usage *take_place(ServeUploads *all, const char *user)
{
    Usage *usage;

    AUTO_LOCK(&all->lock);
    usage = usage_of(all, user);
    if (usage->sessions >= SESSIONS_PER_USER || all->total.sessions >= SESSIONS_MAX)
        return NULL;
    all->total.sessions++;
    usage->sessions++;
    return usage;
}

static void new_id(char ret[33])
{
    uint8_t bytes[16];
    ssize_t n = getrandom(bytes, sizeof bytes, 0);

    g_assert(n == (ssize_t)sizeof bytes);
    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40); /* a UUID of version 4, written without its dashes */
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
    for (size_t i = 0; i < sizeof bytes; i++)
        (void)g_snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
}

static ServeUpload *make(ServeRequest *request, Usage *usage, GError **error)
{
    ServeUploads *all = request->server->uploads;
    ServeUpload *upload = g_new0(ServeUpload, 1);
    Store *store = request->server->store;
    const char *algorithm = serve_target_query(&request->target, "digest-algorithm");
    const char *digest = serve_target_query(&request->target, "digest");
    bool wide = g_strcmp0(algorithm, "sha512") == 0 || (digest && g_str_has_prefix(digest, "sha512:"));

    upload->all = all;
    upload->usage = usage;
    upload->file.fd = -1;
    upload->repository = g_strdup(request->target.name);
    upload->user = g_strdup(request->user);
    upload->narrow = digest_stream_new();
    upload->hashed = true;
    upload->held = true;
    upload->began = upload->touched = now_seconds();
    new_id(upload->id);
    if ((wide && !checksum_stream_new("sha512", &upload->wide, error)) || !store_owner_dir(store, &upload->file.dirfd, error) || !store_lease_take(store, "upload", &upload->lease, error)) {
        upload_free(upload);
        return NULL;
    }
    upload->file.name = store_fresh_name(store, "upload");
    upload->file.fd = io_open(upload->file.dirfd, upload->file.name, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (upload->file.fd < 0) {
        (void)store_fail_errno(store, error, "write an upload to");
        g_clear_pointer(&upload->file.name, g_free);
        upload_free(upload);
        return NULL;
    }
    return upload;
}

void serve_upload_new(ServeRequest *request, ServeUpload **ret, ServeReply *reply)
{
    ServeUploads *all = request->server->uploads;
    g_autoptr(GError) error = NULL;
    Usage *usage = take_place(all, request->user);
    ServeUpload *upload;

    if (!usage) {
        serve_reply_header(reply, "Retry-After", "30");
        serve_reply_error(reply, 429, "TOOMANYREQUESTS", "too many uploads are going on");
        return;
    }
    upload = make(request, usage, &error);
    if (!upload)
        serve_reply_failure(reply, error);
    AUTO_LOCK(&all->lock);
    if (upload)
        g_hash_table_insert(all->sessions, upload->id, upload);
    else
        leave_place(all, usage);
    *ret = upload;
}

void serve_upload_hold(ServeRequest *request, ServeUpload **ret, ServeReply *reply)
{
    ServeUploads *all = request->server->uploads;
    ServeUpload *upload;

    AUTO_LOCK(&all->lock);
    upload = g_hash_table_lookup(all->sessions, request->target.reference);
    if (!upload || strcmp(upload->repository, request->target.name) != 0 || g_strcmp0(upload->user, request->user) != 0) {
        serve_reply_error(reply, 404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload");
        return;
    }
    if (upload->held) {
        serve_reply_header(reply, "Retry-After", "1");
        serve_reply_error(reply, 429, "TOOMANYREQUESTS", "another request goes on with this upload");
        return;
    }
    upload->held = true;
    upload->before = upload->file.size;
    *ret = upload;
}

/* --- going on -------------------------------------------------------------------------------- */

static bool has_room(ServeUpload *upload, size_t size, ServeReply *reply)
{
    ServeUploads *all = upload->all;
    const ServeOptions *options = all->server->options;

    if (size > options->blob_max - MIN(upload->file.size, options->blob_max)) {
        serve_reply_error(reply, 413, "SIZE_INVALID", "a blob may have up to %" G_GUINT64_FORMAT " bytes here", options->blob_max);
        return false;
    }
    AUTO_LOCK(&all->lock);
    if (size > options->uploads_max - MIN(all->total.bytes, options->uploads_max) ||
        size > options->uploads_per_user - MIN(upload->usage->bytes, options->uploads_per_user)) {
        serve_reply_header(reply, "Retry-After", "60");
        serve_reply_error(reply, 429, "TOOMANYREQUESTS", "too much is being uploaded at the moment");
        return false;
    }
    resize(upload, upload->file.size + size);
    return true;
}

bool serve_upload_write(ServeUpload *upload, const void *data, size_t size, ServeReply *reply)
{
    uint64_t at = upload->file.size;
    g_autoptr(GError) error = NULL;

    if (!has_room(upload, size, reply))
        return false;
    if (!io_pwrite_full(upload->file.fd, data, size, at)) {
        (void)store_fail_errno(upload->all->server->store, &error, "write an upload to");
        serve_reply_failure(reply, error);
        return false;
    }
    if (!upload->hashed) /* the streams are over, or have what was taken back */
        return true;
    digest_stream_update(upload->narrow, data, size);
    if (upload->wide && !checksum_stream_update(upload->wide, data, size, &error)) {
        serve_reply_failure(reply, error);
        return false;
    }
    return true;
}

bool serve_upload_starts_at(ServeUpload *upload, ServeRequest *request, ServeReply *reply)
{
    uint64_t first, last;

    if (!request->content_range)
        return true;
    if (!serve_chunk_range_parse(request->content_range, &first, &last) ||
        (request->length >= 0 && last - first + 1 != (uint64_t)request->length)) {
        serve_reply_error(reply, 416, "SIZE_INVALID", "Content-Range does not fit the chunk");
    } else if (first != upload->file.size) {
        serve_reply_error(reply, 416, "BLOB_UPLOAD_INVALID", "the next chunk starts at %" G_GUINT64_FORMAT, upload->file.size);
    } else {
        return true;
    }
    serve_upload_location(upload, reply);
    return false;
}

void serve_upload_rewind(ServeUpload *upload)
{
    ServeUploads *all = upload->all;

    if (upload->file.size == upload->before)
        return;
    g_mutex_lock(&all->lock);
    resize(upload, upload->before);
    g_mutex_unlock(&all->lock);
    upload->hashed = false; /* streams don't go back: it is hashed at its end */
    if (io_truncate(upload->file.fd, (off_t)upload->before) < 0)
        serve_upload_drop(upload);
}

/* "0-0" for one that has nothing yet too, as registries do. */
void serve_upload_location(const ServeUpload *upload, ServeReply *reply)
{
    serve_reply_header(reply, "Location", "/v2/%s/blobs/uploads/%s", upload->repository, upload->id);
    serve_reply_header(reply, "Range", "0-%" G_GUINT64_FORMAT, upload->file.size ? upload->file.size - 1 : 0);
    serve_reply_header(reply, "Docker-Upload-UUID", "%s", upload->id);
}

void serve_upload_release(ServeUpload *upload)
{
    ServeUploads *all = upload->all;

    AUTO_LOCK(&all->lock);
    upload->held = false;
    upload->touched = now_seconds();
    if (upload->dropped)
        forget(upload);
}

void serve_upload_drop(ServeUpload *upload)
{
    upload->dropped = true;
}

/* --- the end --------------------------------------------------------------------------------- */

static bool hash_wide(ServeUpload *upload, bool streamed, char **ret, GError **error)
{
    if (streamed && upload->wide)
        return checksum_stream_final(upload->wide, ret, error);
    return (lseek(upload->file.fd, 0, SEEK_SET) == 0 || fail_errno(error, "read an upload's temporary file")) &&
           checksum_of_fd(upload->file.fd, "sha512", ret, error);
}

static bool hash(ServeUpload *upload, const ServeDigest *digest, bool *ret_same, GError **error)
{
    g_autofree char *wide = NULL;
    bool streamed = upload->hashed;

    upload->hashed = false;
    if (streamed)
        digest_stream_final(upload->narrow, &upload->file.blob);
    else if (!digest_of_fd(upload->file.fd, &upload->file.blob, error))
        return false;
    if (digest->wide && !hash_wide(upload, streamed, &wide, error))
        return false;
    *ret_same = digest->wide ? strcmp(wide, digest->text + strlen("sha512:")) == 0 : digest_equal(&upload->file.blob, &digest->narrow);
    return true;
}

void serve_upload_finish(ServeUpload *upload, ServeRequest *request, const ServeDigest *digest, ServeReply *reply)
{
    g_autoptr(GError) error = NULL;
    bool same;

    if (!hash(upload, digest, &same, &error)) {
        serve_reply_failure(reply, error);
        return;
    }
    if (!same) {
        serve_upload_drop(upload);
        serve_reply_error(reply, 400, "DIGEST_INVALID", "the uploaded bytes do not have that digest");
        return;
    }
    if (!serve_take(request->server, &upload->file, upload->repository, digest->text, &error)) {
        if (!upload->file.name) /* it has the blob's name already: nobody may write to it any more */
            serve_upload_drop(upload);
        serve_reply_failure(reply, error);
        return;
    }
    serve_upload_drop(upload);
    serve_reply_created(reply, upload->repository, digest->text);
}
