/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The EFI system partition: a FAT16 file system with at most one file, written
 * here because mkfs.fat and mtools put clocks and chance into theirs.
 *
 *     sector 0   boot record     1..   FAT, FAT again    root folder    clusters of 4 KiB from 2 on
 *
 * Cluster 2 is EFI/, 3 is EFI/BOOT/, from 4 on EFI/BOOT/BOOTX64.EFI.
 */
#include "baker/render-parts.h"

#include "base/error.h"

#include <string.h>
#include <time.h>

#define FAT_CLUSTER 4096u
#define FAT_ROOT_ENTRIES 512u
#define FAT_RESERVED 8u  /* sectors: keeps FATs, root folder and clusters on the 4 KiB grid */
#define FAT_SECTORS 64u  /* of one FAT: 16,384 entries of 2 bytes, for 15,360 clusters */
#define FAT_ROOT_SECTOR (FAT_RESERVED + 2 * FAT_SECTORS)
#define FAT_DATA_SECTOR (FAT_ROOT_SECTOR + FAT_ROOT_ENTRIES * 32 / SECTOR)
#define FAT_FIRST_FILE_CLUSTER 4u

static void put_le(uint8_t *to, uint32_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static void fill_boot_record(uint8_t *boot, const char *name)
{
    uint8_t uuid[16];

    digest_uuid5(name, "esp", uuid);
    memcpy(boot, "\xeb\x3c\x90kiln    ", 11);
    put_le(boot + 11, SECTOR, 2);
    boot[13] = FAT_CLUSTER / SECTOR;
    put_le(boot + 14, FAT_RESERVED, 2);
    boot[16] = 2; /* FATs */
    put_le(boot + 17, FAT_ROOT_ENTRIES, 2);
    boot[21] = 0xf8; /* a fixed disk */
    put_le(boot + 22, FAT_SECTORS, 2);
    put_le(boot + 24, 63, 2);
    put_le(boot + 26, 255, 2);
    put_le(boot + 28, (uint32_t)(ESP_OFFSET / SECTOR), 4);
    put_le(boot + 32, (uint32_t)(ESP_SIZE / SECTOR), 4);
    boot[36] = 0x80;
    boot[38] = 0x29;
    memcpy(boot + 39, uuid, 4);
    memcpy(boot + 43, "ESP        FAT16   ", 19);
    boot[510] = 0x55;
    boot[511] = 0xaa;
}

typedef struct FatTime {
    uint16_t date, time;
} FatTime;

/* FAT knows 1980 to 2107, in steps of two seconds. */
static FatTime fat_time(int64_t epoch)
{
    time_t seconds = (time_t)CLAMP(epoch, (int64_t)315532800, (int64_t)4354819198);
    struct tm tm;

    (void)gmtime_r(&seconds, &tm);
    return (FatTime){(uint16_t)((tm.tm_year - 80) << 9 | (tm.tm_mon + 1) << 5 | tm.tm_mday),
                     (uint16_t)(tm.tm_hour << 11 | tm.tm_min << 5 | tm.tm_sec / 2)};
}

static void fill_entry(uint8_t *entry, const char name[12], uint8_t attributes, uint32_t cluster, uint32_t size, FatTime when)
{
    memcpy(entry, name, 11);
    entry[11] = attributes;
    put_le(entry + 14, when.time, 2);
    put_le(entry + 16, when.date, 2);
    put_le(entry + 18, when.date, 2);
    put_le(entry + 22, when.time, 2);
    put_le(entry + 24, when.date, 2);
    put_le(entry + 26, cluster, 2);
    put_le(entry + 28, size, 4);
}

static void fill_folders(uint8_t *root, uint8_t *clusters, uint32_t size, FatTime when)
{
    uint8_t *efi = clusters, *boot = clusters + FAT_CLUSTER;

    fill_entry(root + 32, "EFI        ", 0x10, 2, 0, when);
    fill_entry(efi, ".          ", 0x10, 2, 0, when);
    fill_entry(efi + 32, "..         ", 0x10, 0, 0, when);
    fill_entry(efi + 64, "BOOT       ", 0x10, 3, 0, when);
    fill_entry(boot, ".          ", 0x10, 3, 0, when);
    fill_entry(boot + 32, "..         ", 0x10, 2, 0, when);
    fill_entry(boot + 64, "BOOTX64 EFI", 0x20, FAT_FIRST_FILE_CLUSTER, size, when);
}

static void fill_fat(uint8_t *fat, uint32_t file_clusters)
{
    uint32_t last = FAT_FIRST_FILE_CLUSTER + file_clusters - 1;

    put_le(fat, 0xfff8, 2);
    put_le(fat + 2, 0xffff, 2);
    if (file_clusters == 0)
        return;
    put_le(fat + 4, 0xffff, 2);
    put_le(fat + 6, 0xffff, 2);
    for (uint32_t c = FAT_FIRST_FILE_CLUSTER; c <= last; c++)
        put_le(fat + 2 * (size_t)c, c == last ? 0xffff : c + 1, 2);
}

bool render_esp(MapWriter *out, const char *name, int64_t epoch, GBytes *efi_program, GError **error)
{
    size_t program_size = efi_program ? g_bytes_get_size(efi_program) : 0;
    uint32_t file_clusters = (uint32_t)((program_size + FAT_CLUSTER - 1) / FAT_CLUSTER);
    size_t size = FAT_DATA_SECTOR * SECTOR + (efi_program ? 2 + (size_t)file_clusters : 0) * FAT_CLUSTER;
    g_autofree uint8_t *image = NULL;

    if (program_size > 16 * MIB)
        return fail(error, "the EFI boot program is too large for the ESP");
    image = g_malloc0(size);
    fill_boot_record(image, name);
    fill_fat(image + FAT_RESERVED * SECTOR, file_clusters);
    memcpy(image + (FAT_RESERVED + FAT_SECTORS) * SECTOR, image + FAT_RESERVED * SECTOR, FAT_SECTORS * SECTOR);
    fill_entry(image + FAT_ROOT_SECTOR * SECTOR, "ESP        ", 0x08, 0, 0, fat_time(epoch));
    if (efi_program) {
        uint8_t *clusters = image + FAT_DATA_SECTOR * SECTOR;

        fill_folders(image + FAT_ROOT_SECTOR * SECTOR, clusters, (uint32_t)program_size, fat_time(epoch));
        memcpy(clusters + 2 * FAT_CLUSTER, g_bytes_get_data(efi_program, NULL), program_size);
    }
    return map_writer_write(out, ESP_OFFSET, image, size, error);
}
