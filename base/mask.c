/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forms of secret words, and their replacement. Longer forms are replaced first, so that a word that is part of another
 * one's form leaves nothing of it.
 */
#include "base/mask.h"

#include "base/printable.h"
#include "base/scope.h"

#include <string.h>

#define SHOWN "<sensitive>"

static GMutex lock;
static GPtrArray *forms; /* of GBytes*, longest first */

static void free_bytes(gpointer bytes)
{
    g_bytes_unref(bytes);
}

static void add_form(GPtrArray *list, const void *data, size_t size, size_t min)
{
    if (size < min)
        return;
    for (guint i = 0; i < list->len; i++)
        if (g_bytes_get_size(list->pdata[i]) == size && memcmp(g_bytes_get_data(list->pdata[i], NULL), data, size) == 0)
            return;
    g_ptr_array_add(list, g_bytes_new(data, size));
}

/* Base64 of what stands at @offset in a group of three, without the characters that the neighbours share; and as the text's end. */
static void add_base64(GPtrArray *list, const guint8 *word, size_t size, unsigned offset, size_t min)
{
    g_autofree guint8 *padded = g_malloc0(size + offset + 3);
    g_autofree char *text = NULL;
    size_t skip = offset == 0 ? 0 : offset + 1, whole = (size + offset) / 3 * 4;

    memcpy(padded + offset, word, size);
    text = g_base64_encode(padded, size + offset);
    if (whole < skip + min + min / 3)
        return;
    for (int url = 0; url < 2; url++) {
        add_form(list, text + skip, whole - skip, min);
        add_form(list, text + skip, strlen(text) - skip, min);
        add_form(list, text + skip, strcspn(text, "=") - skip, min);
        for (char *c = text; *c; c++)
            *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    }
}

GPtrArray *mask_file_forms(const void *word, size_t size, size_t min)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(free_bytes);

    add_form(list, word, size, min);
    for (unsigned offset = 0; offset < 3 && size >= min; offset++)
        add_base64(list, word, size, offset, min);
    return list;
}

static void add_hex(GPtrArray *list, const guint8 *word, size_t size)
{
    g_autoptr(GString) lower = g_string_new(NULL), upper = g_string_new(NULL);

    for (size_t i = 0; i < size; i++) {
        g_string_append_printf(lower, "%02x", word[i]);
        g_string_append_printf(upper, "%02X", word[i]);
    }
    add_form(list, lower->str, lower->len, MASK_MIN);
    add_form(list, upper->str, upper->len, MASK_MIN);
}

/* As printed inside quotes by JSON writers, shells (set -x, %q) and URL makers. */
static void add_escaped(GPtrArray *list, const char *word)
{
    g_autoptr(GString) json = g_string_new(NULL), shell = g_string_new(NULL), quoted = g_string_new(NULL);
    g_autofree char *url = g_uri_escape_string(word, NULL, FALSE), *lower = NULL, *line = printable_line(word), *text = printable_text(word);

    for (const char *c = word; *c; c++) {
        if (*c == '"' || *c == '\\')
            g_string_append_printf(json, "\\%c", *c);
        else if ((guchar)*c < 0x20)
            g_string_append_printf(json, *c == '\n' ? "\\n" : *c == '\t' ? "\\t" : "\\u%04x", (guchar)*c);
        else
            g_string_append_c(json, *c);
        if (*c == '\'')
            g_string_append(shell, "'\\''");
        else
            g_string_append_c(shell, *c);
        if (!g_ascii_isalnum(*c) && !strchr("_-./:=@%+,", *c) && !((guchar)*c & 0x80))
            g_string_append_c(quoted, '\\');
        g_string_append_c(quoted, *c);
    }
    lower = g_ascii_strdown(url, -1);
    add_form(list, line, strlen(line), MASK_MIN); /* our own errors' */
    add_form(list, text, strlen(text), MASK_MIN);
    add_form(list, json->str, json->len, MASK_MIN);
    add_form(list, shell->str, shell->len, MASK_MIN);
    add_form(list, quoted->str, quoted->len, MASK_MIN);
    add_form(list, url, strlen(url), MASK_MIN);
    if (strchr(url, '%'))
        add_form(list, lower, strlen(lower), MASK_MIN);
}

static gint longest_first(gconstpointer a, gconstpointer b)
{
    size_t x = g_bytes_get_size(*(GBytes *const *)a), y = g_bytes_get_size(*(GBytes *const *)b);

    return x > y ? -1 : x < y;
}

static void add_word(const guint8 *word, size_t size)
{
    g_autofree char *text = g_strndup((const char *)word, size);

    if (size < MASK_MIN)
        return;
    g_autoptr(GPtrArray) file_forms = mask_file_forms(word, size, MASK_MIN);

    for (guint i = 0; i < file_forms->len; i++)
        add_form(forms, g_bytes_get_data(file_forms->pdata[i], NULL), g_bytes_get_size(file_forms->pdata[i]), MASK_MIN);
    add_hex(forms, word, size);
    if (strlen(text) == size)
        add_escaped(forms, text);
}

void mask_add(const void *word, size_t size)
{
    const guint8 *bytes = word, *end = bytes + size;
    AUTO_LOCK(&lock);

    if (!forms)
        forms = g_ptr_array_new_with_free_func(free_bytes);
    add_word(bytes, size);
    for (const guint8 *line = bytes, *next; line < end; line = next + 1) {
        next = memchr(line, '\n', (size_t)(end - line));
        if (!next)
            next = end;
        add_word(line, (size_t)(next - line) - (next > line && next[-1] == '\r'));
    }
    g_ptr_array_sort(forms, longest_first);
}

bool mask_active(void)
{
    AUTO_LOCK(&lock);

    return forms && forms->len > 0;
}

/* In one pass: a whole file that names a secret in each line is a text, too. */
static void replace(GString **text, const char *form, size_t size)
{
    const char *at = (*text)->str, *end = at + (*text)->len, *found = memmem(at, (size_t)(end - at), form, size);
    GString *replaced;

    if (!found)
        return;
    replaced = g_string_sized_new((*text)->len);
    for (; found; found = memmem(at, (size_t)(end - at), form, size)) {
        g_string_append_len(replaced, at, found - at);
        g_string_append(replaced, SHOWN);
        at = found + size;
    }
    g_string_append_len(replaced, at, end - at);
    g_string_free(*text, TRUE);
    *text = replaced;
}

char *mask_text(const char *text)
{
    GString *masked = g_string_new(text);
    AUTO_LOCK(&lock);

    for (guint i = 0; forms && i < forms->len; i++)
        replace(&masked, g_bytes_get_data(forms->pdata[i], NULL), g_bytes_get_size(forms->pdata[i]));
    return g_string_free(masked, FALSE);
}
