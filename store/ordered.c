/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of slots: filled up to @filled, begun up to @begun, taken up to @taken.
 *
 *     taken <= begun <= filled <= taken + count
 */
#include "store/ordered.h"

#include "base/interrupt.h"

#include <stdint.h>

#define THREADS_MAX 8

typedef struct Ring {
    const OrderedOps *ops;
    void *const *slots;
    unsigned count;
    void *arg;

    GMutex lock; /* all below */
    GCond filling, finishing;
    bool closing;
    uint64_t filled, begun;
    bool *done;
    GError **errors; /* by slot */
} Ring;

unsigned ordered_threads(void)
{
    return CLAMP(g_get_num_processors(), 1, THREADS_MAX);
}

static gpointer ring_thread(gpointer arg)
{
    Ring *ring = arg;

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
        (void)ring->ops->work(ring->slots[slot], ring->arg, &error);
        g_mutex_lock(&ring->lock);
        ring->errors[slot] = error;
        ring->done[slot] = true;
        g_cond_signal(&ring->finishing);
    }
    g_mutex_unlock(&ring->lock);
    return NULL;
}

static void hand_over(Ring *ring)
{
    g_mutex_lock(&ring->lock);
    ring->done[ring->filled % ring->count] = false;
    ring->filled++;
    g_cond_signal(&ring->filling);
    g_mutex_unlock(&ring->lock);
}

static bool wait_for(Ring *ring, unsigned slot, GError **error)
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

static bool run_ring(Ring *ring, GError **error)
{
    uint64_t filled = 0, taken = 0;
    bool more = true;

    for (;;) {
        while (more && filled - taken < ring->count && (more = ring->ops->fill(ring->slots[filled % ring->count], ring->arg))) {
            filled++;
            hand_over(ring);
        }
        if (taken == filled)
            return true;
        if (!interrupt_check(error) || !wait_for(ring, (unsigned)(taken % ring->count), error) ||
            !ring->ops->take(ring->slots[taken % ring->count], ring->arg, error))
            return false;
        taken++;
    }
}

static void end_threads(Ring *ring, GThread **threads, unsigned count)
{
    g_mutex_lock(&ring->lock);
    ring->closing = true;
    g_cond_broadcast(&ring->filling);
    g_mutex_unlock(&ring->lock);
    for (unsigned i = 0; i < count; i++)
        (void)g_thread_join(threads[i]);
}

bool ordered_run(const OrderedOps *ops, void *const *slots, unsigned count, void *arg, GError **error)
{
    Ring ring = {.ops = ops, .slots = slots, .count = count, .arg = arg};
    g_autofree bool *done = g_new0(bool, count);
    g_autofree GError **errors = g_new0(GError *, count);
    GThread *threads[THREADS_MAX];
    unsigned thread_count = MIN(ordered_threads(), count);
    bool ok;

    ring.done = done;
    ring.errors = errors;
    g_mutex_init(&ring.lock);
    g_cond_init(&ring.filling);
    g_cond_init(&ring.finishing);
    for (unsigned i = 0; i < thread_count; i++)
        threads[i] = g_thread_new("ordered", ring_thread, &ring);
    ok = run_ring(&ring, error);
    end_threads(&ring, threads, thread_count);
    for (unsigned i = 0; i < count; i++)
        g_clear_error(&errors[i]);
    g_mutex_clear(&ring.lock);
    g_cond_clear(&ring.filling);
    g_cond_clear(&ring.finishing);
    return ok;
}
