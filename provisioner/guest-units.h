/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which services of a guest start at boot, and what a step says of those that it was asked to start.
 */
#ifndef KILN_PROVISIONER_GUEST_UNITS_H
#define KILN_PROVISIONER_GUEST_UNITS_H

#include "provisioner/guest.h"
#include "provisioner/host.h"

/* Adds to @units (keys to free) every link in *.wants and *.requires of /etc/systemd/system, and S-links of the usual runlevels. */
bool guest_enabled_units(Guest *guest, GHashTable *units, GError **error);

/* @name without a suffix means NAME.service. */
bool guest_unit_is_enabled(GHashTable *units, const char *name);

/* One line for the services among @names (keys) that start at boot; @idle: one for those that no boot will start, too. */
bool guest_units_tell(Guest *guest, GHashTable *names, bool idle, const ProvisionerHost *host, GError **error);

#endif
