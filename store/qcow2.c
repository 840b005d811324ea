/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: judging headers, finding what an overlay holds, writing images. All numbers of the format are big-endian.
 *
 * What we write, in this order, so that equal maps give equal files:
 *
 *   | header | L1 table | L2 tables in use | data clusters ... | refcount table | refcount blocks |
 *
 * Data goes in disk order. A compressed cluster is put byte after byte behind the one before it, also across
 * the border of host clusters; a host cluster's refcount is the number of compressed clusters that touch it.
 * A cluster that zstd does not shrink gets a host cluster of its own. Zero clusters have no entry.
 *
 * A cluster is as large as a frame of the store, and packed by the same rule. So where the blocks of a cluster are those of one frame, and the
 * frame was made by the libzstd that we have, its payload is what we would make, and is taken over. Which clusters that spares the work is the
 * store's history, what they become is not.
 *
 *   L2 entry, plain:      bit 63 (refcount is 1) | host offset
 *   L2 entry, compressed: bit 62 | further 512-byte sectors << 54 | host offset in bytes
 */
#include "store/qcow2.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "store/frame.h"
#include "store/map-private.h"
#include "store/ordered.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "QFI\xfb"
#define HEADER2_SIZE 72
#define HEADER3_SIZE 104
#define HEADER_READ 65536u
#define SIZE_MAX_VIRTUAL (1ull << 46)
#define INCOMPATIBLE_DIRTY (1ull << 0)
#define INCOMPATIBLE_CORRUPT (1ull << 1)
#define INCOMPATIBLE_DATA_FILE (1ull << 2)
#define INCOMPATIBLE_COMPRESSION (1ull << 3)
#define INCOMPATIBLE_EXTENDED_L2 (1ull << 4)
#define EXTENSION_DATA_FILE 0x44415441u
#define EXTENSION_CRYPTO 0x0537be77u

#define CLUSTER_BITS 17 /* 32 blocks */
#define CLUSTER (1u << CLUSTER_BITS)
#define L2_ENTRIES (CLUSTER / 8)
#define REFCOUNTS_PER_BLOCK (CLUSTER / 2)
#define ENTRY_OFFSET 0x00fffffffffffe00ull
#define COPIED (1ull << 63)
#define COMPRESSED (1ull << 62)
#define COMPRESSED_SHIFT (62 - (CLUSTER_BITS - 8))
#define COMPRESSION_ZSTD 1
#define OUR_HEADER_SIZE 112

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t be64(const uint8_t *p)
{
    return (uint64_t)be32(p) << 32 | be32(p + 4);
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 3; i >= 0; i--, v >>= 8)
        p[i] = (uint8_t)v;
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)(v >> 32));
    put32(p + 4, (uint32_t)v);
}

/* --- judging -------------------------------------------------------------------- */

static bool check_features(uint64_t bits, const char *what, GError **error)
{
    uint64_t known = INCOMPATIBLE_DIRTY | INCOMPATIBLE_COMPRESSION | INCOMPATIBLE_EXTENDED_L2;

    if (bits & INCOMPATIBLE_DATA_FILE)
        return fail(error, "'%s' is refused: it keeps its data in another file", what);
    if (bits & INCOMPATIBLE_CORRUPT)
        return fail(error, "'%s' is marked as corrupt; repair it with qemu-img check first", what);
    if (bits & ~known)
        return fail(error, "'%s' uses qcow2 features that kiln does not know (0x%" G_GINT64_MODIFIER "x)",
                    what, bits & ~known);
    return true;
}

/* Extensions can name files and keys too. */
static bool check_extensions(const uint8_t *head, size_t size, size_t at, const char *what, GError **error)
{
    while (at + 8 <= size) {
        uint32_t type = be32(head + at), length = be32(head + at + 4);

        if (type == 0)
            return true;
        if (type == EXTENSION_DATA_FILE)
            return fail(error, "'%s' is refused: it keeps its data in another file", what);
        if (type == EXTENSION_CRYPTO)
            return fail(error, "'%s' is encrypted, which kiln cannot read", what);
        if (length > size - at - 8)
            break;
        at += 8 + ((size_t)length + 7) / 8 * 8;
    }
    return at + 8 > size || fail(error, "'%s' has a damaged qcow2 header", what);
}

static bool check_sizes(const uint8_t *head, uint64_t file_size, const char *what, GError **error)
{
    uint32_t bits = be32(head + 20), l1_size = be32(head + 36);
    uint64_t size = be64(head + 24), covered;

    if (bits < 9 || bits > 21)
        return fail(error, "'%s' has a damaged qcow2 header", what);
    if (size == 0 || size > SIZE_MAX_VIRTUAL)
        return fail(error, "'%s' claims a disk of %" G_GUINT64_FORMAT " bytes", what, size);
    covered = 1ull << (2 * bits - 4); /* at least: extended entries are 16 bytes long */
    if (l1_size > 4 * 1024 * 1024 || l1_size > 2 * (size / covered + 1) + 1024 ||
        be64(head + 40) > file_size || be64(head + 48) > file_size || be32(head + 60) > 65536)
        return fail(error, "'%s' has a damaged qcow2 header", what);
    return true;
}

/* The first bytes, judged but for the backing file. @head has HEADER_READ bytes. */
static bool read_header(int fd, const char *what, uint8_t *head, GError **error)
{
    uint32_t version, header_size = HEADER2_SIZE;
    struct stat st;
    size_t size;

    if (fstat(fd, &st) < 0)
        return fail_errno(error, "read '%s'", what);
    size = (size_t)MIN((uint64_t)st.st_size, HEADER_READ);
    if (size < HEADER3_SIZE)
        return fail(error, "'%s' has a damaged qcow2 header", what);
    if (!file_pread_full(fd, head, size, 0, what, error))
        return false;
    version = be32(head + 4);
    if (version != 2 && version != 3)
        return fail(error, "'%s' is a qcow image of version %u; kiln reads versions 2 and 3", what, version);
    if (be32(head + 32))
        return fail(error, "'%s' is encrypted, which kiln cannot read", what);
    if (version == 3) {
        header_size = be32(head + 100);
        if (header_size < HEADER3_SIZE || header_size > 4096)
            return fail(error, "'%s' has a damaged qcow2 header", what);
        if (!check_features(be64(head + 72), what, error))
            return false;
        if (header_size > HEADER3_SIZE && size > HEADER3_SIZE && head[104] > COMPRESSION_ZSTD)
            return fail(error, "'%s' is compressed in a way that kiln does not know", what);
    }
    return check_extensions(head, size, header_size, what, error) && check_sizes(head, (uint64_t)st.st_size, what, error);
}

bool qcow2_check_header(int fd, const char *what, uint64_t *ret_virtual_size, GError **error)
{
    g_autofree uint8_t *head = g_malloc0(HEADER_READ);

    if (!read_header(fd, what, head, error))
        return false;
    if (be64(head + 8) || be32(head + 16))
        return fail(error, "'%s' is refused: it needs a backing file; flatten it with qemu-img convert", what);
    *ret_virtual_size = be64(head + 24);
    return true;
}

/* --- overlays --------------------------------------------------------------------- */

bool qcow2_is_overlay(const uint8_t *head, size_t size)
{
    return size >= HEADER2_SIZE && memcmp(head, MAGIC, 4) == 0 && (be64(head + 8) || be32(head + 16));
}

bool qcow2_overlay_header(int fd, const char *what, Qcow2Overlay *ret, GError **error)
{
    g_autofree uint8_t *head = g_malloc0(HEADER_READ);
    uint64_t name_at, table;
    uint32_t name_size;
    struct stat st;

    if (!file_pread_full(fd, head, 4, 0, what, error))
        return false;
    if (memcmp(head, MAGIC, 4) != 0)
        return fail(error, "'%s' is no qcow2 overlay", what);
    if (!read_header(fd, what, head, error))
        return false;
    if (fstat(fd, &st) < 0)
        return fail_errno(error, "read '%s'", what);
    name_at = be64(head + 8);
    name_size = be32(head + 16);
    table = be64(head + 40);
    if (!name_at || !name_size)
        return fail(error, "'%s' has no backing file, so it is no overlay", what);
    if (name_size > 1023 || name_at > HEADER_READ - name_size || memchr(head + name_at, 0, name_size) ||
        table % 512 || (uint64_t)be32(head + 36) * 8 > (uint64_t)st.st_size - table)
        return fail(error, "'%s' has a damaged qcow2 header", what);
    *ret = (Qcow2Overlay){
        .fd = fd,
        .what = what,
        .size = be64(head + 24),
        .file_size = (uint64_t)st.st_size,
        .cluster = UINT64_C(1) << be32(head + 20),
        .table = table,
        .table_size = be32(head + 36),
        .zero_bit = be32(head + 4) >= 3,
        .extended = be32(head + 4) >= 3 && (be64(head + 72) & INCOMPATIBLE_EXTENDED_L2),
        .backing = g_strndup((const char *)head + name_at, name_size),
    };
    return true;
}

void qcow2_overlay_clear(Qcow2Overlay *overlay)
{
    g_free(overlay->backing);
    overlay->backing = NULL;
}

/* One walk over the tables: what is the overlay's own, in disk order. */
typedef struct Walk {
    const Qcow2Overlay *overlay;
    Qcow2RangeFn *fn;
    void *arg;
    uint64_t data_left; /* bytes that may still be somebody's: no cluster is used by two places */
} Walk;

static bool walk_range(Walk *walk, uint64_t at, uint64_t size, uint64_t host, GError **error)
{
    const Qcow2Overlay *overlay = walk->overlay;

    if (at >= overlay->size)
        return true;
    if (host != QCOW2_ZERO) {
        if (host >= overlay->file_size || size > walk->data_left)
            return fail(error, "'%s' is damaged: its tables lead outside of it or use clusters twice", overlay->what);
        walk->data_left -= size;
    }
    return walk->fn(at, MIN(size, overlay->size - at), host, walk->arg, error);
}

/* Extended entries tell of each 32nd part of a cluster. */
static bool walk_parts(Walk *walk, uint64_t at, uint64_t host, uint64_t bitmap, GError **error)
{
    uint64_t part = walk->overlay->cluster / 32;

    for (unsigned i = 0; i < 32; i++) {
        bool zero = bitmap >> (32 + i) & 1, data = bitmap >> i & 1;

        if ((data || zero) && !walk_range(walk, at + i * part, part, zero ? QCOW2_ZERO : host + i * part, error))
            return false;
    }
    return true;
}

static bool walk_entry(Walk *walk, uint64_t at, const uint8_t *bytes, GError **error)
{
    const Qcow2Overlay *overlay = walk->overlay;
    uint64_t entry = be64(bytes), host = entry & ENTRY_OFFSET;

    if (entry & COMPRESSED)
        return fail(error, "'%s' has compressed clusters, which no guest writes", overlay->what);
    if (host % overlay->cluster)
        return fail(error, "'%s' is damaged: a cluster lies askew", overlay->what);
    if (overlay->extended)
        return walk_parts(walk, at, host, be64(bytes + 8), error);
    if (overlay->zero_bit && (entry & 1))
        return walk_range(walk, at, overlay->cluster, QCOW2_ZERO, error);
    return host == 0 || walk_range(walk, at, overlay->cluster, host, error);
}

static bool walk_table(Walk *walk, uint64_t at, uint64_t host, uint8_t *table, GError **error)
{
    const Qcow2Overlay *overlay = walk->overlay;
    size_t entry = overlay->extended ? 16 : 8;

    if (host % overlay->cluster || host > overlay->file_size || overlay->file_size - host < overlay->cluster)
        return fail(error, "'%s' is damaged: a table lies outside of it", overlay->what);
    if (!interrupt_check(error) || !file_pread_full(overlay->fd, table, overlay->cluster, host, overlay->what, error))
        return false;
    for (size_t i = 0; i < overlay->cluster && at < overlay->size; i += entry, at += overlay->cluster)
        if (!walk_entry(walk, at, table + i, error))
            return false;
    return true;
}

bool qcow2_overlay_each(const Qcow2Overlay *overlay, Qcow2RangeFn *fn, void *arg, GError **error)
{
    Walk walk = {overlay, fn, arg, overlay->file_size + overlay->cluster};
    uint64_t covered = overlay->cluster / (overlay->extended ? 16 : 8) * overlay->cluster, tables_left = overlay->file_size;
    g_autofree uint8_t *first = g_malloc((size_t)overlay->table_size * 8 + 1), *second = g_malloc(overlay->cluster);

    if (!file_pread_full(overlay->fd, first, (size_t)overlay->table_size * 8, overlay->table, overlay->what, error))
        return false;
    for (uint64_t i = 0; i < overlay->table_size && i * covered < overlay->size; i++) {
        uint64_t host = be64(first + i * 8) & ENTRY_OFFSET;

        if (host == 0)
            continue;
        if (tables_left < overlay->cluster)
            return fail(error, "'%s' is damaged: its tables are used twice", overlay->what);
        tables_left -= overlay->cluster;
        if (!walk_table(&walk, i * covered, host, second, error))
            return false;
    }
    return true;
}

/* --- writing --------------------------------------------------------------------- */

typedef struct Writer {
    StoreMap *map;
    int fd;
    uint64_t size, clusters; /* of the disk */
    uint64_t l1_entries, l1_clusters;
    uint64_t *l1;  /* offsets of L2 tables; 0: none */
    uint64_t *l2;  /* the table being filled, in host order */
    uint64_t next; /* next free host cluster */
    uint64_t packed_at, packed_end;
    GArray *refcounts; /* of uint16_t, one per host cluster */
    uint64_t cluster;  /* the next one that a batch may start at */
    uint64_t table;    /* whose table @l2 is */
    Progress *progress;
} Writer;

/* Neighbouring clusters, compressed by one thread: they share frames of the store. */
#define BATCH 4
#define BATCHES 6
#define AS_IT_IS SIZE_MAX
#define PACKED FRAME_MAX_STORED
G_STATIC_ASSERT(CLUSTER == FRAME_MAX_BYTES);

typedef struct Batch {
    uint64_t first;
    size_t sizes[BATCH]; /* packed; 0: zeroes */
    uint8_t *plain, *packed; /* BATCH * CLUSTER, BATCH * PACKED */
} Batch;

static void batch_clear(Batch *batch)
{
    g_free(batch->plain);
    g_free(batch->packed);
}

static void writer_clear(Writer *w)
{
    g_free(w->l1);
    g_free(w->l2);
    if (w->refcounts)
        g_array_unref(w->refcounts);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Writer, writer_clear)

static void writer_init(Writer *w, StoreMap *map, int fd)
{
    w->map = map;
    w->fd = fd;
    w->size = (store_map_size(map) + 511) & ~511ull; /* the format counts sectors */
    w->clusters = (w->size + CLUSTER - 1) / CLUSTER;
    w->l1_entries = (w->clusters + L2_ENTRIES - 1) / L2_ENTRIES;
    w->l1_clusters = (w->l1_entries * 8 + CLUSTER - 1) / CLUSTER;
    w->l1 = g_new0(uint64_t, w->l1_entries + 1);
    w->l2 = g_new0(uint64_t, L2_ENTRIES);
    w->refcounts = g_array_new(FALSE, TRUE, sizeof(uint16_t));
}

static void refer(Writer *w, uint64_t cluster)
{
    if (cluster >= w->refcounts->len)
        g_array_set_size(w->refcounts, (guint)(cluster + 1));
    g_array_index(w->refcounts, uint16_t, cluster)++;
}

static uint64_t take_cluster(Writer *w)
{
    refer(w, w->next);
    return w->next++ * CLUSTER;
}

/* Is there anything but zeroes in [@from, @end)? */
static bool has_data(StoreMap *map, uint64_t from, uint64_t end)
{
    uint64_t size = store_map_size(map);
    bool zero;

    for (end = MIN(end, size); from < end;) {
        uint64_t next;

        store_map_extent(map, from, &next, &zero);
        if (!zero)
            return true;
        from = next;
    }
    return false;
}

static void place_tables(Writer *w)
{
    for (uint64_t i = 0; i < 1 + w->l1_clusters; i++)
        (void)take_cluster(w);
    for (uint64_t i = 0; i < w->l1_entries; i++)
        if (has_data(w->map, i * L2_ENTRIES * CLUSTER, (i + 1) * L2_ENTRIES * CLUSTER))
            w->l1[i] = take_cluster(w);
}

/* Room for @size compressed bytes; a gap is left only where a plain cluster stands in the way. */
static uint64_t take_packed(Writer *w, size_t size)
{
    uint64_t at;

    if (w->packed_end != w->next * CLUSTER && w->packed_at + size > w->packed_end)
        w->packed_at = w->packed_end = w->next * CLUSTER;
    while (w->packed_at + size > w->packed_end) {
        w->next++;
        w->packed_end += CLUSTER;
    }
    at = w->packed_at;
    w->packed_at += size;
    for (uint64_t c = at / CLUSTER; c <= (at + size - 1) / CLUSTER; c++)
        refer(w, c);
    return at;
}

/* A batch without data costs nothing. */
static bool batch_fill(void *slot, void *arg)
{
    Writer *w = arg;
    Batch *batch = slot;

    for (; w->cluster < w->clusters; w->cluster += BATCH) {
        if (!has_data(w->map, w->cluster * CLUSTER, (w->cluster + BATCH) * CLUSTER))
            continue;
        batch->first = w->cluster;
        w->cluster += BATCH;
        return true;
    }
    return false;
}

/* What does not get smaller stays as it is. */
static size_t pack_cluster(const uint8_t *plain, uint8_t *packed)
{
    size_t size;

    if (bytes_are_zero(plain, CLUSTER))
        return 0;
    size = frame_pack(compressor_of_thread(), plain, CLUSTER, packed);
    return size == 0 ? AS_IT_IS : size;
}

/* Unpacked in any case, so that damage is an error here and not in the guest. */
static bool take_over_frame(Segment *segment, uint32_t frame, uint8_t *plain, uint8_t *packed, size_t *ret, GError **error)
{
    FrameHead head;

    if (!segment_stored(segment, frame, packed, &head, plain, error))
        return false;
    if (head.engine != compress_engine()) {
        *ret = pack_cluster(plain, packed);
    } else if (head.encoding == FRAME_RAW) {
        *ret = AS_IT_IS;
    } else {
        memmove(packed, packed + frame_head_size(head.blocks), head.payload);
        *ret = head.payload;
    }
    return true;
}

static bool work_cluster(StoreMap *map, uint64_t start, uint8_t *plain, uint8_t *packed, size_t *ret, GError **error)
{
    size_t size = (size_t)MIN((uint64_t)CLUSTER, store_map_size(map) - MIN(start, store_map_size(map)));
    Segment *segment;
    uint32_t frame;

    /* What cannot be taken over, because it was repacked a moment ago or is damaged, is read as always or not at all. */
    if (size == CLUSTER && store_map_whole_frame(map, start / STORE_BLOCK_SIZE, &segment, &frame) &&
        take_over_frame(segment, frame, plain, packed, ret, NULL))
        return true;
    memset(plain + size, 0, CLUSTER - size);
    if (size && !store_map_pread(map, plain, size, start, error))
        return false;
    *ret = pack_cluster(plain, packed);
    return true;
}

static bool batch_work(void *slot, void *arg, GError **error)
{
    const Writer *w = arg;
    Batch *batch = slot;

    for (unsigned i = 0; i < BATCH; i++)
        if (!work_cluster(w->map, (batch->first + i) * CLUSTER, batch->plain + i * CLUSTER, batch->packed + i * PACKED, &batch->sizes[i],
                          error))
            return false;
    return true;
}

static bool place_cluster(Writer *w, const Batch *batch, unsigned i, GError **error)
{
    uint64_t *entry = &w->l2[(batch->first + i) % L2_ENTRIES], at, sectors;
    size_t packed = batch->sizes[i];

    if (packed == AS_IT_IS) {
        at = take_cluster(w);
        *entry = GUINT64_TO_BE(at | COPIED);
        return file_pwrite_full(w->fd, batch->plain + i * CLUSTER, CLUSTER, at, "qcow2 image", error);
    }
    at = take_packed(w, packed);
    sectors = (at + packed - 1) / 512 - at / 512;
    *entry = GUINT64_TO_BE(COMPRESSED | sectors << COMPRESSED_SHIFT | at);
    return file_pwrite_full(w->fd, batch->packed + i * PACKED, packed, at, "qcow2 image", error);
}

static bool write_table(Writer *w, GError **error)
{
    return !w->l1[w->table] || file_pwrite_full(w->fd, w->l2, CLUSTER, w->l1[w->table], "qcow2 image", error);
}

/* Batches come in order, so one table is being filled at a time. */
static bool batch_take(void *slot, void *arg, GError **error)
{
    Writer *w = arg;
    const Batch *batch = slot;

    if (batch->first / L2_ENTRIES != w->table) {
        if (!write_table(w, error))
            return false;
        memset(w->l2, 0, CLUSTER);
        w->table = batch->first / L2_ENTRIES;
    }
    for (unsigned i = 0; i < BATCH; i++) {
        if (batch->sizes[i] && !place_cluster(w, batch, i, error))
            return false;
        progress_add(w->progress, batch->sizes[i] ? CLUSTER : 0);
    }
    return true;
}

static bool write_clusters(Writer *w, GError **error)
{
    static const OrderedOps ops = {batch_fill, batch_work, batch_take};
    Batch batches[BATCHES];
    bool ok;

    for (unsigned i = 0; i < BATCHES; i++)
        batches[i] = (Batch){.plain = g_malloc(BATCH * CLUSTER), .packed = g_malloc(BATCH * PACKED)};
    ok = ordered_run(&ops, batches, sizeof *batches, BATCHES, w, error) && write_table(w, error);
    for (unsigned i = 0; i < BATCHES; i++)
        batch_clear(&batches[i]);
    return ok;
}

static bool write_l1(const Writer *w, GError **error)
{
    g_autofree uint8_t *table = g_malloc0(w->l1_clusters * CLUSTER + 1);

    for (uint64_t i = 0; i < w->l1_entries; i++)
        if (w->l1[i])
            put64(table + i * 8, w->l1[i] | COPIED);
    return file_pwrite_full(w->fd, table, w->l1_clusters * CLUSTER, CLUSTER, "qcow2 image", error);
}

/* Counts cover themselves: grown until they do. */
static bool write_refcounts(Writer *w, uint64_t *ret_offset, uint32_t *ret_clusters, GError **error)
{
    uint64_t data = w->next, blocks = 1, table = 1;
    g_autofree uint8_t *entries = NULL, *counts = NULL;

    while (blocks * REFCOUNTS_PER_BLOCK < data + table + blocks || table * (CLUSTER / 8) < blocks) {
        blocks = (data + table + blocks + REFCOUNTS_PER_BLOCK - 1) / REFCOUNTS_PER_BLOCK;
        table = (blocks * 8 + CLUSTER - 1) / CLUSTER;
    }
    for (uint64_t i = 0; i < table + blocks; i++)
        (void)take_cluster(w);
    entries = g_malloc0(table * CLUSTER);
    counts = g_malloc0(blocks * CLUSTER);
    for (uint64_t i = 0; i < blocks; i++)
        put64(entries + i * 8, (data + table + i) * CLUSTER);
    for (guint i = 0; i < w->refcounts->len; i++) {
        uint16_t count = g_array_index(w->refcounts, uint16_t, i);

        counts[i * 2] = (uint8_t)(count >> 8);
        counts[i * 2 + 1] = (uint8_t)count;
    }
    *ret_offset = data * CLUSTER;
    *ret_clusters = (uint32_t)table;
    return file_pwrite_full(w->fd, entries, table * CLUSTER, data * CLUSTER, "qcow2 image", error) &&
           file_pwrite_full(w->fd, counts, blocks * CLUSTER, (data + table) * CLUSTER, "qcow2 image", error);
}

static bool write_header(const Writer *w, uint64_t refcounts, uint32_t refcount_clusters, GError **error)
{
    uint8_t head[OUR_HEADER_SIZE + 8] = {0}; /* the last 8: end of the extensions */

    memcpy(head, MAGIC, 4);
    put32(head + 4, 3);
    put32(head + 20, CLUSTER_BITS);
    put64(head + 24, w->size);
    put32(head + 36, (uint32_t)w->l1_entries);
    put64(head + 40, CLUSTER);
    put64(head + 48, refcounts);
    put32(head + 56, refcount_clusters);
    put64(head + 72, INCOMPATIBLE_COMPRESSION);
    put32(head + 96, 4); /* refcounts of 16 bits */
    put32(head + 100, OUR_HEADER_SIZE);
    head[104] = COMPRESSION_ZSTD;
    return file_pwrite_full(w->fd, head, sizeof(head), 0, "qcow2 image", error);
}

bool qcow2_write(StoreMap *map, int fd, Progress *progress, GError **error)
{
    g_auto(Writer) w = {0};
    uint64_t refcounts;
    uint32_t refcount_clusters;

    writer_init(&w, map, fd);
    place_tables(&w);
    w.packed_at = w.packed_end = w.next * CLUSTER;
    w.progress = progress;
    /* The header comes last: a half-written file is no image. */
    if (!write_clusters(&w, error) || !write_l1(&w, error) || !write_refcounts(&w, &refcounts, &refcount_clusters, error) ||
        !write_header(&w, refcounts, refcount_clusters, error))
        return false;
    return ftruncate(fd, (off_t)(w.next * CLUSTER)) == 0 || fail_errno(error, "write the qcow2 image");
}
