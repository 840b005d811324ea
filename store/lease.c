/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases: what keeps gc away from bytes that are stored but not published yet.
 *
 * A lease is a file in its process's tmp folder and dies with it. It holds the *generation* that the catalog counted
 * when it was taken. gc raises the generation, marks what is unreachable with the new number, and
 * removes something only when every live lease is at least as young as its mark: an older writer may have
 * met those bytes in the index before they were marked, and be about to refer to them. A younger one
 * cannot, because marked segments are not offered any more.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/catalog.h"
#include "store/io.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>

struct StoreLease {
    Store *store;
    char *name;
};

static bool write_generation(Store *store, int fd, GError **error)
{
    g_autofree char *text = NULL;
    Database *db;
    int64_t generation;

    if (!store_catalog(store, &db, error) || !catalog_generation(db, &generation, error))
        return false;
    text = g_strdup_printf("%" G_GINT64_FORMAT "\n", generation);
    return io_pwrite_full(fd, text, strlen(text), 0) || store_fail_errno(store, error, "write a lease in");
}

bool store_lease_take(Store *store, const char *why, StoreLease **ret, GError **error)
{
    g_autoptr(StoreLease) lease = NULL;
    auto_fd int fd = -1;
    int dirfd;

    if (!store_owner_dir(store, &dirfd, error))
        return false;
    lease = g_new0(StoreLease, 1);
    lease->store = store;
    lease->name = store_fresh_name(store, "lease");
    /* The file first, empty: until the number is written it counts as older than everything. */
    fd = io_open(dirfd, lease->name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return store_fail_errno(store, error, "take a lease in");
    if (!write_generation(store, fd, error))
        return false;
    *ret = g_steal_pointer(&lease);
    return true;
}

void store_lease_release(StoreLease *lease)
{
    if (!lease)
        return;
    if (lease->store->owner_dirfd >= 0)
        (void)io_unlink(lease->store->owner_dirfd, lease->name, 0);
    g_free(lease->name);
    g_free(lease);
}

bool store_hold_lease(Store *store, GError **error)
{
    StoreLease *lease = NULL;

    if (store->lease)
        return true;
    if (!store_lease_take(store, "this process", &lease, error))
        return false;
    AUTO_LOCK(&store->tmp_lock);
    if (store->lease) {
        store_lease_release(lease);
        return true;
    }
    store->lease = lease;
    return true;
}

static int64_t read_generation(int dir, const char *name)
{
    g_autoptr(GBytes) bytes = NULL;

    if (!file_load(dir, name, 64, &bytes, NULL))
        return G_MAXINT64; /* released in between */
    return g_ascii_strtoll(g_bytes_get_data(bytes, NULL), NULL, 10);
}

static void scan_owner(int tmp, const char *name, int64_t *oldest)
{
    auto_fd int dirfd = io_open(tmp, name, O_RDONLY | O_DIRECTORY, 0);
    auto_fd int owner = dirfd < 0 ? -1 : io_open(dirfd, "owner", O_RDONLY, 0);
    auto_dir DIR *dir = NULL;
    const struct dirent *entry;

    if (owner < 0 || flock(owner, LOCK_SH | LOCK_NB) == 0)
        return; /* dead */
    dir = fdopendir(dup(dirfd));
    while (dir && (entry = readdir(dir)))
        if (g_str_has_prefix(entry->d_name, "lease-"))
            *oldest = MIN(*oldest, read_generation(dirfd, entry->d_name));
}

bool store_oldest_lease(Store *store, int64_t *ret_generation, GError **error)
{
    auto_fd int tmp = io_open(store->dirfd, "tmp", O_RDONLY | O_DIRECTORY, 0);
    auto_dir DIR *dir = tmp < 0 ? NULL : fdopendir(dup(tmp));
    const struct dirent *entry;
    int64_t oldest = G_MAXINT64;

    if (!dir)
        return store_fail_errno(store, error, "read tmp of");
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            scan_owner(tmp, entry->d_name, &oldest);
    *ret_generation = oldest;
    return true;
}
