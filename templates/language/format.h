/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The canonical layout of HCL text, byte for byte what HCL's own writer (hclwrite) makes of it.
 *
 * Only blanks between tokens change: never a token, never the number of lines. So two versions may be compared line by line.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_FORMAT_H
#define KILN_TEMPLATES_LANGUAGE_FORMAT_H

#include <stddef.h>

/* @text must have parsed without mistakes (then the result parses too, to the same tree). Free with g_free. */
char *format_text(const char *text, size_t size);

#endif
