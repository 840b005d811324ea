/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generations over a parent map: the reads and writes of a working disk.
 *
 * Writes are kept at 4 KiB. A write that covers a block only in part reads the
 * rest from below, once; two such writes into one block must not both do it, hence fill_lock.
 * Writes of whole blocks need no lock among each other: NBD promises nothing
 * for overlapping requests that run at the same time.
 */
#include "store/generation-stack.h"

#include "base/error.h"
#include "base/scope.h"

#include <pthread.h>
#include <string.h>

#define BLOCK GENERATION_BLOCK

struct GenerationStack {
    pthread_rwlock_t lock; /* read: any request; write: a change of the layers */
    GMutex fill_lock;
    char *dir;
    uint64_t size;
    unsigned last_number;
    Generation *active, *sealed; /* sealed may be NULL */
    StoreMap *parent;            /* may be NULL */
};

static void init_lock(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;

    /* glibc's default lets a busy guest's requests keep a rebase waiting for ever. */
    (void)pthread_rwlockattr_init(&attr);
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(lock, &attr);
    (void)pthread_rwlockattr_destroy(&attr);
}

bool generation_stack_open(StoreMap *parent, const char *dir, uint64_t size, GenerationStack **ret,
                           GError **error)
{
    g_autoptr(GenerationStack) stack = g_new0(GenerationStack, 1);

    init_lock(&stack->lock);
    g_mutex_init(&stack->fill_lock);
    stack->dir = g_strdup(dir);
    stack->size = size;
    stack->parent = parent ? store_map_ref(parent) : NULL;

    if (parent && store_map_size(parent) > size)
        return fail(error,
                    "the working disk (%" G_GUINT64_FORMAT
                    " bytes) is smaller than the disk it starts from (%" G_GUINT64_FORMAT " bytes)",
                    size, store_map_size(parent));
    if (!generation_create(dir, ++stack->last_number, size, &stack->active, error))
        return false;

    *ret = g_steal_pointer(&stack);
    return true;
}

static void forget(Generation **generation)
{
    if (*generation)
        generation_unlink(*generation);
    generation_close(*generation);
    *generation = NULL;
}

void generation_stack_close(GenerationStack *stack)
{
    if (!stack)
        return;
    forget(&stack->active);
    forget(&stack->sealed);
    if (stack->parent)
        store_map_unref(stack->parent);
    g_free(stack->dir);
    g_mutex_clear(&stack->fill_lock);
    (void)pthread_rwlock_destroy(&stack->lock);
    g_free(stack);
}

/* --- reading --- */

static bool parent_pread(GenerationStack *stack, void *buf, size_t size, uint64_t offset, GError **error)
{
    uint64_t parent_size = stack->parent ? store_map_size(stack->parent) : 0;
    size_t inside = offset < parent_size ? MIN(size, parent_size - offset) : 0;

    if (inside > 0 && !store_map_pread(stack->parent, buf, inside, offset, error))
        return false;
    memset((uint8_t *)buf + inside, 0, size - inside);
    return true;
}

/* The generation that shows @block (NULL: the parent) and how many blocks from there on it shows as well. */
static const Generation *layer_of(const GenerationStack *stack, uint64_t block, uint64_t limit,
                                  uint64_t *ret_count)
{
    bool dirty;

    *ret_count = generation_run(stack->active, block, limit, &dirty);
    if (dirty)
        return stack->active;
    if (!stack->sealed)
        return NULL;
    *ret_count = generation_run(stack->sealed, block, block + *ret_count, &dirty);
    return dirty ? stack->sealed : NULL;
}

/* The end, in bytes, of the run at @offset that one layer shows. */
static const Generation *layer_at(const GenerationStack *stack, uint64_t offset, uint64_t end,
                                  uint64_t *ret_end)
{
    uint64_t block = offset / BLOCK, count;
    const Generation *layer = layer_of(stack, block, (end + BLOCK - 1) / BLOCK, &count);

    *ret_end = MIN(end, (block + count) * BLOCK);
    return layer;
}

static bool read_layers(GenerationStack *stack, uint8_t *buf, size_t size, uint64_t offset, GError **error)
{
    uint64_t end = offset + size, run_end;

    for (; offset < end; buf += run_end - offset, offset = run_end) {
        const Generation *layer = layer_at(stack, offset, end, &run_end);
        bool ok = layer ? generation_pread(layer, buf, run_end - offset, offset, error)
                        : parent_pread(stack, buf, run_end - offset, offset, error);

        if (!ok)
            return false;
    }
    return true;
}

bool generation_stack_pread(GenerationStack *stack, void *buf, size_t size, uint64_t offset, GError **error)
{
    bool ok;

    (void)pthread_rwlock_rdlock(&stack->lock);
    ok = read_layers(stack, buf, size, offset, error);
    (void)pthread_rwlock_unlock(&stack->lock);
    return ok;
}

static void parent_extent(GenerationStack *stack, uint64_t offset, uint64_t end, uint64_t *ret_end,
                          bool *ret_zero)
{
    uint64_t parent_size = stack->parent ? store_map_size(stack->parent) : 0, extent_end;

    *ret_end = end;
    *ret_zero = true;
    if (offset >= parent_size)
        return;
    store_map_extent(stack->parent, offset, &extent_end, ret_zero);
    *ret_end = MIN(end, extent_end);
}

void generation_stack_extent(GenerationStack *stack, uint64_t offset, uint64_t end, uint64_t *ret_end,
                             bool *ret_zero)
{
    const Generation *layer;
    uint64_t run_end;

    (void)pthread_rwlock_rdlock(&stack->lock);
    layer = layer_at(stack, offset, end, &run_end);
    if (layer)
        generation_extent(layer, offset, run_end, ret_end, ret_zero);
    else
        parent_extent(stack, offset, run_end, ret_end, ret_zero);
    (void)pthread_rwlock_unlock(&stack->lock);
}

/* --- writing --- */

/* Bytes of @block that exist: all but the last one have 4096. */
static size_t block_bytes(const GenerationStack *stack, uint64_t block)
{
    return MIN(BLOCK, stack->size - block * BLOCK);
}

/* @size bytes at @offset, all in one block, which they do not fill. */
static bool write_part(GenerationStack *stack, const uint8_t *data, size_t size, uint64_t offset,
                       GError **error)
{
    AUTO_LOCK(&stack->fill_lock);
    uint64_t block = offset / BLOCK;
    uint8_t whole[BLOCK] = {0};

    if (generation_is_dirty(stack->active, block))
        return generation_pwrite(stack->active, data, size, offset, error);

    if (!read_layers(stack, whole, block_bytes(stack, block), block * BLOCK, error))
        return false;
    memcpy(whole + offset % BLOCK, data, size);
    return generation_pwrite(stack->active, whole, block_bytes(stack, block), block * BLOCK, error);
}

/* A range cut on the grid: part of a block, whole blocks (the disk's last one counts as such), part of one.
 */
typedef struct Cut {
    size_t head, tail;
    uint64_t middle;
} Cut;

static Cut cut_on_grid(const GenerationStack *stack, uint64_t size, uint64_t offset)
{
    Cut cut = {0};

    if (offset % BLOCK != 0)
        cut.head = MIN(size, BLOCK - offset % BLOCK);
    size -= cut.head;
    if (offset + cut.head + size != stack->size)
        cut.tail = size % BLOCK;
    cut.middle = size - cut.tail;
    return cut;
}

static bool write_layers(GenerationStack *stack, const uint8_t *data, size_t size, uint64_t offset,
                         GError **error)
{
    Cut cut = cut_on_grid(stack, size, offset);

    if (cut.head > 0 && !write_part(stack, data, cut.head, offset, error))
        return false;
    data += cut.head;
    offset += cut.head;
    if (!generation_pwrite(stack->active, data, cut.middle, offset, error))
        return false;
    data += cut.middle;
    offset += cut.middle;
    return cut.tail == 0 || write_part(stack, data, cut.tail, offset, error);
}

static bool zero_layers(GenerationStack *stack, uint64_t size, uint64_t offset, bool exact, GError **error)
{
    static const uint8_t zeroes[BLOCK];
    Cut cut = cut_on_grid(stack, size, offset);
    uint64_t middle = offset + cut.head;

    if (exact && cut.head > 0 && !write_part(stack, zeroes, cut.head, offset, error))
        return false;
    if (!generation_zero(stack->active, middle / BLOCK, (cut.middle + BLOCK - 1) / BLOCK, error))
        return false;
    return !exact || cut.tail == 0 || write_part(stack, zeroes, cut.tail, middle + cut.middle, error);
}

bool generation_stack_pwrite(GenerationStack *stack, const void *buf, size_t size, uint64_t offset,
                             GError **error)
{
    bool ok;

    (void)pthread_rwlock_rdlock(&stack->lock);
    ok = write_layers(stack, buf, size, offset, error);
    (void)pthread_rwlock_unlock(&stack->lock);
    return ok;
}

static bool zero(GenerationStack *stack, uint64_t size, uint64_t offset, bool exact, GError **error)
{
    bool ok;

    (void)pthread_rwlock_rdlock(&stack->lock);
    ok = zero_layers(stack, size, offset, exact, error);
    (void)pthread_rwlock_unlock(&stack->lock);
    return ok;
}

bool generation_stack_zero(GenerationStack *stack, uint64_t size, uint64_t offset, GError **error)
{
    return zero(stack, size, offset, true, error);
}

bool generation_stack_trim(GenerationStack *stack, uint64_t size, uint64_t offset, GError **error)
{
    return zero(stack, size, offset, false, error);
}

/* --- changing the layers --- */

/* Puts a fresh generation on top and hands out the one that was there. */
static bool replace_active(GenerationStack *stack, Generation **ret_old, GError **error)
{
    Generation *fresh = NULL;

    if (!generation_create(stack->dir, stack->last_number + 1, stack->size, &fresh, error))
        return false;
    stack->last_number++;
    *ret_old = stack->active;
    stack->active = fresh;
    return true;
}

static bool seal_locked(GenerationStack *stack, unsigned *ret_number, GError **error)
{
    if (stack->sealed)
        return fail(error, "the working disk has a sealed generation that is not captured yet");
    if (!replace_active(stack, &stack->sealed, error))
        return false;
    *ret_number = generation_number(stack->sealed);
    return true;
}

bool generation_stack_seal(GenerationStack *stack, unsigned *ret_number, GError **error)
{
    bool ok;

    (void)pthread_rwlock_wrlock(&stack->lock);
    ok = seal_locked(stack, ret_number, error);
    (void)pthread_rwlock_unlock(&stack->lock);
    return ok;
}

void generation_stack_rebase(GenerationStack *stack, StoreMap *parent)
{
    Generation *sealed;
    StoreMap *old;

    (void)pthread_rwlock_wrlock(&stack->lock);
    sealed = g_steal_pointer(&stack->sealed);
    old = stack->parent;
    stack->parent = parent ? store_map_ref(parent) : NULL;
    (void)pthread_rwlock_unlock(&stack->lock);

    forget(&sealed);
    if (old)
        store_map_unref(old);
}

bool generation_stack_drop(GenerationStack *stack, GError **error)
{
    Generation *old = NULL;
    bool ok;

    (void)pthread_rwlock_wrlock(&stack->lock);
    ok = replace_active(stack, &old, error);
    (void)pthread_rwlock_unlock(&stack->lock);
    forget(&old);
    return ok;
}
