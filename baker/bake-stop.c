/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a bake stops for somebody: a shell in the guest before a step, breakpoints, and the question after a step failed; and what runs then
 * without anybody, the error-cleanup-provisioner.
 *
 * Whatever is written in such a place is in the guest and nowhere else: the session is "touched", and before anything is kept
 * it is rolled back or thrown away.
 */
#include "baker/bake-run.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/terminal.h"

#include <string.h>
#include <unistd.h>

#define HANG_UP 0x1d /* Ctrl-], as telnet and virsh have it */

/* --- a shell --- */

static char **shell_environment(const BakeChain *chain, bool terminal)
{
    const char *term = g_getenv("TERM");
    char **env = g_strdupv(chain->env);

    return terminal && term ? g_environ_setenv(env, "TERM", term, TRUE) : env;
}

/* @arg: whether the cursor stands in a line. */
static void show(const void *data, size_t size, void *arg)
{
    if (size > 0)
        *(bool *)arg = ((const char *)data)[size - 1] != '\n';
    (void)file_write_full(STDERR_FILENO, data, size, "the terminal", NULL); /* one that is gone hangs up by itself */
}

static void window(unsigned *ret_rows, unsigned *ret_columns, void *arg)
{
    terminal_size(ret_rows, ret_columns);
}

static void shell_line(const char *line, bool is_stderr, void *arg)
{
    const BakeOptions *options = ((BakeSession *)arg)->chain->options;
    g_autofree char *clean = printable_line(line);

    if (options->shell_line)
        options->shell_line(line, is_stderr, NULL);
    else
        log_info("    shell: %s", clean);
}

/* In the open step: on the terminal where somebody sits at one, else fed from standard input. */
static bool run_shell(BakeSession *session, void *arg, GError **error)
{
    Guest *guest = session->guest;
    bool terminal = session->chain->options->interactive, in_line = false, ok;
    g_auto(GStrv) env = shell_environment(session->chain, terminal);
    GuestShell shell = {.terminal = terminal, .env = (const char *const *)env, .in = STDIN_FILENO, .resized = -1,
                        .hang_up = HANG_UP, .window = terminal ? window : NULL, .write = show, .arg = &in_line};
    int code = 0;

    if (!guest->ops->shell)
        return fail(error, "this guest has no shell to offer");
    if (terminal && !terminal_take(error))
        return false;
    if (terminal)
        shell.resized = terminal_resized();
    ok = guest->ops->shell(guest, &shell, &code, error);
    if (in_line)
        show("\r\n", 2, &in_line);
    if (terminal)
        terminal_give_back();
    if (ok && code != 0 && !terminal)
        log_warning("the shell ended with exit code %d", code);
    return ok || fail_prefix(error, "shell in the guest");
}

static void announce(const BakeSession *session, const char *why)
{
    log_info("==> %s: %s: a shell in the guest; what it writes is not kept%s", session->chain->build->name, why,
             session->chain->options->interactive ? "; 'exit' or Ctrl-] ends it" : "");
}

bool bake_stop_shell(const char *why, void *arg, GError **error)
{
    BakeSession *session = arg;

    announce(session, why);
    return run_shell(session, NULL, error);
}

/* In a step made for it, with the environment of @session->step. */
static bool shell_step(BakeSession *session, const char *why, GError **error)
{
    GuestStep begin = {.name = "the shell",
                       .network = session->step && session->step->network && session->network,
                       .clock = session->chain->epoch,
                       .on_line = shell_line,
                       .arg = session};

    announce(session, why);
    return bake_session_in_step(session, &begin, run_shell, NULL, error);
}

/* --- places to stop at --- */

bool bake_stops(const BakeChain *chain)
{
    for (guint i = 0; i < chain->steps->len; i++) {
        const BakeStep *step = chain->steps->pdata[i];

        if (step->ops && step->ops->stops)
            return true;
    }
    return chain->shell_at != SIZE_MAX;
}

bool bake_stop_before(BakeSession *session, size_t index, GError **error)
{
    BakeChain *chain = session->chain;
    g_autofree char *why = NULL;

    if (chain->shell_at != index)
        return true;
    session->step = index < chain->steps->len ? chain->steps->pdata[index] : NULL;
    why = session->step ? g_strdup_printf("before step %zu (%s)", index + 1, session->step->label) : g_strdup("after the last step");
    return bake_session_clean(session, index, error) && shell_step(session, why, error);
}

bool bake_stop_at(BakeSession *session, size_t index, GError **error)
{
    BakeChain *chain = session->chain;
    BakeStep *step = chain->steps->pdata[index];

    if (!step->ops || !step->ops->stops)
        return true;
    session->step = step;
    if (bake_needs_guest(chain, step) && !bake_session_clean(session, index, error))
        return false;
    return bake_session_run(session, error) ||
           fail_prefix(error, "%s: step %zu (%s)", chain->build->name, index + 1, step->label);
}

/* --- after a failure --- */

static bool try_cleanup(BakeSession *session, size_t index, GError **error)
{
    const BakeStep *step = session->step;

    if (!bake_session_pause(step, error))
        return false;
    /* The guest as the failed step left it. Where only the host had work so far there is none yet. */
    if (!session->guest && bake_needs_guest(session->chain, step) && !bake_session_clean(session, index, error))
        return false;
    return bake_session_run(session, error);
}

/* Its failure is told and changes nothing: the bake has failed already. */
static void clean_up(BakeSession *session, size_t index)
{
    BakeStep *failed = session->step, *step = session->chain->cleanup;
    int tries = step ? step->block->max_retries + 1 : 0;
    bool done = false;

    session->step = step;
    for (int i = 0; i < tries && !done && !interrupt_requested(); i++) {
        g_autoptr(GError) problem = NULL;

        log_info("==> %s: error-cleanup-provisioner: %s", session->chain->build->name, step->label);
        done = try_cleanup(session, index, &problem);
        if (!done)
            log_warning("error-cleanup-provisioner: %s", problem->message);
    }
    session->step = failed;
}

static void say_where(const BakeSession *session, size_t index)
{
    log_info("    nothing of step %zu is kept; the next bake starts again there (--shell-at %zu opens a shell in the state before it)",
             index + 1, index + 1);
}

/* In what the failed step left; where it had no guest, in the state before it. */
static void look(BakeSession *session, size_t index)
{
    g_autoptr(GError) problem = NULL;
    g_autofree char *why = g_strdup_printf("as step %zu (%s) left it", index + 1, session->step->label);

    if ((session->guest || bake_session_clean(session, index, &problem)) && shell_step(session, why, &problem))
        return;
    if (!interrupt_requested())
        log_warning("%s", problem->message);
}

/* True: try again. */
static bool ask(BakeSession *session, size_t index, const GError *failure)
{
    char answer = 's';

    log_warning("%s", failure->message);
    while (answer == 's') {
        g_autoptr(GError) interrupted = NULL;

        if (!terminal_ask("[c] clean up and exit, [a] abort without cleanup, [r] retry the step from a clean state, "
                          "[s] shell in the guest as the step left it: ", "cars", &answer, &interrupted))
            return false;
        if (answer == 's')
            look(session, index);
        if (interrupt_requested())
            return false;
    }
    if (answer == 'c')
        clean_up(session, index);
    if (answer != 'r')
        say_where(session, index);
    return answer == 'r';
}

bool bake_stop_failed(BakeSession *session, size_t index, const GError *problem)
{
    const BakeOptions *options = session->chain->options;

    if (interrupt_requested())
        return false;
    if (options->interactive && g_strcmp0(options->on_error, "ask") == 0)
        return ask(session, index, problem);
    if (g_strcmp0(options->on_error, "abort") != 0)
        clean_up(session, index);
    say_where(session, index);
    return false;
}
