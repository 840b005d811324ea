/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parser, expressions.
 *
 *     conditional:  or ? expr : expr
 *     binary:       || , && , == != , < <= > >= , + - , * / %   (loosest first)
 *     unary:        ! -
 *     postfix:      .name .0 .* [expr] [*]
 *     term:         literal, name, call, ( ), [ ], { }, string, heredoc
 */
#include "templates/language/parser-private.h"

#include <stdlib.h>
#include <string.h>

Expr *expr_new(Parser *p, ExprKind kind, uint32_t start)
{
    Expr *expr = arena_new0(p->arena, Expr, 1);

    expr->kind = (uint8_t)kind;
    expr->range = (Range){ p->source, start, start };
    return expr;
}

static unsigned depth_of(const Expr *expr)
{
    return expr ? expr->depth : 0;
}

Expr *expr_finish(Parser *p, Expr *expr, uint32_t end)
{
    unsigned depth = MAX(MAX(depth_of(expr->left), depth_of(expr->right)), MAX(depth_of(expr->condition), depth_of(expr->key_expr)));

    for (size_t i = 0; i < expr->n_items; i++)
        depth = MAX(depth, expr->items[i]->depth);
    expr->depth = (uint16_t)(depth + 1);
    expr->range.end = end;
    if (expr->depth > SYNTAX_DEPTH_MAX)
        return parse_fail(p, expr->range, "this expression has more than %d levels", SYNTAX_DEPTH_MAX);
    return expr;
}

Expr *expr_string(Parser *p, Range range, const char *text)
{
    Expr *expr = expr_new(p, EXPR_LITERAL, range.start);

    expr->value = value_string(p->arena, text);
    return expr_finish(p, expr, range.end);
}

static Expr *expr_literal(Parser *p, Token token, Value *value)
{
    Expr *expr = expr_new(p, EXPR_LITERAL, token.start);

    expr->value = value;
    return expr_finish(p, expr, token.end);
}

static Expr *unexpected(Parser *p, const char *wanted)
{
    Token token = parser_peek(p);

    return parse_fail(p, token_range(p, token), "expected %s here, found %s", wanted,
                      lex_describe(p->source, token, p->arena));
}

static Expr *parse_number(Parser *p)
{
    Token token = parser_take(p);
    Number *number = number_from_text(p->arena, token_text(p, token));

    if (!number)
        return parse_fail(p, token_range(p, token), "this number is too large");
    return expr_literal(p, token, value_number(p->arena, number));
}

/* --- calls, lists, objects, for --- */

static Expr *parse_call(Parser *p, Token name)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new();
    Expr *call = expr_new(p, EXPR_CALL, name.start);
    bool before = p->skip_newlines;
    Token close;

    p->skip_newlines = true;
    (void)parser_take(p); /* '(' */
    while (parser_peek(p).type != ')') {
        Expr *item = parse_expr(p);

        if (!item)
            return NULL;
        g_ptr_array_add(items, item);
        if (parser_accept(p, TOKEN_ELLIPSIS)) {
            call->expand = true;
            break;
        }
        if (!parser_accept(p, ','))
            break;
    }
    if (parser_peek(p).type != ')')
        return unexpected(p, call->expand ? "')' after '...'" : "',' or ')' in this function call");
    close = parser_take(p);
    p->skip_newlines = before;
    call->name = token_text(p, name);
    call->name_start = name.start;
    call->name_end = name.end;
    call->n_items = items->len;
    call->items = arena_take_pointers(p->arena, items);
    return expr_finish(p, call, close.end);
}

static bool take_name(Parser *p, const char **ret)
{
    if (parser_peek(p).type != TOKEN_IDENT) {
        (void)unexpected(p, "a name");
        return false;
    }
    *ret = token_text(p, parser_take(p));
    return true;
}

/* After the opening bracket, at the word `for`; newlines mean nothing up to the closing bracket. */
static Expr *parse_for(Parser *p, Token open, bool object)
{
    Expr *expr = expr_new(p, EXPR_FOR, open.start);
    bool before = p->skip_newlines;
    Token close;

    p->skip_newlines = true;
    expr->makes_object = object;
    (void)parser_take(p); /* for */
    if (!take_name(p, &expr->name))
        return NULL;
    if (parser_accept(p, ',')) {
        expr->key_name = expr->name;
        if (!take_name(p, &expr->name))
            return NULL;
    }
    if (!is_word(p, parser_peek(p), "in"))
        return unexpected(p, "the word 'in'");
    (void)parser_take(p);
    if (!(expr->left = parse_expr(p)))
        return NULL;
    if (!parser_accept(p, ':'))
        return unexpected(p, "':'");
    if (!(expr->right = parse_expr(p)))
        return NULL;
    if (object) {
        expr->key_expr = expr->right;
        if (!parser_accept(p, TOKEN_ARROW))
            return unexpected(p, "'=>' between key and value");
        if (!(expr->right = parse_expr(p)))
            return NULL;
        expr->expand = parser_accept(p, TOKEN_ELLIPSIS);
    } else if (parser_peek(p).type == TOKEN_ARROW) {
        return parse_fail(p, token_range(p, parser_peek(p)), "'=>' makes an object, which is written with { }, not with [ ]");
    }
    if (is_word(p, parser_peek(p), "if")) {
        (void)parser_take(p);
        if (!(expr->condition = parse_expr(p)))
            return NULL;
    }
    if (parser_peek(p).type != (object ? '}' : ']'))
        return unexpected(p, object ? "'}' at the end of this 'for'" : "']' at the end of this 'for'");
    close = parser_take(p);
    p->skip_newlines = before;
    return expr_finish(p, expr, close.end);
}

static Expr *parse_tuple(Parser *p)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new();
    bool before = p->skip_newlines;
    Token open = parser_take(p), close;
    Expr *expr;

    p->skip_newlines = true;
    if (is_word(p, parser_peek(p), "for")) {
        expr = parse_for(p, open, false);
        p->skip_newlines = before;
        return expr;
    }
    while (parser_peek(p).type != ']') {
        Expr *item = parse_expr(p);

        if (!item)
            return NULL;
        g_ptr_array_add(items, item);
        if (!parser_accept(p, ','))
            break;
    }
    if (parser_peek(p).type == TOKEN_EOF)
        return parse_fail(p, token_range(p, open), "this '[' is never closed");
    if (parser_peek(p).type != ']')
        return unexpected(p, "',' or ']' in this list");
    close = parser_take(p);
    p->skip_newlines = before;
    expr = expr_new(p, EXPR_TUPLE, open.start);
    expr->n_items = items->len;
    expr->items = arena_take_pointers(p->arena, items);
    return expr_finish(p, expr, close.end);
}

/* A bare name is its own text as a key; a computed key stands in parentheses or quotes. */
static Expr *parse_object_key(Parser *p)
{
    Expr *key = parse_expr(p);

    if (!key)
        return NULL;
    if (key->kind == EXPR_VARIABLE)
        return expr_string(p, key->range, key->name);
    if (key->kind == EXPR_LITERAL && value_is_null(key->value)) /* the word null, as true and false */
        return expr_string(p, key->range, "null");
    return key;
}

static bool parse_object_item(Parser *p, GPtrArray *items)
{
    Expr *key = parse_object_key(p);
    Expr *value;

    if (!key)
        return false;
    if (!parser_accept(p, '=') && !parser_accept(p, ':')) {
        (void)unexpected(p, "'=' and a value");
        return false;
    }
    value = parse_expr(p);
    if (!value)
        return false;
    g_ptr_array_add(items, key);
    g_ptr_array_add(items, value);
    return true;
}

static bool next_word_is_for(Parser *p)
{
    bool before = p->skip_newlines;
    bool result;

    p->skip_newlines = true;
    result = is_word(p, parser_peek(p), "for");
    p->skip_newlines = before;
    return result;
}

static bool starts_for(Parser *p)
{
    if (parser_peek(p).type != TOKEN_NEWLINE && !is_word(p, parser_peek(p), "for")) /* nearly always */
        return false;
    return next_word_is_for(p);
}

static Expr *parse_object(Parser *p)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new();
    bool before = p->skip_newlines;
    Token open = parser_take(p), close;
    Expr *expr;

    if (starts_for(p)) {
        bool saved = p->skip_newlines;

        p->skip_newlines = true;
        expr = parse_for(p, open, true);
        p->skip_newlines = saved;
        return expr;
    }
    p->skip_newlines = false;
    for (;;) {
        while (parser_accept(p, TOKEN_NEWLINE))
            ;
        if (parser_peek(p).type == '}')
            break;
        if (parser_peek(p).type == TOKEN_EOF)
            return parse_fail(p, token_range(p, open), "this '{' is never closed");
        if (!parse_object_item(p, items))
            return NULL;
        if (parser_peek(p).type == '}')
            break;
        if (!parser_accept(p, ',') && !parser_accept(p, TOKEN_NEWLINE))
            return parser_peek(p).type == TOKEN_EOF ? parse_fail(p, token_range(p, open), "this '{' is never closed")
                                             : unexpected(p, "',', '}' or the end of the line in this object");
    }
    close = parser_take(p);
    p->skip_newlines = before;
    expr = expr_new(p, EXPR_OBJECT, open.start);
    expr->n_items = items->len;
    expr->items = arena_take_pointers(p->arena, items);
    return expr_finish(p, expr, close.end);
}

static Expr *parse_paren(Parser *p)
{
    bool before = p->skip_newlines;
    Token open = parser_take(p), close;
    Expr *expr = expr_new(p, EXPR_PAREN, open.start);

    p->skip_newlines = true;
    if (!(expr->left = parse_expr(p)))
        return NULL;
    if (parser_peek(p).type == TOKEN_EOF)
        return parse_fail(p, token_range(p, open), "this '(' is never closed");
    if (parser_peek(p).type != ')')
        return unexpected(p, "')'");
    close = parser_take(p);
    p->skip_newlines = before;
    return expr_finish(p, expr, close.end);
}

static Expr *parse_name(Parser *p)
{
    Token token = parser_take(p);
    Expr *expr;

    if (parser_peek(p).type == '(')
        return parse_call(p, token);
    if (is_word(p, token, "true") || is_word(p, token, "false"))
        return expr_literal(p, token, value_bool(p->arena, is_word(p, token, "true")));
    if (is_word(p, token, "null"))
        return expr_literal(p, token, value_null(p->arena, &type_any));
    expr = expr_new(p, EXPR_VARIABLE, token.start);
    expr->name = token_text(p, token);
    return expr_finish(p, expr, token.end);
}

static Expr *parse_term(Parser *p)
{
    Token token = parser_peek(p);

    switch (token.type) {
    case TOKEN_NUMBER:
        return parse_number(p);
    case TOKEN_IDENT:
        return parse_name(p);
    case '"':
        return parse_quoted(p);
    case TOKEN_HEREDOC:
        return parse_heredoc(p);
    case '(':
        return parse_paren(p);
    case '[':
        return parse_tuple(p);
    case '{':
        return parse_object(p);
    }
    if (token.type == TOKEN_BAD && p->source->text[token.start] == '\'')
        return parse_fail(p, token_range(p, token), "strings are written with double quotes, not with single ones");
    return unexpected(p, "a value");
}

/* --- postfix --- */

static Expr *attribute_of(Parser *p, Expr *left, Token name)
{
    Expr *expr = expr_new(p, EXPR_ATTRIBUTE, left->range.start);

    expr->left = left;
    expr->name = token_text(p, name);
    expr->name_start = name.start;
    expr->name_end = name.end;
    return expr_finish(p, expr, name.end);
}

static Expr *index_of(Parser *p, Expr *left, Expr *key, uint32_t end)
{
    Expr *expr = expr_new(p, EXPR_INDEX, left->range.start);

    expr->left = left;
    expr->right = key;
    return expr_finish(p, expr, end);
}

/* x.0, as old templates write x[0]; 0.1 would be one number, so there are no two in a row. */
static Expr *parse_legacy_index(Parser *p, Expr *left)
{
    Token token = parser_take(p);
    char *text = token_text(p, token);
    Expr *key;

    if (strspn(text, "0123456789") != strlen(text))
        return parse_fail(p, token_range(p, token), "an index after '.' is a whole number; two in a row are written [1][0]");
    key = expr_literal(p, token, value_number(p->arena, number_from_text(p->arena, text)));
    return key ? index_of(p, left, key, token.end) : NULL;
}

static Expr *parse_dot(Parser *p, Expr *left);
static Expr *parse_bracket(Parser *p, Expr *left);

/*
 * x.*.a.b and x[*].a[0].b: everything that may follow is built on an item and done to each element.
 * The attribute form takes names and .0 only; an index after it is for the whole result.
 */
static Expr *parse_splat(Parser *p, Expr *left, uint32_t end, bool full)
{
    Expr *splat = expr_new(p, EXPR_SPLAT, left->range.start);
    Expr *each = expr_new(p, EXPR_ITEM, end);

    each->depth = 1;
    each->range.end = end;
    splat->left = left;
    if (!parser_enter(p)) {
        parser_leave(p);
        return NULL;
    }
    while (each && (parser_peek(p).type == '.' || (full && parser_peek(p).type == '['))) {
        uint32_t at = p->at;

        if (parser_peek(p).type == '[') {
            each = parse_bracket(p, each);
            continue;
        }
        (void)parser_take(p);
        if (parser_peek(p).type == '*' && !full) {
            parser_leave(p);
            return parse_fail(p, token_range(p, parser_peek(p)), "a second '*' here is written [*]");
        }
        p->at = at;
        each = parse_dot(p, each);
    }
    parser_leave(p);
    if (!each)
        return NULL;
    splat->right = each;
    return expr_finish(p, splat, MAX(each->range.end, end));
}

static Expr *parse_dot(Parser *p, Expr *left)
{
    Token next;

    (void)parser_take(p); /* '.' */
    next = parser_peek(p);
    if (next.type == TOKEN_IDENT)
        return attribute_of(p, left, parser_take(p));
    if (next.type == TOKEN_NUMBER)
        return parse_legacy_index(p, left);
    if (next.type == '*') {
        (void)parser_take(p);
        return parse_splat(p, left, next.end, false);
    }
    return unexpected(p, "the name of an attribute after '.'");
}

static Expr *parse_bracket(Parser *p, Expr *left)
{
    bool before = p->skip_newlines;
    Token open = parser_take(p), close;
    Expr *key;

    p->skip_newlines = true;
    if (parser_peek(p).type == '*') {
        uint32_t at = p->at;

        (void)parser_take(p);
        if (parser_peek(p).type == ']') {
            close = parser_take(p);
            p->skip_newlines = before;
            return parse_splat(p, left, close.end, true);
        }
        p->at = at;
    }
    if (!(key = parse_expr(p)))
        return NULL;
    if (parser_peek(p).type != ']')
        return parser_peek(p).type == TOKEN_EOF ? parse_fail(p, token_range(p, open), "this '[' is never closed")
                                         : unexpected(p, "']' after the index");
    close = parser_take(p);
    p->skip_newlines = before;
    return index_of(p, left, key, close.end);
}

static Expr *parse_postfix(Parser *p)
{
    Expr *expr = parse_term(p);

    while (expr && (parser_peek(p).type == '.' || parser_peek(p).type == '['))
        expr = parser_peek(p).type == '.' ? parse_dot(p, expr) : parse_bracket(p, expr);
    return expr;
}

/* --- operators --- */

static Expr *parse_unary(Parser *p)
{
    Token token = parser_peek(p);
    Expr *expr;

    if (token.type != '-' && token.type != '!')
        return parse_postfix(p);
    if (!parser_enter(p)) {
        parser_leave(p);
        return NULL;
    }
    (void)parser_take(p);
    expr = expr_new(p, EXPR_UNARY, token.start);
    expr->op = (int16_t)token.type;
    expr->left = parse_unary(p);
    parser_leave(p);
    return expr->left ? expr_finish(p, expr, expr->left->range.end) : NULL;
}

static int precedence(int type)
{
    switch (type) {
    case TOKEN_OR:
        return 1;
    case TOKEN_AND:
        return 2;
    case TOKEN_EQUAL:
    case TOKEN_NOT_EQUAL:
        return 3;
    case '<':
    case '>':
    case TOKEN_LESS_EQUAL:
    case TOKEN_GREATER_EQUAL:
        return 4;
    case '+':
    case '-':
        return 5;
    case '*':
    case '/':
    case '%':
        return 6;
    }
    return 0;
}

static Expr *parse_binary(Parser *p, int lowest)
{
    Expr *left = parse_unary(p);

    while (left) {
        Token token = parser_peek(p);
        int level = precedence(token.type);
        Expr *expr;

        if (level == 0 || level < lowest)
            return left;
        (void)parser_take(p);
        expr = expr_new(p, EXPR_BINARY, left->range.start);
        expr->op = (int16_t)token.type;
        expr->left = left;
        expr->right = parse_binary(p, level + 1);
        left = expr->right ? expr_finish(p, expr, expr->right->range.end) : NULL;
    }
    return NULL;
}

static Expr *parse_conditional(Parser *p)
{
    Expr *condition = parse_binary(p, 1);
    Expr *expr;

    if (!condition || !parser_accept(p, '?'))
        return condition;
    expr = expr_new(p, EXPR_CONDITIONAL, condition->range.start);
    expr->condition = condition;
    if (!(expr->left = parse_expr(p)))
        return NULL;
    if (!parser_accept(p, ':'))
        return unexpected(p, "':' and the value for the other case");
    if (!(expr->right = parse_expr(p)))
        return NULL;
    return expr_finish(p, expr, expr->right->range.end);
}

Expr *parse_expr(Parser *p)
{
    Expr *expr = NULL;

    if (!p->failed && parser_enter(p))
        expr = parse_conditional(p);
    else if (p->failed)
        p->depth++;
    parser_leave(p);
    return expr;
}
