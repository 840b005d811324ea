/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root: supermin's work, on a shorter list of packages than libguestfs's own.
 *
 * libguestfs lists what any of its hundreds of calls might run. A bake mounts, unmounts, inspects and trims plain file systems; left out is
 * what only volume managers, encryption, arrays, other file systems, other systems' boot loaders and forensics want.
 */
#include "baker/appliance-parts.h"

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"

#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BUILD_LIMIT 600.0 /* seconds */
#define LIST_MAX ((size_t)1 << 20)

static const char *const left_out[] = {
    "binutils",  "bsdextrautils", "btrfs-progs", "bzip2",       "cryptsetup-bin", "curl",          "debootstrap", "exfatprogs",  "extlinux",
    "f2fs-tools", "gawk",         "grub2-common", "isc-dhcp-client", "kpartx",      "ldmtool",     "less",        "lsscsi",
    "lvm2",      "lzop",          "mdadm",       "mtools",      "ntfs-3g",        "openssh-client", "pciutils",   "procps",      "psmisc",
    "qemu-utils", "scrub",        "sleuthkit",   "squashfs-tools", "syslinux",    "systemd-sysv",  "udev",        "uuid-runtime", "zerofree",
    NULL,
};

bool appliance_supermin_dir(char **ret, GError **error)
{
    glob_t found = {0};
    bool ok = glob("/usr/lib*/*/guestfs/supermin.d", 0, NULL, &found) == 0 ||
              glob("/usr/lib*/guestfs/supermin.d", GLOB_APPEND, NULL, &found) == 0;

    if (ok)
        *ret = g_strdup(found.gl_pathv[0]);
    globfree(&found);
    return ok || fail(error, "libguestfs's supermin.d, which the appliance is made from, is not on this machine; install libguestfs0");
}

bool appliance_packages(const char *supermin_dir, char ***ret, GError **error)
{
    g_autofree char *path = g_build_filename(supermin_dir, "packages", NULL);
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GBytes) text = NULL;
    g_auto(GStrv) names = NULL;

    if (!file_load(AT_FDCWD, path, LIST_MAX, &text, error))
        return false;
    names = g_strsplit_set(g_bytes_get_data(text, NULL), " \n", -1);
    for (char **name = names; *name; name++)
        if (**name && !g_strv_contains(left_out, *name))
            g_ptr_array_add(list, g_strdup(*name));
    g_ptr_array_add(list, NULL);
    *ret = (char **)g_ptr_array_free(g_steal_pointer(&list), FALSE);
    return true;
}

/* libguestfs's folder again, with our list in place of its own. */
static bool copy_folder(const char *from, char **packages, const char *to, GError **error)
{
    g_autofree char *list = g_strjoinv("\n", packages), *text = g_strconcat(list, "\n", NULL), *path = g_build_filename(to, "packages", NULL);
    g_autoptr(GDir) dir = g_dir_open(from, 0, NULL);

    if (!file_make_dirs(to, 0755, error))
        return false;
    for (const char *name = dir ? g_dir_read_name(dir) : NULL; name; name = g_dir_read_name(dir)) {
        g_autofree char *old = g_build_filename(from, name, NULL), *new = g_build_filename(to, name, NULL);

        if (strcmp(name, "packages") != 0 && symlink(old, new) < 0)
            return fail_errno(error, "make '%s'", new);
    }
    return file_replace(AT_FDCWD, path, text, strlen(text), 0644, FILE_SYNC_NO, error);
}

static void keep_last_line(const char *line, bool is_stderr, void *arg)
{
    char **last = arg;

    (void)is_stderr;
    g_free(*last);
    *last = g_strdup(line);
}

/* Its words are about itself, but its last line mostly names a file that this user may not read. */
static bool run_supermin(const char *recipe, const char *out, const char *kernel, const char *modules, GError **error)
{
    g_autofree char *last = NULL, *kernel_env = g_strconcat("SUPERMIN_KERNEL=", kernel, NULL), *modules_env = g_strconcat("SUPERMIN_MODULES=", modules, NULL);
    const char *argv[] = {"env", kernel_env, modules_env, "supermin", "--build", "-f", "ext2", "--host-cpu", "x86_64", recipe, "-o", out, NULL};
    const ProcessSpec spec = {.argv = argv, .timeout = BUILD_LIMIT, .on_line = keep_last_line, .arg = &last};
    int code = 0;

    if (!process_have("supermin"))
        return fail(error, "the appliance is made by supermin, which this machine lacks: install supermin");
    if (!process_run(&spec, &code, error))
        return false;
    return code == 0 || fail(error, "supermin cannot make the appliance's root: %s", last ? last : "it does not say why");
}

bool appliance_root(const char *supermin_dir, char **packages, const char *kernel, const char *modules, const char *folder, GError **error)
{
    g_autofree char *recipe = g_build_filename(folder, "supermin.d", NULL), *made = g_build_filename(folder, "made", NULL);
    g_autofree char *from = g_build_filename(made, "root", NULL), *to = g_build_filename(folder, "root", NULL);

    if (!copy_folder(supermin_dir, packages, recipe, error) || !run_supermin(recipe, made, kernel, modules, error))
        return false;
    if (rename(from, to) < 0)
        return fail_errno(error, "move '%s'", from);
    return file_remove_tree(AT_FDCWD, made, error) && file_remove_tree(AT_FDCWD, recipe, error);
}
