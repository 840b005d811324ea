/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single files and folders of an ext4 root in a map, for whoever needs three files and not a whole tree.
 *
 * The file system is hostile: links are followed inside of it only and as often as libext2fs allows (8), sizes are held
 * against the caller's limit before anything is allocated, names are cut off at a number.
 */
#include "base/error.h"
#include "store/ext4-map-io.h"
#include "store/tree.h"

#include <string.h>

#define NAMES_MAX 65536

struct Ext4Root {
    StoreMap *map;
    ext2_filsys fs;
};

bool ext4_root_open(StoreMap *map, uint64_t offset, uint64_t size, Ext4Root **ret, GError **error)
{
    g_autoptr(Ext4Root) root = g_new0(Ext4Root, 1);

    root->map = store_map_ref(map);
    if (!ext4_open(map, offset, size, &root->fs, error))
        return false;
    *ret = g_steal_pointer(&root);
    return true;
}

void ext4_root_close(Ext4Root *root)
{
    if (!root)
        return;
    if (root->fs)
        ext4_close(root->fs);
    store_map_unref(root->map);
    g_free(root);
}

/* *ret_ino is 0 for a path that leads nowhere, also by links in circles. */
static bool find_inode(Ext4Root *root, const char *path, ext2_ino_t *ret_ino, struct ext2_inode *ret, GError **error)
{
    errcode_t code = ext2fs_namei_follow(root->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, ret_ino);

    if (code == EXT2_ET_FILE_NOT_FOUND || code == EXT2_ET_NO_DIRECTORY || code == EXT2_ET_SYMLINK_LOOP) {
        *ret_ino = 0;
        return true;
    }
    if (!code)
        code = ext2fs_read_inode(root->fs, *ret_ino, ret);
    return !code || ext4_fail(root->fs, code, error, "find '%s'", path);
}

static bool read_all(Ext4Root *root, ext2_ino_t ino, const char *path, size_t size, GBytes **ret, GError **error)
{
    g_autofree char *data = g_malloc(size + 1);
    ext2_file_t file = NULL;
    size_t done = 0;
    errcode_t code = ext2fs_file_open(root->fs, ino, 0, &file);

    while (!code && done < size) {
        unsigned int got = 0;

        code = ext2fs_file_read(file, data + done, (unsigned int)MIN(size - done, (size_t)1 << 20), &got);
        if (!code && got == 0)
            break;
        done += got;
    }
    if (file)
        (void)ext2fs_file_close(file); /* read-only */
    if (code)
        return ext4_fail(root->fs, code, error, "read '%s'", path);
    data[done] = '\0';
    *ret = g_bytes_new_take(g_steal_pointer(&data), done);
    return true;
}

bool ext4_root_read(Ext4Root *root, const char *path, size_t max, GBytes **ret, GError **error)
{
    struct ext2_inode inode;
    ext2_ino_t ino;

    *ret = NULL;
    if (!find_inode(root, path, &ino, &inode, error))
        return false;
    if (!ino || !LINUX_S_ISREG(inode.i_mode))
        return true;
    if (EXT2_I_SIZE(&inode) > max)
        return fail(error, "'%s' of the root is larger than %zu bytes", path, max);
    return read_all(root, ino, path, (size_t)EXT2_I_SIZE(&inode), ret, error);
}

static int take_name(struct ext2_dir_entry *entry, int offset, int block_size, char *block, void *arg)
{
    GPtrArray *names = arg;
    g_autofree char *name = g_strndup(entry->name, (gsize)ext2fs_dirent_name_len(entry));

    (void)offset, (void)block_size, (void)block;
    if (!entry->inode || !*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strchr(name, '/'))
        return 0;
    g_ptr_array_add(names, g_steal_pointer(&name));
    return names->len >= NAMES_MAX ? DIRENT_ABORT : 0;
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool ext4_root_list(Ext4Root *root, const char *path, char ***ret, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    struct ext2_inode inode;
    ext2_ino_t ino;
    errcode_t code;

    if (!find_inode(root, path, &ino, &inode, error))
        return false;
    if (ino && LINUX_S_ISDIR(inode.i_mode)) {
        code = ext2fs_dir_iterate(root->fs, ino, 0, NULL, take_name, names);
        if (code)
            return ext4_fail(root->fs, code, error, "list '%s'", path);
    }
    g_ptr_array_sort(names, compare_names);
    g_ptr_array_set_free_func(names, NULL);
    g_ptr_array_add(names, NULL);
    *ret = (char **)g_ptr_array_free(g_steal_pointer(&names), FALSE);
    return true;
}
