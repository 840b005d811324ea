/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor's thread and its list.
 *
 * The thread alone speaks to curl; the list is under the lock. A check under way holds a reference to its row, so that a row may be
 * forgotten, or get another address, at any time: the result is then nobody's. At most IN_FLIGHT_MAX checks run at once, which bounds
 * memory and descriptors; the rest waits for its turn, first due first served.
 */
#include "deploy/health.h"

#include "base/http.h"
#include "base/scope.h"

#include <string.h>

#define IN_FLIGHT_MAX 256
#define INTERVAL_DEFAULT 2.0
#define INTERVAL_MIN 0.01
#define TIMEOUT_MAX 5.0
#define IDLE_SECONDS 60.0

typedef struct Row {
    int references;    /* the list's, and that of the check under way */
    bool forgotten;    /* no longer the list's */
    bool in_flight;
    char *url;
    int64_t due;       /* monotonic, us */
    Health state;
    unsigned passes, failures; /* in a row */
    char *reason;
} Row;

struct HealthMonitor {
    GMutex lock;
    GCond changed;
    GThread *thread;
    HttpProbes *probes;
    GHashTable *rows; /* key -> Row* */
    char *path;
    bool connect_only, always;
    unsigned port, rise, fall, in_flight;
    double interval, timeout;
    uint64_t changes, changes_seen;
    bool stopping;
};

static void row_unref(Row *row)
{
    if (--row->references > 0)
        return;
    g_free(row->url);
    g_free(row->reason);
    g_free(row);
}

static void row_forget(gpointer data)
{
    Row *row = data;

    row->forgotten = true;
    row_unref(row);
}

/* --- the thread --- */

static void set_state(HealthMonitor *m, Row *row, Health state)
{
    if (row->state == state)
        return;
    row->state = state;
    m->changes++;
    g_cond_broadcast(&m->changed);
}

/* Called by http_probes_run(), without the lock. */
static void on_result(void *tag, int status, const char *problem, void *arg)
{
    HealthMonitor *m = arg;
    Row *row = tag;
    AUTO_LOCK(&m->lock);
    bool passed = !problem && (m->connect_only || (status >= 200 && status < 400));

    m->in_flight--;
    row->in_flight = false;
    if (!row->forgotten) {
        g_free(row->reason);
        row->reason = problem ? g_strdup(problem) : m->connect_only ? g_strdup("connected") : g_strdup_printf("HTTP %d", status);
        row->passes = passed ? row->passes + 1 : 0;
        row->failures = passed ? 0 : row->failures + 1;
        if (row->passes >= m->rise)
            set_state(m, row, HEALTH_GOOD);
        else if (row->failures >= m->fall)
            set_state(m, row, HEALTH_BAD);
    }
    row_unref(row);
}

static Row *first_due(HealthMonitor *m)
{
    Row *first = NULL, *row;
    GHashTableIter iter;

    g_hash_table_iter_init(&iter, m->rows);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&row))
        if (!row->in_flight && (!first || row->due < first->due))
            first = row;
    return first;
}

static int by_due(const void *a, const void *b)
{
    const Row *const *x = a, *const *y = b;

    return (*x)->due < (*y)->due ? -1 : (*x)->due > (*y)->due;
}

static void begin_check(HealthMonitor *m, Row *row, int64_t now)
{
    row->in_flight = true;
    row->references++;
    row->due = now + (int64_t)(m->interval * G_USEC_PER_SEC);
    m->in_flight++;
    http_probes_add(m->probes, row->url, m->connect_only, m->timeout, row);
}

/* Begins what is due; tells how long nothing will be. */
static double begin_checks(HealthMonitor *m)
{
    g_autoptr(GPtrArray) due = g_ptr_array_new();
    int64_t now = g_get_monotonic_time();
    GHashTableIter iter;
    Row *row;

    g_hash_table_iter_init(&iter, m->rows);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&row))
        if (!row->in_flight && row->due <= now)
            g_ptr_array_add(due, row);
    g_ptr_array_sort(due, by_due);
    for (guint i = 0; i < due->len && m->in_flight < IN_FLIGHT_MAX; i++)
        begin_check(m, due->pdata[i], now);

    row = first_due(m);
    if (!row || m->in_flight >= IN_FLIGHT_MAX)
        return IDLE_SECONDS;
    return CLAMP((double)(row->due - now) / G_USEC_PER_SEC, 0.001, IDLE_SECONDS);
}

static gpointer watch_thread(gpointer data)
{
    HealthMonitor *m = data;

    g_mutex_lock(&m->lock);
    while (!m->stopping) {
        double pause = begin_checks(m);

        g_mutex_unlock(&m->lock);
        http_probes_run(m->probes, pause, on_result, m);
        g_mutex_lock(&m->lock);
    }
    g_mutex_unlock(&m->lock);
    return NULL;
}

/* --- the face --- */

HealthMonitor *health_new(const HealthSpec *spec)
{
    HealthMonitor *m = g_new0(HealthMonitor, 1);

    m->path = g_strdup(spec->http ? spec->http : "/");
    m->connect_only = !spec->http;
    m->always = !spec->http && !spec->tcp;
    m->port = spec->port;
    m->rise = MAX(spec->rise, 1);
    m->fall = MAX(spec->fall, 1);
    m->interval = spec->interval > 0 ? MAX(spec->interval, INTERVAL_MIN) : INTERVAL_DEFAULT;
    m->timeout = spec->timeout > 0 ? spec->timeout : MIN(m->interval, TIMEOUT_MAX);
    m->rows = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, row_forget);
    g_mutex_init(&m->lock);
    g_cond_init(&m->changed);
    if (!m->always) {
        m->probes = http_probes_new();
        m->thread = g_thread_new("health", watch_thread, m);
    }
    return m;
}

static void drop_result(void *tag, int status, const char *problem, void *arg)
{
    row_unref(tag);
}

void health_free(HealthMonitor *m)
{
    if (!m)
        return;
    g_mutex_lock(&m->lock);
    m->stopping = true;
    g_mutex_unlock(&m->lock);
    if (m->thread) {
        http_probes_wake(m->probes);
        g_thread_join(m->thread);
        http_probes_abandon(m->probes, drop_result, m);
        http_probes_free(m->probes);
    }
    g_hash_table_unref(m->rows);
    g_mutex_clear(&m->lock);
    g_cond_clear(&m->changed);
    g_free(m->path);
    g_free(m);
}

/* "IP", "IP:PORT", "IPv6" or "[IPv6]:PORT". */
static char *url_of(const HealthMonitor *m, const char *address)
{
    const char *colon = strchr(address, ':');
    const char *slash = *m->path == '/' ? "" : "/";

    if (address[0] == '[' && strstr(address, "]:"))
        return g_strdup_printf("http://%s%s%s", address, slash, m->path);
    if (colon && strchr(colon + 1, ':') && address[0] != '[')
        return g_strdup_printf("http://[%s]:%u%s%s", address, m->port, slash, m->path);
    if (colon && address[0] != '[')
        return g_strdup_printf("http://%s%s%s", address, slash, m->path);
    return g_strdup_printf("http://%s:%u%s%s", address, m->port, slash, m->path);
}

void health_watch(HealthMonitor *m, const char *key, const char *address)
{
    AUTO_LOCK(&m->lock);
    g_autofree char *url = url_of(m, address);
    Row *row = g_hash_table_lookup(m->rows, key);

    if (row && strcmp(row->url, url) == 0)
        return;
    row = g_new0(Row, 1);
    row->references = 1;
    row->url = g_steal_pointer(&url);
    row->due = g_get_monotonic_time();
    row->state = m->always ? HEALTH_GOOD : HEALTH_UNKNOWN;
    row->reason = g_strdup(m->always ? "running" : "not checked yet");
    g_hash_table_replace(m->rows, g_strdup(key), row);
    m->changes += m->always;
    if (m->probes)
        http_probes_wake(m->probes);
}

void health_forget(HealthMonitor *m, const char *key)
{
    AUTO_LOCK(&m->lock);

    g_hash_table_remove(m->rows, key);
}

Health health_state(HealthMonitor *m, const char *key)
{
    AUTO_LOCK(&m->lock);
    const Row *row = g_hash_table_lookup(m->rows, key);

    return row ? row->state : HEALTH_UNKNOWN;
}

char *health_reason(HealthMonitor *m, const char *key)
{
    AUTO_LOCK(&m->lock);
    const Row *row = g_hash_table_lookup(m->rows, key);

    return g_strdup(row ? row->reason : "not watched");
}

bool health_wait(HealthMonitor *m, double seconds)
{
    AUTO_LOCK(&m->lock);
    int64_t end = g_get_monotonic_time() + (int64_t)(seconds * G_USEC_PER_SEC);
    bool changed;

    while (m->changes == m->changes_seen && g_cond_wait_until(&m->changed, &m->lock, end))
        ;
    changed = m->changes != m->changes_seen;
    m->changes_seen = m->changes;
    return changed;
}
