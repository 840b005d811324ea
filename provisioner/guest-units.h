/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which services of a guest start at boot.
 */
#ifndef KILN_PROVISIONER_GUEST_UNITS_H
#define KILN_PROVISIONER_GUEST_UNITS_H

#include "provisioner/guest.h"

/* Adds to @units (keys to free) every link in *.wants and *.requires of /etc/systemd/system, and S-links of the usual runlevels. */
bool guest_enabled_units(Guest *guest, GHashTable *units, GError **error);

/* @name without a suffix means NAME.service. */
bool guest_unit_is_enabled(GHashTable *units, const char *name);

#endif
