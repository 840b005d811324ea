/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/oci-image-support.h"

#include "baker/layers.h"
#include "base/file.h"

#include <fcntl.h>
#include <string.h>

#define EPOCH 1700000000

static TreeEntry *entry_new(const char *path, char type, uint16_t mode)
{
    TreeEntry *entry = tree_entry_new(path, type);

    entry->mode = mode;
    entry->mtime = EPOCH;
    return entry;
}

static void add_file(TreeBuilder *b, const char *path, uint16_t mode, const void *data, size_t size)
{
    g_assert_true(tree_builder_begin(b, entry_new(path, 'f', mode), NULL));
    g_assert_true(tree_builder_data(b, data, size, NULL));
    g_assert_true(tree_builder_end(b, NULL));
}

static void add_text(TreeBuilder *b, const char *path, const char *text)
{
    add_file(b, path, 0644, text, strlen(text));
}

static void add_busybox(TreeBuilder *b, const char *busybox)
{
    static const char *const words[] = {"sh", "sleep", "httpd", "id", "cat", "env", "rm", "mkdir", NULL};
    g_autoptr(GBytes) bytes = NULL;

    g_assert_true(file_load(AT_FDCWD, busybox, 8 << 20, &bytes, NULL));
    add_file(b, "bin/busybox", 0755, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
    for (size_t i = 0; words[i]; i++) {
        g_autofree char *path = g_strconcat("bin/", words[i], NULL);
        TreeEntry *link = entry_new(path, 'l', 0777);

        link->target = g_strdup("busybox");
        g_assert_true(tree_builder_add(b, link, NULL));
    }
}

static void fill(TreeBuilder *b, const char *busybox, const char *seed)
{
    static const char *const folders[] = {"", "bin", "etc", "srv", "srv/deep", "data", NULL};

    for (size_t i = 0; folders[i]; i++)
        g_assert_true(tree_builder_add(b, entry_new(folders[i], 'd', 0755), NULL));
    add_text(b, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\nweb:x:1001:1002:web:/srv:/bin/sh\n");
    add_text(b, "etc/group", "root:x:0:\nnogroup:x:65534:\nweb:x:1002:\nextra:x:1003:web\n");
    add_text(b, "etc/seed", seed);
    add_text(b, "srv/index.html", "hello\n");
    add_text(b, "srv/deep/file", "deep\n");
    if (busybox)
        add_busybox(b, busybox);
}

static void make_tree(Store *store, const char *busybox, const char *seed, Tree **ret, StoreMap **ret_files)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(TreeBuilder) builder = NULL;
    g_autoptr(MapWriter) space = NULL;
    MapResult result;

    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &writer, NULL) && tree_builder_new(writer, &builder, NULL));
    fill(builder, busybox, seed);
    g_assert_true(tree_builder_finish(builder, ret, &space, NULL) && store_writer_commit(writer, NULL));
    map_writer_result(space, &result);
    g_assert_true(store_map_open(store, &result.digest, ret_files, NULL));
}

StoreImage *oci_image_make(Store *store, const char *name, const char *busybox, const char *seed, const json_t *args)
{
    StoreImage *image = store_image_new("oci", name);
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(LayersResult) layers = NULL;
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    g_autoptr(json_t) provenance = json_object();
    g_autoptr(GError) error = NULL;
    StoreSet set = {.name = name, .images = images, .provenance = provenance};
    LayersSpec spec = {.args = args, .epoch = EPOCH};

    make_tree(store, busybox, seed, &tree, &files);
    spec.tree = tree;
    spec.files = files;
    (void)(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) && layers_build(store, writer, &spec, &layers, &error) &&
           store_writer_commit(writer, &error) && layers_finish(store, layers, image, &error));
    g_assert_no_error(error);
    g_ptr_array_add(images, image);
    (void)store_publish(store, &set, &error);
    g_assert_no_error(error);
    return image;
}

const char *oci_image_busybox(void)
{
    static const char *const places[] = {"/bin/busybox", "/usr/bin/busybox", NULL};

    for (size_t i = 0; places[i]; i++) {
        g_autoptr(GBytes) bytes = NULL;

        /* A static program names no interpreter. */
        if (file_load(AT_FDCWD, places[i], 8 << 20, &bytes, NULL) &&
            !memmem(g_bytes_get_data(bytes, NULL), MIN(g_bytes_get_size(bytes), 4096), "/ld-linux", 9))
            return places[i];
    }
    return NULL;
}
