/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger: state.db written out as blobs, so that names, channel log, journals, holds, lineage, sets and signatures outlive it.
 *
 *     blob 1 <--previous-- blob 2 <--previous-- blob 3        STORE/ledger/head names all three
 *
 * A blob has the rows that came or changed since the one before, and how far it goes (`through`). state.db's commit is the truth; the
 * ledger follows when something was published, promoted, signed or removed, when a journal is closed, each minute while it is open, and
 * with the first look at state.db by a later process. So what it lacks is in state.db, whichever way a process ends.
 *
 *   1. blob (synced, by its final name) -> head (renamed over). A blob without a head is taken away by gc, or found by a rebuild.
 *   2. Only a blob that says `complete` can be a chain's end: several may be needed to go all the way.
 *   3. Small blobs are written together anew: a new blob's `previous` skips those at the end that hold no more than twice what is
 *      new. So a chain has a logarithm of blobs, and each row is written a logarithm of times.
 */
#ifndef KILN_STORE_LEDGER_H
#define KILN_STORE_LEDGER_H

#include "base/json.h"
#include "store/catalog.h"

#define LEDGER_BLOB_MAX (256u << 20)

/* How far a blob goes. Hashes: of the last entry and record, so that another state.db with equal numbers is seen. */
typedef struct LedgerThrough {
    int64_t channel_log, journal, signature, change;
    Digest channel_hash, journal_hash;
} LedgerThrough;

/* --- ledger.c: the chain --- */

/* Writes out what is not written yet. @durable: the head as well (it can be found again without). */
bool store_ledger_write(Store *store, bool durable, GError **error);
/* The same after a commit, whose success it can't change: a failure is a warning. Always true. */
bool store_ledger_follow(Store *store);
/* The same when it is more than a minute ago. */
bool store_ledger_follow_sometimes(Store *store);

/* Adds the chain's blobs to the temporary table `live` of reach.h. */
bool store_ledger_mark(Store *store, Database *catalog, GError **error);
/* Is the chain whole, and does state.db have all that it says? */
bool store_ledger_verify(Store *store, GPtrArray *problems, GError **error);

/*
 * Is the head what its blobs say? Before anybody looks at state.db, because a head that is torn, as by a power cut, is then written anew. @mend: one that
 * is wrong is written anew here, out of the blobs.
 */
bool store_ledger_check_head(Store *store, bool mend, GPtrArray *problems, GPtrArray *repairs, GError **error);

/* The newest whole chain there is, by looking at every blob: documents (json_t*), oldest first; empty when there is none. */
bool store_ledger_find(Store *store, GPtrArray **ret, GError **error);
/* After state.db was made anew, its numbers of changes are others: the next writing begins a new chain. */
bool store_ledger_forget_head(Store *store, GError **error);

/* --- ledger-rows.c: rows and JSON --- */

/* A piece of what is newer than @since: {"rows", "gone", "complete"}; @ret_through: how far it goes. In a transaction of state.db. */
bool ledger_collect(Database *state, const LedgerThrough *since, json_t **ret, LedgerThrough *ret_through, GError **error);
bool ledger_newest(Database *state, LedgerThrough *ret, GError **error);
/* Rows that @through says are there: false in *ret when they are not, or are others. */
bool ledger_has(Database *state, const LedgerThrough *through, bool *ret, GError **error);
json_t *ledger_through_json(const LedgerThrough *through);
bool ledger_through_parse(const json_t *json, LedgerThrough *ret);

/* Everything, as it is at one moment; array of documents as ledger_collect() gives them. */
bool ledger_collect_all(Database *state, GPtrArray **ret, GError **error);
/* In a transaction: puts rows and takes away gone ones. Nothing in the document is believed. */
bool ledger_apply(Database *state, const json_t *document, GError **error);
/*
 * In a transaction: makes state the same as the documents of ledger_collect_all() of another store. Refused when the logs here are not
 * the beginning of those there, or when there are sets here that did not come from there.
 */
bool ledger_mirror(Database *state, GPtrArray *documents, GError **error);

/* --- published.c: sets, so that a lost catalog has them again --- */

/* Makes `published` the same as the catalog's sets. In a transaction of state.db. */
bool published_follow(Database *catalog, Database *state, GError **error);
/* Whether there is anything to do for it: cheap. */
bool published_is_behind(Database *catalog, Database *state, bool *ret, GError **error);
/* Makes the catalog's sets the same as `published`; those that it does not have leave only with @forget. In a transaction of the catalog. */
bool published_restore(Store *store, Database *catalog, Database *state, bool forget, GError **error);
/* A set of the catalog as `published` has it; *ret is NULL when there is none. */
bool published_record(Database *catalog, int64_t bake, char **ret, GError **error);
/* Adds the blobs and maps that a record refers to (Digest*, owned) to @to. */
bool published_needs(const char *record, GHashTable *to, GError **error);

#endif
