/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Type expressions, conversion of a value to a type, and the type that several have in common.
 *
 * Primitive values convert where nothing is lost (5 <-> "5", true <-> "true"), tuples become lists and
 * sets, objects become maps, element by element.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_TYPES_H
#define KILN_TEMPLATES_LANGUAGE_TYPES_H

#include "templates/language/ast.h"
#include "templates/language/value.h"

const Type *type_list_of(Arena *arena, const Type *element);
const Type *type_set_of(Arena *arena, const Type *element);
const Type *type_map_of(Arena *arena, const Type *element);

bool type_equal(const Type *a, const Type *b);
char *type_name(const Type *type);            /* "list(string)"; free with g_free */
const char *type_noun(const Type *type);      /* "list", "object" ...: for short messages */
const char *type_phrase(const Type *type);    /* "a list", "an object" ... */

struct EvalContext;
/* Reads string, list(any), object({ a = optional(string, "x") }) ...; NULL after a diagnostic. */
const Type *type_parse(struct EvalContext *context, const Expr *expr);

/* @value as @type. NULL when it can't be; then *ret_why (arena) says why: "element 2: a number is required, not a string". */
Value *value_convert(Arena *arena, Value *value, const Type *type, const char **ret_why);

/* A type all convert to, or NULL when there is none. */
const Type *type_unify(Arena *arena, const Type *const *types, size_t n);

/* Elements of a sequence as a list of their common type; as they are (a tuple) when there is none. */
Value *value_listed(Arena *arena, Value **items, size_t n);

#endif
