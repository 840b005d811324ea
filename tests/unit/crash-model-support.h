/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk may hold after a crash, made from a recording (crash-record-support.h).
 *
 * The model is harsher than any file system: until a file is synced each of its sectors may hold any of the versions it
 * had since the last sync, and its size any of its sizes; until a folder is synced each of its names may be as it was
 * at any moment since then, whatever became of the bytes. Of a sector the newer version is there only with the older ones
 * beneath it, as a page cache writes it; a rename takes the old name away only where it gives the new one.
 */
#ifndef KILN_TESTS_CRASH_MODEL_SUPPORT_H
#define KILN_TESTS_CRASH_MODEL_SUPPORT_H

#include "tests/unit/crash-record-support.h"

typedef enum CrashMode {
    CRASH_KEEP,        /* the process was killed, the machine goes on */
    CRASH_DROP,        /* nothing that was not synced */
    CRASH_NAMES,       /* names reached the disk, bytes did not */
    CRASH_DATA,        /* bytes reached the disk, names did not */
    CRASH_TORN_512,    /* all but the end of the last write */
    CRASH_TORN_4K,
    CRASH_SECTORS_512, /* names at random, each sector at random */
    CRASH_SECTORS_4K,
    CRASH_WRITES,      /* names at random, whole writes at random */
    CRASH_MODES,
} CrashMode;
const char *crash_mode_name(CrashMode mode);

/* An event with its inode numbers made into numbers that are never used again. 0 is the base folder. */
typedef struct CrashOp {
    CrashKind kind;
    unsigned folder, node, to;
    uint64_t offset, size;
    const char *name, *to_name;
    const uint8_t *data;
} CrashOp;

typedef struct CrashLog {
    GArray *ops; /* of CrashOp; a test that breaks the order of writes changes it */
    unsigned nodes;
    GPtrArray *names; /* per node: the name it was made with, NULL for the base folder */
    GBytes *bytes;
    guint first;
} CrashLog;

CrashLog *crash_log_load(const char *path);
void crash_log_free(CrashLog *log);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CrashLog, crash_log_free)

/* The last mark among the first @prefix operations; "" before the first. */
const char *crash_log_mark(const CrashLog *log, guint prefix);

/* The first operation of the recording itself, after what was there before. */
guint crash_log_first(const CrashLog *log);

/* Makes the files as they may be when the machine stops after @prefix operations, in the empty folder @out. */
void crash_log_replay(const CrashLog *log, guint prefix, CrashMode mode, uint32_t seed, const char *out);

#endif
