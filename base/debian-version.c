/* SPDX-License-Identifier: Apache-2.0 */
#include "base/debian-version.h"

#include <glib.h>

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
