/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encodes tree entries as ustar and pax headers, and walks the headers of a foreign tar.
 *
 *   ustar header: name 100 | mode 8 | uid 8 | gid 8 | size 12 | mtime 12 | checksum 8 | type 1 | linkname 100
 * | "ustar\0" "00" | uname 32 | gname 32 | devmajor 8 | devminor 8 | prefix 155 | 12 unused
 *
 * Pax records come in one order: path, linkpath, size, uid, gid, mtime, device numbers, xattrs by name.
 */
#include "store/tar-header.h"

#include "base/error.h"
#include "base/file.h"

#include <string.h>
#include <sys/stat.h>

#define NAME_SIZE 100
#define PREFIX_SIZE 155
#define OCTAL7_MAX 07777777u
#define OCTAL11_MAX 077777777777ull
#define FOREIGN_NAME_MAX 4096
#define FOREIGN_PAX_MAX (1u << 20)

typedef TarUstar Ustar;

/* --- writing --------------------------------------------------------------- */

static bool is_ascii(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text >= 0x80)
            return false;
    return true;
}

/* "<length> key=value\n", where the length counts itself. */
static void pax_record(GByteArray *pax, const char *key, const void *value, size_t size)
{
    size_t rest = 1 + strlen(key) + 1 + size + 1, total = rest + 1, before;
    char digits[24];

    do {
        before = total;
        total = rest + (size_t)g_snprintf(digits, sizeof(digits), "%zu", total);
    } while (total != before);
    g_snprintf(digits, sizeof(digits), "%zu ", total);
    g_byte_array_append(pax, (const guint8 *)digits, (guint)strlen(digits));
    g_byte_array_append(pax, (const guint8 *)key, (guint)strlen(key));
    g_byte_array_append(pax, (const guint8 *)"=", 1);
    g_byte_array_append(pax, value, (guint)size);
    g_byte_array_append(pax, (const guint8 *)"\n", 1);
}

static void pax_number(GByteArray *pax, const char *key, int64_t value)
{
    char digits[24];

    g_snprintf(digits, sizeof(digits), "%" G_GINT64_FORMAT, value);
    pax_record(pax, key, digits, strlen(digits));
}

/* Always digits and a NUL; a number that does not fit goes into a pax record and is 0 here. */
static void put_octal(char *field, size_t size, uint64_t value)
{
    field[size - 1] = 0;
    for (size_t i = size - 1; i-- > 0; value >>= 3)
        field[i] = (char)('0' + (value & 7));
}

static void put_number(GByteArray *pax, const char *key, char *field, size_t size, int64_t value,
                       uint64_t max)
{
    bool fits = value >= 0 && (uint64_t)value <= max;

    put_octal(field, size, fits ? (uint64_t)value : 0);
    if (!fits)
        pax_number(pax, key, value);
}

/* Where the name may be cut into prefix and name; 0 when it does not fit that way. */
static size_t prefix_cut(const char *path, size_t size)
{
    if (size <= NAME_SIZE || size > NAME_SIZE + 1 + PREFIX_SIZE)
        return 0;
    for (size_t cut = size - NAME_SIZE - 1; cut <= PREFIX_SIZE && cut + 1 < size; cut++)
        if (path[cut] == '/' && cut > 0)
            return cut;
    return 0;
}

/* A stand-in for readers that know no pax. */
static void put_ascii(char *field, const char *text)
{
    for (size_t i = 0; i < NAME_SIZE && text[i]; i++)
        field[i] = (unsigned char)text[i] < 0x80 ? text[i] : '_';
}

static void put_path(Ustar *u, GByteArray *pax, const char *path)
{
    size_t size = strlen(path), cut = prefix_cut(path, size);
    bool fits = size <= NAME_SIZE || cut, utf8 = g_utf8_validate(path, -1, NULL);

    if (fits && (is_ascii(path) ||
                 !utf8)) { /* pax names are UTF-8 by its rules; others stay raw bytes where they can */
        memcpy(u->prefix, path, cut);
        memcpy(u->name, path + (cut ? cut + 1 : 0), size - (cut ? cut + 1 : 0));
        return;
    }
    put_ascii(u->name, path);
    if (!utf8)
        pax_record(pax, "hdrcharset", "BINARY", 6);
    pax_record(pax, "path", path, size);
}

static void put_link(Ustar *u, GByteArray *pax, const char *target)
{
    size_t size = strlen(target);
    bool utf8 = g_utf8_validate(target, -1, NULL);

    if (size <= NAME_SIZE && (is_ascii(target) || !utf8)) {
        memcpy(u->linkname, target, size);
        return;
    }
    put_ascii(u->linkname, target);
    pax_record(pax, "linkpath", target, size);
}

static bool put_xattrs(GByteArray *pax, const TreeEntry *entry, GError **error)
{
    for (guint i = 0; entry->xattrs && i < entry->xattrs->len; i++) {
        const TreeXattr *xattr = g_ptr_array_index(entry->xattrs, i);
        g_autofree char *key = g_strconcat("SCHILY.xattr.", xattr->name, NULL);
        gsize size;
        const void *value = g_bytes_get_data(xattr->value, &size);

        if (strchr(xattr->name, '='))
            return fail(error, "'%s' has an extended attribute '%s', which tar cannot carry", entry->path,
                        xattr->name);
        pax_record(pax, key, value, size);
    }
    return true;
}

/* The checksum field itself counts as spaces. */
static void put_checksum(Ustar *u)
{
    const unsigned char *bytes = (const unsigned char *)u;
    unsigned sum = 0;

    memset(u->checksum, ' ', sizeof(u->checksum));
    for (size_t i = 0; i < TAR_BLOCK; i++)
        sum += bytes[i];
    put_octal(u->checksum, 7, sum);
    u->checksum[7] = ' ';
}

static void ustar_init(Ustar *u, char type)
{
    memset(u, 0, sizeof(*u));
    memcpy(u->magic, "ustar", 6);
    memcpy(u->version, "00", 2);
    u->type = type;
    put_octal(u->devmajor, 8, 0);
    put_octal(u->devminor, 8, 0);
}

static void append_pax(GByteArray *out, const GByteArray *pax)
{
    static const guint8 zeroes[TAR_BLOCK];
    Ustar u;

    ustar_init(&u, 'x');
    memcpy(u.name, "PaxHeaders/entry", 16);
    put_octal(u.mode, 8, 0644);
    put_octal(u.uid, 8, 0);
    put_octal(u.gid, 8, 0);
    put_octal(u.mtime, 12, 0);
    put_octal(u.size, 12, pax->len);
    put_checksum(&u);
    g_byte_array_append(out, (const guint8 *)&u, TAR_BLOCK);
    g_byte_array_append(out, pax->data, pax->len);
    g_byte_array_append(out, zeroes, (guint)tar_padding(pax->len));
}

static char type_flag(char type)
{
    static const char pairs[] = "f0d5l2h1b4c3p6";

    for (size_t i = 0; pairs[i]; i += 2)
        if (pairs[i] == type)
            return pairs[i + 1];
    return 0;
}

TreeEntry tar_header_entry(const Tree *tree, const TreeEntry *entry)
{
    const TreeEntry *first = entry->type == 'h' ? tree_content_entry(tree, entry) : NULL;
    TreeEntry named = *entry;

    if (first) {
        named.mode = first->mode;
        named.uid = first->uid;
        named.gid = first->gid;
        named.mtime = first->mtime;
    }
    return named;
}

bool tar_header_append(GByteArray *out, const TreeEntry *entry, GError **error)
{
    g_autoptr(GByteArray) pax = g_byte_array_new();
    g_autofree char *path =
        g_strconcat(*entry->path ? entry->path : ".", entry->type == 'd' ? "/" : "", NULL);
    char flag = type_flag(entry->type);
    Ustar u;

    if (!flag)
        return fail(error, "'%s' is a socket, which tar cannot carry", entry->path);
    ustar_init(&u, flag);
    put_path(&u, pax, path);
    if (entry->type == 'l' || entry->type == 'h')
        put_link(&u, pax, entry->target);
    put_octal(u.mode, 8, entry->mode & 07777);
    put_number(pax, "size", u.size, 12, entry->type == 'f' ? (int64_t)entry->size : 0, OCTAL11_MAX);
    put_number(pax, "uid", u.uid, 8, entry->uid, OCTAL7_MAX);
    put_number(pax, "gid", u.gid, 8, entry->gid, OCTAL7_MAX);
    put_number(pax, "mtime", u.mtime, 12, entry->mtime, OCTAL11_MAX);
    if (entry->type == 'b' || entry->type == 'c') {
        put_number(pax, "SCHILY.devmajor", u.devmajor, 8, entry->major, OCTAL7_MAX);
        put_number(pax, "SCHILY.devminor", u.devminor, 8, entry->minor, OCTAL7_MAX);
    }
    if (entry->type != 'h' && !put_xattrs(pax, entry, error))
        return false;
    put_checksum(&u);
    if (pax->len)
        append_pax(out, pax);
    g_byte_array_append(out, (const guint8 *)&u, TAR_BLOCK);
    return true;
}

/* --- reading ---------------------------------------------------------------- */

typedef struct Override { /* what an extension header says of the next member */
    char *name;
    uint64_t size;
    bool has_size;
} Override;

static void override_clear(Override *o)
{
    g_free(o->name);
    *o = (Override){NULL, 0, false};
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Override, override_clear)

static void member_free(TarMember *member)
{
    if (!member)
        return;
    g_free(member->name);
    g_free(member);
}

bool tar_get_number(const char *field, size_t size, uint64_t *ret)
{
    uint64_t value = 0;
    size_t i = 0;

    if ((unsigned char)field[0] == 0x80) {
        for (i = 1; i < size; i++) {
            if (value >> 55)
                return false;
            value = value << 8 | (unsigned char)field[i];
        }
        *ret = value;
        return true;
    }
    while (i < size && field[i] == ' ')
        i++;
    for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
        value = value << 3 | (uint64_t)(field[i] - '0');
    *ret = value;
    return i == size || field[i] == 0 || field[i] == ' ';
}

bool tar_checksum_fits(const TarUstar *u)
{
    Ustar copy = *u;
    uint64_t said;
    unsigned sum = 0;

    memset(copy.checksum, ' ', sizeof(copy.checksum));
    for (size_t i = 0; i < TAR_BLOCK; i++)
        sum += ((const unsigned char *)&copy)[i];
    return tar_get_number(u->checksum, sizeof(u->checksum), &said) && said == sum;
}

/* Takes path and size out of pax records; false when they are malformed. */
static bool read_pax(const char *text, size_t size, Override *o)
{
    for (size_t at = 0; at < size;) {
        char *rest;
        guint64 length = g_ascii_strtoull(text + at, &rest, 10);
        size_t head = (size_t)(rest - (text + at)) + 1;
        const char *key = text + at + head, *end = text + at + length - 1, *equals;

        if (rest == text + at || *rest != ' ' || length <= head + 1 || length > size - at || *end != '\n')
            return false;
        equals = memchr(key, '=', (size_t)(end - key));
        if (!equals)
            return false;
        if (equals - key == 4 && memcmp(key, "path", 4) == 0) {
            g_free(o->name);
            o->name = g_strndup(equals + 1, (gsize)(end - equals - 1));
        } else if (equals - key == 4 && memcmp(key, "size", 4) == 0) {
            o->size = g_ascii_strtoull(equals + 1, NULL, 10);
            o->has_size = true;
        }
        at += length;
    }
    return true;
}

static bool read_extension(int fd, const Ustar *u, uint64_t offset, uint64_t size, Override *o,
                           const char *what, GError **error)
{
    g_autofree char *text = NULL;

    if (size > FOREIGN_PAX_MAX)
        return fail(error, "%s has an extension header of %" G_GUINT64_FORMAT " bytes", what, size);
    text = g_malloc0(size + 1);
    if (!file_pread_full(fd, text, size, offset, what, error))
        return false;
    if (u->type == 'L') {
        g_free(o->name);
        o->name = g_strdup(text);
    } else if (u->type == 'x' && !read_pax(text, size, o)) {
        return fail(error, "%s has a malformed pax header", what);
    }
    return true;
}

static TarMember *member_new(const Ustar *u, const Override *o, uint64_t offset, uint64_t size)
{
    TarMember *member = g_new0(TarMember, 1);
    g_autofree char *name = g_strndup(u->name, NAME_SIZE), *prefix = g_strndup(u->prefix, PREFIX_SIZE),
                    *full = NULL;
    const char *plain;

    if (o->name)
        full = g_strdup(o->name);
    else if (memcmp(u->magic, "ustar", 6) == 0 && *prefix)
        full = g_strconcat(prefix, "/", name, NULL);
    else
        full = g_strdup(name);
    plain = full;
    while (g_str_has_prefix(plain, "./"))
        plain += 2;
    *member = (TarMember){g_strdup(plain), offset, size};
    return member;
}

bool tar_list(int fd, size_t max, const char *what, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) members = g_ptr_array_new_with_free_func((GDestroyNotify)member_free);
    g_auto(Override) o = {NULL, 0, false};
    struct stat st;
    uint64_t end, size;

    if (fstat(fd, &st) < 0)
        return fail_errno(error, "read %s", what);
    end = (uint64_t)st.st_size;
    if (end < TAR_BLOCK)
        return fail(error, "%s is no tar archive, or a damaged one", what);
    for (uint64_t at = 0; at + TAR_BLOCK <= end;) {
        Ustar u;

        if (!file_pread_full(fd, &u, sizeof(u), at, what, error))
            return false;
        if (bytes_are_zero(&u, sizeof(u)))
            break;
        if (!tar_checksum_fits(&u) || !tar_get_number(u.size, sizeof(u.size), &size))
            return fail(error, "%s is no tar archive, or a damaged one", what);
        at += TAR_BLOCK;
        if (u.type == 'x' || u.type == 'L' || u.type == 'g' || u.type == 'K') {
            if (size > end - at || !read_extension(fd, &u, at, size, &o, what, error))
                return error && *error ? false : fail(error, "%s ends too early", what);
        } else {
            if (o.has_size)
                size = o.size;
            if (u.type >= '1' && u.type <= '6')
                size = 0;
            if (size > end - at)
                return fail(error, "%s ends too early", what);
            if ((u.type == '0' || u.type == 0) &&
                strnlen(o.name ? o.name : "", FOREIGN_NAME_MAX + 1) <= FOREIGN_NAME_MAX)
                g_ptr_array_add(members, member_new(&u, &o, at, size));
            override_clear(&o);
        }
        if (members->len > max)
            return fail(error, "%s holds more than %zu files", what, max);
        at += size + tar_padding(size);
    }
    *ret = g_steal_pointer(&members);
    return true;
}
