/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting a scene. Everything here costs a pass over rows and seats, so that a call is linear in the group's size.
 */
#include "deploy/scene.h"

uint32_t scene_color(const Scene *scene, uint32_t revision)
{
    const Revision *found = group_revision(scene->state, revision);

    return found ? found->color : 0;
}

bool scene_serves(const Scene *scene, const Instance *row)
{
    return instance_serves(scene->rules, scene->state, row);
}

void scene_wait(Scene *scene, Wait wait)
{
    scene->waits |= 1U << wait;
}

void scene_add(Scene *scene, ActionKind kind, Cause cause, const Instance *row)
{
    Action action = {.kind = kind, .cause = cause, .revision = row->revision, .slot = row->slot, .attempt = row->attempt, .host = row->host,
                     .place = row->place, .color = scene_color(scene, row->revision)};

    g_array_append_val(scene->actions, action);
}

bool scene_foreign(const Scene *scene, uint32_t revision)
{
    uint32_t color = scene_color(scene, revision);

    for (unsigned i = 0; i < scene->state->instances->len; i++) {
        const Instance *row = state_row(scene->state, i);

        if (row->revision != revision && row->place >= 0 && scene_color(scene, row->revision) == color)
            return true;
    }
    return false;
}

static bool is_stopped(const Scene *scene, uint32_t revision)
{
    const Revision *found = group_revision(scene->state, revision);

    return found && found->stopped;
}

static const Instance *find_keeper(const Scene *scene, const Seat *seat)
{
    const Instance *row;

    if (!seat->wanted || seat->count == 0)
        return NULL;
    row = state_row(scene->state, seat->first + seat->count - 1);
    if (row->ended || row->drained || row->replace || row->life == LIFE_UNKNOWN || instance_fault(row, NULL))
        return NULL;
    if (row->life == LIFE_NONE && (row->created || row->failed))
        return NULL;
    return row;
}

Stage scene_stage(const Scene *scene, const Seat *seat, const Instance *keeper)
{
    if (keeper->life == LIFE_NONE)
        return STAGE_INTENDED;
    if (keeper->life == LIFE_STARTING)
        return STAGE_STARTING;
    if (keeper->proof == PROOF_NONE)
        return STAGE_ATTEST;
    if (keeper->route == ROUTE_IN && !keeper->up)
        return STAGE_FLAP;
    if (keeper->route == ROUTE_IN && keeper->served && keeper->weight == seat->weight)
        return STAGE_DONE;
    if (keeper->health != HEALTH_GOOD)
        return STAGE_WARM;
    if (keeper->route == ROUTE_OUT)
        return STAGE_ENTER;
    return keeper->up ? STAGE_ROUTE : STAGE_UP;
}

bool scene_may_try(Scene *scene, const Seat *seat)
{
    const Instance *newest = seat->count > 0 ? state_row(scene->state, seat->first + seat->count - 1) : NULL;
    bool gated = newest && (newest->failed || (!newest->ended && (newest->replace || instance_fault(newest, NULL))));

    if (is_stopped(scene, seat->revision)) {
        scene->stopped = true;
        return false;
    }
    if (newest && newest->life == LIFE_UNKNOWN)
        scene_wait(scene, WAIT_HOST);
    if (gated && !newest->cooled) {
        scene_wait(scene, WAIT_COOLING);
        return false;
    }
    return true;
}

static Cause unwanted_cause(const Scene *scene, const Instance *row)
{
    const GroupState *state = scene->state;

    if (state->phase == PHASE_DESTROY)
        return CAUSE_DESTROY;
    if (row->revision == state->current || (state->target && row->revision == state->target))
        return row->slot >= state->size && state->phase != PHASE_BACK ? CAUSE_SCALE : CAUSE_ROLLOUT;
    return state->target ? CAUSE_SUPERSEDED : CAUSE_STRAY;
}

Cause scene_cause(const Scene *scene, const Seat *seat, const Instance *row)
{
    Cause cause;

    if (!seat->wanted)
        return unwanted_cause(scene, row);
    if (instance_fault(row, &cause))
        return cause;
    return CAUSE_REPLACE;
}

static bool serves_well(const Scene *scene, const Seat *seat)
{
    for (unsigned i = seat->first; i < seat->first + seat->count; i++) {
        const Instance *row = state_row(scene->state, i);

        if (row->life == LIFE_RUNNING && row->proof == PROOF_GOOD && row->route == ROUTE_IN && row->up && !row->drained && row->health != HEALTH_BAD)
            return true;
    }
    return false;
}

static void count_keeper(Scene *scene, const Seat *seat, const Instance *keeper)
{
    Stage stage = scene_stage(scene, seat, keeper);

    if (stage == STAGE_DONE)
        return;
    if (seat->key) {
        scene->complete = false;
        scene->blocking += stage != STAGE_INTENDED && stage != STAGE_ROUTE;
    }
}

/* What of the seat's rows is in the way of the phase's end. Where the host is silent there is nothing to wait for but the balancer's entry. */
static void count_leftover(Scene *scene, const Seat *seat, const Instance *keeper)
{
    if (seat->wanted && !seat->key)
        return;
    for (unsigned i = seat->first; i < seat->first + seat->count; i++) {
        const Instance *row = state_row(scene->state, i);

        if (row != keeper && (row->place >= 0 || (instance_exists(row) && row->life != LIFE_UNKNOWN)))
            scene->leftover = true;
    }
}

static void count_seat(Scene *scene, Seat *seat)
{
    const Instance *keeper = seat->keeper = find_keeper(scene, seat);

    count_leftover(scene, seat, keeper);
    if (!seat->wanted)
        return;
    if (seat->key && !serves_well(scene, seat))
        scene->kept = false;
    if (keeper)
        count_keeper(scene, seat, keeper);
    else if (scene_may_try(scene, seat) || !is_stopped(scene, seat->revision))
        scene->complete &= !seat->key;
}

static void count_row(Scene *scene, const Instance *row)
{
    scene->existing += instance_exists(row);
    scene->serving += scene_serves(scene, row);
    if (row->place >= 0 && row->route == ROUTE_UNKNOWN)
        scene->answers = false;
}

void scene_init(Scene *scene, const GroupRules *rules, const GroupState *state, GArray *actions)
{
    *scene = (Scene){.rules = rules, .state = state, .actions = actions, .complete = true, .kept = true, .answers = state->balancers_answer};
    scene->ceiling = group_ceiling(rules, state);
    scene->floor = group_floor(rules, state);
    scene->live = rules->strategy == STRATEGY_BLUEGREEN ? state->color : -1;
    scene->seats = group_seats(rules, state, &scene->frozen);
    for (unsigned i = 0; i < state->instances->len; i++)
        count_row(scene, state_row(state, i));
    for (unsigned i = 0; i < scene->seats->len; i++)
        count_seat(scene, &g_array_index(scene->seats, Seat, i));
    if (!scene->answers) {
        scene->complete = scene->kept = false;
        scene_wait(scene, WAIT_BALANCER);
    }
}

void scene_clear(Scene *scene)
{
    g_array_unref(scene->seats);
}
