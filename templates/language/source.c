/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where something is in a text, and how that is shown.
 *
 * A column counts what a reader counts: combining marks belong to the character before them, as in HCL
 * itself. The caret line repeats tabs and doubles wide characters, so that it stands under the right place.
 */
#include "templates/language/source.h"

#include "base/units.h"

#include <string.h>

enum { SHOWN_BEFORE = 60, SHOWN_MAX = 160 };

Source *source_new(Diagnostics *diagnostics, const char *name, const char *text, size_t size)
{
    Source *source = arena_new0(diagnostics->arena, Source, 1);
    const char *bad;

    source->name = arena_strdup(diagnostics->arena, name);
    source->text = "";
    if (size > SOURCE_SIZE_MAX) {
        diagnose(diagnostics, (Range){ source, 0, 0 }, "this file has %zu bytes, more than the %u allowed", size,
                 SOURCE_SIZE_MAX);
        return NULL;
    }
    if (size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
        text += 3;
        size -= 3;
    }
    if (!g_utf8_validate_len(text, size, &bad)) {
        source->size = (size_t)(bad - text);
        source->text = arena_strndup(diagnostics->arena, text, source->size);
        diagnose(diagnostics, (Range){ source, source->size, source->size },
                 "this file is not UTF-8 text: the byte 0x%02x here is not allowed", (unsigned char)*bad);
        return NULL;
    }
    source->size = size;
    source->text = arena_strndup(diagnostics->arena, text, size);
    return source;
}

Range range_join(Range first, Range last)
{
    return (Range){ first.source, first.start, MAX(first.end, last.end) };
}

/* --- columns --- */

/* Hangul syllables are written with one to three letters: leading, vowel, trailing. */
static bool hangul_joins(gunichar before, gunichar c)
{
    bool leading = before >= 0x1100 && before <= 0x115F;
    bool syllable = before >= 0xAC00 && before <= 0xD7A3;
    bool vowel = (before >= 0x1160 && before <= 0x11A7) || (syllable && (before - 0xAC00) % 28 == 0);
    bool trailing = (before >= 0x11A8 && before <= 0x11FF) || syllable;

    if (c >= 0x1160 && c <= 0x11A7)
        return leading || vowel;
    if (c >= 0x11A8 && c <= 0x11FF)
        return vowel || trailing;
    return leading && ((c >= 0x1100 && c <= 0x115F) || (c >= 0xAC00 && c <= 0xD7A3));
}

static bool is_flag_letter(gunichar c)
{
    return c >= 0x1F1E6 && c <= 0x1F1FF;
}

/* What sticks to the character before it: marks, joiners and what they join, skin tones, the second half of a flag. */
static bool char_joins(gunichar before, gunichar c, unsigned flags)
{
    if (before == 0 || before == '\n')
        return false;
    if (g_unichar_ismark(c) || c == 0x200D || c == 0x200C || (c >= 0x1F3FB && c <= 0x1F3FF) || (c >= 0xE0020 && c <= 0xE007F))
        return true;
    if (is_flag_letter(c))
        return flags % 2 == 1;
    return (before == 0x200D && c >= 0x2190) || hangul_joins(before, c);
}

size_t text_columns(const char *text, size_t size)
{
    size_t n = 0;
    unsigned flags = 0; /* flag letters right before */
    gunichar before = 0;

    for (const char *p = text; p < text + size; p = g_utf8_next_char(p)) {
        gunichar c = (guchar)*p;

        if (c < 0x80) { /* nearly always; only a line break joins */
            n += !(before == '\r' && c == '\n');
            flags = 0;
            before = c;
            continue;
        }
        c = g_utf8_get_char(p);
        n += !char_joins(before, c, flags);
        flags = is_flag_letter(c) ? flags + 1 : 0;
        before = c;
    }
    return n;
}

const char *text_next(const char *text)
{
    gunichar before = g_utf8_get_char(text), c;
    unsigned flags = is_flag_letter(before);
    const char *p = g_utf8_next_char(text);

    if (before == '\r' && *p == '\n')
        return p + 1;
    for (; *p && char_joins(before, c = g_utf8_get_char(p), flags); p = g_utf8_next_char(p)) {
        flags = is_flag_letter(c) ? flags + 1 : 0;
        before = c;
    }
    return p;
}

static Position position_at(const Source *source, size_t byte)
{
    Position position = { 1, 1, byte };
    const char *end = source->text + byte;
    const char *line = source->text;
    const char *p;

    while ((p = memchr(line, '\n', (size_t)(end - line)))) {
        position.line++;
        line = p + 1;
    }
    position.column += (unsigned)text_columns(line, (size_t)(end - line));
    return position;
}

Range range_outermost(Range range)
{
    while (range.source && range.source->outer)
        range = (Range){ range.source->outer, range.source->places[range.start], range.source->places[range.end] };
    return range;
}

const char *range_file(Range range)
{
    return range_outermost(range).source->name;
}

Position range_start(Range range)
{
    range = range_outermost(range);
    return position_at(range.source, range.start);
}

Position range_end(Range range)
{
    range = range_outermost(range);
    return position_at(range.source, range.end);
}

void diagnostics_init(Diagnostics *diagnostics, Arena *arena)
{
    *diagnostics = (Diagnostics){ .arena = arena, .list = g_ptr_array_new() };
}

void diagnostics_clear(Diagnostics *diagnostics)
{
    g_clear_pointer(&diagnostics->list, g_ptr_array_unref);
}

/* One mistake met twice (a local used by two builds, say) is told once. */
static bool already_said(const Diagnostics *diagnostics, Range range, const char *text)
{
    for (guint i = 0; i < diagnostics->list->len; i++) {
        const Diagnostic *d = diagnostics->list->pdata[i];

        if (d->range.source == range.source && d->range.start == range.start && strcmp(d->text, text) == 0)
            return true;
    }
    return false;
}

void diagnose(Diagnostics *diagnostics, Range range, const char *format, ...)
{
    g_autofree char *text = NULL;
    Diagnostic *diagnostic;
    va_list args;

    diagnostics->count++;
    if (diagnostics->list->len >= DIAGNOSTICS_MAX) /* a file of nothing but mistakes has millions: they are not even worded */
        return;
    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    if (already_said(diagnostics, range, text))
        return;
    diagnostic = arena_new0(diagnostics->arena, Diagnostic, 1);
    diagnostic->range = range;
    diagnostic->text = arena_strdup(diagnostics->arena, text);
    g_ptr_array_add(diagnostics->list, diagnostic);
}

const char *did_you_mean(Arena *arena, const char *word, const char *const *candidates)
{
    const char *nearest = units_nearest(word, candidates);

    return nearest ? arena_printf(arena, "; did you mean '%s'?", nearest) : "";
}

static void append_padding(GString *out, gunichar c)
{
    if (c == '\t')
        g_string_append_c(out, '\t');
    else if (g_unichar_iszerowidth(c))
        return;
    else
        g_string_append(out, g_unichar_iswide(c) ? "  " : " ");
}

static void append_carets(GString *out, const char *from, const char *to)
{
    unsigned n = 0;

    for (const char *p = from; p < to; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        n += g_unichar_iszerowidth(c) ? 0 : g_unichar_iswide(c) ? 2 : 1;
    }
    for (unsigned i = 0; i < MAX(n, 1u); i++)
        g_string_append_c(out, '^');
}

/* Text goes to a terminal, so what is not printable becomes '?'. */
static void append_visible(GString *out, const char *from, const char *to)
{
    for (const char *p = from; p < to; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        if (c == '\t' || !g_unichar_iscntrl(c))
            g_string_append_unichar(out, c);
        else if (c != '\r')
            g_string_append_c(out, '?');
    }
}

/* A minified line of a megabyte is shown around the place only. */
static void find_window(const char *line, const char *line_end, const char *at, const char **from, const char **to)
{
    *from = line;
    for (const char *p = at; p > line && at - p < SHOWN_BEFORE * 4; p = g_utf8_prev_char(p))
        if (g_utf8_pointer_to_offset(p, at) >= SHOWN_BEFORE && line_end - line > SHOWN_MAX) {
            *from = p;
            break;
        }
    *to = line_end;
    if (line_end - *from > SHOWN_MAX) {
        const char *p = *from;

        for (int i = 0; i < SHOWN_MAX && p < line_end; i++)
            p = g_utf8_next_char(p);
        *to = p;
    }
}

char *diagnostic_format(const Diagnostic *diagnostic)
{
    Range range = range_outermost(diagnostic->range);
    const Source *source = range.source;
    Position position;
    const char *at, *line, *line_end, *from, *to, *caret_end;
    GString *out;

    if (!source)
        return g_strdup(diagnostic->text);
    position = range_start(range);
    out = g_string_new(NULL);
    g_string_append_printf(out, "%s:%u:%u: %s", source->name, position.line, position.column, diagnostic->text);
    at = source->text + range.start;
    for (line = at; line > source->text && line[-1] != '\n'; line--)
        ;
    line_end = strchrnul(at, '\n');
    if (line == line_end)
        return g_string_free(out, FALSE);

    find_window(line, line_end, at, &from, &to);
    g_string_append(out, "\n    ");
    append_visible(out, from, to);
    g_string_append(out, "\n    ");
    for (const char *p = from; p < at; p = g_utf8_next_char(p))
        append_padding(out, g_utf8_get_char(p));
    caret_end = MIN(source->text + range.end, to);
    append_carets(out, at, caret_end);
    return g_string_free(out, FALSE);
}

static gint compare_places(gconstpointer a, gconstpointer b)
{
    const Diagnostic *left = *(const Diagnostic *const *)a, *right = *(const Diagnostic *const *)b;
    int names;

    if (!left->range.source || !right->range.source)
        return (left->range.source != NULL) - (right->range.source != NULL);
    names = strcmp(left->range.source->name, right->range.source->name);
    if (names != 0)
        return names;
    return range_outermost(left->range).start < range_outermost(right->range).start
               ? -1
               : range_outermost(left->range).start > range_outermost(right->range).start;
}

char *diagnostics_format(const Diagnostics *diagnostics)
{
    GString *out = g_string_new(NULL);

    g_ptr_array_sort(diagnostics->list, compare_places);
    for (guint i = 0; i < diagnostics->list->len; i++) {
        g_autofree char *text = diagnostic_format(diagnostics->list->pdata[i]);

        g_string_append_printf(out, "%s%s", i ? "\n" : "", text);
    }
    if (diagnostics->list->len >= DIAGNOSTICS_MAX)
        g_string_append(out, "\n(more mistakes are not shown)");
    return g_string_free(out, FALSE);
}
