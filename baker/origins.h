/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the files of an image came from.
 *
 * At the seal of a bake the working disk before each step is compared with the one after it; the last step that made or changed a path has
 * brought it. What no step touched came with the source: from the parent image, where there is one, else from the packages or the disk that
 * it was bootstrapped from. The set keeps the answer as canonical JSON, one list of percent-encoded paths for each step that changed something:
 *
 *   kiln.origins    { "steps": [ { "position", "step", "type", "paths": [...] } ] }
 *   kiln.packages   { "system", "release", "packages": [ { "type", "name", "version", ... } ] }
 *
 * Both are small, and stay when the bytes of an image go.
 */
#ifndef KILN_BAKER_ORIGINS_H
#define KILN_BAKER_ORIGINS_H

#include "baker/bake-internal.h"
#include "baker/image-root.h"
#include "baker/package-db.h"

#define ORIGINS_KEPT "kiln.origins"
#define PACKAGES_KEPT "kiln.packages"

/* Adds both to @inputs (name -> Digest*), for a set that is about to be published. Images without a list of files have neither. */
bool origins_keep(Store *store, GPtrArray *chains /* of BakeChain* */, GPtrArray *images, GHashTable *inputs, GError **error);
/* The list of packages alone, for images with one root that were not baked. @tree: the first one's as it was stored; NULL: it is loaded. */
bool origins_keep_packages(Store *store, GPtrArray *images, Tree *tree, GHashTable *inputs, GError **error);

/* The step, "2 packages", that brought @path, as what was kept for @kind says; *ret NULL where none did. Free with g_free. */
bool origins_kept_step(Store *store, GHashTable *kept, const char *kind, const char *path, char **ret, GError **error);

/* The packages of an image: the list that its set keeps, else what its root says; of an image without a list of files none. */
bool origins_packages(Store *store, const StoreImage *image, PackageList **ret, GError **error);

typedef struct Origin {
    char *package, *version; /* that has the path; NULL: none has */
    const StoreImage *image; /* the image whose bake brought it: this one or an ancestor of it; of the Origins */
    char *step, *type;       /* the step of that bake; NULL: it came with the source */
    unsigned position;       /* of the step, from 1; 0: the seal's cleaning */
    char *source;            /* what that bake started from, as text; NULL: not known */
    bool recorded;           /* that bake kept which step brought what; false: step and source are not known */
} Origin;

/* Answers for one root, which must outlive it; what all of its files have in common is read once. */
typedef struct Origins Origins;
bool origins_open(Store *store, const ImageRoot *root, Origins **ret, GError **error);
/* Who brought @entry of the root. */
bool origins_find(Origins *origins, const TreeEntry *entry, Origin *ret, GError **error);
void origin_clear(Origin *origin);
void origins_free(Origins *origins);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Origins, origins_free)

#endif
