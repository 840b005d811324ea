/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln export: an image as a file or folder, replaced atomically.
 */
#include "baker/cli/cli.h"

#include "baker/image-root.h"
#include "base/scope.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>

#define USAGE "export REF FILE [--format=raw|qcow2|gce|oci-archive|oci-dir|docker-archive|tar] [--path PATH]"
#define FORMATS "raw, qcow2, gce, oci-archive, oci-dir, docker-archive and tar"

typedef enum ExportFormat {
    EXPORT_RAW,
    EXPORT_QCOW2,
    EXPORT_GCE,
    EXPORT_OCI_ARCHIVE,
    EXPORT_OCI_DIR,
    EXPORT_DOCKER_ARCHIVE,
    EXPORT_TAR,
} ExportFormat;

static const char *const format_names[] = {"raw", "qcow2", "gce", "oci-archive", "oci-dir", "docker-archive", "tar", NULL};
static const char *const format_kinds[] = {"disk", "disk", "disk", "oci", "oci", "oci", "oci"};

static bool format_by_name(const char *name, ExportFormat *ret, GError **error)
{
    const char *near;

    for (int i = 0; format_names[i]; i++)
        if (strcmp(format_names[i], name) == 0) {
            *ret = (ExportFormat)i;
            return true;
        }
    near = units_nearest(name, format_names);
    return fail_code(error, KILN_ERROR_USAGE, "unknown format '%s'%s%s%s; there are " FORMATS, name, near ? ", did you mean '" : "",
                     near ? near : "", near ? "'?" : "");
}

static bool format_by_suffix(const char *file, ExportFormat *ret, GError **error)
{
    static const struct {
        const char *suffix;
        ExportFormat format;
    } suffixes[] = {{".raw", EXPORT_RAW},
                    {".img", EXPORT_RAW},
                    {".qcow2", EXPORT_QCOW2},
                    {".tar.gz", EXPORT_GCE},
                    {".docker.tar", EXPORT_DOCKER_ARCHIVE},
                    {".tar", EXPORT_OCI_ARCHIVE}};

    for (size_t i = 0; i < G_N_ELEMENTS(suffixes); i++)
        if (g_str_has_suffix(file, suffixes[i].suffix)) {
            *ret = suffixes[i].format;
            return true;
        }
    if (g_str_has_suffix(file, "/") || g_file_test(file, G_FILE_TEST_IS_DIR)) {
        *ret = EXPORT_OCI_DIR;
        return true;
    }
    return fail_code(error, KILN_ERROR_USAGE, "the name '%s' does not tell the format: give --format; there are " FORMATS, file);
}

/* A root file system is in disks as well: the container image's where a name has both. */
static bool find_image(Store *store, const char *ref, ExportFormat format, StoreImage **ret, GError **error)
{
    if (format == EXPORT_TAR && store_resolve(store, ref, format_kinds[format], ret, NULL))
        return true;
    return store_resolve(store, ref, format == EXPORT_TAR ? NULL : format_kinds[format], ret, error);
}

static bool export_disk(Store *store, const StoreImage *image, DiskForm form, const char *file, GError **error)
{
    g_autoptr(StoreMap) map = NULL;

    return store_map_open(store, &image->map, &map, error) && disk_export(map, form, file, error);
}

static bool export_tree(Store *store, const StoreImage *image, const char *file, GError **error)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;

    if (digest_is_none(&image->tree.tree))
        return fail(error, "kiln has no list of the files in '%s', so it cannot be written as a tar", image->name);
    return oci_image_load(store, image, &tree, &files, error) && tree_export_tar(tree, files, file, error);
}

/* Puts in front of the error where the bytes were to go. */
static bool fail_to(const char *file, GError **error)
{
    return fail_prefix(error, "export to '%s'", strcmp(file, "-") == 0 ? "stdout" : file);
}

/* One folder or file of the root, under its own name. */
static bool export_part(Store *store, const char *ref, const char *path, const char *file, GError **error)
{
    g_autoptr(ImageRoot) root = NULL;
    g_autoptr(Tree) part = NULL;
    const TreeEntry *top = NULL;

    if (!image_root_open(store, ref, &root, error) || !image_root_find(root, path, true, &top, error))
        return false;
    part = image_root_below(root, top);
    return tree_export_tar(part, root->files, file, error) || fail_to(file, error);
}

static bool write_image(Store *store, const StoreImage *image, const char *file, ExportFormat format, GError **error)
{
    switch (format) {
    case EXPORT_QCOW2:
        return export_disk(store, image, DISK_QCOW2, file, error);
    case EXPORT_GCE:
        return export_disk(store, image, DISK_GCE, file, error);
    case EXPORT_OCI_ARCHIVE:
        return oci_export(store, image, OCI_ARCHIVE, file, image->name, error);
    case EXPORT_OCI_DIR:
        return oci_export(store, image, OCI_DIR, file, image->name, error);
    case EXPORT_DOCKER_ARCHIVE:
        return docker_export(store, image, NULL, file, error);
    case EXPORT_TAR:
        return export_tree(store, image, file, error);
    default:
        return export_disk(store, image, DISK_RAW, file, error);
    }
}

static bool export_image(Store *store, const char *ref, const char *file, ExportFormat format, GError **error)
{
    g_autoptr(StoreImage) image = NULL;

    if (!find_image(store, ref, format, &image, error))
        return false;
    return write_image(store, image, file, format, error) || fail_to(file, error);
}

/* A part of a root has one form. */
static bool find_format(const char *name, const char *part, const char *file, ExportFormat *ret, GError **error)
{
    *ret = EXPORT_TAR;
    if (part && name && strcmp(name, format_names[EXPORT_TAR]) != 0)
        return fail_code(error, KILN_ERROR_USAGE, "--path takes out files as a tar: --format=%s has nothing to do with it", name);
    if (part)
        return true;
    return name ? format_by_name(name, ret, error) : format_by_suffix(file, ret, error);
}

int verb_export(CliContext *cli, int argc, char **argv)
{
    const char *name = NULL, *part = NULL;
    const CliOption options[] = {{"format", CLI_STRING, &name}, {"path", CLI_STRING, &part}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;
    ExportFormat format = EXPORT_RAW;

    if (!cli_parse(options, USAGE, argc, argv, 2, 2, &arguments, &error) || !find_format(name, part, arguments[1], &format, &error) ||
        !cli_open_store(cli, STORE_OPEN_ANYWAY, &store, &error) ||
        !(part ? export_part(store, arguments[0], part, arguments[1], &error) : export_image(store, arguments[0], arguments[1], format, &error)))
        return cli_fail(cli, error);
    if (cli->json && strcmp(arguments[1], "-") != 0)
        return cli_print_json(json_pack("{s:o, s:s}", "file", cli_text(arguments[1]), "format", format_names[format]));
    return 0;
}
