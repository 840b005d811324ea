/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout of a tree's file space, for those who make or read one.
 */
#ifndef KILN_STORE_TREE_SPACE_H
#define KILN_STORE_TREE_SPACE_H

#include "store/tree.h"

#define TREE_FILE_MAX ((uint64_t)1 << 43) /* 8 TiB: no file of a root is larger, a lie in a header may be */

static inline uint64_t tree_space_round(uint64_t size)
{
    return (size + STORE_BLOCK_SIZE - 1) & ~(uint64_t)(STORE_BLOCK_SIZE - 1);
}

/* One distinct file of the space. */
typedef struct TreeSpaceFile {
    uint64_t from; /* data_offset before */
    uint64_t to;   /* data_offset now */
    uint64_t size; /* bytes of content */
    const TreeEntry *entry;
} TreeSpaceFile;

/*
 * Gives every file its data_offset: files in entry order, each from the next 4 KiB boundary, content of equal SHA-256
 * and size once. @ret_files (may be NULL) gets a GArray of TreeSpaceFile; ret_files' last `to` + size is the space's end.
 */
bool tree_space_lay_out(Tree *tree, GArray **ret_files, GError **error);
uint64_t tree_space_size(const GArray *files);

/* Reads the content of every file, equal ones once: is it what the tree says? For trees that come from elsewhere; both parts are there. */
bool tree_check_files(Store *store, const TreeStored *stored, GError **error);

#endif
