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
#include <unistd.h>

static volatile sig_atomic_t requested;
static int event = -1;
static void (*on_exit_fn)(void);

static void on_signal(int number)
{
    uint64_t one = 1;
    int saved = errno;

    if (requested) { /* asked twice: the user wants out now; children end with us */
        if (on_exit_fn)
            on_exit_fn();
        _exit(130);
    }
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
