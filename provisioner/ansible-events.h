/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a play told kiln beside its exit code: ansible/callback/kiln_events.py writes it.
 */
#ifndef KILN_PROVISIONER_ANSIBLE_EVENTS_H
#define KILN_PROVISIONER_ANSIBLE_EVENTS_H

#include "provisioner/guest.h"
#include "provisioner/host.h"

#define ANSIBLE_EVENTS_MAX (4u << 20) /* bytes that are read of a play's events */

typedef struct AnsibleEvents AnsibleEvents;

/* From a file of lines of JSON; one that is not there, or makes no sense, tells nothing. */
AnsibleEvents *ansible_events_load(const char *path);
AnsibleEvents *ansible_events_parse(const char *text);
void ansible_events_free(AnsibleEvents *events); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AnsibleEvents, ansible_events_free)

/* One line for the services that a play started, and one for those among them that no boot will. */
bool ansible_events_tell(const AnsibleEvents *events, const ProvisionerHost *host, Guest *guest,
                         GError **error);

/* Sets the error of a playbook that failed. Returns false. */
bool ansible_events_fail(const AnsibleEvents *events, const char *playbook, int code, GError **error);

#endif
