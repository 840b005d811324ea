/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs of the host that a step runs: within the step's limit in time, which all of them share.
 */
#ifndef KILN_PROVISIONER_HOST_RUN_H
#define KILN_PROVISIONER_HOST_RUN_H

#include "base/process.h"
#include "provisioner/host.h"

/* process_run() with @spec's timeout set. @who begins the error of a passed limit: "<who> passed the step's time limit and was stopped". */
bool host_run(ProcessSpec *spec, const ProvisionerHost *host, const char *who, int *ret_code, GError **error);

#endif
