/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look at each of a group's HAProxies, and the looks made one view.
 *
 * Two things a fresh HAProxy process can't know are filled in here. (1) After a reload an earlier process may still serve a drained place,
 * uncounted by the new one: within reload_grace of a process's start, a drained place that was entered before it never counts as empty.
 * (2) After a start, a server that is not in maintenance counts as running before its first check: a drained place that was entered before
 * the process began is not up until the process is old enough for `rise` checks to have passed.
 */
#ifndef KILN_DEPLOY_HAPROXY_LOOK_H
#define KILN_DEPLOY_HAPROXY_LOOK_H

#include "deploy/haproxy-config.h"
#include "deploy/haproxy-show.h"

typedef struct HaproxyLook {
    HaproxyInfo info;
    GPtrArray *servers;  /* HaproxyServer*, of the group's backends */
    GPtrArray *pools[2]; /* borrowed from servers, by place */
    GPtrArray *stats;    /* HaproxyStat* */
    int32_t color;       /* -1: the map names none; 0 where there is no map */
} HaproxyLook;

bool haproxy_look(const HaproxySettings *settings, unsigned index, HaproxyLook **ret, GError **error);
void haproxy_look_free(HaproxyLook *look);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HaproxyLook, haproxy_look_free)

/* The row of a server, or of the backend itself ("BACKEND"). NULL: none. */
const HaproxyStat *haproxy_look_stat(const HaproxyLook *look, const char *backend, const char *server);

/* Servers of all the group's backends. */
bool haproxy_look_servers(const HaproxySettings *settings, unsigned index, GPtrArray **ret, GError **error);

/* What one process is known by. */
int64_t haproxy_process_key(const HaproxyInfo *info);

/* Under which process a place was entered, 0: not known. */
typedef int64_t HaproxyEnteredFn(unsigned index, uint32_t color, uint32_t place, void *arg);

/* @looks [count]: NULL where a balancer does not answer, then @problem says so (given away). */
void haproxy_view_merge(const HaproxySettings *settings, HaproxyLook *const *looks, char *problem, HaproxyEnteredFn *entered, void *arg,
                        BalancerView *ret);

/* Compares a look with the server-state file that HAProxy was to load: NULL, or the first difference in one sentence. */
char *haproxy_look_lost(const HaproxySettings *settings, unsigned index, const HaproxyLook *look);

/* The map's color at sockets[index]; -1: none of ours. */
bool haproxy_look_color(const HaproxySettings *settings, unsigned index, int32_t *ret, bool *ret_has_key, GError **error);

Route haproxy_server_route(const HaproxyServer *server);

#endif
