/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A repository as an end. Which repositories of a host have a blob is remembered (memo "registry-blob:HOST:HEX"), so that it can be mounted into another one.
 */
#include "store/oci-end.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/pool.h"

#include <string.h>

typedef struct RegistryEnd {
    Store *store;
    Registry *registry;
    char *version, *host, *repository;
    GBytes *top; /* what the end was opened for, when it was asked for */
    char *top_type;
    Digest top_digest;
} RegistryEnd;

/* A tag is looked up once: it may move, and two answers would not fit each other. */
static bool get_manifest(void *end, const char *version, GBytes **ret, char **ret_type, Digest *ret_digest, GError **error)
{
    RegistryEnd *e = end;

    if (version)
        return registry_get_manifest(e->registry, version, ret, ret_type, ret_digest, error);
    if (!e->top && !registry_get_manifest(e->registry, e->version, &e->top, &e->top_type, &e->top_digest, error))
        return false;
    *ret = g_bytes_ref(e->top);
    *ret_type = g_strdup(e->top_type);
    *ret_digest = e->top_digest;
    return true;
}

static char *memo_key(const RegistryEnd *e, const Digest *digest)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strdup_printf("registry-blob:%s:%s", e->host, digest_to_hex(digest, hex));
}

static void remember(const RegistryEnd *e, const Digest *digest)
{
    g_autofree char *key = memo_key(e, digest);

    (void)store_memo_put(e->store, key, e->repository, NULL, NULL, NULL); /* it only saves sending the blob again */
}

static bool get_blob(void *end, const Digest *digest, uint64_t size, int fd, uint64_t have, Progress *progress, GError **error)
{
    RegistryEnd *e = end;

    if (!registry_get_blob(e->registry, digest, size, fd, have, progress, error))
        return false;
    remember(e, digest);
    return true;
}

static bool has_blob(void *end, const Digest *digest, bool *ret, GError **error)
{
    RegistryEnd *e = end;

    return registry_has_blob(e->registry, digest, ret, error);
}

static bool put_blob(void *end, const Digest *digest, uint64_t size, int fd, Progress *progress, uint64_t *ret_sent, GError **error)
{
    RegistryEnd *e = end;
    g_autofree char *key = memo_key(e, digest), *from = NULL;

    if (!store_memo_get(e->store, key, &from, NULL) || g_strcmp0(from, e->repository) == 0)
        g_clear_pointer(&from, g_free);
    if (!registry_put_blob(e->registry, digest, size, fd, from, progress, ret_sent, error))
        return false;
    remember(e, digest);
    return true;
}

static bool put_manifest(void *end, GBytes *manifest, const char *type, const Digest *digest, bool top, bool *ret_subject, GError **error)
{
    RegistryEnd *e = end;
    char oci[DIGEST_OCI_SIZE];

    (void)digest_to_oci(digest, oci);
    if (top && g_str_has_prefix(e->version, "sha256:") && strcmp(e->version, oci) != 0)
        return fail(error, "%s: what is copied has the digest %s, not the one after '@'", registry_place(e->registry), oci);
    return registry_put_manifest(e->registry, top ? e->version : oci, manifest, type, ret_subject, error);
}

static bool referrers(void *end, const Digest *subject, json_t **ret, GError **error)
{
    RegistryEnd *e = end;

    return registry_referrers(e->registry, subject, ret, error);
}

static bool add_referrer(void *end, const Digest *subject, json_t *descriptor, GError **error)
{
    RegistryEnd *e = end;

    return registry_add_referrer(e->registry, subject, descriptor, error);
}

static void close_end(void *end)
{
    RegistryEnd *e = end;

    registry_close(e->registry);
    g_free(e->version);
    g_free(e->host);
    g_free(e->repository);
    if (e->top)
        g_bytes_unref(e->top);
    g_free(e->top_type);
    g_free(e);
}

static const OciEndOps registry_end_ops = {
    .name = "docker",
    .get_manifest = get_manifest,
    .get_blob = get_blob,
    .has_blob = has_blob,
    .put_blob = put_blob,
    .put_manifest = put_manifest,
    .referrers = referrers,
    .add_referrer = add_referrer,
    .close = close_end,
};

bool oci_end_registry(Store *store, const RegistryRef *ref, const OciEndOptions *options, OciEnd **ret, GError **error)
{
    RegistryOptions how = {.push = options->write, .plain_http = options->plain_http};
    Registry *registry = NULL;
    RegistryEnd *e;

    if (!registry_open(ref, &how, &registry, error))
        return false;
    e = g_new0(RegistryEnd, 1);
    e->store = store;
    e->registry = registry;
    /* A copy to TAG@DIGEST is put under its tag. */
    e->version = options->write && ref->tag ? g_strdup(ref->tag) : registry_ref_version(ref);
    e->host = g_strdup(ref->host);
    e->repository = g_strdup(ref->repository);
    *ret = oci_end_new(&registry_end_ops, e);
    return true;
}

bool oci_fetch_bytes(Store *store, Registry *registry, const json_t *descriptor, uint64_t max, GBytes **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    auto_fd int fd = -1;
    Digest digest;
    uint64_t size;
    char *data;

    if (!oci_read_descriptor(descriptor, &digest, &size, error))
        return false;
    if (size > max)
        return fail(error, "%s: a document is larger than the %" G_GUINT64_FORMAT " bytes it may have", registry_place(registry), max);
    if (!store_open_unnamed(store, &fd, error) || !registry_get_blob(registry, &digest, size, fd, 0, NULL, error))
        return false;
    data = g_malloc(size + 1);
    data[size] = '\0';
    bytes = g_bytes_new_take(data, size);
    if (!file_pread_full(fd, data, size, 0, "a temporary file", error))
        return false;
    *ret = g_steal_pointer(&bytes);
    return true;
}

Registry *oci_end_registry_session(const OciEnd *end)
{
    return end->ops == &registry_end_ops ? ((RegistryEnd *)end->data)->registry : NULL;
}
