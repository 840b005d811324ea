/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What HAProxy's configuration has to say for a group: the balancer block's arguments, the lines that people paste, and the check of a
 * configuration file for those lines that the runtime API can't show. The file is read, never written.
 *
 *   balancer "haproxy" {
 *     sockets      = ["/run/haproxy/admin.sock"]   # 1 to 8 stats sockets with level admin, one per balancer
 *     backend      = "web"                         # blue/green: "web-0" and "web-1"
 *     prefix       = "web"                         # of the pool's servers; found by itself where a backend has one pool
 *     state_file   = "/var/lib/haproxy/kiln-web.state"  # one per socket: state_files = [...]
 *     map          = "/etc/haproxy/kiln-web.map"   # blue/green; as HAProxy's configuration names it; one per socket: maps = [...]
 *     config       = "/etc/haproxy/haproxy.cfg"    # or a list; read by `plan` for what the sockets can't show
 *     reload_grace = "30s"                         # how long an earlier process may still serve after a reload: hard-stop-after
 *   }
 */
#ifndef KILN_DEPLOY_HAPROXY_CONFIG_H
#define KILN_DEPLOY_HAPROXY_CONFIG_H

#include "deploy/balancer.h"

enum { HAPROXY_SOCKETS_MAX = 8, HAPROXY_PLACES_MAX = 4096 };

typedef struct HaproxySettings {
    char *group;
    char **sockets, **state_files, **maps; /* [count] each */
    unsigned count;
    char *backend, *prefix;                /* prefix may be NULL */
    char *backends[2];
    unsigned colors;                       /* 1, or 2 with blue/green */
    char **configs;
    double reload_grace;
    /* of BalancerConfig, copied */
    unsigned places, rise, fall;
    char *health_http;
    double health_interval;
    bool sticky;
} HaproxySettings;

/* *ret_argument names the culprit in @arguments; may be NULL. */
bool haproxy_settings_new(const BalancerConfig *config, HaproxySettings **ret, const char **ret_argument, GError **error);
void haproxy_settings_free(HaproxySettings *settings);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HaproxySettings, haproxy_settings_free)

char *haproxy_config_lines(const HaproxySettings *settings);

/* @text: a whole configuration, of the balancer at sockets[index]. False names the first line that is missing. */
bool haproxy_config_check(const HaproxySettings *settings, unsigned index, const char *text, GError **error);

#endif
