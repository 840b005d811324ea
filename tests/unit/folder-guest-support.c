/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest port over a folder, as plainly as can be: every operation is a system call or two on folder +
 * path.
 */
#include "folder-guest-support.h"

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static char *at(Guest *guest, const char *path)
{
    return g_strconcat(((FolderGuest *)guest)->root, path, NULL);
}

static void on_line(const char *line, bool is_stderr, void *arg)
{
    g_string_append_printf(((FolderGuest *)arg)->output, "%s\n", line);
}

/* GuestExec.output from lines: a program of a test ends its last line. */
static void give_line(const char *line, bool is_stderr, void *arg)
{
    const GuestExec *exec = arg;

    exec->output(line, strlen(line), is_stderr, exec->arg);
    exec->output("\n", 1, is_stderr, exec->arg);
}

static bool fg_exec(Guest *guest, const GuestExec *exec, int *ret_exit, GError **error)
{
    FolderGuest *fg = (FolderGuest *)guest;
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    const char *last = NULL;

    if (fg->chroot) {
        g_ptr_array_add(argv, (void *)"chroot");
        g_ptr_array_add(argv, fg->root);
    }
    for (const char *const *a = exec->argv; *a; a++) {
        g_ptr_array_add(argv, (void *)*a);
        g_string_append_printf(fg->commands, "%s ", *a);
        last = *a;
    }
    g_string_append_c(fg->commands, '\n');
    g_ptr_array_add(argv, NULL);
    g_ptr_array_add(fg->ran, g_strdup(last));
    g_ptr_array_set_size(fg->env, 0);
    for (const char *const *e = exec->env; e && *e; e++)
        g_ptr_array_add(fg->env, g_strdup(*e));
    if (fg->exec_code >= 0) {
        if (fg->exec_errors)
            folder_guest_write(fg, exec->argv[4], fg->exec_errors);
        *ret_exit = fg->exec_code;
        return true;
    }

    g_auto(GStrv) env =
        g_environ_setenv(NULL, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", TRUE);
    for (const char *const *e = exec->env; e && *e; e++) {
        g_auto(GStrv) pair = g_strsplit(*e, "=", 2);
        env = g_environ_setenv(env, pair[0], pair[1], TRUE);
    }
    const ProcessSpec spec = {.argv = (const char *const *)argv->pdata,
                              .env = (const char *const *)env,
                              .cwd = fg->root,
                              .on_line = exec->output ? give_line : on_line,
                              .arg = exec->output ? (void *)exec : fg};
    return process_run(&spec, ret_exit, error);
}

static bool fg_put(Guest *guest, int fd, const char *path, const GuestFile *meta, GError **error)
{
    g_autofree char *full = at(guest, path);
    struct stat st;

    if (lstat(full, &st) == 0 && S_ISDIR(st.st_mode))
        return fail(error, "'%s' is a folder", path);
    (void)unlink(full);
    auto_fd int out = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0)
        return fail_errno(error, "write '%s'", path);
    char buf[65536];
    ssize_t n;
    while ((n = read(fd, buf, sizeof buf)) > 0)
        if (write(out, buf, (size_t)n) != n)
            return fail_errno(error, "write '%s'", path);
    const struct timespec times[2] = {{.tv_sec = meta->mtime}, {.tv_sec = meta->mtime}};
    if (fchown(out, meta->uid, meta->gid) < 0 || fchmod(out, meta->mode) < 0 || futimens(out, times) < 0)
        return fail_errno(error, "set the mode of '%s'", path);
    return true;
}

static bool fg_get(Guest *guest, const char *path, int fd, uint64_t max, GError **error)
{
    g_autofree char *full = at(guest, path);
    auto_fd int in = open(full, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (in < 0 || fstat(in, &st) < 0)
        return fail_errno(error, "read '%s'", path);
    if (max && (uint64_t)st.st_size > max)
        return fail(error, "'%s' is too large", path);
    return file_copy_stream(in, fd, (uint64_t)st.st_size, path, error);
}

static bool fg_stat(Guest *guest, const char *path, char *ret_type, GuestFile *ret_meta, GError **error)
{
    g_autofree char *full = at(guest, path);
    struct stat st;

    *ret_type = 0;
    if (stat(full, &st) < 0)
        return true;
    *ret_type = S_ISREG(st.st_mode) ? 'f' : S_ISDIR(st.st_mode) ? 'd' : 'o';
    if (ret_meta)
        *ret_meta =
            (GuestFile){.uid = st.st_uid, .gid = st.st_gid, .mode = st.st_mode & 07777, .mtime = st.st_mtime};
    return true;
}

static bool fg_mkdir(Guest *guest, const char *path, const GuestFile *meta, GError **error)
{
    g_autofree char *full = at(guest, path);

    if (!file_make_dirs(full, 0755, error))
        return false;
    return !meta || (chmod(full, meta->mode) == 0 && chown(full, meta->uid, meta->gid) == 0)
               ? true
               : fail_errno(error, "make '%s'", path);
}

static bool fg_symlink(Guest *guest, const char *target, const char *path, GError **error)
{
    g_autofree char *full = at(guest, path);

    (void)unlink(full);
    return symlink(target, full) == 0 ? true : fail_errno(error, "link '%s'", path);
}

static bool fg_remove(Guest *guest, const char *path, GError **error)
{
    g_autofree char *full = at(guest, path);
    return file_remove_tree(AT_FDCWD, full, error);
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool fg_list(Guest *guest, const char *path, char ***ret, GError **error)
{
    g_autofree char *full = at(guest, path);
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    auto_dir DIR *dir = opendir(full);
    struct dirent *entry;

    if (!dir)
        return fail_errno(error, "list '%s'", path);
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            g_ptr_array_add(names, g_strdup(entry->d_name));
    g_ptr_array_sort(names, compare_names);
    g_ptr_array_add(names, NULL);
    *ret = (char **)g_ptr_array_free(g_steal_pointer(&names), FALSE);
    return true;
}

static const GuestOps folder_ops = {
    .name = "folder",
    .exec = fg_exec,
    .put = fg_put,
    .get = fg_get,
    .stat = fg_stat,
    .mkdir = fg_mkdir,
    .symlink = fg_symlink,
    .remove = fg_remove,
    .list = fg_list,
};

FolderGuest *folder_guest_new(bool chroot)
{
    FolderGuest *fg = g_new0(FolderGuest, 1);

    fg->guest.ops = &folder_ops;
    fg->root = g_dir_make_tmp("kiln-test-guest-XXXXXX", NULL);
    g_assert_nonnull(fg->root);
    fg->chroot = chroot;
    fg->exec_code = -1;
    fg->output = g_string_new(NULL);
    fg->ran = g_ptr_array_new_with_free_func(g_free);
    fg->commands = g_string_new(NULL);
    fg->env = g_ptr_array_new_with_free_func(g_free);
    return fg;
}

void folder_guest_free(FolderGuest *fg)
{
    if (!fg)
        return;
    (void)file_remove_tree(AT_FDCWD, fg->root, NULL); /* a leftover in the temporary folder */
    g_free(fg->root);
    g_string_free(fg->output, TRUE);
    g_ptr_array_unref(fg->ran);
    g_string_free(fg->commands, TRUE);
    g_ptr_array_unref(fg->env);
    g_free(fg);
}

ProvisionerHost folder_guest_host(FolderGuest *fg, const char *folder)
{
    static const char *const env[] = {"SOURCE_DATE_EPOCH=1700000000", "LC_ALL=C.UTF-8", NULL};
    return (ProvisionerHost){.template_dir = folder,
                             .cwd = folder,
                             .build_name = "web",
                             .builder_type = "bootstrap",
                             .env = env,
                             .epoch = 1700000000,
                             .network = true,
                             .say = on_line,
                             .arg = fg};
}

void folder_guest_write(FolderGuest *fg, const char *path, const char *text)
{
    g_autofree char *full = g_build_filename(fg->root, path, NULL), *parent = g_path_get_dirname(full);

    g_assert_cmpint(g_mkdir_with_parents(parent, 0755), ==, 0);
    g_assert_true(g_file_set_contents(full, text, -1, NULL));
}

char *folder_guest_read(FolderGuest *fg, const char *path)
{
    g_autofree char *full = g_build_filename(fg->root, path, NULL);
    char *text = NULL;

    return g_file_get_contents(full, &text, NULL, NULL) ? text : NULL;
}

bool folder_guest_has(FolderGuest *fg, const char *path)
{
    g_autofree char *full = g_build_filename(fg->root, path, NULL);
    struct stat st;

    return lstat(full, &st) == 0;
}
