/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What brings instances into service: create, attest, enter, route.
 *
 * Creates go as soon as the ceiling has room, seats of the revision in service first. After that instances go in two waves: the seats that
 * the phase is about (key), and the others, which are only healed. Of a wave nobody passes a stage that another has not reached; retries
 * after a failed attempt, and those for whom the pool has no place, hold nobody up.
 */
#include "deploy/scene.h"

typedef struct Placing {
    unsigned *load;          /* existing instances by host */
    GHashTable *slots;       /* exclusive: slot -> host + 1 of its last row, with TAKEN while an instance exists */
    bool any;                /* a host answers */
} Placing;

#define TAKEN 0x40000000

static void placing_init(Placing *placing, const Scene *scene)
{
    const GroupState *state = scene->state;

    *placing = (Placing){.load = g_new0(unsigned, MAX(state->host_count, 1))};
    if (scene->rules->exclusive)
        placing->slots = g_hash_table_new(NULL, NULL);
    for (unsigned i = 0; i < state->host_count; i++)
        placing->any |= state->hosts[i];
    for (unsigned i = 0; i < state->instances->len; i++) {
        const Instance *row = state_row(state, i);
        bool exists = instance_exists(row) || !row->ended;

        if (instance_exists(row) && row->host >= 0 && (unsigned)row->host < state->host_count)
            placing->load[row->host]++;
        if (placing->slots) {
            guint old = GPOINTER_TO_UINT(g_hash_table_lookup(placing->slots, GUINT_TO_POINTER(row->slot)));

            if (exists || !(old & TAKEN))
                g_hash_table_insert(placing->slots, GUINT_TO_POINTER(row->slot), GUINT_TO_POINTER((guint)(row->host + 1) | (exists ? TAKEN : 0)));
        }
    }
}

static void placing_clear(Placing *placing)
{
    g_free(placing->load);
    g_clear_pointer(&placing->slots, g_hash_table_unref);
}

/* -1: nowhere at the moment. */
static int32_t choose_host(const Placing *placing, const GroupState *state, const Seat *seat)
{
    const Instance *newest = seat->count > 0 ? state_row(state, seat->first + seat->count - 1) : NULL;
    int32_t best = -1, bad = newest && newest->failed ? newest->host : -1;

    if (placing->slots) {
        guint entry = GPOINTER_TO_UINT(g_hash_table_lookup(placing->slots, GUINT_TO_POINTER(seat->slot)));
        int32_t host = (int32_t)(entry & ~(guint)TAKEN) - 1;

        if (host >= 0 && (unsigned)host < state->host_count)
            return state->hosts[host] ? host : -1;
    }
    for (unsigned i = 0; i < state->host_count; i++)
        if (state->hosts[i] && (int32_t)i != bad && (best < 0 || placing->load[i] < placing->load[best]))
            best = (int32_t)i;
    return best >= 0 || bad < 0 || !state->hosts[bad] ? best : bad;
}

static bool slot_taken(const Placing *placing, const Seat *seat)
{
    return placing->slots && (GPOINTER_TO_UINT(g_hash_table_lookup(placing->slots, GUINT_TO_POINTER(seat->slot))) & TAKEN);
}

static uint32_t next_attempt(const GroupState *state, const Seat *seat)
{
    const Revision *revision = group_revision(state, seat->revision);
    uint32_t last = revision ? revision->attempts : 0;

    if (seat->count > 0)
        last = MAX(last, state_row(state, seat->first + seat->count - 1)->attempt);
    return last + 1;
}

/* Intended before a crash: the same instance again, where it was meant to be. */
static bool is_intended(const Scene *scene, const Seat *seat)
{
    const Instance *keeper = seat->keeper;

    return keeper && scene_stage(scene, seat, keeper) == STAGE_INTENDED;
}

/* Seats that lack an instance, may get one, and could hold one if the ceiling has room. */
static bool is_wanting(Scene *scene, const Placing *placing, const Seat *seat)
{
    if (!seat->wanted || (seat->keeper && !is_intended(scene, seat)))
        return false;
    if (!scene_may_try(scene, seat))
        return false;
    if (choose_host(placing, scene->state, seat) < 0) {
        scene_wait(scene, WAIT_HOST);
        return false;
    }
    return true;
}

static void create_in(Scene *scene, Placing *placing, const Seat *seat)
{
    Action action = {.kind = ACTION_CREATE, .cause = CAUSE_ROLLOUT, .revision = seat->revision, .slot = seat->slot, .place = -1,
                     .color = scene_color(scene, seat->revision)};
    const Instance *newest = seat->count > 0 ? state_row(scene->state, seat->first + seat->count - 1) : NULL;

    if (is_intended(scene, seat)) {
        action.attempt = newest->attempt;
        action.host = newest->host;
    } else {
        action.attempt = next_attempt(scene->state, seat);
        action.host = choose_host(placing, scene->state, seat);
    }
    if (newest && !newest->ended && newest->replace)
        action.cause = CAUSE_REPLACE;
    else if (newest)
        action.cause = newest->served ? CAUSE_DEAD : newest->failed ? CAUSE_START_FAILED : CAUSE_ROLLOUT;
    else if (scene->state->phase == PHASE_IDLE)
        action.cause = CAUSE_SCALE;
    placing->load[action.host]++;
    g_array_append_val(scene->actions, action);
}

/* The revision whose instances have the traffic. */
static uint32_t live_revision(const GroupState *state)
{
    return state->phase == PHASE_HOLD || state->phase == PHASE_CLEAN ? state->target : state->current;
}

static bool is_empty(const Scene *scene, const Seat *seat)
{
    for (unsigned i = seat->first; i < seat->first + seat->count; i++)
        if (instance_exists(state_row(scene->state, i)))
            return false;
    return true;
}

/*
 * A seat that has an instance (ill, over-age, silent) gets another one beside it only out of room that no empty seat will need, now or when
 * its pause is over: else one seat could end with two instances that the floor keeps, and another one with none.
 */
static unsigned reserved_room(const Scene *scene)
{
    unsigned empty = 0;

    for (unsigned i = 0; i < scene->seats->len; i++) {
        const Seat *seat = &g_array_index(scene->seats, Seat, i);
        const Revision *revision = group_revision(scene->state, seat->revision);

        empty += seat->wanted && !(revision && revision->stopped) && is_empty(scene, seat);
    }
    return empty;
}

bool scene_create(Scene *scene)
{
    unsigned all_room = scene->ceiling - MIN(scene->ceiling, scene->existing), reserved = reserved_room(scene), taken = 0, chosen = 0;
    uint32_t live = live_revision(scene->state);
    g_autofree uint8_t *take = g_new0(uint8_t, MAX(scene->seats->len, 1));
    Placing placing;

    placing_init(&placing, scene);
    for (unsigned pass = 0; pass < 4; pass++)
        for (unsigned i = 0; i < scene->seats->len; i++) {
            const Seat *seat = &g_array_index(scene->seats, Seat, i);
            bool beside = pass >= 2;
            unsigned room = beside ? all_room - MIN(all_room, reserved) + taken : all_room;

            if (!seat->wanted || (seat->revision == live) != (pass % 2 == 0) || is_empty(scene, seat) == beside || !is_wanting(scene, &placing, seat))
                continue;
            scene->wanting++;
            if (chosen < room && (is_intended(scene, seat) || !slot_taken(&placing, seat))) {
                take[i] = 1;
                chosen++;
                taken += !beside;
            }
        }
    for (unsigned i = 0; i < scene->seats->len; i++)
        if (take[i])
            create_in(scene, &placing, &g_array_index(scene->seats, Seat, i));
    placing_clear(&placing);
    if (chosen == 0 && scene->wanting > 0)
        scene_wait(scene, WAIT_CEILING);
    return chosen > 0;
}

/* Entries of the balancer's pool, one pool per color. */
typedef struct Pool {
    uint8_t *used[2];
    unsigned size, next[2];
    bool foreign;
} Pool;

static void pool_init(Pool *pool, const Scene *scene)
{
    const GroupState *state = scene->state;

    *pool = (Pool){.size = state->places > 0 ? state->places : state->instances->len + 1};
    for (unsigned i = 0; i < 2; i++)
        pool->used[i] = g_new0(uint8_t, pool->size);
    for (unsigned i = 0; i < state->instances->len; i++) {
        const Instance *row = state_row(state, i);

        if (row->place >= 0 && (unsigned)row->place < pool->size)
            pool->used[scene_color(scene, row->revision) & 1][row->place] = 1;
    }
    pool->foreign = scene->rules->strategy == STRATEGY_BLUEGREEN && state->target && scene_foreign(scene, state->target);
}

static void pool_clear(Pool *pool)
{
    g_free(pool->used[0]);
    g_free(pool->used[1]);
}

/* The lowest free place, kept for the caller; -1: none. */
static int32_t pool_take(Pool *pool, const Scene *scene, const Instance *row)
{
    uint32_t color = scene_color(scene, row->revision) & 1;

    if (row->place >= 0)
        return row->place;
    if (pool->foreign && row->revision == scene->state->target)
        return -1; /* what was superseded leaves the color first */
    while (pool->next[color] < pool->size && pool->used[color][pool->next[color]])
        pool->next[color]++;
    if (pool->next[color] >= pool->size)
        return -1;
    return (int32_t)pool->next[color]++;
}

static bool acts(Stage stage)
{
    return stage == STAGE_ATTEST || stage == STAGE_ENTER || stage == STAGE_ROUTE;
}

typedef struct Wave {
    Stage lowest[2]; /* not key, key */
} Wave;

static void wave_wait(Scene *scene, Stage stage)
{
    if (stage == STAGE_STARTING)
        scene_wait(scene, WAIT_START);
    else if (stage == STAGE_WARM || stage == STAGE_UP || stage == STAGE_FLAP)
        scene_wait(scene, WAIT_HEALTH);
}

/* Where the two waves are. Keepers that find no place are counted as starved and belong to none. */
static void wave_init(Wave *wave, Scene *scene, int32_t *places)
{
    Pool pool;

    wave->lowest[0] = wave->lowest[1] = STAGE_DONE;
    pool_init(&pool, scene);
    for (unsigned i = 0; i < scene->seats->len; i++) {
        const Seat *seat = &g_array_index(scene->seats, Seat, i);
        const Instance *keeper = seat->keeper;
        Stage stage = keeper ? scene_stage(scene, seat, keeper) : STAGE_DONE;

        places[i] = -1;
        wave_wait(scene, stage);
        if (stage == STAGE_ENTER && (places[i] = pool_take(&pool, scene, keeper)) < 0) {
            scene->starved++;
            scene->blocking -= seat->key;
            scene_wait(scene, WAIT_BALANCER);
        } else if (keeper && !keeper->retry && stage > STAGE_INTENDED && stage <= STAGE_ROUTE) {
            wave->lowest[seat->key] = MIN(wave->lowest[seat->key], stage);
        }
    }
    pool_clear(&pool);
}

static void advance_one(Scene *scene, const Seat *seat, const Instance *keeper, Stage stage, int32_t place)
{
    scene_add(scene, stage == STAGE_ATTEST ? ACTION_ATTEST : stage == STAGE_ENTER ? ACTION_ENTER : ACTION_ROUTE, CAUSE_ROLLOUT, keeper);
    Action *action = &g_array_index(scene->actions, Action, scene->actions->len - 1);

    if (stage == STAGE_ENTER)
        action->place = place;
    if (stage == STAGE_ROUTE)
        action->weight = seat->weight;
}

bool scene_advance(Scene *scene)
{
    static const Stage stages[] = {STAGE_ATTEST, STAGE_ENTER, STAGE_ROUTE};
    g_autofree int32_t *places = g_new(int32_t, MAX(scene->seats->len, 1));
    Wave wave;

    wave_init(&wave, scene, places);
    for (unsigned s = 0; s < G_N_ELEMENTS(stages) && scene->actions->len == 0; s++)
        for (unsigned i = 0; i < scene->seats->len; i++) {
            const Seat *seat = &g_array_index(scene->seats, Seat, i);
            const Instance *keeper = seat->keeper;
            Stage stage = keeper ? scene_stage(scene, seat, keeper) : STAGE_DONE;

            if (stage != stages[s] || !acts(stage) || (stage == STAGE_ENTER && places[i] < 0))
                continue;
            if ((keeper->retry || stage <= wave.lowest[seat->key]) && (stage == STAGE_ATTEST || scene->answers))
                advance_one(scene, seat, keeper, stage, places[i]);
        }
    return scene->actions->len > 0;
}
