/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The composition of each phase, as seats.
 *
 *   phase              seats of target            seats of current
 *   idle, back         -                          0..size-1 *
 *   roll, watch, hold
 *     rolling          0..size-1 *                -
 *     blue/green       0..size-1 *                0..size-1
 *     canary step      0..c-1 *                   the last o slots below size; baseline: size..size+b-1 *
 *     canary, last     0..size-1 *                -
 *   clean              0..size-1 *                -
 *   destroy            -                          -
 *
 * A first rollout has nothing to compare with and goes to its full size in one step, also as a canary.
 * Seats with a star are key. c, b and o: canary_shape(). The old ones of a canary step keep the slots at the end, so that with exclusive slots
 * the canaries find theirs free, and a rollout always works upwards.
 */
#include "deploy/seat.h"

unsigned group_surge(const GroupRules *rules, const GroupState *state)
{
    if (rules->exclusive)
        return 0;
    return rules->strategy == STRATEGY_BLUEGREEN ? MAX(state->size, 1) : rules->max_surge;
}

unsigned group_floor(const GroupRules *rules, const GroupState *state)
{
    if (state->phase == PHASE_DESTROY || (state->phase == PHASE_BACK && state->current == 0))
        return 0;
    return state->size - MIN(state->size, rules->max_unavailable);
}

unsigned group_ceiling(const GroupRules *rules, const GroupState *state)
{
    return state->size + group_surge(rules, state);
}

bool instance_exists(const Instance *instance)
{
    return instance->life != LIFE_NONE && !(instance->ended && instance->life == LIFE_UNKNOWN);
}

unsigned group_existing(const GroupState *state)
{
    unsigned existing = 0;

    for (unsigned i = 0; i < state->instances->len; i++)
        existing += instance_exists(state_row(state, i));
    return existing;
}

bool instance_serves(const GroupRules *rules, const GroupState *state, const Instance *instance)
{
    if (instance->life != LIFE_RUNNING || instance->proof != PROOF_GOOD || instance->route != ROUTE_IN || !instance->up)
        return false;
    if (rules->strategy == STRATEGY_BLUEGREEN) {
        const Revision *revision = group_revision(state, instance->revision);

        return revision && (int32_t)revision->color == state->color;
    }
    return true;
}

unsigned group_serving(const GroupRules *rules, const GroupState *state)
{
    unsigned serving = 0;

    for (unsigned i = 0; i < state->instances->len; i++)
        serving += instance_serves(rules, state, state_row(state, i));
    return serving;
}

unsigned group_canaries(const GroupRules *rules, unsigned size, unsigned step)
{
    const CanaryStep *wanted;

    if (step + 1 >= rules->step_count)
        return size;
    wanted = &rules->steps[step];
    if (wanted->percent == 0)
        return MIN(wanted->count, size);
    return MIN(size, (unsigned)(((uint64_t)size * wanted->percent + 99) / 100));
}

/* Lateness counts against an instance only where it is the one that is waited for, not where it waits for its wave. */
static bool is_stuck(const Instance *row)
{
    return row->life == LIFE_STARTING || row->health != HEALTH_GOOD || (row->asked && row->proof == PROOF_NONE) ||
           (row->route == ROUTE_DRAINED && !row->up);
}

bool instance_fault(const Instance *row, Cause *ret)
{
    Cause cause;

    if (row->life == LIFE_UNKNOWN || !instance_exists(row))
        return false;
    if (row->proof == PROOF_BAD)
        cause = CAUSE_WRONG_IMAGE;
    else if (row->life == LIFE_DEAD)
        cause = row->served ? CAUSE_DEAD : CAUSE_START_FAILED;
    else if (row->life == LIFE_RUNNING && row->health == HEALTH_BAD)
        cause = row->served ? CAUSE_SICK : CAUSE_START_FAILED;
    else if (row->failed || (!row->served && row->start_late && row->route != ROUTE_IN && is_stuck(row)))
        cause = CAUSE_START_FAILED;
    else
        return false;
    if (ret)
        *ret = cause;
    return true;
}

typedef struct Range {
    uint32_t revision, first, end;
    unsigned weight;
    bool key;
} Range;

typedef struct Ranges {
    Range list[3]; /* by revision and slot, not touching each other */
    unsigned count;
} Ranges;

static void add_range(Ranges *ranges, uint32_t revision, uint32_t first, uint32_t end, unsigned weight, bool key)
{
    unsigned at = ranges->count;

    if (revision == 0 || first >= end)
        return;
    for (; at > 0 && ranges->list[at - 1].revision > revision; at--)
        ranges->list[at] = ranges->list[at - 1];
    ranges->list[at] = (Range){revision, first, end, weight, key};
    ranges->count++;
}

typedef struct CanaryShape {
    unsigned canaries, baseline, old;
    unsigned canary_weight, old_weight;
} CanaryShape;

/*
 * The canaries together get the step's percent p of all weight. With c canaries and b baseline instances of weight x and o old ones of
 * weight y that is x / y = p o / (100 c - p (c + b)), as near as integers of 1..WEIGHT_MAX come, one of them being WEIGHT_MAX.
 */
static void canary_weights(const GroupRules *rules, unsigned percent, CanaryShape *shape)
{
    double over = (double)percent * shape->old, under = 100.0 * shape->canaries - (double)percent * (shape->canaries + shape->baseline), ratio;

    shape->canary_weight = shape->old_weight = WEIGHT_MAX;
    if (!rules->weighted || percent == 0 || shape->old == 0 || shape->canaries == 0)
        return;
    ratio = under <= 0 ? WEIGHT_MAX : over / under;
    if (ratio >= 1)
        shape->old_weight = MAX(1, (unsigned)(WEIGHT_MAX / ratio + 0.5));
    else
        shape->canary_weight = MAX(1, (unsigned)(WEIGHT_MAX * ratio + 0.5));
}

static CanaryShape canary_shape(const GroupRules *rules, const GroupState *state)
{
    unsigned ceiling = group_ceiling(rules, state), percent = rules->steps[state->step].percent;
    CanaryShape shape = {.canaries = MIN(group_canaries(rules, state->size, state->step), state->size)};

    if (rules->baseline && !rules->exclusive && percent <= 50 && state->current)
        shape.baseline = MIN(shape.canaries, ceiling - shape.canaries);
    shape.old = state->current ? MIN(state->size, ceiling - shape.canaries - shape.baseline) : 0;
    canary_weights(rules, percent, &shape);
    return shape;
}

static void add_canary(const GroupRules *rules, const GroupState *state, Ranges *ret)
{
    CanaryShape shape = canary_shape(rules, state);

    add_range(ret, state->target, 0, shape.canaries, shape.canary_weight, true);
    add_range(ret, state->current, state->size - shape.old, state->size, shape.old_weight, false);
    add_range(ret, state->current, state->size, state->size + shape.baseline, shape.canary_weight, true);
}

static Ranges composition(const GroupRules *rules, const GroupState *state)
{
    Ranges ranges = {.count = 0};

    switch (state->phase) {
    case PHASE_IDLE:
    case PHASE_BACK:
        add_range(&ranges, state->current, 0, state->size, WEIGHT_MAX, true);
        break;
    case PHASE_ROLL:
    case PHASE_WATCH:
    case PHASE_HOLD:
        if (rules->strategy == STRATEGY_CANARY && state->current && state->phase != PHASE_HOLD && state->step + 1 < rules->step_count) {
            add_canary(rules, state, &ranges);
            break;
        }
        if (rules->strategy == STRATEGY_BLUEGREEN)
            add_range(&ranges, state->current, 0, state->size, WEIGHT_MAX, false);
        add_range(&ranges, state->target, 0, state->size, WEIGHT_MAX, true);
        break;
    case PHASE_CLEAN:
        add_range(&ranges, state->target, 0, state->size, WEIGHT_MAX, true);
        break;
    case PHASE_DESTROY:
        break;
    }
    return ranges;
}

static void take_rows(const GroupState *state, unsigned *at, Seat *seat)
{
    seat->first = *at;
    while (*at < state->instances->len && state_row(state, *at)->revision == seat->revision && state_row(state, *at)->slot == seat->slot)
        ++*at;
    seat->count = *at - seat->first;
}

static bool before(const Seat *seat, const Instance *row)
{
    return seat->revision != row->revision ? seat->revision < row->revision : seat->slot <= row->slot;
}

/* In a pause the seats are those whose newest instance is there, or is missing because it failed. */
static void freeze(const GroupState *state, Seat *seat)
{
    const Instance *newest = seat->count > 0 ? state_row(state, seat->first + seat->count - 1) : NULL;
    bool stays = state->phase != PHASE_CLEAN && seat->revision == state->current, comes = state->phase != PHASE_BACK && seat->revision == state->target;
    bool ours = stays || comes;

    seat->wanted = seat->key = ours && newest && ((!newest->ended && !newest->drained) || newest->failed);
    if (!seat->weight)
        seat->weight = newest && newest->route == ROUTE_IN ? newest->weight : WEIGHT_MAX;
}

GArray *group_seats(const GroupRules *rules, const GroupState *state, bool *ret_frozen)
{
    Ranges ranges = composition(rules, state);
    GArray *seats = g_array_sized_new(FALSE, TRUE, sizeof(Seat), state->instances->len + 2 * state->size);
    bool frozen = state->paused && (state->phase == PHASE_ROLL || state->phase == PHASE_CLEAN || state->phase == PHASE_BACK);
    unsigned range = 0, row = 0;
    uint32_t slot = ranges.count > 0 ? ranges.list[0].first : 0;

    while (row < state->instances->len || range < ranges.count) {
        Seat seat = {.weight = 0};
        bool wanted = false;

        if (range < ranges.count) {
            seat = (Seat){.revision = ranges.list[range].revision, .slot = slot, .weight = ranges.list[range].weight, .key = ranges.list[range].key};
            wanted = row >= state->instances->len || before(&seat, state_row(state, row));
        }
        if (!wanted)
            seat = (Seat){.revision = state_row(state, row)->revision, .slot = state_row(state, row)->slot};
        seat.wanted = wanted;
        take_rows(state, &row, &seat);
        if (frozen)
            freeze(state, &seat);
        g_array_append_val(seats, seat);
        if (wanted && ++slot >= ranges.list[range].end && ++range < ranges.count)
            slot = ranges.list[range].first;
    }
    *ret_frozen = frozen;
    return seats;
}
