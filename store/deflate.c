/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gzip stream around the frozen encoder: chunks are filled in order, encoded by all processors, and their bits put
 * one behind the other in order again. Nothing here decides about a bit but the member's header and trailer, so the output
 * does not depend on how many processors there are, nor on how the input was cut.
 *
 *     pusher's thread   fill -> ........................ -> join -> out     in order
 *     threads                   encode, encode, encode                       any order
 *
 * The slots are a ring; taken <= begun <= filled <= taken + count. The slot being filled is number @filled. Threads start
 * with the first full chunk that is not the last: what is small is encoded where it is.
 */
#include "store/deflate.h"

#include "base/scope.h"
#include "store/deflate-chunk.h"

#include <assert.h>
#include <string.h>

#define THREADS_MAX 16u
#define OUT_SIZE 65536u

typedef struct Slot {
    DeflateChunk *chunk;
    bool last, done; /* under the lock */
} Slot;

struct GzipWriter {
    GzipOutFn *out;
    void *arg;
    uint32_t crc, total; /* of the chunks taken */

    Slot *slots;
    unsigned count;
    uint64_t filled, taken;

    GThread *threads[THREADS_MAX];
    unsigned thread_limit, thread_count;
    GMutex lock; /* the threads' view: begun and ready, done of the slots, closing */
    GCond filling, finishing;
    uint64_t ready, begun;
    bool closing;

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

/* --- threads ------------------------------------------------------------------- */

static gpointer encode_thread(gpointer arg)
{
    GzipWriter *z = arg;

    g_mutex_lock(&z->lock);
    for (;;) {
        Slot *slot;

        while (z->begun == z->ready && !z->closing)
            g_cond_wait(&z->filling, &z->lock);
        if (z->closing)
            break;
        slot = &z->slots[z->begun++ % z->count];
        g_mutex_unlock(&z->lock);
        deflate_chunk_encode(slot->chunk, slot->last);
        g_mutex_lock(&z->lock);
        slot->done = true;
        g_cond_signal(&z->finishing);
    }
    g_mutex_unlock(&z->lock);
    return NULL;
}

static void start_threads(GzipWriter *z)
{
    for (; z->thread_count < z->thread_limit; z->thread_count++)
        z->threads[z->thread_count] = g_thread_new("deflate", encode_thread, z);
}

static void hand_over(GzipWriter *z, bool last)
{
    Slot *slot = &z->slots[z->filled % z->count];

    AUTO_LOCK(&z->lock);
    slot->last = last;
    slot->done = false;
    z->ready = ++z->filled;
    g_cond_signal(&z->filling);
}

/* The oldest chunk under way. */
static bool take(GzipWriter *z, GError **error)
{
    Slot *slot = &z->slots[z->taken % z->count];

    g_mutex_lock(&z->lock);
    while (!slot->done)
        g_cond_wait(&z->finishing, &z->lock);
    g_mutex_unlock(&z->lock);
    z->taken++;
    return join_chunk(z, slot->chunk, error);
}

/* --- the stream ------------------------------------------------------------------ */

static Slot *open_slot(GzipWriter *z)
{
    Slot *slot = &z->slots[z->filled % z->count];

    if (!slot->chunk)
        slot->chunk = deflate_chunk_new();
    return slot;
}

GzipWriter *gzip_writer_new_with(unsigned threads, GzipOutFn *out, void *arg)
{
    static const uint8_t header[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
    GzipWriter *z = g_new0(GzipWriter, 1);

    z->out = out;
    z->arg = arg;
    z->thread_limit = CLAMP(threads, 1, THREADS_MAX);
    z->count = z->thread_limit + 2; /* one being filled, and one that waits to be joined */
    z->slots = g_new0(Slot, z->count);
    g_mutex_init(&z->lock);
    g_cond_init(&z->filling);
    g_cond_init(&z->finishing);
    memcpy(z->out_buffer, header, sizeof(header));
    z->out_used = sizeof(header);
    deflate_chunk_begin(open_slot(z)->chunk, NULL);
    return z;
}

GzipWriter *gzip_writer_new(GzipOutFn *out, void *arg)
{
    return gzip_writer_new_with(g_get_num_processors(), out, arg);
}

/* A chunk goes on its way only when a byte behind it is known: the last one says that it is. */
static bool next_chunk(GzipWriter *z, GError **error)
{
    const DeflateChunk *full = open_slot(z)->chunk;

    start_threads(z);
    hand_over(z, false);
    if (z->filled - z->taken == z->count && !take(z, error))
        return false;
    deflate_chunk_begin(open_slot(z)->chunk, full);
    return true;
}

bool gzip_writer_push(GzipWriter *z, const void *data, size_t size, GError **error)
{
    const uint8_t *p = data;

    while (size) {
        size_t n;

        if (deflate_chunk_is_full(open_slot(z)->chunk) && !next_chunk(z, error))
            return false;
        n = deflate_chunk_fill(open_slot(z)->chunk, p, size);
        p += n;
        size -= n;
    }
    return true;
}

static bool finish_chunks(GzipWriter *z, GError **error)
{
    if (z->thread_count == 0) {
        deflate_chunk_encode(open_slot(z)->chunk, true);
        return join_chunk(z, open_slot(z)->chunk, error);
    }
    hand_over(z, true);
    while (z->taken < z->filled)
        if (!take(z, error))
            return false;
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

static void end_threads(GzipWriter *z)
{
    g_mutex_lock(&z->lock);
    z->closing = true;
    g_cond_broadcast(&z->filling);
    g_mutex_unlock(&z->lock);
    for (unsigned i = 0; i < z->thread_count; i++)
        (void)g_thread_join(z->threads[i]);
}

void gzip_writer_free(GzipWriter *z)
{
    if (!z)
        return;
    end_threads(z);
    for (unsigned i = 0; i < z->count; i++)
        deflate_chunk_free(z->slots[i].chunk);
    g_free(z->slots);
    g_mutex_clear(&z->lock);
    g_cond_clear(&z->filling);
    g_cond_clear(&z->finishing);
    g_free(z);
}
