/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The archive for Google Compute Engine.
 *
 *   header of `disk.raw`: type 'S', four sparse entries at 386, "more" at 482, real size at 483
 *   while there is more:  21 sparse entries, "more" at 504
 *   data of all entries, one after the other
 *   two blocks of zeroes
 *
 * A sparse entry is (offset 12, size 12); numbers are octal, or from 8 GiB on GNU's base 256. A last entry of no bytes says where the
 * file ends. Gaps below GAP_MIN are written out as zeroes: that bounds the list and costs next to nothing after compression.
 */
#include "store/gce.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "store/deflate.h"
#include "store/ordered.h"
#include "store/tar-header.h"

#include <string.h>

#define GIB (1ull << 30)
#define GAP_MIN (256u << 10)
#define PIECE (1u << 20)
#define SLOTS 6
#define FIRST_ENTRIES 4
#define MORE_ENTRIES 21
#define ENTRY_SIZE 24

typedef struct Range {
    uint64_t start, end;
} Range;

typedef struct Piece {
    uint64_t offset;
    size_t size;
    uint8_t *data;
} Piece;

typedef struct Gce {
    StoreMap *map;
    int fd;
    GArray *ranges; /* of Range; the last one is empty and at the end of the file */
    GzipWriter *gzip;
    Progress *progress;
    guint range; /* where the next piece starts */
    uint64_t at;
} Gce;

/* --- the list --- */

static void add_range(GArray *ranges, uint64_t start, uint64_t end)
{
    Range *last = ranges->len ? &g_array_index(ranges, Range, ranges->len - 1) : NULL;
    Range range = {start, end};

    if (last && start - last->end < GAP_MIN)
        last->end = end;
    else
        g_array_append_val(ranges, range);
}

/* Whole blocks: the file goes on behind an odd end of the disk. */
static GArray *list_ranges(StoreMap *map, uint64_t file_size)
{
    GArray *ranges = g_array_new(FALSE, FALSE, sizeof(Range));
    uint64_t size = store_map_size(map), end;
    Range last = {file_size, file_size};
    bool zero;

    for (uint64_t at = 0; at < size; at = end) {
        store_map_extent(map, at, &end, &zero);
        end = MIN(end, size);
        if (!zero)
            add_range(ranges, at, (end + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE);
    }
    g_array_append_val(ranges, last);
    return ranges;
}

/* --- headers --- */

static void put_number(uint8_t *field, size_t size, uint64_t value)
{
    if (value >> 33 == 0) {
        field[size - 1] = 0;
        for (size_t i = size - 1; i-- > 0; value >>= 3)
            field[i] = (uint8_t)('0' + (value & 7));
        return;
    }
    memset(field, 0, size);
    field[0] = 0x80;
    for (size_t i = size - 1; i > 0 && value; i--, value >>= 8)
        field[i] = (uint8_t)value;
}

static void put_entries(uint8_t *to, const GArray *ranges, guint first, guint count)
{
    for (guint i = first; i < MIN(ranges->len, first + count); i++) {
        const Range *range = &g_array_index(ranges, Range, i);
        uint8_t *entry = to + (size_t)(i - first) * ENTRY_SIZE;

        put_number(entry, 12, range->start);
        put_number(entry + 12, 12, range->end - range->start);
    }
}

static void put_checksum(uint8_t head[TAR_BLOCK])
{
    unsigned sum = 0;

    memset(head + 148, ' ', 8);
    for (size_t i = 0; i < TAR_BLOCK; i++)
        sum += head[i];
    put_number(head + 148, 7, sum);
}

static bool write_headers(Gce *gce, uint64_t file_size, GError **error)
{
    uint8_t head[TAR_BLOCK] = "disk.raw", more[TAR_BLOCK];
    uint64_t stored = 0;

    for (guint i = 0; i < gce->ranges->len; i++)
        stored += g_array_index(gce->ranges, Range, i).end - g_array_index(gce->ranges, Range, i).start;
    put_number(head + 100, 8, 0644);
    put_number(head + 108, 8, 0);
    put_number(head + 116, 8, 0);
    put_number(head + 124, 12, stored);
    put_number(head + 136, 12, 0);
    head[156] = 'S';
    memcpy(head + 257, "ustar  ", 8);
    put_entries(head + 386, gce->ranges, 0, FIRST_ENTRIES);
    head[482] = gce->ranges->len > FIRST_ENTRIES;
    put_number(head + 483, 12, file_size);
    put_checksum(head);
    if (!gzip_writer_push(gce->gzip, head, sizeof head, error))
        return false;
    for (guint i = FIRST_ENTRIES; i < gce->ranges->len; i += MORE_ENTRIES) {
        memset(more, 0, sizeof more);
        put_entries(more, gce->ranges, i, MORE_ENTRIES);
        more[504] = gce->ranges->len > i + MORE_ENTRIES;
        if (!gzip_writer_push(gce->gzip, more, sizeof more, error))
            return false;
    }
    return true;
}

/* --- data --- */

static bool gce_fill(void *slot, void *arg)
{
    Gce *gce = arg;
    Piece *piece = slot;
    const Range *range = &g_array_index(gce->ranges, Range, gce->range);

    if (range->start == range->end)
        return false;
    piece->offset = MAX(gce->at, range->start);
    gce->at = MIN(range->end, (piece->offset / PIECE + 1) * PIECE);
    piece->size = (size_t)(gce->at - piece->offset);
    if (gce->at == range->end)
        gce->range++;
    return true;
}

static bool gce_work(void *slot, void *arg, GError **error)
{
    const Gce *gce = arg;
    Piece *piece = slot;
    size_t have = (size_t)MIN((uint64_t)piece->size, store_map_size(gce->map) - piece->offset);

    memset(piece->data + have, 0, piece->size - have);
    return store_map_pread_once(gce->map, piece->data, have, piece->offset, error);
}

static bool gce_take(void *slot, void *arg, GError **error)
{
    const Gce *gce = arg;
    const Piece *piece = slot;

    progress_add(gce->progress, piece->size);
    return gzip_writer_push(gce->gzip, piece->data, piece->size, error);
}

static bool write_data(Gce *gce, GError **error)
{
    static const OrderedOps ops = {gce_fill, gce_work, gce_take};
    static const uint8_t zeroes[TAR_END_SIZE];
    g_autofree uint8_t *buffer = g_malloc((size_t)SLOTS * PIECE);
    Piece pieces[SLOTS];

    for (unsigned i = 0; i < SLOTS; i++)
        pieces[i] = (Piece){.data = buffer + (size_t)i * PIECE};
    return ordered_run(&ops, pieces, sizeof *pieces, SLOTS, gce, error) && gzip_writer_push(gce->gzip, zeroes, sizeof zeroes, error) &&
           gzip_writer_finish(gce->gzip, error);
}

static bool write_out(const void *data, size_t size, void *arg, GError **error)
{
    const Gce *gce = arg;

    return file_write_full(gce->fd, data, size, "disk image", error);
}

bool gce_write(StoreMap *map, int fd, Progress *progress, GError **error)
{
    uint64_t file_size = MAX((store_map_size(map) + GIB - 1) / GIB, 1ull) * GIB;
    g_autoptr(GArray) ranges = list_ranges(map, file_size);
    Gce gce = {.map = map, .fd = fd, .ranges = ranges, .progress = progress};
    g_autoptr(GzipWriter) gzip = gzip_writer_new(write_out, &gce);

    gce.gzip = gzip;
    return write_headers(&gce, file_size, error) && write_data(&gce, error);
}
