/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tags of blocks by NH, the first layer of UMAC (RFC 4418, section 5.2.2) with one key of a block's length: two blocks that differ have
 * the same tag with a probability of 2^-32 whoever chose them, as long as the key is not known. It costs a tenth of a SHA-256.
 *
 * Memory is bounded: blocks behind the first NOTES_MAX have no tag and are read from the store, which for disks of that size is in the page
 * cache sooner than the file.
 */
#include "store/source-bytes.h"

#include "base/file.h"
#include "base/scope.h"
#include "store/pool.h"

#include <fcntl.h>
#include <string.h>
#include <sys/random.h>

#define BLOCK_WORDS (STORE_BLOCK_SIZE / sizeof(uint32_t))
#define NOTES_MAX ((uint64_t)2 << 20) /* blocks: 16 MiB of tags for the first 8 GiB */

struct SourceBytes {
    gint refs;
    int fd;
    uint64_t blocks; /* that may have a tag */
    uint64_t *tags;  /* by block; 0: none */
    uint32_t key[BLOCK_WORDS];
};

SourceBytes *source_bytes_new(int fd, uint64_t size)
{
    auto_fd int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    SourceBytes *bytes;

    if (own < 0)
        return NULL;
    bytes = g_new0(SourceBytes, 1);
    bytes->refs = 1;
    bytes->blocks = MIN((size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE, NOTES_MAX);
    bytes->tags = g_try_new0(uint64_t, bytes->blocks);
    if (!bytes->tags || getrandom(bytes->key, sizeof bytes->key, 0) != (ssize_t)sizeof bytes->key) {
        g_free(bytes->tags);
        g_free(bytes);
        return NULL;
    }
    bytes->fd = g_steal_fd(&own);
    return bytes;
}

SourceBytes *source_bytes_ref(SourceBytes *bytes)
{
    if (bytes)
        g_atomic_int_inc(&bytes->refs);
    return bytes;
}

void source_bytes_unref(SourceBytes *bytes)
{
    if (!bytes || !g_atomic_int_dec_and_test(&bytes->refs))
        return;
    (void)close(bytes->fd);
    g_free(bytes->tags);
    g_free(bytes);
}

/* In four lanes, as the processor's vectors have them. The lowest bit says that there is a tag. */
static uint64_t tag_of(const uint32_t *key, const uint8_t *data)
{
    uint64_t sums[4] = {0};

    for (size_t i = 0; i < BLOCK_WORDS; i += 8) {
        uint32_t words[8];

        memcpy(words, data + i * sizeof *words, sizeof words);
        for (size_t j = 0; j < 4; j++)
            sums[j] += (uint64_t)(words[j] + key[i + j]) * (words[j + 4] + key[i + j + 4]);
    }
    return (sums[0] + sums[1] + sums[2] + sums[3]) | 1;
}

void source_bytes_note(SourceBytes *bytes, uint64_t first, const uint8_t *data, size_t count)
{
    if (first >= bytes->blocks)
        return;
    count = (size_t)MIN((uint64_t)count, bytes->blocks - first);
    for (size_t i = 0; i < count; i++)
        bytes->tags[first + i] = tag_of(bytes->key, data + i * STORE_BLOCK_SIZE);
}

/* Whole blocks from the @first-th on. The file's last one may be short, as it was when it was noted. */
static bool read_blocks(SourceBytes *bytes, uint8_t *to, size_t count, uint64_t first)
{
    for (size_t i = 0; i < count; i++)
        if (first + i >= bytes->blocks || !bytes->tags[first + i])
            return false;
    if (!file_pread_padded(bytes->fd, to, count * STORE_BLOCK_SIZE, first * STORE_BLOCK_SIZE, "the file being stored", NULL))
        return false;
    for (size_t i = 0; i < count; i++)
        if (tag_of(bytes->key, to + i * STORE_BLOCK_SIZE) != bytes->tags[first + i])
            return false;
    return true;
}

static bool read_part(SourceBytes *bytes, uint8_t *to, size_t size, uint64_t offset)
{
    uint8_t block[STORE_BLOCK_SIZE];

    if (!read_blocks(bytes, block, 1, offset / STORE_BLOCK_SIZE))
        return false;
    memcpy(to, block + offset % STORE_BLOCK_SIZE, size);
    return true;
}

bool source_bytes_read(SourceBytes *bytes, void *buf, size_t size, uint64_t offset)
{
    uint8_t *to = buf;

    while (size > 0) {
        size_t skip = offset % STORE_BLOCK_SIZE, whole = skip ? 0 : size / STORE_BLOCK_SIZE;
        size_t part = whole ? whole * STORE_BLOCK_SIZE : MIN(size, STORE_BLOCK_SIZE - skip);

        if (whole ? !read_blocks(bytes, to, whole, offset / STORE_BLOCK_SIZE) : !read_part(bytes, to, part, offset))
            return false;
        to += part;
        offset += part;
        size -= part;
    }
    return true;
}
