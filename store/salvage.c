/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damaged segments, as far as they can be read. Nothing here trusts what it reads: a list of frames only says where to look, and a block
 * is taken for what its hash says.
 */
#include "store/salvage.h"

#include "base/scope.h"
#include "store/io.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/stat.h>

static void take_entries(Salvage *s)
{
    Segment *segment;

    /* Forgotten first: what is open was checked when it was opened, and the file may have changed since. */
    segment_forget(s->store, &s->digest);
    if (!segment_get(s->store, &s->digest, &segment, NULL) || segment_is_moved(segment))
        return;
    s->opens = true;
    s->class = segment_class(segment);
    for (uint32_t i = 0; i < segment_frames(segment); i++)
        g_array_append_vals(s->entries, segment_entry(segment, i), 1);
}

static bool entry_makes_sense(const SegmentEntry *e, int64_t offset, int64_t size)
{
    return offset >= SEGMENT_HEADER_SIZE && offset < SEGMENT_MAX_SIZE && size > 0 && size <= FRAME_MAX_STORED && e->blocks >= 1 &&
           e->blocks <= FRAME_MAX_BLOCKS && (uint32_t)size > frame_head_size(e->blocks);
}

/* A row that makes no sense leaves its frame without a place, so that the others keep their numbers. */
static bool entries_of_catalog(Salvage *s, Database *db, GError **error)
{
    g_autoptr(Query) query = database_query(db, error,
                                            "SELECT f.offset, f.size, f.blocks, f.encoding, s.class FROM segment s JOIN frame f ON f.segment = s.number"
                                            " WHERE s.digest = ?1 ORDER BY f.number", "d", &s->digest);
    int rc = query ? 0 : -1;

    while (query && s->entries->len < SEGMENT_MAX_FRAMES && (rc = query_step(query, error)) > 0) {
        int64_t offset = query_int(query, 0), size = query_int(query, 1);
        SegmentEntry entry = {(uint32_t)offset, (uint32_t)size, (uint8_t)query_int(query, 2), (uint8_t)query_int(query, 3)};

        s->class = query_int(query, 4) == BLOCK_PUBLIC ? BLOCK_PUBLIC : BLOCK_PRIVATE;
        if (!entry_makes_sense(&entry, offset, size))
            entry = (SegmentEntry){0, 0, FRAME_MAX_BLOCKS, 0};
        g_array_append_val(s->entries, entry);
    }
    return rc >= 0;
}

bool salvage_open(Store *store, const Digest *digest, Salvage **ret, GError **error)
{
    g_autoptr(Salvage) s = g_new0(Salvage, 1);
    Database *db;
    struct stat st;

    s->store = store;
    s->digest = *digest;
    s->entries = g_array_new(FALSE, TRUE, sizeof(SegmentEntry));
    s->stored = g_malloc(FRAME_MAX_STORED);
    s->fd = segment_open_file(store, digest);
    s->size = s->fd >= 0 && fstat(s->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    take_entries(s);
    if (!s->opens && (!store_catalog(store, &db, error) || !entries_of_catalog(s, db, error)))
        return false;
    *ret = g_steal_pointer(&s);
    return true;
}

void salvage_free(Salvage *s)
{
    if (!s)
        return;
    scope_close_fd(&s->fd);
    g_array_unref(s->entries);
    g_free(s->stored);
    g_free(s);
}

/* --- frames --- */

static bool unpack(const SegmentEntry *e, const uint8_t *payload, uint8_t *to)
{
    uint32_t size = e->size - frame_head_size(e->blocks), plain = (uint32_t)e->blocks * STORE_BLOCK_SIZE;

    if (size == plain + FRAME_RAW_PREFIX) { /* which no compressed frame is as long as */
        memcpy(to, payload + FRAME_RAW_PREFIX, plain);
        return true;
    }
    return decompress_exact(to, plain, payload, size);
}

static void judge_blocks(SalvagedFrame *f, const uint8_t *stored)
{
    Digest have[FRAME_MAX_BLOCKS];

    for (unsigned i = 0; i < f->blocks; i++) {
        digest_of(f->plain + (size_t)i * STORE_BLOCK_SIZE, STORE_BLOCK_SIZE, &have[i]);
        if (digest_equal(&have[i], &f->hashes[i]))
            f->good |= 1u << i;
    }
    if (f->hashes_known || !frame_check_fits(stored, have, f->blocks))
        return;
    f->good = salvage_all(f->blocks);
    f->hashes_known = true;
    memcpy(f->hashes, have, f->blocks * sizeof(Digest));
}

/* As readers do it, and as long as nothing else is wrong all that is done. */
static bool read_strictly(const SegmentEntry *e, const uint8_t *stored, SalvagedFrame *ret)
{
    FrameHead head;

    if (!frame_parse_head(stored, e->size, &head) || head.blocks != e->blocks || head.encoding != e->encoding ||
        head.payload + frame_head_size(head.blocks) != e->size || !frame_decode(&head, stored + frame_head_size(head.blocks), ret->plain))
        return false;
    memcpy(ret->hashes, head.hashes, head.blocks * sizeof(Digest));
    ret->readable = ret->hashes_known = true;
    ret->good = salvage_all(head.blocks);
    return true;
}

void salvage_frame(Salvage *s, uint32_t frame, SalvagedFrame *ret)
{
    const SegmentEntry *e = &g_array_index(s->entries, SegmentEntry, frame);

    ret->blocks = e->blocks;
    ret->good = 0;
    ret->readable = ret->hashes_known = false;
    if (s->fd < 0 || e->size == 0 || !io_pread_full(s->fd, s->stored, e->size, e->offset))
        return;
    if (read_strictly(e, s->stored, ret))
        return;
    memcpy(ret->hashes, s->stored + FRAME_FIXED_SIZE, (size_t)e->blocks * DIGEST_SIZE);
    ret->hashes_known = frame_check_fits(s->stored, ret->hashes, e->blocks);
    if (unpack(e, s->stored + frame_head_size(e->blocks), ret->plain))
        judge_blocks(ret, s->stored);
}
