/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists: tags, repositories, what refers to a manifest. In pages, each with a link to the next.
 */
#include "store/serve-private.h"

#include "base/error.h"
#include "store/registry.h"

#include <string.h>

#define PAGE_MAX 10000
#define REFERRERS_PAGE 100

static int compare_texts(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted by bytes; owned by @set. */
static GPtrArray *sorted(GHashTable *set)
{
    GPtrArray *list = g_ptr_array_new();
    GHashTableIter iter;
    gpointer key;

    g_hash_table_iter_init(&iter, set);
    while (g_hash_table_iter_next(&iter, &key, NULL))
        g_ptr_array_add(list, key);
    g_ptr_array_sort(list, compare_texts);
    return list;
}

/* The query's "n"; false: it is none. */
static bool page_size(const ServeRequest *request, uint64_t *ret, ServeReply *reply)
{
    const char *text = serve_target_query(&request->target, "n");

    *ret = PAGE_MAX;
    if (!text)
        return true;
    if (!g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT32, ret, NULL)) {
        serve_reply_error(reply, 400, "PAGINATION_NUMBER_INVALID", "n is a number from 0 on");
        return false;
    }
    *ret = MIN(*ret, PAGE_MAX);
    return true;
}

/* The page behind @last as an array of texts; a link when more follows. */
static json_t *page(GPtrArray *list, uint64_t n, const char *last, const char *path, ServeReply *reply)
{
    json_t *texts = json_array();
    const char *text = NULL;

    for (guint i = 0; i < list->len; i++) {
        if (last && strcmp(list->pdata[i], last) <= 0)
            continue;
        if (json_array_size(texts) == n) {
            g_autofree char *escaped = text ? serve_escape(text) : NULL;

            if (text)
                serve_reply_header(reply, "Link", "<%s?n=%" G_GUINT64_FORMAT "&last=%s>; rel=\"next\"", path, n, escaped);
            break;
        }
        text = list->pdata[i];
        json_array_append_new(texts, json_string(text));
    }
    return texts;
}

void serve_list_tags(ServeRequest *request, ServeReply *reply)
{
    Store *store = request->server->store;
    const char *name = request->target.name;
    g_autoptr(GHashTable) set = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GPtrArray) list = NULL;
    g_autofree char *path = g_strdup_printf("/v2/%s/tags/list", name);
    g_autoptr(GError) error = NULL;
    bool own, pushed;
    uint64_t n;

    if (!page_size(request, &n, reply))
        return;
    if (!serve_view_tags(store, name, set, &own, &error) || !serve_repository_exists(store, name, &pushed, &error) ||
        !serve_tags_list(store, name, set, &error)) {
        serve_reply_failure(reply, error);
        return;
    }
    if (!own && !pushed && g_hash_table_size(set) == 0) {
        serve_reply_error(reply, 404, "NAME_UNKNOWN", "there is no repository '%s'", name);
        return;
    }
    list = sorted(set);
    serve_reply_json(reply, 200, json_pack("{s:s, s:o}", "name", name, "tags", page(list, n, serve_target_query(&request->target, "last"), path, reply)),
                     "application/json");
}

void serve_list_repositories(ServeRequest *request, ServeReply *reply)
{
    g_autoptr(GHashTable) set = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(GError) error = NULL;
    uint64_t n;

    if (!page_size(request, &n, reply))
        return;
    if (!serve_view_repositories(request->server->store, set, &error) || !serve_repositories_list(request->server->store, set, &error)) {
        serve_reply_failure(reply, error);
        return;
    }
    list = sorted(set);
    serve_reply_json(reply, 200, json_pack("{s:o}", "repositories", page(list, n, serve_target_query(&request->target, "last"), "/v2/_catalog", reply)),
                     "application/json");
}

/* --- referrers -------------------------------------------------------------------------- */

/* NULL for one of another type. */
static json_t *describe(const Digest *digest, const json_t *manifest, size_t size, const char *wanted)
{
    const char *artifact = json_string_value(json_object_get(manifest, "artifactType")), *type = serve_manifest_type(manifest);
    const json_t *annotations = json_object_get(manifest, "annotations");
    char oci[DIGEST_OCI_SIZE];
    json_t *descriptor;

    if ((!artifact || !*artifact) && strcmp(type, OCI_INDEX_TYPE) != 0)
        artifact = json_string_value(json_object_get(json_object_get(manifest, "config"), "mediaType"));
    if (wanted && g_strcmp0(artifact, wanted) != 0)
        return NULL;
    descriptor = json_pack("{s:s, s:s, s:I}", "mediaType", type, "digest", digest_to_oci(digest, oci), "size", (json_int_t)size);
    if (artifact && *artifact)
        json_object_set_new(descriptor, "artifactType", json_string(artifact));
    if (json_is_object(annotations))
        json_object_set(descriptor, "annotations", (json_t *)annotations);
    return descriptor;
}

static bool add_referrer(Store *store, const Digest *digest, const char *wanted, json_t *to, size_t *bytes, GError **error)
{
    g_autoptr(GBytes) text = NULL;
    g_autoptr(json_t) manifest = NULL;
    json_t *descriptor;
    size_t size;

    if (!store_blob_get(store, digest, SERVE_MANIFEST_MAX, &text, error))
        return false;
    size = g_bytes_get_size(text);
    if (!json_parse(g_bytes_get_data(text, NULL), size, SERVE_MANIFEST_MAX, "a manifest", &manifest, error))
        return false;
    descriptor = describe(digest, manifest, size, wanted);
    if (!descriptor)
        return true;
    *bytes += json_object_get(descriptor, "annotations") ? size : 512;
    return json_array_append_new(to, descriptor) == 0;
}

/* Media types have no spaces; a '+' that nobody escaped has become one. */
static char *wanted_type(const ServeRequest *request)
{
    const char *text = serve_target_query(&request->target, "artifactType");

    return text ? g_strdelimit(g_strdup(text), " ", '+') : NULL;
}

static void link_next(const ServeRequest *request, const Digest *last, const char *wanted, ServeReply *reply)
{
    g_autofree char *escaped = wanted ? serve_escape(wanted) : NULL;
    char oci[DIGEST_OCI_SIZE];

    serve_reply_header(reply, "Link", "</v2/%s/referrers/%s?last=%s%s%s>; rel=\"next\"", request->target.name, request->digest.text,
                       digest_to_oci(last, oci), wanted ? "&artifactType=" : "", wanted ? escaped : "");
}

void serve_list_referrers(ServeRequest *request, ServeReply *reply)
{
    g_autoptr(json_t) index = json_pack("{s:i, s:s, s:[]}", "schemaVersion", 2, "mediaType", OCI_INDEX_TYPE, "manifests");
    g_autofree char *wanted = wanted_type(request);
    g_autoptr(GArray) list = NULL;
    g_autoptr(GError) error = NULL;
    size_t bytes = 0;

    if (!serve_referrers(request->server->store, request->target.name, request->digest.text, serve_target_query(&request->target, "last"),
                         REFERRERS_PAGE + 1, &list, &error)) {
        serve_reply_failure(reply, error);
        return;
    }
    for (guint i = 0; i < list->len; i++) {
        if (i == REFERRERS_PAGE || bytes > SERVE_MANIFEST_MAX / 2) {
            link_next(request, &g_array_index(list, Digest, i - 1), wanted, reply);
            break;
        }
        if (!add_referrer(request->server->store, &g_array_index(list, Digest, i), wanted, json_object_get(index, "manifests"), &bytes, &error)) {
            serve_reply_failure(reply, error);
            return;
        }
    }
    if (wanted)
        serve_reply_header(reply, "OCI-Filters-Applied", "artifactType");
    serve_reply_json(reply, 200, g_steal_pointer(&index), OCI_INDEX_TYPE);
}
