/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks as files: raw with holes where the target can have them, qcow2, and the archive that Google Compute Engine imports.
 *
 * The disk goes through the processors in pieces of 1 MiB (store/ordered.h). Where holes can be left, each thread also writes its piece to
 * its place; a stream is written by the caller's thread, in order.
 */
#include "store/disk-file.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/export-path.h"
#include "store/gce.h"
#include "store/ordered.h"
#include "store/qcow2.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (1u << 20)
#define HOLE_STEP (64u << 20) /* so that the bar moves */
#define SLOTS 8
#define BEHIND (32u << 20) /* so much is written before the disk is told to begin: the sync at the end finds little left */

typedef struct Piece {
    uint64_t offset, size;
    bool zero;
    uint8_t *data; /* PIECE bytes */
} Piece;

typedef struct RawExport {
    StoreMap *map;
    int fd;
    bool holes;
    uint64_t at;     /* where the next piece starts */
    uint64_t behind; /* bytes that the disk was not told of yet */
    Progress *progress;
} RawExport;

/* Where holes can be left: an empty regular file that we may write anywhere in. */
static bool can_have_holes(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0 &&
           !(fcntl(fd, F_GETFL) & O_APPEND) && lseek(fd, 0, SEEK_CUR) == 0;
}

/* Pieces of data end on the grid of 1 MiB, so that no two threads unpack the same frame. */
static bool raw_fill(void *slot, void *arg)
{
    RawExport *raw = arg;
    Piece *piece = slot;
    uint64_t end;

    if (raw->at == store_map_size(raw->map))
        return false;
    store_map_extent(raw->map, raw->at, &end, &piece->zero);
    end = MIN(end, store_map_size(raw->map));
    end = MIN(end, piece->zero ? raw->at + (raw->holes ? HOLE_STEP : PIECE) : (raw->at / PIECE + 1) * PIECE);
    piece->offset = raw->at;
    piece->size = end - raw->at;
    raw->at = end;
    return true;
}

/* Blocks that are zero inside an extent stay holes too. */
static bool write_sparse(int fd, const Piece *piece, GError **error)
{
    for (size_t at = 0, n = piece->size; at < n;) {
        size_t run = at;

        while (run < n && !bytes_are_zero(piece->data + run, MIN(n - run, (size_t)STORE_BLOCK_SIZE)))
            run = MIN(n, run + STORE_BLOCK_SIZE);
        if (run > at && !file_pwrite_full(fd, piece->data + at, run - at, piece->offset + at, "disk image", error))
            return false;
        at = MIN(n, run + STORE_BLOCK_SIZE);
    }
    return true;
}

static bool raw_work(void *slot, void *arg, GError **error)
{
    const RawExport *raw = arg;
    Piece *piece = slot;

    if (piece->zero) {
        if (!raw->holes)
            memset(piece->data, 0, piece->size);
        return true;
    }
    return store_map_pread_once(raw->map, piece->data, piece->size, piece->offset, error) && (!raw->holes || write_sparse(raw->fd, piece, error));
}

/* It only hurries what fdatasync() does in the end, so what it says does not matter. */
static void write_behind(RawExport *raw, const Piece *piece)
{
    raw->behind += piece->zero ? 0 : piece->size;
    if (raw->behind < BEHIND)
        return;
    raw->behind = 0;
    (void)sync_file_range(raw->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static bool raw_take(void *slot, void *arg, GError **error)
{
    RawExport *raw = arg;
    const Piece *piece = slot;

    progress_add(raw->progress, piece->size);
    if (raw->holes)
        write_behind(raw, piece);
    return raw->holes || file_write_full(raw->fd, piece->data, piece->size, "disk image", error);
}

bool disk_export_raw(StoreMap *map, int fd, GError **error)
{
    static const OrderedOps ops = {raw_fill, raw_work, raw_take};
    g_autoptr(Progress) progress = progress_new("export", store_map_size(map), true);
    g_autofree uint8_t *buffer = g_malloc((size_t)SLOTS * PIECE);
    RawExport raw = {map, fd, can_have_holes(fd), 0, 0, progress};
    Piece pieces[SLOTS];

    for (unsigned i = 0; i < SLOTS; i++)
        pieces[i] = (Piece){.data = buffer + (size_t)i * PIECE};
    if (raw.holes && ftruncate(fd, (off_t)store_map_size(map)) < 0)
        return fail_errno(error, "write the disk image");
    if (!ordered_run(&ops, pieces, sizeof *pieces, SLOTS, &raw, error))
        return false;
    progress_done(progress);
    return true;
}

bool disk_export_qcow2(StoreMap *map, int fd, GError **error)
{
    g_autoptr(Progress) progress = NULL;

    if (!can_have_holes(fd))
        return fail(error, "a qcow2 image cannot be written to a pipe; name a file");
    progress = progress_new("export", store_map_data_size(map), true);
    if (!qcow2_write(map, fd, progress, error))
        return false;
    progress_done(progress);
    return true;
}

bool disk_export_gce(StoreMap *map, int fd, GError **error)
{
    g_autoptr(Progress) progress = progress_new("export", store_map_data_size(map), true);

    if (!gce_write(map, fd, progress, error))
        return false;
    progress_done(progress);
    return true;
}

/* --- by path --- */

typedef struct DiskExport {
    StoreMap *map;
    DiskForm form;
} DiskExport;

static bool write_disk(int fd, void *arg, GError **error)
{
    const DiskExport *export = arg;

    switch (export->form) {
    case DISK_QCOW2:
        return disk_export_qcow2(export->map, fd, error);
    case DISK_GCE:
        return disk_export_gce(export->map, fd, error);
    default:
        return disk_export_raw(export->map, fd, error);
    }
}

bool disk_export(StoreMap *map, DiskForm form, const char *path, GError **error)
{
    DiskExport export = {map, form};

    return export_to_path(path, write_disk, &export, error);
}
