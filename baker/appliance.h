/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln's own appliance: what libguestfs calls a fixed one, trimmed to what a bake of plain partitions needs.
 *
 *     CACHE/appliance/<key>/
 *         kernel       the host's, unpacked (a guest without KVM is slow at that), or as it is where it cannot start like that
 *         initrd       baker/appliance/init.c, the dozen kernel modules that find the disks, and the runner
 *         root         what supermin makes of the programs that libguestfs's daemon calls, without those for LVM, LUKS, btrfs, arrays
 *         README.fixed
 *
 * CACHE is file_cache_dir(). The key covers all that goes in: the kernel, our two programs, libguestfs's own parts and the versions of
 * the packages that supermin copies from. When one of them changes another one is built, some twenty seconds, and older ones go after a day.
 *
 * Disks that need more than it has (see appliance_suits) are worked on in libguestfs's stock appliance.
 */
#ifndef KILN_BAKER_APPLIANCE_H
#define KILN_BAKER_APPLIANCE_H

#include "store/store.h"

/* Where the appliance has kiln's runner. */
#define APPLIANCE_RUNNER "/run/kiln-runner"

typedef struct Appliance {
    char *path;    /* for guestfs_set_path */
    bool built;    /* it was not there */
    double seconds;
    uint64_t size; /* bytes on disk */
} Appliance;
void appliance_clear(Appliance *appliance);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Appliance, appliance_clear)

/* Finds it or builds it; @again: builds it in any case. Safe beside other processes and threads: one builds, others wait. */
bool appliance_get(bool again, Appliance *ret, GError **error);

/* Does the trimmed appliance do for @disk: partitions with ext2/3/4, FAT, swap or a boot loader, and nothing else? */
bool appliance_suits(StoreMap *disk, bool *ret, GError **error);

#endif
