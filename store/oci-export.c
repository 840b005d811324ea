/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images as OCI layouts: a folder, or the same files in a deterministic tar.
 *
 *   oci-layout   index.json   blobs/sha256/<manifest> <config> <layer>...
 *
 * Everything is written beside the target and put in its place when it is whole; layers are made again from
 * their recipes while they stream out, and their digests are checked on the way.
 */
#include "store/oci.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/export-path.h"
#include "store/layer.h"
#include "store/tar-header.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MANIFEST_MAX (4u << 20)
#define LAYERS_MAX 512
#define LAYOUT_TEXT "{\"imageLayoutVersion\":\"1.0.0\"}"
#define MANIFEST_MEDIA_TYPE "application/vnd.oci.image.manifest.v1+json"
#define INDEX_MEDIA_TYPE "application/vnd.oci.image.index.v1+json"
#define REF_NAME "org.opencontainers.image.ref.name"

/* Where files go: into the folder @fd, or as members of the tar @fd. */
typedef struct Sink {
    OciForm form;
    int fd;
} Sink;

typedef struct Export {
    Store *store;
    const StoreImage *image;
    json_t *manifest;
    uint64_t manifest_size;
    uint64_t total; /* uncompressed bytes of layers, for the bar */
} Export;

/* --- files into a sink ------------------------------------------------------------ */

static bool sink_header(Sink *sink, const char *name, char type, uint64_t size, GError **error)
{
    TreeEntry entry = {.path = (char *)name, .type = type, .mode = type == 'd' ? 0755 : 0644, .size = size};
    g_autoptr(GByteArray) header = g_byte_array_new();

    return tar_header_append(header, &entry, error) &&
           file_write_full(sink->fd, header->data, header->len, "OCI archive", error);
}

static bool sink_folder(Sink *sink, const char *name, GError **error)
{
    if (sink->form == OCI_ARCHIVE)
        return sink_header(sink, name, 'd', 0, error);
    return mkdirat(sink->fd, name, 0755) == 0 || fail_errno(error, "make '%s' in the OCI layout", name);
}

/* *ret_fd takes @size bytes; then sink_end. */
static bool sink_begin(Sink *sink, const char *name, uint64_t size, int *ret_fd, GError **error)
{
    if (sink->form == OCI_ARCHIVE) {
        *ret_fd = sink->fd;
        return sink_header(sink, name, 'f', size, error);
    }
    *ret_fd = openat(sink->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return *ret_fd >= 0 || fail_errno(error, "write '%s' in the OCI layout", name);
}

static bool sink_end(Sink *sink, int fd, uint64_t size, GError **error)
{
    static const char zeroes[TAR_BLOCK];
    bool ok;

    if (sink->form == OCI_ARCHIVE)
        return file_write_full(fd, zeroes, tar_padding(size), "OCI archive", error);
    ok = fdatasync(fd) == 0;
    if (close(fd) < 0)
        ok = false;
    return ok || fail_errno(error, "write the OCI layout");
}

static bool sink_put(Sink *sink, const char *name, const void *data, size_t size, GError **error)
{
    int fd;

    return sink_begin(sink, name, size, &fd, error) && file_write_full(fd, data, size, "OCI image", error) &&
           sink_end(sink, fd, size, error);
}

/* --- blobs ------------------------------------------------------------------------- */

static char *blob_name(const Digest *digest)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strdup_printf("blobs/sha256/%s", digest_to_hex(digest, hex));
}

static bool read_descriptor(const json_t *descriptor, Digest *ret, uint64_t *ret_size, GError **error)
{
    const char *text = json_string_value(json_object_get(descriptor, "digest"));
    json_int_t size = json_integer_value(json_object_get(descriptor, "size"));

    if (!text || !digest_parse(text, ret) || size < 0)
        return fail(error, "the image's manifest is damaged");
    *ret_size = (uint64_t)size;
    return true;
}

static const StoreLayerRef *find_layer(const StoreImage *image, const Digest *blob)
{
    for (guint i = 0; image->layers && i < image->layers->len; i++) {
        const StoreLayerRef *layer = g_ptr_array_index(image->layers, i);

        if (digest_equal(&layer->blob, blob) && !digest_is_none(&layer->recipe))
            return layer;
    }
    return NULL;
}

/* A tar's header says the size before the bytes come, so it must be right. */
static bool check_size(Store *store, const StoreLayerRef *layer, const Digest *blob, uint64_t size,
                       GError **error)
{
    LayerResult info;
    uint64_t have;

    if (layer) {
        if (!layer_recipe_info(store, &layer->recipe, &info, error))
            return false;
        have = info.size;
    } else if (!store_blob_size(store, blob, &have, error)) {
        return false;
    }
    return have == size || fail(error, "the image's manifest is damaged: a blob has another size");
}

static bool put_blob(Export *export, Sink *sink, const json_t *descriptor, GHashTable *done,
                     Progress *progress, GError **error)
{
    const StoreLayerRef *layer;
    g_autofree char *name = NULL;
    uint64_t size;
    Digest digest;
    bool ok;
    int fd;

    if (!read_descriptor(descriptor, &digest, &size, error))
        return false;
    name = blob_name(&digest);
    if (!g_hash_table_add(done, g_strdup(name))) /* one layer may stand twice in an image */
        return true;
    layer = find_layer(export->image, &digest);
    if (!check_size(export->store, layer, &digest, size, error) || !sink_begin(sink, name, size, &fd, error))
        return false;
    ok = layer ? layer_write_out_watched(export->store, &layer->recipe, false, fd, progress, error)
               : store_blob_copy(export->store, &digest, fd, error);
    if (ok && !layer)
        progress_add(progress, size);
    if (!ok) {
        if (sink->form == OCI_DIR)
            (void)close(fd);
        return false;
    }
    return sink_end(sink, fd, size, error);
}

static bool put_manifest(Export *export, Sink *sink, GError **error)
{
    g_autofree char *name = blob_name(&export->image->manifest);
    g_autoptr(GBytes) bytes = NULL;

    return store_blob_get(export->store, &export->image->manifest, MANIFEST_MAX, &bytes, error) &&
           sink_put(sink, name, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), error);
}

static bool put_index(Export *export, Sink *sink, const char *ref, GError **error)
{
    char oci[DIGEST_OCI_SIZE];
    g_autoptr(json_t) descriptor =
        json_pack("{sssssI}", "mediaType", MANIFEST_MEDIA_TYPE, "digest",
                  digest_to_oci(&export->image->manifest, oci), "size", (json_int_t) export->manifest_size);
    g_autoptr(json_t) index = NULL;
    g_autofree char *text = NULL;

    if (ref)
        json_object_set_new(descriptor, "annotations", json_pack("{ss}", REF_NAME, ref));
    index =
        json_pack("{siss s[O]}", "schemaVersion", 2, "mediaType", INDEX_MEDIA_TYPE, "manifests", descriptor);
    text = json_canonical(index);
    return sink_put(sink, "index.json", text, strlen(text), error);
}

static bool put_all(Export *export, Sink *sink, const char *ref, GError **error)
{
    g_autoptr(GHashTable) done = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(Progress) progress = progress_new("export", export->total, true);
    static const char zeroes[TAR_END_SIZE];
    const json_t *layer;
    size_t i;

    if (!sink_put(sink, "oci-layout", LAYOUT_TEXT, strlen(LAYOUT_TEXT), error) ||
        !put_index(export, sink, ref, error) || !sink_folder(sink, "blobs", error) ||
        !sink_folder(sink, "blobs/sha256", error) || !put_manifest(export, sink, error) ||
        !put_blob(export, sink, json_object_get(export->manifest, "config"), done, NULL, error))
        return false;
    json_array_foreach(json_object_get(export->manifest, "layers"), i,
                       layer) if (!put_blob(export, sink, layer, done, progress, error)) return false;
    if (sink->form == OCI_ARCHIVE && !file_write_full(sink->fd, zeroes, sizeof(zeroes), "OCI archive", error))
        return false;
    progress_done(progress);
    return true;
}

/* --- placing -------------------------------------------------------------------------- */

typedef struct Archive {
    Export *export;
    const char *ref;
} Archive;

static bool write_archive(int fd, void *arg, GError **error)
{
    const Archive *archive = arg;
    Sink sink = {OCI_ARCHIVE, fd};

    return put_all(archive->export, &sink, archive->ref, error);
}

static bool export_archive(Export *export, const char *path, const char *ref, GError **error)
{
    Archive archive = {export, ref};

    return export_to_path(path, write_archive, &archive, error);
}

/* Only what is a layout already, or empty, is replaced: "export web /" must not be a disaster. */
static bool check_target(const char *path, bool *ret_exists, GError **error)
{
    g_autofree char *marker = g_build_filename(path, "oci-layout", NULL);
    auto_dir DIR *dir = opendir(path);
    struct dirent *entry;

    *ret_exists = dir != NULL;
    if (!dir && errno == ENOENT)
        return true;
    if (!dir)
        return fail_errno(error, "write the OCI layout '%s'", path);
    if (access(marker, F_OK) == 0)
        return true;
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            return fail(error, "'%s' is there already and is no OCI layout; it is left as it is", path);
    return true;
}

static bool sync_folder(int fd, GError **error)
{
    auto_fd int blobs = openat(fd, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return (blobs >= 0 && fsync(blobs) == 0 && fsync(fd) == 0) || fail_errno(error, "sync the OCI layout");
}

static bool export_folder(Export *export, const char *path, const char *ref, GError **error)
{
    g_autofree char *clean = g_canonicalize_filename(path, NULL),
                    *part = g_strdup_printf("%s.kiln-XXXXXX", clean);
    auto_fd int fd = -1;
    Sink sink = {OCI_DIR, -1};
    bool exists, ok;

    if (strcmp(path, "-") == 0)
        return fail(error, "an OCI layout is a folder and cannot go to stdout; use the format oci-archive");
    if (!check_target(clean, &exists, error))
        return false;
    if (!g_mkdtemp_full(part, 0755))
        return fail_errno(error, "write '%s'", path);
    sink.fd = fd = open(part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ok = fd >= 0 || fail_errno(error, "open '%s'", part);
    ok = ok && put_all(export, &sink, ref, error) && sync_folder(fd, error);
    if (ok && renameat2(AT_FDCWD, part, AT_FDCWD, clean, exists ? RENAME_EXCHANGE : RENAME_NOREPLACE) < 0)
        ok = fail_errno(error, "put the OCI layout at '%s'", path);
    if (!ok || exists)
        (void)file_remove_tree(AT_FDCWD, part, NULL); /* our half, or what stood there before */
    return ok;
}

/* --- the face --------------------------------------------------------------------------- */

static bool load_manifest(Export *export, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    const json_t *layer;
    const char *data;
    gsize size;
    size_t i;

    if (!store_blob_get(export->store, &export->image->manifest, MANIFEST_MAX, &bytes, error))
        return false;
    data = g_bytes_get_data(bytes, &size);
    export->manifest_size = size;
    if (!json_parse(data, size, MANIFEST_MAX, "the image's manifest", &export->manifest, error))
        return false;
    if (json_array_size(json_object_get(export->manifest, "layers")) > LAYERS_MAX)
        return fail(error, "the image has more than %d layers", LAYERS_MAX);
    json_array_foreach(json_object_get(export->manifest, "layers"), i, layer)
    {
        const StoreLayerRef *ref;
        LayerResult info;
        Digest digest;

        if (!read_descriptor(layer, &digest, &size, error))
            return false;
        ref = find_layer(export->image, &digest);
        if (ref && !layer_recipe_info(export->store, &ref->recipe, &info, error))
            return false;
        export->total += ref ? info.tar_size : size;
    }
    return true;
}

bool oci_export(Store *store, const StoreImage *image, OciForm form, const char *path, const char *ref,
                GError **error)
{
    Export export = {.store = store, .image = image};
    bool ok;

    if (digest_is_none(&image->manifest))
        return fail(error, "'%s' is a disk image and has no container layers", image->name);
    ok = load_manifest(&export, error) && (form == OCI_DIR ? export_folder(&export, path, ref, error)
                                                           : export_archive(&export, path, ref, error));
    json_decref(export.manifest);
    return ok;
}
