/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finished images that were made elsewhere, taken into the store as they are: nothing is run, nothing is changed.
 */
#ifndef KILN_BAKER_IMPORT_H
#define KILN_BAKER_IMPORT_H

#include "store/store.h"

typedef struct ImportFrom {
    const char *path;
    const char *parent; /* REF of a disk that the file is the next night of; NULL: @name's newest, if it has one */
    const char *what;   /* that errors call it; NULL: @path */
    bool alone;         /* without a parent, whatever @name has: an overlay is refused */
    const char *base;   /* with an overlay: the raw file it lies over, to be read and compared; may be NULL */
} ImportFrom;

/*
 * A raw or qcow2 disk, an overlay over a stored disk, an OCI archive or an OCI layout's folder, told by what it holds. Published under
 * @name. The same file gives the same image ID, whatever the parent. Array of StoreImage*.
 */
bool import_file(Store *store, const ImportFrom *from, const char *name, GPtrArray **ret, GError **error);

/* An image that was fetched from @what into a layout's folder, which may lack what the store has: laid down, and not published. */
bool import_pulled(Store *store, const char *folder, const char *what, const char *name, StoreImage **ret, GError **error);

/* A raw or qcow2 file, the same way; *ret_tree (may stay NULL) is the list of its files. */
bool import_pulled_disk(Store *store, const char *path, const char *what, const char *name, StoreImage **ret, Tree **ret_tree, GError **error);

#endif
