/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Driver "runc": container images on this host, through an OCI runtime and no daemon.
 *
 *   driver "runc" {
 *     runtime   = "runc"                       # or another program that takes runc's arguments
 *     state_dir = "/var/lib/kiln/containers"
 *   }
 *
 *   STATE/images/HEX/       rootfs, stamp and config of an image, see rootfs.h; HEX.old-... is one that was found changed and still has users
 *   STATE/instances/NAME/   id.json, bundle/config.json, merged/ (the overlay), upper/ and work/ (thrown away), log, runc.log
 *   STATE/volumes/GROUP/VOLUME-SLOT/
 *   STATE/runc/             the runtime's own state
 *   STATE/lock              held while anything of this is changed
 *
 * An instance is an overlay over the image's rootfs, which the kernel takes through a read-only mount of its own: what the container writes
 * lands in upper/ and goes with it. Its identity stands twice, in id.json and in the annotation that the runtime keeps; an edit of one
 * shows. The folder is 0700: an image's set-id programs are nobody's on the host.
 *
 * Which instances there are is read from the folder, whether they live from the runtime, which compares process IDs with start
 * times; so after a reboot they are all dead and can be destroyed.
 */
#include "deploy/driver.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/process.h"
#include "base/scope.h"
#include "deploy/members.h"
#include "deploy/rootfs.h"
#include "deploy/runc-config.h"
#include "deploy/runc-drift.h"
#include "deploy/runc-network.h"
#include "deploy/runc-proof.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#define STATE_DIR_DEFAULT "/var/lib/kiln/containers"
#define DOCUMENT_MAX ((size_t)4 << 20)
#define LIST_MAX ((size_t)64 << 20)
#define INSTANCES_MAX 10000u
#define LOG_MAX (8 << 20)
#define LOG_KEEP (1 << 20)
#define RUN_TIMEOUT 60.0
#define KILL_WAIT 5.0
#define CGROUPS "/sys/fs/cgroup"
#define CGROUP_TRIES 200

typedef struct RuncDriver {
    Driver driver;
    Store *store;
    char *group, *runtime, *state_dir, *runtime_dir;
} RuncDriver;

/* --- arguments ---------------------------------------------------------------------------- */

/* The path stands in the options of a mount, where commas, colons and backslashes mean something. */
static bool plain_path(const char *path)
{
    for (const char *c = path; *c; c++)
        if (!g_ascii_isalnum(*c) && !strchr("/._-+@", *c))
            return false;
    return *path == '/' && strlen(path) <= 512 && !strstr(path, "/../");
}

static bool check_arguments(const json_t *arguments, const char **ret_argument, const char **ret_runtime, const char **ret_dir, GError **error)
{
    static const char *const keys[] = {"runtime", "state_dir", NULL};

    if (!json_only_keys(arguments, keys, ret_argument))
        return fail(error, "driver \"runc\" has no argument '%s'", *ret_argument);
    *ret_argument = "runtime";
    if (!json_get_string(arguments, "runtime", "runc", ret_runtime, error))
        return false;
    if (!**ret_runtime || **ret_runtime == '-')
        return fail(error, "'%s' is no program", *ret_runtime);
    *ret_argument = "state_dir";
    if (!json_get_string(arguments, "state_dir", STATE_DIR_DEFAULT, ret_dir, error))
        return false;
    return plain_path(*ret_dir) ||
           fail(error, "state_dir must be an absolute path of letters, digits and /._-+@ (it becomes part of a mount's options), not '%s'", *ret_dir);
}

static bool check_shape(const InstanceShape *shape, GError **error)
{
    bool addresses = shape->addresses && shape->addresses[0];

    if (shape->libvirt_network)
        return fail(error, "driver \"runc\" knows no libvirt networks: give a bridge, or addresses of this host");
    if (shape->user_data)
        return fail(error, "a container reads no user_data: give it an environment");
    if (shape->agent)
        return fail(error, "a container has no guest agent: let health ask http or tcp");
    if (shape->bridge && !addresses)
        return fail(error, "containers on bridge '%s' need addresses in the network block: driver \"runc\" speaks no DHCP", shape->bridge);
    if (!shape->bridge && shape->port && !addresses)
        return fail(error, "without a bridge containers share this host's network, so each needs an address of its own: addresses = "
                           "[\"127.0.0.10-127.0.0.20\"]");
    return true;
}

static bool runc_check(const json_t *arguments, const InstanceShape *shape, const char **ret_argument, GError **error)
{
    const char *runtime, *dir, *culprit = NULL;
    bool ok = check_arguments(arguments, &culprit, &runtime, &dir, error);

    *ret_argument = ok ? NULL : culprit;
    return ok && check_shape(shape, error);
}

/* --- open and close ----------------------------------------------------------------------- */

static void runc_close(Driver *driver)
{
    RuncDriver *runc = (RuncDriver *)driver;

    if (!runc)
        return;
    g_free(runc->group);
    g_free(runc->runtime);
    g_free(runc->state_dir);
    g_free(runc->runtime_dir);
    g_free(runc);
}

static char *state_path(const RuncDriver *runc, const char *a, const char *b)
{
    return g_build_filename(runc->state_dir, a, b, NULL);
}

static bool make_folders(const RuncDriver *runc, GError **error)
{
    static const char *const folders[] = {"images", "instances", "volumes", "runc", NULL};

    if (!file_make_dirs(runc->state_dir, 0700, error))
        return false;
    for (size_t i = 0; folders[i]; i++) {
        g_autofree char *path = state_path(runc, folders[i], NULL);

        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            return fail_errno(error, "make folder '%s'", path);
    }
    return true;
}

static bool runc_open(const DriverConfig *config, Driver **ret, GError **error)
{
    const char *runtime, *dir, *culprit;
    RuncDriver *runc;

    if (!check_arguments(config->arguments, &culprit, &runtime, &dir, error))
        return false;
    if (geteuid() != 0)
        return fail(error, "driver \"runc\" starts containers, which needs root");
    if (!process_have(runtime))
        return fail_code(error, KILN_ERROR_NOT_FOUND, "driver \"runc\" needs the program '%s', and it is not installed", runtime);
    runc = g_new0(RuncDriver, 1);
    runc->driver.ops = &driver_runc_ops;
    runc->store = config->store;
    runc->group = g_strdup(config->group);
    runc->runtime = g_strdup(runtime);
    runc->state_dir = g_strdup(dir);
    runc->runtime_dir = g_build_filename(dir, "runc", NULL);
    if (!make_folders(runc, error)) {
        runc_close(&runc->driver);
        return false;
    }
    *ret = &runc->driver;
    return true;
}

static unsigned runc_host_count(Driver *driver)
{
    return 1;
}

static const char *runc_host_name(Driver *driver, unsigned host)
{
    return "local";
}

/* Network name spaces and control groups have names on this host, not in the folder: two folders may each have a group of this name. */
static char *host_label(const RuncDriver *runc, const char *name)
{
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    digest_of_string(runc->state_dir, &digest);
    return g_strdup_printf("%s-%.8s", name, digest_to_hex(&digest, hex));
}

static bool lock_state(const RuncDriver *runc, int *ret_fd, GError **error)
{
    g_autofree char *path = state_path(runc, "lock", NULL);
    auto_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return fail_errno(error, "open '%s'", path);
    if (!file_lock(fd, path, "another process works on this host's containers", error))
        return false;
    *ret_fd = g_steal_fd(&fd);
    return true;
}

/* --- the runtime -------------------------------------------------------------------------- */

/* What the runtime says about one container. */
typedef struct Container {
    char *status, *annotation; /* annotation NULL: it has none of ours */
    int64_t created;
    pid_t pid; /* 0: none */
} Container;

static void container_free(Container *container)
{
    if (!container)
        return;
    g_free(container->status);
    g_free(container->annotation);
    g_free(container);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Container, container_free)

static Container *parse_container(const json_t *item, const char **ret_id)
{
    const char *id, *status, *created, *annotation;
    const json_t *annotations = json_object_get(item, "annotations");
    g_autoptr(GDateTime) time = NULL;
    Container *container;
    int64_t pid;

    if (!json_get_string(item, "id", NULL, &id, NULL) || !id || !json_get_string(item, "status", "", &status, NULL) ||
        !json_get_string(item, "created", "", &created, NULL) || !json_get_int(item, "pid", 0, &pid, NULL) ||
        !json_get_string(annotations, RUNC_ANNOTATION, NULL, &annotation, NULL))
        return NULL;
    time = g_date_time_new_from_iso8601(created, NULL);
    container = g_new0(Container, 1);
    container->status = g_strdup(status);
    container->annotation = g_strdup(annotation);
    container->created = time ? g_date_time_to_unix(time) : 0;
    container->pid = pid > 0 && pid < G_MAXINT32 ? (pid_t)pid : 0;
    *ret_id = id;
    return container;
}

/* All containers of the state folder, in one call: name -> Container*. */
static bool list_containers(const RuncDriver *runc, GHashTable **ret, GError **error)
{
    const char *argv[] = {runc->runtime, "--root", runc->runtime_dir, "list", "--format", "json", NULL};
    g_autoptr(GHashTable) table = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)container_free);
    g_autofree char *text = NULL;
    g_autoptr(json_t) list = NULL;
    const json_t *item;
    size_t i;

    if (!process_capture(argv, LIST_MAX, &text, error) || !json_parse(text, strlen(text), LIST_MAX, "the runtime's list", &list, error))
        return false;
    json_array_foreach (list, i, item) {
        const char *id = NULL;
        Container *container = parse_container(item, &id);

        if (container)
            g_hash_table_replace(table, g_strdup(id), container);
    }
    *ret = g_steal_pointer(&table);
    return true;
}

/* Of one container; NULL where the runtime knows none of this name. */
static Container *find_container(const RuncDriver *runc, const char *name)
{
    const char *argv[] = {runc->runtime, "--root", runc->runtime_dir, "state", name, NULL}, *id = NULL;
    g_autofree char *text = NULL;
    g_autoptr(json_t) json = NULL;

    if (!process_capture(argv, DOCUMENT_MAX, &text, NULL) || !json_parse(text, strlen(text), DOCUMENT_MAX, "the runtime's state", &json, NULL))
        return NULL;
    return parse_container(json, &id);
}

static bool is_alive(const Container *container)
{
    return container && container->pid > 0 && strcmp(container->status, "stopped") != 0;
}

/* The last message of runc.log, as the sentence that it is. */
static char *last_message(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "runc.log", NULL), *found = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_auto(GStrv) lines = NULL;

    if (!file_load(AT_FDCWD, path, 1 << 20, &bytes, NULL))
        return g_strdup("it left no message");
    lines = g_strsplit(g_bytes_get_data(bytes, NULL), "\n", -1);
    for (char **line = lines; *line; line++) {
        g_autoptr(json_t) json = NULL;
        const char *message, *level;

        if (!json_parse(*line, strlen(*line), 65536, "a line", &json, NULL) || !json_get_string(json, "msg", NULL, &message, NULL) ||
            !json_get_string(json, "level", "", &level, NULL) || !message || strcmp(level, "error") != 0)
            continue;
        g_free(found);
        found = printable_line(message);
    }
    return found ? g_steal_pointer(&found) : g_strdup("it left no message");
}

/* The container's output goes to a file that only grows, so that it can be cut while it is written. */
static bool run_container(const RuncDriver *runc, const char *dir, const char *name, GError **error)
{
    g_autofree char *bundle = g_build_filename(dir, "bundle", NULL), *log = g_build_filename(dir, "log", NULL),
                    *runtime_log = g_build_filename(dir, "runc.log", NULL);
    const char *argv[] = {runc->runtime, "--root", runc->runtime_dir, "--log", runtime_log, "--log-format", "json", "run", "--detach",
                          "--bundle",    bundle,   name,              NULL};
    auto_fd int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    ProcessSpec spec = {.argv = argv, .stdout_fd = out, .stderr_fd = out, .timeout = RUN_TIMEOUT};
    g_autofree char *message = NULL;
    int status = 0;

    if (out < 0)
        return fail_errno(error, "create '%s'", log);
    if (!process_run(&spec, &status, error))
        return false;
    if (status == 0)
        return true;
    message = last_message(dir);
    return fail(error, "'%s' could not start '%s': %s", runc->runtime, name, message);
}

/* --- images ------------------------------------------------------------------------------- */

static char *image_dir(const RuncDriver *runc, const Digest *image)
{
    char hex[DIGEST_HEX_SIZE];

    return state_path(runc, "images", digest_to_hex(image, hex));
}

/* Everything of it is as it was written. @ret_stamp may be NULL. */
static bool check_image(const RuncDriver *runc, const Digest *image, RootfsStamp **ret_stamp, json_t **ret_config, GError **error)
{
    g_autofree char *dir = image_dir(runc, image);
    g_autoptr(RootfsStamp) stamp = NULL;
    g_autoptr(json_t) config = NULL;

    if (access(dir, F_OK) < 0)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "the image was not brought to this host: '%s' is not there", dir);
    if (!rootfs_config(dir, image, &config, error) || !rootfs_stamp_load(dir, image, &stamp, error) || !rootfs_check(dir, stamp, error))
        return false;
    if (ret_stamp)
        *ret_stamp = g_steal_pointer(&stamp);
    if (ret_config)
        *ret_config = g_steal_pointer(&config);
    return true;
}

/* Users keep what they have mounted: the folder gets out of the way and goes with forget. */
static bool set_aside(const char *dir, GError **error)
{
    g_autofree char *aside = g_strdup_printf("%s.old-%" G_GINT64_FORMAT, dir, g_get_real_time());

    if (rename(dir, aside) < 0 && errno != ENOENT)
        return fail_errno(error, "rename '%s'", dir);
    return true;
}

static bool bring_image(const RuncDriver *runc, const StoreImage *image, GError **error)
{
    g_autofree char *dir = image_dir(runc, &image->id), *fresh = g_strdup_printf("%s.new-%d", dir, (int)getpid());

    if (!file_remove_tree(AT_FDCWD, fresh, error))
        return false;
    if (mkdir(fresh, 0700) < 0)
        return fail_errno(error, "make folder '%s'", fresh);
    if (!rootfs_write(runc->store, image, fresh, error) || !set_aside(dir, error)) {
        (void)file_remove_tree(AT_FDCWD, fresh, NULL); /* the first error is the one to tell */
        return false;
    }
    if (rename(fresh, dir) < 0)
        return fail_errno(error, "rename '%s' to '%s'", fresh, dir);
    return true;
}

static bool runc_prepare(Driver *driver, const StoreImage *image, GError **error)
{
    const RuncDriver *runc = (const RuncDriver *)driver;
    g_autoptr(GError) problem = NULL;
    auto_fd int lock = -1;

    if (strcmp(image->kind, "oci") != 0)
        return fail(error, "driver \"runc\" runs container images, and this is one of kind '%s'", image->kind);
    if (!lock_state(runc, &lock, error))
        return false;
    if (check_image(runc, &image->id, NULL, NULL, &problem))
        return true;
    if (!g_error_matches(problem, KILN_ERROR, KILN_ERROR_NOT_FOUND))
        log_warning("%s; the image is unpacked anew", problem->message);
    return bring_image(runc, image, error);
}

static uint64_t memory_available(void)
{
    g_autoptr(GBytes) bytes = NULL;
    const char *at;
    uint64_t kib = 0;

    if (!file_load(AT_FDCWD, "/proc/meminfo", 65536, &bytes, NULL))
        return 0;
    at = strstr(g_bytes_get_data(bytes, NULL), "MemAvailable:");
    return at && sscanf(at, "MemAvailable: %" SCNu64, &kib) == 1 ? kib * 1024 : 0;
}

static bool runc_needs(Driver *driver, const StoreImage *image, const InstanceShape *shape, const unsigned *counts, DriverNeeds *ret, GError **error)
{
    const RuncDriver *runc = (const RuncDriver *)driver;
    g_autofree char *dir = image_dir(runc, &image->id);
    uint64_t size = access(dir, F_OK) == 0 || counts[0] == 0 ? 0 : rootfs_estimate(runc->store, image);
    struct statvfs fs = {.f_bavail = 0};

    if (statvfs(runc->state_dir, &fs) < 0)
        return fail_errno(error, "look at the file system of '%s'", runc->state_dir);
    *ret = (DriverNeeds){.bytes_to_move = size,
                         .disk = size,
                         .disk_free = (uint64_t)fs.f_bavail * fs.f_frsize,
                         .memory = counts[0] * shape->memory,
                         .memory_free = memory_available()};
    return true;
}

/* --- records ------------------------------------------------------------------------------ */

/* id.json, and what is the same in the annotation. */
typedef struct Record {
    char *mark, *address, *stop;
    InstanceId id;
    bool known;
    Digest config;  /* of bundle/config.json */
    char *identity; /* canonical text of what the annotation holds */
    int64_t written;
} Record;

static void record_free(Record *record)
{
    if (!record)
        return;
    g_free(record->mark);
    g_free(record->address);
    g_free(record->stop);
    g_free(record->identity);
    g_free(record);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Record, record_free)

static char *identity_text(const char *mark, const InstanceId *id, const char *address)
{
    g_autoptr(json_t) json = json_pack("{s:s, s:o, s:s?}", "mark", mark, "id", instance_id_json(id), "address", address);

    return json_canonical(json);
}

static void parse_record(const json_t *json, const char *name, Record *record)
{
    const char *mark, *address, *stop, *config;
    char own_name[96];

    if (!json_get_string(json, "mark", NULL, &mark, NULL) || !json_get_string(json, "address", NULL, &address, NULL) ||
        !json_get_string(json, "stop", "SIGTERM", &stop, NULL) || !json_get_string(json, "config", "", &config, NULL) || !mark)
        return;
    record->mark = g_strdup(mark);
    record->address = g_strdup(address);
    record->stop = g_strdup(stop);
    (void)digest_parse(config, &record->config);
    if (!instance_id_parse(json_object_get(json, "id"), &record->id))
        return;
    instance_name(&record->id, own_name);
    record->known = strcmp(own_name, name) == 0 && strcmp(mark, record->id.group) == 0;
    record->identity = identity_text(mark, &record->id, address);
}

/* Whatever stands there, a record comes back; NULL where there is no such folder. */
static Record *load_record(const RuncDriver *runc, const char *name)
{
    g_autofree char *dir = state_path(runc, "instances", name), *path = g_build_filename(dir, "id.json", NULL);
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) json = NULL;
    Record *record;
    struct stat st;

    if (stat(dir, &st) < 0)
        return NULL;
    record = g_new0(Record, 1);
    record->written = st.st_mtime;
    if (file_load(AT_FDCWD, path, DOCUMENT_MAX, &bytes, NULL) &&
        json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), DOCUMENT_MAX, path, &json, NULL))
        parse_record(json, name, record);
    if (!record->known)
        (void)instance_name_parse(name, &record->id);
    return record;
}

static bool write_record(const char *dir, const DriverCreate *create, const Digest *config, const char *stop, GError **error)
{
    char digest[DIGEST_OCI_SIZE];
    g_autofree char *path = g_build_filename(dir, "id.json", NULL), *text = NULL;
    g_autoptr(json_t) json = json_pack("{s:s, s:o, s:s?, s:s, s:s}", "mark", create->id.group, "id", instance_id_json(&create->id), "address",
                                       create->address, "config", digest_to_oci(config, digest), "stop", stop);

    text = json_pretty(json);
    return file_replace(AT_FDCWD, path, text, strlen(text), 0600, FILE_SYNC_NO, error);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the folders of all instances, of all groups; sorted. */
static bool instance_names(const RuncDriver *runc, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *path = state_path(runc, "instances", NULL);
    auto_dir DIR *dir = opendir(path);
    struct dirent *entry;

    if (!dir)
        return fail_errno(error, "read folder '%s'", path);
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        if (names->len >= INSTANCES_MAX)
            return fail(error, "'%s' holds more than %u instances", path, INSTANCES_MAX);
        g_ptr_array_add(names, g_strdup(entry->d_name));
    }
    g_ptr_array_sort(names, compare_names);
    *ret = g_steal_pointer(&names);
    return true;
}

static bool forget_image(const RuncDriver *runc, const char *name, const GArray *keep, const GHashTable *used, GError **error)
{
    g_autofree char *path = state_path(runc, "images", name), *hex = g_strndup(name, 64);
    Digest image;

    if (!digest_parse(hex, &image) || g_hash_table_contains((GHashTable *)used, &image))
        return true;
    for (guint i = 0; strlen(name) == 64 && keep && i < keep->len; i++)
        if (digest_equal(&g_array_index(keep, Digest, i), &image))
            return true;
    return file_remove_tree(AT_FDCWD, path, error);
}

static bool runc_forget(Driver *driver, const GArray *keep, GError **error)
{
    const RuncDriver *runc = (const RuncDriver *)driver;
    g_autoptr(GHashTable) used = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    g_autofree char *path = state_path(runc, "images", NULL);
    g_autoptr(GPtrArray) names = NULL;
    auto_fd int lock = -1;
    struct dirent *entry;

    if (!lock_state(runc, &lock, error) || !instance_names(runc, &names, error))
        return false;
    for (guint i = 0; i < names->len; i++) {
        g_autoptr(Record) record = load_record(runc, g_ptr_array_index(names, i));

        if (record)
            g_hash_table_add(used, g_memdup2(&record->id.image, sizeof(Digest)));
    }

    auto_dir DIR *dir = opendir(path);

    while (dir && (entry = readdir(dir)))
        if (!forget_image(runc, entry->d_name, keep, used, error))
            return false;
    return true;
}

/* --- volumes ------------------------------------------------------------------------------ */

static char *volume_path(const RuncDriver *runc, const VolumeSpec *volume, uint32_t slot)
{
    g_autofree char *name = g_strdup_printf("%s-%u", volume->name, slot), *folder = state_path(runc, "volumes", runc->group);

    return g_build_filename(folder, name, NULL);
}

/* A volume is new: it looks as the folder in the image does. Contents stay there; who wants them copies them at start. */
static bool make_volume(const char *path, int rootfd, const VolumeSpec *volume, GError **error)
{
    auto_fd int like = rootfs_open_inside(rootfd, volume->mount, O_PATH | O_DIRECTORY);
    struct stat st = {.st_mode = 0755};

    if (like >= 0 && fstat(like, &st) < 0)
        return fail_errno(error, "look at '%s' in the image", volume->mount);
    if (mkdir(path, 0700) < 0)
        return errno == EEXIST || fail_errno(error, "make folder '%s'", path);
    if (chown(path, st.st_uid, st.st_gid) < 0 || chmod(path, st.st_mode & 07777) < 0)
        return fail_errno(error, "set owner and mode of '%s'", path);
    return true;
}

/* No other instance of the slot may have them: they are attached to one at a time. */
static bool volumes_are_free(const RuncDriver *runc, const DriverCreate *create, const char *name, GHashTable *containers, GError **error)
{
    g_autoptr(GPtrArray) names = NULL;

    if (!instance_names(runc, &names, error))
        return false;
    for (guint i = 0; i < names->len; i++) {
        const char *other = g_ptr_array_index(names, i);
        InstanceId id;

        if (strcmp(other, name) != 0 && instance_name_parse(other, &id) && strcmp(id.group, create->id.group) == 0 && id.slot == create->id.slot &&
            is_alive(g_hash_table_lookup(containers, other)))
            return fail(error, "the volumes of slot %u are in use by '%s'", id.slot, other);
    }
    return true;
}

static bool make_volumes(const RuncDriver *runc, const DriverCreate *create, int rootfd, GArray *mounts, GPtrArray *strings, GError **error)
{
    const GPtrArray *volumes = create->shape->volumes;
    g_autofree char *folder = state_path(runc, "volumes", runc->group);

    if (!volumes || volumes->len == 0)
        return true;
    if (!file_make_dirs(folder, 0700, error))
        return false;
    for (guint i = 0; i < volumes->len; i++) {
        const VolumeSpec *volume = g_ptr_array_index(volumes, i);
        char *path = volume_path(runc, volume, create->id.slot);
        RuncMount mount = {path, volume->mount, false};

        g_ptr_array_add(strings, path);
        if (!make_volume(path, rootfd, volume, error))
            return false;
        g_array_append_val(mounts, mount);
    }
    return true;
}

static bool runc_destroy_volumes(Driver *driver, GError **error)
{
    const RuncDriver *runc = (const RuncDriver *)driver;
    g_autofree char *path = state_path(runc, "volumes", runc->group);
    auto_fd int lock = -1;

    return lock_state(runc, &lock, error) && file_remove_tree(AT_FDCWD, path, error);
}

/* --- end ---------------------------------------------------------------------------------- */

/* Ends what is in a control group, and removes it. */
static bool clear_cgroup(const char *path, GError **error)
{
    g_autofree char *list = g_build_filename(path, "cgroup.procs", NULL);

    for (int i = 0; i < CGROUP_TRIES; i++, g_usleep(10000)) {
        g_autoptr(GBytes) bytes = NULL;
        g_auto(GStrv) pids = NULL;

        if (!file_load(AT_FDCWD, list, 1 << 20, &bytes, NULL))
            return true;
        pids = g_strsplit(g_bytes_get_data(bytes, NULL), "\n", -1);
        for (char **pid = pids; *pid; pid++)
            if (atoi(*pid) > 1)
                (void)kill(atoi(*pid), SIGKILL);
        if (rmdir(path) == 0)
            return true;
    }
    return fail_errno(error, "remove the control group '%s'", path);
}

/* A runtime that was killed while it made a container had its control groups first and its record of them last. */
static bool clear_cgroups(const char *label, GError **error)
{
    g_autofree char *name = g_strconcat("kiln-", label, NULL), *unified = g_build_filename(CGROUPS, name, NULL);
    auto_dir DIR *dir = opendir(CGROUPS);
    struct dirent *entry;

    if (!clear_cgroup(unified, error))
        return false;
    while (dir && (entry = readdir(dir))) {
        g_autofree char *path = g_build_filename(CGROUPS, entry->d_name, name, NULL);

        if (entry->d_name[0] != '.' && entry->d_type == DT_DIR && !clear_cgroup(path, error))
            return false;
    }
    return true;
}

/* Of whatever state an instance is in; its process is ended hard. Absent is success. */
static bool clear_instance(const RuncDriver *runc, const char *name, GError **error)
{
    const char *argv[] = {runc->runtime, "--root", runc->runtime_dir, "delete", "--force", name, NULL};
    g_autofree char *dir = state_path(runc, "instances", name), *merged = g_build_filename(dir, "merged", NULL),
                    *label = host_label(runc, name), *record = g_build_filename(runc->runtime_dir, name, NULL);

    /* Its record may be there and unreadable, so that the runtime lists no such container and yet makes none of this name. */
    if ((access(record, F_OK) == 0 && !process_capture(argv, 65536, NULL, error)) || !clear_cgroups(label, error))
        return false;
    while (umount2(merged, MNT_DETACH) == 0) {
        /* once more where it was mounted twice */
    }
    if (errno != EINVAL && errno != ENOENT)
        return fail_errno(error, "unmount '%s'", merged);
    return runc_network_remove(label, error) && file_remove_tree(AT_FDCWD, dir, error);
}

/* --- create ------------------------------------------------------------------------------- */

static bool has_controller(const char *list, const char *name)
{
    g_auto(GStrv) names = g_strsplit_set(list, " \n", -1);

    return g_strv_contains((const char *const *)names, name);
}

static bool cgroups_hold_limits(void)
{
    g_autoptr(GBytes) bytes = NULL;

    if (file_load(AT_FDCWD, CGROUPS "/cgroup.controllers", 65536, &bytes, NULL)) {
        const char *list = g_bytes_get_data(bytes, NULL);

        return has_controller(list, "memory") && has_controller(list, "cpu") && access(CGROUPS, W_OK) == 0;
    }
    return access(CGROUPS "/memory", W_OK) == 0 && access(CGROUPS "/cpu", W_OK) == 0;
}

static bool limits(void)
{
    static gsize told;
    bool can = cgroups_hold_limits();

    if (!can && g_once_init_enter(&told)) {
        log_warning("this host's control groups can't hold memory and cpus: containers run without these limits");
        g_once_init_leave(&told, 1);
    }
    return can;
}

static bool mount_overlay(const char *dir, const char *rootfs, GError **error)
{
    g_autofree char *merged = g_build_filename(dir, "merged", NULL);
    g_autofree char *options = g_strdup_printf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", rootfs, dir, dir);

    if (mount("overlay", merged, "overlay", MS_NODEV, options) < 0)
        return fail_errno(error, "mount the overlay '%s'", merged);
    return true;
}

static bool make_instance_folders(const char *dir, const char *rootfs, GError **error)
{
    static const char *const folders[] = {"", "bundle", "merged", "upper", "work", NULL};
    g_autofree char *upper = g_build_filename(dir, "upper", NULL);
    struct stat st;

    for (size_t i = 0; folders[i]; i++) {
        g_autofree char *path = g_build_filename(dir, folders[i], NULL);

        if (mkdir(path, 0700) < 0)
            return fail_errno(error, "make folder '%s'", path);
    }
    /* The root folder that the container sees is the upper one. */
    if (stat(rootfs, &st) < 0 || chown(upper, st.st_uid, st.st_gid) < 0 || chmod(upper, st.st_mode & 07777) < 0)
        return fail_errno(error, "make '%s' look as the image's root", upper);
    return true;
}

/* The host's names of things, where the image's root is the host's business: name servers, and in a network of its own its own name. */
static bool add_host_files(const DriverCreate *create, const char *dir, const char *name, GArray *mounts, GPtrArray *strings, GError **error)
{
    static const char *const upstream = "/run/systemd/resolve/resolv.conf"; /* a stub on the host's loopback device is not to be had elsewhere */
    RuncMount resolv = {"/etc/resolv.conf", "/etc/resolv.conf", true}, hosts = {"/etc/hosts", "/etc/hosts", true};

    if (create->shape->bridge && access(upstream, R_OK) == 0)
        resolv.source = upstream;
    if (access(resolv.source, R_OK) == 0)
        g_array_append_val(mounts, resolv);
    if (create->shape->bridge) {
        char *path = g_build_filename(dir, "hosts", NULL);
        g_autofree char *text = g_strdup_printf("127.0.0.1 localhost\n::1 localhost\n%s %s\n", create->address, name);

        g_ptr_array_add(strings, path);
        if (!file_replace(AT_FDCWD, path, text, strlen(text), 0644, FILE_SYNC_NO, error))
            return false;
        hosts.source = path;
    }
    if (access(hosts.source, R_OK) == 0)
        g_array_append_val(mounts, hosts);
    return true;
}

typedef struct Making {
    const RuncDriver *runc;
    const DriverCreate *create;
    const char *name, *dir, *rootfs;
    const json_t *image;
    int rootfd;
} Making;

static bool write_bundle(const Making *making, const RuncSpec *spec, GError **error)
{
    g_autofree char *path = g_build_filename(making->dir, "bundle", "config.json", NULL), *text = NULL;
    g_autoptr(json_t) config = NULL;
    Digest digest;

    if (!runc_config_make(spec, &config, error))
        return false;
    text = json_pretty(config);
    digest_of_string(text, &digest);
    return file_replace(AT_FDCWD, path, text, strlen(text), 0600, FILE_SYNC_NO, error) &&
           write_record(making->dir, making->create, &digest, runc_stop_signal(making->image), error);
}

static bool make_bundle(const Making *making, const char *netns, GError **error)
{
    const DriverCreate *create = making->create;
    g_autoptr(GArray) mounts = g_array_new(FALSE, FALSE, sizeof(RuncMount));
    g_autoptr(GPtrArray) strings = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *merged = g_build_filename(making->dir, "merged", NULL), *identity = identity_text(create->id.group, &create->id, create->address);
    g_autofree char *label = host_label(making->runc, making->name), *cgroup = g_strconcat("/kiln-", label, NULL);
    RuncSpec spec = {.image = making->image,
                     .rootfd = making->rootfd,
                     .name = making->name,
                     .cgroup = cgroup,
                     .root = merged,
                     .address = create->address,
                     .netns = netns,
                     .identity = identity,
                     .shape = create->shape,
                     .limits = limits()};

    if (!add_host_files(create, making->dir, making->name, mounts, strings, error) ||
        !make_volumes(making->runc, create, making->rootfd, mounts, strings, error))
        return false;
    spec.mounts = (const RuncMount *)(void *)mounts->data;
    spec.mount_count = mounts->len;
    return write_bundle(making, &spec, error);
}

static bool make_and_run(const Making *making, GError **error)
{
    g_autofree char *netns = NULL, *label = host_label(making->runc, making->name);

    return make_instance_folders(making->dir, making->rootfs, error) && mount_overlay(making->dir, making->rootfs, error) &&
           (!making->create->shape->bridge || runc_network_make(making->create, label, &netns, error)) && make_bundle(making, netns, error) &&
           run_container(making->runc, making->dir, making->name, error);
}

/* One that runs or ran is there; what the runtime does not know, or made and never started, was left half made by somebody who died. */
static bool exists_already(const RuncDriver *runc, const DriverCreate *create, const char *name, const Container *container, bool *ret, GError **error)
{
    g_autoptr(Record) record = load_record(runc, name);

    *ret = record && container && strcmp(container->status, "created") != 0 && strcmp(container->status, "creating") != 0;
    if (*ret && (!record->known || !digest_equal(&record->id.image, &create->id.image)))
        return fail(error, "there is an instance '%s' of another image: destroy it first", name);
    return *ret || clear_instance(runc, name, error);
}

static bool create_one(const RuncDriver *runc, const DriverCreate *create, GHashTable *containers, GError **error)
{
    g_autofree char *dir = NULL, *image = image_dir(runc, &create->id.image), *rootfs = g_build_filename(image, "rootfs", NULL);
    g_autoptr(json_t) config = NULL;
    auto_fd int rootfd = -1;
    Making making;
    bool exists, volumes = create->shape->volumes && create->shape->volumes->len > 0;
    char name[96];

    instance_name(&create->id, name);
    if (!exists_already(runc, create, name, g_hash_table_lookup(containers, name), &exists, error) || exists)
        return exists;
    if (create->shape->bridge && !create->address)
        return fail(error, "'%s' needs an address on bridge '%s'", name, create->shape->bridge);
    if ((volumes && !volumes_are_free(runc, create, name, containers, error)) || !check_image(runc, &create->id.image, NULL, &config, error))
        return false;
    rootfd = open(rootfs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rootfd < 0)
        return fail_errno(error, "open folder '%s'", rootfs);
    dir = state_path(runc, "instances", name);
    making = (Making){runc, create, name, dir, rootfs, config, rootfd};
    if (make_and_run(&making, error))
        return true;
    (void)clear_instance(runc, name, NULL); /* the first error is the one to tell */
    return false;
}

static bool runc_create(Driver *driver, const DriverCreate *creates, unsigned count, GError **errors, GError **error)
{
    const RuncDriver *runc = (const RuncDriver *)driver;
    g_autoptr(GHashTable) containers = NULL;
    auto_fd int lock = -1;

    if (!lock_state(runc, &lock, error) || !list_containers(runc, &containers, error))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (interrupt_check(&errors[i]))
            (void)create_one(runc, &creates[i], containers, &errors[i]);
    return true;
}

/* --- observe ------------------------------------------------------------------------------ */

/* Somebody may be making it at this moment. */
static bool lock_is_held(const RuncDriver *runc)
{
    g_autofree char *path = state_path(runc, "lock", NULL);
    auto_fd int fd = open(path, O_RDWR | O_CLOEXEC);

    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static Life life_of(const Container *container, bool being_made)
{
    if (!container)
        return being_made ? LIFE_STARTING : LIFE_DEAD;
    if (!is_alive(container))
        return LIFE_DEAD;
    return strcmp(container->status, "running") == 0 || strcmp(container->status, "paused") == 0 ? LIFE_RUNNING : LIFE_STARTING;
}

/* One sentence, NULL for nothing. */
static char *drift_of(const RuncDriver *runc, const char *name, const Record *record, const Container *container)
{
    g_autofree char *path = NULL;
    Digest config;

    if (!record->known)
        return g_strdup_printf("the identity of '%s' can't be read or belongs to another instance", name);
    if (container && (!container->annotation || strcmp(container->annotation, record->identity) != 0))
        return g_strdup_printf("the identity of '%s' was edited: its id.json and its annotation differ", name);
    path = g_build_filename(runc->state_dir, "instances", name, "bundle/config.json", NULL);
    if (!digest_of_file(AT_FDCWD, path, &config, NULL, NULL) || !digest_equal(&config, &record->config))
        return g_strdup_printf("the definition of '%s' was edited after it was created", name);
    if (container && strcmp(container->status, "paused") == 0)
        return g_strdup_printf("'%s' was paused by somebody", name);
    return NULL;
}

/* The log's end moves to log.1; the container goes on writing at the end of what is then empty. */
static void cut_log(const RuncDriver *runc, const char *name)
{
    g_autofree char *dir = state_path(runc, "instances", name), *log = g_build_filename(dir, "log", NULL), *kept = g_build_filename(dir, "log.1", NULL);
    auto_fd int fd = open(log, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    g_autofree char *tail = NULL;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= LOG_MAX)
        return;
    tail = g_malloc(LOG_KEEP);
    if (file_pread_full(fd, tail, LOG_KEEP, (uint64_t)st.st_size - LOG_KEEP, log, NULL))
        (void)file_replace(AT_FDCWD, kept, tail, LOG_KEEP, 0600, FILE_SYNC_NO, NULL);
    (void)!ftruncate(fd, 0); /* the next look tries again */
}

static DriverInstance *report(const RuncDriver *runc, const char *name, const Record *record, const Container *container, bool held)
{
    DriverInstance *instance = g_new0(DriverInstance, 1);

    instance->id = record->id;
    instance->name = g_strdup(name);
    instance->life = life_of(container, held);
    instance->address = g_strdup(record->address);
    instance->started = container && container->created ? container->created : record->written;
    instance->known = record->known;
    if (record->identity || !held) /* else its record is only being written */
        instance->drift = drift_of(runc, name, record, container);
    return instance;
}

static bool runc_observe(Driver *driver, GPtrArray **ret, bool *answers, GError **error)
{
    const RuncDriver *runc = (const RuncDriver *)driver;
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)driver_instance_free), names = NULL;
    g_autoptr(GHashTable) containers = NULL;
    bool held = lock_is_held(runc);

    if (!instance_names(runc, &names, error) || !list_containers(runc, &containers, error))
        return false;
    for (guint i = 0; i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);
        g_autoptr(Record) record = load_record(runc, name);

        if (!record || (g_strcmp0(record->mark, runc->group) != 0 && strcmp(record->id.group, runc->group) != 0))
            continue;
        g_ptr_array_add(list, report(runc, name, record, g_hash_table_lookup(containers, name), held));
        cut_log(runc, name);
    }
    answers[0] = true;
    *ret = g_steal_pointer(&list);
    return true;
}

/* --- proof -------------------------------------------------------------------------------- */

static bool runc_attest(Driver *driver, const DriverInstance *instance, const StoreImage *image, const InstanceShape *shape, unsigned *ret_flags,
                        GError **error)
{
    const RuncDriver *runc = (const RuncDriver *)driver;
    g_autoptr(Record) record = load_record(runc, instance->name);
    g_autoptr(Container) container = find_container(runc, instance->name);
    g_autoptr(RootfsStamp) stamp = NULL;
    g_autofree char *drift = NULL, *dir = image_dir(runc, &image->id), *rootfs = g_build_filename(dir, "rootfs", NULL),
                    *upper = g_build_filename(runc->state_dir, "instances", instance->name, "upper", NULL);
    unsigned flags = 0;

    if (!record || !is_alive(container))
        return fail(error, "'%s' does not run", instance->name);
    drift = drift_of(runc, instance->name, record, container);
    if (drift)
        return fail(error, "%s", drift);
    if (!digest_equal(&record->id.image, &image->id))
        return fail(error, "'%s' runs another image than it should", instance->name);
    flags = PROVEN_METADATA;
    if (!check_image(runc, &image->id, &stamp, NULL, error))
        return false;
    flags |= PROVEN_DIGEST;
    if (!runc_proof_of(&(RuncProof){instance->name, container->pid, rootfs, upper, stamp}, &flags, error))
        return false;
    *ret_flags = flags;
    return true;
}

/* --- destroy ------------------------------------------------------------------------------ */

/* The number was the container's when the runtime looked; whose the descriptor is, its control group says. */
static int open_process(const RuncDriver *runc, const char *name, pid_t pid)
{
    g_autofree char *label = host_label(runc, name), *path = g_strdup_printf("/proc/%d/cgroup", (int)pid), *group = g_strdup_printf("/kiln-%s\n", label);
    auto_fd int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    g_autoptr(GBytes) bytes = NULL;

    if (fd < 0 || !file_load(AT_FDCWD, path, 65536, &bytes, NULL) || !strstr(g_bytes_get_data(bytes, NULL), group))
        return -1;
    return g_steal_fd(&fd);
}

/* Asks politely; *ret_fd is what becomes readable when the process has ended, -1 where nothing is to be waited for. */
static void ask_to_end(const RuncDriver *runc, const char *name, const Container *container, int *ret_fd)
{
    g_autoptr(Record) record = load_record(runc, name);
    const char *signal = record && record->stop ? record->stop : "SIGTERM";
    const char *argv[] = {runc->runtime, "--root", runc->runtime_dir, "kill", name, signal, NULL};

    *ret_fd = -1;
    if (!is_alive(container))
        return;
    *ret_fd = open_process(runc, name, container->pid);
    /* The usual signal needs no process of its own; others have names that the runtime knows. */
    if (strcmp(signal, "SIGTERM") == 0 && *ret_fd >= 0 && syscall(SYS_pidfd_send_signal, *ret_fd, SIGTERM, NULL, 0) == 0)
        return;
    if (!process_capture(argv, 65536, NULL, NULL)) /* the hard way is open */
        trace("deploy.runc", "%s could not be asked to end", name);
}

/* Closes what has ended. */
static void wait_for_ends(int *fds, unsigned count, double grace)
{
    gint64 deadline = g_get_monotonic_time() + (gint64)(grace * 1e6);

    for (unsigned i = 0; i < count; i++) {
        struct pollfd wait[2] = {{fds[i], POLLIN, 0}, {interrupt_fd(), POLLIN, 0}};
        gint64 left = deadline - g_get_monotonic_time();

        if (fds[i] >= 0 && poll(wait, 2, (int)CLAMP(left / 1000, 0, 3600 * 1000)) > 0 && wait[0].revents) {
            (void)close(fds[i]);
            fds[i] = -1;
        }
    }
}

/* The first process of a container takes all others with it. */
static void end_hard(int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (fds[i] >= 0)
            (void)syscall(SYS_pidfd_send_signal, fds[i], SIGKILL, NULL, 0);
    wait_for_ends(fds, count, KILL_WAIT);
}

static bool runc_destroy(Driver *driver, const DriverInstance *const *instances, unsigned count, double grace, GError **errors, GError **error)
{
    const RuncDriver *runc = (const RuncDriver *)driver;
    g_autoptr(GHashTable) containers = NULL;
    g_autofree int *fds = g_new(int, MAX(count, 1));
    auto_fd int lock = -1;

    if (!lock_state(runc, &lock, error) || !list_containers(runc, &containers, error))
        return false;
    for (unsigned i = 0; i < count; i++)
        ask_to_end(runc, instances[i]->name, g_hash_table_lookup(containers, instances[i]->name), &fds[i]);
    wait_for_ends(fds, count, grace);
    end_hard(fds, count);
    for (unsigned i = 0; i < count; i++) {
        if (fds[i] >= 0)
            (void)close(fds[i]);
        (void)clear_instance(runc, instances[i]->name, &errors[i]);
    }
    return true;
}

static bool runc_changed_files(Driver *driver, const DriverInstance *instance, const StoreImage *image, GPtrArray **ret, GError **error)
{
    const RuncDriver *runc = (const RuncDriver *)driver;
    g_autofree char *dir = state_path(runc, "instances", instance->name), *upper = g_build_filename(dir, "upper", NULL),
                    *bundle = g_build_filename(dir, "bundle", "config.json", NULL), *from = image_dir(runc, &image->id);
    g_autoptr(RootfsStamp) stamp = NULL;
    auto_fd int fd = open(upper, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return fail_errno(error, "open folder '%s'", upper);
    return rootfs_stamp_load(from, &image->id, &stamp, error) && runc_drift_list(fd, stamp, bundle, ret, error);
}

static const char *runc_firewall(Driver *driver, const InstanceShape *shape)
{
    return shape->allow && shape->allow[0] ? "nft set on this host" : NULL;
}

const DriverOps driver_runc_ops = {
    .name = "runc",
    .kind = "oci",
    .check = runc_check,
    .open = runc_open,
    .close = runc_close,
    .host_count = runc_host_count,
    .host_name = runc_host_name,
    .needs = runc_needs,
    .prepare = runc_prepare,
    .forget = runc_forget,
    .create = runc_create,
    .observe = runc_observe,
    .attest = runc_attest,
    .destroy = runc_destroy,
    .destroy_volumes = runc_destroy_volumes,
    .changed_files = runc_changed_files,
    .firewall = runc_firewall,
};
