/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the readers of package databases share. For baker/package-*.c only.
 */
#ifndef KILN_BAKER_PACKAGE_PARTS_H
#define KILN_BAKER_PACKAGE_PARTS_H

#include "baker/package-db.h"

typedef struct PackageScan {
    Tree *tree;
    StoreMap *files;
    GPtrArray *found; /* of Package* */
} PackageScan;

/* Takes the package; one without a sound name and version is dropped. */
void package_found(PackageScan *scan, Package *package);

/* Modules of a Go program; other files are passed over. */
bool package_go_read(PackageScan *scan, const TreeEntry *entry, GError **error);

/* The root's rpm database, where it has one. */
bool package_rpm_read(PackageScan *scan, GError **error);

/* The packages' headers in an "ndb" database, as rpmdb --importdb reads them; false where it is damaged. */
bool package_ndb_headers(const void *database, size_t size, GByteArray **ret);

/* Every path that rpm says a package has, without its first slash. */
typedef void PackageOwnFn(const char *path, const char *package, void *arg);
bool package_rpm_owners(Tree *tree, StoreMap *files, PackageOwnFn *own, void *arg, GError **error);

#endif
