/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver by hand, for scripts: driver-probe STORE DRIVER GROUP ARGUMENTS-JSON [SHAPE-JSON], then one command per line of its input.
 * Each is answered by lines that end with "done" or "failed: SENTENCE".
 *
 *   publish NAME VERSION BYTES            a disk that says KILN-BOOTED; becomes the image of what follows
 *   image REF                             one that the store has
 *   prepare | forget | needs COUNT | firewall
 *   create SLOT HOST [ADDRESS] | destroy NAME HOST GRACE | destroy-volumes
 *   observe | attest NAME | ping NAME | changed NAME | wait SECONDS
 *
 * SHAPE-JSON: memory, port, bridge, network, user_data, agent, allow, volumes {name: bytes}.
 */
#include "base/error.h"
#include "deploy/driver.h"
#include "tests/unit/disk-image-support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Probe {
    Store *store;
    const DriverOps *ops;
    Driver *driver;
    const char *group;
    InstanceShape shape;
    StoreImage *image;
    GPtrArray *seen; /* by the last observe */
} Probe;

static const char *const lives[] = {"none", "starting", "running", "dead", "unknown"};

static bool find(Probe *probe, const char *name, DriverInstance **ret, GError **error)
{
    for (guint i = 0; probe->seen && i < probe->seen->len; i++) {
        *ret = g_ptr_array_index(probe->seen, i);
        if (g_strcmp0((*ret)->name, name) == 0)
            return true;
    }
    return fail(error, "observe did not see '%s'", name);
}

static bool observe(Probe *probe, GError **error)
{
    unsigned count = probe->ops->host_count(probe->driver);
    g_autofree bool *answers = g_new0(bool, count);

    g_clear_pointer(&probe->seen, g_ptr_array_unref);
    if (!probe->ops->observe(probe->driver, &probe->seen, answers, error))
        return false;
    for (unsigned i = 0; i < count; i++)
        printf("host %u %s\n", i, answers[i] ? "answers" : "silent");
    for (guint i = 0; i < probe->seen->len; i++) {
        const DriverInstance *instance = g_ptr_array_index(probe->seen, i);

        printf("%s host=%d %s %s address=%s epoch=%ld drift=%s\n", instance->name, instance->host, lives[instance->life],
               instance->known ? "known" : "unknown", instance->address ? instance->address : "-", (long)instance->id.epoch,
               instance->drift ? instance->drift : "-");
    }
    return true;
}

static bool create(Probe *probe, char **words, GError **error)
{
    DriverCreate create = {.id = {.revision = 1, .attempt = 1, .epoch = 3}, .shape = &probe->shape, .prefix_length = 24};
    GError *errors[1] = {NULL};

    (void)g_strlcpy(create.id.group, probe->group, sizeof create.id.group);
    create.id.image = probe->image->id;
    create.id.slot = (uint32_t)atoi(words[1]);
    create.host = atoi(words[2]);
    create.address = words[3];
    if (!probe->ops->create(probe->driver, &create, 1, errors, error))
        return false;
    if (errors[0])
        g_propagate_error(error, errors[0]);
    return !errors[0];
}

static bool destroy(Probe *probe, char **words, GError **error)
{
    DriverInstance instance = {.name = words[1], .host = atoi(words[2])};
    const DriverInstance *const instances[] = {&instance};
    GError *errors[1] = {NULL};

    (void)instance_name_parse(words[1], &instance.id);
    if (!probe->ops->destroy(probe->driver, instances, 1, atof(words[3]), errors, error))
        return false;
    if (errors[0])
        g_propagate_error(error, errors[0]);
    return !errors[0];
}

static bool attest(Probe *probe, const char *name, GError **error)
{
    static const char *const words[] = {"metadata", "chain", "digest", "guest"};
    DriverInstance *instance;
    unsigned flags = 0;

    if (!find(probe, name, &instance, error) ||
        !probe->ops->attest(probe->driver, instance, probe->image, &probe->shape, &flags, error))
        return false;
    for (int i = 0; i < 4; i++)
        if (flags & 1u << i)
            printf("%s%s", words[i], flags >> (i + 1) ? "+" : "\n");
    return true;
}

static bool changed(Probe *probe, const char *name, GError **error)
{
    g_autoptr(GPtrArray) entries = NULL;
    DriverInstance *instance;

    if (!probe->ops->changed_files)
        return fail(error, "this driver does not look into disks");
    if (!find(probe, name, &instance, error) || !probe->ops->changed_files(probe->driver, instance, probe->image, &entries, error))
        return false;
    for (guint i = 0; i < entries->len; i++) {
        const DriftEntry *entry = g_ptr_array_index(entries, i);

        printf("%s %s\n", entry->what, entry->path);
    }
    return true;
}

static bool needs(Probe *probe, unsigned each, GError **error)
{
    unsigned count = probe->ops->host_count(probe->driver);
    g_autofree DriverNeeds *all = g_new0(DriverNeeds, count);
    g_autofree unsigned *counts = g_new0(unsigned, count);

    for (unsigned i = 0; i < count; i++)
        counts[i] = each;
    if (!probe->ops->needs(probe->driver, probe->image, &probe->shape, counts, all, error))
        return false;
    for (unsigned i = 0; i < count; i++)
        printf("host %u move=%lu disk=%lu memory=%lu room=%s\n", i, (unsigned long)all[i].bytes_to_move, (unsigned long)all[i].disk,
               (unsigned long)all[i].memory, all[i].disk_free > 0 && all[i].memory_free > 0 ? "known" : "unknown");
    return true;
}

static bool publish(Probe *probe, char **words)
{
    char oci[DIGEST_OCI_SIZE];

    store_image_free(probe->image);
    probe->image = disk_image_bootable(probe->store, words[1], (uint8_t)atoi(words[2]), (size_t)atol(words[3]));
    printf("%s\n", digest_to_oci(&probe->image->id, oci));
    return true;
}

static bool obey(Probe *probe, char **words, GError **error)
{
    const char *verb = words[0];
    g_autoptr(GArray) keep = g_array_new(FALSE, FALSE, sizeof(Digest));
    DriverInstance *instance;

    if (strcmp(verb, "publish") == 0 && g_strv_length(words) == 4)
        return publish(probe, words);
    if (strcmp(verb, "image") == 0 && words[1]) {
        g_clear_pointer(&probe->image, store_image_free);
        return store_resolve(probe->store, words[1], "disk", &probe->image, error);
    }
    if (strcmp(verb, "prepare") == 0)
        return probe->ops->prepare(probe->driver, probe->image, error);
    if (strcmp(verb, "forget") == 0)
        return probe->ops->forget(probe->driver, keep, error);
    if (strcmp(verb, "observe") == 0)
        return observe(probe, error);
    if (strcmp(verb, "create") == 0 && g_strv_length(words) >= 3)
        return create(probe, words, error);
    if (strcmp(verb, "destroy") == 0 && g_strv_length(words) == 4)
        return destroy(probe, words, error);
    if (strcmp(verb, "destroy-volumes") == 0)
        return probe->ops->destroy_volumes(probe->driver, error);
    if (strcmp(verb, "attest") == 0 && words[1])
        return attest(probe, words[1], error);
    if (strcmp(verb, "changed") == 0 && words[1])
        return changed(probe, words[1], error);
    if (strcmp(verb, "ping") == 0 && words[1])
        return find(probe, words[1], &instance, error) && probe->ops->ping(probe->driver, instance, error);
    if (strcmp(verb, "needs") == 0 && words[1])
        return needs(probe, (unsigned)atoi(words[1]), error);
    if (strcmp(verb, "firewall") == 0)
        return printf("%s\n", probe->ops->firewall(probe->driver, &probe->shape)) > 0;
    if (strcmp(verb, "wait") == 0 && words[1])
        return probe->ops->wait(probe->driver, atof(words[1])), true;
    return fail(error, "no such command: %s", verb);
}

static void read_shape(const char *text, InstanceShape *ret)
{
    json_t *json = json_loads(text, 0, NULL), *size;
    const char *name;

    if (!json)
        exit(2);
    ret->memory = (uint64_t)json_integer_value(json_object_get(json, "memory"));
    ret->port = (unsigned)json_integer_value(json_object_get(json, "port"));
    ret->bridge = g_strdup(json_string_value(json_object_get(json, "bridge")));
    ret->libvirt_network = g_strdup(json_string_value(json_object_get(json, "network")));
    ret->user_data = g_strdup(json_string_value(json_object_get(json, "user_data")));
    ret->agent = json_is_true(json_object_get(json, "agent"));
    if (json_object_get(json, "allow"))
        (void)json_get_strings(json, "allow", &ret->allow, NULL);
    if (json_object_get(json, "addresses"))
        (void)json_get_strings(json, "addresses", &ret->addresses, NULL);
    ret->volumes = g_ptr_array_new();
    json_object_foreach (json_object_get(json, "volumes"), name, size) {
        VolumeSpec *volume = g_new0(VolumeSpec, 1);

        volume->name = g_strdup(name);
        volume->size = (uint64_t)json_integer_value(size);
        g_ptr_array_add(ret->volumes, volume);
    }
}

int main(int argc, char **argv)
{
    Probe probe = {.shape = {.memory = 48 << 20, .cpus = 1}};
    g_autoptr(json_t) arguments = NULL;
    g_autoptr(GError) error = NULL;
    char line[1024];

    if (argc < 5 || !(arguments = json_loads(argv[4], 0, NULL)) || !(probe.ops = driver_find(argv[2], NULL)))
        return 2;
    probe.group = argv[3];
    if (argc > 5)
        read_shape(argv[5], &probe.shape);
    if (!store_open(argv[1], STORE_OPEN_CREATE, &probe.store, &error) ||
        !probe.ops->open(&(DriverConfig){.store = probe.store, .group = argv[3], .arguments = arguments, .shape = &probe.shape}, &probe.driver,
                         &error)) {
        fprintf(stderr, "driver-probe: %s\n", error->message);
        return 1;
    }
    while (fgets(line, sizeof line, stdin)) {
        g_auto(GStrv) words = g_strsplit(g_strchomp(line), " ", -1);
        gint64 begin = g_get_monotonic_time();

        if (!words[0])
            continue;
        if (obey(&probe, words, &error))
            printf("done %.1f\n", (double)(g_get_monotonic_time() - begin) / G_USEC_PER_SEC);
        else
            printf("failed: %s\n", error->message);
        g_clear_error(&error);
        (void)fflush(stdout);
    }
    g_clear_pointer(&probe.seen, g_ptr_array_unref);
    probe.ops->close(probe.driver);
    store_image_free(probe.image);
    store_close(probe.store);
    return 0;
}
