/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching, map by map:
 *
 *   needs      the blocks that the map names, less those that the store has, in files or by its own tables
 *   segments   whole ones, or those where the remote's tables lead; each named and catalogued as soon as it is here, so an interruption costs
 *              at most one
 *   map        tables, joined with the store's own, and the map's blob: in one transaction, when every block is there
 */
#include "store/remote-fetch.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/scope.h"
#include "store/arrival.h"
#include "store/block-needs.h"
#include "store/bytes.h"
#include "store/io.h"
#include "store/recovery.h"
#include "store/store-private.h"

#include <fcntl.h>

#define BLOB_MAX ((uint64_t)1 << 40)

struct RemoteFetch {
    Store *store;
    Remote *remote;
    Database *catalog;
    bool cache;
    RemoteReport report;
};

/* A table that the map that is being fetched needs. */
typedef struct TakenTable {
    Digest segment;
    SegmentMoved *moved;
} TakenTable;

static void taken_table_free(gpointer data)
{
    segment_moved_free(((TakenTable *)data)->moved);
    g_free(data);
}

bool remote_fetch_new(Store *store, Remote *remote, bool cache, RemoteFetch **ret, GError **error)
{
    g_autoptr(RemoteFetch) f = g_new0(RemoteFetch, 1);

    f->store = store;
    f->remote = remote;
    f->cache = cache;
    if (!store_writable(store, error) || !store_hold_lease(store, error) || !store_catalog(store, &f->catalog, error))
        return false;
    *ret = g_steal_pointer(&f);
    return true;
}

void remote_fetch_free(RemoteFetch *fetch)
{
    g_free(fetch);
}

const RemoteReport *remote_fetch_report(const RemoteFetch *fetch)
{
    return &fetch->report;
}

/* --- blobs --- */

typedef struct Filling {
    RemoteFetch *f;
    const RemoteBlobPlace *place;
} Filling;

static bool fill_blob(int fd, uint64_t *ret_size, void *arg, GError **error)
{
    const Filling *filling = arg;
    const RemoteBlobPlace *place = filling->place;
    g_autofree char *key = remote_blob_key(&place->digest, place->packed, place->cache);

    return remote_get_file(filling->f->remote, key, place->packed ? NULL : &place->digest, MIN(place->stored, BLOB_MAX), fd, ret_size, error);
}

static bool find_place(const RemoteFetch *f, const RemoteUnit *unit, const Digest *digest, const RemoteBlobPlace **ret, GError **error)
{
    char hex[DIGEST_HEX_SIZE];

    *ret = g_hash_table_lookup(unit->blobs, digest);
    return *ret || fail_code(error, KILN_ERROR_NOT_FOUND, "%s: an index lacks the place of blob %s", remote_location(f->remote),
                             digest_to_hex(digest, hex));
}

static bool stage_blob(RemoteFetch *f, const RemoteUnit *unit, const Digest *digest, StagedBlob *ret, GError **error)
{
    Filling filling = {.f = f};

    if (!interrupt_check(error) || !find_place(f, unit, digest, &filling.place, error) ||
        !blob_stage_filled(f->store, digest, filling.place->packed, fill_blob, &filling, ret, error))
        return false;
    f->report.blobs++;
    f->report.bytes += ret->stored;
    return true;
}

static bool keep_blob(RemoteFetch *f, const Digest *digest, bool *ret_there, GError **error)
{
    if (!blob_keep(f->store, f->catalog, digest, ret_there, error))
        return false;
    f->report.present += *ret_there;
    return true;
}

typedef bool InTransactionFn(RemoteFetch *f, void *arg, GError **error);

static bool in_transaction(RemoteFetch *f, InTransactionFn *fn, void *arg, GError **error)
{
    if (!database_begin(f->catalog, false, error))
        return false;
    if (!fn(f, arg, error)) {
        database_rollback(f->catalog);
        return false;
    }
    return database_commit(f->catalog, error);
}

typedef struct Keeping {
    const Digest *digest;
    bool there;
} Keeping;

static bool keep_one(RemoteFetch *f, void *arg, GError **error)
{
    Keeping *keeping = arg;

    return keep_blob(f, keeping->digest, &keeping->there, error);
}

static bool place_one(RemoteFetch *f, void *arg, GError **error)
{
    return blob_place(f->store, f->catalog, arg, g_get_real_time(), error);
}

bool remote_fetch_blob(RemoteFetch *f, const RemoteUnit *unit, const Digest *digest, GError **error)
{
    Keeping keeping = {.digest = digest};
    StagedBlob staged = {.name = NULL};
    bool ok;

    if (!in_transaction(f, keep_one, &keeping, error))
        return false;
    if (keeping.there)
        return true;
    ok = stage_blob(f, unit, digest, &staged, error) && in_transaction(f, place_one, &staged, error);
    blob_unstage(&staged);
    return ok;
}

/* --- segments --- */

/* Whoever said where it is does not decide what it is. */
static bool check_class(RemoteFetch *f, int fd, const Digest *digest, GError **error)
{
    uint8_t head[SEGMENT_HEADER_SIZE];
    char hex[DIGEST_HEX_SIZE];

    if (!io_pread_full(fd, head, sizeof(head), 0))
        return fail(error, "%s: segment %s is too short", remote_location(f->remote), digest_to_hex(digest, hex));
    return f->cache || get_le32(head + 20) == BLOCK_PUBLIC ||
           fail(error, "%s: segment %s is private; an image has public ones only", remote_location(f->remote), digest_to_hex(digest, hex));
}

static bool stage_remote_segment(RemoteFetch *f, const Digest *digest, bool cache, StagedSegment *ret, GError **error)
{
    g_autofree char *key = remote_segment_key(digest, cache);
    uint64_t size;

    if (!segment_stage(f->store, digest, ret, error) || !remote_get_file(f->remote, key, digest, SEGMENT_MAX_SIZE, ret->fd, &size, error) ||
        !check_class(f, ret->fd, digest, error) || !segment_stage_sync(f->store, ret, error))
        return false;
    f->report.segments++;
    f->report.bytes += size;
    return true;
}

static bool place_staged(RemoteFetch *f, void *arg, GError **error)
{
    return segment_place(f->store, f->catalog, arg, error);
}

static bool keep_segment_in(RemoteFetch *f, void *arg, GError **error)
{
    Keeping *keeping = arg;

    return segment_keep(f->store, f->catalog, keeping->digest, &keeping->there, error);
}

static bool fetch_segment(RemoteFetch *f, const Digest *digest, bool cache, GError **error)
{
    Keeping keeping = {.digest = digest};
    StagedSegment staged = {.fd = -1};
    bool ok;

    if (!interrupt_check(error) || !in_transaction(f, keep_segment_in, &keeping, error))
        return false;
    if (keeping.there) {
        f->report.present++;
        return true;
    }
    ok = stage_remote_segment(f, digest, cache, &staged, error) && in_transaction(f, place_staged, &staged, error);
    segment_unstage(f->store, &staged);
    return ok;
}

/* --- what a map needs --- */

static bool subtract_own(RemoteFetch *f, SegmentNeeds *needs, GError **error)
{
    g_autoptr(SegmentMoved) own = NULL;
    Keeping keeping = {.digest = &needs->segment};

    if (!in_transaction(f, keep_segment_in, &keeping, error))
        return false;
    if (keeping.there) {
        needs->count = 0;
        f->report.present++;
        return true;
    }
    if (!segment_moved_load(f->store, &needs->segment, &own, error))
        return false;
    if (own)
        (void)segment_needs_subtract(needs, own);
    return true;
}

static bool take_table(RemoteFetch *f, SegmentNeeds *needs, const RemoteTablePlace *place, GPtrArray *taken, GError **error)
{
    g_autofree char *key = remote_table_key(&needs->segment, &place->table, place->cache);
    g_autoptr(SegmentMoved) moved = NULL;
    g_autoptr(GBytes) bytes = NULL;
    TakenTable *one;

    if (!remote_get(f->remote, key, &place->table, MOVED_MAX, &bytes, error) ||
        !segment_moved_decode(&needs->segment, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &moved, error))
        return false;
    f->report.bytes += g_bytes_get_size(bytes);
    if (!segment_needs_subtract(needs, moved))
        return true;
    for (guint i = 0; i < moved->body->segments->len; i++)
        if (!fetch_segment(f, &g_array_index(moved->body->segments, Digest, i), place->cache, error))
            return false;
    one = g_new0(TakenTable, 1);
    *one = (TakenTable){.segment = needs->segment, .moved = g_steal_pointer(&moved)};
    g_ptr_array_add(taken, one);
    return true;
}

static bool fetch_needs(RemoteFetch *f, const RemoteUnit *unit, SegmentNeeds *needs, GPtrArray *taken, GError **error)
{
    const RemoteSegmentPlace *place = g_hash_table_lookup(unit->segments, &needs->segment);
    char hex[DIGEST_HEX_SIZE];

    if (!subtract_own(f, needs, error))
        return false;
    if (needs->count && place && !place->tables)
        return fetch_segment(f, &needs->segment, place->cache, error);
    for (guint i = 0; needs->count && place && i < place->tables->len; i++)
        if (!take_table(f, needs, &g_array_index(place->tables, RemoteTablePlace, i), taken, error))
            return false;
    return !needs->count || fail_code(error, KILN_ERROR_NOT_FOUND, "%s: an index lacks the place of %u blocks of segment %s", remote_location(f->remote),
                                      needs->count, digest_to_hex(&needs->segment, hex));
}

/* --- maps --- */

static bool load_staged(const StagedBlob *staged, GBytes **ret, GError **error)
{
    auto_fd int fd = io_open(staged->dirfd, staged->name, O_RDONLY, 0);
    g_autofree uint8_t *bytes = NULL;

    if (staged->size > MAP_MAX_BLOB || staged->stored > MAP_MAX_BLOB)
        return fail(error, "a map that arrived is too large");
    bytes = g_malloc(MAX(staged->stored, 1));
    if (fd < 0 || !io_pread_full(fd, bytes, staged->stored, 0))
        return fail_errno(error, "read a map that arrived");
    if (staged->packed)
        return decompress_bytes(bytes, staged->stored, MAP_MAX_BLOB, ret, error);
    *ret = g_bytes_new_take(g_steal_pointer(&bytes), staged->stored);
    return true;
}

typedef struct Arriving {
    StagedBlob blob; /* name NULL: it was there already */
    MapBody *body;
    GPtrArray *taken; /* of TakenTable* */
    Digest digest;
} Arriving;

static void arriving_clear(Arriving *a)
{
    blob_unstage(&a->blob);
    map_body_free(a->body);
    if (a->taken)
        g_ptr_array_unref(a->taken);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Arriving, arriving_clear)

static bool open_map(RemoteFetch *f, const RemoteUnit *unit, Arriving *a, GError **error)
{
    Keeping keeping = {.digest = &a->digest};
    g_autoptr(GBytes) bytes = NULL;

    if (!in_transaction(f, keep_one, &keeping, error))
        return false;
    if (!(keeping.there ? store_blob_get(f->store, &a->digest, MAP_MAX_BLOB, &bytes, error)
                        : stage_blob(f, unit, &a->digest, &a->blob, error) && load_staged(&a->blob, &bytes, error)))
        return false;
    if (!map_body_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &a->body, error))
        return fail_prefix(error, "a map of %s", remote_location(f->remote));
    return f->cache || a->body->class == BLOCK_PUBLIC || fail(error, "%s: an image has a private map", remote_location(f->remote));
}

/* Of what is named twice, the tables of an earlier look count: they were joined then. */
static bool place_map(RemoteFetch *f, void *arg, GError **error)
{
    Arriving *a = arg;

    for (guint i = 0; i < a->taken->len; i++) {
        const TakenTable *one = a->taken->pdata[i];

        for (guint j = 0; j < one->moved->body->segments->len; j++) {
            Keeping keeping = {.digest = &g_array_index(one->moved->body->segments, Digest, j)};

            if (!keep_segment_in(f, &keeping, error))
                return false;
            if (!keeping.there)
                return fail(error, "a segment that was fetched has gone again; try once more");
        }
        if (!segment_place_table(f->store, f->catalog, &one->segment, one->moved, error))
            return false;
    }
    if (!store_has_blocks(f->store, a->body))
        return fail(error, "a map of %s lacks blocks", remote_location(f->remote));
    if (a->blob.name && !blob_place(f->store, f->catalog, &a->blob, g_get_real_time(), error))
        return false;
    return store_catalog_map(f->store, f->catalog, &a->digest, error);
}

bool remote_fetch_map(RemoteFetch *f, const RemoteUnit *unit, const Digest *digest, GError **error)
{
    g_autoptr(BlockNeeds) needs = block_needs_new();
    g_auto(Arriving) a = {.digest = *digest, .taken = g_ptr_array_new_with_free_func(taken_table_free)};

    if (!open_map(f, unit, &a, error) || !block_needs_add(needs, a.body, error))
        return false;
    for (guint i = 0; i < needs->list->len; i++)
        if (!fetch_needs(f, unit, needs->list->pdata[i], a.taken, error))
            return false;
    return in_transaction(f, place_map, &a, error);
}

bool remote_fetch_unit(RemoteFetch *f, const RemoteUnit *unit, GError **error)
{
    GHashTableIter iter;
    gpointer digest;

    g_hash_table_iter_init(&iter, unit->maps);
    while (g_hash_table_iter_next(&iter, &digest, NULL))
        if (!remote_fetch_map(f, unit, digest, error))
            return false;
    g_hash_table_iter_init(&iter, unit->blobs);
    while (g_hash_table_iter_next(&iter, &digest, NULL))
        if (!g_hash_table_contains(unit->maps, digest) && !remote_fetch_blob(f, unit, digest, error))
            return false;
    return true;
}
