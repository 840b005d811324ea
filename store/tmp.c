/* SPDX-License-Identifier: Apache-2.0 */
/*
 * STORE/tmp: one folder per process that writes, alive as long as it holds the lock on the file `owner` in it.
 *
 * A folder whose owner file can be locked belongs to a dead process and may be removed at any time. The lock on
 * tmp/ itself (shared while a folder is being made, exclusive while dead ones are looked for) keeps a folder that is
 * just being made from looking dead.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/io.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

static int open_tmp(Store *store, int lock, GError **error)
{
    int fd = io_open(store->dirfd, "tmp", O_RDONLY | O_DIRECTORY, 0);

    if (fd < 0 || flock(fd, lock) < 0) {
        (void)store_fail_errno(store, error, "open tmp of");
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    return fd;
}

static bool make_owner(Store *store, GError **error)
{
    auto_fd int tmp = open_tmp(store, LOCK_SH, error);
    auto_fd int dir = -1, owner = -1;
    g_autofree char *name = g_strdup_printf("%d-%08x%08x", (int)getpid(), g_random_int(), g_random_int());

    if (tmp < 0)
        return false;
    if (io_mkdir(tmp, name, 0700) < 0)
        return store_fail_errno(store, error, "make a folder in tmp of");
    dir = io_open(tmp, name, O_RDONLY | O_DIRECTORY, 0);
    owner = dir < 0 ? -1 : io_open(dir, "owner", O_RDWR | O_CREAT | O_EXCL, 0600);
    if (owner < 0 || flock(owner, LOCK_EX | LOCK_NB) < 0)
        return store_fail_errno(store, error, "make a folder in tmp of");
    store->owner = g_steal_pointer(&name);
    store->owner_dirfd = g_steal_fd(&dir);
    store->owner_fd = g_steal_fd(&owner);
    return true;
}

bool store_owner_dir(Store *store, int *ret_dirfd, GError **error)
{
    if (!store_writable(store, error))
        return false;
    AUTO_LOCK(&store->tmp_lock);
    if (!store->owner && !make_owner(store, error))
        return false;
    *ret_dirfd = store->owner_dirfd;
    return true;
}

char *store_fresh_name(Store *store, const char *kind)
{
    AUTO_LOCK(&store->tmp_lock);
    return g_strdup_printf("%s-%u", kind, store->next_name++);
}

void store_owner_close(Store *store)
{
    auto_fd int tmp = -1;

    if (!store->owner)
        return;
    tmp = open_tmp(store, LOCK_SH, NULL);
    if (tmp >= 0)
        (void)io_remove_tree(tmp, store->owner); /* what stays is the next recovery's */
    scope_close_fd(&store->owner_dirfd);
    scope_close_fd(&store->owner_fd);
    g_clear_pointer(&store->owner, g_free);
}

bool store_make_tmpdir(Store *store, char **ret_path, GError **error)
{
    g_autofree char *name = store_fresh_name(store, "dir");
    int dirfd;

    if (!store_owner_dir(store, &dirfd, error))
        return false;
    if (io_mkdir(dirfd, name, 0700) < 0)
        return store_fail_errno(store, error, "make a folder in tmp of");
    *ret_path = g_build_filename(store->path, "tmp", store->owner, name, NULL);
    return true;
}

/* Called with tmp/ locked exclusively, so a missing owner file cannot be one that is about to be made. */
static bool owner_is_dead(int tmp, const char *name)
{
    g_autofree char *path = g_build_filename(name, "owner", NULL);
    auto_fd int fd = io_open(tmp, path, O_RDONLY, 0);

    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR;
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

bool store_clear_dead_owners(Store *store, bool *ret_found, GError **error)
{
    auto_fd int tmp = open_tmp(store, LOCK_EX, error);
    auto_dir DIR *dir = NULL;
    const struct dirent *entry;

    if (tmp < 0)
        return false;
    dir = fdopendir(dup(tmp));
    if (!dir)
        return store_fail_errno(store, error, "read tmp of");
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.' || !owner_is_dead(tmp, entry->d_name))
            continue;
        if (ret_found)
            *ret_found = true;
        if (!io_remove_tree(tmp, entry->d_name))
            return store_fail_errno(store, error, "clear tmp of");
    }
    return true;
}

bool store_open_unnamed(Store *store, int *ret_fd, GError **error)
{
    g_autofree char *folder = NULL, *path = NULL;
    auto_fd int fd = -1;

    if (!store_make_tmpdir(store, &folder, error))
        return false;
    path = g_build_filename(folder, "unnamed", NULL);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        (void)fail_errno(error, "write '%s'", path);
    (void)file_remove_tree(AT_FDCWD, folder, NULL); /* the descriptor keeps the bytes */
    if (fd < 0)
        return false;
    *ret_fd = g_steal_fd(&fd);
    return true;
}
