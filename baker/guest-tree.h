/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's root as a tree, by one walk of the runner: for file systems that the host cannot read (xfs, btrfs, what lies on LVM) and for roots
 * that are spread over several. All that is mounted is one tree, whatever it lies on.
 *
 * The guest is hostile: names come once and their folders first, sizes and sums have bounds, and contents are told in order. Contents are kept
 * as blocks by what they are, not by where they lie on the disk: a compressed or inline one costs blocks of its own, any other finds the
 * disk's.
 */
#ifndef KILN_BAKER_GUEST_TREE_H
#define KILN_BAKER_GUEST_TREE_H

#include "baker/secrets.h"
#include "provisioner/guest.h"
#include "store/store.h"

/*
 * An outline: path -> what would be another value if the entry had been changed. Holds against another outline of the same guest, by
 * which the steps that brought a file are known.
 */
typedef GHashTable GuestOutline;

/* Without contents. */
bool guest_outline_read(Guest *guest, GuestOutline **ret, GError **error);
/* {"+": [paths made or changed], "-": [paths gone]}, percent-encoded, sorted. */
json_t *guest_outline_diff(GuestOutline *before, GuestOutline *after);

/*
 * The tree and, in @writer, its file space. @disk_size bounds what the contents may be. A content with one of @secrets in it (NULL: there are none)
 * is an error.
 */
bool guest_tree_read(Guest *guest, StoreWriter *writer, uint64_t disk_size, const Secrets *secrets, Tree **ret, MapWriter **ret_space,
                     GuestOutline **ret_outline, GError **error);

#endif
