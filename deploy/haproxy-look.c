/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions go one per connection: parts of an answer (why a check failed) come from instances and may hold blank lines, so answers that
 * stand one after the other could not be told apart for certain.
 */
#include "deploy/haproxy-look.h"

#include "base/error.h"
#include "base/file.h"
#include "deploy/haproxy-socket.h"

#include <fcntl.h>
#include <string.h>

void haproxy_look_free(HaproxyLook *look)
{
    if (!look)
        return;
    for (int i = 0; i < 2; i++)
        g_clear_pointer(&look->pools[i], g_ptr_array_unref);
    g_clear_pointer(&look->servers, g_ptr_array_unref);
    g_clear_pointer(&look->stats, g_ptr_array_unref);
    g_free(look);
}

/* Takes what @more holds; both free their elements alike. */
static void take_all(GPtrArray *all, GPtrArray *more)
{
    g_ptr_array_set_free_func(more, NULL);
    for (guint i = 0; i < more->len; i++)
        g_ptr_array_add(all, more->pdata[i]);
    g_ptr_array_unref(more);
}

bool haproxy_look_servers(const HaproxySettings *settings, unsigned index, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func((GDestroyNotify)haproxy_server_free);

    for (unsigned color = 0; color < settings->colors; color++) {
        g_autofree char *command = g_strdup_printf("show servers state %s", settings->backends[color]);
        g_autofree char *answer = NULL;
        GPtrArray *servers;

        if (!haproxy_ask(settings->sockets[index], command, &answer, error))
            return false;
        if (strstr(answer, "Can't find backend"))
            return fail(error, "HAProxy at '%s' has no backend '%s' (its lines: kiln deploy balancer-config %s)", settings->sockets[index],
                        settings->backends[color], settings->group);
        if (!haproxy_parse_servers(answer, &servers, error))
            return fail_prefix(error, "'%s'", settings->sockets[index]);
        take_all(all, servers);
    }
    *ret = g_steal_pointer(&all);
    return true;
}

/* Rows of one backend and its servers (types 2 and 4). */
static bool look_stats(const HaproxySettings *settings, unsigned index, HaproxyLook *look, GError **error)
{
    look->stats = g_ptr_array_new_with_free_func((GDestroyNotify)haproxy_stat_free);
    for (unsigned color = 0; color < settings->colors; color++) {
        const HaproxyServer *first = look->pools[color]->len > 0 ? look->pools[color]->pdata[0] : NULL;
        g_autofree char *command = g_strdup_printf("show stat %u 6 -1", first ? first->backend_id : 0);
        g_autofree char *answer = NULL;
        GPtrArray *stats;

        if (!first)
            continue;
        if (!haproxy_ask(settings->sockets[index], command, &answer, error))
            return false;
        if (!haproxy_parse_stats(answer, &stats, error))
            return fail_prefix(error, "'%s'", settings->sockets[index]);
        take_all(look->stats, stats);
    }
    return true;
}

bool haproxy_look_color(const HaproxySettings *settings, unsigned index, int32_t *ret, bool *ret_has_key, GError **error)
{
    g_autofree char *command = g_strdup_printf("show map %s", settings->maps[index]);
    g_autofree char *answer = NULL, *value = NULL;

    if (!haproxy_ask(settings->sockets[index], command, &answer, error))
        return false;
    if (strstr(answer, "Unknown map identifier"))
        return fail(error, "HAProxy at '%s' has not loaded the map '%s' (its lines: kiln deploy balancer-config %s)", settings->sockets[index],
                    settings->maps[index], settings->group);
    if (!haproxy_parse_map(answer, settings->group, &value, error))
        return fail_prefix(error, "'%s'", settings->sockets[index]);
    *ret = -1;
    *ret_has_key = value != NULL;
    for (unsigned color = 0; value && color < settings->colors; color++)
        if (strcmp(value, settings->backends[color]) == 0)
            *ret = (int32_t)color;
    return true;
}

static bool look_info(const HaproxySettings *settings, unsigned index, HaproxyLook *look, GError **error)
{
    g_autofree char *answer = NULL;

    if (!haproxy_ask(settings->sockets[index], "show info", &answer, error))
        return false;
    return haproxy_parse_info(answer, &look->info, error) || fail_prefix(error, "'%s'", settings->sockets[index]);
}

bool haproxy_look(const HaproxySettings *settings, unsigned index, HaproxyLook **ret, GError **error)
{
    g_autoptr(HaproxyLook) look = g_new0(HaproxyLook, 1);
    bool has_key;

    if (!look_info(settings, index, look, error) || !haproxy_look_servers(settings, index, &look->servers, error))
        return false;
    for (unsigned color = 0; color < settings->colors; color++)
        if (!haproxy_pool(look->servers, settings->backends[color], settings->prefix, &look->pools[color], error))
            return false;
    if (!look_stats(settings, index, look, error))
        return false;
    if (settings->colors == 2 && !haproxy_look_color(settings, index, &look->color, &has_key, error))
        return false;
    *ret = g_steal_pointer(&look);
    return true;
}

const HaproxyStat *haproxy_look_stat(const HaproxyLook *look, const char *backend, const char *server)
{
    for (guint i = 0; i < look->stats->len; i++) {
        const HaproxyStat *stat = look->stats->pdata[i];

        if (strcmp(stat->server, server) == 0 && strcmp(stat->proxy, backend) == 0)
            return stat;
    }
    return NULL;
}

int64_t haproxy_process_key(const HaproxyInfo *info)
{
    return ((info->started & 0xffffffffff) << 22) ^ (info->pid & 0x3fffff);
}

Route haproxy_server_route(const HaproxyServer *server)
{
    return haproxy_server_maint(server) ? ROUTE_OUT : haproxy_server_drained(server) ? ROUTE_DRAINED : ROUTE_IN;
}

static bool same(const HaproxyServer *a, const HaproxyServer *b)
{
    if (haproxy_server_maint(a) && haproxy_server_maint(b))
        return true; /* nobody is in it, whatever address it had */
    return haproxy_server_route(a) == haproxy_server_route(b) && a->port == b->port && strcmp(a->address, b->address) == 0 && a->weight == b->weight;
}

static char *address_of(const HaproxyServer *server)
{
    return g_strdup_printf(strchr(server->address, ':') ? "[%s]:%u" : "%s:%u", server->address, server->port);
}

/* --- the looks made one view --- */

typedef struct Merge {
    const HaproxySettings *settings;
    HaproxyLook *const *looks;
    HaproxyEnteredFn *entered;
    void *arg;
    BalancerView *view;
    GHashTable **rows; /* [count] "backend server" -> HaproxyStat* */
} Merge;

static const HaproxyStat *row_of(const Merge *m, unsigned index, const HaproxyServer *server)
{
    g_autofree char *key = g_strdup_printf("%s %s", server->backend, server->name);

    return g_hash_table_lookup(m->rows[index], key);
}

static GHashTable *rows_of(const HaproxyLook *look)
{
    GHashTable *rows = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    for (guint i = 0; look && i < look->stats->len; i++) {
        const HaproxyStat *stat = look->stats->pdata[i];

        g_hash_table_replace(rows, g_strdup_printf("%s %s", stat->proxy, stat->server), (gpointer)stat);
    }
    return rows;
}

static void disagree(BalancerView *view, char *sentence /* consumed */)
{
    view->answers = false;
    if (!view->problem)
        view->problem = g_steal_pointer(&sentence);
    g_free(sentence);
}

/* One balancer's word on a place, folded into the entry. */
static void fold(const Merge *m, unsigned index, uint32_t color, const HaproxyServer *server, BalancerEntry *entry)
{
    const HaproxyLook *look = m->looks[index];
    const HaproxyStat *stat = row_of(m, index, server);
    Route route = haproxy_server_route(server);
    bool before = route == ROUTE_DRAINED && m->entered(index, color, entry->place, m->arg) != haproxy_process_key(&look->info);
    double needed = (1 + (stat ? stat->rise : 1)) * m->settings->health_interval;

    entry->up = entry->up && haproxy_server_up(server) && !(before && (double)look->info.uptime < needed);
    entry->sessions += stat ? stat->sessions + stat->queued : 1;
    if (!stat) /* never taken for empty */
        disagree(m->view, g_strdup_printf("HAProxy at '%s' shows no statistics of '%s/%s'", m->settings->sockets[index], server->backend,
                                          server->name));
    if (before && (double)look->info.uptime < m->settings->reload_grace)
        entry->sessions++;
    if (entry->route != route)
        entry->route = ROUTE_UNKNOWN;
    entry->weight = MIN(entry->weight, server->weight);
}

/* NULL: empty everywhere. */
static BalancerEntry *merge_place(const Merge *m, uint32_t color, uint32_t place)
{
    BalancerEntry *entry = NULL;
    const HaproxyServer *first = NULL;
    bool all = true, equal = true, used = false;

    for (unsigned i = 0; i < m->settings->count; i++) {
        const HaproxyServer *server = m->looks[i] ? m->looks[i]->pools[color]->pdata[place] : NULL;

        all = all && server;
        if (!server)
            continue;
        if (!first) {
            first = server;
            entry = g_new0(BalancerEntry, 1);
            *entry = (BalancerEntry){.color = color, .place = place, .route = haproxy_server_route(server), .up = true, .weight = WEIGHT_MAX};
        }
        used = used || !haproxy_server_maint(server);
        equal = equal && same(server, first);
        fold(m, i, color, server, entry);
    }
    if (!used) {
        balancer_entry_free(entry);
        return NULL;
    }
    entry->address = address_of(first);
    if (!all || !equal) {
        entry->route = ROUTE_UNKNOWN;
        entry->up = false;
    }
    if (!equal)
        disagree(m->view, g_strdup_printf("the balancers do not agree about place %u of '%s': one has %s, another has something else", place,
                                          m->settings->backends[color], entry->address));
    return entry;
}

static void merge_colors(const Merge *m)
{
    const HaproxyLook *first = NULL;

    m->view->color = -1;
    for (unsigned i = 0; m->settings->colors == 2 && i < m->settings->count; i++) {
        const HaproxyLook *look = m->looks[i];

        if (look && !first) {
            first = look;
            m->view->color = look->color;
        } else if (look && look->color != first->color) {
            m->view->color = -1;
            disagree(m->view, g_strdup_printf("the balancers' maps do not name one backend for group '%s'", m->settings->group));
            return;
        }
    }
}

static unsigned smallest_pool(const HaproxySettings *settings, HaproxyLook *const *looks)
{
    unsigned places = G_MAXUINT;

    for (unsigned i = 0; i < settings->count; i++)
        for (unsigned color = 0; looks[i] && color < settings->colors; color++)
            places = MIN(places, looks[i]->pools[color]->len);
    return places == G_MAXUINT ? 0 : places;
}

void haproxy_view_merge(const HaproxySettings *settings, HaproxyLook *const *looks, char *problem, HaproxyEnteredFn *entered, void *arg,
                        BalancerView *ret)
{
    Merge m = {.settings = settings, .looks = looks, .entered = entered, .arg = arg, .view = ret};

    *ret = (BalancerView){.answers = !problem, .reached = !problem, .problem = problem, .places = smallest_pool(settings, looks)};
    ret->entries = g_ptr_array_new_with_free_func((GDestroyNotify)balancer_entry_free);
    m.rows = g_new0(GHashTable *, settings->count);
    for (unsigned i = 0; i < settings->count; i++)
        m.rows[i] = rows_of(looks[i]);
    for (uint32_t color = 0; color < settings->colors; color++)
        for (uint32_t place = 0; place < ret->places; place++) {
            BalancerEntry *entry = merge_place(&m, color, place);

            if (entry)
                g_ptr_array_add(ret->entries, entry);
        }
    merge_colors(&m);
    for (unsigned i = 0; i < settings->count; i++)
        g_hash_table_unref(m.rows[i]);
    g_free(m.rows);
}

/* --- after a reload --- */

static const HaproxyServer *find_named(const GPtrArray *servers, const HaproxyServer *like)
{
    for (guint i = 0; i < servers->len; i++) {
        const HaproxyServer *server = servers->pdata[i];

        if (strcmp(server->name, like->name) == 0 && strcmp(server->backend, like->backend) == 0)
            return server;
    }
    return NULL;
}

char *haproxy_look_lost(const HaproxySettings *settings, unsigned index, const HaproxyLook *look)
{
    g_autoptr(GBytes) text = NULL;
    g_autoptr(GPtrArray) saved = NULL;

    if (!file_load(AT_FDCWD, settings->state_files[index], HAPROXY_ANSWER_MAX, &text, NULL) || g_bytes_get_size(text) == 0 ||
        !haproxy_parse_servers(g_bytes_get_data(text, NULL), &saved, NULL))
        return NULL; /* never written by us: nothing to lose */
    for (guint i = 0; i < saved->len; i++) {
        const HaproxyServer *was = saved->pdata[i], *is = find_named(look->servers, was);

        if (haproxy_server_maint(was) || (is && same(is, was)))
            continue;
        return g_strdup_printf("HAProxy at '%s' was reloaded and forgot what '%s' says about server '%s/%s' (does the backend load that file?)",
                               settings->sockets[index], settings->state_files[index], was->backend, was->name);
    }
    return NULL;
}
