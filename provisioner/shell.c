/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioner "shell": scripts in the guest, with Packer's options.
 *
 * For each script: put it (0755) into remote_folder, expand execute_command, run that by /bin/sh -c, compare
 * the exit code, remove it. The default remote_folder is /tmp, as templates expect; /run, a tmpfs of the step,
 * where the texts may hold secrets: what was removed from a disk can still be read there.
 *
 * The script's name is a number, not a random one as Packer has it: a script that prints $0 into a file must
 * give equal bytes twice. Steps run as root on a guest that is not booted: expect_disconnect,
 * start_retry_timeout and pause_after are taken and mean nothing.
 */
#include "base/error.h"
#include "base/file.h"
#include "provisioner/arguments.h"
#include "provisioner/guest-file.h"
#include "provisioner/host-file.h"
#include "provisioner/members.h"
#include "provisioner/shell-text.h"

#include <fcntl.h>
#include <string.h>

#define SCRIPT_SIZE_MAX (64u << 20)

/* clang-format off */
#define SHELL_ARGUMENTS(X)                                                                                \
    X(inline, TEXTS) X(inline_shebang, TEXT) X(script, TEXT) X(scripts, TEXTS) X(environment_vars, TEXTS) \
    X(env, MAP) X(env_var_format, TEXT) X(use_env_var_file, BOOL) X(execute_command, TEXT)                \
    X(remote_folder, TEXT) X(remote_file, TEXT) X(remote_path, TEXT) X(skip_clean, BOOL) X(binary, BOOL)  \
    X(valid_exit_codes, CODES) X(expect_disconnect, BOOL) X(start_retry_timeout, DURATION)                \
    X(pause_after, DURATION)
/* clang-format on */
ARGUMENTS_DEFINE(SHELL_ARGUMENTS);

static const char *const sources[] = {"inline", "script", "scripts", NULL};

static bool shell_check(const json_t *args, const char **ret_argument, GError **error)
{
    if (!arguments_check(args, argument_specs, ret_argument, error) ||
        !arguments_exactly_one(args, sources, ret_argument, error) ||
        !arguments_check_environment(args, ret_argument, error) ||
        !shell_text_check_format(args, ret_argument, error))
        return false;
    if (argument_given(args, "remote_path") &&
        (argument_given(args, "remote_folder") || argument_given(args, "remote_file"))) {
        *ret_argument = "remote_path";
        return fail_code(error, KILN_ERROR_USAGE,
                         "'remote_path' cannot stand beside 'remote_folder' or 'remote_file'");
    }
    return true;
}

static bool shell_inputs(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs, GError **error)
{
    g_auto(GStrv) scripts = NULL;

    if (!shell_text_scripts(args, host, &scripts, error))
        return false;
    for (char **s = scripts; *s; s++)
        if (!host_file_add_inputs("shell", *s, host, inputs, error))
            return false;
    return true;
}

/* One script on its way through the guest. */
typedef struct Run {
    const json_t *args;
    const ProvisionerHost *host;
    Guest *guest;
    char *path;     /* in the guest */
    char *env_file; /* in the guest, or NULL */
    char *title;    /* for messages: script "setup.sh" */
} Run;

static void run_clear(Run *run)
{
    g_free(run->path);
    g_free(run->env_file);
    g_free(run->title);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Run, run_clear)

static char *remote_name(const Run *run, unsigned number, const char *pattern)
{
    g_autofree char *folder = argument_text(run->args, "remote_folder", run->host->secret ? "/run" : "/tmp");
    g_autofree char *fallback =
        g_strdup_printf("%s_%04u%s", pattern, number, strcmp(pattern, "script") == 0 ? ".sh" : "");
    g_autofree char *file = strcmp(pattern, "script") == 0 ? argument_text(run->args, "remote_file", fallback)
                                                           : g_strdup(fallback);
    g_autofree char *path = argument_text(run->args, "remote_path", NULL);

    if (path && strcmp(pattern, "script") == 0)
        return g_steal_pointer(&path);
    return g_build_filename("/", folder, file, NULL);
}

static bool put_env_file(Run *run, GError **error)
{
    const GuestFile meta = {.mode = 0600, .mtime = run->host->epoch};
    g_autofree char *format = argument_text(run->args, "env_var_format", "export %s='%s'\n");
    g_autofree char *text = NULL;

    return shell_text_vars(run->args, run->host, format, &text, error) &&
           guest_put_bytes(run->guest, run->env_file, text, strlen(text), &meta, error);
}

static bool command_line(Run *run, char **ret, GError **error)
{
    const char *otherwise = run->env_file ? "chmod +x {{.Path}}; . {{.EnvVarFile}} && {{.Path}}"
                                          : "chmod +x {{.Path}}; {{.Vars}} {{.Path}}";
    g_autofree char *format = argument_text(run->args, "env_var_format", "%s='%s' ");
    g_autofree char *vars = NULL;

    if (!shell_text_vars(run->args, run->host, format, &vars, error))
        return false;
    const char *const fields[] = {"Path",       run->path,
                                  "Vars",       run->env_file ? "" : vars,
                                  "EnvVarFile", run->env_file ? run->env_file : "",
                                  NULL};
    return argument_expanded(run->args, "execute_command", otherwise, run->host, fields, ret, error);
}

static bool execute(Run *run, GError **error)
{
    g_autofree char *command = NULL, *codes = NULL;
    int code = 0;

    if (!command_line(run, &command, error) ||
        !guest_sh(run->guest, run->host, command, NULL, NULL, &code, error))
        return false;
    if (argument_code_is_valid(run->args, "valid_exit_codes", code, &codes))
        return true;
    if (code == 127 && strstr(command, "sudo"))
        return fail(error,
                    "%s exited with 127: execute_command names sudo, which the guest may not have; "
                    "steps run as root, so it can be left out",
                    run->title);
    return fail(error, "%s exited with %d; valid codes are %s", run->title, code, codes);
}

static bool clean(Run *run, GError **error)
{
    if (argument_bool(run->args, "skip_clean", false))
        return true;
    return run->guest->ops->remove(run->guest, run->path, error) &&
           (!run->env_file || run->guest->ops->remove(run->guest, run->env_file, error));
}

static bool run_text(Run *run, GString *text, GError **error)
{
    const GuestFile meta = {.mode = 0755, .mtime = run->host->epoch};

    if (!argument_bool(run->args, "binary", false))
        shell_text_strip_cr(text);
    if (!guest_put_bytes(run->guest, run->path, text->str, text->len, &meta, error))
        return fail_prefix(error, "put %s into the guest", run->title);
    if (run->env_file && !put_env_file(run, error))
        return false;
    if (!execute(run, error))
        return false; /* left in place: the caller drops the whole step */
    return clean(run, error);
}

static bool load_script(const char *name, const ProvisionerHost *host, GString **ret, GError **error)
{
    g_autofree char *path = NULL;
    g_autoptr(GBytes) bytes = NULL;
    struct stat st;

    if (!host_file_find("shell", name, host, &path, &st, error) ||
        !file_load(AT_FDCWD, path, SCRIPT_SIZE_MAX, &bytes, error))
        return false;
    *ret = g_string_new_len(g_bytes_get_data(bytes, NULL), (gssize)g_bytes_get_size(bytes));
    return true;
}

static bool run_one(const json_t *args, const ProvisionerHost *host, Guest *guest, const char *script,
                    unsigned number, GError **error)
{
    g_auto(Run) run = {.args = args, .host = host, .guest = guest};
    g_autoptr(GString) text = NULL;
    g_autofree char *shebang = argument_text(args, "inline_shebang", "/bin/sh -e");

    run.title = script ? g_strdup_printf("script \"%s\"", script) : g_strdup("inline script");
    run.path = remote_name(&run, number, "script");
    run.env_file =
        argument_bool(args, "use_env_var_file", false) ? remote_name(&run, number, "varfile") : NULL;
    if (!(script ? load_script(script, host, &text, error)
                 : shell_text_inline(args, host, shebang, &text, error)))
        return false;
    return run_text(&run, text, error);
}

static bool shell_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    g_auto(GStrv) scripts = NULL;
    char type;

    if (!guest_type(guest, "/bin/sh", &type, error))
        return false;
    if (!type)
        return fail(error, "shell provisioner: the guest has no /bin/sh");
    if (!shell_text_scripts(args, host, &scripts, error))
        return false;
    if (argument_given(args, "inline"))
        return run_one(args, host, guest, NULL, 1, error);
    for (unsigned i = 0; scripts[i]; i++)
        if (!run_one(args, host, guest, scripts[i], i + 1, error))
            return false;
    return true;
}

const ProvisionerOps provisioner_shell = {
    .type = "shell",
    .arguments = argument_names,
    .needs_guest = true,
    .check = shell_check,
    .inputs = shell_inputs,
    .run = shell_run,
    .volatile_with_network = true,
};
