/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debian's order of version strings (deb-version(7)), one part of a version at a time: no epoch, no split at the last '-'.
 */
#ifndef KILN_BASE_DEBIAN_VERSION_H
#define KILN_BASE_DEBIAN_VERSION_H

/* <0, 0, >0 */
int debian_version_compare(const char *a, const char *b);

/* Whole versions: [EPOCH:]UPSTREAM[-REVISION]. What comes before a ':' and is no number is not an epoch. */
int debian_version_compare_whole(const char *a, const char *b);

#endif
