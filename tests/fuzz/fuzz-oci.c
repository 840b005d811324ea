/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: index, manifest and config of an OCI layout that somebody hands over. The input has the three, with a NUL between; "@M", "@C", "@L" and "@D" stand for the
 * digests of manifest, config, the layer and its tar, "@m", "@c" and "@l" for the sizes, so that the documents can lead to each other. What is taken is applied and written out again.
 */
#include "tests/fuzz/fuzz-store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Store *store;
static uint8_t layer[2048]; /* an empty archive */

static void put_blob(const char *text, size_t size, Digest *ret)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *name = NULL;

    digest_of(text, size, ret);
    name = g_strdup_printf("layout/blobs/sha256/%s", digest_to_hex(ret, hex));
    fuzz_write(name, text, size);
}

static void replace(GString *text, const char *what, const Digest *digest, const char *number, size_t size)
{
    char oci[DIGEST_OCI_SIZE], digits[24];

    (void)g_snprintf(digits, sizeof(digits), "%zu", size);
    (void)g_string_replace(text, what, digest_to_oci(digest, oci), 64);
    (void)g_string_replace(text, number, digits, 64);
}

/* The next of the three, up to its NUL. */
static GString *take(const uint8_t **data, size_t *size)
{
    const uint8_t *end = memchr(*data, 0, *size);
    size_t n = end ? (size_t)(end - *data) : *size;
    GString *text = g_string_new_len((const char *)*data, (gssize)n);

    *data += n + (end != NULL);
    *size -= n + (end != NULL);
    return text;
}

static void lay_out(const uint8_t *data, size_t size)
{
    g_autoptr(GString) index = take(&data, &size), manifest = take(&data, &size), config = take(&data, &size);
    Digest digest;

    put_blob((const char *)layer, sizeof(layer), &digest);
    replace(config, "@D", &digest, "@d", sizeof(layer));
    replace(manifest, "@L", &digest, "@l", sizeof(layer));
    put_blob(config->str, config->len, &digest);
    replace(manifest, "@C", &digest, "@c", config->len);
    put_blob(manifest->str, manifest->len, &digest);
    replace(index, "@M", &digest, "@m", manifest->len);
    fuzz_write("layout/index.json", index->str, index->len);
}

static void apply(const OciParent *parent)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(MapWriter) space = NULL;

    if (store_writer_open(store, BLOCK_PUBLIC, &writer, NULL))
        (void)oci_parent_tree(store, writer, parent, &tree, &space, NULL);
}

static void write_out(const OciParent *parent)
{
    g_autoptr(StoreImage) image = store_image_new("oci", "fuzz");
    g_autofree char *path = fuzz_path("out.tar");

    image->id = parent->config_digest;
    image->manifest = parent->manifest;
    for (guint i = 0; i < parent->layers->len; i++) {
        const StoreLayerRef *one = parent->layers->pdata[i];

        store_image_add_layer(image, &one->blob, NULL);
    }
    (void)docker_export(store, image, NULL, path, NULL);
    (void)oci_export(store, image, OCI_ARCHIVE, path, NULL, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *path = fuzz_path("layout");
    g_autoptr(OciParent) parent = NULL;

    if (!store)
        store = fuzz_open("store", STORE_OPEN_CREATE);
    (void)file_remove_tree(AT_FDCWD, path, NULL);
    fuzz_write("layout/oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}", 30);
    lay_out(data, size);
    if (!oci_import(store, OCI_DIR, path, NULL, &parent, NULL))
        return 0;
    apply(parent);
    write_out(parent);
    return 0;
}
