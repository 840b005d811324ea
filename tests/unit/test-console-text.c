/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's console as plain text.
 */
#include "baker/console-text.h"

#include <stdbool.h>
#include <string.h>

/* Whole, and byte by byte: cuts must make no difference. */
static void expect(const char *raw, size_t size, const char *want)
{
    for (size_t step = 1; step <= size; step += size > 1 ? size - 1 : 1) {
        g_autoptr(ConsoleText) text = console_text_new();
        g_autoptr(GString) out = g_string_new(NULL);

        for (size_t at = 0; at < size; at += step)
            console_text_feed(text, raw + at, MIN(step, size - at), out);
        g_assert_cmpstr(out->str, ==, want);
    }
}

#define EXPECT(raw, want) expect(raw, sizeof(raw) - 1, want)

static void sequences_are_left_out(void)
{
    EXPECT("plain\r\n", "plain\n");
    EXPECT("\033[0;32mgreen\033[0m\r\n", "green\n");
    EXPECT("\033]0;title\007text\033]2;x\033\\y\n", "texty\n");
    EXPECT("\033c\033(Bx\n", "Bx\n"); /* a designation leaves its letter: harmless */
    EXPECT("a\007\010\001b\n", "ab\n");
    EXPECT("\033]never ends\nnext\n", "next\n");
}

static void jumps_start_a_line(void)
{
    EXPECT("\033[2J\033[1;1Hone\033[5;1Htwo\n", "one\ntwo\n");
}

static void utf8_passes_and_c1_does_not(void)
{
    EXPECT("gr\303\274n \342\202\254\n", "gr\303\274n \342\202\254\n");
    EXPECT("\302\2332J\n", "?2J\n"); /* U+009B is CSI to some terminals */
    EXPECT("\2332J\n", "?2J\n");
    EXPECT("\303(x\n", "?(x\n");
    EXPECT("\355\240\200\n", "?\n"); /* a surrogate */
}

static void the_last_lines_are_kept(void)
{
    g_autoptr(ConsoleText) text = console_text_new();
    g_autoptr(GString) out = g_string_new(NULL);
    g_autofree char *tail = NULL;

    for (int i = 0; i < 100; i++) {
        g_autofree char *line = g_strdup_printf("line %d\r\n\r\n", i);

        console_text_feed(text, line, strlen(line), out);
    }
    console_text_feed(text, "login:", 6, out);
    tail = console_text_tail(text);
    g_assert_true(g_str_has_prefix(tail, "line 80\nline 81\n"));
    g_assert_true(g_str_has_suffix(tail, "line 99\nlogin:\n"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/console-text/sequences-are-left-out", sequences_are_left_out);
    g_test_add_func("/console-text/jumps-start-a-line", jumps_start_a_line);
    g_test_add_func("/console-text/utf8-passes-and-c1-does-not", utf8_passes_and_c1_does_not);
    g_test_add_func("/console-text/the-last-lines-are-kept", the_last_lines_are_kept);
    return g_test_run();
}
