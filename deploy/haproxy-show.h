/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads what HAProxy's runtime API shows. Pure: text in, structs out, nothing asked and nothing changed.
 *
 *   show servers state BACKEND   where each place's address, administrative and operational state stand; also the
 *                                format of the server-state file
 *   show stat BACKEND ...        sessions, counters, the balance algorithm
 *   show map FILE, show info
 *
 * The text is as trustworthy as the balancer, and parts of it (the reason of a failed check) come from instances: lines, fields and
 * rows are bounded, numbers are whole numbers in range, names have no blanks.
 */
#ifndef KILN_DEPLOY_HAPROXY_SHOW_H
#define KILN_DEPLOY_HAPROXY_SHOW_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    HAPROXY_ROWS_MAX = 20000,
    HAPROXY_FIELDS_MAX = 256,
    HAPROXY_NAME_MAX = 255,
};

/* Bits of srv_admin_state, values of srv_op_state and srv_check_result, as HAProxy 2.x has them. */
enum { HAPROXY_ADMIN_MAINT = 0x01 | 0x02 | 0x20, HAPROXY_ADMIN_DRAIN = 0x08 | 0x10 };
enum { HAPROXY_OP_STOPPED = 0, HAPROXY_OP_STARTING = 1, HAPROXY_OP_RUNNING = 2, HAPROXY_OP_STOPPING = 3 };
enum { HAPROXY_CHECK_INPROGRESS = 1, HAPROXY_CHECK_CONFIGURED = 2, HAPROXY_CHECK_ENABLED = 4 };

typedef struct HaproxyServer {
    unsigned backend_id; /* a frontend may have a backend's name, so statistics are asked for by number */
    char *backend, *name;
    char *address; /* IP, or "-" */
    char *fqdn;    /* host name of the configuration, NULL: a literal address, which no state file brings back */
    unsigned port;
    unsigned op_state, admin_state;
    unsigned weight;
    unsigned check_status, check_result, check_state;
    char **fields; /* the whole line */
} HaproxyServer;
void haproxy_server_free(HaproxyServer *server);

/* "show servers state [BACKEND]", or a server-state file. */
bool haproxy_parse_servers(const char *text, GPtrArray **ret /* of HaproxyServer* */, GError **error);

/*
 * The checks pass now: running, and the last finished check passed. While a check is on its way HAProxy shows no result, and the status of
 * the one before.
 */
bool haproxy_server_up(const HaproxyServer *server);
bool haproxy_server_maint(const HaproxyServer *server);
bool haproxy_server_drained(const HaproxyServer *server);

/*
 * A server-state file from what was shown. Where the checks do not pass, the result is written as unknown: HAProxy takes a result from
 * the file for its own, and a server that leaves maintenance at start counts as running before its first check.
 */
char *haproxy_state_text(const GPtrArray *servers /* of HaproxyServer* */);

typedef struct HaproxyStat {
    char *proxy, *server; /* server: "BACKEND" and "FRONTEND" are the proxy's own rows */
    char *algorithm, *mode, *cookie; /* of BACKEND rows; "" otherwise */
    uint64_t sessions, queued;
    uint64_t answers;     /* req_tot in HTTP mode, stot else */
    uint64_t answers_5xx, failed_connects, failed_answers, aborted_answers;
    uint64_t time_ms;     /* average of total times, as HAProxy ages it */
    unsigned rise, fall;  /* 0: no check */
} HaproxyStat;
void haproxy_stat_free(HaproxyStat *stat);

/* CSV; columns are found by their names. Numbers that are absent are 0. */
bool haproxy_parse_stats(const char *text, GPtrArray **ret /* of HaproxyStat* */, GError **error);

/*
 * HAProxy shows an average, not a sum: plain over the first 512 requests, then each request moves it by 1/512. From two averages and the
 * numbers of requests at them follows the mean of what lies between (the one that, if constant, explains both). Errors of rounding
 * cancel over successive intervals, so sums of mean * requests are honest. Never negative.
 */
double haproxy_mean_between(uint64_t requests0, uint64_t average0, uint64_t requests1, uint64_t average1);

typedef struct HaproxyInfo {
    int64_t pid;
    int64_t uptime;  /* seconds */
    int64_t started; /* seconds since 1970; 0: not shown */
    char version[64];
} HaproxyInfo;
bool haproxy_parse_info(const char *text, HaproxyInfo *ret, GError **error);

/* "show map FILE": the value of @key, or NULL in *ret. */
bool haproxy_parse_map(const char *text, const char *key, char **ret, GError **error);

/* "PREFIX12" -> 12: false when it does not end in a number, or one with a leading zero, or above 1000000. */
bool haproxy_name_number(const char *name, size_t *ret_prefix_length, unsigned *ret_number);

/*
 * The pool: servers of @backend named @prefix + number, sorted by number (borrowed from @servers). @prefix NULL: that of
 * all servers there, which then have to have the same one.
 */
bool haproxy_pool(const GPtrArray *servers, const char *backend, const char *prefix, GPtrArray **ret, GError **error);

#endif
