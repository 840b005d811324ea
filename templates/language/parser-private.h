/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the parser share: parser.c (bodies), parser-expression.c, parser-template.c.
 *
 * After its first mistake in an attribute or block the parser has `failed` set and every function gives
 * NULL on the way up; the body clears it, skips to the next line at its level and goes on.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_PARSER_PRIVATE_H
#define KILN_TEMPLATES_LANGUAGE_PARSER_PRIVATE_H

#include "templates/language/lexer.h"
#include "templates/language/parser.h"

typedef struct Parser {
    const Source *source;
    Arena *arena;
    Diagnostics *diagnostics;
    uint32_t at;
    unsigned depth;
    bool skip_newlines; /* inside ( ) [ ] ${ } */
    bool failed;
    bool plain_strings; /* JSON: a string is its text, no template */
    bool gave_up;       /* nested too deep: the rest is not looked at, at no level */

    bool have_peeked;
    bool peeked_skipping;
    uint32_t peeked_at;
    Token peeked;
} Parser;

Token parser_peek(Parser *p);
Token parser_take(Parser *p);
bool parser_accept(Parser *p, int type);
bool is_word(const Parser *p, Token token, const char *word);
Range token_range(const Parser *p, Token token);
char *token_text(const Parser *p, Token token);

/* Reports once per item; always returns NULL. */
void *parse_fail(Parser *p, Range range, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* Every recursion goes through these two. */
bool parser_enter(Parser *p);
void parser_leave(Parser *p);

Expr *expr_new(Parser *p, ExprKind kind, uint32_t start);
/* Sets end and depth; NULL (with a diagnostic) when the tree got too deep. */
Expr *expr_finish(Parser *p, Expr *expr, uint32_t end);
Expr *expr_string(Parser *p, Range range, const char *text);

Expr *parse_expr(Parser *p);
Expr *parse_quoted(Parser *p);  /* at '"' */
Expr *parse_heredoc(Parser *p); /* at TOKEN_HEREDOC */
Expr *parse_bare_template(Parser *p);

#endif
