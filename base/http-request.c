/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests with libcurl. Handles are kept for reuse, and with them their connections; which of them a thread gets does not matter, as
 * everything but connections and names is set anew for each request.
 */
#include "base/http-request.h"

#include "base/error.h"
#include "base/http-curl.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#define HEADERS_MAX 128
#define HEADER_MAX 16384
#define BODY_MAX 65536
#define REDIRECTS_MAX 10L
#define CONNECT_TIMEOUT_S 30L
#define STALL_TIMEOUT_S 60L
#define RETRY_AFTER_MAX_S 60
#define FIRST_DELAY_S 0.25
#define DELAY_MAX_S 8.0
#define DELAY_CUT_S 1.0
#define PATIENCE_S 60.0
#define PATIENCE_MAX_S 86400.0
#define ATTEMPTS_WITHOUT_GAIN 7
#define ATTEMPTS_TO_CONNECT 3
#define ATTEMPTS_IN_ALL 1000
#define IDLE_MAX 8

struct HttpClient {
    GMutex lock;
    GQueue idle; /* of CURL* */
    char *ca_file, *cert_file, *key_file;
    char *ca_bundle; /* the system's and ours in one */
    bool answered;   /* once, and not by a refusal */
};

/* --- the client --- */

CURL *http_curl_new(void)
{
    static gsize once;
    CURL *curl;

    if (g_once_init_enter(&once)) {
        (void)curl_global_init(CURL_GLOBAL_DEFAULT);
        g_once_init_leave(&once, 1);
    }
    curl = curl_easy_init();
    if (!curl)
        g_error("out of memory"); /* as GLib itself says it */
    return curl;
}

/* curl takes one file, and what the system trusts is to stay trusted. */
static char *join_bundle(const char *ca_file)
{
    static const char system_bundle[] = "/etc/ssl/certs/ca-certificates.crt";
    g_autofree char *ours = NULL, *theirs = NULL;

    if (!g_file_get_contents(ca_file, &ours, NULL, NULL))
        return NULL; /* curl says what is wrong with it */
    if (!g_file_get_contents(system_bundle, &theirs, NULL, NULL))
        return g_steal_pointer(&ours);
    return g_strconcat(ours, "\n", theirs, NULL);
}

HttpClient *http_client_new(const HttpTls *tls)
{
    HttpClient *client = g_new0(HttpClient, 1);

    g_mutex_init(&client->lock);
    g_queue_init(&client->idle);
    if (tls) {
        client->ca_file = g_strdup(tls->ca_file);
        client->cert_file = g_strdup(tls->cert_file);
        client->key_file = g_strdup(tls->key_file);
        client->ca_bundle = tls->ca_file && !tls->ca_alone ? join_bundle(tls->ca_file) : NULL;
    }
    return client;
}

void http_client_free(HttpClient *client)
{
    if (!client)
        return;
    for (GList *item = client->idle.head; item; item = item->next)
        curl_easy_cleanup(item->data);
    g_queue_clear(&client->idle);
    g_mutex_clear(&client->lock);
    g_free(client->ca_file);
    g_free(client->cert_file);
    g_free(client->key_file);
    g_free(client->ca_bundle);
    g_free(client);
}

static CURL *take_handle(HttpClient *client, bool *ret_known)
{
    CURL *curl;

    AUTO_LOCK(&client->lock);
    *ret_known = client->answered;
    curl = g_queue_pop_head(&client->idle);
    return curl ? curl : http_curl_new();
}

static void give_back(HttpClient *client, CURL *curl, const HttpAnswer *answer)
{
    curl_easy_reset(curl); /* keeps connections */
    AUTO_LOCK(&client->lock);
    client->answered = client->answered || (answer->status > 0 && answer->status != 400 && !http_status_passes(answer->status));
    if (g_queue_get_length(&client->idle) < IDLE_MAX)
        g_queue_push_head(&client->idle, curl);
    else
        curl_easy_cleanup(curl);
}

/* --- answers --- */

void http_answer_clear(HttpAnswer *answer)
{
    g_clear_pointer(&answer->headers, g_hash_table_unref);
    g_clear_pointer(&answer->body, g_bytes_unref);
    g_clear_pointer(&answer->trouble, g_free);
    g_clear_pointer(&answer->url, g_free);
    *answer = (HttpAnswer){0};
}

const char *http_answer_header(const HttpAnswer *answer, const char *name)
{
    return answer->headers ? g_hash_table_lookup(answer->headers, name) : NULL;
}

bool http_status_passes(long status)
{
    return status == 408 || status == 425 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

bool http_answer_is_transient(const HttpAnswer *answer)
{
    return answer->trouble ? !answer->hopeless : http_status_passes(answer->status);
}

char *http_answer_words(const HttpAnswer *answer)
{
    return answer->trouble ? g_strdup(answer->trouble) : g_strdup_printf("the server answered %d", answer->status);
}

/* --- one request --- */

typedef struct Transfer {
    const HttpRequest *request;
    HttpAnswer *answer;
    CURL *curl;
    GByteArray *body;
    uint64_t sent;
    bool begun;
    GError *error;
} Transfer;

static void add_header(HttpAnswer *answer, const char *line)
{
    const char *colon = strchr(line, ':'), *had;
    g_autofree char *name = colon ? g_ascii_strdown(line, colon - line) : NULL, *value = NULL;

    if (!name || g_hash_table_size(answer->headers) >= HEADERS_MAX)
        return;
    value = g_strstrip(g_strdup(colon + 1));
    had = g_hash_table_lookup(answer->headers, name);
    if (had) {
        char *both = strlen(had) + strlen(value) < HEADER_MAX ? g_strdup_printf("%s, %s", had, value) : g_strdup(had);

        g_hash_table_insert(answer->headers, g_steal_pointer(&name), both);
    } else {
        g_hash_table_insert(answer->headers, g_steal_pointer(&name), g_steal_pointer(&value));
    }
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    Transfer *t = arg;
    size_t length = size * count;
    g_autofree char *line = g_strndup(data, MIN(length, HEADER_MAX));

    if (g_str_has_prefix(line, "HTTP/")) /* each answer of a chain of redirects starts anew */
        g_hash_table_remove_all(t->answer->headers);
    else if (length <= HEADER_MAX)
        add_header(t->answer, line);
    return length;
}

static bool begin(Transfer *t)
{
    long status = 0;

    if (t->begun)
        return true;
    t->begun = true;
    (void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    t->answer->status = (int)status;
    return !t->request->on_begin || t->request->on_begin(t->answer, t->request->arg, &t->error);
}

static bool keep(Transfer *t, const char *data, size_t size)
{
    size_t max = t->request->max_body ? t->request->max_body : BODY_MAX, room = max - MIN(max, t->body->len);
    bool fits = size <= room;

    g_byte_array_append(t->body, (const guint8 *)data, (guint)MIN(size, room));
    if (fits || t->answer->status < 200 || t->answer->status > 299)
        return true;
    return fail(&t->error, "the server's answer is longer than the %zu bytes allowed", max);
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    Transfer *t = arg;
    bool good, ok = begin(t);

    good = t->answer->status >= 200 && t->answer->status < 300;
    if (ok && good && t->request->on_body)
        ok = t->request->on_body(data, size * count, t->request->arg, &t->error);
    else if (ok)
        ok = keep(t, data, size * count);
    return ok ? size * count : 0;
}

static size_t on_read(char *to, size_t size, size_t count, void *arg)
{
    Transfer *t = arg;
    const HttpRequest *r = t->request;
    size_t want = (size_t)MIN(size * count, r->body_size - t->sent);
    ssize_t got = (ssize_t)want;

    if (r->body)
        memcpy(to, (const char *)r->body + t->sent, want);
    else if (want > 0)
        got = pread(r->body_fd, to, want, (off_t)(r->body_offset + t->sent));
    if (got < 0 || (got == 0 && want > 0)) {
        (void)fail(&t->error, "cannot read what is to be sent");
        return CURL_READFUNC_ABORT;
    }
    t->sent += (uint64_t)got;
    if (r->on_sent)
        r->on_sent((uint64_t)got, r->arg);
    return (size_t)got;
}

/* When a connection that was kept turns out to be closed, curl sends the body again. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
    Transfer *t = arg;

    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > t->request->body_size)
        return CURL_SEEKFUNC_FAIL;
    t->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static int on_tick(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up)
{
    return interrupt_requested() ? 1 : 0;
}

bool http_host_is_loopback(const char *host)
{
    static const char *const exact[] = {"localhost", "[::1]", "::1"};

    for (size_t i = 0; i < G_N_ELEMENTS(exact); i++)
        if (g_ascii_strcasecmp(host, exact[i]) == 0)
            return true;
    return g_str_has_prefix(host, "127.") && g_hostname_is_ip_address(host);
}

static char *host_of(const char *url)
{
    CURLU *parsed = curl_url();
    char *host = NULL, *ret = NULL;

    if (parsed && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK && curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK)
        ret = g_strdup(host);
    curl_free(host);
    curl_url_cleanup(parsed);
    return ret;
}

bool http_url_is_loopback(const char *url)
{
    g_autofree char *host = host_of(url);

    return host && http_host_is_loopback(host);
}

static void configure_tls(const HttpClient *client, CURL *curl)
{
    if (client->ca_bundle) {
        struct curl_blob blob = {client->ca_bundle, strlen(client->ca_bundle), CURL_BLOB_COPY};

        (void)curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &blob);
    } else if (client->ca_file) {
        (void)curl_easy_setopt(curl, CURLOPT_CAINFO, client->ca_file);
    }
    if (client->cert_file)
        (void)curl_easy_setopt(curl, CURLOPT_SSLCERT, client->cert_file);
    if (client->key_file)
        (void)curl_easy_setopt(curl, CURLOPT_SSLKEY, client->key_file);
}

static void configure_body(Transfer *t)
{
    const HttpRequest *r = t->request;
    bool post = strcmp(r->method, "POST") == 0;

    (void)curl_easy_setopt(t->curl, CURLOPT_READFUNCTION, on_read);
    (void)curl_easy_setopt(t->curl, CURLOPT_READDATA, t);
    (void)curl_easy_setopt(t->curl, CURLOPT_SEEKFUNCTION, on_seek);
    (void)curl_easy_setopt(t->curl, CURLOPT_SEEKDATA, t);
    if (post) {
        (void)curl_easy_setopt(t->curl, CURLOPT_POST, 1L);
        (void)curl_easy_setopt(t->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_size);
    } else {
        (void)curl_easy_setopt(t->curl, CURLOPT_UPLOAD, 1L);
        (void)curl_easy_setopt(t->curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body_size);
        (void)curl_easy_setopt(t->curl, CURLOPT_CUSTOMREQUEST, r->method);
    }
    (void)curl_easy_setopt(t->curl, CURLOPT_UPLOAD_BUFFERSIZE, 512L * 1024);
}

static void configure_method(Transfer *t)
{
    const char *method = t->request->method;
    bool reads = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0, follows = reads && !t->request->signer;

    if (t->request->has_body)
        configure_body(t);
    else if (strcmp(method, "HEAD") == 0)
        (void)curl_easy_setopt(t->curl, CURLOPT_NOBODY, 1L);
    else if (!reads)
        (void)curl_easy_setopt(t->curl, CURLOPT_CUSTOMREQUEST, method);
    (void)curl_easy_setopt(t->curl, CURLOPT_FOLLOWLOCATION, follows ? 1L : 0L);
    (void)curl_easy_setopt(t->curl, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
}

static void configure_signer(Transfer *t, const HttpSigner *signer)
{
    g_autofree char *scope = g_strdup_printf("aws:amz:%s:s3", signer->region), *login = g_strdup_printf("%s:%s", signer->access_key, signer->secret_key);

    (void)curl_easy_setopt(t->curl, CURLOPT_AWS_SIGV4, scope);
    (void)curl_easy_setopt(t->curl, CURLOPT_USERPWD, login);
    (void)curl_easy_setopt(t->curl, CURLOPT_PATH_AS_IS, 1L);
}

/* libcurl signs each header of ours, and an "Expect:" without a value is none that a server sees. */
static struct curl_slist *make_headers(const HttpRequest *r)
{
    struct curl_slist *headers = r->signer ? NULL : curl_slist_append(NULL, "Expect:"); /* no second's wait before each upload */

    for (const char *const *h = r->headers; h && *h; h++)
        headers = curl_slist_append(headers, *h);
    return headers;
}

static struct curl_slist *configure(HttpClient *client, Transfer *t, char *message)
{
    const HttpRequest *r = t->request;
    bool secure = g_ascii_strncasecmp(r->url, "https:", 6) == 0;
    struct curl_slist *headers = make_headers(r);
    CURL *curl = t->curl;

    (void)curl_easy_setopt(curl, CURLOPT_URL, r->url);
    (void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, message);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
    (void)curl_easy_setopt(curl, CURLOPT_USERAGENT, "kiln");
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_tick);
    (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
    (void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, STALL_TIMEOUT_S);
    (void)curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(curl, CURLOPT_HEADERDATA, t);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
    (void)curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L * 1024);
    if (r->timeout > 0)
        (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)(r->timeout * 1000));
    if (http_url_is_loopback(r->url))
        (void)curl_easy_setopt(curl, CURLOPT_NOPROXY, "*"); /* a proxy's loopback is not ours */
    if (r->signer)
        configure_signer(t, r->signer);
    configure_tls(client, curl);
    configure_method(t);
    return headers;
}

HttpFate http_fate_of(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
        return HTTP_PASSES_EARLY;
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_HTTP3:
        return HTTP_PASSES;
    default:
        return HTTP_HOPELESS;
    }
}

/* In TLS 1.3 a server that does not like our certificate, or misses it, says so when we believe to be connected. */
static bool is_alert(CURLcode code, const char *message)
{
    return (code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR) && strstr(message, " alert ");
}

static bool judge(Transfer *t, CURLcode code, const char *message, GError **error)
{
    HttpAnswer *answer = t->answer;
    curl_off_t retry_after = 0;
    long status = 0;
    char *url = NULL;

    (void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(t->curl, CURLINFO_RETRY_AFTER, &retry_after);
    (void)curl_easy_getinfo(t->curl, CURLINFO_EFFECTIVE_URL, &url);
    answer->status = (int)status;
    answer->url = g_strdup(url ? url : t->request->url);
    answer->retry_after = (double)CLAMP(retry_after, 0, RETRY_AFTER_MAX_S);
    trace("base.http", "%s %s: curl %d, status %ld", t->request->method, t->request->url, (int)code, status);
    if (!interrupt_check(error))
        return false;
    if (code == CURLE_OK && !t->error && !begin(t))
        code = CURLE_WRITE_ERROR;
    if (t->error) {
        g_propagate_error(error, g_steal_pointer(&t->error));
        return false;
    }
    if (code == CURLE_OK)
        return true;
    /* A server may refuse before it has read the body, and close: its refusal is the better sentence. */
    if ((code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR) && status >= 400)
        return true;
    answer->trouble = g_strconcat(*message ? message : curl_easy_strerror(code),
                                  is_alert(code, message) && strstr(message, "certificate") ? "; does it want a client certificate, or another one?" : NULL, NULL);
    answer->early = http_fate_of(code) == HTTP_PASSES_EARLY;
    answer->hopeless = http_fate_of(code) == HTTP_HOPELESS || is_alert(code, message);
    return true;
}

bool http_request(HttpClient *client, const HttpRequest *request, HttpAnswer *ret, GError **error)
{
    char message[CURL_ERROR_SIZE] = "";
    Transfer t = {.request = request, .answer = ret};
    struct curl_slist *headers;
    static const guint8 end = 0;
    guint size;
    bool ok;

    http_answer_clear(ret);
    ret->headers = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    t.body = g_byte_array_new();
    t.curl = take_handle(client, &ret->known);
    headers = configure(client, &t, message);
    ok = judge(&t, curl_easy_perform(t.curl), message, error);
    curl_slist_free_all(headers);
    give_back(client, t.curl, ret);
    g_clear_error(&t.error);
    size = t.body->len;
    g_byte_array_append(t.body, &end, 1);
    ret->body = g_bytes_new_with_free_func(t.body->data, size, g_free, t.body->data);
    (void)g_byte_array_free(t.body, FALSE);
    return ok;
}

/* --- patience --- */

static double patience_seconds(void)
{
    const char *text = g_getenv("KILN_PATIENCE");
    char *end = NULL;
    double seconds = text && *text ? g_ascii_strtod(text, &end) : PATIENCE_S;

    return end && *end ? PATIENCE_S : CLAMP(seconds, 0, PATIENCE_MAX_S);
}

/* Does it get better by waiting? A 500 is a fault more often than a pause. */
static bool may_recover(const HttpAnswer *answer)
{
    return answer->known && (answer->trouble || answer->status != 500);
}

bool http_patience_judge(HttpPatience *patience, bool gained, const HttpAnswer *answer, int64_t now, double *ret_seconds)
{
    bool recovers = may_recover(answer), cut = answer->trouble && answer->status / 100 == 2;
    unsigned enough = answer->early && !recovers ? ATTEMPTS_TO_CONNECT : ATTEMPTS_WITHOUT_GAIN;

    patience->all++;
    patience->in_a_row = gained ? 1 : patience->in_a_row + 1;
    if (patience->in_a_row == 1)
        patience->since = now;
    if (patience->all >= ATTEMPTS_IN_ALL || (patience->in_a_row >= enough && !(recovers && (double)(now - patience->since) < patience_seconds() * 1e6)))
        return false;
    *ret_seconds = MIN(FIRST_DELAY_S * (1 << MIN(patience->in_a_row - 1, 10)), cut ? DELAY_CUT_S : DELAY_MAX_S);
    *ret_seconds = MAX(answer->retry_after, *ret_seconds);
    return true;
}

bool http_patience_wait(HttpPatience *patience, bool gained, const HttpAnswer *answer, const char *what, GError **error)
{
    g_autofree char *words = http_answer_words(answer);
    struct pollfd wait = {interrupt_fd(), POLLIN, 0};
    double seconds;

    if (!http_patience_judge(patience, gained, answer, g_get_monotonic_time(), &seconds))
        return fail(error, "%s: %s; given up after %u attempts", what, words, patience->all);
    if (patience->in_a_row == ATTEMPTS_TO_CONNECT + 1) /* once: somebody may be sitting there */
        log_info("%s: %s; trying again", what, words);
    else
        log_verbose("%s: %s; trying again in %.1f s", what, words, seconds);
    (void)poll(&wait, 1, (int)(seconds * 1000));
    return interrupt_check(error);
}
