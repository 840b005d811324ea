/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What resolution reads of a guest, and all that it reads: dpkg's status, the list of sources, pins, keyrings, and which
 * packages were installed automatically.
 *
 * The guest is hostile and what it says is used on the host. So its apt.conf, hooks, methods and helper paths are
 * never looked at (they are programs), sources are taken apart and written out anew, and only http and https
 * ones are kept: a `file:` or `copy:` source of a guest means files of the guest, never files of this machine.
 */
#include "baker/resolve-parts.h"

#include "baker/stanza.h"
#include "base/error.h"
#include "base/log.h"

#include <string.h>

#define STATUS_MAX ((size_t)64 << 20)
#define LIST_MAX ((size_t)1 << 20)
#define KEY_MAX ((size_t)1 << 20)
#define FILES_MAX 256u
#define PACKAGES_MAX 100000u

static void file_free(gpointer data)
{
    ResolveFile *file = data;

    g_free(file->name);
    g_bytes_unref(file->bytes);
    g_free(file);
}

static void package_free(gpointer data)
{
    ResolvePackage *package = data;

    g_free(package->name);
    g_free(package->version);
    g_free(package->architecture);
    g_free(package);
}

void resolve_guest_free(ResolveGuest *guest)
{
    if (!guest)
        return;
    g_clear_pointer(&guest->status, g_bytes_unref);
    g_ptr_array_unref(guest->installed);
    g_hash_table_unref(guest->automatic);
    g_strfreev(guest->architectures);
    g_ptr_array_unref(guest->entries);
    g_hash_table_unref(guest->keys);
    g_ptr_array_unref(guest->trusted);
    g_ptr_array_unref(guest->preferences);
    g_free(guest);
}

static ResolveGuest *guest_new(void)
{
    ResolveGuest *guest = g_new0(ResolveGuest, 1);

    guest->installed = g_ptr_array_new_with_free_func(package_free);
    guest->automatic = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    guest->entries = g_ptr_array_new_with_free_func((GDestroyNotify)apt_entry_free);
    guest->keys = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
    guest->trusted = g_ptr_array_new_with_free_func(file_free);
    guest->preferences = g_ptr_array_new_with_free_func(file_free);
    return guest;
}

bool resolve_plain_word(const char *text)
{
    return text && g_ascii_isalnum(*text) && strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._~:") ==
                                                 strlen(text);
}

static void take_status(const char *stanza, const char *end, void *arg)
{
    ResolveGuest *guest = arg;
    g_autofree char *status = stanza_field(stanza, end, "Status");
    g_autofree char *name = stanza_field(stanza, end, "Package"), *version = stanza_field(stanza, end, "Version");
    g_autofree char *architecture = stanza_field(stanza, end, "Architecture");
    ResolvePackage *package;

    if (!status || !g_str_has_suffix(status, " ok installed") || !resolve_plain_word(name) || !resolve_plain_word(version) ||
        !resolve_plain_word(architecture) || guest->installed->len >= PACKAGES_MAX)
        return;
    package = g_new0(ResolvePackage, 1);
    package->held = g_str_has_prefix(status, "hold ");
    package->name = g_steal_pointer(&name);
    package->version = g_steal_pointer(&version);
    package->architecture = g_steal_pointer(&architecture);
    g_ptr_array_add(guest->installed, package);
}

static void take_extended(const char *stanza, const char *end, void *arg)
{
    ResolveGuest *guest = arg;
    g_autofree char *name = stanza_field(stanza, end, "Package"), *automatic = stanza_field(stanza, end, "Auto-Installed");

    if (name && automatic && strcmp(automatic, "1") == 0)
        g_hash_table_add(guest->automatic, g_steal_pointer(&name));
}

static void each_stanza(ResolveGuest *guest, GBytes *text, StanzaFn *take)
{
    gsize size;
    const char *data = g_bytes_get_data(text, &size);

    stanza_each(data, size, take, guest);
}

const ResolvePackage *resolve_guest_find(const ResolveGuest *guest, const char *name)
{
    const char *colon = strchr(name, ':');
    size_t length = colon ? (size_t)(colon - name) : strlen(name);

    for (guint i = 0; i < guest->installed->len; i++) {
        const ResolvePackage *package = guest->installed->pdata[i];

        if (strlen(package->name) == length && strncmp(package->name, name, length) == 0 &&
            (!colon || strcmp(package->architecture, colon + 1) == 0))
            return package;
    }
    return NULL;
}

static void read_architectures(ResolveGuest *guest, GBytes *listed)
{
    const ResolvePackage *dpkg = resolve_guest_find(guest, "dpkg");
    g_auto(GStrv) lines = g_strsplit(listed ? g_bytes_get_data(listed, NULL) : "", "\n", 16);
    GPtrArray *names = g_ptr_array_new();

    g_ptr_array_add(names, g_strdup(dpkg ? dpkg->architecture : "amd64"));
    for (char **line = lines; *line; line++)
        if (resolve_plain_word(g_strstrip(*line)) && strcmp(*line, names->pdata[0]) != 0)
            g_ptr_array_add(names, g_strdup(*line));
    g_ptr_array_add(names, NULL);
    guest->architectures = (char **)g_ptr_array_free(names, FALSE);
}

static bool is_remote(const AptEntry *entry)
{
    return g_str_has_prefix(entry->uri, "http://") || g_str_has_prefix(entry->uri, "https://");
}

static bool read_lists(Ext4Root *root, ResolveGuest *guest, GError **error)
{
    g_autoptr(GBytes) main_list = NULL;
    g_auto(GStrv) names = NULL;

    if (!ext4_root_read(root, "/etc/apt/sources.list", LIST_MAX, &main_list, error) ||
        !ext4_root_list(root, "/etc/apt/sources.list.d", &names, error))
        return false;
    if (main_list)
        apt_parse_one_line(g_bytes_get_data(main_list, NULL), guest->entries);
    for (guint i = 0; names[i] && i < FILES_MAX; i++) {
        g_autofree char *path = g_build_filename("/etc/apt/sources.list.d", names[i], NULL);
        g_autoptr(GBytes) text = NULL;
        bool deb822 = g_str_has_suffix(path, ".sources");

        if (!deb822 && !g_str_has_suffix(path, ".list"))
            continue;
        if (!ext4_root_read(root, path, LIST_MAX, &text, error))
            return false;
        if (text)
            (deb822 ? apt_parse_deb822 : apt_parse_one_line)(g_bytes_get_data(text, NULL), guest->entries);
    }
    for (guint i = guest->entries->len; i > 0; i--) {
        const AptEntry *entry = guest->entries->pdata[i - 1];

        if (is_remote(entry))
            continue;
        log_verbose("the guest's source '%s' is left out: only http and https are read on the host", entry->uri);
        g_ptr_array_remove_index(guest->entries, i - 1);
    }
    return true;
}

static bool read_keys(Ext4Root *root, ResolveGuest *guest, GError **error)
{
    for (guint i = 0; i < guest->entries->len; i++) {
        const AptEntry *entry = guest->entries->pdata[i];
        g_autoptr(GBytes) key = NULL;

        if (!entry->signed_by || *entry->signed_by != '/' || g_hash_table_contains(guest->keys, entry->signed_by))
            continue;
        if (!ext4_root_read(root, entry->signed_by, KEY_MAX, &key, error))
            return false;
        if (key)
            g_hash_table_insert(guest->keys, g_strdup(entry->signed_by), g_steal_pointer(&key));
    }
    return true;
}

/* apt passes over a file like "pin.bak" or "pin~", and so do we: what was put out of the way stays there. */
static bool has_suffix(const char *name, const char *suffix)
{
    if (*suffix)
        return g_str_has_suffix(name, suffix);
    for (; *name; name++)
        if (!g_ascii_isalnum(*name) && *name != '-' && *name != '_')
            return false;
    return true;
}

/* Files of a folder whose names end in one of @suffixes ("": names without any), and @alone beside it. */
static bool read_folder(Ext4Root *root, const char *folder, const char *const *suffixes, const char *alone,
                        GPtrArray *ret, GError **error)
{
    g_auto(GStrv) names = NULL;
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);

    if (!ext4_root_list(root, folder, &names, error))
        return false;
    g_ptr_array_add(paths, g_strdup(alone));
    for (guint i = 0; names[i] && paths->len < FILES_MAX; i++)
        for (const char *const *suffix = suffixes; *suffix; suffix++)
            if (has_suffix(names[i], *suffix)) {
                g_ptr_array_add(paths, g_build_filename(folder, names[i], NULL));
                break;
            }
    for (guint i = 0; i < paths->len; i++) {
        g_autoptr(GBytes) bytes = NULL;
        ResolveFile *file;

        if (!ext4_root_read(root, paths->pdata[i], KEY_MAX, &bytes, error))
            return false;
        if (!bytes)
            continue;
        file = g_new0(ResolveFile, 1);
        file->name = g_path_get_basename(paths->pdata[i]);
        file->bytes = g_steal_pointer(&bytes);
        g_ptr_array_add(ret, file);
    }
    return true;
}

static bool read_all(Ext4Root *root, ResolveGuest *guest, GError **error)
{
    static const char *const key_suffixes[] = {".gpg", ".asc", NULL}, *const pin_suffixes[] = {".pref", "", NULL};
    g_autoptr(GBytes) extended = NULL, listed = NULL;

    if (!ext4_root_read(root, "/var/lib/apt/extended_states", STATUS_MAX, &extended, error) ||
        !ext4_root_read(root, "/var/lib/dpkg/arch", LIST_MAX, &listed, error))
        return false;
    each_stanza(guest, guest->status, take_status);
    if (extended)
        each_stanza(guest, extended, take_extended);
    read_architectures(guest, listed);
    return read_lists(root, guest, error) && read_keys(root, guest, error) &&
           read_folder(root, "/etc/apt/trusted.gpg.d", key_suffixes, "/etc/apt/trusted.gpg", guest->trusted, error) &&
           read_folder(root, "/etc/apt/preferences.d", pin_suffixes, "/etc/apt/preferences", guest->preferences, error);
}

bool resolve_guest_read(const ResolveRequest *request, ResolveGuest **ret, GError **error)
{
    g_autoptr(ResolveGuest) guest = guest_new();
    g_autoptr(StoreMap) disk = NULL;
    g_autoptr(Ext4Root) root = NULL;

    *ret = NULL;
    if (!store_map_open(request->store, request->map, &disk, error) ||
        !ext4_root_open(disk, request->root_offset, request->root_size, &root, error) ||
        !ext4_root_read(root, "/var/lib/dpkg/status", STATUS_MAX, &guest->status, error))
        return false;
    if (!guest->status)
        return true;
    if (!read_all(root, guest, error))
        return fail_prefix(error, "resolve packages");
    *ret = g_steal_pointer(&guest);
    return true;
}
