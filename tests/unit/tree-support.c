/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers of tree and disk tests; every failure ends the test at once.
 */
#include "tree-support.h"

#include "base/file.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

SupportStore *support_store(void)
{
    SupportStore *support = g_new0(SupportStore, 1);
    g_autoptr(GError) error = NULL;

    support->dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    g_assert_nonnull(support->dir);
    (void)store_open(support->dir, STORE_OPEN_CREATE, &support->store, &error);
    g_assert_no_error(error);
    return support;
}

void support_store_free(SupportStore *support)
{
    if (!support)
        return;
    store_close(support->store);
    (void)file_remove_tree(AT_FDCWD, support->dir, NULL);
    g_free(support->dir);
    g_free(support);
}

StoreMap *support_commit(Store *store, StoreWriter *writer, MapWriter *map, MapResult *ret_result)
{
    g_autoptr(GError) error = NULL;
    StoreMap *opened = NULL;
    MapResult result;

    (void)store_writer_commit(writer, &error);
    g_assert_no_error(error);
    map_writer_result(map, &result);
    (void)store_map_open(store, &result.digest, &opened, &error);
    g_assert_no_error(error);
    if (ret_result)
        *ret_result = result;
    return opened;
}

void support_tree(Store *store, SupportFillFn *fill, Tree **ret_tree, StoreMap **ret_files)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(TreeBuilder) builder = NULL;
    g_autoptr(MapWriter) space = NULL;

    (void)store_writer_open(store, BLOCK_PUBLIC, &writer, &error);
    g_assert_no_error(error);
    (void)tree_builder_new(writer, &builder, &error);
    g_assert_no_error(error);
    fill(builder);
    (void)tree_builder_finish(builder, ret_tree, &space, &error);
    g_assert_no_error(error);
    *ret_files = support_commit(store, writer, space, NULL);
}

void support_add(TreeBuilder *builder, const char *path, char type, uint16_t mode)
{
    TreeEntry *entry = tree_entry_new(path, type);

    entry->mode = mode;
    entry->mtime = 1600000000;
    g_assert_true(tree_builder_add(builder, entry, NULL));
}

void support_add_file(TreeBuilder *builder, const char *path, const void *data, size_t size)
{
    TreeEntry *entry = tree_entry_new(path, 'f');

    entry->mode = 0644;
    entry->mtime = 1600000001;
    g_assert_true(tree_builder_begin(builder, entry, NULL));
    g_assert_true(tree_builder_data(builder, data, size, NULL));
    g_assert_true(tree_builder_end(builder, NULL));
}

void support_export(StoreMap *map, uint64_t offset, uint64_t size, const char *path)
{
    auto_fd int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    static uint8_t buffer[1 << 20];

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, (off_t)size), ==, 0);
    for (uint64_t at = 0; at < size;) {
        uint64_t end;
        bool zero;
        size_t part;

        store_map_extent(map, offset + at, &end, &zero);
        part = (size_t)MIN(MIN(end - offset - at, size - at), sizeof buffer);
        if (!zero) {
            g_assert_true(store_map_pread(map, buffer, part, offset + at, NULL));
            g_assert_true(file_pwrite_full(fd, buffer, part, at, path, NULL));
        } else {
            part = (size_t)MIN(end - offset - at, size - at);
        }
        at += part;
    }
}

StoreMap *support_import(Store *store, const char *path)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t size = (uint64_t)lseek(fd, 0, SEEK_END);

    g_assert_cmpint(fd, >=, 0);
    (void)(store_writer_open(store, BLOCK_PRIVATE, &writer, &error) && map_writer_new(writer, size, NULL, &map, &error) &&
           map_writer_write_file(map, 0, fd, size, NULL, &error) && map_writer_finish(map, &error));
    g_assert_no_error(error);
    return support_commit(store, writer, map, NULL);
}

int support_sh(const char *format, ...)
{
    g_autofree char *line = NULL, *out = NULL, *err = NULL;
    char *argv[] = {(char *)"/bin/bash", (char *)"-c", NULL, NULL};
    int status = -1;
    va_list args;

    va_start(args, format);
    line = g_strdup_vprintf(format, args);
    va_end(args);
    argv[2] = line;
    g_assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &out, &err, &status, NULL));
    if (status != 0)
        g_printerr("%s\n%s%s", line, out, err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
