/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The security entries among apt's package sources, in both of its formats.
 */
#ifndef KILN_PROVISIONER_APT_SOURCES_H
#define KILN_PROVISIONER_APT_SOURCES_H

#include <glib.h>
#include <stdbool.h>

#define APT_SOURCES_SIZE_MAX (4u << 20)

/*
 * Appends to @list, as one-line entries, what of @text names a suite that ends in "-security" (or "/updates",
 * as Debian called it up to buster). @deb822: the format of .sources files. Entries that are disabled are
 * left out. Inline keys (Signed-By with a key in it) cannot be said in one line: such an entry goes without
 * Signed-By and needs the key in trusted.gpg.d.
 */
void apt_sources_security(const char *text, bool deb822, GString *list);

#endif
