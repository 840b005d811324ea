/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kiln says while it works: to stderr, never to stdout, from any thread.
 *
 * log_info() is progress a user wants to read; log_verbose() appears with
 * --verbose; log_warning() always. trace("store.gc", ...) appears when
 * KILN_TRACE names the area ("store.gc,base.http", "store", or "all").
 *
 * A Progress is one long piece of work with a known or unknown total: a bar on
 * a terminal, a plain line every few seconds elsewhere, nothing with --quiet.
 */
#ifndef KILN_BASE_LOG_H
#define KILN_BASE_LOG_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum LogLevel { LOG_QUIET, LOG_NORMAL, LOG_VERBOSE } LogLevel;

void log_set_level(LogLevel level);
LogLevel log_level(void);
void log_info(const char *format, ...) G_GNUC_PRINTF(1, 2);
void log_verbose(const char *format, ...) G_GNUC_PRINTF(1, 2);
void log_warning(const char *format, ...) G_GNUC_PRINTF(1, 2);
bool trace_enabled(const char *area);
void trace(const char *area, const char *format, ...) G_GNUC_PRINTF(2, 3);

typedef struct Progress Progress;

/* @unit_bytes: amounts are bytes (shown as MiB and MiB/s), else a count. @total 0: unknown. */
Progress *progress_new(const char *title, uint64_t total, bool unit_bytes);
void progress_add(Progress *progress, uint64_t amount); /* thread-safe; NULL is fine */
void progress_set(Progress *progress, uint64_t amount, uint64_t total);
/* Ends the bar and prints the line that stays: title, amount, time. Also when given NULL. */
void progress_done(Progress *progress);
void progress_free(Progress *progress); /* without the final line: the work failed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Progress, progress_free)

#endif
