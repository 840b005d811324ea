/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames as bytes: 1 to 32 blocks, their hashes in front (drawing in format.h). No files here.
 */
#ifndef KILN_STORE_FRAME_H
#define KILN_STORE_FRAME_H

#include "store/compress.h"
#include "store/format.h"
#include "store/pool.h"

typedef struct FrameHead {
    uint8_t encoding;
    uint8_t blocks;
    uint16_t engine; /* compress_engine() of who made it; 0: unknown */
    uint32_t payload; /* length of what follows the head */
    Digest hashes[FRAME_MAX_BLOCKS];
} FrameHead;

static inline uint32_t frame_head_size(unsigned blocks)
{
    return FRAME_FIXED_SIZE + blocks * DIGEST_SIZE;
}

/*
 * What @data becomes as a payload: its compressed size, 0 when that gains less than 5 % and the bytes stay as they are. @to has room for
 * @size bytes. An exporter that packs with this makes the very bytes that a frame of the same engine has.
 */
size_t frame_pack(Compressor *compressor, const uint8_t *data, size_t size, uint8_t *to);

/* Writes the stored form into @to (FRAME_MAX_STORED bytes); returns its length, @ret_encoding what it became. */
uint32_t frame_encode(Compressor *compressor, const uint8_t *data, const Digest *hashes, unsigned blocks, uint8_t *to,
                      uint8_t *ret_encoding);

/* The head alone, in front of a payload of that length that was made by @engine (0: by an unknown one); returns its size. */
uint32_t frame_write_head(uint8_t *to, const Digest *hashes, unsigned blocks, uint8_t encoding, uint16_t engine, uint32_t payload);

/* What a head of at least FRAME_FIXED_SIZE bytes says of its engine, be the rest damaged or not. */
uint16_t frame_engine(const uint8_t *head);

/* Is the check of such a head that of these hashes? */
bool frame_check_fits(const uint8_t *head, const Digest *hashes, unsigned blocks);

/* @size: bytes at hand from the frame's start, at least the head. False: this is no frame of ours. */
bool frame_parse_head(const uint8_t *bytes, size_t size, FrameHead *ret);

/* Unpacks the payload into head->blocks * 4096 bytes and compares every block with its hash. */
bool frame_decode(const FrameHead *head, const uint8_t *payload, uint8_t *to);

#endif
