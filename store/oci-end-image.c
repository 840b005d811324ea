/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container image of this store as an end to read from, and docker's archive as one to write to; and how ends are named.
 */
#include "store/oci-end.h"

#include "base/error.h"
#include "base/file.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* --- an image --- */

typedef struct ImageEnd {
    Store *store;
    const StoreImage *image;
} ImageEnd;

static bool get_manifest(void *end, const char *version, GBytes **ret, char **ret_type, Digest *ret_digest, GError **error)
{
    ImageEnd *e = end;
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) document = NULL;
    const char *type;

    if (!store_blob_get(e->store, &e->image->manifest, REGISTRY_MANIFEST_MAX, &bytes, error) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "the image's manifest", &document, error))
        return false;
    type = json_string_value(json_object_get(document, "mediaType"));
    *ret_type = g_strdup(type ? type : OCI_MANIFEST_TYPE);
    *ret_digest = e->image->manifest;
    *ret = g_steal_pointer(&bytes);
    return true;
}

static const StoreLayerRef *find_layer(const StoreImage *image, const Digest *digest)
{
    for (guint i = 0; image->layers && i < image->layers->len; i++) {
        const StoreLayerRef *layer = image->layers->pdata[i];

        if (digest_equal(&layer->blob, digest) && !digest_is_none(&layer->recipe))
            return layer;
    }
    return NULL;
}

/* Both verify on their way. */
static bool get_blob(void *end, const Digest *digest, uint64_t size, int fd, uint64_t have, Progress *progress, GError **error)
{
    ImageEnd *e = end;
    const StoreLayerRef *layer = find_layer(e->image, digest);

    if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return fail_errno(error, "empty a temporary file");
    if (layer ? !layer_write_out(e->store, &layer->recipe, false, fd, error) : !store_blob_copy(e->store, digest, fd, error))
        return false;
    if (lseek(fd, 0, SEEK_END) != (off_t)size)
        return fail(error, "the image's manifest is damaged: a blob has another size");
    progress_add(progress, size);
    return true;
}

static const OciEndOps image_end_ops = {
    .name = "image",
    .get_manifest = get_manifest,
    .get_blob = get_blob,
    .close = g_free,
};

bool oci_end_image(Store *store, const StoreImage *image, OciEnd **ret, GError **error)
{
    ImageEnd *e;

    if (strcmp(image->kind, "oci") != 0)
        return fail(error, "'%s' is a disk image and has no container layers", image->name);
    e = g_new0(ImageEnd, 1);
    e->store = store;
    e->image = image;
    *ret = oci_end_new(&image_end_ops, e);
    return true;
}

/* --- docker's archive: through a layout --- */

typedef struct ArchiveEnd {
    Store *store;
    char *path, *folder;
    OciEnd *layout;
} ArchiveEnd;

static bool archive_has_blob(void *end, const Digest *digest, bool *ret, GError **error)
{
    ArchiveEnd *e = end;

    return e->layout->ops->has_blob(e->layout->data, digest, ret, error);
}

static bool archive_put_blob(void *end, const Digest *digest, uint64_t size, int fd, Progress *progress, uint64_t *ret_sent, GError **error)
{
    ArchiveEnd *e = end;

    return e->layout->ops->put_blob(e->layout->data, digest, size, fd, progress, ret_sent, error);
}

static bool archive_put_manifest(void *end, GBytes *manifest, const char *type, const Digest *digest, bool top, bool *ret_subject, GError **error)
{
    ArchiveEnd *e = end;

    return e->layout->ops->put_manifest(e->layout->data, manifest, type, digest, top, ret_subject, error);
}

/* What was taken in for it is nobody's and goes with the next gc. */
static bool archive_finish(void *end, GError **error)
{
    ArchiveEnd *e = end;
    g_autoptr(OciParent) parent = NULL;
    g_autoptr(StoreImage) image = NULL;

    if (!e->layout->ops->finish(e->layout->data, error) || !oci_import_over(e->store, e->folder, "what is copied", &parent, error))
        return false;
    image = store_image_new("oci", "image");
    image->id = parent->config_digest;
    image->manifest = parent->manifest;
    for (guint i = 0; i < parent->layers->len; i++) {
        const StoreLayerRef *layer = parent->layers->pdata[i];

        store_image_add_layer(image, &layer->blob, &layer->recipe);
    }
    return docker_export(e->store, image, NULL, e->path, error);
}

static void archive_close(void *end)
{
    ArchiveEnd *e = end;

    oci_end_close(e->layout);
    if (e->folder)
        (void)file_remove_tree(AT_FDCWD, e->folder, NULL);
    g_free(e->folder);
    g_free(e->path);
    g_free(e);
}

static const OciEndOps archive_end_ops = {
    .name = "docker-archive",
    .has_blob = archive_has_blob,
    .put_blob = archive_put_blob,
    .put_manifest = archive_put_manifest,
    .finish = archive_finish,
    .close = archive_close,
};

bool oci_end_docker_archive(Store *store, const char *path, OciEnd **ret, GError **error)
{
    ArchiveEnd *e = g_new0(ArchiveEnd, 1);
    g_autoptr(OciEnd) end = oci_end_new(&archive_end_ops, e);

    e->store = store;
    e->path = g_strdup(path);
    if (!store_make_tmpdir(store, &e->folder, error) || !oci_end_intake(store, e->folder, &e->layout, error))
        return false;
    *ret = g_steal_pointer(&end);
    return true;
}

/* --- names --- */

#define OCI_PREFIX "oci:"
#define OCI_ARCHIVE_PREFIX "oci-archive:"
#define DOCKER_ARCHIVE_PREFIX "docker-archive:"

bool oci_end_is_name(const char *text)
{
    return g_str_has_prefix(text, REGISTRY_SCHEME) || g_str_has_prefix(text, OCI_PREFIX) || g_str_has_prefix(text, OCI_ARCHIVE_PREFIX) ||
           g_str_has_prefix(text, DOCKER_ARCHIVE_PREFIX);
}

/* "PATH:TAG": the last colon starts a tag unless a slash follows it or there is a file of the whole name. */
static void split_tag(const char *text, char **ret_path, char **ret_tag)
{
    const char *colon = strrchr(text, ':');
    bool tagged = colon && colon > text && !strchr(colon, '/') && access(text, F_OK) < 0;

    *ret_path = tagged ? g_strndup(text, (gsize)(colon - text)) : g_strdup(text);
    *ret_tag = tagged && colon[1] ? g_strdup(colon + 1) : NULL;
}

bool oci_end_open(Store *store, const char *text, const OciEndOptions *options, OciEnd **ret, GError **error)
{
    bool archive = g_str_has_prefix(text, OCI_ARCHIVE_PREFIX);
    g_autofree char *path = NULL, *tag = NULL;
    g_auto(RegistryRef) ref = {0};

    if (g_str_has_prefix(text, REGISTRY_SCHEME))
        return registry_ref_parse(text, &ref, error) && oci_end_registry(store, &ref, options, ret, error);
    if (g_str_has_prefix(text, DOCKER_ARCHIVE_PREFIX) && !options->write)
        return fail_code(error, KILN_ERROR_USAGE, "docker's archives are written only; skopeo copy '%s' oci-archive:FILE makes one that kiln reads", text);
    if (g_str_has_prefix(text, DOCKER_ARCHIVE_PREFIX))
        return oci_end_docker_archive(store, text + strlen(DOCKER_ARCHIVE_PREFIX), ret, error);
    if (!archive && !g_str_has_prefix(text, OCI_PREFIX))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is neither docker://..., oci:DIR[:TAG] nor oci-archive:FILE[:TAG]", text);
    split_tag(strchr(text, ':') + 1, &path, &tag);
    return oci_end_layout(store, archive ? OCI_ARCHIVE : OCI_DIR, path, tag, options->write, ret, error);
}
