/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: the file index/blocks of a small store, with some of its bytes changed or its end cut off. It may forget, never mislead, hang or crash.
 * First byte: 1 the last segment is one that was added, so that the table is used as it is; 2 the table has no free entry; else added again.
 */
#include "tests/fuzz/fuzz-store.h"

#include "store/block-index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BLOCKS 70

static uint8_t *base;
static gsize base_size;
static Digest hashes[BLOCKS];

static void make_store(void)
{
    Store *store = fuzz_open("store", STORE_OPEN_CREATE);
    g_autofree char *path = fuzz_path("store/index/blocks");
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(StoreMap) map = NULL;
    Digest digest = fuzz_map(store, BLOCKS, 1);

    (void)fuzz_map(store, BLOCKS, 100);
    if (!store_map_open(store, &digest, &map, NULL) || !store_map_hashes(map, 0, BLOCKS, hashes, NULL))
        abort();
    g_clear_pointer(&map, store_map_unref);
    store_close(store);
    if (!file_load(AT_FDCWD, path, 64u << 20, &bytes, NULL))
        abort();
    base = g_bytes_unref_to_data(g_steal_pointer(&bytes), &base_size);
}

/* A hit is a place that has these bytes. */
static void look(Store *store, const Digest *hash)
{
    Digest there[FRAME_MAX_BLOCKS];
    Segment *segment;
    uint32_t position;
    unsigned blocks;

    if (!block_index_find(store, hash, BLOCK_PUBLIC, &segment, &position))
        return;
    if (!segment_hashes(segment, position_frame(position), there, &blocks, NULL) || position_block(position) >= blocks ||
        !digest_equal(&there[position_block(position)], hash))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *file = NULL;
    g_autoptr(Store) store = NULL;
    gsize file_size;

    if (!base)
        make_store();
    if (size < 3)
        return 0;
    file = g_memdup2(base, base_size);
    file_size = data[1] & 1 ? base_size : MIN(base_size, (gsize)data[2] * 8192);
    if (data[0] & 2)
        for (gsize at = 4096; at + 11 <= base_size; at += 11)
            file[at + 8] |= 1; /* a segment's number */
    if (!(data[0] & 1))
        memset(file + 32, 0, 8); /* last segment: none */
    fuzz_patch(file, base_size, data + 3, size - 3);
    fuzz_write("store/index/blocks", file, file_size);
    store = fuzz_open("store", 0);
    if (!store || !block_index_refresh(store, NULL))
        return 0;
    for (unsigned i = 0; i < BLOCKS; i += 23)
        look(store, &hashes[i]);
    look(store, &digest_none);
    return 0;
}
