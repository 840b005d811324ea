/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parser of HCL's JSON syntax: the same bodies and expressions from another text.
 *
 * JSON does not say which property is a block, so the caller's schema does; what it does not name is an argument. A string
 * is a template, and is parsed as one in a source of its own that knows where it stands in the file.
 *
 *     {"source": {"disk": {"base": {"from": "${var.image}"}}}}   =   source "disk" "base" { from = var.image }
 */
#include "templates/language/parser-private.h"

#include <string.h>

typedef struct Members {
    GPtrArray *attributes, *blocks;
    GHashTable *named; /* name -> Attribute* */
} Members;

typedef struct Labels {
    const char *texts[BODY_LABELS_MAX];
    Range ranges[BODY_LABELS_MAX];
    size_t n;
} Labels;

static Expr *parse_value(Parser *p);
static bool parse_members(Parser *p, const BodySchema *schema, Members *members);

static const char *here(const Parser *p)
{
    return p->source->text + p->at;
}

static void skip_blanks(Parser *p)
{
    p->at += (uint32_t)strspn(here(p), " \t\r\n");
}

static Range range_here(const Parser *p, uint32_t size)
{
    return (Range){ p->source, p->at, (uint32_t)MIN((size_t)p->at + size, p->source->size) };
}

static bool expect(Parser *p, char c)
{
    skip_blanks(p);
    if (*here(p) == c) {
        p->at++;
        return true;
    }
    (void)parse_fail(p, range_here(p, 1), *here(p) ? "expected '%c' here" : "the text ends where '%c' is expected", c);
    return false;
}

static bool accept_char(Parser *p, char c)
{
    skip_blanks(p);
    if (*here(p) != c)
        return false;
    p->at++;
    return true;
}

/* --- strings --- */

static bool hex4(const char *text, gunichar *ret)
{
    *ret = 0;
    for (int i = 0; i < 4; i++) {
        if (!g_ascii_isxdigit(text[i]))
            return false;
        *ret = *ret * 16 + (gunichar)g_ascii_xdigit_value(text[i]);
    }
    return true;
}

/* \uNNNN, or two of them for what needs more than 16 bits. Returns bytes read after the backslash, 0 when it is wrong. */
static size_t decode_unicode(const char *c, gunichar *ret)
{
    gunichar second;

    if (!hex4(c + 1, ret))
        return 0;
    if (*ret >= 0xD800 && *ret < 0xDC00 && c[5] == '\\' && c[6] == 'u' && hex4(c + 7, &second) && second >= 0xDC00 && second < 0xE000) {
        *ret = 0x10000 + ((*ret - 0xD800) << 10) + (second - 0xDC00);
        return 11;
    }
    if (*ret == 0)
        return 0;
    if (*ret >= 0xD800 && *ret < 0xE000)
        *ret = 0xFFFD;
    return 5;
}

static size_t decode_escape(const char *c, gunichar *ret)
{
    static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *found = *c ? strchr(plain, *c) : NULL;

    if (*c == 'u')
        return decode_unicode(c, ret);
    *ret = found ? (gunichar)meant[found - plain] : 0;
    return found ? 1 : 0;
}

/* Fills @out with the string's text and @map with where each of its bytes came from. */
static bool decode_string(Parser *p, GString *out, GArray *map)
{
    const char *text = p->source->text;

    for (p->at++; *here(p) != '"';) {
        uint32_t from = p->at;
        gunichar c = g_utf8_get_char(here(p));

        if ((unsigned char)*here(p) < 0x20) {
            (void)parse_fail(p, range_here(p, 1), *here(p) ? "a line break or control character in a string is written as an escape"
                                                           : "this string is never closed");
            return false;
        }
        if (*here(p) == '\\') {
            size_t length = decode_escape(here(p) + 1, &c);

            if (length == 0) {
                (void)parse_fail(p, range_here(p, 2), "this escape is unknown in JSON");
                return false;
            }
            p->at += (uint32_t)length + 1;
        } else {
            p->at = (uint32_t)(g_utf8_next_char(here(p)) - text);
        }
        g_string_append_unichar(out, c);
        while (map->len < out->len)
            g_array_append_val(map, from);
    }
    g_array_append_val(map, p->at);
    p->at++;
    return true;
}

/* The string at '"' as a source of its own; NULL after a diagnostic. */
static Source *take_string(Parser *p, Range *ret_range)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GArray) map = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    uint32_t start, *places;
    Source *source;

    skip_blanks(p);
    start = p->at;
    if (*here(p) != '"')
        return parse_fail(p, range_here(p, 1), "expected a string in quotes here");
    if (!decode_string(p, text, map))
        return NULL;
    places = arena_new0(p->arena, uint32_t, map->len);
    memcpy(places, map->data, map->len * sizeof(uint32_t));
    source = arena_new0(p->arena, Source, 1);
    source->name = p->source->name;
    source->text = arena_strndup(p->arena, text->str, text->len);
    source->size = text->len;
    source->outer = p->source;
    source->places = places;
    *ret_range = (Range){ p->source, start, p->at };
    return source;
}

static const char *take_name(Parser *p, Range *ret_range)
{
    Source *source = take_string(p, ret_range);
    g_autofree char *normal = source ? g_utf8_normalize(source->text, -1, G_NORMALIZE_NFC) : NULL;

    return source ? arena_strdup(p->arena, normal ? normal : source->text) : NULL;
}

static Expr *string_expr(Parser *p)
{
    Range range;
    Source *source = take_string(p, &range);
    Expr *expr;

    if (source && p->plain_strings)
        return expr_string(p, range, source->text);
    expr = source ? parse_template(source, p->diagnostics) : NULL;

    if (!expr) {
        p->failed = true; /* told already */
        return NULL;
    }
    expr->json_text = source;
    expr->range = range;
    return expr;
}

/* --- values --- */

static Expr *literal(Parser *p, uint32_t start, Value *value)
{
    Expr *expr = expr_new(p, EXPR_LITERAL, start);

    expr->value = value;
    return expr_finish(p, expr, p->at);
}

static Expr *parse_number(Parser *p)
{
    uint32_t start = p->at;
    size_t length = strspn(here(p), "+-.0123456789eE");
    char *text = arena_strndup(p->arena, here(p), length);
    const Number *number = number_from_text(p->arena, text);

    if (!number || (!g_ascii_isdigit(*text) && !(*text == '-' && g_ascii_isdigit(text[1]))))
        return parse_fail(p, range_here(p, (uint32_t)MAX(length, 1u)), "this is no number that JSON knows");
    p->at += (uint32_t)length;
    return literal(p, start, value_number(p->arena, number));
}

static Expr *parse_word(Parser *p)
{
    uint32_t start = p->at;
    size_t length = 0;

    while (g_ascii_isalpha(here(p)[length]))
        length++;
    p->at += (uint32_t)length;
    if (length == 4 && memcmp(p->source->text + start, "true", 4) == 0)
        return literal(p, start, value_bool(p->arena, true));
    if (length == 5 && memcmp(p->source->text + start, "false", 5) == 0)
        return literal(p, start, value_bool(p->arena, false));
    if (length == 4 && memcmp(p->source->text + start, "null", 4) == 0)
        return literal(p, start, value_null(p->arena, &type_any));
    return parse_fail(p, (Range){ p->source, start, (uint32_t)MIN(start + MAX(length, 1u), p->source->size) },
                      start == p->source->size ? "the text ends where a value is expected" : "expected a JSON value here");
}

static Expr *parse_items(Parser *p, bool object)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new();
    uint32_t start = p->at;
    char close = object ? '}' : ']';
    Expr *expr;

    p->at++;
    if (!accept_char(p, close)) {
        do {
            Expr *key = object ? string_expr(p) : NULL;

            if (object && (!key || !expect(p, ':')))
                return NULL;
            if (object)
                g_ptr_array_add(items, key);
            if (!(expr = parse_value(p)))
                return NULL;
            g_ptr_array_add(items, expr);
        } while (accept_char(p, ','));
        if (!expect(p, close))
            return NULL;
    }
    expr = expr_new(p, object ? EXPR_OBJECT : EXPR_TUPLE, start);
    expr->n_items = items->len;
    expr->items = arena_take_pointers(p->arena, items);
    return expr_finish(p, expr, p->at);
}

static Expr *parse_value(Parser *p)
{
    Expr *expr = NULL;

    skip_blanks(p);
    if (*here(p) == '"')
        return string_expr(p);
    if (*here(p) == '-' || g_ascii_isdigit(*here(p)))
        return parse_number(p);
    if (*here(p) != '{' && *here(p) != '[')
        return parse_word(p);
    if (parser_enter(p))
        expr = parse_items(p, *here(p) == '{');
    parser_leave(p);
    return expr;
}

/* --- bodies --- */

static Body *close_body(Parser *p, Members *members, uint32_t start)
{
    Body *body = arena_new0(p->arena, Body, 1);

    body->range = (Range){ p->source, start, p->at };
    body->n_attributes = members->attributes->len;
    body->attributes = arena_take_pointers(p->arena, members->attributes);
    body->n_blocks = members->blocks->len;
    body->blocks = arena_take_pointers(p->arena, members->blocks);
    return body;
}

static bool add_block(Parser *p, const BodySchema *schema, Range name, const Labels *labels, Members *members)
{
    g_autoptr(GPtrArray) attributes = g_ptr_array_new(), blocks = g_ptr_array_new();
    g_autoptr(GHashTable) named = g_hash_table_new(g_str_hash, g_str_equal);
    Members inner = { attributes, blocks, named };
    Block *block = arena_new0(p->arena, Block, 1);
    uint32_t start = p->at;

    block->type = schema->type;
    block->type_range = name;
    block->n_labels = labels->n;
    block->labels = arena_new0(p->arena, const char *, labels->n);
    block->label_ranges = arena_new0(p->arena, Range, labels->n);
    memcpy(block->labels, labels->texts, labels->n * sizeof(char *));
    memcpy(block->label_ranges, labels->ranges, labels->n * sizeof(Range));
    block->header = labels->n ? labels->ranges[labels->n - 1] : name;
    if (!parse_members(p, schema->inner, &inner))
        return false;
    block->body = close_body(p, &inner, start);
    g_ptr_array_add(members->blocks, block);
    return true;
}

static bool parse_blocks(Parser *p, const BodySchema *schema, Range name, const Labels *labels, Members *members);

static bool parse_labelled(Parser *p, const BodySchema *schema, Range name, const Labels *labels, Members *members)
{
    p->at++;
    if (accept_char(p, '}'))
        return true;
    do {
        Labels more = *labels;

        if (!(more.texts[more.n] = take_name(p, &more.ranges[more.n])) || !expect(p, ':'))
            return false;
        more.n++;
        if (!parse_blocks(p, schema, name, &more, members))
            return false;
    } while (accept_char(p, ','));
    return expect(p, '}');
}

static bool parse_block_list(Parser *p, const BodySchema *schema, Range name, const Labels *labels, Members *members)
{
    p->at++;
    if (accept_char(p, ']'))
        return true;
    do {
        if (!parse_blocks(p, schema, name, labels, members))
            return false;
    } while (accept_char(p, ','));
    return expect(p, ']');
}

/* One object or a list of them, at each level of labels. */
static bool parse_blocks(Parser *p, const BodySchema *schema, Range name, const Labels *labels, Members *members)
{
    bool ok = false;

    skip_blanks(p);
    if (g_str_has_prefix(here(p), "null"))
        return parse_value(p) != NULL;
    if (*here(p) != '{' && *here(p) != '[')
        return parse_fail(p, range_here(p, 1), "'%s' is a block here: an object, or a list of objects", schema->type) != NULL;
    if (parser_enter(p)) {
        if (*here(p) == '[')
            ok = parse_block_list(p, schema, name, labels, members);
        else if (labels->n < schema->n_labels)
            ok = parse_labelled(p, schema, name, labels, members);
        else
            ok = add_block(p, schema, name, labels, members);
    }
    parser_leave(p);
    return ok;
}

static bool add_attribute(Parser *p, const char *name, Range range, Members *members)
{
    Attribute *attribute = arena_new0(p->arena, Attribute, 1);
    const Attribute *other;

    if (!(attribute->expr = parse_value(p)))
        return false;
    if (strcmp(name, "//") == 0) /* how JSON bodies hold comments */
        return true;
    attribute->name = name;
    attribute->name_range = range;
    attribute->range = range_join(range, attribute->expr->range);
    other = g_hash_table_lookup(members->named, name);
    if (other) {
        diagnose(p->diagnostics, range, "the argument '%s' is set twice here; the first is on line %u", name,
                 range_start(other->name_range).line);
        return true;
    }
    g_hash_table_insert(members->named, (gpointer)name, attribute);
    g_ptr_array_add(members->attributes, attribute);
    return true;
}

static bool parse_members(Parser *p, const BodySchema *schema, Members *members)
{
    if (!expect(p, '{'))
        return false;
    if (accept_char(p, '}'))
        return true;
    do {
        const BodySchema *block = schema;
        const Labels none = { .n = 0 };
        Range range;
        const char *name = take_name(p, &range);

        if (!name || !expect(p, ':'))
            return false;
        while (block && block->type && strcmp(block->type, name) != 0)
            block++;
        if (block && block->type ? !parse_blocks(p, block, range, &none, members) : !add_attribute(p, name, range, members))
            return false;
    } while (accept_char(p, ','));
    return expect(p, '}');
}

Body *parse_json_body(const Source *source, const BodySchema *schema, Diagnostics *diagnostics)
{
    Parser parser = { .source = source, .arena = diagnostics->arena, .diagnostics = diagnostics };
    g_autoptr(GPtrArray) attributes = g_ptr_array_new(), blocks = g_ptr_array_new();
    g_autoptr(GHashTable) named = g_hash_table_new(g_str_hash, g_str_equal);
    Members members = { attributes, blocks, named };

    skip_blanks(&parser);
    if (*here(&parser) == '[') {
        parser.at++;
        while (parse_members(&parser, schema, &members) && accept_char(&parser, ','))
            ;
        if (!parser.failed)
            (void)expect(&parser, ']');
    } else {
        (void)parse_members(&parser, schema, &members);
    }
    skip_blanks(&parser);
    if (!parser.failed && parser.at < source->size)
        (void)parse_fail(&parser, range_here(&parser, 1), "expected the end of the text here");
    return close_body(&parser, &members, 0);
}

Expr *parse_json_value(const Source *source, Diagnostics *diagnostics)
{
    Parser parser = { .source = source, .arena = diagnostics->arena, .diagnostics = diagnostics, .plain_strings = true };
    Expr *expr = parse_value(&parser);

    skip_blanks(&parser);
    if (expr && parser.at < source->size)
        return parse_fail(&parser, range_here(&parser, 1), "expected the end of the text here");
    return expr;
}
