/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inventory: the template's own, or one of a single host, the guest.
 */
#ifndef KILN_PROVISIONER_ANSIBLE_INVENTORY_H
#define KILN_PROVISIONER_ANSIBLE_INVENTORY_H

#include "base/json.h"
#include "provisioner/host.h"

#include <glib.h>
#include <stdbool.h>

/* What -i gets. What is made is made in @folder/inventory, beside links to the group_vars and host_vars of inventory_directory. */
bool ansible_inventory_make(const json_t *args, const ProvisionerHost *host, const char *folder,
                            char **ret_path, GError **error);

#endif
