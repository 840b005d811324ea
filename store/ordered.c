/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of slots: filled up to @filled, begun up to @begun, taken up to @taken.
 *
 *     taken <= begun <= filled <= taken + count
 */
#include "store/ordered.h"

#include "base/interrupt.h"

#include <sched.h>
#include <stdint.h>

#define THREADS_USUAL 8u /* at most */

struct Ordered {
    const OrderedOps *ops;
    char *slots;
    size_t size; /* of one */
    unsigned count;
    void *arg;
    uint64_t taken;      /* the caller's thread alone */
    GThread *threads[ORDERED_THREADS_MAX];
    unsigned thread_limit, thread_count; /* started so far */

    GMutex lock; /* all below */
    GCond filling, finishing;
    bool closing;
    uint64_t filled, begun;
    bool *done;
    GError **errors; /* by slot */
};

/* Of the processors that we may use, not of those that there are. */
unsigned ordered_threads(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CLAMP((unsigned)CPU_COUNT(&set), 1, THREADS_USUAL);
    return CLAMP(g_get_num_processors(), 1, THREADS_USUAL);
}

static void *piece_of(const Ordered *ring, unsigned slot)
{
    return ring->slots + slot * ring->size;
}

static gpointer ring_thread(gpointer arg)
{
    Ordered *ring = arg;

    g_mutex_lock(&ring->lock);
    for (;;) {
        GError *error = NULL;
        unsigned slot;

        while (ring->begun == ring->filled && !ring->closing)
            g_cond_wait(&ring->filling, &ring->lock);
        if (ring->closing)
            break;
        slot = (unsigned)(ring->begun++ % ring->count);
        g_mutex_unlock(&ring->lock);
        (void)ring->ops->work(piece_of(ring, slot), ring->arg, &error);
        g_mutex_lock(&ring->lock);
        ring->errors[slot] = error;
        ring->done[slot] = true;
        g_cond_signal(&ring->finishing);
    }
    g_mutex_unlock(&ring->lock);
    return NULL;
}

Ordered *ordered_new(const OrderedOps *ops, void *slots, size_t size, unsigned count, void *arg)
{
    Ordered *ring = g_new0(Ordered, 1);

    ring->ops = ops;
    ring->slots = slots;
    ring->size = size;
    ring->count = count;
    ring->arg = arg;
    ring->thread_limit = ordered_threads();
    ring->done = g_new0(bool, count);
    ring->errors = g_new0(GError *, count);
    g_mutex_init(&ring->lock);
    g_cond_init(&ring->filling);
    g_cond_init(&ring->finishing);
    return ring;
}

void ordered_set_threads(Ordered *ring, unsigned threads)
{
    ring->thread_limit = CLAMP(threads, 1, ORDERED_THREADS_MAX);
}

static bool wait_for(Ordered *ring, unsigned slot, GError **error)
{
    GError *failed;

    g_mutex_lock(&ring->lock);
    while (!ring->done[slot])
        g_cond_wait(&ring->finishing, &ring->lock);
    failed = g_steal_pointer(&ring->errors[slot]);
    g_mutex_unlock(&ring->lock);
    if (failed)
        g_propagate_error(error, failed);
    return !failed;
}

static bool take_oldest(Ordered *ring, GError **error)
{
    unsigned slot = (unsigned)(ring->taken % ring->count);

    if (!wait_for(ring, slot, error) || !ring->ops->take(piece_of(ring, slot), ring->arg, error))
        return false;
    ring->taken++;
    return true;
}

bool ordered_slot(Ordered *ring, void **ret, GError **error)
{
    if (ring->filled - ring->taken == ring->count && !take_oldest(ring, error))
        return false;
    *ret = piece_of(ring, (unsigned)(ring->filled % ring->count));
    return true;
}

/* A thread is started when all others have something to do: who has two pieces needs no eight. */
void ordered_push(Ordered *ring)
{
    g_mutex_lock(&ring->lock);
    ring->done[ring->filled % ring->count] = false;
    ring->filled++;
    g_cond_signal(&ring->filling);
    g_mutex_unlock(&ring->lock);
    if (ring->thread_count < MIN(ring->thread_limit, ring->filled - ring->taken)) {
        ring->threads[ring->thread_count] = g_thread_new("ordered", ring_thread, ring);
        ring->thread_count++;
    }
}

bool ordered_drain(Ordered *ring, GError **error)
{
    while (ring->taken < ring->filled)
        if (!interrupt_check(error) || !take_oldest(ring, error))
            return false;
    return true;
}

static void end_threads(Ordered *ring)
{
    g_mutex_lock(&ring->lock);
    ring->closing = true;
    g_cond_broadcast(&ring->filling);
    g_mutex_unlock(&ring->lock);
    for (unsigned i = 0; i < ring->thread_count; i++)
        (void)g_thread_join(ring->threads[i]);
}

void ordered_free(Ordered *ring)
{
    if (!ring)
        return;
    end_threads(ring);
    for (unsigned i = 0; i < ring->count; i++)
        g_clear_error(&ring->errors[i]);
    g_free(ring->errors);
    g_free(ring->done);
    g_mutex_clear(&ring->lock);
    g_cond_clear(&ring->filling);
    g_cond_clear(&ring->finishing);
    g_free(ring);
}

bool ordered_run(const OrderedOps *ops, void *slots, size_t size, unsigned count, void *arg, GError **error)
{
    g_autoptr(Ordered) ring = ordered_new(ops, slots, size, count, arg);
    void *slot;

    for (;;) {
        if (!interrupt_check(error) || !ordered_slot(ring, &slot, error))
            return false;
        if (!ops->fill(slot, arg))
            return ordered_drain(ring, error);
        ordered_push(ring);
    }
}
