/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SELinux guests leave the seal labelled: a label is an xattr that the policy of the guest, and only that, knows, and files made in the
 * appliance, whose kernel has no policy, come without one.
 */
#ifndef KILN_PROVISIONER_SELINUX_H
#define KILN_PROVISIONER_SELINUX_H

#include "provisioner/guest.h"
#include "provisioner/host.h"

/*
 * Labels all of the guest's file systems by its own setfiles and its own policy's rules, and takes /.autorelabel away: the first boot must neither
 * take that long nor reboot for it. Does nothing in a guest without SELinux or without a policy; a policy whose labels cannot
 * be set is an error. Inside of a step.
 */
bool selinux_relabel(const ProvisionerHost *host, Guest *guest, GError **error);

#endif
