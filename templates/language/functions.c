/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Function calls: finding the function, checking and converting arguments, and
 * the three functions that see expressions instead of values (try, can, convert).
 */
#include "templates/language/functions.h"

#include "templates/language/types.h"

#include <stdlib.h>
#include <string.h>

static const Function *const tables[] = {
    functions_number,     functions_string,   functions_format, functions_regex, functions_collection,
    functions_encoding,   functions_file,     functions_time,   functions_hash,  functions_net,
    functions_yaml,       functions_secret,
};

static const char *const special[] = { "try", "can", "convert", "env" };

/* In Packer, but they need a network service. */
static const struct {
    const char *name, *why;
} absent[] = {
    { "vault", "it needs a network service; pass the value with -var or PKR_VAR_" },
    { "consul_key", "it needs a network service; pass the value with -var or PKR_VAR_" },
    { "aws_secretsmanager", "it needs a network service; pass the value with -var or PKR_VAR_" },
    { "aws_secretsmanager_raw", "it needs a network service; pass the value with -var or PKR_VAR_" },
};

const char **function_names(void)
{
    GPtrArray *names = g_ptr_array_new();

    for (size_t t = 0; t < G_N_ELEMENTS(tables); t++)
        for (const Function *f = tables[t]; f->name; f++)
            g_ptr_array_add(names, (gpointer)f->name);
    for (size_t i = 0; i < G_N_ELEMENTS(special); i++)
        g_ptr_array_add(names, (gpointer)special[i]);
    g_ptr_array_add(names, NULL);
    return (const char **)g_ptr_array_free(names, FALSE);
}

static const Function *find_function(const char *name)
{
    for (size_t t = 0; t < G_N_ELEMENTS(tables); t++)
        for (const Function *f = tables[t]; f->name; f++)
            if (strcmp(f->name, name) == 0)
                return f;
    return NULL;
}

Range call_range(const Call *call, int arg)
{
    if (arg < 0 || call->expr->n_items == 0)
        return call->expr->range;
    return call->expr->items[MIN((size_t)arg, call->expr->n_items - 1)]->range;
}

Value *call_fail(Call *call, int arg, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    diagnose(call->context->diagnostics, call_range(call, arg), "%s(): %s", call->name, text);
    return NULL;
}

bool call_int(Call *call, size_t arg, int64_t least, int64_t most, int64_t *ret)
{
    if (!number_to_int(call->args[arg]->number, ret)) {
        (void)call_fail(call, (int)arg, "a whole number is needed here");
        return false;
    }
    if (*ret < least || *ret > most) {
        (void)call_fail(call, (int)arg, "a number from %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT " is needed here", least,
                        most);
        return false;
    }
    return true;
}

Value *call_text(Call *call, int arg, const char *bytes, size_t size)
{
    g_autofree char *copy = NULL;

    if (memchr(bytes, '\0', size) || !g_utf8_validate_len(bytes, size, NULL))
        return call_fail(call, arg, "the result is not UTF-8 text");
    copy = g_strndup(bytes, size);
    return value_string(call->arena, copy);
}

/* --- arguments --- */

static const Type *parameter_type(Arena *arena, char letter)
{
    switch (letter) {
    case 's':
        return &type_string;
    case 'n':
        return &type_number;
    case 'b':
        return &type_bool;
    case 'L':
        return type_list_of(arena, &type_string);
    case 'T':
        return type_list_of(arena, &type_any);
    }
    return &type_any;
}

static bool check_argument(Call *call, size_t i, char letter)
{
    Value *value = call->args[i];
    Value *converted;
    const char *why = NULL;

    if (letter == 'A')
        return true;
    if (value->state == VALUE_NULL) {
        (void)call_fail(call, (int)i, "argument %zu can't be null", i + 1);
        return false;
    }
    if (value->state == VALUE_UNKNOWN && value->type->kind == TYPE_ANY)
        return true;
    if ((letter == 'l' && !type_is_sequence(value->type)) || (letter == 'm' && !type_is_mapping(value->type))) {
        (void)call_fail(call, (int)i, "argument %zu must be %s, not %s", i + 1,
                        letter == 'l' ? "a list, tuple or set" : "a map or object", type_phrase(value->type));
        return false;
    }
    converted = value_convert(call->arena, value, parameter_type(call->arena, letter), &why);
    if (!converted) {
        (void)call_fail(call, (int)i, "argument %zu: %s", i + 1, why);
        return false;
    }
    call->args[i] = converted;
    return true;
}

/* "LEAST" to "MOST" arguments; most is SIZE_MAX with a '*'. */
static void count_parameters(const char *parameters, size_t *ret_least, size_t *ret_most)
{
    bool optional = false;

    *ret_least = *ret_most = 0;
    for (const char *p = parameters; *p; p++) {
        if (*p == '|')
            optional = true;
        else if (*p == '*')
            *ret_most = SIZE_MAX;
        else {
            (*ret_most)++;
            if (!optional && p[1] != '*')
                (*ret_least)++;
        }
    }
}

static char letter_of(const char *parameters, size_t i)
{
    char last = 'A';

    for (const char *p = parameters; *p; p++) {
        if (*p == '|')
            continue;
        if (*p == '*')
            return last;
        last = *p;
        if (i-- == 0)
            return last;
    }
    return last;
}

static bool check_arguments(Call *call, const Function *function)
{
    size_t least, most;
    bool ok = true;

    count_parameters(function->parameters, &least, &most);
    if (call->n < least || call->n > most) {
        if (most == SIZE_MAX)
            (void)call_fail(call, -1, "needs at least %zu argument%s, not %zu", least, least == 1 ? "" : "s", call->n);
        else if (least == most)
            (void)call_fail(call, -1, "needs %zu argument%s, not %zu", least, least == 1 ? "" : "s", call->n);
        else
            (void)call_fail(call, -1, "needs %zu to %zu arguments, not %zu", least, most, call->n);
        return false;
    }
    for (size_t i = 0; i < call->n; i++)
        ok = check_argument(call, i, letter_of(function->parameters, i)) && ok;
    return ok;
}

/* Evaluates the arguments, and spreads the last one for '...'. False: unknown or after a diagnostic. */
static bool eval_arguments(Call *call)
{
    const Expr *expr = call->expr;
    g_autoptr(GPtrArray) args = g_ptr_array_new();
    unsigned before = call->context->diagnostics->count;

    for (size_t i = 0; i < expr->n_items; i++)
        g_ptr_array_add(args, eval_expr(call->context, expr->items[i]));
    if (call->context->diagnostics->count != before)
        return false;
    if (expr->expand) {
        Value *last = args->pdata[args->len - 1];

        if (last->state == VALUE_UNKNOWN)
            return false;
        if (last->state == VALUE_NULL || !type_is_sequence(last->type)) {
            (void)call_fail(call, (int)args->len - 1, "what stands before '...' must be a list");
            return false;
        }
        g_ptr_array_set_size(args, (gint)args->len - 1);
        for (size_t i = 0; i < last->n; i++)
            g_ptr_array_add(args, value_mark(call->arena, last->items[i], last->sensitive));
    }
    call->n = args->len;
    call->args = arena_take_pointers(call->arena, args);
    return true;
}

/* --- functions that see expressions --- */

static Value *eval_silently(EvalContext *context, const Expr *expr, bool *ret_ok)
{
    EvalContext quiet = *context;
    Diagnostics said;
    Value *value;

    diagnostics_init(&said, context->arena);
    quiet.diagnostics = &said;
    value = eval_expr(&quiet, expr);
    *ret_ok = said.count == 0;
    diagnostics_clear(&said);
    return value;
}

static Value *call_try(Call *call)
{
    for (size_t i = 0; i < call->expr->n_items; i++) {
        bool ok;
        Value *value = eval_silently(call->context, call->expr->items[i], &ok);

        if (ok)
            return value;
    }
    if (call->expr->n_items == 0)
        return call_fail(call, -1, "needs at least 1 argument, not 0");
    /* say why the last one did not work: it was the last hope */
    (void)eval_expr(call->context, call->expr->items[call->expr->n_items - 1]);
    return NULL;
}

static Value *call_can(Call *call)
{
    Value *value;
    bool ok;

    if (call->expr->n_items != 1)
        return call_fail(call, -1, "needs 1 argument, not %zu", call->expr->n_items);
    value = eval_silently(call->context, call->expr->items[0], &ok);
    if (ok && !value_is_wholly_known(value))
        return value_unknown(call->arena, &type_bool);
    return value_bool(call->arena, ok);
}

static Value *call_convert(Call *call)
{
    const Type *type;
    const char *why = NULL;
    Value *value;

    if (call->expr->n_items != 2)
        return call_fail(call, -1, "needs a value and a type");
    value = eval_expr(call->context, call->expr->items[0]);
    type = type_parse(call->context, call->expr->items[1]);
    if (!type)
        return NULL;
    value = value_convert(call->arena, value, type, &why);
    return value ? value : call_fail(call, 0, "%s", why);
}

/* An unset variable is "", as in Packer. */
static Value *call_env(Call *call)
{
    const char *text;
    Value *name;

    if (!call->context->allow_env)
        return call_fail(call, -1, "works only in the default of a variable, so that all outside values have a name there");
    if (call->expr->n_items != 1)
        return call_fail(call, -1, "needs 1 argument, not %zu", call->expr->n_items);
    name = eval_as(call->context, call->expr->items[0], &type_string, "the name of an environment variable");
    if (!name || name->state != VALUE_KNOWN)
        return NULL;
    text = getenv(name->string);
    if (text && !g_utf8_validate(text, -1, NULL))
        return call_fail(call, -1, "the environment variable %s is not UTF-8 text", name->string);
    return value_string(call->arena, text ? text : "");
}

static Value *call_special(Call *call, bool *ret_found)
{
    *ret_found = true;
    if (strcmp(call->name, "try") == 0)
        return call_try(call);
    if (strcmp(call->name, "can") == 0)
        return call_can(call);
    if (strcmp(call->name, "convert") == 0)
        return call_convert(call);
    if (strcmp(call->name, "env") == 0)
        return call_env(call);
    *ret_found = false;
    return NULL;
}

/* --- the call --- */

static void unknown_function(Call *call)
{
    g_autofree const char **names = function_names();

    for (size_t i = 0; i < G_N_ELEMENTS(absent); i++)
        if (strcmp(absent[i].name, call->name) == 0) {
            diagnose(call->context->diagnostics, expr_name_range(call->expr), "the function %s() is not available: %s",
                     call->name, absent[i].why);
            return;
        }
    diagnose(call->context->diagnostics, expr_name_range(call->expr), "there is no function %s()%s", call->name,
             did_you_mean(call->arena, call->name, names));
}

static Value *call_function(Call *call, const Function *function)
{
    bool known = true, sensitive = false;
    Value *result;

    if (!eval_arguments(call) || !check_arguments(call, function))
        return NULL;
    for (size_t i = 0; i < call->n; i++) {
        known = known && (function->flags & FUNCTION_SEES_PARTS ? call->args[i]->state != VALUE_UNKNOWN
                                                                : value_is_wholly_known(call->args[i]));
        sensitive = sensitive || value_is_sensitive(call->args[i]);
    }
    if (!known && !(function->flags & FUNCTION_SEES_UNKNOWN))
        return value_mark(call->arena, value_unknown(call->arena, &type_any), sensitive);
    result = function->fn(call);
    return result ? value_mark(call->arena, result, sensitive) : NULL;
}

Value *function_call(EvalContext *context, const Expr *expr)
{
    Call call = { .context = context, .arena = context->arena, .expr = expr, .name = expr->name };
    bool found;
    Value *result = call_special(&call, &found);

    if (!found) {
        const Function *function = find_function(expr->name);

        if (function)
            result = call_function(&call, function);
        else
            unknown_function(&call);
    }
    return result ? result : value_unknown(context->arena, &type_any);
}
