/* SPDX-License-Identifier: Apache-2.0 */
/*
 * termios, and every way out of it. Only async-signal-safe calls are made in handlers; tcsetattr is one.
 */
#include "base/terminal.h"

#include "base/error.h"
#include "base/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define ANSWER_MAX 256

/* An interrupt ends us in order, see interrupt.h; these do not. */
static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGQUIT};

static struct termios before;
static volatile sig_atomic_t taken;
static struct sigaction old_fatal[G_N_ELEMENTS(fatal)], old_resize;
static int resized = -1;

bool terminal_is_here(void)
{
    return isatty(STDIN_FILENO) && isatty(STDERR_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();
}

/* --- a question --- */

static void say(const char *text)
{
    (void)!write(STDERR_FILENO, text, strlen(text)); /* a terminal that is gone asks nobody */
}

/* A line without its end, cut to @size; false at the end of the input or an interrupt. */
static bool read_line(char *line, size_t size)
{
    size_t n = 0;
    char c;

    for (;;) {
        struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = interrupt_fd(), .events = POLLIN}};
        ssize_t got;

        if (interrupt_requested())
            return false;
        if (poll(fds, 2, -1) <= 0 || !fds[0].revents)
            continue;
        got = read(STDIN_FILENO, &c, 1);
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (got <= 0)
            return false;
        if (c == '\n')
            break;
        if (n + 1 < size)
            line[n++] = c;
    }
    line[n] = '\0';
    return true;
}

bool terminal_ask(const char *question, const char *letters, char *ret, GError **error)
{
    char line[ANSWER_MAX];

    (void)tcflush(STDIN_FILENO, TCIFLUSH); /* what was typed before the question answers nothing */
    for (;;) {
        say(question);
        if (!read_line(line, sizeof line)) {
            say("\n");
            *ret = letters[0];
            return interrupt_check(error);
        }
        g_strstrip(line);
        *ret = g_ascii_tolower(line[0]);
        if (*ret && strchr(letters, *ret))
            return true;
    }
}

/* --- a terminal for somebody else --- */

static void restore(void)
{
    if (!taken)
        return;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
    taken = 0;
}

static void on_fatal(int number)
{
    restore();
    (void)raise(number); /* the handler was one for once: now it is the default's turn */
}

static void on_resize(int number)
{
    uint64_t one = 1;
    int saved = errno;

    (void)number;
    (void)!write(resized, &one, sizeof one);
    errno = saved;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_fatal, .sa_flags = SA_RESETHAND | SA_NODEFER};

    for (size_t i = 0; i < G_N_ELEMENTS(fatal); i++)
        (void)sigaction(fatal[i], &action, &old_fatal[i]);
    action = (struct sigaction){.sa_handler = on_resize, .sa_flags = SA_RESTART};
    (void)sigaction(SIGWINCH, &action, &old_resize);
}

static void leave_signals(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(fatal); i++)
        (void)sigaction(fatal[i], &old_fatal[i], NULL);
    (void)sigaction(SIGWINCH, &old_resize, NULL);
}

static bool prepare(GError **error)
{
    if (resized >= 0)
        return true;
    resized = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (resized < 0)
        return fail_errno(error, "make an event descriptor");
    (void)atexit(restore);
    interrupt_on_exit(restore);
    return true;
}

bool terminal_take(GError **error)
{
    struct termios raw;

    if (!prepare(error))
        return false;
    if (tcgetattr(STDIN_FILENO, &before) < 0)
        return fail_errno(error, "read the terminal's settings");
    catch_signals();
    raw = before;
    cfmakeraw(&raw);
    taken = 1;
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0)
        return true;
    terminal_give_back();
    return fail_errno(error, "change the terminal's settings");
}

void terminal_give_back(void)
{
    int saved = errno;

    if (taken)
        leave_signals();
    restore();
    errno = saved;
}

int terminal_resized(void)
{
    return resized;
}

void terminal_size(unsigned *ret_rows, unsigned *ret_columns)
{
    struct winsize window = {0};

    (void)ioctl(STDIN_FILENO, TIOCGWINSZ, &window);
    *ret_rows = window.ws_row;
    *ret_columns = window.ws_col;
}
