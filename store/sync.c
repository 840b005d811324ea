/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying a store: files by name, then sets, then state.db, as sync.h says.
 *
 * The lease on the source is taken before its state is read: a set that is removed there afterwards keeps its bytes until we are done, because
 * gc takes nothing that died after the oldest lease. The lease on the target keeps files that no set refers to yet.
 *
 *   1. source: lease, ledger; state as documents, at one moment
 *   2. target: may it become that? (tried and taken back)
 *   3. files that the sets need and the target lacks: tmp, verified, synced, named in batches under the target's catalog lock
 *   4. target: new sets in the catalog; state.db; sets that are gone leave the catalog
 */
#include "store/sync.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/io.h"
#include "store/ledger.h"
#include "store/recovery.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/stat.h>

#define BATCH 64
#define COPY_PIECE (1u << 20)

typedef struct Sync {
    Store *from, *to;
    Database *from_catalog, *to_catalog, *to_state;
    GPtrArray *documents;
    GArray *segments, *blobs; /* of Digest: what is to be copied */
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

static bool segments_of(Sync *s, const Digest *map, GHashTable *segments, GError **error)
{
    g_autoptr(Query) query = database_query(s->from_catalog, error, "SELECT segment FROM map_segment WHERE map = ?1", "d", map);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        Digest *segment = g_new(Digest, 1);

        query_digest(query, 0, segment);
        g_hash_table_add(segments, segment);
    }
    return rc >= 0;
}

/* Those that the target has become young again there, so that no gc of it takes them before their sets have come. */
static bool keep_lacking(Sync *s, const char *table, GHashTable *needed, GArray *lacking, GError **error)
{
    g_autofree char *sql = g_strdup_printf("UPDATE %s SET created = ?1, dead = 0 WHERE digest = ?2", table);
    GHashTableIter iter;
    gpointer digest;

    g_hash_table_iter_init(&iter, needed);
    while (g_hash_table_iter_next(&iter, &digest, NULL)) {
        if (!database_run(s->to_catalog, error, sql, "id", g_get_real_time(), digest))
            return false;
        if (database_changes(s->to_catalog) > 0)
            s->report.present++;
        else
            g_array_append_vals(lacking, digest, 1);
    }
    return true;
}

static bool find_lacking(Sync *s, GHashTable *segments, GHashTable *blobs, GError **error)
{
    if (!database_begin(s->to_catalog, false, error))
        return false;
    if (!keep_lacking(s, "segment", segments, s->segments, error) || !keep_lacking(s, "blob", blobs, s->blobs, error)) {
        database_rollback(s->to_catalog);
        return false;
    }
    return database_commit(s->to_catalog, error);
}

static bool find_needed(Sync *s, GError **error)
{
    g_autoptr(GHashTable) segments = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    g_autoptr(GHashTable) blobs = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    GHashTableIter iter;
    gpointer digest;

    for (guint i = 0; i < s->documents->len; i++)
        if (!needs_of_document(s->documents->pdata[i], blobs, error))
            return false;
    g_hash_table_iter_init(&iter, blobs);
    while (g_hash_table_iter_next(&iter, &digest, NULL))
        if (!segments_of(s, digest, segments, error))
            return false;
    return find_lacking(s, segments, blobs, error);
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

typedef struct StagedSegment {
    char *name;
    Digest digest;
} StagedSegment;

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
    return io_fdatasync(to) == 0 || store_fail_errno(s->to, error, "write a segment to");
}

static bool stage_segment(Sync *s, const Digest *digest, StagedSegment *ret, GError **error)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(s->from->segments_fd, digest, false, name);
    auto_fd int from = dir < 0 ? -1 : io_open(dir, name, O_RDONLY, 0);
    auto_fd int to = -1;
    int owner;

    if (from < 0)
        return store_fail_errno(s->from, error, "open a segment of");
    if (!store_owner_dir(s->to, &owner, error))
        return false;
    ret->digest = *digest;
    ret->name = store_fresh_name(s->to, "segment");
    to = io_open(owner, ret->name, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (to < 0)
        return store_fail_errno(s->to, error, "write a segment to");
    return copy_verified(s, from, to, digest, error);
}

static bool place_segment(Sync *s, StagedSegment *staged, GError **error)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(s->to->segments_fd, &staged->digest, true, name);
    Segment *segment;
    int owner;

    if (!store_owner_dir(s->to, &owner, error))
        return false;
    if (dir < 0 || io_rename(owner, staged->name, dir, name) < 0 || io_fsync(dir) < 0)
        return store_fail_errno(s->to, error, "name a segment in");
    g_clear_pointer(&staged->name, g_free);
    return segment_get(s->to, &staged->digest, &segment, error) && catalog_add_segment(s->to_catalog, segment, g_get_real_time(), error);
}

static bool place_segments(Sync *s, StagedSegment *staged, guint count, GError **error)
{
    if (!database_begin(s->to_catalog, false, error))
        return false;
    for (guint i = 0; i < count; i++)
        if (!place_segment(s, &staged[i], error)) {
            database_rollback(s->to_catalog);
            return false;
        }
    return database_commit(s->to_catalog, error);
}

static void unstage_segment(Sync *s, StagedSegment *staged)
{
    if (staged->name && s->to->owner_dirfd >= 0)
        (void)unlinkat(s->to->owner_dirfd, staged->name, 0); /* else it goes with the folder */
    g_free(staged->name);
}

/* One at a time: they are large, and what is named need not be copied again after an interruption. */
static bool copy_segments(Sync *s, GError **error)
{
    for (guint i = 0; i < s->segments->len; i++) {
        StagedSegment staged = {.name = NULL};
        bool ok = stage_segment(s, &g_array_index(s->segments, Digest, i), &staged, error) && place_segments(s, &staged, 1, error);

        unstage_segment(s, &staged);
        if (!ok)
            return false;
        s->report.segments++;
    }
    return true;
}

/* --- blobs --- */

static bool place_blobs(Sync *s, StagedBlob *staged, guint count, GError **error)
{
    if (!database_begin(s->to_catalog, false, error))
        return false;
    for (guint i = 0; i < count; i++)
        if (!blob_place(s->to, s->to_catalog, &staged[i], g_get_real_time(), error) ||
            !store_catalog_map(s->to, s->to_catalog, &staged[i].digest, error)) {
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
    s->report.blobs += ok ? count : 0;
    return ok;
}

static bool copy_blobs(Sync *s, GError **error)
{
    for (guint i = 0; i < s->blobs->len; i += BATCH)
        if (!copy_batch(s, i, MIN(BATCH, s->blobs->len - i), error))
            return false;
    return true;
}

static bool copy_files(Sync *s, GError **error)
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
    Sync s = {.from = from, .segments = segments, .blobs = blobs};
    bool ok = read_source(&s, error) && open_target(&s, to, error) && try_mirror(&s, error) && copy_files(&s, error) && take_over_state(&s, error);

    g_clear_pointer(&s.documents, g_ptr_array_unref);
    store_close(s.to);
    if (ok)
        *ret = s.report;
    return ok;
}
