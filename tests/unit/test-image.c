/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishing, references, removal, bake states and memos.
 */
#include "store/store.h"

#include "base/error.h"
#include "base/file.h"

#include <fcntl.h>
#include <unistd.h>

#define B STORE_BLOCK_SIZE

typedef struct Fixture {
    char *dir, *path;
    Store *store;
} Fixture;

static void set_up(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;

    f->dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    f->path = g_build_filename(f->dir, "store", NULL);
    store_open(f->path, STORE_OPEN_CREATE, &f->store, &error);
    g_assert_no_error(error);
}

static void assert_clean(Store *store)
{
    g_autoptr(GPtrArray) problems = NULL;
    g_autoptr(GError) error = NULL;

    store_fsck(store, true, &problems, &error);
    g_assert_no_error(error);
    for (guint i = 0; i < problems->len; i++)
        g_test_message("%s", (char *)problems->pdata[i]);
    g_assert_cmpuint(problems->len, ==, 0);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    assert_clean(f->store);
    store_close(f->store);
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
    g_free(f->path);
}

static void make_map(Store *store, BlockClass class, uint8_t seed, Digest *ret)
{
    g_autofree uint8_t *bytes = g_malloc(3 * B);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    MapResult result;

    for (size_t i = 0; i < 3 * B; i++)
        bytes[i] = (uint8_t)(seed + i % 251);
    g_assert_true(store_writer_open(store, class, &writer, NULL) && map_writer_new(writer, 3 * B, NULL, &map, NULL) &&
                  map_writer_write(map, 0, bytes, 3 * B, NULL) && map_writer_finish(map, NULL) && store_writer_commit(writer, NULL));
    map_writer_result(map, &result);
    *ret = result.digest;
}

static StoreImage *make_image(Store *store, const char *name, const char *kind, uint8_t seed)
{
    g_autofree char *config = g_strdup_printf("{\"kind\":\"%s\",\"seed\":%d}", kind, seed);
    StoreImage *image = store_image_new(kind, name);

    g_assert_true(store_blob_put(store, config, strlen(config), &image->id, NULL));
    g_assert_true(store_blob_put(store, kind, strlen(kind), &image->manifest, NULL));
    if (!strcmp(kind, "disk"))
        make_map(store, BLOCK_PUBLIC, seed, &image->map);
    image->size = 3 * B;
    image->new_bytes = 100;
    return image;
}

static void free_image(gpointer image)
{
    store_image_free(image);
}

/* A set of a disk and, when @both, a container image; @key may be NULL. */
static bool publish(Store *store, const char *name, uint8_t seed, bool both, const Digest *key, Digest *ret_disk, GError **error)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func(free_image);
    g_autoptr(json_t) provenance = json_pack("{s:s}", "host", "here");
    StoreSet set = { .name = name, .images = images, .provenance = provenance };

    if (key)
        set.key = *key;
    g_ptr_array_add(images, make_image(store, name, "disk", seed));
    if (both)
        g_ptr_array_add(images, make_image(store, name, "oci", seed));
    if (ret_disk)
        *ret_disk = ((StoreImage *)images->pdata[0])->id;
    return store_publish(store, &set, error);
}

static void assert_resolves(Store *store, const char *ref, const char *kind, const Digest *id)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;

    store_resolve(store, ref, kind, &image, &error);
    g_assert_no_error(error);
    g_assert_true(digest_equal(&image->id, id));
}

static void assert_refused(Store *store, const char *ref, const char *kind, int code, const char *says)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_false(store_resolve(store, ref, kind, &image, &error));
    g_assert_cmpint(error->code, ==, code);
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, says));
}

static void test_references(Fixture *f, gconstpointer data)
{
    char hex[DIGEST_HEX_SIZE], oci[DIGEST_OCI_SIZE];
    g_autofree char *prefix = NULL, *manifest = NULL;
    g_autoptr(StoreImage) image = NULL;
    Digest first, second;

    g_assert_true(publish(f->store, "web", 1, true, NULL, &first, NULL));
    g_assert_true(publish(f->store, "web", 2, true, NULL, &second, NULL));
    g_assert_true(publish(f->store, "db", 3, false, NULL, NULL, NULL));
    assert_resolves(f->store, "web/disk", NULL, &second);
    assert_resolves(f->store, "web", "disk", &second);
    assert_resolves(f->store, digest_to_oci(&first, oci), NULL, &first);
    assert_resolves(f->store, digest_to_hex(&first, hex), "disk", &first);
    prefix = g_strndup(hex, 12);
    assert_resolves(f->store, prefix, NULL, &first);
    g_assert_true(store_resolve(f->store, "web/oci", NULL, &image, NULL));
    manifest = g_strdup_printf("web/oci@%s", digest_to_oci(&image->manifest, oci));
    assert_resolves(f->store, manifest, NULL, &image->id);
    assert_refused(f->store, "web", NULL, KILN_ERROR_USAGE, "web/disk or web/oci");
    assert_refused(f->store, "wep/disk", NULL, KILN_ERROR_NOT_FOUND, "did you mean 'web'");
    assert_refused(f->store, "db", "oci", KILN_ERROR_NOT_FOUND, "'db' has no container image");
    assert_refused(f->store, digest_to_hex(&first, hex), "oci", KILN_ERROR_FAILED, "is a disk");
    assert_refused(f->store, "web/tape", NULL, KILN_ERROR_USAGE, "disk or oci");
    assert_refused(f->store, "sha256:12", NULL, KILN_ERROR_USAGE, "12 to 64");
    assert_refused(f->store, "000000000000", NULL, KILN_ERROR_NOT_FOUND, "no image");
    assert_refused(f->store, "Web", NULL, KILN_ERROR_USAGE, "lower-case");
}

static void test_names(Fixture *f, gconstpointer data)
{
    g_autofree char *longest = g_strnfill(128, 'a'), *longer = g_strnfill(129, 'z');
    static const char *const bad[] = { "", "Web", "-web", "we b", "we/b", "0123456789ab", "web:prod", "w\xc3\xa9" };

    longest[5] = 'x'; /* no hex digit */
    g_assert_true(store_name_check("web-1.0_x", NULL));
    g_assert_true(store_name_check("0123456789a", NULL));
    g_assert_true(store_name_check(longest, NULL));
    g_assert_false(store_name_check(longer, NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_false(store_name_check(bad[i], NULL));
}

static void test_again(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) all = NULL;
    Digest first, second;

    g_assert_true(publish(f->store, "web", 1, true, NULL, &first, NULL));
    g_assert_true(publish(f->store, "web", 2, true, NULL, &second, NULL));
    assert_resolves(f->store, "web/disk", NULL, &second);
    g_assert_true(publish(f->store, "web", 1, true, NULL, &first, NULL));
    assert_resolves(f->store, "web/disk", NULL, &first);
    g_assert_true(store_list_images(f->store, true, &all, NULL));
    g_assert_cmpuint(all->len, ==, 4);
    g_assert_true(digest_equal(&((StoreImage *)all->pdata[0])->id, &first));
}

static void test_key(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) set = NULL;
    g_autoptr(json_t) provenance = NULL;
    Digest key, other, id;

    digest_of("key", 3, &key);
    digest_of("other", 5, &other);
    g_assert_true(publish(f->store, "web", 1, true, &key, &id, NULL));
    g_assert_true(store_find_set_by_key(f->store, &other, "web", &set, NULL));
    g_assert_null(set);
    g_assert_true(store_find_set_by_key(f->store, &key, "db", &set, NULL));
    g_assert_null(set);
    g_assert_true(store_find_set_by_key(f->store, &key, "web", &set, NULL));
    g_assert_cmpuint(set->len, ==, 2);
    g_assert_true(digest_equal(&((StoreImage *)set->pdata[0])->id, &id));
    g_assert_true(store_image_provenance(f->store, set->pdata[0], &provenance, NULL));
    g_assert_cmpstr(json_string_value(json_object_get(provenance, "host")), ==, "here");
}

static void test_missing_parts(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func(free_image);
    g_autoptr(GPtrArray) all = NULL;
    g_autoptr(GError) error = NULL;
    StoreSet set = { .name = "web", .images = images };
    StoreImage *image = make_image(f->store, "web", "disk", 1);
    Digest map = image->map;

    g_ptr_array_add(images, image);
    image->map.bytes[3] ^= 1;
    g_assert_false(store_publish(f->store, &set, &error));
    g_assert_nonnull(strstr(error->message, "map"));
    make_map(f->store, BLOCK_PRIVATE, 77, &image->map);
    g_clear_error(&error);
    g_assert_false(store_publish(f->store, &set, &error));
    g_assert_nonnull(strstr(error->message, "private"));
    g_assert_true(store_list_images(f->store, true, &all, NULL));
    g_assert_cmpuint(all->len, ==, 0);
    image->map = map;
    g_assert_true(store_publish(f->store, &set, NULL));
}

static void test_remove(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) newest = NULL, one = NULL, last = NULL;
    g_autoptr(GPtrArray) named = NULL;
    g_autoptr(GError) error = NULL;
    Digest first, second;

    g_assert_true(publish(f->store, "web", 1, false, NULL, &first, NULL));
    g_assert_true(publish(f->store, "web", 2, false, NULL, &second, NULL));
    g_assert_true(store_resolve(f->store, "web", NULL, &newest, NULL));
    g_assert_true(store_remove_image(f->store, newest, &error));
    assert_resolves(f->store, "web", NULL, &first); /* the name falls back */
    g_assert_true(publish(f->store, "copy", 1, false, NULL, &first, NULL));
    g_assert_true(store_resolve(f->store, "web", NULL, &one, NULL));
    g_assert_cmpstr(one->name, ==, "web");
    g_assert_true(store_remove_image(f->store, one, &error)); /* "copy" has a record of its own */
    g_assert_no_error(error);
    g_assert_true(store_list_images(f->store, false, &named, NULL));
    g_assert_cmpuint(named->len, ==, 1);
    assert_resolves(f->store, "copy", NULL, &first);
}

static void test_state(Fixture *f, gconstpointer data)
{
    g_autoptr(StoreState) state = store_state_new(), got = NULL;
    g_autofree char *file = NULL;

    digest_of("k", 1, &state->key);
    digest_of("c", 1, &state->content);
    make_map(f->store, BLOCK_PRIVATE, 9, &state->map);
    state->info = g_strdup("{\"a\":1}");
    g_assert_true(store_state_get(f->store, &state->key, &got, NULL));
    g_assert_null(got);
    g_assert_true(store_state_put(f->store, state, NULL));
    g_assert_true(store_state_get(f->store, &state->key, &got, NULL));
    g_assert_cmpstr(got->info, ==, "{\"a\":1}");
    g_assert_true(digest_equal(&got->map, &state->map) && digest_is_none(&got->tree.tree));
    g_clear_pointer(&got, store_state_free);
    state->expires = 1000;
    g_assert_true(store_state_put(f->store, state, NULL));
    g_assert_true(store_state_get(f->store, &state->key, &got, NULL));
    g_assert_null(got); /* expired */
    state->expires = 0;
    state->tree.tree = state->key; /* a blob that is not there */
    g_assert_true(store_state_put(f->store, state, NULL));
    g_assert_true(store_state_get(f->store, &state->key, &got, NULL));
    g_assert_null(got);
}

static void test_memo(Fixture *f, gconstpointer data)
{
    g_autofree char *value = NULL;
    Digest blob;

    g_assert_true(store_memo_get(f->store, "url http://x", &value, NULL));
    g_assert_null(value);
    g_assert_true(store_blob_put(f->store, "body", 4, &blob, NULL));
    g_assert_true(store_memo_put(f->store, "url http://x", "etag", &blob, NULL, NULL));
    g_assert_true(store_memo_get(f->store, "url http://x", &value, NULL));
    g_assert_cmpstr(value, ==, "etag");
    g_free(g_steal_pointer(&value));
    blob.bytes[0] ^= 1;
    g_assert_true(store_memo_put(f->store, "url http://x", "etag", &blob, NULL, NULL));
    g_assert_true(store_memo_get(f->store, "url http://x", &value, NULL));
    g_assert_null(value); /* what it keeps is gone */
}

int main(int argc, char **argv)
{
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/image/" name, Fixture, NULL, set_up, fn, tear_down)
    ADD("references-find-it", test_references);
    ADD("names-are-checked", test_names);
    ADD("publishing-again-makes-newest", test_again);
    ADD("found-by-key", test_key);
    ADD("missing-parts-refuse-the-set", test_missing_parts);
    ADD("removal-moves-the-name", test_remove);
    ADD("state-comes-back-or-is-absent", test_state);
    ADD("memo-lives-with-what-it-keeps", test_memo);
    return g_test_run();
}
