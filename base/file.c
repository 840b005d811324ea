/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files, read and written whole. The order in file_publish() is what makes a
 * published thing survive a power cut: bytes, then name, then folder.
 */
#include "base/file.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>

#define LOCK_PAUSE_US 20000

/* *ret: how many bytes there were; fewer than @size only at the end of the file. */
static bool pread_some(int fd, uint8_t *to, size_t size, uint64_t offset, const char *what, size_t *ret, GError **error)
{
    size_t done = 0;

    while (done < size) {
        ssize_t got = pread(fd, to + done, size - done, (off_t)(offset + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno(error, "read %s", what);
        if (got == 0)
            break;
        done += (size_t)got;
    }
    *ret = done;
    return true;
}

bool file_pread_full(int fd, void *buf, size_t size, uint64_t offset, const char *what, GError **error)
{
    size_t got;

    if (!pread_some(fd, buf, size, offset, what, &got, error))
        return false;
    return got == size || fail(error, "%s ends too early (at byte %" G_GUINT64_FORMAT ")", what, offset + got);
}

bool file_pread_padded(int fd, void *buf, size_t size, uint64_t offset, const char *what, GError **error)
{
    size_t got;

    if (!pread_some(fd, buf, size, offset, what, &got, error))
        return false;
    memset((uint8_t *)buf + got, 0, size - got);
    return true;
}

bool file_pwrite_full(int fd, const void *buf, size_t size, uint64_t offset, const char *what, GError **error)
{
    const uint8_t *from = buf;

    while (size > 0) {
        ssize_t put = pwrite(fd, from, size, (off_t)offset);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return fail_errno(error, "write %s", what);
        from += put;
        size -= (size_t)put;
        offset += (uint64_t)put;
    }
    return true;
}

bool file_write_full(int fd, const void *buf, size_t size, const char *what, GError **error)
{
    const uint8_t *from = buf;

    while (size > 0) {
        ssize_t put = write(fd, from, size);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return fail_errno(error, "write %s", what);
        from += put;
        size -= (size_t)put;
    }
    return true;
}

bool file_read_upto(int fd, void *buf, size_t size, size_t *ret_size, const char *what, GError **error)
{
    uint8_t *to = buf;
    size_t done = 0;

    while (done < size) {
        ssize_t got = read(fd, to + done, size - done);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno(error, "read %s", what);
        if (got == 0)
            break;
        done += (size_t)got;
    }
    *ret_size = done;
    return true;
}

/* Grows while reading: sizes in stat are hints only (procfs says 0, pipes say nothing). */
static bool load_fd(int fd, const char *name, size_t max, GByteArray *into, GError **error)
{
    size_t got;

    do {
        size_t at = into->len, step = MIN(max + 1 - at, (size_t)64 * 1024);

        g_byte_array_set_size(into, (guint)(at + step));
        if (!file_read_upto(fd, into->data + at, step, &got, name, error))
            return false;
        g_byte_array_set_size(into, (guint)(at + got));
        if (into->len > max)
            return fail(error, "'%s' is larger than the %zu bytes allowed here", name, max);
    } while (got > 0);
    return true;
}

bool file_load(int dirfd, const char *name, size_t max, GBytes **ret, GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    auto_fd int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    guint size;

    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_errno(error, "open '%s'", name);
    if (S_ISDIR(st.st_mode))
        return fail(error, "'%s' is a folder, not a file", name);
    if (!load_fd(fd, name, MIN(max, (size_t)G_MAXUINT - 65536 - 2), bytes, error))
        return false;
    size = bytes->len;
    g_byte_array_append(bytes, (const guint8 *)"", 1);
    *ret = g_bytes_new_with_free_func(bytes->data, size, (GDestroyNotify)g_byte_array_unref, bytes);
    (void)g_steal_pointer(&bytes);
    return true;
}

static bool sync_dir(int dirfd, GError **error)
{
    auto_fd int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return fail_errno(error, "sync a folder");
    return true;
}

bool file_publish(int from_dirfd, const char *from, int to_dirfd, const char *to, FileSync sync, GError **error)
{
    if (renameat(from_dirfd, from, to_dirfd, to) < 0)
        return fail_errno(error, "rename '%s' to '%s'", from, to);
    if (sync == FILE_SYNC_NO)
        return true;
    return sync_dir(to_dirfd, error) && (from_dirfd == to_dirfd || sync_dir(from_dirfd, error));
}

static bool write_beside(int dirfd, const char *temp, const void *data, size_t size, mode_t mode, FileSync sync,
                         GError **error)
{
    auto_fd int fd = openat(dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);

    if (fd < 0)
        return fail_errno(error, "create '%s'", temp);
    if (!file_write_full(fd, data, size, temp, error))
        return false;
    if (sync == FILE_SYNC_YES && fdatasync(fd) < 0)
        return fail_errno(error, "sync '%s'", temp);
    return true;
}

bool file_replace(int dirfd, const char *name, const void *data, size_t size, mode_t mode, FileSync sync,
                  GError **error)
{
    static gint counter;
    g_autofree char *dir = g_path_get_dirname(name);
    g_autofree char *temp =
        g_strdup_printf("%s/.kiln-%d-%d.tmp", dir, (int)getpid(), g_atomic_int_add(&counter, 1));
    auto_fd int folder = openat(dirfd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_autofree char *base = g_path_get_basename(name), *temp_base = g_path_get_basename(temp);

    if (folder < 0)
        return fail_errno(error, "open folder '%s'", dir);
    if (!write_beside(folder, temp_base, data, size, mode, sync, error) ||
        !file_publish(folder, temp_base, folder, base, sync, error)) {
        (void)unlinkat(folder, temp_base, 0);
        return false;
    }
    return true;
}

bool file_make_dirs(const char *path, mode_t mode, GError **error)
{
    if (g_mkdir_with_parents(path, (int)mode) < 0)
        return fail_errno(error, "make folder '%s'", path);
    return true;
}

static bool remove_inside(int fd, dev_t device, GError **error);

static bool remove_entry(int dirfd, const char *name, dev_t device, GError **error)
{
    struct stat st;

    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? true : fail_errno(error, "remove '%s'", name);
    if (!S_ISDIR(st.st_mode)) {
        if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
            return fail_errno(error, "remove '%s'", name);
        return true;
    }
    if (device && st.st_dev != device)
        return fail(error, "'%s' is a mount point: unmount it first", name);

    auto_fd int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return fail_errno(error, "open folder '%s'", name);
    if (!remove_inside(fd, st.st_dev, error))
        return fail_prefix(error, "%s", name);
    if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return fail_errno(error, "remove folder '%s'", name);
    return true;
}

static bool remove_inside(int fd, dev_t device, GError **error)
{
    auto_dir DIR *dir = fdopendir(dup(fd));
    struct dirent *entry;

    if (!dir)
        return fail_errno(error, "read a folder");
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            !remove_entry(fd, entry->d_name, device, error))
            return false;
    return true;
}

bool file_remove_tree(int dirfd, const char *name, GError **error)
{
    return remove_entry(dirfd, name, 0, error);
}

bool file_copy_stream(int in, int out, uint64_t size, const char *what, GError **error)
{
    g_autofree uint8_t *buf = g_malloc(256 * 1024);

    while (size > 0) {
        size_t want = (size_t)MIN(size, (uint64_t)256 * 1024), got;

        if (!file_read_upto(in, buf, want, &got, what, error))
            return false;
        if (got < want)
            return fail(error, "%s ends too early", what);
        if (!file_write_full(out, buf, got, what, error))
            return false;
        size -= got;
    }
    return true;
}

bool bytes_are_zero(const void *buf, size_t size)
{
    const uint8_t *bytes = buf;

    /* A buffer is zero when its first byte is and every byte equals its neighbour. */
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

const char *file_program_dir(void)
{
    static gsize once;

    if (g_once_init_enter(&once)) {
        g_autofree char *path = g_file_read_link("/proc/self/exe", NULL);
        char *dir = path ? g_path_get_dirname(path) : g_strdup(".");

        g_once_init_leave(&once, (gsize)dir);
    }
    return (const char *)once;
}

bool file_lock(int fd, const char *path, const char *waiting, GError **error)
{
    bool told = false;

    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return fail_errno(error, "lock '%s'", path);
        if (!told)
            log_verbose("%s", waiting);
        told = true;
        if (!interrupt_check(error))
            return false;
        g_usleep(LOCK_PAUSE_US);
    }
    return true;
}

char *file_cache_dir(void)
{
    const char *chosen = g_getenv("KILN_CACHE");

    if (chosen && *chosen)
        return g_strdup(chosen);
    return geteuid() == 0 ? g_strdup("/var/cache/kiln") : g_build_filename(g_get_user_cache_dir(), "kiln", NULL);
}

bool file_make_short_tmpdir(char **ret_path, GError **error)
{
    const char *base = g_getenv("TMPDIR");
    g_autofree char *path = NULL;

    /* A socket's whole name must fit into 107 bytes: a long TMPDIR is no use here. */
    if (!base || !*base || strlen(base) > 60)
        base = "/tmp";
    path = g_build_filename(base, "kiln-XXXXXX", NULL);
    if (!mkdtemp(path))
        return fail_errno(error, "make a temporary folder in '%s'", base);
    *ret_path = g_steal_pointer(&path);
    return true;
}
