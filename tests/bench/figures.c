/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures that `make bench` cannot take from the command line: what a render costs alone, and a store with a thousand images that have packages.
 *
 *     figures render STORE REF      renders the disk's tree to a map, loading included; prints "SECONDS ANONYMOUS-MIB CONTENT-BYTES"
 *     figures thousand STORE        fills a new store with 1,000 images of 400 packages each
 */
#include "base/file.h"
#include "baker/render.h"
#include "store/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IMAGES 1000u
#define PACKAGES 400u

static void must(bool ok, GError **error)
{
    if (ok)
        return;
    fprintf(stderr, "figures: %s\n", *error ? (*error)->message : "failed");
    exit(1);
}

/* --- memory, as high as it came --- */

static gint stop_watching;

static unsigned long anonymous_kib(void)
{
    char text[4096] = "";
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    const char *line;

    if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
        exit(1);
    (void)close(fd);
    line = strstr(text, "RssAnon:");
    return line ? strtoul(line + strlen("RssAnon:"), NULL, 10) : 0;
}

static gpointer watch(gpointer unused)
{
    unsigned long highest = 0;

    (void)unused;
    while (!g_atomic_int_get(&stop_watching)) {
        highest = MAX(highest, anonymous_kib());
        g_usleep(1000);
    }
    return GSIZE_TO_POINTER(MAX(highest, anonymous_kib()));
}

/* --- a render --- */

static uint64_t content_of(Tree *tree)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < tree_count(tree); i++)
        sum += tree_nth(tree, i)->type == 'f' ? tree_nth(tree, i)->size : 0;
    return sum;
}

static void render(Store *store, const char *ref)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) disk = NULL;
    GError *error = NULL;
    GThread *watcher = g_thread_new("watch", watch, NULL);
    gint64 start = g_get_monotonic_time();

    must(store_resolve(store, ref, "disk", &image, &error), &error);
    must(tree_load(store, &image->tree, &tree, &files, &error) && store_writer_open(store, BLOCK_PUBLIC, &writer, &error), &error);

    /* Another name than the image's: none of its metadata is in the store. */
    RenderSpec spec = {.name = "figures", .size = image->size, .epoch = 1700000000, .bootable = true};
    must(render_disk(store, writer, tree, files, &spec, &disk, &error) && store_writer_commit(writer, &error), &error);
    start = g_get_monotonic_time() - start;
    g_atomic_int_set(&stop_watching, 1);
    printf("%.3f %.1f %" G_GUINT64_FORMAT "\n", (double)start / G_USEC_PER_SEC, (double)GPOINTER_TO_SIZE(g_thread_join(watcher)) / 1024,
           content_of(tree));
}

/* --- a thousand images --- */

/* Most packages are as in the image before; some are newer. */
static json_t *packages_of(unsigned number)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < PACKAGES; i++) {
        g_autofree char *name = i ? g_strdup_printf("package-%u", i) : g_strdup("openssl");
        g_autofree char *version = g_strdup_printf("3.0.%u-1", number / (1 + i % 50) % 30);

        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "type", "deb", "name", name, "version", version, "architecture", "amd64"));
    }
    return list;
}

static void publish(Store *store, unsigned number)
{
    g_autofree char *name = g_strdup_printf("image-%u", number), *text = g_strdup_printf("{\"n\":%u}", number);
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    g_autoptr(json_t) provenance = json_pack("{s:i}", "number", (int)number);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    uint8_t block[STORE_BLOCK_SIZE] = {1};
    StoreImage *image = store_image_new("disk", name);
    StoreSet set = {.name = name, .images = images, .provenance = provenance};
    GError *error = NULL;
    MapResult result;

    g_ptr_array_add(images, image);
    memcpy(block, &number, sizeof(number));
    must(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) && map_writer_new(writer, sizeof(block), NULL, &map, &error), &error);
    must(map_writer_write(map, 0, block, sizeof(block), &error) && map_writer_finish(map, &error) && store_writer_commit(writer, &error), &error);
    map_writer_result(map, &result);
    image->map = result.digest;
    image->size = result.size;
    image->packages = packages_of(number);
    must(store_blob_put(store, text, strlen(text), &image->id, &error), &error);
    set.key = image->id;
    must(store_publish(store, &set, &error), &error);
}

int main(int argc, char **argv)
{
    GError *error = NULL;
    Store *store = NULL;

    if (argc < 3 || (strcmp(argv[1], "render") == 0) != (argc == 4)) {
        fprintf(stderr, "usage: figures render STORE REF | figures thousand STORE\n");
        return 2;
    }
    must(store_open(argv[2], argc == 4 ? 0 : STORE_OPEN_CREATE, &store, &error), &error);
    if (argc == 4)
        render(store, argv[3]);
    for (unsigned i = 0; argc == 3 && i < IMAGES; i++)
        publish(store, i);
    store_close(store);
    return 0;
}
