/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patches over maps. Runs come from a table of another file's blocks, ascending, and are searched by halving; single blocks sit in a
 * hash table and win over runs. Hashes of patched blocks are computed when asked for: they are few, and most are asked for once.
 */
#include "store/map-patch.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"

#include <string.h>

typedef struct PatchRun {
    uint64_t block, count;
    uint64_t offset; /* in the file, or MAP_PATCH_ZERO */
} PatchRun;

typedef struct PatchBlock {
    uint64_t block;
    uint64_t from;  /* block of the map below, when there are no bytes */
    uint8_t *bytes; /* may be NULL */
} PatchBlock;

struct MapPatch {
    uint64_t size;
    int fd;
    GArray *runs;       /* of PatchRun */
    GHashTable *blocks; /* uint64_t* -> PatchBlock*, the key is its first member */
};

static void patch_block_free(gpointer p)
{
    PatchBlock *block = p;

    g_free(block->bytes);
    g_free(block);
}

MapPatch *map_patch_new(uint64_t size, int fd)
{
    MapPatch *patch = g_new0(MapPatch, 1);

    patch->size = size;
    patch->fd = fd;
    patch->runs = g_array_new(FALSE, FALSE, sizeof(PatchRun));
    patch->blocks = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, patch_block_free);
    return patch;
}

void map_patch_free(MapPatch *patch)
{
    if (!patch)
        return;
    scope_close_fd(&patch->fd);
    g_array_unref(patch->runs);
    g_hash_table_unref(patch->blocks);
    g_free(patch);
}

void map_patch_add(MapPatch *patch, uint64_t block, uint64_t count, uint64_t offset)
{
    PatchRun run = {block, count, offset};
    PatchRun *last = patch->runs->len ? &g_array_index(patch->runs, PatchRun, patch->runs->len - 1) : NULL;
    uint64_t next = !last || last->offset == MAP_PATCH_ZERO ? MAP_PATCH_ZERO : last->offset + last->count * STORE_BLOCK_SIZE;

    g_assert(!last || last->block + last->count <= block);
    if (last && last->block + last->count == block && offset == next)
        last->count += count;
    else
        g_array_append_val(patch->runs, run);
}

static PatchBlock *patch_block(MapPatch *patch, uint64_t block)
{
    PatchBlock *entry = g_new0(PatchBlock, 1);

    entry->block = block;
    (void)g_hash_table_replace(patch->blocks, &entry->block, entry); /* frees the one before */
    return entry;
}

void map_patch_put(MapPatch *patch, uint64_t block, const uint8_t bytes[STORE_BLOCK_SIZE])
{
    uint8_t *copy = g_memdup2(bytes, STORE_BLOCK_SIZE); /* first: @bytes may be what goes */

    patch_block(patch, block)->bytes = copy;
}

void map_patch_redirect(MapPatch *patch, uint64_t block, uint64_t from)
{
    patch_block(patch, block)->from = from;
}

uint64_t map_patch_size(const MapPatch *patch)
{
    return patch->size;
}

/* Index of the first run that ends after @block. */
static guint find_run(const MapPatch *patch, uint64_t block)
{
    guint low = 0, high = patch->runs->len;

    while (low < high) {
        guint middle = low + (high - low) / 2;
        const PatchRun *run = &g_array_index(patch->runs, PatchRun, middle);

        if (run->block + run->count <= block)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const PatchRun *run_at(const MapPatch *patch, guint index)
{
    return index < patch->runs->len ? &g_array_index(patch->runs, PatchRun, index) : NULL;
}

guint map_patch_runs(const MapPatch *patch)
{
    return patch->runs->len;
}

uint64_t map_patch_count(const MapPatch *patch, uint64_t first, uint64_t end)
{
    uint64_t count = 0;

    for (guint i = find_run(patch, first); i < patch->runs->len; i++) {
        const PatchRun *run = run_at(patch, i);

        if (run->block >= end)
            break;
        count += MIN(run->block + run->count, end) - MAX(run->block, first);
    }
    return count;
}

/* --- reading --- */

/* Where blocks from @block on come from: @count of them lie in one piece. */
typedef struct Piece {
    enum { PIECE_BASE, PIECE_FILE, PIECE_ZERO, PIECE_BYTES } kind;
    uint64_t at; /* PIECE_BASE: block below; PIECE_FILE: offset */
    uint64_t count;
    const uint8_t *bytes;
} Piece;

static bool piece_of_block(const MapPatch *patch, uint64_t block, Piece *ret)
{
    const PatchBlock *entry = g_hash_table_size(patch->blocks) ? g_hash_table_lookup(patch->blocks, &block) : NULL;

    if (!entry)
        return false;
    *ret = (Piece){entry->bytes ? PIECE_BYTES : PIECE_BASE, entry->from, 1, entry->bytes};
    return true;
}

static Piece piece_at(const MapPatch *patch, uint64_t block, uint64_t max)
{
    const PatchRun *run;
    Piece piece;

    if (piece_of_block(patch, block, &piece))
        return piece;
    run = run_at(patch, find_run(patch, block));
    if (!run || run->block > block) {
        piece = (Piece){PIECE_BASE, block, run ? run->block - block : UINT64_MAX, NULL};
    } else {
        uint64_t skip = block - run->block;

        piece = (Piece){PIECE_ZERO, 0, run->count - skip, NULL};
        if (run->offset != MAP_PATCH_ZERO)
            piece = (Piece){PIECE_FILE, run->offset + skip * STORE_BLOCK_SIZE, run->count - skip, NULL};
    }
    piece.count = MIN(piece.count, max);
    for (uint64_t i = 1; i < piece.count && g_hash_table_size(patch->blocks); i++) {
        uint64_t next = block + i;

        if (g_hash_table_contains(patch->blocks, &next))
            piece.count = i;
    }
    return piece;
}

static bool read_base(StoreMap *base, uint8_t *to, size_t size, uint64_t offset, GError **error)
{
    uint64_t end = store_map_size(base);
    size_t have = offset >= end ? 0 : (size_t)MIN(size, end - offset);

    memset(to + have, 0, size - have);
    return have == 0 || store_map_pread(base, to, have, offset, error);
}

static bool read_piece(const MapPatch *patch, StoreMap *base, const Piece *piece, uint64_t skip, uint8_t *to, size_t size, GError **error)
{
    switch (piece->kind) {
    case PIECE_BASE:
        return read_base(base, to, size, piece->at * STORE_BLOCK_SIZE + skip, error);
    case PIECE_FILE: /* files end where their last cluster was written to */
        return file_pread_padded(patch->fd, to, size, piece->at + skip, "an overlay", error);
    case PIECE_BYTES:
        memcpy(to, piece->bytes + skip, size);
        return true;
    default:
        memset(to, 0, size);
        return true;
    }
}

bool map_patch_pread(const MapPatch *patch, StoreMap *base, void *buf, size_t size, uint64_t offset, GError **error)
{
    uint8_t *to = buf;

    if (offset > patch->size || size > patch->size - offset)
        return fail(error, "a read of %zu bytes at %" G_GUINT64_FORMAT " goes beyond the end of a disk of %" G_GUINT64_FORMAT, size, offset,
                    patch->size);
    while (size) {
        uint64_t block = offset / STORE_BLOCK_SIZE, skip = offset % STORE_BLOCK_SIZE;
        Piece piece = piece_at(patch, block, (skip + size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE);
        size_t part = (size_t)MIN((uint64_t)size, piece.count * STORE_BLOCK_SIZE - skip);

        if (!read_piece(patch, base, &piece, skip, to, part, error))
            return false;
        to += part;
        offset += part;
        size -= part;
    }
    return true;
}

void map_patch_extent(const MapPatch *patch, const StoreMap *base, uint64_t offset, uint64_t *ret_end, bool *ret_zero)
{
    uint64_t block = offset / STORE_BLOCK_SIZE, below;
    Piece piece = piece_at(patch, block, 1024);
    uint64_t end = MIN((block + piece.count) * STORE_BLOCK_SIZE, patch->size);

    *ret_zero = piece.kind == PIECE_ZERO;
    if (piece.kind == PIECE_BASE && piece.at == block) {
        *ret_zero = offset >= store_map_size(base);
        if (!*ret_zero) {
            store_map_extent(base, offset, &below, ret_zero);
            end = MIN(end, below);
        }
    }
    *ret_end = end;
}

static bool hash_piece(const MapPatch *patch, StoreMap *base, const Piece *piece, Digest *ret, GError **error)
{
    uint8_t block[STORE_BLOCK_SIZE];

    if (piece->kind == PIECE_BASE)
        return store_map_hashes_beyond(base, piece->at, piece->count, ret, error);
    for (uint64_t i = 0; i < piece->count; i++) {
        if (!read_piece(patch, base, piece, i * STORE_BLOCK_SIZE, block, sizeof block, error))
            return false;
        ret[i] = digest_none;
        if (!bytes_are_zero(block, sizeof block))
            digest_of(block, sizeof block, &ret[i]);
    }
    return true;
}

bool map_patch_hashes(const MapPatch *patch, StoreMap *base, uint64_t first, size_t count, Digest *ret, GError **error)
{
    uint64_t blocks = (patch->size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;

    if (first > blocks || count > blocks - first)
        return fail(error, "block %" G_GUINT64_FORMAT " is beyond the end of a disk", first + count);
    while (count) {
        Piece piece = piece_at(patch, first, count);

        if (!hash_piece(patch, base, &piece, ret, error))
            return false;
        first += piece.count;
        ret += piece.count;
        count -= piece.count;
    }
    return true;
}
