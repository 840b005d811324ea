/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Downloads with libcurl: what to do when a transfer breaks.
 *
 * A partial file may only be continued when the rest comes from the same
 * bytes. The proof is the server's validator (a strong ETag, else Last-Modified), which is written to
 * NAME.validator before the first byte and sent as If-Range:
 *
 *     206  same bytes, from where we are  -> append (range and validator of the answer are checked)
 *     200  other bytes, or no ranges      -> from the start
 *     416  nothing is missing, or we have too much -> done, or from the start
 *
 * curl's own resume option is not used: it makes an error of the second case.
 * Attempts count only while no byte is won, so a bad line ends late and a dead one soon.
 */
#include "base/http.h"

#include "base/error.h"
#include "base/file.h"
#include "base/http-curl.h"
#include "base/http-request.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/scope.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define ATTEMPTS_WITHOUT_GAIN 5
#define ATTEMPTS_TO_CONNECT 3 /* a name that does not resolve seldom gets better */
#define ATTEMPTS_IN_ALL 100
#define FIRST_DELAY_MS 250
#define MODIFIED_SETTLED_S 60
#define RETRY_AFTER_MAX_S 30
#define CONNECT_TIMEOUT_S 30L
#define STALL_TIMEOUT_S 60L
#define REDIRECTS_MAX 10L
#define HEADER_VALUE_MAX 1024
#define VALIDATOR_FILE_MAX 4096
#define COPY_CHUNK (1024 * 1024)

/* --- the URL map --- */

typedef struct Mapping {
    char *prefix, *dir;
} Mapping;

static GMutex map_lock;
static GPtrArray *mappings; /* of Mapping* */

static bool add_mapping(const char *text, GError **error)
{
    const char *equals = strchr(text, '=');
    Mapping *mapping;

    if (!equals || !equals[1] || !g_strstr_len(text, equals - text, "://"))
        return fail_code(error, KILN_ERROR_USAGE,
                         "--url-map wants PREFIX=DIR with a URL's beginning as PREFIX, not '%s'", text);
    mapping = g_new0(Mapping, 1);
    mapping->prefix = g_strndup(text, (size_t)(equals - text));
    mapping->dir = g_strdup(equals + 1);
    g_ptr_array_add(mappings, mapping);
    return true;
}

static bool map_init(GError **error)
{
    g_auto(GStrv) words = NULL;

    if (mappings)
        return true;
    mappings = g_ptr_array_new();
    words = g_strsplit_set(g_getenv("KILN_URL_MAP") ? g_getenv("KILN_URL_MAP") : "", " \t\n", -1);
    for (char **word = words; *word; word++)
        if (**word && !add_mapping(*word, error))
            return fail_prefix(error, "KILN_URL_MAP");
    return true;
}

bool http_url_map_add(const char *prefix_and_dir, GError **error)
{
    AUTO_LOCK(&map_lock);

    return map_init(error) && add_mapping(prefix_and_dir, error);
}

static const Mapping *find_mapping(const char *url)
{
    const Mapping *best = NULL;

    for (guint i = 0; i < mappings->len; i++) {
        const Mapping *mapping = mappings->pdata[i];

        if (g_str_has_prefix(url, mapping->prefix) &&
            (!best || strlen(mapping->prefix) > strlen(best->prefix)))
            best = mapping;
    }
    return best;
}

static bool leaves_folder(const char *rest)
{
    g_auto(GStrv) parts = g_strsplit(rest, "/", -1);

    return g_strv_contains((const char *const *)parts, "..");
}

/* The file under the mapping's folder: named as in the URL, or as that means without %XX. */
static bool mapped_path(const Mapping *mapping, const char *url, char **ret, GError **error)
{
    const char *rest = url + strlen(mapping->prefix);
    g_autofree char *plain = g_uri_unescape_string(rest, NULL);
    g_autofree char *path = NULL;

    if (leaves_folder(rest) || (plain && leaves_folder(plain)))
        return fail(error, "%s: leaves the folder '%s' of the URL map", url, mapping->dir);
    path = g_build_filename(mapping->dir, rest, NULL);
    if (plain && !g_file_test(path, G_FILE_TEST_EXISTS)) {
        g_free(path);
        path = g_build_filename(mapping->dir, plain, NULL);
    }
    *ret = g_steal_pointer(&path);
    return true;
}

bool http_url_mapped(const char *url, char **ret, GError **error)
{
    AUTO_LOCK(&map_lock);
    const Mapping *mapping;

    *ret = NULL;
    if (!map_init(error))
        return false;
    mapping = find_mapping(url);
    return !mapping || mapped_path(mapping, url, ret, error);
}

/* *ret NULL: the URL is one for the network. */
static bool local_path(const char *url, char **ret, GError **error)
{
    if (!http_url_mapped(url, ret, error))
        return false;
    if (*ret || !g_str_has_prefix(url, "file://"))
        return true;

    url += strlen("file://");
    if (g_str_has_prefix(url, "localhost/"))
        url += strlen("localhost");
    *ret = *url == '/' ? g_uri_unescape_string(url, NULL) : NULL;
    return *ret || fail(error, "file://%s: is not of the form file:///PATH", url);
}

/* --- messages --- */

/* The URL without user and password, for messages and traces. */
static char *url_for_people(const char *url)
{
    const char *start = strstr(url, "://");
    const char *end = start ? start + 3 + strcspn(start + 3, "/?#") : NULL;
    const char *at = start ? g_strrstr_len(start + 3, end - (start + 3), "@") : NULL;
    g_autofree char *shown =
        at ? g_strdup_printf("%.*s%s", (int)(start + 3 - url), url, at + 1) : g_strdup(url);

    return printable_line(shown);
}

/* --- a download --- */

typedef enum Verdict {
    DONE,
    BROKEN,       /* try again */
    BROKEN_EARLY, /* no connection: try again, but not often */
    FATAL,
} Verdict;

typedef struct Download {
    const HttpDownload *request;
    int dirfd;
    const char *name;
    char *validator_name, *shown_url;
    int fd;
    uint64_t have, best; /* bytes in the file; most there ever were */
    char *validator;     /* that the bytes in the file belong to; NULL: they can't be continued */
    bool stale;          /* a file of before is in our place; it gets a successor when the first byte comes */
    Progress *progress;
    bool unchanged;

    /* one attempt */
    CURL *curl;
    bool begun;      /* the answer's body is ours to keep */
    bool start_over; /* the answer does not continue what we have */
    char *etag, *modified;
    uint64_t range_start, range_total;
    bool has_range;
    GError *error; /* of a callback */
} Download;

static void forget_answer(Download *d)
{
    g_clear_pointer(&d->etag, g_free);
    g_clear_pointer(&d->modified, g_free);
    d->range_start = d->range_total = 0;
    d->has_range = false;
}

static void download_clear(Download *d)
{
    forget_answer(d);
    scope_close_fd(&d->fd);
    progress_free(d->progress);
    g_clear_error(&d->error);
    g_free(d->validator);
    g_free(d->validator_name);
    g_free(d->shown_url);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Download, download_clear)

/* A weak ETag says "as good as the same", which is not enough to join two halves. */
static const char *validator_of_answer(const Download *d)
{
    if (d->etag)
        return g_str_has_prefix(d->etag, "W/") ? NULL : d->etag;
    return d->modified;
}

/* The first line ties the validator to its URL, which may hold a password and so is not written. */
static bool save_validator(Download *d, GError **error)
{
    g_autofree char *text = NULL;
    char hex[DIGEST_HEX_SIZE];
    Digest url;

    if (!d->validator) {
        (void)unlinkat(d->dirfd, d->validator_name, 0); /* absent is what we want */
        return true;
    }
    digest_of_string(d->request->url, &url);
    text = g_strdup_printf("%s\n%s\n", digest_to_hex(&url, hex), d->validator);
    return file_replace(d->dirfd, d->validator_name, text, strlen(text), 0600, FILE_SYNC_NO, error);
}

static void load_validator(Download *d)
{
    g_autoptr(GBytes) bytes = NULL;
    g_auto(GStrv) lines = NULL;
    char hex[DIGEST_HEX_SIZE];
    Digest url;

    /* Unreadable is as good as none. */
    if (!file_load(d->dirfd, d->validator_name, VALIDATOR_FILE_MAX, &bytes, NULL))
        return;
    lines = g_strsplit(g_bytes_get_data(bytes, NULL), "\n", -1);
    digest_of_string(d->request->url, &url);
    if (g_strv_length(lines) == 3 && strcmp(lines[0], digest_to_hex(&url, hex)) == 0 && *lines[1])
        d->validator = g_strdup(lines[1]);
}

static bool lock_file(int fd, const char *name, GError **error)
{
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        struct pollfd wait = {interrupt_fd(), POLLIN, 0};

        if (errno != EWOULDBLOCK && errno != EINTR)
            return fail_errno(error, "lock '%s'", name);
        if (!interrupt_check(error))
            return false;
        (void)poll(&wait, 1, 200);
    }
    return true;
}

/* Opens and locks; whoever had the lock may have put another file in this place meanwhile. */
static bool open_target(Download *d, GError **error)
{
    for (;;) {
        auto_fd int fd = openat(d->dirfd, d->name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        struct stat ours, there;

        if (fd < 0 || fstat(fd, &ours) < 0)
            return fail_errno(error, "open '%s'", d->name);
        if (!lock_file(fd, d->name, error))
            return false;
        if (fstatat(d->dirfd, d->name, &there, 0) < 0 || there.st_ino != ours.st_ino ||
            there.st_dev != ours.st_dev)
            continue;
        if (fstat(fd, &ours) < 0)
            return fail_errno(error, "open '%s'", d->name);
        scope_close_fd(&d->fd);
        d->fd = g_steal_fd(&fd);
        d->have = (uint64_t)ours.st_size;
        return true;
    }
}

/* A file without validator may be somebody's finished one: it is kept as long as nothing better has come. */
static bool prepare_target(Download *d, GError **error)
{
    if (!open_target(d, error))
        return false;
    load_validator(d);
    d->stale = d->have > 0 && !d->validator;
    if (d->stale)
        d->have = 0;
    return true;
}

/* Whoever reads a stale file goes on reading it: it is replaced, never cut. */
static bool empty_target(Download *d, GError **error)
{
    if (d->stale && unlinkat(d->dirfd, d->name, 0) < 0 && errno != ENOENT)
        return fail_errno(error, "replace '%s'", d->name);
    if (d->stale && !open_target(d, error))
        return false;
    d->stale = false;
    if (ftruncate(d->fd, 0) < 0)
        return fail_errno(error, "empty '%s'", d->name);
    d->have = 0;
    g_clear_pointer(&d->validator, g_free);
    return true;
}

static bool too_large(Download *d, uint64_t size, GError **error)
{
    if (d->request->max_size == 0 || size <= d->request->max_size)
        return false;
    (void)fail(error, "%s: is larger than the %" G_GUINT64_FORMAT " bytes allowed", d->shown_url,
               d->request->max_size);
    return true;
}

/* --- callbacks of curl --- */

static void take_content_range(Download *d, const char *value)
{
    guint64 start, end, total;

    if (sscanf(value, "bytes %" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT, &start, &end,
               &total) == 3) {
        d->range_start = start;
        d->range_total = total;
        d->has_range = true;
    } else if (sscanf(value, "bytes */%" G_GUINT64_FORMAT, &total) == 1) {
        d->range_total = total;
        d->has_range = true;
    }
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    Download *d = arg;
    size_t length = size * count;
    g_autofree char *line = g_strndup(data, MIN(length, HEADER_VALUE_MAX));
    char *value = strchr(line, ':');

    if (g_str_has_prefix(line, "HTTP/")) /* each answer of a chain of redirects starts anew */
        forget_answer(d);
    if (!value || length > HEADER_VALUE_MAX)
        return length;
    *value++ = '\0';
    g_strstrip(value);
    if (g_ascii_strcasecmp(line, "etag") == 0 && *value) {
        g_free(d->etag);
        d->etag = g_strdup(value);
    } else if (g_ascii_strcasecmp(line, "last-modified") == 0 && *value) {
        g_free(d->modified);
        d->modified = g_strdup(value);
    } else if (g_ascii_strcasecmp(line, "content-range") == 0) {
        take_content_range(d, value);
    }
    return length;
}

static uint64_t answer_length(const Download *d)
{
    curl_off_t length = -1;

    (void)curl_easy_getinfo(d->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    return length > 0 ? (uint64_t)length : 0;
}

static bool continues(const Download *d)
{
    const char *validator = validator_of_answer(d);

    return d->has_range && d->range_start == d->have && d->validator &&
           (!validator || strcmp(validator, d->validator) == 0);
}

/* Decides, before the first byte of a body is kept, where it goes. */
static bool begin_body(Download *d, GError **error)
{
    long status = 0;
    uint64_t total;

    (void)curl_easy_getinfo(d->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status == 206 && !continues(d)) {
        d->start_over = true;
        return fail(error, "%s: server sent another part than asked for", d->shown_url);
    }
    if (status != 206 && status != 200 && status != 203)
        return fail(error, "%s: server answered %ld", d->shown_url, status);

    if (status != 206) {
        if (!empty_target(d, error))
            return false;
        d->validator = g_strdup(validator_of_answer(d));
        if (!save_validator(d, error))
            return false;
    }
    total = status == 206 ? d->range_total : answer_length(d);
    if (too_large(d, total, error))
        return false;
    progress_set(d->progress, d->have, total);
    d->begun = true;
    return true;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    Download *d = arg;
    size_t length = size * count;

    if (!d->begun && !begin_body(d, &d->error))
        return 0;
    if (too_large(d, d->have + length, &d->error) ||
        !file_pwrite_full(d->fd, data, length, d->have, d->name, &d->error))
        return 0;
    d->have += length;
    d->best = MAX(d->best, d->have);
    progress_add(d->progress, length);
    return length;
}

static int on_tick(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up)
{
    return interrupt_requested() ? 1 : 0;
}

/* --- one attempt --- */

static CURL *new_easy(const char *url, char message[CURL_ERROR_SIZE])
{
    CURL *curl = http_curl_new();

    message[0] = '\0';
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, message);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(curl, CURLOPT_USERAGENT, "kiln");
    (void)curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_tick);
    if (http_url_is_loopback(url))
        (void)curl_easy_setopt(curl, CURLOPT_NOPROXY, "*"); /* a proxy's loopback is not ours */
    return curl;
}

static struct curl_slist *request_headers(const Download *d)
{
    struct curl_slist *headers = NULL;
    g_autofree char *range =
        d->have > 0 && d->validator ? g_strdup_printf("If-Range: %s", d->validator) : NULL;
    const char *etag = d->request->ret_unchanged ? d->request->etag : NULL;
    bool is_date = etag && *etag != '"' && !g_str_has_prefix(etag, "W/");
    g_autofree char *match = etag ? g_strdup_printf("%s: %s", is_date ? "If-Modified-Since" : "If-None-Match", etag) : NULL;

    if (range)
        headers = curl_slist_append(headers, range);
    if (match)
        headers = curl_slist_append(headers, match);
    return headers;
}

static void configure(Download *d, const char *range, const struct curl_slist *headers)
{
    (void)curl_easy_setopt(d->curl, CURLOPT_FOLLOWLOCATION, 1L);
    (void)curl_easy_setopt(d->curl, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
    (void)curl_easy_setopt(d->curl, CURLOPT_FAILONERROR, 1L);
    (void)curl_easy_setopt(d->curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
    (void)curl_easy_setopt(d->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    (void)curl_easy_setopt(d->curl, CURLOPT_LOW_SPEED_TIME, STALL_TIMEOUT_S);
    (void)curl_easy_setopt(d->curl, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(d->curl, CURLOPT_HEADERDATA, d);
    (void)curl_easy_setopt(d->curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(d->curl, CURLOPT_WRITEDATA, d);
    if (headers)
        (void)curl_easy_setopt(d->curl, CURLOPT_HTTPHEADER, headers);
    if (range)
        (void)curl_easy_setopt(d->curl, CURLOPT_RANGE, range);
}

static Verdict judge_code(CURLcode code)
{
    static const Verdict verdicts[] = {[HTTP_PASSES] = BROKEN, [HTTP_PASSES_EARLY] = BROKEN_EARLY, [HTTP_HOPELESS] = FATAL};

    return verdicts[http_fate_of(code)];
}

static Verdict fail_status(Download *d, long status, GError **error)
{
    KilnErrorCode code = status == 404 || status == 410 ? KILN_ERROR_NOT_FOUND : KILN_ERROR_FAILED;

    (void)fail_code(error, code, "%s: server answered %ld", d->shown_url, status);
    return http_status_passes(status) ? BROKEN : FATAL;
}

/* 416: what we have is the whole, or it is nothing the server knows. */
static Verdict judge_range(Download *d, GError **error)
{
    const char *validator = validator_of_answer(d);

    if (d->has_range && d->range_total == d->have && (!validator || g_strcmp0(validator, d->validator) == 0))
        return DONE;
    (void)fail(error, "%s: server cannot continue the download", d->shown_url);
    return empty_target(d, NULL) ? BROKEN : FATAL;
}

static Verdict judge(Download *d, CURLcode code, const char *message, GError **error)
{
    long status = 0;

    (void)curl_easy_getinfo(d->curl, CURLINFO_RESPONSE_CODE, &status);
    trace("base.http", "%s: curl %d, status %ld, %" G_GUINT64_FORMAT " bytes", d->shown_url, (int)code,
          status, d->have);
    if (!interrupt_check(error))
        return FATAL;
    if (code == CURLE_OK && status == 304 && d->request->ret_unchanged) {
        d->unchanged = true;
        return DONE;
    }
    if (code == CURLE_OK && !d->error && !d->begun)
        (void)begin_body(d, &d->error); /* a whole answer without a byte in it */
    if (d->error) {
        g_propagate_error(error, g_steal_pointer(&d->error));
        return d->start_over && empty_target(d, NULL) ? BROKEN : FATAL;
    }
    if (code == CURLE_OK)
        return DONE;
    if (code == CURLE_HTTP_RETURNED_ERROR)
        return status == 416 && d->have > 0 ? judge_range(d, error) : fail_status(d, status, error);

    (void)fail(error, "%s: %s", d->shown_url, *message ? message : curl_easy_strerror(code));
    return judge_code(code);
}

/* *ret_wait: seconds the server asks us to wait. */
static Verdict attempt(Download *d, double *ret_wait, GError **error)
{
    char message[CURL_ERROR_SIZE];
    g_autofree char *range = d->have > 0 ? g_strdup_printf("%" G_GUINT64_FORMAT "-", d->have) : NULL;
    struct curl_slist *headers = request_headers(d);
    curl_off_t retry_after = 0;
    Verdict verdict;

    d->curl = new_easy(d->request->url, message);
    d->begun = d->start_over = false;
    forget_answer(d);
    configure(d, range, headers);
    verdict = judge(d, curl_easy_perform(d->curl), message, error);
    (void)curl_easy_getinfo(d->curl, CURLINFO_RETRY_AFTER, &retry_after);
    *ret_wait = (double)CLAMP(retry_after, 0, RETRY_AFTER_MAX_S);

    curl_slist_free_all(headers);
    curl_easy_cleanup(d->curl);
    d->curl = NULL;
    return verdict;
}

/* --- all attempts --- */

static bool wait_before_retry(double seconds, GError **error)
{
    struct pollfd wait = {interrupt_fd(), POLLIN, 0};

    (void)poll(&wait, 1, (int)(seconds * 1000));
    return interrupt_check(error);
}

static bool try_until_done(Download *d, GError **error)
{
    unsigned in_a_row = 0;

    for (unsigned all = 1;; all++) {
        g_autoptr(GError) problem = NULL;
        uint64_t best = d->best;
        double wait = 0, backoff;
        Verdict verdict = attempt(d, &wait, &problem);

        if (verdict == DONE)
            return true;
        in_a_row = d->best > best ? 1 : in_a_row + 1;
        if (verdict == FATAL || all >= ATTEMPTS_IN_ALL ||
            in_a_row >= (verdict == BROKEN_EARLY ? ATTEMPTS_TO_CONNECT : ATTEMPTS_WITHOUT_GAIN)) {
            g_propagate_error(error, g_steal_pointer(&problem));
            return verdict == FATAL ? false : fail_prefix(error, "given up after %u attempts", all);
        }
        /* Bytes whose owner we can't prove are of no use to the next attempt. */
        if (d->have > 0 && !d->validator && !empty_target(d, error))
            return false;
        backoff = FIRST_DELAY_MS / 1000.0 * (1 << (in_a_row - 1));
        log_verbose("%s; trying again in %.1f s", problem->message, MAX(wait, backoff));
        if (!wait_before_retry(MAX(wait, backoff), error))
            return false;
    }
}

static bool copy_bytes(Download *d, int from, const char *path, GError **error)
{
    g_autofree uint8_t *buf = g_malloc(COPY_CHUNK);
    size_t got = COPY_CHUNK;

    while (got == COPY_CHUNK) {
        if (!interrupt_check(error) || !file_read_upto(from, buf, COPY_CHUNK, &got, path, error) ||
            too_large(d, d->have + got, error) || !file_pwrite_full(d->fd, buf, got, d->have, d->name, error))
            return false;
        d->have += got;
        progress_add(d->progress, got);
    }
    return true;
}

static bool copy_local(Download *d, const char *path, GError **error)
{
    auto_fd int from = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (from < 0 || fstat(from, &st) < 0) {
        (void)fail_errno(error, "open '%s'", path);
        return fail_prefix(error, "%s", d->shown_url);
    }
    if (!S_ISREG(st.st_mode))
        return fail(error, "%s: '%s' is not a regular file", d->shown_url, path);
    if (too_large(d, (uint64_t)st.st_size, error))
        return false;
    progress_set(d->progress, 0, (uint64_t)st.st_size);
    return empty_target(d, error) && copy_bytes(d, from, path, error);
}

static bool fetch(Download *d, GError **error)
{
    g_autofree char *path = NULL;

    if (!local_path(d->request->url, &path, error) || !prepare_target(d, error))
        return false;
    d->best = d->have;
    return path ? copy_local(d, path, error) : try_until_done(d, error);
}

/* One that was made for bytes which did not come. */
static void leave_no_empty_file(const Download *d)
{
    if (d->fd < 0 || d->stale || d->have > 0)
        return;
    (void)unlinkat(d->dirfd, d->name, 0);
    (void)unlinkat(d->dirfd, d->validator_name, 0);
}

/* A date has seconds: what changed in the last of them could change again under the same one. */
static bool modified_is_proof(const Download *d)
{
    time_t now = time(NULL), then = d->modified ? curl_getdate(d->modified, NULL) : -1;

    return then > 0 && then + MODIFIED_SETTLED_S <= now;
}

bool http_download(const HttpDownload *request, int dirfd, const char *name, GError **error)
{
    g_auto(Download) d = {.request = request, .dirfd = dirfd, .name = name, .fd = -1};

    d.shown_url = url_for_people(request->url);
    d.validator_name = g_strdup_printf("%s.validator", name);
    d.progress = request->title ? progress_new(request->title, 0, true) : NULL;
    if (!fetch(&d, error)) {
        leave_no_empty_file(&d);
        return false;
    }

    if (d.unchanged) {
        leave_no_empty_file(&d);
    } else {
        (void)unlinkat(dirfd, d.validator_name, 0); /* its absence says: complete */
        progress_done(d.progress);
    }
    if (request->ret_unchanged)
        *request->ret_unchanged = d.unchanged;
    if (request->ret_etag)
        *request->ret_etag = d.etag ? g_steal_pointer(&d.etag) : modified_is_proof(&d) ? g_steal_pointer(&d.modified) : NULL;
    return true;
}

/* --- a single question --- */

typedef struct Body {
    GByteArray *bytes;
    size_t max;
} Body;

static size_t on_get_body(char *data, size_t size, size_t count, void *arg)
{
    Body *body = arg;
    size_t room = body->max - body->bytes->len;

    g_byte_array_append(body->bytes, (const guint8 *)data, (guint)MIN(size * count, room));
    return size * count <= room ? size * count : 0; /* enough seen: curl stops with CURLE_WRITE_ERROR */
}

bool http_get(const char *url, size_t max_body, double timeout, int *ret_status, GBytes **ret_body,
              GError **error)
{
    g_autofree char *shown = url_for_people(url);
    char message[CURL_ERROR_SIZE];
    Body body = {g_byte_array_new(), MIN(max_body, (size_t)G_MAXINT)};
    g_autoptr(GBytes) bytes = NULL;
    CURL *curl = new_easy(url, message);
    long status = 0;
    CURLcode code;

    (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)(timeout * 1000));
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_get_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
    code = curl_easy_perform(curl);
    (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    bytes = g_byte_array_free_to_bytes(body.bytes);

    if (code == CURLE_ABORTED_BY_CALLBACK && !interrupt_check(error))
        return false;
    if (code != CURLE_OK && !(code == CURLE_WRITE_ERROR && status > 0))
        return fail(error, "%s: %s", shown, *message ? message : curl_easy_strerror(code));

    *ret_status = (int)status;
    if (ret_body)
        *ret_body = g_steal_pointer(&bytes);
    return true;
}

/* --- probes --- */

#define PROBE_BODY_MAX 16384

struct HttpProbes {
    CURLM *multi;
    GHashTable *running; /* Probe* -> itself */
};

typedef struct Probe {
    CURL *curl;
    void *tag;
    size_t seen;
    char message[CURL_ERROR_SIZE];
} Probe;

/* Enough was read when it is too much: the status is what counts. */
static size_t on_probe_body(char *data, size_t size, size_t count, void *arg)
{
    Probe *probe = arg;

    probe->seen += size * count;
    return probe->seen > PROBE_BODY_MAX ? 0 : size * count;
}

HttpProbes *http_probes_new(void)
{
    HttpProbes *probes = g_new0(HttpProbes, 1);

    curl_easy_cleanup(new_easy("http://127.0.0.1/", (char[CURL_ERROR_SIZE]){0})); /* the library's own beginning */
    probes->multi = curl_multi_init();
    if (!probes->multi)
        g_error("out of memory");
    (void)curl_multi_setopt(probes->multi, CURLMOPT_MAXCONNECTS, 1L);
    probes->running = g_hash_table_new(NULL, NULL);
    return probes;
}

static void end_probe(HttpProbes *probes, Probe *probe)
{
    (void)curl_multi_remove_handle(probes->multi, probe->curl);
    curl_easy_cleanup(probe->curl);
    g_hash_table_remove(probes->running, probe);
    g_free(probe);
}

void http_probes_abandon(HttpProbes *probes, HttpProbeFn *fn, void *arg)
{
    g_autoptr(GList) all = g_hash_table_get_keys(probes->running);

    for (GList *item = all; item; item = item->next) {
        Probe *probe = item->data;
        void *tag = probe->tag;

        end_probe(probes, probe);
        if (fn)
            fn(tag, 0, "given up", arg);
    }
}

void http_probes_free(HttpProbes *probes)
{
    if (!probes)
        return;
    http_probes_abandon(probes, NULL, NULL);
    g_hash_table_unref(probes->running);
    (void)curl_multi_cleanup(probes->multi);
    g_free(probes);
}

void http_probes_add(HttpProbes *probes, const char *url, bool connect_only, double timeout, void *tag)
{
    Probe *probe = g_new0(Probe, 1);

    probe->tag = tag;
    probe->curl = new_easy(url, probe->message);
    (void)curl_easy_setopt(probe->curl, CURLOPT_PRIVATE, probe);
    (void)curl_easy_setopt(probe->curl, CURLOPT_NOPROGRESS, 1L); /* an interrupt says nothing about somebody's health */
    (void)curl_easy_setopt(probe->curl, CURLOPT_NOPROXY, "*");
    (void)curl_easy_setopt(probe->curl, CURLOPT_FORBID_REUSE, 1L);
    (void)curl_easy_setopt(probe->curl, CURLOPT_FRESH_CONNECT, 1L);
    (void)curl_easy_setopt(probe->curl, CURLOPT_BUFFERSIZE, (long)PROBE_BODY_MAX);
    (void)curl_easy_setopt(probe->curl, CURLOPT_TIMEOUT_MS, MAX(1L, (long)(timeout * 1000)));
    (void)curl_easy_setopt(probe->curl, CURLOPT_WRITEFUNCTION, on_probe_body);
    (void)curl_easy_setopt(probe->curl, CURLOPT_WRITEDATA, probe);
    if (connect_only)
        (void)curl_easy_setopt(probe->curl, CURLOPT_CONNECT_ONLY, 1L);
    g_hash_table_add(probes->running, probe);
    (void)curl_multi_add_handle(probes->multi, probe->curl);
}

static char *probe_problem(const Probe *probe, CURLcode code, long status)
{
    long os_error = 0;

    (void)curl_easy_getinfo(probe->curl, CURLINFO_OS_ERRNO, &os_error);
    if (code == CURLE_OK || (code == CURLE_WRITE_ERROR && status > 0))
        return NULL;
    if (code == CURLE_OPERATION_TIMEDOUT)
        return g_strdup("no answer in time");
    if (code == CURLE_COULDNT_CONNECT && os_error != 0)
        return g_ascii_strdown(g_strerror((int)os_error), -1);
    return g_strdup(*probe->message ? probe->message : curl_easy_strerror(code));
}

void http_probes_run(HttpProbes *probes, double seconds, HttpProbeFn *fn, void *arg)
{
    int left = 0;
    CURLMsg *ended;

    (void)curl_multi_perform(probes->multi, &left);
    ended = curl_multi_info_read(probes->multi, &left);
    if (!ended) {
        (void)curl_multi_poll(probes->multi, NULL, 0, MAX(0, (int)(seconds * 1000)), NULL);
        (void)curl_multi_perform(probes->multi, &left);
        ended = curl_multi_info_read(probes->multi, &left);
    }
    for (; ended; ended = curl_multi_info_read(probes->multi, &left)) {
        g_autofree char *problem = NULL;
        char *private = NULL;
        Probe *probe;
        long status = 0;
        void *tag;

        (void)curl_easy_getinfo(ended->easy_handle, CURLINFO_PRIVATE, &private);
        (void)curl_easy_getinfo(ended->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        probe = (Probe *)(void *)private;
        problem = probe_problem(probe, ended->data.result, status);
        tag = probe->tag;
        end_probe(probes, probe);
        fn(tag, problem ? 0 : (int)status, problem, arg);
    }
}

void http_probes_wake(HttpProbes *probes)
{
    (void)curl_multi_wakeup(probes->multi);
}
