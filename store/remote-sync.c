/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets to and from remotes.
 */
#include "store/remote-sync.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/channel.h"
#include "store/layer.h"
#include "store/ledger.h"
#include "store/map.h"
#include "store/remote-fetch.h"
#include "store/store-private.h"
#include "store/tree-space.h"

#include <fcntl.h>
#include <string.h>

#define SETS_MAX 100000
#define CONFIG_MAX (16u << 20)
#define PROVENANCE_MAX (64u << 20)

void remote_set_free(RemoteSet *set)
{
    if (!set)
        return;
    g_free(set->key);
    g_free(set->name);
    json_decref(set->payload);
    g_free(set);
}

/* --- pushing --- */

static gint by_text(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* index/NAME/ID[-ID]: says in a list which images there are. */
static char *index_key(const char *name, const GPtrArray *images)
{
    g_autoptr(GPtrArray) ids = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *joined = NULL;

    for (guint i = 0; i < images->len; i++) {
        char hex[DIGEST_HEX_SIZE];

        g_ptr_array_add(ids, g_strdup(digest_to_hex(&((StoreImage *)images->pdata[i])->id, hex)));
    }
    g_ptr_array_sort(ids, by_text);
    g_ptr_array_add(ids, NULL);
    joined = g_strjoinv("-", (char **)ids->pdata);
    return g_strdup_printf("index/%s/%s", name, joined);
}

static bool is_map_role(const char *role)
{
    return strcmp(role, "map") == 0 || strcmp(role, "files") == 0 || strcmp(role, "layer-map") == 0;
}

static bool collect_needs(const json_t *record, GArray *blobs, GArray *maps, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    const json_t *list = json_object_get(record, "references");
    json_t *one;
    size_t i;

    json_array_foreach((json_t *)list, i, one) {
        const char *role = json_string_value(json_array_get(one, 1)), *text = json_string_value(json_array_get(one, 3));
        Digest digest;

        if (!role || !text || !digest_parse(text, &digest))
            return fail(error, "the record of a set is wrong");
        if (!g_hash_table_add(seen, g_memdup2(&digest, sizeof(digest))))
            continue;
        g_array_append_val(blobs, digest);
        if (is_map_role(role))
            g_array_append_val(maps, digest);
    }
    return true;
}

bool remote_sync_record(Store *store, int64_t set, json_t **ret, GError **error)
{
    g_autofree char *text = NULL;
    Database *catalog;

    if (!store_catalog(store, &catalog, error) || !published_record(catalog, set, &text, error))
        return false;
    return text ? json_parse(text, strlen(text), REMOTE_INDEX_MAX, "the record of a set", ret, error)
                : fail(error, "a set has gone meanwhile");
}

static bool check_pushable(Store *store, const GPtrArray *images, GError **error)
{
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        g_autofree char *why = NULL;

        if (image->bytes_gone)
            return fail(error, "%s/%s: its bytes are gone, only its record is left", image->name, image->kind);
        if (!store_revoked(store, &image->id, &why, error))
            return false;
        if (why)
            return fail(error, "%s/%s is revoked: %s", image->name, image->kind, why);
    }
    return true;
}

/* An index that says the same, signed as is wanted, whose bytes are there. */
static bool is_pushed(RemotePush *push, Remote *remote, const char *key, const SignatureKey *signer)
{
    g_autoptr(json_t) payload = NULL;
    g_autoptr(RemoteUnit) unit = NULL;

    return remote_index_get(remote, key, signer, &payload, NULL) && remote_unit_parse(json_object_get(payload, "unit"), &unit, NULL) &&
           remote_push_has_unit(push, unit);
}

bool remote_sync_put_unit(RemotePush *push, const char *key, json_t *payload, const GArray *blobs, const GArray *maps, const SignatureKey *signer,
                          GError **error)
{
    g_autoptr(json_t) unit = NULL;

    if (!remote_push_unit(push, blobs, maps, &unit, error))
        return false;
    json_object_set(payload, "unit", unit);
    return remote_index_put(remote_push_remote(push), key, payload, signer, error);
}

bool remote_sync_put(RemotePush *push, const char *key, json_t *payload, const json_t *record, const SignatureKey *signer, GError **error)
{
    g_autoptr(GArray) blobs = g_array_new(FALSE, FALSE, sizeof(Digest)), maps = g_array_new(FALSE, FALSE, sizeof(Digest));

    return collect_needs(record, blobs, maps, error) && remote_sync_put_unit(push, key, payload, blobs, maps, signer, error);
}

bool remote_sync_push(RemotePush *push, const GPtrArray *images, const SignatureKey *signer, GError **error)
{
    Store *store = remote_push_store(push);
    Remote *remote = remote_push_remote(push);
    const StoreImage *first = images->pdata[0];
    g_autofree char *key = index_key(first->name, images);
    g_autoptr(json_t) record = NULL, payload = NULL;

    if (!check_pushable(store, images, error))
        return false;
    if (is_pushed(push, remote, key, signer)) {
        log_verbose("%s is there already", key);
        return true;
    }
    if (!remote_sync_record(store, first->set, &record, error))
        return false;
    payload = json_pack("{s:s, s:O}", "kind", "set", "record", record);
    return remote_sync_put(push, key, payload, record, signer, error);
}

/* --- listing --- */

static bool read_set(Remote *remote, const char *key, const SignatureKey *trusted, RemoteSet **ret, GError **error)
{
    g_autoptr(RemoteSet) set = g_new0(RemoteSet, 1);
    g_autofree char *folder = g_path_get_dirname(key);
    const json_t *record;
    const char *name = NULL, *kind = NULL;

    set->key = g_strdup(key);
    if (!remote_index_get(remote, key, trusted, &set->payload, error))
        return false;
    record = json_object_get(set->payload, "record");
    if (!json_get_string(set->payload, "kind", "", &kind, error) || !json_get_string(record, "name", "", &name, error) ||
        !json_get_int(record, "created", 0, &set->created, error))
        return fail_prefix(error, "%s: index '%s'", remote_location(remote), key);
    if (strcmp(kind, "set") != 0 || !g_str_has_prefix(folder, "index/") || strcmp(folder + strlen("index/"), name) != 0 ||
        !store_name_check(name, NULL))
        return fail(error, "%s: index '%s' is none of the set that its name says", remote_location(remote), key);
    set->name = g_strdup(name);
    *ret = g_steal_pointer(&set);
    return true;
}

static gint by_age(gconstpointer a, gconstpointer b)
{
    const RemoteSet *one = *(RemoteSet *const *)a, *other = *(RemoteSet *const *)b;

    if (one->created != other->created)
        return one->created < other->created ? -1 : 1;
    return strcmp(one->key, other->key);
}

/* One that cannot be read is one that somebody put there: it must not hide the others. */
static bool read_sets(Remote *remote, const char *prefix, const char *id, const SignatureKey *trusted, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) keys = NULL, sets = g_ptr_array_new_with_free_func((GDestroyNotify)remote_set_free);

    if (!remote_list(remote, prefix, SETS_MAX, &keys, error))
        return false;
    for (guint i = 0; i < keys->len; i++) {
        const char *key = ((RemoteEntry *)keys->pdata[i])->key, *ids = strrchr(key, '/') + 1;
        g_autoptr(GError) problem = NULL;
        RemoteSet *set = NULL;

        if (id && !g_str_has_prefix(ids, id) && !(strchr(ids, '-') && g_str_has_prefix(strchr(ids, '-') + 1, id)))
            continue;
        if (read_set(remote, key, trusted, &set, &problem))
            g_ptr_array_add(sets, set);
        else if (problem->code == KILN_ERROR_INTERRUPTED)
            return g_propagate_error(error, g_steal_pointer(&problem)), false;
        else
            log_warning("%s; it is passed over", problem->message);
    }
    g_ptr_array_sort(sets, by_age);
    *ret = g_steal_pointer(&sets);
    return true;
}

bool remote_sync_list(Remote *remote, const char *name, const SignatureKey *trusted, GPtrArray **ret, GError **error)
{
    g_autofree char *prefix = name ? g_strdup_printf("index/%s/", name) : g_strdup("index/");

    return (!name || store_name_check(name, error)) && read_sets(remote, prefix, NULL, trusted, ret, error);
}

static const char *as_id(const char *ref)
{
    const char *hex = g_str_has_prefix(ref, "sha256:") ? ref + strlen("sha256:") : ref;
    size_t n = strspn(hex, "0123456789abcdef");

    return n >= 12 && n <= 64 && !hex[n] ? hex : NULL;
}

bool remote_sync_find(Remote *remote, const char *ref, const SignatureKey *trusted, RemoteSet **ret, GError **error)
{
    g_autoptr(GPtrArray) sets = NULL;
    const char *id = as_id(ref);

    if (!(id ? read_sets(remote, "index/", id, trusted, &sets, error) : remote_sync_list(remote, ref, trusted, &sets, error)))
        return false;
    if (sets->len == 0)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "%s has no set '%s'", remote_location(remote), ref);
    *ret = g_ptr_array_steal_index(sets, sets->len - 1);
    return true;
}

/* --- pulling: what it says it is --- */

static bool read_layers(const json_t *json, StoreImage *image, GError **error)
{
    json_t *pair;
    size_t i;

    json_array_foreach(json_object_get(json, "layers"), i, pair) {
        const char *layer = json_string_value(json_array_get(pair, 0)), *recipe = json_string_value(json_array_get(pair, 1));
        Digest blob, made = digest_none;

        if (!layer || !digest_parse(layer, &blob) || (recipe && !digest_parse(recipe, &made)))
            return fail(error, "a layer has no digest");
        store_image_add_layer(image, &blob, &made);
    }
    return true;
}

static bool read_image(const json_t *json, const char *name, StoreImage **ret, GError **error)
{
    const char *kind = json_string_value(json_object_get(json, "kind"));
    g_autoptr(StoreImage) image = NULL;

    if (!kind || (strcmp(kind, "disk") != 0 && strcmp(kind, "oci") != 0))
        return fail(error, "an image is of no kind that this kiln knows");
    image = store_image_new(kind, name);
    image->id = remote_index_digest(json, "id");
    image->manifest = remote_index_digest(json, "manifest");
    image->map = remote_index_digest(json, "map");
    image->tree.tree = remote_index_digest(json, "tree");
    image->tree.files = remote_index_digest(json, "files");
    image->size = (uint64_t)MAX(json_integer_value(json_object_get(json, "size")), 0);
    image->parent = g_strdup(json_string_value(json_object_get(json, "parent")));
    if (digest_is_none(&image->id) || (strcmp(kind, "disk") == 0 && digest_is_none(&image->map)))
        return fail(error, "an image lacks its digests");
    if (!read_layers(json, image, error))
        return false;
    *ret = g_steal_pointer(&image);
    return true;
}

static bool read_images(const RemoteSet *set, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    const json_t *list = json_object_get(json_object_get(set->payload, "record"), "images");
    json_t *one;
    size_t i;

    json_array_foreach((json_t *)list, i, one) {
        StoreImage *image = NULL;

        if (!read_image(one, set->name, &image, error))
            return fail_prefix(error, "index '%s'", set->key);
        g_ptr_array_add(images, image);
    }
    if (images->len == 0 || images->len > 2)
        return fail(error, "index '%s' has %u images", set->key, images->len);
    *ret = g_steal_pointer(&images);
    return true;
}

/* --- pulling: is it that --- */

static bool check_disk(Store *store, const StoreImage *image, const json_t *config, GError **error)
{
    g_autoptr(StoreMap) map = NULL;
    Digest said = remote_index_digest(config, "content"), tree = remote_index_digest(config, "tree"), have;

    if (!store_map_open(store, &image->map, &map, error) || !store_map_content(map, &have, error))
        return false;
    if (!digest_equal(&said, &have) || json_integer_value(json_object_get(config, "size")) != (json_int_t)store_map_size(map))
        return fail(error, "it has other blocks than its image ID says");
    return digest_is_none(&tree) || digest_is_none(&image->tree.tree) || digest_equal(&tree, &image->tree.tree) ||
           fail(error, "it has another root than its image ID says");
}

static bool check_layer(Store *store, const StoreLayerRef *layer, const json_t *manifest, const json_t *config, size_t index, GError **error)
{
    const json_t *descriptor = json_array_get(json_object_get(manifest, "layers"), index);
    const char *diff = json_string_value(json_array_get(json_object_get(json_object_get(config, "rootfs"), "diff_ids"), index));
    Digest listed = remote_index_digest(descriptor, "digest"), diff_id;
    auto_fd int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    LayerResult info;

    if (!diff || !digest_parse(diff, &diff_id) || !digest_equal(&listed, &layer->blob))
        return fail(error, "its manifest lists other layers");
    if (digest_is_none(&layer->recipe))
        return true; /* a blob under its own digest */
    if (!layer_recipe_info(store, &layer->recipe, &info, error))
        return false;
    if (!digest_equal(&info.blob, &layer->blob) || !digest_equal(&info.diff_id, &diff_id))
        return fail(error, "layer %zu is not what its config says", index + 1);
    return layer_write_out(store, &layer->recipe, true, nowhere, error);
}

static bool check_oci(Store *store, const StoreImage *image, const json_t *config, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) manifest = NULL;
    Digest id;

    if (!store_blob_get(store, &image->manifest, CONFIG_MAX, &bytes, error) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), CONFIG_MAX, "its manifest", &manifest, error))
        return false;
    id = remote_index_digest(json_object_get(manifest, "config"), "digest");
    if (!digest_equal(&id, &image->id) || json_array_size(json_object_get(manifest, "layers")) != image->layers->len)
        return fail(error, "its manifest is another image's");
    for (guint i = 0; i < image->layers->len; i++)
        if (!check_layer(store, image->layers->pdata[i], manifest, config, i, error))
            return false;
    return true;
}

static bool check_tree(Store *store, const TreeStored *tree, GError **error)
{
    return digest_is_none(&tree->tree) || digest_is_none(&tree->files) || tree_check_files(store, tree, error);
}

static bool check_image(Store *store, const StoreImage *image, GError **error)
{
    g_autoptr(json_t) config = NULL;

    return (store_image_config(store, &image->id, CONFIG_MAX, NULL, &config, error) &&
            (strcmp(image->kind, "disk") == 0 ? check_disk(store, image, config, error) : check_oci(store, image, config, error)) &&
            check_tree(store, &image->tree, error)) ||
           fail_prefix(error, "%s/%s was not taken over", image->name, image->kind);
}

/* --- pulling --- */

static bool is_published(Store *store, const GPtrArray *images)
{
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        g_autofree char *ref = g_strdup_printf("%s/%s", image->name, image->kind);
        g_autoptr(StoreImage) newest = NULL;

        if (!store_resolve(store, ref, image->kind, &newest, NULL) || !digest_equal(&newest->id, &image->id))
            return false;
    }
    return true;
}

static GHashTable *read_inputs(const json_t *record)
{
    GHashTable *inputs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    json_t *one;
    size_t i;

    json_array_foreach(json_object_get(record, "references"), i, one) {
        const char *role = json_string_value(json_array_get(one, 1)), *name = json_string_value(json_array_get(one, 2)),
                   *text = json_string_value(json_array_get(one, 3));
        Digest digest;

        if (role && name && text && strcmp(role, "input") == 0 && digest_parse(text, &digest))
            g_hash_table_insert(inputs, g_strdup(name), g_memdup2(&digest, sizeof(digest)));
    }
    return inputs;
}

static bool load_provenance(Store *store, const json_t *record, json_t **ret, GError **error)
{
    Digest digest = remote_index_digest(record, "provenance");
    g_autoptr(GBytes) bytes = NULL;

    *ret = NULL;
    return digest_is_none(&digest) ||
           (store_blob_get(store, &digest, PROVENANCE_MAX, &bytes, error) &&
            json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), PROVENANCE_MAX, "a set's provenance", ret, error));
}

/* A bake's key says "this is what those inputs give": that is believed of whom we trust. */
static bool publish_set(Store *store, const RemoteSet *from, GPtrArray *images, bool trusted, GError **error)
{
    const json_t *record = json_object_get(from->payload, "record");
    g_autoptr(GHashTable) inputs = read_inputs(record);
    g_autoptr(json_t) provenance = NULL;
    StoreSet set = {.name = from->name, .images = images, .parent = remote_index_digest(record, "parent"), .inputs = inputs};

    if (!load_provenance(store, record, &provenance, error))
        return false;
    set.provenance = provenance;
    if (trusted)
        set.key = remote_index_digest(record, "key");
    return store_publish(store, &set, error);
}

static bool fetch_set(Store *store, Remote *remote, const RemoteSet *set, GPtrArray *images, bool trusted, RemoteReport *report, GError **error)
{
    g_autoptr(RemoteFetch) fetch = NULL;
    g_autoptr(RemoteUnit) unit = NULL;

    if (!remote_unit_parse(json_object_get(set->payload, "unit"), &unit, error))
        return fail_prefix(error, "%s: index '%s'", remote_location(remote), set->key);
    if (!remote_fetch_new(store, remote, false, &fetch, error) || !remote_fetch_unit(fetch, unit, error))
        return false;
    remote_report_add(report, remote_fetch_report(fetch));
    for (guint i = 0; !trusted && i < images->len; i++)
        if (!check_image(store, images->pdata[i], error))
            return false;
    return publish_set(store, set, images, trusted, error);
}

bool remote_sync_pull(Store *store, Remote *remote, const RemoteSet *set, bool trusted, bool *ret_new, RemoteReport *report, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;

    *ret_new = false;
    if (!read_images(set, &images, error))
        return fail_prefix(error, "%s", remote_location(remote));
    if (is_published(store, images))
        return true;
    *ret_new = true;
    return fetch_set(store, remote, set, images, trusted, report, error);
}
