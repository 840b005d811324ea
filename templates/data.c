/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data sources: blocks `data "TYPE" "NAME"` whose answer is data.TYPE.NAME.ATTRIBUTE. They are evaluated with the locals, each
 * after what it refers to.
 *
 * `null` gives back its input. `http` fetches a page, under --url-map too; who only looks at the template (validate, inspect) gets
 * values that are not known, and no network is touched. The others of Packer need a service or a plugin, and say so when they are asked.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/http.h"
#include "templates/language/types.h"
#include "templates/template-private.h"

#include <fcntl.h>
#include <string.h>

enum { PAGE_MAX = 10 * 1024 * 1024, DATA_MAX = 1000 };

typedef struct DataKind {
    const char *type;
    const char *const *arguments;
    const char *needed;          /* the argument that must be there */
    const char *const *outputs;
    Value *(*ask)(Template *t, const Data *data); /* NULL after a diagnostic */
} DataKind;

/* --- the kinds --- */

static Value *ask_null(Template *t, const Data *data)
{
    const char *input = body_string(t, data->block->body, "input", NULL, NULL);
    ValueFields fields;

    value_fields_init(&fields);
    value_fields_put(&fields, "output", input ? value_string(t->arena, input) : value_unknown(t->arena, &type_string));
    return value_fields_object(&fields, t->arena);
}

static bool fetch(const char *url, GBytes **ret, GError **error)
{
    HttpDownload request = { .url = url, .max_size = PAGE_MAX };
    g_autofree char *folder = NULL, *page = NULL;
    bool ok;

    if (!file_make_short_tmpdir(&folder, error))
        return fail_prefix(error, "the page '%s'", url);
    page = g_build_filename(folder, "page", NULL);
    ok = http_download(&request, AT_FDCWD, page, error) && file_load(AT_FDCWD, page, PAGE_MAX, ret, error);
    (void)file_remove_tree(AT_FDCWD, folder, NULL); /* a temporary folder, perhaps with a download's notes in it */
    return ok;
}

static Value *ask_http(Template *t, const Data *data)
{
    const Body *body = data->block->body;
    const char *url = data->url, *method = body_string(t, body, "method", NULL, "GET");
    const Attribute *place = body_attribute(body, "url");
    g_autoptr(GBytes) page = NULL;
    g_autoptr(GError) error = NULL;
    ValueFields fields;
    const char *text;
    gsize size;

    if (!url)
        return NULL;
    if (strcmp(method, "GET") != 0 || body_attribute(body, "request_headers") || body_attribute(body, "request_body")) {
        diagnose(&t->diagnostics, data->block->header, "a page is fetched by GET here, without headers and body of its own");
        return NULL;
    }
    if (!fetch(url, &page, &error)) {
        diagnose(&t->diagnostics, place->expr->range, "%s", error->message);
        return NULL;
    }
    text = g_bytes_get_data(page, &size);
    if (size > 0 && (memchr(text, '\0', size) || !g_utf8_validate_len(text, size, NULL))) {
        diagnose(&t->diagnostics, place->expr->range, "the page '%s' is not UTF-8 text", url);
        return NULL;
    }
    value_fields_init(&fields);
    value_fields_put(&fields, "url", value_string(t->arena, url));
    value_fields_put(&fields, "body", value_string(t->arena, arena_strndup(t->arena, size ? text : "", size)));
    value_fields_put(&fields, "request_headers", value_null(t->arena, type_map_of(t->arena, &type_string)));
    return value_fields_object(&fields, t->arena);
}

static Value *ask_hcp(Template *t, const Data *data)
{
    diagnose(&t->diagnostics, data->block->header,
             "'%s' asks HashiCorp's registry, a network service; a source takes an image of a channel here by from = \"image:NAME:CHANNEL\"",
             data->type);
    return NULL;
}

static const char *const null_arguments[] = { "input", NULL }, *const null_outputs[] = { "output", NULL };
static const char *const http_arguments[] = { "url", "method", "request_headers", "request_body", NULL };
static const char *const http_outputs[] = { "url", "body", "request_headers", NULL };

static const DataKind data_kinds[] = {
    { "null", null_arguments, "input", null_outputs, ask_null },
    { "http", http_arguments, "url", http_outputs, ask_http },
    { "hcp-packer-version", NULL, "bucket_name", NULL, ask_hcp },
    { "hcp-packer-artifact", NULL, "bucket_name", NULL, ask_hcp },
    { "hcp-packer-iteration", NULL, "bucket_name", NULL, ask_hcp },
    { "hcp-packer-image", NULL, "bucket_name", NULL, ask_hcp },
};

static const DataKind *find_kind(const char *type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(data_kinds); i++)
        if (strcmp(data_kinds[i].type, type) == 0)
            return &data_kinds[i];
    return NULL;
}

/* --- declaring --- */

void data_declare(Template *t, const Block *block)
{
    static const char *const what[] = { "TYPE", "NAME" };
    BlockUse use = { .type = block->type, .n_labels = block->n_labels, .header = block->header };
    Data *data = arena_new0(t->arena, Data, 1);
    const DataKind *kind;

    if (!check_labels(t, &use, 2, what) || !check_identifier(t, block, block->labels[0]) || !check_identifier(t, block, block->labels[1]))
        return;
    *data = (Data){ .type = block->labels[0], .name = block->labels[1], .block = block };
    for (guint i = 0; i < t->data->len; i++) {
        const Data *other = t->data->pdata[i];

        if (strcmp(other->type, data->type) == 0 && strcmp(other->name, data->name) == 0) {
            diagnose(&t->diagnostics, block->header, "the data source '%s.%s' is defined twice; the first is on line %u", data->type,
                     data->name, range_start(other->block->header).line);
            return;
        }
    }
    if (t->data->len >= DATA_MAX) {
        diagnose(&t->diagnostics, block->header, "these are more than %d data sources", DATA_MAX);
        return;
    }
    g_ptr_array_add(t->data, data);
    kind = find_kind(data->type);
    if (kind && kind->arguments)
        check_body(t, block->body, "this data source", kind->arguments, NULL);
    if (kind && !body_attribute(block->body, kind->needed))
        diagnose(&t->diagnostics, block->header, "the data source '%s' needs the argument '%s'", data->type, kind->needed);
}

/* --- evaluating --- */

/* An answer that nobody asked for yet: its parts have no values, and where they are listed, no others exist. */
static Value *unasked(Template *t, const DataKind *kind)
{
    ValueFields fields;

    if (!kind || !kind->outputs)
        return value_unknown(t->arena, &type_any);
    value_fields_init(&fields);
    for (const char *const *output = kind->outputs; *output; output++)
        value_fields_put(&fields, *output, value_unknown(t->arena, strcmp(*output, "request_headers") == 0 ? &type_any : &type_string));
    return value_fields_object(&fields, t->arena);
}

static Value *ask(Template *t, Data *data)
{
    const DataKind *kind = find_kind(data->type);
    Value *value = NULL;

    if (kind && kind->ask == ask_http)
        data->url = body_string(t, data->block->body, "url", NULL, NULL);

    if (t->options->look_only && !t->options->ask_data && !(kind && kind->ask == ask_null))
        return unasked(t, kind);
    if (kind)
        value = kind->ask(t, data);
    else
        diagnose(&t->diagnostics, data->block->header,
                 "the data source '%s' is of a plugin, and nothing here stands in for it; give the value as a variable", data->type);
    return value ? value : unasked(t, kind);
}

/* data.TYPE.NAME of all that are evaluated. */
static Value *known_data(Template *t)
{
    ValueFields types;

    value_fields_init(&types);
    for (guint i = 0; i < t->data->len; i++) {
        const Data *first = t->data->pdata[i];
        ValueFields names;

        if (value_fields_has(&types, first->type))
            continue;
        value_fields_init(&names);
        for (guint j = i; j < t->data->len; j++) {
            const Data *data = t->data->pdata[j];

            if (data->value && strcmp(data->type, first->type) == 0)
                value_fields_put(&names, data->name, data->value);
        }
        value_fields_put(&types, first->type, value_fields_object(&names, t->arena));
    }
    return value_fields_object(&types, t->arena);
}

void data_evaluate(Template *t, Data *data, unsigned depth)
{
    unsigned before = t->diagnostics.count;

    if (data->state != LOCAL_NEW)
        return;
    data->state = LOCAL_BUSY;
    if (!t->data_value)
        t->data_value = known_data(t);
    for (size_t i = 0; i < data->block->body->n_attributes; i++)
        locals_need(t, data->block->body->attributes[i]->expr, depth);
    data->value = t->diagnostics.count == before ? ask(t, data) : unasked(t, find_kind(data->type));
    data->state = LOCAL_DONE;
    t->data_value = known_data(t);
}

void data_evaluate_type(Template *t, const char *type, unsigned depth)
{
    for (guint i = 0; i < t->data->len; i++) {
        Data *data = t->data->pdata[i];

        if (!type || strcmp(data->type, type) == 0)
            data_evaluate(t, data, depth);
    }
}
