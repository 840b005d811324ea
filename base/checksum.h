/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums by the names that other programs call them, for files that other programs check. kiln itself names things by SHA-256 (digest.h).
 */
#ifndef KILN_BASE_CHECKSUM_H
#define KILN_BASE_CHECKSUM_H

#include <glib.h>
#include <stdbool.h>

/* "md5", "sha1", "sha224", "sha256", "sha384", "sha512", NULL. */
extern const char *const checksum_types[];

/* Reads @fd from its offset to the end. @type must be one of them. Lower-case hex. */
bool checksum_of_fd(int fd, const char *type, char **ret_hex, GError **error);

#endif
