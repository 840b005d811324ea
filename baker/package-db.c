/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The databases that are text: dpkg's, apk's, npm's and Python's. Go's are in package-go.c, rpm's in package-rpm.c.
 */
#include "baker/package-parts.h"

#include "baker/stanza.h"
#include "base/error.h"
#include "base/printable.h"

#include <string.h>

#define DATABASE_MAX ((size_t)64 << 20)  /* status of a machine with 60,000 packages */
#define DESCRIPTION_MAX ((size_t)4 << 20) /* a package.json or METADATA with its README in it */
#define RELEASE_MAX ((size_t)64 << 10)
#define PACKAGES_MAX 200000u

void package_free(Package *package)
{
    if (!package)
        return;
    g_free(package->type);
    g_free(package->name);
    g_free(package->version);
    g_free(package->architecture);
    g_free(package->source);
    g_free(package->license);
    g_free(package->supplier);
    g_free(package->homepage);
    g_free(package->path);
    g_free(package);
}

void package_list_free(PackageList *list)
{
    if (!list)
        return;
    g_free(list->system);
    g_free(list->release);
    g_clear_pointer(&list->all, g_ptr_array_unref);
    g_free(list);
}

static PackageList *package_list_new(void)
{
    PackageList *list = g_new0(PackageList, 1);

    list->all = g_ptr_array_new_with_free_func((GDestroyNotify)package_free);
    return list;
}

static bool is_plain(const char *text, size_t max)
{
    g_autofree char *shown = NULL;

    if (!text || !*text || strlen(text) > max)
        return false;
    shown = printable_line(text);
    return strcmp(shown, text) == 0 && !strchr(text, '\t');
}

static char *plain_or_null(char *text)
{
    if (text && is_plain(text, 4096))
        return text;
    g_free(text);
    return NULL;
}

void package_found(PackageScan *scan, Package *package)
{
    if (!is_plain(package->name, 1024) || !is_plain(package->version, 1024) || strchr(package->name, ' ') || scan->found->len >= PACKAGES_MAX) {
        package_free(package);
        return;
    }
    package->architecture = plain_or_null(package->architecture);
    package->source = plain_or_null(package->source);
    package->license = plain_or_null(package->license);
    package->supplier = plain_or_null(package->supplier);
    package->homepage = plain_or_null(package->homepage);
    g_ptr_array_add(scan->found, package);
}

/* The text of an entry; *ret NULL where it is no file or too large to be what it pretends to be. */
static bool read_text(PackageScan *scan, const TreeEntry *entry, size_t max, char **ret, GError **error)
{
    const TreeEntry *content = tree_content_entry(scan->tree, entry);
    g_autoptr(GBytes) bytes = NULL;
    gsize size;
    const char *data;

    *ret = NULL;
    if (!content || content->type != 'f' || content->size > max)
        return true;
    if (!tree_read_file(scan->tree, scan->files, entry->path, max, &bytes, error))
        return false;
    data = g_bytes_get_data(bytes, &size);
    *ret = g_strndup(data ? data : "", size);
    return true;
}

/* --- dpkg ---------------------------------------------------------------------------------- */

typedef struct Found {
    PackageScan *scan;
    const char *path;
} Found;

static void add_deb(const char *stanza, const char *end, void *arg)
{
    const Found *found = arg;
    g_autofree char *status = stanza_field(stanza, end, "Status");
    Package *package;

    if (status && !g_str_has_suffix(status, " installed") && !g_str_has_suffix(status, " triggers-pending") &&
        !g_str_has_suffix(status, " triggers-awaited"))
        return;
    package = g_new0(Package, 1);
    package->type = g_strdup("deb");
    package->name = stanza_field(stanza, end, "Package");
    package->version = stanza_field(stanza, end, "Version");
    package->architecture = stanza_field(stanza, end, "Architecture");
    package->source = stanza_field(stanza, end, "Source");
    package->supplier = stanza_field(stanza, end, "Maintainer");
    package->homepage = stanza_field(stanza, end, "Homepage");
    package->path = g_strdup(found->path);
    package_found(found->scan, package);
}

static bool read_dpkg(PackageScan *scan, const TreeEntry *entry, GError **error)
{
    g_autofree char *text = NULL;
    Found found = {scan, entry->path};

    if (!read_text(scan, entry, DATABASE_MAX, &text, error))
        return false;
    if (text)
        stanza_each(text, strlen(text), add_deb, &found);
    return true;
}

/* --- apk: "X:value" lines ----------------------------------------------------------------- */

static char *apk_value(char **lines, char letter)
{
    for (; *lines && **lines; lines++)
        if ((*lines)[0] == letter && (*lines)[1] == ':')
            return g_strdup(*lines + 2);
    return NULL;
}

static void add_apk(PackageScan *scan, char **lines, const char *path)
{
    Package *package = g_new0(Package, 1);

    package->type = g_strdup("apk");
    package->name = apk_value(lines, 'P');
    package->version = apk_value(lines, 'V');
    package->architecture = apk_value(lines, 'A');
    package->source = apk_value(lines, 'o');
    package->license = apk_value(lines, 'L');
    package->supplier = apk_value(lines, 'm');
    package->homepage = apk_value(lines, 'U');
    package->path = g_strdup(path);
    package_found(scan, package);
}

static bool read_apk(PackageScan *scan, const TreeEntry *entry, GError **error)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!read_text(scan, entry, DATABASE_MAX, &text, error))
        return false;
    lines = g_strsplit(text ? text : "", "\n", -1);
    for (char **line = lines; *line;) {
        add_apk(scan, line, entry->path);
        while (*line && **line)
            line++;
        while (*line && !**line)
            line++;
    }
    return true;
}

/* --- npm and Python ----------------------------------------------------------------------- */

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* "…/node_modules/NAME/package.json" or "…/node_modules/@SCOPE/NAME/package.json": the package itself and not a part of it. */
static bool is_npm(const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);
    guint n = g_strv_length(parts);

    if (n < 3 || strcmp(parts[n - 1], "package.json") != 0)
        return false;
    return strcmp(parts[n - 3], "node_modules") == 0 ? parts[n - 2][0] != '@'
                                                     : n >= 4 && parts[n - 3][0] == '@' && strcmp(parts[n - 4], "node_modules") == 0;
}

static const char *npm_text(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (json_is_object(value)) /* "license": {"type": ...}, "author": {"name": ...} */
        value = json_object_get(value, "type") ? json_object_get(value, "type") : json_object_get(value, "name");
    return json_string_value(value);
}

static bool read_npm(PackageScan *scan, const TreeEntry *entry, GError **error)
{
    g_autofree char *text = NULL;
    g_autoptr(json_t) document = NULL;
    Package *package;

    if (!read_text(scan, entry, DESCRIPTION_MAX, &text, error))
        return false;
    if (!text || !json_parse(text, strlen(text), DESCRIPTION_MAX, entry->path, &document, NULL) || !json_is_object(document))
        return true;
    package = g_new0(Package, 1);
    package->type = g_strdup("npm");
    package->name = g_strdup(npm_text(document, "name"));
    package->version = g_strdup(npm_text(document, "version"));
    package->license = g_strdup(npm_text(document, "license"));
    package->supplier = g_strdup(npm_text(document, "author"));
    package->homepage = g_strdup(npm_text(document, "homepage"));
    package->path = g_strdup(entry->path);
    package_found(scan, package);
    return true;
}

static bool is_python(const char *path)
{
    return g_str_has_suffix(path, ".dist-info/METADATA") || g_str_has_suffix(path, ".egg-info/PKG-INFO") ||
           (g_str_has_suffix(path, ".egg-info") && strstr(path, "-packages/"));
}

static bool read_python(PackageScan *scan, const TreeEntry *entry, GError **error)
{
    g_autofree char *text = NULL;
    const char *end;
    Package *package;

    if (!read_text(scan, entry, DESCRIPTION_MAX, &text, error))
        return false;
    if (!text)
        return true;
    end = stanza_stop(text, text + strlen(text));
    package = g_new0(Package, 1);
    package->type = g_strdup("pypi");
    package->name = stanza_field(text, end, "Name");
    package->version = stanza_field(text, end, "Version");
    package->license = stanza_field(text, end, "License");
    package->supplier = stanza_field(text, end, "Author");
    package->homepage = stanza_field(text, end, "Home-page");
    package->path = g_strdup(entry->path);
    package_found(scan, package);
    return true;
}

/* --- all of them --------------------------------------------------------------------------- */

static bool look_at(PackageScan *scan, const TreeEntry *entry, GError **error)
{
    const char *path = entry->path;

    if (entry->type != 'f' && entry->type != 'h')
        return true;
    if (strcmp(path, "var/lib/dpkg/status") == 0 || (g_str_has_prefix(path, "var/lib/dpkg/status.d/") && !g_str_has_suffix(path, ".md5sums")))
        return read_dpkg(scan, entry, error);
    if (strcmp(path, "lib/apk/db/installed") == 0 || strcmp(path, "usr/lib/apk/db/installed") == 0)
        return read_apk(scan, entry, error);
    if (strcmp(last_part(path), "package.json") == 0 && is_npm(path))
        return read_npm(scan, entry, error);
    if (is_python(path))
        return read_python(scan, entry, error);
    return package_go_read(scan, entry, error);
}

static int compare_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "");
}

static gint compare_packages(gconstpointer a, gconstpointer b)
{
    const Package *x = *(Package *const *)a, *y = *(Package *const *)b;
    int order = strcmp(x->type, y->type);

    if (order == 0)
        order = strcmp(x->name, y->name);
    if (order == 0)
        order = strcmp(x->version, y->version);
    if (order == 0)
        order = compare_text(x->architecture, y->architecture);
    return order ? order : compare_text(x->path, y->path);
}

/* A value of os-release, without its quotes. */
static char *release_value(const char *text, const char *key)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++)
        if (g_str_has_prefix(*line, key) && (*line)[strlen(key)] == '=') {
            char *value = g_strstrip(*line + strlen(key) + 1);
            size_t length = strlen(value);
            bool quoted = length >= 2 && (*value == '"' || *value == '\'') && value[length - 1] == *value;

            return plain_or_null(quoted ? g_strndup(value + 1, length - 2) : g_strdup(value));
        }
    return NULL;
}

static bool read_release(PackageScan *scan, PackageList *list, GError **error)
{
    static const char *const paths[] = {"usr/lib/os-release", "etc/os-release"};

    for (size_t i = 0; i < G_N_ELEMENTS(paths) && !list->system; i++) {
        const TreeEntry *entry = tree_find(scan->tree, paths[i]);
        g_autofree char *text = NULL;

        if (!entry || (entry->type != 'f' && entry->type != 'h'))
            continue;
        if (!read_text(scan, entry, RELEASE_MAX, &text, error))
            return false;
        list->system = release_value(text ? text : "", "ID");
        list->release = release_value(text ? text : "", "VERSION_ID");
    }
    return true;
}

bool package_db_read(Tree *tree, StoreMap *files, PackageList **ret, GError **error)
{
    g_autoptr(PackageList) list = package_list_new();
    PackageScan scan = {tree, files, list->all};

    for (size_t i = 0; i < tree_count(tree); i++)
        if (!look_at(&scan, tree_nth(tree, i), error))
            return fail_prefix(error, "packages of the root");
    if (!package_rpm_read(&scan, error) || !read_release(&scan, list, error))
        return fail_prefix(error, "packages of the root");
    g_ptr_array_sort(list->all, compare_packages);
    *ret = g_steal_pointer(&list);
    return true;
}

/* --- as JSON --------------------------------------------------------------------------------- */

static const struct {
    const char *key;
    size_t offset;
    bool needed;
} members[] = {
    {"type", offsetof(Package, type), true},          {"name", offsetof(Package, name), true},
    {"version", offsetof(Package, version), true},    {"architecture", offsetof(Package, architecture), false},
    {"source", offsetof(Package, source), false},     {"license", offsetof(Package, license), false},
    {"supplier", offsetof(Package, supplier), false}, {"homepage", offsetof(Package, homepage), false},
    {"path", offsetof(Package, path), false},
};

static char **member_of(Package *package, size_t i)
{
    return (char **)((char *)package + members[i].offset);
}

json_t *package_list_to_json(const PackageList *list)
{
    json_t *packages = json_array(), *object = json_pack("{s:o}", "packages", packages);

    if (list->system)
        json_object_set_new(object, "system", json_string(list->system));
    if (list->release)
        json_object_set_new(object, "release", json_string(list->release));
    for (guint i = 0; i < list->all->len; i++) {
        json_t *one = json_object();

        for (size_t k = 0; k < G_N_ELEMENTS(members); k++)
            if (*member_of(list->all->pdata[i], k)) /* a path need not be text; it is then left out */
                json_object_set_new(one, members[k].key, json_string(*member_of(list->all->pdata[i], k)));
        json_array_append_new(packages, one);
    }
    return object;
}

bool package_list_from_json(const json_t *object, PackageList **ret, GError **error)
{
    g_autoptr(PackageList) list = package_list_new();
    json_t *one;
    size_t i;

    list->system = g_strdup(json_string_value(json_object_get(object, "system")));
    list->release = g_strdup(json_string_value(json_object_get(object, "release")));
    json_array_foreach (json_object_get(object, "packages"), i, one) {
        Package *package = g_new0(Package, 1);

        g_ptr_array_add(list->all, package);
        for (size_t k = 0; k < G_N_ELEMENTS(members); k++) {
            *member_of(package, k) = g_strdup(json_string_value(json_object_get(one, members[k].key)));
            if (members[k].needed && !*member_of(package, k))
                return fail(error, "entry %zu of the list of packages has no %s", i, members[k].key);
        }
        if (!is_plain(package->name, 1024) || !is_plain(package->version, 1024)) /* a list from before they were looked at, or another's */
            g_ptr_array_set_size(list->all, (gint)list->all->len - 1);
    }
    *ret = g_steal_pointer(&list);
    return true;
}

/* What a type's names have in common is written in one way: purl-spec's rules for each. */
static char *url_name(const Package *package)
{
    char *name = g_strdup(package->name);

    if (strcmp(package->type, "npm") != 0 && strcmp(package->type, "rpm") != 0)
        for (char *c = name; *c; c++)
            *c = *c == '_' && strcmp(package->type, "pypi") == 0 ? '-' : g_ascii_tolower(*c);
    return name;
}

static void add_qualifier(GString *url, const char *key, const char *value)
{
    g_autofree char *escaped = g_uri_escape_string(value, ":", false);

    g_string_append_printf(url, "%s%s=%s", strchr(url->str, '?') ? "&" : "?", key, escaped);
}

/* rpm's epoch is no part of the version there. */
static const char *split_epoch(const Package *package, char **ret_epoch)
{
    size_t digits = strspn(package->version, "0123456789");

    *ret_epoch = NULL;
    if (strcmp(package->type, "rpm") != 0 || digits == 0 || package->version[digits] != ':' || !package->version[digits + 1])
        return package->version;
    *ret_epoch = g_strndup(package->version, digits);
    return package->version + digits + 1;
}

char *package_url(const Package *package, const char *system)
{
    GString *url = g_string_new("pkg:");
    bool plain = strcmp(package->type, "deb") == 0 || strcmp(package->type, "apk") == 0 || strcmp(package->type, "rpm") == 0;
    g_autofree char *plain_name = url_name(package), *name = g_uri_escape_string(plain_name, plain ? NULL : "/", false), *epoch = NULL;
    g_autofree char *version = g_uri_escape_string(split_epoch(package, &epoch), ":", false);

    g_string_append_printf(url, "%s/", package->type);
    if (plain && system) {
        g_autofree char *lower = g_ascii_strdown(system, -1), *from = g_uri_escape_string(lower, NULL, false);

        g_string_append_printf(url, "%s/", from);
    }
    g_string_append_printf(url, "%s@%s", name, version);
    if (plain && package->architecture)
        add_qualifier(url, "arch", package->architecture);
    if (epoch)
        add_qualifier(url, "epoch", epoch);
    return g_string_free(url, FALSE);
}
