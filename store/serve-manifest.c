/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests, out and in. One comes in as it stands, byte for byte, when everything that it names is in the repository; what it refers to as its
 * subject may come later, and layers that must not be distributed need not come at all.
 */
#include "store/serve-private.h"

#include "base/checksum.h"
#include "base/error.h"
#include "base/scope.h"
#include "store/registry.h"
#include "store/segment.h"

#include <string.h>

#define OCI_ARTIFACT_TYPE "application/vnd.oci.artifact.manifest.v1+json"
#define DESCRIPTORS_MAX 20000
#define TAGS_MAX 100

static const char *const types[] = {OCI_MANIFEST_TYPE, OCI_INDEX_TYPE, OCI_ARTIFACT_TYPE, DOCKER_MANIFEST_TYPE, DOCKER_INDEX_TYPE, NULL};

const char *serve_manifest_type(const json_t *manifest)
{
    const char *type = json_string_value(json_object_get(manifest, "mediaType"));

    for (size_t i = 0; type && types[i]; i++)
        if (strcmp(types[i], type) == 0)
            return types[i];
    return json_is_array(json_object_get(manifest, "manifests")) ? OCI_INDEX_TYPE : OCI_MANIFEST_TYPE;
}

static bool is_index(const char *type)
{
    return strcmp(type, OCI_INDEX_TYPE) == 0 || strcmp(type, DOCKER_INDEX_TYPE) == 0;
}

/* --- out ------------------------------------------------------------------------------- */

static bool load(Store *store, const Digest *digest, GBytes **ret, json_t **ret_manifest, GError **error)
{
    return store_blob_get(store, digest, SERVE_MANIFEST_MAX, ret, error) &&
           json_parse(g_bytes_get_data(*ret, NULL), g_bytes_get_size(*ret), SERVE_MANIFEST_MAX, "a manifest", ret_manifest, error);
}

static bool find(ServeRequest *request, ServeTag *ret, GError **error)
{
    Store *store = request->server->store;

    *ret = (ServeTag){.manifest = digest_none};
    return request->by_digest ? serve_find_manifest(store, request->target.name, &request->digest, &ret->manifest, error)
                              : serve_find_tag(store, request->target.name, request->target.reference, ret, error);
}

static void unknown(ServeRequest *request, ServeReply *reply)
{
    serve_reply_error(reply, 404, "MANIFEST_UNKNOWN", "repository '%s' has no manifest '%s'", request->target.name, request->target.reference);
}

void serve_manifest_get(ServeRequest *request, ServeReply *reply)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) manifest = NULL;
    char oci[DIGEST_OCI_SIZE];
    const char *named;
    ServeTag tag;

    if (!find(request, &tag, &error) ||
        (!digest_is_none(&tag.manifest) && !load(request->server->store, &tag.manifest, &bytes, &manifest, &error))) {
        serve_reply_failure(reply, error);
        return;
    }
    if (!bytes) {
        unknown(request, reply);
        return;
    }
    named = request->by_digest ? request->digest.text : *tag.wide ? tag.wide : digest_to_oci(&tag.manifest, oci);
    serve_reply_header(reply, "Docker-Content-Digest", "%s", named);
    (void)g_strlcpy(reply->digest, named, sizeof reply->digest);
    if (serve_reply_known(reply, request, named))
        return;
    serve_reply_bytes(reply, 200, g_steal_pointer(&bytes), serve_manifest_type(manifest));
}

/* What a tag of the store's own means can't be taken from it here. */
static bool own_tag(ServeRequest *request, bool *ret, GError **error)
{
    g_autoptr(StoreImage) own = NULL;
    bool channel;
    int64_t at;

    if (!serve_view_tag(request->server->store, request->target.name, request->target.reference, &own, &at, &channel, error))
        return false;
    *ret = own != NULL;
    return true;
}

static void delete_tag(ServeRequest *request, ServeReply *reply)
{
    const char *tag = request->target.reference;
    g_autoptr(GError) error = NULL;
    bool own, found = false;

    if (!own_tag(request, &own, &error) || (!own && !serve_tag_remove(request->server->store, request->target.name, tag, &found, &error)))
        serve_reply_failure(reply, error);
    else if (own)
        serve_reply_error(reply, 405, "UNSUPPORTED", "'%s' is what this store calls an image: kiln rm and kiln promote take it away", tag);
    else if (found)
        reply->status = 202;
    else
        unknown(request, reply);
}

/* The image that it was published as goes with it, and what holds that holds both. */
static void delete_manifest(ServeRequest *request, ServeReply *reply)
{
    Store *store = request->server->store;
    const char *name = request->target.name;
    g_autoptr(GError) error = NULL;
    g_autoptr(StoreImage) image = NULL;
    bool found = true, ok;
    Digest manifest;

    ok = serve_manifest_find(store, name, &request->digest, &manifest, &error);
    if (ok && digest_is_none(&manifest)) {
        ok = serve_find_manifest(store, name, &request->digest, &manifest, &error);
        if (ok && !digest_is_none(&manifest))
            serve_reply_error(reply, 405, "UNSUPPORTED", "this image was not pushed: kiln rm takes it away");
        else if (ok)
            unknown(request, reply);
    } else if (ok) {
        ok = serve_view_image(store, name, &manifest, &image, &error);
        if (ok && image && !store_remove_image(store, image, &error)) {
            serve_reply_error(reply, 405, "UNSUPPORTED", "%s", error->message);
            return;
        }
        ok = ok && (image || serve_manifest_remove(store, name, &request->digest, &found, &error));
        reply->status = ok ? 202 : 0;
    }
    if (!ok)
        serve_reply_failure(reply, error);
}

void serve_manifest_delete(ServeRequest *request, ServeReply *reply)
{
    AUTO_LOCK(&request->server->manifests);
    if (request->by_digest)
        delete_manifest(request, reply);
    else
        delete_tag(request, reply);
}

/* --- in ---------------------------------------------------------------------------------- */

typedef struct Incoming {
    ServeRequest *request;
    ServeReply *reply;
    json_t *manifest;
    const char *type;
    ServePush push;
    GArray *links;
    GPtrArray *tags;
    char *subject;
    unsigned descriptors;
} Incoming;

static bool refuse(Incoming *in, const char *code, const char *why)
{
    serve_reply_error(in->reply, 400, code, "%s", why);
    return false;
}

static bool check_type(Incoming *in)
{
    g_autofree char *said = in->request->content_type ? serve_media_type(in->request->content_type) : NULL;
    const json_t *type = json_object_get(in->manifest, "mediaType");

    if (type && (!json_is_string(type) || !g_strv_contains(types, json_string_value(type))))
        return refuse(in, "MANIFEST_INVALID", "a manifest of this media type is not taken");
    in->type = serve_manifest_type(in->manifest);
    if (said && g_strv_contains(types, said) && strcmp(said, in->type) != 0) {
        if (type)
            return refuse(in, "MANIFEST_INVALID", "the manifest's mediaType is not its Content-Type");
        if (is_index(said) != is_index(in->type))
            return refuse(in, "MANIFEST_INVALID", "the manifest is not what its Content-Type says");
    }
    if (strcmp(in->type, OCI_ARTIFACT_TYPE) != 0 && json_integer_value(json_object_get(in->manifest, "schemaVersion")) != 2)
        return refuse(in, "MANIFEST_INVALID", "only manifests of schemaVersion 2 are taken");
    return true;
}

static bool parse(Incoming *in)
{
    const GByteArray *body = in->request->body;
    g_autoptr(GError) error = NULL;

    if (body->len == 0 || !json_parse((const char *)body->data, body->len, SERVE_MANIFEST_MAX, "the manifest", &in->manifest, &error) ||
        !json_is_object(in->manifest))
        return refuse(in, "MANIFEST_INVALID", error ? error->message : "the manifest is no JSON object");
    return check_type(in);
}

static bool is_wide(const GByteArray *body, const ServeDigest *digest, bool *ret, GError **error)
{
    g_autoptr(ChecksumStream) stream = NULL;
    g_autofree char *hex = NULL;

    if (!checksum_stream_new("sha512", &stream, error) || !checksum_stream_update(stream, body->data, body->len, error) ||
        !checksum_stream_final(stream, &hex, error))
        return false;
    *ret = strcmp(hex, digest->text + strlen("sha512:")) == 0;
    return true;
}

static bool check_digest(Incoming *in)
{
    const GByteArray *body = in->request->body;
    const ServeDigest *digest = &in->request->digest;
    g_autoptr(GError) error = NULL;
    bool same;

    digest_of(body->data, body->len, &in->push.manifest);
    if (!in->request->by_digest)
        return true;
    if (digest->wide)
        in->push.wide = digest->text;
    same = !digest->wide && digest_equal(&digest->narrow, &in->push.manifest);
    if (digest->wide && !is_wide(body, digest, &same, &error)) {
        serve_reply_failure(in->reply, error);
        return false;
    }
    return same || refuse(in, "DIGEST_INVALID", "the manifest does not have the digest that it is pushed by");
}

/* --- tags --- */

static bool take_tag(Incoming *in, const char *tag)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(StoreImage) own = NULL;
    bool channel;
    int64_t at;

    if (!serve_tag_is_valid(tag) || in->tags->len >= TAGS_MAX)
        return refuse(in, "MANIFEST_INVALID", "a tag is malformed, or there are too many");
    if (!serve_view_tag(in->request->server->store, in->request->target.name, tag, &own, &at, &channel, &error)) {
        serve_reply_failure(in->reply, error);
        return false;
    }
    if (channel) {
        serve_reply_error(in->reply, 403, "DENIED", "'%s' is a channel of '%s': kiln promote moves it, and a push does not", tag, in->request->target.name);
        return false;
    }
    g_ptr_array_add(in->tags, g_strdup(tag));
    return true;
}

static bool take_tags(Incoming *in)
{
    const GPtrArray *query = in->request->target.query;

    if (!in->request->by_digest && !take_tag(in, in->request->target.reference))
        return false;
    for (guint i = 0; i + 1 < query->len; i += 2)
        if (strcmp(query->pdata[i], "tag") == 0 && !take_tag(in, query->pdata[i + 1]))
            return false;
    return true;
}

/* --- what it names --- */

/* *ret_size: what it says; false: it is no descriptor. */
static bool read_descriptor(Incoming *in, const json_t *descriptor, ServeDigest *ret, uint64_t *ret_size)
{
    const char *digest = json_string_value(json_object_get(descriptor, "digest"));
    const json_t *size = json_object_get(descriptor, "size");

    if (++in->descriptors > DESCRIPTORS_MAX)
        return refuse(in, "MANIFEST_INVALID", "the manifest names too much");
    if (!digest || !serve_digest_parse(digest, ret))
        return refuse(in, "MANIFEST_INVALID", "a descriptor has no digest that is sha256 or sha512");
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return refuse(in, "MANIFEST_INVALID", "a descriptor has no size");
    *ret_size = (uint64_t)json_integer_value(size);
    return true;
}

static bool is_nondistributable(const json_t *descriptor)
{
    const char *type = json_string_value(json_object_get(descriptor, "mediaType"));

    return type && (strstr(type, "nondistributable") || strstr(type, ".rootfs.foreign."));
}

static bool missing(Incoming *in, const char *digest)
{
    serve_reply_error(in->reply, 404, "MANIFEST_BLOB_UNKNOWN", "the manifest names %s, which is not in repository '%s'", digest,
                      in->request->target.name);
    return false;
}

/* gc may pack a segment of the store anew, and must not for a manifest that names it: what was pushed keeps a file of its own. */
static bool copy_segment(Incoming *in, ServeLink *link)
{
    Store *store = in->request->server->store;
    auto_fd int fd = digest_is_none(&link->pieces) ? segment_open_file(store, &link->blob) : -1;
    g_autoptr(GError) error = NULL;
    Digest same;
    bool ok = digest_is_none(&link->pieces) || (store_open_unnamed(store, &fd, &error) && serve_pieces_write(store, &link->pieces, fd, &error));

    if (ok && fd >= 0 && store_blob_put_file(store, fd, &same, &link->size, &error) && digest_equal(&same, &link->blob)) {
        link->segment = false;
        link->pieces = digest_none;
        return true;
    }
    if (!error)
        (void)fail(&error, "a segment of store '%s' went while it was pushed again", store_path(store));
    serve_reply_failure(in->reply, error);
    return false;
}

static bool take_blob(Incoming *in, const json_t *descriptor)
{
    ServeNamedLink named = {.digest = ""};
    g_autoptr(GError) error = NULL;
    ServeDigest digest;
    uint64_t size;
    bool found;

    if (!read_descriptor(in, descriptor, &digest, &size))
        return false;
    if (!serve_find_blob(in->request->server->store, in->request->target.name, &digest, &named.link, &found, &error)) {
        serve_reply_failure(in->reply, error);
        return false;
    }
    if (!found)
        return is_nondistributable(descriptor) || missing(in, digest.text);
    if (named.link.segment && !copy_segment(in, &named.link))
        return false;
    if (named.link.size != size)
        return refuse(in, "MANIFEST_INVALID", "a descriptor has another size than its blob");
    (void)g_strlcpy(named.digest, digest.text, sizeof named.digest);
    g_array_append_val(in->links, named);
    return true;
}

static bool take_child(Incoming *in, const json_t *descriptor)
{
    g_autoptr(GError) error = NULL;
    ServeDigest digest;
    Digest manifest;
    uint64_t size;

    if (!read_descriptor(in, descriptor, &digest, &size))
        return false;
    if (!serve_find_manifest(in->request->server->store, in->request->target.name, &digest, &manifest, &error)) {
        serve_reply_failure(in->reply, error);
        return false;
    }
    return !digest_is_none(&manifest) || missing(in, digest.text);
}

static bool take_list(Incoming *in, const char *key, bool (*take)(Incoming *, const json_t *))
{
    const json_t *list = json_object_get(in->manifest, key), *descriptor;
    size_t i;

    if (!list)
        return true;
    if (!json_is_array(list))
        return refuse(in, "MANIFEST_INVALID", "a list of the manifest is none");
    json_array_foreach((json_t *)list, i, descriptor)
        if (!take(in, descriptor))
            return false;
    return true;
}

static bool take_subject(Incoming *in)
{
    const json_t *subject = json_object_get(in->manifest, "subject");
    ServeDigest digest;
    uint64_t size;

    if (!subject || json_is_null(subject))
        return true;
    if (!read_descriptor(in, subject, &digest, &size))
        return false;
    in->push.subject = in->subject = g_strdup(digest.text);
    return true;
}

static bool take_contents(Incoming *in)
{
    const json_t *config = json_object_get(in->manifest, "config");

    if (is_index(in->type))
        return (json_is_array(json_object_get(in->manifest, "manifests")) || refuse(in, "MANIFEST_INVALID", "an index has a list of manifests")) &&
               take_list(in, "manifests", take_child);
    if (strcmp(in->type, OCI_ARTIFACT_TYPE) == 0)
        return take_list(in, "blobs", take_blob);
    return (json_is_object(config) || refuse(in, "MANIFEST_INVALID", "a manifest has a config and layers")) && take_blob(in, config) &&
           take_list(in, "layers", take_blob);
}

/* --- keeping --- */

static bool put(Server *server, const ServePush *push, GError **error)
{
    AUTO_LOCK(&server->manifests);
    return serve_manifest_put(server->store, push, error);
}

static bool keep(Incoming *in)
{
    Server *server = in->request->server;
    const GByteArray *body = in->request->body;
    g_autoptr(GError) error = NULL;
    Digest same;

    g_ptr_array_add(in->tags, NULL);
    in->push.tags = (const char *const *)in->tags->pdata;
    in->push.repository = in->request->target.name;
    in->push.links = in->links;
    if (store_blob_put(server->store, body->data, body->len, &same, &error) &&
        serve_publish(server, &in->push, in->manifest, in->request->user, &in->push.image, &error) &&
        put(server, &in->push, &error))
        return true;
    if (error->code == KILN_ERROR_NOT_FOUND) /* taken away while it was looked at */
        serve_reply_error(in->reply, 404, "MANIFEST_BLOB_UNKNOWN", "%s", error->message);
    else
        serve_reply_failure(in->reply, error);
    return false;
}

static void answer(Incoming *in)
{
    g_autofree char *tags = NULL;
    char oci[DIGEST_OCI_SIZE];
    const char *named = in->request->by_digest ? in->request->digest.text : digest_to_oci(&in->push.manifest, oci);

    in->reply->status = 201;
    serve_reply_header(in->reply, "Location", "/v2/%s/manifests/%s", in->push.repository, named);
    serve_reply_header(in->reply, "Docker-Content-Digest", "%s", named);
    (void)g_strlcpy(in->reply->digest, named, sizeof in->reply->digest);
    if (in->subject)
        serve_reply_header(in->reply, "OCI-Subject", "%s", in->subject);
    tags = g_strjoinv(", ", (char **)in->tags->pdata);
    if (*tags && in->request->by_digest)
        serve_reply_header(in->reply, "OCI-Tag", "%s", tags);
}

void serve_manifest_take(ServeRequest *request, ServeReply *reply)
{
    Incoming in = {.request = request, .reply = reply};

    in.links = g_array_new(FALSE, TRUE, sizeof(ServeNamedLink));
    in.tags = g_ptr_array_new_with_free_func(g_free);
    if (check_digest(&in) && parse(&in) && take_tags(&in) && take_subject(&in) && take_contents(&in) && keep(&in))
        answer(&in);
    json_decref(in.manifest);
    g_array_unref(in.links);
    g_ptr_array_unref(in.tags);
    g_free(in.subject);
}
