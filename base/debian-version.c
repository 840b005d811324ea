/* SPDX-License-Identifier: Apache-2.0 */
#include "base/debian-version.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

/* dpkg's weight of a character outside digits: '~' before the end, the end before letters, letters before the rest. */
static int version_weight(char c)
{
    if (g_ascii_isdigit(c))
        return 0;
    if (g_ascii_isalpha(c))
        return c;
    if (c == '~')
        return -1;
    return c ? (unsigned char)c + 256 : 0;
}

int debian_version_compare(const char *a, const char *b)
{
    while (*a || *b) {
        int first = 0;

        while ((*a && !g_ascii_isdigit(*a)) || (*b && !g_ascii_isdigit(*b))) {
            int wa = version_weight(*a), wb = version_weight(*b);

            if (wa != wb)
                return wa - wb;
            a += *a != '\0';
            b += *b != '\0';
        }
        while (*a == '0')
            a++;
        while (*b == '0')
            b++;
        for (; g_ascii_isdigit(*a) && g_ascii_isdigit(*b); a++, b++)
            if (!first)
                first = *a - *b;
        if (g_ascii_isdigit(*a))
            return 1;
        if (g_ascii_isdigit(*b))
            return -1;
        if (first)
            return first;
    }
    return 0;
}

static unsigned long take_epoch(const char **version)
{
    char *end;
    unsigned long epoch = strtoul(*version, &end, 10);

    if (end == *version || *end != ':' || !g_ascii_isdigit(**version))
        return 0;
    *version = end + 1;
    return epoch;
}

/* The part before the last '-'; *ret_revision is what follows it, "" for nothing. */
static char *upstream_of(const char *version, const char **ret_revision)
{
    const char *dash = strrchr(version, '-');

    *ret_revision = dash ? dash + 1 : "";
    return dash ? g_strndup(version, (gsize)(dash - version)) : g_strdup(version);
}

int debian_version_compare_whole(const char *a, const char *b)
{
    unsigned long epoch_a = take_epoch(&a), epoch_b = take_epoch(&b);
    const char *revision_a, *revision_b;
    g_autofree char *upstream_a = upstream_of(a, &revision_a), *upstream_b = upstream_of(b, &revision_b);
    int order;

    if (epoch_a != epoch_b)
        return epoch_a < epoch_b ? -1 : 1;
    order = debian_version_compare(upstream_a, upstream_b);
    return order ? order : debian_version_compare(revision_a, revision_b);
}
