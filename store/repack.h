/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repacking: the part of gc that gets dead blocks out of segments which are still needed for others.
 */
#ifndef KILN_STORE_REPACK_H
#define KILN_STORE_REPACK_H

#include "store/catalog.h"
#include "store/upkeep.h"

/*
 * Outside of transactions; segments created at or after @young are left alone. @rewrite: bytes that may be written for the sake of order.
 * Adds to @report. A second one at the same time does nothing.
 */
bool store_repack(Store *store, int64_t young, uint64_t rewrite, StoreGcReport *report, GError **error);

/*
 * In a transaction: takes away the rows of segments that a killed repacking had switched over already, files and all, and whose names
 * no map says.
 */
bool repack_forget_gone(Store *store, Database *db, GError **error);

#endif
