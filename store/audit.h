/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit: channel log and journals as one list of what was done, oldest first.
 *
 * A row is an object: "what" (promote, revoke, rules, keep, release, rollout, verb), "from" and "to" (RFC 3339 in UTC; "to" null while it lasts: a channel
 * pointed there from..to, a rollout took from..to), "who" (the Unix user), "on_behalf_of", "reason"; by kind also
 *
 *   promote  name kind channel image from_image tests back
 *   revoke   name kind image stop
 *   rules    name channel rules
 *   keep     name kind image, and so does release
 *   rollout  group revision image from_revision from_image plan approver tests outcome cause
 *   verb     group verb arguments
 *
 * A rollout's outcome is "stable", "rolling back", "rolled back", "superseded" (another began before its end) or "running".
 * Of the journals it reads the records whose "do" is begin, stable, failed, returned or verb (deploy writes them).
 */
#ifndef KILN_STORE_AUDIT_H
#define KILN_STORE_AUDIT_H

#include "base/signature.h"
#include "store/image.h"

typedef struct StoreAuditFilter {
    int64_t since;        /* seconds since 1970: what began or ended then or later; 0: everything */
    const char *group;    /* only this group's rollouts and verbs; NULL: all, and channels */
    const GArray *images; /* of Digest: only rows that name one of them; NULL: all */
} StoreAuditFilter;

/* Array of rows. A journal record that cannot be read is an error: store_audit_verify() says which. */
bool store_audit(Store *store, const StoreAuditFilter *filter, json_t **ret, GError **error);

/* All chains and signed heads; @key may be NULL. *ret_heads: how many signatures of @key's were checked. */
bool store_audit_verify(Store *store, const SignatureKey *key, GPtrArray *problems, unsigned *ret_heads, GError **error);

#endif
