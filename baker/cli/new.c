/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln new: a starter template that bakes as it stands, to be changed. Nothing that exists is overwritten.
 */
#include "baker/cli/cli.h"

#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const text_start =
    "# A Debian 12 machine with one page, as a bootable disk.\n"
    "#\n"
    "#   kiln validate .\n"
    "#   kiln bake .\n"
    "#   kiln boot @NAME@\n"
    "\n"
    "variable \"size\" {\n"
    "  type        = string\n"
    "  default     = \"2G\"\n"
    "  description = \"Size of the disk.\"\n"
    "}\n"
    "\n"
    "source \"bootstrap\" \"debian\" {\n"
    "  suite = \"bookworm\"\n"
    "  size  = var.size\n"
    "}\n"
    "\n"
    "build {\n"
    "  name    = \"@NAME@\"\n"
    "  sources = [\"source.bootstrap.debian\"]\n"
    "\n"
    "  provisioner \"packages\" {\n"
    "    install = [\"nginx-light\"]\n"
    "    network = true\n"
    "  }\n"
    "\n"
    "  provisioner \"file\" {\n"
    "    source      = \"${path.root}/files/index.html\"\n"
    "    destination = \"/var/www/html/index.html\"\n"
    "  }\n"
    "\n"
    "  output \"disk\" {}\n"
    "}\n";

static const char *const page = "<!DOCTYPE html>\n<title>@NAME@</title>\n<h1>@NAME@</h1>\n";

/* A build's name from the folder's: what a name may not hold becomes '-'. */
static char *build_name(const char *dir)
{
    g_autofree char *full = g_canonicalize_filename(dir, NULL);
    g_autofree char *base = g_path_get_basename(full);
    g_autofree char *lower = g_ascii_strdown(base, -1);

    for (char *p = lower; *p; p++)
        if (!g_ascii_isalnum(*p) && !strchr("._-", *p))
            *p = '-';
    if (!g_ascii_isalnum(lower[0]) || (strlen(lower) >= 12 && strspn(lower, "0123456789abcdef") == strlen(lower)))
        return g_strdup_printf("image-%.100s", lower);
    return g_strndup(lower, 100);
}

static bool write_new(const char *dir, const char *path, const char *pattern, const char *name, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(pattern, "@NAME@", -1);
    g_autofree char *text = g_strjoinv(name, parts);
    g_autofree char *full = g_build_filename(dir, path, NULL);
    int fd = open(full, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    bool ok;

    if (fd < 0)
        return fail_errno(error, "make '%s'", full);
    ok = file_write_full(fd, text, strlen(text), full, error);
    (void)close(fd);
    if (ok)
        printf("%s\n", full);
    return ok;
}

int verb_new(CliContext *cli, int argc, char **argv)
{
    const CliOption options[] = {{NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL, *name = NULL, *file = NULL, *files = NULL, *whole = NULL;
    g_autoptr(GError) error = NULL;
    const char *dir;

    if (!cli_parse(options, "new DIR", argc, argv, 1, 1, &arguments, &error))
        return cli_fail(cli, error);
    dir = arguments[0];
    name = build_name(dir);
    file = g_strconcat(name, ".pkr.hcl", NULL);
    whole = g_build_filename(dir, file, NULL);
    files = g_build_filename(dir, "files", NULL);
    if (g_file_test(whole, G_FILE_TEST_EXISTS))
        fail_code(&error, KILN_ERROR_USAGE, "'%s' exists already; a starter template is made in a folder of its own", whole);
    else if (file_make_dirs(files, 0755, &error) && write_new(dir, file, text_start, name, &error))
        (void)write_new(dir, "files/index.html", page, name, &error);
    return error ? cli_fail(cli, error) : 0;
}
