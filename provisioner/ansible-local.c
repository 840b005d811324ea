/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioner "ansible-local": the guest's own ansible-playbook, with Packer's options.
 *
 * Everything is laid into a staging folder and played there with the connection "local". Kiln's plugins for users and events go along, on
 * the step's tmpfs.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/libexec.h"
#include "provisioner/ansible-events.h"
#include "provisioner/ansible-files.h"
#include "provisioner/arguments.h"
#include "provisioner/guest-file.h"
#include "provisioner/host-file.h"
#include "provisioner/members.h"
#include "provisioner/staging.h"

#include <fcntl.h>
#include <string.h>

#define WHO "ansible-local"
#define PLUGINS "/run/.kiln-ansible"
#define PLUGIN_MAX (1u << 20)

/* clang-format off */
#define ANSIBLE_LOCAL_ARGUMENTS(X)                                                                                \
    X(playbook_file, TEXT) X(playbook_files, TEXTS) X(playbook_dir, TEXT) X(playbook_paths, TEXTS) X(role_paths, TEXTS) \
    X(collection_paths, TEXTS) X(group_vars, TEXT) X(host_vars, TEXT) X(inventory_file, TEXT) X(inventory_groups, TEXTS) \
    X(galaxy_file, TEXT) X(galaxy_command, TEXT) X(galaxy_roles_path, TEXT) X(galaxy_collections_path, TEXT)            \
    X(command, TEXT) X(extra_arguments, TEXTS) X(staging_directory, TEXT) X(clean_staging_directory, BOOL)
/* clang-format on */
ARGUMENTS_DEFINE(ANSIBLE_LOCAL_ARGUMENTS);

static const char *const playbooks[] = {"playbook_file", "playbook_files", NULL};

static bool local_check(const json_t *args, const char **ret_argument, GError **error)
{
    return arguments_check(args, argument_specs, ret_argument, error) &&
           arguments_exactly_one(args, playbooks, ret_argument, error);
}

static const char *playbook_argument(const json_t *args)
{
    return argument_given(args, "playbook_file") ? "playbook_file" : "playbook_files";
}

/* With playbook_dir its own playbooks may be meant. */
static bool take_playbooks(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs, GError **error)
{
    g_auto(GStrv) names = NULL;
    g_autofree char *folder = NULL;

    if (!argument_expanded(args, "playbook_dir", NULL, host, NULL, &folder, error) ||
        !argument_expanded_list(args, playbook_argument(args), host, &names, error))
        return false;
    for (char **name = names; *name; name++) {
        g_autoptr(GError) problem = NULL;
        g_autofree char *within = folder ? g_build_filename(folder, *name, NULL) : NULL;

        if (host_file_add_inputs(WHO, *name, host, inputs, &problem) ||
            (within && host_file_add_inputs(WHO, within, host, inputs, NULL)))
            continue;
        g_propagate_error(error, g_steal_pointer(&problem));
        return false;
    }
    return true;
}

static bool local_inputs(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs, GError **error)
{
    static const char *const names[] = {"playbook_dir",     "playbook_paths", "role_paths",
                                        "collection_paths", "group_vars",     "host_vars",
                                        "inventory_file",   "galaxy_file",    NULL};

    return take_playbooks(args, host, inputs, error) && staging_inputs(WHO, args, names, host, inputs, error) &&
           ansible_plugin_inputs(inputs, error);
}

/* --- what goes into the guest --- */

static bool put_named(const Staging *s, const char *argument, const char *into, GError **error)
{
    g_auto(GStrv) paths = NULL;

    if (!argument_expanded_list(s->args, argument, s->host, &paths, error))
        return false;
    for (char **path = paths; *path; path++) {
        g_autofree char *bare = g_path_get_basename(*path),
                        *name = into ? g_build_filename(into, bare, NULL) : g_strdup(bare);

        if (!staging_put(s, *path, name, error))
            return false;
    }
    return true;
}

static bool put_inventory(const Staging *s, GError **error)
{
    g_auto(GStrv) groups = argument_texts(s->args, "inventory_groups");
    g_autoptr(GString) text = g_string_new("127.0.0.1\n");

    if (argument_given(s->args, "inventory_file"))
        return staging_put_argument(s, "inventory_file", "packer-inventory", NULL, error);
    for (char **group = groups; *group; group++)
        g_string_append_printf(text, "[%s]\n127.0.0.1\n", *group);
    return staging_put_text(s, text->str, "packer-inventory", error);
}

static bool put_plugin(const Staging *s, const char *kind, const char *file, const char *name, GError **error)
{
    const GuestFile meta = {.mode = 0644, .mtime = s->host->epoch};
    g_autofree char *helper = g_strdup_printf("ansible/%s/%s", kind, file), *path = NULL;
    g_autofree char *folder = g_strdup_printf(PLUGINS "/%s", kind),
                    *to = g_strdup_printf("%s/%s", folder, name);
    g_autoptr(GBytes) bytes = NULL;

    return libexec_find(helper, &path, error) && file_load(AT_FDCWD, path, PLUGIN_MAX, &bytes, error) &&
           s->guest->ops->mkdir(s->guest, folder, NULL, error) &&
           guest_put_bytes(s->guest, to, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &meta,
                           error);
}

static bool put_plugins(const Staging *s, GError **error)
{
    static const char *const methods[] = {"kiln.py", "sudo.py", "su.py", "doas.py", NULL};
    const GuestFile open_to_all = {.mode = 01777, .mtime = s->host->epoch};

    if (!put_plugin(s, "callback", "kiln_events.py", "kiln_events.py", error) ||
        !s->guest->ops->mkdir(s->guest, PLUGINS "/tmp", &open_to_all, error))
        return false;
    for (size_t i = 0; methods[i]; i++)
        if (!put_plugin(s, "become", "kiln.py", methods[i], error))
            return false;
    return true;
}

static bool put_all(const Staging *s, GError **error)
{
    return staging_put_argument(s, "playbook_dir", ".", NULL, error) &&
           put_named(s, "playbook_paths", NULL, error) && put_named(s, "role_paths", "roles", error) &&
           put_named(s, "collection_paths", "collections", error) &&
           staging_put_argument(s, "group_vars", "group_vars", NULL, error) &&
           staging_put_argument(s, "host_vars", "host_vars", NULL, error) &&
           staging_put_argument(s, "galaxy_file", "galaxy-requirements.yml", NULL, error) &&
           put_inventory(s, error) && put_plugins(s, error);
}

/* --- running it --- */

static const char *const play_env[] = {"PYTHONUNBUFFERED=1",
                                       "ANSIBLE_NOCOLOR=1",
                                       "ANSIBLE_NOCOWS=1",
                                       "ANSIBLE_RETRY_FILES_ENABLED=0",
                                       "ANSIBLE_LOCAL_TEMP=" PLUGINS "/tmp",
                                       "ANSIBLE_REMOTE_TEMP=" PLUGINS "/tmp",
                                       "ANSIBLE_REMOTE_TMP=" PLUGINS "/tmp",
                                       "ANSIBLE_HOME=" PLUGINS "/home",
                                       "ANSIBLE_CALLBACK_PLUGINS=" PLUGINS "/callback",
                                       "ANSIBLE_CALLBACKS_ENABLED=kiln_events",
                                       "ANSIBLE_BECOME_PLUGINS=" PLUGINS "/become",
                                       "ANSIBLE_BECOME_METHOD=kiln",
                                       "KILN_ANSIBLE_EVENTS=" PLUGINS "/events",
                                       NULL};

/* The first word of a command line that is no variable. */
static char *tool_of(const char *command)
{
    g_auto(GStrv) words = g_strsplit(command, " ", -1);

    for (char **word = words; *word; word++)
        if (**word && !strchr(*word, '='))
            return g_strdup(*word);
    return g_strdup("ansible-playbook");
}

static bool run(const Staging *s, const char *command, const char *arguments, int *ret_code, GError **error)
{
    g_autofree char *tool = tool_of(command), *folder = g_shell_quote(s->folder);
    g_autofree char *line = g_strdup_printf("cd %s && %s %s", folder, command, arguments);

    return staging_run(s, tool, "Debian: ansible-core", line, play_env, ret_code, error);
}

static bool galaxy_install(const Staging *s, const char *what, const char *argument, const char *otherwise,
                           GError **error)
{
    g_autofree char *command = argument_text(s->args, "galaxy_command", "ansible-galaxy"),
                    *into = argument_text(s->args, argument, otherwise);
    g_autofree char *quoted = g_shell_quote(into),
                    *arguments = g_strdup_printf("%s install -r galaxy-requirements.yml -p %s", what, quoted);
    int code = 0;

    return run(s, command, arguments, &code, error) &&
           (code == 0 || fail(error, "%s exited with %d in the guest%s", command, code,
                              s->host->network ? "" : "; the step has no network (network = true)"));
}

/* Requirements of collections are asked for by their folder, as in Packer. */
static bool galaxy(const Staging *s, GError **error)
{
    if (!argument_given(s->args, "galaxy_file"))
        return true;
    return galaxy_install(s, "role", "galaxy_roles_path", "roles", error) &&
           (!argument_given(s->args, "galaxy_collections_path") ||
            galaxy_install(s, "collection", "galaxy_collections_path", "collections", error));
}

/* What the events tell: services, or the task that failed. */
static bool judge(const Staging *s, const char *playbook, int code, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(AnsibleEvents) events = NULL;

    if (!guest_get_bytes(s->guest, PLUGINS "/events", ANSIBLE_EVENTS_MAX, &bytes, NULL))
        g_clear_pointer(&bytes, g_bytes_unref); /* the exit code is told all the same */
    events = ansible_events_parse(bytes ? g_bytes_get_data(bytes, NULL) : "");
    return code == 0 ? ansible_events_tell(events, s->host, s->guest, error)
                     : ansible_events_fail(events, playbook, code, error);
}

/* A playbook of the host goes beside the rest; one of playbook_dir is there. */
static bool play_one(const Staging *s, const char *playbook, GError **error)
{
    g_autofree char *command = argument_text(s->args, "command", "ansible-playbook"), *found = NULL,
                    *bare = g_path_get_basename(playbook);
    g_autofree char *vars = g_strdup_printf("packer_build_name=%s packer_builder_type=%s",
                                            s->host->build_name, s->host->builder_type);
    g_autofree char *quoted_vars = g_shell_quote(vars), *arguments = NULL;
    g_auto(GStrv) extra = NULL;
    struct stat st;
    int code = 0;

    bool on_host = host_file_find(WHO, playbook, s->host, &found, &st, NULL);
    if (!argument_expanded_list(s->args, "extra_arguments", s->host, &extra, error) ||
        (on_host && !staging_put(s, playbook, bare, error)))
        return false;
    g_autofree char *extra_text = g_strjoinv(" ", extra), *quoted = g_shell_quote(on_host ? bare : playbook);
    arguments = g_strdup_printf("%s --extra-vars %s %s -c local -i packer-inventory", quoted, quoted_vars,
                                extra_text);
    return run(s, command, arguments, &code, error) && judge(s, playbook, code, error);
}

static bool play_all(const Staging *s, GError **error)
{
    g_auto(GStrv) names = NULL;

    if (!put_all(s, error) || !galaxy(s, error) ||
        !argument_expanded_list(s->args, playbook_argument(s->args), s->host, &names, error))
        return false;
    for (char **name = names; *name; name++)
        if (!play_one(s, *name, error))
            return false;
    return s->guest->ops->remove(s->guest, PLUGINS, error);
}

static bool local_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    g_auto(Staging) s = {0};

    return staging_open(&s, WHO, args, host, guest, "/tmp/packer-provisioner-ansible-local", error) &&
           play_all(&s, error) && staging_close(&s, error);
}

const ProvisionerOps provisioner_ansible_local = {
    .type = WHO,
    .arguments = argument_names,
    .needs_guest = true,
    .check = local_check,
    .inputs = local_inputs,
    .run = local_run,
    .volatile_with_network = true,
};
