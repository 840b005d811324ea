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

#endif
