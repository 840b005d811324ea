/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: one frame. With an odd first byte the digests get the check that fits them. What unpacks must pack and parse again.
 */
#include "store/bytes.h"
#include "store/frame.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void set_check(uint8_t *frame, size_t size)
{
    unsigned blocks = size >= FRAME_FIXED_SIZE ? frame[13] : 0;
    Digest digest;

    if (blocks < 1 || blocks > FRAME_MAX_BLOCKS || size < frame_head_size(blocks))
        return;
    digest_of(frame + FRAME_FIXED_SIZE, blocks * DIGEST_SIZE, &digest);
    memcpy(frame + 20, digest.bytes, 4);
}

/* The digests that the payload has, so that decoding goes all the way. */
static void set_digests(uint8_t *frame, size_t size)
{
    g_autofree uint8_t *plain = g_malloc(FRAME_MAX_BYTES);
    FrameHead head;

    if (!frame_parse_head(frame, size, &head) || size - frame_head_size(head.blocks) < head.payload ||
        !decompress_exact(plain, (size_t)head.blocks * STORE_BLOCK_SIZE, frame + frame_head_size(head.blocks), head.payload))
        return;
    for (unsigned i = 0; i < head.blocks; i++)
        digest_of(plain + (size_t)i * STORE_BLOCK_SIZE, STORE_BLOCK_SIZE, &head.hashes[i]);
    memcpy(frame + FRAME_FIXED_SIZE, head.hashes, (size_t)head.blocks * DIGEST_SIZE);
    set_check(frame, size);
}

static void pack_again(const FrameHead *head, const uint8_t *plain)
{
    g_autoptr(Compressor) compressor = compressor_new(COMPRESS_LEVEL);
    g_autofree uint8_t *packed = g_malloc(FRAME_MAX_STORED), *again = g_malloc(FRAME_MAX_BYTES);
    FrameHead other;
    uint8_t encoding;
    uint32_t size = frame_encode(compressor, plain, head->hashes, head->blocks, packed, &encoding);

    if (!frame_parse_head(packed, size, &other) || other.encoding != encoding ||
        !frame_decode(&other, packed + frame_head_size(other.blocks), again) ||
        memcmp(plain, again, (size_t)head->blocks * STORE_BLOCK_SIZE))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *plain = g_malloc(FRAME_MAX_BYTES), *frame = NULL;
    FrameHead head;

    if (size < 1)
        return 0;
    frame = g_memdup2(data + 1, size - 1);
    size--;
    if (data[0] & 1)
        set_check(frame, size);
    if (data[0] & 2)
        set_digests(frame, size);
    if (!frame_parse_head(frame, size, &head) || size - frame_head_size(head.blocks) < head.payload ||
        !frame_decode(&head, frame + frame_head_size(head.blocks), plain))
        return 0;
    pack_again(&head, plain);
    return 0;
}
