/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A check in every page of a database, so that a bit that changed on the disk is found wherever it is.
 *
 * SQLite's integrity_check knows trees and indexes; a letter that became another one in a row it cannot know. So our databases are made with 8
 * reserved bytes at the end of each page (which every SQLite leaves alone), and whenever a page goes into the file these get the start of a SHA-256:
 *
 *     page: | content, page size - 8 | SHA-256(content, page number as 64-bit little-endian)[0..8] |
 *
 * Nothing looks at the check but database_pages_check(). Pages in a WAL have SQLite's own check there, and get ours when they are copied into the
 * file; a page that was never written to is all zero. Databases from before have no reserved bytes, until database_add_checks() has written
 * them anew.
 *
 * The second file of the door to SQLite, beside database.c, which is its only user.
 */
#ifndef KILN_STORE_DATABASE_PAGES_H
#define KILN_STORE_DATABASE_PAGES_H

#include <glib.h>
#include <stdbool.h>

#define DATABASE_PAGE_CHECK 8

/* The name of the VFS that writes the checks, over whatever VFS is the default at the moment. */
const char *database_pages_vfs(void);

/*
 * Reads the whole file at @path; a sentence with @file for each of the first 20 bad pages, one for the rest. *ret_checked: its pages have checks.
 * Others may write meanwhile. A file that is not there is no problem of this function.
 */
bool database_pages_check(const char *path, const char *file, GPtrArray *problems, bool *ret_checked, GError **error);

#endif
