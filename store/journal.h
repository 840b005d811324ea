/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Journals: what happened to a group, as a hash-chained list of JSON records that is only added to (state.db, synchronous FULL).
 *
 *   store_journal_open -> (store_journal_append)* -> store_journal_close
 *
 * One writer per group: the journal's lock is held from open to close, by the kernel, so a dead holder loses it with its process
 * and a live one is never overtaken. Each open raises the journal's epoch by one; a record carries the epoch it was written in, and an
 * append under an epoch that is no longer the highest is refused (a copied store, a lock on a file system without locks).
 *
 * Readers need no lock: store_journal_read() sees whole transactions.
 */
#ifndef KILN_STORE_JOURNAL_H
#define KILN_STORE_JOURNAL_H

#include "base/json.h"
#include "store/pool.h"

typedef struct StoreJournal StoreJournal;

/*
 * Group names: [a-z][a-z0-9-]*, at most 48. A live holder is KILN_ERROR_FAILED naming its process id. With @wait the call waits
 * for it, until the user interrupts.
 */
bool store_journal_open(Store *store, const char *group, bool wait, StoreJournal **ret, GError **error);
void store_journal_close(StoreJournal *journal);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(StoreJournal, store_journal_close)
int64_t store_journal_epoch(const StoreJournal *journal);
const char *store_journal_group(const StoreJournal *journal);
Store *store_journal_store(const StoreJournal *journal);

/*
 * All of @records (json_t*, objects, borrowed) in one transaction that is durable on return. @holds: image IDs (Digest) that the
 * group needs from now on, instead of those before: gc, rm and prune leave them alone; NULL: unchanged.
 */
bool store_journal_append(StoreJournal *journal, GPtrArray *records, const GArray *holds, GError **error);

typedef struct StoreJournalRecord {
    int64_t number;     /* within the store, rising; not dense per group */
    int64_t at;         /* microseconds since 1970 */
    int64_t epoch;
    char *group, *who;  /* Unix user */
    json_t *record;
    Digest previous, hash; /* previous: of the same group's record before; hash covers everything above and it */
} StoreJournalRecord;

/* Of @group (NULL: all), numbers above @after, oldest first; array of StoreJournalRecord*. */
bool store_journal_read(Store *store, const char *group, int64_t after, GPtrArray **ret, GError **error);

/* Groups that have a journal, sorted; array of char*. */
bool store_journal_groups(Store *store, GPtrArray **ret, GError **error);

/* Process id of who holds @group's lock at this moment, 0 for nobody. */
bool store_journal_holder(Store *store, const char *group, int64_t *ret_pid, GError **error);

/*
 * Letters to the holder of a group's lock, from whoever cannot have it: asked by any process, taken and answered by the holder,
 * which first appends what it makes of them. A letter nobody takes stays; the next holder finds it.
 */
typedef struct StoreJournalRequest {
    int64_t number, at;
    char *who;       /* Unix user */
    json_t *request; /* an object */
} StoreJournalRequest;
bool store_journal_ask(Store *store, const char *group, const json_t *request, int64_t *ret_number, GError **error);
bool store_journal_asked(StoreJournal *journal, GPtrArray **ret /* of StoreJournalRequest* */, GError **error);
bool store_journal_answered(StoreJournal *journal, int64_t number, GError **error);
/* Whether the letter still waits. */
bool store_journal_is_waiting(Store *store, int64_t number, bool *ret, GError **error);
bool store_journal_take_back(Store *store, int64_t number, GError **error);

/* Which groups hold @image; array of char*. */
bool store_journal_holders(Store *store, const Digest *image, GPtrArray **ret, GError **error);

/* All that any group holds; Digest, to free with g_array_unref. */
bool store_journal_all_holds(Store *store, GArray **ret, GError **error);

/* Every chain, whole; a broken link is one sentence in @problems. */
bool store_journals_verify(Store *store, GPtrArray *problems, GError **error);

#endif
