/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block of a group file: look-ups that know types, bounds and defaults, and that tell a mistake with place and caret.
 */
#include "deploy/group-private.h"

#include "base/error.h"
#include "base/units.h"

#include <math.h>
#include <string.h>

void part_wrong(const GroupPart *part, const char *argument, const char *format, ...)
{
    GroupReader *reader = part->reader;
    g_autofree char *path = NULL, *sentence = NULL;
    g_autoptr(GError) problem = NULL;
    va_list args;

    va_start(args, format);
    sentence = g_strdup_vprintf(format, args);
    va_end(args);
    if (reader->count++ >= GROUP_MISTAKES_MAX)
        return;
    if (*part->path && argument)
        path = g_strconcat(part->path, ".", argument, NULL);
    else
        path = g_strdup(*part->path ? part->path : argument);
    (void)template_complain(reader->block, path, &problem, "%s", sentence);
    g_string_append_printf(reader->mistakes, "%s%s", reader->mistakes->len > 0 ? "\n" : "", problem->message);
}

void part_only(const GroupPart *part, const char *const *allowed)
{
    const char *key, *near;
    json_t *value;

    json_object_foreach ((json_t *)part->object, key, value) {
        if (strcmp(key, TEMPLATE_LABEL) == 0 || g_strv_contains(allowed, key))
            continue;
        near = units_nearest(key, allowed);
        if (near)
            part_wrong(part, key, "%s has no '%s'; did you mean '%s'?", part->name, key, near);
        else
            part_wrong(part, key, "%s has no '%s'", part->name, key);
    }
}

/* --- blocks --- */

static bool are_blocks(const json_t *value, bool labelled)
{
    size_t index;
    json_t *one;

    if (!json_is_array(value) || json_array_size(value) == 0)
        return false;
    json_array_foreach (value, index, one)
        if (!json_is_object(one) || (labelled && !json_object_get(one, TEMPLATE_LABEL)))
            return false;
    return true;
}

size_t part_blocks(const GroupPart *part, const char *type, bool labelled)
{
    const json_t *value = json_object_get(part->object, type);

    if (!value || are_blocks(value, labelled))
        return json_array_size(value);
    part_wrong(part, type, "'%s' is a block, written %s%s { ... }", type, type, labelled ? " \"NAME\"" : "");
    return 0;
}

void part_block_at(const GroupPart *part, const char *type, size_t index, GroupPart *ret)
{
    const json_t *object = json_array_get(json_object_get(part->object, type), index);
    const char *label = json_string_value(json_object_get(object, TEMPLATE_LABEL));

    *ret = (GroupPart){.reader = part->reader, .object = object, .label = label};
    (void)g_snprintf(ret->path, sizeof ret->path, "%s%s%s[%zu]", part->path, *part->path ? "." : "", type, index);
    if (label)
        (void)g_snprintf(ret->name, sizeof ret->name, "%s \"%.32s\"", type, label);
    else
        (void)g_snprintf(ret->name, sizeof ret->name, "'%s'", type);
}

void part_block(const GroupPart *part, const char *type, bool labelled, GroupPart *ret)
{
    GroupPart second;
    size_t count = part_blocks(part, type, labelled);

    part_block_at(part, type, 0, ret);
    if (count == 0)
        ret->object = NULL; /* also where something else has the name */
    if (count < 2)
        return;
    part_block_at(part, type, 1, &second);
    part_wrong(&second, NULL, "%s has one block '%s', and this is a second one", part->name, type);
}

/* --- values --- */

static const json_t *part_get(const GroupPart *part, const char *argument)
{
    return json_object_get(part->object, argument);
}

bool part_has(const GroupPart *part, const char *argument)
{
    return part_get(part, argument) != NULL;
}

bool group_text_is_plain(const char *text, size_t max)
{
    size_t length = strlen(text);

    if (length == 0 || length > max || g_ascii_isspace(text[0]) || g_ascii_isspace(text[length - 1]))
        return false;
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return false;
    return true;
}

const char *part_string(const GroupPart *part, const char *argument, const char *otherwise)
{
    const json_t *value = part_get(part, argument);

    if (!value)
        return otherwise;
    if (json_is_string(value) && json_string_length(value) > 0 && strlen(json_string_value(value)) == json_string_length(value))
        return json_string_value(value);
    part_wrong(part, argument, "'%s' must be a text", argument);
    return otherwise;
}

bool part_bool(const GroupPart *part, const char *argument, bool otherwise)
{
    const json_t *value = part_get(part, argument);

    if (!value || json_is_boolean(value))
        return value ? json_is_true(value) : otherwise;
    part_wrong(part, argument, "'%s' must be true or false", argument);
    return otherwise;
}

/* Whole numbers may come as text, as HCL converts them. */
static bool get_whole(const json_t *value, int64_t *ret)
{
    const char *text = json_string_value(value);
    char *end = NULL;

    if (json_is_integer(value)) {
        *ret = json_integer_value(value);
        return true;
    }
    if (!text || !g_ascii_isdigit(*text) || strlen(text) > 15)
        return false;
    *ret = g_ascii_strtoll(text, &end, 10);
    return !*end;
}

unsigned part_count(const GroupPart *part, const char *argument, unsigned otherwise, unsigned min, unsigned max)
{
    const json_t *value = part_get(part, argument);
    int64_t number;

    if (!value)
        return otherwise;
    if (get_whole(value, &number) && number >= min && number <= max)
        return (unsigned)number;
    part_wrong(part, argument, "'%s' must be a whole number from %u to %u", argument, min, max);
    return otherwise;
}

double part_number(const GroupPart *part, const char *argument, double otherwise, double min, double max)
{
    const json_t *value = part_get(part, argument);

    if (!value)
        return otherwise;
    if (json_is_number(value) && json_number_value(value) >= min && json_number_value(value) <= max)
        return json_number_value(value);
    part_wrong(part, argument, "'%s' must be a number from %g to %g", argument, min, max);
    return otherwise;
}

double part_duration(const GroupPart *part, const char *argument, double otherwise, double min, double max)
{
    const json_t *value = part_get(part, argument);
    g_autofree char *shown = NULL;
    double seconds = json_is_number(value) ? json_number_value(value) : -1;

    if (!value)
        return otherwise;
    if (json_is_string(value) && !units_parse_duration(json_string_value(value), &seconds, NULL))
        seconds = -1;
    if (!(seconds >= 0) || !isfinite(seconds)) {
        part_wrong(part, argument, "'%s' must be a duration, like \"90s\" or \"5m\"", argument);
        return otherwise;
    }
    if (seconds >= min && seconds <= max)
        return seconds;
    shown = units_format_duration(seconds < min ? min : max);
    part_wrong(part, argument, "'%s' must be a duration of at %s %s", argument, seconds < min ? "least" : "most", shown);
    return otherwise;
}

uint64_t part_size(const GroupPart *part, const char *argument, uint64_t otherwise, uint64_t min, uint64_t max)
{
    const json_t *value = part_get(part, argument);
    g_autofree char *least = units_format_size(min), *most = units_format_size(max);
    uint64_t bytes = 0;

    if (!value)
        return otherwise;
    if (json_is_integer(value) && json_integer_value(value) >= 0)
        bytes = (uint64_t)json_integer_value(value);
    else if (!json_is_string(value) || !units_parse_size(json_string_value(value), &bytes, NULL)) {
        part_wrong(part, argument, "'%s' must be a size, like \"512M\" or \"2G\"", argument);
        return otherwise;
    }
    if (bytes >= min && bytes <= max)
        return bytes;
    part_wrong(part, argument, "'%s' must be a size from %s to %s", argument, least, most);
    return otherwise;
}

char **part_strings(const GroupPart *part, const char *argument)
{
    const json_t *value = part_get(part, argument), *item;
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
    size_t index;

    if (!value)
        return NULL;
    if (!json_is_array(value) || json_array_size(value) > GROUP_LIST_MAX) {
        part_wrong(part, argument, "'%s' must be a list of texts, at most %d", argument, GROUP_LIST_MAX);
        return NULL;
    }
    json_array_foreach (value, index, item) {
        const char *text = json_string_value(item);

        if (text && *text && strlen(text) == json_string_length(item)) {
            g_ptr_array_add(list, g_strdup(text));
            continue;
        }
        part_wrong(part, argument, "'%s' must be a list of texts, but element %zu is none", argument, index + 1);
        return NULL;
    }
    g_ptr_array_add(list, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&list), FALSE);
}

unsigned part_word(const GroupPart *part, const char *argument, const char *const *words, unsigned otherwise)
{
    const char *word = part_string(part, argument, NULL), *near;
    g_autofree char *list = NULL;

    if (!word)
        return otherwise;
    for (unsigned i = 0; words[i]; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    near = units_nearest(word, words);
    list = g_strjoinv("' or '", (char **)words);
    if (near)
        part_wrong(part, argument, "'%s' is '%s', not '%s'; did you mean '%s'?", argument, list, word, near);
    else
        part_wrong(part, argument, "'%s' is '%s', not '%s'", argument, list, word);
    return otherwise;
}
