/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that is called as HCL's own `hcldec` is, so that HCL's specification suite can judge the language here:
 *
 *     hclspecsuite TESTS/ build/hcldec
 *     build/hcldec --spec=FILE [--diags=json] [--with-type] [--keep-nulls] [--var-refs] INPUT
 *
 * The value goes to standard output; mistakes go to standard error and the status is 2. It is not installed.
 */
#include "templates/template-private.h"
#include "tests/unit/hcl-spec-support.h"

#include <stdio.h>
#include <string.h>

typedef struct Call {
    const char *spec, *input;
    bool with_type, keep_nulls, var_refs, json;
} Call;

static bool parse_arguments(Call *call, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (g_str_has_prefix(argv[i], "--spec="))
            call->spec = argv[i] + strlen("--spec=");
        else if (strcmp(argv[i], "--diags=json") == 0)
            call->json = true;
        else if (strcmp(argv[i], "--with-type") == 0)
            call->with_type = true;
        else if (strcmp(argv[i], "--keep-nulls") == 0)
            call->keep_nulls = true;
        else if (strcmp(argv[i], "--var-refs") == 0)
            call->var_refs = true;
        else if (argv[i][0] == '-' || call->input)
            return false;
        else
            call->input = argv[i];
    }
    return call->spec && call->input;
}

static const Source *read_source(const char *path, Diagnostics *diagnostics)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    gsize size;

    if (g_file_get_contents(path, &text, &size, &error))
        return source_new(diagnostics, path, text, size);
    diagnose(diagnostics, (Range){ 0 }, "%s", error->message);
    return NULL;
}

static int tell_mistakes(const Call *call, const Diagnostics *diagnostics)
{
    g_autofree char *text = diagnostics_format(diagnostics);
    json_t *list = json_array(), *whole = json_pack("{s:o}", "diagnostics", list);

    diagnostics_collect(diagnostics, list);
    if (call->json)
        (void)json_dumpf(whole, stderr, JSON_INDENT(2));
    else
        fputs(text, stderr);
    fputc('\n', stderr);
    json_decref(whole);
    return 2;
}

static int run(const Call *call, Diagnostics *diagnostics)
{
    const Source *source = read_source(call->spec, diagnostics);
    Scope *scope = NULL;
    const HclSpec *spec = source ? hcl_spec_load(source, diagnostics, &scope) : NULL;
    const Source *input = spec ? read_source(call->input, diagnostics) : NULL;
    const Body *body = input ? hcl_spec_parse(spec, input, diagnostics) : NULL;
    g_autofree char *text = NULL;
    Value *value;

    if (diagnostics->count > 0)
        return tell_mistakes(call, diagnostics);
    if (call->var_refs) {
        json_t *found = hcl_spec_variables(spec, body);

        (void)json_dumpf(found, stdout, JSON_INDENT(2));
        puts("");
        json_decref(found);
        return 0;
    }
    value = hcl_spec_decode(spec, body, scope, diagnostics);
    if (diagnostics->count > 0)
        return tell_mistakes(call, diagnostics);
    text = hcl_value_text(value, call->with_type, call->keep_nulls);
    puts(text);
    return 0;
}

int main(int argc, char **argv)
{
    g_autoptr(Arena) arena = arena_new();
    Diagnostics diagnostics;
    Call call = { 0 };
    int status;

    if (!parse_arguments(&call, argc, argv)) {
        fputs("usage: hcldec --spec=FILE [--diags=json] [--with-type] [--keep-nulls] [--var-refs] INPUT\n", stderr);
        return 2;
    }
    diagnostics_init(&diagnostics, arena);
    status = run(&call, &diagnostics);
    diagnostics_clear(&diagnostics);
    return status;
}
