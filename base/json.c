/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door to jansson. Everything here is bounded and strict: duplicate keys and
 * trailing text are how two readers come to disagree about one signed document.
 */
#include "base/json.h"

#include "base/error.h"

#include <string.h>

bool json_parse(const char *text, size_t size, size_t max, const char *what, json_t **ret, GError **error)
{
    json_error_t problem;
    json_t *value;

    if (size > max)
        return fail(error, "%s is larger than the %zu bytes allowed", what, max);
    value = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &problem);
    if (!value)
        return fail(error, "%s is not valid JSON: %s (line %d, column %d)", what, problem.text, problem.line,
                    problem.column);
    *ret = value;
    return true;
}

static char *dump(const json_t *value, size_t flags)
{
    char *text = json_dumps(value, flags | JSON_ENCODE_ANY);
    char *copy;

    g_assert_nonnull(text); /* only cyclic values or bytes that are no UTF-8 fail, and json_string() refuses those */
    copy = g_strdup(text);
    free(text);
    return copy;
}

char *json_canonical(const json_t *value)
{
    return dump(value, JSON_SORT_KEYS | JSON_COMPACT);
}

void json_digest(const json_t *value, Digest *ret)
{
    g_autofree char *text = json_canonical(value);

    digest_of_string(text, ret);
}

char *json_pretty(const json_t *value)
{
    g_autofree char *text = dump(value, JSON_INDENT(2));
    GString *out = g_string_sized_new(strlen(text) + 1);

    /* jansson escapes C0 alone; DEL and C1 are in strings, and drive terminals, too */
    for (const unsigned char *c = (unsigned char *)text; *c; c++) {
        if (*c == 0x7f)
            g_string_append(out, "\\u007f");
        else if (*c == 0xc2 && c[1] < 0xa0)
            g_string_append_printf(out, "\\u00%02x", *++c);
        else
            g_string_append_c(out, (char)*c);
    }
    return g_string_free(g_string_append_c(out, '\n'), FALSE);
}

bool json_get_string(const json_t *object, const char *key, const char *otherwise, const char **ret, GError **error)
{
    const json_t *value = json_object_get(object, key);

    if (value && !json_is_null(value) && !json_is_string(value))
        return fail(error, "'%s' must be a string", key);
    *ret = json_is_string(value) ? json_string_value(value) : otherwise;
    return true;
}

const char *json_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

bool json_get_int(const json_t *object, const char *key, int64_t otherwise, int64_t *ret, GError **error)
{
    const json_t *value = json_object_get(object, key);

    if (value && !json_is_null(value) && !json_is_integer(value))
        return fail(error, "'%s' must be a whole number", key);
    *ret = json_is_integer(value) ? json_integer_value(value) : otherwise;
    return true;
}

bool json_get_bool(const json_t *object, const char *key, bool otherwise, bool *ret, GError **error)
{
    const json_t *value = json_object_get(object, key);

    if (value && !json_is_null(value) && !json_is_boolean(value))
        return fail(error, "'%s' must be true or false", key);
    *ret = json_is_boolean(value) ? json_is_true(value) : otherwise;
    return true;
}

bool json_get_strings(const json_t *object, const char *key, char ***ret, GError **error)
{
    const json_t *value = json_object_get(object, key), *item;
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
    size_t index;

    if (json_is_string(value))
        g_ptr_array_add(list, g_strdup(json_string_value(value)));
    else if (value && !json_is_null(value) && !json_is_array(value))
        return fail(error, "'%s' must be a list of strings", key);
    json_array_foreach (value, index, item) {
        if (!json_is_string(item))
            return fail(error, "'%s' must be a list of strings, but element %zu is not one", key, index + 1);
        g_ptr_array_add(list, g_strdup(json_string_value(item)));
    }
    g_ptr_array_add(list, NULL);
    *ret = (char **)g_ptr_array_free(g_steal_pointer(&list), FALSE);
    return true;
}

bool json_only_keys(const json_t *object, const char *const *allowed, const char **ret_bad)
{
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)object, key, value)
        if (!g_strv_contains(allowed, key)) {
            *ret_bad = key;
            return false;
        }
    return true;
}

void json_array_add_new(json_t *list, json_t *value)
{
    json_t *one;
    size_t i;

    json_array_foreach (list, i, one)
        if (json_equal(one, value)) {
            json_decref(value);
            return;
        }
    json_array_append_new(list, value);
}

void json_set_digest(json_t *object, const char *key, const Digest *digest)
{
    char oci[DIGEST_OCI_SIZE];

    if (!digest_is_none(digest))
        json_object_set_new(object, key, json_string(digest_to_oci(digest, oci)));
}
