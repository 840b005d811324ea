/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both folders are fresh for every test and go with it.
 */
#include "provisioner-bench-support.h"

#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>

void bench_init(Bench *b, gconstpointer arg)
{
    b->fg = folder_guest_new(false);
    b->folder = g_dir_make_tmp("kiln-test-host-XXXXXX", NULL);
    g_assert_nonnull(b->folder);
    b->host = folder_guest_host(b->fg, b->folder);
    folder_guest_write(b->fg, "bin/sh", "");
    folder_guest_write(b->fg, "tmp/x", "");
}

void bench_clear(Bench *b, gconstpointer arg)
{
    (void)file_remove_tree(AT_FDCWD, b->folder, NULL);
    g_free(b->folder);
    folder_guest_free(b->fg);
}

void bench_write(Bench *b, const char *path, const char *text, mode_t mode)
{
    g_autofree char *full = g_build_filename(b->folder, path, NULL), *parent = g_path_get_dirname(full);

    g_assert_cmpint(g_mkdir_with_parents(parent, 0755), ==, 0);
    g_assert_true(g_file_set_contents(full, text, -1, NULL));
    g_assert_cmpint(chmod(full, mode), ==, 0);
}

json_t *bench_parse(const char *text)
{
    json_error_t e;
    json_t *value = json_loads(text, 0, &e);

    if (!value)
        g_error("%s: %s", text, e.text);
    return value;
}
