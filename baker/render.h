/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The renderer: a tree becomes a disk, in user space, the same bytes every time.
 *
 * GPT with Debian's cloud layout (14 BIOS boot, 15 ESP, 1 root, physically last), GRUB for BIOS, ext4 written by
 * libext2fs. File data are not written: the map refers to the blocks of the tree's file space. Identities are
 * UUIDv5(kiln, name, role). Needs no privilege, no mount, no appliance.
 */
#ifndef KILN_BAKER_RENDER_H
#define KILN_BAKER_RENDER_H

#include "store/store.h"

typedef struct RenderSpec {
    const char *name;    /* seeds the identities */
    uint64_t size;       /* of the disk; 0: computed from the tree with room to work */
    int64_t epoch;       /* superblock times */
    bool bootable;       /* with boot loader and grub.cfg; needs a kernel in /boot */
    bool other_order;    /* folders are hashed by another seed: readers find their entries in another order */
    const char *cmdline; /* kernel arguments beyond root= ; NULL: what /etc/kernel/cmdline says, else console=tty0 console=ttyS0,115200 */
} RenderSpec;

/*
 * Writes the disk into @writer. @tree is not changed; grub.cfg is made here, from the kernels in /boot, newest first.
 * Errors: no kernel in /boot, unreadable kernel, tree too large for the size (says what would be enough).
 */
bool render_disk(Store *store, StoreWriter *writer, Tree *tree, StoreMap *files, const RenderSpec *spec, MapWriter **ret, GError **error);

/* What a disk without a size gets: the tree's content with room to work. */
uint64_t render_size_for(Tree *tree);

/* Can the boot loader's configuration carry these kernel arguments? */
bool render_kernel_arguments_check(const char *line, GError **error);

/* Offset and size of the root partition that render_disk uses for a disk of @size bytes. */
void render_root_extent(uint64_t size, uint64_t *ret_offset, uint64_t *ret_size);

#endif
