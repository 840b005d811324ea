/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Garbage collection: forgets what the caches hold beyond their limits, and removes segments and blobs that nothing reaches.
 *
 * It runs beside writers, in two catalog transactions. The first raises the generation, marks what is reachable and gives
 * the rest the new generation as its mark of death: from its commit on no writer is offered that. Then the leases are read. The second
 * marks again, because sets may have been published meanwhile, and removes what is dead, older than the grace
 * period, and no younger than the oldest lease alive (store/lease.c says why). Files go before the commit, as a name may only come and
 * go under the catalog's write lock; when we are killed in between, dead rows remain without a file, and the next run takes them away.
 *
 * A segment that is reached for a single block stays; what it could give back is repack.c's business, which comes last.
 */
#include "store/upkeep.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/image-private.h"
#include "store/io.h"
#include "store/layer-cache.h"
#include "store/ledger.h"
#include "store/reach.h"
#include "store/repack.h"
#include "store/segment-moved.h"
#include "store/serve-rows.h"
#include "store/store-private.h"

#define DEFAULT_GRACE 3600.0
#define DEFAULT_QUOTA (20ull << 30)
#define DEFAULT_REWRITE (256u << 20)

typedef struct Gc {
    Store *store;
    Database *db;
    const StoreGcOptions *options;
    StoreGcReport *report;
    int64_t generation, oldest_lease, young; /* created at or after @young stays */
} Gc;

/* --- what is kept by age --- */

static bool drop_memos(Gc *gc, GError **error, const char *sql, const char *from, const char *to, int64_t limit)
{
    if (!database_run(gc->db, error, sql, "tti", from, to, limit))
        return false;
    gc->report->memos_removed += (uint64_t)database_changes(gc->db);
    return true;
}

/* --- the bake cache --- */

static bool private_bytes(Gc *gc, int64_t *ret, GError **error)
{
    return reach_mark(gc->db, true, error) && store_ledger_mark(gc->store, gc->db, error) &&
           database_int(gc->db, 0, ret, error,
                        "SELECT coalesce(sum(size), 0) FROM segment WHERE class = 0 AND digest IN (SELECT digest FROM live_segment)", "");
}

/* Least recently used first; ten at a time, because marking costs more than a few states too many. */
static bool keep_quota(Gc *gc, GError **error)
{
    uint64_t quota = gc->options->state_quota ? gc->options->state_quota : DEFAULT_QUOTA;
    int64_t bytes, states;

    for (;;) {
        if (!private_bytes(gc, &bytes, error) || !database_int(gc->db, 0, &states, error, "SELECT count(*) FROM state", ""))
            return false;
        if ((uint64_t)bytes <= quota || states == 0)
            return true;
        if (!database_run(gc->db, error,
                          "DELETE FROM state WHERE key IN (SELECT key FROM state ORDER BY used, created LIMIT ?1)", "i",
                          MAX(states / 10, (int64_t)1)))
            return false;
    }
}

/* --- memos --- */

/* The sum over a memo and all that were asked for later: those with which it passes the quota go. */
static bool keep_memo_rule(Gc *gc, const StoreMemoRule *rule, GError **error)
{
    g_autofree char *end = memo_prefix_end(rule->prefix);
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;

    if (rule->max_age > 0 && !drop_memos(gc, error, "DELETE FROM memo WHERE key >= ?1 AND key < ?2 AND used < ?3", rule->prefix, end,
                                         now - (int64_t)rule->max_age))
        return false;
    return rule->quota == 0 ||
           drop_memos(gc, error,
                      "DELETE FROM memo WHERE key IN (SELECT key FROM (SELECT memo.key AS key,"
                      " sum(blob.stored) OVER (ORDER BY memo.used DESC, memo.key) AS bytes FROM memo JOIN blob ON blob.digest = memo.blob"
                      " WHERE memo.key >= ?1 AND memo.key < ?2) WHERE bytes > ?3)",
                      rule->prefix, end, (int64_t)MIN(rule->quota, (uint64_t)G_MAXINT64));
}

static bool keep_memo_rules(Gc *gc, GError **error)
{
    for (size_t i = 0; i < gc->options->memo_rule_count; i++)
        if (!keep_memo_rule(gc, &gc->options->memo_rules[i], error))
            return false;
    return true;
}

static bool drop_expired(Gc *gc, GError **error)
{
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;

    /* What was pushed and no manifest came for. */
    if (!drop_memos(gc, error, "DELETE FROM memo WHERE key >= ?1 AND key < ?2 AND used < ?3", SERVE_LINK_PREFIX, SERVE_LINK_END, now - SERVE_LINK_AGE))
        return false;
    if (!keep_memo_rule(gc, &(StoreMemoRule){SERVE_DISK_PREFIX, SERVE_DISK_AGE, SERVE_DISK_QUOTA}, error))
        return false;
    if (gc->options->drop_states)
        return database_run(gc->db, error, "DELETE FROM state", "");
    return database_run(gc->db, error, "DELETE FROM state WHERE expires != 0 AND expires <= ?1", "i", now);
}

/* --- marking --- */

static bool revive(Gc *gc, GError **error)
{
    return database_run(gc->db, error, "UPDATE segment SET dead = 0 WHERE dead != 0 AND digest IN (SELECT digest FROM live_segment)", "") &&
           database_run(gc->db, error, "UPDATE blob SET dead = 0 WHERE dead != 0 AND digest IN (SELECT digest FROM live)", "");
}

static bool mark_dead(Gc *gc, GError **error)
{
    return revive(gc, error) &&
           database_run(gc->db, error, "UPDATE segment SET dead = ?1 WHERE dead = 0 AND digest NOT IN (SELECT digest FROM live_segment)", "i",
                        gc->generation) &&
           database_run(gc->db, error, "UPDATE blob SET dead = ?1 WHERE dead = 0 AND digest NOT IN (SELECT digest FROM live)", "i",
                        gc->generation);
}

/* --- sweeping --- */

typedef struct Doomed {
    Digest digest;
    uint64_t bytes;
} Doomed;

/* dead <= oldest lease: everybody alive came after the mark (a lease taken at the mark's own generation has seen it). */
static bool list_doomed(Gc *gc, const char *sql, GArray **ret, GError **error)
{
    g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(Doomed));
    g_autoptr(Query) query = database_query(gc->db, error, sql, "ii", gc->young, gc->oldest_lease);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        Doomed doomed;

        query_digest(query, 0, &doomed.digest);
        doomed.bytes = (uint64_t)query_int(query, 1);
        g_array_append_val(list, doomed);
    }
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&list);
    return true;
}

static bool remove_segment(Gc *gc, const Doomed *doomed, GError **error)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(gc->store->segments_fd, &doomed->digest, false, name);

    if (dir >= 0 && io_unlink(dir, name, 0) < 0 && errno != ENOENT)
        return store_fail_errno(gc->store, error, "remove a segment of");
    segment_forget(gc->store, &doomed->digest);
    return segment_moved_remove(gc->store, &doomed->digest, error) && /* of a repacking that was killed */
           catalog_remove_segment(gc->db, &doomed->digest, error);
}

/* What a map referred to may be needed less now. */
static bool suspect_segments(Gc *gc, const Digest *map, GError **error)
{
    return database_run(gc->db, error,
                        "UPDATE segment SET suspect = 1 WHERE digest IN (SELECT segment FROM map_segment WHERE map = ?1 UNION ALL"
                        " SELECT target FROM moved WHERE segment IN (SELECT segment FROM map_segment WHERE map = ?1))",
                        "d", map);
}

static bool remove_blob(Gc *gc, const Doomed *doomed, GError **error)
{
    return blob_file_remove(gc->store, &doomed->digest, error) && suspect_segments(gc, &doomed->digest, error) &&
           database_run(gc->db, error, "DELETE FROM blob WHERE digest = ?1", "d", &doomed->digest) &&
           database_run(gc->db, error, "DELETE FROM map WHERE digest = ?1", "d", &doomed->digest) &&
           database_run(gc->db, error, "DELETE FROM map_segment WHERE map = ?1", "d", &doomed->digest) &&
           database_run(gc->db, error, "DELETE FROM recipe WHERE recipe = ?1", "d", &doomed->digest);
}

static bool sweep_list(Gc *gc, const char *sql, bool (*remove)(Gc *, const Doomed *, GError **), uint64_t *count, GError **error)
{
    g_autoptr(GArray) list = NULL;

    if (!list_doomed(gc, sql, &list, error))
        return false;
    for (guint i = 0; i < list->len; i++) {
        const Doomed *doomed = &g_array_index(list, Doomed, i);

        if (!gc->options->dry_run && !remove(gc, doomed, error))
            return false;
        gc->report->bytes_freed += doomed->bytes;
        (*count)++;
    }
    return true;
}

/* Names of repacked segments that no map says any more. */
static bool sweep_moved(Gc *gc, GError **error)
{
    g_autoptr(GArray) list = NULL;

    if (gc->options->dry_run)
        return true;
    if (!catalog_digests(gc->db, &list, error, "SELECT DISTINCT segment FROM moved WHERE segment NOT IN (SELECT segment FROM map_segment)", NULL))
        return false;
    for (guint i = 0; i < list->len; i++) {
        const Digest *digest = &g_array_index(list, Digest, i);

        if (!segment_moved_remove(gc->store, digest, error) || !database_run(gc->db, error, "DELETE FROM moved WHERE segment = ?1", "d", digest))
            return false;
        segment_forget(gc->store, digest);
    }
    return true;
}

static bool sweep(Gc *gc, GError **error)
{
    return sweep_list(gc, "SELECT digest, size FROM segment WHERE dead != 0 AND created < ?1 AND dead <= ?2", remove_segment,
                      &gc->report->segments_removed, error) &&
           sweep_list(gc, "SELECT digest, stored FROM blob WHERE dead != 0 AND created < ?1 AND dead <= ?2", remove_blob,
                      &gc->report->blobs_removed, error) &&
           sweep_moved(gc, error);
}

static bool mark(Gc *gc, GError **error)
{
    return drop_expired(gc, error) && keep_memo_rules(gc, error) && keep_quota(gc, error) && catalog_bump_generation(gc->db, &gc->generation, error) &&
           mark_dead(gc, error);
}

static bool revive_and_sweep(Gc *gc, GError **error)
{
    return reach_mark(gc->db, true, error) && store_ledger_mark(gc->store, gc->db, error) && revive(gc, error) && sweep(gc, error);
}

static bool in_transaction(Gc *gc, bool (*step)(Gc *, GError **), GError **error)
{
    if (!database_begin(gc->db, true, error))
        return false;
    if (!step(gc, error)) {
        database_rollback(gc->db);
        return false;
    }
    return database_commit(gc->db, error);
}

/* Says what would be done; even the marks are taken back. */
static bool rehearse(Gc *gc, GError **error)
{
    bool ok;

    if (!database_begin(gc->db, false, error))
        return false;
    ok = mark(gc, error) && store_oldest_lease(gc->store, &gc->oldest_lease, error) && sweep(gc, error);
    database_rollback(gc->db);
    return ok;
}

/* It reads what is stored and needs room to write. A store that is damaged or full is collected all the same. */
static bool repack(Gc *gc, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (store_repack(gc->store, gc->young, gc->options->rewrite_budget ? gc->options->rewrite_budget : DEFAULT_REWRITE, gc->report, &why))
        return true;
    if (why->code == KILN_ERROR_INTERRUPTED) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    gc->report->repack_failed = true;
    log_warning("segments that are partly needed were not repacked: %s", why->message);
    return true;
}

static bool collect(Gc *gc, GError **error)
{
    /* The leases after the first commit: one that is not there yet will read the new generation and see the marks. */
    return in_transaction(gc, mark, error) && store_oldest_lease(gc->store, &gc->oldest_lease, error) &&
           in_transaction(gc, revive_and_sweep, error) && repack(gc, error);
}

/* Layers of images that are there; with the bake cache, this one goes whole. */
static bool layer_is_wanted(const Digest *blob, void *arg)
{
    const Gc *gc = arg;
    int64_t count;

    return !gc->options->drop_states &&
           (!database_int(gc->db, 0, &count, NULL, "SELECT count(*) FROM recipe WHERE layer = ?1", "d", blob) || count > 0);
}

static int64_t young_limit(const StoreGcOptions *options)
{
    double grace = options->grace < 0 ? DEFAULT_GRACE : options->grace;

    return grace == 0 ? G_MAXINT64 : g_get_real_time() - (int64_t)(grace * G_USEC_PER_SEC);
}

bool store_gc(Store *store, const StoreGcOptions *options, StoreGcReport *ret, GError **error)
{
    StoreGcReport report = { 0 };
    Gc gc = { .store = store, .options = options, .report = &report, .young = young_limit(options) };

    if (!store_writable(store, error) || !store_catalog(store, &gc.db, error) || !store_clear_dead_owners(store, NULL, error))
        return false;
    /* Afterwards the ledger's head names what is needed, and outlives what was needed before. Without a state.db nothing is collected. */
    if (!options->dry_run && !store_ledger_write(store, true, error))
        return false;
    /* What this store object committed and did not publish until now is given up by asking for a collection. */
    store_lease_release(g_steal_pointer(&store->lease));
    if (!(options->dry_run ? rehearse(&gc, error) : collect(&gc, error)))
        return false;
    if (!options->dry_run)
        report.bytes_freed += layer_cache_trim(store, layer_is_wanted, &gc);
    *ret = report;
    return true;
}
