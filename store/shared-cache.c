/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared bake cache.
 *
 * Locks: @lock is held while the remote and the databases are asked, so nobody takes it inside a transaction; @promise_lock guards the table of
 * promises only, and no other is taken while it is held.
 *
 * Promises are kept by digest. One is taken out of the table before its bytes are fetched, since fetching opens what it has fetched; if that
 * fails it is put back, the cache counts as failed, and is not read any more.
 */
#include "store/shared-cache.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/format.h"
#include "store/remote-fetch.h"
#include "store/remote-sync.h"
#include "store/shared-private.h"
#include "store/store-private.h"

#define PROBLEMS_MAX 3 /* a remote that fails more often is not asked any more */
#define CLOCK_SLACK 86400

typedef struct Promise {
    Digest digest;
    const RemoteUnit *unit;
    bool map;
    GBytes *bytes;     /* of a map that was opened */
    StoreState *state; /* a map's: to be the store's own when it is here; may be NULL */
} Promise;

struct SharedCache {
    GRecMutex lock;
    Remote *from, *to; /* may be the same */
    SignatureKey *trusted, *signer;
    const char *const *memo_prefixes;
    GPtrArray *units;     /* of RemoteUnit*: promises point to them */
    GMutex promise_lock;
    GHashTable *promises; /* Digest* -> Promise* */
    GHashTable *absent;   /* entries that are known not to be there: keys */
    GHashTable *memos;    /* keys that were used or made */
    unsigned problems;
    bool failed;
    SharedCacheReport report;
};

#define AUTO_REC_LOCK(mutex) __attribute__((unused)) g_autoptr(GRecMutexLocker) G_PASTE(auto_lock_, __LINE__) = g_rec_mutex_locker_new(mutex)

/* --- opening --- */

static void promise_free(gpointer data)
{
    Promise *promise = data;

    if (promise->bytes)
        g_bytes_unref(promise->bytes);
    store_state_free(promise->state);
    g_free(promise);
}

static bool load_keys(SharedCache *c, const SharedCacheOptions *options, GError **error)
{
    if (!options->key)
        return fail_code(error, KILN_ERROR_USAGE, "a shared cache needs --cache-key FILE: whoever can write to it decides what is baked");
    if (options->to && !signature_load(options->key, &c->signer, error))
        return fail_prefix(error, "--cache-key");
    return signature_load_public(options->key, &c->trusted, error) || fail_prefix(error, "--cache-key");
}

bool shared_cache_open(const SharedCacheOptions *options, SharedCache **ret, GError **error)
{
    g_autoptr(SharedCache) c = g_new0(SharedCache, 1);
    RemoteOptions read = {.plain_http = options->plain_http}, write = {.plain_http = options->plain_http, .create = true};

    g_rec_mutex_init(&c->lock);
    g_mutex_init(&c->promise_lock);
    c->memo_prefixes = options->memo_prefixes;
    c->units = g_ptr_array_new_with_free_func((GDestroyNotify)remote_unit_free);
    c->promises = g_hash_table_new_full(digest_hash, digest_equal_gfunc, NULL, promise_free);
    c->absent = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    c->memos = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    if (!load_keys(c, options, error) || (options->to && !remote_open(options->to, &write, &c->to, error)))
        return false;
    if (options->from && g_strcmp0(options->from, options->to) == 0)
        c->from = c->to;
    else if (options->from && !remote_open(options->from, &read, &c->from, error))
        return false;
    *ret = g_steal_pointer(&c);
    return true;
}

void shared_cache_close(SharedCache *c)
{
    if (!c)
        return;
    if (c->from != c->to)
        remote_close(c->from);
    remote_close(c->to);
    signature_key_free(c->trusted);
    signature_key_free(c->signer);
    g_hash_table_unref(c->promises);
    g_ptr_array_unref(c->units);
    g_hash_table_unref(c->absent);
    g_hash_table_unref(c->memos);
    g_rec_mutex_clear(&c->lock);
    g_mutex_clear(&c->promise_lock);
    g_free(c);
}

void store_attach_cache(Store *store, SharedCache *cache)
{
    store->shared = cache;
}

bool shared_cache_failed(SharedCache *c)
{
    AUTO_REC_LOCK(&c->lock);

    return c->failed;
}

bool shared_cache_writes(const SharedCache *c)
{
    return c->to != NULL;
}

void shared_cache_report(SharedCache *c, SharedCacheReport *ret)
{
    AUTO_REC_LOCK(&c->lock);

    *ret = c->report;
}

/* --- entries --- */

static char *state_key(const Digest *key)
{
    return remote_digest_key("cache/state", key);
}

static char *memo_key(const char *key)
{
    Digest digest;

    digest_of_string(key, &digest);
    return remote_digest_key("cache/memo", &digest);
}

static char *result_key(const Digest *key, const char *name)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *text = g_strdup_printf("%s\n%s", digest_to_hex(key, hex), name);
    Digest digest;

    digest_of_string(text, &digest);
    return remote_digest_key("cache/result", &digest);
}

static bool is_readable(const SharedCache *c)
{
    return c->from && !c->failed && c->problems < PROBLEMS_MAX;
}

static bool is_of_kind(const json_t *payload, const char *kind)
{
    return g_strcmp0(json_string_value(json_object_get(payload, "kind")), kind) == 0;
}

/* *ret NULL: there is none that counts. A cache that does not answer is no reason to stop. */
static bool get_entry(SharedCache *c, const char *key, const char *kind, json_t **ret, GError **error)
{
    g_autoptr(json_t) payload = NULL;
    g_autoptr(GError) problem = NULL;

    *ret = NULL;
    if (!is_readable(c) || g_hash_table_contains(c->absent, key))
        return true;
    if (remote_index_get(c->from, key, c->trusted, &payload, &problem) && is_of_kind(payload, kind)) {
        c->report.hits++;
        *ret = g_steal_pointer(&payload);
        return true;
    }
    if (problem && problem->code == KILN_ERROR_INTERRUPTED) {
        g_propagate_error(error, g_steal_pointer(&problem));
        return false;
    }
    g_hash_table_add(c->absent, g_strdup(key));
    if (problem && problem->code != KILN_ERROR_NOT_FOUND) {
        c->problems++;
        log_warning("shared cache: %s%s", problem->message, c->problems == PROBLEMS_MAX ? "; it is not asked any more" : "");
    }
    return true;
}

/* --- promises --- */

static void add_promise(SharedCache *c, Promise *one)
{
    AUTO_LOCK(&c->promise_lock);

    (void)g_hash_table_replace(c->promises, &one->digest, one);
}

static void promise(SharedCache *c, const RemoteUnit *unit, const Digest *digest, bool map, const StoreState *state)
{
    Promise *one = g_new0(Promise, 1);

    *one = (Promise){.digest = *digest, .unit = unit, .map = map};
    if (state) {
        one->state = g_memdup2(state, sizeof(*state));
        one->state->info = g_strdup(state->info);
    }
    add_promise(c, one);
}

/* Only what the store has not: it would go on to read what it has. */
static void promise_unit(SharedCache *c, Store *store, RemoteUnit *unit /* taken */, const StoreState *state)
{
    GHashTableIter iter;
    gpointer digest;

    g_ptr_array_add(c->units, unit);
    g_hash_table_iter_init(&iter, unit->maps);
    while (g_hash_table_iter_next(&iter, &digest, NULL))
        promise(c, unit, digest, true, state && digest_equal(&state->map, digest) && digest_is_none(&state->tree.tree) ? state : NULL);
    g_hash_table_iter_init(&iter, unit->blobs);
    while (g_hash_table_iter_next(&iter, &digest, NULL))
        if (!g_hash_table_contains(unit->maps, digest) && !blob_file_exists(store, digest))
            promise(c, unit, digest, false, NULL);
}

static Promise *find_promise(SharedCache *c, const Digest *digest, bool map)
{
    AUTO_LOCK(&c->promise_lock);
    Promise *one = g_hash_table_lookup(c->promises, digest);

    return one && one->map == map ? one : NULL;
}

static bool fetch_promised(SharedCache *c, Store *store, const Promise *one, GError **error)
{
    g_autoptr(RemoteFetch) fetch = NULL;

    if (!c->from || !remote_fetch_new(store, c->from, true, &fetch, error))
        return false;
    if (!(one->map ? remote_fetch_map(fetch, one->unit, &one->digest, error) : remote_fetch_blob(fetch, one->unit, &one->digest, error)))
        return false;
    remote_report_add(&c->report.fetched, remote_fetch_report(fetch));
    return !one->state || store_state_put(store, one->state, error);
}

static void steal_promise(SharedCache *c, const Promise *one)
{
    AUTO_LOCK(&c->promise_lock);

    (void)g_hash_table_steal(c->promises, &one->digest);
}

static bool keep_promise(SharedCache *c, Store *store, Promise *one, GError **error)
{
    steal_promise(c, one);
    if (fetch_promised(c, store, one, error)) {
        promise_free(one);
        return true;
    }
    c->failed = true;
    add_promise(c, one);
    return fail_prefix(error, "shared cache");
}

bool store_provide_map(Store *store, const Digest *map, GError **error)
{
    SharedCache *c = store->shared;
    Promise *one;

    if (!c || !find_promise(c, map, true))
        return true;
    AUTO_REC_LOCK(&c->lock);
    one = find_promise(c, map, true); /* somebody may have been faster */
    return !one || keep_promise(c, store, one, error);
}

bool shared_provide_blob(Store *store, const Digest *blob, bool *ret_new, GError **error)
{
    SharedCache *c = store->shared;
    Promise *one;

    *ret_new = find_promise(c, blob, false) != NULL;
    if (!*ret_new)
        return true;
    AUTO_REC_LOCK(&c->lock);
    one = find_promise(c, blob, false);
    return !one || keep_promise(c, store, one, error);
}

static bool load_map(SharedCache *c, Promise *one, GError **error)
{
    const RemoteBlobPlace *place = g_hash_table_lookup(one->unit->blobs, &one->digest);
    g_autofree char *key = NULL;
    g_autoptr(GBytes) stored = NULL, plain = NULL;
    Digest have;

    if (!place)
        return fail(error, "an entry lacks the place of its map");
    key = remote_blob_key(&place->digest, place->packed, place->cache);
    if (!remote_get(c->from, key, place->packed ? NULL : &place->digest, MIN(place->stored, MAP_MAX_BLOB), &stored, error))
        return false;
    c->report.fetched.bytes += g_bytes_get_size(stored);
    if (!place->packed)
        plain = g_bytes_ref(stored);
    else if (!decompress_bytes(g_bytes_get_data(stored, NULL), g_bytes_get_size(stored), MAP_MAX_BLOB, &plain, error))
        return false;
    digest_of(g_bytes_get_data(plain, NULL), g_bytes_get_size(plain), &have);
    if (!digest_equal(&have, &one->digest))
        return fail(error, "'%s' has other bytes than its name says", key);
    one->bytes = g_steal_pointer(&plain);
    return true;
}

bool shared_map_bytes(Store *store, const Digest *map, GBytes **ret, GError **error)
{
    SharedCache *c = store->shared;
    Promise *one;

    *ret = NULL;
    if (!find_promise(c, map, true))
        return true;
    AUTO_REC_LOCK(&c->lock);
    one = find_promise(c, map, true);
    if (!one)
        return true;
    if (!one->bytes && !load_map(c, one, error)) {
        c->failed = true;
        return fail_prefix(error, "shared cache");
    }
    *ret = g_bytes_ref(one->bytes);
    return true;
}

/* --- states --- */

static bool read_state(const json_t *payload, const Digest *key, StoreState **ret)
{
    g_autoptr(StoreState) state = store_state_new();
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;
    Digest named = remote_index_digest(payload, "key");

    state->key = *key;
    state->content = remote_index_digest(payload, "content");
    state->map = remote_index_digest(payload, "map");
    state->tree.tree = remote_index_digest(payload, "tree");
    state->tree.files = remote_index_digest(payload, "files");
    state->info = g_strdup(json_string_value(json_object_get(payload, "info")));
    state->created = json_integer_value(json_object_get(payload, "created"));
    state->expires = json_integer_value(json_object_get(payload, "expires"));
    if (!digest_equal(&named, key) || digest_is_none(&state->content) || state->created > now + CLOCK_SLACK ||
        (state->expires && state->expires <= now))
        return false;
    *ret = g_steal_pointer(&state);
    return true;
}

static bool names_all(const RemoteUnit *unit, const StoreState *state)
{
    return (digest_is_none(&state->map) || g_hash_table_contains(unit->maps, &state->map)) &&
           (digest_is_none(&state->tree.tree) || g_hash_table_contains(unit->blobs, &state->tree.tree)) &&
           (digest_is_none(&state->tree.files) || g_hash_table_contains(unit->maps, &state->tree.files));
}

bool shared_find_state(Store *store, const Digest *key, StoreState **ret, GError **error)
{
    SharedCache *c = store->shared;
    AUTO_REC_LOCK(&c->lock);
    g_autofree char *name = state_key(key);
    g_autoptr(json_t) payload = NULL;
    g_autoptr(StoreState) state = NULL;
    g_autoptr(RemoteUnit) unit = NULL;

    *ret = NULL;
    if (!get_entry(c, name, "state", &payload, error))
        return false;
    if (!payload || !read_state(payload, key, &state) || !remote_unit_parse(json_object_get(payload, "unit"), &unit, NULL) || !names_all(unit, state))
        return true;
    promise_unit(c, store, g_steal_pointer(&unit), state);
    *ret = g_steal_pointer(&state);
    return true;
}

/* --- memos --- */

static bool is_shared_memo(const SharedCache *c, const char *key)
{
    for (const char *const *prefix = c->memo_prefixes; prefix && *prefix; prefix++)
        if (g_str_has_prefix(key, *prefix))
            return true;
    return false;
}

void shared_note_memo(Store *store, const char *key)
{
    SharedCache *c = store->shared;
    AUTO_REC_LOCK(&c->lock);

    if (c->to && is_shared_memo(c, key))
        g_hash_table_add(c->memos, g_strdup(key));
}

bool shared_find_memo(Store *store, const char *key, char **ret_value, GError **error)
{
    SharedCache *c = store->shared;
    AUTO_REC_LOCK(&c->lock);
    g_autofree char *name = memo_key(key);
    g_autoptr(json_t) payload = NULL;
    g_autoptr(RemoteUnit) unit = NULL;
    Digest blob, map;

    *ret_value = NULL;
    if (!is_shared_memo(c, key))
        return true;
    if (!get_entry(c, name, "memo", &payload, error))
        return false;
    if (!payload || g_strcmp0(json_string_value(json_object_get(payload, "key")), key) != 0 ||
        !json_is_string(json_object_get(payload, "value")) || !remote_unit_parse(json_object_get(payload, "unit"), &unit, NULL))
        return true;
    blob = remote_index_digest(payload, "blob");
    map = remote_index_digest(payload, "map");
    *ret_value = g_strdup(json_string_value(json_object_get(payload, "value")));
    if (digest_is_none(&blob) && digest_is_none(&map)) /* nothing that could be lacking: it is ours from now on */
        return store_memo_put(store, key, *ret_value, NULL, NULL, error);
    promise_unit(c, store, g_steal_pointer(&unit), NULL);
    return true;
}

/* --- sets --- */

bool shared_find_set(Store *store, const Digest *key, const char *name, bool *ret_new, GError **error)
{
    SharedCache *c = store->shared;
    AUTO_REC_LOCK(&c->lock);
    g_autofree char *entry = name ? result_key(key, name) : NULL;
    g_autoptr(json_t) payload = NULL;
    g_autoptr(GError) problem = NULL;
    RemoteSet set = {.key = entry, .name = (char *)name};
    Digest made;

    *ret_new = false;
    if (!name || digest_is_none(key))
        return true;
    if (!get_entry(c, entry, "result", &payload, error))
        return false;
    if (!payload)
        return true;
    made = remote_index_digest(json_object_get(payload, "record"), "key");
    if (!digest_equal(&made, key) || g_strcmp0(json_string_value(json_object_get(json_object_get(payload, "record"), "name")), name) != 0)
        return true;
    set.payload = payload;
    if (remote_sync_pull(store, c->from, &set, true, ret_new, &c->report.fetched, &problem))
        return true;
    if (problem->code == KILN_ERROR_INTERRUPTED || problem->code == KILN_ERROR_NO_SPACE) {
        g_propagate_error(error, g_steal_pointer(&problem));
        return false;
    }
    log_warning("shared cache: %s; '%s' is made again", problem->message, name);
    *ret_new = false;
    return true;
}

/* --- writing --- */

static void set_digest(json_t *object, const char *key, const Digest *digest)
{
    char hex[DIGEST_HEX_SIZE];

    if (!digest_is_none(digest))
        json_object_set_new(object, key, json_string(digest_to_hex(digest, hex)));
}

static void add_digest(GArray *to, const Digest *digest)
{
    if (!digest_is_none(digest))
        g_array_append_vals(to, digest, 1);
}

/* One of ours that is whole and, where it ends, has not ended. */
static bool is_pushed(SharedCache *c, RemotePush *push, const char *key, const char *kind, const char *value)
{
    g_autoptr(json_t) payload = NULL;
    g_autoptr(RemoteUnit) unit = NULL;
    int64_t expires;

    if (!remote_index_get(c->to, key, c->signer, &payload, NULL) || !is_of_kind(payload, kind) ||
        !remote_unit_parse(json_object_get(payload, "unit"), &unit, NULL))
        return false;
    expires = json_integer_value(json_object_get(payload, "expires"));
    if (expires && expires <= g_get_real_time() / G_USEC_PER_SEC)
        return false;
    if (value && g_strcmp0(json_string_value(json_object_get(payload, "value")), value) != 0)
        return false;
    return remote_push_has_unit(push, unit);
}

static bool push_state(SharedCache *c, RemotePush *push, Store *store, const Digest *key, GError **error)
{
    g_autoptr(GArray) blobs = g_array_new(FALSE, FALSE, sizeof(Digest)), maps = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autofree char *name = state_key(key);
    g_autoptr(StoreState) state = NULL;
    g_autoptr(json_t) payload = NULL;

    if (!store_state_get_own(store, key, &state, error))
        return false;
    if (!state || is_pushed(c, push, name, "state", NULL))
        return true;
    payload = json_pack("{s:s, s:I, s:I, s:s?}", "kind", "state", "created", (json_int_t)state->created, "expires", (json_int_t)state->expires,
                        "info", state->info);
    set_digest(payload, "key", key);
    set_digest(payload, "content", &state->content);
    set_digest(payload, "map", &state->map);
    set_digest(payload, "tree", &state->tree.tree);
    set_digest(payload, "files", &state->tree.files);
    add_digest(maps, &state->map);
    add_digest(maps, &state->tree.files);
    add_digest(blobs, &state->map);
    add_digest(blobs, &state->tree.files);
    add_digest(blobs, &state->tree.tree);
    return remote_sync_put_unit(push, name, payload, blobs, maps, c->signer, error);
}

static bool push_memo(SharedCache *c, RemotePush *push, Store *store, const char *key, GError **error)
{
    g_autoptr(GArray) blobs = g_array_new(FALSE, FALSE, sizeof(Digest)), maps = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autofree char *name = memo_key(key), *value = NULL;
    g_autoptr(json_t) payload = NULL;
    Digest blob, map;

    if (!store_memo_get_own(store, key, &value, &blob, &map, error))
        return false;
    if (!value || is_pushed(c, push, name, "memo", value))
        return true;
    payload = json_pack("{s:s, s:s, s:s}", "kind", "memo", "key", key, "value", value);
    if (!payload) /* no UTF-8 */
        return true;
    set_digest(payload, "blob", &blob);
    set_digest(payload, "map", &map);
    add_digest(maps, &map);
    add_digest(blobs, &map);
    add_digest(blobs, &blob);
    return remote_sync_put_unit(push, name, payload, blobs, maps, c->signer, error);
}

static bool push_result(SharedCache *c, Store *store, const GPtrArray *images, GError **error)
{
    const StoreImage *first = images->pdata[0];
    g_autoptr(RemotePush) push = NULL;
    g_autoptr(json_t) record = NULL, payload = NULL;
    g_autofree char *name = NULL;
    Digest key;

    if (!remote_sync_record(store, first->set, &record, error))
        return false;
    key = remote_index_digest(record, "key");
    if (digest_is_none(&key))
        return true;
    if (!remote_push_new(store, c->to, false, &push, error))
        return false;
    name = result_key(&key, first->name);
    if (is_pushed(c, push, name, "result", NULL))
        return true;
    payload = json_pack("{s:s, s:O}", "kind", "result", "record", record);
    if (!remote_sync_put(push, name, payload, record, c->signer, error))
        return false;
    remote_report_add(&c->report.pushed, remote_push_report(push));
    return true;
}

static bool push_private(SharedCache *c, Store *store, const GArray *states, GError **error)
{
    g_autoptr(RemotePush) push = NULL;
    GHashTableIter iter;
    gpointer key;

    if (!remote_push_new(store, c->to, true, &push, error))
        return false;
    for (guint i = 0; i < states->len; i++)
        if (!push_state(c, push, store, &g_array_index(states, Digest, i), error))
            return false;
    g_hash_table_iter_init(&iter, c->memos);
    while (g_hash_table_iter_next(&iter, &key, NULL))
        if (!push_memo(c, push, store, key, error))
            return false;
    remote_report_add(&c->report.pushed, remote_push_report(push));
    g_hash_table_remove_all(c->memos);
    return true;
}

/* Sets first: what their images have is not kept a second time with the states. */
bool shared_cache_push(SharedCache *c, Store *store, const GArray *states, const GPtrArray *images, GError **error)
{
    AUTO_REC_LOCK(&c->lock);

    return (!images || images->len == 0 || push_result(c, store, images, error)) && push_private(c, store, states, error);
}
