/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seed of an instance: cloud-init's NoCloud, an ISO image labelled "cidata" with meta-data, user-data and network-config.
 */
#ifndef KILN_DEPLOY_SEED_ISO_H
#define KILN_DEPLOY_SEED_ISO_H

#include <glib.h>
#include <stdbool.h>

typedef struct SeedSpec {
    const char *name;      /* the instance's: its host name and instance-id */
    const char *user_data; /* NULL: none */
    const char *mac, *address, *gateway; /* a fixed address on that card; address NULL: network-config is left out; gateway may be NULL */
    unsigned prefix_length;
} SeedSpec;

char *seed_network_config(const SeedSpec *spec);
/* Made by genisoimage or xorriso, whichever is there. At most SEED_MAX bytes. */
#define SEED_MAX (16u << 20)
bool seed_iso(const SeedSpec *spec, GBytes **ret, GError **error);

#endif
