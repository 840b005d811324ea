/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index objects: written whole, read with suspicion.
 */
#include "store/remote-index.h"

#include "base/error.h"

#define FORMAT "remote 1"
#define ENTRIES_MAX 1000000

/* --- keys --- */

char *remote_segment_key(const Digest *segment, bool cache)
{
    return remote_digest_key(cache ? "cache/segments" : "segments", segment);
}

char *remote_table_key(const Digest *segment, const Digest *table, bool cache)
{
    char name[DIGEST_HEX_SIZE], hex[DIGEST_HEX_SIZE];

    return g_strdup_printf("%smoved/%s/%s", cache ? "cache/" : "", digest_to_hex(segment, name), digest_to_hex(table, hex));
}

char *remote_blob_key(const Digest *blob, bool packed, bool cache)
{
    g_autofree char *key = remote_digest_key(cache ? "cache/blobs" : "blobs", blob);

    return g_strconcat(key, packed ? ".zst" : NULL, NULL);
}

/* --- envelopes --- */

static char *signed_text(const char *key, const char *payload)
{
    return g_strdup_printf("kiln " FORMAT "\n%s\n%s", key, payload);
}

static bool add_signature(json_t *envelope, const char *key, const char *payload, const SignatureKey *signer, GError **error)
{
    g_autofree char *text = signed_text(key, payload), *code = NULL;
    uint8_t signature[SIGNATURE_SIZE];
    char hex[DIGEST_HEX_SIZE];
    Digest id;

    if (!signature_sign(signer, text, strlen(text), signature, error))
        return false;
    signature_key_id(signer, &id);
    code = g_base64_encode(signature, sizeof(signature));
    json_object_set_new(envelope, "signature", json_pack("{s:s, s:s}", "key", digest_to_hex(&id, hex), "signature", code));
    return true;
}

bool remote_index_put(Remote *remote, const char *key, const json_t *payload, const SignatureKey *signer, GError **error)
{
    g_autofree char *text = json_canonical(payload), *bytes = NULL;
    g_autoptr(json_t) envelope = json_pack("{s:s, s:s}", "kiln", FORMAT, "payload", text);

    if (signer && !add_signature(envelope, key, text, signer, error))
        return false;
    bytes = json_canonical(envelope);
    if (strlen(bytes) > REMOTE_INDEX_MAX)
        return fail(error, "an index for remote '%s' is larger than %zu bytes", remote_location(remote), REMOTE_INDEX_MAX);
    return remote_put(remote, key, bytes, strlen(bytes), false, NULL, error);
}

static bool check_signature(const json_t *envelope, const char *key, const char *payload, const SignatureKey *trusted, GError **error)
{
    const char *code = json_string_value(json_object_get(json_object_get(envelope, "signature"), "signature"));
    g_autofree char *text = signed_text(key, payload);
    g_autofree guchar *signature = NULL;
    gsize size = 0;

    if (!code)
        return fail(error, "it is not signed");
    signature = g_base64_decode(code, &size);
    return signature_verify(trusted, text, strlen(text), signature, size) || fail(error, "it is not signed by the key that was given");
}

static bool open_envelope(const json_t *envelope, const char *key, const SignatureKey *trusted, json_t **ret, GError **error)
{
    const char *format, *payload;

    if (!json_get_string(envelope, "kiln", "", &format, error) || !json_get_string(envelope, "payload", NULL, &payload, error))
        return false;
    if (strcmp(format, FORMAT) != 0 || !payload)
        return fail(error, "it is none that this kiln reads");
    return (!trusted || check_signature(envelope, key, payload, trusted, error)) &&
           json_parse(payload, strlen(payload), REMOTE_INDEX_MAX, "its text", ret, error);
}

bool remote_index_get(Remote *remote, const char *key, const SignatureKey *trusted, json_t **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) envelope = NULL;

    if (!remote_get(remote, key, NULL, REMOTE_INDEX_MAX, &bytes, error))
        return false;
    return (json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REMOTE_INDEX_MAX, "the index", &envelope, error) &&
            open_envelope(envelope, key, trusted, ret, error)) ||
           fail_prefix(error, "%s: index '%s'", remote_location(remote), key);
}

Digest remote_index_digest(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    Digest digest;

    return text && digest_parse(text, &digest) ? digest : digest_none;
}

/* --- units --- */

static void segment_place_free(gpointer data)
{
    RemoteSegmentPlace *place = data;

    if (place->tables)
        g_array_unref(place->tables);
    g_free(place);
}

static RemoteUnit *unit_new(void)
{
    RemoteUnit *unit = g_new0(RemoteUnit, 1);

    unit->blobs = g_hash_table_new_full(digest_hash, digest_equal_gfunc, NULL, g_free);
    unit->maps = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    unit->segments = g_hash_table_new_full(digest_hash, digest_equal_gfunc, NULL, segment_place_free);
    return unit;
}

void remote_unit_free(RemoteUnit *unit)
{
    if (!unit)
        return;
    g_hash_table_unref(unit->blobs);
    g_hash_table_unref(unit->maps);
    g_hash_table_unref(unit->segments);
    g_free(unit);
}

static bool take_digest(const json_t *value, Digest *ret)
{
    return json_is_string(value) && digest_parse(json_string_value(value), ret);
}

static bool take_blob(RemoteUnit *unit, const json_t *one)
{
    RemoteBlobPlace place = {.stored = (uint64_t)json_integer_value(json_array_get(one, 1)),
                             .packed = json_is_true(json_array_get(one, 2)),
                             .cache = json_is_true(json_array_get(one, 3))};
    RemoteBlobPlace *kept;

    if (!take_digest(json_array_get(one, 0), &place.digest) || json_integer_value(json_array_get(one, 1)) < 0)
        return false;
    kept = g_memdup2(&place, sizeof(place));
    (void)g_hash_table_replace(unit->blobs, &kept->digest, kept);
    return true;
}

static bool take_map(RemoteUnit *unit, const json_t *one)
{
    Digest digest;

    if (!take_digest(one, &digest))
        return false;
    g_hash_table_add(unit->maps, g_memdup2(&digest, sizeof(digest)));
    return true;
}

static bool take_tables(RemoteSegmentPlace *place, const json_t *list)
{
    json_t *one;
    size_t i;

    place->tables = g_array_new(FALSE, FALSE, sizeof(RemoteTablePlace));
    json_array_foreach((json_t *)list, i, one) {
        RemoteTablePlace table = {.cache = json_is_true(json_array_get(one, 1))};

        if (!take_digest(json_array_get(one, 0), &table.table))
            return false;
        g_array_append_val(place->tables, table);
    }
    return true;
}

static bool take_segment(RemoteUnit *unit, const json_t *one)
{
    RemoteSegmentPlace *place = g_new0(RemoteSegmentPlace, 1);
    const json_t *where = json_array_get(one, 1);

    place->cache = json_is_true(where);
    if (!take_digest(json_array_get(one, 0), &place->segment) || !(json_is_boolean(where) || (json_is_array(where) && take_tables(place, where)))) {
        segment_place_free(place);
        return false;
    }
    (void)g_hash_table_replace(unit->segments, &place->segment, place);
    return true;
}

static bool take_all(RemoteUnit *unit, const json_t *json, const char *name, bool (*take)(RemoteUnit *unit, const json_t *one), GError **error)
{
    const json_t *list = json_object_get(json, name);
    json_t *one;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) > ENTRIES_MAX)
        return fail(error, "'%s' is no list, or too long", name);
    json_array_foreach((json_t *)list, i, one)
        if (!take(unit, one))
            return fail(error, "entry %zu of '%s' is wrong", i, name);
    return true;
}

bool remote_unit_parse(const json_t *json, RemoteUnit **ret, GError **error)
{
    g_autoptr(RemoteUnit) unit = unit_new();

    if (!take_all(unit, json, "blobs", take_blob, error) || !take_all(unit, json, "maps", take_map, error) ||
        !take_all(unit, json, "segments", take_segment, error))
        return false;
    *ret = g_steal_pointer(&unit);
    return true;
}
