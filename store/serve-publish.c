/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container that was pushed with a tag is an image of this store too, under the repository's name: it can be promoted, baked from, exported and
 * rolled out as any other. Only what `kiln import` would take: a Linux container whose layers are tars, each of which has the digest that the config
 * says, because the image ID stands for nothing but the config. Whatever else is pushed is kept and served, and has no image ID.
 */
#include "store/serve-private.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/oci.h"
#include "store/registry.h"

#include <string.h>

#define CONFIG_MAX (8u << 20)
#define LAYERS_MAX 512

typedef struct Candidate {
    Server *server;
    const char *repository;
    const json_t *manifest;
    OciParent *parent;
    StoreImage *image;
} Candidate;

static const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static bool is_config_type(const char *type)
{
    return strcmp(type, OCI_CONFIG_TYPE) == 0 || strcmp(type, "application/vnd.docker.container.image.v1+json") == 0;
}

static const ServeLink *find_link(const GArray *links, const char *digest)
{
    for (guint i = 0; digest && i < links->len; i++)
        if (strcmp(g_array_index(links, ServeNamedLink, i).digest, digest) == 0)
            return &g_array_index(links, ServeNamedLink, i).link;
    return NULL;
}

/* --- looking ------------------------------------------------------------------------------- */

static bool take_layers(Candidate *c, const GArray *links)
{
    const json_t *layers = json_object_get(c->manifest, "layers"), *layer;
    size_t i;

    if (!json_is_array(layers) || json_array_size(layers) > LAYERS_MAX)
        return false;
    json_array_foreach((json_t *)layers, i, layer)
    {
        const char *digest = text_at(layer, "digest");
        const ServeLink *link = find_link(links, digest);
        StoreLayerRef *ref;

        if (!link || link->segment || !g_str_has_prefix(digest, "sha256:") || !oci_layer_type_is_known(text_at(layer, "mediaType")))
            return false;
        ref = g_new0(StoreLayerRef, 1);
        *ref = (StoreLayerRef){.blob = link->blob, .recipe = link->recipe};
        g_ptr_array_add(c->parent->layers, ref);
        store_image_add_layer(c->image, &link->blob, &link->recipe);
        c->image->size += link->size;
    }
    return true;
}

static bool take_config(Candidate *c)
{
    const json_t *descriptor = json_object_get(c->manifest, "config");
    const json_t *diff_ids;
    const char *os;

    if (!is_config_type(text_at(descriptor, "mediaType")) || !g_str_has_prefix(text_at(descriptor, "digest"), "sha256:") ||
        !digest_parse(text_at(descriptor, "digest"), &c->parent->config_digest) ||
        !store_image_config(c->server->store, &c->parent->config_digest, CONFIG_MAX, NULL, &c->parent->config, NULL))
        return false;
    os = text_at(c->parent->config, "os");
    diff_ids = json_object_get(json_object_get(c->parent->config, "rootfs"), "diff_ids");
    return (!*os || strcmp(os, "linux") == 0) && json_is_array(diff_ids) && json_array_size(diff_ids) == c->parent->layers->len;
}

static bool diff_id_of(Candidate *c, const StoreLayerRef *layer, Digest *ret, GError **error)
{
    auto_fd int fd = -1;
    LayerResult info;
    bool packed;

    if (!digest_is_none(&layer->recipe)) {
        if (!layer_recipe_info(c->server->store, &layer->recipe, &info, error))
            return false;
        *ret = info.diff_id;
        return true;
    }
    fd = blob_file_open(c->server->store, &layer->blob, &packed);
    if (fd < 0 || packed)
        return fail(error, "a layer is not there as it was sent");
    return tree_tar_digest(fd, ret, error);
}

static bool layers_are_the_configs(Candidate *c, GError **error)
{
    const json_t *diff_ids = json_object_get(json_object_get(c->parent->config, "rootfs"), "diff_ids");

    for (guint i = 0; i < c->parent->layers->len; i++) {
        const char *text = json_string_value(json_array_get(diff_ids, i));
        Digest says, is;

        if (!text || !digest_parse(text, &says) || !diff_id_of(c, c->parent->layers->pdata[i], &is, error))
            return error && *error ? false : fail(error, "its config is malformed");
        if (!digest_equal(&says, &is))
            return fail(error, "layer %u is not the one that its config names", i + 1);
    }
    return true;
}

/* The list of files only, as an import has it (baker/import.c). */
static bool read_tree(Candidate *c, GError **error)
{
    g_autoptr(Tree) tree = NULL;
    g_autofree char *text = NULL;
    size_t size;

    if (!oci_parent_tree(c->server->store, NULL, c->parent, &tree, NULL, error))
        return false;
    text = tree_to_text(tree, &size);
    return store_blob_put(c->server->store, text, size, &c->image->tree.tree, error);
}

/* --- publishing -------------------------------------------------------------------------------- */

static bool is_newest(Store *store, const StoreImage *image)
{
    g_autofree char *ref = g_strconcat(image->name, "/oci", NULL);
    g_autoptr(StoreImage) there = NULL;

    return store_resolve(store, ref, "oci", &there, NULL) && digest_equal(&there->id, &image->id) && digest_equal(&there->manifest, &image->manifest);
}

static bool publish(Candidate *c, const char *user, GError **error)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    g_autoptr(json_t) provenance = json_pack("{s:s}", "pushed", c->repository);
    StoreSet set = {.name = c->repository, .images = images, .provenance = provenance};

    if (user)
        json_object_set_new(provenance, "user", json_string(user));
    if (is_newest(c->server->store, c->image))
        return true;
    g_ptr_array_add(images, c->image);
    return store_publish(c->server->store, &set, error);
}

bool serve_publish(Server *server, const ServePush *push, const json_t *manifest, const char *user, Digest *ret_image, GError **error)
{
    g_autoptr(OciParent) parent = g_new0(OciParent, 1);
    g_autoptr(StoreImage) image = store_image_new("oci", push->repository);
    Candidate c = {server, push->repository, manifest, parent, image};
    g_autoptr(GError) why = NULL;
    bool good;

    *ret_image = digest_none;
    parent->layers = g_ptr_array_new_with_free_func(g_free);
    if (!*push->tags || push->wide || !store_name_check(push->repository, NULL) || !take_layers(&c, push->links) || !take_config(&c))
        return true;
    image->id = parent->config_digest;
    image->manifest = parent->manifest = push->manifest;
    serve_gate_enter();
    good = layers_are_the_configs(&c, &why) && read_tree(&c, &why);
    serve_gate_leave();
    if (!good) {
        log_warning("what was pushed as '%s' is kept, but is no image: %s", push->repository, why->message);
        return true;
    }
    if (!publish(&c, user, error))
        return false;
    *ret_image = image->id;
    return true;
}
