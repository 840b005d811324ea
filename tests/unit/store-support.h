/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fresh store in a folder of its own, for the tests of what lives in stores.
 */
#ifndef KILN_TESTS_STORE_SUPPORT_H
#define KILN_TESTS_STORE_SUPPORT_H

#include "store/store.h"

typedef struct StoreFixture {
    char *dir;
    Store *store;
} StoreFixture;

void store_fixture_setup(StoreFixture *f, gconstpointer data);
void store_fixture_teardown(StoreFixture *f, gconstpointer data);

/* Opens, or ends the test. */
Store *test_store_open(const char *path, unsigned flags);

/* Bytes that do not compress and depend on @seed alone; @size a multiple of 8. */
void test_noise(uint8_t *bytes, size_t size, uint64_t seed);

/* Do to state.db, catalog.db what somebody with another program would do. */
void test_state_sql(const Store *store, const char *text);
void test_catalog_sql(const Store *store, const char *text);

#endif
