/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block index: an open-addressing table in a mapped file, 11 bytes an entry, never less than 0.69 full once it has grown: under 16 bytes a block.
 *
 *   +-------------------------------------------------------------------------------+
 *   | "KILNBIX1" | version 4 | 0 4 | capacity 8 | used 8 | last segment 8 |     |
 *   | boot id 40 | zeroes up to 4096                                                 |
 *   +-------------------------------------------------------------------------------+
 *   | entry: key 5 | segment number * 2^21 + position 6 (segment 0: free)            |
 *   +-------------------------------------------------------------------------------+
 *   key: the first 5 bytes of the hash, a number with the first byte highest. Numbers of the head are in the machine's byte order, as
 *   the file never leaves it; those of entries are little-endian.
 *
 * An entry's home is (key / 256) * capacity / 2^32: a larger key never has an earlier home, so a table is made larger or smaller by walking it from front to
 * back, and any capacity will do. It grows by a fifth when it is 0.85 full and is made anew when that would leave too much room, without what went with its segment.
 *
 * Entries come from catalogued segments only, in the order of their numbers, up to "last segment", under the lock
 * on index/lock. So a writer killed before it told the index loses nothing: the next one catches up. Readers take no lock; a torn
 * entry fails its confirmation. Growing writes a new file and renames it; who has the old one mapped misses the newer
 * entries until its next refresh. A table
 * written before this boot may have been torn by a power cut and is made again (a head read per frame: cheap).
 */
#include "store/block-index.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/bytes.h"
#include "store/io.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define INDEX_MAGIC "KILNBIX1"
#define INDEX_VERSION 2
#define INDEX_HEAD 4096
#define INDEX_MIN 4096
#define INDEX_MAX (UINT64_C(1) << 31) /* entries: 22 GB of table for 7 TB of blocks */
#define BLOCKS_MAX (SEGMENT_MAX_FRAMES * FRAME_MAX_BLOCKS) /* of a segment */
#define POSITION_BITS 21
#define SEGMENT_NUMBER_MAX ((1u << 27) - 1)
#define PROBES_MAX 4096 /* far more than a table of this load ever needs; a damaged one may have no free entry */
#define BYTES_PER_BLOCK 16
#define BATCH_MAX (1u << 20) /* entries */

typedef struct IndexHead {
    char magic[8];
    uint32_t version, zero;
    uint64_t capacity, used, last_segment;
    char boot[40];
} IndexHead;

typedef struct IndexEntry {
    uint8_t key[5], place[6];
} IndexEntry;
G_STATIC_ASSERT(sizeof(IndexEntry) == 11);

typedef struct KnownSegment {
    Digest digest;
    uint8_t class;
    bool there, alive; /* in the catalog; not dead */
} KnownSegment;

struct BlockIndex {
    Store *store;
    void *map;
    size_t map_size;
    ino_t inode;
    GArray *known; /* of KnownSegment, by number */
    uint64_t blocks; /* in all that are there, some of them more than once */
};

static IndexHead *head_of(const BlockIndex *index)
{
    return index->map;
}

static IndexEntry *entries_of(const BlockIndex *index)
{
    return (IndexEntry *)((uint8_t *)index->map + INDEX_HEAD);
}

/* --- entries --- */

/* Of the eight bytes from there on, all of which are the entry's. */
static uint64_t load_key(const IndexEntry *entry)
{
    return get_le64((const uint8_t *)entry) & ((UINT64_C(1) << 40) - 1);
}

static uint64_t load_place(const IndexEntry *entry)
{
    return get_le64((const uint8_t *)entry + sizeof(*entry) - 8) >> 16;
}

static IndexEntry make_entry(const Digest *hash, uint32_t segment, uint32_t position)
{
    uint64_t place = (uint64_t)segment << POSITION_BITS | position;
    IndexEntry entry;

    for (unsigned i = 0; i < sizeof(entry.key); i++)
        entry.key[i] = hash->bytes[sizeof(entry.key) - 1 - i];
    for (unsigned i = 0; i < sizeof(entry.place); i++)
        entry.place[i] = (uint8_t)(place >> (8 * i));
    return entry;
}

static uint32_t entry_segment(const IndexEntry *entry)
{
    return (uint32_t)(load_place(entry) >> POSITION_BITS);
}

static uint32_t entry_position(const IndexEntry *entry)
{
    return (uint32_t)load_place(entry) & ((1u << POSITION_BITS) - 1);
}

static bool same_key(const IndexEntry *a, const IndexEntry *b)
{
    return load_key(a) == load_key(b);
}

static uint64_t home_of(const IndexEntry *entry, uint64_t capacity)
{
    return ((load_key(entry) >> 8) * capacity) >> 32;
}

static uint64_t next_place(uint64_t at, uint64_t capacity)
{
    return at + 1 < capacity ? at + 1 : 0;
}

/* --- the file --- */

static void read_boot_id(char ret[40])
{
    g_autoptr(GBytes) bytes = NULL;

    memset(ret, 0, 40);
    if (file_load(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &bytes, NULL))
        memcpy(ret, g_bytes_get_data(bytes, NULL), MIN(g_bytes_get_size(bytes), 36));
}

static void unmap(BlockIndex *index)
{
    if (index->map)
        (void)munmap(index->map, index->map_size);
    index->map = NULL;
}

static bool head_is_good(const BlockIndex *index)
{
    const IndexHead *head = head_of(index);
    char boot[40];

    if (memcmp(head->magic, INDEX_MAGIC, 8) || head->version != INDEX_VERSION || head->capacity < INDEX_MIN || head->capacity > INDEX_MAX ||
        head->capacity > (index->map_size - INDEX_HEAD) / sizeof(IndexEntry) || head->used > head->capacity)
        return false;
    read_boot_id(boot);
    return !memcmp(boot, head->boot, sizeof(boot));
}

/* False without an error: there is none that can be used. */
static bool map_file(BlockIndex *index, int dirfd)
{
    auto_fd int fd = io_open(dirfd, "blocks", O_RDWR, 0);
    struct stat st;

    unmap(index);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < INDEX_HEAD + (off_t)(INDEX_MIN * sizeof(IndexEntry)))
        return false;
    index->map_size = (size_t)st.st_size;
    index->map = mmap(NULL, index->map_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (index->map == MAP_FAILED) {
        index->map = NULL;
        return false;
    }
    index->inode = st.st_ino;
    (void)madvise(index->map, index->map_size, MADV_RANDOM);
    if (head_is_good(index))
        return true;
    unmap(index);
    return false;
}

/* Room is allocated for real: a hole in a mapped file would be a SIGBUS on a full disk. */
static bool make_file(BlockIndex *index, int dirfd, uint64_t capacity, GError **error)
{
    size_t size = INDEX_HEAD + capacity * sizeof(IndexEntry);
    IndexHead head = { .magic = INDEX_MAGIC, .version = INDEX_VERSION, .capacity = capacity };
    auto_fd int fd = -1;
    int rc;

    (void)io_unlink(dirfd, "blocks.new", 0);
    read_boot_id(head.boot);
    fd = io_open(dirfd, "blocks.new", O_RDWR | O_CREAT | O_EXCL, 0644);
    rc = fd < 0 ? errno : posix_fallocate(fd, 0, (off_t)size);
    errno = rc;
    if (rc || !io_pwrite_full(fd, &head, sizeof(head), 0)) {
        (void)store_fail_errno(index->store, error, "make the block index of");
        (void)io_unlink(dirfd, "blocks.new", 0);
        return false;
    }
    return true;
}

static bool use_new_file(BlockIndex *index, int dirfd, GError **error)
{
    if (io_rename(dirfd, "blocks.new", dirfd, "blocks") < 0)
        return store_fail_errno(index->store, error, "make the block index of");
    return map_file(index, dirfd) || fail(error, "the new block index of store '%s' cannot be read", index->store->path);
}

static const KnownSegment *known_segment(const BlockIndex *index, uint32_t number)
{
    if (number >= index->known->len)
        return NULL;
    return &g_array_index(index->known, KnownSegment, number);
}

/* --- its size --- */

/* 0.72 full. */
static uint64_t fitting_capacity(uint64_t entries)
{
    return CLAMP(entries / 18 * 25 + 25, INDEX_MIN, INDEX_MAX);
}

static bool is_full(const IndexHead *head, uint64_t more)
{
    return head->used + more > head->capacity / 100 * 85;
}

static bool is_roomy(const BlockIndex *index)
{
    uint64_t capacity = head_of(index)->capacity;

    return capacity > INDEX_MIN && capacity * sizeof(IndexEntry) > MIN(head_of(index)->used, index->blocks) * BYTES_PER_BLOCK;
}

static bool is_useful(const BlockIndex *index, const IndexEntry *entry)
{
    const KnownSegment *known = known_segment(index, entry_segment(entry));

    return known && known->there;
}

static uint64_t count_useful(const BlockIndex *index)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < head_of(index)->capacity; i++)
        count += is_useful(index, &entries_of(index)[i]);
    return count;
}

static void take_over(const BlockIndex *old, BlockIndex *index)
{
    IndexHead *head = head_of(index);
    IndexEntry *entries = entries_of(index);

    for (uint64_t i = 0; i < head_of(old)->capacity; i++) {
        const IndexEntry *entry = &entries_of(old)[i];
        uint64_t at = home_of(entry, head->capacity);

        if (!is_useful(old, entry) || head->used >= head->capacity - 1)
            continue;
        while (entry_segment(&entries[at]))
            at = next_place(at, head->capacity);
        entries[at] = *entry;
        head->used++;
    }
    head->last_segment = head_of(old)->last_segment;
}

/* A table that fits what of this one is still of use, and @more. */
static bool resize(BlockIndex *index, int dirfd, uint64_t more, GError **error)
{
    BlockIndex old = *index;
    bool ok;

    if (!make_file(index, dirfd, fitting_capacity(count_useful(index) + more), error))
        return false;
    index->map = NULL;
    ok = use_new_file(index, dirfd, error);
    if (ok)
        take_over(&old, index);
    unmap(&old);
    return ok;
}

/* --- adding --- */

/* One entry per key: a public place beats a private one, a living one a dead one. */
static void insert(BlockIndex *index, const IndexEntry *entry)
{
    IndexHead *head = head_of(index);
    IndexEntry *entries = entries_of(index);
    const KnownSegment *ours = known_segment(index, entry_segment(entry)), *other;
    uint64_t at = home_of(entry, head->capacity);
    unsigned probes = 0;

    for (; entry_segment(&entries[at]); at = next_place(at, head->capacity)) {
        if (++probes > PROBES_MAX)
            return;
        if (!same_key(&entries[at], entry))
            continue;
        other = known_segment(index, entry_segment(&entries[at]));
        if (!other || !other->alive || (ours && ours->class > other->class))
            entries[at] = *entry;
        return;
    }
    entries[at] = *entry;
    head->used++;
}

/*
 * Entries lie all over the table. They are collected first and put in by the first byte of their keys, so that each 256th of the table is gone through
 * once for many: one by one, each costs a walk through the page table.
 */
static void sort_batch(const GArray *batch, IndexEntry *to)
{
    const IndexEntry *entries = (const IndexEntry *)batch->data;
    guint starts[257] = {0};

    for (guint i = 0; i < batch->len; i++)
        starts[entries[i].key[sizeof(entries[i].key) - 1] + 1]++;
    for (unsigned i = 1; i < 257; i++)
        starts[i] += starts[i - 1];
    for (guint i = 0; i < batch->len; i++)
        to[starts[entries[i].key[sizeof(entries[i].key) - 1]]++] = entries[i];
}

static bool flush_batch(BlockIndex *index, int dirfd, GArray *batch, GError **error)
{
    g_autofree IndexEntry *sorted = g_new(IndexEntry, MAX(batch->len, 1));

    if (is_full(head_of(index), batch->len) && !resize(index, dirfd, batch->len, error))
        return false;
    if (is_full(head_of(index), batch->len))
        return fail(error, "store '%s' has more blocks than its index can hold", index->store->path);
    sort_batch(batch, sorted);
    for (guint i = 0; i < batch->len; i++)
        insert(index, &sorted[i]);
    g_array_set_size(batch, 0);
    return true;
}

/* A segment that cannot be read is left out here; fsck tells of it. */
static bool add_segment(BlockIndex *index, int dirfd, uint32_t number, GArray *batch, GError **error)
{
    Digest hashes[FRAME_MAX_BLOCKS];
    Segment *segment;
    unsigned blocks;

    if (number > SEGMENT_NUMBER_MAX || !segment_get(index->store, &known_segment(index, number)->digest, &segment, NULL))
        return true;
    for (uint32_t frame = 0; frame < segment_frames(segment); frame++) {
        if (!segment_hashes(segment, frame, hashes, &blocks, NULL))
            continue;
        for (unsigned i = 0; i < blocks; i++) {
            IndexEntry entry = make_entry(&hashes[i], number, position_of(frame, i));

            g_array_append_val(batch, entry);
        }
        if (batch->len >= BATCH_MAX && !flush_batch(index, dirfd, batch, error))
            return false;
    }
    return true;
}

static bool load_known(BlockIndex *index, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    if (!store_catalog(index->store, &db, error) ||
        !(query = database_query(db, error, "SELECT number, digest, class, dead != 0 OR leaving != 0, blocks FROM segment ORDER BY number", "")))
        return false;
    g_array_set_size(index->known, 0);
    index->blocks = 0;
    while ((rc = query_step(query, error)) > 0) {
        int64_t number = query_int(query, 0);
        KnownSegment *known;

        if (number <= 0 || number > UINT32_MAX)
            continue;
        g_array_set_size(index->known, (guint)number + 1); /* cleared: gaps are not alive */
        known = &g_array_index(index->known, KnownSegment, number);
        query_digest(query, 1, &known->digest);
        known->class = (uint8_t)query_int(query, 2);
        known->there = true;
        known->alive = query_int(query, 3) == 0;
        index->blocks += (uint64_t)CLAMP(query_int(query, 4), 0, BLOCKS_MAX);
    }
    return rc == 0;
}

static bool open_table(BlockIndex *index, int dirfd, bool fresh, GError **error)
{
    struct stat st;

    if (!fresh && index->map && fstatat(dirfd, "blocks", &st, 0) == 0 && st.st_ino == index->inode)
        return true;
    if (!fresh && map_file(index, dirfd))
        return true;
    unmap(index);
    /* Room for all that will be added, so that a table made again need not grow. */
    return make_file(index, dirfd, fitting_capacity(index->blocks), error) && use_new_file(index, dirfd, error);
}

/* "last segment" moves when all is in, so that whoever is killed before that loses nothing. */
static bool add_missing(BlockIndex *index, int dirfd, GError **error)
{
    g_autoptr(GArray) batch = g_array_new(FALSE, FALSE, sizeof(IndexEntry));

    for (uint32_t number = (uint32_t)head_of(index)->last_segment + 1; number < index->known->len; number++)
        if (known_segment(index, number)->alive && !add_segment(index, dirfd, number, batch, error))
            return false;
    if (!flush_batch(index, dirfd, batch, error))
        return false;
    head_of(index)->last_segment = MAX(head_of(index)->last_segment, MAX(index->known->len, 1) - 1);
    return true;
}

static bool catch_up(BlockIndex *index, int dirfd, GError **error)
{
    /* The catalog was made again with fewer segments: its numbers mean other things now. */
    if (head_of(index)->last_segment >= MAX(index->known->len, 1) && !open_table(index, dirfd, true, error))
        return false;
    return add_missing(index, dirfd, error) && (!is_roomy(index) || resize(index, dirfd, 0, error));
}

static bool with_lock(Store *store, bool fresh, GError **error)
{
    auto_fd int dirfd = io_open(store->dirfd, "index", O_RDONLY | O_DIRECTORY, 0);
    auto_fd int lock = -1;

    if (dirfd < 0 && errno == ENOENT && io_mkdir(store->dirfd, "index", 0755) == 0)
        dirfd = io_open(store->dirfd, "index", O_RDONLY | O_DIRECTORY, 0);
    lock = dirfd < 0 ? -1 : io_open(dirfd, "lock", O_RDWR | O_CREAT, 0644);
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return store_fail_errno(store, error, "lock the block index of");
    if (!store->index) {
        store->index = g_new0(BlockIndex, 1);
        store->index->store = store;
        store->index->known = g_array_new(FALSE, TRUE, sizeof(KnownSegment));
    }
    /* After the lock, so that what another process catalogued and indexed is known to us as well. */
    return load_known(store->index, error) && open_table(store->index, dirfd, fresh, error) &&
           catch_up(store->index, dirfd, error);
}

bool block_index_refresh(Store *store, GError **error)
{
    AUTO_LOCK(&store->index_lock);
    return with_lock(store, false, error);
}

bool block_index_rebuild(Store *store, GError **error)
{
    AUTO_LOCK(&store->index_lock);
    return with_lock(store, true, error);
}

static bool confirm(BlockIndex *index, const IndexEntry *entry, const Digest *hash, BlockClass class, Segment **ret)
{
    const KnownSegment *known = known_segment(index, entry_segment(entry));
    uint32_t position = entry_position(entry);
    Digest hashes[FRAME_MAX_BLOCKS];
    unsigned blocks;

    if (!known || !known->alive || known->class < class)
        return false;
    if (!segment_get(index->store, &known->digest, ret, NULL) || (BlockClass)segment_class(*ret) < class)
        return false;
    if (!segment_hashes(*ret, position_frame(position), hashes, &blocks, NULL))
        return false;
    return position_block(position) < blocks && digest_equal(&hashes[position_block(position)], hash);
}

bool block_index_find(Store *store, const Digest *hash, BlockClass class, Segment **ret_segment, uint32_t *ret_position)
{
    IndexEntry wanted = make_entry(hash, 0, 0);
    uint64_t capacity, at;
    BlockIndex *index;

    AUTO_LOCK(&store->index_lock);
    index = store->index;
    if (!index || !index->map)
        return false;
    capacity = head_of(index)->capacity;
    at = home_of(&wanted, capacity);
    for (unsigned probes = 0; probes < PROBES_MAX; probes++, at = next_place(at, capacity)) {
        IndexEntry entry = entries_of(index)[at];

        if (!entry_segment(&entry))
            return false;
        if (same_key(&entry, &wanted) && confirm(index, &entry, hash, class, ret_segment)) {
            *ret_position = entry_position(&entry);
            return true;
        }
    }
    return false;
}

void block_index_counts(Store *store, uint64_t *ret_entries, uint64_t *ret_capacity)
{
    AUTO_LOCK(&store->index_lock);
    *ret_entries = store->index && store->index->map ? head_of(store->index)->used : 0;
    *ret_capacity = store->index && store->index->map ? head_of(store->index)->capacity : 0;
}

void block_index_close(BlockIndex *index)
{
    if (!index)
        return;
    unmap(index);
    g_array_unref(index->known);
    g_free(index);
}
