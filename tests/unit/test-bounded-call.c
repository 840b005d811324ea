/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that hang: who asked goes on, the worker is busy until it comes back, and nothing of either is used after it was freed.
 */
#include "base/error.h"
#include "deploy/bounded-call.h"

typedef struct Task {
    double seconds, tick_every;
    bool fails;
    gint *freed;
} Task;

static void free_task(gpointer p)
{
    Task *task = p;

    g_atomic_int_inc(task->freed);
    g_free(task);
}

static bool run(void *self, void *data, BoundedCall *call, GError **error)
{
    Task *task = data;

    g_atomic_int_inc((gint *)self);
    for (double slept = 0; slept < task->seconds; slept += task->tick_every > 0 ? task->tick_every : task->seconds) {
        g_usleep((gulong)((task->tick_every > 0 ? task->tick_every : task->seconds) * G_USEC_PER_SEC));
        if (task->tick_every > 0)
            bounded_call_tick(call);
    }
    return !task->fails || fail(error, "it failed");
}

static BoundedCall *task_new(double seconds, double tick_every, bool fails, gint *freed)
{
    Task *task = g_new0(Task, 1);

    *task = (Task){.seconds = seconds, .tick_every = tick_every, .fails = fails, .freed = freed};
    return bounded_call_new(run, task, free_task);
}

static void test_outcomes(void)
{
    gint runs = 0, freed = 0;
    BoundedWorker *worker = bounded_worker_new(&runs, NULL);
    g_autoptr(BoundedCall) good = task_new(0, 0, false, &freed), bad = task_new(0, 0, true, &freed);
    g_autoptr(GError) error = NULL;

    g_assert_true(bounded_call_start(worker, good));
    g_assert_true(bounded_call_wait(good, 5, "it", &error));
    g_assert_true(bounded_call_start(worker, bad)); /* idle again as soon as it is told */
    g_assert_false(bounded_call_wait(bad, 5, "it", &error));
    g_assert_cmpstr(error->message, ==, "it failed");
    g_assert_cmpint(runs, ==, 2);
    bounded_worker_free(worker, 5);
}

static void test_silence(void)
{
    gint runs = 0, freed = 0;
    BoundedWorker *worker = bounded_worker_new(&runs, NULL);
    BoundedCall *slow = task_new(0.6, 0, false, &freed), *next = task_new(0, 0, false, &freed);
    gint64 begin = g_get_monotonic_time();
    g_autoptr(GError) error = NULL;

    g_assert_true(bounded_call_start(worker, slow));
    g_assert_false(bounded_call_wait(slow, 0.1, "host x", &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_TIMEOUT);
    g_assert_true(g_str_has_prefix(error->message, "host x has not answered"));
    g_assert_true(bounded_call_given_up(slow));
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 500000);
    bounded_call_unref(slow);
    g_assert_cmpint(g_atomic_int_get(&freed), ==, 0); /* its thread still has it */
    g_assert_false(bounded_call_start(worker, next));
    while (!bounded_call_start(worker, next))
        g_usleep(20000);
    g_assert_true(bounded_call_wait(next, 5, "it", NULL));
    bounded_call_unref(next);
    bounded_worker_free(worker, 5);
    g_assert_cmpint(g_atomic_int_get(&freed), ==, 2);
}

static void test_ticks(void)
{
    gint runs = 0, freed = 0;
    BoundedWorker *worker = bounded_worker_new(&runs, NULL);
    g_autoptr(BoundedCall) lively = task_new(0.6, 0.05, false, &freed);

    g_assert_true(bounded_call_start(worker, lively));
    g_assert_true(bounded_call_wait(lively, 0.4, "it", NULL));
    bounded_worker_free(worker, 5);
}

static void end_self(gpointer self)
{
    g_atomic_int_set((gint *)self, -1);
}

/* The owner leaves while a call hangs: the thread ends by itself, later. */
static void test_leaving(void)
{
    static gint runs, freed;
    BoundedWorker *worker = bounded_worker_new(&runs, end_self);
    BoundedCall *slow = task_new(0.4, 0, false, &freed);

    g_assert_true(bounded_call_start(worker, slow));
    g_assert_false(bounded_call_wait(slow, 0.05, "it", NULL));
    bounded_call_unref(slow);
    bounded_worker_free(worker, 0.05);
    g_assert_cmpint(g_atomic_int_get(&runs), ==, 1);
    for (int i = 0; i < 100 && g_atomic_int_get(&runs) != -1; i++)
        g_usleep(20000);
    g_assert_cmpint(g_atomic_int_get(&runs), ==, -1);
    g_assert_cmpint(g_atomic_int_get(&freed), ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/bounded-call/outcomes", test_outcomes);
    g_test_add_func("/bounded-call/a-silent-one-is-given-up", test_silence);
    g_test_add_func("/bounded-call/ticks-are-signs-of-life", test_ticks);
    g_test_add_func("/bounded-call/leaving-a-call-that-hangs", test_leaving);
    return g_test_run();
}
