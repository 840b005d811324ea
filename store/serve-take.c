/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that came, on their way in: a tar, or what our own encoder made of one, becomes a recipe and shares its blocks with all that the store has;
 * everything else is kept as it is. Which it is decides what the bytes look like, not what their sender calls them: at this point nobody has
 * said yet. Nothing counts before the one catalog transaction that names the file, or the recipe that has made the bytes again, and links it.
 */
#include "store/serve-private.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/io.h"
#include "store/layer.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define AT_A_TIME 2               /* ingests and looks into layers: each takes its memory */
#define TAR_MAX (64ull << 30)     /* what a compressed layer may unpack to and still become a recipe */
#define HEAD_SIZE 512
#define GZIP_MIN 18 /* its head and its end */

static GMutex gate_lock;
static GCond gate_free;
static unsigned gate_taken;

void serve_gate_enter(void)
{
    AUTO_LOCK(&gate_lock);
    while (gate_taken >= AT_A_TIME)
        g_cond_wait(&gate_free, &gate_lock);
    gate_taken++;
}

void serve_gate_leave(void)
{
    AUTO_LOCK(&gate_lock);
    gate_taken--;
    g_cond_signal(&gate_free);
}

/* --- what is there already ---------------------------------------------------------------- */

/* In a transaction: *ret_done when the store has these bytes; they are young again then. */
static bool find_stored(Store *store, Database *db, const ServeTaken *taken, ServeLink *ret, bool *ret_done, GError **error)
{
    g_autoptr(Query) query = NULL;
    int rc;

    *ret = (ServeLink){.blob = taken->blob, .size = taken->size};
    *ret_done = false;
    if (blob_file_exists(store, &taken->blob))
        return blob_keep(store, db, &taken->blob, ret_done, error);
    query = database_query(db, error, "SELECT recipe FROM recipe WHERE layer = ?1", "d", &taken->blob);
    rc = query ? query_step(query, error) : -1;
    if (rc > 0)
        query_digest(query, 0, &ret->recipe);
    g_clear_pointer(&query, query_free);
    if (rc <= 0)
        return rc == 0;
    if (!blob_file_exists(store, &ret->recipe) || !layer_recipe_map(store, &ret->recipe, &ret->map, NULL))
        return true;
    if (!database_run(db, error, "UPDATE blob SET created = ?1, dead = 0 WHERE digest IN (?2, ?3)", "idd", g_get_real_time(), &ret->recipe, &ret->map))
        return false;
    *ret_done = true;
    return true;
}

static bool link_stored(Store *store, const ServeTaken *taken, const char *repository, const char *digest, bool *ret_done, GError **error)
{
    ServeLink link;
    Database *db;

    *ret_done = false;
    if (!store_catalog(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!find_stored(store, db, taken, &link, ret_done, error) || (*ret_done && !serve_link_put(db, repository, digest, &link, error))) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

/* --- as a recipe ---------------------------------------------------------------------------- */

static bool is_tar(const uint8_t head[HEAD_SIZE])
{
    return memcmp(head + 257, "ustar", 5) == 0;
}

/* *ret_fd: the plain tar that a recipe can be made of, or -1. */
static bool find_tar(Store *store, const ServeTaken *taken, LayerBytes *bytes, int *ret_fd, GError **error)
{
    uint8_t head[HEAD_SIZE] = {0};

    *bytes = (LayerBytes){.blob = taken->blob, .size = taken->size};
    if (taken->size < GZIP_MIN)
        return true;
    if (pread(taken->fd, head, sizeof head, 0) < 0)
        return fail_errno(error, "read an upload's temporary file");
    if (is_tar(head)) {
        bytes->diff_id = taken->blob;
        bytes->tar_size = taken->size;
        *ret_fd = fcntl(taken->fd, F_DUPFD_CLOEXEC, 3);
        return *ret_fd >= 0 || fail_errno(error, "read an upload's temporary file");
    }
    bytes->gzip = layer_starts_as_ours(head);
    return !bytes->gzip || layer_unpack_ours(store, taken->fd, TAR_MAX, bytes, ret_fd, error);
}

/* The recipe has made the tar again when this returns true. */
static bool ingest(Store *store, int tar, const LayerBytes *bytes, LayerResult *ret, GError **error)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(LayerIngest) layer = NULL;

    return store_writer_open(store, BLOCK_PUBLIC, &writer, error) && layer_ingest_new(store, writer, tar, bytes, &layer, error) &&
           store_writer_commit(writer, error) && layer_ingest_result(layer, ret, error);
}

static bool link_recipe(Store *store, const LayerResult *result, const char *repository, const char *digest, GError **error)
{
    ServeLink link = {.blob = result->blob, .recipe = result->recipe, .size = result->size};
    Database *db;

    if (!layer_recipe_map(store, &result->recipe, &link.map, error) || !store_catalog(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!catalog_add_recipe(db, &result->blob, &result->recipe, result->size, error) || !serve_link_put(db, repository, digest, &link, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

/* *ret_done false: keep it as it is. What is no tar after all is nobody's failure. */
static bool take_as_recipe(Server *server, const ServeTaken *taken, const char *repository, const char *digest, bool *ret_done, GError **error)
{
    g_autoptr(GError) why = NULL;
    auto_fd int tar = -1;
    LayerBytes bytes;
    LayerResult result;
    bool made = find_tar(server->store, taken, &bytes, &tar, &why);

    *ret_done = false;
    if (made && tar < 0)
        return true;
    made = made && ingest(server->store, tar, &bytes, &result, &why);
    if (!made && why->code == KILN_ERROR_NO_SPACE) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    if (!made) {
        trace("store.serve", "%s is kept as it is: %s", digest, why->message);
        return true;
    }
    if (!link_recipe(server->store, &result, repository, digest, error))
        return false;
    serve_metrics_count(server->metrics, SERVE_COUNT_TAKEN_RECIPE);
    *ret_done = true;
    return true;
}

/* --- as it is ---------------------------------------------------------------------------------- */

/* The upload's own file gets its name: nothing is copied. */
static bool take_verbatim(Server *server, ServeTaken *taken, const char *repository, const char *digest, GError **error)
{
    StagedBlob staged = {.dirfd = taken->dirfd, .name = taken->name, .digest = taken->blob, .size = taken->size, .stored = taken->size};
    const ServeLink link = {.blob = taken->blob, .size = taken->size};
    Store *store = server->store;
    Database *db;

    if (io_fdatasync(taken->fd) < 0)
        return store_fail_errno(store, error, "write a blob to");
    if (!store_catalog(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!blob_place(store, db, &staged, g_get_real_time(), error) || !serve_link_put(db, repository, digest, &link, error)) {
        taken->name = staged.name;
        database_rollback(db);
        return false;
    }
    taken->name = staged.name; /* NULL now */
    serve_metrics_count(server->metrics, SERVE_COUNT_TAKEN_VERBATIM);
    return database_commit(db, error);
}

bool serve_take(Server *server, ServeTaken *taken, const char *repository, const char *digest, GError **error)
{
    bool done, ok;

    if (!link_stored(server->store, taken, repository, digest, &done, error))
        return false;
    if (!done) {
        serve_gate_enter();
        ok = take_as_recipe(server, taken, repository, digest, &done, error);
        serve_gate_leave();
        if (!ok)
            return false;
    }
    if (!done)
        return take_verbatim(server, taken, repository, digest, error);
    (void)io_unlink(taken->dirfd, taken->name, 0);
    g_clear_pointer(&taken->name, g_free);
    return true;
}
