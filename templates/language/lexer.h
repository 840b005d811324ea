/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lexer: one token at a byte of the source, on demand.
 *
 * HCL's strings hold expressions which hold strings, so the parser decides what
 * comes next: lex_token() reads expression and structure tokens; the inside of
 * quotes and heredocs is read by the parser itself, character by character.
 * Comments are white space here; a line comment leaves its newline to be seen.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_LEXER_H
#define KILN_TEMPLATES_LANGUAGE_LEXER_H

#include "templates/language/source.h"

/* One-character tokens are their character: '{' '}' '[' ']' '(' ')' '.' ',' ':' '?' '=' '<' '>' '+' '-' '*' '/' '%' '!' '"' '~' */
enum {
    TOKEN_EOF = 256,
    TOKEN_NEWLINE,
    TOKEN_IDENT,
    TOKEN_NUMBER,
    TOKEN_HEREDOC, /* << or <<- with its marker and the newline after it */
    TOKEN_EQUAL,   /* == */
    TOKEN_NOT_EQUAL,
    TOKEN_LESS_EQUAL,
    TOKEN_GREATER_EQUAL,
    TOKEN_AND,
    TOKEN_OR,
    TOKEN_ARROW,    /* => */
    TOKEN_ELLIPSIS, /* ... */
    TOKEN_BAD,      /* reported already, or a character that is no token */
};

typedef struct Token {
    int type;
    uint32_t start, end;
} Token;

/* The token at or after byte @at; newlines are white space when @skip_newlines. */
Token lex_token(const Source *source, size_t at, bool skip_newlines, Diagnostics *diagnostics);

/* Characters of identifiers: Unicode letters and '_' first, then also digits, marks and '-'. */
bool lex_is_ident_start(gunichar c);
bool lex_is_ident(const char *text);
size_t lex_ident_length(const char *text); /* bytes; 0 when none begins here */

/* "'{'", "a newline", "the end of the file", for messages. */
const char *lex_describe(const Source *source, Token token, Arena *arena);

#endif
