/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One walk over the guest's file systems for kiln on the host, which cannot read xfs, btrfs or what lies on LVM: every entry as the guest's
 * kernel shows it, with raw xattrs, and where asked for the contents, holes left out.
 *
 * Every folder is told before what is in it. Between steps nothing is mounted but the guest's own file systems, so the walk goes wherever a name
 * leads; an inode with several names is told whole once, then as a further name of it.
 */
#include "provisioner/runner/runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define XATTR_LIST_MAX 65536
#define XATTR_VALUE_MAX 65536
#define PIECE_MAX ((WIRE_PAYLOAD_MAX - 64) / 4096 * 4096)
#define SEEN_START 4096
#define FRAMES_MAX (2 * (WIRE_HEADER_SIZE + WIRE_PAYLOAD_MAX))

typedef struct Inode {
    uint64_t dev, ino; /* ino 0: a free place */
} Inode;

typedef struct Walk {
    Wire *wire;
    bool contents;
    uint64_t entries;
    char path[WIRE_PATH_MAX]; /* no leading slash */
    size_t length;
    Inode *seen; /* those with several names; open addressing, a power of two */
    size_t room, used;
    int err;
    uint8_t frames[FRAMES_MAX]; /* packed, not sent yet: each write is an exit of the virtual machine */
    size_t packed;
    uint8_t buf[WIRE_PAYLOAD_MAX];
    char names[XATTR_LIST_MAX];
} Walk;

/* --- inodes with several names --- */

static Inode *seen_place(Inode *seen, size_t room, uint64_t dev, uint64_t ino)
{
    size_t i = (size_t)((ino * 0x9e3779b97f4a7c15u) ^ (dev * 0xc2b2ae3d27d4eb4fu)) & (room - 1);

    while (seen[i].ino && (seen[i].ino != ino || seen[i].dev != dev))
        i = (i + 1) & (room - 1);
    return &seen[i];
}

static bool seen_grow(Walk *walk)
{
    size_t room = walk->room ? walk->room * 2 : SEEN_START;
    Inode *seen = calloc(room, sizeof *seen);

    if (!seen)
        return false;
    for (size_t i = 0; i < walk->room; i++)
        if (walk->seen[i].ino)
            *seen_place(seen, room, walk->seen[i].dev, walk->seen[i].ino) = walk->seen[i];
    free(walk->seen);
    walk->seen = seen;
    walk->room = room;
    return true;
}

/* Was this inode told before? It counts as told from here on. */
static bool was_seen(Walk *walk, const struct stat *st)
{
    Inode *place;

    if (S_ISDIR(st->st_mode) || st->st_nlink < 2 || !st->st_ino)
        return false;
    if (walk->used * 2 >= walk->room && !seen_grow(walk)) {
        walk->err = ENOMEM;
        return false;
    }
    place = seen_place(walk->seen, walk->room, st->st_dev, st->st_ino);
    if (place->ino)
        return true;
    *place = (Inode){st->st_dev, st->st_ino};
    walk->used++;
    return false;
}

/* --- one entry --- */

static void flush(Walk *walk)
{
    wire_send_frames(walk->wire, walk->frames, walk->packed);
    walk->packed = 0;
}

static void pack(Walk *walk, uint16_t type, size_t size)
{
    if (walk->packed + WIRE_HEADER_SIZE + size > sizeof walk->frames)
        flush(walk);
    wire_pack_header(walk->frames + walk->packed, (uint32_t)size, walk->wire->request, type);
    memcpy(walk->frames + walk->packed + WIRE_HEADER_SIZE, walk->buf, size);
    walk->packed += WIRE_HEADER_SIZE + size;
}

static void send_entry(Walk *walk, const struct stat *st, const char *target, bool again)
{
    WireWriter w = {walk->buf, 0, sizeof walk->buf, false};

    wire_put_string(&w, walk->path);
    wire_put_number(&w, again, 1);
    wire_put_number(&w, st->st_mode, 4);
    wire_put_number(&w, st->st_uid, 4);
    wire_put_number(&w, st->st_gid, 4);
    wire_put_number(&w, (uint64_t)st->st_mtim.tv_sec, 8);
    wire_put_number(&w, (uint64_t)st->st_mtim.tv_nsec, 4);
    wire_put_number(&w, st->st_dev, 8);
    wire_put_number(&w, st->st_ino, 8);
    wire_put_number(&w, major(st->st_rdev), 4);
    wire_put_number(&w, minor(st->st_rdev), 4);
    wire_put_number(&w, S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0, 8);
    wire_put_string(&w, target);
    pack(walk, WIRE_ENTRY, w.size);
    walk->entries++;
}

/* @name in the working folder. */
static int send_xattrs(Walk *walk, const char *name)
{
    ssize_t size = llistxattr(name, walk->names, sizeof walk->names);

    if (size < 0)
        return errno == EOPNOTSUPP ? 0 : errno;
    for (const char *xattr = walk->names; xattr < walk->names + size; xattr += strlen(xattr) + 1) {
        WireWriter w = {walk->buf, 0, sizeof walk->buf, false};
        ssize_t got;

        wire_put_string(&w, xattr);
        got = lgetxattr(name, xattr, w.data + w.size, XATTR_VALUE_MAX);
        if (got < 0 && (errno == ENODATA || errno == EOPNOTSUPP))
            continue;
        if (got < 0)
            return errno;
        pack(walk, WIRE_XATTR, w.size + (size_t)got);
    }
    return 0;
}

/* Bytes [from, to) in pieces that each say where they are. */
static int send_range(Walk *walk, int fd, uint64_t from, uint64_t to)
{
    while (from < to) {
        WireWriter w = {walk->buf, 0, sizeof walk->buf, false};
        uint64_t part = to - from < PIECE_MAX ? to - from : PIECE_MAX;
        ssize_t n;

        wire_put_number(&w, from, 8);
        n = pread(fd, w.data + w.size, part, (off_t)from);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        pack(walk, WIRE_PIECE, w.size + (size_t)n);
        from += (uint64_t)n;
    }
    return 0;
}

static int send_content(Walk *walk, const char *name, const struct stat *st)
{
    uint64_t at = 0, size = (uint64_t)st->st_size;
    int fd = size ? open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_NOATIME | O_CLOEXEC) : -1, err = 0;
    struct stat now;

    if (!size)
        return 0;
    if (fd < 0)
        return errno;
    if (fstat(fd, &now) < 0 || now.st_ino != st->st_ino || now.st_size != st->st_size)
        err = ESTALE;
    while (!err && at < size) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

        if (data < 0 && errno == ENXIO) /* nothing but a hole follows */
            break;
        if (data < 0) {
            data = (off_t)at;
            hole = (off_t)size;
        } else {
            hole = lseek(fd, data, SEEK_HOLE);
        }
        if (hole < 0 || hole > (off_t)size)
            hole = (off_t)size;
        err = send_range(walk, fd, (uint64_t)data, (uint64_t)hole);
        at = (uint64_t)hole;
    }
    close(fd);
    return err;
}

static int send_one(Walk *walk, const char *name, const struct stat *st)
{
    char target[WIRE_PATH_MAX] = "";
    bool again = was_seen(walk, st);
    int err = walk->err;

    if (!err && S_ISLNK(st->st_mode)) {
        ssize_t n = readlink(name, target, sizeof target - 1);

        if (n < 0 || n == sizeof target - 1)
            err = n < 0 ? errno : ENAMETOOLONG;
        else
            target[n] = '\0';
    }
    if (err)
        return err;
    send_entry(walk, st, target, again);
    if (again)
        return 0;
    err = send_xattrs(walk, name);
    return err || !walk->contents || !S_ISREG(st->st_mode) ? err : send_content(walk, name, st);
}

/* --- the walk --- */

static int walk_folder(Walk *walk, int fd);

/* Into @name, and back out by the folder's own descriptor: ".." may be another one where a file system is mounted twice. */
static int walk_into(Walk *walk, int dirfd, const char *name)
{
    int err = walk_folder(walk, openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));

    return !err && fchdir(dirfd) < 0 ? errno : err;
}

static int walk_name(Walk *walk, int dirfd, const char *name)
{
    size_t before = walk->length, size = strlen(name);
    struct stat st;
    int err;

    if (before + 1 + size >= sizeof walk->path)
        return ENAMETOOLONG;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno;
    if (before)
        walk->path[walk->length++] = '/';
    memcpy(walk->path + walk->length, name, size + 1);
    walk->length += size;
    err = send_one(walk, name, &st);
    if (!err && S_ISDIR(st.st_mode))
        err = walk_into(walk, dirfd, name);
    if (!err) { /* else the path says where */
        walk->length = before;
        walk->path[before] = '\0';
    }
    return err;
}

/* Takes @fd, as open() gave it; the folder is the working one from here on. */
static int walk_folder(Walk *walk, int fd)
{
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int err;

    if (!dir) {
        err = errno;
        if (fd >= 0)
            close(fd);
        return err;
    }
    err = fchdir(fd) < 0 ? errno : 0;
    for (errno = 0; !err && (entry = readdir(dir)); errno = 0)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            err = walk_name(walk, fd, entry->d_name);
    if (!err && errno)
        err = errno;
    closedir(dir);
    return err;
}

static int walk_all(Walk *walk)
{
    struct stat st;
    int err;

    if (chdir("/") < 0 || lstat(".", &st) < 0)
        return errno;
    err = send_one(walk, ".", &st);
    return err ? err : walk_folder(walk, open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

void walk_answer(Wire *wire, WireReader *payload)
{
    Walk *walk = calloc(1, sizeof *walk);
    int err = walk ? 0 : ENOMEM;

    if (walk) {
        walk->wire = wire;
        walk->contents = wire_get_number(payload, 1) != 0;
        err = payload->bad ? EPROTO : walk_all(walk);
        flush(walk);
        free(walk->seen);
    }
    (void)chdir("/");
    if (err)
        wire_err(wire, err, "cannot read '/%s'", walk ? walk->path : "");
    else
        wire_ok_number(wire, walk->entries);
    free(walk);
}
