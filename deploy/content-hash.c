/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digest that a disk's config carries, taken of bytes as they go by: the store gets it from its maps, a host from what it holds.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/scope.h"
#include "deploy/host-image.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define PIECE (1u << 20)

struct ContentHash {
    DigestStream *stream;
    uint64_t at;                     /* bytes seen */
    uint8_t block[STORE_BLOCK_SIZE]; /* the one that is not whole yet */
};

ContentHash *content_hash_new(void)
{
    ContentHash *hash = g_new0(ContentHash, 1);

    hash->stream = digest_stream_new();
    return hash;
}

void content_hash_free(ContentHash *hash)
{
    if (!hash)
        return;
    digest_stream_free(hash->stream);
    g_free(hash);
}

static void take_block(ContentHash *hash, uint64_t number, const uint8_t *block)
{
    uint8_t text[8 + DIGEST_SIZE];
    Digest digest;

    if (bytes_are_zero(block, STORE_BLOCK_SIZE))
        return;
    digest_of(block, STORE_BLOCK_SIZE, &digest);
    for (int i = 0; i < 8; i++)
        text[i] = (uint8_t)(number >> (8 * i));
    memcpy(text + 8, digest.bytes, DIGEST_SIZE);
    digest_stream_update(hash->stream, text, sizeof text);
}

void content_hash_data(ContentHash *hash, const void *data, size_t size)
{
    const uint8_t *from = data;

    while (size > 0) {
        size_t filled = (size_t)(hash->at % STORE_BLOCK_SIZE), n = MIN(size, STORE_BLOCK_SIZE - filled);

        if (filled == 0 && n == STORE_BLOCK_SIZE) {
            take_block(hash, hash->at / STORE_BLOCK_SIZE, from);
        } else {
            memcpy(hash->block + filled, from, n);
            if (filled + n == STORE_BLOCK_SIZE)
                take_block(hash, hash->at / STORE_BLOCK_SIZE, hash->block);
        }
        hash->at += n;
        from += n;
        size -= n;
    }
}

void content_hash_hole(ContentHash *hash, uint64_t size)
{
    static const uint8_t zeroes[STORE_BLOCK_SIZE];
    uint64_t filled = hash->at % STORE_BLOCK_SIZE, to_edge = filled > 0 ? MIN(size, STORE_BLOCK_SIZE - filled) : 0;

    content_hash_data(hash, zeroes, (size_t)to_edge);
    size -= to_edge;
    hash->at += size - size % STORE_BLOCK_SIZE;
    content_hash_data(hash, zeroes, (size_t)(size % STORE_BLOCK_SIZE));
}

/* The tail counts as filled up with zeroes. */
void content_hash_final(ContentHash *hash, Digest *ret, uint64_t *ret_size)
{
    size_t filled = (size_t)(hash->at % STORE_BLOCK_SIZE);

    *ret_size = hash->at;
    if (filled > 0) {
        memset(hash->block + filled, 0, STORE_BLOCK_SIZE - filled);
        take_block(hash, hash->at / STORE_BLOCK_SIZE, hash->block);
    }
    digest_stream_final(hash->stream, ret);
}

/* Where the data goes on, and how far; false at the end of the file. */
static bool next_data(int fd, uint64_t at, uint64_t *ret_from, uint64_t *ret_end)
{
    off_t from = lseek(fd, (off_t)at, SEEK_DATA), end;

    if (from < 0 && errno != ENXIO) {
        from = (off_t)at; /* a file system that knows no holes */
        end = lseek(fd, 0, SEEK_END);
    } else {
        end = from < 0 ? -1 : lseek(fd, from, SEEK_HOLE);
    }
    *ret_from = (uint64_t)from;
    *ret_end = (uint64_t)end;
    return from >= 0 && end > from;
}

static bool hash_range(ContentHash *hash, int fd, const char *path, uint8_t *buffer, uint64_t from, uint64_t end, ImageTick *tick, void *arg,
                       GError **error)
{
    while (from < end) {
        size_t n = (size_t)MIN(end - from, PIECE);

        if (!interrupt_check(error) || !file_pread_full(fd, buffer, n, from, path, error))
            return false;
        content_hash_data(hash, buffer, n);
        if (tick)
            tick(arg);
        from += n;
    }
    return true;
}

bool content_hash_fd(int fd, const char *path, ImageTick *tick, void *arg, Digest *ret, uint64_t *ret_size, GError **error)
{
    g_autoptr(ContentHash) hash = content_hash_new();
    g_autofree uint8_t *buffer = g_malloc(PIECE);
    uint64_t at = 0, from, end;
    off_t size = lseek(fd, 0, SEEK_END);

    if (size < 0)
        return fail_errno(error, "read '%s'", path);
    while (next_data(fd, at, &from, &end)) {
        content_hash_hole(hash, from - at);
        if (!hash_range(hash, fd, path, buffer, from, end, tick, arg, error))
            return false;
        at = end;
    }
    if ((uint64_t)size > at)
        content_hash_hole(hash, (uint64_t)size - at);
    content_hash_final(hash, ret, ret_size);
    return true;
}
