/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parser, templates: "quoted", <<heredoc and bare text with ${ } and %{ }.
 *
 * First the text is cut into parts: literals (a heredoc's by line), ${ }, %{ }. Strip markers (~) and the
 * indentation of <<- work on the literals there. Then the parts are folded: %{if} becomes a conditional,
 * %{for} a for that makes text, and a lone "${x}" is x itself, whatever its type.
 */
#include "templates/language/parser-private.h"

#include <string.h>

typedef enum PartKind { PART_TEXT, PART_EXPR, PART_IF, PART_ELSE, PART_ENDIF, PART_FOR, PART_ENDFOR } PartKind;

typedef struct Part {
    PartKind kind;
    Range range;
    char *text;
    Expr *expr; /* ${ }, condition, or what %{for} walks */
    const char *key_name, *name;
} Part;

typedef enum Flavour { QUOTED, HEREDOC, BARE } Flavour;

typedef struct Cutter {
    Parser *p;
    Flavour flavour;
    const char *marker; /* heredoc: the word that ends it */
    GPtrArray *parts;
    GString *text;
    uint32_t text_start;
    bool strip_next;
    bool line_start;
} Cutter;

static const char *here(const Cutter *cutter)
{
    return cutter->p->source->text + cutter->p->at;
}

static bool at_end(const Cutter *cutter)
{
    return cutter->p->at >= cutter->p->source->size;
}

static Part *add_part(Cutter *cutter, PartKind kind, uint32_t start)
{
    Part *part = arena_new0(cutter->p->arena, Part, 1);

    part->kind = kind;
    part->range = (Range){ cutter->p->source, start, cutter->p->at };
    g_ptr_array_add(cutter->parts, part);
    return part;
}

static void trim_left(char *text)
{
    char *p = text;

    while (*p && g_unichar_isspace(g_utf8_get_char(p)))
        p = g_utf8_next_char(p);
    memmove(text, p, strlen(p) + 1);
}

static void trim_right(char *text)
{
    char *end = text + strlen(text);

    while (end > text) {
        char *before = g_utf8_prev_char(end);

        if (!g_unichar_isspace(g_utf8_get_char(before)))
            break;
        end = before;
    }
    *end = '\0';
}

static void end_text(Cutter *cutter)
{
    Part *part;

    if (cutter->text->len == 0) {
        cutter->text_start = cutter->p->at;
        return;
    }
    part = add_part(cutter, PART_TEXT, cutter->text_start);
    part->text = arena_strdup(cutter->p->arena, cutter->text->str);
    if (cutter->strip_next)
        trim_left(part->text);
    cutter->strip_next = false;
    g_string_truncate(cutter->text, 0);
    cutter->text_start = cutter->p->at;
}

/* --- escapes --- */

static bool take_hex(Cutter *cutter, int digits, uint32_t start)
{
    const char *c = here(cutter);
    gunichar value = 0;

    for (int i = 0; i < digits; i++, c++) {
        if (!g_ascii_isxdigit(*c)) {
            (void)parse_fail(cutter->p, (Range){ cutter->p->source, start, (uint32_t)(c - cutter->p->source->text) },
                             "\\%c needs %d hexadecimal digits", digits == 4 ? 'u' : 'U', digits);
            return false;
        }
        value = value * 16 + (gunichar)g_ascii_xdigit_value(*c);
    }
    cutter->p->at += (uint32_t)digits;
    if (value == 0 || !g_unichar_validate(value)) {
        (void)parse_fail(cutter->p, (Range){ cutter->p->source, start, cutter->p->at }, "there is no such character");
        return false;
    }
    g_string_append_unichar(cutter->text, value);
    return true;
}

static bool take_escape(Cutter *cutter)
{
    Parser *p = cutter->p;
    uint32_t start = p->at;
    char c = here(cutter)[1];

    p->at += 2;
    switch (c) {
    case 'n':
        g_string_append_c(cutter->text, '\n');
        return true;
    case 'r':
        g_string_append_c(cutter->text, '\r');
        return true;
    case 't':
        g_string_append_c(cutter->text, '\t');
        return true;
    case '"':
    case '\\':
        g_string_append_c(cutter->text, c);
        return true;
    case 'u':
        return take_hex(cutter, 4, start);
    case 'U':
        return take_hex(cutter, 8, start);
    }
    p->at = start + 1; /* so that a newline after the backslash is seen by who recovers */
    (void)parse_fail(p, (Range){ p->source, start, (uint32_t)(g_utf8_next_char(p->source->text + start + 1) - p->source->text) },
                     "this escape is unknown; known are \\n \\r \\t \\\" \\\\ \\uNNNN \\UNNNNNNNN, and a backslash is written \\\\");
    return false;
}

/* --- ${ } and %{ } --- */

static void strip_before(Cutter *cutter)
{
    Part *last = cutter->parts->len ? cutter->parts->pdata[cutter->parts->len - 1] : NULL;

    if (last && last->kind == PART_TEXT)
        trim_right(last->text);
}

/* '}' or '~}' */
static bool take_close(Cutter *cutter, uint32_t start)
{
    Parser *p = cutter->p;
    Token token = parser_peek(p);

    if (token.type == '~') {
        (void)parser_take(p);
        cutter->strip_next = true;
        token = parser_peek(p);
    }
    if (token.type == '}') {
        (void)parser_take(p);
        return true;
    }
    if (token.type == TOKEN_EOF || token.type == '"')
        (void)parse_fail(p, (Range){ p->source, start, start + 2 }, "this is never closed with '}'");
    else
        (void)parse_fail(p, token_range(p, token),
                         "expected '}' here, found %s; text that is meant for another language is written $${ or %%%%{",
                         lex_describe(p->source, token, p->arena));
    return false;
}

static bool parse_for_header(Parser *p, Part *part)
{
    Token name = parser_take(p);

    part->kind = PART_FOR;
    if (name.type == TOKEN_IDENT && parser_accept(p, ',')) {
        part->key_name = token_text(p, name);
        name = parser_take(p);
    }
    if (name.type != TOKEN_IDENT || !is_word(p, parser_peek(p), "in"))
        return parse_fail(p, token_range(p, name), "a loop is written %%{ for NAME in LIST }") != NULL;
    part->name = token_text(p, name);
    (void)parser_take(p);
    part->expr = parse_expr(p);
    return part->expr != NULL;
}

static bool parse_directive(Parser *p, Part *part)
{
    Token word = parser_take(p);

    if (is_word(p, word, "if")) {
        part->kind = PART_IF;
        return (part->expr = parse_expr(p)) != NULL;
    }
    if (is_word(p, word, "for"))
        return parse_for_header(p, part);
    if (is_word(p, word, "else"))
        part->kind = PART_ELSE;
    else if (is_word(p, word, "endif"))
        part->kind = PART_ENDIF;
    else if (is_word(p, word, "endfor"))
        part->kind = PART_ENDFOR;
    else
        return parse_fail(p, token_range(p, word), "expected if, else, endif, for or endfor after %%{") != NULL;
    return true;
}

static bool take_sequence(Cutter *cutter, bool directive)
{
    Parser *p = cutter->p;
    uint32_t start = p->at;
    bool before = p->skip_newlines, ok;
    Part *part;

    end_text(cutter);
    p->at += 2;
    if (*here(cutter) == '~') {
        p->at++;
        strip_before(cutter);
    }
    cutter->strip_next = false;
    part = add_part(cutter, PART_EXPR, start);
    p->skip_newlines = true;
    ok = directive ? parse_directive(p, part) : (part->expr = parse_expr(p)) != NULL;
    ok = ok && take_close(cutter, start);
    p->skip_newlines = before;
    part->range.end = p->at;
    cutter->text_start = p->at;
    cutter->line_start = false;
    return ok;
}

/* --- cutting --- */

/* At the start of a heredoc's line: its end? Then the line's text (not its newline) is taken. */
static bool take_marker(Cutter *cutter)
{
    const char *line = here(cutter);
    const char *end = strchrnul(line, '\n');
    g_autofree char *text = NULL;

    if (end - line > 4096)
        return false;
    text = g_strndup(line, (gsize)(end - line));
    if (strcmp(g_strstrip(text), cutter->marker) != 0)
        return false;
    if (end > line && end[-1] == '\r')
        end--;
    end_text(cutter);
    cutter->p->at = (uint32_t)(end - cutter->p->source->text);
    return true;
}

static void take_char(Cutter *cutter)
{
    const char *c = here(cutter);
    const char *next = g_utf8_next_char(c);

    g_string_append_len(cutter->text, c, next - c);
    cutter->p->at += (uint32_t)(next - c);
    cutter->line_start = *c == '\n';
    if (*c == '\n' && cutter->flavour == HEREDOC)
        end_text(cutter);
}

static bool is_escaped_sequence(const char *c)
{
    return (c[0] == '$' && c[1] == '$' && c[2] == '{') || (c[0] == '%' && c[1] == '%' && c[2] == '{');
}

/* One step; *ret_done after the closing quote, marker or end. */
static bool cut_step(Cutter *cutter, bool *ret_done)
{
    Parser *p = cutter->p;
    const char *c = here(cutter);

    if (cutter->flavour == HEREDOC && cutter->line_start && take_marker(cutter)) {
        *ret_done = true;
    } else if (at_end(cutter)) {
        *ret_done = true;
        if (cutter->flavour == BARE)
            end_text(cutter);
        return cutter->flavour == BARE; /* the caller complains */
    } else if (cutter->flavour == QUOTED && *c == '"') {
        end_text(cutter);
        p->at++;
        *ret_done = true;
    } else if (cutter->flavour == QUOTED && *c == '\n') {
        return false;
    } else if (cutter->flavour == QUOTED && *c == '\\') {
        return take_escape(cutter);
    } else if (is_escaped_sequence(c)) {
        g_string_append_len(cutter->text, c + 1, 2);
        p->at += 3;
        cutter->line_start = false;
    } else if ((*c == '$' || *c == '%') && c[1] == '{') {
        return take_sequence(cutter, *c == '%');
    } else {
        take_char(cutter);
    }
    return true;
}

static bool cut(Parser *p, Flavour flavour, const char *marker, GPtrArray *parts)
{
    g_autoptr(GString) text = g_string_new(NULL);
    Cutter cutter = { .p = p, .flavour = flavour, .marker = marker, .parts = parts, .text = text,
                      .text_start = p->at, .line_start = true };
    bool done = false;

    while (!done)
        if (!cut_step(&cutter, &done))
            return false;
    return true;
}

/* --- the indentation of <<- --- */

static size_t leading_blanks(const char *text)
{
    size_t n = 0;

    for (; *text && *text != '\n' && g_unichar_isspace(g_utf8_get_char(text)); text = g_utf8_next_char(text))
        n++;
    return n;
}

static bool is_blank_line(const char *text)
{
    text += strspn(text, " \t\r\v\f");
    return *text == '\n';
}

/* Takes the smallest indentation off all lines; blank lines do not count and stay as they are. */
static void flush_indentation(GPtrArray *parts)
{
    g_autoptr(GPtrArray) starts = g_ptr_array_new();
    size_t least = G_MAXSIZE;
    bool line_start = true;

    for (guint i = 0; i < parts->len; i++) {
        Part *part = parts->pdata[i];

        if (line_start && part->kind != PART_TEXT)
            least = 0;
        if (line_start && part->kind == PART_TEXT && !is_blank_line(part->text)) {
            least = MIN(least, leading_blanks(part->text));
            g_ptr_array_add(starts, part);
        }
        line_start = part->kind == PART_TEXT && g_str_has_suffix(part->text, "\n");
    }
    for (guint i = 0; i < starts->len; i++) {
        Part *part = starts->pdata[i];

        part->text = g_utf8_offset_to_pointer(part->text, (glong)least);
    }
}

/* --- folding --- */

typedef struct Folder {
    Parser *p;
    GPtrArray *parts;
    guint next;
} Folder;

static Expr *fold(Folder *folder, Range range, const char *until);

static Part *folder_peek(Folder *folder)
{
    return folder->next < folder->parts->len ? folder->parts->pdata[folder->next] : NULL;
}

static Range empty_after(Range range)
{
    return (Range){ range.source, range.end, range.end };
}

static Expr *fold_if(Folder *folder, Part *opening)
{
    Expr *expr = expr_new(folder->p, EXPR_CONDITIONAL, opening->range.start);
    Part *next;

    expr->condition = opening->expr;
    if (!(expr->left = fold(folder, empty_after(opening->range), "if")))
        return NULL;
    next = folder_peek(folder);
    expr->right = expr_string(folder->p, empty_after(opening->range), "");
    if (next && next->kind == PART_ELSE) {
        folder->next++;
        if (!(expr->right = fold(folder, empty_after(next->range), "if")))
            return NULL;
        next = folder_peek(folder);
    }
    if (!next || next->kind != PART_ENDIF)
        return parse_fail(folder->p, opening->range, "this %%{ if } has no %%{ endif }");
    folder->next++;
    return expr_finish(folder->p, expr, next->range.end);
}

static Expr *fold_for(Folder *folder, Part *opening)
{
    Expr *expr = expr_new(folder->p, EXPR_FOR, opening->range.start);
    Part *next;

    expr->makes_text = true;
    expr->key_name = opening->key_name;
    expr->name = opening->name;
    expr->left = opening->expr;
    if (!(expr->right = fold(folder, empty_after(opening->range), "for")))
        return NULL;
    next = folder_peek(folder);
    if (!next || next->kind != PART_ENDFOR)
        return parse_fail(folder->p, opening->range, "this %%{ for } has no %%{ endfor }");
    folder->next++;
    return expr_finish(folder->p, expr, next->range.end);
}

static Expr *fold_text(Folder *folder)
{
    g_autoptr(GString) text = g_string_new(NULL);
    Range range = folder_peek(folder)->range;
    Part *part;

    while ((part = folder_peek(folder)) && part->kind == PART_TEXT) {
        g_string_append(text, part->text);
        range = range_join(range, part->range);
        folder->next++;
    }
    return expr_string(folder->p, range, text->str);
}

static Expr *fold_part(Folder *folder)
{
    Part *part = folder_peek(folder);

    if (part->kind == PART_TEXT)
        return fold_text(folder);
    folder->next++;
    if (part->kind == PART_IF)
        return fold_if(folder, part);
    if (part->kind == PART_FOR)
        return fold_for(folder, part);
    return part->expr;
}

static bool ends_here(const Part *part, const char *until)
{
    if (part->kind == PART_ELSE || part->kind == PART_ENDIF)
        return until && strcmp(until, "if") == 0;
    return part->kind == PART_ENDFOR && until && strcmp(until, "for") == 0;
}

/* Up to the directive that ends @until. Inside a directive a lone part still becomes text. */
static Expr *fold_inner(Folder *folder, Range range, const char *until)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new();
    Expr *template = expr_new(folder->p, EXPR_TEMPLATE, range.start);
    Part *part;

    while ((part = folder_peek(folder)) && !ends_here(part, until)) {
        Expr *item;

        if (part->kind == PART_ELSE || part->kind == PART_ENDIF || part->kind == PART_ENDFOR)
            return parse_fail(folder->p, part->range, "this ends nothing that was begun");
        item = fold_part(folder);
        if (!item)
            return NULL;
        g_ptr_array_add(items, item);
        range = range_join(range, part->range);
    }
    if (items->len == 0)
        return expr_string(folder->p, range, "");
    if (items->len == 1 && ((Expr *)items->pdata[0])->kind == EXPR_LITERAL && folder->parts->len > 0 &&
        ((Part *)folder->parts->pdata[folder->next - 1])->kind == PART_TEXT) {
        ((Expr *)items->pdata[0])->range = range_join(range, ((Expr *)items->pdata[0])->range);
        return items->pdata[0];
    }
    template->n_items = items->len;
    template->items = arena_take_pointers(folder->p->arena, items);
    return expr_finish(folder->p, template, range.end);
}

static Expr *fold(Folder *folder, Range range, const char *until)
{
    Expr *expr = NULL;

    if (parser_enter(folder->p))
        expr = fold_inner(folder, range, until);
    parser_leave(folder->p);
    return expr;
}

static Expr *fold_all(Parser *p, GPtrArray *parts, Range range)
{
    Folder folder = { p, parts, 0 };
    Part *first = parts->len == 1 ? parts->pdata[0] : NULL;

    if (first && first->kind == PART_EXPR) {
        Expr *wrap = expr_new(p, EXPR_PAREN, range.start);

        wrap->left = first->expr;
        return expr_finish(p, wrap, range.end);
    }
    return fold(&folder, range, NULL);
}

/* --- the three flavours --- */

Expr *parse_quoted(Parser *p)
{
    g_autoptr(GPtrArray) parts = g_ptr_array_new();
    Token open = parser_take(p);
    Expr *expr;

    if (!cut(p, QUOTED, NULL, parts))
        return parse_fail(p, token_range(p, open),
                          "this string has no closing quote on its line; text of several lines is written as a heredoc, <<-END");
    expr = fold_all(p, parts, (Range){ p->source, open.start, p->at });
    if (expr)
        expr->range = (Range){ p->source, open.start, p->at };
    return expr;
}

Expr *parse_heredoc(Parser *p)
{
    g_autoptr(GPtrArray) parts = g_ptr_array_new();
    Token open = parser_take(p);
    g_autofree char *line = g_strndup(p->source->text + open.start, open.end - open.start);
    bool flush = line[2] == '-';
    const char *marker = g_strstrip(line + (flush ? 3 : 2));
    Expr *expr;

    if (!cut(p, HEREDOC, marker, parts))
        return parse_fail(p, (Range){ p->source, open.start, open.start + 2 + flush + (uint32_t)strlen(marker) },
                          "this heredoc has no line that says only %s", marker);
    if (flush)
        flush_indentation(parts);
    expr = fold_all(p, parts, (Range){ p->source, open.start, p->at });
    if (expr)
        expr->range = (Range){ p->source, open.start, p->at };
    return expr;
}

Expr *parse_bare_template(Parser *p)
{
    g_autoptr(GPtrArray) parts = g_ptr_array_new();

    if (!cut(p, BARE, NULL, parts))
        return NULL;
    return fold_all(p, parts, (Range){ p->source, 0, (uint32_t)p->source->size });
}
