/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that are full or fail, at every single call that an operation makes: publishing, removing and collecting, exporting, the recovery of what a
 * killed process left. Each time there is one sentence or success; what was published is whole, tmp/ is empty, fsck is content, and
 * the next one can work.
 *
 * An operation is run with its first, second, third ... call of a kind failing until none fails any more. KILN_TEST_POINTS takes every one of them.
 */
#include "tests/unit/scrub-support.h"
#include "tests/unit/store-support.h"

#include "base/error.h"
#include "base/file.h"
#include "store/io.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS_MAX 20000

typedef struct Fixture {
    char *dir, *base, *work, *out, *said;
} Fixture;

static void set_up(Fixture *f, gconstpointer data)
{
    g_autoptr(Store) store = NULL;

    f->dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    f->base = g_build_filename(f->dir, "base", NULL);
    f->work = g_build_filename(f->dir, "work", NULL);
    f->out = g_build_filename(f->dir, "out.raw", NULL);
    f->said = g_build_filename(f->dir, "said", NULL);
    store = test_store_open(f->base, STORE_OPEN_CREATE);
    scrub_publish(store, "web", 1);
    scrub_publish(store, "old", 2);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
    g_free(f->base);
    g_free(f->work);
    g_free(f->out);
    g_free(f->said);
}

/* --- operations; each in a child of its own --- */

static bool write_disk(Store *store, unsigned seed, Digest *ret, GError **error)
{
    g_autofree uint8_t *bytes = g_malloc(300 << 10);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    MapResult result;

    test_noise(bytes, 300 << 10, seed);
    if (!store_writer_open(store, BLOCK_PUBLIC, &writer, error) || !map_writer_new(writer, 300 << 10, NULL, &map, error) ||
        !map_writer_write(map, 0, bytes, 300 << 10, error) || !map_writer_finish(map, error) || !store_writer_commit(writer, error))
        return false;
    map_writer_result(map, &result);
    *ret = result.digest;
    return true;
}

static bool publish(Store *store, const char *name, unsigned seed, GError **error)
{
    g_autoptr(StoreImage) image = store_image_new("disk", name);
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    StoreSet set = {.name = name, .images = images};

    if (!write_disk(store, seed, &image->map, error) || !store_blob_put(store, name, strlen(name), &image->id, error))
        return false;
    image->size = 300 << 10;
    g_ptr_array_add(images, image);
    return store_publish(store, &set, error);
}

static bool op_publish(const Fixture *f, Store *store, GError **error)
{
    return publish(store, "fresh", 77, error);
}

static bool op_collect(const Fixture *f, Store *store, GError **error)
{
    StoreGcOptions options = {.grace = 0};
    g_autoptr(StoreImage) image = NULL;
    StoreGcReport report;

    return store_resolve(store, "old", "disk", &image, error) && store_remove_image(store, image, error) && store_gc(store, &options, &report, error);
}

static bool op_export(const Fixture *f, Store *store, GError **error)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(StoreMap) map = NULL;

    return store_resolve(store, "web", "disk", &image, error) && store_map_open(store, &image->map, &map, error) &&
           disk_export(map, DISK_RAW, f->out, error);
}

/* Opening is all: before it, a process was killed in the midst of publishing. */
static bool op_recover(const Fixture *f, Store *store, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;

    return store_list_images(store, true, &images, error);
}

typedef bool Operation(const Fixture *f, Store *store, GError **error);

static int run_operation(const Fixture *f, Operation *op, const char *fault)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) store = NULL;
    bool ok;

    g_setenv("KILN_TEST_FAIL", fault, TRUE);
    io_fault_reload();
    ok = store_open(f->work, 0, &store, &error) && op(f, store, &error);
    store_close(g_steal_pointer(&store));
    (void)g_file_set_contents(f->said, error ? error->message : "", -1, NULL);
    return ok ? 0 : 1;
}

static int in_child(const Fixture *f, Operation *op, const char *fault)
{
    pid_t child = fork();
    int status;

    if (child == 0)
        _exit(run_operation(f, op, fault));
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    return status;
}

/* --- what must hold afterwards --- */

static bool folder_is_empty(const char *store)
{
    g_autofree char *path = g_build_filename(store, "tmp", NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);

    return dir && !g_dir_read_name(dir);
}

/* One sentence, which says what was wrong and where. */
static bool is_clear(const char *said, const char *errno_text)
{
    return *said && !strchr(said, '\n') && strstr(said, errno_text) && (strstr(said, "store") || strstr(said, "out.raw"));
}

static char *check_store(const Fixture *f)
{
    g_auto(StoreFsckReport) report = {0};
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) store = NULL;
    StoreFsckOptions options = {.read_data = true};

    if (!store_open(f->work, 0, &store, &error) || !store_fsck_with(store, &options, &report, &error) ||
        !store_resolve(store, "web", "disk", &image, &error) || !publish(store, "next", 99, &error))
        return g_strdup(error->message);
    if (report.problems->len)
        return g_strdup(report.problems->pdata[0]);
    store_close(g_steal_pointer(&store));
    return folder_is_empty(f->work) ? NULL : g_strdup("tmp is not empty");
}

typedef struct Kind {
    const char *call, *error;
    const char *says; /* NULL: it must succeed */
} Kind;

static const Kind kinds[] = {
    {"pwrite", "ENOSPC", "No space left"}, {"pwrite", "EIO", "Input/output"},  {"pwrite", "SHORT", NULL},
    {"open", "ENOSPC", "No space left"},   {"open", "EIO", "Input/output"},    {"fdatasync", "EIO", "Input/output"},
    {"fsync", "EIO", "Input/output"},      {"rename", "ENOSPC", "No space left"}, {"mkdir", "ENOSPC", "No space left"},
    {"unlink", "EIO", "Input/output"},     {"truncate", "ENOSPC", "No space left"}, {"pread", "EIO", "Input/output"},
    {"pread", "SHORT", NULL},
};

/* False when there was no such call any more. */
static bool try_fault(const Fixture *f, const char *base, Operation *op, const Kind *kind, int n, bool once, int *wrong)
{
    g_autofree char *fault = g_strdup_printf("%s:%d:%s%s", kind->call, n, kind->error, once ? ":once" : ""), *said = NULL, *why = NULL;
    int status;

    scrub_copy(base, f->work);
    (void)unlink(f->out);
    status = in_child(f, op, fault);
    g_assert_true(g_file_get_contents(f->said, &said, NULL, NULL));
    if (!WIFEXITED(status) || WEXITSTATUS(status) > 1)
        why = g_strdup_printf("ended with status %x", status);
    else if (WEXITSTATUS(status) == 1 && (!kind->says || !is_clear(said, kind->says)))
        why = g_strdup_printf("said '%s'", said);
    else if (WEXITSTATUS(status) == 1 && access(f->out, F_OK) == 0)
        why = g_strdup("left half an export behind");
    if (!why)
        why = check_store(f);
    if (why && (*wrong)++ < 20)
        g_printerr("# %s: %s\n", fault, why);
    return WEXITSTATUS(status) != 0;
}

/* Some failures do no harm (of an unlink, of what is only kept to be quick): only many in a row mean that there are no more calls. */
static void try_all(const Fixture *f, const char *base, Operation *op)
{
    int step = g_getenv("KILN_TEST_POINTS") ? 1 : 17, wrong = 0, runs = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(kinds) * 2; i += step > 1 ? 3 : 1) {
        const Kind *kind = &kinds[i / 2];

        for (int n = step > 1 ? 1 + (int)i % 5 : 1, harmless = 0; n < CALLS_MAX && harmless < 12; n += n < 150 ? step : step * 11, runs++)
            harmless = try_fault(f, base, op, kind, n, i % 2, &wrong) ? 0 : harmless + step;
    }
    g_test_message("%d runs with a fault", runs);
    g_assert_cmpint(wrong, ==, 0);
}

static void test_publish(Fixture *f, gconstpointer data)
{
    try_all(f, f->base, op_publish);
}

static void test_collect(Fixture *f, gconstpointer data)
{
    try_all(f, f->base, op_collect);
}

static void test_export(Fixture *f, gconstpointer data)
{
    try_all(f, f->base, op_export);
}

static void test_recover(Fixture *f, gconstpointer data)
{
    g_autofree char *killed = g_build_filename(f->dir, "killed", NULL);

    for (int n = 1; n <= (g_getenv("KILN_TEST_POINTS") ? 6 : 2); n++) {
        g_autofree char *fault = g_strdup_printf("rename:%d:KILL", n);

        scrub_copy(f->base, f->work);
        g_assert_true(WIFSIGNALED(in_child(f, op_publish, fault)));
        scrub_copy(f->work, killed);
        try_all(f, killed, op_recover);
    }
}

int main(int argc, char **argv)
{
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_test_init(&argc, &argv, NULL);
    g_log_set_always_fatal(0); /* warnings of a disk that fails are part of it */
#define ADD(name, fn) g_test_add("/faults/" name, Fixture, NULL, set_up, fn, tear_down)
    ADD("publish", test_publish);
    ADD("remove-and-collect", test_collect);
    ADD("export", test_export);
    ADD("recovery", test_recover);
    return g_test_run();
}
