/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts a sealed tree into container layers and describes them in an OCI config and manifest.
 *
 * Rules (facts of the image-spec that decide them in brackets):
 * 1. base: the source's tree, less what the bake deleted or changed and no package owns (shed_changes).
 * packages: what the distribution's packages own among the changes. rest: all other changes. Without a base tree what packages own and
 * all folders are the base. From an oci parent: one layer with all changes.
 * 2. An entry is preceded by its parent folders in their final form, whiteouts come right after their folder.
 * 3. A hard-link group with one changed name goes whole into one layer [links across layers are not
 * reliable].
 * 4. A path that changes its type is simply written again; what was below it is gone with it.
 * 5. What belongs to a booted machine is left out (excluded()), in the base tree as well, so that it is no
 * deletion.
 *
 * Applying the layers in order gives the tree back, less what rule 5 leaves out; tests hold us to it.
 */
#include "baker/layers.h"

#include "baker/package-db.h"
#include "base/error.h"
#include "base/units.h"

#include <string.h>

#define MANIFEST_MAX (4u << 20)
#define LAYERS_MAX 512
#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define LAYER_MEDIA_TYPE "application/vnd.oci.image.layer.v1.tar+gzip"
#define ZSTD_MEDIA_TYPE "application/vnd.oci.image.layer.v1.tar+zstd"
#define CONFIG_MEDIA_TYPE "application/vnd.oci.image.config.v1+json"
#define MANIFEST_MEDIA_TYPE "application/vnd.oci.image.manifest.v1+json"

typedef struct Cut {
    const char *title; /* in the config's history */
    Tree *tree;        /* entries come from it, contents from @files */
    StoreMap *files;
    GHashTable *paths;     /* set of paths of @tree that go in */
    GHashTable *whiteouts; /* folder -> GPtrArray of paths that disappear from it */
    LayerWriter *writer;
} Cut;

struct LayersResult {
    json_t *parent; /* NULL but for oci sources */
    json_t *args;
    int64_t epoch;
    GPtrArray *cuts; /* of Cut*, bottom first, only such as hold something */
};

/* --- what a container has no use for -------------------------------------------- */

static bool excluded(const TreeEntry *entry)
{
    static const char *const emptied[] = {"dev", "proc", "sys", "run", "tmp"};
    static const char *const boot[] = {"boot/vmlinuz",    "boot/initrd", "boot/config-",
                                       "boot/System.map", "boot/grub/",  "boot/efi/"};
    static const char *const root[] = {"vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old",
                                       "lost+found"};
    static const char *const bound[] = {"etc/resolv.conf", "etc/hostname", "etc/hosts"};
    const char *path = entry->path;

    if (entry->type == 'b' || entry->type == 'c' || entry->type == 's')
        return true;
    for (size_t i = 0; i < G_N_ELEMENTS(emptied); i++)
        if (tree_path_is_below(path, emptied[i]))
            return true;
    for (size_t i = 0; i < G_N_ELEMENTS(boot); i++)
        if (g_str_has_prefix(path, boot[i]))
            return true;
    for (size_t i = 0; i < G_N_ELEMENTS(root); i++)
        if (strcmp(path, root[i]) == 0 || (tree_path_is_below(path, root[i]) && i == G_N_ELEMENTS(root) - 1))
            return true;
    for (size_t i = 0; i < G_N_ELEMENTS(bound); i++) /* runtimes bind their own over these */
        if (strcmp(path, bound[i]) == 0 && entry->type != 'f')
            return true;
    return false;
}

Tree *layers_container_tree(Tree *tree)
{
    g_autoptr(GPtrArray) out = g_ptr_array_new();
    Tree *copy = tree_new();

    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *entry = tree_nth(tree, i);

        tree_put(copy, tree_entry_copy(entry));
        if (excluded(entry))
            g_ptr_array_add(out, entry->path);
    }
    for (guint i = out->len; i-- > 0;) /* from the back: what is below a folder goes before it */
        tree_remove(copy, g_ptr_array_index(out, i));
    return copy;
}

/* Also what package managers write beside the packages' own files. */
static bool is_owned(GHashTable *owned, const char *path)
{
    static const char *const managed[] = {"var/lib/dpkg", "var/lib/apt", "etc/alternatives",
                                          "etc/ld.so.cache", "var/lib/systemd/deb-systemd-helper-enabled"};

    for (size_t i = 0; i < G_N_ELEMENTS(managed); i++)
        if (strcmp(path, managed[i]) == 0 || tree_path_is_below(path, managed[i]))
            return true;
    return g_hash_table_contains(owned, path);
}

/* --- cuts ----------------------------------------------------------------------------- */

static void cut_free(Cut *cut)
{
    if (!cut)
        return;
    layer_writer_free(cut->writer);
    g_hash_table_unref(cut->paths);
    g_hash_table_unref(cut->whiteouts);
    g_free(cut);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Cut, cut_free)

static Cut *cut_new(const char *title, Tree *tree, StoreMap *files)
{
    Cut *cut = g_new0(Cut, 1);

    cut->title = title;
    cut->tree = tree;
    cut->files = files;
    cut->paths = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    cut->whiteouts =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_ptr_array_unref);
    return cut;
}

static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? g_strndup(path, (gsize)(slash - path)) : g_strdup("");
}

/* With all folders above it. */
static void cut_add(Cut *cut, const char *path)
{
    if (!g_hash_table_add(cut->paths, g_strdup(path)) || !*path)
        return;
    g_autofree char *up = parent_of(path);

    cut_add(cut, up);
}

static void cut_add_whiteout(Cut *cut, const char *path)
{
    char *folder = parent_of(path);
    GPtrArray *names = g_hash_table_lookup(cut->whiteouts, folder);

    cut_add(cut, folder);
    if (!names) {
        names = g_ptr_array_new_with_free_func(g_free);
        g_hash_table_insert(cut->whiteouts, g_strdup(folder), names);
    }
    g_ptr_array_add(names, g_strdup(path)); /* told in path order, so sorted */
    g_free(folder);
}

static bool cut_write(Cut *cut, Store *store, StoreWriter *writer, bool zstd, GError **error)
{
    if (!layer_writer_new(store, writer, &cut->writer, error))
        return false;
    if (zstd)
        layer_writer_use_zstd(cut->writer);
    for (size_t i = 0; i < tree_count(cut->tree); i++) {
        const TreeEntry *entry = tree_nth(cut->tree, i);
        const GPtrArray *gone = g_hash_table_lookup(cut->whiteouts, entry->path);

        if (!g_hash_table_contains(cut->paths, entry->path))
            continue;
        if (!layer_writer_add(cut->writer, cut->tree, cut->files, entry, error))
            return false;
        for (guint k = 0; gone && k < gone->len; k++)
            if (!layer_writer_whiteout(cut->writer, g_ptr_array_index(gone, k), error))
                return false;
    }
    return layer_writer_finish(cut->writer, error) || fail_prefix(error, "layer '%s'", cut->title);
}

/* --- changes ----------------------------------------------------------------------------- */

typedef struct Changes {
    Tree *from, *to;
    GHashTable *owned;
    Cut *packages, *rest; /* the same cut when there is only one */
    GHashTable *leaders;  /* hard-link groups of @to with a changed name; keys borrowed */
} Changes;

static Cut *cut_for(const Changes *changes, const char *path)
{
    return is_owned(changes->owned, path) ? changes->packages : changes->rest;
}

/* Only the topmost of what disappears, and only where its folder stays a folder. */
static void add_deletion(Changes *changes, const char *path)
{
    g_autofree char *up = parent_of(path);
    const TreeEntry *folder = tree_find(changes->to, up);

    if (folder && folder->type == 'd')
        cut_add_whiteout(cut_for(changes, path), path);
}

static bool add_change(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    Changes *changes = arg;

    if (what == '-') {
        add_deletion(changes, a->path);
        return true;
    }
    cut_add(cut_for(changes, b->path), b->path);
    if (b->type == 'h')
        g_hash_table_add(changes->leaders, b->target);
    else if (b->type == 'f')
        g_hash_table_add(changes->leaders, b->path);
    return true;
}

/* Every name of a group goes where its leader goes, and nowhere else. */
static void add_whole_groups(Changes *changes)
{
    for (size_t i = 0; i < tree_count(changes->to); i++) {
        const TreeEntry *entry = tree_nth(changes->to, i);
        Cut *cut;

        if (entry->type != 'h' || !g_hash_table_contains(changes->leaders, entry->target))
            continue;
        cut = cut_for(changes, entry->target);
        cut_add(cut, entry->target);
        cut_add(cut, entry->path);
        if (changes->packages != changes->rest) {
            Cut *other = cut == changes->rest ? changes->packages : changes->rest;

            g_hash_table_remove(other->paths, entry->path);
            g_hash_table_remove(other->paths, entry->target);
        }
    }
}

static void collect_changes(Changes *changes)
{
    changes->leaders = g_hash_table_new(g_str_hash, g_str_equal);
    tree_diff(changes->from, changes->to, add_change, changes);
    add_whole_groups(changes);
    g_hash_table_unref(changes->leaders);
}

/* --- what the base layer does not keep --------------------------------------------- */

typedef struct Shed {
    GHashTable *owned;
    GHashTable *paths; /* a set */
} Shed;

/* Packages' own files stay, so that an upgrade leaves the base layer's digest alone. */
static bool note_shed(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    Shed *shed = arg;

    if (what == '+' || (what == '~' && a->type == 'd' && b->type == 'd'))
        return true;
    if (tree_path_is_below(a->path, "var/lib/dpkg") || g_hash_table_contains(shed->owned, a->path))
        return true;
    g_hash_table_add(shed->paths, g_strdup(a->type == 'h' ? a->target : a->path));
    g_hash_table_add(shed->paths, g_strdup(a->path));
    return true;
}

/*
 * Takes out of @base what the bake deleted or changed: keys, logs and secrets that it cleaned must be in no
 * layer, not even under a whiteout. All names of a hard-link group go together, or an heir would keep the old
 * content.
 */
static void shed_changes(Tree *base, Tree *tree, GHashTable *owned)
{
    Shed shed = {owned, g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL)};
    GHashTableIter iter;
    gpointer path;

    tree_diff(base, tree, note_shed, &shed);
    for (size_t i = 0; i < tree_count(base); i++) {
        const TreeEntry *entry = tree_nth(base, i);

        if (entry->type == 'h' && g_hash_table_contains(shed.paths, entry->target))
            g_hash_table_add(shed.paths, g_strdup(entry->path));
    }
    g_hash_table_iter_init(&iter, shed.paths);
    while (g_hash_table_iter_next(&iter, &path, NULL))
        tree_remove(base, path);
    g_hash_table_unref(shed.paths);
}

/* --- plans -------------------------------------------------------------------------------- */

static void keep_cut(LayersResult *result, Cut *cut)
{
    if (g_hash_table_size(cut->paths))
        g_ptr_array_add(result->cuts, cut);
    else
        cut_free(cut);
}

static void plan_parent(LayersResult *result, Tree *base, Tree *tree, StoreMap *files, GHashTable *owned)
{
    Cut *cut = cut_new("changes", tree, files);
    Changes changes = {base, tree, owned, cut, cut, NULL};

    collect_changes(&changes);
    keep_cut(result, cut);
}

static void plan_base(LayersResult *result, const LayersSpec *spec, Tree *base, Tree *tree, GHashTable *owned)
{
    Cut *bottom = cut_new("base", base, spec->base_files);
    Cut *packages = cut_new("packages", tree, spec->files), *rest = cut_new("files", tree, spec->files);
    Changes changes = {base, tree, owned, packages, rest, NULL};

    shed_changes(base, tree, owned);
    for (size_t i = 0; i < tree_count(base); i++)
        cut_add(bottom, tree_nth(base, i)->path);
    collect_changes(&changes);
    keep_cut(result, bottom);
    keep_cut(result, packages);
    keep_cut(result, rest);
}

/* No earlier tree: packages and all folders below, the rest on top. */
static void plan_whole(LayersResult *result, const LayersSpec *spec, Tree *tree, GHashTable *owned)
{
    Cut *bottom = cut_new("base", tree, spec->files), *rest = cut_new("files", tree, spec->files);

    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *entry = tree_nth(tree, i);
        const char *group = entry->type == 'h' ? entry->target : entry->path;

        if (g_hash_table_size(owned) == 0)
            cut_add(rest, entry->path);
        else
            cut_add(entry->type == 'd' || is_owned(owned, group) ? bottom : rest, entry->path);
    }
    keep_cut(result, bottom);
    keep_cut(result, rest);
}

static bool uses_zstd(const LayersResult *result)
{
    return g_strcmp0(json_string_value(json_object_get(result->args, "compression")), "zstd") == 0;
}

static bool has_content(Tree *tree)
{
    return tree && tree_count(tree) > 1; /* the root folder alone is nothing */
}

bool layers_build(Store *store, StoreWriter *writer, const LayersSpec *spec, LayersResult **ret,
                  GError **error)
{
    g_autoptr(LayersResult) result = g_new0(LayersResult, 1);
    g_autoptr(GHashTable) owned = package_owners_new();
    g_autoptr(Tree) tree = layers_container_tree(spec->tree), base = spec->base ? layers_container_tree(spec->base) : NULL;

    result->cuts = g_ptr_array_new_with_free_func((GDestroyNotify)cut_free);
    result->epoch = spec->epoch;
    result->args = spec->args ? json_deep_copy(spec->args) : json_object();
    result->parent = spec->parent ? json_deep_copy(spec->parent) : NULL;
    if (!package_owners(spec->tree, spec->files, false, owned, error))
        return false;
    if (has_content(base) && !spec->parent && !package_owners(spec->base, spec->base_files, false, owned, error))
        return false;
    if (spec->parent && base)
        plan_parent(result, base, tree, spec->files, owned);
    else if (has_content(base))
        plan_base(result, spec, base, tree, owned);
    else
        plan_whole(result, spec, tree, owned);
    for (guint i = 0; i < result->cuts->len; i++) {
        Cut *cut = g_ptr_array_index(result->cuts, i);

        if (!cut_write(cut, store, writer, uses_zstd(result), error))
            return false;
        cut->tree = NULL; /* ours ends here */
        cut->files = NULL;
    }
    *ret = g_steal_pointer(&result);
    return true;
}

void layers_result_free(LayersResult *result)
{
    if (!result)
        return;
    if (result->cuts)
        g_ptr_array_unref(result->cuts);
    json_decref(result->parent);
    json_decref(result->args);
    g_free(result);
}

/* --- arguments ------------------------------------------------------------------------------ */

static const char *const arguments[] = {"entrypoint", "cmd",    "env",     "expose",      "workdir",
                                        "user",       "labels", "volumes", "stop_signal", "compression", NULL};

/* "80", "80/tcp": returns "80/tcp", or NULL. */
static char *port_text(const json_t *port)
{
    g_auto(GStrv) parts = NULL;
    g_autofree char *number = NULL;
    double value;

    if (json_is_number(port)) {
        value = json_number_value(port);
        return value >= 1 && value <= 65535 && value == (double)(int)value
                   ? g_strdup_printf("%d/tcp", (int)value)
                   : NULL;
    }
    if (!json_is_string(port))
        return NULL;
    parts = g_strsplit(json_string_value(port), "/", 3);
    if (!parts[0] || strlen(parts[0]) > 5 || strspn(parts[0], "0123456789") != strlen(parts[0]) ||
        atoi(parts[0]) < 1 || atoi(parts[0]) > 65535)
        return NULL;
    if (!parts[1])
        return g_strdup_printf("%d/tcp", atoi(parts[0]));
    if (parts[2] ||
        (strcmp(parts[1], "tcp") != 0 && strcmp(parts[1], "udp") != 0 && strcmp(parts[1], "sctp") != 0))
        return NULL;
    return g_strdup_printf("%d/%s", atoi(parts[0]), parts[1]);
}

static char *scalar_text(const json_t *value)
{
    if (json_is_string(value))
        return g_strdup(json_string_value(value));
    if (json_is_boolean(value))
        return g_strdup(json_is_true(value) ? "true" : "false");
    if (json_is_integer(value))
        return g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
    if (json_is_real(value)) {
        char digits[G_ASCII_DTOSTR_BUF_SIZE];

        return g_strdup(g_ascii_formatd(digits, sizeof(digits), "%.15g", json_real_value(value)));
    }
    return NULL;
}

/* A list or a single value, always as a new list. */
static json_t *as_list(json_t *value)
{
    json_t *list;

    if (json_is_array(value))
        return json_incref(value);
    list = json_array();
    if (value && !json_is_null(value))
        json_array_append(list, value);
    return list;
}

static bool check_strings(const json_t *value, const char *name, GError **error)
{
    const json_t *item;
    size_t i;

    if (json_is_string(value))
        return true;
    if (!json_is_array(value))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' must be a list of strings", name);
    json_array_foreach(value, i, item) if (!json_is_string(item)) return fail_code(
        error, KILN_ERROR_USAGE, "'%s' must be a list of strings", name);
    return true;
}

static bool check_env(const json_t *value, GError **error)
{
    const json_t *item;
    const char *key;
    size_t i;

    if (json_is_object(value)) {
        json_object_foreach((json_t *)value, key, item)
        {
            g_autofree char *text = scalar_text(item);

            if (!text || !*key || strchr(key, '='))
                return fail_code(error, KILN_ERROR_USAGE, "'env' has a wrong entry '%s'", key);
        }
        return true;
    }
    if (!check_strings(value, "env", error))
        return false;
    json_array_foreach(value, i,
                       item) if (!strchr(json_string_value(item), '=') ||
                                 *json_string_value(item) ==
                                     '=') return fail_code(error, KILN_ERROR_USAGE,
                                                           "'env' entries read NAME=VALUE, not '%s'",
                                                           json_string_value(item));
    return !json_is_string(value) || strchr(json_string_value(value), '=') ||
           fail_code(error, KILN_ERROR_USAGE, "'env' entries read NAME=VALUE, not '%s'",
                     json_string_value(value));
}

static bool check_expose(json_t *value, GError **error)
{
    g_autoptr(json_t) list = as_list(value);
    const json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        g_autofree char *text = port_text(item);

        if (!text)
            return fail_code(error, KILN_ERROR_USAGE, "'expose' takes ports such as 80 or \"53/udp\"");
    }
    return true;
}

static bool check_labels(json_t *value, GError **error)
{
    const json_t *item;
    const char *key;

    if (!json_is_object(value))
        return fail_code(error, KILN_ERROR_USAGE, "'labels' must be an object of strings");
    json_object_foreach(value, key, item)
    {
        g_autofree char *text = scalar_text(item);

        if (!text || !*key)
            return fail_code(error, KILN_ERROR_USAGE, "the label '%s' must be a string", key);
    }
    return true;
}

static bool check_argument(const char *name, json_t *value, GError **error)
{
    if (json_is_null(value))
        return true;
    if (strcmp(name, "env") == 0)
        return check_env(value, error);
    if (strcmp(name, "expose") == 0)
        return check_expose(value, error);
    if (strcmp(name, "labels") == 0)
        return check_labels(value, error);
    if (strcmp(name, "workdir") == 0 || strcmp(name, "user") == 0 || strcmp(name, "stop_signal") == 0) {
        g_autofree char *text = scalar_text(value);

        if (!text || (*name == 'w' && *text != '/'))
            return fail_code(error, KILN_ERROR_USAGE,
                             *name == 'w' ? "'workdir' must be an absolute path" : "'%s' must be a string",
                             name);
        return true;
    }
    if (strcmp(name, "compression") == 0)
        return g_strcmp0(json_string_value(value), "gzip") == 0 || g_strcmp0(json_string_value(value), "zstd") == 0 ||
               fail_code(error, KILN_ERROR_USAGE, "'compression' is \"gzip\" or \"zstd\"");
    return check_strings(value, name, error);
}

bool layers_check_output_args(const json_t *args, const char **ret_argument, GError **error)
{
    const char *bad = NULL, *key, *near;
    json_t *value;

    *ret_argument = NULL;
    if (!args)
        return true;
    if (!json_only_keys(args, arguments, &bad)) {
        *ret_argument = bad;
        near = units_nearest(bad, arguments);
        return near ? fail_code(error, KILN_ERROR_USAGE,
                                "output \"oci\" has no argument '%s'; did you mean '%s'?", bad, near)
                    : fail_code(error, KILN_ERROR_USAGE, "output \"oci\" has no argument '%s'", bad);
    }
    json_object_foreach((json_t *)args, key, value)
    {
        *ret_argument = key;
        if (!check_argument(key, value, error))
            return false;
    }
    *ret_argument = NULL;
    return true;
}

/* --- the config -------------------------------------------------------------------------------- */

/* As in Dockerfiles: a string is for the shell, a list is the command itself. */
static json_t *command(json_t *value)
{
    if (json_is_string(value))
        return json_pack("[sss]", "/bin/sh", "-c", json_string_value(value));
    return json_incref(value);
}

/* One variable, in place of an earlier one of the same name. */
static void env_set(json_t *env, const char *text)
{
    size_t name = (size_t)(strchr(text, '=') - text) + 1, i;
    json_t *item;

    json_array_foreach(env, i, item) if (strncmp(json_string_value(item), text, name) == 0)
    {
        json_array_set_new(env, i, json_string(text));
        return;
    }
    json_array_append_new(env, json_string(text));
}

static void env_merge(json_t *env, json_t *more)
{
    json_t *value;
    size_t i;

    if (json_is_object(more)) {
        g_autoptr(GList) keys = NULL;
        const char *key;

        json_object_foreach(more, key, value) keys =
            g_list_insert_sorted(keys, (gpointer)key, (GCompareFunc)strcmp);
        for (GList *at = keys; at; at = at->next) {
            g_autofree char *text = scalar_text(json_object_get(more, at->data));
            g_autofree char *both = g_strconcat(at->data, "=", text, NULL);

            env_set(env, both);
        }
        return;
    }
    g_autoptr(json_t) list = as_list(more);

    json_array_foreach(list, i, value) if (json_is_string(value) && strchr(json_string_value(value), '='))
        env_set(env, json_string_value(value));
}

/* {"80/tcp": {}} and the like: a set as the image-spec writes it. */
static void add_to_set(json_t *config, const char *key, const char *member)
{
    json_t *set = json_object_get(config, key);

    if (!json_is_object(set)) {
        set = json_object();
        json_object_set_new(config, key, set);
    }
    json_object_set_new(set, member, json_object());
}

static void set_lists(json_t *config, const json_t *args)
{
    g_autoptr(json_t) ports = as_list(json_object_get(args, "expose"));
    g_autoptr(json_t) volumes = as_list(json_object_get(args, "volumes"));
    json_t *item, *labels = json_object_get(config, "Labels");
    const char *key;
    size_t i;

    json_array_foreach(ports, i, item)
    {
        g_autofree char *port = port_text(item);

        if (port)
            add_to_set(config, "ExposedPorts", port);
    }
    json_array_foreach(volumes, i, item) add_to_set(config, "Volumes", json_string_value(item));
    if (!json_is_object(json_object_get(args, "labels")))
        return;
    if (!json_is_object(labels)) {
        labels = json_object();
        json_object_set_new(config, "Labels", labels);
    }
    json_object_foreach(json_object_get(args, "labels"), key, item)
    {
        g_autofree char *text = scalar_text(item);

        json_object_set_new(labels, key, json_string(text));
    }
}

static void set_text(json_t *config, const char *key, const json_t *value)
{
    g_autofree char *text = value ? scalar_text(value) : NULL;

    if (text)
        json_object_set_new(config, key, json_string(text));
}

/* The config's "config": the parent's, and what the output says. */
static json_t *make_run_config(const LayersResult *result)
{
    json_t *inherited = json_object_get(json_object_get(result->parent, "config"), "config");
    json_t *config = json_is_object(inherited) ? json_deep_copy(inherited) : json_object(), *value;
    g_autoptr(json_t) env = json_array();

    if (result->parent)
        env_merge(env, json_object_get(config, "Env"));
    else
        env_set(env, DEFAULT_PATH);
    env_merge(env, json_object_get(result->args, "env"));
    if (json_array_size(env))
        json_object_set(config, "Env", env);
    if ((value = json_object_get(result->args, "entrypoint")) && !json_is_null(value)) {
        json_object_set_new(config, "Entrypoint", command(value));
        (void)json_object_del(config, "Cmd"); /* it was meant for the parent's entrypoint; absent is fine */
    }
    if ((value = json_object_get(result->args, "cmd")) && !json_is_null(value))
        json_object_set_new(config, "Cmd", command(value));
    set_text(config, "WorkingDir", json_object_get(result->args, "workdir"));
    set_text(config, "User", json_object_get(result->args, "user"));
    set_text(config, "StopSignal", json_object_get(result->args, "stop_signal"));
    set_lists(config, result->args);
    return config;
}

static const char *host_architecture(void)
{
#if defined(__x86_64__)
    return "amd64";
#elif defined(__aarch64__)
    return "arm64";
#elif defined(__i386__)
    return "386";
#elif defined(__arm__)
    return "arm";
#elif defined(__riscv) && __riscv_xlen == 64
    return "riscv64";
#elif defined(__powerpc64__)
    return "ppc64le";
#elif defined(__s390x__)
    return "s390x";
#else
#error "name this machine as GOARCH does"
#endif
}

static char *created_text(int64_t epoch)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_utc(epoch);

    return time ? g_date_time_format(time, "%Y-%m-%dT%H:%M:%SZ") : g_strdup("1970-01-01T00:00:00Z");
}

static json_t *array_or_new(const json_t *object, const char *key)
{
    json_t *array = json_object_get(object, key);

    return json_is_array(array) ? json_deep_copy(array) : json_array();
}

/* Starts from the parent's document, so that what it says beyond us (os.version, variant) stays. */
static json_t *make_config(const LayersResult *result, const LayerResult *layers)
{
    json_t *from = json_object_get(result->parent, "config");
    json_t *config = json_is_object(from) ? json_deep_copy(from) : json_object(), *diff_ids, *history;
    g_autofree char *created = created_text(result->epoch);
    char oci[DIGEST_OCI_SIZE];

    diff_ids = array_or_new(json_object_get(from, "rootfs"), "diff_ids");
    history = array_or_new(from, "history");
    if (!json_is_string(json_object_get(config, "architecture")))
        json_object_set_new(config, "architecture", json_string(host_architecture()));
    json_object_set_new(config, "os", json_string("linux"));
    json_object_set_new(config, "created", json_string(created));
    json_object_set_new(config, "config", make_run_config(result));
    for (guint i = 0; i < result->cuts->len; i++) {
        const Cut *cut = g_ptr_array_index(result->cuts, i);
        g_autofree char *by = g_strconcat("kiln: ", cut->title, NULL);

        json_array_append_new(diff_ids, json_string(digest_to_oci(&layers[i].diff_id, oci)));
        json_array_append_new(history, json_pack("{ssss}", "created", created, "created_by", by));
    }
    json_object_set_new(config, "rootfs", json_pack("{sssO}", "type", "layers", "diff_ids", diff_ids));
    json_decref(diff_ids);
    if (json_array_size(from ? json_object_get(from, "history") : NULL) || !from)
        json_object_set(config, "history", history);
    json_decref(history);
    /* Says how some container was once started, not what the image is. */
    (void)json_object_del(config, "container");
    (void)json_object_del(config, "container_config");
    return config;
}

/* --- the manifest ------------------------------------------------------------------------------- */

static bool put_json(Store *store, const json_t *value, Digest *ret, size_t *ret_size, GError **error)
{
    g_autofree char *text = json_canonical(value);

    *ret_size = strlen(text);
    return store_blob_put(store, text, *ret_size, ret, error);
}

static json_t *descriptor(const char *media_type, const Digest *digest, uint64_t size)
{
    char oci[DIGEST_OCI_SIZE];

    return json_pack("{sssssI}", "mediaType", media_type, "digest", digest_to_oci(digest, oci), "size",
                     (json_int_t)size);
}

/* Docker's names for the same things. */
static const char *oci_media_type(const char *type)
{
    if (!type || strcmp(type, "application/vnd.docker.image.rootfs.diff.tar.gzip") == 0)
        return LAYER_MEDIA_TYPE;
    if (strcmp(type, "application/vnd.docker.image.rootfs.diff.tar") == 0)
        return "application/vnd.oci.image.layer.v1.tar";
    if (strcmp(type, "application/vnd.docker.image.rootfs.diff.tar.zstd") == 0)
        return "application/vnd.oci.image.layer.v1.tar+zstd";
    return type;
}

static bool add_parent_layer(const json_t *from, const json_t *layer, json_t *layers, StoreImage *image,
                             GError **error)
{
    Digest blob, recipe = digest_none, said;
    const char *text = json_string_value(json_object_get(layer, "blob"));
    const char *recipe_text = json_string_value(json_object_get(layer, "recipe"));
    json_int_t size = json_integer_value(json_object_get(from, "size"));

    if (!text || !digest_parse(text, &blob) ||
        !digest_parse(json_string_value(json_object_get(from, "digest")), &said) ||
        !digest_equal(&blob, &said) || size < 0)
        return fail(error, "the parent's layers are not those of its manifest");
    if (recipe_text && !digest_parse(recipe_text, &recipe))
        return fail(error, "the parent's layer has a malformed recipe");
    json_array_append_new(layers,
                          descriptor(oci_media_type(json_string_value(json_object_get(from, "mediaType"))),
                                     &blob, (uint64_t)size));
    store_image_add_layer(image, &blob, &recipe);
    image->size += (uint64_t)size;
    return true;
}

/* Descriptors of the parent's layers, as its own manifest (a blob of the store) writes them. */
static bool add_parent_layers(Store *store, const json_t *parent, json_t *layers, StoreImage *image,
                              GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) manifest = NULL;
    json_t *kept = json_object_get(parent, "layers"), *theirs;
    const char *digest_text = json_string_value(json_object_get(parent, "manifest"));
    Digest digest;
    gsize size;
    const char *data;

    if (!digest_text || !digest_parse(digest_text, &digest))
        return fail(error, "the parent image has no manifest");
    if (!store_blob_get(store, &digest, MANIFEST_MAX, &bytes, error))
        return false;
    data = g_bytes_get_data(bytes, &size);
    if (!json_parse(data, size, MANIFEST_MAX, "the parent's manifest", &manifest, error))
        return false;
    theirs = json_object_get(manifest, "layers");
    if (json_array_size(theirs) != json_array_size(kept) || json_array_size(theirs) > LAYERS_MAX)
        return fail(error, "the parent's layers are not those of its manifest");
    for (size_t i = 0; i < json_array_size(theirs); i++)
        if (!add_parent_layer(json_array_get(theirs, i), json_array_get(kept, i), layers, image, error))
            return false;
    return true;
}

bool layers_finish(Store *store, LayersResult *result, StoreImage *image, GError **error)
{
    g_autofree LayerResult *made = g_new0(LayerResult, MAX(result->cuts->len, 1));
    g_autoptr(json_t) config = NULL, manifest = NULL, layers = json_array();
    size_t config_size, manifest_size;

    image->size = 0;
    if (result->parent && !add_parent_layers(store, result->parent, layers, image, error))
        return false;
    for (guint i = 0; i < result->cuts->len; i++) {
        const Cut *cut = g_ptr_array_index(result->cuts, i);

        if (!layer_writer_result(cut->writer, &made[i], error))
            return false;
        json_array_append_new(layers, descriptor(uses_zstd(result) ? ZSTD_MEDIA_TYPE : LAYER_MEDIA_TYPE, &made[i].blob, made[i].size));
        store_image_add_layer(image, &made[i].blob, &made[i].recipe);
        image->size += made[i].size;
    }
    config = make_config(result, made);
    if (!put_json(store, config, &image->id, &config_size, error))
        return false;
    manifest = json_pack("{sisssosO}", "schemaVersion", 2, "mediaType", MANIFEST_MEDIA_TYPE, "config",
                         descriptor(CONFIG_MEDIA_TYPE, &image->id, config_size), "layers", layers);
    return put_json(store, manifest, &image->manifest, &manifest_size, error);
}
