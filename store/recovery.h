/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking a store's files and taking in those that no database knows.
 */
#ifndef KILN_STORE_RECOVERY_H
#define KILN_STORE_RECOVERY_H

#include "store/catalog.h"
#include "store/map-private.h"

typedef bool StoreFileFn(Store *store, int dirfd, const char *fan, const char *name, void *arg, GError **error);

/* All files below segments/ or blobs/ (@topfd). */
bool store_each_file(Store *store, int topfd, StoreFileFn *fn, void *arg, GError **error);
bool store_parse_file_name(const char *fan, const char *name, Digest *ret, bool *ret_packed);

/* Catalogues whole files without a row, removes broken ones. Takes the catalog's write lock. */
bool store_adopt(Store *store, GError **error);

/* Into an empty catalog, in its transaction: every file there is. One whose bytes are wrong stays, and is named in @notes. */
bool store_catalog_files(Store *store, Database *db, GPtrArray *notes, GError **error);

/* Adds the rows of the map in blob @digest; a blob that is no map is fine. In a transaction. */
bool store_catalog_map(Store *store, Database *db, const Digest *digest, GError **error);

/* Has the store, in files or by tables of repacked segments, each block that the map names? Files are not looked into. */
bool store_has_blocks(Store *store, const MapBody *body);

#endif
