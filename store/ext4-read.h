/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the ext4 reader, for ext4-diff.c: outlines. An outline is a tree whose regular files carry, as sha256, a key made of
 * their blocks' hashes (tree-known.c); contents are read only when asked for. Equal keys are equal contents; different keys may be
 * equal contents too, as bytes behind the end of a file count. Files that have no such key (blocks smaller than 4 KiB, content inside
 * the inode) carry their true digest. data_offset is the reader's own.
 */
#ifndef KILN_STORE_EXT4_READ_H
#define KILN_STORE_EXT4_READ_H

#include "store/tree.h"

typedef struct Ext4Reader Ext4Reader;

bool ext4_outline(StoreMap *disk, uint64_t offset, uint64_t size, Ext4Reader **ret, GError **error);
void ext4_outline_free(Ext4Reader *outline);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Ext4Reader, ext4_outline_free)
Tree *ext4_outline_tree(Ext4Reader *outline); /* borrowed */
/* The true digest of a regular file of the outline. */
bool ext4_outline_content(Ext4Reader *outline, const TreeEntry *entry, Digest *ret, GError **error);

#endif
