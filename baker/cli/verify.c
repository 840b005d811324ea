/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln verify: bakes a template twice from nothing, or rebuilds a stored image from its recorded inputs, and says whether the results are the same.
 */
#include "baker/cli/builds.h"

#include "baker/verify.h"
#include "base/printable.h"

#include <stdio.h>
#include <string.h>

typedef struct VerifyCall {
    CliContext *cli;
    Builds builds;
    json_t *verdicts;
    bool different;
} VerifyCall;

static const char *const verdict_words[] = {"equal", "equal-tree", "different"};

static void print_verdict(const char *name, const VerifyImage *image)
{
    char a[DIGEST_OCI_SIZE], b[DIGEST_OCI_SIZE];

    printf("%s %s %s %s", name, image->kind, verdict_words[image->verdict], digest_to_oci(&image->a, a));
    if (image->verdict == VERIFY_EQUAL) {
        printf("\n");
        return;
    }
    printf(" %s\n", digest_to_oci(&image->b, b));
    if (image->verdict == VERIFY_EQUAL_TREE)
        printf("  other blocks, as its own kernel's file system gives them; every file, the partition table and the boot areas are the same\n");
    for (guint i = 0; i < image->differences->len; i++) {
        const VerifyDifference *one = image->differences->pdata[i];
        g_autofree char *path = printable_name(one->path);

        printf("  %s: %s%s%s\n", path, one->what, one->step ? ", by step " : "", one->step ? one->step : "");
        if (one->bytes)
            printf("    %s\n", one->bytes);
    }
    if (image->count > image->differences->len)
        printf("  and %zu more\n", image->count - image->differences->len);
}

static json_t *verdict_json(const char *name, const VerifyImage *image)
{
    json_t *list = json_array(), *document = json_pack("{s:s, s:s, s:s, s:I, s:o}", "name", name, "kind", image->kind, "verdict",
                                                       verdict_words[image->verdict], "count", (json_int_t)image->count, "differences", list);

    json_set_digest(document, "first", &image->a);
    json_set_digest(document, "second", &image->b);
    for (guint i = 0; i < image->differences->len; i++) {
        const VerifyDifference *one = image->differences->pdata[i];
        json_t *object = json_object();

        cli_set_bytes(object, "path", one->path);
        json_object_update_new(object, json_pack("{s:s, s:s*, s:s*}", "what", one->what, "step", one->step, "bytes", one->bytes));
        json_array_append_new(list, object);
    }
    return document;
}

static void tell(VerifyCall *call, const char *name, const GPtrArray *verdicts)
{
    for (guint i = 0; i < verdicts->len; i++) {
        const VerifyImage *image = verdicts->pdata[i];

        call->different |= image->verdict == VERIFY_DIFFERENT;
        json_array_append_new(call->verdicts, verdict_json(name, image));
        if (!call->cli->json)
            print_verdict(name, image);
    }
}

static bool verify_one(VerifyCall *call, Store *store, Template *template, const TemplateBuild *build, GError **error)
{
    g_autoptr(GPtrArray) verdicts = NULL;

    if (!verify_build(store, template, build, &call->builds.options, &verdicts, error))
        return false;
    tell(call, build->name, verdicts);
    return true;
}

static bool verify_all(VerifyCall *call, Store *store, GError **error)
{
    for (guint i = 0; i < call->builds.templates->len; i++) {
        Template *template = call->builds.templates->pdata[i];
        GPtrArray *list = template_builds(template);

        for (guint j = 0; j < list->len; j++)
            if (!verify_one(call, store, template, list->pdata[j], error))
                return false;
    }
    return true;
}

/* What is there as a file or folder, or is named like one, is a template. */
static bool is_template(const char *argument)
{
    return g_file_test(argument, G_FILE_TEST_EXISTS) || strchr(argument, '/') == argument || g_str_has_prefix(argument, "./") ||
           g_str_has_suffix(argument, ".hcl") || g_str_has_suffix(argument, ".pkr.json");
}

static bool verify_stored(VerifyCall *call, char **refs, GError **error)
{
    g_autoptr(Store) store = NULL;

    if (!builds_prepare(&call->builds, error) || !cli_open_store(call->cli, 0, &store, error))
        return false;
    for (; *refs; refs++) {
        g_autoptr(GPtrArray) verdicts = NULL;
        g_autofree char *name = NULL;

        if (!verify_image(store, *refs, call->builds.template_options.vars, &call->builds.options, &name, &verdicts, error))
            return false;
        tell(call, name, verdicts);
    }
    return true;
}

static bool verify_templates(VerifyCall *call, char **paths, GError **error)
{
    g_autoptr(Store) store = NULL;

    return builds_load(&call->builds, paths, error) && cli_open_store(call->cli, STORE_OPEN_CREATE, &store, error) && verify_all(call, store, error);
}

int verb_verify(CliContext *cli, int argc, char **argv)
{
    g_autoptr(json_t) verdicts = json_array();
    g_autofree char **paths = NULL;
    g_autoptr(GError) error = NULL;
    VerifyCall call = {.cli = cli, .verdicts = verdicts};
    g_autofree CliOption *options = NULL;
    bool ok;

    builds_init(&call.builds);
    options = builds_options(&call.builds, NULL);
    ok = cli_parse(options, "verify " BUILDS_USAGE " TEMPLATE...|REF...", argc, argv, 1, -1, &paths, &error) &&
         (is_template(paths[0]) ? verify_templates : verify_stored)(&call, paths, &error);
    builds_clear(&call.builds);
    if (!ok)
        return cli_fail(cli, error);
    if (cli->json)
        (void)cli_print_json(json_pack("{s:b, s:O}", "equal", !call.different, "images", verdicts));
    return call.different ? 1 : 0;
}
