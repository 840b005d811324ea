/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's apt-get in a folder of ours.
 *
 *     CACHE/apt/<digest of sources, keys and architectures>/
 *         lock  releases.json  apt.conf                           the folder's time is that of its last use
 *         etc/      sources.list, keys/, trusted/, preferences/     written anew by us each time
 *         lists/    indexes; kept from night to night
 *         cache/ state/ status tmp/
 *
 * CACHE is file_cache_dir(): outside of the store, because apt runs as nobody there, and a store may lie below a folder that nobody may enter. All of it can be fetched again.
 *
 * The configuration is generated: APT_CONFIG names our file, which points every configuration path into the folder, so that neither
 * the guest's nor this machine's apt.conf (with their hooks) counts. The process has no privilege, no
 * capability, and limits on memory, time and file size: it reads indexes and a status file that others wrote.
 */
#include "baker/resolve-parts.h"

#include "base/confine.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/process.h"
#include "base/scope.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOBODY 65534
#define OPERATIONS_MAX 50000u
#define UPDATE_LIMIT 600.0 /* seconds */
#define UPDATE_ATTEMPTS 3u
#define SIMULATE_LIMIT 120.0
#define KEY_MAX ((size_t)1 << 20)

struct AptSpace {
    char *path;
    int lock;
};

void apt_operation_free(AptOperation *operation)
{
    g_free(operation->name);
    g_free(operation->from);
    g_free(operation->version);
    g_free(operation->architecture);
    g_free(operation);
}

void apt_uri_free(AptUri *uri)
{
    g_free(uri->uri);
    g_free(uri->name);
    g_free(uri->version);
    g_free(uri->architecture);
    g_free(uri);
}

void apt_space_close(AptSpace *space)
{
    if (!space)
        return;
    if (space->lock >= 0)
        (void)close(space->lock);
    g_free(space->path);
    g_free(space);
}

char *apt_cache_folder(void)
{
    g_autofree char *cache = file_cache_dir();

    return g_build_filename(cache, "apt", NULL);
}

static bool write_file(const char *folder, const char *name, const void *data, size_t size, GError **error)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);

    return file_replace(AT_FDCWD, path, data, size, 0644, FILE_SYNC_NO, error);
}

static bool write_text(const char *folder, const char *name, const char *text, GError **error)
{
    return write_file(folder, name, text, strlen(text), error);
}

/* A folder below the space; apt's own ones belong to the user it runs as. */
static bool make_folder(const char *space, const char *name, bool for_apt, GError **error)
{
    g_autofree char *path = g_build_filename(space, name, NULL);

    if (!file_make_dirs(path, 0755, error))
        return false;
    if (for_apt && geteuid() == 0 && chown(path, NOBODY, NOBODY) < 0)
        return fail_errno(error, "give '%s' to nobody", path);
    return true;
}

static const char *key_suffix(GBytes *key)
{
    size_t size;
    const char *data = g_bytes_get_data(key, &size);

    return size > 10 && memcmp(data, "-----BEGIN", 10) == 0 ? "asc" : "gpg";
}

/* ---- sources and keys ---- */

/* The keys that a template names for its own repositories, each one a file. */
static bool own_keys(const ResolveRequest *request, GPtrArray *ret, GError **error)
{
    g_auto(GStrv) names = NULL;

    if (!json_get_strings(request->args, "repository_keys", &names, error))
        return false;
    for (char **name = names; *name; name++) {
        g_autofree char *path = g_path_is_absolute(*name) || !request->template_dir
                                    ? g_strdup(*name) : g_build_filename(request->template_dir, *name, NULL);
        g_autoptr(GBytes) key = NULL;

        if (!file_load(AT_FDCWD, path, KEY_MAX, &key, error))
            return fail_prefix(error, "repository_keys");
        g_ptr_array_add(ret, g_steal_pointer(&key));
    }
    return true;
}

/* The key file of an entry below etc/keys; an entry whose key is nowhere gets an empty one, so that it counts for nothing. */
static bool write_entry_key(const ResolveGuest *guest, const AptEntry *entry, const char *space, guint number, char **ret,
                            GError **error)
{
    g_autoptr(GBytes) key = NULL;
    g_autofree char *name = NULL, *folder = g_build_filename(space, "etc", "keys", NULL);

    if (*entry->signed_by == '/' && g_hash_table_contains(guest->keys, entry->signed_by))
        key = g_bytes_ref(g_hash_table_lookup(guest->keys, entry->signed_by));
    else if (*entry->signed_by == '/')
        key = g_bytes_new_static("", 0);
    else
        key = g_bytes_new(entry->signed_by, strlen(entry->signed_by));
    name = g_strdup_printf("%u.%s", number, key_suffix(key));
    if (!write_file(folder, name, g_bytes_get_data(key, NULL), g_bytes_get_size(key), error))
        return false;
    *ret = g_build_filename(folder, name, NULL);
    return true;
}

static void append_line(GString *list, const AptEntry *entry, const char *key)
{
    g_autofree char *components = g_strjoinv(" ", entry->components);

    g_string_append(list, "deb [");
    g_string_append(list, entry->trusted ? " trusted=yes" : "");
    if (key)
        g_string_append_printf(list, " signed-by=%s", key);
    g_string_append_printf(list, " ] %s %s %s\n", entry->uri, entry->suite, components);
}

/* The template's own entries; repository_keys sign them, or without any the keys that the guest trusts. */
static bool own_entries(const ResolveRequest *request, GPtrArray *ret, GError **error)
{
    g_auto(GStrv) lines = NULL;

    if (!json_get_strings(request->args, "repositories", &lines, error))
        return false;
    for (char **line = lines; *line; line++) {
        guint before = ret->len;

        apt_parse_one_line(*line, ret);
        if (ret->len != before + 1)
            return fail_code(error, KILN_ERROR_USAGE,
                             "repositories: \"%s\" is no line like \"deb http://deb.debian.org/debian bookworm main\"", *line);
    }
    return true;
}

/* *ret: as signed-by takes it; NULL without keys. They vouch for the template's repositories, never for the guest's. */
static bool write_own_keys(GPtrArray *keys, const char *space, char **ret, GError **error)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *folder = g_build_filename(space, "etc", "keys", NULL);

    for (guint i = 0; i < keys->len; i++) {
        GBytes *key = keys->pdata[i];
        g_autofree char *name = g_strdup_printf("own-%u.%s", i, key_suffix(key));

        if (!write_file(folder, name, g_bytes_get_data(key, NULL), g_bytes_get_size(key), error))
            return false;
        g_ptr_array_add(paths, g_build_filename(folder, name, NULL));
    }
    g_ptr_array_add(paths, NULL);
    *ret = keys->len ? g_strjoinv(",", (char **)paths->pdata) : NULL;
    return true;
}

static bool write_sources(const ResolveRequest *request, const ResolveGuest *guest, const char *space, GError **error)
{
    g_autoptr(GString) list = g_string_new(NULL);
    g_autofree char *own_key = NULL;
    g_autoptr(GPtrArray) own = g_ptr_array_new_with_free_func((GDestroyNotify)apt_entry_free);
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
    g_autofree char *trusted = g_build_filename(space, "etc", "trusted", NULL);
    g_autofree char *etc = g_build_filename(space, "etc", NULL);

    for (guint i = 0; i < guest->entries->len; i++) {
        const AptEntry *entry = guest->entries->pdata[i];
        g_autofree char *key = NULL;

        if (entry->signed_by && !write_entry_key(guest, entry, space, i, &key, error))
            return false;
        append_line(list, entry, key);
    }
    if (!own_entries(request, own, error) || !own_keys(request, keys, error) || !write_own_keys(keys, space, &own_key, error))
        return false;
    for (guint i = 0; i < own->len; i++)
        append_line(list, own->pdata[i], own_key);
    for (guint i = 0; i < guest->trusted->len; i++) {
        GBytes *key = ((ResolveFile *)guest->trusted->pdata[i])->bytes;
        g_autofree char *name = g_strdup_printf("%u.%s", i, key_suffix(key));

        if (!write_file(trusted, name, g_bytes_get_data(key, NULL), g_bytes_get_size(key), error))
            return false;
    }
    return write_text(etc, "sources.list", list->str, error);
}

/* ---- pins, holds, configuration ---- */

static void append_preferences(GString *text, const ResolveGuest *guest)
{
    for (guint i = 0; i < guest->preferences->len; i++) {
        const ResolveFile *file = guest->preferences->pdata[i];

        g_string_append_len(text, g_bytes_get_data(file->bytes, NULL), (gssize)g_bytes_get_size(file->bytes));
        g_string_append(text, "\n\n");
    }
}

static bool write_preferences(const ResolveRequest *request, const ResolveGuest *guest, const char *space, GError **error)
{
    static const char security[] = "Package: *\nPin: release a=*-security\nPin-Priority: 990\n";
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *folder = g_build_filename(space, "etc", "preferences", NULL);
    g_autofree char *etc = g_build_filename(space, "etc", NULL);
    g_auto(GStrv) excluded = NULL;

    if (!json_get_strings(request->args, "exclude", &excluded, error) || !write_text(etc, APT_SECURITY_PINS, security, error))
        return false;
    for (char **name = excluded; *name; name++)
        g_string_append_printf(text, "Package: %s\nPin: release *\nPin-Priority: -1\n\n", *name);
    append_preferences(text, guest);
    return write_text(folder, "all", text->str, error);
}

/* dpkg's status with the template's holds in it: that is where apt looks for holds. */
static bool write_status(const ResolveRequest *request, const ResolveGuest *guest, const char *space, GError **error)
{
    g_auto(GStrv) held = NULL;
    g_autoptr(GString) text = NULL;

    if (!json_get_strings(request->args, "hold", &held, error))
        return false;
    text = g_string_new_len(g_bytes_get_data(guest->status, NULL), (gssize)g_bytes_get_size(guest->status));
    for (char **name = held; *name; name++) {
        g_autofree char *start = g_strdup_printf("Package: %s\n", *name);
        const char *at = g_str_has_prefix(text->str, start) ? text->str : NULL, *end;

        if (!at) {
            g_autofree char *inner = g_strconcat("\n\n", start, NULL);
            at = strstr(text->str, inner);
        }
        end = at ? strstr(at + 2, "\n\n") : NULL;
        if (at && g_strstr_len(at, end ? end - at : -1, "\nStatus: hold ok installed"))
            continue;
        at = at ? g_strstr_len(at, end ? end - at : -1, "Status: install ok installed") : NULL;
        if (!at)
            return fail(error, "hold: package '%s' is not installed", *name);
        g_string_erase(text, (gssize)(at - text->str) + 8, 7);
        g_string_insert(text, (gssize)(at - text->str) + 8, "hold");
    }
    return write_file(space, "status", text->str, text->len, error);
}

/* Who came only because somebody else needed it: without these marks autoremove finds nobody. */
static bool write_marks(const ResolveGuest *guest, const char *space, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *folder = g_build_filename(space, "state", NULL);

    for (guint i = 0; i < guest->installed->len; i++) {
        const ResolvePackage *package = guest->installed->pdata[i];
        bool any = strcmp(package->architecture, "all") == 0; /* apt counts those as native */

        if (g_hash_table_contains(guest->automatic, package->name))
            g_string_append_printf(text, "Package: %s\nArchitecture: %s\nAuto-Installed: 1\n\n", package->name,
                                   any ? guest->architectures[0] : package->architecture);
    }
    return write_text(folder, "extended_states", text->str, error);
}

/* Only what is listed here: everything else stands at apt's compiled-in defaults. */
static bool write_configuration(const ResolveRequest *request, const ResolveGuest *guest, const char *space, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    const char *release = NULL;
    bool recommends, autoremove;

    if (!json_get_string(request->args, "default_release", NULL, &release, error) ||
        !json_get_bool(request->args, "recommends", false, &recommends, error) ||
        !json_get_bool(request->args, "autoremove", false, &autoremove, error))
        return false;
    g_string_append_printf(text,
                           "Dir \"%s/\";\nDir::Etc \"etc\";\nDir::Etc::parts \"none\";\nDir::Etc::main \"none.conf\";\n"
                           "Dir::Etc::netrc \"none\";\nDir::Etc::netrcparts \"none\";\n"
                           "Dir::Etc::sourcelist \"sources.list\";\nDir::Etc::sourceparts \"none\";\n"
                           "Dir::Etc::trusted \"none.gpg\";\nDir::Etc::trustedparts \"trusted\";\n"
                           "Dir::Etc::preferences \"none.pref\";\nDir::Etc::preferencesparts \"preferences\";\n"
                           "Dir::State \"state\";\nDir::State::lists \"%s/lists\";\nDir::State::status \"%s/status\";\n"
                           "Dir::Cache \"cache\";\nDir::Log \"cache\";\n",
                           space, space, space);
    g_string_append_printf(text, "APT::Architecture \"%s\";\nAPT::Architectures {", guest->architectures[0]);
    for (char **name = guest->architectures; *name; name++)
        g_string_append_printf(text, " \"%s\";", *name);
    g_string_append_printf(text,
                           " };\nAPT::Install-Recommends \"%d\";\nAPT::Get::AutomaticRemove \"%d\";\n"
                           "APT::Get::Always-Include-Phased-Updates \"1\";\nAPT::Update::Error-Mode \"any\";\n"
                           "APT::Get::Show-User-Simulation-Note \"0\";\nAPT::Color \"0\";\n"
                           "APT::Cmd::Pattern-Only \"1\";\n" /* a mistyped name with a dot is no regular expression */
                           "Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAcquire::ForceHash \"SHA256\";\n"
                           "Acquire::GzipIndexes \"0\";\n",
                           recommends, autoremove);
    if (release)
        g_string_append_printf(text, "APT::Default-Release \"%s\";\n", release);
    return write_text(space, "apt.conf", text->str, error);
}

/* ---- the folder ---- */

/* Which folder: the same sources, keys and architectures share their indexes. */
static bool space_name(const ResolveRequest *request, const ResolveGuest *guest, char **ret, GError **error)
{
    g_autoptr(GString) text = g_string_new("2\n");
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
    const json_t *own = json_object_get(request->args, "repositories");
    g_autofree char *canonical = own ? json_canonical(own) : NULL;
    Digest digest;
    char hex[DIGEST_HEX_SIZE];

    for (guint i = 0; i < guest->entries->len; i++) {
        const AptEntry *entry = guest->entries->pdata[i];
        GBytes *key = entry->signed_by ? g_hash_table_lookup(guest->keys, entry->signed_by) : NULL;

        append_line(text, entry, entry->signed_by);
        if (key)
            g_string_append_len(text, g_bytes_get_data(key, NULL), (gssize)g_bytes_get_size(key));
    }
    for (guint i = 0; i < guest->trusted->len; i++) {
        GBytes *key = ((ResolveFile *)guest->trusted->pdata[i])->bytes;

        g_string_append_len(text, g_bytes_get_data(key, NULL), (gssize)g_bytes_get_size(key));
    }
    for (char **name = guest->architectures; *name; name++)
        g_string_append_printf(text, "%s\n", *name);
    g_string_append(text, canonical ? canonical : "-");
    if (!own_keys(request, keys, error))
        return false;
    for (guint i = 0; i < keys->len; i++)
        g_string_append_len(text, g_bytes_get_data(keys->pdata[i], NULL), (gssize)g_bytes_get_size(keys->pdata[i]));
    digest_of(text->str, text->len, &digest);
    *ret = g_strndup(digest_to_hex(&digest, hex), 24);
    return true;
}

/* The folder may have been trimmed away (resolve-cache.c) while we waited for its lock. */
static bool is_same_file(int fd, const char *path)
{
    struct stat ours, there;

    return fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
}

static bool lock_space(AptSpace *space, GError **error)
{
    g_autofree char *path = g_build_filename(space->path, "lock", NULL);

    do {
        scope_close_fd(&space->lock);
        if (!file_make_dirs(space->path, 0755, error))
            return false;
        space->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (space->lock < 0 && errno != ENOENT)
            return fail_errno(error, "open '%s'", path);
        if (space->lock >= 0 && !file_lock(space->lock, path, "waiting for another resolution with the same package sources", error))
            return false;
    } while (space->lock < 0 || !is_same_file(space->lock, path));
    return true;
}

static bool make_space(const ResolveRequest *request, const ResolveGuest *guest, AptSpace *space, GError **error)
{
    static const char *const ours[] = {"etc", "etc/keys", "etc/trusted", "etc/preferences", "etc/none"};
    static const char *const apts[] = {"lists", "lists/partial", "cache", "cache/archives", "cache/archives/partial",
                                       "state", "tmp"};
    g_autofree char *etc = g_build_filename(space->path, "etc", NULL);

    if (!file_remove_tree(AT_FDCWD, etc, error))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(ours); i++)
        if (!make_folder(space->path, ours[i], false, error))
            return false;
    for (size_t i = 0; i < G_N_ELEMENTS(apts); i++)
        if (!make_folder(space->path, apts[i], true, error))
            return false;
    return write_sources(request, guest, space->path, error) && write_preferences(request, guest, space->path, error) &&
           write_status(request, guest, space->path, error) && write_marks(guest, space->path, error) &&
           write_configuration(request, guest, space->path, error);
}

bool apt_space_open(const ResolveRequest *request, const ResolveGuest *guest, AptSpace **ret, GError **error)
{
    g_autofree char *cache = apt_cache_folder(), *name = NULL;
    g_autoptr(AptSpace) space = g_new0(AptSpace, 1);

    space->lock = -1;
    if (!space_name(request, guest, &name, error))
        return false;
    space->path = g_build_filename(cache, name, NULL);
    if (!process_have("apt-get"))
        return fail(error, "packages are resolved by apt-get, which this machine lacks: install apt");
    if (!lock_space(space, error) || !make_space(request, guest, space, error))
        return fail_prefix(error, "resolve packages");
    *ret = g_steal_pointer(&space);
    return true;
}

/* ---- running apt ---- */

typedef struct AptRun {
    GPtrArray *lines;     /* of stdout; NULL: not kept */
    GPtrArray *complaints;
    size_t kept;
} AptRun;

static void take_line(const char *line, bool is_stderr, void *arg)
{
    AptRun *run = arg;

    trace("baker.resolve", "%s", line);
    if (g_str_has_prefix(line, "E: ") && run->complaints->len < 8)
        g_ptr_array_add(run->complaints, printable_line(line + 3));
    else if (!is_stderr && run->lines && run->kept < ((size_t)64 << 20)) {
        run->kept += strlen(line);
        g_ptr_array_add(run->lines, g_strdup(line));
    }
}

static void add_environment(GPtrArray *env, const char *space)
{
    static const char *const passed[] = {"http_proxy", "https_proxy", "no_proxy", "ftp_proxy", "HTTP_PROXY", "HTTPS_PROXY",
                                         "NO_PROXY"};

    g_ptr_array_add(env, g_strdup("PATH=/usr/sbin:/usr/bin:/sbin:/bin"));
    g_ptr_array_add(env, g_strdup("LC_ALL=C.UTF-8"));
    g_ptr_array_add(env, g_strdup("HOME=/nonexistent"));
    g_ptr_array_add(env, g_strdup_printf("TMPDIR=%s/tmp", space));
    g_ptr_array_add(env, g_strdup_printf("APT_CONFIG=%s/apt.conf", space));
    for (size_t i = 0; i < G_N_ELEMENTS(passed); i++)
        if (g_getenv(passed[i]))
            g_ptr_array_add(env, g_strdup_printf("%s=%s", passed[i], g_getenv(passed[i])));
    g_ptr_array_add(env, NULL);
}

static bool tell_complaint(const AptRun *run, const char *what, int code, GError **error)
{
    for (guint i = 0; i < run->complaints->len; i++) {
        const char *line = run->complaints->pdata[i];

        if (g_str_has_prefix(line, "Unable to locate package "))
            return fail(error, "package '%s' does not exist in the guest's package sources", line + 25);
        if (g_str_has_prefix(line, "Package '") && strstr(line, "has no installation candidate"))
            return fail(error, "%s in the guest's package sources", line);
    }
    return fail(error, "apt-get %s: %s", what,
                run->complaints->len ? (char *)run->complaints->pdata[0] : "it failed without saying why");
}

static bool run_apt(AptSpace *space, const char *const *options, const char *const *words, double limit, GPtrArray *lines,
                    GError **error)
{
    static const char *const program[] = {"apt-get", "-q", "-y", NULL};
    g_autoptr(GPtrArray) argv = g_ptr_array_new(), env = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) complaints = g_ptr_array_new_with_free_func(g_free);
    AptRun run = {.lines = lines, .complaints = complaints};
    ProcessSpec spec = {.cwd = space->path, .on_line = take_line, .arg = &run, .timeout = limit};
    const char *const *const parts[] = {program, options, words};
    int code = 0;

    confine_begin(argv);
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++)
        for (const char *const *word = parts[i]; *word; word++)
            g_ptr_array_add(argv, (void *)*word);
    g_ptr_array_add(argv, NULL);
    add_environment(env, space->path);
    spec.argv = (const char *const *)argv->pdata;
    spec.env = (const char *const *)env->pdata;
    if (!process_run(&spec, &code, error))
        return fail_prefix(error, "resolve packages");
    return code == 0 || tell_complaint(&run, words[0], code, error);
}

/* ---- update ---- */

static GPtrArray *release_files(const char *lists)
{
    GPtrArray *paths = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GDir) dir = g_dir_open(lists, 0, NULL);

    for (const char *name = dir ? g_dir_read_name(dir) : NULL; name; name = g_dir_read_name(dir))
        if (g_str_has_suffix(name, "Release"))
            g_ptr_array_add(paths, g_build_filename(lists, name, NULL));
    return paths;
}

/* Whether apt holds just the release files that the resolution will be remembered for; else *ret_other is one that it lacks. */
static bool holds_releases(GPtrArray *files, const json_t *releases, const char **ret_other)
{
    g_autoptr(GHashTable) held = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    json_t *wanted;

    for (guint i = 0; i < files->len; i++) {
        char hex[DIGEST_HEX_SIZE];
        Digest digest;

        if (digest_of_file(AT_FDCWD, files->pdata[i], &digest, NULL, NULL))
            g_hash_table_add(held, g_strdup(digest_to_hex(&digest, hex)));
    }
    json_object_foreach ((json_t *)releases, *ret_other, wanted)
        if (!g_hash_table_contains(held, json_string_value(wanted)))
            return false;
    return true;
}

/* "Changed since?" is answered in whole seconds: a file from the epoch is always fetched. Its Date still guards against older ones. */
static void make_old(GPtrArray *files)
{
    static const struct timespec epoch[2];

    for (guint i = 0; i < files->len; i++)
        (void)utimensat(AT_FDCWD, files->pdata[i], epoch, 0); /* then the next attempt fails like this one */
}

/*
 * apt fetches the release files again by itself. Two machines of a mirror may give us the new one and apt the old one; remembered
 * like that, an update would stay unseen until the next one.
 */
static bool update_to(AptSpace *space, const json_t *releases, GError **error)
{
    static const char *const no_options[] = {NULL}, *const words[] = {"update", NULL};
    g_autofree char *lists = g_build_filename(space->path, "lists", NULL);
    const char *other = NULL;

    for (unsigned attempt = 0; attempt < UPDATE_ATTEMPTS; attempt++) {
        g_autoptr(GPtrArray) files = NULL;

        if (attempt > 1)
            g_usleep(2 * G_USEC_PER_SEC);
        if (!run_apt(space, no_options, words, UPDATE_LIMIT, NULL, error))
            return fail_prefix(error, "cannot fetch the guest's package lists");
        files = release_files(lists);
        if (holds_releases(files, releases, &other))
            return true;
        make_old(files);
    }
    return fail(error, "cannot fetch the guest's package lists: '%s' changes from one request to the next, or went back to an older state; "
                "try again", other);
}

bool apt_space_update(AptSpace *space, const json_t *releases, bool offline, GError **error)
{
    g_autofree char *path = g_build_filename(space->path, "releases.json", NULL), *now = json_canonical(releases);
    g_autoptr(GBytes) before = NULL;
    gint64 start = g_get_monotonic_time();

    (void)file_load(AT_FDCWD, path, 1 << 20, &before, NULL); /* absent: never fetched */
    if (before && (offline || strcmp(g_bytes_get_data(before, NULL), now) == 0))
        return true;
    if (offline)
        return fail(error, "the package indexes of this guest's sources were never fetched; run once without --offline");
    log_info("    fetching package indexes");
    if (unlink(path) < 0 && errno != ENOENT)
        return fail_errno(error, "remove '%s'", path);
    if (!update_to(space, releases, error))
        return false;
    trace("baker.resolve", "update took %.1f s", (double)(g_get_monotonic_time() - start) / 1e6);
    return file_replace(AT_FDCWD, path, now, strlen(now), 0644, FILE_SYNC_NO, error);
}

/* ---- simulation ---- */

/* The word at *@at (ended by one of @stops), moved behind it; NULL when there is none. */
static char *next_word(const char **at, const char *stops)
{
    size_t length;
    char *word;

    while (**at == ' ')
        (*at)++;
    length = strcspn(*at, stops);
    if (length == 0 || length > 256)
        return NULL;
    word = g_strndup(*at, length);
    *at += length;
    return word;
}

/* "Inst NAME [OLD] (NEW ORIGIN, ORIGIN [ARCH]) ..." */
AptOperation *apt_operation_parse(const char *line)
{
    static const struct { const char *word; char kind; } kinds[] = {{"Inst ", 'i'}, {"Conf ", 'c'}, {"Remv ", 'r'}, {"Purg ", 'p'}};
    g_autoptr(AptOperation) operation = g_new0(AptOperation, 1);
    const char *at, *open;

    if (strlen(line) <= 5)
        return NULL;
    at = line + 5;
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++)
        if (g_str_has_prefix(line, kinds[i].word))
            operation->kind = kinds[i].kind;
    if (!operation->kind || !(operation->name = next_word(&at, " ")) || !resolve_plain_word(operation->name))
        return NULL;
    while (*at == ' ')
        at++;
    if (*at == '[') {
        at++;
        operation->from = next_word(&at, "]");
        at += *at == ']';
    }
    if (operation->kind != 'i')
        return g_steal_pointer(&operation);
    open = strchr(at, '(');
    if (!open)
        return NULL;
    at = open + 1;
    operation->version = next_word(&at, " )");
    open = strchr(at, '[');
    if (!resolve_plain_word(operation->version) || !open)
        return NULL;
    operation->security = g_strstr_len(at, open - at, "-security") != NULL;
    at = open + 1;
    operation->architecture = next_word(&at, "]");
    return resolve_plain_word(operation->architecture) ? g_steal_pointer(&operation) : NULL;
}

bool apt_space_simulate(AptSpace *space, const char *const *words, GPtrArray **ret, GError **error)
{
    static const char *const options[] = {"-s", NULL};
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) operations = g_ptr_array_new_with_free_func((GDestroyNotify)apt_operation_free);

    if (!run_apt(space, options, words, SIMULATE_LIMIT, lines, error))
        return false;
    for (guint i = 0; i < lines->len; i++) {
        AptOperation *operation = apt_operation_parse(lines->pdata[i]);

        if (operation)
            g_ptr_array_add(operations, operation);
        if (operations->len > OPERATIONS_MAX)
            return fail(error, "the transaction has more than %u operations", OPERATIONS_MAX);
    }
    *ret = g_steal_pointer(&operations);
    return true;
}

/* 'URI' NAME_VERSION_ARCH.deb SIZE SHA256:HEX; the version's colon comes as %3a. */
AptUri *apt_uri_parse(const char *line)
{
    g_auto(GStrv) words = g_strsplit(*line ? line : " ", " ", 5);
    g_auto(GStrv) parts = NULL;
    g_autoptr(AptUri) uri = g_new0(AptUri, 1);
    size_t length = strlen(words[0]);
    char *end;

    if (g_strv_length(words) < 4 || length < 3 || words[0][0] != '\'' || words[0][length - 1] != '\'' ||
        !g_str_has_suffix(words[1], ".deb") || !g_str_has_prefix(words[3], "SHA256:") ||
        !digest_parse(words[3] + 7, &uri->sha256))
        return NULL;
    words[1][strlen(words[1]) - 4] = '\0';
    parts = g_strsplit(words[1], "_", 4);
    if (g_strv_length(parts) != 3)
        return NULL;
    uri->uri = g_strndup(words[0] + 1, length - 2);
    uri->name = g_strdup(parts[0]);
    uri->version = g_uri_unescape_string(parts[1], NULL);
    uri->architecture = g_strdup(parts[2]);
    uri->size = g_ascii_strtoull(words[2], &end, 10);
    return *end || !uri->version ? NULL : g_steal_pointer(&uri);
}

/* "After this operation, 10.2 MB of additional disk space will be used." (or "disk space will be freed"); apt counts in thousands. */
bool apt_growth_parse(const char *line, int64_t *ret)
{
    static const char before[] = "After this operation, ", units[] = "kMGT";
    double number, factor = 1;
    const char *unit;
    char *end;

    if (!g_str_has_prefix(line, before))
        return false;
    number = g_ascii_strtod(line + strlen(before), &end);
    if (*end != ' ' || !(number >= 0 && number < 1e9))
        return false;
    unit = end[1] ? strchr(units, end[1]) : NULL;
    for (const char *u = units; unit && u <= unit; u++)
        factor *= 1000;
    *ret = (int64_t)(number * factor) * (strstr(end, "freed") ? -1 : 1);
    return true;
}

bool apt_space_uris(AptSpace *space, const char *const *words, GPtrArray **ret, int64_t *ret_growth, GError **error)
{
    static const char *const options[] = {"--print-uris", NULL};
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) uris = g_ptr_array_new_with_free_func((GDestroyNotify)apt_uri_free);

    *ret_growth = 0;
    if (!run_apt(space, options, words, SIMULATE_LIMIT, lines, error))
        return false;
    for (guint i = 0; i < lines->len; i++) {
        AptUri *uri = apt_uri_parse(lines->pdata[i]);

        if (uri)
            g_ptr_array_add(uris, uri);
        (void)apt_growth_parse(lines->pdata[i], ret_growth);
    }
    *ret = g_steal_pointer(&uris);
    return true;
}
