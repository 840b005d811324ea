/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's terminal, for the few moments in which it is more than a place for messages: a question, or a shell elsewhere that wants every key.
 *
 * While it is taken, keys come as they are typed: Ctrl-C is a byte like others. It is given back on every way out: by
 * terminal_give_back(), at exit, and by the handlers of the signals that end a program.
 */
#ifndef KILN_BASE_TERMINAL_H
#define KILN_BASE_TERMINAL_H

#include <glib.h>
#include <stdbool.h>

/* Standard input and error are terminals and we are in the foreground of the first: somebody can be asked. */
bool terminal_is_here(void);

/*
 * Asks on standard error until a line begins with one of @letters, and gives that letter. The end of the input is the first of
 * them, for whoever hung up. Ends with KILN_ERROR_INTERRUPTED when the user interrupts.
 */
bool terminal_ask(const char *question, const char *letters, char *ret, GError **error);

bool terminal_take(GError **error);
void terminal_give_back(void);

/* While it is taken: readable (8 bytes) after its size changed; and that size, 0 when not known. */
int terminal_resized(void);
void terminal_size(unsigned *ret_rows, unsigned *ret_columns);

#endif
