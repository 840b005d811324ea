/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioner "shell-local": commands on the host, with Packer's options.
 *
 * They run as the user who bakes, in kiln's working directory, with the user's environment, and are as
 * trusted as the template's author is. Nothing of what they do is known to kiln, so they run in every bake, unless the
 * template says what they read (`inputs`) and what they make (`outputs`).
 * `inline` and `command` become a script in a private folder.
 */
#include "base/error.h"
#include "base/file.h"
#include "provisioner/arguments.h"
#include "provisioner/host-file.h"
#include "provisioner/host-run.h"
#include "provisioner/members.h"
#include "provisioner/shell-text.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* clang-format off */
#define SHELL_LOCAL_ARGUMENTS(X)                                                                      \
    X(command, TEXT) X(inline, TEXTS) X(inline_shebang, TEXT) X(script, TEXT) X(scripts, TEXTS)       \
    X(environment_vars, TEXTS) X(env, MAP) X(env_var_format, TEXT) X(execute_command, TEXTS)          \
    X(only_on, TEXTS) X(use_linux_pathing, BOOL) X(tempfile_extension, TEXT) X(valid_exit_codes, CODES)           \
    X(outputs, TEXTS)
/* clang-format on */
ARGUMENTS_DEFINE(SHELL_LOCAL_ARGUMENTS);

static const char *const sources[] = {"command", "inline", "script", "scripts", NULL};

static bool check_systems(const json_t *args, const char **ret_argument, GError **error)
{
    static const char *const known[] = {"windows", "linux",  "darwin",  "freebsd",
                                        "openbsd", "netbsd", "solaris", NULL};
    g_auto(GStrv) systems = argument_texts(args, "only_on");

    for (char **s = systems; *s; s++)
        if (!g_strv_contains(known, *s)) {
            *ret_argument = "only_on";
            return fail_code(error, KILN_ERROR_USAGE,
                             "\"%s\" in 'only_on' is no known system, such as \"linux\"", *s);
        }
    return true;
}

static bool shell_local_check(const json_t *args, const char **ret_argument, GError **error)
{
    g_auto(GStrv) command = argument_texts(args, "execute_command");

    if (!arguments_check(args, argument_specs, ret_argument, error) ||
        !arguments_exactly_one(args, sources, ret_argument, error) ||
        !arguments_check_environment(args, ret_argument, error) ||
        !shell_text_check_format(args, ret_argument, error) || !check_systems(args, ret_argument, error))
        return false;
    if (argument_given(args, "execute_command") && !command[0]) {
        *ret_argument = "execute_command";
        return fail_code(error, KILN_ERROR_USAGE, "'execute_command' must name a program");
    }
    return true;
}

static char **shell_local_outputs(const json_t *args)
{
    return argument_texts(args, "outputs");
}

static bool shell_local_inputs(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs,
                               GError **error)
{
    g_auto(GStrv) scripts = NULL;

    if (!shell_text_scripts(args, host, &scripts, error))
        return false;
    for (char **s = scripts; *s; s++)
        if (!host_file_add_inputs("shell-local", *s, host, inputs, error))
            return false;
    return true;
}

/* Packer's whole environment, plus what makes the host's tools give equal results; the step's TZ and locale
 * are the guest's. */
static char **environment(const ProvisionerHost *host)
{
    char **env = g_get_environ();

    for (const char *const *e = host->env; e && *e; e++) {
        g_auto(GStrv) pair = g_strsplit(*e, "=", 2);
        if (pair[0] && pair[1] &&
            (g_str_has_prefix(pair[0], "PACKER_") || g_str_has_prefix(pair[0], "KILN_") || strcmp(pair[0], "SOURCE_DATE_EPOCH") == 0))
            env = g_environ_setenv(env, pair[0], pair[1], TRUE);
    }
    return env;
}

static bool expand_command(const json_t *args, const ProvisionerHost *host, const char *script, char ***ret,
                           GError **error)
{
    static const char *const otherwise[] = {"/bin/sh", "-c", "{{.Vars}} {{.Script}}", NULL};
    g_auto(GStrv) command = argument_given(args, "execute_command") ? argument_texts(args, "execute_command")
                                                                    : g_strdupv((char **)otherwise);
    g_autofree char *format = argument_text(args, "env_var_format", "%s='%s' ");
    g_autofree char *vars = NULL;

    if (!shell_text_vars(args, host, format, &vars, error))
        return false;
    const char *const fields[] = {"Vars", vars, "Script", script, "Command", script, NULL};
    for (char **word = command; *word; word++) {
        char *expanded;
        if (!argument_expand(*word, host, fields, &expanded, error))
            return fail_prefix(error, "'execute_command'");
        g_free(*word);
        *word = expanded;
    }
    *ret = g_steal_pointer(&command);
    return true;
}

static bool execute(const json_t *args, const ProvisionerHost *host, const char *script, const char *title,
                    GError **error)
{
    g_auto(GStrv) argv = NULL;
    g_auto(GStrv) env = environment(host);
    g_autofree char *codes = NULL, *who = g_strdup_printf("%s on the host", title);
    int code = 0;

    if (!expand_command(args, host, script, &argv, error))
        return false;
    ProcessSpec spec = {.argv = (const char *const *)argv,
                        .env = (const char *const *)env,
                        .cwd = host->cwd,
                        .on_line = host->say,
                        .arg = host->arg};
    if (!host_run(&spec, host, who, &code, error))
        return false;
    if (argument_code_is_valid(args, "valid_exit_codes", code, &codes))
        return true;
    if (code == 126)
        return fail(error, "%s on the host exited with 126: it is not executable (chmod +x)", title);
    return fail(error, "%s on the host exited with %d; valid codes are %s", title, code, codes);
}

/* `command` is a list of one. */
static bool inline_text(const json_t *args, const ProvisionerHost *host, GString **ret, GError **error)
{
    g_autofree char *shebang = argument_text(args, "inline_shebang", "/bin/sh -e");
    g_autofree char *command = argument_text(args, "command", NULL);

    if (!command)
        return shell_text_inline(args, host, shebang, ret, error);
    g_autoptr(json_t) as_inline = json_pack("{s:[s]}", "inline", command);
    return shell_text_inline(as_inline, host, shebang, ret, error);
}

static bool run_inline(const json_t *args, const ProvisionerHost *host, GError **error)
{
    g_autofree char *extension = argument_text(args, "tempfile_extension", ""), *folder = NULL, *path = NULL;
    g_autoptr(GString) text = NULL;
    const char *dot = *extension && *extension != '.' ? "." : "";
    bool ok;

    if (!inline_text(args, host, &text, error) || !file_make_short_tmpdir(&folder, error))
        return false;
    path = g_strdup_printf("%s/script%s%s", folder, dot, extension);
    ok = file_replace(AT_FDCWD, path, text->str, text->len, 0700, FILE_SYNC_NO, error) &&
         execute(args, host, path, "inline script", error);
    (void)file_remove_tree(AT_FDCWD, folder,
                           NULL); /* in the temporary folder: the script's own outcome matters more */
    return ok;
}

static bool run_script(const json_t *args, const ProvisionerHost *host, const char *name, GError **error)
{
    g_autofree char *title = g_strdup_printf("script \"%s\"", name), *found = NULL, *path = NULL;
    struct stat st;

    if (!host_file_find("shell-local", name, host, &found, &st, error))
        return false;
    path = g_canonicalize_filename(found, NULL); /* the working directory may be another one */
    return execute(args, host, path, title, error);
}

static bool shell_local_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    g_auto(GStrv) systems = argument_texts(args, "only_on");
    g_auto(GStrv) scripts = NULL;

    if (systems[0] && !g_strv_contains((const char *const *)systems, "linux")) {
        host->say("left out: 'only_on' does not name linux", false, host->arg);
        return true;
    }
    if (!shell_text_scripts(args, host, &scripts, error))
        return false;
    if (!scripts[0] && !argument_given(args, "script") && !argument_given(args, "scripts"))
        return run_inline(args, host, error);
    for (char **s = scripts; *s; s++)
        if (!run_script(args, host, *s, error))
            return false;
    return true;
}

const ProvisionerOps provisioner_shell_local = {
    .type = "shell-local",
    .arguments = argument_names,
    .check = shell_local_check,
    .inputs = shell_local_inputs,
    .run = shell_local_run,
    .always_runs = true,
    .outputs = shell_local_outputs,
};
