/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs of a step: started, listened to, waited for, ended when their time is over.
 *
 * The program's own end is what counts. A daemon it left behind may go on until the step ends, but nobody listens to it any more.
 */
#include "provisioner/runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DRAIN_MAX                                                                                            \
    (1u << 20) /* what a finished program can have left in its pipes; more comes from a daemon */

static const char *const base_env[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "USER=root",
    "LOGNAME=root",
    "SHELL=/bin/sh",
    "TERM=dumb",
    "DEBIAN_FRONTEND=noninteractive",
    "NEEDRESTART_MODE=l",
    "SYSTEMD_OFFLINE=1", /* systemctl start and its like do nothing, and say so */
};

void exec_kill_all(void)
{
    (void)kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        (void)kill(-1, SIGKILL); /* one that was forking while the first round went by */
}

static int read_vector(WireReader *payload, char **vector, size_t *n, size_t room, char **text)
{
    size_t count = (size_t)wire_get_number(payload, 4), length;

    for (size_t i = 0; i < count; i++) {
        const char *s = wire_get_string(payload, &length);

        if (!s || *n + 1 >= room)
            return EPROTO;
        memcpy(*text, s, length);
        (*text)[length] = '\0';
        vector[(*n)++] = *text;
        *text += length + 1;
    }
    vector[*n] = NULL;
    return 0;
}

static bool same_key(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");

    return strncmp(a, b, n) == 0 && b[n] == '=';
}

/* What the step gives wins over the base. */
static void add_base_env(Command *cmd, size_t n)
{
    size_t given = n;

    for (size_t i = 0; i < sizeof base_env / sizeof *base_env; i++) {
        bool overridden = false;

        for (size_t j = 0; j < given && !overridden; j++)
            overridden = same_key(base_env[i], cmd->env[j]);
        if (!overridden)
            cmd->env[n++] = (char *)base_env[i];
    }
    cmd->env[n] = NULL;
}

int exec_read_environment(WireReader *payload, Command *cmd, char **text)
{
    size_t n = 0;
    int err = read_vector(payload, cmd->env, &n, WIRE_PAYLOAD_MAX / 4, text);

    if (!err)
        add_base_env(cmd, n);
    return err;
}

static int read_command(WireReader *payload, Command *cmd)
{
    size_t n_argv = 0;
    char *text = cmd->text;
    int err = read_vector(payload, cmd->argv, &n_argv, WIRE_PAYLOAD_MAX / 4, &text);

    if (!err)
        err = exec_read_environment(payload, cmd, &text);
    return !err && (!wire_path(payload, cmd->cwd) || n_argv == 0) ? EPROTO : err;
}

/* In the child: what cannot be done is told through @report as an errno, negative when it was the folder. */
static void become(const Command *cmd, const int fds[3], bool terminal, int report)
{
    struct rlimit files = {1024, 65536};
    sigset_t none;
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC), code;

    (void)setsid();
    for (int i = 0; i < 3; i++)
        if (dup2(fds[i], i) == fds[i])
            (void)fcntl(i, F_SETFD, 0); /* it stood there already, to be closed by exec */
    if (terminal)
        (void)ioctl(STDIN_FILENO, TIOCSCTTY, 0); /* without it a shell still works, only job control does not */
    if (score >= 0)
        (void)!write(score, "0", 1); /* we are spared by the kernel when memory runs out, the step is not */
    (void)setrlimit(RLIMIT_NOFILE, &files);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)signal(SIGHUP, SIG_DFL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)umask(022);
    if (chdir(cmd->cwd) < 0) {
        code = -errno;
    } else {
        environ = (char **)cmd->env;
        (void)execvp(cmd->argv[0], cmd->argv);
        code = errno;
    }
    (void)!write(report, &code, sizeof code);
    _exit(127);
}

int exec_start(const Command *cmd, const int fds[3], bool terminal, pid_t *ret_pid)
{
    int report[2], code = 0;

    if (pipe2(report, O_CLOEXEC) < 0)
        return errno;
    *ret_pid = fork();
    if (*ret_pid == 0)
        become(cmd, fds, terminal, report[1]);
    close(report[1]);
    if (*ret_pid < 0)
        code = errno;
    else if (read(report[0], &code, sizeof code) != sizeof code)
        code = 0; /* closed by exec: it runs */
    close(report[0]);
    return code;
}

static int start(const Command *cmd, Running *run)
{
    int out[2], err[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC), code;

    if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
        return errno;
    code = exec_start(cmd, (int[]){null, out[1], err[1]}, false, &run->pid);
    if (null >= 0)
        close(null);
    close(out[1]);
    close(err[1]);
    run->out = out[0];
    run->err = err[0];
    (void)fcntl(run->out, F_SETFL, O_NONBLOCK);
    (void)fcntl(run->err, F_SETFL, O_NONBLOCK);
    return code;
}

int exec_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void exec_reap(Running *run)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    (void)!read(run->signals, &info, sizeof info);
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == run->pid) {
            run->status = status;
            run->ended = true;
        }
}

bool exec_forward(Wire *wire, int *fd, uint8_t stream, size_t *ret_size)
{
    static uint8_t buf[WIRE_CHUNK];
    ssize_t n = read(*fd, buf + 1, sizeof buf - 1);

    *ret_size = 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0) {
        close(*fd);
        *fd = -1;
        return false;
    }
    buf[0] = stream;
    wire_send(wire, WIRE_OUTPUT, buf, (size_t)n + 1);
    *ret_size = (size_t)n;
    return true;
}

void exec_drain(Wire *wire, Running *run)
{
    size_t n, total = 0;

    while (run->out >= 0 && total < DRAIN_MAX && exec_forward(wire, &run->out, 1, &n) && n)
        total += n;
    while (run->err >= 0 && total < 2 * DRAIN_MAX && exec_forward(wire, &run->err, 2, &n) && n)
        total += n;
}

/* Milliseconds until the step's limit, rounded up; -1 when it has none, 0 when it has passed. */
static int remaining_ms(const Step *step)
{
    struct timespec now;
    int64_t ms;

    if (!step->deadline.tv_sec)
        return -1;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    ms = (step->deadline.tv_sec - now.tv_sec) * 1000 + (step->deadline.tv_nsec - now.tv_nsec) / 1000000;
    return ms < 0 ? 0 : ms >= INT_MAX ? INT_MAX : (int)ms + (ms > 0);
}

/* Until the program ends (true) or the step's time is over (false). */
static bool listen_until_end(Wire *wire, const Step *step, Running *run)
{
    while (!run->ended) {
        struct pollfd fds[] = {
            {.fd = run->out, .events = POLLIN},
            {.fd = run->err, .events = POLLIN},
            {.fd = run->signals, .events = POLLIN},
            {.fd = wire->fd, .events = 0},
        };
        int ms = remaining_ms(step);
        size_t n;

        if (ms == 0)
            return false;
        if (poll(fds, 4, ms) <= 0)
            continue;
        if (fds[3].revents & (POLLHUP | POLLERR))
            _exit(STEP_PORT_CLOSED);
        if (fds[0].revents)
            (void)exec_forward(wire, &run->out, 1, &n);
        if (fds[1].revents)
            (void)exec_forward(wire, &run->err, 2, &n);
        exec_reap(run);
    }
    exec_drain(wire, run);
    return true;
}

static void send_exit(Wire *wire, uint32_t code, bool timed_out)
{
    uint8_t buf[8];
    WireWriter w = {buf, 0, sizeof buf, false};

    wire_put_number(&w, code, 4);
    wire_put_number(&w, timed_out, 1);
    wire_send(wire, WIRE_EXIT, buf, w.size);
}

void exec_send_status(Wire *wire, const Running *run)
{
    send_exit(wire,
              WIFSIGNALED(run->status) ? 128u + (uint32_t)WTERMSIG(run->status) : (uint32_t)WEXITSTATUS(run->status),
              false);
}

void exec_close(Running *run)
{
    if (run->out >= 0)
        close(run->out);
    if (run->err >= 0)
        close(run->err);
    if (run->signals >= 0)
        close(run->signals);
}

static void run_command(Wire *wire, const Step *step, const Command *cmd, Running *run)
{
    int code = start(cmd, run);

    if (code > 0) {
        wire_err(wire, code, "cannot run '%.200s'", cmd->argv[0]);
    } else if (code < 0) {
        wire_err(wire, -code, "cannot enter the folder '%s'", cmd->cwd);
    } else if (!listen_until_end(wire, step, run)) {
        exec_kill_all();
        exec_drain(wire, run);
        send_exit(wire, 128 + SIGKILL, true);
    } else {
        exec_send_status(wire, run);
    }
}

void exec_answer(Wire *wire, Step *step, WireReader *payload)
{
    static Command cmd;
    Running run = {.pid = -1, .out = -1, .err = -1, .signals = -1};

    if (read_command(payload, &cmd) != 0) {
        wire_err(wire, EPROTO, "bad command");
        return;
    }
    if (remaining_ms(step) == 0) {
        send_exit(wire, 128 + SIGKILL, true);
        return;
    }
    run.signals = exec_signals();
    run_command(wire, step, &cmd, &run);
    exec_close(&run);
}
