/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a container may do is written here, once: the capabilities of a usual container, no new privileges, the usual devices, masked paths, a
 * few system calls that no server needs. The image says which program runs, as whom, where and with which environment.
 */
#include "deploy/runc-config.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "deploy/rootfs.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>

#define WORDS_MAX 4096u
#define WORD_MAX ((size_t)128 * 1024) /* Linux's own limit for one argument */
#define PASSWD_MAX ((size_t)4 << 20)
#define GROUPS_MAX 256u
#define PIDS_MAX 8192
#define NOFILE_MAX 1048576u

/* --- users -------------------------------------------------------------------------------- */

void runc_user_clear(RuncUser *user)
{
    if (user->groups)
        g_array_unref(user->groups);
    g_free(user->home);
    *user = (RuncUser){.groups = NULL};
}

static bool parse_id(const char *text, uint32_t *ret)
{
    char *end;
    guint64 value;

    if (!g_ascii_isdigit(*text))
        return false;
    value = g_ascii_strtoull(text, &end, 10);
    if (*end || value >= UINT32_MAX) /* -1 means "unchanged" to the kernel */
        return false;
    *ret = (uint32_t)value;
    return true;
}

/* Lines of a table in the image; none where there is no such file. */
static bool read_table(int rootfd, const char *path, char ***ret, GError **error)
{
    auto_fd int fd = rootfs_open_inside(rootfd, path, O_RDONLY | O_NONBLOCK);
    g_autofree char *text = NULL;
    struct stat st;
    size_t size = 0;

    *ret = NULL;
    if (fd < 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            return fail_errno(error, "read the image's /%s", path);
        *ret = g_new0(char *, 1);
        return true;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size > PASSWD_MAX)
        return fail(error, "the image's /%s is no file of a sensible size", path);
    text = g_malloc0(PASSWD_MAX + 1);
    if (!file_read_upto(fd, text, PASSWD_MAX, &size, path, error))
        return false;
    text[size] = '\0';
    *ret = g_strsplit(text, "\n", -1);
    return true;
}

/* name:x:uid:gid:gecos:home:shell, by name or by number. */
static bool find_passwd(char **lines, const char *word, char ***ret)
{
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, ":", 8);
        uint32_t uid, gid;

        if (g_strv_length(fields) < 6 || !parse_id(fields[2], &uid) || !parse_id(fields[3], &gid))
            continue;
        if (strcmp(fields[0], word) == 0 || strcmp(fields[2], word) == 0) {
            *ret = g_steal_pointer(&fields);
            return true;
        }
    }
    return false;
}

static bool is_member(const char *members, const char *name)
{
    g_auto(GStrv) list = g_strsplit(members, ",", -1);

    return g_strv_contains((const char *const *)list, name);
}

static void add_groups(char **lines, const char *name, RuncUser *user)
{
    for (char **line = lines; *line && user->groups->len < GROUPS_MAX; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, ":", 4);
        uint32_t gid;

        if (g_strv_length(fields) == 4 && parse_id(fields[2], &gid) && gid != user->gid && is_member(fields[3], name))
            g_array_append_val(user->groups, gid);
    }
}

static bool find_group(char **lines, const char *word, uint32_t *ret)
{
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, ":", 4);

        if (g_strv_length(fields) >= 3 && strcmp(fields[0], word) == 0 && parse_id(fields[2], ret))
            return true;
    }
    return parse_id(word, ret);
}

/* "", "NAME", "UID", and each with ":GROUP" or ":GID"; a named group comes alone, as everywhere. */
bool runc_user_find(int rootfd, const char *text, RuncUser *ret, GError **error)
{
    g_auto(RuncUser) user = {.groups = g_array_new(FALSE, FALSE, sizeof(uint32_t))};
    g_auto(GStrv) passwd = NULL, groups = NULL, line = NULL;
    const char *colon = strchr(text, ':');
    g_autofree char *name = colon ? g_strndup(text, (gsize)(colon - text)) : g_strdup(text);

    if (!read_table(rootfd, "etc/passwd", &passwd, error) || !read_table(rootfd, "etc/group", &groups, error))
        return false;
    if (find_passwd(passwd, *name ? name : "0", &line)) {
        (void)parse_id(line[2], &user.uid);
        (void)parse_id(line[3], &user.gid);
        user.home = g_strdup(line[5]);
        if (!colon)
            add_groups(groups, line[0], &user);
    } else if (*name && !parse_id(name, &user.uid)) {
        return fail(error, "the image runs as user '%s', whom its /etc/passwd does not know", name);
    }
    if (colon && colon[1] && !find_group(groups, colon + 1, &user.gid))
        return fail(error, "the image runs as group '%s', which its /etc/group does not know", colon + 1);
    if (!user.home || *user.home != '/') {
        g_free(user.home);
        user.home = g_strdup(user.uid == 0 ? "/root" : "/");
    }
    *ret = user;
    user = (RuncUser){.groups = NULL};
    return true;
}

/* --- what the image says ------------------------------------------------------------------ */

static const json_t *run_config(const json_t *image)
{
    return json_object_get(image, "config");
}

static bool add_words(const json_t *run, const char *key, json_t *into, GError **error)
{
    const json_t *list = json_object_get(run, key), *item;
    size_t i;

    if (!list || json_is_null(list))
        return true;
    if (!json_is_array(list) || json_array_size(list) > WORDS_MAX)
        return fail(error, "the image's %s is no list of at most %u words", key, WORDS_MAX);
    json_array_foreach (list, i, item) {
        if (!json_is_string(item) || json_string_length(item) >= WORD_MAX || strlen(json_string_value(item)) != json_string_length(item))
            return fail(error, "element %zu of the image's %s is no word that a program could be given", i + 1, key);
        json_array_append(into, (json_t *)item);
    }
    return true;
}

static bool make_args(const json_t *image, json_t **ret, GError **error)
{
    g_autoptr(json_t) args = json_array();

    if (!add_words(run_config(image), "Entrypoint", args, error) || !add_words(run_config(image), "Cmd", args, error))
        return false;
    if (json_array_size(args) == 0 || !*json_string_value(json_array_get(args, 0)))
        return fail(error, "the image names no program to run: it has neither an entrypoint nor a command");
    *ret = g_steal_pointer(&args);
    return true;
}

/* Later ones win; a table keeps them apart, a list keeps their order. */
static void set_env(json_t *list, GHashTable *places, const char *line)
{
    const char *equals = strchr(line, '=');
    g_autofree char *key = equals ? g_strndup(line, (gsize)(equals - line)) : NULL;
    gpointer place;

    if (!key || !*key || !g_utf8_validate(line, -1, NULL))
        return;
    if (g_hash_table_lookup_extended(places, key, NULL, &place)) {
        json_array_set_new(list, GPOINTER_TO_UINT(place), json_string(line));
        return;
    }
    g_hash_table_insert(places, g_steal_pointer(&key), GUINT_TO_POINTER((guint)json_array_size(list)));
    json_array_append_new(list, json_string(line));
}

static void set_env_value(json_t *list, GHashTable *places, const char *key, const char *value)
{
    g_autofree char *line = g_strdup_printf("%s=%s", key, value);

    set_env(list, places, line);
}

static bool make_env(const RuncSpec *spec, const RuncUser *user, json_t **ret, GError **error)
{
    g_autoptr(GHashTable) places = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(json_t) from = json_array(), list = json_array();
    g_autofree char *port = g_strdup_printf("%u", spec->shape->port);
    json_t *item;
    size_t i;

    if (!add_words(run_config(spec->image), "Env", from, error))
        return false;
    set_env_value(list, places, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    set_env_value(list, places, "HOME", user->home);
    set_env_value(list, places, "HOSTNAME", spec->name);
    json_array_foreach (from, i, item)
        set_env(list, places, json_string_value(item));
    for (char **line = spec->shape->environment; line && *line; line++)
        set_env(list, places, *line);
    set_env_value(list, places, "KILN_INSTANCE", spec->name);
    if (spec->address)
        set_env_value(list, places, "KILN_ADDRESS", spec->address);
    if (spec->shape->port)
        set_env_value(list, places, "KILN_PORT", port);
    *ret = g_steal_pointer(&list);
    return true;
}

static bool string_of(const json_t *image, const char *key, const char **ret, GError **error)
{
    const json_t *value = json_object_get(run_config(image), key);

    *ret = "";
    if (!value || json_is_null(value))
        return true;
    if (!json_is_string(value) || json_string_length(value) > 4095 || strlen(json_string_value(value)) != json_string_length(value))
        return fail(error, "the image's %s is no text of at most 4095 bytes", key);
    *ret = json_string_value(value);
    return true;
}

const char *runc_stop_signal(const json_t *image)
{
    const char *text;

    if (!string_of(image, "StopSignal", &text, NULL) || !*text || strlen(text) > 12)
        return "SIGTERM";
    for (const char *c = text; *c; c++)
        if (!g_ascii_isupper(*c) && !g_ascii_isdigit(*c) && *c != '+' && (*c != '-' || c == text))
            return "SIGTERM";
    return text;
}

/* --- process ------------------------------------------------------------------------------ */

static json_t *words(const char *const *list)
{
    json_t *array = json_array();

    for (; *list; list++)
        json_array_append_new(array, json_string(*list));
    return array;
}

/*
 * root has what a container usually has; others keep it only as the bound of what set-id programs could get, and no_new_privileges
 * takes even that. A port below 1024 on the host's network needs a capability (in a network of its own a sysctl opens them).
 */
static json_t *make_capabilities(const RuncSpec *spec, const RuncUser *user)
{
    static const char *const usual[] = {"CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FOWNER",  "CAP_FSETID", "CAP_KILL",       "CAP_NET_BIND_SERVICE",
                                        "CAP_SETFCAP", "CAP_SETGID",       "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT", NULL};
    static const char *const binding[] = {"CAP_NET_BIND_SERVICE", NULL}, *const none[] = {NULL};
    bool low_port = !spec->netns && spec->shape->port > 0 && spec->shape->port < 1024;
    const char *const *held = user->uid == 0 ? usual : low_port ? binding : none;
    bool ambient = user->uid != 0 && low_port;

    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "bounding", words(usual), "effective", words(held), "permitted", words(held), "inheritable",
                     words(ambient ? binding : none), "ambient", words(ambient ? binding : none));
}

/* As many open files as we may have ourselves: a higher bound needs CAP_SYS_RESOURCE. */
static json_t *make_rlimits(void)
{
    struct rlimit files;
    rlim_t most;

    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return json_array();
    most = MIN(files.rlim_max, (rlim_t)NOFILE_MAX);
    return json_pack("[{s:s, s:I, s:I}]", "type", "RLIMIT_NOFILE", "hard", (json_int_t)most, "soft", (json_int_t)most);
}

static bool make_process(const RuncSpec *spec, json_t **ret, GError **error)
{
    g_auto(RuncUser) user = {.groups = NULL};
    g_autoptr(json_t) args = NULL, env = NULL, groups = json_array();
    const char *user_text, *cwd;

    if (!string_of(spec->image, "User", &user_text, error) || !string_of(spec->image, "WorkingDir", &cwd, error) ||
        !runc_user_find(spec->rootfd, user_text, &user, error) || !make_args(spec->image, &args, error) || !make_env(spec, &user, &env, error))
        return false;
    if (*cwd && *cwd != '/')
        return fail(error, "the image's working folder '%s' is no absolute path", cwd);
    for (guint i = 0; i < user.groups->len; i++)
        json_array_append_new(groups, json_integer(g_array_index(user.groups, uint32_t, i)));
    *ret = json_pack("{s:b, s:{s:I, s:I, s:i, s:O}, s:O, s:O, s:s, s:o, s:o, s:b}", "terminal", 0, "user", "uid", (json_int_t)user.uid, "gid",
                     (json_int_t)user.gid, "umask", 18, "additionalGids", groups, "args", args, "env", env, "cwd", *cwd ? cwd : "/", "capabilities",
                     make_capabilities(spec, &user), "rlimits", make_rlimits(), "noNewPrivileges", 1);
    return *ret || fail(error, "the image's config holds text that is not UTF-8");
}

/* --- linux -------------------------------------------------------------------------------- */

static json_t *make_mount(const char *destination, const char *type, const char *source, const char *options)
{
    g_auto(GStrv) list = g_strsplit(options, ",", -1);

    return json_pack("{s:s, s:s, s:s, s:o}", "destination", destination, "type", type, "source", source, "options", words((const char *const *)list));
}

static json_t *make_mounts(const RuncSpec *spec)
{
    json_t *mounts = json_array();

    json_array_append_new(mounts, make_mount("/proc", "proc", "proc", "nosuid,noexec,nodev"));
    json_array_append_new(mounts, make_mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"));
    json_array_append_new(mounts, make_mount("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"));
    json_array_append_new(mounts, make_mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"));
    json_array_append_new(mounts, make_mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"));
    if (spec->netns) /* sysfs shows the network name space it is mounted in, and mounting it needs to own that */
        json_array_append_new(mounts, make_mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"));
    else
        json_array_append_new(mounts, make_mount("/sys", "none", "/sys", "rbind,nosuid,noexec,nodev,ro"));
    for (unsigned i = 0; i < spec->mount_count; i++)
        json_array_append_new(mounts, make_mount(spec->mounts[i].destination, "bind", spec->mounts[i].source,
                                                 spec->mounts[i].readonly ? "rbind,rprivate,nosuid,nodev,ro" : "rbind,rprivate,nosuid,nodev,rw"));
    return mounts;
}

static json_t *make_namespaces(const RuncSpec *spec)
{
    json_t *list = json_pack("[{s:s}, {s:s}, {s:s}, {s:s}]", "type", "pid", "type", "ipc", "type", "uts", "type", "mount");

    if (spec->netns)
        json_array_append_new(list, json_pack("{s:s, s:s}", "type", "network", "path", spec->netns));
    return list;
}

static json_t *make_resources(const RuncSpec *spec)
{
    json_t *resources = json_pack("{s:[{s:b, s:s}]}", "devices", "allow", 0, "access", "rwm");

    if (!spec->limits)
        return resources;
    if (spec->shape->memory)
        json_object_set_new(resources, "memory", json_pack("{s:I}", "limit", (json_int_t)spec->shape->memory));
    if (spec->shape->cpus)
        json_object_set_new(resources, "cpu",
                            json_pack("{s:I, s:i}", "quota", (json_int_t)MIN(spec->shape->cpus, 10000u) * 100000, "period", 100000));
    json_object_set_new(resources, "pids", json_pack("{s:i}", "limit", PIDS_MAX));
    return resources;
}

/* Capabilities stop most of it; these reach the host's kernel without one. */
static json_t *make_seccomp(void)
{
    static const char *const calls[] = {"acct",       "add_key",       "bpf",    "finit_module",      "init_module",    "kexec_file_load", "kexec_load",
                                        "keyctl",     "open_by_handle_at", "perf_event_open", "request_key", "swapoff", "swapon",
                                        "userfaultfd", NULL};

    return json_pack("{s:s, s:[{s:o, s:s, s:i}]}", "defaultAction", "SCMP_ACT_ALLOW", "syscalls", "names", words(calls), "action", "SCMP_ACT_ERRNO",
                     "errnoRet", 1);
}

static json_t *make_linux(const RuncSpec *spec)
{
    static const char *const masked[] = {"/proc/acpi",      "/proc/asound",       "/proc/kcore",   "/proc/keys",   "/proc/latency_stats", "/proc/timer_list",
                                         "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi", "/sys/devices/virtual/powercap", NULL};
    static const char *const readonly[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL};
    json_t *linux_part = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "cgroupsPath", spec->cgroup, "namespaces", make_namespaces(spec), "resources",
                                   make_resources(spec), "seccomp", make_seccomp(), "maskedPaths", words(masked), "readonlyPaths", words(readonly));

    if (spec->netns)
        json_object_set_new(linux_part, "sysctl", json_pack("{s:s}", "net.ipv4.ip_unprivileged_port_start", "0"));
    return linux_part;
}

bool runc_config_make(const RuncSpec *spec, json_t **ret, GError **error)
{
    json_t *process = NULL;
    char host[65];

    if (!json_is_object(spec->image))
        return fail(error, "the image's config is no object");
    if (run_config(spec->image) && !json_is_object(run_config(spec->image)) && !json_is_null(run_config(spec->image)))
        return fail(error, "the image's config has a 'config' that is no object");
    if (!make_process(spec, &process, error))
        return false;
    (void)g_strlcpy(host, spec->name, sizeof host); /* Linux takes 64 bytes */
    *ret = json_pack("{s:s, s:o, s:{s:s, s:b}, s:s, s:o, s:{s:s}, s:o}", "ociVersion", "1.0.2", "process", process, "root", "path", spec->root, "readonly",
                     0, "hostname", host, "mounts", make_mounts(spec), "annotations", RUNC_ANNOTATION, spec->identity, "linux", make_linux(spec));
    return *ret || fail(error, "'%s' can't be described as JSON", spec->name);
}
