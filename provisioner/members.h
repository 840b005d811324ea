/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members of the family, for provisioner-table.c alone.
 */
#ifndef KILN_PROVISIONER_MEMBERS_H
#define KILN_PROVISIONER_MEMBERS_H

#include "provisioner/provisioner.h"

extern const ProvisionerOps provisioner_ansible;
extern const ProvisionerOps provisioner_ansible_local;
extern const ProvisionerOps provisioner_breakpoint;
extern const ProvisionerOps provisioner_chef_solo;
extern const ProvisionerOps provisioner_file;
extern const ProvisionerOps provisioner_packages;
extern const ProvisionerOps provisioner_puppet_masterless;
extern const ProvisionerOps provisioner_shell;
extern const ProvisionerOps provisioner_shell_local;
extern const ProvisionerOps provisioner_sleep;
extern const ProvisionerOps provisioner_test;

#endif
