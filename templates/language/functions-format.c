/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format() and formatlist(): the verbs of HCL's own format, %% %v %#v %t %b %d %o %x %X %e %E %f %F %g %G
 * %s %q, with flags (space + - 0 #), width, precision and explicit argument numbers %[1]d.
 */
#include "templates/language/functions.h"

#include "templates/language/json.h"
#include "templates/language/types.h"

#include <stdlib.h>
#include <string.h>

enum { WIDTH_MAX = 10000 };

typedef struct Verb {
    bool space, plus, minus, zero, sharp;
    int width, precision; /* -1: not given */
    size_t arg;
    char letter;
} Verb;

static bool take_count(const char **p, int *ret)
{
    long value;
    char *end;

    if (!g_ascii_isdigit(**p))
        return true;
    value = strtol(*p, &end, 10);
    *p = end;
    if (value > WIDTH_MAX)
        return false;
    *ret = (int)value;
    return true;
}

static bool parse_verb(const char **at, Verb *verb, size_t *next_arg)
{
    const char *p = *at;
    int number = 0;

    *verb = (Verb){ .width = -1, .precision = -1 };
    for (;; p++) {
        if (*p == ' ')
            verb->space = true;
        else if (*p == '+')
            verb->plus = true;
        else if (*p == '-')
            verb->minus = true;
        else if (*p == '0')
            verb->zero = true;
        else if (*p == '#')
            verb->sharp = true;
        else
            break;
    }
    if (!take_count(&p, &verb->width))
        return false;
    if (*p == '.') {
        p++;
        verb->precision = 0;
        if (!take_count(&p, &verb->precision))
            return false;
    }
    if (*p == '[') {
        p++;
        if (!take_count(&p, &number) || number < 1 || *p++ != ']')
            return false;
        *next_arg = (size_t)number - 1;
    }
    verb->arg = *next_arg;
    verb->letter = *p;
    if (*p == '\0')
        return false;
    *at = p + 1;
    return true;
}

static void append_padded(GString *out, const Verb *verb, const char *text, bool numeric)
{
    size_t length = text_length(text);
    size_t fill = verb->width > 0 && (size_t)verb->width > length ? (size_t)verb->width - length : 0;
    bool zeros = verb->zero && numeric && !verb->minus;

    if (zeros && (*text == '-' || *text == '+' || *text == ' '))
        g_string_append_c(out, *text++);
    for (; !verb->minus && fill > 0; fill--)
        g_string_append_c(out, zeros ? '0' : ' ');
    g_string_append(out, text);
    for (; fill > 0; fill--)
        g_string_append_c(out, ' ');
}

static char *with_sign(char *digits, const Verb *verb)
{
    char *text;

    if (*digits == '-' || (!verb->plus && !verb->space))
        return digits;
    text = g_strconcat(verb->plus ? "+" : " ", digits, NULL);
    g_free(digits);
    return text;
}

/* The digits of a number without sign, point and zeros around them; *ret_point is where the point stands in them. */
static char *digits_of(const char *text, int *ret_point)
{
    GString *digits = g_string_new(NULL);
    bool fraction = false;

    *ret_point = 0;
    for (const char *p = text; *p; p++) {
        if (*p == '.') {
            fraction = true;
        } else if (*p != '-' && (digits->len > 0 || *p != '0')) {
            g_string_append_c(digits, *p);
            *ret_point += !fraction;
        } else if (*p == '0' && fraction) {
            (*ret_point)--;
        }
    }
    while (digits->len > 0 && digits->str[digits->len - 1] == '0')
        g_string_truncate(digits, digits->len - 1);
    return g_string_free(digits, FALSE);
}

/* %g as Go prints it: the shortest that reads back, with an exponent below -4 and from 6 digits on; a precision moves the 6. */
static char *general(Call *call, const Number *number, const Verb *verb)
{
    int significant = verb->precision < 0 ? 6 : MAX(verb->precision, 1), point;
    g_autofree char *rounded = verb->precision < 0 ? NULL : number_format(number, 'e', significant - 1);
    const Number *shown = rounded ? number_from_text(call->arena, rounded) : number;
    const char *plain = number_to_text(call->arena, shown ? shown : number);
    g_autofree char *digits = digits_of(plain, &point);
    size_t n = strlen(digits);

    if (rounded && significant > (int)n && (int)n >= point)
        significant = (int)n;
    if (n == 0 || (point - 1 >= -4 && point - 1 < significant))
        return g_strdup(plain);
    return g_strdup_printf("%s%c%s%s%c%c%02d", *plain == '-' ? "-" : "", digits[0], n > 1 ? "." : "", digits + 1,
                           verb->letter == 'G' ? 'E' : 'e', point < 1 ? '-' : '+', ABS(point - 1));
}

static char *with_prefix(char *digits, const Verb *verb)
{
    const char *prefix = verb->letter == 'x' ? "0x" : verb->letter == 'X' ? "0X" : verb->letter == 'o' ? "0" : "0b";
    char *text;

    if (!verb->sharp || !strchr("xXob", verb->letter))
        return digits;
    text = g_strconcat(*digits == '-' ? "-" : "", prefix, digits + (*digits == '-'), NULL);
    g_free(digits);
    return text;
}

static char *number_text(Call *call, const Verb *verb, const Value *value)
{
    const Number *number = value->number;

    switch (verb->letter) {
    case 'v':
        return g_strdup(number_to_text(call->arena, number));
    case 'b':
        return number_format_integer(number, 2);
    case 'o':
        return number_format_integer(number, 8);
    case 'd':
        return number_format_integer(number, 10);
    case 'x':
        return number_format_integer(number, 16);
    case 'X': {
        g_autofree char *lower = number_format_integer(number, 16);

        return g_ascii_strup(lower, -1);
    }
    case 'g':
    case 'G':
        return general(call, number, verb);
    case 'F':
        return number_format(number, 'f', verb->precision < 0 ? 6 : verb->precision);
    default:
        return number_format(number, verb->letter, verb->precision < 0 ? 6 : verb->precision);
    }
}

static void append_json(GString *out, Call *call, const Verb *verb, const Value *value)
{
    g_autofree char *json = value_to_json_text(value);

    append_padded(out, verb, json, false);
}

static bool append_verb(GString *out, Call *call, const Verb *verb, int arg, Value *value)
{
    const char *why = NULL;
    const Type *type = strchr("sq", verb->letter)   ? &type_string
                       : verb->letter == 't'        ? &type_bool
                       : strchr("bdoxXeEfFgG", verb->letter) ? &type_number
                                                    : NULL;
    char letter = verb->letter;

    if (!type && letter != 'v')
        return call_fail(call, 0, "'%%%c' is no verb of format()", letter) != NULL;
    if (letter == 'v' && !verb->sharp && value->state == VALUE_KNOWN && type_is_primitive(value->type))
        type = value->type->kind == TYPE_NUMBER ? &type_number : &type_string;
    if (!type || (letter == 'v' && value_is_null(value))) {
        append_json(out, call, verb, value);
        return true;
    }
    if (value_is_null(value))
        return call_fail(call, arg, "null can't be formatted with %%%c", letter) != NULL;
    value = value_convert(call->arena, value, type, &why);
    if (!value)
        return call_fail(call, arg, "%%%c: %s", letter, why) != NULL;
    if (type == &type_number) {
        g_autofree char *digits = NULL;

        if (strchr("bdoxX", letter) && !number_is_integer(value->number))
            return call_fail(call, arg, "%%%c: a whole number is needed", letter) != NULL;
        digits = with_sign(with_prefix(number_text(call, verb, value), verb), verb);
        append_padded(out, verb, digits, true);
    } else if (type == &type_bool) {
        g_string_append(out, value->boolean ? "true" : "false"); /* a width means nothing to it */
    } else if (letter == 'q') {
        append_json(out, call, verb, value);
    } else if (verb->precision >= 0) {
        g_autofree char *cut = g_utf8_substring(value->string, 0, MIN(verb->precision, (int)g_utf8_strlen(value->string, -1)));

        append_padded(out, verb, cut, false);
    } else {
        append_padded(out, verb, value->string, false);
    }
    return true;
}

static bool formatted(Call *call, const char *format, Value **args, size_t n, GString *out)
{
    size_t next = 0, used = 0;
    bool numbered = false;
    const char *p = format;
    Verb verb;

    while (*p) {
        const char *percent = strchrnul(p, '%');

        g_string_append_len(out, p, percent - p);
        if (!*percent)
            break;
        p = percent + 1;
        if (*p == '%') {
            g_string_append_c(out, '%');
            p++;
            continue;
        }
        numbered = numbered || strchr(p, '[') != NULL;
        if (!parse_verb(&p, &verb, &next))
            return call_fail(call, 0, "the format '%s' has a '%%' that is no whole verb; a percent sign is written %%%%",
                             format) != NULL;
        if (verb.arg >= n)
            return call_fail(call, 0, "the format asks for %zu argument%s, but %zu %s given", verb.arg + 1,
                             verb.arg ? "s" : "", n, n == 1 ? "is" : "are") != NULL;
        if (!append_verb(out, call, &verb, (int)verb.arg + 1, args[verb.arg]))
            return false;
        next = verb.arg + 1;
        used = MAX(used, next);
    }
    if (used < n && !numbered)
        return call_fail(call, (int)used + 1, "the format uses %zu argument%s, but %zu are given", used,
                         used == 1 ? "" : "s", n) != NULL;
    return true;
}

static Value *fn_format(Call *call)
{
    g_autoptr(GString) out = g_string_new(NULL);

    if (!formatted(call, call->args[0]->string, call->args + 1, call->n - 1, out))
        return NULL;
    return value_string(call->arena, out->str);
}

static bool is_list(const Value *value)
{
    return value->state == VALUE_KNOWN && type_is_sequence(value->type);
}

/* Lists are walked together and must have one length; other arguments repeat. */
static Value *fn_formatlist(Call *call)
{
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);
    g_autofree Value **row = g_new0(Value *, call->n);
    size_t length = 1;
    bool have = false;

    for (size_t i = 1; i < call->n; i++) {
        if (!is_list(call->args[i]))
            continue;
        if (have && call->args[i]->n != length)
            return call_fail(call, (int)i, "this list has %zu elements, the one before has %zu", call->args[i]->n, length);
        length = call->args[i]->n;
        have = true;
    }
    for (size_t j = 0; j < length; j++) {
        g_autoptr(GString) out = g_string_new(NULL);

        for (size_t i = 1; i < call->n; i++)
            row[i - 1] = is_list(call->args[i]) ? call->args[i]->items[j] : call->args[i];
        if (!formatted(call, call->args[0]->string, row, call->n - 1, out))
            return NULL;
        g_ptr_array_add(texts, g_strdup(out->str));
    }
    return value_strings(call->arena, texts);
}

const Function functions_format[] = {
    { "format", "sA*", fn_format, 0 },
    { "formatlist", "sA*", fn_formatlist, 0 },
    { 0 },
};
