/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln bake (also: build): bakes every build of the named templates, as a batch.
 *
 * A build whose source is another build's image waits for it. One build's failure stops only those that need it.
 */
#include "baker/cli/builds.h"

#include "baker/batch.h"
#include "baker/outdated.h"
#include "base/mask.h"
#include "base/printable.h"
#include "base/terminal.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct BakeCall {
    CliContext *cli;
    Builds builds;
    const char *parallel;
    bool outdated;     /* only what images --outdated would list, when its turn comes */
    json_t *artifacts; /* for --json */
    json_t *bakes;
} BakeCall;

typedef struct BakeJob {
    BakeCall *call;
    Template *template;
    const TemplateBuild *build;
    BakeResult result;
    char *skipped; /* why nothing was to be done at all */
} BakeJob;

static void job_free(gpointer data)
{
    BakeJob *job = data;

    bake_result_clear(&job->result);
    g_free(job->skipped);
    g_free(job);
}

static bool run_job(BatchJob *batch_job, Store *store, GError **error)
{
    BakeJob *job = batch_job->arg;
    g_autofree char *why = NULL;

    if (job->call->outdated) {
        if (!outdated_why_build(store, job->build, &job->call->builds.options, &why, error))
            return false;
        if (!why) {
            job->skipped = g_strdup("up to date");
            return true;
        }
        log_info("==> %s: outdated: %s", job->build->name, why);
    }
    return bake_build(store, job->template, job->build, &job->call->builds.options, &job->result, error);
}

static void print_summary(const TemplateBuild *build, const BakeResult *result)
{
    g_autofree char *took = units_format_duration(result->seconds), *added = units_format_size(result->new_bytes);

    log_info("==> %s: %s in %s, %s added to the store", build->name,
             result->cached ? "nothing to do, everything is known" : "done", took, added);
    for (guint i = 0; i < result->images->len; i++) {
        const StoreImage *image = result->images->pdata[i];
        g_autofree char *size = units_format_size(image->size), *fresh = units_format_size(image->new_bytes);
        char id[DIGEST_OCI_SIZE];

        log_info("    %-5s %s  %s, %s new", image->kind, digest_to_oci(&image->id, id), size, fresh);
    }
}

static void report_images(BakeCall *call, const TemplateBuild *build, const BakeResult *result)
{
    for (guint i = 0; i < result->images->len; i++) {
        const StoreImage *image = result->images->pdata[i];
        char id[DIGEST_OCI_SIZE];

        if (call->cli->json)
            json_array_append_new(call->artifacts, cli_image_json(image));
        else
            printf("%s %s %s\n", build->name, image->kind, digest_to_oci(&image->id, id));
    }
    fflush(stdout);
}

static void job_done(BatchJob *batch_job, void *arg)
{
    BakeCall *call = arg;
    const BakeJob *job = batch_job->arg;
    json_t *one = json_pack("{s:s, s:f}", "name", batch_job->name, "seconds", batch_job->seconds);

    json_array_append_new(call->bakes, one);
    if (batch_job->error) {
        json_object_set_new(one, "error", json_string_nocheck(batch_job->error->message));
        return;
    }
    if (job->skipped) {
        log_info("==> %s: %s", batch_job->name, job->skipped);
        json_object_set_new(one, "skipped", json_string(job->skipped));
        return;
    }
    print_summary(job->build, &job->result);
    report_images(call, job->build, &job->result);
    json_object_set_new(one, "new_bytes", json_integer((json_int_t)job->result.new_bytes));
    json_object_set_new(one, "cached", json_boolean(job->result.cached));
    json_object_set(one, "steps", job->result.steps);
}

static BatchJob *find_job(Batch *batch, const char *name)
{
    GPtrArray *jobs = batch_jobs(batch);

    for (guint i = 0; name && i < jobs->len; i++)
        if (strcmp(((BatchJob *)jobs->pdata[i])->name, name) == 0)
            return jobs->pdata[i];
    return NULL;
}

static bool add_jobs(BakeCall *call, Batch *batch, GPtrArray *jobs, GError **error)
{
    for (guint i = 0; i < call->builds.templates->len; i++) {
        GPtrArray *list = template_builds(call->builds.templates->pdata[i]);

        for (guint j = 0; j < list->len; j++) {
            const TemplateBuild *build = list->pdata[j];
            BakeJob *job = g_new0(BakeJob, 1);

            *job = (BakeJob){.call = call, .template = call->builds.templates->pdata[i], .build = build};
            g_ptr_array_add(jobs, job);
            if (find_job(batch, build->name))
                return fail_code(error, KILN_ERROR_USAGE, "two builds of this batch are named '%s'; choose one with -only or -except",
                                 build->name);
            (void)batch_add(batch, build->name, job);
        }
    }
    return true;
}

static bool has_no_guest(const TemplateBuild *build)
{
    return !build->rebase && (strcmp(build->source->type, "null") == 0 || strcmp(build->source->type, "file") == 0);
}

/* Packer's templates make on the host, in a build of their own, what others read (a seed's ISO): beside the others, and in time as those boot first. */
static bool prepares(const BakeJob *first, const BakeJob *job)
{
    return first->template == job->template && has_no_guest(first->build) && !has_no_guest(job->build);
}

static void add_needs(Batch *batch)
{
    GPtrArray *jobs = batch_jobs(batch);

    for (guint i = 0; i < jobs->len; i++) {
        BatchJob *job = jobs->pdata[i];
        g_autofree char *parent = bake_parent_name(((BakeJob *)job->arg)->build);
        BatchJob *needed = find_job(batch, parent);

        if (needed)
            batch_need(job, needed);
        for (guint j = 0; j < jobs->len; j++)
            if (prepares(((BatchJob *)jobs->pdata[j])->arg, job->arg))
                batch_follow(job, jobs->pdata[j]);
    }
}

/* A question on the terminal, and a shell, want it for themselves: then one build runs at a time. */
static bool check_stops(BakeCall *call, GPtrArray *jobs, unsigned *parallel, GError **error)
{
    const BakeOptions *options = &call->builds.options;

    if (options->shell_at && jobs->len > 1)
        return fail_code(error, KILN_ERROR_USAGE, "--shell-at is for one build, and there are %u; choose one with -only", jobs->len);
    for (guint i = 0; i < jobs->len; i++) {
        const TemplateBuild *build = ((BakeJob *)jobs->pdata[i])->build;

        if (options->shell_at && !bake_check_step(build, options->shell_at, error))
            return false;
        if (bake_may_stop(build, options))
            *parallel = 1;
    }
    return true;
}

/* What a script's shell prints is a result; the document of --json has standard output for itself. */
static void print_shell_line(const char *line, bool is_stderr, void *arg)
{
    g_autofree char *clean = isatty(is_stderr ? STDERR_FILENO : STDOUT_FILENO) ? printable_line(line) : g_strdup(line);
    g_autofree char *text = mask_text(clean);
    FILE *out = is_stderr ? stderr : stdout;

    (void)fprintf(out, "%s\n", text);
    (void)fflush(out);
}

static void look_for_somebody(BakeCall *call)
{
    BakeOptions *options = &call->builds.options;

    options->interactive = terminal_is_here();
    options->shell_line = call->cli->json ? NULL : print_shell_line;
    if (!options->interactive && g_strcmp0(options->on_error, "ask") == 0)
        log_warning("-on-error=ask finds no terminal to ask on; a failure is treated as with -on-error=cleanup");
}

/* What went wrong, again, at the end where it is seen; with one job the error itself is the verb's. */
static bool tell_failures(Batch *batch, GError **error)
{
    GPtrArray *jobs = batch_jobs(batch);
    unsigned failures = batch_failures(batch);

    if (failures == 0)
        return true;
    for (guint i = 0; i < jobs->len; i++) {
        BatchJob *job = jobs->pdata[i];

        if (job->error && (jobs->len == 1 || error_exit_status(job->error) == 130)) {
            g_propagate_error(error, g_steal_pointer(&job->error));
            return false;
        }
        if (job->error)
            log_warning("%s: %s", job->name, job->error->message);
    }
    return fail(error, "%u of %u bakes failed", failures, jobs->len);
}

static bool run(BakeCall *call, char **paths, GError **error)
{
    g_autoptr(GPtrArray) jobs = g_ptr_array_new_with_free_func(job_free);
    g_autoptr(Batch) batch = batch_new(&(BatchOps){.run = run_job, .done = job_done, .arg = call});
    g_autoptr(Store) store = NULL;
    unsigned parallel = 0;

    look_for_somebody(call);
    if (!cli_parse_parallel(call->parallel, &parallel, error) || !builds_load(&call->builds, paths, error) ||
        !add_jobs(call, batch, jobs, error) || !check_stops(call, jobs, &parallel, error))
        return false;
    if (!cli_open_store(call->cli, STORE_OPEN_CREATE, &store, error))
        return false;
    add_needs(batch);
    return batch_run(batch, store_path(store), parallel, error) && tell_failures(batch, error);
}

static bool check_on_error(const char *text, GError **error)
{
    static const char *const known[] = {"cleanup", "abort", "ask", "run-cleanup-provisioner", NULL};

    return !text || g_strv_contains(known, text) ||
           fail_code(error, KILN_ERROR_USAGE, "-on-error takes cleanup, abort, ask or run-cleanup-provisioner, not '%s'", text);
}

int verb_bake(CliContext *cli, int argc, char **argv)
{
    g_autoptr(json_t) artifacts = json_array(), bakes = json_array(), document = json_pack("{s:O, s:O}", "artifacts", artifacts, "bakes", bakes);
    BakeCall call = {.cli = cli, .artifacts = artifacts, .bakes = bakes};
    BakeOptions *options = &call.builds.options;
    g_autofree CliOption *all = NULL;
    g_autofree char **paths = NULL;
    g_autoptr(GError) error = NULL;
    bool ignored = false, ok;

    builds_init(&call.builds);
    all = builds_options(&call.builds, (CliOption[]){{"no-cache", CLI_FLAG, &options->no_cache},
                                                     BUILDS_CACHE_OPTIONS(&call.builds),
                                                     {"cache-to", CLI_STRING, &call.builds.cache.to},
                                                     {"lock", CLI_STRING, &options->lock},
                                                     {"outdated", CLI_FLAG, &call.outdated},
                                                     {"on-error", CLI_STRING, &options->on_error},
                                                     {"shell-at", CLI_STRING, &options->shell_at},
                                                     {"parallel-builds", CLI_STRING, &call.parallel},
                                                     {"force", CLI_FLAG, &ignored},
                                                     {"color", CLI_FLAG, &ignored},
                                                     {"timestamp-ui", CLI_FLAG, &ignored},
                                                     {"warn-on-undeclared-var", CLI_FLAG, &ignored},
                                                     {"ignore-prerelease-plugins", CLI_FLAG, &ignored},
                                                     {"use-sequential-evaluation", CLI_FLAG, &ignored},
                                                     {"skip-enforcement", CLI_FLAG, &ignored},
                                                     {NULL, CLI_FLAG, NULL}});
    ok = cli_parse(all, "bake [OPTIONS] TEMPLATE...", argc, argv, 1, -1, &paths, &error) &&
         check_on_error(options->on_error, &error) && run(&call, paths, &error);
    builds_report_cache(&call.builds, document);
    builds_clear(&call.builds);
    if (!ok && json_array_size(bakes) < 2)
        return cli_fail(cli, error);
    if (cli->json)
        (void)cli_print_json(json_incref(document));
    cli->json = false; /* the document above tells each failure */
    return ok ? 0 : cli_fail(cli, error);
}
