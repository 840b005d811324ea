/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store-support.h"

#include "base/file.h"

#include <fcntl.h>
#include <sqlite3.h>

/* 64 MiB for each of thousands of stores would be too much. */
__attribute__((constructor)) static void no_reserve(void)
{
    g_setenv("KILN_RESERVE", "0", FALSE);
}

void store_fixture_setup(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = NULL;

    g_assert_true(file_make_short_tmpdir(&f->dir, &error));
    path = g_build_filename(f->dir, "store", NULL);
    f->store = test_store_open(path, STORE_OPEN_CREATE);
}

void store_fixture_teardown(StoreFixture *f, gconstpointer data)
{
    store_close(f->store);
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
}

Store *test_store_open(const char *path, unsigned flags)
{
    g_autoptr(GError) error = NULL;
    Store *store = NULL;

    store_open(path, flags, &store, &error);
    g_assert_no_error(error);
    return store;
}

void test_noise(uint8_t *bytes, size_t size, uint64_t seed)
{
    uint64_t x = 88172645463325252ull ^ (seed * 0x9E3779B97F4A7C15ull);

    for (size_t i = 0; i < size; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(bytes + i, &x, 8);
    }
}

static void run_sql(const Store *store, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(store_path(store), name, NULL);
    sqlite3 *db;

    g_assert_cmpint(sqlite3_open(path, &db), ==, SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    g_assert_cmpint(sqlite3_exec(db, text, NULL, NULL, NULL), ==, SQLITE_OK);
    sqlite3_close(db);
}

void test_state_sql(const Store *store, const char *text)
{
    run_sql(store, "state.db", text);
}

void test_catalog_sql(const Store *store, const char *text)
{
    run_sql(store, "catalog.db", text);
}
