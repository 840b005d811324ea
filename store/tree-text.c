/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The canonical text of a tree (drawing in store/tree.h): the bytes that its
 * identity is the SHA-256 of, and the form in which it lies in the store.
 *
 * There is one text for one tree. Reading therefore refuses everything that
 * writing would not have produced, by writing it again and comparing; data
 * offsets are not in the text and follow from the order (see tree-space.c).
 */
#include "store/tree.h"

#include "base/error.h"
#include "base/printable.h"
#include "store/tree-space.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define TREE_TEXT_HEAD "kiln-tree 1\n"

static const char hex_digits[] = "0123456789abcdef";

static void put_hex(GString *out, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        g_string_append_c(out, hex_digits[data[i] >> 4]);
        g_string_append_c(out, hex_digits[data[i] & 15]);
    }
}

static void put_xattrs(GString *out, const GPtrArray *xattrs)
{
    for (guint i = 0; xattrs && i < xattrs->len; i++) {
        const TreeXattr *x = xattrs->pdata[i];
        size_t size;
        const uint8_t *data = g_bytes_get_data(x->value, &size);

        g_string_append(out, " x:");
        printable_encode(out, x->name);
        g_string_append_c(out, '=');
        put_hex(out, data, size);
    }
}

static void put_entry(GString *out, const TreeEntry *entry)
{
    g_string_append_c(out, entry->type);
    if (entry->type != 'h')
        g_string_append_printf(out, " %04o %" PRIu32 " %" PRIu32 " %" PRId64, entry->mode & 07777u, entry->uid,
                               entry->gid, entry->mtime);
    g_string_append_c(out, ' ');
    printable_encode(out, *entry->path ? entry->path : "/");
    if (entry->type == 'f') {
        g_string_append_printf(out, " size=%" PRIu64 " sha256=", entry->size);
        put_hex(out, entry->sha256.bytes, DIGEST_SIZE);
    } else if (entry->type == 'l' || entry->type == 'h') {
        g_string_append(out, entry->type == 'l' ? " target=" : " leader=");
        printable_encode(out, entry->target ? entry->target : "");
    } else if (entry->type == 'b' || entry->type == 'c') {
        g_string_append_printf(out, " major=%" PRIu32 " minor=%" PRIu32, entry->major, entry->minor);
    }
    if (entry->type != 'h')
        put_xattrs(out, entry->xattrs);
    g_string_append_c(out, '\n');
}

char *tree_to_text(Tree *tree, size_t *ret_size)
{
    GString *out = g_string_sized_new(128 * tree_count(tree) + 64);

    g_string_append(out, TREE_TEXT_HEAD);
    for (size_t i = 0; i < tree_count(tree); i++)
        put_entry(out, tree_nth(tree, i));
    if (ret_size)
        *ret_size = out->len;
    return g_string_free(out, FALSE);
}

void tree_digest(Tree *tree, Digest *ret)
{
    size_t size;
    g_autofree char *text = tree_to_text(tree, &size);

    digest_of(text, size, ret);
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Bytes of @hex, or NULL when it is no even run of lower-case hex digits. */
static uint8_t *get_hex(const char *hex, size_t *ret_size)
{
    size_t size = strlen(hex) / 2;
    g_autofree uint8_t *data = g_malloc(size + 1);

    if (strlen(hex) % 2)
        return NULL;
    for (size_t i = 0; i < size; i++) {
        int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);

        if (high < 0 || low < 0)
            return NULL;
        data[i] = (uint8_t)(high << 4 | low);
    }
    *ret_size = size;
    return g_steal_pointer(&data);
}

static char *get_decoded(const char *text)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (const char *p = text; *p; p++) {
        if (*p == '%') {
            int high = hex_value(p[1]), low = high < 0 ? -1 : hex_value(p[2]);

            if (low < 0 || (high == 0 && low == 0))
                return NULL;
            g_string_append_c(out, (char)(high << 4 | low));
            p += 2;
        } else {
            g_string_append_c(out, *p);
        }
    }
    return g_string_free(g_steal_pointer(&out), FALSE);
}

static bool get_unsigned(const char *text, int base, uint64_t max, uint64_t *ret)
{
    char *end;

    if (!g_ascii_isdigit(*text))
        return false;
    errno = 0;
    *ret = g_ascii_strtoull(text, &end, (guint)base);
    return errno == 0 && *end == '\0' && *ret <= max;
}

static bool get_signed(const char *text, int64_t *ret)
{
    char *end;

    errno = 0;
    *ret = g_ascii_strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0';
}

/* "key=" in front of @field gives what follows. */
static const char *get_field(const char *field, const char *key)
{
    return field && g_str_has_prefix(field, key) ? field + strlen(key) : NULL;
}

/* The fields after the path: what the type asks for. Moves *@fields to the first one it does not know. */
static bool get_typed(TreeEntry *entry, char ***fields)
{
    char **f = *fields;
    const char *text, *second;
    uint64_t value;

    switch (entry->type) {
    case 'f':
        if (!(text = get_field(f[0], "size=")) || !get_unsigned(text, 10, INT64_MAX, &entry->size) ||
            !(second = get_field(f[1], "sha256=")) || !digest_parse(second, &entry->sha256))
            return false;
        *fields += 2;
        return true;
    case 'l':
    case 'h':
        if (!(text = get_field(f[0], entry->type == 'l' ? "target=" : "leader=")) ||
            !(entry->target = get_decoded(text)))
            return false;
        *fields += 1;
        return true;
    case 'b':
    case 'c':
        if (!(text = get_field(f[0], "major=")) || !get_unsigned(text, 10, UINT32_MAX, &value))
            return false;
        entry->major = (uint32_t)value;
        if (!(second = get_field(f[1], "minor=")) || !get_unsigned(second, 10, UINT32_MAX, &value))
            return false;
        entry->minor = (uint32_t)value;
        *fields += 2;
        return true;
    default:
        return strchr("dps", entry->type) != NULL;
    }
}

static bool get_xattrs(TreeEntry *entry, char **fields)
{
    for (; *fields; fields++) {
        const char *text = get_field(*fields, "x:");
        const char *equals = text ? strchr(text, '=') : NULL;
        g_autofree char *encoded = equals ? g_strndup(text, (gsize)(equals - text)) : NULL;
        g_autofree char *name = encoded ? get_decoded(encoded) : NULL;
        size_t size = 0;
        g_autofree uint8_t *value = equals ? get_hex(equals + 1, &size) : NULL;

        if (!name || !value || entry->type == 'h' || (entry->xattrs && entry->xattrs->len >= TREE_XATTRS_MAX))
            return false;
        tree_entry_set_xattr(entry, name, value, size);
    }
    return true;
}

static bool get_owner(TreeEntry *entry, char **fields)
{
    uint64_t mode, uid, gid;

    if (!get_unsigned(fields[0], 8, 07777, &mode) || !get_unsigned(fields[1], 10, UINT32_MAX, &uid) ||
        !get_unsigned(fields[2], 10, UINT32_MAX, &gid) || !get_signed(fields[3], &entry->mtime))
        return false;
    entry->mode = (uint16_t)mode;
    entry->uid = (uint32_t)uid;
    entry->gid = (uint32_t)gid;
    return true;
}

static TreeEntry *get_entry(char *line)
{
    g_auto(GStrv) fields = g_strsplit(line, " ", -1);
    guint count = g_strv_length(fields), at = count && *fields[0] == 'h' ? 1 : 5;
    g_autofree char *path = NULL;
    TreeEntry *entry;
    char **rest;

    if (count <= at || strlen(fields[0]) != 1 || !(path = get_decoded(fields[at])))
        return NULL;
    entry = tree_entry_new(strcmp(path, "/") == 0 ? "" : path, *fields[0]);
    rest = fields + at + 1;
    if ((entry->type != 'h' && !get_owner(entry, fields + 1)) || !get_typed(entry, &rest) || !get_xattrs(entry, rest)) {
        tree_entry_free(entry);
        return NULL;
    }
    return entry;
}

static bool text_is_canonical(Tree *tree, const char *text, size_t size)
{
    size_t again_size;
    g_autofree char *again = tree_to_text(tree, &again_size);

    return again_size == size && memcmp(again, text, size) == 0;
}

bool tree_from_text(const char *text, size_t size, Tree **ret, GError **error)
{
    g_autoptr(Tree) tree = tree_new();
    size_t at = strlen(TREE_TEXT_HEAD);

    if (size < at || memcmp(text, TREE_TEXT_HEAD, at) != 0)
        return fail(error, "this is no tree of version 1");
    for (unsigned line_number = 2; at < size; line_number++) {
        const char *end = memchr(text + at, '\n', size - at);
        g_autofree char *line = NULL;
        TreeEntry *entry = NULL;

        if (end) {
            line = g_strndup(text + at, (gsize)(end - (text + at)));
            entry = get_entry(line);
        }
        if (!entry)
            return fail(error, "line %u of the tree is damaged", line_number);
        tree_put(tree, entry);
        at = (size_t)(end + 1 - text);
    }
    if (!tree_check(tree, error))
        return false;
    if (!text_is_canonical(tree, text, size))
        return fail(error, "the tree's text is not in its canonical form");
    if (!tree_space_lay_out(tree, NULL, error))
        return false;
    *ret = g_steal_pointer(&tree);
    return true;
}
