/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying images between ends: blobs first, in parallel, then the manifests that name them, innermost first. Whoever looks sees nothing,
 * or all. A blob that the target has is not read at the source.
 */
#include "store/oci-end.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/printable.h"
#include "base/scope.h"
#include "store/downloads.h"

#include <string.h>
#include <unistd.h>

#define DEPTH_MAX 3
#define MANIFESTS_MAX 1000
#define BLOBS_MAX 100000
#define BLOB_SIZE_MAX (1ull << 40)
#define REFERRERS_MAX 256
#define THREADS 3

OciEnd *oci_end_new(const OciEndOps *ops, void *data)
{
    OciEnd *end = g_new0(OciEnd, 1);

    end->ops = ops;
    end->data = data;
    return end;
}

void oci_end_close(OciEnd *end)
{
    if (!end)
        return;
    if (end->ops->close)
        end->ops->close(end->data);
    g_free(end);
}

/* --- documents --- */

bool oci_type_is_index(const char *type)
{
    return g_strcmp0(type, OCI_INDEX_TYPE) == 0 || g_strcmp0(type, DOCKER_INDEX_TYPE) == 0;
}

bool oci_type_is_manifest(const char *type)
{
    return g_strcmp0(type, OCI_MANIFEST_TYPE) == 0 || g_strcmp0(type, DOCKER_MANIFEST_TYPE) == 0;
}

const char *oci_host_architecture(void)
{
#if defined(__aarch64__)
    return "arm64";
#else
    return "amd64";
#endif
}

bool oci_read_descriptor(const json_t *descriptor, Digest *ret_digest, uint64_t *ret_size, GError **error)
{
    const char *text = json_text(descriptor, "digest");
    const json_t *size = json_object_get(descriptor, "size");

    if (g_str_has_prefix(text, "sha512:"))
        return fail(error, "the image uses sha512 digests, which kiln does not read");
    if (!g_str_has_prefix(text, "sha256:") || !digest_parse(text, ret_digest) || !json_is_integer(size) || json_integer_value(size) < 0 ||
        (uint64_t)json_integer_value(size) > BLOB_SIZE_MAX)
        return fail(error, "the image has a malformed descriptor");
    *ret_size = (uint64_t)json_integer_value(size);
    return true;
}

json_t *oci_choose_platform(const json_t *index, const char *architecture)
{
    json_t *item;
    size_t i;

    json_array_foreach(json_object_get(index, "manifests"), i, item)
    {
        const json_t *platform = json_object_get(item, "platform");
        const char *os = json_text(platform, "os");

        if (!oci_type_is_manifest(json_text(item, "mediaType")) && !oci_type_is_index(json_text(item, "mediaType")))
            continue;
        if (!platform || ((strcmp(os, "linux") == 0 || !*os) && strcmp(json_text(platform, "architecture"), architecture) == 0))
            return item;
    }
    return NULL;
}

/* --- parallel --- */

typedef struct Parallel {
    GMutex lock;
    GPtrArray *items;
    guint next;
    OciJobFn *fn;
    void *arg;
    GError *error;
} Parallel;

static gpointer worker(gpointer data)
{
    Parallel *p = data;

    for (;;) {
        g_autoptr(GError) why = NULL;
        gpointer item;

        g_mutex_lock(&p->lock);
        item = !p->error && p->next < p->items->len ? p->items->pdata[p->next++] : NULL;
        g_mutex_unlock(&p->lock);
        if (!item)
            return NULL;
        if (p->fn(item, p->arg, &why))
            continue;
        g_mutex_lock(&p->lock);
        if (!p->error)
            p->error = g_steal_pointer(&why);
        g_mutex_unlock(&p->lock);
    }
}

bool oci_in_parallel(GPtrArray *items, OciJobFn *fn, void *arg, GError **error)
{
    Parallel p = {.items = items, .fn = fn, .arg = arg};
    GThread *threads[THREADS] = {NULL};
    guint count = MIN(THREADS, items->len);

    g_mutex_init(&p.lock);
    for (guint i = 1; i < count; i++)
        threads[i] = g_thread_new("transfer", worker, &p);
    (void)worker(&p);
    for (guint i = 1; i < count; i++)
        (void)g_thread_join(threads[i]);
    g_mutex_clear(&p.lock);
    if (p.error)
        g_propagate_error(error, p.error);
    return !p.error;
}

/* --- gathering --- */

typedef struct Blob {
    Digest digest;
    uint64_t size;
} Blob;

typedef struct Manifest {
    GBytes *bytes;
    char *type;
    Digest digest;
    bool is_referrer;
    Digest subject;
    json_t *descriptor; /* as a referrer is listed */
} Manifest;

static void manifest_free(gpointer data)
{
    Manifest *m = data;

    g_bytes_unref(m->bytes);
    g_free(m->type);
    json_decref(m->descriptor);
    g_free(m);
}

typedef struct Copying {
    OciEnd *from, *to;
    const OciCopy *how;
    int downloads;
    GPtrArray *manifests; /* in the order in which they are put; the top is the last of them */
    GPtrArray *blobs;
    GHashTable *known; /* Digest* of blobs and manifests */
    Progress *progress;
    GMutex lock;
    OciCopyReport *report;
} Copying;

static bool add_blob(Copying *c, const json_t *descriptor, GError **error)
{
    g_autofree Blob *blob = g_new0(Blob, 1);

    if (json_array_size(json_object_get(descriptor, "urls")) > 0 && oci_layer_type_is_foreign(json_text(descriptor, "mediaType")))
        return true; /* they are not in registries */
    if (!oci_read_descriptor(descriptor, &blob->digest, &blob->size, error))
        return false;
    if (g_hash_table_contains(c->known, &blob->digest))
        return true;
    if (c->blobs->len >= BLOBS_MAX)
        return fail(error, "the image has more than %d blobs", BLOBS_MAX);
    g_hash_table_add(c->known, &blob->digest);
    g_ptr_array_add(c->blobs, g_steal_pointer(&blob));
    return true;
}

static bool add_blobs(Copying *c, const json_t *document, GError **error)
{
    const json_t *layer;
    size_t i;

    if (!add_blob(c, json_object_get(document, "config"), error))
        return false;
    json_array_foreach(json_object_get(document, "layers"), i, layer)
        if (!add_blob(c, layer, error))
            return false;
    return true;
}

static bool gather(Copying *c, const char *version, int depth, bool all, Digest *ret_digest, GError **error);

static bool gather_children(Copying *c, const json_t *index, int depth, GError **error)
{
    const json_t *item;
    size_t i;

    if (depth >= DEPTH_MAX)
        return fail(error, "the image nests indexes too deeply");
    json_array_foreach(json_object_get(index, "manifests"), i, item)
    {
        char oci[DIGEST_OCI_SIZE];
        Digest digest, got;
        uint64_t size;

        if (!oci_read_descriptor(item, &digest, &size, error))
            return false;
        if (g_hash_table_contains(c->known, &digest))
            continue;
        if (!oci_type_is_index(json_text(item, "mediaType")) && !oci_type_is_manifest(json_text(item, "mediaType"))) {
            if (!add_blob(c, item, error))
                return false;
            continue;
        }
        if (!gather(c, digest_to_oci(&digest, oci), depth + 1, true, &got, error))
            return false;
    }
    return true;
}

static bool keep_manifest(Copying *c, GBytes *bytes, const char *type, const Digest *digest, GError **error)
{
    Manifest *m;

    if (c->manifests->len >= MANIFESTS_MAX)
        return fail(error, "the image has more than %d manifests", MANIFESTS_MAX);
    m = g_new0(Manifest, 1);
    m->bytes = g_bytes_ref(bytes);
    m->type = g_strdup(type);
    m->digest = *digest;
    g_ptr_array_add(c->manifests, m);
    g_hash_table_add(c->known, &m->digest);
    return true;
}

/* An index that is copied in part is not copied: the manifest in it is. */
static bool gather(Copying *c, const char *version, int depth, bool all, Digest *ret_digest, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autofree char *type = NULL;
    g_autoptr(json_t) document = NULL;

    if (!interrupt_check(error) || !c->from->ops->get_manifest(c->from->data, version, &bytes, &type, ret_digest, error))
        return false;
    if (!json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "the manifest", &document, error))
        return false;
    if (oci_type_is_index(type) && !all) {
        const char *architecture = c->how->architecture ? c->how->architecture : oci_host_architecture();
        const json_t *chosen = oci_choose_platform(document, architecture);
        char oci[DIGEST_OCI_SIZE];
        uint64_t size;
        Digest digest;

        if (!chosen)
            return fail(error, "there is no image for linux/%s in it", architecture);
        if (depth >= DEPTH_MAX)
            return fail(error, "the image nests indexes too deeply");
        return oci_read_descriptor(chosen, &digest, &size, error) && gather(c, digest_to_oci(&digest, oci), depth + 1, false, ret_digest, error);
    }
    if (!oci_type_is_index(type) && !oci_type_is_manifest(type)) {
        g_autofree char *shown = printable_line(type);

        return fail(error, "the manifest has the type '%s', which kiln does not read", shown);
    }
    if (!(oci_type_is_index(type) ? gather_children(c, document, depth, error) : add_blobs(c, document, error)))
        return false;
    return keep_manifest(c, bytes, type, ret_digest, error);
}

/* Signatures and the like of every manifest; of one level, as nobody signs signatures. */
static bool gather_referrers(Copying *c, GError **error)
{
    guint count = c->manifests->len;

    if (!c->how->referrers || !c->from->ops->referrers)
        return true;
    for (guint i = 0; i < count; i++) {
        const Digest subject = ((Manifest *)c->manifests->pdata[i])->digest;
        g_autoptr(json_t) list = NULL;
        json_t *item;
        size_t k;

        if (!c->from->ops->referrers(c->from->data, &subject, &list, error))
            return false;
        json_array_foreach(list, k, item)
        {
            char oci[DIGEST_OCI_SIZE];
            Digest digest, got;
            uint64_t size;
            Manifest *m;

            if (k >= REFERRERS_MAX || !oci_type_is_manifest(json_text(item, "mediaType")) || !oci_read_descriptor(item, &digest, &size, NULL) ||
                g_hash_table_contains(c->known, &digest))
                continue;
            if (!gather(c, digest_to_oci(&digest, oci), 1, true, &got, error))
                return false;
            m = c->manifests->pdata[c->manifests->len - 1];
            m->is_referrer = true;
            m->subject = subject;
            m->descriptor = json_incref(item);
            c->report->referrers++;
        }
    }
    return true;
}

/* --- moving --- */

static bool move_blob(gpointer item, void *arg, GError **error)
{
    const Blob *blob = item;
    Copying *c = arg;
    auto_fd int fd = -1;
    uint64_t have = 0, sent = 0;
    bool there = false;

    if (c->to->ops->has_blob && !c->to->ops->has_blob(c->to->data, &blob->digest, &there, error))
        return false;
    if (there) {
        g_mutex_lock(&c->lock);
        c->report->present++;
        g_mutex_unlock(&c->lock);
        progress_add(c->progress, blob->size);
        return true;
    }
    if (!downloads_take(c->downloads, &blob->digest, "", &fd, &have, error) ||
        !c->from->ops->get_blob(c->from->data, &blob->digest, blob->size, fd, have, c->progress, error) ||
        !c->to->ops->put_blob(c->to->data, &blob->digest, blob->size, fd, NULL, &sent, error))
        return false;
    downloads_drop(c->downloads, &blob->digest, "");
    g_mutex_lock(&c->lock);
    c->report->blobs++;
    c->report->bytes_sent += sent;
    g_mutex_unlock(&c->lock);
    return true;
}

static bool put_manifests(Copying *c, guint top, GError **error)
{
    for (guint i = 0; i < c->manifests->len; i++) {
        const Manifest *m = c->manifests->pdata[i];
        bool subject = false;

        if (!c->to->ops->put_manifest(c->to->data, m->bytes, m->type, &m->digest, i == top, &subject, error))
            return false;
        if (m->is_referrer && !subject && c->to->ops->add_referrer && !c->to->ops->add_referrer(c->to->data, &m->subject, m->descriptor, error))
            return false;
    }
    return true;
}

static bool copy(Copying *c, GError **error)
{
    uint64_t total = 0;
    bool ok;
    guint top;

    if (!gather(c, NULL, 0, c->how->whole_index, &c->report->manifest, error))
        return false;
    top = c->manifests->len - 1;
    if (!gather_referrers(c, error))
        return false;
    for (guint i = 0; i < c->blobs->len; i++)
        total += ((Blob *)c->blobs->pdata[i])->size;
    c->progress = progress_new("transfer", total, true);
    ok = oci_in_parallel(c->blobs, move_blob, c, error) && put_manifests(c, top, error) && (!c->to->ops->finish || c->to->ops->finish(c->to->data, error));
    if (ok)
        progress_done(c->progress);
    g_clear_pointer(&c->progress, progress_free);
    return ok;
}

bool oci_copy(Store *store, OciEnd *from, OciEnd *to, const OciCopy *how, OciCopyReport *ret, GError **error)
{
    g_autoptr(GPtrArray) manifests = g_ptr_array_new_with_free_func(manifest_free), blobs = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GHashTable) known = g_hash_table_new(digest_hash, digest_equal_gfunc);
    Copying c = {.from = from, .to = to, .how = how, .downloads = -1, .manifests = manifests, .blobs = blobs, .known = known, .report = ret};
    bool ok;

    *ret = (OciCopyReport){0};
    g_mutex_init(&c.lock);
    ok = downloads_open(store, &c.downloads, error) && copy(&c, error);
    g_mutex_clear(&c.lock);
    if (c.downloads >= 0)
        (void)close(c.downloads);
    return ok;
}
