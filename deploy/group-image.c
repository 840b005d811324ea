/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images that would lose data in a group: instances are thrown away, and with them whatever they wrote.
 *
 * Two signs are looked for. A container image declares a VOLUME in its config. And a root file system holds the folder of a database:
 * packages make these folders when they are installed, so that a disk with a database's server is seen before it has written a byte.
 */
#include "deploy/group-private.h"

#include "base/error.h"

#include <string.h>

enum { CONFIG_MAX = 4 * 1024 * 1024 };

static const char *const database_folders[] = {
    "var/lib/mysql",    "var/lib/mariadb",       "var/lib/postgresql", "var/lib/pgsql",     "var/lib/mongodb",  "var/lib/mongo",      "var/lib/redis",
    "var/lib/valkey",   "var/lib/cassandra",     "var/lib/couchdb",    "var/lib/influxdb",  "var/lib/clickhouse", "var/lib/elasticsearch", "var/lib/opensearch",
    "var/lib/etcd",     "var/lib/rabbitmq",      "var/lib/neo4j",      "var/lib/ldap",      "var/lib/prometheus", "var/lib/zookeeper", "var/lib/cockroach",
    "var/lib/firebird", "var/lib/arangodb3",     "var/lib/rethinkdb",  "var/lib/kafka",     "var/lib/minio",
};

/* The first VOLUME of the config, or NULL. */
static bool declared_volume(Store *store, const StoreImage *image, char **ret, GError **error)
{
    g_autoptr(json_t) config = NULL;
    const char *key;
    json_t *volumes, *value;

    if (!store_image_config(store, &image->id, CONFIG_MAX, NULL, &config, error))
        return false;
    volumes = json_object_get(json_object_get(config, "config"), "Volumes");
    json_object_foreach (volumes, key, value) {
        *ret = g_strndup(key, 200);
        break;
    }
    return true;
}

static bool database_folder(Store *store, const StoreImage *image, const char **ret, GError **error)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;

    if (digest_is_none(&image->tree.tree))
        return true; /* its root could not be read when it was baked */
    if (!tree_load(store, &image->tree, &tree, &files, error))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(database_folders) && !*ret; i++) {
        const TreeEntry *entry = tree_find(tree, database_folders[i]);

        if (entry && (entry->type == 'd' || entry->type == 'l'))
            *ret = database_folders[i];
    }
    return true;
}

bool group_check_image(Store *store, const GroupSpec *spec, const StoreImage *image, GError **error)
{
    static const char *const advice = "is lost with each instance: give the group a block volume, or write ephemeral = true where nothing needs to stay";
    g_autofree char *volume = NULL, *shown = NULL;
    const char *folder = NULL;

    if (spec->ephemeral || spec->shape.volumes->len > 0)
        return true;
    if (!declared_volume(store, image, &volume, error))
        return fail_prefix(error, "group '%s'", spec->name);
    if (volume) {
        shown = g_strescape(volume, NULL);
        return fail(error, "the image of group '%s' declares the volume %s, and what is written there %s", spec->name, shown, advice);
    }
    if (!database_folder(store, image, &folder, error))
        return fail_prefix(error, "group '%s'", spec->name);
    return !folder || fail(error, "the image of group '%s' holds a database in /%s, and what is written there %s", spec->name, folder, advice);
}
