/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk image made larger: zeroes behind it, the backup of its partition table at the new end, and the root's partition up to there.
 *
 * Only the partition that lies last can grow. The file system in it grows in the guest (provisioner_first_boot()).
 */
#ifndef KILN_BAKER_DISK_GROW_H
#define KILN_BAKER_DISK_GROW_H

#include "store/store.h"

#define DISK_GROW_ROOT_UNKNOWN UINT64_MAX

/*
 * Makes @ret of @disk, @size bytes (whole mebibytes, more than it has). @root: where the root's partition starts, or DISK_GROW_ROOT_UNKNOWN: then the last
 * partition is taken for it, unless it is of a kind that roots are not. What does not grow is told in the log.
 */
bool disk_grow(Store *store, StoreMap *disk, uint64_t size, uint64_t root, Digest *ret, GError **error);

#endif
