/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that may never come back, made by a thread of their own, so that who asked can stop waiting.
 *
 *   worker = bounded_worker_new(host, free_host)
 *   call = bounded_call_new(run, data, free_data); bounded_call_start(worker, call); ... bounded_call_wait(call, silence); bounded_call_unref(call)
 *
 * One worker does one call after the other. A call that was given up goes on by itself; as long as it does its worker is busy and takes no
 * further one. So @run may only use what the call and the worker own. A call that takes long for a good reason says so by
 * bounded_call_tick(); only silence counts.
 */
#ifndef KILN_DEPLOY_BOUNDED_CALL_H
#define KILN_DEPLOY_BOUNDED_CALL_H

#include <glib.h>
#include <stdbool.h>

typedef struct BoundedWorker BoundedWorker;
typedef struct BoundedCall BoundedCall;

/* @self is handed to each call; freed by the worker's thread at its end. */
BoundedWorker *bounded_worker_new(void *self, GDestroyNotify free_self);
/* Ends when the last call does; waits for it at most @seconds. */
void bounded_worker_free(BoundedWorker *worker, double seconds);

typedef bool BoundedRun(void *self, void *data, BoundedCall *call, GError **error);
BoundedCall *bounded_call_new(BoundedRun *run, void *data, GDestroyNotify free_data);
void bounded_call_unref(BoundedCall *call);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BoundedCall, bounded_call_unref)

/* False when the worker still does a call that was given up. */
bool bounded_call_start(BoundedWorker *worker, BoundedCall *call);
void bounded_call_tick(BoundedCall *call);
/* Who asked waits no more: whatever @run would still do can be left out. */
bool bounded_call_given_up(BoundedCall *call);

/*
 * What @run returned, once; or KILN_ERROR_TIMEOUT after @silence seconds without a tick (0: for ever), after which the call's data must not
 * be looked at. @what names it in the error.
 */
bool bounded_call_wait(BoundedCall *call, double silence, const char *what, GError **error);
/* Only after a wait that did not give up. */
void *bounded_call_data(BoundedCall *call);

#endif
