/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of the language: 512-bit binary floats, rounded to nearest even, as HCL has them.
 *
 * Integers up to 2^512 are exact, and 0.1 + 0.2 shows as 0.3. The door to MPFR is number.c.
 * A Number lives in an arena and never changes.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_NUMBER_H
#define KILN_TEMPLATES_LANGUAGE_NUMBER_H

#include "templates/language/arena.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct Number Number;

Number *number_from_int(Arena *arena, int64_t value);
/* Decimal with optional sign, fraction and exponent; nothing else. NULL when it is none or its exponent is over 10000. */
Number *number_from_text(Arena *arena, const char *text);
/* Digits of @base 2-62 with optional sign (parseint); NULL when it is none. */
Number *number_from_digits(Arena *arena, const char *text, int base);

Number *number_add(Arena *arena, const Number *a, const Number *b);
Number *number_subtract(Arena *arena, const Number *a, const Number *b);
Number *number_multiply(Arena *arena, const Number *a, const Number *b);
Number *number_divide(Arena *arena, const Number *a, const Number *b);    /* @b is not zero */
Number *number_remainder(Arena *arena, const Number *a, const Number *b); /* @b is not zero; sign of @a */
Number *number_negate(Arena *arena, const Number *a);
Number *number_floor(Arena *arena, const Number *a);
Number *number_ceil(Arena *arena, const Number *a);
Number *number_power(Arena *arena, const Number *a, const Number *b);    /* NULL: no real number comes out */
Number *number_logarithm(Arena *arena, const Number *a, const Number *base);

int number_compare(const Number *a, const Number *b);
int number_sign(const Number *a);
bool number_is_integer(const Number *a);
bool number_to_int(const Number *a, int64_t *ret); /* false when not integral or too large */
double number_to_double(const Number *a);

/* The shortest decimal that reads back as the same number, without exponent. */
char *number_to_text(Arena *arena, const Number *a);
/* Exactly @decimals digits after the point (format's %f), or an exponent form for 'e'. Free with g_free. */
char *number_format(const Number *a, char verb, int decimals);
/* Integer part in base 2, 8, 10 or 16. Free with g_free. */
char *number_format_integer(const Number *a, int base);

#endif
