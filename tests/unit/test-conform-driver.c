/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The promises of deploy/driver.h, asked of every driver in the table. A driver takes part by a Bench: how to open it here, where its
 * images come from, and how somebody who can write to its host would cheat. One that cannot run on this machine is skipped and says why.
 */
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "base/scope.h"
#include "deploy/driver.h"
#include "tests/unit/disk-image-support.h"
#include "tests/unit/oci-image-support.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

typedef struct Bench Bench;

/* Images are made once per driver: that takes longer than all that is done with them. */
static StoreFixture store;
static const Bench *store_of;
static StoreImage *images[2];

typedef struct World {
    const Bench *bench;
    const DriverOps *ops;
    json_t *arguments;
    InstanceShape shape;
    Driver *driver;
    char *dir; /* of the driver */
} World;

struct Bench {
    const char *driver;
    const char *(*skip)(void); /* NULL: it can run here */
    json_t *(*arguments)(const World *world);
    StoreImage *(*image)(World *world, unsigned which);
    void (*shape)(World *world); /* may be absent */
    void (*edit_identity)(const World *world, const DriverInstance *instance);
    void (*touch_image)(const World *world, const StoreImage *image); /* one changed bit in what is on the host */
    void (*kill)(const World *world, const DriverInstance *instance);
    void (*assert_clean)(const World *world); /* after everything was destroyed and forgotten */
    const char *const *addresses; /* two of them, for instances that get one */
};

/* --- world -------------------------------------------------------------------------------- */

static void open_driver(World *world)
{
    g_autoptr(GError) error = NULL;
    DriverConfig config = {.store = store.store, .group = "web", .arguments = world->arguments, .shape = &world->shape};

    (void)world->ops->open(&config, &world->driver, &error);
    g_assert_no_error(error);
}

static void reopen_driver(World *world)
{
    world->ops->close(g_steal_pointer(&world->driver));
    open_driver(world);
}

static void empty_store(void)
{
    if (!store_of)
        return;
    for (int i = 0; i < 2; i++)
        store_image_free(images[i]);
    store_fixture_teardown(&store, NULL);
    store_of = NULL;
}

static void fill_store(World *world)
{
    empty_store();
    store_fixture_setup(&store, NULL);
    store_of = world->bench;
    for (unsigned i = 0; i < 2; i++)
        images[i] = world->bench->image(world, i);
}

static bool setup(World *world, const Bench *bench)
{
    static unsigned count;
    const char *why = bench->skip ? bench->skip() : NULL;

    if (why) {
        g_test_skip(why);
        return false;
    }
    *world = (World){.bench = bench, .ops = driver_find(bench->driver, NULL)};
    if (store_of != bench)
        fill_store(world);
    world->dir = g_strdup_printf("%s/driver-%u", store.dir, ++count);
    world->shape = (InstanceShape){.memory = 64 << 20, .cpus = 1};
    if (bench->shape)
        bench->shape(world);
    world->arguments = bench->arguments(world);
    open_driver(world);
    return true;
}

static void destroy_all(World *world)
{
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(GError) error = NULL;
    bool answers[64];
    GError *errors[64] = {NULL};

    (void)world->ops->observe(world->driver, &list, answers, &error);
    g_assert_no_error(error);
    (void)world->ops->destroy(world->driver, (const DriverInstance *const *)list->pdata, list->len, 0.05, errors, &error);
    g_assert_no_error(error);
    for (guint i = 0; i < list->len; i++)
        g_assert_no_error(errors[i]);
}

static void teardown(World *world)
{
    g_autoptr(GError) error = NULL;

    destroy_all(world);
    (void)world->ops->forget(world->driver, NULL, &error);
    g_assert_no_error(error);
    if (world->ops->destroy_volumes)
        g_assert_true(world->ops->destroy_volumes(world->driver, NULL));
    if (world->bench->assert_clean)
        world->bench->assert_clean(world);
    world->ops->close(world->driver);
    json_decref(world->arguments);
    g_free(world->dir);
}

static void prepare(World *world, unsigned which)
{
    g_autoptr(GError) error = NULL;

    (void)world->ops->prepare(world->driver, images[which], &error);
    g_assert_no_error(error);
}

static DriverCreate new_create(const World *world, uint32_t revision, uint32_t slot, uint32_t attempt, unsigned which)
{
    DriverCreate create = {
        .id = {.group = "web", .revision = revision, .slot = slot, .attempt = attempt, .image = images[which]->id, .epoch = 7},
        .shape = &world->shape,
    };

    if (world->bench->addresses) {
        create.address = world->bench->addresses[slot % 2];
        create.prefix_length = 24;
    }
    return create;
}

static bool create_one(World *world, const DriverCreate *create, GError **error)
{
    GError *problem = NULL;

    if (!world->ops->create(world->driver, create, 1, &problem, error))
        return false;
    if (problem)
        g_propagate_error(error, problem);
    return !problem;
}

static void create(World *world, uint32_t slot, unsigned which)
{
    DriverCreate create = new_create(world, 1, slot, 1, which);
    g_autoptr(GError) error = NULL;

    (void)create_one(world, &create, &error);
    g_assert_no_error(error);
}

static GPtrArray *observe(World *world)
{
    g_autoptr(GError) error = NULL;
    GPtrArray *list = NULL;
    bool answers[64] = {false};

    (void)world->ops->observe(world->driver, &list, answers, &error);
    g_assert_no_error(error);
    for (unsigned i = 0; i < world->ops->host_count(world->driver); i++)
        g_assert_true(answers[i]);
    return list;
}

/* The only instance, once its life is @life; within ten seconds. */
static GPtrArray *wait_for(World *world, Life life)
{
    for (int i = 0;; i++) {
        GPtrArray *list = observe(world);

        g_assert_cmpuint(list->len, ==, 1);
        if (((DriverInstance *)list->pdata[0])->life == life)
            return list;
        g_assert_cmpint(i, <, 500);
        g_ptr_array_unref(list);
        g_usleep(20000);
    }
}

static void destroy(World *world, const DriverInstance *instance)
{
    g_autoptr(GError) error = NULL;
    GError *problem = NULL;

    (void)world->ops->destroy(world->driver, &instance, 1, 0.05, &problem, &error);
    g_assert_no_error(error);
    g_assert_no_error(problem);
}

#define WORLD(world)                                                                                                                                 \
    World world;                                                                                                                                     \
    if (!setup(&world, data))                                                                                                                        \
    return

/* --- promises ----------------------------------------------------------------------------- */

static void test_arguments(gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(json_t) wrong = NULL;
    const char *culprit = NULL;
    WORLD(world);

    g_assert_true(world.ops->check(world.arguments, &world.shape, &culprit, &error));
    g_assert_no_error(error);
    wrong = json_deep_copy(world.arguments);
    json_object_set_new(wrong, "no_such_argument", json_true());
    g_assert_false(world.ops->check(wrong, &world.shape, &culprit, &error));
    g_assert_cmpstr(culprit, ==, "no_such_argument");
    g_assert_nonnull(error);
    g_assert_cmpuint(world.ops->host_count(world.driver), >=, 1);
    g_assert_nonnull(world.ops->host_name(world.driver, 0));
    teardown(&world);
}

static void test_prepare(gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    unsigned counts[64] = {2};
    DriverNeeds needs[64] = {{0}};
    StoreImage *wrong = store_image_new("odd", "odd");
    WORLD(world);

    g_assert_true(world.ops->needs(world.driver, images[0], &world.shape, counts, needs, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(needs[0].bytes_to_move, >, 0);
    prepare(&world, 0);
    prepare(&world, 0);
    g_assert_true(world.ops->needs(world.driver, images[0], &world.shape, counts, needs, &error));
    g_assert_cmpuint(needs[0].bytes_to_move, ==, 0);
    g_assert_false(world.ops->prepare(world.driver, wrong, &error));
    g_assert_nonnull(error);
    store_image_free(wrong);
    teardown(&world);
}

static void test_identity(gconstpointer data)
{
    DriverCreate wanted;
    g_autoptr(GPtrArray) list = NULL;
    const DriverInstance *instance;
    char name[96];
    WORLD(world);

    prepare(&world, 0);
    create(&world, 3, 0);
    reopen_driver(&world); /* nothing of it lives in the driver's memory */
    list = wait_for(&world, LIFE_RUNNING);
    instance = list->pdata[0];
    wanted = new_create(&world, 1, 3, 1, 0);
    instance_name(&wanted.id, name);
    g_assert_true(instance->known);
    g_assert_cmpstr(instance->name, ==, name);
    g_assert_cmpstr(instance->id.group, ==, "web");
    g_assert_cmpuint(instance->id.revision, ==, 1);
    g_assert_cmpuint(instance->id.slot, ==, 3);
    g_assert_cmpuint(instance->id.attempt, ==, 1);
    g_assert_true(digest_equal(&instance->id.image, &images[0]->id));
    g_assert_cmpint(instance->id.epoch, ==, 7);
    g_assert_cmpint(instance->host, ==, 0);
    g_assert_null(instance->drift);
    g_assert_cmpint(ABS(instance->started - g_get_real_time() / G_USEC_PER_SEC), <, 60);
    if (wanted.address)
        g_assert_cmpstr(instance->address, ==, wanted.address);
    teardown(&world);
}

static void test_create_twice(gconstpointer data)
{
    DriverCreate again;
    g_autoptr(GPtrArray) first = NULL, second = NULL;
    g_autoptr(GError) error = NULL;
    WORLD(world);

    prepare(&world, 0);
    prepare(&world, 1);
    create(&world, 0, 0);
    first = wait_for(&world, LIFE_RUNNING);
    create(&world, 0, 0);
    again = new_create(&world, 1, 0, 1, 0);
    again.id.epoch = 8; /* a later controller asks for the same instance */
    g_assert_true(create_one(&world, &again, &error));
    g_assert_no_error(error);
    second = observe(&world);
    g_assert_cmpuint(second->len, ==, 1);
    g_assert_cmpint(((DriverInstance *)second->pdata[0])->started, ==, ((DriverInstance *)first->pdata[0])->started);
    g_assert_cmpint(((DriverInstance *)second->pdata[0])->id.epoch, ==, 7);
    again = new_create(&world, 1, 0, 1, 1); /* the name of another one's */
    g_assert_false(create_one(&world, &again, &error));
    g_assert_nonnull(error);
    teardown(&world);
}

static void test_batch(gconstpointer data)
{
    DriverCreate creates[3];
    GError *errors[3] = {NULL};
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = NULL;
    WORLD(world);

    prepare(&world, 0);
    for (unsigned i = 0; i < 3; i++)
        creates[i] = new_create(&world, 1, i, 1, i == 1); /* the second one's image was never brought here */
    creates[2].address = NULL;
    g_assert_true(world.ops->create(world.driver, creates, 3, errors, &error));
    g_assert_no_error(error);
    g_assert_no_error(errors[0]);
    g_assert_nonnull(errors[1]);
    g_assert_no_error(errors[2]);
    g_clear_error(&errors[1]);
    list = observe(&world);
    g_assert_cmpuint(list->len, ==, 2);
    teardown(&world);
}

static void test_destroy_twice(gconstpointer data)
{
    g_autoptr(GPtrArray) list = NULL, none = NULL;
    WORLD(world);

    prepare(&world, 0);
    create(&world, 0, 0);
    list = observe(&world);
    g_assert_cmpuint(list->len, ==, 1);
    destroy(&world, list->pdata[0]);
    none = observe(&world);
    g_assert_cmpuint(none->len, ==, 0);
    destroy(&world, list->pdata[0]);
    teardown(&world);
}

static void test_attest(gconstpointer data)
{
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(GError) error = NULL;
    unsigned flags = 0;
    WORLD(world);

    prepare(&world, 0);
    prepare(&world, 1);
    create(&world, 0, 0);
    list = wait_for(&world, LIFE_RUNNING);
    (void)world.ops->attest(world.driver, list->pdata[0], images[0], &world.shape, &flags, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(flags & PROVEN_METADATA, !=, 0);
    g_assert_cmpuint(flags & PROVEN_DIGEST, !=, 0);
    g_assert_false(world.ops->attest(world.driver, list->pdata[0], images[1], &world.shape, &flags, &error));
    g_assert_nonnull(error);
    teardown(&world);
}

static void test_edited_identity(gconstpointer data)
{
    g_autoptr(GPtrArray) list = NULL, after = NULL;
    g_autoptr(GError) error = NULL;
    const DriverInstance *instance;
    unsigned flags = 0;
    WORLD(world);

    prepare(&world, 0);
    create(&world, 0, 0);
    list = wait_for(&world, LIFE_RUNNING);
    world.bench->edit_identity(&world, list->pdata[0]);
    after = observe(&world);
    g_assert_cmpuint(after->len, ==, 1);
    instance = after->pdata[0];
    g_assert_true(!instance->known || instance->drift);
    g_assert_false(world.ops->attest(world.driver, instance, images[0], &world.shape, &flags, &error));
    g_assert_nonnull(error);
    teardown(&world);
}

static void test_touched_image(gconstpointer data)
{
    DriverCreate second;
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(GError) error = NULL;
    unsigned flags = 0;
    WORLD(world);

    prepare(&world, 0);
    create(&world, 0, 0);
    list = wait_for(&world, LIFE_RUNNING);
    world.bench->touch_image(&world, images[0]);
    second = new_create(&world, 1, 1, 1, 0);
    g_assert_false(create_one(&world, &second, &error));
    g_assert_nonnull(error);
    g_clear_error(&error);
    g_assert_false(world.ops->attest(world.driver, list->pdata[0], images[0], &world.shape, &flags, &error));
    g_assert_nonnull(error);
    g_clear_error(&error);
    prepare(&world, 0); /* brings it anew */
    (void)create_one(&world, &second, &error);
    g_assert_no_error(error);
    teardown(&world);
}

static void test_death(gconstpointer data)
{
    g_autoptr(GPtrArray) list = NULL, dead = NULL, none = NULL;
    WORLD(world);

    prepare(&world, 0);
    create(&world, 0, 0);
    list = wait_for(&world, LIFE_RUNNING);
    world.bench->kill(&world, list->pdata[0]);
    for (int i = 0; i < 500; i++) { /* one that is gone with its death is as good as one that is dead */
        g_clear_pointer(&dead, g_ptr_array_unref);
        dead = observe(&world);
        if (dead->len == 0 || ((DriverInstance *)dead->pdata[0])->life == LIFE_DEAD)
            break;
        g_usleep(20000);
    }
    if (dead->len > 0) {
        g_assert_cmpint(((DriverInstance *)dead->pdata[0])->life, ==, LIFE_DEAD);
        destroy(&world, dead->pdata[0]);
    }
    none = observe(&world);
    g_assert_cmpuint(none->len, ==, 0);
    teardown(&world);
}

static void test_forget(gconstpointer data)
{
    g_autoptr(GArray) keep = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(GError) error = NULL;
    unsigned counts[64] = {1};
    DriverNeeds needs[64] = {{0}};
    WORLD(world);

    prepare(&world, 0);
    prepare(&world, 1);
    create(&world, 0, 0);
    g_array_append_val(keep, images[1]->id);
    for (int round = 0; round < 2; round++) {
        g_assert_true(world.ops->forget(world.driver, keep, &error));
        g_assert_true(world.ops->needs(world.driver, images[0], &world.shape, counts, needs, &error));
        g_assert_cmpuint(needs[0].bytes_to_move, ==, 0); /* an instance runs from it */
        g_assert_true(world.ops->needs(world.driver, images[1], &world.shape, counts, needs, &error));
        if (round == 0)
            g_assert_cmpuint(needs[0].bytes_to_move, ==, 0); /* kept by name */
        else
            g_assert_cmpuint(needs[0].bytes_to_move, >, 0);
        g_array_set_size(keep, 0);
    }
    list = wait_for(&world, LIFE_RUNNING);
    teardown(&world);
}

static void test_other_groups(gconstpointer data)
{
    static const char *const others[] = {"we", "web-r1", "webs", NULL};
    g_autoptr(GError) error = NULL;
    WORLD(world);

    prepare(&world, 0);
    create(&world, 0, 0);
    for (size_t i = 0; others[i]; i++) {
        g_autoptr(GPtrArray) list = NULL;
        DriverConfig config = {.store = store.store, .group = others[i], .arguments = world.arguments, .shape = &world.shape};
        Driver *driver = NULL;
        bool answers[64];

        (void)(world.ops->open(&config, &driver, &error) && world.ops->observe(driver, &list, answers, &error));
        g_assert_no_error(error);
        g_assert_cmpuint(list->len, ==, 0);
        world.ops->close(driver);
    }
    teardown(&world);
}

static void add_volume(World *world, VolumeSpec *volume)
{
    world->shape.volumes = g_ptr_array_new();
    g_ptr_array_add(world->shape.volumes, volume);
}

static void test_volumes(gconstpointer data)
{
    VolumeSpec volume = {.name = (char *)"data", .mount = (char *)"/data", .size = 16 << 20};
    DriverCreate next;
    g_autoptr(GPtrArray) list = NULL, after = NULL;
    g_autoptr(GError) error = NULL;
    WORLD(world);

    if (!world.ops->destroy_volumes) {
        g_test_skip("the driver has no volumes");
    } else {
        add_volume(&world, &volume);
        prepare(&world, 0);
        create(&world, 0, 0);
        list = wait_for(&world, LIFE_RUNNING);
        next = new_create(&world, 1, 0, 2, 0);
        g_assert_false(create_one(&world, &next, &error)); /* one instance at a time */
        g_assert_nonnull(error);
        g_clear_error(&error);
        destroy(&world, list->pdata[0]);
        (void)create_one(&world, &next, &error);
        g_assert_no_error(error);
        after = wait_for(&world, LIFE_RUNNING);
    }
    destroy_all(&world);
    if (world.shape.volumes)
        g_ptr_array_unref(world.shape.volumes);
    world.shape.volumes = NULL;
    teardown(&world);
}

static void test_fresh_disk(gconstpointer data)
{
    g_autoptr(GPtrArray) list = NULL, changes = NULL;
    g_autoptr(GError) error = NULL;
    WORLD(world);

    if (!world.ops->changed_files) {
        g_test_skip("the driver can't look into disks");
    } else {
        prepare(&world, 0);
        create(&world, 0, 0);
        list = wait_for(&world, LIFE_RUNNING);
        (void)world.ops->changed_files(world.driver, list->pdata[0], images[0], &changes, &error);
        g_assert_no_error(error);
        g_assert_nonnull(changes);
    }
    teardown(&world);
}

/* --- bench: fake -------------------------------------------------------------------------- */

static json_t *fake_arguments(const World *world)
{
    return json_pack("{s:s, s:[s, s], s:f}", "dir", world->dir, "hosts", "a", "b", "boot", 0.01);
}

static StoreImage *fake_image(World *world, unsigned which)
{
    StoreImage *image = store_image_new(world->ops->kind, "web");

    digest_of(&which, sizeof which, &image->id);
    image->size = 1 << 20;
    return image;
}

static void fake_edit(const World *world, const DriverInstance *instance)
{
    g_autofree char *path = g_strdup_printf("%s/a/%s.json", world->dir, instance->name), *text = NULL, *edited = NULL;
    const char *at;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    at = strstr(text, "\"epoch\": 7");
    g_assert_nonnull(at);
    edited = g_strdup(text);
    edited[at - text + 9] = '6';
    g_assert_true(g_file_set_contents(path, edited, -1, NULL));
}

static void fake_touch(const World *world, const StoreImage *image)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *path = g_build_filename(world->dir, "images", digest_to_hex(&image->id, hex), NULL);

    g_assert_true(g_file_set_contents(path, "something else\n", -1, NULL));
}

static void fake_kill(const World *world, const DriverInstance *instance)
{
    g_autofree char *path = g_build_filename(world->dir, "faults.json", NULL), *text = g_strdup_printf("{\"dies\": [\"%s\"]}", instance->name);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

/* --- bench: runc -------------------------------------------------------------------------- */

static const char *const loopback[] = {"127.77.1.10", "127.77.1.11"};

static const char *runc_skip(void)
{
    const char *version[] = {"runc", "--version", NULL};

    if (geteuid() != 0)
        return "containers need root";
    if (!process_have("runc") || !process_capture(version, 65536, NULL, NULL))
        return "runc is not installed";
    return oci_image_busybox() ? NULL : "no static busybox is installed";
}

static json_t *runc_arguments(const World *world)
{
    return json_pack("{s:s}", "state_dir", world->dir);
}

static StoreImage *runc_image(World *world, unsigned which)
{
    g_autoptr(json_t) args = json_pack("{s:[s, s]}", "entrypoint", "/bin/sleep", "1000");

    return oci_image_make(store.store, which ? "web2" : "web", oci_image_busybox(), which ? "two" : "one", args);
}

static void replace_text(const char *path, const char *from, const char *to)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) parts = NULL;
    g_autofree char *edited = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    parts = g_strsplit(text, from, -1);
    g_assert_cmpuint(g_strv_length(parts), >, 1);
    edited = g_strjoinv(to, parts);
    g_assert_true(g_file_set_contents(path, edited, -1, NULL));
}

static void runc_edit(const World *world, const DriverInstance *instance)
{
    g_autofree char *path = g_build_filename(world->dir, "instances", instance->name, "id.json", NULL);

    replace_text(path, "\"epoch\": 7", "\"epoch\": 6");
}

static void runc_touch(const World *world, const StoreImage *image)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *path = g_build_filename(world->dir, "images", digest_to_hex(&image->id, hex), "rootfs/etc/seed", NULL);
    auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

    g_assert_cmpint(pwrite(fd, "O", 1, 0), ==, 1);
}

static void runc_kill(const World *world, const DriverInstance *instance)
{
    g_autofree char *runtime_dir = g_build_filename(world->dir, "runc", NULL);
    const char *argv[] = {"runc", "--root", runtime_dir, "kill", instance->name, "KILL", NULL};

    g_assert_true(process_capture(argv, 65536, NULL, NULL));
}

static void assert_empty_folder(const World *world, const char *name)
{
    g_autofree char *path = g_build_filename(world->dir, name, NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);

    g_assert_cmpstr(dir ? g_dir_read_name(dir) : NULL, ==, NULL);
}

/* No process, no mount, no folder. */
static void runc_assert_clean(const World *world)
{
    g_autofree char *mounts = NULL, *text = NULL;
    const char *argv[] = {"ps", "axww", "-o", "args", NULL};

    assert_empty_folder(world, "instances");
    assert_empty_folder(world, "images");
    assert_empty_folder(world, "runc");
    g_assert_true(g_file_get_contents("/proc/self/mountinfo", &mounts, NULL, NULL));
    g_assert_null(strstr(mounts, world->dir));
    if (process_capture(argv, 16 << 20, &text, NULL))
        g_assert_null(strstr(text, world->dir));
}

/* --- bench: libvirt, on its test driver, which lives in this process -------------------------- */

#define LIBVIRT_URI "test:///default"

static json_t *libvirt_arguments(const World *world)
{
    g_autofree char *images_dir = g_build_filename(world->dir, "images", NULL);
    static virConnectPtr held; /* its world ends with the last connection */

    if (!held)
        held = virConnectOpen(LIBVIRT_URI);
    return json_pack("{s:[s], s:s}", "hosts", LIBVIRT_URI, "image_dir", images_dir);
}

static StoreImage *libvirt_image(World *world, unsigned which)
{
    return disk_image_bootable(store.store, "web", (uint8_t)(which + 1), 1 << 20);
}

static void with_domain(const char *name, void (*fn)(virDomainPtr domain))
{
    virConnectPtr connection = virConnectOpen(LIBVIRT_URI);
    virDomainPtr domain = connection ? virDomainLookupByName(connection, name) : NULL;

    g_assert_nonnull(domain);
    fn(domain);
    (void)virDomainFree(domain);
    (void)virConnectClose(connection);
}

static void edit_domain(virDomainPtr domain)
{
    g_assert_cmpint(virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, "<instance>{}</instance>", "kiln", "urn:kiln:instance:1",
                                         VIR_DOMAIN_AFFECT_LIVE),
                    ==, 0);
}

static void libvirt_edit(const World *world, const DriverInstance *instance)
{
    with_domain(instance->name, edit_domain);
}

static void end_domain(virDomainPtr domain)
{
    g_assert_cmpint(virDomainDestroy(domain), ==, 0);
}

static void libvirt_kill(const World *world, const DriverInstance *instance)
{
    with_domain(instance->name, end_domain);
}

static void libvirt_touch(const World *world, const StoreImage *image)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *path = g_strdup_printf("%s/images/%s.raw", world->dir, digest_to_hex(&image->id, hex));
    auto_fd int fd = -1;

    g_assert_cmpint(chmod(path, 0644), ==, 0);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(pwrite(fd, "\001", 1, 700000), ==, 1);
    g_assert_cmpint(fchmod(fd, 0444), ==, 0);
}

static void libvirt_assert_clean(const World *world)
{
    assert_empty_folder(world, "images");
    assert_empty_folder(world, "volumes");
}

/* --- the table ---------------------------------------------------------------------------- */

static const Bench benches[] = {
    {.driver = "fake",
     .arguments = fake_arguments,
     .image = fake_image,
     .edit_identity = fake_edit,
     .touch_image = fake_touch,
     .kill = fake_kill},
    {.driver = "fake-oci",
     .arguments = fake_arguments,
     .image = fake_image,
     .edit_identity = fake_edit,
     .touch_image = fake_touch,
     .kill = fake_kill},
    {.driver = "runc",
     .skip = runc_skip,
     .arguments = runc_arguments,
     .image = runc_image,
     .edit_identity = runc_edit,
     .touch_image = runc_touch,
     .kill = runc_kill,
     .assert_clean = runc_assert_clean,
     .addresses = loopback},
    {.driver = "libvirt",
     .arguments = libvirt_arguments,
     .image = libvirt_image,
     .edit_identity = libvirt_edit,
     .touch_image = libvirt_touch,
     .kill = libvirt_kill,
     .assert_clean = libvirt_assert_clean},
};

static const struct {
    const char *name;
    GTestDataFunc fn;
} promises[] = {
    {"arguments-are-checked", test_arguments},
    {"prepare-is-idempotent", test_prepare},
    {"identity-comes-back", test_identity},
    {"create-twice-makes-one", test_create_twice},
    {"a-batch-fails-one-by-one", test_batch},
    {"destroy-of-absent-is-success", test_destroy_twice},
    {"attest-knows-the-image", test_attest},
    {"an-edited-identity-is-seen", test_edited_identity},
    {"a-touched-image-gives-no-instance", test_touched_image},
    {"a-death-is-seen", test_death},
    {"forget-keeps-what-is-needed", test_forget},
    {"groups-see-their-own", test_other_groups},
    {"volumes-outlive-instances", test_volumes},
    {"a-fresh-disk-can-be-looked-into", test_fresh_disk},
};

static void test_no_bench(gconstpointer data)
{
    g_test_skip("no bench here runs this driver");
}

static void add_driver(const char *name)
{
    const Bench *bench = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(benches); i++)
        if (strcmp(benches[i].driver, name) == 0)
            bench = &benches[i];
    for (size_t i = 0; i < G_N_ELEMENTS(promises); i++) {
        g_autofree char *path = g_strdup_printf("/conform-driver/%s/%s", name, promises[i].name);

        g_test_add_data_func(path, bench, bench ? promises[i].fn : test_no_bench);
    }
}

int main(int argc, char **argv)
{
    g_autofree char *names = NULL;
    g_auto(GStrv) list = NULL;
    int result;

    log_set_level(LOG_QUIET);
    g_test_init(&argc, &argv, NULL);
    (void)driver_find("", &names);
    list = g_strsplit(names, ", ", -1);
    for (char **name = list; *name; name++)
        add_driver(*name);
    result = g_test_run();
    empty_store();
    return result;
}
