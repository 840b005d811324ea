/* SPDX-License-Identifier: Apache-2.0 */
/*
 * REF: what a user writes to mean an image.
 */
#include "base/error.h"
#include "base/units.h"
#include "store/channel.h"
#include "store/image-private.h"

#define PREFIX_MIN 12

typedef struct Reference {
    char *name, *kind, *channel;
    Digest manifest; /* or none */
} Reference;

static void reference_clear(Reference *ref)
{
    g_free(ref->name);
    g_free(ref->kind);
    g_free(ref->channel);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Reference, reference_clear)

static bool is_kind(const char *text)
{
    return !g_strcmp0(text, "disk") || !g_strcmp0(text, "oci");
}

static bool parse_reference(const char *text, Reference *ret, GError **error)
{
    g_autofree char *rest = g_strdup(text);
    char *at = strchr(rest, '@'), *slash, *colon;

    if (at && !digest_parse(at + 1, &ret->manifest))
        return fail_code(error, KILN_ERROR_USAGE, "'%s': what stands after '@' must be a manifest digest, sha256: and 64 hex digits", text);
    if (at)
        *at = '\0';
    colon = strchr(rest, ':');
    if (colon && at)
        return fail_code(error, KILN_ERROR_USAGE, "'%s' names a channel and a manifest digest; give one of them", text);
    if (colon) {
        ret->channel = g_strdup(colon + 1);
        *colon = '\0';
        if (!store_channel_check(ret->channel, error))
            return fail_prefix(error, "'%s' is no image reference", text);
    }
    slash = strchr(rest, '/');
    if (slash) {
        if (!is_kind(slash + 1))
            return fail_code(error, KILN_ERROR_USAGE, "'%s': the kind after '/' must be disk or oci", text);
        ret->kind = g_strdup(slash + 1);
        *slash = '\0';
    }
    if (!store_name_check(rest, error))
        return fail_prefix(error, "'%s' is no image reference", text);
    ret->name = g_steal_pointer(&rest);
    return true;
}

static bool check_kind(const StoreImage *image, const char *ref, const char *kind, GError **error)
{
    if (!kind || !g_strcmp0(image->kind, kind))
        return true;
    return fail(error, "'%s' is %s, and this needs %s", ref, !strcmp(image->kind, "disk") ? "a disk" : "a container image",
                !strcmp(kind, "disk") ? "a disk" : "a container image");
}

/* --- by ID --- */

static bool is_prefix(const char *text)
{
    return strlen(text) >= PREFIX_MIN && strlen(text) <= 64 && strspn(text, "0123456789abcdef") == strlen(text);
}

/* IDs and manifest digests are both accepted; what they find must be one image. */
static bool resolve_prefix(Database *db, const char *ref, const char *hex, const char *kind, StoreImage **ret, GError **error)
{
    g_autofree char *pattern = g_strconcat(hex, "%", NULL);
    g_autoptr(Query) query =
        database_query(db, error, "SELECT DISTINCT id FROM image WHERE lower(hex(id)) LIKE ?1 OR lower(hex(manifest)) LIKE ?1 OR number IN"
                       " (SELECT image FROM reference WHERE role = 'manifest' AND name != '' AND lower(hex(digest)) LIKE ?1) LIMIT 2", "t", pattern);
    g_autoptr(StoreImage) image = NULL;
    int rc = query ? query_step(query, error) : -1;
    Digest id;

    if (rc == 0)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "there is no image '%s' in this store", ref);
    if (rc < 0)
        return false;
    query_digest(query, 0, &id);
    rc = query_step(query, error);
    if (rc > 0)
        return fail(error, "'%s' fits more than one image; give more digits", ref);
    if (rc < 0 || !image_by_id(db, &id, NULL, &image, error))
        return false;
    if (!image || !check_kind(image, ref, kind, error))
        return image ? false : fail_code(error, KILN_ERROR_NOT_FOUND, "there is no image '%s' in this store", ref);
    *ret = g_steal_pointer(&image);
    return true;
}

/* --- by name --- */

static bool no_such_name(Database *state, const char *ref, const char *name, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(Query) query = database_query(state, NULL, "SELECT DISTINCT name FROM name LIMIT 10000", "");
    const char *near;

    while (query && query_step(query, NULL) > 0)
        g_ptr_array_add(names, g_strdup(query_text(query, 0)));
    g_ptr_array_add(names, NULL);
    near = units_nearest(name, (const char *const *)names->pdata);
    if (near)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "there is no image '%s' in this store; did you mean '%s'?", ref, near);
    return fail_code(error, KILN_ERROR_NOT_FOUND, "there is no image '%s' in this store", ref);
}

static bool pick_kind(Database *state, const Reference *r, const char *ref, const char *kind, Digest *ret, GError **error)
{
    g_autoptr(Query) query = database_query(state, error, "SELECT image FROM name WHERE name = ?1 AND (?2 IS NULL OR kind = ?2)", "tt",
                                            r->name, kind);
    int rc = query ? query_step(query, error) : -1;
    int64_t any;

    if (rc > 0) {
        query_digest(query, 0, ret);
        rc = query_step(query, error);
        if (rc > 0)
            return fail_code(error, KILN_ERROR_USAGE, "'%s' is both a disk and a container image: say %s/disk or %s/oci", ref, r->name,
                             r->name);
        return rc == 0;
    }
    if (rc < 0 || !database_int(state, 0, &any, error, "SELECT count(*) FROM name WHERE name = ?1", "t", r->name))
        return false;
    if (any)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "'%s' has no %s", r->name, !strcmp(kind, "disk") ? "disk" : "container image");
    return no_such_name(state, ref, r->name, error);
}

static bool pick_channel(Database *state, const Reference *r, const char *ref, const char *kind, Digest *ret, GError **error)
{
    static const char *const kinds[] = { "disk", "oci" };
    unsigned found = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        Digest id;

        if (kind && strcmp(kind, kinds[i]) != 0)
            continue;
        if (!channel_image(state, r->name, kinds[i], r->channel, &id, error))
            return false;
        if (digest_is_none(&id))
            continue;
        *ret = id;
        found++;
    }
    if (found == 0)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "'%s' was never promoted to channel '%s'%s%s", r->name, r->channel,
                         kind ? " as " : "", !kind ? "" : !strcmp(kind, "disk") ? "a disk" : "a container image");
    return found == 1 || fail_code(error, KILN_ERROR_USAGE, "'%s' is both a disk and a container image: say %s/disk:%s or %s/oci:%s", ref,
                                   r->name, r->channel, r->name, r->channel);
}

static bool resolve_name(Store *store, Database *catalog, const char *ref, const char *kind, StoreImage **ret, GError **error)
{
    g_auto(Reference) r = { .name = NULL };
    g_autoptr(StoreImage) image = NULL;
    Database *state;
    Digest id;

    if (!parse_reference(ref, &r, error) || !store_state_db(store, &state, error))
        return false;
    if (!digest_is_none(&r.manifest)) {
        g_autoptr(Query) query =
            database_query(catalog, error, "SELECT " IMAGE_COLUMNS " FROM image WHERE name = ?1 AND (manifest = ?2 OR number IN"
                           " (SELECT image FROM reference WHERE role = 'manifest' AND digest = ?2)) ORDER BY bytes_gone != 0, number DESC",
                           "td", r.name, &r.manifest);
        int rc = query ? query_step(query, error) : -1;

        if (rc == 0)
            return fail_code(error, KILN_ERROR_NOT_FOUND, "no image '%s' has that manifest digest", r.name);
        if (rc < 0 || !image_from_row(catalog, query, &image, error))
            return false;
    } else if (r.kind && kind && strcmp(r.kind, kind)) {
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is %s, and this needs %s", ref, !strcmp(r.kind, "disk") ? "a disk" : "a container image",
                         !strcmp(kind, "disk") ? "a disk" : "a container image");
    } else if (!(r.channel ? pick_channel : pick_kind)(state, &r, ref, r.kind ? r.kind : kind, &id, error) || !image_by_id(catalog, &id, r.name, &image, error)) {
        return false;
    }
    if (!image)
        return fail(error, "the name '%s' points to an image that the catalog lacks; run kiln fsck", r.name);
    if (!check_kind(image, ref, kind, error))
        return false;
    *ret = g_steal_pointer(&image);
    return true;
}

bool store_resolve_record(Store *store, const char *ref, const char *kind, StoreImage **ret, GError **error)
{
    const char *hex = g_str_has_prefix(ref, "sha256:") ? ref + strlen("sha256:") : ref;
    Database *catalog;

    if (!store_catalog(store, &catalog, error))
        return false;
    if (is_prefix(hex))
        return resolve_prefix(catalog, ref, hex, kind, ret, error);
    if (hex != ref)
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no image ID: it needs %d to 64 lower-case hex digits", ref, PREFIX_MIN);
    return resolve_name(store, catalog, ref, kind, ret, error);
}

bool store_resolve(Store *store, const char *ref, const char *kind, StoreImage **ret, GError **error)
{
    g_autoptr(StoreImage) image = NULL;

    if (!store_resolve_record(store, ref, kind, &image, error) || !image_check_bytes(image, error))
        return false;
    *ret = g_steal_pointer(&image);
    return true;
}

bool store_resolve_set_record(Store *store, const char *ref, GPtrArray **ret, GError **error)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(Query) query = NULL;
    Database *catalog;

    /* Whichever kind it has; what is wrong with REF itself is told by the last try. */
    if (!store_resolve_record(store, ref, "disk", &image, NULL) && !store_resolve_record(store, ref, "oci", &image, NULL) &&
        !store_resolve_record(store, ref, NULL, &image, error))
        return false;
    if (!store_catalog(store, &catalog, error))
        return false;
    query = strchr(ref, '/')
                ? database_query(catalog, error, "SELECT " IMAGE_COLUMNS " FROM image WHERE bake = ?1 AND kind = ?2", "it", image->set,
                                 image->kind)
                : database_query(catalog, error, "SELECT " IMAGE_COLUMNS " FROM image WHERE bake = ?1 ORDER BY kind", "i", image->set);
    return images_from_query(catalog, query, ret, error);
}

bool store_resolve_set(Store *store, const char *ref, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;

    if (!store_resolve_set_record(store, ref, &images, error))
        return false;
    for (guint i = 0; i < images->len; i++)
        if (!image_check_bytes(images->pdata[i], error))
            return false;
    *ret = g_steal_pointer(&images);
    return true;
}
