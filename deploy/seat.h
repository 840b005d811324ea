/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seats: what a group's phase wants, laid over the rows that there are. Private to the transition function's files.
 *
 * A seat is one (revision, slot). Wanted seats come from the phase's composition; seats that nobody wants have rows only. Of a seat's
 * rows the last attempt counts: it is the seat's keeper unless something is wrong with it. All other rows are surplus.
 */
#ifndef KILN_DEPLOY_SEAT_H
#define KILN_DEPLOY_SEAT_H

#include "deploy/transition.h"

typedef struct Seat {
    uint32_t revision, slot;
    unsigned first, count; /* rows in state->instances; the last one is the newest attempt */
    unsigned weight;       /* that its instance shall have */
    const Instance *keeper; /* its newest instance, when nothing is wrong with it; set by the scene */
    bool wanted;
    bool key;              /* the phase is reached when these are whole; others are healed beside it and hold nothing up */
} Seat;

/* All seats, by revision and slot; array of Seat. @ret_frozen: a paused rollout, in which what there is, is what is wanted. */
GArray *group_seats(const GroupRules *rules, const GroupState *state, bool *ret_frozen);

/* What went wrong with a row, seen by itself; false: nothing. */
bool instance_fault(const Instance *row, Cause *ret);

static inline Instance *state_row(const GroupState *state, unsigned at)
{
    return &g_array_index(state->instances, Instance, at);
}

#endif
