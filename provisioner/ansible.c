/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioner "ansible": the host's own ansible-playbook on the guest, with Packer's options.
 *
 *     ansible-playbook  --task-->  connection/kiln.py  --socket-->  ansible-server.c  --port-->  the guest's runner
 *
 * There is no SSH: options about it are taken and named in one line. All that Ansible is told stands in its environment, which wins over
 * any ansible.cfg; that is the template author's, or an empty one of ours, never the user's own. Home, temporary folders and what galaxy
 * installs are in a private folder that goes with the step. Every user is become without the guest's sudo (become/kiln.py). Ansible runs
 * on the host with the rights of whoever bakes, as trusted as a shell-local step.
 *
 * No service runs in a bake. systemctl in the guest says so and succeeds (SYSTEMD_OFFLINE); which ones a play started is read from the
 * events of callback/kiln_events.py and told at the end.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/libexec.h"
#include "provisioner/ansible-events.h"
#include "provisioner/ansible-files.h"
#include "provisioner/ansible-inventory.h"
#include "provisioner/ansible-server.h"
#include "provisioner/ansible-text.h"
#include "provisioner/ansible-version.h"
#include "provisioner/arguments.h"
#include "provisioner/guest-file.h"
#include "provisioner/host-file.h"
#include "provisioner/host-run.h"
#include "provisioner/members.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REMOTE_FOLDER "/run/.kiln-ansible" /* on the step's tmpfs: what a module is given may hold secrets */
#define VERSION_LEAST_MINOR 11             /* of ansible-core 2: older ones load plugins differently */

/* clang-format off */
#define ANSIBLE_ARGUMENTS(X)                                                                                     \
    X(playbook_file, TEXT) X(command, TEXT) X(extra_arguments, TEXTS) X(ansible_env_vars, TEXTS) X(groups, TEXTS)  \
    X(empty_groups, TEXTS) X(host_alias, TEXT) X(user, TEXT) X(inventory_directory, TEXT) X(inventory_file, TEXT)  \
    X(inventory_file_template, TEXT) X(keep_inventory_file, BOOL) X(galaxy_file, TEXT) X(galaxy_command, TEXT)     \
    X(galaxy_force_install, BOOL) X(galaxy_force_with_deps, BOOL) X(roles_path, TEXT) X(collections_path, TEXT)    \
    X(skip_version_check, BOOL) X(local_port, TEXT) X(ansible_ssh_extra_args, TEXTS) X(use_proxy, BOOL)            \
    X(use_sftp, BOOL) X(sftp_command, TEXT) X(ssh_host_key_file, TEXT) X(ssh_authorized_key_file, TEXT)            \
    X(ansible_proxy_key_type, TEXT) X(ansible_winrm_use_http, BOOL) X(ansible_proxy_host, TEXT)                    \
    X(ansible_proxy_bind_address, TEXT)
/* clang-format on */
ARGUMENTS_DEFINE(ANSIBLE_ARGUMENTS);

static const char *const ssh_only[] = {"local_port",
                                       "ansible_ssh_extra_args",
                                       "use_proxy",
                                       "use_sftp",
                                       "sftp_command",
                                       "ssh_host_key_file",
                                       "ssh_authorized_key_file",
                                       "ansible_proxy_key_type",
                                       "ansible_winrm_use_http",
                                       "ansible_proxy_host",
                                       "ansible_proxy_bind_address",
                                       NULL};

/* What would lead away from the guest, or ask at a terminal. @value: whether a value may follow as the next word. */
static const struct {
    const char *name;
    bool value;
} dropped[] = {{"-c", true},
               {"--connection", true},
               {"--ssh-common-args", true},
               {"--ssh-extra-args", true},
               {"--sftp-extra-args", true},
               {"--scp-extra-args", true},
               {"--private-key", true},
               {"--key-file", true},
               {"-k", false},
               {"--ask-pass", false},
               {"-K", false},
               {"--ask-become-pass", false}};

static bool check_environment(const json_t *args, const char **ret_argument, GError **error)
{
    g_auto(GStrv) vars = argument_texts(args, "ansible_env_vars");

    for (char **var = vars; *var; var++)
        if (!strchr(*var, '=') || **var == '=') {
            *ret_argument = "ansible_env_vars";
            return fail_code(error, KILN_ERROR_USAGE,
                             "'ansible_env_vars' must hold \"NAME=value\", not \"%s\"", *var);
        }
    return true;
}

static bool check_together(const json_t *args, const char *one, const char *other, const char **ret_argument,
                           GError **error)
{
    if (!argument_given(args, one) || !argument_given(args, other))
        return true;
    *ret_argument = other;
    return fail_code(error, KILN_ERROR_USAGE, "'%s' cannot stand beside '%s'", other, one);
}

static bool ansible_check(const json_t *args, const char **ret_argument, GError **error)
{
    if (!arguments_check(args, argument_specs, ret_argument, error) ||
        !check_environment(args, ret_argument, error))
        return false;
    if (!argument_given(args, "playbook_file"))
        return fail_code(error, KILN_ERROR_USAGE, "'playbook_file' is needed");
    return check_together(args, "inventory_file", "inventory_file_template", ret_argument, error) &&
           check_together(args, "inventory_file", "inventory_directory", ret_argument, error);
}

/* One play on its way. */
typedef struct Play {
    const json_t *args;
    const ProvisionerHost *host;
    Guest *guest;
    char *folder;   /* private */
    char *playbook; /* as the user wrote it */
    char **env;
    char *inventory;
    GPtrArray *useless; /* of char*: options that mean nothing here */
} Play;

static void play_clear(Play *play)
{
    if (play->folder)
        (void)file_remove_tree(AT_FDCWD, play->folder,
                               NULL); /* in the temporary folder: the step's outcome matters more */
    g_free(play->folder);
    g_free(play->playbook);
    g_strfreev(play->env);
    g_free(play->inventory);
    if (play->useless)
        g_ptr_array_unref(play->useless);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Play, play_clear)

static char *inside(const Play *play, const char *name)
{
    return g_build_filename(play->folder, name, NULL);
}

static void say(const Play *play, const char *line)
{
    play->host->say(line, false, play->host->arg);
}

/* --- the private folder --- */

/* Our plugins under the names that plays call. */
static bool lay_plugins(const Play *play, const char *kind, const char *file, const char *const *names,
                        GError **error)
{
    g_autofree char *helper = g_strdup_printf("ansible/%s/%s", kind, file), *target = NULL,
                    *folder = inside(play, kind);

    if (!libexec_find(helper, &target, error) || !file_make_dirs(folder, 0700, error))
        return false;
    g_autofree char *real = realpath(target, NULL);
    for (; *names; names++) {
        g_autofree char *link = g_strdup_printf("%s/%s.py", folder, *names);

        if (symlink(real ? real : target, link) < 0)
            return fail_errno(error, "make '%s'", link);
    }
    return true;
}

static bool make_folder(Play *play, GError **error)
{
    static const char *const connections[] = {"kiln",  "ssh",    "paramiko_ssh", "paramiko",
                                              "smart", "chroot", "docker",       NULL};
    static const char *const becomes[] = {"kiln", "sudo", "su", "doas", NULL};
    static const char *const callbacks[] = {"kiln_events", NULL}, *const actions[] = {"normal", NULL};
    static const char *const folders[] = {"home", "tmp", "roles", "collections", "inventory", NULL};

    if (!file_make_short_tmpdir(&play->folder, error))
        return false;
    for (size_t i = 0; folders[i]; i++) {
        g_autofree char *path = inside(play, folders[i]);

        if (!file_make_dirs(path, 0700, error))
            return false;
    }
    return lay_plugins(play, "connection", "kiln.py", connections, error) &&
           lay_plugins(play, "become", "kiln.py", becomes, error) &&
           lay_plugins(play, "callback", "kiln_events.py", callbacks, error) &&
           lay_plugins(play, "action", "normal.py", actions, error);
}

/* --- Ansible's environment --- */

static void set(Play *play, const char *name, const char *value)
{
    play->env = g_environ_setenv(play->env, name, value, TRUE);
}

static void set_inside(Play *play, const char *name, const char *relative)
{
    g_autofree char *path = inside(play, relative);

    set(play, name, path);
}

/* Ours first, then what the user's variable holds. */
static void set_joined(Play *play, const char *name, const char *ours, const char *separator)
{
    const char *theirs = g_environ_getenv(play->env, name);
    g_autofree char *both = theirs && *theirs ? g_strconcat(ours, separator, theirs, NULL) : g_strdup(ours);

    set(play, name, both);
}

static void set_plugins(Play *play, const char *name, const char *kind)
{
    g_autofree char *path = inside(play, kind);

    set_joined(play, name, path, ":");
}

static void keep_from_ours(Play *play, const char *name)
{
    if (g_getenv(name))
        set(play, name, g_getenv(name));
}

static void set_user_variables(Play *play)
{
    g_auto(GStrv) vars = argument_texts(play->args, "ansible_env_vars");

    for (char **var = vars; *var; var++) {
        g_autofree char *name = g_strndup(*var, strcspn(*var, "="));

        if (g_str_has_prefix(name, "ANSIBLE_SSH") || g_str_has_prefix(name, "ANSIBLE_HOST_KEY") ||
            g_str_has_prefix(name, "ANSIBLE_SCP"))
            g_ptr_array_add(play->useless, g_strdup(name));
        set(play, strcmp(name, "ANSIBLE_COLLECTIONS_PATHS") == 0 ? "ANSIBLE_COLLECTIONS_PATH" : name,
            strchr(*var, '=') + 1);
    }
}

/* A path of the template, whole, since Ansible reads relative ones its own way. */
static char *absolute_paths(const Play *play, const char *list)
{
    g_auto(GStrv) paths = g_strsplit(list, ":", -1);

    for (char **path = paths; *path; path++) {
        char *whole = NULL;

        if (!**path || !host_file_find_whole("ansible", *path, play->host, &whole, NULL))
            continue;
        g_free(*path);
        *path = whole;
    }
    return g_strjoinv(":", paths);
}

/* A given path, what galaxy installs for this step, what the user's variable names. */
static bool set_search_path(Play *play, const char *variable, const char *argument, const char *folder,
                            GError **error)
{
    g_autofree char *given = NULL, *paths = NULL, *installed = inside(play, folder), *both = NULL;

    if (!argument_expanded(play->args, argument, "", play->host, NULL, &given, error))
        return false;
    paths = absolute_paths(play, given);
    both = *paths ? g_strconcat(paths, ":", installed, NULL) : g_strdup(installed);
    set_joined(play, variable, both, ":");
    return true;
}

static bool set_config(Play *play, GError **error)
{
    g_autofree char *given = ansible_files_config(play->args, play->host),
                    *empty = inside(play, "ansible.cfg");

    if (!given && !file_replace(AT_FDCWD, empty, "[defaults]\n", 11, 0600, FILE_SYNC_NO, error))
        return false;
    set(play, "ANSIBLE_CONFIG", given ? given : empty);
    return true;
}

/* The guest's interpreter, where it stands where it should: Ansible's own search costs two commands and a fact. */
static bool set_interpreter(Play *play, GError **error)
{
    static const char *const pythons[] = {"/usr/bin/python3", "/usr/local/bin/python3",
                                          "/usr/libexec/platform-python", NULL};
    const char *found;

    if (!guest_first(play->guest, pythons, &found, error))
        return false;
    if (!found)
        say(play,
            "the guest has no python3, which Ansible's modules need; only raw and script tasks can work "
            "until one installs it (or: a packages step before this one)");
    if (!g_environ_getenv(play->env, "ANSIBLE_PYTHON_INTERPRETER"))
        set(play, "ANSIBLE_PYTHON_INTERPRETER", found ? found : "auto_silent");
    return true;
}

static bool make_environment(Play *play, GError **error)
{
    static const char *const kept[] = {"PATH",        "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY",
                                       "HTTPS_PROXY", "NO_PROXY",   "TMPDIR",      NULL};

    play->env = g_strdupv((char **)play->host->env);
    for (size_t i = 0; kept[i]; i++)
        keep_from_ours(play, kept[i]);
    set_inside(play, "HOME", "home");
    set(play, "PYTHONUNBUFFERED", "1");
    set(play, "ANSIBLE_NOCOLOR", "1");
    set_user_variables(play);
    set(play, "ANSIBLE_NOCOWS", "1");
    set(play, "ANSIBLE_FORCE_COLOR", "0");
    set_inside(play, "ANSIBLE_HOME", "home");
    set_inside(play, "ANSIBLE_LOCAL_TEMP", "tmp");
    set_inside(play, "KILN_ANSIBLE_SOCKET", "socket");
    set_inside(play, "KILN_ANSIBLE_EVENTS", "events");
    set(play, "ANSIBLE_TRANSPORT", "kiln");
    set(play, "ANSIBLE_BECOME_METHOD", "kiln");
    set(play, "ANSIBLE_PIPELINING", "1");
    set(play, "ANSIBLE_REMOTE_TEMP", REMOTE_FOLDER);
    set(play, "ANSIBLE_REMOTE_TMP", REMOTE_FOLDER);
    set(play, "ANSIBLE_RETRY_FILES_ENABLED", "0");
    set(play, "ANSIBLE_HOST_KEY_CHECKING", "0");
    set_plugins(play, "ANSIBLE_CONNECTION_PLUGINS", "connection");
    set_plugins(play, "ANSIBLE_BECOME_PLUGINS", "become");
    set_plugins(play, "ANSIBLE_CALLBACK_PLUGINS", "callback");
    set_plugins(play, "ANSIBLE_ACTION_PLUGINS", "action");
    set_joined(play, "ANSIBLE_CALLBACKS_ENABLED", "kiln_events", ",");
    return set_search_path(play, "ANSIBLE_ROLES_PATH", "roles_path", "roles", error) &&
           set_search_path(play, "ANSIBLE_COLLECTIONS_PATH", "collections_path", "collections", error) &&
           set_config(play, error) && set_interpreter(play, error);
}

/* --- running it --- */

/* Ansible's empty lines are for a terminal. */
static void pass_line(const char *line, bool is_stderr, void *arg)
{
    const ProvisionerHost *host = arg;

    if (*line)
        host->say(line, is_stderr, host->arg);
}

/* @who: what passes the step's limit. */
static bool run(const Play *play, const char *who, GPtrArray *argv, AnsibleServer *server, int *ret_code, GError **error)
{
    ProcessSpec spec = {.argv = (const char *const *)argv->pdata,
                        .env = (const char *const *)play->env,
                        .cwd = play->host->cwd,
                        .on_line = pass_line,
                        .arg = (void *)play->host,
                        .watch_fd = server ? ansible_server_fd(server) : 0,
                        .on_watch = ansible_server_answer,
                        .watch_arg = server};

    return host_run(&spec, play->host, who, ret_code, error);
}

static void add(GPtrArray *argv, const char *word)
{
    g_ptr_array_add(argv, g_strdup(word));
}

static bool check_version(const Play *play, GError **error)
{
    g_autofree char *command = argument_text(play->args, "command", "ansible-playbook"), *version = NULL,
                    *line = NULL;
    unsigned major = 0, minor = 0;

    if (!ansible_version_read(command, &version, error))
        return false;
    if (!*version || argument_bool(play->args, "skip_version_check", false))
        return true;
    line = g_strdup_printf("ansible %s", version);
    say(play, line);
    if (sscanf(version, "%u.%u", &major, &minor) == 2 &&
        (major > 2 || (major == 2 && minor >= VERSION_LEAST_MINOR)))
        return true;
    return fail(error,
                "ansible provisioner: %s is Ansible %s; 2.%d or newer is needed (skip_version_check = true "
                "tries it all the same)",
                command, version, VERSION_LEAST_MINOR);
}

/* --- galaxy --- */

static bool galaxy_install(Play *play, const char *file, bool collections, GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *command = argument_text(play->args, "galaxy_command", "ansible-galaxy"),
                    *into = inside(play, collections ? "collections" : "roles"),
                    *who = g_strdup_printf("%s of \"%s\"", command, file);
    int code = 0;

    add(argv, command);
    add(argv, collections ? "collection" : "role");
    add(argv, "install");
    add(argv, "-r");
    add(argv, file);
    add(argv, "-p");
    add(argv, into);
    if (argument_bool(play->args, "galaxy_force_install", false))
        add(argv, "-f");
    if (argument_bool(play->args, "galaxy_force_with_deps", false))
        add(argv, "--force-with-deps");
    g_ptr_array_add(argv, NULL);
    if (!run(play, who, argv, NULL, &code, error))
        return false;
    return code == 0 ||
           fail(error, "%s exited with %d for \"%s\"%s", command, code, file,
                play->host->network
                    ? ""
                    : "; without network (network = true) it can install only what lies on this disk");
}

/* A list is of roles; an object says which of both it has. */
static bool galaxy(Play *play, GError **error)
{
    g_autofree char *name = NULL, *file = NULL;
    g_autoptr(GBytes) bytes = NULL;

    if (!argument_expanded(play->args, "galaxy_file", NULL, play->host, NULL, &name, error))
        return false;
    if (!name)
        return true;
    if (!host_file_find_whole("ansible", name, play->host, &file, error) || !file_load(AT_FDCWD, file, HOST_TEXT_MAX, &bytes, error))
        return false;
    if (!play->host->network) /* servers fail at once, and not after a minute of silence */
        set(play, "ANSIBLE_GALAXY_SERVER", "http://127.0.0.1:9/");
    const char *text = g_bytes_get_data(bytes, NULL);
    bool has_collections = g_regex_match_simple("^collections:", text, G_REGEX_MULTILINE, 0);
    bool has_roles = g_regex_match_simple("^(roles:|- )", text, G_REGEX_MULTILINE, 0);

    return (!has_roles || galaxy_install(play, file, false, error)) &&
           (!has_collections || galaxy_install(play, file, true, error));
}

/* --- the command line --- */

static bool is_dropped(const char *word, bool *ret_takes_next)
{
    for (size_t i = 0; i < G_N_ELEMENTS(dropped); i++) {
        size_t n = strlen(dropped[i].name);

        if (strncmp(word, dropped[i].name, n) != 0 || (word[n] && !(word[n] == '=' && dropped[i].value)))
            continue;
        *ret_takes_next = dropped[i].value && !word[n];
        return true;
    }
    return false;
}

static bool add_extra_arguments(Play *play, GPtrArray *argv, GError **error)
{
    g_auto(GStrv) words = argument_texts(play->args, "extra_arguments");

    for (guint i = 0; words[i]; i++) {
        g_autofree char *word = NULL;
        bool takes_next = false;

        if (is_dropped(words[i], &takes_next)) {
            g_ptr_array_add(play->useless, g_strndup(words[i], strcspn(words[i], "=")));
            i += takes_next && words[i + 1];
        } else if (argument_expand(words[i], play->host, NULL, &word, error)) {
            g_ptr_array_add(argv, g_steal_pointer(&word));
        } else {
            return fail_prefix(error, "'extra_arguments'");
        }
    }
    return true;
}

static bool command_line(Play *play, GPtrArray *argv, GError **error)
{
    g_autofree char *command = argument_text(play->args, "command", "ansible-playbook"), *playbook = NULL;
    g_autoptr(json_t) vars = json_pack("{s:s,s:s}", "packer_build_name", play->host->build_name,
                                       "packer_builder_type", play->host->builder_type);

    if (!host_file_find_whole("ansible", play->playbook, play->host, &playbook, error))
        return false;
    add(argv, command);
    add(argv, "-e");
    g_ptr_array_add(argv, json_canonical(vars));
    if (!add_extra_arguments(play, argv, error))
        return false;
    add(argv, "-i");
    add(argv, play->inventory);
    add(argv, playbook);
    g_ptr_array_add(argv, NULL);
    return true;
}

static void tell_useless(const Play *play)
{
    g_autoptr(GString) line = g_string_new("without effect, since there is no SSH between kiln and a guest:");

    for (guint i = 0; i < play->useless->len; i++)
        g_string_append_printf(line, "%s %s", i ? "," : "", (const char *)play->useless->pdata[i]);
    if (play->useless->len)
        say(play, line->str);
}

static bool play_book(Play *play, GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(AnsibleServer) server = NULL;
    g_autofree char *socket = inside(play, "socket"), *events = inside(play, "events"),
                    *who = g_strdup_printf("playbook \"%s\"", play->playbook);
    g_autoptr(AnsibleEvents) seen = NULL;
    int code = 0;

    if (!command_line(play, argv, error))
        return false;
    tell_useless(play);
    if (!ansible_server_open(socket, play->host, play->guest, &server, error) ||
        !run(play, who, argv, server, &code, error))
        return false;
    seen = ansible_events_load(events);
    if (!ansible_events_tell(seen, play->host, play->guest, error))
        return false;
    return code == 0 || ansible_events_fail(seen, play->playbook, code, error);
}

static void collect_useless(Play *play)
{
    play->useless = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; ssh_only[i]; i++)
        if (argument_given(play->args, ssh_only[i]))
            g_ptr_array_add(play->useless, g_strdup(ssh_only[i]));
}

/* Every user that a task becomes makes folders of its own there. */
static bool make_remote_folder(const Play *play, GError **error)
{
    const GuestFile meta = {.mode = 01777, .mtime = play->host->epoch};

    return play->guest->ops->mkdir(play->guest, REMOTE_FOLDER, &meta, error);
}

/* What modules left in the guest is on the step's tmpfs; where a guest has none (tests) it goes here. */
static bool tidy(const Play *play, GError **error)
{
    return play->guest->ops->remove(play->guest, REMOTE_FOLDER, error) &&
           play->guest->ops->remove(play->guest, ANSIBLE_INPUT_PATH, error);
}

static bool ansible_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    g_auto(Play) play = {.args = args, .host = host, .guest = guest};

    collect_useless(&play);
    return argument_expanded(args, "playbook_file", "", host, NULL, &play.playbook, error) &&
           make_folder(&play, error) && make_remote_folder(&play, error) && check_version(&play, error) &&
           make_environment(&play, error) &&
           ansible_inventory_make(args, host, play.folder, &play.inventory, error) && galaxy(&play, error) &&
           play_book(&play, error) && tidy(&play, error);
}

const ProvisionerOps provisioner_ansible = {
    .type = "ansible",
    .arguments = argument_names,
    .needs_guest = true,
    .check = ansible_check,
    .inputs = ansible_files_inputs,
    .reaches_outside = ansible_text_reaches_outside,
    .run = ansible_run,
    .volatile_with_network = true,
};
