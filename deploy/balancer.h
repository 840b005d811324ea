/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Port: what gives instances traffic. A balancer has a pool of numbered places (one pool per color with blue/green); an instance
 * enters one drained, is checked by the balancer, gets traffic, is drained, and leaves.
 *
 *   open -> verify -> observe / enter / route / drain / leave / switch_color ... -> close
 *
 * With several sockets a change counts when every balancer shows it; one that does not answer makes observe() say so, and
 * the controller stops. Each change is durable on the balancer's side (its server-state file or map file is rewritten and synced) before the
 * call returns true: a reload must not bring back what was. Which place an instance has is the controller's journal to know, never
 * guessed from addresses. Calls come from one thread.
 *
 * Members: balancer-haproxy.c, balancer-none.c (groups without traffic), balancer-fake.c. Table: balancer-table.c;
 * tests/unit/conform-balancer.c tests this file's promises over it.
 */
#ifndef KILN_DEPLOY_BALANCER_H
#define KILN_DEPLOY_BALANCER_H

#include "base/json.h"
#include "deploy/transition.h"

typedef struct BalancerConfig {
    const char *group;
    const json_t *arguments; /* of the balancer block */
    Strategy strategy;       /* blue/green needs two pools and a map */
    unsigned places;         /* needed per pool: the group's ceiling with room to spare */
    unsigned port;           /* of instances */
    const char *health_http; /* path that the balancer's checks ask for, NULL: connect only */
    double health_interval;  /* seconds */
    unsigned rise, fall;
    bool sticky;             /* clients stay with their instance (a cookie) */
} BalancerConfig;

typedef struct BalancerEntry {
    uint32_t color, place;
    Route route;         /* as all balancers agree, else ROUTE_UNKNOWN */
    bool up;             /* every balancer's current check passes (not "was up once", not "not checked yet") */
    unsigned weight;
    uint64_t sessions;   /* current and queued, summed */
    char *address;       /* "IP:PORT"; NULL: none */
} BalancerEntry;
void balancer_entry_free(BalancerEntry *entry);

typedef struct BalancerView {
    bool answers;        /* all of them, and they agree */
    bool reached;        /* all of them answer; with !answers they disagree: each ROUTE_UNKNOWN entry's last call has to be made again */
    char *problem;       /* one sentence where they don't, or where a reload has lost something (entries say what is now); else NULL */
    GPtrArray *entries;  /* BalancerEntry*: those that are not empty */
    int32_t color;       /* that the map names; -1: none, or no map */
    unsigned places;     /* entries of the (smaller) pool */
} BalancerView;
void balancer_view_clear(BalancerView *view);

/* Counters since the balancer started, for canary analysis: differences are what counts. */
typedef struct BalancerCounters {
    uint64_t requests, errors; /* errors: 5xx answers, failed connections, aborted answers */
    uint64_t time_ms;          /* sum of total times: latency is judged on differences of it over differences of requests */
} BalancerCounters;

typedef struct Balancer Balancer; /* a member's own struct begins with it */

typedef struct BalancerOps {
    const char *name;
    bool (*check)(const json_t *arguments, Strategy strategy, const char **ret_argument, GError **error);
    bool (*open)(const BalancerConfig *config, Balancer **ret, GError **error);
    void (*close)(Balancer *balancer);

    /* The lines that the balancer's configuration needs for this group, as text for people to paste; never written by us. */
    char *(*config_lines)(const BalancerConfig *config);
    /* Compares what runs with what is needed: false names the line that is missing. */
    bool (*verify)(Balancer *balancer, GError **error);

    bool (*observe)(Balancer *balancer, BalancerView *ret, GError **error);
    /* @address "IP:PORT". All idempotent. */
    bool (*enter)(Balancer *balancer, uint32_t color, uint32_t place, const char *address, GError **error);
    bool (*route)(Balancer *balancer, uint32_t color, uint32_t place, unsigned weight /* 1..WEIGHT_MAX */, GError **error);
    bool (*drain)(Balancer *balancer, uint32_t color, uint32_t place, GError **error);
    /* Ends what sessions are left (their number is told) and empties the place. */
    bool (*leave)(Balancer *balancer, uint32_t color, uint32_t place, uint64_t *ret_cut, GError **error);
    bool (*switch_color)(Balancer *balancer, uint32_t color, GError **error); /* absent (NULL): no blue/green */
    bool (*counters)(Balancer *balancer, uint32_t color, uint32_t place, BalancerCounters *ret, GError **error); /* absent: none */
    bool weighs; /* route's weight has an effect */
} BalancerOps;

struct Balancer {
    const BalancerOps *ops;
};

const BalancerOps *balancer_find(const char *name, char **ret_names);

#endif
