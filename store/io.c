/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real member of the I/O table and the fault injection in front of whatever member is set.
 */
#include "store/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool shared;

void io_share_with_group(bool share)
{
    shared = share;
}

static mode_t group_too(mode_t mode)
{
    return mode | (mode & 0700) >> 3;
}

/* A file that was there is perhaps another's, and as it should be. */
static int real_open(int dirfd, const char *name, int flags, mode_t mode)
{
    int fd = openat(dirfd, name, flags | O_CLOEXEC, mode);

    if (shared && fd >= 0 && (flags & O_CREAT))
        (void)fchmod(fd, group_too(mode));
    return fd;
}

static int real_mkdir(int dirfd, const char *name, mode_t mode)
{
    int rc = mkdirat(dirfd, name, mode);

    if (shared && rc == 0)
        (void)fchmodat(dirfd, name, group_too(mode) | S_ISGID, 0);
    return rc;
}

static int real_link(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
    return linkat(from_dirfd, from, to_dirfd, to, 0);
}

static const StoreIo io_real = {
    .open = real_open,
    .pread = pread,
    .pwrite = pwrite,
    .truncate = ftruncate,
    .fdatasync = fdatasync,
    .fsync = fsync,
    .rename = renameat,
    .unlink = unlinkat,
    .mkdir = real_mkdir,
    .link = real_link,
};

static const StoreIo *io_current = &io_real;

void store_io_set(const StoreIo *io)
{
    io_current = io ? io : &io_real;
}

const StoreIo *store_io_real(void)
{
    return &io_real;
}

/* --- faults on demand --- */

#define FAULT_SHORT (-1)

typedef struct Fault {
    char call[16];
    gint after;
    bool once;
    int error; /* 0: kill; FAULT_SHORT: half of the bytes */
} Fault;

static const struct {
    const char *name;
    int error;
} fault_errors[] = {
    { "ENOSPC", ENOSPC }, { "EIO", EIO },     { "EDQUOT", EDQUOT }, { "EACCES", EACCES },
    { "EROFS", EROFS },   { "EMFILE", EMFILE }, { "KILL", 0 },
    { "SHORT", FAULT_SHORT },
};

static Fault fault_now;
static gint fault_seen;

void io_fault_reload(void)
{
    const char *text = getenv("KILN_TEST_FAIL");
    char name[16], once[8] = "";

    fault_seen = 0;
    if (!text || sscanf(text, "%15[a-z]:%d:%15[A-Z]:%7[a-z]", fault_now.call, &fault_now.after, name, once) < 3)
        fault_now.call[0] = '\0';
    fault_now.once = !strcmp(once, "once");
    for (size_t i = 0; fault_now.call[0] && i < G_N_ELEMENTS(fault_errors); i++)
        if (!strcmp(name, fault_errors[i].name))
            fault_now.error = fault_errors[i].error;
}

static const Fault *fault_wanted(void)
{
    static gsize once;

    if (g_once_init_enter(&once)) {
        io_fault_reload();
        g_once_init_leave(&once, 1);
    }
    return fault_now.call[0] ? &fault_now : NULL;
}

static bool fault_hits(const char *call)
{
    const Fault *fault = fault_wanted();
    gint n;

    if (!fault || strcmp(fault->call, call))
        return false;
    n = g_atomic_int_add(&fault_seen, 1) + 1;
    if (n < fault->after || (fault->once && n > fault->after))
        return false;
    if (!fault->error)
        (void)kill(getpid(), SIGKILL);
    errno = fault->error;
    return fault->error != FAULT_SHORT;
}

/* Of a transfer of @size bytes, once the calls are to be short ones. */
static size_t fault_shorten(const char *call, size_t size)
{
    const Fault *fault = fault_wanted();

    if (!fault || fault->error != FAULT_SHORT || strcmp(fault->call, call) || g_atomic_int_get(&fault_seen) < fault->after)
        return size;
    return MAX(size / 2, 1);
}

int io_open(int dirfd, const char *name, int flags, mode_t mode)
{
    return fault_hits("open") ? -1 : io_current->open(dirfd, name, flags, mode);
}

int io_truncate(int fd, off_t size)
{
    return fault_hits("truncate") ? -1 : io_current->truncate(fd, size);
}

int io_fdatasync(int fd)
{
    return fault_hits("fdatasync") ? -1 : io_current->fdatasync(fd);
}

int io_fsync(int fd)
{
    return fault_hits("fsync") ? -1 : io_current->fsync(fd);
}

int io_rename(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
    return fault_hits("rename") ? -1 : io_current->rename(from_dirfd, from, to_dirfd, to);
}

int io_unlink(int dirfd, const char *name, int flags)
{
    return fault_hits("unlink") ? -1 : io_current->unlink(dirfd, name, flags);
}

int io_mkdir(int dirfd, const char *name, mode_t mode)
{
    return fault_hits("mkdir") ? -1 : io_current->mkdir(dirfd, name, mode);
}

int io_link(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
    return fault_hits("link") ? -1 : io_current->link(from_dirfd, from, to_dirfd, to);
}

bool io_pread_full(int fd, void *buf, size_t size, uint64_t offset)
{
    uint8_t *at = buf;

    while (size > 0) {
        ssize_t n = fault_hits("pread") ? -1 : io_current->pread(fd, at, fault_shorten("pread", size), (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0) {
            errno = EIO;
            return false;
        }
        at += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

bool io_pwrite_full(int fd, const void *buf, size_t size, uint64_t offset)
{
    const uint8_t *at = buf;

    while (size > 0) {
        ssize_t n = fault_hits("pwrite") ? -1 : io_current->pwrite(fd, at, fault_shorten("pwrite", size), (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        at += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

static bool remove_inside(int dirfd, const char *name)
{
    int fd = io_open(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    bool ok = dir != NULL || errno == ENOENT;

    if (!dir && fd >= 0)
        (void)close(fd);
    while (ok && dir && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            ok = io_remove_tree(fd, entry->d_name);
    if (dir) {
        int saved = errno;

        (void)closedir(dir);
        errno = saved;
    }
    return ok;
}

bool io_remove_tree(int dirfd, const char *name)
{
    if (io_unlink(dirfd, name, 0) == 0 || errno == ENOENT)
        return true;
    if (errno != EISDIR && errno != EPERM)
        return false;
    return remove_inside(dirfd, name) && (io_unlink(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT);
}

/* Or cannot be read, which its user will notice. */
static bool folder_is_empty(int fd)
{
    int again = io_open(fd, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    const struct dirent *entry;
    bool empty = true;

    if (!dir && again >= 0)
        (void)close(again);
    while (dir && empty && (entry = readdir(dir)))
        empty = entry->d_name[0] == '.';
    if (dir)
        (void)closedir(dir);
    return empty;
}

/* Whoever made an empty folder may have been killed before he synced its name, and nobody else would do it later. */
static int sync_name_of_empty(int dirfd, int fd)
{
    if (folder_is_empty(fd) && io_fsync(dirfd) < 0) {
        int saved = errno;

        (void)close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

int io_open_fanout(int dirfd, const Digest *digest, bool create, char name[IO_NAME_SIZE])
{
    char hex[DIGEST_HEX_SIZE], fan[3];
    int fd;

    digest_to_hex(digest, hex);
    (void)g_strlcpy(fan, hex, sizeof(fan));
    (void)g_strlcpy(name, hex, IO_NAME_SIZE);
    fd = io_open(dirfd, fan, O_RDONLY | O_DIRECTORY, 0);
    if (fd >= 0 && create)
        return sync_name_of_empty(dirfd, fd);
    if (fd >= 0 || errno != ENOENT || !create)
        return fd;
    if (io_mkdir(dirfd, fan, 0755) < 0 && errno != EEXIST)
        return -1;
    /* The new folder's own name must survive a power cut before a file in it counts. */
    if (io_fsync(dirfd) < 0)
        return -1;
    return io_open(dirfd, fan, O_RDONLY | O_DIRECTORY, 0);
}
