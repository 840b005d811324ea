/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reserve is made under another name and renamed when all of it is allocated: a file system that fills up while we allocate
 * leaves no half of it behind.
 */
#include "store/reserve.h"

#include "base/log.h"
#include "base/scope.h"
#include "base/units.h"
#include "store/io.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define NAME "reserve"
#define NAME_NEW "reserve.new"
#define DEFAULT_SIZE (64ull << 20)
#define MIN_SIZE (256ull << 10)
#define DISK_SHARE 32
#define ROOM 4 /* times its size must be free before it is made */
#define PIECE (64ull << 10)

static uint64_t wanted_size(const struct statvfs *disk)
{
    const char *text = g_getenv("KILN_RESERVE");
    uint64_t size;

    if (text && units_parse_size(text, &size, NULL))
        return size;
    size = MIN(DEFAULT_SIZE, (uint64_t)disk->f_blocks * disk->f_frsize / DISK_SHARE);
    return size < MIN_SIZE ? 0 : size;
}

static uint64_t size_of(const Store *store)
{
    struct stat st;

    return fstatat(store->dirfd, NAME, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_size : 0;
}

static bool allocate(Store *store, uint64_t size)
{
    auto_fd int fd = -1;

    (void)io_unlink(store->dirfd, NAME_NEW, 0);
    fd = io_open(store->dirfd, NAME_NEW, O_RDWR | O_CREAT | O_EXCL, 0664);
    if (fd >= 0 && fallocate(fd, 0, 0, (off_t)size) == 0 && io_rename(store->dirfd, NAME_NEW, store->dirfd, NAME) == 0)
        return true;
    (void)io_unlink(store->dirfd, NAME_NEW, 0);
    return false;
}

void store_reserve_keep(Store *store)
{
    struct statvfs disk;
    uint64_t size;

    if ((store->flags & STORE_OPEN_READONLY) || fstatvfs(store->dirfd, &disk) < 0)
        return;
    size = wanted_size(&disk);
    if (size == size_of(store) || (size && (uint64_t)disk.f_bavail * disk.f_frsize < ROOM * size))
        return;
    if (size == 0)
        (void)io_unlink(store->dirfd, NAME, 0);
    else if (!allocate(store, size))
        trace("store.reserve", "no room for a reserve of %" G_GUINT64_FORMAT " bytes", size);
}

void store_reserve_give_back(Store *store)
{
    struct statvfs disk;
    uint64_t size;

    if (fstatvfs(store->dirfd, &disk) < 0)
        return;
    size = MIN(wanted_size(&disk), (uint64_t)disk.f_bavail * disk.f_frsize / PIECE * PIECE);
    if (size > size_of(store))
        (void)allocate(store, size);
}

void store_reserve_use(Store *store)
{
    uint64_t size = size_of(store);
    struct statvfs disk;

    if (size == 0 || fstatvfs(store->dirfd, &disk) < 0 || (uint64_t)disk.f_bavail * disk.f_frsize >= size)
        return;
    if (io_unlink(store->dirfd, NAME, 0) == 0)
        log_info("the disk of store '%s' is full: its reserve is used to clean it", store->path);
}
