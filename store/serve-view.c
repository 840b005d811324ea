/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's own names as repositories, read only:
 *
 *     NAME/oci, NAME/disk    one kind of a name        NAME    the container, or the disk where there is no container
 *     latest                 the newest of the name    CHANNEL where it points    64 hex digits    the image with that ID
 *
 * A repository has the manifests of the images that were published under its name, that the name or one of its channels points to or pointed to,
 * and that have their bytes; and of each such manifest the blobs that it names. Nothing else of the store can be had: a digest alone opens nothing.
 *
 * Where a repository was pushed into as well, its channels come before pushed tags, so that nobody moves a channel by a push, and "latest" is what
 * came last.
 */
#include "store/serve-private.h"

#include "base/error.h"
#include "store/image-private.h"
#include "store/layer.h"
#include "store/oci.h"
#include "store/store-private.h"

#include <string.h>

typedef struct Place {
    char *name;
    const char *kind; /* NULL: whichever it has */
} Place;

static void place_clear(Place *place)
{
    g_free(place->name);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Place, place_clear)

/* False: no name of the store can be meant. */
static bool place_of(const char *repository, Place *ret)
{
    const char *slash = strchr(repository, '/');

    *ret = (Place){.kind = !slash ? NULL : strcmp(slash, "/oci") == 0 ? "oci" : strcmp(slash, "/disk") == 0 ? "disk" : ""};
    if (ret->kind && !*ret->kind)
        return false;
    ret->name = slash ? g_strndup(repository, (gsize)(slash - repository)) : g_strdup(repository);
    return store_name_check(ret->name, NULL);
}

static bool place_is_container(const Place *place)
{
    return place->kind && strcmp(place->kind, "oci") == 0;
}

/* --- images ------------------------------------------------------------------------------ */

static bool newest_of_kind(Database *state, const char *name, const char *kind, Digest *ret, int64_t *ret_at, GError **error)
{
    g_autoptr(Query) query = database_query(state, error, "SELECT image, at FROM name WHERE name = ?1 AND kind = ?2", "tt", name, kind);
    int rc = query ? query_step(query, error) : -1;

    *ret = digest_none;
    if (rc > 0) {
        query_digest(query, 0, ret);
        *ret_at = query_int(query, 1) * G_USEC_PER_SEC;
    }
    return rc >= 0;
}

/* The container before the disk, where either will do. */
static bool newest(Database *state, const Place *place, Digest *ret, int64_t *ret_at, GError **error)
{
    static const char *const kinds[] = {"oci", "disk"};

    *ret = digest_none;
    for (size_t i = 0; i < G_N_ELEMENTS(kinds) && digest_is_none(ret); i++)
        if ((!place->kind || strcmp(place->kind, kinds[i]) == 0) && !newest_of_kind(state, place->name, kinds[i], ret, ret_at, error))
            return false;
    return true;
}

static bool of_channel(Database *state, const Place *place, const char *channel, Digest *ret, GError **error)
{
    static const char *const kinds[] = {"oci", "disk"};

    *ret = digest_none;
    for (size_t i = 0; i < G_N_ELEMENTS(kinds) && digest_is_none(ret); i++)
        if ((!place->kind || strcmp(place->kind, kinds[i]) == 0) && !channel_image(state, place->name, kinds[i], channel, ret, error))
            return false;
    return true;
}

/* Is or was @image something that the name or one of its channels meant? */
static bool name_means(Database *state, const char *name, const Digest *image, bool *ret, GError **error)
{
    int64_t names, entries;

    if (!database_int(state, 0, &names, error, "SELECT count(*) FROM name WHERE name = ?1 AND image = ?2", "td", name, image) ||
        !database_int(state, 0, &entries, error, "SELECT count(*) FROM channel_log WHERE image = ?2 AND name = ?1 AND action = 'promote'", "td", name, image))
        return false;
    *ret = names + entries > 0;
    return true;
}

static bool is_disk(const StoreImage *image)
{
    return strcmp(image->kind, "disk") == 0;
}

static bool has_image(Database *state, const Place *place, const StoreImage *image, bool *ret, GError **error)
{
    *ret = !image->bytes_gone && !digest_is_none(is_disk(image) ? &image->map : &image->manifest) && (!place->kind || strcmp(image->kind, place->kind) == 0);
    if (!*ret || strcmp(image->name, place->name) == 0)
        return true;
    return name_means(state, place->name, &image->id, ret, error);
}

/* The first of the query's images that the place has; *ret NULL: none. */
static bool first_of(Database *catalog, Database *state, const Place *place, Query *query, StoreImage **ret, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;
    bool has;

    *ret = NULL;
    if (!images_from_query(catalog, query, &images, error))
        return false;
    for (guint i = 0; i < images->len && !*ret; i++) {
        if (!has_image(state, place, images->pdata[i], &has, error))
            return false;
        if (has)
            *ret = g_ptr_array_steal_index(images, i--);
    }
    return true;
}

static bool by_id(Database *catalog, Database *state, const Place *place, const Digest *id, StoreImage **ret, GError **error)
{
    g_autoptr(Query) query = database_query(catalog, error, "SELECT " IMAGE_COLUMNS " FROM image WHERE id = ?1 ORDER BY bytes_gone != 0, number DESC", "d", id);

    return query && first_of(catalog, state, place, query, ret, error);
}

static bool open_both(Store *store, Database **ret_catalog, Database **ret_state, GError **error)
{
    return store_catalog(store, ret_catalog, error) && store_state_db(store, ret_state, error);
}

/* --- tags ---------------------------------------------------------------------------------- */

static bool is_id(const char *tag)
{
    return strlen(tag) == 64 && strspn(tag, "0123456789abcdef") == 64;
}

bool serve_view_tag(Store *store, const char *repository, const char *tag, StoreImage **ret, int64_t *ret_at, bool *ret_channel, GError **error)
{
    g_auto(Place) place = {.name = NULL};
    Database *catalog, *state;
    Digest id;

    *ret = NULL;
    *ret_at = 0;
    *ret_channel = false;
    if (!place_of(repository, &place))
        return true;
    if (!open_both(store, &catalog, &state, error) || !of_channel(state, &place, tag, &id, error))
        return false;
    *ret_channel = !digest_is_none(&id);
    if (!*ret_channel && strcmp(tag, "latest") == 0 && !newest(state, &place, &id, ret_at, error))
        return false;
    if (digest_is_none(&id) && is_id(tag))
        (void)digest_parse(tag, &id);
    return digest_is_none(&id) || by_id(catalog, state, &place, &id, ret, error);
}

bool serve_view_manifest_of(Store *store, const char *repository, const StoreImage *image, Digest *ret, GError **error)
{
    g_auto(Place) place = {.name = NULL};

    *ret = image->manifest;
    return !is_disk(image) || !place_of(repository, &place) || serve_disk_manifest(store, place.name, image, ret, error);
}

bool serve_view_has_image(Store *store, const char *name, const Digest *id, bool *ret, GError **error)
{
    g_autoptr(StoreImage) image = NULL;
    Place place = {.name = (char *)name};
    Database *catalog, *state;

    if (!open_both(store, &catalog, &state, error) || !by_id(catalog, state, &place, id, &image, error))
        return false;
    *ret = image != NULL;
    return true;
}

/* Channels' names, and the IDs that were ever promoted. */
static bool add_promoted(Database *catalog, Database *state, const Place *place, GHashTable *to, GError **error)
{
    g_autoptr(Query) query = database_query(state, error,
                                            "SELECT DISTINCT channel, image FROM channel_log WHERE name = ?1 AND action = 'promote' AND (?2 IS NULL OR kind = ?2)",
                                            "tt", place->name, place->kind);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        g_autofree char *channel = g_strdup(query_text(query, 0));
        g_autoptr(StoreImage) image = NULL;
        char hex[DIGEST_HEX_SIZE];
        Digest id;

        query_digest(query, 1, &id);
        if (!by_id(catalog, state, place, &id, &image, error))
            return false;
        if (!image)
            continue;
        if (channel && *channel)
            g_hash_table_add(to, g_steal_pointer(&channel));
        g_hash_table_add(to, g_strdup(digest_to_hex(&id, hex)));
    }
    return rc >= 0;
}

bool serve_view_tags(Store *store, const char *repository, GHashTable *to, bool *ret_exists, GError **error)
{
    g_auto(Place) place = {.name = NULL};
    g_autoptr(StoreImage) image = NULL;
    Database *catalog, *state;
    int64_t at;
    Digest id;

    *ret_exists = false;
    if (!place_of(repository, &place))
        return true;
    if (!open_both(store, &catalog, &state, error) || !newest(state, &place, &id, &at, error))
        return false;
    if (digest_is_none(&id))
        return true;
    *ret_exists = true;
    if (!by_id(catalog, state, &place, &id, &image, error))
        return false;
    if (image)
        g_hash_table_add(to, g_strdup("latest"));
    return add_promoted(catalog, state, &place, to, error);
}

/* --- manifests and blobs ------------------------------------------------------------------------ */

bool serve_view_manifest(Store *store, const char *repository, const Digest *digest, bool *ret, GError **error)
{
    g_auto(Place) place = {.name = NULL};
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(Query) query = NULL;
    Database *catalog, *state;
    ServeLink ignored;

    *ret = false;
    if (!place_of(repository, &place))
        return true;
    if (!open_both(store, &catalog, &state, error) ||
        !(query = database_query(catalog, error, "SELECT " IMAGE_COLUMNS " FROM image WHERE manifest = ?1 AND bytes_gone = 0 ORDER BY number DESC", "d", digest)) ||
        !first_of(catalog, state, &place, query, &image, error))
        return false;
    *ret = image != NULL;
    return *ret || place_is_container(&place) || serve_disk_find(store, place.name, digest, true, &ignored, ret, error);
}

bool serve_view_image(Store *store, const char *repository, const Digest *manifest, StoreImage **ret, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *catalog;
    int rc;

    *ret = NULL;
    if (!store_catalog(store, &catalog, error) ||
        !(query = database_query(catalog, error,
                                 "SELECT " IMAGE_COLUMNS " FROM image WHERE name = ?1 AND manifest = ?2 AND kind = 'oci' ORDER BY number DESC LIMIT 1", "td",
                                 repository, manifest)))
        return false;
    rc = query_step(query, error);
    return rc == 0 || (rc > 0 && image_from_row(catalog, query, ret, error));
}

static bool link_layer(Store *store, const StoreImage *image, const Digest *digest, ServeLink *ret, bool *ret_found, GError **error)
{
    for (guint i = 0; i < image->layers->len && !*ret_found; i++) {
        const StoreLayerRef *layer = image->layers->pdata[i];

        if (!digest_equal(&layer->blob, digest))
            continue;
        *ret = (ServeLink){.blob = *digest, .recipe = layer->recipe};
        *ret_found = true;
        return (digest_is_none(&layer->recipe) || layer_recipe_map(store, &layer->recipe, &ret->map, error)) && oci_layer_size(store, layer, &ret->size, error);
    }
    return true;
}

/* Of containers: configs and layers, by rows. */
static bool of_containers(Store *store, Database *catalog, Database *state, const Place *place, const Digest *digest, ServeLink *ret, bool *ret_found,
                          GError **error)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(Query) query =
        database_query(catalog, error,
                       "SELECT " IMAGE_COLUMNS " FROM image WHERE bytes_gone = 0 AND (id = ?1 OR number IN (SELECT image FROM image_layer WHERE layer = ?1))"
                       " ORDER BY number DESC", "d", digest);

    if (!query || !first_of(catalog, state, place, query, &image, error))
        return false;
    if (!image)
        return true;
    if (!digest_equal(&image->id, digest))
        return link_layer(store, image, digest, ret, ret_found, error);
    *ret = (ServeLink){.blob = *digest};
    *ret_found = true;
    return store_blob_size(store, digest, &ret->size, error);
}

bool serve_view_blob(Store *store, const char *repository, const Digest *digest, ServeLink *ret, bool *ret_found, GError **error)
{
    g_auto(Place) place = {.name = NULL};
    Database *catalog, *state;

    *ret_found = false;
    if (!place_of(repository, &place))
        return true;
    if (!open_both(store, &catalog, &state, error) || !of_containers(store, catalog, state, &place, digest, ret, ret_found, error))
        return false;
    return *ret_found || place_is_container(&place) || serve_disk_find(store, place.name, digest, false, ret, ret_found, error);
}

/* Names of which something can be had. */
bool serve_view_repositories(Store *store, GHashTable *to, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *catalog, *state;
    int rc;

    if (!open_both(store, &catalog, &state, error) || !(query = database_query(state, error, "SELECT DISTINCT name, image FROM name", "")))
        return false;
    while ((rc = query_step(query, error)) > 0) {
        g_autofree char *name = g_strdup(query_text(query, 0));
        int64_t count;
        Digest id;

        query_digest(query, 1, &id);
        if (!database_int(catalog, 0, &count, error, "SELECT count(*) FROM image WHERE id = ?1 AND (manifest IS NOT NULL OR kind = 'disk') AND bytes_gone = 0", "d", &id))
            return false;
        if (count && name && serve_name_is_valid(name))
            g_hash_table_add(to, g_steal_pointer(&name));
    }
    return rc == 0;
}

/* --- pushed, or the store's own --------------------------------------------------------------------- */

bool serve_find_blob(Store *store, const char *repository, const ServeDigest *digest, ServeLink *ret, bool *ret_found, GError **error)
{
    return serve_link_find(store, repository, digest->text, ret, ret_found, error) &&
           (*ret_found || digest->wide || serve_view_blob(store, repository, &digest->narrow, ret, ret_found, error));
}

bool serve_find_manifest(Store *store, const char *repository, const ServeDigest *digest, Digest *ret, GError **error)
{
    bool found;

    if (!serve_manifest_find(store, repository, digest, ret, error))
        return false;
    if (!digest_is_none(ret) || digest->wide)
        return true;
    if (!serve_view_manifest(store, repository, &digest->narrow, &found, error))
        return false;
    if (found)
        *ret = digest->narrow;
    return true;
}

bool serve_find_tag(Store *store, const char *repository, const char *tag, ServeTag *ret, GError **error)
{
    g_autoptr(StoreImage) own = NULL;
    bool channel;
    int64_t at;

    if (!serve_view_tag(store, repository, tag, &own, &at, &channel, error) || !serve_tag_find(store, repository, tag, ret, error))
        return false;
    if (!channel && !digest_is_none(&ret->manifest) && (!own || at <= ret->at))
        return true;
    *ret = (ServeTag){.manifest = digest_none, .at = at};
    return !own || serve_view_manifest_of(store, repository, own, &ret->manifest, error);
}
