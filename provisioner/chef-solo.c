/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioner "chef-solo": the guest's own chef-solo, with Packer's options.
 *
 * Packer's default first installs Chef by a script from the network. Here the tool is expected in the guest; an install_command of the
 * template's own runs where it is not.
 */
#include "base/error.h"
#include "base/file.h"
#include "provisioner/arguments.h"
#include "provisioner/guest-file.h"
#include "provisioner/host-file.h"
#include "provisioner/members.h"
#include "provisioner/staging.h"

#include <fcntl.h>
#include <string.h>

#define WHO "chef-solo"
#define CONFIG_MAX (1u << 20)
#define COMMAND "{{if .Sudo}}sudo {{end}}chef-solo --no-color -c {{.ConfigPath}} -j {{.JsonPath}}"

/* clang-format off */
#define CHEF_TYPED(X)                                                                                             \
    X(cookbook_paths, TEXTS) X(roles_path, TEXT) X(data_bags_path, TEXT) X(environments_path, TEXT)                \
    X(encrypted_data_bag_secret_path, TEXT) X(run_list, TEXTS) X(chef_environment, TEXT) X(config_template, TEXT)  \
    X(execute_command, TEXT) X(install_command, TEXT) X(skip_install, BOOL) X(prevent_sudo, BOOL)                  \
    X(remote_cookbook_paths, TEXTS) X(staging_directory, TEXT) X(clean_staging_directory, BOOL) X(version, TEXT)   \
    X(chef_license, TEXT) X(guest_os_type, TEXT)
/* clang-format on */
static const char *const argument_names[] = {CHEF_TYPED(ARGUMENT_NAME_) "json", NULL};
static const ArgumentSpec argument_specs[] = {CHEF_TYPED(ARGUMENT_SPEC_){0}};

static bool chef_check(const json_t *args, const char **ret_argument, GError **error)
{
    const json_t *json = json_object_get(args, "json");

    if (!arguments_check(args, argument_specs, ret_argument, error))
        return false;
    *ret_argument = "json";
    if (json && !json_is_null(json) && !json_is_object(json))
        return fail_code(error, KILN_ERROR_USAGE, "'json' must be an object");
    *ret_argument = NULL;
    return staging_check_system(args, ret_argument, error);
}

static bool chef_inputs(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs, GError **error)
{
    static const char *const names[] = {"cookbook_paths",
                                        "roles_path",
                                        "data_bags_path",
                                        "environments_path",
                                        "encrypted_data_bag_secret_path",
                                        "config_template",
                                        NULL};

    return staging_inputs(WHO, args, names, host, inputs, error);
}

/* --- files --- */

static bool put_cookbooks(const Staging *s, char **ret_list, GError **error)
{
    g_auto(GStrv) paths = NULL, remote = argument_texts(s->args, "remote_cookbook_paths");
    g_autoptr(GString) list = g_string_new(NULL);

    if (!staging_put_each(s, "cookbook_paths", "cookbooks", &paths, error))
        return false;
    for (char **path = remote; *path; path++)
        g_string_append_printf(list, "%s\"%s\"", list->len ? "," : "", *path);
    for (char **path = paths; *path; path++)
        g_string_append_printf(list, "%s\"%s\"", list->len ? "," : "", *path);
    *ret_list = g_string_free(g_steal_pointer(&list), FALSE);
    return true;
}

typedef struct Files {
    char *cookbooks, *roles, *data_bags, *environments, *secret;
} Files;

static void files_clear(Files *files)
{
    g_free(files->cookbooks);
    g_free(files->roles);
    g_free(files->data_bags);
    g_free(files->environments);
    g_free(files->secret);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Files, files_clear)

static bool put_files(const Staging *s, Files *files, GError **error)
{
    return put_cookbooks(s, &files->cookbooks, error) &&
           staging_put_argument(s, "roles_path", "roles", &files->roles, error) &&
           staging_put_argument(s, "data_bags_path", "data_bags", &files->data_bags, error) &&
           staging_put_argument(s, "environments_path", "environments", &files->environments, error) &&
           staging_put_argument(s, "encrypted_data_bag_secret_path", "encrypted_data_bag_secret",
                                &files->secret, error);
}

static void line(GString *text, const char *key, const char *value)
{
    if (*value)
        g_string_append_printf(text, "%s \"%s\"\n", key, value);
}

static bool own_config(const Staging *s, const char *template, const Files *files, const char *environment,
                       const char *license, char **ret, GError **error)
{
    const char *const fields[] = {"CookbookPaths",
                                  files->cookbooks,
                                  "RolesPath",
                                  files->roles,
                                  "DataBagsPath",
                                  files->data_bags,
                                  "EnvironmentsPath",
                                  files->environments,
                                  "EncryptedDataBagSecretPath",
                                  files->secret,
                                  "ChefEnvironment",
                                  environment,
                                  "ChefLicense",
                                  license,
                                  "HasRolesPath",
                                  files->roles,
                                  "HasDataBagsPath",
                                  files->data_bags,
                                  "HasEnvironmentsPath",
                                  files->environments,
                                  "HasEncryptedDataBagSecretPath",
                                  files->secret,
                                  NULL};
    g_autofree char *path = NULL;
    g_autoptr(GBytes) bytes = NULL;
    struct stat st;

    return host_file_find(WHO, template, s->host, &path, &st, error) &&
           file_load(AT_FDCWD, path, CONFIG_MAX, &bytes, error) &&
           (argument_expand(g_bytes_get_data(bytes, NULL), s->host, fields, ret, error) ||
            fail_prefix(error, "'config_template'"));
}

static bool put_config(const Staging *s, const Files *files, GError **error)
{
    g_autofree char *template = NULL, *environment = argument_text(s->args, "chef_environment", "");
    g_autofree char *license = argument_text(s->args, "chef_license", ""), *own = NULL;
    g_autoptr(GString) text = g_string_new(NULL);

    if (!argument_expanded(s->args, "config_template", NULL, s->host, NULL, &template, error))
        return false;
    if (template)
        return own_config(s, template, files, environment, license, &own, error) &&
               staging_put_text(s, own, "solo.rb", error);
    g_string_append_printf(text, "cookbook_path [%s]\n", files->cookbooks);
    line(text, "role_path", files->roles);
    line(text, "data_bag_path", files->data_bags);
    line(text, "encrypted_data_bag_secret", files->secret);
    line(text, "environment_path", files->environments);
    line(text, "environment", environment);
    line(text, "chef_license", license);
    line(text, "file_cache_path",
         "/run/.kiln-chef/cache"); /* what it keeps of a run would differ between equal bakes */
    line(text, "file_backup_path", "/run/.kiln-chef/backup");
    return staging_put_text(s, text->str, "solo.rb", error);
}

static bool put_node(const Staging *s, GError **error)
{
    const json_t *given = json_object_get(s->args, "json");
    g_autoptr(json_t) node = json_is_object(given) ? json_deep_copy(given) : json_object();
    g_auto(GStrv) list = argument_texts(s->args, "run_list");
    g_autofree char *text = NULL;

    if (*list) {
        json_t *run_list = json_array();

        for (char **item = list; *item; item++)
            json_array_append_new(run_list, json_string_nocheck(*item));
        json_object_set_new(node, "run_list", run_list);
    }
    text = json_pretty(node);
    return staging_put_text(s, text, "node.json", error);
}

/* --- running it --- */

static bool install(const Staging *s, GError **error)
{
    g_autofree char *version = argument_text(s->args, "version", ""), *command = NULL;
    const char *const fields[] = {"Sudo", "", "Version", version, NULL};
    int code = 0;

    if (argument_bool(s->args, "skip_install", false) || !argument_given(s->args, "install_command"))
        return true;
    if (!guest_sh(s->guest, s->host, "command -v chef-solo >/dev/null", NULL, NULL, &code, error))
        return false;
    if (code == 0) {
        s->host->say("chef-solo is in the guest: install_command is left out", false, s->host->arg);
        return true;
    }
    return argument_expanded(s->args, "install_command", NULL, s->host, fields, &command, error) &&
           staging_run(s, NULL, NULL, command, NULL, &code, error) &&
           (code == 0 || fail(error, "install_command exited with %d", code));
}

static bool converge(const Staging *s, GError **error)
{
    g_autofree char *command = NULL;
    g_autofree char *config = staging_path(s, "solo.rb"), *node = staging_path(s, "node.json");
    const char *const fields[] = {"Sudo", "", "ConfigPath", config, "JsonPath", node, NULL};
    int code = 0;

    if (!argument_expanded(s->args, "execute_command", COMMAND, s->host, fields, &command, error) ||
        !staging_run(s, argument_given(s->args, "execute_command") ? NULL : "chef-solo",
                     "kiln installs nothing from the network by itself; a package in a local repository, a "
                     "file step, or install_command",
                     command, NULL, &code, error))
        return false;
    return code == 0 || fail(error, "chef-solo exited with %d", code);
}

static bool chef_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    g_auto(Staging) s = {0};
    g_auto(Files) files = {0};

    return staging_open(&s, WHO, args, host, guest, "/tmp/packer-chef-solo", error) &&
           put_files(&s, &files, error) && put_config(&s, &files, error) && put_node(&s, error) &&
           install(&s, error) && converge(&s, error) && staging_close(&s, error);
}

const ProvisionerOps provisioner_chef_solo = {
    .type = WHO,
    .arguments = argument_names,
    .needs_guest = true,
    .check = chef_check,
    .inputs = chef_inputs,
    .run = chef_run,
    .volatile_with_network = true,
};
