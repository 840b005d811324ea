/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ctrl-C, made polite: the first SIGINT, SIGTERM or SIGHUP sets a flag that long work asks
 * for; the caller unwinds, so every cleanup runs. A second one, more
 * than a twentieth of a second later, ends the program at once (children die with us, see process.h).
 */
#ifndef KILN_BASE_INTERRUPT_H
#define KILN_BASE_INTERRUPT_H

#include <glib.h>
#include <stdbool.h>

void interrupt_install(void);
bool interrupt_requested(void);

/* Called when a second signal ends the program; it may do only what a signal handler may. One, for the whole program. */
void interrupt_on_exit(void (*fn)(void));

/* A descriptor that becomes readable when the flag is set; for poll(). */
int interrupt_fd(void);

/* False with KILN_ERROR_INTERRUPTED when the user asked us to stop, else true. */
bool interrupt_check(GError **error);

#endif
