/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values: making them, looking into them, comparing them.
 */
#include "templates/language/value.h"

#include "templates/language/types.h"

#include <stdlib.h>
#include <string.h>

const Type type_any = { .kind = TYPE_ANY };
const Type type_bool = { .kind = TYPE_BOOL };
const Type type_number = { .kind = TYPE_NUMBER };
const Type type_string = { .kind = TYPE_STRING };

static Value *value_new(Arena *arena, const Type *type, ValueState state)
{
    Value *value = arena_new0(arena, Value, 1);

    value->type = type;
    value->state = (uint8_t)state;
    return value;
}

Value *value_null(Arena *arena, const Type *type)
{
    return value_new(arena, type, VALUE_NULL);
}

Value *value_unknown(Arena *arena, const Type *type)
{
    return value_new(arena, type, VALUE_UNKNOWN);
}

Value *value_bool(Arena *arena, bool boolean)
{
    Value *value = value_new(arena, &type_bool, VALUE_KNOWN);

    value->boolean = boolean;
    return value;
}

Value *value_number(Arena *arena, const Number *number)
{
    Value *value = value_new(arena, &type_number, VALUE_KNOWN);

    value->number = number;
    return value;
}

Value *value_int(Arena *arena, int64_t number)
{
    return value_number(arena, number_from_int(arena, number));
}

bool text_is_ascii(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text >= 0x80)
            return false;
    return true;
}

Value *value_string(Arena *arena, const char *text)
{
    Value *value = value_new(arena, &type_string, VALUE_KNOWN);

    if (text_is_ascii(text)) {
        value->string = arena_strdup(arena, text);
    } else {
        g_autofree char *normal = g_utf8_normalize(text, -1, G_NORMALIZE_NFC);

        value->string = arena_strdup(arena, normal ? normal : text);
    }
    return value;
}

static void take_items(Value *value, Arena *arena, Value **items, size_t n)
{
    value->n = n;
    value->items = arena_new0(arena, Value *, n);
    for (size_t i = 0; i < n; i++) {
        value->items[i] = items[i];
        value->depth = (uint16_t)MAX(value->depth, items[i]->depth + 1);
    }
}

Value *value_tuple(Arena *arena, Value **items, size_t n)
{
    Type *type = arena_new0(arena, Type, 1);
    Value *value = value_new(arena, type, VALUE_KNOWN);

    take_items(value, arena, items, n);
    type->kind = TYPE_TUPLE;
    type->n = n;
    type->types = arena_new0(arena, const Type *, n);
    for (size_t i = 0; i < n; i++)
        type->types[i] = items[i]->type;
    return value;
}

Value *value_list(Arena *arena, const Type *element, Value **items, size_t n)
{
    Value *value = value_new(arena, type_list_of(arena, element), VALUE_KNOWN);

    take_items(value, arena, items, n);
    return value;
}

static int compare_items(const void *a, const void *b)
{
    return value_compare(*(Value *const *)a, *(Value *const *)b);
}

Value *value_set(Arena *arena, const Type *element, Value **items, size_t n)
{
    Value *value = value_new(arena, type_set_of(arena, element), VALUE_KNOWN);
    size_t kept = 0;

    take_items(value, arena, items, n);
    if (n > 0)
        qsort(value->items, n, sizeof(Value *), compare_items);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || value_compare(value->items[kept - 1], value->items[i]) != 0)
            value->items[kept++] = value->items[i];
    value->n = kept;
    return value;
}

Value *value_strings(Arena *arena, const GPtrArray *texts)
{
    Value **items = arena_new0(arena, Value *, texts->len);

    for (guint i = 0; i < texts->len; i++)
        items[i] = value_string(arena, texts->pdata[i]);
    return value_list(arena, &type_string, items, texts->len);
}

void value_fields_init(ValueFields *fields)
{
    fields->table = g_hash_table_new(g_str_hash, g_str_equal);
}

void value_fields_put(ValueFields *fields, const char *key, Value *value)
{
    g_hash_table_replace(fields->table, (gpointer)key, value);
}

bool value_fields_has(const ValueFields *fields, const char *key)
{
    return g_hash_table_contains(fields->table, key);
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void take_fields(Value *value, Arena *arena, ValueFields *fields)
{
    guint n;
    g_autofree gpointer *keys = g_hash_table_get_keys_as_array(fields->table, &n);

    if (n > 0)
        qsort(keys, n, sizeof(gpointer), compare_keys);
    value->n = n;
    value->keys = arena_new0(arena, const char *, n);
    value->items = arena_new0(arena, Value *, n);
    for (guint i = 0; i < n; i++) {
        value->keys[i] = arena_strdup(arena, keys[i]);
        value->items[i] = g_hash_table_lookup(fields->table, keys[i]);
        value->depth = (uint16_t)MAX(value->depth, value->items[i]->depth + 1);
    }
    g_clear_pointer(&fields->table, g_hash_table_unref);
}

Value *value_fields_object(ValueFields *fields, Arena *arena)
{
    Type *type = arena_new0(arena, Type, 1);
    Value *value = value_new(arena, type, VALUE_KNOWN);

    take_fields(value, arena, fields);
    type->kind = TYPE_OBJECT;
    type->n = value->n;
    type->names = value->keys;
    type->types = arena_new0(arena, const Type *, value->n);
    for (size_t i = 0; i < value->n; i++)
        type->types[i] = value->items[i]->type;
    return value;
}

Value *value_fields_map(ValueFields *fields, Arena *arena, const Type *element)
{
    Value *value = value_new(arena, type_map_of(arena, element), VALUE_KNOWN);

    take_fields(value, arena, fields);
    return value;
}

Value *value_get(const Value *value, const char *key)
{
    const char **found;

    if (value->state != VALUE_KNOWN || !type_is_mapping(value->type) || value->n == 0)
        return NULL;
    found = bsearch(&key, value->keys, value->n, sizeof(char *), compare_keys);
    return found ? value->items[found - value->keys] : NULL;
}

Value *value_mark(Arena *arena, Value *value, bool sensitive)
{
    Value *copy;

    if (!sensitive || value->sensitive)
        return value;
    copy = arena_new0(arena, Value, 1);
    *copy = *value;
    copy->sensitive = true;
    return copy;
}

bool value_is_sensitive(const Value *value)
{
    if (value->sensitive)
        return true;
    for (size_t i = 0; i < value->n; i++)
        if (value_is_sensitive(value->items[i]))
            return true;
    return false;
}

bool value_is_wholly_known(const Value *value)
{
    if (value->state == VALUE_UNKNOWN)
        return false;
    for (size_t i = 0; i < value->n; i++)
        if (!value_is_wholly_known(value->items[i]))
            return false;
    return true;
}

bool value_is_null(const Value *value)
{
    return value->state == VALUE_NULL;
}

static int compare_ints(size_t a, size_t b)
{
    return a < b ? -1 : a > b;
}

static int compare_content(const Value *a, const Value *b)
{
    int order = 0;

    switch (a->type->kind) {
    case TYPE_BOOL:
        return a->boolean - b->boolean;
    case TYPE_NUMBER:
        return number_compare(a->number, b->number);
    case TYPE_STRING:
        return strcmp(a->string, b->string);
    default:
        break;
    }
    for (size_t i = 0; i < MIN(a->n, b->n) && order == 0; i++) {
        if (a->keys)
            order = strcmp(a->keys[i], b->keys[i]);
        if (order == 0)
            order = value_compare(a->items[i], b->items[i]);
    }
    return order != 0 ? order : compare_ints(a->n, b->n);
}

int value_compare(const Value *a, const Value *b)
{
    if (a->state != b->state)
        return compare_ints(a->state, b->state);
    if (a->type->kind != b->type->kind)
        return compare_ints(a->type->kind, b->type->kind);
    return a->state == VALUE_KNOWN ? compare_content(a, b) : 0;
}

bool value_equal(const Value *a, const Value *b)
{
    if (value_is_null(a) || value_is_null(b))
        return value_is_null(a) && value_is_null(b);
    return value_compare(a, b) == 0 && type_equal(a->type, b->type);
}
