/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln show: everything known about one image.
 */
#include "baker/cli/cli.h"

#include "base/printable.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>

#define CONFIG_MAX (16u << 20)

static bool add_config(Store *store, const StoreImage *image, json_t *document, GError **error)
{
    json_t *config = NULL;

    if (!store_image_config(store, &image->id, CONFIG_MAX, NULL, &config, error))
        return false;
    json_object_set_new(document, "config", config);
    return true;
}

/* What a reader of two IDs has to know. */
static void add_note(json_t *document)
{
    if (g_strcmp0(json_string_value(json_object_get(json_object_get(document, "config"), "layout")), "in-place") == 0)
        json_object_set_new(document, "note", json_string("it keeps its own partitions: two bakes from nothing may have two IDs, and have one tree"));
}

static bool add_inputs(Store *store, const StoreImage *image, json_t *document, GError **error)
{
    g_autoptr(GHashTable) inputs = NULL;
    json_t *object = json_object();
    GHashTableIter iter;
    gpointer name, digest;

    json_object_set_new(document, "inputs", object);
    if (!store_image_inputs(store, image, &inputs, error))
        return false;
    g_hash_table_iter_init(&iter, inputs);
    while (g_hash_table_iter_next(&iter, &name, &digest))
        json_set_digest(object, name, digest);
    return true;
}

/* By what manifests registries know it. */
static bool add_manifests(Store *store, const StoreImage *image, json_t *document, GError **error)
{
    g_autoptr(GPtrArray) list = NULL;
    json_t *shown;

    if (!store_manifests(store, &image->id, NULL, NULL, &list, error))
        return false;
    shown = json_array();
    for (guint i = 0; i < list->len; i++) {
        const StoreManifest *manifest = list->pdata[i];
        json_t *entry = json_pack("{s:s}", "repository", manifest->place);

        json_set_digest(entry, "manifest", &manifest->digest);
        json_array_append_new(shown, entry);
    }
    if (list->len)
        json_object_set(document, "registries", shown);
    json_decref(shown);
    return true;
}

static bool describe(Store *store, const StoreImage *image, json_t **ret, GError **error)
{
    g_autoptr(json_t) document = json_object();
    json_t *layers = json_array(), *provenance = NULL;

    json_object_set_new(document, "name", json_string(image->name));
    json_object_set_new(document, "kind", json_string(image->kind));
    json_set_digest(document, "id", &image->id);
    json_set_digest(document, "manifest", &image->manifest);
    json_set_digest(document, "map", &image->map);
    json_set_digest(document, "tree", &image->tree.tree);
    json_object_set_new(document, "size", json_integer((json_int_t)image->size));
    json_object_set_new(document, "new_bytes", json_integer((json_int_t)image->new_bytes));
    json_object_set_new(document, "created", json_integer(image->created));
    if (image->bytes_gone)
        json_object_set_new(document, "bytes_gone", json_integer(image->bytes_gone));
    json_object_set_new(document, "layers", layers);
    for (guint i = 0; image->layers && i < image->layers->len; i++) {
        const StoreLayerRef *layer = image->layers->pdata[i];
        json_t *one = json_object();

        json_set_digest(one, "digest", &layer->blob);
        json_object_set_new(one, "kept", json_string(digest_is_none(&layer->recipe) ? "verbatim" : "recipe"));
        json_array_append_new(layers, one);
    }
    if (!add_config(store, image, document, error) || !add_manifests(store, image, document, error) || !add_inputs(store, image, document, error) ||
        !store_image_provenance(store, image, &provenance, error))
        return false;
    if (provenance)
        json_object_set_new(document, "provenance", provenance);
    add_note(document);
    *ret = g_steal_pointer(&document);
    return true;
}

static void print_text(const json_t *document)
{
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)document, key, value) {
        if (json_is_string(value)) {
            g_autofree char *text = printable_line(json_string_value(value));

            printf("%-12s %s\n", key, text);
        } else if (strcmp(key, "created") == 0 || strcmp(key, "bytes_gone") == 0) {
            g_autofree char *when = cli_time(json_integer_value(value));

            printf("%-12s %s\n", key, when);
        } else if (json_is_integer(value)) {
            g_autofree char *size = units_format_size((uint64_t)json_integer_value(value));

            printf("%-12s %s\n", key, size);
        } else {
            g_autofree char *text = json_pretty(value);

            printf("%-12s %s", key, text);
        }
    }
}

int verb_show(CliContext *cli, int argc, char **argv)
{
    const CliOption options[] = {{NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(json_t) document = NULL;
    g_autofree char **refs = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "show REF", argc, argv, 1, 1, &refs, &error) ||
        !cli_open_store(cli, STORE_OPEN_ANYWAY, &store, &error) || !store_resolve_record(store, refs[0], NULL, &image, &error) ||
        !describe(store, image, &document, &error))
        return cli_fail(cli, error);
    if (cli->json)
        return cli_print_json(g_steal_pointer(&document));
    print_text(document);
    return 0;
}
