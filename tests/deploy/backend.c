/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest service that a rollout can be tried with: it says which version it is. Static and alone, so that it can be the only file of a
 * container image, or a plain process.
 *
 *   backend [--version TEXT] [--listen ADDR:PORT] [--slow SECONDS] [--latency MS] [--errors PERCENT] [--start-delay SECONDS]
 *           [--sick-file FILE] [--broken]
 *
 *   GET /            200 "version TEXT"        GET /slow   the same, after --slow seconds (2)
 *   POST /upload     the same, when the whole body was read
 *   GET /tunnel?N    101, then "version TEXT" ten times a second for N seconds, then "end"
 *
 * --broken, or while FILE exists: everything is 503. --errors: so many of a hundred answers are 500. Without --version it is
 * $KILN_VERSION; without --listen it is $KILN_LISTEN, or $KILN_ADDRESS:$KILN_PORT, or 0.0.0.0:80.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX 16384
#define STACK (128 * 1024)

static const char *version = "unknown", *sick_file;
static double slow = 2, latency_ms, start_delay;
static unsigned errors_percent;
static bool broken;

typedef struct Connection {
    int fd;
    char buffer[HEAD_MAX + 1];
    size_t used;
} Connection;

static void nap(double seconds)
{
    if (seconds > 0)
        usleep((useconds_t)(seconds * 1e6));
}

static bool send_all(int fd, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, text, size, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        text += n;
        size -= (size_t)n;
    }
    return true;
}

/* Reads up to the empty line; *ret_size is the head's with it. */
static bool read_head(Connection *c, size_t *ret_size)
{
    for (;;) {
        char *end;
        ssize_t n;

        c->buffer[c->used] = '\0';
        end = strstr(c->buffer, "\r\n\r\n");
        if (end) {
            *ret_size = (size_t)(end - c->buffer) + 4;
            return true;
        }
        if (c->used == HEAD_MAX)
            return false;
        n = recv(c->fd, c->buffer + c->used, HEAD_MAX - c->used, 0);
        if (n <= 0)
            return false;
        c->used += (size_t)n;
    }
}

static void forget(Connection *c, size_t size)
{
    memmove(c->buffer, c->buffer + size, c->used - size);
    c->used -= size;
}

static bool read_body(Connection *c, size_t size)
{
    char sink[65536];
    size_t here = size < c->used ? size : c->used;

    forget(c, here);
    for (size -= here; size > 0;) {
        ssize_t n = recv(c->fd, sink, size < sizeof(sink) ? size : sizeof(sink), 0);

        if (n <= 0)
            return false;
        size -= (size_t)n;
    }
    return true;
}

static bool answer(Connection *c, const char *status, bool keep)
{
    char text[1024], body[600];
    int length = snprintf(body, sizeof(body), "version %.500s\n", version);
    int size = snprintf(text, sizeof(text), "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n%s", status, length,
                        keep ? "" : "Connection: close\r\n", body);

    return send_all(c->fd, text, (size_t)size) && keep;
}

static void tunnel(Connection *c, double seconds)
{
    static const char head[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: kiln-test\r\n\r\n";
    char line[600];
    int length = snprintf(line, sizeof(line), "version %.500s\n", version);

    if (!send_all(c->fd, head, sizeof(head) - 1))
        return;
    for (int left = (int)(seconds * 10); left > 0; left--) {
        if (!send_all(c->fd, line, (size_t)length))
            return;
        nap(0.1);
    }
    (void)send_all(c->fd, "end\n", 4);
}

static bool is_sick(void)
{
    return broken || (sick_file && access(sick_file, F_OK) == 0);
}

/* One request; false: the connection ends. */
static bool serve_one(Connection *c)
{
    size_t head, length = 0;
    const char *field;
    char path[200] = "";
    bool keep;

    if (!read_head(c, &head) || sscanf(c->buffer, "%*15s %199s", path) != 1)
        return false;
    c->buffer[head - 1] = '\0';
    field = strcasestr(c->buffer, "\r\ncontent-length:");
    if (field)
        length = strtoul(field + 17, NULL, 10);
    keep = !strcasestr(c->buffer, "\r\nconnection: close") && strstr(c->buffer, "HTTP/1.1\r\n");
    forget(c, head);
    if (!read_body(c, length))
        return false;
    if (is_sick())
        return answer(c, "503 Service Unavailable", keep);
    if (strncmp(path, "/tunnel", 7) == 0) {
        tunnel(c, path[7] == '?' ? strtod(path + 8, NULL) : 3);
        return false;
    }
    nap(latency_ms / 1000);
    if (strcmp(path, "/slow") == 0)
        nap(slow);
    if (errors_percent > 0 && (unsigned)(random() % 100) < errors_percent)
        return answer(c, "500 Internal Server Error", keep);
    return answer(c, "200 OK", keep);
}

static void *serve(void *arg)
{
    Connection *c = arg;

    while (serve_one(c))
        ;
    close(c->fd);
    free(c);
    return NULL;
}

static int listen_at(const char *where)
{
    char host[64] = "0.0.0.0";
    const char *colon = strrchr(where, ':');
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    if (colon && colon > where)
        snprintf(host, sizeof(host), "%.*s", (int)(colon - where), where);
    address.sin_port = htons((uint16_t)atoi(colon ? colon + 1 : where));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 512) < 0) {
        perror(where);
        exit(1);
    }
    return fd;
}

static void stop(int signal_number)
{
    _exit(0); /* also as process 1, where nothing ends by default */
}

static const char *parse(int argc, char **argv)
{
    const char *listen = getenv("KILN_LISTEN");
    static char given[64];

    if (!listen && getenv("KILN_ADDRESS") && getenv("KILN_PORT")) {
        (void)snprintf(given, sizeof given, "%s:%s", getenv("KILN_ADDRESS"), getenv("KILN_PORT"));
        listen = given;
    }

    if (getenv("KILN_VERSION"))
        version = getenv("KILN_VERSION");
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(word, "--broken") == 0) {
            broken = true;
            continue;
        }
        if (strcmp(word, "--version") == 0)
            version = value;
        else if (strcmp(word, "--listen") == 0)
            listen = value;
        else if (strcmp(word, "--slow") == 0)
            slow = strtod(value, NULL);
        else if (strcmp(word, "--latency") == 0)
            latency_ms = strtod(value, NULL);
        else if (strcmp(word, "--errors") == 0)
            errors_percent = (unsigned)atoi(value);
        else if (strcmp(word, "--start-delay") == 0)
            start_delay = strtod(value, NULL);
        else if (strcmp(word, "--sick-file") == 0)
            sick_file = value;
        else {
            fprintf(stderr, "backend: unknown word '%s'\n", word);
            exit(2);
        }
        i++;
    }
    return listen ? listen : "0.0.0.0:80";
}

int main(int argc, char **argv)
{
    const char *where = parse(argc, argv);
    pthread_attr_t attributes;
    int listener, one = 1;

    (void)signal(SIGTERM, stop);
    (void)signal(SIGINT, stop);
    nap(start_delay);
    listener = listen_at(where);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK + 65536);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        Connection *c;
        pthread_t thread;

        if (fd < 0)
            continue;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        c = calloc(1, sizeof(*c));
        if (c)
            c->fd = fd;
        if (!c || pthread_create(&thread, &attributes, serve, c) != 0) {
            close(fd);
            free(c);
        }
    }
}
