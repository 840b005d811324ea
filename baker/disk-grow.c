/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growing a disk in user space.
 *
 *   GPT   protective MBR | header, entries | ... | last partition -> | entries, header     CRCs as they must be
 *   MBR   the entry of a primary partition
 *   none  a file system on the whole disk: nothing to write
 *
 * Tables are a stranger's bytes: only what disk_partitions() has understood is touched, and only where both say the same.
 */
#include "baker/disk-grow.h"

#include "base/error.h"
#include "base/log.h"
#include "base/units.h"

#include <string.h>

#define SECTOR 512u
#define FRONT_MAX ((size_t)1 << 20) /* header and entries at the front */
#define ENTRIES_MAX 1024u
#define MBR_ENTRY(i) (446 + 16 * (size_t)(i))

typedef struct Growth {
    StoreMap *disk;
    MapWriter *map;
    uint64_t size;             /* new */
    const DiskPartition *part; /* what grows, or NULL */
    uint8_t *front;
    size_t front_size;
} Growth;

static uint64_t get_le(const uint8_t *p, int bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

static void put_le(uint8_t *p, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

/* --- which partition --- */

static bool holds_no_root(const DiskPartition *part)
{
    static const char *const types[] = {"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "21686148-6449-6e6f-744e-656564454649", "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
                                        "mbr:82", "mbr:ef", "mbr:5", "mbr:05", "mbr:f", "mbr:0f", NULL};

    return g_strv_contains(types, part->type) || strcmp(part->fs, "swap") == 0 || strcmp(part->fs, "vfat") == 0;
}

static const DiskPartition *last_of(const GArray *partitions)
{
    const DiskPartition *last = NULL;

    for (guint i = 0; i < partitions->len; i++) {
        const DiskPartition *part = &g_array_index(partitions, DiskPartition, i);

        if (!last || part->offset > last->offset)
            last = part;
    }
    return last;
}

/* NULL: none, and why is told. */
static const DiskPartition *choose(const GArray *partitions, uint64_t root, const char *wanted)
{
    const DiskPartition *last = last_of(partitions);

    if (!last || last->number == 0)
        return NULL;
    if (root == DISK_GROW_ROOT_UNKNOWN ? holds_no_root(last) : last->offset != root) {
        log_warning("the disk grows to %s, but its last partition (%u) is not the root, so no partition grows", wanted, last->number);
        return NULL;
    }
    if (strcmp(last->fs, "lvm") == 0 || strcmp(last->fs, "luks") == 0)
        log_warning("partition %u grows to the end of the disk; the %s volume in it keeps its size", last->number, last->fs);
    return last;
}

/* --- writing --- */

static bool write_back(Growth *g, uint64_t offset, const void *data, size_t size, GError **error)
{
    uint64_t from = offset - offset % STORE_BLOCK_SIZE, end = (offset + size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;
    uint64_t old = store_map_size(g->disk);
    g_autofree uint8_t *buf = g_malloc0((size_t)(end - from));

    if (from < old && !store_map_pread(g->disk, buf, (size_t)MIN(end - from, old - from), from, error))
        return false;
    memcpy(buf + (offset - from), data, size);
    return map_writer_write(g->map, from, buf, (size_t)(end - from), error);
}

static bool write_front(Growth *g, GError **error)
{
    return write_back(g, 0, g->front, g->front_size, error);
}

/* --- GPT --- */

static bool is_gpt(const Growth *g)
{
    return g->front_size >= 2 * SECTOR && memcmp(g->front + SECTOR, "EFI PART", 8) == 0;
}

static void seal_header(uint8_t *header, uint32_t entries_crc)
{
    uint32_t size = (uint32_t)get_le(header + 12, 4);

    put_le(header + 88, entries_crc, 4);
    put_le(header + 16, 0, 4);
    put_le(header + 16, disk_crc32(header, size), 4);
}

/* What covers the whole disk for those who do not know GPT. */
static void grow_protection(Growth *g)
{
    for (int i = 0; i < 4; i++) {
        uint8_t *entry = g->front + MBR_ENTRY(i);

        if (entry[4] == 0xee && get_le(entry + 8, 4) == 1)
            put_le(entry + 12, MIN(g->size / SECTOR - 1, UINT32_MAX), 4);
    }
}

static bool grow_entry(const Growth *g, uint8_t *entries, uint32_t count, uint32_t size, uint64_t last)
{
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *entry = entries + (size_t)i * size;

        if (get_le(entry + 32, 8) != g->part->offset / SECTOR || get_le(entry + 40, 8) != (g->part->offset + g->part->size) / SECTOR - 1)
            continue;
        put_le(entry + 40, last, 8);
        return true;
    }
    return false;
}

/* The old backup lies where the partition is now. */
static bool clear_old_backup(Growth *g, uint64_t first, GError **error)
{
    uint64_t old = store_map_size(g->disk);
    g_autofree uint8_t *zero = NULL;

    if (first >= old || old - first > FRONT_MAX)
        return true;
    zero = g_malloc0((size_t)(old - first));
    return write_back(g, first, zero, (size_t)(old - first), error);
}

static bool grow_gpt(Growth *g, GError **error)
{
    uint8_t *header = g->front + SECTOR, backup[SECTOR] = {0};
    uint64_t at = get_le(header + 72, 8), sectors = g->size / SECTOR, unused = (get_le(header + 48, 8) + 1) * SECTOR;
    uint32_t count = (uint32_t)get_le(header + 80, 4), size = (uint32_t)get_le(header + 84, 4), header_size = (uint32_t)get_le(header + 12, 4);
    size_t bytes = (size_t)count * size, room = (bytes + SECTOR - 1) / SECTOR * SECTOR;
    uint64_t last = sectors - room / SECTOR - 2;
    uint32_t crc;

    if (count == 0 || count > ENTRIES_MAX || size < 128 || size > 4096 || header_size < 92 || header_size > SECTOR || at < 2 ||
        at > g->front_size / SECTOR || at * SECTOR + room > g->front_size)
        return fail(error, "its partition table is of an unusual shape, and cannot grow");
    if (!clear_old_backup(g, unused, error))
        return false;
    if (last / 2048 * 2048 > (g->part->offset + g->part->size) / SECTOR)
        last = (last + 1) / 2048 * 2048 - 1; /* a whole number of mebibytes, as tools make them */
    if (!grow_entry(g, g->front + at * SECTOR, count, size, last))
        return fail(error, "partition %u is not where its table says", g->part->number);
    grow_protection(g);
    crc = disk_crc32(g->front + at * SECTOR, bytes);
    put_le(header + 32, sectors - 1, 8);
    put_le(header + 48, sectors - room / SECTOR - 2, 8);
    seal_header(header, crc);
    memcpy(backup, header, SECTOR);
    put_le(backup + 24, sectors - 1, 8);
    put_le(backup + 32, 1, 8);
    put_le(backup + 72, sectors - 1 - room / SECTOR, 8);
    seal_header(backup, crc);
    {
        g_autofree uint8_t *end = g_malloc0(room + SECTOR);

        memcpy(end, g->front + at * SECTOR, bytes);
        memcpy(end + room, backup, SECTOR);
        return write_front(g, error) && write_back(g, g->size - room - SECTOR, end, room + SECTOR, error);
    }
}

/* --- MBR --- */

static bool grow_mbr(Growth *g, GError **error)
{
    for (int i = 0; i < 4; i++) {
        uint8_t *entry = g->front + MBR_ENTRY(i);

        if (entry[4] == 0 || get_le(entry + 8, 4) != g->part->offset / SECTOR)
            continue;
        put_le(entry + 12, MIN((g->size - g->part->offset) / SECTOR, UINT32_MAX), 4);
        return write_front(g, error);
    }
    log_warning("partition %u is a logical one, which keeps its size", g->part->number);
    return true;
}

static bool load_front(Growth *g, GError **error)
{
    g->front_size = (size_t)MIN(FRONT_MAX, store_map_size(g->disk));
    g->front_size -= g->front_size % STORE_BLOCK_SIZE;
    g->front = g_malloc0(g->front_size + 1);
    if (g->front_size < 2 * SECTOR)
        return fail(error, "the disk is too small to have a partition table");
    return store_map_pread(g->disk, g->front, g->front_size, 0, error);
}

static bool grow_table(Growth *g, GError **error)
{
    if (!g->part)
        return true;
    if (!load_front(g, error))
        return false;
    return is_gpt(g) ? grow_gpt(g, error) : grow_mbr(g, error);
}

bool disk_grow(Store *store, StoreMap *disk, uint64_t size, uint64_t root, Digest *ret, GError **error)
{
    g_autofree char *wanted = units_format_size(size);
    g_autoptr(GArray) partitions = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    Growth g = {.disk = disk, .size = size};
    MapResult result;
    bool ok;

    if (!disk_partitions(disk, &partitions, error))
        return false;
    g.part = choose(partitions, root, wanted);
    if (!store_writer_open(store, BLOCK_PRIVATE, &writer, error) || !map_writer_new(writer, size, disk, &map, error))
        return false;
    g.map = map;
    ok = grow_table(&g, error);
    g_free(g.front);
    if (!ok || !map_writer_finish(map, error) || !store_writer_commit(writer, error))
        return false;
    map_writer_result(map, &result);
    *ret = result.digest;
    return true;
}
