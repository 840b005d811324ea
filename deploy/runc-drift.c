/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an overlay's upper folder: a character device 0:0 hides what the image has, an opaque folder hides all below it, anything else was written.
 *
 * It is read while the container runs, so names may go between two looks. What it holds is the container's: links are never followed, and
 * number and depth are bounded.
 */
#include "deploy/runc-drift.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define DOCUMENT_MAX ((size_t)4 << 20)
#define CHANGES_MAX 200000u
#define DEPTH_MAX 512u

typedef struct Walk {
    GPtrArray *list;
    const RootfsStamp *stamp;
    GHashTable *mounted; /* paths at which the runtime mounted something */
} Walk;

static bool add_change(Walk *walk, const char *path, const char *what, GError **error)
{
    DriftEntry *entry;

    if (walk->list->len >= CHANGES_MAX)
        return fail(error, "more than %u files were changed", CHANGES_MAX);
    entry = g_new0(DriftEntry, 1);
    entry->path = g_strconcat("/", path, NULL);
    entry->what = g_strdup(what);
    g_ptr_array_add(walk->list, entry);
    return true;
}

static bool same_attributes(const RootfsEntry *entry, const struct stat *st)
{
    return entry->mode == (st->st_mode & 07777) && entry->uid == st->st_uid && entry->gid == st->st_gid;
}

/* A folder that hides what is below it in the image: all of that which is not there again is gone. */
static bool add_hidden(Walk *walk, const char *path, int fd, GError **error)
{
    g_autofree char *prefix = g_strconcat(path, "/", NULL);
    struct stat st;

    for (guint i = 0; i < rootfs_stamp_count(walk->stamp); i++) {
        const RootfsEntry *entry = rootfs_stamp_nth(walk->stamp, i);

        if (g_str_has_prefix(entry->path, prefix) && fstatat(fd, entry->path + strlen(prefix), &st, AT_SYMLINK_NOFOLLOW) < 0 &&
            !add_change(walk, entry->path, "removed", error))
            return false;
    }
    return true;
}

static bool walk_folder(Walk *walk, int fd, const char *path, unsigned depth, GError **error);

static bool walk_subfolder(Walk *walk, int parent, const char *name, const char *path, const struct stat *st, unsigned depth, GError **error)
{
    const RootfsEntry *entry = rootfs_stamp_find(walk->stamp, path);
    auto_fd int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    char opaque[2] = "";

    if (fd < 0)
        return errno == ENOENT || add_change(walk, path, "unreadable", error);
    if (!entry || entry->type != 'd') {
        if (!g_hash_table_contains(walk->mounted, path) && !add_change(walk, path, entry ? "changed" : "added", error))
            return false;
    } else if (!same_attributes(entry, st) && !add_change(walk, path, "changed", error)) {
        return false;
    }
    if (entry && fgetxattr(fd, "trusted.overlay.opaque", opaque, 1) == 1 && *opaque == 'y' && !add_hidden(walk, path, fd, error))
        return false;
    return walk_folder(walk, fd, path, depth + 1, error);
}

static bool walk_entry(Walk *walk, int parent, const char *name, const char *path, unsigned depth, GError **error)
{
    const RootfsEntry *entry = rootfs_stamp_find(walk->stamp, path);
    struct stat st;

    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT || add_change(walk, path, "unreadable", error);
    if (S_ISDIR(st.st_mode))
        return walk_subfolder(walk, parent, name, path, &st, depth, error);
    if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0))
        return !entry || add_change(walk, path, "removed", error);
    if (!entry && g_hash_table_contains(walk->mounted, path))
        return true; /* an empty file that the runtime made to mount something on it */
    return add_change(walk, path, entry ? "changed" : "added", error);
}

static bool walk_folder(Walk *walk, int fd, const char *path, unsigned depth, GError **error)
{
    auto_dir DIR *dir = fdopendir(dup(fd));
    struct dirent *entry;

    if (!dir || depth > DEPTH_MAX)
        return add_change(walk, path, "unreadable", error);
    while ((entry = readdir(dir))) {
        g_autofree char *below = *path ? g_strdup_printf("%s/%s", path, entry->d_name) : g_strdup(entry->d_name);

        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && !walk_entry(walk, fd, entry->d_name, below, depth, error))
            return false;
    }
    return true;
}

static int compare_changes(const void *a, const void *b)
{
    return strcmp((*(DriftEntry *const *)a)->path, (*(DriftEntry *const *)b)->path);
}

/* Where the runtime mounts things, with the folders above. */
static bool load_mounted(const char *path, GHashTable *into, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) config = NULL;
    const json_t *mount;
    size_t i;

    if (!file_load(AT_FDCWD, path, DOCUMENT_MAX, &bytes, error) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), DOCUMENT_MAX, path, &config, error))
        return false;
    json_array_foreach (json_object_get(config, "mounts"), i, mount) {
        const char *destination = json_string_value(json_object_get(mount, "destination"));
        g_autofree char *at = destination && *destination == '/' ? g_strdup(destination + 1) : NULL;

        for (char *slash = at; at && *at; *(slash ? slash : at) = '\0') {
            g_hash_table_add(into, g_strdup(at));
            slash = strrchr(at, '/');
        }
    }
    return true;
}

bool runc_drift_list(int upperfd, const RootfsStamp *stamp, const char *bundle, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)drift_entry_free);
    g_autoptr(GHashTable) mounted = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    Walk walk = {list, stamp, mounted};

    if (!load_mounted(bundle, mounted, error) || !walk_folder(&walk, upperfd, "", 0, error))
        return false;
    g_ptr_array_sort(list, compare_changes);
    *ret = g_steal_pointer(&list);
    return true;
}
