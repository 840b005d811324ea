/* SPDX-License-Identifier: Apache-2.0 */
#include "baker/disk-config.h"

static const char *architecture(void)
{
#if defined(__x86_64__)
    return "amd64";
#elif defined(__aarch64__)
    return "arm64";
#else
    return "unknown";
#endif
}

bool disk_config_put(Store *store, StoreImage *image, const MapResult *map, const char *layout, const TreeStored *tree, GError **error)
{
    g_autoptr(json_t) config = json_object();
    g_autofree char *text = NULL;
    char content[DIGEST_OCI_SIZE], tree_text[DIGEST_OCI_SIZE];

    json_object_set_new(config, "arch", json_string(architecture()));
    json_object_set_new(config, "content", json_string(digest_to_oci(&map->content, content)));
    json_object_set_new(config, "layout", json_string(layout));
    json_object_set_new(config, "size", json_integer((json_int_t)map->size));
    if (!digest_is_none(&tree->tree))
        json_object_set_new(config, "tree", json_string(digest_to_oci(&tree->tree, tree_text)));
    text = json_canonical(config);
    if (!store_blob_put(store, text, strlen(text), &image->id, error))
        return false;
    image->map = map->digest;
    image->size = map->size;
    image->tree = *tree;
    return true;
}
