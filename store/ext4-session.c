/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader is a process that may crash, go round in circles or be turned against us, so: every message has a bound, a silence has an end, and
 * a child that is gone is asked how it went. It is given bytes of its own file system and nothing else.
 */
#include "store/ext4-session.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/libexec.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/disk-file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define READER_PROGRAM "kiln-ext4"
#define IN_SIZE (sizeof(Ext4Head) + EXT4_WIRE_MAX)

struct Ext4Session {
    StoreMap *map;
    uint64_t offset, size;
    int fd;
    pid_t pid;
    GThread *thread; /* instead of a process */
    uint8_t *in;     /* what came; IN_SIZE bytes */
    size_t from, to; /* not taken yet */
    uint8_t *out;    /* an answer to READ */
    GError *broken;  /* the disk could not be read: the reader only knows that there was nothing */
};

static void (*serve_here)(int in, int out);
static int patience_ms = 300 * 1000; /* it may not sleep, so its limit of processor time comes first where the machine is not very busy */

void ext4_session_serve_here(void (*serve)(int in, int out))
{
    serve_here = serve;
}

void ext4_session_set_patience(int ms)
{
    patience_ms = ms;
}

/* --- sentences --- */

static char *name_place(const Ext4Session *s)
{
    g_autoptr(GArray) parts = NULL;

    if (disk_partitions(s->map, &parts, NULL))
        for (guint i = 0; i < parts->len; i++) {
            const DiskPartition *part = &g_array_index(parts, DiskPartition, i);

            if (part->offset == s->offset && part->number)
                return g_strdup_printf("the ext4 file system in partition %u", part->number);
        }
    return s->offset ? g_strdup_printf("the ext4 file system at byte %" G_GUINT64_FORMAT " of the disk", s->offset)
                     : g_strdup("the ext4 file system of the disk");
}

static bool is_bad(const Ext4Session *s, GError **error, const char *why)
{
    g_autofree char *place = name_place(s);

    return fail(error, "%s cannot be read: %s; it is damaged or made to do harm: run e2fsck on it, or do without it", place, why);
}

bool ext4_session_nonsense(Ext4Session *s, GError **error)
{
    return is_bad(s, error, "its reader gave nonsense for an answer");
}

static char *tell_end(int status)
{
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

    switch (number) {
    case 0:
        return WEXITSTATUS(status) == 3 ? g_strdup("its reader could not be confined") : g_strdup("its reader ended");
    case SIGXCPU:
    case SIGKILL:
        return g_strdup_printf("its reader took more than %u seconds of processor time, or was killed", EXT4_SECONDS_MAX);
    case SIGSYS:
        return g_strdup("its reader tried what it may not do");
    case SIGABRT:
    case SIGTRAP:
        return g_strdup_printf("its reader gave up, by all appearances for want of memory (it may have %u MiB)", (unsigned)(EXT4_MEMORY_MAX >> 20));
    default:
        return g_strdup_printf("its reader crashed (%s)", g_strsignal(number));
    }
}

static bool is_gone(Ext4Session *s, GError **error)
{
    g_autofree char *why = NULL;
    int status = 0;

    if (s->pid > 0 && process_wait(s->pid, 2.0, &status, NULL)) {
        s->pid = 0;
        why = tell_end(status);
    }
    return is_bad(s, error, why ? why : "its reader ended");
}

/* --- bytes --- */

static bool wait_for(Ext4Session *s, short events, GError **error)
{
    struct pollfd fds[2] = {{s->fd, events, 0}, {interrupt_fd(), POLLIN, 0}};
    int ready;

    do {
        ready = poll(fds, 2, patience_ms);
    } while (ready < 0 && errno == EINTR && !interrupt_requested());
    if (!interrupt_check(error))
        return false;
    return ready != 0 || is_bad(s, error, "its reader does not answer");
}

static bool send_all(Ext4Session *s, const void *data, size_t size, GError **error)
{
    for (const uint8_t *p = data; size;) {
        ssize_t put = send(s->fd, p, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (put >= 0) {
            p += put;
            size -= (size_t)put;
        } else if (errno == EAGAIN || errno == EINTR) {
            if (!wait_for(s, POLLOUT, error))
                return false;
        } else {
            return is_gone(s, error);
        }
    }
    return true;
}

/* At least @size bytes that were not taken; @size <= IN_SIZE. */
static bool have(Ext4Session *s, size_t size, GError **error)
{
    if (s->from + size > IN_SIZE) {
        memmove(s->in, s->in + s->from, s->to - s->from);
        s->to -= s->from;
        s->from = 0;
    }
    while (s->to - s->from < size) {
        ssize_t got = recv(s->fd, s->in + s->to, IN_SIZE - s->to, MSG_DONTWAIT);

        if (got > 0) {
            s->to += (size_t)got;
        } else if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!wait_for(s, POLLIN, error))
                return false;
        } else {
            return is_gone(s, error);
        }
    }
    return true;
}

static bool give_bytes(Ext4Session *s, const Ext4Said *said, GError **error)
{
    Ext4Read request;
    uint32_t ok;

    if (said->size != sizeof request)
        return ext4_session_nonsense(s, error);
    memcpy(&request, said->data, sizeof request);
    if (request.size == 0 || request.size > EXT4_READ_MAX || request.at > s->size || request.size > s->size - request.at)
        return ext4_session_nonsense(s, error);
    ok = store_map_pread(s->map, s->out + sizeof ok, request.size, s->offset + request.at, s->broken ? NULL : &s->broken);
    memcpy(s->out, &ok, sizeof ok);
    return send_all(s, s->out, sizeof ok + (ok ? request.size : 0), error);
}

static bool reader_failed(Ext4Session *s, const Ext4Said *said, GError **error)
{
    g_autofree char *raw = g_strndup((const char *)said->data, MIN(said->size, (size_t)8192));
    g_autofree char *text = g_utf8_make_valid(raw, -1);

    if (s->broken) {
        g_propagate_error(error, g_steal_pointer(&s->broken));
        return fail_prefix(error, "cannot read the ext4 file system");
    }
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    return fail(error, "%s", text);
}

static bool next_word(Ext4Session *s, Ext4Said *ret, GError **error)
{
    Ext4Head head;

    if (!have(s, sizeof head, error))
        return false;
    memcpy(&head, s->in + s->from, sizeof head);
    if (head.word < EXT4_READ || head.word > EXT4_FAILED || head.size > EXT4_WIRE_MAX)
        return ext4_session_nonsense(s, error);
    if (!have(s, sizeof head + head.size, error))
        return false;
    *ret = (Ext4Said){(enum Ext4Word)head.word, s->in + s->from + sizeof head, head.size};
    s->from += sizeof head + head.size;
    return true;
}

/* The next word of an answer: what the reader asks for meanwhile, it gets. */
static bool next_said(Ext4Session *s, Ext4Said *ret, GError **error)
{
    for (;;) {
        if (!next_word(s, ret, error))
            return false;
        if (ret->word == EXT4_FAILED)
            return reader_failed(s, ret, error);
        if (ret->word != EXT4_READ)
            return true;
        if (!give_bytes(s, ret, error))
            return false;
    }
}

bool ext4_session_take(Ext4Session *s, Ext4Said *said, void *to, size_t size, GError **error)
{
    if (said->size < size)
        return ext4_session_nonsense(s, error);
    memcpy(to, said->data, size);
    said->data += size;
    said->size -= size;
    return true;
}

/* --- asking --- */

static bool ask(Ext4Session *s, enum Ext4Op op, const char *path, GError **error)
{
    Ext4Command command = {.op = op, .size = path ? strlen(path) : 0};

    if (command.size > EXT4_PATH_MAX)
        return fail(error, "the path '%s' is too long", path);
    return send_all(s, &command, sizeof command, error) && (!path || send_all(s, path, command.size, error));
}

bool ext4_session_each(Ext4Session *s, enum Ext4Op op, const char *path, Ext4SaidFn *fn, void *arg, GError **error)
{
    Ext4Said said;

    if (!ask(s, op, path, error))
        return false;
    for (;;) {
        if (!next_said(s, &said, error))
            return false;
        if (said.word == EXT4_DONE)
            return true;
        if (!fn(s, &said, arg, error))
            return false;
    }
}

/* --- opening --- */

static void *serve_thread(void *arg)
{
    int fd = GPOINTER_TO_INT(arg);

    serve_here(fd, fd);
    (void)close(fd);
    return NULL;
}

static bool start(Ext4Session *s, int theirs, GError **error)
{
    static const char *const env[] = {"LC_ALL=C", NULL};
    g_autofree char *program = NULL;
    const char *argv[2] = {NULL, NULL};
    ProcessSpec spec = {.argv = argv, .env = env, .cwd = "/", .stdin_fd = theirs, .stdout_fd = theirs};

    if (!libexec_find(READER_PROGRAM, &program, error))
        return false;
    argv[0] = program;
    return process_spawn(&spec, &s->pid, error);
}

static bool connect_reader(Ext4Session *s, GError **error)
{
    auto_fd int theirs = -1;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return fail_errno(error, "make a pair of sockets");
    s->fd = pair[0];
    theirs = pair[1];
    if (!serve_here)
        return start(s, theirs, error);
    s->thread = g_thread_new("ext4", serve_thread, GINT_TO_POINTER(g_steal_fd(&theirs)));
    return true;
}

static bool ask_open(Ext4Session *s, bool unsettled, Ext4Info *ret, GError **error)
{
    Ext4Command command = {.op = EXT4_OPEN, .arg = unsettled, .size = s->size};
    Ext4Said said;

    if (!send_all(s, &command, sizeof command, error) || !next_said(s, &said, error))
        return false;
    if (said.word != EXT4_INFO || said.size != sizeof *ret || !ext4_session_take(s, &said, ret, sizeof *ret, error))
        return ext4_session_nonsense(s, error);
    if (ret->block_size < 1024 || ret->block_size > 65536 || (ret->block_size & (ret->block_size - 1)) || ret->blocks > s->size / ret->block_size ||
        ret->first_block > 1 || ret->inodes > G_MAXUINT32)
        return ext4_session_nonsense(s, error);
    return next_said(s, &said, error) && (said.word == EXT4_DONE || ext4_session_nonsense(s, error));
}

bool ext4_session_open(StoreMap *map, uint64_t offset, uint64_t size, bool unsettled, Ext4Session **ret, Ext4Info *ret_info, GError **error)
{
    g_autoptr(Ext4Session) s = g_new0(Ext4Session, 1);

    s->fd = -1;
    s->map = map;
    s->offset = offset;
    s->size = size;
    if (offset > store_map_size(map) || size > store_map_size(map) - offset)
        return fail(error, "there is no ext4 file system");
    s->in = g_malloc(IN_SIZE);
    s->out = g_malloc(sizeof(uint32_t) + EXT4_READ_MAX);
    if (!connect_reader(s, error) || !ask_open(s, unsettled, ret_info, error))
        return false;
    *ret = g_steal_pointer(&s);
    return true;
}

void ext4_session_close(Ext4Session *s)
{
    if (!s)
        return;
    if (s->fd >= 0)
        (void)close(s->fd);
    if (s->thread)
        (void)g_thread_join(s->thread);
    if (s->pid > 0)
        process_end(s->pid, 0); /* it has nothing to finish */
    g_clear_error(&s->broken);
    g_free(s->in);
    g_free(s->out);
    g_free(s);
}
