/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A remote that is a folder: of this machine, or mounted from another.
 *
 *     DIR/kiln-remote   says what this is
 *     DIR/KEY           an object
 *     DIR/.tmp/         what is being put; gets its name when it is synced
 *
 * Who is killed leaves a file in .tmp. One that nobody wrote to in a day goes when somebody puts something.
 */
#include "store/remote-members.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE (1u << 20)
#define MARK "kiln-remote"
#define MARK_TEXT "kiln-remote 1\n"
#define TMP ".tmp"
#define TMP_AGE 86400
#define DEPTH_MAX 16

typedef struct FileRemote {
    char *path;
    int dirfd;
    bool swept;
    unsigned next;
} FileRemote;

static void file_close(void *self)
{
    FileRemote *r = self;

    scope_close_fd(&r->dirfd);
    g_free(r->path);
    g_free(r);
}

static bool is_empty(const char *path)
{
    auto_dir DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            return false;
    return true;
}

/* A folder that holds something else, or nothing because its mount is missing, is told apart from a remote. */
static bool check_mark(FileRemote *r, bool create, GError **error)
{
    g_autoptr(GBytes) mark = NULL;

    if (file_load(r->dirfd, MARK, 64, &mark, NULL))
        return (g_bytes_get_size(mark) == strlen(MARK_TEXT) && memcmp(g_bytes_get_data(mark, NULL), MARK_TEXT, strlen(MARK_TEXT)) == 0) ||
               fail(error, "'%s' is a remote of a newer kiln", r->path);
    if (create && is_empty(r->path))
        return file_replace(r->dirfd, MARK, MARK_TEXT, strlen(MARK_TEXT), 0644, FILE_SYNC_YES, error);
    return fail_code(error, KILN_ERROR_NOT_FOUND, "'%s' is no remote: it lacks the file '" MARK "' that the first sync to an empty folder makes",
                     r->path);
}

static bool file_open(const char *location, const RemoteOptions *options, void **ret, GError **error)
{
    const char *path = location + strlen("file:");
    FileRemote *r;

    if (g_str_has_prefix(path, "///"))
        path += 2;
    if (!*path || g_str_has_prefix(path, "//"))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is not of the form file:DIR", location);
    if (options->create && !file_make_dirs(path, 0755, error))
        return false;
    r = g_new0(FileRemote, 1);
    *ret = r;
    r->path = g_strdup(path);
    r->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->dirfd < 0)
        return fail_errno(error, "open '%s'", path);
    return check_mark(r, options->create, error);
}

/* --- reading --- */

/* *ret_fd -1: there is none. */
static bool open_object(FileRemote *r, const char *key, int *ret_fd, struct stat *st, GError **error)
{
    auto_fd int fd = openat(r->dirfd, key, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    *ret_fd = -1;
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return true;
    if (fd < 0 || fstat(fd, st) < 0)
        return fail_errno(error, "open '%s/%s'", r->path, key);
    if (S_ISREG(st->st_mode))
        *ret_fd = g_steal_fd(&fd);
    return true;
}

static bool file_get(void *self, const char *key, uint64_t offset, uint64_t size, RemoteSinkFn *sink, void *arg, GError **error)
{
    FileRemote *r = self;
    g_autofree uint8_t *buf = g_malloc(PIECE);
    auto_fd int fd = -1;
    struct stat st;

    if (!open_object(r, key, &fd, &st, error))
        return false;
    if (fd < 0)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "'%s' has no object '%s'", r->path, key);
    while (size > 0) {
        ssize_t n = pread(fd, buf, (size_t)MIN(size, PIECE), (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(error, "read '%s/%s'", r->path, key);
        if (n == 0)
            break;
        if (!sink(buf, (size_t)n, arg, error))
            return false;
        offset += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return true;
}

static bool file_head(void *self, const char *key, bool *ret_there, uint64_t *ret_size, GError **error)
{
    auto_fd int fd = -1;
    struct stat st;

    if (!open_object(self, key, &fd, &st, error))
        return false;
    *ret_there = fd >= 0;
    *ret_size = fd >= 0 ? (uint64_t)st.st_size : 0;
    return true;
}

/* --- listing --- */

typedef struct Listing {
    FileRemote *r;
    const char *prefix, *after;
    GPtrArray *found;
} Listing;

static bool may_be_below(const char *folder, const char *prefix)
{
    size_t n = MIN(strlen(folder), strlen(prefix));

    return strncmp(folder, prefix, n) == 0;
}

static bool walk(Listing *l, int dirfd, const char *folder, int depth, GError **error);

static bool look_at(Listing *l, int dirfd, const char *folder, const char *name, int depth, GError **error)
{
    g_autofree char *key = g_strconcat(folder, name, NULL);
    struct stat st;

    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT || fail_errno(error, "look at '%s/%s'", l->r->path, key);
    if (S_ISDIR(st.st_mode)) {
        g_autofree char *below = g_strconcat(key, "/", NULL);
        auto_fd int fd = may_be_below(below, l->prefix) && depth < DEPTH_MAX ? openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;

        return fd < 0 || walk(l, fd, below, depth + 1, error);
    }
    if (S_ISREG(st.st_mode) && g_str_has_prefix(key, l->prefix) && (!l->after || strcmp(key, l->after) > 0))
        g_ptr_array_add(l->found, remote_entry_new(key, (uint64_t)st.st_size, st.st_mtim.tv_sec));
    return true;
}

static bool walk(Listing *l, int dirfd, const char *folder, int depth, GError **error)
{
    int copy = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
    auto_dir DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    const struct dirent *entry;

    if (!dir)
        return fail_errno(error, "list '%s/%s'", l->r->path, folder);
    rewinddir(dir);
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.' && !(depth == 0 && strcmp(entry->d_name, MARK) == 0) &&
            !look_at(l, dirfd, folder, entry->d_name, depth, error))
            return false;
    return true;
}

static gint by_key(gconstpointer a, gconstpointer b)
{
    return strcmp((*(RemoteEntry *const *)a)->key, (*(RemoteEntry *const *)b)->key);
}

/* All at once, then a page of it: our folders are read in a moment. */
static bool file_list(void *self, const char *prefix, const char *after, GPtrArray *to, bool *ret_more, GError **error)
{
    g_autoptr(GPtrArray) found = g_ptr_array_new_with_free_func((GDestroyNotify)remote_entry_free);
    Listing l = {.r = self, .prefix = prefix, .after = after, .found = found};

    if (!walk(&l, l.r->dirfd, "", 0, error))
        return false;
    g_ptr_array_sort(found, by_key);
    for (guint i = 0; i < found->len && i < REMOTE_PAGE; i++)
        g_ptr_array_add(to, g_steal_pointer(&found->pdata[i]));
    *ret_more = found->len > REMOTE_PAGE;
    return true;
}

/* --- writing --- */

static void sweep(FileRemote *r, int tmp)
{
    int copy = fcntl(tmp, F_DUPFD_CLOEXEC, 3);
    auto_dir DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;
    const struct dirent *entry;
    struct stat st;

    r->swept = true;
    while (dir && (entry = readdir(dir)))
        if (fstatat(tmp, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_mtim.tv_sec + TMP_AGE < now)
            (void)unlinkat(tmp, entry->d_name, 0); /* somebody else may have been faster */
}

static bool write_body(const RemoteBody *body, int to, GError **error)
{
    g_autofree uint8_t *buf = NULL;

    if (body->fd < 0)
        return file_write_full(to, body->data, body->size, "an object", error);
    buf = g_malloc(PIECE);
    for (uint64_t at = 0; at < body->size; at += PIECE) {
        size_t n = (size_t)MIN(PIECE, body->size - at);

        if (!file_pread_full(body->fd, buf, n, at, "an object", error) || !file_write_full(to, buf, n, "an object", error))
            return false;
    }
    return true;
}

/* Each folder on the way is synced into its parent, or the object would be lost with it. */
static bool make_folders(FileRemote *r, const char *key, int *ret_dir, GError **error)
{
    auto_fd int at = fcntl(r->dirfd, F_DUPFD_CLOEXEC, 3);
    g_auto(GStrv) parts = g_strsplit(key, "/", -1);

    for (char **part = parts; at >= 0 && part[1]; part++) {
        bool made = mkdirat(at, *part, 0755) == 0;
        int below;

        if ((!made && errno != EEXIST) || (made && fsync(at) < 0) ||
            (below = openat(at, *part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)) < 0)
            return fail_errno(error, "make a folder for '%s/%s'", r->path, key);
        scope_close_fd(&at);
        at = below;
    }
    *ret_dir = g_steal_fd(&at);
    return *ret_dir >= 0 || fail_errno(error, "open '%s'", r->path);
}

static bool give_name(FileRemote *r, int tmp, const char *from, const char *key, bool if_absent, bool *ret_new, GError **error)
{
    const char *slash = strrchr(key, '/'), *name = slash ? slash + 1 : key;
    auto_fd int dir = -1;
    struct stat st;

    if (!make_folders(r, key, &dir, error))
        return false;
    *ret_new = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0;
    if (if_absent) {
        *ret_new = linkat(tmp, from, dir, name, 0) == 0;
        if (!*ret_new && errno != EEXIST)
            return fail_errno(error, "name '%s/%s'", r->path, key);
    } else if (renameat(tmp, from, dir, name) < 0) {
        return fail_errno(error, "name '%s/%s'", r->path, key);
    }
    return fsync(dir) == 0 || fail_errno(error, "sync '%s/%s'", r->path, key);
}

static bool put_through(FileRemote *r, int tmp, const char *name, const char *key, const RemoteBody *body, bool if_absent, bool *ret_new,
                        GError **error)
{
    auto_fd int fd = openat(tmp, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    if (fd < 0)
        return fail_errno(error, "write to '%s'", r->path);
    if (!write_body(body, fd, error))
        return fail_prefix(error, "'%s'", r->path);
    if (fdatasync(fd) < 0)
        return fail_errno(error, "write to '%s'", r->path);
    return give_name(r, tmp, name, key, if_absent, ret_new, error);
}

static bool file_put(void *self, const char *key, const RemoteBody *body, bool if_absent, bool *ret_new, GError **error)
{
    FileRemote *r = self;
    g_autofree char *name = g_strdup_printf("%s-%ld-%u-%08x", g_get_host_name(), (long)getpid(), r->next++, g_random_int());
    auto_fd int tmp = -1;
    bool ok, there = false;
    uint64_t size;

    if (if_absent && !file_head(r, key, &there, &size, error))
        return false;
    *ret_new = !there;
    if (there)
        return true;
    if (mkdirat(r->dirfd, TMP, 0755) < 0 && errno != EEXIST)
        return fail_errno(error, "write to '%s'", r->path);
    tmp = openat(r->dirfd, TMP, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (tmp < 0)
        return fail_errno(error, "write to '%s'", r->path);
    if (!r->swept)
        sweep(r, tmp);
    ok = put_through(r, tmp, name, key, body, if_absent, ret_new, error);
    (void)unlinkat(tmp, name, 0); /* renamed, linked or of no use */
    return ok;
}

static bool file_remove(void *self, const char *key, GError **error)
{
    FileRemote *r = self;

    return unlinkat(r->dirfd, key, 0) == 0 || errno == ENOENT || errno == ENOTDIR || fail_errno(error, "remove '%s/%s'", r->path, key);
}

const RemoteOps remote_file_ops = {
    .scheme = "file",
    .example = "file:DIR",
    .open = file_open,
    .close = file_close,
    .get = file_get,
    .put = file_put,
    .head = file_head,
    .list = file_list,
    .remove = file_remove,
};
