/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts that render.c puts together: partition table, ESP, boot loader, root file system. Each writes its own
 * place of the disk's map and nothing else.
 *
 *     0        1 MiB          4 MiB            64 MiB                    size - 1 MiB
 *     | MBR,GPT | 14 BIOS boot | 15 ESP (FAT16) | 1 root (ext4) ...       | backup GPT |
 */
#ifndef KILN_BAKER_RENDER_PARTS_H
#define KILN_BAKER_RENDER_PARTS_H

#include "baker/render.h"

#define MIB ((uint64_t)1 << 20)
#define SECTOR 512

#define BIOS_BOOT_OFFSET (1 * MIB)
#define BIOS_BOOT_SIZE (3 * MIB)
#define ESP_OFFSET (4 * MIB)
#define ESP_SIZE (60 * MIB)
#define ROOT_OFFSET (64 * MIB)
#define RENDER_SIZE_MIN (80 * MIB)

#define ROOT_PARTITION_ROLE "part1" /* of the root partition's own GUID: a UUIDv5 of the disk's name and this */

/* GPT: writes the first 34 sectors' worth (as whole 4 KiB blocks) and the backup. @mbr_code: 440 bytes or NULL. */
bool render_gpt(MapWriter *out, uint64_t size, const char *name, const uint8_t *mbr_code, GError **error);

/* A FAT16 file system of ESP_SIZE; @efi_program becomes EFI/BOOT/BOOTX64.EFI, NULL leaves it empty. */
bool render_esp(MapWriter *out, const char *name, int64_t epoch, GBytes *efi_program, GError **error);

/* The host's GRUB, prepared to find the root by @root_uuid. */
typedef struct RenderGrub {
    uint8_t mbr_code[440];
    GBytes *core; /* for BIOS_BOOT_OFFSET, patched for that place */
    GBytes *efi;  /* NULL when this machine has no GRUB for EFI */
} RenderGrub;
bool render_grub_make(Store *store, const uint8_t root_uuid[16], RenderGrub *ret, GError **error);
void render_grub_clear(RenderGrub *grub);

/* The text of /boot/grub/grub.cfg for the kernels in @tree. Errors: no kernel, unreadable kernel. */
bool render_grub_config(Tree *tree, StoreMap *files, const uint8_t root_uuid[16], const uint8_t partition_uuid[16], const char *cmdline, char **ret,
                        GError **error);

typedef struct RenderFs {
    uint64_t offset, size; /* of the partition */
    uint8_t uuid[16], hash_seed[16];
    int64_t epoch;
    const char *extra_path; /* one file whose content is given here and not in @files; may be NULL */
    GBytes *extra;
} RenderFs;
/* Disk bytes that the root partition must have to hold @tree with some room. */
uint64_t render_ext4_needs(Tree *tree);
bool render_ext4(MapWriter *out, Tree *tree, StoreMap *files, const RenderFs *spec, GError **error);

#endif
