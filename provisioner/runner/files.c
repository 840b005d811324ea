/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the guest for kiln on the host: put, get, stat, mkdir, symlink, remove, list.
 *
 * Links are followed as the guest itself would follow them, because this process has the guest as its root. What is no
 * regular file is never read or written: a FIFO would hang us, a device would do worse.
 */
#include "provisioner/runner/runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define REMOVE_DEPTH_MAX 4096

/* Reads and drops the DATA frames of a PUT that has failed already. */
static bool put_next(Wire *wire, WireReader *ret_data)
{
    uint16_t type;
    uint32_t request = wire->request;

    if (!wire_receive(wire, &type, ret_data) || type != WIRE_DATA || wire->request != request)
        _exit(STEP_PORT_CLOSED); /* out of step with the host: nothing that follows can be trusted */
    return ret_data->size > 0;
}

static int put_open(const char *path, int *ret_fd)
{
    const int flags = O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    struct stat st;
    int fd = open(path, flags, 0600);

    if (fd < 0 && errno == ETXTBSY &&
        unlink(path) == 0) /* a program that runs: give it a new inode, as dpkg does */
        fd = open(path, flags, 0600);
    if (fd < 0)
        return errno == ENXIO ? EINVAL : errno;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return EINVAL;
    }
    *ret_fd = fd;
    return 0;
}

static int put_write(int fd, const uint8_t *data, size_t size)
{
    while (size) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static int put_finish(int fd, const WireMeta *meta)
{
    struct timespec times[2] = {{.tv_sec = meta->mtime}, {.tv_sec = meta->mtime}};

    /* chown first: it clears the set-id bits that chmod then sets */
    if (fchown(fd, meta->uid, meta->gid) < 0 || fchmod(fd, meta->mode & 07777) < 0 || futimens(fd, times) < 0)
        return errno;
    return 0;
}

static void put_answer(Wire *wire, WireReader *payload)
{
    char path[WIRE_PATH_MAX];
    bool named = wire_path(payload, path);
    WireMeta meta = wire_get_meta(payload);
    int fd = -1, err = named && !payload->bad ? put_open(path, &fd) : EPROTO;
    uint64_t total = 0;
    WireReader data;

    if (!err && ftruncate(fd, 0) < 0)
        err = errno;
    while (put_next(wire, &data)) {
        if (!err)
            err = put_write(fd, data.data, data.size);
        total += data.size;
    }
    if (!err)
        err = put_finish(fd, &meta);
    if (fd >= 0 && close(fd) < 0 && !err)
        err = errno;
    if (err)
        wire_err(wire, err, "cannot write '%s'", named ? path : "?");
    else
        wire_ok_number(wire, total);
}

static int get_open(const char *path, int *ret_fd)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    int err = 0;

    if (fd < 0)
        return errno == ENXIO ? EINVAL : errno;
    if (fstat(fd, &st) < 0)
        err = errno;
    else if (!S_ISREG(st.st_mode))
        err = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    if (err) {
        close(fd);
        return err;
    }
    *ret_fd = fd;
    return 0;
}

static void get_answer(Wire *wire, WireReader *payload)
{
    static uint8_t buf[WIRE_CHUNK];
    char path[WIRE_PATH_MAX];
    bool named = wire_path(payload, path);
    uint64_t max = wire_get_number(payload, 8), total = 0;
    int fd = -1, err = named && !payload->bad ? get_open(path, &fd) : EPROTO;

    while (!err) {
        ssize_t n = read(fd, buf, sizeof buf);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            err = errno;
        if (n <= 0)
            break;
        total += (uint64_t)n;
        if (max && total > max)
            err = EFBIG;
        else
            wire_send(wire, WIRE_DATA, buf, (size_t)n);
    }
    if (fd >= 0)
        close(fd);
    if (err)
        wire_err(wire, err, "cannot read '%s'", named ? path : "?");
    else
        wire_ok_number(wire, total);
}

static char type_letter(mode_t mode)
{
    return S_ISREG(mode) ? 'f' : S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : 'o';
}

static void stat_answer(Wire *wire, WireReader *payload)
{
    char path[WIRE_PATH_MAX];
    struct stat st = {0};
    char type = 0;
    uint8_t buf[64];
    WireWriter w = {buf, 0, sizeof buf, false};

    if (!wire_path(payload, path)) {
        wire_err(wire, EPROTO, "bad path");
        return;
    }
    if (stat(path, &st) == 0 || lstat(path, &st) == 0) { /* a link that leads nowhere is at least a link */
        type = type_letter(st.st_mode);
    } else if (errno != ENOENT && errno != ENOTDIR) {
        wire_err(wire, errno, "cannot stat '%s'", path);
        return;
    }
    wire_put_number(&w, (uint8_t)type, 1);
    wire_put_meta(&w, &(WireMeta){st.st_uid, st.st_gid, st.st_mode & 07777, st.st_mtim.tv_sec});
    wire_send(wire, WIRE_OK, buf, w.size);
}

static int make_dir(const char *path, const WireMeta *meta, bool last)
{
    struct timespec times[2] = {{.tv_sec = meta->mtime}, {.tv_sec = meta->mtime}};
    struct stat st;

    if (mkdir(path, 0755) < 0) {
        int err = errno;

        if (stat(path, &st) < 0)
            return err == EEXIST ? ENOENT : err; /* a link that leads nowhere */
        return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
    }
    if (chown(path, last ? meta->uid : 0, last ? meta->gid : 0) < 0 ||
        chmod(path, last ? meta->mode & 07777 : 0755) < 0 || utimensat(AT_FDCWD, path, times, 0) < 0)
        return errno;
    return 0;
}

static void mkdir_answer(Wire *wire, WireReader *payload)
{
    char path[WIRE_PATH_MAX];
    bool named = wire_path(payload, path);
    WireMeta meta = wire_get_meta(payload);
    int err = named && !payload->bad ? 0 : EPROTO;

    for (char *p = path + 1; !err; p++) {
        if (*p == '/' && p[1] != '/' && p[1] != '\0') {
            *p = '\0';
            err = make_dir(path, &meta, false);
            *p = '/';
        } else if (*p == '\0') {
            err = make_dir(path, &meta, true);
            break;
        }
    }
    if (err)
        wire_err(wire, err, "cannot make the folder '%s'", named ? path : "?");
    else
        wire_ok(wire);
}

static void symlink_answer(Wire *wire, WireReader *payload)
{
    char target[WIRE_PATH_MAX], path[WIRE_PATH_MAX];
    int err = wire_path(payload, target) && wire_path(payload, path) ? 0 : EPROTO;

    if (!err && unlink(path) < 0 && errno != ENOENT)
        err = errno;
    if (!err && symlink(target, path) < 0)
        err = errno;
    if (err)
        wire_err(wire, err, "cannot make the link '%s'", err == EPROTO ? "?" : path);
    else
        wire_ok(wire);
}

/* One descriptor per level; the session raised our limit for that. Mount points give EBUSY, which is what we
 * want. */
static int remove_tree(int dirfd, const char *name, int depth)
{
    struct dirent *entry;
    DIR *dir;
    int fd, err = 0;

    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return errno;
    if (depth > REMOVE_DEPTH_MAX)
        return ELOOP;
    fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno;
    dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return ENOMEM;
    }
    while (!err && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            err = remove_tree(fd, entry->d_name, depth + 1);
    closedir(dir);
    if (!err && unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        err = errno;
    return err;
}

static void remove_answer(Wire *wire, WireReader *payload)
{
    char path[WIRE_PATH_MAX];
    int err = wire_path(payload, path) ? 0 : EPROTO;
    size_t length = err ? 0 : strlen(path);

    while (length > 1 && path[length - 1] == '/')
        path[--length] = '\0';
    if (!err)
        err = strcmp(path, "/") == 0 ? EBUSY : remove_tree(AT_FDCWD, path, 0);
    if (err == ENOTDIR) /* something above it is a file, so it does not exist */
        err = 0;
    if (err)
        wire_err(wire, err, "cannot remove '%s'", err == EPROTO ? "?" : path);
    else
        wire_ok(wire);
}

static void list_answer(Wire *wire, WireReader *payload)
{
    static uint8_t buf[WIRE_CHUNK];
    WireWriter w = {buf, 0, sizeof buf, false};
    char path[WIRE_PATH_MAX];
    struct dirent *entry;
    DIR *dir = wire_path(payload, path) ? opendir(path) : NULL;

    if (!dir) {
        wire_err(wire, payload->bad ? EPROTO : errno, "cannot read the folder '%s'",
                 payload->bad ? "?" : path);
        return;
    }
    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (w.size + strlen(entry->d_name) + 1 > w.capacity) {
            wire_send(wire, WIRE_DATA, buf, w.size);
            w.size = 0;
        }
        wire_put_bytes(&w, entry->d_name, strlen(entry->d_name) + 1);
    }
    closedir(dir);
    if (w.size)
        wire_send(wire, WIRE_DATA, buf, w.size);
    wire_ok(wire);
}

bool files_answer(Wire *wire, uint16_t type, WireReader *payload)
{
    switch (type) {
    case WIRE_PUT:
        put_answer(wire, payload);
        return true;
    case WIRE_GET:
        get_answer(wire, payload);
        return true;
    case WIRE_STAT:
        stat_answer(wire, payload);
        return true;
    case WIRE_MKDIR:
        mkdir_answer(wire, payload);
        return true;
    case WIRE_SYMLINK:
        symlink_answer(wire, payload);
        return true;
    case WIRE_REMOVE:
        remove_answer(wire, payload);
        return true;
    case WIRE_LIST:
        list_answer(wire, payload);
        return true;
    default:
        return false;
    }
}
