/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images in registries as others than kiln expect and make them: docker's media types for containers, whole disks as one layer.
 */
#include "store/disk-artifact.h"
#include "store/oci-end.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/scope.h"
#include "store/compress.h"
#include "store/disk-file.h"
#include "store/downloads.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (1u << 20)
#define DISK_SIZE_MAX (1ull << 44)
#define PLAIN ".plain" /* kind of download */

/* --- containers --- */

static const char *docker_layer_type(const char *type)
{
    if (g_str_has_suffix(type, "gzip"))
        return "application/vnd.docker.image.rootfs.diff.tar.gzip";
    if (g_str_has_suffix(type, "zstd"))
        return NULL; /* docker's format knows none */
    return "application/vnd.docker.image.rootfs.diff.tar";
}

static bool rewrite(json_t *manifest, GError **error)
{
    json_t *layer;
    size_t i;

    json_array_foreach(json_object_get(manifest, "layers"), i, layer)
    {
        const char *type = json_string_value(json_object_get(layer, "mediaType"));
        const char *docker = docker_layer_type(type ? type : "");

        if (!docker)
            return fail(error, "layer %zu is compressed by zstd, for which docker's format has no name; push it without --format=docker", i + 1);
        json_object_set_new(layer, "mediaType", json_string(docker));
        (void)json_object_del(layer, "annotations");
    }
    json_object_set_new(manifest, "mediaType", json_string(DOCKER_MANIFEST_TYPE));
    json_object_set_new(json_object_get(manifest, "config"), "mediaType", json_string("application/vnd.docker.container.image.v1+json"));
    (void)json_object_del(manifest, "annotations");
    return true;
}

typedef struct DockerEnd {
    OciEnd *image;
    GBytes *bytes;
    Digest digest;
} DockerEnd;

static bool docker_manifest(void *end, const char *version, GBytes **ret, char **ret_type, Digest *ret_digest, GError **error)
{
    DockerEnd *e = end;

    *ret = g_bytes_ref(e->bytes);
    *ret_type = g_strdup(DOCKER_MANIFEST_TYPE);
    *ret_digest = e->digest;
    return true;
}

static bool docker_blob(void *end, const Digest *digest, uint64_t size, int fd, uint64_t have, Progress *progress, GError **error)
{
    DockerEnd *e = end;

    return e->image->ops->get_blob(e->image->data, digest, size, fd, have, progress, error);
}

static bool make_docker_manifest(Store *store, OciEnd *image, DockerEnd *ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) manifest = NULL;
    g_autofree char *type = NULL, *text = NULL;

    if (!image->ops->get_manifest(image->data, NULL, &bytes, &type, &ret->digest, error) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "the image's manifest", &manifest, error) || !rewrite(manifest, error))
        return false;
    text = json_canonical(manifest);
    ret->image = image;
    ret->bytes = g_bytes_new(text, strlen(text));
    return store_blob_put(store, text, strlen(text), &ret->digest, error);
}

bool oci_push_docker(Store *store, const StoreImage *image, OciEnd *to, Digest *ret_manifest, GError **error)
{
    static const OciEndOps from_ops = {.name = "docker", .get_manifest = docker_manifest, .get_blob = docker_blob};
    g_autoptr(OciEnd) end = NULL;
    DockerEnd docker = {NULL};
    OciEnd from = {&from_ops, &docker};
    OciCopyReport report;
    bool ok;

    ok = oci_end_image(store, image, &end, error) && make_docker_manifest(store, end, &docker, error) &&
         oci_copy(store, &from, to, &(OciCopy){.whole_index = true}, &report, error);
    g_clear_pointer(&docker.bytes, g_bytes_unref);
    *ret_manifest = docker.digest;
    return ok;
}

/* --- disks --- */

typedef struct Out {
    int fd;
    uint64_t at;
} Out;

static bool write_out(const void *data, size_t size, void *arg, GError **error)
{
    Out *out = arg;

    out->at += size;
    return file_pwrite_full(out->fd, data, size, out->at - size, "a temporary file", error);
}

static bool write_raw(StoreMap *map, int fd, GError **error)
{
    Out out = {fd, 0};
    g_autoptr(ZstdWriter) z = zstd_writer_new(store_map_size(map), write_out, &out);
    g_autofree uint8_t *buf = g_malloc(PIECE);

    for (uint64_t at = 0; at < store_map_size(map); at += PIECE) {
        size_t n = (size_t)MIN(PIECE, store_map_size(map) - at);

        if (!interrupt_check(error) || !store_map_pread_once(map, buf, n, at, error) || !zstd_writer_push(z, buf, n, error))
            return false;
    }
    return zstd_writer_finish(z, error);
}

static char *plain_manifest(const StoreImage *image, bool qcow2, const Digest *config, const Digest *layer, uint64_t size)
{
    char config_text[DIGEST_OCI_SIZE], layer_text[DIGEST_OCI_SIZE], id[DIGEST_OCI_SIZE];
    const char *type = qcow2 ? "application/vnd.qemu.qcow2" : "application/vnd.kiln.disk.raw.v1+zstd";
    g_autofree char *file = g_strconcat(image->name, qcow2 ? ".qcow2" : ".raw.zst", NULL), *plain = g_strdup_printf("%" G_GUINT64_FORMAT, image->size);
    g_autoptr(json_t) manifest =
        json_pack("{s:i, s:s, s:s, s:{s:s, s:s, s:i}, s:[{s:s, s:s, s:I, s:{s:s}}], s:{s:s, s:s}}", "schemaVersion", 2, "mediaType", OCI_MANIFEST_TYPE, "artifactType",
                  type, "config", "mediaType", OCI_EMPTY_TYPE, "digest", digest_to_oci(config, config_text), "size", 2, "layers", "mediaType", type, "digest",
                  digest_to_oci(layer, layer_text), "size", (json_int_t)size, "annotations", "org.opencontainers.image.title", file, "annotations",
                  "org.kiln.image.id", digest_to_oci(&image->id, id), "org.kiln.disk.size", plain);

    return json_canonical(manifest);
}

bool disk_plain_push(Store *store, const StoreImage *image, Registry *registry, const char *version, bool qcow2, Digest *ret_manifest, GError **error)
{
    g_autoptr(StoreMap) map = NULL;
    g_autoptr(Progress) progress = NULL;
    g_autoptr(GBytes) manifest = NULL;
    g_autofree char *text = NULL;
    auto_fd int fd = -1;
    Digest config, layer;
    uint64_t sent;
    struct stat st;

    if (strcmp(image->kind, "disk") != 0)
        return fail(error, "'%s' is a container image, and raw.zst and qcow2 are forms of disks", image->name);
    if (!store_map_open(store, &image->map, &map, error) || !store_open_unnamed(store, &fd, error) ||
        !(qcow2 ? disk_export_qcow2(map, fd, error) : write_raw(map, fd, error)) || !digest_of_fd(fd, &layer, error))
        return false;
    if (fstat(fd, &st) < 0)
        return fail_errno(error, "read a temporary file");
    progress = progress_new("push", (uint64_t)st.st_size, true);
    if (!registry_put_blob_bytes(registry, "{}", 2, &config, error) ||
        !registry_put_blob(registry, &layer, (uint64_t)st.st_size, fd, NULL, progress, &sent, error))
        return false;
    progress_done(progress);
    text = plain_manifest(image, qcow2, &config, &layer, (uint64_t)st.st_size);
    manifest = g_bytes_new(text, strlen(text));
    return store_blob_put(store, text, strlen(text), ret_manifest, error) && registry_put_manifest(registry, version, manifest, OCI_MANIFEST_TYPE, NULL, error);
}

/* --- disks, in --- */

static bool is_container_config(const char *type)
{
    static const char *const types[] = {OCI_CONFIG_TYPE, "application/vnd.docker.container.image.v1+json", "application/octet-stream" /* an old docker's */, ""};

    for (size_t i = 0; i < G_N_ELEMENTS(types); i++)
        if (strcmp(type, types[i]) == 0)
            return true;
    return false;
}

static bool has_suffix(const char *title, size_t size, const char *suffix)
{
    size_t n = strlen(suffix);

    return size >= n && g_ascii_strncasecmp(title + size - n, suffix, n) == 0;
}

static bool is_disk_layer(const json_t *layer)
{
    static const char *const packed[] = {".zst", ".zstd", ".gz", ".xz"}, *const disks[] = {".qcow2", ".raw", ".img"};
    const char *title = json_text(json_object_get(layer, "annotations"), "org.opencontainers.image.title");
    g_autofree char *type = g_ascii_strdown(json_text(layer, "mediaType"), -1);
    size_t size = strlen(title);

    if (strstr(type, "qcow2") || strstr(type, "disk") || strstr(type, ".raw"))
        return true;
    for (size_t i = 0; i < G_N_ELEMENTS(packed); i++)
        if (has_suffix(title, size, packed[i])) {
            size -= strlen(packed[i]);
            break;
        }
    for (size_t i = 0; i < G_N_ELEMENTS(disks); i++)
        if (has_suffix(title, size, disks[i]))
            return true;
    return false;
}

bool disk_plain_find(const json_t *manifest, const json_t **ret_layer, GError **error)
{
    const char *config = json_text(json_object_get(manifest, "config"), "mediaType"), *type = json_text(manifest, "artifactType"),
               *shown = *type ? type : config;
    const json_t *layer, *found = NULL;
    unsigned disks = 0;
    size_t i;

    *ret_layer = NULL;
    if (is_container_config(config))
        return true;
    json_array_foreach(json_object_get(manifest, "layers"), i, layer)
    {
        if (!is_disk_layer(layer))
            continue;
        found = layer;
        disks++;
    }
    if (disks == 0)
        return fail(error, "it is an artifact of the type '%s', and no layer of it says that it is a disk; kiln reads container images and disks", shown);
    if (disks > 1)
        return fail(error, "it is an artifact of the type '%s' with %u disks; kiln takes one that is alone in its artifact", shown, disks);
    *ret_layer = found;
    return true;
}

/* Zeroes stay holes. */
static bool write_sparse(const void *data, size_t size, void *arg, GError **error)
{
    Out *out = arg;
    const uint8_t *bytes = data;

    if (size > DISK_SIZE_MAX - out->at)
        return fail(error, "the disk is larger than any that kiln takes");
    for (size_t at = 0, n; at < size; at += n) {
        n = MIN(STORE_BLOCK_SIZE - (size_t)(out->at % STORE_BLOCK_SIZE), size - at);
        if (!bytes_are_zero(bytes + at, n) && !file_pwrite_full(out->fd, bytes + at, n, out->at, "a temporary file", error))
            return false;
        out->at += n;
    }
    return interrupt_check(error);
}

static bool unpack(int from, const char *path, GError **error)
{
    auto_fd int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    Out out = {fd, 0};

    if (fd < 0 || lseek(from, 0, SEEK_SET) < 0)
        return fail_errno(error, "make a temporary file");
    return decompress_fd(from, write_sparse, &out, "the disk", error) && (ftruncate(fd, (off_t)out.at) == 0 || fail_errno(error, "write a temporary file"));
}

static bool hand_on(Store *store, int fd, DiskPlainFn *fn, void *arg, GError **error)
{
    static const uint8_t zstd[4] = {0x28, 0xb5, 0x2f, 0xfd};
    g_autofree char *folder = NULL, *path = NULL;
    uint8_t head[4] = {0};
    bool ok;

    if (pread(fd, head, sizeof head, 0) < 0)
        return fail_errno(error, "read what was fetched");
    if (memcmp(head, zstd, sizeof zstd) != 0) {
        path = g_strdup_printf("/proc/self/fd/%d", fd);
        return fn(path, arg, error);
    }
    if (!store_make_tmpdir(store, &folder, error))
        return false;
    path = g_build_filename(folder, "disk", NULL);
    ok = unpack(fd, path, error) && fn(path, arg, error);
    (void)file_remove_tree(AT_FDCWD, folder, NULL);
    return ok;
}

bool disk_plain_fetch(Store *store, Registry *registry, const json_t *layer, DiskPlainFn *fn, void *arg, GError **error)
{
    g_autoptr(Progress) progress = NULL;
    g_autoptr(GError) why = NULL;
    auto_fd int folder = -1, fd = -1;
    uint64_t size, have;
    Digest digest;
    bool ok;

    if (!oci_read_descriptor(layer, &digest, &size, error) || !downloads_open(store, &folder, error) ||
        !downloads_take(folder, &digest, PLAIN, &fd, &have, error))
        return false;
    progress = progress_new("pull", size, true);
    if (!registry_get_blob(registry, &digest, size, fd, have, progress, error))
        return false;
    progress_done(progress);
    ok = hand_on(store, fd, fn, arg, &why);
    if (ok || why->code != KILN_ERROR_INTERRUPTED)
        downloads_drop(folder, &digest, PLAIN);
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&why));
    return ok;
}
