/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Ansible asks of the guest: run a command line, put a file, get a file.
 *
 * Standard input (with pipelining: the module, some hundred kilobytes) is put on the step's tmpfs first and the command's shell reads it
 * from there, so that no secret in it touches the disk and the guest's port needs no further word. The one who asks is a process
 * of the same user in the same step; sizes are bounded all the same, since what it sends may come from a playbook of any kind.
 */
#include "provisioner/ansible-server.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/scope.h"
#include "provisioner/guest-file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#define HEAD_MAX (4u << 20)
#define INPUT_MAX (256u << 20)
#define OUTPUT_MAX (64u << 20) /* of each stream */
#define FETCH_MAX (8ull << 30)
#define WAIT_SECONDS 60 /* for the rest of a request, or of an answer's way out */

/* From / as the working folder, since a guest that is a folder of a test has its root there; then to where a login would begin. */
static const char shell_script[] = "exec <." ANSIBLE_INPUT_PATH "; cd 2>/dev/null || :; eval \"$1\"";

struct AnsibleServer {
    int fd;
    char *path;
    const ProvisionerHost *host;
    Guest *guest;
    char **env;
};

int ansible_server_fd(const AnsibleServer *server)
{
    return server->fd;
}

void ansible_server_close(AnsibleServer *server)
{
    if (!server)
        return;
    scope_close_fd(&server->fd);
    if (server->path)
        (void)unlink(server->path); /* its folder goes anyway */
    g_free(server->path);
    g_strfreev(server->env);
    g_free(server);
}

bool ansible_server_open(const char *path, const ProvisionerHost *host, Guest *guest, AnsibleServer **ret,
                         GError **error)
{
    g_autoptr(AnsibleServer) server = g_new0(AnsibleServer, 1);
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    server->host = host;
    server->guest = guest;
    server->env = g_environ_setenv(g_strdupv((char **)host->env), "PYTHONDONTWRITEBYTECODE", "1", TRUE);
    server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (strlen(path) >= sizeof address.sun_path)
        return fail(error, "the path '%s' is too long for a socket; set TMPDIR to a shorter folder", path);
    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    if (server->fd < 0 || bind(server->fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(server->fd, 64) < 0)
        return fail_errno(error, "listen at '%s'", path);
    server->path = g_strdup(path);
    *ret = g_steal_pointer(&server);
    return true;
}

/* --- bytes --- */

typedef struct Request {
    int fd;
    json_t *head;
    GByteArray *body;
} Request;

static void request_clear(Request *r)
{
    scope_close_fd(&r->fd);
    json_decref(r->head);
    if (r->body)
        g_byte_array_unref(r->body);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Request, request_clear)

static bool receive(int fd, void *data, size_t size, GError **error)
{
    for (uint8_t *at = data; size;) {
        ssize_t n = recv(fd, at, size, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(error, "read what ansible asks");
        if (n == 0)
            return fail(error, "ansible stopped in the middle of a request");
        at += n;
        size -= (size_t)n;
    }
    return true;
}

/* An asker that is gone has no use for an answer: not an error. */
static void answer(int fd, const json_t *head, const GByteArray *out, const GByteArray *err)
{
    g_autofree char *text = json_canonical(head);
    uint32_t sizes[2] = {GUINT32_TO_BE((uint32_t)strlen(text)),
                         GUINT32_TO_BE((out ? out->len : 0) + (err ? err->len : 0))};
    const struct {
        const void *data;
        size_t size;
    } parts[] = {{sizes, sizeof sizes},
                 {text, strlen(text)},
                 {out ? out->data : NULL, out ? out->len : 0},
                 {err ? err->data : NULL, err ? err->len : 0}};

    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++)
        for (size_t at = 0; at < parts[i].size;) {
            ssize_t n = send(fd, (const char *)parts[i].data + at, parts[i].size - at, MSG_NOSIGNAL);

            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                return;
            at += (size_t)n;
        }
}

static bool read_request(Request *r, GError **error)
{
    const struct timeval patience = {.tv_sec = WAIT_SECONDS};
    g_autofree char *text = NULL;
    uint32_t sizes[2];

    (void)setsockopt(r->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    (void)setsockopt(r->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (!receive(r->fd, sizes, sizeof sizes, error))
        return false;
    for (int i = 0; i < 2; i++)
        sizes[i] = GUINT32_FROM_BE(sizes[i]);
    if (sizes[0] > HEAD_MAX || sizes[1] > INPUT_MAX)
        return fail(error, "ansible asks for a command of more than %u MiB or gives it more than %u MiB",
                    HEAD_MAX >> 20, INPUT_MAX >> 20);
    text = g_malloc(sizes[0] + 1);
    r->body = g_byte_array_sized_new(sizes[1]);
    g_byte_array_set_size(r->body, sizes[1]);
    return receive(r->fd, text, sizes[0], error) && receive(r->fd, r->body->data, sizes[1], error) &&
           json_parse(text, sizes[0], HEAD_MAX, "what ansible asks", &r->head, error);
}

static bool word(const Request *r, const char *name, const char **ret, GError **error)
{
    *ret = json_string_value(json_object_get(r->head, name));
    return *ret || fail(error, "ansible's request has no '%s'", name);
}

/* --- what can be asked --- */

typedef struct Output {
    GByteArray *streams[2];
    bool too_much;
} Output;

static void collect(const void *data, size_t size, bool is_stderr, void *arg)
{
    Output *output = arg;
    GByteArray *stream = output->streams[is_stderr];

    if (size > OUTPUT_MAX - stream->len)
        output->too_much = true;
    else
        g_byte_array_append(stream, data, (guint)size);
}

static bool put_input(AnsibleServer *s, const Request *r, GError **error)
{
    const GuestFile meta = {.mode = 0600, .mtime = s->host->epoch};

    return guest_put_bytes(s->guest, ANSIBLE_INPUT_PATH, r->body->data, r->body->len, &meta, error);
}

static bool answer_exec(AnsibleServer *s, const Request *r, GError **error)
{
    g_autoptr(GByteArray) out = g_byte_array_new(), err = g_byte_array_new();
    Output output = {.streams = {out, err}};
    const char *argv[] = {"/bin/sh", "-c", shell_script, "sh", NULL, NULL};
    const GuestExec exec = {
        .argv = argv, .env = (const char *const *)s->env, .output = collect, .arg = &output};
    g_autoptr(json_t) head = NULL;
    gint64 asked = g_get_monotonic_time(), began, ended;
    int code = 0;

    if (!word(r, "command", &argv[4], error) || !put_input(s, r, error))
        return false;
    began = g_get_monotonic_time();
    if (!s->guest->ops->exec(s->guest, &exec, &code, error))
        return false;
    ended = g_get_monotonic_time();
    trace("provisioner.ansible", "put %u bytes in %.3f s, ran in %.3f s: %.80s", r->body->len,
          (double)(began - asked) / G_USEC_PER_SEC, (double)(ended - began) / G_USEC_PER_SEC, argv[4]);
    if (output.too_much)
        return fail(error, "a module printed more than %u MiB", OUTPUT_MAX >> 20);
    head = json_pack("{s:i,s:I}", "code", code, "out", (json_int_t)out->len);
    answer(r->fd, head, out, err);
    return true;
}

static bool answer_done(const Request *r)
{
    g_autoptr(json_t) head = json_object();

    answer(r->fd, head, NULL, NULL);
    return true;
}

static bool answer_put(AnsibleServer *s, const Request *r, GError **error)
{
    const GuestFile meta = {.mode = 0600, .mtime = s->host->epoch};
    const char *from, *to;
    auto_fd int fd = -1;

    if (!word(r, "from", &from, error) || !word(r, "to", &to, error))
        return false;
    fd = open(from, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return fail_errno(error, "read '%s'", from);
    return s->guest->ops->put(s->guest, fd, to, &meta, error) && answer_done(r);
}

static bool answer_get(AnsibleServer *s, const Request *r, GError **error)
{
    const char *from, *to;
    auto_fd int fd = -1;

    if (!word(r, "from", &from, error) || !word(r, "to", &to, error))
        return false;
    fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        return fail_errno(error, "write '%s'", to);
    return s->guest->ops->get(s->guest, from, fd, FETCH_MAX, error) && answer_done(r);
}

static bool answer_request(AnsibleServer *s, Request *r, GError **error)
{
    const char *op;

    if (!read_request(r, error) || !word(r, "op", &op, error))
        return false;
    return strcmp(op, "exec") == 0  ? answer_exec(s, r, error)
           : strcmp(op, "put") == 0 ? answer_put(s, r, error)
           : strcmp(op, "get") == 0 ? answer_get(s, r, error)
                                    : fail(error, "ansible asks for '%s', which kiln does not know", op);
}

/* What is about one request is ansible's to report; a limit or an interrupt is about the step. */
static bool is_final(const GError *problem)
{
    return g_error_matches(problem, KILN_ERROR, KILN_ERROR_TIMEOUT) ||
           g_error_matches(problem, KILN_ERROR, KILN_ERROR_INTERRUPTED);
}

bool ansible_server_answer(void *server, GError **error)
{
    AnsibleServer *s = server;
    g_auto(Request) r = {.fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC)};
    g_autoptr(GError) problem = NULL;
    g_autoptr(json_t) head = NULL;

    if (r.fd < 0 || answer_request(s, &r, &problem))
        return true; /* an asker that went away again, or all well */
    if (is_final(problem)) {
        g_propagate_error(error, g_steal_pointer(&problem));
        return false;
    }
    head = json_pack("{s:s}", "error", problem->message);
    answer(r.fd, head, NULL, NULL);
    return true;
}
