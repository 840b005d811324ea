/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A remote that is a repository of an OCI registry, `kiln serve` among them. An object is a small manifest under a tag that says its key:
 *
 *     {"artifactType": "application/vnd.kiln.remote.v1", "config": the empty one, "layers": [the bytes], "annotations": {"kiln.key": KEY}}
 *
 * The blob is there before the manifest, and the manifest before the tag, so nobody sees half an object. The annotation keeps manifests of two
 * objects with the same bytes apart, or taking one away would take both.
 *
 * Tags have 128 characters and no slashes. A digest in a key (64 hex digits) is 43 characters of base64 in it; '_' begins what stands for something:
 *
 *     __  '_'      _s  '/'      _m  '-' at the start      _d...  a digest      _f...  its first two digits, '/', the digest
 *
 * A key that is still too long has the tag _h and its SHA-256. Lists are read from the tags, and from the manifests of those; sizes are not known by
 * them.
 */
#include "store/remote-members.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/scope.h"
#include "store/oci-end.h"
#include "store/registry-private.h"

#include <string.h>
#include <sys/mman.h>

#define OBJECT_TYPE "application/vnd.kiln.remote.v1"
#define BYTES_TYPE "application/octet-stream"
#define KEY_ANNOTATION "kiln.key"
#define TAG_MAX 128
#define HEX 64
#define BASE64 43
#define PIECE (32u << 20) /* what is asked for at once, and held in memory */
#define WHOLE_MAX (4ull << 30) /* of a registry that answers no ranges */

typedef struct RegistryRemote {
    Registry *registry;
    bool has_config;
    char *key; /* that was looked at last */
    Digest digest;
    uint64_t size;
} RegistryRemote;

/* --- keys and tags --- */

static bool is_hex(const char *text)
{
    return strspn(text, "0123456789abcdef") == HEX;
}

static void append_digest(GString *to, char kind, const char *hex)
{
    g_autofree char *only = g_strndup(hex, HEX), *text = NULL;
    Digest digest;

    (void)digest_parse(only, &digest);
    text = g_base64_encode(digest.bytes, DIGEST_SIZE);
    for (char *c = text; *c; c++)
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    g_string_append_printf(to, "_%c%.*s", kind, BASE64, text);
}

/* Short enough, whatever the key is. */
static char *tag_of_long(const char *key)
{
    g_autoptr(GString) tag = g_string_new(NULL);
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    digest_of_string(key, &digest);
    append_digest(tag, 'h', digest_to_hex(&digest, hex));
    return g_string_free(g_steal_pointer(&tag), FALSE);
}

static char *tag_of(const char *key)
{
    g_autoptr(GString) tag = g_string_new(NULL);

    for (const char *c = key; *c;) {
        bool starts = c == key || strchr("/-", c[-1]);

        if (starts && strlen(c) > 3 && c[2] == '/' && is_hex(c + 3) && strncmp(c, c + 3, 2) == 0) {
            append_digest(tag, 'f', c + 3);
            c += 3 + HEX;
        } else if (starts && is_hex(c)) {
            append_digest(tag, 'd', c);
            c += HEX;
        } else {
            if (*c == '_' || *c == '/' || (*c == '-' && tag->len == 0))
                g_string_append_printf(tag, "_%c", *c == '_' ? '_' : *c == '/' ? 's' : 'm');
            else
                g_string_append_c(tag, *c);
            c++;
        }
    }
    return tag->len > TAG_MAX ? tag_of_long(key) : g_string_free(g_steal_pointer(&tag), FALSE);
}

static bool read_digest(const char *text, GString *to, bool folder)
{
    char padded[BASE64 + 2], hex[DIGEST_HEX_SIZE];
    g_autofree guchar *bytes = NULL;
    Digest digest;
    gsize size;

    if (strnlen(text, BASE64) < BASE64)
        return false;
    for (int i = 0; i < BASE64; i++)
        padded[i] = text[i] == '-' ? '+' : text[i] == '_' ? '/' : text[i];
    padded[BASE64] = '=';
    padded[BASE64 + 1] = '\0';
    bytes = g_base64_decode(padded, &size);
    if (size != DIGEST_SIZE)
        return false;
    memcpy(digest.bytes, bytes, DIGEST_SIZE);
    digest_to_hex(&digest, hex);
    if (folder)
        g_string_append_printf(to, "%.2s/", hex);
    g_string_append(to, hex);
    return true;
}

/* NULL: somebody else's tag, or one that says no key (_h). Only what tag_of() makes is read. */
static char *key_of(const char *tag)
{
    g_autoptr(GString) key = g_string_new(NULL);
    g_autofree char *again = NULL;

    for (const char *c = tag; *c;) {
        if (*c != '_') {
            g_string_append_c(key, *c++);
            continue;
        }
        if (c[1] == 'd' || c[1] == 'f') {
            if (!read_digest(c + 2, key, c[1] == 'f'))
                return NULL;
            c += 2 + BASE64;
            continue;
        }
        if (!c[1] || !strchr("_sm", c[1]))
            return NULL;
        g_string_append_c(key, c[1] == 's' ? '/' : c[1] == 'm' ? '-' : '_');
        c += 2;
    }
    again = tag_of(key->str);
    if (strcmp(again, tag) != 0)
        return NULL;
    return g_string_free(g_steal_pointer(&key), FALSE);
}

/* --- opening --- */

static void remote_registry_close(void *self)
{
    RegistryRemote *r = self;

    registry_close(r->registry);
    g_free(r->key);
    g_free(r);
}

static bool remote_registry_open(const char *location, const RemoteOptions *options, void **ret, GError **error)
{
    g_auto(RegistryRef) ref = {0};
    RegistryRemote *r;

    if (!registry_ref_parse(location, &ref, error))
        return false;
    if (ref.tag || !digest_is_none(&ref.digest))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no remote: its objects are the tags of a repository, docker://HOST/REPOSITORY", location);
    *ret = r = g_new0(RegistryRemote, 1);
    return registry_open(&ref, &(RegistryOptions){.push = options->create, .plain_http = options->plain_http}, &r->registry, error);
}

/* --- looking --- */

static void forget(RegistryRemote *r)
{
    g_clear_pointer(&r->key, g_free);
}

static bool get_manifest(RegistryRemote *r, const char *tag, json_t **ret, const char **ret_key, GError **error)
{
    g_autofree char *type = NULL;
    g_autoptr(GBytes) bytes = NULL;
    Digest ignored;

    if (!registry_get_manifest(r->registry, tag, &bytes, &type, &ignored, error) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "an object's manifest", ret, error))
        return false;
    *ret_key = json_string_value(json_object_get(json_object_get(*ret, "annotations"), KEY_ANNOTATION));
    return true;
}

/* Its bytes' digest and size; KILN_ERROR_NOT_FOUND. */
static bool look(RegistryRemote *r, const char *key, GError **error)
{
    g_autofree char *tag = tag_of(key);
    g_autoptr(json_t) manifest = NULL;
    const json_t *layers;
    const char *said;

    if (g_strcmp0(key, r->key) == 0)
        return true;
    forget(r);
    if (!get_manifest(r, tag, &manifest, &said, error))
        return false;
    layers = json_object_get(manifest, "layers");
    if (g_strcmp0(said, key) != 0 || json_array_size(layers) > 1)
        return fail(error, "%s: what has the tag '%s' is no object of a remote", registry_place(r->registry), tag);
    r->size = 0;
    if (json_array_size(layers) == 1 && !oci_read_descriptor(json_array_get(layers, 0), &r->digest, &r->size, error))
        return false;
    r->key = g_strdup(key);
    return true;
}

static bool remote_registry_head(void *self, const char *key, bool *ret_there, uint64_t *ret_size, GError **error)
{
    RegistryRemote *r = self;
    g_autoptr(GError) why = NULL;

    forget(r); /* somebody may have put another */
    *ret_there = look(r, key, &why);
    *ret_size = *ret_there ? r->size : 0;
    if (*ret_there || why->code == KILN_ERROR_NOT_FOUND)
        return true;
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

/* --- getting --- */

static bool hand_over(int fd, uint64_t from, uint64_t size, RemoteSinkFn *sink, void *arg, GError **error)
{
    g_autofree uint8_t *buf = g_malloc(1 << 20);

    while (size > 0) {
        size_t n = (size_t)MIN(size, (uint64_t)1 << 20);

        if (!file_pread_full(fd, buf, n, from, "a fetched object", error) || !sink(buf, n, arg, error))
            return false;
        from += n;
        size -= n;
    }
    return true;
}

static bool get_whole(RegistryRemote *r, uint64_t from, uint64_t size, RemoteSinkFn *sink, void *arg, GError **error)
{
    auto_fd int fd = memfd_create("kiln-object", MFD_CLOEXEC);

    if (fd < 0)
        return fail_errno(error, "make a temporary file in memory");
    if (r->size > WHOLE_MAX)
        return fail(error, "%s: an object of %" G_GUINT64_FORMAT " bytes, and the registry answers no ranges", registry_place(r->registry), r->size);
    return registry_get_blob(r->registry, &r->digest, r->size, fd, 0, NULL, error) && hand_over(fd, from, size, sink, arg, error);
}

/* By pieces, so that a sink which has enough stops what does not end. */
static bool remote_registry_get(void *self, const char *key, uint64_t offset, uint64_t size, RemoteSinkFn *sink, void *arg, GError **error)
{
    RegistryRemote *r = self;
    uint64_t at, end;
    bool done;

    if (size == UINT64_MAX)
        forget(r);
    if (!look(r, key, error))
        return false;
    at = MIN(offset, r->size);
    end = size > r->size - at ? r->size : at + size;
    while (at < end) {
        auto_fd int fd = memfd_create("kiln-object", MFD_CLOEXEC);
        uint64_t n = MIN(end - at, (uint64_t)PIECE);

        if (fd < 0)
            return fail_errno(error, "make a temporary file in memory");
        if (!registry_get_range(r->registry, &r->digest, at, n, fd, NULL, &done, error))
            return false;
        if (!done)
            return get_whole(r, at, end - at, sink, arg, error);
        if (!hand_over(fd, at, n, sink, arg, error))
            return false;
        at += n;
    }
    return true;
}

/* --- putting --- */

static bool put_config(RegistryRemote *r, GError **error)
{
    Digest digest;

    r->has_config = r->has_config || registry_put_blob_bytes(r->registry, "{}", 2, &digest, error);
    return r->has_config;
}

static bool put_bytes(RegistryRemote *r, const RemoteBody *body, GError **error)
{
    uint64_t sent;
    Digest same;

    if (body->size == 0)
        return true;
    return body->fd < 0 ? registry_put_blob_bytes(r->registry, body->data, body->size, &same, error)
                        : registry_put_blob(r->registry, &body->digest, body->size, body->fd, NULL, NULL, &sent, error);
}

static GBytes *manifest_of(const char *key, const RemoteBody *body)
{
    char empty[DIGEST_OCI_SIZE], oci[DIGEST_OCI_SIZE];
    g_autoptr(json_t) manifest = NULL;
    json_t *layers = json_array();
    Digest digest;
    char *text;

    digest_of("{}", 2, &digest);
    if (body->size)
        json_array_append_new(layers, json_pack("{s:s, s:s, s:I}", "mediaType", BYTES_TYPE, "digest", digest_to_oci(&body->digest, oci), "size", (json_int_t)body->size));
    manifest = json_pack("{s:i, s:s, s:s, s:{s:s, s:s, s:i}, s:o, s:{s:s}}", "schemaVersion", 2, "mediaType", OCI_MANIFEST_TYPE, "artifactType", OBJECT_TYPE, "config",
                         "mediaType", OCI_EMPTY_TYPE, "digest", digest_to_oci(&digest, empty), "size", 2, "layers", layers, "annotations", KEY_ANNOTATION, key);
    text = json_canonical(manifest);
    return g_bytes_new_take(text, strlen(text));
}

static bool remote_registry_put(void *self, const char *key, const RemoteBody *body, bool if_absent, bool *ret_new, GError **error)
{
    RegistryRemote *r = self;
    g_autofree char *tag = tag_of(key);
    g_autoptr(GBytes) manifest = NULL;
    Digest ignored;
    bool there;

    forget(r);
    if (!registry_has_manifest(r->registry, tag, &ignored, &there, error))
        return false;
    *ret_new = !there;
    if (there && if_absent)
        return true;
    manifest = manifest_of(key, body);
    return put_config(r, error) && put_bytes(r, body, error) && registry_put_manifest(r->registry, tag, manifest, OCI_MANIFEST_TYPE, NULL, error);
}

/* By digest, since many registries take no tag away. */
static bool remote_registry_remove(void *self, const char *key, GError **error)
{
    RegistryRemote *r = self;
    g_autofree char *tag = tag_of(key), *path = NULL;
    char oci[DIGEST_OCI_SIZE];
    HttpRequest request = {.method = "DELETE"};
    g_auto(HttpAnswer) answer = {0};
    Digest digest;
    bool there;

    forget(r);
    if (!registry_has_manifest(r->registry, tag, &digest, &there, error))
        return false;
    if (!there)
        return true;
    request.url = path = registry_path(r->registry, "manifests/%s", digest_is_none(&digest) ? tag : digest_to_oci(&digest, oci));
    if (!registry_ask(r->registry, &request, NULL, &answer, error))
        return false;
    return (!answer.trouble && (answer.status / 100 == 2 || answer.status == 404)) || registry_fail(r->registry, &answer, tag, error);
}

/* --- listing --- */

static gint by_key(gconstpointer a, gconstpointer b)
{
    return strcmp((*(RemoteEntry *const *)a)->key, (*(RemoteEntry *const *)b)->key);
}

/* *ret NULL: it is somebody else's. */
static bool find_key(RegistryRemote *r, const char *tag, char **ret, GError **error)
{
    g_autoptr(json_t) manifest = NULL;
    g_autoptr(GError) why = NULL;
    g_autofree char *again = NULL;
    const char *said = NULL;

    *ret = key_of(tag);
    if (!g_str_has_prefix(tag, "_h"))
        return true;
    if (!get_manifest(r, tag, &manifest, &said, &why) && why->code != KILN_ERROR_NOT_FOUND) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    again = said ? tag_of(said) : NULL;
    *ret = g_strcmp0(again, tag) == 0 ? g_strdup(said) : NULL;
    return true;
}

static bool remote_registry_list(void *self, const char *prefix, const char *after, GPtrArray *to, bool *ret_more, GError **error)
{
    RegistryRemote *r = self;
    g_autoptr(GPtrArray) tags = NULL, found = g_ptr_array_new_with_free_func((GDestroyNotify)remote_entry_free);
    g_autoptr(GError) why = NULL;

    *ret_more = false;
    if (!registry_tags(r->registry, &tags, &why)) {
        if (why->code == KILN_ERROR_NOT_FOUND) /* nothing was pushed there yet */
            return true;
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    for (guint i = 0; i < tags->len; i++) {
        g_autofree char *key = NULL;

        if (!find_key(r, tags->pdata[i], &key, error))
            return false;
        if (key && g_str_has_prefix(key, prefix) && (!after || strcmp(key, after) > 0))
            g_ptr_array_add(found, remote_entry_new(key, REMOTE_SIZE_UNKNOWN, 0));
    }
    g_ptr_array_sort(found, by_key);
    for (guint i = 0; i < found->len && i < REMOTE_PAGE; i++)
        g_ptr_array_add(to, g_steal_pointer(&found->pdata[i]));
    *ret_more = found->len > REMOTE_PAGE;
    return true;
}

const RemoteOps remote_registry_ops = {
    .scheme = "docker",
    .example = "docker://HOST/REPOSITORY",
    .open = remote_registry_open,
    .close = remote_registry_close,
    .get = remote_registry_get,
    .put = remote_registry_put,
    .head = remote_registry_head,
    .list = remote_registry_list,
    .remove = remote_registry_remove,
};
