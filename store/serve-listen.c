/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is open to whom is decided by the socket itself, also when systemd made it: its address is asked for, and no word of a unit is believed.
 */
#include "store/serve-listen.h"

#include "base/error.h"
#include "base/scope.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define DEFAULT_LISTEN "127.0.0.1:5000"
#define ACTIVATED_FIRST 3
#define ACTIVATED_MAX 16
#define BACKLOG 511

static void socket_free(gpointer data)
{
    ServeSocket *socket = data;

    scope_close_fd(&socket->fd);
    g_free(socket->url);
    g_free(socket);
}

/* --- what is allowed ---------------------------------------------------------------------- */

static bool is_own(const struct sockaddr_storage *address)
{
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;

    if (address->ss_family == AF_UNIX)
        return true;
    if (address->ss_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    return address->ss_family == AF_INET6 &&
           (IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) || (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127));
}

static char *url_of(const ServeOptions *options, const struct sockaddr_storage *address)
{
    const char *scheme = options->certificate ? "https" : "http";
    char text[INET6_ADDRSTRLEN] = "";

    if (address->ss_family == AF_UNIX)
        return g_strdup_printf("%s+unix://%s", scheme, ((const struct sockaddr_un *)address)->sun_path);
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;

        return g_strdup_printf("%s://%s:%u", scheme, inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text), ntohs(v4->sin_port));
    }
    return g_strdup_printf("%s://[%s]:%u", scheme, inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, text, sizeof text),
                           ntohs(((const struct sockaddr_in6 *)address)->sin6_port));
}

/* Takes @fd. */
static bool add(const ServeOptions *options, int fd, GPtrArray *to, GError **error)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    ServeSocket *socket = g_new0(ServeSocket, 1);

    socket->fd = fd;
    g_ptr_array_add(to, socket);
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        return fail_errno(error, "use a socket to listen on");
    socket->url = url_of(options, &address);
    if (is_own(&address))
        return true;
    if (!options->htpasswd)
        return fail_code(error, KILN_ERROR_USAGE, "%s is open to other machines: without users (--htpasswd FILE) kiln serves this machine only", socket->url);
    return options->certificate || options->plain_http ||
           fail_code(error, KILN_ERROR_USAGE,
                     "%s is open to other machines, and passwords would travel in the clear: give --tls-cert and --tls-key, or --plain-http behind a proxy that has TLS",
                     socket->url);
}

/* --- sockets of our own --------------------------------------------------------------------- */

static bool split(const char *text, char **ret_host, char **ret_port, GError **error)
{
    const char *colon = strrchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : 0;
    guint64 port;

    if (!colon || !g_ascii_string_to_unsigned(colon + 1, 10, 0, 65535, &port, NULL) || (memchr(text, ':', size) && *text != '['))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no address to listen on: HOST:PORT, [V6]:PORT or :PORT", text);
    *ret_port = g_strdup(colon + 1);
    *ret_host = *text == '[' && size >= 2 && text[size - 1] == ']' ? g_strndup(text + 1, size - 2) : g_strndup(text, size);
    return true;
}

static int listen_on(const struct addrinfo *info)
{
    auto_fd int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (info->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
        return -1;
    return g_steal_fd(&fd);
}

/* All addresses of the host; where one kind of them is not had on this machine, the other is enough. */
static bool open_address(const ServeOptions *options, const char *text, GPtrArray *to, GError **error)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    g_autofree char *host = NULL, *port = NULL;
    struct addrinfo *list = NULL;
    unsigned opened = 0;
    bool ok = true;
    int rc;

    if (!split(text, &host, &port, error))
        return false;
    rc = getaddrinfo(*host ? host : NULL, port, &hints, &list);
    if (rc != 0)
        return fail(error, "cannot listen on '%s': %s", text, gai_strerror(rc));
    for (const struct addrinfo *info = list; info && ok; info = info->ai_next) {
        int fd = listen_on(info);

        if (fd < 0 && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL) && (info->ai_next || opened))
            continue;
        ok = fd >= 0 ? add(options, fd, to, error) : fail_errno(error, "listen on '%s'", text);
        opened++;
    }
    freeaddrinfo(list);
    return ok;
}

/* --- systemd ------------------------------------------------------------------------------------ */

static int activated(void)
{
    const char *pid = g_getenv("LISTEN_PID"), *count = g_getenv("LISTEN_FDS");
    guint64 number, fds = 0;

    if (!pid || !count || !g_ascii_string_to_unsigned(pid, 10, 1, G_MAXINT, &number, NULL) || (pid_t)number != getpid() ||
        !g_ascii_string_to_unsigned(count, 10, 0, ACTIVATED_MAX, &fds, NULL))
        return 0;
    g_unsetenv("LISTEN_PID");
    g_unsetenv("LISTEN_FDS");
    g_unsetenv("LISTEN_FDNAMES");
    return (int)fds;
}

static bool take_activated(const ServeOptions *options, int count, GPtrArray *to, GError **error)
{
    for (int fd = ACTIVATED_FIRST; fd < ACTIVATED_FIRST + count; fd++) {
        int listening = 0;
        socklen_t size = sizeof listening;

        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 || !listening)
            return fail(error, "descriptor %d, which systemd handed over, is no listening socket: the unit needs Accept=no and ListenStream=", fd);
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        if (!add(options, fd, to, error))
            return false;
    }
    return true;
}

bool serve_listen(const ServeOptions *options, GPtrArray **ret, GError **error)
{
    static const char *const by_default[] = {DEFAULT_LISTEN, NULL};
    g_autoptr(GPtrArray) sockets = g_ptr_array_new_with_free_func(socket_free);
    int count = options->listen ? 0 : activated();

    if (count && !take_activated(options, count, sockets, error))
        return false;
    for (const char *const *address = options->listen ? options->listen : by_default; !count && *address; address++)
        if (!open_address(options, *address, sockets, error))
            return false;
    *ret = g_steal_pointer(&sockets);
    return true;
}

void serve_notify(const char *state)
{
    const char *path = g_getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_fd int fd = -1;
    socklen_t size;

    if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof address.sun_path)
        return;
    (void)g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (*path == '@')
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, size); /* nobody's business but systemd's */
}
