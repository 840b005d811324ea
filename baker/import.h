/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finished images that were made elsewhere, taken into the store as they are: nothing is run, nothing is changed.
 */
#ifndef KILN_BAKER_IMPORT_H
#define KILN_BAKER_IMPORT_H

#include "store/store.h"

/*
 * A raw or qcow2 disk, an OCI archive or an OCI layout's folder, told by what it holds. Published under @name. The same file gives the
 * same image ID. Array of StoreImage*.
 */
bool import_file(Store *store, const char *path, const char *name, GPtrArray **ret, GError **error);

#endif
