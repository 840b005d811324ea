/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store-support.h"

#include "base/file.h"

#include <fcntl.h>

void store_fixture_setup(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = NULL;

    g_assert_true(file_make_short_tmpdir(&f->dir, &error));
    path = g_build_filename(f->dir, "store", NULL);
    (void)store_open(path, STORE_OPEN_CREATE, &f->store, &error);
    g_assert_no_error(error);
}

void store_fixture_teardown(StoreFixture *f, gconstpointer data)
{
    store_close(f->store);
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
}
