/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that miss nothing: they ask as different clients do and count whatever is not a whole, right answer.
 *
 *   load ADDR:PORT [--seconds N] [--requests N] [--keepalive N] [--new N] [--slow N] [--upload N] [--tunnel N] [--tunnel-seconds N]
 *        [--think MS] [--timeout SECONDS]
 *
 * The N of a mode is the number of its clients. Lost is a request with a connection that failed, a reset, a timeout, a status other than 200 (101
 * for tunnels), a short body, or a body without a version. One thing is no loss but counted apart, as "retried": a kept connection that is
 * closed before the first byte of an answer, which HTTP lets a server do at any time and a client try again.
 *
 * At the end (SIGTERM, SIGINT, --seconds, --requests) requests that are under way are finished, and one JSON document is printed:
 *   {"requests", "lost", "retried", "seconds", "by_version": {V: n}, "by_mode": {M: {"requests", "lost"}}, "first_seen": {V: ms},
 *    "last_seen": {V: ms}, "first_errors": [...]}
 * first_seen and last_seen are when the first and the last request that V answered were sent, in milliseconds since 1970.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { KEEPALIVE, NEW, SLOW, UPLOAD, TUNNEL, MODES };
static const char *const mode_names[MODES] = {"keepalive", "new", "slow", "upload", "tunnel"};

#define UPLOAD_SIZE (256 * 1024)
#define VERSIONS 64
#define ERRORS 10
#define BUFFER 65536

typedef struct Seen {
    char version[128];
    uint64_t count;
    int64_t first, last;
} Seen;

static struct sockaddr_in target;
static unsigned clients[MODES] = {4, 2, 2, 1, 1};
static double think_ms = 5, timeout_seconds = 10, tunnel_seconds = 3, run_seconds;
static uint64_t wanted;
static volatile sig_atomic_t stopping;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Seen seen[VERSIONS];
static char first_errors[ERRORS][256];
static unsigned error_count;
static _Atomic uint64_t requests[MODES], lost[MODES], retried, total;

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- what was found --- */

static void count_version(const char *version, int64_t sent)
{
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < VERSIONS; i++) {
        if (seen[i].count > 0 && strcmp(seen[i].version, version) != 0)
            continue;
        if (seen[i].count++ == 0) {
            snprintf(seen[i].version, sizeof(seen[i].version), "%s", version);
            seen[i].first = sent;
        }
        if (sent < seen[i].first)
            seen[i].first = sent;
        if (sent > seen[i].last)
            seen[i].last = sent;
        break;
    }
    pthread_mutex_unlock(&lock);
}

static void count_error(unsigned mode, const char *what, int64_t sent)
{
    atomic_fetch_add(&lost[mode], 1);
    pthread_mutex_lock(&lock);
    if (error_count < ERRORS)
        snprintf(first_errors[error_count++], sizeof(first_errors[0]), "%s: %s (sent at %lld, after %lld ms)", mode_names[mode], what,
                 (long long)sent, (long long)(now_ms() - sent));
    pthread_mutex_unlock(&lock);
}

/* --- one request --- */

typedef struct Client {
    unsigned mode;
    int fd; /* -1: none */
    char buffer[BUFFER + 1];
    size_t used;
} Client;

static const char *errno_word(const char *during)
{
    static _Thread_local char text[160];

    snprintf(text, sizeof(text), "%s: %s", during, errno == EAGAIN ? "timeout" : strerror(errno));
    return text;
}

static const char *open_connection(Client *c)
{
    struct timeval limit = {.tv_sec = (time_t)timeout_seconds};
    int one = 1;

    c->used = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return errno_word("socket");
    (void)setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return connect(c->fd, (struct sockaddr *)&target, sizeof(target)) < 0 ? errno_word("connect") : NULL;
}

static void close_connection(Client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static const char *send_all(int fd, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, text, size, MSG_NOSIGNAL);

        if (n <= 0)
            return errno_word("send");
        text += n;
        size -= (size_t)n;
    }
    return NULL;
}

static const char *send_request(Client *c)
{
    static const char *const paths[MODES] = {"GET /", "GET /", "GET /slow", "POST /upload", "GET /tunnel"};
    char head[512], body[8192], query[40] = "";
    const char *problem;
    size_t size;

    if (c->mode == TUNNEL)
        snprintf(query, sizeof(query), "?%g", tunnel_seconds);
    size = (size_t)snprintf(head, sizeof(head), "%s%s HTTP/1.1\r\nHost: test\r\n", paths[c->mode], query);
    if (c->mode == UPLOAD)
        size += (size_t)snprintf(head + size, sizeof(head) - size, "Content-Length: %d\r\n", UPLOAD_SIZE);
    if (c->mode == TUNNEL)
        size += (size_t)snprintf(head + size, sizeof(head) - size, "Connection: Upgrade\r\nUpgrade: kiln-test\r\n\r\n");
    else
        size += (size_t)snprintf(head + size, sizeof(head) - size, "%s\r\n", c->mode == KEEPALIVE ? "" : "Connection: close\r\n");
    problem = send_all(c->fd, head, size);
    memset(body, 'x', sizeof(body));
    for (size_t left = UPLOAD_SIZE; !problem && c->mode == UPLOAD && left > 0; left -= sizeof(body)) {
        problem = send_all(c->fd, body, sizeof(body));
        usleep(2000); /* so that an upload takes a while */
    }
    return problem;
}

/* More bytes; "closed" at the end of the stream. */
static const char *receive(Client *c)
{
    ssize_t n;

    if (c->used == BUFFER)
        return "answer too long";
    n = recv(c->fd, c->buffer + c->used, BUFFER - c->used, 0);
    if (n == 0)
        return "closed";
    if (n < 0)
        return errno_word("receive");
    c->used += (size_t)n;
    c->buffer[c->used] = '\0';
    return NULL;
}

static const char *read_head(Client *c, char **ret_body)
{
    const char *problem;

    c->buffer[c->used] = '\0';
    while (!strstr(c->buffer, "\r\n\r\n")) {
        problem = receive(c);
        if (problem)
            return problem;
    }
    *ret_body = strstr(c->buffer, "\r\n\r\n") + 4;
    return NULL;
}

static const char *read_length(Client *c, char *body, bool *ret_close)
{
    const char *field = strcasestr(c->buffer, "\r\ncontent-length:"), *problem;
    size_t length;

    if (!field || field > body)
        return "no content-length";
    length = strtoul(field + 17, NULL, 10);
    field = strcasestr(c->buffer, "\r\nconnection: close");
    *ret_close = field && field < body;
    while ((size_t)(c->buffer + c->used - body) < length) {
        problem = receive(c);
        if (problem)
            return strcmp(problem, "closed") == 0 ? "short body" : problem;
    }
    return NULL;
}

static const char *read_tunnel(Client *c, char *body)
{
    char first[200];
    const char *problem;
    size_t size;

    for (;;) {
        if (strstr(body, "end\n"))
            return NULL;
        problem = receive(c);
        if (problem)
            return strcmp(problem, "closed") == 0 ? "tunnel cut" : problem;
        size = strcspn(body, "\n");
        snprintf(first, sizeof(first), "%.*s", (int)(size < 190 ? size : 190), body);
        if (c->used > BUFFER / 2) { /* keep the first line and the end */
            memmove(body + size + 1, c->buffer + c->used - 16, 17);
            c->used = (size_t)(body - c->buffer) + size + 1 + 16;
        }
    }
}

static bool version_of(const char *body, char *ret, size_t size)
{
    size_t i = 0;

    if (strncmp(body, "version ", 8) != 0)
        return false;
    for (body += 8; *body && *body != '\n' && i + 1 < size; body++)
        ret[i++] = (*body == '"' || *body == '\\' || (unsigned char)*body < ' ') ? '?' : *body;
    ret[i] = '\0';
    return i > 0;
}

/* NULL when all was well. *ret_again: a kept connection was closed before a byte came. */
static const char *exchange(Client *c, int64_t *ret_sent, bool *ret_again)
{
    bool kept = c->fd >= 0, close_after = c->mode != KEEPALIVE;
    char version[128], status[64], *body = NULL;
    const char *problem = kept ? NULL : open_connection(c);
    static _Thread_local char words[80];

    c->used = 0;
    *ret_again = false;
    *ret_sent = now_ms();
    if (!problem)
        problem = send_request(c);
    if (!problem && c->mode != UPLOAD)
        *ret_sent = now_ms();
    if (!problem)
        problem = read_head(c, &body);
    if (problem && kept && c->used == 0) {
        *ret_again = true;
        return problem;
    }
    if (problem)
        return problem;
    snprintf(status, sizeof(status), "%.*s", (int)strcspn(c->buffer, "\r"), c->buffer);
    if (strncmp(c->buffer, c->mode == TUNNEL ? "HTTP/1.1 101" : "HTTP/1.1 200", 12) != 0) {
        snprintf(words, sizeof(words), "%s", status);
        return words;
    }
    problem = c->mode == TUNNEL ? read_tunnel(c, body) : read_length(c, body, &close_after);
    if (problem)
        return problem;
    if (!version_of(body, version, sizeof(version)))
        return "body without a version";
    count_version(version, *ret_sent);
    if (close_after || c->mode != KEEPALIVE)
        close_connection(c);
    return NULL;
}

static void *run(void *arg)
{
    Client *c = arg;

    while (!stopping) {
        int64_t sent;
        bool again = false;
        const char *problem = exchange(c, &sent, &again);

        if (problem)
            close_connection(c);
        if (problem && again) {
            atomic_fetch_add(&retried, 1);
            problem = exchange(c, &sent, &again);
            if (problem)
                close_connection(c);
        }
        atomic_fetch_add(&requests[c->mode], 1);
        if (problem)
            count_error(c->mode, problem, sent);
        if (wanted > 0 && atomic_fetch_add(&total, 1) + 1 >= wanted)
            stopping = 1;
        if (problem)
            usleep(20000); /* a refused connection comes back at once: one client shall not count it by the thousand */
        else if (c->mode == KEEPALIVE || c->mode == NEW)
            usleep((useconds_t)(think_ms * 1000));
    }
    close_connection(c);
    free(c);
    return NULL;
}

/* --- the document --- */

static void print_seen(const char *title, int what)
{
    printf(", \"%s\": {", title);
    for (unsigned i = 0; i < VERSIONS && seen[i].count > 0; i++)
        printf("%s\"%s\": %lld", i > 0 ? ", " : "", seen[i].version,
               (long long)(what == 0 ? (int64_t)seen[i].count : what == 1 ? seen[i].first : seen[i].last));
    printf("}");
}

static void print_result(double seconds)
{
    uint64_t all = 0, bad = 0;

    for (unsigned i = 0; i < MODES; i++) {
        all += requests[i];
        bad += lost[i];
    }
    printf("{\"requests\": %llu, \"lost\": %llu, \"retried\": %llu, \"seconds\": %.1f", (unsigned long long)all, (unsigned long long)bad,
           (unsigned long long)retried, seconds);
    print_seen("by_version", 0);
    printf(", \"by_mode\": {");
    for (unsigned i = 0; i < MODES; i++)
        printf("%s\"%s\": {\"requests\": %llu, \"lost\": %llu}", i > 0 ? ", " : "", mode_names[i], (unsigned long long)requests[i],
               (unsigned long long)lost[i]);
    printf("}");
    print_seen("first_seen", 1);
    print_seen("last_seen", 2);
    printf(", \"first_errors\": [");
    for (unsigned i = 0; i < error_count; i++) {
        for (char *c = first_errors[i]; *c; c++)
            if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ' || (unsigned char)*c > '~')
                *c = '?';
        printf("%s\"%s\"", i > 0 ? ", " : "", first_errors[i]);
    }
    printf("]}\n");
}

static void on_signal(int number)
{
    stopping = 1;
}

static bool parse_option(const char *word, const char *value)
{
    for (unsigned i = 0; i < MODES; i++)
        if (strcmp(word + 2, mode_names[i]) == 0) {
            clients[i] = (unsigned)atoi(value);
            return true;
        }
    if (strcmp(word, "--seconds") == 0)
        run_seconds = strtod(value, NULL);
    else if (strcmp(word, "--requests") == 0)
        wanted = strtoull(value, NULL, 10);
    else if (strcmp(word, "--tunnel-seconds") == 0)
        tunnel_seconds = strtod(value, NULL);
    else if (strcmp(word, "--think") == 0)
        think_ms = strtod(value, NULL);
    else if (strcmp(word, "--timeout") == 0)
        timeout_seconds = strtod(value, NULL);
    else
        return false;
    return true;
}

static void parse(int argc, char **argv)
{
    char host[64];
    const char *colon = argc > 1 ? strrchr(argv[1], ':') : NULL;

    target.sin_family = AF_INET;
    if (colon) {
        snprintf(host, sizeof(host), "%.*s", (int)(colon - argv[1]), argv[1]);
        target.sin_port = htons((uint16_t)atoi(colon + 1));
    }
    if (!colon || inet_pton(AF_INET, host, &target.sin_addr) != 1) {
        fprintf(stderr, "usage: load ADDR:PORT [options]\n");
        exit(2);
    }
    for (int i = 2; i < argc; i += 2)
        if (strncmp(argv[i], "--", 2) != 0 || i + 1 >= argc || !parse_option(argv[i], argv[i + 1])) {
            fprintf(stderr, "load: unknown word '%s'\n", argv[i]);
            exit(2);
        }
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};
    pthread_t threads[1024];
    unsigned count = 0;
    int64_t began = now_ms();

    parse(argc, argv);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    for (unsigned mode = 0; mode < MODES; mode++)
        for (unsigned i = 0; i < clients[mode] && count < 1024; i++) {
            Client *c = calloc(1, sizeof(*c));

            c->mode = mode;
            c->fd = -1;
            if (pthread_create(&threads[count], NULL, run, c) == 0)
                count++;
        }
    while (!stopping) {
        usleep(20000);
        if (run_seconds > 0 && (double)(now_ms() - began) >= run_seconds * 1000)
            stopping = 1;
    }
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    print_result((double)(now_ms() - began) / 1000);
    return 0;
}
