/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One chunk of the frozen encoder: what goes in, and the bits that come out, on their own.
 *
 * A chunk knows nothing of the chunks before it but their last bytes, its window. Where its bits begin within a byte is not known either while it is
 * encoded, and stored blocks start on a byte: so its output is a list of parts, a run of bits and then, perhaps, bytes.
 *
 *     fill ->window, ->data (deflate_chunk_window, deflate_chunk_room) -> deflate_chunk_encode -> ->parts
 */
#ifndef KILN_STORE_DEFLATE_CHUNK_H
#define KILN_STORE_DEFLATE_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct DeflateChunk DeflateChunk;

typedef struct DeflatePart {
    const uint8_t *bits; /* from the lowest bit of the first byte on; what is behind the last bit is zero */
    uint64_t bit_count;
    bool stored; /* then come: padding to a byte, the two lengths, and these bytes */
    const uint8_t *bytes;
    uint32_t byte_count;
} DeflatePart;

DeflateChunk *deflate_chunk_new(void);
void deflate_chunk_free(DeflateChunk *chunk);

/* Starts anew behind @before (NULL: at the start of the stream). */
void deflate_chunk_begin(DeflateChunk *chunk, const DeflateChunk *before);
/* Takes what still fits; returns how much. */
size_t deflate_chunk_fill(DeflateChunk *chunk, const void *data, size_t size);
bool deflate_chunk_is_full(const DeflateChunk *chunk);
/* @last: the stream ends with it. */
void deflate_chunk_encode(DeflateChunk *chunk, bool last);

const DeflatePart *deflate_chunk_parts(const DeflateChunk *chunk, unsigned *ret_count);
/* Of the chunk's own bytes. */
uint32_t deflate_chunk_crc(const DeflateChunk *chunk);
uint32_t deflate_chunk_size(const DeflateChunk *chunk);

/* The CRC of two byte strings one behind the other, of which the second has @size bytes. */
uint32_t deflate_crc_join(uint32_t first, uint32_t second, uint64_t size);

#endif
