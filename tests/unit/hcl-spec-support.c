/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Specifications: reading one, what it lets a body hold, and decoding.
 */
#include "hcl-spec-support.h"

#include "templates/language/json.h"

#include <string.h>

typedef enum SpecKind { OBJECT, ARRAY, ATTR, BLOCK, BLOCK_LIST, BLOCK_SET, BLOCK_MAP, BLOCK_ATTRS, LITERAL, DEFAULT, TRANSFORM } SpecKind;

static const char *const kinds[] = { "object",      "array",   "attr",    "block",     "block_list", "block_set", "block_map",
                                     "block_attrs", "literal", "default", "transform", NULL };

enum { CHILDREN_MAX = 100, LABELS_MAX = BODY_LABELS_MAX };

struct HclSpec {
    SpecKind kind;
    const char *key;   /* in an object */
    const char *name;  /* of the attribute or block type in the body */
    const Type *type;
    bool required;
    size_t n_labels;
    int64_t least, most; /* blocks; most 0: any */
    Value *literal;
    const Expr *result;
    HclSpec *children[CHILDREN_MAX];
    size_t n_children;
};

/* What a body may hold, from all of its specification outside of inner blocks. */
typedef struct Allowed {
    GPtrArray *attributes; /* of char * */
    GPtrArray *blocks;     /* of const HclSpec * */
} Allowed;

/* --- reading a specification --- */

static EvalContext context_of(const Scope *scope, Diagnostics *diagnostics)
{
    return (EvalContext){ .arena = diagnostics->arena, .diagnostics = diagnostics, .scope = scope, .base_dir = "." };
}

static Value *argument(const Body *body, const char *name, const Type *type, EvalContext *context)
{
    const Attribute *attribute = body_attribute(body, name);
    Value *value = attribute ? eval_as(context, attribute->expr, type, name) : NULL;

    return value && value->state == VALUE_KNOWN ? value : NULL;
}

static const Type *type_argument(const Body *body, const char *name, EvalContext *context)
{
    const Attribute *attribute = body_attribute(body, name);

    return attribute ? type_parse(context, attribute->expr) : &type_any;
}

static int64_t count_argument(const Body *body, const char *name, EvalContext *context)
{
    Value *value = argument(body, name, &type_number, context);
    int64_t count = 0;

    return value && number_to_int(value->number, &count) ? count : 0;
}

static HclSpec *read_spec(const Block *block, EvalContext *context);

static void read_children(HclSpec *spec, const Body *body, EvalContext *context)
{
    for (size_t i = 0; i < body->n_blocks && spec->n_children < CHILDREN_MAX; i++) {
        HclSpec *child = read_spec(body->blocks[i], context);

        if (child)
            spec->children[spec->n_children++] = child;
    }
}

static HclSpec *read_spec(const Block *block, EvalContext *context)
{
    HclSpec *spec = arena_new0(context->arena, HclSpec, 1);
    const Body *body = block->body;
    const Attribute *result = body_attribute(body, "result");
    Value *value;

    while (kinds[spec->kind] && strcmp(kinds[spec->kind], block->type) != 0)
        spec->kind++;
    if (!kinds[spec->kind]) {
        diagnose(context->diagnostics, block->type_range, "a specification has no block '%s'", block->type);
        return NULL;
    }
    spec->key = spec->name = block->n_labels ? block->labels[0] : NULL;
    if ((value = argument(body, spec->kind == ATTR ? "name" : "block_type", &type_string, context)))
        spec->name = value->string;
    spec->type = type_argument(body, spec->kind == BLOCK_ATTRS ? "element_type" : "type", context);
    spec->required = (value = argument(body, "required", &type_bool, context)) && value->boolean;
    spec->least = count_argument(body, "min_items", context);
    spec->most = count_argument(body, "max_items", context);
    if (spec->kind == BLOCK_MAP && (value = argument(body, "labels", type_list_of(context->arena, &type_string), context)))
        spec->n_labels = MIN(value->n, (size_t)LABELS_MAX);
    if (spec->kind == LITERAL && body_attribute(body, "value"))
        spec->literal = eval_expr(context, body_attribute(body, "value")->expr);
    spec->result = result ? result->expr : NULL;
    read_children(spec, body, context);
    if (!spec->type)
        spec->type = &type_any;
    if (!spec->literal)
        spec->literal = value_null(context->arena, &type_any);
    return spec;
}

/* variables { NAME = VALUE } */
static void read_variables(const Body *body, Scope *scope, EvalContext *context)
{
    const char **names = arena_new0(context->arena, const char *, body->n_attributes);
    Value **values = arena_new0(context->arena, Value *, body->n_attributes);

    for (size_t i = 0; i < body->n_attributes; i++) {
        names[i] = body->attributes[i]->name;
        values[i] = eval_expr(context, body->attributes[i]->expr);
    }
    *scope = (Scope){ .names = names, .values = values, .n = body->n_attributes };
}

HclSpec *hcl_spec_load(const Source *source, Diagnostics *diagnostics, Scope **ret_scope)
{
    static const Scope nothing = { 0 };
    EvalContext context = context_of(&nothing, diagnostics);
    Body *body = parse_body(source, diagnostics);
    HclSpec *spec = NULL;

    *ret_scope = arena_new0(diagnostics->arena, Scope, 1);
    for (size_t i = 0; i < body->n_blocks; i++) {
        if (strcmp(body->blocks[i]->type, "variables") == 0)
            read_variables(body->blocks[i]->body, *ret_scope, &context);
        else if (!spec)
            spec = read_spec(body->blocks[i], &context);
    }
    if (!spec && diagnostics->count == 0)
        diagnose(diagnostics, body->range, "the specification is empty");
    return diagnostics->count == 0 ? spec : NULL;
}

/* --- what a body may hold --- */

static void collect_allowed(const HclSpec *spec, Allowed *allowed)
{
    if (spec->kind == ATTR)
        g_ptr_array_add(allowed->attributes, (gpointer)spec->name);
    else if (spec->kind >= BLOCK && spec->kind <= BLOCK_ATTRS)
        g_ptr_array_add(allowed->blocks, (gpointer)spec);
    else
        for (size_t i = 0; i < spec->n_children; i++)
            collect_allowed(spec->children[i], allowed);
}

static Allowed allowed_by(HclSpec *const *specs, size_t n)
{
    Allowed allowed = { g_ptr_array_new(), g_ptr_array_new() };

    for (size_t i = 0; i < n; i++)
        collect_allowed(specs[i], &allowed);
    return allowed;
}

static void allowed_clear(Allowed *allowed)
{
    g_ptr_array_unref(allowed->attributes);
    g_ptr_array_unref(allowed->blocks);
}

static bool allows_attribute(const Allowed *allowed, const char *name)
{
    for (guint i = 0; i < allowed->attributes->len; i++)
        if (g_strcmp0(allowed->attributes->pdata[i], name) == 0)
            return true;
    return false;
}

static const HclSpec *allows_block(const Allowed *allowed, const char *type)
{
    for (guint i = 0; i < allowed->blocks->len; i++)
        if (g_strcmp0(((const HclSpec *)allowed->blocks->pdata[i])->name, type) == 0)
            return allowed->blocks->pdata[i];
    return NULL;
}

static void check_allowed(const Body *body, const Allowed *allowed, Diagnostics *diagnostics)
{
    for (size_t i = 0; i < body->n_attributes; i++)
        if (!allows_attribute(allowed, body->attributes[i]->name))
            diagnose(diagnostics, body->attributes[i]->name_range, "an argument '%s' is not expected here", body->attributes[i]->name);
    for (size_t i = 0; i < body->n_blocks; i++) {
        const Block *block = body->blocks[i];
        const HclSpec *spec = allows_block(allowed, block->type);

        if (!spec)
            diagnose(diagnostics, block->type_range, "a block '%s' is not expected here", block->type);
        else if (block->n_labels != spec->n_labels)
            diagnose(diagnostics, block->header, "the block '%s' has %zu labels here", block->type, spec->n_labels);
    }
}

/* JSON does not say what is a block. */
static const BodySchema *schema_of(HclSpec *const *specs, size_t n, Arena *arena)
{
    Allowed allowed = allowed_by(specs, n);
    BodySchema *schema = arena_new0(arena, BodySchema, allowed.blocks->len + 1);

    for (guint i = 0; i < allowed.blocks->len; i++) {
        const HclSpec *spec = allowed.blocks->pdata[i];

        schema[i] = (BodySchema){ spec->name, spec->n_labels, schema_of(spec->children, spec->n_children, arena) };
    }
    allowed_clear(&allowed);
    return schema;
}

Body *hcl_spec_parse(const HclSpec *spec, const Source *source, Diagnostics *diagnostics)
{
    HclSpec *root = (HclSpec *)spec;

    if (g_str_has_suffix(source->name, ".json"))
        return parse_json_body(source, schema_of(&root, 1, diagnostics->arena), diagnostics);
    return parse_body(source, diagnostics);
}

/* --- decoding --- */

static Value *decode(const HclSpec *spec, const Body *body, const Block *block, EvalContext *context);

/* A body whose whole content @specs describe; of one the value, of several the first. */
static Value *decode_body(HclSpec *const *specs, size_t n, const Body *body, const Block *block, EvalContext *context)
{
    Allowed allowed = allowed_by(specs, n);
    Value *value = n > 0 ? decode(specs[0], body, block, context) : value_null(context->arena, &type_any);

    check_allowed(body, &allowed, context->diagnostics);
    allowed_clear(&allowed);
    return value;
}

static Value *decode_object(const HclSpec *spec, const Body *body, const Block *block, EvalContext *context)
{
    ValueFields fields;

    value_fields_init(&fields);
    for (size_t i = 0; i < spec->n_children; i++)
        value_fields_put(&fields, spec->children[i]->key ? spec->children[i]->key : "", decode(spec->children[i], body, block, context));
    return value_fields_object(&fields, context->arena);
}

static Value *decode_array(const HclSpec *spec, const Body *body, const Block *block, EvalContext *context)
{
    Value *items[CHILDREN_MAX];

    for (size_t i = 0; i < spec->n_children; i++)
        items[i] = decode(spec->children[i], body, block, context);
    return value_tuple(context->arena, items, spec->n_children);
}

static Range missing_range(const Body *body, const Block *block)
{
    return block ? block->header : (Range){ body->range.source, body->range.start, body->range.start };
}

static Value *decode_attr(const HclSpec *spec, const Body *body, const Block *block, EvalContext *context)
{
    const Attribute *attribute = body_attribute(body, spec->name);
    Value *value;

    if (!attribute) {
        if (spec->required)
            diagnose(context->diagnostics, missing_range(body, block), "the argument '%s' is required", spec->name);
        return value_null(context->arena, spec->type);
    }
    value = eval_as(context, attribute->expr, spec->type, spec->name);
    return value ? value : value_unknown(context->arena, spec->type);
}

static GPtrArray *blocks_of(const HclSpec *spec, const Body *body)
{
    GPtrArray *found = g_ptr_array_new();

    for (size_t i = 0; i < body->n_blocks; i++)
        if (g_strcmp0(body->blocks[i]->type, spec->name) == 0)
            g_ptr_array_add(found, body->blocks[i]);
    return found;
}

static void check_count(const HclSpec *spec, const GPtrArray *blocks, const Body *body, const Block *block, EvalContext *context)
{
    bool one = spec->kind == BLOCK || spec->kind == BLOCK_ATTRS;
    int64_t least = one ? spec->required : spec->least, most = one ? 1 : spec->most;

    if ((int64_t)blocks->len < least)
        diagnose(context->diagnostics, missing_range(body, block), "at least %d block(s) '%s' are required", (int)least, spec->name);
    else if (most > 0 && (int64_t)blocks->len > most)
        diagnose(context->diagnostics, ((Block *)blocks->pdata[most])->header, "no more than %d block(s) '%s' are allowed", (int)most,
                 spec->name);
}

static Value *decode_inner(const HclSpec *spec, const Block *block, EvalContext *context)
{
    return decode_body(spec->children, spec->n_children, block->body, block, context);
}

static Value *decode_block_attrs(const HclSpec *spec, const Block *block, EvalContext *context)
{
    ValueFields fields;

    value_fields_init(&fields);
    for (size_t i = 0; i < block->body->n_attributes; i++) {
        const Attribute *attribute = block->body->attributes[i];
        Value *value = eval_as(context, attribute->expr, spec->type, attribute->name);

        if (value)
            value_fields_put(&fields, attribute->name, value);
    }
    return value_fields_map(&fields, context->arena, spec->type);
}

static Value *decode_list(const HclSpec *spec, const GPtrArray *blocks, EvalContext *context)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new();
    const char *why = NULL;
    Value *list;

    for (guint i = 0; i < blocks->len; i++)
        g_ptr_array_add(items, decode_inner(spec, blocks->pdata[i], context));
    list = value_listed(context->arena, (Value **)items->pdata, items->len);
    return spec->kind == BLOCK_SET ? value_convert(context->arena, list, type_set_of(context->arena, &type_any), &why) : list;
}

/* One level of labels; the blocks that share a label go to the next level together. */
static Value *decode_map(const HclSpec *spec, const GPtrArray *blocks, size_t level, EvalContext *context)
{
    ValueFields fields;
    const char *why = NULL;

    value_fields_init(&fields);
    for (guint i = 0; i < blocks->len; i++) {
        const Block *block = blocks->pdata[i];
        const char *label = level < block->n_labels ? block->labels[level] : "";
        g_autoptr(GPtrArray) same = g_ptr_array_new();

        if (value_fields_has(&fields, label))
            continue;
        for (guint j = i; j < blocks->len; j++)
            if (level < ((Block *)blocks->pdata[j])->n_labels && strcmp(((Block *)blocks->pdata[j])->labels[level], label) == 0)
                g_ptr_array_add(same, blocks->pdata[j]);
        if (same->len > 1 && level + 1 == spec->n_labels)
            diagnose(context->diagnostics, ((Block *)same->pdata[1])->header, "two blocks '%s' have the label '%s'", spec->name, label);
        value_fields_put(&fields, label, level + 1 < spec->n_labels ? decode_map(spec, same, level + 1, context)
                                                                    : decode_inner(spec, block, context));
    }
    return value_convert(context->arena, value_fields_object(&fields, context->arena), type_map_of(context->arena, &type_any), &why);
}

static Value *decode_blocks(const HclSpec *spec, const Body *body, const Block *block, EvalContext *context)
{
    g_autoptr(GPtrArray) blocks = blocks_of(spec, body);
    Value *value = NULL;

    check_count(spec, blocks, body, block, context);
    if (spec->kind == BLOCK_LIST || spec->kind == BLOCK_SET)
        value = decode_list(spec, blocks, context);
    else if (spec->kind == BLOCK_MAP)
        value = decode_map(spec, blocks, 0, context);
    else if (blocks->len > 0)
        value = spec->kind == BLOCK ? decode_inner(spec, blocks->pdata[0], context) : decode_block_attrs(spec, blocks->pdata[0], context);
    return value ? value : value_null(context->arena, &type_any);
}

static Value *decode_transform(const HclSpec *spec, const Body *body, const Block *block, EvalContext *context)
{
    static const char *const names[] = { "nested" };
    Value *values[] = { decode(spec->children[0], body, block, context) };
    Scope scope = { .names = names, .values = values, .n = 1 };
    EvalContext inner;

    eval_nested(context, &scope, &inner);
    return eval_expr(&inner, spec->result);
}

static Value *decode(const HclSpec *spec, const Body *body, const Block *block, EvalContext *context)
{
    Value *value;

    switch (spec->kind) {
    case OBJECT:
        return decode_object(spec, body, block, context);
    case ARRAY:
        return decode_array(spec, body, block, context);
    case ATTR:
        return decode_attr(spec, body, block, context);
    case LITERAL:
        return spec->literal;
    case DEFAULT:
        value = value_null(context->arena, &type_any);
        for (size_t i = 0; i < spec->n_children && value_is_null(value); i++)
            value = decode(spec->children[i], body, block, context);
        return value;
    case TRANSFORM:
        return spec->n_children > 0 && spec->result ? decode_transform(spec, body, block, context) : value_null(context->arena, &type_any);
    default:
        return decode_blocks(spec, body, block, context);
    }
}

Value *hcl_spec_decode(const HclSpec *spec, const Body *body, const Scope *scope, Diagnostics *diagnostics)
{
    EvalContext context = context_of(scope, diagnostics);
    HclSpec *root = (HclSpec *)spec;

    return decode_body(&root, 1, body, NULL, &context);
}

/* --- values and types as JSON --- */

static void append_quoted(GString *out, Arena *scratch, const char *text)
{
    g_autofree char *quoted = value_to_json_text(value_string(scratch, text));

    g_string_append(out, quoted);
}

static void append_type(GString *out, Arena *scratch, const Type *type)
{
    static const char *const names[] = { "dynamic", "bool", "number", "string", "list", "set", "map", "tuple", "object" };

    if (type->kind < TYPE_LIST) {
        append_quoted(out, scratch, names[type->kind]);
        return;
    }
    g_string_append_printf(out, "[\"%s\",", names[type->kind]);
    if (type->element)
        append_type(out, scratch, type->element);
    else
        g_string_append_c(out, type->names || type->kind == TYPE_OBJECT ? '{' : '[');
    for (size_t i = 0; i < type->n; i++) {
        g_string_append(out, i ? "," : "");
        if (type->names) {
            append_quoted(out, scratch, type->names[i]);
            g_string_append_c(out, ':');
        }
        append_type(out, scratch, type->types[i]);
    }
    g_string_append(out, type->element ? "]" : type->kind == TYPE_OBJECT ? "}]" : "]]");
}

static Value *without_nulls(Arena *arena, Value *value)
{
    ValueFields fields;

    if (value->state != VALUE_KNOWN || value->type->kind != TYPE_OBJECT)
        return value;
    value_fields_init(&fields);
    for (size_t i = 0; i < value->n; i++)
        if (!value_is_null(value->items[i]))
            value_fields_put(&fields, value->keys[i], without_nulls(arena, value->items[i]));
    return value_fields_object(&fields, arena);
}

char *hcl_value_text(const Value *value, bool with_type, bool keep_nulls)
{
    g_autoptr(Arena) scratch = arena_new();
    g_autofree char *plain = value_to_json_text(keep_nulls ? value : without_nulls(scratch, (Value *)value));
    GString *out = g_string_new(plain);

    if (with_type) {
        g_string_prepend(out, "{\"value\":");
        g_string_append(out, ",\"type\":");
        append_type(out, scratch, value->type);
        g_string_append_c(out, '}');
    }
    return g_string_free(out, FALSE);
}

/* --- variables that are named --- */

static json_t *position_json(Position position)
{
    return json_pack("{s:i, s:i, s:i}", "line", (int)position.line, "column", (int)position.column, "byte", (int)position.byte);
}

static json_t *range_json(Range range)
{
    return json_pack("{s:s, s:o, s:o}", "filename", range_file(range), "start", position_json(range_start(range)), "end",
                     position_json(range_end(range)));
}

/* root, .attr, ["index"], [0]; false when @expr is no such chain. A step's range ends where the chain so far does. */
static bool append_steps(const Expr *expr, json_t *steps)
{
    Range range = expr->range;
    const Expr *key = expr->kind == EXPR_INDEX ? expr->right : NULL;

    if (expr->kind == EXPR_VARIABLE)
        return json_array_append_new(steps, json_pack("{s:s, s:s, s:o}", "kind", "root", "name", expr->name, "range", range_json(range))) == 0;
    if (expr->kind != EXPR_ATTRIBUTE && !(key && key->kind == EXPR_LITERAL))
        return false;
    if (!append_steps(expr->left, steps))
        return false;
    range.start = expr->left->range.end;
    if (key)
        return json_array_append_new(steps, json_pack("{s:s, s:o, s:o}", "kind", "index", "key", value_to_json(key->value), "range",
                                                      range_json(range))) == 0;
    return json_array_append_new(steps, json_pack("{s:s, s:s, s:o}", "kind", "attr", "name", expr->name, "range", range_json(range))) == 0;
}

static void collect_chains(const Expr *expr, json_t *found)
{
    json_t *steps = json_array();

    if (append_steps(expr, steps)) {
        (void)json_array_append_new(found, json_pack("{s:o}", "steps", steps));
        return;
    }
    json_decref(steps);
    for (size_t i = 0; i < expr->n_items; i++)
        collect_chains(expr->items[i], found);
    if (expr->left)
        collect_chains(expr->left, found);
    if (expr->condition)
        collect_chains(expr->condition, found);
    if (expr->right && expr->kind != EXPR_FOR) /* what a loop's body names may be the loop's own */
        collect_chains(expr->right, found);
}

static void collect_body(const Allowed *allowed, const Body *body, json_t *found)
{
    for (size_t i = 0; i < body->n_attributes; i++)
        if (allows_attribute(allowed, body->attributes[i]->name))
            collect_chains(body->attributes[i]->expr, found);
    for (size_t i = 0; i < body->n_blocks; i++) {
        const HclSpec *spec = allows_block(allowed, body->blocks[i]->type);
        Allowed inner;

        if (!spec)
            continue;
        inner = allowed_by(spec->children, spec->n_children);
        collect_body(&inner, body->blocks[i]->body, found);
        allowed_clear(&inner);
    }
}

json_t *hcl_spec_variables(const HclSpec *spec, const Body *body)
{
    HclSpec *root = (HclSpec *)spec;
    Allowed allowed = allowed_by(&root, 1);
    json_t *found = json_array();

    collect_body(&allowed, body, found);
    allowed_clear(&allowed);
    return found;
}
