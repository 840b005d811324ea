/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsers of HAProxy's answers. They take whole texts, as the socket client bounds them; see the header for what is trusted.
 */
#include "deploy/haproxy-show.h"

#include "base/error.h"

#include <math.h>
#include <string.h>

#define STATE_FIELDS_MIN 19 /* up to and with srv_port; later versions add some */
#define STATE_FIELDS_MAX 64
#define AVERAGE_WINDOW 512.0 /* TIME_STATS_SAMPLES */
#define NUMBER_MAX 1000000
#define CHECK_STATUS_INI 1

/* Positions in a line of "show servers state", version 1. */
enum {
    FIELD_BACKEND_ID = 0,
    FIELD_BACKEND = 1,
    FIELD_NAME = 3,
    FIELD_ADDRESS = 4,
    FIELD_OP_STATE = 5,
    FIELD_ADMIN_STATE = 6,
    FIELD_WEIGHT = 7,
    FIELD_CHECK_STATUS = 10,
    FIELD_CHECK_RESULT = 11,
    FIELD_CHECK_STATE = 13,
    FIELD_FQDN = 17,
    FIELD_PORT = 18,
};

enum { RESULT_UNKNOWN = 0, RESULT_PASSED = 3, RESULT_CONDITIONAL = 4 };

void haproxy_server_free(HaproxyServer *server)
{
    if (!server)
        return;
    g_free(server->backend);
    g_free(server->name);
    g_free(server->address);
    g_free(server->fqdn);
    g_strfreev(server->fields);
    g_free(server);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HaproxyServer, haproxy_server_free)

void haproxy_stat_free(HaproxyStat *stat)
{
    if (!stat)
        return;
    g_free(stat->proxy);
    g_free(stat->server);
    g_free(stat->algorithm);
    g_free(stat->mode);
    g_free(stat->cookie);
    g_free(stat);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HaproxyStat, haproxy_stat_free)

/* Names that may stand in a command: nothing that ends a word or a command. */
static bool name_is_sound(const char *name)
{
    size_t length = strlen(name);

    if (length == 0 || length > HAPROXY_NAME_MAX)
        return false;
    for (const char *c = name; *c; c++)
        if (!g_ascii_isalnum(*c) && !strchr("._:-", *c))
            return false;
    return true;
}

static bool parse_unsigned(const char *text, unsigned max, unsigned *ret)
{
    guint64 value;

    if (!g_ascii_string_to_unsigned(text, 10, 0, max, &value, NULL))
        return false;
    *ret = (unsigned)value;
    return true;
}

/* A line that is none of the dump is an answer in words: it is told. */
static bool fail_words(const char *text, const char *what, GError **error)
{
    const char *start = text + strspn(text, " \n");
    g_autofree char *line = g_strndup(start, MIN(strcspn(start, "\n"), 200));
    g_autofree char *shown = g_utf8_make_valid(g_strstrip(line), -1);

    for (char *c = shown; *c; c++)
        if (g_ascii_iscntrl(*c))
            *c = ' ';
    return fail(error, "HAProxy answers '%s' where %s is expected", *shown ? shown : "nothing", what);
}

static bool parse_server(const char *line, size_t length, HaproxyServer **ret)
{
    g_autoptr(HaproxyServer) server = g_new0(HaproxyServer, 1);
    g_autofree char *copy = g_strndup(line, length);
    char **f;

    server->fields = g_strsplit(copy, " ", STATE_FIELDS_MAX + 1);
    f = server->fields;
    if (g_strv_length(f) < STATE_FIELDS_MIN || g_strv_length(f) > STATE_FIELDS_MAX)
        return false;
    if (!name_is_sound(f[FIELD_BACKEND]) || !name_is_sound(f[FIELD_NAME]) || !name_is_sound(f[FIELD_ADDRESS]) || !name_is_sound(f[FIELD_FQDN]))
        return false;
    if (!parse_unsigned(f[FIELD_BACKEND_ID], G_MAXINT, &server->backend_id) || !parse_unsigned(f[FIELD_OP_STATE], 3, &server->op_state) ||
        !parse_unsigned(f[FIELD_ADMIN_STATE], 0xff, &server->admin_state) ||
        !parse_unsigned(f[FIELD_WEIGHT], 256, &server->weight) || !parse_unsigned(f[FIELD_CHECK_STATUS], 255, &server->check_status) ||
        !parse_unsigned(f[FIELD_CHECK_RESULT], 255, &server->check_result) || !parse_unsigned(f[FIELD_CHECK_STATE], 255, &server->check_state) ||
        !parse_unsigned(f[FIELD_PORT], 65535, &server->port))
        return false;

    server->backend = g_strdup(f[FIELD_BACKEND]);
    server->name = g_strdup(f[FIELD_NAME]);
    server->address = g_strdup(f[FIELD_ADDRESS]);
    server->fqdn = strcmp(f[FIELD_FQDN], "-") == 0 ? NULL : g_strdup(f[FIELD_FQDN]);
    *ret = g_steal_pointer(&server);
    return true;
}

bool haproxy_parse_servers(const char *text, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) servers = g_ptr_array_new_with_free_func((GDestroyNotify)haproxy_server_free);
    const char *line = text;

    if (!g_str_has_prefix(text, "1\n"))
        return fail_words(text, "version 1 of its servers' states", error);
    for (line += 2; *line;) {
        size_t length = strcspn(line, "\n");
        HaproxyServer *server;

        if (length > 0 && *line != '#') {
            if (servers->len >= HAPROXY_ROWS_MAX)
                return fail(error, "HAProxy shows more than %d servers", HAPROXY_ROWS_MAX);
            if (!parse_server(line, length, &server))
                return fail_words(line, "a server's state", error);
            g_ptr_array_add(servers, server);
        }
        line += length + (line[length] == '\n');
    }
    *ret = g_steal_pointer(&servers);
    return true;
}

/* L4OK, L6OK, L7OK, L7OKC, PROCOK. */
static bool status_passed(unsigned status)
{
    return status == 6 || status == 9 || status == 15 || status == 16 || status == 20;
}

bool haproxy_server_up(const HaproxyServer *server)
{
    bool checked = (server->check_state & HAPROXY_CHECK_CONFIGURED) && (server->check_state & HAPROXY_CHECK_ENABLED);
    bool passed = server->check_result == RESULT_PASSED || server->check_result == RESULT_CONDITIONAL;

    if (!passed && server->check_result == RESULT_UNKNOWN && (server->check_state & HAPROXY_CHECK_INPROGRESS))
        passed = status_passed(server->check_status);
    return checked && passed && server->op_state == HAPROXY_OP_RUNNING && !haproxy_server_maint(server);
}

bool haproxy_server_maint(const HaproxyServer *server)
{
    return server->admin_state & HAPROXY_ADMIN_MAINT;
}

bool haproxy_server_drained(const HaproxyServer *server)
{
    return !haproxy_server_maint(server) && (server->admin_state & HAPROXY_ADMIN_DRAIN);
}

char *haproxy_state_text(const GPtrArray *servers)
{
    g_autoptr(GString) text = g_string_new("1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
                                           "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state "
                                           "srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl "
                                           "srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n");

    for (guint i = 0; i < servers->len; i++) {
        const HaproxyServer *server = servers->pdata[i];
        bool up = haproxy_server_up(server);

        for (guint j = 0; server->fields[j]; j++) {
            const char *field = server->fields[j];

            if (j == FIELD_CHECK_STATUS && !up)
                field = G_STRINGIFY(CHECK_STATUS_INI);
            else if (j == FIELD_CHECK_RESULT && !up)
                field = G_STRINGIFY(0);
            g_string_append_printf(text, "%s%s", j > 0 ? " " : "", field);
        }
        g_string_append_c(text, '\n');
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

/* --- CSV --- */

/* The fields of one record, and the start of the next one. A field may be quoted and then hold commas, line ends and doubled quotes. */
static bool csv_record(const char **text, GPtrArray *fields)
{
    const char *c = *text;

    g_ptr_array_set_size(fields, 0);
    for (;;) {
        g_autoptr(GString) field = g_string_new(NULL);

        if (*c == '"') {
            for (c++; *c && !(*c == '"' && c[1] != '"'); c++) {
                if (*c == '"')
                    c++;
                g_string_append_c(field, *c);
            }
            if (*c != '"')
                return false;
            c++;
        } else {
            size_t length = strcspn(c, ",\n");

            g_string_append_len(field, c, (gssize)length);
            c += length;
        }
        if (fields->len >= HAPROXY_FIELDS_MAX || (*c && *c != ',' && *c != '\n'))
            return false;
        g_ptr_array_add(fields, g_string_free(g_steal_pointer(&field), FALSE));
        if (*c != ',')
            break;
        c++;
    }
    *text = c + (*c == '\n');
    return true;
}

static const char *column(GPtrArray *titles, GPtrArray *fields, const char *title)
{
    for (guint i = 0; i < titles->len && i < fields->len; i++)
        if (strcmp(titles->pdata[i], title) == 0)
            return fields->pdata[i];
    return "";
}

static bool column_number(GPtrArray *titles, GPtrArray *fields, const char *title, uint64_t *ret)
{
    const char *text = column(titles, fields, title);
    guint64 value = 0;

    if (*text && !g_ascii_string_to_unsigned(text, 10, 0, G_MAXINT64, &value, NULL))
        return false;
    *ret = value;
    return true;
}

static bool parse_stat(GPtrArray *titles, GPtrArray *fields, HaproxyStat **ret)
{
    g_autoptr(HaproxyStat) stat = g_new0(HaproxyStat, 1);
    uint64_t total, rise, fall;

    stat->proxy = g_strdup(column(titles, fields, "pxname"));
    stat->server = g_strdup(column(titles, fields, "svname"));
    stat->algorithm = g_strdup(column(titles, fields, "algo"));
    stat->mode = g_strdup(column(titles, fields, "mode"));
    stat->cookie = g_strdup(column(titles, fields, "cookie"));
    if (!name_is_sound(stat->proxy) || !name_is_sound(stat->server))
        return false;
    if (!column_number(titles, fields, "scur", &stat->sessions) || !column_number(titles, fields, "qcur", &stat->queued) ||
        !column_number(titles, fields, "req_tot", &stat->answers) || !column_number(titles, fields, "stot", &total) ||
        !column_number(titles, fields, "hrsp_5xx", &stat->answers_5xx) || !column_number(titles, fields, "econ", &stat->failed_connects) ||
        !column_number(titles, fields, "eresp", &stat->failed_answers) || !column_number(titles, fields, "srv_abrt", &stat->aborted_answers) ||
        !column_number(titles, fields, "ttime", &stat->time_ms) || !column_number(titles, fields, "check_rise", &rise) ||
        !column_number(titles, fields, "check_fall", &fall))
        return false;
    if (strcmp(stat->mode, "http") != 0)
        stat->answers = total;
    stat->rise = (unsigned)MIN(rise, NUMBER_MAX);
    stat->fall = (unsigned)MIN(fall, NUMBER_MAX);
    *ret = g_steal_pointer(&stat);
    return true;
}

bool haproxy_parse_stats(const char *text, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) stats = g_ptr_array_new_with_free_func((GDestroyNotify)haproxy_stat_free);
    g_autoptr(GPtrArray) titles = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) fields = g_ptr_array_new_with_free_func(g_free);
    const char *line = text;

    if (!g_str_has_prefix(text, "# pxname,"))
        return fail_words(text, "its statistics", error);
    line += 2;
    if (!csv_record(&line, titles))
        return fail_words(text, "its statistics", error);
    while (*line) {
        const char *start = line;
        HaproxyStat *stat;

        if (*line == '\n') {
            line++;
            continue;
        }
        if (stats->len >= HAPROXY_ROWS_MAX)
            return fail(error, "HAProxy shows statistics of more than %d servers", HAPROXY_ROWS_MAX);
        if (!csv_record(&line, fields) || !parse_stat(titles, fields, &stat))
            return fail_words(start, "a row of its statistics", error);
        g_ptr_array_add(stats, stat);
    }
    *ret = g_steal_pointer(&stats);
    return true;
}

double haproxy_mean_between(uint64_t requests0, uint64_t average0, uint64_t requests1, uint64_t average1)
{
    double r0 = (double)requests0, r1 = (double)requests1;
    double kept; /* the share of the first average that is still in the second */

    if (requests1 <= requests0)
        return 0;
    if (r1 <= AVERAGE_WINDOW)
        kept = r0 / r1;
    else
        kept = MIN(r0, AVERAGE_WINDOW) / AVERAGE_WINDOW * pow(1 - 1 / AVERAGE_WINDOW, r1 - MAX(r0, AVERAGE_WINDOW));
    return MAX(0, ((double)average1 - kept * (double)average0) / (1 - kept));
}

/* --- info and maps --- */

static bool info_number(const char *line, const char *key, int64_t *ret)
{
    size_t length = strlen(key);
    g_autofree char *value = NULL;

    if (strncmp(line, key, length) != 0)
        return false;
    value = g_strndup(line + length, MIN(strcspn(line + length, "\n"), 32));
    return g_ascii_string_to_signed(value, 10, 0, G_MAXINT64, ret, NULL);
}

bool haproxy_parse_info(const char *text, HaproxyInfo *ret, GError **error)
{
    HaproxyInfo info = {.pid = -1, .uptime = -1};

    if (!g_str_has_prefix(text, "Name: "))
        return fail_words(text, "information about itself", error);
    for (const char *line = text; *line;) {
        size_t length = strcspn(line, "\n");

        (void)(info_number(line, "Pid: ", &info.pid) || info_number(line, "Uptime_sec: ", &info.uptime) ||
               info_number(line, "Start_time_sec: ", &info.started));
        if (g_str_has_prefix(line, "Version: "))
            g_strlcpy(info.version, line + 9, MIN(sizeof(info.version), length - 9 + 1));
        line += length + (line[length] == '\n');
    }
    if (info.pid < 0 || info.uptime < 0)
        return fail(error, "HAProxy's information about itself names no process id or no uptime");
    *ret = info;
    return true;
}

bool haproxy_parse_map(const char *text, const char *key, char **ret, GError **error)
{
    g_autofree char *value = NULL;
    guint rows = 0;

    for (const char *line = text; *line;) {
        size_t length = strcspn(line, "\n");

        if (length > 0) {
            g_autofree char *copy = g_strndup(line, length);
            g_auto(GStrv) words = g_strsplit(copy, " ", 3); /* reference, key, value */

            if (!g_str_has_prefix(copy, "0x") || g_strv_length(words) != 3)
                return fail_words(line, "an entry of a map", error);
            if (++rows > HAPROXY_ROWS_MAX)
                return fail(error, "HAProxy's map has more than %d entries", HAPROXY_ROWS_MAX);
            if (!value && strcmp(words[1], key) == 0)
                value = g_strdup(words[2]);
        }
        line += length + (line[length] == '\n');
    }
    *ret = g_steal_pointer(&value);
    return true;
}

/* --- the pool --- */

bool haproxy_name_number(const char *name, size_t *ret_prefix_length, unsigned *ret_number)
{
    size_t length = strlen(name);

    while (length > 0 && g_ascii_isdigit(name[length - 1]))
        length--;
    if (length == 0 || name[length] == '0' || !parse_unsigned(name + length, NUMBER_MAX, ret_number))
        return false;
    *ret_prefix_length = length;
    return true;
}

static int by_number(const void *a, const void *b)
{
    const HaproxyServer *const *x = a, *const *y = b;
    unsigned m = 0, n = 0;
    size_t length;

    (void)haproxy_name_number((*x)->name, &length, &m); /* all of a pool have one */
    (void)haproxy_name_number((*y)->name, &length, &n);
    return m < n ? -1 : m > n;
}

bool haproxy_pool(const GPtrArray *servers, const char *backend, const char *prefix, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) pool = g_ptr_array_new();
    g_autofree char *found = g_strdup(prefix);

    for (guint i = 0; i < servers->len; i++) {
        HaproxyServer *server = servers->pdata[i];
        unsigned number;
        size_t length;

        if (strcmp(server->backend, backend) != 0 || !haproxy_name_number(server->name, &length, &number))
            continue;
        if (!found)
            found = g_strndup(server->name, length);
        if (strlen(found) == length && strncmp(found, server->name, length) == 0)
            g_ptr_array_add(pool, server);
        else if (!prefix)
            return fail(error, "HAProxy's backend '%s' has servers '%s1...' and '%s': name the pool by 'prefix' in the balancer block", backend,
                        found, server->name);
    }
    g_ptr_array_sort(pool, by_number);
    *ret = g_steal_pointer(&pool);
    return true;
}
