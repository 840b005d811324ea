/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reserve: room that a store keeps for the day on which its disk is full.
 *
 * To remove something a store has to write: rows, a folder in tmp/, the ledger. So a file STORE/reserve holds that room. On a disk with less
 * free than that, store_open() with STORE_OPEN_UPKEEP (gc, prune, rm, fsck) removes it first, and store_close() makes it again of what is free
 * then. Others make it, when it is missing or too small and there is room for four of it.
 *
 * It is 64 MiB, on small disks the 32nd part of them, and none below 256 KiB. KILN_RESERVE=SIZE says another size, 0 none.
 */
#ifndef KILN_STORE_RESERVE_H
#define KILN_STORE_RESERVE_H

#include "store/pool.h"

/* Makes it when it is missing or too small and there is room. What goes wrong goes unsaid: it is only a reserve. */
void store_reserve_keep(Store *store);
/* Removes it when the disk is full. */
void store_reserve_use(Store *store);
/* After the work: makes it of what is free now, though it be less, before others take that. */
void store_reserve_give_back(Store *store);

#endif
