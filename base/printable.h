/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of strangers, made fit for a terminal, a log and JSON.
 *
 * Names come from guests, registries, archives and templates. A control character among them drives the terminal that shows them (ESC
 * begins its commands, and so does U+009B), and bytes that are no UTF-8 are no text. What is made here is UTF-8 without control characters: each byte of
 * such a character, and each byte that is no UTF-8, stands as \xNN. Errors and the log are made so where they are made (error.c,
 * log.c); who prints names himself calls printable_name().
 */
#ifndef KILN_BASE_PRINTABLE_H
#define KILN_BASE_PRINTABLE_H

#include <glib.h>
#include <stdbool.h>

/* Text of several lines: line ends and tabs stay. */
char *printable_text(const char *text);

/* Text for one line: tabs stay. */
char *printable_line(const char *text);

/* A message that was made by @format: lines of its own stay, and those of a text that is all of it; names with line ends make no lines. */
char *printable_message(const char *format, const char *text);

/* A name in a list of names, so that it can be read back: nothing of the kind stays, and a backslash is two. */
char *printable_name(const char *name);

/* Such a name, and any that is not printable as it is, in double quotes with C's escapes, as git and diff write it into patches. */
char *printable_quoted(const char *name);

/* The form that a tree's text has (store/tree.h): bytes <= 0x20 or >= 0x7f, '%' and '=' as %nn. */
void printable_encode(GString *out, const char *name);

#endif
