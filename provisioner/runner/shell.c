/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shell for whoever sits at the host, in the step that is open: on a terminal of its own, or on pipes for a script.
 *
 * Frames go both ways here. What arrives is taken one frame at a time and written on before the next is read, and the host never waits
 * with sending while we have something to say, so neither side can stop the other.
 */
#include "provisioner/runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define HANGUP_MS 2000 /* what a shell has after its terminal was hung up */

typedef struct Shell {
    Wire *wire;
    Running run;
    int in; /* -1: closed */
    bool terminal, input_ended;
    struct timespec hung_up; /* CLOCK_MONOTONIC; zero: not */
    uint8_t data[WIRE_CHUNK]; /* what was typed and not taken yet */
    size_t at, size;
} Shell;

static const char *find_shell(void)
{
    static const char *const shells[] = {"/bin/bash", "/usr/bin/bash", "/bin/sh"};

    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++)
        if (access(shells[i], X_OK) == 0)
            return shells[i];
    return NULL;
}

static void set_window(const Shell *s, WireReader *payload)
{
    struct winsize window = {0};

    window.ws_row = (unsigned short)wire_get_number(payload, 2);
    window.ws_col = (unsigned short)wire_get_number(payload, 2);
    if (s->terminal && s->in >= 0 && window.ws_row && window.ws_col)
        (void)ioctl(s->in, TIOCSWINSZ, &window);
}

/* A terminal of the step's own /dev/pts. Returns an errno. */
static int open_terminal(Shell *s, int ret_fds[3])
{
    char path[32];
    int unlocked = 0, number, slave;

    s->in = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (s->in < 0 || ioctl(s->in, TIOCSPTLCK, &unlocked) < 0 || ioctl(s->in, TIOCGPTN, &number) < 0)
        return errno;
    (void)snprintf(path, sizeof path, "/dev/pts/%d", number);
    slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    s->run.out = fcntl(s->in, F_DUPFD_CLOEXEC, 0);
    if (slave < 0 || s->run.out < 0)
        return errno;
    for (int i = 0; i < 3; i++)
        ret_fds[i] = slave;
    return 0;
}

static int open_pipes(Shell *s, int ret_fds[3])
{
    int in[2], out[2], err[2];

    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
        return errno;
    s->in = in[1];
    s->run.out = out[0];
    s->run.err = err[0];
    for (int i = 0; i < 3; i++)
        ret_fds[i] = (int[]){in[0], out[1], err[1]}[i];
    (void)fcntl(s->in, F_SETFL, O_NONBLOCK);
    (void)fcntl(s->run.out, F_SETFL, O_NONBLOCK);
    (void)fcntl(s->run.err, F_SETFL, O_NONBLOCK);
    return 0;
}

/* Returns an errno; the window's size is the payload's next. */
static int start(Shell *s, Command *cmd, WireReader *payload)
{
    WireReader window = *payload;
    char *text = cmd->text;
    int fds[3] = {-1, -1, -1}, err;

    (void)wire_get_number(payload, 4);
    err = exec_read_environment(payload, cmd, &text);
    if (!err)
        err = s->terminal ? open_terminal(s, fds) : open_pipes(s, fds);
    if (!err) {
        set_window(s, &window);
        err = abs(exec_start(cmd, fds, s->terminal, &s->run.pid));
    }
    for (int i = 0; i < (s->terminal ? 1 : 3); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return err;
}

static void close_input(Shell *s)
{
    if (s->in >= 0)
        close(s->in);
    s->in = -1;
    s->size = 0;
}

/* The kernel tells the shell when its terminal is gone: both descriptors of it are. */
static void end_input(Shell *s)
{
    s->input_ended = true;
    close_input(s);
    if (!s->terminal)
        return;
    if (s->run.out >= 0)
        close(s->run.out);
    s->run.out = -1;
    (void)clock_gettime(CLOCK_MONOTONIC, &s->hung_up);
}

static void take_frame(Shell *s)
{
    WireReader payload;
    uint16_t type;

    if (!wire_receive(s->wire, &type, &payload) || (type != WIRE_DATA && type != WIRE_WINDOW) || payload.size > sizeof s->data)
        _exit(STEP_PORT_CLOSED);
    if (type == WIRE_WINDOW) {
        set_window(s, &payload);
    } else if (payload.size == 0) {
        end_input(s);
    } else if (s->in >= 0) {
        memcpy(s->data, payload.data, payload.size);
        s->at = 0;
        s->size = payload.size;
    }
}

static void feed(Shell *s)
{
    ssize_t n = write(s->in, s->data + s->at, s->size);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        close_input(s); /* nobody reads: the rest of what is typed goes nowhere */
        return;
    }
    s->at += (size_t)n;
    s->size -= (size_t)n;
}

/* Milliseconds that are left to a shell without its terminal; -1 while it has one. */
static int patience(const Shell *s)
{
    struct timespec now;
    int64_t ms;

    if (!s->hung_up.tv_sec)
        return -1;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    ms = HANGUP_MS - (now.tv_sec - s->hung_up.tv_sec) * 1000 - (now.tv_nsec - s->hung_up.tv_nsec) / 1000000;
    return ms < 0 ? 0 : (int)ms;
}

static void kill_shell(Shell *s)
{
    exec_kill_all();
    s->run.status = SIGKILL;
    s->run.ended = true;
}

static void serve(Shell *s)
{
    while (!s->run.ended) {
        struct pollfd fds[] = {
            {.fd = s->run.out, .events = POLLIN},
            {.fd = s->run.err, .events = POLLIN},
            {.fd = s->run.signals, .events = POLLIN},
            {.fd = s->wire->fd, .events = s->size || s->input_ended ? 0 : POLLIN},
            {.fd = s->size ? s->in : -1, .events = POLLOUT},
        };
        int ms = patience(s);
        size_t n;

        if (ms == 0)
            kill_shell(s);
        if (ms == 0 || poll(fds, 5, ms) <= 0)
            continue;
        if (fds[3].revents & (POLLHUP | POLLERR))
            _exit(STEP_PORT_CLOSED);
        if (fds[0].revents)
            (void)exec_forward(s->wire, &s->run.out, 1, &n);
        if (fds[1].revents)
            (void)exec_forward(s->wire, &s->run.err, 2, &n);
        if (fds[4].revents)
            feed(s);
        if (fds[3].revents & POLLIN)
            take_frame(s);
        exec_reap(&s->run);
    }
    exec_drain(s->wire, &s->run);
}

/* What was typed for a shell that has ended is still on its way. */
static void skip_input(Shell *s)
{
    close_input(s);
    while (!s->input_ended)
        take_frame(s);
}

void shell_answer(Wire *wire, WireReader *payload)
{
    static Command cmd;
    static Shell s;
    const char *shell = find_shell();
    int err;

    s = (Shell){.wire = wire, .run = {.pid = -1, .out = -1, .err = -1, .signals = exec_signals()}, .in = -1};
    s.terminal = wire_get_number(payload, 1) != 0;
    cmd.argv[0] = (char *)shell;
    cmd.argv[1] = NULL;
    (void)snprintf(cmd.cwd, sizeof cmd.cwd, "/");
    err = shell ? start(&s, &cmd, payload) : ENOENT;
    if (err) {
        wire_err(wire, err, "cannot run %s", shell ? shell : "a shell, /bin/bash or /bin/sh,");
    } else {
        serve(&s);
        exec_send_status(wire, &s.run);
    }
    skip_input(&s);
    exec_close(&s.run);
}
