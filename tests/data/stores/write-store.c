/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the small stores of this folder: a disk, a container image whose layers are a recipe and a verbatim blob, a bake state, inputs, a channel that moved, a revocation and
 * a group's journal, as far as the version that it is linked with has them. Not part of any build: when a version of the format changes, the last kiln
 * before it writes one more store, which then stays for ever.
 *
 *   gcc -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -DSTATE_VERSION=5 $(pkg-config --cflags glib-2.0 jansson) -o write-store tests/data/stores/write-store.c build/libkiln.a $LIBS
 *   ./write-store /tmp/store && tar -C /tmp -c store | zstd -19 >tests/data/stores/state-5.tar.zst
 */
#include "store/store.h"
#if STATE_VERSION >= 3
#include "store/journal.h"
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISK (600u * 1024 + 512)

static GError *error;

static void must(bool ok)
{
    if (!ok)
        g_error("%s", error ? error->message : "failed");
}

static uint32_t step(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Holes, noise, text, the same again, and a tail that is no whole block. A boot sector, so that it counts as a disk. */
static void fill_disk(uint8_t *disk)
{
    uint32_t state = 20261128u + STATE_VERSION;

    memset(disk, 0, DISK);
    disk[510] = 0x55;
    disk[511] = 0xaa;
    disk[450] = 0x83;
    disk[454] = 8;
    disk[458] = 200;
    for (unsigned i = 0; i < 20000; i++)
        disk[40960 + i] = (uint8_t)(step(&state) >> 24);
    for (unsigned i = 0; i < 250000; i++)
        disk[131072 + i] = (uint8_t)("a disk of state version "[i % 24] + i / 4096 % 7);
    memcpy(disk + 450560, disk + 131072, 100000);
    memset(disk + DISK - 100, '!', 100);
}

static Digest put_text(Store *store, const char *text)
{
    Digest digest;

    must(store_blob_put(store, text, strlen(text), &digest, &error));
    return digest;
}

static void write_map(StoreWriter *writer, const uint8_t *bytes, MapWriter **ret)
{
    must(map_writer_new(writer, DISK, NULL, ret, &error));
    must(map_writer_write(*ret, 0, bytes, DISK, &error) && map_writer_finish(*ret, &error));
}

static Digest put_json(Store *store, json_t *json)
{
    g_autofree char *text = json_canonical(json);
    Digest digest = put_text(store, text);

    json_decref(json);
    return digest;
}

static StoreImage *make_disk(Store *store)
{
    g_autofree uint8_t *bytes = g_malloc(DISK);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    StoreImage *image = store_image_new("disk", "web");
    char content[DIGEST_OCI_SIZE];
    MapResult result;

    fill_disk(bytes);
    must(store_writer_open(store, BLOCK_PUBLIC, &writer, &error));
    write_map(writer, bytes, &map);
    must(store_writer_commit(writer, &error));
    map_writer_result(map, &result);
    image->map = result.digest;
    image->size = result.size;
    image->id = put_json(store, json_pack("{s:s, s:s, s:s, s:I}", "arch", "amd64", "content", digest_to_oci(&result.content, content), "layout", "in-place",
                                          "size", (json_int_t)result.size));
    return image;
}

static void add_file(TreeBuilder *builder, const char *path, const char *text, unsigned times)
{
    TreeEntry *entry = tree_entry_new(path, 'f');

    entry->mode = 0644;
    entry->mtime = 1700000000;
    must(tree_builder_begin(builder, entry, &error));
    for (unsigned i = 0; i < times; i++)
        must(tree_builder_data(builder, text, strlen(text), &error));
    must(tree_builder_end(builder, &error));
}

static void build_tree(Store *store, Tree **ret, TreeStored *ret_stored)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(TreeBuilder) builder = NULL;
    g_autoptr(MapWriter) space = NULL;
    TreeEntry *link = tree_entry_new("etc/link", 'l'), *hard = tree_entry_new("etc/second", 'h'), *device = tree_entry_new("dev/sda", 'b');

    must(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) && tree_builder_new(writer, &builder, &error));
    add_file(builder, "etc/hostname", "kiln\n", 1);
    add_file(builder, "etc/empty", "", 0);
    add_file(builder, "usr/a name with spaces=\xc3\xa9", "some words of a longer text, ", 3000);
    add_file(builder, "usr/again", "some words of a longer text, ", 3000);
    link->target = g_strdup("hostname");
    hard->target = g_strdup("etc/hostname");
    device->major = 8;
    tree_entry_set_xattr(device, "user.kind", "disk", 4);
    must(tree_builder_add(builder, link, &error) && tree_builder_add(builder, hard, &error) && tree_builder_add(builder, device, &error));
    must(tree_builder_finish(builder, ret, &space, &error) && store_writer_commit(writer, &error));
    must(tree_stored_result(store, *ret, space, ret_stored, &error));
}

static void make_layer(Store *store, const TreeStored *stored, LayerResult *ret)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(LayerWriter) layer = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;

    must(tree_load(store, stored, &tree, &files, &error));
    must(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) && layer_writer_new(store, writer, &layer, &error));
    for (size_t i = 0; i < tree_count(tree); i++)
        if (*tree_nth(tree, i)->path)
            must(layer_writer_add(layer, tree, files, tree_nth(tree, i), &error));
    must(layer_writer_whiteout(layer, "etc/gone", &error) && layer_writer_finish(layer, &error) && store_writer_commit(writer, &error));
    must(layer_writer_result(layer, ret, &error));
}

static json_t *blob_json(const char *type, const Digest *digest, uint64_t size)
{
    char oci[DIGEST_OCI_SIZE];

    return json_pack("{s:s, s:s, s:I}", "mediaType", type, "digest", digest_to_oci(digest, oci), "size", (json_int_t)size);
}

/* An empty archive, gzipped by somebody else. */
static const uint8_t foreign[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3, 0x63, 0x60, 0x18, 5, 0xa3, 0x60, 0x14, 0x8c, 0x54, 0, 0, 0x2e, 0xaf, 0xb5, 0xef, 0, 4, 0, 0};

static StoreImage *make_box(Store *store)
{
    StoreImage *image = store_image_new("oci", "box");
    g_autoptr(Tree) tree = NULL;
    char diff_id[DIGEST_OCI_SIZE], empty_id[DIGEST_OCI_SIZE];
    static const uint8_t zeroes[1024];
    LayerResult layer;
    Digest verbatim, empty;
    json_t *layers = json_array();

    build_tree(store, &tree, &image->tree);
    make_layer(store, &image->tree, &layer);
    must(store_blob_put(store, foreign, sizeof(foreign), &verbatim, &error));
    digest_of(zeroes, sizeof(zeroes), &empty);
    image->id = put_json(store, json_pack("{s:s, s:s, s:{}, s:{s:s, s:[s, s]}}", "architecture", "amd64", "os", "linux", "config", "rootfs", "type", "layers", "diff_ids",
                                          digest_to_oci(&empty, empty_id), digest_to_oci(&layer.diff_id, diff_id)));
    json_array_append_new(layers, blob_json("application/vnd.oci.image.layer.v1.tar+gzip", &verbatim, sizeof(foreign)));
    json_array_append_new(layers, blob_json("application/vnd.oci.image.layer.v1.tar+gzip", &layer.blob, layer.size));
    {
        uint64_t size;

        must(store_blob_size(store, &image->id, &size, &error));
        image->manifest = put_json(store, json_pack("{s:i, s:s, s:o, s:o}", "schemaVersion", 2, "mediaType", "application/vnd.oci.image.manifest.v1+json", "config",
                                                    blob_json("application/vnd.oci.image.config.v1+json", &image->id, size), "layers", layers));
    }
    store_image_add_layer(image, &verbatim, NULL);
    store_image_add_layer(image, &layer.blob, &layer.recipe);
    image->size = layer.size + sizeof(foreign);
    return image;
}

static void publish(Store *store, const char *name, StoreImage *image)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    g_autoptr(GHashTable) inputs = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(json_t) provenance = json_pack("{s:s}", "name", name);
    Digest template = put_text(store, "# a template\n");
    StoreSet set = {.name = name, .images = images, .provenance = provenance, .inputs = inputs, .key = image->id};

    g_ptr_array_add(images, image);
    g_hash_table_insert(inputs, (gpointer) "template", &template);
    must(store_publish(store, &set, &error));
}

/* A private state and a memo: what may vanish. */
static void put_cache(Store *store)
{
    g_autofree uint8_t *bytes = g_malloc(DISK);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    StoreState state = {.info = (char *)"{}"};
    MapResult result;

    fill_disk(bytes);
    memset(bytes + 8192, 's', 8192);
    must(store_writer_open(store, BLOCK_PRIVATE, &writer, &error));
    write_map(writer, bytes, &map);
    must(store_writer_commit(writer, &error));
    map_writer_result(map, &result);
    state.map = state.content = state.key = result.digest;
    must(store_state_put(store, &state, &error) && store_memo_put(store, "fetch:x", "1", NULL, &result.digest, &error));
}

#if STATE_VERSION >= 3
static void put_journal(Store *store, const Digest *image)
{
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    g_autoptr(GArray) holds = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(StoreJournal) journal = NULL;

    g_array_append_val(holds, *image);
    g_ptr_array_add(records, json_pack("{s:s, s:i}", "what", "first", "n", 1));
    g_ptr_array_add(records, json_pack("{s:s, s:[s, n]}", "what", "sec\u00f6nd \x01", "list", "\"quoted\""));
    must(store_journal_open(store, "web", false, &journal, &error) && store_journal_append(journal, records, holds, &error));
}
#endif

int main(int argc, char **argv)
{
    g_autoptr(Store) store = NULL;
    g_autoptr(StoreImage) disk = NULL, box = NULL;

    must(argc == 2 && store_open(argv[1], STORE_OPEN_CREATE, &store, &error));
    disk = make_disk(store);
    publish(store, "web", disk);
    box = make_box(store);
    publish(store, "box", box);
    put_cache(store);
#if STATE_VERSION >= 3
    put_journal(store, &disk->id);
#endif
    return 0;
}
