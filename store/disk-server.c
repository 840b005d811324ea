/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts nbdkit with our plugin on an address of the user's, and stays until it is told to end.
 *
 * nbdkit would say by itself that it cannot listen, in words of its own; so the address is tried first. A socket that nobody listens on is
 * what a kiln left that was killed, and is taken away.
 */
#include "store/disk-server.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/libexec.h"
#include "base/log.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/nbd-control.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define END_GRACE 3.0

typedef struct Server {
    char *socket; /* absolute; NULL: a port */
    char *plugin, *uri;
    int control, server_control;
    pid_t pid; /* 0: not started */
    struct stat made; /* the socket, once it listens */
} Server;

/* --- the address --- */

static bool check_socket(const char *path, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat st;

    if (strlen(path) >= sizeof address.sun_path)
        return fail_code(error, KILN_ERROR_USAGE, "the socket '%s' has a path of more than %zu bytes: choose a shorter one", path,
                         sizeof address.sun_path - 1);
    if (lstat(path, &st) < 0)
        return errno == ENOENT || fail_errno(error, "make the socket '%s'", path);
    if (!S_ISSOCK(st.st_mode))
        return fail(error, "'%s' is there already and is no socket; it is left as it is", path);
    (void)g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno != ECONNREFUSED)
        return fail(error, "another server listens on the socket '%s'", path);
    return unlink(path) == 0 || fail_errno(error, "remove the old socket '%s'", path);
}

static bool check_port(unsigned port, GError **error)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    auto_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return fail_errno(error, "listen on 127.0.0.1:%u", port);
    return true;
}

static bool place(Server *server, const DiskAddress *address, GError **error)
{
    g_autofree char *escaped = NULL;

    if (!address->socket) {
        server->uri = g_strdup_printf("nbd://127.0.0.1:%u", address->port);
        return check_port(address->port, error);
    }
    server->socket = g_canonicalize_filename(address->socket, NULL);
    escaped = g_uri_escape_string(server->socket, "/", false);
    server->uri = g_strconcat("nbd+unix:///?socket=", escaped, NULL);
    return check_socket(server->socket, error);
}

/* --- the process --- */

static char **server_argv(const Server *server, const Store *store, const Digest *map, unsigned port)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    char hex[DIGEST_HEX_SIZE];

    g_ptr_array_add(argv, g_strdup("nbdkit"));
    g_ptr_array_add(argv, g_strdup("-f"));
    g_ptr_array_add(argv, g_strdup("-r"));
    g_ptr_array_add(argv, g_strdup("--exit-with-parent"));
    g_ptr_array_add(argv, g_strdup(server->socket ? "-U" : "-p"));
    g_ptr_array_add(argv, server->socket ? g_strdup(server->socket) : g_strdup_printf("%u", port));
    if (!server->socket)
        g_ptr_array_add(argv, g_strdup("--ipaddr=127.0.0.1"));
    g_ptr_array_add(argv, g_strdup(server->plugin));
    g_ptr_array_add(argv, g_strdup_printf("store=%s", store_path(store)));
    g_ptr_array_add(argv, g_strdup_printf("map=%s", digest_to_hex(map, hex)));
    g_ptr_array_add(argv, g_strdup_printf("control=%d", server->server_control));
    if (server->socket)
        g_ptr_array_add(argv, g_strdup_printf("scratch=%s", server->socket));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&argv), FALSE);
}

static bool start(Server *server, const Store *store, const Digest *map, unsigned port, GError **error)
{
    g_auto(GStrv) argv = NULL;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return fail_errno(error, "make a socket pair");
    server->control = pair[0];
    server->server_control = pair[1];
    argv = server_argv(server, store, map, port);
    int keep[] = {server->server_control, -1};
    ProcessSpec spec = {.argv = (const char *const *)argv, .keep_fds = keep, .inherit_stderr = true};

    if (!process_spawn(&spec, &server->pid, error))
        return false;
    scope_close_fd(&server->server_control); /* so that the server's death ends our reads */
    server->server_control = -1;
    if (!nbd_control_answer(server->control, NULL, error))
        return false;
    if (server->socket && lstat(server->socket, &server->made) < 0)
        return fail_errno(error, "make the socket '%s'", server->socket);
    return true;
}

static bool ours_still(const Server *server)
{
    struct stat st;

    return lstat(server->socket, &st) == 0 && st.st_dev == server->made.st_dev && st.st_ino == server->made.st_ino;
}

static void server_clear(Server *server)
{
    if (server->control >= 0)
        (void)shutdown(server->control, SHUT_RDWR); /* also ends a server whose clients hang on */
    if (server->pid > 0)
        process_end(server->pid, END_GRACE);
    if (server->socket && server->made.st_ino && ours_still(server))
        (void)unlink(server->socket); /* nbdkit has done it, unless it was killed */
    scope_close_fd(&server->control);
    scope_close_fd(&server->server_control);
    g_free(server->socket);
    g_free(server->plugin);
    g_free(server->uri);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Server, server_clear)

/* Clients learn no more than "I/O error"; the sentence comes here. */
static bool wait_for_end(const Server *server, GError **error)
{
    char line[NBD_CONTROL_LINE_MAX];

    while (!interrupt_requested()) {
        struct pollfd wait[] = {{server->control, POLLIN, 0}, {interrupt_fd(), POLLIN, 0}};

        if (poll(wait, G_N_ELEMENTS(wait), -1) < 0 && errno != EINTR)
            return fail_errno(error, "wait for the disk's server");
        if (interrupt_requested() || !wait[0].revents)
            continue;
        if (!nbd_control_read(server->control, line, error))
            return false;
        if (g_str_has_prefix(line, "failed "))
            log_warning("%s", line + strlen("failed "));
    }
    return true;
}

bool disk_serve(Store *store, const Digest *map, const DiskAddress *address, DiskServeFn *ready, void *arg, GError **error)
{
    g_auto(Server) server = {.control = -1, .server_control = -1};

    if (!libexec_find(NBD_PLUGIN_FILE, &server.plugin, error) || !place(&server, address, error) ||
        !start(&server, store, map, address->port, error))
        return fail_prefix(error, "serve the disk");
    ready(server.uri, arg);
    return wait_for_end(&server, error) || fail_prefix(error, "serve the disk");
}
