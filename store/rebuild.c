/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lost or damaged catalog.db made again from segments, blobs and state.db; a lost or damaged state.db from the ledger.
 *
 * The new database is filled under another name and takes its own when it is whole and synced, so a rebuild that is killed leaves the store as
 * it was. A damaged database is not deleted but renamed. Nothing in segments/ and blobs/ is removed, damaged or not: fsck tells about it.
 *
 * What cannot be made again: the bake cache and the memos of what was fetched (the next bakes are cold), letters to controllers that nobody
 * had taken, and what state.db had committed in the last moment before it was lost and the ledger had not followed yet.
 */
#include "store/upkeep.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/channel.h"
#include "store/io.h"
#include "store/journal.h"
#include "store/ledger.h"
#include "store/recovery.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/file.h>

#define NEW_SUFFIX ".rebuilt"

static void note(GPtrArray *notes, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void note(GPtrArray *notes, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(notes, g_strdup_vprintf(format, args));
    va_end(args);
}

static const char *file_name(bool state)
{
    return state ? "state.db" : "catalog.db";
}

/* --- what is there --- */

/* When all is out of the WAL, which alone may have pages whole that a power cut tore. */
static bool check_pages(Store *store, bool state, Database *db, GPtrArray *problems, GError **error)
{
    g_autofree char *path = g_build_filename(store->path, file_name(state), NULL);
    bool checked;

    return database_checkpoint(db, error) && database_check_pages(path, file_name(state), problems, &checked, error);
}

/* Opened and checked through, or *ret NULL with the reason. */
static bool open_whole(Store *store, bool state, Database **ret, char **ret_why, GError **error)
{
    g_autoptr(GPtrArray) problems = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) why = NULL;
    Database *db = NULL;

    *ret = NULL;
    if (faccessat(store->dirfd, file_name(state), F_OK, 0) < 0) {
        *ret_why = g_strdup_printf("%s was missing", file_name(state));
        return errno == ENOENT || store_fail_errno(store, error, "look at a database of");
    }
    if (!catalog_open_file(store->path, state, "", DATABASE_WRITE, &db, &why) || !database_check(db, problems, &why) ||
        !check_pages(store, state, db, problems, &why) || problems->len > 0) {
        *ret_why = g_strdup(why ? why->message : problems->pdata[0]);
        database_close(db);
        return true;
    }
    *ret = db;
    return true;
}

/* A newer kiln's database is not damaged, whatever we can read of it. */
static bool refuse_newer(const char *why, GError **error)
{
    return !strstr(why, "newer kiln") || fail(error, "%s", why);
}

static bool move_away(Store *store, bool state, const char *suffix, GError **error)
{
    static const char *const parts[] = {"", "-wal", "-shm"};

    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        g_autofree char *from = g_strconcat(file_name(state), parts[i], NULL), *to = g_strconcat(file_name(state), suffix, parts[i], NULL);

        if (io_rename(store->dirfd, from, store->dirfd, to) < 0 && errno != ENOENT)
            return store_fail_errno(store, error, "move a damaged database away in");
    }
    return true;
}

static bool remove_new(Store *store, bool state, GError **error)
{
    static const char *const parts[] = {"", "-wal", "-shm", "-journal"};

    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        g_autofree char *name = g_strconcat(file_name(state), NEW_SUFFIX, parts[i], NULL);

        if (io_unlink(store->dirfd, name, 0) < 0 && errno != ENOENT)
            return store_fail_errno(store, error, "remove what an earlier rebuild left in");
    }
    return true;
}

/* SQLite has written its log back with the closing, as nobody else has the file open. */
static bool put_in_place(Store *store, bool state, const char *away, GError **error)
{
    g_autofree char *name = g_strconcat(file_name(state), NEW_SUFFIX, NULL);
    auto_fd int fd = io_open(store->dirfd, name, O_RDWR, 0);

    if (fd < 0 || io_fdatasync(fd) < 0)
        return store_fail_errno(store, error, "sync a rebuilt database of");
    if (!move_away(store, state, away, error))
        return false;
    if (io_rename(store->dirfd, name, store->dirfd, file_name(state)) < 0 || io_fsync(store->dirfd) < 0)
        return store_fail_errno(store, error, "name a rebuilt database of");
    return true;
}

/* --- filling --- */

typedef bool FillFn(Store *store, Database *db, GPtrArray *notes, GError **error);

static bool fill_in_transaction(Store *store, Database *db, FillFn *fill, GPtrArray *notes, GError **error)
{
    if (!database_begin(db, true, error))
        return false;
    if (!fill(store, db, notes, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

static bool fill_state(Store *store, Database *db, GPtrArray *notes, GError **error)
{
    g_autoptr(GPtrArray) documents = NULL;
    LedgerThrough through;

    if (!store_ledger_find(store, &documents, error))
        return false;
    if (documents->len == 0)
        return fail(error, "state.db of store '%s' cannot be rebuilt: no ledger was found among its blobs. Bring back state.db from a copy", store->path);
    for (guint i = 0; i < documents->len; i++)
        if (!ledger_apply(db, documents->pdata[i], error))
            return false;
    if (!ledger_newest(db, &through, error))
        return false;
    note(notes, "names, sets, %" G_GINT64_FORMAT " channel log entries, %" G_GINT64_FORMAT " journal records and %" G_GINT64_FORMAT
         " signatures came back from %u blobs of the ledger; what was done after it was last written is lost",
         through.channel_log, through.journal, through.signature, documents->len);
    note(notes, "letters to controllers that nobody had taken are lost");
    return true;
}

static bool fill_catalog(Store *store, Database *db, GPtrArray *notes, GError **error)
{
    int64_t sets, images, segments, blobs;

    if (!store_catalog_files(store, db, notes, error) || !published_restore(store, db, store->state, true, error) ||
        !database_int(db, 0, &sets, error, "SELECT count(*) FROM bake", "") || !database_int(db, 0, &images, error, "SELECT count(*) FROM image", "") ||
        !database_int(db, 0, &segments, error, "SELECT count(*) FROM segment", "") ||
        !database_int(db, 0, &blobs, error, "SELECT count(*) FROM blob", ""))
        return false;
    note(notes, "%" G_GINT64_FORMAT " segments, %" G_GINT64_FORMAT " blobs, %" G_GINT64_FORMAT " sets with %" G_GINT64_FORMAT " images are in the catalog again",
         segments, blobs, sets, images);
    note(notes, "the bake cache and the memos of fetched files are lost: the next bakes are cold");
    return true;
}

static bool fill_new(Store *store, bool state, GPtrArray *notes, GError **error)
{
    Database *db = NULL;
    bool ok;

    if (!remove_new(store, state, error) || !catalog_open_file(store->path, state, NEW_SUFFIX, DATABASE_CREATE, &db, error))
        return false;
    ok = fill_in_transaction(store, db, state ? fill_state : fill_catalog, notes, error);
    database_close(db);
    return ok || !remove_new(store, state, NULL);
}

/* @slot: where the opened database goes. */
static bool rebuild_one(Store *store, bool state, Database **slot, GPtrArray *notes, GError **error)
{
    g_autofree char *why = NULL, *away = g_strdup_printf(".damaged-%" G_GINT64_FORMAT, g_get_real_time() / G_USEC_PER_SEC);
    bool missing = faccessat(store->dirfd, file_name(state), F_OK, 0) < 0;

    if (!open_whole(store, state, slot, &why, error))
        return false;
    if (*slot)
        return true;
    if (!refuse_newer(why, error))
        return false;
    note(notes, "%s", why);
    if (!fill_new(store, state, notes, error) || !put_in_place(store, state, away, error) || (state && !store_ledger_forget_head(store, error)))
        return false;
    if (!missing)
        note(notes, "the damaged database is now '%s%s'", file_name(state), away);
    return catalog_open_file(store->path, state, "", DATABASE_WRITE, slot, error);
}

static bool lock_alone(Store *store, GError **error)
{
    return flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0 ||
           fail(error, "store '%s' is in use; a rebuild needs it alone", store->path);
}

static bool rebuild(Store *store, GPtrArray *notes, GError **error)
{
    g_autoptr(GPtrArray) problems = g_ptr_array_new_with_free_func(g_free);

    if (!lock_alone(store, error) || !store_clear_dead_owners(store, NULL, error) || !rebuild_one(store, true, &store->state, notes, error) ||
        !rebuild_one(store, false, &store->catalog, notes, error))
        return false;
    store->flags &= ~(unsigned)STORE_OPEN_NO_CATALOG; /* both are there now */
    if (!store_channels_verify(store, problems, error) || !store_journals_verify(store, problems, error))
        return false;
    for (guint i = 0; i < problems->len; i++)
        note(notes, "%s", (char *)problems->pdata[i]);
    return notes->len == 0 || store_ledger_write(store, true, error);
}

bool store_rebuild(const char *dir, GPtrArray **ret_notes, GError **error)
{
    g_autoptr(GPtrArray) notes = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(Store) store = NULL;

    if (!store_open(dir, STORE_OPEN_NO_CATALOG, &store, error) || !rebuild(store, notes, error))
        return false;
    *ret_notes = g_steal_pointer(&notes);
    return true;
}
