/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishing sets and taking records away.
 *
 * What a set needs must be in the store before: publishing checks that and then writes rows, catalog first and
 * names last, both durable. A crash in between leaves a whole set that no name points to, which is
 * as if it had not been published: the next bake with the same key finds it and publishes again.
 *
 * Everything a set keeps from gc is a row in `reference`: a blob's digest, or a map's (whose segments follow from it).
 */
#include "base/error.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/hold.h"
#include "store/image-private.h"
#include "store/layer.h"
#include "store/ledger.h"
#include "store/serve-rows.h"
#include "store/store-private.h"

typedef struct Reference {
    guint image; /* index into the set's images + 1; 0: the whole set */
    const char *role;
    char *name;
    Digest digest;
} Reference;

typedef struct Publishing {
    Store *store;
    const StoreSet *set;
    Digest provenance;
    GArray *references;
    int64_t now, number; /* of the set */
    int64_t *image_numbers;
    uint64_t *layer_sizes; /* in the order of images and layers; 0 without recipe */
} Publishing;

static void clear_reference(gpointer data)
{
    g_free(((Reference *)data)->name);
}

static void refer(Publishing *p, guint image, const char *role, const char *name, const Digest *digest)
{
    Reference ref = { image, role, g_strdup(name), *digest };

    if (digest_is_none(digest))
        g_free(ref.name);
    else
        g_array_append_val(p->references, ref);
}

static bool refer_layers(Publishing *p, guint number, const StoreImage *image, GError **error)
{
    for (guint i = 0; i < image->layers->len; i++) {
        const StoreLayerRef *layer = image->layers->pdata[i];
        g_autofree char *place = g_strdup_printf("%u", i);
        Digest map;

        if (digest_is_none(&layer->recipe)) {
            refer(p, number, "layer", place, &layer->blob);
            continue;
        }
        if (!layer_recipe_map(p->store, &layer->recipe, &map, error))
            return false;
        refer(p, number, "recipe", place, &layer->recipe);
        refer(p, number, "layer-map", place, &map);
    }
    return true;
}

static bool collect_references(Publishing *p, GError **error)
{
    GHashTableIter iter;
    gpointer name, digest;

    for (guint i = 0; i < p->set->images->len; i++) {
        const StoreImage *image = p->set->images->pdata[i];

        refer(p, i + 1, "config", "", &image->id);
        refer(p, i + 1, "manifest", "", &image->manifest);
        refer(p, i + 1, "map", "", &image->map);
        refer(p, i + 1, "tree", "", &image->tree.tree);
        refer(p, i + 1, "files", "", &image->tree.files);
        if (!refer_layers(p, i + 1, image, error))
            return false;
    }
    refer(p, 0, "provenance", "", &p->provenance);
    if (!p->set->inputs)
        return true;
    g_hash_table_iter_init(&iter, p->set->inputs);
    while (g_hash_table_iter_next(&iter, &name, &digest))
        refer(p, 0, "input", name, digest);
    return true;
}

/* Called in the transaction, so that gc cannot take a thing away between the look and the row. */
static bool check_references(Publishing *p, Database *db, GError **error)
{
    for (guint i = 0; i < p->references->len; i++) {
        const Reference *ref = &g_array_index(p->references, Reference, i);
        bool packed;
        auto_fd int fd = blob_file_open(p->store, &ref->digest, &packed);
        char hex[DIGEST_HEX_SIZE];
        int64_t private;

        if (fd < 0 && errno != ENOENT)
            return store_fail_errno(p->store, error, "open a blob of");
        if (fd < 0)
            return fail(error, "cannot publish '%s': its %s %s is not in store '%s'", p->set->name, ref->role,
                        digest_to_hex(&ref->digest, hex), p->store->path);
        if (!database_int(db, 0, &private, error, "SELECT count(*) FROM map WHERE digest = ?1 AND class = 0", "d", &ref->digest))
            return false;
        if (private)
            return fail(error, "cannot publish '%s': its %s %s is private to the working disk", p->set->name, ref->role,
                        digest_to_hex(&ref->digest, hex));
    }
    return true;
}

static bool check_set(const StoreSet *set, GError **error)
{
    if (!store_name_check(set->name, error))
        return false;
    if (set->images->len == 0)
        return fail(error, "cannot publish '%s': the set is empty", set->name);
    for (guint i = 0; i < set->images->len; i++) {
        const StoreImage *image = set->images->pdata[i];

        for (guint j = 0; j < i; j++)
            if (!g_strcmp0(image->kind, ((const StoreImage *)set->images->pdata[j])->kind))
                return fail(error, "cannot publish '%s': the set has two images of kind %s", set->name, image->kind);
    }
    return true;
}

/* --- rows --- */

static bool forget_bake(Database *db, int64_t bake, GError **error)
{
    return database_run(db, error, "DELETE FROM image_layer WHERE image IN (SELECT number FROM image WHERE bake = ?1)", "i", bake) &&
           database_run(db, error, "DELETE FROM image WHERE bake = ?1", "i", bake) &&
           database_run(db, error, "DELETE FROM reference WHERE bake = ?1", "i", bake) &&
           database_run(db, error, "DELETE FROM bake WHERE number = ?1", "i", bake);
}

/* By what names registries know the images stays known (store/manifests.h). */
static bool hand_over_manifests(Database *db, int64_t from, int64_t to, GError **error)
{
    return database_run(db, error,
                        "INSERT OR IGNORE INTO reference SELECT new.bake, new.number, r.role, r.name, r.digest FROM reference r"
                        " JOIN image old ON old.number = r.image JOIN image new ON new.bake = ?1 AND new.kind = old.kind"
                        " WHERE r.bake = ?2 AND (r.role = 'transport' OR (r.role = 'manifest' AND r.name != ''))", "ii", to, from);
}

/* An earlier set of the same name with exactly these images; 0 when there is none. What it added to the store stays its. */
static bool find_equal(Publishing *p, Database *db, int64_t *ret, GError **error)
{
    int64_t bake = 0, images, matches = 0, found;
    const StoreImage *first = p->set->images->pdata[0];

    if (!database_int(db, 0, &bake, error, "SELECT max(bake) FROM image WHERE id = ?1 AND name = ?2", "dt", &first->id, p->set->name) ||
        !database_int(db, 0, &images, error, "SELECT count(*) FROM image WHERE bake = ?1", "i", bake))
        return false;
    for (guint i = 0; i < p->set->images->len; i++) {
        const StoreImage *image = p->set->images->pdata[i];

        if (!database_int(db, 0, &found, error, "SELECT count(*) FROM image WHERE bake = ?1 AND id = ?2 AND kind = ?3", "idt", bake,
                          &image->id, image->kind))
            return false;
        matches += found;
    }
    *ret = images == (int64_t)p->set->images->len && matches == images ? bake : 0;
    return true;
}

static bool add_layers(Publishing *p, Database *db, const StoreImage *image, int64_t number, const uint64_t *sizes, GError **error)
{
    for (guint i = 0; i < image->layers->len; i++) {
        const StoreLayerRef *layer = image->layers->pdata[i];

        if (!database_run(db, error, "INSERT INTO image_layer VALUES (?1,?2,?3,?4)", "iidd", number, (int64_t)i, &layer->blob,
                          &layer->recipe))
            return false;
        if (!digest_is_none(&layer->recipe) && !catalog_add_recipe(db, &layer->blob, &layer->recipe, sizes[i], error))
            return false;
    }
    return true;
}

static bool add_image(Publishing *p, Database *db, guint index, int64_t old_bake, const uint64_t *sizes, GError **error)
{
    StoreImage *image = p->set->images->pdata[index];
    int64_t new_bytes = (int64_t)image->new_bytes;

    if (old_bake && new_bytes == 0 &&
        !database_int(db, 0, &new_bytes, error, "SELECT new_bytes FROM image WHERE bake = ?1 AND kind = ?2", "it", old_bake, image->kind))
        return false;
    if (!database_run(db, error,
                      "INSERT INTO image (bake, kind, id, name, manifest, map, tree, files, size, new_bytes, created, parent)"
                      " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)",
                      "itdtddddiiit", p->number, image->kind, &image->id, p->set->name, &image->manifest, &image->map,
                      &image->tree.tree, &image->tree.files, (int64_t)image->size, new_bytes, p->now, image->parent))
        return false;
    p->image_numbers[index] = database_last_id(db);
    image->set = p->number;
    image->created = p->now;
    return (!image->packages || package_index_put(db, p->image_numbers[index], image->packages, error)) &&
           add_layers(p, db, image, p->image_numbers[index], sizes, error);
}

static bool add_references(Publishing *p, Database *db, GError **error)
{
    for (guint i = 0; i < p->references->len; i++) {
        const Reference *ref = &g_array_index(p->references, Reference, i);

        if (!database_run(db, error, "INSERT OR IGNORE INTO reference VALUES (?1,?2,?3,?4,?5)", "iittd", p->number,
                          ref->image ? p->image_numbers[ref->image - 1] : (int64_t)0, ref->role, ref->name, &ref->digest))
            return false;
    }
    return true;
}

static bool write_rows(Publishing *p, Database *db, GError **error)
{
    const StoreSet *set = p->set;
    const uint64_t *sizes = p->layer_sizes;
    int64_t old;

    if (!check_references(p, db, error) || !find_equal(p, db, &old, error))
        return false;
    if (!database_run(db, error, "INSERT INTO bake (name, parent, key, provenance, created) VALUES (?1,?2,?3,?4,?5)", "tdddi", set->name,
                      &set->parent, &set->key, &p->provenance, p->now))
        return false;
    p->number = database_last_id(db);
    for (guint i = 0; i < set->images->len; i++) {
        if (!add_image(p, db, i, old, sizes, error))
            return false;
        sizes += ((const StoreImage *)set->images->pdata[i])->layers->len;
    }
    return add_references(p, db, error) && (!old || (hand_over_manifests(db, old, p->number, error) && forget_bake(db, old, error)));
}

static bool publish_catalog(Publishing *p, GError **error)
{
    Database *db;

    if (!store_catalog(p->store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!write_rows(p, db, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

static bool add_parent(Database *db, const StoreImage *image, const Digest *parent, GError **error)
{
    return digest_is_none(parent) || digest_equal(parent, &image->id) ||
           database_run(db, error, "INSERT OR IGNORE INTO lineage VALUES (?1,?2)", "dd", &image->id, parent);
}

static bool write_lineage(Publishing *p, Database *db, const StoreImage *image, GError **error)
{
    const GArray *parents = p->set->parents;

    for (guint i = 0; parents && i < parents->len; i++)
        if (!add_parent(db, image, &g_array_index(parents, Digest, i), error))
            return false;
    return add_parent(db, image, &p->set->parent, error);
}

static bool write_names(Publishing *p, Database *db, GError **error)
{
    for (guint i = 0; i < p->set->images->len; i++) {
        const StoreImage *image = p->set->images->pdata[i];

        if (!database_run(db, error, "INSERT OR REPLACE INTO name VALUES (?1,?2,?3,?4,?5)", "ttdii", p->set->name, image->kind,
                          &image->id, p->number, p->now) ||
            !write_lineage(p, db, image, error))
            return false;
    }
    return true;
}

static bool publish_names(Publishing *p, GError **error)
{
    Database *db, *catalog;

    if (!store_catalog(p->store, &catalog, error) || !store_state_db(p->store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!write_names(p, db, error) || !published_follow(catalog, db, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error) && store_ledger_follow(p->store);
}

/* Read outside the transaction: recipes are blobs. */
static bool measure_layers(Publishing *p, GError **error)
{
    g_autoptr(GArray) sizes = g_array_new(FALSE, FALSE, sizeof(uint64_t));

    for (guint i = 0; i < p->set->images->len; i++) {
        const StoreImage *image = p->set->images->pdata[i];

        for (guint j = 0; j < image->layers->len; j++) {
            const StoreLayerRef *layer = image->layers->pdata[j];
            LayerResult info = { .size = 0 };

            if (!digest_is_none(&layer->recipe) && !layer_recipe_info(p->store, &layer->recipe, &info, error))
                return false;
            g_array_append_val(sizes, info.size);
        }
    }
    p->layer_sizes = g_memdup2(sizes->data, sizes->len * sizeof(uint64_t));
    return true;
}

static bool publish(Publishing *p, GError **error)
{
    if (p->set->provenance) {
        g_autofree char *text = json_canonical(p->set->provenance);

        if (!store_blob_put(p->store, text, strlen(text), &p->provenance, error))
            return false;
    }
    return measure_layers(p, error) && collect_references(p, error) && publish_catalog(p, error) && publish_names(p, error);
}

bool store_publish(Store *store, const StoreSet *set, GError **error)
{
    Publishing p = { .store = store, .set = set, .now = g_get_real_time() / G_USEC_PER_SEC };
    Database *state;
    bool ok;

    /* The first look at state.db brings the ledger up to date: now, and not between the set and its names. */
    if (!store_writable(store, error) || !check_set(set, error) || !store_state_db(store, &state, error))
        return false;
    p.references = g_array_new(FALSE, FALSE, sizeof(Reference));
    g_array_set_clear_func(p.references, clear_reference);
    p.image_numbers = g_new0(int64_t, set->images->len);
    ok = publish(&p, error);
    g_array_unref(p.references);
    g_free(p.image_numbers);
    g_free(p.layer_sizes);
    return ok;
}

/* --- removing --- */

/* A name under which the image was published as well has a record of its own; one that was given to it by kiln tag has ours only. */
static bool hold_counts(Database *catalog, const StoreImage *image, const Hold *hold, bool *ret, GError **error)
{
    bool named = hold->kind == HOLD_NAME || hold->kind == HOLD_TAG;
    g_autoptr(Query) query = NULL;
    int rc;

    *ret = hold->kind != HOLD_BACK && (!named || strcmp(hold->name, image->name) != 0);
    if (!*ret || !named)
        return true;
    query = database_query(catalog, error, "SELECT 1 FROM image WHERE id = ?1 AND name = ?2 LIMIT 1", "dt", &image->id, hold->name);
    rc = query ? query_step(query, error) : -1;
    *ret = rc == 0;
    return rc >= 0;
}

/* What channels moved on from may go; the image's own name goes to another one, and its tags go with it. */
static bool check_free(Store *store, Database *catalog, const StoreImage *image, GError **error)
{
    g_autoptr(GHashTable) holds = NULL;
    const GPtrArray *list;
    bool counts;

    if (!holds_load(store, &holds, error))
        return false;
    list = g_hash_table_lookup(holds, &image->id);
    for (guint i = 0; list && i < list->len; i++) {
        const Hold *hold = list->pdata[i];

        if (!hold_counts(catalog, image, hold, &counts, error))
            return false;
        if (counts)
            return fail(error, "image '%s' is %sheld by %s", image->name, hold->kind == HOLD_NAME ? "also " : "", hold->phrase);
    }
    return true;
}

/* The name goes to the newest image that stays, or away. */
static bool move_name(Store *store, Database *state, Database *catalog, const StoreImage *image, GError **error)
{
    g_autoptr(Query) query =
        database_query(catalog, error,
                       "SELECT id, bake FROM image WHERE name = ?1 AND kind = ?2 AND id != ?3 AND bytes_gone = 0 ORDER BY number DESC LIMIT 1", "ttd", image->name, image->kind, &image->id);
    int rc = query ? query_step(query, error) : -1;
    Digest next;

    if (rc < 0)
        return false;
    if (rc == 0)
        return database_run(state, error, "DELETE FROM name WHERE name = ?1 AND kind = ?2 AND image = ?3", "ttd", image->name,
                            image->kind, &image->id);
    query_digest(query, 0, &next);
    return database_run(state, error, "UPDATE name SET image = ?1, bake = ?2 WHERE name = ?3 AND kind = ?4 AND image = ?5", "dittd", &next,
                        query_int(query, 1), image->name, image->kind, &image->id);
}

static bool remove_rows(Database *db, const StoreImage *image, GError **error)
{
    static const char ours[] = "(SELECT number FROM image WHERE id = ?1 AND name = ?2)";
    g_autofree char *layers = g_strconcat("DELETE FROM image_layer WHERE image IN ", ours, NULL);
    g_autofree char *references = g_strconcat("DELETE FROM reference WHERE image IN ", ours, NULL);

    return serve_manifest_forget(db, image->name, &image->manifest, error) && database_run(db, error, layers, "dt", &image->id, image->name) &&
           database_run(db, error, references, "dt", &image->id, image->name) &&
           database_run(db, error, "DELETE FROM image WHERE id = ?1 AND name = ?2", "dt", &image->id, image->name) &&
           database_run(db, error, "DELETE FROM bake WHERE number NOT IN (SELECT bake FROM image) AND number NOT IN (SELECT bake FROM reference"
                                   " WHERE image = 0 AND role = 'pushed-manifest')", "") && /* see store/serve-rows.h */
           database_run(db, error, "DELETE FROM reference WHERE bake NOT IN (SELECT number FROM bake)", "");
}

/* With both write locks. State first: after a crash in between, an image without a name is left, which is as good as none. */
static bool remove_image(Store *store, Database *state, Database *catalog, const StoreImage *image, GError **error)
{
    if (!check_free(store, catalog, image, error) || !move_name(store, state, catalog, image, error) ||
        !database_run(state, error, "DELETE FROM repository_tag WHERE repository = ?1 AND image = ?2", "td", image->name, &image->id) ||
        !remove_rows(catalog, image, error)) {
        database_rollback(catalog);
        database_rollback(state);
        return false;
    }
    if (!database_commit(state, error)) {
        database_rollback(catalog);
        return false;
    }
    return database_commit(catalog, error) && store_ledger_follow(store);
}

/* Nobody may begin to hold the image between our look and its end, so the catalog is locked from the look on (store/journal.c). */
bool store_remove_image(Store *store, const StoreImage *image, GError **error)
{
    Database *state, *catalog;

    if (!store_writable(store, error) || !store_state_db(store, &state, error) || !store_catalog(store, &catalog, error) ||
        !database_begin(state, true, error))
        return false;
    if (!database_begin(catalog, true, error)) {
        database_rollback(state);
        return false;
    }
    return remove_image(store, state, catalog, image, error);
}
