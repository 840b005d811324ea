/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioner "puppet-masterless": the guest's own puppet applies manifests, with Packer's options.
 *
 * Manifests, modules and Hiera's files go into a staging folder. What Puppet keeps of a run (reports, times, copies of replaced files) goes
 * onto the step's tmpfs, or two equal bakes would differ. A service that should run is one that systemctl, offline, says runs; which ones
 * the catalog manages is read from the list of resources that Puppet leaves there.
 */
#include "base/error.h"
#include "base/file.h"
#include "provisioner/arguments.h"
#include "provisioner/guest-file.h"
#include "provisioner/guest-units.h"
#include "provisioner/host-file.h"
#include "provisioner/members.h"
#include "provisioner/staging.h"

#include <fcntl.h>
#include <string.h>

#define WHO "puppet-masterless"
#define STATE "/run/.kiln-puppet"
#define RESOURCES_MAX (4u << 20)

/* Packer's, without --manifestdir, which Puppet dropped with version 4. */
#define COMMAND                                                                                              \
    "cd {{.WorkingDir}} && {{if ne .FacterVars \"\"}}{{.FacterVars}} {{end}}{{if .Sudo}}sudo -E {{end}}"     \
    "{{if ne .PuppetBinDir \"\"}}{{.PuppetBinDir}}/{{end}}puppet apply --detailed-exitcodes --color=false "   \
    "--write-catalog-summary --vardir='" STATE "' "                                                                                  \
    "--publicdir='" STATE "/public' --logdir='" STATE "/log' --rundir='" STATE "/run' "                      \
    "{{if ne .ModulePath \"\"}}--modulepath='{{.ModulePath}}' {{end}}"                                       \
    "{{if ne .HieraConfigPath \"\"}}--hiera_config='{{.HieraConfigPath}}' {{end}}"                           \
    "{{if ne .ExtraArguments \"\"}}{{.ExtraArguments}} {{end}}{{.ManifestFile}}"

/* clang-format off */
#define PUPPET_ARGUMENTS(X)                                                                                   \
    X(manifest_file, TEXT) X(manifest_dir, TEXT) X(module_paths, TEXTS) X(hiera_config_path, TEXT) X(facter, MAP) \
    X(extra_arguments, TEXTS) X(execute_command, TEXT) X(puppet_bin_dir, TEXT) X(prevent_sudo, BOOL)              \
    X(staging_directory, TEXT) X(clean_staging_directory, BOOL) X(working_directory, TEXT)                        \
    X(ignore_exit_codes, BOOL) X(guest_os_type, TEXT) X(elevated_user, TEXT) X(elevated_password, TEXT)           \
    X(elevated_execute_command, TEXT)
/* clang-format on */
ARGUMENTS_DEFINE(PUPPET_ARGUMENTS);

static bool is_fact(const char *name)
{
    return *name &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == strlen(name);
}

static bool puppet_check(const json_t *args, const char **ret_argument, GError **error)
{
    const char *fact;
    json_t *value;

    if (!arguments_check(args, argument_specs, ret_argument, error))
        return false;
    if (!argument_given(args, "manifest_file"))
        return fail_code(error, KILN_ERROR_USAGE, "'manifest_file' is needed");
    if (!staging_check_system(args, ret_argument, error))
        return false;
    *ret_argument = "facter";
    json_object_foreach(json_object_get(args, "facter"), fact, value) if (!is_fact(fact)) return fail_code(
        error, KILN_ERROR_USAGE, "\"%s\" in 'facter' is no name of a fact (letters, digits and '_')", fact);
    *ret_argument = NULL;
    return true;
}

/* "datadir: data" of a hiera.yaml: folders beside it that hold what it looks up. */
static bool hiera_folders(const char *name, const ProvisionerHost *host, GPtrArray *folders, GError **error)
{
    g_autofree char *path = NULL, *beside = NULL;
    g_autoptr(GBytes) text = NULL;
    struct stat st;

    if (!host_file_find(WHO, name, host, &path, &st, error) || !file_load(AT_FDCWD, path, HOST_TEXT_MAX, &text, error))
        return false;
    beside = g_path_get_dirname(path);
    g_auto(GStrv) lines = g_strsplit(g_bytes_get_data(text, NULL), "\n", -1);
    for (char **line = lines; *line; line++) {
        const char *at = strstr(*line, "datadir:");
        g_autofree char *folder = at ? g_strdup(at + 8) : NULL, *full = NULL;

        if (!folder)
            continue;
        g_strdelimit(folder, "\"'", ' ');
        (void)g_strstrip(folder);
        full = g_build_filename(beside, folder, NULL);
        if (*folder && !g_path_is_absolute(folder) && !strstr(folder, "..") && !strstr(folder, "%{") &&
            g_file_test(full, G_FILE_TEST_IS_DIR))
            g_ptr_array_add(folders, g_strdup(folder));
    }
    return true;
}

static char *sibling(const char *name, const char *folder)
{
    g_autofree char *parent = g_path_get_dirname(name);

    return g_build_filename(parent, folder, NULL);
}

static bool puppet_inputs(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs, GError **error)
{
    static const char *const names[] = {"manifest_file", "manifest_dir", "module_paths", "hiera_config_path",
                                        NULL};
    g_autoptr(GPtrArray) folders = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *hiera = NULL;

    if (!staging_inputs(WHO, args, names, host, inputs, error) ||
        !argument_expanded(args, "hiera_config_path", NULL, host, NULL, &hiera, error) ||
        (hiera && !hiera_folders(hiera, host, folders, error)))
        return false;
    for (guint i = 0; i < folders->len; i++) {
        g_autofree char *folder = sibling(hiera, folders->pdata[i]);

        if (!host_file_add_inputs(WHO, folder, host, inputs, error))
            return false;
    }
    return true;
}

/* --- what goes into the guest --- */

static bool put_hiera(const Staging *s, char **ret_path, GError **error)
{
    g_autofree char *name = NULL;
    g_autoptr(GPtrArray) folders = g_ptr_array_new_with_free_func(g_free);

    if (!staging_put_argument(s, "hiera_config_path", "hiera.yaml", ret_path, error) ||
        !argument_expanded(s->args, "hiera_config_path", NULL, s->host, NULL, &name, error) ||
        (name && !hiera_folders(name, s->host, folders, error)))
        return false;
    for (guint i = 0; i < folders->len; i++) {
        g_autofree char *folder = sibling(name, folders->pdata[i]);

        if (!staging_put(s, folder, folders->pdata[i], error))
            return false;
    }
    return true;
}

static bool put_manifests(const Staging *s, char **ret_path, GError **error)
{
    g_autofree char *file = NULL, *bare = NULL, *name = NULL;

    if (!argument_expanded(s->args, "manifest_file", "", s->host, NULL, &file, error))
        return false;
    bare = g_path_get_basename(file);
    name = g_build_filename("manifests", bare, NULL);
    *ret_path = staging_path(s, name);
    return staging_put_argument(s, "manifest_dir", "manifests", NULL, error) &&
           staging_put(s, file, name, error);
}

/* --- the command line --- */

static char *facter_variables(const Staging *s)
{
    GString *text = g_string_new(NULL);
    g_autoptr(json_t) facts = json_pack("{s:s,s:s}", "packer_build_name", s->host->build_name,
                                        "packer_builder_type", s->host->builder_type);
    const char *name;
    json_t *value;

    (void)json_object_update(facts, json_object_get(s->args, "facter"));
    json_object_foreach(facts, name, value)
    {
        g_autofree char *plain = argument_text(facts, name, ""), *quoted = g_shell_quote(plain);

        g_string_append_printf(text, "%sFACTER_%s=%s", text->len ? " " : "", name, quoted);
    }
    return g_string_free(text, FALSE);
}

static bool command_line(const Staging *s, char **modules, const char *hiera, const char *manifest,
                         char **ret, GError **error)
{
    g_autofree char *bin = argument_text(s->args, "puppet_bin_dir", ""),
                    *work = argument_text(s->args, "working_directory", s->folder),
                    *facts = facter_variables(s), *manifests = staging_path(s, "manifests");
    g_auto(GStrv) extra = NULL;

    if (!argument_expanded_list(s->args, "extra_arguments", s->host, &extra, error))
        return false;
    g_autofree char *extra_text = g_strjoinv(" ", extra), *module_path = g_strjoinv(":", modules);
    const char *const fields[] = {"WorkingDir",
                                  work,
                                  "FacterVars",
                                  facts,
                                  "Sudo",
                                  "",
                                  "PuppetBinDir",
                                  bin,
                                  "ModulePath",
                                  module_path,
                                  "Debug",
                                  "",
                                  "HieraConfigPath",
                                  hiera,
                                  "ManifestDir",
                                  argument_given(s->args, "manifest_dir") ? manifests : "",
                                  "ExtraArguments",
                                  extra_text,
                                  "ManifestFile",
                                  manifest,
                                  NULL};
    return argument_expanded(s->args, "execute_command", COMMAND, s->host, fields, ret, error);
}

static bool judge(const Staging *s, int code, GError **error)
{
    if (code == 0 || code == 2 || argument_bool(s->args, "ignore_exit_codes", false))
        return true;
    return fail(error, "puppet apply exited with %d: %s", code,
                code == 4   ? "resources failed"
                : code == 6 ? "there were changes, and resources failed"
                : code == 1 ? "it could not run the manifest at all"
                            : "see its output");
}

/* service[nginx]; whether one that is not enabled should run is not said there. */
static bool tell_services(const Staging *s, GError **error)
{
    g_autoptr(GHashTable) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GBytes) bytes = NULL;

    if (!guest_get_bytes(s->guest, STATE "/state/resources.txt", RESOURCES_MAX, &bytes, error))
        return false;
    g_auto(GStrv) lines = g_strsplit(bytes ? g_bytes_get_data(bytes, NULL) : "", "\n", -1);
    for (char **line = lines; *line; line++)
        if (g_str_has_prefix(*line, "service["))
            g_hash_table_add(names, g_strndup(*line + 8, strcspn(*line + 8, "]")));
    return guest_units_tell(s->guest, names, false, s->host, error);
}

static bool apply(const Staging *s, GError **error)
{
    g_auto(GStrv) modules = NULL;
    g_autofree char *hiera = NULL, *manifest = NULL, *command = NULL,
                    *bin = argument_text(s->args, "puppet_bin_dir", NULL);
    g_autofree char *tool = bin ? g_build_filename(bin, "puppet", NULL) : g_strdup("puppet");
    int code = 0;

    if (!put_manifests(s, &manifest, error) ||
        !staging_put_each(s, "module_paths", "module", &modules, error) || !put_hiera(s, &hiera, error) ||
        !s->guest->ops->mkdir(s->guest, STATE, NULL, error) ||
        !command_line(s, modules, hiera, manifest, &command, error) ||
        !staging_run(s, argument_given(s->args, "execute_command") ? NULL : tool, "Debian: puppet-agent",
                     command, NULL, &code, error))
        return false;
    return tell_services(s, error) && s->guest->ops->remove(s->guest, STATE, error) && judge(s, code, error);
}

static bool puppet_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    g_auto(Staging) s = {0};

    return staging_open(&s, WHO, args, host, guest, "/tmp/packer-puppet-masterless", error) &&
           apply(&s, error) && staging_close(&s, error);
}

const ProvisionerOps provisioner_puppet_masterless = {
    .type = WHO,
    .arguments = argument_names,
    .needs_guest = true,
    .check = puppet_check,
    .inputs = puppet_inputs,
    .run = puppet_run,
    .volatile_with_network = true,
};
