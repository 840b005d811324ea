/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog's sets as text in state.db (table `published`), so that the ledger has them and a lost catalog can have them again.
 *
 *   {"created", "key", "name", "parent", "provenance",
 *    "images": [{"bytes_gone" if they are, "created", "files", "id", "kind", "layers": [[layer, recipe or null], ...], "manifest", "map", "new_bytes", "number",
 *                "parent", "size", "tree"}, ...],
 *    "references": [[number of the image or 0, role, name, digest], ...]}
 *
 * The catalog is asked, not told: whatever publishes, removes or prunes sets there, the table follows before the ledger is written. Sets are
 * compared by how many there are and by the sums of their numbers and of `mark`; a number is never used again.
 */
#include "store/ledger.h"

#include "base/error.h"
#include "store/layer.h"
#include "store/store-private.h"

#define RECORD_MAX (16u << 20)

/* --- catalog to text --- */

static json_t *digest_json(Query *query, int column)
{
    char oci[DIGEST_OCI_SIZE];
    Digest digest;

    query_digest(query, column, &digest);
    return digest_is_none(&digest) ? json_null() : json_string(digest_to_oci(&digest, oci));
}

static bool add_layers(Database *catalog, int64_t image, json_t *to, GError **error)
{
    g_autoptr(Query) query = database_query(catalog, error, "SELECT layer, recipe FROM image_layer WHERE image = ?1 ORDER BY place", "i", image);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0)
        json_array_append_new(to, json_pack("[o, o]", digest_json(query, 0), digest_json(query, 1)));
    return rc >= 0;
}

static bool add_images(Database *catalog, int64_t bake, json_t *to, GError **error)
{
    g_autoptr(Query) query = database_query(catalog, error,
                                            "SELECT number, kind, id, manifest, map, tree, files, size, new_bytes, created, parent, bytes_gone"
                                            " FROM image"
                                            " WHERE bake = ?1 ORDER BY number", "i", bake);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        static const char *const digests[] = {"id", "manifest", "map", "tree", "files"};
        json_t *layers = json_array();
        json_t *image = json_pack("{s:I, s:s, s:I, s:I, s:I, s:o}", "number", (json_int_t)query_int(query, 0), "kind", query_text(query, 1), "size",
                                  (json_int_t)query_int(query, 7), "new_bytes", (json_int_t)query_int(query, 8), "created",
                                  (json_int_t)query_int(query, 9), "layers", layers);

        for (size_t i = 0; i < G_N_ELEMENTS(digests); i++)
            json_object_set_new(image, digests[i], digest_json(query, 2 + (int)i));
        json_object_set_new(image, "parent", store_text_json(query_text(query, 10)));
        if (query_int(query, 11))
            json_object_set_new(image, "bytes_gone", json_integer(query_int(query, 11)));
        json_array_append_new(to, image);
        if (!add_layers(catalog, query_int(query, 0), layers, error))
            return false;
    }
    return rc >= 0;
}

static bool add_references(Database *catalog, int64_t bake, json_t *to, GError **error)
{
    g_autoptr(Query) query =
        database_query(catalog, error, "SELECT image, role, name, digest FROM reference WHERE bake = ?1 ORDER BY image, role, name, digest", "i", bake);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0)
        json_array_append_new(to, json_pack("[I, o, o, o]", (json_int_t)query_int(query, 0), store_text_json(query_text(query, 1)),
                                            store_text_json(query_text(query, 2)), digest_json(query, 3)));
    return rc >= 0;
}

bool published_record(Database *catalog, int64_t bake, char **ret, GError **error)
{
    g_autoptr(Query) query = database_query(catalog, error, "SELECT name, created, parent, key, provenance FROM bake WHERE number = ?1", "i", bake);
    g_autoptr(json_t) record = json_pack("{s:[], s:[]}", "images", "references");
    int rc = query ? query_step(query, error) : -1;

    *ret = NULL;
    if (rc <= 0)
        return rc == 0;
    json_object_set_new(record, "name", store_text_json(query_text(query, 0)));
    json_object_set_new(record, "created", json_integer(query_int(query, 1)));
    json_object_set_new(record, "parent", digest_json(query, 2));
    json_object_set_new(record, "key", digest_json(query, 3));
    json_object_set_new(record, "provenance", digest_json(query, 4));
    if (!add_images(catalog, bake, json_object_get(record, "images"), error) ||
        !add_references(catalog, bake, json_object_get(record, "references"), error))
        return false;
    *ret = json_canonical(record);
    return true;
}

/* --- following --- */

/* A set's mark: its images, and how much is kept for it, which changes when its bytes are let go. */
#define SET_MARKS                                                                                                                         \
    "SELECT number, coalesce((SELECT sum(number * 1000 - (bytes_gone != 0)) FROM image WHERE image.bake = bake.number), 0)"              \
    " + (SELECT count(*) FROM reference WHERE reference.bake = bake.number) FROM bake"
#define CATALOG_SUMS                                                                                                                      \
    "SELECT count(*), sum(number), (SELECT coalesce(sum(number * 1000 - (bytes_gone != 0)), 0) FROM image)"                              \
    " + (SELECT count(*) FROM reference) FROM bake"
#define STATE_SUMS "SELECT count(*), sum(bake), sum(mark) FROM published" /* out of the index alone */

static bool read_sums(Database *db, const char *sql, int64_t ret[3], GError **error)
{
    g_autoptr(Query) query = database_query(db, error, sql, "");
    int rc = query ? query_step(query, error) : -1;

    for (int i = 0; i < 3; i++)
        ret[i] = rc > 0 ? query_int(query, i) : 0;
    return rc >= 0;
}

bool published_is_behind(Database *catalog, Database *state, bool *ret, GError **error)
{
    int64_t there[3], here[3];

    if (!read_sums(catalog, CATALOG_SUMS, there, error) || !read_sums(state, STATE_SUMS, here, error))
        return false;
    *ret = memcmp(there, here, sizeof(there)) != 0;
    return true;
}

/* Number of a set -> its mark. */
static bool list_sets(Database *db, const char *sql, GHashTable **ret, GError **error)
{
    g_autoptr(GHashTable) sets = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    g_autoptr(Query) query = database_query(db, error, sql, "");
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        int64_t bake = query_int(query, 0), sum = query_int(query, 1);

        g_hash_table_insert(sets, g_memdup2(&bake, sizeof(bake)), g_memdup2(&sum, sizeof(sum)));
    }
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&sets);
    return true;
}

static bool is_same(GHashTable *sets, const int64_t *bake, const int64_t *sum)
{
    const int64_t *other = g_hash_table_lookup(sets, bake);

    return other && *other == *sum;
}

static bool drop_others(Database *state, GHashTable *there, GHashTable *here, GError **error)
{
    GHashTableIter iter;
    gpointer bake, sum;

    g_hash_table_iter_init(&iter, here);
    while (g_hash_table_iter_next(&iter, &bake, &sum))
        if (!is_same(there, bake, sum) && !database_run(state, error, "DELETE FROM published WHERE bake = ?1", "i", *(int64_t *)bake))
            return false;
    return true;
}

static bool add_others(Database *catalog, Database *state, GHashTable *there, GHashTable *here, GError **error)
{
    GHashTableIter iter;
    gpointer bake, sum;

    g_hash_table_iter_init(&iter, there);
    while (g_hash_table_iter_next(&iter, &bake, &sum)) {
        g_autofree char *record = NULL;

        if (is_same(here, bake, sum))
            continue;
        if (!published_record(catalog, *(int64_t *)bake, &record, error) ||
            (record && !database_run(state, error, "INSERT INTO published VALUES (?1,?2,?3)", "iit", *(int64_t *)bake, *(int64_t *)sum, record)))
            return false;
    }
    return true;
}

bool published_follow(Database *catalog, Database *state, GError **error)
{
    g_autoptr(GHashTable) there = NULL, here = NULL;

    return list_sets(catalog, SET_MARKS, &there, error) &&
           list_sets(state, "SELECT bake, mark FROM published", &here, error) &&
           drop_others(state, there, here, error) && add_others(catalog, state, there, here, error);
}

/* --- text to catalog --- */

static Digest get_digest(const json_t *value)
{
    Digest digest;

    return json_is_string(value) && digest_parse(json_string_value(value), &digest) ? digest : digest_none;
}

static Digest digest_at(const json_t *object, const char *key)
{
    return get_digest(json_object_get(object, key));
}

static int64_t int_at(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static bool restore_layers(Store *store, Database *catalog, const json_t *image, GError **error)
{
    json_t *pair;
    size_t i;

    json_array_foreach(json_object_get(image, "layers"), i, pair) {
        Digest layer = get_digest(json_array_get(pair, 0)), recipe = get_digest(json_array_get(pair, 1));
        LayerResult info;

        if (!database_run(catalog, error, "INSERT INTO image_layer VALUES (?1,?2,?3,?4)", "iidd", int_at(image, "number"), (int64_t)i, &layer, &recipe))
            return false;
        /* A recipe that is lost is fsck's to tell. */
        if (!digest_is_none(&recipe) && layer_recipe_info(store, &recipe, &info, NULL) &&
            !catalog_add_recipe(catalog, &layer, &recipe, info.size, error))
            return false;
    }
    return true;
}

static bool restore_image(Store *store, Database *catalog, int64_t bake, const char *name, const json_t *image, GError **error)
{
    Digest id = digest_at(image, "id"), manifest = digest_at(image, "manifest"), map = digest_at(image, "map"), tree = digest_at(image, "tree"),
           files = digest_at(image, "files");

    return database_run(catalog, error,
                        "INSERT INTO image (number, bake, kind, id, name, manifest, map, tree, files, size, new_bytes, created, parent, bytes_gone)"
                        " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)",
                        "iitdtddddiiiti", int_at(image, "number"), bake, json_string_value(json_object_get(image, "kind")), &id, name, &manifest,
                        &map, &tree, &files, int_at(image, "size"), int_at(image, "new_bytes"), int_at(image, "created"),
                        json_string_value(json_object_get(image, "parent")), int_at(image, "bytes_gone")) &&
           restore_layers(store, catalog, image, error);
}

static bool restore_references(Store *store, Database *catalog, int64_t bake, const json_t *list, GError **error)
{
    json_t *one;
    size_t i;

    json_array_foreach((json_t *)list, i, one) {
        Digest digest = get_digest(json_array_get(one, 3));
        LayerResult info;

        /* What was pushed has no rows of layers: see store/serve-rows.h. */
        if (g_strcmp0(json_string_value(json_array_get(one, 1)), "pushed-recipe") == 0 && layer_recipe_info(store, &digest, &info, NULL) &&
            !catalog_add_recipe(catalog, &info.blob, &digest, info.size, error))
            return false;

        if (!database_run(catalog, error, "INSERT OR IGNORE INTO reference VALUES (?1,?2,?3,?4,?5)", "iittd", bake,
                          (int64_t)json_integer_value(json_array_get(one, 0)), json_string_value(json_array_get(one, 1)),
                          json_string_value(json_array_get(one, 2)), &digest))
            return false;
    }
    return true;
}

static bool parse_record(const char *text, json_t **ret, GError **error)
{
    return text ? json_parse(text, strlen(text), RECORD_MAX, "the record of a set", ret, error) : fail(error, "the record of a set is no text");
}

static bool restore_set(Store *store, Database *catalog, int64_t bake, const char *text, GError **error)
{
    g_autoptr(json_t) record = NULL;
    Digest parent, key, provenance;
    const char *name;
    json_t *image;
    size_t i;

    if (!parse_record(text, &record, error))
        return false;
    parent = digest_at(record, "parent");
    key = digest_at(record, "key");
    provenance = digest_at(record, "provenance");
    name = json_string_value(json_object_get(record, "name"));
    if (!database_run(catalog, error, "INSERT INTO bake (number, name, parent, key, provenance, created) VALUES (?1,?2,?3,?4,?5,?6)", "itdddi", bake,
                      name, &parent, &key, &provenance, int_at(record, "created")))
        return false;
    json_array_foreach(json_object_get(record, "images"), i, image)
        if (!restore_image(store, catalog, bake, name, image, error))
            return false;
    return restore_references(store, catalog, bake, json_object_get(record, "references"), error);
}

static bool forget_set(Database *catalog, int64_t bake, GError **error)
{
    return database_run(catalog, error, "DELETE FROM image_layer WHERE image IN (SELECT number FROM image WHERE bake = ?1)", "i", bake) &&
           database_run(catalog, error, "DELETE FROM image WHERE bake = ?1", "i", bake) &&
           database_run(catalog, error, "DELETE FROM reference WHERE bake = ?1", "i", bake) &&
           database_run(catalog, error, "DELETE FROM bake WHERE number = ?1", "i", bake);
}

/* As text, because two sets of one number may have the same images and other records. */
static bool is_as_recorded(Database *catalog, int64_t bake, const char *text, bool *ret, GError **error)
{
    g_autofree char *record = NULL;

    if (!published_record(catalog, bake, &record, error))
        return false;
    *ret = g_strcmp0(record, text) == 0;
    return true;
}

static bool restore_one(Store *store, Database *catalog, int64_t bake, const char *text, GError **error)
{
    bool same;

    if (!is_as_recorded(catalog, bake, text, &same, error))
        return false;
    return same || (forget_set(catalog, bake, error) && restore_set(store, catalog, bake, text, error));
}

static bool forget_others(Database *catalog, Database *state, GError **error)
{
    g_autoptr(GHashTable) there = NULL, here = NULL;
    GHashTableIter iter;
    gpointer bake;

    if (!list_sets(catalog, "SELECT number, 0 FROM bake", &there, error) || !list_sets(state, "SELECT bake, 0 FROM published", &here, error))
        return false;
    g_hash_table_iter_init(&iter, there);
    while (g_hash_table_iter_next(&iter, &bake, NULL))
        if (!g_hash_table_contains(here, bake) && !forget_set(catalog, *(int64_t *)bake, error))
            return false;
    return true;
}

bool published_restore(Store *store, Database *catalog, Database *state, bool forget, GError **error)
{
    g_autoptr(Query) query = NULL;
    int rc;

    if ((forget && !forget_others(catalog, state, error)) ||
        !(query = database_query(state, error, "SELECT bake, record FROM published ORDER BY bake", "")))
        return false;
    while ((rc = query_step(query, error)) > 0)
        if (!restore_one(store, catalog, query_int(query, 0), query_text(query, 1), error))
            return false;
    return rc == 0;
}

bool published_needs(const char *record, GHashTable *to, GError **error)
{
    g_autoptr(json_t) set = NULL;
    json_t *one;
    size_t i;

    if (!parse_record(record, &set, error))
        return false;
    json_array_foreach(json_object_get(set, "references"), i, one) {
        Digest digest = get_digest(json_array_get(one, 3));

        if (!digest_is_none(&digest))
            g_hash_table_add(to, g_memdup2(&digest, sizeof(digest)));
    }
    return true;
}
