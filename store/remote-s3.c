/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A remote in a bucket, of Amazon or of whoever speaks its protocol: s3://BUCKET/PREFIX.
 *
 * With an endpoint of one's own the bucket is the first part of the path, else it is the host's first part. Keys need no encoding in paths.
 *
 * Retries: what may pass (no connection, a cut one, 429, 5xx, SlowDown) is asked again after 0.25, 0.5, 1 ... s or what the server says, up to
 * ATTEMPTS times without gain. A get goes on where it was cut, under If-Match, so its two halves are of one object.
 *
 * Objects over part_size go in parts. A put is visible when it is complete, and not before; what a killed one leaves are parts that nobody sees, which
 * a rule of the bucket should take away after a day (kiln-store(5)).
 */
#include "store/remote-members.h"

#include "base/error.h"
#include "base/http-request.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/units.h"
#include "store/s3-account.h"
#include "store/s3-answer.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#define ATTEMPTS 7
#define FIRST_DELAY_S 0.25
#define DELAY_MAX_S 30.0
#define PART_SIZE ((uint64_t)32 << 20)
#define BODY_MAX ((size_t)8 << 20) /* of answers that are kept */
#define PARTS_MAX 10000
#define PUT_MAX ((uint64_t)PARTS_MAX * PART_SIZE)

typedef struct S3Remote {
    S3Account account;
    HttpSigner signer;
    HttpClient *http;
    char *base;   /* URL of the bucket, with a slash behind */
    char *prefix; /* of all keys: "" or with a slash behind */
    char *shown;  /* for messages: s3://BUCKET */
    uint64_t part_size;
    bool no_conditions; /* this server knows no If-None-Match */
} S3Remote;

/* --- opening --- */

static void s3_close(void *self)
{
    S3Remote *r = self;

    s3_account_clear(&r->account);
    http_client_free(r->http);
    g_free(r->base);
    g_free(r->prefix);
    g_free(r->shown);
    g_free(r);
}

static bool bucket_is_fit(const char *bucket)
{
    size_t n = strlen(bucket);

    for (const char *c = bucket; *c; c++)
        if (!g_ascii_isalnum(*c) && !strchr(".-_", *c))
            return false;
    return n >= 3 && n <= 63 && g_ascii_isalnum(*bucket);
}

static bool prefix_is_fit(const char *prefix)
{
    char last = '/';

    for (const char *c = prefix; *c; last = *c++)
        if (!g_ascii_isalnum(*c) && !strchr("_-./", *c) && last != '/')
            return false;
        else if ((*c == '/' || *c == '.') && last == '/')
            return false;
    return strlen(prefix) <= 200;
}

static bool is_this_machine(const char *host)
{
    g_autofree char *name = g_strndup(host, *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/"));

    return http_host_is_loopback(name);
}

static bool endpoint_is_safe(const char *endpoint, bool plain_http)
{
    if (strpbrk(endpoint, "@?#"))
        return false;
    return g_str_has_prefix(endpoint, "https://") ||
           (g_str_has_prefix(endpoint, "http://") && (plain_http || is_this_machine(endpoint + strlen("http://"))));
}

static bool make_base(S3Remote *r, const char *bucket, bool plain_http, GError **error)
{
    const char *endpoint = r->account.endpoint;

    if (!endpoint) {
        bool dotted = strchr(bucket, '.'); /* no certificate fits such a host */

        r->base = dotted ? g_strdup_printf("https://s3.%s.amazonaws.com/%s/", r->account.region, bucket)
                         : g_strdup_printf("https://%s.s3.%s.amazonaws.com/", bucket, r->account.region);
        return true;
    }
    if (!endpoint_is_safe(endpoint, plain_http))
        return fail_code(error, KILN_ERROR_USAGE, "the endpoint '%s' is not https://: give --plain-http where that is meant", endpoint);
    r->base = g_strdup_printf("%s%s%s/", endpoint, g_str_has_suffix(endpoint, "/") ? "" : "/", bucket);
    return true;
}

/* Tests need no 64 MiB for two parts. */
static uint64_t part_size(void)
{
    const char *text = g_getenv("KILN_TEST_S3_PART");
    uint64_t size;

    return text && units_parse_size(text, &size, NULL) && size > 0 ? size : PART_SIZE;
}

static bool s3_open(const char *location, const RemoteOptions *options, void **ret, GError **error)
{
    const char *bucket = location + strlen("s3:");
    g_autofree char *name = NULL, *prefix = NULL;
    S3Remote *r;

    bucket += g_str_has_prefix(bucket, "//") ? 2 : strlen(bucket);
    name = g_strndup(bucket, strcspn(bucket, "/"));
    prefix = g_strdup(bucket + strlen(name) + (bucket[strlen(name)] == '/'));
    while (g_str_has_suffix(prefix, "/"))
        prefix[strlen(prefix) - 1] = '\0';
    if (!bucket_is_fit(name) || !prefix_is_fit(prefix))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is not of the form s3://BUCKET/PREFIX, with letters, digits and . _ - in both", location);
    r = g_new0(S3Remote, 1);
    *ret = r;
    r->prefix = g_strconcat(prefix, *prefix ? "/" : "", NULL);
    r->shown = g_strdup_printf("s3://%s", name);
    r->part_size = part_size();
    if (!s3_account_find(&r->account, error) || !make_base(r, name, options->plain_http, error))
        return false;
    r->signer = (HttpSigner){.access_key = r->account.access_key, .secret_key = r->account.secret_key, .region = r->account.region};
    r->http = http_client_new(&(HttpTls){.ca_file = r->account.ca_file, .ca_alone = true});
    return true;
}

/* --- asking, again if need be --- */

typedef struct Ask {
    HttpRequest request;
    const Digest *body_digest; /* NULL: is computed, of a body in memory */
    const char *key;           /* for messages */
} Ask;

/*
 * x-amz-content-sha256 is always given by us: libcurl of Debian 12 would sign a streamed upload as "UNSIGNED-PAYLOAD", and the server could not tell a
 * body that was changed on the way.
 */
static bool perform(S3Remote *r, const Ask *a, HttpAnswer *ret, GError **error)
{
    g_autofree char *token = r->account.session_token ? g_strconcat("X-Amz-Security-Token: ", r->account.session_token, NULL) : NULL, *sum = NULL;
    g_autoptr(GPtrArray) headers = g_ptr_array_new();
    HttpRequest request = a->request;
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    if (a->body_digest)
        digest = *a->body_digest;
    else
        digest_of(request.body ? request.body : "", request.body ? (size_t)request.body_size : 0, &digest);
    sum = g_strconcat("X-Amz-Content-Sha256: ", digest_to_hex(&digest, hex), NULL);
    g_ptr_array_add(headers, sum);
    if (token)
        g_ptr_array_add(headers, token);
    for (const char *const *header = request.headers; header && *header; header++)
        g_ptr_array_add(headers, (char *)*header);
    g_ptr_array_add(headers, NULL);
    request.headers = (const char *const *)headers->pdata;
    request.signer = &r->signer;
    request.max_body = BODY_MAX;
    return http_request(r->http, &request, ret, error);
}

/* 0: no answer, or none to its end. */
static int status_of(const HttpAnswer *answer)
{
    return answer->trouble ? 0 : answer->status;
}

static bool is_transient(int status, const char *code)
{
    return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 || status == 504 ||
           (status == 400 && g_strcmp0(code, "RequestTimeout") == 0);
}

static bool parse_body(const HttpAnswer *answer, S3Answer *ret, GError **error)
{
    gsize size;
    const void *data = g_bytes_get_data(answer->body, &size);

    return s3_answer_parse(data, size, ret, error);
}

static void parse_error(const HttpAnswer *answer, S3Answer *ret)
{
    *ret = (S3Answer){0};
    if (status_of(answer) >= 300 && g_bytes_get_size(answer->body) > 0)
        (void)parse_body(answer, ret, NULL); /* a proxy's page has no code, that is all */
}

/* Not all clients at the same moment again. Tests wait less. */
static double delay(unsigned attempt, double retry_after)
{
    const char *text = g_getenv("KILN_TEST_S3_DELAY");
    double first = text ? g_ascii_strtod(text, NULL) : FIRST_DELAY_S;

    return MAX(first * (1 << (attempt - 1)) * g_random_double_range(0.75, 1.25), MIN(retry_after, DELAY_MAX_S));
}

static bool wait_to_retry(double seconds, GError **error)
{
    struct pollfd wait = {interrupt_fd(), POLLIN, 0};

    (void)poll(&wait, 1, (int)(seconds * 1000));
    return interrupt_check(error);
}

static char *describe(const HttpAnswer *answer, const S3Answer *said)
{
    g_autofree char *message = said->message ? printable_line(said->message) : NULL, *code = said->code ? printable_line(said->code) : NULL;

    if (answer->trouble)
        return g_strdup(answer->trouble);
    if (code)
        return g_strdup_printf("server answered %d (%s%s%s)", answer->status, code, message && *message ? ": " : "", message ? message : "");
    return g_strdup_printf("server answered %d", answer->status);
}

/* True: an answer that no waiting will change is in *ret. */
static bool ask(S3Remote *r, Ask *a, HttpAnswer *ret, GError **error)
{
    for (unsigned attempt = 1;; attempt++) {
        g_auto(S3Answer) said = {0};
        g_autofree char *what = NULL;
        double wait;

        if (!perform(r, a, ret, error))
            return false;
        parse_error(ret, &said);
        if (ret->trouble ? ret->hopeless : !is_transient(ret->status, said.code))
            return !ret->trouble || fail(error, "%s: %s", r->shown, ret->trouble);
        what = describe(ret, &said);
        if (attempt >= ATTEMPTS)
            return fail(error, "%s: %s '%s': %s; given up after %u attempts", r->shown, a->request.method, a->key, what, attempt);
        wait = delay(attempt, ret->retry_after);
        log_verbose("%s: %s '%s': %s; trying again in %.1f s", r->shown, a->request.method, a->key, what, wait);
        if (!wait_to_retry(wait, error))
            return false;
    }
}

static bool fail_answer(S3Remote *r, const Ask *a, const HttpAnswer *answer, GError **error)
{
    g_auto(S3Answer) said = {0};
    g_autofree char *what = NULL;

    parse_error(answer, &said);
    what = describe(answer, &said);
    if (answer->status == 404 && g_strcmp0(said.code, "NoSuchBucket") != 0)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "%s has no object '%s'", r->shown, a->key);
    return fail(error, "%s: %s '%s': %s", r->shown, a->request.method, a->key, what);
}

static char *url_of(const S3Remote *r, const char *key, const char *query)
{
    return g_strconcat(r->base, r->prefix, key, query ? "?" : NULL, query, NULL);
}

/* --- get --- */

typedef struct Get {
    S3Remote *r;
    RemoteSinkFn *sink;
    void *arg;
    uint64_t offset, size, had;
    char *etag, *range, *match;
    const char *headers[3];
} Get;

static void get_clear(Get *g)
{
    g_free(g->etag);
    g_free(g->range);
    g_free(g->match);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Get, get_clear)

static bool on_piece(const void *data, size_t size, void *arg, GError **error)
{
    Get *g = arg;

    if (g->size != UINT64_MAX && size > g->size - g->had)
        return fail(error, "%s sends more than it was asked for", g->r->shown);
    g->had += size;
    return g->sink(data, size, g->arg, error);
}

static void set_range(Get *g)
{
    uint64_t from = g->offset + g->had;
    unsigned n = 0;

    g_clear_pointer(&g->range, g_free);
    g_clear_pointer(&g->match, g_free);
    if (g->size != UINT64_MAX)
        g->range = g_strdup_printf("Range: bytes=%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT, from, g->offset + g->size - 1);
    else if (from > 0)
        g->range = g_strdup_printf("Range: bytes=%" G_GUINT64_FORMAT "-", from);
    if (g->had > 0)
        g->match = g_strdup_printf("If-Match: %s", g->etag);
    if (g->range)
        g->headers[n++] = g->range;
    if (g->match)
        g->headers[n++] = g->match;
    g->headers[n] = NULL;
}

/* One request; *ret_done false: it was cut after it had brought something. */
static bool get_once(S3Remote *r, Get *g, const char *key, bool *ret_done, unsigned *in_a_row, GError **error)
{
    g_autofree char *url = url_of(r, key, NULL);
    g_auto(HttpAnswer) answer = {0};
    Ask a = {.key = key};
    uint64_t before = g->had;
    int status;

    set_range(g);
    a.request = (HttpRequest){.method = "GET", .url = url, .headers = g->headers, .on_body = on_piece, .arg = g};
    *ret_done = false;
    if (!perform(r, &a, &answer, error))
        return false;
    status = status_of(&answer);
    if (g->had == 0 || !g->etag) {
        g_free(g->etag);
        g->etag = g_strdup(http_answer_header(&answer, "etag"));
    }
    if (status == 200 && g->range && g->had > before)
        return fail(error, "%s: sends the whole of '%s' when asked for a part", r->shown, key);
    if (status == 200 || status == 206) {
        *ret_done = true;
        return true;
    }
    if (status == 416 && g->size == UINT64_MAX) { /* nothing is behind what we have */
        *ret_done = true;
        return true;
    }
    if (answer.trouble ? answer.hopeless : !is_transient(status, NULL))
        return answer.trouble ? fail(error, "%s: %s", r->shown, answer.trouble) : fail_answer(r, &a, &answer, error);
    if (g->had > 0 && !g->etag)
        return fail(error, "%s: '%s' was cut off, and has no ETag to go on by", r->shown, key);
    *in_a_row = g->had > before ? 1 : *in_a_row + 1;
    if (*in_a_row > ATTEMPTS)
        return fail(error, "%s: GET '%s': %s; given up after %u attempts", r->shown, key, answer.trouble ? answer.trouble : "server is not able to answer",
                    ATTEMPTS);
    return wait_to_retry(delay(*in_a_row, answer.retry_after), error);
}

static bool s3_get(void *self, const char *key, uint64_t offset, uint64_t size, RemoteSinkFn *sink, void *arg, GError **error)
{
    g_auto(Get) g = {.r = self, .sink = sink, .arg = arg, .offset = offset, .size = size};
    unsigned in_a_row = 0;
    bool done = false;

    while (!done)
        if (!get_once(self, &g, key, &done, &in_a_row, error))
            return false;
    return true;
}

/* --- head --- */

static bool s3_head(void *self, const char *key, bool *ret_there, uint64_t *ret_size, GError **error)
{
    S3Remote *r = self;
    g_autofree char *url = url_of(r, key, NULL);
    g_auto(HttpAnswer) answer = {0};
    const char *length;
    Ask a = {.key = key, .request = {.method = "HEAD", .url = url}};

    if (!ask(r, &a, &answer, error))
        return false;
    length = http_answer_header(&answer, "content-length");
    *ret_there = answer.status == 200;
    *ret_size = length ? g_ascii_strtoull(length, NULL, 10) : 0;
    return answer.status == 200 || answer.status == 404 || fail_answer(r, &a, &answer, error);
}

/* --- put --- */

static bool put_simple(S3Remote *r, const char *key, const RemoteBody *body, bool if_absent, bool *ret_new, GError **error)
{
    static const char *const condition[] = {"If-None-Match: *", NULL};
    g_autofree char *url = url_of(r, key, NULL);
    g_auto(HttpAnswer) answer = {0};
    Ask a = {.key = key,
             .body_digest = &body->digest,
             .request = {.method = "PUT",
                         .url = url,
                         .headers = if_absent && !r->no_conditions ? condition : NULL,
                         .has_body = true,
                         .body_fd = body->fd,
                         .body = body->fd < 0 ? body->data : NULL,
                         .body_size = body->size}};

    if (!ask(r, &a, &answer, error))
        return false;
    if (if_absent && !r->no_conditions && (answer.status == 501 || answer.status == 400)) {
        r->no_conditions = true;
        return put_simple(r, key, body, if_absent, ret_new, error);
    }
    *ret_new = answer.status == 200;
    return answer.status == 200 || (if_absent && (answer.status == 412 || answer.status == 409)) || fail_answer(r, &a, &answer, error);
}

static bool expect_answer(S3Remote *r, const Ask *a, const HttpAnswer *answer, S3Answer *ret, GError **error)
{
    if (answer->status != 200)
        return fail_answer(r, a, answer, error);
    if (!parse_body(answer, ret, error))
        return fail_prefix(error, "%s", r->shown);
    /* "200" and then an error in the body: completing may take longer than a server wants to wait with its status. */
    return g_strcmp0(ret->root, "Error") != 0 || fail(error, "%s: %s '%s': %s", r->shown, a->request.method, a->key, ret->code ? ret->code : "error");
}

static bool start_upload(S3Remote *r, const char *key, char **ret_id, GError **error)
{
    g_autofree char *url = url_of(r, key, "uploads=");
    g_auto(HttpAnswer) answer = {0};
    g_auto(S3Answer) said = {0};
    Ask a = {.key = key, .request = {.method = "POST", .url = url, .has_body = true}};

    if (!ask(r, &a, &answer, error) || !expect_answer(r, &a, &answer, &said, error))
        return false;
    if (!said.upload_id || !*said.upload_id)
        return fail(error, "%s: began no upload of '%s'", r->shown, key);
    *ret_id = g_uri_escape_string(said.upload_id, NULL, FALSE);
    return true;
}

static bool digest_part(const RemoteBody *body, uint64_t offset, uint64_t size, Digest *ret, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    g_autofree uint8_t *buf = g_malloc(1 << 20);

    if (body->fd < 0) {
        digest_of((const uint8_t *)body->data + offset, (size_t)size, ret);
        return true;
    }
    for (uint64_t at = 0; at < size; at += 1 << 20) {
        ssize_t n = pread(body->fd, buf, (size_t)MIN(size - at, 1 << 20), (off_t)(offset + at));

        if (n != (ssize_t)MIN(size - at, 1 << 20))
            return fail(error, "a file that is being sent became shorter");
        digest_stream_update(stream, buf, (size_t)n);
    }
    digest_stream_final(stream, ret);
    return true;
}

static bool put_part(S3Remote *r, const char *key, const char *id, const RemoteBody *body, unsigned number, GString *list, GError **error)
{
    g_autofree char *query = g_strdup_printf("partNumber=%u&uploadId=%s", number, id), *url = url_of(r, key, query), *escaped = NULL;
    const char *etag;
    uint64_t offset = (uint64_t)(number - 1) * r->part_size, size = MIN(r->part_size, body->size - offset);
    g_auto(HttpAnswer) answer = {0};
    Digest digest;
    Ask a = {.key = key,
             .body_digest = &digest,
             .request = {.method = "PUT",
                         .url = url,
                         .has_body = true,
                         .body_fd = body->fd,
                         .body = body->fd < 0 ? (const uint8_t *)body->data + offset : NULL,
                         .body_offset = offset,
                         .body_size = size}};

    if (!interrupt_check(error) || !digest_part(body, offset, size, &digest, error) || !ask(r, &a, &answer, error))
        return false;
    etag = http_answer_header(&answer, "etag");
    if (answer.status != 200 || !etag)
        return fail_answer(r, &a, &answer, error);
    escaped = g_markup_escape_text(etag, -1);
    g_string_append_printf(list, "<Part><PartNumber>%u</PartNumber><ETag>%s</ETag></Part>", number, escaped);
    return true;
}

static bool complete_upload(S3Remote *r, const char *key, const char *id, const GString *list, GError **error)
{
    static const char *const headers[] = {"Content-Type: application/xml", NULL};
    g_autofree char *query = g_strdup_printf("uploadId=%s", id), *url = url_of(r, key, query);
    g_auto(HttpAnswer) answer = {0};
    g_auto(S3Answer) said = {0};
    Ask a = {.key = key,
             .request = {.method = "POST", .url = url, .headers = headers, .has_body = true, .body = list->str, .body_size = list->len}};

    return ask(r, &a, &answer, error) && expect_answer(r, &a, &answer, &said, error);
}

static void abort_upload(S3Remote *r, const char *key, const char *id)
{
    g_autofree char *query = g_strdup_printf("uploadId=%s", id), *url = url_of(r, key, query);
    g_auto(HttpAnswer) answer = {0};
    Ask a = {.key = key, .request = {.method = "DELETE", .url = url}};

    (void)perform(r, &a, &answer, NULL); /* once: the bucket's rule is there for the rest */
}

static bool put_parts(S3Remote *r, const char *key, const RemoteBody *body, GError **error)
{
    g_autoptr(GString) list = g_string_new("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    unsigned count = (unsigned)((body->size + r->part_size - 1) / r->part_size);
    g_autofree char *id = NULL;
    bool ok = true;

    if (!start_upload(r, key, &id, error))
        return false;
    for (unsigned number = 1; ok && number <= count; number++)
        ok = put_part(r, key, id, body, number, list, error);
    g_string_append(list, "</CompleteMultipartUpload>");
    ok = ok && complete_upload(r, key, id, list, error);
    if (!ok)
        abort_upload(r, key, id);
    return ok;
}

static bool s3_put(void *self, const char *key, const RemoteBody *body, bool if_absent, bool *ret_new, GError **error)
{
    S3Remote *r = self;
    bool there = false;
    uint64_t size;

    if (body->size > PUT_MAX || body->size > PARTS_MAX * r->part_size)
        return fail(error, "%s: '%s' is too large for an object", r->shown, key);
    /* Asked first: a body that is not needed is not sent. */
    if (if_absent && body->size > 4096 && !s3_head(r, key, &there, &size, error))
        return false;
    *ret_new = !there;
    if (there)
        return true;
    return body->size > r->part_size ? put_parts(r, key, body, error) : put_simple(r, key, body, if_absent, ret_new, error);
}

/* --- list and remove --- */

static bool take_entries(S3Remote *r, S3Answer *said, GPtrArray *to, GError **error)
{
    for (guint i = 0; i < said->entries->len; i++) {
        const RemoteEntry *entry = said->entries->pdata[i];

        if (!g_str_has_prefix(entry->key, r->prefix))
            return fail(error, "%s: lists what it was not asked for", r->shown);
        g_ptr_array_add(to, remote_entry_new(entry->key + strlen(r->prefix), entry->size, entry->changed));
    }
    return true;
}

static bool s3_list(void *self, const char *prefix, const char *after, GPtrArray *to, bool *ret_more, GError **error)
{
    S3Remote *r = self;
    g_autofree char *whole = g_strconcat(r->prefix, prefix, NULL), *start = after ? g_strconcat(r->prefix, after, NULL) : NULL;
    g_autofree char *prefix_code = g_uri_escape_string(whole, NULL, FALSE), *start_code = start ? g_uri_escape_string(start, NULL, FALSE) : NULL;
    g_autofree char *url = g_strdup_printf("%s?list-type=2&max-keys=%d&prefix=%s%s%s", r->base, REMOTE_PAGE, prefix_code, start ? "&start-after=" : "",
                                           start ? start_code : "");
    g_auto(HttpAnswer) answer = {0};
    g_auto(S3Answer) said = {0};
    Ask a = {.key = prefix, .request = {.method = "GET", .url = url}};

    if (!ask(r, &a, &answer, error) || !expect_answer(r, &a, &answer, &said, error))
        return false;
    *ret_more = said.truncated;
    return take_entries(r, &said, to, error);
}

static bool s3_remove(void *self, const char *key, GError **error)
{
    S3Remote *r = self;
    g_autofree char *url = url_of(r, key, NULL);
    g_auto(HttpAnswer) answer = {0};
    Ask a = {.key = key, .request = {.method = "DELETE", .url = url}};

    return ask(r, &a, &answer, error) &&
           (answer.status == 204 || answer.status == 200 || answer.status == 404 || fail_answer(r, &a, &answer, error));
}

const RemoteOps remote_s3_ops = {
    .scheme = "s3",
    .example = "s3://BUCKET/PREFIX",
    .open = s3_open,
    .close = s3_close,
    .get = s3_get,
    .put = s3_put,
    .head = s3_head,
    .list = s3_list,
    .remove = s3_remove,
};
