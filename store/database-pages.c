/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VFS between SQLite and the real one: it hands everything on, and puts the check into pages on their way into a database's file.
 */
#include "store/database-pages.h"

#include "base/digest.h"
#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/scope.h"
#include "store/bytes.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#define HEADER 100
#define PAGE_MAX 65536
#define BAD_MAX 20
#define TRIES 5

typedef struct PageFile {
    sqlite3_file base;
    sqlite3_file *real;
    bool database;      /* and not a WAL, journal or temporary file */
    int page, reserved; /* 0: not known yet */
    uint8_t *copy;
} PageFile;

static GMutex lock;
static sqlite3_vfs vfs;
static sqlite3_vfs *real_vfs;

#define REAL(file) (((PageFile *)(file))->real)

/* --- the check --- */

static void check_of(uint8_t *page, int size, uint64_t number, uint8_t ret[DATABASE_PAGE_CHECK])
{
    Digest digest;

    put_le64(page + size - DATABASE_PAGE_CHECK, number);
    digest_of(page, (size_t)size, &digest);
    memcpy(ret, digest.bytes, DATABASE_PAGE_CHECK);
}

static void learn(const uint8_t *header, int *ret_page, int *ret_reserved)
{
    int page = header[16] << 8 | header[17];

    *ret_page = page == 1 ? PAGE_MAX : page;
    *ret_reserved = header[20];
}

/* --- files --- */

static int page_close(sqlite3_file *file)
{
    PageFile *f = (PageFile *)file;
    int rc = f->real->pMethods->xClose(f->real);

    g_clear_pointer(&f->real, g_free);
    g_clear_pointer(&f->copy, g_free);
    return rc;
}

static int page_read(sqlite3_file *file, void *to, int size, sqlite3_int64 at)
{
    PageFile *f = (PageFile *)file;
    int rc = f->real->pMethods->xRead(f->real, to, size, at);

    if (rc == SQLITE_OK && f->database && at == 0 && size >= HEADER)
        learn(to, &f->page, &f->reserved);
    return rc;
}

static int page_write(sqlite3_file *file, const void *from, int size, sqlite3_int64 at)
{
    PageFile *f = (PageFile *)file;

    if (f->database && at == 0 && size >= HEADER)
        learn(from, &f->page, &f->reserved);
    if (!f->database || f->reserved != DATABASE_PAGE_CHECK || size != f->page)
        return f->real->pMethods->xWrite(f->real, from, size, at);
    if (!f->copy)
        f->copy = g_malloc(PAGE_MAX);
    memcpy(f->copy, from, (size_t)size);
    check_of(f->copy, size, (uint64_t)(at / size) + 1, f->copy + size - DATABASE_PAGE_CHECK);
    return f->real->pMethods->xWrite(f->real, f->copy, size, at);
}

static int page_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return REAL(file)->pMethods->xTruncate(REAL(file), size);
}

static int page_sync(sqlite3_file *file, int flags)
{
    return REAL(file)->pMethods->xSync(REAL(file), flags);
}

static int page_size(sqlite3_file *file, sqlite3_int64 *ret)
{
    return REAL(file)->pMethods->xFileSize(REAL(file), ret);
}

static int page_lock(sqlite3_file *file, int level)
{
    return REAL(file)->pMethods->xLock(REAL(file), level);
}

static int page_unlock(sqlite3_file *file, int level)
{
    return REAL(file)->pMethods->xUnlock(REAL(file), level);
}

static int page_reserved(sqlite3_file *file, int *ret)
{
    return REAL(file)->pMethods->xCheckReservedLock(REAL(file), ret);
}

static int page_control(sqlite3_file *file, int op, void *arg)
{
    return REAL(file)->pMethods->xFileControl(REAL(file), op, arg);
}

static int page_sector(sqlite3_file *file)
{
    return REAL(file)->pMethods->xSectorSize(REAL(file));
}

static int page_character(sqlite3_file *file)
{
    return REAL(file)->pMethods->xDeviceCharacteristics(REAL(file));
}

static int page_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **ret)
{
    return REAL(file)->pMethods->xShmMap(REAL(file), page, size, extend, ret);
}

static int page_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
    return REAL(file)->pMethods->xShmLock(REAL(file), offset, n, flags);
}

static void page_shm_barrier(sqlite3_file *file)
{
    REAL(file)->pMethods->xShmBarrier(REAL(file));
}

static int page_shm_unmap(sqlite3_file *file, int remove)
{
    return REAL(file)->pMethods->xShmUnmap(REAL(file), remove);
}

/* No mapped pages: they would be read past us, which is no harm, and the second version of the methods has none. */
static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = page_close,
    .xRead = page_read,
    .xWrite = page_write,
    .xTruncate = page_truncate,
    .xSync = page_sync,
    .xFileSize = page_size,
    .xLock = page_lock,
    .xUnlock = page_unlock,
    .xCheckReservedLock = page_reserved,
    .xFileControl = page_control,
    .xSectorSize = page_sector,
    .xDeviceCharacteristics = page_character,
    .xShmMap = page_shm_map,
    .xShmLock = page_shm_lock,
    .xShmBarrier = page_shm_barrier,
    .xShmUnmap = page_shm_unmap,
};

static int page_open(sqlite3_vfs *self, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    PageFile *f = (PageFile *)file;
    sqlite3_vfs *below = g_atomic_pointer_get(&real_vfs);
    int rc;

    memset(f, 0, sizeof(*f));
    f->real = g_malloc0((gsize)below->szOsFile);
    rc = below->xOpen(below, name, f->real, flags, ret_flags);
    if (!f->real->pMethods) {
        g_clear_pointer(&f->real, g_free);
        return rc;
    }
    f->database = flags & SQLITE_OPEN_MAIN_DB;
    f->base.pMethods = &methods;
    return rc;
}

const char *database_pages_vfs(void)
{
    sqlite3_vfs *below = sqlite3_vfs_find(NULL), *next;

    AUTO_LOCK(&lock);
    if (below == real_vfs)
        return vfs.zName;
    next = vfs.pNext; /* the list of all of them */
    vfs = *below;
    vfs.pNext = next;
    vfs.zName = "kiln";
    vfs.szOsFile = (int)sizeof(PageFile);
    vfs.xOpen = page_open;
    if (!real_vfs)
        (void)sqlite3_vfs_register(&vfs, 0);
    g_atomic_pointer_set(&real_vfs, below);
    return vfs.zName;
}

/* --- checking a file --- */

/* Another process may be copying a page out of its WAL just now; then the next look finds it whole. */
static bool page_is_good(int fd, uint8_t *page, int size, uint64_t number)
{
    for (int i = 0; i < TRIES; i++) {
        uint8_t have[DATABASE_PAGE_CHECK], wanted[DATABASE_PAGE_CHECK];

        if (i > 0)
            g_usleep(20000);
        if (!file_pread_full(fd, page, (size_t)size, (number - 1) * (uint64_t)size, "a page", NULL))
            continue;
        if (bytes_are_zero(page, (size_t)size))
            return true;
        memcpy(have, page + size - DATABASE_PAGE_CHECK, sizeof(have));
        check_of(page, size, number, wanted);
        if (!memcmp(have, wanted, sizeof(have)))
            return true;
    }
    return false;
}

static bool check_pages(int fd, int size, uint64_t pages, const char *file, GPtrArray *problems, GError **error)
{
    g_autofree uint8_t *page = g_malloc(PAGE_MAX);
    uint64_t bad = 0;

    for (uint64_t i = 1; i <= pages; i++) {
        if (!interrupt_check(error))
            return false;
        if (!page_is_good(fd, page, size, i) && bad++ < BAD_MAX)
            g_ptr_array_add(problems, g_strdup_printf("%s is damaged: page %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " does not have its check; kiln fsck --rebuild makes it again", file, i, pages));
    }
    if (bad > BAD_MAX)
        g_ptr_array_add(problems, g_strdup_printf("%s is damaged: %" G_GUINT64_FORMAT " more of its pages do not have their checks", file, bad - BAD_MAX));
    return true;
}

bool database_pages_check(const char *path, const char *file, GPtrArray *problems, bool *ret_checked, GError **error)
{
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t header[HEADER];
    int page, reserved;
    struct stat st;

    *ret_checked = false;
    if (fd < 0)
        return errno == ENOENT || fail_errno(error, "read '%s'", path);
    if (fstat(fd, &st) < 0 || !file_pread_full(fd, header, sizeof(header), 0, file, NULL) || memcmp(header, "SQLite format 3", 16)) {
        g_ptr_array_add(problems, g_strdup_printf("%s is damaged: its header is none of a database", file));
        return true;
    }
    learn(header, &page, &reserved);
    if (page < 512 || (page & (page - 1)) || (reserved != 0 && reserved != DATABASE_PAGE_CHECK) || st.st_size % page) {
        g_ptr_array_add(problems, g_strdup_printf("%s is damaged: its header does not fit its size", file));
        return true;
    }
    *ret_checked = reserved == DATABASE_PAGE_CHECK;
    return !*ret_checked || check_pages(fd, page, (uint64_t)(st.st_size / page), file, problems, error);
}
