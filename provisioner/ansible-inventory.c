/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packer's inventory: one line for the host, and its groups. It lies in a private folder instead of the template's, so nothing is left
 * there and the step's key does not see it.
 */
#include "provisioner/ansible-inventory.h"

#include "base/error.h"
#include "base/file.h"
#include "provisioner/arguments.h"
#include "provisioner/host-file.h"

#include <fcntl.h>
#include <unistd.h>

/* Packer's own default names no connection; a guest has no address. */
#define LINE_TEMPLATE                                                                                        \
    "{{ .HostAlias }} ansible_host={{ .Host }} ansible_user={{ .User }} ansible_port={{ .Port }}"

static bool host_line(const json_t *args, const ProvisionerHost *host, char **ret, GError **error)
{
    g_autofree char *alias = argument_text(args, "host_alias", "default"),
                    *user = argument_text(args, "user", "root");
    const char *const fields[] = {"HostAlias", alias, "Host", "127.0.0.1", "Port", "22",
                                  "User",      user,  "ID",   "kiln",      NULL};

    return argument_expanded(args, "inventory_file_template", LINE_TEMPLATE, host, fields, ret, error);
}

static bool make_text(const json_t *args, const ProvisionerHost *host, GString *text, GError **error)
{
    g_autofree char *alias = argument_text(args, "host_alias", "default"), *line = NULL;
    g_auto(GStrv) groups = argument_texts(args, "groups"), empty = argument_texts(args, "empty_groups");

    if (!host_line(args, host, &line, error))
        return false;
    g_string_append_printf(text, "%s\n", line);
    for (char **group = groups; *group; group++)
        g_string_append_printf(text, "[%s]\n%s\n", *group, alias);
    for (char **group = empty; *group; group++)
        g_string_append_printf(text, "[%s]\n", *group);
    return true;
}

static bool link_vars(const char *from, const char *folder, const char *name, GError **error)
{
    g_autofree char *target = g_build_filename(from, name, NULL),
                    *link = g_build_filename(folder, "inventory", name, NULL);

    return !g_file_test(target, G_FILE_TEST_EXISTS) || symlink(target, link) == 0 ||
           fail_errno(error, "make '%s'", link);
}

static bool link_folder(const char *name, const ProvisionerHost *host, const char *folder, GError **error)
{
    g_autofree char *from = NULL;

    return host_file_find_whole("ansible", name, host, &from, error) &&
           link_vars(from, folder, "group_vars", error) && link_vars(from, folder, "host_vars", error);
}

/* keep_inventory_file: in the working folder, under the name that Packer's begin with. */
static bool keep(const json_t *args, const ProvisionerHost *host, const GString *text, GError **error)
{
    g_autofree char *path =
        g_strdup_printf("%s/packer-provisioner-ansible-%s", host->cwd ? host->cwd : ".", host->build_name);

    return !argument_bool(args, "keep_inventory_file", false) ||
           file_replace(AT_FDCWD, path, text->str, text->len, 0600, FILE_SYNC_NO, error);
}

bool ansible_inventory_make(const json_t *args, const ProvisionerHost *host, const char *folder,
                            char **ret_path, GError **error)
{
    g_autofree char *given = NULL, *vars = NULL;
    g_autofree char *path = g_build_filename(folder, "inventory", "hosts", NULL);
    g_autoptr(GString) text = g_string_new(NULL);

    if (!argument_expanded(args, "inventory_file", NULL, host, NULL, &given, error) ||
        !argument_expanded(args, "inventory_directory", NULL, host, NULL, &vars, error))
        return false;
    if (given)
        return host_file_find_whole("ansible", given, host, ret_path, error);
    if (!make_text(args, host, text, error) ||
        !file_replace(AT_FDCWD, path, text->str, text->len, 0600, FILE_SYNC_NO, error) ||
        (vars && !link_folder(vars, host, folder, error)) || !keep(args, host, text, error))
        return false;
    *ret_path = g_steal_pointer(&path);
    return true;
}
