/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan in words. The keys are bake-plan.c's, the comparison is bake-why.h's; here they become sentences.
 */
#include "baker/plan.h"

#include "baker/bake-internal.h"
#include "baker/bake-why.h"
#include "baker/host-step.h"
#include "base/units.h"

#include <math.h>

/* "25 h" says more about a refresh than "1d 1h 3m". */
static char *age(int64_t seconds)
{
    if (seconds < 120)
        return g_strdup_printf("%d s", (int)MAX(seconds, 0));
    if (seconds < 120 * 60)
        return g_strdup_printf("%d min", (int)(seconds / 60));
    if (seconds < 72 * 3600)
        return g_strdup_printf("%d h", (int)(seconds / 3600));
    return g_strdup_printf("%d days", (int)(seconds / 86400));
}

/* An input that is the same and a result that does not count: volatile, asked for, or dropped by gc. */
static char *same_inputs(const BakeChain *chain, const BakeStep *step, const json_t *before)
{
    int64_t ran = json_integer_value(json_object_get(before, "ran"));
    g_autofree char *text = NULL;

    if (step->is_volatile && chain->options->refresh)
        return g_strdup("refresh: asked for");
    if (host_step_is_declared(step))
        return g_strdup("its outputs are not as it left them");
    if (step->ops && provisioner_always_runs(step->ops, step->block->args))
        return g_strdup("runs every time");
    if (step->is_volatile && ran > 0) {
        text = age(chain->started - ran);
        return g_strdup_printf("refresh: %s old", text);
    }
    return g_strdup("its result is no longer in the store");
}

static char *why_miss(const BakeChain *chain, const json_t *before, const json_t *now, size_t index)
{
    const json_t *old = bake_why_match(before, now, index, chain->steps->len);
    char *why;

    if (!before)
        return g_strdup("never baked");
    if (!old)
        return g_strdup("new step");
    why = bake_why_differs(old, json_array_get(now, index));
    return why ? why : same_inputs(chain, chain->steps->pdata[index], old);
}

static json_t *describe_step(const BakeChain *chain, const json_t *before, const json_t *now, size_t index)
{
    const BakeStep *step = chain->steps->pdata[index];
    json_t *ret = json_pack("{s:I, s:s, s:s, s:s}", "number", (json_int_t)index + 1, "step", step->label, "type",
                            step->block ? step->block->type : "seal", "state",
                            index < chain->hits ? "hit" : index == chain->hits ? "miss" : "unknown");
    g_autofree char *why = NULL, *summary = NULL;

    if (index == chain->hits)
        why = why_miss(chain, before, now, index);
    else if (index > chain->hits)
        why = g_strdup_printf("after step %zu", chain->hits + 1);
    if (why)
        json_object_set_new(ret, "why", json_string_nocheck(why));
    if (index <= chain->hits && step->transaction) {
        summary = resolve_summary(step->transaction);
        json_object_set_new(ret, "note", json_string_nocheck(summary));
    }
    return ret;
}

static bool describe_chain(BakeChain *chain, bool known, json_t **ret, GError **error)
{
    g_autoptr(json_t) before = NULL, now = NULL;
    json_t *steps = json_array();

    *ret = json_pack("{s:o}", "steps", steps);
    if (chain->output)
        json_object_set_new(*ret, "output", json_string(chain->output));
    if (!bake_records_load(chain, &before, error))
        return false;
    now = bake_records_of(chain);
    for (guint i = 0; known && i < chain->steps->len; i++)
        json_array_append_new(steps, describe_step(chain, before, now, i));
    for (guint i = 0; !known && i < chain->steps->len; i++) {
        const BakeStep *step = chain->steps->pdata[i];

        json_array_append_new(steps, json_pack("{s:I, s:s, s:s, s:s, s:s}", "number", (json_int_t)i + 1, "step", step->label,
                                               "type", step->block->type, "state", "unknown", "why", "after the source"));
    }
    return true;
}

static bool plan_chains(GPtrArray *chains, json_t *list, bool *work, const char **why, GError **error)
{
    for (guint i = 0; i < chains->len; i++) {
        BakeChain *chain = chains->pdata[i];
        json_t *one = NULL;
        bool known, ok;

        if (!bake_plan_known(chain, &known, error))
            return false;
        ok = describe_chain(chain, known, &one, error);
        json_array_append_new(list, one);
        if (!ok)
            return false;
        *work |= !known || chain->hits < chain->steps->len;
        if (!known)
            *why = "its source is not in the store yet";
    }
    return true;
}

json_t *bake_plan_unknown(const TemplateBuild *build, const char *why)
{
    json_t *steps = json_array();

    for (guint i = 0; i < build->provisioners->len; i++) {
        const TemplateBlock *block = build->provisioners->pdata[i];

        json_array_append_new(steps, json_pack("{s:I, s:s, s:s, s:s, s:s}", "number", (json_int_t)i + 1, "step",
                                               block->name ? block->name : block->type, "type", block->type, "state", "unknown", "why", why));
    }
    return json_pack("{s:s, s:b, s:s, s:[{s:o}]}", "name", build->name, "work", true, "why", why, "chains", "steps", steps);
}

bool bake_plan_describe(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options, json_t **ret,
                        GError **error)
{
    g_autoptr(StoreLease) lease = NULL;
    g_autoptr(GPtrArray) chains = NULL, images = NULL;
    g_autoptr(json_t) list = json_array();
    const char *why = NULL;
    bool work = false, published, planned;

    if (!store_name_check(build->name, error) || !store_lease_take(store, "plan", &lease, error))
        return false;
    chains = bake_chains_new(store, template, build, options);
    store_attach_cache(store, options->shared);
    planned = plan_chains(chains, list, &work, &why, error);
    store_attach_cache(store, NULL); /* a set that a bake would fetch is not fetched for a plan */
    if (!planned)
        return false;
    if (!work && !(chains->len == 1 && bake_is_parent(chains->pdata[0]))) {
        if (!bake_published(store, build, chains, &images, &published, error))
            return false;
        work = !published;
        why = published ? NULL : images ? "an older set becomes the newest" : options->shared ? "its outputs have to be made or fetched" : "its outputs have to be made";
    }
    *ret = json_pack("{s:s, s:b, s:O}", "name", build->name, "work", work, "chains", list);
    if (why)
        json_object_set_new(*ret, "why", json_string(why));
    return true;
}
