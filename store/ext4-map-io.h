/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens the ext4 file system at a place of a map, read-only, with libext2fs.
 *
 * Only for the few files that read file systems; they include this and nothing
 * else of libext2fs. Everything that libext2fs is given was bounded first.
 */
#ifndef KILN_STORE_EXT4_MAP_IO_H
#define KILN_STORE_EXT4_MAP_IO_H

#include "store/map.h"

#include <ext2fs/ext2fs.h>

/*
 * @map is borrowed for the life of the file system. Refused, in sentences: no ext file system, features we cannot
 * read (encryption, external journal ...), a journal that waits for recovery, sizes that do not fit [@offset, @offset+@size).
 */
bool ext4_open(StoreMap *map, uint64_t offset, uint64_t size, ext2_filsys *ret, GError **error);
/* The same though a journal waits: what is read may be older than what the journal holds, so read the journal and nothing else. */
bool ext4_open_unsettled(StoreMap *map, uint64_t offset, uint64_t size, ext2_filsys *ret, GError **error);
void ext4_close(ext2_filsys fs);

/* "cannot <what>: <libext2fs's words>", or the error of the map below when that is the cause. Returns false. */
bool ext4_fail(ext2_filsys fs, errcode_t code, GError **error, const char *format, ...) G_GNUC_PRINTF(4, 5);

/* True when [@offset...) starts with something that says it is ext2, ext3 or ext4. */
bool ext4_is_there(StoreMap *map, uint64_t offset, uint64_t size);

#endif
