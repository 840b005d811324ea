/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OCI layouts: an image goes out and comes back as it was, as a folder and as an archive; layers of others
 * (whiteouts, opaque folders, links across layers) give the tree that a container would see; damage and
 * tricks are refused.
 */
#include "baker/layers.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/oci.h"
#include "store/store.h"
#include "tests/unit/store-support.h"
#include "store/tar-header.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

typedef StoreFixture Fixture;

static char *path_in(const Fixture *f, const char *name)
{
    return g_build_filename(f->dir, name, NULL);
}

/* --- hand-made layers and layouts ------------------------------------------------- */

/* One line: type, mode, path, and content or target. */
typedef struct Line {
    char type;
    uint16_t mode;
    const char *path, *text;
} Line;

static GByteArray *make_tar(const Line *lines)
{
    static const guint8 zeroes[TAR_END_SIZE];
    GByteArray *tar = g_byte_array_new();

    for (; lines->path; lines++) {
        TreeEntry entry = {
            .path = (char *)lines->path, .type = lines->type, .mode = lines->mode, .mtime = 1000};

        if (lines->type == 'f')
            entry.size = strlen(lines->text);
        else
            entry.target = (char *)lines->text;
        g_assert_true(tar_header_append(tar, &entry, NULL));
        if (lines->type == 'f') {
            g_byte_array_append(tar, (const guint8 *)lines->text, (guint)entry.size);
            g_byte_array_append(tar, zeroes, (guint)tar_padding(entry.size));
        }
    }
    g_byte_array_append(tar, zeroes, sizeof(zeroes));
    return tar;
}

static void write_blob(const Fixture *f, const char *layout, const void *data, size_t size,
                       char oci[DIGEST_OCI_SIZE])
{
    g_autofree char *folder = g_build_filename(f->dir, layout, "blobs", "sha256", NULL), *path = NULL;
    Digest digest;

    digest_of(data, size, &digest);
    digest_to_oci(&digest, oci);
    g_assert_true(file_make_dirs(folder, 0755, NULL));
    path = g_build_filename(folder, oci + 7, NULL);
    g_assert_true(g_file_set_contents(path, data, (gssize)size, NULL));
}

static json_t *write_document(const Fixture *f, const char *layout, json_t *value, const char *type)
{
    g_autofree char *text = json_canonical(value);
    char oci[DIGEST_OCI_SIZE];

    write_blob(f, layout, text, strlen(text), oci);
    json_decref(value);
    return json_pack("{sssssI}", "mediaType", type, "digest", oci, "size", (json_int_t)strlen(text));
}

static json_t *write_image(const Fixture *f, const char *layout, const Line *const *layers)
{
    json_t *list = json_array(), *diff_ids = json_array(), *config;
    char oci[DIGEST_OCI_SIZE];

    for (; *layers; layers++) {
        g_autoptr(GByteArray) tar = make_tar(*layers);

        write_blob(f, layout, tar->data, tar->len, oci);
        json_array_append_new(diff_ids, json_string(oci));
        json_array_append_new(list,
                              json_pack("{sssssI}", "mediaType", "application/vnd.oci.image.layer.v1.tar",
                                        "digest", oci, "size", (json_int_t)tar->len));
    }
    config = write_document(f, layout,
                            json_pack("{sssss{ssso}}", "os", "linux", "architecture", "amd64", "rootfs",
                                      "type", "layers", "diff_ids", diff_ids),
                            "application/vnd.oci.image.config.v1+json");
    return write_document(f, layout,
                          json_pack("{sisoso}", "schemaVersion", 2, "config", config, "layers", list),
                          "application/vnd.oci.image.manifest.v1+json");
}

static void write_index(const Fixture *f, const char *layout, json_t *descriptors)
{
    g_autoptr(json_t) index = json_pack("{siso}", "schemaVersion", 2, "manifests", descriptors);
    g_autofree char *text = json_canonical(index),
                    *path = g_build_filename(f->dir, layout, "index.json", NULL);
    g_autofree char *marker = g_build_filename(f->dir, layout, "oci-layout", NULL);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    g_assert_true(g_file_set_contents(marker, "{\"imageLayoutVersion\":\"1.0.0\"}", -1, NULL));
}

static json_t *tagged(json_t *descriptor, const char *tag)
{
    json_object_set_new(descriptor, "annotations",
                        json_pack("{ss}", "org.opencontainers.image.ref.name", tag));
    return descriptor;
}

static json_t *for_platform(json_t *descriptor, const char *os, const char *arch)
{
    json_object_set_new(descriptor, "platform", json_pack("{ssss}", "os", os, "architecture", arch));
    return descriptor;
}

static char *tree_lines(Store *store, const OciParent *parent)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) out = g_string_new(NULL);
    MapResult result;

    (void)(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) &&
           oci_parent_tree(store, writer, parent, &tree, &space, &error) &&
           store_writer_commit(writer, &error));
    g_assert_no_error(error);
    map_writer_result(space, &result);
    g_assert_true(store_map_open(store, &result.digest, &files, NULL));
    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *entry = tree_nth(tree, i);
        g_autoptr(GBytes) bytes = NULL;
        g_autofree char *text = NULL;

        if (entry->type == 'f') {
            g_assert_true(tree_read_file(tree, files, entry->path, 4096, &bytes, NULL));
            text = g_strndup(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
        }
        g_string_append_printf(out, "%c %o %s %s\n", entry->type, entry->type == 'h' ? 0u : entry->mode,
                               entry->path,
                               text            ? text
                               : entry->target ? entry->target
                                               : "");
    }
    return g_string_free(g_steal_pointer(&out), FALSE);
}

/* --- layers of others --------------------------------------------------------------- */

static const Line lower[] = {
    {'d', 0755, "etc", NULL},       {'f', 0644, "etc/a", "a1"},   {'f', 0644, "etc/b", "b1"},
    {'d', 0700, "data", NULL},      {'f', 0644, "data/old", "o"}, {'d', 0755, "data/sub", NULL},
    {'f', 0644, "data/sub/x", "x"}, {'f', 0644, "first", "link"}, {'h', 0, "second", "first"},
    {'h', 0, "third", "first"},     {'f', 0644, "tofolder", "t"}, {'d', 0755, "tofile", NULL},
    {'f', 0644, "tofile/in", "i"},  {'d', 0755, "gone", NULL},    {'f', 0644, "gone/deep", "g"},
    {'f', 0644, "gone-not", "n"},   {0, 0, NULL, NULL},
};
static const Line upper[] = {
    {'f', 0644, "etc/a", "a2"},
    {'f', 0, "etc/.wh.b", ""},
    {'f', 0644, "data/new", "n"},
    {'f', 0, "data/.wh..wh..opq", ""},
    {'f', 0644, "first", "changed"},
    {'d', 0750, "tofolder", NULL},
    {'f', 0644, "tofolder/y", "y"},
    {'f', 0600, "tofile", "file"},
    {'f', 0, ".wh.gone", ""},
    {'h', 0, "across", "gone-not"},
    {0, 0, NULL, NULL},
};
static const Line *const both[] = {lower, upper, NULL};

static void test_apply(Fixture *f, gconstpointer data)
{
    g_autoptr(OciParent) parent = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *layout = path_in(f, "img"), *lines = NULL;

    write_index(f, "img", json_pack("[o]", write_image(f, "img", both)));
    (void)oci_import(f->store, OCI_DIR, layout, NULL, &parent, &error);
    g_assert_no_error(error);
    lines = tree_lines(f->store, parent);
    g_assert_cmpstr(lines, ==,
                    "d 755  \n"
                    "f 644 across n\n"
                    "d 700 data \n"
                    "f 644 data/new n\n"
                    "d 755 etc \n"
                    "f 644 etc/a a2\n"
                    "f 644 first changed\n"
                    "h 0 gone-not across\n"
                    "f 644 second link\n"
                    "h 0 third second\n"
                    "f 600 tofile file\n"
                    "d 750 tofolder \n"
                    "f 644 tofolder/y y\n");
}

static void test_choose(Fixture *f, gconstpointer data)
{
    static const Line one[] = {{'f', 0644, "one", "1"}, {0, 0, NULL, NULL}},
                      two[] = {{'f', 0644, "two", "2"}, {0, 0, NULL, NULL}};
    const Line *const first[] = {one, NULL}, *const second[] = {two, NULL};
    g_autofree char *layout = path_in(f, "img");
    json_t *a, *b, *index, *other;

    a = write_image(f, "img", first);
    b = write_image(f, "img", second);
    other = for_platform(json_deep_copy(a), "linux", "s390x");
    index =
        write_document(f, "img",
                       json_pack("{siso}", "schemaVersion", 2, "manifests",
                                 json_pack("[oo]", other, for_platform(json_deep_copy(b), "linux", "amd64"))),
                       "application/vnd.oci.image.index.v1+json");
    write_index(f, "img",
                json_pack("[oooo]", tagged(a, "a"), tagged(b, "b"), tagged(index, "multi"),
                          tagged(for_platform(json_deep_copy(a), "windows", "amd64"), "win")));
    for (int i = 0; i < 4; i++) {
        static const char *const tags[] = {NULL, "a", "b", "multi"}, *const want[] = {"one", "one", "two",
                                                                                      "two"};
        g_autoptr(OciParent) parent = NULL;
        g_autoptr(GError) error = NULL;
        g_autofree char *lines = NULL;

        (void)oci_import(f->store, OCI_DIR, layout, tags[i], &parent, &error);
        g_assert_no_error(error);
        lines = tree_lines(f->store, parent);
        g_assert_nonnull(strstr(lines, want[i]));
    }
    for (int i = 0; i < 2; i++) {
        g_autoptr(OciParent) parent = NULL;
        g_autoptr(GError) error = NULL;

        g_assert_false(oci_import(f->store, OCI_DIR, layout, i ? "win" : "absent", &parent, &error));
        g_assert_nonnull(error);
    }
}

/* --- refusals ------------------------------------------------------------------------- */

static void assert_refused(const Fixture *f, OciForm form, const char *name, const char *words)
{
    g_autofree char *path = path_in(f, name);
    g_autoptr(OciParent) parent = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_false(oci_import(f->store, form, path, NULL, &parent, &error));
    g_assert_nonnull(error);
    if (!strstr(error->message, words))
        g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, words));
}

static void test_damage(Fixture *f, gconstpointer data)
{
    json_t *manifest = write_image(f, "img", both);
    g_autofree char *blob = g_build_filename(
        f->dir, "img/blobs/sha256", json_string_value(json_object_get(manifest, "digest")) + 7, NULL);
    g_autofree char *text = NULL, *aside = path_in(f, "aside");

    write_index(f, "img", json_pack("[o]", manifest));
    g_assert_true(g_file_get_contents(blob, &text, NULL, NULL));
    g_assert_cmpint(rename(blob, aside), ==, 0);
    assert_refused(f, OCI_DIR, "img", "missing");
    g_assert_cmpint(symlink(aside, blob), ==, 0); /* right bytes, but somewhere else */
    assert_refused(f, OCI_DIR, "img", "cannot open");
    g_assert_cmpint(unlink(blob), ==, 0);
    text[3] ^= 1;
    g_assert_true(g_file_set_contents(blob, text, -1, NULL));
    assert_refused(f, OCI_DIR, "img", "digest");
}

static void test_layer_damage(Fixture *f, gconstpointer data)
{
    g_autoptr(GByteArray) tar = make_tar(upper);
    g_autofree char *path = NULL;
    char oci[DIGEST_OCI_SIZE];

    write_index(f, "img", json_pack("[o]", write_image(f, "img", both)));
    write_blob(f, "img", tar->data, tar->len, oci);
    path = g_build_filename(f->dir, "img/blobs/sha256", oci + 7, NULL);
    tar->data[600] ^= 1;
    g_assert_true(g_file_set_contents(path, (const char *)tar->data, tar->len, NULL));
    assert_refused(f, OCI_DIR, "img", "digest");
    g_assert_true(g_file_set_contents(path, (const char *)tar->data, tar->len - 512, NULL));
    assert_refused(f, OCI_DIR, "img", "as long");
}

static void test_tricks(Fixture *f, gconstpointer data)
{
    static const Line docker_members[] = {{'f', 0644, "manifest.json", "[]"}, {0, 0, NULL, NULL}};
    g_autoptr(GByteArray) tar = make_tar(docker_members);
    g_autofree char *docker = path_in(f, "docker.tar");
    static const char *const digests[] = {"sha256:../../../../etc/passwd", "sha256:00", "md5:00", "", "../x"};

    json_decref(write_image(f, "img", both));
    write_index(f, "img", json_array());
    assert_refused(f, OCI_DIR, "img", "no image");
    for (size_t i = 0; i < G_N_ELEMENTS(digests); i++) {
        write_index(f, "img",
                    json_pack("[{sssssi}]", "mediaType", "application/vnd.oci.image.manifest.v1+json",
                              "digest", digests[i], "size", 5));
        assert_refused(f, OCI_DIR, "img", "malformed");
    }
    assert_refused(f, OCI_DIR, "nowhere", "nowhere");
    assert_refused(f, OCI_ARCHIVE, "img", "oci:DIR");
    assert_refused(f, OCI_DIR, "img/index.json", "oci-archive:FILE");
    assert_refused(f, OCI_ARCHIVE, "img/index.json", "no tar archive");
    g_assert_true(g_file_set_contents(docker, (const char *)tar->data, tar->len, NULL));
    assert_refused(f, OCI_ARCHIVE, "docker.tar", "docker-archive");
}

/* --- out and in ---------------------------------------------------------------------------- */

static void make_image(Fixture *f, StoreImage **ret, char **ret_tree)
{
    static const Line root[] = {{'d', 0755, "", NULL},       {'d', 0755, "bin", NULL},
                                {'f', 0755, "bin/sh", "#!"}, {'h', 0, "bin/sh2", "bin/sh"},
                                {'l', 0777, "sh", "bin/sh"}, {0, 0, NULL, NULL}};
    const Line *const layers[] = {root, NULL};
    g_autofree char *layout = path_in(f, "seed");
    g_autoptr(OciParent) seed = NULL;
    g_autoptr(StoreWriter) writer = NULL, out = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(LayersResult) result = NULL;
    g_autoptr(StoreImage) image = store_image_new("oci", "web");
    g_autoptr(GError) error = NULL;
    MapResult map;

    write_index(f, "seed", json_pack("[o]", write_image(f, "seed", layers)));
    (void)(oci_import(f->store, OCI_DIR, layout, NULL, &seed, &error) &&
           store_writer_open(f->store, BLOCK_PUBLIC, &writer, &error) &&
           oci_parent_tree(f->store, writer, seed, &tree, &space, &error) &&
           store_writer_commit(writer, &error));
    g_assert_no_error(error);
    map_writer_result(space, &map);
    g_assert_true(store_map_open(f->store, &map.digest, &files, NULL));
    (void)(store_writer_open(f->store, BLOCK_PUBLIC, &out, &error) &&
           layers_build(f->store, out, &(LayersSpec){.tree = tree, .files = files}, &result, &error) &&
           store_writer_commit(out, &error) && layers_finish(f->store, result, image, &error));
    g_assert_no_error(error);
    *ret_tree = tree_lines(f->store, seed);
    *ret = g_steal_pointer(&image);
}

static void test_out_and_in(Fixture *f, gconstpointer data)
{
    g_autofree char *folder = path_in(f, "out"), *archive = path_in(f, "out.tar"),
                    *again = path_in(f, "again.tar"), *tree = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;
    Digest one, two;

    make_image(f, &image, &tree);
    for (int i = 0; i < 2; i++) /* the second time it replaces */
        (void)(oci_export(f->store, image, OCI_DIR, folder, "web", &error) &&
               oci_export(f->store, image, OCI_ARCHIVE, i ? again : archive, "web", &error));
    g_assert_no_error(error);
    g_assert_true(digest_of_file(AT_FDCWD, archive, &one, NULL, NULL) &&
                  digest_of_file(AT_FDCWD, again, &two, NULL, NULL));
    g_assert_true(digest_equal(&one, &two));
    for (int i = 0; i < 2; i++) {
        g_autoptr(OciParent) parent = NULL;
        g_autofree char *lines = NULL;

        (void)oci_import(f->store, i ? OCI_ARCHIVE : OCI_DIR, i ? archive : folder, "web", &parent, &error);
        g_assert_no_error(error);
        g_assert_true(digest_equal(&parent->manifest, &image->manifest));
        g_assert_true(digest_equal(&parent->config_digest, &image->id));
        lines = tree_lines(f->store, parent);
        g_assert_cmpstr(lines, ==, tree);
    }
}

static void test_foreign_folder(Fixture *f, gconstpointer data)
{
    g_autofree char *folder = path_in(f, "mine"), *file = path_in(f, "mine/precious"), *tree = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(GDir) dir = NULL;
    const char *name;

    make_image(f, &image, &tree);
    g_assert_true(file_make_dirs(folder, 0755, NULL));
    g_assert_true(g_file_set_contents(file, "x", 1, NULL));
    g_assert_false(oci_export(f->store, image, OCI_DIR, folder, NULL, &error));
    g_assert_nonnull(error);
    g_assert_cmpint(access(file, F_OK), ==, 0);
    dir = g_dir_open(f->dir, 0, NULL);
    while ((name = g_dir_read_name(dir))) /* nothing half-made stays */
        g_assert_null(strstr(name, ".kiln-"));
}

static void test_skopeo(Fixture *f, gconstpointer data)
{
    g_autofree char *archive = path_in(f, "out.tar"), *ref = g_strconcat("oci-archive:", archive, NULL),
                    *tree = NULL, *out = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;
    const char *argv[] = {"skopeo", "inspect", "--raw", ref, NULL};
    Digest digest;

    if (!process_have("skopeo")) {
        g_test_skip("skopeo is not installed");
        return;
    }
    make_image(f, &image, &tree);
    (void)(oci_export(f->store, image, OCI_ARCHIVE, archive, "web", &error) &&
           process_capture(argv, 1 << 20, &out, &error));
    g_assert_no_error(error);
    digest_of_string(g_strchomp(out), &digest);
    g_assert_true(digest_equal(&digest, &image->manifest));
}

/* Layers of ours come out of their recipes; the config keeps the bytes that the image ID is of. */
static void test_docker(Fixture *f, gconstpointer data)
{
    g_autofree char *archive = path_in(f, "docker.tar"), *again = path_in(f, "again.tar"), *tree = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GPtrArray) members = NULL;
    g_autoptr(GError) error = NULL;
    auto_fd int fd = -1;
    char hex[DIGEST_HEX_SIZE];
    Digest one, two;

    make_image(f, &image, &tree);
    (void)(docker_export(f->store, image, NULL, archive, &error) && docker_export(f->store, image, NULL, again, &error));
    g_assert_no_error(error);
    g_assert_true(digest_of_file(AT_FDCWD, archive, &one, NULL, NULL) && digest_of_file(AT_FDCWD, again, &two, NULL, NULL));
    g_assert_true(digest_equal(&one, &two));
    fd = open(archive, O_RDONLY | O_CLOEXEC);
    g_assert_true(tar_list(fd, 10, "docker.tar", &members, NULL));
    g_assert_cmpuint(members->len, ==, 2 + image->layers->len);
    for (guint i = 1; i < members->len; i++) { /* each is named by its digest */
        const TarMember *member = members->pdata[i];
        g_autofree uint8_t *bytes = g_malloc(member->size);

        g_assert_true(file_pread_full(fd, bytes, member->size, member->offset, "member", NULL));
        digest_of(bytes, member->size, &one);
        g_assert_true(g_str_has_prefix(member->name, digest_to_hex(&one, hex)));
        g_assert_true(i > 1 || digest_equal(&one, &image->id));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(path, fn) g_test_add(path, Fixture, NULL, store_fixture_setup, fn, store_fixture_teardown)
    CASE("/oci/layers-apply-as-in-a-container", test_apply);
    CASE("/oci/tag-and-platform-choose-the-image", test_choose);
    CASE("/oci/docker-archive-names-its-members-by-digest", test_docker);
    CASE("/oci/damaged-manifest-is-refused", test_damage);
    CASE("/oci/damaged-layer-is-refused", test_layer_damage);
    CASE("/oci/paths-lead-nowhere-else", test_tricks);
    CASE("/oci/what-goes-out-comes-in", test_out_and_in);
    CASE("/oci/foreign-folder-is-left-alone", test_foreign_folder);
    CASE("/oci/skopeo-reads-it", test_skopeo);
    return g_test_run();
}
