/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks as files: raw with holes where the target can have them, and qcow2.
 */
#include "store/disk-file.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "store/qcow2.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (1u << 20)

/* Where holes can be left: an empty regular file that we may write anywhere in. */
static bool can_have_holes(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0 &&
           !(fcntl(fd, F_GETFL) & O_APPEND) && lseek(fd, 0, SEEK_CUR) == 0;
}

static bool write_sparse(StoreMap *map, int fd, uint8_t *buffer, uint64_t from, uint64_t end, GError **error)
{
    while (from < end) {
        size_t n = (size_t)MIN(end - from, PIECE);

        if (!interrupt_check(error) || !store_map_pread(map, buffer, n, from, error))
            return false;
        for (size_t at = 0; at < n;) { /* blocks that are zero inside an extent stay holes too */
            size_t run = at;

            while (run < n && !bytes_are_zero(buffer + run, MIN(n - run, (size_t)STORE_BLOCK_SIZE)))
                run = MIN(n, run + STORE_BLOCK_SIZE);
            if (run > at && !file_pwrite_full(fd, buffer + at, run - at, from + at, "disk image", error))
                return false;
            at = MIN(n, run + STORE_BLOCK_SIZE);
        }
        from += n;
    }
    return true;
}

static bool write_stream(StoreMap *map, int fd, uint8_t *buffer, uint64_t from, uint64_t end, GError **error)
{
    while (from < end) {
        size_t n = (size_t)MIN(end - from, PIECE);

        if (!interrupt_check(error) || !store_map_pread(map, buffer, n, from, error) ||
            !file_write_full(fd, buffer, n, "disk image", error))
            return false;
        from += n;
    }
    return true;
}

bool disk_export_raw(StoreMap *map, int fd, GError **error)
{
    uint64_t size = store_map_size(map), end;
    g_autoptr(Progress) progress = progress_new("export", size, true);
    g_autofree uint8_t *buffer = g_malloc(PIECE);
    bool holes = can_have_holes(fd), zero;

    if (holes && ftruncate(fd, (off_t)size) < 0)
        return fail_errno(error, "write the disk image");
    for (uint64_t at = 0; at < size; at = end) {
        store_map_extent(map, at, &end, &zero);
        end = MIN(end, MIN(size, at + 64 * PIECE)); /* so that the bar moves */
        if (holes ? !zero && !write_sparse(map, fd, buffer, at, end, error)
                  : !write_stream(map, fd, buffer, at, end, error))
            return false;
        progress_add(progress, end - at);
    }
    progress_done(progress);
    return true;
}

static uint64_t data_size(StoreMap *map)
{
    uint64_t size = store_map_size(map), total = 0, end;
    bool zero;

    for (uint64_t at = 0; at < size; at = end) {
        store_map_extent(map, at, &end, &zero);
        end = MIN(end, size);
        total += zero ? 0 : end - at;
    }
    return total;
}

bool disk_export_qcow2(StoreMap *map, int fd, GError **error)
{
    g_autoptr(Progress) progress = NULL;

    if (!can_have_holes(fd))
        return fail(error, "a qcow2 image cannot be written to a pipe; name a file");
    progress = progress_new("export", data_size(map), true);
    if (!qcow2_write(map, fd, progress, error))
        return false;
    progress_done(progress);
    return true;
}
