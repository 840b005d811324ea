/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/crash-record-support.h"

#include "store/io.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int log_fd = -1;

/* One write, so that events of threads do not mix. */
static void put(CrashEvent *event, const void *data, size_t size)
{
    size_t whole = sizeof(*event) + CRASH_ROUND(size);
    g_autofree uint8_t *bytes = g_malloc0(whole);
    int saved = errno;

    event->size = (uint32_t)size;
    memcpy(bytes, event, sizeof(*event));
    if (size)
        memcpy(bytes + sizeof(*event), data, size);
    if (log_fd >= 0 && write(log_fd, bytes, whole) != (ssize_t)whole)
        _exit(99); /* a full disk here says nothing about the store */
    errno = saved;
}

static uint64_t node_of_fd(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static uint64_t node_of_name(int dirfd, const char *name)
{
    struct stat st;

    return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_ino : 0;
}

/* The folder that @name is in, and its last part. */
static uint64_t place_of(int dirfd, const char *name, char leaf[CRASH_NAME])
{
    g_autofree char *folder = g_path_get_dirname(name), *base = g_path_get_basename(name);

    g_assert_cmpuint(strlen(base), <, CRASH_NAME);
    (void)g_strlcpy(leaf, base, CRASH_NAME);
    return node_of_name(dirfd, folder);
}

static void put_simple(CrashKind kind, uint64_t node, uint64_t offset, const void *data, size_t size)
{
    CrashEvent event = {.kind = kind, .node = node, .folder = kind == CRASH_SYNC_DIR ? node : 0, .offset = offset};

    put(&event, data, size);
}

/* --- the store's own files --- */

static int record_open(int dirfd, const char *name, int flags, mode_t mode)
{
    bool there = node_of_name(dirfd, name) != 0;
    int fd = store_io_real()->open(dirfd, name, flags, mode);
    CrashEvent event = {.kind = CRASH_CREATE};

    if (fd >= 0 && (flags & O_CREAT) && !there) {
        event.folder = place_of(dirfd, name, event.name);
        event.node = node_of_fd(fd);
        put(&event, NULL, 0);
    } else if (fd >= 0 && (flags & O_TRUNC)) {
        put_simple(CRASH_TRUNCATE, node_of_fd(fd), 0, NULL, 0);
    }
    return fd;
}

static ssize_t record_pwrite(int fd, const void *buf, size_t size, off_t offset)
{
    ssize_t n = store_io_real()->pwrite(fd, buf, size, offset);

    if (n > 0)
        put_simple(CRASH_WRITE, node_of_fd(fd), (uint64_t)offset, buf, (size_t)n);
    return n;
}

static int record_truncate(int fd, off_t size)
{
    int rc = store_io_real()->truncate(fd, size);

    if (rc == 0)
        put_simple(CRASH_TRUNCATE, node_of_fd(fd), (uint64_t)size, NULL, 0);
    return rc;
}

static int record_sync(int fd)
{
    struct stat st;

    if (fstat(fd, &st) == 0)
        put_simple(S_ISDIR(st.st_mode) ? CRASH_SYNC_DIR : CRASH_SYNC, st.st_ino, 0, NULL, 0);
    return 0;
}

static int record_rename(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
    CrashEvent event = {.kind = CRASH_RENAME};
    int rc;

    event.folder = place_of(from_dirfd, from, event.name);
    event.to = place_of(to_dirfd, to, event.to_name);
    rc = store_io_real()->rename(from_dirfd, from, to_dirfd, to);
    if (rc == 0)
        put(&event, NULL, 0);
    return rc;
}

static int record_unlink(int dirfd, const char *name, int flags)
{
    CrashEvent event = {.kind = CRASH_UNLINK};
    int rc;

    event.folder = place_of(dirfd, name, event.name);
    rc = store_io_real()->unlink(dirfd, name, flags);
    if (rc == 0)
        put(&event, NULL, 0);
    return rc;
}

static int record_mkdir(int dirfd, const char *name, mode_t mode)
{
    CrashEvent event = {.kind = CRASH_MKDIR};
    int rc = store_io_real()->mkdir(dirfd, name, mode);

    if (rc == 0) {
        event.folder = place_of(dirfd, name, event.name);
        event.node = node_of_name(dirfd, name);
        put(&event, NULL, 0);
    }
    return rc;
}

/* --- SQLite's files --- */

typedef struct ShimFile {
    sqlite3_file base;
    uint64_t node, folder; /* 0: a temporary file without a name */
    bool sync_folder;      /* as the unix VFS does with the first sync of a new journal or WAL */
    sqlite3_file real[];
} ShimFile;

static sqlite3_vfs *real_vfs;
static sqlite3_vfs shim_vfs;
static sqlite3_io_methods shim_methods;

static struct {
    const char *call;
    int after, rc, seen;
    bool once;
} fault;

void crash_record_fail_database(const char *call, int after, int rc, bool once)
{
    fault.call = call;
    fault.after = after;
    fault.rc = rc;
    fault.seen = 0;
    fault.once = once;
}

static bool fault_hits(const char *call)
{
    if (!fault.call || strcmp(fault.call, call))
        return false;
    return ++fault.seen == fault.after || (!fault.once && fault.seen > fault.after);
}

#define REAL(file) (((ShimFile *)(file))->real)

static int shim_close(sqlite3_file *file)
{
    return REAL(file)->pMethods->xClose(REAL(file));
}

static int shim_read(sqlite3_file *file, void *to, int size, sqlite3_int64 at)
{
    return REAL(file)->pMethods->xRead(REAL(file), to, size, at);
}

static int shim_write(sqlite3_file *file, const void *from, int size, sqlite3_int64 at)
{
    ShimFile *shim = (ShimFile *)file;
    bool fails = fault_hits("write");
    int rc = SQLITE_OK;

    if (fails && fault.rc)
        return fault.rc;
    if (fails)
        size /= 2;
    rc = shim->real->pMethods->xWrite(shim->real, from, size, at);
    if (rc == SQLITE_OK && shim->node)
        put_simple(CRASH_WRITE, shim->node, (uint64_t)at, from, (size_t)size);
    return fails ? SQLITE_FULL : rc;
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    ShimFile *shim = (ShimFile *)file;
    int rc = fault_hits("truncate") ? fault.rc : shim->real->pMethods->xTruncate(shim->real, size);

    if (rc == SQLITE_OK && shim->node)
        put_simple(CRASH_TRUNCATE, shim->node, (uint64_t)size, NULL, 0);
    return rc;
}

static int shim_sync(sqlite3_file *file, int flags)
{
    ShimFile *shim = (ShimFile *)file;

    if (fault_hits("sync"))
        return fault.rc;
    if (shim->node)
        put_simple(CRASH_SYNC, shim->node, 0, NULL, 0);
    if (shim->node && shim->sync_folder)
        put_simple(CRASH_SYNC_DIR, shim->folder, 0, NULL, 0);
    shim->sync_folder = false;
    return SQLITE_OK;
}

static int shim_size(sqlite3_file *file, sqlite3_int64 *ret)
{
    return REAL(file)->pMethods->xFileSize(REAL(file), ret);
}

static int shim_lock(sqlite3_file *file, int lock)
{
    return REAL(file)->pMethods->xLock(REAL(file), lock);
}

static int shim_unlock(sqlite3_file *file, int lock)
{
    return REAL(file)->pMethods->xUnlock(REAL(file), lock);
}

static int shim_reserved(sqlite3_file *file, int *ret)
{
    return REAL(file)->pMethods->xCheckReservedLock(REAL(file), ret);
}

/* Of all file controls SIZE_HINT alone would change the file past us. */
static int shim_control(sqlite3_file *file, int op, void *arg)
{
    return op == SQLITE_FCNTL_SIZE_HINT ? SQLITE_OK : REAL(file)->pMethods->xFileControl(REAL(file), op, arg);
}

static int shim_sector(sqlite3_file *file)
{
    return REAL(file)->pMethods->xSectorSize(REAL(file));
}

static int shim_character(sqlite3_file *file)
{
    return REAL(file)->pMethods->xDeviceCharacteristics(REAL(file));
}

static int shim_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **ret)
{
    return REAL(file)->pMethods->xShmMap(REAL(file), page, size, extend, ret);
}

static int shim_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
    return REAL(file)->pMethods->xShmLock(REAL(file), offset, n, flags);
}

static void shim_shm_barrier(sqlite3_file *file)
{
    REAL(file)->pMethods->xShmBarrier(REAL(file));
}

static int shim_shm_unmap(sqlite3_file *file, int remove)
{
    return REAL(file)->pMethods->xShmUnmap(REAL(file), remove);
}

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    ShimFile *shim = (ShimFile *)file;
    bool there = name && node_of_name(AT_FDCWD, name) != 0;
    CrashEvent event = {.kind = CRASH_CREATE};
    int rc;

    memset(shim, 0, sizeof(*shim));
    if (fault_hits("open"))
        return fault.rc;
    rc = real_vfs->xOpen(real_vfs, name, shim->real, flags, ret_flags);
    if (rc != SQLITE_OK)
        return rc;
    shim->base.pMethods = &shim_methods;
    if (!name || (flags & SQLITE_OPEN_DELETEONCLOSE))
        return rc;
    event.folder = shim->folder = place_of(AT_FDCWD, name, event.name);
    event.node = shim->node = node_of_name(AT_FDCWD, name);
    shim->sync_folder = (flags & SQLITE_OPEN_CREATE) && (flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL));
    if (!there)
        put(&event, NULL, 0);
    return rc;
}

static int shim_delete(sqlite3_vfs *vfs, const char *name, int sync_folder)
{
    CrashEvent event = {.kind = CRASH_UNLINK};
    int rc;

    event.folder = place_of(AT_FDCWD, name, event.name);
    rc = real_vfs->xDelete(real_vfs, name, 0);
    if (rc == SQLITE_OK)
        put(&event, NULL, 0);
    if (rc == SQLITE_OK && sync_folder)
        put_simple(CRASH_SYNC_DIR, event.folder, 0, NULL, 0);
    return rc;
}

static void register_shim(void)
{
    real_vfs = sqlite3_vfs_find(NULL);
    shim_methods = (sqlite3_io_methods){
        .iVersion = 2,
        .xClose = shim_close,
        .xRead = shim_read,
        .xWrite = shim_write,
        .xTruncate = shim_truncate,
        .xSync = shim_sync,
        .xFileSize = shim_size,
        .xLock = shim_lock,
        .xUnlock = shim_unlock,
        .xCheckReservedLock = shim_reserved,
        .xFileControl = shim_control,
        .xSectorSize = shim_sector,
        .xDeviceCharacteristics = shim_character,
        .xShmMap = shim_shm_map,
        .xShmLock = shim_shm_lock,
        .xShmBarrier = shim_shm_barrier,
        .xShmUnmap = shim_shm_unmap,
    };
    shim_vfs = *real_vfs;
    shim_vfs.zName = "crash";
    shim_vfs.szOsFile = (int)sizeof(ShimFile) + real_vfs->szOsFile;
    shim_vfs.xOpen = shim_open;
    shim_vfs.xDelete = shim_delete;
    g_assert_cmpint(sqlite3_vfs_register(&shim_vfs, 1), ==, SQLITE_OK);
}

/* --- what is there before --- */

static void record_file(const char *path, uint64_t node)
{
    g_autofree char *text = NULL;
    gsize size;

    g_assert_true(g_file_get_contents(path, &text, &size, NULL));
    if (size > 0)
        put_simple(CRASH_WRITE, node, 0, text, size);
    put_simple(CRASH_SYNC, node, 0, NULL, 0);
}

static void record_folder(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    uint64_t folder = node_of_name(AT_FDCWD, path);
    const char *name;

    g_assert_nonnull(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        bool is_folder = g_file_test(child, G_FILE_TEST_IS_DIR);
        CrashEvent event = {.kind = is_folder ? CRASH_MKDIR : CRASH_CREATE, .folder = folder, .node = node_of_name(AT_FDCWD, child)};

        (void)g_strlcpy(event.name, name, sizeof(event.name));
        put(&event, NULL, 0);
        if (is_folder)
            record_folder(child);
        else
            record_file(child, event.node);
    }
    g_dir_close(dir);
    put_simple(CRASH_SYNC_DIR, folder, 0, NULL, 0);
}

/* --- */

void crash_record_start(const char *log, const char *base)
{
    static StoreIo io;

    if (log_fd >= 0)
        close(log_fd);
    log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    g_assert_cmpint(log_fd, >=, 0);
    put_simple(CRASH_BASE, node_of_name(AT_FDCWD, base), 0, NULL, 0);
    if (lseek(log_fd, 0, SEEK_END) == (off_t)sizeof(CrashEvent))
        record_folder(base);
    put_simple(CRASH_BASE, node_of_name(AT_FDCWD, base), 1, NULL, 0);
    io = *store_io_real();
    io.open = record_open;
    io.pwrite = record_pwrite;
    io.truncate = record_truncate;
    io.fdatasync = io.fsync = record_sync;
    io.rename = record_rename;
    io.unlink = record_unlink;
    io.mkdir = record_mkdir;
    store_io_set(&io);
    if (!real_vfs)
        register_shim();
    io_fault_reload();
}

void crash_record_mark(const char *text)
{
    put_simple(CRASH_MARK, 0, 0, text, strlen(text) + 1);
}
