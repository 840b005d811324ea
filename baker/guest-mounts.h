/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the partitions of a vendor's disk belong in its root, as its /etc/fstab says, read on the host.
 *
 * libguestfs finds that out as well, by an inspection that also asks what distribution and architecture it is; where the processor is
 * emulated that takes longer than all the rest of a start.
 */
#ifndef KILN_BAKER_GUEST_MOUNTS_H
#define KILN_BAKER_GUEST_MOUNTS_H

#include "baker/guest-open.h"
#include "store/store.h"

/*
 * *ret: GuestMount*, the root first, parents before children; free with g_ptr_array_unref. NULL (with true) when the fstab speaks of
 * something that is not a plain partition of this disk: then libguestfs has to look.
 */
bool guest_mounts_find(StoreMap *disk, uint64_t root_offset, uint64_t root_size, GPtrArray **ret, GError **error);

#endif
