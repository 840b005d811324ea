/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small reader of terminal output: drops what would drive a terminal.
 *
 *     TEXT --ESC--> ESCAPE --[--> CSI ----final byte-----> TEXT
 *                      |--]PX^_--> STRING --BEL or ESC \--> TEXT
 *                      '--other--> TEXT
 *
 * Characters beyond ASCII pass as whole UTF-8 sequences; those of the C1 range (U+0080..U+009F), which
 * some terminals obey, and stray bytes become '?'.
 */
#include "baker/console-text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define TAIL_LINES 20
#define LINE_MAX_BYTES 1000

enum State { TEXT, ESCAPE, CSI, STRING, STRING_ESCAPE };

struct ConsoleText {
    enum State state;
    char character[4]; /* a UTF-8 sequence being collected */
    unsigned have, want;
    GString *line;
    GQueue tail; /* of char* */
};

ConsoleText *console_text_new(void)
{
    ConsoleText *text = g_new0(ConsoleText, 1);

    text->line = g_string_new(NULL);
    g_queue_init(&text->tail);
    return text;
}

void console_text_free(ConsoleText *text)
{
    if (!text)
        return;
    g_string_free(text->line, TRUE);
    g_queue_clear_full(&text->tail, g_free);
    g_free(text);
}

static void new_line(ConsoleText *text, GString *out)
{
    g_string_append_c(out, '\n');
    if (text->line->len == 0)
        return;
    g_queue_push_tail(&text->tail, g_strdup(text->line->str));
    if (g_queue_get_length(&text->tail) > TAIL_LINES)
        g_free(g_queue_pop_head(&text->tail));
    g_string_truncate(text->line, 0);
}

static void put(ConsoleText *text, const char *bytes, size_t size, GString *out)
{
    if (text->line->len >= LINE_MAX_BYTES)
        new_line(text, out);
    g_string_append_len(text->line, bytes, (gssize)size);
    g_string_append_len(out, bytes, (gssize)size);
}

static unsigned sequence_length(uint8_t lead)
{
    return lead >= 0xc2 && lead < 0xe0   ? 2
           : lead >= 0xe0 && lead < 0xf0 ? 3
           : lead >= 0xf0 && lead < 0xf5 ? 4
                                         : 1;
}

static void end_character(ConsoleText *text, GString *out)
{
    gunichar c =
        text->have == text->want ? g_utf8_get_char_validated(text->character, text->have) : (gunichar)-1;

    if (c < 0xa0 || c >= (gunichar)-2)
        put(text, "?", 1, out);
    else
        put(text, text->character, text->have, out);
    text->have = text->want = 0;
}

static void feed_text(ConsoleText *text, char c, GString *out)
{
    uint8_t byte = (uint8_t)c;

    if (text->want > 0 && (byte & 0xc0) == 0x80) {
        text->character[text->have++] = c;
        if (text->have == text->want)
            end_character(text, out);
        return;
    }
    if (text->want > 0)
        end_character(text, out); /* cut short */
    if (byte == 0x1b)
        text->state = ESCAPE;
    else if (c == '\n')
        new_line(text, out);
    else if (c == '\t' || (byte >= 0x20 && byte < 0x7f))
        put(text, &c, 1, out);
    else if (byte >= 0x80) {
        text->character[0] = c;
        text->have = 1;
        text->want = sequence_length(byte);
        if (text->want == 1)
            end_character(text, out);
    }
}

static void feed_csi(ConsoleText *text, char c, GString *out)
{
    if (c < 0x40 || c > 0x7e)
        return; /* parameters */
    if (strchr("HfJ", c) && text->line->len > 0)
        new_line(text, out);
    text->state = TEXT;
}

static void feed_byte(ConsoleText *text, char c, GString *out)
{
    switch (text->state) {
    case TEXT:
        feed_text(text, c, out);
        break;
    case ESCAPE:
        text->state = c == '[' ? CSI : strchr("]PX^_", c) && c ? STRING : c == 0x1b ? ESCAPE : TEXT;
        break;
    case CSI:
        feed_csi(text, c, out);
        break;
    case STRING:
        /* A newline ends it as well: one stray ESC must not swallow a whole boot. */
        text->state = c == 0x07 || c == '\n' ? TEXT : c == 0x1b ? STRING_ESCAPE : STRING;
        break;
    case STRING_ESCAPE:
        text->state = c == '\\' ? TEXT : STRING;
        break;
    }
}

void console_text_feed(ConsoleText *text, const char *data, size_t size, GString *out)
{
    for (size_t i = 0; i < size; i++)
        feed_byte(text, data[i], out);
}

char *console_text_tail(const ConsoleText *text)
{
    g_autoptr(GString) all = g_string_new(NULL);

    for (const GList *l = text->tail.head; l; l = l->next)
        g_string_append_printf(all, "%s\n", (const char *)l->data);
    if (text->line->len > 0)
        g_string_append_printf(all, "%s\n", text->line->str);
    return g_string_free(g_steal_pointer(&all), FALSE);
}
