/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: the first bytes of a disk of 64 MiB: GPT, MBR with logical partitions, or a file system. With an odd first byte GPT gets its checksums.
 */
#include "tests/fuzz/fuzz-store.h"

#include "store/bytes.h"
#include "store/map-patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DISK (64u << 20)
#define HEADER 512u

static StoreMap *zeroes;

static void make_zeroes(void)
{
    Store *store = fuzz_open("store", STORE_OPEN_CREATE);
    Digest digest = fuzz_map(store, 1, 0);

    if (!store_map_open(store, &digest, &zeroes, NULL))
        abort();
}

/* A table that leads out of @size is zero there, as the rest of the disk. */
static void set_checksums(uint8_t *disk, size_t size)
{
    uint64_t table, bytes;

    if (size < HEADER + 512 || memcmp(disk + HEADER, "EFI PART", 8))
        return;
    table = get_le64(disk + HEADER + 72) * 512;
    bytes = (uint64_t)get_le32(disk + HEADER + 80) * get_le32(disk + HEADER + 84);
    if (table < DISK && bytes <= DISK - table && bytes <= (4u << 20)) {
        g_autofree uint8_t *entries = g_malloc0(bytes + 1);

        if (table < size)
            memcpy(entries, disk + table, MIN(bytes, size - table));
        put_le32(disk + HEADER + 88, disk_crc32(entries, bytes));
    }
    put_le32(disk + HEADER + 16, 0);
    put_le32(disk + HEADER + 16, disk_crc32(disk + HEADER, CLAMP(get_le32(disk + HEADER + 12), 92, 512)));
}

static void check(const GArray *parts)
{
    for (guint i = 0; i < parts->len; i++) {
        const DiskPartition *part = &g_array_index(parts, DiskPartition, i);

        if (part->offset > DISK || part->size > DISK - part->offset || !memchr(part->type, 0, sizeof(part->type)) ||
            !memchr(part->fs, 0, sizeof(part->fs)) || !memchr(part->uuid, 0, sizeof(part->uuid)) ||
            !memchr(part->label, 0, sizeof(part->label)) || !memchr(part->partuuid, 0, sizeof(part->partuuid)))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *disk = NULL;
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(GArray) parts = NULL;
    MapPatch *patch;

    if (!zeroes)
        make_zeroes();
    if (size < 2 || size > DISK / 2)
        return 0;
    disk = g_memdup2(data + 1, size - 1);
    size--;
    if (data[0] & 1)
        set_checksums(disk, size);
    patch = map_patch_new(DISK, fuzz_memory_file(disk, size));
    map_patch_add(patch, 0, DISK / STORE_BLOCK_SIZE, 0);
    map = store_map_patched(zeroes, patch);
    if (disk_partitions(map, &parts, NULL))
        check(parts);
    return 0;
}
