/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transition function: what a group's controller does next. Pure C: no I/O, no clock, no randomness, no JSON.
 *
 *     loop: observe -> group_next(rules, state, actions) -> journal the intents -> do them, journal each outcome
 *                      (group_intend)                         (group_outcome)
 *
 * GroupState is the journal, folded, plus what the last observation said about each instance. The controller, `deploy plan`
 * (against a world in which everything works) and the explorer of the tests call the same functions; nothing else decides.
 *
 * Rules that hold at every instant (numbers of the phoenix rules, kiln-deploy(7)):
 *   I4  an instance is (revision, slot, attempt); creating it twice makes one.
 *   I7  floor: no action takes serving instances below size - max_unavailable.
 *   I8  ceiling: no create while existing instances (starting, draining, dead and not yet destroyed, unknown) >= size + surge.
 *   I9  no ROUTE before proof, kiln's own health checks and the balancer's current checks are good.
 *   I10 create -> attest -> enter (drained) -> route -> drain -> wait empty or deadline -> leave -> destroy.
 *   I11 blue/green's old instances stay until the new revision has held.
 *   I12 a replacement runs its own revision's image.
 *   I14 nothing is done while an instance of a higher epoch is seen.
 *
 * Order is by waves: all instances of a wave reach a stage before one of them goes on to the next, and a stage goes by revision,
 * slot, attempt. So the steps of a rollout without faults do not depend on who boots first, and what was executed can be compared
 * with what was planned, step by step.
 */
#ifndef KILN_DEPLOY_TRANSITION_H
#define KILN_DEPLOY_TRANSITION_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum { CANARY_STEPS_MAX = 32, WEIGHT_MAX = 256 };

typedef enum Strategy { STRATEGY_ROLLING, STRATEGY_BLUEGREEN, STRATEGY_CANARY } Strategy;

typedef struct CanaryStep {
    unsigned percent; /* of the weight; 0: by count */
    unsigned count;   /* instances; 0: by percent, rounded up to one */
} CanaryStep;

/* From the group file of the revision being rolled out (or in service, when idle). */
typedef struct GroupRules {
    Strategy strategy;
    unsigned max_surge, max_unavailable; /* blue/green: surge counts as size, whatever is written */
    CanaryStep steps[CANARY_STEPS_MAX];  /* canary: the last one is 100 percent */
    unsigned step_count;
    bool gate;            /* canary: each step but the last waits for `continue`; blue/green: the switch does */
    bool analysis;        /* canary: each step but the last waits for a verdict */
    bool baseline;        /* canary: as many fresh instances of the old revision as canaries, while a step is judged */
    bool exclusive;       /* slots own volumes: at most one instance of a slot exists */
    bool weighted;        /* the balancer can weigh; else every weight is WEIGHT_MAX */
    unsigned start_retries; /* instances of a new revision that may fail to start before it is rolled back */
} GroupRules;

typedef enum Life {
    LIFE_NONE,     /* intended, and its host says that it does not exist */
    LIFE_STARTING, /* exists, does not run yet */
    LIFE_RUNNING,
    LIFE_DEAD,     /* exists, does not run any more */
    LIFE_UNKNOWN,  /* its host does not answer: exists for the ceiling, serves nobody for the floor */
} Life;

typedef enum Proof { PROOF_NONE, PROOF_GOOD, PROOF_BAD } Proof;
typedef enum Health { HEALTH_UNKNOWN, HEALTH_GOOD, HEALTH_BAD } Health; /* after `rise` passes or `fall` failures in a row */
typedef enum Route {
    ROUTE_OUT,     /* the balancer does not know it, or holds it in maintenance */
    ROUTE_DRAINED, /* it is checked, and gets no new work */
    ROUTE_IN,      /* it gets new work while the balancer's checks pass */
    ROUTE_UNKNOWN, /* the balancers do not answer or do not agree */
} Route;

/* Roles: slots below the size serve; slots from the size upwards are a canary step's baseline. */
typedef struct Instance {
    /* identity and journal */
    uint32_t revision, slot, attempt; /* attempt from 1 */
    int32_t host;         /* index into GroupState.hosts */
    int32_t place;        /* number of its entry in the balancer's pool; -1: none */
    bool created;         /* the create's outcome was good */
    bool drained;         /* a drain was intended: never routed again (I10) */
    bool ended;           /* destroyed or lost; the row stays until the slot's next attempt, or until the revision is left */
    bool served;          /* was in service once: its end is a death, not a failed start */
    bool asked;           /* an attest was intended */
    bool failed;          /* its create failed, it died, was sick or ran the wrong image; told (and counted) once */
    bool retry;           /* follows a failed attempt: goes at its own pace, no wave waits for it */
    /* the last observation; rows that ended are observed only where they exist after all */
    Life life;
    Proof proof;          /* from the attest's outcome; a driver's later doubt makes it PROOF_BAD */
    Health health;        /* kiln's own checks */
    Route route;
    unsigned weight;      /* as the balancer has it; only while ROUTE_IN */
    bool up;              /* the balancer's own checks pass now (without a balancer: as health) */
    bool empty;           /* the balancer counts no session */
    bool start_late;      /* not in service, and start_timeout passed since its create or, once it has entered, since its enter */
    bool drain_late;      /* the drain's deadline passed */
    bool replace;         /* over-age, or drifted where the group says cure = "replace" */
    bool cooled;          /* the slot's next attempt may be made, should this one have failed: long enough after its start, longer with each attempt */
} Instance;

typedef enum Phase {
    PHASE_IDLE,    /* `current` is kept at size; nothing is being changed */
    PHASE_ROLL,    /* towards the composition of `step` */
    PHASE_WATCH,   /* canary: the step's composition is reached; hold, gate, verdict. Blue/green: everything is warm, gate before the switch */
    PHASE_HOLD,    /* the new revision has all the traffic and has not held yet */
    PHASE_CLEAN,   /* blue/green: it has held, the old one goes */
    PHASE_BACK,    /* to the revision before */
    PHASE_DESTROY, /* everything goes */
} Phase;

typedef enum Verdict { VERDICT_NONE, VERDICT_PASS, VERDICT_FAIL, VERDICT_INCONCLUSIVE } Verdict;

typedef struct Revision {
    uint32_t number;
    bool failed;  /* was rolled back: refused until --retry or a new promotion */
    bool stable;  /* has held once */
    bool stopped; /* its image is revoked with --stop: not healed */
    uint32_t color; /* blue/green: 0 or 1, the backend of its instances, fixed at its begin */
    uint32_t attempts; /* highest of its instances whose rows are gone: later ones count on from it, should it come back (I4) */
} Revision;

typedef struct GroupState {
    GArray *instances; /* of Instance, sorted by revision, slot, attempt */
    GArray *revisions; /* of Revision, by number */
    bool *hosts;       /* answers; placement: the answering host with fewest of the group's existing instances, lowest index first, but not
                          where the attempt before failed while there is another; exclusive slots stay on the host that has their volumes */
    unsigned host_count;
    unsigned size;
    unsigned places;   /* entries of the balancer's pool (per color in blue/green); 0: no balancer */
    Phase phase;
    unsigned step;
    uint32_t current;  /* in service or last stable; 0: none yet */
    uint32_t target;   /* being rolled out; 0 when idle */
    uint32_t next;     /* wanted after the present rollout can be left; 0: none */
    uint32_t failures; /* failed starts of target in this rollout */
    bool paused;
    bool asked_back;   /* abort, rollback: the rollout shall go back */
    bool passed_gate;  /* `continue` was said in this step */
    int32_t color;     /* blue/green: color that the map names; -1 none yet or unknown */
    /* the last observation */
    bool balancers_answer; /* all of them, and they agree; true without a balancer */
    bool newer_epoch;      /* an instance of a higher epoch was seen */
    bool hold_over;        /* the time of this phase's and step's hold has passed */
    bool deadline_over;    /* the rollout's deadline passed */
    Verdict verdict;       /* of this step */
} GroupState;

typedef enum ActionKind {
    /* on instances, in the order of an instance's life */
    ACTION_CREATE,  /* also chooses host */
    ACTION_ATTEST,  /* outcome: proof */
    ACTION_ENTER,   /* drained, at .place */
    ACTION_ROUTE,   /* with .weight; also changes the weight of one that is in */
    ACTION_DRAIN,
    ACTION_LEAVE,
    ACTION_DESTROY,
    /* on the group */
    ACTION_SWITCH,  /* blue/green: the map names .color */
    /* decisions: journaled, nothing to do outside */
    ACTION_LOST,    /* the instance is gone, and no destroy's outcome says so: its row ends */
    ACTION_BEGIN,   /* state.next becomes target */
    ACTION_PHASE,   /* .phase and .step */
    ACTION_STABLE,  /* target has held and becomes current; ends the rollout */
    ACTION_FAILED,  /* target is marked failed; comes with the way back */
    ACTION_RETURNED, /* the way back is done; ends the rollout */
    ACTION_ENDED,   /* destroy is done */
} ActionKind;

typedef enum Cause { /* why an instance goes or a phase changes, for journal and people */
    CAUSE_ROLLOUT, CAUSE_SCALE, CAUSE_DEAD, CAUSE_SICK, CAUSE_START_FAILED, CAUSE_WRONG_IMAGE, CAUSE_REPLACE, CAUSE_STRAY /* belongs to no wanted revision */,
    CAUSE_ANALYSIS, CAUSE_DEADLINE, CAUSE_ASKED, CAUSE_HELD, CAUSE_SUPERSEDED, CAUSE_DESTROY,
} Cause;

typedef struct Action {
    ActionKind kind;
    Cause cause;
    uint32_t revision, slot, attempt; /* instance actions; BEGIN, STABLE, FAILED, RETURNED: revision */
    int32_t host, place;
    unsigned weight;
    uint32_t color;
    Phase phase;
    unsigned step;
} Action;

typedef enum Wait { /* what the group waits for when no action is left, the most important first */
    WAIT_NOTHING, WAIT_EPOCH, WAIT_BALANCER, WAIT_HOST, WAIT_CEILING, WAIT_START, WAIT_HEALTH, WAIT_COOLING, WAIT_DRAIN, WAIT_PAUSED, WAIT_INCONCLUSIVE, WAIT_GATE,
    WAIT_VERDICT, WAIT_HOLD,
} Wait;

/* The next batch, in the order in which it is to be done; may be empty. Never more than one stage. *ret_wait: why nothing (more) can be done now. */
void group_next(const GroupRules *rules, const GroupState *state, GArray *ret_actions /* of Action, emptied first */, Wait *ret_wait);

/* Folds one intent or decision. Decisions have no outcome. */
void group_intend(const GroupRules *rules, GroupState *state, const Action *action);

/*
 * Folds an outcome. !@ok: the action was tried and failed (a failed create counts as a failed start). Not for what a crash left open.
 * @proof only for ACTION_ATTEST. What is done again after a failure is the same action: the controller waits in between.
 */
void group_outcome(const GroupRules *rules, GroupState *state, const Action *action, bool ok, Proof proof);

/* A crash, or the end of a run: intents without outcome are settled by the next observation, which sets `life`, `route` and so on. */

/* NULL when absent. */
Instance *group_instance(const GroupState *state, uint32_t revision, uint32_t slot, uint32_t attempt);
const Revision *group_revision(const GroupState *state, uint32_t number);
/* A new row at its place in the order, for an instance that was found and that the state does not know. Other rows may move. */
Instance *group_add_instance(GroupState *state, uint32_t revision, uint32_t slot, uint32_t attempt);

/* Numbers for plans, status and tests. */
unsigned group_surge(const GroupRules *rules, const GroupState *state);   /* instances above size that may exist */
unsigned group_floor(const GroupRules *rules, const GroupState *state);   /* 0 where everything shall go: destroy, and the way back of a first rollout */
unsigned group_ceiling(const GroupRules *rules, const GroupState *state);
unsigned group_existing(const GroupState *state);
unsigned group_serving(const GroupRules *rules, const GroupState *state); /* running, proven, in (its color is the map's), up */
unsigned group_canaries(const GroupRules *rules, unsigned size, unsigned step); /* rounded up; the last step: all */
bool instance_exists(const Instance *instance);
bool instance_serves(const GroupRules *rules, const GroupState *state, const Instance *instance);
bool group_settled(const GroupRules *rules, const GroupState *state); /* idle, whole, nothing wanted */

GroupState *group_state_new(unsigned size, unsigned hosts, unsigned places);
GroupState *group_state_copy(const GroupState *state);
void group_state_free(GroupState *state);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GroupState, group_state_free)

bool action_is_decision(ActionKind kind);    /* journaled only: there is no intent before it and no outcome after it */
bool action_is_on_instance(ActionKind kind);

const char *action_kind_name(ActionKind kind); /* "create", ...: the words of journal and plan */
const char *cause_name(Cause cause);
const char *phase_name(Phase phase);
const char *wait_sentence(Wait wait);
bool action_kind_parse(const char *name, ActionKind *ret);
bool cause_parse(const char *name, Cause *ret);
bool phase_parse(const char *name, Phase *ret);

#endif
