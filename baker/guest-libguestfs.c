/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real guest: a libguestfs appliance in qemu that mounts the working disk and runs kiln's runner. The door to libguestfs.
 *
 *     kiln --- libguestfs's own channel --- guestfsd    launch, mount, unmount, shutdown
 *        \---- control socket ------------- runner      everything else (guest-channel.c)
 *        \---- NBD (the store's nbdkit) --- /dev/sda
 *
 * libguestfs could run commands itself, but each would cost over a second without KVM, could not be stopped, and would
 * show its output only at its end. So it is asked for what it does best, and is otherwise left alone.
 *
 * libguestfs calls cannot be interrupted either. A watcher thread does it from outside: it knows qemu by the peer of the control socket
 * (qemu connects to us while it starts) and kills it when the user interrupts or a call passes its limit; the call then
 * fails by itself. When kiln itself is killed, libguestfs's recovery process ends qemu.
 */
#include "base/accel.h"
#include "baker/appliance.h"
#include "baker/guest-channel.h"
#include "baker/guest-network.h"
#include "baker/guest-open.h"
#include "base/host-kernel.h"
#include "base/libexec.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/scope.h"

#include <fcntl.h>
#include <guestfs.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define DISK "/dev/sda"                        /* the first drive we add */
#define RUNNER_IN_APPLIANCE "/tmp/kiln-runner" /* in the appliance's own memory, never on the guest's disk   \
                                                */
#define CONTROL_PORT "org.kiln.control.0"
#define SYSROOT "/sysroot"
#define LAUNCH_LIMIT 600 /* seconds; building the appliance the first time included */
#define CALL_LIMIT 300
#define DISK_CHECK_MS 500
#define MEMORY_DEFAULT_MIB 2048
#define MEMORY_MIN_MIB 512
#define SOCKDIR_MAX 56 /* libguestfs adds up to 40 bytes, and a socket's name has room for 107 */
#define CONSOLE_KEPT 4096
#define QEMU_END_MS 200 /* the end of its connections is seen before its own */

/* What the watcher thread shares with us; guarded by the lock. */
typedef struct Watcher {
    GMutex lock;
    GThread *thread;
    const char *path; /* of the control socket */
    int listen_fd, wake_fd;
    int control_fd; /* -1 until qemu connected, or after it was taken */
    int qemu_pidfd;
    bool accepted, stop, killed;
    int64_t limit; /* of the libguestfs call that runs; 0: none */
    bool limit_passed;
    bool (*disk_is_good)(void *arg); /* NULL: not asked, or it said no already */
    void *disk_arg;
} Watcher;

typedef struct GuestLibguestfs {
    GuestOverChannel over;
    guestfs_h *g;
    Watcher watcher;
    char *sockdir; /* removed by us */
    char *control_path;
    bool inspect;
    bool has_runner; /* at APPLIANCE_RUNNER */
    bool launched;
    char *partitions;  /* where they start, as the kernel tells it; NULL: not asked yet */
    GPtrArray *mounts; /* char *: device, folder, device, folder, ... */
    GString *console;  /* the last of what the kernel said */
    GuestNetwork *network; /* NULL: no card */
    bool network_up;
    GPtrArray *reached; /* by the last step with network; NULL: there was none */
} GuestLibguestfs;

/* --- ending qemu from outside --- */

static void kill_qemu_locked(Watcher *w)
{
    if (w->qemu_pidfd >= 0 && !w->killed)
        (void)syscall(SYS_pidfd_send_signal, w->qemu_pidfd, SIGKILL, NULL, 0); /* it may be gone already */
    w->killed = true;
}

static void kill_qemu(Watcher *w)
{
    AUTO_LOCK(&w->lock);
    kill_qemu_locked(w);
}

/* Removes a socket and the folder that was made for it. */
static void unlink_socket(const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path);

    (void)unlink(path);
    (void)rmdir(folder);
}

/*
 * Sockets have done their work once qemu has connected, and would stay if we were killed. libguestfs's own
 * (for root always in /tmp) was connected before ours, which is the order of qemu's arguments; there we find
 * its name, too.
 */
static void unlink_libguestfs_socket(pid_t qemu)
{
    g_autofree char *file = g_strdup_printf("/proc/%d/cmdline", (int)qemu), *text = NULL;
    gsize size = 0;

    if (!g_file_get_contents(file, &text, &size, NULL))
        return;
    for (char *arg = text; arg < text + size; arg += strlen(arg) + 1) {
        char *path = g_str_has_prefix(arg, "socket,") ? strstr(arg, "path=") : NULL;
        char *end = path && strstr(path, "/libguestfs") ? strstr(path, "/guestfsd.sock,") : NULL;

        if (end) {
            end[strlen("/guestfsd.sock")] = '\0';
            unlink_socket(path + strlen("path="));
        }
    }
}

static void accept_qemu_locked(Watcher *w)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    int fd = accept4(w->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0 || w->accepted || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
        scope_close_fd(&fd);
        return;
    }
    w->qemu_pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    w->control_fd = fd;
    w->accepted = true;
    unlink_libguestfs_socket(peer.pid);
    unlink_socket(w->path);
    if (w->killed && w->qemu_pidfd >= 0) /* the user was faster than qemu */
        (void)syscall(SYS_pidfd_send_signal, w->qemu_pidfd, SIGKILL, NULL, 0);
}

static int watcher_wait_ms(const Watcher *w)
{
    int64_t left, most = w->disk_is_good ? DISK_CHECK_MS : G_MAXINT;

    if (w->killed)
        return -1;
    if (!w->limit)
        return w->disk_is_good ? DISK_CHECK_MS : -1;
    left = w->limit - g_get_monotonic_time();
    return left <= 0 ? 0 : (int)MIN(left / 1000 + 1, most);
}

static void watcher_look(Watcher *w, bool qemu_connects)
{
    uint64_t drained;

    (void)!read(w->wake_fd, &drained, sizeof drained);
    if (qemu_connects)
        accept_qemu_locked(w);
    if (interrupt_requested())
        kill_qemu_locked(w);
    if (w->limit && g_get_monotonic_time() >= w->limit) {
        w->limit_passed = true;
        kill_qemu_locked(w);
    }
}

static gpointer watcher_main(gpointer arg)
{
    Watcher *w = arg;

    g_mutex_lock(&w->lock);
    while (!w->stop) {
        struct pollfd fds[] = {
            {.fd = w->wake_fd, .events = POLLIN},
            {.fd = w->accepted ? -1 : w->listen_fd, .events = POLLIN},
            {.fd = w->killed ? -1 : interrupt_fd(), .events = POLLIN},
        };
        int ms = watcher_wait_ms(w);
        bool good;

        g_mutex_unlock(&w->lock);
        (void)poll(fds, 3, ms);
        good = !w->disk_is_good || w->disk_is_good(w->disk_arg); /* may wait for the disk: not under the lock */
        g_mutex_lock(&w->lock);
        if (!good) {
            w->disk_is_good = NULL;
            kill_qemu_locked(w);
        }
        watcher_look(w, fds[1].revents != 0);
    }
    g_mutex_unlock(&w->lock);
    return NULL;
}

static void watcher_wake(Watcher *w)
{
    uint64_t one = 1;

    (void)!write(w->wake_fd, &one, sizeof one);
}

/* The next libguestfs call may take @seconds; 0 when it is over. */
static void watcher_limit(Watcher *w, double seconds)
{
    g_mutex_lock(&w->lock);
    w->limit = seconds > 0 ? g_get_monotonic_time() + (int64_t)(seconds * G_USEC_PER_SEC) : 0;
    g_mutex_unlock(&w->lock);
    watcher_wake(w);
}

static bool watcher_listen(Watcher *w, const char *path, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path)
        return fail(error, "the folder for sockets has a name that is too long: '%s'", path);
    (void)g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    w->path = path;
    w->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (w->listen_fd < 0 || bind(w->listen_fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(w->listen_fd, 1) < 0)
        return fail_errno(error, "listen on the guest's control socket '%s'", path);
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->wake_fd < 0)
        return fail_errno(error, "make an event descriptor");
    w->thread = g_thread_new("guest-watcher", watcher_main, w);
    return true;
}

static void watcher_init(Watcher *w)
{
    *w = (Watcher){.listen_fd = -1, .wake_fd = -1, .control_fd = -1, .qemu_pidfd = -1};
    g_mutex_init(&w->lock);
}

static void watcher_clear(Watcher *w)
{
    if (w->thread) {
        g_mutex_lock(&w->lock);
        w->stop = true;
        g_mutex_unlock(&w->lock);
        watcher_wake(w);
        g_thread_join(w->thread);
    }
    scope_close_fd(&w->listen_fd);
    scope_close_fd(&w->wake_fd);
    scope_close_fd(&w->control_fd);
    scope_close_fd(&w->qemu_pidfd);
    g_mutex_clear(&w->lock);
}

/* --- errors --- */

/* libguestfs explains itself in paragraphs; the first line says what happened. */
static char *first_line(const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text ? text : "no reason given", "\n", 2);
    g_autofree char *line = g_strdup(lines[0] ? lines[0] : "");

    g_strstrip(line);
    if (g_str_has_suffix(line, "."))
        line[strlen(line) - 1] = '\0';
    return printable_line(line);
}

/* Not by us: somebody killed it, or the kernel did when memory was short. */
static bool qemu_ended(GuestLibguestfs *guest)
{
    Watcher *w = &guest->watcher;
    AUTO_LOCK(&w->lock);
    struct pollfd fd = {.fd = w->qemu_pidfd, .events = POLLIN};

    return !w->killed && w->qemu_pidfd >= 0 && poll(&fd, 1, QEMU_END_MS) > 0;
}

/* Why qemu could not start; what it only warns of ended nothing. NULL: it said no such thing. */
static const char *qemu_complaint(const char *console)
{
    const char *line = console;

    while ((line = strstr(line, "qemu-system"))) {
        size_t length = strcspn(line, "\n");

        if (!g_strstr_len(line, (gssize)length, "warning:"))
            return line;
        line += length;
    }
    return NULL;
}

/*
 * A kernel that ran out of memory or crashed, and a qemu that could not start, have said so on the console. libguestfs tells of
 * a qemu that is gone as of a failed call.
 */
static char *reason_of(GuestLibguestfs *guest)
{
    const char *console = guest->console->str, *qemu = qemu_complaint(console);
    const char *last = guestfs_last_error(guest->g);

    if (strstr(console, "Out of memory") || strstr(console, "oom-kill"))
        return g_strdup("it ran out of memory");
    if (strstr(console, "Kernel panic"))
        return g_strdup("its kernel crashed");
    if (strstr(console, "KVM internal error"))
        return g_strdup("this machine's KVM failed; KILN_ACCEL=tcg does without it");
    if (qemu && !guest->launched)
        return first_line(qemu);
    if (qemu_ended(guest) || (last && g_str_has_prefix(last, "guestfs_launch failed")))
        return g_strdup("the virtual machine (qemu) ended unexpectedly");
    return first_line(last);
}

/* After a failed libguestfs call that should have done @what. Returns false. */
static bool fail_call(GuestLibguestfs *guest, GError **error, const char *what)
{
    g_autofree char *reason = reason_of(guest);
    bool limit_passed;

    g_mutex_lock(&guest->watcher.lock);
    limit_passed = guest->watcher.limit_passed;
    g_mutex_unlock(&guest->watcher.lock);
    if (!interrupt_check(error))
        return false;
    if (limit_passed)
        return fail_code(error, KILN_ERROR_TIMEOUT, "cannot %s: the appliance did not answer in time", what);
    return fail(error, "cannot %s: %s", what, reason);
}

/* CALL(guest, guestfs_x(...) < 0) is true when the call failed; it is given CALL_LIMIT seconds. */
#define CALL(guest, failed) CALL_WITHIN(guest, CALL_LIMIT, failed)
#define CALL_WITHIN(guest, limit, failed)                                                                    \
    ({                                                                                                       \
        bool call_failed;                                                                                    \
        watcher_limit(&(guest)->watcher, limit);                                                             \
        call_failed = (failed);                                                                              \
        watcher_limit(&(guest)->watcher, 0);                                                                 \
        call_failed;                                                                                         \
    })

static void on_guest_dead(void *arg)
{
    GuestLibguestfs *guest = arg;

    kill_qemu(&guest->watcher);
}

/* --- what must be there before it makes sense to launch --- */

static unsigned default_memory(void)
{
    uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) >> 20;

    return (unsigned)CLAMP(host / 2, MEMORY_MIN_MIB, MEMORY_DEFAULT_MIB);
}

/* --- launching --- */

static void on_event(guestfs_h *g, void *opaque, uint64_t event, int handle, int flags, const char *buf,
                     size_t size, const uint64_t *array, size_t n_array)
{
    GuestLibguestfs *guest = opaque;

    if (event == GUESTFS_EVENT_APPLIANCE) {
        if (memmem(buf, size, "KVM internal error", strlen("KVM internal error")))
            kill_qemu(&guest->watcher); /* qemu would only stop, and everybody wait for ever */
        for (size_t i = 0; i < size; i++)
            g_string_append_c(guest->console, buf[i] ? buf[i] : '?');
        if (guest->console->len > CONSOLE_KEPT)
            g_string_erase(guest->console, 0, (gssize)(guest->console->len - CONSOLE_KEPT));
    }
    if (size && trace_enabled("baker.guest")) {
        g_autofree char *text = g_strndup(buf, size);

        trace("baker.guest", "%s", g_strchomp(text));
    }
}

/*
 * The only environment libguestfs sees: where the appliance is and is cached, and where sockets go (not for
 * root). The rest (another backend, another network, debugging) would change bakes behind the user's back.
 */
static bool give_environment(GuestLibguestfs *guest, GError **error)
{
    static const char *const passed[] = {"LIBGUESTFS_PATH", "LIBGUESTFS_CACHEDIR", "LIBGUESTFS_HV"};
    g_autoptr(GPtrArray) env = g_ptr_array_new_with_free_func(g_free);

    for (size_t i = 0; i < G_N_ELEMENTS(passed); i++)
        if (g_getenv(passed[i]))
            g_ptr_array_add(env, g_strdup_printf("%s=%s", passed[i], g_getenv(passed[i])));
    g_ptr_array_add(env, g_strdup_printf("XDG_RUNTIME_DIR=%s", guest->sockdir));
    g_ptr_array_add(env, NULL);
    if (guestfs_parse_environment_list(guest->g, (char **)env->pdata) < 0)
        return fail_call(guest, error, "set up libguestfs");
    return true;
}

static bool add_qemu_arguments(GuestLibguestfs *guest, const GuestOpenSpec *spec, GError **error)
{
    /* A comma in a name would end it; qemu wants it doubled. */
    g_auto(GStrv) parts = g_strsplit(guest->control_path, ",", -1);
    g_autofree char *path = g_strjoinv(",,", parts);
    g_autofree char *chardev = g_strdup_printf("socket,id=kilncontrol,path=%s", path);
    g_auto(GStrv) network = NULL;

    if (guestfs_config(guest->g, "-chardev", chardev) < 0 ||
        guestfs_config(guest->g, "-device", "virtserialport,chardev=kilncontrol,name=" CONTROL_PORT) < 0)
        return fail_call(guest, error, "set up the guest's control port");
    /* Ours rather than libguestfs's network: that one renames the guest's resolv.conf for every command. */
    if (!spec->network)
        return true;
    guest->network = guest_network_new(guest->sockdir);
    network = guest_network_arguments(guest->network);
    for (char **pair = network; *pair; pair += 2)
        if (guestfs_config(guest->g, pair[0], pair[1]) < 0)
            return fail_call(guest, error, "set up the guest's network");
    return true;
}

static bool configure(GuestLibguestfs *guest, const GuestOpenSpec *spec, GError **error)
{
    g_autofree char *server = g_strdup_printf("unix:%s", spec->nbd_socket);
    char *servers[] = {server, NULL};
    guestfs_h *g = guest->g;
    bool tracing = trace_enabled("baker.guest");

    guestfs_set_error_handler(g, NULL, NULL);
    (void)guestfs_set_event_callback(
        g, on_event, GUESTFS_EVENT_APPLIANCE | (tracing ? GUESTFS_EVENT_LIBRARY | GUESTFS_EVENT_WARNING : 0),
        0, guest);
    if (!give_environment(guest, error))
        return false;
    if (guestfs_set_backend(g, "direct") < 0 || guestfs_set_tmpdir(g, spec->tmpdir) < 0 ||
        guestfs_set_network(g, 0) < 0 || guestfs_set_identifier(g, "kiln") < 0 ||
        guestfs_set_append(g, "kiln.port=" CONTROL_PORT) < 0 || /* our own appliance waits for it */
        (spec->appliance && guestfs_set_path(g, spec->appliance) < 0) ||
        (accel_find() != ACCEL_KVM && guestfs_set_backend_setting(g, "force_tcg", "1") < 0) ||
        guestfs_set_pgroup(g, 1) < 0 || guestfs_set_recovery_proc(g, 1) < 0 ||
        guestfs_set_verbose(g, tracing) < 0 ||
        guestfs_set_memsize(
            g, (int)MAX(spec->memory_mib ? spec->memory_mib : default_memory(), MEMORY_MIN_MIB)) < 0 ||
        guestfs_add_drive_opts(g, "", GUESTFS_ADD_DRIVE_OPTS_FORMAT, "raw", GUESTFS_ADD_DRIVE_OPTS_PROTOCOL,
                               "nbd", GUESTFS_ADD_DRIVE_OPTS_SERVER, servers, GUESTFS_ADD_DRIVE_OPTS_DISCARD,
                               "enable", GUESTFS_ADD_DRIVE_OPTS_CACHEMODE, "unsafe", -1) < 0)
        return fail_call(guest, error, "set up the appliance");
    return add_qemu_arguments(guest, spec, error);
}

static bool launch(GuestLibguestfs *guest, GError **error)
{
    int64_t start = g_get_monotonic_time();
    int rc;

    log_verbose("starting the appliance");
    watcher_limit(&guest->watcher, LAUNCH_LIMIT);
    rc = guestfs_launch(guest->g);
    watcher_limit(&guest->watcher, 0);
    if (rc < 0)
        return fail_call(guest, error, "start the bake appliance");
    guest->launched = true; /* what qemu said on the way, as about a missing KVM, explains no later failure */
    log_verbose("appliance ready after %.1f s", (double)(g_get_monotonic_time() - start) / G_USEC_PER_SEC);
    return true;
}

/* --- mounting --- */

/* Runs a line of shell in the appliance, outside the guest. The caller frees the result; NULL on failure. */
static char *appliance_sh(GuestLibguestfs *guest, const char *line)
{
    const char *args[] = {line, NULL};
    char *out = NULL;

    (void)CALL(guest, (out = guestfs_debug(guest->g, "sh", (char **)args)) == NULL);
    return out;
}

static void add_mount(GuestLibguestfs *guest, const char *device, const char *folder)
{
    g_ptr_array_add(guest->mounts, g_strdup(device));
    g_ptr_array_add(guest->mounts, g_strdup(folder));
}

/*
 * The partition that starts at @offset, read from the kernel: "/sys/block/sdb/sdb1/start:2048". The kernel names
 * disks in the order in which it happens to find them, and the appliance's own, which has no partitions, may come
 * first; libguestfs translates our /dev/sda for its own calls only.
 */
static bool find_partition(GuestLibguestfs *guest, uint64_t offset, char **ret_device, GError **error)
{
    g_auto(GStrv) lines = NULL;

    if (offset == 0) {
        *ret_device = g_strdup(DISK);
        return true;
    }
    if (!guest->partitions)
        guest->partitions = appliance_sh(guest, "command -v udevadm >/dev/null && udevadm settle; grep -H . /sys/block/sd*/sd*/start");
    if (!guest->partitions)
        return fail_call(guest, error, "read the working disk's partitions");
    lines = g_strsplit(guest->partitions, "\n", -1);
    for (char **line = lines; *line; line++) {
        unsigned number;
        uint64_t start;

        if (sscanf(*line, "/sys/block/sd%*[a-z]/sd%*[a-z]%u/start:%" G_GUINT64_FORMAT, &number, &start) == 2 &&
            start == offset / 512) {
            *ret_device = g_strdup_printf(DISK "%u", number);
            return true;
        }
    }
    return fail(error, "the working disk has no partition at byte %" G_GUINT64_FORMAT, offset);
}

/* Shortest folder first, so that parents are mounted before children. */
static int compare_folders(gconstpointer a, gconstpointer b)
{
    char **const *x = a, **const *y = b;
    size_t nx = strlen((*x)[0]), ny = strlen((*y)[0]);

    return nx != ny ? (nx < ny ? -1 : 1) : strcmp((*x)[0], (*y)[0]);
}

/*
 * Which of the operating systems that libguestfs sees: the one whose root the host reads, for what the host takes from the disk
 * must be what the steps changed. NULL: that root alone, one of which libguestfs makes nothing (no fstab, an unusual system).
 */
static const char *choose_root(char *const *roots, const char *host_root)
{
    if (!host_root && roots[0] && roots[1])
        log_warning("the disk holds several operating systems; the one on %s is used", roots[0]);
    if (!host_root)
        return roots[0];
    for (; *roots; roots++)
        if (strcmp(*roots, host_root) == 0)
            return *roots;
    return NULL;
}

/* @host_root: device of the root that the host reads, or NULL. */
static bool find_inspected_root(GuestLibguestfs *guest, const char *host_root, GError **error)
{
    g_autoptr(GPtrArray) pairs = g_ptr_array_new();
    g_auto(GStrv) roots = NULL; /* libguestfs hands out what malloc gave, which is what g_free takes */
    const char *root;
    char **found = NULL;

    if (CALL_WITHIN(guest, LAUNCH_LIMIT, (roots = guestfs_inspect_os(guest->g)) == NULL)) /* mounts and reads all there is */
        return fail_call(guest, error, "look for an operating system on the disk");
    root = choose_root(roots, host_root);
    if (!root && !host_root)
        return fail(error, "no operating system found on the disk");
    if (!root) {
        add_mount(guest, host_root, "/");
        return true;
    }
    (void)CALL(guest, (found = guestfs_inspect_get_mountpoints(guest->g, root)) == NULL);
    if (!found)
        return fail_call(guest, error, "read the disk's mount points");
    for (char **pair = found; pair[0] && pair[1]; pair += 2)
        g_ptr_array_add(pairs, pair);
    g_ptr_array_sort(pairs, compare_folders);
    for (guint i = 0; i < pairs->len; i++) {
        char **pair = g_ptr_array_index(pairs, i);

        add_mount(guest, pair[1], pair[0]);
    }
    g_strfreev(found);
    return true;
}

static bool add_known_mounts(GuestLibguestfs *guest, const GPtrArray *mounts, GError **error)
{
    for (guint i = 0; i < mounts->len; i++) {
        const GuestMount *mount = mounts->pdata[i];
        g_autofree char *device = NULL;

        if (!find_partition(guest, mount->offset, &device, error))
            return false;
        add_mount(guest, device, mount->folder);
    }
    return true;
}

static bool find_root(GuestLibguestfs *guest, const GuestOpenSpec *spec, GError **error)
{
    g_autofree char *device = NULL;

    if (spec->mounts)
        return add_known_mounts(guest, spec->mounts, error);
    if ((!spec->inspect || spec->root_known) && !find_partition(guest, spec->root_offset, &device, error))
        return false;
    if (spec->inspect)
        return find_inspected_root(guest, device, error);
    add_mount(guest, device, "/");
    return true;
}

static bool mount_all(GuestLibguestfs *guest, GError **error)
{
    for (guint i = 0; i < guest->mounts->len; i += 2) {
        const char *device = g_ptr_array_index(guest->mounts, i),
                   *folder = g_ptr_array_index(guest->mounts, i + 1);
        g_autoptr(GError) local = NULL;

        if (!CALL(guest, guestfs_mount_options(guest->g, "noatime", device, folder) < 0))
            continue;
        (void)fail_call(guest, &local, "mount");
        if (strcmp(folder, "/") != 0 &&
            local->code == KILN_ERROR_FAILED) { /* as the virt tools do: a stale line in fstab is common */
            log_warning("'%s' (%s) of the guest is not mounted: %s", folder, device, local->message);
            continue;
        }
        g_propagate_error(error, g_steal_pointer(&local));
        return fail_prefix(error, "the guest's file system '%s' on %s", folder, device);
    }
    return true;
}

/* --- the runner --- */

/* kiln's own appliance brings it along. */
static bool upload_runner(GuestLibguestfs *guest, GError **error)
{
    g_autofree char *runner = NULL;

    if (guest->has_runner)
        return true;
    if (!libexec_find("kiln-runner", &runner, error))
        return false;
    if (CALL(guest, guestfs_debug_upload(guest->g, runner, RUNNER_IN_APPLIANCE, 0755) < 0))
        return fail_call(guest, error, "put kiln's runner into the appliance");
    return true;
}

static bool start_runner(GuestLibguestfs *guest, GError **error)
{
    static const char arguments[] = " /dev/virtio-ports/" CONTROL_PORT " " SYSROOT;
    g_autofree char *line = g_strconcat(guest->has_runner ? APPLIANCE_RUNNER : RUNNER_IN_APPLIANCE, arguments, NULL);
    g_autofree char *out = appliance_sh(guest, line);

    if (!out)
        return fail_call(guest, error, "start kiln's runner in the appliance");
    if (!guest_channel_hello(guest->over.channel, CALL_LIMIT, error))
        return fail_prefix(error, "start kiln's runner in the appliance");
    return true;
}

static bool take_control_socket(GuestLibguestfs *guest, GError **error)
{
    Watcher *w = &guest->watcher;
    int fd;

    g_mutex_lock(&w->lock);
    fd = g_steal_fd(&w->control_fd);
    g_mutex_unlock(&w->lock);
    if (fd < 0) /* qemu connects before its machine runs, and the machine has answered */
        return fail(error, "qemu did not open the guest's control socket");
    guest->over.channel = guest_channel_new(fd, on_guest_dead, guest);
    return true;
}

/* --- GuestOps --- */

static GuestLibguestfs *self(Guest *guest)
{
    return (GuestLibguestfs *)guest;
}

static void guest_free(GuestLibguestfs *guest)
{
    if (guest->g)
        guestfs_close(guest->g);
    guest_channel_free(guest->over.channel);
    guest_network_free(guest->network);
    if (guest->reached)
        g_ptr_array_unref(guest->reached);
    watcher_clear(&guest->watcher);
    if (guest->sockdir)
        (void)file_remove_tree(AT_FDCWD, guest->sockdir, NULL);
    g_free(guest->sockdir);
    g_free(guest->control_path);
    g_free(guest->partitions);
    g_ptr_array_unref(guest->mounts);
    g_string_free(guest->console, TRUE);
    g_free(guest);
}

static void op_kill(Guest *base)
{
    if (!base)
        return;
    kill_qemu(&self(base)->watcher);
    guest_free(self(base));
}

/* The link is up before the runner sets the card up, and goes down before the next step can start. */
static bool op_begin(Guest *base, const GuestStep *step, GError **error)
{
    GuestLibguestfs *guest = self(base);

    g_clear_pointer(&guest->reached, g_ptr_array_unref);
    if (step->network && guest->network && !guest_network_up(guest->network, error))
        return false;
    guest->network_up = step->network && guest->network;
    return guest_channel_begin(base, step, error);
}

static bool op_end(Guest *base, GError **error)
{
    GuestLibguestfs *guest = self(base);
    bool ended = guest_channel_end(base, error), up = guest->network_up;

    guest->network_up = false;
    return ended && (!up || guest_network_down(guest->network, &guest->reached, error));
}

static const GPtrArray *op_reached(Guest *base)
{
    return self(base)->reached;
}

/* A disk of somebody else's is trimmed before it is sealed: what a step deleted must not stay in its free
 * blocks. */
static bool op_checkpoint(Guest *base, bool (*seal)(void *arg, GError **error), void *arg, GError **error)
{
    GuestLibguestfs *guest = self(base);
    bool sealed;

    if (!guest_channel_freeze(guest->over.channel, guest->inspect, error))
        return false;
    sealed = seal(arg, error);
    return guest_channel_thaw(guest->over.channel, sealed ? error : NULL) && sealed;
}

/* For appliance_sh(): all volumes of LVM come (y) or go (n), where there are any. */
#define VOLUMES(yes_or_no) "if [ -d /dev/mapper ] && command -v lvm >/dev/null; then lvm vgchange -q -a" yes_or_no "; fi >/dev/null 2>&1; "

/* Nothing of the old contents may be left in any cache: the blocks under them are other ones now. */
static bool forget_disk(GuestLibguestfs *guest, GError **error)
{
    g_autofree char *out = NULL;

    if (CALL(guest, guestfs_umount_all(guest->g) < 0))
        return fail_call(guest, error, "unmount the guest's disk");
    out = appliance_sh(guest, VOLUMES("n") "sync; for d in /dev/sd*; do blockdev --flushbufs $d; done; echo 3 > /proc/sys/vm/drop_caches");
    return out || fail_call(guest, error, "forget the guest's disk");
}

/* Volumes are where the tables of the kept state say, which need not be where a dropped step put them. */
static bool flush_reads(GuestLibguestfs *guest, GError **error)
{
    g_autofree char *out = appliance_sh(guest, "for d in /dev/sd*; do blockdev --flushbufs $d; done; " VOLUMES("y") ":");

    return out || fail_call(guest, error, "forget the guest's disk");
}

static bool op_rollback(Guest *base, bool (*drop)(void *arg, GError **error), void *arg, GError **error)
{
    GuestLibguestfs *guest = self(base);

    return guest_channel_quit(guest->over.channel, error) && forget_disk(guest, error) && drop(arg, error) &&
           flush_reads(guest, error) && mount_all(guest, error) && start_runner(guest, error);
}

static bool shut_down(GuestLibguestfs *guest, GError **error)
{
    if (!guest_channel_quit(guest->over.channel, error))
        return false;
    if (CALL(guest, guestfs_umount_all(guest->g) < 0))
        return fail_call(guest, error, "unmount the guest's disk");
    if (CALL(guest, guestfs_shutdown(guest->g) < 0))
        return fail_call(guest, error, "end the appliance");
    return true;
}

static bool op_shutdown(Guest *base, GError **error)
{
    bool good = shut_down(self(base), error);

    if (!good)
        kill_qemu(&self(base)->watcher);
    guest_free(self(base));
    return good;
}

static const GuestOps libguestfs_ops = {
    .name = "libguestfs",
    GUEST_CHANNEL_OPS,
    .begin = op_begin,
    .end = op_end,
    .reached = op_reached,
    .checkpoint = op_checkpoint,
    .rollback = op_rollback,
    .shutdown = op_shutdown,
    .kill = op_kill,
};

/* Inside the caller's folder when its name is short enough for sockets, so that what a crash leaves is found
 * there. */
static bool make_sockdir(GuestLibguestfs *guest, const char *tmpdir, GError **error)
{
    g_autofree char *template = g_build_filename(tmpdir, "gXXXXXX", NULL);

    if (strlen(template) > SOCKDIR_MAX) {
        if (!file_make_short_tmpdir(&guest->sockdir, error))
            return false;
    } else {
        if (!g_mkdtemp_full(template, 0700))
            return fail_errno(error, "make the folder '%s'", template);
        guest->sockdir = g_steal_pointer(&template);
    }
    guest->control_path = g_build_filename(guest->sockdir, "control", NULL);
    return true;
}

static bool guest_open(GuestLibguestfs *guest, const GuestOpenSpec *spec, GError **error)
{
    if (!make_sockdir(guest, spec->tmpdir, error) ||
        !watcher_listen(&guest->watcher, guest->control_path, error))
        return false;
    guest->g = guestfs_create_flags(GUESTFS_CREATE_NO_ENVIRONMENT | GUESTFS_CREATE_NO_CLOSE_ON_EXIT);
    if (!guest->g)
        return fail_errno(error, "create a libguestfs handle");
    if (!configure(guest, spec, error) || !launch(guest, error) || !take_control_socket(guest, error))
        return false;
    if (guest->network && !guest_network_connect(guest->network, error))
        return false;
    if (!find_root(guest, spec, error))
        return false;
    return mount_all(guest, error) && upload_runner(guest, error) && start_runner(guest, error);
}

bool guest_libguestfs_open(const GuestOpenSpec *spec, Guest **ret, GError **error)
{
    GuestLibguestfs *guest;
    bool brings_kernel = spec->appliance || g_getenv("SUPERMIN_KERNEL") || g_getenv("LIBGUESTFS_PATH");

    if ((!brings_kernel && !host_kernel_find(NULL, NULL, error)) || !interrupt_check(error))
        return false;
    guest = g_new0(GuestLibguestfs, 1);
    guest->over.base.ops = &libguestfs_ops;
    guest->inspect = spec->inspect;
    guest->has_runner = spec->appliance != NULL;
    guest->mounts = g_ptr_array_new_with_free_func(g_free);
    guest->console = g_string_new(NULL);
    watcher_init(&guest->watcher);
    guest->watcher.disk_is_good = spec->disk_is_good;
    guest->watcher.disk_arg = spec->disk_arg;
    if (!guest_open(guest, spec, error)) {
        op_kill(&guest->over.base);
        return false;
    }
    *ret = &guest->over.base;
    return true;
}
