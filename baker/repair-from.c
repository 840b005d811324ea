/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching what a repair needs.
 */
#include "baker/repair-from.h"

#include "baker/transfer.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

#include <fcntl.h>

void repair_from_clear(RepairFrom *from)
{
    store_close(from->store);
    if (from->folder)
        (void)file_remove_tree(AT_FDCWD, from->folder, NULL); /* recovery removes what stays */
    g_free(from->folder);
    *from = (RepairFrom){NULL};
}

/* Image IDs as text, each once. */
static GHashTable *damaged_images(const json_t *damage)
{
    GHashTable *ids = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    const json_t *file, *image;
    size_t i, k;

    json_array_foreach(damage, i, file)
        json_array_foreach(json_object_get(file, "images"), k, image)
            g_hash_table_add(ids, g_strdup(json_text(image, "id")));
    return ids;
}

/* *ret_found: it was there. */
static bool fetch_one(Store *to, Remote *remote, const char *id, bool *ret_found, GError **error)
{
    g_autoptr(RemoteSet) set = NULL;
    g_autoptr(GError) why = NULL;
    RemoteReport report = {0};
    bool added;

    *ret_found = remote_sync_find(remote, id, NULL, &set, &why);
    if (*ret_found)
        return remote_sync_pull(to, remote, set, false, &added, &report, error);
    if (why->code == KILN_ERROR_NOT_FOUND) {
        log_info("%s: %s is not there", remote_location(remote), id);
        return true;
    }
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

static bool fetch_from_remote(Store *to, const char *place, GHashTable *ids, bool plain_http, GError **error)
{
    RemoteOptions options = {.plain_http = plain_http};
    g_autoptr(Remote) remote = NULL;
    unsigned fetched = 0;
    GHashTableIter iter;
    gpointer id;

    if (!remote_open(place, &options, &remote, error))
        return false;
    g_hash_table_iter_init(&iter, ids);
    while (g_hash_table_iter_next(&iter, &id, NULL)) {
        bool found;

        if (!fetch_one(to, remote, id, &found, error))
            return false;
        fetched += found;
    }
    return fetched > 0 || fail(error, "%s has none of the damaged images", place);
}

static bool fetch_from_registry(Store *to, const char *place, bool plain_http, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;
    TransferReport report;

    return transfer_pull(to, place, "repair", &(PullOptions){.plain_http = plain_http}, &images, &report, error);
}

bool repair_from_open(Store *damaged, const char *place, const json_t *damage, bool plain_http, RepairFrom *ret, GError **error)
{
    g_autoptr(GHashTable) ids = damaged_images(damage);
    g_autofree char *dir = NULL;
    bool ok;

    *ret = (RepairFrom){NULL};
    if (!store_make_tmpdir(damaged, &ret->folder, error))
        return false;
    dir = g_build_filename(ret->folder, "store", NULL);
    ok = store_open(dir, STORE_OPEN_CREATE, &ret->store, error) && (g_str_has_prefix(place, REGISTRY_SCHEME)
                                                                        ? fetch_from_registry(ret->store, place, plain_http, error)
                                                                        : fetch_from_remote(ret->store, place, ids, plain_http, error));
    if (!ok)
        repair_from_clear(ret);
    return ok;
}
