/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member:
 *
 *   1f 8b 08 FLAGS  00 00 00 00 (time)  00 ff   [06 00 'B' 'C' 02 00 length-1 (bgzf)]   deflate   CRC-32  length of the input
 *
 * Pieces are filled in order and compressed by all processors (store/ordered.h).
 */
#include "store/gzip-members.h"

#include "base/error.h"
#include "store/ordered.h"

#include <string.h>
#include <zlib.h>

#define PIECE (1u << 20)
#define BGZF_PIECE 65280u /* as htslib cuts: also what does not shrink fits into a member of 65,536 bytes */
#define HEADER 10u
#define BGZF_HEADER 18u
#define TRAILER 8u
#define ROOM_MORE 1024u

typedef struct Slot {
    uint8_t *in, *out;
    size_t in_size, out_size;
} Slot;

struct GzipMembers {
    int level;
    bool bgzf;
    size_t piece, room;
    GzipOutFn *out;
    void *arg;
    Slot *slots, *open; /* @open: being filled */
    unsigned count;
    Ordered *ring;
    bool pushed; /* a member was begun: there must be one */
};

static void put_le32(uint8_t *to, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

/* zlib's raw stream behind the header's place. */
static bool deflate_piece(const GzipMembers *z, Slot *slot, size_t header, size_t *ret_size)
{
    z_stream stream = {.next_in = slot->in, .avail_in = (uInt)slot->in_size, .next_out = slot->out + header,
                       .avail_out = (uInt)(z->room - header - TRAILER)};
    int rc;

    if (deflateInit2(&stream, z->level, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    rc = deflate(&stream, Z_FINISH);
    *ret_size = stream.total_out;
    (void)deflateEnd(&stream);
    return rc == Z_STREAM_END;
}

static bool work(void *data, void *arg, GError **error)
{
    static const uint8_t plain[HEADER] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff};
    static const uint8_t bgzf[BGZF_HEADER] = {0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, 'B', 'C', 2, 0, 0, 0};
    const GzipMembers *z = arg;
    size_t header = z->bgzf ? BGZF_HEADER : HEADER, size;
    Slot *slot = data;

    if (!deflate_piece(z, slot, header, &size))
        return fail(error, "zlib does not compress");
    memcpy(slot->out, z->bgzf ? bgzf : plain, header);
    put_le32(slot->out + header + size, (uint32_t)crc32(0, slot->in, (uInt)slot->in_size));
    put_le32(slot->out + header + size + 4, (uint32_t)slot->in_size);
    slot->out_size = header + size + TRAILER;
    if (z->bgzf) {
        g_assert(slot->out_size <= 65536);
        slot->out[16] = (uint8_t)(slot->out_size - 1);
        slot->out[17] = (uint8_t)((slot->out_size - 1) >> 8);
    }
    return true;
}

static bool take(void *data, void *arg, GError **error)
{
    const GzipMembers *z = arg;
    const Slot *slot = data;

    return z->out(slot->out, slot->out_size, z->arg, error);
}

GzipMembers *gzip_members_new(int level, bool bgzf, GzipOutFn *out, void *arg)
{
    static const OrderedOps ops = {NULL, work, take};
    GzipMembers *z = g_new0(GzipMembers, 1);

    z->level = level;
    z->bgzf = bgzf;
    z->piece = bgzf ? BGZF_PIECE : PIECE;
    z->room = compressBound(z->piece) + ROOM_MORE;
    z->out = out;
    z->arg = arg;
    z->count = ordered_threads() + 2;
    z->slots = g_new0(Slot, z->count);
    for (unsigned i = 0; i < z->count; i++) {
        z->slots[i].in = g_malloc(z->piece);
        z->slots[i].out = g_malloc(z->room);
    }
    z->ring = ordered_new(&ops, z->slots, sizeof(Slot), z->count, z);
    return z;
}

static bool open_slot(GzipMembers *z, GError **error)
{
    void *slot;

    if (z->open)
        return true;
    if (!ordered_slot(z->ring, &slot, error))
        return false;
    z->open = slot;
    z->open->in_size = 0;
    return true;
}

static void close_slot(GzipMembers *z)
{
    z->open = NULL;
    z->pushed = true;
    ordered_push(z->ring);
}

bool gzip_members_push(GzipMembers *z, const void *data, size_t size, GError **error)
{
    const uint8_t *at = data;

    while (size > 0) {
        size_t n;

        if (!open_slot(z, error))
            return false;
        n = MIN(size, z->piece - z->open->in_size);
        memcpy(z->open->in + z->open->in_size, at, n);
        z->open->in_size += n;
        at += n;
        size -= n;
        if (z->open->in_size == z->piece)
            close_slot(z);
    }
    return true;
}

bool gzip_members_finish(GzipMembers *z, GError **error)
{
    if (z->open)
        close_slot(z);
    if (z->bgzf || !z->pushed) { /* bgzf's end is an empty member */
        if (!open_slot(z, error))
            return false;
        close_slot(z);
    }
    return ordered_drain(z->ring, error);
}

void gzip_members_free(GzipMembers *z)
{
    if (!z)
        return;
    ordered_free(z->ring);
    for (unsigned i = 0; i < z->count; i++) {
        g_free(z->slots[i].in);
        g_free(z->slots[i].out);
    }
    g_free(z->slots);
    g_free(z);
}
