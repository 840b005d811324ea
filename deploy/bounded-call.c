/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread, one call at a time, and a clock that runs only while nothing is heard.
 *
 * A call is owned by who asked and by the thread that does it, and goes with the last of them; so does the worker. Nothing here ends a
 * thread that hangs: it ends by itself when the library it hangs in lets go, or with the process.
 */
#include "deploy/bounded-call.h"

#include "base/error.h"

struct BoundedCall {
    gint refs;
    GMutex lock;
    GCond changed;
    BoundedRun *run;
    void *data;
    GDestroyNotify free_data;
    gint64 tick; /* monotonic time of the last sign of life */
    bool done, ok, given_up;
    GError *error;
};

struct BoundedWorker {
    gint refs; /* the owner and the thread */
    GMutex lock;
    GCond changed;
    BoundedCall *call; /* being done; NULL: idle */
    bool quit, ended;
    void *self;
    GDestroyNotify free_self;
};

BoundedCall *bounded_call_new(BoundedRun *run, void *data, GDestroyNotify free_data)
{
    BoundedCall *call = g_new0(BoundedCall, 1);

    call->refs = 1;
    g_mutex_init(&call->lock);
    g_cond_init(&call->changed);
    call->run = run;
    call->data = data;
    call->free_data = free_data;
    return call;
}

void bounded_call_unref(BoundedCall *call)
{
    if (!call || !g_atomic_int_dec_and_test(&call->refs))
        return;
    if (call->free_data)
        call->free_data(call->data);
    g_clear_error(&call->error);
    g_mutex_clear(&call->lock);
    g_cond_clear(&call->changed);
    g_free(call);
}

void *bounded_call_data(BoundedCall *call)
{
    return call->data;
}

void bounded_call_tick(BoundedCall *call)
{
    g_mutex_lock(&call->lock);
    call->tick = g_get_monotonic_time();
    g_cond_signal(&call->changed);
    g_mutex_unlock(&call->lock);
}

bool bounded_call_given_up(BoundedCall *call)
{
    bool given_up;

    g_mutex_lock(&call->lock);
    given_up = call->given_up;
    g_mutex_unlock(&call->lock);
    return given_up;
}

bool bounded_call_wait(BoundedCall *call, double silence, const char *what, GError **error)
{
    gint64 patience = (gint64)(silence * G_USEC_PER_SEC);
    bool ok;

    g_mutex_lock(&call->lock);
    while (!call->done && (patience == 0 || g_get_monotonic_time() - call->tick < patience)) {
        if (patience == 0)
            g_cond_wait(&call->changed, &call->lock);
        else
            (void)g_cond_wait_until(&call->changed, &call->lock, call->tick + patience);
    }
    ok = call->done && call->ok;
    call->given_up = !call->done;
    if (call->done && call->error)
        g_propagate_error(error, g_steal_pointer(&call->error));
    else if (!call->done)
        (void)fail_code(error, KILN_ERROR_TIMEOUT, "%s has not answered for %.0f seconds", what, silence);
    g_mutex_unlock(&call->lock);
    return ok;
}

/* --- the thread --- */

static void worker_unref(BoundedWorker *worker)
{
    if (!g_atomic_int_dec_and_test(&worker->refs))
        return;
    g_mutex_clear(&worker->lock);
    g_cond_clear(&worker->changed);
    g_free(worker);
}

static BoundedCall *next_call(BoundedWorker *worker)
{
    BoundedCall *call;

    g_mutex_lock(&worker->lock);
    while (!worker->call && !worker->quit)
        g_cond_wait(&worker->changed, &worker->lock);
    call = worker->call;
    g_mutex_unlock(&worker->lock);
    return call;
}

static void do_call(BoundedWorker *worker, BoundedCall *call)
{
    GError *error = NULL;
    bool ok = call->run(worker->self, call->data, call, &error);

    /* Idle first: who is told that the call is done may start the next one at once. */
    g_mutex_lock(&worker->lock);
    worker->call = NULL;
    g_mutex_unlock(&worker->lock);
    g_mutex_lock(&call->lock);
    call->done = true;
    call->ok = ok;
    call->error = error;
    g_cond_signal(&call->changed);
    g_mutex_unlock(&call->lock);
    bounded_call_unref(call);
}

static gpointer work(gpointer arg)
{
    BoundedWorker *worker = arg;
    BoundedCall *call;

    while ((call = next_call(worker)))
        do_call(worker, call);
    if (worker->free_self)
        worker->free_self(worker->self);
    g_mutex_lock(&worker->lock);
    worker->ended = true;
    g_cond_signal(&worker->changed);
    g_mutex_unlock(&worker->lock);
    worker_unref(worker);
    return NULL;
}

BoundedWorker *bounded_worker_new(void *self, GDestroyNotify free_self)
{
    BoundedWorker *worker = g_new0(BoundedWorker, 1);

    worker->refs = 2;
    g_mutex_init(&worker->lock);
    g_cond_init(&worker->changed);
    worker->self = self;
    worker->free_self = free_self;
    g_thread_unref(g_thread_new("host", work, worker));
    return worker;
}

void bounded_worker_free(BoundedWorker *worker, double seconds)
{
    gint64 end = g_get_monotonic_time() + (gint64)(seconds * G_USEC_PER_SEC);

    if (!worker)
        return;
    g_mutex_lock(&worker->lock);
    worker->quit = true;
    g_cond_signal(&worker->changed);
    while (!worker->ended && g_cond_wait_until(&worker->changed, &worker->lock, end))
        ;
    g_mutex_unlock(&worker->lock);
    worker_unref(worker);
}

bool bounded_call_start(BoundedWorker *worker, BoundedCall *call)
{
    bool free_for_it;

    g_mutex_lock(&worker->lock);
    free_for_it = !worker->call && !worker->quit;
    if (free_for_it) {
        g_atomic_int_inc(&call->refs);
        call->tick = g_get_monotonic_time();
        worker->call = call;
        g_cond_signal(&worker->changed);
    }
    g_mutex_unlock(&worker->lock);
    return free_for_it;
}
