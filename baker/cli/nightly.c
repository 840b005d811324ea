/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln nightly: a batch of images to patch; one table, or one JSON document, at its end.
 */
#include "baker/cli/builds.h"

#include "baker/batch.h"
#include "baker/nightly.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>

typedef struct NightlyCall {
    CliContext *cli;
    Builds builds;
    NightlyFile *file;
    const char *parallel;
} NightlyCall;

typedef struct NightlyJob {
    NightlyCall *call;
    const NightlyImage *image;
    NightlyResult result;
} NightlyJob;

static void job_free(gpointer data)
{
    NightlyJob *job = data;

    nightly_result_clear(&job->result);
    g_free(job);
}

static bool run_job(BatchJob *batch_job, Store *store, GError **error)
{
    NightlyJob *job = batch_job->arg;

    return nightly_run(store, job->call->file, job->image, &job->call->builds.options, &job->result, error);
}

static void job_done(BatchJob *batch_job, void *arg)
{
    const NightlyJob *job = batch_job->arg;

    (void)arg;
    if (batch_job->error)
        log_warning("%s: %s", batch_job->name, batch_job->error->message);
    else
        log_info("==> %s: %s%s%s%s", batch_job->name, job->result.unchanged ? "nothing to patch" : "patched",
                 job->result.moved ? ", promoted to " : "", job->result.moved ? job->image->to : "",
                 job->result.removed ? ", older images let go" : "");
}

static const char *state_of(const BatchJob *batch_job)
{
    const NightlyJob *job = batch_job->arg;

    if (batch_job->state == BATCH_SKIPPED)
        return "skipped";
    if (batch_job->error)
        return "failed";
    return job->result.unchanged ? "unchanged" : "patched";
}

static json_t *job_json(const BatchJob *batch_job)
{
    const NightlyJob *job = batch_job->arg;
    json_t *one = json_pack("{s:s, s:s, s:f}", "name", batch_job->name, "state", state_of(batch_job), "seconds", batch_job->seconds);
    json_t *images;

    if (batch_job->error) {
        json_object_set_new(one, "error", json_string_nocheck(batch_job->error->message));
        return one;
    }
    images = json_array();
    for (guint i = 0; i < job->result.bake.images->len; i++)
        json_array_append_new(images, cli_image_json(job->result.bake.images->pdata[i]));
    json_object_set_new(one, "images", images);
    json_object_set(one, "packages", job->result.bake.packages);
    json_object_set_new(one, "new_bytes", json_integer((json_int_t)job->result.bake.new_bytes));
    json_object_set_new(one, "promoted", json_boolean(job->result.moved));
    json_object_set_new(one, "removed", json_integer(job->result.removed));
    return one;
}

static void print_packages(const json_t *packages)
{
    const json_t *one;
    size_t i;

    json_array_foreach (packages, i, one) {
        const char *from = json_string_value(json_object_get(one, "from")), *to = json_string_value(json_object_get(one, "version"));

        printf("    %s %s -> %s\n", json_string_value(json_object_get(one, "name")), from ? from : "(new)", to ? to : "(removed)");
    }
}

static void print_table(Batch *batch)
{
    GPtrArray *jobs = batch_jobs(batch);

    printf("%-24s %-10s %-5s %-71s %s\n", "NAME", "STATE", "KIND", "IMAGE ID", "TIME");
    for (guint i = 0; i < jobs->len; i++) {
        const BatchJob *batch_job = jobs->pdata[i];
        const NightlyJob *job = batch_job->arg;
        g_autofree char *took = units_format_duration(batch_job->seconds);

        if (batch_job->error) {
            printf("%-24s %-10s %s\n", batch_job->name, state_of(batch_job), batch_job->error->message);
            continue;
        }
        for (guint j = 0; j < job->result.bake.images->len; j++) {
            const StoreImage *image = job->result.bake.images->pdata[j];
            char id[DIGEST_OCI_SIZE];

            printf("%-24s %-10s %-5s %-71s %s\n", batch_job->name, state_of(batch_job), image->kind, digest_to_oci(&image->id, id), took);
        }
        print_packages(job->result.bake.packages);
    }
}

static int finish(NightlyCall *call, Batch *batch)
{
    GPtrArray *jobs = batch_jobs(batch);
    json_t *list = json_array();
    bool interrupted = false;

    for (guint i = 0; i < jobs->len; i++) {
        const BatchJob *job = jobs->pdata[i];

        interrupted |= job->error && job->error->code == KILN_ERROR_INTERRUPTED;
        json_array_append_new(list, job_json(job));
    }
    if (call->cli->json)
        (void)cli_print_json(json_pack("{s:i, s:o}", "failed", (int)batch_failures(batch), "images", list));
    else
        print_table(batch);
    if (!call->cli->json)
        json_decref(list);
    return interrupted ? 130 : batch_failures(batch) ? 1 : 0;
}

static bool run(NightlyCall *call, Batch *batch, GPtrArray *jobs, GError **error)
{
    g_autoptr(Store) store = NULL;
    unsigned parallel = 0;

    if (!cli_parse_parallel(call->parallel, &parallel, error) || !cli_open_store(call->cli, STORE_OPEN_CREATE, &store, error))
        return false;
    for (guint i = 0; i < call->file->images->len; i++) {
        const NightlyImage *image = call->file->images->pdata[i];
        NightlyJob *job = g_new0(NightlyJob, 1);

        *job = (NightlyJob){.call = call, .image = image};
        g_ptr_array_add(jobs, job);
        (void)batch_add(batch, image->name, job);
    }
    return batch_run(batch, store_path(store), parallel, error);
}

int verb_nightly(CliContext *cli, int argc, char **argv)
{
    NightlyCall call = {.cli = cli};
    g_autoptr(GPtrArray) jobs = g_ptr_array_new_with_free_func(job_free);
    g_autoptr(Batch) batch = batch_new(&(BatchOps){.run = run_job, .done = job_done});
    g_autofree CliOption *options = NULL;
    g_autofree char **paths = NULL;
    g_autoptr(GError) error = NULL;
    int status = -1;

    builds_init(&call.builds);
    options = builds_options(&call.builds, (CliOption[]){{"parallel-builds", CLI_STRING, &call.parallel},
                                                         BUILDS_CACHE_OPTIONS(&call.builds),
                                                         {"cache-to", CLI_STRING, &call.builds.cache.to},
                                                         {NULL, CLI_FLAG, NULL}});
    if (cli_parse(options, "nightly [OPTIONS] FILE", argc, argv, 1, 1, &paths, &error) && builds_prepare(&call.builds, &error) &&
        nightly_load(paths[0], &call.builds.template_options, &call.file, &error) && run(&call, batch, jobs, &error))
        status = finish(&call, batch);
    g_clear_pointer(&call.file, nightly_file_free);
    builds_report_cache(&call.builds, NULL);
    builds_clear(&call.builds);
    return status >= 0 ? status : cli_fail(cli, error);
}
