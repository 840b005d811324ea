/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A probe: speaks to a balancer member as the controller does, one call per word.
 *
 *   balance MEMBER ARGUMENTS-JSON SETTINGS CALL...
 *
 * SETTINGS: "group=web,strategy=bluegreen,places=4,http=/,interval=0.5,rise=2,fall=3,sticky=1", or "-". Calls, done in order, the first failure ends:
 *   lines  verify  observe  enter:COLOR:PLACE:IP:PORT  route:COLOR:PLACE:WEIGHT  drain:COLOR:PLACE  leave:COLOR:PLACE  switch:COLOR
 *   counters:COLOR:PLACE  up:COLOR:PLACE:SECONDS (waits until it is up)  empty:COLOR:PLACE:SECONDS (until no session is left)  sleep:SECONDS
 */
#include "base/error.h"
#include "base/json.h"
#include "deploy/balancer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const routes[] = {"out", "drained", "in", "unknown"};

static bool observe(Balancer *balancer, GError **error)
{
    BalancerView view = {0};

    if (!balancer->ops->observe(balancer, &view, error))
        return false;
    printf("answers %d reached %d color %d places %u problem %s\n", view.answers, view.reached, view.color, view.places,
           view.problem ? view.problem : "none");
    for (guint i = 0; i < view.entries->len; i++) {
        const BalancerEntry *e = view.entries->pdata[i];

        printf("%u/%u %s %s weight %u sessions %" G_GUINT64_FORMAT " %s\n", e->color, e->place, routes[e->route], e->up ? "up" : "down", e->weight,
               e->sessions, e->address ? e->address : "-");
    }
    balancer_view_clear(&view);
    return true;
}

static bool is_so(const BalancerView *view, unsigned color, unsigned place, bool wants_up)
{
    for (guint i = 0; i < view->entries->len; i++) {
        const BalancerEntry *e = view->entries->pdata[i];

        if (e->color == color && e->place == place)
            return wants_up ? e->up : e->sessions == 0;
    }
    return false;
}

static bool wait_until(Balancer *balancer, unsigned color, unsigned place, double seconds, bool wants_up, GError **error)
{
    for (int64_t end = g_get_monotonic_time() + (int64_t)(seconds * G_USEC_PER_SEC);; g_usleep(50 * 1000)) {
        BalancerView view = {0};
        bool so;

        if (!balancer->ops->observe(balancer, &view, error))
            return false;
        so = view.answers && is_so(&view, color, place, wants_up);
        balancer_view_clear(&view);
        if (so)
            return true;
        if (g_get_monotonic_time() > end)
            return fail(error, "%u/%u is not %s after %g seconds", color, place, wants_up ? "up" : "empty", seconds);
    }
}

static bool counters(Balancer *balancer, unsigned color, unsigned place, GError **error)
{
    BalancerCounters counters;

    if (!balancer->ops->counters(balancer, color, place, &counters, error))
        return false;
    printf("requests %" G_GUINT64_FORMAT " errors %" G_GUINT64_FORMAT " time %" G_GUINT64_FORMAT "\n", counters.requests, counters.errors,
           counters.time_ms);
    return true;
}

static bool leave(Balancer *balancer, unsigned color, unsigned place, GError **error)
{
    uint64_t cut;

    if (!balancer->ops->leave(balancer, color, place, &cut, error))
        return false;
    printf("cut %" G_GUINT64_FORMAT "\n", cut);
    return true;
}

static bool call(Balancer *balancer, const BalancerConfig *config, const char *text, GError **error)
{
    g_auto(GStrv) word = g_strsplit(text, ":", 4);
    unsigned count = g_strv_length(word);
    unsigned color = count > 1 ? (unsigned)atoi(word[1]) : 0, place = count > 2 ? (unsigned)atoi(word[2]) : 0;
    const char *rest = count > 3 ? word[3] : "";

    if (strcmp(word[0], "lines") == 0) {
        g_autofree char *lines = balancer->ops->config_lines(config);

        fputs(lines, stdout);
        return true;
    }
    if (strcmp(word[0], "verify") == 0)
        return balancer->ops->verify(balancer, error);
    if (strcmp(word[0], "observe") == 0)
        return observe(balancer, error);
    if (strcmp(word[0], "enter") == 0)
        return balancer->ops->enter(balancer, color, place, rest, error);
    if (strcmp(word[0], "route") == 0)
        return balancer->ops->route(balancer, color, place, (unsigned)atoi(rest), error);
    if (strcmp(word[0], "drain") == 0)
        return balancer->ops->drain(balancer, color, place, error);
    if (strcmp(word[0], "leave") == 0)
        return leave(balancer, color, place, error);
    if (strcmp(word[0], "switch") == 0)
        return balancer->ops->switch_color(balancer, color, error);
    if (strcmp(word[0], "counters") == 0)
        return counters(balancer, color, place, error);
    if (strcmp(word[0], "up") == 0 || strcmp(word[0], "empty") == 0)
        return wait_until(balancer, color, place, strtod(rest, NULL), word[0][0] == 'u', error);
    if (strcmp(word[0], "sleep") == 0) {
        g_usleep((gulong)(strtod(word[1], NULL) * G_USEC_PER_SEC));
        return true;
    }
    return fail_code(error, KILN_ERROR_USAGE, "unknown call '%s'", text);
}

static void read_settings(const char *text, BalancerConfig *config)
{
    char **settings = g_strsplit(text, ",", -1); /* lives as long as the program */

    for (char **s = settings; *s; s++) {
        char *value = strchr(*s, '=');

        if (!value)
            continue;
        *value++ = '\0';
        if (strcmp(*s, "group") == 0)
            config->group = value;
        else if (strcmp(*s, "strategy") == 0)
            config->strategy = strcmp(value, "bluegreen") == 0 ? STRATEGY_BLUEGREEN : STRATEGY_ROLLING;
        else if (strcmp(*s, "places") == 0)
            config->places = (unsigned)atoi(value);
        else if (strcmp(*s, "http") == 0)
            config->health_http = value;
        else if (strcmp(*s, "interval") == 0)
            config->health_interval = strtod(value, NULL);
        else if (strcmp(*s, "rise") == 0)
            config->rise = (unsigned)atoi(value);
        else if (strcmp(*s, "fall") == 0)
            config->fall = (unsigned)atoi(value);
        else if (strcmp(*s, "sticky") == 0)
            config->sticky = atoi(value) != 0;
    }
}

int main(int argc, char **argv)
{
    BalancerConfig config = {.group = "web", .places = 4, .port = 80, .health_interval = 1, .rise = 2, .fall = 3};
    g_autoptr(GError) error = NULL;
    g_autoptr(json_t) arguments = NULL;
    const BalancerOps *ops = argc > 4 ? balancer_find(argv[1], NULL) : NULL;
    Balancer *balancer = NULL;
    const char *culprit = NULL;
    bool good;

    if (!ops) {
        fprintf(stderr, "usage: balance MEMBER ARGUMENTS SETTINGS CALL...\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_settings(argv[3], &config);
    good = json_parse(argv[2], strlen(argv[2]), 65536, "arguments", &arguments, &error) &&
           ops->check(arguments, config.strategy, &culprit, &error);
    config.arguments = arguments;
    good = good && ops->open(&config, &balancer, &error);
    for (int i = 4; good && i < argc; i++)
        good = call(balancer, &config, argv[i], &error) || fail_prefix(&error, "%s", argv[i]);
    if (balancer)
        ops->close(balancer);
    if (good)
        return 0;
    fprintf(stderr, "balance: %s\n", error->message);
    return error_exit_status(error);
}
