/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions of the language: how one is called, and what an implementer gets.
 *
 * A function is one row in a table of functions-*.c. Its parameters are a string of letters, by which the
 * arguments are checked and converted before the function sees them:
 *
 *   s string   n number   b bool   L list of strings   l any list, set or tuple   m any map or object
 *   a anything but null   A anything, null too
 *   |  what follows is optional          *  the parameter before may come any number of times, also never
 *
 * Arguments that are not wholly known make the result unknown, without a call (unless a flag below says otherwise);
 * a sensitive one makes it sensitive.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_FUNCTIONS_H
#define KILN_TEMPLATES_LANGUAGE_FUNCTIONS_H

#include "templates/language/eval.h"

typedef struct Call {
    EvalContext *context;
    Arena *arena;
    const Expr *expr;
    const char *name;
    Value **args;
    size_t n;
} Call;

typedef struct Function {
    const char *name;
    const char *parameters;
    Value *(*fn)(Call *call); /* NULL after call_fail() */
    unsigned flags;
} Function;

enum {
    FUNCTION_SEES_UNKNOWN = 1,
    FUNCTION_SEES_PARTS = 2, /* called when its arguments are known, though what is in them may not be */
};

/* Value of an EXPR_CALL. */
Value *function_call(EvalContext *context, const Expr *expr);

/* A diagnostic at argument @arg (from 0; -1: the call). Returns NULL. */
Value *call_fail(Call *call, int arg, const char *format, ...) G_GNUC_PRINTF(3, 4);

Range call_range(const Call *call, int arg);

/* Argument @arg as an integer between @least and @most; false after call_fail(). */
bool call_int(Call *call, size_t arg, int64_t least, int64_t most, int64_t *ret);

/* Bytes that must be text: a diagnostic when they are no UTF-8 or hold NUL. */
Value *call_text(Call *call, int arg, const char *bytes, size_t size);

/* Characters as a reader counts them (length(), substr()). */
size_t text_length(const char *string);

/* Tables, each ending with a row without name. */
extern const Function functions_number[], functions_string[], functions_format[], functions_regex[], functions_collection[],
    functions_encoding[], functions_file[], functions_time[], functions_hash[], functions_net[], functions_yaml[], functions_secret[];

/* NULL-terminated names of all functions, for "did you mean" and the manual; free with g_free (not the names). */
const char **function_names(void);

#endif
