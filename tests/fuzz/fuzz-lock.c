/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: a lock file as an editor or a merge may leave it. What counts as a transaction is played by the provisioner, against a guest
 * that takes everything: it must neither crash nor run dpkg with a word that is no package's name.
 */
#include "baker/bake-lock.h"
#include "baker/resolve-parts.h"
#include "provisioner/packages-dpkg.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool take_exec(Guest *guest, const GuestExec *exec, int *ret_exit, GError **error)
{
    *ret_exit = 0;
    if (strcmp(exec->argv[0], "dpkg") != 0)
        return true;
    for (const char *const *word = exec->argv + 1; *word; word++)
        if (!**word || strchr(*word, '\n'))
            abort();
    return true;
}

static bool take_put(Guest *guest, int fd, const char *path, const GuestFile *meta, GError **error)
{
    if (strstr(path, "/../") || path[0] != '/')
        abort();
    return true;
}

static bool take_get(Guest *guest, const char *path, int fd, uint64_t max, GError **error)
{
    return true;
}

static bool take_stat(Guest *guest, const char *path, char *ret_type, GuestFile *ret_meta, GError **error)
{
    *ret_type = 'f';
    return true;
}

static bool take_mkdir(Guest *guest, const char *path, const GuestFile *meta, GError **error)
{
    return true;
}

static bool take_remove(Guest *guest, const char *path, GError **error)
{
    return true;
}

static bool open_nothing(const Digest *digest, int *ret_fd, void *arg, GError **error)
{
    *ret_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return *ret_fd >= 0;
}

static void say(const char *line, bool is_stderr, void *arg)
{
}

static void play(const json_t *transaction)
{
    static const GuestOps ops = {.exec = take_exec, .put = take_put, .get = take_get, .stat = take_stat, .mkdir = take_mkdir,
                                 .remove = take_remove};
    static const char *const env[] = {"TZ=UTC", NULL};
    Guest guest = {.ops = &ops};
    ProvisionerHost host = {.say = say, .transaction = transaction, .open_blob = open_nothing};
    g_autofree char *summary = resolve_summary(transaction);
    Digest digest;

    resolve_digest(transaction, &digest);
    if (!resolve_is_empty(transaction))
        (void)packages_dpkg_run(&host, &guest, env, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(json_t) transactions = NULL;
    json_t *one;
    const char *number;

    if (!bake_lock_parse(data, size, "fuzz.lock", "web", &transactions, NULL))
        return 0;
    json_object_foreach (transactions, number, one)
        if (resolve_lock_is_sound(one))
            play(one);
    return 0;
}
