/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ed25519 signatures (RFC 8032) with keys in PEM files, through OpenSSL's EVP: what `openssl genpkey -algorithm ed25519` and
 * `openssl pkey -pubout` write.
 *
 * A key's ID is the SHA-256 of its public half in DER (SubjectPublicKeyInfo).
 */
#ifndef KILN_BASE_SIGNATURE_H
#define KILN_BASE_SIGNATURE_H

#include "base/digest.h"

#define SIGNATURE_SIZE 64

typedef struct SignatureKey SignatureKey;
void signature_key_free(SignatureKey *key);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SignatureKey, signature_key_free)

/* A new key in @path (0600) and its public half in @path.pub (0644). Neither file may exist. */
bool signature_generate(const char *path, GError **error);

/* A private key. Refused: a file that group or others can read, another kind of key, one with a passphrase. */
bool signature_load(const char *path, SignatureKey **ret, GError **error);
/* The public half: of a public key's file, or of a private one's. */
bool signature_load_public(const char *path, SignatureKey **ret, GError **error);

void signature_key_id(const SignatureKey *key, Digest *ret);

/* With a private key only. */
bool signature_sign(const SignatureKey *key, const void *data, size_t size, uint8_t ret[SIGNATURE_SIZE], GError **error);
bool signature_verify(const SignatureKey *key, const void *data, size_t size, const uint8_t *signature, size_t signature_size);

#endif
