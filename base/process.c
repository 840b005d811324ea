/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children of kiln: started without a shell, never outliving the thread that
 * started them, read line by line. All of fork's dangerous half (between fork
 * and exec only async-signal-safe calls) stands in child_exec().
 */
#include "base/process.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define LINE_MAX_SIZE (64 * 1024)
#define POLL_STEP_MS 100
#define AFTER_END_US (2 * G_USEC_PER_SEC) /* for what a child's own children still say */
#define INTERRUPT_GRACE 2.0
#define TIMEOUT_GRACE 1.0 /* a limit that passed is not stretched much further */

/* Three descriptors of the child, and what exec would need allocated before the fork. */
typedef struct Child {
    const ProcessSpec *spec;
    char *program;
    int in, out, err;
    int report; /* exec's errno comes back through it */
} Child;

static char *find_program(const char *name)
{
    static const char *const sbin[] = {"/usr/local/sbin", "/usr/sbin", "/sbin", NULL};
    char *found = g_find_program_in_path(name);

    for (size_t i = 0; !found && !strchr(name, '/') && sbin[i]; i++) {
        found = g_build_filename(sbin[i], name, NULL);
        if (access(found, X_OK) < 0)
            g_clear_pointer(&found, g_free);
    }
    return found;
}

bool process_have(const char *program)
{
    g_autofree char *path = find_program(program);

    return path != NULL;
}

static bool kept(const int *keep, int fd)
{
    for (; keep && *keep >= 0; keep++)
        if (*keep == fd)
            return true;
    return false;
}

static void close_others(const Child *child)
{
    /* close_range twice around each kept one would need sorting; a plain walk is enough for our limits. */
    if (!child->spec->keep_fds || *child->spec->keep_fds < 0) {
        if (child->report > 3)
            (void)syscall(SYS_close_range, 3U, (unsigned)child->report - 1, 0U);
        (void)syscall(SYS_close_range, (unsigned)child->report + 1, ~0U, 0U);
        return;
    }
    for (int fd = 3; fd < 4096; fd++)
        if (fd != child->report && !kept(child->spec->keep_fds, fd))
            (void)close(fd);
    for (const int *fd = child->spec->keep_fds; *fd >= 0; fd++)
        (void)fcntl(*fd, F_SETFD, 0);
}

G_NORETURN static void child_exec(const Child *child, pid_t parent)
{
    sigset_t none;
    int number;

    /* The parent may be gone between fork and prctl: then nobody would send the signal. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    (void)setpgid(0, 0);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)signal(SIGINT, SIG_DFL);
    if ((child->in != 0 && dup2(child->in, 0) < 0) || (child->out != 1 && dup2(child->out, 1) < 0) ||
        (child->err != 2 && dup2(child->err, 2) < 0))
        _exit(127);
    close_others(child);
    (void)fcntl(child->report, F_SETFD, FD_CLOEXEC);
    if (!child->spec->cwd || chdir(child->spec->cwd) == 0) {
        if (child->spec->env)
            (void)execve(child->program, (char *const *)child->spec->argv, (char *const *)child->spec->env);
        else
            (void)execv(child->program, (char *const *)child->spec->argv);
    }
    number = errno;
    if (write(child->report, &number, sizeof(number)) < 0) {
        /* the parent sees exit code 127 instead */
    }
    _exit(127);
}

static void trace_command(const char *const *argv)
{
    if (trace_enabled("base.process")) {
        g_autofree char *line = g_strjoinv(" ", (char **)argv);

        trace("base.process", "start: %s", line);
    }
}

static bool start(Child *child, pid_t *ret_pid, GError **error)
{
    const char *const *argv = child->spec->argv;
    g_autofree char *program = find_program(argv[0]);
    int report[2], number;
    pid_t pid, parent = getpid();

    if (!program)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "the program '%s' is not installed", argv[0]);
    trace_command(argv);
    if (pipe2(report, O_CLOEXEC) < 0)
        return fail_errno(error, "make a pipe");
    /* dup2 over 0..2 must not hit the report pipe: pipes are above 2 as kiln keeps 0..2 open. */
    child->program = program;
    child->report = report[1];
    pid = fork();
    if (pid == 0)
        child_exec(child, parent);
    (void)close(report[1]);
    if (pid < 0) {
        (void)close(report[0]);
        return fail_errno(error, "start '%s'", argv[0]);
    }
    (void)setpgid(pid, pid);
    if (read(report[0], &number, sizeof(number)) == (ssize_t)sizeof(number)) {
        (void)close(report[0]);
        (void)waitpid(pid, NULL, 0);
        errno = number;
        return fail_errno(error, "start '%s'", argv[0]);
    }
    (void)close(report[0]);
    *ret_pid = pid;
    return true;
}

static int open_null(void)
{
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

bool process_spawn(const ProcessSpec *spec, pid_t *ret_pid, GError **error)
{
    auto_fd int null = open_null();
    Child child = {
        .spec = spec,
        .in = spec->stdin_fd > 0 ? spec->stdin_fd : spec->inherit_stdin ? 0 : null,
        .out = spec->stdout_fd > 0 ? spec->stdout_fd : spec->inherit_stdout ? 1 : null,
        .err = spec->stderr_fd > 0 ? spec->stderr_fd : spec->inherit_stderr ? 2 : null,
    };

    if (null < 0)
        return fail_errno(error, "open /dev/null");
    return start(&child, ret_pid, error);
}

static gint64 deadline_of(double timeout)
{
    return timeout > 0 ? g_get_monotonic_time() + (gint64)(timeout * 1e6) : G_MAXINT64;
}

bool process_wait(pid_t pid, double timeout, int *ret_status, GError **error)
{
    gint64 deadline = deadline_of(timeout);
    unsigned step = 1000;

    for (;;) {
        int status;
        pid_t got = waitpid(pid, &status, timeout > 0 ? WNOHANG : 0);

        if (got == pid) {
            if (ret_status)
                *ret_status = status;
            return true;
        }
        if (got < 0 && errno != EINTR)
            return fail_errno(error, "wait for process %d", (int)pid);
        if (g_get_monotonic_time() >= deadline)
            return fail_code(error, KILN_ERROR_TIMEOUT, "process %d did not end within %.1f s", (int)pid, timeout);
        if (got == 0) {
            g_usleep(step);
            step = MIN(step * 2, 20000U);
        }
    }
}

void process_end(pid_t pid, double grace)
{
    if (pid <= 0)
        return;
    (void)kill(-pid, SIGTERM);
    (void)kill(pid, SIGTERM);
    if (grace > 0 && process_wait(pid, grace, NULL, NULL)) {
        (void)kill(-pid, SIGKILL); /* what the leader left behind */
        return;
    }
    (void)kill(-pid, SIGKILL);
    (void)kill(pid, SIGKILL);
    (void)process_wait(pid, 0, NULL, NULL);
}

/* One output stream of a running child, cut into lines. */
typedef struct Stream {
    int fd; /* -1 when closed */
    bool is_stderr;
    GString *line;
} Stream;

static void emit(const ProcessSpec *spec, Stream *stream)
{
    if (spec->on_line)
        spec->on_line(stream->line->str, stream->is_stderr, spec->arg);
    g_string_truncate(stream->line, 0);
}

static void take(const ProcessSpec *spec, Stream *stream, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (data[i] == '\n' || stream->line->len >= LINE_MAX_SIZE)
            emit(spec, stream);
        if (data[i] != '\n' && data[i] != '\0')
            g_string_append_c(stream->line, data[i]);
    }
}

static void pump(const ProcessSpec *spec, Stream *stream)
{
    char buf[16 * 1024];
    ssize_t got = read(stream->fd, buf, sizeof(buf));

    if (got > 0) {
        take(spec, stream, buf, (size_t)got);
    } else if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
        if (stream->line->len)
            emit(spec, stream);
        (void)close(stream->fd);
        stream->fd = -1;
    }
}

static bool over(const ProcessSpec *spec, gint64 deadline, GError **error)
{
    if (!interrupt_check(error))
        return true;
    if (g_get_monotonic_time() < deadline)
        return false;
    fail_code(error, KILN_ERROR_TIMEOUT, "'%s' did not end within its limit of %.0f s", spec->argv[0],
              spec->timeout);
    return true;
}

/*
 * Reads until both streams end or the child has been gone for a moment: a
 * daemon the child left behind may hold the pipe open for ever, silent or not.
 */
static bool follow(const ProcessSpec *spec, pid_t pid, Stream streams[2], int *ret_status, GError **error)
{
    gint64 deadline = deadline_of(spec->timeout), enough = G_MAXINT64;
    int quiet = 1; /* a child that closed both streams is mostly about to end */
    bool gone = false;

    while (!gone || streams[0].fd >= 0 || streams[1].fd >= 0) {
        struct pollfd fds[4] = {{streams[0].fd, POLLIN, 0},
                                {streams[1].fd, POLLIN, 0},
                                {interrupt_fd(), POLLIN, 0},
                                {spec->watch_fd > 0 ? spec->watch_fd : -1, POLLIN, 0}};
        bool closed = streams[0].fd < 0 && streams[1].fd < 0;
        int ready = poll(fds, 4, gone ? 50 : closed ? quiet : POLL_STEP_MS);

        if (closed)
            quiet = MIN(quiet * 2, POLL_STEP_MS);
        if (over(spec, deadline, error))
            return false;
        for (int i = 0; i < 2; i++)
            if (streams[i].fd >= 0 && fds[i].revents)
                pump(spec, &streams[i]);
        if (ready > 0 && fds[3].revents && !spec->on_watch(spec->watch_arg, error))
            return false;
        if (gone && (ready == 0 || g_get_monotonic_time() >= enough))
            break;
        if (!gone && waitpid(pid, ret_status, WNOHANG) == pid) {
            gone = true;
            enough = g_get_monotonic_time() + AFTER_END_US;
        }
    }
    return true;
}

static void stream_clear(Stream *stream)
{
    if (stream->fd >= 0)
        (void)close(stream->fd);
    g_string_free(stream->line, TRUE);
}

static bool start_with_pipes(const ProcessSpec *spec, int pipes[2][2], pid_t *ret_pid, GError **error)
{
    auto_fd int null = open_null();
    Child child = {.spec = spec,
                   .in = spec->stdin_fd > 0 ? spec->stdin_fd : spec->inherit_stdin ? 0 : null,
                   .out = spec->stdout_fd > 0 ? spec->stdout_fd : spec->inherit_stdout ? 1 : pipes[0][1],
                   .err = spec->stderr_fd > 0 ? spec->stderr_fd : spec->inherit_stderr ? 2 : pipes[1][1]};

    if (null < 0)
        return fail_errno(error, "open /dev/null");
    return start(&child, ret_pid, error);
}

bool process_run(const ProcessSpec *spec, int *ret_exit, GError **error)
{
    int pipes[2][2] = {{-1, -1}, {-1, -1}}, status = 0;
    Stream streams[2] = {{-1, false, NULL}, {-1, true, NULL}};
    pid_t pid = 0;
    bool ok = false;

    if (pipe2(pipes[0], O_CLOEXEC) < 0 || pipe2(pipes[1], O_CLOEXEC) < 0)
        return fail_errno(error, "make a pipe");
    for (int i = 0; i < 2; i++) {
        streams[i].fd = pipes[i][0];
        streams[i].line = g_string_new(NULL);
    }
    ok = start_with_pipes(spec, pipes, &pid, error);
    (void)close(pipes[0][1]);
    (void)close(pipes[1][1]);
    if (ok) {
        ok = follow(spec, pid, streams, &status, error);
        if (!ok)
            process_end(pid, interrupt_requested() ? INTERRUPT_GRACE : TIMEOUT_GRACE);
        else
            (void)kill(-pid, SIGKILL); /* nothing it started stays */
    }
    stream_clear(&streams[0]);
    stream_clear(&streams[1]);
    if (ok)
        *ret_exit = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return ok;
}

typedef struct Capture {
    GString *out;
    GQueue last; /* of char*: the last lines of stderr */
    size_t max;
} Capture;

static void capture_line(const char *line, bool is_stderr, void *arg)
{
    Capture *capture = arg;

    if (!is_stderr) {
        if (capture->out->len <= capture->max)
            g_string_append_printf(capture->out, "%s\n", line);
        return;
    }
    g_queue_push_tail(&capture->last, g_strdup(line));
    if (g_queue_get_length(&capture->last) > 3)
        g_free(g_queue_pop_head(&capture->last));
}

static bool capture_failed(const char *program, int code, Capture *capture, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (GList *l = capture->last.head; l; l = l->next)
        g_string_append_printf(text, "%s%s", text->len ? "; " : "", (const char *)l->data);
    return fail(error, "'%s' failed with exit code %d%s%s", program, code, text->len ? ": " : "", text->str);
}

bool process_capture(const char *const *argv, size_t max, char **ret_stdout, GError **error)
{
    Capture capture = {.out = g_string_new(NULL), .max = max};
    ProcessSpec spec = {.argv = argv, .on_line = capture_line, .arg = &capture};
    int code = 0;
    bool ok;

    g_queue_init(&capture.last);
    ok = process_run(&spec, &code, error);
    if (ok && code != 0)
        ok = capture_failed(argv[0], code, &capture, error);
    if (ok && capture.out->len > max)
        ok = fail(error, "'%s' printed more than the %zu bytes allowed", argv[0], max);
    g_queue_clear_full(&capture.last, g_free);
    if (ok && ret_stdout)
        *ret_stdout = g_string_free(capture.out, FALSE);
    else
        g_string_free(capture.out, TRUE);
    return ok;
}
