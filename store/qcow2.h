/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The qcow2 format, as far as we read and write it ourselves: the header of a file
 * that somebody gives us, judged before any tool opens it; what an overlay holds; and whole images of ours.
 */
#ifndef KILN_STORE_QCOW2_H
#define KILN_STORE_QCOW2_H

#include "store/map.h"

/*
 * Judges the header at the start of @fd. Refused: other versions than 2 and 3, a backing file, an external
 * data file, encryption, corruption marks, features we do not know, and sizes that no disk has. @what names
 * the file in errors.
 */
bool qcow2_check_header(int fd, const char *what, uint64_t *ret_virtual_size, GError **error);

/* An overlay: a qcow2 with a backing file. Everything but the backing file is judged as above. */
typedef struct Qcow2Overlay {
    int fd;           /* borrowed, as is @what */
    const char *what;
    uint64_t size;    /* of the disk */
    uint64_t file_size, cluster, table;
    uint32_t table_size;
    bool zero_bit, extended;
    char *backing;    /* as written: believe nothing */
} Qcow2Overlay;
/* Whether a header that qcow2_check_header() may still refuse names a backing file. */
bool qcow2_is_overlay(const uint8_t *head, size_t size);
bool qcow2_overlay_header(int fd, const char *what, Qcow2Overlay *ret, GError **error);
void qcow2_overlay_clear(Qcow2Overlay *overlay);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Qcow2Overlay, qcow2_overlay_clear)

/*
 * Calls @fn for what the overlay itself holds, ascending: [@at, @at + @size) of the disk is at @host of the file (which may end
 * inside: zeroes follow), or reads as zero (QCOW2_ZERO). The whole walk calls for no more bytes of data than the file is long.
 */
#define QCOW2_ZERO UINT64_MAX
typedef bool Qcow2RangeFn(uint64_t at, uint64_t size, uint64_t host, void *arg, GError **error);
bool qcow2_overlay_each(const Qcow2Overlay *overlay, Qcow2RangeFn *fn, void *arg, GError **error);

/* A version 3 image of 128 KiB clusters, zstd-compressed where that saves room. @fd is seekable and empty. */
struct Progress;
bool qcow2_write(StoreMap *map, int fd, struct Progress *progress, GError **error);

#endif
