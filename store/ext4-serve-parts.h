/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The confined reader's parts, for each other. Functions that return bool say by false that an answer cannot be had; the sentence was sent.
 */
#ifndef KILN_STORE_EXT4_SERVE_PARTS_H
#define KILN_STORE_EXT4_SERVE_PARTS_H

#include "store/ext4-serve-io.h"

#define SERVE_STEPS_MAX ((uint64_t)1 << 28) /* directory slots, extents and blocks looked at */

typedef struct Ext4Served {
    Ext4Port *port;
    ext2_filsys fs;
    uint64_t steps;
} Ext4Served;

/* False when there is no end in sight. */
bool serve_step(Ext4Served *s);

/* RUNS, INLINE, XATTR and ENTRY of an inode; @path is for sentences. */
bool serve_inode(Ext4Served *s, ext2_ino_t ino, const char *name, const char *path, bool *ret_folder, bool *ret_linked);
bool serve_inode_is_possible(const Ext4Served *s, ext2_ino_t ino);

bool serve_walk(Ext4Served *s);
bool serve_clean(Ext4Served *s);

#endif
