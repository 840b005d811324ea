/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world of one group: its opened drivers, balancer and health checks, and what they see, merged into the group's state.
 *
 *   world_open -> world_observe -> (look at group->state, do actions through .balancer and world_driver()) -> world_close
 *
 * Nothing here decides; nothing here writes to the journal.
 */
#ifndef KILN_DEPLOY_WORLD_H
#define KILN_DEPLOY_WORLD_H

#include "deploy/group-journal.h"
#include "deploy/health.h"

/* What observation found that is no instance of the journal, or not as it should be. */
typedef struct Finding {
    char *subject; /* instance name, "entry 3 of the balancer" */
    char *kind;    /* "unknown", "missing", "edited", "image", "balancer", "host" */
    char *text;    /* one sentence */
} Finding;

typedef struct World {
    Group *group;
    GPtrArray *drivers;      /* OpenDriver*, one per distinct driver block */
    GHashTable *driver_of;   /* revision number -> OpenDriver* of drivers */
    Balancer *balancer;      /* never NULL once opened */
    GHashTable *health;      /* revision number -> HealthMonitor* */
    GPtrArray *seen;         /* DriverInstance* of the last observation */
    GHashTable *seen_at;     /* InstanceFacts key -> DriverInstance* of the last observation, borrowed */
    GHashTable *silent;      /* host index -> microseconds since when it is silent */
    BalancerView view;
    GHashTable *entries;     /* color and place -> BalancerEntry* of the view, borrowed */
    GPtrArray *findings;     /* Finding* of the last observation */
    int64_t now;             /* microseconds since 1970 */
    char *balancer_key;
    bool watching;           /* health checks run */
} World;

/* Opens what the group's revisions name. @watching: with health checks (a controller); without, health is unknown. */
bool world_open(Group *group, bool watching, World **ret, GError **error);
void world_close(World *world);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(World, world_close)

/* After a new revision: what it names is opened too. */
bool world_extend(World *world, GError **error);

/* Uses a revision's balancer block though it does not rule yet: for plans. */
bool world_use_balancer(World *world, const RevisionFacts *revision, GError **error);

bool world_observe(World *world, GError **error);

/* The driver of a revision; and for a host index its number within that driver, -1 when the host belongs to another. */
Driver *world_driver(World *world, const RevisionFacts *revision);
int world_driver_host(World *world, const RevisionFacts *revision, int host);
/* The group's volumes, on all hosts of all its drivers. */
bool world_end_volumes(World *world, GError **error);
/* Images on hosts that none of @keep (Digest) names; what cannot be removed is only told. */
void world_forget_images(World *world, const GArray *keep);

/* Where the group's firewall stands, in words; NULL: it has none. */
const char *world_firewall(World *world, const RevisionFacts *revision);
/* The instance as last seen; NULL when it was not. */
const DriverInstance *world_seen(World *world, uint32_t revision, uint32_t slot, uint32_t attempt);

/* Why an instance is not in service yet, in a few words; NULL: nothing is known. */
char *world_why_not(World *world, const Instance *row);

/* Places a group of this spec and size wants in each pool. */
unsigned world_places(const GroupSpec *spec, unsigned size);
void world_balancer_config(const GroupSpec *spec, unsigned size, BalancerConfig *ret);

/* Waits at most @seconds for something to happen. */
void world_wait(World *world, double seconds);

#endif
