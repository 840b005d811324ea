/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX ACLs, translated.
 *
 *     Linux xattr (version 2):  le32 2 | { le16 tag, le16 perm, le32 id } ...
 *     ext4 on disk (version 1): le32 1 | { le16 tag, le16 perm [, le32 id for named users and groups] } ...
 */
#include "store/tree-acl.h"

#include <string.h>

#define ACL_ENTRIES_MAX 8192

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) | (uint32_t)get16(p + 2) << 16;
}

static void put16(GByteArray *out, uint16_t value)
{
    const uint8_t bytes[2] = {(uint8_t)value, (uint8_t)(value >> 8)};

    g_byte_array_append(out, bytes, sizeof bytes);
}

static void put32(GByteArray *out, uint32_t value)
{
    put16(out, (uint16_t)value);
    put16(out, (uint16_t)(value >> 16));
}

static bool tag_is_named(uint16_t tag)
{
    return tag == ACL_TAG_USER || tag == ACL_TAG_GROUP;
}

static bool tag_is_known(uint16_t tag)
{
    return tag_is_named(tag) || tag == ACL_TAG_USER_OBJ || tag == ACL_TAG_GROUP_OBJ || tag == ACL_TAG_MASK ||
           tag == ACL_TAG_OTHER;
}

void tree_acl_append(GByteArray **acl, uint16_t tag, uint16_t perm, uint32_t id)
{
    if (!*acl) {
        *acl = g_byte_array_new();
        put32(*acl, 2);
    }
    put16(*acl, tag);
    put16(*acl, perm);
    put32(*acl, tag_is_named(tag) ? id : ACL_NO_ID);
}

GByteArray *tree_acl_from_ext4(const void *disk, size_t size)
{
    g_autoptr(GByteArray) out = NULL;
    const uint8_t *p = disk, *end = p + size;

    if (size < 4 || size > 8 * ACL_ENTRIES_MAX || get32(p) != 1)
        return NULL;
    for (p += 4; p < end;) {
        size_t step = end - p >= 4 && tag_is_named(get16(p)) ? 8 : 4;

        if ((size_t)(end - p) < step || !tag_is_known(get16(p)))
            return NULL;
        tree_acl_append(&out, get16(p), get16(p + 2), step == 8 ? get32(p + 4) : ACL_NO_ID);
        p += step;
    }
    return g_steal_pointer(&out);
}

GByteArray *tree_acl_to_ext4(const void *linux_bytes, size_t size)
{
    g_autoptr(GByteArray) out = NULL;
    const uint8_t *p = linux_bytes, *end = p + size;

    if (size < 4 || size > 8 * ACL_ENTRIES_MAX || (size - 4) % 8 || get32(p) != 2)
        return NULL;
    out = g_byte_array_new();
    put32(out, 1);
    for (p += 4; p < end; p += 8) {
        if (!tag_is_known(get16(p)))
            return NULL;
        put16(out, get16(p));
        put16(out, get16(p + 2));
        if (tag_is_named(get16(p)))
            put32(out, get32(p + 4));
    }
    return g_steal_pointer(&out);
}
