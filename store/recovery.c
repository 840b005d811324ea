/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery: what killed processes left behind.
 *
 * Folders of dead processes in tmp/ are removed. If there was one, its process may have been killed between giving a
 * segment or blob its final name and the catalog's commit; such a file is whole (it was synced before), so it
 * is catalogued, and gc takes it away when nothing comes to refer to it. A file whose bytes are not what its name says is removed.
 */
#include "store/recovery.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/io.h"
#include "store/map-private.h"
#include "store/store-private.h"

#include <dirent.h>
#include <fcntl.h>

bool store_each_file(Store *store, int topfd, StoreFileFn *fn, void *arg, GError **error)
{
    for (int i = 0; i < 256; i++) {
        g_autofree char *fan = g_strdup_printf("%02x", i);
        auto_fd int fd = io_open(topfd, fan, O_RDONLY | O_DIRECTORY, 0);
        auto_dir DIR *dir = NULL;
        const struct dirent *entry;

        if (fd < 0 && errno == ENOENT)
            continue;
        dir = fd < 0 ? NULL : fdopendir(dup(fd));
        if (!dir)
            return store_fail_errno(store, error, "read a folder of");
        while ((entry = readdir(dir)))
            if (entry->d_name[0] != '.' && !fn(store, fd, fan, entry->d_name, arg, error))
                return false;
    }
    return true;
}

bool store_parse_file_name(const char *fan, const char *name, Digest *ret, bool *ret_packed)
{
    g_autofree char *hex = g_strndup(name, 64);

    *ret_packed = !g_strcmp0(name + strlen(hex), ".zst");
    return strlen(hex) == 64 && (name[64] == '\0' || *ret_packed) && g_str_has_prefix(hex, fan) && digest_parse(hex, ret);
}

static bool is_known(Database *db, const char *table, const Digest *digest, bool *ret, GError **error)
{
    g_autofree char *sql = g_strdup_printf("SELECT 1 FROM %s WHERE digest = ?1", table);
    int64_t found;

    if (!database_int(db, 0, &found, error, sql, "d", digest))
        return false;
    *ret = found != 0;
    return true;
}

static bool discard(Store *store, int dirfd, const char *name, GError **error)
{
    trace("store.recovery", "removing '%s'", name);
    return io_unlink(dirfd, name, 0) == 0 || store_fail_errno(store, error, "remove half a file from");
}

static bool adopt_segment(Store *store, int dirfd, const char *fan, const char *name, void *arg, GError **error)
{
    Database *db = arg;
    Digest digest, have;
    Segment *segment;
    bool packed, known = false;

    if (!store_parse_file_name(fan, name, &digest, &packed) || packed)
        return discard(store, dirfd, name, error);
    if (!is_known(db, "segment", &digest, &known, error) || known)
        return known;
    if (!digest_of_file(dirfd, name, &have, NULL, NULL) || !digest_equal(&digest, &have) || !segment_get(store, &digest, &segment, NULL))
        return discard(store, dirfd, name, error);
    trace("store.recovery", "adopting segment '%s'", name);
    return catalog_add_segment(db, segment, g_get_real_time(), error);
}

bool store_catalog_map(Store *store, Database *db, const Digest *digest, GError **error)
{
    g_autoptr(StoreMap) map = NULL;
    const MapBody *body;
    uint64_t blocks = 0;

    if (!store_map_open(store, digest, &map, NULL))
        return true; /* a blob that is no map */
    body = store_map_body(map);
    for (guint i = 0; i < body->runs->len; i++)
        blocks += g_array_index(body->runs, MapRun, i).count;
    return catalog_add_map(db, digest, body->class, body->size, blocks * STORE_BLOCK_SIZE, (const Digest *)body->segments->data,
                           body->segments->len, error);
}

static bool adopt_blob(Store *store, int dirfd, const char *fan, const char *name, void *arg, GError **error)
{
    Database *db = arg;
    uint64_t size, stored;
    Digest digest;
    bool packed, known = false;

    if (!store_parse_file_name(fan, name, &digest, &packed))
        return discard(store, dirfd, name, error);
    if (!is_known(db, "blob", &digest, &known, error) || known)
        return known;
    if (!blob_file_verify(store, &digest, &size, &stored, NULL))
        return discard(store, dirfd, name, error);
    trace("store.recovery", "adopting blob '%s'", name);
    return catalog_add_blob(db, &digest, size, stored, g_get_real_time(), error) && store_catalog_map(store, db, &digest, error);
}

bool store_adopt(Store *store, GError **error)
{
    Database *db;

    /* Inside a transaction: whoever is about to name a file holds this lock, so what we see without a row is nobody's. */
    if (!store_catalog(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!store_each_file(store, store->segments_fd, adopt_segment, db, error) ||
        !store_each_file(store, store->blobs_fd, adopt_blob, db, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

/* --- all files --- */

typedef struct Cataloguing {
    Database *db;
    GPtrArray *notes;
} Cataloguing;

/* A damaged segment is read as far as it goes: most of its frames may be whole. */
static bool catalog_segment_file(Store *store, int dirfd, const char *fan, const char *name, void *arg, GError **error)
{
    Cataloguing *c = arg;
    g_autoptr(GError) why = NULL;
    Segment *segment;
    Digest digest, have;
    bool packed;

    if (!store_parse_file_name(fan, name, &digest, &packed) || packed)
        return true;
    if (!segment_get(store, &digest, &segment, &why)) {
        g_ptr_array_add(c->notes, g_strdup(why->message));
        return true;
    }
    if (!digest_of_file(dirfd, name, &have, NULL, &why) || !digest_equal(&digest, &have))
        g_ptr_array_add(c->notes, g_strdup_printf("segment %s is damaged: run kiln fsck --read-data", name));
    return catalog_add_segment(c->db, segment, g_get_real_time(), error);
}

static bool catalog_blob_file(Store *store, int dirfd, const char *fan, const char *name, void *arg, GError **error)
{
    Cataloguing *c = arg;
    g_autoptr(GError) why = NULL;
    uint64_t size, stored;
    Digest digest;
    bool packed;

    if (!store_parse_file_name(fan, name, &digest, &packed))
        return true;
    if (!blob_file_verify(store, &digest, &size, &stored, &why)) {
        g_ptr_array_add(c->notes, g_strdup(why->message));
        return true;
    }
    return catalog_add_blob(c->db, &digest, size, stored, g_get_real_time(), error) && store_catalog_map(store, c->db, &digest, error);
}

bool store_catalog_files(Store *store, Database *db, GPtrArray *notes, GError **error)
{
    Cataloguing c = {.db = db, .notes = notes};

    return store_each_file(store, store->segments_fd, catalog_segment_file, &c, error) &&
           store_each_file(store, store->blobs_fd, catalog_blob_file, &c, error);
}

bool store_recover(Store *store, GError **error)
{
    bool found = false;

    if (!store_clear_dead_owners(store, &found, error))
        return false;
    return !found || store_adopt(store, error) || fail_prefix(error, "recovery");
}
