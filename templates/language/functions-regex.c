/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regex(), regexall(), regex_replace(). Patterns go to GLib's engine (PCRE), which accepts what Packer's
 * (RE2) does; what only PCRE has is refused, and a match that takes too many steps is an error, where RE2 would always
 * end. $1 and ${name} in a replacement are Go's form, not GLib's.
 */
#include "templates/language/functions.h"

#include "templates/language/types.h"

#include <string.h>

enum { MATCHES_MAX = 1000000 };

/* What RE2 does not have: looking around, references to a group, atomic groups, recursion. NULL when there is none. */
static const char *beyond_re2(const char *pattern)
{
    bool in_class = false;

    for (const char *p = pattern; *p; p++) {
        if (*p == '\\' && p[1]) {
            p++;
            if (!in_class && *p == 'C')
                return "\\C";
            if (!in_class && (strchr("123456789", *p) || *p == 'k' || *p == 'g'))
                return "a reference to a group";
        } else if (in_class) {
            in_class = *p != ']';
        } else if (*p == '[') {
            in_class = true;
            p += p[1] == '^';
            p += p[1] == ']';
        } else if (p[0] == '(' && p[1] == '*') {
            return "(*";
        } else if (p[0] == '(' && p[1] == '?' && p[2] && (strchr("=!>|&+(#R", p[2]) || (p[2] == '<' && p[3] && strchr("=!", p[3])))) {
            return "looking around, or an atomic group";
        }
    }
    return NULL;
}

/* GLib's sentence begins with the pattern, which here has limits before it that nobody wrote. */
static const char *pattern_problem(const char *message)
{
    const char *problem = strstr(message, "\u2019 at char ");

    problem = problem ? strstr(problem, ": ") : NULL;
    return problem ? problem + 2 : message;
}

/* The limit is on steps of the engine, not on time, so that a pattern works everywhere or nowhere. */
static GRegex *compile(Call *call, size_t arg)
{
    const char *beyond = beyond_re2(call->args[arg]->string);
    g_autofree char *limited = g_strconcat("(*LIMIT_MATCH=2000000)(*LIMIT_DEPTH=20000)", call->args[arg]->string, NULL);
    g_autoptr(GError) error = NULL;
    GRegex *regex;

    if (beyond) {
        (void)call_fail(call, (int)arg, "this pattern has %s, which the language's regular expressions (RE2) do not have", beyond);
        return NULL;
    }
    regex = g_regex_new(limited, 0, 0, &error);

    if (!regex)
        (void)call_fail(call, (int)arg, "this is no regular expression: %s", pattern_problem(error->message));
    return regex;
}

static Value *group_value(Call *call, const GMatchInfo *match, int group)
{
    g_autofree char *text = NULL;
    int start, end;

    if (!g_match_info_fetch_pos(match, group, &start, &end) || start < 0)
        return value_null(call->arena, &type_string);
    text = g_match_info_fetch(match, group);
    return value_string(call->arena, text);
}

/* Names of named groups: GLib does not list them, so they are found in the pattern. */
static GPtrArray *group_names(const char *pattern)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);

    for (const char *p = pattern; (p = strstr(p, "(?")); p += 2) {
        const char *from = p[2] == 'P' && p[3] == '<' ? p + 4 : p[2] == '<' && g_ascii_isalpha(p[3]) ? p + 3 : NULL;
        const char *to = from ? strchr(from, '>') : NULL;

        if (to && !(p > pattern && p[-1] == '\\'))
            g_ptr_array_add(names, g_strndup(from, (gsize)(to - from)));
    }
    return names;
}

/* No group: the match; unnamed groups: a list; named ones: an object. */
static Value *match_value(Call *call, GRegex *regex, const GMatchInfo *match, const GPtrArray *names)
{
    int groups = g_regex_get_capture_count(regex);
    g_autofree Value **items = g_new0(Value *, groups + 1);
    ValueFields fields;

    if (groups == 0)
        return group_value(call, match, 0);
    if (names->len > 0 && (int)names->len != groups)
        return call_fail(call, 0, "either all groups of a pattern have names or none");
    if (names->len > 0) {
        value_fields_init(&fields);
        for (guint i = 0; i < names->len; i++) {
            int number = g_regex_get_string_number(regex, names->pdata[i]);

            if (number > 0)
                value_fields_put(&fields, names->pdata[i], group_value(call, match, number));
        }
        return value_fields_object(&fields, call->arena);
    }
    for (int i = 0; i < groups; i++)
        items[i] = group_value(call, match, i + 1);
    return value_tuple(call->arena, items, (size_t)groups);
}

static Value *fn_regex(Call *call)
{
    g_autoptr(GRegex) regex = compile(call, 0);
    g_autoptr(GMatchInfo) match = NULL;
    g_autoptr(GPtrArray) names = group_names(call->args[0]->string);
    g_autoptr(GError) error = NULL;

    if (!regex)
        return NULL;
    if (!g_regex_match_full(regex, call->args[1]->string, -1, 0, 0, &match, &error))
        return call_fail(call, 1, error ? "matching took too long" : "the pattern does not match this text");
    return match_value(call, regex, match, names);
}

static Value *fn_regexall(Call *call)
{
    g_autoptr(GRegex) regex = compile(call, 0);
    g_autoptr(GMatchInfo) match = NULL;
    g_autoptr(GPtrArray) names = group_names(call->args[0]->string);
    g_autoptr(GPtrArray) items = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    int last_end = -1;

    if (!regex)
        return NULL;
    (void)g_regex_match_full(regex, call->args[1]->string, -1, 0, 0, &match, &error);
    while (!error && g_match_info_matches(match) && items->len < MATCHES_MAX) {
        int start, end;
        bool adjacent = !g_match_info_fetch_pos(match, 0, &start, &end) || (start == end && start == last_end);
        Value *item = adjacent ? NULL : match_value(call, regex, match, names); /* as Go: nothing right behind a match is none */

        if (!adjacent && !item)
            return NULL;
        if (item)
            g_ptr_array_add(items, item);
        last_end = end;
        (void)g_match_info_next(match, &error);
    }
    if (error)
        return call_fail(call, 1, "matching took too long");
    return value_listed(call->arena, (Value **)items->pdata, items->len);
}

/* Go's templates: $1 and $name take the longest name, ${name} says where it ends, $$ is a dollar. */
static void append_reference(GString *out, const GMatchInfo *match, const char **at)
{
    const char *p = *at + 1;
    bool braces = *p == '{';
    const char *from = braces ? p + 1 : p;
    const char *to = from;
    g_autofree char *name = NULL;
    g_autofree char *value = NULL;

    while (g_ascii_isalnum(*to) || *to == '_')
        to++;
    if (to == from || (braces && *to != '}')) {
        g_string_append_c(out, '$');
        *at += *p == '$' ? 2 : 1;
        return;
    }
    name = g_strndup(from, (gsize)(to - from));
    if (strspn(name, "0123456789") == strlen(name))
        value = strlen(name) < 5 ? g_match_info_fetch(match, atoi(name)) : NULL;
    else if (!g_ascii_isdigit(*name))
        value = g_match_info_fetch_named(match, name);
    g_string_append(out, value ? value : "");
    *at = to + braces;
}

static gboolean replace_one(const GMatchInfo *match, GString *out, gpointer with)
{
    const char *p = with;

    while (*p)
        if (*p == '$')
            append_reference(out, match, &p);
        else
            g_string_append_c(out, *p++);
    return FALSE;
}

static Value *fn_regex_replace(Call *call)
{
    g_autoptr(GRegex) regex = compile(call, 1);
    g_autoptr(GError) error = NULL;
    g_autofree char *result = NULL;

    if (!regex)
        return NULL;
    result = g_regex_replace_eval(regex, call->args[0]->string, -1, 0, 0, replace_one, (gpointer)call->args[2]->string,
                                  &error);
    return result ? value_string(call->arena, result) : call_fail(call, 0, "matching took too long");
}

const Function functions_regex[] = {
    { "regex", "ss", fn_regex, 0 },
    { "regexall", "ss", fn_regexall, 0 },
    { "regex_replace", "sss", fn_regex_replace, 0 },
    { 0 },
};
