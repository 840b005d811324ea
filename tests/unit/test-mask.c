/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secret words in all the forms in which programs print them. mask_add() is for the whole process, so each test has a word of its own.
 */
#include "base/mask.h"

#include "base/printable.h"

#include <string.h>

static void assert_hidden(const char *line, const char *left)
{
    g_autofree char *masked = mask_text(line);

    g_assert_cmpstr(masked, ==, left);
}

static void test_plain(void)
{
    mask_add("Tr0ub4dor&3", 11);
    assert_hidden("pw=Tr0ub4dor&3, Tr0ub4dor&3!", "pw=<sensitive>, <sensitive>!");
    assert_hidden("Tr0ub4dor", "Tr0ub4dor");
}

static void test_base64_at_each_offset(void)
{
    static const char word[] = "correct-horse-battery";

    mask_add(word, strlen(word));
    for (unsigned offset = 0; offset < 3; offset++) {
        g_autofree char *text = g_strdup_printf("%.*s%s and more", (int)offset, "xyz", word);
        g_autofree char *encoded = g_base64_encode((const guchar *)text, strlen(text)), *masked = mask_text(encoded);

        g_assert_nonnull(strstr(masked, "<sensitive>"));
        g_assert_cmpuint(strlen(masked), <, strlen(encoded));
    }
    assert_hidden("Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5", "<sensitive>");
}

static void test_base64_ends_with_the_word(void)
{
    mask_add("secret-of-25-bytes-abcdefg", 26);
    assert_hidden("c2VjcmV0LW9mLTI1LWJ5dGVzLWFiY2RlZmc=", "<sensitive>");
}

static void test_escaped(void)
{
    mask_add("a'b\"c d/e", 9);
    assert_hidden("'a'\\''b\"c d/e'", "'<sensitive>'");
    assert_hidden("{\"p\": \"a'b\\\"c d/e\"}", "{\"p\": \"<sensitive>\"}");
    assert_hidden("?p=a%27b%22c%20d%2Fe&q", "?p=<sensitive>&q");
    assert_hidden("612762226320642f65", "<sensitive>");
}

/* A word with bytes that our own messages escape. */
static void test_in_our_messages(void)
{
    g_autofree char *shown = printable_line("secret\x01\xff\nof-ours");
    g_autofree char *line = g_strconcat("no '", shown, "'", NULL);

    mask_add("secret\x01\xff\nof-ours", 16);
    g_assert_cmpstr(shown, ==, "secret\\x01\\xff\\x0aof-ours");
    assert_hidden(line, "no '<sensitive>'");
}

static void test_each_line_of_a_key(void)
{
    static const char key[] = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\r\nhkiG9w0BAQEF\n-----END KEY-----\n";

    mask_add(key, strlen(key));
    assert_hidden("x hkiG9w0BAQEF", "x <sensitive>");
    assert_hidden("MIIEvQIBADANBgkq", "<sensitive>");
}

static void test_short_words_stay(void)
{
    mask_add("ab", 2);
    assert_hidden("about", "about");
}

static void test_file_forms_are_long_enough(void)
{
    g_autoptr(GPtrArray) none = mask_file_forms("seven77", 7, 8), forms = mask_file_forms("twelve-bytes", 12, 8);

    g_assert_cmpuint(none->len, ==, 0);
    g_assert_cmpuint(forms->len, >=, 4); /* plain, and base64 at three offsets */
    for (guint i = 0; i < forms->len; i++)
        g_assert_cmpuint(g_bytes_get_size(forms->pdata[i]), >=, 8);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mask/as-our-own-messages-escape-it", test_in_our_messages);
    g_test_add_func("/mask/plain", test_plain);
    g_test_add_func("/mask/base64-at-each-offset", test_base64_at_each_offset);
    g_test_add_func("/mask/base64-ends-with-the-word", test_base64_ends_with_the_word);
    g_test_add_func("/mask/escaped", test_escaped);
    g_test_add_func("/mask/each-line-of-a-key", test_each_line_of_a_key);
    g_test_add_func("/mask/short-words-stay", test_short_words_stay);
    g_test_add_func("/mask/file-forms-are-long-enough", test_file_forms_are_long_enough);
    return g_test_run();
}
