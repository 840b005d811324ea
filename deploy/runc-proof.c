/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proof through /proc: the mount that is the container's root, inode numbers of files in it, and the bytes of the program that runs.
 */
#include "deploy/runc-proof.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"

#include <fcntl.h>

/* The lower folder of the overlay that is the root of @pid. */
static char *lower_of(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/mountinfo", (int)pid);
    g_autoptr(GBytes) bytes = NULL;
    g_auto(GStrv) lines = NULL;

    if (!file_load(AT_FDCWD, path, 4 << 20, &bytes, NULL))
        return NULL;
    lines = g_strsplit(g_bytes_get_data(bytes, NULL), "\n", -1);
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) words = g_strsplit(*line, " ", -1);
        const char *at = strstr(*line, " - overlay "), *end;

        if (!at || g_strv_length(words) < 6 || strcmp(words[4], "/") != 0 || !(at = strstr(at, "lowerdir=")))
            continue;
        at += strlen("lowerdir=");
        end = at + strcspn(at, ", ");
        return g_strndup(at, (gsize)(end - at));
    }
    return NULL;
}

/* An overlay shows the inode number of the file below: a few files say whether it is this very folder, not one that had its name. */
static bool check_sample(const char *upper, const char *name, int rootfd, const RootfsStamp *stamp, GError **error)
{
    auto_fd int upperfd = open(upper, O_PATH | O_DIRECTORY | O_CLOEXEC);
    guint count = rootfs_stamp_count(stamp), step = MAX(1, count / 64);
    struct stat root, seen, above;

    if (upperfd < 0 || fstat(rootfd, &root) < 0)
        return fail_errno(error, "look at the root of '%s'", name);
    for (guint i = 0; i < count; i += step) {
        const RootfsEntry *entry = rootfs_stamp_nth(stamp, i);
        auto_fd int fd = entry->type == 'f' ? openat(rootfd, entry->path, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;

        if (fd < 0 || fstat(fd, &seen) < 0 || seen.st_dev != root.st_dev)
            continue; /* a volume hides it, or it was removed: drift tells that */
        if (seen.st_ino != entry->inode && fstatat(upperfd, entry->path, &above, AT_SYMLINK_NOFOLLOW) < 0)
            return fail(error, "'/%s' in '%s' is not the image's file", entry->path, name);
    }
    return true;
}

/* The program that runs, read through the kernel. One that the image does not have (it came from a volume) proves nothing. */
static bool check_program(pid_t pid, const char *name, const RootfsStamp *stamp, bool *ret_proven, GError **error)
{
    g_autofree char *link = g_strdup_printf("/proc/%d/exe", (int)pid);
    char path[4097] = "";
    const RootfsEntry *entry;
    Digest digest;

    *ret_proven = false;
    if (readlink(link, path, sizeof path - 1) < 1)
        return fail_errno(error, "read '%s'", link);
    entry = rootfs_stamp_find(stamp, path + 1);
    if (!entry || entry->type != 'f')
        return true;
    if (!digest_of_file(AT_FDCWD, link, &digest, NULL, error))
        return false;
    if (!digest_equal(&digest, &entry->sha256))
        return fail(error, "the program '%s' that runs in '%s' is not the image's", path, name);
    *ret_proven = true;
    return true;
}

bool runc_proof_of(const RuncProof *proof, unsigned *flags, GError **error)
{
    g_autofree char *lower = lower_of(proof->pid), *root = g_strdup_printf("/proc/%d/root", (int)proof->pid);
    auto_fd int rootfd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool proven;

    if (!lower || strcmp(lower, proof->rootfs) != 0)
        return fail(error, "'%s' does not run from '%s' but from '%s'", proof->name, proof->rootfs, lower ? lower : "something that is no overlay");
    if (rootfd < 0)
        return fail_errno(error, "open '%s'", root);
    if (!check_sample(proof->upper, proof->name, rootfd, proof->stamp, error))
        return false;
    *flags |= PROVEN_CHAIN;
    if (!check_program(proof->pid, proof->name, proof->stamp, &proven, error))
        return false;
    *flags |= proven ? PROVEN_GUEST : 0;
    return true;
}
