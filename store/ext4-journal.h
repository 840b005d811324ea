/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the journal of an ext4 that is in use holds (jbd2), laid over its disk: the file system as a mount after a power cut would find it.
 */
#ifndef KILN_STORE_EXT4_JOURNAL_H
#define KILN_STORE_EXT4_JOURNAL_H

#include "store/map.h"

/*
 * *ret is @disk itself when no journal waits, else a patched map. A transaction without its commit never happened. *ret_left: blocks of fast
 * commits, which are newer than all transactions and are not applied.
 */
bool ext4_settle(StoreMap *disk, uint64_t offset, uint64_t size, StoreMap **ret, uint64_t *ret_left, GError **error);

#endif
