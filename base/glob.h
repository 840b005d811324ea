/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Globs over the parts of a path: in each part *, ? and [] as fnmatch has them, and a part "**" for any number of folders, none among them.
 */
#ifndef KILN_BASE_GLOB_H
#define KILN_BASE_GLOB_H

#include <stdbool.h>

/* Both NULL-terminated. With @inside, what lies below a folder that matches does, too. */
bool glob_match_parts(char *const *pattern, char *const *path, bool inside);

#endif
