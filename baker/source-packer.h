/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Packer's sources share: arguments of a plugin's schema with their types, texts with {{ }}, files that a bake leaves where Packer would.
 */
#ifndef KILN_BAKER_SOURCE_PACKER_H
#define KILN_BAKER_SOURCE_PACKER_H

#include "baker/output-files.h"
#include "baker/source.h"

typedef enum PackerType { PACKER_TEXT, PACKER_NUMBER, PACKER_BOOL, PACKER_TEXTS, PACKER_MAP, PACKER_LISTS, PACKER_BLOCK } PackerType;

typedef struct PackerArgument {
    const char *name;
    PackerType type;
    bool used; /* else it is taken, and means nothing here */
} PackerArgument;

/* A schema is a list of X(name, TYPE, used), and makes both tables. */
#define PACKER_NAME_(name, type, used) #name,
#define PACKER_ARGUMENT_(name, type, used) {#name, PACKER_##type, used},
#define PACKER_SCHEMA(LIST)                                                                                  \
    static const char *const argument_names[] = {LIST(PACKER_NAME_) NULL};                                   \
    static const PackerArgument arguments[] = {LIST(PACKER_ARGUMENT_){0}}

/* How Packer talks to a machine, which no bake does. */
#define PACKER_COMMUNICATOR(X)                                                                               \
    X(communicator, TEXT, false) X(pause_before_connecting, TEXT, false) X(ssh_host, TEXT, false) X(ssh_port, NUMBER, false) X(ssh_username, TEXT, false)                 \
    X(ssh_password, TEXT, false) X(ssh_keypair_name, TEXT, false) X(temporary_key_pair_name, TEXT, false) X(temporary_key_pair_type, TEXT, false)                          \
    X(temporary_key_pair_bits, NUMBER, false) X(ssh_ciphers, TEXTS, false) X(ssh_clear_authorized_keys, BOOL, false) X(ssh_key_exchange_algorithms, TEXTS, false)          \
    X(ssh_private_key_file, TEXT, false) X(ssh_certificate_file, TEXT, false) X(ssh_pty, BOOL, false) X(ssh_timeout, TEXT, false) X(ssh_wait_timeout, TEXT, false)         \
    X(ssh_agent_auth, BOOL, false) X(ssh_disable_agent_forwarding, BOOL, false) X(ssh_handshake_attempts, NUMBER, false) X(ssh_bastion_host, TEXT, false)                  \
    X(ssh_bastion_port, NUMBER, false) X(ssh_bastion_agent_auth, BOOL, false) X(ssh_bastion_username, TEXT, false) X(ssh_bastion_password, TEXT, false)                    \
    X(ssh_bastion_interactive, BOOL, false) X(ssh_bastion_private_key_file, TEXT, false) X(ssh_bastion_certificate_file, TEXT, false)                                      \
    X(ssh_file_transfer_method, TEXT, false) X(ssh_proxy_host, TEXT, false) X(ssh_proxy_port, NUMBER, false) X(ssh_proxy_username, TEXT, false)                            \
    X(ssh_proxy_password, TEXT, false) X(ssh_keep_alive_interval, TEXT, false) X(ssh_read_write_timeout, TEXT, false) X(ssh_remote_tunnels, TEXTS, false)                  \
    X(ssh_local_tunnels, TEXTS, false) X(ssh_public_key, TEXTS, false) X(ssh_private_key, TEXTS, false) X(winrm_username, TEXT, false) X(winrm_password, TEXT, false)      \
    X(winrm_host, TEXT, false) X(winrm_no_proxy, BOOL, false) X(winrm_port, NUMBER, false) X(winrm_timeout, TEXT, false) X(winrm_use_ssl, BOOL, false)                     \
    X(winrm_insecure, BOOL, false) X(winrm_use_ntlm, BOOL, false)
#define PACKER_CORE(X)                                                                                       \
    X(packer_build_name, TEXT, false) X(packer_builder_type, TEXT, false) X(packer_core_version, TEXT, false) X(packer_debug, BOOL, false) X(packer_force, BOOL, false)    \
    X(packer_on_error, TEXT, false) X(packer_user_variables, MAP, false) X(packer_sensitive_variables, TEXTS, false)

/* Types of all given arguments, as HCL converts them. */
bool packer_check(const json_t *args, const PackerArgument *arguments, const char **ret_argument, GError **error);
/* What a connection needs before Packer would try it; @otherwise is the communicator that is not said. */
bool packer_check_communicator(const json_t *args, const char *otherwise, const char **ret_argument, GError **error);
/* Arguments that mean nothing here for another reason than the rest. */
typedef struct PackerReason {
    const char *names; /* with a blank on both sides of each */
    const char *why;
} PackerReason;
/* Lines in the log: the given arguments that mean nothing here, and why: @why, or one of @reasons (which end with an empty one). */
void packer_tell_unused(const SourceContext *context, const json_t *args, const PackerArgument *arguments, const char *why, const PackerReason *reasons);

/* Is it there, and no empty text? After packer_check(). */
bool packer_given(const json_t *args, const char *name);
/* A text as it stands (numbers and booleans as HCL writes them), or NULL. Free with g_free. */
char *packer_raw(const json_t *args, const char *name);
bool packer_bool(const json_t *args, const char *name);
/* The same with its {{ }} done; @otherwise where it is not given or empty; *ret may come out NULL. */
bool packer_text(const SourceContext *context, const json_t *args, const char *name, const char *otherwise, char **ret, GError **error);
bool packer_expand(const SourceContext *context, const char *text, char **ret, GError **error);

/* output_make() of @path, which is appended to @files. @what: an image and a form. Relative: to the working directory. */
bool packer_deliver(Store *store, GPtrArray *files, const char *path, const char *what, OutputMakeFn *make, void *arg, GError **error);

#endif
