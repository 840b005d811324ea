/* SPDX-License-Identifier: Apache-2.0 */
/*
 * yamldecode() and yamlencode(): the door to libyaml, which reads events and writes text; what a plain scalar means is
 * decided here, as Packer's reader does: yes, no, on, off, y and n are booleans too, 0755 is a decimal number, and a day is its midnight.
 */
#include "templates/language/functions.h"

#include "templates/language/json.h"
#include "templates/language/types.h"

#include <math.h>
#include <string.h>
#include <yaml.h>

enum { YAML_DEPTH_MAX = 200, YAML_NODES_MAX = 1000000 };

/* --- reading --- */

typedef struct Reader {
    Call *call;
    yaml_parser_t parser;
    GHashTable *anchors; /* name -> Value* */
    unsigned depth, nodes;
} Reader;

static Value *read_node(Reader *reader, yaml_event_t *event);

static Value *read_problem(Reader *reader)
{
    return call_fail(reader->call, 0, "this is no YAML: %s in line %zu", reader->parser.problem ? reader->parser.problem : "it can't be read",
                     reader->parser.problem_mark.line + 1);
}

static bool next_event(Reader *reader, yaml_event_t *event)
{
    if (yaml_parser_parse(&reader->parser, event))
        return true;
    (void)read_problem(reader);
    return false;
}

static bool is_word(const char *text, const char *lower)
{
    g_autofree char *title = g_strdup(lower), *upper = g_ascii_strup(lower, -1);

    title[0] = g_ascii_toupper(title[0]);
    return strcmp(text, lower) == 0 || strcmp(text, title) == 0 || strcmp(text, upper) == 0;
}

static const Number *plain_integer(Arena *arena, const char *text)
{
    static const struct {
        const char *prefix;
        int base;
    } bases[] = { { "0x", 16 }, { "0X", 16 }, { "0o", 8 }, { "0b", 2 }, { "0B", 2 }, { "", 10 } };
    const char *digits = text + (*text == '-' || *text == '+');

    for (size_t i = 0; i < G_N_ELEMENTS(bases); i++)
        if (g_str_has_prefix(digits, bases[i].prefix)) {
            g_autofree char *whole = NULL;
            int base = bases[i].base;

            digits += strlen(bases[i].prefix);
            if (!*digits || *digits == '+' || *digits == '-')
                return NULL;
            whole = g_strconcat(*text == '-' ? "-" : "", digits, NULL);
            return number_from_digits(arena, whole, base);
        }
    return NULL;
}

static Value *plain_scalar(Reader *reader, const char *text)
{
    static const struct {
        const char *word;
        bool meant;
    } booleans[] = { { "true", true }, { "false", false }, { "yes", true }, { "no", false },
                     { "on", true },   { "off", false },   { "y", true },   { "n", false } };
    Arena *arena = reader->call->arena;
    const Number *number;

    if (!*text || strcmp(text, "~") == 0 || is_word(text, "null"))
        return value_null(arena, &type_any);
    for (size_t i = 0; i < G_N_ELEMENTS(booleans); i++)
        if (is_word(text, booleans[i].word))
            return value_bool(arena, booleans[i].meant);
    if (g_regex_match_simple("^\\d{4}-\\d\\d-\\d\\d$", text, 0, 0))
        return value_string(arena, arena_printf(arena, "%sT00:00:00Z", text));
    if (strchr("+-.0123456789", *text) && strspn(text, "+-.0123456789eExXoObBabcdfABCDF") == strlen(text)) {
        number = plain_integer(arena, text);
        if (!number && g_regex_match_simple("^[-+]?(\\.[0-9]+|[0-9]+(\\.[0-9]*)?)([eE][-+]?[0-9]+)?$", text, 0, 0)) {
            g_autofree char *padded = g_strdup_printf("%s%s%s", *text == '-' ? "-" : "", strchr("+-", *text) ? (text[1] == '.' ? "0" : "") : *text == '.' ? "0" : "",
                                                      text + (*text == '-' || *text == '+'));
            g_auto(GStrv) parts = g_strsplit(padded, ".", 2);
            g_autofree char *whole = parts[1] && !g_ascii_isdigit(*parts[1]) ? g_strconcat(parts[0], parts[1], NULL) : g_strdup(padded);

            number = number_from_text(arena, whole);
        }
        if (number)
            return value_number(arena, number);
    }
    return value_string(arena, text);
}

static Value *read_scalar(Reader *reader, const yaml_event_t *event)
{
    const char *tag = (const char *)event->data.scalar.tag;
    const char *text = (const char *)event->data.scalar.value;
    const char *why = NULL;
    Value *value;

    if (strlen(text) != event->data.scalar.length)
        return call_fail(reader->call, 0, "a text in it holds a NUL character");
    if (tag && strcmp(tag, "tag:yaml.org,2002:binary") == 0)
        return value_string(reader->call->arena, text);
    if ((tag && strcmp(tag, "tag:yaml.org,2002:str") == 0) || (!tag && event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE))
        return value_string(reader->call->arena, text);
    value = plain_scalar(reader, text);
    if (tag && g_str_has_prefix(tag, "tag:yaml.org,2002:")) {
        const char *kind = tag + strlen("tag:yaml.org,2002:");
        const Type *type = strcmp(kind, "bool") == 0                                 ? &type_bool
                           : strcmp(kind, "int") == 0 || strcmp(kind, "float") == 0 ? &type_number
                                                                                     : NULL;

        if (type && !(value = value_convert(reader->call->arena, value, type, &why)))
            return call_fail(reader->call, 0, "'%s' is no %s", text, kind);
        return value;
    }
    return tag ? call_fail(reader->call, 0, "the tag '%s' is not known", tag) : value;
}

static Value *read_sequence(Reader *reader)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new();

    for (;;) {
        yaml_event_t event;
        Value *item;

        if (!next_event(reader, &event))
            return NULL;
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return value_tuple(reader->call->arena, (Value **)items->pdata, items->len);
        }
        item = read_node(reader, &event);
        yaml_event_delete(&event);
        if (!item)
            return NULL;
        g_ptr_array_add(items, item);
    }
}

/* "<<": the entries of a mapping, or of several, below those that are written out. */
static bool merge(Reader *reader, ValueFields *fields, const Value *from)
{
    bool ok = from->state == VALUE_KNOWN;

    if (ok && type_is_sequence(from->type)) {
        for (size_t i = 0; i < from->n && ok; i++)
            ok = merge(reader, fields, from->items[i]);
        return ok;
    }
    if (!ok || !type_is_mapping(from->type)) {
        (void)call_fail(reader->call, 0, "what '<<' merges must be a mapping");
        return false;
    }
    for (size_t i = 0; i < from->n; i++)
        if (!value_fields_has(fields, from->keys[i]))
            value_fields_put(fields, from->keys[i], from->items[i]);
    return true;
}

/* One "key: value"; 0 at the end, -1 after a diagnostic. */
static int read_entry(Reader *reader, ValueFields *fields, GPtrArray *merged)
{
    yaml_event_t event;
    Value *key, *value;
    const char *why = NULL;
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
    if (merging) {
        g_ptr_array_add(merged, value);
        return 1;
    }
    key = key->state == VALUE_KNOWN ? value_convert(reader->call->arena, key, &type_string, &why) : NULL;
    if (!key) {
        (void)call_fail(reader->call, 0, "a key of a mapping must be text");
        return -1;
    }
    value_fields_put(fields, key->string, value);
    return 1;
}

static Value *read_mapping(Reader *reader)
{
    g_autoptr(GPtrArray) merged = g_ptr_array_new();
    ValueFields fields;
    int more;
    Value *object;

    value_fields_init(&fields);
    while ((more = read_entry(reader, &fields, merged)) > 0)
        ;
    for (guint i = 0; i < merged->len && more == 0; i++)
        if (!merge(reader, &fields, merged->pdata[i]))
            more = -1;
    object = value_fields_object(&fields, reader->call->arena);
    return more == 0 ? object : NULL;
}

/* Values, counted as often as they would be written; stops at @most. */
static unsigned count_values(const Value *value, unsigned most)
{
    unsigned n = 1;

    for (size_t i = 0; i < value->n && n < most; i++)
        n += count_values(value->items[i], most - n);
    return n;
}

/* An alias costs what it stands for, so that a few lines can't stand for a billion values. */
static Value *read_alias(Reader *reader, const char *name)
{
    Value *value = g_hash_table_lookup(reader->anchors, name);

    if (value)
        reader->nodes += count_values(value, YAML_NODES_MAX);
    return value ? value : call_fail(reader->call, 0, "the alias '*%s' has no anchor before it", name);
}

static Value *read_node(Reader *reader, yaml_event_t *event)
{
    g_autofree char *anchor = NULL;
    Value *value = NULL;

    if (++reader->nodes > YAML_NODES_MAX || ++reader->depth > YAML_DEPTH_MAX)
        return call_fail(reader->call, 0, "this YAML is too large or nested too deep");
    if (event->type == YAML_ALIAS_EVENT) {
        value = read_alias(reader, (const char *)event->data.alias.anchor);
    } else if (event->type == YAML_SCALAR_EVENT) {
        anchor = g_strdup((const char *)event->data.scalar.anchor);
        value = read_scalar(reader, event);
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = g_strdup((const char *)event->data.sequence_start.anchor);
        value = read_sequence(reader);
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = g_strdup((const char *)event->data.mapping_start.anchor);
        value = read_mapping(reader);
    }
    if (value && anchor)
        g_hash_table_insert(reader->anchors, g_steal_pointer(&anchor), value);
    reader->depth--;
    return value;
}

/* Passes an event that must be of one of two types. */
static bool pass(Reader *reader, yaml_event_type_t first, yaml_event_type_t second, yaml_event_type_t *ret)
{
    yaml_event_t event;

    if (!next_event(reader, &event))
        return false;
    *ret = event.type;
    yaml_event_delete(&event);
    if (*ret == first || *ret == second)
        return true;
    (void)call_fail(reader->call, 0, "this YAML holds more than one document");
    return false;
}

static Value *read_document(Reader *reader)
{
    yaml_event_type_t type;
    yaml_event_t event;
    Value *value;

    if (!pass(reader, YAML_STREAM_START_EVENT, YAML_STREAM_START_EVENT, &type) ||
        !pass(reader, YAML_DOCUMENT_START_EVENT, YAML_STREAM_END_EVENT, &type))
        return NULL;
    if (type == YAML_STREAM_END_EVENT)
        return call_fail(reader->call, 0, "this YAML holds no document");
    if (!next_event(reader, &event))
        return NULL;
    value = read_node(reader, &event);
    yaml_event_delete(&event);
    if (!value || !pass(reader, YAML_DOCUMENT_END_EVENT, YAML_DOCUMENT_END_EVENT, &type) ||
        !pass(reader, YAML_STREAM_END_EVENT, YAML_STREAM_END_EVENT, &type))
        return NULL;
    return value;
}

static Value *fn_yamldecode(Call *call)
{
    const char *text = call->args[0]->string;
    g_autoptr(GHashTable) anchors = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    Reader reader = { .call = call, .anchors = anchors };
    Value *value;

    if (!yaml_parser_initialize(&reader.parser))
        return call_fail(call, -1, "there is no memory for it");
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, strlen(text));
    value = read_document(&reader);
    yaml_parser_delete(&reader.parser);
    return value;
}

/* --- writing --- */

static int append_bytes(void *out, unsigned char *bytes, size_t size)
{
    g_string_append_len(out, (const char *)bytes, (gssize)size);
    return 1;
}

static bool emit(yaml_emitter_t *emitter, yaml_event_t *event)
{
    return yaml_emitter_emit(emitter, event) != 0;
}

static bool write_scalar(yaml_emitter_t *emitter, const char *text, bool quoted, bool key)
{
    yaml_scalar_style_t style = !quoted                          ? YAML_PLAIN_SCALAR_STYLE
                                : !key && strchr(text, '\n')     ? YAML_LITERAL_SCALAR_STYLE
                                                                 : YAML_DOUBLE_QUOTED_SCALAR_STYLE;
    yaml_event_t event;

    return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text), 1, 1, style) &&
           emit(emitter, &event);
}

static bool write_value(yaml_emitter_t *emitter, const Value *value);

static bool write_items(yaml_emitter_t *emitter, const Value *value)
{
    bool mapping = type_is_mapping(value->type);
    yaml_event_t event;

    if (mapping ? !yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, value->n ? YAML_BLOCK_MAPPING_STYLE : YAML_FLOW_MAPPING_STYLE)
                : !yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
                                                        value->n ? YAML_BLOCK_SEQUENCE_STYLE : YAML_FLOW_SEQUENCE_STYLE))
        return false;
    if (!emit(emitter, &event))
        return false;
    for (size_t i = 0; i < value->n; i++)
        if ((mapping && !write_scalar(emitter, value->keys[i], true, true)) || !write_value(emitter, value->items[i]))
            return false;
    return (mapping ? yaml_mapping_end_event_initialize(&event) : yaml_sequence_end_event_initialize(&event)) && emit(emitter, &event);
}

static bool write_value(yaml_emitter_t *emitter, const Value *value)
{
    g_autofree char *text = NULL;

    if (value->state == VALUE_NULL)
        return write_scalar(emitter, "null", false, false);
    if (value->type->kind == TYPE_STRING)
        return write_scalar(emitter, value->string, true, false);
    if (!type_is_primitive(value->type))
        return write_items(emitter, value);
    text = value_to_json_text(value);
    return write_scalar(emitter, text, false, false);
}

static bool write_document(yaml_emitter_t *emitter, const Value *value)
{
    yaml_event_t event;

    return yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) && emit(emitter, &event) &&
           yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) && emit(emitter, &event) && write_value(emitter, value) &&
           yaml_document_end_event_initialize(&event, 1) && emit(emitter, &event) && yaml_stream_end_event_initialize(&event) &&
           emit(emitter, &event);
}

static Value *fn_yamlencode(Call *call)
{
    g_autoptr(GString) out = g_string_new(NULL);
    yaml_emitter_t emitter;
    bool ok;

    if (!yaml_emitter_initialize(&emitter))
        return call_fail(call, -1, "there is no memory for it");
    yaml_emitter_set_output(&emitter, append_bytes, out);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    ok = write_document(&emitter, call->args[0]);
    yaml_emitter_delete(&emitter);
    if (!ok)
        return call_fail(call, 0, "this can't be written as YAML");
    return value_string(call->arena, out->str);
}

const Function functions_yaml[] = {
    { "yamldecode", "s", fn_yamldecode, 0 },
    { "yamlencode", "A", fn_yamlencode, 0 },
    { 0 },
};
