/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fake driver's faults and the fake balancer: what a test orders by writing a file happens, and a thousand instances are quick.
 */
#include "base/file.h"
#include "deploy/balancer.h"
#include "deploy/driver.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

typedef struct Fixture {
    char *dir;
    json_t *driver_arguments, *balancer_arguments;
    Driver *driver;
    Balancer *balancer;
    StoreImage *image;
} Fixture;

static void setup(Fixture *f, gconstpointer data)
{
    DriverConfig driver = {.group = "web"};
    BalancerConfig balancer = {.group = "web", .places = 8};
    unsigned seed = 1;

    g_assert_true(file_make_short_tmpdir(&f->dir, NULL));
    f->driver_arguments = json_pack("{s:s, s:[s, s]}", "dir", f->dir, "hosts", "a", "b");
    f->balancer_arguments = json_pack("{s:s, s:i}", "dir", f->dir, "places", 2000);
    driver.arguments = f->driver_arguments;
    balancer.arguments = f->balancer_arguments;
    g_assert_true(driver_find("fake", NULL)->open(&driver, &f->driver, NULL));
    g_assert_true(balancer_find("fake", NULL)->open(&balancer, &f->balancer, NULL));
    f->image = store_image_new("disk", "web");
    digest_of(&seed, sizeof seed, &f->image->id);
    g_assert_true(f->driver->ops->prepare(f->driver, f->image, NULL));
}

static void teardown(Fixture *f, gconstpointer data)
{
    f->driver->ops->close(f->driver);
    f->balancer->ops->close(f->balancer);
    store_image_free(f->image);
    json_decref(f->driver_arguments);
    json_decref(f->balancer_arguments);
    g_assert_true(file_remove_tree(AT_FDCWD, f->dir, NULL));
    g_free(f->dir);
}

static void write_file(const Fixture *f, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(f->dir, name, NULL);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static bool create(Fixture *f, uint32_t revision, uint32_t slot, int host)
{
    DriverCreate create = {.id = {.group = "web", .revision = revision, .slot = slot, .attempt = 1, .image = f->image->id, .epoch = 1}, .host = host};
    g_autoptr(GError) error = NULL;

    g_assert_true(f->driver->ops->create(f->driver, &create, 1, &error, NULL));
    return error == NULL;
}

static GPtrArray *observe(Fixture *f, bool answers[2])
{
    GPtrArray *list = NULL;

    g_assert_true(f->driver->ops->observe(f->driver, &list, answers, NULL));
    return list;
}

static DriverInstance *find(GPtrArray *list, const char *name)
{
    for (guint i = 0; i < list->len; i++)
        if (strcmp(((DriverInstance *)list->pdata[i])->name, name) == 0)
            return list->pdata[i];
    return NULL;
}

static void test_creates_fail_so_often(Fixture *f, gconstpointer data)
{
    write_file(f, "faults.json", "{\"create_fails\": [{\"slot\": 1, \"times\": 2}]}");
    g_assert_true(create(f, 1, 0, 0));
    g_assert_false(create(f, 1, 1, 0));
    g_assert_false(create(f, 1, 1, 0));
    g_assert_true(create(f, 1, 1, 0));
}

static void test_boots_fail(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) list = NULL;
    bool answers[2];

    write_file(f, "faults.json", "{\"boot_fails\": [{\"revision\": 2}], \"boot_hangs\": [{\"revision\": 3}]}");
    for (uint32_t revision = 1; revision <= 3; revision++)
        g_assert_true(create(f, revision, 0, 0));
    list = observe(f, answers);
    g_assert_cmpint(find(list, "web-r1-0-a1")->life, ==, LIFE_RUNNING);
    g_assert_cmpint(find(list, "web-r2-0-a1")->life, ==, LIFE_DEAD);
    g_assert_cmpint(find(list, "web-r3-0-a1")->life, ==, LIFE_STARTING);
}

static void test_silent_host(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) list = NULL;
    bool answers[2];

    g_assert_true(create(f, 1, 0, 0));
    g_assert_true(create(f, 1, 1, 1));
    write_file(f, "faults.json", "{\"host_silent\": [\"b\"]}");
    list = observe(f, answers);
    g_assert_true(answers[0] && !answers[1]);
    g_assert_cmpuint(list->len, ==, 1);
    g_assert_false(create(f, 1, 2, 1));
    write_file(f, "faults.json", "{}");
    g_ptr_array_unref(list);
    list = observe(f, answers);
    g_assert_true(answers[1]);
    g_assert_cmpuint(list->len, ==, 2);
}

static void test_the_dead_stay_dead(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) during = NULL, after = NULL;
    bool answers[2];

    g_assert_true(create(f, 1, 0, 0));
    write_file(f, "faults.json", "{\"dies\": [\"web-r1-0-a1\"]}");
    during = observe(f, answers);
    write_file(f, "faults.json", "{}");
    after = observe(f, answers);
    g_assert_cmpint(find(during, "web-r1-0-a1")->life, ==, LIFE_DEAD);
    g_assert_cmpint(find(after, "web-r1-0-a1")->life, ==, LIFE_DEAD);
}

static void test_wrong_image(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) list = NULL;
    InstanceShape shape = {.memory = 1};
    bool answers[2];
    unsigned flags;

    g_assert_true(create(f, 1, 0, 0));
    list = observe(f, answers);
    g_assert_true(f->driver->ops->attest(f->driver, list->pdata[0], f->image, &shape, &flags, NULL));
    write_file(f, "faults.json", "{\"wrong_image\": [{\"name\": \"web-r1-0-a1\"}]}");
    g_assert_false(f->driver->ops->attest(f->driver, list->pdata[0], f->image, &shape, &flags, NULL));
}

static BalancerEntry *look(Fixture *f, BalancerView *view, uint32_t place)
{
    balancer_view_clear(view);
    g_assert_true(f->balancer->ops->observe(f->balancer, view, NULL));
    for (guint i = 0; view->entries && i < view->entries->len; i++)
        if (((BalancerEntry *)view->entries->pdata[i])->place == place)
            return view->entries->pdata[i];
    return NULL;
}

static void test_entry(Fixture *f, gconstpointer data)
{
    const BalancerOps *ops = f->balancer->ops;
    BalancerView view = {.color = -1};
    BalancerCounters counters;
    g_autofree char *address = NULL;
    g_autoptr(GPtrArray) list = NULL;
    bool answers[2];
    uint64_t cut;

    g_assert_true(create(f, 4, 0, 0));
    list = observe(f, answers);
    address = g_strdup_printf("%s:80", ((DriverInstance *)list->pdata[0])->address);
    g_assert_true(ops->verify(f->balancer, NULL));
    g_assert_false(ops->route(f->balancer, 0, 3, 10, NULL));
    g_assert_true(ops->enter(f->balancer, 0, 3, address, NULL));
    g_assert_cmpint(look(f, &view, 3)->route, ==, ROUTE_DRAINED);
    g_assert_true(look(f, &view, 3)->up);
    g_assert_false(ops->enter(f->balancer, 0, 3, "127.0.0.1:1", NULL));
    g_assert_true(ops->route(f->balancer, 0, 3, 10, NULL));
    g_assert_true(ops->enter(f->balancer, 0, 3, address, NULL)); /* again: no change */
    g_assert_cmpint(look(f, &view, 3)->route, ==, ROUTE_IN);
    g_assert_cmpuint(look(f, &view, 3)->weight, ==, 10);
    write_file(f, "sick", "127.1.1.1\n");
    g_assert_true(look(f, &view, 3)->up);
    write_file(f, "sick", address);
    g_assert_false(look(f, &view, 3)->up);
    write_file(f, "sessions.json", "{\"r4\": 5, \"*\": 1}");
    g_assert_cmpuint(look(f, &view, 3)->sessions, ==, 5);
    write_file(f, "counters.json", "{\"*\": {\"requests\": 100, \"errors\": 3, \"time_ms\": 900}}");
    g_assert_true(ops->counters(f->balancer, 0, 3, &counters, NULL));
    g_assert_cmpuint(counters.requests, ==, 100);
    g_assert_cmpuint(counters.errors, ==, 3);
    g_assert_true(ops->drain(f->balancer, 0, 3, NULL));
    g_assert_cmpint(look(f, &view, 3)->route, ==, ROUTE_DRAINED);
    g_assert_true(ops->leave(f->balancer, 0, 3, &cut, NULL));
    g_assert_cmpuint(cut, ==, 5);
    g_assert_true(ops->leave(f->balancer, 0, 3, &cut, NULL));
    g_assert_null(look(f, &view, 3));
    g_assert_cmpint(view.color, ==, -1);
    g_assert_true(ops->switch_color(f->balancer, 1, NULL));
    (void)look(f, &view, 3);
    g_assert_cmpint(view.color, ==, 1);
    write_file(f, "lost", "");
    (void)look(f, &view, 3);
    g_assert_false(view.answers);
    g_assert_nonnull(view.problem);
    g_assert_false(ops->route(f->balancer, 0, 3, 10, NULL));
    balancer_view_clear(&view);
}

/* All of them are seen in each look. */
static void test_a_thousand(Fixture *f, gconstpointer data)
{
    DriverCreate *creates = g_new0(DriverCreate, 1000);
    GError **errors = g_new0(GError *, 1000);
    BalancerView view = {.color = -1};
    gint64 start = g_get_monotonic_time();
    g_autoptr(GPtrArray) list = NULL;
    bool answers[2];

    for (unsigned i = 0; i < 1000; i++)
        creates[i] = (DriverCreate){.id = {.group = "web", .revision = 1, .slot = i, .attempt = 1, .image = f->image->id, .epoch = 1}, .host = (int)i % 2};
    g_assert_true(f->driver->ops->create(f->driver, creates, 1000, errors, NULL));
    list = observe(f, answers);
    g_assert_cmpuint(list->len, ==, 1000);
    for (unsigned i = 0; i < 1000; i++) {
        g_autofree char *address = g_strdup_printf("%s:80", ((DriverInstance *)list->pdata[i])->address);

        g_assert_true(f->balancer->ops->enter(f->balancer, 0, i, address, NULL) && f->balancer->ops->route(f->balancer, 0, i, 256, NULL));
    }
    for (int i = 0; i < 20; i++) {
        g_clear_pointer(&list, g_ptr_array_unref);
        list = observe(f, answers);
        (void)look(f, &view, 0);
        g_assert_cmpuint(view.entries->len, ==, 1000);
    }
    g_test_message("1000 instances, 20 looks: %.2f s", (double)(g_get_monotonic_time() - start) / 1e6);
    balancer_view_clear(&view);
    g_free(creates);
    g_free(errors);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(path, fn) g_test_add(path, Fixture, NULL, setup, fn, teardown)
    ADD("/deploy-fake/a-create-fails-as-often-as-ordered", test_creates_fail_so_often);
    ADD("/deploy-fake/boots-fail-and-hang", test_boots_fail);
    ADD("/deploy-fake/a-silent-host-comes-back-with-its-instances", test_silent_host);
    ADD("/deploy-fake/the-dead-stay-dead", test_the_dead_stay_dead);
    ADD("/deploy-fake/a-wrong-image-is-told", test_wrong_image);
    ADD("/deploy-fake/an-entry-of-the-balancer-lives", test_entry);
    ADD("/deploy-fake/a-thousand-instances", test_a_thousand);
    return g_test_run();
}
