/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group's firewall on the host where its instances run: one nftables table per group and family ("kiln_GROUP", '-' written as '_').
 *
 * Only packets to @addresses are looked at: what belongs to a connection that exists, what @allow names, and nothing else. It holds for
 * packets from this host, routed through it, and passed on by its bridges. A bridge of a kernel without connection tracking for bridges
 * is filtered by the packets alone: new TCP connections to other ports, and UDP but for answers of name and time servers.
 *
 * @allow: "tcp/80", "udp/6000-6010", "icmp". @addresses: of char*, without prefix lengths; all addresses that the group may use.
 * Everything goes through `nft` in the network name space in which kiln runs; needs root.
 */
#ifndef KILN_DEPLOY_FIREWALL_H
#define KILN_DEPLOY_FIREWALL_H

#include <glib.h>
#include <stdbool.h>

/* In one transaction; what was there of this group before is replaced. */
bool firewall_apply(const char *group, const char *const *allow, const GPtrArray *addresses, GError **error);

/* Absent is success. */
bool firewall_remove(const char *group, GError **error);

/* *ret_problem: one sentence where what is loaded is not what apply would load, else NULL. */
bool firewall_check(const char *group, const char *const *allow, const GPtrArray *addresses, char **ret_problem, GError **error);

/* The ruleset as text; for plans and tests. */
typedef enum FirewallBridge { FIREWALL_BRIDGE_NONE, FIREWALL_BRIDGE_STATELESS, FIREWALL_BRIDGE_TRACKED } FirewallBridge;
bool firewall_text(const char *group, const char *const *allow, const GPtrArray *addresses, FirewallBridge bridge, char **ret, GError **error);

#endif
