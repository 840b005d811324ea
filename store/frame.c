/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames as bytes. Nothing here trusts what it reads: a head is accepted when its numbers fit each other and
 * its check covers the hashes, a payload when every block has the hash the head promises.
 */
#include "store/frame.h"

#include "store/bytes.h"

static uint32_t check_of(const Digest *hashes, unsigned blocks)
{
    Digest digest;

    digest_of(hashes, (size_t)blocks * DIGEST_SIZE, &digest);
    return get_le32(digest.bytes);
}

/* zstd's own way to say "these bytes as they are": single segment, 4-byte size, one last raw block. */
static uint32_t encode_raw(const uint8_t *data, uint32_t size, uint8_t *to)
{
    static const uint8_t start[5] = { 0x28, 0xb5, 0x2f, 0xfd, 0xa0 };
    uint32_t block = (size << 3) | 1;

    memcpy(to, start, sizeof(start));
    put_le32(to + 5, size);
    to[9] = (uint8_t)block;
    to[10] = (uint8_t)(block >> 8);
    to[11] = (uint8_t)(block >> 16);
    memcpy(to + FRAME_RAW_PREFIX, data, size);
    return FRAME_RAW_PREFIX + size;
}

uint32_t frame_write_head(uint8_t *to, const Digest *hashes, unsigned blocks, uint8_t encoding, uint16_t engine, uint32_t payload)
{
    uint32_t head = frame_head_size(blocks);

    put_le32(to, ZSTD_SKIP_FRAME);
    put_le32(to + 4, head - 8);
    memcpy(to + 8, FRAME_MAGIC, 4);
    to[12] = encoding;
    to[13] = (uint8_t)blocks;
    to[14] = (uint8_t)engine;
    to[15] = (uint8_t)(engine >> 8);
    put_le32(to + 16, payload);
    put_le32(to + 20, check_of(hashes, blocks));
    memcpy(to + FRAME_FIXED_SIZE, hashes, (size_t)blocks * DIGEST_SIZE);
    return head;
}

size_t frame_pack(Compressor *compressor, const uint8_t *data, size_t size, uint8_t *to)
{
    return compressor_run(compressor, to, size - size / 20, data, size);
}

uint32_t frame_encode(Compressor *compressor, const uint8_t *data, const Digest *hashes, unsigned blocks, uint8_t *to,
                      uint8_t *ret_encoding)
{
    uint32_t head = frame_head_size(blocks), size = blocks * STORE_BLOCK_SIZE;
    uint32_t payload = (uint32_t)frame_pack(compressor, data, size, to + head);
    uint8_t encoding = payload ? FRAME_ZSTD : FRAME_RAW;

    if (encoding == FRAME_RAW)
        payload = encode_raw(data, size, to + head);
    *ret_encoding = encoding;
    return frame_write_head(to, hashes, blocks, encoding, compress_engine(), payload) + payload;
}

uint16_t frame_engine(const uint8_t *head)
{
    return (uint16_t)(head[14] | head[15] << 8);
}

bool frame_check_fits(const uint8_t *head, const Digest *hashes, unsigned blocks)
{
    return get_le32(head + 20) == check_of(hashes, blocks);
}

bool frame_parse_head(const uint8_t *bytes, size_t size, FrameHead *ret)
{
    unsigned blocks;

    if (size < FRAME_FIXED_SIZE || get_le32(bytes) != ZSTD_SKIP_FRAME || memcmp(bytes + 8, FRAME_MAGIC, 4))
        return false;
    blocks = bytes[13];
    if (blocks < 1 || blocks > FRAME_MAX_BLOCKS || size < frame_head_size(blocks) ||
        get_le32(bytes + 4) != frame_head_size(blocks) - 8)
        return false;
    ret->encoding = bytes[12];
    ret->blocks = (uint8_t)blocks;
    ret->engine = frame_engine(bytes);
    ret->payload = get_le32(bytes + 16);
    if (ret->encoding != FRAME_ZSTD && ret->encoding != FRAME_RAW)
        return false;
    if (ret->payload > FRAME_MAX_STORED - frame_head_size(blocks))
        return false;
    if (ret->encoding == FRAME_RAW && ret->payload != blocks * STORE_BLOCK_SIZE + FRAME_RAW_PREFIX)
        return false;
    memcpy(ret->hashes, bytes + FRAME_FIXED_SIZE, (size_t)blocks * DIGEST_SIZE);
    return frame_check_fits(bytes, ret->hashes, blocks);
}

bool frame_decode(const FrameHead *head, const uint8_t *payload, uint8_t *to)
{
    size_t size = (size_t)head->blocks * STORE_BLOCK_SIZE;

    if (head->encoding == FRAME_RAW)
        memcpy(to, payload + FRAME_RAW_PREFIX, size);
    else if (!decompress_exact(to, size, payload, head->payload))
        return false;
    for (unsigned i = 0; i < head->blocks; i++) {
        Digest digest;

        digest_of(to + (size_t)i * STORE_BLOCK_SIZE, STORE_BLOCK_SIZE, &digest);
        if (!digest_equal(&digest, &head->hashes[i]))
            return false;
    }
    return true;
}
