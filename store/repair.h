/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making damaged and missing files of a store good again: fsck --repair.
 *
 * Where the bytes come from, in this order:
 *
 *   blob     its own content, where only its compressed form has changed; the other store
 *   segment  the same segment whole, from the other store; else its frames one by one: blocks of the damaged file that are good, blocks of the
 *            same segment in the other store, blocks with the same hash anywhere in this store, or anywhere in the other one
 *   table    of a repacked segment: the other store's segment of that name
 *
 * A segment whose frames come together as they were has its name again. Otherwise its blocks go into a new segment, and a table as gc leaves it when
 * it repacks (segment-moved.h) says where they are now: no map changes. Blocks that nobody has stay lost; then the damaged file
 * stays where it is, unless readers could not even open it.
 *
 * Nothing is made worse: what takes a place is whole, verified and synced before, and what it takes the place of is kept in STORE/damaged/
 * under its name and a number, until somebody deletes it. A repair that is killed has changed nothing, or all of one file.
 */
#ifndef KILN_STORE_REPAIR_H
#define KILN_STORE_REPAIR_H

#include "store/damage.h"

/*
 * After damage_describe(). Marks what was repaired; one sentence for each of these goes to @repairs, and why something was not repaired goes
 * to its own sentences. @from may be NULL.
 */
bool store_repair(Store *store, Store *from, DamageList *damage, GPtrArray *repairs, GError **error);

#endif
