/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One walk over the characters; what differs is which of them stay.
 */
#include "base/printable.h"

#include <string.h>

/* The bytes of the character at @at, 0 where they are no UTF-8. */
static size_t character(const char *at, gunichar *ret)
{
    *ret = g_utf8_get_char_validated(at, -1);
    return *ret == (gunichar)-1 || *ret == (gunichar)-2 ? 0 : (size_t)(g_utf8_next_char(at) - at);
}

/* C0, DEL and C1. */
static bool is_control(gunichar c)
{
    return c < 0x20 || (c >= 0x7f && c <= 0x9f);
}

/* @octal: as C and git write bytes, and not as \xNN, which in C has no end. */
static void put_byte(GString *out, unsigned byte, bool octal)
{
    if (octal)
        g_string_append_printf(out, "\\%03o", byte);
    else
        g_string_append_printf(out, "\\x%02x", byte);
}

static char *escaped(const char *text, const char *keep, const char *twice, bool octal)
{
    GString *out = g_string_sized_new(strlen(text) + 8);
    size_t size;

    for (; *text; text += size) {
        gunichar c;
        bool shown;

        size = character(text, &c);
        shown = size && (!is_control(c) || (c < 0x80 && strchr(keep, (int)c)));
        size = size ? size : 1;
        if (shown && size == 1 && strchr(twice, *text))
            g_string_append_c(out, '\\');
        if (shown)
            g_string_append_len(out, text, (gssize)size);
        for (size_t i = 0; !shown && i < size; i++)
            put_byte(out, (unsigned char)text[i], octal);
    }
    return g_string_free(out, FALSE);
}

char *printable_text(const char *text)
{
    return escaped(text, "\n\t", "", false);
}

char *printable_line(const char *text)
{
    return escaped(text, "\t", "", false);
}

char *printable_message(const char *format, const char *text)
{
    return strchr(format, '\n') || strcmp(format, "%s") == 0 ? printable_text(text) : printable_line(text);
}

char *printable_name(const char *name)
{
    return escaped(name, "", "\\", false);
}

char *printable_quoted(const char *name)
{
    g_autofree char *quoted = escaped(name, "", "\\\"", true);

    return strcmp(quoted, name) == 0 ? g_steal_pointer(&quoted) : g_strconcat("\"", quoted, "\"", NULL);
}

void printable_encode(GString *out, const char *name)
{
    static const char digits[] = "0123456789abcdef";

    for (const unsigned char *p = (const unsigned char *)name; *p; p++) {
        if (*p <= 0x20 || *p >= 0x7f || *p == '%' || *p == '=') {
            g_string_append_c(out, '%');
            g_string_append_c(out, digits[*p >> 4]);
            g_string_append_c(out, digits[*p & 15]);
        } else {
            g_string_append_c(out, (char)*p);
        }
    }
}
