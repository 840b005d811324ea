/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Canary analysis: where samples come from, and the sentence at the end. What the numbers mean is statistics.c's.
 *
 * A balancer's counters only rise, and start anew when it is reloaded: a sample is the difference of two readings, and a reading that is
 * below the one before is only the base of the next. So a latency is that of the interval, never the average since the balancer started.
 */
#include "deploy/analysis.h"

#include "base/error.h"
#include "base/http.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/process.h"
#include "deploy/statistics.h"

#include <math.h>
#include <string.h>

enum {
    HTTP_TIMEOUT = 5,
    COMMAND_TIMEOUT = 30,
    BODY_MAX = 1024 * 1024,
    RESULTS_MAX = 10000,
    URL_MAX = 64 * 1024,
    LINE_MAX_KEPT = 200,
    ATTEMPTS_PER_SAMPLE = 3, /* intervals without data are not waited out for ever */
};

typedef struct Series {
    const char *name; /* "share of errors" */
    double scale;     /* for people: 100 makes a share a percentage */
    const char *unit;
    GArray *canary, *baseline; /* of double */
} Series;

/* One `analysis` block. */
typedef struct Judge {
    const AnalysisSpec *spec;
    double due;            /* 0: at once */
    unsigned attempts, passes;
    Series series[2];
    unsigned series_count;
    bool has_base;
    BalancerCounters base_canary, base_baseline;
    char *problem;         /* of the last attempt; NULL: it went well */
    Verdict verdict;
    char *why;             /* once there is a verdict */
} Judge;

struct Analysis {
    const GroupSpec *spec;
    Judge *judges;
    unsigned count;
    bool begun;
    unsigned step;
    char *instances; /* both sides' addresses, to see a change */
};

/* --- life --- */

static void series_init(Series *series, const char *name, double scale, const char *unit)
{
    *series = (Series){name, scale, unit, g_array_new(FALSE, FALSE, sizeof(double)), g_array_new(FALSE, FALSE, sizeof(double))};
}

static void judge_init(Judge *judge, const AnalysisSpec *spec)
{
    *judge = (Judge){.spec = spec};
    if (spec->kind == ANALYSIS_BALANCER) {
        series_init(&judge->series[judge->series_count++], "share of errors", 100, " %");
        series_init(&judge->series[judge->series_count++], "time of a request", 1, " ms");
    }
    if (spec->kind == ANALYSIS_PROMETHEUS)
        series_init(&judge->series[judge->series_count++], "query", 1, "");
}

static void judge_clear(Judge *judge)
{
    for (unsigned i = 0; i < judge->series_count; i++) {
        g_array_unref(judge->series[i].canary);
        g_array_unref(judge->series[i].baseline);
    }
    g_free(judge->problem);
    g_free(judge->why);
}

static void begin(Analysis *analysis)
{
    for (unsigned i = 0; i < analysis->count; i++) {
        judge_clear(&analysis->judges[i]);
        judge_init(&analysis->judges[i], analysis->spec->analyses->pdata[i]);
    }
}

Analysis *analysis_new(const GroupSpec *spec)
{
    Analysis *analysis = g_new0(Analysis, 1);

    analysis->spec = spec;
    analysis->count = spec->analyses->len;
    analysis->judges = g_new0(Judge, MAX(analysis->count, 1));
    begin(analysis);
    return analysis;
}

void analysis_free(Analysis *analysis)
{
    if (!analysis)
        return;
    for (unsigned i = 0; i < analysis->count; i++)
        judge_clear(&analysis->judges[i]);
    g_free(analysis->judges);
    g_free(analysis->instances);
    g_free(analysis);
}

/* --- the end of one analysis --- */

static const char *kind_name(const AnalysisSpec *spec)
{
    static const char *const names[] = {[ANALYSIS_BALANCER] = "balancer", [ANALYSIS_PROMETHEUS] = "prometheus", [ANALYSIS_COMMAND] = "command"};

    return names[spec->kind];
}

static void decide(Judge *judge, Verdict verdict, const char *format, ...) G_GNUC_PRINTF(3, 4);
static void decide(Judge *judge, Verdict verdict, const char *format, ...)
{
    static const char *const words[] = {[VERDICT_PASS] = "passes", [VERDICT_FAIL] = "fails", [VERDICT_INCONCLUSIVE] = "is inconclusive"};
    g_autofree char *details = NULL;
    va_list args;

    va_start(args, format);
    details = g_strdup_vprintf(format, args);
    va_end(args);
    judge->verdict = verdict;
    judge->why = g_strdup_printf("analysis \"%s\" %s: %s", kind_name(judge->spec), words[verdict], details);
}

static void tell_series(GString *out, const Series *series, const Judgement *j, double confidence)
{
    double scale = series->scale;

    g_string_append_printf(out, "; %s %.4g%s, baseline %.4g%s, %s", series->name, j->canary * scale, series->unit, j->baseline * scale, series->unit,
                           classification_name(j->class));
    if (j->class == CLASS_HIGH && isfinite(j->effect))
        g_string_append_printf(out, " (%.3g times as much)", j->effect);
    if (j->class == CLASS_HIGH)
        g_string_append_printf(out, ", %.4g%s more, with %g %% confidence between %.4g%s and %.4g%s", j->test.estimate * scale, series->unit, confidence * 100,
                               j->test.lower * scale, series->unit, j->test.upper * scale, series->unit);
}

/* Errors keep their outliers: a burst in one interval is what is looked for. One slow interval is not. */
static void judge_series(const Judge *one, const Series *series, Judgement *ret)
{
    const AnalysisSpec *spec = one->spec;
    bool time = spec->kind == ANALYSIS_BALANCER && series == &one->series[1];
    JudgeRules rules = {.confidence = spec->confidence,
                        .tolerance = spec->tolerance,
                        .direction = DIRECTION_INCREASE,
                        .allowed_increase = spec->allowed_increase,
                        .outlier_factor = time ? 3 : 0};

    judge(&rules, (const double *)(void *)series->canary->data, series->canary->len, (const double *)(void *)series->baseline->data, series->baseline->len, ret);
}

/* The one look at the numbers. */
static void conclude(Judge *judge)
{
    const AnalysisSpec *spec = judge->spec;
    g_autoptr(GString) details = g_string_new(NULL);
    Classification classes[2];
    unsigned without = 0;
    double score;

    for (unsigned i = 0; i < judge->series_count; i++) {
        Judgement j;

        judge_series(judge, &judge->series[i], &j);
        classes[i] = j.class;
        without += j.class == CLASS_NODATA;
        tell_series(details, &judge->series[i], &j, spec->confidence);
    }
    score = score_of(classes, judge->series_count, false);
    if (2 * without >= judge->series_count)
        decide(judge, VERDICT_INCONCLUSIVE, "there are no numbers to compare%s", details->str);
    else
        decide(judge, score >= spec->pass_score ? VERDICT_PASS : score <= spec->marginal_score ? VERDICT_FAIL : VERDICT_INCONCLUSIVE,
               "score %.2f of %u samples%s", score, judge->series[0].canary->len, details->str);
}

/* --- samples --- */

static void failed_attempt(Judge *judge, const char *problem)
{
    g_free(judge->problem);
    judge->problem = printable_line(problem);
}

static void add_numbers(Series *series, double canary, double baseline)
{
    g_array_append_val(series->canary, canary);
    g_array_append_val(series->baseline, baseline);
}

static bool subtract(const BalancerCounters *now, const BalancerCounters *before, BalancerCounters *ret)
{
    if (now->requests < before->requests || now->errors < before->errors || now->time_ms < before->time_ms)
        return false;
    *ret = (BalancerCounters){now->requests - before->requests, now->errors - before->errors, now->time_ms - before->time_ms};
    return true;
}

static double share_of(uint64_t part, uint64_t whole)
{
    return (double)part / (double)whole;
}

static void sample_balancer(Judge *judge, const AnalysisInput *input)
{
    BalancerCounters canary, baseline;
    bool whole;

    if (!input->canary || !input->baseline) {
        judge->has_base = false;
        failed_attempt(judge, "the balancer's counters were not read");
        return;
    }
    whole = judge->has_base && subtract(input->canary, &judge->base_canary, &canary) && subtract(input->baseline, &judge->base_baseline, &baseline);
    judge->has_base = true;
    judge->base_canary = *input->canary;
    judge->base_baseline = *input->baseline;
    if (!whole) {
        failed_attempt(judge, "the balancer's counters begin here");
    } else if (canary.requests == 0 || baseline.requests == 0) {
        failed_attempt(judge, canary.requests == 0 ? "the canary had no request" : "the baseline had no request");
    } else {
        g_clear_pointer(&judge->problem, g_free);
        add_numbers(&judge->series[0], share_of(canary.errors, canary.requests), share_of(baseline.errors, baseline.requests));
        add_numbers(&judge->series[1], share_of(canary.time_ms, canary.requests), share_of(baseline.time_ms, baseline.requests));
    }
}

/* --- prometheus --- */

/* "10[.]0[.]0[.]1(:[0-9]+)?|...": what exports an instance's numbers has its address, and mostly another port. */
static char *instances_pattern(const char *const *addresses)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (; addresses && *addresses; addresses++) {
        size_t length = strcspn(*addresses, ":");

        if (length == 0 || strspn(*addresses, "0123456789.") < length)
            continue;
        g_string_append(out, out->len > 0 ? "|" : "");
        for (size_t i = 0; i < length; i++)
            g_string_append_printf(out, (*addresses)[i] == '.' ? "[%c]" : "%c", (*addresses)[i]);
        g_string_append(out, "(:[0-9]+)?");
    }
    return g_string_free(g_steal_pointer(&out), FALSE);
}

static char *query_url(const Analysis *analysis, const AnalysisSpec *spec, const char *query, const char *const *addresses)
{
    g_autofree char *pattern = instances_pattern(addresses), *escaped = NULL;
    g_autoptr(GString) text = g_string_new(query);
    size_t end = strlen(spec->url);

    (void)g_string_replace(text, "$INSTANCES", *pattern ? pattern : "-", 0);
    (void)g_string_replace(text, "$GROUP", analysis->spec->name, 0);
    escaped = g_uri_escape_string(text->str, NULL, FALSE);
    while (end > 0 && spec->url[end - 1] == '/')
        end--;
    return g_strdup_printf("%.*s/api/v1/query?query=%s", (int)end, spec->url, escaped);
}

/* [TIME, "NUMBER"] */
static bool pair_number(const json_t *pair, double *ret)
{
    const char *text = json_string_value(json_array_get(pair, 1));
    char *end;

    if (!text || !*text)
        return false;
    *ret = g_ascii_strtod(text, &end);
    return !*end && isfinite(*ret);
}

static bool result_number(const json_t *data, double *ret, GError **error)
{
    const char *type = json_string_value(json_object_get(data, "resultType"));
    const json_t *result = json_object_get(data, "result"), *one;
    double number, sum = 0;
    size_t index, count = 0;

    if (g_strcmp0(type, "scalar") == 0)
        return pair_number(result, ret) || fail(error, "Prometheus answers with what is no number");
    if (g_strcmp0(type, "vector") != 0)
        return fail(error, "Prometheus answers with a %.20s; an instant query gives a vector or a scalar", type ? type : "document without results");
    if (json_array_size(result) > RESULTS_MAX)
        return fail(error, "Prometheus answers with more than %d results", RESULTS_MAX);
    json_array_foreach (result, index, one)
        if (pair_number(json_object_get(one, "value"), &number)) {
            sum += number;
            count++;
        }
    if (count == 0 || !isfinite(sum))
        return fail(error, "Prometheus knows no number for this query");
    *ret = sum / (double)count;
    return true;
}

static bool ask(const Analysis *analysis, const AnalysisSpec *spec, const char *query, const char *const *addresses, double *ret, GError **error)
{
    g_autofree char *url = query_url(analysis, spec, query, addresses);
    g_autoptr(GBytes) body = NULL;
    g_autoptr(json_t) document = NULL;
    int status = 0;
    gsize size;
    const char *text;

    if (strlen(url) > URL_MAX)
        return fail(error, "the query is longer than %d KiB", URL_MAX / 1024);
    if (!http_get(url, BODY_MAX, HTTP_TIMEOUT, &status, &body, error))
        return false;
    text = g_bytes_get_data(body, &size);
    if (status != 200)
        return fail(error, "Prometheus answers with status %d", status);
    if (!json_parse(size > 0 ? text : "", size, BODY_MAX, "Prometheus' answer", &document, error))
        return false;
    if (g_strcmp0(json_string_value(json_object_get(document, "status")), "success") != 0)
        return fail(error, "Prometheus answers without success");
    return result_number(json_object_get(document, "data"), ret, error);
}

static void sample_prometheus(const Analysis *analysis, Judge *judge, const AnalysisInput *input)
{
    const AnalysisSpec *spec = judge->spec;
    g_autoptr(GError) error = NULL;
    double canary, baseline;

    if (!ask(analysis, spec, spec->query_canary, input->canary_addresses, &canary, &error) ||
        !ask(analysis, spec, spec->query_baseline, input->baseline_addresses, &baseline, &error)) {
        failed_attempt(judge, error->message);
        return;
    }
    g_clear_pointer(&judge->problem, g_free);
    add_numbers(&judge->series[0], canary, baseline);
}

/* --- command --- */

static char *joined(const char *const *addresses)
{
    return addresses ? g_strjoinv(" ", (char **)addresses) : g_strdup("");
}

static char **command_environment(const Analysis *analysis, const AnalysisInput *input)
{
    g_autofree char *canary = joined(input->canary_addresses), *baseline = joined(input->baseline_addresses);
    g_autofree char *step = g_strdup_printf("%u", input->step + 1);
    char **environment = g_get_environ();

    environment = g_environ_setenv(environment, "KILN_GROUP", analysis->spec->name, TRUE);
    environment = g_environ_setenv(environment, "KILN_CANARY", canary, TRUE);
    environment = g_environ_setenv(environment, "KILN_BASELINE", baseline, TRUE);
    return g_environ_setenv(environment, "KILN_STEP", step, TRUE);
}

static void keep_line(const char *line, bool is_stderr, void *arg)
{
    char **last = arg;

    if (!*line)
        return;
    g_free(*last);
    *last = g_strndup(line, LINE_MAX_KEPT);
}

static void command_ended(Judge *judge, int exit, const char *line)
{
    g_autofree char *printable = line ? printable_line(line) : g_strdup("it printed nothing");

    if (exit == 0 && ++judge->passes >= judge->spec->samples)
        decide(judge, VERDICT_PASS, "%s was content %u of %u times: %s", judge->spec->command[0], judge->passes, judge->spec->samples, printable);
    else if (exit == 1)
        decide(judge, VERDICT_FAIL, "%s ended with 1: %s", judge->spec->command[0], printable);
    else if (exit != 0)
        decide(judge, VERDICT_INCONCLUSIVE, "%s ended with %d: %s", judge->spec->command[0], exit, printable);
}

static void sample_command(const Analysis *analysis, Judge *judge, const AnalysisInput *input)
{
    g_auto(GStrv) environment = command_environment(analysis, input);
    g_autofree char *line = NULL;
    g_autoptr(GError) error = NULL;
    ProcessSpec process = {.argv = (const char *const *)judge->spec->command,
                           .env = (const char *const *)environment,
                           .on_line = keep_line,
                           .arg = &line,
                           .timeout = COMMAND_TIMEOUT};
    int exit;

    if (process_run(&process, &exit, &error))
        command_ended(judge, exit, line);
    else if (!g_error_matches(error, KILN_ERROR, KILN_ERROR_INTERRUPTED)) /* that says nothing of the canary */
        decide(judge, VERDICT_INCONCLUSIVE, "%s", error->message);
}

/* --- the face --- */

static void give_up(Judge *judge)
{
    decide(judge, VERDICT_INCONCLUSIVE, "%u intervals gave %u of %u samples%s%s", judge->attempts, judge->series[0].canary->len, judge->spec->samples,
           judge->problem ? "; the last one: " : "", judge->problem ? judge->problem : "");
}

static void sample_one(const Analysis *analysis, Judge *judge, const AnalysisInput *input)
{
    const AnalysisSpec *spec = judge->spec;

    judge->due = input->now + spec->interval;
    judge->attempts++;
    if (spec->kind == ANALYSIS_COMMAND)
        sample_command(analysis, judge, input);
    else if (spec->kind == ANALYSIS_PROMETHEUS)
        sample_prometheus(analysis, judge, input);
    else
        sample_balancer(judge, input);
    if (judge->verdict != VERDICT_NONE || judge->series_count == 0)
        return;
    if (judge->series[0].canary->len >= spec->samples)
        conclude(judge);
    else if (judge->attempts / ATTEMPTS_PER_SAMPLE >= spec->samples)
        give_up(judge);
}

/* Counters of other instances are no continuation of those before. */
static void notice_change(Analysis *analysis, const AnalysisInput *input)
{
    g_autofree char *canary = joined(input->canary_addresses), *baseline = joined(input->baseline_addresses);
    g_autofree char *instances = g_strconcat(canary, "\n", baseline, NULL);

    if (!analysis->begun || analysis->step != input->step)
        begin(analysis);
    analysis->begun = true;
    analysis->step = input->step;
    if (g_strcmp0(analysis->instances, instances) == 0)
        return;
    for (unsigned i = 0; i < analysis->count; i++)
        analysis->judges[i].has_base = false;
    g_free(analysis->instances);
    analysis->instances = g_steal_pointer(&instances);
}

void analysis_sample(Analysis *analysis, const AnalysisInput *input)
{
    notice_change(analysis, input);
    for (unsigned i = 0; i < analysis->count && !interrupt_requested(); i++) {
        Judge *judge = &analysis->judges[i];

        if (judge->verdict == VERDICT_NONE && input->now >= judge->due)
            sample_one(analysis, judge, input);
    }
}

double analysis_due(const Analysis *analysis)
{
    double due = INFINITY;

    for (unsigned i = 0; i < analysis->count; i++)
        if (analysis->judges[i].verdict == VERDICT_NONE)
            due = MIN(due, analysis->judges[i].due);
    return due;
}

static char *why_of(const Judge *judge)
{
    unsigned have = judge->series_count > 0 ? judge->series[0].canary->len : judge->passes;

    if (judge->why)
        return g_strdup(judge->why);
    return g_strdup_printf("analysis \"%s\" has %u of %u samples%s%s", kind_name(judge->spec), have, judge->spec->samples, judge->problem ? "; the last interval: " : "",
                           judge->problem ? judge->problem : "");
}

Verdict analysis_verdict(const Analysis *analysis, char **ret_why)
{
    static const Verdict order[] = {VERDICT_FAIL, VERDICT_INCONCLUSIVE, VERDICT_NONE};
    g_autoptr(GString) why = g_string_new(NULL);
    unsigned count[4] = {0};
    Verdict verdict = VERDICT_PASS;

    for (unsigned i = 0; i < analysis->count; i++) {
        g_autofree char *one = why_of(&analysis->judges[i]);

        count[analysis->judges[i].verdict]++;
        g_string_append_printf(why, "%s%s", why->len > 0 ? "; " : "", one);
    }
    for (size_t i = G_N_ELEMENTS(order); i-- > 0;)
        if (count[order[i]] > 0)
            verdict = order[i];
    if (ret_why)
        *ret_why = g_string_free(g_steal_pointer(&why), FALSE);
    return verdict;
}
