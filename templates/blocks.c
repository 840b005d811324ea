/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of components: dynamic blocks, and arguments as JSON.
 *
 * A nested block becomes an object in an array under its type, however often it stands there, so that
 * who owns the component need not know how it was written.
 */
#include "base/error.h"
#include "base/units.h"
#include "templates/language/json.h"
#include "templates/language/types.h"
#include "templates/template-private.h"

#include <string.h>

enum { DYNAMIC_MAX = 10000 };

/* What template_complain() needs: where the header and each argument stand. */
typedef struct Place {
    Arena *arena;
    Range header;
    GPtrArray *bodies; /* of const Body*, later ones first asked */
    json_t *sink;      /* where mistakes are also put; may be NULL */
    json_t *plugins;   /* of the template */
} Place;

static bool is_listed(const char *const *list, const char *word)
{
    for (; list && *list; list++)
        if (strcmp(*list, word) == 0)
            return true;
    return false;
}

/* --- dynamic blocks --- */

static BlockUse *plain_use(Template *t, const Block *block, const Scope *scope)
{
    BlockUse *use = arena_new0(t->arena, BlockUse, 1);

    *use = (BlockUse){ .type = block->type,
                       .labels = block->labels,
                       .n_labels = block->n_labels,
                       .header = block->header,
                       .body = block->body,
                       .scope = scope };
    return use;
}

static Value *iterator_value(Arena *arena, Value *key, Value *value)
{
    ValueFields fields;

    value_fields_init(&fields);
    value_fields_put(&fields, "key", key);
    value_fields_put(&fields, "value", value);
    return value_fields_object(&fields, arena);
}

static bool dynamic_labels(Template *t, const Attribute *attribute, BlockUse *use)
{
    EvalContext context;
    Value *list;

    if (!attribute)
        return true;
    template_context(t, use->scope, &context);
    list = eval_as(&context, attribute->expr, type_list_of(t->arena, &type_string), "'labels'");
    if (!list || !value_is_wholly_known(list))
        return false;
    use->n_labels = list->n;
    use->labels = arena_new0(t->arena, const char *, list->n);
    for (size_t i = 0; i < list->n; i++)
        ((const char **)use->labels)[i] = value_is_null(list->items[i]) ? "" : list->items[i]->string;
    return true;
}

static Value *dynamic_list(Template *t, const Block *block, const Scope *scope)
{
    const Attribute *for_each = body_attribute(block->body, "for_each");
    EvalContext context;
    Value *list;

    if (!for_each) {
        diagnose(&t->diagnostics, block->header, "'dynamic' needs the argument 'for_each'");
        return NULL;
    }
    template_context(t, scope, &context);
    list = eval_as(&context, for_each->expr, &type_any, "'for_each'");
    if (!list || list->state == VALUE_UNKNOWN)
        return NULL;
    if (list->state == VALUE_NULL || type_is_primitive(list->type)) {
        diagnose(&t->diagnostics, for_each->expr->range, "'for_each' needs a list, set, map or object");
        return NULL;
    }
    if (list->n > DYNAMIC_MAX) {
        diagnose(&t->diagnostics, for_each->expr->range, "this makes more than %d blocks", DYNAMIC_MAX);
        return NULL;
    }
    return list;
}

static const char *iterator_name(Template *t, const Block *block)
{
    const Attribute *iterator = body_attribute(block->body, "iterator");

    if (!iterator)
        return block->labels[0];
    if (!expr_keyword(iterator->expr)) {
        diagnose(&t->diagnostics, iterator->expr->range, "'iterator' is a plain name, written without quotes");
        return NULL;
    }
    return expr_keyword(iterator->expr);
}

static const Block *content_block(Template *t, const Block *block)
{
    static const char *const attributes[] = { "for_each", "iterator", "labels", NULL };
    static const char *const blocks[] = { "content", NULL };

    check_body(t, block->body, "'dynamic'", attributes, blocks);
    if (block->n_labels == 1 && block->body->n_blocks == 1 && strcmp(block->body->blocks[0]->type, "content") == 0)
        return block->body->blocks[0];
    diagnose(&t->diagnostics, block->header, "a dynamic block is written dynamic \"TYPE\" { for_each = ... content { ... } }");
    return NULL;
}

static void expand_dynamic(Template *t, const Block *block, const Scope *scope, GPtrArray *uses)
{
    const Block *content = content_block(t, block);
    const char *iterator = content ? iterator_name(t, block) : NULL;
    Value *list = iterator ? dynamic_list(t, block, scope) : NULL;

    for (size_t i = 0; list && i < list->n; i++) {
        BlockUse *use = arena_new0(t->arena, BlockUse, 1);
        Value *key = list->keys                     ? value_string(t->arena, list->keys[i])
                     : list->type->kind == TYPE_SET ? list->items[i]
                                                    : value_int(t->arena, (int64_t)i);

        *use = (BlockUse){ .type = block->labels[0], .header = block->header, .body = content->body };
        use->scope = scope_with(t->arena, scope, iterator, iterator_value(t->arena, key, list->items[i]));
        if (dynamic_labels(t, body_attribute(block->body, "labels"), use))
            g_ptr_array_add(uses, use);
    }
}

GPtrArray *blocks_expand(Template *t, const Body *body, const Scope *scope)
{
    GPtrArray *uses = g_ptr_array_new();

    if (!scope)
        scope = template_root_scope(t);
    for (size_t i = 0; i < body->n_blocks; i++)
        if (strcmp(body->blocks[i]->type, "dynamic") == 0)
            expand_dynamic(t, body->blocks[i], scope, uses);
        else
            g_ptr_array_add(uses, plain_use(t, body->blocks[i], scope));
    return uses;
}

/* --- bodies as JSON --- */

static void attributes_to_json(Template *t, const Body *body, const Scope *scope, const char *const *skip, json_t *object)
{
    EvalContext context;

    template_context(t, scope, &context);
    for (size_t i = 0; i < body->n_attributes; i++) {
        const Attribute *attribute = body->attributes[i];
        Value *value;

        if (is_listed(skip, attribute->name))
            continue;
        if (json_object_get(object, attribute->name)) {
            diagnose(&t->diagnostics, attribute->name_range, "the argument '%s' is set already, in the source block",
                     attribute->name);
            continue;
        }
        value = eval_expr(&context, attribute->expr);
        t->saw_unknown = t->saw_unknown || !value_is_wholly_known(value);
        if (!value_is_null(value)) /* as if it were not written */
            (void)json_object_set_new(object, attribute->name, value_to_json(value));
    }
}

static void add_nested(Template *t, const BlockUse *use, json_t *object)
{
    static const char *const label[] = { "NAME" };
    json_t *array = json_object_get(object, use->type);
    json_t *nested = json_object();

    if (t->options && is_listed(t->options->list_labels, use->type)) {
        if (check_labels(t, use, 1, label))
            (void)json_object_set_new(nested, TEMPLATE_LABEL, json_string(use->labels[0]));
    } else if (use->n_labels > 0) {
        diagnose(&t->diagnostics, use->header, "the block '%s' has no label here", use->type);
    }
    if (!array) {
        array = json_array();
        (void)json_object_set_new(object, use->type, array);
    } else if (!json_is_array(array)) {
        diagnose(&t->diagnostics, use->header, "'%s' is an argument already", use->type);
        json_decref(nested);
        return;
    }
    body_to_json(t, use->body, use->scope, NULL, nested);
    (void)json_array_append_new(array, nested);
}

void body_to_json(Template *t, const Body *body, const Scope *scope, const char *const *skip, json_t *object)
{
    g_autoptr(GPtrArray) uses = NULL;

    attributes_to_json(t, body, scope, skip, object);
    uses = blocks_expand(t, body, scope);
    for (guint i = 0; i < uses->len; i++) {
        const BlockUse *use = uses->pdata[i];

        if (!is_listed(skip, use->type))
            add_nested(t, use, object);
    }
}

/* --- components --- */

TemplateBlock *template_block_new(Template *t, const BlockUse *use, const char *type, const char *name)
{
    TemplateBlock *block = g_new0(TemplateBlock, 1);
    Place *place = g_new0(Place, 1);

    place->arena = t->arena;
    place->header = use->header;
    place->bodies = g_ptr_array_new();
    place->sink = json_incref(t->sink);
    place->plugins = json_incref(t->plugins);
    block->type = g_strdup(type);
    block->name = g_strdup(name);
    block->args = json_object();
    block->place = place;
    block->network = -1;
    template_block_also(block, use->body);
    return block;
}

void template_block_also(TemplateBlock *block, const Body *body)
{
    g_ptr_array_insert(((Place *)block->place)->bodies, 0, (gpointer)body);
}

void template_block_free(TemplateBlock *block)
{
    Place *place;

    if (!block)
        return;
    place = block->place;
    g_ptr_array_unref(place->bodies);
    json_decref(place->sink);
    json_decref(place->plugins);
    g_free(place);
    json_decref(block->args);
    g_free(block->type);
    g_free(block->name);
    g_free(block->refresh);
    g_strfreev(block->inputs);
    g_strfreev(block->only_output);
    g_free(block);
}

void list_blocks_evaluate(Template *t)
{
    static const char *const label[] = { "NAME" };

    for (guint i = 0; i < t->list_uses->len; i++) {
        const BlockUse *use = plain_use(t, t->list_uses->pdata[i], template_root_scope(t));
        TemplateBlock *block;

        if (!check_labels(t, use, 1, label))
            continue;
        block = template_block_new(t, use, use->type, use->labels[0]);
        body_to_json(t, use->body, use->scope, NULL, block->args);
        g_ptr_array_add(t->list_blocks, block);
    }
}

/* --- places --- */

/* The @index-th block of the type, or the `dynamic` that makes blocks of it. */
static const Block *block_of(const Body *body, const char *type, size_t index)
{
    const Block *maker = NULL;

    for (size_t i = 0; i < body->n_blocks; i++) {
        const Block *block = body->blocks[i];

        if (strcmp(block->type, type) == 0 && index-- == 0)
            return block;
        if (strcmp(block->type, "dynamic") == 0 && block->n_labels == 1 && strcmp(block->labels[0], type) == 0)
            maker = block;
    }
    return maker;
}

static const Body *body_within(const Block *block)
{
    bool made = strcmp(block->type, "dynamic") == 0;

    for (size_t i = 0; made && i < block->body->n_blocks; i++)
        if (strcmp(block->body->blocks[i]->type, "content") == 0)
            return block->body->blocks[i]->body;
    return block->body;
}

/* "NAME", "NAME[INDEX]": cut off @path at the next dot; -1 where no index is said. */
static char *next_part(const char **path, int64_t *ret_index)
{
    size_t length = strcspn(*path, ".");
    char *part = g_strndup(*path, length), *bracket = strchr(part, '[');

    *path += (*path)[length] == '.' ? length + 1 : length;
    *ret_index = bracket ? g_ascii_strtoll(bracket + 1, NULL, 10) : -1;
    if (bracket)
        *bracket = '\0';
    return part;
}

static Range expr_place(const Expr *expr, int64_t index)
{
    if (expr->kind == EXPR_TUPLE && index >= 0 && (size_t)index < expr->n_items)
        return expr->items[index]->range;
    return expr->range;
}

/* False: nothing in @body has the path's first part. Else the place of the last part that is there. */
static bool find_place(const Body *body, const char *path, Range *ret)
{
    bool found = false;

    while (body && *path) {
        int64_t index;
        g_autofree char *part = next_part(&path, &index);
        const Attribute *attribute = body_attribute(body, part);
        const Block *block = attribute ? NULL : block_of(body, part, (size_t)MAX(index, 0));

        if (!attribute && !block)
            return found;
        *ret = attribute ? expr_place(attribute->expr, index) : block->header;
        body = block ? body_within(block) : NULL;
        found = true;
    }
    return found;
}

static Range place_of(const Place *place, const char *argument)
{
    Range range = place->header;

    for (guint i = 0; argument && i < place->bodies->len; i++)
        if (find_place(place->bodies->pdata[i], argument, &range))
            break;
    return range;
}

/* The same mistake may be found of several builds. */
static void sink_once(json_t *sink, json_t *diagnostic /* taken */)
{
    json_t *other;
    size_t i;

    json_array_foreach(sink, i, other) {
        if (json_equal(other, diagnostic)) {
            json_decref(diagnostic);
            return;
        }
    }
    (void)json_array_append_new(sink, diagnostic);
}

bool template_complain(const TemplateBlock *block, const char *argument, GError **error, const char *format, ...)
{
    const Place *place = block->place;
    g_autofree char *sentence = NULL;
    g_autofree char *text = NULL;
    Diagnostic diagnostic;
    va_list args;

    va_start(args, format);
    sentence = g_strdup_vprintf(format, args);
    va_end(args);
    diagnostic = (Diagnostic){ .range = place_of(place, argument), .text = sentence };
    text = diagnostic_format(&diagnostic);
    if (place->sink)
        sink_once(place->sink, diagnostic_json(&diagnostic));
    return fail_code(error, KILN_ERROR_USAGE, "%s", text);
}

/* The plugin "amazon" has the types amazon-ebs, amazon-chroot, and perhaps one that is called as it is; the longest name knows best. */
const char *template_plugin_of(const TemplateBlock *block)
{
    json_t *plugins = ((const Place *)block->place)->plugins, *plugin;
    const char *found = NULL;
    size_t i, best = 0;

    json_array_foreach(plugins, i, plugin) {
        const char *name = json_string_value(json_object_get(plugin, "name"));
        size_t length = strlen(name);

        if (length > best && g_str_has_prefix(block->type, name) && (!block->type[length] || block->type[length] == '-')) {
            best = length;
            found = json_string_value(json_object_get(plugin, "source"));
        }
    }
    return found;
}
