/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the texts of a play say of things beyond them.
 */
#ifndef KILN_PROVISIONER_ANSIBLE_TEXT_H
#define KILN_PROVISIONER_ANSIBLE_TEXT_H

#include "base/json.h"
#include "provisioner/provisioner.h"

#include <glib.h>
#include <stdbool.h>

/* The text of @input, where it is one that Ansible may evaluate; else NULL. To free. */
char *ansible_text_load(const ProvisionerInput *input);

/* Whether a text among @inputs makes the play look beyond them: lookups, delegation to the host, galaxy's servers. */
bool ansible_text_reaches_outside(const json_t *args, const GPtrArray *inputs);

#endif
