/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blobs into a registry.
 *
 *   HEAD      there already                         -> done
 *   POST      mounted from another repository       -> done; else we get a place to write to
 *   PATCH     all that is left, in one request
 *   PUT       the digest closes it
 *
 * What breaks is looked at: GET at the place says how much arrived, and PATCH goes on there. When the place is gone, or nobody can say what
 * arrived, all begins anew.
 */
#include "store/registry-private.h"

#include "base/error.h"
#include "base/scope.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SMALL (1u << 20) /* in one request */
#define UNASKED (256u << 10) /* sent without asking whether it is there */

typedef struct Upload {
    Registry *r;
    const Digest *digest;
    uint64_t size, at;
    int fd;
    const char *from; /* repository to mount from, or NULL */
    char *url;
    Progress *progress;
    uint64_t *sent;
    uint64_t shown; /* of the progress */
    bool spoilt;    /* the registry has something else than we sent: begin anew */
} Upload;

static void show_progress(Upload *u, uint64_t at)
{
    if (at > u->shown) {
        progress_add(u->progress, at - u->shown);
        u->shown = at;
    }
}

static void on_sent(uint64_t more, void *arg)
{
    Upload *u = arg;

    registry_count_sent(u->r, more);
    *u->sent += more;
}

/* Location may be a path, a whole URL, or elsewhere altogether. */
static bool take_location(Upload *u, const HttpAnswer *answer, GError **error)
{
    const char *location = http_answer_header(answer, "location");
    char *resolved;

    if (!location && u->url)
        return true;
    if (!location)
        return fail(error, "%s: the registry does not say where to upload to", registry_place(u->r));
    resolved = g_uri_resolve_relative(answer->url, location, G_URI_FLAGS_ENCODED, NULL);
    if (!resolved || (!g_str_has_prefix(resolved, "http://") && !g_str_has_prefix(resolved, "https://")) ||
        (g_str_has_prefix(answer->url, "https://") && !g_str_has_prefix(resolved, "https://"))) {
        g_free(resolved);
        return fail(error, "%s: the registry wants the upload at a place that is no good", registry_place(u->r));
    }
    g_free(u->url);
    u->url = resolved;
    return true;
}

/* *ret_done: mounted. */
static bool start(Upload *u, bool *ret_done, GError **error)
{
    char oci[DIGEST_OCI_SIZE];
    g_autofree char *escaped = u->from ? g_uri_escape_string(u->from, NULL, FALSE) : NULL;
    g_autofree char *query = u->from ? g_strdup_printf("?mount=%s&from=%s", digest_to_oci(u->digest, oci), escaped) : g_strdup("");
    g_autofree char *path = registry_path(u->r, "blobs/uploads/%s", query);
    HttpRequest request = {.method = "POST", .url = path, .has_body = true, .body = ""};
    g_auto(HttpAnswer) answer = {0};

    *ret_done = false;
    g_clear_pointer(&u->url, g_free);
    u->at = 0;
    if (!registry_ask(u->r, &request, u->from, &answer, error))
        return false;
    if (!answer.trouble && answer.status == 201 && u->from) {
        *ret_done = true;
        return true;
    }
    if (u->from && !answer.trouble && (answer.status == 401 || answer.status == 403 || answer.status == 404)) {
        u->from = NULL; /* not ours to read there: then the long way */
        return start(u, ret_done, error);
    }
    if (answer.trouble || answer.status != 202)
        return registry_fail(u->r, &answer, "starting an upload", error);
    return take_location(u, &answer, error);
}

/* *ret_known false: begin anew. "0-0" may be one byte or none. */
static bool ask_how_far(Upload *u, bool *ret_known, GError **error)
{
    HttpRequest request = {.method = "GET", .url = u->url};
    g_auto(HttpAnswer) answer = {0};
    const char *range;
    guint64 from, to;

    *ret_known = false;
    if (!registry_ask(u->r, &request, NULL, &answer, error))
        return false;
    range = http_answer_header(&answer, "range");
    if (answer.trouble || answer.status / 100 != 2 || !range)
        return true;
    if (g_str_has_prefix(range, "bytes="))
        range += strlen("bytes=");
    if (sscanf(range, "%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT, &from, &to) != 2 || from != 0 || to == 0 || to >= u->size)
        return true;
    u->at = to + 1;
    *ret_known = true;
    return take_location(u, &answer, error);
}

/* *ret_broken: look how far it came. */
static bool send_rest(Upload *u, bool *ret_broken, HttpAnswer *answer, GError **error)
{
    g_autofree char *range = g_strdup_printf("Content-Range: %" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT, u->at, u->size - 1);
    const char *headers[] = {"Content-Type: application/octet-stream", range, NULL};
    HttpRequest request = {.method = "PATCH", .url = u->url, .headers = headers, .has_body = true, .body_fd = u->fd, .body_offset = u->at,
                           .body_size = u->size - u->at, .on_sent = on_sent, .arg = u};

    *ret_broken = false;
    if (!registry_request(u->r, &request, NULL, answer, error))
        return false;
    if (http_answer_is_transient(answer) || answer->status == 416 || answer->status == 404 || answer->status == 401) {
        *ret_broken = true;
        return true;
    }
    if (answer->trouble || answer->status / 100 != 2)
        return registry_fail(u->r, answer, "uploading a blob", error);
    u->at = u->size;
    show_progress(u, u->at);
    return take_location(u, answer, error);
}

static char *closing_url(const Upload *u)
{
    char oci[DIGEST_OCI_SIZE];

    return g_strdup_printf("%s%sdigest=%s", u->url, strchr(u->url, '?') ? "&" : "?", digest_to_oci(u->digest, oci));
}

/* Closes, with all that is left in the body. */
static bool finish(Upload *u, bool *ret_broken, HttpAnswer *answer, GError **error)
{
    g_autofree char *url = closing_url(u);
    g_autofree char *range = u->at < u->size ? g_strdup_printf("Content-Range: %" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT, u->at, u->size - 1) : NULL;
    const char *headers[] = {"Content-Type: application/octet-stream", range, NULL};
    HttpRequest request = {.method = "PUT", .url = url, .headers = headers, .has_body = true, .body = u->at == u->size ? "" : NULL, .body_fd = u->fd,
                           .body_offset = u->at, .body_size = u->size - u->at, .on_sent = on_sent, .arg = u};

    *ret_broken = false;
    if (!registry_request(u->r, &request, NULL, answer, error))
        return false;
    /* 400: what arrived is not what was sent, as when a part came twice over a line that broke. */
    u->spoilt = !answer->trouble && answer->status == 400;
    if (http_answer_is_transient(answer) || u->spoilt || (!answer->trouble && (answer->status == 404 || answer->status == 416 || answer->status == 401))) {
        *ret_broken = true;
        return true;
    }
    if (answer->trouble || answer->status / 100 != 2)
        return registry_fail(u->r, answer, "finishing an upload", error);
    show_progress(u, u->size);
    return true;
}

/* The upload as a whole, in as many tries as gain something. */
static bool upload(Upload *u, GError **error)
{
    HttpPatience patience = {0};
    bool done = false, broken = false, known, there;
    uint64_t best = 0;

    if (!start(u, &done, error) || done)
        return done;
    for (;;) {
        g_auto(HttpAnswer) answer = {0};
        uint64_t before = u->at;

        if (u->size <= SMALL && u->at == 0) {
            if (!finish(u, &broken, &answer, error))
                return false;
        } else {
            if (u->at < u->size && !send_rest(u, &broken, &answer, error))
                return false;
            if (u->at == u->size && !finish(u, &broken, &answer, error))
                return false;
        }
        if (!broken)
            return true;
        /* It may have come to its end, and only the answer been lost. */
        if (!registry_has_blob(u->r, u->digest, &there, error))
            return false;
        if (there)
            return true;
        known = false;
        if (!u->spoilt && !ask_how_far(u, &known, error))
            return false;
        if (!answer.trouble && !http_answer_is_transient(&answer))
            answer.trouble = g_strdup(u->spoilt               ? "the registry says that what it got does not have its digest"
                                      : answer.status == 401 ? "the registry refuses the token in the middle of an upload"
                                                             : "the registry has lost the upload");
        u->spoilt = false;
        best = MAX(best, before);
        if (!http_patience_wait(&patience, known && u->at > best, &answer, registry_place(u->r), error))
            return false;
        if (!known && !start(u, &done, error))
            return false;
        if (done)
            return true;
    }
}

bool registry_put_blob(Registry *r, const Digest *digest, uint64_t size, int fd, const char *from, Progress *progress, uint64_t *ret_sent, GError **error)
{
    Upload u = {.r = r, .digest = digest, .size = size, .fd = fd, .from = from, .progress = progress};
    uint64_t sent = 0;
    bool there, ok;

    u.sent = &sent;
    *ret_sent = 0;
    if (!registry_has_blob(r, digest, &there, error))
        return false;
    ok = there || upload(&u, error);
    g_free(u.url);
    if (ok) {
        show_progress(&u, size);
        *ret_sent = sent;
    }
    return ok;
}

bool registry_put_blob_bytes(Registry *r, const void *data, size_t size, Digest *ret_digest, GError **error)
{
    auto_fd int fd = memfd_create("kiln-upload", MFD_CLOEXEC);
    Digest digest;
    uint64_t sent = 0;
    bool ok;

    if (fd < 0 || (size > 0 && pwrite(fd, data, size, 0) != (ssize_t)size))
        return fail_errno(error, "make a temporary file in memory");
    digest_of(data, size, &digest);
    if (size <= UNASKED) {
        Upload u = {.r = r, .digest = &digest, .size = size, .fd = fd, .sent = &sent};

        ok = upload(&u, error);
        g_free(u.url);
    } else {
        ok = registry_put_blob(r, &digest, size, fd, NULL, NULL, &sent, error);
    }
    *ret_digest = digest;
    return ok;
}
