/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a template: its files, its top-level blocks, and what the face promises.
 *
 *     files -> bodies -> variables -> values -> locals -> builds
 *
 * Each stage goes on after mistakes as long as the next one can make sense; the load fails at the end
 * with all that was found.
 */
#include "templates/templates.h"

#include "base/error.h"
#include "base/file.h"
#include "templates/language/format.h"
#include "templates/language/json.h"
#include "templates/language/lexer.h"
#include "templates/template-private.h"

#include <fcntl.h>
#include <string.h>

#define PACKER_VERSION "1.16.0" /* what packer.version says: the language we follow */

enum { FILES_MAX = 1000 };

/* --- names an expression may use --- */

Scope *scope_with(Arena *arena, const Scope *outer, const char *name, Value *value)
{
    Scope *scope = arena_new0(arena, Scope, 1);
    const char **names = arena_new0(arena, const char *, 1);
    Value **values = arena_new0(arena, Value *, 1);

    names[0] = name;
    values[0] = value;
    *scope = (Scope){ .outer = outer, .names = names, .values = values, .n = 1 };
    return scope;
}

Scope *template_root_scope(Template *t)
{
    Scope *scope = scope_with(t->arena, NULL, "packer", t->packer);

    scope = scope_with(t->arena, scope, "path", t->path);
    if (t->var)
        scope = scope_with(t->arena, scope, "var", t->var);
    if (t->local)
        scope = scope_with(t->arena, scope, "local", t->local);
    if (t->data_value)
        scope = scope_with(t->arena, scope, "data", t->data_value);
    return scope;
}

static const char *noun(const char *root)
{
    return strcmp(root, "var") == 0     ? "variable"
           : strcmp(root, "local") == 0 ? "local value"
           : strcmp(root, "data") == 0  ? "data source of type"
                                        : NULL;
}

static void record_file(void *arg, const char *path, const void *data, size_t size)
{
    Template *t = arg;
    Digest *digest = g_new(Digest, 1);

    digest_of(data, size, digest);
    g_hash_table_replace(t->files, g_canonicalize_filename(path, NULL), digest);
}

void template_context(Template *t, const Scope *scope, EvalContext *ret)
{
    *ret = (EvalContext){ .arena = t->arena,
                          .diagnostics = &t->diagnostics,
                          .scope = scope ? scope : template_root_scope(t),
                          .base_dir = t->dir,
                          .noun = noun,
                          .file_read = record_file,
                          .arg = t };
}

/* --- checking --- */

static bool is_listed(const char *const *list, const char *word)
{
    for (; *list; list++)
        if (strcmp(*list, word) == 0)
            return true;
    return false;
}

void check_body(Template *t, const Body *body, const char *where, const char *const *attributes, const char *const *blocks)
{
    for (size_t i = 0; attributes && i < body->n_attributes; i++) {
        const Attribute *attribute = body->attributes[i];

        if (is_listed(attributes, attribute->name))
            continue;
        if (blocks && is_listed(blocks, attribute->name))
            diagnose(&t->diagnostics, attribute->name_range, "'%s' is a block, written without '=', in %s", attribute->name, where);
        else
            diagnose(&t->diagnostics, attribute->name_range, "%s has no argument '%s'%s", where, attribute->name,
                     did_you_mean(t->arena, attribute->name, attributes));
    }
    for (size_t i = 0; blocks && i < body->n_blocks; i++) {
        const Block *block = body->blocks[i];

        if (!is_listed(blocks, block->type))
            diagnose(&t->diagnostics, block->type_range, "%s has no block '%s'%s", where, block->type,
                     did_you_mean(t->arena, block->type, blocks));
    }
}

bool check_identifier(Template *t, const Block *block, const char *name)
{
    if (lex_is_ident(name))
        return true;
    diagnose(&t->diagnostics, block->header, "'%s' is no name: it begins with a letter and goes on with letters, digits, '_' and '-'", name);
    return false;
}

bool check_labels(Template *t, const BlockUse *use, size_t n, const char *const *what)
{
    g_autoptr(GString) form = g_string_new(use->type);

    if (use->n_labels == n)
        return true;
    for (size_t i = 0; i < n; i++)
        g_string_append_printf(form, " \"%s\"", what[i]);
    diagnose(&t->diagnostics, use->header, "this block is written %s { ... }", form->str);
    return false;
}

const char *body_string(Template *t, const Body *body, const char *name, const Scope *scope, const char *otherwise)
{
    const Attribute *attribute = body_attribute(body, name);
    g_autofree char *what = g_strdup_printf("'%s'", name);
    EvalContext context;
    Value *value;

    if (!attribute)
        return otherwise;
    template_context(t, scope, &context);
    value = eval_as(&context, attribute->expr, &type_string, what);
    return value && value->state == VALUE_KNOWN ? value->string : otherwise;
}

bool body_bool(Template *t, const Body *body, const char *name, const Scope *scope, bool otherwise)
{
    const Attribute *attribute = body_attribute(body, name);
    g_autofree char *what = g_strdup_printf("'%s'", name);
    EvalContext context;
    Value *value;

    if (!attribute)
        return otherwise;
    template_context(t, scope, &context);
    value = eval_as(&context, attribute->expr, &type_bool, what);
    return value && value->state == VALUE_KNOWN ? value->boolean : otherwise;
}

/* --- files --- */

/* What is a block in the JSON form; arguments of components may be objects and lists as they like. */
static const BodySchema no_blocks[] = { { 0 } };
static const BodySchema content_schema[] = { { "content", 0, no_blocks }, { 0 } };
static const BodySchema component_schema[] = { { "dynamic", 1, content_schema }, { 0 } };
static const BodySchema chain_schema[] = { { "post-processor", 1, component_schema }, { "dynamic", 1, content_schema }, { 0 } };
static const BodySchema variable_schema[] = { { "validation", 0, no_blocks }, { 0 } };
static const BodySchema plugin_schema[] = { { "required_plugins", 0, no_blocks }, { 0 } };
static const BodySchema build_schema[] = {
    { "source", 1, component_schema },
    { "provisioner", 1, component_schema },
    { "error-cleanup-provisioner", 1, component_schema },
    { "post-processor", 1, component_schema },
    { "post-processors", 0, chain_schema },
    { "output", 1, component_schema },
    { "secret", 1, no_blocks },
    { "hcp_packer_registry", 0, no_blocks },
    { "dynamic", 1, content_schema },
    { 0 },
};
static const BodySchema packer_schema[] = {
    { "packer", 0, plugin_schema },
    { "variable", 1, variable_schema },
    { "variables", 0, no_blocks },
    { "local", 1, no_blocks },
    { "locals", 0, no_blocks },
    { "source", 2, component_schema },
    { "data", 2, no_blocks },
    { "build", 0, build_schema },
    { "hcp_packer_registry", 0, no_blocks },
    { "communicator", 2, no_blocks },
    { 0 },
};


Source *template_read(Template *t, const char *path)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GError) error = NULL;
    gsize size;
    const void *data;

    if (!file_load(AT_FDCWD, path, SOURCE_SIZE_MAX, &bytes, &error)) {
        diagnose(&t->diagnostics, (Range){ 0 }, "%s", error->message);
        return NULL;
    }
    data = g_bytes_get_data(bytes, &size);
    record_file(t, path, data, size);
    return source_new(&t->diagnostics, path, data, size);
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_template_name(const char *name, bool values)
{
    static const char *const suffixes[] = { ".pkr.hcl", ".pkr.json", ".pkrvars.hcl", ".pkrvars.json" };

    for (size_t i = 0; i < (values ? 4 : 2); i++)
        if (g_str_has_suffix(name, suffixes[i]))
            return true;
    return false;
}

static bool list_folder(const char *path, bool values, const char *suffix, GPtrArray *names, GError **error)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    if (!dir)
        return fail_errno(error, "read folder '%s'", path);
    while ((name = g_dir_read_name(dir)))
        if (name[0] != '.' && (suffix ? g_str_has_suffix(name, suffix) : is_template_name(name, values)))
            g_ptr_array_add(names, g_build_filename(path, name, NULL));
    g_ptr_array_sort(names, compare_names);
    if (names->len == 0 && suffix)
        return fail_code(error, KILN_ERROR_USAGE, "in the folder '%s' no file ends in %s", path, suffix);
    if (names->len == 0)
        return fail_code(error, KILN_ERROR_USAGE, "the folder '%s' holds no template: no file ends in .pkr.hcl or .pkr.json", path);
    if (names->len > FILES_MAX)
        return fail_code(error, KILN_ERROR_USAGE, "the folder '%s' holds more than %d templates", path, FILES_MAX);
    return true;
}

/* @suffix: of files that are no templates; NULL: templates. */
static bool list_names(const char *path, bool values, const char *suffix, GPtrArray *names, GError **error)
{
    if (g_file_test(path, G_FILE_TEST_IS_DIR))
        return list_folder(path, values, suffix, names, error);
    if (!g_file_test(path, G_FILE_TEST_EXISTS))
        return fail_code(error, KILN_ERROR_USAGE, "there is no %s '%s'", suffix ? "file" : "template", path);
    if (suffix && !g_str_has_suffix(path, suffix))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is none of these files: their names end in %s", path, suffix);
    if (g_str_has_suffix(path, ".json") && !is_template_name(path, values))
        return fail_code(error, KILN_ERROR_USAGE,
                         "'%s' is Packer's old JSON; templates are written in HCL (.pkr.hcl) or its JSON form (.pkr.json)", path);
    g_ptr_array_add(names, g_strdup(path));
    return true;
}

bool template_list(const char *path, bool values, GPtrArray *names, GError **error)
{
    return list_names(path, values, NULL, names, error);
}

static Body *parse_named(const Source *source, Diagnostics *diagnostics)
{
    if (g_str_has_suffix(source->name, ".json"))
        return parse_json_body(source, packer_schema, diagnostics);
    return parse_body(source, diagnostics);
}

/* --- top-level blocks --- */

static void declare_source(Template *t, Block *block)
{
    static const char *const what[] = { "TYPE", "NAME" };
    BlockUse use = { .type = block->type, .n_labels = block->n_labels, .header = block->header };
    const Block *other;
    char *name;

    if (!check_labels(t, &use, 2, what))
        return;
    name = arena_printf(t->arena, "%s.%s", block->labels[0], block->labels[1]);
    other = g_hash_table_lookup(t->named_sources, name);
    if (other) {
        diagnose(&t->diagnostics, block->header, "the source '%s' is defined twice; the first is in %s on line %u", name,
                 other->header.source->name, range_start(other->header).line);
        return;
    }
    g_hash_table_insert(t->named_sources, name, block);
    g_ptr_array_add(t->sources, block);
}

/* A template that is pinned to an older Packer is in a language that the later one has, too. */
static void check_required_version(Template *t, const Body *body)
{
    const Attribute *attribute = body_attribute(body, "required_version");
    const char *wanted = body_string(t, body, "required_version", NULL, NULL);
    bool met;

    if (!wanted)
        return;
    t->required_version = wanted;
    if (!version_meets_up_to(PACKER_VERSION, wanted, &met))
        diagnose(&t->diagnostics, attribute->expr->range, "'%s' is no version constraint like \">= 1.7.0, < 2.0.0\"", wanted);
    else if (!met)
        diagnose(&t->diagnostics, attribute->expr->range,
                 "this template wants Packer %s, but the language here is that of Packer " PACKER_VERSION, wanted);
}

/* The text of @object's @name, or NULL. */
static const char *known_text(const Value *object, const char *name)
{
    const Value *value = value_get(object, name);

    return value && value->state == VALUE_KNOWN && value->type->kind == TYPE_STRING ? value->string : NULL;
}

/* A host and a path of two parts or more, and nothing else of a URL. */
static bool is_plugin_source(const char *source)
{
    return g_regex_match_simple("^[^/?#:]+(:[0-9]+)?(/[^/?#]+){2,}$", source, G_REGEX_DOLLAR_ENDONLY, 0);
}

/* NAME = { version = "...", source = "..." }; not the NAME = "version" of old, which Packer refuses too. */
static void declare_plugin(Template *t, const Attribute *attribute)
{
    EvalContext context;
    const char *source = NULL, *version = NULL;
    Value *value;
    bool met;

    template_context(t, NULL, &context);
    value = eval_as(&context, attribute->expr, &type_any, "a plugin");
    if (!value)
        return;
    if (value->state == VALUE_KNOWN && type_is_mapping(value->type)) {
        version = known_text(value, "version");
        source = known_text(value, "source");
    }
    if (!version || !source || value->n != 2 || !version_meets(PACKER_VERSION, version, &met) || !is_plugin_source(source))
        diagnose(&t->diagnostics, attribute->expr->range,
                 "a plugin is written NAME = { version = \">= 1.0.0\", source = \"github.com/OWNER/NAME\" }");
    else
        (void)json_array_append_new(t->plugins, json_pack("{s:s, s:s, s:s}", "name", attribute->name, "version", version, "source", source));
}

static void declare_plugins(Template *t, const Body *body)
{
    for (size_t i = 0; i < body->n_attributes; i++)
        declare_plugin(t, body->attributes[i]);
}

static void check_packer(Template *t, const Block *block)
{
    static const char *const attributes[] = { "required_version", NULL };
    static const char *const blocks[] = { "required_plugins", NULL };

    check_body(t, block->body, "'packer'", attributes, blocks);
    check_required_version(t, block->body);
    for (size_t i = 0; i < block->body->n_blocks; i++)
        if (strcmp(block->body->blocks[i]->type, "required_plugins") == 0)
            declare_plugins(t, block->body->blocks[i]->body);
}

/* What HashiCorp's registry would be told. Nobody is told anything here, but a mistake in it is one there too. */
void check_registry(Template *t, const Block *block)
{
    static const char *const attributes[] = { "bucket_name", "description", "bucket_labels", "build_labels", "labels", "channels", NULL };
    static const char *const blocks[] = { NULL };
    const char *bucket = body_string(t, block->body, "bucket_name", NULL, NULL);
    const char *description = body_string(t, block->body, "description", NULL, "");

    check_body(t, block->body, "'hcp_packer_registry'", attributes, blocks);
    if (bucket && !g_regex_match_simple("^[a-zA-Z0-9-]{3,36}$", bucket, G_REGEX_DOLLAR_ENDONLY, 0))
        diagnose(&t->diagnostics, body_attribute(block->body, "bucket_name")->expr->range,
                 "a bucket's name has 3 to 36 letters, digits and '-', not '%s'", bucket);
    if (strlen(description) > 255)
        diagnose(&t->diagnostics, body_attribute(block->body, "description")->expr->range, "a description has 255 characters at most");
}

/* One for the whole template, wherever it stands. */
void declare_registry(Template *t, const Block *block)
{
    if (t->registries->len > 0)
        diagnose(&t->diagnostics, block->header, "a template has one 'hcp_packer_registry' at most");
    g_ptr_array_add(t->registries, (gpointer)block);
}

static void refuse_bake_block(Template *t, const Block *block)
{
    const char *const known[] = { t->options->list_block, "variable", "variables", "local", "locals", NULL };

    diagnose(&t->diagnostics, block->type_range, "a file *%s has no block '%s'%s", t->options->list_suffix, block->type,
             did_you_mean(t->arena, block->type, known));
}

static void declare(Template *t, Block *block)
{
    static const char *const known[] = { "packer", "variable", "variables", "local", "locals", "source", "build", "data", NULL };

    if (t->options->list_block && strcmp(block->type, t->options->list_block) == 0)
        g_ptr_array_add(t->list_uses, block);
    else if (strcmp(block->type, "variable") == 0)
        variables_declare(t, block);
    else if (strcmp(block->type, "variables") == 0)
        variables_declare_old(t, block);
    else if (strcmp(block->type, "local") == 0 || strcmp(block->type, "locals") == 0)
        locals_declare(t, block);
    else if (t->options->list_suffix)
        refuse_bake_block(t, block);
    else if (strcmp(block->type, "source") == 0)
        declare_source(t, block);
    else if (strcmp(block->type, "build") == 0)
        g_ptr_array_add(t->build_blocks, block);
    else if (strcmp(block->type, "packer") == 0)
        check_packer(t, block);
    else if (strcmp(block->type, "data") == 0)
        data_declare(t, block);
    else if (strcmp(block->type, "hcp_packer_registry") == 0)
        declare_registry(t, block);
    else if (strcmp(block->type, "communicator") != 0)
        diagnose(&t->diagnostics, block->type_range, "a template has no block '%s'%s", block->type,
                 did_you_mean(t->arena, block->type, known));
}

static void declare_all(Template *t)
{
    for (guint i = 0; i < t->bodies->len; i++) {
        const Body *body = t->bodies->pdata[i];

        for (size_t j = 0; j < body->n_attributes; j++)
            diagnose(&t->diagnostics, body->attributes[j]->name_range,
                     "the argument '%s' stands in no block; values are set in variable, locals%s", body->attributes[j]->name,
                     t->options->list_suffix ? " and other blocks" : ", source and build blocks");
        for (size_t j = 0; j < body->n_blocks; j++)
            declare(t, body->blocks[j]);
    }
}

/* --- the face --- */

static Value *string_fields(Arena *arena, const char *const *pairs)
{
    ValueFields fields;

    value_fields_init(&fields);
    for (; *pairs; pairs += 2)
        value_fields_put(&fields, pairs[0], value_string(arena, pairs[1]));
    return value_fields_object(&fields, arena);
}

static Template *template_new(const char *dir)
{
    Template *t = g_new0(Template, 1);
    g_autofree char *cwd = g_get_current_dir();
    const char *const path[] = { "root", dir, "cwd", cwd, NULL };
    const char *const packer[] = { "version", PACKER_VERSION, "iterationID", "", "versionFingerprint", "", NULL };

    t->arena = arena_new();
    diagnostics_init(&t->diagnostics, t->arena);
    t->dir = g_strdup(dir);
    t->files = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    t->bodies = g_ptr_array_new();
    t->variables = g_ptr_array_new();
    t->locals = g_ptr_array_new();
    t->data = g_ptr_array_new();
    t->registries = g_ptr_array_new();
    t->sources = g_ptr_array_new();
    t->named_variables = g_hash_table_new(g_str_hash, g_str_equal);
    t->named_locals = g_hash_table_new(g_str_hash, g_str_equal);
    t->named_sources = g_hash_table_new(g_str_hash, g_str_equal);
    t->build_blocks = g_ptr_array_new();
    t->builds = g_ptr_array_new_with_free_func((GDestroyNotify)template_build_free);
    t->list_uses = g_ptr_array_new();
    t->list_blocks = g_ptr_array_new_with_free_func((GDestroyNotify)template_block_free);
    t->rebased = g_ptr_array_new_with_free_func(g_free);
    t->plugins = json_array();
    t->path = string_fields(t->arena, path);
    t->packer = string_fields(t->arena, packer);
    return t;
}

void template_free(Template *t)
{
    if (!t)
        return;
    g_ptr_array_unref(t->builds);
    g_ptr_array_unref(t->list_uses);
    g_ptr_array_unref(t->list_blocks);
    json_decref(t->plugins);
    json_decref(t->sink);
    g_ptr_array_unref(t->rebased);
    g_ptr_array_unref(t->build_blocks);
    g_ptr_array_unref(t->data);
    g_ptr_array_unref(t->registries);
    g_ptr_array_unref(t->sources);
    g_hash_table_unref(t->named_variables);
    g_hash_table_unref(t->named_locals);
    g_hash_table_unref(t->named_sources);
    g_ptr_array_unref(t->locals);
    g_ptr_array_unref(t->variables);
    g_ptr_array_unref(t->bodies);
    g_hash_table_unref(t->files);
    g_clear_pointer(&t->text, g_bytes_unref);
    diagnostics_clear(&t->diagnostics);
    arena_free(t->arena);
    g_free(t->dir);
    g_free(t->place);
    g_free(t);
}

static bool fail_with_diagnostics(Template *t, GError **error)
{
    g_autofree char *text = diagnostics_format(&t->diagnostics);

    diagnostics_collect(&t->diagnostics, t->sink);
    return fail_code(error, KILN_ERROR_USAGE, "%s", text);
}

/* After a mistake in the syntax names would seem missing that are only unread, so that stage ends the load. */
static bool evaluate(Template *t, const char *folder, GError **error)
{
    if (t->diagnostics.count > 0)
        return fail_with_diagnostics(t, error);
    declare_all(t);
    variables_assign(t, folder);
    variables_finish(t);
    locals_evaluate(t);
    for (guint i = 0; i < t->registries->len; i++)
        check_registry(t, t->registries->pdata[i]);
    builds_evaluate(t);
    list_blocks_evaluate(t);
    return t->diagnostics.count == 0 || fail_with_diagnostics(t, error);
}

static Source *input_source(Template *t, const char *name, GBytes *input)
{
    gsize size;
    const void *data = g_bytes_get_data(input, &size);

    return source_new(&t->diagnostics, name, size ? data : "", size);
}

bool template_check_syntax(const char *name, GBytes *text, json_t *sink, GError **error)
{
    g_autoptr(Template) t = template_new(".");
    Source *source = input_source(t, name, text);

    t->sink = json_incref(sink);
    if (source && g_str_has_suffix(name, ".json"))
        (void)parse_json_body(source, NULL, &t->diagnostics);
    else if (source)
        (void)parse_body(source, &t->diagnostics);
    return t->diagnostics.count == 0 || fail_with_diagnostics(t, error);
}

bool template_format(const char *name, GBytes *text, json_t *sink, char **ret_text, GError **error)
{
    gsize size;
    const char *data = g_bytes_get_data(text, &size);
    g_autofree char *copy = NULL, *text_after = NULL;
    gsize mark;

    if (!template_check_syntax(name, text, sink, error))
        return false;
    mark = size >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0; /* a byte order mark stays, outside of the layout */
    copy = g_strndup(data ? data + mark : "", size - mark);
    text_after = format_text(copy, size - mark);
    *ret_text = g_strconcat(mark ? "\xEF\xBB\xBF" : "", text_after, NULL);
    return true;
}

static bool is_folder(const char *path, const TemplateOptions *options)
{
    return !options->input && g_file_test(path, G_FILE_TEST_IS_DIR);
}

static void read_bodies(Template *t, const char *path, const GPtrArray *names)
{
    for (guint i = 0; i < names->len; i++) {
        Source *source = t->options->input ? input_source(t, path, t->options->input) : template_read(t, names->pdata[i]);

        if (source)
            g_ptr_array_add(t->bodies, parse_named(source, &t->diagnostics));
    }
}

/* A new template whose files are read into bodies. */
static bool open_template(const char *path, const TemplateOptions *options, Template **ret, GError **error)
{
    static const TemplateOptions none;
    g_autoptr(Template) t = NULL;
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *dir = NULL;

    if (!options)
        options = &none;
    if (!g_utf8_validate(path, -1, NULL))
        return fail_code(error, KILN_ERROR_USAGE, "the name of a template must be UTF-8 text");
    if (options->input)
        g_ptr_array_add(names, g_strdup(path));
    else if (!list_names(path, false, options->list_suffix, names, error))
        return false;
    dir = is_folder(path, options) ? g_strdup(path) : g_path_get_dirname(path);
    t = template_new(dir);
    t->options = options;
    t->place = g_canonicalize_filename(path, NULL);
    t->text = options->input ? g_bytes_ref(options->input) : NULL;
    t->sink = json_incref(options->diagnostics);
    read_bodies(t, path, names);
    *ret = g_steal_pointer(&t);
    return true;
}

bool template_load(const char *path, const TemplateOptions *options, Template **ret, GError **error)
{
    g_autoptr(Template) t = NULL;

    if (!open_template(path, options, &t, error) || !evaluate(t, is_folder(path, t->options) ? path : NULL, error))
        return false;
    t->options = NULL;
    *ret = g_steal_pointer(&t);
    return true;
}

bool template_plugins(const char *path, const TemplateOptions *options, json_t **ret, GError **error)
{
    g_autoptr(Template) t = NULL;

    if (!open_template(path, options, &t, error))
        return false;
    for (guint i = 0; i < t->bodies->len && t->diagnostics.count == 0; i++) {
        const Body *body = t->bodies->pdata[i];

        for (size_t j = 0; j < body->n_blocks; j++)
            if (strcmp(body->blocks[j]->type, "packer") == 0)
                check_packer(t, body->blocks[j]);
    }
    if (t->diagnostics.count > 0)
        return fail_with_diagnostics(t, error);
    *ret = json_incref(t->plugins);
    return true;
}

GPtrArray *template_builds(Template *template)
{
    return template->builds;
}

GPtrArray *template_list_blocks(Template *template)
{
    return template->list_blocks;
}

const char *template_dir(const Template *template)
{
    return template->dir;
}

GHashTable *template_files(Template *template)
{
    return template->files;
}

json_t *template_given(Template *template)
{
    g_autofree char *dir = g_canonicalize_filename(template->dir, NULL);
    json_t *values = json_object(), *sensitive = json_array(), *given;
    g_autoptr(json_t) rebased = json_array();

    for (guint i = 0; i < template->variables->len; i++) {
        const Variable *variable = template->variables->pdata[i];

        if (!variable->sensitive)
            json_object_set_new(values, variable->name, value_to_json(variable->value));
        else if (variable->origin)
            json_array_append_new(sensitive, json_string(variable->name));
    }
    given = json_pack("{s:s, s:s, s:o, s:o}", "template", template->place, "dir", dir, "variables", values, "sensitive", sensitive);
    for (guint i = 0; i < template->rebased->len; i++)
        json_array_append_new(rebased, json_string_nocheck(template->rebased->pdata[i]));
    if (json_array_size(rebased))
        json_object_set(given, "rebase", rebased);
    return given;
}

GBytes *template_given_text(const Template *template)
{
    return template->text;
}

bool template_evaluate(Template *template, const char *expression, json_t **ret, GError **error)
{
    g_autoptr(Template) own = template ? NULL : template_new(".");
    Template *t = template ? template : own;
    Diagnostics said;
    Source *source;
    Expr *expr = NULL;
    Value *value = NULL;
    EvalContext context;

    diagnostics_init(&said, t->arena);
    source = source_new(&said, "expression", expression, strlen(expression));
    if (source)
        expr = parse_expression(source, &said);
    if (expr) {
        template_context(t, NULL, &context);
        context.diagnostics = &said;
        value = eval_expr(&context, expr);
    }
    if (said.count > 0) {
        g_autofree char *text = diagnostics_format(&said);

        diagnostics_clear(&said);
        return fail_code(error, KILN_ERROR_USAGE, "%s", text);
    }
    diagnostics_clear(&said);
    *ret = value_is_sensitive(value) ? json_string("<sensitive>") : value_to_json(value);
    return true;
}
