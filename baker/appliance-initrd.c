/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The initrd: our init, and kernel modules in an order in which they can be loaded.
 *
 * supermin's holds whatever could find a disk on any machine; ours what finds libguestfs's own devices. What is built into the kernel
 * is in no list of modules, and needs no file.
 */
#include "baker/appliance-parts.h"

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MODULE_MAX ((size_t)64 << 20)
#define DEPENDENCIES_MAX ((size_t)16 << 20)

static const char *const wanted[] = {"virtio_pci", "virtio_scsi", "sd_mod", "virtio_console", "virtio-rng", "crc32c_generic", "crc32c-intel",
                                     "ext4", NULL};
static const char *const wanted_for_card[] = {"virtio_net", NULL};

typedef struct Initrd {
    const char *modules; /* folder */
    const char *folder;  /* what goes into the archive */
    GHashTable *paths;   /* name -> path below @modules */
    GHashTable *needs;   /* name -> paths that it needs, in one text */
    GHashTable *taken;
} Initrd;

/* "kernel/drivers/virtio/virtio_pci.ko.xz" -> "virtio_pci"; the kernel takes '-' and '_' for the same. */
static char *module_name(const char *path)
{
    char *name = g_path_get_basename(path), *end = strstr(name, ".ko");

    if (end)
        *end = '\0';
    return g_strdelimit(name, "-", '_');
}

/* A line of modules.dep: "path: needed needed ...", all that is needed, nearest first. */
static void read_line(Initrd *initrd, char *line)
{
    char *colon = strchr(line, ':'), *name;

    if (!colon)
        return;
    *colon = '\0';
    name = module_name(line);
    g_hash_table_insert(initrd->needs, g_strdup(name), g_strdup(colon + 1));
    g_hash_table_insert(initrd->paths, name, g_strdup(line));
}

static bool read_dependencies(Initrd *initrd, GError **error)
{
    g_autofree char *path = g_build_filename(initrd->modules, "modules.dep", NULL);
    g_autoptr(GBytes) text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!file_load(AT_FDCWD, path, DEPENDENCIES_MAX, &text, error))
        return false;
    lines = g_strsplit(g_bytes_get_data(text, NULL), "\n", -1);
    for (char **line = lines; *line; line++)
        read_line(initrd, *line);
    return true;
}

/* Copies the module, unpacked, under its bare name, and adds it to @list once. */
static bool take_file(Initrd *initrd, const char *relative, GString *list, GError **error)
{
    g_autofree char *name = module_name(relative), *from = g_build_filename(initrd->modules, relative, NULL), *file = NULL, *to = NULL;
    g_autoptr(GBytes) bytes = NULL;
    bool unpacked = false;

    if (g_hash_table_contains(initrd->taken, name))
        return true;
    file = g_strconcat(name, ".ko", NULL);
    to = g_build_filename(initrd->folder, file, NULL);
    if (!file_load(AT_FDCWD, from, MODULE_MAX, &bytes, error) ||
        !appliance_unpack(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), to, &unpacked, error))
        return false;
    if (!unpacked && !file_replace(AT_FDCWD, to, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), 0644, FILE_SYNC_NO, error))
        return false;
    g_string_append_printf(list, "%s\n", file);
    g_hash_table_add(initrd->taken, g_steal_pointer(&name));
    return true;
}

/* What it needs comes first: from the far end of its line. */
static bool take_module(Initrd *initrd, const char *wanted_name, GString *list, GError **error)
{
    g_autofree char *name = module_name(wanted_name);
    const char *path = g_hash_table_lookup(initrd->paths, name);
    g_auto(GStrv) needs = NULL;

    if (!path)
        return true; /* built in */
    needs = g_strsplit(g_hash_table_lookup(initrd->needs, name), " ", -1);
    for (guint i = g_strv_length(needs); i > 0; i--)
        if (*needs[i - 1] && !take_file(initrd, needs[i - 1], list, error))
            return false;
    return take_file(initrd, path, list, error);
}

static bool take_modules(Initrd *initrd, const char *const *names, const char *list_name, GError **error)
{
    g_autoptr(GString) list = g_string_new(NULL);
    g_autofree char *path = g_build_filename(initrd->folder, list_name, NULL);

    for (; *names; names++)
        if (!take_module(initrd, *names, list, error))
            return false;
    return file_replace(AT_FDCWD, path, list->str, list->len, 0644, FILE_SYNC_NO, error);
}

static bool take_program(Initrd *initrd, const char *program, const char *name, GError **error)
{
    g_autofree char *to = g_build_filename(initrd->folder, name, NULL);
    g_autoptr(GBytes) bytes = NULL;

    return file_load(AT_FDCWD, program, MODULE_MAX, &bytes, error) &&
           file_replace(AT_FDCWD, to, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), 0755, FILE_SYNC_NO, error);
}

static bool pack(const Initrd *initrd, const char *out, GError **error)
{
    static const char *const argv[] = {"cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0", NULL};
    g_autoptr(GString) names = g_string_new("init\nkiln-runner\nmodules\nmodules.card\n");
    auto_fd int input = memfd_create("names", MFD_CLOEXEC), output = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ProcessSpec spec = {.argv = argv, .cwd = initrd->folder, .stdin_fd = input, .stdout_fd = output, .timeout = 60};
    GHashTableIter iter;
    gpointer name;
    int code = 0;

    if (input < 0 || output < 0)
        return fail_errno(error, "make '%s'", out);
    g_hash_table_iter_init(&iter, initrd->taken);
    while (g_hash_table_iter_next(&iter, &name, NULL))
        g_string_append_printf(names, "%s.ko\n", (char *)name);
    if (!file_pwrite_full(input, names->str, names->len, 0, "a list of names", error))
        return false;
    return process_run(&spec, &code, error) && (code == 0 || fail(error, "cpio cannot write '%s'", out));
}

bool appliance_initrd(const char *init, const char *runner, const char *modules, const char *folder, GError **error)
{
    g_autofree char *inside = g_build_filename(folder, "initrd.d", NULL), *out = g_build_filename(folder, "initrd", NULL);
    Initrd initrd = {.modules = modules,
                     .folder = inside,
                     .paths = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free),
                     .needs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free),
                     .taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL)};
    bool ok = file_make_dirs(inside, 0755, error) && read_dependencies(&initrd, error) && take_program(&initrd, init, "init", error) &&
              take_program(&initrd, runner, "kiln-runner", error) &&
              take_modules(&initrd, wanted, "modules", error) && take_modules(&initrd, wanted_for_card, "modules.card", error) &&
              pack(&initrd, out, error) && file_remove_tree(AT_FDCWD, inside, error);

    g_hash_table_unref(initrd.paths);
    g_hash_table_unref(initrd.needs);
    g_hash_table_unref(initrd.taken);
    return ok;
}
