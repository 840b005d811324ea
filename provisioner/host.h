/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Port: what a provisioner may ask of the host. Implemented by baker.
 */
#ifndef KILN_PROVISIONER_HOST_H
#define KILN_PROVISIONER_HOST_H

#include "base/digest.h"
#include "base/json.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ProvisionerHost {
    const char *template_dir; /* relative paths start here ... */
    const char
        *cwd; /* ... unless the file exists only relative to the working directory, as Packer reads them */
    const char *build_name;   /* PACKER_BUILD_NAME */
    const char *builder_type; /* PACKER_BUILDER_TYPE */
    const char *const
        *env;      /* the step's base environment: SOURCE_DATE_EPOCH, TZ, LC_ALL, PYTHONHASHSEED, PACKER_* */
    int64_t epoch; /* SOURCE_DATE_EPOCH; mtime of uploaded files */
    bool network;  /* whether this step has it */
    int64_t deadline; /* g_get_monotonic_time() by which a step that runs on the host must have ended; 0: it has no limit */
    bool secret;   /* the step's texts may hold secrets: they belong on a tmpfs */
    /* Output of the step, line by line. */
    void (*say)(const char *line, bool is_stderr, void *arg);
    void *arg;
    /* Lets whoever sits at the terminal use a shell in the guest, until it ends. NULL: nobody does. */
    bool (*shell)(const char *why, void *arg, GError **error);
    /* Reads a file of the guest's last checkpoint without the guest; NULL content when absent. */
    bool (*read_tree)(const char *path, size_t max, GBytes **ret, void *arg, GError **error);
    /* What the host resolved for a `packages` step (baker/resolve.h draws it); NULL: the guest resolves itself. */
    const json_t *transaction;
    /* A blob of the store, opened for reading. NULL where there is no store. */
    bool (*open_blob)(const Digest *digest, int *ret_fd, void *arg, GError **error);
} ProvisionerHost;

#endif
