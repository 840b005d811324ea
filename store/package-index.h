/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which packages are in which images, in the catalog: a question about all images is one query.
 *
 * An image that is published with its list is entered at once. Those from before, and those of a catalog that was made again, are entered
 * when somebody asks: store_unindexed_images(), then store_index_packages() for each.
 */
#ifndef KILN_STORE_PACKAGE_INDEX_H
#define KILN_STORE_PACKAGE_INDEX_H

#include "store/image.h"

/* @list: [{"type", "name", "version", "architecture"}], the rest of an entry is of no interest here. */
bool store_index_packages(Store *store, const StoreImage *image, const json_t *list, GError **error);

/* Array of StoreImage*, also records whose bytes are gone. */
bool store_unindexed_images(Store *store, GPtrArray **ret, GError **error);

typedef struct PackageHit {
    const char *type, *package, *version, *architecture; /* architecture may be NULL */
    const char *name, *kind;                             /* of the image */
    Digest image;
    int64_t created;
    bool newest;     /* its name and kind still mean it */
    bool bytes_gone;
} PackageHit;

/* False ends the search. Texts live until it returns. */
typedef bool PackageHitFn(const PackageHit *hit, void *arg);

/* Every image that has a package called @package, newest first. */
bool store_find_package(Store *store, const char *package, PackageHitFn *fn, void *arg, GError **error);

#endif
