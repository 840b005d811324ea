/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of layers on their way into a store and out of it: which are kept as recipes, which as they are, and that other tools
 * find the same digests wherever they went.
 */
#include "baker/import.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/compress.h"
#include "store/io.h"
#include "store/layer-cache.h"
#include "tests/unit/oci-image-support.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef StoreFixture Fixture;

static char *path_in(const Fixture *f, const char *name)
{
    return g_build_filename(f->dir, name, NULL);
}

/* A seed of some hundred KiB, so that layers have several chunks and are worth keeping. */
static char *long_seed(void)
{
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < 60000; i++)
        g_string_append_printf(text, "%x ", i * 2654435761u);
    return g_string_free(text, FALSE);
}

static StoreImage *make_image(const Fixture *f, const char *name, const char *compression)
{
    g_autoptr(json_t) args = compression ? json_pack("{ss}", "compression", compression) : NULL;
    g_autofree char *seed = long_seed();

    return oci_image_make(f->store, name, NULL, seed, args);
}

static Store *other_store(const Fixture *f)
{
    g_autofree char *path = path_in(f, "other");

    return test_store_open(path, STORE_OPEN_CREATE);
}

static void export_layout(Store *store, const StoreImage *image, const char *path)
{
    g_autoptr(GError) error = NULL;

    (void)oci_export(store, image, OCI_DIR, path, "web", &error);
    g_assert_no_error(error);
}

static StoreImage *import(Store *store, const char *path)
{
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(GError) error = NULL;

    (void)import_file(store, &(ImportFrom){.path = path}, "app", &images, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(images->len, ==, 1);
    g_ptr_array_set_free_func(images, NULL);
    return g_ptr_array_index(images, 0);
}

static guint count_recipes(const StoreImage *image)
{
    guint count = 0;

    for (guint i = 0; i < image->layers->len; i++)
        count += !digest_is_none(&((const StoreLayerRef *)g_ptr_array_index(image->layers, i))->recipe);
    return count;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the blobs of a layout, sorted: the digests of all there is. */
static char *blobs_of(const char *layout)
{
    g_autofree char *folder = g_build_filename(layout, "blobs", "sha256", NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    const char *name;

    g_assert_nonnull(dir);
    while ((name = g_dir_read_name(dir)))
        g_ptr_array_add(names, g_strdup(name));
    g_ptr_array_sort(names, compare_names);
    g_ptr_array_add(names, NULL);
    return g_strjoinv("\n", (char **)names->pdata);
}

static void assert_same_blobs(const char *a, const char *b)
{
    g_autofree char *x = blobs_of(a), *y = blobs_of(b);

    g_assert_cmpstr(x, ==, y);
}

static bool run(const char *const *argv)
{
    g_autofree char *out = NULL;
    g_autoptr(GError) error = NULL;

    (void)process_capture(argv, 1 << 20, &out, &error);
    g_assert_no_error(error);
    return true;
}

/* --- tests ------------------------------------------------------------------------ */

/* Out of one store and into another: the gzip layers are found to be our encoder's, and nothing is kept twice. */
static void test_ours_become_recipes(Fixture *f, gconstpointer data)
{
    g_autofree char *out = path_in(f, "out"), *back = path_in(f, "back");
    g_autoptr(StoreImage) image = make_image(f, "web", NULL), imported = NULL;
    g_autoptr(Store) other = other_store(f);

    export_layout(f->store, image, out);
    imported = import(other, out);
    g_assert_true(digest_equal(&imported->id, &image->id) && digest_equal(&imported->manifest, &image->manifest));
    g_assert_cmpuint(count_recipes(imported), ==, image->layers->len);
    g_assert_cmpuint(imported->size, ==, image->size);
    export_layout(other, imported, back);
    assert_same_blobs(out, back);
}

/* The first layer of @layout unpacked, and packed again by somebody else. */
static void repack(const char *layout, const StoreImage *image, const char *program)
{
    const StoreLayerRef *ref = g_ptr_array_index(image->layers, 0);
    char hex[DIGEST_HEX_SIZE];
    const char *argv[] = {"python3", "-c", NULL, layout, digest_to_hex(&ref->blob, hex), program, NULL};

    argv[2] = "import sys, os, json, gzip, hashlib, zlib\n"
                      "layout, old, how = sys.argv[1:]\n"
                      "b = layout + '/blobs/sha256/'\n"
                      "def put(data):\n"
                      "    h = hashlib.sha256(data).hexdigest()\n"
                      "    open(b + h, 'wb').write(data)\n"
                      "    return 'sha256:' + h, len(data)\n"
                      "plain = gzip.open(b + old).read()\n"
                      "index = json.load(open(layout + '/index.json'))\n"
                      "entry = index['manifests'][0]\n"
                      "manifest = json.load(open(b + entry['digest'][7:]))\n"
                      "c = zlib.compressobj(6, zlib.DEFLATED, 31)\n"
                      "packed = c.compress(plain) + c.flush() if how == 'zlib' else plain\n"
                      "layer = manifest['layers'][0]\n"
                      "layer['digest'], layer['size'] = put(packed)\n"
                      "layer['mediaType'] = 'application/vnd.oci.image.layer.v1.tar' + ('+gzip' if how == 'zlib' else '')\n"
                      "entry['digest'], entry['size'] = put(json.dumps(manifest).encode())\n"
                      "json.dump(index, open(layout + '/index.json', 'w'))\n";
    g_assert_true(run(argv));
}

/* Gzip of another encoder stays as it came; a plain tar becomes a recipe; what is in them is the same. */
static void test_others(Fixture *f, gconstpointer data)
{
    static const char *const programs[] = {"zlib", "plain"};
    g_autofree char *back = path_in(f, "back"), *one = path_in(f, "1.tar"), *two = path_in(f, "2.tar");
    g_autoptr(StoreImage) image = make_image(f, "web", NULL);
    g_autofree char *a = NULL, *b = NULL;
    gsize a_size, b_size;

    if (!process_have("python3")) {
        g_test_skip("python3 is not installed");
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(programs); i++) {
        g_autofree char *out = path_in(f, programs[i]), *made = NULL;
        g_autoptr(Store) other = other_store(f);
        g_autoptr(StoreImage) imported = NULL;
        g_autoptr(Tree) content = NULL;
        g_autoptr(StoreMap) files = NULL;
        TreeStored tree;
        const StoreLayerRef *ref;
        char hex[DIGEST_HEX_SIZE];
        Digest digest;

        export_layout(f->store, image, out);
        repack(out, image, programs[i]);
        imported = import(other, out);
        g_assert_cmpuint(count_recipes(imported), ==, image->layers->len - (i == 0));
        g_assert_true(digest_is_none(&imported->tree.files));
        g_assert_true(digest_equal(&imported->tree.tree, &image->tree.tree) || digest_is_none(&image->tree.tree));
        ref = g_ptr_array_index(imported->layers, 0);
        export_layout(other, imported, back);
        made = g_strdup_printf("%s/blobs/sha256/%s", back, digest_to_hex(&ref->blob, hex));
        g_assert_true(digest_of_file(AT_FDCWD, made, &digest, NULL, NULL) && digest_equal(&digest, &ref->blob));
        g_assert_true(oci_image_load(other, imported, &content, &files, NULL)); /* laid out now, and remembered */
        g_assert_true(tree_export_tar(content, files, i ? two : one, NULL));
        g_assert_true(oci_image_tree(other, imported, true, &tree, NULL) && !digest_is_none(&tree.files));
    }
    g_assert_true(g_file_get_contents(one, &a, &a_size, NULL) && g_file_get_contents(two, &b, &b_size, NULL));
    g_assert_cmpmem(a, a_size, b, b_size);
}

/* zstd on request: the same image, other blobs; a layer is one frame, kept as it is. */
static void test_zstd(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) gzip = make_image(f, "web", "gzip"), zstd = make_image(f, "web-zstd", "zstd"), again = NULL, imported = NULL;
    g_autofree char *out = path_in(f, "out"), *back = path_in(f, "back");
    g_autoptr(GBytes) manifest = NULL, blob = NULL, plain = NULL;
    g_autoptr(Store) other = other_store(f);
    const StoreLayerRef *ref = g_ptr_array_index(zstd->layers, 0);

    g_assert_true(digest_equal(&gzip->id, &zstd->id) && !digest_equal(&gzip->manifest, &zstd->manifest));
    g_assert_cmpuint(count_recipes(zstd), ==, 0);
    g_assert_true(store_blob_get(f->store, &zstd->manifest, 1 << 20, &manifest, NULL));
    g_assert_nonnull(strstr(g_bytes_get_data(manifest, NULL), "application/vnd.oci.image.layer.v1.tar+zstd"));
    g_assert_true(store_blob_get(f->store, &ref->blob, 1 << 24, &blob, NULL));
    g_assert_true(decompress_bytes(g_bytes_get_data(blob, NULL), g_bytes_get_size(blob), 1 << 24, &plain, NULL)); /* one frame that says its size */
    again = make_image(f, "web-again", "zstd");
    g_assert_true(digest_equal(&again->manifest, &zstd->manifest));
    export_layout(f->store, zstd, out);
    imported = import(other, out);
    export_layout(other, imported, back);
    assert_same_blobs(out, back);
}

/* The second export copies what the first one made, and it is the same. */
static void test_second_export(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) image = make_image(f, "web", NULL);
    g_autofree char *out = path_in(f, "out"), *again = path_in(f, "again");

    g_assert_cmpuint(layer_cache_bytes(f->store), ==, 0);
    export_layout(f->store, image, out);
    g_assert_cmpuint(layer_cache_bytes(f->store), >, LAYER_CACHE_LEAST);
    export_layout(f->store, image, again);
    assert_same_blobs(out, again);
    store_set_layer_cache(f->store, 0);
    export_layout(f->store, image, again);
    assert_same_blobs(out, again);
}

/* A full disk, or one that fails, costs the copy and not the export. */
static void test_cache_fails(Fixture *f, gconstpointer data)
{
    static const char *const faults[] = {"mkdir:1:EROFS", "pwrite:1:ENOSPC", "rename:1:EIO", "truncate:1:EIO"};
    g_autoptr(StoreImage) image = make_image(f, "web", NULL);
    g_autofree char *out = path_in(f, "out");

    for (size_t i = 0; i < G_N_ELEMENTS(faults); i++) {
        pid_t child = fork();
        int status;

        g_assert_cmpint(child, >=, 0);
        if (child == 0) {
            g_setenv("KILN_TEST_FAIL", faults[i], TRUE);
            io_fault_reload();
            export_layout(f->store, image, out);
            _exit(layer_cache_bytes(f->store) == 0 ? 0 : 9);
        }
        g_assert_cmpint(waitpid(child, &status, 0), ==, child);
        g_assert_cmpint(status, ==, 0);
    }
    export_layout(f->store, image, out);
    g_assert_cmpuint(layer_cache_bytes(f->store), >, 0);
}

/* gc takes what no image needs, and all of it with the bake cache; then layers are made again. */
static void test_gc(Fixture *f, gconstpointer data)
{
    StoreGcOptions options = {0}, all = {.drop_states = true};
    g_autofree char *out = path_in(f, "out");
    g_autoptr(StoreImage) image = make_image(f, "web", NULL), resolved = NULL;
    StoreGcReport report;

    export_layout(f->store, image, out);
    g_assert_true(store_gc(f->store, &options, &report, NULL));
    g_assert_cmpuint(layer_cache_bytes(f->store), >, 0);
    g_assert_true(store_gc(f->store, &all, &report, NULL));
    g_assert_cmpuint(layer_cache_bytes(f->store), ==, 0);
    g_assert_cmpuint(report.bytes_freed, >, LAYER_CACHE_LEAST);
    export_layout(f->store, image, out);
    g_assert_true(store_resolve(f->store, "web", NULL, &resolved, NULL) && store_remove_image(f->store, resolved, NULL));
    options.grace = 0;
    g_assert_true(store_gc(f->store, &options, &report, NULL));
    g_assert_cmpuint(layer_cache_bytes(f->store), ==, 0);
}

/* skopeo takes layouts and archives over without changing a digest, and unpacks what zstd packed. */
static void test_skopeo(Fixture *f, gconstpointer data)
{
    if (!process_have("skopeo")) {
        g_test_skip("skopeo is not installed");
        return;
    }
    for (int i = 0; i < 2; i++) {
        g_autoptr(StoreImage) image = make_image(f, i ? "packed" : "web", i ? "zstd" : "gzip");
        g_autofree char *out = path_in(f, i ? "out-zstd" : "out-gzip"), *copy = g_strconcat(out, "-copy", NULL),
                        *from = g_strconcat("oci:", out, ":web", NULL), *to = g_strconcat("oci:", copy, ":web", NULL),
                        *docker = g_strconcat(out, ".docker.tar", NULL), *archive = g_strconcat("docker-archive:", docker, NULL),
                        *flat = g_strconcat(out, "-flat", NULL), *dir = g_strconcat("dir:", flat, NULL);
        const char *copy_argv[] = {"skopeo", "--insecure-policy", "copy", "-q", from, to, NULL};
        const char *docker_argv[] = {"skopeo", "--insecure-policy", "copy", "-q", archive, dir, NULL};
        g_autoptr(json_t) config = NULL;
        const json_t *diff_id;
        size_t k;

        export_layout(f->store, image, out);
        g_assert_true(run(copy_argv));
        assert_same_blobs(out, copy);
        g_assert_true(docker_export(f->store, image, NULL, docker, NULL) && run(docker_argv));
        g_assert_true(store_image_config(f->store, &image->id, 1 << 20, NULL, &config, NULL));
        json_array_foreach (json_object_get(json_object_get(config, "rootfs"), "diff_ids"), k, diff_id) {
            g_autofree char *layer = g_build_filename(flat, json_string_value(diff_id) + 7, NULL);

            g_assert_cmpint(access(layer, F_OK), ==, 0);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(path, fn) g_test_add(path, Fixture, NULL, store_fixture_setup, fn, store_fixture_teardown)
    CASE("/oci-layers/ours-become-recipes-again", test_ours_become_recipes);
    CASE("/oci-layers/others-are-kept-as-they-are-or-as-plain-tars", test_others);
    CASE("/oci-layers/zstd-on-request", test_zstd);
    CASE("/oci-layers/second-export-is-a-copy", test_second_export);
    CASE("/oci-layers/failing-cache-fails-no-export", test_cache_fails);
    CASE("/oci-layers/gc-takes-kept-layers", test_gc);
    CASE("/oci-layers/skopeo-changes-no-digest", test_skopeo);
    return g_test_run();
}
