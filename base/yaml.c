/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader over libyaml's events. Everything in it comes from outside: a document is bounded in bytes, depth and number of values.
 */
#include "base/yaml.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { TEXT_MAX = 16 << 20, DEPTH_MAX = 64, VALUES_MAX = 200000, TEXT_PIECE = 128 };

typedef struct Reader {
    yaml_parser_t parser;
    GHashTable *anchors; /* name -> json_t* */
    const char *what;
    unsigned depth, values;
    GError **error;
} Reader;

static const char too_much[] = "too many values, or nested too deep";

static json_t *read_node(Reader *reader, const yaml_event_t *event);

static json_t *problem(const Reader *reader, const char *text)
{
    (void)fail_code(reader->error, KILN_ERROR_USAGE, "%s is no YAML that can be read: %s in line %zu", reader->what, text,
                    reader->parser.mark.line + 1);
    return NULL;
}

static bool next_event(Reader *reader, yaml_event_t *event)
{
    if (yaml_parser_parse(&reader->parser, event))
        return true;
    (void)fail_code(reader->error, KILN_ERROR_USAGE, "%s is no YAML: %s in line %zu", reader->what,
                    reader->parser.problem ? reader->parser.problem : "it cannot be read", reader->parser.problem_mark.line + 1);
    return false;
}

static bool is_word(const char *text, const char *lower)
{
    g_autofree char *title = g_strdup(lower), *upper = g_ascii_strup(lower, -1);

    title[0] = g_ascii_toupper(title[0]);
    return strcmp(text, lower) == 0 || strcmp(text, title) == 0 || strcmp(text, upper) == 0;
}

/* PyYAML's int: decimal, 0x, 0b, 0 for octal; underscores anywhere. */
static bool is_integer(const char *text, json_int_t *ret)
{
    const char *digits = text + (*text == '-' || *text == '+');
    g_autofree char *clean = NULL;
    int base = 10;
    char *end;

    if (!g_ascii_isdigit(*digits))
        return false;
    clean = g_strdup(digits);
    for (char *from = clean, *to = clean; (*to = *from); from++)
        if (*from != '_')
            to++;
    digits = clean;
    if (g_str_has_prefix(digits, "0x"))
        base = 16;
    else if (g_str_has_prefix(digits, "0b"))
        base = 2;
    else if (*digits == '0' && digits[1])
        base = 8;
    digits += base == 16 || base == 2 ? 2 : 0;
    errno = 0;
    *ret = (json_int_t)g_ascii_strtoll(digits, &end, base);
    if (!*digits || *end || errno || *digits == '-' || *digits == '+')
        return false;
    *ret = *text == '-' ? -*ret : *ret;
    return true;
}

static bool is_real(const char *text, double *ret)
{
    char *end;

    if (!strchr(text, '.') || strspn(text, "+-.0123456789eE") != strlen(text) || !strpbrk(text, "0123456789"))
        return false;
    *ret = g_ascii_strtod(text, &end);
    return !*end && *ret - *ret == 0; /* finite */
}

static json_t *plain_scalar(const char *text)
{
    static const struct {
        const char *word;
        bool meant;
    } booleans[] = {{"true", true}, {"false", false}, {"yes", true}, {"no", false}, {"on", true}, {"off", false}};
    json_int_t integer;
    double real;

    if (!*text || strcmp(text, "~") == 0 || is_word(text, "null"))
        return json_null();
    for (size_t i = 0; i < G_N_ELEMENTS(booleans); i++)
        if (is_word(text, booleans[i].word))
            return json_boolean(booleans[i].meant);
    if (is_integer(text, &integer))
        return json_integer(integer);
    return is_real(text, &real) ? json_real(real) : json_string(text);
}

static json_t *read_scalar(Reader *reader, const yaml_event_t *event)
{
    const char *tag = (const char *)event->data.scalar.tag, *text = (const char *)event->data.scalar.value;
    json_t *value;

    if (strlen(text) != event->data.scalar.length)
        return problem(reader, "a NUL character");
    if (tag && strcmp(tag, "tag:yaml.org,2002:binary") == 0) {
        gsize size;
        g_autofree guchar *bytes = g_base64_decode(text, &size);

        value = json_stringn((const char *)bytes, size);
    } else if (tag ? strcmp(tag, "tag:yaml.org,2002:str") == 0 : event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) {
        value = json_string(text);
    } else {
        value = plain_scalar(text);
    }
    return value ? value : problem(reader, "a text that is not UTF-8");
}

static json_t *read_sequence(Reader *reader)
{
    g_autoptr(json_t) list = json_array();

    for (;;) {
        yaml_event_t event;
        json_t *item;

        if (!next_event(reader, &event))
            return NULL;
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return g_steal_pointer(&list);
        }
        item = read_node(reader, &event);
        yaml_event_delete(&event);
        if (!item)
            return NULL;
        (void)json_array_append_new(list, item);
    }
}

static char *key_text(const json_t *key)
{
    if (json_is_string(key))
        return g_strdup(json_string_value(key));
    if (json_is_integer(key))
        return g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(key));
    if (json_is_boolean(key))
        return g_strdup(json_is_true(key) ? "true" : "false");
    return json_is_null(key) ? g_strdup("null") : NULL;
}

/* "<<": what a mapping, or each of several, has and this one has not. */
static bool merge(Reader *reader, json_t *object, const json_t *from)
{
    json_t *one;
    size_t i;

    if (json_is_object(from))
        return json_object_update_missing(object, (json_t *)from) == 0;
    if (!json_is_array(from)) {
        (void)problem(reader, "'<<' without a mapping");
        return false;
    }
    json_array_foreach (from, i, one)
        if (!json_is_object(one) || json_object_update_missing(object, one) != 0) {
            (void)problem(reader, "'<<' without a mapping");
            return false;
        }
    return true;
}

/* One "key: value"; 0 at the end, -1 after an error. */
static int read_entry(Reader *reader, json_t *object, json_t *merged)
{
    g_autoptr(json_t) key = NULL, value = NULL;
    g_autofree char *name = NULL;
    yaml_event_t event;
    bool merging;

    if (!next_event(reader, &event))
        return -1;
    if (event.type == YAML_MAPPING_END_EVENT) {
        yaml_event_delete(&event);
        return 0;
    }
    merging = event.type == YAML_SCALAR_EVENT && event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
              strcmp((const char *)event.data.scalar.value, "<<") == 0;
    key = read_node(reader, &event);
    yaml_event_delete(&event);
    if (!key || !next_event(reader, &event))
        return -1;
    value = read_node(reader, &event);
    yaml_event_delete(&event);
    if (!value)
        return -1;
    name = merging ? NULL : key_text(key);
    if (!merging && !name) {
        (void)problem(reader, "a key that is no text");
        return -1;
    }
    (void)(merging ? json_array_append(merged, value) : json_object_set(object, name, value));
    return 1;
}

static json_t *read_mapping(Reader *reader)
{
    g_autoptr(json_t) object = json_object(), merged = json_array();
    json_t *one;
    size_t i;
    int more;

    while ((more = read_entry(reader, object, merged)) > 0)
        ;
    if (more < 0)
        return NULL;
    json_array_foreach (merged, i, one)
        if (!merge(reader, object, one))
            return NULL;
    return g_steal_pointer(&object);
}

/* What a copy of @value at @depth costs: its values, as often as they would be written, and a long text as several. */
static bool count_copy(Reader *reader, const json_t *value, unsigned depth)
{
    const char *key;
    json_t *one;
    size_t i;

    reader->values += 1 + (unsigned)(json_string_length(value) / TEXT_PIECE);
    if (reader->values > VALUES_MAX || depth >= DEPTH_MAX)
        return false;
    json_array_foreach ((json_t *)value, i, one)
        if (!count_copy(reader, one, depth + 1))
            return false;
    json_object_foreach ((json_t *)value, key, one) {
        reader->values += (unsigned)(strlen(key) / TEXT_PIECE);
        if (!count_copy(reader, one, depth + 1))
            return false;
    }
    return true;
}

static json_t *read_alias(Reader *reader, const char *name)
{
    json_t *value = g_hash_table_lookup(reader->anchors, name);

    if (!value)
        return problem(reader, "an alias without an anchor before it");
    return count_copy(reader, value, reader->depth - 1) ? json_deep_copy(value) : problem(reader, too_much);
}

static json_t *read_node(Reader *reader, const yaml_event_t *event)
{
    const char *anchor = NULL;
    json_t *value = NULL;

    if (++reader->values > VALUES_MAX || reader->depth >= DEPTH_MAX)
        return problem(reader, too_much);
    reader->depth++;
    if (event->type == YAML_ALIAS_EVENT) {
        value = read_alias(reader, (const char *)event->data.alias.anchor);
    } else if (event->type == YAML_SCALAR_EVENT) {
        anchor = (const char *)event->data.scalar.anchor;
        value = read_scalar(reader, event);
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = (const char *)event->data.sequence_start.anchor;
        value = read_sequence(reader);
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = (const char *)event->data.mapping_start.anchor;
        value = read_mapping(reader);
    } else {
        value = problem(reader, "something unexpected");
    }
    if (value && anchor)
        g_hash_table_insert(reader->anchors, g_strdup(anchor), json_incref(value));
    reader->depth--;
    return value;
}

static bool read_document(Reader *reader, json_t **ret)
{
    yaml_event_t event;
    bool begun = false, more = true;

    while (more) {
        if (!next_event(reader, &event))
            return false;
        switch (event.type) {
        case YAML_STREAM_START_EVENT:
            break;
        case YAML_DOCUMENT_START_EVENT:
            begun = true;
            break;
        case YAML_STREAM_END_EVENT:
            *ret = json_null();
            more = false;
            break;
        default:
            *ret = begun ? read_node(reader, &event) : problem(reader, "something unexpected");
            more = false;
        }
        yaml_event_delete(&event);
    }
    return *ret != NULL;
}

static void drop_value(gpointer value)
{
    json_decref(value);
}

bool yaml_parse(const char *text, size_t size, const char *what, json_t **ret, GError **error)
{
    g_autoptr(GHashTable) anchors = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, drop_value);
    Reader reader = {.anchors = anchors, .what = what, .error = error};
    bool ok;

    *ret = NULL;
    if (size > TEXT_MAX)
        return fail_code(error, KILN_ERROR_USAGE, "%s has more than %d bytes", what, TEXT_MAX);
    if (!yaml_parser_initialize(&reader.parser))
        return fail(error, "%s: no memory for its reader", what);
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, size);
    ok = read_document(&reader, ret);
    yaml_parser_delete(&reader.parser);
    return ok;
}
