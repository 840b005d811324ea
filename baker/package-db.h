/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What software a root holds, as its own package databases say, read from a tree without running anything of it:
 *
 *   deb     var/lib/dpkg/status, var/lib/dpkg/status.d/ (images without dpkg), owned paths from var/lib/dpkg/info/
 *   apk     lib/apk/db/installed, owned paths from there too
 *   rpm     the rpm database of the root, by the host's rpm program; without that program the root's packages are not known, and it is said
 *   npm     node_modules/NAME/package.json
 *   pypi    NAME.dist-info/METADATA, NAME.egg-info/PKG-INFO, owned paths from RECORD
 *   golang  modules that Go's linker wrote into programs (Go 1.18 and later)
 *
 * The types are those of package URLs (https://github.com/package-url/purl-spec). Databases are hostile: sizes and numbers are bounded, what
 * does not read as a package is passed over, a name or version with control characters is none.
 */
#ifndef KILN_BAKER_PACKAGE_DB_H
#define KILN_BAKER_PACKAGE_DB_H

#include "base/json.h"
#include "store/store.h"

typedef struct Package {
    char *type, *name, *version; /* never NULL */
    char *architecture;          /* from here on NULL where the database does not say */
    char *source;                /* what it was built from, "NAME" or "NAME VERSION" */
    char *license, *supplier, *homepage;
    char *path;                  /* the file that says so */
} Package;

void package_free(Package *package);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Package, package_free)

typedef struct PackageList {
    char *system, *release; /* ID and VERSION_ID of os-release; NULL where it does not say */
    GPtrArray *all;         /* of Package*, sorted by type, name, version and architecture */
} PackageList;

void package_list_free(PackageList *list);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PackageList, package_list_free)

bool package_db_read(Tree *tree, StoreMap *files, PackageList **ret, GError **error);

/* {"system", "release", "packages": [{"type", "name", "version", "architecture", ...}]}, and back. */
json_t *package_list_to_json(const PackageList *list);
bool package_list_from_json(const json_t *object, PackageList **ret, GError **error);

/* "pkg:deb/debian/openssl@3.0.16-1?arch=amd64"; @system may be NULL. Free with g_free. */
char *package_url(const Package *package, const char *system);

/*
 * Who owns which path: path -> package name, to be freed with g_hash_table_unref. package_owners() adds what @tree says to what is there; the
 * first one counts. The paths are the tree's own: a list that says /bin/sh means usr/bin/sh where bin is a link. @all: also what Python's and
 * rpm's databases say; without it the answer depends on nothing but the tree, and not on this machine's rpm program.
 */
GHashTable *package_owners_new(void);
bool package_owners(Tree *tree, StoreMap *files, bool all, GHashTable *owners, GError **error);

/* Adds to @sources: package name -> name of the source package that dpkg and apk were built from, where that is another. */
bool package_sources(Tree *tree, StoreMap *files, GHashTable *sources, GError **error);

#endif
