/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes we start: never through a shell, always ended with us.
 *
 * Every child gets SIGKILL when the thread that started it ends (PR_SET_PDEATHSIG: start
 * long-lived children from a thread that lives as long), its own process group,
 * and no descriptor but 0, 1, 2 and those in @keep_fds. Its command line is
 * traced as "base.process".
 *
 * process_run() waits, hands out output line by line and honours a time limit
 * and interrupt_requested(): both end the whole process group (SIGTERM, 2 s, SIGKILL).
 */
#ifndef KILN_BASE_PROCESS_H
#define KILN_BASE_PROCESS_H

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

/* One line without its newline; a line of over 64 KiB comes in pieces. @is_stderr tells the stream. */
typedef void ProcessLineFn(const char *line, bool is_stderr, void *arg);

typedef struct ProcessSpec {
    const char *const *argv; /* needed; argv[0] is searched in PATH */
    const char *const *env;  /* "K=V", NULL-terminated, replaces ours when given */
    const char *cwd;
    int stdin_fd;            /* 0 (unset) means /dev/null */
    int stdout_fd;           /* 0 means: lines to @on_line, else inherited by none: discarded */
    int stderr_fd;           /* 0: lines to @on_line, or discarded */
    const int *keep_fds;     /* -1 terminated, may be NULL */
    ProcessLineFn *on_line;  /* may be NULL */
    void *arg;
    double timeout;          /* seconds; 0 is no limit */
    int watch_fd;            /* process_run(): while it can be read, on_watch() is called; 0: none */
    bool (*on_watch)(void *arg, GError **error); /* false ends the child, with the error; gets watch_arg */
    void *watch_arg;
    bool inherit_stderr;     /* stderr goes to our own stderr */
    bool inherit_stdin;      /* for an interactive child */
    bool inherit_stdout;
} ProcessSpec;

/* Starts only. The caller owns the pid and must process_end() or process_wait() it. on_line is not used. */
bool process_spawn(const ProcessSpec *spec, pid_t *ret_pid, GError **error);

/* Waits at most @timeout seconds (0: for ever). *ret_status as from waitpid. A passed limit is KILN_ERROR_TIMEOUT. */
bool process_wait(pid_t pid, double timeout, int *ret_status, GError **error);

/* SIGTERM to the group, then SIGKILL after @grace seconds; always reaps. */
void process_end(pid_t pid, double grace);

/* Runs to the end. *ret_exit: exit code, or 128 + signal. Not being able to start, a timeout and an interrupt are errors. */
bool process_run(const ProcessSpec *spec, int *ret_exit, GError **error);

/* Runs and captures stdout (at most @max bytes); non-zero exit is an error that carries the last lines of stderr. */
bool process_capture(const char *const *argv, size_t max, char **ret_stdout, GError **error);

/* True when @program is found in PATH (also /usr/sbin and /sbin). */
bool process_have(const char *program);

#endif
