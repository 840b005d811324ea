/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rolling hash needs no window in memory: what is 64 bytes back has been shifted out of it. So hashing begins 64 bytes before the first
 * place where a cut may be, and the bytes before that are not looked at.
 */
#include "store/chunker.h"

#include "store/gear.h"

#include <glib.h>

#define HASH_BYTES 64u
#define HIGH_BITS(n) (~(uint64_t)0 << (64 - (n)))
#define HARD HIGH_BITS(16)
#define EASY HIGH_BITS(12)

/* The first place in [at, end) behind which @mask's bits are zero; @end when there is none. *hash covers the bytes before @at. */
static size_t scan(const uint8_t *data, size_t at, size_t end, uint64_t mask, uint64_t *hash)
{
    uint64_t h = *hash;

    for (; at < end; at++) {
        h = (h << 1) + gear_table[data[at]];
        if ((h & mask) == 0)
            break;
    }
    *hash = h;
    return at;
}

size_t chunker_cut(const uint8_t *data, size_t size)
{
    size_t max = MIN(size, CHUNK_MAX), normal = MIN(size, CHUNK_NORMAL), at;
    uint64_t hash = 0;

    if (size <= CHUNK_MIN)
        return size;
    for (at = CHUNK_MIN - HASH_BYTES; at < CHUNK_MIN; at++)
        hash = (hash << 1) + gear_table[data[at]];
    at = scan(data, CHUNK_MIN, normal, HARD, &hash);
    if (at == normal)
        at = scan(data, normal, max, EASY, &hash);
    return at < max ? at + 1 : max;
}
