/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members of the family, for post-table.c alone.
 */
#ifndef KILN_BAKER_POST_MEMBERS_H
#define KILN_BAKER_POST_MEMBERS_H

#include "baker/post.h"

extern const PostOps post_artifice_ops;
extern const PostOps post_checksum_ops;
extern const PostOps post_compress_ops;
extern const PostOps post_docker_import_ops;
extern const PostOps post_docker_push_ops;
extern const PostOps post_docker_save_ops;
extern const PostOps post_docker_tag_ops;
extern const PostOps post_manifest_ops;
extern const PostOps post_shell_local_ops;

#endif
