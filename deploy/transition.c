/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transition function: which decision or which batch comes next.
 *
 *     idle --begin--> roll --> [watch --> roll]* --> hold --> [clean] --stable--> idle
 *                      |          |            |        |
 *                      +----------+---failed---+--------+--> back --returned--> idle
 *
 * A phase is a composition (seat.c); everything that is not in it goes, everything in it that is missing or ill is made anew, by
 * scene-grow.c and scene-shrink.c. So there is no list of steps to lose: whatever was half done, the next call goes on from what is there.
 *
 * Going back: the target's instances failed more often than start_retries, served or not (a version that crashes under load is no better than
 * one that does not start); the analysis failed; the deadline passed before the target had all the traffic; somebody asked, also by
 * wanting the revision that is in service. A paused rollout goes back only when asked.
 * A third revision replaces the target while that does not have the traffic (roll, watch); later it waits for the end.
 * Blue/green's traffic is where the map points, and phases follow it: a map that names the target's color is a rollout in hold, also
 * when the controller died before it could write so.
 */
#include "deploy/scene.h"

static Action *decide(Scene *scene, ActionKind kind, Cause cause, uint32_t revision)
{
    Action action = {.kind = kind, .cause = cause, .revision = revision, .host = -1, .place = -1};

    g_array_append_val(scene->actions, action);
    return &g_array_index(scene->actions, Action, scene->actions->len - 1);
}

static bool enter_phase(Scene *scene, Phase phase, unsigned step, Cause cause)
{
    Action *action = decide(scene, ACTION_PHASE, cause, scene->state->target);

    action->phase = phase;
    action->step = step;
    return true;
}

static bool is_bluegreen(const Scene *scene)
{
    return scene->rules->strategy == STRATEGY_BLUEGREEN;
}

static bool is_failed(const GroupState *state, uint32_t number)
{
    const Revision *revision = group_revision(state, number);

    return revision && revision->failed;
}

/* A wish that means something: neither what is there nor what was refused. */
static bool wants_next(const GroupState *state)
{
    return state->next && state->next != state->current && state->next != state->target && !is_failed(state, state->next);
}

/* Instances that are gone though nobody's outcome says so; also those of a create that was not done and is not wanted any more. */
static bool decide_losses(Scene *scene)
{
    for (unsigned i = 0; i < scene->seats->len; i++) {
        const Seat *seat = &g_array_index(scene->seats, Seat, i);
        const Instance *keeper = seat->keeper;

        for (unsigned j = seat->first; j < seat->first + seat->count; j++) {
            const Instance *row = state_row(scene->state, j);
            bool newest = j == seat->first + seat->count - 1;
            Cause cause = row->served ? CAUSE_DEAD : CAUSE_START_FAILED;

            if (row->ended || row->life != LIFE_NONE || row == keeper)
                continue;
            if (!row->created || row->drained || !newest || !seat->wanted)
                cause = seat->wanted ? CAUSE_REPLACE : scene_cause(scene, seat, row);
            scene_add(scene, ACTION_LOST, cause, row);
        }
    }
    return scene->actions->len > 0;
}

/* Blue/green holds with every place of the ceiling taken: a target that is ill but still answers can't be replaced beside itself. */
static bool is_incurable(const Scene *scene)
{
    const GroupState *state = scene->state;

    if (!is_bluegreen(scene) || state->phase != PHASE_HOLD || state->paused || !scene->answers || scene->existing < scene->ceiling ||
        scene->serving > scene->floor)
        return false;
    for (unsigned i = 0; i < state->instances->len; i++) {
        const Instance *row = state_row(state, i);

        if (row->revision == state->target && row->served && row->health == HEALTH_BAD && scene_serves(scene, row))
            return true;
    }
    return false;
}

/* Also those that nothing was decided about yet: no replacement is begun for a start that is one too many. */
static unsigned count_failures(const Scene *scene)
{
    const GroupState *state = scene->state;
    unsigned count = state->failures;

    for (unsigned i = 0; i < state->instances->len; i++) {
        const Instance *row = state_row(state, i);

        if (row->revision == state->target && !row->served && !row->failed && !row->drained && instance_fault(row, NULL))
            count++;
    }
    return count;
}

static bool has_back_cause(const Scene *scene, Cause *ret)
{
    const GroupState *state = scene->state;
    const Revision *target = group_revision(state, state->target);
    bool early = state->phase == PHASE_ROLL || state->phase == PHASE_WATCH;

    if (state->asked_back || (state->next && state->next == state->current && state->phase != PHASE_CLEAN) || (target && target->failed))
        *ret = CAUSE_ASKED;
    else if (state->paused || state->phase == PHASE_CLEAN)
        return false;
    else if (count_failures(scene) > scene->rules->start_retries)
        *ret = CAUSE_START_FAILED;
    else if (state->phase == PHASE_WATCH && scene->rules->analysis && state->verdict == VERDICT_FAIL)
        *ret = CAUSE_ANALYSIS;
    else if (early && state->deadline_over)
        *ret = CAUSE_DEADLINE;
    else if (early && target && target->stopped)
        *ret = CAUSE_ASKED;
    else if (is_incurable(scene))
        *ret = CAUSE_SICK;
    else
        return false;
    return true;
}

static bool decide_back(Scene *scene)
{
    const GroupState *state = scene->state;
    Cause cause;

    if (state->phase < PHASE_ROLL || state->phase > PHASE_CLEAN || !has_back_cause(scene, &cause))
        return false;
    decide(scene, ACTION_FAILED, cause, state->target);
    return enter_phase(scene, PHASE_BACK, 0, cause);
}

/* The map names the target's color: it has the traffic. */
static bool decide_switched(Scene *scene)
{
    const GroupState *state = scene->state;

    if (!is_bluegreen(scene) || (state->phase != PHASE_ROLL && state->phase != PHASE_WATCH) || !scene->answers ||
        scene->live != (int)scene_color(scene, state->target))
        return false;
    return enter_phase(scene, PHASE_HOLD, 0, CAUSE_ROLLOUT);
}

/* The color that nobody's traffic is in. */
static uint32_t free_color(const Scene *scene)
{
    const GroupState *state = scene->state;

    if (state->current)
        return 1 - (scene_color(scene, state->current) & 1);
    return scene->live == 0;
}

static bool decide_begin(Scene *scene)
{
    const GroupState *state = scene->state;
    bool early = state->phase == PHASE_ROLL || state->phase == PHASE_WATCH;

    if (!wants_next(state) || (state->phase != PHASE_IDLE && !early))
        return false;
    if (state->paused) {
        scene_wait(scene, WAIT_PAUSED);
        return false;
    }
    if (is_bluegreen(scene) && state->current && scene->live != (int)scene_color(scene, state->current))
        return false; /* first the traffic goes where it belongs */
    decide(scene, ACTION_BEGIN, early ? CAUSE_SUPERSEDED : CAUSE_ROLLOUT, state->next)->color = is_bluegreen(scene) ? free_color(scene) : 0;
    return true;
}

/* Which revision shall have blue/green's traffic now; 0: no change. */
static uint32_t switch_goal(const Scene *scene)
{
    const GroupState *state = scene->state;

    switch (state->phase) {
    case PHASE_ROLL:
        return scene->complete && !scene->rules->gate && !state->paused ? state->target : 0;
    case PHASE_WATCH:
        return scene->complete && state->passed_gate && !state->paused ? state->target : 0;
    case PHASE_HOLD:
    case PHASE_CLEAN:
        return state->target;
    case PHASE_IDLE:
    case PHASE_BACK:
        return state->current;
    default:
        return 0;
    }
}

static unsigned ready_instances(const Scene *scene, uint32_t revision)
{
    unsigned ready = 0;

    for (unsigned i = 0; i < scene->state->instances->len; i++) {
        const Instance *row = state_row(scene->state, i);

        ready += row->revision == revision && row->life == LIFE_RUNNING && row->proof == PROOF_GOOD && row->route == ROUTE_IN && row->up;
    }
    return ready;
}

static bool switch_color(Scene *scene)
{
    uint32_t goal = is_bluegreen(scene) && scene->answers ? switch_goal(scene) : 0, color = goal ? scene_color(scene, goal) : 0;
    unsigned ready, need = MAX(scene->floor, MIN(scene->state->size, 1));

    if (goal == 0 || scene->live == (int)color)
        return false;
    ready = ready_instances(scene, goal);
    if (scene_foreign(scene, goal) || (ready < need && ready <= scene->serving))
        return false;
    decide(scene, ACTION_SWITCH, scene->state->phase == PHASE_BACK ? CAUSE_ASKED : CAUSE_ROLLOUT, goal)->color = color;
    return true;
}

static bool progress_roll(Scene *scene)
{
    const GroupState *state = scene->state;
    bool last = scene->rules->strategy != STRATEGY_CANARY || !state->current || state->step + 1 >= scene->rules->step_count;

    if (!scene->complete || scene->leftover)
        return false;
    if (is_bluegreen(scene))
        return scene->rules->gate && enter_phase(scene, PHASE_WATCH, 0, CAUSE_ROLLOUT);
    return enter_phase(scene, last ? PHASE_HOLD : PHASE_WATCH, last ? 0 : state->step, CAUSE_ROLLOUT);
}

static bool progress_watch(Scene *scene)
{
    const GroupRules *rules = scene->rules;
    const GroupState *state = scene->state;
    bool judged = !rules->analysis || state->verdict == VERDICT_PASS || (state->verdict == VERDICT_INCONCLUSIVE && state->passed_gate);

    if (rules->gate && !state->passed_gate)
        scene_wait(scene, WAIT_GATE);
    else if (is_bluegreen(scene))
        return false;
    else if (!judged)
        scene_wait(scene, state->verdict == VERDICT_INCONCLUSIVE ? WAIT_INCONCLUSIVE : WAIT_VERDICT);
    else if (!state->hold_over)
        scene_wait(scene, WAIT_HOLD);
    else if (scene->complete)
        return enter_phase(scene, PHASE_ROLL, state->step + 1, CAUSE_HELD);
    return false;
}

static bool progress_hold(Scene *scene)
{
    const GroupState *state = scene->state;

    if (!state->hold_over) {
        scene_wait(scene, WAIT_HOLD);
        return false;
    }
    if (is_bluegreen(scene))
        return scene->kept && scene->live == (int)scene_color(scene, state->target) && enter_phase(scene, PHASE_CLEAN, 0, CAUSE_HELD);
    return scene->complete && !scene->leftover && decide(scene, ACTION_STABLE, CAUSE_HELD, state->target);
}

static bool progress_back(Scene *scene)
{
    const GroupState *state = scene->state;
    bool there = !is_bluegreen(scene) || !state->current || scene->live == (int)scene_color(scene, state->current);

    /* where the revision must not be healed, what is left of the other one may carry the floor until something else is rolled out */
    return scene->complete && there && (!scene->leftover || scene->stopped) && decide(scene, ACTION_RETURNED, CAUSE_ROLLOUT, state->target);
}

static bool progress_destroy(Scene *scene)
{
    for (unsigned i = 0; i < scene->state->instances->len; i++) {
        const Instance *row = state_row(scene->state, i);

        if (instance_exists(row) || row->place >= 0 || !row->ended)
            return false;
    }
    return decide(scene, ACTION_ENDED, CAUSE_DESTROY, 0);
}

static bool progress(Scene *scene)
{
    Phase phase = scene->state->phase;

    if (phase == PHASE_DESTROY)
        return progress_destroy(scene);
    if (phase == PHASE_IDLE)
        return false;
    if (scene->state->paused) {
        scene_wait(scene, WAIT_PAUSED);
        return false;
    }
    switch (phase) {
    case PHASE_ROLL:
        return progress_roll(scene);
    case PHASE_WATCH:
        return progress_watch(scene);
    case PHASE_HOLD:
        return progress_hold(scene);
    case PHASE_CLEAN:
        return scene->complete && !scene->leftover && decide(scene, ACTION_STABLE, CAUSE_HELD, scene->state->target);
    default:
        return progress_back(scene);
    }
}

/* The first of Wait's order; a full ceiling is only news where nothing else is under way. */
static Wait first_wait(unsigned waits)
{
    const unsigned busy = 1U << WAIT_START | 1U << WAIT_HEALTH | 1U << WAIT_DRAIN | 1U << WAIT_COOLING;

    if (waits & busy)
        waits &= ~(1U << WAIT_CEILING);
    for (unsigned i = 1; i <= WAIT_HOLD; i++)
        if (waits & 1U << i)
            return (Wait)i;
    return WAIT_NOTHING;
}

void group_next(const GroupRules *rules, const GroupState *state, GArray *ret_actions, Wait *ret_wait)
{
    Scene scene;
    bool any;

    g_array_set_size(ret_actions, 0);
    if (state->newer_epoch) {
        *ret_wait = WAIT_EPOCH;
        return;
    }
    scene_init(&scene, rules, state, ret_actions);
    any = decide_losses(&scene) || decide_back(&scene) || decide_switched(&scene) || decide_begin(&scene) || switch_color(&scene) ||
          scene_create(&scene) || scene_advance(&scene) || scene_shrink(&scene) || progress(&scene);
    *ret_wait = any ? WAIT_NOTHING : first_wait(scene.waits);
    scene_clear(&scene);
}

bool group_settled(const GroupRules *rules, const GroupState *state)
{
    g_autoptr(GArray) actions = g_array_new(FALSE, FALSE, sizeof(Action));
    Wait wait;
    Scene scene;
    bool whole;

    if (state->phase != PHASE_IDLE || wants_next(state) || state->newer_epoch)
        return false;
    group_next(rules, state, actions, &wait);
    scene_init(&scene, rules, state, actions);
    whole = scene.complete && !scene.leftover;
    for (unsigned i = 0; i < state->instances->len; i++)
        whole &= state_row(state, i)->life != LIFE_UNKNOWN || state_row(state, i)->ended;
    scene_clear(&scene);
    return whole && actions->len == 0;
}
