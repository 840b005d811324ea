/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request to one reply: which endpoint it is, who may, and what comes of it. Knows nothing of connections.
 */
#include "store/serve-private.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/store-private.h"

#include <string.h>

#define API_HEADER "Docker-Distribution-Api-Version"

/* --- replies ---------------------------------------------------------------------------- */

void serve_reply_clear(ServeReply *reply)
{
    g_clear_pointer(&reply->headers, g_ptr_array_unref);
    g_clear_pointer(&reply->body, g_bytes_unref);
    g_clear_pointer(&reply->bytes, serve_bytes_free);
}

void serve_reply_header(ServeReply *reply, const char *name, const char *format, ...)
{
    va_list args;

    if (!reply->headers)
        reply->headers = g_ptr_array_new_with_free_func(g_free);
    va_start(args, format);
    g_ptr_array_add(reply->headers, g_strdup(name));
    g_ptr_array_add(reply->headers, g_strdup_vprintf(format, args));
    va_end(args);
}

void serve_reply_bytes(ServeReply *reply, unsigned status, GBytes *body, const char *type)
{
    reply->status = status;
    reply->body = body;
    serve_reply_header(reply, "Content-Type", "%s", type);
}

bool serve_reply_known(ServeReply *reply, const ServeRequest *request, const char *digest)
{
    g_autofree char *tag = g_strdup_printf("\"%s\"", digest);

    serve_reply_header(reply, "ETag", "%s", tag);
    if (!request->if_none_match || !strstr(request->if_none_match, tag))
        return false;
    reply->status = 304;
    return true;
}

void serve_reply_json(ServeReply *reply, unsigned status, json_t *document, const char *type)
{
    char *text = json_dumps(document, JSON_COMPACT);

    json_decref(document);
    serve_reply_bytes(reply, status, g_bytes_new_with_free_func(text, strlen(text), free, text), type);
}

void serve_reply_error(ServeReply *reply, unsigned status, const char *code, const char *format, ...)
{
    g_autofree char *message = NULL, *printable = NULL;
    va_list args;

    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    printable = g_utf8_make_valid(message, -1);
    serve_reply_json(reply, status, json_pack("{s:[{s:s, s:s}]}", "errors", "code", code, "message", printable), "application/json");
}

void serve_reply_failure(ServeReply *reply, const GError *error)
{
    log_warning("%s", error->message);
    if (error->code == KILN_ERROR_NO_SPACE)
        serve_reply_error(reply, 507, "TOOMANYREQUESTS", "the store is full");
    else
        serve_reply_error(reply, 500, "UNKNOWN", "something went wrong in the store; its log says what");
}

/* --- who may --------------------------------------------------------------------------------- */

static bool is_write(const ServeRequest *request)
{
    return !request->head && strcmp(request->method, "GET") != 0 && strcmp(request->method, "OPTIONS") != 0;
}

/* An upload's state is for who uploads. */
static bool needs_write(const ServeRequest *request)
{
    return is_write(request) || request->target.endpoint == SERVE_UPLOAD;
}

static void ask(ServeReply *reply)
{
    serve_reply_header(reply, "WWW-Authenticate", "Basic realm=\"kiln\", charset=\"UTF-8\"");
    serve_reply_error(reply, 401, "UNAUTHORIZED", "a user and a password are needed");
}

static bool may(ServeRequest *request, const char *authorization, ServeReply *reply)
{
    Server *server = request->server;
    ServeEndpoint endpoint = request->target.endpoint;

    if (endpoint == SERVE_HEALTH || endpoint == SERVE_READY)
        return true;
    switch (serve_auth_check(server->auth, authorization, needs_write(request), &request->user)) {
    case SERVE_ALLOWED:
        break;
    case SERVE_UNKNOWN:
        ask(reply);
        return false;
    case SERVE_DENIED:
        serve_reply_error(reply, 403, "DENIED", "%s", serve_auth_asks(server->auth) ? "this user may not write" : "without users this server is read-only");
        return false;
    }
    if (needs_write(request) && store_is_readonly(server->store)) {
        serve_reply_error(reply, 403, "DENIED", "the store is read-only");
        return false;
    }
    return true;
}

/* --- methods ------------------------------------------------------------------------------------ */

static const char *methods_of(ServeEndpoint endpoint)
{
    switch (endpoint) {
    case SERVE_BLOB:
        return "GET, HEAD, DELETE";
    case SERVE_UPLOADS:
        return "POST";
    case SERVE_UPLOAD:
        return "GET, HEAD, PATCH, PUT, DELETE";
    case SERVE_MANIFEST:
        return "GET, HEAD, PUT, DELETE";
    default:
        return "GET, HEAD";
    }
}

static bool method_fits(const ServeRequest *request)
{
    g_auto(GStrv) methods = g_strsplit(methods_of(request->target.endpoint), ", ", -1);

    return g_strv_contains((const char *const *)methods, request->method);
}

static bool is(const ServeRequest *request, const char *method)
{
    return strcmp(request->method, method) == 0;
}

/* --- blobs ---------------------------------------------------------------------------------------- */

void serve_reply_created(ServeReply *reply, const char *repository, const char *digest)
{
    reply->status = 201;
    serve_reply_header(reply, "Location", "/v2/%s/blobs/%s", repository, digest);
    serve_reply_header(reply, "Docker-Content-Digest", "%s", digest);
    (void)g_strlcpy(reply->digest, digest, sizeof reply->digest);
}

static void blob_unknown(ServeRequest *request, ServeReply *reply)
{
    serve_reply_error(reply, 404, "BLOB_UNKNOWN", "repository '%s' has no blob %s", request->target.name, request->target.reference);
}

/* A client that has a part of something else gets all of this. */
static bool range_counts(const ServeRequest *request)
{
    g_autofree char *tag = g_strdup_printf("\"%s\"", request->digest.text);

    return request->range && (!request->if_range || strcmp(request->if_range, tag) == 0);
}

static void get_blob(ServeRequest *request, ServeReply *reply)
{
    g_autoptr(GError) error = NULL;
    uint64_t first = 0, last;
    ServeRangeKind range;
    ServeLink link;
    bool found;

    if (!serve_find_blob(request->server->store, request->target.name, &request->digest, &link, &found, &error)) {
        serve_reply_failure(reply, error);
        return;
    }
    if (!found) {
        blob_unknown(request, reply);
        return;
    }
    (void)g_strlcpy(reply->digest, request->digest.text, sizeof reply->digest);
    if (serve_reply_known(reply, request, request->digest.text))
        return;
    range = range_counts(request) ? serve_range_parse(request->range, link.size, &first, &last) : SERVE_RANGE_ALL;
    if (range == SERVE_RANGE_BAD) {
        serve_reply_header(reply, "Content-Range", "bytes */%" G_GUINT64_FORMAT, link.size);
        serve_reply_error(reply, 416, "SIZE_INVALID", "the blob has %" G_GUINT64_FORMAT " bytes", link.size);
        return;
    }
    if (!request->head && !serve_bytes_open(request->server->shelf, &link, &reply->bytes, &error)) {
        serve_reply_failure(reply, error);
        return;
    }
    reply->status = range == SERVE_RANGE_PART ? 206 : 200;
    reply->offset = first;
    reply->length = range == SERVE_RANGE_PART ? last - first + 1 : link.size;
    serve_reply_header(reply, "Content-Type", "application/octet-stream");
    serve_reply_header(reply, "Docker-Content-Digest", "%s", request->digest.text);
    serve_reply_header(reply, "Accept-Ranges", "bytes");
    serve_reply_header(reply, "Cache-Control", "max-age=31536000");
    if (range == SERVE_RANGE_PART)
        serve_reply_header(reply, "Content-Range", "bytes %" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT, first, last, link.size);
}

static void delete_blob(ServeRequest *request, ServeReply *reply)
{
    Store *store = request->server->store;
    const char *name = request->target.name;
    g_autoptr(GError) error = NULL;
    bool needed, found, own = false;
    ServeLink link;

    AUTO_LOCK(&request->server->manifests);
    if (!serve_link_is_needed(store, name, request->digest.text, &needed, &error) ||
        (!needed && !serve_link_remove(store, name, request->digest.text, &found, &error)) ||
        (!needed && !found && !serve_find_blob(store, name, &request->digest, &link, &own, &error)))
        serve_reply_failure(reply, error);
    else if (needed || own)
        serve_reply_error(reply, 405, "UNSUPPORTED", "a manifest of '%s' names this blob", name);
    else if (!found)
        blob_unknown(request, reply);
    else
        reply->status = 202;
}

/* --- uploads ---------------------------------------------------------------------------------------- */

static bool mount_link(ServeRequest *request, const char *from, const ServeDigest *digest, ServeLink *ret, bool *ret_found, GError **error)
{
    Store *store = request->server->store;

    if (!from)
        return serve_link_find_anywhere(store, digest->text, ret, ret_found, error);
    *ret_found = false;
    return !serve_name_is_valid(from) || serve_find_blob(store, from, digest, ret, ret_found, error);
}

static bool put_link(Store *store, const char *repository, const char *digest, const ServeLink *link, GError **error)
{
    Database *db;

    if (!store_catalog(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!serve_link_put(db, repository, digest, link, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

/* A reply, or none: then it is uploaded. A segment stands in no blob's row, so it can't be linked to. */
static void try_mount(ServeRequest *request, const char *text, ServeReply *reply)
{
    g_autoptr(GError) error = NULL;
    ServeDigest digest;
    ServeLink link;
    bool found;

    if (!serve_digest_parse(text, &digest)) {
        serve_reply_error(reply, 400, "DIGEST_INVALID", "what is to be mounted has no digest");
        return;
    }
    if (!mount_link(request, serve_target_query(&request->target, "from"), &digest, &link, &found, &error) ||
        (found && !link.segment && !put_link(request->server->store, request->target.name, digest.text, &link, &error)))
        serve_reply_failure(reply, error);
    else if (found && !link.segment)
        serve_reply_created(reply, request->target.name, digest.text);
}

static bool algorithm_is_known(const char *algorithm)
{
    return !algorithm || strcmp(algorithm, "sha256") == 0 || strcmp(algorithm, "sha512") == 0;
}

/* The body, if there is one, is the blob: then "digest" says which. */
static void begin_upload(ServeRequest *request, ServeReply *reply)
{
    const char *mount = serve_target_query(&request->target, "mount"), *digest = serve_target_query(&request->target, "digest");
    ServeDigest parsed;

    if (mount)
        try_mount(request, mount, reply);
    else if (digest && !serve_digest_parse(digest, &parsed))
        serve_reply_error(reply, 400, "DIGEST_INVALID", "a digest is sha256: with 64 or sha512: with 128 lower-case hex digits");
    else if (!algorithm_is_known(serve_target_query(&request->target, "digest-algorithm")))
        serve_reply_error(reply, 400, "UNSUPPORTED", "digests are sha256 or sha512");
    if (!reply->status)
        serve_upload_new(request, &request->upload, reply);
}

static void end_begin_upload(ServeRequest *request, ServeReply *reply)
{
    const char *text = serve_target_query(&request->target, "digest");
    ServeDigest digest;

    if (text && serve_digest_parse(text, &digest)) {
        serve_upload_finish(request->upload, request, &digest, reply);
        if (reply->status >= 400)
            serve_upload_drop(request->upload);
        return;
    }
    reply->status = 202;
    serve_upload_location(request->upload, reply);
}

static void end_upload(ServeRequest *request, ServeReply *reply)
{
    const char *text = serve_target_query(&request->target, "digest");
    ServeDigest digest;

    if (!is(request, "PUT")) {
        reply->status = 202;
        serve_upload_location(request->upload, reply);
        return;
    }
    if (text && serve_digest_parse(text, &digest)) {
        serve_upload_finish(request->upload, request, &digest, reply);
        return;
    }
    serve_upload_rewind(request->upload);
    serve_reply_error(reply, 400, "DIGEST_INVALID", "an upload ends with ?digest= of sha256 or sha512");
}

static void upload_status(ServeRequest *request, ServeReply *reply)
{
    serve_upload_hold(request, &request->upload, reply);
    if (!request->upload)
        return;
    if (is(request, "DELETE"))
        serve_upload_drop(request->upload);
    else
        serve_upload_location(request->upload, reply);
    reply->status = 204;
}

/* --- the rest ------------------------------------------------------------------------------------------ */

static void plain(ServeReply *reply, unsigned status, const char *text, const char *type)
{
    serve_reply_bytes(reply, status, g_bytes_new(text, strlen(text)), type);
}

static void say_ready(ServeRequest *request, ServeReply *reply)
{
    g_autoptr(GError) error = NULL;
    Database *db;
    int64_t one;
    bool ok = store_catalog(request->server->store, &db, &error) && database_int(db, 0, &one, &error, "SELECT count(*) FROM meta", "") &&
              (!request->server->ready || request->server->ready(request->server));

    plain(reply, ok ? 200 : 503, ok ? "ready\n" : "not ready\n", "text/plain");
}

static void metrics(ServeRequest *request, ServeReply *reply)
{
    ServeGauges gauges = {0};
    g_autofree char *text = NULL;

    serve_uploads_gauge(request->server->uploads, &gauges);
    if (request->server->gauges)
        request->server->gauges(request->server, &gauges);
    text = serve_metrics_text(request->server->metrics, &gauges);
    plain(reply, 200, text, "text/plain; version=0.0.4");
}

static void answer_get(ServeRequest *request, ServeReply *reply)
{
    switch (request->target.endpoint) {
    case SERVE_BASE:
        plain(reply, 200, "{}", "application/json");
        return;
    case SERVE_CATALOG:
        serve_list_repositories(request, reply);
        return;
    case SERVE_BLOB:
        get_blob(request, reply);
        return;
    case SERVE_MANIFEST:
        serve_manifest_get(request, reply);
        return;
    case SERVE_TAGS:
        serve_list_tags(request, reply);
        return;
    case SERVE_REFERRERS:
        serve_list_referrers(request, reply);
        return;
    case SERVE_UPLOAD:
        upload_status(request, reply);
        return;
    case SERVE_METRICS:
        metrics(request, reply);
        return;
    case SERVE_HEALTH:
        plain(reply, 200, "ok\n", "text/plain");
        return;
    case SERVE_READY:
        say_ready(request, reply);
        return;
    default:
        break;
    }
    serve_reply_error(reply, 404, "NAME_UNKNOWN", "there is nothing here");
}

/* What can be answered or refused before a body comes. */
static void begin_write(ServeRequest *request, ServeReply *reply)
{
    ServeEndpoint endpoint = request->target.endpoint;
    GError *error = NULL;

    if (!store_lease_take(request->server->store, "serve", &request->lease, &error)) {
        serve_reply_failure(reply, error);
        g_error_free(error);
    } else if (is(request, "DELETE")) {
        if (endpoint == SERVE_UPLOAD)
            upload_status(request, reply);
        else if (endpoint == SERVE_BLOB)
            delete_blob(request, reply);
        else
            serve_manifest_delete(request, reply);
    } else if (endpoint == SERVE_MANIFEST) {
        if (request->length > (int64_t)SERVE_MANIFEST_MAX)
            serve_reply_error(reply, 413, "SIZE_INVALID", "a manifest may have up to %u bytes", SERVE_MANIFEST_MAX);
        else
            request->body = g_byte_array_new();
    } else if (endpoint == SERVE_UPLOADS) {
        begin_upload(request, reply);
    } else {
        serve_upload_hold(request, &request->upload, reply);
        if (request->upload)
            (void)serve_upload_starts_at(request->upload, request, reply);
    }
}

static bool length_fits(ServeRequest *request, ServeReply *reply)
{
    uint64_t max = request->server->options->blob_max;

    if (request->length <= 0 || (uint64_t)request->length <= max)
        return true;
    serve_reply_error(reply, 413, "SIZE_INVALID", "a blob may have up to %" G_GUINT64_FORMAT " bytes here", max);
    return false;
}

void serve_request_begin(ServeRequest *request, const char *authorization, ServeReply *reply)
{
    const ServeTarget *target = &request->target;

    if (target->endpoint != SERVE_HEALTH && target->endpoint != SERVE_READY && target->endpoint != SERVE_METRICS)
        serve_reply_header(reply, API_HEADER, "registry/2.0");
    if (!may(request, authorization, reply))
        return;
    if (target->code) {
        serve_reply_error(reply, 400, target->code, "%s", target->why);
    } else if (target->endpoint != SERVE_NOWHERE && !method_fits(request)) {
        serve_reply_header(reply, "Allow", "%s", methods_of(target->endpoint));
        serve_reply_error(reply, 405, "UNSUPPORTED", "this can't be done here");
    } else {
        request->by_digest = target->reference && serve_digest_parse(target->reference, &request->digest);
        if (!is_write(request) || target->endpoint == SERVE_NOWHERE)
            answer_get(request, reply);
        else if (length_fits(request, reply))
            begin_write(request, reply);
    }
}

bool serve_request_body(ServeRequest *request, const void *data, size_t size, ServeReply *reply)
{
    request->received += size;
    if (request->body) {
        if (size > SERVE_MANIFEST_MAX - request->body->len) {
            serve_reply_error(reply, 413, "SIZE_INVALID", "a manifest may have up to %u bytes", SERVE_MANIFEST_MAX);
            return false;
        }
        g_byte_array_append(request->body, data, (guint)size);
        return true;
    }
    if (!request->upload || (request->target.endpoint == SERVE_UPLOADS && !serve_target_query(&request->target, "digest"))) {
        serve_reply_error(reply, 400, "BLOB_UPLOAD_INVALID", "there is no place for a body here");
        return false;
    }
    if (serve_upload_write(request->upload, data, size, reply))
        return true;
    serve_upload_rewind(request->upload);
    return false;
}

void serve_request_end(ServeRequest *request, ServeReply *reply)
{
    if (reply->status)
        return;
    if (request->body)
        serve_manifest_take(request, reply);
    else if (request->target.endpoint == SERVE_UPLOADS)
        end_begin_upload(request, reply);
    else
        end_upload(request, reply);
}

/*
 * Each request that writes has a lease of its own. The one that the store takes for its process with the first writer would keep gc from
 * removing anything for as long as we run, so it goes with each request.
 */
void serve_drop_process_lease(Store *store)
{
    StoreLease *lease;

    g_mutex_lock(&store->tmp_lock);
    lease = g_steal_pointer(&store->lease);
    g_mutex_unlock(&store->tmp_lock);
    store_lease_release(lease);
}

void serve_request_settle(ServeRequest *request)
{
    if (request->upload) {
        if (request->target.endpoint == SERVE_UPLOADS && serve_target_query(&request->target, "digest"))
            serve_upload_drop(request->upload); /* nobody was told where it is */
        serve_upload_release(g_steal_pointer(&request->upload));
    }
    if (request->lease) {
        serve_drop_process_lease(request->server->store);
        store_lease_release(g_steal_pointer(&request->lease));
    }
}

void serve_request_clear(ServeRequest *request)
{
    serve_request_settle(request);
    if (request->body)
        g_byte_array_unref(request->body);
    serve_target_clear(&request->target);
    g_free(request->user);
    *request = (ServeRequest){.length = -1};
}
