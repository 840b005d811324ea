/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery: what killed processes left behind.
 *
 * Folders of dead processes in tmp/ are removed. If there was one, its process may have been killed between giving a
 * segment or blob its final name and the catalog's commit; such a file is whole (it was synced before), so it
 * is catalogued, and gc takes it away when nothing comes to refer to it. Its name may not be synced, so that is done before: what has a
 * row is deduplicated against, and published sets must not lean on a name that a power cut takes away. A file whose bytes are not what its name says is removed; one that cannot
 * be read now, or not by this kiln, stays where it is.
 */
#include "store/recovery.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/io.h"
#include "store/repack.h"
#include "store/segment-moved.h"
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

static bool leave_alone(const char *name)
{
    trace("store.recovery", "leaving '%s' alone", name);
    return true;
}

/* @topfd too: the folder itself may be as new. */
static bool sync_name(Store *store, int topfd, int dirfd, GError **error)
{
    return (io_fsync(dirfd) == 0 && io_fsync(topfd) == 0) || store_fail_errno(store, error, "sync");
}

/* Rows say where a table points as long as there is one; more than it says does no harm until gc writes them anew. */
static bool adopt_moved(Store *store, Database *db, const char *fan, const char *name, GError **error)
{
    g_autofree char *hex = g_strndup(name, 64);
    g_autoptr(SegmentMoved) moved = NULL;
    Digest digest;

    if (!digest_parse(hex, &digest) || !g_str_has_prefix(hex, fan) || !segment_moved_load(store, &digest, &moved, NULL) || !moved)
        return true; /* fsck tells of maps that need it */
    return catalog_add_moved(db, &digest, moved->body->segments, error);
}

static bool is_table(const char *name)
{
    return strlen(name) > 64 && strcmp(name + 64, MOVED_SUFFIX) == 0;
}

static bool adopt_segment(Store *store, int dirfd, const char *fan, const char *name, void *arg, GError **error)
{
    Database *db = arg;
    Digest digest, have;
    Segment *segment;
    bool packed, known = false;

    if (is_table(name))
        return adopt_moved(store, db, fan, name, error);
    if (!store_parse_file_name(fan, name, &digest, &packed) || packed)
        return discard(store, dirfd, name, error);
    if (!is_known(db, "segment", &digest, &known, error) || known)
        return known;
    segment_forget(store, &digest); /* it may have been the name of a repacked one */
    if (!digest_of_file(dirfd, name, &have, NULL, NULL))
        return leave_alone(name);
    if (!digest_equal(&digest, &have))
        return discard(store, dirfd, name, error);
    if (!segment_get(store, &digest, &segment, NULL))
        return leave_alone(name); /* whole, so it is not half a file but a later kiln's */
    trace("store.recovery", "adopting segment '%s'", name);
    return sync_name(store, store->segments_fd, dirfd, error) && catalog_add_segment(db, segment, g_get_real_time(), error);
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

/* Only tables are looked into: what a file has is fsck's to say. */
static bool run_is_there(Segment *segment, const MapRun *run)
{
    for (uint32_t i = 0; segment_is_moved(segment) && i < run->count; i++)
        if (!segment_holds(segment, run->position + i))
            return false;
    return true;
}

bool store_has_blocks(Store *store, const MapBody *body)
{
    for (guint i = 0; i < body->segments->len; i++)
        segment_forget(store, &g_array_index(body->segments, Digest, i)); /* what counts is what is there now */
    for (guint i = 0; i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        g_autoptr(GError) why = NULL;
        Segment *segment;

        if (!segment_get(store, &g_array_index(body->segments, Digest, run->segment), &segment, &why)) {
            if (why->code == KILN_ERROR_NOT_FOUND)
                return false;
        } else if (!run_is_there(segment, run)) {
            return false;
        }
    }
    return true;
}

/*
 * gc takes a map and its segments away together, but a power cut may bring back the map's file alone, or with a table that was written
 * when nobody needed the map any more. Such a map is of no use to anybody, so it is catalogued as dead: fsck does not miss its segments, and
 * the next gc removes it. Segments and tables were adopted before.
 */
static bool bury_broken_map(Store *store, Database *db, const Digest *digest, GError **error)
{
    g_autoptr(StoreMap) map = NULL;
    int64_t doubtful;

    /* A row does not mean a file: a repacking that was killed took the file away first. */
    if (!database_int(db, 0, &doubtful, error,
                      "SELECT count(*) FROM map_segment WHERE map = ?1 AND (segment NOT IN (SELECT digest FROM segment)"
                      " OR segment IN (SELECT segment FROM moved))", "d", digest))
        return false;
    if (!doubtful || !store_map_open(store, digest, &map, NULL) || store_has_blocks(store, store_map_body(map)))
        return true;
    return database_run(db, error, "UPDATE blob SET dead = (SELECT value FROM meta WHERE key = 'generation') WHERE digest = ?1", "d", digest);
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
        return digest_of_file(dirfd, name, &digest, NULL, NULL) ? discard(store, dirfd, name, error) : leave_alone(name);
    trace("store.recovery", "adopting blob '%s'", name);
    return sync_name(store, store->blobs_fd, dirfd, error) &&
           catalog_add_blob(db, &digest, size, stored, g_get_real_time(), error) && store_catalog_map(store, db, &digest, error) &&
           bury_broken_map(store, db, &digest, error);
}

bool store_adopt(Store *store, GError **error)
{
    Database *db;

    /* Inside a transaction: whoever is about to name a file holds this lock, so what we see without a row is nobody's. */
    if (!store_catalog(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!store_each_file(store, store->segments_fd, adopt_segment, db, error) || !repack_forget_gone(store, db, error) ||
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

    if (is_table(name))
        return adopt_moved(store, c->db, fan, name, error);
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
