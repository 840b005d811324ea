/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Driver "libvirt": instances are transient domains of one or several libvirt hosts (driver-libvirt.h draws the parts).
 *
 *   hosts     = ["qemu:///system", "qemu+tcp://h2/system"]   1 to 64 URIs; also test:///default, which runs nothing
 *   image_dir = "/var/lib/kiln/images"   where images are on the host; volumes are beside it, in "volumes"
 *   pool      = "kiln"                   storage pool of remote hosts; made over image_dir where it is absent
 *   type      = "auto"                   or "kvm", "qemu"; auto: KILN_ACCEL, else KVM where the host has it
 *   machine, emulator, cpu               as libvirt has them ("host": the host's processor); default: libvirt's choice
 *   console   = "pty"                    or "log": what the guest says is kept in /var/log/libvirt/qemu/NAME.console.log
 *   firewall  = "auto"                   or "nwfilter", "nft"; auto: nft on this host, nwfilter elsewhere
 *
 * Each host has a thread that does what is asked of it; who asked waits for all of them at once, and for a silent one no longer than
 * DRIVER_TIMEOUT. A host that was given up stays "does not answer" until its call has come back, so it costs that time once.
 *
 * Networks: a bridge or a libvirt network, or neither: then qemu's user-mode network, which forwards shape.port from the instance's address in
 * the list. So a machine without a bridge can run a group on 127.0.2.1, 127.0.2.2 and so on; qemu is no superuser, so ports below 1024 need
 * net.ipv4.ip_unprivileged_port_start there. An address of the list is given to
 * the guest by a reservation in the libvirt network, on a bridge by NoCloud's network-config.
 */
#include "deploy/driver-libvirt.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "base/units.h"
#include "deploy/members.h"
#include "deploy/overlay.h"

#include <string.h>
#include <unistd.h>

enum { HOSTS_MAX = 64, VOLUMES_MAX = 20, USER_DATA_MAX = 1 << 20, WORK_SECONDS = 60, LEAVE_SECONDS = 2, OVERHEAD = 64 << 20, FILE_COMPARED_MAX = 4 << 20 };
/* One second less: the answer has to be said, too. */
#define SILENCE (DRIVER_TIMEOUT - 1)
#define OVERLAY_SIZE (256u << 10) /* of one that nothing was written to */

typedef struct LibvirtDriver {
    Driver base;
    Store *store;
    LvConfig *config;
    LvBell *bell;
    unsigned count;
    char **uris;
    BoundedWorker **workers;
    Digest compared_image; /* that the table is of */
    GHashTable *compared;  /* path -> Digest*: files that the guest's agent is asked for */
} LibvirtDriver;

/* --- arguments --- */

static bool bad(const char **ret_argument, const char *argument, GError **error, const char *format, ...) G_GNUC_PRINTF(4, 5);
static bool bad(const char **ret_argument, const char *argument, GError **error, const char *format, ...)
{
    g_autofree char *sentence = NULL;
    va_list arguments;

    va_start(arguments, format);
    sentence = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    *ret_argument = argument;
    return fail_code(error, KILN_ERROR_USAGE, "%s", sentence);
}

static bool check_hosts(const json_t *arguments, char ***ret, const char **ret_argument, GError **error)
{
    g_auto(GStrv) hosts = NULL;

    *ret_argument = "hosts";
    if (!json_get_strings(arguments, "hosts", &hosts, error))
        return false;
    if (!hosts[0] || g_strv_length(hosts) > HOSTS_MAX)
        return bad(ret_argument, "hosts", error, "hosts names 1 to %d libvirt URIs, for example [\"qemu:///system\"]", HOSTS_MAX);
    for (char **host = hosts; *host; host++) {
        if (!domain_text_is_fit(*host) || !strstr(*host, "://"))
            return bad(ret_argument, "hosts", error, "'%s' is no libvirt URI; write for example qemu:///system or qemu+ssh://HOST/system", *host);
        if (g_strv_contains((const char *const *)(host + 1), *host))
            return bad(ret_argument, "hosts", error, "host '%s' stands there twice", *host);
    }
    *ret = g_steal_pointer(&hosts);
    return true;
}

static bool check_word(const json_t *arguments, const char *name, const char *const *words, const char **ret_argument, GError **error)
{
    const char *value = NULL;
    g_autofree char *all = NULL;

    *ret_argument = name;
    if (!json_get_string(arguments, name, words[0], &value, error))
        return false;
    if (g_strv_contains(words, value))
        return true;
    all = g_strjoinv(", ", (char **)words);
    return bad(ret_argument, name, error, "%s is one of: %s", name, all);
}

static bool check_text(const json_t *arguments, const char *name, bool path, const char **ret_argument, GError **error)
{
    const char *value = NULL;

    *ret_argument = name;
    if (!json_get_string(arguments, name, NULL, &value, error))
        return false;
    if (value && (!*value || !domain_text_is_fit(value) || strchr(value, ',')))
        return bad(ret_argument, name, error, "%s is no name or path that libvirt could take", name);
    if (value && path && !g_path_is_absolute(value))
        return bad(ret_argument, name, error, "%s is a path from the root, like /var/lib/kiln/images", name);
    return true;
}

static bool check_arguments(const json_t *arguments, const char **ret_argument, GError **error)
{
    static const char *const keys[] = {"hosts", "image_dir", "pool", "type", "machine", "emulator", "cpu", "console", "firewall", NULL};
    static const char *const types[] = {"auto", "kvm", "qemu", NULL}, *const consoles[] = {"pty", "log", NULL},
                             *const firewalls[] = {"auto", "nwfilter", "nft", NULL};
    const char *unknown = NULL;

    if (!json_only_keys(arguments, keys, &unknown)) {
        const char *near = units_nearest(unknown, keys);

        return bad(ret_argument, unknown, error, "driver \"libvirt\" has no argument '%s'%s%s%s", unknown, near ? "; did you mean '" : "", near ? near : "",
                   near ? "'?" : "");
    }
    return check_text(arguments, "image_dir", true, ret_argument, error) && check_text(arguments, "pool", false, ret_argument, error) &&
           check_text(arguments, "machine", false, ret_argument, error) && check_text(arguments, "emulator", true, ret_argument, error) &&
           check_text(arguments, "cpu", false, ret_argument, error) && check_word(arguments, "type", types, ret_argument, error) &&
           check_word(arguments, "console", consoles, ret_argument, error) && check_word(arguments, "firewall", firewalls, ret_argument, error);
}

/* --- the shape --- */

static bool check_volumes(const InstanceShape *shape, unsigned hosts, const char **ret_argument, GError **error)
{
    if (!shape->volumes || shape->volumes->len == 0)
        return true;
    if (hosts > 1) /* a slot's next instance may be placed anywhere, its volume stays where it is */
        return bad(ret_argument, "hosts", error, "a group with volumes has one host: a volume stays on the host where it was made");
    if (shape->volumes->len > VOLUMES_MAX)
        return bad(ret_argument, NULL, error, "at most %d volumes can be attached to an instance", VOLUMES_MAX);
    for (guint i = 0; i < shape->volumes->len; i++) {
        const VolumeSpec *volume = g_ptr_array_index(shape->volumes, i);

        if (!domain_text_is_fit(volume->name) || strlen(volume->name) > 20 || strchr(volume->name, '/') || volume->size < 1 << 20)
            return bad(ret_argument, NULL, error, "volume '%s': a name of at most 20 letters and a size of at least 1M are needed", volume->name);
    }
    return true;
}

static bool check_network(const InstanceShape *shape, char *const *hosts, const char **ret_argument, GError **error)
{
    bool own = !shape->bridge && !shape->libvirt_network;

    if ((shape->bridge && !domain_text_is_fit(shape->bridge)) || (shape->libvirt_network && !domain_text_is_fit(shape->libvirt_network)))
        return bad(ret_argument, NULL, error, "the network's name has bytes that no network has");
    for (char *const *host = hosts; own && shape->port > 0 && *host; host++) {
        if (lv_uri_is_test(*host))
            continue;
        if (lv_uri_has_server(*host))
            return bad(ret_argument, "hosts", error, "instances on %s need a bridge or a libvirt_network: without one they are reached on this host only", *host);
        if (!shape->addresses || !shape->addresses[0])
            return bad(ret_argument, NULL, error,
                       "without a bridge or a libvirt_network, `addresses` of this host are needed (like 127.0.2.1-127.0.2.9): port %u is forwarded from them",
                       shape->port);
    }
    return true;
}

static bool check_shape(const InstanceShape *shape, char *const *hosts, const char **ret_argument, GError **error)
{
    g_autofree char *name = NULL, *xml = NULL;

    *ret_argument = NULL;
    if (shape->memory < 16 << 20 || shape->memory > (uint64_t)1 << 44)
        return bad(ret_argument, NULL, error, "an instance has 16M to 16384G of memory");
    if (shape->cpus < 1 || shape->cpus > 512)
        return bad(ret_argument, NULL, error, "an instance has 1 to 512 processors");
    if (shape->environment && shape->environment[0])
        return bad(ret_argument, NULL, error, "environment is for containers; a machine is told things by user_data");
    if (shape->user_data && strlen(shape->user_data) > USER_DATA_MAX)
        return bad(ret_argument, NULL, error, "user_data has over %d bytes", USER_DATA_MAX);
    if (shape->allow && !domain_filter_xml("group", shape->allow, &name, &xml, error))
        return false;
    return check_network(shape, hosts, ret_argument, error) && check_volumes(shape, g_strv_length((char **)hosts), ret_argument, error);
}

static bool libvirt_check(const json_t *arguments, const InstanceShape *shape, const char **ret_argument, GError **error)
{
    g_auto(GStrv) hosts = NULL;
    const char *ignored;

    ret_argument = ret_argument ? ret_argument : &ignored;
    return check_arguments(arguments, ret_argument, error) && check_hosts(arguments, &hosts, ret_argument, error) &&
           (!shape || check_shape(shape, hosts, ret_argument, error));
}

/* --- open and close --- */

static char *default_image_dir(void)
{
    return geteuid() == 0 ? g_strdup("/var/lib/kiln/images") : g_build_filename(g_get_user_data_dir(), "kiln", "images", NULL);
}

static const char *text_argument(const json_t *arguments, const char *name)
{
    return json_string_value(json_object_get(arguments, name));
}

/* By the URIs, since a plan must not depend on who answers. */
static bool has_remote(char *const *hosts)
{
    for (; *hosts; hosts++)
        if (lv_uri_has_server(*hosts))
            return true;
    return false;
}

static LvConfig *config_new(const DriverConfig *from, char *const *hosts)
{
    LvConfig *config = g_new0(LvConfig, 1);
    const char *folder = text_argument(from->arguments, "image_dir"), *pool = text_argument(from->arguments, "pool"),
               *type = text_argument(from->arguments, "type"), *firewall = text_argument(from->arguments, "firewall");
    g_autofree char *parent = NULL;

    config->refs = 1;
    config->group = g_strdup(from->group);
    config->image_dir = folder ? g_canonicalize_filename(folder, "/") : default_image_dir();
    parent = g_path_get_dirname(config->image_dir);
    config->volume_dir = g_build_filename(parent, "volumes", NULL);
    config->pool = g_strdup(pool ? pool : "kiln");
    config->type = g_strdup(type && !g_str_equal(type, "auto") ? type : NULL);
    config->machine = g_strdup(text_argument(from->arguments, "machine"));
    config->emulator = g_strdup(text_argument(from->arguments, "emulator"));
    config->cpu = g_strdup(text_argument(from->arguments, "cpu"));
    config->console_log = g_strcmp0(text_argument(from->arguments, "console"), "log") == 0;
    config->nwfilter = g_strcmp0(firewall, "nwfilter") == 0 || (g_strcmp0(firewall, "nft") != 0 && has_remote(hosts));
    return config;
}

static void free_host(gpointer host)
{
    lv_host_free(host);
}

static void libvirt_close(Driver *driver)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;

    if (!self)
        return;
    for (unsigned i = 0; i < self->count; i++)
        bounded_worker_free(self->workers[i], LEAVE_SECONDS);
    g_free(self->workers);
    g_strfreev(self->uris);
    lv_config_unref(self->config);
    lv_bell_unref(self->bell);
    if (self->compared)
        g_hash_table_unref(self->compared);
    g_free(self);
}

static bool libvirt_open(const DriverConfig *config, Driver **ret, GError **error)
{
    g_auto(GStrv) hosts = NULL;
    const char *argument = NULL;
    LibvirtDriver *self;

    if (!libvirt_check(config->arguments, config->shape, &argument, error) || !check_hosts(config->arguments, &hosts, &argument, error))
        return false;
    lv_start();
    self = g_new0(LibvirtDriver, 1);
    self->base.ops = &driver_libvirt_ops;
    self->store = config->store;
    self->config = config_new(config, hosts);
    self->bell = lv_bell_new();
    self->count = g_strv_length(hosts);
    self->uris = g_steal_pointer(&hosts);
    self->workers = g_new0(BoundedWorker *, self->count);
    for (unsigned i = 0; i < self->count; i++)
        self->workers[i] = bounded_worker_new(lv_host_new(self->uris[i], self->config, self->bell), free_host);
    *ret = &self->base;
    return true;
}

static unsigned libvirt_host_count(Driver *driver)
{
    return ((LibvirtDriver *)driver)->count;
}

static const char *libvirt_host_name(Driver *driver, unsigned host)
{
    return ((LibvirtDriver *)driver)->uris[host];
}

/* --- handing out work --- */

/* NULL when the host still hangs in an earlier call. Takes @data. */
static BoundedCall *start(LibvirtDriver *self, unsigned host, BoundedRun *run, void *data, GDestroyNotify free_data, GError **error)
{
    g_autoptr(BoundedCall) call = bounded_call_new(run, data, free_data);

    if (bounded_call_start(self->workers[host], call))
        return g_steal_pointer(&call);
    (void)fail_code(error, KILN_ERROR_TIMEOUT, "host %s still does not answer", self->uris[host]);
    return NULL;
}

static bool finish(LibvirtDriver *self, unsigned host, BoundedCall *call, double silence, GError **error)
{
    g_autofree char *what = g_strdup_printf("host %s", self->uris[host]);

    return bounded_call_wait(call, silence, what, error);
}

static bool host_is_valid(LibvirtDriver *self, int host, GError **error)
{
    return (host >= 0 && (unsigned)host < self->count) || fail(error, "the group has no host %d", host);
}

static void free_calls(BoundedCall **calls, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        bounded_call_unref(calls[i]);
    g_free(calls);
}

/* --- images --- */

typedef struct ImageJob {
    HostImageWant want;
    StoreMap *map;
    HostKind kind;
    GArray *keep;
    bool is_there;
    uint64_t room, memory_free;
} ImageJob;

static void free_image_job(gpointer p)
{
    ImageJob *job = p;

    store_map_unref(job->map);
    if (job->keep)
        g_array_unref(job->keep);
    g_free(job);
}

/* First look: what kind of host it is, and what instances have left behind there. */
static bool run_look(void *host, void *data, BoundedCall *call, GError **error)
{
    ImageJob *job = data;
    g_autoptr(GHashTable) files = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GHashTable) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    if (!lv_kind(host, &job->kind, error))
        return false;
    bounded_call_tick(call);
    if (lv_used_files(host, files, names, call, NULL))
        lv_sweep(host, names);
    return true;
}

static bool run_upload(void *host, void *data, BoundedCall *call, GError **error)
{
    ImageJob *job = data;

    return lv_image_upload(host, &job->want, job->map, call, error);
}

/* Remote hosts one after the other: they share this host's line, and each has its bar. */
static bool upload(LibvirtDriver *self, unsigned host, const HostImageWant *want, const StoreImage *image, GError **error)
{
    ImageJob *job = g_new0(ImageJob, 1);
    g_autoptr(BoundedCall) call = NULL;

    job->want = *want;
    if (!store_map_open(self->store, &image->map, &job->map, error)) {
        free_image_job(job);
        return false;
    }
    call = start(self, host, run_upload, job, free_image_job, error);
    return call && finish(self, host, call, WORK_SECONDS, error);
}

static bool bring(LibvirtDriver *self, unsigned host, HostKind kind, const HostImageWant *want, const StoreImage *image, bool *ret_local_done,
                  GError **error)
{
    if (kind == HOST_REMOTE)
        return upload(self, host, want, image, error);
    if (*ret_local_done)
        return true;
    *ret_local_done = host_image_prepare(self->config->image_dir, self->store, image, error);
    return *ret_local_done;
}

static void start_on_all(LibvirtDriver *self, BoundedRun *run, const HostImageWant *want, const GArray *keep, BoundedCall **ret, GError **errors)
{
    for (unsigned i = 0; i < self->count; i++) {
        ImageJob *job = g_new0(ImageJob, 1);

        if (want)
            job->want = *want;
        job->keep = g_array_new(FALSE, FALSE, sizeof(Digest));
        if (keep && keep->len > 0)
            g_array_append_vals(job->keep, keep->data, keep->len);
        ret[i] = start(self, i, run, job, free_image_job, errors ? &errors[i] : NULL);
    }
}

static bool libvirt_prepare(Driver *driver, const StoreImage *image, GError **error)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;
    BoundedCall **calls = g_new0(BoundedCall *, self->count);
    bool ok = true, local_done = false;
    unsigned answered = 0;
    HostImageWant want;

    if (!host_image_want(self->store, &image->id, &want, error)) {
        g_free(calls);
        return false;
    }
    start_on_all(self, run_look, &want, NULL, calls, NULL);
    for (unsigned i = 0; ok && i < self->count; i++) {
        g_autoptr(GError) why = NULL;

        if (!calls[i] || !finish(self, i, calls[i], SILENCE, &why)) {
            log_warning("%s; the image is not brought there", why ? why->message : self->uris[i]);
            continue;
        }
        answered++;
        ok = interrupt_check(error) && bring(self, i, ((ImageJob *)bounded_call_data(calls[i]))->kind, &want, image, &local_done, error);
    }
    free_calls(calls, self->count);
    return ok && (answered > 0 || fail(error, "none of the group's hosts answers"));
}

static bool run_forget(void *host, void *data, BoundedCall *call, GError **error)
{
    ImageJob *job = data;
    g_autoptr(GHashTable) files = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GHashTable) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    if (!lv_kind(host, &job->kind, error) || !lv_used_files(host, files, names, call, error))
        return false;
    lv_sweep(host, names);
    return lv_images_forget(host, job->keep, files, error);
}

static bool libvirt_forget(Driver *driver, const GArray *keep, GError **error)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;
    BoundedCall **calls = g_new0(BoundedCall *, self->count);
    bool ok = true;

    start_on_all(self, run_forget, NULL, keep, calls, NULL);
    for (unsigned i = 0; i < self->count; i++) {
        g_autoptr(GError) why = NULL;

        if (calls[i] && !finish(self, i, calls[i], SILENCE, &why))
            log_verbose("images stay on %s: %s", self->uris[i], why->message);
    }
    free_calls(calls, self->count);
    return ok;
}

/* --- needs --- */

/* 0: not known. */
static uint64_t free_memory(LvHost *host)
{
    g_autofree virNodeMemoryStats *stats = NULL;
    uint64_t kib = 0;
    int count = 0;

    if (virNodeGetMemoryStats(host->connection, VIR_NODE_MEMORY_STATS_ALL_CELLS, NULL, &count, 0) < 0 || count <= 0 || count > 64)
        return 0;
    stats = g_new0(virNodeMemoryStats, (gsize)count);
    if (virNodeGetMemoryStats(host->connection, VIR_NODE_MEMORY_STATS_ALL_CELLS, stats, &count, 0) < 0)
        return 0;
    for (int i = 0; i < count; i++)
        if (g_str_equal(stats[i].field, VIR_NODE_MEMORY_STATS_FREE) || g_str_equal(stats[i].field, VIR_NODE_MEMORY_STATS_BUFFERS) ||
            g_str_equal(stats[i].field, VIR_NODE_MEMORY_STATS_CACHED))
            kib += stats[i].value;
    return kib * 1024;
}

static bool run_needs(void *arg, void *data, BoundedCall *call, GError **error)
{
    LvHost *host = arg;
    ImageJob *job = data;

    if (!lv_kind(host, &job->kind, error))
        return false;
    job->is_there = lv_image_is_there(host, &job->want);
    job->room = lv_room(host);
    job->memory_free = job->kind == HOST_TEST ? 0 : free_memory(host);
    return true;
}

/* What is certain: the image, an empty overlay each, volumes. What guests write comes on top, and nobody can know it. */
static void count_needs(const ImageJob *job, const InstanceShape *shape, unsigned count, uint64_t data_size, DriverNeeds *ret)
{
    uint64_t volumes = 0;

    for (guint i = 0; shape->volumes && i < shape->volumes->len; i++)
        volumes += ((const VolumeSpec *)g_ptr_array_index(shape->volumes, i))->size;
    ret->bytes_to_move = job->is_there ? 0 : data_size;
    ret->disk = ret->bytes_to_move + count * (OVERLAY_SIZE + volumes);
    ret->disk_free = job->room;
    ret->memory = count * (shape->memory + OVERHEAD);
    ret->memory_free = job->memory_free;
}

static bool libvirt_needs(Driver *driver, const StoreImage *image, const InstanceShape *shape, const unsigned *counts, DriverNeeds *ret, GError **error)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;
    BoundedCall **calls;
    g_autoptr(StoreMap) map = NULL;
    HostImageWant want;

    memset(ret, 0, self->count * sizeof *ret);
    if (!host_image_want(self->store, &image->id, &want, error) || !store_map_open(self->store, &image->map, &map, error))
        return false;
    calls = g_new0(BoundedCall *, self->count);
    start_on_all(self, run_needs, &want, NULL, calls, NULL);
    for (unsigned i = 0; i < self->count; i++)
        if (calls[i] && finish(self, i, calls[i], SILENCE, NULL))
            count_needs(bounded_call_data(calls[i]), shape, counts[i], store_map_data_size(map), &ret[i]);
    free_calls(calls, self->count);
    return true;
}

/* --- create --- */

typedef struct CreateJob {
    GArray *creates; /* of LvCreate */
    GArray *places;  /* of unsigned: where each stands in the caller's list */
} CreateJob;

static void free_volume_spec(gpointer p)
{
    VolumeSpec *volume = p;

    g_free(volume->name);
    g_free(volume->mount);
    g_free(volume);
}

static void free_shape(InstanceShape *shape)
{
    if (!shape)
        return;
    g_free(shape->user_data);
    g_free(shape->bridge);
    g_free(shape->libvirt_network);
    g_free(shape->gateway);
    g_strfreev(shape->allow);
    if (shape->volumes)
        g_ptr_array_unref(shape->volumes);
    g_free(shape);
}

/* Of what a create needs: the call may outlive the caller's. */
static InstanceShape *copy_shape(const InstanceShape *from)
{
    InstanceShape *shape = g_new0(InstanceShape, 1);

    *shape = (InstanceShape){.memory = from->memory, .cpus = from->cpus, .port = from->port, .agent = from->agent};
    shape->user_data = g_strdup(from->user_data);
    shape->bridge = g_strdup(from->bridge);
    shape->libvirt_network = g_strdup(from->libvirt_network);
    shape->gateway = g_strdup(from->gateway);
    shape->allow = g_strdupv(from->allow);
    shape->volumes = g_ptr_array_new_with_free_func(free_volume_spec);
    for (guint i = 0; from->volumes && i < from->volumes->len; i++) {
        const VolumeSpec *volume = g_ptr_array_index(from->volumes, i);
        VolumeSpec *copy = g_new0(VolumeSpec, 1);

        copy->name = g_strdup(volume->name);
        copy->size = volume->size;
        g_ptr_array_add(shape->volumes, copy);
    }
    return shape;
}

static void clear_create(gpointer p)
{
    LvCreate *create = p;

    g_free(create->address);
    free_shape(create->shape);
    g_clear_error(&create->error);
}

static void free_create_job(gpointer p)
{
    CreateJob *job = p;

    g_array_unref(job->creates);
    g_array_unref(job->places);
    g_free(job);
}

static bool run_create(void *host, void *data, BoundedCall *call, GError **error)
{
    CreateJob *job = data;

    for (guint i = 0; i < job->creates->len && !bounded_call_given_up(call); i++)
        lv_create(host, &g_array_index(job->creates, LvCreate, i), call);
    return true;
}

/* The image's identity, from the store; the same one in a row is looked up once. */
static bool want_for(LibvirtDriver *self, const Digest *id, HostImageWant *want, GError **error)
{
    if (!digest_is_none(&want->id) && digest_equal(&want->id, id))
        return true;
    return host_image_want(self->store, id, want, error) || fail_prefix(error, "the instance's image");
}

static CreateJob *collect_creates(LibvirtDriver *self, unsigned host, const DriverCreate *creates, unsigned count, GError **errors)
{
    CreateJob *job = g_new0(CreateJob, 1);
    HostImageWant want = {.size = 0};

    job->creates = g_array_new(FALSE, TRUE, sizeof(LvCreate));
    g_array_set_clear_func(job->creates, clear_create);
    job->places = g_array_new(FALSE, TRUE, sizeof(unsigned));
    for (unsigned i = 0; i < count; i++) {
        const char *argument;
        LvCreate create = {.id = creates[i].id, .prefix_length = creates[i].prefix_length};

        if (creates[i].host != (int)host || !want_for(self, &create.id.image, &want, &errors[i]) ||
            !check_shape(creates[i].shape, self->uris, &argument, &errors[i]))
            continue;
        create.want = want;
        create.address = g_strdup(creates[i].address);
        create.shape = copy_shape(creates[i].shape);
        g_array_append_val(job->creates, create);
        g_array_append_val(job->places, i);
    }
    return job;
}

/* Those that a host that has gone silent was still to make. */
static void blame(const DriverCreate *creates, unsigned count, unsigned host, const GError *why, GError **errors)
{
    for (unsigned i = 0; i < count; i++)
        if (creates[i].host == (int)host && !errors[i])
            errors[i] = g_error_copy(why);
}

static void take_outcomes(CreateJob *job, GError **errors)
{
    for (guint i = 0; i < job->creates->len; i++)
        errors[g_array_index(job->places, unsigned, i)] = g_steal_pointer(&g_array_index(job->creates, LvCreate, i).error);
}

static bool libvirt_create(Driver *driver, const DriverCreate *creates, unsigned count, GError **errors, GError **error)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;
    BoundedCall **calls;

    for (unsigned i = 0; i < count; i++)
        if (!host_is_valid(self, creates[i].host, error))
            return false;
    calls = g_new0(BoundedCall *, self->count);
    for (unsigned i = 0; i < self->count; i++) {
        CreateJob *job = collect_creates(self, i, creates, count, errors);
        g_autoptr(GError) why = NULL;

        if (job->creates->len == 0)
            free_create_job(job);
        else if (!(calls[i] = start(self, i, run_create, job, free_create_job, &why)))
            blame(creates, count, i, why, errors);
    }
    for (unsigned i = 0; i < self->count; i++) {
        g_autoptr(GError) why = NULL;

        if (!calls[i])
            continue;
        if (finish(self, i, calls[i], WORK_SECONDS, &why))
            take_outcomes(bounded_call_data(calls[i]), errors);
        else
            blame(creates, count, i, why, errors);
    }
    free_calls(calls, self->count);
    return true;
}

/* --- observe --- */

static void free_instance(gpointer instance)
{
    driver_instance_free(instance);
}

static void free_instances(gpointer instances)
{
    g_ptr_array_unref(instances);
}

static bool run_observe(void *host, void *data, BoundedCall *call, GError **error)
{
    return lv_observe(host, data, call, error);
}

static void take_instances(GPtrArray *from, int host, GPtrArray *to)
{
    for (guint i = 0; i < from->len; i++) {
        DriverInstance *instance = g_ptr_array_index(from, i);

        instance->host = host;
        g_ptr_array_add(to, instance);
    }
    g_ptr_array_set_free_func(from, NULL);
    g_ptr_array_set_size(from, 0);
}

static bool libvirt_observe(Driver *driver, GPtrArray **ret, bool *answers, GError **error)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;
    g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func(free_instance);
    BoundedCall **calls = g_new0(BoundedCall *, self->count);

    for (unsigned i = 0; i < self->count; i++)
        calls[i] = start(self, i, run_observe, g_ptr_array_new_with_free_func(free_instance), free_instances, NULL);
    for (unsigned i = 0; i < self->count; i++) {
        g_autoptr(GError) why = NULL;

        answers[i] = calls[i] && finish(self, i, calls[i], SILENCE, &why);
        if (answers[i])
            take_instances(bounded_call_data(calls[i]), (int)i, all);
        else
            trace("deploy.libvirt", "%s: %s", self->uris[i], why ? why->message : "still hangs");
    }
    free_calls(calls, self->count);
    *ret = g_steal_pointer(&all);
    return true;
}

/* --- one instance --- */

typedef struct InstanceJob {
    char *name;
    InstanceId id;
    HostImageWant want;
    GHashTable *compare; /* NULL: the agent is not asked */
    unsigned flags;
} InstanceJob;

static void free_instance_job(gpointer p)
{
    InstanceJob *job = p;

    g_free(job->name);
    if (job->compare)
        g_hash_table_unref(job->compare);
    g_free(job);
}

/* Regular files that a running system leaves as they are, unless its packages change. */
static bool find_compared(LibvirtDriver *self, const StoreImage *image, GError **error)
{
    static const char *const paths[] = {"usr/lib/os-release", "var/lib/dpkg/status", "lib/apk/db/installed", "usr/lib/sysimage/rpm/rpmdb.sqlite",
                                        "usr/bin/env", NULL};
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;

    if (self->compared && digest_equal(&self->compared_image, &image->id))
        return true;
    g_clear_pointer(&self->compared, g_hash_table_unref);
    if (digest_is_none(&image->tree.tree))
        return true;
    if (!tree_load(self->store, &image->tree, &tree, &files, error))
        return false;
    self->compared = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    self->compared_image = image->id;
    for (size_t i = 0; paths[i]; i++) {
        const TreeEntry *entry = tree_find(tree, paths[i]);

        if (entry && entry->type == 'f' && entry->size <= FILE_COMPARED_MAX)
            g_hash_table_insert(self->compared, g_strdup(paths[i]), g_memdup2(&entry->sha256, sizeof entry->sha256));
    }
    return true;
}

static bool run_attest(void *host, void *data, BoundedCall *call, GError **error)
{
    InstanceJob *job = data;
    bool proven = false;

    if (!lv_attest(host, job->name, &job->id, &job->want, call, &job->flags, error))
        return false;
    if (job->compare && !lv_guest_compare(host, job->name, job->compare, call, &proven, error))
        return false;
    job->flags |= proven ? PROVEN_GUEST : 0;
    return true;
}

static bool libvirt_attest(Driver *driver, const DriverInstance *instance, const StoreImage *image, const InstanceShape *shape, unsigned *ret_flags,
                           GError **error)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;
    g_autoptr(BoundedCall) call = NULL;
    InstanceJob *job;
    HostImageWant want;

    *ret_flags = 0;
    if (!host_is_valid(self, instance->host, error) || !host_image_want(self->store, &image->id, &want, error) ||
        (shape->agent && !find_compared(self, image, error)))
        return false;
    job = g_new0(InstanceJob, 1);
    *job = (InstanceJob){.name = g_strdup(instance->name), .id = instance->id, .want = want};
    if (shape->agent && self->compared)
        job->compare = g_hash_table_ref(self->compared);
    call = start(self, (unsigned)instance->host, run_attest, job, free_instance_job, error);
    if (!call || !finish(self, (unsigned)instance->host, call, SILENCE, error))
        return false;
    *ret_flags = job->flags;
    return true;
}

static bool run_ping(void *host, void *data, BoundedCall *call, GError **error)
{
    return lv_ping(host, ((InstanceJob *)data)->name, error);
}

static bool libvirt_ping(Driver *driver, const DriverInstance *instance, GError **error)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;
    g_autoptr(BoundedCall) call = NULL;
    InstanceJob *job;

    if (!host_is_valid(self, instance->host, error))
        return false;
    job = g_new0(InstanceJob, 1);
    job->name = g_strdup(instance->name);
    call = start(self, (unsigned)instance->host, run_ping, job, free_instance_job, error);
    return call && finish(self, (unsigned)instance->host, call, SILENCE, error);
}

/* --- what has changed on its disk --- */

typedef struct SnapshotJob {
    char *name, *base;
    int fd;
} SnapshotJob;

static void free_snapshot_job(gpointer p)
{
    SnapshotJob *job = p;

    if (job->fd >= 0)
        (void)close(job->fd);
    g_free(job->name);
    g_free(job->base);
    g_free(job);
}

static bool run_snapshot(void *host, void *data, BoundedCall *call, GError **error)
{
    SnapshotJob *job = data;

    return lv_snapshot(host, job->name, call, &job->fd, &job->base, error);
}

static bool libvirt_changed_files(Driver *driver, const DriverInstance *instance, const StoreImage *image, GPtrArray **ret, GError **error)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;
    g_autoptr(BoundedCall) call = NULL;
    g_autofree char *path = NULL;
    SnapshotJob *job;

    if (!host_is_valid(self, instance->host, error))
        return false;
    job = g_new0(SnapshotJob, 1);
    job->name = g_strdup(instance->name);
    job->fd = -1;
    call = start(self, (unsigned)instance->host, run_snapshot, job, free_snapshot_job, error);
    if (!call || !finish(self, (unsigned)instance->host, call, SILENCE, error))
        return false;
    if (!job->base) {
        *ret = g_ptr_array_new();
        return true;
    }
    path = g_strdup_printf("/proc/self/fd/%d", job->fd);
    return overlay_changes(self->store, path, job->base, image, ret, error) || fail_prefix(error, "'%s'", instance->name);
}

/* --- destroy --- */

typedef struct DestroyJob {
    char **names;
    unsigned *places;
    GError **errors;
    unsigned count;
    double grace;
} DestroyJob;

static void free_destroy_job(gpointer p)
{
    DestroyJob *job = p;

    for (unsigned i = 0; i < job->count; i++)
        g_clear_error(&job->errors[i]);
    g_strfreev(job->names);
    g_free(job->errors);
    g_free(job->places);
    g_free(job);
}

static bool run_destroy(void *host, void *data, BoundedCall *call, GError **error)
{
    DestroyJob *job = data;

    lv_destroy(host, job->names, job->count, job->grace, job->errors, call);
    return true;
}

static DestroyJob *collect_destroys(unsigned host, const DriverInstance *const *instances, unsigned count, double grace)
{
    DestroyJob *job = g_new0(DestroyJob, 1);

    job->names = g_new0(char *, count + 1);
    job->places = g_new0(unsigned, count);
    job->errors = g_new0(GError *, count);
    job->grace = grace;
    for (unsigned i = 0; i < count; i++)
        if (instances[i]->host == (int)host) {
            job->places[job->count] = i;
            job->names[job->count++] = g_strdup(instances[i]->name);
        }
    return job;
}

static void blame_destroys(const DriverInstance *const *instances, unsigned count, unsigned host, const GError *why, GError **errors)
{
    for (unsigned i = 0; i < count; i++)
        if (instances[i]->host == (int)host && !errors[i])
            errors[i] = g_error_copy(why);
}

static bool libvirt_destroy(Driver *driver, const DriverInstance *const *instances, unsigned count, double grace, GError **errors, GError **error)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;
    BoundedCall **calls;

    for (unsigned i = 0; i < count; i++)
        if (!host_is_valid(self, instances[i]->host, error))
            return false;
    calls = g_new0(BoundedCall *, self->count);
    for (unsigned i = 0; i < self->count; i++) {
        DestroyJob *job = collect_destroys(i, instances, count, grace);
        g_autoptr(GError) why = NULL;

        if (job->count == 0)
            free_destroy_job(job);
        else if (!(calls[i] = start(self, i, run_destroy, job, free_destroy_job, &why)))
            blame_destroys(instances, count, i, why, errors);
    }
    for (unsigned i = 0; i < self->count; i++) {
        g_autoptr(GError) why = NULL;

        if (calls[i] && !finish(self, i, calls[i], WORK_SECONDS, &why)) {
            blame_destroys(instances, count, i, why, errors);
        } else if (calls[i]) {
            DestroyJob *job = bounded_call_data(calls[i]);

            for (unsigned k = 0; k < job->count; k++)
                errors[job->places[k]] = g_steal_pointer(&job->errors[k]);
        }
    }
    free_calls(calls, self->count);
    return true;
}

static bool run_destroy_volumes(void *host, void *data, BoundedCall *call, GError **error)
{
    HostKind kind;

    return lv_kind(host, &kind, error) && lv_volumes_remove(host, error);
}

static bool libvirt_destroy_volumes(Driver *driver, GError **error)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;

    for (unsigned i = 0; i < self->count; i++) {
        g_autoptr(BoundedCall) call = start(self, i, run_destroy_volumes, NULL, NULL, error);

        if (!call || !finish(self, i, call, WORK_SECONDS, error))
            return false;
    }
    return true;
}

/* --- the rest --- */

static void libvirt_wait(Driver *driver, double seconds)
{
    lv_bell_wait(((LibvirtDriver *)driver)->bell, seconds);
}

static const char *libvirt_firewall(Driver *driver, const InstanceShape *shape)
{
    LibvirtDriver *self = (LibvirtDriver *)driver;

    if (!shape->allow)
        return NULL;
    if (!shape->bridge && !shape->libvirt_network)
        return "user-mode network, of which only the port is reachable";
    return self->config->nwfilter ? "nwfilter" : "nft set on this host";
}

const DriverOps driver_libvirt_ops = {
    .name = "libvirt",
    .kind = "disk",
    .check = libvirt_check,
    .open = libvirt_open,
    .close = libvirt_close,
    .host_count = libvirt_host_count,
    .host_name = libvirt_host_name,
    .needs = libvirt_needs,
    .prepare = libvirt_prepare,
    .forget = libvirt_forget,
    .create = libvirt_create,
    .observe = libvirt_observe,
    .attest = libvirt_attest,
    .ping = libvirt_ping,
    .destroy = libvirt_destroy,
    .destroy_volumes = libvirt_destroy_volumes,
    .changed_files = libvirt_changed_files,
    .wait = libvirt_wait,
    .firewall = libvirt_firewall,
};
