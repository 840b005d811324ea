/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fnmatch knows nothing of "**", so it is asked part by part.
 */
#include "base/glob.h"

#include <fnmatch.h>
#include <string.h>

bool glob_match_parts(char *const *pattern, char *const *path, bool inside)
{
    if (!*pattern)
        return inside || !*path;
    if (strcmp(*pattern, "**") == 0)
        return glob_match_parts(pattern + 1, path, inside) || (*path && glob_match_parts(pattern, path + 1, inside));
    return *path && fnmatch(*pattern, *path, 0) == 0 && glob_match_parts(pattern + 1, path + 1, inside);
}
