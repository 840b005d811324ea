/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uploads are those of the file provisioner: modes kept, links kept, times SOURCE_DATE_EPOCH.
 */
#include "provisioner/staging.h"

#include "base/error.h"
#include "provisioner/arguments.h"
#include "provisioner/guest-file.h"
#include "provisioner/host-file.h"
#include "provisioner/members.h"

#include <string.h>

#define NO_TOOL 199 /* an exit code that no tool of these has */

void staging_clear(Staging *s)
{
    g_free(s->folder);
}

bool staging_check_system(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *system = argument_text(args, "guest_os_type", "unix");

    if (strcmp(system, "unix") == 0)
        return true;
    *ret_argument = "guest_os_type";
    return fail_code(error, KILN_ERROR_USAGE,
                     "only guests of type \"unix\" can be baked: Windows would have to boot");
}

bool staging_open(Staging *s, const char *who, const json_t *args, const ProvisionerHost *host, Guest *guest,
                  const char *otherwise, GError **error)
{
    const char *bare = strrchr(otherwise, '/');

    *s = (Staging){.who = who, .args = args, .host = host, .guest = guest};
    s->clean = argument_bool(args, "clean_staging_directory", !argument_given(args, "staging_directory"));
    if (!argument_expanded(args, "staging_directory", NULL, host, NULL, &s->folder, error))
        return false;
    if (!s->folder)
        s->folder = host->secret ? g_strconcat("/run", bare, NULL) : g_strdup(otherwise);
    if (s->folder[0] != '/' || strspn(s->folder, "/") == strlen(s->folder))
        return fail(error,
                    "%s provisioner: 'staging_directory' must be an absolute path in the guest, not \"%s\"",
                    who, s->folder);
    return guest->ops->mkdir(guest, s->folder, NULL, error);
}

bool staging_close(Staging *s, GError **error)
{
    return !s->clean || s->guest->ops->remove(s->guest, s->folder, error);
}

char *staging_path(const Staging *s, const char *name)
{
    return g_build_filename(s->folder, name, NULL);
}

bool staging_put(const Staging *s, const char *source, const char *name, GError **error)
{
    g_autofree char *to = staging_path(s, name), *found = NULL, *from = NULL;
    g_autoptr(json_t) args = NULL;
    struct stat st;

    if (!host_file_find(s->who, source, s->host, &found, &st, error))
        return false;
    from = S_ISDIR(st.st_mode) ? g_strconcat(found, "/", NULL) : g_strdup(found);
    args = json_pack("{s:s,s:s}", "source", from, "destination", to);
    return provisioner_file.run(args, s->host, s->guest, error);
}

bool staging_put_argument(const Staging *s, const char *argument, const char *name, char **ret_path,
                          GError **error)
{
    g_autofree char *source = NULL;

    if (!argument_expanded(s->args, argument, NULL, s->host, NULL, &source, error) ||
        (source && !staging_put(s, source, name, error)))
        return false;
    if (ret_path)
        *ret_path = source ? staging_path(s, name) : g_strdup("");
    return true;
}

bool staging_put_each(const Staging *s, const char *argument, const char *name, char ***ret_paths,
                      GError **error)
{
    g_auto(GStrv) paths = NULL;

    if (!argument_expanded_list(s->args, argument, s->host, &paths, error))
        return false;
    for (guint i = 0; paths[i]; i++) {
        g_autofree char *numbered = g_strdup_printf("%s-%u", name, i);

        if (!staging_put(s, paths[i], numbered, error))
            return false;
        g_free(paths[i]);
        paths[i] = staging_path(s, numbered);
    }
    *ret_paths = g_steal_pointer(&paths);
    return true;
}

bool staging_put_text(const Staging *s, const char *text, const char *name, GError **error)
{
    const GuestFile meta = {.mode = 0644, .mtime = s->host->epoch};
    g_autofree char *to = staging_path(s, name);

    return guest_put_bytes(s->guest, to, text, strlen(text), &meta, error);
}

bool staging_inputs(const char *who, const json_t *args, const char *const *names,
                    const ProvisionerHost *host, GPtrArray *inputs, GError **error)
{
    for (; *names; names++) {
        g_auto(GStrv) files = NULL;

        if (!argument_expanded_list(args, *names, host, &files, error))
            return false;
        for (char **file = files; *file; file++)
            if (!host_file_add_inputs(who, *file, host, inputs, error))
                return false;
    }
    return true;
}

bool staging_run(const Staging *s, const char *tool, const char *package, const char *command,
                 const char *const *env, int *ret_code, GError **error)
{
    g_autofree char *quoted = tool ? g_shell_quote(tool) : NULL;
    g_autofree char *script =
        tool ? g_strdup_printf("command -v %s >/dev/null || exit %d; %s", quoted, NO_TOOL, command)
             : g_strdup(command);

    if (!guest_sh(s->guest, s->host, script, NULL, env, ret_code, error))
        return false;
    return *ret_code != NO_TOOL ||
           fail(error,
                "%s provisioner: the guest has no '%s'; install it there in a step before this one (%s)",
                s->who, tool, package);
}
