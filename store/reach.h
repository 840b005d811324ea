/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a store is reachable: the common ground of gc, fsck and stats.
 */
#ifndef KILN_STORE_REACH_H
#define KILN_STORE_REACH_H

#include "store/catalog.h"

/*
 * Fills the temporary tables `live` (digest of blobs and maps) and `live_segment` (digest), made when missing, from
 * images, states and memos. @with_states false leaves the bake cache out. In a transaction.
 */
bool reach_mark(Database *db, bool with_states, GError **error);

#endif
