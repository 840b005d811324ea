/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: the table of a repacked segment, with its digest set right. What is accepted is asked for every position.
 */
#include "tests/fuzz/fuzz-store.h"

#include "store/format.h"
#include "store/segment-moved.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NAME "0000000000000000000000000000000000000000000000000000000000000001"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *file = NULL;
    g_autoptr(SegmentMoved) moved = NULL;
    static Store *store;
    Digest name, check, segment;
    uint32_t position;

    if (!store)
        store = fuzz_open("store", STORE_OPEN_CREATE);
    if (!digest_parse(NAME, &name) || size < 48)
        return 0;
    file = g_malloc(size + DIGEST_SIZE);
    memcpy(file, data, size);
    memcpy(file + 16, name.bytes, DIGEST_SIZE);
    digest_of(file, size, &check);
    memcpy(file + size, check.bytes, DIGEST_SIZE);
    fuzz_write("store/segments/00/" NAME MOVED_SUFFIX, file, size + DIGEST_SIZE);
    if (!segment_moved_load(store, &name, &moved, NULL) || !moved)
        return 0;
    for (uint32_t at = 0; at < MIN(moved->frames, 100u) * FRAME_MAX_BLOCKS; at++)
        if (segment_moved_find(moved, at, &segment, &position) && position >= SEGMENT_MAX_FRAMES * FRAME_MAX_BLOCKS)
            abort();
    return 0;
}
