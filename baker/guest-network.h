/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's network card, as the host sees it: its link is up only while a step that may use it runs, and what was sent is written
 * down by qemu itself, where the guest cannot change it.
 *
 *   guest_network_new -> (qemu starts with guest_network_arguments) -> guest_network_connect -> [ up -> down ]... -> guest_network_free
 *
 * Link: QMP's set_link (qemu's QMP reference). Record: qemu's filter-dump, in pcap's format (libpcap's pcap-savefile(5)), the
 * first bytes of each packet.
 */
#ifndef KILN_BAKER_GUEST_NETWORK_H
#define KILN_BAKER_GUEST_NETWORK_H

#include <glib.h>
#include <stdbool.h>

typedef struct GuestNetwork GuestNetwork;

/* @folder: short enough for a socket's name; both files are made in it. */
GuestNetwork *guest_network_new(const char *folder);
void guest_network_free(GuestNetwork *network);

/* "-netdev", "user,...", ...: NULL-terminated pairs. */
char **guest_network_arguments(const GuestNetwork *network);

/* After qemu started. The link is down then. */
bool guest_network_connect(GuestNetwork *network, GError **error);

bool guest_network_up(GuestNetwork *network, GError **error);
/* *ret_reached: what the guest tried to reach since up: "deb.debian.org:80", "udp 192.0.2.1:123"; sorted, bounded. */
bool guest_network_down(GuestNetwork *network, GPtrArray **ret_reached, GError **error);

/* The same for a capture file's bytes from after its header; for tests. Anything that is no whole packet ends it. */
GPtrArray *guest_network_parse(const guint8 *data, size_t size);

#endif
