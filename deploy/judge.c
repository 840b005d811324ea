/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is judged: the target's instances that have traffic, against the current revision's baseline, or, where the group file wants none,
 * against all of the current revision that have traffic.
 */
#include "deploy/judge.h"

#include "base/log.h"

typedef struct Side {
    BalancerCounters counters;
    bool counted;
    GPtrArray *addresses; /* char*, NULL-terminated once full */
} Side;

static void side_clear(Side *side)
{
    g_ptr_array_unref(side->addresses);
}

static bool is_canary(const GroupState *state, const Instance *row)
{
    return row->revision == state->target;
}

static bool is_baseline(const GroupRules *rules, const GroupState *state, const Instance *row)
{
    return row->revision == state->current && (!rules->baseline || row->slot >= state->size);
}

static void add_counters(World *world, const Instance *row, Side *side)
{
    const BalancerOps *ops = world->balancer->ops;
    BalancerCounters counters;

    if (!ops->counters || row->place < 0 || !ops->counters(world->balancer, group_color(world->group, row->revision), (uint32_t)row->place, &counters, NULL))
        return;
    side->counters.requests += counters.requests;
    side->counters.errors += counters.errors;
    side->counters.time_ms += counters.time_ms;
    side->counted = true;
}

static void collect(Controller *controller, const GroupRules *rules, bool canary, Side *side)
{
    World *world = controller->world;
    const GroupState *state = world->group->state;

    side->addresses = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < state->instances->len; i++) {
        const Instance *row = &g_array_index(state->instances, Instance, i);
        const RevisionFacts *revision = group_revision_facts(world->group, row->revision);
        const InstanceFacts *facts = group_facts(world->group, row->revision, row->slot, row->attempt);

        if (row->ended || row->drained || row->route != ROUTE_IN || !revision || !(canary ? is_canary(state, row) : is_baseline(rules, state, row)))
            continue;
        if (facts->address)
            g_ptr_array_add(side->addresses, group_instance_address(world->group, facts));
        add_counters(world, row, side);
    }
    g_ptr_array_add(side->addresses, NULL);
}

static void sample(Controller *controller, const GroupSpec *spec)
{
    Side canary = {0}, baseline = {0};
    AnalysisInput input = {.now = (double)g_get_monotonic_time() / G_USEC_PER_SEC, .step = controller->group->state->step};

    if (input.now < analysis_due(controller->analysis))
        return;
    collect(controller, &spec->rules, true, &canary);
    collect(controller, &spec->rules, false, &baseline);
    input.canary = canary.counted ? &canary.counters : NULL;
    input.baseline = baseline.counted ? &baseline.counters : NULL;
    input.canary_addresses = (const char *const *)canary.addresses->pdata;
    input.baseline_addresses = (const char *const *)baseline.addresses->pdata;
    analysis_sample(controller->analysis, &input);
    side_clear(&canary);
    side_clear(&baseline);
}

static bool journal_verdict(Controller *controller, Verdict verdict, const char *why, GError **error)
{
    static const char *const names[] = {"none", "pass", "fail", "inconclusive"};

    log_info("%s: the analysis says %s: %s", controller->group->name, names[verdict], why ? why : "");
    if (verdict == VERDICT_FAIL)
        controller_note_failure(controller, why);
    return group_append_one(controller->group,
                            json_pack("{s:s, s:s, s:I, s:s*}", "do", "verdict", "verdict", names[verdict], "step",
                                      (json_int_t)controller->group->state->step, "why", why), error);
}

bool judge_step(Controller *controller, GError **error)
{
    GroupState *state = controller->group->state;
    const RevisionFacts *ruling = group_ruling(controller->group);
    g_autofree char *why = NULL;
    Verdict verdict;

    if (!ruling || !group_rules(controller->group)->analysis || state->phase != PHASE_WATCH) {
        g_clear_pointer(&controller->analysis, analysis_free);
        return true;
    }
    if (!controller->analysis || controller->analysis_phase != controller->group->phase_at) {
        g_clear_pointer(&controller->analysis, analysis_free);
        controller->analysis = analysis_new(ruling->spec);
        controller->analysis_phase = controller->group->phase_at;
    }
    sample(controller, ruling->spec);
    verdict = analysis_verdict(controller->analysis, &why);
    if (verdict != VERDICT_NONE && verdict != state->verdict && !journal_verdict(controller, verdict, why, error))
        return false;
    state->verdict = verdict;
    return true;
}
