/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln deploy watch: keeps groups as they were applied, and carries on rollouts that wait. It never changes an image by itself.
 */
#include "baker/cli/deploy.h"

#include "base/interrupt.h"

#include <stdio.h>
#include <string.h>

static const double ROUND_PAUSE = 0.5, ROUND_PAUSE_BUSY = 0.05, RETRY_PAUSE = 5; /* seconds */

typedef struct Watched {
    char *name;
    Controller *controller;  /* NULL: another process has the group, it could not be opened, or it has ended */
    Group *ended;            /* a destroyed group, read on in case it is deployed again; NULL: it is not destroyed */
    int64_t retry_at;        /* monotonic microseconds */
    char *last_problem;
    ControllerStep step;
    bool quiet;              /* --once: nothing can be done now */
} Watched;

static void watched_free(gpointer data)
{
    Watched *watched = data;

    controller_close(watched->controller);
    group_free(watched->ended);
    g_free(watched->last_problem);
    g_free(watched->name);
    g_free(watched);
}

/* Told once, until it is another sentence. */
static void note_problem(Watched *watched, const GError *error)
{
    if (g_strcmp0(watched->last_problem, error->message) != 0)
        log_warning("%s: %s", watched->name, error->message);
    g_free(watched->last_problem);
    watched->last_problem = g_strdup(error->message);
    watched->retry_at = g_get_monotonic_time() + (gint64)(RETRY_PAUSE * G_USEC_PER_SEC);
    g_clear_pointer(&watched->controller, controller_close);
}

/* Whether there is nothing to watch. What cannot be read is told by who opens it. */
static bool has_ended(Watched *watched, Store *store)
{
    if (watched->ended ? group_refresh(watched->ended, NULL) : group_read(store, watched->name, &watched->ended, NULL))
        if (watched->ended->destroyed)
            return true;
    g_clear_pointer(&watched->ended, group_free);
    return false;
}

static bool ensure_open(Watched *watched, Store *store, const SignatureKey *key)
{
    g_autoptr(GError) error = NULL;

    if (watched->controller)
        return true;
    if (g_get_monotonic_time() < watched->retry_at || has_ended(watched, store))
        return false;
    if (controller_open(store, watched->name, false, &watched->controller, &error)) {
        watched->controller->key = key;
        return true;
    }
    note_problem(watched, error);
    return false;
}

/* True when it did something. A problem of one group is no problem of the others. */
static bool watch_one(Watched *watched, Store *store, const SignatureKey *key)
{
    g_autoptr(GError) error = NULL;

    watched->quiet = true;
    if (!ensure_open(watched, store, key))
        return false;
    if (!controller_step(watched->controller, &watched->step, &error)) {
        note_problem(watched, error);
        return false;
    }
    g_clear_pointer(&watched->last_problem, g_free);
    watched->quiet = watched->step.settled || controller_is_quiet(&watched->step);
    if (watched->controller->group->destroyed)
        g_clear_pointer(&watched->controller, controller_close);
    return watched->step.acted;
}

static bool has(const GPtrArray *list, const char *name)
{
    for (guint i = 0; i < list->len; i++)
        if (strcmp(((Watched *)list->pdata[i])->name, name) == 0)
            return true;
    return false;
}

static void add(GPtrArray *list, const char *name)
{
    Watched *watched;

    if (has(list, name))
        return;
    watched = g_new0(Watched, 1);
    watched->name = g_strdup(name);
    g_ptr_array_add(list, watched);
}

/* Without names: every group that there is, also those that come later. */
static bool find_groups(Store *store, char **names, GPtrArray *list, GError **error)
{
    g_autoptr(GPtrArray) all = NULL;

    for (size_t i = 0; names[i]; i++)
        add(list, names[i]);
    if (names[0])
        return true;
    if (!store_journal_groups(store, &all, error))
        return false;
    for (guint i = 0; i < all->len; i++)
        add(list, all->pdata[i]);
    return true;
}

static void one_round(Store *store, const SignatureKey *key, GPtrArray *list, bool *ret_acted, bool *ret_quiet)
{
    *ret_acted = false;
    *ret_quiet = true;
    for (guint i = 0; i < list->len && !interrupt_requested(); i++) {
        *ret_acted = watch_one(list->pdata[i], store, key) || *ret_acted;
        *ret_quiet = *ret_quiet && ((Watched *)list->pdata[i])->quiet;
    }
}

static double pause_after(const GPtrArray *list, bool acted)
{
    unsigned failures = 0;

    for (guint i = 0; i < list->len; i++) {
        const Watched *watched = list->pdata[i];

        failures = MAX(failures, watched->controller ? watched->controller->failures : 0);
        if (watched->controller && !watched->step.settled && !watched->quiet)
            acted = true;
    }
    return failures > 0 ? MIN(failures * 0.5, 5) : acted ? ROUND_PAUSE_BUSY : ROUND_PAUSE;
}

static void rest(GPtrArray *list, double seconds)
{
    for (guint i = 0; i < list->len; i++) {
        Watched *watched = list->pdata[i];

        if (watched->controller) {
            world_wait(watched->controller->world, seconds);
            return;
        }
    }
    g_usleep((gulong)(seconds * G_USEC_PER_SEC));
}

/* --once: one sentence per group about what could not be done. */
static int tell_once(CliContext *cli, GPtrArray *list)
{
    int status = 0;

    for (guint i = 0; i < list->len; i++) {
        const Watched *watched = list->pdata[i];

        if (!watched->controller && !watched->ended)
            status = 1;
        else if (watched->controller && !cli->json)
            printf("%s %s\n", watched->name, watched->step.settled ? "as applied" : wait_sentence(watched->step.wait));
    }
    return status;
}

int deploy_watch(CliContext *cli, int argc, char **argv)
{
    bool once = false, acted, quiet;
    const CliOption options[] = {{"once", CLI_FLAG, &once}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(watched_free);
    g_autofree char **names = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "deploy watch [--once] [GROUP...]", argc, argv, 0, -1, &names, &error) || !cli_signing_key(NULL, &key, &error) ||
        !cli_open_store(cli, STORE_OPEN_CREATE, &store, &error))
        return cli_fail(cli, error);
    do {
        if (!find_groups(store, names, list, &error))
            return cli_fail(cli, error);
        one_round(store, key, list, &acted, &quiet);
        if (once && !acted && quiet)
            return tell_once(cli, list);
        rest(list, pause_after(list, acted));
    } while (!interrupt_requested());
    return once ? 130 : 0; /* a service is ended by a signal */
}
