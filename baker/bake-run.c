/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run: one guest session for all steps behind the cached prefix.
 *
 * After every good step the working disk is sealed, captured into the store and its content digest
 * taken, so that a failed or killed bake starts again after its last good step. When what is
 * left turns out to be cached (a step gave the tree it always gave), the session ends there.
 */
#include "baker/bake-walk.h"

#include "baker/host-step.h"
#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/scope.h"
#include "base/units.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long a result that depends on the network counts, when the template does not say. */
#define REFRESH_DEFAULT "24h"

static void say(const char *line, bool is_stderr, void *arg)
{
    BakeSession *session = arg;
    g_autofree char *clean = printable_line(line);

    log_info("    %s: %s", session->step->label, clean);
}

static bool read_tree_path(const char *path, size_t max, GBytes **ret, void *arg, GError **error)
{
    BakeSession *session = arg;
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp(NULL, &name, NULL);
    bool ok;

    if (fd < 0)
        return fail_errno(error, "make a temporary file");
    *ret = NULL;
    ok = session->guest->ops->get(session->guest, path, fd, max, error);
    if (ok)
        ok = file_load(AT_FDCWD, name, max, ret, error);
    (void)close(fd);
    (void)unlink(name);
    return ok;
}

static bool open_blob(const Digest *digest, int *ret_fd, void *arg, GError **error)
{
    BakeSession *session = arg;
    auto_fd int fd = -1;

    if (!store_open_unnamed(session->chain->store, &fd, error) ||
        !store_blob_copy(session->chain->store, digest, fd, error))
        return false;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return fail_errno(error, "rewind a blob");
    *ret_fd = g_steal_fd(&fd);
    return true;
}

bool bake_needs_guest(const BakeChain *chain, const BakeStep *step)
{
    if (step->ops && step->ops->stops)
        return chain->options->interactive && step->ops->stops(step->block->args);
    return !step->ops || step->ops->needs_guest;
}

/* Nothing reached: the result depends on nothing outside, and counts for as long as the step's inputs do. */
static void note_reached(BakeStep *step, Guest *guest)
{
    const GPtrArray *reached = step->network && guest->ops->reached ? guest->ops->reached(guest) : NULL;

    g_clear_pointer(&step->reached, json_decref);
    if (!reached)
        return;
    step->reached = json_array();
    for (guint i = 0; i < reached->len; i++) {
        json_array_append_new(step->reached, json_string_nocheck(reached->pdata[i]));
        log_verbose("    %s: reached %s", step->label, (const char *)reached->pdata[i]);
    }
    if (reached->len == 0)
        step->is_volatile = step->outside;
}

static bool run_in_guest(BakeSession *session, void *host, GError **error)
{
    const BakeStep *step = session->step;

    return step->block ? step->ops->run(step->block->args, host, session->guest, error)
                       : provisioner_sysprep(host, bake_volatile_paths(session->chain), session->guest, error);
}

bool bake_session_run(BakeSession *session, GError **error)
{
    BakeStep *step = session->step;
    Guest *guest = session->guest;
    ProvisionerHost host = bake_host(session->chain, step);
    double timeout = step->block && !step->ops->stops ? step->block->timeout : 0; /* nobody looks around against the clock */
    GuestStep begin = {.name = step->label, .network = step->network, .booted = step->block && bake_is_packers(session->chain->build), .clock = session->chain->epoch,
                       .clock_ahead = session->chain->options->around.clock_ahead,
                       .timeout = timeout, .on_line = say, .arg = session};
    bool ok;

    host.say = say;
    host.arg = session;
    host.deadline = timeout > 0 ? g_get_monotonic_time() + (int64_t)(timeout * G_USEC_PER_SEC) : 0;
    host.read_tree = guest ? read_tree_path : NULL;
    host.transaction = step->transaction;
    host.open_blob = open_blob;
    host.shell = session->chain->options->interactive ? bake_stop_shell : NULL;
    if (!bake_needs_guest(session->chain, step))
        return step->ops->run(step->block->args, &host, NULL, error);
    ok = bake_session_in_step(session, &begin, run_in_guest, &host, error);
    note_reached(step, guest);
    return ok;
}

static bool seal_disk(void *arg, GError **error)
{
    return working_disk_seal(arg, error);
}

bool bake_session_pause(const BakeStep *step, GError **error)
{
    double seconds = step->block ? step->block->pause_before : 0;
    gint64 until = g_get_monotonic_time() + (gint64)(seconds * 1e6);
    g_autofree char *text = units_format_duration(seconds);

    if (seconds > 0)
        log_info("    %s: pausing for %s", step->label, text);
    while (g_get_monotonic_time() < until) {
        if (!interrupt_check(error))
            return false;
        g_usleep(50000);
    }
    return true;
}

/* A retry starts from the state before the step, not from what the failed try left; it pauses anew and has the whole limit again. */
static bool run_with_retries(BakeSession *session, size_t index, GError **error)
{
    const BakeStep *step = session->step;
    int retries = step->block ? step->block->max_retries : 0;

    for (int attempt = 0;; attempt++) {
        g_autoptr(GError) problem = NULL;

        if (!bake_session_pause(step, error) || (bake_needs_guest(session->chain, step) && !bake_session_clean(session, index, error)))
            return false;
        if (bake_session_run(session, &problem))
            return true;
        if (attempt >= retries || interrupt_requested()) {
            g_propagate_error(error, g_steal_pointer(&problem));
            return false;
        }
        log_warning("%s: %s; trying again (%d of %d)", step->label, problem->message, attempt + 1, retries);
    }
}

static int64_t expiry(const BakeStep *step)
{
    const char *refresh = step->block && step->block->refresh ? step->block->refresh : REFRESH_DEFAULT;
    double seconds;

    if (!step->is_volatile || g_str_equal(refresh, "never") || !units_parse_duration(refresh, &seconds, NULL))
        return 0;
    return (int64_t)time(NULL) + (int64_t)seconds;
}

static bool remember(BakeChain *chain, BakeStep *step, GError **error)
{
    g_autoptr(StoreState) state = store_state_new();

    if (chain->options->unpublished)
        return true;
    bake_note_run(step, (int64_t)time(NULL));
    state->key = step->key;
    state->content = step->content;
    state->map = step->map;
    state->expires = expiry(step);
    return store_state_put(chain->store, state, error);
}

static bool seal_frozen(BakeSession *session, GError **error)
{
    return session->guest->ops->checkpoint(session->guest, seal_disk, session->disk, error);
}

static bool seal_nothing(void *arg, GError **error)
{
    (void)arg, (void)error;
    return true;
}

/*
 * The last state of a vendor's disk is what its next machine finds. Frozen is not enough there: vfat, ext2 and ext4 without
 * a journal say "in use" until they are unmounted. The checkpoint before trims their free space.
 */
static bool seal_unmounted(BakeSession *session, GError **error)
{
    Guest *guest = session->guest;

    if (!guest->ops->checkpoint(guest, seal_nothing, NULL, error))
        return false;
    session->guest = NULL; /* freed by the shutdown, whether it succeeds or not */
    return guest->ops->shutdown(guest, error) && working_disk_seal(session->disk, error);
}

static void change_nothing(BakeChain *chain, size_t index)
{
    BakeStep *step = chain->steps->pdata[index];

    step->content = *bake_content_before(chain, index);
    step->map = *bake_map_before(chain, index);
}

static bool capture(BakeSession *session, size_t index, GError **error)
{
    BakeChain *chain = session->chain;
    BakeStep *step = session->step;
    bool last = index + 1 == chain->steps->len && chain->state.layout == LAYOUT_INPLACE;
    uint64_t added = 0;

    if (!bake_needs_guest(chain, step)) {
        change_nothing(chain, index);
        return !host_step_is_declared(step) || host_step_remember(chain, step, error);
    }
    if ((session->walks && !(last ? bake_walk_read(session, error) : bake_walk_outline(session, error))) ||
        !(last ? seal_unmounted(session, error) : seal_frozen(session, error)))
        return fail_prefix(error, "keep the state after '%s'", step->label);
    trace("bake.run", "%s: sealed", step->label);
    session->sealed = true;
    if (!working_disk_capture(session->disk, &step->map, &added, error))
        return fail_prefix(error, "keep the state after '%s'", step->label);
    if (session->walks && !bake_walk_captured(session, bake_map_before(chain, index), &step->map, error))
        return fail_prefix(error, "keep the list of files after '%s'", step->label);
    trace("bake.run", "%s: captured", step->label);
    session->at = step->map;
    session->touched = session->sealed = false;
    chain->new_bytes += added;
    if (digest_equal(&step->map, bake_map_before(chain, index)))
        step->content = *bake_content_before(chain, index);
    else if (!bake_content(chain, &step->map, &step->content, error))
        return fail_prefix(error, "read the root after '%s'", step->label);
    trace("bake.run", "%s: content known", step->label);
    return remember(chain, step, error);
}

/* A guest that fails because its disk does knows no better than "I/O error": the disk's own words come first. */
static bool blame_disk(BakeSession *session, GError **error)
{
    g_autoptr(GError) problem = NULL;

    if (session->disk && !interrupt_requested() && !working_disk_check(session->disk, &problem)) {
        g_clear_error(error);
        g_propagate_error(error, g_steal_pointer(&problem));
    }
    return false;
}

/* Before the appliance starts: a package that cannot be had must not cost a launch. */
static bool fetch_packages(BakeSession *session, size_t index, GError **error)
{
    const BakeStep *step = session->step;
    ResolveRequest request;
    g_autofree char *summary = NULL;

    if (!step->transaction)
        return true;
    summary = resolve_summary(step->transaction);
    log_info("    %s: %s", step->label, summary);
    return bake_resolve_request(session->chain, index, &request, error) &&
           resolve_fetch(&request, step->transaction, error);
}

/* The step with all its tries, and its result into the cache. A failure that the template allows changes nothing and is not remembered. */
static bool attempt_step(BakeSession *session, size_t index, GError **error)
{
    const TemplateBlock *block = session->step->block;
    g_autoptr(GError) problem = NULL;

    if (run_with_retries(session, index, &problem)) {
        trace("bake.run", "%s: ran", session->step->label);
        return capture(session, index, error) || blame_disk(session, error);
    }
    if (block && block->continue_on_error && !interrupt_requested()) {
        log_warning("%s: %s; going on as the template says", session->step->label, problem->message);
        change_nothing(session->chain, index);
        return true;
    }
    if (block && g_error_matches(problem, KILN_ERROR, KILN_ERROR_TIMEOUT) && bake_is_packers(session->chain->build))
        (void)fail_code(error, KILN_ERROR_TIMEOUT, "%s; nothing boots in a bake: what waits for a boot, a service or an address waits for ever", problem->message);
    else
        g_propagate_error(error, g_steal_pointer(&problem));
    (void)blame_disk(session, error);
    return fail_prefix(error, "%s: step %zu (%s)", session->chain->build->name, index + 1, session->step->label);
}

static bool run_step(BakeSession *session, size_t index, GError **error)
{
    BakeChain *chain = session->chain;
    gint64 start;
    g_autofree char *took = NULL;

    session->step = chain->steps->pdata[index];
    if (!interrupt_check(error) || !fetch_packages(session, index, error))
        return false;
    if (bake_needs_guest(chain, session->step) && !bake_session_clean(session, index, error))
        return blame_disk(session, error);
    start = g_get_monotonic_time();
    for (;;) {
        g_autoptr(GError) problem = NULL;

        log_info("==> %s: step %zu of %u: %s", chain->build->name, index + 1, chain->steps->len, session->step->label);
        if (attempt_step(session, index, &problem))
            break;
        if (bake_stop_failed(session, index, problem))
            continue;
        if (interrupt_check(error)) /* whoever interrupts a question or a cleanup is told that, not the failure before it */
            g_propagate_error(error, g_steal_pointer(&problem));
        return false;
    }
    session->step->seconds = (double)(g_get_monotonic_time() - start) / 1e6;
    took = units_format_duration(session->step->seconds);
    log_info("    %s done in %s", session->step->label, took);
    return true;
}

/* After a step the next one's key is known: is everything from @index on in the cache? */
static bool rest_is_cached(BakeChain *chain, size_t index, bool *ret, GError **error)
{
    *ret = false;
    for (size_t i = index; i < chain->steps->len; i++) {
        if (!bake_step_lookup(chain, i, error))
            return false;
        if (!((BakeStep *)chain->steps->pdata[i])->cached)
            return true;
    }
    *ret = true;
    return true;
}

/* What is known of step @index now that all before it is. @done: it and everything behind it, so no guest is needed any more. */
static bool look_again(BakeSession *session, size_t index, bool *done, GError **error)
{
    BakeChain *chain = session->chain;
    BakeStep *step = chain->steps->pdata[index];

    if (!rest_is_cached(chain, index, done, error))
        return false;
    /* A known result on another disk is of no use to the guest at hand; a step that changes nothing is. */
    if (!*done && session->guest && !session->touched)
        step->cached = step->cached && digest_equal(&step->map, bake_map_before(chain, index));
    return true;
}

static bool run_steps(BakeSession *session, GError **error)
{
    BakeChain *chain = session->chain;
    bool done = false;

    for (size_t i = 0; i < chain->steps->len; i++) {
        const BakeStep *step = chain->steps->pdata[i];

        if (i >= chain->hits && !done && !look_again(session, i, &done, error))
            return false;
        if (!bake_stop_before(session, i, error))
            return false;
        if (!(step->cached ? bake_stop_at(session, i, error) : run_step(session, i, error)))
            return false;
    }
    return bake_stop_before(session, chain->steps->len, error);
}

bool bake_run(BakeChain *chain, GError **error)
{
    BakeSession session = {.chain = chain};
    bool ok = run_steps(&session, error);

    if (ok && session.guest && !session.touched) {
        /* All that counts is captured; a failing shutdown would still hide a guest that could not write. */
        ok = session.guest->ops->shutdown(session.guest, error) || blame_disk(&session, error);
        session.guest = NULL;
    }
    bake_session_close(&session);
    return ok;
}
