/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work on pieces by all processors, taken in order: what exports are.
 *
 *     caller's thread    fill -> ............... -> take      pieces in order
 *     threads                   work, work, work              any order, at the same time
 *
 * There are as many pieces under way as there are slots, so memory is theirs and no more.
 */
#ifndef KILN_STORE_ORDERED_H
#define KILN_STORE_ORDERED_H

#include <glib.h>
#include <stdbool.h>

typedef struct OrderedOps {
    bool (*fill)(void *slot, void *arg);                 /* puts the next piece into @slot; false: there are no more */
    bool (*work)(void *slot, void *arg, GError **error); /* other threads: touches @slot and what is thread-safe */
    bool (*take)(void *slot, void *arg, GError **error); /* in the order of fill */
} OrderedOps;

/* @slots: @count pointers to pieces of the caller's. Ends early, with the first error in order, or when the user interrupts. */
bool ordered_run(const OrderedOps *ops, void *const *slots, unsigned count, void *arg, GError **error);

/* How many threads it uses. */
unsigned ordered_threads(void);

#endif
