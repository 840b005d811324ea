/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces of a source on their way into a map (drawing in ingest.h), and files as sources.
 *
 * A piece ends on the map's grid of PIECE bytes, so that the windows of 32 blocks in it are whole: a window whose blocks are all new becomes
 * one frame.
 */
#include "store/ingest.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "store/map-private.h"
#include "store/ordered.h"
#include "store/writer.h"

#include <unistd.h>

#define PIECE (256u << 10)
#define PIECE_BLOCKS (PIECE / STORE_BLOCK_SIZE)

typedef struct Piece {
    uint64_t offset, from; /* on the map, in the source */
    size_t size;
    bool check; /* it is said to be the parent's */
    uint8_t *data;
    Digest hashes[PIECE_BLOCKS];
    bool same[PIECE_BLOCKS]; /* as the parent has it */
} Piece;

struct Ingest {
    MapWriter *map;
    StoreMap *parent;    /* borrowed; NULL: none */
    SourceBytes *source; /* borrowed; NULL: nothing is noted */
    IngestReadFn *read;
    void *arg;
    IngestSeenFn *seen;
    void *seen_arg;
    Progress *progress;
    Ordered *ring;
    Piece *pieces;
    unsigned count;
};

static size_t blocks_of(const Piece *piece)
{
    return (piece->size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;
}

/* The parent may be shorter than the map. */
static bool compare_with_parent(const Ingest *in, Piece *piece, GError **error)
{
    Digest before[PIECE_BLOCKS];

    if (!store_map_hashes_beyond(in->parent, piece->offset / STORE_BLOCK_SIZE, blocks_of(piece), before, error))
        return false;
    for (size_t i = 0; i < blocks_of(piece); i++) {
        piece->same[i] = digest_equal(&piece->hashes[i], &before[i]);
        if (piece->check && !piece->same[i])
            return fail(error, "the block at %" G_GUINT64_FORMAT " is not what the parent has there, although it is said to be unchanged",
                        piece->offset + i * STORE_BLOCK_SIZE);
    }
    return true;
}

static bool piece_work(void *slot, void *arg, GError **error)
{
    const Ingest *in = arg;
    Piece *piece = slot;
    size_t count = blocks_of(piece);

    if (!in->read(piece->data, piece->size, piece->from, in->arg, error))
        return false;
    memset(piece->data + piece->size, 0, count * STORE_BLOCK_SIZE - piece->size);
    store_hash_blocks(piece->data, count, piece->hashes);
    if (in->source)
        source_bytes_note(in->source, piece->offset / STORE_BLOCK_SIZE, piece->data, count);
    return !in->parent || compare_with_parent(in, piece, error);
}

static bool piece_take(void *slot, void *arg, GError **error)
{
    Ingest *in = arg;
    const Piece *piece = slot;
    uint64_t first = piece->offset / STORE_BLOCK_SIZE;
    size_t count = piece->check ? 0 : blocks_of(piece);

    if (in->seen && count && !in->seen(piece->data, piece->size, piece->offset, in->seen_arg, error))
        return false;
    for (size_t at = 0; at < count;) {
        unsigned part = (unsigned)MIN(count - at, FRAME_MAX_BLOCKS - (first + at) % FRAME_MAX_BLOCKS);

        if (!map_writer_put(in->map, first + at, piece->data + at * STORE_BLOCK_SIZE, piece->hashes + at, in->parent ? piece->same + at : NULL,
                            part, error))
            return false;
        at += part;
    }
    progress_add(in->progress, piece->size);
    return true;
}

Ingest *ingest_new(MapWriter *map, IngestReadFn *read, void *arg)
{
    static const OrderedOps ops = {NULL, piece_work, piece_take};
    Ingest *in = g_new0(Ingest, 1);

    in->map = map;
    in->parent = map_writer_parent(map);
    in->source = map_writer_source(map);
    in->read = read;
    in->arg = arg;
    in->count = 2 * ordered_threads() + 2;
    in->pieces = g_new(Piece, in->count);
    for (unsigned i = 0; i < in->count; i++)
        in->pieces[i].data = g_malloc(PIECE);
    in->ring = ordered_new(&ops, in->pieces, sizeof *in->pieces, in->count, in);
    return in;
}

void ingest_set_seen(Ingest *in, IngestSeenFn *seen, void *arg)
{
    in->seen = seen;
    in->seen_arg = arg;
}

void ingest_set_progress(Ingest *in, Progress *progress)
{
    in->progress = progress;
}

static bool hand_over(Ingest *in, uint64_t offset, uint64_t size, uint64_t from, bool check, GError **error)
{
    g_assert(offset % STORE_BLOCK_SIZE == 0 && (!check || in->parent) && (!in->source || offset == from));
    while (size > 0) {
        Piece *piece;
        void *slot;

        if (!interrupt_check(error) || !ordered_slot(in->ring, &slot, error))
            return false;
        piece = slot;
        piece->offset = offset;
        piece->from = from;
        piece->size = (size_t)MIN(size, PIECE - offset % PIECE);
        piece->check = check;
        ordered_push(in->ring);
        offset += piece->size;
        from += piece->size;
        size -= piece->size;
    }
    return true;
}

bool ingest_range(Ingest *in, uint64_t offset, uint64_t size, uint64_t from, GError **error)
{
    return hand_over(in, offset, size, from, false, error);
}

bool ingest_check(Ingest *in, uint64_t offset, uint64_t size, uint64_t from, GError **error)
{
    return hand_over(in, offset, size, from, true, error);
}

bool ingest_finish(Ingest *in, GError **error)
{
    return ordered_drain(in->ring, error);
}

void ingest_free(Ingest *in)
{
    if (!in)
        return;
    ordered_free(in->ring);
    for (unsigned i = 0; i < in->count; i++)
        g_free(in->pieces[i].data);
    g_free(in->pieces);
    g_free(in);
}

/* --- files --- */

static bool read_fd(void *buf, size_t size, uint64_t offset, void *arg, GError **error)
{
    return file_pread_full(*(const int *)arg, buf, size, offset, "the file being stored", error);
}

/* Holes by SEEK_HOLE where the file system knows them; what is left are zero blocks, which are found by looking. */
static bool next_data(int fd, uint64_t at, uint64_t size, uint64_t *ret_start, uint64_t *ret_end)
{
    off_t start = lseek(fd, (off_t)at, SEEK_DATA), end;

    if (start < 0 && errno == ENXIO)
        return false;
    if (start < 0) {
        *ret_start = at;
        *ret_end = size;
        return true;
    }
    end = lseek(fd, start, SEEK_HOLE);
    *ret_start = MIN((uint64_t)start / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE, size);
    *ret_end = end < 0 ? size : MIN(((uint64_t)end + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE, size);
    return *ret_start < size;
}

bool map_writer_write_file(MapWriter *map, uint64_t offset, int fd, uint64_t size, Progress *progress, GError **error)
{
    g_autoptr(Ingest) in = NULL;
    uint64_t at = 0, start, end;
    uint64_t covered = MIN((size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE,
                           map_writer_size(map) - MIN(offset, map_writer_size(map)));

    if (!map_writer_zero(map, offset, covered, error))
        return false;
    if (covered < size)
        return fail(error, "a file of %" G_GUINT64_FORMAT " bytes does not fit into its place in a map", size);
    in = ingest_new(map, read_fd, &fd);
    ingest_set_progress(in, progress);
    while (at < size && next_data(fd, at, size, &start, &end)) {
        start = MAX(start, at);
        progress_add(progress, start - at);
        if (!ingest_range(in, offset + start, end - start, start, error))
            return false;
        at = end;
    }
    progress_add(progress, size - MIN(at, size));
    return ingest_finish(in, error);
}
