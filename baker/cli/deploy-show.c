/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln deploy status, history, drift: reports as text.
 */
#include "baker/cli/deploy.h"

#include "base/interrupt.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t int_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static char *short_id(const json_t *object, const char *key)
{
    const char *id = json_text(object, key);

    return g_strndup(g_str_has_prefix(id, "sha256:") ? id + 7 : id, 12);
}

static char *age_of(const json_t *object, const char *key)
{
    double since = json_number_value(json_object_get(object, key));

    return since > 0 ? units_format_duration(MAX((double)g_get_real_time() / G_USEC_PER_SEC - since, 0)) : g_strdup("-");
}

/* --- all groups --- */

static void print_group_line(const json_t *group)
{
    g_autofree char *id = short_id(group, "image"), *age = age_of(group, "since");
    const char *channel = json_text(group, "channel");
    bool behind = json_is_true(json_object_get(group, "behind"));

    printf("%-20s %4" G_GINT64_FORMAT "  %-8s r%-4" G_GINT64_FORMAT " %-14s %-24s %-7s %-10s %s\n", json_text(group, "group"), int_of(group, "size"), json_text(group, "phase"),
           int_of(group, "revision"), *id ? id : "-", *channel ? channel : "-", *channel ? behind ? "behind" : "current" : "-", age, json_text(group, "outcome"));
    if (behind && *json_text(group, "behind_why"))
        printf("  the channel's image was rolled back here: %s\n", json_text(group, "behind_why"));
}

static int status_all(CliContext *cli, Store *store)
{
    g_autoptr(GPtrArray) names = NULL;
    g_autoptr(json_t) list = json_array();
    g_autoptr(GError) error = NULL;

    if (!store_journal_groups(store, &names, &error))
        return cli_fail(cli, error);
    if (!cli->json)
        printf("%-20s %4s  %-8s %-5s %-14s %-24s %-7s %-10s %s\n", "GROUP", "SIZE", "PHASE", "REV", "IMAGE", "CHANNEL", "", "AGE", "LAST");
    for (guint i = 0; i < names->len; i++) {
        json_t *group = NULL;

        if (!report_group(store, names->pdata[i], &group, &error)) {
            log_warning("%s", error->message);
            g_clear_error(&error);
            continue;
        }
        if (!cli->json)
            print_group_line(group);
        json_array_append_new(list, group);
    }
    return cli->json ? cli_print_json(json_pack("{s:O}", "groups", list)) : 0;
}

/* --- one group --- */

static char *proofs_text(const json_t *row)
{
    g_autoptr(GString) text = g_string_new(NULL);
    const json_t *proof;
    size_t i;

    json_array_foreach(json_object_get(row, "proven"), i, proof)
        g_string_append_printf(text, "%s%s", i ? "+" : "", json_string_value(proof));
    return g_strdup(text->len > 0 ? text->str : "-");
}

static void print_row(GString *out, const json_t *row)
{
    g_autofree char *proofs = proofs_text(row);

    g_string_append_printf(out, "  %-28s %-9s %-8s %-4s %4" G_GINT64_FORMAT "  %-22s %-18s %s%s\n", json_text(row, "instance"), json_text(row, "life"),
                           json_text(row, "route"), json_is_true(json_object_get(row, "up")) ? "up" : "down", int_of(row, "weight"), proofs, json_text(row, "address"),
                           json_text(row, "host"), json_is_true(json_object_get(row, "serving")) ? "" : "  (not serving)");
}

static void print_rows(GString *out, const json_t *status)
{
    const json_t *row, *finding;
    size_t i;

    g_string_append_printf(out, "  %-28s %-9s %-8s %-4s %6s  %-22s %-18s %s\n", "INSTANCE", "LIFE", "ROUTE", "", "WEIGHT", "PROVEN", "ADDRESS", "HOST");
    json_array_foreach(json_object_get(status, "instances"), i, row)
        print_row(out, row);
    json_array_foreach(json_object_get(status, "findings"), i, finding)
        g_string_append_printf(out, "  ! %s\n", json_text(finding, "text"));
}

static char *status_text(const json_t *status)
{
    GString *out = g_string_new(NULL);
    g_autofree char *age = age_of(status, "since");
    double back = json_number_value(json_object_get(status, "rollback_seconds"));
    int64_t target = int_of(status, "target");

    g_string_append_printf(out, "group %s: %s %s\n", json_text(status, "group"), json_text(status, "name"), json_text(status, "image"));
    g_string_append_printf(out, "  revision %" G_GINT64_FORMAT ", %s", int_of(status, "revision"), json_text(status, "phase"));
    if (target)
        g_string_append_printf(out, " to revision %" G_GINT64_FORMAT, target);
    if (int_of(status, "steps"))
        g_string_append_printf(out, ", step %" G_GINT64_FORMAT " of %" G_GINT64_FORMAT, int_of(status, "step") + 1, int_of(status, "steps"));
    g_string_append_printf(out, "%s; for %s; last: %s\n", json_is_true(json_object_get(status, "paused")) ? ", paused" : "", age,
                           *json_text(status, "outcome") ? json_text(status, "outcome") : "-");
    g_string_append_printf(out, "  serving %" G_GINT64_FORMAT " of %" G_GINT64_FORMAT " (never fewer than %" G_GINT64_FORMAT "), existing %" G_GINT64_FORMAT " (never more than %" G_GINT64_FORMAT ")\n",
                           int_of(status, "serving"), int_of(status, "size"), int_of(status, "floor"), int_of(status, "existing"), int_of(status, "ceiling"));
    if (*json_text(status, "channel"))
        g_string_append_printf(out, "  %s%s\n", json_text(status, "channel"), json_is_true(json_object_get(status, "behind")) ? " has moved on: the group is behind it" : " points at this image");
    if (json_is_true(json_object_get(status, "behind")) && *json_text(status, "behind_why"))
        g_string_append_printf(out, "  its image was rolled back here: %s\n", json_text(status, "behind_why"));
    if (*json_text(status, "waits_for"))
        g_string_append_printf(out, "  waits for: %s\n", json_text(status, "waits_for"));
    if (target && back > 0) {
        g_autofree char *text = units_format_duration(back);

        g_string_append_printf(out, "  going back takes at most %s\n", text);
    }
    print_rows(out, status);
    return g_string_free(out, FALSE);
}

/* A live view until the user interrupts, or the group is at rest. */
static int status_live(CliContext *cli, Store *store, const char *name)
{
    while (!interrupt_requested()) {
        g_autoptr(json_t) status = NULL;
        g_autoptr(GError) error = NULL;
        g_autofree char *text = NULL;

        if (!report_status(store, name, &status, &error))
            return cli_fail(cli, error);
        text = status_text(status);
        printf("\033[H\033[J%s\n(Ctrl-C ends this view)\n", text);
        (void)fflush(stdout);
        g_usleep(G_USEC_PER_SEC / 2);
    }
    return 0;
}

int deploy_status(CliContext *cli, int argc, char **argv)
{
    bool live = false;
    const CliOption options[] = {{"live", CLI_FLAG, &live}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autofree char *text = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(GError) error = NULL;
    json_t *status = NULL;

    if (!cli_parse(options, "deploy status [--live] [GROUP]", argc, argv, 0, 1, &arguments, &error) ||
        !cli_open_store(cli, STORE_OPEN_CREATE, &store, &error))
        return cli_fail(cli, error);
    if (!arguments[0])
        return status_all(cli, store);
    if (!cli->json && (live || (isatty(STDOUT_FILENO) && isatty(STDIN_FILENO))))
        return status_live(cli, store, arguments[0]);
    if (!report_status(store, arguments[0], &status, &error))
        return cli_fail(cli, error);
    if (cli->json)
        return cli_print_json(status);
    text = status_text(status);
    fputs(text, stdout);
    json_decref(status);
    return 0;
}

/* --- history --- */

static char *event_text(const json_t *event)
{
    const char *what = json_text(event, "do");
    g_autofree char *image = short_id(event, "image");

    if (strcmp(what, "verb") == 0)
        return g_strdup_printf("%s%s%s", json_text(event, "verb"), *json_text(event, "reason") ? ": " : "", json_text(event, "reason"));
    if (strcmp(what, "revision") == 0)
        return g_strdup_printf("revision %" G_GINT64_FORMAT " is %s %s", int_of(event, "revision"), json_text(event, "name"), image);
    if (strcmp(what, "phase") == 0)
        return g_strdup_printf("phase %s%s%s", json_text(event, "phase"), *json_text(event, "cause") ? ", " : "", json_text(event, "cause"));
    if (strcmp(what, "begin") == 0)
        return g_strdup_printf("begins revision %" G_GINT64_FORMAT "%s%s", int_of(event, "revision"), *json_text(event, "reason") ? ": " : "", json_text(event, "reason"));
    if (strcmp(what, "stable") == 0)
        return g_strdup_printf("revision %" G_GINT64_FORMAT " is stable%s", int_of(event, "revision"),
                               json_is_true(json_object_get(event, "as_planned")) ? ", every step as planned" : "");
    return g_strdup_printf("%s revision %" G_GINT64_FORMAT "%s%s", what, int_of(event, "revision"), *json_text(event, "why") ? ": " : "", json_text(event, "why"));
}

static void print_history(const json_t *history)
{
    const json_t *event;
    size_t i;

    json_array_foreach(json_object_get(history, "events"), i, event) {
        g_autofree char *when = cli_time((int64_t)json_number_value(json_object_get(event, "at")));
        g_autofree char *text = event_text(event);
        const char *asked = json_text(event, "asked_by");

        printf("%s  %-12s %s\n", when, *asked ? asked : json_text(event, "who"), text);
    }
    json_array_foreach(json_object_get(history, "existed"), i, event)
        printf("existed: %s %s%s\n", json_text(event, "instance"), json_text(event, "image"), json_is_true(json_object_get(event, "served")) ? ", in service" : "");
}

static bool parse_time(const char *text, int64_t *ret, GError **error)
{
    g_autoptr(GTimeZone) zone = g_time_zone_new_local();
    g_autoptr(GDateTime) time = g_date_time_new_from_iso8601(text, zone);

    if (!time)
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no time; write 2026-01-31T12:00:00", text);
    *ret = g_date_time_to_unix(time) * G_USEC_PER_SEC + g_date_time_get_microsecond(time);
    return true;
}

int deploy_history(CliContext *cli, int argc, char **argv)
{
    const char *at_text = NULL;
    const CliOption options[] = {{"at", CLI_STRING, &at_text}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(GError) error = NULL;
    json_t *history = NULL;
    int64_t at = 0;

    if (!cli_parse(options, "deploy history [--at TIME] GROUP", argc, argv, 1, 1, &arguments, &error) ||
        (at_text && !parse_time(at_text, &at, &error)) || !cli_open_store(cli, 0, &store, &error) ||
        !report_history(store, arguments[0], at, &history, &error))
        return cli_fail(cli, error);
    if (cli->json)
        return cli_print_json(history);
    print_history(history);
    json_decref(history);
    return 0;
}

/* --- drift --- */

int deploy_drift(CliContext *cli, int argc, char **argv)
{
    bool detailed = false, found = false, no_disks = false;
    const CliOption options[] = {{"detailed-exitcode", CLI_FLAG, &detailed}, {"no-disks", CLI_FLAG, &no_disks}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(GError) error = NULL;
    const json_t *one;
    json_t *drift = NULL;
    size_t i;

    if (!cli_parse(options, "deploy drift [--no-disks] [-detailed-exitcode] GROUP", argc, argv, 1, 1, &arguments, &error) ||
        !cli_open_store(cli, 0, &store, &error) || !report_drift(store, arguments[0], !no_disks, &drift, &found, &error))
        return cli_fail(cli, error);
    if (cli->json)
        (void)cli_print_json(json_incref(drift));
    else {
        json_array_foreach(json_object_get(drift, "drift"), i, one)
            printf("%-28s %-9s %s%s%s\n", json_text(one, "subject"), json_text(one, "kind"), json_text(one, "path"), *json_text(one, "path") ? " " : "", json_text(one, "text"));
        if (!found)
            printf("no drift\n");
    }
    json_decref(drift);
    return found && detailed ? 2 : 0;
}
