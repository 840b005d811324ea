/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's serial console as plain text.
 *
 * What a guest prints is hostile: escape sequences move the cursor, rename
 * windows, or answer in the user's name. Here they are left out, and so are all other control
 * bytes but newline and tab; a sequence that jumps elsewhere on the screen starts a new line. The last
 * lines are kept for the error that may follow.
 */
#ifndef KILN_BAKER_CONSOLE_TEXT_H
#define KILN_BAKER_CONSOLE_TEXT_H

#include <glib.h>
#include <stddef.h>

typedef struct ConsoleText ConsoleText;

ConsoleText *console_text_new(void);
void console_text_free(ConsoleText *text);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ConsoleText, console_text_free)

/* Appends to @out what @data means as text. Sequences and characters may be cut between calls. */
void console_text_feed(ConsoleText *text, const char *data, size_t size, GString *out);

/* The last non-empty lines (up to 20), also an unfinished one, each with a newline; "" before the first. */
char *console_text_tail(const ConsoleText *text);

#endif
