/* SPDX-License-Identifier: Apache-2.0 */
/*
 * from = "image:REF": a published set as the source, in disk and oci sources alike.
 *
 * The whole set is taken, one kind of it where REF says so. Its sealed tree is the first state: laid out anew for a rendered disk, as
 * it is for a vendor's. A container's layers stay byte for byte under what the bake adds, until there are so many of them that
 * registries and engines would refuse the image: then they are cut anew from the tree.
 */
#include "baker/source-image.h"

#include "baker/source-common.h"
#include "base/error.h"

#include <string.h>

/* Container engines stop at 127; the rest is for what a user stacks on top. */
#define LAYERS_MAX 96
#define CONFIG_MAX (4 << 20)

static const char prefix[] = "image:";

const char *source_image_ref(const json_t *args)
{
    const char *from = json_string_value(json_object_get(args, "from"));

    return from && g_str_has_prefix(from, prefix) ? from + strlen(prefix) : NULL;
}

char *source_image_name(const json_t *args)
{
    const char *ref = source_image_ref(args);

    if (!ref || strpbrk(ref, ":@"))
        return NULL;
    return g_strndup(ref, strcspn(ref, "/"));
}

bool source_image_check(const json_t *args, const char **ret_argument, GError **error)
{
    *ret_argument = "from";
    if (!*source_image_ref(args))
        return fail_code(error, KILN_ERROR_USAGE, "from = \"image:\" names no image; write image:NAME, image:NAME:CHANNEL or image:ID");
    if (json_object_get(args, "checksum")) {
        *ret_argument = "checksum";
        return fail_code(error, KILN_ERROR_USAGE, "an image of the store is its own checksum; leave checksum out");
    }
    *ret_argument = NULL;
    return true;
}

bool source_image_identify(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error)
{
    const char *ref = source_image_ref(args), *argument;
    g_autoptr(GPtrArray) images = NULL;
    json_t *ids = json_object();
    char oci[DIGEST_OCI_SIZE];
    uint64_t size;

    *ret_identity = json_pack("{ss ss so}", "type", "image", "ref", ref, "images", ids);
    if (!source_size_argument(args, NULL, &size, &argument, error) || !store_resolve_set(context->store, ref, &images, error))
        return false;
    json_object_set_new(*ret_identity, "size", json_integer((json_int_t)size));
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        g_autofree char *why = NULL;

        if (!store_revoked(context->store, &image->id, &why, error))
            return false;
        if (why)
            return fail(error, "image '%s' (%s) was revoked: %s", ref, image->kind, why);
        json_object_set_new(ids, image->kind, json_string(digest_to_oci(&image->id, oci)));
    }
    return true;
}

static bool are_split(const StoreImage *a, const StoreImage *b)
{
    return !digest_is_none(&a->tree.tree) && !digest_is_none(&b->tree.tree) && !digest_equal(&a->tree.tree, &b->tree.tree);
}

/* What cannot be found is told when it is baked. */
bool source_image_is_split(Store *store, const char *ref)
{
    g_autoptr(GPtrArray) images = NULL;

    return store_resolve_set(store, ref, &images, NULL) && images->len == 2 && are_split(images->pdata[0], images->pdata[1]);
}

bool source_image_load(Store *store, const json_t *identity, const char *kind, StoreImage **ret, GError **error)
{
    const char *id = json_string_value(json_object_get(json_object_get(identity, "images"), kind));

    *ret = NULL;
    return !id || store_resolve(store, id, kind, ret, error);
}

static bool load_config(Store *store, const StoreImage *image, json_t **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;

    return store_blob_get(store, &image->id, CONFIG_MAX, &bytes, error) &&
           json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), CONFIG_MAX, "an image's config", ret, error);
}

static int64_t parent_epoch(const SourceContext *context, const StoreImage *image)
{
    g_autoptr(json_t) provenance = NULL;

    if (context->epoch >= 0)
        return context->epoch;
    if (!store_image_provenance(context->store, image, &provenance, NULL))
        return 0;
    return MAX(json_integer_value(json_object_get(provenance, "source_date_epoch")), 0);
}

static bool add_layers(const SourceContext *context, const StoreImage *image, SourceState *state, GError **error)
{
    json_t *layers, *config = NULL;
    char oci[DIGEST_OCI_SIZE];

    if (image->layers->len > LAYERS_MAX)
        return true;
    if (!load_config(context->store, image, &config, error))
        return false;
    layers = json_array();
    for (guint i = 0; i < image->layers->len; i++) {
        const StoreLayerRef *ref = image->layers->pdata[i];
        json_t *layer = json_pack("{ss}", "blob", digest_to_oci(&ref->blob, oci));

        if (!digest_is_none(&ref->recipe))
            json_object_set_new(layer, "recipe", json_string(digest_to_oci(&ref->recipe, oci)));
        json_array_append_new(layers, layer);
    }
    json_object_set_new(state->info, "oci_parent", json_pack("{so so ss sb}", "config", config, "layers", layers, "manifest",
                                                               digest_to_oci(&image->manifest, oci), "own", true));
    return true;
}

/* The layout in the disk's config says how it came to be. */
static bool disk_state(const SourceContext *context, const StoreImage *image, uint64_t size, SourceState *state, GError **error)
{
    g_autoptr(json_t) config = NULL;
    RenderSpec spec = {.name = context->name, .other_order = context->other_order, .epoch = state->epoch, .bootable = true, .size = size ? size : image->size};

    if (!load_config(context->store, image, &config, error))
        return false;
    if (g_strcmp0(json_string_value(json_object_get(config, "layout")), "rendered") != 0) {
        state->layout = LAYOUT_INPLACE;
        return source_disk_first_state(context, &image->map, size, state, error);
    }
    state->tree = image->tree;
    if (spec.size != image->size)
        return source_render(context, &spec, state, error);
    state->layout = LAYOUT_RENDERED; /* the published disk serves as it is; the seal renders anew anyway */
    state->map = image->map;
    state->size = image->size;
    return true;
}

static bool container_state(const SourceContext *context, const StoreImage *image, uint64_t size, SourceState *state,
                            GError **error)
{
    RenderSpec spec = {.name = context->name, .other_order = context->other_order, .epoch = state->epoch, .bootable = false, .size = size};

    if (!oci_image_tree(context->store, image, true, &state->tree, error))
        return false;
    return source_render(context, &spec, state, error);
}

static bool prepare(const SourceContext *context, const json_t *identity, SourceState *state, GError **error)
{
    uint64_t size = (uint64_t)json_integer_value(json_object_get(identity, "size"));
    g_autoptr(StoreImage) disk = NULL, container = NULL;
    const StoreImage *first;

    if (!source_image_load(context->store, identity, "disk", &disk, error) ||
        !source_image_load(context->store, identity, "oci", &container, error))
        return false;
    if (disk && container && context->output && are_split(disk, container)) {
        size = size ? size : disk->size; /* both branches have one layout, so that a step's cached state fits wherever its key does */
        g_clear_pointer(strcmp(context->output, "disk") == 0 ? &container : &disk, store_image_free);
    }
    first = disk ? disk : container;
    state->epoch = parent_epoch(context, first);
    state->info = json_pack("{sO}", "images", json_object_get(identity, "images"));
    if (container && !add_layers(context, container, state, error))
        return false;
    return disk ? disk_state(context, disk, size, state, error) : container_state(context, container, size, state, error);
}

bool source_image_prepare(const SourceContext *context, const json_t *identity, SourceState *ret, GError **error)
{
    SourceState state = {.layout = LAYOUT_NONE};

    if (!prepare(context, identity, &state, error)) {
        source_state_clear(&state);
        return fail_prefix(error, "image '%s'", json_string_value(json_object_get(identity, "ref")));
    }
    *ret = state;
    return true;
}
