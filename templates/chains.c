/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who needs a value: from a variable that has none over the locals to the block that wants it, for the message that says so.
 *
 *     the variable 'release' has no value; ...; local.image needs it, and source.disk.base needs that
 */
#include "templates/template-private.h"

#include <string.h>

enum { STEPS_MAX = 6 };

typedef struct Search {
    const char *root, *name;
    bool found;
} Search;

static void look(void *arg, const char *root, const char *name, Range range)
{
    Search *search = arg;

    (void)range;
    search->found = search->found || (strcmp(root, search->root) == 0 && name && strcmp(name, search->name) == 0);
}

static bool needs(const Expr *expr, const char *root, const char *name)
{
    Search search = { root, name, false };

    expr_references(expr, look, &search);
    return search.found;
}

static bool body_needs(const Body *body, const char *root, const char *name)
{
    for (size_t i = 0; i < body->n_attributes; i++)
        if (needs(body->attributes[i]->expr, root, name))
            return true;
    for (size_t i = 0; i < body->n_blocks; i++)
        if (body_needs(body->blocks[i]->body, root, name))
            return true;
    return false;
}

static const char *block_name(Template *t, const Block *block)
{
    g_autoptr(GString) text = g_string_new(block->type);

    for (size_t i = 0; i < block->n_labels; i++)
        g_string_append_printf(text, ".%s", block->labels[i]);
    return arena_strdup(t->arena, text->str);
}

static const Block *needing_block(const Body *body, const char *root, const char *name)
{
    for (size_t i = 0; i < body->n_blocks; i++) {
        const Block *block = body->blocks[i];
        const char *type = block->type;
        const Block *inner;

        if (strcmp(type, "variable") == 0 || strcmp(type, "local") == 0 || strcmp(type, "locals") == 0 || !body_needs(block->body, root, name))
            continue;
        inner = strcmp(type, "build") == 0 ? needing_block(block->body, root, name) : NULL;
        return inner ? inner : block;
    }
    return NULL;
}

static const Local *needing_local(Template *t, const char *root, const char *name)
{
    for (guint i = 0; i < t->locals->len; i++)
        if (needs(((Local *)t->locals->pdata[i])->expr, root, name))
            return t->locals->pdata[i];
    return NULL;
}

const char *chain_of_needs(Template *t, const char *root, const char *name)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (unsigned step = 0; step < STEPS_MAX; step++) {
        const Local *local = needing_local(t, root, name);
        const Block *block = NULL;

        for (guint i = 0; !local && !block && i < t->bodies->len; i++)
            block = needing_block(t->bodies->pdata[i], root, name);
        if (!local && !block)
            break;
        g_string_append_printf(text, "%s%s%s needs %s", step ? ", and " : "; ", local ? "local." : "", local ? local->name : block_name(t, block),
                               step ? "that" : "it");
        if (!local)
            break;
        root = "local";
        name = local->name;
    }
    return arena_strdup(t->arena, text->str);
}
