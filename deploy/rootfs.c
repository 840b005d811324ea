/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes an image's tree into a folder and tells later whether it is still that tree.
 *
 * The tree was checked (parents exist and are folders) and the folder is fresh and ours alone, so no path leads through a link while
 * it is written. Folders get their owners, modes and times last: what is put into them would change those.
 */
#include "deploy/rootfs.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "base/units.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define PIECE ((size_t)512 * 1024)
#define CONFIG_MAX ((size_t)8 << 20)
#define STAMP_MAX ((size_t)1 << 30)
#define XATTRS_MAX ((size_t)65536)
#define STAMP_HEAD "kiln-rootfs 1 "
#define STAMP_END "end "

/* --- the tree ----------------------------------------------------------------------------- */

static OciParent *as_parent(const StoreImage *image)
{
    OciParent *parent = g_new0(OciParent, 1);

    parent->layers = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; image->layers && i < image->layers->len; i++)
        g_ptr_array_add(parent->layers, g_memdup2(g_ptr_array_index(image->layers, i), sizeof(StoreLayerRef)));
    return parent;
}

/* What a layer unpacks to: written in kiln's own ones, to be found out by unpacking where it was kept as it came. */
static bool diff_id(Store *store, const StoreLayerRef *ref, Digest *ret, GError **error)
{
    auto_fd int fd = -1;
    LayerResult info;

    if (!digest_is_none(&ref->recipe)) {
        if (!layer_recipe_info(store, &ref->recipe, &info, error))
            return false;
        *ret = info.diff_id;
        return true;
    }
    if (!store_open_unnamed(store, &fd, error) || !store_blob_copy(store, &ref->blob, fd, error))
        return false;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return fail_errno(error, "read a layer's temporary file");
    return tree_tar_digest(fd, ret, error);
}

/* The image ID is the digest of its config, which lists what the layers unpack to: without this, any layers could come with an ID. */
static bool check_layers(Store *store, const StoreImage *image, const json_t *config, GError **error)
{
    const json_t *diff_ids = json_object_get(json_object_get(config, "rootfs"), "diff_ids");
    guint count = image->layers ? image->layers->len : 0;

    if (json_array_size(diff_ids) != count)
        return fail(error, "the image's config lists %zu layers and the store knows %u", json_array_size(diff_ids), count);
    for (guint i = 0; i < count; i++) {
        const StoreLayerRef *ref = g_ptr_array_index(image->layers, i);
        const char *text = json_string_value(json_array_get(diff_ids, i));
        Digest said, made;

        if (!text || !digest_parse(text, &said))
            return fail(error, "the image's config has a malformed digest of layer %u", i + 1);
        if (!diff_id(store, ref, &made, error))
            return fail_prefix(error, "layer %u", i + 1);
        if (!digest_equal(&made, &said))
            return fail(error, "layer %u is not the one that the image's config names", i + 1);
    }
    return true;
}

static bool load_tree(Store *store, const StoreImage *image, Tree **ret, StoreMap **ret_files, GError **error)
{
    g_autoptr(OciParent) parent = as_parent(image);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    MapResult result;

    if (!store_writer_open(store, BLOCK_PUBLIC, &writer, error) || !oci_parent_tree(store, writer, parent, ret, &space, error) ||
        !store_writer_commit(writer, error))
        return false;
    map_writer_result(space, &result);
    return store_map_open(store, &result.digest, ret_files, error);
}

uint64_t rootfs_estimate(Store *store, const StoreImage *image)
{
    uint64_t sum = 0;

    for (guint i = 0; image->layers && i < image->layers->len; i++) {
        const StoreLayerRef *ref = g_ptr_array_index(image->layers, i);
        LayerResult info;
        uint64_t size = 0;

        if (!digest_is_none(&ref->recipe) && layer_recipe_info(store, &ref->recipe, &info, NULL))
            sum += info.tar_size;
        else if (store_blob_size(store, &ref->blob, &size, NULL))
            sum += 3 * size; /* what gzip usually makes of a root file system */
    }
    return sum;
}

/* --- writing ------------------------------------------------------------------------------ */

typedef struct Output {
    Tree *tree;
    StoreMap *files;
    int rootfd;
    uint8_t *buffer;
    Progress *progress;
} Output;

static bool put_content(const Output *out, const TreeEntry *entry, int fd, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    Digest made;

    for (uint64_t done = 0; done < entry->size;) {
        size_t n = (size_t)MIN(entry->size - done, PIECE);

        if (!interrupt_check(error) || !store_map_pread(out->files, out->buffer, n, entry->data_offset + done, error) ||
            !file_write_full(fd, out->buffer, n, entry->path, error))
            return false;
        digest_stream_update(stream, out->buffer, n);
        progress_add(out->progress, n);
        done += n;
    }
    digest_stream_final(stream, &made);
    if (!digest_equal(&made, &entry->sha256))
        return fail(error, "'%s' does not have the content that the image says", entry->path);
    return true;
}

/* Names that mean something to the overlay, not to the image. */
static bool xattr_allowed(const char *name)
{
    return !g_str_has_prefix(name, "trusted.overlay.") && !g_str_has_prefix(name, "user.overlay.");
}

static bool put_xattrs(const TreeEntry *entry, const char *proc_path, GError **error)
{
    for (guint i = 0; entry->xattrs && i < entry->xattrs->len; i++) {
        const TreeXattr *xattr = g_ptr_array_index(entry->xattrs, i);
        gsize size;
        const void *value = g_bytes_get_data(xattr->value, &size);

        if (!xattr_allowed(xattr->name))
            return fail(error, "'%s' has the extended attribute %s, which would change what a container sees", entry->path, xattr->name);
        if (lsetxattr(proc_path, xattr->name, value ? value : "", size, 0) < 0 && !(errno == ENOTSUP && g_str_has_prefix(xattr->name, "security.selinux")))
            return fail_errno(error, "set the extended attribute %s of '%s'", xattr->name, entry->path);
    }
    return true;
}

static char *path_of(const Output *out, const TreeEntry *entry)
{
    return g_strdup_printf("/proc/self/fd/%d/%s", out->rootfd, entry->path);
}

/* Owner before mode: chown clears the set-id bits. Links have no mode. */
static bool put_attributes(const Output *out, const TreeEntry *entry, GError **error)
{
    struct timespec times[2] = {{entry->mtime, 0}, {entry->mtime, 0}};
    g_autofree char *proc_path = path_of(out, entry);
    const char *path = *entry->path ? entry->path : ".";

    if (fchownat(out->rootfd, path, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return fail_errno(error, "give '%s' to %u:%u", entry->path, entry->uid, entry->gid);
    if (entry->type != 'l' && fchmodat(out->rootfd, path, entry->mode & 07777, 0) < 0)
        return fail_errno(error, "set the mode of '%s'", entry->path);
    if (!put_xattrs(entry, proc_path, error))
        return false;
    if (utimensat(out->rootfd, path, times, AT_SYMLINK_NOFOLLOW) < 0)
        return fail_errno(error, "set the time of '%s'", entry->path);
    return true;
}

static bool put_file(const Output *out, const TreeEntry *entry, GError **error)
{
    auto_fd int fd = openat(out->rootfd, entry->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return fail_errno(error, "create '%s'", entry->path);
    return put_content(out, entry, fd, error);
}

static bool put_node(const Output *out, const TreeEntry *entry, GError **error)
{
    mode_t type = entry->type == 'b' ? S_IFBLK : entry->type == 'c' ? S_IFCHR : S_IFIFO;

    if (entry->type == 'c' && entry->major == 0 && entry->minor == 0)
        return fail(error, "'%s' is a character device 0:0, which hides a file in an overlay", entry->path);
    if (mknodat(out->rootfd, entry->path, type | 0600, entry->type == 'p' ? 0 : makedev(entry->major, entry->minor)) < 0)
        return fail_errno(error, "make the device '%s'", entry->path);
    return true;
}

static bool put_entry(const Output *out, const TreeEntry *entry, GError **error)
{
    switch (entry->type) {
    case 'd':
        if (*entry->path && mkdirat(out->rootfd, entry->path, 0700) < 0)
            return fail_errno(error, "make folder '%s'", entry->path);
        return true; /* the rest comes last */
    case 'f':
        return put_file(out, entry, error) && put_attributes(out, entry, error);
    case 'l':
        if (symlinkat(entry->target, out->rootfd, entry->path) < 0)
            return fail_errno(error, "make the link '%s'", entry->path);
        return put_attributes(out, entry, error);
    case 'h':
        if (linkat(out->rootfd, entry->target, out->rootfd, entry->path, 0) < 0)
            return fail_errno(error, "link '%s' to '%s'", entry->path, entry->target);
        return true;
    case 'b':
    case 'c':
    case 'p':
        return put_node(out, entry, error) && put_attributes(out, entry, error);
    default:
        return true; /* a socket is made by who listens on it */
    }
}

static uint64_t content_size(Tree *tree)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < tree_count(tree); i++)
        if (tree_nth(tree, i)->type == 'f')
            sum += tree_nth(tree, i)->size;
    return sum;
}

static bool put_tree(const Output *out, GError **error)
{
    for (size_t i = 0; i < tree_count(out->tree); i++)
        if (!put_entry(out, tree_nth(out->tree, i), error))
            return false;
    for (size_t i = tree_count(out->tree); i > 0; i--)
        if (tree_nth(out->tree, i - 1)->type == 'd' && !put_attributes(out, tree_nth(out->tree, i - 1), error))
            return false;
    return true;
}

static bool check_room(const char *dir, uint64_t size, GError **error)
{
    g_autofree char *needed = units_format_size(size), *free_text = NULL;
    struct statvfs fs;
    uint64_t left;

    if (statvfs(dir, &fs) < 0)
        return fail_errno(error, "look at the file system of '%s'", dir);
    left = (uint64_t)fs.f_bavail * fs.f_frsize;
    free_text = units_format_size(left);
    return size <= left || fail_code(error, KILN_ERROR_NO_SPACE, "the image needs %s in '%s', and %s are free", needed, dir, free_text);
}

/* --- the stamp ---------------------------------------------------------------------------- */

struct RootfsStamp {
    GPtrArray *entries;
    GHashTable *by_path;
};

static void rootfs_entry_free(RootfsEntry *entry)
{
    if (!entry)
        return;
    g_free(entry->path);
    g_free(entry->target);
    g_free(entry);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RootfsEntry, rootfs_entry_free)

void rootfs_stamp_free(RootfsStamp *stamp)
{
    if (!stamp)
        return;
    g_hash_table_unref(stamp->by_path);
    g_ptr_array_unref(stamp->entries);
    g_free(stamp);
}

const RootfsEntry *rootfs_stamp_find(const RootfsStamp *stamp, const char *path)
{
    return g_hash_table_lookup(stamp->by_path, path);
}

guint rootfs_stamp_count(const RootfsStamp *stamp)
{
    return stamp->entries->len;
}

const RootfsEntry *rootfs_stamp_nth(const RootfsStamp *stamp, guint index)
{
    return g_ptr_array_index(stamp->entries, index);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Over all extended attributes of an entry, as the file system has them; digest_none for none. */
static bool xattrs_digest(int rootfd, const char *path, Digest *ret, GError **error)
{
    g_autofree char *proc_path = g_strdup_printf("/proc/self/fd/%d/%s", rootfd, path), *names = g_malloc0(XATTRS_MAX), *value = g_malloc(XATTRS_MAX);
    ssize_t size = llistxattr(proc_path, names, XATTRS_MAX - 1);
    g_autoptr(GPtrArray) sorted = g_ptr_array_new();
    g_autoptr(DigestStream) stream = digest_stream_new();

    *ret = digest_none;
    if (size < 0)
        return errno == ENOTSUP || fail_errno(error, "list the extended attributes of '/%s'", path);
    for (char *name = names; name < names + size; name += strlen(name) + 1)
        if (!g_str_has_prefix(name, "security.selinux")) /* a label is the host's */
            g_ptr_array_add(sorted, name);
    if (sorted->len == 0)
        return true;
    g_ptr_array_sort(sorted, compare_names);
    for (guint i = 0; i < sorted->len; i++) {
        const char *name = g_ptr_array_index(sorted, i);

        size = lgetxattr(proc_path, name, value, XATTRS_MAX);
        if (size < 0)
            return fail_errno(error, "read the extended attribute %s of '/%s'", name, path);
        digest_stream_update(stream, name, strlen(name) + 1);
        digest_stream_update(stream, &size, sizeof size);
        digest_stream_update(stream, value, (size_t)size);
    }
    digest_stream_final(stream, ret);
    return true;
}

/* TYPE MODE UID GID SIZE MAJOR:MINOR INODE MTIME.NS CTIME.NS XATTRS SHA256-OR-TARGET PATH, the last two percent-encoded. */
static void stamp_line(GString *text, const TreeEntry *entry, const TreeEntry *content, const struct stat *st, const Digest *xattrs)
{
    char xattrs_hex[DIGEST_HEX_SIZE];
    g_autofree char *path = g_uri_escape_string(entry->path, "/", FALSE), *target = NULL;
    char hex[DIGEST_HEX_SIZE] = "-";

    if (content->type == 'f')
        digest_to_hex(&content->sha256, hex);
    if (content->type == 'l')
        target = g_uri_escape_string(content->target, "/", FALSE);
    g_string_append_printf(text, "%c %o %u %u %" PRIu64 " %u:%u %" PRIu64 " %" PRId64 ".%ld %" PRId64 ".%ld %s %s /%s\n", content->type,
                           (unsigned)st->st_mode & 07777, (unsigned)st->st_uid, (unsigned)st->st_gid,
                           content->type == 'f' ? content->size : (uint64_t)0, major(st->st_rdev), minor(st->st_rdev), (uint64_t)st->st_ino,
                           (int64_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (int64_t)st->st_ctim.tv_sec, st->st_ctim.tv_nsec,
                           digest_is_none(xattrs) ? "-" : digest_to_hex(xattrs, xattrs_hex), target ? target : hex, path);
}

static bool make_stamp(const Output *out, const Digest *image, GString *text, GError **error)
{
    char oci[DIGEST_OCI_SIZE];
    unsigned count = 0;

    g_string_append_printf(text, STAMP_HEAD "%s\n", digest_to_oci(image, oci));
    for (size_t i = 0; i < tree_count(out->tree); i++) {
        const TreeEntry *entry = tree_nth(out->tree, i), *content = tree_content_entry(out->tree, entry);
        struct stat st;
        Digest xattrs;

        if (content->type == 's')
            continue;
        if (fstatat(out->rootfd, *entry->path ? entry->path : ".", &st, AT_SYMLINK_NOFOLLOW) < 0)
            return fail_errno(error, "look at '%s'", entry->path);
        if (!xattrs_digest(out->rootfd, entry->path, &xattrs, error))
            return false;
        stamp_line(text, entry, content, &st, &xattrs);
        count++;
    }
    g_string_append_printf(text, STAMP_END "%u\n", count); /* a stamp that ends early would watch less */
    return true;
}

static bool parse_time(const char *text, struct timespec *ret)
{
    int64_t seconds;
    long nanoseconds;

    if (sscanf(text, "%" SCNd64 ".%ld", &seconds, &nanoseconds) != 2 || nanoseconds < 0 || nanoseconds > 999999999)
        return false;
    *ret = (struct timespec){seconds, nanoseconds};
    return true;
}

static bool parse_line(const char *line, RootfsEntry **ret)
{
    g_autoptr(RootfsEntry) entry = g_new0(RootfsEntry, 1);
    g_auto(GStrv) words = g_strsplit(line, " ", 13);
    unsigned mode, uid, gid, major_number, minor_number;
    uint64_t inode;

    if (g_strv_length(words) != 12 || strlen(words[0]) != 1 || !strchr("fdlbcp", *words[0]) || *words[11] != '/')
        return false;
    if (sscanf(words[1], "%o", &mode) != 1 || sscanf(words[2], "%u", &uid) != 1 || sscanf(words[3], "%u", &gid) != 1 ||
        sscanf(words[4], "%" SCNu64, &entry->size) != 1 || sscanf(words[5], "%u:%u", &major_number, &minor_number) != 2 ||
        sscanf(words[6], "%" SCNu64, &inode) != 1 || !parse_time(words[7], &entry->mtime) || !parse_time(words[8], &entry->ctime))
        return false;
    entry->type = *words[0];
    entry->mode = mode & 07777;
    entry->uid = uid;
    entry->gid = gid;
    entry->device = makedev(major_number, minor_number);
    entry->inode = inode;
    if (strcmp(words[9], "-") != 0 && !digest_parse(words[9], &entry->xattrs))
        return false;
    if (entry->type == 'f' && !digest_parse(words[10], &entry->sha256))
        return false;
    if (entry->type == 'l' && !(entry->target = g_uri_unescape_string(words[10], NULL)))
        return false;
    entry->path = g_uri_unescape_string(words[11] + 1, NULL);
    if (!entry->path)
        return false;
    *ret = g_steal_pointer(&entry);
    return true;
}

static bool check_head(const char *text, const Digest *image)
{
    char oci[DIGEST_OCI_SIZE];
    g_autofree char *head = g_strdup_printf(STAMP_HEAD "%s\n", digest_to_oci(image, oci));

    return g_str_has_prefix(text, head);
}

bool rootfs_stamp_load(const char *dir, const Digest *image, RootfsStamp **ret, GError **error)
{
    g_autofree char *path = g_build_filename(dir, "stamp", NULL);
    g_autoptr(RootfsStamp) stamp = g_new0(RootfsStamp, 1);
    g_autoptr(GBytes) bytes = NULL;
    const char *text, *end;
    unsigned count;

    stamp->entries = g_ptr_array_new_with_free_func((GDestroyNotify)rootfs_entry_free);
    stamp->by_path = g_hash_table_new(g_str_hash, g_str_equal);
    if (!file_load(AT_FDCWD, path, STAMP_MAX, &bytes, error))
        return false;
    text = g_bytes_get_data(bytes, NULL);
    if (!check_head(text, image))
        return fail(error, "'%s' belongs to another image", path);
    for (text = strchr(text, '\n') + 1; (end = strchr(text, '\n')) && !g_str_has_prefix(text, STAMP_END); text = end + 1) {
        g_autofree char *line = g_strndup(text, (gsize)(end - text));
        RootfsEntry *entry;

        if (!parse_line(line, &entry))
            return fail(error, "'%s' is damaged", path);
        g_ptr_array_add(stamp->entries, entry);
        g_hash_table_insert(stamp->by_path, entry->path, entry);
    }
    if (sscanf(text, STAMP_END "%u", &count) != 1 || count != stamp->entries->len || !end || end[1] || count == 0)
        return fail(error, "'%s' is damaged", path);
    *ret = g_steal_pointer(&stamp);
    return true;
}

bool rootfs_write(Store *store, const StoreImage *image, const char *dir, GError **error)
{
    g_autofree char *rootfs = g_build_filename(dir, "rootfs", NULL), *config_path = g_build_filename(dir, "config.json", NULL),
                    *stamp_path = g_build_filename(dir, "stamp", NULL);
    g_autofree uint8_t *buffer = g_malloc(PIECE);
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GBytes) config = NULL;
    g_autoptr(json_t) json = NULL;
    g_autoptr(GString) stamp = g_string_new(NULL);
    g_autoptr(Progress) progress = NULL;
    auto_fd int rootfd = -1;
    Output out;

    if (!store_image_config(store, &image->id, CONFIG_MAX, &config, &json, error) || !check_layers(store, image, json, error) ||
        !load_tree(store, image, &tree, &files, error) || !check_room(dir, content_size(tree), error))
        return false;
    if (mkdir(rootfs, 0755) < 0 || (rootfd = open(rootfs, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return fail_errno(error, "make folder '%s'", rootfs);
    progress = progress_new("unpacking the image", content_size(tree), true);
    out = (Output){tree, files, rootfd, buffer, progress};
    if (!put_tree(&out, error) || !make_stamp(&out, &image->id, stamp, error) ||
        !file_replace(AT_FDCWD, config_path, g_bytes_get_data(config, NULL), g_bytes_get_size(config), 0444, FILE_SYNC_NO, error) ||
        !file_replace(AT_FDCWD, stamp_path, stamp->str, stamp->len, 0444, FILE_SYNC_NO, error))
        return false;
    if (syncfs(rootfd) < 0) /* before its name is: a power cut must not leave empty files under a good one */
        return fail_errno(error, "sync '%s'", rootfs);
    progress_done(progress);
    return true;
}

/* --- checking ----------------------------------------------------------------------------- */

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_type(const RootfsEntry *entry, mode_t mode)
{
    switch (entry->type) {
    case 'f':
        return S_ISREG(mode);
    case 'd':
        return S_ISDIR(mode);
    case 'l':
        return S_ISLNK(mode);
    case 'b':
        return S_ISBLK(mode);
    case 'c':
        return S_ISCHR(mode);
    default:
        return S_ISFIFO(mode);
    }
}

static bool untouched(const RootfsEntry *entry, const struct stat *st)
{
    return same_type(entry, st->st_mode) && entry->inode == st->st_ino && same_time(&entry->ctime, &st->st_ctim) &&
           same_time(&entry->mtime, &st->st_mtim) && (entry->type != 'f' || entry->size == (uint64_t)st->st_size);
}

static bool differs(const RootfsEntry *entry, const char *what, GError **error)
{
    return fail(error, "'/%s' is not as the image has it: %s", entry->path, what);
}

static bool check_content(int rootfd, const RootfsEntry *entry, GError **error)
{
    char target[4097] = "";
    uint64_t size;
    Digest digest;

    if (entry->type == 'l' && (readlinkat(rootfd, entry->path, target, sizeof target - 1) < 0 || strcmp(target, entry->target) != 0))
        return differs(entry, "the link leads elsewhere", error);
    if (entry->type != 'f')
        return true;
    if (!digest_of_file(rootfd, entry->path, &digest, &size, error))
        return false;
    return digest_equal(&digest, &entry->sha256) || differs(entry, "its content was changed", error);
}

/* A folder that was touched may hold what was not there. */
static bool check_names(int rootfd, const RootfsEntry *folder, const RootfsStamp *stamp, GError **error)
{
    int fd = openat(rootfd, *folder->path ? folder->path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    auto_dir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!dir)
        return fail_errno(error, "read folder '/%s'", folder->path);
    while ((entry = readdir(dir))) {
        g_autofree char *path = *folder->path ? g_strdup_printf("%s/%s", folder->path, entry->d_name) : g_strdup(entry->d_name);

        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && !rootfs_stamp_find(stamp, path))
            return fail(error, "'/%s' is not as the image has it: it was added", path);
    }
    return true;
}

static bool check_entry(int rootfd, const RootfsEntry *entry, const RootfsStamp *stamp, GError **error)
{
    struct stat st;
    Digest xattrs;

    if (fstatat(rootfd, *entry->path ? entry->path : ".", &st, AT_SYMLINK_NOFOLLOW) < 0)
        return differs(entry, "it is gone", error);
    if (untouched(entry, &st))
        return true;
    if (!same_type(entry, st.st_mode))
        return differs(entry, "it is of another type", error);
    if ((st.st_mode & 07777) != entry->mode || st.st_uid != entry->uid || st.st_gid != entry->gid)
        return differs(entry, "its owner or mode was changed", error);
    if (!xattrs_digest(rootfd, entry->path, &xattrs, error))
        return false;
    if (!digest_equal(&xattrs, &entry->xattrs))
        return differs(entry, "its extended attributes were changed", error);
    if ((entry->type == 'b' || entry->type == 'c') && st.st_rdev != entry->device)
        return differs(entry, "it is another device", error);
    if (entry->type == 'd')
        return check_names(rootfd, entry, stamp, error);
    if (!same_time(&entry->mtime, &st.st_mtim) && entry->type != 'f')
        return differs(entry, "its time was changed", error);
    return check_content(rootfd, entry, error);
}

bool rootfs_check(const char *dir, const RootfsStamp *stamp, GError **error)
{
    g_autofree char *path = g_build_filename(dir, "rootfs", NULL);
    auto_fd int rootfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (rootfd < 0)
        return fail_errno(error, "open folder '%s'", path);
    for (guint i = 0; i < stamp->entries->len; i++)
        if (!check_entry(rootfd, g_ptr_array_index(stamp->entries, i), stamp, error))
            return fail_prefix(error, "%s", path);
    return true;
}

bool rootfs_config(const char *dir, const Digest *image, json_t **ret, GError **error)
{
    g_autofree char *path = g_build_filename(dir, "config.json", NULL);
    g_autoptr(GBytes) bytes = NULL;
    Digest digest;

    if (!file_load(AT_FDCWD, path, CONFIG_MAX, &bytes, error))
        return false;
    digest_of(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &digest);
    if (!digest_equal(&digest, image))
        return fail(error, "'%s' is not the image's config: somebody changed it", path);
    return json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), CONFIG_MAX, path, ret, error);
}

int rootfs_open_inside(int rootfd, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};

    return (int)syscall(SYS_openat2, rootfd, path, &how, sizeof how);
}
