/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A package is a row once, however many images have it; an image is a row of numbers for each of its packages.
 */
#include "store/package-index.h"

#include "base/error.h"
#include "store/image-private.h"

#include <string.h>

static bool package_number(Database *db, const json_t *package, int64_t *ret, GError **error)
{
    const char *type = json_string_value(json_object_get(package, "type")), *name = json_string_value(json_object_get(package, "name"));
    const char *version = json_string_value(json_object_get(package, "version"));
    const char *architecture = json_string_value(json_object_get(package, "architecture"));

    *ret = 0;
    if (!type || !name || !version)
        return true;
    architecture = architecture ? architecture : "";
    return database_run(db, error, "INSERT OR IGNORE INTO package (name, type, version, architecture) VALUES (?1,?2,?3,?4)", "tttt", name, type,
                        version, architecture) &&
           database_int(db, 0, ret, error, "SELECT number FROM package WHERE name = ?1 AND type = ?2 AND version = ?3 AND architecture = ?4", "tttt",
                        name, type, version, architecture);
}

bool package_index_put(Database *db, int64_t image, const json_t *list, GError **error)
{
    json_t *package;
    size_t i;

    json_array_foreach (list, i, package) {
        int64_t number;

        if (!package_number(db, package, &number, error) ||
            (number && !database_run(db, error, "INSERT OR IGNORE INTO image_package (package, image) VALUES (?1,?2)", "ii", number, image)))
            return false;
    }
    return database_run(db, error, "UPDATE image SET indexed = 1 WHERE number = ?1", "i", image);
}

bool store_index_packages(Store *store, const StoreImage *image, const json_t *list, GError **error)
{
    Database *db;
    int64_t number;

    if (!store_catalog(store, &db, error) || !database_begin(db, false, error))
        return false;
    if (!database_int(db, 0, &number, error, "SELECT number FROM image WHERE bake = ?1 AND kind = ?2", "it", image->set, image->kind) ||
        (number && !package_index_put(db, number, list, error))) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

bool store_unindexed_images(Store *store, GPtrArray **ret, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;

    if (!store_catalog(store, &db, error))
        return false;
    query = database_query(db, error, "SELECT " IMAGE_COLUMNS " FROM image WHERE indexed = 0", "");
    return images_from_query(db, query, ret, error);
}

/* An image ID published twice under one name counts once, as its newest set. */
static const char find_sql[] =
    "SELECT p.type, p.name, p.version, p.architecture, i.name, i.kind, i.id, max(i.created), min(i.bytes_gone != 0),"
    " max(i.number) = (SELECT max(n.number) FROM image n WHERE n.name = i.name AND n.kind = i.kind)"
    " FROM package p JOIN image_package ip ON ip.package = p.number JOIN image i ON i.number = ip.image"
    " WHERE p.name = ?1 GROUP BY p.number, i.name, i.kind, i.id ORDER BY max(i.number) DESC, i.kind, p.version";

bool store_find_package(Store *store, const char *package, PackageHitFn *fn, void *arg, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    if (!store_catalog(store, &db, error))
        return false;
    query = database_query(db, error, find_sql, "t", package);
    if (!query)
        return false;
    while ((rc = query_step(query, error)) > 0) {
        PackageHit hit = {.type = query_text(query, 0), .package = query_text(query, 1), .version = query_text(query, 2),
                          .architecture = query_text(query, 3), .name = query_text(query, 4), .kind = query_text(query, 5),
                          .created = query_int(query, 7), .bytes_gone = query_int(query, 8) != 0, .newest = query_int(query, 9) != 0};

        query_digest(query, 6, &hit.image);
        if (!fn(&hit, arg))
            return true;
    }
    return rc == 0;
}
