/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Types: see types.h.
 *
 * The rules follow HCL's: unification prefers string over number and bool, lists over tuples of different
 * length, maps over objects of different attributes, and fails rather than guesses.
 */
#include "templates/language/types.h"

#include "templates/language/eval.h"
#include "templates/language/lexer.h"
#include "templates/language/parser.h"

#include <string.h>

static const Type *type_with_element(Arena *arena, TypeKind kind, const Type *element)
{
    Type *type = arena_new0(arena, Type, 1);

    type->kind = kind;
    type->element = element;
    return type;
}

const Type *type_list_of(Arena *arena, const Type *element)
{
    return type_with_element(arena, TYPE_LIST, element);
}

const Type *type_set_of(Arena *arena, const Type *element)
{
    return type_with_element(arena, TYPE_SET, element);
}

const Type *type_map_of(Arena *arena, const Type *element)
{
    return type_with_element(arena, TYPE_MAP, element);
}

bool type_equal(const Type *a, const Type *b)
{
    if (a == b)
        return true;
    if (a->kind != b->kind || a->n != b->n)
        return false;
    if (a->element && !type_equal(a->element, b->element))
        return false;
    for (size_t i = 0; i < a->n; i++)
        if ((a->names && strcmp(a->names[i], b->names[i]) != 0) || !type_equal(a->types[i], b->types[i]))
            return false;
    return true;
}

static void append_name(GString *out, const Type *type)
{
    if (type->kind != TYPE_TUPLE && type->kind != TYPE_OBJECT) {
        g_string_append(out, type->kind == TYPE_ANY ? "any" : type_noun(type));
        if (type->element) {
            g_string_append_c(out, '(');
            append_name(out, type->element);
            g_string_append_c(out, ')');
        }
        return;
    }
    g_string_append(out, type->kind == TYPE_TUPLE ? "tuple([" : "object({");
    for (size_t i = 0; i < type->n && out->len < 500; i++) {
        g_string_append(out, i ? "," : "");
        if (type->names)
            g_string_append_printf(out, lex_is_ident(type->names[i]) ? "%s=" : "\"%s\"=", type->names[i]);
        append_name(out, type->types[i]);
    }
    g_string_append(out, type->kind == TYPE_TUPLE ? "])" : "})");
}

char *type_name(const Type *type)
{
    GString *out = g_string_new(NULL);

    append_name(out, type);
    return g_string_free(out, FALSE);
}

const char *type_noun(const Type *type)
{
    static const char *const nouns[] = { "value", "bool", "number", "string", "list", "set", "map", "tuple", "object" };

    return nouns[type->kind];
}

const char *type_phrase(const Type *type)
{
    static const char *const phrases[] = { "a value", "a bool", "a number", "a string", "a list", "a set", "a map", "a tuple", "an object" };

    return phrases[type->kind];
}

/* --- type expressions --- */

static const Type *parse_collection(EvalContext *context, const Expr *call, TypeKind kind)
{
    const Type *element;

    if (call->n_items != 1) {
        diagnose(context->diagnostics, call->range, "%s() takes one type, as in %s(string)", call->name, call->name);
        return NULL;
    }
    element = type_parse(context, call->items[0]);
    return element ? type_with_element(context->arena, kind, element) : NULL;
}

static const Type *parse_tuple(EvalContext *context, const Expr *call)
{
    Type *type = arena_new0(context->arena, Type, 1);
    const Expr *list = call->n_items == 1 ? call->items[0] : NULL;

    if (!list || list->kind != EXPR_TUPLE) {
        diagnose(context->diagnostics, call->range, "tuple() takes a list of types, as in tuple([string, number])");
        return NULL;
    }
    type->kind = TYPE_TUPLE;
    type->n = list->n_items;
    type->types = arena_new0(context->arena, const Type *, type->n);
    for (size_t i = 0; i < type->n; i++)
        if (!(type->types[i] = type_parse(context, list->items[i])))
            return NULL;
    return type;
}

/* optional(T) or optional(T, default) as the type of an object's attribute. */
static const Type *parse_optional(EvalContext *context, const Expr *call, Value **ret_default)
{
    const Type *type;
    const char *why = NULL;

    if (call->n_items < 1 || call->n_items > 2) {
        diagnose(context->diagnostics, call->range, "optional() takes a type and perhaps a default value");
        return NULL;
    }
    type = type_parse(context, call->items[0]);
    if (!type || call->n_items == 1)
        return type;
    *ret_default = value_convert(context->arena, eval_expr(context, call->items[1]), type, &why);
    if (!*ret_default) {
        diagnose(context->diagnostics, call->items[1]->range, "this default does not fit its type: %s", why);
        return NULL;
    }
    return type;
}

static const char *object_key(const Expr *key)
{
    if (key->kind == EXPR_LITERAL && key->value->type->kind == TYPE_STRING)
        return key->value->string;
    return NULL;
}

static const Type *parse_object(EvalContext *context, const Expr *call)
{
    const Expr *object = call->n_items == 1 ? call->items[0] : NULL;
    Arena *arena = context->arena;
    Type *type = arena_new0(arena, Type, 1);
    size_t n = object && object->kind == EXPR_OBJECT ? object->n_items / 2 : 0;

    if (!object || object->kind != EXPR_OBJECT) {
        diagnose(context->diagnostics, call->range, "object() takes attributes with types, as in object({ size = number })");
        return NULL;
    }
    *type = (Type){ .kind = TYPE_OBJECT,
                    .types = arena_new0(arena, const Type *, n),
                    .names = arena_new0(arena, const char *, n),
                    .optional = arena_new0(arena, bool, n),
                    .defaults = arena_new0(arena, Value *, n) };
    for (size_t i = 0; i < n; i++) {
        const char *name = object_key(object->items[2 * i]);
        const Expr *expr = object->items[2 * i + 1];
        bool optional = expr->kind == EXPR_CALL && strcmp(expr->name, "optional") == 0;
        Value *otherwise = NULL;
        const Type *attribute;
        size_t at;

        if (!name) {
            diagnose(context->diagnostics, object->items[2 * i]->range, "an attribute's name must be written plainly");
            return NULL;
        }
        attribute = optional ? parse_optional(context, expr, &otherwise) : type_parse(context, expr);
        if (!attribute)
            return NULL;
        for (at = type->n; at > 0 && strcmp(type->names[at - 1], name) > 0; at--) {
            type->names[at] = type->names[at - 1];
            type->types[at] = type->types[at - 1];
            type->optional[at] = type->optional[at - 1];
            type->defaults[at] = type->defaults[at - 1];
        }
        type->names[at] = name;
        type->types[at] = attribute;
        type->optional[at] = optional;
        type->defaults[at] = otherwise;
        type->n++;
    }
    return type;
}

const Type *type_parse(EvalContext *context, const Expr *expr)
{
    static const char *const words[] = { "string", "number", "bool", "any",    "list",
                                         "set",    "map",    "tuple", "object", NULL };
    const char *word, *name;

    if (expr->json_text) /* in JSON a type is written in a string */
        expr = parse_expression(expr->json_text, context->diagnostics);
    if (!expr)
        return NULL;
    word = expr_keyword(expr);
    name = word;

    if (word) {
        if (strcmp(word, "string") == 0)
            return &type_string;
        if (strcmp(word, "number") == 0)
            return &type_number;
        if (strcmp(word, "bool") == 0)
            return &type_bool;
        if (strcmp(word, "any") == 0)
            return &type_any;
        if (strcmp(word, "list") == 0 || strcmp(word, "map") == 0) /* old short forms */
            return type_with_element(context->arena, word[0] == 'l' ? TYPE_LIST : TYPE_MAP, &type_any);
    } else if (expr->kind == EXPR_CALL) {
        name = expr->name;
        if (strcmp(name, "list") == 0)
            return parse_collection(context, expr, TYPE_LIST);
        if (strcmp(name, "set") == 0)
            return parse_collection(context, expr, TYPE_SET);
        if (strcmp(name, "map") == 0)
            return parse_collection(context, expr, TYPE_MAP);
        if (strcmp(name, "tuple") == 0)
            return parse_tuple(context, expr);
        if (strcmp(name, "object") == 0)
            return parse_object(context, expr);
    } else if (expr->kind == EXPR_LITERAL && expr->value->type->kind == TYPE_STRING) {
        diagnose(context->diagnostics, expr->range, "a type is written without quotes, as in `type = string`");
        return NULL;
    }
    if (name)
        diagnose(context->diagnostics, expr->range, "'%s' is not a type%s", name,
                 did_you_mean(context->arena, name, words));
    else
        diagnose(context->diagnostics, expr->range, "this is not a type; types are string, number, bool, any, list(), "
                                                    "set(), map(), tuple([]) and object({})");
    return NULL;
}

/* --- conversion --- */

static Value *refuse(Arena *arena, const Value *value, const Type *type, const char **ret_why)
{
    g_autofree char *wanted = type_name(type);

    *ret_why = arena_printf(arena, "%s is needed, not %s", type_is_primitive(type) ? arena_printf(arena, "a %s", wanted) : wanted,
                            value->type->kind == TYPE_ANY ? "this value" : type_phrase(value->type));
    return NULL;
}

static Value *convert_primitive(Arena *arena, Value *value, const Type *type, const char **ret_why)
{
    TypeKind from = value->type->kind;
    const Number *number;

    if (type->kind == TYPE_STRING && from == TYPE_NUMBER)
        return value_string(arena, number_to_text(arena, value->number));
    if (type->kind == TYPE_STRING && from == TYPE_BOOL)
        return value_string(arena, value->boolean ? "true" : "false");
    if (type->kind == TYPE_NUMBER && from == TYPE_STRING && (number = number_from_text(arena, value->string)))
        return value_number(arena, number);
    if (type->kind == TYPE_BOOL && from == TYPE_STRING) {
        if (strcmp(value->string, "true") == 0 || strcmp(value->string, "1") == 0)
            return value_bool(arena, true);
        if (strcmp(value->string, "false") == 0 || strcmp(value->string, "0") == 0)
            return value_bool(arena, false);
    }
    return refuse(arena, value, type, ret_why);
}

/* What `any` inside list(any), set(any), map(any) stands for: the common type of what is there. */
static const Type *settle_element(Arena *arena, const Type *element, const Value *value)
{
    g_autofree const Type **types = NULL;

    if (element->kind != TYPE_ANY || value->n == 0)
        return element;
    types = g_new(const Type *, value->n);
    for (size_t i = 0; i < value->n; i++)
        types[i] = value->items[i]->type;
    return type_unify(arena, types, value->n);
}

static Value *convert_collection(Arena *arena, Value *value, const Type *type, const char **ret_why)
{
    bool mapping = type->kind == TYPE_MAP;
    const Type *element;
    Value **items;

    if (mapping ? !type_is_mapping(value->type) : !type_is_sequence(value->type))
        return refuse(arena, value, type, ret_why);
    element = settle_element(arena, type->element, value);
    if (!element) {
        *ret_why = "all elements must have the same type";
        return NULL;
    }
    items = arena_new0(arena, Value *, value->n);
    for (size_t i = 0; i < value->n; i++) {
        const char *why = NULL;

        items[i] = value_convert(arena, value->items[i], element, &why);
        if (!items[i]) {
            *ret_why = mapping ? arena_printf(arena, "element '%s': %s", value->keys[i], why)
                               : arena_printf(arena, "element %zu: %s", i, why);
            return NULL;
        }
    }
    if (mapping) {
        ValueFields fields;

        value_fields_init(&fields);
        for (size_t i = 0; i < value->n; i++)
            value_fields_put(&fields, value->keys[i], items[i]);
        return value_fields_map(&fields, arena, element);
    }
    return type->kind == TYPE_SET ? value_set(arena, element, items, value->n)
                                  : value_list(arena, element, items, value->n);
}

static Value *convert_tuple(Arena *arena, Value *value, const Type *type, const char **ret_why)
{
    Value **items;

    if (!type_is_sequence(value->type))
        return refuse(arena, value, type, ret_why);
    if (value->n != type->n) {
        *ret_why = arena_printf(arena, "%zu elements are needed, not %zu", type->n, value->n);
        return NULL;
    }
    items = arena_new0(arena, Value *, value->n);
    for (size_t i = 0; i < value->n; i++) {
        const char *why = NULL;

        if (!(items[i] = value_convert(arena, value->items[i], type->types[i], &why))) {
            *ret_why = arena_printf(arena, "element %zu: %s", i, why);
            return NULL;
        }
    }
    return value_tuple(arena, items, value->n);
}

static Value *convert_attribute(Arena *arena, Value *value, const Type *type, size_t i, const char **ret_why)
{
    Value *attribute = value_get(value, type->names[i]);
    Value *otherwise = type->defaults ? type->defaults[i] : NULL;
    Value *converted;
    const char *why = NULL;

    if ((!attribute || value_is_null(attribute)) && otherwise)
        return otherwise;
    if (!attribute && type->optional && type->optional[i])
        return value_null(arena, type->types[i]);
    if (!attribute) {
        *ret_why = arena_printf(arena, "attribute '%s' is required", type->names[i]);
        return NULL;
    }
    converted = value_convert(arena, attribute, type->types[i], &why);
    if (!converted)
        *ret_why = arena_printf(arena, "attribute '%s': %s", type->names[i], why);
    return converted;
}

/* Attributes that the type does not name are dropped, as in HCL. */
static Value *convert_object(Arena *arena, Value *value, const Type *type, const char **ret_why)
{
    ValueFields fields;

    if (!type_is_mapping(value->type))
        return refuse(arena, value, type, ret_why);
    value_fields_init(&fields);
    for (size_t i = 0; i < type->n; i++) {
        Value *attribute = convert_attribute(arena, value, type, i, ret_why);

        if (!attribute) {
            g_hash_table_unref(fields.table);
            return NULL;
        }
        value_fields_put(&fields, type->names[i], attribute);
    }
    return value_fields_object(&fields, arena);
}

static Value *convert_known(Arena *arena, Value *value, const Type *type, const char **ret_why)
{
    switch (type->kind) {
    case TYPE_LIST:
    case TYPE_SET:
    case TYPE_MAP:
        return convert_collection(arena, value, type, ret_why);
    case TYPE_TUPLE:
        return convert_tuple(arena, value, type, ret_why);
    case TYPE_OBJECT:
        return convert_object(arena, value, type, ret_why);
    default:
        return convert_primitive(arena, value, type, ret_why);
    }
}

Value *value_convert(Arena *arena, Value *value, const Type *type, const char **ret_why)
{
    Value *converted;

    if (type->kind == TYPE_ANY || (value->state == VALUE_KNOWN && type_is_primitive(type) && value->type->kind == type->kind))
        return value;
    if (value->state == VALUE_NULL)
        return value_mark(arena, value_null(arena, type), value->sensitive);
    if (value->state == VALUE_UNKNOWN)
        return value_mark(arena, value_unknown(arena, type), value->sensitive);
    converted = convert_known(arena, value, type, ret_why);
    return converted ? value_mark(arena, converted, value->sensitive) : NULL;
}

/* --- unification --- */

static bool any_of_kind(const Type *const *types, size_t n, TypeKind kind)
{
    for (size_t i = 0; i < n; i++)
        if (types[i]->kind == kind)
            return true;
    return false;
}

static const Type *unify_primitives(const Type *const *types, size_t n)
{
    bool strings = any_of_kind(types, n, TYPE_STRING);

    for (size_t i = 0; i < n; i++)
        if (!type_is_primitive(types[i]))
            return NULL;
    return strings ? &type_string : NULL; /* a number and a bool have nothing in common */
}

/* All element types of all of them, tuples and objects included; empty ones add nothing. */
static const Type *unify_elements(Arena *arena, const Type *const *types, size_t n)
{
    g_autoptr(GPtrArray) elements = g_ptr_array_new();

    for (size_t i = 0; i < n; i++) {
        if (types[i]->element && !(types[i]->element->kind == TYPE_ANY))
            g_ptr_array_add(elements, (gpointer)types[i]->element);
        for (size_t j = 0; j < types[i]->n; j++)
            g_ptr_array_add(elements, (gpointer)types[i]->types[j]);
    }
    if (elements->len == 0)
        return &type_any;
    return type_unify(arena, (const Type *const *)elements->pdata, elements->len);
}

static bool same_shape(const Type *const *types, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        if (types[i]->kind != types[0]->kind || types[i]->n != types[0]->n)
            return false;
        for (size_t j = 0; types[0]->names && j < types[0]->n; j++)
            if (strcmp(types[i]->names[j], types[0]->names[j]) != 0)
                return false;
    }
    return types[0]->kind == TYPE_TUPLE || types[0]->kind == TYPE_OBJECT;
}

static const Type *unify_same_shape(Arena *arena, const Type *const *types, size_t n)
{
    Type *type = arena_new0(arena, Type, 1);
    g_autofree const Type **column = g_new(const Type *, n);

    *type = *types[0];
    type->optional = NULL;
    type->defaults = NULL;
    type->types = arena_new0(arena, const Type *, type->n);
    for (size_t j = 0; j < type->n; j++) {
        for (size_t i = 0; i < n; i++)
            column[i] = types[i]->types[j];
        if (!(type->types[j] = type_unify(arena, column, n)))
            return NULL;
    }
    return type;
}

const Type *type_unify(Arena *arena, const Type *const *types, size_t n)
{
    g_autofree const Type **real = g_new(const Type *, n + 1);
    size_t n_real = 0;
    bool sequences = true, mappings = true, equal = true;
    const Type *element;

    for (size_t i = 0; i < n; i++)
        if (types[i]->kind != TYPE_ANY)
            real[n_real++] = types[i];
    if (n_real == 0)
        return &type_any;
    for (size_t i = 0; i < n_real; i++) {
        equal = equal && type_equal(real[i], real[0]);
        sequences = sequences && type_is_sequence(real[i]);
        mappings = mappings && type_is_mapping(real[i]);
    }
    if (equal)
        return real[0];
    if (!sequences && !mappings)
        return unify_primitives(real, n_real);
    if (same_shape(real, n_real))
        return unify_same_shape(arena, real, n_real);
    element = unify_elements(arena, real, n_real);
    if (!element)
        return NULL;
    if (mappings)
        return type_map_of(arena, element);
    return any_of_kind(real, n_real, TYPE_SET) && !any_of_kind(real, n_real, TYPE_LIST) ? type_set_of(arena, element)
                                                                                        : type_list_of(arena, element);
}

Value *value_listed(Arena *arena, Value **items, size_t n)
{
    g_autofree const Type **types = g_new(const Type *, n + 1);
    const Type *element;
    Value **converted = arena_new0(arena, Value *, n);

    for (size_t i = 0; i < n; i++)
        types[i] = items[i]->type;
    element = type_unify(arena, types, n);
    if (!element)
        return value_tuple(arena, items, n);
    for (size_t i = 0; i < n; i++) {
        const char *why = NULL;

        converted[i] = value_convert(arena, items[i], element, &why);
        if (!converted[i])
            return value_tuple(arena, items, n);
    }
    return value_list(arena, element, converted, n);
}
