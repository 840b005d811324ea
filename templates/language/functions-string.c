/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions on text. Positions and lengths count characters as a reader sees them: a combining mark
 * belongs to the character before it.
 */
#include "templates/language/functions.h"

#include "templates/language/types.h"

#include <string.h>

#define STRING_MAX (256u * 1024 * 1024)

static Value *text(Call *call, const char *string)
{
    return value_string(call->arena, string);
}

static Value *fn_chomp(Call *call)
{
    const char *string = call->args[0]->string;
    size_t length = strlen(string);
    g_autofree char *copy = NULL;

    while (length > 0 && (string[length - 1] == '\n' || string[length - 1] == '\r'))
        length--;
    copy = g_strndup(string, length);
    return text(call, copy);
}

static Value *fn_startswith(Call *call)
{
    return value_bool(call->arena, g_str_has_prefix(call->args[0]->string, call->args[1]->string));
}

static Value *fn_endswith(Call *call)
{
    return value_bool(call->arena, g_str_has_suffix(call->args[0]->string, call->args[1]->string));
}

static Value *fn_strcontains(Call *call)
{
    return value_bool(call->arena, strstr(call->args[0]->string, call->args[1]->string) != NULL);
}

static Value *fn_indent(Call *call)
{
    g_autoptr(GString) out = g_string_new(NULL);
    int64_t spaces;

    if (!call_int(call, 0, 0, 1000, &spaces))
        return NULL;
    for (const char *p = call->args[1]->string; *p && out->len < STRING_MAX; p++) {
        g_string_append_c(out, *p);
        if (*p == '\n')
            g_string_append_printf(out, "%*s", (int)spaces, "");
    }
    return text(call, out->str);
}

static Value *fn_join(Call *call)
{
    g_autoptr(GString) out = g_string_new(NULL);
    bool first = true;

    for (size_t i = 1; i < call->n; i++)
        for (size_t j = 0; j < call->args[i]->n; j++) {
            const Value *item = call->args[i]->items[j];

            if (value_is_null(item))
                return call_fail(call, (int)i, "element %zu is null", j);
            if (!first)
                g_string_append(out, call->args[0]->string);
            first = false;
            g_string_append(out, item->string);
            if (out->len > STRING_MAX)
                return call_fail(call, -1, "the result is larger than 256 MiB");
        }
    return text(call, out->str);
}

static Value *fn_split(Call *call)
{
    const char *separator = call->args[0]->string;
    g_autoptr(GPtrArray) parts = g_ptr_array_new_with_free_func(g_free);

    if (*separator) {
        g_auto(GStrv) split = g_strsplit(call->args[1]->string, separator, -1);

        for (size_t i = 0; split[i]; i++)
            g_ptr_array_add(parts, g_strdup(split[i]));
        if (parts->len == 0)
            g_ptr_array_add(parts, g_strdup(""));
    } else {
        for (const char *p = call->args[1]->string; *p; p = g_utf8_next_char(p))
            g_ptr_array_add(parts, g_strndup(p, (gsize)(g_utf8_next_char(p) - p)));
    }
    return value_strings(call->arena, parts);
}

/* Each character by itself, as in Go: a German sharp s has no capital of one character and stays. */
static Value *mapped(Call *call, gunichar (*map)(gunichar))
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (const char *p = call->args[0]->string; *p; p = g_utf8_next_char(p))
        g_string_append_unichar(out, map(g_utf8_get_char(p)));
    return text(call, out->str);
}

static Value *fn_lower(Call *call)
{
    return mapped(call, g_unichar_tolower);
}

static Value *fn_upper(Call *call)
{
    return mapped(call, g_unichar_toupper);
}

static bool is_word_char(gunichar c)
{
    return c < 0x80 ? g_ascii_isalnum((char)c) || c == '_' : !g_unichar_isspace(c); /* as Go's strings.Title */
}

static Value *fn_title(Call *call)
{
    g_autoptr(GString) out = g_string_new(NULL);
    bool inside = false;

    for (const char *p = call->args[0]->string; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        g_string_append_unichar(out, inside ? c : g_unichar_totitle(c));
        inside = is_word_char(c);
    }
    return text(call, out->str);
}

static Value *fn_replace(Call *call)
{
    const char *string = call->args[0]->string, *search = call->args[1]->string, *with = call->args[2]->string;
    g_autoptr(GString) out = g_string_new(NULL);
    size_t length = strlen(search);
    const char *found;

    if (length == 0) { /* before each character and at the end, as Go's strings.Replace */
        for (; *string && out->len < STRING_MAX; string = g_utf8_next_char(string)) {
            g_string_append(out, with);
            g_string_append_len(out, string, g_utf8_next_char(string) - string);
        }
        g_string_append(out, with);
        return text(call, out->str);
    }
    while ((found = strstr(string, search))) {
        g_string_append_len(out, string, found - string);
        g_string_append(out, with);
        string = found + length;
        if (out->len > STRING_MAX)
            return call_fail(call, -1, "the result is larger than 256 MiB");
    }
    g_string_append(out, string);
    return text(call, out->str);
}

static Value *fn_strrev(Call *call)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (const char *p = call->args[0]->string; *p; p = text_next(p))
        g_string_prepend_len(out, p, text_next(p) - p);
    return text(call, out->str);
}

/* A negative offset counts from the end; length -1 is all the rest. */
static Value *fn_substr(Call *call)
{
    const char *from = call->args[0]->string, *to;
    g_autofree char *copy = NULL;
    int64_t offset, length, total = 0;

    if (!call_int(call, 1, -G_MAXINT32, G_MAXINT32, &offset) || !call_int(call, 2, -G_MAXINT32, G_MAXINT32, &length))
        return NULL;
    for (const char *p = from; *p; p = text_next(p))
        total++;
    if (offset < 0)
        offset = MAX(offset + total, 0);
    for (; offset > 0 && *from; offset--)
        from = text_next(from);
    for (to = from; *to && length != 0; length--) /* a negative length never gets there: all the rest */
        to = text_next(to);
    copy = g_strndup(from, (gsize)(to - from));
    return text(call, copy);
}

static Value *trimmed(Call *call, const char *cutset, bool (*in)(gunichar c, const char *cutset))
{
    const char *from = call->args[0]->string;
    const char *to = from + strlen(from);
    g_autofree char *copy = NULL;

    while (*from && in(g_utf8_get_char(from), cutset))
        from = g_utf8_next_char(from);
    while (to > from && in(g_utf8_get_char(g_utf8_prev_char(to)), cutset))
        to = g_utf8_prev_char(to);
    copy = g_strndup(from, (gsize)(to - from));
    return text(call, copy);
}

static bool in_cutset(gunichar c, const char *cutset)
{
    return g_utf8_strchr(cutset, -1, c) != NULL;
}

static bool is_space(gunichar c, const char *cutset)
{
    return g_unichar_isspace(c) || c == '\v' || c == 0x85 || c == 0xA0;
}

static Value *fn_trim(Call *call)
{
    return trimmed(call, call->args[1]->string, in_cutset);
}

static Value *fn_trimspace(Call *call)
{
    return trimmed(call, NULL, is_space);
}

static Value *fn_trimprefix(Call *call)
{
    const char *string = call->args[0]->string, *prefix = call->args[1]->string;

    return text(call, g_str_has_prefix(string, prefix) ? string + strlen(prefix) : string);
}

static Value *fn_trimsuffix(Call *call)
{
    const char *string = call->args[0]->string, *suffix = call->args[1]->string;
    g_autofree char *copy = NULL;

    if (!g_str_has_suffix(string, suffix))
        return call->args[0];
    copy = g_strndup(string, strlen(string) - strlen(suffix));
    return text(call, copy);
}

size_t text_length(const char *string)
{
    return text_columns(string, strlen(string));
}

const Function functions_string[] = {
    { "chomp", "s", fn_chomp, 0 },
    { "endswith", "ss", fn_endswith, 0 },
    { "indent", "ns", fn_indent, 0 },
    { "join", "sLL*", fn_join, 0 },
    { "lower", "s", fn_lower, 0 },
    { "replace", "sss", fn_replace, 0 },
    { "split", "ss", fn_split, 0 },
    { "startswith", "ss", fn_startswith, 0 },
    { "strcontains", "ss", fn_strcontains, 0 },
    { "strrev", "s", fn_strrev, 0 },
    { "substr", "snn", fn_substr, 0 },
    { "title", "s", fn_title, 0 },
    { "trim", "ss", fn_trim, 0 },
    { "trimprefix", "ss", fn_trimprefix, 0 },
    { "trimspace", "s", fn_trimspace, 0 },
    { "trimsuffix", "ss", fn_trimsuffix, 0 },
    { "upper", "s", fn_upper, 0 },
    { 0 },
};
