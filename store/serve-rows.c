/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog comes first and state.db last, as when a bake is published: after a crash in between a manifest is there that no tag points to, and that
 * nobody was told of.
 */
#include "store/serve-rows.h"

#include "base/error.h"
#include "store/image-private.h"
#include "store/layer.h"
#include "store/ledger.h"
#include "store/store-private.h"

#define LINK_TEXT_MAX 4096

#define IN_REPOSITORY "r.image = 0 AND r.bake IN (SELECT number FROM bake WHERE name = ?1)"

static int64_t now_seconds(void)
{
    return g_get_real_time() / G_USEC_PER_SEC;
}

static char *link_key(const char *repository, const char *digest)
{
    return g_strdup_printf(SERVE_LINK_PREFIX "%s@%s", repository, digest);
}

/* --- links ------------------------------------------------------------------------------ */

static char *link_text(const ServeLink *link)
{
    g_autoptr(json_t) object = json_pack("{s:I}", "size", (json_int_t)link->size);

    json_set_digest(object, "blob", &link->blob);
    json_set_digest(object, "recipe", &link->recipe);
    json_set_digest(object, "map", &link->map);
    return json_canonical(object);
}

static void read_digest(const json_t *object, const char *key, Digest *ret)
{
    const char *text = json_string_value(json_object_get(object, key));

    if (!text || !digest_parse(text, ret))
        *ret = digest_none;
}

static bool link_parse(const char *text, ServeLink *ret)
{
    g_autoptr(json_t) object = NULL;

    if (!text || !json_parse(text, strlen(text), LINK_TEXT_MAX, "a link", &object, NULL))
        return false;
    *ret = (ServeLink){.size = (uint64_t)json_integer_value(json_object_get(object, "size"))};
    read_digest(object, "blob", &ret->blob);
    read_digest(object, "recipe", &ret->recipe);
    read_digest(object, "map", &ret->map);
    return !digest_is_none(&ret->blob);
}

static bool find_memo(Database *db, const char *repository, const char *digest, ServeLink *ret, bool *ret_found, GError **error)
{
    g_autofree char *key = link_key(repository, digest);
    g_autoptr(Query) query = database_query(db, error, "SELECT value FROM memo WHERE key = ?1", "t", key);
    int rc = query ? query_step(query, error) : -1;

    *ret_found = rc > 0 && link_parse(query_text(query, 0), ret);
    return rc >= 0;
}

/* What a row of role "pushed" or "pushed-recipe" says. */
static bool link_of_row(Store *store, bool is_recipe, const Digest *digest, ServeLink *ret, GError **error)
{
    LayerResult info;

    *ret = (ServeLink){.blob = *digest};
    if (!is_recipe)
        return store_blob_size(store, digest, &ret->size, error);
    if (!layer_recipe_info(store, digest, &info, error) || !layer_recipe_map(store, digest, &ret->map, error))
        return false;
    ret->blob = info.blob;
    ret->recipe = *digest;
    ret->size = info.size;
    return true;
}

/* The first row of @query, which selects (is it a recipe?, digest); NULL: there was an error already. */
static bool link_of_query(Store *store, Query *query, ServeLink *ret, bool *ret_found, GError **error)
{
    int rc = query ? query_step(query, error) : -1;
    Digest digest;

    *ret_found = rc > 0;
    if (rc <= 0)
        return rc == 0;
    query_digest(query, 1, &digest);
    return link_of_row(store, query_int(query, 0) != 0, &digest, ret, error);
}

static bool find_reference(Store *store, Database *db, const char *repository, const char *digest, ServeLink *ret, bool *ret_found, GError **error)
{
    g_autoptr(Query) query = database_query(db, error,
                                            "SELECT r.role = 'pushed-recipe', r.digest FROM reference r WHERE " IN_REPOSITORY
                                            " AND r.role IN ('pushed', 'pushed-recipe') AND r.name = ?2 LIMIT 1",
                                            "tt", repository, digest);

    return link_of_query(store, query, ret, ret_found, error);
}

bool serve_link_find(Store *store, const char *repository, const char *digest, ServeLink *ret, bool *ret_found, GError **error)
{
    Database *db;

    return store_catalog(store, &db, error) && find_memo(db, repository, digest, ret, ret_found, error) &&
           (*ret_found || find_reference(store, db, repository, digest, ret, ret_found, error));
}

static bool find_any_memo(Database *db, const char *digest, ServeLink *ret, bool *ret_found, GError **error)
{
    g_autofree char *tail = g_strconcat("@", digest, NULL);
    g_autoptr(Query) query = database_query(db, error, "SELECT value FROM memo WHERE key >= ?1 AND key < ?2 AND substr(key, -length(?3)) = ?3 LIMIT 1",
                                            "ttt", SERVE_LINK_PREFIX, SERVE_LINK_END, tail);
    int rc = query ? query_step(query, error) : -1;

    *ret_found = rc > 0 && link_parse(query_text(query, 0), ret);
    return rc >= 0;
}

bool serve_link_find_anywhere(Store *store, const char *digest, ServeLink *ret, bool *ret_found, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;

    *ret_found = false;
    if (!store_catalog(store, &db, error) || !find_any_memo(db, digest, ret, ret_found, error))
        return false;
    if (*ret_found)
        return true;
    query = database_query(db, error,
                           "SELECT role = 'pushed-recipe', digest FROM reference WHERE image = 0 AND role IN ('pushed', 'pushed-recipe')"
                           " AND name = ?1 LIMIT 1", "t", digest);
    return link_of_query(store, query, ret, ret_found, error);
}

bool serve_link_put(Database *catalog, const char *repository, const char *digest, const ServeLink *link, GError **error)
{
    g_autofree char *key = link_key(repository, digest), *text = link_text(link);

    return database_run(catalog, error, "INSERT OR REPLACE INTO memo VALUES (?1,?2,?3,?4,?5)", "ttddi", key, text,
                        digest_is_none(&link->recipe) ? &link->blob : &link->recipe, &link->map, now_seconds());
}

bool serve_link_remove(Store *store, const char *repository, const char *digest, bool *ret_found, GError **error)
{
    g_autofree char *key = link_key(repository, digest);
    Database *db;

    if (!store_writable(store, error) || !store_catalog(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!database_run(db, error, "DELETE FROM memo WHERE key = ?1", "t", key)) {
        database_rollback(db);
        return false;
    }
    *ret_found = database_changes(db) > 0;
    return database_commit(db, error);
}

bool serve_link_is_needed(Store *store, const char *repository, const char *digest, bool *ret, GError **error)
{
    Database *db;
    int64_t count;

    if (!store_catalog(store, &db, error) ||
        !database_int(db, 0, &count, error,
                      "SELECT count(*) FROM reference r WHERE " IN_REPOSITORY " AND r.role IN ('pushed', 'pushed-recipe') AND r.name = ?2", "tt",
                      repository, digest))
        return false;
    *ret = count > 0;
    return true;
}

/* --- manifests ------------------------------------------------------------------------------ */

/* The set of the repository's manifest; 0: none. */
static bool find_set(Database *db, const char *repository, const char *digest, int64_t *ret, GError **error)
{
    return database_int(db, 0, ret, error,
                        "SELECT r.bake FROM reference r WHERE " IN_REPOSITORY " AND r.role = 'pushed-manifest' AND r.name = ?2 LIMIT 1", "tt",
                        repository, digest);
}

static bool refer(Database *db, int64_t set, const char *role, const char *name, const Digest *digest, GError **error)
{
    return digest_is_none(digest) || database_run(db, error, "INSERT OR IGNORE INTO reference VALUES (?1,0,?2,?3,?4)", "ittd", set, role, name, digest);
}

static bool refer_links(Database *db, int64_t set, const ServePush *push, GError **error)
{
    for (guint i = 0; i < push->links->len; i++) {
        const ServeNamedLink *named = &g_array_index(push->links, ServeNamedLink, i);
        const ServeLink *link = &named->link;
        bool plain = digest_is_none(&link->recipe);

        if (link->segment) /* of a disk: its map holds it */
            continue;
        if (!refer(db, set, plain ? "pushed" : "pushed-recipe", named->digest, plain ? &link->blob : &link->recipe, error) ||
            !refer(db, set, "pushed-map", named->digest, &link->map, error) ||
            (!plain && !catalog_add_recipe(db, &link->blob, &link->recipe, link->size, error)))
            return false;
    }
    return true;
}

/* Under the catalog's lock: gc has not taken it since it was looked for. */
static bool check_links(Store *store, Database *db, const ServePush *push, GError **error)
{
    for (guint i = 0; i < push->links->len; i++) {
        const ServeNamedLink *named = &g_array_index(push->links, ServeNamedLink, i);
        const ServeLink *link = &named->link;
        const Digest *file = digest_is_none(&link->recipe) ? &link->blob : &link->recipe;
        int64_t there;

        if (link->segment)
            continue;
        if (!database_int(db, 0, &there, error, "SELECT count(*) FROM blob WHERE digest = ?1", "d", file))
            return false;
        if (!there)
            return fail_code(error, KILN_ERROR_NOT_FOUND, "blob %s is gone from store '%s'", named->digest, store_path(store));
        if (!database_run(db, error, "UPDATE blob SET dead = 0 WHERE digest IN (?1, ?2)", "dd", file, &link->map))
            return false;
    }
    return true;
}

static bool write_set(Store *store, Database *db, const ServePush *push, GError **error)
{
    char oci[DIGEST_OCI_SIZE];
    int64_t set;

    digest_to_oci(&push->manifest, oci);
    if (!check_links(store, db, push, error) || !find_set(db, push->repository, oci, &set, error))
        return false;
    if (!set) {
        if (!database_run(db, error, "INSERT INTO bake (name, created) VALUES (?1,?2)", "ti", push->repository, now_seconds()))
            return false;
        set = database_last_id(db);
    }
    return refer(db, set, "pushed-manifest", oci, &push->manifest, error) &&
           (!push->wide || refer(db, set, "pushed-manifest", push->wide, &push->manifest, error)) &&
           (!push->subject || refer(db, set, "pushed-subject", push->subject, &push->manifest, error)) && refer_links(db, set, push, error);
}

static bool put_set(Store *store, const ServePush *push, GError **error)
{
    Database *db;

    if (!store_catalog(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!write_set(store, db, push, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

static bool write_tags(Database *catalog, Database *state, const ServePush *push, GError **error)
{
    for (const char *const *tag = push->tags; *tag; tag++)
        if (!database_run(state, error, "INSERT OR REPLACE INTO repository_tag VALUES (?1,?2,?3,?4,?5,?6)", "ttddit", push->repository, *tag,
                          &push->manifest, &push->image, g_get_real_time(), push->wide))
            return false;
    return published_follow(catalog, state, error);
}

static bool put_tags(Store *store, const ServePush *push, GError **error)
{
    Database *catalog, *state;

    if (!store_catalog(store, &catalog, error) || !store_state_db(store, &state, error) || !database_begin(state, true, error))
        return false;
    if (!write_tags(catalog, state, push, error)) {
        database_rollback(state);
        return false;
    }
    return database_commit(state, error) && store_ledger_follow(store);
}

bool serve_manifest_put(Store *store, const ServePush *push, GError **error)
{
    Database *state;

    /* The first look at state.db brings the ledger up to date: now, and not between the set and its tags. */
    return store_writable(store, error) && store_state_db(store, &state, error) && put_set(store, push, error) && put_tags(store, push, error);
}

bool serve_manifest_find(Store *store, const char *repository, const ServeDigest *digest, Digest *ret_manifest, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    *ret_manifest = digest_none;
    if (!store_catalog(store, &db, error) ||
        !(query = database_query(db, error,
                                 "SELECT r.digest FROM reference r WHERE " IN_REPOSITORY " AND r.role = 'pushed-manifest' AND r.name = ?2 LIMIT 1",
                                 "tt", repository, digest->text)))
        return false;
    rc = query_step(query, error);
    if (rc > 0)
        query_digest(query, 0, ret_manifest);
    return rc >= 0;
}

static bool keep_links(Store *store, Database *db, const char *repository, int64_t set, GError **error)
{
    g_autoptr(Query) query = database_query(db, error,
                                            "SELECT role = 'pushed-recipe', name, digest FROM reference WHERE bake = ?1 AND image = 0"
                                            " AND role IN ('pushed', 'pushed-recipe')", "i", set);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        g_autofree char *name = g_strdup(query_text(query, 1));
        bool is_recipe = query_int(query, 0) != 0;
        ServeLink link;
        Digest digest;

        query_digest(query, 2, &digest);
        if (link_of_row(store, is_recipe, &digest, &link, NULL) && !serve_link_put(db, repository, name, &link, error))
            return false;
    }
    return rc >= 0;
}

static bool delete_set(Database *db, int64_t set, GError **error)
{
    return database_run(db, error, "DELETE FROM reference WHERE bake = ?1", "i", set) &&
           database_run(db, error, "DELETE FROM bake WHERE number = ?1", "i", set);
}

static bool remove_tags_of(Database *catalog, Database *state, const char *repository, const Digest *manifest, GError **error)
{
    return database_run(state, error, "DELETE FROM repository_tag WHERE repository = ?1 AND manifest = ?2", "td", repository, manifest) &&
           published_follow(catalog, state, error);
}

/* State's lock first, as everywhere; the tags go first, so that none ever points at nothing. */
static bool remove_manifest(Store *store, const char *repository, const ServeDigest *digest, const Digest *manifest, bool *ret_found, GError **error)
{
    Database *catalog, *state;
    int64_t set = 0;

    if (!store_catalog(store, &catalog, error) || !store_state_db(store, &state, error) || !database_begin(state, true, error))
        return false;
    if (!database_begin(catalog, true, error)) {
        database_rollback(state);
        return false;
    }
    if (!find_set(catalog, repository, digest->text, &set, error) || (set && (!keep_links(store, catalog, repository, set, error) || !delete_set(catalog, set, error))) ||
        !remove_tags_of(catalog, state, repository, manifest, error)) {
        database_rollback(catalog);
        database_rollback(state);
        return false;
    }
    *ret_found = set != 0;
    if (!database_commit(state, error)) {
        database_rollback(catalog);
        return false;
    }
    return database_commit(catalog, error) && store_ledger_follow(store);
}

bool serve_manifest_remove(Store *store, const char *repository, const ServeDigest *digest, bool *ret_found, GError **error)
{
    Digest manifest;

    *ret_found = false;
    return store_writable(store, error) && serve_manifest_find(store, repository, digest, &manifest, error) &&
           (digest_is_none(&manifest) || remove_manifest(store, repository, digest, &manifest, ret_found, error));
}

bool serve_manifest_forget(Database *catalog, const char *repository, const Digest *manifest, GError **error)
{
    int64_t set;

    for (;;) {
        if (!database_int(catalog, 0, &set, error,
                          "SELECT r.bake FROM reference r WHERE " IN_REPOSITORY " AND r.role = 'pushed-manifest' AND r.digest = ?2 LIMIT 1", "td",
                          repository, manifest))
            return false;
        if (!set)
            return true;
        if (!delete_set(catalog, set, error))
            return false;
    }
}

/* --- tags and lists ---------------------------------------------------------------------------- */

bool serve_tag_find(Store *store, const char *repository, const char *tag, ServeTag *ret, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    *ret = (ServeTag){.manifest = digest_none};
    if (!store_state_db(store, &db, error) ||
        !(query = database_query(db, error, "SELECT manifest, at, wide FROM repository_tag WHERE repository = ?1 AND tag = ?2", "tt", repository, tag)))
        return false;
    rc = query_step(query, error);
    if (rc > 0) {
        query_digest(query, 0, &ret->manifest);
        ret->at = query_int(query, 1);
        (void)g_strlcpy(ret->wide, query_text(query, 2) ? query_text(query, 2) : "", sizeof ret->wide);
    }
    return rc >= 0;
}

bool serve_tag_remove(Store *store, const char *repository, const char *tag, bool *ret_found, GError **error)
{
    Database *db;

    if (!store_writable(store, error) || !store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!database_run(db, error, "DELETE FROM repository_tag WHERE repository = ?1 AND tag = ?2", "tt", repository, tag)) {
        database_rollback(db);
        return false;
    }
    *ret_found = database_changes(db) > 0;
    return database_commit(db, error) && store_ledger_follow(store);
}

static bool list_texts(Query *query, GHashTable *to, GError **error)
{
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0)
        if (query_text(query, 0))
            g_hash_table_add(to, g_strdup(query_text(query, 0)));
    return rc >= 0;
}

bool serve_tags_list(Store *store, const char *repository, GHashTable *to, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;

    if (!store_state_db(store, &db, error))
        return false;
    query = database_query(db, error, "SELECT tag FROM repository_tag WHERE repository = ?1", "t", repository);
    return list_texts(query, to, error);
}

bool serve_repositories_list(Store *store, GHashTable *to, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;

    if (!store_catalog(store, &db, error))
        return false;
    query = database_query(db, error,
                           "SELECT DISTINCT name FROM bake WHERE number IN (SELECT bake FROM reference WHERE image = 0 AND role = 'pushed-manifest')", "");
    return list_texts(query, to, error);
}

bool serve_repository_exists(Store *store, const char *repository, bool *ret, GError **error)
{
    g_autofree char *from = link_key(repository, ""), *end = memo_prefix_end(from);
    int64_t sets, links;
    Database *db;

    if (!store_catalog(store, &db, error) ||
        !database_int(db, 0, &sets, error, "SELECT count(*) FROM reference r WHERE " IN_REPOSITORY " AND r.role = 'pushed-manifest'", "t",
                      repository) ||
        !database_int(db, 0, &links, error, "SELECT count(*) FROM memo WHERE key >= ?1 AND key < ?2", "tt", from, end))
        return false;
    *ret = sets + links > 0;
    return true;
}

bool serve_referrers(Store *store, const char *repository, const char *subject, const char *after, unsigned limit, GArray **ret, GError **error)
{
    g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(Query) query = NULL;
    Digest from = digest_none, one;
    Database *db;
    int rc;

    if (after && !digest_parse(after, &from))
        from = digest_none;
    if (!store_catalog(store, &db, error) ||
        !(query = database_query(db, error,
                                 "SELECT DISTINCT r.digest FROM reference r WHERE " IN_REPOSITORY " AND r.role = 'pushed-subject' AND r.name = ?2"
                                 " AND (?3 IS NULL OR r.digest > ?3) ORDER BY r.digest LIMIT ?4",
                                 "ttdi", repository, subject, &from, (int64_t)limit)))
        return false;
    while ((rc = query_step(query, error)) > 0) {
        query_digest(query, 0, &one);
        g_array_append_val(list, one);
    }
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&list);
    return true;
}
