/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cases of tests/data/language/suite/, in the form of HCL's own specification suite: NAME.hcldec says what a body holds,
 * NAME.hcl (and NAME.hcl.json) is one, and NAME.t, which is HCL too, says what comes out:
 *
 *     result = VALUE    result_type = TYPE
 *     diagnostics { error { from { line column byte } to { ... } } ... }      all of them, by range
 *     traversals { expect { ref = a.b[0]  from {...} to {...} } ... }
 *
 * HCL's runner takes this folder as well: tests/long/15-hcl-judges.sh.
 */
#include "hcl-spec-support.h"

#include "templates/language/json.h"

#include <string.h>

#define SUITE "tests/data/language/suite"

typedef struct Case {
    Diagnostics expected, got; /* mistakes of the .t file, and of the case */
    const Body *said;
    HclSpec *spec;
    Scope *scope;
    Body *body;
} Case;

static const Source *read_source(const char *path, Diagnostics *diagnostics)
{
    g_autofree char *text = NULL;
    gsize size;

    return g_file_get_contents(path, &text, &size, NULL) ? source_new(diagnostics, path, text, size) : NULL;
}

static const Block *block_in(const Body *body, const char *type)
{
    for (size_t i = 0; body && i < body->n_blocks; i++)
        if (strcmp(body->blocks[i]->type, type) == 0)
            return body->blocks[i];
    return NULL;
}

static int64_t number_in(const Block *block, const char *name)
{
    const Attribute *attribute = block ? body_attribute(block->body, name) : NULL;
    int64_t number = -1;

    return attribute && number_to_int(attribute->expr->value->number, &number) ? number : -1;
}

static char *place(const Block *block, const char *end)
{
    const Block *position = block_in(block->body, end);

    return g_strdup_printf("%d:%d:%d", (int)number_in(position, "line"), (int)number_in(position, "column"), (int)number_in(position, "byte"));
}

static char *position_text(Position position)
{
    return g_strdup_printf("%u:%u:%zu", position.line, position.column, position.byte);
}

static void check_range(const Block *wanted, Range range)
{
    g_autofree char *from = place(wanted, "from"), *to = place(wanted, "to");
    g_autofree char *start = position_text(range_start(range)), *end = position_text(range_end(range));

    g_assert_cmpstr(start, ==, from);
    g_assert_cmpstr(end, ==, to);
}

static void check_mistakes(const Case *c, const Block *diagnostics)
{
    g_assert_cmpuint(c->got.list->len, ==, diagnostics->body->n_blocks);
    for (size_t i = 0; i < diagnostics->body->n_blocks; i++)
        check_range(diagnostics->body->blocks[i], ((Diagnostic *)c->got.list->pdata[i])->range);
}

static Value *expected_value(Case *c, const Type **ret_type)
{
    const Attribute *result = body_attribute(c->said, "result"), *type = body_attribute(c->said, "result_type");
    EvalContext context = { .arena = c->expected.arena, .diagnostics = &c->expected };
    Value *value;

    *ret_type = type ? type_parse(&context, type->expr) : &type_any;
    if (!result)
        return NULL;
    value = eval_as(&context, result->expr, *ret_type, "result");
    g_assert_nonnull(value);
    return value;
}

static void check_value(Case *c)
{
    const Type *type;
    Value *expected = expected_value(c, &type);
    Value *value = hcl_spec_decode(c->spec, c->body, c->scope, &c->got);
    g_autofree char *got = value_to_json_text(value), *wanted = expected ? value_to_json_text(expected) : NULL;

    g_assert_cmpuint(c->got.count, ==, 0);
    if (wanted)
        g_assert_cmpstr(got, ==, wanted);
    if (type->kind != TYPE_ANY) {
        g_autofree char *got_type = type_name(value->type), *wanted_type = type_name(type);

        g_assert_cmpstr(got_type, ==, wanted_type);
    }
}

static int step_place(const json_t *step, const char *end, const char *what)
{
    return (int)json_integer_value(json_object_get(json_object_get(json_object_get(step, "range"), end), what));
}

/* The chain as it is written: "a", ".b", "[0]". */
static char *chain_text(const json_t *steps)
{
    GString *text = g_string_new(NULL);
    json_t *step;
    size_t i;

    json_array_foreach((json_t *)steps, i, step) {
        const char *kind = json_string_value(json_object_get(step, "kind")), *name = json_string_value(json_object_get(step, "name"));

        if (strcmp(kind, "index") == 0)
            g_string_append_printf(text, "[%d]", (int)json_integer_value(json_object_get(step, "key")));
        else
            g_string_append_printf(text, "%s%s", strcmp(kind, "attr") == 0 ? "." : "", name);
    }
    return g_string_free(text, FALSE);
}

static void check_traversals(const Case *c, const Block *traversals)
{
    json_t *found = hcl_spec_variables(c->spec, c->body);

    g_assert_cmpuint(json_array_size(found), ==, traversals->body->n_blocks);
    for (size_t i = 0; i < traversals->body->n_blocks; i++) {
        const Block *expect = traversals->body->blocks[i];
        const Expr *ref = body_attribute(expect->body, "ref")->expr;
        const json_t *steps = json_object_get(json_array_get(found, i), "steps");
        const json_t *first = json_array_get(steps, 0), *last = json_array_get(steps, json_array_size(steps) - 1);
        g_autofree char *chain = chain_text(steps);
        g_autofree char *wanted = g_strndup(ref->range.source->text + ref->range.start, ref->range.end - ref->range.start);

        g_assert_cmpstr(chain, ==, wanted);
        g_assert_cmpint(step_place(first, "start", "byte"), ==, number_in(block_in(expect->body, "from"), "byte"));
        g_assert_cmpint(step_place(last, "end", "byte"), ==, number_in(block_in(expect->body, "to"), "byte"));
        g_assert_cmpint(step_place(last, "end", "column"), ==, number_in(block_in(expect->body, "to"), "column"));
    }
    json_decref(found);
}

static void run(const char *base, const char *suffix)
{
    g_autoptr(Arena) arena = arena_new();
    g_autofree char *expected = g_strconcat(base, ".t", NULL), *spec = g_strconcat(base, ".hcldec", NULL);
    g_autofree char *input = g_strconcat(base, suffix, NULL);
    Case c = { 0 };

    g_test_message("%s", input);
    diagnostics_init(&c.expected, arena);
    diagnostics_init(&c.got, arena);
    c.said = parse_body(read_source(expected, &c.expected), &c.expected);
    c.spec = hcl_spec_load(read_source(spec, &c.expected), &c.expected, &c.scope);
    g_assert_cmpuint(c.expected.count, ==, 0);
    c.body = hcl_spec_parse(c.spec, read_source(input, &c.got), &c.got);
    if (block_in(c.said, "diagnostics")) {
        if (c.got.count == 0)
            (void)hcl_spec_decode(c.spec, c.body, c.scope, &c.got);
        check_mistakes(&c, block_in(c.said, "diagnostics"));
    } else {
        check_value(&c);
    }
    if (block_in(c.said, "traversals"))
        check_traversals(&c, block_in(c.said, "traversals"));
    diagnostics_clear(&c.expected);
    diagnostics_clear(&c.got);
}

static void test_suite(void)
{
    g_autofree char *folder = g_test_build_filename(G_TEST_DIST, "..", "..", SUITE, NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    unsigned n = 0;

    g_assert_nonnull(dir);
    for (; (name = g_dir_read_name(dir)); n += g_str_has_suffix(name, ".t")) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_autofree char *base = g_strndup(path, strlen(path) - 2), *json = g_strconcat(base, ".hcl.json", NULL);

        if (!g_str_has_suffix(name, ".t"))
            continue;
        run(base, ".hcl");
        if (g_file_test(json, G_FILE_TEST_EXISTS))
            run(base, ".hcl.json");
    }
    g_assert_cmpuint(n, >=, 15);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hcl-suite/every-case-passes", test_suite);
    return g_test_run();
}
