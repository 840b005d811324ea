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

typedef struct Command {
    char *argv[WIRE_PAYLOAD_MAX / 4 + 1];
    char *env[WIRE_PAYLOAD_MAX / 4 + 64];
    char cwd[WIRE_PATH_MAX];
    char text[WIRE_PAYLOAD_MAX]; /* a string needs its length's 4 bytes there and 1 byte more here: it always
                                    fits */
} Command;

typedef struct Running {
    pid_t pid;
    int out, err, signals;
    int status;
    bool ended;
} Running;

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

static int read_command(WireReader *payload, Command *cmd)
{
    size_t n_argv = 0, n_env = 0;
    char *text = cmd->text;
    int err = read_vector(payload, cmd->argv, &n_argv, WIRE_PAYLOAD_MAX / 4, &text);

    if (!err)
        err = read_vector(payload, cmd->env, &n_env, WIRE_PAYLOAD_MAX / 4, &text);
    if (!err && (!wire_path(payload, cmd->cwd) || n_argv == 0))
        err = EPROTO;
    if (!err)
        add_base_env(cmd, n_env);
    return err;
}

/* In the child: what cannot be done is told through @report as an errno, negative when it was the folder. */
static void become(const Command *cmd, int out, int err, int report)
{
    struct rlimit files = {1024, 65536};
    sigset_t none;
    int null = open("/dev/null", O_RDONLY), score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC),
        code;

    (void)setsid();
    if (null != STDIN_FILENO)
        (void)dup2(null, STDIN_FILENO);
    (void)dup2(out, STDOUT_FILENO);
    (void)dup2(err, STDERR_FILENO);
    if (null > STDERR_FILENO)
        (void)close(null);
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

/* Returns what become() reported, or an errno when it did not come to that. */
static int start(const Command *cmd, Running *run)
{
    int out[2], err[2], report[2], code = 0;

    if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0)
        return errno;
    run->pid = fork();
    if (run->pid == 0)
        become(cmd, out[1], err[1], report[1]);
    close(out[1]);
    close(err[1]);
    close(report[1]);
    run->out = out[0];
    run->err = err[0];
    if (run->pid < 0)
        code = errno;
    else if (read(report[0], &code, sizeof code) != sizeof code)
        code = 0; /* closed by exec: it runs */
    close(report[0]);
    (void)fcntl(run->out, F_SETFL, O_NONBLOCK);
    (void)fcntl(run->err, F_SETFL, O_NONBLOCK);
    return code;
}

static void reap(Running *run)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == run->pid) {
            run->status = status;
            run->ended = true;
        }
}

/* Sends on what one pipe has; false at its end. */
static bool forward(Wire *wire, int *fd, uint8_t stream, size_t *ret_size)
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

static void drain(Wire *wire, Running *run)
{
    size_t n, total = 0;

    while (run->out >= 0 && total < DRAIN_MAX && forward(wire, &run->out, 1, &n) && n)
        total += n;
    while (run->err >= 0 && total < 2 * DRAIN_MAX && forward(wire, &run->err, 2, &n) && n)
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
        struct signalfd_siginfo info;
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
            (void)forward(wire, &run->out, 1, &n);
        if (fds[1].revents)
            (void)forward(wire, &run->err, 2, &n);
        if (fds[2].revents)
            (void)!read(run->signals, &info, sizeof info);
        reap(run);
    }
    drain(wire, run);
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

static void run_command(Wire *wire, const Step *step, const Command *cmd, Running *run)
{
    int code = start(cmd, run);

    if (code > 0) {
        wire_err(wire, code, "cannot run '%.200s'", cmd->argv[0]);
    } else if (code < 0) {
        wire_err(wire, -code, "cannot enter the folder '%s'", cmd->cwd);
    } else if (!listen_until_end(wire, step, run)) {
        exec_kill_all();
        drain(wire, run);
        send_exit(wire, 128 + SIGKILL, true);
    } else {
        send_exit(wire,
                  WIFSIGNALED(run->status) ? 128u + (uint32_t)WTERMSIG(run->status)
                                           : (uint32_t)WEXITSTATUS(run->status),
                  false);
    }
}

void exec_answer(Wire *wire, Step *step, WireReader *payload)
{
    static Command cmd;
    Running run = {.pid = -1, .out = -1, .err = -1, .signals = -1};
    sigset_t set;

    if (read_command(payload, &cmd) != 0) {
        wire_err(wire, EPROTO, "bad command");
        return;
    }
    if (remaining_ms(step) == 0) {
        send_exit(wire, 128 + SIGKILL, true);
        return;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    run.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    run_command(wire, step, &cmd, &run);
    if (run.out >= 0)
        close(run.out);
    if (run.err >= 0)
        close(run.err);
    close(run.signals);
}
