/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members of deploy's two families, for their tables.
 */
#ifndef KILN_DEPLOY_MEMBERS_H
#define KILN_DEPLOY_MEMBERS_H

#include "deploy/balancer.h"
#include "deploy/driver.h"

#endif
