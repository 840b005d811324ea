/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flag and an eventfd: the flag for loops, the descriptor for poll().
 */
#include "base/interrupt.h"

#include "base/error.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* timeout(1) and service managers tell a process and its group: what comes so soon after the first is the same wish. */
#define SAME_WISH_NS (50 * 1000000LL)

static volatile sig_atomic_t requested;
static int64_t first_at; /* written before @requested is set, read after it */
static int event = -1;
static void (*on_exit_fn)(void);

static int64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void on_signal(int number)
{
    uint64_t one = 1;
    int saved = errno;

    if (requested && now_ns() - first_at > SAME_WISH_NS) { /* asked twice: the user wants out now; children end with us */
        if (on_exit_fn)
            on_exit_fn();
        _exit(130);
    }
    if (!requested)
        first_at = now_ns();
    requested = 1;
    if (event >= 0 && write(event, &one, sizeof(one)) < 0) {
        /* the flag alone must do */
    }
    errno = saved;
}

void interrupt_install(void)
{
    struct sigaction action = {.sa_handler = on_signal};

    event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

void interrupt_on_exit(void (*fn)(void))
{
    on_exit_fn = fn;
}

bool interrupt_requested(void)
{
    return requested != 0;
}

int interrupt_fd(void)
{
    return event;
}

bool interrupt_check(GError **error)
{
    return requested ? fail_code(error, KILN_ERROR_INTERRUPTED, "interrupted") : true;
}
