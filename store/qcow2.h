/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The qcow2 format, as far as we read and write it ourselves: the header of a file
 * that somebody gives us, judged before any tool opens it, and whole images of ours.
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

/* A version 3 image of 64 KiB clusters, zstd-compressed where that saves room. @fd is seekable and empty. */
struct Progress;
bool qcow2_write(StoreMap *map, int fd, struct Progress *progress, GError **error);

#endif
