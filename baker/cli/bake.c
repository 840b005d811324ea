/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln bake (also: build): bakes every build of the named templates, in order.
 */
#include "baker/cli/cli.h"

#include "baker/bake.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>

typedef struct BakeCall {
    CliContext *cli;
    TemplateOptions template_options;
    BakeOptions options;
    json_t *artifacts; /* for --json */
    json_t *bakes;
} BakeCall;

static void print_summary(const TemplateBuild *build, const BakeResult *result)
{
    g_autofree char *took = units_format_duration(result->seconds), *added = units_format_size(result->new_bytes);

    log_info("==> %s: %s in %s, %s added to the store", build->name,
             result->cached ? "nothing to do, everything is known" : "done", took, added);
    for (guint i = 0; i < result->images->len; i++) {
        const StoreImage *image = result->images->pdata[i];
        g_autofree char *size = units_format_size(image->size), *fresh = units_format_size(image->new_bytes);
        char id[DIGEST_OCI_SIZE];

        log_info("    %-5s %s  %s, %s new", image->kind, digest_to_oci(&image->id, id), size, fresh);
    }
}

static void report(BakeCall *call, const TemplateBuild *build, const BakeResult *result)
{
    print_summary(build, result);
    for (guint i = 0; i < result->images->len; i++) {
        const StoreImage *image = result->images->pdata[i];
        char id[DIGEST_OCI_SIZE];

        if (call->cli->json)
            json_array_append_new(call->artifacts, cli_image_json(image));
        else
            printf("%s %s %s\n", build->name, image->kind, digest_to_oci(&image->id, id));
    }
    fflush(stdout);
    json_array_append_new(call->bakes,
                          json_pack("{s:s, s:f, s:I, s:b, s:O}", "name", build->name, "seconds", result->seconds,
                                    "new_bytes", (json_int_t)result->new_bytes, "cached", result->cached, "steps",
                                    result->steps));
}

static bool bake_template(BakeCall *call, Store *store, Template *template, GError **error)
{
    GPtrArray *builds = template_builds(template);

    for (guint i = 0; i < builds->len; i++) {
        const TemplateBuild *build = builds->pdata[i];
        BakeResult result = {0};

        if (!bake_build(store, template, build, &call->options, &result, error))
            return false;
        report(call, build, &result);
        bake_result_clear(&result);
    }
    return true;
}

/* All templates are read and checked before the first one bakes: a typo in the last must not cost an hour. */
static bool load_all(BakeCall *call, char **paths, GPtrArray *templates, GError **error)
{
    for (; *paths; paths++) {
        Template *template = NULL;
        GPtrArray *builds;

        if (!template_load(*paths, &call->template_options, &template, error))
            return false;
        g_ptr_array_add(templates, template);
        builds = template_builds(template);
        for (guint i = 0; i < builds->len; i++)
            if (!bake_check(builds->pdata[i], error))
                return false;
        if (builds->len == 0)
            return fail_code(error, KILN_ERROR_USAGE, "'%s' selects nothing to bake: it has no build%s", *paths,
                             call->template_options.only || call->template_options.except
                                 ? " that -only and -except let through" : "");
    }
    return true;
}

static bool run(BakeCall *call, char **paths, GError **error)
{
    g_autoptr(GPtrArray) templates = g_ptr_array_new_with_free_func((GDestroyNotify)template_free);
    g_autoptr(Store) store = NULL;

    if (!load_all(call, paths, templates, error) || !cli_open_store(call->cli, STORE_OPEN_CREATE, &store, error))
        return false;
    for (guint i = 0; i < templates->len; i++)
        if (!bake_template(call, store, templates->pdata[i], error))
            return false;
    return true;
}

/* Packer separates names in -only and -except by commas. */
static GPtrArray *split_commas(GPtrArray *list)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);

    for (guint i = 0; i < list->len; i++) {
        g_auto(GStrv) parts = g_strsplit(list->pdata[i], ",", -1);

        for (char **part = parts; *part; part++)
            g_ptr_array_add(names, g_strdup(g_strstrip(*part)));
    }
    return names;
}

int verb_bake(CliContext *cli, int argc, char **argv)
{
    g_autoptr(GPtrArray) vars = g_ptr_array_new(), files = g_ptr_array_new(), only = g_ptr_array_new(),
                         except = g_ptr_array_new();
    BakeCall call = {.cli = cli};
    bool force = false;
    const CliOption options[] = {{"var", CLI_LIST, vars},
                                 {"var-file", CLI_LIST, files},
                                 {"only", CLI_LIST, only},
                                 {"except", CLI_LIST, except},
                                 {"offline", CLI_FLAG, &call.options.offline},
                                 {"refresh", CLI_FLAG, &call.options.refresh},
                                 {"no-cache", CLI_FLAG, &call.options.no_cache},
                                 {"force", CLI_FLAG, &force},
                                 {NULL, CLI_FLAG, NULL}};
    g_autoptr(GPtrArray) only_names = NULL, except_names = NULL;
    g_autofree char **paths = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(json_t) artifacts = json_array(), bakes = json_array();

    if (!cli_parse(options, "bake [OPTIONS] TEMPLATE...", argc, argv, 1, -1, &paths, &error))
        return cli_fail(cli, error);
    only_names = split_commas(only);
    except_names = split_commas(except);
    call.template_options = (TemplateOptions){.vars = cli_strings(vars),
                                              .var_files = cli_strings(files),
                                              .only = cli_strings(only_names),
                                              .except = cli_strings(except_names)};
    call.artifacts = artifacts;
    call.bakes = bakes;
    if (!run(&call, paths, &error))
        return cli_fail(cli, error);
    if (cli->json)
        return cli_print_json(json_pack("{s:O, s:O}", "artifacts", artifacts, "bakes", bakes));
    return 0;
}
