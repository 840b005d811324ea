/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of `kiln boot`: qemu on a working disk, its console on a socket
 * pair, and a thread that asks the check's URL again and again.
 *
 * The guest may be hostile (a vendor's image): it gets no outgoing network by
 * default, because qemu's user network would lead it to services on this
 * machine's loopback as well; qemu runs in its seccomp sandbox and has one drive, one card, one serial port.
 */
#include "baker/boot.h"

#include "base/accel.h"
#include "baker/console-text.h"
#include "base/error.h"
#include "base/http.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/process.h"
#include "base/scope.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define QEMU "qemu-system-x86_64"
#define DEFAULT_MEMORY (UINT64_C(512) << 20)
#define DEFAULT_CHECK_TIMEOUT 180.0
#define FORWARDS_MAX 32
#define CPUS_MAX 64
#define BODY_MAX (1024 * 1024)
#define CHECK_PAUSE_US (500 * 1000)
/* qemu accepts before the guest listens, so early questions hang; they grow patient. */
#define CHECK_FIRST_LIMIT 2.0
#define CHECK_LAST_LIMIT 15.0
#define END_GRACE 3.0

void boot_result_clear(BootResult *result)
{
    g_clear_pointer(&result->body, g_bytes_unref);
    g_clear_pointer(&result->console_tail, g_free);
}

/* --- the check --- */

typedef struct Check {
    const char *url;
    GThread *thread;
    int event; /* readable when it has succeeded */
    gint64 started;
    GMutex lock;
    GCond changed;
    bool stop;
    /* the thread's until it ended, but for @problem, which @lock guards */
    bool succeeded;
    int status;
    double seconds;
    GBytes *body;
    char *problem; /* of the last try */
} Check;

static double seconds_since(gint64 start)
{
    return (double)(g_get_monotonic_time() - start) / 1e6;
}

static bool check_once(Check *check, double limit)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) body = NULL;
    const char *message;
    int status = 0;

    if (http_get(check->url, BODY_MAX, limit, &status, &body, &error) && status >= 200 && status < 400) {
        check->succeeded = true;
        check->status = status;
        check->seconds = seconds_since(check->started);
        check->body = g_steal_pointer(&body);
        return true;
    }
    /* Behind the URL, which the final sentence names. */
    message = error ? strstr(error->message, ": ") : NULL;
    g_mutex_lock(&check->lock);
    g_free(check->problem);
    check->problem = error ? g_strdup(message ? message + 2 : error->message)
                           : g_strdup_printf("the server answered %d", status);
    g_mutex_unlock(&check->lock);
    return false;
}

/* False when the thread shall end. */
static bool check_pause(Check *check)
{
    AUTO_LOCK(&check->lock);
    gint64 until = g_get_monotonic_time() + CHECK_PAUSE_US;

    while (!check->stop && g_cond_wait_until(&check->changed, &check->lock, until))
        ;
    return !check->stop;
}

static gpointer check_main(gpointer arg)
{
    Check *check = arg;
    double limit = CHECK_FIRST_LIMIT;

    while (!check_once(check, limit)) {
        limit = MIN(limit + 1, CHECK_LAST_LIMIT);
        if (!check_pause(check))
            return NULL;
    }
    (void)eventfd_write(check->event, 1);
    return NULL;
}

static bool check_start(Check *check, const char *url, GError **error)
{
    g_mutex_init(&check->lock);
    g_cond_init(&check->changed);
    check->url = url;
    check->started = g_get_monotonic_time();
    check->event = eventfd(0, EFD_CLOEXEC);
    if (check->event < 0)
        return fail_errno(error, "make an eventfd");
    if (url)
        check->thread = g_thread_new("check", check_main, check);
    return true;
}

/* Call it when qemu is gone: a question under way ends with it. */
static void check_stop(Check *check)
{
    g_mutex_lock(&check->lock);
    check->stop = true;
    g_cond_broadcast(&check->changed);
    g_mutex_unlock(&check->lock);
    if (check->thread)
        (void)g_thread_join(check->thread);
    check->thread = NULL;
}

static void check_clear(Check *check)
{
    scope_close_fd(&check->event);
    g_clear_pointer(&check->body, g_bytes_unref);
    g_free(check->problem);
    g_mutex_clear(&check->lock);
    g_cond_clear(&check->changed);
}

/* --- qemu's command line --- */

static bool parse_port(const char *text, size_t size, guint64 *ret)
{
    g_autofree char *number = g_strndup(text, size);

    return g_ascii_string_to_unsigned(number, 10, 1, 65535, ret, NULL);
}

/* qemu would say it too, but its sentence names its own options. */
static bool port_is_free(guint64 port, GError **error)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    auto_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;

    if (fd >= 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return fail_errno(error, "use port %" G_GUINT64_FORMAT " of this machine for --forward", port);
    return true;
}

static bool add_forward(const char *text, GString *net, GError **error)
{
    const char *colon = strchr(text, ':');
    guint64 host, guest;

    if (!colon || !parse_port(text, (size_t)(colon - text), &host) ||
        !parse_port(colon + 1, strlen(colon + 1), &guest))
        return fail_code(error, KILN_ERROR_USAGE,
                         "--forward wants HOSTPORT:GUESTPORT, as in 8080:80, not '%s'", text);
    if (!port_is_free(host, error))
        return false;
    g_string_append_printf(net, ",hostfwd=tcp:127.0.0.1:%" G_GUINT64_FORMAT "-:%" G_GUINT64_FORMAT, host,
                           guest);
    return true;
}

static bool network_text(const BootOptions *options, char **ret, GError **error)
{
    g_autoptr(GString) net = g_string_new("user,id=net0");

    if (!options->network)
        g_string_append(net, ",restrict=on"); /* forwarded ports still work */
    for (size_t i = 0; options->forwards && options->forwards[i]; i++) {
        if (i == FORWARDS_MAX)
            return fail_code(error, KILN_ERROR_USAGE, "more than %d ports to forward", FORWARDS_MAX);
        if (!add_forward(options->forwards[i], net, error))
            return false;
    }
    *ret = g_string_free(g_steal_pointer(&net), FALSE);
    return true;
}

/* JSON, as commas in a socket's name would end an option. */
static char *disk_text(const char *socket)
{
    g_autoptr(json_t) disk =
        json_pack("{s:s, s:s, s:s, s:{s:s, s:{s:s, s:s}}}", "driver", "raw", "node-name", "disk0", "discard",
                  "unmap", "file", "driver", "nbd", "server", "type", "unix", "path", socket);

    return json_canonical(disk);
}

/* Debian's and Fedora's places; those with the variables inside, which then last as long as the machine. */
static bool find_ovmf(const char **ret, GError **error)
{
    static const char *const places[] = {"/usr/share/ovmf/OVMF.fd", "/usr/share/qemu/OVMF.fd", "/usr/share/edk2/ovmf/OVMF.fd",
                                         "/usr/share/OVMF/OVMF.fd"};

    for (size_t i = 0; i < G_N_ELEMENTS(places); i++)
        if (access(places[i], R_OK) == 0) {
            *ret = places[i];
            return true;
        }
    return fail(error, "there is no UEFI firmware for qemu on this machine; install the package ovmf");
}

static void add(GPtrArray *argv, const char *option, char *value /* taken; may be NULL */)
{
    g_ptr_array_add(argv, g_strdup(option));
    if (value)
        g_ptr_array_add(argv, value);
}

static bool qemu_argv(const BootOptions *options, const char *socket, int console, bool kvm, char ***ret,
                      GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    uint64_t memory = options->memory ? options->memory : DEFAULT_MEMORY;
    unsigned cpus = options->cpus ? options->cpus : 1;
    g_autofree char *net = NULL;
    const char *firmware = NULL;

    if (memory < (UINT64_C(64) << 20) || cpus > CPUS_MAX)
        return fail_code(error, KILN_ERROR_USAGE,
                         "a machine needs at least 64 MiB of memory and at most %d processors", CPUS_MAX);
    if (!network_text(options, &net, error) || (options->uefi && !find_ovmf(&firmware, error)))
        return false;

    add(argv, QEMU, NULL);
    add(argv, "-nodefaults", NULL);
    add(argv, "-no-user-config", NULL);
    add(argv, "-name", g_strdup("kiln-boot"));
    add(argv, "-sandbox",
        g_strdup("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"));
    add(argv, "-machine", g_strdup_printf("pc,accel=%s", kvm ? "kvm" : "tcg"));
    if (firmware)
        add(argv, "-bios", g_strdup(firmware));
    add(argv, "-cpu", g_strdup(kvm ? "host" : "max"));
    add(argv, "-smp", g_strdup_printf("%u", cpus));
    add(argv, "-m", g_strdup_printf("%" G_GUINT64_FORMAT "M", memory >> 20));
    add(argv, "-display", g_strdup("none"));
    add(argv, "-vga", g_strdup("std")); /* boot loaders want a text screen, seen or not */
    add(argv, "-chardev", g_strdup_printf("socket,id=console,fd=%d", console));
    add(argv, "-serial", g_strdup("chardev:console"));
    add(argv, "-blockdev", disk_text(socket));
    add(argv, "-device", g_strdup("virtio-blk-pci,drive=disk0,bootindex=1"));
    add(argv, "-netdev", g_steal_pointer(&net));
    add(argv, "-device", g_strdup("virtio-net-pci,netdev=net0,romfile="));
    add(argv, "-device", g_strdup("virtio-rng-pci"));
    g_ptr_array_add(argv, NULL);
    *ret = (char **)g_ptr_array_free(g_steal_pointer(&argv), FALSE);
    return true;
}

/* --- the machine --- */

typedef struct Machine {
    const BootOptions *options;
    WorkingDisk *disk;
    pid_t qemu;
    int console; /* our end */
    int input;   /* -1: none, or at its end */
    gint64 deadline;
    ConsoleText *text;
    Check check;
    GString *shown;     /* of the console, for options->until */
    bool seen;
} Machine;

static bool start_qemu(Machine *machine, bool kvm, GError **error)
{
    g_auto(GStrv) argv = NULL;
    int pair[2] = {-1, -1};
    auto_fd int theirs = -1;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return fail_errno(error, "make a socket pair");
    machine->console = pair[0];
    theirs = pair[1];
    if (!qemu_argv(machine->options, working_disk_socket(machine->disk), theirs, kvm, &argv, error))
        return false;

    const int keep[] = {theirs, -1};
    const ProcessSpec spec = {.argv = (const char *const *)argv, .keep_fds = keep, .inherit_stderr = true};
    return process_spawn(&spec, &machine->qemu, error);
}

static void end_qemu(Machine *machine)
{
    /* Nothing it holds is kept, so there is nothing to finish politely. */
    if (machine->qemu > 0) {
        (void)kill(machine->qemu, SIGKILL);
        process_end(machine->qemu, 0);
    }
    machine->qemu = 0;
}

static void machine_clear(Machine *machine)
{
    end_qemu(machine);
    check_stop(&machine->check);
    check_clear(&machine->check);
    scope_close_fd(&machine->console);
    working_disk_close(machine->disk);
    console_text_free(machine->text);
    if (machine->shown)
        g_string_free(machine->shown, TRUE);
}

/* A prompt has no newline behind it, so bytes are looked at, not lines. */
static void look_for_text(Machine *machine, const char *data, size_t size)
{
    const char *until = machine->options->until;

    if (!until || machine->seen)
        return;
    if (!machine->shown)
        machine->shown = g_string_new(NULL);
    g_string_append_len(machine->shown, data, (gssize)size);
    machine->seen = memmem(machine->shown->str, machine->shown->len, until, strlen(until)) != NULL;
    if (machine->shown->len > strlen(until) + sizeof(char[4096]))
        g_string_erase(machine->shown, 0, (gssize)(machine->shown->len - strlen(until)));
}

/* False at the end: qemu is gone. */
static bool pump_console(Machine *machine)
{
    char buf[4096];
    g_autoptr(GString) unused = g_string_new(NULL);
    ssize_t got = read(machine->console, buf, sizeof(buf));

    if (got <= 0)
        return got < 0 && (errno == EINTR || errno == EAGAIN);
    console_text_feed(machine->text, buf, (size_t)got, unused);
    look_for_text(machine, buf, (size_t)got);
    if (machine->options->on_console)
        machine->options->on_console(buf, (size_t)got, machine->options->arg);
    return true;
}

static void pump_input(Machine *machine)
{
    char buf[256];
    ssize_t got = read(machine->input, buf, sizeof(buf));

    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
        machine->input = -1;
    if (got > 0) /* a guest that does not listen loses keys, as a real one does */
        (void)send(machine->console, buf, (size_t)got, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static bool fail_timeout(Machine *machine, GError **error)
{
    Check *check = &machine->check;
    double limit = seconds_since(check->started);
    AUTO_LOCK(&check->lock);

    if (machine->options->until)
        return fail_code(error, KILN_ERROR_TIMEOUT, "the console did not show \"%s\" within %.0f s", machine->options->until, limit);
    if (!check->url)
        return fail_code(error, KILN_ERROR_TIMEOUT, "the machine did not power off within %.0f s", limit);
    return fail_code(error, KILN_ERROR_TIMEOUT, "%s did not answer within %.0f s (last try: %s)", check->url,
                     limit, check->problem ? check->problem : "still waiting");
}

static bool judge_end(Machine *machine, GError **error)
{
    int status = 0;
    bool reaped = process_wait(machine->qemu, END_GRACE, &status, NULL);

    if (reaped)
        machine->qemu = 0;
    if (reaped && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        return fail(error, QEMU " ended with %s %d", WIFEXITED(status) ? "exit code" : "signal",
                    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    if (machine->check.url)
        return fail(error, "the machine powered off before %s answered", machine->check.url);
    if (machine->options->until)
        return fail(error, "the machine powered off before its console showed \"%s\"", machine->options->until);
    return true;
}

static int poll_limit(const Machine *machine)
{
    gint64 left = machine->deadline - g_get_monotonic_time();

    return machine->deadline == 0 ? -1 : (int)CLAMP(left / 1000 + 1, 0, 60 * 1000);
}

/* Until the check has succeeded or the guest has ended. */
static bool watch(Machine *machine, GError **error)
{
    for (;;) {
        struct pollfd fds[] = {{machine->console, POLLIN, 0},
                               {machine->check.event, POLLIN, 0},
                               {interrupt_fd(), POLLIN, 0},
                               {machine->input, POLLIN, 0}};

        (void)poll(fds, G_N_ELEMENTS(fds), poll_limit(machine));
        if (!interrupt_check(error))
            return false;
        if (fds[0].revents && !pump_console(machine))
            return judge_end(machine, error);
        if (machine->seen)
            return true;
        if (fds[1].revents)
            return true;
        if (fds[3].revents)
            pump_input(machine);
        if (machine->deadline && g_get_monotonic_time() >= machine->deadline)
            return fail_timeout(machine, error);
    }
}

static bool open_disk(Store *store, const StoreImage *image, uint64_t size, WorkingDisk **ret, GError **error)
{
    g_autoptr(StoreMap) map = NULL;

    if (strcmp(image->kind, "disk") != 0)
        return fail_code(error, KILN_ERROR_USAGE, "only disks can be booted, and '%s' is an image of kind %s",
                         image->name, image->kind);
    if (!store_map_open(store, &image->map, &map, error))
        return false;
    if (size && (size < store_map_size(map) || size % STORE_BLOCK_SIZE))
        return fail_code(error, KILN_ERROR_USAGE, "the disk of '%s' can only be made larger, in steps of 4K", image->name);
    return working_disk_open(store, &image->map, size ? size : store_map_size(map), ret, error);
}

static bool run(Machine *machine, Store *store, const StoreImage *image, BootResult *ret, GError **error)
{
    const BootOptions *options = machine->options;
    double timeout = options->timeout > 0 ? options->timeout : options->check ? DEFAULT_CHECK_TIMEOUT : 0;

    if (!open_disk(store, image, options->disk_size, &machine->disk, error))
        return false;
    ret->accelerated = accel_find() == ACCEL_KVM;
    if (!start_qemu(machine, ret->accelerated, error) || !check_start(&machine->check, options->check, error))
        return false;
    machine->deadline = timeout > 0 ? machine->check.started + (gint64)(timeout * 1e6) : 0;
    return watch(machine, error);
}

bool boot_run(Store *store, const StoreImage *image, const BootOptions *options, BootResult *ret,
              GError **error)
{
    Machine machine = {.options = options, .console = -1, .input = options->input_fd, .check.event = -1};
    bool ok;

    machine.text = console_text_new();
    machine.check.started = g_get_monotonic_time();
    ok = run(&machine, store, image, ret, error);

    end_qemu(&machine);
    check_stop(&machine.check);
    ret->checked = ok && (machine.check.succeeded || machine.seen);
    ret->status = machine.check.status;
    ret->seconds = ok && machine.check.succeeded ? machine.check.seconds : seconds_since(machine.check.started);
    ret->body = g_steal_pointer(&machine.check.body);
    ret->console_tail = console_text_tail(machine.text);
    machine_clear(&machine);
    return ok;
}
