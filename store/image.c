/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images as structs and as rows; names; lists.
 */
#include "store/image-private.h"

#include "base/error.h"
#include "store/shared-private.h"
#include "store/store-private.h"

#define NAME_MAX_LENGTH 128
#define PROVENANCE_MAX (64u << 20)

/* --- the struct --- */

StoreImage *store_image_new(const char *kind, const char *name)
{
    StoreImage *image = g_new0(StoreImage, 1);

    image->kind = g_strdup(kind);
    image->name = g_strdup(name);
    image->layers = g_ptr_array_new_with_free_func(g_free);
    return image;
}

void store_image_free(StoreImage *image)
{
    if (!image)
        return;
    g_free(image->kind);
    g_free(image->name);
    g_free(image->parent);
    json_decref(image->packages);
    g_ptr_array_unref(image->layers);
    g_free(image);
}

void store_image_add_layer(StoreImage *image, const Digest *blob, const Digest *recipe)
{
    StoreLayerRef *ref = g_new0(StoreLayerRef, 1);

    ref->blob = *blob;
    ref->recipe = recipe ? *recipe : digest_none;
    g_ptr_array_add(image->layers, ref);
}

const StoreImage *store_images_find(const GPtrArray *images, const char *kind)
{
    for (guint i = 0; i < images->len; i++)
        if (strcmp(((const StoreImage *)images->pdata[i])->kind, kind) == 0)
            return images->pdata[i];
    return NULL;
}

/* --- names --- */

static bool looks_like_id(const char *name)
{
    return strlen(name) >= 12 && strspn(name, "0123456789abcdef") == strlen(name);
}

bool store_name_check(const char *name, GError **error)
{
    if (!*name || strlen(name) > NAME_MAX_LENGTH)
        return fail_code(error, KILN_ERROR_USAGE, "the name '%.140s' must have 1 to %d characters", name, NAME_MAX_LENGTH);
    if (!g_ascii_islower(*name) && !g_ascii_isdigit(*name))
        return fail_code(error, KILN_ERROR_USAGE, "the name '%s' must start with a lower-case letter or a digit", name);
    if (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") != strlen(name))
        return fail_code(error, KILN_ERROR_USAGE, "the name '%s' may hold lower-case letters, digits, '.', '_' and '-' only", name);
    if (looks_like_id(name))
        return fail_code(error, KILN_ERROR_USAGE, "the name '%s' could be taken for an image ID", name);
    return true;
}

/* --- rows --- */

static bool load_layers(Database *db, int64_t number, StoreImage *image, GError **error)
{
    g_autoptr(Query) query =
        database_query(db, error, "SELECT layer, recipe FROM image_layer WHERE image = ?1 ORDER BY place", "i", number);
    Digest layer, recipe;
    int rc;

    if (!query)
        return false;
    while ((rc = query_step(query, error)) > 0) {
        query_digest(query, 0, &layer);
        query_digest(query, 1, &recipe);
        store_image_add_layer(image, &layer, &recipe);
    }
    return rc == 0;
}

bool image_from_row(Database *db, Query *query, StoreImage **ret, GError **error)
{
    g_autoptr(StoreImage) image = store_image_new(query_text(query, 2), query_text(query, 4));

    image->set = query_int(query, 1);
    query_digest(query, 3, &image->id);
    query_digest(query, 5, &image->manifest);
    query_digest(query, 6, &image->map);
    query_digest(query, 7, &image->tree.tree);
    query_digest(query, 8, &image->tree.files);
    image->size = (uint64_t)query_int(query, 9);
    image->new_bytes = (uint64_t)query_int(query, 10);
    image->created = query_int(query, 11);
    image->parent = g_strdup(query_text(query, 12));
    image->bytes_gone = query_int(query, 13);
    if (!load_layers(db, query_int(query, 0), image, error))
        return false;
    *ret = g_steal_pointer(&image);
    return true;
}

bool image_check_bytes(const StoreImage *image, GError **error)
{
    g_autoptr(GDateTime) when = image->bytes_gone ? g_date_time_new_from_unix_utc(image->bytes_gone) : NULL;
    g_autofree char *day = when ? g_date_time_format(when, "%Y-%m-%d") : NULL;
    char id[DIGEST_OCI_SIZE];

    return !image->bytes_gone || fail(error, "of image '%s/%s' %s only the record is left, kiln prune let its bytes go on %s: bake or import it again",
                                      image->name, image->kind, digest_to_oci(&image->id, id), day ? day : "an unknown day");
}

static void free_image(gpointer image)
{
    store_image_free(image);
}

bool images_from_query(Database *db, Query *query, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func(free_image);
    int rc;

    if (!query)
        return false;
    while ((rc = query_step(query, error)) > 0) {
        StoreImage *image;

        if (!image_from_row(db, query, &image, error))
            return false;
        g_ptr_array_add(images, image);
    }
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&images);
    return true;
}

bool image_by_id(Database *db, const Digest *id, const char *name, StoreImage **ret, GError **error)
{
    g_autoptr(Query) query =
        database_query(db, error, "SELECT " IMAGE_COLUMNS " FROM image WHERE id = ?1 ORDER BY bytes_gone != 0, name = ?2 DESC, number DESC LIMIT 1",
                       "dt", id, name ? name : "");
    int rc = query ? query_step(query, error) : -1;

    *ret = NULL;
    return rc == 0 || (rc > 0 && image_from_row(db, query, ret, error));
}

/* --- lists --- */

static int newest_first(gconstpointer a, gconstpointer b)
{
    const StoreImage *one = *(StoreImage *const *)a, *other = *(StoreImage *const *)b;

    if (one->set != other->set)
        return one->set < other->set ? 1 : -1;
    return g_strcmp0(one->kind, other->kind);
}

static bool list_named(Store *store, Database *catalog, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func(free_image);
    g_autoptr(Query) query = NULL;
    Database *state;
    int rc;

    if (!store_state_db(store, &state, error) || !(query = database_query(state, error, "SELECT name, image FROM name", "")))
        return false;
    while ((rc = query_step(query, error)) > 0) {
        StoreImage *image;
        Digest id;

        query_digest(query, 1, &id);
        if (!image_by_id(catalog, &id, query_text(query, 0), &image, error))
            return false;
        if (image)
            g_ptr_array_add(images, image);
    }
    if (rc < 0)
        return false;
    g_ptr_array_sort(images, newest_first);
    *ret = g_steal_pointer(&images);
    return true;
}

bool store_list_images(Store *store, bool all, GPtrArray **ret, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *catalog;

    if (!store_catalog(store, &catalog, error))
        return false;
    if (!all)
        return list_named(store, catalog, ret, error);
    query = database_query(catalog, error, "SELECT " IMAGE_COLUMNS " FROM image ORDER BY bake DESC, kind", "");
    return images_from_query(catalog, query, ret, error);
}

static bool find_set_by_key(Store *store, const Digest *key, const char *name, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(Query) query = NULL;
    Database *db;

    if (!store_catalog(store, &db, error))
        return false;
    query = database_query(db, error,
                           "SELECT " IMAGE_COLUMNS " FROM image WHERE bake = (SELECT max(number) FROM bake WHERE key = ?1"
                           " AND (?2 IS NULL OR name = ?2) AND number NOT IN (SELECT bake FROM image WHERE bytes_gone != 0)) ORDER BY kind",
                           "dt", key, name);
    if (!images_from_query(db, query, &images, error))
        return false;
    *ret = images->len > 0 ? g_steal_pointer(&images) : NULL;
    return true;
}

bool store_find_set_by_key(Store *store, const Digest *key, const char *name, GPtrArray **ret, GError **error)
{
    bool came = false;

    if (!find_set_by_key(store, key, name, ret, error))
        return false;
    if (*ret || !store->shared)
        return true;
    return shared_find_set(store, key, name, &came, error) && (!came || find_set_by_key(store, key, name, ret, error));
}

bool store_image_inputs(Store *store, const StoreImage *image, GHashTable **ret, GError **error)
{
    g_autoptr(GHashTable) inputs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    if (!store_catalog(store, &db, error) ||
        !(query = database_query(db, error, "SELECT name, digest FROM reference WHERE bake = ?1 AND role = 'input'", "i", image->set)))
        return false;
    while ((rc = query_step(query, error)) > 0) {
        Digest *digest = g_new0(Digest, 1);

        query_digest(query, 1, digest);
        g_hash_table_insert(inputs, g_strdup(query_text(query, 0)), digest);
    }
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&inputs);
    return true;
}

bool store_image_config(Store *store, const Digest *id, size_t max, GBytes **ret_bytes, json_t **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    const char *text;
    gsize size;

    if (!store_blob_get(store, id, max, &bytes, error))
        return fail_prefix(error, "the image's config");
    text = g_bytes_get_data(bytes, &size);
    if (!json_parse(text, size, max, "the image's config", ret, error))
        return false;
    if (ret_bytes)
        *ret_bytes = g_steal_pointer(&bytes);
    return true;
}

bool store_image_provenance(Store *store, const StoreImage *image, json_t **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(Query) query = NULL;
    Database *db;
    Digest digest = digest_none;
    int rc;

    if (!store_catalog(store, &db, error) ||
        !(query = database_query(db, error, "SELECT provenance FROM bake WHERE number = ?1", "i", image->set)))
        return false;
    rc = query_step(query, error);
    if (rc > 0)
        query_digest(query, 0, &digest);
    if (rc < 0)
        return false;
    if (digest_is_none(&digest))
        return fail_code(error, KILN_ERROR_NOT_FOUND, "no provenance was recorded for '%s'", image->name);
    return store_blob_get(store, &digest, PROVENANCE_MAX, &bytes, error) &&
           json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), PROVENANCE_MAX, "the provenance", ret, error);
}

/* An image that came without provenance has no tests. */
static bool add_tests(Store *store, const StoreImage *image, json_t *list, GError **error)
{
    g_autoptr(json_t) provenance = NULL;
    g_autoptr(GError) problem = NULL;
    json_t *one;
    size_t i;

    if (!store_image_provenance(store, image, &provenance, &problem)) {
        if (problem->code == KILN_ERROR_NOT_FOUND)
            return true;
        g_propagate_error(error, g_steal_pointer(&problem));
        return false;
    }
    json_array_foreach (json_object_get(provenance, "tests"), i, one)
        json_array_add_new(list, json_incref(one));
    return true;
}

bool store_image_tests(Store *store, const Digest *image, json_t **ret, GError **error)
{
    g_autoptr(json_t) list = json_array();
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(Query) query = NULL;
    Database *db;

    if (!store_catalog(store, &db, error))
        return false;
    query = database_query(db, error, "SELECT " IMAGE_COLUMNS " FROM image WHERE id = ?1 ORDER BY number", "d", image);
    if (!images_from_query(db, query, &images, error))
        return false;
    for (guint i = 0; i < images->len; i++)
        if (!add_tests(store, images->pdata[i], list, error))
            return false;
    *ret = g_steal_pointer(&list);
    return true;
}
