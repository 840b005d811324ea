/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's terminal: whatever ends a program that took it, keys are echoed again afterwards. Each case is a child on a terminal of its own.
 */
#include "base/interrupt.h"
#include "base/terminal.h"

#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

static bool echoes(int master)
{
    struct termios settings;

    g_assert_cmpint(tcgetattr(master, &settings), ==, 0);
    return (settings.c_lflag & (ECHO | ICANON | ISIG)) == (ECHO | ICANON | ISIG);
}

/* Output of the child up to @text. */
static void wait_for(int master, const char *text)
{
    g_autoptr(GString) seen = g_string_new(NULL);
    char c;

    while (!strstr(seen->str, text) && read(master, &c, 1) == 1)
        g_string_append_c(seen, c);
    g_assert_nonnull(strstr(seen->str, text));
}

static pid_t start(void (*child)(void), int *ret_master, int *ret_slave)
{
    pid_t pid;

    g_assert_cmpint(openpty(ret_master, ret_slave, NULL, NULL, NULL), ==, 0); /* the slave stays open: settings outlive the child */
    pid = fork();
    if (pid != 0)
        return pid;
    g_assert_cmpint(login_tty(*ret_slave), ==, 0);
    interrupt_install();
    child();
    _exit(0);
}

static void say(const char *text)
{
    g_assert_cmpint(write(STDERR_FILENO, text, strlen(text)), ==, (gssize)strlen(text));
}

static void take(void)
{
    g_assert_true(terminal_is_here());
    g_assert_true(terminal_take(NULL));
    say("taken");
}

static void child_gives_back(void)
{
    take();
    terminal_give_back();
}

static void child_exits(void)
{
    take();
    exit(0);
}

static void child_waits(void)
{
    take();
    for (;;)
        (void)pause();
}

static void check_restored(void (*child)(void), int number, int times)
{
    int master, slave, status;
    pid_t pid = start(child, &master, &slave);
    bool ended = false;

    wait_for(master, "taken");
    if (number)
        g_assert_false(echoes(master));
    for (int i = 0; !ended && i < (times == 2 ? 20 : times); i++) { /* on a slow machine two may come as one */
        g_assert_cmpint(kill(pid, number), ==, 0);
        g_usleep(200000); /* well apart: what comes at once is one wish (base/interrupt.c) */
        ended = times == 2 && waitpid(pid, &status, WNOHANG) == pid;
        g_assert_false(ended && i == 0);
    }
    if (!ended)
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(echoes(master));
    if (times == 1)
        g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == number);
    if (times == 2)
        g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 130);
    (void)close(master);
    (void)close(slave);
}

static void test_is_given_back(void)
{
    check_restored(child_gives_back, 0, 0);
    check_restored(child_exits, 0, 0);
    check_restored(child_waits, SIGSEGV, 1);
    check_restored(child_waits, SIGABRT, 1);
    check_restored(child_waits, SIGQUIT, 1);
    check_restored(child_waits, SIGTERM, 2); /* the first one asks politely */
}

static void child_asks(void)
{
    char answer = 0;

    g_assert_true(terminal_ask("well? ", "cr", &answer, NULL));
    _exit(answer);
}

static void answer(const char *typed, int expected)
{
    int master, slave, status;
    pid_t pid = start(child_asks, &master, &slave);

    wait_for(master, "well? ");
    g_assert_cmpint(write(master, typed, strlen(typed)), ==, (gssize)strlen(typed));
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, expected);
    (void)close(master);
    (void)close(slave);
}

static void test_question(void)
{
    answer("r\n", 'r');
    answer(" Retry\n", 'r');
    answer("\nwhat\nc\n", 'c'); /* asked again */
    answer("\4", 'c');          /* the end of the input is the first answer */
}

static void test_nobody_is_here(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        (void)setsid();
        (void)close(STDIN_FILENO);
        _exit(terminal_is_here());
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_cmpint(status, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/terminal/is-given-back-on-every-way-out", test_is_given_back);
    g_test_add_func("/terminal/question-is-asked-until-answered", test_question);
    g_test_add_func("/terminal/nobody-is-here-without-one", test_nobody_is_here);
    return g_test_run();
}
