/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values as JSON and back.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_JSON_H
#define KILN_TEMPLATES_LANGUAGE_JSON_H

#include "base/json.h"
#include "templates/language/value.h"

/* Whole numbers that fit 64 bits are integers, others reals; an unknown value is "<unknown>". New reference. */
json_t *value_to_json(const Value *value);

/* What jsonencode() gives: sorted keys, no blanks, exact numbers, < > & escaped. Free with g_free. */
char *value_to_json_text(const Value *value);

Value *value_from_json(Arena *arena, const json_t *json);

/* Text of a JSON document with numbers kept exactly; NULL and an error when it is none. */
Value *value_from_json_text(Arena *arena, const char *text, GError **error);

#endif
