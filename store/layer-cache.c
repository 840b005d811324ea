/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of layers: a flat folder, without a database.
 *
 *   cache/lock              flock: held while the folder is looked over, cleaned or a name is given
 *   cache/<hex>             a layer; its mtime is when it was used last
 *   cache/<hex>.part-<id>   one being written: as long as the whole from the beginning, so that it counts, and locked (flock) by who writes it
 *
 * Room is taken under the lock, before the first byte: entries and parts together stay below the quota at every moment. A part without a lock
 * belongs to a dead process. Nothing is synced: a power cut may leave an entry with wrong bytes under a right name, and reading verifies the
 * digest before it gives a single byte, and removes what is wrong.
 */
#include "store/layer-cache.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/io.h"
#include "store/store-private.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define PART ".part-"
#define SPARE (64ull << 20) /* what a disk keeps free of us */

struct LayerCacheEntry {
    Store *store;
    int dirfd, fd;
    char *part, *name;
    uint64_t size, at;
    bool failed, kept;
};

/* What lies in the folder. */
typedef struct Item {
    char *name;
    Digest blob;
    uint64_t size;
    struct timespec used;
    bool part;
} Item;

static void item_free(Item *item)
{
    g_free(item->name);
    g_free(item);
}

/* -1 when there is none, and none can be made. */
static int open_folder(Store *store, bool make)
{
    int fd = io_open(store->dirfd, "cache", O_RDONLY | O_DIRECTORY, 0);

    if (fd >= 0 || !make || errno != ENOENT || (store->flags & STORE_OPEN_READONLY))
        return fd;
    if (io_mkdir(store->dirfd, "cache", 0755) < 0 && errno != EEXIST)
        return -1;
    return io_open(store->dirfd, "cache", O_RDONLY | O_DIRECTORY, 0);
}

static int lock_folder(int dirfd)
{
    auto_fd int fd = io_open(dirfd, "lock", O_RDWR | O_CREAT, 0644);
    int rc = -1;

    if (fd < 0)
        return -1;
    do
        rc = flock(fd, LOCK_EX);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -1 : g_steal_fd(&fd);
}

/* --- looking over the folder, under the lock ---------------------------------- */

static bool part_is_dead(int dirfd, const char *name)
{
    auto_fd int fd = io_open(dirfd, name, O_RDONLY, 0);

    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

/* NULL for what is not ours. */
static Item *look_at(int dirfd, const char *name)
{
    g_autofree char *hex = g_strndup(name, DIGEST_HEX_SIZE - 1);
    const char *rest = name + strlen(hex);
    struct stat st;
    Digest blob;
    Item *item;

    if (!digest_parse(hex, &blob) || (*rest && !g_str_has_prefix(rest, PART)) ||
        fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
        return NULL;
    item = g_new0(Item, 1);
    *item = (Item){g_strdup(name), blob, (uint64_t)st.st_size, st.st_mtim, *rest != 0};
    return item;
}

static int compare_use(gconstpointer a, gconstpointer b)
{
    const Item *x = *(Item *const *)a, *y = *(Item *const *)b;

    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    if (x->used.tv_nsec != y->used.tv_nsec)
        return x->used.tv_nsec < y->used.tv_nsec ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Least recently used first; parts of the dead are removed on the way. */
static GPtrArray *list_items(int dirfd, uint64_t *ret_bytes)
{
    GPtrArray *items = g_ptr_array_new_with_free_func((GDestroyNotify)item_free);
    auto_dir DIR *dir = NULL;
    const struct dirent *entry;
    int copy = io_open(dirfd, ".", O_RDONLY | O_DIRECTORY, 0);

    *ret_bytes = 0;
    dir = copy < 0 ? NULL : fdopendir(copy);
    while (dir && (entry = readdir(dir))) {
        Item *item = look_at(dirfd, entry->d_name);

        if (!item)
            continue;
        if (item->part && part_is_dead(dirfd, item->name) && io_unlink(dirfd, item->name, 0) == 0) {
            item_free(item);
            continue;
        }
        *ret_bytes += item->size;
        g_ptr_array_add(items, item);
    }
    g_ptr_array_sort(items, compare_use);
    return items;
}

static bool drop(int dirfd, const Item *item, uint64_t *bytes)
{
    if (item->part || (io_unlink(dirfd, item->name, 0) < 0 && errno != ENOENT))
        return false;
    trace("store.layer-cache", "dropping %s", item->name);
    *bytes -= item->size;
    return true;
}

/* At most @most bytes remain when it returns true. */
static bool make_way(int dirfd, const GPtrArray *items, uint64_t *bytes, uint64_t most)
{
    for (guint i = 0; i < items->len && *bytes > most; i++)
        (void)drop(dirfd, g_ptr_array_index(items, i), bytes); /* what cannot go is counted still */
    return *bytes <= most;
}

static bool is_there(const GPtrArray *items, const Digest *blob)
{
    for (guint i = 0; i < items->len; i++)
        if (digest_equal(&((const Item *)g_ptr_array_index(items, i))->blob, blob))
            return true;
    return false;
}

/* --- writing -------------------------------------------------------------------- */

static bool disk_has_room(int dirfd, uint64_t size)
{
    struct statvfs fs;

    return fstatvfs(dirfd, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize >= size + SPARE;
}

/* The part gets its whole length at once: that is what others count. */
static bool open_part(LayerCacheEntry *entry)
{
    entry->part = g_strdup_printf("%s" PART "%d-%08x", entry->name, (int)getpid(), g_random_int());
    entry->fd = io_open(entry->dirfd, entry->part, O_RDWR | O_CREAT | O_EXCL, 0644);
    return entry->fd >= 0 && flock(entry->fd, LOCK_EX | LOCK_NB) == 0 && io_truncate(entry->fd, (off_t)entry->size) == 0;
}

static bool take_room(LayerCacheEntry *entry, const Digest *blob)
{
    auto_fd int lock = lock_folder(entry->dirfd);
    g_autoptr(GPtrArray) items = NULL;
    uint64_t bytes;

    if (lock < 0)
        return false;
    items = list_items(entry->dirfd, &bytes);
    return !is_there(items, blob) && make_way(entry->dirfd, items, &bytes, entry->store->layer_cache - entry->size) &&
           disk_has_room(entry->dirfd, entry->size) && open_part(entry);
}

LayerCacheEntry *layer_cache_begin(Store *store, const Digest *blob, uint64_t size)
{
    g_autoptr(LayerCacheEntry) entry = NULL;
    char hex[DIGEST_HEX_SIZE];

    if ((store->flags & STORE_OPEN_READONLY) || size < LAYER_CACHE_LEAST || size > store->layer_cache)
        return NULL;
    entry = g_new0(LayerCacheEntry, 1);
    entry->store = store;
    entry->fd = -1;
    entry->size = size;
    entry->name = g_strdup(digest_to_hex(blob, hex));
    entry->dirfd = open_folder(store, true);
    return entry->dirfd >= 0 && take_room(entry, blob) ? g_steal_pointer(&entry) : NULL;
}

void layer_cache_put(LayerCacheEntry *entry, const void *data, size_t size)
{
    if (!entry || entry->failed)
        return;
    entry->failed = size > entry->size - entry->at || !io_pwrite_full(entry->fd, data, size, entry->at);
    entry->at += size;
}

void layer_cache_keep(LayerCacheEntry *entry)
{
    auto_fd int lock = -1;

    if (!entry || entry->failed || entry->at != entry->size)
        return;
    lock = lock_folder(entry->dirfd);
    entry->kept = lock >= 0 && io_rename(entry->dirfd, entry->part, entry->dirfd, entry->name) == 0;
}

void layer_cache_entry_free(LayerCacheEntry *entry)
{
    if (!entry)
        return;
    if (entry->fd >= 0 && !entry->kept)
        (void)io_unlink(entry->dirfd, entry->part, 0); /* what stays loses its lock, and is the next one's to remove */
    scope_close_fd(&entry->fd);
    scope_close_fd(&entry->dirfd);
    g_free(entry->part);
    g_free(entry->name);
    g_free(entry);
}

/* --- reading ---------------------------------------------------------------------- */

static bool is_right(int fd, const Digest *blob, uint64_t size)
{
    struct stat st;
    Digest have;

    return fstat(fd, &st) == 0 && (uint64_t)st.st_size == size && digest_of_fd(fd, &have, NULL) && digest_equal(&have, blob);
}

bool layer_cache_find(Store *store, const Digest *blob, uint64_t size, int *ret_fd)
{
    auto_fd int dirfd = size < LAYER_CACHE_LEAST ? -1 : open_folder(store, false);
    auto_fd int fd = -1;
    char hex[DIGEST_HEX_SIZE];

    digest_to_hex(blob, hex);
    fd = dirfd < 0 ? -1 : io_open(dirfd, hex, O_RDONLY, 0);
    if (fd < 0)
        return false;
    if (!is_right(fd, blob, size)) {
        trace("store.layer-cache", "%s is damaged", hex);
        (void)io_unlink(dirfd, hex, 0); /* on read-only media it stays, and is not used */
        return false;
    }
    (void)futimens(fd, NULL); /* may be somebody else's file: then it is taken for unused */
    trace("store.layer-cache", "using %s", hex);
    *ret_fd = g_steal_fd(&fd);
    return true;
}

/* --- upkeep ------------------------------------------------------------------------ */

uint64_t layer_cache_trim(Store *store, LayerWantedFn *wanted, void *arg)
{
    auto_fd int dirfd = open_folder(store, false);
    auto_fd int lock = dirfd < 0 ? -1 : lock_folder(dirfd);
    g_autoptr(GPtrArray) items = NULL;
    uint64_t before, bytes;

    if (lock < 0)
        return 0;
    items = list_items(dirfd, &before);
    bytes = before;
    for (guint i = items->len; i-- > 0;) {
        const Item *item = g_ptr_array_index(items, i);

        if (!wanted(&item->blob, arg) && drop(dirfd, item, &bytes))
            g_ptr_array_remove_index(items, i);
    }
    (void)make_way(dirfd, items, &bytes, store->layer_cache); /* parts of the living are over it at most */
    return before - bytes;
}

uint64_t layer_cache_bytes(Store *store)
{
    auto_fd int dirfd = open_folder(store, false);
    auto_dir DIR *dir = NULL;
    const struct dirent *entry;
    uint64_t bytes = 0;

    dir = dirfd < 0 ? NULL : fdopendir(dup(dirfd));
    while (dir && (entry = readdir(dir))) {
        Item *item = look_at(dirfd, entry->d_name);

        bytes += item ? item->size : 0;
        if (item)
            item_free(item);
    }
    return bytes;
}

void store_set_layer_cache(Store *store, uint64_t bytes)
{
    store->layer_cache = bytes;
}
