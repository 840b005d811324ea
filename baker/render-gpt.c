/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The partition table: GPT (UEFI 2.10, chapter 5) with Debian's cloud layout and
 * GRUB's first-stage code in the protective MBR.
 *
 *     LBA 0       protective MBR, 440 bytes of boot code
 *     LBA 1       header          LBA 2..33   128 entries of 128 bytes
 *     last 33     entries again, then the backup header
 */
#include "baker/render-parts.h"

#include <string.h>

#define GPT_ENTRIES 128
#define GPT_ENTRY_SIZE 128
#define GPT_TABLE_SECTORS (GPT_ENTRIES * GPT_ENTRY_SIZE / SECTOR)

typedef struct GptPart {
    unsigned number;
    const char *type; /* GUID as text */
    const char *role; /* seeds the partition's own GUID */
    uint64_t offset, size;
} GptPart;

static void put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

/* GPT stores the first three fields of a GUID in little-endian order. */
static void put_guid(uint8_t *to, const uint8_t uuid[16])
{
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

    for (unsigned i = 0; i < 16; i++)
        to[i] = uuid[order[i]];
}

static void parse_guid(const char *text, uint8_t uuid[16])
{
    unsigned n = 0;

    for (const char *p = text; *p && n < 32; p++) {
        if (*p == '-')
            continue;
        uuid[n / 2] = (uint8_t)(n % 2 ? uuid[n / 2] | g_ascii_xdigit_value(*p) : g_ascii_xdigit_value(*p) << 4);
        n++;
    }
}

static void fill_table(uint8_t *table, const GptPart *parts, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t *entry = table + (parts[i].number - 1) * GPT_ENTRY_SIZE, uuid[16];

        parse_guid(parts[i].type, uuid);
        put_guid(entry, uuid);
        digest_uuid5(name, parts[i].role, uuid);
        put_guid(entry + 16, uuid);
        put_le(entry + 32, parts[i].offset / SECTOR, 8);
        put_le(entry + 40, (parts[i].offset + parts[i].size) / SECTOR - 1, 8);
    }
}

static void fill_header(uint8_t *header, const uint8_t *table, uint64_t here, uint64_t other, uint64_t table_at,
                        uint64_t sectors, const char *name)
{
    uint8_t uuid[16];

    memset(header, 0, SECTOR);
    memcpy(header, "EFI PART", 8);
    put_le(header + 8, 0x00010000, 4);
    put_le(header + 12, 92, 4);
    put_le(header + 24, here, 8);
    put_le(header + 32, other, 8);
    put_le(header + 40, 2 + GPT_TABLE_SECTORS, 8);
    put_le(header + 48, sectors - 2 - GPT_TABLE_SECTORS, 8);
    digest_uuid5(name, "disk", uuid);
    put_guid(header + 56, uuid);
    put_le(header + 72, table_at, 8);
    put_le(header + 80, GPT_ENTRIES, 4);
    put_le(header + 84, GPT_ENTRY_SIZE, 4);
    put_le(header + 88, disk_crc32(table, GPT_ENTRIES * GPT_ENTRY_SIZE), 4);
    put_le(header + 16, disk_crc32(header, 92), 4);
}

static void fill_mbr(uint8_t *mbr, uint64_t sectors, const uint8_t *code)
{
    static const uint8_t first[4] = {0, 0, 2, 0}, last[4] = {0xee, 0xff, 0xff, 0xff};
    uint8_t *entry = mbr + 446;

    if (code)
        memcpy(mbr, code, 440);
    memcpy(entry, first, 4);
    memcpy(entry + 4, last, 4);
    put_le(entry + 8, 1, 4);
    put_le(entry + 12, MIN(sectors - 1, (uint64_t)UINT32_MAX), 4);
    mbr[510] = 0x55;
    mbr[511] = 0xaa;
}

bool render_gpt(MapWriter *out, uint64_t size, const char *name, const uint8_t *mbr_code, GError **error)
{
    uint64_t root_offset, root_size, sectors = size / SECTOR;
    /* Both ends are written as whole 4 KiB blocks: 34 sectors take 5, the backup's 33 lie in the last 5. */
    uint8_t head[5 * STORE_BLOCK_SIZE] = {0}, tail[5 * STORE_BLOCK_SIZE] = {0};
    uint8_t *table = head + 2 * SECTOR, *backup = tail + sizeof tail - (1 + GPT_TABLE_SECTORS) * SECTOR;

    render_root_extent(size, &root_offset, &root_size);
    {
        const GptPart parts[] = {
            {14, "21686148-6449-6e6f-744e-656564454649", "part14", BIOS_BOOT_OFFSET, BIOS_BOOT_SIZE},
            {15, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "part15", ESP_OFFSET, ESP_SIZE},
            {1, "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", ROOT_PARTITION_ROLE, root_offset, root_size},
        };

        fill_table(table, parts, G_N_ELEMENTS(parts), name);
    }
    fill_mbr(head, sectors, mbr_code);
    fill_header(head + SECTOR, table, 1, sectors - 1, 2, sectors, name);
    memcpy(backup, table, GPT_TABLE_SECTORS * SECTOR);
    fill_header(tail + sizeof tail - SECTOR, table, sectors - 1, 1, sectors - 1 - GPT_TABLE_SECTORS, sectors, name);
    return map_writer_write(out, 0, head, sizeof head, error) &&
           map_writer_write(out, size - sizeof tail, tail, sizeof tail, error);
}
