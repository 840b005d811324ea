/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which Ansible this machine has.
 */
#ifndef KILN_PROVISIONER_ANSIBLE_VERSION_H
#define KILN_PROVISIONER_ANSIBLE_VERSION_H

#include "base/json.h"

#include <glib.h>
#include <stdbool.h>

/* "2.14.18" of the Ansible behind @command; "" where it cannot be told from its files. A command that is not there is an error. */
bool ansible_version_read(const char *command, char **ret, GError **error);

/* Appends ProvisionerInput* for the version of argument `command`, "ansible-playbook". */
bool ansible_version_inputs(const json_t *args, GPtrArray *inputs, GError **error);

#endif
