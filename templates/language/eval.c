/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evaluation, one function for each kind of expression; calls are in functions.c.
 *
 * Depth is bounded by the parser (trees) and here (values, memory), so plain recursion is safe.
 */
#include "templates/language/eval.h"

#include "templates/language/functions.h"
#include "templates/language/lexer.h"
#include "templates/language/types.h"

#include <string.h>

static Value *unknown(EvalContext *context)
{
    return value_unknown(context->arena, &type_any);
}

static Value *complain(EvalContext *context, Range range, const char *format, ...) G_GNUC_PRINTF(3, 4);

static Value *complain(EvalContext *context, Range range, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    diagnose(context->diagnostics, range, "%s", text);
    return unknown(context);
}

void eval_nested(const EvalContext *context, Scope *scope, EvalContext *ret)
{
    *ret = *context;
    scope->outer = context->scope;
    ret->scope = scope;
}

/* --- names --- */

static const char *near_root(EvalContext *context, const char *name)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();

    for (const Scope *scope = context->scope; scope; scope = scope->outer)
        for (size_t i = 0; i < scope->n; i++)
            g_ptr_array_add(names, (gpointer)scope->names[i]);
    g_ptr_array_add(names, NULL);
    return did_you_mean(context->arena, name, (const char *const *)names->pdata);
}

static Value *eval_variable(EvalContext *context, const Expr *expr)
{
    for (const Scope *scope = context->scope; scope; scope = scope->outer)
        for (size_t i = 0; i < scope->n; i++)
            if (strcmp(scope->names[i], expr->name) == 0)
                return scope->values[i];
    return complain(context, expr->range, "there is nothing called '%s' here%s", expr->name,
                    near_root(context, expr->name));
}

/* Objects list their names for "did you mean"; the list must end with NULL. */
static const char *near_key(EvalContext *context, const Value *object, const char *name)
{
    const char **keys = arena_new0(context->arena, const char *, object->n + 1);

    for (size_t i = 0; i < object->n; i++)
        keys[i] = object->keys[i];
    return did_you_mean(context->arena, name, keys);
}

static Value *no_attribute(EvalContext *context, const Value *object, const Expr *left, const char *name, Range range)
{
    const char *noun = left && left->kind == EXPR_VARIABLE && context->noun ? context->noun(left->name) : NULL;
    const char *near = near_key(context, object, name);

    if (noun)
        return complain(context, range, "there is no %s '%s'%s", noun, name, near);
    return complain(context, range, "this %s has no %s '%s'%s", type_noun(object->type),
                    object->type->kind == TYPE_MAP ? "element" : "attribute", name, near);
}

/* What is known of a part of an unknown value: its type, where the whole has one. */
static Value *unknown_part(EvalContext *context, const Type *whole, const char *name)
{
    const Type *type = whole->element;

    for (size_t i = 0; whole->kind == TYPE_OBJECT && name && i < whole->n; i++)
        if (strcmp(whole->names[i], name) == 0)
            type = whole->types[i];
    return value_unknown(context->arena, type ? type : &type_any);
}

static Value *get_attribute(EvalContext *context, Value *object, const Expr *left, const char *name, Range name_range)
{
    Value *value;

    if (object->state == VALUE_UNKNOWN && !type_is_primitive(object->type) && !type_is_sequence(object->type))
        return value_mark(context->arena, unknown_part(context, object->type, name), object->sensitive);
    if (object->state == VALUE_NULL)
        return complain(context, left ? left->range : name_range, "this value is null, so it has no attribute '%s'", name);
    if (!type_is_mapping(object->type))
        return complain(context, name_range, "%s has no attributes%s", type_phrase(object->type),
                        type_is_sequence(object->type) ? "; write [*] to take one from each element" : "");
    value = value_get(object, name);
    if (!value)
        return no_attribute(context, object, left, name, name_range);
    return value_mark(context->arena, value, object->sensitive);
}

static Value *eval_attribute(EvalContext *context, const Expr *expr)
{
    Value *object = eval_expr(context, expr->left);

    return get_attribute(context, object, expr->left, expr->name, expr_name_range(expr));
}

static Value *index_sequence(EvalContext *context, Value *list, Value *key, Range key_range)
{
    const char *why = NULL;
    Value *number = value_convert(context->arena, key, &type_number, &why);
    int64_t i;

    if (list->type->kind == TYPE_SET)
        return complain(context, key_range, "a set has no order, so it has no element by number; [for x in THE_SET : x] makes a list of it");
    if (!number)
        return complain(context, key_range, "this index is no number: %s", why);
    if (!number_to_int(number->number, &i))
        return complain(context, key_range, "an index is a whole number");
    if (i < 0)
        return complain(context, key_range, "an index is not negative");
    if ((uint64_t)i >= list->n)
        return complain(context, key_range, "there is no element %" G_GINT64_FORMAT ": the %s has %zu", i,
                        type_noun(list->type), list->n);
    return list->items[i];
}

Value *eval_index(EvalContext *context, Value *left, Value *key, Range left_range, Range key_range)
{
    bool sensitive = left->sensitive || key->sensitive;
    const char *why = NULL;
    Value *result, *name;

    if (left->state == VALUE_UNKNOWN || key->state == VALUE_UNKNOWN)
        return value_mark(context->arena, unknown(context), sensitive);
    if (left->state == VALUE_NULL)
        return complain(context, left_range, "this value is null, so it has no elements");
    if (key->state == VALUE_NULL)
        return complain(context, key_range, "an index can't be null");
    if (type_is_sequence(left->type)) {
        result = index_sequence(context, left, key, key_range);
    } else if (type_is_mapping(left->type)) {
        name = value_convert(context->arena, key, &type_string, &why);
        if (!name)
            return complain(context, key_range, "this index is no string: %s", why);
        result = value_get(left, name->string);
        if (!result)
            return complain(context, key_range, "there is no element '%s' in this %s%s", name->string,
                            type_noun(left->type), near_key(context, left, name->string));
    } else {
        return complain(context, key_range, "%s has no elements", type_phrase(left->type));
    }
    return value_mark(context->arena, result, sensitive);
}

static Value *eval_index_expr(EvalContext *context, const Expr *expr)
{
    Value *left = eval_expr(context, expr->left);
    Value *key = eval_expr(context, expr->right);
    bool plain = expr->left->kind == EXPR_VARIABLE && context->noun && context->noun(expr->left->name) &&
                 key->state == VALUE_KNOWN && key->type->kind == TYPE_STRING;

    if (plain)
        return get_attribute(context, left, expr->left, key->string, expr->right->range);
    return eval_index(context, left, key, expr->left->range, expr->right->range);
}

/* A null gives no elements, a single value one. */
static Value *eval_splat(EvalContext *context, const Expr *expr)
{
    Value *left = eval_expr(context, expr->left);
    Value *single[1] = { left };
    Value **from = single, **items;
    size_t n = 1;
    EvalContext inner = *context;
    Value *result;

    if (left->state == VALUE_UNKNOWN)
        return value_mark(context->arena, unknown(context), left->sensitive);
    if (left->state == VALUE_NULL) {
        n = 0;
    } else if (type_is_sequence(left->type)) {
        from = left->items;
        n = left->n;
    }
    items = arena_new0(context->arena, Value *, n);
    for (size_t i = 0; i < n; i++) {
        inner.splat_item = from[i];
        items[i] = eval_expr(&inner, expr->right);
    }
    if (left->type->kind == TYPE_LIST || left->type->kind == TYPE_SET)
        result = value_listed(context->arena, items, n);
    else
        result = value_tuple(context->arena, items, n);
    return value_mark(context->arena, result, left->sensitive);
}

/* --- text --- */

Value *eval_to_string(EvalContext *context, Value *value, Range range)
{
    const char *why = NULL;
    Value *text;

    if (value->state == VALUE_NULL) {
        (void)complain(context, range, "this value is null, so it can't be put into text");
        return NULL;
    }
    text = value_convert(context->arena, value, &type_string, &why);
    if (!text)
        (void)complain(context, range, "%s can't be put into text; use join(), jsonencode() or a for",
                       type_phrase(value->type));
    return text;
}

static Value *join_texts(EvalContext *context, Value *const *items, Expr *const *exprs, size_t n)
{
    g_autoptr(GString) out = g_string_new(NULL);
    bool known = true, sensitive = false;

    for (size_t i = 0; i < n; i++) {
        Value *text = eval_to_string(context, items[i], exprs[i]->range);

        if (!text)
            return value_unknown(context->arena, &type_string);
        sensitive = sensitive || text->sensitive;
        if (text->state == VALUE_UNKNOWN)
            known = false;
        else
            g_string_append(out, text->string);
    }
    return value_mark(context->arena,
                      known ? value_string(context->arena, out->str) : value_unknown(context->arena, &type_string),
                      sensitive);
}

static Value *eval_template(EvalContext *context, const Expr *expr)
{
    g_autofree Value **items = g_new(Value *, expr->n_items + 1);

    for (size_t i = 0; i < expr->n_items; i++)
        items[i] = eval_expr(context, expr->items[i]);
    return join_texts(context, items, expr->items, expr->n_items);
}

/* --- collections --- */

static Value *check_depth(EvalContext *context, const Expr *expr, Value *value)
{
    if (value->depth > VALUE_DEPTH_MAX)
        return complain(context, expr->range, "this value is nested more than %d levels deep", VALUE_DEPTH_MAX);
    return value;
}

static Value *eval_tuple(EvalContext *context, const Expr *expr)
{
    g_autofree Value **items = g_new(Value *, expr->n_items + 1);

    for (size_t i = 0; i < expr->n_items; i++)
        items[i] = eval_expr(context, expr->items[i]);
    return check_depth(context, expr, value_tuple(context->arena, items, expr->n_items));
}

/* NULL after a diagnostic or when the key is not known yet. */
static const char *eval_key(EvalContext *context, const Expr *expr, bool *sensitive)
{
    Value *key = eval_expr(context, expr);
    const char *why = NULL;

    if (key->state == VALUE_NULL) {
        (void)complain(context, expr->range, "a key can't be null");
        return NULL;
    }
    key = value_convert(context->arena, key, &type_string, &why);
    if (!key) {
        (void)complain(context, expr->range, "a key must be text: %s", why);
        return NULL;
    }
    *sensitive = *sensitive || key->sensitive;
    return key->state == VALUE_KNOWN ? key->string : NULL;
}

/* { a.b = 1 }: the parser takes it, as HCL's does. */
static bool is_ambiguous_key(EvalContext *context, const Expr *key)
{
    if (key->kind != EXPR_ATTRIBUTE && key->kind != EXPR_INDEX)
        return false;
    (void)complain(context, key->range, "a computed key must stand in parentheses, a plain key with '.' in quotes");
    return true;
}

static Value *eval_object(EvalContext *context, const Expr *expr)
{
    bool whole = true, sensitive = false;
    ValueFields fields;
    Value *object;

    value_fields_init(&fields);
    for (size_t i = 0; i < expr->n_items; i += 2) {
        const char *key = is_ambiguous_key(context, expr->items[i]) ? NULL : eval_key(context, expr->items[i], &sensitive);
        Value *value = eval_expr(context, expr->items[i + 1]);

        if (key)
            value_fields_put(&fields, key, value);
        else
            whole = false;
    }
    object = value_fields_object(&fields, context->arena);
    return value_mark(context->arena, whole ? check_depth(context, expr, object) : unknown(context), sensitive);
}

/* --- for --- */

typedef struct ForResult {
    GPtrArray *items; /* of Value* */
    ValueFields fields;
    GHashTable *groups; /* key -> GPtrArray* */
    bool known, sensitive;
} ForResult;

/* Whether the element is wanted; an unknown condition makes the whole result unknown. */
static bool for_wants(EvalContext *context, const Expr *expr, ForResult *result)
{
    Value *value;
    const char *why = NULL;

    if (!expr->condition)
        return true;
    value = eval_expr(context, expr->condition);
    if (value->state == VALUE_NULL) {
        (void)complain(context, expr->condition->range, "this condition is null, neither true nor false");
        result->known = false;
        return false;
    }
    value = value_convert(context->arena, value, &type_bool, &why);
    if (!value) {
        (void)complain(context, expr->condition->range, "a condition must be true or false: %s", why);
        result->known = false;
        return false;
    }
    result->sensitive = result->sensitive || value->sensitive;
    if (value->state == VALUE_UNKNOWN)
        result->known = false;
    return value->state == VALUE_KNOWN && value->boolean;
}

static void for_put(EvalContext *context, const Expr *expr, ForResult *result, const char *key, Value *value)
{
    GPtrArray *group;

    if (!expr->expand) {
        if (value_fields_has(&result->fields, key))
            (void)complain(context, expr->key_expr->range,
                           "two elements have the key '%s'; write '...' after the value to collect them in lists", key);
        else
            value_fields_put(&result->fields, key, value);
        return;
    }
    group = g_hash_table_lookup(result->groups, key);
    if (!group) {
        group = g_ptr_array_new();
        g_hash_table_insert(result->groups, (gpointer)key, group);
    }
    g_ptr_array_add(group, value);
}

static void for_step(EvalContext *outer, const Expr *expr, Value *key, Value *value, ForResult *result)
{
    const char *names[2] = { expr->name, expr->key_name };
    Value *values[2] = { value, key };
    Scope scope = { .names = names, .values = values, .n = expr->key_name ? 2 : 1 };
    EvalContext context;
    const char *field = NULL;
    Value *out;

    eval_nested(outer, &scope, &context);
    if (!for_wants(&context, expr, result))
        return;
    if (expr->makes_object && !(field = eval_key(&context, expr->key_expr, &result->sensitive)))
        result->known = false;
    out = eval_expr(&context, expr->right);
    if (field)
        for_put(&context, expr, result, field, out);
    else if (!expr->makes_object)
        g_ptr_array_add(result->items, out);
}

static void for_close_groups(EvalContext *context, ForResult *result)
{
    GHashTableIter iter;
    gpointer key, group;

    g_hash_table_iter_init(&iter, result->groups);
    while (g_hash_table_iter_next(&iter, &key, &group)) {
        GPtrArray *items = group;

        value_fields_put(&result->fields, key, value_tuple(context->arena, (Value **)items->pdata, items->len));
    }
}

static Value *for_text(EvalContext *context, const Expr *expr, const ForResult *result)
{
    g_autofree Expr **exprs = g_new(Expr *, result->items->len + 1);

    for (guint i = 0; i < result->items->len; i++)
        exprs[i] = expr->right;
    return join_texts(context, (Value *const *)result->items->pdata, exprs, result->items->len);
}

static Value *for_result(EvalContext *context, const Expr *expr, ForResult *result)
{
    if (expr->makes_object) {
        for_close_groups(context, result);
        return value_fields_object(&result->fields, context->arena);
    }
    if (expr->makes_text)
        return for_text(context, expr, result);
    return value_tuple(context->arena, (Value **)result->items->pdata, result->items->len);
}

static Value *eval_for(EvalContext *context, const Expr *expr)
{
    Value *from = eval_expr(context, expr->left);
    g_autoptr(GPtrArray) items = g_ptr_array_new();
    g_autoptr(GHashTable) groups =
        g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)g_ptr_array_unref);
    ForResult result = { .items = items, .groups = groups, .known = true };
    Value *value;

    if (from->state == VALUE_NULL)
        return complain(context, expr->left->range, "this value is null; a for needs a list, set or object");
    if (from->state == VALUE_UNKNOWN)
        return value_mark(context->arena, unknown(context), from->sensitive);
    if (type_is_primitive(from->type))
        return complain(context, expr->left->range, "a for needs a list, set or object, not %s", type_phrase(from->type));

    value_fields_init(&result.fields);
    for (size_t i = 0; i < from->n && arena_used(context->arena) <= EVAL_MEMORY_MAX; i++) {
        Value *key = from->keys ? value_string(context->arena, from->keys[i])
                     : from->type->kind == TYPE_SET ? from->items[i]
                                                    : value_int(context->arena, (int64_t)i);

        for_step(context, expr, key, from->items[i], &result);
    }
    value = for_result(context, expr, &result);
    g_clear_pointer(&result.fields.table, g_hash_table_unref);
    return value_mark(context->arena, result.known ? check_depth(context, expr, value) : unknown(context),
                      from->sensitive || result.sensitive);
}

/* --- operators --- */

/* Both cases are looked at, for the common type; only the chosen one may complain. */
static Value *eval_quietly(EvalContext *context, const Expr *expr, Diagnostics *said)
{
    EvalContext quiet = *context;

    diagnostics_init(said, context->arena);
    quiet.diagnostics = said;
    return eval_expr(&quiet, expr);
}

static void repeat(EvalContext *context, const Diagnostics *said)
{
    for (guint i = 0; i < said->list->len; i++) {
        const Diagnostic *d = said->list->pdata[i];

        diagnose(context->diagnostics, d->range, "%s", d->text);
    }
}

static Value *choose(EvalContext *context, const Expr *expr, Value *condition, Value *left, Value *right)
{
    const Type *types[2] = { left->type, right->type };
    const Type *type = type_unify(context->arena, types, 2);
    Value *chosen;
    const char *why = NULL;

    if (!type) {
        g_autofree char *one = type_name(left->type), *other = type_name(right->type);

        return complain(context, range_join(expr->left->range, expr->right->range),
                        "both results of a condition must have one type; these are %s and %s", one, other);
    }
    if (condition->state == VALUE_UNKNOWN)
        return value_unknown(context->arena, type);
    chosen = value_convert(context->arena, condition->boolean ? left : right, type, &why);
    return chosen ? chosen : complain(context, expr->range, "this result can't be converted: %s", why);
}

static Value *eval_conditional(EvalContext *context, const Expr *expr)
{
    Value *condition = eval_expr(context, expr->condition);
    Diagnostics left_said, right_said;
    Value *left, *right, *result;
    const char *why = NULL;

    if (condition->state == VALUE_NULL)
        return complain(context, expr->condition->range, "this condition is null, neither true nor false");
    condition = value_convert(context->arena, condition, &type_bool, &why);
    if (!condition)
        return complain(context, expr->condition->range, "a condition must be true or false: %s", why);

    left = eval_quietly(context, expr->left, &left_said);
    right = eval_quietly(context, expr->right, &right_said);
    if (condition->state == VALUE_KNOWN)
        repeat(context, condition->boolean ? &left_said : &right_said);
    result = choose(context, expr, condition, left, right);
    diagnostics_clear(&left_said);
    diagnostics_clear(&right_said);
    return value_mark(context->arena, result, condition->sensitive);
}

static Value *operand(EvalContext *context, const Expr *expr, const Type *type)
{
    Value *value = eval_expr(context, expr);
    Value *converted;
    const char *why = NULL;

    if (value->state == VALUE_NULL) {
        (void)complain(context, expr->range, "this value is null; a %s is needed", type_noun(type));
        return NULL;
    }
    converted = value_convert(context->arena, value, type, &why);
    if (!converted)
        (void)complain(context, expr->range, "%s", why);
    return converted;
}

static Value *arithmetic(EvalContext *context, const Expr *expr, const Number *a, const Number *b)
{
    Arena *arena = context->arena;

    switch (expr->op) {
    case '+':
        return value_number(arena, number_add(arena, a, b));
    case '-':
        return value_number(arena, number_subtract(arena, a, b));
    case '*':
        return value_number(arena, number_multiply(arena, a, b));
    case '<':
        return value_bool(arena, number_compare(a, b) < 0);
    case '>':
        return value_bool(arena, number_compare(a, b) > 0);
    case TOKEN_LESS_EQUAL:
        return value_bool(arena, number_compare(a, b) <= 0);
    case TOKEN_GREATER_EQUAL:
        return value_bool(arena, number_compare(a, b) >= 0);
    }
    if (number_sign(b) == 0)
        return complain(context, expr->right->range, "division by zero");
    return value_number(arena, expr->op == '/' ? number_divide(arena, a, b) : number_remainder(arena, a, b));
}

static Value *eval_numbers(EvalContext *context, const Expr *expr)
{
    bool comparing = expr->op == '<' || expr->op == '>' || expr->op == TOKEN_LESS_EQUAL || expr->op == TOKEN_GREATER_EQUAL;
    Value *a = operand(context, expr->left, &type_number);
    Value *b = operand(context, expr->right, &type_number);
    const Type *type = comparing ? &type_bool : &type_number;

    if (!a || !b)
        return value_unknown(context->arena, type);
    if (a->state == VALUE_UNKNOWN || b->state == VALUE_UNKNOWN)
        return value_mark(context->arena, value_unknown(context->arena, type), a->sensitive || b->sensitive);
    return value_mark(context->arena, arithmetic(context, expr, a->number, b->number), a->sensitive || b->sensitive);
}

/* && and || look at the right side only for its type when the left decides. */
static Value *eval_logic(EvalContext *context, const Expr *expr)
{
    Value *a = operand(context, expr->left, &type_bool);
    bool deciding = expr->op == TOKEN_OR;
    Diagnostics said;
    EvalContext quiet = *context;
    bool decided = a && a->state == VALUE_KNOWN && a->boolean == deciding;
    Value *b;

    diagnostics_init(&said, context->arena);
    quiet.diagnostics = &said;
    b = operand(decided ? &quiet : context, expr->right, &type_bool);
    diagnostics_clear(&said);
    if (decided)
        return value_mark(context->arena, value_bool(context->arena, deciding), a->sensitive);
    if (!a || !b)
        return value_unknown(context->arena, &type_bool);
    if (b->state == VALUE_KNOWN && b->boolean == deciding && a->state == VALUE_UNKNOWN)
        return value_bool(context->arena, deciding);
    if (a->state == VALUE_UNKNOWN || b->state == VALUE_UNKNOWN)
        return value_mark(context->arena, value_unknown(context->arena, &type_bool), a->sensitive || b->sensitive);
    return value_mark(context->arena, b, a->sensitive);
}

static Value *eval_equality(EvalContext *context, const Expr *expr)
{
    Value *a = eval_expr(context, expr->left);
    Value *b = eval_expr(context, expr->right);
    bool sensitive = value_is_sensitive(a) || value_is_sensitive(b);
    bool equal;

    if (!value_is_wholly_known(a) || !value_is_wholly_known(b))
        return value_mark(context->arena, value_unknown(context->arena, &type_bool), sensitive);
    equal = value_equal(a, b); /* a list is never equal to a tuple, which [ ] writes */
    return value_mark(context->arena, value_bool(context->arena, equal == (expr->op == TOKEN_EQUAL)), sensitive);
}

static Value *eval_binary(EvalContext *context, const Expr *expr)
{
    if (expr->op == TOKEN_AND || expr->op == TOKEN_OR)
        return eval_logic(context, expr);
    if (expr->op == TOKEN_EQUAL || expr->op == TOKEN_NOT_EQUAL)
        return eval_equality(context, expr);
    return eval_numbers(context, expr);
}

static Value *eval_unary(EvalContext *context, const Expr *expr)
{
    const Type *type = expr->op == '!' ? &type_bool : &type_number;
    Value *value = operand(context, expr->left, type);
    Value *result;

    if (!value || value->state == VALUE_UNKNOWN)
        return value_unknown(context->arena, type);
    result = expr->op == '!' ? value_bool(context->arena, !value->boolean)
                             : value_number(context->arena, number_negate(context->arena, value->number));
    return value_mark(context->arena, result, value->sensitive);
}

/* Told once, at the first expression past the limit, and nothing is allocated any more. */
static Value *give_up(EvalContext *context, Range range)
{
    static Value nothing = { .type = &type_any, .state = VALUE_UNKNOWN };

    if (!context->diagnostics->gave_up)
        (void)complain(context, range, "this template makes more than 1 GiB of values");
    context->diagnostics->gave_up = true;
    return &nothing;
}

Value *eval_expr(EvalContext *context, const Expr *expr)
{
    if (arena_used(context->arena) > EVAL_MEMORY_MAX)
        return give_up(context, expr->range);
    switch (expr->kind) {
    case EXPR_LITERAL:
        return expr->value;
    case EXPR_TEMPLATE:
        return eval_template(context, expr);
    case EXPR_VARIABLE:
        return eval_variable(context, expr);
    case EXPR_ATTRIBUTE:
        return eval_attribute(context, expr);
    case EXPR_INDEX:
        return eval_index_expr(context, expr);
    case EXPR_SPLAT:
        return eval_splat(context, expr);
    case EXPR_ITEM:
        return context->splat_item;
    case EXPR_CALL:
        return function_call(context, expr);
    case EXPR_TUPLE:
        return eval_tuple(context, expr);
    case EXPR_OBJECT:
        return eval_object(context, expr);
    case EXPR_FOR:
        return eval_for(context, expr);
    case EXPR_CONDITIONAL:
        return eval_conditional(context, expr);
    case EXPR_BINARY:
        return eval_binary(context, expr);
    case EXPR_UNARY:
        return eval_unary(context, expr);
    case EXPR_PAREN:
        return eval_expr(context, expr->left);
    }
    g_assert_not_reached();
}

Value *eval_as(EvalContext *context, const Expr *expr, const Type *type, const char *what)
{
    unsigned before = context->diagnostics->count;
    Value *value = eval_expr(context, expr);
    const char *why = NULL;

    if (context->diagnostics->count != before)
        return NULL;
    value = value_convert(context->arena, value, type, &why);
    if (!value)
        diagnose(context->diagnostics, expr->range, "%s does not fit: %s", what, why);
    return value;
}
