/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The new file lies beside its target, so that the rename stays within one file system.
 */
#include "store/export-path.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool export_to_stdout(ExportPathFn *fn, void *arg, GError **error)
{
    if (isatty(STDOUT_FILENO))
        return fail_code(error, KILN_ERROR_USAGE, "an image is not written to a terminal: redirect the output");
    return fn(STDOUT_FILENO, arg, error);
}

static bool export_to_special(const char *path, ExportPathFn *fn, void *arg, GError **error)
{
    auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd >= 0 ? fn(fd, arg, error) : fail_errno(error, "open '%s'", path);
}

static bool publish(int fd, const char *part, const char *path, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(path);
    auto_fd int dirfd = -1;

    if (fchmod(fd, 0644) < 0 || fdatasync(fd) < 0 || rename(part, path) < 0)
        return fail_errno(error, "write '%s'", path);
    dirfd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return (dirfd >= 0 && fsync(dirfd) == 0) || fail_errno(error, "sync the folder of '%s'", path);
}

static bool export_to_file(const char *path, ExportPathFn *fn, void *arg, GError **error)
{
    g_autofree char *part = g_strdup_printf("%s.kiln-XXXXXX", path);
    auto_fd int fd = mkostemp(part, O_CLOEXEC);

    if (fd < 0)
        return fail_errno(error, "write '%s'", path);
    if (fn(fd, arg, error) && publish(fd, part, path, error))
        return true;
    (void)unlink(part); /* gone already when only the folder's sync failed */
    return false;
}

bool export_to_path(const char *path, ExportPathFn *fn, void *arg, GError **error)
{
    struct stat st;
    bool there = strcmp(path, "-") != 0 && stat(path, &st) == 0;

    if (strcmp(path, "-") == 0)
        return export_to_stdout(fn, arg, error);
    if (there && S_ISDIR(st.st_mode))
        return fail(error, "'%s' is a folder and is left as it is: name a file", path);
    if (there && !S_ISREG(st.st_mode))
        return export_to_special(path, fn, arg, error);
    return export_to_file(path, fn, arg, error);
}
