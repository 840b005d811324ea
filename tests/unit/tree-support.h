/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of trees and disks share: a store in a fresh folder, small trees made by hand, disks as raw files.
 */
#ifndef KILN_TESTS_TREE_SUPPORT_H
#define KILN_TESTS_TREE_SUPPORT_H

#include "store/store.h"

/* Writers and maps must be gone before their store: declare it first. */
typedef struct SupportStore {
    Store *store;
    char *dir;
} SupportStore;
SupportStore *support_store(void);
void support_store_free(SupportStore *support);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SupportStore, support_store_free)

/* A tree whose files were added by @fill, committed; files are open for reading. */
typedef void SupportFillFn(TreeBuilder *builder);
void support_tree(Store *store, SupportFillFn *fill, Tree **ret_tree, StoreMap **ret_files);

void support_add(TreeBuilder *builder, const char *path, char type, uint16_t mode);
void support_add_file(TreeBuilder *builder, const char *path, const void *data, size_t size);

/* Commits @writer and opens what @map became. */
StoreMap *support_commit(Store *store, StoreWriter *writer, MapWriter *map, MapResult *ret_result);

void support_export(StoreMap *map, uint64_t offset, uint64_t size, const char *path);
StoreMap *support_import(Store *store, const char *path);

/* Runs a shell line; the exit status. Its output goes to stderr when it fails. */
int support_sh(const char *format, ...) G_GNUC_PRINTF(1, 2);

#endif
