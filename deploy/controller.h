/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The controller: the one process that changes a group, as long as it holds the group's lock.
 *
 *   controller_open -> (controller_step | controller_run)* -> controller_close
 *
 * A step looks at the world, asks the transition function, journals the intents, does them, journals the outcomes. Killed
 * anywhere, the next controller goes on from the journal and what it sees; there is nothing to repair.
 */
#ifndef KILN_DEPLOY_CONTROLLER_H
#define KILN_DEPLOY_CONTROLLER_H

#include "deploy/analysis.h"
#include "deploy/plan.h"
#include "deploy/world.h"

typedef struct Controller {
    Group *group;
    World *world;
    GHashTable *prepared;    /* revision number: its image is on the hosts */
    Analysis *analysis;      /* of the present step; NULL: none is needed */
    int64_t analysis_phase;  /* the phase_at it belongs to */
    unsigned failures;       /* actions that failed in a row: the next step waits longer */
    const SignatureKey *key; /* signs the journal's head when a rollout is over; borrowed, NULL: none is configured */
    int64_t disagree_since;  /* microseconds since 1970; 0: the balancers agree */
    unsigned repairs;        /* how often in a row balancers that do not agree were told again */
    char *walled;            /* addresses that the firewall knows */
    char *last_failure;      /* sentence of the last one */
    char *last_wait;         /* what was told last, so that it is told once */
    bool changed;            /* this controller did something */
} Controller;

typedef struct ControllerStep {
    bool acted, settled;
    Wait wait;
} ControllerStep;

typedef enum ControllerUntil {
    UNTIL_TRAFFIC, /* the new revision has all the traffic, or it is back, or somebody must say `continue` */
    UNTIL_STABLE,  /* the rollout is over */
    UNTIL_QUIET,   /* nothing can be done now: for a timer */
    UNTIL_NEVER,   /* watch */
} ControllerUntil;

bool controller_open(Store *store, const char *group, bool wait, Controller **ret, GError **error);
void controller_close(Controller *controller);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Controller, controller_close)

bool controller_step(Controller *controller, ControllerStep *ret, GError **error);
/* Until @until is reached or the user interrupts, which is an error. *ret_wait (may be NULL): why it stopped. */
bool controller_run(Controller *controller, ControllerUntil until, Wait *ret_wait, GError **error);

/* Nothing can be done until time passes or somebody acts. */
bool controller_is_quiet(const ControllerStep *step);

/* Journals what @plan asks for; the next step begins it. */
bool controller_want(Controller *controller, const Plan *plan, GError **error);

/* The sentence that explains a rollout's failure, should this have been the last that went wrong. */
void controller_note_failure(Controller *controller, const char *sentence);

/* Journals a verb: {verb, arguments (borrowed, may be NULL), reason, on_behalf_of}. */
bool controller_verb(Controller *controller, const char *verb, json_t *arguments, const char *reason, const char *on_behalf_of, GError **error);

#endif
