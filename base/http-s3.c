/* SPDX-License-Identifier: Apache-2.0 */
/*
 * S3 requests through libcurl's CURLOPT_AWS_SIGV4.
 *
 * x-amz-content-sha256 is always given by us: libcurl of Debian 12 would sign a streamed upload as "UNSIGNED-PAYLOAD", and the server could
 * not tell a body that was changed on the way.
 */
#include "base/http-s3.h"

#include "base/error.h"
#include "base/http-request.h"
#include "base/interrupt.h"
#include "base/log.h"

#include <curl/curl.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_S 20L
#define STALL_TIMEOUT_S 60L
#define HEADER_MAX 1024

struct HttpS3 {
    CURL *curl;
};

typedef struct Exchange {
    const HttpS3Request *request;
    HttpS3Answer *answer;
    CURL *curl;
    uint64_t sent;
    GError *error; /* of a callback */
} Exchange;

HttpS3 *http_s3_new(void)
{
    static gsize once;
    HttpS3 *s3 = g_new0(HttpS3, 1);

    if (g_once_init_enter(&once)) {
        (void)curl_global_init(CURL_GLOBAL_DEFAULT);
        g_once_init_leave(&once, 1);
    }
    s3->curl = curl_easy_init();
    if (!s3->curl)
        g_error("out of memory"); /* as GLib itself says it */
    return s3;
}

void http_s3_free(HttpS3 *s3)
{
    if (!s3)
        return;
    curl_easy_cleanup(s3->curl);
    g_free(s3);
}

void http_s3_answer_clear(HttpS3Answer *answer)
{
    g_free(answer->problem);
    g_free(answer->etag);
    if (answer->body)
        g_byte_array_unref(answer->body);
    *answer = (HttpS3Answer){0};
}

/* --- callbacks of curl --- */

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    Exchange *x = arg;
    size_t length = size * count;
    g_autofree char *line = g_strndup(data, MIN(length, HEADER_MAX));
    char *value = strchr(line, ':');

    if (!value || length > HEADER_MAX)
        return length;
    *value++ = '\0';
    g_strstrip(value);
    if (g_ascii_strcasecmp(line, "etag") == 0) {
        g_free(x->answer->etag);
        x->answer->etag = g_strdup(value);
    }
    return length;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    Exchange *x = arg;
    size_t length = size * count;
    long status = 0;

    (void)curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
    if (x->request->sink && status >= 200 && status < 300)
        return x->request->sink(data, length, x->request->arg, &x->error) ? length : 0;
    if (length > HTTP_S3_BODY_MAX - x->answer->body->len) {
        (void)fail(&x->error, "%s: answers with more than %zu bytes", x->request->url, HTTP_S3_BODY_MAX);
        return 0;
    }
    g_byte_array_append(x->answer->body, (const guint8 *)data, (guint)length);
    return length;
}

static size_t on_send(char *to, size_t size, size_t count, void *arg)
{
    Exchange *x = arg;
    const HttpS3Request *request = x->request;
    size_t length = (size_t)MIN(size * count, request->body_size - x->sent);
    ssize_t n = (ssize_t)length;

    if (request->body_fd < 0)
        memcpy(to, (const char *)request->body + x->sent, length);
    else
        n = pread(request->body_fd, to, length, (off_t)(request->body_offset + x->sent));
    if (n < 0 || (n == 0 && length > 0)) {
        (void)fail(&x->error, "a file that is being sent became shorter");
        return CURL_READFUNC_ABORT;
    }
    x->sent += (uint64_t)n;
    return (size_t)n;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
    Exchange *x = arg;

    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > x->request->body_size)
        return CURL_SEEKFUNC_FAIL;
    x->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static int on_tick(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up)
{
    return interrupt_requested() ? 1 : 0;
}

/* --- one exchange --- */

static struct curl_slist *make_headers(const HttpS3Signer *signer, const HttpS3Request *request)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *token = signer->session_token ? g_strdup_printf("X-Amz-Security-Token: %s", signer->session_token) : NULL;
    g_autofree char *sum = NULL;
    struct curl_slist *headers = NULL;
    Digest digest;

    if (request->body_digest)
        digest = *request->body_digest;
    else
        digest_of(request->body ? request->body : "", request->body ? (size_t)request->body_size : 0, &digest);
    sum = g_strdup_printf("X-Amz-Content-Sha256: %s", digest_to_hex(&digest, hex));
    headers = curl_slist_append(headers, sum);
    if (token)
        headers = curl_slist_append(headers, token);
    for (const char *const *header = request->headers; header && *header; header++)
        headers = curl_slist_append(headers, *header);
    return headers;
}

static void set_method(Exchange *x)
{
    const HttpS3Request *request = x->request;
    CURL *curl = x->curl;

    if (strcmp(request->method, "HEAD") == 0) {
        (void)curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    } else if (strcmp(request->method, "PUT") == 0) {
        (void)curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        (void)curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_size);
        (void)curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_send);
        (void)curl_easy_setopt(curl, CURLOPT_READDATA, x);
        (void)curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, on_seek);
        (void)curl_easy_setopt(curl, CURLOPT_SEEKDATA, x);
    } else if (strcmp(request->method, "POST") == 0) {
        (void)curl_easy_setopt(curl, CURLOPT_POST, 1L);
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size);
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request->body ? request->body : "");
    } else if (strcmp(request->method, "DELETE") == 0) {
        (void)curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, "DELETE");
    }
}

static void configure(Exchange *x, const HttpS3Signer *signer, const struct curl_slist *headers, char *message)
{
    g_autofree char *scope = g_strdup_printf("aws:amz:%s:s3", signer->region), *login = g_strdup_printf("%s:%s", signer->access_key, signer->secret_key);
    CURL *curl = x->curl;

    curl_easy_reset(curl); /* connections stay */
    (void)curl_easy_setopt(curl, CURLOPT_URL, x->request->url);
    (void)curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, message);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(curl, CURLOPT_USERAGENT, "kiln");
    (void)curl_easy_setopt(curl, CURLOPT_AWS_SIGV4, scope);
    (void)curl_easy_setopt(curl, CURLOPT_USERPWD, login);
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
    (void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, STALL_TIMEOUT_S);
    (void)curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_tick);
    (void)curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(curl, CURLOPT_HEADERDATA, x);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
    if (signer->ca_file)
        (void)curl_easy_setopt(curl, CURLOPT_CAINFO, signer->ca_file);
    if (http_url_is_loopback(x->request->url))
        (void)curl_easy_setopt(curl, CURLOPT_NOPROXY, "*"); /* a proxy's loopback is not ours */
    set_method(x);
}

static bool may_pass(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

static bool judge(Exchange *x, CURLcode code, const char *message, GError **error)
{
    HttpS3Answer *answer = x->answer;
    curl_off_t retry_after = 0, length = -1;
    long status = 0;

    (void)curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(x->curl, CURLINFO_RETRY_AFTER, &retry_after);
    (void)curl_easy_getinfo(x->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    trace("base.http", "%s %s: curl %d, status %ld", x->request->method, x->request->url, (int)code, status);
    if (!interrupt_check(error)) {
        g_clear_error(&x->error);
        return false;
    }
    if (x->error) {
        g_propagate_error(error, g_steal_pointer(&x->error));
        return false;
    }
    answer->retry_after = retry_after > 0 ? (double)retry_after : 0;
    answer->length = length > 0 ? (uint64_t)length : 0;
    if (code == CURLE_OK) {
        answer->status = (int)status;
    } else {
        answer->may_try_again = may_pass(code);
        answer->problem = g_strdup(*message ? message : curl_easy_strerror(code));
    }
    return true;
}

bool http_s3_perform(HttpS3 *s3, const HttpS3Signer *signer, const HttpS3Request *request, HttpS3Answer *ret, GError **error)
{
    char message[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers = make_headers(signer, request);
    Exchange x = {.request = request, .answer = ret, .curl = s3->curl};
    bool ok;

    *ret = (HttpS3Answer){.body = g_byte_array_new()};
    configure(&x, signer, headers, message);
    ok = judge(&x, curl_easy_perform(s3->curl), message, error);
    curl_slist_free_all(headers);
    return ok;
}
