/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evaluation: an expression and the names it may use give a value.
 *
 * eval_expr() always gives a value. After a mistake it has added a diagnostic and gives an unknown
 * one, so that the rest of the expression can still be looked at without a second complaint.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_EVAL_H
#define KILN_TEMPLATES_LANGUAGE_EVAL_H

#include "templates/language/ast.h"

#define EVAL_MEMORY_MAX ((size_t)1 << 30)

/* A layer of names; inner layers are loops and templatefile()'s variables. */
typedef struct Scope Scope;
struct Scope {
    const Scope *outer;
    const char *const *names;
    Value *const *values;
    size_t n;
};

typedef struct EvalContext EvalContext;
struct EvalContext {
    Arena *arena;
    Diagnostics *diagnostics;
    const Scope *scope;
    const char *base_dir; /* file() and friends start here */
    Value *splat_item;
    bool allow_env;       /* env() is for defaults of variables only */
    bool in_template_file;

    /* May be NULL. Says what the attributes of a root are called: "var" -> "variable". */
    const char *(*noun)(const char *root);
    /* May be NULL. Told of each file that was read. */
    void (*file_read)(void *arg, const char *path, const void *data, size_t size);
    void *arg;
};

Value *eval_expr(EvalContext *context, const Expr *expr);

/* eval_expr and conversion; a diagnostic says `what` ("'size'") can't be that. NULL after any mistake. */
Value *eval_as(EvalContext *context, const Expr *expr, const Type *type, const char *what);

/* The same context with more names, for the time that @ret lives. */
void eval_nested(const EvalContext *context, Scope *scope, EvalContext *ret);

/* left[right] for known or unknown values, as index() of EXPR_INDEX does it. */
Value *eval_index(EvalContext *context, Value *left, Value *key, Range left_range, Range key_range);

/* Value as text for a template; NULL after a diagnostic. An unknown value gives an unknown string. */
Value *eval_to_string(EvalContext *context, Value *value, Range range);

#endif
