/* SPDX-License-Identifier: Apache-2.0 */
#include "baker/stanza.h"

#include <string.h>

const char *stanza_stop(const char *stanza, const char *end)
{
    const char *stop = g_strstr_len(stanza, end - stanza, "\n\n");

    return stop ? stop : end;
}

void stanza_each(const char *text, gsize size, StanzaFn *fn, void *arg)
{
    const char *end = text + size;

    while (text < end) {
        const char *stop = stanza_stop(text, end);

        fn(text, stop, arg);
        text = stop + 2;
    }
}

char *stanza_field(const char *stanza, const char *end, const char *field)
{
    size_t length = strlen(field);

    for (const char *line = stanza; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));

        stop = stop ? stop : end;
        if ((size_t)(stop - line) > length && line[length] == ':' && g_ascii_strncasecmp(line, field, length) == 0)
            return g_strstrip(g_strndup(line + length + 1, (gsize)(stop - line) - length - 1));
        line = stop + 1;
    }
    return NULL;
}
