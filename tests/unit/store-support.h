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

#endif
