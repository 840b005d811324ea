/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-512, for who names his blobs by it: kiln itself never does. Text is 128 lower-case hex digits.
 */
#ifndef KILN_BASE_DIGEST_WIDE_H
#define KILN_BASE_DIGEST_WIDE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#define DIGEST_WIDE_HEX_SIZE 129 /* with the final NUL */

/* Streaming as DigestStream: new, update..., final (once), free. */
typedef struct DigestWideStream DigestWideStream;
DigestWideStream *digest_wide_stream_new(void);
void digest_wide_stream_update(DigestWideStream *stream, const void *data, size_t size);
void digest_wide_stream_final(DigestWideStream *stream, char ret[DIGEST_WIDE_HEX_SIZE]);
void digest_wide_stream_free(DigestWideStream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DigestWideStream, digest_wide_stream_free)

/* Reads @fd from offset 0 to its end; the file offset is not touched. */
bool digest_wide_of_fd(int fd, char ret[DIGEST_WIDE_HEX_SIZE], GError **error);

#endif
