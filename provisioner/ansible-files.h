/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of the host that a play depends on.
 */
#ifndef KILN_PROVISIONER_ANSIBLE_FILES_H
#define KILN_PROVISIONER_ANSIBLE_FILES_H

#include "base/json.h"
#include "provisioner/host.h"

#include <glib.h>
#include <stdbool.h>

/* Appends ProvisionerInput* for all that provisioner "ansible" with @args reads, Ansible itself among them. */
bool ansible_files_inputs(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs, GError **error);

/* Appends ProvisionerInput* for kiln's own plugins of Ansible, by which every task of a play goes. */
bool ansible_plugin_inputs(GPtrArray *inputs, GError **error);

/* The ansible.cfg that counts: $ANSIBLE_CONFIG among ansible_env_vars, or the working folder's; NULL when there is none. */
char *ansible_files_config(const json_t *args, const ProvisionerHost *host);

#endif
