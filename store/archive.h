/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the host packed for other programs: one compressed, or several in an archive.
 *
 *   one file    gz bgzf zst xz bz2 lz4
 *   several     tar tar.gz tar.zst tar.xz tar.bz2 tar.lz4 zip
 *
 * Equal files give equal bytes (as long as the compressing library is the same): members belong to root, have mode 0644 and the time that the
 * caller gives. gz at its own level is made by kiln's frozen encoder. gz, bgzf, zst and xz use all processors.
 */
#ifndef KILN_STORE_ARCHIVE_H
#define KILN_STORE_ARCHIVE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ArchiveSpec {
    const char *format;
    int level; /* 0: the format's own */
    int64_t mtime;
} ArchiveSpec;

typedef struct ArchiveMember {
    char *name; /* in the archive */
    char *path; /* on this host */
} ArchiveMember;

extern const char *const archive_formats[]; /* NULL-terminated */
/* By a name's suffix, "tgz" and its like too; NULL when it tells none. */
const char *archive_format_of(const char *path);
/* A format that holds one file, and no name. */
bool archive_format_is_single(const char *format);
/* The highest level; 0: it has none. */
int archive_level_max(const char *format);

/* Makes @path, which is replaced when it is there. A format for one file gets one. Progress bar "compress". */
bool archive_write(const char *path, const ArchiveSpec *spec, const ArchiveMember *members, unsigned count, GError **error);

#endif
