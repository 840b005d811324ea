/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values and JSON. jansson keeps numbers as 64-bit integers or doubles; our own writer keeps all digits.
 */
#include "templates/language/json.h"

#include <math.h>
#include <string.h>

static json_t *number_to_json(const Number *number)
{
    int64_t integer;
    double real;

    if (number_to_int(number, &integer))
        return json_integer(integer);
    real = number_to_double(number);
    return json_real(isfinite(real) ? real : real < 0 ? -1.7976931348623157e308 : 1.7976931348623157e308);
}

static json_t *known_to_json(const Value *value)
{
    json_t *json;

    switch (value->type->kind) {
    case TYPE_BOOL:
        return json_boolean(value->boolean);
    case TYPE_NUMBER:
        return number_to_json(value->number);
    case TYPE_STRING:
        return json_string(value->string);
    default:
        break;
    }
    json = value->keys || type_is_mapping(value->type) ? json_object() : json_array();
    for (size_t i = 0; i < value->n; i++)
        if (json_is_object(json))
            (void)json_object_set_new(json, value->keys[i], value_to_json(value->items[i]));
        else
            (void)json_array_append_new(json, value_to_json(value->items[i]));
    return json;
}

json_t *value_to_json(const Value *value)
{
    if (value->state == VALUE_UNKNOWN)
        return json_string("<unknown>");
    return value->state == VALUE_NULL ? json_null() : known_to_json(value);
}

static void write_string(GString *out, const char *text)
{
    g_string_append_c(out, '"');
    for (const char *p = text; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        if (c >= 0x20 && c < 0x80 && !strchr("\"\\<>&", (int)c))
            g_string_append_c(out, (char)c);
        else if (c == '"' || c == '\\')
            g_string_append_printf(out, "\\%c", (char)c);
        else if (c == '\n')
            g_string_append(out, "\\n");
        else if (c == '\r')
            g_string_append(out, "\\r");
        else if (c == '\t')
            g_string_append(out, "\\t");
        else if (c < 0x20 || c == '<' || c == '>' || c == '&' || c == 0x2028 || c == 0x2029)
            g_string_append_printf(out, "\\u%04x", c);
        else
            g_string_append_unichar(out, c);
    }
    g_string_append_c(out, '"');
}

static void write_value(GString *out, Arena *scratch, const Value *value)
{
    bool mapping = type_is_mapping(value->type);

    if (value->state == VALUE_UNKNOWN) {
        write_string(out, "<unknown>");
    } else if (value->state == VALUE_NULL) {
        g_string_append(out, "null");
    } else if (value->type->kind == TYPE_BOOL) {
        g_string_append(out, value->boolean ? "true" : "false");
    } else if (value->type->kind == TYPE_NUMBER) {
        g_string_append(out, number_to_text(scratch, value->number));
    } else if (value->type->kind == TYPE_STRING) {
        write_string(out, value->string);
    } else {
        g_string_append_c(out, mapping ? '{' : '[');
        for (size_t i = 0; i < value->n; i++) {
            if (i > 0)
                g_string_append_c(out, ',');
            if (mapping) {
                write_string(out, value->keys[i]);
                g_string_append_c(out, ':');
            }
            write_value(out, scratch, value->items[i]);
        }
        g_string_append_c(out, mapping ? '}' : ']');
    }
}

char *value_to_json_text(const Value *value)
{
    g_autoptr(Arena) scratch = arena_new();
    GString *out = g_string_new(NULL);

    write_value(out, scratch, value);
    return g_string_free(out, FALSE);
}
