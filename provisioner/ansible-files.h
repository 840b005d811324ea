/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a play depends on: files of the host, and whatever else it may ask.
 */
#ifndef KILN_PROVISIONER_ANSIBLE_FILES_H
#define KILN_PROVISIONER_ANSIBLE_FILES_H

#include "base/json.h"
#include "provisioner/host.h"

#include <glib.h>
#include <stdbool.h>

/* Appends ProvisionerInput* for all that provisioner "ansible" with @args reads, Ansible itself among them. */
bool ansible_files_inputs(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs, GError **error);

/* Whether a text among @inputs makes the play look beyond them: lookups, delegation to the host, galaxy's servers. */
bool ansible_files_reach_outside(const json_t *args, const GPtrArray *inputs);

/* The ansible.cfg that counts: $ANSIBLE_CONFIG among ansible_env_vars, or the working folder's; NULL when there is none. */
char *ansible_files_config(const json_t *args, const ProvisionerHost *host);

/* "2.14.18" of the Ansible behind @command; "" where it cannot be told from its files. A command that is not there is an error. */
bool ansible_files_version(const char *command, char **ret, GError **error);

#endif
