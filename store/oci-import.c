/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an image from an OCI layout, as a folder or as an uncompressed tar.
 *
 * Everything is named by digest, and nothing else is opened: index.json, then blobs/sha256/<hex> of what a
 * verified document named, never through a symbolic link. Layers go into the store as they are.
 */
#include "store/oci-private.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
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
    const char *path;
    int fd;             /* the folder, or the archive */
    GPtrArray *members; /* of TarMember*: the archive's files */
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

    *ret = (Layout){form, path, open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), NULL};
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
    if (!load(layout, name, max, &bytes, error))
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

static const char *host_architecture(void)
{
#if defined(__aarch64__)
    return "arm64";
#else
    return "amd64";
#endif
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static bool is_index(const json_t *descriptor)
{
    const char *type = text_of(descriptor, "mediaType");

    return strcmp(type, "application/vnd.oci.image.index.v1+json") == 0 ||
           strcmp(type, "application/vnd.docker.distribution.manifest.list.v2+json") == 0;
}

static bool is_manifest(const json_t *descriptor)
{
    const char *type = text_of(descriptor, "mediaType");

    return strcmp(type, "application/vnd.oci.image.manifest.v1+json") == 0 ||
           strcmp(type, "application/vnd.docker.distribution.manifest.v2+json") == 0;
}

static bool fits_platform(const json_t *descriptor)
{
    const json_t *platform = json_object_get(descriptor, "platform");

    return !platform || (strcmp(text_of(platform, "os"), "linux") == 0 &&
                         strcmp(text_of(platform, "architecture"), host_architecture()) == 0);
}

static bool fits_tag(const json_t *descriptor, const char *tag)
{
    return !tag || strcmp(text_of(json_object_get(descriptor, "annotations"), REF_NAME), tag) == 0;
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
        return fail(error, "'%s' has no image for linux/%s", layout->path, host_architecture());
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

static bool known_layer_type(const char *type)
{
    static const char *const known[] = {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        NULL,
    };

    return g_strv_contains(known, type);
}

/* A part of the archive as a file of its own. */
static bool cut_out(Store *store, const Source *source, const char *what, int *ret_fd, GError **error)
{
    auto_fd int fd = -1;
    bool ok = store_open_unnamed(store, &fd, error) &&
              (lseek(source->fd, (off_t)source->offset, SEEK_SET) >= 0 || fail_errno(error, "read '%s'", what)) &&
              file_copy_stream(source->fd, fd, source->size, what, error);

    if (ok)
        *ret_fd = g_steal_fd(&fd);
    return ok;
}

static bool store_layer(Store *store, const Layout *layout, const Digest *digest, uint64_t size,
                        GError **error)
{
    g_autofree char *name = blob_name(digest);
    Source source;
    auto_fd int fd = -1, copy = -1;
    uint64_t have_size;
    Digest have;

    if (!interrupt_check(error) || !layout_file(layout, name, &source, error))
        return false;
    fd = source.fd;
    if (source.size != size || size > LAYER_MAX)
        return fail(error, "'%s' is damaged: a layer is not as long as its manifest says", layout->path);
    if (layout->form == OCI_ARCHIVE && !cut_out(store, &source, layout->path, &copy, error))
        return false;
    if (!store_blob_put_file(store, copy >= 0 ? copy : fd, &have, &have_size, error))
        return false;
    return digest_equal(&have, digest) ||
           fail(error, "'%s' is damaged: a layer does not have the digest it is named by", layout->path);
}

static bool store_layers(Store *store, const Layout *layout, const json_t *manifest, GPtrArray *ret,
                         GError **error)
{
    const json_t *layers = json_object_get(manifest, "layers"), *layer;
    g_autoptr(Progress) progress = NULL;
    uint64_t total = 0;
    size_t i;

    if (!json_is_array(layers) || json_array_size(layers) > LAYERS_MAX)
        return fail(error, "'%s' has no usable list of layers", layout->path);
    json_array_foreach(layers, i, layer) total +=
        (uint64_t)MAX(json_integer_value(json_object_get(layer, "size")), 0);
    progress = progress_new("import", total, true);
    json_array_foreach(layers, i, layer)
    {
        StoreLayerRef *ref;
        Digest digest;
        uint64_t size;

        if (!known_layer_type(text_of(layer, "mediaType"))) {
            g_autofree char *type = log_printable(text_of(layer, "mediaType"));

            return fail(error, "'%s' has a layer of type '%s', which kiln does not read", layout->path, type);
        }
        if (!read_descriptor(layout, layer, &digest, &size, error) ||
            !store_layer(store, layout, &digest, size, error))
            return false;
        ref = g_new0(StoreLayerRef, 1);
        ref->blob = digest;
        g_ptr_array_add(ret, ref);
        progress_add(progress, size);
    }
    progress_done(progress);
    return true;
}

/* --- the face ---------------------------------------------------------------------------- */

static bool check_config(const Layout *layout, const OciParent *parent, GError **error)
{
    const json_t *diff_ids = json_object_get(json_object_get(parent->config, "rootfs"), "diff_ids"), *item;
    const char *os = text_of(parent->config, "os");
    Digest digest;
    size_t i;

    if (!json_is_array(diff_ids))
        return fail(error, "'%s' is no container image: its config lists no layers", layout->path);
    if (*os && strcmp(os, "linux") != 0)
        return fail(error, "'%s' is no Linux image", layout->path);
    if (json_array_size(diff_ids) != parent->layers->len)
        return fail(error, "'%s' is damaged: config and manifest list different layers", layout->path);
    json_array_foreach(diff_ids, i,
                       item) if (!json_is_string(item) ||
                                 !digest_parse(json_string_value(item),
                                               &digest)) return fail(error, "'%s' has a malformed config",
                                                                     layout->path);
    return true;
}

static bool check_layers(Store *store, const Layout *layout, const OciParent *parent, GError **error)
{
    const json_t *diff_ids = json_object_get(json_object_get(parent->config, "rootfs"), "diff_ids");

    for (guint i = 0; i < parent->layers->len; i++) {
        auto_fd int fd = -1;
        Digest wanted, got;

        if (!interrupt_check(error) || !oci_open_layer(store, parent->layers->pdata[i], &fd, error) || !tree_tar_digest(fd, &got, error))
            return fail_prefix(error, "layer %u of '%s'", i + 1, layout->path);
        if (!digest_parse(json_string_value(json_array_get(diff_ids, i)), &wanted) || !digest_equal(&wanted, &got))
            return fail(error, "layer %u of '%s' is not the one that the image's config names: it was exchanged or is damaged", i + 1, layout->path);
    }
    return true;
}

bool oci_import(Store *store, OciForm form, const char *path, const char *tag, OciParent **ret,
                GError **error)
{
    g_auto(Layout) layout = {.fd = -1};
    g_autoptr(OciParent) parent = g_new0(OciParent, 1);
    g_autoptr(json_t) manifest = NULL;

    parent->layers = g_ptr_array_new_with_free_func(g_free);
    if (!layout_open(form, path, &layout, error) ||
        !find_manifest(store, &layout, tag, &parent->manifest, &manifest, error) ||
        !load_document(store, &layout, json_object_get(manifest, "config"), CONFIG_MAX, "the config",
                       &parent->config_digest, &parent->config, error) ||
        !store_layers(store, &layout, manifest, parent->layers, error) ||
        !check_config(&layout, parent, error) || !check_layers(store, &layout, parent, error))
        return false;
    *ret = g_steal_pointer(&parent);
    return true;
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
