/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Canary analysis: counters that rise, jump back and stand still; a Prometheus of our own that answers what the path says, well or
 * badly; commands that are content, are not, and cannot be run.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "deploy/analysis.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* --- help --- */

static void free_analysis_spec(gpointer data)
{
    AnalysisSpec *spec = data;

    g_free(spec->url);
    g_free(spec->query_canary);
    g_free(spec->query_baseline);
    g_strfreev(spec->command);
    g_free(spec);
}

static GroupSpec *new_spec(void)
{
    GroupSpec *spec = g_new0(GroupSpec, 1);

    spec->name = g_strdup("web");
    spec->analyses = g_ptr_array_new_with_free_func(free_analysis_spec);
    return spec;
}

static AnalysisSpec *add(GroupSpec *spec, AnalysisKind kind, unsigned samples)
{
    AnalysisSpec *one = g_new0(AnalysisSpec, 1);

    *one = (AnalysisSpec){.kind = kind,
                          .interval = 5,
                          .samples = samples,
                          .allowed_increase = 1,
                          .confidence = 0.98,
                          .tolerance = 0.25,
                          .pass_score = 95,
                          .marginal_score = 75};
    g_ptr_array_add(spec->analyses, one);
    return one;
}

static const char *const canaries[] = {"10.0.0.1:80", "10.0.0.2:80", NULL};
static const char *const baselines[] = {"10.0.0.11:80", NULL};

static AnalysisInput input_at(double now)
{
    return (AnalysisInput){.now = now, .step = 0, .canary_addresses = canaries, .baseline_addresses = baselines};
}

static void assert_verdict(const Analysis *analysis, Verdict verdict, const char *sentence)
{
    g_autofree char *why = NULL;
    Verdict got = analysis_verdict(analysis, &why);

    if (got != verdict || !strstr(why, sentence))
        g_error("expected verdict %d and '%s', got %d and '%s'", verdict, sentence, got, why);
}

/* --- the balancer's counters --- */

typedef struct Traffic {
    GRand *random;
    double canary_errors, baseline_errors; /* shares */
    double canary_ms, baseline_ms;
    unsigned requests;
    BalancerCounters canary, baseline;
} Traffic;

static void flow(GRand *random, BalancerCounters *counters, unsigned requests, double errors, double ms)
{
    for (unsigned i = 0; i < requests; i++) {
        counters->requests++;
        counters->errors += g_rand_double(random) < errors;
        counters->time_ms += (uint64_t)(ms * (0.5 + g_rand_double(random)));
    }
}

/* @n intervals of 5 seconds, after a first reading. */
static double run(Analysis *analysis, Traffic *t, double now, unsigned n)
{
    for (unsigned i = 0; i <= n; i++, now += 5) {
        AnalysisInput input = input_at(now);

        input.canary = &t->canary;
        input.baseline = &t->baseline;
        analysis_sample(analysis, &input);
        flow(t->random, &t->canary, t->requests, t->canary_errors, t->canary_ms);
        flow(t->random, &t->baseline, t->requests, t->baseline_errors, t->baseline_ms);
    }
    return now;
}

static void check_traffic(Traffic t, Verdict verdict, const char *sentence)
{
    g_autoptr(GroupSpec) spec = new_spec();
    g_autoptr(Analysis) analysis = NULL;

    add(spec, ANALYSIS_BALANCER, 50);
    analysis = analysis_new(spec);
    t.random = g_rand_new_with_seed(11);
    t.canary = (BalancerCounters){1000, 900, 1}; /* what was before does not count */
    (void)run(analysis, &t, 100, 49);
    assert_verdict(analysis, VERDICT_NONE, "analysis \"balancer\" has 49 of 50 samples");
    g_assert_false(isinf(analysis_due(analysis)));
    (void)run(analysis, &t, 350, 0);
    assert_verdict(analysis, verdict, sentence);
    g_assert_true(isinf(analysis_due(analysis)));
    g_rand_free(t.random);
}

static void test_alike(void)
{
    check_traffic((Traffic){.canary_errors = 0.01, .baseline_errors = 0.01, .canary_ms = 100, .baseline_ms = 100, .requests = 40}, VERDICT_PASS,
                  "analysis \"balancer\" passes: score 100.00 of 50 samples; share of errors");
}

static void test_without_errors(void)
{
    check_traffic((Traffic){.canary_ms = 100, .baseline_ms = 100, .requests = 40}, VERDICT_PASS, "share of errors 0 %, baseline 0 %, pass");
}

static void test_better(void)
{
    check_traffic((Traffic){.canary_errors = 0, .baseline_errors = 0.1, .canary_ms = 50, .baseline_ms = 100, .requests = 40}, VERDICT_PASS, "score 100.00");
}

static void test_errors(void)
{
    check_traffic((Traffic){.canary_errors = 0.05, .canary_ms = 100, .baseline_ms = 100, .requests = 100}, VERDICT_FAIL, "fails: score 50.00 of 50 samples; share of errors");
    check_traffic((Traffic){.canary_errors = 0.05, .canary_ms = 100, .baseline_ms = 100, .requests = 100}, VERDICT_FAIL, " more, with 98 % confidence between ");
}

static void test_slow(void)
{
    check_traffic((Traffic){.canary_errors = 0.01, .baseline_errors = 0.01, .canary_ms = 125, .baseline_ms = 100, .requests = 40}, VERDICT_FAIL,
                  "time of a request 124");
}

static void test_without_traffic(void)
{
    g_autoptr(GroupSpec) spec = new_spec();
    g_autoptr(Analysis) analysis = NULL;
    Traffic t = {.random = g_rand_new_with_seed(1), .requests = 0};

    add(spec, ANALYSIS_BALANCER, 5);
    analysis = analysis_new(spec);
    (void)run(analysis, &t, 0, 13);
    assert_verdict(analysis, VERDICT_NONE, "has 0 of 5 samples; the last interval: the canary had no request");
    (void)run(analysis, &t, 100, 0);
    assert_verdict(analysis, VERDICT_INCONCLUSIVE, "15 intervals gave 0 of 5 samples; the last one: the canary had no request");
    g_rand_free(t.random);
}

static void test_reload_and_change(void)
{
    static const char *const others[] = {"10.0.0.9:80", NULL};
    g_autoptr(GroupSpec) spec = new_spec();
    g_autoptr(Analysis) analysis = NULL;
    Traffic t = {.random = g_rand_new_with_seed(2), .canary_ms = 10, .baseline_ms = 10, .requests = 10};
    AnalysisInput input;
    double now;

    add(spec, ANALYSIS_BALANCER, 5);
    analysis = analysis_new(spec);
    now = run(analysis, &t, 0, 2);
    assert_verdict(analysis, VERDICT_NONE, "has 2 of 5");
    t.canary = t.baseline = (BalancerCounters){0}; /* the balancer was reloaded */
    now = run(analysis, &t, now, 1);
    assert_verdict(analysis, VERDICT_NONE, "has 3 of 5");
    input = input_at(now);
    input.canary_addresses = others; /* sums of other instances */
    input.canary = &(BalancerCounters){1000000, 1000000, 0};
    input.baseline = &t.baseline;
    analysis_sample(analysis, &input);
    assert_verdict(analysis, VERDICT_NONE, "has 3 of 5");
    input.now += 5;
    input.canary = NULL;
    analysis_sample(analysis, &input);
    assert_verdict(analysis, VERDICT_NONE, "the balancer's counters were not read");
    input.now += 1;
    input.canary = &t.canary;
    analysis_sample(analysis, &input); /* not due */
    assert_verdict(analysis, VERDICT_NONE, "the balancer's counters were not read");
    input.now += 5;
    input.step = 1;
    analysis_sample(analysis, &input);
    assert_verdict(analysis, VERDICT_NONE, "has 0 of 5");
    g_rand_free(t.random);
}

/* --- prometheus --- */

static int listener;
static unsigned port;
static char asked[4000]; /* the last query, as it came */
static unsigned answers;

static void answer(int fd, const char *path)
{
    const char *body = NULL;
    g_autofree char *made = NULL, *query = g_uri_unescape_string(strstr(path, "query=") ? strstr(path, "query=") + 6 : "", NULL);
    int status = 200;

    (void)g_strlcpy(asked, query, sizeof asked);
    answers++;
    if (g_str_has_prefix(query, "rise"))
        made = g_strdup_printf("{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[{\"metric\":{},\"value\":[1,\"%u\"]},{\"metric\":{},\"value\":[1,\"%u.5\"]},"
                               "{\"metric\":{},\"value\":[1,\"NaN\"]}]}}", 10 + answers % 7, 11 + answers % 5);
    else if (g_str_has_prefix(query, "more"))
        made = g_strdup_printf("{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":[1,\"%u\"]}}", 50 + answers % 7);
    else if (g_str_has_prefix(query, "empty"))
        body = "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[]}}";
    else if (g_str_has_prefix(query, "matrix"))
        body = "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[]}}";
    else if (g_str_has_prefix(query, "error"))
        body = "{\"status\":\"error\"}";
    else if (g_str_has_prefix(query, "text"))
        body = "{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":[1,\"12 rm\"]}}";
    else if (g_str_has_prefix(query, "list"))
        body = "[[[[1]]]]";
    else if (g_str_has_prefix(query, "deep"))
        body = made = g_strnfill(100000, '[');
    else if (g_str_has_prefix(query, "huge"))
        body = made = g_strnfill(3 * 1024 * 1024, ' ');
    else
        status = 400;
    body = body ? body : made ? made : "no";
    (void)dprintf(fd, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", status, strlen(body));
    (void)file_write_full(fd, body, strlen(body), "client", NULL); /* the client may have gone */
}

static gpointer serve(gpointer data)
{
    for (;;) {
        auto_fd int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        char text[8000] = "", path[8000] = "";

        if (fd < 0)
            return NULL;
        if (read(fd, text, sizeof text - 1) > 0 && sscanf(text, "GET %7999s", path) == 1)
            answer(fd, path);
    }
}

static GThread *start_server(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;

    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, size), ==, 0);
    g_assert_cmpint(listen(listener, 20), ==, 0);
    g_assert_cmpint(getsockname(listener, (struct sockaddr *)&address, &size), ==, 0);
    port = ntohs(address.sin_port);
    return g_thread_new("server", serve, NULL);
}

static Analysis *ask_prometheus(GroupSpec *spec, const char *canary, const char *baseline, unsigned samples, unsigned times)
{
    AnalysisSpec *one = add(spec, ANALYSIS_PROMETHEUS, samples);
    Analysis *analysis;

    one->url = g_strdup_printf("http://127.0.0.1:%u/", port);
    one->query_canary = g_strdup(canary);
    one->query_baseline = g_strdup(baseline);
    analysis = analysis_new(spec);
    for (unsigned i = 0; i < times; i++) {
        AnalysisInput input = input_at(i * 5);

        analysis_sample(analysis, &input);
    }
    return analysis;
}

static void test_prometheus(void)
{
    g_autoptr(GroupSpec) alike = new_spec(), worse = new_spec(), better = new_spec();
    g_autoptr(Analysis) pass = ask_prometheus(alike, "rise", "rise", 30, 30), fail_ = ask_prometheus(worse, "more", "rise", 30, 30),
                        pass_too = ask_prometheus(better, "rise", "more", 30, 30);

    assert_verdict(pass, VERDICT_PASS, "analysis \"prometheus\" passes: score 100.00 of 30 samples; query 13");
    assert_verdict(fail_, VERDICT_FAIL, "analysis \"prometheus\" fails: score 0.00");
    assert_verdict(pass_too, VERDICT_PASS, "score 100.00");
}

static void test_query_text(void)
{
    g_autoptr(GroupSpec) spec = new_spec(), hostile = new_spec();
    static const char *const odd[] = {"10.0.0.1\"} or up{:80", "[::1]:80", NULL};
    g_autoptr(Analysis) analysis = ask_prometheus(spec, "rise", "rise{g=\"$GROUP\",instance=~\"$INSTANCES\"} + 1 & 2", 5, 1), other = NULL;
    AnalysisSpec *one = add(hostile, ANALYSIS_PROMETHEUS, 5);
    AnalysisInput input = input_at(0);

    g_assert_cmpstr(asked, ==, "rise{g=\"web\",instance=~\"10[.]0[.]0[.]11(:[0-9]+)?\"} + 1 & 2");
    one->url = g_strdup_printf("http://127.0.0.1:%u", port);
    one->query_canary = g_strdup("rise");
    one->query_baseline = g_strdup("rise $INSTANCES");
    input.baseline_addresses = odd;
    other = analysis_new(hostile);
    analysis_sample(other, &input);
    g_assert_cmpstr(asked, ==, "rise -");
}

static void test_bad_answers(void)
{
    static const char *const cases[][2] = {{"empty", "knows no number"}, {"matrix", "answers with a matrix"}, {"error", "without success"}, {"text", "what is no number"},
                                           {"list", "without success"},  {"deep", "is not valid JSON"},        {"huge", "not valid JSON"},   {"?", "status 400"}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GroupSpec) spec = new_spec();
        g_autoptr(Analysis) analysis = ask_prometheus(spec, cases[i][0], "rise", 5, 14);
        AnalysisInput input = input_at(1000);

        assert_verdict(analysis, VERDICT_NONE, cases[i][1]);
        analysis_sample(analysis, &input);
        assert_verdict(analysis, VERDICT_INCONCLUSIVE, cases[i][1]);
    }
}

static void test_nobody_answers(void)
{
    g_autoptr(GroupSpec) spec = new_spec();
    AnalysisSpec *one = add(spec, ANALYSIS_PROMETHEUS, 1);
    g_autoptr(Analysis) analysis = analysis_new(spec);

    one->url = g_strdup("http://127.0.0.1:1");
    one->query_canary = g_strdup("a");
    one->query_baseline = g_strdup("b");
    for (unsigned i = 0; i < 3; i++) {
        AnalysisInput input = input_at(i * 5);

        analysis_sample(analysis, &input);
    }
    assert_verdict(analysis, VERDICT_INCONCLUSIVE, "3 intervals gave 0 of 1 samples");
}

/* --- commands --- */

static Analysis *run_command(GroupSpec *spec, const char *script, unsigned samples, unsigned times)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    AnalysisSpec *one = add(spec, ANALYSIS_COMMAND, samples);
    Analysis *analysis;

    one->command = g_strdupv((char **)argv);
    analysis = analysis_new(spec);
    for (unsigned i = 0; i < times; i++) {
        AnalysisInput input = input_at(i * 5);

        analysis_sample(analysis, &input);
    }
    return analysis;
}

static void check_command(const char *script, unsigned times, Verdict verdict, const char *sentence)
{
    g_autoptr(GroupSpec) spec = new_spec();
    g_autoptr(Analysis) analysis = run_command(spec, script, 3, times);

    assert_verdict(analysis, verdict, sentence);
}

static void test_command(void)
{
    check_command("echo fine", 3, VERDICT_PASS, "analysis \"command\" passes: sh was content 3 of 3 times: fine");
    check_command("echo fine", 2, VERDICT_NONE, "has 2 of 3 samples");
    check_command("printf 'too\\033slow\\n' >&2; exit 1", 1, VERDICT_FAIL, "sh ended with 1: too\\x1bslow");
    check_command("exit 2", 1, VERDICT_INCONCLUSIVE, "sh ended with 2: it printed nothing");
    check_command("kill -9 $$", 1, VERDICT_INCONCLUSIVE, "sh ended with 137");
    check_command("test \"$KILN_GROUP/$KILN_CANARY/$KILN_BASELINE/$KILN_STEP\" = 'web/10.0.0.1:80 10.0.0.2:80/10.0.0.11:80/1'", 3, VERDICT_PASS, "passes");
}

static void test_no_command(void)
{
    g_autoptr(GroupSpec) spec = new_spec();
    AnalysisSpec *one = add(spec, ANALYSIS_COMMAND, 1);
    g_autoptr(Analysis) analysis = analysis_new(spec);
    const char *const argv[] = {"/nowhere/check", NULL};
    AnalysisInput input = input_at(0);

    one->command = g_strdupv((char **)argv);
    analysis_sample(analysis, &input);
    assert_verdict(analysis, VERDICT_INCONCLUSIVE, "/nowhere/check");
}

/* --- several --- */

static void test_together(void)
{
    static const struct {
        const char *first, *second;
        Verdict verdict;
    } cases[] = {
        {"exit 0", "exit 0", VERDICT_PASS}, {"exit 0", "exit 1", VERDICT_FAIL},         {"exit 2", "exit 1", VERDICT_FAIL},
        {"exit 2", "exit 0", VERDICT_INCONCLUSIVE}, {"exit 1", "exit 0", VERDICT_FAIL},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const char *const argv[] = {"sh", "-c", cases[i].first, NULL};
        g_autoptr(GroupSpec) spec = new_spec();
        g_autoptr(Analysis) analysis = NULL;

        add(spec, ANALYSIS_COMMAND, 1)->command = g_strdupv((char **)argv);
        analysis = run_command(spec, cases[i].second, 1, 1);
        assert_verdict(analysis, cases[i].verdict, "; analysis \"command\" ");
    }
}

static void test_pass_waits_for_all(void)
{
    g_autoptr(GroupSpec) spec = new_spec(), other = new_spec();
    g_autoptr(Analysis) analysis = NULL, failing = NULL;

    add(spec, ANALYSIS_BALANCER, 5);
    analysis = run_command(spec, "exit 0", 1, 1);
    assert_verdict(analysis, VERDICT_NONE, "has 0 of 5 samples");
    add(other, ANALYSIS_BALANCER, 5);
    failing = run_command(other, "exit 1", 1, 1);
    assert_verdict(failing, VERDICT_FAIL, "has 0 of 5 samples");
}

int main(int argc, char **argv)
{
    GThread *server;
    int status;

    g_test_init(&argc, &argv, NULL);
    server = start_server();
    g_test_add_func("/analysis/balancer-alike", test_alike);
    g_test_add_func("/analysis/balancer-without-errors", test_without_errors);
    g_test_add_func("/analysis/balancer-better", test_better);
    g_test_add_func("/analysis/balancer-errors", test_errors);
    g_test_add_func("/analysis/balancer-slow", test_slow);
    g_test_add_func("/analysis/balancer-without-traffic", test_without_traffic);
    g_test_add_func("/analysis/balancer-reload-and-change", test_reload_and_change);
    g_test_add_func("/analysis/prometheus", test_prometheus);
    g_test_add_func("/analysis/prometheus-query", test_query_text);
    g_test_add_func("/analysis/prometheus-bad-answers", test_bad_answers);
    g_test_add_func("/analysis/prometheus-nobody-answers", test_nobody_answers);
    g_test_add_func("/analysis/command", test_command);
    g_test_add_func("/analysis/command-missing", test_no_command);
    g_test_add_func("/analysis/several-together", test_together);
    g_test_add_func("/analysis/pass-waits-for-all", test_pass_waits_for_all);
    status = g_test_run();
    (void)shutdown(listener, SHUT_RDWR);
    g_thread_join(server);
    return status;
}
