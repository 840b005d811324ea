/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions on lists, sets, maps and objects.
 */
#include "templates/language/functions.h"

#include "templates/language/types.h"

#include <stdlib.h>
#include <string.h>

enum { RANGE_MAX = 100000, PRODUCT_MAX = 1000000 };

/* A result in the shape of its source: lists stay lists, tuples stay tuples. */
static Value *like(Call *call, const Value *source, Value **items, size_t n)
{
    if (source->type->kind == TYPE_TUPLE)
        return value_tuple(call->arena, items, n);
    return value_list(call->arena, source->type->element, items, n);
}

static bool contains(Value *const *items, size_t n, const Value *wanted)
{
    for (size_t i = 0; i < n; i++)
        if (value_compare(items[i], wanted) == 0)
            return true;
    return false;
}

static Value *all_or_any(Call *call, bool deciding)
{
    const Value *list = call->args[0];

    for (size_t i = 0; i < list->n; i++) {
        const char *why = NULL;
        Value *item = value_convert(call->arena, list->items[i], &type_bool, &why);

        if (!item)
            return call_fail(call, 0, "element %zu: %s", i, why);
        if (value_is_null(item) ? !deciding : item->boolean == deciding)
            return value_bool(call->arena, deciding);
    }
    return value_bool(call->arena, !deciding);
}

static Value *fn_alltrue(Call *call)
{
    return all_or_any(call, false);
}

static Value *fn_anytrue(Call *call)
{
    return all_or_any(call, true);
}

static Value *fn_chunklist(Call *call)
{
    Value *list = call->args[0];
    g_autoptr(GPtrArray) chunks = g_ptr_array_new();
    int64_t size;

    if (!call_int(call, 1, 0, G_MAXINT32, &size))
        return NULL;
    if (size == 0)
        size = (int64_t)MAX(list->n, (size_t)1);
    for (size_t i = 0; i < list->n; i += (size_t)size)
        g_ptr_array_add(chunks, like(call, list, list->items + i, MIN((size_t)size, list->n - i)));
    return value_listed(call->arena, (Value **)chunks->pdata, chunks->len);
}

static Value *fn_coalesce(Call *call)
{
    g_autofree const Type **types = g_new(const Type *, call->n + 1);
    const Type *type;
    const char *why = NULL;

    for (size_t i = 0; i < call->n; i++)
        types[i] = call->args[i]->type;
    type = type_unify(call->arena, types, call->n);
    if (!type)
        return call_fail(call, -1, "all arguments must have one type");
    for (size_t i = 0; i < call->n; i++) {
        Value *value = call->args[i];

        if (value_is_null(value) || (type->kind == TYPE_STRING && value->type->kind == TYPE_STRING && !*value->string))
            continue;
        return value_convert(call->arena, value, type, &why);
    }
    return call_fail(call, -1, "no argument is neither null nor empty");
}

static Value *fn_coalescelist(Call *call)
{
    for (size_t i = 0; i < call->n; i++)
        if (call->args[i]->n > 0)
            return call->args[i];
    return call_fail(call, -1, "no list has an element");
}

static Value *fn_compact(Call *call)
{
    g_autoptr(GPtrArray) kept = g_ptr_array_new();
    const Value *list = call->args[0];

    for (size_t i = 0; i < list->n; i++)
        if (!value_is_null(list->items[i]) && *list->items[i]->string)
            g_ptr_array_add(kept, (gpointer)list->items[i]->string);
    return value_strings(call->arena, kept);
}

static Value *fn_concat(Call *call)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new();
    bool lists = true;

    for (size_t i = 0; i < call->n; i++) {
        lists = lists && call->args[i]->type->kind == TYPE_LIST;
        for (size_t j = 0; j < call->args[i]->n; j++)
            g_ptr_array_add(items, call->args[i]->items[j]);
    }
    return lists ? value_listed(call->arena, (Value **)items->pdata, items->len)
                 : value_tuple(call->arena, (Value **)items->pdata, items->len);
}

/* The types must be equal too: "1" is not in [1]. */
static Value *fn_contains(Call *call)
{
    const Value *list = call->args[0];
    bool unknown = false;

    for (size_t i = 0; i < list->n; i++) {
        unknown = unknown || !value_is_wholly_known(list->items[i]);
        if (value_is_wholly_known(list->items[i]) && value_equal(list->items[i], call->args[1]))
            return value_bool(call->arena, true);
    }
    return unknown ? value_unknown(call->arena, &type_bool) : value_bool(call->arena, false);
}

static Value *fn_distinct(Call *call)
{
    Value *list = call->args[0];
    g_autoptr(GPtrArray) kept = g_ptr_array_new();

    for (size_t i = 0; i < list->n; i++)
        if (!contains((Value **)kept->pdata, kept->len, list->items[i]))
            g_ptr_array_add(kept, list->items[i]);
    return like(call, list, (Value **)kept->pdata, kept->len);
}

static Value *fn_element(Call *call)
{
    const Value *list = call->args[0];
    int64_t i;

    if (list->type->kind == TYPE_SET)
        return call_fail(call, 0, "a set has no order, so it has no element by number");
    if (!call_int(call, 1, 0, G_MAXINT32, &i))
        return NULL;
    if (list->n == 0)
        return call_fail(call, 0, "an empty list has no elements");
    return list->items[i % (int64_t)list->n];
}

static void flatten_into(GPtrArray *out, const Value *list)
{
    for (size_t i = 0; i < list->n; i++)
        if (list->items[i]->state == VALUE_KNOWN && type_is_sequence(list->items[i]->type))
            flatten_into(out, list->items[i]);
        else
            g_ptr_array_add(out, list->items[i]);
}

static Value *fn_flatten(Call *call)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new();

    flatten_into(items, call->args[0]);
    return value_tuple(call->arena, (Value **)items->pdata, items->len);
}

static Value *fn_index(Call *call)
{
    const Value *list = call->args[0];

    if (list->type->kind == TYPE_SET)
        return call_fail(call, 0, "a set has no order, so its elements have no index");
    for (size_t i = 0; i < list->n; i++)
        if (value_equal(list->items[i], call->args[1]))
            return value_int(call->arena, (int64_t)i);
    return call_fail(call, 1, "the list has no such element");
}

static Value *fn_keys(Call *call)
{
    const Value *map = call->args[0];
    Value **items = arena_new0(call->arena, Value *, map->n);

    for (size_t i = 0; i < map->n; i++)
        items[i] = value_string(call->arena, map->keys[i]);
    return map->type->kind == TYPE_MAP ? value_list(call->arena, &type_string, items, map->n)
                                       : value_tuple(call->arena, items, map->n);
}

static Value *fn_values(Call *call)
{
    const Value *map = call->args[0];

    if (map->type->kind == TYPE_MAP)
        return value_list(call->arena, map->type->element, map->items, map->n);
    return value_tuple(call->arena, map->items, map->n);
}

static Value *fn_length(Call *call)
{
    const Value *value = call->args[0];

    if (value->state == VALUE_UNKNOWN)
        return value_unknown(call->arena, &type_number);
    if (value->type->kind == TYPE_STRING)
        return value_int(call->arena, (int64_t)text_length(value->string));
    if (type_is_primitive(value->type))
        return call_fail(call, 0, "%s has no length", type_phrase(value->type));
    return value_int(call->arena, (int64_t)value->n);
}

static Value *fn_lookup(Call *call)
{
    const Value *map = call->args[0];
    Value *found = value_get(map, call->args[1]->string);
    Value *otherwise = call->args[2];
    const char *why = NULL;

    if (found)
        return found;
    if (map->type->kind == TYPE_MAP && !(otherwise = value_convert(call->arena, otherwise, map->type->element, &why)))
        return call_fail(call, 2, "the default does not fit the map: %s", why);
    return otherwise;
}

static Value *fn_merge(Call *call)
{
    bool maps = call->n > 0;
    ValueFields fields;
    Value *object, *map;
    const char *why = NULL;

    for (size_t i = 0; i < call->n; i++)
        if (!value_is_null(call->args[i]) && !type_is_mapping(call->args[i]->type))
            return call_fail(call, (int)i, "argument %zu must be a map or object, not %s", i + 1,
                             type_phrase(call->args[i]->type));
    value_fields_init(&fields);
    for (size_t i = 0; i < call->n; i++) {
        maps = maps && call->args[i]->type->kind == TYPE_MAP;
        for (size_t j = 0; j < call->args[i]->n; j++)
            value_fields_put(&fields, call->args[i]->keys[j], call->args[i]->items[j]);
    }
    object = value_fields_object(&fields, call->arena);
    map = maps ? value_convert(call->arena, object, type_map_of(call->arena, &type_any), &why) : NULL;
    return map ? map : object;
}

/* range(limit), range(start, limit), range(start, limit, step) */
static Value *fn_range(Call *call)
{
    const Number *start = call->n > 1 ? call->args[0]->number : number_from_int(call->arena, 0);
    const Number *limit = call->args[call->n > 1 ? 1 : 0]->number;
    const Number *step = call->n > 2                              ? call->args[2]->number
                         : number_compare(start, limit) <= 0 ? number_from_int(call->arena, 1)
                                                                  : number_from_int(call->arena, -1);
    int direction = number_sign(step);
    g_autoptr(GPtrArray) items = g_ptr_array_new();

    if (direction == 0)
        return call_fail(call, 2, "a step of zero never ends");
    if (number_compare(start, limit) == direction)
        return call_fail(call, 2, direction > 0 ? "with a positive step the end must not be below the start"
                                                : "with a negative step the end must not be above the start");
    for (const Number *i = start; number_compare(i, limit) == -direction; i = number_add(call->arena, i, step)) {
        if (items->len >= RANGE_MAX)
            return call_fail(call, -1, "this would be more than %d numbers", RANGE_MAX);
        g_ptr_array_add(items, value_number(call->arena, i));
    }
    return value_list(call->arena, &type_number, (Value **)items->pdata, items->len);
}

static Value *fn_reverse(Call *call)
{
    Value *list = call->args[0];
    Value **items = arena_new0(call->arena, Value *, list->n);

    for (size_t i = 0; i < list->n; i++)
        items[i] = list->items[list->n - 1 - i];
    return like(call, list, items, list->n);
}

/* The arguments as sets of one type; false after call_fail(). */
static bool as_sets(Call *call, Value **sets)
{
    g_autofree const Type **types = g_new(const Type *, call->n + 1);
    const Type *type;

    for (size_t i = 0; i < call->n; i++) {
        const char *why = NULL;

        sets[i] = value_convert(call->arena, call->args[i], type_set_of(call->arena, &type_any), &why);
        if (!sets[i])
            return call_fail(call, (int)i, "%s", why) != NULL;
        types[i] = sets[i]->type;
    }
    type = type_unify(call->arena, types, call->n);
    if (!type)
        return call_fail(call, -1, "all sets must have elements of one type") != NULL;
    for (size_t i = 0; i < call->n; i++) {
        const char *why = NULL;

        if (!(sets[i] = value_convert(call->arena, sets[i], type, &why)))
            return call_fail(call, (int)i, "%s", why) != NULL;
    }
    return true;
}

typedef bool (*SetRule)(bool in_first, bool in_second);

static bool in_both(bool first, bool second)
{
    return first && second;
}

static bool in_first_only(bool first, bool second)
{
    return first && !second;
}

static bool in_either(bool first, bool second)
{
    return first || second;
}

static Value *combine(Call *call, SetRule rule)
{
    g_autofree Value **sets = g_new0(Value *, call->n + 1);
    Value *result;

    if (!as_sets(call, sets))
        return NULL;
    result = sets[0];
    for (size_t i = 1; i < call->n; i++) {
        g_autoptr(GPtrArray) kept = g_ptr_array_new();

        for (size_t j = 0; j < result->n; j++)
            if (rule(true, contains(sets[i]->items, sets[i]->n, result->items[j])))
                g_ptr_array_add(kept, result->items[j]);
        for (size_t j = 0; j < sets[i]->n; j++)
            if (rule(false, true) && !contains(result->items, result->n, sets[i]->items[j]))
                g_ptr_array_add(kept, sets[i]->items[j]);
        result = value_set(call->arena, result->type->element, (Value **)kept->pdata, kept->len);
    }
    return result;
}

static Value *fn_setunion(Call *call)
{
    return combine(call, in_either);
}

static Value *fn_setintersection(Call *call)
{
    return combine(call, in_both);
}

static Value *fn_setsubtract(Call *call)
{
    return combine(call, in_first_only);
}

static Value *fn_setproduct(Call *call)
{
    g_autoptr(GPtrArray) out = g_ptr_array_new();
    g_autofree Value **row = g_new0(Value *, call->n + 1);
    size_t total = 1;
    bool sets = true;
    Value *list;

    for (size_t i = 0; i < call->n; i++) {
        sets = sets && call->args[i]->type->kind == TYPE_SET;
        total *= call->args[i]->n;
        if (total > PRODUCT_MAX)
            return call_fail(call, -1, "this would be more than %d combinations", PRODUCT_MAX);
    }
    for (size_t k = 0; k < total; k++) {
        size_t rest = k;

        for (size_t i = call->n; i-- > 0;) {
            row[i] = call->args[i]->items[rest % call->args[i]->n];
            rest /= call->args[i]->n;
        }
        g_ptr_array_add(out, value_tuple(call->arena, row, call->n));
    }
    list = value_listed(call->arena, (Value **)out->pdata, out->len);
    return sets && list->type->element ? value_set(call->arena, list->type->element, list->items, list->n) : list;
}

static Value *fn_slice(Call *call)
{
    Value *list = call->args[0];
    int64_t from, to;

    if (list->type->kind == TYPE_SET)
        return call_fail(call, 0, "a set has no order, so it has no slices");
    if (!call_int(call, 1, 0, (int64_t)list->n, &from) || !call_int(call, 2, from, (int64_t)list->n, &to))
        return NULL;
    return like(call, list, list->items + from, (size_t)(to - from));
}

static int compare_strings(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static Value *fn_sort(Call *call)
{
    g_autoptr(GPtrArray) texts = g_ptr_array_new();
    const Value *list = call->args[0];

    for (size_t i = 0; i < list->n; i++) {
        if (value_is_null(list->items[i]))
            return call_fail(call, 0, "element %zu is null", i);
        g_ptr_array_add(texts, (gpointer)list->items[i]->string);
    }
    g_ptr_array_sort(texts, compare_strings);
    return value_strings(call->arena, texts);
}

static Value *fn_zipmap(Call *call)
{
    const Value *keys = call->args[0];
    const Value *values = call->args[1];
    ValueFields fields;

    if (keys->n != values->n)
        return call_fail(call, -1, "%zu keys for %zu values", keys->n, values->n);
    for (size_t i = 0; i < keys->n; i++)
        if (value_is_null(keys->items[i]))
            return call_fail(call, 0, "key %zu is null", i);
    value_fields_init(&fields);
    for (size_t i = 0; i < keys->n; i++)
        value_fields_put(&fields, keys->items[i]->string, values->items[i]);
    return values->type->kind == TYPE_LIST ? value_fields_map(&fields, call->arena, values->type->element)
                                           : value_fields_object(&fields, call->arena);
}

const Function functions_collection[] = {
    { "alltrue", "l", fn_alltrue, 0 },
    { "anytrue", "l", fn_anytrue, 0 },
    { "chunklist", "Tn", fn_chunklist, FUNCTION_SEES_PARTS },
    { "coalesce", "AA*", fn_coalesce, 0 },
    { "coalescelist", "ll*", fn_coalescelist, FUNCTION_SEES_PARTS },
    { "compact", "L", fn_compact, 0 },
    { "concat", "ll*", fn_concat, FUNCTION_SEES_PARTS },
    { "contains", "la", fn_contains, FUNCTION_SEES_PARTS },
    { "distinct", "T", fn_distinct, 0 },
    { "element", "ln", fn_element, FUNCTION_SEES_PARTS },
    { "flatten", "l", fn_flatten, 0 },
    { "index", "la", fn_index, 0 },
    { "keys", "m", fn_keys, FUNCTION_SEES_PARTS },
    { "length", "a", fn_length, FUNCTION_SEES_UNKNOWN },
    { "lookup", "msa", fn_lookup, FUNCTION_SEES_PARTS },
    { "merge", "A*", fn_merge, FUNCTION_SEES_PARTS },
    { "range", "n|nn", fn_range, 0 },
    { "reverse", "l", fn_reverse, FUNCTION_SEES_PARTS },
    { "setintersection", "ll*", fn_setintersection, 0 },
    { "setproduct", "lll*", fn_setproduct, 0 },
    { "setsubtract", "ll", fn_setsubtract, 0 },
    { "setunion", "ll*", fn_setunion, 0 },
    { "slice", "lnn", fn_slice, FUNCTION_SEES_PARTS },
    { "sort", "L", fn_sort, 0 },
    { "values", "m", fn_values, FUNCTION_SEES_PARTS },
    { "zipmap", "Ll", fn_zipmap, 0 },
    { 0 },
};
