/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door to SQLite.
 *
 * WAL, 8 KiB pages. synchronous is NORMAL (a power cut may lose the last commits, never tear one) and FULL for the
 * transactions that publish: a WAL file is synced as a whole, so a FULL commit also makes the NORMAL ones before it durable.
 */
#include "store/database.h"

#include "base/error.h"
#include "base/scope.h"
#include "store/database-pages.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <string.h>

#define KEPT_STATEMENTS 8 /* of database_run(): a loop over rows parses its SQL once */

struct Database {
    sqlite3 *handle;
    char *what;
    GRecMutex lock;
    bool full;
    GMutex kept_lock;
    sqlite3_stmt *kept[KEPT_STATEMENTS];
    unsigned kept_next;
};

struct Query {
    Database *db;
    sqlite3_stmt *stmt;
};

#define BUSY_TIMEOUT_MS 60000

static bool db_fail(Database *db, int rc, GError **error)
{
    int primary = rc & 0xff;

    if (primary == SQLITE_FULL || (primary == SQLITE_IOERR && sqlite3_system_errno(db->handle) == ENOSPC))
        return fail_code(error, KILN_ERROR_NO_SPACE, "cannot write to the %s: No space left on device", db->what);
    if (primary == SQLITE_BUSY)
        return fail(error, "the %s is busy: another kiln has held it for over a minute", db->what);
    if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB)
        return fail(error, "the %s is damaged (%s): run kiln fsck --rebuild", db->what, sqlite3_errmsg(db->handle));
    return fail(error, "the %s reports: %s", db->what, db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(rc));
}

static bool exec(Database *db, const char *sql, GError **error)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK || db_fail(db, rc, error);
}

static bool read_pragma(Database *db, const char *sql, int64_t *ret, GError **error)
{
    return database_int(db, 0, ret, error, sql, "");
}

/* Before the first page is written, or followed by VACUUM. */
static bool reserve_checks(Database *db, GError **error)
{
    int bytes = DATABASE_PAGE_CHECK;
    int rc = sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_RESERVE_BYTES, &bytes);

    return rc == SQLITE_OK || db_fail(db, rc, error);
}

static bool make_schema(Database *db, const DatabaseSpec *spec, GError **error)
{
    g_autofree char *marks = g_strdup_printf("PRAGMA application_id = %d; PRAGMA user_version = 1;", (int)spec->application);

    if (!exec(db, "PRAGMA page_size = 8192", error) || !reserve_checks(db, error) ||
        !exec(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN IMMEDIATE", error))
        return false;
    return exec(db, spec->schema, error) && exec(db, marks, error) && exec(db, "COMMIT", error);
}

/* Asked again under the lock: another process may have been faster. */
static bool upgrade_once(Database *db, const DatabaseSpec *spec, GError **error)
{
    g_autofree char *mark = NULL;
    int64_t version;

    if (!read_pragma(db, "PRAGMA user_version", &version, error))
        return false;
    if (version < 1 || version >= spec->version)
        return true;
    mark = g_strdup_printf("PRAGMA user_version = %d", (int)version + 1);
    return exec(db, spec->upgrades[version - 1], error) && exec(db, mark, error);
}

static bool upgrade(Database *db, const DatabaseSpec *spec, GError **error)
{
    int64_t application, version;

    for (;;) {
        if (!read_pragma(db, "PRAGMA application_id", &application, error) ||
            !read_pragma(db, "PRAGMA user_version", &version, error))
            return false;
        if ((uint32_t)application != spec->application || version < 1 || version >= spec->version)
            return true;
        if (!exec(db, "BEGIN IMMEDIATE", error))
            return false;
        if (!upgrade_once(db, spec, error)) {
            (void)exec(db, "ROLLBACK", NULL);
            return false;
        }
        if (!exec(db, "COMMIT", error))
            return false;
    }
}

static bool check_marks(Database *db, const DatabaseSpec *spec, GError **error)
{
    int64_t application, version;

    if (!read_pragma(db, "PRAGMA application_id", &application, error) ||
        !read_pragma(db, "PRAGMA user_version", &version, error))
        return false;
    if ((uint32_t)application != spec->application)
        return fail(error, "the %s is not a database of kiln", spec->what);
    if (version > spec->version)
        return fail(error, "the %s was written by a newer kiln (schema %d, this one reads %d): upgrade kiln", spec->what,
                    (int)version, spec->version);
    return version == spec->version ||
           fail(error, "the %s has the older schema %d; open the store once where it can be written", spec->what, (int)version);
}

static int open_handle(const char *path, DatabaseMode mode, sqlite3 **ret)
{
    g_autofree char *escaped = g_uri_escape_string(path, "/", FALSE);
    g_autofree char *uri = g_strconcat("file:", escaped, mode == DATABASE_IMMUTABLE ? "?immutable=1" : "", NULL);
    int flags = SQLITE_OPEN_URI | SQLITE_OPEN_FULLMUTEX;

    if (mode == DATABASE_CREATE)
        flags |= SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    else
        flags |= mode == DATABASE_WRITE ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY;
    return sqlite3_open_v2(uri, ret, flags, database_pages_vfs());
}

/*
 * The -wal and -shm files stay when the last one closes, the former empty: who may read the folder and not write in it could not make them, and would
 * have to read past a writer who comes later.
 */
static bool keep_log_files(Database *db, GError **error)
{
    int keep = 1;

    (void)sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
    return exec(db, "PRAGMA journal_size_limit = 67108864", error);
}

static bool set_up(Database *db, DatabaseMode mode, const DatabaseSpec *spec, GError **error)
{
    (void)sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    (void)sqlite3_extended_result_codes(db->handle, 1);
    if (mode == DATABASE_CREATE && !make_schema(db, spec, error))
        return false;
    if ((mode == DATABASE_CREATE || mode == DATABASE_WRITE) && !upgrade(db, spec, error))
        return false;
    if (!check_marks(db, spec, error))
        return false;
    if (mode == DATABASE_READ || mode == DATABASE_IMMUTABLE)
        return true;
    if (mode == DATABASE_WRITE && !keep_log_files(db, error))
        return false;
    return exec(db, spec->full ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", error);
}

bool database_open(const char *path, DatabaseMode mode, const DatabaseSpec *spec, Database **ret, GError **error)
{
    Database *db = g_new0(Database, 1);
    int rc;

    g_rec_mutex_init(&db->lock);
    g_mutex_init(&db->kept_lock);
    db->what = g_strdup(spec->what);
    db->full = spec->full;
    rc = open_handle(path, mode, &db->handle);
    if (rc != SQLITE_OK || !set_up(db, mode, spec, error)) {
        if (rc != SQLITE_OK)
            (void)db_fail(db, rc, error);
        database_close(db);
        return false;
    }
    *ret = db;
    return true;
}

void database_close(Database *db)
{
    if (!db)
        return;
    for (size_t i = 0; i < KEPT_STATEMENTS; i++)
        (void)sqlite3_finalize(db->kept[i]);
    (void)sqlite3_close(db->handle);
    g_rec_mutex_clear(&db->lock);
    g_mutex_clear(&db->kept_lock);
    g_free(db->what);
    g_free(db);
}

bool database_begin(Database *db, bool durable, GError **error)
{
    g_rec_mutex_lock(&db->lock);
    if (!db->full && !exec(db, durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", error)) {
        g_rec_mutex_unlock(&db->lock);
        return false;
    }
    if (!exec(db, "BEGIN IMMEDIATE", error)) {
        g_rec_mutex_unlock(&db->lock);
        return false;
    }
    return true;
}

bool database_read(Database *db, GError **error)
{
    g_rec_mutex_lock(&db->lock);
    if (exec(db, "BEGIN", error))
        return true;
    g_rec_mutex_unlock(&db->lock);
    return false;
}

bool database_commit(Database *db, GError **error)
{
    if (!exec(db, "COMMIT", error)) {
        database_rollback(db);
        return false;
    }
    g_rec_mutex_unlock(&db->lock);
    return true;
}

void database_rollback(Database *db)
{
    if (!sqlite3_get_autocommit(db->handle)) /* SQLite may have rolled back by itself, as on a full disk */
        (void)sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    g_rec_mutex_unlock(&db->lock);
}

static void bind_one(sqlite3_stmt *stmt, int at, char type, va_list *values)
{
    const Digest *digest;
    const char *text;

    switch (type) {
    case 'i':
        (void)sqlite3_bind_int64(stmt, at, va_arg(*values, int64_t));
        break;
    case 't':
        text = va_arg(*values, const char *);
        (void)sqlite3_bind_text(stmt, at, text, -1, SQLITE_TRANSIENT);
        break;
    case 'd':
        digest = va_arg(*values, const Digest *);
        if (digest && !digest_is_none(digest))
            (void)sqlite3_bind_blob(stmt, at, digest->bytes, DIGEST_SIZE, SQLITE_TRANSIENT);
        break;
    default:
        g_assert_not_reached();
    }
}

/* Out of the kept ones, so that no other thread has it at the same time. */
static sqlite3_stmt *take_kept(Database *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;

    AUTO_LOCK(&db->kept_lock);
    for (size_t i = 0; i < KEPT_STATEMENTS && !stmt; i++)
        if (db->kept[i] && strcmp(sqlite3_sql(db->kept[i]), sql) == 0)
            stmt = g_steal_pointer(&db->kept[i]);
    return stmt;
}

static void keep(Database *db, sqlite3_stmt *stmt)
{
    (void)sqlite3_reset(stmt);
    (void)sqlite3_clear_bindings(stmt);
    AUTO_LOCK(&db->kept_lock);
    (void)sqlite3_finalize(db->kept[db->kept_next]);
    db->kept[db->kept_next] = stmt;
    db->kept_next = (db->kept_next + 1) % KEPT_STATEMENTS;
}

static Query *query_new(Database *db, GError **error, const char *sql, const char *types, va_list *values)
{
    sqlite3_stmt *stmt = take_kept(db, sql);
    int rc = stmt ? SQLITE_OK : sqlite3_prepare_v2(db->handle, sql, -1, &stmt, NULL);
    Query *query;

    if (rc != SQLITE_OK) {
        (void)db_fail(db, rc, error);
        return NULL;
    }
    for (int i = 0; types[i]; i++)
        bind_one(stmt, i + 1, types[i], values);
    query = g_new0(Query, 1);
    query->db = db;
    query->stmt = stmt;
    return query;
}

Query *database_query(Database *db, GError **error, const char *sql, const char *types, ...)
{
    va_list values;
    Query *query;

    va_start(values, types);
    query = query_new(db, error, sql, types, &values);
    va_end(values);
    return query;
}

int query_step(Query *query, GError **error)
{
    int rc = sqlite3_step(query->stmt);

    if (rc == SQLITE_ROW)
        return 1;
    if (rc == SQLITE_DONE)
        return 0;
    (void)db_fail(query->db, rc, error);
    return -1;
}

int64_t query_int(Query *query, int column)
{
    return sqlite3_column_int64(query->stmt, column);
}

const char *query_text(Query *query, int column)
{
    return (const char *)sqlite3_column_text(query->stmt, column);
}

bool query_is_null(Query *query, int column)
{
    return sqlite3_column_type(query->stmt, column) == SQLITE_NULL;
}

void query_digest(Query *query, int column, Digest *ret)
{
    const void *bytes = sqlite3_column_blob(query->stmt, column);

    *ret = digest_none;
    if (bytes && sqlite3_column_bytes(query->stmt, column) == DIGEST_SIZE)
        memcpy(ret->bytes, bytes, DIGEST_SIZE);
}

void query_free(Query *query)
{
    if (!query)
        return;
    (void)sqlite3_finalize(query->stmt);
    g_free(query);
}

bool database_run(Database *db, GError **error, const char *sql, const char *types, ...)
{
    g_autoptr(Query) query = NULL;
    va_list values;
    int rc;

    va_start(values, types);
    query = query_new(db, error, sql, types, &values);
    va_end(values);
    if (!query)
        return false;
    while ((rc = query_step(query, error)) > 0)
        ;
    if (rc == 0)
        keep(db, g_steal_pointer(&query->stmt));
    return rc == 0;
}

static void bind_value(sqlite3_stmt *stmt, int at, char type, const DatabaseValue *value)
{
    if (type == 'i')
        (void)sqlite3_bind_int64(stmt, at, value->integer);
    else if (type == 't')
        (void)sqlite3_bind_text(stmt, at, value->text, -1, SQLITE_TRANSIENT);
    else if (!digest_is_none(&value->digest))
        (void)sqlite3_bind_blob(stmt, at, value->digest.bytes, DIGEST_SIZE, SQLITE_TRANSIENT);
}

bool database_run_values(Database *db, GError **error, const char *sql, const char *types, const DatabaseValue *values)
{
    g_autoptr(Query) query = database_query(db, error, sql, "");
    int rc;

    if (!query)
        return false;
    for (int i = 0; types[i]; i++)
        bind_value(query->stmt, i + 1, types[i], &values[i]);
    while ((rc = query_step(query, error)) > 0)
        ;
    return rc == 0;
}

int64_t database_last_id(Database *db)
{
    return sqlite3_last_insert_rowid(db->handle);
}

int64_t database_changes(Database *db)
{
    return sqlite3_changes(db->handle);
}

bool database_int(Database *db, int64_t otherwise, int64_t *ret, GError **error, const char *sql, const char *types, ...)
{
    g_autoptr(Query) query = NULL;
    va_list values;
    int rc;

    va_start(values, types);
    query = query_new(db, error, sql, types, &values);
    va_end(values);
    rc = query ? query_step(query, error) : -1;
    if (rc < 0)
        return false;
    *ret = rc > 0 && !query_is_null(query, 0) ? query_int(query, 0) : otherwise;
    return true;
}

bool database_check_pages(const char *path, const char *file, GPtrArray *problems, bool *ret_checked, GError **error)
{
    return database_pages_check(path, file, problems, ret_checked, error);
}

bool database_checkpoint(Database *db, GError **error)
{
    int rc = sqlite3_wal_checkpoint_v2(db->handle, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);

    return rc == SQLITE_OK || db_fail(db, rc, error);
}

bool database_add_checks(Database *db, GError **error)
{
    g_rec_mutex_lock(&db->lock);
    if (!reserve_checks(db, error) || !exec(db, "VACUUM", error)) {
        g_rec_mutex_unlock(&db->lock);
        return false;
    }
    g_rec_mutex_unlock(&db->lock);
    return true;
}

bool database_check(Database *db, GPtrArray *problems, GError **error)
{
    g_autoptr(Query) query = database_query(db, error, "PRAGMA integrity_check(20)", "");
    int rc;

    if (!query)
        return false;
    while ((rc = query_step(query, error)) > 0)
        if (g_strcmp0(query_text(query, 0), "ok"))
            g_ptr_array_add(problems, g_strdup_printf("the %s is damaged: %s", db->what, query_text(query, 0)));
    return rc == 0;
}
