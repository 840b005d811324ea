/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading an ISO 9660 image: a door to libarchive. The image is somebody's: what is taken out of it is bounded, and nothing is written anywhere.
 */
#include "baker/source-seed.h"

#include "base/error.h"
#include "base/scope.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define VOLUME_AT (16 * 2048)
#define ENTRIES_MAX 10000
#define BLOCK 10240

static void archive_close(struct archive *archive)
{
    if (archive)
        (void)archive_read_free(archive);
}
typedef struct archive IsoArchive;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(IsoArchive, archive_close)

char *source_iso_label(const char *path)
{
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char volume[72] = "", label[33] = "";

    if (fd < 0 || pread(fd, volume, sizeof volume, VOLUME_AT) != sizeof volume || memcmp(volume, "\001CD001", 6) != 0)
        return g_strdup("");
    memcpy(label, volume + 40, 32);
    return g_strdup(g_strchomp(g_strcanon(label, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-. ", '?')));
}

static bool read_entry(struct archive *archive, const char *path, size_t max, char **ret, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    char buf[BLOCK];
    ssize_t n;

    while ((n = archive_read_data(archive, buf, sizeof buf)) > 0) {
        if (text->len + (size_t)n > max)
            return fail(error, "'%s' holds a file of more than %zu bytes", path, max);
        g_string_append_len(text, buf, n);
    }
    if (n < 0)
        return fail(error, "read '%s': %s", path, archive_error_string(archive));
    if (strlen(text->str) != text->len || !g_utf8_validate(text->str, -1, NULL))
        return fail(error, "'%s' holds a seed that is no text", path);
    g_free(*ret);
    *ret = g_string_free(g_steal_pointer(&text), FALSE);
    return true;
}

bool source_iso_read(const char *path, const char *const *names, size_t max, char **ret_texts, GError **error)
{
    g_autoptr(IsoArchive) archive = archive_read_new();
    struct archive_entry *entry;
    int rc;

    (void)archive_read_support_format_iso9660(archive);
    if (archive_read_open_filename(archive, path, BLOCK) != ARCHIVE_OK)
        return fail(error, "read '%s': %s", path, archive_error_string(archive));
    for (unsigned i = 0; i < ENTRIES_MAX && (rc = archive_read_next_header(archive, &entry)) != ARCHIVE_EOF; i++) {
        const char *name = archive_entry_pathname(entry);

        if (rc < ARCHIVE_WARN)
            return fail(error, "read '%s': %s", path, archive_error_string(archive));
        for (size_t j = 0; name && names[j]; j++)
            if (archive_entry_filetype(entry) == AE_IFREG && strcmp(name + (g_str_has_prefix(name, "./") ? 2 : 0), names[j]) == 0 &&
                !read_entry(archive, path, max, &ret_texts[j], error))
                return false;
    }
    return true;
}
