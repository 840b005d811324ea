/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates and mirrors. registries.conf is TOML, of which the few lines that matter here are read line by line; what else is in there
 * is podman's.
 */
#include "store/registry-hosts.h"

#include "base/error.h"

#include <string.h>

#define CONFIG_MAX (1u << 20)
#define PLACES_MAX 16

/* --- certificates --- */

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static GPtrArray *list_folder(const char *path)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir)))
        g_ptr_array_add(names, g_strdup(name));
    if (dir)
        g_dir_close(dir);
    g_ptr_array_sort(names, compare_names);
    return names;
}

static void look_for(const char *folder, char **ret_ca, char **ret_cert, char **ret_key)
{
    g_autoptr(GPtrArray) names = list_folder(folder);

    for (guint i = 0; i < names->len; i++) {
        const char *name = names->pdata[i];
        g_autofree char *stem = g_str_has_suffix(name, ".cert") ? g_strndup(name, strlen(name) - 5) : NULL;
        g_autofree char *key = stem ? g_strdup_printf("%s/%s.key", folder, stem) : NULL;

        if (!*ret_ca && g_str_has_suffix(name, ".crt"))
            *ret_ca = g_build_filename(folder, name, NULL);
        if (!*ret_cert && key && g_file_test(key, G_FILE_TEST_EXISTS)) {
            *ret_cert = g_build_filename(folder, name, NULL);
            *ret_key = g_steal_pointer(&key);
        }
    }
}

void registry_certificates(const char *host, char **ret_ca, char **ret_cert, char **ret_key)
{
    static const char *const usual[] = {"/etc/containers/certs.d", "/etc/docker/certs.d", NULL};
    const char *given = g_getenv("KILN_CERTS_D");
    const char *const one[] = {given, NULL};

    *ret_ca = *ret_cert = *ret_key = NULL;
    for (const char *const *folder = given && *given ? one : usual; *folder; folder++) {
        g_autofree char *path = g_build_filename(*folder, host, NULL);

        look_for(path, ret_ca, ret_cert, ret_key);
    }
}

/* --- mirrors --- */

typedef struct Entry {
    char *prefix, *location;
    bool blocked;
    GPtrArray *mirrors; /* of char* */
} Entry;

static void entry_reset(Entry *entry)
{
    g_clear_pointer(&entry->prefix, g_free);
    g_clear_pointer(&entry->location, g_free);
    g_clear_pointer(&entry->mirrors, g_ptr_array_unref);
    entry->blocked = false;
}

static size_t covers(const Entry *entry, const char *whole)
{
    const char *prefix = entry->prefix ? entry->prefix : entry->location;
    size_t size = prefix ? strlen(prefix) : 0;

    return size > 0 && g_str_has_prefix(whole, prefix) && (whole[size] == '/' || whole[size] == '\0') ? size : 0;
}

static void settle(Entry *entry, const char *whole, GPtrArray *places, bool *blocked, size_t *best)
{
    size_t size = covers(entry, whole);

    if (size > *best) {
        *best = size;
        *blocked = entry->blocked;
        g_ptr_array_set_size(places, 0);
        for (guint i = 0; entry->mirrors && i < entry->mirrors->len && places->len < PLACES_MAX; i++)
            g_ptr_array_add(places, g_strconcat(entry->mirrors->pdata[i], whole + size, NULL));
        g_ptr_array_add(places, entry->location ? g_strconcat(entry->location, whole + size, NULL) : g_strdup(whole));
    }
    entry_reset(entry);
}

/* key = "text" or key = true */
static char *value_of(const char *line, const char *key)
{
    size_t size = strlen(key);
    const char *at = line + size, *end;

    if (strncmp(line, key, size) != 0)
        return NULL;
    at += strspn(at, " \t");
    if (*at++ != '=')
        return NULL;
    at += strspn(at, " \t");
    if (*at == '"' || *at == '\'') {
        end = strchr(at + 1, *at);
        return end ? g_strndup(at + 1, (gsize)(end - at - 1)) : NULL;
    }
    return g_strndup(at, strcspn(at, " \t#"));
}

static void read_line(const char *line, Entry *entry, bool in_mirror)
{
    char *prefix = value_of(line, "prefix"), *location = value_of(line, "location"), *blocked = value_of(line, "blocked");

    if (prefix && !in_mirror) {
        g_free(entry->prefix);
        entry->prefix = g_steal_pointer(&prefix);
    }
    if (location && in_mirror) {
        if (!entry->mirrors)
            entry->mirrors = g_ptr_array_new_with_free_func(g_free);
        g_ptr_array_add(entry->mirrors, g_steal_pointer(&location));
    } else if (location) {
        g_free(entry->location);
        entry->location = g_steal_pointer(&location);
    }
    entry->blocked = entry->blocked || g_strcmp0(blocked, "true") == 0;
    g_free(prefix);
    g_free(location);
    g_free(blocked);
}

void registry_places_in(const char *text, const char *whole, GPtrArray *places, bool *ret_blocked)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    Entry entry = {0};
    bool in_registry = false, in_mirror = false;
    size_t best = 0;

    *ret_blocked = false;
    for (char **line = lines; *line; line++) {
        g_strstrip(*line);
        if (**line == '[') {
            in_mirror = g_str_has_prefix(*line, "[[registry.mirror]]");
            if (!in_mirror) {
                settle(&entry, whole, places, ret_blocked, &best);
                in_registry = g_str_has_prefix(*line, "[[registry]]");
            }
        } else if (in_registry && **line != '#') {
            read_line(*line, &entry, in_mirror);
        }
    }
    settle(&entry, whole, places, ret_blocked, &best);
}

bool registry_places(const char *host, const char *repository, GPtrArray **ret, GError **error)
{
    const char *given = g_getenv("CONTAINERS_REGISTRIES_CONF");
    g_autofree char *own = g_build_filename(g_get_user_config_dir(), "containers", "registries.conf", NULL);
    g_autofree char *whole = g_strconcat(host, "/", repository, NULL);
    const char *path = given && *given ? given : g_file_test(own, G_FILE_TEST_EXISTS) ? own : "/etc/containers/registries.conf";
    g_autoptr(GPtrArray) places = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *text = NULL;
    bool blocked = false;
    gsize size = 0;

    if (g_file_get_contents(path, &text, &size, NULL) && size <= CONFIG_MAX)
        registry_places_in(text, whole, places, &blocked);
    if (blocked)
        return fail(error, "%s: '%s' says that it is blocked", whole, path);
    if (places->len == 0)
        g_ptr_array_add(places, g_steal_pointer(&whole));
    *ret = g_steal_pointer(&places);
    return true;
}
