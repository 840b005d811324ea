/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stored image's recorded inputs, laid out again so that its template can be baked once more.
 *
 *   rebuild_open (files, variables, lock, source in a temporary folder) -> bake with @recorded as BakeOptions.rebuild -> rebuild_close
 *
 * What was not kept is named: a file that was too large or is not the same any more, a sensitive variable.
 */
#ifndef KILN_BAKER_REBUILD_H
#define KILN_BAKER_REBUILD_H

#include "baker/bake.h"

typedef struct Rebuild {
    Template *template;
    const TemplateBuild *build; /* the one of @template that made the image */
    GPtrArray *images;          /* of StoreImage*: the whole set as it is stored */
    GHashTable *kept;           /* what it keeps: name -> Digest* */
    char *dir, *lock;           /* the temporary folder; NULL: no packages steps */
    char *origin;               /* where the template was */
    BakeRebuild recorded;
} Rebuild;

/* @vars: "NAME=VALUE" of sensitive variables; may be NULL. */
bool rebuild_open(Store *store, const char *ref, const char *const *vars, Rebuild **ret, GError **error);
void rebuild_close(Rebuild *rebuild); /* also removes the folder */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Rebuild, rebuild_close)

#endif
