/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gzip at any level, by all processors: a row of members (RFC 1952, 2.2), each of one piece of the input, which every reader of gzip takes as one
 * stream. Beside store/deflate.h for who asks for a level; the bytes are zlib's, and the same whatever the number of processors.
 *
 * As bgzf (the pieces at most 65,280 bytes, each member saying its own length, an empty one at the end) tools can seek in it.
 */
#ifndef KILN_STORE_GZIP_MEMBERS_H
#define KILN_STORE_GZIP_MEMBERS_H

#include "store/deflate.h"

typedef struct GzipMembers GzipMembers;

/* @level: 1 to 9. @out as for GzipWriter, called from the thread that pushes. */
GzipMembers *gzip_members_new(int level, bool bgzf, GzipOutFn *out, void *arg);
bool gzip_members_push(GzipMembers *z, const void *data, size_t size, GError **error);
bool gzip_members_finish(GzipMembers *z, GError **error); /* once */
void gzip_members_free(GzipMembers *z);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GzipMembers, gzip_members_free)

#endif
