/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a resolved transaction is played in a guest with dpkg. For packages.c only.
 */
#ifndef KILN_PROVISIONER_PACKAGES_DPKG_H
#define KILN_PROVISIONER_PACKAGES_DPKG_H

#include "provisioner/guest.h"
#include "provisioner/host.h"

/* Does what @host->transaction says, inside an open step. @env: for every program. Errors name the package. */
bool packages_dpkg_run(const ProvisionerHost *host, Guest *guest, const char *const *env, GError **error);

#endif
