/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scenarios of the transition function: exact steps where everything works, and what other rollout engines were reported to do wrong, by the
 * names under which it was reported.
 */
#include "deploy/transition.h"

#include <string.h>

typedef struct Sim {
    GroupRules rules;
    GroupState *state;
    GArray *actions;
    GString *log;        /* "create 2.0 2.1; attest 2.0 2.1; ..." */
    uint32_t broken;     /* revision whose instances never get healthy */
    uint32_t doomed;     /* revision whose creates fail */
    bool hold, gate;     /* time and people go on */
    Verdict verdict;
    unsigned lowest, highest; /* serving and existing, ever */
    Wait wait;
} Sim;

static void sim_init(Sim *sim, Strategy strategy, unsigned size, unsigned surge, unsigned unavailable)
{
    *sim = (Sim){.rules = {.strategy = strategy, .max_surge = surge, .max_unavailable = unavailable, .weighted = true}, .hold = true, .gate = true,
                 .verdict = VERDICT_PASS, .lowest = G_MAXUINT};
    sim->state = group_state_new(size, 2, strategy == STRATEGY_BLUEGREEN ? size + 2 : 2 * size + 4);
    sim->actions = g_array_new(FALSE, TRUE, sizeof(Action));
    sim->log = g_string_new(NULL);
}

static void sim_clear(Sim *sim)
{
    group_state_free(sim->state);
    g_array_unref(sim->actions);
    g_string_free(sim->log, TRUE);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Sim, sim_clear)

static Instance *row(const Sim *sim, unsigned at)
{
    return &g_array_index(sim->state->instances, Instance, at);
}

static void tell(Sim *sim, const Action *a)
{
    GString *log = sim->log;

    if (a->kind == ACTION_PHASE) {
        g_string_append_printf(log, " %s", phase_name(a->phase));
        if (a->step)
            g_string_append_printf(log, " %u", a->step);
    } else if (a->kind <= ACTION_DESTROY || a->kind == ACTION_LOST) {
        g_string_append_printf(log, " %u.%u", a->revision, a->slot);
        if (a->attempt > 1)
            g_string_append_printf(log, "a%u", a->attempt);
        if (a->kind == ACTION_ROUTE && a->weight != WEIGHT_MAX)
            g_string_append_printf(log, "=%u", a->weight);
    } else {
        g_string_append_printf(log, " %u", a->kind == ACTION_SWITCH ? a->color : a->revision);
    }
}

static void log_batch(Sim *sim)
{
    ActionKind last = ACTION_ENDED;

    for (unsigned i = 0; i < sim->actions->len; i++) {
        const Action *a = &g_array_index(sim->actions, Action, i);

        if (i == 0 || a->kind != last)
            g_string_append_printf(sim->log, "%s%s", sim->log->len ? "; " : "", action_kind_name(a->kind));
        tell(sim, a);
        last = a->kind;
    }
}

/* One batch, everything works. */
static bool tick(Sim *sim)
{
    group_next(&sim->rules, sim->state, sim->actions, &sim->wait);
    log_batch(sim);
    for (unsigned i = 0; i < sim->actions->len; i++)
        group_intend(&sim->rules, sim->state, &g_array_index(sim->actions, Action, i));
    for (unsigned i = 0; i < sim->actions->len; i++) {
        const Action *a = &g_array_index(sim->actions, Action, i);

        if (a->kind <= ACTION_SWITCH)
            group_outcome(&sim->rules, sim->state, a, !(a->kind == ACTION_CREATE && a->revision == sim->doomed), PROOF_GOOD);
    }
    return sim->actions->len > 0;
}

static bool age_row(Sim *sim, Instance *r)
{
    Instance before = *r;

    if (r->life == LIFE_STARTING)
        r->life = LIFE_RUNNING;
    else if (r->life == LIFE_RUNNING && r->health == HEALTH_UNKNOWN)
        r->health = r->revision == sim->broken ? HEALTH_BAD : HEALTH_GOOD;
    r->up = r->life == LIFE_RUNNING && r->health == HEALTH_GOOD && (r->route == ROUTE_IN || r->route == ROUTE_DRAINED);
    r->empty = r->drained;
    r->cooled = true;
    return memcmp(&before, r, sizeof before) != 0;
}

/* What goes by itself; false: nothing is left to come. */
static bool world(Sim *sim)
{
    GroupState *s = sim->state;
    bool moved = false;

    for (unsigned i = 0; i < s->instances->len; i++)
        moved |= age_row(sim, row(sim, i));
    if ((s->phase == PHASE_WATCH || s->phase == PHASE_HOLD) && sim->hold && !s->hold_over)
        moved = s->hold_over = true;
    if (s->phase == PHASE_WATCH && sim->gate && sim->rules.gate && !s->passed_gate)
        moved = s->passed_gate = true;
    if (s->phase == PHASE_WATCH && sim->rules.analysis && s->verdict != sim->verdict) {
        s->verdict = sim->verdict;
        moved = true;
    }
    sim->lowest = MIN(sim->lowest, group_serving(&sim->rules, s));
    sim->highest = MAX(sim->highest, group_existing(s));
    return moved;
}

/* Until nothing moves any more; it never takes for ever. */
static void run(Sim *sim)
{
    unsigned steps = 0;
    bool moved = true;

    while (moved) {
        moved = tick(sim);
        moved |= world(sim);
        g_assert_cmpuint(++steps, <, 5000);
    }
}

/* Until phase and step are reached. */
static void run_to(Sim *sim, Phase phase, unsigned step)
{
    for (unsigned steps = 0; sim->state->phase != phase || sim->state->step != step; steps++) {
        (void)tick(sim);
        (void)world(sim);
        g_assert_cmpuint(steps, <, 5000);
    }
}

/* Revision 1 is in service. */
static void start(Sim *sim)
{
    GroupRules rules = sim->rules;

    sim->state->next = 1;
    sim->rules.gate = sim->rules.analysis = false;
    run(sim);
    sim->rules = rules;
    g_assert_cmpuint(sim->state->current, ==, 1);
    g_assert_true(group_settled(&sim->rules, sim->state));
    g_string_truncate(sim->log, 0);
    sim->lowest = G_MAXUINT;
    sim->highest = 0;
}

static unsigned count(const Sim *sim, uint32_t revision)
{
    unsigned n = 0;

    for (unsigned i = 0; i < sim->state->instances->len; i++)
        n += row(sim, i)->revision == revision && instance_exists(row(sim, i));
    return n;
}

static void assert_log(Sim *sim, const char *wanted)
{
    g_assert_cmpstr(sim->log->str, ==, wanted);
}

static void assert_whole(Sim *sim, uint32_t revision)
{
    g_assert_true(group_settled(&sim->rules, sim->state));
    g_assert_cmpuint(sim->state->current, ==, revision);
    g_assert_cmpuint(group_serving(&sim->rules, sim->state), ==, sim->state->size);
    g_assert_cmpuint(group_existing(sim->state), ==, sim->state->size);
}

/* --- where everything works --- */

static void test_first(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 2, 1, 0);
    sim.state->next = 1;
    run(&sim);
    assert_log(&sim, "begin 1; create 1.0 1.1; attest 1.0 1.1; enter 1.0 1.1; route 1.0 1.1; phase hold; stable 1");
    assert_whole(&sim, 1);
}

static void test_rolling(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 2, 1, 0);
    start(&sim);
    sim.state->next = 2;
    run(&sim);
    assert_log(&sim, "begin 2; create 2.0; attest 2.0; enter 2.0; route 2.0; drain 1.0; leave 1.0; destroy 1.0; "
                     "create 2.1; attest 2.1; enter 2.1; route 2.1; drain 1.1; leave 1.1; destroy 1.1; phase hold; stable 2");
    assert_whole(&sim, 2);
    g_assert_cmpuint(sim.lowest, ==, 2);
    g_assert_cmpuint(sim.highest, ==, 3);
}

static void test_rolling_without_surge(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 2, 0, 1);
    start(&sim);
    sim.state->next = 2;
    run(&sim);
    assert_log(&sim, "begin 2; drain 1.0; leave 1.0; destroy 1.0; create 2.0; attest 2.0; enter 2.0; route 2.0; "
                     "drain 1.1; leave 1.1; destroy 1.1; create 2.1; attest 2.1; enter 2.1; route 2.1; phase hold; stable 2");
    g_assert_cmpuint(sim.highest, ==, 2);
    g_assert_cmpuint(sim.lowest, ==, 1);
}

static void test_bluegreen(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_BLUEGREEN, 2, 0, 0);
    sim.rules.gate = true;
    start(&sim);
    sim.state->next = 2;
    run(&sim);
    assert_log(&sim, "begin 2; create 2.0 2.1; attest 2.0 2.1; enter 2.0 2.1; route 2.0 2.1; phase watch; switch 1; phase hold; phase clean; "
                     "drain 1.0 1.1; leave 1.0 1.1; destroy 1.0 1.1; stable 2");
    assert_whole(&sim, 2);
    g_assert_cmpuint(sim.lowest, ==, 2);
}

static void test_bluegreen_returns_by_one_switch(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_BLUEGREEN, 2, 0, 0);
    start(&sim);
    sim.hold = false;
    sim.state->next = 2;
    run_to(&sim, PHASE_HOLD, 0);
    g_string_truncate(sim.log, 0);
    sim.state->asked_back = true;
    run(&sim);
    assert_log(&sim, "failed 2; phase back; switch 0; drain 2.0 2.1; leave 2.0 2.1; destroy 2.0 2.1; returned 2");
    assert_whole(&sim, 1);
    g_assert_true(group_revision(sim.state, 2)->failed);
}

static void canary(Sim *sim, unsigned size)
{
    sim_init(sim, STRATEGY_CANARY, size, 1, 0);
    sim->rules.step_count = 3;
    sim->rules.steps[0].percent = 10;
    sim->rules.steps[1].percent = 50;
    sim->rules.steps[2].percent = 100;
}

static void test_canary(void)
{
    g_auto(Sim) sim;

    canary(&sim, 3);
    start(&sim);
    sim.rules.gate = sim.rules.analysis = true;
    sim.state->next = 2;
    run(&sim);
    /* one canary of four with a tenth of the weight: 85 / (85 + 3 * 256); then two of four with a half */
    assert_log(&sim, "begin 2; create 2.0; attest 2.0; enter 2.0; route 2.0=85; phase watch; phase roll 1; route 2.0; "
                     "drain 1.0; leave 1.0; destroy 1.0; create 2.1; attest 2.1; enter 2.1; route 2.1; phase watch 1; phase roll 2; "
                     "drain 1.1; leave 1.1; destroy 1.1; create 2.2; attest 2.2; enter 2.2; route 2.2; drain 1.2; leave 1.2; destroy 1.2; phase hold; stable 2");
    assert_whole(&sim, 2);
    g_assert_cmpuint(sim.lowest, >=, 3);
    g_assert_cmpuint(sim.highest, ==, 4);
}

static void test_canary_counts(void)
{
    static const struct {
        unsigned size, percent, by_count, wanted;
    } cases[] = {{10, 10, 0, 1}, {10, 11, 0, 2}, {3, 10, 0, 1}, {1, 1, 0, 1}, {0, 50, 0, 0}, {6, 50, 0, 3}, {7, 50, 0, 4}, {4, 0, 2, 2}, {4, 0, 9, 4}};

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        GroupRules rules = {.strategy = STRATEGY_CANARY, .step_count = 2};

        rules.steps[0] = (CanaryStep){cases[i].percent, cases[i].by_count};
        g_assert_cmpuint(group_canaries(&rules, cases[i].size, 0), ==, cases[i].wanted);
        g_assert_cmpuint(group_canaries(&rules, cases[i].size, 1), ==, cases[i].size);
    }
}

/* The canaries' share of the weight is the step's percent, within a percent. */
static void test_canary_weights(void)
{
    for (unsigned size = 2; size <= 20; size += 3)
        for (unsigned percent = 5; percent <= 40; percent += 5) {
            g_auto(Sim) sim;
            unsigned canaries = 0, all = 0;

            canary(&sim, size);
            sim.rules.baseline = percent % 10 == 0;
            sim.rules.max_surge = 3;
            sim.rules.steps[0].percent = percent;
            start(&sim);
            sim.state->next = 2;
            run_to(&sim, PHASE_WATCH, 0);
            for (unsigned i = 0; i < sim.state->instances->len; i++)
                if (row(&sim, i)->route == ROUTE_IN) {
                    all += row(&sim, i)->weight;
                    canaries += row(&sim, i)->revision == 2 ? row(&sim, i)->weight : 0;
                }
            g_assert_cmpuint(100 * canaries, >=, (percent - 1) * all);
            g_assert_cmpuint(100 * canaries, <=, (percent + 1) * all);
        }
}

static void test_baseline(void)
{
    g_auto(Sim) sim;

    canary(&sim, 3);
    sim.rules.max_surge = 2;
    sim.rules.baseline = true;
    start(&sim);
    sim.state->next = 2;
    run_to(&sim, PHASE_WATCH, 0);
    assert_log(&sim, "begin 2; create 1.3 2.0; attest 1.3 2.0; enter 1.3 2.0; route 1.3=96 2.0=96; phase watch");
    run(&sim);
    assert_whole(&sim, 2);
    g_assert_cmpuint(sim.highest, ==, 5);
}

static void test_replace(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 2, 1, 0);
    start(&sim);
    row(&sim, 1)->replace = true;
    run(&sim);
    assert_log(&sim, "create 1.1a2; attest 1.1a2; enter 1.1a2; route 1.1a2; drain 1.1; leave 1.1; destroy 1.1");
    assert_whole(&sim, 1);
    sim.rules.max_surge = 0;
    sim.rules.max_unavailable = 1;
    g_string_truncate(sim.log, 0);
    row(&sim, 0)->replace = true;
    run(&sim);
    assert_log(&sim, "drain 1.0; leave 1.0; destroy 1.0; create 1.0a2; attest 1.0a2; enter 1.0a2; route 1.0a2");
    sim.rules.max_unavailable = 0; /* neither way: nothing is done */
    row(&sim, 0)->replace = true;
    g_string_truncate(sim.log, 0);
    run(&sim);
    assert_log(&sim, "");
    g_assert_cmpint(sim.wait, ==, WAIT_CEILING);
}

static void test_exclusive(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 3, 2, 1);
    sim.rules.exclusive = true;
    start(&sim);
    sim.state->next = 2;
    run(&sim);
    assert_whole(&sim, 2);
    g_assert_cmpuint(sim.highest, ==, 3);
    g_assert_true(g_str_has_prefix(sim.log->str, "begin 2; drain 1.0; leave 1.0; destroy 1.0; create 2.0; "));
    for (unsigned i = 0; i < sim.state->instances->len; i++) /* a slot stays where its volume is */
        g_assert_cmpint(row(&sim, i)->host, ==, (int)(row(&sim, i)->slot % 2));
}

static void test_scale(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 2, 1, 0);
    start(&sim);
    sim.state->size = 3;
    run(&sim);
    assert_whole(&sim, 1);
    sim.state->size = 1;
    run(&sim);
    assert_whole(&sim, 1);
    assert_log(&sim, "create 1.2; attest 1.2; enter 1.2; route 1.2; drain 1.1 1.2; leave 1.1 1.2; destroy 1.1 1.2");
    sim.state->size = 2;
    run(&sim);
    g_assert_nonnull(group_instance(sim.state, 1, 1, 2)); /* I4: never the first attempt again */
}

static void test_identities_survive_a_way_back(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 2, 1, 0);
    start(&sim);
    for (uint32_t revision = 2; revision <= 4; revision++) {
        sim.state->next = revision;
        run(&sim);
    }
    g_assert_cmpuint(sim.state->instances->len, ==, 2); /* rows of revisions that were left are dropped */
    sim.state->next = 1;
    run(&sim);
    assert_whole(&sim, 1);
    g_assert_nonnull(group_instance(sim.state, 1, 0, 2));
}

static void test_destroy(void)
{
    g_auto(Sim) sim;
    Action action = {.kind = ACTION_PHASE, .phase = PHASE_DESTROY};

    sim_init(&sim, STRATEGY_ROLLING, 2, 1, 0);
    start(&sim);
    group_intend(&sim.rules, sim.state, &action);
    run(&sim);
    assert_log(&sim, "drain 1.0 1.1; leave 1.0 1.1; destroy 1.0 1.1; ended 0");
    g_assert_cmpuint(sim.state->instances->len, ==, 0);
}

static void test_epoch(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 2, 1, 0);
    start(&sim);
    sim.state->next = 2;
    sim.state->newer_epoch = true;
    g_assert_false(tick(&sim));
    g_assert_cmpint(sim.wait, ==, WAIT_EPOCH);
}

static void test_wrong_image_leaves_below_the_floor(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 1, 0, 0);
    start(&sim);
    row(&sim, 0)->proof = PROOF_BAD;
    g_assert_true(tick(&sim));
    assert_log(&sim, "drain 1.0");
    run(&sim);
    assert_whole(&sim, 1);
}

static void test_stopped_is_not_healed(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 2, 1, 0);
    start(&sim);
    g_array_index(sim.state->revisions, Revision, 0).stopped = true;
    row(&sim, 0)->life = LIFE_DEAD;
    run(&sim);
    assert_log(&sim, "drain 1.0; leave 1.0; destroy 1.0");
    sim.state->next = 2; /* the cure */
    run(&sim);
    assert_whole(&sim, 2);
}

static void test_silent_host(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 2, 1, 0);
    start(&sim);
    sim.state->hosts[1] = false;
    row(&sim, 1)->life = LIFE_UNKNOWN;
    run(&sim);
    assert_log(&sim, "create 1.1a2; attest 1.1a2; enter 1.1a2; route 1.1a2; drain 1.1; leave 1.1");
    g_assert_cmpint(group_instance(sim.state, 1, 1, 2)->host, ==, 0);
    g_assert_cmpint(sim.wait, ==, WAIT_HOST);
    sim.state->hosts[1] = true;
    group_instance(sim.state, 1, 1, 1)->life = LIFE_RUNNING;
    run(&sim);
    assert_whole(&sim, 1);
}

/* A checker that sees everything ill, and a balancer that does too, must not cost the whole group at once. */
static void test_everything_looks_ill(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 4, 0, 1);
    start(&sim);
    for (unsigned i = 0; i < 4; i++) {
        row(&sim, i)->health = HEALTH_BAD;
        row(&sim, i)->up = false;
    }
    g_assert_true(tick(&sim));
    assert_log(&sim, "drain 1.0");
}

/* --- what others were reported to do --- */

/* The old group was disabled before the new one was healthy. */
static void test_keel_1506(void)
{
    for (int strategy = 0; strategy <= STRATEGY_CANARY; strategy++) {
        g_auto(Sim) sim;

        canary(&sim, 3);
        sim.rules.strategy = (Strategy)strategy;
        start(&sim);
        sim.broken = 2;
        sim.rules.start_retries = 1;
        sim.state->next = 2;
        run(&sim);
        assert_whole(&sim, 1);
        g_assert_cmpuint(sim.lowest, ==, 3);
        g_assert_null(strstr(sim.log->str, "drain 1"));
        g_assert_null(strstr(sim.log->str, "switch"));
        g_assert_null(strstr(sim.log->str, "enter 2"));
        g_assert_true(group_revision(sim.state, 2)->failed);
    }
}

/* An abort scaled the stable version down. */
static void test_argo_1292(void)
{
    for (unsigned step = 0; step < 2; step++) {
        g_auto(Sim) sim;

        canary(&sim, 4);
        start(&sim);
        sim.state->next = 2;
        run_to(&sim, PHASE_WATCH, step);
        sim.state->asked_back = true;
        run(&sim);
        assert_whole(&sim, 1);
        g_assert_cmpuint(sim.lowest, >=, 4);
        g_assert_cmpuint(sim.highest, <=, 5);
    }
}

/* Stable was scaled down while canaries were missing. */
static void test_argo_2050(void)
{
    g_auto(Sim) sim;

    canary(&sim, 4);
    start(&sim);
    sim.hold = false;
    sim.state->next = 2;
    run_to(&sim, PHASE_WATCH, 0);
    for (unsigned i = 0; i < sim.state->instances->len; i++)
        if (row(&sim, i)->revision == 2) {
            row(&sim, i)->life = LIFE_NONE;
            row(&sim, i)->up = false;
        }
    sim.rules.start_retries = 5;
    sim.doomed = 2;
    for (unsigned i = 0; i < 40; i++) {
        (void)tick(&sim);
        (void)world(&sim);
        g_assert_cmpuint(group_serving(&sim.rules, sim.state), >=, 4);
        g_assert_cmpuint(count(&sim, 1), ==, 4);
    }
}

/* The same when the strategy changes between two revisions. */
static void test_argo_3275(void)
{
    g_auto(Sim) sim;

    canary(&sim, 3);
    start(&sim);
    sim.rules.strategy = STRATEGY_ROLLING; /* revision 2 is rolled out by other rules */
    sim.state->next = 2;
    run(&sim);
    assert_whole(&sim, 2);
    sim.rules.strategy = STRATEGY_CANARY;
    sim.state->next = 3;
    run(&sim);
    assert_whole(&sim, 3);
    g_assert_cmpuint(sim.lowest, ==, 3);
}

/* After an abort, a retry, and another abort the old group went without its delay: here nothing of it goes before a hold. */
static void test_argo_3774(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_BLUEGREEN, 2, 0, 0);
    start(&sim);
    for (unsigned round = 0; round < 2; round++) {
        sim.hold = false;
        sim.state->next = 2;
        if (sim.state->revisions->len > 1)
            g_array_index(sim.state->revisions, Revision, 1).failed = false; /* --retry */
        run_to(&sim, PHASE_HOLD, 0);
        run(&sim);
        g_assert_cmpint(sim.state->phase, ==, PHASE_HOLD);
        g_assert_false(sim.state->hold_over);
        g_assert_cmpuint(count(&sim, 1), ==, 2);
        sim.state->asked_back = true;
        run(&sim);
        assert_whole(&sim, 1);
        g_assert_cmpuint(sim.lowest, ==, 2);
    }
    g_assert_null(strstr(sim.log->str, "drain 1"));
}

/* A third version in mid-rollout made it thrash: the second one goes, the first one stays as it was, the third one comes, once. */
static void test_argo_1852(void)
{
    g_auto(Sim) sim;
    unsigned creates = 0;

    canary(&sim, 4);
    start(&sim);
    sim.hold = false;
    sim.state->next = 2;
    run_to(&sim, PHASE_WATCH, 0);
    g_string_truncate(sim.log, 0);
    sim.state->next = 3;
    sim.hold = true;
    run(&sim);
    assert_whole(&sim, 3);
    g_assert_cmpuint(sim.lowest, >=, 4);
    for (const char *at = sim.log->str; (at = strstr(at, "create ")); at++)
        creates++;
    g_assert_cmpuint(creates, ==, 4);
    g_assert_null(strstr(sim.log->str, "create 2"));
    g_assert_null(strstr(sim.log->str, "create 1"));
    g_assert_false(group_revision(sim.state, 2)->failed); /* it was not its fault */
}

/* An aborted canary came back when the group was scaled up. */
static void test_argo_4973(void)
{
    g_auto(Sim) sim;

    canary(&sim, 3);
    start(&sim);
    sim.state->next = 2;
    run_to(&sim, PHASE_WATCH, 0);
    sim.state->asked_back = true;
    run(&sim);
    g_string_truncate(sim.log, 0);
    sim.state->size = 5;
    sim.state->next = 2; /* and whoever wishes it again without a retry is not heard */
    run(&sim);
    assert_whole(&sim, 1);
    g_assert_null(strstr(sim.log->str, "2."));
}

/* A hot loop: what failed is not repeated before its pause, and where nothing can be done nothing is. */
static void test_argo_2982(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 2, 1, 0);
    start(&sim);
    row(&sim, 0)->life = LIFE_DEAD;
    row(&sim, 0)->cooled = false;
    g_assert_true(tick(&sim));
    g_assert_true(tick(&sim));
    g_assert_true(tick(&sim));
    assert_log(&sim, "drain 1.0; leave 1.0; destroy 1.0");
    for (unsigned i = 0; i < 100; i++) {
        g_assert_false(tick(&sim));
        g_assert_cmpint(sim.wait, ==, WAIT_COOLING);
    }
    run(&sim);
    assert_whole(&sim, 1);
}

/* Healthy instances were killed when the new ones failed. */
static void test_nomad_6864(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 4, 1, 2);
    start(&sim);
    sim.doomed = 2;
    sim.rules.start_retries = 4;
    sim.state->next = 2;
    run(&sim);
    assert_whole(&sim, 1);
    g_assert_null(strstr(sim.log->str, "drain 1"));
}

/* A canary that no host takes stalled for ever: the rollout says what it waits for, and the deadline ends it. */
static void test_nomad_10465(void)
{
    g_auto(Sim) sim;

    canary(&sim, 2);
    start(&sim);
    sim.state->hosts[0] = sim.state->hosts[1] = false;
    sim.state->next = 2;
    run(&sim);
    g_assert_cmpint(sim.wait, ==, WAIT_HOST);
    sim.state->deadline_over = true;
    run(&sim);
    g_assert_cmpuint(sim.state->target, ==, 0);
    g_assert_true(group_revision(sim.state, 2)->failed);
    g_assert_cmpuint(sim.state->current, ==, 1);
}

/* The way back walked through canary steps. */
static void test_nomad_10882(void)
{
    g_auto(Sim) sim;

    canary(&sim, 4);
    sim.rules.gate = true;
    start(&sim);
    sim.state->next = 2;
    run_to(&sim, PHASE_WATCH, 1);
    g_string_truncate(sim.log, 0);
    sim.gate = false;
    sim.state->asked_back = true;
    run(&sim);
    assert_whole(&sim, 1);
    g_assert_null(strstr(sim.log->str, "watch"));
}

/* The count was lowered while a canary failed, and capacity was not restored. */
static void test_nomad_19643(void)
{
    g_auto(Sim) sim;

    canary(&sim, 5);
    sim.rules.steps[0].percent = 40;
    start(&sim);
    sim.state->next = 2;
    run_to(&sim, PHASE_WATCH, 0);
    for (unsigned i = 0; i < sim.state->instances->len; i++)
        if (row(&sim, i)->revision == 2) {
            row(&sim, i)->life = LIFE_DEAD;
            row(&sim, i)->up = false;
        }
    sim.state->size = 4;
    sim.broken = 2;
    run(&sim);
    assert_whole(&sim, 1);
}

/* A promotion by itself was lost: here a step's end is decided from the state, also by a controller that was not there before. */
static void test_nomad_20308(void)
{
    g_auto(Sim) sim;
    GroupState *copy;

    canary(&sim, 3);
    start(&sim);
    sim.hold = false;
    sim.state->next = 2;
    run_to(&sim, PHASE_WATCH, 0);
    copy = group_state_copy(sim.state);
    group_state_free(sim.state);
    sim.state = copy;
    sim.hold = true;
    run(&sim);
    assert_whole(&sim, 2);
}

/* A guard that refused because of an old view: with routes unknown nothing is taken away, and nothing is refused for ever. */
static void test_spinnaker_2780(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 2, 1, 0);
    start(&sim);
    sim.state->next = 2;
    for (unsigned i = 0; i < 5; i++) {
        (void)tick(&sim);
        (void)world(&sim);
    }
    row(&sim, 0)->route = ROUTE_UNKNOWN;
    for (unsigned i = 0; i < 20; i++)
        if (tick(&sim))
            g_assert_cmpint(g_array_index(sim.actions, Action, 0).kind, <=, ACTION_ATTEST);
    g_assert_cmpint(sim.wait, ==, WAIT_BALANCER);
    row(&sim, 0)->route = ROUTE_IN;
    run(&sim);
    assert_whole(&sim, 2);
}

/* Waiting for sessions to end hung: the deadline ends it. */
static void test_spinnaker_2990(void)
{
    g_auto(Sim) sim;
    Instance *r;

    sim_init(&sim, STRATEGY_ROLLING, 1, 1, 0);
    start(&sim);
    sim.state->next = 2;
    while (!(r = group_instance(sim.state, 1, 0, 1))->drained) {
        (void)tick(&sim);
        (void)world(&sim);
    }
    r->empty = false;
    g_assert_false(tick(&sim));
    g_assert_cmpint(sim.wait, ==, WAIT_DRAIN);
    r->drain_late = true;
    g_assert_true(tick(&sim));
    g_assert_nonnull(strstr(sim.log->str, "leave 1.0"));
}

/* The old group was left with traffic. */
static void test_spinnaker_6367(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_BLUEGREEN, 3, 0, 0);
    start(&sim);
    for (uint32_t revision = 2; revision < 6; revision++) {
        sim.state->next = revision;
        run(&sim);
        assert_whole(&sim, revision);
        g_assert_cmpint(sim.state->color, ==, (int)group_revision(sim.state, revision)->color);
        for (unsigned i = 0; i < sim.state->instances->len; i++)
            if (row(&sim, i)->revision != revision)
                g_assert_cmpint(row(&sim, i)->place, ==, -1);
    }
}

/* Kubernetes turns "no surge, none unavailable" into one unavailable: here the floor is what was written, and the group says why it waits. */
static void test_double_zero(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 3, 0, 0);
    start(&sim);
    sim.state->next = 2;
    run(&sim);
    g_assert_cmpuint(sim.lowest, ==, 3);
    g_assert_cmpint(sim.wait, ==, WAIT_CEILING);
    sim.state->asked_back = true;
    run(&sim);
    assert_whole(&sim, 1);
}

/* "Healthy" was whoever had been healthy once. */
static void test_gce_healthy_once(void)
{
    g_auto(Sim) sim;
    Instance *r;

    sim_init(&sim, STRATEGY_ROLLING, 1, 1, 0);
    start(&sim);
    sim.state->next = 2;
    while (!(r = group_instance(sim.state, 2, 0, 1)) || r->route != ROUTE_DRAINED || !r->up) {
        (void)tick(&sim);
        (void)world(&sim);
    }
    r->up = false; /* it was up, a moment ago */
    g_assert_false(tick(&sim));
    r->up = true;
    r->health = HEALTH_UNKNOWN;
    g_assert_false(tick(&sim));
    r->health = HEALTH_GOOD;
    g_assert_true(tick(&sim));
    g_assert_nonnull(strstr(sim.log->str, "route 2.0"));
    r->up = false; /* and now that it has traffic: the old one stays */
    for (unsigned i = 0; i < 10; i++)
        g_assert_false(tick(&sim));
    g_assert_cmpuint(count(&sim, 1), ==, 1);
}

/* Room by surge is used first; what is unavailable is spent only for the next wave, when nothing is on its way. */
static void test_waves(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 4, 1, 1);
    start(&sim);
    sim.state->next = 2;
    g_assert_true(tick(&sim) && tick(&sim));
    g_assert_false(tick(&sim)); /* it starts: the old ones wait for it */
    run(&sim);
    assert_log(&sim, "begin 2; create 2.0; attest 2.0; enter 2.0; route 2.0; drain 1.0 1.1; leave 1.0 1.1; destroy 1.0 1.1; "
                     "create 2.1 2.2; attest 2.1 2.2; enter 2.1 2.2; route 2.1 2.2; drain 1.2; leave 1.2; destroy 1.2; "
                     "create 2.3; attest 2.3; enter 2.3; route 2.3; drain 1.3; leave 1.3; destroy 1.3; phase hold; stable 2");
}

/* The map goes back when the old color carries the floor again, and not before. */
static void test_bluegreen_heals_before_it_returns(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_BLUEGREEN, 2, 0, 0);
    start(&sim);
    sim.hold = false;
    sim.state->next = 2;
    run_to(&sim, PHASE_HOLD, 0);
    g_string_truncate(sim.log, 0);
    row(&sim, 0)->life = LIFE_DEAD;
    row(&sim, 0)->up = false;
    sim.state->asked_back = true;
    run(&sim);
    assert_log(&sim, "failed 2; phase back; drain 1.0; leave 1.0; destroy 1.0; create 1.0a2; attest 1.0a2; enter 1.0a2; route 1.0a2; switch 0; "
                     "drain 2.0 2.1; leave 2.0 2.1; destroy 2.0 2.1; returned 2");
    assert_whole(&sim, 1);
    g_assert_cmpuint(sim.lowest, ==, 2);
}

static void test_gates_hold(void)
{
    for (int what = 0; what < 4; what++) {
        static const Wait waits[] = {WAIT_GATE, WAIT_HOLD, WAIT_VERDICT, WAIT_INCONCLUSIVE};
        g_auto(Sim) sim;

        canary(&sim, 2);
        start(&sim);
        sim.rules.gate = what == 0;
        sim.gate = false;
        sim.hold = what != 1;
        sim.rules.analysis = what >= 2;
        sim.verdict = what == 3 ? VERDICT_INCONCLUSIVE : VERDICT_NONE;
        sim.state->next = 2;
        run(&sim);
        g_assert_cmpint(sim.state->phase, ==, PHASE_WATCH);
        g_assert_cmpint(sim.wait, ==, waits[what]);
        if (what == 1 || what == 2) {
            sim.hold = true;
            sim.verdict = VERDICT_FAIL;
            run(&sim);
            assert_whole(&sim, what == 1 ? 2 : 1);
        } else {
            sim.state->passed_gate = true;
            (void)tick(&sim);
            g_assert_cmpuint(sim.state->step, ==, 1);
        }
    }
}

static void test_pause(void)
{
    g_auto(Sim) sim;

    sim_init(&sim, STRATEGY_ROLLING, 3, 1, 0);
    start(&sim);
    sim.state->next = 2;
    while (!group_instance(sim.state, 2, 1, 1))
        (void)(tick(&sim) | world(&sim));
    sim.state->paused = true;
    run(&sim);
    g_assert_cmpint(sim.wait, ==, WAIT_PAUSED);
    g_assert_cmpuint(group_serving(&sim.rules, sim.state), >=, 3);
    g_string_truncate(sim.log, 0);
    row(&sim, sim.state->instances->len - 1)->life = LIFE_DEAD; /* is healed, as what it was */
    sim.rules.start_retries = 1;
    run(&sim);
    g_assert_nonnull(strstr(sim.log->str, "create 2.1a2"));
    g_assert_cmpint(sim.state->phase, ==, PHASE_ROLL);
    sim.state->paused = false;
    run(&sim);
    assert_whole(&sim, 2);
}

static void test_large_groups_are_quick(void)
{
    static const struct {
        unsigned size, surge;
        double seconds;
    } cases[] = {{1000, 250, 0.5}, {1000, 10, 1}, {10000, 2500, 2}};

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(Sim) sim;
        gint64 begun;
        double took;

        sim_init(&sim, STRATEGY_ROLLING, cases[i].size, cases[i].surge, 0);
        start(&sim);
        sim.state->next = 2;
        begun = g_get_monotonic_time();
        run(&sim);
        took = (double)(g_get_monotonic_time() - begun) / 1e6;
        g_test_message("%u instances, surge %u: %.3f s", cases[i].size, cases[i].surge, took);
        assert_whole(&sim, 2);
        if (!g_getenv("KILN_TEST_SLOW"))
            g_assert_cmpfloat(took, <, cases[i].seconds * 10); /* a bound on growth, not on machines */
    }
}

static void test_words(void)
{
    ActionKind kind;
    Cause cause;
    Phase phase;

    for (int i = 0; i <= ACTION_ENDED; i++)
        g_assert_true(action_kind_parse(action_kind_name((ActionKind)i), &kind) && kind == (ActionKind)i);
    for (int i = 0; i <= CAUSE_DESTROY; i++)
        g_assert_true(cause_parse(cause_name((Cause)i), &cause) && cause == (Cause)i);
    for (int i = 0; i <= PHASE_DESTROY; i++)
        g_assert_true(phase_parse(phase_name((Phase)i), &phase) && phase == (Phase)i);
    for (int i = 0; i <= WAIT_HOLD; i++)
        g_assert_nonnull(wait_sentence((Wait)i));
    g_assert_false(phase_parse("", &phase) || cause_parse("x", &cause) || action_kind_parse("creat", &kind));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/transition/first", test_first);
    g_test_add_func("/transition/rolling", test_rolling);
    g_test_add_func("/transition/rolling-without-surge", test_rolling_without_surge);
    g_test_add_func("/transition/bluegreen", test_bluegreen);
    g_test_add_func("/transition/waves", test_waves);
    g_test_add_func("/transition/bluegreen-heals-before-it-returns", test_bluegreen_heals_before_it_returns);
    g_test_add_func("/transition/gates-hold", test_gates_hold);
    g_test_add_func("/transition/pause", test_pause);
    g_test_add_func("/transition/bluegreen-returns-by-one-switch", test_bluegreen_returns_by_one_switch);
    g_test_add_func("/transition/canary", test_canary);
    g_test_add_func("/transition/canary-counts", test_canary_counts);
    g_test_add_func("/transition/canary-weights", test_canary_weights);
    g_test_add_func("/transition/baseline", test_baseline);
    g_test_add_func("/transition/replace", test_replace);
    g_test_add_func("/transition/exclusive", test_exclusive);
    g_test_add_func("/transition/scale", test_scale);
    g_test_add_func("/transition/identities-survive-a-way-back", test_identities_survive_a_way_back);
    g_test_add_func("/transition/destroy", test_destroy);
    g_test_add_func("/transition/epoch", test_epoch);
    g_test_add_func("/transition/wrong-image-leaves-below-the-floor", test_wrong_image_leaves_below_the_floor);
    g_test_add_func("/transition/stopped-is-not-healed", test_stopped_is_not_healed);
    g_test_add_func("/transition/silent-host", test_silent_host);
    g_test_add_func("/transition/everything-looks-ill", test_everything_looks_ill);
    g_test_add_func("/transition/keel-1506", test_keel_1506);
    g_test_add_func("/transition/argo-1292", test_argo_1292);
    g_test_add_func("/transition/argo-2050", test_argo_2050);
    g_test_add_func("/transition/argo-3275", test_argo_3275);
    g_test_add_func("/transition/argo-3774", test_argo_3774);
    g_test_add_func("/transition/argo-1852", test_argo_1852);
    g_test_add_func("/transition/argo-4973", test_argo_4973);
    g_test_add_func("/transition/argo-2982", test_argo_2982);
    g_test_add_func("/transition/nomad-6864", test_nomad_6864);
    g_test_add_func("/transition/nomad-10465", test_nomad_10465);
    g_test_add_func("/transition/nomad-10882", test_nomad_10882);
    g_test_add_func("/transition/nomad-19643", test_nomad_19643);
    g_test_add_func("/transition/nomad-20308", test_nomad_20308);
    g_test_add_func("/transition/spinnaker-2780", test_spinnaker_2780);
    g_test_add_func("/transition/spinnaker-2990", test_spinnaker_2990);
    g_test_add_func("/transition/spinnaker-6367", test_spinnaker_6367);
    g_test_add_func("/transition/kubernetes-double-zero", test_double_zero);
    g_test_add_func("/transition/gce-healthy-once", test_gce_healthy_once);
    g_test_add_func("/transition/large-groups-are-quick", test_large_groups_are_quick);
    g_test_add_func("/transition/words", test_words);
    return g_test_run();
}
