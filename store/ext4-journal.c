/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replaying jbd2 in memory. All numbers of the journal are big-endian; blocks are the file system's.
 *
 *   | superblock | log, a ring from s_first to s_maxlen |
 *   log: ... | descriptor: tags | block | block | ... | revoke | descriptor ... | commit | next transaction ...
 *   with fast commits, behind the ring: | head: TLVs, in little-endian | ... of which we only see whether they are there
 *
 * Three passes, as the kernel does: find where the log ends (the first block that is not of the transaction expected there), collect
 * what was revoked, lay the blocks over the disk. Nothing is copied where the file system's blocks are the map's: the block at home is
 * read from its place in the journal.
 *
 * The guest writes all of this. Positions are taken modulo the ring, each pass looks at no more blocks than the ring has, targets
 * outside the file system are refused, and what would have to be copied has a bound.
 */
#include "store/ext4-journal.h"
#include "store/ext4-session.h"
#include "store/map-patch.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "store/bytes.h"

#include <string.h>

#define EXT4_MAGIC 0xef53u
#define SUPER_SIZE 1024u
#define SUPER_MAGIC_AT 0x38u
#define SUPER_INCOMPAT_AT 0x60u
#define SUPER_CHECKSUM_AT 0x3fcu
#define INCOMPAT_RECOVER 4u

#define JBD_MAGIC 0xc03b3998u
#define JOURNAL_BLOCKS_MAX (1u << 20)
#define TARGETS_MAX (1u << 18)
#define FAST_BLOCKS 256 /* when the superblock says nothing */
#define FAST_HEAD 9
#define COPIES_MAX 8192 /* blocks of 4 KiB: 32 MiB */

enum { KIND_DESCRIPTOR = 1, KIND_COMMIT = 2, KIND_SUPER1 = 3, KIND_SUPER2 = 4, KIND_REVOKE = 5 };
enum { TAG_ESCAPED = 1, TAG_SAME_UUID = 2, TAG_LAST = 8 };
enum { HAS_REVOKE = 1, HAS_64BIT = 2, HAS_ASYNC = 4, HAS_CSUM2 = 8, HAS_CSUM3 = 16, HAS_FAST_COMMIT = 32 };

/* A block's newest place in the log. */
typedef struct Target {
    uint64_t block;
    uint32_t place; /* in the ring */
    bool escaped;
} Target;

typedef struct Revoked {
    uint64_t block;
    uint32_t sequence;
} Revoked;

typedef struct Journal {
    StoreMap *disk;
    uint64_t offset;       /* of the file system */
    uint64_t blocks;       /* of the file system */
    uint32_t block_size;
    GArray *where;         /* of uint64_t: the journal's blocks on the file system */
    uint32_t first, length, start, sequence, features, seed;
    uint32_t area;         /* blocks behind the ring, for fast commits */
    uint32_t end_sequence; /* the first transaction that is not there */
    GHashTable *revoked;   /* Revoked, by block */
    GHashTable *targets;   /* Target, by block */
    uint8_t *buffer;
    uint64_t copies;
} Journal;

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void journal_clear(Journal *j)
{
    if (j->where)
        g_array_unref(j->where);
    g_clear_pointer(&j->revoked, g_hash_table_unref);
    g_clear_pointer(&j->targets, g_hash_table_unref);
    g_free(j->buffer);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Journal, journal_clear)

static bool damaged(GError **error)
{
    return fail(error, "the ext4 file system's journal is damaged");
}

/* Sequence numbers wrap. */
static bool not_older(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) >= 0;
}

static bool read_place(const Journal *j, uint32_t place, uint8_t *to, GError **error)
{
    uint64_t block = g_array_index(j->where, uint64_t, place);

    return store_map_pread(j->disk, to, j->block_size, j->offset + block * j->block_size, error);
}

static uint32_t wrap(const Journal *j, uint64_t place)
{
    return place < j->length ? (uint32_t)place : (uint32_t)(j->first + (place - j->first) % (j->length - j->first));
}

/* --- opening --- */

/* CRC-32C as the journal and the superblock carry it: without the final turn. */
static uint32_t crc32c(uint32_t crc, const uint8_t *data, size_t size)
{
    static gsize made;
    static uint32_t table[256];

    if (g_once_init_enter(&made)) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;

            for (int bit = 0; bit < 8; bit++)
                value = value & 1 ? value >> 1 ^ 0x82f63b78u : value >> 1;
            table[i] = value;
        }
        g_once_init_leave(&made, 1);
    }
    for (size_t i = 0; i < size; i++)
        crc = crc >> 8 ^ table[(crc ^ data[i]) & 0xff];
    return crc;
}

static bool take_blocks(Ext4Session *session, Ext4Said *said, void *arg, GError **error)
{
    Journal *j = arg;
    uint64_t block;

    if (said->word != EXT4_NUMBERS)
        return ext4_session_nonsense(session, error);
    while (said->size) {
        if (!ext4_session_take(session, said, &block, sizeof block, error))
            return false;
        if (block >= j->blocks || j->where->len >= JOURNAL_BLOCKS_MAX)
            return damaged(error);
        g_array_append_val(j->where, block);
    }
    return true;
}

static bool read_super(Journal *j, GError **error)
{
    uint32_t kind, known = HAS_REVOKE | HAS_64BIT | HAS_ASYNC | HAS_CSUM2 | HAS_CSUM3 | HAS_FAST_COMMIT;

    if (j->where->len < 2)
        return damaged(error);
    if (!read_place(j, 0, j->buffer, error))
        return false;
    kind = be32(j->buffer + 4);
    if (be32(j->buffer) != JBD_MAGIC || (kind != KIND_SUPER1 && kind != KIND_SUPER2) || be32(j->buffer + 12) != j->block_size)
        return damaged(error);
    j->length = be32(j->buffer + 16);
    j->first = be32(j->buffer + 20);
    j->sequence = be32(j->buffer + 24);
    j->start = be32(j->buffer + 28);
    j->features = kind == KIND_SUPER2 ? be32(j->buffer + 40) : 0;
    if (j->features & ~known)
        return fail(error, "the ext4 file system's journal has features that kiln does not know (0x%x)", j->features & ~known);
    j->seed = crc32c(~0u, j->buffer + 48, 16);
    if (j->features & HAS_FAST_COMMIT) { /* its area is the end of the ring */
        j->area = be32(j->buffer + 84) ? be32(j->buffer + 84) : FAST_BLOCKS;
        j->length = j->area < j->length ? j->length - j->area : 0;
    }
    if ((uint64_t)j->length + j->area > j->where->len || j->first < 1 || j->first >= j->length)
        return damaged(error);
    return j->start == 0 || (j->start >= j->first && j->start < j->length) || damaged(error);
}

static bool journal_open(Journal *j, StoreMap *disk, uint64_t offset, uint64_t size, GError **error)
{
    g_autoptr(Ext4Session) session = NULL;
    Ext4Info info;

    if (!ext4_session_open(disk, offset, size, true, &session, &info, error))
        return false;
    j->disk = disk;
    j->offset = offset;
    j->block_size = info.block_size;
    j->blocks = info.blocks;
    j->where = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    j->buffer = g_malloc(j->block_size);
    j->revoked = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
    j->targets = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
    return ext4_session_each(session, EXT4_JOURNAL, NULL, take_blocks, j, error) && read_super(j, error);
}

/* --- blocks of the log --- */

static size_t tag_size(const Journal *j)
{
    if (j->features & HAS_CSUM3)
        return 16;
    return 8 + (j->features & HAS_CSUM2 ? 2u : 0u) + (j->features & HAS_64BIT ? 4u : 0u);
}

static uint64_t tag_block(const Journal *j, const uint8_t *tag)
{
    uint64_t block = be32(tag);

    return j->features & HAS_64BIT ? block | (uint64_t)be32(tag + 8) << 32 : block;
}

static unsigned tag_flags(const Journal *j, const uint8_t *tag)
{
    return j->features & HAS_CSUM3 ? be32(tag + 4) : be32(tag + 4) & 0xffff;
}

typedef bool TagFn(Journal *j, uint64_t block, unsigned flags, uint32_t place, GError **error);

/* Walks the tags of the descriptor in @bytes at @place of the ring; *ret_count blocks follow it. */
static bool each_tag(Journal *j, const uint8_t *bytes, uint32_t place, TagFn *fn, uint32_t *ret_count, GError **error)
{
    size_t end = j->block_size - (j->features & (HAS_CSUM2 | HAS_CSUM3) ? 4u : 0u), at = 12, size = tag_size(j);
    unsigned flags = 0;
    uint32_t count = 0;

    while (!(flags & TAG_LAST) && at + size <= end) {
        flags = tag_flags(j, bytes + at);
        count++;
        if (fn && !fn(j, tag_block(j, bytes + at), flags, wrap(j, (uint64_t)place + count), error))
            return false;
        at += size + (flags & TAG_SAME_UUID ? 0u : 16u);
    }
    *ret_count = count;
    return true;
}

/* A commit whose checksum is wrong was being written. Older journals have no checksum here. */
static bool commit_is_whole(const Journal *j, uint8_t *bytes)
{
    uint32_t sum = be32(bytes + 16);

    if (!(j->features & (HAS_CSUM2 | HAS_CSUM3)))
        return true;
    memset(bytes + 16, 0, 4);
    return crc32c(j->seed, bytes, j->block_size) == sum;
}

/* Where one pass is. */
typedef struct LogWalk {
    uint32_t place, sequence;
    uint64_t budget; /* blocks of the ring that may still be passed */
} LogWalk;

/* Reads the next control block and moves on behind it and its data; *ret_kind is 0 at the end of the log. */
static bool log_next(Journal *j, LogWalk *walk, uint8_t *bytes, uint32_t *ret_kind, uint32_t *ret_place, GError **error)
{
    uint32_t count = 0, kind;

    *ret_kind = 0;
    if (walk->budget == 0)
        return true;
    if (!read_place(j, walk->place, bytes, error))
        return false;
    kind = be32(bytes + 4);
    if (be32(bytes) != JBD_MAGIC || be32(bytes + 8) != walk->sequence || (kind != KIND_DESCRIPTOR && kind != KIND_COMMIT && kind != KIND_REVOKE))
        return true;
    if (kind == KIND_COMMIT && !commit_is_whole(j, bytes))
        return true;
    if (kind == KIND_DESCRIPTOR && !each_tag(j, bytes, walk->place, NULL, &count, error))
        return false;
    if (count + 1 > walk->budget)
        return true;
    *ret_kind = kind;
    *ret_place = walk->place;
    walk->budget -= count + 1;
    walk->place = wrap(j, (uint64_t)walk->place + count + 1);
    walk->sequence += kind == KIND_COMMIT;
    return interrupt_check(error);
}

static LogWalk log_begin(const Journal *j)
{
    return (LogWalk){j->start, j->sequence, j->length - j->first};
}

/* --- the passes --- */

static bool scan(Journal *j, GError **error)
{
    LogWalk walk = log_begin(j);
    uint32_t kind, place;

    do {
        if (!log_next(j, &walk, j->buffer, &kind, &place, error))
            return false;
    } while (kind);
    j->end_sequence = walk.sequence;
    return true;
}

/* Fast commits count when their head names the transaction that would come next. They begin one block behind the ring and end before one of zeroes. */
static bool count_fast(Journal *j, uint64_t *ret, GError **error)
{
    for (*ret = 0; *ret + 1 < j->area; (*ret)++) {
        const uint8_t *p = j->buffer;

        if (!read_place(j, j->length + 1 + (uint32_t)*ret, j->buffer, error))
            return false;
        if (*ret == 0 && ((p[0] | p[1] << 8) != FAST_HEAD || get_le32(p + 8) != j->end_sequence))
            return true;
        if (bytes_are_zero(p, j->block_size))
            return true;
    }
    return true;
}

static bool add_revoked(Journal *j, const uint8_t *bytes, uint32_t sequence, GError **error)
{
    size_t end = be32(bytes + 12), size = j->features & HAS_64BIT ? 8 : 4;

    if (end > j->block_size)
        return damaged(error);
    for (size_t at = 16; at + size <= end; at += size) {
        uint64_t block = size == 8 ? (uint64_t)be32(bytes + at) << 32 | be32(bytes + at + 4) : be32(bytes + at);
        Revoked *entry = g_hash_table_lookup(j->revoked, &block);

        if (entry) {
            entry->sequence = not_older(sequence, entry->sequence) ? sequence : entry->sequence;
            continue;
        }
        if (g_hash_table_size(j->revoked) >= TARGETS_MAX)
            return damaged(error);
        entry = g_new(Revoked, 1);
        *entry = (Revoked){block, sequence};
        g_hash_table_insert(j->revoked, &entry->block, entry);
    }
    return true;
}

static bool add_target(Journal *j, uint64_t block, unsigned flags, uint32_t place, GError **error)
{
    const Revoked *revoked = g_hash_table_lookup(j->revoked, &block);
    Target *target;

    if (block >= j->blocks)
        return damaged(error);
    if (revoked && not_older(revoked->sequence, j->sequence))
        return true;
    target = g_hash_table_lookup(j->targets, &block);
    if (!target) {
        if (g_hash_table_size(j->targets) >= TARGETS_MAX)
            return damaged(error);
        target = g_new0(Target, 1);
        target->block = block;
        g_hash_table_insert(j->targets, &target->block, target);
    }
    target->place = place;
    target->escaped = flags & TAG_ESCAPED;
    return true;
}

/* Whole transactions only. During the last pass j->sequence is the one being replayed. */
static bool pass(Journal *j, bool revokes, GError **error)
{
    LogWalk walk = log_begin(j);
    uint32_t first = j->sequence, kind = 1, place, count;
    bool ok = true;

    while (ok && walk.sequence != j->end_sequence) {
        uint32_t sequence = walk.sequence;

        ok = log_next(j, &walk, j->buffer, &kind, &place, error);
        if (!ok || !kind)
            break;
        j->sequence = sequence;
        if (revokes && kind == KIND_REVOKE)
            ok = add_revoked(j, j->buffer, sequence, error);
        if (!revokes && kind == KIND_DESCRIPTOR)
            ok = each_tag(j, j->buffer, place, add_target, &count, error);
    }
    j->sequence = first;
    return ok;
}

/* --- laying over --- */

static bool put_bytes(Journal *j, MapPatch *patch, StoreMap *view, uint64_t at, const uint8_t *bytes, size_t size, GError **error)
{
    uint8_t block[STORE_BLOCK_SIZE];

    while (size) {
        uint64_t number = at / STORE_BLOCK_SIZE, start = number * STORE_BLOCK_SIZE;
        size_t skip = at - start, part = MIN(size, STORE_BLOCK_SIZE - skip);
        size_t whole = (size_t)MIN((uint64_t)STORE_BLOCK_SIZE, store_map_size(view) - start);

        if (++j->copies > COPIES_MAX)
            return fail(error, "the ext4 file system's journal holds more than kiln applies in memory");
        memset(block, 0, sizeof block);
        if (!store_map_pread(view, block, whole, start, error))
            return false;
        memcpy(block + skip, bytes, part);
        map_patch_put(patch, number, block);
        at += part;
        bytes += part;
        size -= part;
    }
    return true;
}

static bool lay_over(Journal *j, MapPatch *patch, StoreMap *view, GError **error)
{
    bool on_grid = j->block_size == STORE_BLOCK_SIZE && j->offset % STORE_BLOCK_SIZE == 0;
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, j->targets);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const Target *target = value;
        uint64_t from = g_array_index(j->where, uint64_t, target->place);

        if (on_grid && !target->escaped) {
            map_patch_redirect(patch, j->offset / STORE_BLOCK_SIZE + target->block, j->offset / STORE_BLOCK_SIZE + from);
            continue;
        }
        if (!read_place(j, target->place, j->buffer, error))
            return false;
        if (target->escaped) /* it began like a block of the journal's own */
            memcpy(j->buffer, "\xc0\x3b\x39\x98", 4);
        if (!put_bytes(j, patch, view, j->offset + target->block * j->block_size, j->buffer, j->block_size, error))
            return false;
    }
    return true;
}

/* What a mount does last: the file system needs no recovery any more. */
static bool settle_super(Journal *j, MapPatch *patch, StoreMap *view, GError **error)
{
    uint8_t super[SUPER_SIZE];

    if (!store_map_pread(view, super, sizeof super, j->offset + 1024, error))
        return false;
    put_le32(super + SUPER_INCOMPAT_AT, get_le32(super + SUPER_INCOMPAT_AT) & ~INCOMPAT_RECOVER);
    put_le32(super + SUPER_CHECKSUM_AT, crc32c(~0u, super, SUPER_CHECKSUM_AT));
    return put_bytes(j, patch, view, j->offset + 1024, super, sizeof super, error);
}

static bool replay(Journal *j, StoreMap **ret, GError **error)
{
    MapPatch *patch = map_patch_new(store_map_size(j->disk), -1);
    g_autoptr(StoreMap) view = store_map_patched(j->disk, patch);

    if (!lay_over(j, patch, view, error) || !settle_super(j, patch, view, error))
        return false;
    *ret = g_steal_pointer(&view);
    return true;
}

static bool needs_recovery(StoreMap *disk, uint64_t offset, uint64_t size, bool *ret, GError **error)
{
    uint8_t super[SUPER_SIZE];

    *ret = false;
    if (size < 8192 || offset > store_map_size(disk) || size > store_map_size(disk) - offset)
        return true; /* opening it will say it */
    if (!store_map_pread(disk, super, sizeof super, offset + 1024, error))
        return false;
    *ret = (get_le32(super + SUPER_MAGIC_AT) & 0xffff) == EXT4_MAGIC && (get_le32(super + SUPER_INCOMPAT_AT) & INCOMPAT_RECOVER);
    return true;
}

bool ext4_settle(StoreMap *disk, uint64_t offset, uint64_t size, StoreMap **ret, uint64_t *ret_left, GError **error)
{
    g_auto(Journal) j = {0};
    bool needed;

    *ret_left = 0;
    if (!needs_recovery(disk, offset, size, &needed, error))
        return false;
    if (!needed) {
        *ret = store_map_ref(disk);
        return true;
    }
    if (!journal_open(&j, disk, offset, size, error))
        return false;
    j.end_sequence = j.sequence;
    if (j.start && (!scan(&j, error) || !pass(&j, true, error) || !pass(&j, false, error)))
        return false;
    if (!count_fast(&j, ret_left, error))
        return false;
    return replay(&j, ret, error);
}
