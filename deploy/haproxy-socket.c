/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime API's client. Non-blocking from connect to the last byte, so that a stopped balancer holds a call up for two seconds and no
 * longer; whoever answers a byte at a time gains no time by it.
 */
#include "deploy/haproxy-socket.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static bool wait_for(int fd, short events, int64_t deadline, const char *path, GError **error)
{
    struct pollfd waited = {.fd = fd, .events = events};

    for (;;) {
        int64_t left = deadline - g_get_monotonic_time();
        int n;

        if (left <= 0)
            return fail_code(error, KILN_ERROR_TIMEOUT, "HAProxy at '%s' does not answer within %.0f seconds", path, HAPROXY_TIMEOUT);
        n = poll(&waited, 1, (int)(left / 1000) + 1);
        if (n > 0)
            return true;
        if (n < 0 && errno != EINTR)
            return fail_errno(error, "wait for HAProxy at '%s'", path);
    }
}

static bool connect_to(const char *path, int64_t deadline, int *ret_fd, GError **error)
{
    auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (fd < 0)
        return fail_errno(error, "make a socket");
    if (strlen(path) >= sizeof(address.sun_path))
        return fail(error, "'%s' is too long for a socket's path", path);
    memcpy(address.sun_path, path, strlen(path));
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN) /* a full backlog */
            return fail_errno(error, "reach HAProxy at '%s'", path);
        if (g_get_monotonic_time() >= deadline)
            return fail_code(error, KILN_ERROR_TIMEOUT, "HAProxy at '%s' takes no connection within %.0f seconds", path, HAPROXY_TIMEOUT);
        g_usleep(20 * 1000);
    }
    *ret_fd = g_steal_fd(&fd);
    return true;
}

static bool send_all(int fd, const char *text, int64_t deadline, const char *path, GError **error)
{
    for (size_t left = strlen(text); left > 0;) {
        ssize_t n;

        if (!wait_for(fd, POLLOUT, deadline, path, error))
            return false;
        n = send(fd, text, left, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return fail_errno(error, "ask HAProxy at '%s'", path);
        if (n > 0) {
            text += n;
            left -= (size_t)n;
        }
    }
    return true;
}

static bool receive_all(int fd, GString *answer, int64_t deadline, const char *path, GError **error)
{
    char buffer[16384];

    for (;;) {
        ssize_t n;

        if (!wait_for(fd, POLLIN, deadline, path, error))
            return false;
        n = recv(fd, buffer, sizeof(buffer), 0);
        if (n == 0)
            return true;
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return fail_errno(error, "read the answer of HAProxy at '%s'", path);
        if (n > 0 && answer->len + (size_t)n > HAPROXY_ANSWER_MAX)
            return fail(error, "HAProxy at '%s' answers more than %d MiB", path, HAPROXY_ANSWER_MAX / (1024 * 1024));
        if (n > 0)
            g_string_append_len(answer, buffer, n);
    }
}

bool haproxy_ask(const char *socket_path, const char *commands, char **ret_answer, GError **error)
{
    int64_t deadline = g_get_monotonic_time() + (int64_t)(HAPROXY_TIMEOUT * G_USEC_PER_SEC);
    g_autofree char *line = g_strconcat(commands, "\n", NULL);
    g_autoptr(GString) answer = g_string_new(NULL);
    auto_fd int fd = -1;

    trace("deploy.haproxy", "%s: %s", socket_path, commands);
    if (!connect_to(socket_path, deadline, &fd, error) || !send_all(fd, line, deadline, socket_path, error) ||
        !receive_all(fd, answer, deadline, socket_path, error))
        return false;
    if (strlen(answer->str) != answer->len)
        return fail(error, "HAProxy at '%s' answers with bytes that are no text", socket_path);
    *ret_answer = g_string_free(g_steal_pointer(&answer), FALSE);
    return true;
}
