/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members of the family, for post-table.c alone.
 */
#ifndef KILN_BAKER_POST_MEMBERS_H
#define KILN_BAKER_POST_MEMBERS_H

#include "baker/post.h"

extern const PostOps post_manifest_ops;

#endif
