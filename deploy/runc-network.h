/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network name space of its own for a container: "kiln-LABEL" with one address on a pair of virtual devices, the outer one in a bridge.
 * A label is the instance's on this host: its name and what tells state folders apart.
 */
#ifndef KILN_DEPLOY_RUNC_NETWORK_H
#define KILN_DEPLOY_RUNC_NETWORK_H

#include "deploy/driver.h"

/* Makes it anew; what an earlier attempt left goes first. *ret_path is what the runtime is told. */
bool runc_network_make(const DriverCreate *create, const char *label, char **ret_path, GError **error);

/* Absent is success. */
bool runc_network_remove(const char *label, GError **error);

#endif
