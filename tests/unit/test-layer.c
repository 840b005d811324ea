/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers: what goes in comes out of tar readers and of our own, equal trees give equal digests, recipes bring
 * the very bytes back and refuse damage; cutting a tree into layers and applying them gives the tree.
 */
#include "baker/layers.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/layer-recipe.h"
#include "store/oci.h"
#include "store/store.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

typedef StoreFixture Fixture;

/* --- trees ----------------------------------------------------------------------- */

static TreeEntry *entry_new(const char *path, char type, uint16_t mode)
{
    TreeEntry *entry = tree_entry_new(path, type);

    entry->mode = mode;
    entry->mtime = 1700000000;
    return entry;
}

static void add_folder(TreeBuilder *b, const char *path)
{
    g_assert_true(tree_builder_add(b, entry_new(path, 'd', 0755), NULL));
}

static void add_link(TreeBuilder *b, const char *path, char type, const char *target)
{
    TreeEntry *entry = entry_new(path, type, 0777);

    entry->target = g_strdup(target);
    g_assert_true(tree_builder_add(b, entry, NULL));
}

static void add_file(TreeBuilder *b, const char *path, const void *data, size_t size)
{
    g_assert_true(tree_builder_begin(b, entry_new(path, 'f', 0644), NULL));
    g_assert_true(tree_builder_data(b, data, size, NULL));
    g_assert_true(tree_builder_end(b, NULL));
}

static void add_text(TreeBuilder *b, const char *path, const char *text)
{
    add_file(b, path, text, strlen(text));
}

typedef void FillFn(TreeBuilder *b);

static void make_tree(Store *store, FillFn *fill, Tree **ret, StoreMap **ret_files)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(TreeBuilder) builder = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(GError) error = NULL;
    MapResult result;

    (void)(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) &&
           tree_builder_new(writer, &builder, &error));
    g_assert_no_error(error);
    fill(builder);
    (void)(tree_builder_finish(builder, ret, &space, &error) && store_writer_commit(writer, &error));
    g_assert_no_error(error);
    map_writer_result(space, &result);
    (void)store_map_open(store, &result.digest, ret_files, &error);
    g_assert_no_error(error);
}

static void fill_odd(TreeBuilder *b)
{
    g_autofree char *big = g_malloc(300001), *longer = g_strnfill(120, 'n'), *deep = NULL,
                    *target = g_strnfill(200, 't');
    TreeEntry *entry;

    for (size_t i = 0; i < 300001; i++)
        big[i] = (char)(i * 2654435761u >> 13);
    add_folder(b, "");
    add_folder(b, "a");
    add_text(b, "a/empty", "");
    add_text(b, "a/one", "x");
    add_file(b, "a/exact", big, 4096);
    add_file(b, "a/big", big, 300001);
    add_file(b, "a/same", big, 300001);
    add_text(b, "a/with space", "space");
    add_text(b, "a/new\nline", "newline");
    add_text(b, "a/\xc3\xbcml\xc3\xa4ut", "utf-8");
    add_text(b, "a/latin\xfc", "bytes");
    deep = g_strdup_printf("a/%s", longer);
    add_folder(b, deep);
    g_free(g_steal_pointer(&deep));
    deep = g_strdup_printf("a/%s/%s", longer, longer);
    add_text(b, deep, "long name");
    add_link(b, "a/symlink", 'l', "../else where");
    add_link(b, "a/longlink", 'l', target);
    add_link(b, "a/two", 'h', "a/one");
    g_assert_true(tree_builder_add(b, entry_new("a/fifo", 'p', 0600), NULL));
    g_assert_true(tree_builder_begin(b, entry = entry_new("a/owned", 'f', 04755), NULL));
    entry->uid = 3000000;
    entry->gid = 4000000000u;
    entry->mtime = -5;
    tree_entry_set_xattr(entry, "user.text", "a\nb=c", 5);
    tree_entry_set_xattr(entry, "security.capability", "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    g_assert_true(tree_builder_data(b, "owned", 5, NULL));
    g_assert_true(tree_builder_end(b, NULL));
}

static void make_layer(Store *store, Tree *tree, StoreMap *files, LayerResult *ret)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(LayerWriter) layer = NULL;
    g_autoptr(GError) error = NULL;

    (void)(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) &&
           layer_writer_new(store, writer, &layer, &error));
    for (size_t i = 0; !error && i < tree_count(tree); i++)
        (void)layer_writer_add(layer, tree, files, tree_nth(tree, i), &error);
    g_assert_no_error(error);
    (void)(layer_writer_finish(layer, &error) && store_writer_commit(writer, &error) &&
           layer_writer_result(layer, ret, &error));
    g_assert_no_error(error);
}

static int open_temp(const Fixture *f, const char *name)
{
    g_autofree char *path = g_build_filename(f->dir, name, NULL);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

static void read_back(Store *store, int fd, Tree **ret)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(TreeBuilder) builder = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(lseek(fd, 0, SEEK_SET), ==, 0);
    (void)(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) &&
           tree_builder_new(writer, &builder, &error) &&
           tree_read_tar(builder, fd, NULL, NULL, NULL, &error) &&
           tree_builder_finish(builder, ret, &space, &error));
    g_assert_no_error(error);
}

static void assert_same_tree(Tree *a, Tree *b)
{
    g_autofree char *ta = tree_to_text(a, NULL), *tb = tree_to_text(b, NULL);

    g_assert_cmpstr(ta, ==, tb);
}

/* --- layers ------------------------------------------------------------------------- */

static void test_round_trip(Fixture *f, gconstpointer data)
{
    g_autoptr(Tree) tree = NULL, back = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GError) error = NULL;
    auto_fd int gz = open_temp(f, "layer.gz"), tar = open_temp(f, "layer.tar");
    LayerResult result, info;
    Digest digest, map;
    struct stat st;

    make_tree(f->store, fill_odd, &tree, &files);
    make_layer(f->store, tree, files, &result);
    (void)(layer_write_out(f->store, &result.recipe, false, gz, &error) &&
           layer_write_out(f->store, &result.recipe, true, tar, &error) && digest_of_fd(gz, &digest, &error));
    g_assert_no_error(error);
    g_assert_true(digest_equal(&digest, &result.blob));
    g_assert_cmpint(fstat(gz, &st), ==, 0);
    g_assert_cmpuint(st.st_size, ==, result.size);
    g_assert_true(digest_of_fd(tar, &digest, NULL));
    g_assert_true(digest_equal(&digest, &result.diff_id));
    g_assert_cmpint(fstat(tar, &st), ==, 0);
    g_assert_cmpuint(st.st_size, ==, result.tar_size);
    g_assert_true(layer_recipe_info(f->store, &result.recipe, &info, NULL));
    g_assert_true(digest_equal(&info.blob, &result.blob) && info.size == result.size);
    g_assert_true(layer_recipe_map(f->store, &result.recipe, &map, NULL) && !digest_is_none(&map));
    read_back(f->store, gz, &back);
    assert_same_tree(tree, back);
}

static void test_repeats(Fixture *f, gconstpointer data)
{
    g_autoptr(Tree) tree = NULL, again = NULL;
    g_autoptr(StoreMap) files = NULL, files_again = NULL;
    LayerResult one, two;

    make_tree(f->store, fill_odd, &tree, &files);
    make_layer(f->store, tree, files, &one);
    make_tree(f->store, fill_odd, &again, &files_again);
    make_layer(f->store, again, files_again, &two);
    g_assert_true(digest_equal(&one.recipe, &two.recipe));
    g_assert_true(digest_equal(&one.blob, &two.blob));
    g_assert_cmpuint(one.size, ==, two.size);
}

/* GNU tar and Python read what we wrote, and see names and contents. */
static void test_other_readers(Fixture *f, gconstpointer data)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autofree char *path = g_build_filename(f->dir, "l.tar.gz", NULL), *out = NULL;
    g_autoptr(GError) error = NULL;
    auto_fd int fd = open_temp(f, "l.tar.gz");
    const char *argv[] = {"tar", "--xattrs", "-C", f->dir, "-tvzf", path, NULL};
    LayerResult result;

    make_tree(f->store, fill_odd, &tree, &files);
    make_layer(f->store, tree, files, &result);
    g_assert_true(layer_write_out(f->store, &result.recipe, false, fd, NULL));
    (void)process_capture(argv, 1 << 20, &out, &error);
    g_assert_no_error(error);
    g_assert_nonnull(strstr(out, "a/with space"));
    g_assert_nonnull(strstr(out, "a/two link to a/one"));
    g_assert_nonnull(strstr(out, "3000000/4000000000"));
    g_assert_nonnull(strstr(out, "300001"));
}

static void test_empty(Fixture *f, gconstpointer data)
{
    g_autoptr(Tree) tree = tree_new();
    auto_fd int fd = open_temp(f, "empty");
    LayerResult result;

    make_layer(f->store, tree, NULL, &result);
    g_assert_cmpuint(result.tar_size, ==, 1024);
    g_assert_true(layer_write_out(f->store, &result.recipe, false, fd, NULL));
}

static void test_names(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(LayerWriter) layer = NULL;
    g_autoptr(Tree) tree = tree_new();
    g_autoptr(GError) error = NULL;

    tree_put(tree, entry_new("etc/.wh.x", 'f', 0644));
    g_assert_true(store_writer_open(f->store, BLOCK_PUBLIC, &writer, NULL));
    g_assert_true(layer_writer_new(f->store, writer, &layer, NULL));
    g_assert_false(layer_writer_add(layer, tree, NULL, tree_nth(tree, 0), &error));
    g_assert_nonnull(strstr(error->message, ".wh."));
}

static void test_damage(Fixture *f, gconstpointer data)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GBytes) blob = NULL;
    LayerResult result;
    gsize size;
    const uint8_t *bytes;

    make_tree(f->store, fill_odd, &tree, &files);
    make_layer(f->store, tree, files, &result);
    g_assert_true(store_blob_get(f->store, &result.recipe, 1 << 24, &blob, NULL));
    bytes = g_bytes_get_data(blob, &size);
    for (gsize cut = 0; cut < size; cut += cut < 400 ? 1 : 997) {
        g_autoptr(GBytes) less = g_bytes_new(bytes, cut);
        g_autoptr(LayerRecipe) recipe = NULL;

        g_assert_false(layer_recipe_decode(less, &recipe, NULL));
    }
    for (gsize at = 8; at < 300;
         at++) { /* anything may be read, nothing may break, and no wrong layer comes out */
        g_autofree uint8_t *copy = g_memdup2(bytes, size);
        g_autoptr(GBytes) changed = NULL;
        g_autoptr(LayerRecipe) recipe = NULL;

        copy[at] ^= 0x81;
        changed = g_bytes_new(copy, size);
        (void)layer_recipe_decode(changed, &recipe, NULL);
    }
}

/* --- cutting --------------------------------------------------------------------------- */

static void fill_base(TreeBuilder *b)
{
    static const char *const folders[] = {
        "",    "usr",     "usr/bin", "etc", "var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info",
        "opt", "opt/old", "dev",     "tmp", "srv", NULL};

    for (size_t i = 0; folders[i]; i++)
        add_folder(b, folders[i]);
    add_link(b, "bin", 'l', "usr/bin");
    add_text(b, "usr/bin/tool", "tool 1");
    add_text(b, "usr/bin/gone", "gone");
    add_text(b, "var/lib/dpkg/info/tool.list", "/.\n/bin\n/bin/tool\n/bin/gone\n/usr/bin/h1\n/usr/bin/h2\n");
    add_text(b, "usr/bin/h1", "hard");
    add_link(b, "usr/bin/h2", 'h', "usr/bin/h1");
    add_link(b, "srv/h3", 'h', "usr/bin/h1");
    add_text(b, "opt/old/a", "a");
    add_text(b, "opt/old/b", "b");
    add_text(b, "opt/becomes-folder", "file");
    add_folder(b, "opt/becomes-file");
    add_text(b, "opt/becomes-file/x", "x");
    add_text(b, "etc/kept", "kept");
    add_text(b, "dev/null-like", "never seen");
    add_text(b, "etc/key", "SECRET deleted");
    add_text(b, "etc/log", "SECRET emptied");
    add_link(b, "etc/log2", 'h', "etc/log");
    add_text(b, "etc/m1", "SECRET under two names");
    add_link(b, "etc/m2", 'h', "etc/m1");
}

static void fill_final(TreeBuilder *b)
{
    static const char *const folders[] = {"",
                                          "usr",
                                          "usr/bin",
                                          "etc",
                                          "var",
                                          "var/lib",
                                          "var/lib/dpkg",
                                          "var/lib/dpkg/info",
                                          "opt",
                                          "opt/becomes-folder",
                                          "dev",
                                          "tmp",
                                          "srv",
                                          "var/www",
                                          "boot",
                                          "boot/grub",
                                          NULL};

    for (size_t i = 0; folders[i]; i++)
        add_folder(b, folders[i]);
    add_link(b, "bin", 'l', "usr/bin");
    add_text(b, "usr/bin/tool", "tool 2");
    add_text(b, "usr/bin/new", "new tool");
    add_text(b, "var/lib/dpkg/info/tool.list", "/bin/tool\n/usr/bin/new\n/usr/bin/h1\n/usr/bin/h2\n");
    add_text(b, "usr/bin/h1", "hard 2");
    add_link(b, "usr/bin/h2", 'h', "usr/bin/h1");
    add_link(b, "srv/h3", 'h', "usr/bin/h1");
    add_text(b, "opt/becomes-folder/y", "y");
    add_text(b, "opt/becomes-file", "now a file");
    add_text(b, "etc/kept", "kept");
    add_link(b, "etc/resolv.conf", 'l', "../run/resolv.conf");
    add_text(b, "var/www/index.html", "page");
    add_text(b, "boot/vmlinuz-6.1", "kernel");
    add_text(b, "boot/grub/grub.cfg", "menu");
    add_text(b, "tmp/left", "left");
    add_text(b, "etc/log", "");
    add_link(b, "etc/log2", 'h', "etc/log");
    add_text(b, "etc/m2", "now alone");
}

static OciParent *parent_of_image(Store *store, const StoreImage *image)
{
    OciParent *parent = g_new0(OciParent, 1);

    parent->layers = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < image->layers->len; i++)
        g_ptr_array_add(parent->layers,
                        g_memdup2(g_ptr_array_index(image->layers, i), sizeof(StoreLayerRef)));
    return parent;
}

static void build_image(Store *store, const LayersSpec *spec, StoreImage **ret)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(LayersResult) layers = NULL;
    g_autoptr(StoreImage) image = store_image_new("oci", "web");
    g_autoptr(GError) error = NULL;

    (void)(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) &&
           layers_build(store, writer, spec, &layers, &error) && store_writer_commit(writer, &error) &&
           layers_finish(store, layers, image, &error));
    g_assert_no_error(error);
    *ret = g_steal_pointer(&image);
}

static void apply_image(Store *store, const StoreImage *image, Tree **ret)
{
    g_autoptr(OciParent) parent = parent_of_image(store, image);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GError) error = NULL;
    MapResult result;

    (void)(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) &&
           oci_parent_tree(store, writer, parent, ret, &space, &error) &&
           store_writer_commit(writer, &error));
    g_assert_no_error(error);
    map_writer_result(space, &result);
    (void)store_map_open(store, &result.digest, &files, &error);
    g_assert_no_error(error);
    for (size_t i = 0; i < tree_count(*ret); i++) { /* contents are where the entries say */
        const TreeEntry *entry = tree_nth(*ret, i);
        g_autoptr(GBytes) bytes = NULL;
        Digest digest;

        if (entry->type != 'f')
            continue;
        g_assert_true(tree_read_file(*ret, files, entry->path, 1 << 24, &bytes, NULL));
        digest_of(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &digest);
        g_assert_true(digest_equal(&digest, &entry->sha256));
    }
}

static void remove_machine_parts(Tree *tree)
{
    tree_remove(tree, "boot/vmlinuz-6.1");
    tree_remove(tree, "boot/grub/grub.cfg");
    tree_remove(tree, "tmp/left");
    tree_remove(tree, "etc/resolv.conf");
    tree_remove(tree, "dev/null-like");
}

static json_t *config_of(Store *store, const StoreImage *image)
{
    g_autoptr(GBytes) bytes = NULL;
    json_t *config = NULL;

    g_assert_true(store_blob_get(store, &image->id, 1 << 20, &bytes, NULL));
    g_assert_true(
        json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), 1 << 20, "config", &config, NULL));
    return config;
}

/* The bytes of every layer's tar. */
static void assert_nowhere(const Fixture *f, const StoreImage *image, const char *words)
{
    for (guint i = 0; i < image->layers->len; i++) {
        const StoreLayerRef *ref = g_ptr_array_index(image->layers, i);
        g_autofree char *path = g_build_filename(f->dir, "search", NULL), *bytes = NULL;
        auto_fd int fd = open_temp(f, "search");
        gsize size;

        g_assert_true(layer_write_out(f->store, &ref->recipe, true, fd, NULL));
        g_assert_true(g_file_get_contents(path, &bytes, &size, NULL));
        g_assert_null(memmem(bytes, size, words, strlen(words)));
    }
}

static void test_cut_with_base(Fixture *f, gconstpointer data)
{
    g_autoptr(Tree) base = NULL, final = NULL, applied = NULL;
    g_autoptr(StoreMap) base_files = NULL, files = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(json_t) config = NULL;

    make_tree(f->store, fill_base, &base, &base_files);
    make_tree(f->store, fill_final, &final, &files);
    build_image(
        f->store,
        &(LayersSpec){.tree = final, .files = files, .base = base, .base_files = base_files, .epoch = 86400},
        &image);
    g_assert_cmpuint(image->layers->len, ==, 4); /* base, packages, system, files */
    assert_nowhere(f, image, "SECRET");
    apply_image(f->store, image, &applied);
    remove_machine_parts(final);
    assert_same_tree(final, applied);
    config = config_of(f->store, image);
    g_assert_cmpstr(json_string_value(json_object_get(config, "created")), ==, "1970-01-02T00:00:00Z");
    g_assert_cmpuint(json_array_size(json_object_get(json_object_get(config, "rootfs"), "diff_ids")), ==, 4);
}

static void test_cut_without_base(Fixture *f, gconstpointer data)
{
    g_autoptr(Tree) final = NULL, applied = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(StoreImage) image = NULL;

    make_tree(f->store, fill_final, &final, &files);
    build_image(f->store, &(LayersSpec){.tree = final, .files = files}, &image);
    g_assert_cmpuint(image->layers->len, ==, 3); /* base, system, files */
    apply_image(f->store, image, &applied);
    remove_machine_parts(final);
    assert_same_tree(final, applied);
}

static json_t *parent_json(Store *store, const StoreImage *image, bool own)
{
    json_t *layers = json_array(), *config = config_of(store, image);
    char oci[DIGEST_OCI_SIZE];

    for (guint i = 0; i < image->layers->len; i++) {
        const StoreLayerRef *ref = g_ptr_array_index(image->layers, i);

        json_array_append_new(layers, json_pack("{ss}", "blob", digest_to_oci(&ref->blob, oci)));
        json_object_set_new(json_array_get(layers, i), "recipe", json_string(digest_to_oci(&ref->recipe, oci)));
    }
    return json_pack("{so so ss sb}", "config", config, "layers", layers, "manifest", digest_to_oci(&image->manifest, oci), "own", own);
}

static void test_cut_on_parent(Fixture *f, gconstpointer data)
{
    g_autoptr(Tree) base = NULL, final = NULL, applied = NULL;
    g_autoptr(StoreMap) base_files = NULL, files = NULL;
    g_autoptr(StoreImage) first = NULL, second = NULL;
    g_autoptr(json_t) parent = NULL, args = NULL, config = NULL;

    make_tree(f->store, fill_base, &base, &base_files);
    remove_machine_parts(base);
    args = json_pack("{s[s]s{ss}s[s]}", "entrypoint", "/bin/one", "env", "A", "1", "cmd", "x");
    build_image(f->store, &(LayersSpec){.tree = base, .files = base_files, .args = args}, &first);
    parent = parent_json(f->store, first, false);
    g_clear_pointer(&args, json_decref);
    args =
        json_pack("{s[s]s[ss]s[is]}", "entrypoint", "/bin/two", "env", "A=2", "B=3", "expose", 80, "53/udp");

    make_tree(f->store, fill_final, &final, &files);
    build_image(f->store,
                &(LayersSpec){.tree = final,
                              .files = files,
                              .base = base,
                              .base_files = base_files,
                              .parent = parent,
                              .args = args},
                &second);
    g_assert_cmpuint(second->layers->len, ==, first->layers->len + 1);
    g_assert_cmpmem(g_ptr_array_index(first->layers, 0), sizeof(StoreLayerRef),
                    g_ptr_array_index(second->layers, 0), sizeof(StoreLayerRef));
    apply_image(f->store, second, &applied);
    remove_machine_parts(final);
    assert_same_tree(final, applied);
    config = config_of(f->store, second);
    {
        g_autofree char *run = json_canonical(json_object_get(config, "config"));

        g_assert_cmpstr(run, ==,
                        "{\"Entrypoint\":[\"/bin/two\"],\"Env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/"
                        "sbin:/usr/bin:/sbin:/bin\","
                        "\"A=2\",\"B=3\"],\"ExposedPorts\":{\"53/udp\":{},\"80/tcp\":{}}}");
    }
}

/* --- many packages, many nights ----------------------------------------------------- */

#define PACKAGES 12u
#define LARGE ((size_t)3 << 19) /* together large enough for layers by origin */

static unsigned night;              /* what fill_many() makes */
static size_t package_size = 10000; /* of each */

/* Package N has usr/lib/pN; "p5" and "p6" were built from one source. Sparse contents: they compress, and the test stays short. */
static void add_package(TreeBuilder *b, GString *status, unsigned number)
{
    static char content[LARGE];
    g_autofree char *path = g_strdup_printf("usr/lib/p%u", number), *list = g_strdup_printf("var/lib/dpkg/info/p%u.list", number);
    g_autofree char *lines = g_strdup_printf("/usr\n/usr/lib\n/usr/lib/p%u\n", number);
    unsigned version = number == night % PACKAGES ? night : number < night % PACKAGES ? night - night % PACKAGES + number : 0;

    g_snprintf(content, 64, "package %u, version %u", number, version);
    add_file(b, path, content, package_size);
    add_text(b, list, lines);
    g_string_append_printf(status, "Package: p%u\nStatus: install ok installed\n%sVersion: %u\n\n", number,
                           number == 6 ? "Source: p5 (1.0)\n" : "", version);
}

static void fill_many(TreeBuilder *b)
{
    static const char *const folders[] = {"", "etc", "usr", "var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info", "boot", "usr/lib/modules",
                                          "usr/lib/modules/6.1", "usr/lib/modules/6.2", NULL};
    g_autoptr(GString) status = g_string_new(NULL);
    g_autofree char *number = g_strdup_printf("%u", night);
    TreeEntry *lib = entry_new("usr/lib", 'd', 0755);

    lib->mtime += night; /* as dpkg leaves it */
    g_assert_true(tree_builder_add(b, lib, NULL));
    for (size_t i = 0; folders[i]; i++)
        add_folder(b, folders[i]);
    for (unsigned i = 0; i < PACKAGES; i++)
        add_package(b, status, i);
    add_text(b, "var/lib/dpkg/status", status->str);
    add_text(b, "etc/night", number);
    add_text(b, "boot/vmlinuz-6.1", "kernel");
    add_text(b, "usr/lib/modules/6.1/one.ko", "of the machine's kernel");
    add_text(b, "usr/lib/modules/6.2/one.ko", "of no kernel here");
}

static void make_night(const Fixture *f, unsigned which, const json_t *parent, Tree *from, StoreImage **ret, Tree **ret_tree)
{
    g_autoptr(StoreMap) files = NULL;
    LayersSpec spec = {.parent = parent, .base = parent ? from : NULL};

    night = which;
    make_tree(f->store, fill_many, ret_tree, &files);
    spec.tree = *ret_tree;
    spec.files = files;
    build_image(f->store, &spec, ret);
}

static guint same_layers(const StoreImage *a, const StoreImage *b)
{
    guint same = 0;

    for (guint i = 0; i < a->layers->len; i++)
        for (guint k = 0; k < b->layers->len; k++)
            same += digest_equal(&((const StoreLayerRef *)a->layers->pdata[i])->blob, &((const StoreLayerRef *)b->layers->pdata[k])->blob);
    return same;
}

static void assert_gives(const Fixture *f, const StoreImage *image, Tree *tree)
{
    g_autoptr(Tree) applied = NULL, wanted = layers_container_tree(tree);

    apply_image(f->store, image, &applied);
    assert_same_tree(wanted, applied);
}

/* The same template on another day, one package newer: not on a parent, and yet most layers are the same. */
static void test_origins(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) first = NULL, second = NULL;
    g_autoptr(Tree) one = NULL, two = NULL;

    package_size = LARGE;
    make_night(f, 0, NULL, NULL, &first, &one);
    make_night(f, 1, NULL, NULL, &second, &two);
    package_size = 10000;
    g_assert_cmpuint(first->layers->len, >, 5);
    g_assert_cmpuint(first->layers->len, ==, second->layers->len);
    g_assert_cmpuint(same_layers(first, second), ==, first->layers->len - 3); /* its own, system, files */
    assert_gives(f, second, two);
    g_assert_null(tree_find(two, "usr/lib/modules/6.3"));
    {
        g_autoptr(Tree) container = layers_container_tree(two);

        g_assert_null(tree_find(container, "usr/lib/modules/6.1"));
        g_assert_nonnull(tree_find(container, "usr/lib/modules/6.2/one.ko"));
    }
}

/* Layers stay few, the lowest stay as they are, and the image is what it should be every night. */
static void test_nights(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) first = NULL, image = NULL;
    g_autoptr(Tree) tree = NULL;
    guint most = 0;

    make_night(f, 0, NULL, NULL, &first, &tree);
    image = store_image_new("oci", "none");
    for (unsigned i = 1; i <= 14; i++) {
        g_autoptr(json_t) parent = parent_json(f->store, i == 1 ? first : image, true);
        StoreImage *next = NULL;
        Tree *after = NULL;

        make_night(f, i, parent, tree, &next, &after);
        g_assert_cmpuint(same_layers(first, next), ==, first->layers->len);
        if (i <= 8)
            g_assert_cmpuint(next->layers->len, ==, first->layers->len + i);
        most = MAX(most, next->layers->len);
        store_image_free(image);
        tree_free(tree);
        image = next;
        tree = after;
        if (i > 8)
            assert_gives(f, image, tree);
    }
    g_assert_cmpuint(most, ==, first->layers->len + 8);
    {
        g_autoptr(json_t) config = config_of(f->store, image);

        g_assert_cmpuint(json_array_size(json_object_get(json_object_get(config, "rootfs"), "diff_ids")), ==, image->layers->len);
        g_assert_cmpuint(json_array_size(json_object_get(config, "history")), ==, image->layers->len);
    }
}

/* What is not ours to merge stays, however many layers of ours it says to have. */
static void test_foreign(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(Tree) tree = NULL;

    make_night(f, 0, NULL, NULL, &image, &tree);
    for (unsigned i = 1; i <= 10; i++) {
        g_autoptr(json_t) parent = parent_json(f->store, image, false);
        StoreImage *next = NULL;
        Tree *after = NULL;

        make_night(f, i, parent, tree, &next, &after);
        g_assert_cmpuint(next->layers->len, ==, image->layers->len + 1);
        g_assert_cmpuint(same_layers(image, next), ==, image->layers->len);
        store_image_free(image);
        tree_free(tree);
        image = next;
        tree = after;
    }
}

static void test_arguments(void)
{
    static const struct {
        const char *json, *bad;
    } cases[] = {
        {"{}", NULL},
        {"{\"entrypoint\":[\"/a\"],\"expose\":[80,\"443\",\"53/udp\"],\"env\":{\"A\":1,\"B\":true}}", NULL},
        {"{\"entrypont\":[]}", "entrypont"},
        {"{\"entrypoint\":[1]}", "entrypoint"},
        {"{\"expose\":[0]}", "expose"},
        {"{\"expose\":[\"80/http\"]}", "expose"},
        {"{\"expose\":[70000]}", "expose"},
        {"{\"env\":[\"novalue\"]}", "env"},
        {"{\"env\":[\"=x\"]}", "env"},
        {"{\"labels\":[\"a\"]}", "labels"},
        {"{\"workdir\":\"relative\"}", "workdir"},
        {"{\"user\":[\"x\"]}", "user"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(json_t) args = json_loads(cases[i].json, 0, NULL);
        g_autoptr(GError) error = NULL;
        const char *bad = NULL;

        g_assert_cmpint(layers_check_output_args(args, &bad, &error), ==, cases[i].bad == NULL);
        g_assert_cmpstr(bad, ==, cases[i].bad);
        g_assert_cmpint(error != NULL, ==, cases[i].bad != NULL);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(path, fn) g_test_add(path, Fixture, NULL, store_fixture_setup, fn, store_fixture_teardown)
    CASE("/layer/comes-back-bit-exact", test_round_trip);
    CASE("/layer/equal-trees-give-equal-layers", test_repeats);
    CASE("/layer/tar-reads-it", test_other_readers);
    CASE("/layer/empty-layer-is-two-zero-blocks", test_empty);
    CASE("/layer/whiteout-names-are-refused", test_names);
    CASE("/layer/damaged-recipe-is-refused", test_damage);
    CASE("/layers/layers-by-rule-give-the-tree", test_cut_with_base);
    CASE("/layers/vendor-tree-is-cut-without-a-base", test_cut_without_base);
    CASE("/layers/parent-keeps-its-layers", test_cut_on_parent);
    CASE("/layers/a-new-version-changes-one-layer-by-rule", test_origins);
    CASE("/layers/changes-of-many-nights-stay-few", test_nights);
    CASE("/layers/a-foreign-parent-is-not-merged", test_foreign);
    g_test_add_func("/layers/output-arguments-are-checked", test_arguments);
    return g_test_run();
}
