/* SPDX-License-Identifier: Apache-2.0 */
#include "store/downloads.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/io.h"
#include "store/store-private.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define KEPT_SECONDS (3 * 24 * 3600)

static void clean_one(int dirfd, const char *name)
{
    auto_fd int fd = openat(dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_mtime + KEPT_SECONDS < time(NULL) && flock(fd, LOCK_EX | LOCK_NB) == 0)
        (void)unlinkat(dirfd, name, 0);
}

static void clean(int dirfd)
{
    auto_dir DIR *dir = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            clean_one(dirfd, entry->d_name);
}

bool downloads_open(Store *store, int *ret_dirfd, GError **error)
{
    auto_fd int cache = -1, fd = -1;

    if (!store_writable(store, error))
        return false;
    if ((io_mkdir(store->dirfd, "cache", 0755) < 0 && errno != EEXIST) || (cache = io_open(store->dirfd, "cache", O_RDONLY | O_DIRECTORY, 0)) < 0 ||
        (io_mkdir(cache, "downloads", 0700) < 0 && errno != EEXIST) || (fd = io_open(cache, "downloads", O_RDONLY | O_DIRECTORY, 0)) < 0)
        return store_fail_errno(store, error, "make a folder in");
    clean(fd);
    *ret_dirfd = g_steal_fd(&fd);
    return true;
}

char *downloads_name(const Digest *digest, const char *kind)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strdup_printf("%s%s", digest_to_hex(digest, hex), kind);
}

/* Whoever had the lock may have taken the file away meanwhile. */
bool downloads_take(int dirfd, const Digest *digest, const char *kind, int *ret_fd, uint64_t *ret_have, GError **error)
{
    g_autofree char *name = downloads_name(digest, kind);

    for (;;) {
        auto_fd int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        struct stat ours, there;

        if (fd < 0)
            return fail_errno(error, "open a file for what is fetched");
        if (!file_lock(fd, name, "another kiln is fetching the same", error))
            return false;
        if (fstat(fd, &ours) < 0 || fstatat(dirfd, name, &there, AT_SYMLINK_NOFOLLOW) < 0 || ours.st_ino != there.st_ino)
            continue;
        *ret_have = (uint64_t)ours.st_size;
        *ret_fd = g_steal_fd(&fd);
        return true;
    }
}

void downloads_drop(int dirfd, const Digest *digest, const char *kind)
{
    g_autofree char *name = downloads_name(digest, kind);

    (void)unlinkat(dirfd, name, 0); /* what stays goes after three days */
}
