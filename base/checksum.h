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

/* The same of bytes as they come: new, update..., final (once), free. Freeing early is fine. */
typedef struct ChecksumStream ChecksumStream;
bool checksum_stream_new(const char *type, ChecksumStream **ret, GError **error);
bool checksum_stream_update(ChecksumStream *stream, const void *data, size_t size, GError **error);
bool checksum_stream_final(ChecksumStream *stream, char **ret_hex, GError **error);
void checksum_stream_free(ChecksumStream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ChecksumStream, checksum_stream_free)

#endif
