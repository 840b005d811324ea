/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of `kiln serve` share. The layers, from below:
 *
 *   serve-target    texts of strangers               serve-auth     who may do what
 *   serve-rows      repositories as rows             serve-view     the store's own names as repositories
 *   serve-disk, serve-pieces: the store's own disks   serve-take     uploaded bytes to be stored
 *   serve-upload    uploads that go on               serve-manifest manifests that come in
 *   serve-list      tags, repositories, referrers    serve-answer   one request to one reply
 *   serve-bytes     stored bytes to be sent
 *   serve           connections, by libmicrohttpd    serve-metrics, serve-listen: what it says of itself, where it listens
 */
#ifndef KILN_STORE_SERVE_PRIVATE_H
#define KILN_STORE_SERVE_PRIVATE_H

#include "store/image.h"
#include "store/serve-auth.h"
#include "store/serve-rows.h"
#include "store/serve.h"

#define SERVE_MANIFEST_MAX (4u << 20)

/* --- numbers: serve-metrics.c --- */

typedef struct ServeMetrics ServeMetrics;
ServeMetrics *serve_metrics_new(void);
void serve_metrics_free(ServeMetrics *metrics);
void serve_metrics_request(ServeMetrics *metrics, const char *method, unsigned status, double seconds, uint64_t in, uint64_t out);
typedef enum ServeCounter { SERVE_COUNT_MADE, SERVE_COUNT_KEPT, SERVE_COUNT_TAKEN_RECIPE, SERVE_COUNT_TAKEN_VERBATIM, SERVE_COUNT_SLOW, SERVE_COUNT_UPLOADS_DROPPED, SERVE_COUNTERS } ServeCounter;
void serve_metrics_count(ServeMetrics *metrics, ServeCounter counter);
/* What is so at this moment, for serve_metrics_text. */
typedef struct ServeGauges {
    uint64_t connections, requests, uploads, upload_bytes;
} ServeGauges;
char *serve_metrics_text(ServeMetrics *metrics, const ServeGauges *gauges);

/* --- bytes to be sent: serve-bytes.c --- */

/* Whole, in a file (@fd), or still being made into one. */
typedef struct ServeBytes ServeBytes;
typedef struct ServeShelf ServeShelf;
ServeShelf *serve_shelf_new(Store *store, ServeMetrics *metrics);
void serve_shelf_free(ServeShelf *shelf);
void serve_shelf_tidy(ServeShelf *shelf); /* from time to time */
bool serve_bytes_open(ServeShelf *shelf, const ServeLink *link, ServeBytes **ret, GError **error);
void serve_bytes_free(ServeBytes *bytes);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ServeBytes, serve_bytes_free)
/* Its own descriptor of a file that has all of it; -1: read it by serve_bytes_read. */
int serve_bytes_fd(const ServeBytes *bytes);
/* Waits until there is something at @offset. 0 at the end, -1 when it could not be made. */
ssize_t serve_bytes_read(ServeBytes *bytes, uint64_t offset, void *buffer, size_t size);

/* --- requests and replies --- */

typedef struct Server {
    Store *store;
    const ServeOptions *options;
    ServeAuth *auth;
    ServeMetrics *metrics;
    ServeShelf *shelf;
    struct ServeUploads *uploads;
    GMutex manifests; /* held while a manifest is put or taken away */
    bool (*ready)(struct Server *server);
    void (*gauges)(struct Server *server, ServeGauges *ret);
} Server;

typedef struct ServeRequest {
    Server *server;
    const char *method;
    bool head;
    ServeTarget target;
    ServeDigest digest; /* of @target's reference, where that is one */
    bool by_digest;
    char *user; /* proved; or NULL */
    const char *range, *content_range, *content_type, *if_range, *if_none_match;
    int64_t length; /* Content-Length; -1: not said */

    /* the body, as it comes */
    GByteArray *body;                /* manifests */
    struct ServeUpload *upload;      /* held by us until the reply */
    uint64_t received;
    StoreLease *lease;
} ServeRequest;

typedef struct ServeReply {
    unsigned status; /* 0: none yet */
    GPtrArray *headers; /* char *: name, value, ... */
    GBytes *body;
    ServeBytes *bytes; /* instead of @body, @length from @offset */
    uint64_t offset, length;
    char digest[SERVE_DIGEST_SIZE]; /* for the log */
} ServeReply;
void serve_reply_clear(ServeReply *reply);
void serve_reply_header(ServeReply *reply, const char *name, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* An error as the specification has it. */
void serve_reply_error(ServeReply *reply, unsigned status, const char *code, const char *format, ...) G_GNUC_PRINTF(4, 5);
/* Something is wrong here: told to the log in full, to the client in general. */
void serve_reply_failure(ServeReply *reply, const GError *error);
void serve_reply_json(ServeReply *reply, unsigned status, json_t *document /* taken */, const char *type);
void serve_reply_bytes(ServeReply *reply, unsigned status, GBytes *body /* taken */, const char *type);
/* ETag; true: the client has it already, and is told so. */
bool serve_reply_known(ServeReply *reply, const ServeRequest *request, const char *digest);

/* --- one request: serve-answer.c --- */

/*
 * serve_request_begin(): with the headers; a reply there ends it. Then serve_request_body() for each piece, false: a reply there ends it. Then
 * serve_request_end(), which makes the reply if there is none. serve_request_settle() before the reply is sent: the client's next request may be here
 * before we know that it was. serve_request_clear() in any case.
 */
void serve_request_begin(ServeRequest *request, const char *authorization, ServeReply *reply);
bool serve_request_body(ServeRequest *request, const void *data, size_t size, ServeReply *reply);
void serve_request_end(ServeRequest *request, ServeReply *reply);
void serve_request_settle(ServeRequest *request);
void serve_request_clear(ServeRequest *request);
void serve_drop_process_lease(Store *store);
/* 201: the blob is there now. */
void serve_reply_created(ServeReply *reply, const char *repository, const char *digest);

/* --- uploads: serve-upload.c --- */

typedef struct ServeUploads ServeUploads;
typedef struct ServeUpload ServeUpload;
ServeUploads *serve_uploads_new(Server *server);
void serve_uploads_free(ServeUploads *uploads);
void serve_uploads_tidy(ServeUploads *uploads); /* drops what nobody went on with */
void serve_uploads_gauge(ServeUploads *uploads, ServeGauges *ret);

/* Each may make an error reply instead; then *ret stays NULL. Held by the caller until serve_upload_release(). */
void serve_upload_new(ServeRequest *request, ServeUpload **ret, ServeReply *reply);
void serve_upload_hold(ServeRequest *request, ServeUpload **ret, ServeReply *reply);
bool serve_upload_write(ServeUpload *upload, const void *data, size_t size, ServeReply *reply);
bool serve_upload_starts_at(ServeUpload *upload, ServeRequest *request, ServeReply *reply);
/* Takes back what came since the hold: the request was no good. */
void serve_upload_rewind(ServeUpload *upload);
void serve_upload_location(const ServeUpload *upload, ServeReply *reply);
void serve_upload_release(ServeUpload *upload);
/* Ends it, whatever comes of it. */
void serve_upload_drop(ServeUpload *upload);
/* Is it what @digest says? Then it is stored and linked. The upload is gone afterwards unless a failure of ours made it fail. */
void serve_upload_finish(ServeUpload *upload, ServeRequest *request, const ServeDigest *digest, ServeReply *reply);

/* --- bytes that came: serve-take.c --- */

/*
 * A file of our folder in tmp, of which @blob and @size are known: stored, as a recipe where one brings it back, and linked. The file's name is
 * gone afterwards when it returns true.
 */
typedef struct ServeTaken {
    int dirfd, fd;
    char *name;
    Digest blob;
    uint64_t size;
} ServeTaken;
/* Around what takes memory and a core for a while; others wait. */
void serve_gate_enter(void);
void serve_gate_leave(void);
bool serve_take(Server *server, ServeTaken *taken, const char *repository, const char *digest, GError **error);

/* --- the store's own names: serve-view.c --- */

/* *ret NULL: the store means nothing by it. Else what a client gets by serve_view_manifest_of(), which may have to make it. @ret_at: microseconds. */
bool serve_view_tag(Store *store, const char *repository, const char *tag, StoreImage **ret, int64_t *ret_at, bool *ret_channel, GError **error);
bool serve_view_manifest_of(Store *store, const char *repository, const StoreImage *image, Digest *ret, GError **error);
/* Is the image with that ID one that the repository of the name has, and has it its bytes? */
bool serve_view_has_image(Store *store, const char *name, const Digest *id, bool *ret, GError **error);
bool serve_view_manifest(Store *store, const char *repository, const Digest *digest, bool *ret, GError **error);
/* The image that was published under the repository's very name with this manifest; *ret NULL: none. */
bool serve_view_image(Store *store, const char *repository, const Digest *manifest, StoreImage **ret, GError **error);
bool serve_view_blob(Store *store, const char *repository, const Digest *digest, ServeLink *ret, bool *ret_found, GError **error);
bool serve_view_tags(Store *store, const char *repository, GHashTable *to, bool *ret_exists, GError **error);
bool serve_view_repositories(Store *store, GHashTable *to, GError **error);

/* --- its disks: serve-disk.c --- */

/* The manifest of the disk as it is served under the name, made if need be. *ret none: it can't be had, because the store is read-only. */
bool serve_disk_manifest(Store *store, const char *name, const StoreImage *image, Digest *ret, GError **error);
/* A segment that is served and mostly consists of the store's: what it consists of, and writing it. */
bool serve_pieces_encode(int fd, uint64_t size, const GArray *pieces /* of DiskPiece */, GBytes **ret, GError **error);
bool serve_pieces_sources(Store *store, const Digest *pieces, GArray *to /* of Digest */, GError **error);
bool serve_pieces_write(Store *store, const Digest *pieces, int fd, GError **error);

/* A blob of a disk that is served under the name, or (@manifest) a manifest. */
bool serve_disk_find(Store *store, const char *name, const Digest *digest, bool manifest, ServeLink *ret, bool *ret_found, GError **error);

/* --- pushed, or the store's own: serve-view.c --- */

/* What a client gets for a blob of a repository, pushed or the store's own. */
bool serve_find_blob(Store *store, const char *repository, const ServeDigest *digest, ServeLink *ret, bool *ret_found, GError **error);
/* None: there is no such manifest. */
bool serve_find_manifest(Store *store, const char *repository, const ServeDigest *digest, Digest *ret, GError **error);
bool serve_find_tag(Store *store, const char *repository, const char *tag, ServeTag *ret, GError **error);

/* --- manifests and lists --- */

void serve_manifest_get(ServeRequest *request, ServeReply *reply);
void serve_manifest_take(ServeRequest *request, ServeReply *reply);
void serve_manifest_delete(ServeRequest *request, ServeReply *reply);
void serve_list_tags(ServeRequest *request, ServeReply *reply);
void serve_list_repositories(ServeRequest *request, ServeReply *reply);
void serve_list_referrers(ServeRequest *request, ServeReply *reply);
/* *ret_image: the image that it was published as, under the repository's name; none: it is nothing that kiln has images of. */
bool serve_publish(Server *server, const ServePush *push, const json_t *manifest, const char *user, Digest *ret_image, GError **error);
/* "mediaType", or what its fields tell; never NULL. */
const char *serve_manifest_type(const json_t *manifest);

#endif
