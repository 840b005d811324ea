/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest port speaks in descriptors, so that large files stream; most of what provisioners move is small
 * text. A memfd joins both.
 */
#include "provisioner/guest-file.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static int memory_file(GError **error)
{
    int fd = memfd_create("kiln-guest-file", MFD_CLOEXEC);

    if (fd < 0)
        fail_errno(error, "make a file in memory");
    return fd;
}

bool guest_put_bytes(Guest *guest, const char *path, const void *data, size_t size, const GuestFile *meta,
                     GError **error)
{
    auto_fd int fd = memory_file(error);

    if (fd < 0 || !file_pwrite_full(fd, data, size, 0, path,
                                    error)) /* pwrite leaves the offset at 0, where put() starts */
        return false;
    return guest->ops->put(guest, fd, path, meta, error);
}

bool guest_get_bytes(Guest *guest, const char *path, size_t max, GBytes **ret, GError **error)
{
    auto_fd int fd = -1;
    g_autofree char *data = NULL;
    struct stat st;
    char type;

    *ret = NULL;
    if (!guest_type(guest, path, &type, error))
        return false;
    if (!type)
        return true;
    fd = memory_file(error);
    if (fd < 0 || !guest->ops->get(guest, path, fd, max, error))
        return false;
    if (fstat(fd, &st) < 0)
        return fail_errno(error, "read guest file '%s'", path);
    if ((uint64_t)st.st_size > max)
        return fail(error, "guest file '%s' is larger than %zu bytes", path, max);
    data = g_malloc((gsize)st.st_size + 1);
    if (!file_pread_full(fd, data, (size_t)st.st_size, 0, path, error))
        return false;
    data[st.st_size] = '\0'; /* so that text can be read as a string */
    *ret = g_bytes_new_take(g_steal_pointer(&data), (gsize)st.st_size);
    return true;
}

bool guest_type(Guest *guest, const char *path, char *ret_type, GError **error)
{
    GuestFile meta = {0};

    *ret_type = 0;
    return guest->ops->stat(guest, path, ret_type, &meta, error);
}

bool guest_first(Guest *guest, const char *const *paths, const char **ret, GError **error)
{
    char type = 0;

    *ret = NULL;
    for (; *paths; paths++) {
        if (!guest_type(guest, *paths, &type, error))
            return false;
        if (type) {
            *ret = *paths;
            return true;
        }
    }
    return true;
}

bool guest_sh(Guest *guest, const ProvisionerHost *host, const char *script, const char *const *args,
              const char *const *env, int *ret_exit, GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autoptr(GPtrArray) all = g_ptr_array_new();

    g_ptr_array_add(argv, (void *)"/bin/sh");
    g_ptr_array_add(argv, (void *)"-c");
    g_ptr_array_add(argv, (void *)script);
    if (args)
        g_ptr_array_add(argv, (void *)"kiln");
    for (; args && *args; args++)
        g_ptr_array_add(argv, (void *)*args);
    g_ptr_array_add(argv, NULL);

    for (const char *const *e = host->env; e && *e; e++)
        g_ptr_array_add(all, (void *)*e);
    for (; env && *env; env++)
        g_ptr_array_add(all, (void *)*env);
    g_ptr_array_add(all, NULL);

    const GuestExec exec = {.argv = (const char *const *)argv->pdata, .env = (const char *const *)all->pdata};
    return guest->ops->exec(guest, &exec, ret_exit, error);
}
