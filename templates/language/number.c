/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door to MPFR. The limbs live in the arena with the number (MPFR's custom
 * interface), so a number needs no clearing.
 */
#include "templates/language/number.h"

#include <math.h>
#include <mpfr.h>
#include <string.h>

#define PRECISION 512
#define EXPONENT_MAX 10000 /* 1e999999999 would take a gigabyte to print */

struct Number {
    mpfr_t value;
    mp_limb_t limbs[(PRECISION + GMP_NUMB_BITS - 1) / GMP_NUMB_BITS];
};

static Number *number_new(Arena *arena)
{
    Number *number = arena_new0(arena, Number, 1);

    mpfr_custom_init(number->limbs, PRECISION);
    mpfr_custom_init_set(number->value, MPFR_ZERO_KIND, 0, PRECISION, number->limbs);
    return number;
}

Number *number_from_int(Arena *arena, int64_t value)
{
    Number *number = number_new(arena);

    mpfr_set_si(number->value, (long)value, MPFR_RNDN);
    return number;
}

/* MPFR itself would also accept "nan", "0x1p3", "@Inf@" and leading blanks. */
static bool is_decimal(const char *text)
{
    const char *p = text;
    size_t digits;

    if (*p == '-' || *p == '+')
        p++;
    digits = strspn(p, "0123456789");
    p += digits;
    if (digits == 0)
        return false;
    if (*p == '.') {
        digits = strspn(++p, "0123456789");
        p += digits;
        if (digits == 0)
            return false;
    }
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '-' || *p == '+')
            p++;
        digits = strspn(p, "0123456789");
        if (digits == 0 || digits > 9 || strtol(p, NULL, 10) > EXPONENT_MAX)
            return false;
        p += digits;
    }
    return *p == '\0' && p - text <= 20000;
}

Number *number_from_text(Arena *arena, const char *text)
{
    Number *number;

    if (*text && strspn(text, "0123456789") == strlen(text) && strlen(text) <= 18)
        return number_from_int(arena, strtoll(text, NULL, 10));
    if (!is_decimal(text))
        return NULL;
    number = number_new(arena);
    mpfr_set_str(number->value, text, 10, MPFR_RNDN);
    return number;
}

static int digit_value(char c, int base)
{
    int value = g_ascii_isdigit(c) ? c - '0'
                : c >= 'a' && c <= 'z' ? c - 'a' + 10
                : c >= 'A' && c <= 'Z' ? c - 'A' + (base > 36 ? 36 : 10)
                                       : 99;

    return value < base ? value : -1;
}

Number *number_from_digits(Arena *arena, const char *text, int base)
{
    Number *number = number_new(arena);
    bool negative = *text == '-';

    if (*text == '-' || *text == '+')
        text++;
    if (*text == '\0' || strlen(text) > 1000)
        return NULL;
    for (; *text; text++) {
        int digit = digit_value(*text, base);

        if (digit < 0)
            return NULL;
        mpfr_mul_si(number->value, number->value, base, MPFR_RNDN);
        mpfr_add_si(number->value, number->value, digit, MPFR_RNDN);
    }
    if (negative)
        mpfr_neg(number->value, number->value, MPFR_RNDN);
    return number;
}

#define BINARY(name, function)                                                 \
    Number *name(Arena *arena, const Number *a, const Number *b)               \
    {                                                                          \
        Number *number = number_new(arena);                                    \
                                                                               \
        function(number->value, a->value, b->value, MPFR_RNDN);                \
        return number;                                                         \
    }

BINARY(number_add, mpfr_add)
BINARY(number_subtract, mpfr_sub)
BINARY(number_multiply, mpfr_mul)
BINARY(number_divide, mpfr_div)

/* a - trunc(a/b)*b, each step rounded: what HCL computes, not the exact remainder. */
Number *number_remainder(Arena *arena, const Number *a, const Number *b)
{
    Number *number = number_new(arena);

    mpfr_div(number->value, a->value, b->value, MPFR_RNDN);
    mpfr_trunc(number->value, number->value);
    mpfr_mul(number->value, b->value, number->value, MPFR_RNDN);
    mpfr_sub(number->value, a->value, number->value, MPFR_RNDN);
    return number;
}

Number *number_negate(Arena *arena, const Number *a)
{
    Number *number = number_new(arena);

    if (mpfr_zero_p(a->value)) /* there is no -0 in the language */
        return number;
    mpfr_neg(number->value, a->value, MPFR_RNDN);
    return number;
}

Number *number_floor(Arena *arena, const Number *a)
{
    Number *number = number_new(arena);

    mpfr_floor(number->value, a->value);
    return number;
}

Number *number_ceil(Arena *arena, const Number *a)
{
    Number *number = number_new(arena);

    mpfr_ceil(number->value, a->value);
    return number;
}

/* A double as the shortest decimal that reads back as it, which is how Go shows what its math gives. */
static Number *shortest(Arena *arena, double value)
{
    char text[G_ASCII_DTOSTR_BUF_SIZE];

    if (!isfinite(value))
        return NULL;
    for (int digits = 15; digits <= 17; digits++) {
        char pattern[8];

        g_snprintf(pattern, sizeof(pattern), "%%.%dg", digits);
        g_ascii_formatd(text, sizeof(text), pattern, value);
        if (g_ascii_strtod(text, NULL) == value)
            break;
    }
    return number_from_text(arena, text);
}

/* pow() and log() work on doubles, as the language's own do: log(8, 2) is 3. */
Number *number_power(Arena *arena, const Number *a, const Number *b)
{
    return shortest(arena, pow(number_to_double(a), number_to_double(b)));
}

Number *number_logarithm(Arena *arena, const Number *a, const Number *base)
{
    return shortest(arena, log(number_to_double(a)) / log(number_to_double(base)));
}

int number_compare(const Number *a, const Number *b)
{
    int order = mpfr_cmp(a->value, b->value);

    return order < 0 ? -1 : order > 0;
}

int number_sign(const Number *a)
{
    int sign = mpfr_sgn(a->value);

    return sign < 0 ? -1 : sign > 0;
}

bool number_is_integer(const Number *a)
{
    return mpfr_integer_p(a->value) != 0;
}

bool number_to_int(const Number *a, int64_t *ret)
{
    if (!mpfr_integer_p(a->value) || !mpfr_fits_slong_p(a->value, MPFR_RNDN))
        return false;
    *ret = mpfr_get_si(a->value, MPFR_RNDN);
    return true;
}

double number_to_double(const Number *a)
{
    return mpfr_get_d(a->value, MPFR_RNDN);
}

/* Rounding to 153 digits gives back every decimal that short; more digits only for what needs them. */
static char *shortest_digits(const Number *a, mpfr_exp_t *ret_exponent)
{
    for (size_t digits = 153; digits < 158; digits++) {
        g_autofree char *text = g_malloc(digits + 20);
        char *copy;
        size_t length;
        mpfr_t back;
        bool same;

        mpfr_get_str(text, ret_exponent, 10, digits, a->value, MPFR_RNDN);
        for (length = strlen(text); length > 1 && text[length - 1] == '0'; length--)
            ;
        text[length] = '\0';
        copy = g_strdup_printf("%s0.%se%ld", text[0] == '-' ? "-" : "", text + (text[0] == '-'),
                               (long)*ret_exponent);
        mpfr_init2(back, PRECISION);
        mpfr_set_str(back, copy, 10, MPFR_RNDN);
        same = mpfr_equal_p(back, a->value);
        mpfr_clear(back);
        g_free(copy);
        if (same || digits == 157)
            return g_strdup(text);
    }
    g_assert_not_reached();
}

static char *integer_text(Arena *arena, long integer)
{
    char text[24];

    return arena_strndup(arena, text, (size_t)g_snprintf(text, sizeof(text), "%ld", integer));
}

char *number_to_text(Arena *arena, const Number *a)
{
    g_autoptr(GString) out = g_string_new(NULL);
    g_autofree char *digits = NULL;
    const char *p;
    mpfr_exp_t exponent;
    size_t count;

    if (mpfr_integer_p(a->value) && mpfr_fits_slong_p(a->value, MPFR_RNDN))
        return integer_text(arena, mpfr_get_si(a->value, MPFR_RNDN));
    digits = shortest_digits(a, &exponent);
    p = digits;
    if (*p == '-') {
        g_string_append_c(out, '-');
        p++;
    }
    count = strlen(p);
    if (exponent <= 0)
        g_string_append(out, "0.");
    for (mpfr_exp_t i = exponent; i < 0; i++)
        g_string_append_c(out, '0');
    for (size_t i = 0; i < count; i++) {
        if (exponent > 0 && i == (size_t)exponent)
            g_string_append_c(out, '.');
        g_string_append_c(out, p[i]);
    }
    for (mpfr_exp_t i = (mpfr_exp_t)count; i < exponent; i++)
        g_string_append_c(out, '0');
    return arena_strdup(arena, out->str);
}

char *number_format(const Number *a, char verb, int decimals)
{
    char pattern[8] = "%.*RNf";
    char *text = NULL;
    char *copy;

    pattern[5] = verb;
    if (mpfr_asprintf(&text, pattern, decimals, a->value) < 0) /* -Wformat-nonliteral: MPFR's own conversions */
        return g_strdup("");
    copy = g_strdup(text);
    mpfr_free_str(text);
    return copy;
}

char *number_format_integer(const Number *a, int base)
{
    char *copy, *text;
    mpz_t integer;

    mpz_init(integer);
    mpfr_get_z(integer, a->value, MPFR_RNDZ);
    text = mpz_get_str(NULL, base, integer);
    copy = g_strdup(text);
    mpz_clear(integer);
    free(text);
    return copy;
}
