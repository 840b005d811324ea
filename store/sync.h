/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store copied into another folder, which is a store of its own then: what its names, sets, channels, journals and signatures say, and every
 * segment and blob that its sets need. The bake cache and what was fetched for it stay behind.
 *
 * Files go first, one by one under their names, each verified and synced; what is there already is not read. Sets follow, and then,
 * in one transaction, everything that names them. So a copy that was cut short shows what it showed before, and the next one goes on.
 */
#ifndef KILN_STORE_SYNC_H
#define KILN_STORE_SYNC_H

#include "store/pool.h"

typedef struct StoreSyncReport {
    uint64_t segments, blobs, bytes; /* copied */
    uint64_t present;                /* files that were there already */
} StoreSyncReport;

/*
 * Makes the folder @to when it is absent or empty. Afterwards it says what @from said when this began: what was removed there goes here,
 * too. Refused when @to is another store than @from, when its logs are not a beginning of those in @from, or when it has sets of its own. Writers in both stores may go on.
 */
bool store_sync_all(Store *from, const char *to, StoreSyncReport *ret, GError **error);

#endif
