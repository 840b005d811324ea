/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment that is made for a disk which is served (serve-disk.c) is mostly frames of the store as they stand. It is kept as where those are, and
 * made again from them by whoever reads it:
 *
 *     "KILNPCS1" | any number of (length 8 | that many bytes | segment 32 | offset 8 | length 8)
 *
 * The bytes come first, then those of the segment; both lengths may be 0. What comes out has the digest it is named by, or its reader sees that it
 * has not.
 */
#include "store/serve-private.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/bytes.h"
#include "store/disk-artifact.h"
#include "store/segment.h"
#include "store/store-private.h"

#include <string.h>

#define MAGIC "KILNPCS1"
#define MAGIC_SIZE 8
#define TAIL_SIZE (DIGEST_SIZE + 16)
#define PIECES_MAX (256u << 20)
#define BUFFER (1u << 20)

static bool put_item(GByteArray *to, int fd, uint64_t at, uint64_t literal, const DiskPiece *piece, GError **error)
{
    guint start = to->len;
    uint8_t *bytes;

    g_byte_array_set_size(to, to->len + 8 + (guint)literal + TAIL_SIZE);
    bytes = to->data + start;
    put_le64(bytes, literal);
    if (literal && !file_pread_full(fd, bytes + 8, literal, at, "a new segment", error))
        return false;
    bytes += 8 + literal;
    memcpy(bytes, piece->segment.bytes, DIGEST_SIZE);
    put_le64(bytes + DIGEST_SIZE, piece->from);
    put_le64(bytes + DIGEST_SIZE + 8, piece->size);
    return true;
}

bool serve_pieces_encode(int fd, uint64_t size, const GArray *pieces, GBytes **ret, GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    const DiskPiece none = {.segment = digest_none};
    uint64_t at = 0;

    g_byte_array_append(bytes, (const guint8 *)MAGIC, MAGIC_SIZE);
    for (guint i = 0; i < pieces->len; i++) {
        const DiskPiece *piece = &g_array_index(pieces, DiskPiece, i);

        if (!put_item(bytes, fd, at, piece->at - at, piece, error))
            return false;
        at = piece->at + piece->size;
    }
    if (!put_item(bytes, fd, at, size - at, &none, error))
        return false;
    *ret = g_byte_array_free_to_bytes(g_steal_pointer(&bytes));
    return true;
}

typedef bool ItemFn(const uint8_t *literal, uint64_t size, const DiskPiece *piece, void *arg, GError **error);

static bool each_item(Store *store, const Digest *pieces, ItemFn *fn, void *arg, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    const uint8_t *at;
    gsize left;

    if (!store_blob_get(store, pieces, PIECES_MAX, &bytes, error))
        return false;
    at = g_bytes_get_data(bytes, &left);
    if (left < MAGIC_SIZE || memcmp(at, MAGIC, MAGIC_SIZE) != 0)
        return fail(error, "what a served segment consists of is not told by its blob");
    at += MAGIC_SIZE;
    left -= MAGIC_SIZE;
    while (left > 0) {
        uint64_t literal = left >= 8 + TAIL_SIZE ? get_le64(at) : UINT64_MAX;
        DiskPiece piece = {.segment = digest_none};

        if (literal > left - 8 - TAIL_SIZE)
            return fail(error, "what a served segment consists of is cut off");
        memcpy(piece.segment.bytes, at + 8 + literal, DIGEST_SIZE);
        piece.from = get_le64(at + 8 + literal + DIGEST_SIZE);
        piece.size = get_le64(at + 8 + literal + DIGEST_SIZE + 8);
        if (!fn(at + 8, literal, &piece, arg, error))
            return false;
        at += 8 + literal + TAIL_SIZE;
        left -= 8 + literal + TAIL_SIZE;
    }
    return true;
}

static bool note_source(const uint8_t *literal, uint64_t size, const DiskPiece *piece, void *arg, GError **error)
{
    GArray *to = arg;

    (void)literal;
    (void)size;
    (void)error;
    for (guint i = 0; i < to->len && piece->size; i++)
        if (digest_equal(&g_array_index(to, Digest, i), &piece->segment))
            return true;
    if (piece->size)
        g_array_append_val(to, piece->segment);
    return true;
}

bool serve_pieces_sources(Store *store, const Digest *pieces, GArray *to, GError **error)
{
    return each_item(store, pieces, note_source, to, error);
}

typedef struct Writing {
    Store *store;
    int fd;
} Writing;

static bool write_item(const uint8_t *literal, uint64_t size, const DiskPiece *piece, void *arg, GError **error)
{
    Writing *w = arg;
    g_autofree uint8_t *buffer = piece->size ? g_malloc(BUFFER) : NULL;
    auto_fd int from = piece->size ? segment_open_file(w->store, &piece->segment) : -1;

    if (size && !file_write_full(w->fd, literal, size, "a segment", error))
        return false;
    if (piece->size && from < 0)
        return store_fail_errno(w->store, error, "open a segment of");
    for (uint64_t done = 0; done < piece->size;) {
        size_t n = (size_t)MIN(piece->size - done, (uint64_t)BUFFER);

        if (!file_pread_full(from, buffer, n, piece->from + done, "a segment", error) || !file_write_full(w->fd, buffer, n, "a segment", error))
            return false;
        done += n;
    }
    return true;
}

bool serve_pieces_write(Store *store, const Digest *pieces, int fd, GError **error)
{
    return each_item(store, pieces, write_item, &(Writing){store, fd}, error);
}
