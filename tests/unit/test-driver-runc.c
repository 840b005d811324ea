/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers that really run: they answer HTTP on addresses of this host and on a bridge, their death is seen, what they wrote is told file by
 * file, a flipped bit starts none, and nothing is left behind.
 *
 * KILN_TEST_IMAGE names an image of the store KILN_STORE to run instead of the one made here; KILN_TEST_FLIPS says how many bits are flipped.
 */
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "base/scope.h"
#include "deploy/driver.h"
#include "deploy/firewall.h"
#include "tests/unit/oci-image-support.h"
#include "tests/unit/store-support.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SERVE "eval \"$FIRST\"; exec /bin/httpd -f -p $KILN_ADDRESS:$KILN_PORT -h /srv"

typedef struct Run {
    char *dir; /* of the driver */
    json_t *arguments;
    InstanceShape shape;
    Driver *driver;
} Run;

static StoreFixture fixture;
static Store *store; /* the fixture's, or the one that was named */
static StoreImage *image, *other;

/* --- helpers ------------------------------------------------------------------------------ */

static const char *cannot(void)
{
    const char *version[] = {"runc", "--version", NULL};

    if (geteuid() != 0)
        return "containers need root";
    if (!process_have("runc") || !process_capture(version, 65536, NULL, NULL))
        return "runc is not installed";
    return oci_image_busybox() ? NULL : "no static busybox is installed";
}

static void make_images(void)
{
    const char *name = g_getenv("KILN_TEST_IMAGE");
    g_autoptr(json_t) args = json_pack("{s:[s, s, s]}", "entrypoint", "/bin/sh", "-c", SERVE);
    g_autoptr(json_t) as_web = json_pack("{s:[s, s, s], s:s}", "entrypoint", "/bin/sh", "-c", SERVE, "user", "web");
    g_autoptr(GError) error = NULL;

    store_fixture_setup(&fixture, NULL);
    store = fixture.store;
    other = oci_image_make(store, "other", oci_image_busybox(), "other", as_web);
    if (!name) {
        image = oci_image_make(store, "web", oci_image_busybox(), "seed", args);
        return;
    }
    (void)(store_open(g_getenv("KILN_STORE"), 0, &store, &error) && store_resolve(store, name, "oci", &image, &error));
    g_assert_no_error(error);
}

static void drop_images(void)
{
    if (!fixture.store)
        return;
    store_image_free(image);
    store_image_free(other);
    if (store != fixture.store)
        store_close(store);
    store_fixture_teardown(&fixture, NULL);
}

static void open_driver(Run *run, Store *from)
{
    DriverConfig config = {.store = from, .group = "web", .arguments = run->arguments, .shape = &run->shape};
    g_autoptr(GError) error = NULL;

    (void)driver_find("runc", NULL)->open(&config, &run->driver, &error);
    g_assert_no_error(error);
}

static bool setup(Run *run)
{
    static unsigned count;
    const char *why = cannot();
    g_autoptr(GError) error = NULL;

    if (why) {
        g_test_skip(why);
        return false;
    }
    if (!image)
        make_images();
    *run = (Run){.dir = g_strdup_printf("%s/driver-%u", fixture.dir, ++count), .shape = {.memory = 64 << 20, .cpus = 1, .port = 8080}};
    run->arguments = json_pack("{s:s}", "state_dir", run->dir);
    open_driver(run, store);
    (void)run->driver->ops->prepare(run->driver, image, &error);
    g_assert_no_error(error);
    return true;
}

static GPtrArray *observe(const Run *run)
{
    g_autoptr(GError) error = NULL;
    GPtrArray *list = NULL;
    bool answers[1];

    (void)run->driver->ops->observe(run->driver, &list, answers, &error);
    g_assert_no_error(error);
    return list;
}

static void destroy_all(const Run *run, double grace)
{
    g_autoptr(GPtrArray) list = observe(run);
    GError *errors[16] = {NULL};
    g_autoptr(GError) error = NULL;

    (void)run->driver->ops->destroy(run->driver, (const DriverInstance *const *)list->pdata, list->len, grace, errors, &error);
    g_assert_no_error(error);
    for (guint i = 0; i < list->len; i++)
        g_assert_no_error(errors[i]);
}

static void assert_nothing_left(const Run *run)
{
    static const char *const folders[] = {"instances", "runc", NULL};
    const char *argv[] = {"ps", "axww", "-o", "args", NULL};
    g_autofree char *mounts = NULL, *processes = NULL;

    for (size_t i = 0; folders[i]; i++) {
        g_autofree char *path = g_build_filename(run->dir, folders[i], NULL);
        g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);

        g_assert_cmpstr(g_dir_read_name(dir), ==, NULL);
    }
    g_assert_true(g_file_get_contents("/proc/self/mountinfo", &mounts, NULL, NULL));
    g_assert_null(strstr(mounts, run->dir));
    g_assert_true(process_capture(argv, 16 << 20, &processes, NULL));
    g_assert_null(strstr(processes, run->dir));
}

static void teardown(Run *run)
{
    destroy_all(run, 0.05);
    assert_nothing_left(run);
    run->driver->ops->close(run->driver);
    json_decref(run->arguments);
    g_free(run->dir);
}

static bool create_of(const Run *run, const StoreImage *of, uint32_t slot, uint32_t attempt, const char *address, GError **error)
{
    DriverCreate create = {
        .id = {.group = "web", .revision = 1, .slot = slot, .attempt = attempt, .image = of->id, .epoch = 1},
        .address = address,
        .prefix_length = 24,
        .shape = &run->shape,
    };
    GError *problem = NULL;

    if (!run->driver->ops->create(run->driver, &create, 1, &problem, error))
        return false;
    if (problem)
        g_propagate_error(error, problem);
    return !problem;
}

static void create(const Run *run, uint32_t slot, const char *address)
{
    g_autoptr(GError) error = NULL;

    (void)create_of(run, image, slot, 1, address, &error);
    g_assert_no_error(error);
}

static int open_connection(const char *address, unsigned port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval limit = {2, 0};
    auto_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(inet_pton(AF_INET, address, &to.sin_addr), ==, 1);
    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), ==, 0);
    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), ==, 0);
    return connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? g_steal_fd(&fd) : -1;
}

/* Body of the answer, once it comes; within five seconds. */
static char *get(const char *address, unsigned port, const char *path)
{
    g_autofree char *request = g_strdup_printf("GET %s HTTP/1.0\r\n\r\n", path);
    char answer[8192];

    for (int i = 0; i < 100; i++, g_usleep(50000)) {
        auto_fd int fd = open_connection(address, port);
        size_t size = 0;

        if (fd < 0 || write(fd, request, strlen(request)) < 0)
            continue;
        if (file_read_upto(fd, answer, sizeof answer - 1, &size, "an answer", NULL) && size > 0) {
            answer[size] = '\0';
            return g_strdup(strstr(answer, "\r\n\r\n") ? strstr(answer, "\r\n\r\n") + 4 : answer);
        }
    }
    return NULL;
}

static void assert_answers(const char *address, unsigned port)
{
    g_autofree char *body = get(address, port, "/index.html");

    g_assert_cmpstr(body, ==, "hello\n");
}

/* Of the loopback device; others may run this test at the same time. */
static const char *local(unsigned last)
{
    static char texts[32][16];

    (void)g_snprintf(texts[last], sizeof texts[last], "127.78.%u.%u", (unsigned)getpid() % 250 + 1, last);
    return texts[last];
}

static const DriverInstance *nth(const GPtrArray *list, guint i)
{
    return g_ptr_array_index(list, i);
}

static pid_t pid_of(const Run *run, const char *name)
{
    g_autofree char *runtime_dir = g_build_filename(run->dir, "runc", NULL), *text = NULL;
    const char *argv[] = {"runc", "--root", runtime_dir, "state", name, NULL};
    g_autoptr(json_t) json = NULL;
    int64_t pid = 0;

    g_assert_true(process_capture(argv, 65536, &text, NULL));
    g_assert_true(json_parse(text, strlen(text), 65536, "state", &json, NULL) && json_get_int(json, "pid", 0, &pid, NULL));
    return (pid_t)pid;
}

/* --- runs --------------------------------------------------------------------------------- */

/* As on the host: name and a hash of the folder. */
static char *label_of(const Run *run, const char *name)
{
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    digest_of_string(run->dir, &digest);
    return g_strdup_printf("kiln-%s-%.8s", name, digest_to_hex(&digest, hex));
}

static void assert_limit(const Run *run, const char *name)
{
    g_autofree char *label = label_of(run, name), *path = g_strdup_printf("/sys/fs/cgroup/memory/%s/memory.limit_in_bytes", label), *text = NULL;

    if (g_file_get_contents(path, &text, NULL, NULL))
        g_assert_cmpint(atoi(text), ==, 64 << 20);
    else
        g_test_message("no memory limit to see here");
}

static void test_loopback(void)
{
    const char *addresses[] = {local(10), local(11), local(12)};
    g_autoptr(GPtrArray) list = NULL, after = NULL;
    Run run;

    if (!setup(&run))
        return;
    for (uint32_t i = 0; i < 3; i++)
        create(&run, i, addresses[i]);
    for (int i = 0; i < 3; i++)
        assert_answers(addresses[i], 8080);
    list = observe(&run);
    g_assert_cmpuint(list->len, ==, 3);
    for (guint i = 0; i < 3; i++) {
        g_autoptr(GError) error = NULL;
        unsigned flags = 0;

        g_assert_cmpstr(nth(list, i)->address, ==, addresses[i]);
        g_assert_cmpint(nth(list, i)->life, ==, LIFE_RUNNING);
        (void)run.driver->ops->attest(run.driver, nth(list, i), image, &run.shape, &flags, &error);
        g_assert_no_error(error);
        g_assert_cmpuint(flags, ==, PROVEN_METADATA | PROVEN_CHAIN | PROVEN_DIGEST | PROVEN_GUEST);
        assert_limit(&run, nth(list, i)->name);
    }
    g_assert_cmpint(kill(pid_of(&run, nth(list, 1)->name), SIGKILL), ==, 0);
    g_usleep(200000);
    after = observe(&run);
    g_assert_cmpuint(after->len, ==, 3);
    for (guint i = 0; i < 3; i++)
        g_assert_cmpint(nth(after, i)->life, ==, i == 1 ? LIFE_DEAD : LIFE_RUNNING);
    teardown(&run);
}

static void test_user(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *status = NULL, *path = NULL;
    Run run;

    if (!setup(&run))
        return;
    if (store != fixture.store) {
        g_test_skip("another store's image is run");
    } else {
        g_assert_true(run.driver->ops->prepare(run.driver, other, NULL));
        (void)create_of(&run, other, 0, 1, local(20), &error);
        g_assert_no_error(error);
        assert_answers(local(20), 8080);
        path = g_strdup_printf("/proc/%d/status", (int)pid_of(&run, "web-r1-0-a1"));
        g_assert_true(g_file_get_contents(path, &status, NULL, NULL));
        g_assert_nonnull(strstr(status, "Uid:\t1001\t1001\t1001\t1001"));
        g_assert_nonnull(strstr(status, "Gid:\t1002\t1002\t1002\t1002"));
        g_assert_nonnull(strstr(status, "CapEff:\t0000000000000000"));
        g_assert_nonnull(strstr(status, "NoNewPrivs:\t1"));
    }
    teardown(&run);
}

static bool run_command(const char *line)
{
    g_auto(GStrv) argv = g_strsplit(line, " ", -1);

    return process_capture((const char *const *)argv, 1 << 20, NULL, NULL);
}

/* In a network of this test's own, for good: the tests after this one use the loopback device only. */
static bool enter_network(void)
{
    if (!process_have("ip") || unshare(CLONE_NEWNET) < 0)
        return false;
    return run_command("ip link set lo up") && run_command("ip link add kilnbr type bridge") && run_command("ip addr add 10.98.0.1/24 dev kilnbr") &&
           run_command("ip link set kilnbr up");
}

static void test_bridge(void)
{
    static const char *const list[] = {"10.98.0.11-10.98.0.12/24", NULL}, *const allow[] = {"tcp/80", NULL};
    g_autoptr(GPtrArray) addresses = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    g_autofree char *path = NULL, *label = NULL, *route = NULL;
    Run run;

    if (!setup(&run))
        return;
    if (!enter_network()) {
        g_test_skip("needs ip and network name spaces");
        teardown(&run);
        return;
    }
    run.shape.bridge = (char *)"kilnbr";
    run.shape.gateway = (char *)"10.98.0.1";
    run.shape.addresses = (char **)list;
    run.shape.port = 80;
    create(&run, 0, "10.98.0.11");
    create(&run, 1, "10.98.0.12");
    assert_answers("10.98.0.11", 80);
    assert_answers("10.98.0.12", 80);
    label = label_of(&run, "web-r1-0-a1");
    route = g_strdup_printf("ip netns exec %s ip route get 192.0.2.1", label);
    g_assert_true(run_command(route));
    if (process_have("nft")) {
        g_ptr_array_add(addresses, (gpointer) "10.98.0.11");
        (void)firewall_apply("web", allow, addresses, &error);
        g_assert_no_error(error);
        assert_answers("10.98.0.11", 80);
        g_assert_true(firewall_remove("web", NULL));
    }
    destroy_all(&run, 0.05);
    path = g_build_filename("/run/netns", label, NULL);
    g_assert_cmpint(access(path, F_OK), <, 0);
    create(&run, 0, "10.98.0.11"); /* the same names again, at once */
    assert_answers("10.98.0.11", 80);
    teardown(&run);
}

static const char *change_of(const GPtrArray *changes, const char *path)
{
    for (guint i = 0; i < changes->len; i++)
        if (strcmp(((DriftEntry *)changes->pdata[i])->path, path) == 0)
            return ((DriftEntry *)changes->pdata[i])->what;
    return NULL;
}

static void test_changed_files(void)
{
    char *environment[] = {(char *)"FIRST=rm -r /etc/seed /srv/deep; mkdir /srv/deep; echo more >>/etc/group; echo x >/srv/new; echo said", NULL};
    g_autoptr(GPtrArray) list = NULL, changes = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *log = NULL, *text = NULL;
    Run run;

    if (!setup(&run))
        return;
    run.shape.environment = environment;
    create(&run, 0, local(10));
    assert_answers(local(10), 8080);
    list = observe(&run);
    (void)run.driver->ops->changed_files(run.driver, nth(list, 0), image, &changes, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(change_of(changes, "/etc/seed"), ==, "removed");
    g_assert_cmpstr(change_of(changes, "/etc/group"), ==, "changed");
    g_assert_cmpstr(change_of(changes, "/srv/new"), ==, "added");
    g_assert_cmpstr(change_of(changes, "/srv/deep/file"), ==, "removed");
    g_assert_cmpuint(changes->len, ==, 4);
    log = g_build_filename(run.dir, "instances", nth(list, 0)->name, "log", NULL);
    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "said\n");
    teardown(&run);
}

/* The container writes on, at the start of what was emptied. */
static void test_log_is_bounded(void)
{
    char *environment[] = {(char *)"FIRST=while [ ! -e /srv/go ]; do sleep 0.02; done; echo later", NULL};
    g_autofree char *log = NULL, *kept = NULL, *go = NULL, *filler = g_strnfill(9 << 20, 'x'), *text = NULL;
    g_autoptr(GPtrArray) list = NULL;
    struct stat st;
    Run run;

    if (!setup(&run))
        return;
    run.shape.environment = environment;
    create(&run, 0, local(10));
    log = g_build_filename(run.dir, "instances/web-r1-0-a1/log", NULL);
    kept = g_build_filename(run.dir, "instances/web-r1-0-a1/log.1", NULL);
    go = g_build_filename(run.dir, "instances/web-r1-0-a1/merged/srv/go", NULL);
    {
        auto_fd int fd = open(log, O_WRONLY | O_APPEND | O_CLOEXEC);

        g_assert_true(file_write_full(fd, filler, 9 << 20, "a log", NULL));
    }
    list = observe(&run);
    g_assert_cmpint(stat(log, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 0);
    g_assert_cmpint(stat(kept, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 1 << 20);
    g_assert_true(g_file_set_contents(go, "", 0, NULL));
    assert_answers(local(10), 8080);
    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "later\n");
    teardown(&run);
}

/* One bit of one file, its time put back; then as it was again. */
static void flip(const char *path, guint64 bit)
{
    auto_fd int fd = open(path, O_RDWR | O_CLOEXEC);
    struct timespec times[2];
    struct stat st;
    uint8_t byte;

    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpint(pread(fd, &byte, 1, (off_t)(bit / 8)), ==, 1);
    byte ^= (uint8_t)(1 << bit % 8);
    g_assert_cmpint(pwrite(fd, &byte, 1, (off_t)(bit / 8)), ==, 1);
    times[0] = st.st_atim;
    times[1] = st.st_mtim;
    g_assert_cmpint(futimens(fd, times), ==, 0);
}

static void test_flipped_bits(void)
{
    static const struct {
        const char *path;
        guint32 size;
    } files[] = {{"bin/busybox", 1 << 20}, {"etc/passwd", 30}, {"srv/index.html", 6}};
    const char *rounds = g_getenv("KILN_TEST_FLIPS");
    g_autoptr(GError) error = NULL;
    char hex[DIGEST_HEX_SIZE];
    Run run;

    if (!setup(&run))
        return;
    for (int i = rounds ? atoi(rounds) : 30; i > 0; i--) {
        guint which = g_test_rand_int_range(0, G_N_ELEMENTS(files));
        g_autofree char *path = g_build_filename(run.dir, "images", digest_to_hex(&image->id, hex), "rootfs", files[which].path, NULL);
        g_autofree char *name = g_strconcat("'/", files[which].path, "'", NULL);
        guint64 bit = (guint64)g_test_rand_int_range(0, (gint32)files[which].size * 8);

        flip(path, bit);
        g_assert_false(create_of(&run, image, 0, 1, local(10), &error));
        g_assert_nonnull(strstr(error->message, name));
        g_clear_error(&error);
        flip(path, bit);
    }
    (void)create_of(&run, image, 0, 1, local(10), &error);
    g_assert_no_error(error);
    teardown(&run);
}

/* The image is brought anew while an instance of the changed one runs: that one has its name, and is not believed. */
static void test_old_root_is_not_believed(void)
{
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *path = NULL;
    char hex[DIGEST_HEX_SIZE];
    unsigned flags;
    Run run;

    if (!setup(&run))
        return;
    create(&run, 0, local(10));
    path = g_build_filename(run.dir, "images", digest_to_hex(&image->id, hex), "rootfs/srv/index.html", NULL);
    flip(path, 3);
    g_assert_true(run.driver->ops->prepare(run.driver, image, NULL));
    list = observe(&run);
    g_assert_false(run.driver->ops->attest(run.driver, nth(list, 0), image, &run.shape, &flags, &error));
    g_assert_nonnull(error);
    teardown(&run);
}

/* What a controller that was killed between two steps leaves: each is taken up by create, and cleared by destroy. */
static void test_half_made(void)
{
    g_autofree char *dir = NULL, *merged = NULL, *runtime = NULL;
    Run run;

    if (!setup(&run))
        return;
    dir = g_build_filename(run.dir, "instances/web-r1-0-a1", NULL);
    merged = g_build_filename(dir, "merged", NULL);
    for (int step = 0; step < 3; step++) {
        g_autoptr(GPtrArray) list = NULL;

        g_assert_true(file_make_dirs(merged, 0755, NULL));
        if (step > 0)
            g_assert_cmpint(mount("tmpfs", merged, "tmpfs", 0, NULL), ==, 0);
        list = observe(&run);
        g_assert_cmpuint(list->len, ==, 1);
        g_assert_cmpint(nth(list, 0)->life, ==, LIFE_DEAD);
        if (step == 2) {
            create(&run, 0, local(10));
            assert_answers(local(10), 8080);
        }
        destroy_all(&run, 0.05);
        assert_nothing_left(&run);
    }
    teardown(&run);
}

/* Groups and name spaces of the host that have this run's label. */
static void assert_no_cgroup(const Run *run)
{
    g_autofree char *label = label_of(run, "web-r1-0-a1"), *unified = g_build_filename("/sys/fs/cgroup", label, NULL);
    g_autoptr(GDir) dir = g_dir_open("/sys/fs/cgroup", 0, NULL);
    const char *name;

    g_assert_cmpint(access(unified, F_OK), <, 0);
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename("/sys/fs/cgroup", name, label, NULL);

        g_assert_cmpint(access(path, F_OK), <, 0);
    }
}

/* Killed at any moment of a create, with the runtime that it started: the next one makes it whole or finds it, and all of it can be cleared. */
static void test_killed(void)
{
    const char *rounds = g_getenv("KILN_TEST_ROUNDS");
    Run run;

    if (!setup(&run))
        return;
    for (int i = rounds ? atoi(rounds) : 8; i > 0; i--) {
        gint32 delay = g_test_rand_int_range(0, 150000);
        g_autoptr(GPtrArray) list = NULL;
        pid_t pid = fork();

        if (pid == 0) {
            (void)create_of(&run, image, 0, 1, local(10), NULL);
            _exit(0);
        }
        g_usleep((gulong)delay);
        (void)kill(pid, SIGKILL);
        g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
        if (i % 2)
            create(&run, 0, local(10));
        list = observe(&run);
        g_assert_cmpuint(list->len, <=, 1);
        if (i % 2) {
            g_assert_cmpuint(list->len, ==, 1);
            g_assert_true(nth(list, 0)->life == LIFE_RUNNING || nth(list, 0)->life == LIFE_DEAD);
            g_assert_true(nth(list, 0)->known);
        }
        destroy_all(&run, 0);
        assert_nothing_left(&run);
        assert_no_cgroup(&run);
    }
    teardown(&run);
}

/* After a reboot there are folders and the runtime's records, and neither processes nor mounts. */
static void test_reboot(void)
{
    g_autoptr(GPtrArray) list = NULL;
    g_autofree char *merged = NULL;
    Run run;

    if (!setup(&run))
        return;
    create(&run, 0, local(10));
    g_assert_cmpint(kill(pid_of(&run, "web-r1-0-a1"), SIGKILL), ==, 0);
    g_usleep(200000);
    merged = g_build_filename(run.dir, "instances/web-r1-0-a1/merged", NULL);
    g_assert_cmpint(umount2(merged, MNT_DETACH), ==, 0);
    list = observe(&run);
    g_assert_cmpuint(list->len, ==, 1);
    g_assert_cmpint(nth(list, 0)->life, ==, LIFE_DEAD);
    g_assert_true(nth(list, 0)->known);
    teardown(&run);
}

/* A start that fails says why and leaves nothing. */
static void test_no_program(void)
{
    g_autoptr(json_t) args = json_pack("{s:[s]}", "entrypoint", "/bin/nothing");
    StoreImage *broken;
    g_autoptr(GError) error = NULL;
    Run run;

    if (!setup(&run))
        return;
    broken = oci_image_make(fixture.store, "broken", oci_image_busybox(), "broken", args);
    if (store == fixture.store) {
        g_assert_true(run.driver->ops->prepare(run.driver, broken, NULL));
        g_assert_false(create_of(&run, broken, 0, 1, local(10), &error));
        g_assert_nonnull(strstr(error->message, "/bin/nothing"));
        assert_nothing_left(&run);
    }
    store_image_free(broken);
    teardown(&run);
}

static void test_shapes(void)
{
    static const char *const list[] = {"127.0.0.1", NULL};
    InstanceShape ok = {.port = 80, .addresses = (char **)list}, no_address = {.port = 80}, bridge = {.bridge = (char *)"br0"},
                  agent = {.agent = true}, user_data = {.user_data = (char *)"x"};
    InstanceShape *const bad[] = {&no_address, &bridge, &agent, &user_data};
    g_autoptr(json_t) none = json_object(), odd = json_pack("{s:s}", "state_dir", "/a,b");
    const DriverOps *ops = driver_find("runc", NULL);
    const char *culprit = NULL;

    g_assert_true(ops->check(none, &ok, &culprit, NULL));
    g_assert_false(ops->check(odd, &ok, &culprit, NULL));
    g_assert_cmpstr(culprit, ==, "state_dir");
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_false(ops->check(none, bad[i], &culprit, &error));
        g_assert_nonnull(error);
    }
}

int main(int argc, char **argv)
{
    int result;

    log_set_level(LOG_QUIET);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/driver-runc/shapes-that-cannot-be-are-refused", test_shapes);
    g_test_add_func("/driver-runc/three-answer-on-addresses-of-this-host", test_loopback);
    g_test_add_func("/driver-runc/another-user-holds-nothing", test_user);
    g_test_add_func("/driver-runc/what-was-written-is-told", test_changed_files);
    g_test_add_func("/driver-runc/a-log-is-bounded", test_log_is_bounded);
    g_test_add_func("/driver-runc/a-flipped-bit-starts-none", test_flipped_bits);
    g_test_add_func("/driver-runc/an-old-root-is-not-believed", test_old_root_is_not_believed);
    g_test_add_func("/driver-runc/what-was-left-half-made-is-cleared", test_half_made);
    g_test_add_func("/driver-runc/a-killed-controller-leaves-what-can-be-cleared", test_killed);
    g_test_add_func("/driver-runc/after-a-reboot-all-are-dead", test_reboot);
    g_test_add_func("/driver-runc/a-start-that-fails-leaves-nothing", test_no_program);
    g_test_add_func("/driver-runc/two-answer-on-a-bridge", test_bridge);
    result = g_test_run();
    drop_images();
    return result;
}
