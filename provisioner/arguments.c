/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Typed reading of a provisioner's arguments.
 *
 * Arguments arrive as evaluated JSON. Everything is checked once, when the
 * plan is made, so that run() of a step an hour later cannot stumble over a
 * type: the readers below take what arguments_check() let pass and no more.
 */
#include "provisioner/arguments.h"

#include "base/error.h"
#include "base/gotemplate.h"
#include "base/units.h"

#include <string.h>

static const json_t *get(const json_t *args, const char *name)
{
    const json_t *value = json_object_get(args, name);
    return value && !json_is_null(value) ? value : NULL;
}

/* NULL when @value is no text and nothing that HCL would turn into text. */
static char *text_of(const json_t *value)
{
    if (json_is_string(value))
        return g_strdup(json_string_value(value));
    if (json_is_integer(value))
        return g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
    if (json_is_boolean(value))
        return g_strdup(json_is_true(value) ? "true" : "false");
    if (json_is_real(value)) {
        char buf[G_ASCII_DTOSTR_BUF_SIZE];
        return g_strdup(g_ascii_dtostr(buf, sizeof buf, json_real_value(value)));
    }
    return NULL;
}

static bool is_text(const json_t *value)
{
    return json_is_string(value) || json_is_number(value) || json_is_boolean(value);
}

/* A number, or a text of one; -1: neither. */
static gint64 code_of(const json_t *value)
{
    const char *text = json_string_value(value);
    gint64 code = -1;

    if (text && !g_ascii_string_to_signed(text, 10, 0, 255, &code, NULL))
        return -1;
    return json_is_integer(value) ? json_integer_value(value) : code;
}

static bool is_code(const json_t *value)
{
    return code_of(value) >= 0 && code_of(value) <= 255;
}

static bool each(const json_t *list, bool (*fn)(const json_t *value))
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!fn(json_array_get(list, i)))
            return false;
    return true;
}

static bool is_map(const json_t *value)
{
    const char *key;
    json_t *member;

    if (!json_is_object(value))
        return false;
    json_object_foreach((json_t *)value, key,
                        member) if (!is_text(member) && !json_is_null(member)) return false;
    return true;
}

static bool is_bool(const json_t *value)
{
    const char *text = json_string_value(value);
    return json_is_boolean(value) || (text && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0));
}

static bool is_duration(const json_t *value)
{
    g_autofree char *text = text_of(value);
    double seconds;
    return text && units_parse_duration(text, &seconds, NULL);
}

static bool has_type(const json_t *value, ArgumentType type)
{
    switch (type) {
    case ARGUMENT_TEXT:
        return is_text(value);
    case ARGUMENT_TEXTS:
        return is_text(value) || (json_is_array(value) && each(value, is_text));
    case ARGUMENT_BOOL:
        return is_bool(value);
    case ARGUMENT_CODES:
        return json_is_array(value) && each(value, is_code);
    case ARGUMENT_DURATION:
        return is_duration(value);
    case ARGUMENT_MAP:
        return is_map(value);
    }
    g_assert_not_reached();
}

static const char *const type_names[] = {
    [ARGUMENT_TEXT] = "a string",
    [ARGUMENT_TEXTS] = "a list of strings",
    [ARGUMENT_BOOL] = "true or false",
    [ARGUMENT_CODES] = "a list of exit codes from 0 to 255",
    [ARGUMENT_DURATION] = "a duration such as \"90s\" or \"5m\"",
    [ARGUMENT_MAP] = "an object whose values are strings",
};

bool arguments_check(const json_t *args, const ArgumentSpec *specs, const char **ret_argument, GError **error)
{
    for (const ArgumentSpec *s = specs; s->name; s++) {
        const json_t *value = get(args, s->name);
        if (value && !has_type(value, s->type)) {
            *ret_argument = s->name;
            return fail_code(error, KILN_ERROR_USAGE, "'%s' must be %s", s->name, type_names[s->type]);
        }
    }
    return true;
}

bool arguments_exactly_one(const json_t *args, const char *const *names, const char **ret_argument,
                           GError **error)
{
    g_autofree char *all = g_strjoinv(", ", (char **)names);
    const char *first = NULL;

    for (const char *const *n = names; *n; n++) {
        if (!argument_given(args, *n))
            continue;
        if (first) {
            *ret_argument = *n;
            return fail_code(error, KILN_ERROR_USAGE, "'%s' cannot stand beside '%s': give exactly one of %s",
                             *n, first, all);
        }
        first = *n;
    }
    return first ? true : fail_code(error, KILN_ERROR_USAGE, "one of %s is needed", all);
}

bool argument_given(const json_t *args, const char *name)
{
    return get(args, name) != NULL;
}

char *argument_text(const json_t *args, const char *name, const char *otherwise)
{
    const json_t *value = get(args, name);
    return value ? text_of(value) : g_strdup(otherwise);
}

char **argument_texts(const json_t *args, const char *name)
{
    const json_t *value = get(args, name);
    g_autoptr(GPtrArray) list = g_ptr_array_new();

    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++)
            g_ptr_array_add(list, text_of(json_array_get(value, i)));
    } else if (value) {
        g_ptr_array_add(list, text_of(value));
    }
    g_ptr_array_add(list, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&list), FALSE);
}

bool argument_bool(const json_t *args, const char *name, bool otherwise)
{
    const json_t *value = get(args, name);

    if (!value)
        return otherwise;
    return json_is_string(value) ? strcmp(json_string_value(value), "true") == 0 : json_is_true(value);
}

bool argument_code_is_valid(const json_t *args, const char *name, int code, char **ret_list)
{
    const json_t *codes = get(args, name);
    g_autoptr(GString) list = g_string_new(NULL);
    bool valid = false;

    for (size_t i = 0; i < json_array_size(codes); i++) {
        int one = (int)code_of(json_array_get(codes, i));
        valid = valid || one == code;
        g_string_append_printf(list, "%s%d", i ? ", " : "", one);
    }
    if (!json_array_size(codes)) { /* none given, or an empty list: Packer's default */
        valid = code == 0;
        g_string_append(list, "0");
    }
    *ret_list = g_string_free(g_steal_pointer(&list), FALSE);
    return valid;
}

static bool is_shell_name(const char *name, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!(g_ascii_isalpha(name[i]) || name[i] == '_' || (i && g_ascii_isdigit(name[i]))))
            return false;
    return size > 0;
}

bool arguments_check_environment(const json_t *args, const char **ret_argument, GError **error)
{
    g_auto(GStrv) list = argument_texts(args, "environment_vars");
    const char *key;
    json_t *value;

    for (char **v = list; *v; v++) {
        const char *equals = strchr(*v, '=');
        if (!equals || !is_shell_name(*v, (size_t)(equals - *v))) {
            *ret_argument = "environment_vars";
            return fail_code(error, KILN_ERROR_USAGE,
                             "'environment_vars' must hold \"NAME=value\", not \"%s\"", *v);
        }
    }
    json_object_foreach((json_t *)get(args, "env"), key, value) if (!is_shell_name(key, strlen(key)))
    {
        *ret_argument = "env";
        return fail_code(error, KILN_ERROR_USAGE, "\"%s\" in 'env' is no name of an environment variable",
                         key);
    }
    return true;
}

static int compare_keys(const void *a, const void *b, void *arg)
{
    return strcmp(a, b);
}

GTree *arguments_environment(const json_t *args)
{
    GTree *map = g_tree_new_full(compare_keys, NULL, g_free, g_free);
    g_auto(GStrv) list = argument_texts(args, "environment_vars");
    const char *key;
    json_t *value;

    for (char **v = list; *v; v++) {
        const char *equals = strchr(*v, '=');
        g_tree_replace(map, g_strndup(*v, (gsize)(equals - *v)), g_strdup(equals + 1));
    }
    json_object_foreach((json_t *)get(args, "env"), key, value) if (!json_is_null(value))
        g_tree_replace(map, g_strdup(key), text_of(value));
    return map;
}

static void set(GHashTable *values, const char *name, const char *value)
{
    if (value)
        g_hash_table_insert(values, (void *)name, g_strdup(value));
}

bool argument_expand(const char *text, const ProvisionerHost *host, const char *const *fields, char **ret,
                     GError **error)
{
    g_autoptr(GHashTable) values = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
    g_autofree char *stamp = g_strdup_printf("%" G_GINT64_FORMAT, host->epoch);

    if (!strstr(text, "{{")) { /* most texts */
        *ret = g_strdup(text);
        return true;
    }
    set(values, "build_name", host->build_name);
    set(values, "build_type", host->builder_type);
    set(values, "template_dir", host->template_dir);
    set(values, "pwd", host->cwd);
    set(values, "timestamp", stamp); /* never the wall clock: equal inputs give equal images */
    for (; fields && fields[0]; fields += 2)
        set(values, fields[0], fields[1]);
    return gotemplate_expand(text, values, ret, error);
}

bool argument_expanded(const json_t *args, const char *name, const char *otherwise,
                       const ProvisionerHost *host, const char *const *fields, char **ret, GError **error)
{
    g_autofree char *text = argument_text(args, name, otherwise);

    *ret = NULL;
    return !text || argument_expand(text, host, fields, ret, error) || fail_prefix(error, "'%s'", name);
}

bool argument_expanded_list(const json_t *args, const char *name, const ProvisionerHost *host, char ***ret,
                            GError **error)
{
    g_auto(GStrv) texts = argument_texts(args, name);

    for (char **one = texts; *one; one++) {
        char *expanded;

        if (!argument_expand(*one, host, NULL, &expanded, error))
            return fail_prefix(error, "'%s'", name);
        g_free(*one);
        *one = expanded;
    }
    *ret = g_steal_pointer(&texts);
    return true;
}
