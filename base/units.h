/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes and durations as people write them.
 *
 * Sizes: a number with nothing, K, M, G, T (powers of 1024), also KiB, MB, "2G".
 * Durations: Go's form, "90s", "5m", "1h30m", "250ms", also "7d"; a bare number is seconds.
 */
#ifndef KILN_BASE_UNITS_H
#define KILN_BASE_UNITS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

bool units_parse_size(const char *text, uint64_t *ret_bytes, GError **error);
bool units_parse_duration(const char *text, double *ret_seconds, GError **error);
char *units_format_size(uint64_t bytes);        /* "354.2 MiB" */
char *units_format_duration(double seconds);    /* "1m 23s", "0.4s" */

/* The name at the smallest edit distance from @word, or NULL when none is near. For "did you mean". */
const char *units_nearest(const char *word, const char *const *candidates);

#endif
