/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The syntax tree: bodies of attributes and blocks, and expressions. Every node
 * knows its bytes in the source. All of it lives in the arena of the parse.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_AST_H
#define KILN_TEMPLATES_LANGUAGE_AST_H

#include "templates/language/source.h"
#include "templates/language/value.h"

typedef struct Expr Expr;

typedef enum ExprKind {
    EXPR_LITERAL,      /* value */
    EXPR_TEMPLATE,     /* items: parts, joined as text */
    EXPR_VARIABLE,     /* name */
    EXPR_ATTRIBUTE,    /* left.name */
    EXPR_INDEX,        /* left[right] */
    EXPR_SPLAT,        /* left[*] or left.*; right is what is done to each, built on an EXPR_ITEM */
    EXPR_ITEM,         /* the element a splat is at */
    EXPR_CALL,         /* name(items...), expand: the last one is a list of arguments */
    EXPR_TUPLE,        /* items */
    EXPR_OBJECT,       /* items: key, value, key, value... */
    EXPR_FOR,          /* see below */
    EXPR_CONDITIONAL,  /* condition ? left : right; also %{if} */
    EXPR_BINARY,       /* left op right */
    EXPR_UNARY,        /* op left */
    EXPR_PAREN,        /* (left) */
} ExprKind;

/* Ten megabytes of text have millions of these, so the small fields stand together. */
struct Expr {
    Range range;
    uint16_t depth;    /* of this subtree; bounded by the parser, so that walks may recurse */
    int16_t op;        /* token type */
    uint8_t kind;      /* ExprKind */
    bool expand;       /* call: '...' ; for: grouping '...' */
    bool makes_object, makes_text; /* for, see below */

    const char *name;
    uint32_t name_start, name_end; /* attribute and call: where the name stands */
    Expr *left, *right, *condition;
    union {
        Value *value;  /* literal */
        Expr **items;
    };
    size_t n_items;
    const Source *json_text; /* a string of JSON: its text, which a type or a plain name is read from; else NULL */

    /* EXPR_FOR: [for key, name in left : right if condition], {for ... : key_expr => right},
     * %{for} (makes_text): right is a template and the results are joined */
    const char *key_name; /* may be NULL */
    Expr *key_expr;
};

static inline Range expr_name_range(const Expr *expr)
{
    return (Range){ expr->range.source, expr->name_start, expr->name_end };
}

typedef struct Attribute {
    const char *name;
    Range name_range, range;
    Expr *expr;
} Attribute;

typedef struct Body Body;

typedef struct Block {
    const char *type;
    Range type_range;
    const char **labels;
    Range *label_ranges;
    size_t n_labels;
    Range header; /* type and labels */
    Body *body;
} Block;

struct Body {
    Range range;
    Attribute **attributes;
    size_t n_attributes;
    Block **blocks;
    size_t n_blocks;
};

#endif
