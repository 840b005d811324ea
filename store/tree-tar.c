/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tar archives into trees. The door to libarchive for tree content.
 *
 * Everything in an archive is hostile. Only tar formats and compressions that
 * libarchive decodes by itself are switched on: others would start programs
 * (lrzip) or read files of this machine (mtree). Paths that climb are refused,
 * sizes and counts are bounded by the builder.
 *
 * Names are bytes to us. libarchive converts them between character sets, so
 * it runs under C.UTF-8, where that changes nothing; what it then still cannot
 * take as it is (a PAX name that is not UTF-8) is refused, never mangled.
 */
#include "store/tree-acl.h"
#include "store/tree-space.h"

#include "base/error.h"
#include "base/interrupt.h"

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define TAR_XATTR_MAX 65536 /* Linux's own limit for one value */
#define TAR_XATTRS_MAX 1024

typedef struct TarReader {
    TreeBuilder *builder;
    struct archive *archive;
    TreeSkipFn *skip;
    TreeWhiteoutFn *on_whiteout;
    void *arg;
    bool ended; /* without what belongs at the end */
} TarReader;

static bool tar_fail(struct archive *archive, GError **error)
{
    const char *text = archive_error_string(archive);

    return fail(error, "the archive is damaged: %s", text ? text : "it ends too early");
}

/* "./a//b/" -> "a/b", "." -> "". NULL for paths that climb or are too long. */
static char *tar_clean_path(const char *name)
{
    g_auto(GStrv) parts = NULL;
    g_autoptr(GString) out = g_string_new(NULL);

    if (strlen(name) > 8192)
        return NULL;
    parts = g_strsplit(name, "/", -1);
    for (char **p = parts; *p; p++) {
        if (**p == '\0' || strcmp(*p, ".") == 0)
            continue;
        if (strcmp(*p, "..") == 0 || strlen(*p) > 255)
            return NULL;
        if (out->len)
            g_string_append_c(out, '/');
        g_string_append(out, *p);
    }
    if (out->len > 4095)
        return NULL;
    return g_string_free(g_steal_pointer(&out), FALSE);
}

static bool tar_get_xattrs(TreeEntry *to, struct archive_entry *from, GError **error)
{
    const char *name;
    const void *value;
    size_t size;
    int count = archive_entry_xattr_reset(from);

    if (count > TAR_XATTRS_MAX)
        return fail(error, "'%s' has too many extended attributes", to->path);
    while (archive_entry_xattr_next(from, &name, &value, &size) == ARCHIVE_OK) {
        if (!name || !*name || strlen(name) > 255 || size > TAR_XATTR_MAX)
            return fail(error, "'%s' has an extended attribute that is too large", to->path);
        tree_entry_set_xattr(to, name, size ? value : "", size);
    }
    return true;
}

typedef struct AclLine {
    uint16_t tag, perm;
    uint32_t id;
} AclLine;

static int compare_acl_lines(const void *a, const void *b)
{
    const AclLine *la = a, *lb = b;

    if (la->tag != lb->tag)
        return la->tag < lb->tag ? -1 : 1;
    return la->id < lb->id ? -1 : la->id > lb->id;
}

static uint16_t acl_tag(int archive_tag)
{
    switch (archive_tag) {
    case ARCHIVE_ENTRY_ACL_USER_OBJ:
        return ACL_TAG_USER_OBJ;
    case ARCHIVE_ENTRY_ACL_USER:
        return ACL_TAG_USER;
    case ARCHIVE_ENTRY_ACL_GROUP_OBJ:
        return ACL_TAG_GROUP_OBJ;
    case ARCHIVE_ENTRY_ACL_GROUP:
        return ACL_TAG_GROUP;
    case ARCHIVE_ENTRY_ACL_MASK:
        return ACL_TAG_MASK;
    case ARCHIVE_ENTRY_ACL_OTHER:
        return ACL_TAG_OTHER;
    default:
        return 0;
    }
}

/* GNU tar and bsdtar write ACLs as text (SCHILY.acl.*), which libarchive hands out in entries. */
static void tar_get_acl(TreeEntry *to, struct archive_entry *from, int type, const char *xattr)
{
    g_autoptr(GArray) lines = g_array_new(FALSE, FALSE, sizeof(AclLine));
    g_autoptr(GByteArray) bytes = NULL;
    int line_type, perms, tag, id;
    const char *name;

    if (tree_entry_xattr(to, xattr) || (archive_entry_acl_types(from) & type) == 0)
        return;
    (void)archive_entry_acl_reset(from, type);
    while (archive_entry_acl_next(from, type, &line_type, &perms, &tag, &id, &name) == ARCHIVE_OK) {
        AclLine line = {acl_tag(tag), (uint16_t)(perms & 7), (uint32_t)id};

        if (line.tag)
            g_array_append_val(lines, line);
    }
    if (lines->len <= 3 && type == ARCHIVE_ENTRY_ACL_TYPE_ACCESS)
        return; /* says no more than the mode */
    g_array_sort(lines, compare_acl_lines);
    for (guint i = 0; i < lines->len && i < 1024; i++) {
        const AclLine *line = &g_array_index(lines, AclLine, i);

        tree_acl_append(&bytes, line->tag, line->perm, line->id);
    }
    if (bytes)
        tree_entry_set_xattr(to, xattr, bytes->data, bytes->len);
}

static bool tar_get_owner(TreeEntry *to, struct archive_entry *from, GError **error)
{
    int64_t uid = archive_entry_uid(from), gid = archive_entry_gid(from);

    if (uid < 0 || uid > UINT32_MAX || gid < 0 || gid > UINT32_MAX)
        return fail(error, "the owner of '%s' is out of range", to->path);
    to->mode = (uint16_t)(archive_entry_perm(from) & 07777);
    to->uid = (uint32_t)uid;
    to->gid = (uint32_t)gid;
    to->mtime = archive_entry_mtime_is_set(from) ? (int64_t)archive_entry_mtime(from) : 0;
    if (to->type == 'l')
        to->mode = 0777; /* Linux knows no other */
    if (to->type == 'b' || to->type == 'c') {
        to->major = (uint32_t)archive_entry_rdevmajor(from);
        to->minor = (uint32_t)archive_entry_rdevminor(from);
    }
    return true;
}

static const char *entry_text(const char *mbs, const char *utf8)
{
    return mbs ? mbs : utf8;
}

/* The entry without its content; *ret stays NULL for what is left out. */
static bool tar_get_entry(const char *path, struct archive_entry *from, TreeEntry **ret, GError **error)
{
    const char *hardlink = entry_text(archive_entry_hardlink(from), archive_entry_hardlink_utf8(from));
    const char *symlink = entry_text(archive_entry_symlink(from), archive_entry_symlink_utf8(from));
    TreeEntry *entry = NULL;
    char type = 0;

    if (hardlink) {
        g_autofree char *target = tar_clean_path(hardlink);

        if (!target)
            return fail(error, "the hard link '%s' leaves the archive", path);
        if (strcmp(target, path) == 0)
            return true; /* a link to itself says nothing */
        entry = tree_entry_new(path, 'h');
        entry->target = g_steal_pointer(&target);
        *ret = entry;
        return true;
    }
    switch (archive_entry_filetype(from)) {
    case AE_IFREG:
        type = 'f';
        break;
    case AE_IFDIR:
        type = 'd';
        break;
    case AE_IFLNK:
        type = 'l';
        break;
    case AE_IFBLK:
        type = 'b';
        break;
    case AE_IFCHR:
        type = 'c';
        break;
    case AE_IFIFO:
        type = 'p';
        break;
    default:
        return true; /* sockets are made by whoever listens on them */
    }
    if (type == 'l' && (!symlink || !*symlink || strlen(symlink) > 4095))
        return fail(error, "the symbolic link '%s' has no usable target", path);
    entry = tree_entry_new(path, type);
    if (type == 'l')
        entry->target = g_strdup(symlink);
    if (!tar_get_owner(entry, from, error) || !tar_get_xattrs(entry, from, error)) {
        tree_entry_free(entry);
        return false;
    }
    tar_get_acl(entry, from, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, "system.posix_acl_access");
    tar_get_acl(entry, from, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, "system.posix_acl_default");
    *ret = entry;
    return true;
}

static bool tar_pad(TreeBuilder *builder, uint64_t size, GError **error)
{
    static const uint8_t zeroes[65536];

    while (size) {
        size_t part = MIN(size, sizeof zeroes);

        if (!tree_builder_data(builder, zeroes, part, error) || !interrupt_check(error))
            return false;
        size -= part;
    }
    return true;
}

/*
 * umoci insert ends its layers with the last byte of the last file: no padding, no end. Docker, podman and umoci take that for an end, and the layer has
 * its digest. libarchive misses less than a block then; where a header or more is missing, it is a block or more.
 */
static bool only_padding_is_missing(struct archive *archive)
{
    const char *said = archive_error_string(archive);
    unsigned needed, there;

    return said && sscanf(said, "Truncated input file (needed %u bytes, only %u available)", &needed, &there) == 2 && needed < 512;
}

/* Sparse members come as pieces with gaps. */
static bool tar_get_content(TarReader *reader, TreeEntry *entry, uint64_t size, GError **error)
{
    uint64_t at = 0;

    if (size > TREE_FILE_MAX) {
        (void)fail(error, "the file '%s' is too large to keep", entry->path);
        tree_entry_free(entry);
        return false;
    }
    if (!tree_builder_begin(reader->builder, entry, error))
        return false;
    for (;;) {
        const void *data;
        size_t part;
        la_int64_t offset;
        int rc = archive_read_data_block(reader->archive, &data, &part, &offset);

        reader->ended = rc == ARCHIVE_FATAL && only_padding_is_missing(reader->archive);
        if (rc == ARCHIVE_EOF || reader->ended)
            break;
        if (rc < ARCHIVE_WARN)
            return tar_fail(reader->archive, error);
        if (offset < 0 || (uint64_t)offset < at || (uint64_t)offset > size || part > size - (uint64_t)offset)
            return fail(error, "the archive is damaged: a part of a file lies outside it");
        if (!tar_pad(reader->builder, (uint64_t)offset - at, error) ||
            !tree_builder_data(reader->builder, data, part, error))
            return false;
        at = (uint64_t)offset + part;
    }
    return tar_pad(reader->builder, size - at, error) && tree_builder_end(reader->builder, error);
}

/* True when @path was a whiteout and has been reported. */
static bool tar_whiteout(TarReader *reader, const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    g_autofree char *folder = slash ? g_strndup(path, (gsize)(slash - path)) : g_strdup("");
    g_autofree char *victim = NULL;

    if (!reader->on_whiteout || !g_str_has_prefix(base, ".wh."))
        return false;
    if (strcmp(base, ".wh..wh..opq") == 0) {
        reader->on_whiteout(folder, true, reader->arg);
        return true;
    }
    if (g_str_has_prefix(base, ".wh..wh.") || base[4] == '\0')
        return true; /* AUFS's own bookkeeping */
    victim = slash ? g_strconcat(folder, "/", base + 4, NULL) : g_strdup(base + 4);
    if (strcmp(base + 4, ".") != 0 && strcmp(base + 4, "..") != 0)
        reader->on_whiteout(victim, false, reader->arg);
    return true;
}

static bool tar_take(TarReader *reader, struct archive_entry *from, GError **error)
{
    const char *name = entry_text(archive_entry_pathname(from), archive_entry_pathname_utf8(from));
    g_autofree char *path = name ? tar_clean_path(name) : NULL;
    TreeEntry *entry = NULL;

    if (!path)
        return fail(error, "the archive holds the path '%s', which climbs out of it or is too long",
                    name ? name : "(unreadable)");
    if (tar_whiteout(reader, path))
        return true;
    if (reader->skip && reader->skip(path, reader->arg))
        return true;
    if (!tar_get_entry(path, from, &entry, error))
        return false;
    if (!entry)
        return true;
    if (*path == '\0' && entry->type != 'd') {
        tree_entry_free(entry);
        return fail(error, "the archive's root is not a folder");
    }
    if (entry->type != 'f')
        return tree_builder_add(reader->builder, entry, error);
    return tar_get_content(reader, entry, archive_entry_size_is_set(from) ? (uint64_t)archive_entry_size(from) : 0,
                           error);
}

/*
 * A pax header is UTF-8 by its standard, but Go's tar writes names into it as they are, and a Linux name is any bytes. libarchive
 * warns then and gives the raw bytes, which are what we want. Other warnings mean that something was changed or left out.
 */
static bool name_is_no_utf8(struct archive *archive)
{
    const char *said = archive_error_string(archive);

    return said && strstr(said, "can't be converted from UTF-8");
}

static bool tar_read_all(TarReader *reader, GError **error)
{
    struct archive_entry *entry;

    for (;;) {
        int rc = archive_read_next_header(reader->archive, &entry);

        if (rc == ARCHIVE_EOF || (rc == ARCHIVE_FATAL && only_padding_is_missing(reader->archive))) /* of a member that is skipped */
            return true;
        if (rc != ARCHIVE_OK && !(rc == ARCHIVE_WARN && name_is_no_utf8(reader->archive)))
            return tar_fail(reader->archive, error);
        if (!tar_take(reader, entry, error) || !interrupt_check(error))
            return false;
        if (reader->ended)
            return true;
    }
}

/* @raw: one file, which is what the compressions are around. */
static struct archive *tar_open(int fd, bool raw, GError **error)
{
    struct archive *archive = archive_read_new();

    (void)archive_read_support_filter_gzip(archive);
    (void)archive_read_support_filter_bzip2(archive);
    (void)archive_read_support_filter_xz(archive);
    (void)archive_read_support_filter_lzma(archive);
    (void)archive_read_support_filter_zstd(archive);
    (void)(raw ? archive_read_support_format_raw(archive) : archive_read_support_format_tar(archive));
    (void)archive_read_support_format_empty(archive);
    if (archive_read_open_fd(archive, fd, 1 << 20) == ARCHIVE_OK)
        return archive;
    (void)tar_fail(archive, error);
    (void)archive_read_free(archive);
    return NULL;
}

bool tree_read_tar(TreeBuilder *builder, int fd, TreeSkipFn *skip, TreeWhiteoutFn *on_whiteout, void *arg, GError **error)
{
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    locale_t before = utf8 ? uselocale(utf8) : (locale_t)0;
    TarReader reader = {builder, tar_open(fd, false, error), skip, on_whiteout, arg, false};
    bool ok = reader.archive && tar_read_all(&reader, error);

    if (reader.archive)
        (void)archive_read_free(reader.archive); /* only read: nothing that could be lost */
    if (utf8) {
        (void)uselocale(before);
        freelocale(utf8);
    }
    return ok;
}

static bool raw_bytes(struct archive *archive, TreeBytesFn *fn, void *arg, GError **error)
{
    struct archive_entry *entry;
    la_int64_t expected = 0, offset;
    const void *data;
    size_t size;
    int rc = archive_read_next_header(archive, &entry);

    while (rc == ARCHIVE_OK && (rc = archive_read_data_block(archive, &data, &size, &offset)) == ARCHIVE_OK) {
        if (offset != expected)
            return fail(error, "the archive is damaged: a part of it is missing");
        expected += (la_int64_t)size;
        if (!fn(data, size, arg, error) || !interrupt_check(error))
            return false;
    }
    return rc == ARCHIVE_EOF || tar_fail(archive, error);
}

bool tree_tar_unpack(int fd, TreeBytesFn *fn, void *arg, GError **error)
{
    struct archive *archive = tar_open(fd, true, error);
    bool ok = archive && raw_bytes(archive, fn, arg, error);

    if (archive)
        (void)archive_read_free(archive); /* only read: nothing that could be lost */
    return ok;
}

static bool digest_bytes(const void *data, size_t size, void *arg, GError **error)
{
    digest_stream_update(arg, data, size);
    return true;
}

bool tree_tar_digest(int fd, Digest *ret, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();

    if (!tree_tar_unpack(fd, digest_bytes, stream, error))
        return false;
    digest_stream_final(stream, ret);
    return true;
}
