/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions on numbers: abs ceil floor log max min parseint pow signum sum.
 */
#include "templates/language/functions.h"

#include "templates/language/types.h"

static Value *fn_abs(Call *call)
{
    const Number *a = call->args[0]->number;

    return value_number(call->arena, number_sign(a) < 0 ? number_negate(call->arena, a) : a);
}

static Value *fn_ceil(Call *call)
{
    return value_number(call->arena, number_ceil(call->arena, call->args[0]->number));
}

static Value *fn_floor(Call *call)
{
    return value_number(call->arena, number_floor(call->arena, call->args[0]->number));
}

static Value *fn_log(Call *call)
{
    Number *result;

    if (number_sign(call->args[0]->number) <= 0 || number_sign(call->args[1]->number) <= 0)
        return call_fail(call, 0, "a logarithm needs positive numbers");
    result = number_logarithm(call->arena, call->args[0]->number, call->args[1]->number);
    return result ? value_number(call->arena, result) : call_fail(call, 1, "there is no logarithm to this base");
}

static Value *extreme(Call *call, int wanted)
{
    const Number *best = call->args[0]->number;

    for (size_t i = 1; i < call->n; i++)
        if (number_compare(call->args[i]->number, best) == wanted)
            best = call->args[i]->number;
    return value_number(call->arena, best);
}

static Value *fn_max(Call *call)
{
    return extreme(call, 1);
}

static Value *fn_min(Call *call)
{
    return extreme(call, -1);
}

static Value *fn_parseint(Call *call)
{
    Number *number;
    int64_t base;

    if (call->args[0]->type->kind != TYPE_STRING)
        return call_fail(call, 0, "a string of digits is needed, not %s", type_phrase(call->args[0]->type));
    if (!call_int(call, 1, 2, 62, &base))
        return NULL;
    number = number_from_digits(call->arena, call->args[0]->string, (int)base);
    if (!number)
        return call_fail(call, 0, "'%s' is no whole number in base %d", call->args[0]->string, (int)base);
    return value_number(call->arena, number);
}

static Value *fn_pow(Call *call)
{
    Number *result = number_power(call->arena, call->args[0]->number, call->args[1]->number);

    return result ? value_number(call->arena, result) : call_fail(call, -1, "the result is no number that can be kept");
}

static Value *fn_signum(Call *call)
{
    int64_t whole;

    if (!call_int(call, 0, INT64_MIN, INT64_MAX, &whole))
        return NULL;
    return value_int(call->arena, number_sign(call->args[0]->number));
}

static Value *fn_sum(Call *call)
{
    const Value *list = call->args[0];
    Number *total = number_from_int(call->arena, 0);

    if (list->n == 0)
        return call_fail(call, 0, "an empty list has no sum");
    for (size_t i = 0; i < list->n; i++) {
        const char *why = NULL;
        Value *number = value_convert(call->arena, list->items[i], &type_number, &why);

        if (!number || value_is_null(number))
            return call_fail(call, 0, "element %zu: %s", i, number ? "it is null" : why);
        total = number_add(call->arena, total, number->number);
    }
    return value_number(call->arena, total);
}

const Function functions_number[] = {
    { "abs", "n", fn_abs, 0 },
    { "ceil", "n", fn_ceil, 0 },
    { "floor", "n", fn_floor, 0 },
    { "log", "nn", fn_log, 0 },
    { "max", "nn*", fn_max, 0 },
    { "min", "nn*", fn_min, 0 },
    { "parseint", "an", fn_parseint, 0 },
    { "pow", "nn", fn_pow, 0 },
    { "signum", "n", fn_signum, 0 },
    { "sum", "l", fn_sum, 0 },
    { 0 },
};
