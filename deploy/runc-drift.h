/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a container has changed on its disk: exactly what stands in the upper folder of its overlay.
 */
#ifndef KILN_DEPLOY_RUNC_DRIFT_H
#define KILN_DEPLOY_RUNC_DRIFT_H

#include "deploy/driver.h"
#include "deploy/rootfs.h"

/* @upperfd: the folder; @bundle: path of the runtime's config.json, whose mount points are no changes. Array of DriftEntry*, sorted by path. */
bool runc_drift_list(int upperfd, const RootfsStamp *stamp, const char *bundle, GPtrArray **ret, GError **error);

#endif
