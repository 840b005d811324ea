/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX ACLs in their three spellings: Linux xattr bytes (what trees hold), ext4's shorter form on disk, and
 * single entries as archives list them.
 */
#ifndef KILN_STORE_TREE_ACL_H
#define KILN_STORE_TREE_ACL_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* New bytes, or NULL for damaged input. */
GByteArray *tree_acl_from_ext4(const void *disk, size_t size);
GByteArray *tree_acl_to_ext4(const void *linux_bytes, size_t size);

/* Builds Linux bytes entry by entry, starting with NULL; entries must come in ACL order (tag, then id). */
void tree_acl_append(GByteArray **acl, uint16_t tag, uint16_t perm, uint32_t id);

static inline bool tree_acl_is_name(const char *xattr)
{
    return g_str_equal(xattr, "system.posix_acl_access") || g_str_equal(xattr, "system.posix_acl_default");
}

enum { ACL_TAG_USER_OBJ = 1, ACL_TAG_USER = 2, ACL_TAG_GROUP_OBJ = 4, ACL_TAG_GROUP = 8, ACL_TAG_MASK = 16, ACL_TAG_OTHER = 32 };
#define ACL_NO_ID 0xffffffffu

#endif
