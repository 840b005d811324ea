/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk images as files: raw and qcow2, in and out, archives for clouds, out; partition tables.
 */
#ifndef KILN_STORE_DISK_FILE_H
#define KILN_STORE_DISK_FILE_H

#include "store/map.h"

/*
 * Reads a raw or qcow2 file (told by its bytes, never by its name) into a map of @writer. A qcow2 with a
 * backing file, an external data file, encryption or unknown incompatible features is refused before any tool opens it; so is a file that
 * holds no partition table and no file system we know ("is no disk image"). Errors call the file @what: a path or a URL.
 */
bool disk_import_file(Store *store, StoreWriter *writer, const char *path, const char *what, MapWriter **ret, GError **error);

/*
 * The same for the next night of a disk that is stored: the map stands on @parent (may be NULL), and what is still as there stays its.
 * A raw file or a whole qcow2 is read from end to end. Of a qcow2 overlay, which nothing else takes, only what it holds itself is
 * read; that it lies over the parent is believed, unless @base names the raw file it lies over: then all the rest is read there, and the first
 * block that the parent has otherwise is an error.
 */
bool disk_import_over(Store *store, StoreWriter *writer, const char *path, const char *what, StoreMap *parent, const char *base, MapWriter **ret,
                      GError **error);

/* @fd must be seekable and empty for a sparse raw file; a pipe gets every byte. Progress bar "export". */
bool disk_export_raw(StoreMap *map, int fd, GError **error);
/* Deterministic qcow2 v3 with zstd-compressed 128 KiB clusters, made by kiln; equal maps give equal files. */
bool disk_export_qcow2(StoreMap *map, int fd, GError **error);
/* disk.raw in the archive that Google Compute Engine imports: store/gce.h. */
bool disk_export_gce(StoreMap *map, int fd, GError **error);

/* The same by path: a file is replaced when the new one is whole, "-" is stdout, a folder is refused. */
typedef enum DiskForm { DISK_RAW, DISK_QCOW2, DISK_GCE } DiskForm;
bool disk_export(StoreMap *map, DiskForm form, const char *path, GError **error);

typedef struct DiskPartition {
    unsigned number;      /* 1-based; 0 for a disk without partition table */
    uint64_t offset, size;
    char type[40];        /* GPT type GUID in lower case, or "mbr:83" */
    char fs[16];          /* "ext4", "vfat", "xfs", "btrfs", "swap", "lvm", "luks" or "" when not recognised */
    char uuid[40];        /* as blkid prints it: of an ext4, or "1234-ABCD" of a vfat; "" for others */
    char label[20];       /* of an ext4 or vfat, "" for none */
    char partuuid[40];    /* of the table's entry: a GUID in lower case, or "1234abcd-01" in an MBR; "" on a disk without table */
    bool unclean;         /* ext4 whose journal waits for a mount to replay it: not to be read before that */
} DiskPartition;
/* CRC-32 (IEEE 802.3) as GPT's header and table carry it. */
uint32_t disk_crc32(const void *data, size_t size);
/* GPT (primary header, CRCs checked) or MBR with logical partitions; bounded. Array of DiskPartition. */
bool disk_partitions(StoreMap *map, GArray **ret, GError **error);

/*
 * Makes an in-place disk fit to publish: a public map of @disk in which free blocks, the journal's old contents and unused inodes of
 * every ext4 file system are zero. Other file systems are taken as they are (the guest has trimmed them).
 */
bool disk_publishable(Store *store, StoreWriter *writer, StoreMap *disk, MapWriter **ret, GError **error);

/*
 * A stored disk as a guest that is paused has changed it: a qcow2 overlay over @base, which was exported raw to @base_path. The map reads
 * like any other (it cannot be taken over into a MapWriter); its blocks differ from @base's only where disk_overlay_changed() counts them, in
 * blocks of 4 KiB that touch [@from, @to). A file that is no overlay of this very base, or is damaged, is an error.
 */
typedef struct DiskOverlay DiskOverlay;
bool disk_overlay_open(StoreMap *base, const char *overlay_path, const char *base_path, DiskOverlay **ret, GError **error);
void disk_overlay_close(DiskOverlay *overlay);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DiskOverlay, disk_overlay_close)
StoreMap *disk_overlay_map(const DiskOverlay *overlay); /* borrowed */
uint64_t disk_overlay_changed(const DiskOverlay *overlay, uint64_t from, uint64_t to);

#endif
