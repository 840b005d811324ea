/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What takes instances out of service: drain, leave, destroy. Only surplus goes: rows that are no seat's keeper.
 *
 * An instance that is dead, gone or runs the wrong image goes at once, whatever the floor says: it serves nobody, or must not. One that has
 * traffic, or might have it again when its checks pass, goes when nothing of the phase is on its way, and either
 *   - the phase is whole without it, or its own seat's new instance serves; or
 *   - seats lack instances and the ceiling (or the pool, or the slot) has no room: as many as that needs.
 * One that serves goes only as far as the floor allows. Below the floor, those that might serve again go max_unavailable (at least one) at a
 * time, so that a fault of the checks never takes a whole group down.
 */
#include "deploy/scene.h"

/* Nothing to be polite about. */
static bool is_hard(const Instance *row)
{
    return row->life == LIFE_NONE || row->life == LIFE_DEAD || row->proof == PROOF_BAD;
}

typedef struct Surplus {
    const Seat *seat;
    const Instance *row;
} Surplus;

static GArray *find_surplus(const Scene *scene)
{
    GArray *found = g_array_new(FALSE, FALSE, sizeof(Surplus));

    for (unsigned i = 0; i < scene->seats->len; i++) {
        const Seat *seat = &g_array_index(scene->seats, Seat, i);
        const Instance *keeper = seat->keeper;

        for (unsigned j = seat->first; j < seat->first + seat->count; j++) {
            Surplus one = {seat, state_row(scene->state, j)};

            if (one.row != keeper && (instance_exists(one.row) || one.row->place >= 0))
                g_array_append_val(found, one);
        }
    }
    return found;
}

static bool needs_drain(const Instance *row)
{
    return row->place >= 0 && (!row->drained || row->route == ROUTE_IN);
}

static bool seat_is_done(const Scene *scene, const Seat *seat)
{
    const Instance *keeper = seat->keeper;

    return keeper && scene_stage(scene, seat, keeper) == STAGE_DONE;
}

/* Blue/green on the way back: what has the traffic keeps it until the map names the other color. */
static bool is_protected(const Scene *scene, const Instance *row)
{
    const GroupState *state = scene->state;
    bool back = state->phase == PHASE_BACK || state->phase == PHASE_IDLE;

    return scene->live >= 0 && back && state->current && (int32_t)scene_color(scene, state->current) != scene->live && scene_serves(scene, row);
}

typedef struct Budget {
    unsigned serving; /* left */
    unsigned soft;    /* of those that might serve again, while below the floor */
    unsigned demand;  /* instances that have to go to make room */
    GHashTable *slots; /* exclusive: slots that seats wait for */
} Budget;

static void budget_init(Budget *budget, const Scene *scene, const GArray *surplus)
{
    unsigned draining = 0, wanting = scene->wanting + scene->starved, room = scene->ceiling - MIN(scene->ceiling, scene->existing);

    *budget = (Budget){.serving = scene->serving};
    for (unsigned i = 0; i < surplus->len; i++) {
        const Instance *row = g_array_index(surplus, Surplus, i).row;

        draining += row->drained && row->life == LIFE_RUNNING && row->route != ROUTE_IN;
    }
    budget->soft = MAX(scene->rules->max_unavailable, 1);
    budget->soft -= MIN(budget->soft, draining);
    if (scene->wanting > 0 && scene->existing > scene->ceiling)
        wanting += scene->existing - scene->ceiling;
    if (!scene->rules->exclusive)
        wanting -= MIN(wanting, room);
    budget->demand = wanting - MIN(wanting, draining);
}

/* Exclusive slots make room only for their own seat. */
static bool makes_room(Scene *scene, const Instance *row)
{
    if (!scene->rules->exclusive)
        return true;
    for (unsigned i = 0; i < scene->seats->len; i++) {
        const Seat *seat = &g_array_index(scene->seats, Seat, i);

        if (seat->wanted && seat->slot == row->slot)
            return !seat->keeper && scene_may_try(scene, seat);
    }
    return scene->existing >= scene->ceiling; /* left over from a larger size */
}

static bool may_drain(Scene *scene, Budget *budget, const Surplus *one)
{
    bool serves = scene_serves(scene, one->row), released;

    if (scene->blocking > 0 || is_protected(scene, one->row) || (scene->frozen && !one->seat->wanted))
        return false;
    if (serves && budget->serving <= scene->floor)
        return false;
    if (!serves && budget->serving < scene->floor && budget->soft == 0)
        return false;
    released = one->seat->wanted ? seat_is_done(scene, one->seat) : scene->complete;
    if (!released && (budget->demand == 0 || one->row->life == LIFE_UNKNOWN || !makes_room(scene, one->row)))
        return false;
    budget->serving -= serves;
    budget->demand -= MIN(budget->demand, 1);
    budget->soft -= MIN(budget->soft, serves ? 0 : 1);
    return true;
}

/* Who goes first: what does not serve, then what belongs to no wanted revision, then the rest. */
static unsigned drain_class(const Scene *scene, const Instance *row)
{
    if (!scene_serves(scene, row))
        return 0;
    return row->revision != scene->state->current && row->revision != scene->state->target ? 1 : 2;
}

static bool drain(Scene *scene, const GArray *surplus)
{
    g_autofree uint8_t *take = g_new0(uint8_t, MAX(surplus->len, 1));
    Budget budget;

    budget_init(&budget, scene, surplus);
    for (unsigned class = 0; class < 3; class++)
        for (unsigned i = 0; i < surplus->len; i++) {
            const Surplus *one = &g_array_index(surplus, Surplus, i);

            if (!needs_drain(one->row) || drain_class(scene, one->row) != class)
                continue;
            if (is_hard(one->row) || (one->row->route != ROUTE_IN && one->row->life != LIFE_UNKNOWN))
                take[i] = class == 0; /* has no traffic to lose */
            else
                take[i] = may_drain(scene, &budget, one);
        }
    for (unsigned i = 0; i < surplus->len; i++) {
        const Surplus *one = &g_array_index(surplus, Surplus, i);

        if (take[i])
            scene_add(scene, ACTION_DRAIN, scene_cause(scene, one->seat, one->row), one->row);
    }
    return scene->actions->len > 0;
}

static bool leave(Scene *scene, const GArray *surplus)
{
    bool waiting = false;

    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < surplus->len; i++) {
            const Surplus *one = &g_array_index(surplus, Surplus, i);
            const Instance *row = one->row;

            if (row->place < 0 || needs_drain(row))
                continue;
            if (pass == 0)
                waiting |= !is_hard(row) && !row->empty && !row->drain_late;
            else if (is_hard(row) || !waiting)
                scene_add(scene, ACTION_LEAVE, scene_cause(scene, one->seat, row), row);
        }
    }
    if (waiting)
        scene_wait(scene, WAIT_DRAIN);
    return scene->actions->len > 0;
}

static bool destroy(Scene *scene, const GArray *surplus)
{
    for (unsigned i = 0; i < surplus->len; i++) {
        const Surplus *one = &g_array_index(surplus, Surplus, i);

        if (one->row->place >= 0 || !instance_exists(one->row))
            continue;
        if (one->row->life == LIFE_UNKNOWN)
            scene_wait(scene, WAIT_HOST);
        else
            scene_add(scene, ACTION_DESTROY, scene_cause(scene, one->seat, one->row), one->row);
    }
    return scene->actions->len > 0;
}

bool scene_shrink(Scene *scene)
{
    g_autoptr(GArray) surplus = find_surplus(scene);

    return (scene->answers && (drain(scene, surplus) || leave(scene, surplus))) || destroy(scene, surplus);
}
