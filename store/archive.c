/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libarchive writes; gzip, of which it knows one thread only, is made here.
 *
 *   files -> libarchive (tar, zip, or one file as it is; filter zst xz bz2 lz4) -> sink -> [gzip] -> file
 */
#include "store/archive.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/gzip-members.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE (1u << 20)
#define BGZF_LEVEL 6

const char *const archive_formats[] = {"gz",     "bgzf",    "zst",    "xz",      "bz2",     "lz4", "tar",
                                       "tar.gz", "tar.zst", "tar.xz", "tar.bz2", "tar.lz4", "zip", NULL};

const char *archive_format_of(const char *path)
{
    static const struct {
        const char *suffix, *format;
    } short_forms[] = {{".tgz", "tar.gz"}, {".tzst", "tar.zst"}, {".txz", "tar.xz"}, {".tbz2", "tar.bz2"}};
    const char *found = NULL;

    for (size_t i = 0; archive_formats[i]; i++) {
        g_autofree char *suffix = g_strconcat(".", archive_formats[i], NULL);

        if (g_str_has_suffix(path, suffix) && (!found || strlen(archive_formats[i]) > strlen(found)))
            found = archive_formats[i];
    }
    for (size_t i = 0; !found && i < G_N_ELEMENTS(short_forms); i++)
        if (g_str_has_suffix(path, short_forms[i].suffix))
            found = short_forms[i].format;
    return found;
}

bool archive_format_is_single(const char *format)
{
    return !g_str_has_prefix(format, "tar") && strcmp(format, "zip") != 0;
}

/* "gz" of "tar.gz"; "" of "tar". */
static const char *compression_of(const char *format)
{
    if (strcmp(format, "tar") == 0)
        return "";
    return g_str_has_prefix(format, "tar.") ? format + 4 : format;
}

int archive_level_max(const char *format)
{
    const char *compression = compression_of(format);

    return !*compression ? 0 : strcmp(compression, "zst") == 0 ? 19 : 9;
}

/* --- where libarchive's bytes go --- */

typedef struct Sink {
    int fd;
    GzipWriter *gzip;     /* our own encoder; */
    GzipMembers *members; /* zlib's, at a level; both NULL: to the file as they are */
    Progress *progress;
    GError *problem; /* libarchive only knows that there was one */
} Sink;

static bool to_file(const void *data, size_t size, void *arg, GError **error)
{
    const Sink *sink = arg;

    return file_write_full(sink->fd, data, size, "archive", error);
}

static bool pass_bytes(Sink *sink, const void *data, size_t size, GError **error)
{
    if (sink->gzip)
        return gzip_writer_push(sink->gzip, data, size, error);
    return sink->members ? gzip_members_push(sink->members, data, size, error) : to_file(data, size, sink, error);
}

static bool finish_bytes(Sink *sink, GError **error)
{
    if (sink->gzip)
        return gzip_writer_finish(sink->gzip, error);
    return !sink->members || gzip_members_finish(sink->members, error);
}

static la_ssize_t take_bytes(struct archive *archive, void *arg, const void *data, size_t size)
{
    Sink *sink = arg;

    if (pass_bytes(sink, data, size, &sink->problem))
        return (la_ssize_t)size;
    archive_set_error(archive, EIO, "write");
    return -1;
}

static bool fail_archive(struct archive *archive, Sink *sink, GError **error)
{
    const char *said = archive_error_string(archive);

    if (sink->problem) {
        g_propagate_error(error, g_steal_pointer(&sink->problem));
        return false;
    }
    return fail(error, "%s", said ? said : "libarchive failed and does not say why");
}

/* --- how --- */

static int add_filter(struct archive *archive, const char *compression)
{
    if (strcmp(compression, "zst") == 0)
        return archive_write_add_filter_zstd(archive);
    if (strcmp(compression, "xz") == 0)
        return archive_write_add_filter_xz(archive);
    if (strcmp(compression, "bz2") == 0)
        return archive_write_add_filter_bzip2(archive);
    if (strcmp(compression, "lz4") == 0)
        return archive_write_add_filter_lz4(archive);
    return ARCHIVE_OK;
}

static int set_format(struct archive *archive, const char *format)
{
    if (strcmp(format, "zip") == 0)
        return archive_write_set_format_zip(archive);
    return archive_format_is_single(format) ? archive_write_set_format_raw(archive) : archive_write_set_format_gnutar(archive);
}

/* An older library has no threads and works all the same. */
static bool set_options(struct archive *archive, const char *compression, int level)
{
    g_autofree char *number = g_strdup_printf("%d", level);
    bool zip = strcmp(compression, "zip") == 0;

    if (strcmp(compression, "zst") == 0 || strcmp(compression, "xz") == 0)
        (void)archive_write_set_filter_option(archive, NULL, "threads", "0");
    if (level == 0)
        return true;
    return (zip ? archive_write_set_format_option(archive, "zip", "compression-level", number)
                : archive_write_set_filter_option(archive, NULL, "compression-level", number)) == ARCHIVE_OK;
}

static bool start(struct archive *archive, const ArchiveSpec *spec, Sink *sink, GError **error)
{
    const char *compression = compression_of(spec->format);
    bool filtered = !sink->gzip && !sink->members;

    if ((filtered && add_filter(archive, compression) != ARCHIVE_OK) || set_format(archive, spec->format) != ARCHIVE_OK ||
        (filtered && !set_options(archive, compression, spec->level)) ||
        archive_write_set_bytes_in_last_block(archive, 1) != ARCHIVE_OK ||
        archive_write_open(archive, sink, NULL, take_bytes, NULL) != ARCHIVE_OK)
        return fail_archive(archive, sink, error);
    return true;
}

/* --- members --- */

static bool put_content(struct archive *archive, Sink *sink, int fd, uint64_t size, const char *path, GError **error)
{
    g_autofree uint8_t *buffer = g_malloc(PIECE);
    uint64_t left = size;
    size_t n;

    while (left > 0) {
        if (!interrupt_check(error) || !file_read_upto(fd, buffer, (size_t)MIN(left, PIECE), &n, path, error))
            return false;
        if (n == 0)
            return fail(error, "'%s' became shorter while it was read", path);
        for (size_t done = 0; done < n;) {
            la_ssize_t taken = archive_write_data(archive, buffer + done, n - done);

            if (taken <= 0)
                return fail_archive(archive, sink, error);
            done += (size_t)taken;
        }
        left -= n;
        progress_add(sink->progress, n);
    }
    return true;
}

static bool put_header(struct archive *archive, Sink *sink, const ArchiveSpec *spec, const char *name, off_t size, GError **error)
{
    struct archive_entry *entry = archive_entry_new();
    int rc;

    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_uid(entry, 0);
    archive_entry_set_gid(entry, 0);
    archive_entry_set_size(entry, size);
    archive_entry_set_mtime(entry, (time_t)spec->mtime, 0);
    rc = archive_write_header(archive, entry);
    archive_entry_free(entry);
    return rc == ARCHIVE_OK || rc == ARCHIVE_WARN || fail_archive(archive, sink, error);
}

static bool put_member(struct archive *archive, Sink *sink, const ArchiveSpec *spec, const ArchiveMember *member, GError **error)
{
    auto_fd int fd = open(member->path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_errno(error, "read '%s'", member->path);
    if (!S_ISREG(st.st_mode))
        return fail(error, "'%s' is no file", member->path);
    return put_header(archive, sink, spec, member->name, st.st_size, error) &&
           put_content(archive, sink, fd, (uint64_t)st.st_size, member->path, error);
}

static bool put_all(struct archive *archive, Sink *sink, const ArchiveSpec *spec, const ArchiveMember *members, unsigned count, GError **error)
{
    if (!start(archive, spec, sink, error))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (!put_member(archive, sink, spec, &members[i], error))
            return false;
    if (archive_write_close(archive) != ARCHIVE_OK)
        return fail_archive(archive, sink, error);
    return finish_bytes(sink, error);
}

static uint64_t total_size(const ArchiveMember *members, unsigned count)
{
    uint64_t total = 0;
    struct stat st;

    for (unsigned i = 0; i < count; i++)
        total += stat(members[i].path, &st) == 0 ? (uint64_t)st.st_size : 0;
    return total;
}

bool archive_write(const char *path, const ArchiveSpec *spec, const ArchiveMember *members, unsigned count, GError **error)
{
    bool bgzf = strcmp(spec->format, "bgzf") == 0, gz = bgzf || strcmp(compression_of(spec->format), "gz") == 0, ok;
    auto_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    g_autoptr(Progress) progress = progress_new("compress", total_size(members, count), true);
    g_autoptr(GzipWriter) gzip = NULL;
    g_autoptr(GzipMembers) pieces = NULL;
    Sink sink = {.fd = fd, .progress = progress};
    struct archive *archive;

    g_assert(count == 1 || !archive_format_is_single(spec->format));
    if (fd < 0)
        return fail_errno(error, "write '%s'", path);
    sink.gzip = gzip = gz && !bgzf && spec->level == 0 ? gzip_writer_new(to_file, &sink) : NULL;
    sink.members = pieces = gz && !gzip ? gzip_members_new(spec->level ? spec->level : BGZF_LEVEL, bgzf, to_file, &sink) : NULL;
    archive = archive_write_new();
    ok = put_all(archive, &sink, spec, members, count, error);
    (void)archive_write_free(archive); /* closed above, or failed already */
    g_clear_error(&sink.problem);
    if (ok)
        progress_done(progress);
    return ok;
}
