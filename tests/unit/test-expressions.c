/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of expressions, tests/data/language/expressions.txt: each has a value with its type, or a mistake with its exact
 * range. The file says how it is written; a new case is two lines there.
 */
#include "templates/language/eval.h"
#include "templates/language/json.h"
#include "templates/language/parser.h"
#include "templates/language/types.h"

#include <string.h>

#define TABLE "tests/data/language/expressions.txt"

enum { CASES_LEAST = 600 };

typedef struct Case {
    unsigned line;     /* of the file */
    GString *text;     /* the expression */
    char *value, *type, *mistake; /* borrowed from the file's lines; NULL: not said */
} Case;

/* What the names mean: a known object, and two values that are not known yet. */
static Scope *names(Arena *arena)
{
    static const char *const known[] = { "path", "unk", "unks" };
    Value **values = arena_new0(arena, Value *, 3);
    Scope *scope = arena_new0(arena, Scope, 1);
    ValueFields fields;

    value_fields_init(&fields);
    value_fields_put(&fields, "root", value_string(arena, "."));
    values[0] = value_fields_object(&fields, arena);
    values[1] = value_unknown(arena, &type_any);
    values[2] = value_unknown(arena, &type_string);
    *scope = (Scope){ .names = known, .values = values, .n = 3 };
    return scope;
}

/* "= VALUE : TYPE", or "! RANGE sentence" of the first mistake. */
static char *outcome(const char *text, char **ret_type)
{
    g_autoptr(Arena) arena = arena_new();
    Diagnostics diagnostics;
    EvalContext context = { .arena = arena, .diagnostics = &diagnostics, .scope = names(arena), .base_dir = "." };
    const Source *source;
    const Expr *expr;
    Value *value;
    char *result;

    diagnostics_init(&diagnostics, arena);
    source = source_new(&diagnostics, "expression", text, strlen(text));
    expr = source ? parse_expression(source, &diagnostics) : NULL;
    value = expr ? eval_expr(&context, expr) : NULL;
    if (diagnostics.count > 0) {
        const Diagnostic *first = diagnostics.list->pdata[0];
        Position from = range_start(first->range), to = range_end(first->range);

        result = g_strdup_printf("%u:%u-%u:%u %s", from.line, from.column, to.line, to.column, first->text);
    } else {
        *ret_type = type_name(value->type);
        result = value_is_wholly_known(value) ? value_to_json_text(value) : g_strdup("<unknown>");
    }
    diagnostics_clear(&diagnostics);
    return result;
}

static void check(const Case *c)
{
    g_autofree char *type = NULL;
    g_autofree char *got = outcome(c->text->str, &type);
    bool good = c->mistake ? !type && g_str_has_prefix(got, c->mistake)
                           : type && strcmp(got, c->value) == 0 && (!c->type || strcmp(type, c->type) == 0);

    if (good)
        return;
    g_test_message("line %u: %s\n  gives %s : %s\n  not   %s", c->line, c->text->str, got, type ? type : "a mistake",
                   c->mistake ? c->mistake : c->value);
    g_test_fail();
}

static void test_table(void)
{
    g_autofree char *path = g_test_build_filename(G_TEST_DIST, "..", "..", TABLE, NULL), *all = NULL;
    g_auto(GStrv) lines = NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    Case c = { .text = text };
    unsigned n = 0;

    g_assert_true(g_file_get_contents(path, &all, NULL, NULL));
    lines = g_strsplit(all, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        char *line = lines[i];

        if (g_str_has_prefix(line, "> ")) {
            g_string_append_printf(text, "%s%s", text->len ? "\n" : "", line + 2);
        } else if (g_str_has_prefix(line, "= ") || g_str_has_prefix(line, "! ")) {
            c.line = i + 1;
            c.value = *line == '=' ? line + 2 : NULL;
            c.mistake = *line == '!' ? line + 2 : NULL;
            c.type = c.value && lines[i + 1] && g_str_has_prefix(lines[i + 1], ": ") ? lines[i + 1] + 2 : NULL;
            check(&c);
            g_string_truncate(text, 0);
            n++;
        }
    }
    g_test_message("%u expressions", n);
    g_assert_cmpuint(n, >=, CASES_LEAST);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/expressions/each-has-its-value-or-its-mistake", test_table);
    return g_test_run();
}
