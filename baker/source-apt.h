/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a bootstrap's packages come from: apt entries, in both of apt's spellings, and the signed release files behind them.
 *
 * The host's own entries are read, never its options: of an entry only URI, suite, components and the path of its
 * keyring are taken over. Everything is bounded; what cannot be read is left out, as apt would refuse it anyway.
 */
#ifndef KILN_BAKER_SOURCE_APT_H
#define KILN_BAKER_SOURCE_APT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct AptEntry { /* one `deb` line with one URI and one suite (ending in a slash: a flat one, without components) */
    char *uri;            /* without final slash */
    char *suite;
    char **components;
    char *signed_by;      /* path of a keyring, or (starting with "-----BEGIN") a key itself, or NULL */
    bool trusted;         /* its owner wants no signature */
} AptEntry;
void apt_entry_free(AptEntry *entry);

/* Both append AptEntry* to @entries. */
void apt_parse_one_line(const char *text, GPtrArray *entries);
void apt_parse_deb822(const char *text, GPtrArray *entries);

/* sources.list and sources.list.d/ of @folder ("/etc/apt"); absent files are fine. */
GPtrArray *apt_read_folder(const char *folder);

/*
 * The entries that belong to @suite (itself, -updates, -security) and are signed by a Debian archive key, as one-line
 * entries with their keyring written out. Without any, the public archive's. @components NULL: the entries' own.
 */
char **apt_lines_for_suite(GPtrArray *entries, const char *suite, const char *const *components);

/* One entry of a template: a `deb` line, or a URL, which stands for `deb URL SUITE COMPONENTS`. */
bool apt_line_from_template(const char *text, const char *suite, const char *const *components, char **ret,
                            GError **error);

/* URL of the InRelease file behind an entry, or behind a one-line entry (NULL when it is none). */
char *apt_entry_release_url(const AptEntry *entry);
char *apt_release_url(const char *line);

/* The Date: field of a release file, in seconds; -1 without one. */
int64_t apt_release_date(const char *text);

#endif
