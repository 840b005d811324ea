/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 (FIPS 180-4) through OpenSSL's EVP, which uses SHA-NI where it is.
 * The door to libcrypto's hashes. A Digest is 32 raw bytes; text is lower-case
 * hex, 64 digits, and the OCI form is "sha256:" + hex.
 */
#ifndef KILN_BASE_DIGEST_H
#define KILN_BASE_DIGEST_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DIGEST_SIZE 32
#define DIGEST_HEX_SIZE 65 /* with the final NUL */
#define DIGEST_OCI_SIZE 72 /* "sha256:" + hex + NUL */

typedef struct Digest {
    uint8_t bytes[DIGEST_SIZE];
} Digest;

/* All zero: "no digest" in optional fields, and a hole where blocks are listed. */
extern const Digest digest_none;

static inline bool digest_equal(const Digest *a, const Digest *b)
{
    return memcmp(a->bytes, b->bytes, DIGEST_SIZE) == 0;
}
static inline bool digest_is_none(const Digest *d)
{
    return digest_equal(d, &digest_none);
}

void digest_of(const void *data, size_t size, Digest *ret);
void digest_of_string(const char *text, Digest *ret);

/* Streaming: new, update..., final (once), free. Freeing early is fine. */
typedef struct DigestStream DigestStream;
DigestStream *digest_stream_new(void);
void digest_stream_update(DigestStream *stream, const void *data, size_t size);
void digest_stream_final(DigestStream *stream, Digest *ret);
void digest_stream_free(DigestStream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DigestStream, digest_stream_free)

/* Reads @fd from @offset 0 to its end with pread; the file offset is not touched. */
bool digest_of_fd(int fd, Digest *ret, GError **error);

/* Hashes a file (dirfd, name) and reports its size. */
bool digest_of_file(int dirfd, const char *name, Digest *ret, uint64_t *ret_size, GError **error);

const char *digest_to_hex(const Digest *digest, char hex[DIGEST_HEX_SIZE]); /* returns @hex */
const char *digest_to_oci(const Digest *digest, char oci[DIGEST_OCI_SIZE]); /* returns @oci */

/* Exactly 64 hex digits, with or without "sha256:" in front; nothing else. */
bool digest_parse(const char *text, Digest *ret);

/* GHashTable functions for keys of type Digest*. */
guint digest_hash(gconstpointer digest);
gboolean digest_equal_gfunc(gconstpointer a, gconstpointer b);

/*
 * UUIDv5 (RFC 4122) of "@name/@role" in kiln's own name space, so that a disk
 * keeps its identities over nights. @ret gets 16 bytes in network order.
 */
void digest_uuid5(const char *name, const char *role, uint8_t ret[16]);

/* 16 bytes in network order as a UUID is written, with its NUL. */
#define DIGEST_UUID_SIZE 37
void digest_uuid_text(const uint8_t uuid[16], char ret[DIGEST_UUID_SIZE]);

#endif
