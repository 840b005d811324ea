/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages and progress, on stderr, from any thread, without tearing: the bar
 * on a terminal is taken away before a line is printed and drawn again after.
 */
#include "base/log.h"

#include "base/mask.h"
#include "base/printable.h"
#include "base/scope.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BAR_WIDTH 24
#define BAR_INTERVAL_US 100000   /* redraw on a terminal */
#define LINE_INTERVAL_US 5000000 /* a plain line elsewhere */

struct Progress {
    char *title;
    uint64_t done, total;
    bool unit_bytes;
    gint64 started, shown;
};

static GMutex lock;
static LogLevel level = LOG_NORMAL;
static bool bar_visible; /* a bar stands in the terminal's last line */

void log_set_level(LogLevel wanted)
{
    level = wanted;
}

LogLevel log_level(void)
{
    return level;
}

static bool on_terminal(void)
{
    static int known = -1;

    if (known < 0)
        known = isatty(STDERR_FILENO) && g_strcmp0(g_getenv("TERM"), "dumb") != 0;
    return known == 1;
}

static void clear_bar(void)
{
    if (bar_visible)
        fputs("\r\033[K", stderr);
    bar_visible = false;
}

static void print_line(const char *prefix, const char *format, va_list args)
{
    g_autofree char *plain = g_strdup_vprintf(format, args), *masked = mask_text(plain),
                    *text = printable_message(format, masked);
    AUTO_LOCK(&lock);

    clear_bar();
    fprintf(stderr, "%s%s\n", prefix, text);
    fflush(stderr);
}

void log_info(const char *format, ...)
{
    va_list args;

    if (level < LOG_NORMAL)
        return;
    va_start(args, format);
    print_line("", format, args);
    va_end(args);
}

void log_verbose(const char *format, ...)
{
    va_list args;

    if (level < LOG_VERBOSE)
        return;
    va_start(args, format);
    print_line("", format, args);
    va_end(args);
}

void log_warning(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print_line("warning: ", format, args);
    va_end(args);
}

bool trace_enabled(const char *area)
{
    static gsize once;
    static char **areas;

    if (g_once_init_enter(&once)) {
        const char *text = g_getenv("KILN_TRACE");

        areas = g_strsplit(text ? text : "", ",", -1);
        g_once_init_leave(&once, 1);
    }
    for (char **a = areas; *a; a++) {
        size_t size = strlen(*a);

        if (strcmp(*a, "all") == 0 ||
            (size > 0 && strncmp(area, *a, size) == 0 && (area[size] == '\0' || area[size] == '.')))
            return true;
    }
    return false;
}

void trace(const char *area, const char *format, ...)
{
    g_autofree char *prefix = NULL;
    va_list args;

    if (!trace_enabled(area))
        return;
    prefix = g_strdup_printf("[%s] ", area);
    va_start(args, format);
    print_line(prefix, format, args);
    va_end(args);
}

Progress *progress_new(const char *title, uint64_t total, bool unit_bytes)
{
    Progress *progress = g_new0(Progress, 1);

    progress->title = g_strdup(title);
    progress->total = total;
    progress->unit_bytes = unit_bytes;
    progress->started = progress->shown = g_get_monotonic_time();
    return progress;
}

static char *amount_text(const Progress *progress)
{
    double seconds = MAX((double)(g_get_monotonic_time() - progress->started) / 1e6, 0.001);
    g_autofree char *done = NULL, *total = NULL, *rate = NULL;

    if (!progress->unit_bytes)
        return progress->total ? g_strdup_printf("%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT, progress->done,
                                                 progress->total)
                               : g_strdup_printf("%" G_GUINT64_FORMAT, progress->done);
    done = units_format_size(progress->done);
    total = units_format_size(progress->total);
    rate = units_format_size((uint64_t)((double)progress->done / seconds));
    return progress->total ? g_strdup_printf("%s of %s, %s/s", done, total, rate)
                           : g_strdup_printf("%s, %s/s", done, rate);
}

static void draw(Progress *progress)
{
    g_autofree char *amount = amount_text(progress);

    if (!on_terminal()) {
        fprintf(stderr, "%s: %s\n", progress->title, amount);
    } else if (progress->total) {
        double part = MIN(1.0, (double)progress->done / (double)progress->total);
        int full = (int)(part * BAR_WIDTH);

        fprintf(stderr, "\r\033[K%-12s [%.*s%*s] %3d%%  %s", progress->title, full, "########################",
                BAR_WIDTH - full, "", (int)(part * 100), amount);
        bar_visible = true;
    } else {
        fprintf(stderr, "\r\033[K%-12s %s", progress->title, amount);
        bar_visible = true;
    }
    fflush(stderr);
}

static void show(Progress *progress)
{
    gint64 now = g_get_monotonic_time();

    if (level < LOG_NORMAL || now - progress->shown < (on_terminal() ? BAR_INTERVAL_US : LINE_INTERVAL_US))
        return;
    progress->shown = now;
    draw(progress);
}

void progress_add(Progress *progress, uint64_t amount)
{
    if (!progress)
        return;
    AUTO_LOCK(&lock);
    progress->done += amount;
    show(progress);
}

void progress_set(Progress *progress, uint64_t amount, uint64_t total)
{
    if (!progress)
        return;
    AUTO_LOCK(&lock);
    progress->done = amount;
    progress->total = total;
    show(progress);
}

void progress_done(Progress *progress)
{
    g_autofree char *took = NULL, *amount = NULL;

    if (!progress)
        return;
    took = units_format_duration((double)(g_get_monotonic_time() - progress->started) / 1e6);
    amount = progress->unit_bytes ? units_format_size(progress->done)
                                  : g_strdup_printf("%" G_GUINT64_FORMAT, progress->done);
    log_info("%s: %s in %s", progress->title, amount, took);
}

void progress_free(Progress *progress)
{
    if (!progress)
        return;
    g_mutex_lock(&lock);
    clear_bar();
    g_mutex_unlock(&lock);
    g_free(progress->title);
    g_free(progress);
}
