/* SPDX-License-Identifier: Apache-2.0 */
#include "store/segment-index.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "store/bytes.h"

#define INDEX_MAGIC "KILNSIX1"
#define INDEX_VERSION 1
#define INDEX_HEAD 56

SegmentIndex *segment_index_new(void)
{
    SegmentIndex *index = g_new0(SegmentIndex, 1);

    index->entries = g_array_new(FALSE, FALSE, sizeof(SegmentEntry));
    index->first = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    index->hashes = g_array_new(FALSE, FALSE, sizeof(Digest));
    return index;
}

void segment_index_free(SegmentIndex *index)
{
    if (!index)
        return;
    g_array_unref(index->entries);
    g_array_unref(index->first);
    g_array_unref(index->hashes);
    g_free(index);
}

void segment_index_add(SegmentIndex *index, const SegmentEntry *entry, const Digest *hashes)
{
    uint32_t first = index->hashes->len;

    g_array_append_vals(index->entries, entry, 1);
    g_array_append_val(index->first, first);
    g_array_append_vals(index->hashes, hashes, entry->blocks);
}

bool segment_index_of(Segment *segment, SegmentIndex **ret, GError **error)
{
    g_autoptr(SegmentIndex) index = segment_index_new();

    index->segment = *segment_digest(segment);
    index->size = segment_file_size(segment);
    for (uint32_t frame = 0; frame < segment_frames(segment); frame++) {
        Digest hashes[FRAME_MAX_BLOCKS];
        unsigned blocks;

        if (!segment_hashes(segment, frame, hashes, &blocks, error))
            return false;
        if (segment_is_moved(segment) || blocks != segment_entry(segment, frame)->blocks)
            return fail(error, "a segment was repacked meanwhile; try again");
        segment_index_add(index, segment_entry(segment, frame), hashes);
    }
    *ret = g_steal_pointer(&index);
    return true;
}

const Digest *segment_index_hash(const SegmentIndex *index, uint32_t position)
{
    uint32_t frame = position_frame(position);

    if (frame >= index->entries->len || position_block(position) >= g_array_index(index->entries, SegmentEntry, frame).blocks)
        return NULL;
    return &g_array_index(index->hashes, Digest, g_array_index(index->first, uint32_t, frame) + position_block(position));
}

GBytes *segment_index_encode(const SegmentIndex *index)
{
    guint frames = index->entries->len;
    size_t size = INDEX_HEAD + (size_t)frames * SEGMENT_ENTRY_SIZE + (size_t)index->hashes->len * DIGEST_SIZE;
    uint8_t *bytes = g_malloc0(size), *at = bytes + INDEX_HEAD;

    memcpy(bytes, INDEX_MAGIC, 8);
    put_le32(bytes + 8, INDEX_VERSION);
    put_le32(bytes + 12, frames);
    put_le64(bytes + 16, index->size);
    memcpy(bytes + 24, index->segment.bytes, DIGEST_SIZE);
    for (guint i = 0; i < frames; i++, at += SEGMENT_ENTRY_SIZE) {
        const SegmentEntry *entry = &g_array_index(index->entries, SegmentEntry, i);

        put_le64(at, entry->offset);
        put_le32(at + 8, entry->size);
        at[12] = entry->blocks;
        at[13] = entry->encoding;
    }
    if (index->hashes->len)
        memcpy(at, index->hashes->data, (size_t)index->hashes->len * DIGEST_SIZE);
    return g_bytes_new_take(bytes, size);
}

static bool nonsense(GError **error)
{
    return fail(error, "the index of a segment makes no sense");
}

static bool decode_entry(const uint8_t *from, uint64_t *at, uint64_t size, SegmentEntry *ret)
{
    uint64_t offset = get_le64(from);

    *ret = (SegmentEntry){(uint32_t)offset, get_le32(from + 8), from[12], from[13]};
    if (offset != *at || ret->blocks < 1 || ret->blocks > FRAME_MAX_BLOCKS || ret->size > FRAME_MAX_STORED || ret->size <= frame_head_size(ret->blocks) ||
        ret->size > size - offset)
        return false;
    *at += ret->size;
    return true;
}

bool segment_index_decode(const uint8_t *bytes, size_t size, SegmentIndex **ret, GError **error)
{
    g_autoptr(SegmentIndex) index = segment_index_new();
    const uint8_t *entries = bytes + INDEX_HEAD, *hashes;
    uint64_t at = SEGMENT_HEADER_SIZE, blocks = 0;
    uint32_t frames;

    if (size < INDEX_HEAD || memcmp(bytes, INDEX_MAGIC, 8))
        return fail(error, "this is no index of a segment");
    if (get_le32(bytes + 8) != INDEX_VERSION)
        return fail(error, "the index of a segment has format %u, this kiln reads %d: upgrade kiln", get_le32(bytes + 8), INDEX_VERSION);
    frames = get_le32(bytes + 12);
    index->size = get_le64(bytes + 16);
    memcpy(index->segment.bytes, bytes + 24, DIGEST_SIZE);
    if (frames > SEGMENT_MAX_FRAMES || index->size > SEGMENT_MAX_SIZE || (size - INDEX_HEAD) / SEGMENT_ENTRY_SIZE < frames)
        return nonsense(error);
    hashes = entries + (size_t)frames * SEGMENT_ENTRY_SIZE;
    for (uint32_t i = 0; i < frames; i++)
        blocks += entries[(size_t)i * SEGMENT_ENTRY_SIZE + 12];
    if ((size_t)(bytes + size - hashes) != blocks * DIGEST_SIZE)
        return nonsense(error);
    for (uint32_t i = 0; i < frames; i++, entries += SEGMENT_ENTRY_SIZE) {
        SegmentEntry entry;

        if (!decode_entry(entries, &at, index->size, &entry))
            return nonsense(error);
        segment_index_add(index, &entry, (const Digest *)hashes);
        hashes += (size_t)entry.blocks * DIGEST_SIZE;
    }
    if (at + 8 + (uint64_t)frames * SEGMENT_ENTRY_SIZE + SEGMENT_TAIL_SIZE != index->size)
        return nonsense(error);
    *ret = g_steal_pointer(&index);
    return true;
}

/* --- whole files --- */

typedef struct Verify {
    int fd;
    uint64_t size;
    const char *what;
    uint8_t *stored, *plain;
} Verify;

static bool broken(const Verify *v, const char *why, GError **error)
{
    return fail(error, "%s is no good segment: %s", v->what, why);
}

static bool verify_frame(const Verify *v, uint64_t *at, SegmentIndex *index, GError **error)
{
    size_t room = (size_t)MIN(FRAME_MAX_STORED, v->size - *at);
    FrameHead head;
    SegmentEntry entry;

    if (!file_pread_full(v->fd, v->stored, room, *at, v->what, error))
        return false;
    if (room < FRAME_FIXED_SIZE || !frame_parse_head(v->stored, room, &head) || head.payload > room - frame_head_size(head.blocks))
        return broken(v, "a frame's head is damaged", error);
    if (!frame_decode(&head, v->stored + frame_head_size(head.blocks), v->plain))
        return broken(v, "blocks do not have their hashes", error);
    entry = (SegmentEntry){(uint32_t)*at, frame_head_size(head.blocks) + head.payload, head.blocks, head.encoding};
    segment_index_add(index, &entry, head.hashes);
    *at += entry.size;
    return true;
}

static bool same_entry(const uint8_t *bytes, const SegmentEntry *entry)
{
    return get_le64(bytes) == entry->offset && get_le32(bytes + 8) == entry->size && bytes[12] == entry->blocks && bytes[13] == entry->encoding &&
           bytes[14] == 0 && bytes[15] == 0;
}

static bool verify_footer(const Verify *v, uint64_t at, const SegmentIndex *index, GError **error)
{
    size_t list = (size_t)index->entries->len * SEGMENT_ENTRY_SIZE, size = 8 + list + SEGMENT_TAIL_SIZE;
    g_autofree uint8_t *footer = g_malloc(size);
    const uint8_t *tail = footer + 8 + list;
    Digest check;

    if (at + size != v->size || !file_pread_full(v->fd, footer, size, at, v->what, NULL))
        return broken(v, "its footer is not where its frames end", error);
    digest_of(footer + 8, list, &check);
    if (get_le32(footer) != ZSTD_SKIP_FOOTER || get_le32(footer + 4) != size - 8 || get_le32(tail) != index->entries->len || get_le32(tail + 4) != size ||
        memcmp(tail + 8, check.bytes, 8) || memcmp(tail + 16, SEGMENT_END_MAGIC, 8))
        return broken(v, "its footer is not whole", error);
    for (guint i = 0; i < index->entries->len; i++)
        if (!same_entry(footer + 8 + (size_t)i * SEGMENT_ENTRY_SIZE, &g_array_index(index->entries, SegmentEntry, i)))
            return broken(v, "its footer does not list its frames", error);
    return true;
}

static bool verify(const Verify *v, SegmentIndex *index, GError **error)
{
    uint8_t head[SEGMENT_HEADER_SIZE];
    uint64_t at = SEGMENT_HEADER_SIZE;

    if (v->size < SEGMENT_HEADER_SIZE + 8 + SEGMENT_TAIL_SIZE || v->size > SEGMENT_MAX_SIZE)
        return broken(v, "its size is impossible", error);
    if (!file_pread_full(v->fd, head, sizeof head, 0, v->what, error))
        return false;
    if (get_le32(head) != ZSTD_SKIP_SEGMENT || memcmp(head + 8, SEGMENT_MAGIC, 8) || get_le32(head + 16) != SEGMENT_VERSION || get_le32(head + 20) != BLOCK_PUBLIC)
        return broken(v, "its header is not a public segment's", error);
    for (;;) {
        uint8_t magic[4];

        if (!interrupt_check(error) || !file_pread_full(v->fd, magic, sizeof magic, at, v->what, error))
            return false;
        if (get_le32(magic) != ZSTD_SKIP_FRAME)
            return verify_footer(v, at, index, error);
        if (index->entries->len >= SEGMENT_MAX_FRAMES || !verify_frame(v, &at, index, error))
            return index->entries->len < SEGMENT_MAX_FRAMES ? false : broken(v, "it has too many frames", error);
    }
}

bool segment_verify_file(int fd, uint64_t size, const char *what, GError **error)
{
    g_autoptr(SegmentIndex) index = segment_index_new();
    Verify v = {fd, size, what, g_malloc(FRAME_MAX_STORED), g_malloc(FRAME_MAX_BYTES)};
    bool ok = verify(&v, index, error);

    g_free(v.stored);
    g_free(v.plain);
    return ok;
}
