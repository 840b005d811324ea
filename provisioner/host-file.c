/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the host's side of a step.
 *
 * The order of a walk is part of a step's key and of the order in which files
 * are written to the guest, so it is sorted bytewise and never as readdir
 * gives it.
 */
#include "provisioner/host-file.h"

#include "base/error.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/scope.h"
#include "provisioner/provisioner.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>

static bool exists(const char *path, struct stat *ret_st)
{
    return stat(path, ret_st) == 0;
}

bool host_file_find(const char *who, const char *name, const ProvisionerHost *host, char **ret_path,
                    struct stat *ret_st, GError **error)
{
    g_autofree char *beside = g_build_filename(host->template_dir ? host->template_dir : ".", name, NULL);
    g_autofree char *here = g_build_filename(host->cwd ? host->cwd : ".", name, NULL);
    char **found;

    if (!*name)
        return fail(error, "%s provisioner: a file name is empty", who);
    if (g_path_is_absolute(name)) {
        g_free(here);
        here = g_strdup(name);
        found = exists(here, ret_st) ? &here : NULL;
    } else {
        found = exists(beside, ret_st) ? &beside : exists(here, ret_st) ? &here : NULL;
    }
    if (!found)
        return fail_code(error, errno == ENOENT ? KILN_ERROR_NOT_FOUND : KILN_ERROR_FAILED,
                         "%s provisioner: cannot read \"%s\": %s", who, name,
                         errno == ENOENT ? "no such file" : g_strerror(errno));
    *ret_path = g_steal_pointer(found);
    return true;
}

bool host_file_find_whole(const char *who, const char *name, const ProvisionerHost *host, char **ret_path,
                          GError **error)
{
    g_autofree char *found = NULL;
    struct stat st;

    if (!host_file_find(who, name, host, &found, &st, error))
        return false;
    *ret_path = g_canonicalize_filename(found, host->cwd);
    return true;
}

bool host_file_readlink(const char *path, char **ret, GError **error)
{
    char target[PATH_MAX];
    ssize_t n = readlink(path, target, sizeof target);

    if (n < 0)
        return fail_errno(error, "read link '%s'", path);
    if ((size_t)n == sizeof target)
        return fail(error, "link '%s' is too long", path);
    *ret = g_strndup(target, (gsize)n);
    return true;
}

typedef struct Walk {
    const char *who;
    HostFileFn *fn;
    void *arg;
    unsigned count;
} Walk;

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool sorted_names(const char *path, Walk *walk, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    auto_dir DIR *dir = opendir(path);
    struct dirent *entry;

    if (!dir)
        return fail_errno(error, "read folder '%s'", path);
    while (errno = 0, (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (++walk->count > HOST_FILES_MAX)
            return fail(error, "%s provisioner: more than %u files", walk->who, HOST_FILES_MAX);
        g_ptr_array_add(names, g_strdup(entry->d_name));
    }
    if (errno)
        return fail_errno(error, "read folder '%s'", path);
    g_ptr_array_sort(names, compare_names);
    *ret = g_steal_pointer(&names);
    return true;
}

static bool walk_folder(Walk *walk, const char *path, const char *relative, unsigned depth, GError **error)
{
    g_autoptr(GPtrArray) names = NULL;

    if (depth > HOST_DEPTH_MAX)
        return fail(error, "%s provisioner: folder '%s' is nested too deeply", walk->who, path);
    if (!sorted_names(path, walk, &names, error))
        return false;
    for (unsigned i = 0; i < names->len; i++) {
        const char *name = names->pdata[i];
        g_autofree char *full = g_build_filename(path, name, NULL);
        g_autofree char *rel = *relative ? g_strconcat(relative, "/", name, NULL) : g_strdup(name);
        struct stat st;

        if (lstat(full, &st) < 0)
            return fail_errno(error, "read '%s'", full);
        if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode))
            return fail(error, "%s provisioner: '%s' is neither file, folder nor link", walk->who, full);
        if (!walk->fn(full, rel, &st, walk->arg, error))
            return false;
        if (S_ISDIR(st.st_mode) && !walk_folder(walk, full, rel, depth + 1, error))
            return false;
    }
    return true;
}

bool host_file_walk(const char *who, const char *folder, HostFileFn *fn, void *arg, GError **error)
{
    Walk walk = {.who = who, .fn = fn, .arg = arg};
    return walk_folder(&walk, folder, "", 0, error);
}

typedef struct Collect {
    const char *name; /* as the user wrote it */
    GPtrArray *inputs;
} Collect;

bool host_file_add_entry(const char *name, const char *path, const struct stat *st, GPtrArray *inputs, GError **error)
{
    g_autofree char *target = NULL;
    Digest digest = digest_none;
    ProvisionerInput *input;

    if (!g_utf8_validate(name, -1, NULL)) { /* keys and records are JSON */
        g_autofree char *shown = printable_line(name);

        return fail(error, "the name '%s' is no UTF-8, as names of a step's files must be", shown);
    }
    if (S_ISREG(st->st_mode) && !digest_of_file(AT_FDCWD, path, &digest, NULL, error))
        return false;
    if (S_ISLNK(st->st_mode)) {
        if (!host_file_readlink(path, &target, error))
            return false;
        digest_of_string(target, &digest);
    }
    input = g_new0(ProvisionerInput, 1);
    input->name = g_strdup(name);
    input->path = g_strdup(path);
    input->mode = st->st_mode;
    input->digest = digest;
    g_ptr_array_add(inputs, input);
    return true;
}

static bool collect(const char *path, const char *relative, const struct stat *st, void *arg, GError **error)
{
    Collect *c = arg;
    g_autofree char *name = *relative ? g_build_filename(c->name, relative, NULL) : g_strdup(c->name);

    return host_file_add_entry(name, path, st, c->inputs, error);
}

bool host_file_add_inputs(const char *who, const char *name, const ProvisionerHost *host, GPtrArray *inputs,
                          GError **error)
{
    g_autofree char *path = NULL;
    Collect c = {.name = name, .inputs = inputs};
    struct stat st;

    if (!host_file_find(who, name, host, &path, &st, error))
        return false;
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return fail(error, "%s provisioner: \"%s\" is neither file nor folder", who, name);
    if (!collect(path, "", &st, &c, error))
        return fail_prefix(error, "%s provisioner", who);
    return S_ISDIR(st.st_mode) ? host_file_walk(who, path, collect, &c, error) : true;
}
