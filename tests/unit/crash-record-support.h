/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records what a store does to its disk: a member of the store's I/O table and an SQLite VFS, both in front of the real
 * ones, write each change as an event into a log file. Several processes may add to one log, one after the other,
 * and a killed one leaves all that it did.
 *
 *   event: CrashEvent, then @size bytes of data (what was written; a mark's text) and zeroes up to a multiple of 8
 */
#ifndef KILN_TESTS_CRASH_RECORD_SUPPORT_H
#define KILN_TESTS_CRASH_RECORD_SUPPORT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum CrashKind {
    CRASH_BASE,     /* node: the folder that the store's folder is made in */
    CRASH_CREATE,   /* folder, name, node */
    CRASH_MKDIR,    /* folder, name, node */
    CRASH_WRITE,    /* node, offset, data */
    CRASH_TRUNCATE, /* node, offset */
    CRASH_RENAME,   /* folder, name -> to, to_name */
    CRASH_UNLINK,   /* folder, name */
    CRASH_SYNC,     /* node: a file */
    CRASH_SYNC_DIR, /* folder */
    CRASH_MARK,     /* data: what was acknowledged until here */
} CrashKind;

#define CRASH_NAME 96
#define CRASH_ROUND(size) (((size_t)(size) + 7) / 8 * 8)
typedef struct CrashEvent {
    uint32_t kind, size;
    uint64_t folder, node, to; /* inode numbers */
    uint64_t offset;
    char name[CRASH_NAME], to_name[CRASH_NAME];
} CrashEvent;

/*
 * For the rest of this process, which is a test's child. @log is appended to; a new one begins with what is in @base already,
 * as files that were synced long ago.
 */
void crash_record_start(const char *log, const char *base);
void crash_record_mark(const char *text);

/* From the @after-th call on (@once: at it alone), SQLite's "write", "sync", "truncate" or "open" fail with @rc; rc 0: write half of the bytes, then fail as a full disk. */
void crash_record_fail_database(const char *call, int after, int rc, bool once);

#endif
