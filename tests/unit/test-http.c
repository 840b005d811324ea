/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Downloads from a small server of our own on loopback that misbehaves on
 * demand: what it does is told by the path, and by how often it was asked.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/http-request.h"
#include "base/http.h"
#include "base/scope.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define SIZE 300000

/* --- the server --- */

typedef struct Ask {
    int fd;
    char path[200];
    char if_range[200], if_none_match[200];
    long long from; /* of Range; -1: none */
    int nth;        /* how often this path was asked before */
} Ask;

static uint8_t content[SIZE];
static int listener;
static unsigned port;
static GHashTable *asked; /* path -> count */
static GMutex asked_lock;

static int times_asked(const char *path)
{
    AUTO_LOCK(&asked_lock);

    return GPOINTER_TO_INT(g_hash_table_lookup(asked, path));
}

static void say(Ask *ask, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void say(Ask *ask, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vdprintf(ask->fd, format, args);
    va_end(args);
}

static void say_bytes(Ask *ask, size_t from, size_t count)
{
    /* The client may have gone on purpose. */
    (void)file_write_full(ask->fd, content + from, count, "client", NULL);
}

/* Answers with a validator, honours ranges, sends at most @limit bytes and then hangs up. */
static void serve(Ask *ask, const char *validator, size_t limit)
{
    const char *value = strchr(validator, ' ') + 1;
    bool part = ask->from >= 0 && strcmp(ask->if_range, value) == 0;
    size_t from = part ? (size_t)ask->from : 0;

    if (part && from >= SIZE) {
        say(ask, "HTTP/1.1 416 No\r\nContent-Range: bytes */%d\r\nContent-Length: 0\r\n\r\n", SIZE);
        return;
    }
    if (part)
        say(ask, "HTTP/1.1 206 Part\r\nContent-Range: bytes %zu-%d/%d\r\n", from, SIZE - 1, SIZE);
    else
        say(ask, "HTTP/1.1 200 OK\r\n");
    say(ask, "%s\r\nContent-Length: %zu\r\n\r\n", validator, SIZE - from);
    say_bytes(ask, from, MIN(limit, SIZE - from));
}

static void respond(Ask *ask)
{
    const char *path = ask->path;

    if (strcmp(path, "/plain") == 0 || strcmp(path, "/odd%20name") == 0)
        serve(ask, "ETag: \"one\"", SIZE);
    else if (strcmp(path, "/cut") == 0) /* three cuts, then the end */
        serve(ask, "ETag: \"one\"", 100000);
    else if (strcmp(path, "/cut-dated") == 0)
        serve(ask, "Last-Modified: Tue, 15 Nov 1994 12:45:26 GMT", 200000);
    else if (strcmp(path, "/changes") == 0) { /* cut once; other bytes afterwards */
        if (ask->nth == 1)
            memset(content, 'z', sizeof(content));
        serve(ask, ask->nth == 0 ? "ETag: \"old\"" : "ETag: \"new\"", ask->nth == 0 ? 100000 : SIZE);
    } else if (strcmp(path, "/lies") == 0) { /* says 206 although the validator is another one */
        if (ask->from > 0)
            say(ask,
                "HTTP/1.1 206 Part\r\nETag: \"other\"\r\nContent-Range: bytes %lld-%d/%d\r\nContent-Length: "
                "10\r\n\r\n0123456789",
                ask->from, SIZE - 1, SIZE);
        else
            serve(ask, "ETag: \"one\"", ask->nth == 0 ? 1000 : SIZE);
    } else if (strcmp(path, "/no-validator") == 0) { /* cut once, can't be continued */
        say(ask, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", SIZE);
        say_bytes(ask, 0, ask->nth == 0 ? 1000 : SIZE);
    } else if (strcmp(path, "/weak") == 0)
        serve(ask, "ETag: W/\"x\"", ask->nth == 0 ? 1000 : SIZE);
    else if (strcmp(path, "/once-500") == 0 && ask->nth == 0)
        say(ask, "HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\noops!");
    else if (strcmp(path, "/once-429") == 0 && ask->nth == 0)
        say(ask, "HTTP/1.1 429 Slow\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
    else if (g_str_has_prefix(path, "/once-"))
        serve(ask, "ETag: \"one\"", SIZE);
    else if (strcmp(path, "/moved") == 0)
        say(ask,
            "HTTP/1.1 302 There\r\nETag: \"redirect\"\r\nLocation: /plain\r\nContent-Length: 4\r\n\r\ngone");
    else if (strcmp(path, "/to-file") == 0)
        say(ask, "HTTP/1.1 302 There\r\nLocation: file:///etc/hostname\r\nContent-Length: 0\r\n\r\n");
    else if (strcmp(path, "/endless") == 0) {
        say(ask, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        for (int i = 0; i < 20; i++)
            say_bytes(ask, 0, SIZE);
    } else if (strcmp(path, "/empty") == 0)
        say(ask, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    else if (strcmp(path, "/same") == 0) {
        if (strcmp(ask->if_none_match, "\"one\"") == 0)
            say(ask, "HTTP/1.1 304 Same\r\nETag: \"one\"\r\n\r\n");
        else
            serve(ask, "ETag: \"one\"", SIZE);
    } else
        say(ask, "HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\nnot here\n");
}

static void take_header(Ask *ask, const char *line)
{
    if (g_ascii_strncasecmp(line, "Range: bytes=", 13) == 0)
        ask->from = g_ascii_strtoll(line + 13, NULL, 10);
    else if (g_ascii_strncasecmp(line, "If-Range: ", 10) == 0)
        g_strlcpy(ask->if_range, line + 10, sizeof(ask->if_range));
    else if (g_ascii_strncasecmp(line, "If-None-Match: ", 15) == 0)
        g_strlcpy(ask->if_none_match, line + 15, sizeof(ask->if_none_match));
}

static void handle(int fd)
{
    Ask ask = {.fd = fd, .from = -1};
    FILE *in = fdopen(dup(fd), "r");
    char line[1000];

    if (fgets(line, sizeof(line), in))
        (void)sscanf(line, "GET %199s", ask.path);
    while (fgets(line, sizeof(line), in) && *g_strchomp(line))
        take_header(&ask, line);
    (void)fclose(in);
    ask.nth = times_asked(ask.path);
    g_mutex_lock(&asked_lock);
    g_hash_table_insert(asked, g_strdup(ask.path), GINT_TO_POINTER(ask.nth + 1));
    g_mutex_unlock(&asked_lock);
    respond(&ask);
    (void)shutdown(fd, SHUT_WR);
    while (read(fd, line, sizeof(line)) > 0) /* so that no reset overtakes the answer */
        ;
}

static gpointer server_main(gpointer arg)
{
    for (;;) {
        auto_fd int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd >= 0)
            handle(fd);
    }
    return NULL;
}

static void start_server(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);

    asked = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(listen(listener, 10), ==, 0);
    g_assert_cmpint(getsockname(listener, (struct sockaddr *)&address, &size), ==, 0);
    port = ntohs(address.sin_port);
    g_thread_unref(g_thread_new("server", server_main, NULL));
}

/* --- helpers --- */

typedef struct Fixture {
    char *dir;
    int dirfd;
} Fixture;

static void set_up(Fixture *f, gconstpointer data)
{
    f->dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_hash_table_remove_all(asked);
    for (size_t i = 0; i < SIZE; i++)
        content[i] = (uint8_t)(i * 7 + i / 251);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    (void)close(f->dirfd);
    g_free(f->dir);
}

static char *url_of(const char *path)
{
    return g_strdup_printf("http://127.0.0.1:%u%s", port, path);
}

static bool get_limited(Fixture *f, const char *path, uint64_t max, GError **error)
{
    g_autofree char *url = g_str_has_prefix(path, "/") ? url_of(path) : g_strdup(path);
    HttpDownload request = {.url = url, .max_size = max};

    return http_download(&request, f->dirfd, "x", error);
}

static bool exists(Fixture *f, const char *name)
{
    return faccessat(f->dirfd, name, F_OK, 0) == 0;
}

static void file_is_content(Fixture *f)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) bytes = NULL;

    file_load(f->dirfd, "x", 2 * SIZE, &bytes, &error);
    g_assert_no_error(error);
    g_assert_cmpmem(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), content, SIZE);
    g_assert_false(exists(f, "x.validator"));
}

static void expect_content(Fixture *f, gconstpointer path)
{
    g_autoptr(GError) error = NULL;

    get_limited(f, path, SIZE, &error);
    g_assert_no_error(error);
    file_is_content(f);
}

static void expect_error(Fixture *f, const char *path, uint64_t max, const char *part)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(get_limited(f, path, max, &error));
    if (!strstr(error->message, part))
        g_error("'%s' does not say '%s'", error->message, part);
}

/* What an interrupted kiln leaves behind. */
static void leave_partial(Fixture *f, const char *path, size_t size, const char *validator)
{
    g_autofree char *url = url_of(path), *text = NULL;
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    digest_of_string(url, &digest);
    text = g_strdup_printf("%s\n%s\n", digest_to_hex(&digest, hex), validator);
    g_assert_true(file_replace(f->dirfd, "x", content, size, 0600, FILE_SYNC_NO, NULL));
    g_assert_true(file_replace(f->dirfd, "x.validator", text, strlen(text), 0600, FILE_SYNC_NO, NULL));
}

/* --- promises --- */

static void cuts_are_continued(Fixture *f, gconstpointer data)
{
    expect_content(f, "/cut");
    g_assert_cmpint(times_asked("/cut"), ==, 3); /* 100,000 bytes each: none was sent twice */
}

static void an_earlier_start_is_continued(Fixture *f, gconstpointer data)
{
    leave_partial(f, "/cut", SIZE - 100, "\"one\"");
    expect_content(f, "/cut");
    g_assert_cmpint(times_asked("/cut"), ==, 1);
}

static void an_earlier_start_of_another_version_is_not(Fixture *f, gconstpointer data)
{
    leave_partial(f, "/plain", 1000, "\"zero\"");
    memset(content, 'q', 1000);
    expect_content(f, "/plain");
}

static void an_earlier_start_of_another_url_is_not(Fixture *f, gconstpointer data)
{
    leave_partial(f, "/other", 1000, "\"one\"");
    memset(content, 'q', 1000);
    expect_content(f, "/plain");
}

static void a_complete_start_needs_no_byte(Fixture *f, gconstpointer data)
{
    leave_partial(f, "/plain", SIZE, "\"one\"");
    expect_content(f, "/plain");
}

static void a_file_without_validator_is_replaced(Fixture *f, gconstpointer data)
{
    auto_fd int reader = -1;
    char byte;

    g_assert_true(file_replace(f->dirfd, "x", "old", 3, 0600, FILE_SYNC_NO, NULL));
    reader = openat(f->dirfd, "x", O_RDONLY | O_CLOEXEC);
    expect_content(f, "/plain");
    g_assert_cmpint(read(reader, &byte, 1), ==, 1);
    g_assert_cmpint(byte, ==, 'o'); /* whoever had it open keeps it */
}

static void missing_is_said(Fixture *f, gconstpointer data)
{
    expect_error(f, "/nowhere", 0, "/nowhere: server answered 404");
    g_assert_cmpint(times_asked("/nowhere"), ==, 1);
    g_assert_false(exists(f, "x"));
}

static void a_dead_server_is_given_up(Fixture *f, gconstpointer data)
{
    expect_error(f, "http://127.0.0.1:1/x", 0, "127.0.0.1:1/x");
    g_assert_false(exists(f, "x"));
}

static void passwords_are_not_shown(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *url = g_strdup_printf("http://me:secret@127.0.0.1:%u/nowhere", port);

    g_assert_false(get_limited(f, url, 0, &error));
    g_assert_null(strstr(error->message, "secret"));
}

static void too_much_is_refused(Fixture *f, gconstpointer data)
{
    expect_error(f, "/plain", SIZE - 1, "larger than");
    expect_error(f, "/endless", 1000, "larger than");
}

static void redirects_stay_in_http(Fixture *f, gconstpointer data)
{
    expect_error(f, "/to-file", 0, "/to-file");
    g_assert_false(exists(f, "x"));
}

static void empty_is_a_file_too(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;

    get_limited(f, "/empty", 0, &error);
    g_assert_no_error(error);
    g_assert_true(exists(f, "x"));
}

static void an_unchanged_answer_touches_nothing(Fixture *f, gconstpointer data)
{
    g_autofree char *url = url_of("/same"), *etag = NULL;
    HttpDownload request = {.url = url, .ret_etag = &etag};
    bool unchanged = true;

    g_assert_true(http_download(&request, f->dirfd, "x", NULL));
    g_assert_cmpstr(etag, ==, "\"one\"");
    request = (HttpDownload){.url = url, .etag = etag, .ret_unchanged = &unchanged};
    g_assert_true(http_download(&request, f->dirfd, "x", NULL));
    g_assert_true(unchanged);
    file_is_content(f);

    request.etag = "\"two\"";
    g_assert_true(http_download(&request, f->dirfd, "x", NULL));
    g_assert_false(unchanged);
    file_is_content(f);
}

static void mapped_urls_are_files(Fixture *f, gconstpointer data)
{
    g_autofree char *map = g_strdup_printf("http://mapped.invalid/pub/=%s", f->dir);
    g_autofree char *local = g_strdup_printf("file://%s/a%%20b", f->dir);
    g_autoptr(GError) error = NULL;

    g_assert_true(file_replace(f->dirfd, "a b", content, SIZE, 0600, FILE_SYNC_NO, NULL));
    g_assert_true(http_url_map_add(map, NULL));
    expect_content(f, "http://mapped.invalid/pub/a%20b");
    expect_content(f, "http://mapped.invalid/pub/a b");
    expect_content(f, local);
    expect_error(f, "http://mapped.invalid/pub/none", 0, "none");
    expect_error(f, "http://mapped.invalid/pub/../../etc/passwd", 0, "leaves the folder");
    expect_error(f, "http://mapped.invalid/pub/%2e%2e/x", 0, "leaves the folder");
    expect_error(f, "http://mapped.invalid/pub/a%20b", 10, "larger than");
    expect_error(f, "file:///dev/zero", 0, "regular file");
    g_assert_false(http_url_map_add("nonsense", &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_USAGE);
}

static void get_tells_status_and_body(Fixture *f, gconstpointer data)
{
    g_autofree char *moved = url_of("/moved"), *missing = url_of("/nowhere"), *plain = url_of("/plain");
    g_autoptr(GBytes) body = NULL, cut = NULL;
    int status = 0;

    g_assert_true(http_get(moved, 100, 5, &status, NULL, NULL));
    g_assert_cmpint(status, ==, 302);
    g_assert_true(http_get(missing, 100, 5, &status, &body, NULL));
    g_assert_cmpint(status, ==, 404);
    g_assert_cmpmem(g_bytes_get_data(body, NULL), g_bytes_get_size(body), "not here\n", 9);
    g_assert_true(http_get(plain, 100, 5, &status, &cut, NULL));
    g_assert_cmpmem(g_bytes_get_data(cut, NULL), g_bytes_get_size(cut), content, 100);
    g_assert_false(http_get("http://127.0.0.1:1/", 100, 5, &status, NULL, NULL));
}

/* Fails again and again, at once. *ret_seconds: how long that was borne. Returns how often. */
static unsigned endure(HttpAnswer answer, double *ret_seconds)
{
    HttpPatience patience = {0};
    double now = 0, wait = 0;

    while (http_patience_judge(&patience, false, &answer, (int64_t)(now * 1e6), &wait))
        now += wait;
    *ret_seconds = now;
    return patience.all;
}

static void patience_depends_on_who_fails(void)
{
    static char broke[] = "broke";
    double seconds;

    g_assert_cmpuint(endure((HttpAnswer){.trouble = broke, .early = true}, &seconds), ==, 3);
    g_assert_cmpfloat(seconds, <, 1);
    g_assert_cmpuint(endure((HttpAnswer){.trouble = broke, .early = true, .known = true}, &seconds), <, 16); /* it is started anew */
    g_assert_cmpfloat(seconds, >=, 60);
    g_assert_cmpuint(endure((HttpAnswer){.status = 503, .known = true}, &seconds), <, 16);
    g_assert_cmpfloat(seconds, >=, 60);
    g_assert_cmpuint(endure((HttpAnswer){.status = 503}, &seconds), ==, 7);
    g_assert_cmpuint(endure((HttpAnswer){.status = 500, .known = true}, &seconds), ==, 7);
    g_assert_cmpfloat(seconds, <, 20);
    /* A line that breaks in every second answer, whatever its size, must not end a pull: 0.5^60. */
    g_assert_cmpuint(endure((HttpAnswer){.status = 200, .trouble = broke, .known = true}, &seconds), >=, 60);
    g_assert_cmpfloat(seconds, <, 65);
}

static void patience_begins_anew_with_each_gain(void)
{
    HttpPatience patience = {0};
    HttpAnswer answer = {.status = 206, .trouble = (char[]){"broke"}, .known = true};
    double wait = 0;

    for (int i = 0; i < 900; i++)
        g_assert_true(http_patience_judge(&patience, i % 5 == 0, &answer, i * 50000000ll, &wait));
    answer.retry_after = 30;
    g_assert_true(http_patience_judge(&patience, true, &answer, 0, &wait));
    g_assert_cmpfloat(wait, ==, 30);
    for (int i = 0; i < 1000; i++)
        if (!http_patience_judge(&patience, true, &answer, 0, &wait))
            return;
    g_assert_not_reached(); /* a byte at a time is no way */
}

static void loopback_is_not_what_only_begins_so(void)
{
    static const char *const ours[] = {"http://localhost:80/x", "https://LOCALHOST", "http://127.0.0.1:5000/", "http://127.200.3.4", "http://[::1]:5000/x"};
    static const char *const others[] = {"http://127.example.org/", "http://localhost.example.org/", "http://127.0.0.1.example.org/",
                                         "http://127.0.0.1@example.org/", "http://127.999.0.1/", "http://[::2]/", "http://example.org/?127.0.0.1", ""};

    for (size_t i = 0; i < G_N_ELEMENTS(ours); i++)
        g_assert_true(http_url_is_loopback(ours[i]));
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++)
        g_assert_false(http_url_is_loopback(others[i]));
}

#define ADD(path, fn) g_test_add("/http/" path, Fixture, NULL, set_up, fn, tear_down)
#define ADD_CONTENT(path, url) g_test_add("/http/" path, Fixture, url, set_up, expect_content, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    g_unsetenv("KILN_URL_MAP");
    start_server();

    g_test_add_func("/http/patience-depends-on-who-fails", patience_depends_on_who_fails);
    g_test_add_func("/http/patience-begins-anew-with-each-gain", patience_begins_anew_with_each_gain);
    g_test_add_func("/http/loopback-is-not-what-only-begins-so", loopback_is_not_what_only_begins_so);
    ADD_CONTENT("fetches-a-file", "/plain");
    ADD_CONTENT("follows-a-redirect", "/moved");
    ADD_CONTENT("cut-with-date-is-continued", "/cut-dated");
    ADD_CONTENT("cut-of-a-changed-file-starts-over", "/changes");
    ADD_CONTENT("a-part-of-something-else-starts-over", "/lies");
    ADD_CONTENT("cut-without-validator-starts-over", "/no-validator");
    ADD_CONTENT("weak-etags-join-nothing", "/weak");
    ADD_CONTENT("one-500-is-tried-again", "/once-500");
    ADD_CONTENT("one-429-is-tried-again", "/once-429");
    ADD("cuts-are-continued", cuts_are_continued);
    ADD("an-earlier-start-is-continued", an_earlier_start_is_continued);
    ADD("an-earlier-start-of-another-version-is-not", an_earlier_start_of_another_version_is_not);
    ADD("an-earlier-start-of-another-url-is-not", an_earlier_start_of_another_url_is_not);
    ADD("a-complete-start-needs-no-byte", a_complete_start_needs_no_byte);
    ADD("a-file-without-validator-is-replaced", a_file_without_validator_is_replaced);
    ADD("missing-is-said", missing_is_said);
    ADD("a-dead-server-is-given-up", a_dead_server_is_given_up);
    ADD("passwords-are-not-shown", passwords_are_not_shown);
    ADD("too-much-is-refused", too_much_is_refused);
    ADD("redirects-stay-in-http", redirects_stay_in_http);
    ADD("empty-is-a-file-too", empty_is_a_file_too);
    ADD("an-unchanged-answer-touches-nothing", an_unchanged_answer_touches_nothing);
    ADD("mapped-urls-are-files", mapped_urls_are_files);
    ADD("get-tells-status-and-body", get_tells_status_and_body);
    return g_test_run();
}
