/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the cache of package indexes (see resolve-apt.c) from growing with every set of sources that was ever used.
 *
 * A folder goes in two steps, under its lock: to a name that nobody looks for, then away. Whoever waited for the lock sees that the
 * name is not what it locked, and makes the folder anew.
 */
#include "baker/resolve-parts.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define GONE_SUFFIX ".gone"

static bool is_old(const char *path, double max_age)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && difftime(time(NULL), st.st_mtime) > max_age;
}

/* One that is in use is not old, whatever its time says. */
static int lock_if_unused(const char *path)
{
    g_autofree char *name = g_build_filename(path, "lock", NULL);
    auto_fd int fd = open(name, O_RDWR | O_CLOEXEC);

    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 ? g_steal_fd(&fd) : -1;
}

static bool remove_space(const char *path, double max_age, bool dry_run, uint64_t *count, GError **error)
{
    g_autofree char *gone = g_strconcat(path, GONE_SUFFIX, NULL);
    auto_fd int lock = is_old(path, max_age) ? lock_if_unused(path) : -1;

    if (lock < 0 || !is_old(path, max_age))
        return true;
    (*count)++;
    if (dry_run)
        return true;
    if (rename(path, gone) < 0)
        return fail_errno(error, "remove '%s'", path);
    return file_remove_tree(AT_FDCWD, gone, error);
}

bool resolve_cache_trim(double max_age, bool dry_run, uint64_t *ret_count, GError **error)
{
    g_autofree char *folder = apt_cache_folder();
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL); /* absent: nothing was ever resolved */
    uint64_t count = 0;
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        bool half_gone = g_str_has_suffix(name, GONE_SUFFIX);

        if (!(half_gone ? dry_run || file_remove_tree(AT_FDCWD, path, error) : remove_space(path, max_age, dry_run, &count, error)))
            return false;
    }
    *ret_count = count;
    return true;
}
