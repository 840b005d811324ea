/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lexer: see lexer.h. It never allocates and never looks behind @at, so the
 * parser may ask for any place again.
 */
#include "templates/language/lexer.h"

#include <string.h>

bool lex_is_ident_start(gunichar c)
{
    return c < 0x80 ? g_ascii_isalpha((char)c) || c == '_' : g_unichar_isalpha(c);
}

static bool is_ident_rest(gunichar c)
{
    if (c < 0x80)
        return g_ascii_isalnum((char)c) || c == '_' || c == '-';
    return g_unichar_isalpha(c) || g_unichar_isdigit(c) || g_unichar_ismark(c);
}

bool lex_is_ident(const char *text)
{
    if (!lex_is_ident_start(g_utf8_get_char(text)))
        return false;
    for (const char *p = text; *p; p = g_utf8_next_char(p))
        if (!is_ident_rest(g_utf8_get_char(p)))
            return false;
    return true;
}

static const char *skip_block_comment(const Source *source, const char *p, Diagnostics *diagnostics)
{
    const char *end = strstr(p + 2, "*/");
    uint32_t start = (uint32_t)(p - source->text);

    if (end)
        return end + 2;
    diagnose(diagnostics, (Range){ source, start, start + 2 }, "this comment is never closed with '*/'");
    return source->text + source->size;
}

static const char *skip_blanks(const Source *source, const char *p, bool skip_newlines, Diagnostics *diagnostics)
{
    for (;;) {
        if (*p == ' ' || *p == '\t' || (*p == '\r' && p[1] == '\n'))
            p++;
        else if (*p == '\n' && skip_newlines)
            p++;
        else if (*p == '#' || (p[0] == '/' && p[1] == '/'))
            p = strchrnul(p, '\n');
        else if (p[0] == '/' && p[1] == '*')
            p = skip_block_comment(source, p, diagnostics);
        else
            return p;
    }
}

static const char *scan_number(const char *p)
{
    const char *mark;

    while (g_ascii_isdigit(*p))
        p++;
    if (p[0] == '.' && g_ascii_isdigit(p[1]))
        for (p++; g_ascii_isdigit(*p); p++)
            ;
    mark = p;
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '+' || *p == '-')
            p++;
        if (!g_ascii_isdigit(*p))
            return mark;
        while (g_ascii_isdigit(*p))
            p++;
    }
    return p;
}

static const char *scan_ident(const char *p)
{
    while (*p && is_ident_rest((guchar)*p < 0x80 ? (gunichar)*p : g_utf8_get_char(p)))
        p = g_utf8_next_char(p);
    return p;
}

size_t lex_ident_length(const char *text)
{
    return lex_is_ident_start(g_utf8_get_char(text)) ? (size_t)(scan_ident(text) - text) : 0;
}

/* << or <<-, a name, the end of the line; anything else is no heredoc. */
static const char *scan_heredoc(const char *p)
{
    p += p[2] == '-' ? 3 : 2;
    if (!lex_is_ident_start(g_utf8_get_char(p)))
        return NULL;
    p = scan_ident(p);
    if (*p == '\r')
        p++;
    return *p == '\n' ? p + 1 : NULL;
}

/* The type of an operator of two characters, or 0. */
static int two_characters(char first, char second)
{
    static const struct {
        char first, second;
        int type;
    } tokens[] = {
        { '=', '=', TOKEN_EQUAL },         { '!', '=', TOKEN_NOT_EQUAL }, { '<', '=', TOKEN_LESS_EQUAL },
        { '>', '=', TOKEN_GREATER_EQUAL }, { '&', '&', TOKEN_AND },       { '|', '|', TOKEN_OR },
        { '=', '>', TOKEN_ARROW },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(tokens); i++)
        if (tokens[i].first == first && tokens[i].second == second)
            return tokens[i].type;
    return 0;
}

static const char *scan_operator(const char *p, int *ret_type)
{
    if (p[1] && (*ret_type = two_characters(p[0], p[1])))
        return p + 2;
    if (p[0] == '.' && p[1] == '.' && p[2] == '.') {
        *ret_type = TOKEN_ELLIPSIS;
        return p + 3;
    }
    *ret_type = strchr("{}[]().,:?=<>+-*/%!\"~", *p) ? *p : TOKEN_BAD;
    return g_utf8_next_char(p);
}

Token lex_token(const Source *source, size_t at, bool skip_newlines, Diagnostics *diagnostics)
{
    const char *p = skip_blanks(source, source->text + at, skip_newlines, diagnostics);
    Token token = { TOKEN_EOF, (uint32_t)(p - source->text), (uint32_t)(p - source->text) };
    const char *end = p;

    if (p >= source->text + source->size)
        return token;
    if (*p == '\n') {
        token.type = TOKEN_NEWLINE;
        end = p + 1;
    } else if (g_ascii_isdigit(*p)) {
        token.type = TOKEN_NUMBER;
        end = scan_number(p);
    } else if (lex_is_ident_start((guchar)*p < 0x80 ? (gunichar)*p : g_utf8_get_char(p))) {
        token.type = TOKEN_IDENT;
        end = scan_ident(p);
    } else if (p[0] == '<' && p[1] == '<' && (end = scan_heredoc(p))) {
        token.type = TOKEN_HEREDOC;
    } else {
        end = scan_operator(p, &token.type);
    }
    token.end = (uint32_t)(end - source->text);
    return token;
}

const char *lex_describe(const Source *source, Token token, Arena *arena)
{
    if (token.type == TOKEN_EOF)
        return "the end of the text";
    if (token.type == TOKEN_NEWLINE)
        return "the end of the line";
    if (token.type == TOKEN_HEREDOC)
        return "a heredoc";
    if (token.type == '"')
        return "a string";
    return arena_printf(arena, "'%.*s'", (int)MIN(token.end - token.start, 60u), source->text + token.start);
}
