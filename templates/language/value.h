/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Types and values of the language.
 *
 * A value has a type and is known, null or unknown (its type may be `any` when it is unknown or a bare
 * null). Lists, sets and maps hold one type; tuples and objects, which is what [ ] and { } write, hold
 * any. Values live in an arena and never change. A sensitive mark sticks to what is computed from a value.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_VALUE_H
#define KILN_TEMPLATES_LANGUAGE_VALUE_H

#include "templates/language/arena.h"
#include "templates/language/number.h"

#include <stdbool.h>
#include <stddef.h>

#define VALUE_DEPTH_MAX 1000

typedef struct Type Type;
typedef struct Value Value;

typedef enum TypeKind {
    TYPE_ANY, /* not known, or a constraint that takes everything */
    TYPE_BOOL,
    TYPE_NUMBER,
    TYPE_STRING,
    TYPE_LIST,
    TYPE_SET,
    TYPE_MAP,
    TYPE_TUPLE,
    TYPE_OBJECT,
} TypeKind;

struct Type {
    TypeKind kind;
    const Type *element; /* list, set, map */
    size_t n;            /* tuple, object */
    const Type **types;
    const char **names;  /* object: sorted */
    bool *optional;      /* object constraint: may be NULL (none is) */
    Value **defaults;    /* object constraint: may be NULL, entries too */
};

extern const Type type_any, type_bool, type_number, type_string;

typedef enum ValueState { VALUE_KNOWN, VALUE_NULL, VALUE_UNKNOWN } ValueState;

struct Value {
    const Type *type;
    uint8_t state;          /* ValueState */
    bool sensitive;
    uint16_t depth;
    union {
        bool boolean;
        const Number *number;
        const char *string; /* UTF-8 in NFC, no NUL inside */
        Value **items;      /* of any collection */
    };
    size_t n;               /* of items; 0 where there are none */
    const char **keys;      /* map, object: sorted by bytes */
};

Value *value_null(Arena *arena, const Type *type);
Value *value_unknown(Arena *arena, const Type *type);
Value *value_bool(Arena *arena, bool boolean);
Value *value_number(Arena *arena, const Number *number);
Value *value_int(Arena *arena, int64_t number);
bool text_is_ascii(const char *text); /* then it is in NFC */
Value *value_string(Arena *arena, const char *text); /* normalised to NFC; @text is valid UTF-8 */
Value *value_tuple(Arena *arena, Value **items, size_t n); /* copies the array */
Value *value_list(Arena *arena, const Type *element, Value **items, size_t n);
Value *value_set(Arena *arena, const Type *element, Value **items, size_t n);   /* sorts, drops doubles */
Value *value_strings(Arena *arena, const GPtrArray *texts); /* list(string) */

/* Objects and maps are collected here; a key put twice keeps the later value. */
typedef struct ValueFields {
    GHashTable *table;
} ValueFields;
void value_fields_init(ValueFields *fields);
void value_fields_put(ValueFields *fields, const char *key /* borrowed */, Value *value);
bool value_fields_has(const ValueFields *fields, const char *key);
Value *value_fields_object(ValueFields *fields, Arena *arena);                   /* and clears @fields */
Value *value_fields_map(ValueFields *fields, Arena *arena, const Type *element); /* and clears @fields */

Value *value_get(const Value *value, const char *key); /* of an object or map; NULL when absent */
Value *value_mark(Arena *arena, Value *value, bool sensitive); /* the same value when there is nothing to mark */
bool value_is_sensitive(const Value *value);           /* it or anything in it */
bool value_is_wholly_known(const Value *value);
bool value_is_null(const Value *value);
bool value_equal(const Value *a, const Value *b);      /* type and content; known values */
int value_compare(const Value *a, const Value *b);     /* a total order, for sets */

static inline bool type_is_sequence(const Type *type)
{
    return type->kind == TYPE_LIST || type->kind == TYPE_SET || type->kind == TYPE_TUPLE;
}
static inline bool type_is_mapping(const Type *type)
{
    return type->kind == TYPE_MAP || type->kind == TYPE_OBJECT;
}
static inline bool type_is_primitive(const Type *type)
{
    return type->kind == TYPE_BOOL || type->kind == TYPE_NUMBER || type->kind == TYPE_STRING;
}

#endif
