/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members of deploy's two families, for their tables.
 */
#ifndef KILN_DEPLOY_MEMBERS_H
#define KILN_DEPLOY_MEMBERS_H

#include "deploy/balancer.h"
#include "deploy/driver.h"

extern const DriverOps driver_fake_ops, driver_fake_oci_ops, driver_libvirt_ops, driver_runc_ops;
extern const BalancerOps balancer_fake_ops, balancer_haproxy_ops, balancer_none_ops;

#endif
