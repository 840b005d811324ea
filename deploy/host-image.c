/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of images on this host: written once, stamped, compared before every use.
 */
#include "deploy/host-image.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (1u << 20)
#define CONFIG_MAX (64u << 10)
#define STAMP_MAX 4096

static const struct {
    const char *oci, *machine;
} architectures[] = {{"amd64", "x86_64"}, {"arm64", "aarch64"}};

bool host_image_want(Store *store, const Digest *id, HostImageWant *ret, GError **error)
{
    g_autoptr(json_t) config = NULL;
    HostImageWant want = {.id = *id};
    const char *content = NULL, *arch = NULL;
    int64_t size = 0;

    if (!store_image_config(store, id, CONFIG_MAX, NULL, &config, error) ||
        !json_get_string(config, "content", NULL, &content, error) || !json_get_string(config, "arch", "", &arch, error) ||
        !json_get_int(config, "size", -1, &size, error))
        return false;
    if (!content || !digest_parse(content, &want.content) || size <= 0)
        return fail(error, "the image's config does not say what its disk holds; it was not made by kiln");
    want.size = (uint64_t)size;
    for (size_t i = 0; i < G_N_ELEMENTS(architectures); i++)
        if (g_str_equal(architectures[i].oci, arch))
            (void)g_strlcpy(want.arch, architectures[i].machine, sizeof want.arch);
    *ret = want;
    return true;
}

static char *file_name(const Digest *id, const char *suffix)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strdup_printf("%s.%s", digest_to_hex(id, hex), suffix);
}

char *host_image_path(const char *folder, const Digest *id)
{
    g_autofree char *name = file_name(id, "raw");

    return g_build_filename(folder, name, NULL);
}

static bool open_folder(const char *folder, int *ret_dirfd, GError **error)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return fail_errno(error, "open the hosts' image folder '%s'", folder);
    *ret_dirfd = fd;
    return true;
}

/* --- the stamp --- */

static json_t *stamp_of(const struct stat *st, const Digest *content)
{
    char hex[DIGEST_HEX_SIZE];

    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "device", (json_int_t)st->st_dev, "inode", (json_int_t)st->st_ino, "size",
                     (json_int_t)st->st_size, "mtime", (json_int_t)st->st_mtim.tv_sec, "mtime-ns", (json_int_t)st->st_mtim.tv_nsec, "ctime",
                     (json_int_t)st->st_ctim.tv_sec, "ctime-ns", (json_int_t)st->st_ctim.tv_nsec, "content", digest_to_hex(content, hex));
}

static bool write_stamp(int dirfd, const Digest *id, const struct stat *st, const Digest *content, GError **error)
{
    g_autoptr(json_t) stamp = stamp_of(st, content);
    g_autofree char *text = json_canonical(stamp), *name = file_name(id, "stamp");

    return file_replace(dirfd, name, text, strlen(text), 0644, FILE_SYNC_YES, error);
}

static bool stamp_fits(int dirfd, const HostImageWant *want, const struct stat *st)
{
    g_autofree char *name = file_name(&want->id, "stamp");
    g_autoptr(json_t) now = stamp_of(st, &want->content), then = NULL;
    g_autoptr(GBytes) text = NULL;

    return file_load(dirfd, name, STAMP_MAX, &text, NULL) &&
           json_parse(g_bytes_get_data(text, NULL), g_bytes_get_size(text), STAMP_MAX, name, &then, NULL) && json_equal(now, then);
}

/* --- checking --- */

/* A link, a folder, a file that somebody may write: not what we put there. */
static bool is_as_we_left_it(const struct stat *st, const HostImageWant *want, const char *path, GError **error)
{
    if (!S_ISREG(st->st_mode))
        return fail(error, "'%s' is not a regular file", path);
    if (st->st_mode & 0222)
        return fail(error, "'%s' is writable, which the file that instances run from must not be", path);
    if (st->st_uid != geteuid() && st->st_uid != 0)
        return fail(error, "'%s' belongs to user %u, who could change it", path, (unsigned)st->st_uid);
    if ((uint64_t)st->st_size != want->size)
        return fail(error, "'%s' has %" G_GUINT64_FORMAT " bytes instead of the image's %" G_GUINT64_FORMAT, path, (uint64_t)st->st_size,
                    want->size);
    return true;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* @before: what the open file looked like. It must look the same after it was read, also by its name. */
static bool rehash(int dirfd, const char *name, int fd, const char *path, const HostImageWant *want, const struct stat *before, ImageTick *tick,
                   void *arg, GError **error)
{
    Digest content;
    uint64_t size;
    struct stat after, named;

    trace("deploy.host-image", "hashing %s again", path);
    if (!content_hash_fd(fd, path, tick, arg, &content, &size, error))
        return false;
    if (fstat(fd, &after) < 0 || fstatat(dirfd, name, &named, AT_SYMLINK_NOFOLLOW) < 0)
        return fail_errno(error, "look at '%s'", path);
    if (!same_file(before, &after) || !same_file(before, &named))
        return fail(error, "'%s' was changed while it was read", path);
    if (!digest_equal(&content, &want->content))
        return fail(error, "the bytes of '%s' are not the image's", path);
    return write_stamp(dirfd, &want->id, &after, &content, error);
}

static bool check(int dirfd, const char *folder, const HostImageWant *want, bool may_hash, ImageTick *tick, void *arg, GError **error)
{
    g_autofree char *name = file_name(&want->id, "raw"), *path = g_build_filename(folder, name, NULL);
    auto_fd int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0 && errno == ELOOP)
        return fail(error, "'%s' is a link", path);
    if (fd < 0 && errno == ENOENT)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "'%s' is not there", path);
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_errno(error, "open '%s'", path);
    if (!is_as_we_left_it(&st, want, path, error))
        return false;
    if (stamp_fits(dirfd, want, &st))
        return true;
    return may_hash ? rehash(dirfd, name, fd, path, want, &st, tick, arg, error) : fail(error, "'%s' was touched", path);
}

bool host_image_check(const char *folder, const HostImageWant *want, ImageTick *tick, void *arg, GError **error)
{
    auto_fd int dirfd = -1;

    return open_folder(folder, &dirfd, error) && check(dirfd, folder, want, true, tick, arg, error);
}

bool host_image_stamp_fits(const char *folder, const HostImageWant *want)
{
    auto_fd int dirfd = -1;

    return open_folder(folder, &dirfd, NULL) && check(dirfd, folder, want, false, NULL, NULL, NULL);
}

/* --- writing --- */

/* Blocks that are zero inside of an extent stay holes. */
static bool write_piece(int fd, const uint8_t *data, size_t size, uint64_t offset, const char *path, GError **error)
{
    for (size_t at = 0; at < size;) {
        size_t run = at;

        while (run < size && !bytes_are_zero(data + run, MIN(size - run, (size_t)STORE_BLOCK_SIZE)))
            run = MIN(size, run + STORE_BLOCK_SIZE);
        if (run > at && !file_pwrite_full(fd, data + at, run - at, offset + at, path, error))
            return false;
        at = MIN(size, run + STORE_BLOCK_SIZE);
    }
    return true;
}

static bool write_extent(StoreMap *map, int fd, const char *path, ContentHash *hash, uint8_t *buffer, uint64_t at, uint64_t end,
                         Progress *progress, GError **error)
{
    while (at < end) {
        size_t n = (size_t)MIN(end - at, PIECE);

        if (!interrupt_check(error) || !store_map_pread(map, buffer, n, at, error) || !write_piece(fd, buffer, n, at, path, error))
            return false;
        content_hash_data(hash, buffer, n);
        progress_add(progress, n);
        at += n;
    }
    return true;
}

static bool write_disk(StoreMap *map, int fd, const char *path, const HostImageWant *want, GError **error)
{
    g_autoptr(Progress) progress = progress_new("image to this host", store_map_data_size(map), true);
    g_autoptr(ContentHash) hash = content_hash_new();
    g_autofree uint8_t *buffer = g_malloc(PIECE);
    uint64_t size = store_map_size(map), end;
    Digest content;
    bool zero;

    if (ftruncate(fd, (off_t)size) < 0)
        return fail_errno(error, "write '%s'", path);
    for (uint64_t at = 0; at < size; at = end) {
        store_map_extent(map, at, &end, &zero);
        end = MIN(end, size);
        if (zero)
            content_hash_hole(hash, end - at);
        else if (!write_extent(map, fd, path, hash, buffer, at, end, progress, error))
            return false;
    }
    content_hash_final(hash, &content, &size);
    if (size != want->size || !digest_equal(&content, &want->content))
        return fail(error, "what the store holds for the image is not what its config says; run `kiln fsck`");
    progress_done(progress);
    return true;
}

/* Both the file and its stamp, from an open and locked part file. */
static bool publish(int dirfd, int fd, const char *part, const char *name, const HostImageWant *want, GError **error)
{
    struct stat st;

    if (fchmod(fd, 0444) < 0 || fsync(fd) < 0)
        return fail_errno(error, "write '%s'", name);
    if (!file_publish(dirfd, part, dirfd, name, FILE_SYNC_YES, error))
        return false;
    return (fstat(fd, &st) == 0 || fail_errno(error, "look at '%s'", name)) && write_stamp(dirfd, &want->id, &st, &want->content, error);
}

static bool write_anew(int dirfd, const char *folder, int fd, const char *part, Store *store, const StoreImage *image, const HostImageWant *want,
                       GError **error)
{
    g_autofree char *name = file_name(&want->id, "raw"), *path = g_build_filename(folder, name, NULL);
    g_autoptr(StoreMap) map = NULL;

    if (ftruncate(fd, 0) == 0 && store_map_open(store, &image->map, &map, error) && write_disk(map, fd, path, want, error) &&
        publish(dirfd, fd, part, name, want, error))
        return true;
    (void)unlinkat(dirfd, part, 0); /* what is half-written is of no use */
    return false;
}

/* The part file is the lock. Whoever held it may have renamed or removed it in the meantime: then ours is a file without a name. */
static bool open_part(int dirfd, const char *part, int *ret_fd, GError **error)
{
    for (;;) {
        auto_fd int fd = openat(dirfd, part, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        struct stat ours, named;

        if (fd < 0)
            return fail_errno(error, "write '%s' in the hosts' image folder", part);
        if (!file_lock(fd, part, "another kiln brings this image to the host", error))
            return false;
        if (fstat(fd, &ours) == 0 && fstatat(dirfd, part, &named, AT_SYMLINK_NOFOLLOW) == 0 && ours.st_ino == named.st_ino &&
            ours.st_dev == named.st_dev) {
            *ret_fd = g_steal_fd(&fd);
            return true;
        }
    }
}

bool host_image_prepare(const char *folder, Store *store, const StoreImage *image, GError **error)
{
    g_autofree char *part = file_name(&image->id, "part");
    auto_fd int dirfd = -1;
    auto_fd int fd = -1;
    g_autoptr(GError) why = NULL;
    HostImageWant want;

    if (!host_image_want(store, &image->id, &want, error) || !file_make_dirs(folder, 0755, error) || !open_folder(folder, &dirfd, error))
        return false;
    if (check(dirfd, folder, &want, true, NULL, NULL, NULL)) /* the lock is only for those who write */
        return true;
    if (!open_part(dirfd, part, &fd, error))
        return false;
    if (check(dirfd, folder, &want, true, NULL, NULL, &why)) {
        (void)unlinkat(dirfd, part, 0);
        return true;
    }
    if (!g_error_matches(why, KILN_ERROR, KILN_ERROR_NOT_FOUND))
        log_warning("%s; it is written again", why->message);
    return write_anew(dirfd, folder, fd, part, store, image, &want, error);
}

/* --- forgetting --- */

static bool is_kept(const Digest *id, const GArray *keep)
{
    for (guint i = 0; i < keep->len; i++)
        if (digest_equal(&g_array_index(keep, Digest, i), id))
            return true;
    return false;
}

/* "<64 hex>.raw", ".stamp" or ".part" of ours; other files in the folder are somebody else's. */
static bool parse_name(const char *name, Digest *ret, const char **ret_suffix)
{
    g_autofree char *hex = g_strndup(name, DIGEST_HEX_SIZE - 1);

    if (strlen(name) <= DIGEST_HEX_SIZE || name[DIGEST_HEX_SIZE - 1] != '.' || !digest_parse(hex, ret))
        return false;
    *ret_suffix = name + DIGEST_HEX_SIZE;
    return g_str_equal(*ret_suffix, "raw") || g_str_equal(*ret_suffix, "stamp") || g_str_equal(*ret_suffix, "part");
}

/* A part file that somebody holds is being written. */
static bool is_held(int dirfd, const char *name)
{
    auto_fd int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;
}

bool host_image_forget(const char *folder, const GArray *keep, GHashTable *used, GError **error)
{
    auto_fd int dirfd = -1;
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name, *suffix;
    Digest id;

    if (!dir)
        return true; /* nothing was ever brought here */
    if (!open_folder(folder, &dirfd, error))
        return false;
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = NULL;

        if (!parse_name(name, &id, &suffix) || is_kept(&id, keep))
            continue;
        path = host_image_path(folder, &id);
        if (g_hash_table_contains(used, path) || (g_str_equal(suffix, "part") && is_held(dirfd, name)))
            continue;
        if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
            return fail_errno(error, "remove '%s' from '%s'", name, folder);
    }
    return true;
}
