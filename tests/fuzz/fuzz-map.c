/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: a map's blob. With an odd first byte its first segment becomes one that exists, so that its runs are followed. What is accepted must
 * come out of the writer as it went in, but for varints that were longer than they need be.
 */
#include "tests/fuzz/fuzz-store.h"

#include "store/format.h"
#include "store/map-private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Store *store;
static Digest segment;

static void make_store(void)
{
    g_autoptr(StoreMap) map = NULL;
    Digest digest;

    store = fuzz_open("store", STORE_OPEN_CREATE);
    digest = fuzz_map(store, 70, 1);
    if (!store_map_open(store, &digest, &map, NULL))
        abort();
    segment = g_array_index(store_map_body(map)->segments, Digest, 0);
}

static void check_encoding(const MapBody *body)
{
    g_autoptr(GByteArray) once = map_body_encode(body), twice = NULL;
    g_autoptr(MapBody) again = NULL;

    if (!map_body_decode(once->data, once->len, &again, NULL))
        abort();
    twice = map_body_encode(again);
    if (once->len != twice->len || memcmp(once->data, twice->data, once->len))
        abort();
}

/* Every border of two extents, a few of them. */
static void read_through(StoreMap *map)
{
    uint64_t size = store_map_size(map), at = 0, end;
    uint8_t bytes[3 * STORE_BLOCK_SIZE];
    Digest hashes[4];
    bool zero;

    for (unsigned i = 0; i < 64 && at < size; i++, at = end) {
        store_map_extent(map, at, &end, &zero);
        if (end <= at || end > size)
            abort();
        (void)store_map_pread(map, bytes, (size_t)MIN(sizeof(bytes), size - at), at, NULL);
        (void)store_map_hashes(map, at / STORE_BLOCK_SIZE, MIN(4, (size - at + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE), hashes, NULL);
    }
    if (store_map_pread(map, bytes, 2, size - MIN(size, 1), NULL))
        abort();
    (void)store_map_data_size(map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *bytes = NULL;
    g_autofree char *name = NULL;
    g_autoptr(MapBody) body = NULL;
    g_autoptr(StoreMap) map = NULL;
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    if (!store)
        make_store();
    if (size < 1)
        return 0;
    bytes = g_memdup2(data + 1, size - 1);
    size--;
    if ((data[0] & 1) && size >= MAP_HEADER_SIZE + DIGEST_SIZE)
        memcpy(bytes + MAP_HEADER_SIZE, segment.bytes, DIGEST_SIZE);
    if (!map_body_decode(bytes, size, &body, NULL))
        return 0;
    check_encoding(body);
    digest_of(bytes, size, &digest);
    digest_to_hex(&digest, hex);
    name = g_strdup_printf("store/blobs/%.2s/%s", hex, hex);
    fuzz_write(name, bytes, size);
    if (!store_map_open(store, &digest, &map, NULL))
        abort();
    read_through(map);
    g_free(name);
    name = g_strdup_printf("%s/store/blobs/%.2s/%s", fuzz_dir(), hex, hex);
    (void)unlink(name);
    return 0;
}
