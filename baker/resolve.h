/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resolves a `packages` step on the host: which packages, in which versions, in which order; before any guest runs.
 *
 * What comes out is the *transaction*: canonical JSON that is the step's key material, its lock entry and its program. Equal
 * transactions do the same to equal guests, whenever and wherever they were resolved.
 *
 *   { "manager": "apt",
 *     "install": [ { "name", "version", "from" (installed version, absent: new), "architecture", "sha256", "size", "auto", "uri" } ],
 *     "remove":  [ { "name", "version", "purge" } ],
 *     "manual":  [ names that lose their mark as automatically installed ],
 *     "operations": [ [ "unpack", place in "install"... ] | [ "configure", name... ] | [ "remove", name... ] | [ "purge", name... ] ],
 *     "conffiles": "keep" | "new", "debconf": { ... },
 *     "growth": bytes that the root grows by, as apt estimates them }
 *
 * An empty transaction (no operation, nobody becomes manual) means that the step changes nothing. "uri" and "growth" are hints: a package is
 * what its SHA-256 says.
 *
 *   resolve_packages -> (key, plan, lock) -> resolve_fetch (only before a step really runs) -> provisioner with host->transaction
 *
 * The guest is hostile, see resolve.c for what is read from it and what is not.
 */
#ifndef KILN_BAKER_RESOLVE_H
#define KILN_BAKER_RESOLVE_H

#include "base/json.h"
#include "store/store.h"

typedef struct ResolveRequest {
    Store *store;
    const json_t *args;   /* of the packages step, checked */
    const Digest *map;    /* the working disk before the step ... */
    uint64_t root_offset, root_size; /* ... and the ext4 root in it */
    const Digest *content;/* content before the step: part of the memo's key */
    bool offline;         /* the last release files count; how old they are is said by log_info */
    int64_t fresh_since;  /* release files fetched at or after this time count as fresh; 0: ask again */
    const char *template_dir; /* where repository_keys are looked for */
    const json_t *locked; /* a transaction from a lock file: checked against the guest and used as it is; or NULL */
} ResolveRequest;

/*
 * *ret: the transaction (new reference), or NULL with true when this guest cannot be resolved on the host (no dpkg database, or not
 * ext4): the step then runs in the guest with network, as a volatile one. @ret_note: one line for people why that is so, may be NULL.
 */
bool resolve_packages(const ResolveRequest *request, json_t **ret, char **ret_note, GError **error);

bool resolve_is_empty(const json_t *transaction);

/* What a step's key holds of it: everything but the hints. */
void resolve_digest(const json_t *transaction, Digest *ret);

/* Whether the root has a package database that can be resolved on the host. Cheap when asked again. */
bool resolve_is_possible(const ResolveRequest *request, bool *ret, GError **error);

/* One line for people: "2 new, 1 upgraded (openssl 3.0.15 -> 3.0.16), 14.2 MB". */
char *resolve_summary(const json_t *transaction);

/* Removes the indexes of package sources that nobody has resolved with for @max_age seconds; *ret_count: how many of them. */
bool resolve_cache_trim(double max_age, bool dry_run, uint64_t *ret_count, GError **error);

/* Brings every package of @transaction into the store as a blob, verified by SHA-256. Errors name the package. */
bool resolve_fetch(const ResolveRequest *request, const json_t *transaction, GError **error);

#endif
