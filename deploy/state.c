/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GroupState: the journal, folded. Intents and outcomes change rows and phase here, and nothing of the last observation is asked
 * on the way, so that every replay of a journal gives the same rows, whenever its reader died.
 *
 * One row per (revision, slot) stays when its instance has ended: it tells the next attempt's number. Rows of revisions that were left are
 * dropped when a rollout begins or ends; the revision then keeps the highest attempt (Revision.attempts), so that no identity is used
 * twice even if the revision comes back.
 */
#include "deploy/seat.h"

GroupState *group_state_new(unsigned size, unsigned hosts, unsigned places)
{
    GroupState *state = g_new0(GroupState, 1);

    state->instances = g_array_new(FALSE, TRUE, sizeof(Instance));
    state->revisions = g_array_new(FALSE, TRUE, sizeof(Revision));
    state->hosts = g_new0(bool, MAX(hosts, 1));
    for (unsigned i = 0; i < hosts; i++)
        state->hosts[i] = true;
    state->host_count = hosts;
    state->size = size;
    state->places = places;
    state->color = -1;
    state->balancers_answer = true;
    return state;
}

GroupState *group_state_copy(const GroupState *state)
{
    GroupState *copy = g_memdup2(state, sizeof *state);

    copy->instances = g_array_sized_new(FALSE, TRUE, sizeof(Instance), state->instances->len);
    copy->revisions = g_array_sized_new(FALSE, TRUE, sizeof(Revision), state->revisions->len);
    if (state->instances->len > 0)
        g_array_append_vals(copy->instances, state->instances->data, state->instances->len);
    if (state->revisions->len > 0)
        g_array_append_vals(copy->revisions, state->revisions->data, state->revisions->len);
    copy->hosts = g_new0(bool, MAX(state->host_count, 1));
    for (unsigned i = 0; i < state->host_count; i++)
        copy->hosts[i] = state->hosts[i];
    return copy;
}

void group_state_free(GroupState *state)
{
    if (!state)
        return;
    g_array_unref(state->instances);
    g_array_unref(state->revisions);
    g_free(state->hosts);
    g_free(state);
}

static int row_compare(const Instance *row, uint32_t revision, uint32_t slot, uint32_t attempt)
{
    if (row->revision != revision)
        return row->revision < revision ? -1 : 1;
    if (row->slot != slot)
        return row->slot < slot ? -1 : 1;
    return row->attempt < attempt ? -1 : row->attempt > attempt;
}

/* Index of the first row that does not come before the given one. */
static unsigned row_place(const GroupState *state, uint32_t revision, uint32_t slot, uint32_t attempt)
{
    unsigned low = 0, high = state->instances->len;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (row_compare(state_row(state, middle), revision, slot, attempt) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

Instance *group_instance(const GroupState *state, uint32_t revision, uint32_t slot, uint32_t attempt)
{
    unsigned at = row_place(state, revision, slot, attempt);

    return at < state->instances->len && row_compare(state_row(state, at), revision, slot, attempt) == 0 ? state_row(state, at) : NULL;
}

static Revision *find_revision(const GroupState *state, uint32_t number)
{
    unsigned low = 0, high = state->revisions->len;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        Revision *revision = &g_array_index(state->revisions, Revision, middle);

        if (revision->number == number)
            return revision;
        if (revision->number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const Revision *group_revision(const GroupState *state, uint32_t number)
{
    return find_revision(state, number);
}

static Revision *need_revision(GroupState *state, uint32_t number)
{
    Revision *found = find_revision(state, number), fresh = {.number = number};
    unsigned at = 0;

    if (found)
        return found;
    while (at < state->revisions->len && g_array_index(state->revisions, Revision, at).number < number)
        at++;
    g_array_insert_val(state->revisions, at, fresh);
    return &g_array_index(state->revisions, Revision, at);
}

/* What went wrong is told by the cause of the first decision about it, and told once. */
static void fold_failure(GroupState *state, Instance *row, Cause cause)
{
    bool wrong = cause == CAUSE_DEAD || cause == CAUSE_SICK || cause == CAUSE_START_FAILED || cause == CAUSE_WRONG_IMAGE;

    if (!wrong || row->failed)
        return;
    row->failed = true;
    if (row->revision == state->target && (state->phase == PHASE_ROLL || state->phase == PHASE_WATCH || state->phase == PHASE_HOLD))
        state->failures++;
}

Instance *group_add_instance(GroupState *state, uint32_t revision, uint32_t slot, uint32_t attempt)
{
    unsigned at = row_place(state, revision, slot, attempt);
    Instance row = {.revision = revision, .slot = slot, .attempt = attempt, .place = -1};

    g_array_insert_val(state->instances, at, row);
    return state_row(state, at);
}

static void intend_create(GroupState *state, const Action *action)
{
    unsigned at = row_place(state, action->revision, action->slot, action->attempt);
    bool retry = false;
    Instance *row;

    if (group_instance(state, action->revision, action->slot, action->attempt))
        return; /* intended before a crash */
    while (at > 0 && state_row(state, at - 1)->revision == action->revision && state_row(state, at - 1)->slot == action->slot) {
        const Instance *older = state_row(state, at - 1);

        retry = retry || older->failed;
        if (!older->ended || older->place >= 0)
            break;
        g_array_remove_index(state->instances, --at);
    }
    row = group_add_instance(state, action->revision, action->slot, action->attempt);
    row->host = action->host;
    row->retry = retry;
}

/* Rows that nobody will ask for again. With exclusive slots the last row of a slot tells where its volumes are. */
static void sweep(const GroupRules *rules, GroupState *state)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < state->instances->len; i++) {
        const Instance *row = state_row(state, i);

        if (row->ended && row->place < 0 && row->revision != state->current && row->revision != state->target && !rules->exclusive) {
            Revision *revision = need_revision(state, row->revision);

            revision->attempts = MAX(revision->attempts, row->attempt);
        } else {
            *state_row(state, kept++) = *row;
        }
    }
    g_array_set_size(state->instances, kept);
}

static void begin_phase(GroupState *state, Phase phase, unsigned step)
{
    state->phase = phase;
    state->step = step;
    state->passed_gate = false;
    state->hold_over = false;
    state->verdict = VERDICT_NONE;
}

static void fold_begin(const GroupRules *rules, GroupState *state, const Action *action)
{
    Revision *revision = need_revision(state, action->revision);

    if (rules->strategy == STRATEGY_BLUEGREEN)
        revision->color = action->color;
    state->target = action->revision;
    state->next = 0;
    state->failures = 0;
    state->asked_back = false;
    state->deadline_over = false;
    begin_phase(state, PHASE_ROLL, 0);
    sweep(rules, state);
}

static void fold_phase(GroupState *state, const Action *action)
{
    begin_phase(state, action->phase, action->step);
    if (action->phase != PHASE_BACK)
        return;
    state->paused = false; /* whoever wants it back wants it now */
    if (state->next == state->current)
        state->next = 0;
}

static void fold_end(const GroupRules *rules, GroupState *state, uint32_t current)
{
    state->current = current;
    state->target = 0;
    state->failures = 0;
    state->asked_back = false;
    state->deadline_over = false;
    if (state->next == current)
        state->next = 0;
    begin_phase(state, PHASE_IDLE, 0);
    sweep(rules, state);
}

static void fold_decision(const GroupRules *rules, GroupState *state, const Action *action)
{
    switch (action->kind) {
    case ACTION_BEGIN:
        fold_begin(rules, state, action);
        break;
    case ACTION_PHASE:
        fold_phase(state, action);
        break;
    case ACTION_STABLE:
        need_revision(state, action->revision)->stable = true;
        fold_end(rules, state, action->revision);
        break;
    case ACTION_FAILED:
        need_revision(state, action->revision)->failed = true;
        break;
    case ACTION_RETURNED:
        fold_end(rules, state, state->current);
        break;
    case ACTION_ENDED:
        state->next = 0;
        fold_end(rules, state, 0);
        break;
    default:
        break;
    }
}

void group_intend(const GroupRules *rules, GroupState *state, const Action *action)
{
    Instance *row;

    if (action->kind == ACTION_CREATE) {
        intend_create(state, action);
        return;
    }
    fold_decision(rules, state, action);
    if (action->kind > ACTION_DESTROY && action->kind != ACTION_LOST)
        return;
    row = group_instance(state, action->revision, action->slot, action->attempt);
    if (!row)
        return;
    if (action->kind == ACTION_ATTEST)
        row->asked = true;
    if (action->kind == ACTION_ENTER)
        row->place = action->place;
    if (action->kind == ACTION_DRAIN)
        row->drained = true;
    if (action->kind == ACTION_LOST) {
        row->ended = true;
        row->life = LIFE_NONE;
    }
    if (action->kind >= ACTION_DRAIN)
        fold_failure(state, row, action->cause);
}

/* Its row goes when a later attempt has one; else it waits for that. */
static void fold_destroyed(GroupState *state, Instance *row)
{
    unsigned at = (unsigned)(row - state_row(state, 0));

    row->ended = true;
    row->life = LIFE_NONE;
    if (at + 1 < state->instances->len && row->place < 0) {
        const Instance *later = state_row(state, at + 1);

        if (later->revision == row->revision && later->slot == row->slot)
            g_array_remove_index(state->instances, at);
    }
}

static void fold_done(GroupState *state, Instance *row, const Action *action, Proof proof)
{
    switch (action->kind) {
    case ACTION_CREATE:
        row->created = true;
        if (row->life == LIFE_NONE)
            row->life = LIFE_STARTING;
        break;
    case ACTION_ATTEST:
        row->proof = proof;
        break;
    case ACTION_ROUTE:
        row->route = ROUTE_IN;
        row->weight = action->weight;
        row->served = true;
        break;
    case ACTION_ENTER:
    case ACTION_DRAIN:
        row->route = ROUTE_DRAINED;
        break;
    case ACTION_LEAVE:
        row->route = ROUTE_OUT;
        row->place = -1;
        break;
    case ACTION_DESTROY:
        fold_destroyed(state, row);
        break;
    default:
        break;
    }
}

void group_outcome(const GroupRules *rules, GroupState *state, const Action *action, bool ok, Proof proof)
{
    Instance *row;

    if (action->kind == ACTION_SWITCH && ok)
        state->color = (int32_t)action->color;
    if (action->kind > ACTION_DESTROY)
        return;
    row = group_instance(state, action->revision, action->slot, action->attempt);
    if (!row)
        return;
    if (ok)
        fold_done(state, row, action, proof);
    else if (action->kind == ACTION_CREATE)
        fold_failure(state, row, CAUSE_START_FAILED);
}
