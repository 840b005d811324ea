/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of the conversation with the runner: see guest-channel.h and provisioner/runner/protocol.h.
 *
 * Two kinds of failure. The runner says ERR: the request failed, the conversation goes on. Anything else (silence, a frame out
 * of turn, the end of the socket, an interrupt) leaves host and guest with different ideas of what was done: channel_die().
 */
#include "baker/guest-channel.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/scope.h"
#include "provisioner/runner/protocol.h"
#include "store/store.h"

#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#define SILENCE_MAX 300.0 /* seconds without a byte while the runner works on a file or a freeze */
#define TIMEOUT_GRACE                                                                                        \
    2.0 /* the runner itself keeps a step's limit; this long after it we stop believing it */
#define LINE_MAX_BYTES (64 * 1024)
#define HANGUP_MAX 30.0 /* seconds for a shell to end once its terminal is gone */

struct GuestChannel {
    int fd;
    void (*on_dead)(void *arg);
    void *arg;
    bool dead, in_step;
    uint32_t request;
    int64_t step_limit; /* monotonic microseconds; 0: none */
    char *step_name;
    GuestLineFn *on_line;
    void *on_line_arg;
    GString *lines[2]; /* unfinished lines of stdout and stderr */
    uint8_t out[WIRE_HEADER_SIZE + WIRE_PAYLOAD_MAX];
    uint8_t in[WIRE_PAYLOAD_MAX];
};

typedef struct Frame {
    uint16_t type;
    WireReader payload;
} Frame;

GuestChannel *guest_channel_new(int fd, void (*on_dead)(void *arg), void *arg)
{
    GuestChannel *ch = g_new0(GuestChannel, 1);

    ch->fd = fd;
    ch->on_dead = on_dead;
    ch->arg = arg;
    ch->lines[0] = g_string_new(NULL);
    ch->lines[1] = g_string_new(NULL);
    return ch;
}

void guest_channel_free(GuestChannel *ch)
{
    if (!ch)
        return;
    scope_close_fd(&ch->fd);
    g_free(ch->step_name);
    g_string_free(ch->lines[0], TRUE);
    g_string_free(ch->lines[1], TRUE);
    g_free(ch);
}

bool guest_channel_is_dead(const GuestChannel *ch)
{
    return ch->dead;
}

/* Returns false, so that "return channel_die(...)" reads well after the error was set. */
static bool channel_die(GuestChannel *ch)
{
    if (!ch->dead) {
        ch->dead = true;
        ch->in_step = false;
        if (ch->on_dead)
            ch->on_dead(ch->arg);
    }
    return false;
}

static bool check_alive(GuestChannel *ch, GError **error)
{
    return !ch->dead || fail(error, "the guest is gone");
}

static const char *step_name(const GuestChannel *ch)
{
    return ch->step_name ? ch->step_name : "the step";
}

/* The moment until which we wait: the step's limit, or @silence seconds from now (0: for ever), whichever is
 * first. */
static int64_t wait_limit(const GuestChannel *ch, double silence)
{
    int64_t limit = silence > 0 ? g_get_monotonic_time() + (int64_t)(silence * G_USEC_PER_SEC) : 0;

    return ch->step_limit && (!limit || ch->step_limit < limit) ? ch->step_limit : limit;
}

static bool fail_waited(GuestChannel *ch, int64_t limit, GError **error)
{
    if (ch->step_limit && limit == ch->step_limit)
        (void)fail_code(error, KILN_ERROR_TIMEOUT, "%s passed its time limit and did not stop",
                        step_name(ch));
    else
        (void)fail_code(error, KILN_ERROR_TIMEOUT, "the guest does not answer any more");
    return channel_die(ch);
}

static bool fail_gone(GuestChannel *ch, GError **error)
{
    if (interrupt_check(error))
        (void)fail(error,
                   "the guest ended unexpectedly (its kernel crashed, or the virtual machine was killed)");
    return channel_die(ch);
}

/* Waits until the socket can be read (or written); @limit 0 is for ever. */
static bool channel_wait(GuestChannel *ch, short events, int64_t limit, GError **error)
{
    for (;;) {
        struct pollfd fds[] = {{.fd = ch->fd, .events = events}, {.fd = interrupt_fd(), .events = POLLIN}};
        int64_t left = limit ? limit - g_get_monotonic_time() : -1;

        if (limit && left <= 0)
            return fail_waited(ch, limit, error);
        if (!interrupt_check(error))
            return channel_die(ch);
        if (poll(fds, 2, limit ? (int)MIN(left / 1000 + 1, G_MAXINT) : -1) > 0 && fds[0].revents)
            return true;
    }
}

static bool channel_write(GuestChannel *ch, const uint8_t *data, size_t size, GError **error)
{
    while (size) {
        ssize_t n = send(ch->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!channel_wait(ch, POLLOUT, wait_limit(ch, SILENCE_MAX), error))
                return false;
            continue;
        }
        if (n < 0)
            return fail_gone(ch, error);
        data += n;
        size -= (size_t)n;
    }
    return true;
}

static bool channel_read(GuestChannel *ch, uint8_t *data, size_t size, double silence, GError **error)
{
    while (size) {
        ssize_t n = recv(ch->fd, data, size, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!channel_wait(ch, POLLIN, wait_limit(ch, silence), error))
                return false;
            continue;
        }
        if (n <= 0)
            return fail_gone(ch, error);
        data += n;
        size -= (size_t)n;
    }
    return true;
}

static bool fail_protocol(GuestChannel *ch, GError **error)
{
    (void)fail(error, "the guest sent something that kiln's runner never sends; it was stopped");
    return channel_die(ch);
}

/* Asks; @w holds the payload behind room for the header. */
static WireWriter request_new(GuestChannel *ch)
{
    return (WireWriter){ch->out + WIRE_HEADER_SIZE, 0, WIRE_PAYLOAD_MAX, false};
}

static bool request_send(GuestChannel *ch, uint16_t type, const WireWriter *w, GError **error)
{
    if (!check_alive(ch, error))
        return false;
    if (w->bad)
        return fail(error, "a command or path is too long for the guest (at most %u KiB)",
                    WIRE_PAYLOAD_MAX / 1024);
    if (type != WIRE_DATA)
        ch->request++;
    wire_pack_header(ch->out, (uint32_t)w->size, ch->request, type);
    return channel_write(ch, ch->out, WIRE_HEADER_SIZE + w->size, error);
}

/* The next frame of the answer, or the runner's HELLO or BYE where @unasked allows it. */
static bool receive(GuestChannel *ch, double silence, uint16_t unasked, Frame *ret, GError **error)
{
    uint8_t raw[WIRE_HEADER_SIZE];
    WireHeader header;

    if (!channel_read(ch, raw, sizeof raw, silence, error))
        return false;
    if (!wire_unpack_header(raw, &header))
        return fail_protocol(ch, error);
    if (!channel_read(ch, ch->in, header.length, silence > 0 ? silence : SILENCE_MAX, error))
        return false;
    if (header.type == WIRE_BYE && unasked != WIRE_BYE) {
        (void)fail(error, "kiln's runner in the guest ended unexpectedly");
        return channel_die(ch);
    }
    if (header.request != (unasked ? 0 : ch->request) ||
        (unasked && header.type != unasked && header.type != WIRE_ERR))
        return fail_protocol(ch, error);
    *ret = (Frame){header.type, {ch->in, header.length, 0, false}};
    return true;
}

/* The runner's own sentence, with the guest's errno in words; bytes of the guest that would drive a terminal
 * are gone. */
static bool fail_answer(GuestChannel *ch, Frame *frame, GError **error)
{
    int err = (int)wire_get_number(&frame->payload, 4);
    size_t length;
    const char *text = wire_get_string(&frame->payload, &length);
    g_autofree char *copy = text ? g_strndup(text, length) : NULL, *printable = NULL;

    if (!copy)
        return fail_protocol(ch, error);
    printable = printable_line(copy);
    return fail_code(error,
                     err == ENOENT   ? KILN_ERROR_NOT_FOUND
                     : err == ENOSPC ? KILN_ERROR_NO_SPACE
                                     : KILN_ERROR_FAILED,
                     "%s in the guest: %s", printable, g_strerror(err));
}

/* The last frame of an answer: @wanted, or ERR. */
static bool receive_last(GuestChannel *ch, uint16_t wanted, Frame *ret, GError **error)
{
    if (!receive(ch, SILENCE_MAX, 0, ret, error))
        return false;
    if (ret->type == WIRE_ERR)
        return fail_answer(ch, ret, error);
    return ret->type == wanted || fail_protocol(ch, error);
}

static bool ask(GuestChannel *ch, uint16_t type, const WireWriter *w, Frame *ret, GError **error)
{
    return request_send(ch, type, w, error) && receive_last(ch, WIRE_OK, ret, error);
}

static bool ask_plain(GuestChannel *ch, uint16_t type, GError **error)
{
    WireWriter w = request_new(ch);
    Frame frame;

    return ask(ch, type, &w, &frame, error);
}

bool guest_channel_hello(GuestChannel *ch, double timeout, GError **error)
{
    Frame frame;

    if (!check_alive(ch, error) || !receive(ch, timeout, WIRE_HELLO, &frame, error))
        return false;
    if (frame.type == WIRE_ERR) {
        (void)fail_answer(ch, &frame, error);
        return channel_die(ch);
    }
    if (wire_get_number(&frame.payload, 4) != WIRE_MAGIC ||
        wire_get_number(&frame.payload, 4) != WIRE_VERSION)
        return fail_protocol(ch, error);
    return true;
}

/* --- steps --- */

static void step_forget(GuestChannel *ch)
{
    ch->in_step = false;
    ch->step_limit = 0;
    ch->on_line = NULL;
}

bool guest_channel_begin(Guest *guest, const GuestStep *step, GError **error)
{
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    WireWriter w = request_new(ch);
    struct timespec clock = {.tv_sec = step->clock};
    double ms = CLAMP(step->timeout * 1000, 0, (double)G_MAXUINT32);
    Frame frame;

    g_assert(!ch->in_step);
    g_free(ch->step_name);
    ch->step_name = g_strdup(step->name);
    if (step->network) /* servers' certificates and release files are judged by it */
        (void)clock_gettime(CLOCK_REALTIME, &clock);
    clock.tv_sec += step->network ? step->clock_ahead : 0;
    wire_put_number(&w, (step->network ? BEGIN_NETWORK : 0) | (step->booted ? BEGIN_BOOTED : 0), 1);
    wire_put_number(&w, (uint64_t)clock.tv_sec, 8);
    wire_put_number(&w, (uint64_t)clock.tv_nsec, 4);
    wire_put_number(&w, ms > 0 ? MAX(1, (uint64_t)ms) : 0, 4);
    if (!ask(ch, WIRE_BEGIN, &w, &frame, error))
        return false;
    ch->in_step = true;
    ch->on_line = step->on_line;
    ch->on_line_arg = step->arg;
    if (ms > 0)
        ch->step_limit = g_get_monotonic_time() + (int64_t)((ms / 1000 + TIMEOUT_GRACE) * G_USEC_PER_SEC);
    return true;
}

static bool step_end(GuestChannel *ch, GError **error)
{
    ch->step_limit = 0; /* ending is ours to limit: a step that ran out of time still ends in order */
    if (!ask_plain(ch, WIRE_END, error)) {
        step_forget(ch);
        return channel_die(ch); /* a step that cannot end is a guest that cannot be used */
    }
    step_forget(ch);
    return true;
}

bool guest_channel_end(Guest *guest, GError **error)
{
    return step_end(((GuestOverChannel *)guest)->channel, error);
}

/* --- exec --- */

static void line_flush(GuestChannel *ch, int stream)
{
    GString *line = ch->lines[stream];

    if (line->len && line->str[line->len - 1] == '\r')
        g_string_truncate(line, line->len - 1);
    if (ch->on_line)
        ch->on_line(line->str, stream == 1, ch->on_line_arg);
    g_string_truncate(line, 0);
}

/* Cuts output into lines; a line that never ends comes in pieces, a NUL as '?'. */
static void lines_feed(GuestChannel *ch, int stream, const char *text, size_t size)
{
    GString *line = ch->lines[stream];

    while (size) {
        const char *end = memchr(text, '\n', size);
        size_t n = MIN(end ? (size_t)(end - text) : size, LINE_MAX_BYTES - line->len), start = line->len;

        g_string_append_len(line, text, (gssize)n);
        for (char *nul; (nul = memchr(line->str + start, '\0', line->len - start));)
            *nul = '?';
        if (end == text + n) {
            n++;
            line_flush(ch, stream);
        } else if (line->len == LINE_MAX_BYTES) {
            line_flush(ch, stream);
        }
        text += n;
        size -= n;
    }
}

static void lines_finish(GuestChannel *ch)
{
    for (int stream = 0; stream < 2; stream++)
        if (ch->lines[stream]->len)
            line_flush(ch, stream);
}

static void put_vector(WireWriter *w, const char *const *vector)
{
    guint n = vector ? g_strv_length((char **)vector) : 0;

    wire_put_number(w, n, 4);
    for (guint i = 0; i < n; i++)
        wire_put_string(w, vector[i]);
}

static bool exec_finish(GuestChannel *ch, Frame *frame, int *ret_exit, GError **error)
{
    uint32_t code = (uint32_t)wire_get_number(&frame->payload, 4);
    bool timed_out = wire_get_number(&frame->payload, 1) != 0;

    if (frame->payload.bad || code > 255)
        return fail_protocol(ch, error);
    if (timed_out)
        return fail_code(error, KILN_ERROR_TIMEOUT, "%s passed its time limit and was stopped",
                         step_name(ch));
    *ret_exit = (int)code;
    return true;
}

bool guest_channel_exec(Guest *guest, const GuestExec *exec, int *ret_exit, GError **error)
{
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    WireWriter w = request_new(ch);
    Frame frame;

    put_vector(&w, exec->argv);
    put_vector(&w, exec->env);
    wire_put_string(&w, exec->cwd ? exec->cwd : "/");
    if (!request_send(ch, WIRE_EXEC, &w, error))
        return false;
    for (;;) {
        if (!receive(ch, 0, 0, &frame, error))
            return false;
        if (frame.type != WIRE_OUTPUT)
            break;
        uint8_t stream = (uint8_t)wire_get_number(&frame.payload, 1);

        if (stream != 1 && stream != 2)
            return fail_protocol(ch, error);
        if (exec->output)
            exec->output(frame.payload.data + 1, frame.payload.size - 1, stream == 2, exec->arg);
        else
            lines_feed(ch, stream - 1, (const char *)frame.payload.data + 1, frame.payload.size - 1);
    }
    lines_finish(ch);
    if (frame.type == WIRE_ERR)
        return fail_answer(ch, &frame, error);
    return frame.type == WIRE_EXIT ? exec_finish(ch, &frame, ret_exit, error) : fail_protocol(ch, error);
}

/* --- shell --- */

/*
 * Frames go both ways. So that neither side can stop the other, a frame of ours is sent in pieces, as the socket takes them,
 * and what the guest says is read meanwhile; nothing new is read from the user before it is out.
 */
typedef struct ShellTalk {
    GuestChannel *ch;
    const GuestShell *shell;
    size_t at, size;      /* of the frame in ch->out that is on its way */
    bool ended;           /* the last one was made: an empty DATA */
    int64_t limit;        /* as of wait_limit() */
} ShellTalk;

static void shell_frame(ShellTalk *talk, uint16_t type, size_t payload)
{
    wire_pack_header(talk->ch->out, (uint32_t)payload, talk->ch->request, type);
    talk->at = 0;
    talk->size = WIRE_HEADER_SIZE + payload;
}

static void shell_end(ShellTalk *talk)
{
    shell_frame(talk, WIRE_DATA, 0);
    talk->ended = true;
    if (talk->shell->terminal)
        talk->limit = g_get_monotonic_time() + (int64_t)(HANGUP_MAX * G_USEC_PER_SEC);
}

static void shell_typed(ShellTalk *talk)
{
    uint8_t *data = talk->ch->out + WIRE_HEADER_SIZE;
    ssize_t n = read(talk->shell->in, data, WIRE_CHUNK);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0 || (talk->shell->hang_up && memchr(data, talk->shell->hang_up, (size_t)n)))
        shell_end(talk);
    else
        shell_frame(talk, WIRE_DATA, (size_t)n);
}

static void put_window(const GuestShell *shell, WireWriter *w)
{
    unsigned rows = 0, columns = 0;

    if (shell->window)
        shell->window(&rows, &columns, shell->arg);
    wire_put_number(w, MIN(rows, G_MAXUINT16), 2);
    wire_put_number(w, MIN(columns, G_MAXUINT16), 2);
}

static void shell_resized(ShellTalk *talk)
{
    WireWriter w = request_new(talk->ch);
    uint64_t count;

    (void)!read(talk->shell->resized, &count, sizeof count);
    put_window(talk->shell, &w);
    shell_frame(talk, WIRE_WINDOW, w.size);
}

static bool shell_send(ShellTalk *talk, GError **error)
{
    ssize_t n = send(talk->ch->fd, talk->ch->out + talk->at, talk->size, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR || fail_gone(talk->ch, error);
    talk->at += (size_t)n;
    talk->size -= (size_t)n;
    return true;
}

static bool shell_output(ShellTalk *talk, Frame *frame, GError **error)
{
    GuestChannel *ch = talk->ch;
    uint8_t stream = (uint8_t)wire_get_number(&frame->payload, 1);
    const char *text = (const char *)frame->payload.data + 1;

    if (stream != 1 && stream != 2)
        return fail_protocol(ch, error);
    if (!talk->shell->terminal)
        lines_feed(ch, stream - 1, text, frame->payload.size - 1);
    else
        talk->shell->write(text, frame->payload.size - 1, talk->shell->arg);
    return true;
}

/* Until the runner's last frame about the shell. */
static bool shell_talk(ShellTalk *talk, Frame *frame, GError **error)
{
    GuestChannel *ch = talk->ch;

    for (;;) {
        bool idle = talk->size == 0 && !talk->ended;
        struct pollfd fds[] = {
            {.fd = ch->fd, .events = (short)(talk->size ? POLLIN | POLLOUT : POLLIN)},
            {.fd = interrupt_fd(), .events = POLLIN},
            {.fd = idle ? talk->shell->in : -1, .events = POLLIN},
            {.fd = idle ? talk->shell->resized : -1, .events = POLLIN},
        };
        int64_t left = talk->limit ? talk->limit - g_get_monotonic_time() : -1;

        if (talk->limit && left <= 0)
            return fail_waited(ch, talk->limit, error);
        if (!interrupt_check(error))
            return channel_die(ch);
        if (poll(fds, 4, talk->limit ? (int)(left / 1000 + 1) : -1) <= 0)
            continue;
        if ((fds[0].revents & POLLOUT) && !shell_send(talk, error))
            return false;
        if (fds[2].revents)
            shell_typed(talk);
        else if (fds[3].revents)
            shell_resized(talk);
        if (!(fds[0].revents & ~POLLOUT))
            continue;
        if (!receive(ch, 0, 0, frame, error))
            return false;
        if (frame->type != WIRE_OUTPUT)
            return true;
        if (!shell_output(talk, frame, error))
            return false;
    }
}

/* The runner reads on until our last frame, so there is room for what is on its way. */
static bool shell_finish(ShellTalk *talk, GError **error)
{
    if (!channel_write(talk->ch, talk->ch->out + talk->at, talk->size, error))
        return false;
    if (talk->ended)
        return true;
    shell_end(talk);
    return channel_write(talk->ch, talk->ch->out, talk->size, error);
}

bool guest_channel_shell(Guest *guest, const GuestShell *shell, int *ret_exit, GError **error)
{
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    ShellTalk talk = {.ch = ch, .shell = shell};
    WireWriter w = request_new(ch);
    Frame frame;

    wire_put_number(&w, shell->terminal, 1);
    put_window(shell, &w);
    put_vector(&w, shell->env);
    if (!request_send(ch, WIRE_SHELL, &w, error) || !shell_talk(&talk, &frame, error) || !shell_finish(&talk, error))
        return false;
    lines_finish(ch);
    if (frame.type == WIRE_ERR)
        return fail_answer(ch, &frame, error);
    return frame.type == WIRE_EXIT ? exec_finish(ch, &frame, ret_exit, error) : fail_protocol(ch, error);
}

/* --- files --- */

static bool path_check(const char *path, GError **error)
{
    if (path[0] != '/')
        return fail(error, "'%s' is not an absolute path in the guest", path);
    return strlen(path) < WIRE_PATH_MAX ||
           fail(error, "a path in the guest is longer than %u bytes", WIRE_PATH_MAX - 1);
}

static void put_meta(WireWriter *w, const GuestFile *meta, uint16_t default_mode)
{
    WireMeta wire = {.mode = default_mode};

    if (meta)
        wire = (WireMeta){meta->uid, meta->gid, meta->mode, meta->mtime};
    wire_put_meta(w, &wire);
}

static bool put_chunks(GuestChannel *ch, int fd, const char *path, uint64_t *ret_total, GError **error)
{
    ssize_t n;

    *ret_total = 0;
    do {
        WireWriter w = request_new(ch);

        do
            n = read(fd, w.data, WIRE_CHUNK);
        while (n < 0 && errno == EINTR);
        if (n < 0) {
            (void)fail_errno(error, "read what is put into the guest as '%s'", path);
            return channel_die(ch); /* half a file is in the guest, and no frame says "forget it" */
        }
        w.size = (size_t)n;
        if (!request_send(ch, WIRE_DATA, &w, error))
            return false;
        *ret_total += (uint64_t)n;
    } while (n > 0);
    return true;
}

bool guest_channel_put(Guest *guest, int fd, const char *path, const GuestFile *meta, GError **error)
{
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    WireWriter w = request_new(ch);
    uint64_t total;
    Frame frame;

    if (!path_check(path, error))
        return false;
    wire_put_string(&w, path);
    put_meta(&w, meta, 0644);
    if (!request_send(ch, WIRE_PUT, &w, error) || !put_chunks(ch, fd, path, &total, error) ||
        !receive_last(ch, WIRE_OK, &frame, error))
        return false;
    return wire_get_number(&frame.payload, 8) == total || fail_protocol(ch, error);
}

/* After our own failure: the rest of the answer is read and dropped, so that the next request finds an empty
 * line. */
static void get_skip(GuestChannel *ch)
{
    Frame frame;

    while (receive(ch, SILENCE_MAX, 0, &frame, NULL) && frame.type == WIRE_DATA)
        ;
}

static bool write_all(int fd, const uint8_t *data, size_t size)
{
    while (size) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

bool guest_channel_get(Guest *guest, const char *path, int fd, uint64_t max, GError **error)
{
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    WireWriter w = request_new(ch);
    uint64_t total = 0;
    Frame frame;

    if (!path_check(path, error))
        return false;
    wire_put_string(&w, path);
    wire_put_number(&w, max, 8);
    if (!request_send(ch, WIRE_GET, &w, error))
        return false;
    for (;;) {
        if (!receive(ch, SILENCE_MAX, 0, &frame, error))
            return false;
        if (frame.type != WIRE_DATA)
            break;
        total += frame.payload.size;
        if (frame.payload.size == 0 || (max && total > max)) /* the runner stops at the limit itself */
            return fail_protocol(ch, error);
        if (!write_all(fd, frame.payload.data, frame.payload.size)) {
            (void)fail_errno(error, "write what came from '%s' in the guest", path);
            get_skip(ch);
            return false;
        }
    }
    if (frame.type == WIRE_ERR)
        return fail_answer(ch, &frame, error);
    return (frame.type == WIRE_OK && wire_get_number(&frame.payload, 8) == total) || fail_protocol(ch, error);
}

bool guest_channel_stat(Guest *guest, const char *path, char *ret_type, GuestFile *ret_meta, GError **error)
{
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    WireWriter w = request_new(ch);
    WireMeta meta;
    Frame frame;
    char type;

    if (!path_check(path, error))
        return false;
    wire_put_string(&w, path);
    if (!ask(ch, WIRE_STAT, &w, &frame, error))
        return false;
    type = (char)wire_get_number(&frame.payload, 1);
    meta = wire_get_meta(&frame.payload);
    if (frame.payload.bad || (type && !strchr("fdlo", type)))
        return fail_protocol(ch, error);
    *ret_type = type;
    if (ret_meta)
        *ret_meta = (GuestFile){meta.uid, meta.gid, (uint16_t)(meta.mode & 07777), meta.mtime};
    return true;
}

bool guest_channel_mkdir(Guest *guest, const char *path, const GuestFile *meta, GError **error)
{
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    WireWriter w = request_new(ch);
    Frame frame;

    if (!path_check(path, error))
        return false;
    wire_put_string(&w, path);
    put_meta(&w, meta, 0755);
    return ask(ch, WIRE_MKDIR, &w, &frame, error);
}

bool guest_channel_symlink(Guest *guest, const char *target, const char *path, GError **error)
{
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    WireWriter w = request_new(ch);
    Frame frame;

    if (!path_check(path, error))
        return false;
    wire_put_string(&w, target);
    wire_put_string(&w, path);
    return ask(ch, WIRE_SYMLINK, &w, &frame, error);
}

bool guest_channel_remove(Guest *guest, const char *path, GError **error)
{
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    WireWriter w = request_new(ch);
    Frame frame;

    if (!path_check(path, error))
        return false;
    wire_put_string(&w, path);
    return ask(ch, WIRE_REMOVE, &w, &frame, error);
}

bool guest_channel_grow(Guest *guest, bool *ret_grown, GError **error)
{
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    WireWriter w = request_new(ch);
    Frame frame;

    if (!ask(ch, WIRE_GROW, &w, &frame, error))
        return false;
    *ret_grown = wire_get_number(&frame.payload, 8) != 0;
    return !frame.payload.bad || fail_protocol(ch, error);
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Adds the names of one DATA frame; false when they are no file names. */
static bool list_add(GPtrArray *names, const WireReader *data)
{
    const char *text = (const char *)data->data, *end = text + data->size;

    while (text < end) {
        const char *nul = memchr(text, '\0', (size_t)(end - text));

        if (!nul || nul == text || memchr(text, '/', (size_t)(nul - text)))
            return false;
        g_ptr_array_add(names, g_strdup(text));
        text = nul + 1;
    }
    return true;
}

bool guest_channel_list(Guest *guest, const char *path, char ***ret, GError **error)
{
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    WireWriter w = request_new(ch);
    size_t total = 0;
    Frame frame;

    if (!path_check(path, error))
        return false;
    wire_put_string(&w, path);
    if (!request_send(ch, WIRE_LIST, &w, error))
        return false;
    for (;;) {
        if (!receive(ch, SILENCE_MAX, 0, &frame, error))
            return false;
        if (frame.type != WIRE_DATA)
            break;
        total += frame.payload.size;
        if (total > WIRE_LIST_MAX || frame.payload.size == 0 || !list_add(names, &frame.payload))
            return fail_protocol(ch, error);
    }
    if (frame.type == WIRE_ERR)
        return fail_answer(ch, &frame, error);
    if (frame.type != WIRE_OK)
        return fail_protocol(ch, error);
    g_ptr_array_sort(names, compare_names);
    g_ptr_array_add(names, NULL);
    *ret = (char **)g_ptr_array_free(g_steal_pointer(&names), FALSE);
    return true;
}

/* --- between steps --- */

static char *walked_text(WireReader *payload)
{
    size_t length;
    const char *text = wire_get_string(payload, &length);

    if (length < WIRE_PATH_MAX)
        return text ? g_strndup(text, length) : NULL;
    payload->bad = true;
    return NULL;
}

static bool walk_entry(GuestChannel *ch, WireReader *payload, const GuestWalk *walk, GError **error)
{
    g_autofree char *path = walked_text(payload), *target = NULL;
    GuestEntry entry;

    entry.again = wire_get_number(payload, 1) != 0;
    entry.mode = (uint32_t)wire_get_number(payload, 4);
    entry.uid = (uint32_t)wire_get_number(payload, 4);
    entry.gid = (uint32_t)wire_get_number(payload, 4);
    entry.mtime = (int64_t)wire_get_number(payload, 8);
    entry.mtime_ns = (uint32_t)wire_get_number(payload, 4);
    entry.device = wire_get_number(payload, 8);
    entry.inode = wire_get_number(payload, 8);
    entry.major = (uint32_t)wire_get_number(payload, 4);
    entry.minor = (uint32_t)wire_get_number(payload, 4);
    entry.size = wire_get_number(payload, 8);
    target = walked_text(payload);
    if (payload->bad || payload->at != payload->size || (*path && !tree_path_is_sound(path)))
        return fail_protocol(ch, error);
    entry.path = path;
    entry.target = target;
    return walk->entry(&entry, walk->arg, error) || channel_die(ch);
}

static bool walk_xattr(GuestChannel *ch, WireReader *payload, const GuestWalk *walk, GError **error)
{
    g_autofree char *name = walked_text(payload);

    if (!name || !*name || strlen(name) > 255)
        return fail_protocol(ch, error);
    return walk->xattr(name, payload->data + payload->at, payload->size - payload->at, walk->arg, error) || channel_die(ch);
}

static bool walk_piece(GuestChannel *ch, WireReader *payload, const GuestWalk *walk, GError **error)
{
    uint64_t offset = wire_get_number(payload, 8);

    if (payload->bad || payload->at == payload->size || !walk->contents)
        return fail_protocol(ch, error);
    return walk->piece(offset, payload->data + payload->at, payload->size - payload->at, walk->arg, error) || channel_die(ch);
}

/* A walk that is not heard to its end leaves the guest talking: so our own failure ends the guest, too. */
bool guest_channel_walk(Guest *guest, const GuestWalk *walk, GError **error)
{
    static bool (*const takers[])(GuestChannel *, WireReader *, const GuestWalk *, GError **) = {walk_entry, walk_xattr, walk_piece};
    GuestChannel *ch = ((GuestOverChannel *)guest)->channel;
    WireWriter w = request_new(ch);
    uint64_t entries = 0;
    Frame frame;

    wire_put_number(&w, walk->contents, 1);
    if (!request_send(ch, WIRE_WALK, &w, error))
        return false;
    for (;;) {
        if (!receive(ch, SILENCE_MAX, 0, &frame, error))
            return false;
        if (frame.type < WIRE_ENTRY || frame.type > WIRE_PIECE)
            break;
        entries += frame.type == WIRE_ENTRY;
        if (entries == 0)
            return fail_protocol(ch, error);
        if (!takers[frame.type - WIRE_ENTRY](ch, &frame.payload, walk, error))
            return false;
    }
    if (frame.type == WIRE_ERR)
        return fail_answer(ch, &frame, error);
    return (frame.type == WIRE_OK && wire_get_number(&frame.payload, 8) == entries) || fail_protocol(ch, error);
}

bool guest_channel_freeze(GuestChannel *ch, bool trim, GError **error)
{
    WireWriter w = request_new(ch);
    Frame frame;

    wire_put_number(&w, trim, 1);
    return ask(ch, WIRE_FREEZE, &w, &frame, error);
}

bool guest_channel_thaw(GuestChannel *ch, GError **error)
{
    return ask_plain(ch, WIRE_THAW, error);
}

bool guest_channel_quit(GuestChannel *ch, GError **error)
{
    Frame frame;

    if (ch->in_step && !step_end(ch, error))
        return false;
    if (!ask_plain(ch, WIRE_QUIT, error) || !receive(ch, SILENCE_MAX, WIRE_BYE, &frame, error))
        return false;
    return frame.type == WIRE_BYE || fail_protocol(ch, error);
}
