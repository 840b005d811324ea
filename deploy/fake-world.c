/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the fake driver's folder. A thousand instances are looked at many times in a rollout, so a file is parsed again only when its
 * stat differs: each write of it is a rename, which brings a new inode.
 */
#include "deploy/fake-world.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"

#include <fcntl.h>
#include <sys/stat.h>

#define DOCUMENT_MAX ((size_t)1 << 20)
#define INSTANCES_MAX 100000u

typedef struct Seen {
    struct stat st;
    FakeInstance *instance;
} Seen;

static void fake_instance_free(FakeInstance *instance)
{
    if (!instance)
        return;
    g_free(instance->name);
    g_free(instance->host);
    g_free(instance->mark);
    g_free(instance->address);
    g_free(instance);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FakeInstance, fake_instance_free)

static void seen_free(Seen *seen)
{
    fake_instance_free(seen->instance);
    g_free(seen);
}

FakeWorld *fake_world_new(const char *dir)
{
    FakeWorld *world = g_new0(FakeWorld, 1);

    world->dir = g_strdup(dir);
    world->seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)seen_free);
    return world;
}

void fake_world_free(FakeWorld *world)
{
    if (!world)
        return;
    g_hash_table_unref(world->seen);
    g_free(world->dir);
    g_free(world);
}

bool fake_world_document(const FakeWorld *world, const char *name, json_t **ret, GError **error)
{
    g_autofree char *path = g_build_filename(world->dir, name, NULL);
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GError) problem = NULL;

    *ret = NULL;
    if (!file_load(AT_FDCWD, path, DOCUMENT_MAX, &bytes, &problem)) {
        if (g_error_matches(problem, KILN_ERROR, KILN_ERROR_NOT_FOUND))
            return true;
        g_propagate_error(error, g_steal_pointer(&problem));
        return false;
    }
    return json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), DOCUMENT_MAX, path, ret, error);
}

/* --- instances ---------------------------------------------------------------------------- */

char *fake_instance_seal(const json_t *document)
{
    g_autoptr(json_t) sealed = json_object();
    Digest digest;
    char *hex = g_malloc(DIGEST_HEX_SIZE);
    static const char *const keys[] = {"mark", "id", "address", "created", "memory", "cpus", NULL};

    for (size_t i = 0; keys[i]; i++) {
        json_t *value = json_object_get(document, keys[i]);

        if (value)
            json_object_set(sealed, keys[i], value);
    }
    json_digest(sealed, &digest);
    return (char *)digest_to_hex(&digest, hex);
}

static void read_document(FakeInstance *instance, const json_t *json)
{
    g_autofree char *seal = fake_instance_seal(json);
    const char *mark, *address, *state, *said;
    const json_t *boot = json_object_get(json, "boot");
    InstanceId id;
    char name[96];

    if (!json_get_string(json, "mark", NULL, &mark, NULL) || !json_get_string(json, "address", NULL, &address, NULL) ||
        !json_get_string(json, "state", "up", &state, NULL) || !json_get_string(json, "seal", "", &said, NULL) ||
        !json_get_bool(json, "boots", true, &instance->boots, NULL) || !json_get_bool(json, "hangs", false, &instance->hangs, NULL) ||
        !json_get_int(json, "created", 0, &instance->created, NULL))
        return;
    instance->mark = g_strdup(mark);
    instance->address = g_strdup(address);
    instance->boot = json_is_number(boot) ? json_number_value(boot) : 0;
    instance->dead = strcmp(state, "up") != 0;
    instance->edited = strcmp(seal, said) != 0;
    if (!instance_id_parse(json_object_get(json, "id"), &id))
        return;
    instance_name(&id, name);
    if (strcmp(name, instance->name) != 0)
        return;
    instance->id = id;
    instance->known = true;
}

/* Whatever stands in the file, there is an instance of that name. */
static FakeInstance *load_instance(const char *path, const char *host, const char *name)
{
    FakeInstance *instance = g_new0(FakeInstance, 1);
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) json = NULL;

    instance->name = g_strdup(name);
    instance->host = g_strdup(host);
    (void)instance_name_parse(name, &instance->id);
    if (file_load(AT_FDCWD, path, DOCUMENT_MAX, &bytes, NULL) &&
        json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), DOCUMENT_MAX, path, &json, NULL))
        read_document(instance, json);
    if (!instance->mark)
        instance->mark = g_strdup(instance->id.group);
    return instance;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static FakeInstance *look_at(FakeWorld *world, const char *host, const char *file, const struct stat *st)
{
    g_autofree char *path = g_build_filename(world->dir, host, file, NULL);
    g_autofree char *name = g_strndup(file, strlen(file) - strlen(".json"));
    Seen *seen = g_hash_table_lookup(world->seen, path);

    if (!seen || !same_file(&seen->st, st)) {
        seen = g_new0(Seen, 1);
        seen->st = *st;
        seen->instance = load_instance(path, host, name);
        g_hash_table_replace(world->seen, g_strdup(path), seen);
    }
    return seen->instance;
}

static bool read_host(FakeWorld *world, const char *host, GPtrArray *into, GError **error)
{
    g_autofree char *path = g_build_filename(world->dir, host, NULL);
    auto_dir DIR *dir = opendir(path);
    struct dirent *entry;
    struct stat st;

    if (!dir)
        return errno == ENOENT || errno == ENOTDIR ? true : fail_errno(error, "read folder '%s'", path);
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.' || !g_str_has_suffix(entry->d_name, ".json") || fstatat(dirfd(dir), entry->d_name, &st, 0) < 0)
            continue;
        if (into->len >= INSTANCES_MAX)
            return fail(error, "'%s' holds more than %u instances", path, INSTANCES_MAX);
        g_ptr_array_add(into, look_at(world, host, entry->d_name, &st));
    }
    return true;
}

static bool read_hosts(FakeWorld *world, GPtrArray *into, GError **error)
{
    static const char *const other[] = {"images", "volumes", "changed", "entries", NULL};
    auto_dir DIR *dir = opendir(world->dir);
    struct dirent *entry;

    if (!dir)
        return errno == ENOENT ? true : fail_errno(error, "read folder '%s'", world->dir);
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.' && entry->d_type != DT_REG && !g_strv_contains(other, entry->d_name) &&
            !read_host(world, entry->d_name, into, error))
            return false;
    return true;
}

static int compare_instances(const void *a, const void *b)
{
    return strcmp((*(FakeInstance *const *)a)->name, (*(FakeInstance *const *)b)->name);
}

bool fake_world_read(FakeWorld *world, const char *host, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new();

    if (g_hash_table_size(world->seen) > INSTANCES_MAX)
        g_hash_table_remove_all(world->seen); /* mostly of instances that are gone */
    if (!(host ? read_host(world, host, list, error) : read_hosts(world, list, error)))
        return false;
    g_ptr_array_sort(list, compare_instances);
    *ret = g_steal_pointer(&list);
    return true;
}

Life fake_instance_life(const FakeInstance *instance)
{
    double age = (double)(g_get_real_time() - instance->created) / 1e6;

    if (instance->dead)
        return LIFE_DEAD;
    if (instance->hangs || age < instance->boot)
        return LIFE_STARTING;
    return instance->boots ? LIFE_RUNNING : LIFE_DEAD;
}

/* --- faults ------------------------------------------------------------------------------- */

bool fake_fault_names(const json_t *faults, const char *key, const char *word)
{
    const json_t *item;
    size_t i;

    json_array_foreach (json_object_get(faults, key), i, item)
        if (json_is_string(item) && strcmp(json_string_value(item), word) == 0)
            return true;
    return false;
}

static bool string_fits(const json_t *rule, const char *key, const char *value)
{
    const json_t *said = json_object_get(rule, key);

    return !said || (value && json_is_string(said) && strcmp(json_string_value(said), value) == 0);
}

static bool number_fits(const json_t *rule, const char *key, json_int_t value)
{
    const json_t *said = json_object_get(rule, key);

    return !said || (json_is_integer(said) && json_integer_value(said) == value);
}

static bool rule_fits(const json_t *rule, const InstanceId *id, const char *host)
{
    char image[DIGEST_OCI_SIZE], name[96];

    instance_name(id, name);
    return json_is_object(rule) && string_fits(rule, "image", digest_to_oci(&id->image, image)) && string_fits(rule, "name", name) &&
           string_fits(rule, "host", host) && number_fits(rule, "revision", id->revision) && number_fits(rule, "slot", id->slot);
}

/* True while the rule may fit once more; counts it. */
static bool take_one(const json_t *rule, const char *key, size_t index, json_t *counts)
{
    const json_t *times = json_object_get(rule, "times");
    g_autofree char *name = g_strdup_printf("%s/%zu", key, index);
    json_int_t used = json_integer_value(json_object_get(counts, name));

    if (!json_is_integer(times))
        return true;
    if (used >= json_integer_value(times))
        return false;
    if (counts)
        json_object_set_new(counts, name, json_integer(used + 1));
    return true;
}

bool fake_fault_fits(const json_t *faults, const char *key, const InstanceId *id, const char *host, json_t *counts)
{
    const json_t *rule;
    size_t i;

    json_array_foreach (json_object_get(faults, key), i, rule)
        if (rule_fits(rule, id, host) && take_one(rule, key, i, counts))
            return true;
    return false;
}
