/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images as `docker load` and `podman load` take them: a deterministic tar.
 *
 *   manifest.json   [{"Config", "Layers", "RepoTags"}]
 *   <image ID>.json   the config, byte for byte, so that Docker shows the image ID that kiln does
 *   <diff ID>.tar     each layer's uncompressed tar, once
 *
 * Layers of our own come out of their recipes; others are unpacked twice, because a tar's header says the size before the bytes come.
 */
#include "store/oci-private.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/export-path.h"
#include "store/tar-header.h"

#include <string.h>

#define CONFIG_MAX (4u << 20)
#define LAYERS_MAX 512

typedef struct Docker {
    Store *store;
    const StoreImage *image;
    const char *const *tags;
    GBytes *config;
    Digest *diff_ids; /* one per layer */
    int fd;
} Docker;

/* --- members --- */

static bool put_header(const Docker *docker, const char *name, uint64_t size, GError **error)
{
    TreeEntry entry = {.path = (char *)name, .type = 'f', .mode = 0644, .size = size};
    g_autoptr(GByteArray) header = g_byte_array_new();

    return tar_header_append(header, &entry, error) && file_write_full(docker->fd, header->data, header->len, "image archive", error);
}

static bool put_padding(const Docker *docker, uint64_t size, GError **error)
{
    static const char zeroes[TAR_BLOCK];

    return file_write_full(docker->fd, zeroes, tar_padding(size), "image archive", error);
}

static bool put_member(const Docker *docker, const char *name, const void *data, size_t size, GError **error)
{
    return put_header(docker, name, size, error) && file_write_full(docker->fd, data, size, "image archive", error) &&
           put_padding(docker, size, error);
}

/* --- layers --- */

typedef struct Unpacked {
    int fd; /* -1: only counted */
    uint64_t size;
    DigestStream *digest;
    Progress *progress;
} Unpacked;

static bool take_unpacked(const void *data, size_t size, void *arg, GError **error)
{
    Unpacked *to = arg;

    to->size += size;
    if (to->fd < 0)
        return true;
    digest_stream_update(to->digest, data, size);
    progress_add(to->progress, size);
    return file_write_full(to->fd, data, size, "image archive", error);
}

static bool put_foreign_layer(const Docker *docker, const StoreLayerRef *ref, const Digest *diff_id, const char *name, Progress *progress,
                              GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    Unpacked counted = {.fd = -1}, written = {.fd = docker->fd, .digest = stream, .progress = progress};
    auto_fd int fd = -1;
    Digest made;

    if (!oci_open_layer(docker->store, ref, &fd, error) || !tree_tar_unpack(fd, take_unpacked, &counted, error))
        return false;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return fail_errno(error, "read a layer's temporary file");
    if (!put_header(docker, name, counted.size, error) || !tree_tar_unpack(fd, take_unpacked, &written, error))
        return false;
    digest_stream_final(stream, &made);
    return digest_equal(&made, diff_id) ? put_padding(docker, written.size, error)
                                        : fail(error, "a layer does not unpack to the diff ID of the image's config");
}

static bool put_own_layer(const Docker *docker, const StoreLayerRef *ref, const Digest *diff_id, const char *name, Progress *progress,
                          GError **error)
{
    LayerResult info;

    if (!layer_recipe_info(docker->store, &ref->recipe, &info, error))
        return false;
    if (!digest_equal(&info.diff_id, diff_id))
        return fail(error, "a layer is not the one that the image's config names");
    return put_header(docker, name, info.tar_size, error) &&
           layer_write_out_watched(docker->store, &ref->recipe, true, docker->fd, progress, error) &&
           put_padding(docker, info.tar_size, error);
}

static char *member_name(const Digest *digest, const char *suffix)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strconcat(digest_to_hex(digest, hex), suffix, NULL);
}

static bool put_layers(const Docker *docker, GError **error)
{
    g_autoptr(GHashTable) done = g_hash_table_new(digest_hash, digest_equal_gfunc);
    g_autoptr(Progress) progress = progress_new("export", 0, true);

    for (guint i = 0; i < docker->image->layers->len; i++) {
        const StoreLayerRef *ref = docker->image->layers->pdata[i];
        g_autofree char *name = member_name(&docker->diff_ids[i], ".tar");

        if (!g_hash_table_add(done, &docker->diff_ids[i])) /* one layer may stand twice in an image */
            continue;
        if (!(digest_is_none(&ref->recipe) ? put_foreign_layer : put_own_layer)(docker, ref, &docker->diff_ids[i], name, progress, error))
            return fail_prefix(error, "layer %u", i + 1);
    }
    progress_done(progress);
    return true;
}

/* --- manifest --- */

/* What Docker takes for a repository's name; kiln's names may be others, and the image then has none. */
static json_t *repo_tags(const char *name, const char *const *tags)
{
    if (tags) {
        json_t *list = json_array();

        for (; *tags; tags++)
            json_array_append_new(list, json_string(*tags));
        return list;
    }
    if (!g_regex_match_simple("^[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*$", name, G_REGEX_DOLLAR_ENDONLY, 0))
        return json_array();
    return json_pack("[s+]", name, ":latest");
}

static char *manifest_text(const Docker *docker)
{
    g_autofree char *config = member_name(&docker->image->id, ".json");
    json_t *layers = json_array();
    g_autoptr(json_t) manifest = NULL;

    for (guint i = 0; i < docker->image->layers->len; i++) {
        g_autofree char *name = member_name(&docker->diff_ids[i], ".tar");

        json_array_append_new(layers, json_string(name));
    }
    manifest = json_pack("[{s:s, s:o, s:o}]", "Config", config, "Layers", layers, "RepoTags", repo_tags(docker->image->name, docker->tags));
    return json_canonical(manifest);
}

static bool write_archive(int fd, void *arg, GError **error)
{
    static const char zeroes[TAR_END_SIZE];
    Docker *docker = arg;
    g_autofree char *manifest = manifest_text(docker), *config = member_name(&docker->image->id, ".json");

    docker->fd = fd;
    return put_member(docker, "manifest.json", manifest, strlen(manifest), error) &&
           put_member(docker, config, g_bytes_get_data(docker->config, NULL), g_bytes_get_size(docker->config), error) &&
           put_layers(docker, error) && file_write_full(fd, zeroes, sizeof zeroes, "image archive", error);
}

static bool read_diff_ids(Docker *docker, const json_t *config, GError **error)
{
    const json_t *list = json_object_get(json_object_get(config, "rootfs"), "diff_ids"), *id;
    size_t i;

    if (json_array_size(list) != docker->image->layers->len || docker->image->layers->len > LAYERS_MAX)
        return fail(error, "the image's config does not have a diff ID for each layer");
    docker->diff_ids = g_new0(Digest, docker->image->layers->len + 1);
    json_array_foreach(list, i, id)
    {
        if (!json_is_string(id) || !digest_parse(json_string_value(id), &docker->diff_ids[i]))
            return fail(error, "the image's config has a diff ID that is none");
    }
    return true;
}

bool docker_export(Store *store, const StoreImage *image, const char *const *tags, const char *path, GError **error)
{
    Docker docker = {.store = store, .image = image, .tags = tags};
    g_autoptr(GBytes) config = NULL;
    g_autoptr(json_t) parsed = NULL;
    bool ok;

    if (digest_is_none(&image->manifest) || !image->layers)
        return fail(error, "'%s' is a disk image and has no container layers", image->name);
    if (!store_image_config(store, &image->id, CONFIG_MAX, &config, &parsed, error))
        return false;
    docker.config = config;
    ok = read_diff_ids(&docker, parsed, error) && export_to_path(path, write_archive, &docker, error);
    g_free(docker.diff_ids);
    return ok;
}
