/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Partition tables of disks that we did not make: GPT with its checksums, MBR
 * with logical partitions, or a file system on the whole disk. Everything read
 * is bounded; what does not add up is left out or refused, never followed.
 */
#include "store/disk-file.h"

#include "base/error.h"

#include <string.h>

#define SECTOR 512
#define GPT_ENTRIES_MAX 1024
#define MBR_LOGICAL_MAX 128
#define EXT4_INCOMPAT_AT (1024 + 0x60)
#define EXT4_INCOMPAT_RECOVER 4u

/* Bit by bit: tables are 16 KiB and read once. */
uint32_t disk_crc32(const void *data, size_t size)
{
    const uint8_t *p = data;
    uint32_t crc = UINT32_MAX;

    while (size--) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

/* Signatures, from the most telling to the least. */
static const struct {
    const char *fs;
    uint64_t offset;
    const char *bytes;
    size_t size;
} signatures[] = {
    {"luks", 0, "LUKS\xba\xbe", 6},
    {"lvm", 512, "LABELONE", 8},
    {"xfs", 0, "XFSB", 4},
    {"btrfs", 65536 + 64, "_BHRfS_M", 8},
    {"swap", 4096 - 10, "SWAPSPACE2", 10},
    {"ext4", 1024 + 56, "\x53\xef", 2},
    {"vfat", 82, "FAT32   ", 8},
    {"vfat", 54, "FAT16   ", 8},
    {"vfat", 54, "FAT12   ", 8},
};

static void guid_text(const uint8_t *g, char text[40])
{
    g_snprintf(text, 40, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", g[3], g[2], g[1], g[0], g[5],
               g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]);
}

/* The names that an fstab knows a file system by. */
static void ext4_names(const uint8_t *super, DiskPartition *part)
{
    digest_uuid_text(super + 104, part->uuid);
    g_snprintf(part->label, sizeof part->label, "%.16s", (const char *)super + 120);
}

static void vfat_names(const uint8_t *boot, DiskPartition *part)
{
    bool fat32 = memcmp(boot + 82, "FAT32", 5) == 0;
    const uint8_t *serial = boot + (fat32 ? 67 : 39);

    g_snprintf(part->uuid, sizeof part->uuid, "%02X%02X-%02X%02X", serial[3], serial[2], serial[1], serial[0]);
    g_snprintf(part->label, sizeof part->label, "%.11s", (const char *)boot + (fat32 ? 71 : 43));
    g_strchomp(part->label);
    if (strcmp(part->label, "NO NAME") == 0)
        part->label[0] = '\0';
}

static bool read_names(StoreMap *map, DiskPartition *part, GError **error)
{
    uint8_t bytes[512];
    bool ext4 = strcmp(part->fs, "ext4") == 0, vfat = strcmp(part->fs, "vfat") == 0;

    if ((!ext4 && !vfat) || part->size < 2048)
        return true;
    if (!store_map_pread(map, bytes, sizeof bytes, part->offset + (ext4 ? 1024 : 0), error))
        return false;
    (ext4 ? ext4_names : vfat_names)(bytes, part);
    return true;
}

/* Was the machine cut off while this ext4 was mounted? Then its journal holds what its blocks do not. */
static bool detect_unclean(StoreMap *map, DiskPartition *part, GError **error)
{
    uint8_t incompat[4];

    if (strcmp(part->fs, "ext4") != 0)
        return true;
    if (!store_map_pread(map, incompat, sizeof incompat, part->offset + EXT4_INCOMPAT_AT, error))
        return false;
    part->unclean = get32(incompat) & EXT4_INCOMPAT_RECOVER;
    return true;
}

static bool detect_fs(StoreMap *map, DiskPartition *part, GError **error)
{
    for (size_t i = 0; i < G_N_ELEMENTS(signatures); i++) {
        uint8_t bytes[16];

        if (signatures[i].offset + signatures[i].size > part->size)
            continue;
        if (!store_map_pread(map, bytes, signatures[i].size, part->offset + signatures[i].offset, error))
            return false;
        if (memcmp(bytes, signatures[i].bytes, signatures[i].size) == 0) {
            g_strlcpy(part->fs, signatures[i].fs, sizeof part->fs);
            return read_names(map, part, error) && detect_unclean(map, part, error);
        }
    }
    return true;
}

/* Keeps a partition of whole sectors that lies on the disk; the others are nobody's. */
static bool add_partition(StoreMap *map, GArray *parts, unsigned number, uint64_t first, uint64_t count, const char *type,
                          const char *partuuid, GError **error)
{
    uint64_t sectors = store_map_size(map) / SECTOR;
    DiskPartition part = {.number = number};

    if (count == 0 || first >= sectors || count > sectors - first)
        return true;
    part.offset = first * SECTOR;
    part.size = count * SECTOR;
    g_strlcpy(part.type, type, sizeof part.type);
    g_strlcpy(part.partuuid, partuuid, sizeof part.partuuid);
    if (!detect_fs(map, &part, error))
        return false;
    g_array_append_val(parts, part);
    return true;
}

static bool gpt_header_is_sound(uint8_t *header)
{
    uint32_t size = get32(header + 12), crc = get32(header + 16);
    uint8_t copy[SECTOR];

    if (size < 92 || size > SECTOR)
        return false;
    memcpy(copy, header, SECTOR);
    memset(copy + 16, 0, 4);
    return disk_crc32(copy, size) == crc;
}

static bool gpt_read(StoreMap *map, uint8_t *header, GArray *parts, GError **error)
{
    uint32_t count = get32(header + 80), entry_size = get32(header + 84);
    uint64_t table = get64(header + 72), disk = store_map_size(map);
    g_autofree uint8_t *entries = NULL;
    size_t size;

    if (!gpt_header_is_sound(header))
        return fail(error, "the disk's GPT header is damaged (wrong checksum)");
    if (entry_size < 128 || entry_size > 4096 || count > GPT_ENTRIES_MAX || table < 2 || table >= disk / SECTOR)
        return fail(error, "the disk's GPT header names an impossible table");
    size = (size_t)count * entry_size;
    if (size > disk - table * SECTOR)
        return fail(error, "the disk's GPT header names an impossible table");
    entries = g_malloc(size + 1);
    if (!store_map_pread(map, entries, size, table * SECTOR, error))
        return false;
    if (disk_crc32(entries, size) != get32(header + 88))
        return fail(error, "the disk's GPT table is damaged (wrong checksum)");
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *entry = entries + (size_t)i * entry_size;
        uint64_t first = get64(entry + 32), last = get64(entry + 40);
        char type[40], partuuid[40];

        guid_text(entry, type);
        guid_text(entry + 16, partuuid);
        if (strcmp(type, "00000000-0000-0000-0000-000000000000") == 0 || last < first || last - first == UINT64_MAX)
            continue;
        if (!add_partition(map, parts, i + 1, first, last - first + 1, type, partuuid, error))
            return false;
    }
    return true;
}

static bool mbr_type_is_extended(uint8_t type)
{
    return type == 0x05 || type == 0x0f || type == 0x85;
}

/* The chain of extended boot records; it must go forward, so it ends. */
static bool mbr_read_logical(StoreMap *map, uint32_t disk_id, uint64_t base, uint64_t base_count, GArray *parts, GError **error)
{
    uint64_t at = base, disk = store_map_size(map) / SECTOR;
    unsigned number = 5;

    while (number < 5 + MBR_LOGICAL_MAX && at < disk) {
        uint8_t sector[SECTOR];
        const uint8_t *entry = sector + 446;
        uint64_t next;
        char type[16], partuuid[16];

        if (!store_map_pread(map, sector, sizeof sector, at * SECTOR, error))
            return false;
        if (get16(sector + 510) != 0xaa55)
            return true;
        g_snprintf(type, sizeof type, "mbr:%02x", entry[4]);
        g_snprintf(partuuid, sizeof partuuid, "%08x-%02x", disk_id, number);
        if (entry[4] && !add_partition(map, parts, number++, at + get32(entry + 8), get32(entry + 12), type, partuuid, error))
            return false;
        next = base + get32(entry + 16 + 8);
        if (!mbr_type_is_extended(entry[16 + 4]) || next <= at || next >= base + base_count)
            return true;
        at = next;
    }
    return true;
}

static bool mbr_read(StoreMap *map, const uint8_t *mbr, GArray *parts, GError **error)
{
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *entry = mbr + 446 + 16 * i;
        char type[16], partuuid[16];

        if (entry[4] == 0)
            continue;
        if (mbr_type_is_extended(entry[4])) {
            if (!mbr_read_logical(map, get32(mbr + 440), get32(entry + 8), get32(entry + 12), parts, error))
                return false;
            continue;
        }
        g_snprintf(type, sizeof type, "mbr:%02x", entry[4]);
        g_snprintf(partuuid, sizeof partuuid, "%08x-%02x", get32(mbr + 440), i + 1);
        if (!add_partition(map, parts, i + 1, get32(entry + 8), get32(entry + 12), type, partuuid, error))
            return false;
    }
    return true;
}

/* A boot sector's text can look like a table: each entry's first byte is 0 or 0x80, and one is in use. */
static bool mbr_is_table(const uint8_t *mbr)
{
    bool used = false;

    if (get16(mbr + 510) != 0xaa55)
        return false;
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *entry = mbr + 446 + 16 * i;

        if (entry[0] & 0x7f)
            return false;
        used = used || (entry[4] && get32(entry + 12));
    }
    return used;
}

bool disk_partitions(StoreMap *map, GArray **ret, GError **error)
{
    g_autoptr(GArray) parts = g_array_new(FALSE, TRUE, sizeof(DiskPartition));
    uint8_t head[2 * SECTOR] = {0};
    uint64_t size = store_map_size(map);
    DiskPartition whole = {.size = size};
    bool ok = true;

    if (size >= sizeof head && !store_map_pread(map, head, sizeof head, 0, error))
        return false;
    if (memcmp(head + SECTOR, "EFI PART", 8) == 0) {
        ok = gpt_read(map, head + SECTOR, parts, error);
    } else {
        if (!detect_fs(map, &whole, error))
            return false;
        if (whole.fs[0])
            g_array_append_val(parts, whole);
        else if (mbr_is_table(head))
            ok = mbr_read(map, head, parts, error);
    }
    if (!ok)
        return false;
    *ret = g_steal_pointer(&parts);
    return true;
}
