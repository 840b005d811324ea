/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parser, structure: attributes, blocks, bodies; and small questions about a tree.
 */
#include "templates/language/parser.h"

#include "templates/language/parser-private.h"

#include <string.h>

Token parser_peek(Parser *p)
{
    if (!p->have_peeked || p->peeked_at != p->at || p->peeked_skipping != p->skip_newlines) {
        p->peeked = lex_token(p->source, p->at, p->skip_newlines, p->diagnostics);
        p->peeked_at = p->at;
        p->peeked_skipping = p->skip_newlines;
        p->have_peeked = true;
    }
    return p->peeked;
}

Token parser_take(Parser *p)
{
    Token token = parser_peek(p);

    p->at = token.end;
    return token;
}

bool parser_accept(Parser *p, int type)
{
    if (parser_peek(p).type != type)
        return false;
    (void)parser_take(p);
    return true;
}

bool is_word(const Parser *p, Token token, const char *word)
{
    size_t length = strlen(word);

    return token.type == TOKEN_IDENT && token.end - token.start == length &&
           memcmp(p->source->text + token.start, word, length) == 0;
}

Range token_range(const Parser *p, Token token)
{
    return (Range){ p->source, token.start, token.end };
}

char *token_text(const Parser *p, Token token)
{
    char *text = arena_strndup(p->arena, p->source->text + token.start, token.end - token.start);
    g_autofree char *normal = text_is_ascii(text) ? NULL : g_utf8_normalize(text, -1, G_NORMALIZE_NFC);

    return normal && strcmp(normal, text) != 0 ? arena_strdup(p->arena, normal) : text;
}

void *parse_fail(Parser *p, Range range, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    if (p->failed)
        return NULL;
    p->failed = true;
    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    diagnose(p->diagnostics, range, "%s", text);
    p->gave_up = p->gave_up || p->diagnostics->count > DIAGNOSTICS_MAX; /* no more of them are shown */
    return NULL;
}

bool parser_enter(Parser *p)
{
    if (++p->depth <= SYNTAX_DEPTH_MAX)
        return true;
    p->gave_up = true;
    (void)parse_fail(p, token_range(p, parser_peek(p)), "this is nested more than %d levels deep", SYNTAX_DEPTH_MAX);
    return false;
}

void parser_leave(Parser *p)
{
    p->depth--;
}

/* --- getting back on track --- */

static void skip_string(Parser *p)
{
    const char *c = p->source->text + p->at;

    for (; *c && *c != '"' && *c != '\n'; c++)
        if (*c == '\\' && c[1] && c[1] != '\n')
            c++;
    p->at = (uint32_t)(c - p->source->text) + (*c == '"');
}

static void skip_heredoc(Parser *p, Token open)
{
    g_autofree char *line = g_strndup(p->source->text + open.start, open.end - open.start);
    const char *marker = g_strstrip(line + 2 + (line[2] == '-'));
    const char *c = p->source->text + open.end;

    while (*c) {
        const char *end = strchrnul(c, '\n');
        g_autofree char *text = g_strndup(c, (gsize)(end - c));

        if (strcmp(g_strstrip(text), marker) == 0) {
            p->at = (uint32_t)(end - p->source->text);
            return;
        }
        c = *end ? end + 1 : end;
    }
    p->at = (uint32_t)p->source->size;
}

/* From @start to the end of the line that closes what was opened since; stops before a '}' of the body. */
static void recover(Parser *p, uint32_t start)
{
    int open = 0;

    p->skip_newlines = false;
    if (p->gave_up) {
        p->at = (uint32_t)p->source->size;
        return;
    }
    p->failed = false;
    p->at = start;
    for (;;) {
        Token token = parser_peek(p);

        if (token.type == TOKEN_EOF || (token.type == TOKEN_NEWLINE && open <= 0) || (token.type == '}' && open <= 0))
            return;
        (void)parser_take(p);
        if (token.type == '"')
            skip_string(p);
        else if (token.type == TOKEN_HEREDOC)
            skip_heredoc(p, token);
        else if (token.type == '{' || token.type == '[' || token.type == '(')
            open++;
        else if (token.type == '}' || token.type == ']' || token.type == ')')
            open--;
    }
}

/* --- bodies --- */

typedef struct BodyBuilder {
    GPtrArray *attributes, *blocks;
    GHashTable *named; /* name -> Attribute* */
} BodyBuilder;

static Body *parse_items(Parser *p, int close, bool one_line);

Attribute *body_attribute(const Body *body, const char *name)
{
    for (size_t i = 0; i < body->n_attributes; i++)
        if (strcmp(body->attributes[i]->name, name) == 0)
            return body->attributes[i];
    return NULL;
}

static void parse_attribute(Parser *p, Token name, BodyBuilder *builder)
{
    Attribute *attribute = arena_new0(p->arena, Attribute, 1);
    const Attribute *other;
    Expr *expr;

    (void)parser_take(p); /* '=' */
    expr = parse_expr(p);
    if (!expr)
        return;
    attribute->name = token_text(p, name);
    attribute->name_range = token_range(p, name);
    attribute->expr = expr;
    attribute->range = range_join(attribute->name_range, expr->range);
    other = g_hash_table_lookup(builder->named, attribute->name);
    if (other) {
        diagnose(p->diagnostics, attribute->name_range, "the argument '%s' is set twice here; the first is on line %u",
                 attribute->name, range_start(other->name_range).line);
        return;
    }
    g_hash_table_insert(builder->named, (gpointer)attribute->name, attribute);
    g_ptr_array_add(builder->attributes, attribute);
}

/* A quoted label may not compute anything: blocks are found before values are known. */
static bool parse_label(Parser *p, GPtrArray *labels, GArray *ranges)
{
    Token token = parser_peek(p);
    Range range = token_range(p, token);
    const char *text;

    if (token.type == TOKEN_IDENT) {
        text = token_text(p, parser_take(p));
    } else {
        Expr *expr = parse_quoted(p);

        if (!expr)
            return false;
        range = expr->range;
        if (expr->kind != EXPR_LITERAL) {
            (void)parse_fail(p, range, "a label is plain text, without ${ } or %%{ }");
            return false;
        }
        text = expr->value->string;
    }
    g_ptr_array_add(labels, (gpointer)text);
    g_array_append_val(ranges, range);
    return true;
}

static Body *parse_block_body(Parser *p, Token open)
{
    Body *body;
    bool one_line;

    if (!parser_enter(p)) {
        parser_leave(p);
        return NULL;
    }
    one_line = parser_peek(p).type != TOKEN_NEWLINE;
    body = parse_items(p, '}', one_line);
    parser_leave(p);
    if (p->failed)
        return NULL;
    if (parser_peek(p).type != '}')
        return parse_fail(p, token_range(p, open), "this '{' is never closed");
    body->range = (Range){ p->source, open.start, parser_take(p).end };
    return body;
}

static void parse_block(Parser *p, Token type, BodyBuilder *builder)
{
    g_autoptr(GPtrArray) labels = g_ptr_array_new();
    g_autoptr(GArray) ranges = g_array_new(FALSE, FALSE, sizeof(Range));
    Block *block = arena_new0(p->arena, Block, 1);
    Token open;

    while (parser_peek(p).type == TOKEN_IDENT || parser_peek(p).type == '"')
        if (!parse_label(p, labels, ranges))
            return;
    open = parser_peek(p);
    if (open.type != '{') {
        (void)parse_fail(p, token_range(p, open),
                         labels->len == 0 ? "expected '=' for an argument or '{' for a block after '%s', found %s"
                                          : "expected '{' to begin the block '%s', found %s",
                         token_text(p, type), lex_describe(p->source, open, p->arena));
        return;
    }
    (void)parser_take(p);
    block->type = token_text(p, type);
    block->type_range = token_range(p, type);
    block->n_labels = labels->len;
    block->labels = arena_take_pointers(p->arena, labels);
    block->label_ranges = arena_new0(p->arena, Range, labels->len);
    for (guint i = 0; i < labels->len; i++)
        block->label_ranges[i] = g_array_index(ranges, Range, i);
    block->header = labels->len ? range_join(block->type_range, block->label_ranges[labels->len - 1]) : block->type_range;
    block->body = parse_block_body(p, open);
    if (block->body)
        g_ptr_array_add(builder->blocks, block);
}

/* Ends after the newline that an item must end with; in a one-line block '}' does it too. */
static void end_item(Parser *p, int close, bool one_line, uint32_t start)
{
    Token token = parser_peek(p);

    if (!p->failed && token.type != TOKEN_NEWLINE && token.type != TOKEN_EOF && !(one_line && token.type == close))
        (void)parse_fail(p, token_range(p, token), "expected the end of the line here, found %s",
                         lex_describe(p->source, token, p->arena));
    if (p->failed)
        recover(p, start);
}

static void parse_item(Parser *p, BodyBuilder *builder, bool one_line)
{
    Token name = parser_peek(p);
    Token next;

    if (name.type != TOKEN_IDENT) {
        (void)parse_fail(p, token_range(p, name), "expected the name of an argument or block, found %s",
                         lex_describe(p->source, name, p->arena));
        return;
    }
    (void)parser_take(p);
    next = parser_peek(p);
    if (next.type == '=')
        parse_attribute(p, name, builder);
    else if (next.type == ':')
        (void)parse_fail(p, token_range(p, next), "an argument is set with '=', not with ':'");
    else if (one_line && (next.type == '{' || next.type == '"' || next.type == TOKEN_IDENT))
        (void)parse_fail(p, range_join(token_range(p, name), token_range(p, next)),
                         "a block on one line holds no other block; put its contents on lines of their own");
    else
        parse_block(p, name, builder);
}

static Body *parse_items(Parser *p, int close, bool one_line)
{
    g_autoptr(GPtrArray) attributes = g_ptr_array_new();
    g_autoptr(GPtrArray) blocks = g_ptr_array_new();
    g_autoptr(GHashTable) named = g_hash_table_new(g_str_hash, g_str_equal);
    BodyBuilder builder = { attributes, blocks, named };
    Body *body = arena_new0(p->arena, Body, 1);
    unsigned n = 0;

    for (;;) {
        Token token = parser_peek(p);

        if (token.type == TOKEN_NEWLINE && !one_line) {
            (void)parser_take(p);
            continue;
        }
        if (token.type == TOKEN_EOF || token.type == close)
            break;
        if (one_line && (n++ > 0 || token.type == TOKEN_NEWLINE)) {
            (void)parse_fail(p, token_range(p, token), "a block on one line holds at most one argument; "
                                                       "put its contents on lines of their own");
            break;
        }
        parse_item(p, &builder, one_line);
        if (p->depth > SYNTAX_DEPTH_MAX)
            break;
        end_item(p, close, one_line, token.start);
        if (parser_peek(p).type == '}' && close != '}') {
            Token stray = parser_take(p);

            diagnose(p->diagnostics, token_range(p, stray), "this '}' closes nothing");
        }
    }
    body->n_attributes = attributes->len;
    body->attributes = arena_take_pointers(p->arena, attributes);
    body->n_blocks = blocks->len;
    body->blocks = arena_take_pointers(p->arena, blocks);
    return body;
}

static void parser_init(Parser *p, const Source *source, Diagnostics *diagnostics)
{
    *p = (Parser){ .source = source, .arena = diagnostics->arena, .diagnostics = diagnostics };
}

Body *parse_body(const Source *source, Diagnostics *diagnostics)
{
    Parser parser;
    Body *body;

    parser_init(&parser, source, diagnostics);
    body = parse_items(&parser, TOKEN_EOF, false);
    body->range = (Range){ source, 0, (uint32_t)source->size };
    return body;
}

Expr *parse_expression(const Source *source, Diagnostics *diagnostics)
{
    Parser parser;
    Expr *expr;
    Token rest;

    parser_init(&parser, source, diagnostics);
    parser.skip_newlines = true;
    expr = parse_expr(&parser);
    if (!expr)
        return NULL;
    rest = parser_peek(&parser);
    if (rest.type != TOKEN_EOF)
        return parse_fail(&parser, token_range(&parser, rest), "expected the end of the expression here, found %s",
                          lex_describe(source, rest, diagnostics->arena));
    return expr;
}

Expr *parse_template(const Source *source, Diagnostics *diagnostics)
{
    Parser parser;

    parser_init(&parser, source, diagnostics);
    return parse_bare_template(&parser);
}

/* --- questions about a tree --- */

const char *expr_keyword(const Expr *expr)
{
    if (expr->json_text && lex_is_ident(expr->json_text->text))
        return expr->json_text->text;
    return expr->kind == EXPR_VARIABLE ? expr->name : NULL;
}

static const char *literal_string(const Expr *expr)
{
    return expr->kind == EXPR_LITERAL && expr->value->state == VALUE_KNOWN && expr->value->type->kind == TYPE_STRING
               ? expr->value->string
               : NULL;
}

void expr_references(const Expr *expr, ExprReferenceFn fn, void *arg)
{
    const char *key = expr->kind == EXPR_ATTRIBUTE ? expr->name : expr->kind == EXPR_INDEX ? literal_string(expr->right) : NULL;

    if (key && expr->left->kind == EXPR_VARIABLE) {
        fn(arg, expr->left->name, key, expr->range);
        return;
    }
    if (expr->kind == EXPR_VARIABLE)
        fn(arg, expr->name, NULL, expr->range);
    for (size_t i = 0; i < expr->n_items; i++)
        expr_references(expr->items[i], fn, arg);
    if (expr->left)
        expr_references(expr->left, fn, arg);
    if (expr->right)
        expr_references(expr->right, fn, arg);
    if (expr->condition)
        expr_references(expr->condition, fn, arg);
    if (expr->key_expr)
        expr_references(expr->key_expr, fn, arg);
}
