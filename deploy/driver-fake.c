/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Driver "fake" (disks) and "fake-oci" (containers): instances are files in a folder. No VM, no network.
 *
 *   driver "fake" {
 *     dir   = "/tmp/world"     # needed; drawn in fake-world.h, also how faults are ordered
 *     hosts = ["a", "b"]       # default ["a"]
 *     boot  = 0.5              # seconds until an instance runs; default 0
 *     memory_free = "8G"       # what plans are told, per host; default: not known
 *     disk_free   = "100G"
 *   }
 *
 * It keeps the promises of driver.h as the real ones do: identity stands in the instance, creating twice makes one, an image whose
 * copy was touched gives no instance, edits are seen. What runs does nothing, so only health checks that ask nothing pass.
 */
#include "deploy/fake-world.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "base/units.h"
#include "deploy/members.h"

#include <fcntl.h>
#include <sys/stat.h>

#define HOSTS_MAX 64u

typedef struct FakeDriver {
    Driver driver;
    FakeWorld *world;
    char *group;
    char **hosts;
    double boot;
    uint64_t memory_free, disk_free;
} FakeDriver;

/* --- arguments ---------------------------------------------------------------------------- */

static bool host_name_ok(const char *name)
{
    static const char *const taken[] = {"images", "volumes", "changed", "entries", NULL};

    return *name && *name != '.' && !strchr(name, '/') && strlen(name) <= 64 && !g_strv_contains(taken, name);
}

static bool read_hosts(const json_t *arguments, char ***ret, GError **error)
{
    g_auto(GStrv) hosts = NULL;

    if (!json_get_strings(arguments, "hosts", &hosts, error))
        return false;
    if (g_strv_length(hosts) > HOSTS_MAX)
        return fail(error, "there may be %u hosts at most", HOSTS_MAX);
    for (char **host = hosts; *host; host++) {
        if (!host_name_ok(*host))
            return fail(error, "'%s' can't name a fake host: it is a folder's name", *host);
        if (g_strv_contains((const char *const *)host + 1, *host))
            return fail(error, "host '%s' stands there twice", *host);
    }
    if (!hosts[0]) {
        g_clear_pointer(&hosts, g_strfreev);
        hosts = g_strsplit("a", ",", -1);
    }
    *ret = g_steal_pointer(&hosts);
    return true;
}

static bool read_size(const json_t *arguments, const char *key, uint64_t *ret, GError **error)
{
    const char *text;

    if (!json_get_string(arguments, key, NULL, &text, error))
        return false;
    *ret = 0;
    return !text || units_parse_size(text, ret, error) || fail_prefix(error, "'%s'", key);
}

static bool read_arguments(const json_t *arguments, FakeDriver *fake, const char **ret_argument, GError **error)
{
    static const char *const keys[] = {"dir", "hosts", "boot", "memory_free", "disk_free", NULL};
    const json_t *boot = json_object_get(arguments, "boot");
    const char *dir;

    if (!json_only_keys(arguments, keys, ret_argument))
        return fail(error, "driver \"fake\" has no argument '%s'", *ret_argument);
    *ret_argument = "dir";
    if (!json_get_string(arguments, "dir", NULL, &dir, error))
        return false;
    if (!dir || !g_path_is_absolute(dir))
        return fail(error, "driver \"fake\" needs dir = \"/some/folder\"");
    *ret_argument = "hosts";
    if (!read_hosts(arguments, &fake->hosts, error))
        return false;
    *ret_argument = "boot";
    if (boot && (!json_is_number(boot) || json_number_value(boot) < 0 || json_number_value(boot) > 86400))
        return fail(error, "'boot' must be a number of seconds, from 0 to 86400");
    fake->boot = boot ? json_number_value(boot) : 0;
    *ret_argument = "memory_free";
    if (!read_size(arguments, "memory_free", &fake->memory_free, error))
        return false;
    *ret_argument = "disk_free";
    if (!read_size(arguments, "disk_free", &fake->disk_free, error))
        return false;
    fake->world = fake_world_new(dir);
    return true;
}

static void fake_close(Driver *driver)
{
    FakeDriver *fake = (FakeDriver *)driver;

    if (!fake)
        return;
    fake_world_free(fake->world);
    g_strfreev(fake->hosts);
    g_free(fake->group);
    g_free(fake);
}

static bool fake_check(const json_t *arguments, const InstanceShape *shape, const char **ret_argument, GError **error)
{
    FakeDriver *fake = g_new0(FakeDriver, 1);
    const char *culprit = NULL;
    bool ok = read_arguments(arguments, fake, &culprit, error);

    *ret_argument = ok ? NULL : culprit;
    fake_close(&fake->driver);
    return ok;
}

static bool open_as(const DriverOps *ops, const DriverConfig *config, Driver **ret, GError **error)
{
    FakeDriver *fake = g_new0(FakeDriver, 1);
    const char *culprit;

    fake->driver.ops = ops;
    fake->group = g_strdup(config->group);
    if (!read_arguments(config->arguments, fake, &culprit, error) || !file_make_dirs(fake->world->dir, 0755, error)) {
        fake_close(&fake->driver);
        return false;
    }
    *ret = &fake->driver;
    return true;
}

static bool open_disk(const DriverConfig *config, Driver **ret, GError **error)
{
    return open_as(&driver_fake_ops, config, ret, error);
}

static bool open_oci(const DriverConfig *config, Driver **ret, GError **error)
{
    return open_as(&driver_fake_oci_ops, config, ret, error);
}

static unsigned fake_host_count(Driver *driver)
{
    return g_strv_length(((FakeDriver *)driver)->hosts);
}

static const char *fake_host_name(Driver *driver, unsigned host)
{
    return ((FakeDriver *)driver)->hosts[host];
}

/* --- the folder --------------------------------------------------------------------------- */

static bool lock_world(const FakeDriver *fake, int *ret_fd, GError **error)
{
    g_autofree char *path = g_build_filename(fake->world->dir, "lock", NULL);
    auto_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0)
        return fail_errno(error, "open '%s'", path);
    if (!file_lock(fd, path, "another process changes the fake world", error))
        return false;
    *ret_fd = g_steal_fd(&fd);
    return true;
}

static bool write_document(const FakeDriver *fake, const char *name, const json_t *document, GError **error)
{
    g_autofree char *path = g_build_filename(fake->world->dir, name, NULL), *text = json_pretty(document);

    return file_replace(AT_FDCWD, path, text, strlen(text), 0644, FILE_SYNC_NO, error);
}

static bool write_text(const FakeDriver *fake, const char *folder, const char *name, const char *text, GError **error)
{
    g_autofree char *dir = g_build_filename(fake->world->dir, folder, NULL), *path = g_build_filename(dir, name, NULL);

    return file_make_dirs(dir, 0755, error) && file_replace(AT_FDCWD, path, text, strlen(text), 0644, FILE_SYNC_NO, error);
}

/* Faults as they are at this moment, with the use counts that go with them. Both may be NULL. */
typedef struct Faults {
    json_t *rules, *counts, *counts_before;
} Faults;

static void faults_clear(Faults *faults)
{
    json_decref(faults->rules);
    json_decref(faults->counts);
    json_decref(faults->counts_before);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Faults, faults_clear)

static bool faults_load(const FakeDriver *fake, Faults *faults, GError **error)
{
    if (!fake_world_document(fake->world, "faults.json", &faults->rules, error))
        return false;
    if (!faults->rules)
        return true;
    if (!fake_world_document(fake->world, "counts.json", &faults->counts, error))
        return false;
    if (!json_is_object(faults->counts)) {
        json_decref(faults->counts);
        faults->counts = json_object();
    }
    faults->counts_before = json_copy(faults->counts);
    return true;
}

static bool faults_store(const FakeDriver *fake, const Faults *faults, GError **error)
{
    return !faults->counts || json_equal(faults->counts, faults->counts_before) || write_document(fake, "counts.json", faults->counts, error);
}

static bool silent(const Faults *faults, const char *host)
{
    return fake_fault_names(faults->rules, "host_silent", host);
}

static bool host_fails(const Faults *faults, const char *host, GError **error)
{
    return silent(faults, host) && !fail_code(error, KILN_ERROR_TIMEOUT, "host '%s' does not answer", host);
}

/* --- images ------------------------------------------------------------------------------- */

static char *image_text(const Digest *image)
{
    char oci[DIGEST_OCI_SIZE];

    return g_strdup_printf("%s\n", digest_to_oci(image, oci));
}

static bool image_there(const FakeDriver *fake, const Digest *image, GError **error)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *path = g_build_filename(fake->world->dir, "images", digest_to_hex(image, hex), NULL), *expected = image_text(image);
    g_autoptr(GBytes) bytes = NULL;

    if (!file_load(AT_FDCWD, path, 4096, &bytes, error))
        return false;
    if (strcmp(g_bytes_get_data(bytes, NULL), expected) != 0)
        return fail(error, "'%s' is not what was brought there: somebody changed it", path);
    return true;
}

static bool fake_needs(Driver *driver, const StoreImage *image, const InstanceShape *shape, const unsigned *counts, DriverNeeds *ret, GError **error)
{
    const FakeDriver *fake = (const FakeDriver *)driver;
    bool there = image_there(fake, &image->id, NULL);

    for (unsigned i = 0; fake->hosts[i]; i++)
        ret[i] = (DriverNeeds){.bytes_to_move = there || counts[i] == 0 ? 0 : image->size,
                               .disk = there || counts[i] == 0 ? 0 : image->size,
                               .disk_free = fake->disk_free,
                               .memory = counts[i] * shape->memory,
                               .memory_free = fake->memory_free};
    return true;
}

static bool fake_prepare(Driver *driver, const StoreImage *image, GError **error)
{
    const FakeDriver *fake = (const FakeDriver *)driver;
    InstanceId id = {.image = image->id};
    g_auto(Faults) faults = {NULL, NULL, NULL};
    g_autofree char *text = image_text(&image->id);
    auto_fd int lock = -1;
    char hex[DIGEST_HEX_SIZE];

    if (strcmp(image->kind, driver->ops->kind) != 0)
        return fail(error, "driver \"%s\" runs images of kind '%s', and this is one of kind '%s'", driver->ops->name, driver->ops->kind, image->kind);
    if (!lock_world(fake, &lock, error) || !faults_load(fake, &faults, error))
        return false;
    if (fake_fault_fits(faults.rules, "prepare_fails", &id, NULL, faults.counts))
        return faults_store(fake, &faults, error) && fail(error, "the image could not be brought to host '%s': a fault was ordered", fake->hosts[0]);
    return image_there(fake, &image->id, NULL) || write_text(fake, "images", digest_to_hex(&image->id, hex), text, error);
}

static bool kept(const GArray *keep, const GPtrArray *instances, const Digest *image)
{
    for (guint i = 0; keep && i < keep->len; i++)
        if (digest_equal(&g_array_index(keep, Digest, i), image))
            return true;
    for (guint i = 0; i < instances->len; i++)
        if (digest_equal(&((const FakeInstance *)g_ptr_array_index(instances, i))->id.image, image))
            return true;
    return false;
}

static bool fake_forget(Driver *driver, const GArray *keep, GError **error)
{
    const FakeDriver *fake = (const FakeDriver *)driver;
    g_autofree char *path = g_build_filename(fake->world->dir, "images", NULL);
    g_autoptr(GPtrArray) instances = NULL;
    auto_fd int lock = -1;
    struct dirent *entry;
    Digest image;

    if (!lock_world(fake, &lock, error) || !fake_world_read(fake->world, NULL, &instances, error))
        return false;

    auto_dir DIR *dir = opendir(path);

    while (dir && (entry = readdir(dir)))
        if (digest_parse(entry->d_name, &image) && !kept(keep, instances, &image))
            (void)unlinkat(dirfd(dir), entry->d_name, 0); /* the next time, then */
    return true;
}

/* --- create ------------------------------------------------------------------------------- */

/* 127.9.x.y that none of the world's instances has. */
static char *fresh_address(GHashTable *taken, unsigned *next)
{
    for (; *next < 65024; (*next)++) {
        g_autofree char *address = g_strdup_printf("127.9.%u.%u", *next / 254, *next % 254 + 1);

        if (g_hash_table_add(taken, g_strdup(address)))
            return g_steal_pointer(&address);
    }
    return NULL;
}

typedef struct Making {
    const FakeDriver *fake;
    Faults faults;
    GHashTable *taken; /* addresses */
    unsigned next;
    bool checked;      /* whether @image was looked at; a batch has one image nearly always */
    Digest image;
} Making;

static bool check_image(Making *making, const DriverCreate *create, GError **error)
{
    if (making->checked && digest_equal(&making->image, &create->id.image))
        return true;
    if (!image_there(making->fake, &create->id.image, error))
        return false;
    making->checked = true;
    making->image = create->id.image;
    return true;
}

/* A volume has one user at a time. */
static bool take_volumes(const FakeDriver *fake, const DriverCreate *create, const char *name, GError **error)
{
    GPtrArray *volumes = create->shape ? create->shape->volumes : NULL;
    g_autofree char *folder = g_build_filename("volumes", fake->group, NULL);

    for (guint i = 0; volumes && i < volumes->len; i++) {
        const VolumeSpec *volume = g_ptr_array_index(volumes, i);
        g_autofree char *file = g_strdup_printf("%s-%u", volume->name, create->id.slot);
        g_autofree char *path = g_build_filename(fake->world->dir, folder, file, NULL);
        g_autoptr(GBytes) user = NULL;

        if (file_load(AT_FDCWD, path, 4096, &user, NULL) && g_bytes_get_size(user) > 0 && strcmp(g_bytes_get_data(user, NULL), name) != 0)
            return fail(error, "volume '%s' of slot %u is in use by '%s'", volume->name, create->id.slot, (const char *)g_bytes_get_data(user, NULL));
        if (!write_text(fake, folder, file, name, error))
            return false;
    }
    return true;
}

static json_t *new_document(Making *making, const DriverCreate *create, const char *address)
{
    const char *host = making->fake->hosts[create->host];
    bool boots = !fake_fault_fits(making->faults.rules, "boot_fails", &create->id, host, making->faults.counts);
    bool hangs = fake_fault_fits(making->faults.rules, "boot_hangs", &create->id, host, making->faults.counts);
    json_t *document = json_pack("{s:s, s:o, s:s, s:I, s:f, s:b, s:b, s:s}", "mark", create->id.group, "id", instance_id_json(&create->id), "address",
                                 address, "created", (json_int_t)g_get_real_time(), "boot", making->fake->boot, "boots", (int)boots, "hangs",
                                 (int)hangs, "state", "up");
    g_autofree char *seal = NULL;

    if (create->shape) {
        json_object_set_new(document, "memory", json_integer((json_int_t)create->shape->memory));
        json_object_set_new(document, "cpus", json_integer(create->shape->cpus));
    }
    seal = fake_instance_seal(document);
    json_object_set_new(document, "seal", json_string(seal));
    return document;
}

static bool same_again(const FakeInstance *there, const DriverCreate *create, GError **error)
{
    if (there->known && digest_equal(&there->id.image, &create->id.image))
        return true;
    return fail(error, "host '%s' has an instance '%s' of another image: destroy it first", there->host, there->name);
}

static FakeInstance *find_instance(const GPtrArray *instances, const char *name)
{
    for (guint low = 0, high = instances->len; low < high;) {
        guint middle = (low + high) / 2;
        FakeInstance *instance = g_ptr_array_index(instances, middle);
        int order = strcmp(name, instance->name);

        if (order == 0)
            return instance;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static bool create_one(Making *making, const GPtrArray *there, const DriverCreate *create, GError **error)
{
    const FakeDriver *fake = making->fake;
    const char *host = fake->hosts[create->host];
    g_autofree char *address = g_strdup(create->address), *file = NULL;
    g_autoptr(json_t) document = NULL;
    const FakeInstance *same;
    char name[96];

    instance_name(&create->id, name);
    if (host_fails(&making->faults, host, error))
        return false;
    same = find_instance(there, name);
    if (same)
        return same_again(same, create, error);
    if (fake_fault_fits(making->faults.rules, "create_fails", &create->id, host, making->faults.counts))
        return fail(error, "instance '%s' could not be created on host '%s': a fault was ordered", name, host);
    if (!check_image(making, create, error) || !take_volumes(fake, create, name, error))
        return false;
    if (!address && !(address = fresh_address(making->taken, &making->next)))
        return fail(error, "no address of 127.9.0.0/16 is left");
    document = new_document(making, create, address);
    file = g_strdup_printf("%s/%s.json", host, name);
    return write_document(fake, file, document, error);
}

static void note_addresses(Making *making, const GPtrArray *instances)
{
    making->taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (guint i = 0; i < instances->len; i++) {
        const FakeInstance *instance = g_ptr_array_index(instances, i);

        if (instance->address)
            g_hash_table_add(making->taken, g_strdup(instance->address));
    }
}

static bool fake_create(Driver *driver, const DriverCreate *creates, unsigned count, GError **errors, GError **error)
{
    FakeDriver *fake = (FakeDriver *)driver;
    Making making = {.fake = fake};
    g_autoptr(GPtrArray) instances = NULL;
    auto_fd int lock = -1;
    bool ok;

    if (!lock_world(fake, &lock, error) || !fake_world_read(fake->world, NULL, &instances, error))
        return false;
    ok = faults_load(fake, &making.faults, error);
    for (unsigned i = 0; ok && fake->hosts[i]; i++) {
        g_autofree char *folder = g_build_filename(fake->world->dir, fake->hosts[i], NULL);

        ok = file_make_dirs(folder, 0755, error);
    }
    note_addresses(&making, instances);
    for (unsigned i = 0; ok && i < count; i++)
        (void)create_one(&making, instances, &creates[i], &errors[i]);
    ok = ok && faults_store(fake, &making.faults, error);
    faults_clear(&making.faults);
    g_hash_table_unref(making.taken);
    return ok;
}

/* --- observe ------------------------------------------------------------------------------ */

static DriverInstance *report(const FakeInstance *from, int host, const Faults *faults)
{
    DriverInstance *instance = g_new0(DriverInstance, 1);

    instance->id = from->id;
    instance->name = g_strdup(from->name);
    instance->host = host;
    instance->life = fake_fault_names(faults->rules, "dies", from->name) ? LIFE_DEAD : fake_instance_life(from);
    instance->address = g_strdup(from->address);
    instance->started = from->created / G_USEC_PER_SEC;
    instance->known = from->known;
    if (from->edited)
        instance->drift = g_strdup_printf("the definition of '%s' was edited after it was created", from->name);
    return instance;
}

/* An instance that a rule let die stays dead when the rule goes. */
static bool bury(const FakeDriver *fake, const FakeInstance *instance, GError **error)
{
    g_autofree char *file = g_strdup_printf("%s/%s.json", instance->host, instance->name);
    g_autoptr(json_t) document = NULL;

    if (!fake_world_document(fake->world, file, &document, error))
        return false;
    if (!json_is_object(document))
        return true;
    json_object_set_new(document, "state", json_string("dead"));
    return write_document(fake, file, document, error);
}

static bool observe_host(FakeDriver *fake, unsigned host, const Faults *faults, GPtrArray *into, GError **error)
{
    g_autoptr(GPtrArray) instances = NULL;

    if (!fake_world_read(fake->world, fake->hosts[host], &instances, error))
        return false;
    for (guint i = 0; i < instances->len; i++) {
        const FakeInstance *instance = g_ptr_array_index(instances, i);

        if (strcmp(instance->mark, fake->group) != 0 && strcmp(instance->id.group, fake->group) != 0)
            continue;
        g_ptr_array_add(into, report(instance, (int)host, faults));
        if (!instance->dead && fake_fault_names(faults->rules, "dies", instance->name) && !bury(fake, instance, error))
            return false;
    }
    return true;
}

static bool fake_observe(Driver *driver, GPtrArray **ret, bool *answers, GError **error)
{
    FakeDriver *fake = (FakeDriver *)driver;
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)driver_instance_free);
    g_auto(Faults) faults = {NULL, NULL, NULL};

    if (!faults_load(fake, &faults, error))
        return false;
    for (unsigned i = 0; fake->hosts[i]; i++) {
        answers[i] = !silent(&faults, fake->hosts[i]);
        if (answers[i] && !observe_host(fake, i, &faults, list, error))
            return false;
    }
    *ret = g_steal_pointer(&list);
    return true;
}

/* --- proof, end, drift -------------------------------------------------------------------- */

static bool find_one(FakeDriver *fake, const DriverInstance *instance, const Faults *faults, FakeInstance **ret, GError **error)
{
    const char *host = fake->hosts[instance->host];
    g_autoptr(GPtrArray) instances = NULL;

    if (host_fails(faults, host, error) || !fake_world_read(fake->world, host, &instances, error))
        return false;
    *ret = find_instance(instances, instance->name);
    return *ret || fail_code(error, KILN_ERROR_NOT_FOUND, "host '%s' has no instance '%s'", host, instance->name);
}

static bool fake_attest(Driver *driver, const DriverInstance *instance, const StoreImage *image, const InstanceShape *shape, unsigned *ret_flags,
                        GError **error)
{
    FakeDriver *fake = (FakeDriver *)driver;
    g_auto(Faults) faults = {NULL, NULL, NULL};
    FakeInstance *there;
    auto_fd int lock = -1;

    if (!lock_world(fake, &lock, error) || !faults_load(fake, &faults, error) || !find_one(fake, instance, &faults, &there, error))
        return false;
    if (!there->known || there->edited)
        return fail(error, "the identity of '%s' was edited", there->name);
    if (!digest_equal(&there->id.image, &image->id))
        return fail(error, "'%s' runs another image than it should", there->name);
    if (fake_fault_fits(faults.rules, "wrong_image", &there->id, there->host, faults.counts))
        return faults_store(fake, &faults, error) && fail(error, "'%s' runs another image than it should: a fault was ordered", there->name);
    if (!image_there(fake, &image->id, error))
        return false;
    *ret_flags = PROVEN_METADATA | PROVEN_CHAIN | PROVEN_DIGEST;
    return true;
}

static bool fake_ping(Driver *driver, const DriverInstance *instance, GError **error)
{
    FakeDriver *fake = (FakeDriver *)driver;
    g_auto(Faults) faults = {NULL, NULL, NULL};
    FakeInstance *there;
    auto_fd int lock = -1;

    if (!lock_world(fake, &lock, error) || !faults_load(fake, &faults, error) || !find_one(fake, instance, &faults, &there, error))
        return false;
    if (fake_instance_life(there) != LIFE_RUNNING)
        return fail(error, "'%s' does not run", there->name);
    if (fake_fault_fits(faults.rules, "ping_fails", &there->id, there->host, faults.counts))
        return faults_store(fake, &faults, error) && fail(error, "the agent of '%s' does not answer: a fault was ordered", there->name);
    return true;
}

/* Gives back what volumes @name has; their files stay, empty. */
static bool leave_volumes(const FakeDriver *fake, const char *name, GError **error)
{
    g_autofree char *path = g_build_filename(fake->world->dir, "volumes", fake->group, NULL);
    auto_dir DIR *dir = opendir(path);
    struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        g_autoptr(GBytes) user = NULL;

        if (entry->d_name[0] != '.' && file_load(dirfd(dir), entry->d_name, 4096, &user, NULL) &&
            strcmp(g_bytes_get_data(user, NULL), name) == 0 && !file_replace(dirfd(dir), entry->d_name, "", 0, 0644, FILE_SYNC_NO, error))
            return false;
    }
    return true;
}

static bool destroy_one(const FakeDriver *fake, const Faults *faults, const DriverInstance *instance, GError **error)
{
    const char *host = fake->hosts[instance->host];
    g_autofree char *path = g_strdup_printf("%s/%s/%s.json", fake->world->dir, host, instance->name);

    if (host_fails(faults, host, error))
        return false;
    if (fake_fault_fits(faults->rules, "destroy_fails", &instance->id, host, faults->counts))
        return fail(error, "instance '%s' could not be destroyed on host '%s': a fault was ordered", instance->name, host);
    if (!leave_volumes(fake, instance->name, error))
        return false;
    if (unlink(path) < 0 && errno != ENOENT)
        return fail_errno(error, "remove '%s'", path);
    return true;
}

static bool fake_destroy(Driver *driver, const DriverInstance *const *instances, unsigned count, double grace, GError **errors, GError **error)
{
    const FakeDriver *fake = (const FakeDriver *)driver;
    g_auto(Faults) faults = {NULL, NULL, NULL};
    auto_fd int lock = -1;

    if (!lock_world(fake, &lock, error) || !faults_load(fake, &faults, error))
        return false;
    for (unsigned i = 0; i < count; i++)
        (void)destroy_one(fake, &faults, instances[i], &errors[i]);
    return faults_store(fake, &faults, error);
}

static bool fake_destroy_volumes(Driver *driver, GError **error)
{
    const FakeDriver *fake = (const FakeDriver *)driver;
    g_autofree char *path = g_build_filename(fake->world->dir, "volumes", fake->group, NULL);

    return file_remove_tree(AT_FDCWD, path, error);
}

static bool fake_changed_files(Driver *driver, const DriverInstance *instance, const StoreImage *image, GPtrArray **ret, GError **error)
{
    FakeDriver *fake = (FakeDriver *)driver;
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)drift_entry_free);
    g_autofree char *file = g_strdup_printf("changed/%s.json", instance->name);
    g_auto(Faults) faults = {NULL, NULL, NULL};
    g_autoptr(json_t) json = NULL;
    FakeInstance *there;
    const json_t *item;
    size_t i;

    if (!faults_load(fake, &faults, error) || !find_one(fake, instance, &faults, &there, error) ||
        !fake_world_document(fake->world, file, &json, error))
        return false;
    json_array_foreach (json, i, item) {
        DriftEntry *entry;
        const char *path, *what;

        if (!json_get_string(item, "path", NULL, &path, error) || !json_get_string(item, "what", "changed", &what, error) || !path)
            return false;
        entry = g_new0(DriftEntry, 1);
        entry->path = g_strdup(path);
        entry->what = g_strdup(what);
        g_ptr_array_add(list, entry);
    }
    *ret = g_steal_pointer(&list);
    return true;
}

static const char *fake_firewall(Driver *driver, const InstanceShape *shape)
{
    return NULL; /* nothing reaches what does not run */
}

#define FAKE_OPS(NAME, KIND, OPEN)                                                                                                                   \
    {                                                                                                                                                \
        .name = NAME, .kind = KIND, .check = fake_check, .open = OPEN, .close = fake_close, .host_count = fake_host_count,                           \
        .host_name = fake_host_name, .needs = fake_needs, .prepare = fake_prepare, .forget = fake_forget, .create = fake_create,                     \
        .observe = fake_observe, .attest = fake_attest, .ping = fake_ping, .destroy = fake_destroy, .destroy_volumes = fake_destroy_volumes,         \
        .changed_files = fake_changed_files, .firewall = fake_firewall,                                                                              \
    }

const DriverOps driver_fake_ops = FAKE_OPS("fake", "disk", open_disk);
const DriverOps driver_fake_oci_ops = FAKE_OPS("fake-oci", "oci", open_oci);
