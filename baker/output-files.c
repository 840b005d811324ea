/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file counts as untouched while device, inode, size, mtime and ctime are those that it was left with: no program changes bytes and
 * keeps all five. What is made anew lies in a folder of its own beside the target, so that the rename stays within one file system.
 */
#include "baker/output-files.h"

#include "baker/image-root.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/scope.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define COMPARE_PIECE (1u << 20)
#define SETTLED_MS 50

/* --- what is remembered of a file --- */

static char *stat_text(const struct stat *st)
{
    return g_strdup_printf("%llu %llu %lld %lld.%09ld %lld.%09ld", (unsigned long long)st->st_dev, (unsigned long long)st->st_ino,
                           (long long)st->st_size, (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (long long)st->st_ctim.tv_sec,
                           st->st_ctim.tv_nsec);
}

static char *memo_key(const char *kind, const char *path)
{
    g_autofree char *absolute = g_canonicalize_filename(path, NULL);

    return g_strconcat(kind, absolute, NULL);
}

/* The remembered text of @kind for @path, while the file is as it was then; else NULL. */
static bool recall(Store *store, const char *kind, const char *path, char **ret, GError **error)
{
    g_autofree char *key = memo_key(kind, path), *value = NULL, *now = NULL;
    g_autoptr(json_t) memo = NULL;
    struct stat st;

    *ret = NULL;
    if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return true;
    if (!store_memo_get(store, key, &value, error))
        return false;
    if (!value || !json_parse(value, strlen(value), 1u << 20, "memo", &memo, NULL))
        return true;
    now = stat_text(&st);
    if (g_strcmp0(json_string_value(json_object_get(memo, "stat")), now) == 0)
        *ret = g_strdup(json_string_value(json_object_get(memo, "what")));
    return true;
}

static bool remember(Store *store, const char *kind, const char *path, const struct stat *st, const char *what, GError **error)
{
    g_autofree char *key = memo_key(kind, path), *now = stat_text(st), *text = NULL;
    g_autoptr(json_t) memo = json_pack("{s:s, s:s}", "what", what, "stat", now);

    text = json_canonical(memo);
    return store_memo_put(store, key, text, NULL, NULL, error);
}

/* --- making one --- */

static bool same_bytes(int a, int b, bool *ret, const char *what, GError **error)
{
    g_autofree uint8_t *left = g_malloc(COMPARE_PIECE), *right = g_malloc(COMPARE_PIECE);
    size_t n, m;

    *ret = false;
    do {
        if (!file_read_upto(a, left, COMPARE_PIECE, &n, what, error) || !file_read_upto(b, right, COMPARE_PIECE, &m, what, error))
            return false;
        if (n != m || memcmp(left, right, n) != 0)
            return true;
    } while (n > 0);
    *ret = true;
    return true;
}

/* A target that cannot be read is replaced. */
static bool is_same(const char *made, const char *path, bool *ret, GError **error)
{
    auto_fd int a = open(made, O_RDONLY | O_CLOEXEC);
    auto_fd int b = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st, there;

    *ret = false;
    if (a < 0 || fstat(a, &st) < 0)
        return fail_errno(error, "read '%s'", made);
    if (b < 0 || fstat(b, &there) < 0 || !S_ISREG(there.st_mode) || there.st_size != st.st_size)
        return true;
    return same_bytes(a, b, ret, path, error);
}

static bool move_there(const char *made, const char *path, GError **error)
{
    auto_fd int fd = open(made, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fchmod(fd, 0644) < 0 || fdatasync(fd) < 0)
        return fail_errno(error, "write '%s'", path);
    return file_publish(AT_FDCWD, made, AT_FDCWD, path, FILE_SYNC_YES, error);
}

static bool make_beside(const char *made, const char *path, OutputMakeFn *make, void *arg, bool *ret_written, GError **error)
{
    bool same;

    if (!make(made, arg, error) || !is_same(made, path, &same, error))
        return false;
    *ret_written = !same;
    return same || move_there(made, path, error);
}

static bool make_anew(const char *path, OutputMakeFn *make, void *arg, bool *ret_written, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(path), *name = g_path_get_basename(path);
    g_autofree char *beside = g_build_filename(folder, ".kiln-XXXXXX", NULL), *made = NULL;
    bool ok;

    if (!file_make_dirs(folder, 0777, error))
        return false;
    if (!mkdtemp(beside))
        return fail_errno(error, "make a folder in '%s'", folder);
    made = g_build_filename(beside, name, NULL);
    ok = make_beside(made, path, make, arg, ret_written, error);
    (void)file_remove_tree(AT_FDCWD, beside, NULL); /* an empty folder, or what failed */
    return ok;
}

bool output_make(Store *store, const char *path, const char *what, OutputMakeFn *make, void *arg, bool *ret_written, GError **error)
{
    g_autofree char *known = NULL;
    bool written = false;
    struct stat st;

    if (ret_written)
        *ret_written = false;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return fail(error, "'%s' is a folder and is left as it is", path);
    if (!recall(store, "output:", path, &known, error))
        return false;
    if (g_strcmp0(known, what) == 0)
        return true;
    if (!make_anew(path, make, arg, &written, error))
        return fail_prefix(error, "write '%s'", path);
    if (ret_written)
        *ret_written = written;
    if (lstat(path, &st) < 0)
        return fail_errno(error, "read '%s'", path);
    return remember(store, "output:", path, &st, what, error);
}

/* A file that was written a moment ago may be written again within the clock's same tick, and would then look as it does now. */
static bool is_settled(const struct stat *st)
{
    struct timespec now;
    int64_t age;

    if (!S_ISREG(st->st_mode) || clock_gettime(CLOCK_REALTIME, &now) < 0)
        return false;
    age = (int64_t)(now.tv_sec - st->st_ctim.tv_sec) * 1000 + (now.tv_nsec - st->st_ctim.tv_nsec) / 1000000;
    return age > SETTLED_MS || age < 0;
}

bool output_checksum(Store *store, const char *path, const char *type, char **ret_hex, GError **error)
{
    g_autofree char *kind = g_strdup_printf("output-%s:", type), *hex = NULL;
    auto_fd int fd = -1;
    struct stat st;

    if (!recall(store, kind, path, ret_hex, error))
        return false;
    if (*ret_hex)
        return true;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_errno(error, "read '%s'", path);
    if (!checksum_of_fd(fd, type, &hex, error))
        return fail_prefix(error, "'%s'", path);
    if (is_settled(&st) && !remember(store, kind, path, &st, hex, error))
        return false;
    *ret_hex = g_steal_pointer(&hex);
    return true;
}

/* --- images --- */

static const char *const form_names[] = {"raw", "qcow2", "gce", "oci-archive", "docker-archive", "tar"};

bool output_form_parse(const char *word, OutputForm *ret)
{
    for (size_t i = 0; i < G_N_ELEMENTS(form_names); i++)
        if (strcmp(word, form_names[i]) == 0) {
            *ret = (OutputForm)i;
            return true;
        }
    return false;
}

typedef struct Making {
    Store *store;
    const OutputFile *file;
} Making;

static bool make_disk(const Making *making, DiskForm form, const char *path, GError **error)
{
    g_autoptr(StoreMap) map = NULL;

    if (digest_is_none(&making->file->image->map))
        return fail(error, "'%s' is a container image and no disk", making->file->image->name);
    return store_map_open(making->store, &making->file->image->map, &map, error) && disk_export(map, form, path, error);
}

static bool make_root(const Making *making, const char *path, GError **error)
{
    g_autoptr(ImageRoot) root = NULL;

    return image_root_of(making->store, making->file->image, &root, error) && tree_export_tar(root->tree, root->files, path, error);
}

static bool make_image(const char *path, void *arg, GError **error)
{
    const Making *making = arg;
    const OutputFile *file = making->file;

    switch (file->form) {
    case OUTPUT_RAW:
        return make_disk(making, DISK_RAW, path, error);
    case OUTPUT_QCOW2:
        return make_disk(making, DISK_QCOW2, path, error);
    case OUTPUT_GCE:
        return make_disk(making, DISK_GCE, path, error);
    case OUTPUT_OCI_ARCHIVE:
        return oci_export(making->store, file->image, OCI_ARCHIVE, path, file->image->name, error);
    case OUTPUT_DOCKER_ARCHIVE:
        return docker_export(making->store, file->image, file->tags, path, error);
    default:
        return make_root(making, path, error);
    }
}

/* The image ID covers all bytes but names. */
static char *what_text(const OutputFile *file)
{
    g_autofree char *tags = file->tags ? g_strjoinv(" ", (char **)file->tags) : NULL;
    char id[DIGEST_OCI_SIZE];

    return g_strdup_printf("%s %s %s%s%s", form_names[file->form], digest_to_oci(&file->image->id, id), file->image->name, tags ? " " : "",
                           tags ? tags : "");
}

bool output_file_write(Store *store, const OutputFile *file, bool *ret_written, GError **error)
{
    g_autofree char *what = what_text(file);
    Making making = {store, file};
    bool written;

    if (!output_make(store, file->path, what, make_image, &making, &written, error))
        return false;
    if (written)
        log_info("    wrote %s", file->path);
    if (ret_written)
        *ret_written = written;
    return true;
}
