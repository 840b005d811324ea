/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks the transition function through every state that a small world can bring it into, and asserts kiln's deploy rules at each step.
 *
 * The world: instances start, run, warm up, are seen up by a balancer, empty when drained. At most two faults happen at any moment:
 * a boot fails (in five ways), an instance dies, vanishes or falls ill, the balancer is silent, a host is silent (and may lose its instances), the
 * controller dies between any two records or between act and record, somebody aborts, a third revision arrives, the size changes, an
 * instance is over-age, an analysis fails, the deadline passes. Silence ends, everything else goes on.
 *
 * Reduction: what goes well happens to the lowest instance first where it could happen to several, and in larger groups only while the
 * controller has nothing to do; what goes wrong happens to any instance, and at any moment.
 * States are packed into 8 bytes a row and kept in one arena per configuration; edges without faults are kept too, to prove that a settled
 * state can be reached from each state without more luck than that, and that the controller alone never runs in circles.
 *
 * KILN_TEST_LONG=1 walks all configurations (tests/long/50-explore.sh); else a few small ones.
 */
#include "deploy/transition.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS_MAX = 40, HOSTS = 2, REVISIONS = 3 };

typedef struct Row {
    uint64_t revision : 3, slot : 4, attempt : 4, host : 1, place : 6, created : 1, drained : 1, ended : 1, served : 1, asked : 1, failed : 1, retry : 1,
        life : 3, proof : 2, health : 2, route : 2, weight : 9, up : 1, empty : 1, start_late : 1, replace : 1, cooled : 1;
} Row;

typedef struct Packed {
    uint8_t rows, size, phase, step, current, target, next, failures;
    uint8_t color, verdict, faults;
    uint8_t paused : 1, asked_back : 1, passed_gate : 1, balancer : 1, hosts : 2, hold_over : 1, deadline_over : 1;
    struct {
        uint8_t failed : 1, stable : 1, color : 1, attempts : 5;
    } revisions[REVISIONS];
    uint8_t third, resized;
    Row row[ROWS_MAX];
} Packed;

#define PACKED_SIZE(rows) (offsetof(Packed, row) + (rows) * sizeof(Row))

typedef enum Fault {
    FAULT_BOOT = 1 << 0,
    FAULT_DEATH = 1 << 1,
    FAULT_BALANCER = 1 << 2,
    FAULT_HOST = 1 << 3,
    FAULT_CRASH = 1 << 4,
    FAULT_ABORT = 1 << 5,
    FAULT_THIRD = 1 << 6,
    FAULT_RESIZE = 1 << 7,
    FAULT_REPLACE = 1 << 8,
    FAULT_PAUSE = 1 << 9,
} Fault;

typedef struct Config {
    GroupRules rules;
    unsigned size, faults, places;
    unsigned kinds; /* Fault */
    bool first;     /* nothing is there yet */
    bool all_orders; /* what goes well happens to any instance, not to the first one only */
    bool quick;      /* what goes well waits while the controller has something to do; what goes wrong does not */
} Config;

typedef struct Walk {
    const Config *config;
    GroupState *state;   /* unpacked, for the function */
    GArray *actions;
    GByteArray *arena;
    GArray *offsets;     /* size_t by state */
    uint32_t *table;     /* open addressing: state + 1 */
    size_t table_size;
    GArray *from, *to;   /* edges without faults */
    GArray *alone;       /* by state: where the controller alone goes, or UINT32_MAX */
    GArray *settled;     /* uint8_t by state */
    uint32_t now;
    uint64_t edges;
    Packed at;           /* the state whose successors are made */
} Walk;

static const char *last_problem;

static void describe(Walk *walk, const Packed *p)
{
    static const char *const lives[] = {"none", "starting", "running", "dead", "unknown"};

    fprintf(stderr, "# size %u phase %s step %u current %u target %u next %u failures %u color %d faults left %u balancer %u hosts %x%s%s%s%s\n", p->size,
            phase_name((Phase)p->phase), p->step, p->current, p->target, p->next, p->failures, p->color - 1, p->faults, p->balancer, p->hosts,
            p->paused ? " paused" : "", p->asked_back ? " asked-back" : "", p->passed_gate ? " passed" : "", p->hold_over ? " held" : "");
    for (unsigned i = 0; i < p->rows; i++) {
        const Row *r = &p->row[i];

        fprintf(stderr, "#   r%u-%u-a%u host %u place %d %s proof %u health %u route %u/%u%s%s%s%s%s%s%s%s%s%s%s\n", r->revision, r->slot, r->attempt, r->host,
                (int)r->place - 1, lives[r->life], r->proof, r->health, r->route, (unsigned)r->weight, r->up ? " up" : "", r->created ? " created" : "",
                r->drained ? " drained" : "", r->ended ? " ended" : "", r->served ? " served" : "", r->failed ? " failed" : "", r->retry ? " retry" : "",
                r->empty ? " empty" : "", r->start_late ? " late" : "", r->replace ? " replace" : "", r->cooled ? " cooled" : "");
    }
}

static G_NORETURN void broken(Walk *walk, const char *rule)
{
    const GroupRules *rules = &walk->config->rules;

    fprintf(stderr, "# BROKEN: %s (strategy %d surge %u unavailable %u exclusive %d gate %d analysis %d baseline %d retries %u first %d kinds %x)\n", rule,
            rules->strategy, rules->max_surge, rules->max_unavailable, rules->exclusive, rules->gate, rules->analysis, rules->baseline, rules->start_retries,
            walk->config->first, walk->config->kinds);
    describe(walk, &walk->at);
    for (unsigned i = 0; i < walk->actions->len; i++) {
        const Action *a = &g_array_index(walk->actions, Action, i);

        fprintf(stderr, "#   -> %s %u-%u-a%u %s phase %s\n", action_kind_name(a->kind), a->revision, a->slot, a->attempt, cause_name(a->cause), phase_name(a->phase));
    }
    last_problem = rule;
    exit(1);
}

/* The function sees what can be seen: a silent host's instances are unknown, a silent balancer's routes too. */
static void unpack(const Walk *walk, const Packed *p, GroupState *s)
{
    g_array_set_size(s->instances, p->rows);
    g_array_set_size(s->revisions, REVISIONS);
    for (unsigned i = 0; i < REVISIONS; i++)
        g_array_index(s->revisions, Revision, i) = (Revision){.number = i + 1, .failed = p->revisions[i].failed, .stable = p->revisions[i].stable,
                                                              .color = p->revisions[i].color, .attempts = p->revisions[i].attempts};
    for (unsigned i = 0; i < HOSTS; i++)
        s->hosts[i] = p->hosts >> i & 1;
    s->size = p->size;
    s->phase = (Phase)p->phase;
    s->step = p->step;
    s->current = p->current;
    s->target = p->target;
    s->next = p->next;
    s->failures = p->failures;
    s->paused = p->paused;
    s->asked_back = p->asked_back;
    s->passed_gate = p->passed_gate;
    s->color = p->balancer ? p->color - 1 : -1;
    s->balancers_answer = p->balancer;
    s->newer_epoch = false;
    s->hold_over = p->hold_over;
    s->deadline_over = p->deadline_over;
    s->verdict = (Verdict)p->verdict;
    for (unsigned i = 0; i < p->rows; i++) {
        const Row *r = &p->row[i];
        bool silent = !s->hosts[r->host] && !r->ended;

        g_array_index(s->instances, Instance, i) = (Instance){
            .revision = r->revision, .slot = r->slot, .attempt = r->attempt, .host = r->host, .place = (int)r->place - 1, .created = r->created,
            .drained = r->drained, .ended = r->ended, .served = r->served, .asked = r->asked, .failed = r->failed, .retry = r->retry,
            .life = silent ? LIFE_UNKNOWN : (Life)r->life, .proof = (Proof)r->proof, .health = (Health)r->health,
            .route = p->balancer || r->place == 0 ? (Route)r->route : ROUTE_UNKNOWN, .weight = r->weight, .up = p->balancer && r->up, .empty = r->empty,
            .start_late = r->start_late, .replace = r->replace, .cooled = r->cooled};
    }
}

static const Row *find_row(const Packed *p, const Instance *i)
{
    for (unsigned n = 0; n < p->rows; n++)
        if (p->row[n].revision == i->revision && p->row[n].slot == i->slot && p->row[n].attempt == i->attempt)
            return &p->row[n];
    return NULL;
}

/* What could not be seen stays as it is in @before. */
static void pack(Walk *walk, const GroupState *s, const Packed *before, Packed *p)
{
    memset(p, 0, offsetof(Packed, row));
    if (s->instances->len > ROWS_MAX)
        broken(walk, "rows without end");
    p->rows = (uint8_t)s->instances->len;
    p->size = (uint8_t)s->size;
    p->phase = (uint8_t)s->phase;
    p->step = (uint8_t)s->step;
    p->current = (uint8_t)s->current;
    p->target = (uint8_t)s->target;
    p->next = (uint8_t)s->next;
    p->failures = (uint8_t)MIN(s->failures, 7);
    p->color = s->balancers_answer ? (uint8_t)(s->color + 1) : before->color;
    p->verdict = (uint8_t)s->verdict;
    p->faults = before->faults;
    p->paused = s->paused;
    p->asked_back = s->asked_back;
    p->passed_gate = s->passed_gate;
    p->balancer = s->balancers_answer;
    p->hosts = before->hosts;
    p->hold_over = s->hold_over;
    p->deadline_over = s->deadline_over;
    p->third = before->third;
    p->resized = before->resized;
    for (unsigned i = 0; i < REVISIONS; i++) {
        const Revision *r = &g_array_index(s->revisions, Revision, i);

        p->revisions[i].failed = r->failed;
        p->revisions[i].stable = r->stable;
        p->revisions[i].color = r->color & 1;
        p->revisions[i].attempts = r->attempts & 31;
    }
    for (unsigned i = 0; i < p->rows; i++) {
        const Instance *n = &g_array_index(s->instances, Instance, i);
        const Row *old = find_row(before, n);
        Row r = {.revision = n->revision, .slot = n->slot, .attempt = n->attempt, .host = (unsigned)n->host & 1, .place = (unsigned)(n->place + 1),
                 .created = n->created, .drained = n->drained, .ended = n->ended, .served = n->served, .asked = n->asked, .failed = n->failed,
                 .retry = n->retry, .life = n->life, .proof = n->proof, .health = n->health, .route = n->route, .weight = n->weight, .up = n->up,
                 .empty = n->empty, .start_late = n->start_late, .replace = n->replace, .cooled = n->cooled};

        if (n->attempt > 15 || n->place > 60)
            broken(walk, "attempts without end");
        if (old && n->life == LIFE_UNKNOWN)
            r.life = old->life;
        if (old && !s->balancers_answer) {
            r.route = old->route;
            r.up = old->up;
        }
        if (r.ended && r.place == 0) { /* nothing of it is of interest any more */
            Row gone = {.revision = r.revision, .slot = r.slot, .attempt = r.attempt, .host = r.host, .ended = 1, .failed = r.failed, .cooled = r.cooled,
                        .served = r.served, .life = r.life};
            r = gone;
        }
        p->row[i] = r;
    }
}

static uint64_t hash(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint64_t h = 0x9e3779b97f4a7c15ULL ^ size, word;

    for (; size >= 8; size -= 8, bytes += 8) {
        memcpy(&word, bytes, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdULL;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, bytes, size);
    h = (h ^ word) * 0xc4ceb9fe1a85ec53ULL;
    return h ^ h >> 29;
}

static void grow_table(Walk *walk)
{
    size_t size = walk->table_size ? walk->table_size * 2 : 1 << 12;
    uint32_t *table = g_new0(uint32_t, size);

    for (uint32_t i = 0; i < walk->offsets->len; i++) {
        const Packed *p = (const Packed *)(walk->arena->data + g_array_index(walk->offsets, size_t, i));
        size_t at = hash(p, PACKED_SIZE(p->rows)) & (size - 1);

        while (table[at])
            at = (at + 1) & (size - 1);
        table[at] = i + 1;
    }
    g_free(walk->table);
    walk->table = table;
    walk->table_size = size;
}

static uint32_t add_state(Walk *walk, const Packed *p)
{
    size_t length = PACKED_SIZE(p->rows), at, offset = walk->arena->len;
    uint32_t number = walk->offsets->len;

    if ((size_t)number * 2 >= walk->table_size)
        grow_table(walk);
    at = hash(p, length) & (walk->table_size - 1);
    for (; walk->table[at]; at = (at + 1) & (walk->table_size - 1)) {
        const Packed *other = (const Packed *)(walk->arena->data + g_array_index(walk->offsets, size_t, walk->table[at] - 1));

        if (other->rows == p->rows && memcmp(other, p, length) == 0)
            return walk->table[at] - 1;
    }
    walk->table[at] = number + 1;
    g_array_append_val(walk->offsets, offset);
    g_byte_array_append(walk->arena, (const guint8 *)p, (guint)length);
    while (walk->arena->len % 8)
        g_byte_array_append(walk->arena, (const guint8 *)"", 1);
    return number;
}

static void edge(Walk *walk, const Packed *p, bool fault)
{
    uint32_t number = add_state(walk, p);

    walk->edges++;
    if (!fault) {
        g_array_append_val(walk->from, walk->now);
        g_array_append_val(walk->to, number);
    }
}

/* --- the rules, told a second time --- */

static unsigned color_of(const GroupState *s, const Instance *i)
{
    return g_array_index(s->revisions, Revision, i->revision - 1).color;
}

static unsigned count_serving(const Walk *walk, const GroupState *s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->instances->len; i++) {
        const Instance *r = &g_array_index(s->instances, Instance, i);
        bool here = walk->config->rules.strategy != STRATEGY_BLUEGREEN || (int)color_of(s, r) == s->color;

        n += here && r->life == LIFE_RUNNING && r->proof == PROOF_GOOD && r->route == ROUTE_IN && r->up;
    }
    return n;
}

static unsigned count_existing(const GroupState *s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->instances->len; i++)
        n += g_array_index(s->instances, Instance, i).life != LIFE_NONE;
    return n;
}

static unsigned floor_of(const Walk *walk, const GroupState *s)
{
    if (s->phase == PHASE_BACK && s->current == 0)
        return 0;
    return s->size > walk->config->rules.max_unavailable ? s->size - walk->config->rules.max_unavailable : 0;
}

static unsigned ceiling_of(const Walk *walk, const GroupState *s)
{
    const GroupRules *rules = &walk->config->rules;

    return s->size + (rules->exclusive ? 0 : rules->strategy == STRATEGY_BLUEGREEN ? MAX(s->size, 1) : rules->max_surge);
}

static void check_create(Walk *walk, const GroupState *s, const Action *a)
{
    for (unsigned i = 0; i < s->instances->len; i++) {
        const Instance *r = &g_array_index(s->instances, Instance, i);
        bool same = r->revision == a->revision && r->slot == a->slot;

        if (same && r->attempt == a->attempt && (r->created || r->ended || r->life != LIFE_NONE))
            broken(walk, "I4: an identity is used again");
        if (same && r->attempt > a->attempt)
            broken(walk, "I4: an attempt goes backwards");
        if (same && r->attempt < a->attempt && r->failed && !r->cooled)
            broken(walk, "a failed attempt is repeated at once");
        if (walk->config->rules.exclusive && r->slot == a->slot && !(same && r->attempt == a->attempt) && (r->life != LIFE_NONE || !r->ended))
            broken(walk, "an exclusive slot has two instances");
    }
    if (!group_instance(s, a->revision, a->slot, a->attempt) && a->attempt <= g_array_index(s->revisions, Revision, a->revision - 1).attempts)
        broken(walk, "I4: an identity of a dropped row is used again");
    if (a->revision != s->current && a->revision != s->target)
        broken(walk, "I12: an instance of a revision that is not in service");
    if (s->phase == PHASE_IDLE && a->revision != s->current)
        broken(walk, "I12: healed with another revision");
    if (s->phase == PHASE_BACK && a->revision != s->current)
        broken(walk, "I12: the way back creates what it leaves");
    if (!s->hosts[a->host])
        broken(walk, "a create on a silent host");
    if (a->slot >= s->size + (walk->config->rules.baseline ? s->size : 0) && !s->paused)
        broken(walk, "a create beyond the size");
}

/* I11, and argo 1292, 2050, 3275: what is in service, or serves as the way back, is whole until the new revision has held. */
static void check_kept(Walk *walk, const GroupState *s, const Action *a, const Instance *r)
{
    bool kept = s->phase == PHASE_ROLL || s->phase == PHASE_WATCH || s->phase == PHASE_HOLD;
    bool well = r->life == LIFE_RUNNING && r->proof == PROOF_GOOD && r->health == HEALTH_GOOD && r->up && !r->replace && !r->drained && !r->failed && r->served;

    if (walk->config->rules.strategy != STRATEGY_BLUEGREEN || !kept || r->revision != s->current || r->slot >= s->size || !well)
        return;
    for (unsigned i = 0; i < s->instances->len; i++) {
        const Instance *other = &g_array_index(s->instances, Instance, i);

        if (other->revision == r->revision && other->slot == r->slot && other->attempt > r->attempt)
            return;
    }
    broken(walk, "I11: the way back is taken down");
}

static void check_instance(Walk *walk, const GroupState *s, const Action *a)
{
    const Instance *r = group_instance(s, a->revision, a->slot, a->attempt);
    bool hard;

    if (!r)
        broken(walk, "an action about an instance that nobody knows");
    hard = r->life == LIFE_NONE || r->life == LIFE_DEAD || r->proof == PROOF_BAD;
    if (a->kind >= ACTION_ENTER && a->kind <= ACTION_LEAVE && !s->balancers_answer)
        broken(walk, "the balancer is moved while it is silent");
    switch (a->kind) {
    case ACTION_ATTEST:
        if (r->life != LIFE_RUNNING)
            broken(walk, "I10: attest before it runs");
        break;
    case ACTION_ENTER:
        if (r->proof != PROOF_GOOD || r->health != HEALTH_GOOD || r->life != LIFE_RUNNING || r->drained || r->route != ROUTE_OUT)
            broken(walk, "I10: enter before attest and warm");
        if (a->place < 0 || (unsigned)a->place >= walk->config->places)
            broken(walk, "a place outside the pool");
        for (unsigned i = 0; i < s->instances->len; i++) {
            const Instance *other = &g_array_index(s->instances, Instance, i);

            if (other != r && other->place == a->place && color_of(s, other) == color_of(s, r))
                broken(walk, "a place is used twice");
            if (other != r && other->place >= 0 && walk->config->rules.strategy == STRATEGY_BLUEGREEN && other->revision != r->revision &&
                color_of(s, other) == color_of(s, r))
                broken(walk, "color: two revisions in one pool");
        }
        break;
    case ACTION_ROUTE:
        if (r->proof != PROOF_GOOD || r->health != HEALTH_GOOD || !r->up || r->life != LIFE_RUNNING || r->drained || r->route == ROUTE_OUT)
            broken(walk, "I9: traffic before proof and checks");
        if (a->weight < 1 || a->weight > WEIGHT_MAX)
            broken(walk, "a weight outside 1..256");
        break;
    case ACTION_DRAIN:
        if (r->place < 0)
            broken(walk, "I10: drain before enter");
        check_kept(walk, s, a, r);
        break;
    case ACTION_LEAVE:
        if (!r->drained || r->route == ROUTE_IN || r->place < 0 || (!r->empty && !r->drain_late && !hard))
            broken(walk, "I10: leave before drained and empty");
        break;
    case ACTION_DESTROY:
        if (r->place >= 0 || r->route != ROUTE_OUT || r->life == LIFE_UNKNOWN || r->life == LIFE_NONE)
            broken(walk, "I10: destroy before leave");
        check_kept(walk, s, a, r);
        break;
    case ACTION_LOST:
        if (r->life != LIFE_NONE || r->ended)
            broken(walk, "lost, and still there");
        break;
    default:
        break;
    }
}

static void check_switch(Walk *walk, const GroupState *s, const Action *a)
{
    for (unsigned i = 0; i < s->instances->len; i++) {
        const Instance *r = &g_array_index(s->instances, Instance, i);

        if (r->place >= 0 && color_of(s, r) == a->color && r->revision != a->revision)
            broken(walk, "color: a switch to a pool with another revision in it");
    }
    if (!s->balancers_answer || g_array_index(s->revisions, Revision, a->revision - 1).color != a->color)
        broken(walk, "color: not the revision's");
    if (s->phase == PHASE_WATCH && walk->config->rules.gate && !s->passed_gate)
        broken(walk, "a switch past the gate");
    if ((s->phase == PHASE_BACK || s->phase == PHASE_IDLE) && a->revision != s->current)
        broken(walk, "color: the way back goes forward");
}

static void check_decision(Walk *walk, const GroupState *s, const Action *a)
{
    if (a->kind == ACTION_BEGIN && (a->revision != s->next || a->revision == s->current || s->phase == PHASE_HOLD || s->phase == PHASE_BACK || s->phase == PHASE_CLEAN))
        broken(walk, "I2: another revision begins than was wanted");
    if (a->kind == ACTION_BEGIN && walk->config->rules.strategy == STRATEGY_BLUEGREEN && s->color >= 0 && (int)a->color == s->color)
        broken(walk, "color: a revision begins in the color that has the traffic");
    if (a->kind == ACTION_STABLE && (a->revision != s->target || !s->hold_over || (s->phase != PHASE_HOLD && s->phase != PHASE_CLEAN)) &&
        !(s->phase == PHASE_CLEAN))
        broken(walk, "I11: stable before it has held");
    if (a->kind == ACTION_STABLE && count_serving(walk, s) < s->size)
        broken(walk, "stable without being whole");
    if (a->kind == ACTION_PHASE && a->phase == PHASE_CLEAN && !s->hold_over)
        broken(walk, "I11: the old revision goes before the new one has held");
    if (a->kind == ACTION_FAILED && a->revision != s->target)
        broken(walk, "I2: another revision fails");
    if (a->kind == ACTION_PHASE && a->phase == PHASE_ROLL && walk->config->rules.gate && !s->passed_gate)
        broken(walk, "a step past the gate");
    if (a->kind == ACTION_PHASE && a->phase == PHASE_ROLL && walk->config->rules.analysis && s->verdict != VERDICT_PASS && !s->passed_gate)
        broken(walk, "a step past the analysis");
}

/* One batch, against the world as it was seen. */
static void check_batch(Walk *walk, const GroupState *s)
{
    unsigned creates = 0, room, existing = count_existing(s);

    for (unsigned i = 0; i < walk->actions->len; i++) {
        const Action *a = &g_array_index(walk->actions, Action, i);

        if (a->kind == ACTION_CREATE) {
            check_create(walk, s, a);
            creates++;
        } else if (a->kind <= ACTION_DESTROY || a->kind == ACTION_LOST) {
            check_instance(walk, s, a);
        } else if (a->kind == ACTION_SWITCH) {
            check_switch(walk, s, a);
        } else {
            check_decision(walk, s, a);
        }
        if (i > 0 && a->kind != a[-1].kind && a->kind != ACTION_PHASE)
            broken(walk, "two stages in one batch");
    }
    room = ceiling_of(walk, s) - MIN(ceiling_of(walk, s), existing);
    if (creates > room)
        broken(walk, "I8: ceiling");
}

static void check_after(Walk *walk, const GroupState *after, unsigned before, unsigned floor)
{
    unsigned serving = count_serving(walk, after);

    if (serving < before && serving < floor)
        broken(walk, "I7: floor");
}

/* --- what the controller does --- */

static void act(Walk *walk, GroupState *s, const Action *a, bool ok)
{
    Instance *r;

    if (a->kind == ACTION_SWITCH && ok)
        s->color = (int)a->color;
    if (a->kind > ACTION_DESTROY || !ok)
        return;
    r = group_instance(s, a->revision, a->slot, a->attempt);
    switch (a->kind) {
    case ACTION_CREATE:
        if (r->life == LIFE_NONE)
            r->life = LIFE_STARTING;
        break;
    case ACTION_ENTER:
        r->route = ROUTE_DRAINED;
        r->up = false;
        break;
    case ACTION_ROUTE:
        r->route = ROUTE_IN;
        r->weight = a->weight;
        break;
    case ACTION_DRAIN:
        r->empty = r->route != ROUTE_IN;
        r->route = ROUTE_DRAINED;
        break;
    case ACTION_LEAVE:
        r->route = ROUTE_OUT;
        r->up = false;
        break;
    case ACTION_DESTROY:
        r->life = LIFE_NONE;
        break;
    default:
        break;
    }
}

static bool journal_equal(const GroupState *a, const GroupState *b)
{
    if (a->instances->len != b->instances->len || a->phase != b->phase || a->step != b->step || a->current != b->current || a->target != b->target ||
        a->next != b->next || a->failures != b->failures || a->passed_gate != b->passed_gate || a->asked_back != b->asked_back || a->paused != b->paused)
        return false;
    for (unsigned i = 0; i < a->instances->len; i++) {
        const Instance *x = &g_array_index(a->instances, Instance, i), *y = &g_array_index(b->instances, Instance, i);

        if (x->revision != y->revision || x->slot != y->slot || x->attempt != y->attempt || x->host != y->host || x->place != y->place ||
            x->created != y->created || x->drained != y->drained || x->ended != y->ended || x->served != y->served || x->asked != y->asked ||
            x->failed != y->failed || x->retry != y->retry)
            return false;
    }
    for (unsigned i = 0; i < a->revisions->len; i++)
        if (memcmp(&g_array_index(a->revisions, Revision, i), &g_array_index(b->revisions, Revision, i), sizeof(Revision)) != 0)
            return false;
    return true;
}

/* I15: whoever replays the journal without having seen anything comes to the same rows. */
static void check_replay(Walk *walk, const Packed *before, unsigned recorded, const GroupState *after)
{
    g_autoptr(GroupState) blind = group_state_new(1, HOSTS, walk->config->places);
    const GroupRules *rules = &walk->config->rules;

    unpack(walk, before, blind);
    for (unsigned i = 0; i < blind->instances->len; i++) {
        Instance *r = &g_array_index(blind->instances, Instance, i);

        r->life = LIFE_NONE;
        r->health = HEALTH_UNKNOWN;
        r->route = ROUTE_OUT;
        r->up = r->empty = r->start_late = r->replace = r->cooled = false;
    }
    blind->hold_over = false;
    blind->verdict = VERDICT_NONE;
    for (unsigned i = 0; i < walk->actions->len; i++)
        group_intend(rules, blind, &g_array_index(walk->actions, Action, i));
    for (unsigned i = 0; i < recorded; i++)
        group_outcome(rules, blind, &g_array_index(walk->actions, Action, i), true, PROOF_GOOD);
    if (!journal_equal(blind, after))
        broken(walk, "I15: a replay of the journal gives another state");
}

/* @recorded acts were done and told; with @done one more was done and not told. @bad: the first one goes wrong. */
static uint32_t run_batch(Walk *walk, unsigned recorded, bool done, bool bad, bool fault)
{
    const GroupRules *rules = &walk->config->rules;
    unsigned before, floor;
    Packed p;

    unpack(walk, &walk->at, walk->state);
    before = count_serving(walk, walk->state);
    floor = floor_of(walk, walk->state);
    for (unsigned i = 0; i < walk->actions->len; i++)
        group_intend(rules, walk->state, &g_array_index(walk->actions, Action, i));
    for (unsigned i = 0; i < recorded; i++) {
        const Action *a = &g_array_index(walk->actions, Action, i);
        bool wrong = bad && i == 0;

        act(walk, walk->state, a, !(wrong && a->kind == ACTION_CREATE));
        group_outcome(rules, walk->state, a, !(wrong && a->kind == ACTION_CREATE), wrong ? PROOF_BAD : PROOF_GOOD);
    }
    if (done)
        act(walk, walk->state, &g_array_index(walk->actions, Action, recorded), true);
    check_after(walk, walk->state, before, floor);
    if (!bad && !done && walk->now % 8 == 0)
        check_replay(walk, &walk->at, recorded, walk->state);
    pack(walk, walk->state, &walk->at, &p);
    p.faults = (uint8_t)(walk->at.faults - fault);
    edge(walk, &p, fault);
    return add_state(walk, &p);
}

static void controller(Walk *walk)
{
    Wait wait, again_wait;
    const Action *first;
    uint32_t alone = G_MAXUINT32;

    unpack(walk, &walk->at, walk->state);
    group_next(&walk->config->rules, walk->state, walk->actions, &wait);
    if (walk->now % 16 == 0) {
        g_autoptr(GArray) again = g_array_new(FALSE, TRUE, sizeof(Action));

        group_next(&walk->config->rules, walk->state, again, &again_wait);
        if (again->len != walk->actions->len || wait != again_wait || (again->len && memcmp(again->data, walk->actions->data, again->len * sizeof(Action)) != 0))
            broken(walk, "the same question has two answers");
        walk->state->newer_epoch = true;
        group_next(&walk->config->rules, walk->state, again, &again_wait);
        if (again->len || again_wait != WAIT_EPOCH)
            broken(walk, "I14: a stale controller acts");
        walk->state->newer_epoch = false;
    }
    check_batch(walk, walk->state);
    if (walk->actions->len > 0) {
        alone = run_batch(walk, walk->actions->len, false, false, false);
        first = &g_array_index(walk->actions, Action, 0);
        if (walk->at.faults > 0 && (walk->config->kinds & FAULT_BOOT) && (first->kind == ACTION_CREATE || first->kind == ACTION_ATTEST))
            run_batch(walk, walk->actions->len, false, true, true);
        if (walk->at.faults > 0 && (walk->config->kinds & FAULT_CRASH) && first->kind <= ACTION_SWITCH)
            for (unsigned i = 0; i < walk->actions->len; i++) {
                run_batch(walk, i, false, false, true);
                run_batch(walk, i, true, false, true);
            }
    }
    g_array_append_val(walk->alone, alone);
}

/* --- what the world does --- */

static bool is_on(const Packed *p, const Row *r)
{
    return p->hosts >> r->host & 1;
}

typedef bool Change(Packed *p, Row *r);

static bool runs(Packed *p, Row *r)
{
    bool can = r->life == LIFE_STARTING && !r->start_late && is_on(p, r);

    if (can)
        r->life = LIFE_RUNNING;
    return can;
}

static bool warms(Packed *p, Row *r)
{
    bool can = r->life == LIFE_RUNNING && r->health == HEALTH_UNKNOWN && is_on(p, r);

    if (can)
        r->health = HEALTH_GOOD;
    return can;
}

static bool comes_up(Packed *p, Row *r)
{
    bool can = r->life == LIFE_RUNNING && r->health == HEALTH_GOOD && r->place && r->route != ROUTE_OUT && !r->up && p->balancer;

    if (can)
        r->up = 1;
    return can;
}

static bool empties(Packed *p, Row *r)
{
    bool can = r->drained && !r->empty && r->place && r->route == ROUTE_DRAINED;

    if (can)
        r->empty = 1;
    return can;
}

static bool cools(Packed *p, Row *r)
{
    bool can = !r->cooled && (r->failed || r->replace || r->life == LIFE_DEAD || r->health == HEALTH_BAD || r->proof == PROOF_BAD || r->start_late);

    if (can)
        r->cooled = 1;
    return can;
}

static bool dies_at_boot(Packed *p, Row *r)
{
    bool can = r->life == LIFE_STARTING;

    if (can)
        r->life = LIFE_DEAD;
    return can;
}

static bool never_boots(Packed *p, Row *r)
{
    bool can = r->life == LIFE_STARTING && !r->start_late;

    if (can)
        r->start_late = 1;
    return can;
}

static bool never_warms(Packed *p, Row *r)
{
    bool can = r->life == LIFE_RUNNING && r->health == HEALTH_UNKNOWN;

    if (can)
        r->health = HEALTH_BAD;
    return can;
}

static bool dies(Packed *p, Row *r)
{
    bool can = r->life == LIFE_RUNNING;

    if (can) {
        r->life = LIFE_DEAD;
        r->up = 0;
    }
    return can;
}

static bool vanishes(Packed *p, Row *r)
{
    bool can = r->life == LIFE_RUNNING;

    if (can) {
        r->life = LIFE_NONE;
        r->up = 0;
    }
    return can;
}

static bool falls_ill(Packed *p, Row *r)
{
    bool can = r->life == LIFE_RUNNING && r->health == HEALTH_GOOD && r->served;

    if (can) {
        r->health = HEALTH_BAD;
        r->up = 0;
    }
    return can;
}

static bool is_doubted(Packed *p, Row *r)
{
    bool can = r->life == LIFE_RUNNING && r->health == HEALTH_GOOD && r->served;

    if (can)
        r->health = HEALTH_BAD; /* and the balancer still likes it */
    return can;
}

static bool flaps(Packed *p, Row *r)
{
    bool can = r->up && r->route == ROUTE_IN;

    if (can)
        r->up = 0;
    return can;
}

static bool ages(Packed *p, Row *r)
{
    bool can = r->life == LIFE_RUNNING && r->served && !r->replace && !r->drained;

    if (can)
        r->replace = 1;
    return can;
}

static void happen(Walk *walk, Change *change, bool fault)
{
    if (fault && walk->at.faults == 0)
        return;
    for (unsigned i = 0; i < walk->at.rows; i++) {
        Packed p;

        if (walk->at.row[i].ended && change != cools && change != empties)
            continue;
        memcpy(&p, &walk->at, PACKED_SIZE(walk->at.rows));
        if (!change(&p, &p.row[i]))
            continue;
        p.faults = (uint8_t)(p.faults - fault);
        edge(walk, &p, fault);
        if (!fault && !walk->config->all_orders)
            return;
    }
}

static void host_silent(Walk *walk, unsigned host, bool killed)
{
    Packed p;

    memcpy(&p, &walk->at, PACKED_SIZE(walk->at.rows));
    p.hosts = (unsigned)(p.hosts & ~(1U << host)) & 3;
    p.faults--;
    for (unsigned i = 0; killed && i < p.rows; i++)
        if (p.row[i].host == host) {
            p.row[i].life = LIFE_NONE;
            p.row[i].up = 0;
        }
    edge(walk, &p, true);
}

#define EDGE_IF(condition, fault, statement)                         \
    do {                                                             \
        if (condition) {                                             \
            Packed p;                                                \
            memcpy(&p, &walk->at, PACKED_SIZE(walk->at.rows));       \
            statement;                                               \
            p.faults = (uint8_t)(p.faults - ((fault) ? 1 : 0));      \
            edge(walk, &p, fault);                                   \
        }                                                            \
    } while (0)

static void faults(Walk *walk)
{
    const Packed *at = &walk->at;
    unsigned kinds = at->faults > 0 ? walk->config->kinds : 0;
    bool rolling = at->phase == PHASE_ROLL || at->phase == PHASE_WATCH || at->phase == PHASE_HOLD;

    if (kinds & FAULT_BOOT) {
        happen(walk, dies_at_boot, true);
        happen(walk, never_boots, true);
        happen(walk, never_warms, true);
    }
    if (kinds & FAULT_DEATH) {
        happen(walk, dies, true);
        happen(walk, vanishes, true);
        happen(walk, falls_ill, true);
        happen(walk, is_doubted, true);
        happen(walk, flaps, true);
    }
    if (kinds & FAULT_REPLACE)
        happen(walk, ages, true);
    EDGE_IF((kinds & FAULT_BALANCER) && at->balancer, true, p.balancer = 0);
    for (unsigned h = 0; h < HOSTS && (kinds & FAULT_HOST); h++)
        if (at->hosts >> h & 1) {
            host_silent(walk, h, false);
            host_silent(walk, h, true);
        }
    EDGE_IF((kinds & FAULT_ABORT) && rolling && !at->asked_back, true, p.asked_back = 1);
    EDGE_IF((kinds & FAULT_ABORT) && rolling && !at->deadline_over, true, p.deadline_over = 1);
    EDGE_IF((kinds & FAULT_ABORT) && walk->config->rules.analysis && at->phase == PHASE_WATCH && !at->verdict, true, p.verdict = VERDICT_FAIL);
    EDGE_IF((kinds & FAULT_ABORT) && walk->config->rules.analysis && at->phase == PHASE_WATCH && !at->verdict, true, p.verdict = VERDICT_INCONCLUSIVE);
    EDGE_IF((kinds & FAULT_THIRD) && !at->third, true, p.third = 1; p.next = 3);
    EDGE_IF((kinds & FAULT_THIRD) && rolling && at->current && !at->third, true, p.third = 1; p.next = p.current);
    EDGE_IF((kinds & FAULT_RESIZE) && !at->resized && at->size > 1, true, p.size--; p.resized = 1);
    EDGE_IF((kinds & FAULT_RESIZE) && !at->resized, true, p.size++; p.resized = 1);
    EDGE_IF((kinds & FAULT_PAUSE) && !at->paused, true, p.paused = 1);
}

static void world(Walk *walk, bool busy)
{
    const Packed *at = &walk->at;
    bool holds = at->phase == PHASE_HOLD || at->phase == PHASE_WATCH;

    faults(walk);
    if (walk->config->quick && busy)
        return;
    happen(walk, runs, false);
    happen(walk, warms, false);
    happen(walk, comes_up, false);
    happen(walk, empties, false);
    happen(walk, cools, false);
    EDGE_IF(!at->balancer, false, p.balancer = 1);
    for (unsigned h = 0; h < HOSTS; h++)
        EDGE_IF(!(at->hosts >> h & 1), false, p.hosts = (p.hosts | 1U << h) & 3);
    EDGE_IF(holds && !at->hold_over, false, p.hold_over = 1);
    EDGE_IF(at->phase == PHASE_WATCH && walk->config->rules.gate && !at->passed_gate, false, p.passed_gate = 1);
    EDGE_IF(at->phase == PHASE_WATCH && at->verdict == VERDICT_INCONCLUSIVE && !at->passed_gate, false, p.passed_gate = 1);
    EDGE_IF(at->phase == PHASE_WATCH && walk->config->rules.analysis && !at->verdict, false, p.verdict = VERDICT_PASS);
    EDGE_IF(at->paused, false, p.paused = 0);
}

/* Settled, by our own eyes: the size's instances of one revision have the traffic, and nothing else is anywhere. */
static void check_settled(Walk *walk, const GroupState *s)
{
    unsigned there = 0;

    for (unsigned i = 0; i < s->instances->len; i++) {
        const Instance *r = &g_array_index(s->instances, Instance, i);

        if (r->life == LIFE_NONE && r->place < 0)
            continue;
        if (r->revision != s->current || r->slot >= s->size || r->route != ROUTE_IN || r->weight != WEIGHT_MAX || r->drained || r->replace)
            broken(walk, "settled with an orphan");
        there++;
    }
    if (there != (s->current ? s->size : 0) || (s->current && count_serving(walk, s) != s->size))
        broken(walk, "settled without being whole");
    if (s->target || s->failures || s->asked_back || s->step)
        broken(walk, "settled with a rollout");
}

static void expand(Walk *walk)
{
    const Packed *p = (const Packed *)(walk->arena->data + g_array_index(walk->offsets, size_t, walk->now));
    uint8_t settled;
    bool busy;

    memcpy(&walk->at, p, PACKED_SIZE(p->rows));
    controller(walk);
    busy = walk->actions->len > 0;
    unpack(walk, &walk->at, walk->state);
    settled = walk->at.balancer && walk->at.hosts == 3 && group_settled(&walk->config->rules, walk->state);
    if (settled) {
        g_array_set_size(walk->actions, 0);
        check_settled(walk, walk->state);
    }
    g_array_append_val(walk->settled, settled);
    world(walk, busy);
}

/* --- what is true of the whole graph --- */

/* From every state a settled one can be reached without another fault. */
static void check_ends(Walk *walk)
{
    uint32_t count = walk->offsets->len, head = 0, tail = 0;
    g_autofree uint32_t *start = g_new0(uint32_t, (size_t)count + 2), *back = g_new(uint32_t, walk->from->len + 1), *queue = g_new(uint32_t, (size_t)count + 1);
    g_autofree uint8_t *good = g_new0(uint8_t, (size_t)count + 1);

    for (unsigned i = 0; i < walk->to->len; i++)
        start[g_array_index(walk->to, uint32_t, i) + 2]++;
    for (uint32_t i = 2; i < count + 2; i++)
        start[i] += start[i - 1];
    for (unsigned i = 0; i < walk->to->len; i++)
        back[start[g_array_index(walk->to, uint32_t, i) + 1]++] = g_array_index(walk->from, uint32_t, i);
    for (uint32_t i = 0; i < count; i++)
        if (g_array_index(walk->settled, uint8_t, i)) {
            good[i] = 1;
            queue[tail++] = i;
        }
    while (head < tail) {
        uint32_t at = queue[head++];

        for (uint32_t i = start[at]; i < start[at + 1]; i++)
            if (!good[back[i]]) {
                good[back[i]] = 1;
                queue[tail++] = back[i];
            }
    }
    for (uint32_t i = 0; i < count; i++)
        if (!good[i]) {
            const Packed *p = (const Packed *)(walk->arena->data + g_array_index(walk->offsets, size_t, i));

            memcpy(&walk->at, p, PACKED_SIZE(p->rows));
            unpack(walk, &walk->at, walk->state);
            Wait wait;
            group_next(&walk->config->rules, walk->state, walk->actions, &wait);
            fprintf(stderr, "# waits for %s\n", wait_sentence(wait));
            broken(walk, "no way from here to a settled state");
        }
}

/* The controller alone comes to rest: no circle of actions without news from outside. */
static void check_rest(Walk *walk)
{
    uint32_t count = walk->offsets->len;
    g_autofree uint32_t *seen = g_new0(uint32_t, (size_t)count + 1);

    for (uint32_t i = 0; i < count; i++)
        for (uint32_t at = i; at != G_MAXUINT32 && seen[at] != i + 1; at = g_array_index(walk->alone, uint32_t, at)) {
            uint32_t next = g_array_index(walk->alone, uint32_t, at);

            if (seen[at])
                break;
            seen[at] = i + 1;
            if (next != G_MAXUINT32 && seen[next] == i + 1) {
                const Packed *p = (const Packed *)(walk->arena->data + g_array_index(walk->offsets, size_t, at));

                memcpy(&walk->at, p, PACKED_SIZE(p->rows));
                broken(walk, "the controller runs in circles");
            }
        }
}

static void first_state(const Config *config, Packed *p)
{
    memset(p, 0, sizeof *p);
    p->size = (uint8_t)config->size;
    p->phase = PHASE_IDLE;
    p->balancer = 1;
    p->hosts = 3;
    p->faults = (uint8_t)config->faults;
    p->next = config->first ? 1 : 2;
    p->color = 1;
    if (config->first)
        return;
    p->current = 1;
    p->revisions[0].stable = 1;
    p->rows = (uint8_t)config->size;
    for (unsigned i = 0; i < config->size; i++)
        p->row[i] = (Row){.revision = 1, .slot = i, .attempt = 1, .host = i & 1, .place = i + 1, .created = 1, .served = 1, .asked = 1, .life = LIFE_RUNNING,
                          .proof = PROOF_GOOD, .health = HEALTH_GOOD, .route = ROUTE_IN, .weight = WEIGHT_MAX, .up = 1, .cooled = 1};
}

static uint32_t walk_all(const Config *config)
{
    Walk walk = {.config = config, .state = group_state_new(config->size, HOSTS, config->places), .actions = g_array_new(FALSE, TRUE, sizeof(Action)),
                 .arena = g_byte_array_new(), .offsets = g_array_new(FALSE, FALSE, sizeof(size_t)), .from = g_array_new(FALSE, FALSE, 4),
                 .to = g_array_new(FALSE, FALSE, 4), .alone = g_array_new(FALSE, FALSE, 4), .settled = g_array_new(FALSE, FALSE, 1)};
    Packed first;
    uint32_t count;

    first_state(config, &first);
    add_state(&walk, &first);
    for (walk.now = 0; walk.now < walk.offsets->len; walk.now++)
        expand(&walk);
    check_rest(&walk);
    check_ends(&walk);
    count = walk.offsets->len;
    group_state_free(walk.state);
    g_array_unref(walk.actions);
    g_byte_array_unref(walk.arena);
    g_array_unref(walk.offsets);
    g_array_unref(walk.from);
    g_array_unref(walk.to);
    g_array_unref(walk.alone);
    g_array_unref(walk.settled);
    g_free(walk.table);
    return count;
}

/* --- the configurations --- */

enum { ALL_KINDS = FAULT_BOOT | FAULT_DEATH | FAULT_BALANCER | FAULT_HOST | FAULT_CRASH | FAULT_ABORT | FAULT_THIRD | FAULT_RESIZE | FAULT_REPLACE | FAULT_PAUSE };

static uint64_t total_states;
static unsigned total_configs;

static void walk_one(const Config *config)
{
    uint32_t states = walk_all(config);
    const GroupRules *rules = &config->rules;

    total_states += states;
    total_configs++;
    if (g_getenv("KILN_TEST_VERBOSE"))
        fprintf(stderr, "# strategy %d size %u surge %u unavailable %u exclusive %d gate %d analysis %d baseline %d first %d faults %u/%x: %u states\n",
                rules->strategy, config->size, rules->max_surge, rules->max_unavailable, rules->exclusive, rules->gate, rules->analysis, rules->baseline,
                config->first, config->faults, config->kinds, states);
}

static Config make_config(Strategy strategy, unsigned size, unsigned surge, unsigned unavailable, unsigned faults, unsigned kinds)
{
    Config config = {.size = size, .faults = faults, .kinds = kinds, .rules = {.strategy = strategy, .max_surge = surge, .max_unavailable = unavailable}};

    config.places = 2 * size + surge + 3;
    if (strategy == STRATEGY_CANARY) {
        config.rules.step_count = size > 2 ? 3 : 2;
        config.rules.steps[0].percent = 20;
        config.rules.steps[1].percent = size > 2 ? 60 : 100;
        config.rules.steps[2].percent = 100;
        config.rules.weighted = size % 2;
        config.rules.gate = surge == 2;
        config.rules.analysis = surge == 1;
        config.rules.baseline = surge == 1;
    }
    if (strategy == STRATEGY_BLUEGREEN)
        config.rules.gate = surge % 2;
    config.rules.start_retries = size % 2;
    return config;
}

static void test_small(void)
{
    for (int strategy = STRATEGY_ROLLING; strategy <= STRATEGY_CANARY; strategy++) {
        Config one = make_config((Strategy)strategy, 1, 1, 0, 2, FAULT_CRASH | FAULT_BOOT | FAULT_ABORT | FAULT_THIRD), two;

        walk_one(&one);
        one.first = true;
        walk_one(&one);
        two = make_config((Strategy)strategy, 2, 1, 1, 1, ALL_KINDS);
        walk_one(&two);
        two.all_orders = true;
        two.kinds = FAULT_DEATH | FAULT_HOST;
        walk_one(&two);
        two = make_config((Strategy)strategy, 2, 0, 1, 1, ALL_KINDS);
        two.rules.exclusive = strategy != STRATEGY_BLUEGREEN;
        walk_one(&two);
        two = make_config((Strategy)strategy, 3, 1, 0, 1, ALL_KINDS);
        walk_one(&two);
        two = make_config((Strategy)strategy, 2, 2, 0, 1, FAULT_ABORT | FAULT_THIRD | FAULT_BOOT);
        walk_one(&two);
    }
}

static bool is_walkable(unsigned pair, unsigned size)
{
    const unsigned few = FAULT_CRASH | FAULT_ABORT | FAULT_THIRD | FAULT_BOOT | FAULT_BALANCER;

    if (size < 3)
        return true;
    if (size == 3)
        return (pair & (FAULT_CRASH | FAULT_ABORT | FAULT_THIRD)) && !(pair & FAULT_HOST && pair & FAULT_THIRD);
    return (pair & (FAULT_CRASH | FAULT_ABORT)) && !(pair & ~few);
}

/*
 * Two faults of all kinds where that stays small. Larger groups meet one fault of every kind, and two of kinds that take turns; from three
 * instances on one of them is something that the controller or a person does, since two that are the world's alone multiply most.
 */
static void walk_size(Strategy strategy, unsigned size, unsigned surge, unsigned unavailable, unsigned *turn)
{
    static const unsigned pairs[] = {FAULT_BOOT | FAULT_CRASH, FAULT_DEATH | FAULT_CRASH, FAULT_BALANCER | FAULT_DEATH, FAULT_HOST | FAULT_CRASH,
                                     FAULT_ABORT | FAULT_BOOT, FAULT_THIRD | FAULT_CRASH, FAULT_THIRD | FAULT_DEATH, FAULT_HOST | FAULT_BOOT,
                                     FAULT_ABORT | FAULT_CRASH, FAULT_BALANCER | FAULT_CRASH, FAULT_THIRD | FAULT_BOOT, FAULT_HOST | FAULT_THIRD,
                                     FAULT_ABORT | FAULT_DEATH, FAULT_BALANCER | FAULT_HOST, FAULT_ABORT | FAULT_THIRD, FAULT_RESIZE | FAULT_DEATH,
                                     FAULT_REPLACE | FAULT_CRASH, FAULT_RESIZE | FAULT_THIRD, FAULT_PAUSE | FAULT_DEATH, FAULT_ABORT | FAULT_HOST,
                                     FAULT_BALANCER | FAULT_THIRD, FAULT_BOOT | FAULT_DEATH, FAULT_BALANCER | FAULT_ABORT, FAULT_BALANCER | FAULT_BOOT,
                                     FAULT_HOST | FAULT_DEATH, FAULT_RESIZE | FAULT_CRASH, FAULT_PAUSE | FAULT_ABORT | FAULT_THIRD};
    Config config = make_config(strategy, size, surge, unavailable, 2, ALL_KINDS);

    config.quick = size > 2 || unavailable > 0 || surge > 0;
    if (size > 1 || surge > 1) {
        config.faults = 1;
        walk_one(&config);
        if (size >= 4 && unavailable != surge % 3)
            return;
        config.faults = 2;
        config.quick = true;
        while (!is_walkable(pairs[*turn % G_N_ELEMENTS(pairs)], size))
            ++*turn;
        config.kinds = pairs[(*turn)++ % G_N_ELEMENTS(pairs)];
    }
    walk_one(&config);
}

static void test_long(void)
{
    unsigned turn = 0;
    clock_t started = clock(); /* of one core, whatever else runs */

    for (unsigned size = 1; size <= 6; size++)
        for (int strategy = STRATEGY_ROLLING; strategy <= STRATEGY_CANARY; strategy++)
            for (unsigned surge = 0; surge <= 3; surge++)
                for (unsigned unavailable = 0; unavailable <= 2; unavailable++) {
                    Config first;

                    if ((surge == 0 && unavailable == 0 && strategy != STRATEGY_BLUEGREEN) || (strategy == STRATEGY_BLUEGREEN && surge > 1))
                        continue;
                    walk_size((Strategy)strategy, size, surge, unavailable, &turn);
                    first = make_config((Strategy)strategy, size, surge, unavailable, size <= 2 ? 2 : 1, FAULT_BOOT | FAULT_CRASH | FAULT_THIRD | FAULT_HOST);
                    first.first = first.quick = true;
                    if (unavailable == 0)
                        walk_one(&first);
                    if (surge == 0 && strategy != STRATEGY_BLUEGREEN) {
                        first = make_config((Strategy)strategy, size, 0, unavailable, size <= 2 ? 2 : 1, ALL_KINDS);
                        first.rules.exclusive = true;
                        first.quick = size > 1;
                        walk_one(&first);
                    }
                }
    fprintf(stderr, "# %" G_GUINT64_FORMAT " distinct states in %u configurations, %.0f seconds\n", total_states, total_configs,
            (double)(clock() - started) / CLOCKS_PER_SEC);
    g_assert_cmpuint(total_states, >=, 1000000);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/explore/small", test_small);
    if (g_getenv("KILN_TEST_LONG"))
        g_test_add_func("/explore/all", test_long);
    return g_test_run();
}
