/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A template described: what it declares, as one JSON object, for the verbs that look (inspect, init, console, inputs).
 *
 * Values of sensitive variables and locals are never in it.
 */
#include "base/units.h"
#include "templates/language/json.h"
#include "templates/language/types.h"
#include "templates/template-private.h"

#include <string.h>

static json_t *shown_value(const Value *value, bool sensitive)
{
    if (sensitive || (value && value_is_sensitive(value)))
        return json_string("<sensitive>");
    return value ? value_to_json(value) : json_string("<unknown>");
}

static json_t *variable_json(const Variable *variable)
{
    g_autofree char *type = type_name(variable->type);
    const Attribute *description = variable->block ? body_attribute(variable->block->body, "description") : NULL;
    const Expr *text = description ? description->expr : NULL;
    json_t *json = json_pack("{s:s, s:s, s:b, s:b, s:o}", "name", variable->name, "type", type, "sensitive", variable->sensitive,
                             "required", !variable->has_default, "value", shown_value(variable->value, variable->sensitive));

    if (text && text->kind == EXPR_LITERAL && text->value->state == VALUE_KNOWN && text->value->type->kind == TYPE_STRING)
        (void)json_object_set_new(json, "description", json_string(text->value->string));
    (void)json_object_set_new(json, "from", json_string(variable->origin ? variable->origin : variable->has_default ? "default" : "unset"));
    return json;
}

static json_t *variables_json(const Template *t)
{
    json_t *list = json_array();

    for (guint i = 0; i < t->variables->len; i++)
        (void)json_array_append_new(list, variable_json(t->variables->pdata[i]));
    return list;
}

static json_t *locals_json(const Template *t)
{
    json_t *list = json_array();

    for (guint i = 0; i < t->locals->len; i++) {
        const Local *local = t->locals->pdata[i];

        (void)json_array_append_new(list, json_pack("{s:s, s:b, s:o}", "name", local->name, "sensitive", local->sensitive, "value",
                                                    shown_value(local->value, local->sensitive)));
    }
    return list;
}

static json_t *sources_json(const Template *t)
{
    json_t *list = json_array();

    for (guint i = 0; i < t->sources->len; i++) {
        const Block *block = t->sources->pdata[i];

        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "type", block->labels[0], "name", block->labels[1], "file",
                                                    block->header.source->name));
    }
    return list;
}

static json_t *data_json(const Template *t)
{
    json_t *list = json_array();

    for (guint i = 0; i < t->data->len; i++) {
        const Data *data = t->data->pdata[i];
        json_t *json = json_pack("{s:s, s:s}", "type", data->type, "name", data->name);

        if (data->url)
            (void)json_object_set_new(json, "url", json_string(data->url));
        (void)json_array_append_new(list, json);
    }
    return list;
}

static int compare_texts(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static json_t *files_json(const Template *t)
{
    g_autofree gpointer *paths = g_hash_table_get_keys_as_array(t->files, NULL);
    guint n = g_hash_table_size(t->files);
    json_t *list = json_array();

    qsort(paths, n, sizeof(gpointer), compare_texts);
    for (guint i = 0; i < n; i++) {
        char hex[DIGEST_OCI_SIZE];

        (void)json_array_append_new(list, json_pack("{s:s, s:s}", "path", paths[i], "digest",
                                                    digest_to_oci(g_hash_table_lookup(t->files, paths[i]), hex)));
    }
    return list;
}

/* Of a value that is not sensitive as a whole, what in it is: a user's name beside a password is no secret. */
static void collect_value(const Value *value, bool sensitive, GPtrArray *texts)
{
    if (!value || value->state != VALUE_KNOWN)
        return;
    sensitive = sensitive || value->sensitive;
    if (sensitive && value->type->kind == TYPE_STRING && *value->string)
        g_ptr_array_add(texts, g_strdup(value->string));
    for (size_t i = 0; i < value->n; i++)
        collect_value(value->items[i], sensitive, texts);
}

GPtrArray *template_sensitive(Template *t)
{
    GPtrArray *texts = g_ptr_array_new_with_free_func(g_free);

    for (guint i = 0; i < t->variables->len; i++) {
        const Variable *variable = t->variables->pdata[i];

        collect_value(variable->value, variable->sensitive, texts);
    }
    for (guint i = 0; i < t->locals->len; i++) {
        const Local *local = t->locals->pdata[i];

        collect_value(local->value, local->sensitive, texts);
    }
    return texts;
}

json_t *template_describe(Template *t)
{
    json_t *json = json_pack("{s:s, s:o, s:o, s:o, s:o}", "root", t->dir, "variables", variables_json(t), "locals", locals_json(t),
                             "sources", sources_json(t), "files", files_json(t));

    (void)json_object_set(json, "required_plugins", t->plugins);
    (void)json_object_set_new(json, "data", data_json(t));
    if (t->required_version)
        (void)json_object_set_new(json, "required_version", json_string(t->required_version));
    return json;
}

/* --- diagnostics in the shape of HCL's own tools --- */

static json_t *position_json(Position position)
{
    return json_pack("{s:i, s:i, s:I}", "line", (int)position.line, "column", (int)position.column, "byte", (json_int_t)position.byte);
}

json_t *diagnostic_json(const Diagnostic *diagnostic)
{
    const char *hint = strstr(diagnostic->text, "; ");
    g_autofree char *summary = hint ? g_strndup(diagnostic->text, (gsize)(hint - diagnostic->text)) : g_strdup(diagnostic->text);
    json_t *json = json_pack("{s:s, s:s, s:s}", "severity", "error", "summary", summary, "detail", hint ? hint + 2 : "");
    json_t *range;

    if (!diagnostic->range.source)
        return json;
    range = json_pack("{s:s, s:o, s:o}", "filename", range_file(diagnostic->range), "start", position_json(range_start(diagnostic->range)),
                      "end", position_json(range_end(diagnostic->range)));
    (void)json_object_set(json, "subject", range);
    (void)json_object_set_new(json, "range", range);
    return json;
}

void diagnostics_collect(const Diagnostics *diagnostics, json_t *array)
{
    for (guint i = 0; array && i < diagnostics->list->len; i++)
        (void)json_array_append_new(array, diagnostic_json(diagnostics->list->pdata[i]));
}
