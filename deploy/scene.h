/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scene: one look at rules, state and seats, counted once, from which a batch of actions is chosen. Private to the transition function's files.
 */
#ifndef KILN_DEPLOY_SCENE_H
#define KILN_DEPLOY_SCENE_H

#include "deploy/seat.h"

/* How far a keeper is; in the order of an instance's life. */
typedef enum Stage {
    STAGE_INTENDED, /* a create was intended and has not happened */
    STAGE_STARTING,
    STAGE_ATTEST,
    STAGE_WARM,
    STAGE_ENTER,
    STAGE_UP,
    STAGE_ROUTE,
    STAGE_FLAP,     /* routed, and the balancer's checks fail at the moment */
    STAGE_DONE,
} Stage;

typedef struct Scene {
    const GroupRules *rules;
    const GroupState *state;
    GArray *actions;
    GArray *seats;
    bool frozen;         /* a paused rollout */
    bool answers;        /* all balancers answer and agree about all instances */
    bool complete;       /* all key seats are whole */
    bool kept;           /* all key seats serve, also by instances that shall be replaced */
    bool leftover;       /* surplus that can go and is not gone yet, beside what is healed */
    bool stopped;        /* seats stay empty because their revision may not be healed */
    unsigned existing, ceiling, serving, floor;
    unsigned blocking;   /* key seats whose instances are on their way */
    unsigned starved;    /* keepers that wait for a place in the balancer's pool */
    unsigned wanting;    /* seats that lack an instance and may get one now */
    int live;            /* blue/green: color that the map names, else -1 */
    unsigned waits;      /* bits of Wait */
} Scene;

void scene_init(Scene *scene, const GroupRules *rules, const GroupState *state, GArray *actions);
void scene_clear(Scene *scene);

Stage scene_stage(const Scene *scene, const Seat *seat, const Instance *keeper);
bool scene_serves(const Scene *scene, const Instance *row);

/* May the seat get its next attempt, as far as its last one is concerned? */
bool scene_may_try(Scene *scene, const Seat *seat);

uint32_t scene_color(const Scene *scene, uint32_t revision); /* 0 without blue/green */
bool scene_foreign(const Scene *scene, uint32_t revision);   /* another revision has entries in its color */
Cause scene_cause(const Scene *scene, const Seat *seat, const Instance *row); /* why a row that is no keeper goes */
void scene_wait(Scene *scene, Wait wait);
void scene_add(Scene *scene, ActionKind kind, Cause cause, const Instance *row);

/* The stages of a batch; true: something was added, and the batch is complete. scene-grow.c, scene-shrink.c */
bool scene_create(Scene *scene);
bool scene_advance(Scene *scene); /* attest, enter, route */
bool scene_shrink(Scene *scene);  /* drain, leave, destroy */

#endif
