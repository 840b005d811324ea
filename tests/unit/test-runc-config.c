/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime's config out of an image's: what a container may do never depends on the image, names of users are the image's own, and configs that
 * nobody meant well give a sentence. Root file systems: written as the tree says, and every kind of change is told by its path.
 */
#include "base/file.h"
#include "base/log.h"
#include "base/scope.h"
#include "deploy/rootfs.h"
#include "deploy/runc-config.h"
#include "tests/unit/oci-image-support.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>

typedef struct Fixture {
    char *dir;
    int rootfd;
    InstanceShape shape;
    RuncSpec spec;
} Fixture;

static void put(const Fixture *f, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(f->dir, name, NULL);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void setup(Fixture *f, gconstpointer data)
{
    g_autofree char *etc = NULL;

    g_assert_true(file_make_short_tmpdir(&f->dir, NULL));
    etc = g_build_filename(f->dir, "etc", NULL);
    g_assert_true(file_make_dirs(etc, 0755, NULL));
    put(f, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:1001:1002:w:/srv:/bin/sh\nodd:x:-1:5::/:\n");
    put(f, "etc/group", "root:x:0:\nweb:x:1002:\nextra:x:1003:you,web\n");
    f->rootfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->shape = (InstanceShape){.memory = 64 << 20, .cpus = 2, .port = 80};
    f->spec = (RuncSpec){.rootfd = f->rootfd, .name = "web-r1-0-a1", .cgroup = "/kiln-x", .root = "/merged", .identity = "{}", .shape = &f->shape, .limits = true};
}

static void teardown(Fixture *f, gconstpointer data)
{
    (void)close(f->rootfd);
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
}

static json_t *parse(const char *text)
{
    json_t *json = NULL;
    g_autoptr(GError) error = NULL;

    (void)json_parse(text, strlen(text), 1 << 20, "test", &json, &error);
    g_assert_no_error(error);
    return json;
}

static bool make(Fixture *f, const char *image, json_t **ret, GError **error)
{
    g_autoptr(json_t) json = parse(image);

    *ret = NULL;
    f->spec.image = json;
    return runc_config_make(&f->spec, ret, error);
}

static char *text_at(const json_t *json, const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);

    for (char **part = parts; *part; part++)
        json = g_ascii_isdigit(**part) ? json_array_get(json, (size_t)atoi(*part)) : json_object_get(json, *part);
    return json ? json_canonical(json) : NULL;
}

static void assert_at(const json_t *json, const char *path, const char *expected)
{
    g_autofree char *text = text_at(json, path);

    g_assert_cmpstr(text, ==, expected);
}

static void test_usual(Fixture *f, gconstpointer data)
{
    g_autoptr(json_t) config = NULL;
    g_autoptr(GError) error = NULL;
    char *environment[] = {(char *)"A=group", (char *)"B=2", NULL};

    f->shape.environment = environment;
    f->spec.address = "127.0.0.9";
    (void)make(f, "{\"config\": {\"Entrypoint\": [\"/bin/x\", \"a\"], \"Cmd\": [\"b\"], \"Env\": [\"A=image\", \"PATH=/p\"], \"WorkingDir\": \"/srv\"}}", &config, &error);
    g_assert_no_error(error);
    assert_at(config, "process/args", "[\"/bin/x\",\"a\",\"b\"]");
    assert_at(config, "process/cwd", "\"/srv\"");
    assert_at(config, "process/env",
              "[\"PATH=/p\",\"HOME=/root\",\"HOSTNAME=web-r1-0-a1\",\"A=group\",\"B=2\",\"KILN_INSTANCE=web-r1-0-a1\",\"KILN_ADDRESS=127.0.0.9\",\"KILN_PORT=80\"]");
    assert_at(config, "process/noNewPrivileges", "true");
    assert_at(config, "process/user", "{\"additionalGids\":[],\"gid\":0,\"uid\":0,\"umask\":18}");
    assert_at(config, "linux/resources/memory", "{\"limit\":67108864}");
    assert_at(config, "linux/resources/cpu", "{\"period\":100000,\"quota\":200000}");
    assert_at(config, "annotations/org.kiln.instance", "\"{}\"");
}

static void assert_user(const Fixture *f, const char *text, uint32_t uid, uint32_t gid, guint groups, const char *home)
{
    g_auto(RuncUser) user = {.groups = NULL};
    g_autoptr(GError) error = NULL;

    (void)runc_user_find(f->rootfd, text, &user, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(user.uid, ==, uid);
    g_assert_cmpuint(user.gid, ==, gid);
    g_assert_cmpuint(user.groups->len, ==, groups);
    g_assert_cmpstr(user.home, ==, home);
}

static void test_users(Fixture *f, gconstpointer data)
{
    static const char *const unknown[] = {"nobody", "web:nogroup", "-1", "4294967295", "99999999999", "odd ", "../x", NULL};

    assert_user(f, "", 0, 0, 0, "/root");
    assert_user(f, "0:0", 0, 0, 0, "/root");
    assert_user(f, "web", 1001, 1002, 1, "/srv");
    assert_user(f, "1001", 1001, 1002, 1, "/srv");
    assert_user(f, "web:root", 1001, 0, 0, "/srv");
    assert_user(f, "web:77", 1001, 77, 0, "/srv");
    assert_user(f, "4242", 4242, 0, 0, "/");
    for (size_t i = 0; unknown[i]; i++) {
        g_auto(RuncUser) user = {.groups = NULL};
        g_autoptr(GError) error = NULL;

        g_assert_false(runc_user_find(f->rootfd, unknown[i], &user, &error));
        g_assert_nonnull(error);
    }
}

/* A link to the host's files must end inside. */
static void test_links_stay_inside(Fixture *f, gconstpointer data)
{
    g_autofree char *passwd = g_build_filename(f->dir, "etc/passwd", NULL);
    g_auto(RuncUser) user = {.groups = NULL};
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(unlink(passwd), ==, 0);
    g_assert_cmpint(symlink("/../../../../etc/passwd", passwd), ==, 0);
    g_assert_false(runc_user_find(f->rootfd, "daemon", &user, &error)); /* every host has one */
    g_assert_nonnull(error);
    g_assert_cmpint(unlink(passwd), ==, 0);
    g_assert_cmpint(mkfifo(passwd, 0644), ==, 0);
    g_clear_error(&error);
    g_assert_false(runc_user_find(f->rootfd, "web", &user, &error)); /* nor does it wait for a writer */
}

static void test_others_hold_nothing(Fixture *f, gconstpointer data)
{
    g_autoptr(json_t) config = NULL;

    g_assert_true(make(f, "{\"config\": {\"Cmd\": [\"x\"], \"User\": \"web\"}}", &config, NULL));
    assert_at(config, "process/capabilities/effective", "[\"CAP_NET_BIND_SERVICE\"]"); /* port 80 of the host's network */
    json_decref(config);
    f->spec.netns = "/run/netns/x";
    g_assert_true(make(f, "{\"config\": {\"Cmd\": [\"x\"], \"User\": \"web\"}}", &config, NULL));
    assert_at(config, "process/capabilities/effective", "[]");
    assert_at(config, "process/capabilities/ambient", "[]");
}

static void test_image_widens_nothing(Fixture *f, gconstpointer data)
{
    g_autoptr(json_t) plain = NULL, greedy = NULL;
    static const char *const parts[] = {"linux", "mounts", "process/capabilities", "process/noNewPrivileges", "root", NULL};

    g_assert_true(make(f, "{\"config\": {\"Cmd\": [\"x\"]}}", &plain, NULL));
    g_assert_true(make(f, "{\"linux\": {}, \"mounts\": [{\"source\": \"/\"}], \"config\": {\"Cmd\": [\"x\"], \"Privileged\": true, \"Volumes\": {\"/\": {}},"
                          " \"capabilities\": [\"CAP_SYS_ADMIN\"]}, \"root\": {\"path\": \"/\"}}",
                       &greedy, NULL));
    for (size_t i = 0; parts[i]; i++) {
        g_autofree char *a = text_at(plain, parts[i]), *b = text_at(greedy, parts[i]);

        g_assert_cmpstr(a, ==, b);
    }
}

static void test_hostile(Fixture *f, gconstpointer data)
{
    static const char *const images[] = {
        "[]",
        "{}",
        "{\"config\": null}",
        "{\"config\": []}",
        "{\"config\": {}}",
        "{\"config\": {\"Entrypoint\": []}}",
        "{\"config\": {\"Entrypoint\": [\"\"]}}",
        "{\"config\": {\"Entrypoint\": \"/bin/sh\"}}",
        "{\"config\": {\"Entrypoint\": [1]}}",
        "{\"config\": {\"Cmd\": {\"a\": 1}}}",
        "{\"config\": {\"Cmd\": [\"x\"], \"Env\": [null]}}",
        "{\"config\": {\"Cmd\": [\"x\"], \"Env\": \"A=1\"}}",
        "{\"config\": {\"Cmd\": [\"x\"], \"User\": 0}}",
        "{\"config\": {\"Cmd\": [\"x\"], \"User\": \"nobody\"}}",
        "{\"config\": {\"Cmd\": [\"x\"], \"WorkingDir\": \"srv\"}}",
        "{\"config\": {\"Cmd\": [\"x\"], \"WorkingDir\": [\"/\"]}}",
        NULL,
    };

    for (size_t i = 0; images[i]; i++) {
        g_autoptr(json_t) config = NULL;
        g_autoptr(GError) error = NULL;

        g_assert_false(make(f, images[i], &config, &error));
        g_assert_nonnull(error);
        g_assert_null(config);
    }
}

static void test_huge(Fixture *f, gconstpointer data)
{
    g_autofree char *word = g_strnfill(200000, 'x');
    g_autoptr(json_t) image = json_pack("{s:{s:[s]}}", "config", "Cmd", word), many = json_array(), config = NULL, image_many = NULL;
    g_autoptr(GError) error = NULL;

    f->spec.image = image;
    g_assert_false(runc_config_make(&f->spec, &config, &error));
    g_clear_error(&error);
    for (int i = 0; i < 5000; i++)
        json_array_append_new(many, json_string("A=1"));
    image_many = json_pack("{s:{s:[s], s:O}}", "config", "Cmd", "x", "Env", many);
    f->spec.image = image_many;
    g_assert_false(runc_config_make(&f->spec, &config, &error));
    g_assert_nonnull(error);
}

static void test_stop_signal(Fixture *f, gconstpointer data)
{
    static const struct {
        const char *image, *signal;
    } cases[] = {
        {"{}", "SIGTERM"},
        {"{\"config\": {\"StopSignal\": \"SIGQUIT\"}}", "SIGQUIT"},
        {"{\"config\": {\"StopSignal\": \"9\"}}", "9"},
        {"{\"config\": {\"StopSignal\": \"--all\"}}", "SIGTERM"},
        {"{\"config\": {\"StopSignal\": 9}}", "SIGTERM"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(json_t) image = parse(cases[i].image);

        g_assert_cmpstr(runc_stop_signal(image), ==, cases[i].signal);
    }
}

/* --- root file systems -------------------------------------------------------------------- */

typedef struct Root {
    StoreFixture store;
    StoreImage *image;
    char *dir;
    RootfsStamp *stamp;
} Root;

static bool root_setup(Root *r)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(json_t) args = json_pack("{s:[s]}", "cmd", "x");

    if (geteuid() != 0) {
        g_test_skip("owners need root");
        return false;
    }
    store_fixture_setup(&r->store, NULL);
    r->image = oci_image_make(r->store.store, "web", NULL, "seed", args);
    r->dir = g_build_filename(r->store.dir, "image", NULL);
    g_assert_true(file_make_dirs(r->dir, 0700, NULL));
    (void)(rootfs_write(r->store.store, r->image, r->dir, &error) && rootfs_stamp_load(r->dir, &r->image->id, &r->stamp, &error));
    g_assert_no_error(error);
    (void)rootfs_check(r->dir, r->stamp, &error);
    g_assert_no_error(error);
    return true;
}

static void root_teardown(Root *r)
{
    rootfs_stamp_free(r->stamp);
    store_image_free(r->image);
    store_fixture_teardown(&r->store, NULL);
    g_free(r->dir);
}

static void assert_told(const Root *r, const char *fragment)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(rootfs_check(r->dir, r->stamp, &error));
    g_assert_nonnull(strstr(error->message, fragment));
}

static char *inside(const Root *r, const char *path)
{
    return g_build_filename(r->dir, "rootfs", path, NULL);
}

static void test_rootfs_written(void)
{
    Root r = {.dir = NULL};
    const RootfsEntry *entry;
    g_autoptr(json_t) config = NULL;
    g_autofree char *text = NULL, *path = NULL, *config_path = NULL;
    struct stat st;

    if (!root_setup(&r))
        return;
    path = inside(&r, "etc/seed");
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "seed");
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mtime, ==, 1700000000);
    g_assert_cmpint(st.st_mode & 07777, ==, 0644);
    entry = rootfs_stamp_find(r.stamp, "etc/seed");
    g_assert_cmpint(entry->type, ==, 'f');
    g_assert_cmpuint(entry->size, ==, 4);
    g_assert_cmpuint(entry->inode, ==, st.st_ino);
    g_assert_true(rootfs_config(r.dir, &r.image->id, &config, NULL));
    config_path = g_build_filename(r.dir, "config.json", NULL);
    g_assert_true(g_file_set_contents(config_path, "{}", -1, NULL));
    g_clear_pointer(&config, json_decref);
    g_assert_false(rootfs_config(r.dir, &r.image->id, &config, NULL));
    root_teardown(&r);
}

/* Each change alone; what is put back as it was is no change. */
static void test_rootfs_changes(void)
{
    Root r = {.dir = NULL};
    g_autofree char *seed = NULL, *added = NULL, *deep = NULL;
    struct timespec then[2] = {{1700000000, 0}, {1700000000, 0}};
    g_autoptr(GError) error = NULL;
    struct stat st;
    int fd;

    if (!root_setup(&r))
        return;
    seed = inside(&r, "etc/seed");
    added = inside(&r, "srv/added");
    deep = inside(&r, "srv/deep/file");
    fd = open(seed, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(pwrite(fd, "S", 1, 0), ==, 1);
    g_assert_cmpint(futimens(fd, then), ==, 0); /* size and time are the old ones */
    assert_told(&r, "'/etc/seed' is not as the image has it: its content was changed");
    g_assert_cmpint(pwrite(fd, "s", 1, 0), ==, 1);
    (void)rootfs_check(r.dir, r.stamp, &error);
    g_assert_no_error(error);
    g_assert_cmpint(fchmod(fd, 04644), ==, 0);
    assert_told(&r, "'/etc/seed' is not as the image has it: its owner or mode");
    g_assert_cmpint(fchmod(fd, 0644), ==, 0);
    g_assert_cmpint(fsetxattr(fd, "security.capability", "\1\0\0\2\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20, 0), ==, 0);
    assert_told(&r, "'/etc/seed' is not as the image has it: its extended attributes");
    g_assert_cmpint(fremovexattr(fd, "security.capability"), ==, 0);
    (void)close(fd);
    g_assert_true(g_file_set_contents(added, "x", 1, NULL));
    assert_told(&r, "'/srv/added' is not as the image has it: it was added");
    g_assert_cmpint(unlink(added), ==, 0);
    (void)rootfs_check(r.dir, r.stamp, &error);
    g_assert_no_error(error);
    g_assert_cmpint(stat(deep, &st), ==, 0);
    g_assert_cmpint(unlink(deep), ==, 0);
    assert_told(&r, "'/srv/deep/file' is not as the image has it: it is gone");
    g_assert_cmpint(symlink("/etc/seed", deep), ==, 0);
    assert_told(&r, "'/srv/deep/file' is not as the image has it: it is of another type");
    root_teardown(&r);
}

static void test_rootfs_damaged_stamp(void)
{
    static const char *const texts[] = {"", "kiln-rootfs 1\n", "kiln-rootfs 1 sha256:0000000000000000000000000000000000000000000000000000000000000000\n", NULL};
    Root r = {.dir = NULL};
    g_autofree char *path = NULL, *text = NULL;
    gsize size;

    if (!root_setup(&r))
        return;
    path = g_build_filename(r.dir, "stamp", NULL);
    g_assert_true(g_file_get_contents(path, &text, &size, NULL));
    for (size_t i = 0; i < 200; i++) {
        RootfsStamp *stamp = NULL;
        gsize length = i < 3 ? strlen(texts[i]) : size - 1 - (i - 3) * 5;

        g_assert_true(g_file_set_contents(path, i < 3 ? texts[i] : text, (gssize)length, NULL));
        g_assert_false(rootfs_stamp_load(r.dir, &r.image->id, &stamp, NULL));
    }
    root_teardown(&r);
}

int main(int argc, char **argv)
{
    log_set_level(LOG_QUIET);
    g_test_init(&argc, &argv, NULL);
#define ADD(path, fn) g_test_add(path, Fixture, NULL, setup, fn, teardown)
    ADD("/runc-config/the-usual-image", test_usual);
    ADD("/runc-config/users-are-the-image's", test_users);
    ADD("/runc-config/links-stay-inside", test_links_stay_inside);
    ADD("/runc-config/others-than-root-hold-nothing", test_others_hold_nothing);
    ADD("/runc-config/the-image-widens-nothing", test_image_widens_nothing);
    ADD("/runc-config/hostile-configs-give-a-sentence", test_hostile);
    ADD("/runc-config/huge-configs-are-refused", test_huge);
    ADD("/runc-config/stop-signals", test_stop_signal);
    g_test_add_func("/rootfs/is-written-as-the-tree-says", test_rootfs_written);
    g_test_add_func("/rootfs/every-change-is-told", test_rootfs_changes);
    g_test_add_func("/rootfs/a-damaged-stamp-is-refused", test_rootfs_damaged_stamp);
    return g_test_run();
}
