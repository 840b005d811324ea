/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two databases of a store and the rows about bytes: segments, frames, blobs, maps, leases.
 *
 * Whoever gives a file its final name in segments/ or blobs/, or takes it away, does so inside a catalog transaction.
 * So a file without a row that is seen inside one belongs to nobody alive.
 */
#ifndef KILN_STORE_CATALOG_H
#define KILN_STORE_CATALOG_H

#include "store/database.h"
#include "store/segment.h"

bool catalog_create(const char *dir, GError **error); /* both databases, for a new store */
/* One of them, under its name and @suffix: for rebuilding beside what is there. */
bool catalog_open_file(const char *dir, bool state, const char *suffix, DatabaseMode mode, Database **ret, GError **error);
/* Opened on first use; fails when the store was opened without catalog. */
bool store_catalog(Store *store, Database **ret, GError **error);
bool store_state_db(Store *store, Database **ret, GError **error);

/*
 * Rows of a segment; one that is there already is only marked as young and living again. In a transaction. The first is for files that came
 * from elsewhere: as nobody knows how much of them is needed, gc is to measure them.
 */
bool catalog_add_segment(Database *db, const Segment *segment, int64_t created, GError **error);
bool catalog_add_segment_file(Database *db, const SegmentFile *file, int64_t created, GError **error);
/* Takes them away; none is no problem. */
bool catalog_remove_segment(Database *db, const Digest *digest, GError **error);
bool catalog_add_blob(Database *db, const Digest *digest, uint64_t size, uint64_t stored, int64_t created, GError **error);
bool catalog_add_map(Database *db, const Digest *digest, BlockClass class, uint64_t size, uint64_t data_bytes,
                     const Digest *segments, size_t count, GError **error);
/* In which segments the blocks of a repacked one are now, by its table (store/segment-moved.h). */
bool catalog_add_moved(Database *db, const Digest *segment, const GArray *targets /* of Digest */, GError **error);
/* A layer's compressed bytes that come out of a recipe. */
bool catalog_add_recipe(Database *db, const Digest *layer, const Digest *recipe, uint64_t size, GError **error);

/* The digests that a query with one column finds; @digest is its ?1 and may be NULL. */
bool catalog_digests(Database *db, GArray **ret, GError **error, const char *sql, const Digest *digest);

/* Generation counter of gc: see store/lease.c. */
bool catalog_generation(Database *db, int64_t *ret, GError **error);
bool catalog_bump_generation(Database *db, int64_t *ret, GError **error);

#endif
