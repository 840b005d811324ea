/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kiln's end of Ansible's connection plugin (ansible/connection/kiln.py draws what is said): a unix socket, one request a connection.
 *
 *   open -> while ansible-playbook runs, answer() whenever fd() can be read -> close
 */
#ifndef KILN_PROVISIONER_ANSIBLE_SERVER_H
#define KILN_PROVISIONER_ANSIBLE_SERVER_H

#include "provisioner/guest.h"
#include "provisioner/host.h"

/* Where the guest finds what a command line gets as its standard input; the last one's stays. */
#define ANSIBLE_INPUT_PATH "/run/.kiln-ansible-input"

typedef struct AnsibleServer AnsibleServer;

/* Listens at @path, in a folder that nobody else can enter. */
bool ansible_server_open(const char *path, const ProvisionerHost *host, Guest *guest, AnsibleServer **ret,
                         GError **error);
int ansible_server_fd(const AnsibleServer *server);

/* Answers one request. False when the step cannot go on: a passed limit, an interrupt. @server: an AnsibleServer. */
bool ansible_server_answer(void *server, GError **error);

/* NULL is fine. */
void ansible_server_close(AnsibleServer *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AnsibleServer, ansible_server_close)

#endif
