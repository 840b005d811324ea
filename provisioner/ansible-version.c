/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ansible counts by the files that state its version, its own and those of the collections that come with it: to ask the program would
 * cost most of a second at every plan.
 */
#include "provisioner/ansible-version.h"

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "provisioner/arguments.h"
#include "provisioner/host-file.h"
#include "provisioner/provisioner.h"

#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RELEASE_MAX (64u << 10)

/* The interpreter that a script's first line names. */
static char *interpreter_of(const char *path)
{
    char line[PATH_MAX] = "";
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);

    if (n < 3 || strncmp(line, "#!", 2) != 0)
        return NULL;
    line[strcspn(line, "\n")] = '\0';
    return g_strndup(line + 2, strcspn(line + 2, " \t"));
}

static char *first_match(const char *const *patterns, const char *file)
{
    for (; *patterns; patterns++) {
        g_autofree char *pattern = g_build_filename(*patterns, file, NULL);
        glob_t found = {0};
        char *path =
            glob(pattern, 0, NULL, &found) == 0 ? g_strdup(found.gl_pathv[found.gl_pathc - 1]) : NULL;

        globfree(&found);
        if (path)
            return path;
    }
    return NULL;
}

/* @file in the folder of Python packages that @program runs with. */
static char *find_package_file(const char *program, const char *file)
{
    g_autofree char *real = realpath(program, NULL), *python = interpreter_of(real ? real : program);
    g_autofree char *bin = g_path_get_dirname(python ? python : "/usr/bin/python3"),
                    *prefix = g_path_get_dirname(bin);
    g_autofree char *site = g_strconcat(prefix, "/lib/python3*/site-packages", NULL),
                    *dist = g_strconcat(prefix, "/lib/python3*/dist-packages", NULL);
    const char *const patterns[] = {site, "/usr/local/lib/python3*/dist-packages", dist,
                                    "/usr/lib/python3/dist-packages", NULL};

    return first_match(patterns, file);
}

static bool find_command(const char *command, char **ret, GError **error)
{
    *ret = g_find_program_in_path(command);
    return *ret ||
           fail_code(error, KILN_ERROR_NOT_FOUND,
                     "ansible provisioner: '%s' is not installed on this machine (Debian: apt install "
                     "ansible-core)",
                     command);
}

bool ansible_version_read(const char *command, char **ret, GError **error)
{
    g_autofree char *program = NULL, *release = NULL;
    g_autoptr(GBytes) text = NULL;
    const char *quote;

    if (!find_command(command, &program, error))
        return false;
    release = find_package_file(program, "ansible/release.py");
    *ret = g_strdup("");
    if (!release || !file_load(AT_FDCWD, release, RELEASE_MAX, &text, NULL))
        return true;
    quote = strstr(g_bytes_get_data(text, NULL), "__version__ = '");
    if (quote) {
        g_free(*ret);
        *ret = g_strndup(quote + 15, strcspn(quote + 15, "'"));
    }
    return true;
}

/* A wrapper, a zipapp: only it knows. */
static bool add_stated_version(GPtrArray *inputs, const char *program, GError **error)
{
    const char *const argv[] = {program, "--version", NULL};
    g_autofree char *text = NULL;
    ProvisionerInput *input;

    if (!process_capture(argv, RELEASE_MAX, &text, error))
        return fail_prefix(error, "ask Ansible for its version");
    input = g_new0(ProvisionerInput, 1);
    *input = (ProvisionerInput){
        .name = g_strdup("ansible --version"), .path = g_strdup(program), .mode = S_IFREG | 0755};
    digest_of_string(text, &input->digest);
    g_ptr_array_add(inputs, input);
    return true;
}

bool ansible_version_inputs(const json_t *args, GPtrArray *inputs, GError **error)
{
    g_autofree char *command = argument_text(args, "command", "ansible-playbook"), *program = NULL,
                    *core = NULL, *community = NULL;
    struct stat st;

    if (!find_command(command, &program, error))
        return false;
    core = find_package_file(program, "ansible/release.py");
    community = find_package_file(program, "ansible_collections/ansible_release.py");
    if (!core)
        return add_stated_version(inputs, program, error);
    if (stat(core, &st) < 0 || !host_file_add_entry("ansible/release.py", core, &st, inputs, error))
        return false;
    return !community || stat(community, &st) < 0 ||
           host_file_add_entry("ansible_collections/ansible_release.py", community, &st, inputs, error);
}
