/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which package a path belongs to, from the lists that package managers keep.
 */
#include "baker/package-parts.h"

#include "baker/stanza.h"

#include <string.h>

#define LIST_MAX ((size_t)16 << 20)      /* one package's file list */
#define DATABASE_MAX ((size_t)64 << 20)

typedef struct Owners {
    Tree *tree;
    StoreMap *files;
    GHashTable *table;
} Owners;

/* Package lists say /bin/sh where the file is usr/bin/sh: follows one link at the top of the tree. */
static char *real_path(const Tree *tree, const char *path)
{
    const char *slash = strchr(path, '/');
    g_autofree char *top = slash ? g_strndup(path, (gsize)(slash - path)) : NULL;
    const TreeEntry *entry = top ? tree_find(tree, top) : NULL;
    const char *target;

    if (!entry || entry->type != 'l')
        return g_strdup(path);
    for (target = entry->target; *target == '/'; target++)
        ;
    return g_strconcat(target, slash, NULL);
}

/* Folders are shared; the first package that names a path has it. */
static void own(const char *path, const char *package, void *arg)
{
    Owners *owners = arg;
    char *real = real_path(owners->tree, path);

    if (g_hash_table_contains(owners->table, real))
        g_free(real);
    else
        g_hash_table_insert(owners->table, real, g_strdup(package));
}

static char **lines_of(GBytes *bytes)
{
    gsize size;
    const char *data = g_bytes_get_data(bytes, &size);
    g_autofree char *text = g_strndup(data ? data : "", size);

    return g_strsplit(text, "\n", -1);
}

static bool read_lines(Owners *owners, const TreeEntry *list, size_t max, char ***ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;

    if (!tree_read_file(owners->tree, owners->files, list->path, max, &bytes, error))
        return false;
    *ret = lines_of(bytes);
    return true;
}

/* "var/lib/dpkg/info/NAME[:ARCHITECTURE].list" */
static bool add_dpkg(Owners *owners, const TreeEntry *list, GError **error)
{
    const char *name = strrchr(list->path, '/') + 1;
    g_autofree char *package = g_strndup(name, strcspn(name, ":") < strlen(name) ? strcspn(name, ":") : strlen(name) - strlen(".list"));
    g_auto(GStrv) lines = NULL;

    if (!read_lines(owners, list, LIST_MAX, &lines, error))
        return false;
    for (char **line = lines; *line; line++)
        if ((*line)[0] == '/' && (*line)[1] && (*line)[1] != '.')
            own(*line + 1, package, owners);
    return true;
}

/* "P:" names the package, "F:" a folder, "R:" a file in it. */
static bool add_apk(Owners *owners, const TreeEntry *list, GError **error)
{
    g_auto(GStrv) lines = NULL;
    const char *package = NULL, *folder = "";

    if (!read_lines(owners, list, DATABASE_MAX, &lines, error))
        return false;
    for (char **line = lines; *line; line++) {
        g_autofree char *path = NULL;

        if (g_str_has_prefix(*line, "P:"))
            package = *line + 2;
        else if (g_str_has_prefix(*line, "F:"))
            folder = *line + 2;
        if (!package || !(g_str_has_prefix(*line, "F:") || g_str_has_prefix(*line, "R:")))
            continue;
        path = (*line)[0] == 'F' ? g_strdup(folder) : g_build_filename(folder, *line + 2, NULL);
        if (*path)
            own(path, package, owners);
    }
    return true;
}

/* ".../site-packages/NAME-VERSION.dist-info/RECORD": "path,hash,size", the path seen from site-packages. */
static bool add_python(Owners *owners, const TreeEntry *list, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(list->path), *site = g_path_get_dirname(folder);
    const char *name = strrchr(folder, '/');
    g_autofree char *package = name ? g_strndup(name + 1, strcspn(name + 1, "-")) : NULL;
    g_auto(GStrv) lines = NULL;

    if (!package)
        return true;
    if (!read_lines(owners, list, LIST_MAX, &lines, error))
        return false;
    for (char **line = lines; *line; line++) {
        g_autofree char *relative = g_strndup(*line, strcspn(*line, ","));
        g_autofree char *base = g_strconcat("/", site, NULL), *path = g_canonicalize_filename(relative, base);

        if (*relative && path[1])
            own(path + 1, package, owners);
    }
    return true;
}

GHashTable *package_owners_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

static bool add_system(Owners *owners, const TreeEntry *entry, GError **error)
{
    if (g_str_has_prefix(entry->path, "var/lib/dpkg/info/") && g_str_has_suffix(entry->path, ".list"))
        return add_dpkg(owners, entry, error);
    if (strcmp(entry->path, "lib/apk/db/installed") == 0 || strcmp(entry->path, "usr/lib/apk/db/installed") == 0)
        return add_apk(owners, entry, error);
    return true;
}

static bool add_language(Owners *owners, const TreeEntry *entry, GError **error)
{
    return !g_str_has_suffix(entry->path, ".dist-info/RECORD") || add_python(owners, entry, error);
}

/* What the distribution's own packages have is theirs, also where Python says the same. */
bool package_owners(Tree *tree, StoreMap *files, bool all, GHashTable *table, GError **error)
{
    Owners owners = {tree, files, table};

    for (size_t i = 0; i < tree_count(tree); i++)
        if (tree_nth(tree, i)->type == 'f' && !add_system(&owners, tree_nth(tree, i), error))
            return false;
    if (all && !package_rpm_owners(tree, files, own, &owners, error))
        return false;
    for (size_t i = 0; all && i < tree_count(tree); i++)
        if (tree_nth(tree, i)->type == 'f' && !add_language(&owners, tree_nth(tree, i), error))
            return false;
    return true;
}

/* --- what packages were built from ------------------------------------------------------------------ */

/* "NAME" or "NAME (VERSION)" */
static void note_source(GHashTable *sources, const char *package, char *source)
{
    source[strcspn(source, " ")] = '\0';
    if (*package && *source && !g_hash_table_contains(sources, package))
        g_hash_table_insert(sources, g_strdup(package), g_strdup(source));
}

static void add_deb_source(const char *stanza, const char *end, void *arg)
{
    g_autofree char *package = stanza_field(stanza, end, "Package"), *source = stanza_field(stanza, end, "Source");

    if (package && source)
        note_source(arg, package, source);
}

static void add_deb_sources(GBytes *status, GHashTable *sources)
{
    gsize size;
    const char *text = g_bytes_get_data(status, &size);

    stanza_each(text, size, add_deb_source, sources);
}

static void add_apk_sources(GBytes *installed, GHashTable *sources)
{
    g_auto(GStrv) lines = lines_of(installed);
    const char *package = "";

    for (char **line = lines; *line; line++) {
        if (g_str_has_prefix(*line, "P:"))
            package = *line + 2;
        else if (g_str_has_prefix(*line, "o:"))
            note_source(sources, package, *line + 2);
    }
}

bool package_sources(Tree *tree, StoreMap *files, GHashTable *sources, GError **error)
{
    static const struct {
        const char *path;
        void (*add)(GBytes *text, GHashTable *sources);
    } databases[] = {{"var/lib/dpkg/status", add_deb_sources}, {"lib/apk/db/installed", add_apk_sources}, {"usr/lib/apk/db/installed", add_apk_sources}};

    for (size_t i = 0; i < G_N_ELEMENTS(databases); i++) {
        const TreeEntry *entry = tree_find(tree, databases[i].path);
        g_autoptr(GBytes) text = NULL;

        if (!entry || entry->type != 'f')
            continue;
        if (!tree_read_file(tree, files, entry->path, DATABASE_MAX, &text, error))
            return false;
        databases[i].add(text, sources);
    }
    return true;
}
