/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches: several jobs over one store, each in a thread of its own, in the order their needs allow.
 *
 *   batch_new -> batch_add, batch_need, batch_follow -> batch_run -> read the jobs -> batch_free
 *
 * One job's failure never stops another; jobs that need the failed one are skipped. What is running when the user interrupts
 * ends by itself, what waits is skipped. A killed batch needs no journal of its own: every finished bake is published and every
 * good step cached, so the same batch run again continues.
 */
#ifndef KILN_BAKER_BATCH_H
#define KILN_BAKER_BATCH_H

#include "store/store.h"

typedef enum BatchState { BATCH_WAITING, BATCH_RUNNING, BATCH_DONE, BATCH_FAILED, BATCH_SKIPPED } BatchState;

typedef struct Batch Batch;

typedef struct BatchJob {
    char *name;
    void *arg;         /* the caller's */
    BatchState state;
    GError *error;     /* failed or skipped: why */
    double seconds;
    Batch *batch;
    GThread *thread;
    GPtrArray *needs;  /* of BatchJob*, borrowed */
    GPtrArray *follows; /* the same; it only waits for their end */
} BatchJob;

/* @run works in a thread of its own with a store handle of its own; @done is told of each job, in the caller's thread. */
typedef struct BatchOps {
    bool (*run)(BatchJob *job, Store *store, GError **error);
    void (*done)(BatchJob *job, void *arg);
    void *arg;
} BatchOps;

Batch *batch_new(const BatchOps *ops);
BatchJob *batch_add(Batch *batch, const char *name, void *arg);
void batch_need(BatchJob *job, BatchJob *needed);
/* @job starts when @first has ended, well or not. */
void batch_follow(BatchJob *job, BatchJob *first);
GPtrArray *batch_jobs(Batch *batch); /* of BatchJob*, borrowed, in the order they were added */

/*
 * Runs all jobs, at most @parallel at once (0: as many as processors and free memory allow). An error means that nothing was run:
 * jobs that need each other. Whether jobs failed is in their states.
 */
bool batch_run(Batch *batch, const char *store_dir, unsigned parallel, GError **error);
unsigned batch_failures(Batch *batch); /* failed and skipped jobs */
void batch_free(Batch *batch);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Batch, batch_free)

#endif
