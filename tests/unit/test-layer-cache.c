/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers kept for the next export: never more than the quota, the least recently used go first, wrong bytes are never given out, and nothing
 * that goes wrong with the cache is anybody's error.
 */
#include "base/file.h"
#include "base/scope.h"
#include "store/io.h"
#include "store/layer-cache.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

typedef StoreFixture Fixture;

#define SIZE 400000u

static void bytes_of(unsigned number, uint8_t bytes[SIZE], Digest *ret)
{
    test_noise(bytes, SIZE, number);
    digest_of(bytes, SIZE, ret);
}

static bool keep(Store *store, unsigned number)
{
    g_autofree uint8_t *bytes = g_malloc(SIZE);
    g_autoptr(LayerCacheEntry) entry = NULL;
    Digest digest;

    bytes_of(number, bytes, &digest);
    entry = layer_cache_begin(store, &digest, SIZE);
    layer_cache_put(entry, bytes, 1000);
    layer_cache_put(entry, bytes + 1000, SIZE - 1000);
    layer_cache_keep(entry);
    return entry != NULL;
}

static bool is_there(Store *store, unsigned number)
{
    g_autofree uint8_t *bytes = g_malloc(SIZE);
    auto_fd int fd = -1;
    Digest digest, have;

    bytes_of(number, bytes, &digest);
    if (!layer_cache_find(store, &digest, SIZE, &fd))
        return false;
    g_assert_true(digest_of_fd(fd, &have, NULL) && digest_equal(&have, &digest));
    return true;
}

static char *path_of(const Fixture *f, unsigned number)
{
    g_autofree uint8_t *bytes = g_malloc(SIZE);
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    bytes_of(number, bytes, &digest);
    return g_build_filename(f->dir, "store", "cache", digest_to_hex(&digest, hex), NULL);
}

static void test_used_last_stays(Fixture *f, gconstpointer data)
{
    store_set_layer_cache(f->store, 3 * SIZE);
    for (unsigned i = 1; i <= 3; i++) {
        g_assert_true(keep(f->store, i));
        g_usleep(2000);
    }
    g_assert_true(is_there(f->store, 1)); /* used again */
    g_usleep(2000);
    g_assert_true(keep(f->store, 4));
    g_assert_cmpuint(layer_cache_bytes(f->store), ==, 3 * SIZE);
    g_assert_true(is_there(f->store, 1) && !is_there(f->store, 2) && is_there(f->store, 3) && is_there(f->store, 4));
}

/* What is under way counts as much as what is there. */
static void test_quota_holds_for_what_is_written(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = g_malloc(SIZE);
    g_autoptr(LayerCacheEntry) a = NULL, b = NULL, again = NULL, none = NULL;
    Digest one, two, three;

    bytes_of(1, bytes, &one);
    bytes_of(2, bytes, &two);
    bytes_of(3, bytes, &three);
    store_set_layer_cache(f->store, 2 * SIZE + 1);
    a = layer_cache_begin(f->store, &one, SIZE);
    b = layer_cache_begin(f->store, &two, SIZE);
    again = layer_cache_begin(f->store, &one, SIZE);
    none = layer_cache_begin(f->store, &three, SIZE);
    g_assert_nonnull(a);
    g_assert_nonnull(b);
    g_assert_null(again); /* somebody writes it already */
    g_assert_null(none);  /* no room, and nothing that could go */
    g_clear_pointer(&a, layer_cache_entry_free);
    g_assert_true(keep(f->store, 3));
    g_assert_cmpuint(layer_cache_bytes(f->store), <=, 2 * SIZE + 1);
}

static void test_too_large_or_unfinished(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = g_malloc(SIZE);
    LayerCacheEntry *entry;
    Digest digest;

    bytes_of(1, bytes, &digest);
    store_set_layer_cache(f->store, SIZE - 1);
    g_assert_null(layer_cache_begin(f->store, &digest, SIZE));
    store_set_layer_cache(f->store, 0);
    g_assert_null(layer_cache_begin(f->store, &digest, SIZE));
    store_set_layer_cache(f->store, SIZE);
    entry = layer_cache_begin(f->store, &digest, SIZE);
    layer_cache_put(entry, bytes, SIZE - 1);
    layer_cache_keep(entry);
    layer_cache_entry_free(entry);
    g_assert_false(is_there(f->store, 1));
    entry = layer_cache_begin(f->store, &digest, SIZE);
    layer_cache_put(entry, bytes, SIZE);
    layer_cache_put(entry, bytes, 1);
    layer_cache_keep(entry);
    layer_cache_entry_free(entry);
    g_assert_false(is_there(f->store, 1));
    g_assert_cmpuint(layer_cache_bytes(f->store), ==, 0);
}

/* As a power cut may leave it: the right name, wrong bytes. */
static void test_wrong_bytes(Fixture *f, gconstpointer data)
{
    g_autofree char *path = path_of(f, 1);
    auto_fd int fd = -1;

    g_assert_true(keep(f->store, 1) && is_there(f->store, 1));
    fd = open(path, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(pwrite(fd, "\0", 1, SIZE / 2), ==, 1);
    g_assert_false(is_there(f->store, 1));
    g_assert_cmpint(access(path, F_OK), <, 0);
    g_assert_true(keep(f->store, 1) && is_there(f->store, 1));
    g_assert_cmpint(truncate(path, SIZE - 1), ==, 0);
    g_assert_false(is_there(f->store, 1));
}

static void test_dead_part_makes_way(Fixture *f, gconstpointer data)
{
    g_autofree char *whole = path_of(f, 1), *part = g_strconcat(whole, ".part-1-00000000", NULL);

    store_set_layer_cache(f->store, SIZE);
    g_assert_true(keep(f->store, 2));
    g_assert_true(g_file_set_contents(part, "half", 4, NULL)); /* without a lock: its process is gone */
    g_assert_true(keep(f->store, 1));
    g_assert_cmpint(access(part, F_OK), <, 0);
    g_assert_true(is_there(f->store, 1));
}

static bool only_second(const Digest *blob, void *arg)
{
    return digest_equal(blob, arg);
}

static void test_trim(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = g_malloc(SIZE);
    Digest two;

    bytes_of(2, bytes, &two);
    g_assert_true(keep(f->store, 1) && keep(f->store, 2) && keep(f->store, 3));
    g_assert_cmpuint(layer_cache_trim(f->store, only_second, &two), ==, 2 * SIZE);
    g_assert_true(!is_there(f->store, 1) && is_there(f->store, 2) && !is_there(f->store, 3));
    store_set_layer_cache(f->store, SIZE / 2);
    g_assert_cmpuint(layer_cache_trim(f->store, only_second, &two), ==, SIZE);
}

static void test_reading_only(Fixture *f, gconstpointer data)
{
    g_autofree char *path = g_strdup(store_path(f->store));
    g_autoptr(Store) reader = NULL;

    g_assert_true(keep(f->store, 1));
    reader = test_store_open(path, STORE_OPEN_READONLY);
    g_assert_true(is_there(reader, 1));
    g_assert_false(keep(reader, 2));
}

/* Several processes keep layers at the same time; whoever looks sees no more than the quota. */
static void test_parallel(Fixture *f, gconstpointer data)
{
    const uint64_t quota = 4 * SIZE;
    pid_t children[3];

    store_set_layer_cache(f->store, quota);
    for (unsigned c = 0; c < G_N_ELEMENTS(children); c++) {
        children[c] = fork();
        g_assert_cmpint(children[c], >=, 0);
        if (children[c] == 0) {
            for (unsigned i = 0; i < 12; i++)
                (void)keep(f->store, 10 + (c * 5 + i) % 9);
            _exit(0);
        }
    }
    for (unsigned left = G_N_ELEMENTS(children); left > 0;) {
        int status;

        g_assert_cmpuint(layer_cache_bytes(f->store), <=, quota);
        if (waitpid(-1, &status, WNOHANG) > 0) {
            g_assert_cmpint(status, ==, 0);
            left--;
        }
    }
    g_assert_cmpuint(layer_cache_bytes(f->store), >, 0);
}

#define ADD(name, fn) g_test_add("/layer-cache/" name, Fixture, NULL, store_fixture_setup, fn, store_fixture_teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("what-was-used-last-stays", test_used_last_stays);
    ADD("quota-holds-for-what-is-being-written", test_quota_holds_for_what_is_written);
    ADD("too-large-or-unfinished-is-not-kept", test_too_large_or_unfinished);
    ADD("wrong-bytes-are-removed", test_wrong_bytes);
    ADD("parts-of-the-dead-make-way", test_dead_part_makes_way);
    ADD("trimming-drops-what-nobody-wants", test_trim);
    ADD("reading-only", test_reading_only);
    ADD("parallel-writers-stay-below-the-quota", test_parallel);
    return g_test_run();
}
