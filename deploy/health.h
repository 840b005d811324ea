/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln's own health checks, before an instance enters the balancer and while it serves: one thread asks every watched instance once per interval.
 *
 *   health_new -> health_watch (for each instance) -> health_state / health_reason / health_wait ... -> health_free
 *
 * An instance is unknown until `rise` checks passed in a row (good) or `fall` failed in a row (bad); a good one gets bad after `fall`
 * failures in a row, a bad one good after `rise` passes. A pass is an HTTP status of 200 to 399, or a TCP connection. Every check has a
 * connection of its own.
 */
#ifndef KILN_DEPLOY_HEALTH_H
#define KILN_DEPLOY_HEALTH_H

#include "deploy/transition.h"

typedef struct HealthSpec {
    const char *http;  /* path; NULL: none */
    bool tcp;          /* without a path: a connection is enough. Neither: running is enough, every watched instance is good */
    unsigned port;     /* for addresses without one */
    double interval;   /* seconds, from begin to begin; 0: 2 */
    unsigned rise, fall; /* 0: 1 */
    double timeout;    /* seconds; 0: as the interval, at most 5 */
} HealthSpec;

typedef struct HealthMonitor HealthMonitor;
HealthMonitor *health_new(const HealthSpec *spec);
void health_free(HealthMonitor *monitor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HealthMonitor, health_free)

/* @address "IP" or "IP:PORT" ("[IPv6]:PORT"). Known already with this address: nothing; with another one: from the beginning. */
void health_watch(HealthMonitor *monitor, const char *key, const char *address);
void health_forget(HealthMonitor *monitor, const char *key); /* of an unknown key: nothing */

Health health_state(HealthMonitor *monitor, const char *key); /* of an unknown key: HEALTH_UNKNOWN */
/* What the last check said: "HTTP 200", "HTTP 503", "connection refused", "not checked yet". */
char *health_reason(HealthMonitor *monitor, const char *key);

/* Waits at most @seconds for a state to change since the last call; true when one has. */
bool health_wait(HealthMonitor *monitor, double seconds);

#endif
