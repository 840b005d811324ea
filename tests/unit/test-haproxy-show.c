/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsers of what HAProxy shows, with answers as HAProxy 2.6.12 gave them, and with such as it never would.
 */
#include "base/error.h"
#include "deploy/haproxy-config.h"
#include "deploy/haproxy-show.h"
#include "deploy/haproxy-socket.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HEAD \
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status " \
    "srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl " \
    "srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n"
#define EMPTY "4 web 3 web3 127.0.0.1 0 5 1 1 3 1 0 0 14 0 0 0 kiln.invalid 1 - 0 0 - - 0\n"
#define DRAINED_FRESH "4 web 1 web1 127.7.0.3 0 12 1 1 0 15 3 0 6 0 0 0 kiln.invalid 8001 - 0 0 - - 0\n"  /* the former tenant's result */
#define DRAINED_UP "4 web 2 web2 127.7.0.2 2 12 1 1 1 15 3 4 6 0 0 0 kiln.invalid 8001 - 0 0 - - 0\n"
#define READY_UP "4 web 10 web10 127.7.0.2 2 4 100 1 1 15 3 4 6 0 0 0 kiln.invalid 8001 - 0 0 - - 0\n"
#define READY_CHECKING "4 web 11 web11 127.7.0.2 2 4 100 1 1 15 0 4 7 0 0 0 kiln.invalid 8001 - 0 0 - - 0\n"
#define FIRST_CHECKING "4 web 12 web12 127.7.0.2 2 12 100 1 1 1 0 4 7 0 0 0 kiln.invalid 8001 - 0 0 - - 0\n"
#define UNCHECKED "4 web 13 web13 127.7.0.2 2 4 1 1 1 15 3 4 0 0 0 0 - 8001 - 0 0 - - 0\n"

static GPtrArray *parse(const char *text)
{
    GError *error = NULL;
    GPtrArray *servers = NULL;

    g_assert_true(haproxy_parse_servers(text, &servers, &error));
    g_assert_no_error(error);
    return servers;
}

static void test_servers(void)
{
    g_autoptr(GPtrArray) servers = parse(HEAD EMPTY DRAINED_FRESH DRAINED_UP READY_UP READY_CHECKING FIRST_CHECKING UNCHECKED "\n");
    const bool up[] = {false, false, true, true, true, false, false};
    const bool maint[] = {true, false, false, false, false, false, false};
    const bool drained[] = {false, true, true, false, false, true, false};
    const HaproxyServer *server;

    g_assert_cmpuint(servers->len, ==, 7);
    for (guint i = 0; i < 7; i++) {
        server = servers->pdata[i];
        g_assert_cmpint(haproxy_server_up(server), ==, up[i]);
        g_assert_cmpint(haproxy_server_maint(server), ==, maint[i]);
        g_assert_cmpint(haproxy_server_drained(server), ==, drained[i]);
    }
    server = servers->pdata[3];
    g_assert_cmpstr(server->backend, ==, "web");
    g_assert_cmpstr(server->name, ==, "web10");
    g_assert_cmpstr(server->address, ==, "127.7.0.2");
    g_assert_cmpuint(server->port, ==, 8001);
    g_assert_cmpuint(server->weight, ==, 100);
    g_assert_cmpuint(server->backend_id, ==, 4);
    g_assert_cmpstr(server->fqdn, ==, "kiln.invalid");
    g_assert_null(((const HaproxyServer *)servers->pdata[6])->fqdn);
}

static void test_state_file(void)
{
    g_autoptr(GPtrArray) servers = parse(HEAD EMPTY DRAINED_FRESH DRAINED_UP READY_UP);
    g_autofree char *text = haproxy_state_text(servers);
    g_autoptr(GPtrArray) again = parse(text);
    const HaproxyServer *fresh = again->pdata[1];

    g_assert_cmpuint(again->len, ==, 4);
    g_assert_true(g_str_has_prefix(text, HEAD));
    g_assert_nonnull(strstr(text, DRAINED_UP));
    g_assert_nonnull(strstr(text, READY_UP));
    g_assert_null(strstr(text, DRAINED_FRESH)); /* HAProxy would take the result for its own */
    g_assert_cmpuint(fresh->check_result, ==, 0);
    g_assert_cmpuint(fresh->check_status, ==, 1);
    g_assert_cmpuint(fresh->port, ==, 8001);
}

static void refuse_servers(const char *text, const char *fragment)
{
    g_autoptr(GError) error = NULL;
    GPtrArray *servers = NULL;

    g_assert_false(haproxy_parse_servers(text, &servers, &error));
    g_assert_nonnull(error);
    g_assert_null(servers);
    g_assert_nonnull(strstr(error->message, fragment));
    g_assert_true(g_utf8_validate(error->message, -1, NULL));
}

static void test_servers_hostile(void)
{
    g_autoptr(GString) many = g_string_new(HEAD);

    refuse_servers("", "nothing");
    refuse_servers("Can't find backend.\n\n", "Can't find backend.");
    refuse_servers("2\n" EMPTY, "version 1");
    refuse_servers(HEAD "4 web 3 web3\n", "a server's state");
    refuse_servers(HEAD "4 web 3 web3 127.0.0.1 9 5 1 1 3 1 0 0 14 0 0 0 kiln.invalid 1 - 0 0 - - 0\n", "a server's state");
    refuse_servers(HEAD "4 web 3 web3 127.0.0.1 0 5 257 1 3 1 0 0 14 0 0 0 kiln.invalid 1 - 0 0 - - 0\n", "a server's state");
    refuse_servers(HEAD "4 web 3 web3 127.0.0.1 0 5 1 1 3 1 0 0 14 0 0 0 kiln.invalid 65536 - 0 0 - - 0\n", "a server's state");
    refuse_servers(HEAD "4 web 3 web;3 127.0.0.1 0 5 1 1 3 1 0 0 14 0 0 0 kiln.invalid 1 - 0 0 - - 0\n", "a server's state");
    refuse_servers(HEAD "4 web 3 \x1b[31mweb 127.0.0.1 0 5 1 1 3 1 0 0 14 0 0 0 kiln.invalid 1 - 0 0 - - 0\n", "a server's state");
    refuse_servers(HEAD "4 web 3  web3 127.0.0.1 -1 5 1 1 3 1 0 0 14 0 0 0 kiln.invalid 1 - 0 0 - - 0\n", "a server's state");
    for (int i = 0; i <= HAPROXY_ROWS_MAX; i++)
        g_string_append(many, EMPTY);
    refuse_servers(many->str, "more than");
}

static void test_pool(void)
{
    g_autoptr(GPtrArray) servers = parse(HEAD READY_UP DRAINED_UP EMPTY DRAINED_FRESH "4 web 20 spare1 127.0.0.1 0 5 1 1 3 1 0 0 14 0 0 0 - 1 - 0 0 - - 0\n"
                                                                                      "5 other 1 web1 127.0.0.1 0 5 1 1 3 1 0 0 14 0 0 0 - 1 - 0 0 - - 0\n");
    g_autoptr(GPtrArray) pool = NULL, none = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_false(haproxy_pool(servers, "web", NULL, &pool, &error)); /* two kinds of names */
    g_assert_nonnull(strstr(error->message, "'prefix'"));
    g_clear_error(&error);
    g_assert_true(haproxy_pool(servers, "web", "web", &pool, &error));
    g_assert_cmpuint(pool->len, ==, 4);
    g_assert_cmpstr(((HaproxyServer *)pool->pdata[0])->name, ==, "web1");
    g_assert_cmpstr(((HaproxyServer *)pool->pdata[3])->name, ==, "web10"); /* by number, not by letter */
    g_assert_true(haproxy_pool(servers, "nobody", NULL, &none, &error));
    g_assert_cmpuint(none->len, ==, 0);
}

static void test_names(void)
{
    size_t length = 0;
    unsigned number = 0;

    g_assert_true(haproxy_name_number("a-1b12", &length, &number));
    g_assert_cmpuint(length, ==, 4);
    g_assert_cmpuint(number, ==, 12);
    g_assert_false(haproxy_name_number("web", &length, &number));
    g_assert_false(haproxy_name_number("web01", &length, &number));
    g_assert_false(haproxy_name_number("12", &length, &number));
    g_assert_false(haproxy_name_number("web99999999999999999999", &length, &number));
    g_assert_false(haproxy_name_number("", &length, &number));
}

#define TITLES "# pxname,svname,qcur,scur,stot,econ,eresp,hrsp_5xx,req_tot,srv_abrt,ttime,mode,algo,cookie,check_rise,check_fall,last_chk,\n"

static void test_stats(void)
{
    static const char text[] = TITLES "web,web1,1,2,30,4,5,6,20,7,8,http,,,2,3,\"503, \"\"no\"\"\nat all\",\nweb,BACKEND,0,0,0,0,0,0,0,0,0,http,roundrobin,KILN,,,,\n"
                                      "raw,raw1,,,30,0,0,,,0,8,tcp,,,,,,\n\n";
    g_autoptr(GPtrArray) stats = NULL;
    g_autoptr(GError) error = NULL;
    const HaproxyStat *stat;

    g_assert_true(haproxy_parse_stats(text, &stats, &error));
    g_assert_cmpuint(stats->len, ==, 3);
    stat = stats->pdata[0];
    g_assert_cmpuint(stat->queued + 10 * stat->sessions, ==, 21);
    g_assert_cmpuint(stat->answers, ==, 20);
    g_assert_cmpuint(stat->failed_connects + 10 * stat->failed_answers + 100 * stat->answers_5xx + 1000 * stat->aborted_answers, ==, 7654);
    g_assert_cmpuint(stat->rise, ==, 2);
    stat = stats->pdata[1];
    g_assert_cmpstr(stat->algorithm, ==, "roundrobin");
    g_assert_cmpstr(stat->cookie, ==, "KILN");
    stat = stats->pdata[2];
    g_assert_cmpuint(stat->answers, ==, 30); /* a connection is what TCP answers */
}

static void refuse_stats(const char *text)
{
    g_autoptr(GError) error = NULL;
    GPtrArray *stats = NULL;

    g_assert_false(haproxy_parse_stats(text, &stats, &error));
    g_assert_nonnull(error);
    g_assert_null(stats);
}

static void test_stats_hostile(void)
{
    g_autoptr(GString) wide = g_string_new("# pxname,svname");

    refuse_stats("");
    refuse_stats("No such proxy.\n");
    refuse_stats(TITLES "web,web1,-1,2\n");
    refuse_stats(TITLES "web,web1,99999999999999999999,2\n");
    refuse_stats(TITLES "web,we b1,1,2\n");
    refuse_stats(TITLES "web,\"web1\n");          /* never closed */
    refuse_stats(TITLES "web,\"web1\"x,1,2\n");
    refuse_stats(TITLES ",,\n");
    for (int i = 0; i < HAPROXY_FIELDS_MAX; i++)
        g_string_append(wide, ",x");
    refuse_stats(wide->str);
}

/* HAProxy's own sums (swrate_add_dynamic) played, and the mean found again. */
static void play(uint64_t *sum, uint64_t *count, unsigned n, double mean)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t value = (uint64_t)(mean + (i % 2 ? 3 : -3));

        (*count)++;
        if (*count > 512)
            *sum = *sum - (*sum + 511) / 512 + value;
        else
            *sum += value;
    }
}

static uint64_t average(uint64_t sum, uint64_t count)
{
    uint64_t window = MIN(count, 512);

    return window ? (sum + window - 1) / window : 0;
}

static void test_means(void)
{
    const unsigned steps[] = {10, 100, 300, 200, 50, 1000, 5000, 20, 20, 20, 20, 400};
    const double means[] = {20, 40, 10, 30, 90, 15, 80, 30, 30, 30, 30, 200};
    uint64_t sum = 0, count = 0;
    double total = 0, found = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++) {
        uint64_t count0 = count, average0 = average(sum, count);
        double mean;

        play(&sum, &count, steps[i], means[i]);
        mean = haproxy_mean_between(count0, average0, count, average(sum, count));
        if (steps[i] >= 100)
            g_assert_cmpfloat(fabs(mean - means[i]), <, 8);
        total += means[i] * steps[i];
        found += mean * steps[i];
    }
    g_assert_cmpfloat(fabs(found / total - 1), <, 0.02);
    g_assert_cmpfloat(haproxy_mean_between(5, 10, 5, 99), ==, 0);
    g_assert_cmpfloat(haproxy_mean_between(9, 10, 5, 99), ==, 0);
    g_assert_cmpfloat(haproxy_mean_between(100, 1000, 110, 1), ==, 0); /* never negative */
}

static void test_info(void)
{
    g_autoptr(GError) error = NULL;
    HaproxyInfo info;

    g_assert_true(haproxy_parse_info("Name: HAProxy\nVersion: 2.6.12-1+deb12u4\nPid: 123\nUptime_sec: 7\nStart_time_sec: 1795809776\n\n", &info, &error));
    g_assert_cmpint(info.pid, ==, 123);
    g_assert_cmpint(info.uptime, ==, 7);
    g_assert_cmpint(info.started, ==, 1795809776);
    g_assert_cmpstr(info.version, ==, "2.6.12-1+deb12u4");
    g_assert_false(haproxy_parse_info("Name: HAProxy\nPid: x\nUptime_sec: 7\n", &info, NULL));
    g_assert_false(haproxy_parse_info("Name: HAProxy\nPid: -4\nUptime_sec: 7\n", &info, NULL));
    g_assert_false(haproxy_parse_info("Permission denied\n", &info, &error));
    g_assert_nonnull(strstr(error->message, "Permission denied"));
}

static void test_maps(void)
{
    g_autofree char *value = NULL, *none = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_true(haproxy_parse_map("0x55d0 db x\n0x55d1 web web-1\n\n", "web", &value, &error));
    g_assert_cmpstr(value, ==, "web-1");
    g_assert_true(haproxy_parse_map("0x55d0 db x\n", "web", &none, &error));
    g_assert_null(none);
    g_assert_false(haproxy_parse_map("Unknown map identifier. Please use #<id> or <file>.\n", "web", &none, &error));
}

/* --- the configuration's lines --- */

static HaproxySettings *settings_of(const char *arguments, Strategy strategy, bool sticky)
{
    g_autoptr(json_t) json = json_loads(arguments, 0, NULL);
    BalancerConfig config = {.group = "web", .arguments = json, .strategy = strategy, .places = 8, .health_http = "/he alth", .health_interval = 0.5,
                             .rise = 2, .fall = 3, .sticky = sticky};
    GError *error = NULL;
    HaproxySettings *settings = NULL;

    (void)haproxy_settings_new(&config, &settings, NULL, &error);
    g_assert_no_error(error);
    return settings;
}

static void test_lines_satisfy_the_check(void)
{
    g_autoptr(HaproxySettings) one = settings_of("{\"sockets\": \"/run/a.sock\", \"backend\": \"web\"}", STRATEGY_ROLLING, false);
    g_autoptr(HaproxySettings) two = settings_of("{\"sockets\": [\"/run/a.sock\", \"/run/b.sock\"], \"backend\": \"web\"}", STRATEGY_BLUEGREEN, true);
    g_autofree char *lines = haproxy_config_lines(one), *more = haproxy_config_lines(two);
    g_autoptr(GError) error = NULL;

    g_assert_true(haproxy_config_check(one, 0, lines, &error));
    g_assert_nonnull(strstr(lines, "server-template web 1-8 kiln.invalid:1 init-addr last,127.0.0.1 check disabled inter 500 rise 2 fall 3\n"));
    g_assert_nonnull(strstr(lines, "option httpchk GET /he\\ alth\n"));
    g_assert_null(strstr(lines, "cookie"));
    g_assert_nonnull(strstr(more, "cookie KILN insert indirect nocache dynamic\n"));
    g_assert_nonnull(strstr(more, "use_backend %[str(web),map(/etc/haproxy/kiln-web.map)]\n"));
    g_assert_true(haproxy_config_check(two, 0, more, &error));
    g_assert_true(haproxy_config_check(two, 1, more, &error));
    g_assert_cmpstr(two->state_files[0], !=, two->state_files[1]);
}

static void lacks(const HaproxySettings *settings, const char *text, const char *fragment)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(haproxy_config_check(settings, 0, text, &error));
    g_assert_nonnull(strstr(error->message, fragment));
}

static void test_missing_lines_are_named(void)
{
    g_autoptr(HaproxySettings) s = settings_of("{\"sockets\": \"/run/a.sock\", \"backend\": \"web\", \"state_file\": \"/s\"}", STRATEGY_ROLLING, false);

    lacks(s, "", "load-server-state-from-file local");
    lacks(s, "backend web\n # load-server-state-from-file local\n server-state-file-name /s\n", "load-server-state-from-file local");
    lacks(s, "backend other\n load-server-state-from-file local\n server-state-file-name /s\nbackend web\n", "load-server-state-from-file local");
    lacks(s, "defaults\n load-server-state-from-file local\nbackend web\n server-state-file-name /s2\n", "server-state-file-name /s'");
    g_assert_true(haproxy_config_check(s, 0, "backend web # ours\n\tload-server-state-from-file\t local\n  server-state-file-name \"/s\"", NULL));
}

static void refuse_settings(const char *arguments, const char *culprit)
{
    g_autoptr(json_t) json = json_loads(arguments, 0, NULL);
    BalancerConfig config = {.group = "web", .arguments = json};
    g_autoptr(GError) error = NULL;
    HaproxySettings *settings = NULL;
    const char *found = NULL;

    g_assert_nonnull(json);
    g_assert_false(haproxy_settings_new(&config, &settings, &found, &error));
    g_assert_nonnull(error);
    g_assert_cmpstr(found, ==, culprit);
}

static void test_wrong_arguments(void)
{
    refuse_settings("{\"backend\": \"web\"}", "sockets");
    refuse_settings("{\"sockets\": [\"a.sock\"], \"backend\": \"web\"}", "sockets");
    refuse_settings("{\"sockets\": [\"/a\", \"/a\"], \"backend\": \"web\"}", "sockets");
    refuse_settings("{\"sockets\": [\"/1\",\"/2\",\"/3\",\"/4\",\"/5\",\"/6\",\"/7\",\"/8\",\"/9\"], \"backend\": \"web\"}", "sockets");
    refuse_settings("{\"sockets\": [\"/a\"]}", "backend");
    refuse_settings("{\"sockets\": [\"/a\"], \"backend\": \"web; shutdown\"}", "backend");
    refuse_settings("{\"sockets\": [\"/a\"], \"backend\": \"web\", \"prefix\": \"web1\"}", "backend");
    refuse_settings("{\"sockets\": [\"/a\", \"/b\"], \"backend\": \"web\", \"state_file\": \"/s\"}", "state_file");
    refuse_settings("{\"sockets\": [\"/a\"], \"backend\": \"web\", \"map\": \"/m x\"}", "map");
    refuse_settings("{\"sockets\": [\"/a\"], \"backend\": \"web\", \"reload_grace\": \"soon\"}", "reload_grace");
    refuse_settings("{\"sockets\": [\"/a\"], \"backend\": \"web\", \"colour\": 1}", "colour");
}

/* --- the socket --- */

enum { SERVE_SILENT, SERVE_DRIP, SERVE_ENDLESS, SERVE_NUL, SERVE_PIECES };
static int served_how, served_listener;

static void *serve_badly(void *arg)
{
    static char junk[65536];
    int fd = accept(served_listener, NULL, NULL);

    (void)recv(fd, junk, sizeof(junk), 0);
    memset(junk, 'x', sizeof(junk));
    switch (served_how) {
    case SERVE_SILENT:
        g_usleep(2300 * 1000);
        break;
    case SERVE_DRIP:
        for (int i = 0; i < 60 && send(fd, "x", 1, MSG_NOSIGNAL) == 1; i++)
            g_usleep(50 * 1000);
        break;
    case SERVE_ENDLESS:
        while (send(fd, junk, sizeof(junk), MSG_NOSIGNAL) > 0)
            ;
        break;
    case SERVE_NUL:
        (void)send(fd, "a\0b", 3, MSG_NOSIGNAL);
        break;
    case SERVE_PIECES:
        for (const char *c = "whole answer\n"; *c; c++) {
            (void)send(fd, c, 1, MSG_NOSIGNAL);
            g_usleep(1000);
        }
        break;
    }
    (void)close(fd);
    return NULL;
}

static bool ask_bad(int how, char **ret, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "bad.sock"};
    pthread_t thread;
    bool good;

    (void)unlink("bad.sock");
    served_how = how;
    served_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(served_listener, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(listen(served_listener, 1), ==, 0);
    g_assert_cmpint(pthread_create(&thread, NULL, serve_badly, NULL), ==, 0);
    good = haproxy_ask("bad.sock", "show info", ret, error);
    pthread_join(thread, NULL);
    (void)close(served_listener);
    return good;
}

static void refuse_answer(int how, const char *fragment)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *answer = NULL;
    int64_t begin = g_get_monotonic_time();

    g_assert_false(ask_bad(how, &answer, &error));
    g_assert_nonnull(strstr(error->message, fragment));
    g_assert_null(answer);
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 4 * G_USEC_PER_SEC);
}

static void test_socket(void)
{
    g_autofree char *answer = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_true(ask_bad(SERVE_PIECES, &answer, &error));
    g_assert_cmpstr(answer, ==, "whole answer\n");
    refuse_answer(SERVE_ENDLESS, "more than 16 MiB");
    refuse_answer(SERVE_NUL, "no text");
    refuse_answer(g_test_rand_bit() ? SERVE_DRIP : SERVE_SILENT, "within 2 seconds");
    g_assert_false(haproxy_ask("gone.sock", "show info", &answer, &error));
    g_assert_nonnull(strstr(error->message, "gone.sock"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/haproxy-show/servers", test_servers);
    g_test_add_func("/haproxy-show/state-file-keeps-no-stale-result", test_state_file);
    g_test_add_func("/haproxy-show/hostile-servers-are-refused", test_servers_hostile);
    g_test_add_func("/haproxy-show/pool-is-by-number", test_pool);
    g_test_add_func("/haproxy-show/names", test_names);
    g_test_add_func("/haproxy-show/stats", test_stats);
    g_test_add_func("/haproxy-show/hostile-stats-are-refused", test_stats_hostile);
    g_test_add_func("/haproxy-show/means-come-back-from-averages", test_means);
    g_test_add_func("/haproxy-show/info", test_info);
    g_test_add_func("/haproxy-show/maps", test_maps);
    g_test_add_func("/haproxy-config/printed-lines-satisfy-the-check", test_lines_satisfy_the_check);
    g_test_add_func("/haproxy-config/missing-lines-are-named", test_missing_lines_are_named);
    g_test_add_func("/haproxy-config/wrong-arguments-are-named", test_wrong_arguments);
    g_test_add_func("/haproxy-socket/bad-answers-end", test_socket);
    return g_test_run();
}
