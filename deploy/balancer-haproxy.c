/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HAProxy 2.6 or later as the balancer, by its runtime API. Its configuration is never written; haproxy-config.c says what has to be in it.
 *
 *     server of the pool   maint, 127.0.0.1:1     maint, A:P     drain, A:P            ready, A:P
 *                          (empty)                               checked, no new work
 *     enter                -------------------------------------->
 *     route                                                      --------------------->
 *     drain                                                      <---------------------
 *     leave                <-------------------------------------- (from each)
 *
 * Every change goes: say it, look whether it shows, rewrite the server-state file (temp, fsync, rename); only then the call is true. So
 * a reload at any moment finds the last change that counted, or the one being made.
 *
 * A server that leaves maintenance is running at once for HAProxy, with the check result of its former tenant. Therefore enter() says in one
 * line: the address, drain, and `health down`; HAProxy then needs `rise` passed checks of the new tenant to call it running. A check of
 * the former tenant that is still on its way is waited for first.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "deploy/haproxy-config.h"
#include "deploy/haproxy-look.h"
#include "deploy/haproxy-socket.h"
#include "deploy/members.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_DEFAULT "/etc/haproxy/haproxy.cfg"
#define CONFIG_MAX (16 * 1024 * 1024)
#define MAP_MAX (1024 * 1024)
#define CHECK_WAIT_US (5 * G_USEC_PER_SEC)   /* for a former tenant's last check */
#define LAST_WORDS_US (1 * G_USEC_PER_SEC)   /* for requests that are nearly done, before they are cut */
#define POLL_US (20 * 1000)

typedef struct Tally { /* counters of one server at one balancer, summed over reloads */
    HaproxyStat last;  /* numbers only */
    bool begun;
    double requests, errors, time_ms;
} Tally;

typedef struct Haproxy {
    Balancer base;
    HaproxySettings *settings;
    GHashTable *entered;   /* place_key -> process key, both int64 */
    GHashTable *tallies;   /* place_key -> Tally* */
    int64_t processes[HAPROXY_SOCKETS_MAX]; /* last seen; 0: none */
} Haproxy;

static int64_t place_key(unsigned index, uint32_t color, uint32_t place)
{
    return (int64_t)index << 48 | (int64_t)(color & 0xffff) << 32 | place;
}

static int64_t *new_int64(int64_t value)
{
    int64_t *copy = g_new(int64_t, 1);

    *copy = value;
    return copy;
}

/* --- one server --- */

/* What a server shall show. */
typedef struct Want {
    Route route;
    const char *address; /* NULL: any */
    unsigned port;
    unsigned weight;     /* 0: any */
} Want;

static bool shows(const HaproxyServer *server, const Want *want)
{
    return haproxy_server_route(server) == want->route && (want->weight == 0 || server->weight == want->weight) &&
           (!want->address || (server->port == want->port && strcmp(server->address, want->address) == 0));
}

/* The server of a place; it belongs to *ret_servers. */
static bool find(Haproxy *self, unsigned index, uint32_t color, uint32_t place, GPtrArray **ret_servers, const HaproxyServer **ret,
                 GError **error)
{
    const HaproxySettings *s = self->settings;
    g_autoptr(GPtrArray) servers = NULL, pool = NULL;

    if (color >= s->colors)
        return fail(error, "group '%s' has no backend of color %u", s->group, color);
    if (!haproxy_look_servers(s, index, &servers, error) || !haproxy_pool(servers, s->backends[color], s->prefix, &pool, error))
        return false;
    if (place >= pool->len)
        return fail(error, "HAProxy at '%s' has %u places in backend '%s', place %u is none of them", s->sockets[index], pool->len, s->backends[color],
                    place);
    *ret = pool->pdata[place];
    *ret_servers = g_steal_pointer(&servers);
    return true;
}

/* The first line of an answer that says something, for errors. */
static char *words_of(const char *answer)
{
    const char *start = answer + strspn(answer, "\n ");
    g_autofree char *line = g_strndup(start, MIN(strcspn(start, "\n"), 200));

    return g_utf8_make_valid(line, -1);
}

/* Says @commands to one balancer and sees to it that the server shows @want. */
static bool change(Haproxy *self, unsigned index, uint32_t color, uint32_t place, const char *commands, const Want *want, GError **error)
{
    g_autoptr(GPtrArray) servers = NULL;
    const HaproxyServer *server;
    g_autofree char *answer = NULL, *words = NULL;

    if (!haproxy_ask(self->settings->sockets[index], commands, &answer, error) || !find(self, index, color, place, &servers, &server, error))
        return false;
    words = words_of(answer);
    if (!shows(server, want))
        return fail(error, "HAProxy at '%s' was told '%s' and does not show it%s%s", self->settings->sockets[index], commands,
                    *words ? "; it says: " : "", words);
    return true;
}

static bool save_state(Haproxy *self, unsigned index, GError **error)
{
    g_autoptr(GPtrArray) servers = NULL;
    g_autofree char *text = NULL;

    if (!haproxy_look_servers(self->settings, index, &servers, error))
        return false;
    text = haproxy_state_text(servers);
    return file_replace(AT_FDCWD, self->settings->state_files[index], text, strlen(text), 0644, FILE_SYNC_YES, error) ||
           fail_prefix(error, "HAProxy's server-state file '%s'", self->settings->state_files[index]);
}

/* --- enter, route, drain, leave --- */

/* "IP:PORT" or "[IPv6]:PORT". */
static bool parse_address(const char *address, char **ret_ip, unsigned *ret_port, GError **error)
{
    const char *colon = strrchr(address, ':');
    g_autofree char *ip = colon ? g_strndup(address, (gsize)(colon - address)) : NULL;
    unsigned char binary[sizeof(struct in6_addr)];
    guint64 port = 0;

    if (ip && ip[0] == '[' && g_str_has_suffix(ip, "]")) {
        memmove(ip, ip + 1, strlen(ip));
        ip[strlen(ip) - 1] = '\0';
    }
    if (!ip || !g_ascii_string_to_unsigned(colon + 1, 10, 1, 65535, &port, NULL) ||
        (inet_pton(AF_INET, ip, binary) != 1 && inet_pton(AF_INET6, ip, binary) != 1))
        return fail(error, "'%s' is no address of the form IP:PORT", address);
    *ret_port = (unsigned)port;
    *ret_ip = g_steal_pointer(&ip);
    return true;
}

static bool wait_for_last_check(Haproxy *self, unsigned index, uint32_t color, uint32_t place, GError **error)
{
    for (int64_t end = g_get_monotonic_time() + CHECK_WAIT_US;; g_usleep(POLL_US)) {
        g_autoptr(GPtrArray) servers = NULL;
        const HaproxyServer *server;

        if (!find(self, index, color, place, &servers, &server, error))
            return false;
        if (!(server->check_state & HAPROXY_CHECK_INPROGRESS))
            return true;
        if (g_get_monotonic_time() > end)
            return fail_code(error, KILN_ERROR_TIMEOUT, "HAProxy at '%s' still checks the former tenant of '%s/%s'", self->settings->sockets[index],
                             server->backend, server->name);
    }
}

static bool remember_process(Haproxy *self, unsigned index, uint32_t color, uint32_t place, GError **error)
{
    g_autofree char *answer = NULL;
    HaproxyInfo info;

    if (!haproxy_ask(self->settings->sockets[index], "show info", &answer, error) || !haproxy_parse_info(answer, &info, error))
        return false;
    g_hash_table_replace(self->entered, new_int64(place_key(index, color, place)), new_int64(haproxy_process_key(&info)));
    return true;
}

static bool enter_one(Haproxy *self, unsigned index, uint32_t color, uint32_t place, const char *ip, unsigned port, GError **error)
{
    Want want = {.route = ROUTE_DRAINED, .address = ip, .port = port};
    g_autoptr(GPtrArray) servers = NULL;
    const HaproxyServer *server;
    g_autofree char *commands = NULL;

    if (!find(self, index, color, place, &servers, &server, error))
        return false;
    if (shows(server, &want))
        return save_state(self, index, error);
    if (!haproxy_server_maint(server)) {
        if (server->port != port || strcmp(server->address, ip) != 0)
            return fail(error, "HAProxy at '%s' has another instance (%s:%u) in place %u of '%s'", self->settings->sockets[index], server->address,
                        server->port, place, server->backend);
        commands = g_strdup_printf("set server %s/%s state drain", server->backend, server->name);
    } else {
        if (!wait_for_last_check(self, index, color, place, error) || !remember_process(self, index, color, place, error))
            return false;
        commands = g_strdup_printf("set server %1$s/%2$s addr %3$s port %4$u;set server %1$s/%2$s state drain;set server %1$s/%2$s health down",
                                   server->backend, server->name, ip, port);
    }
    return change(self, index, color, place, commands, &want, error) && save_state(self, index, error);
}

static bool haproxy_enter(Balancer *balancer, uint32_t color, uint32_t place, const char *address, GError **error)
{
    Haproxy *self = (Haproxy *)balancer;
    g_autofree char *ip = NULL;
    unsigned port = 0;

    if (!parse_address(address, &ip, &port, error))
        return false;
    for (unsigned i = 0; i < self->settings->count; i++)
        if (!enter_one(self, i, color, place, ip, port, error))
            return false;
    return true;
}

static bool route_one(Haproxy *self, unsigned index, uint32_t color, uint32_t place, unsigned weight, GError **error)
{
    Want want = {.route = ROUTE_IN, .weight = weight};
    g_autoptr(GPtrArray) servers = NULL;
    const HaproxyServer *server;
    g_autofree char *commands = NULL;

    if (!find(self, index, color, place, &servers, &server, error))
        return false;
    if (haproxy_server_maint(server)) /* ready would make it running before its first check */
        return fail(error, "HAProxy at '%s' holds '%s/%s' in maintenance: it was not entered", self->settings->sockets[index], server->backend,
                    server->name);
    commands = g_strdup_printf("set server %1$s/%2$s weight %3$u;set server %1$s/%2$s state ready", server->backend, server->name, weight);
    return (shows(server, &want) || change(self, index, color, place, commands, &want, error)) && save_state(self, index, error);
}

static bool haproxy_route(Balancer *balancer, uint32_t color, uint32_t place, unsigned weight, GError **error)
{
    Haproxy *self = (Haproxy *)balancer;

    if (weight < 1 || weight > WEIGHT_MAX)
        return fail(error, "weight %u is not between 1 and %d", weight, WEIGHT_MAX);
    for (unsigned i = 0; i < self->settings->count; i++)
        if (!route_one(self, i, color, place, weight, error))
            return false;
    return true;
}

static bool drain_one(Haproxy *self, unsigned index, uint32_t color, uint32_t place, GError **error)
{
    Want want = {.route = ROUTE_DRAINED};
    g_autoptr(GPtrArray) servers = NULL;
    const HaproxyServer *server;
    g_autofree char *commands = NULL;

    if (!find(self, index, color, place, &servers, &server, error))
        return false;
    if (haproxy_server_maint(server)) /* gets no new work as it is, and drain would wake it */
        return true;
    commands = g_strdup_printf("set server %s/%s state drain", server->backend, server->name);
    return (shows(server, &want) || change(self, index, color, place, commands, &want, error)) && save_state(self, index, error);
}

static bool haproxy_drain(Balancer *balancer, uint32_t color, uint32_t place, GError **error)
{
    Haproxy *self = (Haproxy *)balancer;

    for (unsigned i = 0; i < self->settings->count; i++)
        if (!drain_one(self, i, color, place, error))
            return false;
    return true;
}

static bool count_sessions(Haproxy *self, unsigned index, const HaproxyServer *server, uint64_t *ret, GError **error)
{
    g_autofree char *command = g_strdup_printf("show stat %u 4 -1", server->backend_id), *answer = NULL;
    g_autoptr(GPtrArray) stats = NULL;

    if (!haproxy_ask(self->settings->sockets[index], command, &answer, error) || !haproxy_parse_stats(answer, &stats, error))
        return false;
    for (guint i = 0; i < stats->len; i++) {
        const HaproxyStat *stat = stats->pdata[i];

        if (strcmp(stat->server, server->name) == 0 && strcmp(stat->proxy, server->backend) == 0) {
            *ret = stat->sessions + stat->queued;
            return true;
        }
    }
    return fail(error, "HAProxy at '%s' shows no statistics of '%s/%s'", self->settings->sockets[index], server->backend, server->name);
}

/* Sessions that a deadline left over get a moment more now that clients with a cookie stay away, too; then they are ended. */
static bool cut_sessions(Haproxy *self, unsigned index, const HaproxyServer *server, uint64_t *cut, GError **error)
{
    g_autofree char *command = g_strdup_printf("shutdown sessions server %s/%s", server->backend, server->name), *answer = NULL;
    uint64_t left = 0;

    for (int64_t end = g_get_monotonic_time() + LAST_WORDS_US;; g_usleep(POLL_US)) {
        if (!count_sessions(self, index, server, &left, error))
            return false;
        if (left == 0)
            return true;
        if (g_get_monotonic_time() > end)
            break;
    }
    *cut += left;
    return haproxy_ask(self->settings->sockets[index], command, &answer, error);
}

static bool leave_one(Haproxy *self, unsigned index, uint32_t color, uint32_t place, uint64_t *cut, GError **error)
{
    Want out = {.route = ROUTE_OUT}, empty = {.route = ROUTE_OUT, .address = "127.0.0.1", .port = 1};
    g_autoptr(GPtrArray) servers = NULL;
    const HaproxyServer *server;
    g_autofree char *maint = NULL, *reset = NULL;
    int64_t key = place_key(index, color, place);

    if (!find(self, index, color, place, &servers, &server, error))
        return false;
    maint = g_strdup_printf("set server %s/%s state maint", server->backend, server->name);
    reset = g_strdup_printf("set server %1$s/%2$s addr 127.0.0.1 port 1;set server %1$s/%2$s weight 1", server->backend, server->name);
    g_hash_table_remove(self->entered, &key);
    if (shows(server, &empty))
        return save_state(self, index, error);
    return change(self, index, color, place, maint, &out, error) && cut_sessions(self, index, server, cut, error) &&
           change(self, index, color, place, reset, &empty, error) && save_state(self, index, error);
}

static bool haproxy_leave(Balancer *balancer, uint32_t color, uint32_t place, uint64_t *ret_cut, GError **error)
{
    Haproxy *self = (Haproxy *)balancer;
    uint64_t cut = 0;

    for (unsigned i = 0; i < self->settings->count; i++)
        if (!leave_one(self, i, color, place, &cut, error))
            return false;
    *ret_cut = cut;
    return true;
}

/* --- the switch --- */

/* The map file with our key's line changed or added; other keys are other groups'. */
static bool save_map(const HaproxySettings *s, unsigned index, const char *backend, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GBytes) old = NULL;
    g_autoptr(GError) failure = NULL;
    g_auto(GStrv) lines = NULL;
    size_t length = strlen(s->group);

    if (!file_load(AT_FDCWD, s->maps[index], MAP_MAX, &old, &failure) && !g_error_matches(failure, KILN_ERROR, KILN_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&failure));
        return fail_prefix(error, "HAProxy's map");
    }
    lines = g_strsplit(old && g_bytes_get_size(old) > 0 ? g_bytes_get_data(old, NULL) : "", "\n", -1);
    for (char **line = lines; *line; line++)
        if (**line && !(strncmp(*line, s->group, length) == 0 && (g_ascii_isspace((*line)[length]) || !(*line)[length])))
            g_string_append_printf(text, "%s\n", *line);
    g_string_append_printf(text, "%s %s\n", s->group, backend);
    return file_replace(AT_FDCWD, s->maps[index], text->str, text->len, 0644, FILE_SYNC_YES, error) ||
           fail_prefix(error, "HAProxy's map '%s'", s->maps[index]);
}

static bool haproxy_switch_color(Balancer *balancer, uint32_t color, GError **error)
{
    const HaproxySettings *s = ((Haproxy *)balancer)->settings;
    bool has_key[HAPROXY_SOCKETS_MAX];
    int32_t shown;

    if (s->colors != 2 || color > 1)
        return fail(error, "group '%s' has no color %u to switch to", s->group, color);
    for (unsigned i = 0; i < s->count; i++) /* all answer before the first one changes */
        if (!haproxy_look_color(s, i, &shown, &has_key[i], error))
            return false;
    for (unsigned i = 0; i < s->count; i++)
        if (!save_map(s, i, s->backends[color], error))
            return false;
    for (unsigned i = 0; i < s->count; i++) {
        g_autofree char *command = g_strdup_printf("%s map %s %s %s", has_key[i] ? "set" : "add", s->maps[i], s->group, s->backends[color]);
        g_autofree char *answer = NULL;

        if (!haproxy_ask(s->sockets[i], command, &answer, error))
            return false;
    }
    for (unsigned i = 0; i < s->count; i++) {
        if (!haproxy_look_color(s, i, &shown, &has_key[i], error))
            return false;
        if (shown != (int32_t)color)
            return fail(error, "HAProxy at '%s' was told to switch to '%s' and does not show it", s->sockets[i], s->backends[color]);
    }
    return true;
}

/* --- observe --- */

static int64_t entered_under(unsigned index, uint32_t color, uint32_t place, void *arg)
{
    Haproxy *self = arg;
    int64_t key = place_key(index, color, place);
    const int64_t *process = g_hash_table_lookup(self->entered, &key);

    return process ? *process : 0;
}

/* After a change of process: what has it forgotten? */
static void compare_after_reload(Haproxy *self, HaproxyLook *const *looks, BalancerView *view)
{
    for (unsigned i = 0; i < self->settings->count; i++) {
        int64_t process = looks[i] ? haproxy_process_key(&looks[i]->info) : 0;
        g_autofree char *lost = NULL;

        if (!looks[i] || process == self->processes[i])
            continue;
        if (self->processes[i] != 0)
            lost = haproxy_look_lost(self->settings, i, looks[i]);
        self->processes[i] = process;
        if (lost && !view->problem)
            view->problem = g_steal_pointer(&lost);
    }
}

static bool haproxy_observe(Balancer *balancer, BalancerView *ret, GError **error)
{
    Haproxy *self = (Haproxy *)balancer;
    HaproxyLook *looks[HAPROXY_SOCKETS_MAX] = {NULL};
    char *problem = NULL;

    for (unsigned i = 0; i < self->settings->count; i++) {
        g_autoptr(GError) failure = NULL;

        if (!haproxy_look(self->settings, i, &looks[i], &failure) && !problem)
            problem = g_strdup(failure->message);
    }
    haproxy_view_merge(self->settings, looks, problem, entered_under, self, ret);
    compare_after_reload(self, looks, ret);
    for (unsigned i = 0; i < self->settings->count; i++)
        haproxy_look_free(looks[i]);
    return true;
}

/* --- counters --- */

static uint64_t stat_requests(const HaproxyStat *stat)
{
    return stat->answers + stat->failed_connects + stat->failed_answers;
}

static uint64_t stat_errors(const HaproxyStat *stat)
{
    return stat->answers_5xx + stat->failed_connects + MAX(stat->failed_answers, stat->aborted_answers); /* an abort is mostly counted in both */
}

/* Adds what came since the last look; a counter that went back is that of a new process, which began at nothing. */
static void tally_add(Tally *tally, const HaproxyStat *now)
{
    HaproxyStat zero = {0};
    const HaproxyStat *then = &tally->last;
    uint64_t requests;

    if (!tally->begun || stat_requests(now) < stat_requests(then) || now->answers < then->answers || stat_errors(now) < stat_errors(then))
        then = &zero;
    requests = stat_requests(now) - stat_requests(then);
    tally->requests += (double)requests;
    tally->errors += (double)(stat_errors(now) - stat_errors(then));
    tally->time_ms += haproxy_mean_between(then->answers, then->time_ms, now->answers, now->time_ms) * (double)requests;
    tally->begun = true;
    tally->last = *now;
    tally->last.proxy = tally->last.server = tally->last.algorithm = tally->last.mode = tally->last.cookie = NULL; /* borrowed */
}

static bool tally_one(Haproxy *self, unsigned index, uint32_t color, uint32_t place, const Tally **ret, GError **error)
{
    int64_t key = place_key(index, color, place);
    Tally *tally = g_hash_table_lookup(self->tallies, &key);
    g_autoptr(HaproxyLook) look = NULL;
    const HaproxyServer *server;
    const HaproxyStat *stat;

    if (!haproxy_look(self->settings, index, &look, error))
        return false;
    if (place >= look->pools[color]->len)
        return fail(error, "HAProxy at '%s' has no place %u in backend '%s'", self->settings->sockets[index], place, self->settings->backends[color]);
    server = look->pools[color]->pdata[place];
    stat = haproxy_look_stat(look, server->backend, server->name);
    if (!stat)
        return fail(error, "HAProxy at '%s' shows no statistics of '%s/%s'", self->settings->sockets[index], server->backend, server->name);
    if (!tally) {
        tally = g_new0(Tally, 1);
        g_hash_table_insert(self->tallies, new_int64(key), tally);
    }
    tally_add(tally, stat);
    *ret = tally;
    return true;
}

/* Differences are honest between calls on one open balancer; it starts with what HAProxy has counted since its own start. */
static bool haproxy_counters(Balancer *balancer, uint32_t color, uint32_t place, BalancerCounters *ret, GError **error)
{
    Haproxy *self = (Haproxy *)balancer;
    double requests = 0, errors = 0, time_ms = 0;

    if (color >= self->settings->colors)
        return fail(error, "group '%s' has no backend of color %u", self->settings->group, color);
    for (unsigned i = 0; i < self->settings->count; i++) {
        const Tally *tally = NULL;

        if (!tally_one(self, i, color, place, &tally, error))
            return false;
        requests += tally->requests;
        errors += tally->errors;
        time_ms += tally->time_ms;
    }
    *ret = (BalancerCounters){.requests = (uint64_t)requests, .errors = (uint64_t)errors, .time_ms = (uint64_t)MAX(0, time_ms)};
    return true;
}

/* --- verify --- */

static bool verify_level(const HaproxySettings *s, unsigned index, GError **error)
{
    g_autofree char *answer = NULL;

    if (!haproxy_ask(s->sockets[index], "show cli level", &answer, error))
        return false;
    if (strncmp(answer, "admin", 5) != 0)
        return fail(error, "HAProxy's stats socket '%s' lacks 'level admin'", s->sockets[index]);
    return true;
}

static bool verify_server(const HaproxySettings *s, unsigned index, const HaproxyLook *look, const HaproxyServer *server, GError **error)
{
    const HaproxyStat *stat = haproxy_look_stat(look, server->backend, server->name);
    const char *missing = NULL;

    if (!(server->check_state & HAPROXY_CHECK_CONFIGURED) || !(server->check_state & HAPROXY_CHECK_ENABLED))
        missing = "check";
    else if (!server->fqdn)
        missing = "kiln.invalid:PORT init-addr last,127.0.0.1"; /* a literal address is not taken from the state file */
    else if (stat && stat->rise > 0 && stat->rise < s->rise) /* not shown while in maintenance */
        missing = "rise (as the group's health block has it)";
    if (missing)
        return fail(error, "HAProxy at '%s': the line 'server-template' of backend '%s' lacks '%s' (all lines: kiln deploy balancer-config %s)",
                    s->sockets[index], server->backend, missing, s->group);
    return true;
}

static bool verify_backend(const HaproxySettings *s, unsigned index, const HaproxyLook *look, uint32_t color, GError **error)
{
    static const char *const dynamic[] = {"roundrobin", "leastconn", "random", NULL};
    const HaproxyStat *stat = haproxy_look_stat(look, s->backends[color], "BACKEND");
    const GPtrArray *pool = look->pools[color];
    g_autofree char *algorithm = g_strndup(stat ? stat->algorithm : "", stat ? strcspn(stat->algorithm, "( ") : 0);

    if (!g_strv_contains(dynamic, algorithm))
        return fail(error, "HAProxy at '%s': backend '%s' has balance '%s', which takes no weights at run time; it lacks 'balance roundrobin'",
                    s->sockets[index], s->backends[color], algorithm);
    if (s->sticky && !*stat->cookie)
        return fail(error, "HAProxy at '%s': backend '%s' lacks 'cookie KILN insert indirect nocache dynamic', and the group is sticky",
                    s->sockets[index], s->backends[color]);
    if (pool->len < s->places || pool->len == 0)
        return fail(error, "HAProxy at '%s': backend '%s' has a pool of %u servers and group '%s' needs %u: it lacks 'server-template %s 1-%u ...'",
                    s->sockets[index], s->backends[color], pool->len, s->group, s->places, s->prefix ? s->prefix : s->backend, MAX(s->places, 1));
    for (guint i = 0; i < pool->len; i++)
        if (!verify_server(s, index, look, pool->pdata[i], error))
            return false;
    return true;
}

/* The folder has to take a file beside the old one. */
static bool verify_folder(const char *file, const char *what, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(file);

    if (access(folder, W_OK | X_OK) < 0)
        return fail_errno(error, "write %s into '%s'", what, folder);
    return true;
}

/*
 * The file that the group names; without one, Debian's when it is the one with this socket. What neither shows is found out by the compare
 * after the first reload.
 */
static bool verify_config(const HaproxySettings *s, unsigned index, GError **error)
{
    unsigned count = g_strv_length(s->configs);
    const char *path = count == 0 ? CONFIG_DEFAULT : s->configs[count == 1 ? 0 : index];
    g_autofree char *text = NULL, *socket_word = g_strdup_printf("stats socket %s", s->sockets[index]);
    g_autoptr(GError) failure = NULL;
    g_autoptr(GBytes) bytes = NULL;

    if (!file_load(AT_FDCWD, path, CONFIG_MAX, &bytes, &failure)) {
        if (count == 0)
            return true;
        g_propagate_error(error, g_steal_pointer(&failure));
        return fail_prefix(error, "HAProxy's configuration");
    }
    text = g_strndup(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
    if (count == 0 && !strstr(text, socket_word))
        return true;
    return haproxy_config_check(s, index, text, error) || fail_prefix(error, "%s", path);
}

static bool haproxy_verify(Balancer *balancer, GError **error)
{
    const HaproxySettings *s = ((Haproxy *)balancer)->settings;

    for (unsigned i = 0; i < s->count; i++) {
        g_autoptr(HaproxyLook) look = NULL;

        if (!verify_level(s, i, error) || !haproxy_look(s, i, &look, error))
            return false;
        for (uint32_t color = 0; color < s->colors; color++)
            if (!verify_backend(s, i, look, color, error))
                return false;
        if (!verify_folder(s->state_files[i], "HAProxy's server-state file", error) ||
            (s->colors == 2 && !verify_folder(s->maps[i], "HAProxy's map", error)) || !verify_config(s, i, error))
            return false;
    }
    return true;
}

/* --- open and close --- */

static bool haproxy_check(const json_t *arguments, Strategy strategy, const char **ret_argument, GError **error)
{
    BalancerConfig config = {.group = "group", .arguments = arguments, .strategy = strategy};
    g_autoptr(HaproxySettings) settings = NULL;

    return haproxy_settings_new(&config, &settings, ret_argument, error);
}

static void haproxy_close(Balancer *balancer)
{
    Haproxy *self = (Haproxy *)balancer;

    if (!self)
        return;
    haproxy_settings_free(self->settings);
    g_hash_table_unref(self->entered);
    g_hash_table_unref(self->tallies);
    g_free(self);
}

static bool haproxy_open(const BalancerConfig *config, Balancer **ret, GError **error)
{
    g_autoptr(HaproxySettings) settings = NULL;
    Haproxy *self;

    if (!haproxy_settings_new(config, &settings, NULL, error))
        return false;
    self = g_new0(Haproxy, 1);
    self->base.ops = &balancer_haproxy_ops;
    self->settings = g_steal_pointer(&settings);
    self->entered = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    self->tallies = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    *ret = &self->base;
    return true;
}

static char *haproxy_lines(const BalancerConfig *config)
{
    g_autoptr(HaproxySettings) settings = NULL;
    g_autoptr(GError) failure = NULL;

    if (!haproxy_settings_new(config, &settings, NULL, &failure))
        return g_strdup_printf("# %s\n", failure->message);
    return haproxy_config_lines(settings);
}

const BalancerOps balancer_haproxy_ops = {
    .name = "haproxy",
    .check = haproxy_check,
    .open = haproxy_open,
    .close = haproxy_close,
    .config_lines = haproxy_lines,
    .verify = haproxy_verify,
    .observe = haproxy_observe,
    .enter = haproxy_enter,
    .route = haproxy_route,
    .drain = haproxy_drain,
    .leave = haproxy_leave,
    .switch_color = haproxy_switch_color,
    .counters = haproxy_counters,
    .weighs = true,
};
