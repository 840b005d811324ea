/* SPDX-License-Identifier: Apache-2.0 */
/*
 * baker/post-manifest.c: Packer's keys, digests, and a file that other programs may share.
 */
#include "baker/post-manifest.h"

#include "baker/post.h"
#include "base/file.h"

#include <fcntl.h>
#include <string.h>

typedef struct Bench {
    char *folder, *path;
    StoreImage disk, oci;
    GPtrArray *images;
    json_t *args;
} Bench;

static void bench_init(Bench *b, gconstpointer arg)
{
    b->folder = g_dir_make_tmp("kiln-test-manifest-XXXXXX", NULL);
    b->path = g_build_filename(b->folder, "sub/m.json", NULL);
    b->disk = (StoreImage){.kind = (char *)"disk", .name = (char *)"web", .size = 2147483648u};
    b->oci = (StoreImage){.kind = (char *)"oci", .name = (char *)"web", .size = 1000};
    digest_of_string("disk", &b->disk.id);
    digest_of_string("oci", &b->oci.id);
    digest_of_string("tree", &b->disk.tree.tree);
    b->images = g_ptr_array_new();
    g_ptr_array_add(b->images, &b->disk);
    g_ptr_array_add(b->images, &b->oci);
    b->args = json_pack("{s:s, s:{s:s}}", "output", b->path, "custom_data", "ticket", "OPS-1");
}

static void bench_clear(Bench *b, gconstpointer arg)
{
    (void)file_remove_tree(AT_FDCWD, b->folder, NULL);
    g_free(b->folder);
    g_free(b->path);
    g_ptr_array_unref(b->images);
    json_decref(b->args);
}

static json_t *run_and_load(Bench *b)
{
    g_autoptr(GError) error = NULL;
    json_error_t e;

    post_manifest_run(b->args, &(ManifestBuild){"web", "base", "bootstrap", b->images, NULL, NULL}, &error);
    g_assert_no_error(error);
    json_t *document = json_load_file(b->path, 0, &e);
    g_assert_nonnull(document);
    return document;
}

static const char *text(json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static void test_keys(Bench *b, gconstpointer arg)
{
    g_autoptr(json_t) document = run_and_load(b);
    json_t *build = json_array_get(json_object_get(document, "builds"), 0),
           *kiln = json_object_get(build, "kiln");
    char disk[DIGEST_OCI_SIZE], oci[DIGEST_OCI_SIZE];
    g_autofree char *id =
        g_strdup_printf("disk:%s,oci:%s", digest_to_oci(&b->disk.id, disk), digest_to_oci(&b->oci.id, oci));

    g_assert_cmpstr(text(build, "name"), ==, "base");
    g_assert_cmpstr(text(build, "builder_type"), ==, "bootstrap");
    g_assert_cmpstr(text(build, "artifact_id"), ==, id);
    g_assert_cmpstr(text(build, "packer_run_uuid"), ==, text(document, "last_run_uuid"));
    g_assert_cmpstr(text(json_object_get(build, "custom_data"), "ticket"), ==, "OPS-1");
    g_assert_cmpint(json_integer_value(json_object_get(build, "build_time")), >, 1600000000);
    g_assert_cmpstr(text(json_object_get(kiln, "disk"), "image_id"), ==, disk);
    g_assert_null(json_object_get(json_object_get(kiln, "oci"), "tree")); /* not known */
    g_assert_cmpint(json_integer_value(json_object_get(json_object_get(kiln, "disk"), "size")), ==,
                    2147483648);
}

static void test_appends(Bench *b, gconstpointer arg)
{
    g_autofree char *lock = g_strconcat(b->path, ".lock", NULL);
    json_t *first = run_and_load(b), *second;
    g_autoptr(GError) error = NULL;

    json_object_set_new(first, "ours", json_true()); /* a key of somebody else */
    g_assert_cmpint(json_dump_file(first, b->path, 0), ==, 0);
    json_object_set_new(b->args, "strip_time", json_true());
    second = run_and_load(b);
    g_assert_cmpint(json_array_size(json_object_get(second, "builds")), ==, 2);
    g_assert_null(json_object_get(json_array_get(json_object_get(second, "builds"), 1), "build_time"));
    g_assert_true(json_is_true(json_object_get(second, "ours")));
    g_assert_false(g_file_test(lock, G_FILE_TEST_EXISTS));
    json_decref(first);
    json_decref(second);
}

static void test_foreign_file_is_kept(Bench *b, gconstpointer arg)
{
    static const char *const others[] = {"not json", "[1]", "{\"builds\":{}}", ""};

    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *parent = g_path_get_dirname(b->path), *kept = NULL;
        g_assert_cmpint(g_mkdir_with_parents(parent, 0755), ==, 0);
        g_assert_true(g_file_set_contents(b->path, others[i], -1, NULL));
        g_assert_false(post_manifest_run(b->args, &(ManifestBuild){"web", "base", "bootstrap", b->images, NULL, NULL}, &error));
        g_assert_nonnull(error);
        g_assert_true(g_file_get_contents(b->path, &kept, NULL, NULL));
        g_assert_cmpstr(kept, ==, others[i]);
    }
}

static gpointer append_many(gpointer arg)
{
    Bench *b = arg;
    for (int i = 0; i < 10; i++)
        g_assert_true(post_manifest_run(b->args, &(ManifestBuild){"web", "base", "bootstrap", b->images, NULL, NULL}, NULL));
    return NULL;
}

static void test_parallel(Bench *b, gconstpointer arg)
{
    GThread *threads[3];

    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new("append", append_many, b);
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
        g_thread_join(threads[i]);
    g_autoptr(json_t) document = run_and_load(b);
    g_assert_cmpint(json_array_size(json_object_get(document, "builds")), ==, 31);
}

static void test_check(void)
{
    g_autoptr(json_t) args = json_pack("{s:[]}", "custom_data");
    g_autoptr(GError) error = NULL;
    const char *argument = NULL;

    g_assert_false(post_find("manifest")->check(args, &argument, &error));
    g_assert_cmpstr(argument, ==, "custom_data");
}

#define ADD(path, fn) g_test_add(path, Bench, NULL, bench_init, fn, bench_clear)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("/post-manifest/keys-are-packers", test_keys);
    ADD("/post-manifest/runs-append", test_appends);
    ADD("/post-manifest/foreign-file-is-kept", test_foreign_file_is_kept);
    ADD("/post-manifest/parallel-runs-lose-nothing", test_parallel);
    g_test_add_func("/post-manifest/wrong-argument-is-named", test_check);
    return g_test_run();
}
