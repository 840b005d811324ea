/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An in-place disk, made fit to publish. The guest's kernel changed it, so it
 * still holds what was deleted: in free blocks, in the journal, in inodes no
 * longer used, in blocks that were preallocated and never written. All of that
 * becomes zero in a public copy of the map; everything a mounted file system
 * can see stays as it is.
 *
 * The confined reader finds the ranges (store/ext4-serve-clean.c). They are collected first and applied in ascending order, because file
 * systems with 1 KiB blocks and lone inodes share 4 KiB blocks of the map.
 */
#include "store/disk-file.h"
#include "store/ext4-session.h"

#include "base/error.h"
#include "base/interrupt.h"

#include <string.h>

#define RANGES_MAX ((guint)1 << 24)

typedef struct Cleaner {
    StoreMap *disk;
    const DiskPartition *part;
    GArray *ranges; /* of Ext4Range, on the disk: bytes that become zero */
} Cleaner;

static bool take_ranges(Ext4Session *session, Ext4Said *said, void *arg, GError **error)
{
    Cleaner *c = arg;
    Ext4Range range;

    if (said->word != EXT4_RANGES)
        return ext4_session_nonsense(session, error);
    while (said->size) {
        if (!ext4_session_take(session, said, &range, sizeof range, error))
            return false;
        if (range.from > range.to || range.to > c->part->size || c->ranges->len >= RANGES_MAX)
            return ext4_session_nonsense(session, error);
        range.from += c->part->offset;
        range.to += c->part->offset;
        g_array_append_val(c->ranges, range);
    }
    return interrupt_check(error);
}

static bool find_ranges(Cleaner *c, GError **error)
{
    g_autoptr(Ext4Session) session = NULL;
    Ext4Info info;

    return ext4_session_open(c->disk, c->part->offset, c->part->size, false, &session, &info, error) &&
           ext4_session_each(session, EXT4_CLEAN, NULL, take_ranges, c, error);
}

static int compare_ranges(const void *a, const void *b)
{
    const Ext4Range *ra = a, *rb = b;

    return ra->from < rb->from ? -1 : ra->from > rb->from;
}

/* One block of the map of which only parts become zero; parts of it may come in several ranges. */
typedef struct PartialBlock {
    uint64_t at; /* UINT64_MAX: none */
    uint8_t bytes[STORE_BLOCK_SIZE];
} PartialBlock;

static size_t block_size_at(StoreMap *disk, uint64_t at)
{
    return (size_t)MIN((uint64_t)STORE_BLOCK_SIZE, store_map_size(disk) - at);
}

static bool partial_flush(Cleaner *c, PartialBlock *partial, MapWriter *out, GError **error)
{
    uint64_t at = partial->at;

    partial->at = UINT64_MAX;
    return at == UINT64_MAX || map_writer_write(out, at, partial->bytes, block_size_at(c->disk, at), error);
}

static bool partial_zero(Cleaner *c, PartialBlock *partial, MapWriter *out, uint64_t from, uint64_t to, GError **error)
{
    uint64_t at = from / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;

    if (partial->at != at) {
        if (!partial_flush(c, partial, out, error) ||
            !store_map_pread(c->disk, partial->bytes, block_size_at(c->disk, at), at, error))
            return false;
        partial->at = at;
    }
    memset(partial->bytes + (from - at), 0, to - from);
    return true;
}

static bool cleaner_apply(Cleaner *c, MapWriter *out, GError **error)
{
    PartialBlock partial = {.at = UINT64_MAX};

    g_array_sort(c->ranges, compare_ranges);
    for (guint i = 0; i < c->ranges->len; i++) {
        Ext4Range r = g_array_index(c->ranges, Ext4Range, i);

        while (r.from < r.to) {
            uint64_t end = (r.from / STORE_BLOCK_SIZE + 1) * STORE_BLOCK_SIZE;

            if (r.from % STORE_BLOCK_SIZE == 0 && r.to >= end) {
                end = r.to / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;
                if (!partial_flush(c, &partial, out, error) || !map_writer_zero(out, r.from, end - r.from, error))
                    return false;
            } else {
                end = MIN(end, r.to);
                if (!partial_zero(c, &partial, out, r.from, end, error))
                    return false;
            }
            r.from = end;
        }
    }
    return partial_flush(c, &partial, out, error);
}

static bool clean_ext4(StoreMap *disk, const DiskPartition *part, MapWriter *out, GError **error)
{
    g_autoptr(GArray) ranges = g_array_new(FALSE, FALSE, sizeof(Ext4Range));
    Cleaner c = {disk, part, ranges};

    return find_ranges(&c, error) && cleaner_apply(&c, out, error);
}

bool disk_publishable(Store *store, StoreWriter *writer, StoreMap *disk, MapWriter **ret, GError **error)
{
    g_autoptr(MapWriter) out = NULL;
    g_autoptr(GArray) parts = NULL;

    (void)store;
    if (!disk_partitions(disk, &parts, error) || !map_writer_new(writer, store_map_size(disk), disk, &out, error))
        return false;
    for (guint i = 0; i < parts->len; i++) {
        const DiskPartition *part = &g_array_index(parts, DiskPartition, i);

        if (strcmp(part->fs, "ext4") == 0 && !clean_ext4(disk, part, out, error))
            return fail_prefix(error, "partition %u", part->number);
    }
    if (!map_writer_finish(out, error))
        return false;
    *ret = g_steal_pointer(&out);
    return true;
}
