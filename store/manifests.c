/* SPDX-License-Identifier: Apache-2.0 */
#include "store/manifests.h"

#include "base/error.h"
#include "store/catalog.h"
#include "store/ledger.h"
#include "store/store-private.h"

void store_manifest_free(StoreManifest *manifest)
{
    if (!manifest)
        return;
    g_free(manifest->place);
    g_free(manifest);
}

static bool add_row(Database *db, int64_t bake, int64_t image, const char *role, const char *place, const Digest *digest, GError **error)
{
    return database_run(db, error, "INSERT OR IGNORE INTO reference VALUES (?1,?2,?3,?4,?5)", "iittd", bake, image, role, place, digest);
}

static bool add_rows(Database *db, const StoreImage *image, const char *place, const Digest *manifest, const GArray *kept, GError **error)
{
    int64_t number;

    if (!database_int(db, 0, &number, error, "SELECT number FROM image WHERE bake = ?1 AND id = ?2", "id", image->set, &image->id))
        return false;
    if (!number)
        return fail(error, "image '%s' has gone meanwhile", image->name);
    if (!add_row(db, image->set, number, "manifest", place, manifest, error))
        return false;
    for (guint i = 0; kept && i < kept->len; i++)
        if (!add_row(db, image->set, number, "transport", place, &g_array_index(kept, Digest, i), error))
            return false;
    return true;
}

bool store_image_add_manifest(Store *store, const StoreImage *image, const char *place, const Digest *manifest, const GArray *kept, GError **error)
{
    Database *db, *state;

    if (!store_writable(store, error) || !store_catalog(store, &db, error) || !store_state_db(store, &state, error) || !database_begin(db, true, error))
        return false;
    if (!add_rows(db, image, place, manifest, kept, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error) && store_ledger_follow(store);
}

bool store_manifests(Store *store, const Digest *image, const char *kind, const char *place, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)store_manifest_free);
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    if (!store_catalog(store, &db, error))
        return false;
    query = database_query(db, error,
                           "SELECT DISTINCT r.name, r.digest, i.id FROM reference r JOIN image i ON i.number = r.image WHERE r.role = 'manifest' AND r.name != ''"
                           " AND (?1 IS NULL OR i.id = ?1) AND (?2 IS NULL OR i.kind = ?2) AND (?3 IS NULL OR r.name = ?3) ORDER BY i.number DESC", "dtt",
                           image ? image : &digest_none, kind, place);
    rc = query ? 0 : -1;
    while (query && (rc = query_step(query, error)) > 0) {
        StoreManifest *manifest = g_new0(StoreManifest, 1);

        manifest->place = g_strdup(query_text(query, 0));
        query_digest(query, 1, &manifest->digest);
        query_digest(query, 2, &manifest->image);
        g_ptr_array_add(list, manifest);
    }
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&list);
    return true;
}
