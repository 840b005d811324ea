/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gzip stream around the frozen encoder: chunks are filled in order, encoded by all processors, and their bits put
 * one behind the other in order again. Nothing here decides about a bit but the member's header and trailer, so the output
 * does not depend on how many processors there are, nor on how the input was cut.
 *
 * Threads (store/ordered.h) start with the first full chunk that is not the last: what is small is encoded where it is.
 */
#include "store/deflate.h"

#include "store/deflate-chunk.h"
#include "store/ordered.h"

#include <string.h>

#define OUT_SIZE 65536u

typedef struct Slot {
    DeflateChunk *chunk;
    bool last;
} Slot;

struct GzipWriter {
    GzipOutFn *out;
    void *arg;
    uint32_t crc, total; /* of the chunks taken */

    Ordered *ring;
    Slot *slots, *open; /* @open: being filled */
    unsigned count;
    bool shared; /* a chunk was handed over to the threads */

    uint64_t bits; /* fewer than 8 of them wait between two chunks */
    unsigned bit_count;
    size_t out_used;
    uint8_t out_buffer[OUT_SIZE + 16];
};

/* --- bits out --------------------------------------------------------------- */

static bool out_flush(GzipWriter *z, GError **error)
{
    size_t used = z->out_used;

    z->out_used = 0;
    return used == 0 || z->out(z->out_buffer, used, z->arg, error);
}

/* At most 32 bits at once, and room for 8 bytes. */
static inline void bits_put(GzipWriter *z, uint64_t value, unsigned count)
{
    uint64_t word;

    z->bits |= value << z->bit_count;
    z->bit_count += count;
    word = GUINT64_TO_LE(z->bits);
    memcpy(z->out_buffer + z->out_used, &word, sizeof word);
    z->out_used += z->bit_count >> 3;
    z->bits >>= z->bit_count & ~7u;
    z->bit_count &= 7;
}

static bool bits_join(GzipWriter *z, const uint8_t *from, uint64_t count, GError **error)
{
    for (; count >= 32; count -= 32, from += 4) {
        uint32_t word;

        if (z->out_used + 8 > OUT_SIZE && !out_flush(z, error))
            return false;
        memcpy(&word, from, sizeof word);
        bits_put(z, GUINT32_FROM_LE(word), 32);
    }
    for (; count > 0; from++) {
        unsigned n = (unsigned)MIN(count, 8);

        if (z->out_used + 8 > OUT_SIZE && !out_flush(z, error))
            return false;
        bits_put(z, *from & ((1u << n) - 1), n);
        count -= n;
    }
    return true;
}

static void bits_align(GzipWriter *z)
{
    if (z->bit_count)
        bits_put(z, 0, 8 - z->bit_count);
}

static bool join_part(GzipWriter *z, const DeflatePart *part, GError **error)
{
    if (!bits_join(z, part->bits, part->bit_count, error))
        return false;
    if (!part->stored)
        return true;
    if (z->out_used + 16 > OUT_SIZE && !out_flush(z, error))
        return false;
    bits_align(z);
    bits_put(z, part->byte_count, 16);
    bits_put(z, ~part->byte_count & 0xffff, 16);
    return out_flush(z, error) && (part->byte_count == 0 || z->out(part->bytes, part->byte_count, z->arg, error));
}

static bool join_chunk(GzipWriter *z, const DeflateChunk *chunk, GError **error)
{
    unsigned count;
    const DeflatePart *parts = deflate_chunk_parts(chunk, &count);

    z->crc = deflate_crc_join(z->crc, deflate_chunk_crc(chunk), deflate_chunk_size(chunk));
    z->total += deflate_chunk_size(chunk);
    for (unsigned i = 0; i < count; i++)
        if (!join_part(z, &parts[i], error))
            return false;
    return true;
}

/* --- chunks ------------------------------------------------------------------- */

static bool encode_slot(void *arg, void *writer, GError **error)
{
    const Slot *slot = arg;

    deflate_chunk_encode(slot->chunk, slot->last);
    return true;
}

static bool join_slot(void *arg, void *writer, GError **error)
{
    return join_chunk(writer, ((const Slot *)arg)->chunk, error);
}

/* The next slot, whose chunk goes on behind @before. */
static bool open_slot(GzipWriter *z, const DeflateChunk *before, GError **error)
{
    void *slot;

    if (!ordered_slot(z->ring, &slot, error))
        return false;
    z->open = slot;
    if (!z->open->chunk)
        z->open->chunk = deflate_chunk_new();
    deflate_chunk_begin(z->open->chunk, before);
    return true;
}

/* A chunk goes on its way only when a byte behind it is known: the last one says that it is. */
static bool next_chunk(GzipWriter *z, GError **error)
{
    z->shared = true;
    ordered_push(z->ring);
    return open_slot(z, z->open->chunk, error);
}

static bool finish_chunks(GzipWriter *z, GError **error)
{
    z->open->last = true;
    if (!z->shared)
        return encode_slot(z->open, z, error) && join_slot(z->open, z, error);
    ordered_push(z->ring);
    return ordered_drain(z->ring, error);
}

/* --- the stream ------------------------------------------------------------------ */

GzipWriter *gzip_writer_new_with(unsigned threads, GzipOutFn *out, void *arg)
{
    static const OrderedOps ops = {NULL, encode_slot, join_slot};
    static const uint8_t header[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
    GzipWriter *z = g_new0(GzipWriter, 1);

    z->out = out;
    z->arg = arg;
    z->count = CLAMP(threads, 1, ORDERED_THREADS_MAX) + 2; /* one being filled, and one that waits to be joined */
    z->slots = g_new0(Slot, z->count);
    z->ring = ordered_new(&ops, z->slots, sizeof *z->slots, z->count, z);
    ordered_set_threads(z->ring, z->count - 2);
    memcpy(z->out_buffer, header, sizeof(header));
    z->out_used = sizeof(header);
    (void)open_slot(z, NULL, NULL); /* nothing is under way that could fail */
    return z;
}

GzipWriter *gzip_writer_new(GzipOutFn *out, void *arg)
{
    return gzip_writer_new_with(g_get_num_processors(), out, arg);
}

bool gzip_writer_push(GzipWriter *z, const void *data, size_t size, GError **error)
{
    const uint8_t *p = data;

    while (size) {
        size_t n;

        if (deflate_chunk_is_full(z->open->chunk) && !next_chunk(z, error))
            return false;
        n = deflate_chunk_fill(z->open->chunk, p, size);
        p += n;
        size -= n;
    }
    return true;
}

bool gzip_writer_finish(GzipWriter *z, GError **error)
{
    if (!finish_chunks(z, error) || !out_flush(z, error))
        return false;
    bits_align(z);
    bits_put(z, z->crc, 32);
    bits_put(z, z->total, 32);
    return out_flush(z, error);
}

void gzip_writer_free(GzipWriter *z)
{
    if (!z)
        return;
    ordered_free(z->ring);
    for (unsigned i = 0; i < z->count; i++)
        deflate_chunk_free(z->slots[i].chunk);
    g_free(z->slots);
    g_free(z);
}
