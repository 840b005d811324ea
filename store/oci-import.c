/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an image from an OCI layout, as a folder or as an uncompressed tar.
 *
 * Everything is named by digest, and nothing else is opened: index.json, then blobs/sha256/<hex> of what a
 * verified document named, never through a symbolic link. A layer that is a plain tar, or was compressed by our own encoder, becomes a recipe and
 * shares its blocks; others go into the store as they are.
 */
#include "store/oci-end.h"
#include "store/oci-private.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/scope.h"
#include "store/tar-header.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define DOCUMENT_MAX (4u << 20)
#define CONFIG_MAX (8u << 20)
#define LAYER_MAX (1ull << 38)
#define LAYERS_MAX 512
#define MEMBERS_MAX 65536
#define INDEX_DEPTH_MAX 3
#define REF_NAME "org.opencontainers.image.ref.name"

typedef struct Layout {
    OciForm form;
    const char *path;   /* as errors say it */
    int fd;             /* the folder, or the archive */
    GPtrArray *members; /* of TarMember*: the archive's files */
    bool over_store;    /* what is not there may be in the store */
} Layout;

/* A blob in the layout, open: all of @fd, or a part of the archive. */
typedef struct Source {
    int fd;
    uint64_t offset, size;
} Source;

static void layout_clear(Layout *layout)
{
    scope_close_fd(&layout->fd);
    g_clear_pointer(&layout->members, g_ptr_array_unref);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Layout, layout_clear)

static bool layout_open(OciForm form, const char *path, Layout *ret, GError **error)
{
    struct stat st;

    ret->form = form;
    ret->path = path;
    ret->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (ret->fd < 0)
        return fail_errno(error, "open '%s'", path);
    if (fstat(ret->fd, &st) < 0)
        return fail_errno(error, "read '%s'", path);
    if (form == OCI_DIR)
        return S_ISDIR(st.st_mode) ||
               fail(error, "'%s' is no folder; an archive is named oci-archive:FILE", path);
    if (!S_ISREG(st.st_mode))
        return fail(error, "'%s' is no file; a folder is named oci:DIR", path);
    return tar_list(ret->fd, MEMBERS_MAX, path, &ret->members, error);
}

/* --- files of a layout --------------------------------------------------------------- */

/* The last of a name wins, as when unpacking; NULL when there is none. */
static const TarMember *find_member(const Layout *layout, const char *name)
{
    for (guint i = layout->members->len; i-- > 0;) {
        const TarMember *member = g_ptr_array_index(layout->members, i);

        if (strcmp(member->name, name) == 0)
            return member;
    }
    return NULL;
}

static bool open_member(const Layout *layout, const char *name, Source *ret, GError **error)
{
    const TarMember *member = find_member(layout, name);

    if (member) {
        *ret = (Source){fcntl(layout->fd, F_DUPFD_CLOEXEC, 3), member->offset, member->size};
        return ret->fd >= 0 || fail_errno(error, "read '%s'", layout->path);
    }
    if (strcmp(name, "index.json") == 0 && find_member(layout, "manifest.json"))
        return fail(error, "'%s' is an archive in docker's own format; convert it with skopeo copy docker-archive:FILE oci-archive:FILE",
                    layout->path);
    return fail(error, "'%s' is no OCI image: %s is missing", layout->path, name);
}

/* Component by component, so that no symbolic link leads out. */
static bool open_file(const Layout *layout, const char *name, Source *ret, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(name, "/", -1);
    auto_fd int at = fcntl(layout->fd, F_DUPFD_CLOEXEC, 3);
    struct stat st;

    for (char **part = parts; at >= 0 && *part; part++) {
        int next =
            openat(at, *part, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | (part[1] ? O_DIRECTORY : 0));

        scope_close_fd(&at);
        at = next;
    }
    if (at < 0 && errno == ENOENT)
        return fail(error, "'%s' is no OCI image: %s is missing", layout->path, name);
    if (at < 0 || fstat(at, &st) < 0)
        return fail_errno(error, "open '%s' in '%s'", name, layout->path);
    if (!S_ISREG(st.st_mode))
        return fail(error, "'%s' in '%s' is no regular file", name, layout->path);
    *ret = (Source){g_steal_fd(&at), 0, (uint64_t)st.st_size};
    return true;
}

static bool layout_file(const Layout *layout, const char *name, Source *ret, GError **error)
{
    return layout->form == OCI_DIR ? open_file(layout, name, ret, error)
                                   : open_member(layout, name, ret, error);
}

static bool load(const Layout *layout, const char *name, size_t max, GBytes **ret, GError **error)
{
    Source source;
    g_autofree char *text = NULL;
    auto_fd int fd = -1;

    if (!layout_file(layout, name, &source, error))
        return false;
    fd = source.fd;
    if (source.size > max)
        return fail(error, "'%s' in '%s' is larger than %zu bytes", name, layout->path, max);
    text = g_malloc(source.size + 1);
    if (!file_pread_full(fd, text, source.size, source.offset, layout->path, error))
        return false;
    *ret = g_bytes_new_take(g_steal_pointer(&text), source.size);
    return true;
}

static char *blob_name(const Digest *digest)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strdup_printf("blobs/sha256/%s", digest_to_hex(digest, hex));
}

static bool read_descriptor(const Layout *layout, const json_t *descriptor, Digest *ret, uint64_t *ret_size,
                            GError **error)
{
    const char *text = json_string_value(json_object_get(descriptor, "digest"));
    const json_t *size = json_object_get(descriptor, "size");

    if (text && g_str_has_prefix(text, "sha512:"))
        return fail(error, "'%s' uses sha512 digests, which kiln does not read", layout->path);
    if (!text || !g_str_has_prefix(text, "sha256:") || !digest_parse(text, ret) || !json_is_integer(size) ||
        json_integer_value(size) < 0)
        return fail(error, "'%s' has a malformed descriptor", layout->path);
    *ret_size = (uint64_t)json_integer_value(size);
    return true;
}

static bool lies_in_store(Store *store, const Layout *layout, const char *name, const Digest *digest)
{
    return layout->over_store && faccessat(layout->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && store_blob_has(store, digest);
}

/* A document named by its descriptor: verified, and kept in the store. */
static bool load_document(Store *store, const Layout *layout, const json_t *descriptor, size_t max,
                          const char *what, Digest *ret_digest, json_t **ret, GError **error)
{
    g_autofree char *name = NULL;
    g_autoptr(GBytes) bytes = NULL;
    const char *data;
    Digest digest, have;
    uint64_t size;
    gsize length;

    if (!read_descriptor(layout, descriptor, &digest, &size, error))
        return false;
    name = blob_name(&digest);
    if (lies_in_store(store, layout, name, &digest) ? !store_blob_get(store, &digest, max, &bytes, error) : !load(layout, name, max, &bytes, error))
        return false;
    data = g_bytes_get_data(bytes, &length);
    digest_of(data, length, &have);
    if (length != size || !digest_equal(&have, &digest))
        return fail(error, "'%s' is damaged: %s does not have the digest it is named by", layout->path, what);
    if (!json_parse(data, length, max, what, ret, error) ||
        !store_blob_put(store, data, length, ret_digest, error)) {
        g_clear_pointer(ret, json_decref);
        return fail_prefix(error, "'%s'", layout->path);
    }
    return true;
}

/* --- choosing the image ---------------------------------------------------------------- */

static bool is_index(const json_t *descriptor)
{
    return oci_type_is_index(json_text(descriptor, "mediaType"));
}

static bool is_manifest(const json_t *descriptor)
{
    return oci_type_is_manifest(json_text(descriptor, "mediaType"));
}

static bool fits_platform(const json_t *descriptor)
{
    const json_t *platform = json_object_get(descriptor, "platform");

    return !platform || (strcmp(json_text(platform, "os"), "linux") == 0 &&
                         strcmp(json_text(platform, "architecture"), oci_host_architecture()) == 0);
}

static bool fits_tag(const json_t *descriptor, const char *tag)
{
    return !tag || strcmp(json_text(json_object_get(descriptor, "annotations"), REF_NAME), tag) == 0;
}

/* The first that has the tag and suits this machine. */
static bool choose(const Layout *layout, const json_t *index, const char *tag, const json_t **ret,
                   GError **error)
{
    const json_t *item;
    bool tagged = false;
    size_t i;

    json_array_foreach(json_object_get(index, "manifests"), i, item)
    {
        if (!fits_tag(item, tag) || (!is_manifest(item) && !is_index(item)))
            continue;
        tagged = true;
        if (fits_platform(item)) {
            *ret = item;
            return true;
        }
    }
    if (tagged)
        return fail(error, "'%s' has no image for linux/%s", layout->path, oci_host_architecture());
    return tag ? fail(error, "'%s' has no image with the tag '%s'", layout->path, tag)
               : fail(error, "'%s' holds no image", layout->path);
}

static bool find_manifest(Store *store, const Layout *layout, const char *tag, Digest *ret_digest,
                          json_t **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) index = NULL;
    const char *data;
    Digest ignored;
    gsize size;

    if (!load(layout, "index.json", DOCUMENT_MAX, &bytes, error))
        return false;
    data = g_bytes_get_data(bytes, &size);
    if (!json_parse(data, size, DOCUMENT_MAX, "index.json", &index, error))
        return fail_prefix(error, "'%s'", layout->path);
    for (int depth = 0; depth < INDEX_DEPTH_MAX; depth++) {
        g_autoptr(json_t) upper = g_steal_pointer(&index);
        const json_t *item = NULL;

        if (!choose(layout, upper, depth == 0 ? tag : NULL, &item, error))
            return false;
        if (is_manifest(item))
            return load_document(store, layout, item, DOCUMENT_MAX, "the manifest", ret_digest, ret, error);
        if (!load_document(store, layout, item, DOCUMENT_MAX, "an image index", &ignored, &index, error))
            return false;
    }
    return fail(error, "'%s' nests image indexes too deeply", layout->path);
}

/* --- layers ------------------------------------------------------------------------------ */

bool oci_layer_type_is_known(const char *type)
{
    static const char *const known[] = {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        NULL,
    };

    return g_strv_contains(known, type);
}

bool oci_layer_type_is_foreign(const char *type)
{
    return strstr(type, ".nondistributable.") || strstr(type, ".rootfs.foreign.");
}

/* The layer's bytes as a file of our own: nobody changes it between two looks at it. */
static bool copy_out(Store *store, const Source *source, const char *what, int *ret_fd, GError **error)
{
    auto_fd int fd = -1;
    bool ok = store_open_unnamed(store, &fd, error) &&
              (lseek(source->fd, (off_t)source->offset, SEEK_SET) >= 0 || fail_errno(error, "read '%s'", what)) &&
              file_copy_stream(source->fd, fd, source->size, what, error);

    if (ok)
        *ret_fd = g_steal_fd(&fd);
    return ok;
}

/* All layers of one import. */
typedef struct Layers {
    Store *store;
    const Layout *layout;
    StoreWriter *writer;  /* from the first recipe on */
    GPtrArray *ingests;   /* LayerIngest, or NULL for a layer that is kept as it is */
    GPtrArray *refs;      /* of StoreLayerRef */
} Layers;

static void free_ingest(gpointer ingest)
{
    layer_ingest_free(ingest);
}

static void layers_clear(Layers *layers)
{
    g_clear_pointer(&layers->ingests, g_ptr_array_unref);
    g_clear_pointer(&layers->writer, store_writer_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Layers, layers_clear)

static bool damaged(const Layout *layout, GError **error)
{
    return fail(error, "'%s' is damaged: a layer does not have the digest it is named by", layout->path);
}

static bool exchanged(const Layout *layout, guint number, GError **error)
{
    return fail(error, "layer %u of '%s' is not the one that the image's config names: it was exchanged or is damaged", number, layout->path);
}

static bool is_compressed(const uint8_t head[LAYER_GZIP_HEAD])
{
    return memcmp(head, "\x1f\x8b", 2) == 0 || memcmp(head, "\x28\xb5\x2f\xfd", 4) == 0 || memcmp(head, "BZh", 3) == 0 ||
           memcmp(head, "\xfd" "7zXZ", 5) == 0;
}

/* *ret_tar_fd: the plain tar of a layer that a recipe can bring back, or -1. @fd: all of the layer, of which @bytes says what is known. */
static bool find_tar(Layers *layers, int fd, const uint8_t head[LAYER_GZIP_HEAD], LayerBytes *bytes, int *ret_tar_fd, GError **error)
{
    if (!bytes->gzip) {
        bytes->diff_id = bytes->blob;
        bytes->tar_size = bytes->size;
        *ret_tar_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return *ret_tar_fd >= 0 || fail_errno(error, "read a layer's temporary file");
    }
    return !layer_starts_as_ours(head) || layer_unpack_ours(layers->store, fd, UINT64_MAX, bytes, ret_tar_fd, error);
}

/* *ret_done: the recipe will be there after the commit. Else the layer is to be kept as it is. */
static bool take_in(Layers *layers, int fd, const uint8_t head[LAYER_GZIP_HEAD], const Digest *blob, uint64_t size, const Digest *diff_id, bool *ret_done,
                    GError **error)
{
    LayerBytes bytes = {.gzip = is_compressed(head), .blob = *blob, .size = size};
    auto_fd int tar = -1;
    LayerIngest *ingest = NULL;

    *ret_done = false;
    if (!find_tar(layers, fd, head, &bytes, &tar, error))
        return false;
    if (tar < 0)
        return true;
    if (!digest_equal(&bytes.diff_id, diff_id))
        return exchanged(layers->layout, layers->refs->len + 1, error);
    if ((!layers->writer && !store_writer_open(layers->store, BLOCK_PUBLIC, &layers->writer, error)) ||
        !layer_ingest_new(layers->store, layers->writer, tar, &bytes, &ingest, error))
        return false;
    g_ptr_array_add(layers->ingests, ingest);
    *ret_done = true;
    return true;
}

static bool keep_verbatim(Layers *layers, int fd, const Digest *digest, const Digest *diff_id, GError **error)
{
    uint64_t size;
    Digest have;

    if (!store_blob_put_file(layers->store, fd, &have, &size, error))
        return false;
    if (!digest_equal(&have, digest))
        return damaged(layers->layout, error);
    if (lseek(fd, 0, SEEK_SET) < 0)
        return fail_errno(error, "read a layer's temporary file");
    if (!interrupt_check(error) || !tree_tar_digest(fd, &have, error))
        return fail_prefix(error, "layer %u of '%s'", layers->refs->len + 1, layers->layout->path);
    g_ptr_array_add(layers->ingests, NULL);
    return digest_equal(&have, diff_id) || exchanged(layers->layout, layers->refs->len + 1, error);
}

static bool store_layer(Layers *layers, const Digest *digest, uint64_t size, const Digest *diff_id, GError **error)
{
    g_autofree char *name = blob_name(digest);
    auto_fd int fd = -1, copy = -1;
    uint8_t head[LAYER_GZIP_HEAD] = {0};
    bool done = false;
    Source source;
    Digest have;

    if (!interrupt_check(error) || !layout_file(layers->layout, name, &source, error))
        return false;
    fd = source.fd;
    if (source.size != size || size > LAYER_MAX)
        return fail(error, "'%s' is damaged: a layer is not as long as its manifest says", layers->layout->path);
    if (!copy_out(layers->store, &source, layers->layout->path, &copy, error) || !digest_of_fd(copy, &have, error))
        return false;
    if (!digest_equal(&have, digest))
        return damaged(layers->layout, error);
    if (pread(copy, head, sizeof head, 0) < 0)
        return fail_errno(error, "read a layer's temporary file");
    return take_in(layers, copy, head, digest, size, diff_id, &done, error) &&
           (done || keep_verbatim(layers, copy, digest, diff_id, error));
}

static bool check_layer_type(const Layout *layout, const json_t *layer, GError **error)
{
    g_autofree char *type = NULL;

    if (oci_layer_type_is_known(json_text(layer, "mediaType")))
        return true;
    type = printable_line(json_text(layer, "mediaType"));
    return fail(error, "'%s' has a layer of type '%s', which kiln does not read", layout->path, type);
}

/* A layer that the store has, as it has it; its contents are held against the config as those of any other. */
static bool known_layer(Layers *layers, const Digest *digest, const Digest *diff_id, StoreLayerRef *ret, GError **error)
{
    auto_fd int fd = -1;
    LayerResult info;
    Digest have;

    ret->blob = *digest;
    if (!store_layer_recipe(layers->store, digest, &ret->recipe, error))
        return false;
    if (!digest_is_none(&ret->recipe)) {
        if (!layer_recipe_info(layers->store, &ret->recipe, &info, error))
            return false;
        have = info.diff_id;
    } else if (!oci_open_layer(layers->store, ret, &fd, error) || !tree_tar_digest(fd, &have, error)) {
        return false;
    }
    return digest_equal(&have, diff_id) || exchanged(layers->layout, layers->refs->len + 1, error);
}

static bool add_known(Layers *layers, const Digest *digest, const Digest *diff_id, GError **error)
{
    StoreLayerRef *ref = g_new0(StoreLayerRef, 1);

    if (!known_layer(layers, digest, diff_id, ref, error)) {
        g_free(ref);
        return false;
    }
    g_ptr_array_add(layers->ingests, NULL);
    g_ptr_array_add(layers->refs, ref);
    return true;
}

/* A pull leaves out what is not in registries. */
static bool check_foreign(const Layout *layout, const json_t *layer, const char *name, GError **error)
{
    const char *type = json_text(layer, "mediaType");
    Source source;

    if (!oci_layer_type_is_foreign(type))
        return true;
    if (!layout_file(layout, name, &source, NULL))
        return fail(error, "'%s' has a layer that its maker keeps out of registries (type '%s'): kiln fetches it from nowhere else", layout->path, type);
    (void)close(source.fd);
    return true;
}

static bool store_one(Layers *layers, const json_t *layer, const Digest *diff_id, Progress *progress, GError **error)
{
    g_autofree char *name = NULL;
    StoreLayerRef *ref;
    Digest digest;
    uint64_t size;

    if (!check_layer_type(layers->layout, layer, error) || !read_descriptor(layers->layout, layer, &digest, &size, error))
        return false;
    name = blob_name(&digest);
    if (lies_in_store(layers->store, layers->layout, name, &digest)) {
        progress_add(progress, size);
        return add_known(layers, &digest, diff_id, error);
    }
    if (!check_foreign(layers->layout, layer, name, error) || !store_layer(layers, &digest, size, diff_id, error))
        return false;
    ref = g_new0(StoreLayerRef, 1);
    ref->blob = digest;
    g_ptr_array_add(layers->refs, ref);
    progress_add(progress, size);
    return true;
}

/* From here on the copies of what has a recipe are not needed: each recipe has made its tar again. */
static bool finish_recipes(Layers *layers, GError **error)
{
    if (!layers->writer)
        return true;
    if (!store_writer_commit(layers->writer, error))
        return false;
    for (guint i = 0; i < layers->refs->len; i++) {
        StoreLayerRef *ref = g_ptr_array_index(layers->refs, i);
        LayerIngest *ingest = g_ptr_array_index(layers->ingests, i);
        LayerResult result;

        if (ingest && !layer_ingest_result(ingest, &result, error))
            return false;
        if (ingest)
            ref->recipe = result.recipe;
    }
    return true;
}

static bool store_layers(Store *store, const Layout *layout, const json_t *manifest, const json_t *diff_ids, GPtrArray *ret, GError **error)
{
    const json_t *list = json_object_get(manifest, "layers"), *layer;
    g_auto(Layers) layers = {.store = store, .layout = layout, .refs = ret};
    g_autoptr(Progress) progress = NULL;
    uint64_t total = 0;
    size_t i;

    layers.ingests = g_ptr_array_new_with_free_func(free_ingest);
    json_array_foreach(list, i, layer) total += (uint64_t)MAX(json_integer_value(json_object_get(layer, "size")), 0);
    progress = progress_new("import", total, true);
    json_array_foreach(list, i, layer)
    {
        Digest diff_id;

        if (!digest_parse(json_string_value(json_array_get(diff_ids, i)), &diff_id))
            return fail(error, "'%s' has a malformed config", layout->path);
        if (!store_one(&layers, layer, &diff_id, progress, error))
            return false;
    }
    progress_done(progress);
    return finish_recipes(&layers, error);
}

/* --- the face ---------------------------------------------------------------------------- */

static bool check_config(const Layout *layout, const json_t *config, const json_t *manifest, GError **error)
{
    const json_t *diff_ids = json_object_get(json_object_get(config, "rootfs"), "diff_ids"), *item;
    const json_t *layers = json_object_get(manifest, "layers");
    const char *os = json_text(config, "os");
    Digest digest;
    size_t i;

    if (!json_is_array(layers) || json_array_size(layers) > LAYERS_MAX)
        return fail(error, "'%s' has no usable list of layers", layout->path);
    if (!json_is_array(diff_ids))
        return fail(error, "'%s' is no container image: its config lists no layers", layout->path);
    if (*os && strcmp(os, "linux") != 0)
        return fail(error, "'%s' is no Linux image", layout->path);
    if (json_array_size(diff_ids) != json_array_size(layers))
        return fail(error, "'%s' is damaged: config and manifest list different layers", layout->path);
    json_array_foreach(diff_ids, i, item)
        if (!json_is_string(item) || !digest_parse(json_string_value(item), &digest))
            return fail(error, "'%s' has a malformed config", layout->path);
    return true;
}

static bool import_layout(Store *store, OciForm form, const char *path, const char *tag, bool over_store, const char *what, OciParent **ret, GError **error)
{
    g_auto(Layout) layout = {.fd = -1, .over_store = over_store};
    g_autoptr(OciParent) parent = g_new0(OciParent, 1);
    g_autoptr(json_t) manifest = NULL;

    parent->layers = g_ptr_array_new_with_free_func(g_free);
    if (!layout_open(form, path, &layout, error))
        return false;
    layout.path = what;
    if (!find_manifest(store, &layout, tag, &parent->manifest, &manifest, error) ||
        !load_document(store, &layout, json_object_get(manifest, "config"), CONFIG_MAX, "the config",
                       &parent->config_digest, &parent->config, error) ||
        !check_config(&layout, parent->config, manifest, error) ||
        !store_layers(store, &layout, manifest, json_object_get(json_object_get(parent->config, "rootfs"), "diff_ids"), parent->layers, error))
        return false;
    *ret = g_steal_pointer(&parent);
    return true;
}

bool oci_import(Store *store, OciForm form, const char *path, const char *tag, OciParent **ret, GError **error)
{
    return import_layout(store, form, path, tag, false, path, ret, error);
}

bool oci_import_over(Store *store, const char *path, const char *what, OciParent **ret, GError **error)
{
    return import_layout(store, OCI_DIR, path, NULL, true, what, ret, error);
}

void oci_parent_free(OciParent *parent)
{
    if (!parent)
        return;
    json_decref(parent->config);
    if (parent->layers)
        g_ptr_array_unref(parent->layers);
    g_free(parent);
}
