/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln export: an image as a file or folder, replaced atomically.
 */
#include "baker/cli/cli.h"

#include "base/file.h"
#include "base/scope.h"
#include "base/units.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef enum ExportFormat { EXPORT_RAW, EXPORT_QCOW2, EXPORT_OCI_ARCHIVE, EXPORT_OCI_DIR } ExportFormat;

static const char *const format_names[] = {"raw", "qcow2", "oci-archive", "oci-dir", NULL};
static const char *const format_kinds[] = {"disk", "disk", "oci", "oci"};

static bool format_by_name(const char *name, ExportFormat *ret, GError **error)
{
    const char *near;

    for (int i = 0; format_names[i]; i++)
        if (strcmp(format_names[i], name) == 0) {
            *ret = (ExportFormat)i;
            return true;
        }
    near = units_nearest(name, format_names);
    return fail_code(error, KILN_ERROR_USAGE, "unknown format '%s'%s%s%s; there are raw, qcow2, oci-archive and oci-dir",
                     name, near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static bool format_by_suffix(const char *file, ExportFormat *ret, GError **error)
{
    static const struct {
        const char *suffix;
        ExportFormat format;
    } suffixes[] = {{".raw", EXPORT_RAW}, {".img", EXPORT_RAW}, {".qcow2", EXPORT_QCOW2}, {".tar", EXPORT_OCI_ARCHIVE}};

    for (size_t i = 0; i < G_N_ELEMENTS(suffixes); i++)
        if (g_str_has_suffix(file, suffixes[i].suffix)) {
            *ret = suffixes[i].format;
            return true;
        }
    if (g_str_has_suffix(file, "/") || g_file_test(file, G_FILE_TEST_IS_DIR)) {
        *ret = EXPORT_OCI_DIR;
        return true;
    }
    return fail_code(error, KILN_ERROR_USAGE,
                     "the name '%s' does not tell the format: give --format=raw, qcow2, oci-archive or oci-dir", file);
}

static bool write_disk(Store *store, const StoreImage *image, ExportFormat format, int fd, GError **error)
{
    g_autoptr(StoreMap) map = NULL;

    if (!store_map_open(store, &image->map, &map, error))
        return false;
    return format == EXPORT_RAW ? disk_export_raw(map, fd, error) : disk_export_qcow2(map, fd, error);
}

/* Beside the target, so that the rename stays within one file system. */
static bool export_disk_file(Store *store, const StoreImage *image, ExportFormat format, const char *file,
                             GError **error)
{
    g_autofree char *temp = g_strdup_printf("%s.kiln-%d.tmp", file, (int)getpid());
    auto_fd int fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    if (fd < 0)
        return fail_errno(error, "create '%s'", temp);
    if (!write_disk(store, image, format, fd, error)) {
        (void)unlink(temp);
        return fail_prefix(error, "export to '%s'", file);
    }
    if (fdatasync(fd) < 0 || rename(temp, file) < 0) {
        (void)fail_errno(error, "write '%s'", file);
        (void)unlink(temp);
        return false;
    }
    return true;
}

static bool export_image(Store *store, const char *ref, const char *file, ExportFormat format, GError **error)
{
    g_autoptr(StoreImage) image = NULL;

    if (!store_resolve(store, ref, format_kinds[format], &image, error))
        return false;
    if (format == EXPORT_OCI_ARCHIVE || format == EXPORT_OCI_DIR)
        return oci_export(store, image, format == EXPORT_OCI_DIR ? OCI_DIR : OCI_ARCHIVE, file, image->name, error);
    if (strcmp(file, "-") == 0) {
        if (isatty(STDOUT_FILENO))
            return fail_code(error, KILN_ERROR_USAGE, "a disk is not written to a terminal: redirect the output");
        return write_disk(store, image, format, STDOUT_FILENO, error);
    }
    return export_disk_file(store, image, format, file, error);
}

int verb_export(CliContext *cli, int argc, char **argv)
{
    const char *name = NULL;
    const CliOption options[] = {{"format", CLI_STRING, &name}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;
    ExportFormat format = EXPORT_RAW;

    if (!cli_parse(options, "export REF FILE [--format=raw|qcow2|oci-archive|oci-dir]", argc, argv, 2, 2, &arguments,
                   &error) ||
        !(name ? format_by_name(name, &format, &error) : format_by_suffix(arguments[1], &format, &error)) ||
        !cli_open_store(cli, 0, &store, &error) ||
        !export_image(store, arguments[0], arguments[1], format, &error))
        return cli_fail(cli, error);
    if (cli->json && strcmp(arguments[1], "-") != 0)
        return cli_print_json(json_pack("{s:s, s:s}", "file", arguments[1], "format", format_names[format]));
    return 0;
}
