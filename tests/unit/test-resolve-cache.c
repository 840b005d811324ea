/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of package indexes: what nobody used goes, what somebody uses stays.
 */
#include "baker/resolve.h"

#include "base/file.h"
#include "base/scope.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define DAY 86400.0

typedef struct Fixture {
    char *dir;
} Fixture;

static void set_up(Fixture *f, gconstpointer data)
{
    f->dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    g_setenv("KILN_CACHE", f->dir, TRUE);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
}

static char *path_of(Fixture *f, const char *name)
{
    return g_build_filename(f->dir, "apt", name, NULL);
}

/* As resolve-apt.c leaves one, last used @days ago. */
static void add_space(Fixture *f, const char *name, int days)
{
    g_autofree char *path = path_of(f, name), *lists = g_build_filename(path, "lists", NULL), *lock = g_build_filename(path, "lock", NULL);
    const struct timespec then[2] = {{.tv_sec = time(NULL) - days * (time_t)DAY}, {.tv_sec = time(NULL) - days * (time_t)DAY}};

    g_assert_true(file_make_dirs(lists, 0755, NULL) && g_file_set_contents(lock, "", 0, NULL));
    g_assert_cmpint(utimensat(AT_FDCWD, path, then, 0), ==, 0);
}

static bool is_there(Fixture *f, const char *name)
{
    g_autofree char *path = path_of(f, name);

    return g_file_test(path, G_FILE_TEST_EXISTS);
}

static uint64_t trim(bool dry_run)
{
    g_autoptr(GError) error = NULL;
    uint64_t count = 0;

    (void)resolve_cache_trim(30 * DAY, dry_run, &count, &error);
    g_assert_no_error(error);
    return count;
}

static void test_age(Fixture *f, gconstpointer data)
{
    g_assert_cmpuint(trim(false), ==, 0); /* no cache at all */
    add_space(f, "old", 31);
    add_space(f, "young", 29);
    add_space(f, "half.gone", 0);
    g_assert_cmpuint(trim(true), ==, 1);
    g_assert_true(is_there(f, "old") && is_there(f, "half.gone"));
    g_assert_cmpuint(trim(false), ==, 1);
    g_assert_false(is_there(f, "old") || is_there(f, "old.gone") || is_there(f, "half.gone"));
    g_assert_true(is_there(f, "young"));
}

static void test_in_use(Fixture *f, gconstpointer data)
{
    g_autofree char *lock = path_of(f, "used/lock");
    auto_fd int fd = -1;

    add_space(f, "used", 31);
    fd = open(lock, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(flock(fd, LOCK_EX), ==, 0);
    g_assert_cmpuint(trim(false), ==, 0);
    g_assert_true(is_there(f, "used"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add("/resolve-cache/what-nobody-used-goes", Fixture, NULL, set_up, test_age, tear_down);
    g_test_add("/resolve-cache/what-is-locked-stays", Fixture, NULL, set_up, test_in_use, tear_down);
    return g_test_run();
}
