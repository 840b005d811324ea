/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small conveniences over the guest port: bytes in memory instead of descriptors, plain questions instead of
 * stat.
 */
#ifndef KILN_PROVISIONER_GUEST_FILE_H
#define KILN_PROVISIONER_GUEST_FILE_H

#include "provisioner/guest.h"
#include "provisioner/host.h"

/* Writes @size bytes as a file of the guest. */
bool guest_put_bytes(Guest *guest, const char *path, const void *data, size_t size, const GuestFile *meta,
                     GError **error);

/* Reads a file; *ret is NULL when there is none. Beyond @max bytes it is an error. */
bool guest_get_bytes(Guest *guest, const char *path, size_t max, GBytes **ret, GError **error);

/* The type letter of GuestOps.stat, 0 when absent. */
bool guest_type(Guest *guest, const char *path, char *ret_type, GError **error);

/* The first of @paths (NULL-terminated) that exists, or NULL. */
bool guest_first(Guest *guest, const char *const *paths, const char **ret, GError **error);

/* /bin/sh -c @script @name @args...; @env is added to the step's own. */
bool guest_sh(Guest *guest, const ProvisionerHost *host, const char *script, const char *const *args,
              const char *const *env, int *ret_exit, GError **error);

#endif
