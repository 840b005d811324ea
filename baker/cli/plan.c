/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln plan: what a bake would do, a line a step, and for a step that would run the first of its inputs that differs.
 *
 * A plan asks the network what a bake would ask (release files, validators of URLs), and makes nothing: behind the first
 * step that would run the states do not exist yet, so those steps are told as unknown.
 */
#include "baker/cli/builds.h"

#include "baker/plan.h"

#include <stdio.h>
#include <string.h>

typedef struct PlanCall {
    CliContext *cli;
    Builds builds;
    json_t *plans; /* for --json */
    bool work;     /* something to do anywhere */
} PlanCall;

static void print_step(const json_t *step)
{
    const char *state = json_string_value(json_object_get(step, "state"));
    const char *why = json_string_value(json_object_get(step, "why"));
    const char *note = json_string_value(json_object_get(step, "note"));

    printf("  %-7s %2d  %s", state, (int)json_integer_value(json_object_get(step, "number")),
           json_string_value(json_object_get(step, "step")));
    if (why)
        printf("  (%s)", why);
    if (note)
        printf("  %s", note);
    putchar('\n');
}

static void print_plan(const json_t *plan)
{
    const json_t *chains = json_object_get(plan, "chains"), *chain, *step;
    const char *why = json_string_value(json_object_get(plan, "why"));
    size_t i, j;

    printf("%s: %s%s%s\n", json_string_value(json_object_get(plan, "name")),
           json_is_true(json_object_get(plan, "work")) ? "would bake" : "nothing to do", why ? ", " : "", why ? why : "");
    json_array_foreach (chains, i, chain) {
        const char *output = json_string_value(json_object_get(chain, "output"));

        if (output)
            printf(" for the %s output:\n", output);
        json_array_foreach (json_object_get(chain, "steps"), j, step)
            print_step(step);
    }
}

static json_t *find_plan(const json_t *plans, const char *name)
{
    json_t *plan;
    size_t i;

    json_array_foreach ((json_t *)plans, i, plan)
        if (strcmp(json_string_value(json_object_get(plan, "name")), name) == 0)
            return plan;
    return NULL;
}

static bool is_named(const PlanCall *call, const char *name)
{
    for (guint i = 0; i < call->builds.templates->len; i++) {
        GPtrArray *list = template_builds(call->builds.templates->pdata[i]);

        for (guint j = 0; j < list->len; j++)
            if (strcmp(((TemplateBuild *)list->pdata[j])->name, name) == 0)
                return true;
    }
    return false;
}

/* A build on another one's image is planned after that one; when there is work for it the image is not there yet. */
static bool plan_one(PlanCall *call, Store *store, Template *template, const TemplateBuild *build, bool *ret_later, GError **error)
{
    g_autofree char *parent = bake_parent_name(build);
    const json_t *before = parent ? find_plan(call->plans, parent) : NULL;
    json_t *plan = NULL;

    *ret_later = parent && !before && strcmp(parent, build->name) != 0 && is_named(call, parent);
    if (*ret_later || find_plan(call->plans, build->name))
        return true;
    if (before && json_is_true(json_object_get(before, "work"))) {
        g_autofree char *why = g_strdup_printf("after %s", parent);

        plan = bake_plan_unknown(build, why);
    } else if (!bake_plan_describe(store, template, build, &call->builds.options, &plan, error)) {
        return false;
    }
    json_array_append_new(call->plans, plan);
    call->work |= json_is_true(json_object_get(plan, "work"));
    if (!call->cli->json)
        print_plan(plan);
    return true;
}

/* Until a round plans nobody new: what is left then needs itself. */
static bool plan_all(PlanCall *call, Store *store, GError **error)
{
    bool later = true;

    for (size_t before = SIZE_MAX; later && before != json_array_size(call->plans);) {
        before = json_array_size(call->plans);
        later = false;
        for (guint i = 0; i < call->builds.templates->len; i++) {
            Template *template = call->builds.templates->pdata[i];
            GPtrArray *list = template_builds(template);

            for (guint j = 0; j < list->len; j++) {
                bool waits;

                if (!plan_one(call, store, template, list->pdata[j], &waits, error))
                    return false;
                later |= waits;
            }
        }
    }
    return !later || fail_code(error, KILN_ERROR_USAGE, "the builds need each other's images in a circle");
}

int verb_plan(CliContext *cli, int argc, char **argv)
{
    g_autoptr(json_t) plans = json_array();
    g_autoptr(Store) store = NULL;
    g_autofree char **paths = NULL;
    g_autoptr(GError) error = NULL;
    PlanCall call = {.cli = cli, .plans = plans};
    bool detailed = false;
    const CliOption more[] = {{"detailed-exitcode", CLI_FLAG, &detailed}, BUILDS_CACHE_OPTIONS(&call.builds), {NULL, CLI_FLAG, NULL}};
    g_autofree CliOption *options = NULL;
    bool ok;

    builds_init(&call.builds);
    options = builds_options(&call.builds, more);
    ok = cli_parse(options, "plan [OPTIONS] TEMPLATE...", argc, argv, 1, -1, &paths, &error) &&
         builds_load(&call.builds, paths, &error) && cli_open_store(cli, STORE_OPEN_CREATE, &store, &error) &&
         plan_all(&call, store, &error);
    builds_clear(&call.builds);
    if (!ok) {
        int status = cli_fail(cli, error);

        return detailed ? 1 : status;
    }
    if (cli->json)
        (void)cli_print_json(json_pack("{s:b, s:O}", "work", call.work, "plans", plans));
    return detailed && call.work ? 2 : 0;
}
