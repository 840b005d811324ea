/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work on pieces by all processors, taken in order: what exports, ingests and gzip streams are.
 *
 *     caller's thread    fill -> ............... -> take      pieces in order
 *     threads                   work, work, work              any order, at the same time
 *
 * There are as many pieces under way as there are slots, so memory is theirs and no more. Whatever the number of threads, what take sees is
 * the same, and it is never called from another thread.
 */
#ifndef KILN_STORE_ORDERED_H
#define KILN_STORE_ORDERED_H

#include <glib.h>
#include <stdbool.h>

#define ORDERED_THREADS_MAX 16u

typedef struct OrderedOps {
    bool (*fill)(void *slot, void *arg);                 /* puts the next piece into @slot; false: there are no more. For ordered_run() */
    bool (*work)(void *slot, void *arg, GError **error); /* other threads: touches @slot and what is thread-safe */
    bool (*take)(void *slot, void *arg, GError **error); /* in the order of fill */
} OrderedOps;

/* @slots: an array of @count pieces of @size bytes, the caller's. Ends early, with the first error in order, or when the user interrupts. */
bool ordered_run(const OrderedOps *ops, void *slots, size_t size, unsigned count, void *arg, GError **error);

/*
 * The same for who has pieces to hand over, not to be asked for:
 *     ordered_new; { ordered_slot, fill it, ordered_push }...; ordered_drain; ordered_free
 * After an error only ordered_free() may follow.
 */
typedef struct Ordered Ordered;
Ordered *ordered_new(const OrderedOps *ops, void *slots, size_t size, unsigned count, void *arg);
/* A free slot; where there is none, the oldest piece is waited for and taken. */
bool ordered_slot(Ordered *ordered, void **ret, GError **error);
/* With so many threads, 1 to ORDERED_THREADS_MAX, instead of ordered_threads(); before the first push. */
void ordered_set_threads(Ordered *ordered, unsigned threads);
void ordered_push(Ordered *ordered); /* the slot that was last given out */
/* Takes all that was pushed; more may be pushed afterwards. */
bool ordered_drain(Ordered *ordered, GError **error);
void ordered_free(Ordered *ordered); /* what was not taken is dropped */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Ordered, ordered_free)

/* How many threads it uses, unless told otherwise. */
unsigned ordered_threads(void);

#endif
