/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the server says of itself, in Prometheus' text format.
 */
#include "store/serve-private.h"

#include "base/scope.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const double bounds[] = {0.005, 0.025, 0.1, 0.5, 2.5, 10, 60};
static const char *const methods[] = {"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "other"};
static const struct {
    const char *name, *help;
} counters[SERVE_COUNTERS] = {
    [SERVE_COUNT_MADE] = {"kiln_layers_made_total", "Blobs that were made again to be sent"},
    [SERVE_COUNT_KEPT] = {"kiln_layers_kept_total", "Blobs that were made, or being made, already"},
    [SERVE_COUNT_TAKEN_RECIPE] = {"kiln_blobs_taken_as_recipes_total", "Uploaded blobs that share their blocks"},
    [SERVE_COUNT_TAKEN_VERBATIM] = {"kiln_blobs_taken_verbatim_total", "Uploaded blobs that are kept as they are"},
    [SERVE_COUNT_SLOW] = {"kiln_connections_slow_total", "Connections that were ended because nothing moved"},
    [SERVE_COUNT_UPLOADS_DROPPED] = {"kiln_uploads_dropped_total", "Uploads that nobody went on with"},
};

struct ServeMetrics {
    GMutex lock;
    GTimer *up;
    uint64_t requests[G_N_ELEMENTS(methods)][6]; /* by hundreds of the status */
    uint64_t buckets[G_N_ELEMENTS(bounds) + 1];
    double seconds;
    uint64_t in, out;
    uint64_t counts[SERVE_COUNTERS];
};

ServeMetrics *serve_metrics_new(void)
{
    ServeMetrics *metrics = g_new0(ServeMetrics, 1);

    g_mutex_init(&metrics->lock);
    metrics->up = g_timer_new();
    return metrics;
}

void serve_metrics_free(ServeMetrics *metrics)
{
    if (!metrics)
        return;
    g_timer_destroy(metrics->up);
    g_mutex_clear(&metrics->lock);
    g_free(metrics);
}

void serve_metrics_request(ServeMetrics *metrics, const char *method, unsigned status, double seconds, uint64_t in, uint64_t out)
{
    size_t row = 0, bucket = 0;

    while (row + 1 < G_N_ELEMENTS(methods) && strcmp(methods[row], method) != 0)
        row++;
    while (bucket < G_N_ELEMENTS(bounds) && seconds > bounds[bucket])
        bucket++;
    AUTO_LOCK(&metrics->lock);
    metrics->requests[row][MIN(status / 100, 5)]++;
    metrics->buckets[bucket]++;
    metrics->seconds += seconds;
    metrics->in += in;
    metrics->out += out;
}

void serve_metrics_count(ServeMetrics *metrics, ServeCounter counter)
{
    AUTO_LOCK(&metrics->lock);
    metrics->counts[counter]++;
}

static void put_head(GString *out, const char *name, const char *type, const char *help)
{
    g_string_append_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_one(GString *out, const char *name, const char *type, const char *help, uint64_t value)
{
    put_head(out, name, type, help);
    g_string_append_printf(out, "%s %" G_GUINT64_FORMAT "\n", name, value);
}

static void put_requests(GString *out, const ServeMetrics *metrics)
{
    put_head(out, "kiln_http_requests_total", "counter", "Requests by method and hundreds of the status");
    for (size_t i = 0; i < G_N_ELEMENTS(methods); i++)
        for (unsigned hundreds = 1; hundreds < 6; hundreds++)
            if (metrics->requests[i][hundreds])
                g_string_append_printf(out, "kiln_http_requests_total{method=\"%s\",code=\"%uxx\"} %" G_GUINT64_FORMAT "\n", methods[i], hundreds,
                                       metrics->requests[i][hundreds]);
}

static void put_durations(GString *out, const ServeMetrics *metrics)
{
    char number[G_ASCII_DTOSTR_BUF_SIZE];
    uint64_t sum = 0;

    put_head(out, "kiln_http_request_seconds", "histogram", "From a request's first line to the last byte of its answer");
    for (size_t i = 0; i < G_N_ELEMENTS(bounds); i++) {
        sum += metrics->buckets[i];
        g_string_append_printf(out, "kiln_http_request_seconds_bucket{le=\"%s\"} %" G_GUINT64_FORMAT "\n",
                               g_ascii_formatd(number, sizeof number, "%g", bounds[i]), sum);
    }
    sum += metrics->buckets[G_N_ELEMENTS(bounds)];
    g_string_append_printf(out, "kiln_http_request_seconds_bucket{le=\"+Inf\"} %" G_GUINT64_FORMAT "\nkiln_http_request_seconds_sum %s\n", sum,
                           g_ascii_formatd(number, sizeof number, "%.6f", metrics->seconds));
    g_string_append_printf(out, "kiln_http_request_seconds_count %" G_GUINT64_FORMAT "\n", sum);
}

static uint64_t resident(void)
{
    unsigned long long all, pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    if (file && fscanf(file, "%llu %llu", &all, &pages) != 2)
        pages = 0;
    if (file)
        (void)fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

char *serve_metrics_text(ServeMetrics *metrics, const ServeGauges *gauges)
{
    GString *out = g_string_new(NULL);

    AUTO_LOCK(&metrics->lock);
    put_requests(out, metrics);
    put_durations(out, metrics);
    put_one(out, "kiln_http_received_bytes_total", "counter", "Bytes of requests' bodies", metrics->in);
    put_one(out, "kiln_http_sent_bytes_total", "counter", "Bytes of answers' bodies", metrics->out);
    for (size_t i = 0; i < SERVE_COUNTERS; i++)
        put_one(out, counters[i].name, "counter", counters[i].help, metrics->counts[i]);
    put_one(out, "kiln_http_connections", "gauge", "Connections now", gauges->connections);
    put_one(out, "kiln_http_requests_running", "gauge", "Requests now", gauges->requests);
    put_one(out, "kiln_uploads", "gauge", "Uploads that go on", gauges->uploads);
    put_one(out, "kiln_upload_bytes", "gauge", "What they have so far", gauges->upload_bytes);
    put_one(out, "kiln_up_seconds", "gauge", "Since the start", (uint64_t)g_timer_elapsed(metrics->up, NULL));
    put_one(out, "process_resident_memory_bytes", "gauge", "Memory, with mapped files", resident());
    return g_string_free(out, FALSE);
}
