/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stored disk as a guest has changed it: the blocks of a qcow2 overlay laid over the image's map.
 *
 * A cluster is in an overlay as soon as one byte of it was written, and what was written may be what was there. So each block of 4 KiB
 * is held against the hash that the store has of it; only those that differ lie over the map. Blocks are never kept in memory, just where
 * they are: a run of them costs 24 bytes.
 */
#include "store/disk-file.h"
#include "store/map-patch.h"
#include "store/qcow2.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define AT_ONCE 256      /* blocks */
#define RUNS_MAX 2000000 /* 48 MiB */

struct DiskOverlay {
    StoreMap *map;
    const MapPatch *patch; /* the map's */
};

typedef struct Collect {
    StoreMap *base;
    MapPatch *patch;
    int fd;
    uint8_t *data;
} Collect;

static bool collect_add(Collect *c, uint64_t block, uint64_t count, uint64_t host, GError **error)
{
    map_patch_add(c->patch, block, count, host);
    return map_patch_runs(c->patch) <= RUNS_MAX || fail(error, "the overlay is too fragmented to be looked into");
}

/* Zeroes over zeroes are no change; a trim of gigabytes is told by the map's extents, not block by block. */
static bool collect_zeroes(Collect *c, uint64_t at, uint64_t size, GError **error)
{
    uint64_t end = MIN(at + size, store_map_size(c->base)), next;
    bool zero;

    for (; at < end; at = next) {
        store_map_extent(c->base, at, &next, &zero);
        next = MIN((next + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE, end);
        if (!zero && !collect_add(c, at / STORE_BLOCK_SIZE, (next - at + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE, MAP_PATCH_ZERO, error))
            return false;
    }
    return true;
}

/* At most AT_ONCE blocks. The file may end inside. */
static bool collect_data(Collect *c, uint64_t first, size_t count, uint64_t host, GError **error)
{
    Digest before[AT_ONCE], now;

    if (!file_pread_padded(c->fd, c->data, count * STORE_BLOCK_SIZE, host, "the overlay", error) || !store_map_hashes_beyond(c->base, first, count, before, error))
        return false;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *block = c->data + i * STORE_BLOCK_SIZE;
        bool zero = bytes_are_zero(block, STORE_BLOCK_SIZE);

        now = digest_none;
        if (!zero)
            digest_of(block, STORE_BLOCK_SIZE, &now);
        if (!digest_equal(&now, &before[i]) &&
            !collect_add(c, first + i, 1, zero ? MAP_PATCH_ZERO : host + i * STORE_BLOCK_SIZE, error))
            return false;
    }
    return interrupt_check(error);
}

static bool collect_range(uint64_t at, uint64_t size, uint64_t host, void *arg, GError **error)
{
    Collect *c = arg;
    uint64_t first = at / STORE_BLOCK_SIZE, count = (size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;

    if (at % STORE_BLOCK_SIZE)
        return fail(error, "the overlay's clusters are smaller than 4 KiB, which kiln does not look into");
    if (host == QCOW2_ZERO)
        return collect_zeroes(c, at, size, error);
    for (uint64_t done = 0; done < count; done += AT_ONCE)
        if (!collect_data(c, first + done, (size_t)MIN(count - done, (uint64_t)AT_ONCE), host + done * STORE_BLOCK_SIZE, error))
            return false;
    return true;
}

/* The very file, by whatever name: a swapped base shows other files than those that are reported. */
static bool check_backing(const Qcow2Overlay *header, const char *overlay_path, const char *base_path, uint64_t size, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(overlay_path), *backing = NULL;
    struct stat named, base;

    backing = g_path_is_absolute(header->backing) ? g_strdup(header->backing) : g_build_filename(folder, header->backing, NULL);
    if (stat(base_path, &base) < 0)
        return fail_errno(error, "look at '%s'", base_path);
    if (stat(backing, &named) < 0 || named.st_dev != base.st_dev || named.st_ino != base.st_ino)
        return fail(error, "the overlay '%s' lies over another file than '%s'", overlay_path, base_path);
    if ((uint64_t)base.st_size < size || (uint64_t)base.st_size - size >= STORE_BLOCK_SIZE)
        return fail(error, "'%s' has another size than its image", base_path);
    if (header->size < size)
        return fail(error, "the overlay '%s' shows a smaller disk than its image", overlay_path);
    return header->cluster >= STORE_BLOCK_SIZE * (header->extended ? 32u : 1u) ||
           fail(error, "the overlay's clusters are smaller than 4 KiB, which kiln does not look into");
}

bool disk_overlay_open(StoreMap *base, const char *overlay_path, const char *base_path, DiskOverlay **ret, GError **error)
{
    auto_fd int fd = open(overlay_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo must not hang us */
    g_auto(Qcow2Overlay) header = {.fd = -1};
    g_autoptr(MapPatch) patch = NULL;
    g_autofree uint8_t *data = g_malloc(AT_ONCE * STORE_BLOCK_SIZE);
    Collect collect = {.base = base, .fd = fd, .data = data};
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_errno(error, "open '%s'", overlay_path);
    if (!S_ISREG(st.st_mode))
        return fail(error, "'%s' is no regular file", overlay_path);
    if (!qcow2_overlay_header(fd, overlay_path, &header, error) ||
        !check_backing(&header, overlay_path, base_path, store_map_size(base), error))
        return false;
    collect.patch = patch = map_patch_new(header.size, g_steal_fd(&fd));
    if (!qcow2_overlay_each(&header, collect_range, &collect, error))
        return false;
    *ret = g_new0(DiskOverlay, 1);
    (*ret)->patch = patch;
    (*ret)->map = store_map_patched(base, g_steal_pointer(&patch));
    return true;
}

void disk_overlay_close(DiskOverlay *overlay)
{
    if (!overlay)
        return;
    store_map_unref(overlay->map);
    g_free(overlay);
}

StoreMap *disk_overlay_map(const DiskOverlay *overlay)
{
    return overlay->map;
}

uint64_t disk_overlay_changed(const DiskOverlay *overlay, uint64_t from, uint64_t to)
{
    if (from >= to)
        return 0;
    return map_patch_count(overlay->patch, from / STORE_BLOCK_SIZE, (to + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE);
}
