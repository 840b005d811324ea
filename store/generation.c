/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One generation of a working disk: a sparse delta and a dirty bitmap.
 *
 * The bitmap is a shared mapping, so that kiln sees at once what the server
 * (a separate nbdkit process) marked. A store to a mapped page that the file
 * system can't back raises SIGBUS; therefore the bitmap's blocks are allocated when it is made.
 * The delta is not mapped: it is written with pwrite, which reports a full
 * disk as an error that travels to the guest.
 */
#include "store/generation.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct Generation {
    unsigned number;
    uint64_t size;   /* bytes of the disk */
    uint64_t blocks; /* bits that count */
    size_t map_bytes;
    uint64_t *bits;
    int delta;
    char *bitmap_path, *delta_path;
};

static Generation *generation_new(const char *dir, unsigned number, uint64_t size)
{
    Generation *generation = g_new0(Generation, 1);

    generation->number = number;
    generation->size = size;
    generation->blocks = (size + GENERATION_BLOCK - 1) / GENERATION_BLOCK;
    generation->map_bytes = MAX((generation->blocks + 63) / 64, 1) * sizeof(uint64_t);
    generation->delta = -1;
    generation->bitmap_path = g_strdup_printf("%s/generation-%u.bitmap", dir, number);
    generation->delta_path = g_strdup_printf("%s/generation-%u.delta", dir, number);
    return generation;
}

void generation_close(Generation *generation)
{
    if (!generation)
        return;
    if (generation->bits)
        (void)munmap(generation->bits, generation->map_bytes);
    scope_close_fd(&generation->delta);
    g_free(generation->bitmap_path);
    g_free(generation->delta_path);
    g_free(generation);
}

void generation_unlink(Generation *generation)
{
    /* What stays behind goes with the folder. */
    (void)unlink(generation->bitmap_path);
    (void)unlink(generation->delta_path);
}

static bool map_bits(Generation *generation, int fd, int protection, GError **error)
{
    void *bits = mmap(NULL, generation->map_bytes, protection, MAP_SHARED, fd, 0);

    if (bits == MAP_FAILED)
        return fail_errno(error, "map '%s'", generation->bitmap_path);
    generation->bits = bits;
    return true;
}

static bool check_size(uint64_t size, GError **error)
{
    if (size > GENERATION_SIZE_MAX)
        return fail(error,
                    "a working disk of %" G_GUINT64_FORMAT " bytes is larger than the 16 TiB kiln can serve",
                    size);
    return true;
}

bool generation_create(const char *dir, unsigned number, uint64_t size, Generation **ret, GError **error)
{
    g_autoptr(Generation) generation = NULL;
    auto_fd int bitmap = -1;

    if (!check_size(size, error))
        return false;
    generation = generation_new(dir, number, size);

    bitmap = open(generation->bitmap_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (bitmap < 0)
        return fail_errno(error, "make '%s'", generation->bitmap_path);
    errno = posix_fallocate(bitmap, 0, (off_t)generation->map_bytes);
    if (errno != 0)
        return fail_errno(error, "allocate '%s'", generation->bitmap_path);
    if (!map_bits(generation, bitmap, PROT_READ | PROT_WRITE, error))
        return false;

    generation->delta = open(generation->delta_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (generation->delta < 0)
        return fail_errno(error, "make '%s'", generation->delta_path);
    if (ftruncate(generation->delta, (off_t)(generation->blocks * GENERATION_BLOCK)) < 0)
        return fail_errno(error, "size '%s'", generation->delta_path);

    *ret = g_steal_pointer(&generation);
    return true;
}

bool generation_open(const char *dir, unsigned number, uint64_t size, Generation **ret, GError **error)
{
    g_autoptr(Generation) generation = NULL;
    auto_fd int bitmap = -1;
    struct stat st;

    if (!check_size(size, error))
        return false;
    generation = generation_new(dir, number, size);

    bitmap = open(generation->bitmap_path, O_RDONLY | O_CLOEXEC);
    if (bitmap < 0 || fstat(bitmap, &st) < 0)
        return fail_errno(error, "open '%s'", generation->bitmap_path);
    if ((uint64_t)st.st_size < generation->map_bytes)
        return fail(error, "'%s' is shorter than the bitmap of this disk", generation->bitmap_path);
    if (!map_bits(generation, bitmap, PROT_READ, error))
        return false;

    generation->delta = open(generation->delta_path, O_RDONLY | O_CLOEXEC);
    if (generation->delta < 0)
        return fail_errno(error, "open '%s'", generation->delta_path);

    *ret = g_steal_pointer(&generation);
    return true;
}

unsigned generation_number(const Generation *generation)
{
    return generation->number;
}

static uint64_t load_word(const Generation *generation, uint64_t word)
{
    return __atomic_load_n(&generation->bits[word], __ATOMIC_ACQUIRE);
}

bool generation_is_dirty(const Generation *generation, uint64_t block)
{
    return load_word(generation, block / 64) >> (block % 64) & 1;
}

static void mark(Generation *generation, uint64_t first, uint64_t count)
{
    while (count > 0) {
        unsigned shift = first % 64;
        uint64_t some = MIN(count, 64 - shift);
        uint64_t mask = (some == 64 ? UINT64_MAX : (UINT64_C(1) << some) - 1) << shift;

        (void)__atomic_fetch_or(&generation->bits[first / 64], mask, __ATOMIC_RELEASE);
        first += some;
        count -= some;
    }
}

uint64_t generation_dirty_blocks(const Generation *generation)
{
    uint64_t count = 0;

    for (uint64_t word = 0; word < generation->map_bytes / sizeof(uint64_t); word++)
        count += (uint64_t)__builtin_popcountll(load_word(generation, word));
    return count;
}

uint64_t generation_run(const Generation *generation, uint64_t block, uint64_t limit, bool *ret_dirty)
{
    bool dirty = generation_is_dirty(generation, block);
    uint64_t at = block;

    limit = MIN(limit, generation->blocks);
    while (at < limit) {
        uint64_t word = load_word(generation, at / 64) >> (at % 64);
        uint64_t other = dirty ? ~word : word; /* ones where the run ends; bits shifted in must not count */

        if (at % 64 != 0)
            other &= UINT64_MAX >> (at % 64);
        if (other != 0) {
            at += (uint64_t)__builtin_ctzll(other);
            break;
        }
        at = (at / 64 + 1) * 64;
    }
    *ret_dirty = dirty;
    return MIN(at, limit) - block;
}

bool generation_pread(const Generation *generation, void *buf, size_t size, uint64_t offset, GError **error)
{
    return file_pread_full(generation->delta, buf, size, offset, generation->delta_path, error);
}

bool generation_pwrite(Generation *generation, const void *buf, size_t size, uint64_t offset, GError **error)
{
    uint64_t first = offset / GENERATION_BLOCK;

    if (size == 0)
        return true;
    if (!file_pwrite_full(generation->delta, buf, size, offset, generation->delta_path, error))
        return false;
    mark(generation, first, (offset + size - 1) / GENERATION_BLOCK - first + 1);
    return true;
}

/* For file systems that can't punch holes. */
static bool write_zeroes(Generation *generation, uint64_t offset, uint64_t size, GError **error)
{
    static const uint8_t zeroes[64 * 1024];

    while (size > 0) {
        size_t some = MIN(size, sizeof(zeroes));

        if (!file_pwrite_full(generation->delta, zeroes, some, offset, generation->delta_path, error))
            return false;
        offset += some;
        size -= some;
    }
    return true;
}

bool generation_zero(Generation *generation, uint64_t first, uint64_t count, GError **error)
{
    uint64_t offset = first * GENERATION_BLOCK, size = count * GENERATION_BLOCK;
    int result;

    if (count == 0)
        return true;
    do
        result = fallocate(generation->delta, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                           (off_t)size);
    while (result < 0 && errno == EINTR);
    if (result < 0 && errno != EOPNOTSUPP)
        return fail_errno(error, "punch a hole into '%s'", generation->delta_path);
    if (result < 0 && !write_zeroes(generation, offset, size, error))
        return false;

    mark(generation, first, count);
    return true;
}

void generation_extent(const Generation *generation, uint64_t offset, uint64_t end, uint64_t *ret_end,
                       bool *ret_zero)
{
    off_t data = lseek(generation->delta, (off_t)offset, SEEK_DATA);
    off_t hole;

    *ret_zero = true;
    *ret_end = end;
    if (data < 0 && errno == ENXIO) /* nothing but holes to the end of the file */
        return;
    if (data > (off_t)offset) {
        *ret_end = MIN((uint64_t)data, end);
        return;
    }

    *ret_zero = false;
    hole = data < 0 ? -1 : lseek(generation->delta, (off_t)offset, SEEK_HOLE);
    if (hole > (off_t)offset)
        *ret_end = MIN((uint64_t)hole, end);
}
