/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order is decided as jobs end, by one rule: the first waiting job whose needs are all done starts next.
 */
#include "baker/batch.h"

#include "base/error.h"
#include "base/interrupt.h"

#include <stdlib.h>
#include <string.h>

/* Memory that an appliance with its guest, and kiln beside it, may take. */
#define JOB_MEMORY ((uint64_t)1600 << 20)

struct Batch {
    BatchOps ops;
    GPtrArray *jobs;
    const char *store_dir;
    GAsyncQueue *ended; /* of BatchJob* */
    unsigned running;
};

static void job_free(gpointer data)
{
    BatchJob *job = data;

    g_free(job->name);
    g_clear_error(&job->error);
    g_ptr_array_unref(job->needs);
    g_ptr_array_unref(job->follows);
    g_free(job);
}

Batch *batch_new(const BatchOps *ops)
{
    Batch *batch = g_new0(Batch, 1);

    batch->ops = *ops;
    batch->jobs = g_ptr_array_new_with_free_func(job_free);
    batch->ended = g_async_queue_new();
    return batch;
}

void batch_free(Batch *batch)
{
    if (!batch)
        return;
    g_ptr_array_unref(batch->jobs);
    g_async_queue_unref(batch->ended);
    g_free(batch);
}

BatchJob *batch_add(Batch *batch, const char *name, void *arg)
{
    BatchJob *job = g_new0(BatchJob, 1);

    job->name = g_strdup(name);
    job->arg = arg;
    job->batch = batch;
    job->needs = g_ptr_array_new();
    job->follows = g_ptr_array_new();
    g_ptr_array_add(batch->jobs, job);
    return job;
}

void batch_need(BatchJob *job, BatchJob *needed)
{
    g_ptr_array_add(job->needs, needed);
}

void batch_follow(BatchJob *job, BatchJob *first)
{
    g_ptr_array_add(job->follows, first);
}

GPtrArray *batch_jobs(Batch *batch)
{
    return batch->jobs;
}

static uint64_t available_memory(void)
{
    g_autofree char *text = NULL;
    const char *line;

    if (!g_file_get_contents("/proc/meminfo", &text, NULL, NULL))
        return 0;
    line = strstr(text, "MemAvailable:");
    return line ? strtoull(line + strlen("MemAvailable:"), NULL, 10) << 10 : 0;
}

static unsigned decide_parallel(unsigned wanted)
{
    unsigned by_memory = (unsigned)MIN(available_memory() / JOB_MEMORY, 64), limit = MIN(g_get_num_processors(), by_memory);

    limit = MAX(limit, 1);
    return wanted ? MIN(wanted, MAX(by_memory, 1)) : limit;
}

static gpointer job_thread(gpointer data)
{
    BatchJob *job = data;
    gint64 start = g_get_monotonic_time();
    g_autoptr(Store) store = NULL;

    if (store_open(job->batch->store_dir, 0, &store, &job->error))
        (void)job->batch->ops.run(job, store, &job->error);
    job->seconds = (double)(g_get_monotonic_time() - start) / 1e6;
    g_async_queue_push(job->batch->ended, job);
    return NULL;
}

static void skip(BatchJob *job, GError *why)
{
    job->state = BATCH_SKIPPED;
    job->error = why;
    if (job->batch->ops.done)
        job->batch->ops.done(job, job->batch->ops.arg);
}

/* Ready: all needs done. A need that failed skips the job, and with it those that need it. */
static bool is_ready(BatchJob *job)
{
    GError *why = NULL;

    for (guint i = 0; i < job->follows->len; i++) {
        const BatchJob *first = job->follows->pdata[i];

        if (first->state == BATCH_WAITING || first->state == BATCH_RUNNING)
            return false;
    }
    for (guint i = 0; i < job->needs->len; i++) {
        const BatchJob *need = job->needs->pdata[i];

        if (need->state == BATCH_FAILED || need->state == BATCH_SKIPPED) {
            fail(&why, "skipped: it needs '%s', which %s", need->name, need->state == BATCH_FAILED ? "failed" : "was skipped");
            skip(job, why);
            return false;
        }
        if (need->state != BATCH_DONE)
            return false;
    }
    return true;
}

static void start_ready(Batch *batch, unsigned parallel)
{
    for (guint i = 0; i < batch->jobs->len; i++) {
        BatchJob *job = batch->jobs->pdata[i];
        GError *why = NULL;

        if (job->state != BATCH_WAITING)
            continue;
        if (!interrupt_check(&why)) {
            skip(job, why);
            continue;
        }
        if (batch->running >= parallel || !is_ready(job))
            continue;
        job->state = BATCH_RUNNING;
        batch->running++;
        job->thread = g_thread_new("bake", job_thread, job);
    }
}

static void take_ended(Batch *batch)
{
    BatchJob *job = g_async_queue_pop(batch->ended);

    g_thread_join(job->thread);
    batch->running--;
    job->state = job->error ? BATCH_FAILED : BATCH_DONE;
    if (batch->ops.done)
        batch->ops.done(job, batch->ops.arg);
}

/* Depth first; @marks: 1 on the way, 2 fine. */
static bool check_order(BatchJob *job, GHashTable *marks, GError **error)
{
    int mark = GPOINTER_TO_INT(g_hash_table_lookup(marks, job));

    if (mark == 2)
        return true;
    if (mark == 1)
        return fail_code(error, KILN_ERROR_USAGE, "'%s' needs itself, directly or through others", job->name);
    g_hash_table_insert(marks, job, GINT_TO_POINTER(1));
    for (guint i = 0; i < job->needs->len; i++)
        if (!check_order(job->needs->pdata[i], marks, error))
            return false;
    for (guint i = 0; i < job->follows->len; i++)
        if (!check_order(job->follows->pdata[i], marks, error))
            return false;
    g_hash_table_insert(marks, job, GINT_TO_POINTER(2));
    return true;
}

static unsigned count(const Batch *batch, unsigned states)
{
    unsigned found = 0;

    for (guint i = 0; i < batch->jobs->len; i++)
        found += (states >> ((BatchJob *)batch->jobs->pdata[i])->state) & 1;
    return found;
}

bool batch_run(Batch *batch, const char *store_dir, unsigned parallel, GError **error)
{
    g_autoptr(GHashTable) marks = g_hash_table_new(NULL, NULL);

    for (guint i = 0; i < batch->jobs->len; i++)
        if (!check_order(batch->jobs->pdata[i], marks, error))
            return false;
    batch->store_dir = store_dir;
    parallel = decide_parallel(parallel);
    for (;;) {
        unsigned waiting = count(batch, 1u << BATCH_WAITING);

        start_ready(batch, parallel);
        if (batch->running > 0)
            take_ended(batch);
        else if (count(batch, 1u << BATCH_WAITING) == 0)
            return true;
        else
            g_assert(count(batch, 1u << BATCH_WAITING) < waiting); /* without circles somebody was skipped */
    }
}

unsigned batch_failures(Batch *batch)
{
    return count(batch, 1u << BATCH_FAILED | 1u << BATCH_SKIPPED);
}
