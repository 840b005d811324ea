/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A comparison of two states of a working disk is remembered by the two: a bake compares what it ran, and takes the rest from before.
 */
#include "baker/origins.h"

#include "baker/bake-walk.h"
#include "base/error.h"
#include "base/log.h"

#include <string.h>

#define LIST_MAX ((size_t)256 << 20)
#define ANCESTORS_MAX 1000u

static char *encoded(const char *path)
{
    return g_uri_escape_string(path, G_URI_RESERVED_CHARS_ALLOWED_IN_PATH, FALSE);
}

static bool put_json(Store *store, const json_t *value, Digest *ret, GError **error)
{
    g_autofree char *text = json_canonical(value);

    return store_blob_put(store, text, strlen(text), ret, error);
}

static bool load_json(Store *store, const Digest *digest, json_t **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    gsize size;
    const char *data;

    if (!store_blob_get(store, digest, LIST_MAX, &bytes, error))
        return false;
    data = g_bytes_get_data(bytes, &size);
    return json_parse(data, size, LIST_MAX, "a kept list", ret, error);
}

/* --- what one step changed: {"+": [paths made or changed], "-": [paths gone]} --------------- */

/* The seal labels files; it does not bring them. */
static bool differ_by_label(const TreeEntry *a, const TreeEntry *b)
{
    TreeEntry *before = tree_entry_copy(a), *now = tree_entry_copy(b);
    bool equal;

    tree_entry_remove_xattr(before, TREE_LABEL);
    tree_entry_remove_xattr(now, TREE_LABEL);
    equal = tree_entry_equal(before, now);
    tree_entry_free(before);
    tree_entry_free(now);
    return equal;
}

static bool note_change(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    json_t *changes = arg;
    g_autofree char *path = encoded(what == '-' ? a->path : b->path);

    if (what == '~' && differ_by_label(a, b))
        return true;
    json_array_append_new(json_object_get(changes, what == '-' ? "-" : "+"), json_string(path));
    return true;
}

static bool compare_states(BakeChain *chain, const Digest *before, const Digest *after, json_t **ret, GError **error)
{
    g_autoptr(json_t) changes = json_pack("{s:[], s:[]}", "+", "-");
    g_autoptr(StoreMap) a = NULL, b = NULL;
    uint64_t left = 0;

    if (!store_map_open(chain->store, before, &a, error) || !store_map_open(chain->store, after, &b, error) ||
        !tree_diff_ext4(a, chain->root_offset, chain->root_size, b, chain->root_offset, chain->root_size, note_change, changes, &left, error))
        return false;
    *ret = g_steal_pointer(&changes);
    return true;
}

static char *changes_key(const BakeChain *chain, const Digest *before, const Digest *after)
{
    char a[DIGEST_HEX_SIZE], b[DIGEST_HEX_SIZE];

    return g_strdup_printf("changes:1:%s:%s:%" G_GUINT64_FORMAT, digest_to_hex(before, a), digest_to_hex(after, b), chain->root_offset);
}

static bool changes_of(BakeChain *chain, const Digest *before, const Digest *after, json_t **ret, GError **error)
{
    g_autofree char *key = changes_key(chain, before, after);
    g_autoptr(json_t) changes = NULL;

    if (!bake_changes_recall(chain, key, &changes, error))
        return false;
    if (!changes && (!compare_states(chain, before, after, &changes, error) || !bake_changes_remember(chain, key, changes, error)))
        return false;
    *ret = g_steal_pointer(&changes);
    return true;
}

/* --- the whole chain --------------------------------------------------------------------------- */

/* @brought: path -> index of the step, plus one. */
static void apply_changes(const json_t *changes, size_t index, GHashTable *brought)
{
    json_t *path;
    size_t i;

    json_array_foreach (json_object_get(changes, "+"), i, path)
        if (json_is_string(path))
            g_hash_table_insert(brought, g_strdup(json_string_value(path)), GSIZE_TO_POINTER(index + 1));
    json_array_foreach (json_object_get(changes, "-"), i, path)
        if (json_is_string(path))
            g_hash_table_remove(brought, json_string_value(path));
}

static bool collect_steps(BakeChain *chain, GHashTable *brought, GError **error)
{
    for (size_t i = 0; i < chain->steps->len; i++) {
        const BakeStep *step = chain->steps->pdata[i];
        const Digest *before = bake_map_before(chain, i);
        g_autoptr(json_t) changes = NULL;

        if (digest_is_none(before) || digest_is_none(&step->map) || digest_equal(before, &step->map))
            continue;
        if (!(chain->is_walked ? bake_walk_changes(chain, before, &step->map, &changes, error)
                               : changes_of(chain, before, &step->map, &changes, error)))
            return false;
        apply_changes(changes, i, brought);
    }
    return true;
}

/* In path order, so that equal bakes keep equal lists. The seal's own cleaning is no step of the template. */
static json_t *origins_json(const BakeChain *chain, Tree *tree, GHashTable *brought)
{
    json_t *steps = json_array();

    for (size_t i = 0; i < chain->steps->len; i++) {
        const BakeStep *step = chain->steps->pdata[i];

        json_array_append_new(steps, json_pack("{s:i, s:s, s:s, s:[]}", "position", (int)step->position, "step", step->label, "type",
                                               step->block ? step->block->type : "seal", "paths"));
    }
    for (size_t i = 0; i < tree_count(tree); i++) {
        g_autofree char *path = encoded(tree_nth(tree, i)->path);
        size_t index = GPOINTER_TO_SIZE(g_hash_table_lookup(brought, path));

        if (index)
            json_array_append_new(json_object_get(json_array_get(steps, index - 1), "paths"), json_string(path));
    }
    return json_pack("{s:o}", "steps", steps);
}

static void keep(GHashTable *inputs, const char *name, const char *output, const Digest *digest)
{
    g_hash_table_insert(inputs, output ? g_strdup_printf("%s.%s", name, output) : g_strdup(name), g_memdup2(digest, sizeof *digest));
}

static const StoreImage *image_of(const BakeChain *chain, const GPtrArray *images)
{
    for (guint i = 0; i < images->len; i++)
        if (!chain->output || strcmp(((StoreImage *)images->pdata[i])->kind, chain->output) == 0)
            return images->pdata[i];
    return NULL;
}

/* Where all states are cached nobody has looked for the root yet. One that cannot be found has no origins. */
static bool can_compare(BakeChain *chain, bool *ret, GError **error)
{
    g_autoptr(StoreMap) disk = NULL;
    uint64_t offset, size;

    *ret = chain->is_walked;
    return chain->is_walked || digest_is_none(&chain->state.map) ||
           (store_map_open(chain->store, &chain->state.map, &disk, error) && bake_find_root(chain, disk, &offset, &size, ret, error));
}

static bool keep_origins(BakeChain *chain, Tree *tree, GHashTable *inputs, GError **error)
{
    g_autoptr(GHashTable) brought = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(json_t) origins = NULL;
    bool comparable;
    Digest digest;

    if (!can_compare(chain, &comparable, error))
        return false;
    if (!comparable)
        return true;
    if (!collect_steps(chain, brought, error))
        return fail_prefix(error, "which step brought which file");
    origins = origins_json(chain, tree, brought);
    if (!put_json(chain->store, origins, &digest, error))
        return false;
    keep(inputs, ORIGINS_KEPT, chain->output, &digest);
    return true;
}

/* Also beside the images that will be published with it: for the index over all images. */
static bool keep_packages(Store *store, Tree *tree, StoreMap *files, const char *output, GPtrArray *images, GHashTable *inputs, GError **error)
{
    g_autoptr(PackageList) packages = NULL;
    g_autoptr(json_t) list = NULL;
    Digest digest;

    if (!package_db_read(tree, files, &packages, error))
        return false;
    list = package_list_to_json(packages);
    if (!put_json(store, list, &digest, error))
        return false;
    keep(inputs, PACKAGES_KEPT, output, &digest);
    for (guint i = 0; i < images->len; i++) {
        StoreImage *image = images->pdata[i];

        if (output && strcmp(image->kind, output) != 0)
            continue;
        json_decref(image->packages);
        image->packages = json_incref(json_object_get(list, "packages"));
    }
    return true;
}

/* What has to be laid out for it, which is an imported container's contents, is not kept. */
bool origins_keep_packages(Store *store, GPtrArray *images, Tree *tree, GHashTable *inputs, GError **error)
{
    const StoreImage *image = images->pdata[0];
    g_autoptr(Tree) loaded = NULL;
    g_autoptr(StoreMap) files = NULL;
    TreeStored stored;

    if (digest_is_none(&image->tree.tree))
        return true;
    if (tree)
        return store_map_open(store, &image->tree.files, &files, error) && keep_packages(store, tree, files, NULL, images, inputs, error);
    return oci_image_tree(store, image, false, &stored, error) && tree_load(store, &stored, &loaded, &files, error) &&
           keep_packages(store, loaded, files, NULL, images, inputs, error);
}

bool origins_keep(Store *store, GPtrArray *chains, GPtrArray *images, GHashTable *inputs, GError **error)
{
    for (guint i = 0; i < chains->len; i++) {
        BakeChain *chain = chains->pdata[i];
        const StoreImage *image = image_of(chain, images);
        g_autoptr(Tree) tree = NULL;
        g_autoptr(StoreMap) files = NULL;

        if (!image || digest_is_none(&image->tree.tree))
            continue;
        if (!tree_load(store, &image->tree, &tree, &files, error) || !keep_packages(store, tree, files, chain->output, images, inputs, error) ||
            !keep_origins(chain, tree, inputs, error))
            return false;
    }
    return true;
}

/* --- questions ------------------------------------------------------------------------------------- */

/* What was kept under @name, or under @name for its kind; *ret NULL when nothing of that kind was. */
static bool load_from(Store *store, GHashTable *kept, const char *kind, const char *name, json_t **ret, GError **error)
{
    g_autofree char *own = g_strdup_printf("%s.%s", name, kind);
    const Digest *digest = g_hash_table_lookup(kept, own);

    *ret = NULL;
    if (!digest)
        digest = g_hash_table_lookup(kept, name);
    return !digest || load_json(store, digest, ret, error);
}

static bool load_kept(Store *store, const StoreImage *image, const char *name, json_t **ret, GError **error)
{
    g_autoptr(GHashTable) inputs = NULL;

    return store_image_inputs(store, image, &inputs, error) && load_from(store, inputs, image->kind, name, ret, error);
}

bool origins_packages(Store *store, const StoreImage *image, PackageList **ret, GError **error)
{
    g_autoptr(json_t) list = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;

    if (!load_kept(store, image, PACKAGES_KEPT, &list, error))
        return false;
    if (list)
        return package_list_from_json(list, ret, error);
    if (digest_is_none(&image->tree.tree))
        return package_list_from_json(NULL, ret, error);
    return oci_image_load(store, image, &tree, &files, error) && package_db_read(tree, files, ret, error);
}

static const json_t *step_with(const json_t *origins, const char *path)
{
    json_t *step, *one;
    size_t i, k;

    json_array_foreach (json_object_get(origins, "steps"), i, step)
        json_array_foreach (json_object_get(step, "paths"), k, one)
            if (g_strcmp0(json_string_value(one), path) == 0)
                return step;
    return NULL;
}

bool origins_kept_step(Store *store, GHashTable *kept, const char *kind, const char *path, char **ret, GError **error)
{
    g_autoptr(json_t) origins = NULL;
    g_autofree char *name = encoded(path);
    const json_t *step;

    *ret = NULL;
    if (!load_from(store, kept, kind, ORIGINS_KEPT, &origins, error))
        return false;
    step = step_with(origins, name);
    if (step)
        *ret = g_strdup_printf("%" JSON_INTEGER_FORMAT " %s", json_integer_value(json_object_get(step, "position")),
                               json_string_value(json_object_get(step, "step")));
    return true;
}

/* The image that @image was baked from: of the same kind, else of the other. *ret NULL when there is none, or when it is gone. */
static bool parent_image(Store *store, const StoreImage *image, StoreImage **ret, GError **error)
{
    g_autoptr(json_t) identity = NULL;
    const json_t *images;
    const char *id;

    *ret = NULL;
    if (!image->parent || !json_parse(image->parent, strlen(image->parent), LIST_MAX, "a source", &identity, NULL))
        return true;
    images = json_object_get(identity, "images");
    id = json_string_value(json_object_get(images, image->kind));
    if (!id)
        id = json_string_value(json_object_iter_value(json_object_iter((json_t *)images)));
    if (id && !store_resolve_record(store, id, NULL, ret, error) && *error && (*error)->code != KILN_ERROR_NOT_FOUND)
        return false;
    if (id && !*ret)
        g_clear_error(error);
    return true;
}

/* One bake that may have brought a file: the image's own, or an ancestor's. */
typedef struct Level {
    StoreImage *image;
    json_t *origins; /* NULL: nothing was recorded */
} Level;

struct Origins {
    Store *store;
    const ImageRoot *root;
    GHashTable *owners;
    PackageList *packages;
    GPtrArray *levels; /* of Level*, from the image upwards, as far as somebody asked */
    bool complete;     /* there is no level above the last one */
};

static void level_free(gpointer data)
{
    Level *level = data;

    store_image_free(level->image);
    json_decref(level->origins);
    g_free(level);
}

void origins_free(Origins *origins)
{
    if (!origins)
        return;
    g_clear_pointer(&origins->owners, g_hash_table_unref);
    g_clear_pointer(&origins->packages, package_list_free);
    g_clear_pointer(&origins->levels, g_ptr_array_unref);
    g_free(origins);
}

static bool add_level(Origins *origins, StoreImage *image /* taken */, GError **error)
{
    Level *level = g_new0(Level, 1);

    level->image = image;
    g_ptr_array_add(origins->levels, level);
    return load_kept(origins->store, image, ORIGINS_KEPT, &level->origins, error);
}

bool origins_open(Store *store, const ImageRoot *root, Origins **ret, GError **error)
{
    g_autoptr(Origins) origins = g_new0(Origins, 1);
    StoreImage *image = NULL;
    char id[DIGEST_OCI_SIZE];

    origins->store = store;
    origins->root = root;
    origins->levels = g_ptr_array_new_with_free_func(level_free);
    origins->owners = package_owners_new();
    if (!store_resolve(store, digest_to_oci(&root->image->id, id), root->image->kind, &image, error) || !add_level(origins, image, error) ||
        !package_owners(root->tree, root->files, true, origins->owners, error) || !origins_packages(store, image, &origins->packages, error))
        return false;
    *ret = g_steal_pointer(&origins);
    return true;
}

/* Goes on to the parent of the last level; *ret NULL when there is none that could be asked. */
static bool next_level(Origins *origins, Level **ret, GError **error)
{
    const Level *last = origins->levels->pdata[origins->levels->len - 1];
    StoreImage *parent = NULL;

    *ret = NULL;
    if (!origins->complete && last->origins && origins->levels->len < ANCESTORS_MAX && !parent_image(origins->store, last->image, &parent, error))
        return false;
    origins->complete = !parent;
    if (parent && !add_level(origins, parent, error))
        return false;
    *ret = parent ? origins->levels->pdata[origins->levels->len - 1] : NULL;
    return true;
}

static void name_step(Origin *origin, const json_t *step)
{
    origin->position = (unsigned)json_integer_value(json_object_get(step, "position"));
    origin->step = g_strdup(json_string_value(json_object_get(step, "step")));
    origin->type = g_strdup(json_string_value(json_object_get(step, "type")));
}

/* Upwards through the ancestors, to the first bake with a step that brought @path. */
static bool find_step(Origins *origins, const char *path, Origin *origin, GError **error)
{
    for (guint i = 0;; i++) {
        Level *level = NULL;
        const json_t *step;

        if (i < origins->levels->len)
            level = origins->levels->pdata[i];
        else if (!next_level(origins, &level, error))
            return false;
        if (!level)
            return true;
        origin->image = level->image;
        origin->recorded = level->origins != NULL;
        step = step_with(level->origins, path);
        if (step) {
            name_step(origin, step);
            return true;
        }
    }
}

static void name_package(const Origins *origins, const char *path, Origin *origin)
{
    const GPtrArray *all = origins->packages->all;

    origin->package = g_strdup(g_hash_table_lookup(origins->owners, path));
    for (guint i = 0; origin->package && i < all->len && !origin->version; i++)
        if (strcmp(((Package *)all->pdata[i])->name, origin->package) == 0)
            origin->version = g_strdup(((Package *)all->pdata[i])->version);
}

bool origins_find(Origins *origins, const TreeEntry *entry, Origin *ret, GError **error)
{
    g_autofree char *path = encoded(entry->path);
    Origin origin = {0};

    name_package(origins, entry->path, &origin);
    if (!find_step(origins, path, &origin, error)) {
        origin_clear(&origin);
        return false;
    }
    if (!origin.step && origin.recorded)
        origin.source = g_strdup(origin.image->parent);
    *ret = origin;
    return true;
}

void origin_clear(Origin *origin)
{
    g_free(origin->package);
    g_free(origin->version);
    g_free(origin->step);
    g_free(origin->type);
    g_free(origin->source);
    *origin = (Origin){0};
}
