/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words that must not be printed: every line of the log, every error and every document for --json goes through mask_text().
 *
 * A word is also found in the forms in which programs print it: base64 at each of its three offsets (both alphabets),
 * hexadecimal, URL-, JSON- and shell-escaped, and as our own messages escape bytes (printable.h); of a word with several lines each line counts, too. Process-wide, from any thread.
 */
#ifndef KILN_BASE_MASK_H
#define KILN_BASE_MASK_H

#include <glib.h>
#include <stdbool.h>

/* Shorter words (and lines of words) would hide innocent text. */
#define MASK_MIN 4

void mask_add(const void *word, size_t size);
bool mask_active(void);

/* @text with every known word as "<sensitive>"; new string. */
char *mask_text(const char *text);

/* The forms of a word that its bytes may have in a file: plain and base64. Array of GBytes*, each at least @min bytes. */
GPtrArray *mask_file_forms(const void *word, size_t size, size_t min);

#endif
