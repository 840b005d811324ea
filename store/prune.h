/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prune: which sets keep their bytes, by rules per name.
 *
 * A set stays when a rule keeps it or when something holds one of its images: it is the newest of its name, a channel points at it or goes
 * back to it, a group runs it or may go back to it, somebody said kiln keep. The kinds of a set stay or go together.
 *
 * What goes is bytes: map, tree and layers are let go, and the next gc frees what nothing else needs (leases hold it until then). What
 * stays is the record: config, manifest, provenance, lock and small inputs, lineage, channel log and journals.
 */
#ifndef KILN_STORE_PRUNE_H
#define KILN_STORE_PRUNE_H

#include "store/image.h"

/*
 * How many sets of a name stay: the newest @last; and of the last @daily days (weeks, months) that have one, the newest of each, in local
 * time. Negative: no such rule. With no rule at all only what is held stays.
 */
typedef struct StoreRetention {
    int64_t last, daily, weekly, monthly;
} StoreRetention;

typedef struct StorePruneVerdict {
    StoreImage *image;
    bool stays;
    char *why; /* a phrase */
} StorePruneVerdict;
void store_prune_verdict_free(StorePruneVerdict *verdict);

/*
 * Judges all sets that have bytes, of @name or with NULL of every name, and lets go in one transaction of what does not stay; @dry_run only judges.
 * @ret: array of StorePruneVerdict*, by name, newest first. A name that has no set is an error.
 */
bool store_prune(Store *store, const char *name, const StoreRetention *rules, bool dry_run, GPtrArray **ret, GError **error);

#endif
