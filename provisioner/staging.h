/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder of the guest that a tool of the guest works in, filled from the host: what ansible-local, puppet-masterless and chef-solo share.
 */
#ifndef KILN_PROVISIONER_STAGING_H
#define KILN_PROVISIONER_STAGING_H

#include "provisioner/guest.h"
#include "provisioner/host.h"

#include "base/json.h"

typedef struct Staging {
    const char *who;
    const json_t *args;
    const ProvisionerHost *host;
    Guest *guest;
    char *folder; /* in the guest */
    bool clean;   /* take it away when all went well */
} Staging;

/* A tool's `guest_os_type`: "unix", or nothing. */
bool staging_check_system(const json_t *args, const char **ret_argument, GError **error);

/* The folder of `staging_directory`, else @otherwise (on the step's tmpfs where texts may be secret); it is made. */
bool staging_open(Staging *s, const char *who, const json_t *args, const ProvisionerHost *host, Guest *guest,
                  const char *otherwise, GError **error);
bool staging_close(Staging *s, GError **error);
void staging_clear(Staging *s);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Staging, staging_clear)

/* A path below the folder. */
char *staging_path(const Staging *s, const char *name);

/* The host's file @source as @name, or the content of the host's folder @source as the folder @name. */
bool staging_put(const Staging *s, const char *source, const char *name, GError **error);
/* What @argument names, if it is given. *ret_path (may be NULL): its path in the guest, "" without it. */
bool staging_put_argument(const Staging *s, const char *argument, const char *name, char **ret_path,
                          GError **error);
/* Each file or folder that @argument names, as NAME-0, NAME-1 ...; *ret_paths: their paths in the guest. */
bool staging_put_each(const Staging *s, const char *argument, const char *name, char ***ret_paths,
                      GError **error);
bool staging_put_text(const Staging *s, const char *text, const char *name, GError **error);

/* Inputs of arguments that hold names of files or folders, expanded. @names: NULL-terminated. */
bool staging_inputs(const char *who, const json_t *args, const char *const *names,
                    const ProvisionerHost *host, GPtrArray *inputs, GError **error);

/*
 * Runs a command line, in a shell that first looks whether @tool (NULL: nothing) is there: one that is not is an error that says
 * how it gets there, @package.
 */
bool staging_run(const Staging *s, const char *tool, const char *package, const char *command,
                 const char *const *env, int *ret_code, GError **error);

#endif
