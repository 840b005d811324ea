/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting a tree into layers.
 *
 * Rules (facts of the image-spec that decide them in brackets):
 * 1. An entry is preceded by its parent folders, whiteouts come right after their folder.
 * 2. A hard-link group goes whole into the layer of its leader; one changed name makes it all changed [links across layers are not reliable].
 * 3. A path that changes its type is simply written again; what was below it is gone with it.
 * 4. Of the source nothing that no package owns is in a lower layer: keys, logs and secrets that the bake cleaned must be in no layer, not
 *    even under a whiteout. What packages own stays there when it is changed above.
 * 5. A lower layer says no folder's time: dpkg touches every folder it writes to, and the layers above say it anyway.
 *
 * Applying the layers in order gives the tree back; tests hold us to it.
 */
#include "baker/layer-cuts.h"

#include "baker/package-db.h"

#include <string.h>

#define BASE_SLOTS 6u
#define PACKAGES_SLOTS 4u
#define SMALL_ROOT ((uint64_t)16 << 20) /* less is not worth more than one layer */

/* --- one cut ------------------------------------------------------------------------------- */

void layer_cut_free(LayerCut *cut)
{
    if (!cut)
        return;
    g_hash_table_unref(cut->paths);
    g_hash_table_unref(cut->whiteouts);
    g_free(cut->title);
    g_free(cut);
}

static LayerCut *cut_new(char *title /* taken */, const LayerRoot *root, bool steady)
{
    LayerCut *cut = g_new0(LayerCut, 1);

    cut->title = title;
    cut->tree = root->tree;
    cut->files = root->files;
    cut->steady = steady;
    cut->paths = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    cut->whiteouts = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_ptr_array_unref);
    return cut;
}

static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? g_strndup(path, (gsize)(slash - path)) : g_strdup("");
}

/* With all folders above it. */
static void cut_add(LayerCut *cut, const char *path)
{
    if (!g_hash_table_add(cut->paths, g_strdup(path)) || !*path)
        return;
    g_autofree char *up = parent_of(path);

    cut_add(cut, up);
}

/* Only the topmost of what disappears, and only where its folder stays a folder. Told in path order, so sorted. */
static void cut_add_deletion(LayerCut *cut, const char *path)
{
    g_autofree char *folder = parent_of(path);
    const TreeEntry *entry = tree_find(cut->tree, folder);
    GPtrArray *names;

    if (!entry || entry->type != 'd')
        return;
    names = g_hash_table_lookup(cut->whiteouts, folder);
    cut_add(cut, folder);
    if (!names) {
        names = g_ptr_array_new_with_free_func(g_free);
        g_hash_table_insert(cut->whiteouts, g_strdup(folder), names);
    }
    g_ptr_array_add(names, g_strdup(path));
}

static void keep_cut(GPtrArray *cuts, LayerCut *cut)
{
    if (g_hash_table_size(cut->paths))
        g_ptr_array_add(cuts, cut);
    else
        layer_cut_free(cut);
}

static bool write_entry(const LayerCut *cut, LayerWriter *writer, const TreeEntry *entry, GError **error)
{
    TreeEntry steady = *entry;

    if (cut->steady && entry->type == 'd')
        steady.mtime = 0;
    return layer_writer_add(writer, cut->tree, cut->files, &steady, error);
}

bool layer_cut_write(const LayerCut *cut, LayerWriter *writer, GError **error)
{
    for (size_t i = 0; i < tree_count(cut->tree); i++) {
        const TreeEntry *entry = tree_nth(cut->tree, i);
        const GPtrArray *gone = g_hash_table_lookup(cut->whiteouts, entry->path);

        if (!g_hash_table_contains(cut->paths, entry->path))
            continue;
        if (!write_entry(cut, writer, entry, error))
            return false;
        for (guint k = 0; gone && k < gone->len; k++)
            if (!layer_writer_whiteout(writer, g_ptr_array_index(gone, k), error))
                return false;
    }
    return true;
}

/* --- changes ------------------------------------------------------------------------------- */

/* The name that stands for all names of a file. */
static const char *group_of(const TreeEntry *entry)
{
    return entry->type == 'h' ? entry->target : entry->path;
}

static bool note_changed(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    if (what != '-')
        g_hash_table_add(arg, (gpointer)group_of(b));
    return true;
}

/* A set of borrowed names: groups and folders of @to that are not as they are in @from. */
static GHashTable *changed_groups(Tree *from, Tree *to)
{
    GHashTable *changed = g_hash_table_new(g_str_hash, g_str_equal);

    tree_diff(from, to, note_changed, changed);
    return changed;
}

static bool note_deleted(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    if (what == '-')
        cut_add_deletion(arg, a->path);
    return true;
}

void layer_cut_changes(Tree *from, const LayerRoot *root, GPtrArray *cuts)
{
    g_autoptr(GHashTable) changed = changed_groups(from, root->tree);
    LayerCut *cut = cut_new(g_strdup(LAYER_CHANGES), root, false);

    for (size_t i = 0; i < tree_count(root->tree); i++) {
        const TreeEntry *entry = tree_nth(root->tree, i);

        if (g_hash_table_contains(changed, group_of(entry)))
            cut_add(cut, entry->path);
    }
    tree_diff(from, root->tree, note_deleted, cut);
    keep_cut(cuts, cut);
}

/* --- by rule ------------------------------------------------------------------------------- */

typedef struct Slots {
    guint count;
    LayerCut *cuts[MAX(BASE_SLOTS, PACKAGES_SLOTS)];
} Slots;

typedef struct Rule {
    const LayerRoot *base, *root;
    bool whole;          /* there is no base: @base is @root */
    GHashTable *changed; /* groups of @root */
    Slots bottom, upper;
    LayerCut *system, *files;
} Rule;

/* What package managers write beside the packages' own files: new with every change of any package. */
static bool is_managed(const char *path)
{
    static const char *const managed[] = {"var/lib/dpkg",   "var/lib/apt",      "etc/alternatives",
                                          "etc/ld.so.cache", "lib/apk/db",       "usr/lib/apk/db",
                                          "etc/apk/world",   "var/lib/rpm",      "usr/lib/sysimage/rpm",
                                          "var/lib/systemd/deb-systemd-helper-enabled"};

    for (size_t i = 0; i < G_N_ELEMENTS(managed); i++)
        if (strcmp(path, managed[i]) == 0 || tree_path_is_below(path, managed[i]))
            return true;
    return false;
}

/* NULL: no package's, or a package manager's own. */
static const char *origin_of(const LayerRoot *root, const TreeEntry *entry)
{
    const char *path = group_of(entry);

    return is_managed(path) ? NULL : g_hash_table_lookup(root->origins, path);
}

static LayerCut *slot_of(const Slots *slots, const char *origin)
{
    Digest digest;

    digest_of(origin, strlen(origin), &digest);
    return slots->cuts[digest.bytes[0] % slots->count];
}

static void slots_init(Slots *slots, const char *title, const LayerRoot *root, uint64_t size, guint most)
{
    slots->count = size < SMALL_ROOT ? 1 : most;
    for (guint i = 0; i < slots->count; i++)
        slots->cuts[i] = cut_new(slots->count == 1 ? g_strdup(title) : g_strdup_printf("%s %u of %u", title, i + 1, slots->count), root, true);
}

/* What packages own in it; with @changed only of those groups. */
static uint64_t owned_size(const LayerRoot *root, GHashTable *changed)
{
    uint64_t size = 0;

    for (size_t i = 0; i < tree_count(root->tree); i++) {
        const TreeEntry *entry = tree_nth(root->tree, i);

        if (entry->type == 'f' && origin_of(root, entry) && (!changed || g_hash_table_contains(changed, entry->path)))
            size += entry->size;
    }
    return size;
}

static void place_base(Rule *rule)
{
    for (size_t i = 0; i < tree_count(rule->base->tree); i++) {
        const TreeEntry *entry = tree_nth(rule->base->tree, i);
        const char *origin = entry->type == 'd' ? NULL : origin_of(rule->base, entry);

        if (origin)
            cut_add(slot_of(&rule->bottom, origin), entry->path);
    }
}

static bool is_in_base(const Rule *rule, const char *path)
{
    for (guint i = 0; i < rule->bottom.count; i++)
        if (g_hash_table_contains(rule->bottom.cuts[i]->paths, path))
            return true;
    return false;
}

static LayerCut *cut_for(const Rule *rule, const TreeEntry *entry)
{
    const char *origin = entry->type == 'd' ? NULL : origin_of(rule->root, entry);
    bool own = rule->whole || g_hash_table_contains(rule->changed, group_of(entry));

    if (origin)
        return slot_of(&rule->upper, origin);
    if (!own || is_managed(group_of(entry)))
        return rule->system;
    return entry->type == 'd' && g_hash_table_contains(rule->root->origins, entry->path) ? rule->system : rule->files;
}

static void place_root(Rule *rule)
{
    for (size_t i = 0; i < tree_count(rule->root->tree); i++) {
        const TreeEntry *entry = tree_nth(rule->root->tree, i);

        if (entry->type == 'd' || g_hash_table_contains(rule->changed, group_of(entry)) || !is_in_base(rule, entry->path))
            cut_add(cut_for(rule, entry), entry->path);
    }
}

static void place_deletions(Rule *rule)
{
    for (size_t i = 0; i < tree_count(rule->base->tree); i++) {
        const char *path = tree_nth(rule->base->tree, i)->path;

        if (is_in_base(rule, path) && !tree_find(rule->root->tree, path))
            cut_add_deletion(rule->system, path);
    }
}

void layer_cuts_by_rule(const LayerRoot *base, const LayerRoot *root, GPtrArray *cuts)
{
    Rule rule = {.base = base ? base : root, .root = root, .whole = !base};

    rule.changed = changed_groups(rule.base->tree, root->tree);
    slots_init(&rule.bottom, "base", rule.base, owned_size(rule.base, NULL), BASE_SLOTS);
    slots_init(&rule.upper, "packages", root, owned_size(root, rule.changed), PACKAGES_SLOTS);
    rule.system = cut_new(g_strdup("system"), root, false);
    rule.files = cut_new(g_strdup("files"), root, false);
    place_base(&rule);
    place_root(&rule);
    place_deletions(&rule);
    g_hash_table_unref(rule.changed);
    for (guint i = 0; i < rule.bottom.count; i++)
        keep_cut(cuts, rule.bottom.cuts[i]);
    for (guint i = 0; i < rule.upper.count; i++)
        keep_cut(cuts, rule.upper.cuts[i]);
    keep_cut(cuts, rule.system);
    keep_cut(cuts, rule.files);
}

/* --- origins ------------------------------------------------------------------------------- */

bool layer_origins(Tree *tree, StoreMap *files, GHashTable **ret, GError **error)
{
    g_autoptr(GHashTable) owners = package_owners_new(), sources = package_owners_new();
    GHashTableIter iter;
    gpointer package;

    if (!package_owners(tree, files, false, owners, error) || !package_sources(tree, files, sources, error))
        return false;
    g_hash_table_iter_init(&iter, owners);
    while (g_hash_table_iter_next(&iter, NULL, &package)) {
        const char *source = g_hash_table_lookup(sources, package);

        if (source)
            g_hash_table_iter_replace(&iter, g_strdup(source));
    }
    *ret = g_steal_pointer(&owners);
    return true;
}
