/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where appliances are kept, when a new one is needed, and which disks they are for.
 */
#include "baker/appliance.h"

#include "baker/appliance-parts.h"
#include "base/host-kernel.h"
#include "base/libexec.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/process.h"
#include "base/scope.h"
#include "base/units.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Raised when the same inputs give another appliance. */
#define RECIPE 1
#define INIT_PROGRAM "kiln-appliance-init"
#define RUNNER_PROGRAM "kiln-runner"
#define PACKAGES_TEXT_MAX ((size_t)64 << 20)
#define KEPT_SECONDS (24 * 3600) /* an older one may still be about to be started by somebody */
#define BIOS_BOOT "21686148-6449-6e6f-744e-656564454649"

typedef struct Inputs {
    char *kernel, *modules, *init, *runner, *supermin_dir;
    char **packages;
} Inputs;

static void inputs_clear(Inputs *inputs)
{
    g_free(inputs->kernel);
    g_free(inputs->modules);
    g_free(inputs->init);
    g_free(inputs->runner);
    g_free(inputs->supermin_dir);
    g_strfreev(inputs->packages);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Inputs, inputs_clear)

void appliance_clear(Appliance *appliance)
{
    g_clear_pointer(&appliance->path, g_free);
}

static bool find_inputs(Inputs *inputs, GError **error)
{
    return host_kernel_find(&inputs->kernel, &inputs->modules, error) && libexec_find(INIT_PROGRAM, &inputs->init, error) &&
           libexec_find(RUNNER_PROGRAM, &inputs->runner, error) &&
           appliance_supermin_dir(&inputs->supermin_dir, error) && appliance_packages(inputs->supermin_dir, &inputs->packages, error);
}

/* --- the key --- */

static bool add_digest(json_t *key, const char *name, const char *path, GError **error)
{
    Digest digest;
    char hex[DIGEST_HEX_SIZE];

    if (!digest_of_file(AT_FDCWD, path, &digest, NULL, error))
        return false;
    json_object_set_new(key, name, json_string(digest_to_hex(&digest, hex)));
    return true;
}

static bool add_folder(json_t *key, const char *folder, GError **error)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);

    for (const char *name = dir ? g_dir_read_name(dir) : NULL; name; name = g_dir_read_name(dir)) {
        g_autofree char *path = g_build_filename(folder, name, NULL);

        if (!add_digest(key, name, path, error))
            return false;
    }
    return true;
}

/* One of dpkg's packages: version, and the names of what it depends on. */
typedef struct Package {
    char *version;
    char *needs;
} Package;

static void package_free(gpointer data)
{
    Package *package = data;

    g_free(package->version);
    g_free(package->needs);
    g_free(package);
}

static GHashTable *installed_packages(GError **error)
{
    static const char *const argv[] = {"dpkg-query", "-W", "-f=${Package}\t${Version}\t${Pre-Depends}, ${Depends}\n", NULL};
    GHashTable *all = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, package_free);
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!process_have(argv[0]) || !process_capture(argv, PACKAGES_TEXT_MAX, &text, error))
        return all; /* on another system what supermin copies from is not seen to change */
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, "\t", 3);
        Package *package;

        if (g_strv_length(fields) != 3)
            continue;
        package = g_new0(Package, 1);
        package->version = g_strdup(fields[1]);
        package->needs = g_strdup(fields[2]);
        g_hash_table_insert(all, g_strdup(fields[0]), package);
    }
    return all;
}

/* "a (>= 1) | b, c:any" holds a, b and c. */
static void queue_needs(GQueue *queue, const char *needs)
{
    g_auto(GStrv) parts = g_strsplit_set(needs, ",|", -1);

    for (char **part = parts; *part; part++) {
        const char *name = *part + strspn(*part, " ");

        g_queue_push_tail(queue, g_strndup(name, strcspn(name, " :(")));
    }
}

/* The versions of all that the root is copied from: the listed packages and what they need, as supermin follows it. */
static bool add_packages(json_t *key, char **names, GError **error)
{
    g_autoptr(GError) problem = NULL;
    g_autoptr(GHashTable) all = installed_packages(&problem);
    GQueue queue = G_QUEUE_INIT;

    if (problem) {
        g_propagate_error(error, g_steal_pointer(&problem));
        return false;
    }
    for (; *names; names++)
        g_queue_push_tail(&queue, g_strdup(*names));
    while (!g_queue_is_empty(&queue)) {
        g_autofree char *name = g_queue_pop_head(&queue);
        const Package *package = g_hash_table_lookup(all, name);

        if (!package || json_object_get(key, name))
            continue;
        json_object_set_new(key, name, json_string_nocheck(package->version));
        queue_needs(&queue, package->needs);
    }
    return true;
}

static bool make_key(const Inputs *inputs, char hex[DIGEST_HEX_SIZE], GError **error)
{
    g_autoptr(json_t) key = json_object();
    json_t *packages = json_object(), *folder = json_object();
    struct stat st;
    Digest digest;

    json_object_set_new(key, "packages", packages);
    json_object_set_new(key, "supermin", folder);
    if (stat(inputs->kernel, &st) < 0)
        return fail_errno(error, "look at '%s'", inputs->kernel);
    json_object_set_new(key, "recipe", json_integer(RECIPE));
    json_object_set_new(key, "kernel", json_string_nocheck(inputs->kernel));
    json_object_set_new(key, "kernel-time", json_integer((json_int_t)st.st_mtime));
    json_object_set_new(key, "kernel-size", json_integer((json_int_t)st.st_size));
    if (!add_digest(key, "init", inputs->init, error) || !add_digest(key, "runner", inputs->runner, error) || !add_folder(folder, inputs->supermin_dir, error) ||
        !add_packages(packages, inputs->packages, error))
        return false;
    json_digest(key, &digest);
    digest_to_hex(&digest, hex);
    return true;
}

/* --- building --- */

static bool write_readme(const char *folder, GError **error)
{
    static const char text[] = "An appliance of kiln for libguestfs. It can be deleted; the next bake makes it again.\n";
    g_autofree char *path = g_build_filename(folder, "README.fixed", NULL);

    return file_replace(AT_FDCWD, path, text, strlen(text), 0644, FILE_SYNC_NO, error);
}

static bool build_in(const Inputs *inputs, const char *folder, GError **error)
{
    return appliance_kernel(inputs->kernel, folder, error) && appliance_initrd(inputs->init, inputs->runner, inputs->modules, folder, error) &&
           appliance_root(inputs->supermin_dir, inputs->packages, inputs->kernel, inputs->modules, folder, error) &&
           write_readme(folder, error);
}

/* Complete or not there: the folder gets its name last. */
static bool build(const Inputs *inputs, const char *base, const char *name, GError **error)
{
    g_autofree char *work = g_build_filename(base, "building", NULL), *path = g_build_filename(base, name, NULL);

    log_info("    making the bake appliance, once for this kernel and these packages");
    if (!file_remove_tree(AT_FDCWD, work, error) || !file_make_dirs(work, 0755, error))
        return false;
    if (!build_in(inputs, work, error)) {
        (void)file_remove_tree(AT_FDCWD, work, NULL);
        return false;
    }
    if (!file_remove_tree(AT_FDCWD, path, error))
        return false;
    return rename(work, path) == 0 || fail_errno(error, "move '%s'", work);
}

static void remove_old(const char *base, const char *name)
{
    g_autoptr(GDir) dir = g_dir_open(base, 0, NULL);

    for (const char *other = dir ? g_dir_read_name(dir) : NULL; other; other = g_dir_read_name(dir)) {
        g_autofree char *path = g_build_filename(base, other, NULL);
        struct stat st;

        if (strcmp(other, name) != 0 && strcmp(other, "lock") != 0 && stat(path, &st) == 0 && st.st_mtime < time(NULL) - KEPT_SECONDS)
            (void)file_remove_tree(AT_FDCWD, path, NULL);
    }
}

static bool lock_base(const char *base, int *ret, GError **error)
{
    g_autofree char *path = g_build_filename(base, "lock", NULL);
    auto_fd int fd = -1;

    if (!file_make_dirs(base, 0755, error))
        return false;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return fail_errno(error, "open '%s'", path);
    if (!file_lock(fd, path, "waiting for another process that makes the bake appliance", error))
        return false;
    *ret = g_steal_fd(&fd);
    return true;
}

static uint64_t size_on_disk(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    uint64_t sum = 0;

    for (const char *name = dir ? g_dir_read_name(dir) : NULL; name; name = g_dir_read_name(dir)) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        struct stat st;

        if (stat(path, &st) == 0)
            sum += (uint64_t)st.st_blocks * 512;
    }
    return sum;
}

static bool is_whole(const char *path)
{
    g_autofree char *last = g_build_filename(path, "README.fixed", NULL);

    return access(last, R_OK) == 0;
}

bool appliance_get(bool again, Appliance *ret, GError **error)
{
    g_auto(Inputs) inputs = {0};
    g_autofree char *cache = file_cache_dir(), *base = g_build_filename(cache, "appliance", NULL), *path = NULL;
    gint64 start = g_get_monotonic_time();
    char name[DIGEST_HEX_SIZE];
    auto_fd int lock = -1;
    bool built = false;

    if (!find_inputs(&inputs, error) || !make_key(&inputs, name, error))
        return false;
    name[24] = '\0';
    path = g_build_filename(base, name, NULL);
    if (again || !is_whole(path)) {
        if (!lock_base(base, &lock, error))
            return false;
        built = again || !is_whole(path); /* somebody else may have made it while we waited */
        if (built && !build(&inputs, base, name, error))
            return fail_prefix(error, "bake appliance");
        remove_old(base, name);
    }
    *ret = (Appliance){.built = built, .seconds = (double)(g_get_monotonic_time() - start) / 1e6, .size = size_on_disk(path)};
    ret->path = g_steal_pointer(&path);
    return true;
}

/* --- which disks --- */

bool appliance_suits(StoreMap *disk, bool *ret, GError **error)
{
    static const char *const plain[] = {"ext4", "vfat", "swap", NULL};
    g_autoptr(GArray) partitions = NULL;

    if (!disk_partitions(disk, &partitions, error))
        return false;
    *ret = partitions->len > 0;
    for (guint i = 0; i < partitions->len; i++) {
        const DiskPartition *partition = &g_array_index(partitions, DiskPartition, i);

        *ret = *ret && (g_strv_contains(plain, partition->fs) || (!*partition->fs && strcmp(partition->type, BIOS_BOOT) == 0));
    }
    return true;
}
