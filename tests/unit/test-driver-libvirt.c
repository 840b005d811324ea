/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The libvirt driver on libvirt's test driver, which runs inside this process: identities, drift, a thousand instances.
 * tests/cli/90-libvirt.sh has the same driver on real hosts.
 */
#include "base/error.h"
#include "base/file.h"
#include "deploy/members.h"
#include "tests/unit/disk-image-support.h"
#include "tests/unit/store-support.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <string.h>

#define URI "test:///default"

typedef struct Fixture {
    StoreFixture store;
    StoreImage *image, *other;
    json_t *arguments;
    InstanceShape shape;
    Driver *driver;
    char *images;
} Fixture;

static void setup(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    DriverConfig config;

    store_fixture_setup(&f->store, NULL);
    f->image = disk_image_bootable(f->store.store, "web", 1, 1 << 20);
    f->other = disk_image_bootable(f->store.store, "web", 2, 1 << 20);
    f->images = g_build_filename(f->store.dir, "images", NULL);
    f->arguments = json_pack("{s:[s], s:s}", "hosts", URI, "image_dir", f->images);
    f->shape = (InstanceShape){.memory = 64 << 20, .cpus = 1};
    config = (DriverConfig){.store = f->store.store, .group = "web", .arguments = f->arguments, .shape = &f->shape};
    (void)(driver_libvirt_ops.open(&config, &f->driver, &error) && driver_libvirt_ops.prepare(f->driver, f->image, &error));
    g_assert_no_error(error);
}

static void teardown(Fixture *f, gconstpointer data)
{
    driver_libvirt_ops.close(f->driver);
    json_decref(f->arguments);
    store_image_free(f->image);
    store_image_free(f->other);
    g_free(f->images);
    store_fixture_teardown(&f->store, NULL);
}

static InstanceId identity(const Fixture *f, unsigned slot)
{
    InstanceId id = {.group = "web", .revision = 1, .slot = slot, .attempt = 1, .image = f->image->id, .epoch = 7};

    return id;
}

static void create(Fixture *f, unsigned from, unsigned count)
{
    g_autofree DriverCreate *creates = g_new0(DriverCreate, count);
    g_autofree GError **errors = g_new0(GError *, count);
    g_autoptr(GError) error = NULL;

    for (unsigned i = 0; i < count; i++)
        creates[i] = (DriverCreate){.id = identity(f, from + i), .shape = &f->shape};
    (void)driver_libvirt_ops.create(f->driver, creates, count, errors, &error);
    g_assert_no_error(error);
    for (unsigned i = 0; i < count; i++)
        g_assert_no_error(errors[i]);
}

static GPtrArray *observe(Fixture *f)
{
    g_autoptr(GError) error = NULL;
    GPtrArray *all = NULL;
    bool answers = false;

    (void)driver_libvirt_ops.observe(f->driver, &all, &answers, &error);
    g_assert_no_error(error);
    g_assert_true(answers);
    return all;
}

static void destroy(Fixture *f, GPtrArray *instances)
{
    g_autofree GError **errors = g_new0(GError *, instances->len + 1);
    g_autoptr(GError) error = NULL;

    (void)driver_libvirt_ops.destroy(f->driver, (const DriverInstance *const *)instances->pdata, instances->len, 0, errors, &error);
    g_assert_no_error(error);
    for (guint i = 0; i < instances->len; i++)
        g_assert_no_error(errors[i]);
}

static virConnectPtr same_world(void)
{
    virConnectPtr connection = virConnectOpen(URI); /* one world per process */

    g_assert_nonnull(connection);
    return connection;
}

static void test_life(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) none = observe(f), three = NULL, after = NULL;
    const DriverInstance *first;
    g_autoptr(GError) error = NULL;
    unsigned flags = 0;

    g_assert_cmpuint(none->len, ==, 0); /* the test driver's own domain is not ours */
    (void)driver_libvirt_ops.prepare(f->driver, f->image, &error);
    g_assert_no_error(error);
    create(f, 0, 3);
    create(f, 1, 2); /* once more: the same ones */
    three = observe(f);
    g_assert_cmpuint(three->len, ==, 3);
    first = g_ptr_array_index(three, 0);
    g_assert_true(first->known);
    g_assert_cmpstr(first->drift, ==, NULL);
    g_assert_cmpint(first->life, ==, LIFE_RUNNING);
    g_assert_cmpint(first->id.epoch, ==, 7);
    g_assert_true(digest_equal(&first->id.image, &f->image->id));
    g_assert_true(g_get_real_time() / G_USEC_PER_SEC - first->started < 60);
    (void)driver_libvirt_ops.attest(f->driver, first, f->image, &f->shape, &flags, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(flags, ==, PROVEN_METADATA | PROVEN_CHAIN | PROVEN_DIGEST);
    g_assert_false(driver_libvirt_ops.attest(f->driver, first, f->other, &f->shape, &flags, &error));
    g_assert_nonnull(strstr(error->message, "another image"));
    g_assert_cmpuint(flags, ==, 0);
    destroy(f, three);
    destroy(f, three); /* absent is success */
    after = observe(f);
    g_assert_cmpuint(after->len, ==, 0);
}

/* Another controller's attempt has the same name and is not the same. */
static void test_another_image(Fixture *f, gconstpointer data)
{
    DriverCreate again = {.id = identity(f, 0), .shape = &f->shape};
    g_autoptr(GPtrArray) all = NULL;
    g_autoptr(GError) error = NULL;
    GError *errors[1] = {NULL};

    create(f, 0, 1);
    again.id.image = f->other->id;
    g_assert_true(driver_libvirt_ops.create(f->driver, &again, 1, errors, &error));
    g_assert_nonnull(errors[0]);
    g_assert_nonnull(strstr(errors[0]->message, "another one"));
    g_clear_error(&errors[0]);
    again.id.image = f->image->id;
    again.id.epoch = 8; /* a later controller, resuming */
    g_assert_true(driver_libvirt_ops.create(f->driver, &again, 1, errors, &error));
    g_assert_no_error(errors[0]);
    all = observe(f);
    g_assert_cmpint(((DriverInstance *)all->pdata[0])->id.epoch, ==, 7);
    destroy(f, all);
}

static void edit_mark(const char *name, const char *metadata)
{
    virConnectPtr connection = same_world();
    virDomainPtr domain = virDomainLookupByName(connection, name);

    g_assert_nonnull(domain);
    g_assert_cmpint(virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, metadata, "kiln", "urn:kiln:instance:1", VIR_DOMAIN_AFFECT_LIVE), ==, 0);
    (void)virDomainFree(domain);
    (void)virConnectClose(connection);
}

static void test_edited_metadata(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) all = NULL;
    g_autoptr(GError) error = NULL;
    const DriverInstance *instance;
    unsigned flags;

    create(f, 0, 1);
    edit_mark("web-r1-0-a1", "<instance>{\"instance\":{}}</instance>");
    all = observe(f);
    g_assert_cmpuint(all->len, ==, 1);
    instance = g_ptr_array_index(all, 0);
    g_assert_false(instance->known);
    g_assert_nonnull(strstr(instance->drift, "cannot be read"));
    g_assert_cmpuint(instance->id.revision, ==, 1); /* of its name */
    g_assert_false(driver_libvirt_ops.attest(f->driver, instance, f->image, &f->shape, &flags, &error));
    destroy(f, all);
}

/* Ends a domain and makes it again with @to in place of @from in its definition. */
static void redefine(const char *name, const char *from, const char *to)
{
    virConnectPtr connection = same_world();
    virDomainPtr domain = virDomainLookupByName(connection, name), again;
    char *xml = virDomainGetXMLDesc(domain, 0);
    GString *text = g_string_new(xml);

    g_assert_cmpuint(g_string_replace(text, from, to, 1), ==, 1);
    g_assert_cmpint(virDomainDestroy(domain), ==, 0);
    again = virDomainCreateXML(connection, text->str, 0);
    g_assert_nonnull(again);
    (void)virDomainFree(domain);
    (void)virDomainFree(again);
    (void)virConnectClose(connection);
    (void)g_string_free(text, TRUE);
    free(xml);
}

/* One digit: nothing else about it looks wrong. */
static void test_edited_epoch(Fixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) all = NULL;

    create(f, 0, 1);
    redefine("web-r1-0-a1", "\"epoch\":7", "\"epoch\":6");
    all = observe(f);
    g_assert_cmpuint(all->len, ==, 1);
    g_assert_false(((DriverInstance *)all->pdata[0])->known);
    destroy(f, all);
}

static void test_stray(Fixture *f, gconstpointer data)
{
    virConnectPtr connection = same_world();
    virDomainPtr domain = virDomainCreateXML(connection, "<domain type='test'><name>web-r9-0-a1</name><memory>65536</memory><os><type>hvm</type></os></domain>", 0);
    virDomainPtr other = virDomainCreateXML(connection, "<domain type='test'><name>web-db-r9-0-a1</name><memory>65536</memory><os><type>hvm</type></os></domain>", 0);
    g_autoptr(GPtrArray) all = observe(f);

    g_assert_cmpuint(all->len, ==, 1); /* "web-db" is another group */
    g_assert_false(((DriverInstance *)all->pdata[0])->known);
    destroy(f, all);
    (void)virDomainDestroy(other);
    (void)virDomainFree(other);
    (void)virDomainFree(domain);
    (void)virConnectClose(connection);
}

static void assert_drifts(Fixture *f, const char *from, const char *to, const char *sentence)
{
    g_autoptr(GPtrArray) all = NULL;
    g_autoptr(GError) error = NULL;
    const DriverInstance *instance;
    unsigned flags;

    create(f, 0, 1);
    redefine("web-r1-0-a1", from, to);
    all = observe(f);
    instance = g_ptr_array_index(all, 0);
    g_assert_true(instance->known);
    g_assert_nonnull(instance->drift);
    if (!strstr(instance->drift, sentence))
        g_error("'%s' does not say '%s'", instance->drift, sentence);
    g_assert_false(driver_libvirt_ops.attest(f->driver, instance, f->image, &f->shape, &flags, &error));
    destroy(f, all);
}

static void test_drift(Fixture *f, gconstpointer data)
{
    g_autofree char *file = g_strdup_printf("file='%s/", f->images);

    assert_drifts(f, "<memory unit='KiB'>65536", "<memory unit='KiB'>131072", "its memory in bytes is 134217728");
    assert_drifts(f, file, "file='/srv/", "it runs from '/srv/");
    assert_drifts(f, "<transient shareBacking='yes'/>", "", "not a throw-away overlay");
    assert_drifts(f, "<on_reboot>destroy", "<on_reboot>restart", "come back after a reboot");
    assert_drifts(f, "<rng model", "<disk type='file' device='disk'><source file='/x'/><target dev='vdb' bus='virtio'/></disk><rng model", "number of disks is 2");
}

static double resident_mib(void)
{
    g_autofree char *status = NULL;
    const char *line;

    g_assert_true(g_file_get_contents("/proc/self/status", &status, NULL, NULL));
    line = strstr(status, "VmHWM:");
    g_assert_nonnull(line);
    return g_ascii_strtod(line + 6, NULL) / 1024;
}

static void test_thousand(Fixture *f, gconstpointer data)
{
    gint64 begin = g_get_monotonic_time();
    g_autoptr(GPtrArray) all = NULL, none = NULL;
    double seconds;

    create(f, 0, 1000);
    all = observe(f);
    g_assert_cmpuint(all->len, ==, 1000);
    for (guint i = 0; i < all->len; i++)
        g_assert_true(((DriverInstance *)all->pdata[i])->known && !((DriverInstance *)all->pdata[i])->drift);
    destroy(f, all);
    none = observe(f);
    g_assert_cmpuint(none->len, ==, 0);
    seconds = (double)(g_get_monotonic_time() - begin) / G_USEC_PER_SEC;
    g_test_message("1000 instances created, observed and destroyed in %.2f s, %.0f MiB at most", seconds, resident_mib());
#if !defined(__SANITIZE_ADDRESS__)
    g_assert_cmpfloat(seconds, <, 5);
    g_assert_cmpfloat(resident_mib(), <, 64);
#endif
}

static gpointer end_one(gpointer arg)
{
    virConnectPtr connection = same_world();
    virDomainPtr domain = virDomainLookupByName(connection, "web-r1-0-a1");

    g_usleep(300000);
    (void)virDomainDestroy(domain);
    (void)virDomainFree(domain);
    (void)virConnectClose(connection);
    return NULL;
}

static void test_wait(Fixture *f, gconstpointer data)
{
    gint64 begin;
    GThread *thread;

    create(f, 0, 1);
    driver_libvirt_ops.wait(f->driver, 0.3); /* hears of the create */
    driver_libvirt_ops.wait(f->driver, 0.3);
    begin = g_get_monotonic_time();
    thread = g_thread_new("end", end_one, NULL);
    driver_libvirt_ops.wait(f->driver, 10);
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 5 * G_USEC_PER_SEC);
    (void)g_thread_join(thread);
}

static void test_unreachable(Fixture *f, gconstpointer data)
{
    g_autoptr(json_t) arguments = json_pack("{s:[s,s], s:s}", "hosts", URI, "qemu+tcp://127.0.0.1:9/system", "image_dir", f->images);
    DriverConfig config = {.store = f->store.store, .group = "web", .arguments = arguments, .shape = &f->shape};
    DriverCreate creates[2] = {{.id = identity(f, 0), .host = 0, .shape = &f->shape}, {.id = identity(f, 1), .host = 1, .shape = &f->shape}};
    g_autoptr(GPtrArray) all = NULL;
    g_autoptr(GError) error = NULL;
    GError *errors[2] = {NULL, NULL};
    Driver *driver = NULL;
    bool answers[2];

    g_assert_true(driver_libvirt_ops.open(&config, &driver, &error));
    g_assert_true(driver_libvirt_ops.prepare(driver, f->image, &error));
    g_assert_true(driver_libvirt_ops.create(driver, creates, 2, errors, &error));
    g_assert_no_error(errors[0]);
    g_assert_nonnull(errors[1]);
    g_assert_nonnull(strstr(errors[1]->message, "does not answer"));
    g_clear_error(&errors[1]);
    g_assert_true(driver_libvirt_ops.observe(driver, &all, answers, &error));
    g_assert_true(answers[0]);
    g_assert_false(answers[1]);
    g_assert_cmpuint(all->len, ==, 1);
    destroy(f, all);
    driver_libvirt_ops.close(driver);
}

static void assert_refused(const char *arguments_text, const InstanceShape *shape, const char *argument, const char *part)
{
    g_autoptr(json_t) arguments = json_loads(arguments_text, 0, NULL);
    g_autoptr(GError) error = NULL;
    const char *named = "none";

    g_assert_nonnull(arguments);
    g_assert_false(driver_libvirt_ops.check(arguments, shape, &named, &error));
    g_assert_cmpstr(named, ==, argument);
    g_assert_nonnull(error);
    if (!strstr(error->message, part))
        g_error("'%s' does not say '%s'", error->message, part);
}

static void test_check(void)
{
    InstanceShape shape = {.memory = 64 << 20, .cpus = 1, .port = 80};
    char *range[] = {(char *)"127.0.2.1-127.0.2.9", NULL}, *rules[] = {(char *)"tcp/99999", NULL};
    g_autoptr(json_t) good = json_pack("{s:[s]}", "hosts", "qemu:///system");
    g_autoptr(GPtrArray) volumes = g_ptr_array_new();
    VolumeSpec volume = {.name = (char *)"data", .size = 1 << 30};
    const char *argument;

    assert_refused("{}", &shape, "hosts", "hosts names");
    assert_refused("{\"hosts\":[\"here\"]}", &shape, "hosts", "no libvirt URI");
    assert_refused("{\"hosts\":[\"qemu:///system\",\"qemu:///system\"]}", &shape, "hosts", "twice");
    assert_refused("{\"hosts\":[\"qemu:///system\"],\"hostes\":1}", &shape, "hostes", "did you mean 'hosts'");
    assert_refused("{\"hosts\":[\"qemu:///system\"],\"type\":\"xen\"}", &shape, "type", "auto, kvm, qemu");
    assert_refused("{\"hosts\":[\"qemu:///system\"],\"image_dir\":\"images\"}", &shape, "image_dir", "from the root");
    assert_refused("{\"hosts\":[\"qemu:///system\"]}", &shape, NULL, "addresses");
    assert_refused("{\"hosts\":[\"qemu+tcp://h/system\"]}", &shape, "hosts", "bridge");
    shape.addresses = range;
    g_assert_true(driver_libvirt_ops.check(good, &shape, &argument, NULL));
    shape.allow = rules;
    assert_refused("{\"hosts\":[\"qemu:///system\"]}", &shape, NULL, "tcp/99999");
    shape.allow = NULL;
    shape.volumes = volumes;
    g_ptr_array_add(volumes, &volume);
    shape.bridge = (char *)"br0";
    g_assert_true(driver_libvirt_ops.check(good, &shape, &argument, NULL));
    assert_refused("{\"hosts\":[\"qemu:///system\",\"qemu+tcp://h/system\"]}", &shape, "hosts", "volume");
    shape.cpus = 0;
    assert_refused("{\"hosts\":[\"qemu:///system\"]}", &shape, NULL, "processors");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(name, fn) g_test_add("/driver-libvirt/" name, Fixture, NULL, setup, fn, teardown)
    CASE("life", test_life);
    CASE("a-name-with-another-image-is-left-alone", test_another_image);
    CASE("edited-metadata-is-told", test_edited_metadata);
    CASE("an-edited-epoch-is-told", test_edited_epoch);
    CASE("a-stray-is-told", test_stray);
    CASE("a-changed-definition-is-drift", test_drift);
    CASE("a-thousand", test_thousand);
    CASE("wait-hears-events", test_wait);
    CASE("a-host-that-does-not-answer", test_unreachable);
    g_test_add_func("/driver-libvirt/arguments", test_check);
    return g_test_run();
}
