/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signatures kept in state.db, by Ed25519 keys (base/signature.h).
 *
 * An image's signature covers its ID. A *head's* covers the number and hash of a log's newest record, and so everything that the log
 * says up to there: a chain shows what was changed in the middle, a signed head shows that the end was cut off or written
 * anew. Logs are "channels" (the channel log) and "group/NAME" (a group's journal).
 *
 * Who may write state.db can also take the newest signatures away. Against that, keep what store_sign_heads() returns elsewhere.
 */
#ifndef KILN_STORE_SIGNATURE_H
#define KILN_STORE_SIGNATURE_H

#include "base/signature.h"
#include "store/image.h"

typedef struct StoreSignature {
    int64_t number, at; /* seconds since 1970 */
    char *log;          /* "image", "channels" or "group/NAME" */
    int64_t entry;      /* number of the record; 0 for images */
    Digest digest;      /* image ID, or the record's hash */
    Digest key;         /* ID of the key */
    char *signature;    /* base64 */
    char *who;          /* Unix user */
} StoreSignature;
void store_signature_free(StoreSignature *signature);

/* Signing the same with the same key again is not kept again. */
bool store_sign_images(Store *store, GPtrArray *images, const SignatureKey *key, GError **error);

/* Signs the newest record of the channel log and of every group's journal, where @key has not yet. *ret (may be NULL): all
   heads as they are now, array of StoreSignature*. */
bool store_sign_heads(Store *store, const SignatureKey *key, GPtrArray **ret, GError **error);

/* Those of @image, or (NULL) of heads; oldest first, array of StoreSignature*. Not checked. */
bool store_signatures(Store *store, const Digest *image, GPtrArray **ret, GError **error);

/* Images' signatures as they travel with images: {"at", "image", "key", "kiln": "image signature 1", "signature", "who"}. */
json_t *store_signature_to_json(const StoreSignature *signature);
/* Keeps one that came with @image, as it is: whether its key is one to trust is for who verifies to say. *ret_new may be NULL. */
bool store_signature_take(Store *store, const Digest *image, const json_t *document, bool *ret_new, GError **error);

/* Was @signature made by @key over just what it says, time and user among it? */
bool store_signature_check(const StoreSignature *signature, const SignatureKey *key);

/*
 * Is every record that a head names still there, with the hash that was signed? @key (may be NULL) checks its own
 * signatures, too; *ret_checked counts them. Problems are sentences in @problems.
 */
bool store_heads_verify(Store *store, const SignatureKey *key, GPtrArray *problems, unsigned *ret_checked, GError **error);

#endif
