/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermin looks for a kernel the same way; it is asked here first because its own words are about supermin.
 */
#include "base/host-kernel.h"

#include "base/debian-version.h"
#include "base/error.h"

#include <glob.h>
#include <string.h>
#include <unistd.h>

typedef struct Found {
    char *kernel, *modules;
    char *unreadable; /* one that would do if this user could read it */
} Found;

static void found_clear(Found *found)
{
    g_free(found->kernel);
    g_free(found->modules);
    g_free(found->unreadable);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Found, found_clear)

static const char *version_of(const char *kernel)
{
    return strchr(kernel, '-') + 1;
}

static void consider(Found *found, const char *path)
{
    g_autofree char *modules = g_build_filename("/lib/modules", version_of(path), NULL);

    if (access(modules, F_OK) < 0)
        return; /* a kernel without its modules drives no disk */
    if (access(path, R_OK) < 0) {
        g_free(found->unreadable);
        found->unreadable = g_strdup(path);
        return;
    }
    if (found->kernel && debian_version_compare(version_of(path), version_of(found->kernel)) < 0)
        return;
    g_free(found->kernel);
    g_free(found->modules);
    found->kernel = g_strdup(path);
    found->modules = g_steal_pointer(&modules);
}

bool host_kernel_find(char **ret_kernel, char **ret_modules, GError **error)
{
    g_auto(Found) found = {0};
    glob_t paths = {0};

    (void)glob("/boot/vmlinu[xz]-*", 0, NULL, &paths);
    for (size_t i = 0; i < paths.gl_pathc; i++)
        consider(&found, paths.gl_pathv[i]);
    globfree(&paths);
    if (!found.kernel && found.unreadable)
        return fail(error, "the kernel '%s', which the bake appliance boots, cannot be read by this user; run 'chmod 0644 %s' as root",
                    found.unreadable, found.unreadable);
    if (!found.kernel)
        return fail(error, "there is no kernel with modules in /boot for the bake appliance; install one, for example the package "
                           "linux-image-cloud-amd64");
    if (ret_kernel)
        *ret_kernel = g_steal_pointer(&found.kernel);
    if (ret_modules)
        *ret_modules = g_steal_pointer(&found.modules);
    return true;
}
