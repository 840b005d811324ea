/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the run (bake-run.c) and the places where it stops for somebody (bake-stop.c) share: one guest session.
 *
 *            open ------------------- the disk is the state before a step
 *             |   ^ rolled back
 *             v   |
 *          touched ------------------ something was written that is not kept
 *             |   \
 *     captured|    `-> sealed ------- and the disk keeps it all the same: only a new guest helps
 *             v
 *           (open, one step later)
 */
#ifndef KILN_BAKER_BAKE_RUN_H
#define KILN_BAKER_BAKE_RUN_H

#include "baker/bake-internal.h"
#include "baker/guest-tree.h"

typedef struct BakeSession {
    BakeChain *chain;
    WorkingDisk *disk;
    Guest *guest;   /* NULL: none was needed so far */
    char *tmpdir;
    bool network;   /* the appliance has a card */
    Digest at;      /* the disk's last kept state */
    bool touched, sealed;
    bool walks;     /* the host cannot read this disk's root whole: bake-walk.h */
    bool has_tree;  /* chain->walked is what the guest is now */
    GuestOutline *outline, *outline_now; /* as of @outline_at, and read since; NULL: not read */
    Digest outline_at;
    BakeStep *step; /* the one that runs; NULL behind the last */
} BakeSession;

/* A guest in the state before step @index (after the last: the number of steps), and nothing written since. */
bool bake_session_clean(BakeSession *session, size_t index, GError **error);

/* Ends it at once; what was kept is kept. */
void bake_session_close(BakeSession *session);

/* Between the guest's begin and end, with the step's secrets: @fn. */
typedef bool BakeInStepFn(BakeSession *session, void *arg, GError **error);
bool bake_session_in_step(BakeSession *session, const GuestStep *begin, BakeInStepFn *fn, void *arg, GError **error);

/* Runs session->step once. What it wrote is in the guest, whether it failed or not. */
bool bake_session_run(BakeSession *session, GError **error);

/* False for what runs on the host, and for places to stop at that this bake passes over. */
bool bake_needs_guest(const BakeChain *chain, const BakeStep *step);

/* The step's pause, which an interrupt ends. */
bool bake_session_pause(const BakeStep *step, GError **error);

/* Does a bake of this chain stop anywhere, or say that it passed such a place over? */
bool bake_stops(const BakeChain *chain);
/* The shell that was asked for before step @index (after the last: the number of steps). */
bool bake_stop_before(BakeSession *session, size_t index, GError **error);
/* The turn of a step that is such a place itself. */
bool bake_stop_at(BakeSession *session, size_t index, GError **error);
/* ProvisionerHost.shell, for when somebody sits at a terminal; @arg is the session. */
bool bake_stop_shell(const char *why, void *arg, GError **error);
/* After step @index failed: cleans up, or asks. True when the step is to be tried again. */
bool bake_stop_failed(BakeSession *session, size_t index, const GError *problem);

#endif
