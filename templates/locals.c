/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locals: each is evaluated once, after those it refers to, whatever their order in the text.
 */
#include "templates/template-private.h"

#include <string.h>

enum { CHAIN_MAX = 1000 };

static Local *find_local(Template *t, const char *name)
{
    return g_hash_table_lookup(t->named_locals, name);
}

static void add_local(Template *t, const char *name, Expr *expr, Range range, bool sensitive)
{
    const Local *other = find_local(t, name);
    Local *local = arena_new0(t->arena, Local, 1);

    if (other) {
        diagnose(&t->diagnostics, range, "the local value '%s' is defined twice; the first is in %s on line %u", name,
                 other->range.source->name, range_start(other->range).line);
        return;
    }
    *local = (Local){ .name = name, .expr = expr, .range = range, .sensitive = sensitive };
    g_ptr_array_add(t->locals, local);
    g_hash_table_insert(t->named_locals, (gpointer)name, local);
}

static void declare_one(Template *t, const Block *block)
{
    static const char *const what[] = { "NAME" };
    static const char *const attributes[] = { "expression", "sensitive", NULL };
    static const char *const blocks[] = { NULL };
    BlockUse use = { .type = block->type, .n_labels = block->n_labels, .header = block->header };
    const Attribute *expression = body_attribute(block->body, "expression");

    if (!check_labels(t, &use, 1, what) || !check_identifier(t, block, block->labels[0]))
        return;
    check_body(t, block->body, "'local'", attributes, blocks);
    if (!expression)
        diagnose(&t->diagnostics, block->header, "'local' needs the argument 'expression'");
    else
        add_local(t, block->labels[0], expression->expr, block->header,
                  body_bool(t, block->body, "sensitive", NULL, false));
}

void locals_declare(Template *t, const Block *block)
{
    if (strcmp(block->type, "local") == 0) {
        declare_one(t, block);
        return;
    }
    for (size_t i = 0; i < block->body->n_attributes; i++) {
        const Attribute *attribute = block->body->attributes[i];

        add_local(t, attribute->name, attribute->expr, attribute->name_range, false);
    }
    for (size_t i = 0; i < block->body->n_blocks; i++)
        diagnose(&t->diagnostics, block->body->blocks[i]->type_range, "'locals' holds only NAME = VALUE");
}

typedef struct Visit {
    Template *t;
    Local *local;
    unsigned depth;
    ValueFields *needed; /* what it refers to */
    bool whole;          /* all are to be shown to it: it asks for all, or for one that is not there */
} Visit;

static void evaluate_local(Template *t, Local *local, unsigned depth);

static void visit_reference(void *arg, const char *root, const char *name, Range range)
{
    Visit *visit = arg;
    Local *needed;

    if (strcmp(root, "data") == 0)
        data_evaluate_type(visit->t, name, visit->depth + 1);
    if (strcmp(root, "local") != 0)
        return;
    if (!name) { /* all of them, except what waits for this one */
        for (guint i = 0; i < visit->t->locals->len; i++)
            if (((Local *)visit->t->locals->pdata[i])->state == LOCAL_NEW)
                evaluate_local(visit->t, visit->t->locals->pdata[i], visit->depth + 1);
        visit->whole = true;
        return;
    }
    needed = find_local(visit->t, name);
    if (!needed) { /* the evaluation complains, unless a try() saves it */
        visit->whole = true;
        return;
    }
    if (needed->state == LOCAL_BUSY)
        diagnose(&visit->t->diagnostics, range, needed == visit->local ? "the local value '%s' needs itself"
                                                                       : "the local value '%s' needs itself, through others",
                 needed->name);
    else
        evaluate_local(visit->t, needed, visit->depth + 1);
    if (needed->value)
        value_fields_put(visit->needed, needed->name, needed->value);
}

static Value *known_locals(Template *t)
{
    ValueFields fields;

    value_fields_init(&fields);
    for (guint i = 0; i < t->locals->len; i++) {
        const Local *local = t->locals->pdata[i];

        if (local->value)
            value_fields_put(&fields, local->name, local->value);
    }
    return value_fields_object(&fields, t->arena);
}

static void evaluate_local(Template *t, Local *local, unsigned depth)
{
    ValueFields needed;
    Visit visit = { t, local, depth, &needed, false };
    unsigned before = t->diagnostics.count;
    Value *shown;
    EvalContext context;

    if (local->state != LOCAL_NEW)
        return;
    local->state = LOCAL_BUSY;
    value_fields_init(&needed);
    if (depth > CHAIN_MAX)
        diagnose(&t->diagnostics, local->range, "more than %d local values need each other in a row", CHAIN_MAX);
    else
        expr_references(local->expr, visit_reference, &visit);
    shown = value_fields_object(&needed, t->arena);
    if (t->diagnostics.count == before) {
        t->local = visit.whole ? known_locals(t) : shown;
        template_context(t, NULL, &context);
        local->value = value_mark(t->arena, eval_expr(&context, local->expr), local->sensitive);
    } else {
        local->value = value_unknown(t->arena, &type_any);
    }
    local->state = LOCAL_DONE;
}

void locals_need(Template *t, const Expr *expr, unsigned depth)
{
    ValueFields needed;
    Visit visit = { t, NULL, depth, &needed, false };

    value_fields_init(&needed);
    if (depth <= CHAIN_MAX)
        expr_references(expr, visit_reference, &visit);
    g_hash_table_unref(needed.table);
    t->local = known_locals(t);
}

void locals_evaluate(Template *t)
{
    data_evaluate_type(t, NULL, 0);
    for (guint i = 0; i < t->locals->len; i++)
        evaluate_local(t, t->locals->pdata[i], 0);
    t->local = known_locals(t);
}
