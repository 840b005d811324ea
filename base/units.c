/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes and durations as people write them, and the nearest word to a typo.
 */
#include "base/units.h"

#include "base/error.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool units_parse_size(const char *text, uint64_t *ret_bytes, GError **error)
{
    static const char letters[] = "KMGTP";
    char *end;
    double number, factor = 1;

    errno = 0;
    number = g_ascii_strtod(text, &end);
    if (end == text || errno || !(number >= 0))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is not a size: write for example 512M or 2G", text);
    while (*end == ' ')
        end++;
    if (*end && strchr(letters, g_ascii_toupper(*end))) {
        factor = pow(1024, (double)(strchr(letters, g_ascii_toupper(*end)) - letters) + 1);
        end++;
        if (*end == 'i' || *end == 'I')
            end++;
    }
    if (*end == 'B' || *end == 'b')
        end++;
    if (*end || number * factor > 9e18)
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is not a size: write for example 512M or 2G", text);
    *ret_bytes = (uint64_t)(number * factor);
    return true;
}

static double duration_unit(const char **at)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};

    for (size_t i = 0; i < G_N_ELEMENTS(units); i++)
        if (g_str_has_prefix(*at, units[i].name)) {
            *at += strlen(units[i].name);
            return units[i].seconds;
        }
    return -1;
}

bool units_parse_duration(const char *text, double *ret_seconds, GError **error)
{
    const char *at = text;
    double total = 0;

    if (!*text)
        return fail_code(error, KILN_ERROR_USAGE, "a duration is empty: write for example 90s or 5m");
    while (*at) {
        char *end;
        double number = g_ascii_strtod(at, &end), unit;

        if (end == at || !(number >= 0) || !(number < 1e15))
            return fail_code(error, KILN_ERROR_USAGE, "'%s' is not a duration: write for example 90s or 1h30m", text);
        at = end;
        if (!*at && total == 0) {
            *ret_seconds = number;
            return true;
        }
        unit = duration_unit(&at);
        if (unit < 0)
            return fail_code(error, KILN_ERROR_USAGE, "'%s' is not a duration: write for example 90s or 1h30m", text);
        total += number * unit;
    }
    *ret_seconds = total;
    return true;
}

char *units_format_size(uint64_t bytes)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < G_N_ELEMENTS(names)) {
        value /= 1024;
        unit++;
    }
    return unit ? g_strdup_printf("%.1f %s", value, names[unit]) : g_strdup_printf("%" G_GUINT64_FORMAT " B", bytes);
}

char *units_format_duration(double seconds)
{
    unsigned whole = (unsigned)seconds;

    if (seconds < 60)
        return g_strdup_printf("%.1fs", seconds);
    if (whole < 3600)
        return g_strdup_printf("%um %02us", whole / 60, whole % 60);
    return g_strdup_printf("%uh %02um", whole / 3600, whole / 60 % 60);
}

#define WORD_MAX 63

/* Letters put in, left out, changed, or swapped with their neighbour. */
static unsigned edit_distance(const char *a, const char *b)
{
    unsigned rows[3][WORD_MAX + 1]; /* of the last two letters of @a, and the one in work */
    size_t m = strlen(a), n = strlen(b);

    if (m > WORD_MAX || n > WORD_MAX)
        return 1000;
    for (size_t j = 0; j <= n; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= m; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *above = rows[(i - 1) % 3], *before = rows[(i + 1) % 3];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= n; j++) {
            row[j] = MIN(MIN(above[j], row[j - 1]) + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = MIN(row[j], before[j - 2] + 1);
        }
    }
    return rows[m % 3][n];
}

const char *units_nearest(const char *word, const char *const *candidates)
{
    unsigned limit = (unsigned)MAX(1, strlen(word) / 3), best = limit + 1;
    const char *nearest = NULL;

    for (; candidates && *candidates; candidates++) {
        unsigned distance = edit_distance(word, *candidates);

        if (distance < best) {
            best = distance;
            nearest = *candidates;
        }
    }
    return nearest;
}
