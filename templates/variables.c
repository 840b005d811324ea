/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Variables. A value comes from, the later ones winning:
 *
 *     default < PKR_VAR_NAME < *.auto.pkrvars.hcl < *.auto.pkrvars.json < -var-file in order < -var
 *
 * Text from the environment and -var is taken as it is for strings and numbers, and read as an
 * expression for other types.
 */
#include "templates/language/json.h"
#include "templates/language/types.h"
#include "templates/template-private.h"

#include <string.h>

enum { CHAINS_MAX = 10 };

extern char **environ;

static Variable *find_variable(Template *t, const char *name)
{
    return g_hash_table_lookup(t->named_variables, name);
}

static Variable *add_variable(Template *t, const char *name, Range range)
{
    const Variable *other = find_variable(t, name);
    Variable *variable;

    if (other) {
        diagnose(&t->diagnostics, range, "the variable '%s' is declared twice; the first is in %s on line %u", name,
                 other->range.source->name, range_start(other->range).line);
        return NULL;
    }
    variable = arena_new0(t->arena, Variable, 1);
    variable->name = name;
    variable->range = range;
    variable->type = &type_any;
    g_ptr_array_add(t->variables, variable);
    g_hash_table_insert(t->named_variables, (gpointer)name, variable);
    return variable;
}

/* Without a type the default says it, except [] and {}, which say nothing about their elements. */
static void take_default(Template *t, Variable *variable, const Expr *expr)
{
    EvalContext context;
    Scope nothing = { 0 };
    g_autofree char *what = g_strdup_printf("the default of variable '%s'", variable->name);

    template_context(t, &nothing, &context);
    context.allow_env = true;
    variable->value = eval_as(&context, expr, variable->type, what);
    if (!variable->value) {
        variable->value = value_unknown(t->arena, variable->type);
        return;
    }
    if (variable->type->kind == TYPE_ANY && value_is_wholly_known(variable->value) &&
        (type_is_primitive(variable->value->type) || variable->value->n > 0))
        variable->type = variable->value->type;
}

static const Type *parse_type(Template *t, const Expr *expr)
{
    EvalContext context;
    Scope nothing = { 0 };
    const Type *type;

    template_context(t, &nothing, &context);
    type = type_parse(&context, expr);
    return type ? type : &type_any;
}

void variables_declare(Template *t, const Block *block)
{
    static const char *const what[] = { "NAME" };
    static const char *const attributes[] = { "type", "default", "description", "sensitive", NULL };
    static const char *const blocks[] = { "validation", NULL };
    BlockUse use = { .type = block->type, .n_labels = block->n_labels, .header = block->header };
    const Attribute *type = body_attribute(block->body, "type");
    const Attribute *otherwise = body_attribute(block->body, "default");
    Variable *variable;

    if (!check_labels(t, &use, 1, what) || !check_identifier(t, block, block->labels[0]) || !(variable = add_variable(t, block->labels[0], block->header)))
        return;
    variable->block = (Block *)block;
    check_body(t, block->body, "a variable", attributes, blocks);
    if (type)
        variable->type = parse_type(t, type->expr);
    variable->sensitive = body_bool(t, block->body, "sensitive", NULL, false);
    (void)body_string(t, block->body, "description", NULL, NULL);
    if (otherwise) {
        variable->has_default = true;
        take_default(t, variable, otherwise->expr);
    }
}

void variables_declare_old(Template *t, const Block *block)
{
    for (size_t i = 0; i < block->body->n_attributes; i++) {
        const Attribute *attribute = block->body->attributes[i];
        Variable *variable = add_variable(t, attribute->name, attribute->name_range);

        if (!variable)
            continue;
        variable->has_default = true;
        take_default(t, variable, attribute->expr);
    }
    for (size_t i = 0; i < block->body->n_blocks; i++)
        diagnose(&t->diagnostics, block->body->blocks[i]->type_range, "'variables' holds only NAME = DEFAULT");
}

/* --- values from outside --- */

static bool takes_text(const Type *type)
{
    return type->kind == TYPE_ANY || type->kind == TYPE_STRING || type->kind == TYPE_NUMBER;
}

static void assign(Template *t, Variable *variable, Value *value, Range range)
{
    const char *why = NULL;
    Value *converted = value_convert(t->arena, value, variable->type, &why);

    if (converted) {
        variable->value = converted;
        variable->origin = range.source ? range.source->name : NULL;
    } else
        diagnose(&t->diagnostics, range, "the value for variable '%s' does not fit its type: %s", variable->name, why);
}

static void assign_text(Template *t, Variable *variable, const char *origin, const char *text)
{
    Source *source = source_new(&t->diagnostics, origin, text, strlen(text));
    Range range;
    Value *value = NULL;

    if (!source)
        return;
    range = (Range){ source, 0, (uint32_t)source->size };
    if (takes_text(variable->type)) {
        value = value_string(t->arena, source->text);
    } else {
        Expr *expr = parse_expression(source, &t->diagnostics);
        Scope nothing = { 0 };
        EvalContext context;

        template_context(t, &nothing, &context);
        value = expr ? eval_as(&context, expr, &type_any, "the value") : NULL;
    }
    if (value)
        assign(t, variable, value, range);
}

static void assign_environment(Template *t)
{
    for (guint i = 0; i < t->variables->len; i++) {
        Variable *variable = t->variables->pdata[i];
        g_autofree char *name = g_strconcat("PKR_VAR_", variable->name, NULL);
        const char *text = g_getenv(name);

        if (text)
            assign_text(t, variable, name, text);
    }
}

/* Names that nobody declared are ignored, so that several templates may share a file. */
static void assign_body(Template *t, const Source *source)
{
    Body *body = parse_body(source, &t->diagnostics);
    Scope nothing = { 0 };
    EvalContext context;

    template_context(t, &nothing, &context);
    for (size_t i = 0; i < body->n_blocks; i++)
        diagnose(&t->diagnostics, body->blocks[i]->header, "%s",
                 strcmp(body->blocks[i]->type, "variable") == 0
                     ? "a variable is declared in the template; a file of values holds only NAME = VALUE"
                     : "a file of values holds only NAME = VALUE");
    for (size_t i = 0; i < body->n_attributes; i++) {
        Variable *variable = find_variable(t, body->attributes[i]->name);
        const Expr *expr = body->attributes[i]->expr;
        Value *value = variable ? eval_as(&context, expr, &type_any, "the value") : NULL;

        if (value)
            assign(t, variable, value, expr->range);
    }
}

static void assign_json(Template *t, const Source *source)
{
    Expr *object = parse_json_value(source, &t->diagnostics);
    Scope nothing = { 0 };
    EvalContext context;

    if (!object)
        return;
    if (object->kind != EXPR_OBJECT) {
        diagnose(&t->diagnostics, object->range, "a file of values is a JSON object");
        return;
    }
    template_context(t, &nothing, &context);
    for (size_t i = 0; i < object->n_items; i += 2) {
        Variable *variable = find_variable(t, object->items[i]->value->string);

        if (variable)
            assign(t, variable, eval_expr(&context, object->items[i + 1]), object->items[i + 1]->range);
    }
}

static void assign_file(Template *t, const char *path)
{
    Source *source = template_read(t, path);

    if (!source)
        return;
    if (g_str_has_suffix(path, ".json"))
        assign_json(t, source);
    else
        assign_body(t, source);
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void assign_auto_files(Template *t, const char *folder, const char *suffix)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    const char *name;

    while (dir && (name = g_dir_read_name(dir)))
        if (g_str_has_suffix(name, suffix) && name[0] != '.')
            g_ptr_array_add(names, g_build_filename(folder, name, NULL));
    g_ptr_array_sort(names, compare_names);
    for (guint i = 0; i < names->len; i++)
        assign_file(t, names->pdata[i]);
}

static void assign_option(Template *t, const char *option)
{
    const char *equals = strchr(option, '=');
    g_autofree char *name = equals ? g_strstrip(g_strndup(option, (gsize)(equals - option))) : NULL;
    g_autofree char *origin = NULL;
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    Variable *variable;

    if (!equals) {
        diagnose(&t->diagnostics, (Range){ 0 }, "-var '%s' has no '='; it is written -var NAME=VALUE", option);
        return;
    }
    variable = find_variable(t, name);
    if (variable) {
        origin = g_strdup_printf("-var %s", name);
        assign_text(t, variable, origin, equals + 1);
        return;
    }
    for (guint i = 0; i < t->variables->len; i++)
        g_ptr_array_add(names, (gpointer)((Variable *)t->variables->pdata[i])->name);
    g_ptr_array_add(names, NULL);
    diagnose(&t->diagnostics, (Range){ 0 }, "-var %s: the template declares no variable '%s'%s", name, name,
             did_you_mean(t->arena, name, (const char *const *)names->pdata));
}

void variables_assign(Template *t, const char *folder)
{
    const TemplateOptions *options = t->options;

    assign_environment(t);
    if (folder) {
        assign_auto_files(t, folder, ".auto.pkrvars.hcl");
        assign_auto_files(t, folder, ".auto.pkrvars.json");
    }
    for (size_t i = 0; options->var_files && options->var_files[i]; i++)
        assign_file(t, options->var_files[i]);
    for (size_t i = 0; options->vars && options->vars[i]; i++)
        assign_option(t, options->vars[i]);
}

/* --- validation --- */

typedef struct ConditionCheck {
    Template *t;
    const Variable *variable;
    bool used;
} ConditionCheck;

static void check_reference(void *arg, const char *root, const char *name, Range range)
{
    ConditionCheck *check = arg;

    if (strcmp(root, "var") != 0)
        return;
    if (name && strcmp(name, check->variable->name) == 0)
        check->used = true;
    else
        diagnose(&check->t->diagnostics, range, "the condition of variable '%s' may look at var.%s only",
                 check->variable->name, check->variable->name);
}

static void validate(Template *t, const Variable *variable, const Block *block, const Scope *scope)
{
    static const char *const attributes[] = { "condition", "error_message", NULL };
    static const char *const blocks[] = { NULL };
    const Attribute *condition = body_attribute(block->body, "condition");
    const Attribute *message = body_attribute(block->body, "error_message");
    ConditionCheck check = { t, variable, false };
    unsigned before = t->diagnostics.count;
    EvalContext context;
    const char *text;
    Value *value;

    check_body(t, block->body, "'validation'", attributes, blocks);
    if (!condition || !message) {
        diagnose(&t->diagnostics, block->header, "'validation' needs both condition and error_message");
        return;
    }
    expr_references(condition->expr, check_reference, &check);
    if (!check.used && t->diagnostics.count == before)
        diagnose(&t->diagnostics, condition->expr->range, "this condition does not look at var.%s", variable->name);
    text = body_string(t, block->body, "error_message", scope, NULL);
    if (t->diagnostics.count != before || !text)
        return;
    template_context(t, scope, &context);
    value = eval_as(&context, condition->expr, &type_bool, "'condition'");
    if (value && value->state == VALUE_NULL)
        diagnose(&t->diagnostics, condition->expr->range, "this condition is null, neither true nor false");
    else if (value && value->state == VALUE_KNOWN && !value->boolean)
        diagnose(&t->diagnostics, condition->expr->range, "the value of variable '%s' is refused: %s", variable->name, text);
}

static void finish_variable(Template *t, Variable *variable, ValueFields *fields)
{
    bool explain = t->diagnostics.count < CHAINS_MAX; /* each takes a walk over the template */

    if (!variable->value && !t->options->allow_unset)
        diagnose(&t->diagnostics, variable->range,
                 "the variable '%s' has no value; give it with -var %s=VALUE, with -var-file or as PKR_VAR_%s%s", variable->name,
                 variable->name, variable->name, explain ? chain_of_needs(t, "var", variable->name) : "");
    if (!variable->value)
        variable->value = value_unknown(t->arena, variable->type);
    variable->value = value_mark(t->arena, variable->value, variable->sensitive);
    value_fields_put(fields, variable->name, variable->value);
}

void variables_finish(Template *t)
{
    ValueFields all;

    value_fields_init(&all);
    for (guint i = 0; i < t->variables->len; i++) {
        Variable *variable = t->variables->pdata[i];
        const Body *body = variable->block ? variable->block->body : NULL;
        ValueFields own;
        const Scope *scope;

        finish_variable(t, variable, &all);
        value_fields_init(&own);
        value_fields_put(&own, variable->name, variable->value);
        scope = scope_with(t->arena, NULL, "var", value_fields_object(&own, t->arena));
        for (size_t j = 0; body && j < body->n_blocks; j++)
            if (strcmp(body->blocks[j]->type, "validation") == 0)
                validate(t, variable, body->blocks[j], scope);
    }
    t->var = value_fields_object(&all, t->arena);
}
