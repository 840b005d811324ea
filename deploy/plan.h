/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans: what `deploy apply` would do, as the very steps the transition function will ask for, against a world in which everything works.
 *
 * The hash covers group, image, spec, size, what exists now and every step; the same world and the same file give the same hash.
 */
#ifndef KILN_DEPLOY_PLAN_H
#define KILN_DEPLOY_PLAN_H

#include "deploy/world.h"

typedef struct PlanRequest {
    const GroupFile *file;      /* NULL: go to @revision, which exists */
    uint32_t revision;
    bool retry;                 /* an image that was rolled back is tried again */
    const char *allow_revoked;  /* reason; NULL */
    bool without_silent_hosts;  /* hosts that do not answer are left out */
} PlanRequest;

typedef struct PlanStep {
    char *line;             /* as group_action_line(), or what is waited for */
    bool wait;              /* not an action: hold, gate, analysis */
    unsigned serving, existing; /* after it */
    double worst;           /* seconds it may take */
} PlanStep;

typedef struct Plan {
    char *group;
    StoreImage *image;
    uint32_t revision, from; /* number it will have, or has; 0: none before */
    bool nothing;            /* the group is there already */
    json_t *records;         /* what apply appends: [revision,] want */
    GPtrArray *steps;        /* PlanStep* */
    GroupRules rules;        /* that the steps follow */
    unsigned size, floor, ceiling;
    double worst, rollback;  /* seconds, analysis and holds included, gates not */
    bool gates;              /* somebody must say `continue` in between */
    char *firewall;          /* NULL: none */
    unsigned host_count;
    char **hosts;
    DriverNeeds *needs;      /* per host */
    unsigned *counts;        /* instances on each host at the peak */
    GPtrArray *warnings;     /* char* */
    Digest hash, steps_digest;
} Plan;

/* Everything that can be known to go wrong is an error here, before anything is touched. */
bool plan_make(Store *store, const char *group, const PlanRequest *request, Plan **ret, GError **error);
void plan_free(Plan *plan);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Plan, plan_free)

json_t *plan_json(const Plan *plan);

/* Whether the group, as it is deployed, can have @size: addresses and places of the balancer. */
bool plan_check_size(const Group *group, unsigned size, GError **error);

/* How long going back may take from where the group is now, once the new revision has traffic; 0: there is nothing to go back to. */
double plan_rollback_seconds(const Group *group, const GroupSpec *spec);

#endif
