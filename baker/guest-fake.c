/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fake guest: a folder of the host stands for the guest's root, and programs run on the host.
 *
 * For tests of everything above the port: no VM, no root, no network, no time. It keeps the port's promises about files,
 * steps, lines, exit codes and time limits. It does not change owners (a test's user may not) and isolates nothing, so a
 * program finds the root it should work on in KILN_FAKE_ROOT and starts in that folder.
 */
#include "baker/guest-open.h"

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define COPY_CHUNK 65536

typedef struct GuestFake {
    Guest base;
    char *folder;
    bool in_step;
    char *step_name;
    double deadline; /* monotonic seconds; 0: none */
    GuestLineFn *on_line;
    void *arg;
} GuestFake;

static GuestFake *self(Guest *guest)
{
    return (GuestFake *)guest;
}

/* Where @path of the guest is on the host. ".." is refused: a test that needs it has gone wrong. */
static char *host_path(GuestFake *guest, const char *path, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);

    if (path[0] != '/') {
        (void)fail(error, "'%s' is not an absolute path in the guest", path);
        return NULL;
    }
    if (g_strv_contains((const char *const *)parts, "..")) {
        (void)fail(error, "'%s' leaves the fake guest", path);
        return NULL;
    }
    return g_build_filename(guest->folder, path, NULL);
}

static double now(void)
{
    return (double)g_get_monotonic_time() / G_USEC_PER_SEC;
}

static void kill_(Guest *base)
{
    if (!base)
        return;
    g_free(self(base)->folder);
    g_free(self(base)->step_name);
    g_free(base);
}

static bool begin(Guest *base, const GuestStep *step, GError **error)
{
    GuestFake *guest = self(base);

    g_assert(!guest->in_step);
    guest->in_step = true;
    g_free(guest->step_name);
    guest->step_name = g_strdup(step->name);
    guest->deadline = step->timeout > 0 ? now() + step->timeout : 0;
    guest->on_line = step->on_line;
    guest->arg = step->arg;
    return true;
}

static bool end(Guest *base, GError **error)
{
    g_assert(self(base)->in_step);
    self(base)->in_step = false;
    return true;
}

/* g_environ_setenv() for each of @added over the host's own PATH. */
static char **make_env(GuestFake *guest, const char *const *added)
{
    char **env = g_environ_setenv(NULL, "KILN_FAKE_ROOT", guest->folder, TRUE);

    env = g_environ_setenv(env, "PATH", g_getenv("PATH") ? g_getenv("PATH") : "/usr/bin:/bin", TRUE);
    env = g_environ_setenv(env, "HOME", "/root", TRUE);
    for (; added && *added; added++) {
        g_auto(GStrv) pair = g_strsplit(*added, "=", 2);

        if (pair[0] && pair[1])
            env = g_environ_setenv(env, pair[0], pair[1], TRUE);
    }
    return env;
}

/* GuestExec.output from lines: a program of a test ends its last line. */
static void give_line(const char *line, bool is_stderr, void *arg)
{
    const GuestExec *exec = arg;

    exec->output(line, strlen(line), is_stderr, exec->arg);
    exec->output("\n", 1, is_stderr, exec->arg);
}

static bool exec(Guest *base, const GuestExec *exec, int *ret_exit, GError **error)
{
    GuestFake *guest = self(base);
    g_autofree char *cwd = host_path(guest, exec->cwd ? exec->cwd : "/", error);
    g_auto(GStrv) env = make_env(guest, exec->env);
    ProcessSpec spec = {
        .argv = exec->argv,
        .env = (const char *const *)env,
        .cwd = cwd,
        .on_line = exec->output ? give_line : guest->on_line,
        .arg = exec->output ? (void *)exec : guest->arg,
    };

    g_assert(guest->in_step);
    if (!cwd)
        return false;
    if (guest->deadline > 0) {
        spec.timeout = guest->deadline - now();
        if (spec.timeout <= 0)
            return fail_code(error, KILN_ERROR_TIMEOUT, "%s passed its time limit and was stopped",
                             guest->step_name);
    }
    return process_run(&spec, ret_exit, error);
}

static bool set_meta(int fd, const char *path, const GuestFile *meta, GError **error)
{
    struct timespec times[2] = {{0}};

    if (!meta)
        return true;
    times[0].tv_sec = times[1].tv_sec = meta->mtime;
    if (fchmod(fd, meta->mode & 07777) < 0 || futimens(fd, times) < 0)
        return fail_errno(error, "set the mode of '%s' in the guest", path);
    return true;
}

static bool copy_to_end(int in, int out, uint64_t max, const char *path, GError **error)
{
    char buf[COPY_CHUNK];
    uint64_t total = 0;
    ssize_t n;

    while ((n = read(in, buf, sizeof buf)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(error, "read '%s' in the guest", path);
        total += (uint64_t)n;
        if (max && total > max)
            return fail(error, "cannot read '%s' in the guest: %s", path, g_strerror(EFBIG));
        if (!file_write_full(out, buf, (size_t)n, path, error))
            return false;
    }
    return true;
}

static bool put(Guest *base, int fd, const char *path, const GuestFile *meta, GError **error)
{
    g_autofree char *real = host_path(self(base), path, error);
    auto_fd int out = real ? open(real, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC, 0644) : -1;

    if (!real)
        return false;
    if (out < 0)
        return fail_errno(error, "write '%s' in the guest", path);
    return copy_to_end(fd, out, 0, path, error) && set_meta(out, path, meta, error);
}

static bool get(Guest *base, const char *path, int fd, uint64_t max, GError **error)
{
    g_autofree char *real = host_path(self(base), path, error);
    auto_fd int in = real ? open(real, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
    struct stat st;

    if (!real)
        return false;
    if (in < 0 || fstat(in, &st) < 0)
        return fail_errno(error, "read '%s' in the guest", path);
    if (!S_ISREG(st.st_mode))
        return fail(error, "cannot read '%s' in the guest: %s", path,
                    g_strerror(S_ISDIR(st.st_mode) ? EISDIR : EINVAL));
    return copy_to_end(in, fd, max, path, error);
}

static bool stat_(Guest *base, const char *path, char *ret_type, GuestFile *ret_meta, GError **error)
{
    g_autofree char *real = host_path(self(base), path, error);
    struct stat st = {0};

    if (!real)
        return false;
    *ret_type = 0;
    if (stat(real, &st) == 0 || lstat(real, &st) == 0)
        *ret_type = S_ISREG(st.st_mode) ? 'f' : S_ISDIR(st.st_mode) ? 'd' : S_ISLNK(st.st_mode) ? 'l' : 'o';
    else if (errno != ENOENT && errno != ENOTDIR)
        return fail_errno(error, "stat '%s' in the guest", path);
    if (ret_meta)
        *ret_meta = (GuestFile){st.st_uid, st.st_gid, st.st_mode & 07777, st.st_mtim.tv_sec};
    return true;
}

static bool mkdir_(Guest *base, const char *path, const GuestFile *meta, GError **error)
{
    g_autofree char *real = host_path(self(base), path, error);
    bool existed = real && g_file_test(real, G_FILE_TEST_IS_DIR);
    auto_fd int fd = -1;

    if (!real)
        return false;
    if (existed)
        return true;
    if (!file_make_dirs(real, 0755, error))
        return fail_prefix(error, "cannot make the folder '%s' in the guest", path);
    fd = open(real, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(error, "open the folder '%s' in the guest", path);
    return set_meta(fd, path, meta, error);
}

static bool symlink_(Guest *base, const char *target, const char *path, GError **error)
{
    g_autofree char *real = host_path(self(base), path, error);

    if (!real)
        return false;
    if ((unlink(real) < 0 && errno != ENOENT) || symlink(target, real) < 0)
        return fail_errno(error, "make the link '%s' in the guest", path);
    return true;
}

static bool remove_(Guest *base, const char *path, GError **error)
{
    g_autofree char *real = host_path(self(base), path, error);

    if (!real)
        return false;
    if (strspn(path, "/") == strlen(path))
        return fail(error, "cannot remove '/' in the guest: %s", g_strerror(EBUSY));
    return file_remove_tree(AT_FDCWD, real, error);
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool list(Guest *base, const char *path, char ***ret, GError **error)
{
    g_autofree char *real = host_path(self(base), path, error);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    auto_dir DIR *dir = real ? opendir(real) : NULL;

    if (!real)
        return false;
    if (!dir)
        return fail_errno(error, "read the folder '%s' in the guest", path);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            g_ptr_array_add(names, g_strdup(entry->d_name));
    g_ptr_array_sort(names, compare_names);
    g_ptr_array_add(names, NULL);
    *ret = (char **)g_ptr_array_free(g_steal_pointer(&names), FALSE);
    return true;
}

static bool checkpoint(Guest *base, bool (*seal)(void *arg, GError **error), void *arg, GError **error)
{
    return seal(arg, error);
}

static bool rollback(Guest *base, bool (*drop)(void *arg, GError **error), void *arg, GError **error)
{
    self(base)->in_step = false;
    return drop(arg, error);
}

static bool shut_down(Guest *base, GError **error)
{
    kill_(base);
    return true;
}

static const GuestOps fake_ops = {
    .name = "fake",
    .begin = begin,
    .exec = exec,
    .put = put,
    .get = get,
    .stat = stat_,
    .mkdir = mkdir_,
    .symlink = symlink_,
    .remove = remove_,
    .list = list,
    .end = end,
    .checkpoint = checkpoint,
    .rollback = rollback,
    .shutdown = shut_down,
    .kill = kill_,
};

bool guest_fake_open(const char *folder, Guest **ret, GError **error)
{
    GuestFake *guest;

    if (!g_file_test(folder, G_FILE_TEST_IS_DIR))
        return fail(error, "'%s' is not a folder", folder);
    guest = g_new0(GuestFake, 1);
    guest->base.ops = &fake_ops;
    guest->folder = g_canonicalize_filename(folder, NULL);
    *ret = &guest->base;
    return true;
}
