/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text in stanzas, as dpkg, apt and Python's packages write it: "Field: value" lines, stanzas with an empty line between them.
 */
#ifndef KILN_BAKER_STANZA_H
#define KILN_BAKER_STANZA_H

#include <glib.h>

/* Where the stanza ends that starts at @stanza: the empty line behind it, or @end. */
const char *stanza_stop(const char *stanza, const char *end);

/* Hands out every stanza of @text. */
typedef void StanzaFn(const char *stanza, const char *end, void *arg);
void stanza_each(const char *text, gsize size, StanzaFn *fn, void *arg);

/* The value of @field in the stanza; NULL when absent. One line, without blanks around it. Free with g_free. */
char *stanza_field(const char *stanza, const char *end, const char *field);

#endif
