/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-processors "docker-tag", "docker-save" and "docker-import". What Docker's daemon is to Packer, the store is here:
 *
 *   docker-tag      the container image gets one more name in the store; its tags go along the chain
 *   docker-save     FILE for `docker load`, with those tags
 *   docker-import   an image with the layers it got, or with a tar of a root file system as its only one, and a config of `changes` alone
 */
#include "baker/docker-changes.h"
#include "baker/docker-names.h"
#include "baker/import.h"
#include "baker/output-files.h"
#include "baker/post-members.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_MAX (8u << 20)
#define MANIFEST_MAX (4u << 20)

/* --- names --- */

static bool check_repository(const json_t *args, const char **ret_argument, GError **error)
{
    const char *repository;
    g_autofree char *name = NULL;

    if (!post_check_text(args, "repository", true, ret_argument, error) || !json_get_string(args, "repository", "", &repository, error))
        return false;
    *ret_argument = "repository";
    if (!g_regex_match_simple("^[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$", docker_without_registry(repository),
                              G_REGEX_DOLLAR_ENDONLY, 0))
        return fail_code(error, KILN_ERROR_USAGE, "\"%s\" is no repository's name", repository);
    name = docker_name_in_store(repository);
    return store_name_check(name, error);
}

static bool check_tags(const json_t *args, const char *argument, const char **ret_argument, GError **error)
{
    g_auto(GStrv) tags = NULL;

    *ret_argument = argument;
    if (!json_get_strings(args, argument, &tags, error))
        return false;
    for (char **tag = tags; *tag; tag++)
        if (!g_regex_match_simple("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", *tag, G_REGEX_DOLLAR_ENDONLY, 0))
            return fail_code(error, KILN_ERROR_USAGE, "\"%s\" is no tag", *tag);
    *ret_argument = NULL;
    return true;
}

static bool add_tags(const json_t *args, const char *argument, const char *repository, GPtrArray *tags, GError **error)
{
    g_auto(GStrv) texts = NULL;

    if (!json_get_strings(args, argument, &texts, error))
        return false;
    for (char **text = texts; *text; text++)
        g_ptr_array_add(tags, g_strconcat(repository, ":", *text, NULL));
    return true;
}

/* `tag` may be a list, too; without any it is "latest", as for Docker. */
static bool read_tags(const json_t *args, const char **ret_repository, PostArtifact *out, GError **error)
{
    guint before = out->tags->len;

    if (!json_get_string(args, "repository", "", ret_repository, error) || !add_tags(args, "tags", *ret_repository, out->tags, error) ||
        !add_tags(args, "tag", *ret_repository, out->tags, error))
        return false;
    if (out->tags->len == before)
        g_ptr_array_add(out->tags, g_strconcat(*ret_repository, ":latest", NULL));
    return true;
}

static bool needs_image(const PostArtifact *in, const StoreImage **ret, GError **error)
{
    *ret = store_images_find(in->images, "oci");
    return *ret || fail(error, "there is no container image: give the build an output \"oci\" {}");
}

/* --- publishing under another name --- */

static StoreImage *copy_image(const StoreImage *image, const char *name)
{
    StoreImage *copy = store_image_new(image->kind, name);

    copy->id = image->id;
    copy->manifest = image->manifest;
    copy->tree = image->tree;
    copy->size = image->size;
    copy->parent = g_strdup(image->parent);
    for (guint i = 0; image->layers && i < image->layers->len; i++) {
        const StoreLayerRef *layer = image->layers->pdata[i];

        store_image_add_layer(copy, &layer->blob, &layer->recipe);
    }
    return copy;
}

static bool is_newest(Store *store, const StoreImage *image)
{
    g_autoptr(StoreImage) newest = NULL;

    return store_resolve(store, image->name, image->kind, &newest, NULL) && digest_equal(&newest->id, &image->id);
}

/* @from: what it was made of. A bake that changes nothing publishes nothing. */
static bool publish(Store *store, StoreImage *image, const StoreImage *from, GError **error)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    g_autoptr(json_t) provenance = NULL;
    StoreSet set = {.name = image->name, .images = images};
    char id[DIGEST_OCI_SIZE];

    if (is_newest(store, image))
        return true;
    if (from) {
        (void)store_image_provenance(store, from, &provenance, NULL); /* an image without one can be tagged, too */
        set.parent = digest_equal(&from->id, &image->id) ? digest_none : from->id;
    }
    set.provenance = provenance;
    g_ptr_array_add(images, image);
    if (!store_publish(store, &set, error))
        return false;
    log_info("    %s %s %s", image->name, image->kind, digest_to_oci(&image->id, id));
    return true;
}

/* --- docker-tag --- */

static bool tag_check(const json_t *args, const char **ret_argument, GError **error)
{
    return check_repository(args, ret_argument, error) && check_tags(args, "tag", ret_argument, error) &&
           check_tags(args, "tags", ret_argument, error) && post_check_bool(args, "force", ret_argument, error);
}

static bool tag_run(const PostContext *context, const json_t *args, const PostArtifact *in, PostArtifact **ret, GError **error)
{
    g_autoptr(PostArtifact) out = post_artifact_copy(in);
    g_autoptr(StoreImage) copy = NULL;
    g_autofree char *name = NULL;
    const StoreImage *image;
    const char *repository;

    if (!needs_image(in, &image, error) || !read_tags(args, &repository, out, error))
        return false;
    name = docker_name_in_store(repository);
    copy = copy_image(image, name);
    if (!publish(context->store, copy, image, error))
        return false;
    *ret = g_steal_pointer(&out);
    return true;
}

static const char *const tag_arguments[] = {"repository", "tag", "tags", "force", NULL};
const PostOps post_docker_tag_ops = {
    .type = "docker-tag",
    .arguments = tag_arguments,
    .check = tag_check,
    .run = tag_run,
};

/* --- docker-save --- */

static bool save_check(const json_t *args, const char **ret_argument, GError **error)
{
    return post_check_text(args, "path", true, ret_argument, error);
}

static bool save_run(const PostContext *context, const json_t *args, const PostArtifact *in, PostArtifact **ret, GError **error)
{
    g_autoptr(PostArtifact) out = post_artifact_copy(in);
    g_autoptr(GPtrArray) tags = g_ptr_array_new();
    g_autofree char *path = NULL;
    OutputFile file = {.form = OUTPUT_DOCKER_ARCHIVE};

    for (guint i = 0; i < in->tags->len; i++)
        g_ptr_array_add(tags, in->tags->pdata[i]);
    g_ptr_array_add(tags, NULL);
    if (in->tags->len > 0)
        file.tags = (const char *const *)tags->pdata;
    if (!needs_image(in, &file.image, error) || !post_expand(context, args, "path", NULL, NULL, &path, error) ||
        !post_claim(context, path, error))
        return false;
    file.path = path;
    if (!output_file_write(context->store, &file, NULL, error))
        return false;
    post_artifact_add_file(out, path);
    *ret = g_steal_pointer(&out);
    return true;
}

static const char *const save_arguments[] = {"path", NULL};
const PostOps post_docker_save_ops = {
    .type = "docker-save",
    .arguments = save_arguments,
    .check = save_check,
    .run = save_run,
};

/* --- docker-import --- */

static bool import_check(const json_t *args, const char **ret_argument, GError **error)
{
    g_auto(GStrv) changes = NULL;
    const char *platform;

    if (!check_repository(args, ret_argument, error) || !check_tags(args, "tag", ret_argument, error) ||
        !post_check_text(args, "platform", false, ret_argument, error) || !post_check_texts(args, "changes", false, ret_argument, error))
        return false;
    *ret_argument = "changes";
    if (!json_get_strings(args, "changes", &changes, error) || !docker_changes_check((const char *const *)changes, error))
        return false;
    *ret_argument = "platform";
    return json_get_string(args, "platform", "linux", &platform, error) &&
           (strcmp(platform, "linux") == 0 || g_str_has_prefix(platform, "linux/") ||
            fail_code(error, KILN_ERROR_USAGE, "\"%s\" in 'platform' is no Linux, which is all that kiln makes", platform));
}

static const char *architecture(const char *platform, const json_t *before)
{
    const char *there = json_string_value(json_object_get(before, "architecture"));

    if (platform && strchr(platform, '/'))
        return strchr(platform, '/') + 1;
    return there ? there : oci_host_architecture();
}

/* @before: the image's config, of which only what its layers say is kept; NULL: there was none. */
static bool import_config(const json_t *args, const json_t *before, json_t *rootfs /* taken */, json_t **ret, GError **error)
{
    static const char *const kept[] = {"created", "history"};
    g_autoptr(json_t) config = json_object();
    g_auto(GStrv) changes = NULL;
    const char *platform;

    json_object_set_new(config, "rootfs", rootfs);
    if (!json_get_strings(args, "changes", &changes, error) || !json_get_string(args, "platform", NULL, &platform, error))
        return false;
    json_object_set_new(config, "architecture", json_string(architecture(platform, before)));
    json_object_set_new(config, "os", json_string("linux"));
    json_object_set_new(config, "config", json_object());
    for (size_t i = 0; i < G_N_ELEMENTS(kept); i++)
        if (json_object_get(before, kept[i]))
            json_object_set(config, kept[i], json_object_get(before, kept[i]));
    if (!docker_changes_apply((const char *const *)changes, config, error))
        return false;
    *ret = g_steal_pointer(&config);
    return true;
}

static bool put_json(Store *store, const json_t *document, Digest *ret, size_t *ret_size, GError **error)
{
    g_autofree char *text = json_canonical(document);

    *ret_size = strlen(text);
    return store_blob_put(store, text, *ret_size, ret, error);
}

static bool load_manifest(Store *store, const StoreImage *image, json_t **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;

    return store_blob_get(store, &image->manifest, MANIFEST_MAX, &bytes, error) &&
           json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), MANIFEST_MAX, "the image's manifest", ret, error);
}

static bool derive_image(Store *store, const json_t *args, const StoreImage *from, const char *name, StoreImage **ret, GError **error)
{
    g_autoptr(StoreImage) image = copy_image(from, name);
    g_autoptr(json_t) before = NULL, config = NULL, manifest = NULL;
    json_t *descriptor;
    size_t size;

    if (!store_image_config(store, &from->id, CONFIG_MAX, NULL, &before, error) || !load_manifest(store, from, &manifest, error) ||
        !import_config(args, before, json_incref(json_object_get(before, "rootfs")), &config, error) ||
        !put_json(store, config, &image->id, &size, error))
        return false;
    descriptor = json_object_get(manifest, "config");
    json_set_digest(descriptor, "digest", &image->id);
    json_object_set_new(descriptor, "size", json_integer((json_int_t)size));
    if (!put_json(store, manifest, &image->manifest, &size, error) || !publish(store, image, from, error))
        return false;
    *ret = g_steal_pointer(&image);
    return true;
}

/* --- a tar becomes an OCI layout, and that is taken in as any other --- */

typedef struct Layout {
    const char *folder;
    int fd; /* the layer */
    DigestStream *stream;
    uint64_t size;
} Layout;

static bool take_layer(const void *data, size_t size, void *arg, GError **error)
{
    Layout *layout = arg;

    layout->size += size;
    digest_stream_update(layout->stream, data, size);
    return file_write_full(layout->fd, data, size, "layer", error);
}

static bool name_blob(const Layout *layout, const Digest *digest, const char *from, GError **error)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *path = g_build_filename(layout->folder, "blobs/sha256", digest_to_hex(digest, hex), NULL);

    return rename(from, path) == 0 || fail_errno(error, "write '%s'", path);
}

static bool put_layer(Layout *layout, const char *tar, Digest *ret, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    g_autofree char *part = g_build_filename(layout->folder, "layer", NULL);
    auto_fd int in = open(tar, O_RDONLY | O_CLOEXEC);
    auto_fd int out = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (in < 0)
        return fail_errno(error, "read '%s'", tar);
    if (out < 0)
        return fail_errno(error, "write '%s'", part);
    layout->fd = out;
    layout->stream = stream;
    if (!tree_tar_unpack(in, take_layer, layout, error))
        return fail_prefix(error, "'%s'", tar);
    digest_stream_final(stream, ret);
    return name_blob(layout, ret, part, error);
}

static bool put_document(const Layout *layout, const json_t *document, json_t *descriptor, GError **error)
{
    g_autofree char *text = json_canonical(document), *part = g_build_filename(layout->folder, "part", NULL);
    Digest digest;

    digest_of_string(text, &digest);
    json_set_digest(descriptor, "digest", &digest);
    json_object_set_new(descriptor, "size", json_integer((json_int_t)strlen(text)));
    return file_replace(AT_FDCWD, part, text, strlen(text), 0600, FILE_SYNC_NO, error) && name_blob(layout, &digest, part, error);
}

static bool put_top(const Layout *layout, const char *name, const json_t *document, GError **error)
{
    g_autofree char *text = json_canonical(document), *path = g_build_filename(layout->folder, name, NULL);

    return file_replace(AT_FDCWD, path, text, strlen(text), 0600, FILE_SYNC_NO, error);
}

static bool put_layout(Layout *layout, const json_t *args, const char *tar, GError **error)
{
    g_autoptr(json_t) config = NULL, manifest = NULL, index = NULL, version = json_pack("{s:s}", "imageLayoutVersion", "1.0.0");
    char oci[DIGEST_OCI_SIZE];
    Digest layer;

    if (!put_layer(layout, tar, &layer, error) ||
        !import_config(args, NULL, json_pack("{s:s, s:[s]}", "type", "layers", "diff_ids", digest_to_oci(&layer, oci)), &config, error))
        return false;
    manifest = json_pack("{s:i, s:s, s:{s:s}, s:[{s:s, s:s, s:I}]}", "schemaVersion", 2, "mediaType",
                         "application/vnd.oci.image.manifest.v1+json", "config", "mediaType", "application/vnd.oci.image.config.v1+json",
                         "layers", "mediaType", "application/vnd.oci.image.layer.v1.tar", "digest", digest_to_oci(&layer, oci), "size",
                         (json_int_t)layout->size);
    index = json_pack("{s:i, s:[{s:s}]}", "schemaVersion", 2, "manifests", "mediaType", "application/vnd.oci.image.manifest.v1+json");
    return put_document(layout, config, json_object_get(manifest, "config"), error) &&
           put_document(layout, manifest, json_array_get(json_object_get(index, "manifests"), 0), error) &&
           put_top(layout, "index.json", index, error) && put_top(layout, "oci-layout", version, error);
}

static bool import_layout(Store *store, const char *folder, const char *name, StoreImage **ret, GError **error)
{
    ImportFrom from = {.path = folder};
    g_autoptr(GPtrArray) images = NULL;

    if (!import_file(store, &from, name, &images, error))
        return false;
    *ret = copy_image(images->pdata[0], name);
    return true;
}

static bool lay_and_import(Store *store, const json_t *args, const char *tar, const char *name, StoreImage **ret, GError **error)
{
    g_autofree char *folder = NULL, *blobs = NULL;
    Layout layout = {.fd = -1};
    bool ok;

    if (!store_make_tmpdir(store, &folder, error))
        return false;
    layout.folder = folder;
    blobs = g_build_filename(folder, "blobs/sha256", NULL);
    ok = file_make_dirs(blobs, 0700, error) && put_layout(&layout, args, tar, error) && import_layout(store, folder, name, ret, error);
    (void)file_remove_tree(AT_FDCWD, folder, NULL); /* the store removes what is left behind */
    return ok;
}

/* "docker-import:SHA-256 of the tar and the arguments" -> image ID, good while the name means that image. */
static bool import_tar(Store *store, const json_t *args, const char *tar, const char *name, StoreImage **ret, GError **error)
{
    g_autofree char *sum = NULL, *key = NULL, *known = NULL, *words = json_canonical(args);
    g_autoptr(StoreImage) newest = NULL;
    char id[DIGEST_OCI_SIZE];

    if (!output_checksum(store, tar, "sha256", &sum, error))
        return false;
    key = g_strconcat("docker-import:", sum, words, NULL);
    if (!store_memo_get(store, key, &known, error))
        return false;
    if (known && store_resolve(store, name, "oci", &newest, NULL) && strcmp(digest_to_oci(&newest->id, id), known) == 0) {
        *ret = g_steal_pointer(&newest);
        return true;
    }
    return lay_and_import(store, args, tar, name, ret, error) &&
           store_memo_put(store, key, digest_to_oci(&(*ret)->id, id), NULL, NULL, error);
}

static void free_image(gpointer image)
{
    store_image_free(image);
}

static bool import_run(const PostContext *context, const json_t *args, const PostArtifact *in, PostArtifact **ret, GError **error)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func(free_image);
    g_autoptr(PostArtifact) out = post_artifact_new(images);
    g_autofree char *name = NULL;
    const StoreImage *from = store_images_find(in->images, "oci");
    StoreImage *image = NULL;
    const char *repository;

    if (!read_tags(args, &repository, out, error))
        return false;
    if (!from && in->files->len != 1)
        return fail(error, "it imports a container image or one tar, and the artifact has neither");
    name = docker_name_in_store(repository);
    if (!(from ? derive_image(context->store, args, from, name, &image, error)
               : import_tar(context->store, args, in->files->pdata[0], name, &image, error)))
        return false;
    g_ptr_array_add(images, image);
    *ret = g_steal_pointer(&out);
    return true;
}

static const char *const import_arguments[] = {"repository", "tag", "changes", "platform", NULL};
const PostOps post_docker_import_ops = {
    .type = "docker-import",
    .arguments = import_arguments,
    .check = import_check,
    .run = import_run,
    .keeps_input = true,
};
