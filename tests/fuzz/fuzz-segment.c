/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: a segment file, opened as a store opens it. By the first byte: 1 the footer gets the check that fits its entries, 2 the frames theirs.
 */
#include "tests/fuzz/fuzz-store.h"

#include "store/bytes.h"
#include "store/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NAME "0000000000000000000000000000000000000000000000000000000000000001"

static void set_footer_check(uint8_t *file, size_t size)
{
    uint8_t *tail = file + size - SEGMENT_TAIL_SIZE;
    size_t list = (size_t)get_le32(tail) * SEGMENT_ENTRY_SIZE;
    Digest digest;

    if (list > size - SEGMENT_TAIL_SIZE)
        return;
    digest_of(tail - list, list, &digest);
    memcpy(tail + 8, digest.bytes, 8);
}

static void set_frame_check(uint8_t *file, size_t size, uint64_t at)
{
    Digest digest;
    size_t digests;

    if (at > size || size - at < FRAME_FIXED_SIZE)
        return;
    digests = (size_t)file[at + 13] * DIGEST_SIZE;
    if (size - at - FRAME_FIXED_SIZE < digests)
        return;
    digest_of(file + at + FRAME_FIXED_SIZE, digests, &digest);
    memcpy(file + at + 20, digest.bytes, 4);
}

static void set_frame_checks(uint8_t *file, size_t size)
{
    const uint8_t *tail = file + size - SEGMENT_TAIL_SIZE;
    uint32_t frames = get_le32(tail);

    if (frames > (size - SEGMENT_TAIL_SIZE) / SEGMENT_ENTRY_SIZE)
        return;
    for (uint32_t i = 0; i < frames; i++)
        set_frame_check(file, size, get_le64(tail - (size_t)(frames - i) * SEGMENT_ENTRY_SIZE));
}

static void read_all(Store *store)
{
    Digest name, hashes[FRAME_MAX_BLOCKS];
    g_autofree uint8_t *plain = g_malloc(FRAME_MAX_BYTES);
    Segment *segment;
    unsigned blocks;

    if (!digest_parse(NAME, &name) || !segment_get(store, &name, &segment, NULL))
        return;
    for (uint32_t frame = 0; frame < MIN(segment_frames(segment), 64u); frame++) {
        if (segment_hashes(segment, frame, hashes, &blocks, NULL) && (blocks < 1 || blocks > FRAME_MAX_BLOCKS))
            abort();
        (void)segment_read(segment, frame, 0, STORE_BLOCK_SIZE, plain, NULL);
        (void)segment_read(segment, frame, STORE_BLOCK_SIZE, FRAME_MAX_BYTES - STORE_BLOCK_SIZE, plain, NULL);
        (void)segment_verify_frame(segment, frame, NULL);
    }
    (void)segment_read(segment, segment_frames(segment), 0, 1, plain, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(Store) store = NULL;
    g_autofree uint8_t *file = NULL;
    static bool made;

    if (!made)
        store_close(fuzz_open("store", STORE_OPEN_CREATE));
    made = true;
    if (size < 1 + SEGMENT_TAIL_SIZE)
        return 0;
    file = g_memdup2(data + 1, size - 1);
    if (data[0] & 2)
        set_frame_checks(file, size - 1);
    if (data[0] & 1)
        set_footer_check(file, size - 1);
    fuzz_write("store/segments/00/" NAME, file, size - 1);
    store = fuzz_open("store", STORE_OPEN_READONLY | STORE_OPEN_NO_CATALOG);
    read_all(store);
    return 0;
}
