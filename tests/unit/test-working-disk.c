/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The working disk with a real nbdkit, asked over NBD by a small client of
 * our own, against a buffer that gets the same requests.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/pool.h"
#include "store/working-disk.h"

#include <endian.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define B 4096
#define SIZE (500 * B)

/* --- a client --- */

enum { CMD_READ = 0, CMD_WRITE = 1, CMD_TRIM = 4, CMD_ZERO = 6 };

static void send_all(int fd, const void *data, size_t size)
{
    g_assert_true(file_write_full(fd, data, size, "nbd", NULL));
}

static void receive_all(int fd, void *data, size_t size)
{
    size_t got = 0;

    g_assert_true(file_read_upto(fd, data, size, &got, "nbd", NULL));
    g_assert_cmpuint(got, ==, size);
}

static int client_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpuint(strlen(path), <, sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

/* Newstyle handshake, the export without a name, no structured replies. */
static int client_open(const char *path, uint64_t *ret_size)
{
    struct __attribute__((packed)) {
        uint64_t magic, version;
        uint16_t flags;
    } hello;
    struct __attribute__((packed)) {
        uint32_t flags;
        uint64_t magic;
        uint32_t option, length;
    } want = {htobe32(3), htobe64(UINT64_C(0x49484156454F5054)), htobe32(1), 0};
    struct __attribute__((packed)) {
        uint64_t size;
        uint16_t flags;
    } export;
    int fd = client_connect(path);

    g_assert_cmpint(fd, >=, 0);
    receive_all(fd, &hello, sizeof(hello));
    send_all(fd, &want, sizeof(want));
    receive_all(fd, &export, sizeof(export));
    *ret_size = be64toh(export.size);
    return fd;
}

static uint32_t client_ask(int fd, uint16_t type, uint64_t offset, uint32_t size, void *data)
{
    struct __attribute__((packed)) {
        uint32_t magic;
        uint16_t flags, type;
        uint64_t cookie, offset;
        uint32_t size;
    } ask = {htobe32(0x25609513), 0, htobe16(type), 7, htobe64(offset), htobe32(size)};
    struct __attribute__((packed)) {
        uint32_t magic, error;
        uint64_t cookie;
    } reply;

    send_all(fd, &ask, sizeof(ask));
    if (type == CMD_WRITE)
        send_all(fd, data, size);
    receive_all(fd, &reply, sizeof(reply));
    g_assert_cmphex(be32toh(reply.magic), ==, 0x67446698);
    if (type == CMD_READ && reply.error == 0)
        receive_all(fd, data, size);
    return be32toh(reply.error);
}

/* --- a disk, its client and its model --- */

typedef struct Fixture {
    char *dir;
    Store *store;
    WorkingDisk *disk;
    int client;
    uint8_t *model;
    GRand *rand;
} Fixture;

static void attach(Fixture *f, const Digest *parent)
{
    g_autoptr(GError) error = NULL;
    uint64_t size;

    working_disk_open(f->store, parent, SIZE, &f->disk, &error);
    g_assert_no_error(error);
    f->client = client_open(working_disk_socket(f->disk), &size);
    g_assert_cmpuint(size, ==, SIZE);
}

static void detach(Fixture *f)
{
    if (f->client >= 0)
        (void)close(f->client);
    f->client = -1;
    g_clear_pointer(&f->disk, working_disk_close);
}

static void open_store(const char *dir, Store **ret)
{
    g_autoptr(GError) error = NULL;

    store_open(dir, STORE_OPEN_CREATE, ret, &error);
    g_assert_no_error(error);
}

static void set_up(Fixture *f, gconstpointer data)
{
    f->dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    open_store(f->dir, &f->store);
    f->model = g_malloc0(SIZE);
    f->rand = g_rand_new_with_seed(17);
    attach(f, &digest_none);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    detach(f);
    store_close(f->store);
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
    g_free(f->model);
    g_rand_free(f->rand);
}

static void put(Fixture *f, int byte, uint32_t size, uint64_t offset)
{
    g_autofree uint8_t *buf = g_malloc(size);

    /* No two blocks alike, or a mixed-up order would not show. */
    for (uint32_t i = 0; i < size; i++)
        buf[i] = (uint8_t)(byte + i / 7 + offset);
    memcpy(f->model + offset, buf, size);
    g_assert_cmpuint(client_ask(f->client, CMD_WRITE, offset, size, buf), ==, 0);
}

static void erase(Fixture *f, uint16_t how, uint32_t size, uint64_t offset)
{
    g_assert_cmpuint(client_ask(f->client, how, offset, size, NULL), ==, 0);
    if (how == CMD_TRIM) {
        uint64_t end = (offset + size) / B * B;

        offset = (offset + B - 1) / B * B;
        size = end > offset ? (uint32_t)(end - offset) : 0;
    }
    memset(f->model + offset, 0, size);
}

static void scribble(Fixture *f, int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t offset = (uint64_t)g_rand_int_range(f->rand, 0, SIZE - 1);
        uint32_t wish = (uint32_t)g_rand_int_range(f->rand, 1, 30 * B);
        uint32_t size = (uint32_t)MIN(wish, SIZE - offset);

        switch (g_rand_int_range(f->rand, 0, 4)) {
        case 0:
            erase(f, CMD_ZERO, size, offset);
            break;
        case 1:
            erase(f, CMD_TRIM, size, offset);
            break;
        default:
            put(f, g_rand_int_range(f->rand, 0, 256), size, offset);
        }
    }
}

static void compare(Fixture *f)
{
    g_autofree uint8_t *got = g_malloc(SIZE);

    g_assert_cmpuint(client_ask(f->client, CMD_READ, 0, SIZE, got), ==, 0);
    for (size_t i = 0; i < SIZE; i++)
        if (got[i] != f->model[i])
            g_error("byte %zu of block %zu is %02x, not %02x", i % B, i / B, got[i], f->model[i]);
}

static void seal(Fixture *f)
{
    g_autoptr(GError) error = NULL;

    working_disk_seal(f->disk, &error);
    g_assert_no_error(error);
}

static void capture(Fixture *f, Digest *ret)
{
    g_autoptr(GError) error = NULL;

    working_disk_capture(f->disk, ret, NULL, &error);
    g_assert_no_error(error);
}

static void map_equals(Fixture *f, const Digest *digest, const uint8_t *want)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(StoreMap) map = NULL;
    g_autofree uint8_t *got = g_malloc(SIZE);

    store_map_open(f->store, digest, &map, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(store_map_size(map), ==, SIZE);
    store_map_pread(map, got, SIZE, 0, &error);
    g_assert_no_error(error);
    g_assert_cmpmem(got, SIZE, want, SIZE);
}

/* --- promises --- */

static void captures_hold_what_was_sealed(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *sealed = NULL;
    Digest map;

    for (int round = 0; round < 4; round++) {
        scribble(f, 60);
        seal(f);
        sealed = g_memdup2(f->model, SIZE);
        scribble(f, 20); /* after the seal: not in the capture, still on the disk */
        compare(f);
        capture(f, &map);
        map_equals(f, &map, sealed);
        compare(f);
        g_clear_pointer(&sealed, g_free);
    }
}

static void a_captured_map_is_a_parent(Fixture *f, gconstpointer data)
{
    Digest map, again;

    scribble(f, 50);
    seal(f);
    capture(f, &map);
    detach(f);
    attach(f, &map);
    compare(f);
    scribble(f, 50);
    compare(f);
    seal(f);
    capture(f, &again);
    map_equals(f, &again, f->model);
}

static void nothing_dirty_is_the_parent(Fixture *f, gconstpointer data)
{
    uint64_t new_bytes = 1, dirty;
    Digest map, same;

    put(f, 1, 9 * B, 3 * B);
    seal(f);
    g_assert_true(working_disk_dirty_bytes(f->disk, &dirty));
    g_assert_cmpuint(dirty, ==, 9 * B);
    capture(f, &map);

    erase(f, CMD_TRIM, 100 * B, 200 * B); /* zero before, zero now */
    seal(f);
    g_assert_true(working_disk_capture(f->disk, &same, &new_bytes, NULL));
    g_assert_true(digest_equal(&map, &same));
    g_assert_cmpuint(new_bytes, ==, 0);
    g_assert_true(working_disk_capture(f->disk, &same, &new_bytes, NULL)); /* nothing sealed at all */
    g_assert_true(digest_equal(&map, &same));
    compare(f);
}

static void trimmed_parent_blocks_stay_zero(Fixture *f, gconstpointer data)
{
    Digest map;

    put(f, 5, 50 * B, 0);
    seal(f);
    capture(f, &map);
    erase(f, CMD_TRIM, 30 * B, 10 * B);
    compare(f);
    seal(f);
    compare(f);
    capture(f, &map);
    compare(f);
    map_equals(f, &map, f->model);
}

static void drop_forgets_since_the_seal(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *kept = NULL;
    Digest map;

    scribble(f, 30);
    seal(f);
    kept = g_memdup2(f->model, SIZE);
    scribble(f, 30);
    g_assert_true(working_disk_drop(f->disk, NULL));
    memcpy(f->model, kept, SIZE);
    compare(f);
    capture(f, &map);
    map_equals(f, &map, kept);
}

static void a_second_seal_needs_a_capture(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;

    put(f, 1, B, 0);
    seal(f);
    g_assert_false(working_disk_seal(f->disk, &error));
    g_assert_nonnull(strstr(error->message, "not captured"));
}

static gpointer capture_main(gpointer arg)
{
    Digest *map = g_new0(Digest, 1);

    capture(arg, map);
    return map;
}

static void captures_beside_a_writing_guest(Fixture *f, gconstpointer data)
{
    for (int round = 0; round < 5; round++) {
        g_autofree uint8_t *sealed = NULL;
        g_autofree Digest *map = NULL;
        GThread *thread;

        scribble(f, 40);
        seal(f);
        sealed = g_memdup2(f->model, SIZE);
        thread = g_thread_new("capture", capture_main, f);
        scribble(f, 60);
        map = g_thread_join(thread);
        map_equals(f, map, sealed);
        compare(f);
    }
}

static gpointer open_main(gpointer arg)
{
    attach(arg, &digest_none);
    return NULL;
}

static void outlives_the_thread_that_opened_it(Fixture *f, gconstpointer data)
{
    detach(f);
    (void)g_thread_join(g_thread_new("opener", open_main, f));
    g_usleep(100 * 1000);
    scribble(f, 10);
    compare(f);
}

static void a_missing_parent_is_an_error(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    WorkingDisk *disk = NULL;
    Digest nobody;

    digest_of_string("no such map", &nobody);
    g_assert_false(working_disk_open(f->store, &nobody, SIZE, &disk, &error));
    g_assert_null(disk);
    g_assert_nonnull(strstr(error->message, "open the working disk"));
}

/* --- ends --- */

static pid_t server_pid(const char *socket_path)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    auto_fd int fd = client_connect(socket_path);

    g_assert_cmpint(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size), ==, 0);
    return peer.pid;
}

/* A zombie has ended; who reaps it depends on the machine's init. */
static bool has_ended(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;

    return !g_file_get_contents(path, &text, NULL, NULL) || strstr(text, ") Z ") != NULL;
}

static bool ends_within(pid_t pid, double seconds)
{
    gint64 deadline = g_get_monotonic_time() + (gint64)(seconds * 1e6);

    while (!has_ended(pid) && g_get_monotonic_time() < deadline)
        g_usleep(10 * 1000);
    return has_ended(pid);
}

static void close_leaves_nothing(Fixture *f, gconstpointer data)
{
    g_autofree char *dir = g_path_get_dirname(working_disk_socket(f->disk));
    pid_t pid = server_pid(working_disk_socket(f->disk));

    scribble(f, 10);
    g_assert_false(has_ended(pid));
    detach(f);
    g_assert_true(has_ended(pid));
    g_assert_false(g_file_test(dir, G_FILE_TEST_EXISTS));
}

G_NORETURN static void doomed(const char *dir, int out)
{
    WorkingDisk *disk = NULL;
    Store *store = NULL;

    open_store(dir, &store);
    g_assert_true(working_disk_open(store, &digest_none, SIZE, &disk, NULL));
    (void)dprintf(out, "%s\n", working_disk_socket(disk));
    for (;;)
        (void)pause();
}

static void a_killed_kiln_leaves_nothing(void)
{
    g_autofree char *dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    g_autofree char *folder = NULL;
    char path[200] = "";
    int report[2];
    pid_t child, server;
    uint64_t size;
    auto_fd int client = -1;

    g_assert_cmpint(pipe2(report, O_CLOEXEC), ==, 0);
    child = fork();
    if (child == 0)
        doomed(dir, report[1]);
    g_assert_cmpint(read(report[0], path, sizeof(path) - 1), >, 0);
    g_strchomp(path);
    folder = g_path_get_dirname(path);
    server = server_pid(path);
    client = client_open(path, &size); /* a client that never goes away */

    g_assert_cmpint(kill(child, SIGKILL), ==, 0);
    g_assert_true(ends_within(server, 2.0));
    g_assert_false(g_file_test(folder, G_FILE_TEST_EXISTS));
    (void)waitpid(child, NULL, 0);
    (void)close(report[0]);
    (void)close(report[1]);
    g_assert_true(file_remove_tree(AT_FDCWD, dir, NULL));
}

#define ADD(path, fn) g_test_add("/working-disk/" path, Fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv)
{
    g_autofree char *above = g_path_get_dirname(file_program_dir());

    g_test_init(&argc, &argv, NULL);
    if (!process_have("nbdkit")) {
        g_print("1..0 # SKIP nbdkit is not installed\n");
        return 0;
    }
#ifdef __SANITIZE_ADDRESS__
    /* nbdkit is not built with the sanitizer and cannot load a plugin that is. */
    g_print("1..0 # SKIP nbdkit cannot load a plugin built with the address sanitizer\n");
    return 0;
#endif
    g_setenv("KILN_LIBEXEC_DIR", above, FALSE); /* the tests stand in a folder below the plugin */

    /* First, as it forks and there is no thread yet. */
    g_test_add_func("/working-disk/a-killed-kiln-leaves-nothing", a_killed_kiln_leaves_nothing);
    ADD("captures-hold-what-was-sealed", captures_hold_what_was_sealed);
    ADD("a-captured-map-is-a-parent", a_captured_map_is_a_parent);
    ADD("nothing-dirty-is-the-parent", nothing_dirty_is_the_parent);
    ADD("trimmed-parent-blocks-stay-zero", trimmed_parent_blocks_stay_zero);
    ADD("drop-forgets-since-the-seal", drop_forgets_since_the_seal);
    ADD("a-second-seal-needs-a-capture", a_second_seal_needs_a_capture);
    ADD("captures-beside-a-writing-guest", captures_beside_a_writing_guest);
    ADD("outlives-the-thread-that-opened-it", outlives_the_thread_that_opened_it);
    ADD("a-missing-parent-is-an-error", a_missing_parent_is_an_error);
    ADD("close-leaves-nothing", close_leaves_nothing);
    return g_test_run();
}
