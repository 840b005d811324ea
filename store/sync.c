/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying a store: files by name, then sets, then state.db, as sync.h says.
 *
 * The lease on the source is taken before its state is read: a set that is removed there afterwards keeps its bytes until we are done, because
 * gc takes nothing that died after the oldest lease. The lease on the target keeps files that no set refers to yet.
 *
 *   1. source: lease, ledger; state as documents, at one moment
 *   2. target: may it become that? (tried and taken back)
 *   3. files that the sets need and the target lacks: tmp, verified, synced, named in batches under the target's catalog lock. Of a segment that
 *      the source repacked, those where its blocks are now; its table (segment-moved.h) comes in the transaction of the first map that needs it,
 *      joined with the one that the target may have by its own repacking
 *   4. target: new sets in the catalog; state.db; sets that are gone leave the catalog
 *
 * A gc that began before the lease may still repack segments of the source under our eyes. A map is therefore named only when the target has each
 * of its blocks, and what could not be named is looked at anew.
 */
#include "store/sync.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/arrival.h"
#include "store/io.h"
#include "store/ledger.h"
#include "store/recovery.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/stat.h>

#define BATCH 64
#define COPY_PIECE (1u << 20)
#define ROUNDS 8

typedef struct Sync {
    Store *from, *to;
    Database *from_catalog, *to_catalog, *to_state;
    GPtrArray *documents;
    GArray *segments, *blobs; /* of Digest: what is to be copied */
    GHashTable *present;      /* Digest*: segments that the target has */
    GHashTable *tables;       /* Digest* of a segment -> SegmentMoved* of the source, for the target to have */
    guint left;               /* maps that could not be named */
    Progress *progress;
    StoreSyncReport report;
} Sync;

/* --- what is needed --- */

static bool needs_of_document(const json_t *document, GHashTable *blobs, GError **error)
{
    json_t *row;
    size_t i;

    json_array_foreach(json_object_get(json_object_get(document, "rows"), "published"), i, row)
        if (!published_needs(json_string_value(json_array_get(row, 2)), blobs, error))
            return false;
    return true;
}

static bool segments_of(Sync *s, const Digest *map, GArray **ret, GError **error)
{
    return catalog_digests(s->from_catalog, ret, error, "SELECT segment FROM map_segment WHERE map = ?1", map);
}

/* --- what is there --- */

/* What the target has becomes young again there, so that no gc of it takes it before its sets have come. */
static bool keep_segment(Sync *s, const Digest *digest, bool *ret_there, GError **error)
{
    if (!segment_keep(s->to, s->to_catalog, digest, ret_there, error))
        return false;
    if (*ret_there && !g_hash_table_contains(s->present, digest))
        g_hash_table_add(s->present, g_memdup2(digest, sizeof(*digest)));
    return true;
}

/* Under its own name, or (*ret_moved) where the target's table says. */
static bool keep_name(Sync *s, const Digest *name, bool *ret_there, bool *ret_moved, GError **error)
{
    g_autoptr(GArray) targets = NULL;
    bool there;

    if (!keep_segment(s, name, ret_there, error) ||
        !catalog_digests(s->to_catalog, &targets, error, "SELECT target FROM moved WHERE segment = ?1", name))
        return false;
    for (guint i = 0; i < targets->len; i++)
        if (!keep_segment(s, &g_array_index(targets, Digest, i), &there, error))
            return false;
    *ret_moved = !*ret_there && targets->len > 0;
    return true;
}

/* Rows say which files are there; into tables we look. */
static bool has_blocks_of(Sync *s, const Digest *map, const GArray *names, bool *ret, GError **error)
{
    g_autoptr(StoreMap) opened = NULL;
    bool there, moved, any_moved = false;

    *ret = false;
    for (guint i = 0; i < names->len; i++) {
        if (!keep_name(s, &g_array_index(names, Digest, i), &there, &moved, error))
            return false;
        if (!there && !moved)
            return true;
        any_moved = any_moved || moved;
    }
    *ret = !any_moved || (store_map_open(s->from, map, &opened, NULL) && store_has_blocks(s->to, store_map_body(opened)));
    return true;
}

/* Names that the target has no file of. */
static bool add_lacking(Sync *s, const GArray *names, GHashTable *lacking, GError **error)
{
    for (guint i = 0; i < names->len; i++) {
        const Digest *name = &g_array_index(names, Digest, i);
        bool there;

        if (!keep_segment(s, name, &there, error))
            return false;
        if (!there)
            g_hash_table_add(lacking, g_memdup2(name, sizeof(*name)));
    }
    return true;
}

static bool look_at_blob(Sync *s, const Digest *blob, GHashTable *lacking, GError **error)
{
    g_autoptr(GArray) names = NULL;
    bool there, has;

    if (!database_run(s->to_catalog, error, "UPDATE blob SET created = ?1, dead = 0 WHERE digest = ?2", "id", g_get_real_time(), blob))
        return false;
    there = database_changes(s->to_catalog) > 0;
    if (!segments_of(s, blob, &names, error) || !has_blocks_of(s, blob, names, &has, error))
        return false;
    if (there && has)
        s->report.present++;
    else
        g_array_append_vals(s->blobs, blob, 1);
    return has || add_lacking(s, names, lacking, error);
}

static bool find_lacking(Sync *s, GHashTable *blobs, GHashTable *lacking, GError **error)
{
    GHashTableIter iter;
    gpointer blob;

    if (!database_begin(s->to_catalog, false, error))
        return false;
    g_hash_table_iter_init(&iter, blobs);
    while (g_hash_table_iter_next(&iter, &blob, NULL))
        if (!look_at_blob(s, blob, lacking, error)) {
            database_rollback(s->to_catalog);
            return false;
        }
    return database_commit(s->to_catalog, error);
}

/* --- where it is in the source --- */

static bool has_file(Store *store, const Digest *segment)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(store->segments_fd, segment, false, name);

    return dir >= 0 && faccessat(dir, name, F_OK, 0) == 0;
}

static bool add_targets(Sync *s, const SegmentMoved *moved, GHashTable *files, GError **error)
{
    for (guint i = 0; i < moved->body->segments->len; i++) {
        const Digest *target = &g_array_index(moved->body->segments, Digest, i);
        bool there;

        if (!keep_segment(s, target, &there, error))
            return false;
        if (!there)
            g_hash_table_add(files, g_memdup2(target, sizeof(*target)));
    }
    return true;
}

/* Of a segment that has no file, its table, and the segments where that leads. One that has neither is told of when its map can't be named. */
static bool find_one(Sync *s, const Digest *segment, GHashTable *files, GError **error)
{
    SegmentMoved *moved = NULL;

    if (has_file(s->from, segment)) {
        g_hash_table_add(files, g_memdup2(segment, sizeof(*segment)));
        return true;
    }
    if (!segment_moved_load(s->from, segment, &moved, error))
        return false;
    if (moved)
        g_hash_table_insert(s->tables, g_memdup2(segment, sizeof(*segment)), moved);
    return !moved || add_targets(s, moved, files, error);
}

static bool find_files(Sync *s, GHashTable *lacking, GError **error)
{
    g_autoptr(GHashTable) files = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    GHashTableIter iter;
    gpointer segment;

    if (!database_begin(s->to_catalog, false, error))
        return false;
    g_hash_table_iter_init(&iter, lacking);
    while (g_hash_table_iter_next(&iter, &segment, NULL))
        if (!find_one(s, segment, files, error)) {
            database_rollback(s->to_catalog);
            return false;
        }
    g_hash_table_iter_init(&iter, files);
    while (g_hash_table_iter_next(&iter, &segment, NULL))
        g_array_append_vals(s->segments, segment, 1);
    return database_commit(s->to_catalog, error);
}

static void start_round(Sync *s)
{
    g_array_set_size(s->segments, 0);
    g_array_set_size(s->blobs, 0);
    g_hash_table_remove_all(s->tables);
    g_hash_table_remove_all(s->present);
    s->report.present = s->left = 0;
}

static bool find_needed(Sync *s, GError **error)
{
    g_autoptr(GHashTable) lacking = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    g_autoptr(GHashTable) blobs = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);

    start_round(s);
    for (guint i = 0; i < s->documents->len; i++)
        if (!needs_of_document(s->documents->pdata[i], blobs, error))
            return false;
    if (!find_lacking(s, blobs, lacking, error) || !find_files(s, lacking, error))
        return false;
    s->report.present += g_hash_table_size(s->present);
    return true;
}

static bool sum_bytes(Sync *s, const char *sql, GArray *list, uint64_t *sum, GError **error)
{
    for (guint i = 0; i < list->len; i++) {
        int64_t size;

        if (!database_int(s->from_catalog, 0, &size, error, sql, "d", &g_array_index(list, Digest, i)))
            return false;
        *sum += (uint64_t)MAX(size, 0);
    }
    return true;
}

/* --- segments --- */

static bool copy_verified(Sync *s, int from, int to, const Digest *digest, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    g_autofree uint8_t *buf = g_malloc(COPY_PIECE);
    char hex[DIGEST_HEX_SIZE];
    uint64_t at = 0;
    Digest have;
    size_t n;

    for (;; at += n) {
        if (!interrupt_check(error) || !file_read_upto(from, buf, COPY_PIECE, &n, "a segment", error))
            return false;
        if (n == 0)
            break;
        digest_stream_update(stream, buf, n);
        if (!io_pwrite_full(to, buf, n, at))
            return store_fail_errno(s->to, error, "write a segment to");
        progress_add(s->progress, n);
    }
    s->report.bytes += at;
    digest_stream_final(stream, &have);
    if (!digest_equal(&have, digest))
        return fail(error, "segment %s of store '%s' is damaged; nothing of it was taken over: run kiln fsck --read-data", digest_to_hex(digest, hex),
                    s->from->path);
    return true;
}

/* ret->name stays NULL when the file has gone since: its map will not be named. */
static bool stage_segment(Sync *s, const Digest *digest, StagedSegment *ret, GError **error)
{
    auto_fd int from = segment_open_file(s->from, digest);

    if (from < 0)
        return errno == ENOENT || store_fail_errno(s->from, error, "open a segment of");
    return segment_stage(s->to, digest, ret, error) && copy_verified(s, from, ret->fd, digest, error) && segment_stage_sync(s->to, ret, error);
}

static bool name_segment(Sync *s, StagedSegment *staged, GError **error)
{
    if (!staged->name)
        return true;
    if (!database_begin(s->to_catalog, false, error))
        return false;
    if (!segment_place(s->to, s->to_catalog, staged, error)) {
        database_rollback(s->to_catalog);
        return false;
    }
    s->report.segments++;
    return database_commit(s->to_catalog, error);
}

/* One at a time: they are large, and what is named need not be copied again after an interruption. */
static bool copy_segments(Sync *s, GError **error)
{
    for (guint i = 0; i < s->segments->len; i++) {
        StagedSegment staged = {.fd = -1};
        bool ok = stage_segment(s, &g_array_index(s->segments, Digest, i), &staged, error) && name_segment(s, &staged, error);

        segment_unstage(s->to, &staged);
        if (!ok)
            return false;
    }
    return true;
}

/* --- tables --- */

static bool have_segments(Sync *s, const GArray *segments, bool *ret, GError **error)
{
    *ret = true;
    for (guint i = 0; i < segments->len && *ret; i++)
        if (!keep_segment(s, &g_array_index(segments, Digest, i), ret, error))
            return false;
    return true;
}

/* Only when what it leads to is there. */
static bool place_table(Sync *s, const Digest *name, const SegmentMoved *theirs, GError **error)
{
    bool there;

    if (!have_segments(s, theirs->body->segments, &there, error))
        return false;
    return !there || segment_place_table(s->to, s->to_catalog, name, theirs, error);
}

static bool place_tables(Sync *s, const GArray *names, GError **error)
{
    for (guint i = 0; i < names->len; i++) {
        const Digest *name = &g_array_index(names, Digest, i);
        const SegmentMoved *moved = g_hash_table_lookup(s->tables, name);

        if (!moved)
            continue;
        if (!place_table(s, name, moved, error))
            return false;
        (void)g_hash_table_remove(s->tables, name);
    }
    return true;
}

/* --- blobs --- */

static bool place_blob(Sync *s, StagedBlob *staged, GError **error)
{
    g_autoptr(GArray) names = NULL;
    bool has;

    if (!segments_of(s, &staged->digest, &names, error) || !place_tables(s, names, error) ||
        !has_blocks_of(s, &staged->digest, names, &has, error))
        return false;
    if (!has) {
        s->left++;
        return true;
    }
    s->report.blobs++;
    return blob_place(s->to, s->to_catalog, staged, g_get_real_time(), error) && store_catalog_map(s->to, s->to_catalog, &staged->digest, error);
}

static bool place_blobs(Sync *s, StagedBlob *staged, guint count, GError **error)
{
    if (!database_begin(s->to_catalog, false, error))
        return false;
    for (guint i = 0; i < count; i++)
        if (!place_blob(s, &staged[i], error)) {
            database_rollback(s->to_catalog);
            return false;
        }
    return database_commit(s->to_catalog, error);
}

static bool copy_batch(Sync *s, guint first, guint count, GError **error)
{
    StagedBlob staged[BATCH] = {{.name = NULL}};
    bool ok = true;

    for (guint i = 0; ok && i < count; i++) {
        ok = interrupt_check(error) && blob_stage_copy(s->to, s->from, &g_array_index(s->blobs, Digest, first + i), &staged[i], error);
        s->report.bytes += ok ? staged[i].stored : 0;
        progress_add(s->progress, ok ? staged[i].stored : 0);
    }
    ok = ok && place_blobs(s, staged, count, error);
    for (guint i = 0; i < count; i++)
        blob_unstage(&staged[i]);
    return ok;
}

static bool copy_blobs(Sync *s, GError **error)
{
    for (guint i = 0; i < s->blobs->len; i += BATCH)
        if (!copy_batch(s, i, MIN(BATCH, s->blobs->len - i), error))
            return false;
    return true;
}

static bool copy_once(Sync *s, GError **error)
{
    uint64_t total = 0;
    bool ok;

    if (!find_needed(s, error) || !sum_bytes(s, "SELECT size FROM segment WHERE digest = ?1", s->segments, &total, error) ||
        !sum_bytes(s, "SELECT stored FROM blob WHERE digest = ?1", s->blobs, &total, error))
        return false;
    s->progress = progress_new("sync", total, true);
    ok = copy_segments(s, error) && copy_blobs(s, error);
    if (ok)
        progress_done(s->progress);
    g_clear_pointer(&s->progress, progress_free);
    return ok;
}

static bool copy_files(Sync *s, GError **error)
{
    s->left = 1;
    for (int round = 0; s->left && round < ROUNDS; round++)
        if (!copy_once(s, error))
            return false;
    return !s->left || fail(error, "%u maps of store '%s' name segments that are missing there; no set was taken over: run kiln fsck", s->left,
                            s->from->path);
}

/* --- sets and state --- */

static bool try_mirror(Sync *s, GError **error)
{
    bool ok;

    if (!database_begin(s->to_state, false, error))
        return false;
    ok = ledger_mirror(s->to_state, s->documents, error);
    database_rollback(s->to_state);
    return ok;
}

static bool restore_sets(Sync *s, bool forget, GError **error)
{
    if (!database_begin(s->to_catalog, true, error))
        return false;
    if (!published_restore(s->to, s->to_catalog, s->to_state, forget, error)) {
        database_rollback(s->to_catalog);
        return false;
    }
    return database_commit(s->to_catalog, error);
}

/* The sets are read out of what state.db is about to say; a name never comes before its set, and never outlives it. */
static bool take_over_state(Sync *s, GError **error)
{
    if (!database_begin(s->to_state, true, error))
        return false;
    if (!ledger_mirror(s->to_state, s->documents, error) || !restore_sets(s, false, error)) {
        database_rollback(s->to_state);
        return false;
    }
    return database_commit(s->to_state, error) && restore_sets(s, true, error) && store_ledger_follow(s->to);
}

static bool read_source(Sync *s, GError **error)
{
    Database *state;
    bool readonly = s->from->flags & STORE_OPEN_READONLY; /* nobody collects there */

    return (readonly || store_ledger_write(s->from, false, error)) && store_catalog(s->from, &s->from_catalog, error) &&
           store_state_db(s->from, &state, error) && ledger_collect_all(state, &s->documents, error);
}

static bool open_target(Sync *s, const char *to, GError **error)
{
    g_autofree char *path = g_canonicalize_filename(to, NULL);
    struct stat ours, theirs;

    if (stat(path, &theirs) == 0 && fstat(s->from->dirfd, &ours) == 0 && ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino)
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is the store itself; a copy needs another folder", path);
    return store_open(path, STORE_OPEN_CREATE, &s->to, error) && store_hold_lease(s->to, error) && store_catalog(s->to, &s->to_catalog, error) &&
           store_state_db(s->to, &s->to_state, error);
}

bool store_sync_all(Store *from, const char *to, StoreSyncReport *ret, GError **error)
{
    g_autoptr(GArray) segments = g_array_new(FALSE, FALSE, sizeof(Digest)), blobs = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(GHashTable) tables = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, (GDestroyNotify)segment_moved_free);
    g_autoptr(GHashTable) present = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    Sync s = {.from = from, .segments = segments, .blobs = blobs, .tables = tables, .present = present};
    bool ok = read_source(&s, error) && open_target(&s, to, error) && try_mirror(&s, error) && copy_files(&s, error) && take_over_state(&s, error);

    g_clear_pointer(&s.documents, g_ptr_array_unref);
    store_close(s.to);
    if (ok)
        *ret = s.report;
    return ok;
}
