/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rpm's database (SQLite, Berkeley DB or, by package-ndb.c, SUSE's ndb), read by the host's rpm program over a copy, confined: the
 * formats are rpm's own business, and the file was written by the guest.
 */
#include "baker/package-parts.h"

#include "base/confine.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATABASE_MAX ((size_t)1 << 30)
#define QUERY_SECONDS 120

static const char *const folders[] = {"usr/lib/sysimage/rpm", "var/lib/rpm"};
static const char *const databases[] = {"rpmdb.sqlite", "Packages.db", "Packages"};

static const TreeEntry *find_database(const Tree *tree)
{
    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++)
        for (size_t k = 0; k < G_N_ELEMENTS(databases); k++) {
            g_autofree char *path = g_build_filename(folders[i], databases[k], NULL);
            const TreeEntry *entry = tree_find(tree, path);

            if (entry && entry->type == 'f' && entry->size > 0)
                return entry;
        }
    return NULL;
}

/* The database's file and those beside it (SQLite's journal), for the confined program to read. */
static bool copy_file(Tree *tree, StoreMap *files, const TreeEntry *entry, const char *dir, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autofree char *name = g_path_get_basename(entry->path), *path = g_build_filename(dir, name, NULL);
    gsize size;
    const void *data;

    if (!tree_read_file(tree, files, entry->path, DATABASE_MAX, &bytes, error))
        return false;
    data = g_bytes_get_data(bytes, &size);
    if (!file_replace(AT_FDCWD, path, data, size, 0600, FILE_SYNC_NO, error))
        return false;
    return geteuid() != 0 || chown(path, CONFINE_UID, CONFINE_UID) == 0 || fail_errno(error, "make '%s' readable for rpm", path);
}

static bool copy_database(Tree *tree, StoreMap *files, const TreeEntry *database, const char *dir, GError **error)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};

    for (size_t i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        g_autofree char *path = g_strconcat(database->path, suffixes[i], NULL);
        const TreeEntry *entry = tree_find(tree, path);

        if (entry && entry->type == 'f' && !copy_file(tree, files, entry, dir, error))
            return false;
    }
    return true;
}

/* Runs rpm or rpmdb, confined. */
static bool run_rpm(const char *const *words, ProcessSpec *spec, int *ret_code, GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    const char *const env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/nonexistent", NULL};

    confine_begin(argv);
    for (; *words; words++)
        g_ptr_array_add(argv, (char *)*words);
    g_ptr_array_add(argv, NULL);
    spec->argv = (const char *const *)argv->pdata;
    spec->env = env;
    spec->cwd = "/";
    spec->timeout = QUERY_SECONDS;
    return process_run(spec, ret_code, error) || fail_prefix(error, "read the root's rpm database");
}

/* Debian's rpm makes an empty database beside one in SUSE's format, and says nothing: the packages are carried over. */
static bool import_ndb(Tree *tree, StoreMap *files, const TreeEntry *database, const char *dir, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GByteArray) headers = NULL;
    auto_fd int fd = memfd_create("kiln-headers", MFD_CLOEXEC);
    ProcessSpec spec = {.stdin_fd = fd};
    int code = 0;
    gsize size;
    const void *data;

    if (fd < 0)
        return fail_errno(error, "make a file in memory");
    if (!tree_read_file(tree, files, database->path, DATABASE_MAX, &bytes, error))
        return false;
    data = g_bytes_get_data(bytes, &size);
    if (!package_ndb_headers(data, size, &headers)) {
        log_warning("the root's rpm database '/%s' is damaged: its packages are not known", database->path);
        return true;
    }
    if (!file_pwrite_full(fd, headers->data, headers->len, 0, "a file in memory", error) ||
        !run_rpm((const char *const[]){"rpmdb", "--dbpath", dir, "--importdb", NULL}, &spec, &code, error))
        return false;
    if (code != 0)
        log_warning("the root's rpm database cannot be read by this machine's rpm (status %d): not all of its packages are known", code);
    return true;
}

/* One line of @format for each package. */
static bool query(const char *dir, const char *format, ProcessLineFn *fn, void *arg, GError **error)
{
    ProcessSpec spec = {.on_line = fn, .arg = arg};
    int code = 0;

    if (!run_rpm((const char *const[]){"rpm", "--dbpath", dir, "--nodigest", "--nosignature", "-qa", "--qf", format, NULL}, &spec, &code, error))
        return false;
    if (code != 0)
        log_warning("the root's rpm database cannot be read by this machine's rpm (status %d): its packages are not known", code);
    return true;
}

/* Over a copy of the root's database; nothing where it has none. */
static bool query_root(Tree *tree, StoreMap *files, const char *format, ProcessLineFn *fn, void *arg, GError **error)
{
    const TreeEntry *database = find_database(tree);
    g_autofree char *dir = NULL;
    bool ok;

    if (!database)
        return true;
    if (!process_have("rpm")) {
        log_warning("the root has an rpm database and this machine no rpm program (package 'rpm'): the root's packages are not known");
        return true;
    }
    if (!file_make_short_tmpdir(&dir, error))
        return false;
    if (geteuid() == 0 && chown(dir, CONFINE_UID, CONFINE_UID) < 0) {
        (void)fail_errno(error, "make '%s' readable for rpm", dir);
        (void)file_remove_tree(AT_FDCWD, dir, NULL);
        return false;
    }
    ok = (g_str_has_suffix(database->path, "/Packages.db") ? import_ndb : copy_database)(tree, files, database, dir, error) && query(dir, format, fn, arg, error);
    (void)file_remove_tree(AT_FDCWD, dir, NULL); /* a copy in a temporary folder */
    return ok;
}

/* "(none)" is how rpm says that there is nothing. */
static char *value_of(const char *text)
{
    return text && *text && strcmp(text, "(none)") != 0 ? g_strdup(text) : NULL;
}

typedef struct Packages {
    PackageScan *scan;
    const char *path;
} Packages;

static void take_package(const char *line, bool is_stderr, void *arg)
{
    Packages *packages = arg;
    g_auto(GStrv) words = g_strsplit(line, "\t", 7);
    Package *package;

    if (is_stderr || g_strv_length(words) != 7 || strcmp(words[0], "gpg-pubkey") == 0) /* a key that packages are checked by is none itself */
        return;
    package = g_new0(Package, 1);
    package->type = g_strdup("rpm");
    package->name = g_strdup(words[0]);
    package->version = g_strdup(words[1]);
    package->architecture = value_of(words[2]);
    package->source = value_of(words[3]);
    package->license = value_of(words[4]);
    package->supplier = value_of(words[5]);
    package->homepage = value_of(words[6]);
    package->path = g_strdup(packages->path);
    package_found(packages->scan, package);
}

bool package_rpm_read(PackageScan *scan, GError **error)
{
    const TreeEntry *database = find_database(scan->tree);
    Packages packages = {scan, database ? database->path : NULL};

    return query_root(scan->tree, scan->files, "%{NAME}\\t%{EVR}\\t%{ARCH}\\t%{SOURCERPM}\\t%{LICENSE}\\t%{VENDOR}\\t%{URL}\\n", take_package,
                      &packages, error);
}

typedef struct Paths {
    PackageOwnFn *own;
    void *arg;
} Paths;

static void take_path(const char *line, bool is_stderr, void *arg)
{
    Paths *paths = arg;
    const char *tab = strchr(line, '\t');
    g_autofree char *package = tab ? g_strndup(line, (gsize)(tab - line)) : NULL;

    if (!is_stderr && tab && tab[1] == '/' && tab[2])
        paths->own(tab + 2, package, paths->arg);
}

bool package_rpm_owners(Tree *tree, StoreMap *files, PackageOwnFn *own, void *arg, GError **error)
{
    Paths paths = {own, arg};

    return query_root(tree, files, "[%{=NAME}\\t%{FILENAMES}\\n]", take_path, &paths, error);
}
