/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing a store.
 *
 * Everybody holds a shared lock on STORE/lock while the store is open. Whoever opens for writing and gets the
 * exclusive lock without waiting is alone and recovers first; the others leave recovery to a later one. Creation
 * writes `format` last, so a folder without it is no store yet and may be made again.
 */
#include "store/pool.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/block-index.h"
#include "store/catalog.h"
#include "store/frame-cache.h"
#include "store/io.h"
#include "store/layer-cache.h"
#include "store/reserve.h"
#include "store/store-private.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>

#define PLAIN_CACHE_SIZE (16u << 20)
#define HEADS_CACHE_SIZE (6u << 20)
#define LOCK_PATIENCE 30 /* seconds to wait for somebody's recovery */

bool store_writable(const Store *store, GError **error)
{
    return !(store->flags & STORE_OPEN_READONLY) || fail(error, "store '%s' is open for reading only", store->path);
}

bool store_fail_errno(const Store *store, GError **error, const char *doing)
{
    return fail_errno(error, "%s store '%s'", doing, store->path);
}

void store_set_cache(Store *store, size_t bytes)
{
    frame_cache_free(store->plain);
    store->plain = frame_cache_new(bytes);
}

const char *store_path(const Store *store)
{
    return store->path;
}

bool store_is_readonly(const Store *store)
{
    return store->flags & STORE_OPEN_READONLY;
}

/* --- creating --- */

/* Absent, empty, or left half-made by a creation that was killed: nothing but our own names and no `format`. */
static bool folder_is_free(const char *path)
{
    static const char *const ours[] = { ".", "..", "segments", "blobs", "index", "tmp", "lock", NULL };
    auto_dir DIR *dir = opendir(path);
    const struct dirent *entry;

    if (!dir)
        return errno == ENOENT;
    while ((entry = readdir(dir)))
        if (!g_strv_contains(ours, entry->d_name) && !g_str_has_prefix(entry->d_name, "catalog.db") &&
            !g_str_has_prefix(entry->d_name, "state.db") && !g_str_has_prefix(entry->d_name, "format."))
            return false;
    return true;
}

static bool make_folders(int dirfd, const char *path, GError **error)
{
    static const char *const names[] = { "segments", "blobs", "index", "tmp" };

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        if (io_mkdir(dirfd, names[i], 0755) < 0 && errno != EEXIST)
            return fail_errno(error, "make a folder in store '%s'", path);
    return true;
}

static bool remove_half_made_databases(int dirfd, const char *path, GError **error)
{
    static const char *const names[] = { "catalog.db", "catalog.db-wal", "catalog.db-shm", "state.db", "state.db-wal", "state.db-shm" };

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        if (io_unlink(dirfd, names[i], 0) < 0 && errno != ENOENT)
            return fail_errno(error, "remove '%s' from store '%s'", names[i], path);
    return true;
}

/* Last, and as everything else: the bytes, then the name, then the folder. */
static bool write_format(int dirfd, const char *path, GError **error)
{
    auto_fd int fd = io_open(dirfd, "format.new", O_WRONLY | O_CREAT | O_TRUNC, 0644);

    return (fd >= 0 && io_pwrite_full(fd, FORMAT_TEXT, strlen(FORMAT_TEXT), 0) && io_fdatasync(fd) == 0 &&
            io_rename(dirfd, "format.new", dirfd, "format") == 0 && io_fsync(dirfd) == 0) ||
           fail_errno(error, "write 'format' of store '%s'", path);
}

static bool share_databases(int dirfd, const char *path, GError **error);

/* With the exclusive lock: two processes may want to create the same store. */
static bool create_parts(int dirfd, const char *path, GError **error)
{
    if (faccessat(dirfd, "format", F_OK, 0) == 0)
        return true; /* the other one was quicker */
    if (!remove_half_made_databases(dirfd, path, error) || !make_folders(dirfd, path, error) || !catalog_create(path, error) ||
        !share_databases(dirfd, path, error))
        return false;
    if (io_fsync(dirfd) < 0)
        return fail_errno(error, "sync store '%s'", path);
    return write_format(dirfd, path, error);
}

/* Not simply waiting: whoever was quicker keeps a shared lock for as long as it works. */
static bool lock_for_creation(int dirfd, int lock)
{
    while (flock(lock, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return false;
        if (faccessat(dirfd, "format", F_OK, 0) == 0)
            return true;
        g_usleep(20000);
    }
    return true;
}

/* The store's own name must survive a power cut as well. */
static bool make_root(const char *path, GError **error)
{
    g_autofree char *above = g_path_get_dirname(path);
    auto_fd int fd = -1;

    if (!file_make_dirs(above, 0755, error))
        return fail_prefix(error, "store '%s'", path);
    if (io_mkdir(AT_FDCWD, path, 0755) < 0 && errno != EEXIST)
        return fail_errno(error, "make store '%s'", path);
    fd = io_open(AT_FDCWD, above, O_RDONLY | O_DIRECTORY, 0);
    return (fd >= 0 && io_fsync(fd) == 0) || fail_errno(error, "sync the folder of store '%s'", path);
}

static void share_like_folder(int dirfd);

/* SQLite makes its other files like these. */
static bool share_databases(int dirfd, const char *path, GError **error)
{
    struct stat st;

    if (fstat(dirfd, &st) < 0 || !(st.st_mode & S_IWGRP))
        return true;
    return (fchmodat(dirfd, "catalog.db", 0664, 0) == 0 && fchmodat(dirfd, "state.db", 0664, 0) == 0) ||
           fail_errno(error, "let the group of store '%s' write to its databases", path);
}

static bool create_store(const char *path, GError **error)
{
    auto_fd int dirfd = -1;
    auto_fd int lock = -1;

    if (!make_root(path, error))
        return false;
    dirfd = io_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (dirfd < 0)
        return fail_errno(error, "open store '%s'", path);
    share_like_folder(dirfd);
    lock = io_open(dirfd, "lock", O_RDWR | O_CREAT, 0644);
    if (lock < 0 || !lock_for_creation(dirfd, lock))
        return fail_errno(error, "lock store '%s'", path);
    return create_parts(dirfd, path, error);
}

/* --- opening --- */

static bool check_format(const Store *store, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GError) why = NULL;
    const char *text;
    char *end;
    unsigned long number;

    if (!file_load(store->dirfd, "format", 64, &bytes, &why))
        return fail_code(error, KILN_ERROR_NOT_FOUND, "'%s' is no kiln store (it has no readable file 'format')", store->path);
    text = g_bytes_get_data(bytes, NULL);
    if (!g_str_has_prefix(text, "kiln-store "))
        return fail(error, "'%s' is no kiln store (its file 'format' says something else)", store->path);
    number = strtoul(text + strlen("kiln-store "), &end, 10);
    if (number > FORMAT_VERSION)
        return fail(error, "store '%s' was written by a newer kiln (format %lu, this one reads %d): upgrade kiln", store->path,
                    number, FORMAT_VERSION);
    return (number == FORMAT_VERSION && *end == '\n') || fail(error, "store '%s' has a damaged file 'format'", store->path);
}

static bool lock_shared(Store *store, GError **error)
{
    for (int tries = 0; tries < LOCK_PATIENCE * 20; tries++) {
        if (flock(store->lock_fd, LOCK_SH | LOCK_NB) == 0)
            return true;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return store_fail_errno(store, error, "lock");
        g_usleep(50000);
    }
    return fail(error, "store '%s' is being recovered by another kiln; try again when it has finished", store->path);
}

static bool lock_store(Store *store, GError **error)
{
    bool readonly = store->flags & STORE_OPEN_READONLY;

    store->lock_fd = io_open(store->dirfd, "lock", readonly ? O_RDONLY : O_RDWR, 0);
    if (store->lock_fd < 0 && readonly)
        return true; /* a copy on read-only media may have none, and nobody writes there */
    if (store->lock_fd < 0)
        return store_fail_errno(store, error, "lock");
    if (readonly || (store->flags & STORE_OPEN_NO_CATALOG) || flock(store->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return lock_shared(store, error) && (readonly || (store->flags & STORE_OPEN_NO_CATALOG) ||
                                             store_clear_dead_owners(store, NULL, error));
    if (!store_recover(store, error))
        return false;
    return lock_shared(store, error);
}

/* Files of a store whose folder its group may write to are the group's, too. */
static void share_like_folder(int dirfd)
{
    struct stat st;

    io_share_with_group(fstat(dirfd, &st) == 0 && (st.st_mode & S_IWGRP));
}

/* Whoever may not write where files come and go may not write at all, and is told so once. */
static bool settle_access(Store *store, GError **error)
{
    struct stat st;
    const struct group *group;

    if ((store->flags & STORE_OPEN_READONLY) || faccessat(store->dirfd, ".", W_OK, AT_EACCESS) == 0)
        return true;
    if (store->flags & STORE_OPEN_ANYWAY) {
        store->flags |= STORE_OPEN_READONLY;
        return true;
    }
    if (errno == EROFS)
        return fail(error, "store '%s' is on a file system that is mounted read-only: it can be read, nothing can be changed", store->path);
    group = fstat(store->dirfd, &st) == 0 && (st.st_mode & S_IWGRP) ? getgrgid(st.st_gid) : NULL;
    return fail(error, "you may not write to store '%s'%s%s%s", store->path, group ? "; members of group '" : "", group ? group->gr_name : "",
                group ? "' may" : "");
}

static bool open_folders(Store *store, GError **error)
{
    store->dirfd = io_open(AT_FDCWD, store->path, O_RDONLY | O_DIRECTORY, 0);
    if (store->dirfd < 0 && errno == ENOENT)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "there is no store at '%s'", store->path);
    if (store->dirfd < 0)
        return store_fail_errno(store, error, "open");
    if (!check_format(store, error))
        return false;
    share_like_folder(store->dirfd);
    store->segments_fd = io_open(store->dirfd, "segments", O_RDONLY | O_DIRECTORY, 0);
    store->blobs_fd = io_open(store->dirfd, "blobs", O_RDONLY | O_DIRECTORY, 0);
    return (store->segments_fd >= 0 && store->blobs_fd >= 0) || store_fail_errno(store, error, "open a folder of");
}

static Store *store_new(const char *path, unsigned flags)
{
    Store *store = g_new0(Store, 1);

    store->path = g_canonicalize_filename(path, NULL);
    store->flags = flags;
    store->dirfd = store->segments_fd = store->blobs_fd = store->lock_fd = store->owner_dirfd = store->owner_fd = -1;
    g_mutex_init(&store->lock);
    g_mutex_init(&store->database_lock);
    g_mutex_init(&store->tmp_lock);
    g_mutex_init(&store->index_lock);
    store->segments = segment_table_new();
    store->forgotten = segment_list_new();
    store->plain = frame_cache_new(PLAIN_CACHE_SIZE);
    store->heads = frame_cache_new(HEADS_CACHE_SIZE);
    store->layer_cache = LAYER_CACHE_QUOTA;
    return store;
}

bool store_open(const char *dir, unsigned flags, Store **ret, GError **error)
{
    g_autoptr(Store) store = store_new(dir, flags);
    g_autofree char *format = g_build_filename(store->path, "format", NULL);

    if ((flags & STORE_OPEN_CREATE) && !(flags & STORE_OPEN_READONLY) && access(format, F_OK) < 0 && folder_is_free(store->path) &&
        !create_store(store->path, error))
        return false;
    if (!open_folders(store, error) || !settle_access(store, error))
        return false;
    if (store->flags & STORE_OPEN_UPKEEP)
        store_reserve_use(store);
    if (!lock_store(store, error))
        return false;
    if (!(store->flags & (STORE_OPEN_UPKEEP | STORE_OPEN_NO_CATALOG)))
        store_reserve_keep(store);
    *ret = g_steal_pointer(&store);
    return true;
}

void store_close(Store *store)
{
    if (!store)
        return;
    store_lease_release(store->lease);
    block_index_close(store->index);
    database_close(store->catalog);
    database_close(store->state);
    store_owner_close(store);
    if ((store->flags & STORE_OPEN_UPKEEP) && store->dirfd >= 0)
        store_reserve_give_back(store);
    g_hash_table_destroy(store->segments);
    g_ptr_array_unref(store->forgotten);
    frame_cache_free(store->plain);
    frame_cache_free(store->heads);
    scope_close_fd(&store->segments_fd);
    scope_close_fd(&store->blobs_fd);
    scope_close_fd(&store->lock_fd);
    scope_close_fd(&store->dirfd);
    g_mutex_clear(&store->lock);
    g_mutex_clear(&store->database_lock);
    g_mutex_clear(&store->tmp_lock);
    g_mutex_clear(&store->index_lock);
    g_free(store->path);
    g_free(store);
}
