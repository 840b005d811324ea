/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Thin helpers around SQLite: open with checks, transactions, statements with typed values.
 *
 * A transaction takes the database's write lock at once (BEGIN IMMEDIATE) and our own recursive lock, so
 * threads of one process queue up instead of meeting SQLITE_BUSY. Values in a statement are
 * given by a letter each: i int64_t, t text or NULL, d const Digest* (NULL and digest_none are NULL).
 */
#ifndef KILN_STORE_DATABASE_H
#define KILN_STORE_DATABASE_H

#include "base/digest.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Database Database;

typedef enum DatabaseMode { DATABASE_CREATE, DATABASE_WRITE, DATABASE_READ, DATABASE_IMMUTABLE } DatabaseMode;

typedef struct DatabaseSpec {
    const char *what;       /* for errors: "catalog of store '/x'" */
    uint32_t application;   /* application_id */
    int version;            /* user_version; a higher one is refused */
    const char *schema;     /* run once, at creation: version 1 */
    const char *const *upgrades; /* NULL-terminated: the nth makes version n + 2 of version n + 1; may be NULL */
    bool full;              /* synchronous FULL for every transaction */
} DatabaseSpec;

bool database_open(const char *path, DatabaseMode mode, const DatabaseSpec *spec, Database **ret, GError **error);
void database_close(Database *db);

/* @durable: the commit survives a power cut, and with it all commits before. */
bool database_begin(Database *db, bool durable, GError **error);
/* For several looks at one state; ends with database_rollback(). Works where nothing may be written. */
bool database_read(Database *db, GError **error);
bool database_commit(Database *db, GError **error); /* rolls back when it fails */
void database_rollback(Database *db);

bool database_run(Database *db, GError **error, const char *sql, const char *types, ...);

/* The same with values that are only known at run time. A NULL text and digest_none are NULL. */
typedef struct DatabaseValue {
    int64_t integer;
    const char *text; /* borrowed */
    Digest digest;
} DatabaseValue;
bool database_run_values(Database *db, GError **error, const char *sql, const char *types, const DatabaseValue *values);

int64_t database_last_id(Database *db);
int64_t database_changes(Database *db); /* rows the last statement touched */

typedef struct Query Query;
/* NULL on error. */
Query *database_query(Database *db, GError **error, const char *sql, const char *types, ...);
/* 1: a row, 0: no more, -1: error. */
int query_step(Query *query, GError **error);
int64_t query_int(Query *query, int column);
const char *query_text(Query *query, int column); /* NULL for NULL; until the next step */
void query_digest(Query *query, int column, Digest *ret); /* digest_none for NULL and anything that is no digest */
bool query_is_null(Query *query, int column);
void query_free(Query *query);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Query, query_free)

/* The first column of the first row; @otherwise when there is no row. */
bool database_int(Database *db, int64_t otherwise, int64_t *ret, GError **error, const char *sql, const char *types, ...);

/* Reads the file page by page, past SQLite: see database-pages.h. *ret_checked false: it is from before pages had checks. */
bool database_check_pages(const char *path, const char *file, GPtrArray *problems, bool *ret_checked, GError **error);
/* Copies what is in the WAL into the file, as far as readers let it. */
bool database_checkpoint(Database *db, GError **error);
/* Writes such a database anew, with checks. It may be in use by others. */
bool database_add_checks(Database *db, GError **error);

/* Runs PRAGMA integrity_check; one text per finding goes to @problems. */
bool database_check(Database *db, GPtrArray *problems, GError **error);

#endif
